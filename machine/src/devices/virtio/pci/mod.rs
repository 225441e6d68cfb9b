//! `virtio-pci` (VIRTIO 1.2, section 4.1): transitional and modern devices on PCI.
//!
//! BAR 0 is the legacy register block (I/O ports), BAR 1 the MSI-X table, BAR 2 the optional port for notifications,
//! BAR 4 the modern register blocks: common (0), interrupt status (0x1000), device (0x2000), notifications (0x3000).
//! Layout, capability order and reset values are those that QEMU 7.2 shows; the tests hold them.

mod irq;
pub mod props;
mod regs;

pub use props::{Mode, OwnProps, PciClass, PciDeviceProps};

use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use super::core::{self, Core, Transport};
use super::part::BackendPart;
use super::{BuildEnv, F_BAD_FEATURE, F_RING_RESET, F_VERSION_1, MAX_QUEUES};
use crate::device::{BusKind, Cx, Device, EventFds, IoHandler, PciFunction, RealizeCx, TimerHandler};
use crate::memory::{IoSpec, Owner, RegionKind, Space};
use crate::pci::{BarKind, Msix, PciIds, PciState};
use crate::qom::{DeviceClass, OnOffAuto, PropInput};
use crate::{qerr, QResult};

/// Region tags.
const LEGACY: u32 = 0;
const PIO_NOTIFY: u32 = 1;
/// The modern blocks: this and their page in the BAR.
const MODERN: u32 = 2;

const MODERN_BAR: usize = 4;
const MSIX_BAR: usize = 1;
const PIO_BAR: usize = 2;
/// Offset of the notification area in the modern BAR.
const NOTIFY_AT: u64 = 0x3000;
const VENDOR_CAP: u8 = 9;

/// Structure types in vendor capabilities.
mod cfg_type {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const ISR: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const PCI: u8 = 5;
}

impl<D: PciClass, const MODE: u8> PciDeviceProps<D, MODE> {
    /// Whether the legacy and the modern interface are offered.
    fn interfaces(&mut self, cx: &mut RealizeCx<'_>) -> QResult<(bool, bool)> {
        match self.mode() {
            Mode::Transitional => Ok((true, true)),
            Mode::NonTransitional => Ok((false, true)),
            Mode::Generic => {
                // Behind a PCI Express port there is no room for I/O ports.
                let express_port = cx.parent_bus().is_some_and(|b| {
                    let m = cx.m();
                    m.pci.get(b).is_some_and(|p| p.bridge.is_some())
                        && m.tree.bus(b).is_some_and(|b| b.type_name == "PCIE")
                });
                let legacy = !self.generic.disable_legacy.or(express_port);
                let modern = !self.generic.disable_modern;
                if !legacy && !modern {
                    return Err(qerr!("device cannot work as neither modern nor legacy mode is enabled")
                        .with_hint("Set either disable-modern or disable-legacy to off"));
                }
                self.generic.disable_legacy = if legacy { OnOffAuto::Off } else { OnOffAuto::On };
                Ok((legacy, modern))
            }
        }
    }

    /// Values that `-global` gives to the device behind the transport, unless the user set them.
    fn apply_globals(&mut self, cx: &mut RealizeCx<'_>) -> QResult<()> {
        let class = D::class_info();
        for g in cx.m().globals.clone() {
            if crate::qom::is_a(class, &g.driver) && !self.set.contains(&g.property) {
                self.device.set_prop(class.name, &g.property, &PropInput::Str(&g.value))?;
            }
        }
        Ok(())
    }

    fn ids(&self, id: u16, legacy: bool) -> PciIds {
        PciIds {
            vendor: 0x1af4,
            device: if legacy { D::LEGACY_ID } else { 0x1040 + id },
            revision: u8::from(!legacy),
            class: match self.own.class() {
                0 => D::PCI_CLASS,
                c => c as u16,
            },
            prog_if: 0,
            subsystem: legacy.then_some((0x1af4, id)),
        }
    }
}

impl<D: PciClass, const MODE: u8> DeviceClass for PciDeviceProps<D, MODE>
where
    D: DeviceClass,
{
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let (legacy, modern) = self.interfaces(cx)?;
        self.apply_globals(cx)?;
        let dev = cx.id();
        let who = format!("{}/virtio-backend", cx.m().tree.path(dev));
        let cpus = cx.m().info.topology.as_ref().map_or(1, |t| t.cpus);
        let device = self.device.build(cx, &BuildEnv { who, cpus })?;
        let mut features = self.device.common().features()?;
        features &= !(u64::from(!modern) << F_RING_RESET);
        features |= u64::from(modern) << F_VERSION_1 | u64::from(legacy) << F_BAD_FEATURE;
        if !legacy && !modern {
            return Err(qerr!("device has no interface"));
        }
        let block = D::class_info().category == crate::qom::Category::Storage;
        let core = Core::new(device, features);
        let ids = self.ids(core.dev.id(), legacy);
        self.own.resolve_class(ids.class);
        let child_bus = core.dev.child_bus();
        let mut pci = PciState::new(ids);
        pci.set_interrupt_pin(1);
        let mut d = VirtioPciDevice {
            core,
            pci: PciState::new(PciIds::default()),
            irq: irq::Irqs::default(),
            multiplier: if self.base.page_per_vq { 4096 } else { 4 },
            pio_notify: modern && self.base.modern_pio_notify,
            cfg_cap: 0,
            ioeventfd: self.own.ioeventfd(),
            msix_was: false,
        };
        if modern {
            let class = D::class_info().name;
            d.add_modern(cx, &mut pci, class.strip_suffix("-device").unwrap_or(class));
        }
        let queues = d.core.queues.len();
        if let Some(v) = self.own.vectors() {
            if *v == u32::MAX {
                *v = D::default_vectors(queues);
            }
            add_msix(cx, &mut pci, *v)?;
        }
        if legacy {
            let size = if pci.msix.is_some() { 24 } else { 20 } + d.core.dev.config_len() as u64;
            let size = size.next_power_of_two();
            let r = cx.io_region("virtio-pci", size, LEGACY, IoSpec::ANY);
            pci.add_bar(0, r, size, BarKind::Io);
        }
        // A card boots without its network ROM where that is not installed.
        let rom = if cx.m().find_firmware(D::ROM).is_some() { D::ROM } else { "" };
        crate::pci::load_rom(cx, &mut pci, &mut self.base.pci, D::ROM_MEMORY, rom)?;
        cx.pci_attach(&mut pci, self.base.pci.addr.0, self.base.pci.multifunction)?;
        self.base.pci.addr.0 = i32::from(pci.devfn);
        d.pci = pci;
        let bus = cx.add_bus("virtio-bus".into(), BusKind::Virtio);
        if let Some(b) = cx.m().tree.bus_mut(bus) {
            b.type_name = "virtio-pci-bus";
            b.max_devices = Some(1);
        }
        let part = Box::new(BackendPart::new(dev, block, &mut *d.core.dev));
        let props = Box::new(self.device.clone());
        let part = cx.add_part("virtio-backend", D::class_info(), props, Some(bus), part);
        if let Some(b) = child_bus {
            super::part::add_child_bus(cx.m(), part, dev, &b);
        }
        Ok(Box::new(d))
    }
}

/// Adds MSI-X with `n` vectors in its own BAR (none for 0, or if there are more than MSI-X can have).
fn add_msix(cx: &mut RealizeCx<'_>, pci: &mut PciState, n: u32) -> QResult<()> {
    if n == 0 {
        return Ok(());
    }
    if n > 2048 {
        eprintln!("rqemu-system-x86_64: warning: unable to init msix vectors to {n}");
        return Ok(());
    }
    // Table in the first half, pending bits in the second.
    let half = (u64::from(n) * 16).next_power_of_two().max(2048);
    let pba_len = u64::from(n.div_ceil(64) * 8);
    let dev = cx.id();
    let spec = IoSpec { valid: (1, 8), imp: (4, 8), unaligned: false };
    let m = cx.m();
    let name = format!("{}-msix", m.tree.get(dev).map_or("", |n| n.class.name));
    let bar = m.mem.add(name, u128::from(half * 2), RegionKind::Container, Some(dev));
    let kind = |owner| RegionKind::Io { owner, spec };
    let table = m.mem.add("msix-table", u128::from(n) * 16, kind(Owner::MsixTable(dev)), Some(dev));
    let pba = m.mem.add("msix-pba", u128::from(pba_len), kind(Owner::MsixPba(dev)), Some(dev));
    m.mem.map(bar, table, 0, 0);
    m.mem.map(bar, pba, half, 0);
    let at = MSIX_BAR as u8;
    Msix::add(pci, n as u16, (at, 0), (at, half as u32), 0);
    pci.add_bar(MSIX_BAR, bar, half * 2, BarKind::Mem32);
    Ok(())
}

/// A virtio device on PCI.
pub struct VirtioPciDevice {
    core: Core,
    pci: PciState,
    irq: irq::Irqs,
    /// Distance of the notification addresses of two queues.
    multiplier: u32,
    pio_notify: bool,
    /// Offset of the capability through which configuration space reaches the modern BAR.
    cfg_cap: usize,
    ioeventfd: bool,
    msix_was: bool,
}

impl VirtioPciDevice {
    /// Adds the modern blocks of the device that is called `name`.
    fn add_modern(&mut self, cx: &mut RealizeCx<'_>, pci: &mut PciState, name: &str) {
        let notify_len = u64::from(self.multiplier) * MAX_QUEUES as u64;
        let size = (NOTIFY_AT + notify_len).next_power_of_two();
        let dev = cx.id();
        let bar = cx.m().mem.add("virtio-pci", u128::from(size), RegionKind::Container, Some(dev));
        let blocks = [("common", 0x1000), ("isr", 0x1000), ("device", 0x1000), ("notify", notify_len)];
        for (page, (block, len)) in (0..).zip(blocks) {
            let r = cx.io_region(format!("virtio-pci-{block}-{name}"), len, MODERN + page, IoSpec::ANY);
            cx.m().mem.map(bar, r, u64::from(page) << 12, 0);
        }
        let pio = cx.io_region(format!("virtio-pci-notify-pio-{name}"), 4, PIO_NOTIFY, IoSpec::ANY);
        let at = MODERN_BAR as u8;
        add_cap(pci, cfg_type::COMMON, at, 0, 0x1000, 16);
        add_cap(pci, cfg_type::ISR, at, 0x1000, 0x1000, 16);
        add_cap(pci, cfg_type::DEVICE, at, 0x2000, 0x1000, 16);
        let c = add_cap(pci, cfg_type::NOTIFY, at, NOTIFY_AT as u32, notify_len as u32, 20);
        pci.set_dword(c + 16, self.multiplier);
        if self.pio_notify {
            let c = add_cap(pci, cfg_type::NOTIFY, PIO_BAR as u8, 0, 4, 20);
            pci.set_dword(c + 16, 0);
            pci.add_bar(PIO_BAR, pio, 4, BarKind::Io);
        }
        self.cfg_cap = add_cap(pci, cfg_type::PCI, 0, 0, 0, 20);
        // BAR, offset, length and data are the driver's.
        let w = pci.wmask_mut();
        w[self.cfg_cap + 4] = 0xff;
        w[self.cfg_cap + 8..self.cfg_cap + 20].fill(0xff);
        pci.add_bar(MODERN_BAR, bar, size, BarKind::Mem64Prefetch);
    }

    /// Length of the notification area.
    fn notify_len(&self) -> u64 {
        u64::from(self.multiplier) * MAX_QUEUES as u64
    }
}

/// Adds a vendor capability that describes a register block.
fn add_cap(pci: &mut PciState, kind: u8, bar: u8, offset: u32, len: u32, size: u8) -> usize {
    let c = pci.add_capability(VENDOR_CAP, 0, size);
    let cfg = pci.config_mut();
    cfg[c + 2] = size;
    cfg[c + 3] = kind;
    cfg[c + 4] = bar;
    pci.set_dword(c + 8, offset);
    pci.set_dword(c + 12, len);
    c
}

impl Device for VirtioPciDevice {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        core::reset(self, cx);
        self.msix_was = false;
        self.irq.release_kicks(cx);
        self.irq.release_calls(cx, &mut self.pci, &self.core.shared);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn event_fds(&mut self) -> Option<&mut dyn EventFds> {
        Some(self)
    }
    fn timers(&mut self) -> Option<&mut dyn TimerHandler> {
        Some(self)
    }
    fn net(&mut self) -> Option<&mut dyn crate::net::NetFrontend> {
        if self.core.dev.net().is_some() {
            Some(self)
        } else {
            None
        }
    }
    fn run_state_changed(&mut self, cx: &mut Cx<'_>, running: bool) {
        core::run_state_changed(self, cx, running);
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        core::reset(self, cx);
        self.irq.release_kicks(cx);
        self.irq.release_calls(cx, &mut self.pci, &self.core.shared);
        self.core.unrealize(cx);
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl TimerHandler for VirtioPciDevice {
    fn expired(&mut self, cx: &mut Cx<'_>, id: u32) {
        core::timer(self, cx, id);
    }
}

impl EventFds for VirtioPciDevice {
    fn signalled(&mut self, cx: &mut Cx<'_>, _id: u32) {
        core::attend(self, cx);
    }
}

impl Transport for VirtioPciDevice {
    fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    fn raise_queue(&mut self, cx: &mut Cx<'_>, q: u16) {
        let vector = self.core.queues.get(usize::from(q)).map_or(super::NO_VECTOR, |q| q.vector);
        self.raise(cx, 1, vector);
    }

    fn raise_config(&mut self, cx: &mut Cx<'_>) {
        self.raise(cx, 3, self.core.config_vector);
    }

    fn starting(&mut self, cx: &mut Cx<'_>) -> Option<Vec<Arc<EventFd>>> {
        if !self.ioeventfd {
            return None;
        }
        let kicks = self.bind_kicks(cx)?;
        self.bind_calls(cx);
        Some(kicks)
    }

    fn was_reset(&mut self, cx: &mut Cx<'_>) {
        self.pci.set_intx(cx, false);
        self.irq.release_calls(cx, &mut self.pci, &self.core.shared);
    }
}

impl PciFunction for VirtioPciDevice {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }

    fn config_written(&mut self, cx: &mut Cx<'_>, addr: u16, len: u8) {
        let touches = |from: usize, n: usize| {
            usize::from(addr) < from + n && usize::from(addr) + usize::from(len) > from
        };
        if touches(crate::pci::reg::COMMAND, 2) && !self.pci.bus_master() && self.core.running {
            // Without bus mastering it cannot reach its queues.
            core::stop(self, cx);
            self.core.status &= !super::status::DRIVER_OK;
        }
        if touches(crate::pci::reg::COMMAND, 2) || touches(crate::pci::reg::BAR0, 24) {
            self.rebind_kicks(cx);
        }
        let msix = self.pci.msix_enabled();
        if msix != self.msix_was {
            self.msix_was = msix;
            if self.core.running {
                self.bind_calls(cx);
            }
        }
        if self.cfg_cap != 0 && touches(self.cfg_cap + 16, 4) {
            self.cfg_window(cx, true);
        }
    }

    fn config_reading(&mut self, cx: &mut Cx<'_>, addr: u16) {
        if self.cfg_cap != 0 && (self.cfg_cap + 16..self.cfg_cap + 20).contains(&usize::from(addr)) {
            self.cfg_window(cx, false);
        }
    }
}

/// Which spaces kicks arrive in, for the accelerator.
fn notify_space(legacy: bool) -> Space {
    if legacy {
        Space::Io
    } else {
        Space::Memory
    }
}

core::net_frontend!(VirtioPciDevice);
