//! `info mem` and `info tlb`: what the page tables of a CPU map.

use crate::commands::cpu;
use crate::commands::memory::read_physical;
use crate::commands::paging::{walk, Page, Truncated};
use crate::hmp::{Args, HmpCx};
use rqemu_machine::cpu::CpuRegs;
use std::fmt::Write;

/// Registers of the chosen CPU if it translates addresses; prints why not.
fn paged(h: &mut HmpCx<'_, '_, '_>) -> Option<CpuRegs> {
    let regs = cpu::registers(h.cx, h.cx.mon.cpu);
    match &regs {
        None => h.line("No CPU available"),
        Some(r) if r.cr[0] >> 31 & 1 == 0 => {
            h.line("PG disabled");
            return None;
        }
        Some(_) => {}
    }
    regs
}

fn end(h: &mut HmpCx<'_, '_, '_>, walked: Result<(), Truncated>) {
    if walked.is_err() {
        h.line("(the tables map more than can be shown)");
    }
}

pub(super) fn tlb(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let Some(regs) = paged(h) else { return };
    let mut out = String::new();
    let walked = walk(&mut |at, buf| read_physical(h.cx, at, buf), &regs, &mut |page| {
        let flags: String =
            [(63, 'X'), (8, 'G'), (7, 'P'), (6, 'D'), (5, 'A'), (4, 'C'), (3, 'T'), (2, 'U'), (1, 'W')]
                .map(|(bit, letter)| if page.entry >> bit & 1 != 0 { letter } else { '-' })
                .iter()
                .collect();
        let _ = writeln!(out, "{:016x}: {:016x} {flags}", page.shown(), page.frame);
    });
    h.out.push_str(&out);
    end(h, walked);
}

/// Neighbouring pages with the same rights.
struct Range {
    first: Page,
    end: u64,
}

impl Range {
    fn line(&self) -> String {
        let (start, end) = (self.first.shown(), self.first.shown_at(self.end));
        let right = |bit: u32, letter| if self.first.rights >> bit & 1 != 0 { letter } else { '-' };
        let size = self.end - self.first.addr;
        format!("{start:016x}-{end:016x} {size:016x} {}r{}\n", right(2, 'u'), right(1, 'w'))
    }
}

pub(super) fn mem(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let Some(regs) = paged(h) else { return };
    let (mut out, mut open) = (String::new(), None::<Range>);
    let walked = walk(&mut |at, buf| read_physical(h.cx, at, buf), &regs, &mut |page| match &mut open {
        Some(r) if r.end == page.addr && r.first.rights == page.rights => r.end += page.size,
        _ => {
            out.extend(open.take().map(|r| r.line()));
            open = Some(Range { end: page.addr + page.size, first: page });
        }
    });
    out.extend(open.map(|r| r.line()));
    h.out.push_str(&out);
    end(h, walked);
}
