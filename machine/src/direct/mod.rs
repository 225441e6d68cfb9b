//! Boot of a kernel without firmware.
//!
//! Takes the place of the firmware and its boot loader at every reset: programs the chipset and PCI BARs, puts ACPI
//! and SMBIOS tables where the operating system looks for them, loads the kernel and hands it its memory map. What
//! the guest sees afterwards is what SeaBIOS leaves behind, without the time that SeaBIOS takes.

mod elf32;
mod handover;
mod image;
mod memory;
mod multiboot;
pub(crate) mod pci;

use std::fs::File;

use image::{Image, ImageKind};

use crate::boards::RamLayout;
use crate::builder::acpi_blobs;
use crate::cpu::BootRegs;
use crate::devices::display::vga::pci::VgaPci;
use crate::firmware::acpi;
use crate::firmware::boot_params::{pvh_start_info, zero_page, LinuxParams, PvhParams};
use crate::firmware::direct_boot::{apply, place_smbios, reserve, Areas, LoaderFile};
use crate::firmware::fw_cfg_files::E820Entry;
use crate::firmware::linux_boot;
use crate::firmware::smbios::{self, SmbiosConfig};
use crate::machine::Machine;
use crate::{qerr, QResult};

/// Fixed places in low memory, free in every boot protocol.
mod place {
    pub const GDT: u64 = 0x500;
    pub const ZERO_PAGE: u64 = 0x7000;
    pub const START_INFO: u64 = 0x6000;
    pub const PAGE_TABLES: u64 = 0x9000;
    pub const STACK: u64 = 0x8000;
    pub const CMDLINE: u64 = 0x2_0000;
    pub const MULTIBOOT: u64 = 0x1_0000;
    /// Address and length of the firmware below 4 GiB, which firmware reports as taken.
    pub const FIRMWARE: (u64, u64) = (0xfffc_0000, 0x4_0000);
}

/// Everything that a boot without firmware needs; prepared once, used at every reset.
pub struct DirectBoot {
    image: Image,
    initrd: Option<(File, u64)>,
    modules: Vec<multiboot::Module>,
    cmdline: String,
    layout: RamLayout,
    map: Vec<E820Entry>,
    smbios: Option<SmbiosConfig>,
    cpus: (u32, u32),
    acpi: bool,
}

/// What to boot and on what.
pub struct DirectBootSpec<'a> {
    /// Kernel file.
    pub kernel: &'a str,
    /// Initrd file (for multiboot: modules, `file arguments,file arguments`).
    pub initrd: Option<String>,
    /// Command line.
    pub cmdline: String,
    /// RAM.
    pub layout: RamLayout,
    /// Memory map before reservations.
    pub map: Vec<E820Entry>,
    /// SMBIOS, if the board has it.
    pub smbios: Option<SmbiosConfig>,
    /// CPUs at start and at most.
    pub cpus: (u32, u32),
    /// ACPI tables are wanted.
    pub acpi: bool,
}

impl DirectBoot {
    /// Opens and checks the files. `Ok(None)` if this kernel can only be started by firmware.
    ///
    /// # Errors
    /// Missing files and images that are no kernels, with QEMU's texts.
    pub fn open(spec: DirectBootSpec<'_>) -> QResult<Option<Self>> {
        let Some(image) = Image::open(spec.kernel)? else { return Ok(None) };
        if matches!(image.kind(), ImageKind::Linux32 | ImageKind::Linux64) {
            linux_boot::video_mode(&spec.cmdline).map_err(|e| qerr!("qemu: {e}").bare())?;
        }
        let (mut initrd, mut modules) = (None, Vec::new());
        match (spec.initrd.as_deref(), image.kind()) {
            (Some(list), ImageKind::Multiboot) => modules = multiboot::Module::open_list(list)?,
            (Some(path), _) => {
                let fail = |e: std::io::Error| {
                    let text = crate::error::strerror(&e);
                    qerr!(
                        "qemu: error reading initrd {path}: Failed to open file “{path}”: open() failed: {text}"
                    )
                    .bare()
                };
                let f = File::open(path).map_err(fail)?;
                let len = f.metadata().map_err(fail)?.len();
                initrd = Some((f, len));
            }
            (None, _) => {}
        }
        Ok(Some(Self {
            image,
            initrd,
            modules,
            cmdline: spec.cmdline,
            layout: spec.layout,
            map: spec.map,
            smbios: spec.smbios,
            cpus: spec.cpus,
            acpi: spec.acpi,
        }))
    }

    /// Whether the kernel follows the Linux boot protocol.
    pub fn is_linux(&self) -> bool {
        matches!(self.image.kind(), ImageKind::Linux32 | ImageKind::Linux64)
    }

    /// Does the firmware's work and loads the kernel. Devices have just been reset.
    ///
    /// # Errors
    /// The kernel or initrd does not fit, or a file became unreadable.
    pub fn prepare(&mut self, m: &mut Machine) -> QResult<BootRegs> {
        if m.tree.by_class("i440FX").is_some() {
            pci::program_chipset(m);
            pci::assign(m, self.layout.below_4g);
        }
        if let Some(vga) = m.tree.by_class("VGA").map(|n| n.id) {
            m.with::<VgaPci, _>(vga, |v, cx| v.firmware_text_mode(cx));
        }
        m.settle();
        let mut areas = Areas::top_of_ram(self.layout.below_4g, 0x2_0000);
        let high = areas.high;
        let rsdp = self.tables(m, &mut areas)?;
        let mut taken = vec![(high.0, high.1 - high.0)];
        let pc = m.tree.by_class("i440FX").is_some();
        if pc {
            taken.push(place::FIRMWARE);
            handover::chips(m);
            handover::bios_data(m)?;
            handover::protect_roms(m);
        }
        let map = reserve(&self.map, &taken);
        memory::write(m, place::GDT, &memory::gdt())?;
        let kind = self.image.kind();
        let handover = handover::processors(m, self.layout.below_4g, pc);
        let regs = match kind {
            ImageKind::Linux64 | ImageKind::Linux32 => self.linux(m, kind, rsdp, &map, high.0),
            ImageKind::Pvh => self.pvh(m, rsdp, &map, high.0),
            ImageKind::Multiboot => self.multiboot(m, &map),
        }?;
        Ok(BootRegs { handover, ..regs })
    }

    fn tables(&self, m: &mut Machine, areas: &mut Areas) -> QResult<u64> {
        let fail = |e| qerr!("cannot place firmware tables: {e}");
        let mut rsdp = 0;
        if self.acpi {
            let blobs = acpi_blobs(m, self.layout, self.cpus.0, self.cpus.1);
            let files = [
                LoaderFile { name: acpi::TABLES_FILE.into(), data: blobs.tables },
                LoaderFile { name: acpi::RSDP_FILE.into(), data: blobs.rsdp },
            ];
            let placed = apply(&blobs.loader, &files, areas).map_err(fail)?;
            rsdp = placed.address(acpi::RSDP_FILE).unwrap_or(0);
            for f in &placed.placed {
                memory::write(m, f.gpa, &f.data)?;
            }
        }
        if let Some(s) = &self.smbios {
            for f in place_smbios(&smbios::build_with_bios(s), areas).map_err(fail)? {
                memory::write(m, f.gpa, &f.data)?;
            }
        }
        Ok(rsdp)
    }

    /// Puts the initrd at the top of what `limit` allows; returns address and length.
    fn load_initrd(&self, m: &Machine, kernel_end: u64, limit: u64) -> QResult<(u64, u64)> {
        let Some((file, len)) = &self.initrd else { return Ok((0, 0)) };
        let at =
            limit.checked_sub(*len).map(|a| a & !0xfff).filter(|a| *a >= kernel_end).ok_or_else(|| {
                qerr!(
                    "qemu: initrd is too large, cannot support.(max: {}, need {len})",
                    limit.saturating_sub(kernel_end)
                )
                .bare()
            })?;
        memory::load_file(m, at, file, 0, *len)?;
        Ok((at, *len))
    }

    fn linux(
        &mut self,
        m: &mut Machine,
        kind: ImageKind,
        rsdp: u64,
        map: &[E820Entry],
        top: u64,
    ) -> QResult<BootRegs> {
        let guest = memory::guest_memory(m, &self.layout)?;
        let loaded = self.image.load_linux(&guest)?;
        let limit = top.min(u64::from(self.image.initrd_max()) + 1);
        let initrd = self.load_initrd(m, loaded.end, limit)?;
        memory::write_cstring(m, place::CMDLINE, &self.cmdline)?;
        let vga = m.tree.by_class("VGA").is_some();
        let params = LinuxParams { cmdline: place::CMDLINE, initrd, rsdp, vga };
        let page =
            zero_page(self.image.setup(), &params, map).ok_or_else(|| qerr!("invalid kernel header"))?;
        memory::write(m, place::ZERO_PAGE, &page)?;
        let mut regs = BootRegs {
            rip: loaded.entry,
            rsp: place::STACK,
            rsi: place::ZERO_PAGE,
            gdt: (place::GDT, memory::GDT_LIMIT),
            ..BootRegs::default()
        };
        if kind == ImageKind::Linux64 {
            memory::identity_map(m, place::PAGE_TABLES)?;
            regs.rip += 0x200;
            regs.long_mode_cr3 = Some(place::PAGE_TABLES);
        }
        Ok(regs)
    }

    fn pvh(&mut self, m: &mut Machine, rsdp: u64, map: &[E820Entry], top: u64) -> QResult<BootRegs> {
        let guest = memory::guest_memory(m, &self.layout)?;
        let loaded = self.image.load_pvh(m, &guest)?;
        let module = self.load_initrd(m, loaded.end, top)?;
        memory::write_cstring(m, place::CMDLINE, &self.cmdline)?;
        let params = PvhParams { cmdline: place::CMDLINE, module, rsdp };
        memory::write(m, place::START_INFO, &pvh_start_info(&params, map, place::START_INFO))?;
        Ok(BootRegs {
            rip: loaded.entry,
            rbx: place::START_INFO,
            gdt: (place::GDT, memory::GDT_LIMIT),
            ..BootRegs::default()
        })
    }

    fn multiboot(&mut self, m: &mut Machine, map: &[E820Entry]) -> QResult<BootRegs> {
        let entry = multiboot::load(m, &mut self.image, &self.modules, &self.cmdline, map, place::MULTIBOOT)?;
        Ok(BootRegs {
            rip: entry,
            rax: multiboot::BOOT_MAGIC,
            rbx: place::MULTIBOOT,
            gdt: (place::GDT, memory::GDT_LIMIT),
            ..BootRegs::default()
        })
    }
}
