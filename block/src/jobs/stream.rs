//! `block-stream`: an image becomes independent of (some of) its backing images.

use super::chain::{self, Holds};
use super::{Finish, Job, JobOpts};
use crate::error::{BlockError, Result};
use crate::graph::BlockGraph;
use crate::node::Node;
use std::sync::Arc;

const CHUNK: u64 = 512 << 10;

/// Arguments of `block-stream`.
#[derive(Clone, Debug)]
pub struct StreamOpts {
    /// Drive or node.
    pub device: String,
    /// File name of the image that stays below.
    pub base: Option<String>,
    /// The same by node name.
    pub base_node: Option<String>,
    /// What the header shall say instead of the base's file name.
    pub backing_file: Option<String>,
}

struct Stream {
    top: Arc<Node>,
    base: Option<Arc<Node>>,
    backing_file: Option<String>,
}

impl Finish for Stream {
    fn commit(&mut self, graph: &BlockGraph, _job: &Job) -> Result<()> {
        let (top, base) = (&self.top, &self.base);
        top.driver().flush().map_err(|e| BlockError::io("Failed to flush the image", e))?;
        if top.backing().is_none() {
            return Ok(());
        }
        graph.quiesce(|| match base {
            Some(b) => {
                let name = self.backing_file.clone().unwrap_or_else(|| b.info.filename.clone());
                top.driver().change_backing_name(Some((&name, b.driver().name())))?;
                top.set_backing(Some(b))
            }
            None => {
                top.driver().change_backing_name(None)?;
                top.set_backing(None)
            }
        })
    }

    fn clean(&mut self, _graph: &BlockGraph, _ok: bool) {}
}

impl BlockGraph {
    /// `block-stream`.
    pub fn block_stream(&self, o: &StreamOpts, job: &JobOpts) -> Result<()> {
        let top = self.device_or_node(&o.device)?;
        let base = match (&o.base, &o.base_node) {
            (Some(_), Some(_)) => {
                return Err(BlockError::text("'base' and 'base-node' cannot be specified at the same time"));
            }
            (Some(name), None) => Some(self.in_chain(&top, name)?),
            (None, Some(name)) => {
                let b = self.node_only(name)?;
                if chain::nodes(&top, Some(&b)).is_none() || Arc::ptr_eq(&b, &top) {
                    return Err(BlockError::text(format!(
                        "Node '{name}' is not a backing image of '{}'",
                        o.device
                    )));
                }
                Some(b)
            }
            (None, None) => None,
        };
        if o.backing_file.is_some() && base.is_none() {
            return Err(BlockError::text("backing file specified, but streaming the entire chain"));
        }
        let nodes = chain::nodes(&top, base.as_ref()).unwrap_or_default();
        for n in &nodes {
            self.check_busy(n)?;
        }
        self.check_job_id(&job.id)?;
        if top.read_only() {
            return Err(BlockError::NodeReadOnly);
        }
        let nothing = match (top.backing(), &base) {
            (None, _) => true,
            (Some(b), Some(base)) => Arc::ptr_eq(&b, base),
            _ => false,
        };
        let finish = Stream { top: top.clone(), base: base.clone(), backing_file: o.backing_file.clone() };
        self.start_job(job, "stream", nodes, 0, Box::new(finish), move |job| {
            if nothing {
                return Ok(Ok(()));
            }
            let len = top.len();
            job.set_total(len);
            let mut at = 0;
            while at < len {
                let n = CHUNK.min(len - at);
                let step = || -> std::result::Result<u64, crate::Errno> {
                    let (s, m) = top.driver().block_status(at, n)?;
                    if s.allocated {
                        return Ok(m);
                    }
                    let Some(below) = top.backing() else { return Ok(m) };
                    let (holds, m) = chain::status_above(&below, base.as_ref(), at, m)?;
                    let real = holds == Holds::Data || holds == Holds::Zero && base.is_some();
                    if real {
                        top.driver().populate(at, m)?;
                    }
                    Ok(m)
                };
                match step() {
                    Ok(m) => {
                        job.checkpoint(m.max(1))?;
                        at += m.max(1);
                    }
                    Err(e) => {
                        job.report_error("read");
                        return Ok(Err(BlockError::text(e.to_string())));
                    }
                }
            }
            Ok(Ok(()))
        })
    }

    /// The node of a chain (below `top`) whose file name is `name`.
    pub(crate) fn in_chain(&self, top: &Arc<Node>, name: &str) -> Result<Arc<Node>> {
        let same = |n: &Arc<Node>| {
            let real = |p: &str| std::fs::canonicalize(p).ok();
            n.info.filename == name || real(name).is_some_and(|r| Some(r) == real(&n.info.filename))
        };
        let mut at = top.backing();
        while let Some(n) = at {
            if same(&n) {
                return Ok(n);
            }
            at = n.backing();
        }
        Err(BlockError::text(format!("Can't find '{name}' in the backing chain")))
    }
}
