//! The other end of a card's link, for tests.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::machine::Machine;
use crate::net::NetId;
use crate::spec::visit::Mode;
use crate::spec::Value;

/// A back end `s` for the card, the socket that receives what the card sends, and where to send to the card.
pub(crate) fn wire(m: &mut Machine) -> (NetId, UdpSocket, SocketAddr) {
    let sock = UdpSocket::bind("127.0.0.1:0").unwrap();
    sock.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let json = format!(
        r#"{{"type":"socket","id":"s","udp":"{}","localaddr":"{peer}"}}"#,
        sock.local_addr().unwrap()
    );
    let Value::Dict(d) = Value::from_json(serde_json::from_str(&json).unwrap()) else { panic!() };
    m.netdev_add(d, Mode::Json).unwrap();
    (m.net_id("s").unwrap(), sock, peer)
}
