//! `block-commit`: the data of images move down into an image below them.

use super::chain::{self, Holds};
use super::{Finish, Job, JobOpts, MirrorOpts, MirrorSync};
use crate::driver::perm;
use crate::error::{BlockError, Errno, Result};
use crate::graph::BlockGraph;
use crate::node::{Edge, Node};
use crate::Op;
use std::sync::Arc;

const CHUNK: u64 = 512 << 10;

/// Arguments of `block-commit`.
#[derive(Clone, Debug, Default)]
pub struct CommitOpts {
    /// Drive or node at the top of the chain.
    pub device: String,
    /// File name of the image that receives the data; the lowest if left out.
    pub base: Option<String>,
    /// The same by node name.
    pub base_node: Option<String>,
    /// File name of the highest image that is committed; the active one if left out.
    pub top: Option<String>,
    /// The same by node name.
    pub top_node: Option<String>,
    /// What the header of the image above shall say.
    pub backing_file: Option<String>,
}

struct Commit {
    overlay: Arc<Node>,
    base: Arc<Node>,
    below: Vec<Arc<Node>>,
    edge: Option<Edge>,
    was_read_only: bool,
    backing_file: Option<String>,
}

impl Finish for Commit {
    fn commit(&mut self, graph: &BlockGraph, _job: &Job) -> Result<()> {
        let (base, overlay) = (self.base.clone(), self.overlay.clone());
        base.driver().flush().map_err(|e| BlockError::io("Failed to flush the image", e))?;
        graph.quiesce(|| {
            let name = self.backing_file.clone().unwrap_or_else(|| base.info.filename.clone());
            if !overlay.read_only() {
                overlay.driver().change_backing_name(Some((&name, base.driver().name())))?;
            }
            self.edge = None;
            overlay.set_backing(Some(&base))
        })
    }

    fn clean(&mut self, _graph: &BlockGraph, _ok: bool) {
        self.edge = None;
        for n in &self.below {
            // Taking back what was shared for the job.
            let _ = n.driver().share_backing(false);
        }
        if self.was_read_only {
            let _ = self.base.reopen(true);
        }
    }
}

/// Gets an image in the middle of a chain ready for writing; `above` are the nodes over it that would forbid it.
pub(crate) fn open_base(base: &Arc<Node>, above: &[Arc<Node>]) -> Result<Edge> {
    for n in above {
        n.driver().share_backing(true)?;
    }
    base.reopen(false)?;
    let shared = perm::ALL & !(perm::WRITE | perm::RESIZE);
    let user = format!("node '{}'", base.name());
    Edge::new(
        base,
        &user,
        "commit",
        perm::READ | perm::WRITE | perm::RESIZE,
        shared | perm::WRITE | perm::RESIZE,
    )
}

impl BlockGraph {
    /// `block-commit`.
    pub fn block_commit(&self, o: &CommitOpts, job: &JobOpts) -> Result<()> {
        let active = self.device_or_node(&o.device)?;
        let top = match (&o.top, &o.top_node) {
            (Some(_), Some(_)) => {
                return Err(BlockError::text("'top-node' and 'top' are mutually exclusive"));
            }
            (Some(name), None) if *name == active.info.filename => active.clone(),
            (Some(name), None) => self
                .in_chain(&active, name)
                .map_err(|_| BlockError::text(format!("Top image file {name} not found")))?,
            (None, Some(name)) => {
                let n = self.node_only(name)?;
                if !Arc::ptr_eq(&n, &active) && chain::nodes(&active, Some(&n)).is_none() {
                    return Err(BlockError::text(format!("'{name}' is not in this backing file chain")));
                }
                n
            }
            (None, None) => active.clone(),
        };
        let base = match (&o.base, &o.base_node) {
            (Some(_), Some(_)) => {
                return Err(BlockError::text("'base-node' and 'base' are mutually exclusive"));
            }
            (Some(name), None) => self
                .in_chain(&top, name)
                .map_err(|_| BlockError::text(format!("Can't find '{name}' in the backing chain")))?,
            (None, Some(name)) => {
                let n = self.node_only(name)?;
                if Arc::ptr_eq(&n, &top) || chain::nodes(&top, Some(&n)).is_none() {
                    return Err(BlockError::text(format!("'{name}' is not in this backing file chain")));
                }
                n
            }
            (None, None) => chain::bottom(&top),
        };
        if Arc::ptr_eq(&base, &top) {
            return Err(BlockError::text("cannot commit an image into itself"));
        }
        self.check_job_id(&job.id)?;
        for n in chain::nodes(&active, None).unwrap_or_default() {
            self.check_busy(&n)?;
        }
        if Arc::ptr_eq(&top, &active) {
            if o.backing_file.is_some() {
                return Err(BlockError::text("'backing-file' specified, but 'top' is the active layer"));
            }
            let m = MirrorOpts {
                device: o.device.clone(),
                sync: MirrorSync::Above(base.name().to_owned()),
                ..MirrorOpts::default()
            };
            return self.mirror_into(&m, job, "commit", &active, &base);
        }
        let Some(overlay) = chain::nodes(&active, Some(&top)).and_then(|l| l.last().cloned()) else {
            return Err(BlockError::text("cannot find the overlay of the top image"));
        };
        self.commit_passive(o, job, overlay, top, base)
    }

    fn commit_passive(
        &self,
        o: &CommitOpts,
        job: &JobOpts,
        overlay: Arc<Node>,
        top: Arc<Node>,
        base: Arc<Node>,
    ) -> Result<()> {
        let was_read_only = base.read_only();
        let below = chain::nodes(&overlay, Some(&base)).unwrap_or_default();
        let mut finish = Commit {
            overlay: overlay.clone(),
            base: base.clone(),
            below: below.clone(),
            edge: None,
            was_read_only,
            backing_file: o.backing_file.clone(),
        };
        let edge = open_base(&base, &below).and_then(|e| {
            if base.len() < top.len() {
                base.truncate(top.len())?;
            }
            Ok(e)
        });
        match edge {
            Ok(e) => finish.edge = Some(e),
            Err(e) => {
                finish.clean(self, false);
                return Err(e);
            }
        }
        let mut nodes = chain::nodes(&top, Some(&base)).unwrap_or_default();
        nodes.push(base.clone());
        let len = top.len();
        self.start_job(job, "commit", nodes, len, Box::new(finish), move |job| {
            let mut buf = vec![0u8; CHUNK as usize];
            let mut at = 0;
            while at < len {
                match copy_above(&top, &base, at, CHUNK.min(len - at), &mut buf) {
                    Ok(n) => {
                        job.checkpoint(n)?;
                        at += n;
                    }
                    Err(e) => {
                        job.report_error("write");
                        return Ok(Err(BlockError::text(e.to_string())));
                    }
                }
            }
            Ok(Ok(()))
        })
    }
}

/// Copies what the layers above `base` hold at `at`; returns the bytes dealt with.
pub(crate) fn copy_above(
    top: &Arc<Node>,
    base: &Arc<Node>,
    at: u64,
    len: u64,
    buf: &mut [u8],
) -> Result<u64, Errno> {
    let (holds, n) = chain::status_above(top, Some(base), at, len)?;
    match holds {
        Holds::Nothing => {}
        Holds::Zero => base.run(Op::WriteZeroes { unmap: true, fua: false }, at, n, &[])?,
        Holds::Data => {
            let part = &mut buf[..n as usize];
            top.pread(at, part)?;
            base.pwrite(at, part)?;
        }
    }
    Ok(n.max(1))
}
