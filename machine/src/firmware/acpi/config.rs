//! What the ACPI builder must know about the machine: plain data, filled by the board code.

/// OEM ids of a machine's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Oem {
    /// OEM id; one that the user gives (`x-oem-id`) is padded with zeros.
    pub id: [u8; 6],
    /// OEM table id; one that the user gives (`x-oem-table-id`) is padded with zeros.
    pub table_id: [u8; 8],
}

impl Oem {
    /// The ids in the header of a table; `None` if it is cut short.
    pub fn of_table(table: &[u8]) -> Option<Self> {
        let id = table.get(10..16)?.try_into().ok()?;
        let table_id = table.get(16..24)?.try_into().ok()?;
        Some(Self { id, table_id })
    }
}

impl Default for Oem {
    fn default() -> Self {
        Self { id: *b"BOCHS ", table_id: *b"BXPC    " }
    }
}

/// One possible CPU, plugged or not, in the order of its index (`-smp maxcpus` entries).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuEntry {
    /// Local APIC id.
    pub apic_id: u32,
    /// Whether the CPU is plugged when the tables are built.
    pub present: bool,
    /// NUMA node, when the machine has nodes.
    pub node: Option<u32>,
}

/// A PCI device as the tables see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// Device number (0 to 31) and function (0 to 7): `slot << 3 | function`.
    pub devfn: u8,
    /// What it is.
    pub kind: PciKind,
    /// Whether its class can be unplugged (false for host and ISA bridges and primary VGA).
    pub hotpluggable: bool,
    /// Whether it was plugged at run time.
    pub hotplugged: bool,
}

impl PciFunction {
    /// A bridge that was there when the machine started: it stays, and its bus is described.
    pub fn cold_bridge(&self) -> bool {
        matches!(self.kind, PciKind::Bridge(_)) && !self.hotplugged
    }
}

/// Kinds of PCI devices that the tables tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PciKind {
    /// Anything that needs no methods of its own.
    Plain,
    /// `VGA` or `secondary-vga`: keeps its state in every sleep state.
    Vga,
    /// The PIIX3 ISA bridge: interrupt routing registers and the ISA devices below it.
    IsaBridge,
    /// A PCI-to-PCI bridge with the bus behind it.
    Bridge(PciBus),
}

/// A PCI bus: its functions in the order in which they were created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciBus {
    /// Present functions, oldest first.
    pub functions: Vec<PciFunction>,
}

/// A device below the ISA bridge that has a node in the tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsaDevice {
    /// MC146818 clock at 0x70.
    Rtc,
    /// i8042: keyboard and mouse at 0x60/0x64.
    I8042,
    /// 16550 at `iobase` with `irq`; `uid` is its index from 1 and part of its name (`COM1`).
    Serial {
        /// Index from 1.
        uid: u8,
        /// First port.
        iobase: u16,
        /// ISA interrupt.
        irq: u8,
    },
    /// Parallel port; `uid` counts from 1 (`LPT1`).
    Parallel {
        /// Index from 1.
        uid: u8,
        /// First port.
        iobase: u16,
        /// ISA interrupt.
        irq: u8,
    },
    /// Floppy controller at 0x3f0 with the types of drives A and B.
    Floppy([Option<FloppyType>; 2]),
    /// AppleSMC: 32 ports.
    AppleSmc {
        /// First port.
        iobase: u16,
    },
    /// pvpanic at a port.
    Pvpanic {
        /// Its only port.
        iobase: u16,
    },
}

/// Type of a floppy drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloppyType {
    /// 5.25" 1.2 MB.
    Inch5M12,
    /// 3.5" 1.44 MB.
    Inch3M144,
    /// 3.5" 2.88 MB.
    Inch3M288,
}

/// One range of guest memory with its NUMA node, as SRAT lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeMemory {
    /// First guest physical address.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// Node.
    pub node: u32,
}

/// NUMA description; present as soon as the machine has a node (memory hotplug implies node 0).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numa {
    /// Memory of each node in MiB-exact bytes, in node order (`-numa node,mem=` sizes).
    pub node_memory: Vec<u64>,
    /// Row-major distance matrix; `None` when no distance was given.
    pub distances: Option<Vec<u8>>,
}

/// Memory hotplug (`-m size,slots=n,maxmem=m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryHotplug {
    /// Number of DIMM slots (1 to 256).
    pub slots: u16,
    /// First address of the area for devices.
    pub base: u64,
    /// Length of the area in bytes.
    pub len: u64,
}

/// RAM below and above 4 GiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RamLayout {
    /// Bytes from address 0 up.
    pub below_4g: u64,
    /// Bytes from `above_4g_start` up.
    pub above_4g: u64,
    /// Start of the upper part: 4 GiB, or 1 TiB when that would touch AMD's HyperTransport hole.
    pub above_4g_start: u64,
}

/// Everything the tables of machine `pc` depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiConfig {
    /// Ids in the table headers.
    pub oem: Oem,
    /// All possible CPUs.
    pub cpus: Vec<CpuEntry>,
    /// I/O base of the PIIX4 PM block as the firmware programmed it (0x600 with SeaBIOS); 0 before that.
    pub pm_base: u16,
    /// System control interrupt.
    pub sci_irq: u16,
    /// Whether SMM exists, and with it the APM ports that switch ACPI mode on.
    pub smm: bool,
    /// HPET present; its capability register's low half is the table's block id.
    pub hpet: bool,
    /// `PIIX4_PM.disable_s3`.
    pub disable_s3: bool,
    /// `PIIX4_PM.disable_s4`.
    pub disable_s4: bool,
    /// `PIIX4_PM.s4_val`: SLP_TYP of S4.
    pub s4_val: u8,
    /// 32-bit PCI memory window, first and last address.
    pub pci_hole32: (u32, u32),
    /// 64-bit PCI memory window, first and last address.
    pub pci_hole64: Option<(u64, u64)>,
    /// The root bus.
    pub pci: PciBus,
    /// `PIIX4_PM.acpi-root-pci-hotplug`.
    pub pcihp_root: bool,
    /// `PIIX4_PM.acpi-pci-hotplug-with-bridge-support`.
    pub pcihp_bridges: bool,
    /// Devices below the ISA bridge, oldest first.
    pub isa: Vec<IsaDevice>,
    /// RAM layout (for SRAT).
    pub ram: RamLayout,
    /// NUMA nodes.
    pub numa: Option<Numa>,
    /// Memory hotplug.
    pub memory_hotplug: Option<MemoryHotplug>,
    /// `_UID` of the PCI root.
    pub pci_root_uid: u8,
    /// `vmgenid` device present.
    pub vmgenid: bool,
    /// fw_cfg has its DMA register.
    pub fw_cfg_dma: bool,
    /// Tables from `-acpitable` ([`super::user`]).
    pub user_tables: Vec<Vec<u8>>,
}

impl AcpiConfig {
    /// The tables' constants of `pc-i440fx-7.2` around the given CPUs, RAM and devices.
    pub fn pc(cpus: Vec<CpuEntry>, ram: RamLayout, pci: PciBus, isa: Vec<IsaDevice>) -> Self {
        let hole64 = ram.above_4g_start.max(1 << 32) + ram.above_4g;
        Self {
            oem: Oem::default(),
            cpus,
            pm_base: 0x600,
            sci_irq: 9,
            smm: true,
            hpet: true,
            disable_s3: false,
            disable_s4: false,
            s4_val: 2,
            pci_hole32: (u32::try_from(ram.below_4g).unwrap_or(u32::MAX), 0xfebf_ffff),
            pci_hole64: Some(default_hole64(hole64)),
            pci,
            pcihp_root: true,
            pcihp_bridges: true,
            isa,
            ram,
            numa: None,
            memory_hotplug: None,
            pci_root_uid: 0,
            vmgenid: false,
            fw_cfg_dma: true,
            user_tables: Vec::new(),
        }
    }

    /// Whether the ACPI PCI hotplug block at 0xae00 exists.
    pub fn pcihp(&self) -> bool {
        self.pcihp_root || self.pcihp_bridges
    }
}

/// 64-bit PCI window of i440FX with its default size of 2 GiB, above everything that ends at `used_end`.
pub fn default_hole64(used_end: u64) -> (u64, u64) {
    hole64(used_end, 2 << 30, None)
}

/// 64-bit PCI window: `size` bytes (`pci-hole64-size`), rounded up to whole GiB, above everything that ends at
/// `used_end`. `programmed` is the first and last address of the 64-bit BARs that the guest placed above 4 GiB;
/// the window then starts at the first one and reaches at least to the last one.
pub fn hole64(used_end: u64, size: u64, programmed: Option<(u64, u64)>) -> (u64, u64) {
    const GIB: u64 = 1 << 30;
    let (start, end) = programmed.unwrap_or((used_end.next_multiple_of(GIB), 0));
    (start, end.max((start + size).next_multiple_of(GIB) - 1))
}
