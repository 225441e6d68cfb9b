//! Making metadata stable: flush and close.

use super::{Freed, Meta, Qcow2};
use crate::error::IoResult;
use std::sync::atomic::Ordering::*;

impl Qcow2 {
    /// Writes everything that is only in memory, in the order that the module comment promises, and lets go of
    /// clusters that are now unreferenced on the host too. L2 and L1 writes at the end are not yet stable on return.
    pub(super) fn write_metadata(&self, meta: &mut Meta) -> IoResult {
        self.writable_or_closing()?;
        self.write_refcounts(&mut meta.rc)?;
        let slices = self.tables.read().dirty();
        if !slices.is_empty() || !meta.dirty_l1.is_empty() {
            self.barrier()?;
            for at in slices {
                let bytes = self.tables.read().slice(at).map(|s| s.bytes());
                if let Some(b) = bytes {
                    self.file_write(at, &b)?;
                    self.tables.write().clean(at);
                }
            }
            self.write_l1(meta)?;
        }
        self.dirty.store(false, Release);
        self.free_stable(meta)
    }

    fn writable_or_closing(&self) -> IoResult {
        if self.broken.load(Acquire) {
            return Err(crate::Errno::EIO);
        }
        Ok(())
    }

    fn write_l1(&self, meta: &mut Meta) -> IoResult {
        if meta.dirty_l1.is_empty() {
            return Ok(());
        }
        self.barrier()?;
        while let Some(i) = meta.dirty_l1.last().copied() {
            let e = self.tables.read().l1.get(i).copied().unwrap_or(0);
            self.file_write(meta.l1_offset + 8 * i as u64, &e.to_be_bytes())?;
            meta.dirty_l1.pop();
        }
        Ok(())
    }

    /// Releases what was let go, once that is stable and transfers that may still touch it have ended.
    fn free_stable(&self, meta: &mut Meta) -> IoResult {
        if meta.freed.is_empty() && meta.draining.is_empty() {
            return Ok(());
        }
        self.barrier()?;
        self.drained(meta)?;
        if meta.draining.is_empty() && !meta.freed.is_empty() {
            meta.draining = std::mem::take(&mut meta.freed);
            {
                let _readers_out = self.tables.write();
                self.epoch.fetch_add(1, AcqRel);
            }
            self.drained(meta)?;
        }
        Ok(())
    }

    fn drained(&self, meta: &mut Meta) -> IoResult {
        let previous = (self.epoch.load(Acquire) + 1) & 1;
        if meta.draining.is_empty() || self.inflight[previous].load(Acquire) != 0 {
            return Ok(());
        }
        for Freed { first, count, punch } in std::mem::take(&mut meta.draining) {
            self.release(&mut meta.rc, first, count, punch)?;
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> IoResult {
        if self.dirty.load(Acquire) {
            let mut meta = self.meta.lock();
            if self.dirty.load(Acquire) {
                self.write_metadata(&mut meta)?;
            }
        }
        self.file().flush()
    }

    pub(super) fn close(&self) -> IoResult {
        if self.closed.swap(true, AcqRel) || self.is_read_only() || self.broken.load(Acquire) {
            return Ok(());
        }
        self.settle()?;
        self.store_bitmaps()?;
        self.file().flush()
    }

    /// Writes all metadata and releases everything that was let go. No transfers are under way.
    pub(super) fn settle(&self) -> IoResult {
        let mut meta = self.meta.lock();
        // Twice for what was let go, once more for the refcounts that this changed.
        for _ in 0..3 {
            self.write_metadata(&mut meta)?;
            if meta.freed.is_empty() && meta.draining.is_empty() && !meta.rc.is_dirty() {
                break;
            }
        }
        self.write_refcounts(&mut meta.rc)?;
        self.file().flush()
    }
}
