//! One port: its registers, and how a command gets to the drive and its data and result back.

use super::super::ata::{status, AtaPort, Drive};
use super::fis;
use super::ncq::Queued;
use crate::device::{BusId, Cx, DevId};

/// Interrupt status bits.
mod irq {
    pub const D2H: u32 = 1;
    pub const PIO: u32 = 2;
    pub const DEVICE_BITS: u32 = 8;
    pub const TASK_FILE: u32 = 1 << 30;
}

/// Command register bits.
mod command {
    pub const START: u32 = 1;
    pub const RECEIVE: u32 = 0x10;
    pub const RECEIVING: u32 = 0x4000;
    pub const RUNNING: u32 = 0x8000;
    /// Spun up, powered.
    pub const INITIAL: u32 = 6;
    pub const READ_ONLY: u32 = 0x007d_ffe0;
    pub const CONDITION: u32 = 0xf000_0000;
}

/// Bits of the interrupt enable register.
const ENABLE_MASK: u32 = 0xfdc0_00ff;
/// A drive is there, first generation speed, active.
const LINK_UP: u32 = 0x113;
const NO_DRIVE: u32 = 0x7f;

/// The adapter's side of a port.
#[derive(Default)]
pub struct PortHw {
    list: u64,
    receive: u64,
    is: u32,
    ie: u32,
    cmd: u32,
    tfd: u32,
    sig: u32,
    link: u32,
    control: u32,
    serr: u32,
    pub(super) active: u32,
    issue: u32,
    /// The function may access memory.
    pub master: bool,
    /// Something new to interrupt for.
    pub fresh: bool,
    greeted: bool,
    /// The slot whose command the drive has.
    slot: Option<u8>,
    /// A command failed: nothing is issued until the port is stopped.
    halted: bool,
    resetting: bool,
    packet: [u8; 16],
    table: Vec<(u64, u32)>,
    total: u64,
    moved: u64,
}

impl PortHw {
    pub(super) fn wants_interrupt(&self) -> bool {
        self.is & self.ie != 0
    }

    fn raise(&mut self, bits: u32) {
        self.is |= bits;
        self.fresh = true;
    }

    pub(super) fn read(&self, at: u32) -> u32 {
        match at {
            0x00 => self.list as u32,
            0x04 => (self.list >> 32) as u32,
            0x08 => self.receive as u32,
            0x0c => (self.receive >> 32) as u32,
            0x10 => self.is,
            0x14 => self.ie,
            0x18 => self.cmd,
            0x20 => self.tfd,
            0x24 => self.sig,
            0x28 => self.link,
            0x2c => self.control,
            0x30 => self.serr,
            0x34 => self.active,
            0x38 => self.issue,
            _ => 0,
        }
    }

    /// Writes a FIS into the receive area.
    fn send(&self, cx: &Cx<'_>, at: u64, data: &[u8]) {
        if self.cmd & command::RECEIVE != 0 && self.master {
            // An area that is not memory loses it.
            let _ = cx.dma_write(self.receive.wrapping_add(at), data);
        }
    }

    fn send_result(&mut self, cx: &Cx<'_>, drive: &Drive) {
        self.send(cx, fis::D2H_AT, &fis::d2h(&drive.tf, true));
        self.tfd = u32::from(drive.tf.error) << 8 | u32::from(drive.tf.status);
        self.raise(irq::D2H);
        if drive.tf.status & status::ERR != 0 {
            self.raise(irq::TASK_FILE);
        }
    }

    /// Queued command `tag` has ended.
    pub(super) fn send_device_bits(&mut self, cx: &Cx<'_>, drive: &mut Drive, tag: u8, failed: bool) {
        drive.tf.status = status::DRDY | if failed { status::ERR } else { status::DSC };
        drive.tf.error = if failed { super::super::ata::ABRT } else { 0 };
        let done = if failed { 0 } else { 1 << tag };
        self.send(cx, fis::SDB_AT, &fis::device_bits(drive.tf.status, drive.tf.error, done));
        self.active &= !done;
        self.tfd = u32::from(drive.tf.error) << 8 | u32::from(drive.tf.status);
        self.raise(if failed { irq::TASK_FILE } else { irq::DEVICE_BITS });
        self.halted |= failed;
    }

    /// A queued command was accepted.
    pub(super) fn accept_queued(&mut self, cx: &Cx<'_>, drive: &Drive, slot: u8) {
        self.send(cx, fis::D2H_AT, &fis::d2h(&drive.tf, false));
        self.issue &= !(1 << slot);
    }

    /// The first FIS of a drive: its signature.
    fn greet(&mut self, cx: &Cx<'_>, drive: &Drive) {
        if self.greeted || self.cmd & command::RECEIVE == 0 || !drive.present() {
            return;
        }
        self.greeted = true;
        let mut t = drive.tf.clone();
        let cd = drive.kind == super::super::ata::Kind::Cd;
        (t.status, t.error, t.select) = (if cd { 0x70 } else { 0x30 }, 1, 0xa0);
        (t.sector, t.nsector) = (1, 1);
        (t.lcyl, t.hcyl) = if cd { (0x14, 0xeb) } else { (0, 0) };
        (t.hob_sector, t.hob_lcyl, t.hob_hcyl) = (0, 0, 0);
        self.send(cx, fis::D2H_AT, &fis::d2h(&t, true));
        self.tfd = u32::from(t.error) << 8 | u32::from(t.status);
        self.sig = if cd { 0xeb14_0101 } else { 0x101 };
        self.raise(irq::D2H);
    }

    /// Reads the command table of a slot: FIS, packet, and where the data are.
    fn fetch(&mut self, cx: &Cx<'_>, slot: u8) -> Option<[u8; 64]> {
        const MAX_ENTRIES: usize = 65535;
        let mut h = [0; 32];
        if !self.master || cx.dma_read(self.list.wrapping_add(u64::from(slot) * 32), &mut h).is_err() {
            return None;
        }
        let word = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        let table = u64::from(word(8) & !0x7f) | u64::from(word(12)) << 32;
        let mut f = [0; 64];
        cx.dma_read(table, &mut f).ok()?;
        cx.dma_read(table.wrapping_add(0x40), &mut self.packet).ok()?;
        self.table.clear();
        self.total = 0;
        let n = ((word(0) >> 16) as usize).min(MAX_ENTRIES);
        let mut raw = vec![0; n * 16];
        if n > 0 && cx.dma_read(table.wrapping_add(0x80), &mut raw).is_err() {
            return None;
        }
        for e in raw.chunks_exact(16) {
            let at = u64::from_le_bytes([e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]]) & !1;
            let len = (u32::from_le_bytes([e[12], e[13], e[14], e[15]]) & 0x3f_ffff) + 1;
            self.table.push((at, len));
            self.total += u64::from(len);
        }
        Some(f)
    }

    /// Takes the table of the command just fetched.
    pub(super) fn take_table(&mut self) -> (Vec<(u64, u32)>, u64) {
        (std::mem::take(&mut self.table), std::mem::take(&mut self.total))
    }

    fn write_moved(&self, cx: &Cx<'_>, slot: u8) {
        let at = self.list.wrapping_add(u64::from(slot) * 32 + 4);
        let _ = cx.dma_write(at, &(self.moved as u32).to_le_bytes());
    }

    fn pieces(&self, pos: u64, len: usize, f: impl FnMut(u64, std::ops::Range<usize>)) {
        pieces(&self.table, pos, len, f);
    }
}

/// Calls `f(address, range of data)` for each piece of memory that `len` bytes at `pos` of a table touch.
pub(super) fn pieces(
    table: &[(u64, u32)],
    mut pos: u64,
    len: usize,
    mut f: impl FnMut(u64, std::ops::Range<usize>),
) {
    let mut done = 0;
    for (addr, size) in table {
        let size = u64::from(*size);
        if pos >= size {
            pos -= size;
            continue;
        }
        let n = (size - pos).min((len - done) as u64) as usize;
        f(addr.wrapping_add(pos), done..done + n);
        done += n;
        pos = 0;
        if done == len {
            return;
        }
    }
}

impl AtaPort for PortHw {
    fn irq(&mut self, _cx: &mut Cx<'_>) {
        // Results travel in FISes, which are sent when the drive comes to rest.
    }

    fn dma_ready(&mut self, _cx: &mut Cx<'_>) -> bool {
        self.slot.is_some()
    }

    fn dma_len(&self) -> u64 {
        self.total
    }

    fn dma_to_memory(&mut self, cx: &mut Cx<'_>, pos: u64, data: &[u8]) {
        self.pieces(pos, data.len(), |addr, r| {
            // Memory that is not there swallows the data, as on the bus.
            let _ = cx.dma_write(addr, data.get(r).unwrap_or_default());
        });
    }

    fn dma_from_memory(&mut self, cx: &mut Cx<'_>, pos: u64, data: &mut [u8]) {
        data.fill(0);
        self.pieces(pos, data.len(), |addr, r| {
            if let Some(d) = data.get_mut(r) {
                let _ = cx.dma_read(addr, d);
            }
        });
    }

    fn dma_end(&mut self, _cx: &mut Cx<'_>, moved: u64, _more: bool) {
        self.moved = moved;
    }
}

/// A port and what is plugged into it.
pub struct Port {
    /// The bus in the device tree.
    pub bus: BusId,
    /// The device in it.
    pub device: Option<DevId>,
    /// The drive.
    pub drive: Box<Drive>,
    /// The adapter's side.
    pub hw: PortHw,
    pub(super) queued: Vec<Queued>,
}

impl Port {
    /// A port without a drive.
    pub fn new(bus: BusId) -> Self {
        let mut p = Self {
            bus,
            device: None,
            drive: Box::new(Drive::empty()),
            hw: PortHw::default(),
            queued: Vec::new(),
        };
        p.power_on();
        p
    }

    /// Plugs a drive in.
    pub fn plug(&mut self, dev: DevId, drive: Box<Drive>) {
        self.device = Some(dev);
        self.drive = drive;
        self.hw.link = LINK_UP;
    }

    /// Takes it out.
    pub fn unplug(&mut self) {
        self.cancel();
        self.device = None;
        *self.drive = Drive::empty();
        self.power_on();
    }

    /// Ends everything without telling the host.
    pub fn cancel(&mut self) {
        self.drive.cancel();
        self.drop_queued();
        self.hw.slot = None;
    }

    fn power_on(&mut self) {
        let master = self.hw.master;
        self.hw = PortHw { cmd: command::INITIAL, master, ..PortHw::default() };
        self.idle();
    }

    /// What the link shows before the drive has spoken.
    fn idle(&mut self) {
        let h = &mut self.hw;
        (h.tfd, h.sig, h.serr, h.active, h.issue) = (NO_DRIVE, u32::MAX, 0, 0, 0);
        h.link = if self.drive.present() { LINK_UP } else { 0 };
        (h.greeted, h.halted, h.resetting) = (false, false, false);
    }

    /// Reset of the adapter.
    pub fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.cancel();
        self.power_on();
        if self.drive.present() {
            self.drive.diagnose();
        }
    }

    /// Reset of the link or by software.
    fn reset_link(&mut self, cx: &mut Cx<'_>) {
        self.cancel();
        self.idle();
        if self.drive.present() {
            self.drive.diagnose();
        }
        self.hw.greet(cx, &self.drive);
    }

    /// Writes a register.
    pub fn write(&mut self, cx: &mut Cx<'_>, at: u32, v: u32) {
        let h = &mut self.hw;
        let high = |old: u64| old & 0xffff_ffff | u64::from(v) << 32;
        let low = |old: u64, mask: u32| old & !0xffff_ffff | u64::from(v & mask);
        match at {
            0x00 => h.list = low(h.list, 0xffff_fc00),
            0x04 => h.list = high(h.list),
            0x08 => h.receive = low(h.receive, 0xffff_ff00),
            0x0c => h.receive = high(h.receive),
            0x10 => h.is &= !v,
            0x14 => h.ie = v & ENABLE_MASK,
            0x18 => self.write_command(cx, v),
            0x2c => {
                let was = std::mem::replace(&mut h.control, v);
                if was & 0xf == 1 && v & 0xf == 0 {
                    self.reset_link(cx);
                }
            }
            0x30 => h.serr &= !v,
            0x34 => h.active |= v,
            0x38 => {
                h.issue |= v;
                self.issue(cx);
            }
            _ => {}
        }
    }

    fn write_command(&mut self, cx: &mut Cx<'_>, v: u32) {
        let h = &mut self.hw;
        let old = h.cmd;
        h.cmd = (old & command::READ_ONLY) | (v & !(command::READ_ONLY | command::CONDITION));
        let follow = |cmd: &mut u32, on: u32, shown: u32| {
            *cmd = if *cmd & on != 0 { *cmd | shown } else { *cmd & !shown };
        };
        follow(&mut h.cmd, command::START, command::RUNNING);
        follow(&mut h.cmd, command::RECEIVE, command::RECEIVING);
        if h.cmd & command::START == 0 {
            (h.issue, h.active, h.halted) = (0, 0, false);
            if old & command::START != 0 {
                self.cancel();
            }
        }
        self.hw.greet(cx, &self.drive);
        self.issue(cx);
    }

    /// Gives the drive the next command, while there are any that it can take.
    fn issue(&mut self, cx: &mut Cx<'_>) {
        // Each round takes one slot, or ends.
        for _ in 0..64 {
            let h = &self.hw;
            if h.cmd & command::START == 0 || h.halted || h.slot.is_some() || h.issue == 0 {
                return;
            }
            let slot = h.issue.trailing_zeros() as u8;
            if !self.begin(cx, slot) {
                return;
            }
        }
    }

    /// Begins the command in a slot; `false` if no other can begin.
    fn begin(&mut self, cx: &mut Cx<'_>, slot: u8) -> bool {
        if !self.drive.present() {
            return false;
        }
        let Some(f) = self.hw.fetch(cx, slot) else { return false };
        if f[0] != fis::H2D {
            self.hw.issue &= !(1 << slot);
            return true;
        }
        if f[1] & fis::IS_COMMAND == 0 {
            return self.device_control(cx, slot, f[15]);
        }
        let code = f[2];
        if super::ncq::is_queued(code) && self.drive.kind == super::super::ata::Kind::Disk {
            return self.begin_queued(cx, slot, &f);
        }
        let t = &mut self.drive.tf;
        (t.feature, t.hob_feature) = (f[3], f[11]);
        (t.sector, t.lcyl, t.hcyl, t.select) = (f[4], f[5], f[6], f[7]);
        (t.hob_sector, t.hob_lcyl, t.hob_hcyl) = (f[8], f[9], f[10]);
        (t.nsector, t.hob_nsector) = (f[12].into(), f[13]);
        if !self.queued.is_empty() {
            // Others wait until the queue has run empty.
            return false;
        }
        self.hw.slot = Some(slot);
        self.hw.moved = 0;
        self.drive.command(cx, &mut self.hw, code);
        self.settle(cx);
        self.hw.slot.is_none()
    }

    /// Software reset: set with one FIS, taken away with the next.
    fn device_control(&mut self, cx: &mut Cx<'_>, slot: u8, control: u8) -> bool {
        self.hw.issue &= !(1 << slot);
        let on = control & fis::SRST != 0;
        if self.hw.resetting && !on {
            let issue = self.hw.issue;
            self.reset_link(cx);
            self.hw.issue = issue;
        }
        self.hw.resetting = on;
        true
    }

    /// Moves PIO data as long as the drive asks for any; when it has come to rest, tells the host.
    pub(super) fn settle(&mut self, cx: &mut Cx<'_>) {
        let Some(slot) = self.hw.slot else { return };
        while let Some((to_host, len)) = self.drive.pio() {
            let packet = self.drive.wants_packet();
            self.hw.send(cx, fis::PIO_AT, &fis::pio_setup(&self.drive.tf, len, to_host));
            if to_host {
                self.hw.raise(irq::PIO);
            }
            self.move_block(cx, to_host, packet, len);
        }
        if self.drive.working() {
            return;
        }
        self.hw.write_moved(cx, slot);
        self.hw.slot = None;
        self.hw.send_result(cx, &self.drive);
        if self.drive.tf.status & status::ERR == 0 {
            self.hw.issue &= !(1 << slot);
        } else {
            self.hw.halted = true;
        }
    }

    /// Moves one block of PIO data between drive and memory.
    fn move_block(&mut self, cx: &mut Cx<'_>, to_host: bool, packet: bool, len: usize) {
        let pos = self.hw.moved;
        let mut data = vec![0; len];
        if to_host {
            for w in data.chunks_mut(2) {
                let v = self.drive.data_read(cx, &mut self.hw).to_le_bytes();
                w.copy_from_slice(&v[..w.len()]);
            }
            self.hw.dma_to_memory(cx, pos, &data);
        } else {
            if packet {
                data.iter_mut().zip(self.hw.packet).for_each(|(to, from)| *to = from);
            } else {
                self.hw.dma_from_memory(cx, pos, &mut data);
            }
            for w in data.chunks(2) {
                let v = u16::from_le_bytes([w[0], w.get(1).copied().unwrap_or(0)]);
                self.drive.data_write(cx, &mut self.hw, v);
            }
        }
        if !packet {
            self.hw.moved = self.hw.moved.max(pos + len as u64);
        }
    }

    /// A request of the drive has ended.
    pub fn completed(&mut self, cx: &mut Cx<'_>, tag: u64, result: rqemu_block::IoResult) {
        self.drive.completed(cx, &mut self.hw, tag, result);
        self.settle(cx);
        self.issue(cx);
    }

    /// The machine runs again.
    pub fn resume(&mut self, cx: &mut Cx<'_>) {
        self.drive.resume(cx, &mut self.hw);
        self.settle(cx);
        self.resume_queued(cx);
        self.issue(cx);
    }

    pub(super) fn next(&mut self, cx: &mut Cx<'_>) {
        self.issue(cx);
    }
}
