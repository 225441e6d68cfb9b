//! The machine: everything under the one machine lock.
//!
//! Lock order: the machine lock is the outermost; it may be held while taking a block node's lock or a vCPU's job
//! queue, never the other way round. vCPU threads look addresses up in the lock-free [`Maps`] first and take the
//! lock only to call the device that answers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rqemu_block::BlockGraph;
use serde_json::Value;

use crate::accel::{Accel, CpuConfigs, IrqChip, NoCpu};
use crate::boards::MachineObject;
use crate::builder::MachineInfo;
use crate::chardev::{CharId, CharTable, MonId};
use crate::clock::{Clock, ClockKind, Timers};
use crate::cpu::BootRegs;
use crate::device::{Cx, DevId, Device, DeviceTree, GlobalProp};
use crate::devices::legacy::{i8259, ioapic};
use crate::direct::DirectBoot;
use crate::event_loop::{FdTable, MonInput};
use crate::irq::{IrqChips, IrqLine, IrqLines, IrqSink};
use crate::memory::{
    access, FlatMaps, IoSpec, Maps, Owner, RamBlock, RamSource, RegionId, RegionKind, RegionTree, Space,
};
use crate::net::NetTable;
use crate::pci::PciBuses;
use crate::run::{RunControl, RunState};
use crate::ui::input::InputRouter;
use crate::{qerr, QResult};

pub use crate::run::Cause;

/// Something to do after the running handler returned.
pub enum Effect {
    /// An input of a device changes.
    IrqInput(DevId, u32, bool),
    /// Remove a device (guest released it).
    Unplug(DevId),
    /// Run code with the machine.
    Call(Box<dyn FnOnce(&mut Machine) + Send>),
}

/// A QMP event waiting to be sent.
#[derive(Clone, Debug)]
pub struct Event {
    /// Name.
    pub name: &'static str,
    /// Data, if it carries any.
    pub data: Option<Value>,
    /// When it happened.
    pub at: SystemTime,
}

/// Everything under the machine lock.
pub struct Machine {
    /// Devices and buses.
    pub tree: DeviceTree,
    /// Memory regions.
    pub mem: RegionTree,
    /// Published flat maps.
    pub maps: Maps,
    flat: Arc<FlatMaps>,
    /// Interrupt lines.
    pub irqs: IrqLines,
    isa_irqs: Vec<IrqLine>,
    /// Inputs of user-space interrupt controllers by GSI.
    pub gsi_sinks: Vec<Vec<IrqSink>>,
    /// Interrupt controllers that are devices of ours (not the accelerator's).
    pub irq_chips: IrqChips,
    /// Clocks.
    pub clock: Clock,
    /// `-rtc`: what real-time clocks start from and run on.
    pub rtc: crate::spec::RtcSpec,
    /// Device timers.
    pub timers: Timers,
    /// The accelerator.
    pub accel: Box<dyn Accel>,
    /// PCI buses.
    pub pci: PciBuses,
    /// Character devices.
    pub chardevs: CharTable,
    /// Network clients.
    pub net: NetTable,
    /// Input devices.
    pub input: InputRouter,
    /// Run state and requests.
    pub run: RunControl,
    /// Events not yet sent.
    pub events: VecDeque<Event>,
    /// All RAM blocks.
    pub rams: Vec<Arc<RamBlock>>,
    /// `-global` and compat values, lowest precedence first.
    pub globals: Vec<GlobalProp>,
    /// Descriptors that the main loop watches.
    pub fds: FdTable,
    /// Input that waits for monitors.
    pub monitor_inbox: VecDeque<(MonId, MonInput)>,
    /// Monitors that take no more input for now.
    pub suspended_monitors: Vec<MonId>,
    /// Input that waits for the qtest server.
    pub qtest_inbox: Vec<u8>,
    /// gdb stub.
    pub gdb: Option<Box<crate::gdb::Gdb>>,
    /// What has come for it.
    pub gdb_inbox: VecDeque<crate::event_loop::MonInput>,
    /// Why a vCPU stopped for the debugger.
    pub debug_stop: Option<crate::accel::DebugStop>,
    /// The qtest server, if it was asked for.
    pub(crate) qtest: Option<Box<crate::qtest::Qtest>>,
    pub(crate) chr_again: Vec<CharId>,
    /// Block nodes and drives.
    pub block: BlockGraph,
    /// Threads that serve queues of devices.
    pub iothreads: crate::devices::virtio::iothread::IoThreads,
    /// Sources of random bytes.
    pub rngs: crate::devices::virtio::rng::RngSources,
    /// Completions of block requests on their way to devices.
    pub(crate) completions: crate::completion::Completions,
    /// Descriptors that clients and the command line handed over (`/dev/fdset/N`).
    pub fdsets: crate::fdsets::FdSets,
    /// Objects of users.
    pub objects: crate::objects::ObjectTable,
    /// NUMA nodes, if the machine has any.
    pub numa: Option<crate::builder::NumaState>,
    /// Machine type and properties.
    pub board: Option<MachineObject>,
    /// Facts for queries.
    pub info: MachineInfo,
    /// Boot without firmware, if that is how the machine starts.
    pub direct_boot: Option<Box<DirectBoot>>,
    /// No firmware will run option ROMs: a device starts without its usual one when that file is not installed.
    pub roms_optional: bool,
    /// The board's RAM: blocks in order of RAM offsets.
    pub main_ram: Vec<Arc<RamBlock>>,
    /// What the CPUs have in common, if the machine has any.
    pub cpu_setup: crate::cpu::SharedSetup,
    /// vCPUs to create (between board and accelerator start).
    pub(crate) cpu_configs: Option<CpuConfigs>,
    /// Migration capability `events`: changes of state are announced.
    pub migration_events: bool,
    /// The last dump of guest memory: whether it was written, bytes written, bytes in all.
    pub dump: Option<(bool, i64, i64)>,
    /// Construction is over: from now on devices are hot-plugged.
    pub ready: bool,
    /// What `-d` logs.
    pub log: std::sync::Arc<crate::log::Log>,
    /// The board is being put together: the memory map is published once, when it is complete.
    pub(crate) assembling: bool,
    /// Root of what processors in system management mode see, and the region that makes the difference.
    pub smm_memory: Option<(RegionId, RegionId)>,
    /// The access being made comes from a processor in system management mode.
    pub smm_access: bool,
    /// Device that the power button is wired to.
    pub power_device: Option<DevId>,
    /// Device behind the VMware port.
    pub vmport: Option<DevId>,
    /// Folders searched for firmware files, in order.
    pub firmware_dirs: Vec<PathBuf>,
    effects: VecDeque<Effect>,
    depth: u32,
    fault: Option<crate::QError>,
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Machine {
    /// An empty machine without accelerator.
    pub fn new() -> Self {
        Self {
            tree: DeviceTree::default(),
            mem: RegionTree::default(),
            maps: Maps::default(),
            flat: Arc::default(),
            irqs: IrqLines::default(),
            isa_irqs: Vec::new(),
            gsi_sinks: Vec::new(),
            irq_chips: IrqChips::default(),
            clock: Clock::default(),
            rtc: crate::spec::RtcSpec::default(),
            timers: Timers::default(),
            accel: Box::new(NoCpu),
            pci: PciBuses::default(),
            chardevs: CharTable::default(),
            net: NetTable::default(),
            input: InputRouter::default(),
            run: RunControl::default(),
            events: VecDeque::new(),
            rams: Vec::new(),
            globals: Vec::new(),
            fds: FdTable::default(),
            monitor_inbox: VecDeque::new(),
            suspended_monitors: Vec::new(),
            qtest_inbox: Vec::new(),
            gdb: None,
            gdb_inbox: VecDeque::new(),
            debug_stop: None,
            qtest: None,
            chr_again: Vec::new(),
            block: BlockGraph::new(),
            iothreads: Default::default(),
            rngs: Default::default(),
            completions: Default::default(),
            fdsets: Default::default(),
            objects: Default::default(),
            numa: None,
            board: None,
            info: MachineInfo::default(),
            log: Default::default(),
            direct_boot: None,
            roms_optional: false,
            main_ram: Vec::new(),
            cpu_setup: None,
            cpu_configs: None,
            migration_events: false,
            dump: None,
            ready: false,
            assembling: false,
            smm_memory: None,
            smm_access: false,
            power_device: None,
            vmport: None,
            firmware_dirs: firmware_dirs(),
            effects: VecDeque::new(),
            depth: 0,
            fault: None,
        }
    }

    // ---- calling devices -------------------------------------------------------------------------------------

    /// Calls a device; `None` if there is no such run-time device or it is running already.
    pub fn with_dev<R>(&mut self, id: DevId, f: impl FnOnce(&mut dyn Device, &mut Cx<'_>) -> R) -> Option<R> {
        let mut dev = self.tree.get_mut(id)?.dev.take()?;
        self.depth += 1;
        let r = f(&mut *dev, &mut Cx { m: self, dev: id });
        self.depth -= 1;
        if let Some(n) = self.tree.get_mut(id) {
            n.dev = Some(dev);
        }
        if self.depth == 0 {
            self.settle();
        }
        Some(r)
    }

    /// Calls a device of a known type.
    pub fn with<T: Device, R>(&mut self, id: DevId, f: impl FnOnce(&mut T, &mut Cx<'_>) -> R) -> Option<R> {
        self.with_dev(id, |d, cx| d.as_any().downcast_mut::<T>().map(|d| f(d, cx)))?
    }

    /// Begins a stretch in which effects are only queued (realize).
    pub(crate) fn enter(&mut self) {
        self.depth += 1;
    }

    /// Ends it; the caller settles.
    pub(crate) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Settles unless a device is being called.
    pub(crate) fn settle_if_idle(&mut self) {
        if self.depth == 0 {
            self.settle();
        }
    }

    /// Finds a firmware file by name in the search path, or takes the name as a path.
    pub fn find_firmware(&self, name: &str) -> Option<PathBuf> {
        let plain = PathBuf::from(name);
        if plain.exists() {
            return Some(plain);
        }
        self.firmware_dirs.iter().map(|d| d.join(name)).find(|p| p.exists())
    }

    /// Queues something for after the running handler.
    pub fn push_effect(&mut self, e: Effect) {
        self.effects.push_back(e);
    }

    /// Applies queued effects and memory map changes. Called by itself after each device call; builders call it
    /// after they changed something by hand.
    pub fn settle(&mut self) {
        // A loop of devices that keep toggling each other's lines must not hang the machine.
        for _ in 0..10_000 {
            if self.mem.is_dirty() && !self.assembling {
                self.commit_memory();
            }
            let Some(e) = self.effects.pop_front() else { return };
            match e {
                Effect::IrqInput(dev, pin, level) => {
                    self.with_dev_nested(dev, |d, cx| {
                        if let Some(i) = d.irq_inputs() {
                            i.set_input(cx, pin, level);
                        }
                    });
                }
                Effect::Unplug(dev) => {
                    self.remove_device(dev);
                }
                Effect::Call(f) => {
                    self.depth += 1;
                    f(self);
                    self.depth -= 1;
                }
            }
        }
        self.effects.clear();
    }

    fn with_dev_nested<R>(
        &mut self,
        id: DevId,
        f: impl FnOnce(&mut dyn Device, &mut Cx<'_>) -> R,
    ) -> Option<R> {
        self.depth += 1;
        let r = self.with_dev(id, f);
        self.depth -= 1;
        r
    }

    // ---- memory ----------------------------------------------------------------------------------------------

    /// The flat maps as the machine sees them now.
    pub fn flat(&self) -> &FlatMaps {
        &self.flat
    }

    fn commit_memory(&mut self) {
        self.mem.take_dirty();
        let mem = self.mem.flatten(self.mem.system).observed(self.accel.write_observer());
        let smm = self.smm_memory.filter(|(_, smram)| self.mem.get(*smram).is_some_and(|r| r.enabled));
        let smm = smm.map(|(root, _)| self.mem.flatten(root).observed(self.accel.write_observer()));
        let new = FlatMaps { mem, smm, io: self.mem.flatten(self.mem.io) };
        if let Err(e) = self.accel.memory_changed(&self.flat, &new) {
            self.fault.get_or_insert(e);
        }
        self.maps.store(new);
        self.flat = self.maps.load_full();
    }

    /// An error that an accelerator reported while the map changed (checked by the builder and the main loop).
    pub fn take_fault(&mut self) -> Option<crate::QError> {
        self.fault.take()
    }

    /// Makes a RAM region (not mapped yet).
    pub fn new_ram(
        &mut self,
        name: &'static str,
        size: u64,
        readonly: bool,
        dev: Option<DevId>,
    ) -> QResult<RegionId> {
        self.new_ram_from(name, size, readonly, dev, RamSource::Anonymous)
    }

    /// Makes a RAM region from a given source.
    pub fn new_ram_from(
        &mut self,
        name: &'static str,
        size: u64,
        readonly: bool,
        dev: Option<DevId>,
        source: RamSource,
    ) -> QResult<RegionId> {
        let block = Arc::new(RamBlock::new(name, size, source).map_err(|e| qerr!("{e}"))?);
        self.rams.push(block.clone());
        Ok(self.mem.add(name, u128::from(size), RegionKind::Ram { block, readonly }, dev))
    }

    /// Makes memory whose writes `owner` handles (not mapped yet).
    pub fn new_rom_device(
        &mut self,
        name: &str,
        size: u64,
        dev: DevId,
        owner: Owner,
        spec: IoSpec,
    ) -> QResult<RegionId> {
        let block = Arc::new(RamBlock::new(name, size, RamSource::Anonymous).map_err(|e| qerr!("{e}"))?);
        self.rams.push(block.clone());
        let kind = RegionKind::RomDevice { block, owner, spec, direct: true };
        Ok(self.mem.add(name.to_string(), u128::from(size), kind, Some(dev)))
    }

    /// The block behind a RAM region.
    pub fn ram_of(&self, region: RegionId) -> Option<Arc<RamBlock>> {
        match &self.mem.get(region)?.kind {
            RegionKind::Ram { block, .. } | RegionKind::RomDevice { block, .. } => Some(block.clone()),
            _ => None,
        }
    }

    /// A guest read of an I/O range, `offset` in the region.
    pub fn io_read(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8) -> u64 {
        if size < spec.valid.0 || size > spec.valid.1 {
            return 0;
        }
        let step = size.clamp(spec.imp.0, spec.imp.1);
        let mut out = 0u64;
        let mut done = 0u8;
        while done < size {
            let v = self.io_read_one(owner, offset + u64::from(done), step) & mask(step);
            out |= v.checked_shl(u32::from(done) * 8).unwrap_or(0);
            done += step;
        }
        out & mask(size)
    }

    /// A guest write to an I/O range.
    pub fn io_write(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8, value: u64) {
        if size < spec.valid.0 || size > spec.valid.1 {
            return;
        }
        let step = size.clamp(spec.imp.0, spec.imp.1);
        let mut done = 0u8;
        while done < size {
            let v = (value >> (u32::from(done) * 8)) & mask(step);
            self.io_write_one(owner, offset + u64::from(done), step, v);
            done += step;
        }
    }

    fn io_read_one(&mut self, owner: Owner, offset: u64, size: u8) -> u64 {
        match owner {
            Owner::Device(dev, tag) => self
                .with_dev(dev, |d, cx| d.io().map(|h| h.read(cx, tag, offset, size)))
                .flatten()
                .unwrap_or(0),
            Owner::MsixTable(dev) => self.msix_table_read(dev, offset, size),
            Owner::MsixPba(dev) => self.msix_pba_read(dev, offset, size),
            Owner::Kernel => 0,
            Owner::Nobody => mask(size),
        }
    }

    fn io_write_one(&mut self, owner: Owner, offset: u64, size: u8, value: u64) {
        match owner {
            Owner::Device(dev, tag) => {
                self.with_dev(dev, |d, cx| {
                    if let Some(h) = d.io() {
                        h.write(cx, tag, offset, size, value);
                    }
                });
            }
            Owner::MsixTable(dev) => self.msix_table_write(dev, offset, size, value),
            Owner::MsixPba(_) | Owner::Kernel | Owner::Nobody => {}
        }
    }

    // ---- interrupts ------------------------------------------------------------------------------------------

    /// Sets a line.
    pub fn set_irq(&mut self, line: IrqLine, level: bool) {
        match self.irqs.set(line, level) {
            IrqSink::None => {}
            IrqSink::Gsi(gsi) => self.set_gsi(gsi, level),
            IrqSink::A20 => self.accel.set_a20(level),
            IrqSink::Smi if level => self.accel.smi(),
            IrqSink::Smi => {}
            IrqSink::Device(dev, pin) => self.effects.push_back(Effect::IrqInput(dev, pin, level)),
        }
    }

    /// Sets a global system interrupt.
    pub fn set_gsi(&mut self, gsi: u32, level: bool) {
        if self.accel.irqchip() == IrqChip::Kernel {
            self.accel.set_gsi(gsi, level);
            return;
        }
        for s in self.gsi_sinks.get(gsi as usize).into_iter().flatten() {
            if let IrqSink::Device(dev, pin) = *s {
                self.effects.push_back(Effect::IrqInput(dev, pin, level));
            }
        }
    }

    /// The boot processor takes the interrupt that the 8259s request: their vector.
    pub fn acknowledge_pic(&mut self) -> u8 {
        let Some(master) = self.irq_chips.pic else { return 0 };
        let v = i8259::acknowledge(self, master);
        self.settle_if_idle();
        v
    }

    /// A local APIC broadcasts that a level interrupt ended.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        for io in self.irq_chips.ioapics.clone() {
            ioapic::end_of_interrupt(self, io, vector);
        }
        self.settle_if_idle();
    }

    /// The shared line of an ISA interrupt.
    pub fn isa_irq(&mut self, irq: u32) -> IrqLine {
        while self.isa_irqs.len() < 16 {
            let n = self.isa_irqs.len() as u32;
            let line = self.irqs.add(IrqSink::Gsi(n));
            self.isa_irqs.push(line);
        }
        self.isa_irqs[(irq & 15) as usize]
    }

    // ---- timers, events, requests ----------------------------------------------------------------------------

    /// Runs all timers that are due.
    pub fn run_timers(&mut self) {
        for kind in [ClockKind::Realtime, ClockKind::Virtual] {
            // Bounded: a device that re-arms for the past gets its next turn in the next round.
            for _ in 0..1000 {
                if kind == ClockKind::Virtual
                    && self.run.state() != RunState::Running
                    && !self.clock.is_manual()
                {
                    break;
                }
                let now = self.clock.now(kind);
                let Some((dev, id)) = self.timers.pop(kind, now) else { break };
                if dev == crate::chardev::TIMER_DEV {
                    self.chr_timer(id);
                    continue;
                }
                if dev == crate::net::TIMER_DEV {
                    self.announce_again(id);
                    continue;
                }
                if dev == crate::ui::input::TIMER_DEV {
                    self.key_timer();
                    continue;
                }
                self.with_dev(dev, |d, cx| {
                    if let Some(t) = d.timers() {
                        t.expired(cx, id);
                    }
                });
            }
        }
    }

    /// Nanoseconds until the next timer is due, `None` if there is none.
    pub fn next_timer_in(&self) -> Option<u64> {
        let due =
            |kind| self.timers.next(kind).map(|at| at.saturating_sub(self.clock.now(kind)).max(0) as u64);
        let virt = if self.run.state() == RunState::Running && !self.clock.is_manual() {
            due(ClockKind::Virtual)
        } else {
            None
        };
        [due(ClockKind::Realtime), virt].into_iter().flatten().min()
    }

    /// Queues a QMP event.
    pub fn emit(&mut self, name: &'static str, data: Option<Value>) {
        self.events.push_back(Event { name, data, at: SystemTime::now() });
        self.wake_loop();
    }

    /// Makes the main loop look at its work again.
    pub fn wake_loop(&self) {
        self.run.wake();
    }

    /// Asks for a reset.
    pub fn request_reset(&mut self, cause: Cause) {
        self.run.request_reset(cause);
    }

    /// Asks for power off.
    pub fn request_shutdown(&mut self, cause: Cause) {
        self.run.request_shutdown(cause);
    }

    /// Whether something waits for the main loop that no descriptor announces.
    pub fn has_pending_work(&self) -> bool {
        !self.monitor_inbox.is_empty()
            || !self.qtest_inbox.is_empty()
            || !self.gdb_inbox.is_empty()
            || !self.chr_again.is_empty()
            || !self.net.again.is_empty()
            || self.run.requests.any()
    }

    /// CPUID leaf 1 EAX and EDX of the boot CPU.
    pub fn cpu_signature(&self) -> (u32, u32) {
        (self.info.cpu.signature, self.info.cpu.features)
    }

    /// Lets go of everything that outlives the process: image locks and unwritten data, sockets, terminals.
    pub fn shut_down(&mut self) {
        for id in self.tree.ids() {
            self.with_dev(id, |d, cx| d.unrealize(cx));
        }
        if let Err(e) = self.block.flush_all() {
            eprintln!("cannot write back all disks: {e}");
        }
        self.block.shutdown();
        self.chardevs.restore_terminals();
        self.chardevs = CharTable::default();
    }

    /// Presses the power button.
    pub fn power_button(&mut self) {
        if let Some(dev) = self.power_device {
            self.with_dev(dev, |d, cx| d.power_button(cx));
        }
    }

    /// Resets what a wake-up from suspend resets: CPUs and devices, but not memory.
    pub fn wakeup_reset(&mut self) {
        self.reset_devices();
        self.reset_cpus();
        if let Some(dev) = self.power_device {
            self.with_dev(dev, |d, cx| d.woken(cx));
        }
    }

    /// Puts all CPUs into their reset state. The vCPUs must be parked.
    pub fn reset_cpus(&mut self) {
        match self.prepare_direct_boot() {
            Ok(regs) => self.accel.set_boot(regs),
            // The kernel file vanished while the machine ran.
            Err(e) => {
                eprintln!("{e}");
                self.request_shutdown(Cause::HostError);
            }
        }
        self.log_cpu_reset();
        self.accel.reset_cpus();
    }

    /// Logs the state of all CPUs before a reset (`-d cpu_reset`).
    pub fn log_cpu_reset(&mut self) {
        if !self.log.wants(crate::log::CPU_RESET) {
            return;
        }
        for i in 0..self.info.cpus.len() {
            if let Some(regs) = self.accel.cpu_regs(i) {
                self.log.write(&format!("CPU Reset (CPU {i})\n{}", crate::cpu::dump(&regs)));
            }
        }
    }

    /// Loads the kernel of a boot without firmware; `None` if firmware boots.
    pub fn prepare_direct_boot(&mut self) -> QResult<Option<BootRegs>> {
        let Some(mut d) = self.direct_boot.take() else { return Ok(None) };
        let regs = d.prepare(self);
        self.direct_boot = Some(d);
        regs.map(Some)
    }

    /// Resets every device: children before their parents, as the buses nest.
    pub fn reset_devices(&mut self) {
        let mut order = Vec::new();
        self.reset_order(DeviceTree::SYSTEM, &mut order);
        for id in self.tree.ids() {
            if !order.contains(&id) {
                order.push(id);
            }
        }
        for id in order {
            self.reset_device(id);
        }
        self.settle();
    }

    fn reset_order(&self, bus: crate::device::BusId, out: &mut Vec<DevId>) {
        let Some(b) = self.tree.bus(bus) else { return };
        for c in &b.children {
            if let Some(n) = self.tree.get(*c) {
                for sub in &n.buses {
                    self.reset_order(*sub, out);
                }
            }
            out.push(*c);
        }
    }

    /// Resets one device (and its PCI configuration space).
    pub fn reset_device(&mut self, id: DevId) {
        self.depth += 1;
        self.with_dev(id, |d, cx| {
            if let Some(p) = d.pci() {
                p.state().reset();
            }
            d.reset(cx);
        });
        self.pci_update_mappings(id);
        self.depth -= 1;
        if self.depth == 0 {
            self.settle();
        }
    }

    /// Removes a device with everything that belongs to it.
    pub fn remove_device(&mut self, id: DevId) {
        let path = self.tree.path(id);
        self.with_dev_nested(id, |d, cx| d.unrealize(cx));
        self.pci_unplug(id);
        let nodes = self.tree.remove(id);
        for n in &nodes {
            self.mem.remove_device(n.id);
            self.timers.remove_device(n.id);
            self.net.remove_device(n.id);
            self.chardevs.remove_device(n.id);
        }
        if let Some(n) = nodes.last().filter(|n| n.realized) {
            let mut data = serde_json::Map::new();
            if let Some(uid) = n.user_id() {
                data.insert("device".into(), Value::from(uid));
            }
            data.insert("path".into(), Value::from(path));
            self.emit("DEVICE_DELETED", Some(Value::Object(data)));
        }
    }
}

impl crate::memory::access::IoTarget for Machine {
    fn io_read(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8) -> u64 {
        Machine::io_read(self, owner, spec, offset, size)
    }
    fn io_write(&mut self, owner: Owner, spec: IoSpec, offset: u64, size: u8, value: u64) {
        Machine::io_write(self, owner, spec, offset, size, value);
    }
    fn unassigned(&mut self, write: bool, addr: u64, size: usize) {
        self.log.unassigned(write, addr, size);
    }
}

impl Machine {
    /// Reads as a processor does: RAM, ROM and devices.
    pub fn bus_read(&mut self, space: Space, addr: u64, buf: &mut [u8]) {
        let maps = self.maps.load_full();
        access::read(&maps, space, addr, buf, self);
    }

    /// Writes as a processor does.
    pub fn bus_write(&mut self, space: Space, addr: u64, data: &[u8]) {
        let maps = self.maps.load_full();
        access::write(&maps, space, addr, data, self);
    }
}

/// Where distributions install firmware for QEMU.
pub fn firmware_dirs() -> Vec<PathBuf> {
    ["/usr/share/qemu", "/usr/share/seabios", "/usr/lib/ipxe/qemu", "/usr/share/rqemu"]
        .map(PathBuf::from)
        .to_vec()
}

/// All ones for an access of `size` bytes.
pub fn mask(size: u8) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (u32::from(size) * 8)) - 1
    }
}
