//! Makes back ends: one way for `-netdev`, `-nic`, `-net` and `netdev_add`.

use super::socket::{Datagram, Stream};
use super::user::User;
use super::{tap, Client, Hub, Kind, NetBackend, NetId};
use crate::machine::Machine;
use crate::spec::schema;
use crate::spec::visit::{self, Mode};
use crate::spec::Dict;
use crate::{qerr, QResult};

/// Types that this program has, in the order of `-netdev help`.
pub const NET_KINDS: &[&str] = &["socket", "hubport", "tap", "user", "bridge"];

impl Machine {
    /// A name for a client that the user did not name.
    pub(crate) fn net_new_name(&mut self) -> String {
        let mut byte = [0u8];
        // SAFETY: writes at most one byte into `byte`.
        unsafe { libc::getrandom(byte.as_mut_ptr().cast(), 1, libc::GRND_NONBLOCK) };
        let n = self.net.next_name;
        self.net.next_name += 1;
        format!("#net{n}{:02}", byte[0] % 100)
    }

    /// Creates a back end from checked options (without `id` and `type`).
    ///
    /// # Errors
    /// The id is taken, the type is not there, or the back end cannot be opened.
    pub fn create_netdev(&mut self, kind: &str, id: &str, props: &Dict) -> QResult<()> {
        if !self.net.ids(|c| c.name == id).is_empty() {
            return Err(qerr!("Duplicate ID '{id}'"));
        }
        let mut made: Vec<Box<dyn NetBackend>> = Vec::new();
        match kind {
            "hubport" => {
                let port = self.hub_port_on(props, id)?;
                if let Some(c) = self.net.get_mut(port) {
                    c.netdev = true;
                }
                return Ok(());
            }
            "socket" => made.push(socket(id, props)?),
            "tap" => {
                for t in tap::open(id, props)? {
                    made.push(Box::new(t));
                }
            }
            "user" => {
                let mut user = User::new(id, props)?;
                self.net.warnings.append(&mut user.warnings);
                made.push(Box::new(user));
            }
            "bridge" => made.push(Box::new(tap::open_bridge(props)?)),
            _ => return Err(qerr!("network backend '{kind}' is not compiled into this binary")),
        }
        for (queue, b) in made.into_iter().enumerate() {
            let client = self.net.add(id.to_string(), kind, queue as u32, Kind::Backend(b));
            if let Some(c) = self.net.get_mut(client) {
                c.netdev = true;
            }
            self.net_watch(client);
        }
        Ok(())
    }

    /// `netdev_add` with arguments as QMP or the human monitor gives them.
    ///
    /// # Errors
    /// As [`Self::create_netdev`], and for bad arguments.
    pub fn netdev_add(&mut self, args: Dict, mode: Mode) -> QResult<()> {
        let mut d = visit::check(args, &schema::NETDEV, mode)?;
        let kind = d.remove_str("type").unwrap_or_default();
        let id = d.remove_str("id").unwrap_or_default();
        if !crate::objects::valid_id(&id) {
            return Err(qerr!("Parameter 'id' expects an identifier"));
        }
        self.create_netdev(&kind, &id, &d)
    }

    fn hub_port_on(&mut self, props: &Dict, name: &str) -> QResult<NetId> {
        let hub = props.get_i64("hubid")?.unwrap_or(0) as i32;
        let peer = match props.get_str("netdev") {
            Some(other) => {
                let ids = self.net.ids(|c| c.name == other && !matches!(c.kind, Kind::Nic { .. }));
                Some(*ids.first().ok_or_else(|| qerr!("netdev '{other}' not found"))?)
            }
            None => None,
        };
        let port = self.net_hub_port(hub, Some(name));
        if let Some(p) = peer {
            self.net.connect(port, p);
        }
        Ok(port)
    }

    /// Adds a port to a hub, which is made if it does not exist.
    pub(crate) fn net_hub_port(&mut self, id: i32, name: Option<&str>) -> NetId {
        let at = self.net.hubs.iter().position(|h| h.id == id).unwrap_or_else(|| {
            self.net.hubs.push(Hub { id, ports: 0 });
            self.net.hubs.len() - 1
        });
        let hub = &mut self.net.hubs[at];
        let number = hub.ports;
        hub.ports += 1;
        let name = name.map_or_else(|| format!("hub{id}port{number}"), str::to_string);
        self.net.add(name, "hubport", 0, Kind::Port { hub: id })
    }

    /// Plugs a back end that was just made into a new port of a hub (`-net`).
    pub(crate) fn net_plug_into_hub(&mut self, name: &str, hub: i32) {
        let ids = self.net.ids(|c| c.name == name);
        for id in ids {
            let port = self.net_hub_port(hub, None);
            self.net.connect(port, id);
            if let Some(c) = self.net.get_mut(id) {
                c.netdev = false;
            }
            self.net.again.push(id);
        }
    }

    /// What was odd about the options of back ends made since the last call.
    pub(crate) fn net_take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.net.warnings)
    }

    /// The user-mode networks: hub that each is plugged into, id, and the network.
    fn net_users(&mut self) -> Vec<NetId> {
        let mut ids = self.net.ids(|c| matches!(&c.kind, Kind::Backend(b) if b.kind() == "user"));
        ids.reverse();
        ids
    }

    fn net_user(&mut self, id: NetId) -> Option<&mut User> {
        match self.net.get_mut(id) {
            Some(Client { kind: Kind::Backend(b), .. }) => b.user(),
            _ => None,
        }
    }

    /// A user-mode network by name, or the one that was made last.
    ///
    /// # Errors
    /// There is none, or the name is something else's.
    fn net_named_user(&mut self, name: Option<&str>) -> QResult<&mut User> {
        let id = match name {
            None => self.net_users().first().copied(),
            Some(n) => {
                let found = self.net.ids(|c| c.name == n);
                let id = *found.first().ok_or_else(|| qerr!("unrecognized netdev id '{n}'"))?;
                if self.net_user(id).is_none() {
                    return Err(qerr!("invalid device specified"));
                }
                Some(id)
            }
        };
        let none = || qerr!("user mode network stack not in use");
        self.net_user(id.ok_or_else(none)?).ok_or_else(none)
    }

    /// `hostfwd_add`: forwards a port of the host to the guest of a user-mode network (without a name, the one that was
    /// made last).
    ///
    /// # Errors
    /// There is no such network, the rule is malformed, or the port is taken.
    pub fn hostfwd_add(&mut self, name: Option<&str>, rule: &str) -> QResult<()> {
        self.net_named_user(name)?.add_host_forward(rule)
    }

    /// `hostfwd_remove`: what to tell the user.
    ///
    /// # Errors
    /// There is no such network, or the rule is malformed.
    pub fn hostfwd_remove(&mut self, name: Option<&str>, rule: &str) -> QResult<String> {
        match self.net_named_user(name)?.remove_host_forward(rule) {
            Some(true) => Ok(format!("host forwarding rule for {rule} removed")),
            Some(false) => Ok(format!("host forwarding rule for {rule} not found")),
            None => Err(qerr!("invalid format")),
        }
    }

    /// Text of `info usernet`.
    pub fn net_user_info(&mut self) -> String {
        let mut out = String::new();
        for id in self.net_users() {
            let peer = self.net.get(id).and_then(|c| c.peer).and_then(|p| self.net.get(p));
            let hub = match peer.map(|p| &p.kind) {
                Some(Kind::Port { hub }) => *hub,
                _ => -1,
            };
            if let Some(u) = self.net_user(id) {
                out.push_str(&format!("Hub {hub} ({}):\n", u.id()));
                out.push_str(&u.connections());
            }
        }
        out
    }

    /// Whether there is a back end or hub port of that name.
    pub fn net_exists(&self, name: &str) -> bool {
        !self.net.ids(|c| c.name == name && !matches!(c.kind, Kind::Nic { .. })).is_empty()
    }

    /// Name of a client.
    pub(crate) fn net_name(&self, id: NetId) -> Option<String> {
        self.net.get(id).map(|c| c.name.clone())
    }
}

fn socket(id: &str, p: &Dict) -> QResult<Box<dyn NetBackend>> {
    let get = |name| p.get_str(name);
    let ways = ["fd", "listen", "connect", "mcast", "udp"].map(get);
    let plain = ways[1..].iter().flatten().count();
    if ways[0].is_none() && plain != 1 || ways[0].is_some() && plain > 0 {
        return Err(qerr!("exactly one of listen=, connect=, mcast= or udp= is required"));
    }
    if get("localaddr").is_some() && ways[3].is_none() && ways[4].is_none() {
        return Err(qerr!("localaddr= is only valid with mcast= or udp="));
    }
    match ways {
        [Some(fd), ..] => super::socket::from_fd(id, fd),
        [_, Some(addr), ..] => Ok(Box::new(Stream::listen(addr)?)),
        [_, _, Some(addr), ..] => Ok(Box::new(Stream::connect(addr)?)),
        [_, _, _, Some(addr), _] => Ok(Box::new(Datagram::multicast(addr, get("localaddr"))?)),
        [.., Some(addr)] => {
            let local = get("localaddr").ok_or_else(|| qerr!("localaddr= is mandatory with udp="))?;
            Ok(Box::new(Datagram::unicast(addr, local)?))
        }
        _ => Err(qerr!("exactly one of listen=, connect=, mcast= or udp= is required")),
    }
}

/// A descriptor that was passed to this program, made non-blocking.
pub(super) fn inherited(id: &str, text: &str) -> QResult<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let fd = text
        .parse::<i32>()
        .ok()
        .filter(|fd| *fd >= 0)
        .ok_or_else(|| qerr!("File descriptor named '{text}' has not been found"))?;
    // SAFETY: plain fcntl; fails if the descriptor is not open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    // SAFETY: as above.
    if flags < 0 || unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) } < 0 {
        let e = crate::error::strerror(&std::io::Error::last_os_error());
        return Err(qerr!("{id}: Can't use file descriptor {fd}: {e}"));
    }
    // SAFETY: the user handed the open descriptor over for this back end; `/dev/null`-like standard streams are the user's
    // own doing, as in QEMU.
    Ok(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd) })
}
