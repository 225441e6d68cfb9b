//! `virtio-mmio` (VIRTIO 1.2, section 4.2): one register block of 512 bytes and one interrupt line per device.
//!
//! The board makes transports ([`create`]); a device plugs into the transport's bus. With `force-legacy` (the default,
//! as in QEMU) it is the legacy interface, version 1. Interrupts that other threads raise go through the main loop:
//! a level-triggered line has no eventfd.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use rqemu_derive::Device as DeriveDevice;
use vmm_sys_util::eventfd::{EventFd, EFD_CLOEXEC, EFD_NONBLOCK};

use super::core::{self, Core, Transport};
use super::part::NewVirtio;
use super::queue::{Layout, MAX_SIZE};
use super::{status, Raise, Start, VirtioDevice, F_RING_RESET, F_VERSION_1};
use crate::device::{
    Attach, BusHost, BusId, BusKind, Cx, DevId, Device, EventFds, IoHandler, RealizeCx, TimerHandler,
};
use crate::irq::IrqLine;
use crate::machine::{mask, Machine};
use crate::memory::{IoSpec, RegionId, Space};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Bytes of a transport's register block.
pub const SIZE: u64 = 0x200;
const NOTIFY: u64 = 0x50;
const CONFIG: u64 = 0x100;

/// A transport that waits for a device.
#[derive(DeriveDevice, Debug)]
#[class(name = "virtio-mmio", parent = "sys-bus-device", bus = System, internal)]
pub struct VirtioMmioProps {
    /// Name the transport by its address in device paths
    #[prop(name = "format_transport_address", default = true)]
    pub format_transport_address: bool,
    /// Legacy interface only
    #[prop(default = true)]
    pub force_legacy: bool,
    /// Kicks through eventfds
    #[prop(default = true)]
    pub ioeventfd: bool,
}

impl DeviceClass for VirtioMmioProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let n = cx.m().tree.buses().filter(|b| b.type_name == "virtio-mmio-bus").count();
        let bus = cx.add_bus(format!("virtio-mmio-bus.{n}"), BusKind::Virtio);
        if let Some(b) = cx.m().tree.bus_mut(bus) {
            b.type_name = "virtio-mmio-bus";
            b.max_devices = Some(1);
        }
        let spec = IoSpec { valid: (1, 8), imp: (1, 8), unaligned: false };
        let region = cx.io_region("virtio-mmio", SIZE, 0, spec);
        cx.mmio(region);
        cx.gpio("sysbus-irq", false, 1);
        Ok(Box::new(VirtioMmio {
            core: Core::new(Box::new(NoDevice), 0),
            region,
            addr: 0,
            irq: IrqLine::default(),
            legacy: self.force_legacy,
            ioeventfd: self.ioeventfd,
            page_size: 0,
            align: 4096,
            kicks: Vec::new(),
        }))
    }
}

/// Makes a transport at `addr` with interrupt line `irq`.
///
/// # Errors
/// Bad global properties.
pub fn create(m: &mut Machine, addr: u64, irq: IrqLine) -> QResult<DevId> {
    let dev = m.add_board_device("virtio-mmio", Some(crate::device::DeviceTree::SYSTEM), &[])?;
    let region = m.with::<VirtioMmio, _>(dev, |d, _| {
        d.addr = addr;
        d.irq = irq;
        d.region
    });
    if let Some(r) = region {
        let system = m.mem.system;
        m.mem.map(system, r, addr, 0);
    }
    Ok(dev)
}

/// Stands in while no device is plugged: its id 0 tells drivers so.
struct NoDevice;

impl VirtioDevice for NoDevice {
    fn id(&self) -> u16 {
        0
    }
    fn features(&self, _modern: bool) -> u64 {
        0
    }
    fn queue_sizes(&self) -> Vec<u16> {
        Vec::new()
    }
    fn config_len(&self) -> usize {
        0
    }
    fn config(&self, _out: &mut [u8]) {}
    fn start(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, _start: &Start<'_>) {}
    fn stop(&mut self, _cx: &mut Cx<'_>) {}
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn kick(&mut self, _cx: &mut Cx<'_>, _raise: &mut Raise, _q: u16) {}
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

struct Kick {
    fd: Arc<EventFd>,
    listening: bool,
}

/// A transport at run time.
pub struct VirtioMmio {
    core: Core,
    region: RegionId,
    addr: u64,
    irq: IrqLine,
    legacy: bool,
    ioeventfd: bool,
    /// Legacy: unit of queue addresses.
    page_size: u32,
    /// Legacy: alignment of the used ring.
    align: u32,
    kicks: Vec<Kick>,
}

impl VirtioMmio {
    fn update_irq(&mut self, cx: &mut Cx<'_>) {
        let level = self.core.shared.isr.load(Ordering::Acquire) != 0;
        cx.set_irq(self.irq, level);
    }

    fn listen(&mut self, cx: &mut Cx<'_>, q: usize, on: bool) -> bool {
        let Some(k) = self.kicks.get_mut(q) else { return false };
        if k.listening != on {
            let fd = k.fd.as_raw_fd();
            let at = self.addr + NOTIFY;
            let ok = cx.m.accel.ioeventfd(on, Space::Memory, at, 4, Some(q as u64), fd);
            k.listening = on && ok;
            return ok;
        }
        true
    }

    fn release(&mut self, cx: &mut Cx<'_>) {
        for q in 0..self.kicks.len() {
            self.listen(cx, q, false);
        }
        self.kicks.clear();
    }

    fn read_register(&mut self, offset: u64) -> u32 {
        let c = &self.core;
        let q = c.queues.get(usize::from(c.queue_sel)).filter(|q| q.max != 0);
        match (offset, self.legacy) {
            (0x00, _) => 0x7472_6976,
            (0x04, legacy) => 2 - u32::from(legacy),
            (0x08, _) => c.dev.id().into(),
            (0x0c, _) => 0x554d_4551,
            (0x10, true) if c.device_feature_sel == 0 => c.host_features as u32,
            (0x10, false) => match c.device_feature_sel {
                0 => c.modern_features() as u32,
                1 => (c.modern_features() >> 32) as u32,
                _ => 0,
            },
            (0x34, _) => q.map_or(0, |_| MAX_SIZE.into()),
            (0x40, true) => q
                .filter(|q| q.live.is_some() && self.page_size != 0)
                .map_or(0, |q| (q.layout.desc / u64::from(self.page_size)) as u32),
            (0x44, false) => q.map_or(0, |q| u32::from(q.live.is_some())),
            (0x60, _) => c.shared.isr.load(Ordering::Acquire).into(),
            (0x70, _) => c.status.into(),
            (0xb0 | 0xb4 | 0xb8 | 0xbc, _) => u32::MAX,
            (0xfc, false) => c.generation.into(),
            _ => 0,
        }
    }

    fn write_register(&mut self, cx: &mut Cx<'_>, offset: u64, v: u32) {
        match (offset, self.legacy) {
            (0x14, _) => self.core.device_feature_sel = v,
            (0x20, legacy) => self.driver_features(legacy, v),
            (0x24, _) => self.core.driver_feature_sel = v,
            (0x28, true) => self.page_size = if v.is_power_of_two() { v } else { 0 },
            (0x30, _) if v < super::MAX_QUEUES as u32 => self.core.queue_sel = v as u16,
            (0x38, _) => self.core.set_queue_size(v.min(u32::from(u16::MAX)) as u16),
            (0x3c, true) if v.is_power_of_two() => self.align = v,
            (0x40, true) => self.legacy_queue(cx, v),
            (0x44, false) if v == 0 => core::reset_queue(self, cx),
            (0x44, false) => core::enable_queue(self, cx, false),
            (NOTIFY, _) if v < super::MAX_QUEUES as u32 => core::kick(self, cx, v as u16),
            (0x64, _) => {
                self.core.shared.isr.fetch_and(!(v as u8), Ordering::AcqRel);
                self.update_irq(cx);
            }
            (0x70, legacy) => self.set_status(cx, legacy, v as u8),
            (0x80 | 0x84 | 0x90 | 0x94 | 0xa0 | 0xa4, false) => self.ring_address(offset, v),
            _ => {}
        }
    }

    fn driver_features(&mut self, legacy: bool, v: u32) {
        let sel = self.core.driver_feature_sel;
        if legacy {
            if sel == 0 {
                self.core.set_features(v.into());
            }
        } else if sel < 2 {
            let keep = self.core.guest_features & !(0xffff_ffff << (32 * sel));
            let f = keep | u64::from(v) << (32 * sel);
            self.core.set_features(f & self.core.modern_features());
        }
    }

    fn set_status(&mut self, cx: &mut Cx<'_>, legacy: bool, v: u8) {
        let refuse = !legacy && !self.core.version_1();
        core::set_status(self, cx, if refuse { v & !status::FEATURES_OK } else { v });
    }

    fn legacy_queue(&mut self, cx: &mut Cx<'_>, pfn: u32) {
        if pfn == 0 {
            return core::reset(self, cx);
        }
        let base = u64::from(pfn) * u64::from(self.page_size);
        let align = self.align;
        let Some(q) = self.core.selected().filter(|q| q.max != 0) else { return };
        q.layout = Layout::legacy(base, q.layout.size, align);
        core::enable_queue(self, cx, true);
    }

    fn ring_address(&mut self, offset: u64, v: u32) {
        let Some(q) = self.core.selected().filter(|q| q.live.is_none()) else { return };
        let reg = match offset & 0xf0 {
            0x80 => &mut q.layout.desc,
            0x90 => &mut q.layout.avail,
            _ => &mut q.layout.used,
        };
        let shift = (offset & 4) * 8;
        *reg = *reg & !(0xffff_ffff << shift) | u64::from(v) << shift;
    }
}

impl IoHandler for VirtioMmio {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        if offset >= CONFIG {
            if self.core.dev.id() == 0 {
                return 0;
            }
            return self.core.read_config(offset - CONFIG, size);
        }
        // Registers are 32 bits wide and nothing else.
        if size != 4 {
            return 0;
        }
        u64::from(self.read_register(offset)) & mask(4)
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        if self.core.dev.id() == 0 {
            return;
        }
        if offset >= CONFIG {
            return core::write_config(self, cx, offset - CONFIG, size, value);
        }
        if size == 4 {
            self.write_register(cx, offset, value as u32);
        }
    }
}

impl Transport for VirtioMmio {
    fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    fn raise_queue(&mut self, cx: &mut Cx<'_>, _q: u16) {
        self.core.shared.isr.fetch_or(1, Ordering::AcqRel);
        self.update_irq(cx);
    }

    fn raise_config(&mut self, cx: &mut Cx<'_>) {
        self.core.shared.isr.fetch_or(3, Ordering::AcqRel);
        self.update_irq(cx);
    }

    fn starting(&mut self, cx: &mut Cx<'_>) -> Option<Vec<Arc<EventFd>>> {
        if !self.ioeventfd {
            return None;
        }
        while self.kicks.len() < self.core.queues.len() {
            let fd = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).ok()?);
            self.kicks.push(Kick { fd, listening: false });
        }
        for q in 0..self.core.queues.len() {
            if self.core.queues[q].live.is_some() && !self.listen(cx, q, true) {
                self.release(cx);
                return None;
            }
        }
        Some(self.kicks.iter().map(|k| k.fd.clone()).collect())
    }

    fn was_reset(&mut self, cx: &mut Cx<'_>) {
        self.page_size = 0;
        self.align = 4096;
        self.update_irq(cx);
    }
}

impl TimerHandler for VirtioMmio {
    fn expired(&mut self, cx: &mut Cx<'_>, id: u32) {
        core::timer(self, cx, id);
    }
}

impl EventFds for VirtioMmio {
    fn signalled(&mut self, cx: &mut Cx<'_>, _id: u32) {
        core::attend(self, cx);
    }
}

impl BusHost for VirtioMmio {
    fn attach(&mut self, _cx: &mut Cx<'_>, _bus: BusId, _child: DevId, what: Attach) -> QResult<()> {
        let new = what.downcast::<NewVirtio>().map_err(|_| qerr!("not a virtio device"))?;
        // Queues cannot be reset one by one over this transport's registers.
        let features = new.features & !(1 << F_RING_RESET) | u64::from(!self.legacy) << F_VERSION_1;
        self.core = Core::new(new.device, features);
        Ok(())
    }

    fn detach(&mut self, cx: &mut Cx<'_>, _bus: BusId, _child: DevId) {
        core::reset(self, cx);
        self.release(cx);
        self.core.unrealize(cx);
        self.core = Core::new(Box::new(NoDevice), 0);
    }
}

impl Device for VirtioMmio {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        core::reset(self, cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn event_fds(&mut self) -> Option<&mut dyn EventFds> {
        Some(self)
    }
    fn bus_host(&mut self) -> Option<&mut dyn BusHost> {
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
        self.release(cx);
        self.core.unrealize(cx);
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

core::net_frontend!(VirtioMmio);
