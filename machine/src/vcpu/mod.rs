//! vCPU threads: pausing, jobs on a parked vCPU, and the contract with accelerators.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

/// Work that runs on a vCPU's own thread.
pub type Job = Box<dyn FnOnce(&mut dyn std::any::Any) + Send>;

/// One vCPU thread as others see it.
#[derive(Default)]
struct Slot {
    tid: i32,
    pthread: libc::pthread_t,
    parked: bool,
    jobs: Vec<Job>,
    /// Makes the vCPU leave guest mode (sets `immediate_exit`).
    kick: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// Pauses, resumes and ends vCPU threads.
///
/// A pause is a request: each vCPU leaves guest mode, parks at the top of its loop and stays there until resumed.
/// Parked vCPUs run jobs (register access and the like). Nobody may wait for vCPUs while holding the machine lock.
#[derive(Default)]
pub struct VcpuControl {
    pause: AtomicBool,
    quit: AtomicBool,
    slots: Mutex<Vec<Slot>>,
    changed: Condvar,
    /// Times that a vCPU was kicked (statistics).
    pub kicks: AtomicU64,
}

impl VcpuControl {
    /// Makes all vCPUs stop as soon as possible; does not wait.
    pub fn request_pause(&self) {
        if !self.pause.swap(true, Ordering::SeqCst) {
            self.kick_all();
        }
    }

    /// Lets vCPUs run.
    pub fn resume(&self) {
        // Under the lock, so that a vCPU between its check and its wait cannot miss it.
        let _slots = self.slots.lock();
        self.pause.store(false, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Ends all vCPU threads; they must be joined afterwards.
    pub fn quit(&self) {
        {
            let _slots = self.slots.lock();
            self.quit.store(true, Ordering::SeqCst);
            self.pause.store(true, Ordering::SeqCst);
            self.changed.notify_all();
        }
        self.kick_all();
    }

    /// Whether vCPUs are to stop.
    pub fn pausing(&self) -> bool {
        self.pause.load(Ordering::SeqCst)
    }

    /// Whether vCPU threads are to end.
    pub fn quitting(&self) -> bool {
        self.quit.load(Ordering::SeqCst)
    }

    /// Kicks all vCPUs out of guest mode.
    pub fn kick_all(&self) {
        let n = self.slots.lock().len();
        for i in 0..n {
            self.kick(i);
        }
    }

    /// Kicks one vCPU out of guest mode.
    pub fn kick(&self, index: usize) {
        let slots = self.slots.lock();
        let Some(s) = slots.get(index) else { return };
        if s.parked || s.tid == 0 {
            return;
        }
        self.kicks.fetch_add(1, Ordering::Relaxed);
        if let Some(k) = &s.kick {
            k();
        }
        // SAFETY: the thread is alive: it clears its slot (under this lock) before it ends.
        unsafe { libc::pthread_kill(s.pthread, kick_signal()) };
    }

    /// Waits until every vCPU is parked. Not with the machine lock held.
    pub fn wait_parked(&self) {
        let mut slots = self.slots.lock();
        while slots.iter().any(|s| !s.parked && s.tid != 0) {
            self.changed.wait(&mut slots);
        }
    }

    /// Whether every vCPU is parked.
    pub fn all_parked(&self) -> bool {
        self.slots.lock().iter().all(|s| s.parked || s.tid == 0)
    }

    /// Runs `job` on the (parked) vCPU `index` and waits for it. `None` if there is no such vCPU.
    pub fn run_on<R: Send + 'static>(
        &self,
        index: usize,
        job: impl FnOnce(&mut dyn std::any::Any) -> R + Send + 'static,
    ) -> Option<R> {
        let out = Arc::new(Mutex::new(None));
        let done = Arc::new(AtomicBool::new(false));
        let (out2, done2) = (out.clone(), done.clone());
        let mut slots = self.slots.lock();
        slots.get_mut(index).filter(|s| s.tid != 0)?.jobs.push(Box::new(move |v| {
            *out2.lock() = Some(job(v));
            done2.store(true, Ordering::SeqCst);
        }));
        self.changed.notify_all();
        while !done.load(Ordering::SeqCst) {
            if slots.get(index).is_none_or(|s| s.tid == 0) {
                return None;
            }
            self.changed.wait(&mut slots);
        }
        let r = out.lock().take();
        r
    }

    /// Thread ids by vCPU index (0 = not started).
    pub fn tids(&self) -> Vec<i32> {
        self.slots.lock().iter().map(|s| s.tid).collect()
    }

    // ---- called by vCPU threads ------------------------------------------------------------------------------

    /// Registers the calling thread as vCPU `index`.
    pub fn enter(&self, index: usize, kick: Arc<dyn Fn() + Send + Sync>) {
        install_kick_handler();
        let mut slots = self.slots.lock();
        while slots.len() <= index {
            slots.push(Slot::default());
        }
        // SAFETY: plain calls without arguments.
        let (tid, pthread) = unsafe { (libc::gettid(), libc::pthread_self()) };
        slots[index] = Slot { tid, pthread, parked: false, jobs: Vec::new(), kick: Some(kick) };
        self.changed.notify_all();
    }

    /// Unregisters the calling thread.
    pub fn leave(&self, index: usize) {
        let mut slots = self.slots.lock();
        if let Some(s) = slots.get_mut(index) {
            *s = Slot::default();
        }
        self.changed.notify_all();
    }

    /// Parks while a pause is asked for, running jobs. `false` if the thread is to end.
    pub fn park(&self, index: usize, vcpu: &mut dyn std::any::Any) -> bool {
        let mut slots = self.slots.lock();
        loop {
            let Some(s) = slots.get_mut(index) else { return false };
            let jobs = std::mem::take(&mut s.jobs);
            if !jobs.is_empty() {
                s.parked = true;
                parking_lot::MutexGuard::unlocked(&mut slots, || jobs.into_iter().for_each(|j| j(vcpu)));
                self.changed.notify_all();
                continue;
            }
            if self.quitting() || !self.pausing() {
                s.parked = false;
                return !self.quitting();
            }
            s.parked = true;
            self.changed.notify_all();
            self.changed.wait(&mut slots);
        }
    }

    /// Waits until `n` vCPU threads have registered.
    pub fn wait_started(&self, n: usize) {
        let mut slots = self.slots.lock();
        while slots.iter().filter(|s| s.tid != 0).count() < n {
            self.changed.wait(&mut slots);
        }
    }
}

/// Signal that interrupts `KVM_RUN`.
pub fn kick_signal() -> i32 {
    libc::SIGUSR1
}

fn install_kick_handler() {
    extern "C" fn nothing(_: i32) {}
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler does nothing, so it is async-signal-safe; the structure is fully initialised.
        unsafe {
            let mut sa: libc::sigaction = std::mem::zeroed();
            sa.sa_sigaction = nothing as *const () as usize;
            libc::sigaction(kick_signal(), &sa, std::ptr::null_mut());
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_jobs_and_quit() {
        let c = Arc::new(VcpuControl::default());
        c.request_pause();
        let c2 = c.clone();
        let t = std::thread::spawn(move || {
            c2.enter(0, Arc::new(|| {}));
            let mut x = 5i32;
            while c2.park(0, &mut x) {
                std::thread::yield_now();
            }
            c2.leave(0);
        });
        c.wait_started(1);
        c.wait_parked();
        let r = c.run_on(0, |v| {
            v.downcast_mut::<i32>().map(|x| {
                *x += 1;
                *x
            })
        });
        assert_eq!(r, Some(Some(6)));
        c.resume();
        c.quit();
        t.join().unwrap();
        assert_eq!(c.tids(), [0]);
    }
}
