//! `thread=single`: the processors take turns, as on a machine with one core that they share.
//!
//! Each keeps its own thread, but only the one whose turn it is executes. Turns go in the order of asking; one that has
//! to wait longer than a slice makes the running one hand over. The lock is the innermost: nothing is taken under it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rqemu_x86::bus::{Request, RunControl};

/// How long a processor runs while others wait.
const SLICE: Duration = Duration::from_millis(2);

#[derive(Default)]
struct Queue {
    /// The next number to give out.
    next: u64,
    /// The number whose turn it is.
    serving: u64,
    /// Makes the running processor look up.
    running: Option<Arc<RunControl>>,
}

/// The turns of one machine's processors.
#[derive(Default)]
pub struct Turns {
    queue: Mutex<Queue>,
    moved: Condvar,
}

/// The place of one processor.
#[derive(Clone)]
pub struct Turn {
    turns: Arc<Turns>,
    word: Arc<RunControl>,
}

/// A turn being used; it ends when this is dropped.
pub struct Mine<'a>(&'a Turns);

impl Turns {
    /// A place for the processor that `word` reaches.
    pub fn join(self: &Arc<Self>, word: Arc<RunControl>) -> Turn {
        Turn { turns: self.clone(), word }
    }
}

impl Turn {
    /// Waits for the turn.
    pub fn take(&self) -> Mine<'_> {
        let mut q = self.turns.queue.lock();
        let number = q.next;
        q.next += 1;
        while q.serving != number {
            if self.turns.moved.wait_for(&mut q, SLICE).timed_out() {
                if let Some(w) = &q.running {
                    w.request(Request::EXIT);
                }
            }
        }
        q.running = Some(self.word.clone());
        Mine(&self.turns)
    }
}

impl Drop for Mine<'_> {
    fn drop(&mut self) {
        let mut q = self.0.queue.lock();
        q.serving += 1;
        q.running = None;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn one_runs_at_a_time_and_gives_way_when_another_waits() {
        let turns = Arc::new(Turns::default());
        let inside = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let word = Arc::new(RunControl::new());
                let (turn, inside) = (turns.join(word.clone()), inside.clone());
                std::thread::spawn(move || {
                    for _ in 0..20 {
                        let mine = turn.take();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        // Runs until asked, as a processor does; the last one is asked by nobody.
                        for _ in 0..20 {
                            if word.take() & Request::EXIT != 0 {
                                break;
                            }
                            std::thread::sleep(Duration::from_micros(500));
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(mine);
                    }
                })
            })
            .collect();
        for t in threads {
            t.join().unwrap();
        }
        assert_eq!(turns.queue.lock().serving, 60);
    }
}
