use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::device::testing::machine;
use crate::device::{Device, RealizeCx};
use crate::qom::{Category, ClassInfo, DeviceClass, PropAccess, PropGet, PropInput, NO_PROPS};
use crate::spec::visit::Mode;
use crate::spec::Value;

/// A card that keeps what it gets.
struct Card {
    got: Vec<Vec<u8>>,
    room: usize,
    links: Vec<bool>,
    sent: u32,
}

impl Device for Card {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn net(&mut self) -> Option<&mut dyn NetFrontend> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl NetFrontend for Card {
    fn can_receive(&mut self, _queue: u32) -> bool {
        self.got.len() < self.room
    }
    fn receive(&mut self, _cx: &mut Cx<'_>, _queue: u32, frame: &[u8]) -> bool {
        self.got.push(frame.to_vec());
        true
    }
    fn sent(&mut self, _cx: &mut Cx<'_>, _queue: u32) {
        self.sent += 1;
    }
    fn link_changed(&mut self, _cx: &mut Cx<'_>, up: bool) {
        self.links.push(up);
    }
}

struct CardProps;

impl PropAccess for CardProps {
    fn set_prop(&mut self, _: &str, _: &str, _: &PropInput<'_>) -> QResult<bool> {
        Ok(false)
    }
    fn get_prop(&self, _: &str) -> Option<PropGet> {
        None
    }
}

impl DeviceClass for CardProps {
    fn realize(&mut self, _: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        Ok(Box::new(Card { got: Vec::new(), room: 100, links: Vec::new(), sent: 0 }))
    }
}

static CARD: ClassInfo = ClassInfo {
    name: "card",
    parent: None,
    is_abstract: false,
    desc: "",
    category: Category::Network,
    bus: None,
    aliases: &[],
    user_creatable: true,
    hotpluggable: true,
    props: &NO_PROPS,
    extra: &[],
    create: Some(|| Box::new(CardProps)),
};

fn card(m: &mut Machine, netdev: Option<&str>) -> QResult<(DevId, NetId)> {
    let place = m.tree.next_unattached();
    let dev = m.add_device(&CARD, None, place, &[])?;
    let netdev = NetdevRef(netdev.map(str::to_string));
    let args = NicArgs { dev, owner: "card", model: "card", id: None, netdev: &netdev };
    let ids = m.net_new_nic(&args, &mut MacAddr::default())?;
    Ok((dev, ids[0]))
}

fn got(m: &mut Machine, dev: DevId) -> Vec<Vec<u8>> {
    m.with::<Card, _>(dev, |c, _| std::mem::take(&mut c.got)).unwrap()
}

fn netdev(m: &mut Machine, json: &str) -> Result<(), String> {
    let Value::Dict(d) = Value::from_json(serde_json::from_str(json).unwrap()) else { panic!("{json}") };
    m.netdev_add(d, Mode::Json).map_err(|e| e.desc)
}

impl Machine {
    /// A client by name.
    pub(crate) fn net_id(&self, name: &str) -> Option<NetId> {
        self.net.ids(|c| c.name == name).first().copied()
    }

    /// Serves the back ends once, as the main loop would.
    pub(crate) fn net_serve(&mut self) {
        serve(self);
    }
}

/// Serves the back ends once, as the main loop would.
fn serve(m: &mut Machine) {
    for id in m.net.ids(|c| matches!(c.kind, Kind::Backend(_))) {
        let Some(Client { kind: Kind::Backend(b), .. }) = m.net.get(id) else { continue };
        if b.listen_fd().is_some() {
            if let Some(Client { kind: Kind::Backend(b), .. }) = m.net.get_mut(id) {
                b.accept();
            }
        }
        m.net.again.push(id);
    }
    m.net_continue();
}

/// Serves until a card has `n` frames.
fn wait(m: &mut Machine, dev: DevId, n: usize) -> Vec<Vec<u8>> {
    for _ in 0..5000 {
        serve(m);
        if m.with::<Card, _>(dev, |c, _| c.got.len() >= n).unwrap() {
            return got(m, dev);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("frames did not arrive");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn hub_floods_all_other_ports() {
    let mut m = machine();
    let mut cards = Vec::new();
    for id in ["a", "b", "c"] {
        netdev(&mut m, &format!(r#"{{"type":"hubport","id":"{id}","hubid":0}}"#)).unwrap();
        cards.push(card(&mut m, Some(id)).unwrap());
    }
    assert!(m.net_send(cards[0].1, b"hello"));
    assert!(got(&mut m, cards[0].0).is_empty());
    assert_eq!(got(&mut m, cards[1].0), [b"hello"]);
    assert_eq!(got(&mut m, cards[2].0), [b"hello"]);
    m.set_link("b", false).unwrap();
    m.net_send(cards[0].1, b"again");
    assert!(got(&mut m, cards[1].0).is_empty());
    assert_eq!(got(&mut m, cards[2].0), [b"again"]);
    assert_eq!(m.with::<Card, _>(cards[1].0, |c, _| c.links.clone()).unwrap(), [false]);
    assert!(!m.net_link_up(cards[1].1));
    assert_eq!(
        m.net_info(),
        "hub 0\n \\ c: card.2: index=0,type=nic,model=card,macaddr=52:54:00:12:34:58\n \
         \\ b: card.1: index=0,type=nic,model=card,macaddr=52:54:00:12:34:57\n \
         \\ a: card.0: index=0,type=nic,model=card,macaddr=52:54:00:12:34:56\n"
    );
}

#[test]
fn full_card_is_served_later() {
    let mut m = machine();
    let (dev, nic) = card(&mut m, None).unwrap();
    let (other, from) = card(&mut m, None).unwrap();
    m.net.connect(nic, from);
    m.with::<Card, _>(dev, |c, _| c.room = 1).unwrap();
    assert!(m.net_send(from, b"1"));
    assert!(!m.net_send(from, b"2"));
    assert!(!m.net_send(from, b"3"));
    assert_eq!(got(&mut m, dev), [b"1"]);
    m.net_flush(nic);
    assert_eq!(got(&mut m, dev), [b"2"]);
    m.net_flush(nic);
    assert_eq!(got(&mut m, dev), [b"3"]);
    assert_eq!(m.with::<Card, _>(other, |c, _| c.sent).unwrap(), 2);
}

#[test]
fn stream_server_and_client() {
    let mut m = machine();
    let port = free_port();
    netdev(&mut m, &format!(r#"{{"type":"socket","id":"s","listen":"127.0.0.1:{port}"}}"#)).unwrap();
    let (dev, nic) = card(&mut m, Some("s")).unwrap();
    assert_eq!(m.net_info().lines().last().unwrap(), " \\ s: index=0,type=socket,");
    let mut peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let local = peer.local_addr().unwrap();
    peer.write_all(&[0, 0, 0, 3, 1, 2, 3, 0, 0, 0, 1, 9]).unwrap();
    assert_eq!(wait(&mut m, dev, 2), [&[1, 2, 3][..], &[9]]);
    assert!(m.net_info().ends_with(&format!("type=socket,socket: connection from {local}\n")));
    m.net_send(nic, b"frame");
    let mut b = [0; 9];
    peer.read_exact(&mut b).unwrap();
    assert_eq!(&b, b"\0\0\0\x05frame");
    // A length that no frame has: the connection is dropped.
    peer.write_all(&[0, 1, 0xff, 0xff, 0xff, 0xff]).unwrap();
    for _ in 0..5000 {
        serve(&mut m);
        if m.net_info().ends_with("type=socket,\n") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("connection was kept");
}

#[test]
fn udp_pair() {
    let mut m = machine();
    let (a, b) = (free_port(), free_port());
    for (id, local, remote) in [("x", a, b), ("y", b, a)] {
        let json = format!(
            r#"{{"type":"socket","id":"{id}","udp":"127.0.0.1:{remote}","localaddr":"127.0.0.1:{local}"}}"#
        );
        netdev(&mut m, &json).unwrap();
    }
    let (_, from) = card(&mut m, Some("x")).unwrap();
    let (dev, _) = card(&mut m, Some("y")).unwrap();
    m.net_send(from, b"over udp");
    assert_eq!(wait(&mut m, dev, 1), [b"over udp"]);
}

#[test]
fn tap_moves_frames() {
    let mut m = machine();
    let json = r#"{"type":"tap","id":"t","script":"no","downscript":"no"}"#;
    match netdev(&mut m, json) {
        Ok(()) => {}
        // No rights, or no such device: nothing to test on this host.
        Err(e) => return assert!(e.contains("/dev/net/tun"), "{e}"),
    }
    let (_, nic) = card(&mut m, Some("t")).unwrap();
    assert!(m.net_info().contains("t: index=0,type=tap,ifname=tap"), "{}", m.net_info());
    if let Some(o) = m.net_offloads(nic) {
        assert!(o.csum && o.tso4);
        m.net_set_header(nic, Some(12), Offloads::default());
        let tap = m.net_take_tap(nic).unwrap();
        assert!(tap.wanted);
        assert_eq!(tap.header, 12);
        m.net_return_tap(nic);
    }
    m.netdev_del("t").unwrap();
    assert!(!m.net_link_up(nic));
}

#[test]
fn errors_are_qemus() {
    let mut m = machine();
    let mut err = |json: &str| netdev(&mut m, json).unwrap_err();
    for (json, text) in [
        (r#"{"type":"foo","id":"a"}"#, "Parameter 'type' does not accept value 'foo'"),
        (r#"{"type":"socket","id":"s"}"#, "exactly one of listen=, connect=, mcast= or udp= is required"),
        (
            r#"{"type":"socket","id":"s","listen":"foo"}"#,
            "host address 'foo' doesn't contain ':' separating host from port",
        ),
        (r#"{"type":"socket","id":"s","udp":"127.0.0.1:1"}"#, "localaddr= is mandatory with udp="),
        (
            r#"{"type":"socket","id":"s","mcast":"127.0.0.1:1234"}"#,
            "specified mcastaddr 127.0.0.1 (0x7f000001) does not contain a multicast address",
        ),
        (
            r#"{"type":"socket","id":"s","connect":"127.0.0.1:1","localaddr":"x"}"#,
            "localaddr= is only valid with mcast= or udp=",
        ),
        (
            r#"{"type":"socket","id":"s","listen":"1.2.3.4:99"}"#,
            "can't bind ip=1.2.3.4 to socket: Cannot assign requested address",
        ),
        (
            r#"{"type":"socket","id":"s","fd":"7777"}"#,
            "s: Can't use file descriptor 7777: Bad file descriptor",
        ),
        (r#"{"type":"tap","id":"t","fd":"foo"}"#, "File descriptor named 'foo' has not been found"),
        (r#"{"type":"hubport","id":"h","hubid":1,"netdev":"zz"}"#, "netdev 'zz' not found"),
        (r#"{"type":"vde","id":"u"}"#, "network backend 'vde' is not compiled into this binary"),
        (r#"{"type":"bridge","id":"b","helper":"/bin/false"}"#, "bridge helper failed"),
        (r#"{"type":"tap","id":"t","vhost":false,"vhostfd":"3"}"#, "vhostfd(s)= is not valid without vhost"),
    ] {
        assert_eq!(err(json), text);
    }
    netdev(&mut m, r#"{"type":"hubport","id":"h","hubid":1}"#).unwrap();
    assert_eq!(netdev(&mut m, r#"{"type":"hubport","id":"h","hubid":1}"#).unwrap_err(), "Duplicate ID 'h'");
    card(&mut m, Some("h")).unwrap();
    let e = |r: QResult<(DevId, NetId)>| r.unwrap_err().desc;
    assert_eq!(e(card(&mut m, Some("h"))), "Property 'card.netdev' can't take value 'h', it's in use");
    assert_eq!(e(card(&mut m, Some("q"))), "Property 'card.netdev' can't find value 'q'");
    assert_eq!(m.netdev_del("q").unwrap_err().desc, "Device 'q' not found");
    assert_eq!(m.set_link("q", true).unwrap_err().desc, "Device 'q' not found");
}

#[test]
fn unplugged_card_frees_its_back_end() {
    let mut m = machine();
    netdev(&mut m, r#"{"type":"hubport","id":"h","hubid":1}"#).unwrap();
    let (dev, _) = card(&mut m, Some("h")).unwrap();
    m.remove_device(dev);
    let (_, nic) = card(&mut m, Some("h")).unwrap();
    // The address of the first card is free again.
    assert!(m.net_info().contains("52:54:00:12:34:56"));
    m.netdev_del("h").unwrap();
    assert!(m.net_send(nic, b"to nobody"));
    assert_eq!(m.net_info(), "hub 1\n");
}
