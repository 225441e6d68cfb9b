//! A guest that talks to a console and a named port.

use super::super::testing::*;
use crate::device::Place;
use crate::qom::PropInput;

const BUFFERS: u64 = DATA + 0x20_000;

struct Guest {
    d: Driver,
    input: DriverQueue,
    output: DriverQueue,
    control_in: DriverQueue,
    control_out: DriverQueue,
}

fn message(id: u32, event: u16, value: u16) -> Vec<u8> {
    let mut m = id.to_le_bytes().to_vec();
    m.extend(event.to_le_bytes());
    m.extend(value.to_le_bytes());
    m
}

impl Guest {
    /// A device with a named port 1 on chardev `c`, its driver ready.
    fn new() -> Self {
        let mut m = pci_machine();
        m.add_test_char("c");
        let dev = plug(&mut m, "virtio-serial-pci", &[]).unwrap();
        let bus = m.tree.find_bus("virtio-serial-bus.0").unwrap().id;
        let place = Place::Peripheral("p".into());
        let props = [("chardev", PropInput::Str("c")), ("name", PropInput::Str("org.x"))];
        m.add_board_device_at("virtserialport", Some(bus), place, &props).unwrap();
        m.settle();
        let mut d = Driver::new(m, dev);
        d.negotiate(u64::MAX);
        let control_in = d.modern_queue(2, 0x1000);
        let control_out = d.modern_queue(3, 0x4000);
        let input = d.modern_queue(4, 0x8000);
        let output = d.modern_queue(5, 0xc000);
        d.driver_ok();
        let mut g = Self { d, input, output, control_in, control_out };
        for i in 0..16u16 {
            g.d.chain(&g.control_in, i, &[(BUFFERS + 64 * u64::from(i), 64, true)]);
            g.d.offer(&mut g.control_in, i);
        }
        g.d.kick(&g.control_in);
        g
    }

    fn say(&mut self, m: &[u8]) {
        self.d.write(DATA, m);
        self.d.chain(&self.control_out, 0, &[(DATA, m.len() as u32, false)]);
        self.d.offer(&mut self.control_out, 0);
        self.d.kick(&self.control_out);
        assert!(self.d.finished(&mut self.control_out).is_some());
    }

    fn hear(&mut self) -> Option<Vec<u8>> {
        let (head, n) = self.d.finished(&mut self.control_in)?;
        Some(self.d.bytes(BUFFERS + 64 * u64::from(head), n as usize))
    }

    fn open(&mut self) {
        self.say(&message(u32::MAX, 0, 1));
        assert_eq!(self.hear(), Some(message(1, 1, 1)), "port added");
        self.say(&message(1, 3, 1));
        let mut name = message(1, 7, 1);
        name.extend(b"org.x\0");
        assert_eq!(self.hear(), Some(name));
        self.say(&message(1, 6, 1));
    }

    fn events(&mut self) -> Vec<String> {
        self.d.m.events.drain(..).map(|e| format!("{} {}", e.name, e.data.unwrap())).collect()
    }
}

#[test]
fn port_is_announced_and_carries_data() {
    let mut g = Guest::new();
    g.open();
    assert_eq!(g.events(), [r#"VSERPORT_CHANGE {"id":"p","open":true}"#]);
    // The host side opens: the guest hears of it, and data flows.
    let port = g.d.m.tree.by_user_id("p").unwrap().id;
    g.d.m.with_dev(port, |d, cx| d.chardev().unwrap().event(cx, 0, crate::chardev::CharEvent::Opened));
    while let Some(m) = g.hear() {
        assert_eq!(m, message(1, 6, 1));
    }
    g.d.write(DATA, b"hello");
    g.d.chain(&g.output, 0, &[(DATA, 5, false)]);
    g.d.offer(&mut g.output, 0);
    g.d.kick(&g.output);
    assert_eq!(g.d.finished(&mut g.output), Some((0, 0)));
    assert_eq!(g.d.m.test_char("c", |c| std::mem::take(&mut c.out)), b"hello");
    // Towards the guest: nothing without a buffer, then in pieces.
    let can = |g: &mut Guest| g.d.m.with_dev(port, |d, _| d.chardev().unwrap().can_receive(0)).unwrap();
    assert_eq!(can(&mut g), 0);
    g.d.chain(&g.input, 0, &[(DATA + 0x1000, 4, true)]);
    g.d.offer(&mut g.input, 0);
    g.d.kick(&g.input);
    assert!(can(&mut g) > 0);
    g.d.m.with_dev(port, |d, cx| d.chardev().unwrap().receive(cx, 0, b"abcdef"));
    assert_eq!(g.d.finished(&mut g.input), Some((0, 4)));
    assert_eq!(can(&mut g), 0, "the rest waits");
    g.d.chain(&g.input, 1, &[(DATA + 0x1000, 4, true)]);
    g.d.offer(&mut g.input, 1);
    g.d.kick(&g.input);
    assert_eq!(g.d.finished(&mut g.input), Some((1, 2)));
    assert_eq!(g.d.bytes(DATA + 0x1000, 2), b"ef");
}

#[test]
fn slow_chardev_holds_the_queue() {
    let mut g = Guest::new();
    g.open();
    let port = g.d.m.tree.by_user_id("p").unwrap().id;
    g.d.m.with_dev(port, |d, cx| d.chardev().unwrap().event(cx, 0, crate::chardev::CharEvent::Opened));
    g.d.m.test_char("c", |c| c.room = 3);
    g.d.write(DATA, b"hello");
    g.d.chain(&g.output, 0, &[(DATA, 5, false)]);
    g.d.offer(&mut g.output, 0);
    g.d.kick(&g.output);
    assert_eq!(g.d.finished(&mut g.output), None);
    g.d.m.test_char("c", |c| c.room = 100);
    g.d.m.with_dev(port, |d, cx| d.chardev().unwrap().writable(cx, 0));
    assert_eq!(g.d.finished(&mut g.output), Some((0, 0)));
    assert_eq!(g.d.m.test_char("c", |c| std::mem::take(&mut c.out)), b"hello");
}

#[test]
fn reset_closes_and_unplug_removes() {
    let mut g = Guest::new();
    g.open();
    g.events();
    g.d.common_write(0x14, 1, 0);
    assert_eq!(g.events(), [r#"VSERPORT_CHANGE {"id":"p","open":false}"#]);
    let port = g.d.m.tree.by_user_id("p").unwrap().id;
    g.d.m.remove_device(port);
    assert!(g.d.m.tree.by_user_id("p").is_none());
}

#[test]
fn places_are_checked() {
    let mut m = pci_machine();
    plug(&mut m, "virtio-serial-pci", &[("max_ports", "2")]).unwrap();
    let bus = m.tree.find_bus("virtio-serial-bus.0").unwrap().id;
    let mut add = |class: &str, props: &[(&str, PropInput<'_>)]| {
        m.add_board_device(class, Some(bus), props).map(|_| ()).map_err(|e| e.to_string())
    };
    let nr = |s| [("nr", PropInput::Str(s))];
    assert_eq!(
        add("virtserialport", &nr("5")).unwrap_err(),
        "virtio-serial-bus: Out-of-range port id specified, max. allowed: 1"
    );
    assert!(add("virtserialport", &nr("0")).unwrap_err().starts_with("Port number 0 on virtio-serial"));
    add("virtconsole", &[]).unwrap();
    add("virtserialport", &[("name", PropInput::Str("a"))]).unwrap();
    assert_eq!(
        add("virtserialport", &[("name", PropInput::Str("a"))]).unwrap_err(),
        "virtio-serial-bus: A port already exists by name a"
    );
    assert_eq!(
        add("virtserialport", &[]).unwrap_err(),
        "virtio-serial-bus: Maximum port limit for this device reached"
    );
}
