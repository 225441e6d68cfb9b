//! KVM memory slots from the flat memory map.

use kvm_bindings::{kvm_userspace_memory_region, KVM_MEM_READONLY};

use crate::memory::FlatMaps;
use crate::{qerr, QResult};

const PAGE: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    start: u64,
    size: u64,
    host: u64,
    readonly: bool,
}

/// The slots in use.
pub struct Slots {
    used: Vec<Option<Slot>>,
    max: usize,
}

impl Slots {
    /// At most `max` slots.
    pub fn new(max: usize) -> Self {
        Self { used: Vec::new(), max }
    }

    /// Makes the slots show `maps`, through `set` (a size of 0 deletes). Slots that do not change are not touched.
    pub fn update(
        &mut self,
        maps: &FlatMaps,
        mut set: impl FnMut(kvm_userspace_memory_region) -> QResult<()>,
    ) -> QResult<()> {
        let want = wanted(maps);
        for i in 0..self.used.len() {
            let Some(s) = self.used[i] else { continue };
            if !want.contains(&s) {
                set(region(i, Slot { size: 0, ..s }))?;
                self.used[i] = None;
            }
        }
        for w in want {
            if self.used.contains(&Some(w)) {
                continue;
            }
            let i = self.used.iter().position(Option::is_none).unwrap_or(self.used.len());
            if i >= self.max {
                return Err(qerr!("kvm: no free slots left in the KVM memory map"));
            }
            if i == self.used.len() {
                self.used.push(None);
            }
            set(region(i, w))?;
            self.used[i] = Some(w);
        }
        Ok(())
    }
}

fn region(slot: usize, s: Slot) -> kvm_userspace_memory_region {
    kvm_userspace_memory_region {
        slot: slot as u32,
        flags: if s.readonly { KVM_MEM_READONLY } else { 0 },
        guest_phys_addr: s.start,
        memory_size: s.size,
        userspace_addr: s.host,
    }
}

/// RAM of the map in whole pages.
fn wanted(maps: &FlatMaps) -> Vec<Slot> {
    let mut out = Vec::new();
    for r in maps.mem.ranges() {
        let Some((block, readonly)) = r.kind.memory() else { continue };
        let start = r.start.next_multiple_of(PAGE);
        let end = (r.last + 1) / PAGE * PAGE;
        if start >= end {
            continue;
        }
        let host = block.host() as u64 + r.offset + (start - r.start);
        // A slot's guest and host addresses must be congruent to pages.
        if host.is_multiple_of(PAGE) {
            out.push(Slot { start, size: end - start, host, readonly });
        }
    }
    out
}
