//! Requests of devices and how their completion travels back.

use crate::backend::Inner;
use crate::driver::{GuardRef, Op};
use crate::error::{Errno, IoResult};
use crate::iov::{Iov, Seg};
use crate::node::Node;
use crate::stats::Started;
use std::sync::Arc;

/// A request of a device model.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// What to do. For `Write` and `WriteZeroes` the `fua` member is or-ed with the backend's write-through mode.
    pub op: Op,
    /// First byte.
    pub offset: u64,
    /// Bytes. For `Read` and `Write` it must equal the sum of `iov`; ignored for `Flush`.
    pub len: u64,
    /// Memory; empty for other operations.
    pub iov: Iov<'a>,
    /// Returned with the completion.
    pub tag: u64,
}

/// Receives completions of pending requests; called on a worker thread, possibly before `submit` has returned.
/// Implementations should only queue the result and wake the device's owner.
pub trait CompletionSink: Send + Sync {
    /// Request `tag` has ended.
    fn complete(&self, tag: u64, result: IoResult);
}

/// Outcome of `submit`.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub enum Submitted {
    /// Finished; the sink will not be called.
    Done(IoResult),
    /// The sink will be called exactly once.
    Pending,
}

/// A request that outlives `submit`, with everything needed to (re)run it and to report its end.
pub struct Completion {
    pub(crate) node: Arc<Node>,
    pub(crate) op: Op,
    pub(crate) off: u64,
    pub(crate) len: u64,
    pub(crate) iov: Box<[Seg]>,
    pub(crate) guard: Option<GuardRef>,
    report: Option<Report>,
}

struct Report {
    sink: Arc<dyn CompletionSink>,
    tag: u64,
    backend: Arc<Inner>,
    started: Started,
}

impl Completion {
    pub(crate) fn new(
        node: Arc<Node>,
        req: &Request<'_>,
        op: Op,
        sink: &Arc<dyn CompletionSink>,
        backend: &Arc<Inner>,
        started: Started,
    ) -> Completion {
        backend.begin();
        Completion {
            node,
            op,
            off: req.offset,
            len: req.len,
            iov: req.iov.into(),
            guard: None,
            report: Some(Report { sink: sink.clone(), tag: req.tag, backend: backend.clone(), started }),
        }
    }

    /// Reports the end of the request.
    pub fn finish(mut self, result: IoResult) {
        self.report_once(result);
    }

    fn report_once(&mut self, result: IoResult) {
        self.guard = None;
        if let Some(r) = self.report.take() {
            r.backend.stats.done(self.op, self.len, r.started, result);
            r.sink.complete(r.tag, result);
            r.backend.end();
        }
    }

    /// Runs the request with blocking calls on this thread and reports its end.
    pub(crate) fn run(mut self) {
        self.guard = None;
        let result = self.node.run(self.op, self.off, self.len, &self.iov);
        self.finish(result);
    }
}

impl Drop for Completion {
    /// A completion that gets lost (a worker died, a queue was torn down) still answers the device.
    fn drop(&mut self) {
        self.report_once(Err(Errno::EIO));
    }
}
