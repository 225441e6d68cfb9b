//! `hostfwd=`: ports of the host that lead to the guest.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;

use super::config::aton;
use super::{sock, Source, User};
use crate::{qerr, QResult};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Connections accepted before others have their turn.
const BURST: usize = 64;

/// A forwarded TCP port. (A UDP port is a flow that never ends.)
pub(super) struct HostForward {
    pub host: SocketAddr,
    pub guest: SocketAddr,
    pub listener: TcpListener,
    pub serial: u64,
}

/// A rule, checked.
struct Rule {
    udp: bool,
    host: SocketAddr,
    guest: SocketAddr,
}

fn protocol(text: &str) -> Option<bool> {
    match text {
        "tcp" | "" => Some(false),
        "udp" => Some(true),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    let digits = text.trim_start().trim_start_matches('+');
    digits.parse().ok()
}

fn address(text: &str) -> Option<Ipv4Addr> {
    match text {
        "" => Some(Ipv4Addr::UNSPECIFIED),
        t => aton(t),
    }
}

/// `[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport`.
fn parse(text: &str, guest: Option<Ipv4Addr>) -> Result<Rule, &'static str> {
    let (proto, rest) = text.split_once(':').ok_or("No : separators")?;
    let udp = protocol(proto).ok_or("Bad protocol name")?;
    let (host, rest) = rest.split_once(':').ok_or("Missing : separator")?;
    let host = address(host).ok_or("Bad host address")?;
    let (host_port, rest) = rest.split_once('-').ok_or("Bad host port separator")?;
    let host_port = port(host_port).ok_or("Bad host port")?;
    let (to, to_port) = rest.split_once(':').ok_or("Missing guest address")?;
    let to = address(to).ok_or("Bad guest address")?;
    let to_port = port(to_port).filter(|p| *p != 0).ok_or("Bad guest port")?;
    let to = if to.is_unspecified() { guest.unwrap_or(to) } else { to };
    Ok(Rule {
        udp,
        host: SocketAddr::new(host.into(), host_port),
        guest: SocketAddr::new(to.into(), to_port),
    })
}

impl User {
    /// Adds a rule, also while the machine runs.
    ///
    /// # Errors
    /// The rule is malformed, or the port cannot be bound.
    pub fn add_host_forward(&mut self, text: &str) -> QResult<()> {
        let first = self.cfg.v4.as_ref().map(|n| n.dhcp);
        let rule =
            parse(text, first).map_err(|why| qerr!("Invalid host forwarding rule '{text}' ({why})"))?;
        self.touch();
        self.open_forward(&rule).map_err(|_| qerr!("Could not set up host forwarding rule '{text}'"))
    }

    fn open_forward(&mut self, r: &Rule) -> std::io::Result<()> {
        let kind = if r.udp { libc::SOCK_DGRAM } else { libc::SOCK_STREAM };
        let fd = sock::new(false, kind, 0)?;
        sock::reuse_address(&fd);
        sock::bind(&fd, r.host)?;
        if r.udp {
            self.udp_open(r.guest, UdpSocket::from(fd), false, Some(r.host))?;
            return Ok(());
        }
        sock::listen(&fd, BACKLOG)?;
        let listener = TcpListener::from(fd);
        let slot = self.host_forwards.iter().position(Option::is_none).unwrap_or_else(|| {
            self.host_forwards.push(None);
            self.host_forwards.len() - 1
        });
        self.watch.add(listener.as_raw_fd(), Source::Forward, slot)?;
        let serial = self.tcp.next_serial();
        if let Some(s) = self.host_forwards.get_mut(slot) {
            *s = Some(HostForward { host: r.host, guest: r.guest, listener, serial });
        }
        Ok(())
    }

    /// Removes the rule for `[tcp|udp]:[hostaddr]:hostport`; `Some(false)`: there is none, `None`: malformed.
    pub fn remove_host_forward(&mut self, text: &str) -> Option<bool> {
        let (proto, rest) = text.split_once(':')?;
        let udp = protocol(proto)?;
        let (host, host_port) = rest.split_once(':')?;
        let host = SocketAddr::new(address(host)?.into(), port(host_port)?);
        if udp {
            let is = |f: &Option<super::udp::Flow>| f.as_ref().is_some_and(|f| f.forward == Some(host));
            let slot = self.udp.flows.iter().position(is);
            if let Some(slot) = slot {
                self.udp.remove(slot);
            }
            return Some(slot.is_some());
        }
        let is = |f: &&mut Option<HostForward>| f.as_ref().is_some_and(|f| f.host == host);
        Some(self.host_forwards.iter_mut().find(is).and_then(Option::take).is_some())
    }

    /// Somebody connects to a forwarded port.
    pub(super) fn accept_forward(&mut self, slot: usize) {
        for _ in 0..BURST {
            let Some(Some(f)) = self.host_forwards.get(slot) else { return };
            match f.listener.accept() {
                Ok((s, from)) => {
                    let guest = f.guest;
                    let _ = s.set_nonblocking(true);
                    let _ = s.set_nodelay(true);
                    self.tcp_forward(s.into(), guest, from);
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionAborted => {}
                Err(_) => return,
            }
        }
        // More may wait; the descriptor is reported only once.
        let Some(Some(f)) = self.host_forwards.get(slot) else { return };
        let fd = f.listener.as_raw_fd();
        self.watch.remove(fd);
        // It was watched before, so it can be.
        let _ = self.watch.add(fd, Source::Forward, slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        let guest = Some(Ipv4Addr::new(10, 0, 2, 15));
        for (text, why) in [
            ("foo", "No : separators"),
            ("tcp:", "Missing : separator"),
            ("tcp::", "Bad host port separator"),
            ("tcp::5000", "Bad host port separator"),
            ("tcp::a-:22", "Bad host port"),
            ("tcp::99999-:22", "Bad host port"),
            ("tcp::5000-:0", "Bad guest port"),
            ("tcp::5000-:22-", "Bad guest port"),
            ("tcp::5000-x:22", "Bad guest address"),
            ("tcp:x:5000-:22", "Bad host address"),
            ("tcp:[::1]:5000-:22", "Bad host address"),
            ("xyz::5000-:22", "Bad protocol name"),
        ] {
            assert_eq!(parse(text, guest).err(), Some(why), "{text}");
        }
        let r = parse("udp:127.0.0.1:5000-:53", guest).ok().unwrap();
        assert!(r.udp);
        assert_eq!(
            (r.host.to_string(), r.guest.to_string()),
            ("127.0.0.1:5000".into(), "10.0.2.15:53".into())
        );
    }
}
