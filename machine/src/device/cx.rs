//! The context through which a device reaches the world.

use std::borrow::Cow;

use super::{BusId, BusKind, DevId, Device, Place};
use crate::chardev::{CharId, ConnectError, FrontendRef};
use crate::clock::ClockKind;
use crate::irq::{IrqLine, IrqSink};
use crate::machine::{Cause, Effect, Machine};
use crate::memory::{IoSpec, MemError, Owner, RegionId, RegionKind, Space};
use crate::qom::{ChardevRef, ClassInfo, DeviceClass};
use crate::{qerr, QResult};

/// Handed to every device call: the machine around the device that runs.
pub struct Cx<'a> {
    /// The machine. The running device is out of its slot.
    pub m: &'a mut Machine,
    /// The device that runs.
    pub dev: DevId,
}

impl Cx<'_> {
    /// Sets an interrupt line.
    pub fn set_irq(&mut self, line: IrqLine, level: bool) {
        self.m.set_irq(line, level);
    }

    /// Raises and lowers a line.
    pub fn pulse_irq(&mut self, line: IrqLine) {
        self.m.set_irq(line, true);
        self.m.set_irq(line, false);
    }

    /// Reads guest memory.
    pub fn dma_read(&self, addr: u64, buf: &mut [u8]) -> Result<(), MemError> {
        self.m.flat().mem.read(addr, buf)
    }

    /// Writes guest memory.
    pub fn dma_write(&self, addr: u64, buf: &[u8]) -> Result<(), MemError> {
        self.m.flat().mem.write(addr, buf)
    }

    /// Virtual time in nanoseconds.
    pub fn now(&self) -> i64 {
        self.m.clock.virtual_ns()
    }

    /// Arms timer `id` of this device for the virtual time `at` (`None` disarms it).
    pub fn timer_set(&mut self, id: u32, at: Option<i64>) {
        self.timer_set_on(ClockKind::Virtual, id, at);
    }

    /// Arms timer `id` on a given clock.
    pub fn timer_set_on(&mut self, kind: ClockKind, id: u32, at: Option<i64>) {
        let key = (self.dev, id);
        if self.m.timers.set(key, at.map(|ns| (kind, ns))) {
            self.m.wake_loop();
        }
    }

    /// Asks for a reset of the whole machine.
    pub fn request_reset(&mut self, cause: Cause) {
        self.m.request_reset(cause);
    }

    /// Asks for the machine to be switched off.
    pub fn request_shutdown(&mut self, cause: Cause) {
        self.m.request_shutdown(cause);
    }

    /// Emits a QMP event.
    pub fn event(&mut self, name: &'static str, data: Option<serde_json::Value>) {
        self.m.emit(name, data);
    }

    /// Writes to a character device; returns how much it took.
    pub fn chr_write(&mut self, chr: CharId, data: &[u8]) -> usize {
        self.m.chr_write(chr, data)
    }

    /// Tells a character device that this front end can take input again.
    pub fn chr_accept_input(&mut self, chr: CharId) {
        self.m.chr_accept_input(chr);
    }

    /// Calls another device; `None` if it does not exist or is running already.
    pub fn call<R>(&mut self, dev: DevId, f: impl FnOnce(&mut dyn Device, &mut Cx<'_>) -> R) -> Option<R> {
        self.m.with_dev(dev, f)
    }

    /// Removes a device after the current handler returned (hot-plug controllers).
    pub fn unplug(&mut self, dev: DevId) {
        self.m.push_effect(Effect::Unplug(dev));
    }
}

/// The context of `realize`: a [`Cx`] that can also claim resources.
pub struct RealizeCx<'a> {
    /// The plain context.
    pub cx: Cx<'a>,
}

impl RealizeCx<'_> {
    /// The machine.
    pub fn m(&mut self) -> &mut Machine {
        self.cx.m
    }

    /// The device being realized.
    pub fn id(&self) -> DevId {
        self.cx.dev
    }

    /// The bus it sits on.
    pub fn parent_bus(&self) -> Option<BusId> {
        self.cx.m.tree.get(self.cx.dev)?.parent_bus
    }

    /// The device that provides the bus it sits on.
    pub fn parent_dev(&self) -> Option<DevId> {
        self.cx.m.tree.bus(self.parent_bus()?)?.owner
    }

    /// Makes an I/O region that this device handles; it is not mapped yet.
    pub fn io_region(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        size: u64,
        tag: u32,
        spec: IoSpec,
    ) -> RegionId {
        let dev = self.cx.dev;
        let kind = RegionKind::Io { owner: Owner::Device(dev, tag), spec };
        self.cx.m.mem.add(name, u128::from(size), kind, Some(dev))
    }

    /// Makes and maps a range of I/O ports.
    pub fn map_ports(&mut self, name: &'static str, base: u16, len: u32, tag: u32, spec: IoSpec) -> RegionId {
        let r = self.io_region(name, u64::from(len), tag, spec);
        let io = self.cx.m.mem.io;
        self.cx.m.mem.map(io, r, u64::from(base), 0);
        r
    }

    /// Like [`Self::map_ports`] for ports that are the board's, though this device answers: the object tree shows them
    /// there, and they stay when the device goes.
    pub fn map_board_ports(
        &mut self,
        name: &'static str,
        base: u16,
        len: u32,
        tag: u32,
        spec: IoSpec,
    ) -> RegionId {
        let kind = RegionKind::Io { owner: Owner::Device(self.cx.dev, tag), spec };
        let r = self.cx.m.mem.add(name, u128::from(len), kind, None);
        let io = self.cx.m.mem.io;
        self.cx.m.mem.map(io, r, u64::from(base), 0);
        r
    }

    /// Maps a region into physical memory or the port space.
    pub fn map(&mut self, space: Space, region: RegionId, addr: u64, priority: i32) {
        let root = match space {
            Space::Memory => self.cx.m.mem.system,
            Space::Io => self.cx.m.mem.io,
        };
        self.cx.m.mem.map(root, region, addr, priority);
    }

    /// Makes RAM that belongs to this device (not mapped yet).
    pub fn ram_region(&mut self, name: &'static str, size: u64, readonly: bool) -> QResult<RegionId> {
        let dev = self.cx.dev;
        self.cx.m.new_ram(name, size, readonly, Some(dev))
    }

    /// Makes memory that is read directly and whose writes this device handles (not mapped yet).
    pub fn rom_device(&mut self, name: &str, size: u64, tag: u32, spec: IoSpec) -> QResult<RegionId> {
        let dev = self.cx.dev;
        self.cx.m.new_rom_device(name, size, dev, Owner::Device(dev, tag), spec)
    }

    /// The line of an ISA interrupt (0-15).
    pub fn isa_irq(&mut self, irq: u32) -> IrqLine {
        self.cx.m.isa_irq(irq)
    }

    /// A new line that leads to `sink`.
    pub fn irq_line(&mut self, sink: IrqSink) -> IrqLine {
        self.cx.m.irqs.add(sink)
    }

    /// Adds a bus to this device.
    pub fn add_bus(&mut self, name: String, kind: BusKind) -> BusId {
        let dev = self.cx.dev;
        self.cx.m.tree.add_bus(name, kind, Some(dev))
    }

    /// Adds a part of this device that has a place of its own in the QOM tree (`<path>/<name>`); it goes away with
    /// this device.
    pub fn add_part(
        &mut self,
        name: &'static str,
        class: &'static ClassInfo,
        props: Box<dyn DeviceClass>,
        bus: Option<BusId>,
        dev: Box<dyn Device>,
    ) -> DevId {
        let parent = self.cx.dev;
        let id = self.cx.m.tree.add(class, props, bus, Place::Child(parent, name));
        if let Some(n) = self.cx.m.tree.get_mut(id) {
            n.dev = Some(dev);
            n.realized = true;
        }
        id
    }

    /// Connects `port` of this device to the character device that property `prop` of class `owner` names, if any.
    ///
    /// # Errors
    /// There is no such character device, or another front end has it.
    pub fn connect_chardev(
        &mut self,
        owner: &str,
        prop: &str,
        chr: &ChardevRef,
        port: u32,
    ) -> QResult<Option<CharId>> {
        let Some(name) = chr.0.as_deref() else { return Ok(None) };
        let dev = self.cx.dev;
        match self.cx.m.chr_connect_name(name, FrontendRef::Device(dev, port)) {
            Ok(id) => Ok(Some(id)),
            Err(ConnectError::NotFound) => Err(qerr!("Property '{owner}.{prop}' can't find value '{name}'")),
            Err(ConnectError::InUse) => {
                Err(qerr!("Property '{owner}.{prop}' can't take value '{name}': Device '{name}' is in use"))
            }
        }
    }

    /// Declares a memory region of a device on the system bus, whether it is mapped or not.
    pub fn mmio(&mut self, region: RegionId) {
        let dev = self.cx.dev;
        if let Some(n) = self.cx.m.tree.get_mut(dev) {
            n.mmio.push(region);
        }
    }

    /// Declares lines for `info qtree`.
    pub fn gpio(&mut self, name: &'static str, input: bool, count: u32) {
        let dev = self.cx.dev;
        if let Some(n) = self.cx.m.tree.get_mut(dev) {
            n.gpios.push((name, input, count));
        }
    }
}
