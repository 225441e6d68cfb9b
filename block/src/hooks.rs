//! What wants to know of writes to a node: dirty bitmaps (after), and jobs that save what is overwritten (before).
//!
//! Installed and removed while no request to the node is under way ([`crate::BlockGraph::quiesce`]), so that the one
//! flag that requests look at cannot be missed.

use crate::bitmap::DirtyBitmap;
use crate::error::IoResult;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

/// Called before `[off, off+len)` is written, zeroed or discarded; an error fails the request.
pub(crate) trait BeforeWrite: Send + Sync {
    fn before(&self, off: u64, len: u64) -> IoResult;
}

/// The hooks of a node.
#[derive(Default)]
pub(crate) struct Hooks {
    active: AtomicBool,
    lists: RwLock<Lists>,
}

#[derive(Default)]
struct Lists {
    bitmaps: Vec<Arc<DirtyBitmap>>,
    before: Vec<Arc<dyn BeforeWrite>>,
}

impl Hooks {
    pub(crate) fn active(&self) -> bool {
        self.active.load(Relaxed)
    }

    pub(crate) fn before(&self, off: u64, len: u64) -> IoResult {
        let list = self.lists.read().before.clone();
        list.iter().try_for_each(|h| h.before(off, len))
    }

    pub(crate) fn after(&self, off: u64, len: u64) {
        for b in &self.lists.read().bitmaps {
            b.written(off, len);
        }
    }

    fn change(&self, f: impl FnOnce(&mut Lists)) {
        let mut l = self.lists.write();
        f(&mut l);
        self.active.store(!(l.bitmaps.is_empty() && l.before.is_empty()), Relaxed);
    }

    pub(crate) fn add_bitmap(&self, b: &Arc<DirtyBitmap>) {
        self.change(|l| l.bitmaps.push(b.clone()));
    }

    pub(crate) fn remove_bitmap(&self, b: &Arc<DirtyBitmap>) {
        self.change(|l| l.bitmaps.retain(|x| !Arc::ptr_eq(x, b)));
    }

    pub(crate) fn add_before(&self, h: Arc<dyn BeforeWrite>) {
        self.change(|l| l.before.push(h));
    }

    pub(crate) fn remove_before(&self, h: &Arc<dyn BeforeWrite>) {
        self.change(|l| l.before.retain(|x| !std::ptr::addr_eq(Arc::as_ptr(x), Arc::as_ptr(h))));
    }

    /// Bitmaps that users see.
    pub(crate) fn bitmaps(&self) -> Vec<Arc<DirtyBitmap>> {
        self.lists.read().bitmaps.clone()
    }
}
