//! Nonsense from a guest: random values into every register of a device, with guest memory full of nonsense as well.
//!
//! [`run`] builds a whole machine around one device class ([`setup`]) and lets a seeded generator ([`guest`]) act as a
//! hostile driver: ports, MMIO, configuration space and BARs, bus mastering into random memory, virtqueues that point
//! anywhere, input from the outside, timers, resets and unplugging. It fails when a single access takes more processor
//! time than [`ACCESS_LIMIT`] or when memory grows beyond [`GROWTH_LIMIT`]; a panic fails by itself, and a hang is
//! reported by the watchdog of the caller ([`Progress`]).
//!
//! The unit tests run a short slice of each class; `make fuzz` runs it for as long as one likes.

mod guest;
mod rng;
mod setup;
#[cfg(test)]
mod tests;

pub use rng::Rng;
pub use setup::Silent;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use guest::Guest;

/// Processor time that one access of a guest may cost (the build may be unoptimised, the machine loaded).
pub const ACCESS_LIMIT: Duration = Duration::from_secs(2);
/// Resident memory that a run may add, besides the RAM of the guest.
pub const GROWTH_LIMIT: u64 = 192 << 20;

/// What a watchdog looks at: a count of steps, which stands still when one hangs.
pub type Progress = AtomicU64;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Accesses and other steps.
    pub steps: u64,
    /// Accesses that went to registers of the device itself.
    pub hits: u64,
    /// Resets of the device or of the machine.
    pub resets: u64,
}

/// Classes that [`run`] can build a machine for; the others with the reason why not.
pub fn classes() -> (Vec<&'static str>, Vec<(&'static str, String)>) {
    let (mut can, mut cannot) = (Vec::new(), Vec::new());
    for c in crate::qom::ALL_CLASSES {
        match setup::machine_with(c.name) {
            Ok(_) => can.push(c.name),
            Err(e) => cannot.push((c.name, e)),
        }
    }
    (can, cannot)
}

/// Drives the device `class` with `steps` random steps.
///
/// # Errors
/// No machine can be built for the class, an access took too long, or memory grew too much.
pub fn run(class: &str, seed: u64, steps: u64, progress: &Progress) -> Result<Report, String> {
    let (built, target) = setup::machine_with(class)?;
    let mut g = Guest::new(built, target, seed);
    let before = resident();
    for i in 0..steps {
        let start = cpu_time();
        let what = g.step();
        let took = cpu_time().saturating_sub(start);
        progress.fetch_add(1, Ordering::Relaxed);
        if took > ACCESS_LIMIT {
            return Err(format!("{class}, seed {seed}, step {i}: {what:?} took {took:?}"));
        }
    }
    let grown = resident().saturating_sub(before).saturating_sub(setup::RAM);
    if grown > GROWTH_LIMIT {
        return Err(format!("{class}, seed {seed}: memory grew by {} MiB", grown >> 20));
    }
    Ok(g.report())
}

/// Processor time of this thread.
fn cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live local.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Resident memory of the process in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}
