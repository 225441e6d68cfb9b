//! `VGA`: the card on PCI.

use rqemu_derive::Device;

use super::edid::{edid, EdidSpec};
use super::{vram_mb, VgaCore};
use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx};
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::state::SaveState;
use crate::ui::{DisplaySource, Picture};
use crate::{qerr, QResult};

/// VGA card on PCI.
#[derive(Device)]
#[class(name = "VGA", parent = "pci-vga", bus = Pci, category = Display)]
pub struct VgaPciProps {
    /// Video memory in MiB, rounded up to a power of two
    #[prop(name = "vgamem_mb", default = 16u32)]
    pub vgamem_mb: u32,
    /// Registers in memory (BAR 2)
    #[prop(default = true)]
    pub mmio: bool,
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
    /// Name of the memory as in old versions
    #[prop(name = "global-vmstate")]
    pub global_vmstate: bool,
    /// Base properties
    #[base]
    pub pci: PciProps,
}

/// Preferred resolution when none is set.
pub(super) const DEFAULT_RES: (u32, u32) = (1280, 800);

impl DeviceClass for VgaPciProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        self.vgamem_mb = vram_mb(self.vgamem_mb);
        let mut pci = PciState::new(PciIds {
            vendor: 0x1234,
            device: 0x1111,
            revision: 2,
            class: 0x0300,
            ..PciIds::default()
        });
        let (mut vga, vram) = VgaCore::new(cx, self.vgamem_mb)?;
        let bus = cx.parent_bus().ok_or_else(|| qerr!("PCI device without a bus"))?;
        let memory = cx.m().pci.get(bus).map(|b| b.mem).ok_or_else(|| qerr!("no PCI bus"))?;
        vga.add_legacy(cx, memory, vram);
        pci.add_bar(0, vram, u64::from(self.vgamem_mb) << 20, BarKind::Mem32Prefetch);
        if self.mmio {
            let edid = self.edid.then(|| {
                if self.xres == 0 {
                    self.xres = DEFAULT_RES.0;
                }
                if self.yres == 0 {
                    self.yres = DEFAULT_RES.1;
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
            pci.add_bar(2, mmio, 0x1000, BarKind::Mem32);
        }
        crate::pci::load_rom(cx, &mut pci, &mut self.pci, "vga", "vgabios-stdvga.bin")?;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(VgaPci::new(vga, pci)))
    }
}

/// The card at run time.
pub struct VgaPci {
    pub(super) vga: VgaCore,
    pci: PciState,
}

impl VgaPci {
    pub(super) fn new(vga: VgaCore, pci: PciState) -> Self {
        Self { vga, pci }
    }

    /// See [`VgaCore::firmware_text_mode`].
    pub fn firmware_text_mode(&mut self, cx: &mut Cx<'_>) {
        self.vga.firmware_text_mode(cx);
    }
}

impl Device for VgaPci {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.vga.reset(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn display(&mut self) -> Option<&mut dyn DisplaySource> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for VgaPci {
    fn read(&mut self, _cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        self.vga.read(region, offset, size)
    }
    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        self.vga.write(cx, region, offset, size, value);
    }
}

impl PciFunction for VgaPci {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
}

impl DisplaySource for VgaPci {
    fn snapshot(&mut self, cx: &mut Cx<'_>) -> Picture {
        self.vga.snapshot(cx)
    }
}

impl SaveState for VgaPci {
    fn section(&self) -> (&'static str, u32) {
        ("vga", 2)
    }
    fn save(&mut self, _cx: &mut Cx<'_>) -> QResult<serde_json::Value> {
        self.vga.save()
    }
    fn load(&mut self, cx: &mut Cx<'_>, _version: u32, state: &serde_json::Value) -> QResult<()> {
        self.vga.load(cx, state)
    }
}
