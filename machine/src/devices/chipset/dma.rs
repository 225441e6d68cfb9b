//! ISA DMA controllers (Intel 8237 with page registers; datasheet 231466): two of them on a PC, the second for
//! 16-bit channels.
//!
//! A device that transfers by DMA registers itself for a channel ([`register`]), raises its request
//! ([`hold`]) and is then called back ([`DmaClient::run`]) as soon as the guest has unmasked the channel; in the
//! callback it moves data with [`read_memory`] and [`write_memory`] and reports how far it came. Channels are
//! numbered 0-7 as the bus does; 4 is the cascade.
//!
//! Left out, as in QEMU: memory-to-memory transfers, rotating priority, compressed timing. Register quirks follow
//! QEMU 7.2 (the mask register reads at offset 1 only). Tested here and against a real QEMU.

use rqemu_derive::Device;

use crate::device::{BusId, Cx, DevId, Device, IoHandler, RealizeCx};
use crate::machine::{Effect, Machine};
use crate::memory::IoSpec;
use crate::qom::{DeviceClass, PropInput};
use crate::QResult;

/// A device that transfers by ISA DMA ([`Device::dma_client`]).
pub trait DmaClient {
    /// The channel is ready: `pos` bytes of `len` are transferred. Moves data and returns the new position; a
    /// client that can take no more drops its request with [`release`].
    fn run(&mut self, cx: &mut Cx<'_>, channel: u8, pos: u32, len: u32) -> u32;
}

/// Direction of a transfer, as the guest programmed the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmaMode {
    /// Nothing is moved.
    Verify,
    /// From the device to memory.
    ToMemory,
    /// From memory to the device.
    FromMemory,
    /// Reserved.
    Illegal,
}

const MODE_DECREMENT: u8 = 0x20;
const MODE_AUTOINIT: u8 = 0x10;

/// Registers of channels, command and page ranges, as tags of accesses.
const TAG_CHANNELS: u32 = 0;
const TAG_CONTROL: u32 = 1;
const TAG_PAGE: u32 = 2;
const TAG_PAGE_HIGH: u32 = 3;

/// Channel of the page register at an offset from the page base.
const PAGE_CHANNEL: [Option<usize>; 8] = [None, Some(2), Some(3), Some(1), None, None, None, Some(0)];

/// DMA controller.
#[derive(Device)]
#[class(name = "i8257", parent = "isa-device", bus = Isa, internal)]
pub struct I8257Props {
    /// First port of the channel registers
    #[prop]
    pub base: i32,
    /// First port of the page registers
    #[prop(default = 0x80)]
    pub page_base: i32,
    /// First port of the high page registers, negative for none
    #[prop(default = 0x480)]
    pub pageh_base: i32,
    /// 1 for a controller of 16-bit channels
    #[prop]
    pub dshift: i32,
}

impl DeviceClass for I8257Props {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let shift = u32::from(self.dshift == 1);
        let (base, len) = (self.base as u16, 8 << shift);
        cx.map_ports("dma-chan", base, len, TAG_CHANNELS, IoSpec::BYTES);
        cx.map_ports("dma-cont", base.wrapping_add(len as u16), len, TAG_CONTROL, IoSpec::BYTES);
        let mut pages = |at: i32, tag: u32, names: [&'static str; 2]| {
            // Offset 0 and 4-6 are plain ports; the tag carries where the range begins.
            cx.map_ports(names[0], at.wrapping_add(1) as u16, 3, tag | 1 << 8, IoSpec::BYTES);
            cx.map_ports(names[1], at.wrapping_add(7) as u16, 1, tag | 7 << 8, IoSpec::BYTES);
        };
        pages(self.page_base, TAG_PAGE, ["dma-page", "dma-page"]);
        if self.pageh_base >= 0 {
            pages(self.pageh_base, TAG_PAGE_HIGH, ["dma-pageh", "dma-pageh"]);
        }
        Ok(Box::new(I8257 {
            shift,
            channels: Default::default(),
            flip_flop: false,
            status: 0,
            command: 0,
            mask: 0,
        }))
    }
}

#[derive(Clone, Copy, Default)]
struct Channel {
    /// Address and count as programmed.
    base: [u16; 2],
    /// Current address and bytes transferred.
    address: u32,
    done: u32,
    mode: u8,
    page: u8,
    page_high: u8,
    /// Device that transfers on it.
    client: Option<DevId>,
}

/// Controller at run time.
pub struct I8257 {
    shift: u32,
    channels: [Channel; 4],
    flip_flop: bool,
    /// Low half: terminal count reached (cleared by reading); high half: requests.
    status: u8,
    command: u8,
    mask: u8,
}

impl I8257 {
    fn flip(&mut self) -> bool {
        self.flip_flop = !self.flip_flop;
        !self.flip_flop
    }

    /// Bytes of a whole transfer.
    fn length(&self, ch: usize) -> u32 {
        (u32::from(self.channels[ch].base[1]) + 1) << self.shift
    }

    fn read_channel(&mut self, offset: u64) -> u8 {
        let reg = (offset >> self.shift) as usize & 7;
        let high = self.flip();
        let c = &self.channels[reg >> 1];
        let v = if reg & 1 != 0 {
            (u32::from(c.base[1]) << self.shift).wrapping_sub(c.done)
        } else if c.mode & MODE_DECREMENT != 0 {
            c.address.wrapping_sub(c.done)
        } else {
            c.address.wrapping_add(c.done)
        };
        (v >> (self.shift + if high { 8 } else { 0 })) as u8
    }

    fn write_channel(&mut self, offset: u64, v: u8) {
        let reg = (offset >> self.shift) as usize & 7;
        let high = self.flip();
        let shift = self.shift;
        let c = &mut self.channels[reg >> 1];
        let r = &mut c.base[reg & 1];
        if high {
            *r = (*r & 0xff) | u16::from(v) << 8;
            c.address = u32::from(c.base[0]) << shift;
            c.done = 0;
        } else {
            *r = (*r & 0xff00) | u16::from(v);
        }
    }

    fn read_control(&mut self, offset: u64) -> u8 {
        match offset >> self.shift {
            0 => {
                let v = self.status;
                self.status &= 0xf0;
                v
            }
            1 => self.mask,
            _ => 0,
        }
    }

    fn write_control(&mut self, offset: u64, v: u8) {
        let ch = v & 3;
        match offset >> self.shift {
            0 => self.command = v,
            1 if v & 4 != 0 => self.status |= 0x10 << ch,
            1 => self.status &= !(0x10 << ch),
            2 if v & 4 != 0 => self.mask |= 1 << ch,
            2 => self.mask &= !(1 << ch),
            3 => self.channels[usize::from(ch)].mode = v,
            4 => self.flip_flop = false,
            5 => self.clear(),
            6 => self.mask = 0,
            7 => self.mask = v,
            _ => {}
        }
    }

    /// Master clear.
    fn clear(&mut self) {
        self.flip_flop = false;
        self.mask = 0xff;
        self.status = 0;
        self.command = 0;
    }

    /// First ready channel at or after `from`: requested and not masked.
    fn ready(&self, from: usize) -> Option<usize> {
        (from..4).find(|c| self.status & (0x10 << c) != 0 && self.mask & (1 << c) == 0)
    }

    /// Physical address of the first byte.
    fn physical(&self, ch: usize) -> u64 {
        let c = &self.channels[ch];
        u64::from(c.page_high & 0x7f) << 24 | u64::from(c.page) << 16 | u64::from(c.address)
    }

    /// Notes how far a transfer came.
    fn advance(&mut self, ch: usize, done: u32) {
        let len = self.length(ch);
        let c = &mut self.channels[ch];
        c.done = done.min(len);
        if c.done == len {
            self.status |= 1 << ch;
        }
    }
}

impl Device for I8257 {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.clear();
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for I8257 {
    fn read(&mut self, _cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8) -> u64 {
        let page = || PAGE_CHANNEL[(offset as usize + (region >> 8) as usize) & 7];
        u64::from(match region & 0xff {
            TAG_CHANNELS => self.read_channel(offset),
            TAG_CONTROL => self.read_control(offset),
            TAG_PAGE => page().map_or(0, |c| self.channels[c].page),
            _ => page().map_or(0, |c| self.channels[c].page_high),
        })
    }
    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, _size: u8, value: u64) {
        let (v, page) = (value as u8, PAGE_CHANNEL[(offset as usize + (region >> 8) as usize) & 7]);
        match (region & 0xff, page) {
            (TAG_CHANNELS, _) => self.write_channel(offset, v),
            (TAG_CONTROL, _) => self.write_control(offset, v),
            (TAG_PAGE, Some(c)) => self.channels[c].page = v,
            (TAG_PAGE_HIGH, Some(c)) => self.channels[c].page_high = v,
            _ => {}
        }
        // The write may have unmasked a channel that waits.
        if region == TAG_CONTROL && self.ready(0).is_some() {
            schedule(cx.m, cx.dev);
        }
    }
}

/// Lets ready channels transfer after the running handler returned.
fn schedule(m: &mut Machine, controller: DevId) {
    m.push_effect(Effect::Call(Box::new(move |m| run(m, controller))));
}

/// One turn for each ready channel.
fn run(m: &mut Machine, controller: DevId) {
    let mut from = 0;
    while let Some((ch, client, pos, len, no)) = m
        .with::<I8257, _>(controller, |d, _| {
            let ch = d.ready(from)?;
            let c = &d.channels[ch];
            Some((ch, c.client, c.done, d.length(ch), ch as u8 + if d.shift == 1 { 4 } else { 0 }))
        })
        .flatten()
    {
        from = ch + 1;
        let Some(client) = client else { continue };
        let done = m.with_dev(client, |d, cx| d.dma_client().map(|c| c.run(cx, no, pos, len))).flatten();
        m.with::<I8257, _>(controller, |d, cx| {
            d.advance(ch, done.unwrap_or(pos));
            // A client that still asks and got somewhere has more to move.
            let more = d.status & (0x10 << ch) != 0 && d.mask & (1 << ch) == 0;
            if more && done.is_some_and(|n| n != pos && n < len) {
                schedule(cx.m, cx.dev);
            }
        });
    }
}

/// Controller and its channel number for bus channel `channel` (0-7).
fn locate(m: &Machine, channel: u8) -> Option<(DevId, usize)> {
    let nth = usize::from(channel >> 2 & 1);
    let dev = m.tree.iter().filter(|n| n.class.name == "i8257").nth(nth)?.id;
    Some((dev, usize::from(channel & 3)))
}

fn on<R>(m: &mut Machine, channel: u8, f: impl FnOnce(&mut I8257, usize, &mut Cx<'_>) -> R) -> Option<R> {
    let (dev, ch) = locate(m, channel)?;
    m.with::<I8257, _>(dev, |d, cx| f(d, ch, cx))
}

/// Makes `client` the device behind a channel. `false` if there is no such channel.
pub fn register(m: &mut Machine, channel: u8, client: DevId) -> bool {
    channel < 8 && on(m, channel, |d, ch, _| d.channels[ch].client = Some(client)).is_some()
}

/// Raises the request of a channel: the client is called once the channel is ready.
pub fn hold(m: &mut Machine, channel: u8) {
    on(m, channel, |d, ch, cx| {
        d.status |= 0x10 << ch;
        if d.ready(0).is_some() {
            schedule(cx.m, cx.dev);
        }
    });
}

/// Drops the request of a channel.
pub fn release(m: &mut Machine, channel: u8) {
    on(m, channel, |d, ch, _| d.status &= !(0x10 << ch));
}

/// Direction that the guest programmed.
pub fn mode(m: &mut Machine, channel: u8) -> DmaMode {
    match on(m, channel, |d, ch, _| d.channels[ch].mode >> 2 & 3) {
        Some(0) => DmaMode::Verify,
        Some(1) => DmaMode::ToMemory,
        Some(2) => DmaMode::FromMemory,
        _ => DmaMode::Illegal,
    }
}

/// Whether the channel starts over after the last byte.
pub fn autoinit(m: &mut Machine, channel: u8) -> bool {
    on(m, channel, |d, ch, _| d.channels[ch].mode & MODE_AUTOINIT != 0).unwrap_or(false)
}

/// First address and whether addresses count down.
fn place(m: &mut Machine, channel: u8) -> Option<(u64, bool)> {
    on(m, channel, |d, ch, _| (d.physical(ch), d.channels[ch].mode & MODE_DECREMENT != 0))
}

/// Start of the `len` bytes at position `pos` of a transfer, and whether they are stored in reverse.
fn span((base, down): (u64, bool), pos: u32, len: usize) -> (u64, bool) {
    let pos = u64::from(pos);
    match down {
        false => (base.wrapping_add(pos), false),
        true => (base.wrapping_sub(pos).wrapping_sub(len as u64), true),
    }
}

/// Reads memory for the client, from position `pos` of the transfer. Bytes where there is no memory stay as they are.
pub fn read_memory(cx: &mut Cx<'_>, channel: u8, buf: &mut [u8], pos: u32) {
    let Some(at) = place(cx.m, channel) else { return };
    let (addr, reverse) = span(at, pos, buf.len());
    // A hole reads as whatever was there; there is nobody to tell on this bus.
    let _ = cx.dma_read(addr, buf);
    if reverse {
        buf.reverse();
    }
}

/// Writes memory for the client, at position `pos` of the transfer.
pub fn write_memory(cx: &mut Cx<'_>, channel: u8, buf: &[u8], pos: u32) {
    let Some(at) = place(cx.m, channel) else { return };
    let (addr, reverse) = span(at, pos, buf.len());
    let mut turned = Vec::new();
    let data = if reverse {
        turned.extend(buf.iter().rev());
        &turned
    } else {
        buf
    };
    let _ = cx.dma_write(addr, data);
}

/// Makes both controllers of a PC on bus `isa`, without high page registers, as the `pc` machine has them.
///
/// # Errors
/// Only those of device creation.
pub fn create(m: &mut Machine, isa: BusId) -> QResult<[DevId; 2]> {
    let mut one = |base: &str, page: &str, dshift: &str| {
        let p = PropInput::Str;
        let props =
            [("base", p(base)), ("page-base", p(page)), ("pageh-base", p("-1")), ("dshift", p(dshift))];
        m.add_board_device("i8257", Some(isa), &props)
    };
    Ok([one("0", "0x80", "0")?, one("0xc0", "0x88", "1")?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;
    use crate::device::{BusKind, Place};
    use crate::qom::Classed;

    /// A client that moves at most 3 bytes in a turn.
    struct Client {
        data: Vec<u8>,
        turns: u32,
    }
    impl Device for Client {
        fn reset(&mut self, _: &mut Cx<'_>) {}
        fn dma_client(&mut self) -> Option<&mut dyn DmaClient> {
            Some(self)
        }
        fn as_any(&mut self) -> &mut dyn std::any::Any {
            self
        }
    }
    impl DmaClient for Client {
        fn run(&mut self, cx: &mut Cx<'_>, channel: u8, pos: u32, len: u32) -> u32 {
            self.turns += 1;
            let n = (len - pos).min(3);
            let part = pos as usize..(pos + n) as usize;
            match mode(cx.m, channel) {
                DmaMode::ToMemory => write_memory(cx, channel, &self.data[part], pos),
                _ => read_memory(cx, channel, &mut self.data[part], pos),
            }
            if pos + n == len {
                release(cx.m, channel);
            }
            pos + n
        }
    }

    fn setup() -> (Machine, DevId) {
        let mut m = machine();
        let ram = m.new_ram("ram", 1 << 20, false, None).unwrap();
        let system = m.mem.system;
        m.mem.map(system, ram, 0, 0);
        let isa = m.tree.add_bus("isa.0".into(), BusKind::Isa, None);
        create(&mut m, isa).unwrap();
        // The class does not matter; the run-time device is the test's.
        let client =
            m.tree.add(I8257Props::CLASS, Box::new(I8257Props::default()), None, Place::Unattached(9));
        m.tree.get_mut(client).unwrap().dev = Some(Box::new(Client { data: vec![0; 16], turns: 0 }));
        m.reset_devices();
        assert!(register(&mut m, 2, client) && !register(&mut m, 9, client));
        (m, client)
    }

    /// Channel 2: `len` bytes at 0x1_2000.
    fn program(m: &mut Machine, mode: u8, len: u8) {
        for (port, v) in [
            (0x0a, 6),
            (0x0c, 0),
            (0x04, 0x00),
            (0x04, 0x20),
            (0x05, len - 1),
            (0x05, 0),
            (0x81, 1),
            (0x0b, mode),
        ] {
            m.outb(port, v);
        }
    }

    #[test]
    fn to_memory_waits_for_the_mask() {
        let (mut m, client) = setup();
        m.with::<Client, _>(client, |c, _| c.data = (1..=16).collect());
        program(&mut m, 0x46, 8);
        hold(&mut m, 2);
        m.settle();
        assert_eq!(m.inb(0x08) & 0x44, 0x40, "requested, masked");
        m.outb(0x0a, 2);
        let mut b = [0; 9];
        m.flat().mem.read(0x1_2000, &mut b).unwrap();
        assert_eq!(b, [1, 2, 3, 4, 5, 6, 7, 8, 0]);
        assert_eq!(m.inb(0x08), 0x04, "terminal count");
        assert_eq!(m.inb(0x08), 0, "cleared by reading");
        assert_eq!(m.with::<Client, _>(client, |c, _| c.turns), Some(3));
        m.outb(0x0c, 0);
        assert_eq!((m.inb(0x04), m.inb(0x04)), (0x08, 0x20), "current address");
    }

    #[test]
    fn from_memory_downwards() {
        let (mut m, client) = setup();
        m.flat().mem.write(0x1_1ffc, &[1, 2, 3, 4]).unwrap();
        program(&mut m, 0x6a, 4);
        m.outb(0x0a, 2);
        hold(&mut m, 2);
        m.settle();
        let got = m.with::<Client, _>(client, |c, _| c.data[..4].to_vec());
        assert_eq!(got, Some(vec![4, 3, 2, 1]));
        assert!(!autoinit(&mut m, 2));
    }
}
