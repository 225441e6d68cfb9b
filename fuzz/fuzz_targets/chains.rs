//! Virtqueues in hostile memory: the input is 64 KiB of guest memory after a few bytes that place the rings.
#![cfg_attr(fuzzing, no_main)]

use rqemu_fuzz::Bytes;
use rqemu_machine::devices::virtio::queue::{Chain, Layout, Queue, RingFeatures};
use rqemu_machine::memory::{RamSource, Space};
use rqemu_machine::Machine;

const MEMORY: u64 = 64 << 10;

fn check(data: &[u8]) {
    let mut b = Bytes(data);
    let size = 1u16 << (b.take(1) % 11);
    let features = RingFeatures::from_bits(b.take(8));
    let place = |b: &mut Bytes| b.take(2) << (b.take(1) % 24);
    let layout = Layout { size, desc: place(&mut b), avail: place(&mut b), used: place(&mut b) };
    let mut m = Machine::new();
    let Ok(ram) = m.new_ram_from("ram", MEMORY, false, None, RamSource::Anonymous) else { return };
    let system = m.mem.system;
    m.mem.map(system, ram, 0, 0);
    m.settle();
    let rest = &b.0[..b.0.len().min(MEMORY as usize)];
    m.bus_write(Space::Memory, 0, rest);
    let q = Queue::new(0, layout, features, &m.maps);
    let mut chain = Chain::default();
    let mut popped = 0u32;
    // Rings that lie over each other can offer chains for ever.
    while popped < 2048 {
        let more = q.avail.lock().pop(&mut chain);
        let Ok(true) = more else { break };
        popped += 1;
        let mut head = [0; 16];
        let n = chain.readable.read(0, &mut head);
        chain.writable.write(0, &head[..n]);
        if let Some(s) = chain.writable.last_byte() {
            s.write_u8(1);
        }
        let len = u32::try_from(chain.writable.total()).unwrap_or(u32::MAX);
        if q.used.lock().push(chain.head, len).is_err() {
            break;
        }
        q.used.lock().should_interrupt(false);
        q.avail.lock().set_notify(popped % 2 == 0);
    }
}

fn sample() -> Vec<u8> {
    let mut v = vec![3, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 1, 0];
    let mut mem = vec![0u8; 1024];
    for i in 0..8usize {
        let d = &mut mem[16 * i..16 * i + 16];
        d[..8].copy_from_slice(&(512 + 32 * i as u64).to_le_bytes());
        d[8..12].copy_from_slice(&32u32.to_le_bytes());
        d[12..14].copy_from_slice(&(if i % 2 == 0 { 1u16 } else { 2 }).to_le_bytes());
        d[14..16].copy_from_slice(&(i as u16 + 1).to_le_bytes());
    }
    mem[0x82] = 4;
    for i in 0..4 {
        mem[0x84 + 2 * i] = 2 * i as u8;
    }
    v.extend(mem);
    v
}

rqemu_fuzz::target!(vec![sample()], check);
