//! `guestfwd=`: addresses of the virtual network behind which a program or a stream socket of the host is.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::config::aton;
use super::tcp::{no_delay, HostEnd};
use super::User;
use crate::error::strerror;
use crate::spec::Dict;
use crate::{qerr, QResult};

const SMBD: &str = "/usr/sbin/smbd";
/// Programs that run at a time.
const MAX_CHILDREN: usize = 256;

/// What is behind an address.
enum Behind {
    /// A program with its arguments, started for each connection.
    Command(Vec<String>),
    /// A stream that all connections share.
    Stream(OwnedFd, bool),
}

/// A rule.
pub(super) struct GuestForward {
    pub addr: SocketAddrV4,
    behind: Behind,
    children: Vec<Child>,
}

/// Splits a command into words as a shell would: blanks separate, quotes and backslashes protect.
fn words(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\n' => out.extend(word.take()),
            '\\' => word.get_or_insert_default().push(chars.next()?),
            '\'' | '"' => {
                let w = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        e if e == c => break,
                        '\\' if c == '"' => w.push(chars.next()?),
                        other => w.push(other),
                    }
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    Some(out)
}

/// `tcp:address:port-target`.
fn parse(text: &str) -> Option<(SocketAddrV4, &str)> {
    let (proto, rest) = text.split_once(':')?;
    if !proto.is_empty() && proto != "tcp" {
        return None;
    }
    let (addr, rest) = rest.split_once(':')?;
    let (port, target) = rest.split_once('-')?;
    let port = port.parse().ok().filter(|p| *p != 0)?;
    Some((SocketAddrV4::new(aton(addr)?, port), target))
}

/// Connects to a target in the syntax of character devices.
fn connect(target: &str) -> QResult<(OwnedFd, bool)> {
    let (kind, rest) = target.split_once(':').unwrap_or((target, ""));
    let addr = rest.split(',').next().unwrap_or(rest);
    match kind {
        "tcp" => {
            let s = TcpStream::connect(addr)
                .map_err(|e| qerr!("Failed to connect to '{addr}': {}", strerror(&e)))?;
            Ok((no_delay(s.into()), true))
        }
        "unix" => {
            let s = UnixStream::connect(addr)
                .map_err(|e| qerr!("Failed to connect to '{addr}': {}", strerror(&e)))?;
            Ok((s.into(), false))
        }
        _ => Err(qerr!("'{kind}' is not a valid char driver")),
    }
}

/// Refuses `smb=`.
///
/// # Errors
/// There is no Samba server; or there is, but this program does not start it.
pub(super) fn check_smb(p: &Dict) -> QResult<()> {
    if p.get_str("smbserver").is_some_and(|s| aton(s).is_none()) {
        return Err(qerr!("Failed to parse SMB address"));
    }
    match p.get_str("smb") {
        Some(dir) if !dir.is_empty() => {
            if std::path::Path::new(SMBD).exists() {
                return Err(qerr!("smb= is not supported"));
            }
            Err(qerr!("Could not find '{SMBD}', please install it"))
        }
        _ => Ok(()),
    }
}

impl User {
    /// Adds a rule.
    ///
    /// # Errors
    /// The rule is malformed, the address is not free, or the target is not there.
    pub(super) fn add_guest_forward(&mut self, text: &str) -> QResult<()> {
        let invalid = || qerr!("Invalid guest forwarding rule '{text}'");
        let (addr, target) = parse(text).ok_or_else(invalid)?;
        let taken = self.guest_forwards.iter().any(|f| f.addr == addr);
        let fits = self.cfg.v4.as_ref().is_some_and(|n| {
            let ip = *addr.ip();
            n.contains(ip) && ip != n.host && ip != n.dns && ip != n.net && ip != n.broadcast()
        });
        let conflict = || qerr!("Conflicting/invalid host:port in guest forwarding rule '{text}'");
        let behind = match target.strip_prefix("cmd:") {
            Some(cmd) => {
                if !fits || taken {
                    return Err(conflict());
                }
                Behind::Command(words(cmd).filter(|w| !w.is_empty()).ok_or_else(invalid)?)
            }
            None => {
                let (fd, tcp) = connect(target)?;
                if !fits || taken {
                    return Err(conflict());
                }
                Behind::Stream(fd, tcp)
            }
        };
        self.guest_forwards.push(GuestForward { addr, behind, children: Vec::new() });
        Ok(())
    }

    /// What is behind an address: `None`: nothing special, `Some(None)`: it could not be started.
    pub(super) fn guest_forward(&mut self, to: SocketAddr) -> Option<Option<HostEnd>> {
        let SocketAddr::V4(to) = to else { return None };
        let running: usize = self.guest_forwards.iter().map(|f| f.children.len()).sum();
        if running >= MAX_CHILDREN {
            self.reap_children();
        }
        let f = self.guest_forwards.iter_mut().find(|f| f.addr == to)?;
        match &f.behind {
            Behind::Command(words) => {
                if running >= MAX_CHILDREN {
                    return Some(None);
                }
                match start(words) {
                    Ok((fd, child)) => {
                        f.children.push(child);
                        Some(Some(HostEnd { fd, tcp: false, shared: false }))
                    }
                    // The guest sees a closed port.
                    Err(_) => Some(None),
                }
            }
            Behind::Stream(fd, tcp) => {
                let dup = fd.as_fd().try_clone_to_owned().ok();
                Some(dup.map(|fd| HostEnd { fd, tcp: *tcp, shared: true }))
            }
        }
    }

    /// An address of the virtual network with a service behind it.
    pub(super) fn is_guest_forward(&self, ip: IpAddr) -> bool {
        self.guest_forwards.iter().any(|f| IpAddr::V4(*f.addr.ip()) == ip)
    }

    /// Forgets programs that ended.
    pub(super) fn reap_children(&mut self) {
        for f in &mut self.guest_forwards {
            f.children.retain_mut(|c| matches!(c.try_wait(), Ok(None)));
        }
    }
}

/// Starts a program with a socket as its standard input and output.
fn start(words: &[String]) -> std::io::Result<(OwnedFd, Child)> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut cmd = Command::new(words.first().map_or("", String::as_str));
    cmd.args(words.get(1..).unwrap_or_default());
    let out: OwnedFd = theirs.try_clone()?.into();
    cmd.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::from(out));
    let child = cmd.spawn()?;
    Ok((ours.into(), child))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_as_in_a_shell() {
        let split = |t| words(t).map(|w| w.join("|"));
        assert_eq!(split("cat  -u"), Some("cat|-u".into()));
        assert_eq!(split(r#"a 'b c' "d \" e" f\ g ''"#), Some("a|b c|d \" e|f g|".into()));
        assert_eq!(split("a 'b"), None);
    }

    #[test]
    fn rules() {
        assert!(parse("tcp:10.0.2.100:80-cmd:cat").is_some_and(|r| r.1 == "cmd:cat"));
        for bad in ["foo", "udp:10.0.2.100:80-x", "tcp:10.0.2.100:x-y", "tcp:10.0.2.100:80", "tcp:z:80-x"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
