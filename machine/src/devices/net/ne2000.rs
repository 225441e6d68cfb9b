//! NE2000 on PCI (RTL8029AS): a DP8390 network interface controller (National Semiconductor data sheet) with 32 KiB of
//! packet memory behind a data port.
//!
//! Reset values are QEMU 7.2's. As in QEMU, statistics and loopback are left out, and monitor mode receives.

use rqemu_derive::Device as DeriveDevice;

use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx};
use crate::devices::storage::blk::BootIndex;
use crate::memory::IoSpec;
use crate::net::{crc, NetFrontend, NetId};
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::{DeviceClass, MacAddr, NetdevRef};
use crate::QResult;

const SIZE: u64 = 0x100;

/// Address PROM, then packet memory.
const PROM: usize = 32;
const MEM_START: usize = 0x4000;
const MEM_END: usize = 0xc000;
const MEM_SIZE: usize = MEM_END - MEM_START;

const DATA_PORT: u64 = 0x10;
const RESET_PORT: u64 = 0x1f;

/// Command register.
mod cr {
    pub const STOP: u8 = 1;
    pub const TXP: u8 = 4;
    pub const READ: u8 = 8;
    pub const WRITE: u8 = 0x10;
    pub const ABORT: u8 = 0x20;
}

/// Interrupt status.
mod isr {
    pub const PRX: u8 = 1;
    pub const PTX: u8 = 2;
    pub const RDC: u8 = 0x40;
    pub const RST: u8 = 0x80;
}

/// Receive configuration.
const RCR_BROADCAST: u8 = 4;
const RCR_MULTICAST: u8 = 8;
const RCR_PROMISCUOUS: u8 = 0x10;
/// Receive status: good, and sent to a group.
const RSR_PRX: u8 = 1;
const RSR_PHY: u8 = 0x20;
/// Words at the data port.
const DCR_WTS: u8 = 1;

const MIN_FRAME: usize = 60;
/// Room that a frame may need with its header.
const MAX_FRAME: usize = 1514 + 4;
/// Header in packet memory: status, next page, length.
const HEADER: usize = 4;

/// Properties of `ne2k_pci`.
#[derive(DeriveDevice, Debug)]
#[class(name = "ne2k_pci", parent = "pci-device", bus = Pci, category = Network, hotplug)]
pub struct Ne2kPciProps {
    /// Ethernet address, for example 52:54:00:12:34:56
    #[prop]
    pub mac: MacAddr,
    /// ID of a netdev to use as a backend
    #[prop]
    pub netdev: NetdevRef,
    #[prop(object)]
    pub bootindex: BootIndex,
    /// Properties of every PCI device.
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for Ne2kPciProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci = PciState::new(PciIds {
            vendor: 0x10ec,
            device: 0x8029,
            revision: 0,
            class: 0x0200,
            prog_if: 0,
            subsystem: None,
        });
        pci.set_interrupt_pin(1);
        let bar = cx.io_region("ne2000", SIZE, 0, IoSpec::ANY);
        pci.add_bar(0, bar, SIZE, BarKind::Io);
        super::boot_rom(cx, &mut pci, &mut self.pci, "ne2k_pci", "efi-ne2k_pci.rom")?;
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        self.pci.addr.0 = i32::from(pci.devfn);
        let nic = super::connect(cx, "ne2k_pci", &self.netdev, &mut self.mac)?;
        let mut chip = Chip { mem: vec![0; MEM_END].into(), ..Chip::default() };
        chip.power_on(self.mac.0);
        Ok(Box::new(Ne2kPci { pci, nic, mac: self.mac.0, chip }))
    }
}

/// The controller.
#[derive(Default)]
struct Chip {
    command: u8,
    /// Receive ring, by address.
    start: usize,
    stop: usize,
    boundary: u8,
    current: u8,
    tx_page: u8,
    tx_len: u16,
    isr: u8,
    imr: u8,
    dma_at: u16,
    dma_left: u16,
    rx_config: u8,
    dcr: u8,
    tsr: u8,
    rsr: u8,
    address: [u8; 6],
    multicast: [u8; 8],
    mem: Box<[u8]>,
}

impl Chip {
    fn power_on(&mut self, mac: [u8; 6]) {
        let mem = std::mem::take(&mut self.mem);
        *self = Self { command: cr::STOP | cr::ABORT, isr: isr::RST, mem, ..Self::default() };
        // Each byte stands there twice; the signature says that the bus has 16 bits.
        let prom = mac.into_iter().chain([0; 8]).chain([0x57; 2]);
        for (pair, b) in self.mem.chunks_exact_mut(2).zip(prom) {
            pair.fill(b);
        }
    }

    fn readable(at: usize) -> bool {
        at < PROM || (MEM_START..MEM_END).contains(&at)
    }

    fn mem_read(&self, at: usize) -> u8 {
        if Self::readable(at) {
            self.mem.get(at).copied().unwrap_or(0xff)
        } else {
            0xff
        }
    }

    fn mem_write(&mut self, at: usize, v: u8) {
        if Self::readable(at) {
            if let Some(b) = self.mem.get_mut(at) {
                *b = v;
            }
        }
    }

    /// Moves remote DMA on by `n` bytes.
    fn dma_advance(&mut self, n: u16) {
        self.dma_at = self.dma_at.wrapping_add(n);
        if usize::from(self.dma_at) == self.stop {
            self.dma_at = self.start as u16;
        }
        if self.dma_left <= n {
            self.dma_left = 0;
            self.isr |= isr::RDC;
        } else {
            self.dma_left -= n;
        }
    }

    /// Width of an access to the data port.
    fn width(&self, size: u8) -> u16 {
        match size {
            4 => 4,
            _ if self.dcr & DCR_WTS != 0 => 2,
            _ => 1,
        }
    }

    fn data_read(&mut self, size: u8) -> u32 {
        let width = self.width(size);
        // Wider accesses are aligned.
        let at = usize::from(if width > 1 { self.dma_at & !1 } else { self.dma_at });
        let v = (0..usize::from(width)).rev().fold(0, |v, i| v << 8 | u32::from(self.mem_read(at + i)));
        self.dma_advance(width);
        v
    }

    fn data_write(&mut self, size: u8, v: u32) {
        if self.dma_left == 0 {
            return;
        }
        let width = self.width(size);
        let at = usize::from(if width > 1 { self.dma_at & !1 } else { self.dma_at });
        for (i, b) in v.to_le_bytes().into_iter().take(usize::from(width)).enumerate() {
            self.mem_write(at + i, b);
        }
        self.dma_advance(width);
    }

    fn read(&self, at: u8) -> u8 {
        match (self.command >> 6, at) {
            (_, 0) => self.command,
            (0, 3) => self.boundary,
            (0, 4) => self.tsr,
            (0, 7) => self.isr,
            (0, 8) => self.dma_at as u8,
            (0, 9) => (self.dma_at >> 8) as u8,
            // The chip's identity.
            (0, 10) => 0x50,
            (0, 11) => 0x43,
            (0, 12) => self.rsr,
            (1, 1..=6) => self.address[usize::from(at - 1)],
            (1, 7) => self.current,
            (1, 8..=15) => self.multicast[usize::from(at - 8)],
            (2, 1) => (self.start >> 8) as u8,
            (2, 2) => (self.stop >> 8) as u8,
            // Full duplex.
            (3, 5 | 6) => 0x40,
            _ => 0,
        }
    }

    fn write(&mut self, at: u8, v: u8) {
        let page = usize::from(v) << 8;
        let inside = page <= MEM_END;
        let low = |old: u16| old & 0xff00 | u16::from(v);
        let high = |old: u16| old & 0x00ff | u16::from(v) << 8;
        match (self.command >> 6, at) {
            (0, 1) if inside => self.start = page,
            (0, 2) if inside => self.stop = page,
            (0, 3) if inside => self.boundary = v,
            (0, 4) => self.tx_page = v,
            (0, 5) => self.tx_len = low(self.tx_len),
            (0, 6) => self.tx_len = high(self.tx_len),
            (0, 7) => self.isr &= !(v & 0x7f),
            (0, 8) => self.dma_at = low(self.dma_at),
            (0, 9) => self.dma_at = high(self.dma_at),
            (0, 10) => self.dma_left = low(self.dma_left),
            (0, 11) => self.dma_left = high(self.dma_left),
            (0, 12) => self.rx_config = v,
            (0, 14) => self.dcr = v,
            (0, 15) => self.imr = v,
            (1, 1..=6) => self.address[usize::from(at - 1)] = v,
            (1, 7) if inside => self.current = v,
            (1, 8..=15) => self.multicast[usize::from(at - 8)] = v,
            _ => {}
        }
    }

    /// The frame that the command register starts, if it lies in memory.
    fn frame_to_send(&self) -> Option<&[u8]> {
        let mut at = usize::from(self.tx_page) << 8;
        if at >= MEM_END {
            at -= MEM_SIZE;
        }
        self.mem.get(at..at + usize::from(self.tx_len)).filter(|f| !f.is_empty())
    }

    /// Free bytes of the receive ring.
    fn room(&self) -> usize {
        let (at, boundary) = (usize::from(self.current) << 8, usize::from(self.boundary) << 8);
        let size = self.stop.saturating_sub(self.start);
        if at < boundary {
            boundary - at
        } else {
            size.saturating_sub(at - boundary)
        }
    }

    fn receiving(&self) -> bool {
        self.command & cr::STOP == 0 && self.stop > self.start && self.room() >= MAX_FRAME
    }

    fn lets_in(&self, frame: &[u8]) -> bool {
        if self.rx_config & RCR_PROMISCUOUS != 0 {
            return true;
        }
        match frame.first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => self.rx_config & RCR_BROADCAST != 0,
            Some(dst) if dst[0] & 1 != 0 => {
                let i = crc::hash6(dst);
                let known = self.multicast[i as usize / 8] >> (i % 8) & 1 != 0;
                self.rx_config & RCR_MULTICAST != 0 && known
            }
            Some(dst) => *dst == self.address,
            None => false,
        }
    }

    /// Puts a frame into the ring.
    fn store(&mut self, frame: &[u8]) {
        let len = frame.len() + HEADER;
        let at = usize::from(self.current) << 8;
        let mut next = at + (len + HEADER).next_multiple_of(256);
        if next >= self.stop {
            next -= (self.stop - self.start).min(next);
        }
        self.rsr = RSR_PRX | if frame[0] & 1 != 0 { RSR_PHY } else { 0 };
        let [l0, l1] = (len as u16).to_le_bytes();
        let header = [self.rsr, (next >> 8) as u8, l0, l1];
        let mut at = at;
        for b in header.into_iter().chain(frame.iter().copied()) {
            if at >= self.stop {
                at = self.start;
            }
            self.mem_write(at, b);
            at += 1;
        }
        self.current = (next >> 8) as u8;
        self.isr |= isr::PRX;
    }
}

/// A card.
pub struct Ne2kPci {
    pci: PciState,
    nic: NetId,
    mac: [u8; 6],
    chip: Chip,
}

impl Ne2kPci {
    fn update_irq(&mut self, cx: &mut Cx<'_>) {
        let level = self.chip.isr & self.chip.imr & 0x7f != 0;
        self.pci.set_intx(cx, level);
    }

    fn command(&mut self, cx: &mut Cx<'_>, v: u8) {
        self.chip.command = v;
        if v & cr::STOP != 0 {
            return;
        }
        self.chip.isr &= !isr::RST;
        if v & (cr::READ | cr::WRITE) != 0 && self.chip.dma_left == 0 {
            self.chip.isr |= isr::RDC;
        }
        if v & cr::TXP != 0 {
            if let Some(f) = self.chip.frame_to_send() {
                cx.m.net_send(self.nic, f);
            }
            self.chip.tsr = 1;
            self.chip.isr |= isr::PTX;
            self.chip.command &= !cr::TXP;
        }
        self.update_irq(cx);
        cx.m.net_flush(self.nic);
    }
}

impl IoHandler for Ne2kPci {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8) -> u64 {
        let v = match (offset, size) {
            (0..=15, 1) => u64::from(self.chip.read(offset as u8)),
            (DATA_PORT, _) => {
                let v = self.chip.data_read(size);
                self.update_irq(cx);
                u64::from(v)
            }
            (RESET_PORT, 1) => {
                self.chip.power_on(self.mac);
                self.update_irq(cx);
                0
            }
            _ => u64::MAX,
        };
        v & crate::machine::mask(size)
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, offset: u64, size: u8, value: u64) {
        match (offset, size) {
            (0, 1) => self.command(cx, value as u8),
            (1..=15, 1) => {
                self.chip.write(offset as u8, value as u8);
                self.update_irq(cx);
                cx.m.net_flush(self.nic);
            }
            (DATA_PORT, _) => {
                self.chip.data_write(size, value as u32);
                self.update_irq(cx);
            }
            _ => {}
        }
    }
}

impl PciFunction for Ne2kPci {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
}

impl NetFrontend for Ne2kPci {
    fn can_receive(&mut self, _queue: u32) -> bool {
        self.chip.receiving()
    }

    fn receive(&mut self, cx: &mut Cx<'_>, _queue: u32, frame: &[u8]) -> bool {
        if !self.chip.receiving() {
            return false;
        }
        if frame.len() > MAX_FRAME - HEADER || !self.chip.lets_in(frame) {
            return true;
        }
        let mut padded = [0; MIN_FRAME];
        if let Some(p) = padded.get_mut(..frame.len()) {
            p.copy_from_slice(frame);
            self.chip.store(&padded);
        } else {
            self.chip.store(frame);
        }
        self.update_irq(cx);
        true
    }
}

impl Device for Ne2kPci {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.chip.power_on(self.mac);
        self.update_irq(cx);
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn net(&mut self) -> Option<&mut dyn NetFrontend> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::virtio::testing::{pci_machine, plug};
    use crate::machine::Machine;
    use crate::memory::Space;
    use crate::spec::visit::Mode;
    use crate::spec::Value;

    const IO: u64 = 0xc000;
    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

    struct Guest {
        m: Machine,
        wire: NetId,
        sock: std::net::UdpSocket,
    }

    impl Guest {
        fn new() -> Self {
            let mut m = pci_machine();
            let sock = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            sock.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let json = format!(
                r#"{{"type":"socket","id":"s","udp":"{}","localaddr":"{peer}"}}"#,
                sock.local_addr().unwrap()
            );
            let Value::Dict(d) = Value::from_json(serde_json::from_str(&json).unwrap()) else { panic!() };
            m.netdev_add(d, Mode::Json).unwrap();
            let wire = m.net_id("s").unwrap();
            plug(&mut m, "ne2k_pci", &[("netdev", "s")]).unwrap();
            Self { m, wire, sock }
        }
        fn r(&mut self, at: u64, size: u8) -> u64 {
            self.m.guest_read(Space::Io, IO + at, size)
        }
        fn w(&mut self, at: u64, v: u8) {
            self.m.guest_write(Space::Io, IO + at, 1, u64::from(v));
        }
        /// Starts remote DMA.
        fn dma(&mut self, at: u16, n: u16, command: u8) {
            self.w(0, 0x22);
            for (reg, v) in [(8, at), (9, at >> 8), (10, n), (11, n >> 8)] {
                self.w(reg, v as u8);
            }
            self.w(0, command);
        }
        fn words(&mut self, at: u16, n: u16) -> Vec<u8> {
            self.dma(at, n, 0x0a);
            (0..n / 2).flat_map(|_| (self.r(0x10, 2) as u16).to_le_bytes()).collect()
        }
        fn current(&mut self) -> u8 {
            self.w(0, 0x62);
            let v = self.r(7, 1) as u8;
            self.w(0, 0x22);
            v
        }
    }

    #[test]
    fn power_on_values() {
        let mut g = Guest::new();
        let page = |g: &mut Guest, p: u8| -> Vec<u8> {
            g.w(0, p << 6 | 0x21);
            (0..16).map(|i| g.r(i, 1) as u8).collect()
        };
        assert_eq!(page(&mut g, 0), [0x21, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0x50, 0x43, 0, 0, 0, 0]);
        assert_eq!(page(&mut g, 3)[..7], [0xe1, 0, 0, 0, 0, 0x40, 0x40]);
        assert_eq!((g.r(0, 2), g.r(0x18, 1), g.r(0x1f, 1)), (0xffff, 0xff, 0));
        g.w(0xe, 0x49);
        g.dma(0, 32, 0x0a);
        let prom: Vec<u64> = (0..16).map(|_| g.r(0x10, 2)).collect();
        assert_eq!(prom[..6], [0x5252, 0x5454, 0, 0x1212, 0x3434, 0x5656]);
        assert_eq!(prom[14], 0x5757);
        assert_eq!(g.r(7, 1), 0x40, "remote DMA is done");
    }

    #[test]
    fn transmission() {
        let mut g = Guest::new();
        g.w(0xe, 0x49);
        g.dma(0x4000, 64, 0x12);
        for i in 0..32 {
            g.m.guest_write(Space::Io, IO + 0x10, 2, i);
        }
        g.w(0xf, 2);
        for (reg, v) in [(7, 0xff), (4, 0x40), (5, 64), (6, 0), (0, 0x26)] {
            g.w(reg, v);
        }
        let mut b = [0; 100];
        assert_eq!(g.sock.recv(&mut b).unwrap(), 64);
        assert_eq!(b[..4], [0, 0, 1, 0]);
        assert_eq!((g.r(0, 1), g.r(4, 1), g.r(7, 1)), (0x22, 1, 2));
        assert!(g.m.irqs.level(crate::irq::IrqLine(0)));
        // Beyond the end of memory: nothing goes out, nothing breaks.
        for (reg, v) in [(7, 0xff), (5, 0xff), (6, 0xff), (0, 0x26)] {
            g.w(reg, v);
        }
        assert_eq!(g.r(7, 1), 2);
        g.sock.set_nonblocking(true).unwrap();
        assert!(g.sock.recv(&mut b).is_err());
    }

    fn frame(dst: [u8; 6], n: usize) -> Vec<u8> {
        let mut f = dst.to_vec();
        f.extend([2; 6]);
        f.extend(vec![b'y'; n]);
        f
    }

    fn receiver() -> Guest {
        let mut g = Guest::new();
        for (reg, v) in [(0xc, 4), (1, 0x46), (2, 0x80), (3, 0x46), (0xe, 0x49), (0, 0x61)] {
            g.w(reg, v);
        }
        for (i, b) in MAC.into_iter().enumerate() {
            g.w(1 + i as u64, b);
        }
        g.w(7, 0x47);
        g.w(0, 0x22);
        g
    }

    #[test]
    fn reception() {
        let mut g = receiver();
        let f = frame(MAC, 88);
        assert!(g.m.net_send(g.wire, &f));
        assert_eq!((g.current(), g.r(7, 1), g.r(0xc, 1)), (0x48, 1, 1));
        assert_eq!(g.words(0x4700, 4), [1, 0x48, 0x68, 0]);
        assert_eq!(g.words(0x4704, 100), f);
        g.m.net_send(g.wire, &frame([0xff; 6], 88));
        assert_eq!(g.words(0x4800, 4), [0x21, 0x49, 0x68, 0]);
        g.m.net_send(g.wire, &frame([2; 6], 88));
        g.m.net_send(g.wire, &frame([1, 0, 0x5e, 0, 0, 1], 88));
        assert_eq!(g.current(), 0x49);
        // Full: frames wait until the driver moves the boundary, and wrap around.
        let mut n = 0;
        while g.m.net_send(g.wire, &frame(MAC, 1300)) {
            n += 1;
        }
        assert_eq!(n, 9);
        let at = g.current();
        g.w(3, at - 1);
        g.m.net_continue();
        assert_ne!(g.current(), at);
    }

    #[test]
    fn hostile_values() {
        let mut g = receiver();
        for (start, stop, at, boundary) in
            [(0, 0xc0, 0xbf, 0), (0xc0, 0, 0, 0), (0, 0xc0, 0xc0, 0xc0), (0x40, 0x41, 0xc0, 0xbf)]
        {
            for (reg, v) in [(0, 0x21), (1, start), (2, stop), (3, boundary), (0, 0x61), (7, at), (0, 0x22)] {
                g.w(reg, v);
            }
            for _ in 0..70 {
                g.m.net_send(g.wire, &frame(MAC, 1488));
            }
        }
        g.dma(0xffff, 0xffff, 0x0a);
        for at in 0..0xff {
            for size in [1, 2, 4] {
                g.m.guest_write(Space::Io, IO + at, size, 0xffff_ffff);
                g.r(at, size);
            }
        }
    }
}
