//! The hostile driver.

use super::rng::Rng;
use super::setup::RAM;
use super::Report;
use crate::builder::Built;
use crate::chardev::MonId;
use crate::clock::ClockKind;
use crate::device::DevId;
use crate::event_loop::{MonInput, MonitorHost};
use crate::machine::{Cause, Machine};
use crate::memory::{FlatKind, FlatRange, Owner, Space};
use crate::pci::reg;
use crate::shared::MachineLock;

/// Steps between two looks at the memory map.
const RESCAN: u64 = 64;
/// Steps between two repairs of the device's BARs.
const REPAIR: u64 = 512;

/// One step, for messages: its fields are read by `Debug` only.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Space, address, size, value.
    Write(Space, u64, u8, u64),
    /// Space, address, size.
    Read(Space, u64, u8),
    /// Address, length, value.
    ConfigWrite(u16, u8, u32),
    /// Address, length.
    ConfigRead(u16, u8),
    /// Address, length.
    Fill(u64, usize),
    /// Virtual nanoseconds.
    Advance(i64),
    /// The device.
    ResetDevice,
    /// The machine.
    ResetMachine,
    /// Bytes from a character device, a frame from a network.
    Input(usize),
    /// A virtqueue somewhere in memory.
    Queue,
    /// A round of the main loop.
    Round,
}

/// No monitors: what is meant for them is dropped.
struct Nobody;

impl MonitorHost for Nobody {
    fn input(&mut self, _: &mut MachineLock<'_>, _: MonId, _: MonInput) {}
    fn flush_events(&mut self, m: &mut MachineLock<'_>) {
        m.events.clear();
    }
}

/// A register block: where it is and whether the device under test owns it.
#[derive(Clone, Copy, Default)]
struct Window {
    io: bool,
    start: u64,
    len: u64,
}

/// The driver and its machine.
pub struct Guest {
    built: Built,
    target: DevId,
    rng: Rng,
    own: Vec<Window>,
    others: Vec<Window>,
    report: Report,
}

impl Guest {
    /// A driver of `target`.
    pub fn new(built: Built, target: DevId, seed: u64) -> Self {
        let g = Self {
            built,
            target,
            rng: Rng::new(seed),
            own: Vec::new(),
            others: Vec::new(),
            report: Report::default(),
        };
        let mut m = g.built.shared.lock();
        crate::direct::pci::program_chipset(&mut m);
        drop(m);
        g
    }

    /// What was done so far.
    pub fn report(&self) -> Report {
        self.report
    }

    /// Does one random thing.
    pub fn step(&mut self) -> Step {
        let n = self.report.steps;
        self.report.steps += 1;
        if n.is_multiple_of(REPAIR) {
            let mut m = self.built.shared.lock();
            crate::direct::pci::assign(&mut m, RAM);
        }
        if n.is_multiple_of(RESCAN) {
            self.scan();
        }
        match self.rng.below(1000) {
            0..=449 => self.write(),
            450..=649 => self.read(),
            650..=749 => self.config(),
            750..=829 => self.fill(),
            830..=879 => self.advance(),
            880..=889 => self.reset(),
            890..=939 => self.input(),
            940..=969 => self.queue(),
            _ => self.round(),
        }
    }

    fn scan(&mut self) {
        let m = self.built.shared.lock();
        let (mut own, mut others) = (Vec::new(), Vec::new());
        let family = family(&m, self.target);
        let views = [(true, &m.flat().io), (false, &m.flat().mem)];
        for (io, r) in views.into_iter().flat_map(|(io, v)| v.ranges().iter().map(move |r| (io, r))) {
            let Some(dev) = owner(r, &m) else { continue };
            let w = Window { io, start: r.start, len: (r.last - r.start).saturating_add(1) };
            if family.contains(&dev) { &mut own } else { &mut others }.push(w);
        }
        (self.own, self.others) = (own, others);
    }

    /// An address in a register, mostly one of the device's own, and an access size.
    fn place(&mut self) -> (Space, u64, u8) {
        let mine = !self.own.is_empty() && !self.rng.one_in(8);
        let w = if mine { self.rng.pick(&self.own) } else { self.rng.pick(&self.others) };
        self.report.hits += u64::from(mine);
        let span = if self.rng.one_in(2) { w.len.min(64) } else { w.len };
        let size = self.rng.pick(&[1, 1, 2, 4, 4, 8]);
        let space = if w.io { Space::Io } else { Space::Memory };
        let mut at = w.start + self.rng.below(span);
        if !self.rng.one_in(4) {
            at &= !(u64::from(size) - 1);
        }
        (space, at, if w.io { size.min(4) } else { size })
    }

    fn write(&mut self) -> Step {
        let (space, at, size) = self.place();
        let value = self.rng.value(RAM);
        let mut m = self.built.shared.lock();
        m.bus_write(space, at, &value.to_le_bytes()[..usize::from(size)]);
        Step::Write(space, at, size, value)
    }

    fn read(&mut self) -> Step {
        let (space, at, size) = self.place();
        let mut buf = [0; 8];
        self.built.shared.lock().bus_read(space, at, &mut buf[..usize::from(size)]);
        Step::Read(space, at, size)
    }

    fn config(&mut self) -> Step {
        let (at, len) = (self.rng.below(256) as u16, self.rng.pick(&[1, 2, 4]));
        let at = at & !(u16::from(len) - 1);
        let value = self.rng.value(RAM) as u32;
        let dev = Some(self.target);
        let read = self.rng.one_in(3);
        let mut m = self.built.shared.lock();
        if read {
            m.pci_config_read(dev, at, len);
            return Step::ConfigRead(at, len);
        }
        m.pci_config_write(dev, at, len, value);
        // Decoding and bus mastering mostly stay on.
        if !self.rng.one_in(8) {
            let old = m.pci_config_read(dev, reg::COMMAND as u16, 2);
            m.pci_config_write(dev, reg::COMMAND as u16, 2, old | 7);
        }
        Step::ConfigWrite(at, len, value)
    }

    fn fill(&mut self) -> Step {
        let at = self.rng.below(RAM) & if self.rng.one_in(2) { !0xfff } else { !0 };
        let mut buf = vec![0; 1 << self.rng.below(13)];
        self.rng.fill(&mut buf);
        self.built.shared.lock().bus_write(Space::Memory, at, &buf);
        Step::Fill(at, buf.len())
    }

    /// Time goes on: some timers fire. A device may arm itself again for the past, so the number is bounded.
    fn advance(&mut self) -> Step {
        let ns = 1i64 << self.rng.below(34);
        let mut m = self.built.shared.lock();
        let end = m.clock.virtual_ns().saturating_add(ns);
        for _ in 0..32 {
            let Some(at) = m.timers.next(ClockKind::Virtual).filter(|t| *t <= end) else { break };
            let now = m.clock.virtual_ns();
            m.clock.set_virtual(at.max(now));
            m.run_timers();
        }
        m.clock.set_virtual(end);
        Step::Advance(ns)
    }

    fn reset(&mut self) -> Step {
        self.report.resets += 1;
        let mut m = self.built.shared.lock();
        if self.rng.one_in(4) {
            m.system_reset(Cause::None);
            return Step::ResetMachine;
        }
        m.reset_device(self.target);
        Step::ResetDevice
    }

    fn input(&mut self) -> Step {
        let mut buf = vec![0; self.rng.below(2000) as usize];
        self.rng.fill(&mut buf);
        let port = self.rng.below(2) as u32;
        let mut m = self.built.shared.lock();
        m.with_dev(self.target, |d, cx| {
            if let Some(c) = d.chardev() {
                let n = c.can_receive(port).min(buf.len());
                if n > 0 {
                    c.receive(cx, port, &buf[..n]);
                }
                c.writable(cx, port);
            }
            if let Some(n) = d.net() {
                if n.can_receive(0) {
                    n.receive(cx, 0, &buf);
                }
                n.sent(cx, 0);
            }
        });
        Step::Input(buf.len())
    }

    /// Sets a virtio device of the modern PCI kind up as a driver does, with queues anywhere, and kicks it.
    fn queue(&mut self) -> Step {
        let (rng, target) = (&mut self.rng, self.target);
        let mut m = self.built.shared.lock();
        let Some((common, notify, mult)) = virtio_windows(&mut m, target) else { return Step::Queue };
        let put = |m: &mut Machine, at: u64, size: usize, v: u64| {
            m.bus_write(Space::Memory, common + at, &v.to_le_bytes()[..size]);
        };
        if rng.one_in(4) {
            put(&mut m, 20, 1, 0);
        }
        put(&mut m, 20, 1, 3);
        for half in 0..2 {
            put(&mut m, 8, 4, half);
            put(&mut m, 12, 4, rng.next_u64() | half);
        }
        put(&mut m, 20, 1, 11);
        let queue = rng.below(3);
        put(&mut m, 22, 2, queue);
        put(&mut m, 24, 2, 1 << rng.below(10));
        for at in [32, 40, 48] {
            let v = if rng.one_in(16) { rng.next_u64() } else { rng.below(RAM) & !0xfff };
            put(&mut m, at, 8, v);
        }
        put(&mut m, 28, 2, 1);
        put(&mut m, 20, 1, 15);
        let at = notify + mult * queue;
        m.bus_write(Space::Memory, at, &(queue as u16).to_le_bytes());
        Step::Queue
    }

    /// Lets the main loop carry out what was asked for and take completions.
    fn round(&mut self) -> Step {
        let mut m = self.built.shared.lock();
        m.wake_loop();
        // What it says about the end of the machine is of no interest.
        let _ = self.built.event_loop.round(&mut m, &mut Nobody);
        m.events.clear();
        m.monitor_inbox.clear();
        Step::Round
    }
}

/// The device and what it made of itself.
fn family(m: &Machine, id: DevId) -> Vec<DevId> {
    let path = m.tree.path(id);
    let inside = |p: String| p == path || p.strip_prefix(path.as_str()).is_some_and(|r| r.starts_with('/'));
    m.tree.ids().into_iter().filter(|d| inside(m.tree.path(*d))).collect()
}

fn owner(r: &FlatRange, m: &Machine) -> Option<DevId> {
    match r.kind {
        FlatKind::Io { owner: Owner::Device(d, _) | Owner::MsixTable(d) | Owner::MsixPba(d), .. } => Some(d),
        // Memory of a device (video memory) counts as registers; system memory belongs to none.
        FlatKind::Ram { .. } | FlatKind::RomDevice { .. } => m.mem.get(r.region)?.device,
        FlatKind::Io { .. } => None,
    }
}

/// Addresses of the common and the notification structure of a virtio function, and the notification multiplier.
fn virtio_windows(m: &mut Machine, dev: DevId) -> Option<(u64, u64, u64)> {
    if m.pci_config_read(Some(dev), 0, 2) != 0x1af4 {
        return None;
    }
    let (mut common, mut notify) = (None, None);
    let mut cap = m.pci_config_read(Some(dev), 0x34, 1);
    for _ in 0..16 {
        if !(0x40..=0xf0).contains(&cap) {
            break;
        }
        let head = m.pci_config_read(Some(dev), cap as u16, 4);
        if head & 0xff == 9 {
            let bar = m.pci_config_read(Some(dev), cap as u16 + 4, 1) as usize;
            let offset = u64::from(m.pci_config_read(Some(dev), cap as u16 + 8, 4));
            let base = m.with_dev(dev, |d, _| d.pci()?.state().bar_address(bar.min(5))).flatten();
            let at = base.map(|b| b + offset);
            match head >> 24 {
                1 => common = at,
                2 => notify = at.map(|a| (a, u64::from(m.pci_config_read(Some(dev), cap as u16 + 16, 4)))),
                _ => {}
            }
        }
        cap = head >> 8 & 0xff;
    }
    let (notify, mult) = notify?;
    Some((common?, notify, mult))
}
