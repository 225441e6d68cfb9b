//! TFTP (RFC 1350) with the options of RFC 2347 to 2349 (`blksize`, `tsize`): read only, for boot loaders.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

use super::dhcp::LOW_DELAY;
use super::packet::be16;
use super::User;

pub(super) const PORT: u16 = 69;
const READ: u16 = 1;
const DATA: u16 = 3;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 5;
const OPTION_ACK: u16 = 6;

const BLOCK: usize = 512;
/// Largest block that goes into one packet.
const MAX_BLOCK: usize = 1428;
/// Transfers at a time; a new one ends the one that was quiet for longest.
const MAX_SESSIONS: usize = 20;
/// Milliseconds without a packet after which a transfer is over.
const IDLE: u64 = 30_000;

/// A transfer.
struct Session {
    client: SocketAddr,
    file: File,
    block_size: usize,
    /// Number of the block sent last (does not wrap).
    block: u64,
    used: u64,
}

/// Transfers.
#[derive(Default)]
pub(super) struct Tftp {
    sessions: Vec<Session>,
}

/// A request: file and options.
struct Request<'a> {
    name: &'a str,
    mode: &'a str,
    options: Vec<(String, &'a str)>,
}

fn parse(b: &[u8]) -> Option<Request<'_>> {
    let mut texts = b.strip_suffix(&[0])?.split(|c| *c == 0).map(std::str::from_utf8);
    let (name, mode) = (texts.next()?.ok()?, texts.next()?.ok()?);
    let mut options = Vec::new();
    while let (Some(Ok(key)), Some(Ok(value))) = (texts.next(), texts.next()) {
        options.push((key.to_ascii_lowercase(), value));
    }
    Some(Request { name, mode, options })
}

/// The file that a name means; `None`: it leads out of the folder.
fn locate(root: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name.trim_start_matches('/'));
    let plain = name.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    plain.then(|| root.join(name))
}

fn error(code: u16, text: &str) -> Vec<u8> {
    let mut b = [ERROR.to_be_bytes(), code.to_be_bytes()].concat();
    b.extend(text.as_bytes());
    b.push(0);
    b
}

impl Session {
    /// A block; empty behind the end of the file.
    fn data(&self) -> Option<Vec<u8>> {
        let mut b = [DATA.to_be_bytes(), (self.block as u16).to_be_bytes()].concat();
        b.resize(4 + self.block_size, 0);
        let at = self.block.checked_sub(1)?.checked_mul(self.block_size as u64)?;
        let mut have = 0;
        while have < self.block_size {
            match self.file.read_at(b.get_mut(4 + have..)?, at + have as u64) {
                Ok(0) => break,
                Ok(n) => have += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        b.truncate(4 + have);
        Some(b)
    }
}

impl User {
    /// A datagram to the TFTP port.
    pub(super) fn tftp_input(&mut self, client: SocketAddr, server: SocketAddr, b: &[u8]) {
        let reply = match (be16(b, 0), b.get(2..)) {
            (Some(READ), Some(rest)) => self.tftp_read(client, rest),
            (Some(ACKNOWLEDGE), Some(rest)) => self.tftp_ack(client, rest),
            (Some(ERROR), _) => {
                self.tftp.sessions.retain(|s| s.client != client);
                None
            }
            _ => None,
        };
        if let Some(r) = reply {
            self.link.send_udp(server, client, LOW_DELAY, &r);
        }
    }

    fn tftp_read(&mut self, client: SocketAddr, b: &[u8]) -> Option<Vec<u8>> {
        let Some(root) = &self.cfg.tftp else { return Some(error(2, "Access violation")) };
        let Some(r) = parse(b) else { return Some(error(2, "Access violation")) };
        if !r.mode.eq_ignore_ascii_case("octet") {
            return Some(error(4, "Unsupported transfer mode"));
        }
        let Some(path) = locate(root, r.name) else { return Some(error(2, "Access violation")) };
        let opened = File::open(path).and_then(|f| f.metadata().map(|m| (f, m)));
        let Some((file, meta)) = opened.ok().filter(|(_, m)| m.is_file()) else {
            return Some(error(1, "File not found"));
        };
        let mut s = Session { client, file, block_size: BLOCK, block: 1, used: self.now };
        let mut accepted = OPTION_ACK.to_be_bytes().to_vec();
        for (key, value) in &r.options {
            let answer = match (key.as_str(), value.parse::<u64>()) {
                ("tsize", Ok(_)) => meta.len().to_string(),
                ("blksize", Ok(n)) if n >= 8 => {
                    s.block_size = n.min(MAX_BLOCK as u64) as usize;
                    s.block_size.to_string()
                }
                _ => continue,
            };
            accepted.extend([key.as_bytes(), &[0], answer.as_bytes(), &[0]].concat());
        }
        let reply = if accepted.len() > 2 {
            s.block = 0;
            Some(accepted)
        } else {
            s.data()
        };
        self.tftp.sessions.retain(|o| o.client != client);
        if self.tftp.sessions.len() >= MAX_SESSIONS {
            let list = &mut self.tftp.sessions;
            let oldest = (0..list.len()).min_by_key(|i| list.get(*i).map_or(0, |s| s.used));
            list.remove(oldest.unwrap_or(0));
        }
        self.tftp.sessions.push(s);
        self.due(self.now + IDLE);
        reply
    }

    fn tftp_ack(&mut self, client: SocketAddr, b: &[u8]) -> Option<Vec<u8>> {
        let acked = be16(b, 0)?;
        let now = self.now;
        let at = self.tftp.sessions.iter().position(|s| s.client == client)?;
        let s = self.tftp.sessions.get_mut(at)?;
        s.used = now;
        if acked == s.block as u16 {
            let last = s.block > 0 && s.data().is_none_or(|d| d.len() < 4 + s.block_size);
            if last {
                self.tftp.sessions.remove(at);
                return None;
            }
            s.block += 1;
        } else if acked.wrapping_add(1) != s.block as u16 {
            return None;
        }
        s.data()
    }

    /// Ends transfers that were quiet; when the next one may be.
    pub(super) fn tftp_tick(&mut self) -> Option<u64> {
        let now = self.now;
        self.tftp.sessions.retain(|s| now < s.used + IDLE);
        self.tftp.sessions.iter().map(|s| s.used + IDLE).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_folder() {
        let root = Path::new("/srv");
        for (name, path) in [
            ("a/b", Some("/srv/a/b")),
            ("/a", Some("/srv/a")),
            ("//a", Some("/srv/a")),
            ("./a", Some("/srv/a")),
            ("../a", None),
            ("a/../../b", None),
            ("/..", None),
        ] {
            assert_eq!(locate(root, name), path.map(PathBuf::from), "{name}");
        }
    }

    #[test]
    fn requests() {
        let r = parse(b"f\0octet\0TSize\x000\0blksize\x001024\0").unwrap();
        assert_eq!((r.name, r.mode), ("f", "octet"));
        assert_eq!(r.options, [("tsize".to_string(), "0"), ("blksize".to_string(), "1024")]);
        assert!(parse(b"f\0octet").is_none());
        assert!(parse(b"f\0").is_none());
    }
}
