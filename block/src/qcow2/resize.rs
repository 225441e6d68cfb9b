//! Changing the virtual size.

use super::{Meta, Qcow2};
use crate::error::{BlockError, Errno, Result};
use std::sync::atomic::Ordering::*;

impl Qcow2 {
    pub(super) fn resize(&self, new: u64) -> Result<()> {
        if new & 511 != 0 {
            return Err(BlockError::text("The new size must be a multiple of 512"));
        }
        if self.hdr.version < 3 && !self.state.lock().snapshots.is_empty() {
            return Err(BlockError::text("Can't resize a version 2 image which has snapshots"));
        }
        let old = self.size.load(Acquire);
        self.writable().map_err(|e| BlockError::io("Failed to resize the image", e))?;
        let entries = self.hdr.geo.l1_entries(new);
        if entries * 8 > super::header::MAX_L1_BYTES || i64::try_from(new).is_err() {
            return Err(BlockError::text("Failed to grow the L1 table: File too large"));
        }
        if new < old {
            // What lies behind the new end must not come back if the image grows again.
            self.write_zeroes(new, old - new, true)
                .map_err(|e| BlockError::io("Failed to discard cropped clusters", e))?;
        }
        {
            let mut meta = self.meta.lock();
            self.set_size(&mut meta, new, entries)
                .map_err(|e| BlockError::io("Failed to grow the L1 table", e))?;
        }
        let shadow = self.backing.load().as_ref().map_or(0, |b| b.node().len()).min(new);
        if shadow > old {
            self.write_zeroes(old, shadow - old, true)
                .map_err(|e| BlockError::io("Failed to zero out the new area", e))?;
        }
        self.flush().map_err(|e| BlockError::io("Failed to flush the image", e))
    }

    /// Switches size, and L1 table if it is too small, by one write of the header.
    pub(super) fn set_size(&self, meta: &mut Meta, new: u64, entries: u64) -> std::result::Result<(), Errno> {
        self.write_metadata(meta)?;
        self.barrier()?;
        let geo = self.hdr.geo;
        let (old_len, l1) = {
            let t = self.tables.read();
            (t.l1.len() as u64, t.l1.clone())
        };
        let (mut l1, mut l1_at, mut freed) = (l1, meta.l1_offset, None);
        if entries > old_len {
            let n = (entries * 8).div_ceil(geo.cluster());
            l1.resize(entries as usize, 0);
            l1_at = self.allocate_contiguous(&mut meta.rc, n)? << geo.cluster_bits;
            let mut bytes: Vec<u8> = l1.iter().flat_map(|e| e.to_be_bytes()).collect();
            bytes.resize((n * geo.cluster()) as usize, 0);
            self.write_refcounts(&mut meta.rc)?;
            self.file_write(l1_at, &bytes)?;
            self.barrier()?;
            freed = Some((meta.l1_offset >> geo.cluster_bits, (old_len * 8).div_ceil(geo.cluster())));
        }
        let mut head = [0u8; 24];
        head[..8].copy_from_slice(&new.to_be_bytes());
        head[12..16].copy_from_slice(&(l1.len() as u32).to_be_bytes());
        head[16..].copy_from_slice(&l1_at.to_be_bytes());
        self.file_write(24, &head)?;
        self.barrier()?;
        if let Some((first, count)) = freed {
            let range = |at: u64, n: u64| (at, at + n * geo.cluster());
            {
                let mut t = self.tables.write();
                let was = range(first << geo.cluster_bits, count);
                t.fixed.retain(|r| *r != was);
                let n = (l1.len() as u64 * 8).div_ceil(geo.cluster());
                t.fixed.push(range(l1_at, n));
                let c = l1_at >> geo.cluster_bits;
                t.metadata.extend(c..c + n);
                t.l1 = l1;
            }
            meta.l1_offset = l1_at;
            self.release(&mut meta.rc, first, count, false)?;
        }
        self.size.store(new, Release);
        Ok(())
    }
}
