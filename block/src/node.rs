//! Nodes of the graph and the permissions on the edges between them.

use crate::driver::{perm, Driver, Inline, Op};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::hooks::Hooks;
use crate::iov::{self, Iov};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

/// `cache.direct` and `cache.no-flush` of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheMode {
    /// Bypass the host's page cache.
    pub direct: bool,
    /// Ignore flushes.
    pub no_flush: bool,
}

/// `detect-zeroes`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DetectZeroes {
    /// Writes are written.
    #[default]
    Off,
    /// Writes of zeroes become write-zeroes.
    On,
    /// The same, and space may be given back.
    Unmap,
}

impl DetectZeroes {
    /// QAPI name.
    pub fn as_str(self) -> &'static str {
        match self {
            DetectZeroes::Off => "off",
            DetectZeroes::On => "on",
            DetectZeroes::Unmap => "unmap",
        }
    }
}

/// What was decided about a node when it was opened.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// Unique node name; generated ones start with `#block`.
    pub name: String,
    /// What `query-block` shows as `file`: a plain file name, or `json:{…}`.
    pub filename: String,
    /// Opened without write access.
    pub read_only: bool,
    /// Cache flags.
    pub cache: CacheMode,
    /// `detect-zeroes`.
    pub detect_zeroes: DetectZeroes,
    /// `discard=unmap`: discards reach the image.
    pub unmap: bool,
    /// Others may do anything to the image meanwhile.
    pub force_share: bool,
    /// Position in the order in which nodes were named.
    pub(crate) seq: u64,
}

struct Use {
    id: u64,
    perm: u8,
    shared: u8,
    user: String,
    role: String,
}

/// A node: a driver with a name.
pub struct Node {
    /// Decided at open.
    pub info: NodeInfo,
    /// Node that holds the data, and backing image, where there are.
    pub(crate) file: Option<Arc<Node>>,
    backing: ArcSwapOption<Node>,
    read_only: AtomicBool,
    pub(crate) hooks: Hooks,
    drv: Box<dyn Driver>,
    users: Mutex<Vec<Use>>,
    next_use: AtomicU64,
    wr_highest: AtomicU64,
    /// A drive made it (not `blockdev-add`).
    pub(crate) implicit: AtomicBool,
}

impl Node {
    pub(crate) fn new(
        info: NodeInfo,
        drv: Box<dyn Driver>,
        file: Option<Arc<Node>>,
        backing: Option<Arc<Node>>,
    ) -> Arc<Node> {
        Arc::new(Node {
            read_only: info.read_only.into(),
            hooks: Hooks::default(),
            info,
            file,
            backing: ArcSwapOption::new(backing),
            drv,
            users: Mutex::new(Vec::new()),
            next_use: AtomicU64::new(0),
            wr_highest: AtomicU64::new(0),
            implicit: AtomicBool::new(true),
        })
    }

    /// Node name.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// The driver.
    pub fn driver(&self) -> &dyn Driver {
        &*self.drv
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.drv.len()
    }

    /// True if the medium has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The backing image.
    pub fn backing(&self) -> Option<Arc<Node>> {
        self.backing.load_full()
    }

    /// Puts another image (or none) below this one: the driver reads from it from now on. The caller has stopped
    /// requests to this node.
    pub(crate) fn set_backing(self: &Arc<Node>, new: Option<&Arc<Node>>) -> Result<()> {
        let edge = match new {
            Some(b) => {
                let shared = perm::ALL & !(perm::WRITE | perm::RESIZE);
                Some(Edge::new(b, &format!("node '{}'", self.name()), "backing", perm::READ, shared)?)
            }
            None => None,
        };
        self.drv.set_backing(edge)?;
        self.backing.store(new.cloned());
        Ok(())
    }

    /// Cannot be written.
    pub fn read_only(&self) -> bool {
        self.read_only.load(Relaxed)
    }

    /// Makes a node that was opened read-only writable, with everything below it that holds its data; or the other
    /// way round. Nothing happens if it is so already.
    pub(crate) fn reopen(&self, read_only: bool) -> Result<()> {
        if self.read_only() == read_only {
            return Ok(());
        }
        if let (Some(f), false) = (&self.file, read_only) {
            f.reopen(false)?;
        }
        self.drv.reopen(read_only)?;
        self.read_only.store(read_only, Relaxed);
        if let (Some(f), true) = (&self.file, read_only) {
            f.reopen(true)?;
        }
        Ok(())
    }

    /// The node below that holds the data.
    pub fn file(&self) -> Option<&Arc<Node>> {
        self.file.as_ref()
    }

    /// True if nobody uses the node.
    pub fn is_unused(&self) -> bool {
        self.users.lock().is_empty()
    }

    /// Highest byte ever written plus one (`wr_highest_offset`).
    pub fn wr_highest_offset(&self) -> u64 {
        self.wr_highest.load(Relaxed)
    }

    /// Checks range and access and returns the operation that shall really be done.
    pub(crate) fn admit(&self, op: Op, off: u64, len: u64, iov: Iov<'_>) -> Result<Op, Errno> {
        let op = match op {
            Op::Flush => return Ok(op),
            Op::Read => op,
            _ if self.read_only() => return Err(Errno::EPERM),
            Op::Write { fua } if self.info.detect_zeroes != DetectZeroes::Off && iov::is_zero(iov) => {
                let unmap = self.info.detect_zeroes == DetectZeroes::Unmap && self.info.unmap;
                Op::WriteZeroes { unmap, fua }
            }
            Op::WriteZeroes { unmap, fua } => Op::WriteZeroes { unmap: unmap && self.info.unmap, fua },
            _ => op,
        };
        crate::driver::check_range(off, len, self.drv.len())?;
        if matches!(op, Op::Read | Op::Write { .. }) && iov::total(iov).map(|n| n as u64) != Some(len) {
            return Err(Errno::EINVAL);
        }
        Ok(op)
    }

    pub(crate) fn wrote(&self, op: Op, off: u64, len: u64) {
        if matches!(op, Op::Write { .. } | Op::WriteZeroes { .. }) {
            let end = off + len;
            if end > self.wr_highest.load(Relaxed) {
                self.wr_highest.fetch_max(end, Relaxed);
            }
        }
    }

    pub(crate) fn try_inline(&self, op: Op, off: u64, len: u64, iov: Iov<'_>) -> Inline {
        if op == Op::Discard && !self.info.unmap {
            return Inline::Done(Ok(()));
        }
        if op != Op::Read && self.hooks.active() {
            return Inline::Punt;
        }
        let r = self.drv.try_inline(op, off, iov);
        if let Inline::Done(Ok(())) = r {
            self.wrote(op, off, len);
        }
        r
    }

    /// Performs an admitted operation with blocking calls.
    pub(crate) fn run(&self, op: Op, off: u64, len: u64, iov: Iov<'_>) -> IoResult {
        if self.hooks.active() && !matches!(op, Op::Read | Op::Flush) {
            self.hooks.before(off, len)?;
            let r = self.run_bare(op, off, len, iov);
            self.hooks.after(off, len);
            return r;
        }
        self.run_bare(op, off, len, iov)
    }

    fn run_bare(&self, op: Op, off: u64, len: u64, iov: Iov<'_>) -> IoResult {
        match op {
            Op::Read => self.drv.readv(off, iov),
            Op::Write { fua } => {
                self.wrote(op, off, len);
                self.drv.writev(off, iov, fua)
            }
            Op::Flush => self.drv.flush(),
            Op::Discard if !self.info.unmap => Ok(()),
            Op::Discard => self.drv.discard(off, len),
            Op::WriteZeroes { unmap, fua } => {
                self.wrote(op, off, len);
                self.drv.write_zeroes(off, len, unmap)?;
                if fua {
                    self.drv.flush()?;
                }
                Ok(())
            }
        }
    }

    /// Hands the request to an asynchronous engine, if there is one that may have it.
    pub(crate) fn try_queue(
        &self,
        off: u64,
        c: crate::request::Completion,
    ) -> Result<(), crate::request::Completion> {
        if c.op != Op::Read && self.hooks.active() {
            return Err(c);
        }
        self.drv.try_queue(off, c)
    }

    /// Reads `buf` at `off`; bytes beyond the end are zero.
    pub(crate) fn read_padded(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let want = iov::total(iov).ok_or(Errno::EINVAL)?;
        let have = (self.len().saturating_sub(off)).min(want as u64) as usize;
        if have == want {
            return self.drv.readv(off, iov);
        }
        if have > 0 {
            self.drv.readv(off, &iov::slice(iov, 0, have))?;
        }
        iov::zero(iov, have, want - have);
        Ok(())
    }

    pub(crate) fn pread(&self, off: u64, buf: &mut [u8]) -> IoResult {
        self.drv.readv(off, &[iov::own(buf)])
    }

    pub(crate) fn pwrite(&self, off: u64, buf: &[u8]) -> IoResult {
        self.run(Op::Write { fua: false }, off, buf.len() as u64, &[iov::own_ro(buf)])
    }

    /// Changes the length (`block_resize`).
    pub fn truncate(&self, len: u64) -> Result<()> {
        if self.read_only() {
            return Err(BlockError::NodeReadOnly);
        }
        self.drv.truncate(len)?;
        self.hooks.bitmaps().iter().for_each(|b| b.resize(len));
        Ok(())
    }

    fn cumulative(users: &[Use]) -> (u8, u8) {
        users.iter().fold((0, perm::ALL), |(p, s), u| (p | u.perm, s & u.shared))
    }

    fn conflict(&self, users: &[Use], id: u64, want: u8, shared: u8) -> Option<BlockError> {
        let describe = |u: &Use| format!("{} (uses node '{}' as '{}' child)", u.user, self.info.name, u.role);
        let me = users.iter().find(|u| u.id == id)?;
        for u in users.iter().filter(|u| u.id != id) {
            let (bits, needs, denies) = match (u.perm & !shared, want & !u.shared) {
                (0, 0) => continue,
                (0, bits) => (bits, me, u),
                (bits, _) => (bits, u, me),
            };
            return Some(BlockError::Conflict {
                node: self.info.name.clone(),
                perms: perm::names(bits),
                needs: describe(needs),
                denies: describe(denies),
            });
        }
        None
    }

    fn set_use(&self, id: u64, want: u8, shared: u8) -> Result<()> {
        let shared = if self.info.force_share { perm::ALL } else { shared };
        if want & (perm::WRITE | perm::RESIZE) != 0 && self.read_only() {
            return Err(BlockError::NodeReadOnly);
        }
        let mut users = self.users.lock();
        if let Some(e) = self.conflict(&users, id, want, shared) {
            return Err(e);
        }
        let Some(at) = users.iter().position(|u| u.id == id) else { return Ok(()) };
        let before = (users[at].perm, users[at].shared);
        (users[at].perm, users[at].shared) = (want, shared);
        let (p, s) = Node::cumulative(&users);
        if let Err(e) = self.drv.set_perm(p, s) {
            (users[at].perm, users[at].shared) = before;
            return Err(e);
        }
        Ok(())
    }

    fn drop_use(&self, id: u64) {
        let mut users = self.users.lock();
        users.retain(|u| u.id != id);
        let (p, s) = Node::cumulative(&users);
        // Giving permissions up cannot conflict.
        let _ = self.drv.set_perm(p, s);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Nobody is left to report to; the drivers leave their images consistent even when this fails.
        let _ = self.drv.close();
    }
}

/// A counted use of a node: the edge from a parent (a format node, a device) with its permissions.
pub struct Edge {
    node: Arc<Node>,
    id: u64,
}

impl Edge {
    /// Starts to use `node`. `user` is `node 'NAME'` or `block device 'NAME'`, for error texts. Fails if other uses, here or in another process, do not allow `want` or need what
    /// `shared` excludes.
    pub fn new(node: &Arc<Node>, user: &str, role: &str, want: u8, shared: u8) -> Result<Edge> {
        let id = node.next_use.fetch_add(1, Relaxed);
        let entry = Use { id, perm: 0, shared: perm::ALL, user: user.into(), role: role.into() };
        node.users.lock().push(entry);
        let edge = Edge { node: node.clone(), id };
        edge.set(want, shared)?;
        Ok(edge)
    }

    /// Changes the permissions.
    pub fn set(&self, want: u8, shared: u8) -> Result<()> {
        self.node.set_use(self.id, want, shared)
    }

    /// Changes how the user is called in error texts.
    pub(crate) fn rename(&self, user: String) {
        if let Some(u) = self.node.users.lock().iter_mut().find(|u| u.id == self.id) {
            u.user = user;
        }
    }

    /// The node used.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.node.drop_use(self.id);
    }
}
