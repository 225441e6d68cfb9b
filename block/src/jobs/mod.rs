//! Background jobs: stream, commit, mirror, backup, create.
//!
//! A job's data are moved by a thread of its own; everything that users see of it (status, events, changes to the graph)
//! happens on the thread that owns the graph, in [`BlockGraph::poll_jobs`], which the machine's main loop calls when the
//! notifier given to [`BlockGraph::set_job_notify`] was called.

mod backup;
mod chain;
mod commit;
mod create;
mod mirror;
mod stream;

pub use backup::BackupOpts;
pub use commit::CommitOpts;
pub use mirror::{MirrorOpts, MirrorSync};
pub use stream::StreamOpts;

pub(crate) use chain::{status_above, Holds};
pub(crate) use commit::{copy_above, open_base};

use crate::error::{BlockError, Result};
use crate::graph::BlockGraph;
use crate::node::Node;
use parking_lot::{Condvar, Mutex};
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// An event for QMP: name and data.
pub type JobEvent = (&'static str, Value);

/// Settings that all jobs have.
#[derive(Clone, Debug)]
pub struct JobOpts {
    /// Id; the name of the drive if left out.
    pub id: String,
    /// Bytes per second; 0 = no limit.
    pub speed: u64,
    /// Changes to the graph are made without asking.
    pub auto_finalize: bool,
    /// The job vanishes when it has ended.
    pub auto_dismiss: bool,
}

/// Where a job is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Created,
    Running,
    Paused,
    Ready,
    Standby,
    Waiting,
    Pending,
    Aborting,
    Concluded,
    Null,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Ready => "ready",
            Status::Standby => "standby",
            Status::Waiting => "waiting",
            Status::Pending => "pending",
            Status::Aborting => "aborting",
            Status::Concluded => "concluded",
            Status::Null => "null",
        }
    }
}

/// How a job's thread ended.
pub(crate) type Outcome = std::result::Result<(), BlockError>;

/// The part of a job that is carried out on the graph's thread.
pub(crate) trait Finish: Send {
    /// The thread has done its work and the user agrees: change the graph. `pivot`: completion was asked for, where
    /// that makes a difference.
    fn commit(&mut self, graph: &BlockGraph, job: &Job) -> Result<()>;
    /// Whatever happened: let go of nodes, hooks and permissions.
    fn clean(&mut self, graph: &BlockGraph, ok: bool);
}

struct Ctl {
    status: Status,
    /// The user (or an error) has paused it.
    paused: bool,
    cancel: bool,
    /// Cancelled in a way that counts as success (`mirror` in sync).
    soft: bool,
    complete: bool,
    speed: u64,
    done: u64,
    total: u64,
    error: Option<String>,
    finish: Option<Box<dyn Finish>>,
    /// Bytes moved in the current slice of time.
    slice: (Instant, u64),
    nodes: Vec<Arc<Node>>,
}

/// A job.
pub struct Job {
    id: String,
    kind: &'static str,
    is_block: bool,
    auto_finalize: bool,
    auto_dismiss: bool,
    ctl: Mutex<Ctl>,
    wake: Condvar,
    shared: Arc<JobsShared>,
}

enum Msg {
    Ready(Arc<Job>),
    Done(Arc<Job>, Outcome),
    Error(Arc<Job>, &'static str),
}

/// What job threads share with the graph.
#[derive(Default)]
pub(crate) struct JobsShared {
    msgs: Mutex<Vec<Msg>>,
    notify: Mutex<Option<Arc<dyn Fn() + Send + Sync>>>,
}

impl JobsShared {
    fn post(&self, m: Msg) {
        self.msgs.lock().push(m);
        if let Some(f) = &*self.notify.lock() {
            f();
        }
    }
}

/// All jobs of a graph.
#[derive(Default)]
pub(crate) struct Jobs {
    list: Vec<Arc<Job>>,
    shared: Arc<JobsShared>,
    events: Vec<JobEvent>,
}

/// The job was cancelled: its thread shall end.
#[derive(Debug)]
pub(crate) struct Stop;

impl Job {
    /// Called by the thread between pieces of work: waits while the job is paused, keeps the speed, and says when to end.
    pub(crate) fn checkpoint(&self, moved: u64) -> std::result::Result<(), Stop> {
        let mut c = self.ctl.lock();
        c.done += moved;
        loop {
            if c.cancel {
                return Err(Stop);
            }
            if c.paused {
                self.wake.wait(&mut c);
                continue;
            }
            if c.speed == 0 {
                return Ok(());
            }
            let now = Instant::now();
            if now >= c.slice.0 {
                // A slice of 100 ms may move a tenth of the speed.
                let ms = (moved.saturating_mul(1000) / c.speed.max(1)).min(60_000);
                c.slice.0 = now + Duration::from_millis(ms);
                return Ok(());
            }
            let until = c.slice.0;
            self.wake.wait_until(&mut c, until);
        }
    }

    /// Sleeps until the user asks for something, or `ms` are over.
    pub(crate) fn nap(&self, ms: u64) -> std::result::Result<(), Stop> {
        let mut c = self.ctl.lock();
        if !c.cancel && !c.complete {
            self.wake.wait_for(&mut c, Duration::from_millis(ms));
        }
        if c.cancel {
            return Err(Stop);
        }
        Ok(())
    }

    pub(crate) fn wants_completion(&self) -> bool {
        let c = self.ctl.lock();
        c.complete || c.soft
    }

    /// Completion without taking the target over.
    pub(crate) fn is_soft_cancel(&self) -> bool {
        self.ctl.lock().soft
    }

    pub(crate) fn set_total(&self, total: u64) {
        self.ctl.lock().total = total;
    }

    pub(crate) fn grow_total(&self, by: u64) {
        self.ctl.lock().total += by;
    }

    pub(crate) fn announce_ready(self: &Arc<Job>) {
        self.shared.post(Msg::Ready(self.clone()));
    }

    pub(crate) fn report_error(self: &Arc<Job>, operation: &'static str) {
        self.shared.post(Msg::Error(self.clone(), operation));
    }

    fn counters(&self, c: &Ctl) -> Value {
        json!({"device": self.id, "len": c.total, "offset": c.done, "speed": c.speed, "type": self.kind})
    }
}

fn no_such(id: &str, block: bool) -> BlockError {
    match block {
        true => BlockError::Class("DeviceNotActive", format!("Block job '{id}' not found")),
        false => BlockError::text("Job not found"),
    }
}

/// What a user can ask of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Verb {
    Cancel { force: bool },
    Pause,
    Resume,
    SetSpeed(u64),
    Complete,
    Finalize,
    Dismiss,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Verb::Cancel { .. } => "cancel",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::SetSpeed(_) => "set-speed",
            Verb::Complete => "complete",
            Verb::Finalize => "finalize",
            Verb::Dismiss => "dismiss",
        }
    }

    fn allowed(self, s: Status) -> bool {
        use Status::*;
        match self {
            Verb::Cancel { .. } => {
                matches!(s, Created | Running | Paused | Ready | Standby | Waiting | Pending)
            }
            Verb::Pause | Verb::Resume => matches!(s, Created | Running | Paused | Ready | Standby),
            Verb::SetSpeed(_) => matches!(s, Created | Running | Paused | Ready | Standby),
            Verb::Complete => matches!(s, Ready),
            Verb::Finalize => matches!(s, Pending),
            Verb::Dismiss => matches!(s, Concluded),
        }
    }
}

impl BlockGraph {
    /// Installs what job threads call when [`Self::poll_jobs`] has something to do.
    pub fn set_job_notify(&self, f: Arc<dyn Fn() + Send + Sync>) {
        *self.jobs().lock().shared.notify.lock() = Some(f);
    }

    /// True if any job exists.
    pub fn has_jobs(&self) -> bool {
        !self.jobs().lock().list.is_empty()
    }

    /// Carries out what job threads have asked for, and returns the events since the last call.
    pub fn poll_jobs(&self) -> Vec<JobEvent> {
        loop {
            let msgs = std::mem::take(&mut *self.jobs().lock().shared.msgs.lock());
            if msgs.is_empty() {
                break;
            }
            for m in msgs {
                match m {
                    Msg::Ready(j) => self.job_ready(&j),
                    Msg::Done(j, r) => self.job_done(&j, r),
                    Msg::Error(j, operation) => self.job_event(
                        "BLOCK_JOB_ERROR",
                        json!({"device": j.id, "operation": operation, "action": "report"}),
                    ),
                }
            }
        }
        std::mem::take(&mut self.jobs().lock().events)
    }

    fn job_event(&self, name: &'static str, data: Value) {
        self.jobs().lock().events.push((name, data));
    }

    fn job_status(&self, job: &Arc<Job>, s: Status) {
        job.ctl.lock().status = s;
        self.job_event("JOB_STATUS_CHANGE", json!({"status": s.as_str(), "id": job.id}));
    }

    /// Checks a new job's id.
    pub(crate) fn check_job_id(&self, id: &str) -> Result<()> {
        let fine = id.starts_with(|c: char| c.is_ascii_alphabetic())
            && id.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if id.is_empty() {
            return Err(BlockError::text("An explicit job ID is required for this node"));
        }
        if !fine {
            return Err(BlockError::text(format!("Invalid job ID '{id}'")));
        }
        if self.jobs().lock().list.iter().any(|j| j.id == id) {
            return Err(BlockError::text(format!("Job ID '{id}' already in use")));
        }
        Ok(())
    }

    /// Fails if a job works on the node.
    pub(crate) fn check_busy(&self, node: &Arc<Node>) -> Result<()> {
        for j in &self.jobs().lock().list {
            if j.ctl.lock().nodes.iter().any(|n| Arc::ptr_eq(n, node)) {
                let drive =
                    self.drives().into_iter().find(|d| d.root().is_some_and(|r| Arc::ptr_eq(&r, node)));
                return Err(BlockError::text(format!(
                    "Node '{}' is busy: block device is in use by block job: {}",
                    drive.as_ref().map_or(node.name(), |d| d.name()),
                    j.kind
                )));
            }
        }
        Ok(())
    }

    /// Starts a job: `work` runs on a thread of its own.
    pub(crate) fn start_job(
        &self,
        o: &JobOpts,
        kind: &'static str,
        nodes: Vec<Arc<Node>>,
        total: u64,
        finish: Box<dyn Finish>,
        work: impl FnOnce(&Arc<Job>) -> std::result::Result<Outcome, Stop> + Send + 'static,
    ) -> Result<()> {
        let shared = self.jobs().lock().shared.clone();
        let ctl = Ctl {
            status: Status::Created,
            paused: false,
            cancel: false,
            soft: false,
            complete: false,
            speed: o.speed,
            done: 0,
            total,
            error: None,
            finish: Some(finish),
            slice: (Instant::now(), 0),
            nodes,
        };
        let job = Arc::new(Job {
            id: o.id.clone(),
            kind,
            is_block: kind != "create",
            auto_finalize: o.auto_finalize,
            auto_dismiss: o.auto_dismiss,
            ctl: Mutex::new(ctl),
            wake: Condvar::new(),
            shared,
        });
        let mine = job.clone();
        self.jobs().lock().list.push(job.clone());
        self.job_status(&job, Status::Created);
        self.job_status(&job, Status::Running);
        let body = move || {
            crate::pool::block_signals();
            let outcome = match work(&mine) {
                Ok(o) => o,
                Err(Stop) => Ok(()),
            };
            let shared = mine.shared.clone();
            shared.post(Msg::Done(mine, outcome));
        };
        let spawned =
            std::thread::Builder::new().name("block-job".into()).stack_size(crate::pool::STACK).spawn(body);
        if let Err(e) = spawned {
            self.job_done(&job, Err(BlockError::io("Could not start a thread", e)));
        }
        Ok(())
    }

    fn job_ready(&self, job: &Arc<Job>) {
        if job.ctl.lock().status != Status::Running {
            return;
        }
        self.job_status(job, Status::Ready);
        let data = job.counters(&job.ctl.lock());
        self.job_event("BLOCK_JOB_READY", data);
    }

    fn job_done(&self, job: &Arc<Job>, outcome: Outcome) {
        if let Err(e) = outcome {
            job.ctl.lock().error.get_or_insert(e.to_string());
        }
        let failed = {
            let c = job.ctl.lock();
            c.cancel || c.error.is_some()
        };
        if failed {
            return self.job_abort(job);
        }
        self.job_status(job, Status::Waiting);
        self.job_status(job, Status::Pending);
        if job.auto_finalize {
            self.job_finalize(job);
        } else {
            self.job_event("BLOCK_JOB_PENDING", json!({"type": job.kind, "id": job.id}));
        }
    }

    fn job_finalize(&self, job: &Arc<Job>) {
        let finish = job.ctl.lock().finish.take();
        let Some(mut finish) = finish else { return };
        let r = finish.commit(self, job);
        if let Err(e) = r {
            let mut c = job.ctl.lock();
            c.error = Some(e.to_string());
            c.finish = Some(finish);
            drop(c);
            return self.job_abort(job);
        }
        finish.clean(self, true);
        self.job_conclude(job, true);
    }

    fn job_abort(&self, job: &Arc<Job>) {
        self.job_status(job, Status::Aborting);
        let finish = job.ctl.lock().finish.take();
        if let Some(mut f) = finish {
            f.clean(self, false);
        }
        self.job_conclude(job, false);
    }

    fn job_conclude(&self, job: &Arc<Job>, ok: bool) {
        let (mut data, error) = {
            let mut c = job.ctl.lock();
            c.nodes.clear();
            (job.counters(&c), c.error.clone())
        };
        if job.is_block {
            match (ok, error) {
                (false, None) => self.job_event("BLOCK_JOB_CANCELLED", data),
                (_, error) => {
                    if let (Some(e), Some(m)) = (error, data.as_object_mut()) {
                        m.insert("error".into(), e.into());
                    }
                    self.job_event("BLOCK_JOB_COMPLETED", data);
                }
            }
        }
        self.job_status(job, Status::Concluded);
        if job.auto_dismiss {
            self.job_dismiss(job);
        }
    }

    fn job_dismiss(&self, job: &Arc<Job>) {
        self.job_status(job, Status::Null);
        self.jobs().lock().list.retain(|j| !Arc::ptr_eq(j, job));
    }

    /// `job-*` and `block-job-*` commands (`block`: the latter, which know block jobs only).
    pub fn job_command(&self, id: &str, verb: Verb, block: bool) -> Result<()> {
        let job = self.jobs().lock().list.iter().find(|j| j.id == id && (!block || j.is_block)).cloned();
        let job = job.ok_or_else(|| no_such(id, block))?;
        let status = job.ctl.lock().status;
        if let (Verb::Complete, true, true) =
            (verb, verb.allowed(status), matches!(job.kind, "stream" | "backup"))
        {
            return Err(BlockError::text(format!("The active block job '{id}' cannot be completed")));
        }
        if !verb.allowed(status) {
            return Err(BlockError::text(format!(
                "Job '{id}' in state '{}' cannot accept command verb '{}'",
                status.as_str(),
                verb.as_str()
            )));
        }
        match verb {
            Verb::Cancel { force } => self.job_cancel(&job, force || !block, status),
            Verb::Pause => {
                let was = std::mem::replace(&mut job.ctl.lock().paused, true);
                if was {
                    return Err(BlockError::text("Job is already paused"));
                }
                self.job_status(&job, if status == Status::Ready { Status::Standby } else { Status::Paused });
            }
            Verb::Resume => {
                if !std::mem::replace(&mut job.ctl.lock().paused, false) {
                    return Err(BlockError::text("Can't resume a job that was not paused"));
                }
                job.wake.notify_all();
                self.job_status(
                    &job,
                    if status == Status::Standby { Status::Ready } else { Status::Running },
                );
            }
            Verb::SetSpeed(n) => {
                let mut c = job.ctl.lock();
                c.speed = n;
                c.slice.0 = Instant::now();
                job.wake.notify_all();
            }
            Verb::Complete => {
                job.ctl.lock().complete = true;
                job.wake.notify_all();
            }
            Verb::Finalize => self.job_finalize(&job),
            Verb::Dismiss => self.job_dismiss(&job),
        }
        Ok(())
    }

    fn job_cancel(&self, job: &Arc<Job>, force: bool, status: Status) {
        {
            let mut c = job.ctl.lock();
            match status {
                // In sync: the copy stays as it is, and that is a success.
                Status::Ready | Status::Standby if !force => c.soft = true,
                _ => c.cancel = true,
            }
            c.paused = false;
        }
        job.wake.notify_all();
        if matches!(status, Status::Waiting | Status::Pending) {
            self.job_abort(job);
        }
    }

    /// `query-jobs`.
    pub fn query_jobs(&self) -> Value {
        let list = self.jobs().lock().list.clone();
        list.iter()
            .map(|j| {
                let c = j.ctl.lock();
                let mut v = json!({"current-progress": c.done, "status": c.status.as_str(),
                    "total-progress": c.total, "type": j.kind, "id": j.id});
                if let (Some(e), Some(m)) = (&c.error, v.as_object_mut()) {
                    m.insert("error".into(), e.as_str().into());
                }
                v
            })
            .collect()
    }

    /// `query-block-jobs`.
    pub fn query_block_jobs(&self) -> Value {
        let list = self.jobs().lock().list.clone();
        list.iter()
            .filter(|j| j.is_block)
            .map(|j| {
                let c = j.ctl.lock();
                let ready = matches!(c.status, Status::Ready | Status::Standby);
                let busy = matches!(c.status, Status::Running);
                let mut v = json!({"auto-finalize": j.auto_finalize, "io-status": "ok", "device": j.id,
                    "auto-dismiss": j.auto_dismiss, "busy": busy, "len": c.total, "offset": c.done,
                    "status": c.status.as_str(), "paused": c.paused, "speed": c.speed, "ready": ready,
                    "type": j.kind});
                if let (Some(e), Some(m)) = (&c.error, v.as_object_mut()) {
                    m.insert("error".into(), e.as_str().into());
                }
                v
            })
            .collect()
    }

    /// Cancels all jobs and waits for their threads (the program ends).
    pub(crate) fn cancel_all_jobs(&self) {
        let list = self.jobs().lock().list.clone();
        for j in &list {
            let mut c = j.ctl.lock();
            c.cancel = true;
            c.paused = false;
            drop(c);
            j.wake.notify_all();
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let running = |j: &Arc<Job>| {
            use Status::*;
            matches!(j.ctl.lock().status, Created | Running | Paused | Ready | Standby)
        };
        while list.iter().any(running) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
            let _ = self.poll_jobs();
        }
    }
}
