//! PIIX4 power management function (82371AB, datasheet 290562, chapter 7): ACPI registers, APM ports, SMBus, and
//! QEMU's hot-plug registers beside them.
//!
//! Left out: device monitors. With `smm-enabled=off` there are no system management interrupts, and firmware does not
//! wait for one. Tests: beside, and against a real QEMU (`chipset::tests`).

mod io;
#[cfg(test)]
mod tests;

use rqemu_derive::Device;

use super::acpi::{cpuhp, event, pcihp, AcpiRegs, CpuHotplug, Gpe, PciHotplug, Pm1};
use super::fw_cfg::FwCfg;
use super::smbus::{self, SmbusHost};
use crate::device::{
    BusId, BusKind, Cx, DevId, Device, HotplugHandler, IoHandler, PciFunction, RealizeCx, TimerHandler,
};
use crate::irq::{IrqLine, IrqSink};
use crate::machine::Machine;
use crate::memory::{IoSpec, RegionId, RegionKind, Space};
use crate::pci::{reg, PciIds, PciProps, PciState};
use crate::qom::{DeviceClass, PropInput};
use crate::{qerr, QResult};

const PMBASE: usize = 0x40;
/// Presence bits of legacy ports, filled in when the machine is complete.
const PARALLEL: usize = 0x5f;
const SERIAL: usize = 0x67;
const DEVACTB_HIGH: usize = 0x5b;
/// The APM control port raises system management interrupts; firmware takes it as "SMM is set up".
const APMC_EN: u8 = 0x02;
const PMREGMISC: usize = 0x80;
const SMBBA: usize = 0x90;
const SMBHSTCFG: usize = 0xd2;

const GPE_BASE: u16 = 0xafe0;
const PCIHP_BASE: u16 = 0xae00;
const CPUHP_BASE: u16 = 0xaf00;
/// Interrupt of power management events.
const SCI_IRQ: u32 = 9;

/// Power management function.
#[derive(Device)]
#[class(name = "PIIX4_PM", parent = "pci-device", bus = Pci, category = Bridge, desc = "PM", internal)]
pub struct Piix4PmProps {
    /// First port of the SMBus controller
    #[prop(name = "smb_io_base")]
    pub smb_io_base: u32,
    /// No suspend to RAM
    #[prop(name = "disable_s3")]
    pub disable_s3: u8,
    /// No suspend to disk
    #[prop(name = "disable_s4")]
    pub disable_s4: u8,
    /// Sleep type that means suspend to disk
    #[prop(name = "s4_val", default = 2u8)]
    pub s4_val: u8,
    /// Hot plug by ACPI also behind bridges
    #[prop(default = true)]
    pub acpi_pci_hotplug_with_bridge_support: bool,
    /// Hot plug by ACPI on the root bus
    #[prop(default = true)]
    pub acpi_root_pci_hotplug: bool,
    /// Hot plug of memory
    #[prop(default = true)]
    pub memory_hotplug_support: bool,
    /// Behaviour of machines before SMM emulation
    #[prop]
    pub smm_compat: bool,
    /// Firmware may set up system management mode
    #[prop]
    pub smm_enabled: bool,
    /// Do not save the acpi-index register
    #[prop]
    pub x_not_migrate_acpi_index: bool,
    /// PCI properties
    #[base]
    pub pci: PciProps,
}

/// Regions, as tags of their accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Event,
    Control,
    Timer,
    Apm,
    Gpe,
    PciHp,
    CpuHp,
    Smbus,
}

impl Tag {
    const ALL: [Self; 8] = [
        Self::Event,
        Self::Control,
        Self::Timer,
        Self::Apm,
        Self::Gpe,
        Self::PciHp,
        Self::CpuHp,
        Self::Smbus,
    ];
}

impl Piix4PmProps {
    fn config(&self) -> PciState {
        let mut pci = PciState::new(PciIds {
            vendor: 0x8086,
            device: 0x7113,
            revision: 3,
            class: 0x0680,
            ..PciIds::default()
        });
        pci.set_word(reg::STATUS, 0x0280);
        pci.set_interrupt_pin(1);
        let smb = (self.smb_io_base as u16) | 1;
        pci.set_word(SMBBA, smb);
        for (at, v) in [(PMBASE, 1), (PARALLEL, 0x10), (0x63, 0x60), (SMBHSTCFG, 9)] {
            pci.config_mut()[at] = v;
        }
        if !self.smm_enabled {
            pci.config_mut()[DEVACTB_HIGH] = APMC_EN;
        }
        pci
    }

    /// The window at `PMBASE` with the ACPI registers.
    fn pm_window(cx: &mut RealizeCx<'_>) -> RegionId {
        let dev = cx.id();
        let pm = cx.m().mem.add("piix4-pm", 64, RegionKind::Container, Some(dev));
        let parts = [
            ("acpi-evt", 4, Tag::Event, 0, (2, 2)),
            ("acpi-cnt", 2, Tag::Control, 4, (2, 2)),
            ("acpi-tmr", 4, Tag::Timer, 8, (4, 4)),
        ];
        for (name, len, tag, at, imp) in parts {
            let r = cx.io_region(name, len, tag as u32, IoSpec { valid: (1, 4), imp, unaligned: false });
            cx.m().mem.map(pm, r, at, 0);
        }
        cx.m().mem.set_enabled(pm, false);
        cx.map(Space::Io, pm, 0, 0);
        pm
    }
}

impl DeviceClass for Piix4PmProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci = self.config();
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        cx.gpio("smi-irq", false, 1);
        cx.gpio("", false, 1);
        cx.map_ports("apm-io", 0xb2, 2, Tag::Apm as u32, IoSpec::BYTES);
        let smb = cx.map_ports("pm-smbus", 0, smbus::LEN, Tag::Smbus as u32, IoSpec::BYTES);
        let pm = Self::pm_window(cx);
        cx.map_ports("acpi-gpe0", GPE_BASE, 4, Tag::Gpe as u32, IoSpec::BYTES);
        let mut pcihp = None;
        if self.acpi_pci_hotplug_with_bridge_support || self.acpi_root_pci_hotplug {
            let dwords = IoSpec { valid: (4, 4), imp: (4, 4), unaligned: false };
            cx.map_ports("acpi-pci-hotplug", PCIHP_BASE, pcihp::LEN, Tag::PciHp as u32, dwords);
            let mut hp = PciHotplug::new(!self.acpi_pci_hotplug_with_bridge_support);
            if let Some(bus) = cx.parent_bus().filter(|_| self.acpi_root_pci_hotplug) {
                hp.add_bus(bus);
            }
            pcihp = Some(hp);
        }
        let cpus =
            cx.map_ports("acpi-cpu-hotplug", CPUHP_BASE, cpuhp::LEGACY_LEN, Tag::CpuHp as u32, IoSpec::BYTES);
        let i2c = cx.add_bus("i2c".into(), BusKind::I2c);
        let sci = cx.isa_irq(SCI_IRQ);
        let smi = cx.irq_line(if self.smm_enabled { IrqSink::Smi } else { IrqSink::None });
        let mut dev = Piix4Pm {
            smi,
            pci,
            acpi: AcpiRegs { pm1: Pm1::new(self.s4_val), gpe: Gpe::new(4), sci, timer: 0 },
            apm: [0; 2],
            smbus: SmbusHost::default(),
            pcihp,
            bridges: self.acpi_pci_hotplug_with_bridge_support,
            cpuhp: CpuHotplug::default(),
            regions: Regions { pm, smb, cpus },
            i2c,
        };
        dev.map_windows(cx.m());
        Ok(Box::new(dev))
    }
}

/// Regions that move or change.
struct Regions {
    pm: RegionId,
    smb: RegionId,
    cpus: RegionId,
}

/// The function at run time.
pub struct Piix4Pm {
    smi: IrqLine,
    pci: PciState,
    acpi: AcpiRegs,
    /// APM control and status.
    apm: [u8; 2],
    smbus: SmbusHost,
    pcihp: Option<PciHotplug>,
    /// Hotplug also behind bridges.
    bridges: bool,
    cpuhp: CpuHotplug,
    regions: Regions,
    i2c: BusId,
}

impl Piix4Pm {
    /// Bus `i2c`.
    pub fn i2c_bus(&self) -> BusId {
        self.i2c
    }

    /// CPU hot-plug registers; the board tells them which processors are possible.
    pub fn cpu_hotplug(&mut self) -> &mut CpuHotplug {
        &mut self.cpuhp
    }

    /// First port of the ACPI registers and whether they are switched on.
    pub fn pm_base(&self) -> (u16, bool) {
        (self.pci.word(PMBASE) & 0xffc0, self.pci.config()[PMREGMISC] & 1 != 0)
    }

    /// A processor was plugged while the machine runs.
    pub fn cpu_plugged(&mut self, cx: &mut Cx<'_>, arch_id: u64, dev: DevId) {
        if self.cpuhp.plugged(arch_id, dev, true) {
            self.acpi.raise(cx, event::CPU);
        }
    }

    /// Asks the guest to release a processor.
    pub fn cpu_unplug_request(&mut self, cx: &mut Cx<'_>, dev: DevId) {
        if self.cpuhp.unplug_request(dev) {
            self.acpi.raise(cx, event::CPU);
        }
    }

    /// Moves the windows to where the configuration registers say.
    fn map_windows(&mut self, m: &mut Machine) {
        let (base, on) = self.pm_base();
        m.mem.set_addr(self.regions.pm, u64::from(base));
        m.mem.set_enabled(self.regions.pm, on);
        m.mem.set_addr(self.regions.smb, u64::from(self.pci.word(SMBBA) & 0xffc0));
        m.mem.set_enabled(self.regions.smb, self.pci.config()[SMBHSTCFG] & 1 != 0);
    }

    /// Notes which legacy ports exist; the values survive resets.
    fn note_ports(&mut self, m: &Machine) {
        let has = |port| m.flat().io.find(port).is_some();
        let bits = [(PARALLEL, 0x378, 0x80), (SERIAL, 0x3f8, 0x08), (SERIAL, 0x2f8, 0x90)];
        for (at, port, bit) in bits {
            if has(port) {
                self.pci.config_mut()[at] |= bit;
            }
        }
        self.pci.seal();
    }
}

impl Device for Piix4Pm {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.apm = [0; 2];
        self.acpi.reset(cx);
        self.map_windows(cx.m);
        self.cpuhp.reset();
        let gone = self.pcihp.as_mut().map(|p| p.reset(cx.m)).unwrap_or_default();
        for dev in gone {
            cx.unplug(dev);
        }
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        Some(self)
    }
    fn hotplug(&mut self) -> Option<&mut dyn HotplugHandler> {
        Some(self)
    }
    fn power_button(&mut self, cx: &mut Cx<'_>) {
        self.acpi.power_button(cx);
    }
    fn woken(&mut self, cx: &mut Cx<'_>) {
        self.acpi.pm1.woken();
        self.acpi.update_sci(cx);
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl PciFunction for Piix4Pm {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, len: u8) {
        let (from, to) = (usize::from(addr), usize::from(addr) + usize::from(len));
        let touches = |at: usize, n: usize| from < at + n && to > at;
        if touches(PMBASE, 4) || touches(PMREGMISC, 1) || touches(SMBBA, 4) || touches(SMBHSTCFG, 1) {
            self.map_windows(cx.m);
        }
    }
}

impl TimerHandler for Piix4Pm {
    fn expired(&mut self, cx: &mut Cx<'_>, _id: u32) {
        self.acpi.update_sci(cx);
    }
}

impl HotplugHandler for Piix4Pm {
    fn plugged(&mut self, cx: &mut Cx<'_>, dev: DevId) {
        if self.pcihp.as_mut().is_some_and(|p| p.plugged(cx.m, dev)) {
            self.acpi.raise(cx, event::PCI);
        }
    }
    fn unplug_request(&mut self, cx: &mut Cx<'_>, dev: DevId) -> QResult<()> {
        let hp = self.pcihp.as_mut().ok_or_else(|| qerr!("hot plug is switched off"))?;
        hp.unplug_request(cx.m, dev)?;
        self.acpi.raise(cx, event::PCI);
        Ok(())
    }
}

/// Puts the function at 01.3 of the root bus `bus` with its EEPROMs, makes it the hot-plug controller of the bus and
/// the device behind the power button, and adds `etc/system-states` to `fw_cfg`.
///
/// # Errors
/// Those of device creation.
pub fn create(m: &mut Machine, bus: BusId, fw_cfg: Option<DevId>, smm: bool) -> QResult<DevId> {
    let onoff = if smm { "on" } else { "off" };
    let props = [
        ("addr", PropInput::Str("1.3")),
        ("smb_io_base", PropInput::Str("0xb100")),
        ("smm-enabled", PropInput::Str(onoff)),
    ];
    let dev = m.add_board_device("PIIX4_PM", Some(bus), &props)?;
    let (i2c, hotplug) = m
        .with::<Piix4Pm, _>(dev, |d, _| (d.i2c, d.pcihp.as_ref().is_some_and(|p| p.number_of(bus).is_some())))
        .ok_or_else(|| qerr!("no power management function"))?;
    for i in 0..8u8 {
        let address = (0x50 + i).to_string();
        m.add_board_device("smbus-eeprom", Some(i2c), &[("address", PropInput::Str(&address))])?;
    }
    if let Some(b) = m.tree.bus_mut(bus).filter(|_| hotplug) {
        b.hotpluggable = true;
        b.hotplug_handler = Some(dev);
    }
    m.power_device = Some(dev);
    if let Some(f) = fw_cfg {
        add_system_states(m, dev, f)?;
    }
    Ok(dev)
}

/// Which sleep states firmware may offer, one byte each for S0-S5: bit 7 "supported", low bits the sleep type.
fn add_system_states(m: &mut Machine, dev: DevId, fw_cfg: DevId) -> QResult<()> {
    let prop = |name| {
        let v = m.tree.get(dev).and_then(|n| n.props.get_prop(name)).and_then(|p| p.value.as_u64());
        v.unwrap_or(0) as u8
    };
    let able = |disabled: u8| if disabled == 0 { 0x80 } else { 0 };
    let s3 = 1 | able(prop("disable_s3"));
    let s4 = prop("s4_val") | able(prop("disable_s4"));
    let states = vec![0x80, 0, 0, s3, s4, 0x80];
    m.with::<FwCfg, _>(fw_cfg, |f, _| f.add_file("etc/system-states", states)).unwrap_or(Ok(()))
}

/// Tells the function that the machine is complete (before the first reset): it notes which legacy ports exist.
pub fn machine_ready(m: &mut Machine, dev: DevId) {
    m.settle();
    m.with::<Piix4Pm, _>(dev, |d, cx| {
        d.note_ports(cx.m);
        if let Some(hp) = d.pcihp.as_mut().filter(|_| d.bridges) {
            hp.add_bridges(cx.m);
        }
    });
}
