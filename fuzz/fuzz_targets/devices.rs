//! A hostile guest against every device class: `devices [--seed N] [--runs STEPS] [--seconds N] [CLASS...]`. Goes round
//! the classes with new seeds until the time is over.
#![cfg_attr(fuzzing, no_main)]

use rqemu_fuzz::Args;
use rqemu_machine::fuzz::{self, Progress};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A step that takes longer than this is taken for a hang.
const STUCK: Duration = Duration::from_secs(60);
static PROGRESS: Progress = Progress::new(0);
static NOW: AtomicUsize = AtomicUsize::new(0);

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: (u64, u8)| {
    let (can, _) = fuzz::classes();
    fuzz::run(can[usize::from(data.1) % can.len()], data.0, 2000, &PROGRESS).unwrap();
});

#[cfg(not(fuzzing))]
fn main() {
    let args = Args::get();
    let (mut can, cannot) = fuzz::classes();
    cannot.iter().for_each(|(c, why)| eprintln!("left out: {c}: {why}"));
    if !args.words.is_empty() {
        can.retain(|c| args.words.iter().any(|w| w == c));
    }
    assert!(!can.is_empty(), "no such class");
    let names = can.clone();
    std::thread::spawn(move || watch(&names));
    let start = Instant::now();
    let (mut seed, mut steps) = (args.seed, 0);
    let mut failed = false;
    'all: loop {
        for (i, class) in can.iter().enumerate() {
            if start.elapsed() > args.limit {
                break 'all;
            }
            NOW.store(i, Ordering::Relaxed);
            let run = std::panic::catch_unwind(|| fuzz::run(class, seed, args.runs, &PROGRESS));
            match run {
                Ok(Ok(r)) => steps += r.steps,
                Ok(Err(e)) => {
                    eprintln!("FAILED {e}");
                    failed = true;
                }
                Err(_) => {
                    eprintln!("FAILED {class} seed {seed}: panic");
                    failed = true;
                }
            }
        }
        if failed {
            break;
        }
        seed += 1;
    }
    println!(
        "{steps} steps, seeds {} to {seed}: {}",
        args.seed,
        if failed { "failures" } else { "no failure" }
    );
    std::process::exit(i32::from(failed));
}

/// Ends the program when nothing moves for a while.
#[cfg_attr(fuzzing, allow(dead_code))]
fn watch(names: &[&str]) {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = PROGRESS.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        } else if since.elapsed() > STUCK {
            eprintln!("FAILED: {} hangs at step {now}", names[NOW.load(Ordering::Relaxed)]);
            std::process::abort();
        }
    }
}
