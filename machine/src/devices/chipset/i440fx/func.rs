//! Function 00.0 of the 440FX: PAM and SMRAM registers.

use rqemu_derive::Device;

use super::PcMemory;
use crate::device::{Cx, DevId, Device, PciFunction, RealizeCx};
use crate::devices::chipset::pam::{Pam, PAM_REGS};
use crate::machine::Machine;
use crate::memory::{RegionId, RegionKind};
use crate::pci::{PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::QResult;

/// PAM0.
const PAM0: usize = 0x59;
/// System management RAM control.
const SMRAM: usize = 0x72;
/// RAM in units of 8 MiB, at most 255; a private register that coreboot reads.
const RAM_UNITS: usize = 0x57;
/// SMRAM is switched on (for processors in system management mode).
const SMRAM_G_SMRAME: u8 = 0x08;
/// SMRAM is visible to everybody.
const SMRAM_D_OPEN: u8 = 0x40;

/// Host bridge function.
#[derive(Device)]
#[class(name = "i440FX", parent = "pci-device", bus = Pci, category = Bridge, desc = "Host bridge", internal)]
pub struct I440fxProps {
    /// PCI properties
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for I440fxProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci = PciState::new(PciIds {
            vendor: 0x8086,
            device: 0x1237,
            revision: 2,
            class: 0x0600,
            ..PciIds::default()
        });
        pci.config_mut()[SMRAM] = 0x02;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(I440fx { pci, memory: None }))
    }
}

/// Function 00.0 at run time.
pub struct I440fx {
    pci: PciState,
    memory: Option<Memory>,
}

/// The regions that its registers switch.
struct Memory {
    pam: Pam,
    /// Hides RAM at 0xa0000-0xbffff behind PCI.
    smram_region: RegionId,
    /// What system management mode sees.
    smram: RegionId,
}

impl I440fx {
    /// Builds the PAM and SMRAM regions; returns the container `smram`.
    pub(super) fn connect(&mut self, cx: &mut Cx<'_>, host: DevId, mem: &PcMemory) -> RegionId {
        let dev = cx.dev;
        let (system, t) = (cx.m.mem.system, &mut cx.m.mem);
        let low = |target| RegionKind::Alias { target, offset: 0xa0000, readonly: false };
        let smram_region = t.add("smram-region", 0x20000, low(mem.pci), Some(dev));
        t.map(system, smram_region, 0xa0000, 1);
        let smram = t.add("smram", 1 << 32, RegionKind::Container, Some(dev));
        let smram_low = t.add("smram-low", 0x20000, low(mem.ram), Some(dev));
        t.map(smram, smram_low, 0xa0000, 0);
        t.set_enabled(smram, false);
        let pam = Pam::new(cx.m, host, mem.ram, mem.pci);
        let units = (mem.ram_size >> 23).min(255) as u8;
        self.pci.config_mut()[RAM_UNITS] = units;
        self.pci.seal();
        self.memory = Some(Memory { pam, smram_region, smram });
        self.update(cx.m);
        smram
    }

    fn update(&self, m: &mut Machine) {
        let Some(mem) = &self.memory else { return };
        let c = self.pci.config();
        let mut pam = [0; PAM_REGS];
        pam.copy_from_slice(&c[PAM0..PAM0 + PAM_REGS]);
        mem.pam.update(m, pam);
        m.mem.set_enabled(mem.smram_region, c[SMRAM] & SMRAM_D_OPEN == 0);
        m.mem.set_enabled(mem.smram, c[SMRAM] & SMRAM_G_SMRAME != 0);
    }
}

impl Device for I440fx {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        // The registers went back to their initial values already.
        self.update(cx.m);
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl PciFunction for I440fx {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, len: u8) {
        let (from, to) = (usize::from(addr), usize::from(addr) + usize::from(len));
        if (from < PAM0 + PAM_REGS && to > PAM0) || (from..to).contains(&SMRAM) {
            self.update(cx.m);
        }
    }
}
