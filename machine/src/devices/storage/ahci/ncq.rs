//! Native command queueing: READ and WRITE FPDMA QUEUED (ATA8-ACS, section 7.45).

use std::sync::Arc;

use rqemu_block::{CompletionSink, Errno, ErrorAction, IoResult, Op, Request, Seg, Submitted};

use super::super::blk::Direction;
use super::port::{pieces, Port};
use crate::device::Cx;

/// Commands that can be under way.
pub const SLOTS: usize = 32;

const READ: u8 = 0x60;
const WRITE: u8 = 0x61;
const SECTOR: u64 = 512;
/// Marks the tags of queued commands among a drive's.
const QUEUED: u64 = 1 << 40;

/// Most bytes that queued commands hold, unless one alone is larger.
const MOST: u64 = 32 << 20;

/// Whether a command is queued.
pub fn is_queued(code: u8) -> bool {
    matches!(code, READ | WRITE)
}

/// A queued command under way.
pub struct Queued {
    tag: u8,
    serial: u32,
    op: Op,
    offset: u64,
    buf: Vec<u8>,
    table: Vec<(u64, u32)>,
    /// Failed, to be repeated when the machine goes on.
    stalled: bool,
}

impl Port {
    /// Begins a queued command.
    pub(super) fn begin_queued(&mut self, cx: &mut Cx<'_>, slot: u8, f: &[u8; 64]) -> bool {
        let lba = u64::from_le_bytes([f[4], f[5], f[6], f[8], f[9], f[10], 0, 0]);
        let sectors = match u64::from(f[3]) | u64::from(f[11]) << 8 {
            0 => 0x1_0000,
            n => n,
        };
        let (tag, fua) = (f[12] >> 3, f[7] & 0x80 != 0);
        let len = sectors * SECTOR;
        let waiting: usize = self.queued.iter().map(|q| q.buf.len()).sum();
        if waiting > 0 && waiting as u64 + len > MOST {
            // Waits until the queue has run empty.
            return false;
        }
        let (table, total) = self.hw.take_table();
        self.drive.tf.status = super::super::ata::status::DRDY | super::super::ata::status::DSC;
        self.drive.tf.error = 0;
        self.hw.accept_queued(cx, &self.drive, slot);
        let size = self.drive.disk.as_ref().map_or(0, |d| d.backend.len());
        let fits = lba.checked_mul(SECTOR).and_then(|o| o.checked_add(len)).is_some_and(|end| end <= size);
        if !fits || total < len || self.queued.iter().any(|q| q.tag == tag) {
            self.hw.send_device_bits(cx, &mut self.drive, tag, true);
            return false;
        }
        let op = if f[2] == READ { Op::Read } else { Op::Write { fua } };
        let mut buf = vec![0; len as usize];
        if op != Op::Read {
            pieces(&table, 0, buf.len(), |addr, r| {
                if let Some(d) = buf.get_mut(r) {
                    let _ = cx.dma_read(addr, d);
                }
            });
        }
        self.drive.queued_serial = self.drive.queued_serial.wrapping_add(1);
        let serial = self.drive.queued_serial;
        self.queued.push(Queued { tag, serial, op, offset: lba * SECTOR, buf, table, stalled: false });
        self.submit_queued(cx, serial);
        true
    }

    fn submit_queued(&mut self, cx: &mut Cx<'_>, serial: u32) {
        let sink: Arc<dyn CompletionSink> = cx.m.block_sink(cx.dev);
        let number = self.drive.number();
        let Some(q) = self.queued.iter_mut().find(|q| q.serial == serial) else { return };
        let Some(d) = &self.drive.disk else { return };
        q.stalled = false;
        // SAFETY: the buffer's heap memory stays where it is until the request has ended: the entry is removed only by
        // its completion, or after waiting for the backend.
        let seg = [unsafe { Seg::new(q.buf.as_mut_ptr(), q.buf.len()) }];
        let tag = QUEUED | u64::from(number) << 32 | u64::from(serial);
        let req = Request { op: q.op, offset: q.offset, len: q.buf.len() as u64, iov: &seg, tag };
        if let Submitted::Done(r) = d.backend.submit(req, &sink) {
            self.queued_done(cx, serial, r);
        }
    }

    /// The block request of a queued command has ended.
    pub(super) fn queued_done(&mut self, cx: &mut Cx<'_>, serial: u32, result: IoResult) {
        let Some(i) = self.queued.iter().position(|q| q.serial == serial) else { return };
        let mut failed = false;
        if let Err(e) = result {
            match self.decide(cx, i, e) {
                ErrorAction::Stop => {
                    self.queued[i].stalled = true;
                    return;
                }
                ErrorAction::Ignore => {}
                ErrorAction::Report => failed = true,
            }
        }
        let q = self.queued.remove(i);
        if q.op == Op::Read && !failed {
            pieces(&q.table, 0, q.buf.len(), |addr, r| {
                let _ = cx.dma_write(addr, q.buf.get(r).unwrap_or_default());
            });
        }
        self.hw.send_device_bits(cx, &mut self.drive, q.tag, failed);
        if self.queued.is_empty() {
            self.next(cx);
        }
    }

    fn decide(&self, cx: &mut Cx<'_>, i: usize, e: Errno) -> ErrorAction {
        let dir = if self.queued[i].op == Op::Read { Direction::Read } else { Direction::Write };
        self.drive.disk.as_ref().map_or(ErrorAction::Report, |d| d.failed(cx, dir, e))
    }

    /// Repeats what failed before the machine stopped.
    pub(super) fn resume_queued(&mut self, cx: &mut Cx<'_>) {
        let again: Vec<u32> = self.queued.iter().filter(|q| q.stalled).map(|q| q.serial).collect();
        again.into_iter().for_each(|s| self.submit_queued(cx, s));
    }

    /// Waits for all queued commands and forgets them.
    pub(super) fn drop_queued(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        if let Some(d) = &self.drive.disk {
            d.backend.drain();
        }
        // Their completions, if they are still to come, find nobody.
        self.queued.clear();
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.drop_queued();
    }
}
