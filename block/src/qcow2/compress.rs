//! Compressed clusters: several are packed into one host cluster, each with its own reference to it.

use super::tables::{decode, Kind, OFLAG_COMPRESSED};
use super::{Meta, Qcow2};
use crate::error::{Errno, IoResult};
use crate::iov;
use std::sync::atomic::Ordering::Release;

/// Unpacks a zstd frame that fills `plain` exactly; `packed` may have other data behind the frame.
pub(super) fn unzstd(packed: &[u8], plain: &mut [u8]) -> IoResult {
    let mut d = zstd::stream::raw::Decoder::new().map_err(|_| Errno::EIO)?;
    let (mut from, mut to) = (0, 0);
    while to < plain.len() {
        use zstd::stream::raw::Operation;
        let s = d.run_on_buffers(&packed[from..], &mut plain[to..]).map_err(|_| Errno::EIO)?;
        from += s.bytes_read;
        to += s.bytes_written;
        if s.remaining == 0 || (s.bytes_read == 0 && s.bytes_written == 0) {
            break;
        }
    }
    (to == plain.len()).then_some(()).ok_or(Errno::EIO)
}

/// Compresses a cluster as the image wants it; `None` if that does not make it smaller.
pub(crate) fn pack(zstd: bool, plain: &[u8]) -> Option<Vec<u8>> {
    let mut out = vec![0u8; plain.len() - 1];
    if zstd {
        let n = zstd::bulk::compress_to_buffer(plain, &mut out, 0).ok()?;
        out.truncate(n);
        return Some(out);
    }
    // Readers unpack with a window of 4 KiB and without the zlib header.
    let mut z = flate2::Compress::new_with_window_bits(flate2::Compression::default(), false, 12);
    match z.compress(plain, &mut out, flate2::FlushCompress::Finish) {
        Ok(flate2::Status::StreamEnd) => {
            out.truncate(z.total_out() as usize);
            Some(out)
        }
        _ => None,
    }
}

impl Qcow2 {
    /// Writes one cluster that is not allocated yet (or lets the old one go).
    pub(super) fn write_compressed(&self, off: u64, buf: &[u8]) -> IoResult {
        self.writable()?;
        let c = self.cluster() as usize;
        if !off.is_multiple_of(c as u64)
            || buf.len() > c
            || (buf.len() < c && off + buf.len() as u64 != self.len())
        {
            return Err(Errno::EINVAL);
        }
        let mut full = Vec::new();
        let plain = if buf.len() < c {
            full.extend_from_slice(buf);
            full.resize(c, 0);
            &full
        } else {
            buf
        };
        match pack(self.hdr.compression == 1, plain) {
            Some(packed) => self.write_packed(off, &packed),
            None => self.writev(off, &[iov::own_ro(buf)]),
        }
    }

    /// As [`Self::write_compressed`], with the packed bytes at hand.
    pub(super) fn write_packed(&self, off: u64, packed: &[u8]) -> IoResult {
        let cluster = off >> self.hdr.geo.cluster_bits;
        let mut meta = self.meta.lock();
        self.wait_free(&mut meta, cluster, cluster + 1);
        self.writable_table(&mut meta, cluster)?;
        self.need_slice(&mut meta, cluster)?;
        let host = self.place_packed(&mut meta, packed.len() as u64)?;
        // The mapping is changed after the data is there, under the lock: compressed writes are for jobs and tools.
        self.file_write(host, packed)?;
        let shift = 62 - (self.hdr.geo.cluster_bits - 8);
        let sectors = ((host + packed.len() as u64 - 1) >> 9) - (host >> 9);
        let entry = OFLAG_COMPRESSED | sectors << shift | host;
        self.dirty.store(true, Release);
        let old = self.tables.write().set(cluster, entry).ok_or(Errno::EIO)?;
        if !matches!(decode(&self.hdr.geo, self.hdr.version, old), Some(Kind::Unallocated)) {
            self.let_go(&mut meta, old, false);
        }
        self.relieve(&mut meta)
    }

    /// Finds room for `n` bytes (less than a cluster) and counts the references.
    fn place_packed(&self, meta: &mut Meta, n: u64) -> Result<u64, Errno> {
        let bits = self.hdr.geo.cluster_bits;
        let end = meta.rc.packed_end;
        let left = if end == 0 { 0 } else { self.cluster() - self.hdr.geo.in_cluster(end) };
        if left >= n && self.retain(&mut meta.rc, end >> bits).is_ok() {
            meta.rc.packed_end = self.packed_end(end + n);
            return Ok(end);
        }
        let (first, _) = self.allocate(&mut meta.rc, 1)?;
        let follows = left > 0 && left < n && first == (end >> bits) + 1;
        let host = match follows && self.retain(&mut meta.rc, end >> bits).is_ok() {
            true => end,
            false => first << bits,
        };
        meta.rc.packed_end = self.packed_end(host + n);
        Ok(host)
    }

    /// A full host cluster has no room.
    fn packed_end(&self, end: u64) -> u64 {
        if self.hdr.geo.in_cluster(end) == 0 {
            0
        } else {
            end
        }
    }

    fn len(&self) -> u64 {
        self.size.load(std::sync::atomic::Ordering::Acquire)
    }
}
