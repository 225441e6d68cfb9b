//! The tree of memory regions and how it is flattened.

use std::borrow::Cow;
use std::sync::Arc;

use super::flat::{FlatKind, FlatRange, FlatView};
use super::ram::RamBlock;
use crate::device::DevId;

/// Handle of a region.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RegionId(pub u32);

/// Who answers accesses to an I/O region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A device; the tag is handed to its handler.
    Device(DevId, u32),
    /// The MSI-X table of a PCI device.
    MsixTable(DevId),
    /// The MSI-X pending bits of a PCI device.
    MsixPba(DevId),
    /// Answers only to an accelerator (in-kernel interrupt controllers): reads as zero, ignores writes.
    Kernel,
    /// A port or address that is decoded but has nothing behind it: reads as ones, ignores writes.
    Nobody,
}

/// Sizes of access that a region accepts (`valid`) and that its handler implements (`imp`), in bytes.
///
/// Accesses outside `valid` read as zero and are ignored; others are split or widened to `imp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoSpec {
    /// Smallest and largest access that the region reacts to.
    pub valid: (u8, u8),
    /// Smallest and largest access that the handler sees.
    pub imp: (u8, u8),
    /// An access that is not aligned to its size comes whole; else it is split into aligned ones.
    pub unaligned: bool,
}

impl IoSpec {
    /// Accepts 1 to 4 bytes, handler sees the same.
    pub const ANY: Self = Self { valid: (1, 4), imp: (1, 4), unaligned: false };
    /// As [`IoSpec::ANY`], and unaligned accesses come whole: for registers of two bytes at odd ports.
    pub const PORTS: Self = Self { unaligned: true, ..Self::ANY };
    /// Accepts 1 to 8 bytes, handler sees the same.
    pub const ANY8: Self = Self { valid: (1, 8), imp: (1, 8), unaligned: false };
    /// Accepts 1 to 4 bytes, handler sees single bytes.
    pub const BYTES: Self = Self { valid: (1, 4), imp: (1, 1), unaligned: false };
    /// Accepts and sees single bytes only.
    pub const BYTE: Self = Self { valid: (1, 1), imp: (1, 1), unaligned: false };
}

/// What a region is.
#[derive(Clone)]
pub enum RegionKind {
    /// Holds other regions.
    Container,
    /// Host memory; `readonly` makes it ROM (writes are ignored).
    Ram {
        /// The block.
        block: Arc<RamBlock>,
        /// Writes by the guest are dropped.
        readonly: bool,
    },
    /// Handled by code.
    Io {
        /// Who.
        owner: Owner,
        /// Access sizes.
        spec: IoSpec,
    },
    /// Memory whose writes are handled by code, and whose reads are too while `direct` is off (flash).
    RomDevice {
        /// The block.
        block: Arc<RamBlock>,
        /// Who answers the rest.
        owner: Owner,
        /// Access sizes.
        spec: IoSpec,
        /// Reads come from the block.
        direct: bool,
    },
    /// Part of another region.
    Alias {
        /// The other region.
        target: RegionId,
        /// First byte in it.
        offset: u64,
        /// Makes RAM behind it read-only.
        readonly: bool,
    },
}

/// A node of the tree.
#[derive(Clone)]
pub struct Region {
    /// Name for `info mtree`.
    pub name: Cow<'static, str>,
    /// Size in bytes, up to 2^64.
    pub size: u128,
    /// What it is.
    pub kind: RegionKind,
    /// Where it lies in its container.
    pub addr: u64,
    /// Priority among siblings; higher wins.
    pub priority: i32,
    /// Disabled regions are as if absent.
    pub enabled: bool,
    /// The container it is in.
    pub parent: Option<RegionId>,
    /// Children, highest priority first (latest first among equals).
    pub children: Vec<RegionId>,
    /// Device that made it, for QOM paths and for undoing.
    pub device: Option<DevId>,
}

/// All regions of a machine.
pub struct RegionTree {
    regions: Vec<Option<Region>>,
    free: Vec<u32>,
    dirty: bool,
    /// Root of physical memory (`system`).
    pub system: RegionId,
    /// Root of I/O ports (`io`).
    pub io: RegionId,
}

impl Default for RegionTree {
    fn default() -> Self {
        let mut t = Self {
            regions: Vec::with_capacity(128),
            free: Vec::new(),
            dirty: true,
            system: RegionId(0),
            io: RegionId(0),
        };
        t.system = t.add("system", 1 << 64, RegionKind::Container, None);
        t.io = t.add("io", 1 << 16, RegionKind::Container, None);
        t
    }
}

impl RegionTree {
    /// Makes a region that is in no container yet.
    pub fn add(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        size: u128,
        kind: RegionKind,
        device: Option<DevId>,
    ) -> RegionId {
        let r = Region {
            name: name.into(),
            size,
            kind,
            addr: 0,
            priority: 0,
            enabled: true,
            parent: None,
            children: Vec::new(),
            device,
        };
        if let Some(i) = self.free.pop() {
            self.regions[i as usize] = Some(r);
            RegionId(i)
        } else {
            self.regions.push(Some(r));
            RegionId(self.regions.len() as u32 - 1)
        }
    }

    /// The region behind a handle.
    pub fn get(&self, id: RegionId) -> Option<&Region> {
        self.regions.get(id.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: RegionId) -> Option<&mut Region> {
        self.regions.get_mut(id.0 as usize)?.as_mut()
    }

    /// Every live region with its handle.
    pub fn iter(&self) -> impl Iterator<Item = (RegionId, &Region)> {
        self.regions.iter().enumerate().filter_map(|(i, r)| Some((RegionId(i as u32), r.as_ref()?)))
    }

    /// Puts `id` into `parent` at `addr`.
    pub fn map(&mut self, parent: RegionId, id: RegionId, addr: u64, priority: i32) {
        self.unmap(id);
        if let Some(r) = self.get_mut(id) {
            r.addr = addr;
            r.priority = priority;
            r.parent = Some(parent);
        }
        let at = match self.get(parent) {
            Some(p) => p
                .children
                .iter()
                .position(|c| self.get(*c).is_some_and(|c| c.priority <= priority))
                .unwrap_or(p.children.len()),
            None => return,
        };
        if let Some(p) = self.get_mut(parent) {
            p.children.insert(at, id);
        }
        self.dirty = true;
    }

    /// Takes `id` out of its container.
    pub fn unmap(&mut self, id: RegionId) {
        let Some(parent) = self.get_mut(id).and_then(|r| r.parent.take()) else { return };
        if let Some(p) = self.get_mut(parent) {
            p.children.retain(|c| *c != id);
        }
        self.dirty = true;
    }

    /// Removes a region for good.
    pub fn remove(&mut self, id: RegionId) {
        self.unmap(id);
        if let Some(slot) = self.regions.get_mut(id.0 as usize) {
            if slot.take().is_some() {
                self.free.push(id.0);
            }
        }
    }

    /// Removes every region that a device made.
    pub fn remove_device(&mut self, dev: DevId) {
        let ids: Vec<_> = self.iter().filter(|(_, r)| r.device == Some(dev)).map(|(i, _)| i).collect();
        for id in ids {
            self.remove(id);
        }
    }

    /// Switches a region on or off.
    pub fn set_enabled(&mut self, id: RegionId, enabled: bool) {
        if let Some(r) = self.get_mut(id) {
            if r.enabled != enabled {
                r.enabled = enabled;
                self.dirty = true;
            }
        }
    }

    /// Switches a region on or off that lies in no address space of the machine: nothing is mapped anew.
    pub fn set_enabled_outside(&mut self, id: RegionId, enabled: bool) {
        if let Some(r) = self.get_mut(id) {
            r.enabled = enabled;
        }
    }

    /// Moves a mapped region within its container.
    pub fn set_addr(&mut self, id: RegionId, addr: u64) {
        if let Some(r) = self.get_mut(id) {
            if r.addr != addr {
                r.addr = addr;
                self.dirty = true;
            }
        }
    }

    /// Changes the start of an alias in its target.
    pub fn set_alias_offset(&mut self, id: RegionId, new: u64) {
        if let Some(Region { kind: RegionKind::Alias { offset, .. }, .. }) = self.get_mut(id) {
            if *offset != new {
                *offset = new;
                self.dirty = true;
            }
        }
    }

    /// Changes the size of a region.
    pub fn set_size(&mut self, id: RegionId, new: u128) {
        if let Some(r) = self.get_mut(id) {
            if r.size != new {
                r.size = new;
                self.dirty = true;
            }
        }
    }

    /// Changes what an alias shows and whether RAM behind it is read-only.
    pub fn set_alias_target(&mut self, id: RegionId, new: RegionId, new_offset: u64, ro: bool) {
        if let Some(Region { kind: RegionKind::Alias { target, offset, readonly }, .. }) = self.get_mut(id) {
            if (*target, *offset, *readonly) != (new, new_offset, ro) {
                (*target, *offset, *readonly) = (new, new_offset, ro);
                self.dirty = true;
            }
        }
    }

    /// Changes size and access sizes of an I/O region.
    pub fn set_io(&mut self, id: RegionId, new_size: u128, new_spec: IoSpec) {
        if let Some(Region { kind: RegionKind::Io { spec, .. }, size, .. }) = self.get_mut(id) {
            if (*size, *spec) != (new_size, new_spec) {
                (*size, *spec) = (new_size, new_spec);
                self.dirty = true;
            }
        }
    }

    /// Makes a RAM region writable or not.
    pub fn set_readonly(&mut self, id: RegionId, ro: bool) {
        if let Some(Region { kind: RegionKind::Ram { readonly, .. }, .. }) = self.get_mut(id) {
            if *readonly != ro {
                *readonly = ro;
                self.dirty = true;
            }
        }
    }

    /// Switches direct reads of a ROM device on or off.
    pub fn set_direct(&mut self, id: RegionId, on: bool) {
        if let Some(Region { kind: RegionKind::RomDevice { direct, .. }, .. }) = self.get_mut(id) {
            if *direct != on {
                *direct = on;
                self.dirty = true;
            }
        }
    }

    /// Whether the tree changed since the last call.
    pub fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// Whether the tree changed since [`Self::take_dirty`].
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Flattens the tree under `root`.
    pub fn flatten(&self, root: RegionId) -> FlatView {
        let mut out = Vec::with_capacity(64);
        let size = self.get(root).map_or(0, |r| r.size);
        self.render(root, 0, (0, size), false, 0, &mut out);
        out.sort_unstable_by_key(|r: &FlatRange| r.start);
        FlatView::new(out)
    }

    /// Adds what `id` (placed so that its byte 0 is at `base`) shows inside `clip` where `out` is still empty.
    fn render(
        &self,
        id: RegionId,
        base: i128,
        clip: (u128, u128),
        ro: bool,
        depth: u32,
        out: &mut Vec<FlatRange>,
    ) {
        // The depth limit only guards against an alias cycle, which no board builds.
        let Some(r) = self.get(id).filter(|r| r.enabled && depth < 32) else { return };
        let start = (base.max(0) as u128).max(clip.0);
        let end = ((base + r.size as i128).max(0) as u128).min(clip.1);
        if start >= end {
            return;
        }
        match &r.kind {
            RegionKind::Alias { target, offset, readonly } => {
                let base = base - i128::from(*offset);
                self.render(*target, base, (start, end), ro || *readonly, depth + 1, out);
                return;
            }
            RegionKind::Container => {}
            _ => {}
        }
        for c in &r.children {
            if let Some(child) = self.get(*c) {
                self.render(*c, base + i128::from(child.addr), (start, end), ro, depth + 1, out);
            }
        }
        let kind = match &r.kind {
            RegionKind::Ram { block, readonly } => {
                FlatKind::Ram { block: block.clone(), readonly: ro || *readonly }
            }
            RegionKind::RomDevice { block, owner, spec, direct: true } => {
                FlatKind::RomDevice { block: block.clone(), owner: *owner, spec: *spec }
            }
            RegionKind::Io { owner, spec } | RegionKind::RomDevice { owner, spec, .. } => {
                FlatKind::Io { owner: *owner, spec: *spec }
            }
            RegionKind::Container | RegionKind::Alias { .. } => return,
        };
        for (s, e) in holes(out, start, end) {
            out.push(FlatRange {
                start: s as u64,
                last: (e - 1) as u64,
                offset: (s as i128 - base) as u64,
                region: id,
                kind: kind.clone(),
            });
        }
    }
}

/// Parts of `[start, end)` that no range in `out` covers.
fn holes(out: &[FlatRange], start: u128, end: u128) -> Vec<(u128, u128)> {
    let mut free = vec![(start, end)];
    for r in out {
        let (rs, re) = (u128::from(r.start), u128::from(r.last) + 1);
        if rs >= end || re <= start {
            continue;
        }
        let mut next = Vec::with_capacity(free.len() + 1);
        for (s, e) in free {
            if re <= s || rs >= e {
                next.push((s, e));
                continue;
            }
            if s < rs {
                next.push((s, rs));
            }
            if re < e {
                next.push((re, e));
            }
        }
        free = next;
        if free.is_empty() {
            break;
        }
    }
    free
}

#[cfg(test)]
mod tests {
    use super::super::ram::RamSource;
    use super::*;

    fn io(tag: u32) -> RegionKind {
        RegionKind::Io { owner: Owner::Device(DevId(1), tag), spec: IoSpec::ANY }
    }

    #[test]
    fn priorities_and_aliases() {
        let mut t = RegionTree::default();
        let ram = Arc::new(RamBlock::new("r", 1 << 20, RamSource::Anonymous).unwrap());
        let r = t.add("r", 1 << 20, RegionKind::Ram { block: ram, readonly: false }, None);
        let below =
            t.add("below", 1 << 20, RegionKind::Alias { target: r, offset: 0, readonly: false }, None);
        t.map(t.system, below, 0, 0);
        let vga = t.add("vga", 0x20000, io(1), None);
        t.map(t.system, vga, 0xa0000, 1);
        let v = t.flatten(t.system);
        let shape: Vec<_> = v.ranges().iter().map(|r| (r.start, r.last, r.offset)).collect();
        assert_eq!(shape, [(0, 0x9ffff, 0), (0xa0000, 0xbffff, 0), (0xc0000, 0xfffff, 0xc0000)]);
        t.set_enabled(vga, false);
        assert_eq!(t.flatten(t.system).ranges().len(), 1);
    }

    #[test]
    fn container_background_and_removal() {
        let mut t = RegionTree::default();
        let bg = t.add("bg", 0x100, io(1), Some(DevId(1)));
        t.map(t.io, bg, 0x100, -1);
        let fg = t.add("fg", 8, io(2), Some(DevId(2)));
        t.map(t.io, fg, 0x180, 0);
        assert_eq!(t.flatten(t.io).ranges().len(), 3);
        t.remove_device(DevId(2));
        assert_eq!(t.flatten(t.io).ranges().len(), 1);
        assert!(t.get(fg).is_none());
    }
}
