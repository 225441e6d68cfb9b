//! `blockdev-mirror`, `drive-mirror` and the active `block-commit`: a target follows a source until the user is content.

use super::chain::{self, Holds};
use super::{Finish, Job, JobOpts, Outcome, Stop};
use crate::bitmap::DirtyBitmap;
use crate::driver::perm;
use crate::error::{BlockError, Errno, Result};
use crate::graph::BlockGraph;
use crate::node::{Edge, Node};
use crate::Op;
use std::sync::Arc;

const CHUNK: u64 = 1 << 20;

/// What is copied at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MirrorSync {
    /// Everything.
    #[default]
    Full,
    /// What the top image holds.
    Top,
    /// Only what is written from now on.
    None,
    /// What the images above this node hold (active commit).
    Above(String),
}

/// Arguments of `blockdev-mirror`.
#[derive(Clone, Debug, Default)]
pub struct MirrorOpts {
    /// Drive or node.
    pub device: String,
    /// Node that receives the data.
    pub target: String,
    /// What is copied at first.
    pub sync: MirrorSync,
    /// Bytes a dirty bit stands for.
    pub granularity: Option<u64>,
    /// The target gets the source's backing image at the end (`drive-mirror` into a new overlay).
    pub adopt_backing: bool,
    /// Node to be replaced at completion, instead of the source.
    pub replaces: Option<String>,
}

struct Mirror {
    source: Arc<Node>,
    target: Arc<Node>,
    bitmap: Arc<DirtyBitmap>,
    edge: Option<Edge>,
    /// Nodes over the target whose permissions were relaxed (active commit).
    above: Vec<Arc<Node>>,
    was_read_only: bool,
    active_commit: bool,
    adopt_backing: bool,
    pivoted: bool,
}

impl Finish for Mirror {
    fn commit(&mut self, graph: &BlockGraph, job: &Job) -> Result<()> {
        graph.quiesce(|| {
            // What was written since the thread looked last.
            let fail = |e: Errno| BlockError::text(e.to_string());
            let mut buf = vec![0u8; CHUNK as usize];
            while copy_dirty(&self.source, &self.target, &self.bitmap, &mut buf).map_err(fail)?.is_some() {}
            self.target.driver().flush().map_err(fail)?;
            if job.is_soft_cancel() {
                return Ok(());
            }
            self.pivot(graph)
        })
    }

    fn clean(&mut self, graph: &BlockGraph, _ok: bool) {
        self.edge = None;
        graph.quiesce(|| self.source.hooks.remove_bitmap(&self.bitmap));
        if !self.pivoted {
            for n in &self.above {
                let _ = n.driver().share_backing(false);
            }
            if self.was_read_only {
                let _ = self.target.reopen(true);
            }
        }
    }
}

impl Mirror {
    /// Puts the target in the place of the source. All requests are stopped.
    fn pivot(&mut self, graph: &BlockGraph) -> Result<()> {
        if self.adopt_backing {
            if let Some(b) = self.source.backing() {
                self.target.set_backing(Some(&b))?;
            }
        }
        self.edge = None;
        let users: Vec<_> = graph
            .backends()
            .into_iter()
            .filter(|b| b.root().is_some_and(|r| Arc::ptr_eq(&r, &self.source)))
            .collect();
        for b in &users {
            b.relax(true)?;
        }
        for (i, b) in users.iter().enumerate() {
            if let Err(e) = b.replace_root(&self.target) {
                for b in &users[..i] {
                    let _ = b.replace_root(&self.source);
                }
                for b in &users[i..] {
                    let _ = b.relax(false);
                }
                return Err(e);
            }
        }
        self.pivoted = true;
        Ok(())
    }
}

/// Copies the first dirty range; `None` if there is none.
fn copy_dirty(
    source: &Arc<Node>,
    target: &Arc<Node>,
    bitmap: &DirtyBitmap,
    buf: &mut [u8],
) -> Result<Option<u64>, Errno> {
    let size = source.len();
    let Some((off, n)) = bitmap.next(0, buf.len() as u64) else { return Ok(None) };
    // Before reading: a write in the meantime marks it again.
    bitmap.set(off, n, false);
    let end = (off + n).min(size);
    let r = copy_range(source, target, off, end, buf);
    if r.is_err() {
        bitmap.set(off, n, true);
    }
    r.map(|()| Some(n))
}

fn copy_range(s: &Arc<Node>, t: &Arc<Node>, mut at: u64, end: u64, buf: &mut [u8]) -> Result<(), Errno> {
    while at < end {
        let (holds, n) = chain::status_above(s, None, at, (end - at).min(buf.len() as u64))?;
        let n = n.max(1);
        match holds {
            Holds::Data => {
                let part = &mut buf[..n as usize];
                s.pread(at, part)?;
                t.pwrite(at, part)?;
            }
            _ if t.driver().is_zero(at, n) => {}
            _ => t.run(Op::WriteZeroes { unmap: true, fua: false }, at, n, &[])?,
        }
        at += n;
    }
    Ok(())
}

fn mark(job: &Job, m: &MirrorPlan) -> std::result::Result<std::result::Result<(), Errno>, Stop> {
    let len = m.source.len();
    let mut at = 0;
    while at < len {
        let n = (len - at).min(64 << 20);
        let r = match &m.sync {
            MirrorSync::None => return Ok(Ok(())),
            MirrorSync::Full => Ok((Holds::Data, n)),
            MirrorSync::Top => {
                let b = m.source.backing();
                match b {
                    None => Ok((Holds::Data, n)),
                    b => chain::status_above(&m.source, b.as_ref(), at, n),
                }
            }
            MirrorSync::Above(_) => chain::status_above(&m.source, Some(&m.target), at, n),
        };
        match r {
            Ok((holds, n)) => {
                if holds != Holds::Nothing {
                    m.bitmap.set(at, n.max(1), true);
                }
                at += n.max(1);
            }
            Err(e) => return Ok(Err(e)),
        }
        job.checkpoint(0)?;
    }
    Ok(Ok(()))
}

struct MirrorPlan {
    source: Arc<Node>,
    target: Arc<Node>,
    bitmap: Arc<DirtyBitmap>,
    sync: MirrorSync,
}

fn work(job: &Arc<Job>, m: &MirrorPlan) -> std::result::Result<Outcome, Stop> {
    let fail = |e: Errno| {
        job.report_error("write");
        Ok(Err(BlockError::text(e.to_string())))
    };
    if let Err(e) = mark(job, m)? {
        return fail(e);
    }
    let size = m.source.len();
    job.set_total(m.bitmap.count().min(size));
    let mut buf = vec![0u8; CHUNK as usize];
    let (mut ready, mut first) = (false, m.bitmap.count());
    loop {
        let before = m.bitmap.count();
        if ready && before > 0 {
            job.grow_total(before.min(size));
        }
        loop {
            match copy_dirty(&m.source, &m.target, &m.bitmap, &mut buf) {
                Ok(Some(n)) => {
                    let n = if ready { n } else { n.min(first) };
                    first = first.saturating_sub(n);
                    job.checkpoint(n)?;
                }
                Ok(None) => break,
                Err(e) => return fail(e),
            }
        }
        if !ready {
            ready = true;
            job.announce_ready();
        }
        if job.wants_completion() {
            return Ok(Ok(()));
        }
        job.nap(100)?;
    }
}

impl BlockGraph {
    /// `blockdev-mirror`.
    pub fn blockdev_mirror(&self, o: &MirrorOpts, job: &JobOpts) -> Result<()> {
        let source = self.device_or_node(&o.device)?;
        let target = self.device_or_node(&o.target)?;
        self.check_job_id(&job.id)?;
        if Arc::ptr_eq(&source, &target) {
            return Err(BlockError::text("Can't mirror node into itself"));
        }
        if o.replaces.is_some() {
            return Err(BlockError::Unsupported("mirror with 'replaces'".into()));
        }
        if source.len() != target.len() {
            return Err(BlockError::text("Cannot mirror to a target of another size"));
        }
        self.check_busy(&source)?;
        self.check_busy(&target)?;
        self.mirror_into(o, job, "mirror", &source, &target)
    }

    pub(super) fn mirror_into(
        &self,
        o: &MirrorOpts,
        job: &JobOpts,
        kind: &'static str,
        source: &Arc<Node>,
        target: &Arc<Node>,
    ) -> Result<()> {
        let granularity = match o.granularity {
            Some(g) if !(512..=64 << 20).contains(&g) => {
                return Err(BlockError::text(
                    "Parameter 'granularity' expects a value in range [512B, 64MB]",
                ));
            }
            Some(g) if !g.is_power_of_two() => {
                return Err(BlockError::text("Parameter 'granularity' expects a power of 2"));
            }
            Some(g) => g,
            None => target.driver().image_facts().cluster_size.unwrap_or(65536).clamp(4096, 65536),
        };
        let bitmap = Arc::new(DirtyBitmap::new(None, source.len(), granularity));
        let active_commit = kind == "commit";
        let above = match active_commit {
            true => chain::nodes(source, Some(target)).unwrap_or_default(),
            false => Vec::new(),
        };
        let mut finish = Mirror {
            source: source.clone(),
            target: target.clone(),
            bitmap: bitmap.clone(),
            edge: None,
            above,
            was_read_only: target.read_only(),
            active_commit,
            adopt_backing: o.adopt_backing,
            pivoted: false,
        };
        let edge = if finish.active_commit {
            super::commit::open_base(target, &finish.above)
        } else {
            let user = format!("node '{}'", target.name());
            Edge::new(target, &user, "target", perm::WRITE | perm::RESIZE, perm::READ | perm::WRITE_UNCHANGED)
        };
        match edge {
            Ok(e) => finish.edge = Some(e),
            Err(e) => {
                finish.clean(self, false);
                return Err(e);
            }
        }
        if active_commit && target.len() < source.len() {
            if let Err(e) = target.truncate(source.len()) {
                finish.clean(self, false);
                return Err(e);
            }
        }
        self.quiesce(|| source.hooks.add_bitmap(&bitmap));
        let mut nodes = chain::nodes(source, active_commit.then_some(target)).unwrap_or_default();
        if !active_commit {
            nodes.truncate(1);
        }
        nodes.push(target.clone());
        let plan =
            MirrorPlan { source: source.clone(), target: target.clone(), bitmap, sync: o.sync.clone() };
        self.start_job(job, kind, nodes, 0, Box::new(finish), move |job| work(job, &plan))
    }
}
