//! Reading: mapping look-up, data, backing image, compressed clusters.

use super::tables::{Kind, Run, Slice};
use super::{Flight, Meta, Qcow2};
use crate::error::{Errno, IoResult};
use crate::iov::{self, Iov};

impl Qcow2 {
    /// The mapping at `off`, loading the L2 slice if needed, with an in-flight registration that keeps the clusters
    /// it names from being reused.
    pub(super) fn locate(&self, off: u64, len: u64) -> Result<(Kind, u64, Flight<'_>), Errno> {
        loop {
            {
                let t = self.tables.read();
                match t.run(off, len) {
                    Run::Is(kind, n) => return Ok((kind, n, Flight(self, self.enter()))),
                    Run::Corrupt => {
                        drop(t);
                        return Err(self.mark_corrupt());
                    }
                    Run::Load(_) => {}
                }
            }
            let mut meta = self.meta.lock();
            // Somebody may have loaded it while we waited.
            let again = self.tables.read().run(off, len);
            if let Run::Load(at) = again {
                self.load_slice(&mut meta, at)?;
            }
        }
    }

    /// Brings the slice at host offset `at` into the cache.
    pub(super) fn load_slice(&self, meta: &mut Meta, at: u64) -> IoResult {
        let (bytes, bits) = {
            let t = self.tables.read();
            (t.slice_bytes() as usize, t.geo.cluster_bits)
        };
        // An L2 table inside other metadata would let a guest write change that metadata.
        let table = at >> bits << bits;
        if self.overlaps_fixed(table) {
            return Err(self.mark_corrupt());
        }
        let mut buf = vec![0u8; bytes];
        self.file_read(at, &mut buf)?;
        let entries: Box<[u64]> = buf
            .chunks_exact(8)
            .map(|c| u64::from_be_bytes([c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7]]))
            .collect();
        let full = {
            let mut t = self.tables.write();
            t.is_full() && !t.evict()
        };
        if full {
            self.write_metadata(meta)?;
            self.tables.write().evict();
        }
        self.tables.write().insert(at, entries);
        Ok(())
    }

    /// True if a cluster is part of the header, the L1 table or the refcount table.
    pub(super) fn overlaps_fixed(&self, host: u64) -> bool {
        self.tables.read().fixed.iter().any(|(a, b)| host >= *a && host < *b)
    }

    pub(super) fn readv(&self, off: u64, iov: Iov<'_>) -> IoResult {
        let len = iov::total(iov).ok_or(Errno::EINVAL)? as u64;
        let mut done = 0u64;
        while done < len {
            let at = off + done;
            let (kind, n, flight) = self.locate(at, len - done)?;
            let whole = done == 0 && n == len;
            let part = if whole { Vec::new() } else { iov::slice(iov, done as usize, n as usize) };
            let part: Iov<'_> = if whole { iov } else { &part };
            self.read_kind(kind, at, part, n)?;
            drop(flight);
            done += n;
        }
        Ok(())
    }

    /// Reads a run of one kind; the caller holds an in-flight registration from the look-up.
    pub(super) fn read_kind(&self, kind: Kind, at: u64, part: Iov<'_>, n: u64) -> IoResult {
        let inside = self.hdr.geo.in_cluster(at);
        match kind {
            Kind::Unallocated => match &*self.backing.load() {
                Some(b) => b.node().read_padded(at, part),
                None => {
                    iov::zero(part, 0, n as usize);
                    Ok(())
                }
            },
            Kind::Zero { .. } => {
                iov::zero(part, 0, n as usize);
                Ok(())
            }
            Kind::Data { host, .. } => self.file().readv(host + inside, part),
            Kind::Compressed(entry) => {
                let plain = self.decompress(entry)?;
                let from = inside as usize;
                iov::scatter(part, 0, &plain[from..from + n as usize]);
                Ok(())
            }
        }
    }

    /// Host byte range of a compressed cluster.
    pub(super) fn compressed_range(&self, entry: u64) -> (u64, u64) {
        let shift = 62 - (self.hdr.geo.cluster_bits - 8);
        let host = entry & ((1 << shift) - 1);
        let sectors = ((entry >> shift) & ((1 << (self.hdr.geo.cluster_bits - 8)) - 1)) + 1;
        (host, sectors * 512 - (host & 511))
    }

    fn decompress(&self, entry: u64) -> Result<Vec<u8>, Errno> {
        let (host, len) = self.compressed_range(entry);
        let mut packed = vec![0u8; len as usize];
        self.file_read(host, &mut packed)?;
        let mut plain = vec![0u8; self.cluster() as usize];
        if self.hdr.compression == 1 {
            return super::compress::unzstd(&packed, &mut plain).map(|()| plain);
        }
        // qcow2 stores raw deflate streams, without the zlib header.
        let mut z = flate2::Decompress::new(false);
        match z.decompress(&packed, &mut plain, flate2::FlushDecompress::Finish) {
            Ok(_) if z.total_out() == self.cluster() => Ok(plain),
            _ => Err(Errno::EIO),
        }
    }
}

impl Slice {
    /// Big-endian image of the slice.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.entries.iter().flat_map(|e| e.to_be_bytes()).collect()
    }
}
