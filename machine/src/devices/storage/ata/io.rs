//! Data transfers of disks, PIO and DMA, as a chain of block requests: a step queues one request and says what
//! follows; [`Drive::pump`] submits requests until one stays pending or none is left.

use std::sync::Arc;

use rqemu_block::{CompletionSink, Errno, IoResult, Op, Request, Seg, Submitted};

use super::super::blk::Direction;
use super::{status, AfterPio, AtaPort, Dma, Drive, DMA_CHUNK};
use crate::device::Cx;

/// Kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoOp {
    /// Fill the buffer.
    Read,
    /// Write the buffer.
    Write,
    /// Flush.
    Flush,
    /// Discard; the length is in bytes.
    Discard(u64),
}

/// A request on the way: `len` bytes of the drive's buffer from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoRequest {
    /// What.
    pub op: IoOp,
    /// Byte offset on the medium.
    pub offset: u64,
    /// Bytes of the buffer.
    pub len: usize,
    next: Next,
}

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// A PIO block of this many sectors was read.
    PioRead(u32),
    /// A PIO block of this many sectors was written.
    PioWrite(u32),
    /// A flush ended the command.
    Flush,
    /// A piece of a DMA read is in the buffer.
    DmaRead,
    /// A piece of a DMA write is on the disk.
    DmaWrite,
    /// One discarded range; the next is at this byte of the list.
    Trim(usize),
    /// Sectors for a block of packet data; the block's size in bytes.
    Packet(usize),
    /// Sectors for a piece of packet data by DMA.
    PacketDma(usize),
}

fn next_tag(tag: u64) -> u64 {
    (tag & !0xffff_ffff) | u64::from((tag as u32).wrapping_add(1))
}

/// What became of a request.
pub(super) enum Verdict {
    Good,
    Failed(Errno),
    /// The machine stops; the request is repeated when it continues.
    Retry,
}

/// Requests of a drive.
#[derive(Default)]
pub(super) struct JobState {
    /// Waits to be submitted.
    queued: Option<IoRequest>,
    /// Pending in the block layer, with the buffer that it uses: nothing else touches that until it completes.
    pending: Option<(IoRequest, Vec<u8>)>,
    /// Failed, to be repeated when the machine continues.
    retry: Option<IoRequest>,
    sink: Option<Arc<dyn CompletionSink>>,
    /// Tag of the latest request: the drive's number in the upper half, a counter in the lower.
    tag: u64,
}

impl JobState {
    pub(super) fn number(&self) -> u32 {
        (self.tag >> 32) as u32
    }

    pub(super) fn busy(&self) -> bool {
        self.queued.is_some() || self.retry.is_some() || self.pending.is_some()
    }
}

impl Drive {
    /// Queues the one request of the present step.
    pub(super) fn queue(&mut self, op: IoOp, offset: u64, len: usize, next: Next) {
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        self.job.queued = Some(IoRequest { op, offset, len, next });
    }

    /// Forgets all requests; waits for the one that is pending.
    pub(super) fn drop_requests(&mut self) {
        if let Some((_, buf)) = self.job.pending.take() {
            if let Some(d) = &self.disk {
                d.backend.drain();
            }
            // Its completion, if it is still to come, finds nobody with its tag.
            self.job.tag = next_tag(self.job.tag);
            self.buf = buf;
        }
        self.job.queued = None;
        self.job.retry = None;
    }

    /// Gives the drive its number among those of its controller, which comes back in the tags of completions.
    pub fn set_number(&mut self, number: u32) {
        self.job.tag = u64::from(number) << 32;
    }

    /// Submits what is queued, and what follows from it, until a request stays pending.
    pub fn pump(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        while let Some(r) = self.job.queued.take() {
            match self.submit(cx, r) {
                Submitted::Done(result) => self.finish(cx, port, r, result),
                Submitted::Pending => return,
            }
        }
    }

    /// A pending request has ended.
    pub fn completed(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, tag: u64, result: IoResult) {
        if tag != self.job.tag {
            return;
        }
        if let Some((r, buf)) = self.job.pending.take() {
            self.buf = buf;
            self.finish(cx, port, r, result);
            self.pump(cx, port);
        }
    }

    /// The machine runs again: repeats a request that had failed.
    pub fn resume(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        if let Some(r) = self.job.retry.take() {
            self.job.queued = Some(r);
            self.pump(cx, port);
        }
    }

    /// The one place where requests reach the block layer. The buffer leaves the drive for as long as the request is
    /// pending.
    fn submit(&mut self, cx: &mut Cx<'_>, r: IoRequest) -> Submitted {
        let Some(d) = &self.disk else { return Submitted::Done(Err(Errno::ENOMEDIUM)) };
        let sink = self.job.sink.get_or_insert_with(|| cx.m.block_sink(cx.dev));
        self.job.tag = next_tag(self.job.tag);
        let (op, len) = match r.op {
            IoOp::Read => (Op::Read, r.len as u64),
            IoOp::Write => (Op::Write { fua: false }, r.len as u64),
            IoOp::Flush => (Op::Flush, 0),
            IoOp::Discard(n) => (Op::Discard, n),
        };
        let mut buf = std::mem::take(&mut self.buf);
        let len_in_buf = r.len.min(buf.len());
        // SAFETY: the heap memory of `buf` stays where it is until the request has ended: a pending request keeps it in
        // `pending`, which is emptied only by the completion or after waiting for it (also when the drive is dropped).
        let seg = [unsafe { Seg::new(buf.as_mut_ptr(), len_in_buf) }];
        let iov = if matches!(r.op, IoOp::Read | IoOp::Write) { &seg[..] } else { &[] };
        let out = d.backend.submit(Request { op, offset: r.offset, len, iov, tag: self.job.tag }, sink);
        match out {
            Submitted::Pending => self.job.pending = Some((r, buf)),
            Submitted::Done(_) => self.buf = buf,
        }
        out
    }

    /// A request has ended.
    fn finish(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, r: IoRequest, result: IoResult) {
        let packet = matches!(r.next, Next::Packet(_) | Next::PacketDma(_));
        let dir = if r.op == IoOp::Read { Direction::Read } else { Direction::Write };
        match self.check(cx, dir, result) {
            Verdict::Retry => {
                self.job.retry = Some(r);
                return;
            }
            Verdict::Failed(e) if packet => return self.packet_io_error(cx, port, e),
            Verdict::Failed(_) => return self.io_error(cx, port),
            Verdict::Good => {}
        }
        match r.next {
            Next::PioRead(n) => {
                self.tf.status &= !status::BSY;
                self.step(n);
                self.offer(r.len, AfterPio::Read);
                port.irq(cx);
            }
            Next::PioWrite(n) => {
                self.tf.status &= !status::BSY;
                self.step(n);
                if self.tf.nsector == 0 {
                    self.stop_pio();
                } else {
                    let n = self.tf.nsector.min(self.block);
                    self.request(n as usize * 512, AfterPio::Write);
                }
                port.irq(cx);
            }
            Next::Flush => {
                self.tf.status = status::DRDY | status::DSC;
                port.irq(cx);
            }
            Next::DmaRead => {
                port.dma_to_memory(cx, self.dma_pos, self.buf.get(..r.len).unwrap_or_default());
                self.dma_step(cx, port, r.len);
            }
            Next::DmaWrite => self.dma_step(cx, port, r.len),
            Next::Trim(at) => self.trim_from(cx, port, at),
            Next::Packet(len) => self.packet_sectors_read(cx, port, len),
            Next::PacketDma(len) => self.packet_dma_read(cx, port, len),
        }
    }

    /// Moves the task file on by `n` sectors.
    fn step(&mut self, n: u32) {
        let lba = self.lba();
        self.set_lba(lba.wrapping_add(u64::from(n)));
        self.tf.nsector = self.tf.nsector.saturating_sub(n);
    }

    fn io_error(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        if self.dma.take().is_some() {
            port.dma_end(cx, self.dma_pos, false);
        }
        self.abort(cx, port);
    }

    // ---- PIO ---------------------------------------------------------------------------------------------------

    /// Next block of READ SECTORS or READ MULTIPLE.
    pub(super) fn read_block(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.tf.status = status::DRDY | status::DSC;
        self.tf.error = 0;
        let n = self.tf.nsector.min(self.block);
        if n == 0 {
            return self.stop_pio();
        }
        let lba = self.lba();
        if !self.in_range(lba, u64::from(n)) {
            return self.abort(cx, port);
        }
        self.tf.status |= status::BSY;
        self.queue(IoOp::Read, lba * 512, n as usize * 512, Next::PioRead(n));
    }

    /// First block of WRITE SECTORS or WRITE MULTIPLE.
    pub(super) fn first_write(&mut self) {
        self.tf.status = status::DRDY | status::DSC;
        let n = self.tf.nsector.min(self.block);
        self.request(n as usize * 512, AfterPio::Write);
    }

    /// A block of data has come from the host.
    pub(super) fn write_block(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let n = self.tf.nsector.min(self.block);
        let lba = self.lba();
        if !self.in_range(lba, u64::from(n)) {
            return self.abort(cx, port);
        }
        self.tf.status = status::DRDY | status::DSC | status::BSY;
        self.queue(IoOp::Write, lba * 512, n as usize * 512, Next::PioWrite(n));
    }

    /// FLUSH CACHE; also the end of commands that must not return before data are stable.
    pub(super) fn flush(&mut self) {
        self.tf.status |= status::BSY;
        self.queue(IoOp::Flush, 0, 0, Next::Flush);
    }

    // ---- DMA ---------------------------------------------------------------------------------------------------

    /// A DMA command has been accepted; it starts when the adapter is ready.
    pub(super) fn start_dma(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, what: Dma) {
        self.tf.status = status::DRDY | status::DSC | status::DRQ;
        self.dma = Some(what);
        self.dma_pos = 0;
        self.dma_go(cx, port);
    }

    /// Begins the waiting DMA command if the adapter is ready.
    pub fn dma_go(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let Some(what) = self.dma else { return };
        if self.job.busy() || !port.dma_ready(cx) {
            return;
        }
        self.dma_pos = 0;
        if what == Dma::Packet {
            self.packet_dma_go(cx, port);
            return self.pump(cx, port);
        }
        let want = u64::from(self.tf.nsector) * 512;
        if port.dma_len() < want {
            // Table too short: the transfer just stops, without data and without interrupt.
            self.dma = None;
            self.tf.status = status::DRDY | status::DSC;
            return port.dma_end(cx, 0, false);
        }
        if what == Dma::Trim {
            self.trim_go(cx, port);
        } else if self.in_range(self.lba(), u64::from(self.tf.nsector)) {
            self.dma_piece(cx, port);
        } else {
            self.io_error(cx, port);
        }
        self.pump(cx, port);
    }

    /// Queues the next piece of a DMA read or write, or ends the command.
    fn dma_piece(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let len = (u64::from(self.tf.nsector) * 512).min(DMA_CHUNK as u64) as usize;
        if len == 0 {
            return self.dma_done(cx, port);
        }
        let offset = self.lba() * 512;
        if self.dma == Some(Dma::Read) {
            return self.queue(IoOp::Read, offset, len, Next::DmaRead);
        }
        if self.buf.len() < len {
            self.buf.resize(len, 0);
        }
        port.dma_from_memory(cx, self.dma_pos, self.buf.get_mut(..len).unwrap_or_default());
        self.queue(IoOp::Write, offset, len, Next::DmaWrite);
    }

    fn dma_step(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, len: usize) {
        self.dma_pos += len as u64;
        self.step((len / 512) as u32);
        self.dma_piece(cx, port);
    }

    /// The command is complete.
    pub(super) fn dma_done(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        self.dma = None;
        self.tf.status = status::DRDY | status::DSC;
        let more = port.dma_len() > self.dma_pos;
        port.dma_end(cx, self.dma_pos, more);
        port.irq(cx);
    }

    // ---- DATA SET MANAGEMENT -----------------------------------------------------------------------------------

    /// Fetches the list of ranges: up to 65536 blocks of 64 entries, of which a chunk is looked at.
    fn trim_go(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) {
        let len = (u64::from(self.tf.nsector) * 512).min(DMA_CHUNK as u64) as usize;
        self.buf.clear();
        self.buf.resize(len, 0);
        port.dma_from_memory(cx, 0, &mut self.buf);
        self.trim_from(cx, port, 0);
    }

    /// Discards the next range of the list that is not empty.
    fn trim_from(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, mut at: usize) {
        while let Some(e) = self.buf.get(at..at + 8) {
            let e = u64::from_le_bytes([e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]]);
            at += 8;
            let (lba, n) = (e & 0xffff_ffff_ffff, e >> 48);
            if n == 0 {
                continue;
            }
            if !self.in_range(lba, n) {
                return self.io_error(cx, port);
            }
            return self.queue(IoOp::Discard(n * 512), lba * 512, 0, Next::Trim(at));
        }
        self.dma_pos = self.buf.len() as u64;
        let n = self.tf.nsector;
        self.step(n);
        self.dma_done(cx, port);
    }
}

impl Drive {
    /// The adapter stopped its DMA engine: a transfer that had begun is given up.
    pub fn stop_dma(&mut self) {
        if self.dma.is_some() && self.job.busy() {
            self.drop_requests();
            self.dma = None;
        }
    }

    /// The medium has another size: identify data are made anew.
    pub fn resized(&mut self) {
        self.identify = None;
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.drop_requests();
    }
}
