//! KVM's binary statistics (`KVM_GET_STATS_FD`, see the kernel's virt/kvm/api.rst): a file with a header, descriptors
//! and values.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::fs::FileExt;

use crate::accel::stats::{Stat, StatKind, StatUnit};

/// `_IO(KVMIO, 0xce)`.
const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;
/// More descriptors, longer names or larger histograms than any kernel has.
const MAX_DESCRIPTORS: u32 = 4096;
const MAX_NAME: u32 = 256;
const MAX_VALUES: u16 = 1024;
const HEADER: usize = 24;
const FIXED: usize = 16;

/// Opens the statistics of a VM or vCPU.
pub(super) fn open(fd: RawFd) -> io::Result<File> {
    // SAFETY: the request takes no argument; the descriptor belongs to the caller.
    let stats = unsafe { libc::ioctl(fd, KVM_GET_STATS_FD, 0) };
    if stats < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: KVM made the descriptor for this call and nobody else has it.
    Ok(unsafe { File::from_raw_fd(stats) })
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    b.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

/// Reads all statistics, newest first as QEMU lists them.
pub(super) fn read(file: &File) -> io::Result<Vec<Stat>> {
    let mut header = [0; HEADER];
    file.read_exact_at(&mut header, 0)?;
    let word = |i: usize| u32_at(&header, i * 4);
    let (name_size, count, descriptors, data) = (word(1), word(2), word(4), word(5));
    if name_size > MAX_NAME || count > MAX_DESCRIPTORS {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let step = FIXED + name_size as usize;
    let mut raw = vec![0; step * count as usize];
    file.read_exact_at(&mut raw, descriptors.into())?;
    let mut list = Vec::with_capacity(count as usize);
    for d in raw.chunks_exact(step).rev() {
        list.extend(one(file, d, data.into())?);
    }
    Ok(list)
}

/// One statistic; `None` if its kind is newer than this program.
fn one(file: &File, d: &[u8], data: u64) -> io::Result<Option<Stat>> {
    let (flags, exponent, size) = (u32_at(d, 0), u16_at(d, 4) as i16, u16_at(d, 6).min(MAX_VALUES));
    let (offset, bucket_size) = (u32_at(d, 8), u32_at(d, 12));
    let kind = match flags & 15 {
        0 => StatKind::Cumulative,
        1 => StatKind::Instant,
        2 => StatKind::Peak,
        3 => StatKind::LinearHistogram,
        4 => StatKind::Log2Histogram,
        _ => return Ok(None),
    };
    let unit = match flags >> 4 & 15 {
        0 => StatUnit::None,
        1 => StatUnit::Bytes,
        2 => StatUnit::Seconds,
        3 => StatUnit::Cycles,
        4 => StatUnit::Boolean,
        _ => return Ok(None),
    };
    let base = match flags >> 8 & 15 {
        0 => 10,
        1 => 2,
        _ => return Ok(None),
    };
    let name: Vec<u8> = d[FIXED..].iter().copied().take_while(|b| *b != 0).collect();
    let mut raw = vec![0; usize::from(size) * 8];
    file.read_exact_at(&mut raw, data + u64::from(offset))?;
    let values = raw.chunks_exact(8).map(|c| u64::from(u32_at(c, 0)) | u64::from(u32_at(c, 4)) << 32);
    Ok(Some(Stat {
        name: String::from_utf8_lossy(&name).into_owned(),
        kind,
        unit,
        base,
        exponent,
        bucket_size,
        values: values.collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn file_format() {
        let mut f = tempfile::tempfile().unwrap();
        let mut b = Vec::new();
        // flags, name size, descriptors, id, descriptors at, values at.
        for v in [0u32, 16, 2, 24, 40, 104] {
            b.extend(v.to_le_bytes());
        }
        b.resize(40, 0);
        let mut descriptor = |flags: u32, exponent: i16, size: u16, offset: u32, name: &str| {
            b.extend(flags.to_le_bytes());
            b.extend(exponent.to_le_bytes());
            b.extend(size.to_le_bytes());
            b.extend(offset.to_le_bytes());
            b.extend(0u32.to_le_bytes());
            b.extend(name.as_bytes());
            b.resize(b.len() + 16 - name.len(), 0);
        };
        descriptor(0x20, -9, 1, 0, "wait_ns");
        descriptor(0x24, -9, 2, 8, "wait_hist");
        for v in [7u64, 1, 2] {
            b.extend(v.to_le_bytes());
        }
        f.write_all(&b).unwrap();
        let list = read(&f).unwrap();
        assert_eq!(list.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["wait_hist", "wait_ns"]);
        assert_eq!((list[0].kind, &list[0].values), (StatKind::Log2Histogram, &vec![1, 2]));
        let s = &list[1];
        assert_eq!((s.unit, s.base, s.exponent, &s.values), (StatUnit::Seconds, 10, -9, &vec![7]));
    }
}
