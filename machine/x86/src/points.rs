//! What a debugger wants to be told of: breakpoints, watchpoints. (The debug registers of the guest: [`crate::debug`].)
//!
//! Breakpoints at addresses are decoded into the code before them. A page with a watchpoint is accessed the slow way; a
//! block whose instruction hits one is left before that instruction, which is then executed alone.

use crate::cpu::{Cpu, Exit};
use crate::fault::{Exception, R};
use crate::tlb::PAGE_MASK;

/// A data watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Linear address.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Reads count, too.
    pub read: bool,
    /// What [`Cpu::take_hit`] says.
    pub id: usize,
}

/// All points of a debugger. They end [`Cpu::run`] with [`Exit::Debug`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Stop before INT3.
    pub int3: bool,
    /// Stop before the instructions at these linear addresses.
    pub code: Vec<u64>,
    /// Stop after instructions that access these.
    pub data: Vec<Watch>,
}

impl Cpu {
    /// Replaces the debugger's points. Code is decoded anew.
    pub fn set_points(&mut self, points: Points) {
        self.points = (points != Points::default()).then(|| Box::new(points));
        self.hit = None;
        self.flush_code();
        self.flush_tlb_all();
    }

    /// Whether INT3 stops.
    pub fn stops_at_int3(&self) -> bool {
        self.points.as_ref().is_some_and(|p| p.int3)
    }

    /// Lets INT3 stop, or not.
    pub fn stop_at_int3(&mut self, stop: bool) {
        if let Some(p) = &mut self.points {
            p.int3 = stop;
        }
    }

    /// The watchpoint that was hit.
    pub fn take_hit(&mut self) -> Option<usize> {
        self.hit.take()
    }

    /// Linear address of the next instruction.
    pub fn linear_pc(&self) -> u64 {
        self.fetch_lin()
    }

    /// Whether a breakpoint is at the linear address.
    pub(crate) fn breaks_at(&self, lin: u64) -> bool {
        self.points.as_ref().is_some_and(|p| p.code.contains(&lin))
    }

    /// Whether the page has a watchpoint.
    pub(crate) fn watched_page(&self, page: u64) -> bool {
        let in_page =
            |w: &Watch| w.addr & PAGE_MASK <= page && page <= w.addr.wrapping_add(w.len - 1) & PAGE_MASK;
        self.points.as_ref().is_some_and(|p| p.data.iter().any(in_page))
    }

    /// An access to a page with a watchpoint: stops after the instruction if it is watched.
    #[cold]
    pub(crate) fn note_watched(&mut self, lin: u64, size: usize, write: bool) -> R<()> {
        let hits = |w: &&Watch| {
            (write || w.read) && lin < w.addr.wrapping_add(w.len) && w.addr < lin.wrapping_add(size as u64)
        };
        let Some(id) = self.points.as_ref().and_then(|p| p.data.iter().find(hits)).map(|w| w.id) else {
            return Ok(());
        };
        if !self.stepping && !self.blk.is_null() {
            return self.raise(Exception::new(Exception::RETRY));
        }
        self.hit = Some(id);
        self.exit = Some(Exit::Debug);
        Ok(())
    }
}
