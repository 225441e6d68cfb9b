//! PCI devices.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::device::DevId;
use rqemu_machine::pci::BarKind;
use rqemu_machine::QResult;

qapi_struct! {
    /// A base address register.
    pub struct PciMemoryRegion {
        /// Number.
        bar: i64,
        /// `io` or `memory`.
        type_ as "type": String,
        /// Where; -1 if it is not mapped.
        address: i64,
        /// Bytes.
        size: i64,
        /// Memory can be prefetched.
        prefetch: Option<bool>,
        /// 64-bit.
        mem_type_64 as "mem_type_64": Option<bool>,
    }
    /// Class of a function.
    pub struct PciDeviceClass {
        /// In words.
        desc: Option<String>,
        /// Number.
        class: i64,
    }
    /// Ids of a function.
    pub struct PciDeviceId {
        /// Device.
        device: i64,
        /// Vendor.
        vendor: i64,
        /// Subsystem.
        subsystem: Option<i64>,
        /// Vendor of the subsystem.
        subsystem_vendor: Option<i64>,
    }
    /// A range of addresses.
    pub struct PciMemoryRange {
        /// First.
        base: i64,
        /// Last.
        limit: i64,
    }
    /// The bus behind a bridge.
    pub struct PciBusInfo {
        /// Number of the bus that the bridge is on.
        number: i64,
        /// Number of the bus behind it.
        secondary: i64,
        /// Highest number of a bus behind it.
        subordinate: i64,
        /// Ports that it passes on.
        io_range as "io_range": PciMemoryRange,
        /// Memory that it passes on.
        memory_range as "memory_range": PciMemoryRange,
        /// Prefetchable memory that it passes on.
        prefetchable_range as "prefetchable_range": PciMemoryRange,
    }
    /// A bridge.
    pub struct PciBridgeInfo {
        /// The bus behind it.
        bus: PciBusInfo,
        /// Functions on that bus.
        devices: Option<Vec<PciDeviceInfo>>,
    }
    /// A function.
    pub struct PciDeviceInfo {
        /// Bus number.
        bus: i64,
        /// Slot.
        slot: i64,
        /// Function.
        function: i64,
        /// Class.
        class_info as "class_info": PciDeviceClass,
        /// Ids.
        id: PciDeviceId,
        /// Interrupt line.
        irq: Option<i64>,
        /// Interrupt pin.
        irq_pin as "irq_pin": i64,
        /// Id.
        qdev_id as "qdev_id": String,
        /// What it is a bridge to.
        pci_bridge as "pci_bridge": Option<PciBridgeInfo>,
        /// Registers.
        regions: Vec<PciMemoryRegion>,
    }
    /// A bus.
    pub struct PciInfo {
        /// Number.
        bus: i64,
        /// Functions.
        devices: Vec<PciDeviceInfo>,
    }
}

/// Class codes (base and sub class) in words.
const CLASSES: &[(u16, &str)] = &[
    (0x0001, "VGA controller"),
    (0x0100, "SCSI controller"),
    (0x0101, "IDE controller"),
    (0x0102, "Floppy controller"),
    (0x0103, "IPI controller"),
    (0x0104, "RAID controller"),
    (0x0106, "SATA controller"),
    (0x0107, "SAS controller"),
    (0x0180, "Storage controller"),
    (0x0200, "Ethernet controller"),
    (0x0201, "Token Ring controller"),
    (0x0202, "FDDI controller"),
    (0x0203, "ATM controller"),
    (0x0280, "Network controller"),
    (0x0300, "VGA controller"),
    (0x0301, "XGA controller"),
    (0x0302, "3D controller"),
    (0x0380, "Display controller"),
    (0x0400, "Video controller"),
    (0x0401, "Audio controller"),
    (0x0402, "Phone"),
    (0x0403, "Audio controller"),
    (0x0480, "Multimedia controller"),
    (0x0500, "RAM controller"),
    (0x0501, "Flash controller"),
    (0x0580, "Memory controller"),
    (0x0600, "Host bridge"),
    (0x0601, "ISA bridge"),
    (0x0602, "EISA bridge"),
    (0x0603, "MC bridge"),
    (0x0604, "PCI bridge"),
    (0x0605, "PCMCIA bridge"),
    (0x0606, "NUBUS bridge"),
    (0x0607, "CARDBUS bridge"),
    (0x0608, "RACEWAY bridge"),
    (0x0680, "Bridge"),
    (0x0700, "Serial port"),
    (0x0701, "Parallel port"),
    (0x0800, "Interrupt controller"),
    (0x0801, "DMA controller"),
    (0x0802, "Timer"),
    (0x0803, "RTC"),
    (0x0900, "Keyboard"),
    (0x0901, "Pen"),
    (0x0902, "Mouse"),
    (0x0A00, "Dock station"),
    (0x0B00, "i386 cpu"),
    (0x0B01, "i486 cpu"),
    (0x0B02, "Pentium cpu"),
    (0x0C00, "Firewire controller"),
    (0x0C01, "Access bus controller"),
    (0x0C02, "SSA controller"),
    (0x0C03, "USB controller"),
    (0x0C04, "Fibre channel controller"),
    (0x0C05, "SMBus"),
];

/// A class code in words, if it has a name.
pub(crate) fn class_name(class: u16) -> Option<&'static str> {
    CLASSES.iter().find(|(c, _)| *c == class).map(|(_, text)| *text)
}

fn region(index: usize, kind: BarKind, size: u64, mapped: Option<u64>) -> PciMemoryRegion {
    let io = kind == BarKind::Io;
    let prefetch = matches!(kind, BarKind::Mem32Prefetch | BarKind::Mem64Prefetch);
    PciMemoryRegion {
        bar: index as i64,
        type_: if io { "io" } else { "memory" }.into(),
        address: mapped.map_or(-1, |a| a as i64),
        size: size as i64,
        prefetch: (!io).then_some(prefetch),
        mem_type_64: (!io).then(|| kind.is_64()),
    }
}

fn function(cx: &mut MonitorCx<'_, '_>, bus: i64, devfn: usize, dev: DevId) -> Option<PciDeviceInfo> {
    let qdev_id = cx.m.tree.get(dev)?.user_id().unwrap_or_default().to_string();
    let info = cx.m.with_dev(dev, |d, _| {
        let state = d.pci()?.state();
        let class = state.word(0x0A);
        let pin = state.config()[0x3D];
        let bridge = state.config()[0x0E] & 0x7F == 1;
        let desc = class_name(class).map(str::to_string);
        let word = |at| i64::from(state.word(at));
        Some(PciDeviceInfo {
            bus,
            slot: (devfn >> 3) as i64,
            function: (devfn & 7) as i64,
            class_info: PciDeviceClass { desc, class: class.into() },
            id: PciDeviceId {
                device: word(2),
                vendor: word(0),
                subsystem: (!bridge).then(|| word(0x2E)),
                subsystem_vendor: (!bridge).then(|| word(0x2C)),
            },
            irq: (pin != 0).then(|| state.config()[0x3C].into()),
            irq_pin: pin.into(),
            qdev_id,
            pci_bridge: bridge.then(|| PciBridgeInfo { bus: bridge_bus(state.config()), devices: None }),
            regions: state
                .bars()
                .iter()
                .enumerate()
                .filter_map(|(i, b)| b.as_ref().map(|b| region(i, b.kind, b.size, b.mapped)))
                .collect(),
        })
    });
    let mut info: PciDeviceInfo = info??;
    // Before firmware numbered the bus nobody can address what is behind it.
    if let Some(b) = info.pci_bridge.as_mut().filter(|b| b.bus.secondary != 0) {
        let behind = cx.m.pci.iter().find(|b| b.bridge == Some(dev)).map(functions_of);
        let secondary = b.bus.secondary;
        let list = behind.into_iter().flatten();
        b.devices = Some(list.filter_map(|(devfn, dev)| function(cx, secondary, devfn, dev)).collect());
    }
    Some(info)
}

/// The registers of a bridge that say what it passes on (PCI-to-PCI Bridge Architecture Specification, 3.2.5).
fn bridge_bus(config: &[u8]) -> PciBusInfo {
    let byte = |at: usize| i64::from(config.get(at).copied().unwrap_or_default());
    let word = |at: usize| byte(at) | byte(at + 1) << 8;
    let dword = |at: usize| word(at) | word(at + 2) << 16;
    let io = |at: usize, upper: usize| {
        (byte(at) & 0xf0) << 8 | if byte(at) & 15 == 1 { word(upper) << 16 } else { 0 }
    };
    let memory = |at: usize| (word(at) & 0xfff0) << 16;
    let prefetchable =
        |at: usize, upper: usize| memory(at) | if byte(at) & 15 == 1 { dword(upper) << 32 } else { 0 };
    PciBusInfo {
        number: byte(0x18),
        secondary: byte(0x19),
        subordinate: byte(0x1A),
        io_range: PciMemoryRange { base: io(0x1C, 0x30), limit: io(0x1D, 0x32) | 0xfff },
        memory_range: PciMemoryRange { base: memory(0x20), limit: memory(0x22) | 0xf_ffff },
        prefetchable_range: PciMemoryRange {
            base: prefetchable(0x24, 0x28),
            limit: prefetchable(0x26, 0x2C) | 0xf_ffff,
        },
    }
}

/// Functions of a bus by number.
fn functions_of(bus: &rqemu_machine::pci::PciBus) -> Vec<(usize, DevId)> {
    bus.functions.iter().enumerate().filter_map(|(i, d)| d.map(|d| (i, d))).collect()
}

pub(crate) fn query_pci(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<PciInfo>> {
    let roots: Vec<Vec<(usize, DevId)>> =
        cx.m.pci.iter().filter(|b| b.bridge.is_none()).map(functions_of).collect();
    let mut list = Vec::new();
    for functions in roots {
        let devices = functions.into_iter().filter_map(|(devfn, dev)| function(cx, 0, devfn, dev)).collect();
        list.push(PciInfo { bus: 0, devices });
    }
    Ok(list)
}
