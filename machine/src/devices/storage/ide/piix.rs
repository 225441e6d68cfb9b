//! The IDE function of the PIIX3 (Intel 82371SB, chapter 2.6): two channels at the compatible ports, bus master in
//! BAR 4. Timing registers keep their reset values; they have no effect on a drive without a cable.

use super::{busmaster, BusMaster, Channel, NewDrive};
use crate::device::{
    Attach, BlockFrontend, BusHost, BusId, BusKind, Cx, DevId, Device, IoHandler, PciFunction, RealizeCx,
};
use crate::memory::{IoSpec, RegionId, RegionKind};
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};
use rqemu_derive::Device as DeviceProps;

/// Compatible command block, control block and interrupt of each channel.
const LEGACY: [(u16, u16, u32); 2] = [(0x1f0, 0x3f6, 14), (0x170, 0x376, 15)];

/// Region tags: command and control block of each channel, bus master.
const TAG_COMMAND: u32 = 0;
const TAG_CONTROL: u32 = 2;
const TAG_BUS_MASTER: u32 = 4;

/// IDE function of the PIIX3
#[derive(DeviceProps)]
#[class(name = "piix3-ide", parent = "pci-ide", bus = Pci, category = Storage)]
pub struct Piix3IdeProps {
    /// Common PCI properties.
    #[base]
    pub pci: PciProps,
}

/// IDE function of the PIIX4
#[derive(DeviceProps)]
#[class(name = "piix4-ide", parent = "pci-ide", bus = Pci, category = Storage)]
pub struct Piix4IdeProps {
    /// Common PCI properties.
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for Piix3IdeProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        realize(cx, 0x7010, &self.pci)
    }
}

impl DeviceClass for Piix4IdeProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        realize(cx, 0x7111, &self.pci)
    }
}

fn realize(cx: &mut RealizeCx<'_>, device: u16, props: &PciProps) -> QResult<Box<dyn Device>> {
    let mut pci =
        PciState::new(PciIds { vendor: 0x8086, device, class: 0x0101, prog_if: 0x80, ..PciIds::default() });
    // Fast back-to-back and medium DEVSEL timing.
    pci.set_word(crate::pci::reg::STATUS, 0x0280);
    let bm = bus_master_region(cx);
    pci.add_bar(4, bm, 16, BarKind::Io);
    let channels = [0usize, 1].map(|i| {
        let (command, control, irq) = LEGACY[i];
        cx.map_board_ports("ide", command, 8, TAG_COMMAND + i as u32, IoSpec::ANY);
        cx.map_board_ports("ide", control, 1, TAG_CONTROL + i as u32, IoSpec::BYTE);
        let bus = cx.add_bus(format!("ide.{i}"), BusKind::Ide);
        if let Some(b) = cx.m().tree.bus_mut(bus) {
            b.max_devices = Some(2);
        }
        Channel::new(bus, BusMaster::new(cx.isa_irq(irq)))
    });
    cx.pci_attach(&mut pci, props.addr.0, props.multifunction)?;
    Ok(Box::new(PiixIde { pci, channels }))
}

/// The bus master registers: for each channel, command and status, and the address of its table.
fn bus_master_region(cx: &mut RealizeCx<'_>) -> RegionId {
    let dev = cx.id();
    let all = cx.m().mem.add("piix-bmdma-container", 16, RegionKind::Container, Some(dev));
    for n in 0..4 {
        let name = if n & 1 == 0 { "piix-bmdma" } else { "bmdma" };
        let r = cx.io_region(name, 4, TAG_BUS_MASTER + n, IoSpec::ANY);
        cx.m().mem.map(all, r, u64::from(n) * 4, 0);
    }
    all
}

/// The function at run time.
pub struct PiixIde {
    pci: PciState,
    channels: [Channel; 2],
}

impl PiixIde {
    /// The channel and position of a drive's device.
    pub fn find(&mut self, dev: DevId) -> Option<(&mut Channel, usize)> {
        self.channels.iter_mut().find_map(|c| c.unit_of(dev).map(|u| (c, u)))
    }

    fn channel(&mut self, i: u32) -> &mut Channel {
        &mut self.channels[(i & 1) as usize]
    }
}

impl Device for PiixIde {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        for c in &mut self.channels {
            c.reset(cx);
        }
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
            for c in &mut self.channels {
                c.resume(cx);
            }
        }
    }
    fn unrealize(&mut self, _cx: &mut Cx<'_>) {
        for c in &mut self.channels {
            (0..2).for_each(|u| c.drive(u).0.cancel());
        }
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl PciFunction for PiixIde {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
}

impl IoHandler for PiixIde {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        let c = self.channel(region);
        match region {
            TAG_BUS_MASTER.. => {
                let n = region - TAG_BUS_MASTER;
                let c = self.channel(n >> 1);
                u64::from(c.bm.read(u64::from(n & 1) * 4 + offset, size))
            }
            TAG_CONTROL..TAG_BUS_MASTER => u64::from(c.alt_status()),
            _ if offset == 0 && size >= 2 => {
                let low = u64::from(c.data_read(cx));
                if size == 4 {
                    low | u64::from(c.data_read(cx)) << 16
                } else {
                    low
                }
            }
            _ => (0..u64::from(size))
                .fold(0, |v, i| v | u64::from(c.read(cx, (offset + i) as u8 & 7)) << (8 * i)),
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        let master = busmaster::may_master(&self.pci);
        let c = self.channel(region);
        match region {
            TAG_BUS_MASTER.. => {
                let n = region - TAG_BUS_MASTER;
                let c = self.channel(n >> 1);
                if n & 1 == 0 && offset == 0 && size == 1 {
                    c.bm_command(cx, value as u8, master);
                } else {
                    c.bm.write(u64::from(n & 1) * 4 + offset, size, value as u32);
                }
            }
            TAG_CONTROL..TAG_BUS_MASTER => c.write_control(cx, value as u8),
            _ if offset == 0 && size >= 2 => {
                c.data_write(cx, value as u16);
                if size == 4 {
                    c.data_write(cx, (value >> 16) as u16);
                }
            }
            _ => (0..u64::from(size)).for_each(|i| {
                let reg = (offset + i) as u8 & 7;
                if reg != 0 {
                    c.write(cx, reg, (value >> (8 * i)) as u8);
                }
            }),
        }
    }
}

impl BusHost for PiixIde {
    fn attach(&mut self, cx: &mut Cx<'_>, bus: BusId, child: DevId, what: Attach) -> QResult<()> {
        let first = self.channels[0].bus;
        let Some(c) = self.channels.iter_mut().find(|c| c.bus == bus) else {
            return Err(qerr!("no such IDE bus"));
        };
        let new = what.downcast::<NewDrive>().map_err(|_| qerr!("not an IDE drive"))?;
        let free = |u: &usize| c.devices[*u].is_none();
        let unit = match new.unit {
            // With nobody to ask, the second position is the one that is found taken.
            None => (0..2).find(free).unwrap_or(1),
            Some(u) if u < 2 => u as usize,
            Some(u) => return Err(qerr!("Can't create IDE unit {u}, bus supports only 2 units")),
        };
        if !free(&unit) {
            return Err(qerr!("IDE unit {unit} is in use"));
        }
        let mut drive = new.drive;
        if drive.id.serial.is_empty() {
            // Numbered by position: two for each IDE bus of the machine, in the order in which buses were made.
            let before = cx.m.tree.buses().filter(|b| b.kind == BusKind::Ide && b.id < bus).count();
            drive.id.serial = format!("QM{:05}", before * 2 + unit + 1);
        }
        let channel = if bus == first { 0 } else { 2 };
        drive.set_number(channel + unit as u32);
        c.plug(unit, child, drive);
        Ok(())
    }

    fn detach(&mut self, _cx: &mut Cx<'_>, _bus: BusId, child: DevId) {
        if let Some((c, u)) = self.find(child) {
            c.unplug(u);
        }
    }
}

impl BlockFrontend for PiixIde {
    fn completed(&mut self, cx: &mut Cx<'_>, tag: u64, result: rqemu_block::IoResult) {
        let number = (tag >> 32) as u32;
        let (drive, port) = self.channel(number >> 1).drive((number & 1) as usize);
        drive.completed(cx, port, tag, result);
    }
}
