//! What firmware finds: fw_cfg items, CMOS, ACPI and SMBIOS tables.

use super::bootorder::{boot_order, disk_geometries};
use super::Build;
use crate::boards::{microvm_dt, PcProps, SmbiosEntryPoint};
use crate::device::{BusId, DevId};
use crate::devices::chipset::fw_cfg::{FwCfg, FwCfgData};
use crate::devices::chipset::piix4_pm::Piix4Pm;
use crate::devices::legacy::hpet::Hpet;
use crate::devices::legacy::rtc::cmos::{pc_cmos_init, CmosConfig, CmosDisk, DiskTranslation, FloppyKind};
use crate::devices::legacy::rtc::Mc146818;
use crate::devices::storage::geometry;
use crate::direct::{DirectBoot, DirectBootSpec};
use crate::firmware::acpi::{
    self, AcpiBlobs, AcpiConfig, CpuEntry, FloppyType, IsaDevice, PciBus, PciFunction, PciKind,
};
use crate::firmware::fw_cfg_files::{self as files, FixedItems};
use crate::firmware::linux_boot;
use crate::firmware::smbios::{self, SmbiosConfig};
use crate::machine::Machine;
use crate::memory::RegionKind;
use crate::pci::{Bar, BarKind};
use crate::qom::is_a;
use crate::spec::{DriveInterface, FwCfgSource, Media};
use crate::{qerr, QResult};

impl Build<'_> {
    /// Fills fw_cfg and CMOS when all devices exist.
    pub fn finish_firmware(&mut self) -> QResult<()> {
        self.cmos()?;
        self.check_firmware_options()?;
        let Some(dev) = self.fw_cfg else { return Ok(()) };
        self.load_option_roms();
        let kernel = self.kernel_items()?;
        let mut items: Vec<(u16, Vec<u8>)> = files::fixed_items(&FixedItems {
            dma: true,
            uuid: self.spec.uuid.unwrap_or_default(),
            ram_size: self.ram_size,
            nographic: self.spec.display.nographic
                || self.props::<PcProps>().is_some_and(|p| !p.x86.common.graphics),
            cpus: self.topo.cpus as u16,
            apic_id_limit: (apic_id(self.m, self.topo.maxcpus.saturating_sub(1)) + 1) as u16,
            boot_menu: self.spec.boot.menu == Some(true),
            numa: self.m.numa.as_ref().map(super::NumaState::fw_cfg),
            hpet: self.hpet_id(),
        });
        let map = files::pc_e820(&self.layout, &self.e820_config());
        let mut named: Vec<(String, FwCfgData)> = vec![("etc/e820".into(), files::e820_file(&map).into())];
        self.boot_files(&mut named)?;
        if self.is_microvm() {
            let tree = FwCfgData::built(microvm_dt::SIZE, |m: &mut Machine| microvm_dt::build(m));
            named.push(("etc/fdt".into(), tree));
        } else {
            self.smbios_files(&mut named)?;
        }
        if self.acpi_enabled() {
            let files = acpi_files(self.m, self.layout, self.topo.cpus, self.topo.maxcpus);
            for (name, data) in files.iter().filter(|(_, data)| data.size() > 0) {
                // Kept where migration finds it.
                let size = u128::from(data.size());
                self.m.mem.add(format!("/rom@{name}"), size, RegionKind::Container, Some(dev));
            }
            named.extend(files);
        }
        items.extend(kernel);
        named.extend(self.rom_files());
        let user = self.user_files()?;
        self.m
            .with::<FwCfg, _>(dev, |f, _| {
                for (key, data) in items {
                    f.add_bytes(key, data);
                }
                for (name, data) in named {
                    f.add_file(&name, data)?;
                }
                for (name, data, loc) in user {
                    f.add_file(&name, data).map_err(|e| loc.locate(e))?;
                }
                QResult::Ok(())
            })
            .unwrap_or(Ok(()))
    }

    fn cmos(&mut self) -> QResult<()> {
        let Some(rtc) = self.m.tree.by_class("mc146818rtc").map(|n| n.id) else { return Ok(()) };
        let boot = &self.spec.boot;
        let order = boot.once.as_ref().or(boot.order.as_ref()).map_or("cad", String::as_str);
        let bytes = pc_cmos_init(&CmosConfig {
            below_4g: self.layout.below_4g,
            above_4g: self.layout.above_4g,
            boot_order: order.to_string(),
            fd_bootchk: true,
            cpus: self.topo.cpus,
            floppies: [0, 1].map(|unit| match floppy_type(self.m, unit) {
                Some(FloppyType::Inch3M144) => FloppyKind::F144,
                Some(FloppyType::Inch3M288) => FloppyKind::F288,
                Some(FloppyType::Inch5M12) => FloppyKind::F120,
                None => FloppyKind::None,
            }),
            disks: [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(bus, unit)| self.cmos_disk(bus, unit)),
        })?;
        self.m.with::<Mc146818, _>(rtc, |r, _| r.set_cmos(&bytes));
        Ok(())
    }

    /// Geometry of an IDE disk of the board.
    fn cmos_disk(&self, bus: u32, unit: u32) -> Option<CmosDisk> {
        let i = self.drive_at(DriveInterface::Ide, bus, unit)?;
        if self.spec.drives.get(i)?.media == Media::Cdrom {
            return None;
        }
        let disk = self.m.block.backend_for(&self.places.get(i)?.id).ok()?;
        let (g, t) = geometry::guess(&disk);
        let translation = match t {
            geometry::Translation::Lba => DiskTranslation::Lba,
            geometry::Translation::Large => DiskTranslation::Large,
            geometry::Translation::Rechs => DiskTranslation::RevisedEchs,
            _ => DiskTranslation::None,
        };
        Some(CmosDisk { chs: (g.cyls as u16, g.heads as u8, g.secs as u8), translation })
    }

    fn hpet_id(&mut self) -> Option<u32> {
        let hpet = self.m.tree.by_class("hpet").map(|n| n.id)?;
        self.m.with::<Hpet, _>(hpet, |h, _| h.capabilities() as u32)
    }

    fn boot_files(&mut self, named: &mut Vec<(String, FwCfgData)>) -> QResult<()> {
        let order = boot_order(self.m, self.rom_boot_lines())?;
        named.extend(self.splash_file());
        let boot = &self.spec.boot;
        named.push(("bootorder".into(), files::lines(&order, boot.strict == Some(true)).into()));
        named.push(("bios-geometry".into(), files::lines(&disk_geometries(self.m), false).into()));
        if let Some(ms) = boot.splash_time {
            named.push((
                "etc/boot-menu-wait".into(),
                files::boot_menu_wait(ms.clamp(0, 0xffff) as u16).to_vec().into(),
            ));
        }
        let timeout = boot.reboot_timeout.filter(|t| *t >= 0).map(|t| t.min(0xffff) as u16);
        named.push(("etc/boot-fail-wait".into(), files::boot_fail_wait(timeout).to_vec().into()));
        Ok(())
    }

    fn smbios_files(&self, named: &mut Vec<(String, FwCfgData)>) -> QResult<()> {
        let s = smbios::build(&self.smbios_config()?);
        let bits64 =
            self.props::<PcProps>().is_some_and(|p| p.smbios_entry_point_type == SmbiosEntryPoint::Bits64);
        if !bits64 && s.tables.len() > usize::from(u16::MAX) {
            return Err(qerr!("SMBIOS 2.1 table length {} exceeds 65535", s.tables.len()));
        }
        named.push((smbios::TABLES_FILE.into(), s.tables.into()));
        named.push((smbios::ANCHOR_FILE.into(), s.anchor.into()));
        Ok(())
    }

    /// What the SMBIOS structures say.
    pub fn smbios_config(&self) -> QResult<SmbiosConfig> {
        let mut options = self.spec.smbios.clone();
        options.resolve_onboard(|id| {
            let dev = self.m.tree.by_user_id(id)?.id;
            let (bus, devfn) = self.m.pci_place(dev)?;
            // Buses behind bridges have no number before the firmware gives them one.
            let number = self.m.pci.iter().find(|b| b.bus == bus).filter(|b| b.bridge.is_none());
            number.map(|_| (0, devfn))
        })?;
        let (signature, features) = self.m.cpu_signature();
        Ok(SmbiosConfig {
            entry_point: match self.props::<PcProps>().map(|p| p.smbios_entry_point_type) {
                Some(SmbiosEntryPoint::Bits64) => smbios::EntryPoint::Bits64,
                _ => smbios::EntryPoint::Bits32,
            },
            uuid: self.spec.uuid.unwrap_or_default(),
            version: self.kind.name.to_string(),
            sockets: self.topo.sockets,
            cores: self.topo.dies * self.topo.cores,
            threads: self.topo.dies * self.topo.cores * self.topo.threads,
            cpu_signature: signature,
            cpu_features: features,
            ram_size: self.ram_size,
            ram_ranges: files::ram_ranges(&self.layout).iter().map(|r| (r.base, r.len)).collect(),
            options,
            ..SmbiosConfig::pc()
        })
    }

    /// `-fw_cfg` items of the user.
    fn user_files(&self) -> QResult<Vec<(String, Vec<u8>, crate::spec::Loc)>> {
        let mut out = Vec::new();
        for f in &self.spec.fw_cfg {
            let data = match &f.source {
                FwCfgSource::Text(t) => t.clone().into_bytes(),
                FwCfgSource::File(path) => std::fs::read(path).map_err(|e| {
                    let text = crate::error::strerror(&e);
                    f.loc.locate(qerr!("can't load {path}: Failed to open file “{path}”: {text}"))
                })?,
                FwCfgSource::GenId(id) => return Err(f.loc.locate(qerr!("Cannot find object ID '{id}'"))),
            };
            out.push((f.name.clone(), data, f.loc.clone()));
        }
        Ok(out)
    }

    /// Kernel, initrd and command line for firmware that boots them.
    fn kernel_items(&mut self) -> QResult<Vec<(u16, Vec<u8>)>> {
        let spec = self.spec;
        let f = &spec.firmware;
        let Some(kernel) = &f.kernel else { return Ok(Vec::new()) };
        if self.direct_image(kernel)?.is_some() {
            return Ok(Vec::new());
        }
        let read = |what: &str, path: &str| {
            std::fs::read(path).map_err(|e| qerr!("qemu: {what}: {}", crate::error::strerror(&e)).bare())
        };
        let image = read(&format!("could not open kernel file '{kernel}'"), kernel)?;
        let initrd = f.initrd.as_ref().map(|p| read(&format!("error reading initrd {p}"), p)).transpose()?;
        let extra = crate::boards::microvm::kernel_arguments(self.m);
        let append = format!("{}{extra}", f.append.as_deref().unwrap_or(""));
        if image.starts_with(b"\x7fELF") {
            return Err(qerr!("'{kernel}': the firmware that was asked for starts Linux images only"));
        }
        let linux = linux_boot::prepare(&image, &append, initrd, self.layout.below_4g)
            .map_err(|e| qerr!("qemu: {e}").bare())?;
        self.add_option_rom("linuxboot_dma.bin", 0);
        Ok(linux.into_items())
    }

    fn direct_spec<'s>(&self, kernel: &'s str) -> QResult<DirectBootSpec<'s>>
    where
        Self: 's,
    {
        Ok(DirectBootSpec {
            kernel,
            initrd: self.spec.firmware.initrd.clone(),
            cmdline: {
                let extra = crate::boards::microvm::kernel_arguments(self.m);
                format!("{}{extra}", self.spec.firmware.append.as_deref().unwrap_or(""))
            },
            layout: self.layout,
            map: files::pc_e820(&self.layout, &self.e820_config()),
            smbios: if self.is_microvm() { None } else { Some(self.smbios_config()?) },
            cpus: (self.topo.cpus, self.topo.maxcpus),
            acpi: self.acpi_enabled(),
        })
    }

    /// The kernel, if it can be started without firmware: the user names none, and the kernel does not ask for a video
    /// mode, which only its real-mode part sets. Without any firmware it starts in text mode.
    fn direct_image(&self, kernel: &str) -> QResult<Option<DirectBoot>> {
        const NORMAL: u16 = 0xffff;
        if !self.boots_directly() {
            return Ok(None);
        }
        let Some(image) = DirectBoot::open(self.direct_spec(kernel)?)? else { return Ok(None) };
        let mode = linux_boot::video_mode(self.spec.firmware.append.as_deref().unwrap_or("")).unwrap_or(None);
        let wants_mode = image.is_linux() && mode.is_some_and(|m| m != NORMAL);
        Ok(Some(image).filter(|_| !wants_mode || self.firmware.is_none()))
    }

    fn e820_config(&self) -> files::E820Config {
        let cpu = self.m.info.cpu;
        let amd_cpu = cpu.amd && self.kind.keeps_amd_hole;
        files::E820Config { amd_cpu, phys_bits: cpu.phys_bits, kvm: self.m.accel.name() == "kvm" }
    }

    /// Sets a boot without firmware up, if the kernel allows it and the user did not name a firmware.
    pub fn open_direct_boot(&mut self) -> QResult<()> {
        let Some(kernel) = self.spec.firmware.kernel.clone() else { return Ok(()) };
        self.m.direct_boot = self.direct_image(&kernel)?.map(Box::new);
        if self.m.direct_boot.is_none() && self.firmware.is_none() {
            return Err(qerr!("kernel '{kernel}' needs firmware, but none was found"));
        }
        Ok(())
    }
}

/// The three ACPI files, built when the firmware selects them.
fn acpi_files(
    m: &mut Machine,
    layout: crate::boards::RamLayout,
    cpus: u32,
    maxcpus: u32,
) -> Vec<(String, FwCfgData)> {
    let first = acpi_blobs(m, layout, cpus, maxcpus);
    let rebuild = move |m: &mut Machine| acpi_blobs(m, layout, cpus, maxcpus);
    let part = |name: &str, len: usize, pick: fn(AcpiBlobs) -> Vec<u8>| {
        (name.to_string(), FwCfgData::built(len as u32, move |m: &mut Machine| pick(rebuild(m))))
    };
    let mut list = vec![
        part(acpi::TABLES_FILE, first.tables.len(), |b| b.tables),
        part(acpi::RSDP_FILE, first.rsdp.len(), |b| b.rsdp),
        part(acpi::LOADER_FILE, first.loader.len(), |b| b.loader),
    ];
    if m.pci.iter().next().is_some() {
        // The TPM's event log, empty without a TPM.
        list.push(("etc/tpm/log".into(), Vec::new().into()));
    }
    list
}

/// The ACPI tables of the machine as it is now.
pub fn acpi_blobs(m: &mut Machine, layout: crate::boards::RamLayout, cpus: u32, maxcpus: u32) -> AcpiBlobs {
    match crate::boards::microvm::acpi_tables(m, cpus, maxcpus) {
        Some(blobs) => blobs,
        None => acpi::build(&acpi_config(m, layout, cpus, maxcpus)),
    }
}

/// Local APIC id of the CPU with number `index`.
fn apic_id(m: &Machine, index: u32) -> u32 {
    m.cpu_setup.as_ref().map_or(index, |s| s.layout.apic_id_of(index))
}

/// Ranges of 64-bit BARs that lie above 4 GiB: first and last address of all of them.
fn high_bars(m: &mut Machine) -> Option<(u64, u64)> {
    let mut all: Option<(u64, u64)> = None;
    for id in m.tree.ids() {
        let ranges = m.with_dev(id, |d, _| {
            let state = d.pci()?.state();
            let one = |(i, bar): (usize, &Option<Bar>)| {
                let bar =
                    bar.as_ref().filter(|b| matches!(b.kind, BarKind::Mem64 | BarKind::Mem64Prefetch))?;
                let at = state.bar_address(i).filter(|a| *a >= 1 << 32)?;
                Some((at, at + (bar.size - 1)))
            };
            Some(state.bars().iter().enumerate().filter_map(one).collect::<Vec<_>>())
        });
        for (first, last) in ranges.flatten().unwrap_or_default() {
            let (low, high) = all.unwrap_or((first, last));
            all = Some((low.min(first), high.max(last)));
        }
    }
    all
}

/// What the tables say of power management, as the device's properties and its registers have it.
fn power_config(m: &mut Machine, cfg: &mut AcpiConfig) {
    let Some(pm) = m.tree.by_class("PIIX4_PM").map(|n| n.id) else { return };
    let value = |m: &Machine, name: &str| Some(m.tree.get(pm)?.props.get_prop(name)?.value);
    let on = |m: &Machine, name: &str| value(m, name).and_then(|v| v.as_bool()) == Some(true);
    let number = |m: &Machine, name: &str| value(m, name).and_then(|v| v.as_u64()).unwrap_or(0);
    cfg.smm = on(m, "smm-enabled");
    cfg.disable_s3 = number(m, "disable_s3") != 0;
    cfg.disable_s4 = number(m, "disable_s4") != 0;
    cfg.s4_val = number(m, "s4_val") as u8;
    cfg.pcihp_root = on(m, "acpi-root-pci-hotplug");
    cfg.pcihp_bridges = on(m, "acpi-pci-hotplug-with-bridge-support");
    if let Some((base, _)) = m.with::<Piix4Pm, _>(pm, |p, _| p.pm_base()) {
        cfg.pm_base = base;
    }
}

/// Describes the machine as it is now.
pub fn acpi_config(m: &mut Machine, layout: crate::boards::RamLayout, cpus: u32, maxcpus: u32) -> AcpiConfig {
    let node = |i: u32| m.numa.as_ref().and_then(|n| n.cpu_nodes.get(i as usize).copied());
    let entries =
        (0..maxcpus).map(|i| CpuEntry { apic_id: apic_id(m, i), present: i < cpus, node: node(i) }).collect();
    let root = m.pci.iter().find(|b| b.bridge.is_none()).map(|b| b.bus);
    let pci = root.map(|b| pci_bus(m, b)).unwrap_or_default();
    let isa = isa_devices(m);
    let mut cfg = AcpiConfig::pc(entries, layout, pci, isa);
    power_config(m, &mut cfg);
    let hole = m.tree.by_class("i440FX-pcihost").and_then(|n| n.props.get_prop("pci-hole64-size"));
    if let Some(size) = hole.and_then(|p| p.value.as_u64()) {
        let used = layout.above_4g_start.max(1 << 32) + layout.above_4g;
        cfg.pci_hole64 = (size > 0).then(|| acpi::hole64(used, size, high_bars(m)));
    }
    let dma = m.tree.by_class("fw_cfg_io").and_then(|n| n.props.get_prop("dma_enabled"));
    cfg.fw_cfg_dma = dma.is_none_or(|p| p.value.as_bool() != Some(false));
    cfg.pci_root_uid = m.board.as_ref().map_or(0, |b| b.kind.pci_root_uid);
    cfg.vmgenid = m.tree.by_class("vmgenid").is_some();
    cfg.user_tables = m.info.acpi_tables.clone();
    cfg.numa = m.numa.as_ref().map(super::NumaState::acpi);
    if let Some(p) = m.board.as_ref().and_then(|b| b.props.as_any().downcast_ref::<PcProps>()) {
        cfg.hpet = p.hpet;
        pad(p.x86.oem_id.0.as_deref(), &mut cfg.oem.id);
        pad(p.x86.oem_table_id.0.as_deref(), &mut cfg.oem.table_id);
    }
    cfg
}

fn pci_bus(m: &Machine, bus: BusId) -> PciBus {
    let devs: Vec<(DevId, u8)> = m
        .tree
        .bus(bus)
        .map(|b| b.children.clone())
        .unwrap_or_default()
        .into_iter()
        .filter_map(|d| m.pci_place(d).map(|(_, devfn)| (d, devfn)))
        .collect();
    let functions = devs
        .into_iter()
        .filter_map(|(d, devfn)| {
            let (class, hotplugged) = m.tree.get(d).map(|n| (n.class, n.hotplugged))?;
            let kind = match class.name {
                "VGA" | "secondary-vga" => PciKind::Vga,
                "PIIX3" => PciKind::IsaBridge,
                _ => {
                    let behind = m.pci.iter().find(|b| b.bridge == Some(d)).map(|b| b.bus);
                    behind.map_or(PciKind::Plain, |sub| PciKind::Bridge(pci_bus(m, sub)))
                }
            };
            Some(PciFunction { devfn, kind, hotpluggable: class.hotpluggable, hotplugged })
        })
        .collect();
    PciBus { functions }
}

/// Puts a user's id into a table's field, cut or padded with zeros.
fn pad(id: Option<&str>, field: &mut [u8]) {
    let Some(id) = id else { return };
    field.fill(0);
    for (f, b) in field.iter_mut().zip(id.bytes()) {
        *f = b;
    }
}

/// Type of a floppy drive, as its property says since it was realized.
fn floppy_type(m: &Machine, unit: u64) -> Option<FloppyType> {
    let is = |n: &&crate::device::DeviceNode| {
        n.class.name == "floppy" && n.props.get_prop("unit").is_some_and(|p| p.value.as_u64() == Some(unit))
    };
    match m.tree.iter().find(is)?.props.get_prop("drive-type")?.value.as_str()? {
        "144" => Some(FloppyType::Inch3M144),
        "288" => Some(FloppyType::Inch3M288),
        "120" => Some(FloppyType::Inch5M12),
        _ => None,
    }
}

/// ISA devices that ACPI describes, oldest first.
pub fn isa_devices(m: &Machine) -> Vec<IsaDevice> {
    let number = |n: &crate::device::DeviceNode, p: &str| {
        n.props.get_prop(p).and_then(|g| g.value.as_u64()).unwrap_or(0)
    };
    let mut out = Vec::new();
    for n in m.tree.iter() {
        if !n.parent_bus.and_then(|b| m.tree.bus(b)).is_some_and(|b| b.kind == crate::device::BusKind::Isa) {
            continue;
        }
        match n.class.name {
            "mc146818rtc" => out.push(IsaDevice::Rtc),
            "i8042" => out.push(IsaDevice::I8042),
            "isa-serial" => out.push(IsaDevice::Serial {
                uid: number(n, "index") as u8 + 1,
                iobase: number(n, "iobase") as u16,
                irq: number(n, "irq") as u8,
            }),
            "isa-parallel" => out.push(IsaDevice::Parallel {
                uid: number(n, "index") as u8 + 1,
                iobase: number(n, "iobase") as u16,
                irq: number(n, "irq") as u8,
            }),
            "pvpanic" => out.push(IsaDevice::Pvpanic { iobase: number(n, "ioport") as u16 }),
            _ if is_a(n.class, "isa-fdc") => {
                out.push(IsaDevice::Floppy([0, 1].map(|unit| floppy_type(m, unit))))
            }
            _ => {}
        }
    }
    out
}
