//! The graph of named nodes and the drives on top of it.

mod change;
mod drive;
mod open;
mod opts;
pub(crate) mod probe;
mod qcow2_opts;
pub mod query;
pub mod text;

pub use change::{SnapshotSync, Target, Undo};
pub use drive::{DriveOpts, OpenedDrive};
pub use open::backing_path;
pub(crate) use open::{is_driver, Inherit};
pub use opts::parse_size;

use crate::backend::{BackendOpts, BlockBackend};
use crate::error::{BlockError, Result};
use crate::node::Node;
use crate::pool::Pool;
use crate::posix::FdOpener;
use opts::Opts;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};

#[derive(Default)]
struct State {
    /// Every live node, oldest first.
    nodes: Vec<Weak<Node>>,
    /// Nodes that `blockdev-add` made and `blockdev-del` may remove.
    monitor: Vec<Arc<Node>>,
    drives: Vec<BlockBackend>,
    /// Groups of drives that share limits.
    groups: Vec<std::sync::Weak<crate::throttle::Throttle>>,
    /// Every backend that was made, named or not.
    backends: Vec<std::sync::Weak<crate::backend::Inner>>,
    /// Number of the next generated node name.
    next_auto: u64,
    next_seq: u64,
    opener: Option<Arc<dyn FdOpener>>,
    warnings: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    pool: Pool,
    jobs: Mutex<crate::jobs::Jobs>,
    exports: Mutex<crate::nbd::Exports>,
}

/// All block nodes and drives of a machine. Clones share everything.
#[derive(Clone)]
pub struct BlockGraph(Arc<Shared>);

impl Default for BlockGraph {
    fn default() -> Self {
        Self::new()
    }
}

impl BlockGraph {
    /// Names of the drivers that can be opened.
    pub fn driver_names() -> &'static [&'static str] {
        open::DRIVERS
    }

    /// An empty graph. Costs nothing until something is opened.
    pub fn new() -> BlockGraph {
        BlockGraph(Arc::new(Shared {
            state: Mutex::default(),
            pool: Pool::new(),
            jobs: Mutex::default(),
            exports: Mutex::default(),
        }))
    }

    /// Installs the hook for `/dev/fdset/N` and the like.
    pub fn set_fd_opener(&self, opener: Arc<dyn FdOpener>) {
        self.0.state.lock().opener = Some(opener);
    }

    pub(crate) fn exports(&self) -> &Mutex<crate::nbd::Exports> {
        &self.0.exports
    }

    pub(crate) fn jobs(&self) -> &Mutex<crate::jobs::Jobs> {
        &self.0.jobs
    }

    /// Opens a node that is not the monitor's.
    pub(crate) fn open_plain(&self, options: Map<String, Value>) -> Result<Arc<Node>> {
        self.open_node(Opts::new(options, "", true), &open::Inherit::default())
    }

    fn opener(&self) -> Option<Arc<dyn FdOpener>> {
        self.0.state.lock().opener.clone()
    }

    /// Warnings since the last call, each without the program's prefix; the caller prints them to stderr.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state.lock().warnings)
    }

    fn warn(&self, text: String) {
        self.0.state.lock().warnings.push(text);
    }

    /// `blockdev-add`: `options` is the QAPI `BlockdevOptions` dictionary (nested, typed). Returns the root node.
    pub fn blockdev_add(&self, options: Value) -> Result<Arc<Node>> {
        self.add_node(options, false)
    }

    /// As [`Self::blockdev_add`], with text for all scalars (`-blockdev` in its short form).
    pub fn blockdev_add_keyval(&self, options: Value) -> Result<Arc<Node>> {
        self.add_node(options, true)
    }

    fn add_node(&self, options: Value, text: bool) -> Result<Arc<Node>> {
        let Value::Object(map) = options else {
            return Err(BlockError::BadType { name: "options".into(), expected: "object" });
        };
        let mut opts = Opts::new(map, "", true);
        opts.text = text;
        let driver = opts.has("driver");
        if driver && !opts.has("node-name") {
            // The driver's own complaints come first.
            self.check_required(&opts)?;
            return Err(BlockError::text("'node-name' must be specified for the root node"));
        }
        let node = self.open_node(opts, &open::Inherit::default())?;
        node.implicit.store(false, Relaxed);
        self.0.state.lock().monitor.push(node.clone());
        Ok(node)
    }

    /// As [`Self::blockdev_add`], with all values as text and dotted keys (HMP).
    pub fn blockdev_add_text(&self, options: Map<String, Value>) -> Result<Arc<Node>> {
        let node = self.open_node(Opts::new(options, "", false), &open::Inherit::default())?;
        node.implicit.store(false, Relaxed);
        self.0.state.lock().monitor.push(node.clone());
        Ok(node)
    }

    /// Sets the limits of a drive: in `group`, or one of its own; none if nothing is limited.
    pub fn set_limits(
        &self,
        drive: &BlockBackend,
        group: &str,
        limits: crate::throttle::Limits,
    ) -> Result<()> {
        limits.check()?;
        if !limits.any() {
            drive.set_throttle(None);
            return Ok(());
        }
        let same = drive.throttle().filter(|t| t.group == group);
        let t = match same {
            Some(t) => t,
            None => {
                let groups = &mut self.0.state.lock().groups;
                groups.retain(|w| w.strong_count() > 0);
                let found = groups.iter().filter_map(Weak::upgrade).find(|t| t.group == group);
                found.unwrap_or_else(|| {
                    let t = crate::throttle::Throttle::new(group);
                    groups.push(Arc::downgrade(&t));
                    t
                })
            }
        };
        t.set(limits);
        if drive.throttle().is_none_or(|old| !Arc::ptr_eq(&old, &t)) {
            drive.set_throttle(Some(t));
        }
        Ok(())
    }

    /// `blockdev-del`.
    pub fn blockdev_del(&self, name: &str) -> Result<()> {
        let node = self.find_node(name).ok_or_else(|| BlockError::NodeNotFound(name.into()))?;
        let mut st = self.0.state.lock();
        let Some(at) = st.monitor.iter().position(|n| Arc::ptr_eq(n, &node)) else {
            return Err(BlockError::text(format!("Node {name} is not owned by the monitor")));
        };
        if !node.is_unused() {
            return Err(BlockError::text(format!("Block device {name} is in use")));
        }
        let gone = st.monitor.remove(at);
        drop(st);
        drop(node);
        drop(gone);
        Ok(())
    }

    /// A node by its name.
    pub fn find_node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes().into_iter().find(|n| n.name() == name)
    }

    /// Live nodes, newest first (the order of `query-named-block-nodes`).
    pub fn nodes(&self) -> Vec<Arc<Node>> {
        let mut st = self.0.state.lock();
        st.nodes.retain(|w| w.strong_count() > 0);
        st.nodes.iter().rev().filter_map(Weak::upgrade).collect()
    }

    /// A drive by its id.
    pub fn find_drive(&self, id: &str) -> Option<BlockBackend> {
        self.0.state.lock().drives.iter().find(|d| d.name() == id && !id.is_empty()).cloned()
    }

    /// Named drives in the order they were made.
    pub fn drives(&self) -> Vec<BlockBackend> {
        self.0.state.lock().drives.clone()
    }

    /// Resolves `-device drive=NAME`: an existing drive, or a new anonymous one on a node.
    pub fn backend_for(&self, name: &str) -> Result<BlockBackend> {
        if let Some(d) = self.find_drive(name) {
            return Ok(d);
        }
        let node = self.find_node(name).ok_or_else(|| BlockError::NoSuchNode(name.into()))?;
        let b = self.anonymous_backend();
        b.insert(&node)?;
        Ok(b)
    }

    /// A drive without name and medium, for a device with removable media and no `drive=`.
    pub fn anonymous_backend(&self) -> BlockBackend {
        self.make_backend("", BackendOpts::default())
    }

    fn make_backend(&self, name: &str, opts: BackendOpts) -> BlockBackend {
        let b = BlockBackend::new(name, opts, &self.0.pool);
        let list = &mut self.0.state.lock().backends;
        list.retain(|w| w.strong_count() > 0);
        list.push(b.weak());
        b
    }

    /// Every live backend.
    pub(crate) fn backends(&self) -> Vec<BlockBackend> {
        self.0.state.lock().backends.iter().filter_map(BlockBackend::upgrade).collect()
    }

    /// The VM continues: errors that stopped it are history.
    pub fn reset_io_status(&self) {
        self.backends().iter().for_each(BlockBackend::reset_io_status);
    }

    /// Runs `f` while no request of any device is under way; new ones wait. Only the thread that owns the graph calls
    /// this.
    pub(crate) fn quiesce<R>(&self, f: impl FnOnce() -> R) -> R {
        let all = self.backends();
        all.iter().for_each(BlockBackend::pause);
        let r = f();
        all.iter().for_each(BlockBackend::resume);
        r
    }

    /// Forgets a named drive (`drive_del`, or its device went away).
    pub fn remove_drive(&self, id: &str) -> bool {
        let mut st = self.0.state.lock();
        let Some(at) = st.drives.iter().position(|d| d.name() == id) else { return false };
        let gone = st.drives.remove(at);
        drop(st);
        gone.eject();
        gone.unname();
        true
    }

    /// Flushes every node; the first error is returned after all were tried.
    pub fn flush_all(&self) -> Result<(), crate::Errno> {
        let mut first = Ok(());
        for n in self.nodes() {
            if !n.read_only() {
                first = first.and(n.driver().flush());
            }
        }
        first
    }

    /// Ends everything: media are ejected, images are flushed, marked clean, unlocked and closed. Devices must have
    /// stopped submitting.
    pub fn shutdown(&self) {
        self.cancel_all_jobs();
        // Not running is fine.
        let _ = self.nbd_stop();
        let (drives, monitor) = {
            let mut st = self.0.state.lock();
            (std::mem::take(&mut st.drives), std::mem::take(&mut st.monitor))
        };
        for d in &drives {
            d.eject();
        }
        // Newest first: users go before what they use.
        monitor.into_iter().rev().for_each(drop);
        // A node may still be referenced by a backend that a device holds; its image must be consistent all the same.
        for n in self.nodes() {
            let _ = n.driver().close();
        }
    }

    fn name_taken(&self, name: &str) -> bool {
        self.find_node(name).is_some()
    }

    /// Checks a wished node name or makes one as QEMU does: `#block`, a running number, two random digits.
    fn node_name(&self, wish: Option<String>) -> Result<String> {
        let Some(name) = wish else {
            let mut st = self.0.state.lock();
            let n = st.next_auto;
            st.next_auto += 1;
            let random = std::collections::hash_map::RandomState::new().build_hasher().finish() % 100;
            return Ok(format!("#block{n}{random:02}"));
        };
        let well_formed = name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c));
        if !well_formed {
            return Err(BlockError::text(format!("Invalid node-name: '{name}'")));
        }
        if self.find_drive(&name).is_some() {
            return Err(BlockError::text(format!("node-name={name} is conflicting with a device id")));
        }
        if self.name_taken(&name) {
            return Err(BlockError::DuplicateNode(name));
        }
        if name.len() > 31 {
            return Err(BlockError::text("Node name too long"));
        }
        Ok(name)
    }

    fn next_seq(&self) -> u64 {
        let mut st = self.0.state.lock();
        st.next_seq += 1;
        st.next_seq
    }

    fn register(&self, node: &Arc<Node>) {
        let mut st = self.0.state.lock();
        st.nodes.retain(|w| w.strong_count() > 0);
        let at = st.nodes.partition_point(|w| w.upgrade().is_some_and(|n| n.info.seq < node.info.seq));
        st.nodes.insert(at, Arc::downgrade(node));
    }
}

pub(crate) fn object(v: Value) -> Map<String, Value> {
    match v {
        Value::Object(m) => m,
        _ => Map::new(),
    }
}
