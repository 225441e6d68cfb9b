//! `secondary-vga`: the same card without the ranges that only one card of a PC can have, for further screens.

use rqemu_derive::Device;

use super::edid::{edid, EdidSpec};
use super::pci::{VgaPci, DEFAULT_RES};
use super::{vram_mb, VgaCore};
use crate::device::{Device, RealizeCx};
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::QResult;

/// VGA card on PCI without VGA's fixed ports and memory.
#[derive(Device)]
#[class(name = "secondary-vga", parent = "pci-vga", bus = Pci, category = Display, hotplug)]
pub struct SecondaryVgaProps {
    /// Video memory in MiB, rounded up to a power of two
    #[prop(name = "vgamem_mb", default = 16u32)]
    pub vgamem_mb: u32,
    /// Registers that choose the byte order
    #[prop(name = "qemu-extended-regs", default = true)]
    pub qemu_extended_regs: bool,
    /// Offer a description of the monitor
    #[prop(default = true)]
    pub edid: bool,
    /// Preferred width
    #[prop]
    pub xres: u32,
    /// Preferred height
    #[prop]
    pub yres: u32,
    /// Largest width
    #[prop]
    pub xmax: u32,
    /// Largest height
    #[prop]
    pub ymax: u32,
    /// Refresh rate in mHz
    #[prop(name = "refresh_rate")]
    pub refresh_rate: u32,
    /// Base properties
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for SecondaryVgaProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        self.vgamem_mb = vram_mb(self.vgamem_mb);
        let mut pci = PciState::new(PciIds {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x0380,
            ..PciIds::default()
        });
        let (mut vga, vram) = VgaCore::new(cx, self.vgamem_mb)?;
        let edid = self.edid.then(|| {
            for (res, default) in [(&mut self.xres, DEFAULT_RES.0), (&mut self.yres, DEFAULT_RES.1)] {
                if *res == 0 {
                    *res = default;
                }
            }
            edid(&EdidSpec {
                xres: self.xres,
                yres: self.yres,
                xmax: self.xmax,
                ymax: self.ymax,
                refresh_mhz: self.refresh_rate,
            })
        });
        let mmio = vga.add_mmio(cx, self.qemu_extended_regs, edid);
        pci.add_bar(0, vram, u64::from(self.vgamem_mb) << 20, BarKind::Mem32Prefetch);
        pci.add_bar(2, mmio, 0x1000, BarKind::Mem32);
        crate::pci::load_rom(cx, &mut pci, &mut self.pci, "secondary-vga", "")?;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(VgaPci::new(vga, pci)))
    }
}
