//! Requests: from the driver's buffers to command blocks and block requests, and back.

use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_block::{CompletionSink, Errno, ErrorAction, IoResult, Op, Request, Seg, Submitted};

use super::super::queue::{Chain, QueueError, MAX_BURST};
use super::super::Raise;
use super::hba::{Hba, SharedRef};
use crate::device::{Cx, DevId};
use crate::devices::storage::blk::Direction;
use crate::devices::storage::scsi::{target, Cdb, Data, Dir, Outcome, Sense, Step, Unit};

/// Bytes of a request before the command block, and of a response before the sense data.
const REQUEST_HEADER: usize = 19;
const RESPONSE_HEADER: usize = 12;

/// Response codes.
pub(super) mod response {
    pub const OK: u8 = 0;
    pub const OVERRUN: u8 = 1;
    pub const BAD_TARGET: u8 = 3;
}

/// SCSI status.
mod status {
    pub const GOOD: u8 = 0;
    pub const CHECK_CONDITION: u8 = 2;
}

/// Completions on their way from the block layer's threads.
#[derive(Default)]
struct Arrived {
    done: Mutex<Vec<(u64, IoResult)>>,
    shared: Mutex<Option<SharedRef>>,
}

impl CompletionSink for Arrived {
    fn complete(&self, tag: u64, result: IoResult) {
        self.done.lock().push((tag, result));
        if let Some(s) = &*self.shared.lock() {
            s.attention();
        }
    }
}

/// A request whose block requests run.
struct Running {
    queue: u16,
    dev: DevId,
    chain: Chain,
    /// Bytes that the command moves.
    transfer: u64,
    steps: Vec<Step>,
    /// The step that runs.
    at: usize,
    pattern: Vec<u8>,
}

/// Requests in flight.
#[derive(Default)]
pub struct Requests {
    slots: Vec<Option<Box<Running>>>,
    /// Failed, to be repeated when the machine goes on.
    stalled: Vec<usize>,
    arrived: Arc<Arrived>,
}

impl Requests {
    /// The driver is ready.
    pub fn start(&mut self, shared: SharedRef) {
        *self.arrived.shared.lock() = Some(shared);
    }

    fn insert(&mut self, r: Box<Running>) -> usize {
        match self.slots.iter().position(Option::is_none) {
            Some(i) => {
                self.slots[i] = Some(r);
                i
            }
            None => {
                self.slots.push(Some(r));
                self.slots.len() - 1
            }
        }
    }

    /// Forgets what was to be repeated (nothing runs).
    pub fn forget(&mut self) {
        self.slots.clear();
        self.stalled.clear();
        self.arrived.done.lock().clear();
    }

    /// Waits for the requests of a unit that goes away and drops them.
    pub fn cancel(&mut self, unit: &Unit, dev: DevId) {
        unit.disk.backend.drain();
        for i in 0..self.slots.len() {
            if self.slots[i].as_ref().is_some_and(|r| r.dev == dev) {
                self.slots[i] = None;
                self.stalled.retain(|s| *s != i);
                self.arrived.done.lock().retain(|(tag, _)| *tag != i as u64);
            }
        }
    }
}

/// Where a request goes.
enum Place {
    Bad,
    At(u32, u32),
}

/// The single-level address of a unit.
fn place(lun: &[u8]) -> Place {
    match lun {
        [1, id, 0, low, ..] => Place::At((*id).into(), (*low).into()),
        [1, id, high @ 0x40..=0x7f, low, ..] => {
            Place::At((*id).into(), u32::from(high & 0x3f) << 8 | u32::from(*low))
        }
        _ => Place::Bad,
    }
}

/// Place in an 8-byte address, if it is one.
pub(super) fn address(lun: &[u8]) -> Option<(u32, u32)> {
    match place(lun) {
        Place::At(id, lun) => Some((id, lun)),
        Place::Bad => None,
    }
}

impl Hba {
    /// Takes requests until there are none.
    pub(super) fn serve_requests(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16) {
        for _ in 0..MAX_BURST {
            let mut chain = Chain::default();
            if !self.queues.pop(raise, q, &mut chain) {
                break;
            }
            self.request(cx, raise, q, chain);
        }
        self.queues.notify(raise, q);
    }

    fn request(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16, chain: Chain) {
        let (in_header, out_header) =
            (REQUEST_HEADER + self.cdb_size as usize, RESPONSE_HEADER + self.sense_size as usize);
        if chain.readable.total() < in_header || chain.writable.total() < out_header {
            return raise.broken(QueueError::Header);
        }
        let head = chain.readable.to_vec(in_header.min(REQUEST_HEADER + 16));
        let cdb = Cdb::new(head.get(REQUEST_HEADER..).unwrap_or_default());
        let found = address(&head).filter(|(id, _)| self.slots.iter().any(|s| s.id == *id));
        let Some((id, lun)) = found else {
            return self.respond(raise, q, &chain, response::BAD_TARGET, status::GOOD, &[], 0);
        };
        let exists = self.at(id, lun).is_some();
        let block = self.at(id, lun).map_or(0, |s| s.unit.id.block.into());
        let (transfer, dir) = cdb.transfer(block);
        let room = match dir {
            Dir::In => chain.writable.total() - out_header,
            Dir::Out => chain.readable.total() - in_header,
            Dir::None => 0,
        };
        if transfer > room as u64 {
            return self.respond(raise, q, &chain, response::OVERRUN, status::GOOD, &[], 0);
        }
        let pending = match exists || lun != 0 {
            true => None,
            // The target speaks for the units that it has.
            false => self.slots.iter_mut().find(|s| s.id == id).and_then(|s| s.unit.take_attention(cdb.op())),
        };
        let outcome = if let Some(s) = pending {
            Outcome::Check(s)
        } else if target::answers(&cdb, exists) {
            let luns: Vec<u32> = self.slots.iter().filter(|s| s.id == id).map(|s| s.lun).collect();
            target::execute(&cdb, lun, &luns)
        } else {
            let parameters = |n: usize| {
                let mut v = vec![0; n];
                let got = chain.readable.read(in_header, &mut v);
                v.truncate(got);
                v
            };
            match self.at(id, lun) {
                Some(s) => s.unit.execute(cx, &cdb, &parameters),
                None => Outcome::Check(Sense::NO_UNIT),
            }
        };
        let dev = self.at(id, lun).map(|s| s.dev);
        match outcome {
            Outcome::Io { steps, pattern } => {
                let Some(dev) = dev else { return };
                let r = Running { queue: q, dev, chain, transfer, steps, at: 0, pattern };
                let i = self.requests.insert(Box::new(r));
                self.run(cx, raise, i);
            }
            other => self.finish(raise, q, &chain, transfer, other),
        }
    }

    /// Gives a request back that needs no block requests, or no more of them.
    fn finish(&mut self, raise: &mut Raise, q: u16, chain: &Chain, transfer: u64, outcome: Outcome) {
        let start = RESPONSE_HEADER + self.sense_size as usize;
        match outcome {
            Outcome::Check(s) => {
                self.respond(raise, q, chain, response::OK, status::CHECK_CONDITION, &s.fixed(), 0);
            }
            Outcome::Data(mut d) => {
                d.resize(transfer as usize, 0);
                chain.writable.write(start, &d);
                self.respond(raise, q, chain, response::OK, status::GOOD, &[], 0);
            }
            Outcome::Exactly(mut d) => {
                d.truncate(transfer as usize);
                chain.writable.write(start, &d);
                let rest = transfer - d.len() as u64;
                self.respond(raise, q, chain, response::OK, status::GOOD, &[], rest as u32);
            }
            Outcome::Good | Outcome::Io { .. } => {
                self.respond(raise, q, chain, response::OK, status::GOOD, &[], 0);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn respond(
        &mut self,
        raise: &mut Raise,
        q: u16,
        chain: &Chain,
        response: u8,
        status: u8,
        sense: &[u8],
        residual: u32,
    ) {
        let n = sense.len().min(self.sense_size as usize);
        let mut d = (n as u32).to_le_bytes().to_vec();
        d.extend(residual.to_le_bytes());
        d.extend([0, 0, status, response]);
        d.extend(&sense[..n]);
        chain.writable.write(0, &d);
        let header = REQUEST_HEADER + self.cdb_size as usize;
        let data = chain.readable.total().saturating_sub(header);
        self.queues.push(raise, q, chain.head, chain.writable.total() + data);
    }

    /// Runs steps of a request until one stays pending or none is left.
    fn run(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, i: usize) {
        loop {
            match self.submit(i) {
                Submitted::Pending => return,
                Submitted::Done(result) => {
                    if !self.advance(cx, raise, i, result) {
                        return;
                    }
                }
            }
        }
    }

    fn submit(&mut self, i: usize) -> Submitted {
        let (read_at, write_at) =
            (RESPONSE_HEADER + self.sense_size as usize, REQUEST_HEADER + self.cdb_size as usize);
        let sink: Arc<dyn CompletionSink> = self.requests.arrived.clone();
        let Some(r) = self.requests.slots.get_mut(i).and_then(Option::as_mut) else {
            return Submitted::Done(Err(Errno::EINVAL));
        };
        let Some(step) = r.steps.get(r.at).copied() else { return Submitted::Done(Ok(())) };
        let Some(slot) = self.slots.iter().find(|s| s.dev == r.dev) else {
            return Submitted::Done(Err(Errno::ENOMEDIUM));
        };
        let mut segs = Vec::new();
        let (spans, start) = match (step.data, step.op) {
            (Data::Host(at), Op::Read) => (Some(&r.chain.writable), read_at + at),
            (Data::Host(at), _) => (Some(&r.chain.readable), write_at + at),
            _ => (None, 0),
        };
        if let Some(s) = spans {
            s.pieces(start, step.len as usize, |ptr, n| {
                // SAFETY: guest RAM, kept mapped by the snapshot in the chain, which stays in its slot until the
                // request has ended.
                segs.push(unsafe { Seg::new(ptr, n) });
            });
        } else if step.data == Data::Pattern {
            let n = (step.len as usize).min(r.pattern.len());
            // SAFETY: the vector is not touched, moved or dropped before the request has ended: it stays in its boxed
            // slot, which is emptied only then or after waiting for the backend.
            segs.push(unsafe { Seg::new(r.pattern.as_mut_ptr(), n) });
        }
        let req = Request { op: step.op, offset: step.offset, len: step.len, iov: &segs, tag: i as u64 };
        slot.unit.disk.backend.submit(req, &sink)
    }

    /// A step has ended; `true` if another one is to be run.
    fn advance(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, i: usize, result: IoResult) -> bool {
        let Some(r) = self.requests.slots.get_mut(i).and_then(Option::as_mut) else { return false };
        let step = r.steps.get(r.at).copied();
        let slot = self.slots.iter().find(|s| s.dev == r.dev);
        let mut check = None;
        if let Err(e) = result {
            let read = step.is_some_and(|s| s.op == Op::Read);
            let dir = if read { Direction::Read } else { Direction::Write };
            match slot.map(|s| s.unit.disk.failed(cx, dir, e)) {
                Some(ErrorAction::Ignore) => {}
                Some(ErrorAction::Stop) => {
                    self.requests.stalled.push(i);
                    return false;
                }
                _ => check = Some(Sense::of_error(e)),
            }
        }
        r.at += 1;
        if check.is_none() && r.at < r.steps.len() {
            return true;
        }
        if let Some(r) = self.requests.slots.get_mut(i).and_then(Option::take) {
            let outcome = check.map_or(Outcome::Good, Outcome::Check);
            self.finish(raise, r.queue, &r.chain, r.transfer, outcome);
        }
        false
    }

    /// Finishes what the block layer's threads have done.
    pub(super) fn finish_arrived(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        let done = std::mem::take(&mut *self.requests.arrived.done.lock());
        let mut queues: Vec<u16> = Vec::new();
        for (tag, result) in done {
            let i = tag as usize;
            let Some(q) = self.requests.slots.get(i).and_then(Option::as_ref).map(|r| r.queue) else {
                continue;
            };
            if !queues.contains(&q) {
                queues.push(q);
            }
            if self.advance(cx, raise, i, result) {
                self.run(cx, raise, i);
            }
        }
        for q in queues {
            self.queues.notify(raise, q);
        }
    }

    /// Repeats what failed before the machine stopped.
    pub(super) fn retry(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        for i in std::mem::take(&mut self.requests.stalled) {
            let Some(q) = self.requests.slots.get(i).and_then(Option::as_ref).map(|r| r.queue) else {
                continue;
            };
            self.run(cx, raise, i);
            self.queues.notify(raise, q);
        }
    }

    /// Waits until nothing is in flight. What ends meanwhile is given back.
    pub(super) fn drain(&mut self, cx: &mut Cx<'_>) {
        let mut raise = Raise::default();
        loop {
            for s in &self.slots {
                s.unit.disk.backend.drain();
            }
            self.finish_arrived(cx, &mut raise);
            let stalled = &self.requests.stalled;
            if (0..self.requests.slots.len())
                .all(|i| self.requests.slots[i].is_none() || stalled.contains(&i))
            {
                break;
            }
        }
        if let Some(s) = self.requests.arrived.shared.lock().take() {
            raise.queues.iter().for_each(|q| s.interrupt(*q));
        }
    }
}
