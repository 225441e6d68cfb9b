//! Changes to a running graph: snapshots, bitmaps, transactions.

use super::{object, open, opts::Opts, BlockGraph};
use crate::bitmap::DirtyBitmap;
use crate::driver::SnapshotInfo;
use crate::error::{BlockError, Result};
use crate::node::Node;
use serde_json::{json, Map, Value};
use std::sync::Arc;

/// Arguments of `blockdev-snapshot-sync`.
#[derive(Clone, Debug, Default)]
pub struct SnapshotSync {
    /// Drive.
    pub device: Option<String>,
    /// Or node.
    pub node_name: Option<String>,
    /// File of the new image.
    pub snapshot_file: String,
    /// Node name of the new image.
    pub snapshot_node_name: Option<String>,
    /// Format; `qcow2` if left out.
    pub format: Option<String>,
    /// The file exists already (`mode=existing`).
    pub existing: bool,
}

/// The file that `drive-backup` or `drive-mirror` writes to.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// File name.
    pub file: &'a str,
    /// Format; the source's if left out.
    pub format: Option<&'a str>,
    /// The file exists already.
    pub existing: bool,
    /// Backing image that its header names.
    pub named: Option<&'a Arc<Node>>,
    /// Backing image that is used from the start.
    pub backing: Option<&'a Arc<Node>>,
    /// Node name.
    pub node_name: Option<&'a str>,
}

/// What a step of a transaction does when the whole is undone.
pub type Undo = Box<dyn FnOnce(&BlockGraph)>;

impl BlockGraph {
    /// A node by drive or node name.
    pub fn device_or_node(&self, name: &str) -> Result<Arc<Node>> {
        if let Some(d) = self.find_drive(name) {
            return d.root().ok_or_else(|| BlockError::text(format!("Device '{name}' has no medium")));
        }
        self.find_node(name).ok_or_else(|| BlockError::NoSuchNode(name.into()))
    }

    /// A node by its node name, where drives do not count.
    pub(crate) fn node_only(&self, name: &str) -> Result<Arc<Node>> {
        self.find_node(name)
            .ok_or_else(|| BlockError::text(format!("Cannot find device='' nor node-name='{name}'")))
    }

    fn pick(&self, device: Option<&str>, node: Option<&str>) -> Result<Arc<Node>> {
        if let Some(d) = device.and_then(|d| self.find_drive(d)) {
            return d.root().ok_or_else(|| BlockError::text(format!("Device '{}' has no medium", d.name())));
        }
        node.and_then(|n| self.find_node(n)).ok_or_else(|| {
            BlockError::text(format!(
                "Cannot find device='{}' nor node-name='{}'",
                device.unwrap_or(""),
                node.unwrap_or("")
            ))
        })
    }

    /// Puts `overlay` between `base` and everything that uses it.
    fn append(&self, overlay: &Arc<Node>, base: &Arc<Node>) -> Result<()> {
        self.quiesce(|| {
            base.driver().flush().map_err(|e| BlockError::io("Failed to flush the image", e))?;
            let users: Vec<_> = self
                .backends()
                .into_iter()
                .filter(|b| b.root().is_some_and(|r| Arc::ptr_eq(&r, base)))
                .collect();
            for b in &users {
                b.relax(true)?;
            }
            let undo = |upto: usize| {
                for b in &users[..upto] {
                    let _ = b.replace_root(base);
                }
                let _ = overlay.set_backing(None);
                for b in &users {
                    let _ = b.relax(false);
                }
            };
            if let Err(e) = overlay.set_backing(Some(base)) {
                undo(0);
                return Err(e);
            }
            for (i, b) in users.iter().enumerate() {
                if let Err(e) = b.replace_root(overlay) {
                    undo(i);
                    return Err(e);
                }
            }
            Ok(())
        })
    }

    /// The opposite of [`Self::append`], to undo a transaction.
    fn unappend(&self, overlay: &Arc<Node>, base: &Arc<Node>) {
        self.quiesce(|| {
            let users: Vec<_> = self
                .backends()
                .into_iter()
                .filter(|b| b.root().is_some_and(|r| Arc::ptr_eq(&r, overlay)))
                .collect();
            let _ = overlay.set_backing(None);
            for b in &users {
                let _ = b.replace_root(base);
            }
        });
    }

    /// `blockdev-snapshot`: `overlay` goes on top of `node`.
    pub fn blockdev_snapshot(&self, node: &str, overlay: &str) -> Result<Undo> {
        let base = self.device_or_node(node)?;
        let over = self.device_or_node(overlay)?;
        self.check_snapshot_base(&base)?;
        if !over.is_unused() {
            return Err(BlockError::text("The overlay is already in use"));
        }
        if over.driver().name() != "qcow2" {
            return Err(BlockError::text("The overlay does not support backing images"));
        }
        if over.backing().is_some() {
            return Err(BlockError::text("The overlay already has a backing image"));
        }
        self.append(&over, &base)?;
        Ok(Box::new(move |g| g.unappend(&over, &base)))
    }

    fn check_snapshot_base(&self, base: &Arc<Node>) -> Result<()> {
        self.check_busy(base)
    }

    /// `blockdev-snapshot-sync`. The second member is what QEMU prints about the new image.
    pub fn blockdev_snapshot_sync(&self, o: &SnapshotSync) -> Result<(Undo, Option<String>)> {
        let base = self.pick(o.device.as_deref(), o.node_name.as_deref())?;
        self.check_snapshot_base(&base)?;
        let format = o.format.as_deref().unwrap_or("qcow2");
        if o.node_name.is_some() && o.snapshot_node_name.is_none() {
            return Err(BlockError::text("New overlay node-name missing"));
        }
        if let Some(n) = &o.snapshot_node_name {
            if self.find_node(n).is_some() {
                return Err(BlockError::text("New overlay node-name already in use"));
            }
        }
        let mut made = None;
        if !o.existing {
            let backing = (base.info.filename.clone(), Some(base.driver().name().to_owned()));
            let plan = self.plan_image(&o.snapshot_file, format, Some(base.len()), Some(backing), &[])?;
            made = Some(plan.describe());
            self.create_image(&plan)?;
        }
        let mut options = object(json!({"driver": format, "backing": Value::Null,
            "file": {"driver": "file", "filename": o.snapshot_file},
            "cache": {"direct": base.info.cache.direct, "no-flush": base.info.cache.no_flush}}));
        if let Some(n) = &o.snapshot_node_name {
            options.insert("node-name".into(), n.as_str().into());
        }
        if base.info.unmap {
            options.insert("discard".into(), "unmap".into());
        }
        if base.info.detect_zeroes != crate::DetectZeroes::Off {
            options.insert("detect-zeroes".into(), base.info.detect_zeroes.as_str().into());
        }
        let over = self.open_node(Opts::new(options, "", true), &open::Inherit::default())?;
        if over.driver().name() != "qcow2" {
            return Err(BlockError::text("The overlay does not support backing images"));
        }
        self.append(&over, &base)?;
        Ok((Box::new(move |g| g.unappend(&over, &base)), made))
    }

    /// `blockdev-snapshot-internal-sync`.
    pub fn snapshot_internal(&self, device: &str, info: SnapshotInfo) -> Result<Undo> {
        let node = self.device_or_node(device)?;
        self.check_busy(&node)?;
        if node.read_only() {
            return Err(BlockError::text(format!("Device '{device}' is read only")));
        }
        let name = info.name.clone();
        let Some(s) = node.driver().snapshots() else {
            return Err(BlockError::text(format!(
                "Block format '{}' used by device '{device}' does not support internal snapshots",
                node.driver().name()
            )));
        };
        if s.list().iter().any(|x| x.name == name) {
            return Err(BlockError::text(format!(
                "Snapshot with name '{name}' already exists on device '{device}'"
            )));
        }
        if name.is_empty() {
            return Err(BlockError::text("Name is empty"));
        }
        self.quiesce(|| s.create(info)).map_err(|e| {
            BlockError::text(format!("Failed to create snapshot '{name}' on device '{device}': {e}"))
        })?;
        let same = node.clone();
        Ok(Box::new(move |g| {
            if let Some(s) = same.driver().snapshots() {
                if let Some(i) = s.list().iter().position(|x| x.name == name) {
                    let _ = g.quiesce(|| s.delete(i));
                }
            }
        }))
    }

    /// `blockdev-snapshot-delete-internal-sync`.
    pub fn snapshot_delete_internal(
        &self,
        device: &str,
        id: Option<&str>,
        name: Option<&str>,
    ) -> Result<SnapshotInfo> {
        let node = self.device_or_node(device)?;
        self.check_busy(&node)?;
        if id.is_none() && name.is_none() {
            return Err(BlockError::text("Name or id must be provided"));
        }
        let Some(s) = node.driver().snapshots() else {
            return Err(BlockError::text(format!(
                "Block format '{}' used by device '{device}' does not support internal snapshots",
                node.driver().name()
            )));
        };
        let list = s.list();
        let fits = |x: &SnapshotInfo| id.is_none_or(|i| x.id == i) && name.is_none_or(|n| x.name == n);
        let Some(at) = list.iter().position(fits) else {
            let text = |v: Option<&str>| v.map_or("null".to_owned(), str::to_owned);
            return Err(BlockError::text(format!(
                "Snapshot with id '{}' and name '{}' does not exist on device '{device}'",
                text(id),
                text(name)
            )));
        };
        self.quiesce(|| s.delete(at))?;
        Ok(list[at].clone())
    }

    /// Runs `f` on the internal snapshots of a node while its requests are stopped; `None` if its format has none.
    pub fn with_snapshots<R>(
        &self,
        node: &Arc<Node>,
        f: impl FnOnce(&dyn crate::Snapshots) -> R,
    ) -> Option<R> {
        let s = node.driver().snapshots()?;
        Some(self.quiesce(|| f(s)))
    }

    /// A bitmap by its name.
    pub(crate) fn bitmap_of(&self, node: &Arc<Node>, name: &str) -> Result<Arc<DirtyBitmap>> {
        node.hooks
            .bitmaps()
            .into_iter()
            .find(|b| b.name.as_deref() == Some(name))
            .ok_or_else(|| BlockError::text(format!("Dirty bitmap '{name}' not found")))
    }

    pub(crate) fn bitmap_usable(&self, b: &DirtyBitmap, name: &str, consistent: bool) -> Result<()> {
        let f = b.facts();
        if f.busy {
            return Err(BlockError::text(format!(
                "Bitmap '{name}' is currently in use by another operation and cannot be used"
            )));
        }
        if f.inconsistent && consistent {
            return Err(BlockError::text(format!("Bitmap '{name}' is inconsistent and cannot be used")));
        }
        Ok(())
    }

    /// `block-dirty-bitmap-add`.
    pub fn bitmap_add(
        &self,
        node: &str,
        name: &str,
        granularity: Option<u64>,
        persistent: bool,
        disabled: bool,
    ) -> Result<Undo> {
        if name.is_empty() {
            return Err(BlockError::text("Bitmap name cannot be empty"));
        }
        let n = self.device_or_node(node)?;
        if let Some(g) = granularity {
            if g < 512 || !g.is_power_of_two() {
                return Err(BlockError::text("Granularity must be power of 2 and at least 512"));
            }
        }
        let cluster = n.driver().image_facts().cluster_size.unwrap_or(65536).clamp(4096, 65536);
        if name.len() > 1023 {
            return Err(BlockError::text(format!("Bitmap name too long: {name}")));
        }
        if self.bitmap_of(&n, name).is_ok() {
            return Err(BlockError::text(format!("Bitmap already exists: {name}")));
        }
        let b = Arc::new(DirtyBitmap::new(Some(name.into()), n.len(), granularity.unwrap_or(cluster)));
        b.set_flags(|on, keep, _, _| (*on, *keep) = (!disabled, persistent));
        if persistent {
            n.driver().keep_bitmap(&b, true)?;
        }
        self.quiesce(|| n.hooks.add_bitmap(&b));
        Ok(Box::new(move |g| {
            g.quiesce(|| n.hooks.remove_bitmap(&b));
            if persistent {
                let _ = n.driver().keep_bitmap(&b, false);
            }
        }))
    }

    /// `block-dirty-bitmap-remove`.
    pub fn bitmap_remove(&self, node: &str, name: &str) -> Result<Undo> {
        let n = self.device_or_node(node)?;
        let b = self.bitmap_of(&n, name)?;
        self.bitmap_usable(&b, name, false)?;
        let persistent = b.facts().persistent;
        if persistent {
            n.driver().keep_bitmap(&b, false)?;
        }
        self.quiesce(|| n.hooks.remove_bitmap(&b));
        Ok(Box::new(move |g| {
            if persistent {
                let _ = n.driver().keep_bitmap(&b, true);
            }
            g.quiesce(|| n.hooks.add_bitmap(&b));
        }))
    }

    /// `block-dirty-bitmap-clear`.
    pub fn bitmap_clear(&self, node: &str, name: &str) -> Result<Undo> {
        let n = self.device_or_node(node)?;
        let b = self.bitmap_of(&n, name)?;
        self.bitmap_usable(&b, name, true)?;
        let old = DirtyBitmap::new(None, n.len(), b.granularity());
        old.merge(&b);
        b.clear();
        Ok(Box::new(move |_| b.merge(&old)))
    }

    /// `block-dirty-bitmap-enable` and `-disable`.
    pub fn bitmap_enable(&self, node: &str, name: &str, on: bool) -> Result<Undo> {
        let n = self.device_or_node(node)?;
        let b = self.bitmap_of(&n, name)?;
        self.bitmap_usable(&b, name, true)?;
        let was = b.facts().recording;
        b.set_flags(|e, _, _, _| *e = on);
        Ok(Box::new(move |_| b.set_flags(|e, _, _, _| *e = was)))
    }

    /// `block-dirty-bitmap-merge`; sources are (node, name).
    pub fn bitmap_merge(&self, node: &str, target: &str, sources: &[(String, String)]) -> Result<Undo> {
        let n = self.device_or_node(node)?;
        let t = self.bitmap_of(&n, target)?;
        self.bitmap_usable(&t, target, true)?;
        let mut from = Vec::new();
        for (node, name) in sources {
            let b = self.bitmap_of(&self.device_or_node(node)?, name)?;
            self.bitmap_usable(&b, name, true)?;
            from.push(b);
        }
        let old = DirtyBitmap::new(None, n.len(), t.granularity());
        old.merge(&t);
        from.iter().filter(|b| !Arc::ptr_eq(b, &t)).for_each(|b| t.merge(b));
        Ok(Box::new(move |_| {
            t.clear();
            t.merge(&old);
        }))
    }

    /// Creates the image of `drive-backup` or `drive-mirror` and opens it; the node lives as long as its users.
    pub fn open_target(&self, t: &Target<'_>, source: &Arc<Node>) -> Result<(Arc<Node>, Option<String>)> {
        let Target { file, format, existing, named, backing, node_name } = *t;
        let mut made = None;
        let default = source.driver().name().to_owned();
        let format =
            format.map_or_else(|| if existing { None } else { Some(default) }, |f| Some(f.to_owned()));
        if let (false, Some(f)) = (existing, &format) {
            let b = named.map(|b| (b.info.filename.clone(), Some(b.driver().name().to_owned())));
            let plan = self.plan_image(file, f, Some(source.len()), b, &[])?;
            made = Some(plan.describe());
            self.create_image(&plan)?;
        }
        let mut o = Map::new();
        if let Some(n) = node_name {
            o.insert("node-name".into(), n.into());
        }
        if source.info.unmap {
            o.insert("discard".into(), "unmap".into());
        }
        if format.as_deref() == Some("qcow2") {
            o.insert("backing".into(), "".into());
        }
        let node = self.open_image(file, format.as_deref(), o, &open::Inherit::default())?;
        if let (Some(b), true) = (backing, node.driver().name() == "qcow2" && node.backing().is_none()) {
            // Readers of the copy see what lies below from the start.
            node.set_backing(Some(b))?;
        }
        Ok((node, made))
    }

    /// `change-backing-file`.
    pub fn change_backing_file(&self, device: &str, image: &str, name: &str) -> Result<()> {
        let top = self.device_or_node(device)?;
        let node = self.find_node(image).ok_or_else(|| BlockError::text("image file not found"))?;
        if !Arc::ptr_eq(&top, &node)
            && std::iter::successors(top.backing(), |n| n.backing()).all(|n| !Arc::ptr_eq(&n, &node))
        {
            return Err(BlockError::text(format!("'{device}' and image file are not in the same chain")));
        }
        let format = node.backing().map(|b| b.driver().name()).unwrap_or("");
        let was = node.read_only();
        self.quiesce(|| {
            node.reopen(false)?;
            let r = node.driver().change_backing_name(Some((name, format)));
            if was {
                node.reopen(true)?;
            }
            r
        })
    }

    /// Default id of a job on a drive.
    pub fn default_job_id(&self, given: Option<String>, device: &str) -> String {
        given.unwrap_or_else(|| self.find_drive(device).map_or(String::new(), |d| d.name().to_owned()))
    }

    /// Undo of a started job: it is cancelled.
    pub fn cancel_undo(id: &str) -> Undo {
        let id = id.to_owned();
        Box::new(move |g| {
            let _ = g.job_command(&id, crate::jobs::Verb::Cancel { force: true }, true);
        })
    }
}
