//! AHCI host adapter of the ICH9 (Serial ATA AHCI 1.3.1; Intel 316972, chapter 15): six ports with one drive each,
//! native command queueing, MSI.
//!
//! A [`port::Port`] is the side of a port that moves FISes and data; commands are the drive's own ([`super::ata`]).
//! Left out, as in QEMU: port multipliers, power states, command completion coalescing, staggered spin-up.
//! Tested register by register and command by command against a real QEMU (`tests`).

mod fis;
mod ncq;
mod port;
#[cfg(test)]
mod tests;

use rqemu_derive::Device as DeviceProps;

use self::port::Port;
use super::ata::{AtaPort, Drive};
use super::ide::NewDrive;
use crate::device::{
    Attach, BlockFrontend, BusHost, BusId, BusKind, Cx, DevId, Device, IoHandler, PciFunction, RealizeCx,
};
use crate::memory::IoSpec;
use crate::pci::{BarKind, Msi, PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

const PORTS: usize = 6;

/// Region tags.
const TAG_MEMORY: u32 = 0;
const TAG_INDEX: u32 = 1;
/// Size of the registers, and of the window of index and data.
const MEMORY: u64 = 0x1000;
const WINDOW: u64 = 32;
/// Where index and data are in it.
const INDEX: u64 = 0x10;
const DATA: u64 = 0x14;
/// Where the ports begin, and their distance.
const FIRST_PORT: u32 = 0x100;
const PORT_LEN: u32 = 0x80;

/// 64-bit addresses, command queueing, AHCI only, first generation speed, 32 slots, 6 ports.
const CAPABILITIES: u32 = 0xc014_1f05;
/// Global host control: reset, interrupts, AHCI.
const GHC_RESET: u32 = 1;
const GHC_INTERRUPTS: u32 = 2;
const GHC_AHCI: u32 = 1 << 31;
const VERSION: u32 = 0x1_0000;

/// Capability that tells where index and data are.
const SATA_CAP: u8 = 0x12;
const SATA_CAP_AT: u8 = 0xa8;
const MSI_AT: u8 = 0x80;
/// Mode of the ports: AHCI.
const MAP: usize = 0x90;

#[derive(DeviceProps)]
#[class(name = "ich9-ahci", parent = "pci-device", bus = Pci, category = Storage, alias = "ahci")]
pub struct Ich9AhciProps {
    /// Common PCI properties.
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for Ich9AhciProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let ids = PciIds {
            vendor: 0x8086,
            device: 0x2922,
            revision: 2,
            class: 0x0106,
            prog_if: 1,
            ..PciIds::default()
        };
        let mut pci = PciState::new(ids);
        pci.set_interrupt_pin(1);
        pci.config_mut()[MAP] = 0x40;
        let cap = pci.add_capability(SATA_CAP, SATA_CAP_AT, 8);
        pci.set_word(cap + 2, 0x10);
        // BAR 4, offset in double words.
        pci.set_dword(cap + 4, 0x8 | (INDEX as u32 / 4) << 4);
        let msi = Msi::add_plain(&mut pci, MSI_AT);
        let spec = IoSpec { valid: (1, 8), imp: (4, 4), unaligned: false };
        let memory = cx.io_region("ahci", MEMORY, TAG_MEMORY, spec);
        let window = cx.io_region(
            "ahci-idp",
            WINDOW,
            TAG_INDEX,
            IoSpec { valid: (1, 4), imp: (4, 4), unaligned: false },
        );
        pci.add_bar(4, window, WINDOW, BarKind::Io);
        pci.add_bar(5, memory, MEMORY, BarKind::Mem32);
        let dev = cx.id();
        let user = cx.m().tree.get(dev).and_then(|n| n.user_id().map(str::to_string));
        let base = user.unwrap_or_else(|| "ide".into());
        let first = if base == "ide" { ide_buses(cx) } else { 0 };
        let ports = (0..PORTS).map(|i| {
            let bus = cx.add_bus(format!("{base}.{}", first + i), BusKind::Ide);
            if let Some(b) = cx.m().tree.bus_mut(bus) {
                b.max_devices = Some(1);
            }
            Port::new(bus)
        });
        let ports = ports.collect();
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(Ahci { pci, msi, ports, control: GHC_AHCI, index: 0 }))
    }
}

/// Buses that are called `ide.N` already.
fn ide_buses(cx: &mut RealizeCx<'_>) -> usize {
    cx.m().tree.buses().filter(|b| b.kind == BusKind::Ide && b.name.starts_with("ide.")).count()
}

/// The function at run time.
pub struct Ahci {
    pci: PciState,
    msi: Msi,
    ports: Vec<Port>,
    control: u32,
    index: u32,
}

impl Ahci {
    fn find(&mut self, dev: DevId) -> Option<&mut Port> {
        self.ports.iter_mut().find(|p| p.device == Some(dev))
    }

    /// Serial number of a drive, as the adapter made it if the user did not.
    pub fn serial_of(&mut self, dev: DevId) -> Option<String> {
        Some(self.find(dev)?.drive.id.serial.clone())
    }

    /// Calls a drive from the side of its device.
    pub fn with_drive(
        &mut self,
        cx: &mut Cx<'_>,
        dev: DevId,
        f: impl FnOnce(&mut Drive, &mut Cx<'_>, &mut dyn AtaPort),
    ) {
        if let Some(p) = self.find(dev) {
            f(&mut p.drive, cx, &mut p.hw);
        }
    }

    /// Ports that want an interrupt.
    fn pending(&self) -> u32 {
        self.ports.iter().enumerate().map(|(i, p)| u32::from(p.hw.wants_interrupt()) << i).sum()
    }

    /// Brings the interrupt in line with the registers.
    fn update(&mut self, cx: &mut Cx<'_>) {
        let fresh = self.ports.iter_mut().fold(false, |any, p| std::mem::take(&mut p.hw.fresh) | any);
        let on = self.pending() != 0 && self.control & GHC_INTERRUPTS != 0;
        if self.msi.enabled(&self.pci) {
            if on && fresh {
                self.msi.notify(&mut self.pci, cx);
            }
        } else {
            self.pci.set_intx(cx, on);
        }
    }

    fn reset_adapter(&mut self, cx: &mut Cx<'_>) {
        self.control = GHC_AHCI;
        for p in &mut self.ports {
            p.reset(cx);
        }
    }

    fn read_register(&self, at: u32) -> u32 {
        if at >= FIRST_PORT {
            let p = ((at - FIRST_PORT) / PORT_LEN) as usize;
            return self.ports.get(p).map_or(0, |p| p.hw.read((at - FIRST_PORT) % PORT_LEN));
        }
        match at {
            0x00 => CAPABILITIES,
            0x04 => self.control,
            0x08 => self.pending(),
            0x0c => (1 << PORTS) - 1,
            0x10 => VERSION,
            _ => 0,
        }
    }

    fn write_register(&mut self, cx: &mut Cx<'_>, at: u32, v: u32) {
        if at >= FIRST_PORT {
            let p = ((at - FIRST_PORT) / PORT_LEN) as usize;
            // The table and the FISes are in memory that the function must be allowed to reach.
            let master = self.pci.bus_master();
            if let Some(p) = self.ports.get_mut(p) {
                p.hw.master = master;
                p.write(cx, (at - FIRST_PORT) % PORT_LEN, v);
            }
        } else if at == 0x04 && v & GHC_RESET != 0 {
            self.reset_adapter(cx);
        } else if at == 0x04 {
            self.control = (v & (GHC_RESET | GHC_INTERRUPTS)) | GHC_AHCI;
        }
        self.update(cx);
    }
}

impl Device for Ahci {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.index = 0;
        self.reset_adapter(cx);
        self.ports.iter_mut().for_each(|p| p.drive.power_on());
        self.update(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn bus_host(&mut self) -> Option<&mut dyn BusHost> {
        Some(self)
    }
    fn block(&mut self) -> Option<&mut dyn BlockFrontend> {
        Some(self)
    }
    fn run_state_changed(&mut self, cx: &mut Cx<'_>, running: bool) {
        if running {
            self.ports.iter_mut().for_each(|p| p.resume(cx));
            self.update(cx);
        }
    }
    fn unrealize(&mut self, _cx: &mut Cx<'_>) {
        self.ports.iter_mut().for_each(Port::cancel);
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl PciFunction for Ahci {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
    fn config_written(&mut self, cx: &mut Cx<'_>, _addr: u16, _len: u8) {
        self.update(cx);
    }
}

impl IoHandler for Ahci {
    fn read(&mut self, _cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8) -> u64 {
        let at = (offset & !3) as u32;
        let v = match (region, u64::from(at)) {
            (TAG_MEMORY, _) => self.read_register(at),
            (_, INDEX) => self.index,
            (_, DATA) => self.read_register(self.index),
            _ => 0,
        };
        u64::from(v) >> (8 * (offset & 3))
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8, value: u64) {
        let v = value as u32;
        match (region, offset & !3) {
            (TAG_MEMORY, at) if offset & 3 == 0 => self.write_register(cx, at as u32, v),
            (TAG_INDEX, INDEX) => self.index = v & (MEMORY as u32 - 4),
            (TAG_INDEX, DATA) => self.write_register(cx, self.index, v),
            _ => {}
        }
    }
}

impl BusHost for Ahci {
    fn attach(&mut self, cx: &mut Cx<'_>, bus: BusId, child: DevId, what: Attach) -> QResult<()> {
        let i = self.ports.iter().position(|p| p.bus == bus).ok_or_else(|| qerr!("no such IDE bus"))?;
        let new = what.downcast::<NewDrive>().map_err(|_| qerr!("not an IDE drive"))?;
        match new.unit {
            None | Some(0) => {}
            Some(u) => return Err(qerr!("Can't create IDE unit {u}, bus supports only 1 units")),
        }
        let p = &mut self.ports[i];
        if p.device.is_some() {
            return Err(qerr!("IDE unit 0 is in use"));
        }
        let mut drive = new.drive;
        if drive.id.serial.is_empty() {
            // Numbered by position: two for each IDE bus of the machine, in the order in which buses were made.
            let before = cx.m.tree.buses().filter(|b| b.kind == BusKind::Ide && b.id < bus).count();
            drive.id.serial = format!("QM{:05}", before * 2 + 1);
        }
        drive.set_number(i as u32);
        drive.queue_depth = ncq::SLOTS as u8;
        p.plug(child, drive);
        Ok(())
    }

    fn detach(&mut self, _cx: &mut Cx<'_>, _bus: BusId, child: DevId) {
        if let Some(p) = self.find(child) {
            p.unplug();
        }
    }
}

impl BlockFrontend for Ahci {
    fn completed(&mut self, cx: &mut Cx<'_>, tag: u64, result: rqemu_block::IoResult) {
        let number = (tag >> 32) as usize;
        let (ncq, port) = (number >> 8 != 0, number & 0xff);
        if let Some(p) = self.ports.get_mut(port) {
            if ncq {
                p.queued_done(cx, tag as u32, result);
            } else {
                p.completed(cx, tag, result);
            }
        }
        self.update(cx);
    }
}
