//! `kvm-i8259`, `kvm-ioapic`, `kvm-pit`: the faces of the interrupt controllers and the timer that KVM runs itself.
//!
//! They hold the properties and claim the addresses (so that nothing else is put there and `info mtree` shows them);
//! the guest's accesses never reach user space. The accelerator owns their state.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use super::i8259::PicProps;
use super::ioapic;
use super::rtc::LostTickPolicy;
use crate::device::{Cx, Device, RealizeCx};
use crate::memory::{IoSpec, Owner, RegionId, RegionKind, Space};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Makes a region that KVM answers.
fn kernel_region(cx: &mut RealizeCx<'_>, name: &'static str, size: u64) -> RegionId {
    let dev = cx.id();
    let kind = RegionKind::Io { owner: Owner::Kernel, spec: IoSpec::ANY };
    cx.m().mem.add(name, u128::from(size), kind, Some(dev))
}

/// Properties of `kvm-i8259`.
#[derive(DeriveDevice, Debug)]
#[class(name = "kvm-i8259", parent = "pic-common", bus = Isa, internal)]
pub struct KvmPicProps {
    /// Properties of every such controller.
    #[base]
    pub pic: PicProps,
}

impl DeviceClass for KvmPicProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let (base, elcr) = self.pic.ports()?;
        let r = kernel_region(cx, "kvm-pic", 2);
        cx.map(Space::Io, r, u64::from(base), 0);
        let r = kernel_region(cx, "kvm-elcr", 1);
        cx.map(Space::Io, r, u64::from(elcr), 0);
        Ok(Box::new(KernelDevice { what: KernelChip::Pic { master: self.pic.master } }))
    }
}

/// Properties of `kvm-ioapic`.
#[derive(DeriveDevice, Debug)]
#[class(name = "kvm-ioapic", parent = "ioapic-common", bus = System, internal)]
pub struct KvmIoapicProps {
    /// Interrupt of the first input
    #[prop(name = "gsi_base")]
    pub gsi_base: u32,
}

impl DeviceClass for KvmIoapicProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let r = kernel_region(cx, "kvm-ioapic", 0x1000);
        cx.map(Space::Memory, r, ioapic::BASE, 0);
        cx.mmio(r);
        cx.gpio("", true, ioapic::PINS as u32);
        Ok(Box::new(KernelDevice { what: KernelChip::Ioapic { gsi_base: self.gsi_base } }))
    }
}

/// Properties of `kvm-pit`.
#[derive(DeriveDevice, Debug)]
#[class(name = "kvm-pit", parent = "pit-common", bus = Isa, internal)]
pub struct KvmPitProps {
    /// First port
    #[prop(default = u32::MAX)]
    pub iobase: u32,
    /// What happens to interrupts that the guest missed
    #[prop(name = "lost_tick_policy", default = LostTickPolicy::Delay)]
    pub lost_tick_policy: LostTickPolicy,
}

impl DeviceClass for KvmPitProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let base = u16::try_from(self.iobase).map_err(|_| qerr!("Invalid I/O base {:#x}", self.iobase))?;
        let reinject = match self.lost_tick_policy {
            LostTickPolicy::Delay => true,
            LostTickPolicy::Discard => false,
            LostTickPolicy::Slew => return Err(qerr!("Lost tick policy not supported.")),
        };
        let r = kernel_region(cx, "kvm-pit", 4);
        cx.map(Space::Io, r, u64::from(base), 0);
        cx.gpio("", true, 1);
        Ok(Box::new(KernelDevice { what: KernelChip::Pit { reinject } }))
    }
}

/// Which chip, and what the accelerator has to know about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KernelChip {
    /// One of the two 8259s.
    Pic {
        /// The first of the pair.
        master: bool,
    },
    /// The I/O APIC.
    Ioapic {
        /// Interrupt of the first input.
        gsi_base: u32,
    },
    /// The timer.
    Pit {
        /// Missed ticks are delivered late (`KVM_REINJECT_CONTROL`).
        reinject: bool,
    },
}

/// A device that runs in the kernel.
pub struct KernelDevice {
    what: KernelChip,
}

impl KernelDevice {
    /// Which chip it is.
    pub fn chip(&self) -> KernelChip {
        self.what
    }
}

impl Device for KernelDevice {
    /// Done by the accelerator.
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;
    use crate::device::Place;
    use crate::qom::{Classed, PropInput};

    #[test]
    fn claims_addresses_and_policy() {
        let mut m = machine();
        let pit = m.add::<KvmPitProps>(&[("iobase", PropInput::Str("0x40"))]);
        m.add::<KvmIoapicProps>(&[]);
        let (base, elcr) = (("iobase", PropInput::Str("0x20")), ("elcr_addr", PropInput::Str("0x4d0")));
        m.add::<KvmPicProps>(&[base, elcr]);
        for port in [0x20, 0x21, 0x40, 0x43, 0x4d0] {
            assert_eq!(m.inb(port), 0, "{port:#x} is claimed");
        }
        assert_eq!(m.inb(0x44), 0xff);
        let chip = m.with::<KernelDevice, _>(pit, |d, _| d.chip());
        assert_eq!(chip, Some(KernelChip::Pit { reinject: true }));
        let props = [("iobase", PropInput::Str("0x40")), ("lost_tick_policy", PropInput::Str("slew"))];
        let e = m.add_device(KvmPitProps::CLASS, None, Place::Anon(0), &props).unwrap_err();
        assert_eq!(e.desc, "Lost tick policy not supported.");
    }
}
