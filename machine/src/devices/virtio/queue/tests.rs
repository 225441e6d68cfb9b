//! Queue halves by themselves.

use super::*;
use crate::devices::virtio::testing::{pci_machine, DATA};

fn queue(m: &crate::Machine, features: RingFeatures) -> Queue {
    Queue::new(0, Layout { size: 8, desc: 0x1000, avail: 0x2000, used: 0x3000 }, features, &m.maps)
}

fn put(m: &crate::Machine, at: u64, words: &[u16]) {
    let b: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    m.flat().mem.write(at, &b).unwrap();
}

fn word(m: &crate::Machine, at: u64) -> u16 {
    let mut b = [0; 2];
    m.flat().mem.read(at, &mut b).unwrap();
    u16::from_le_bytes(b)
}

#[test]
fn legacy_layout_is_page_aligned() {
    let l = Layout::legacy(0x10_0000, 256, 4096);
    assert_eq!((l.avail, l.used), (0x10_1000, 0x10_2000));
    assert_eq!(Layout::legacy(u64::MAX - 15, 256, 4096).used & 4095, 0);
}

#[test]
fn a_buffer_may_cross_blocks_and_is_joined_in_order() {
    let mut m = pci_machine();
    // Other RAM right behind the first 4 MiB.
    let r = m.new_ram("more", 4096, false, None).unwrap();
    let system = m.mem.system;
    m.mem.map(system, r, 4 << 20, 0);
    m.settle();
    let q = queue(&m, RingFeatures::default());
    let start = (4u64 << 20) - 8;
    put(&m, 0x1000, &[start as u16, (start >> 16) as u16, 0, 0, 16, 0, 0, 0]);
    put(&m, 0x2000, &[0, 1, 0]);
    m.flat().mem.write(start, b"0123456789abcdef").unwrap();
    let mut c = Chain::default();
    assert_eq!(q.avail.lock().pop(&mut c), Ok(true));
    assert_eq!(c.readable.list().len(), 2);
    assert_eq!(c.readable.to_vec(100), b"0123456789abcdef");
    assert_eq!(q.avail.lock().pop(&mut c), Ok(false));
}

#[test]
fn rings_follow_the_memory_map() {
    let mut m = pci_machine();
    let q = queue(&m, RingFeatures::default());
    put(&m, 0x2000, &[0, 1, 0]);
    put(&m, 0x1000, &[DATA as u16, (DATA >> 16) as u16, 0, 0, 16, 0, 0, 0]);
    let mut c = Chain::default();
    assert_eq!(q.avail.lock().pop(&mut c), Ok(true));
    // The RAM goes away: no stale address is used.
    let ram = m.mem.iter().find(|(_, r)| r.name == "ram").unwrap().0;
    m.mem.unmap(ram);
    m.settle();
    assert!(matches!(q.avail.lock().pop(&mut c), Err(QueueError::Ring(_))));
    assert!(q.used.lock().push(0, 0).is_err());
    assert!(!q.used.lock().should_interrupt(false));
}

#[test]
fn notifications_by_flag_and_by_event_index() {
    let m = pci_machine();
    let q = queue(&m, RingFeatures::default());
    q.avail.lock().set_notify(false);
    assert_eq!(word(&m, 0x3000), 1);
    q.avail.lock().set_notify(true);
    assert_eq!(word(&m, 0x3000), 0);
    let q = queue(&m, RingFeatures { event_idx: true, ..Default::default() });
    q.avail.lock().set_next(5);
    q.avail.lock().set_notify(true);
    assert_eq!(word(&m, 0x3000 + 4 + 64), 5);
    // Interrupts: the first always, then when the index that the guest named is passed.
    let mut u = q.used.lock();
    let mut step = |event: u16| {
        put(&m, 0x2000 + 4 + 16, &[event]);
        u.push(0, 0).unwrap();
        u.should_interrupt(false)
    };
    assert!(step(100));
    assert!(!step(100));
    assert!(step(2));
    assert!(!step(2));
}

#[test]
fn used_index_wraps() {
    let m = pci_machine();
    let q = queue(&m, RingFeatures::default());
    let mut u = q.used.lock();
    u.set_next(u16::MAX);
    u.push(3, 77).unwrap();
    assert_eq!(word(&m, 0x3002), 0);
    assert_eq!((word(&m, 0x3004 + 8 * 7), word(&m, 0x3004 + 8 * 7 + 4)), (3, 77));
}
