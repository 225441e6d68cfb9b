//! One access by a processor (or whoever acts like one): split into pieces that the regions accept, RAM without any
//! lock, devices through [`IoTarget`].

use super::{FlatKind, FlatMaps, FlatRange, FlatView, IoSpec, Owner, Space};

/// Whoever calls the devices: the machine itself, or a handle that takes the machine lock for each call.
pub trait IoTarget {
    /// A read of `size` bytes at `offset` in the region.
    fn io_read(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8) -> u64;
    /// A write.
    fn io_write(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8, value: u64);
    /// Nothing answers at this address of the memory space.
    fn unassigned(&mut self, _write: bool, _addr: u64, _size: usize) {}
}

fn view(maps: &FlatMaps, space: Space) -> &FlatView {
    match space {
        Space::Io => &maps.io,
        Space::Memory => &maps.mem,
    }
}

/// Length of the next piece. RAM ends with its range; a device sees the full width of an access that starts in one of
/// its registers, even if another region lies over the next bytes, but no more than it takes and, unless
/// it takes others too, aligned to itself.
fn piece(r: &FlatRange, write: bool, addr: u64, rest: usize) -> usize {
    match &r.kind {
        FlatKind::RomDevice { spec, .. } if write => device_piece(*spec, addr, rest),
        FlatKind::Ram { .. } | FlatKind::RomDevice { .. } => {
            let left = (r.last - addr).saturating_add(1);
            rest.min(usize::try_from(left).unwrap_or(usize::MAX))
        }
        FlatKind::Io { spec, .. } => device_piece(*spec, addr, rest),
    }
}

fn device_piece(spec: IoSpec, addr: u64, rest: usize) -> usize {
    let n = rest.min(usize::from(spec.valid.1.max(1)));
    let aligned = if spec.unaligned { 8 } else { 1usize << addr.trailing_zeros().min(3) };
    (1 << n.ilog2()).min(aligned)
}

/// Length of the next piece of an access to where nothing is: aligned, at most four bytes, up to the next range.
fn gap(view: &FlatView, addr: u64, rest: usize) -> usize {
    let n = 1 << rest.min(4).ilog2().min(addr.trailing_zeros());
    match view.find(addr.wrapping_add(n as u64 - 1)) {
        Some(_) => 1,
        None => n,
    }
}

/// Reads `buf.len()` bytes. Where nothing answers, ports read as ones and memory as zeroes.
pub fn read(maps: &FlatMaps, space: Space, addr: u64, buf: &mut [u8], target: &mut impl IoTarget) {
    read_view(view(maps, space), space, addr, buf, target);
}

/// Like [`read`], in a given view.
pub fn read_view(view: &FlatView, space: Space, addr: u64, buf: &mut [u8], target: &mut impl IoTarget) {
    let mut pos = 0;
    while pos < buf.len() {
        let at = addr.wrapping_add(pos as u64);
        let Some(r) = view.find(at) else {
            let n = gap(view, at, buf.len() - pos);
            buf[pos..pos + n].fill(if space == Space::Io { 0xff } else { 0 });
            if space == Space::Memory {
                target.unassigned(false, at, n);
            }
            pos += n;
            continue;
        };
        let n = piece(r, false, at, buf.len() - pos);
        let part = &mut buf[pos..pos + n];
        match &r.kind {
            FlatKind::Ram { .. } | FlatKind::RomDevice { .. } => {
                if view.read(at, part).is_err() {
                    part.fill(0);
                }
            }
            FlatKind::Io { owner, spec } => {
                let v = target.io_read(*owner, *spec, r.offset + (at - r.start), n as u8);
                // At most eight bytes: a loop costs less than a call.
                part.iter_mut().zip(v.to_le_bytes()).for_each(|(to, from)| *to = from);
            }
        }
        pos += n;
    }
}

/// Writes `data`. What nobody takes is lost.
pub fn write(maps: &FlatMaps, space: Space, addr: u64, data: &[u8], target: &mut impl IoTarget) {
    write_view(view(maps, space), space, addr, data, target);
}

/// Like [`write`], in a given view.
pub fn write_view(view: &FlatView, space: Space, addr: u64, data: &[u8], target: &mut impl IoTarget) {
    let mut pos = 0;
    while pos < data.len() {
        let at = addr.wrapping_add(pos as u64);
        let Some(r) = view.find(at) else {
            let n = gap(view, at, data.len() - pos);
            if space == Space::Memory {
                target.unassigned(true, at, n);
            }
            pos += n;
            continue;
        };
        let n = piece(r, true, at, data.len() - pos);
        let part = &data[pos..pos + n];
        match &r.kind {
            // ROM swallows writes.
            FlatKind::Ram { .. } => drop(view.write(at, part)),
            FlatKind::Io { owner, spec } | FlatKind::RomDevice { owner, spec, .. } => {
                let mut v = [0u8; 8];
                v.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
                target.io_write(*owner, *spec, r.offset + (at - r.start), n as u8, u64::from_le_bytes(v));
            }
        }
        pos += n;
    }
}
