//! APIC ids: where a CPU sits, as bit fields for thread, core, die and package. Counts that are not powers of two
//! leave gaps.

use crate::spec::Topology;

/// Widths of the fields of an APIC id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicLayout {
    /// Threads in a core.
    pub threads: u32,
    /// Cores in a die.
    pub cores: u32,
    /// Dies in a package.
    pub dies: u32,
}

/// Place of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuPlace {
    /// Package.
    pub socket: u32,
    /// Die in the package.
    pub die: u32,
    /// Core in the die.
    pub core: u32,
    /// Thread in the core.
    pub thread: u32,
}

/// Bits for `n` different values.
fn width(n: u32) -> u32 {
    u32::BITS - n.max(1).saturating_sub(1).leading_zeros()
}

impl ApicLayout {
    /// Of a topology (clusters count as cores).
    pub fn new(t: &Topology) -> Self {
        Self {
            threads: t.threads.max(1),
            cores: (t.cores.max(1)).saturating_mul(t.clusters.max(1)),
            dies: t.dies.max(1),
        }
    }

    /// Where the core's field begins.
    pub fn core_shift(&self) -> u32 {
        width(self.threads)
    }

    /// Where the die's field begins.
    pub fn die_shift(&self) -> u32 {
        self.core_shift() + width(self.cores)
    }

    /// Where the package's field begins.
    pub fn package_shift(&self) -> u32 {
        self.die_shift() + width(self.dies)
    }

    /// Place of the CPU with number `index`.
    pub fn place(&self, index: u32) -> CpuPlace {
        let core = index / self.threads;
        let die = core / self.cores;
        CpuPlace {
            socket: die / self.dies,
            die: die % self.dies,
            core: core % self.cores,
            thread: index % self.threads,
        }
    }

    /// APIC id of a place.
    pub fn apic_id(&self, p: CpuPlace) -> u32 {
        p.socket << self.package_shift() | p.die << self.die_shift() | p.core << self.core_shift() | p.thread
    }

    /// APIC id of the CPU with number `index`.
    pub fn apic_id_of(&self, index: u32) -> u32 {
        self.apic_id(self.place(index))
    }

    /// Place that an APIC id names.
    pub fn place_of(&self, apic_id: u32) -> CpuPlace {
        let field = |from: u32, to: u32| apic_id >> from & ((1u32 << (to - from)) - 1);
        CpuPlace {
            socket: apic_id >> self.package_shift(),
            die: field(self.die_shift(), self.package_shift()),
            core: field(self.core_shift(), self.die_shift()),
            thread: field(0, self.core_shift()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_gaps() {
        let l = ApicLayout { threads: 2, cores: 3, dies: 2 };
        let ids: Vec<u32> = (0..13).map(|i| l.apic_id_of(i)).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16]);
        assert!((0..40).all(|i| l.place_of(l.apic_id_of(i)) == l.place(i)));
        let one = ApicLayout { threads: 1, cores: 1, dies: 1 };
        assert_eq!((one.package_shift(), one.apic_id_of(5)), (0, 5));
    }
}
