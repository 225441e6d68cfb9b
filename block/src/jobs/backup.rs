//! `blockdev-backup` and `drive-backup`: a copy of the moment at which the job started. What the guest is about to
//! overwrite is saved first.

use super::chain::{self, Holds};
use super::{Finish, Job, JobOpts};
use crate::bitmap::DirtyBitmap;
use crate::driver::perm;
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::graph::BlockGraph;
use crate::hooks::BeforeWrite;
use crate::node::{Edge, Node};
use crate::Op;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

const CHUNK: u64 = 1 << 20;

/// Arguments of `blockdev-backup`.
#[derive(Clone, Debug, Default)]
pub struct BackupOpts {
    /// Drive or node.
    pub device: String,
    /// Node that receives the data.
    pub target: String,
    /// `full`, `top`, `none`, `incremental` or `bitmap`.
    pub sync: String,
    /// Bitmap that says what to copy.
    pub bitmap: Option<String>,
    /// What happens to it: `on-success`, `never`, `always`.
    pub bitmap_mode: Option<String>,
    /// Write compressed clusters.
    pub compress: bool,
}

/// The copy in progress.
struct Copy {
    source: Arc<Node>,
    target: Arc<Node>,
    /// What is still to be saved.
    todo: DirtyBitmap,
    compress: bool,
    busy: Mutex<Vec<(u64, u64)>>,
    freed: Condvar,
    failed: Mutex<Option<Errno>>,
}

impl Copy {
    /// Saves what is left to do in the range, waiting for others that are at it.
    fn save(&self, off: u64, len: u64) -> Result<u64, Errno> {
        let g = self.todo.granularity();
        let (a, b) = (off / g * g, (off + len).div_ceil(g) * g);
        {
            let mut busy = self.busy.lock();
            while busy.iter().any(|(x, y)| *x < b && a < *y) {
                self.freed.wait(&mut busy);
            }
            if !self.todo.any(a, b - a) {
                return Ok(0);
            }
            busy.push((a, b));
        }
        let r = self.copy(a, b);
        let mut busy = self.busy.lock();
        busy.retain(|r| *r != (a, b));
        self.freed.notify_all();
        r
    }

    fn copy(&self, a: u64, b: u64) -> Result<u64, Errno> {
        let size = self.source.len();
        let mut buf = vec![0u8; (b - a).min(CHUNK) as usize];
        let (mut at, mut total) = (a, 0);
        while let Some((off, n)) = self.todo.next(at, CHUNK).filter(|(o, _)| *o < b) {
            let end = (off + n).min(b).min(size);
            let mut pos = off;
            while pos < end {
                let (holds, m) =
                    chain::status_above(&self.source, None, pos, (end - pos).min(buf.len() as u64))?;
                // Compressed writes are whole clusters.
                let m = if self.compress { (end - pos).min(self.todo.granularity()) } else { m.max(1) };
                self.copy_piece(pos, &mut buf[..m as usize], holds)?;
                pos += m;
            }
            let done = end.max(off) - off;
            self.todo.set(off, n.min(b - off), false);
            total += done;
            at = off + n;
        }
        Ok(total)
    }

    fn copy_piece(&self, pos: u64, part: &mut [u8], holds: Holds) -> IoResult {
        let t = &self.target;
        let n = part.len() as u64;
        if holds != Holds::Data && !self.compress {
            if t.driver().is_zero(pos, n) {
                return Ok(());
            }
            return t.run(Op::WriteZeroes { unmap: true, fua: false }, pos, n, &[]);
        }
        self.source.pread(pos, part)?;
        if self.compress {
            if part.iter().all(|b| *b == 0) && t.driver().is_zero(pos, n) {
                return Ok(());
            }
            return t.driver().write_compressed(pos, part);
        }
        t.pwrite(pos, part)
    }
}

impl BeforeWrite for Copy {
    fn before(&self, off: u64, len: u64) -> IoResult {
        if self.failed.lock().is_some() || len == 0 {
            return Ok(());
        }
        // A backup that cannot be written must not hurt the guest: the job fails instead.
        if let Err(e) = self.save(off, len) {
            *self.failed.lock() = Some(e);
        }
        Ok(())
    }
}

struct Backup {
    copy: Arc<Copy>,
    hook: Arc<dyn BeforeWrite>,
    edge: Option<Edge>,
    /// Bitmap in use, what it said, and its mode.
    bitmap: Option<(Arc<DirtyBitmap>, DirtyBitmap, String)>,
}

impl Finish for Backup {
    fn commit(&mut self, _graph: &BlockGraph, _job: &Job) -> Result<()> {
        self.copy.target.driver().flush().map_err(|e| BlockError::text(e.to_string()))
    }

    fn clean(&mut self, graph: &BlockGraph, ok: bool) {
        graph.quiesce(|| self.copy.source.hooks.remove_before(&self.hook));
        self.edge = None;
        if let Some((b, old, mode)) = self.bitmap.take() {
            match (mode.as_str(), ok) {
                ("never", _) | ("on-success", false) => b.merge(&old),
                ("always", false) => b.merge(&self.copy.todo),
                _ => {}
            }
            b.set_flags(|_, _, busy, _| *busy = false);
        }
    }
}

impl BlockGraph {
    /// `blockdev-backup`.
    pub fn blockdev_backup(&self, o: &BackupOpts, job: &JobOpts) -> Result<()> {
        let source = self.device_or_node(&o.device)?;
        let target = self.device_or_node(&o.target)?;
        self.check_job_id(&job.id)?;
        if Arc::ptr_eq(&source, &target) {
            return Err(BlockError::text("Source and target cannot be the same"));
        }
        let (bitmap, mode) = self.backup_bitmap(o, &source)?;
        if source.len() != target.len() {
            return Err(BlockError::text("Source and target image have different sizes"));
        }
        self.check_busy(&source)?;
        self.check_busy(&target)?;
        let cluster = target.driver().image_facts().cluster_size.unwrap_or(65536);
        let granularity = if o.compress { cluster } else { cluster.max(65536) };
        let user = format!("node '{}'", target.name());
        let edge = Edge::new(&target, &user, "target", perm::WRITE, perm::READ | perm::WRITE_UNCHANGED)?;
        let todo = DirtyBitmap::new(None, source.len(), granularity);
        match (o.sync.as_str(), &bitmap) {
            ("full", None) => todo.set_all(),
            ("none", _) => todo.set_all(),
            ("top", None) => {
                let (mut at, len, below) = (0, source.len(), source.backing());
                while at < len {
                    let (holds, n) = match &below {
                        None => (Holds::Data, len - at),
                        b => chain::status_above(&source, b.as_ref(), at, len - at)
                            .map_err(|e| BlockError::text(e.to_string()))?,
                    };
                    if holds != Holds::Nothing {
                        todo.set(at, n, true);
                    }
                    at += n.max(1);
                }
            }
            (_, Some(b)) => todo.merge(b),
            _ => todo.set_all(),
        }
        let copy = Arc::new(Copy {
            source: source.clone(),
            target: target.clone(),
            todo,
            compress: o.compress,
            busy: Mutex::default(),
            freed: Condvar::new(),
            failed: Mutex::new(None),
        });
        let hook: Arc<dyn BeforeWrite> = copy.clone();
        let saved = bitmap.map(|b| {
            let old = DirtyBitmap::new(None, source.len(), b.granularity());
            old.merge(&b);
            b.clear();
            b.set_flags(|_, _, busy, _| *busy = true);
            (b, old, mode)
        });
        let finish = Backup { copy: copy.clone(), hook: hook.clone(), edge: Some(edge), bitmap: saved };
        self.quiesce(|| source.hooks.add_before(hook));
        let total = match o.sync.as_str() {
            "none" => source.len(),
            _ => copy.todo.count().min(source.len()),
        };
        let endless = o.sync == "none";
        self.start_job(job, "backup", vec![source, target], total, Box::new(finish), move |job| loop {
            if let Some(e) = *copy.failed.lock() {
                job.report_error("write");
                return Ok(Err(BlockError::text(e.to_string())));
            }
            if endless {
                job.nap(100)?;
                continue;
            }
            let Some((off, n)) = copy.todo.next(0, CHUNK) else { return Ok(Ok(())) };
            match copy.save(off, n.min(copy.source.len().saturating_sub(off)).max(1)) {
                Ok(n) => job.checkpoint(n)?,
                Err(e) => {
                    job.report_error("write");
                    return Ok(Err(BlockError::text(e.to_string())));
                }
            }
        })
    }

    fn backup_bitmap(
        &self,
        o: &BackupOpts,
        source: &Arc<Node>,
    ) -> Result<(Option<Arc<DirtyBitmap>>, String)> {
        let mode = o.bitmap_mode.clone().unwrap_or_else(|| "on-success".into());
        let by_bitmap = matches!(o.sync.as_str(), "incremental" | "bitmap");
        match &o.bitmap {
            None if by_bitmap => {
                Err(BlockError::text(format!("must provide a valid bitmap name for '{}' sync mode", o.sync)))
            }
            None if o.bitmap_mode.is_some() => {
                Err(BlockError::text("Cannot specify bitmap sync mode without a bitmap"))
            }
            None => Ok((None, mode)),
            Some(_) if o.sync == "bitmap" && o.bitmap_mode.is_none() => {
                Err(BlockError::text("Bitmap sync mode must be given when providing a bitmap"))
            }
            Some(_) if o.sync == "incremental" && mode != "on-success" => Err(BlockError::text(
                "Bitmap sync mode must be 'on-success' when using sync mode 'incremental'",
            )),
            Some(_) if !by_bitmap => {
                Err(BlockError::text(format!("sync mode '{}' does not take a bitmap", o.sync)))
            }
            Some(name) => {
                let b = self
                    .bitmap_of(source, name)
                    .map_err(|_| BlockError::text(format!("Bitmap '{name}' could not be found")))?;
                self.bitmap_usable(&b, name, true)?;
                Ok((Some(b), mode))
            }
        }
    }
}
