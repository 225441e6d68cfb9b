//! Taps: network interfaces of the host whose other end is a descriptor (Linux tun/tap).
//!
//! Left out: vhost (refused), `poll-us`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::create::inherited;
use super::{NetBackend, Received};
use crate::error::strerror;
use crate::spec::Dict;
use crate::{qerr, QResult};

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNGETFEATURES: libc::c_ulong = 0x8004_54cf;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETSNDBUF: libc::c_ulong = 0x4004_54d4;
const TUNSETQUEUE: libc::c_ulong = 0x4004_54d9;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const IFF_TAP: i32 = 0x2;
const IFF_NO_PI: i32 = 0x1000;
const IFF_MULTI_QUEUE: i32 = 0x100;
const IFF_ATTACH_QUEUE: i32 = 0x200;
const IFF_DETACH_QUEUE: i32 = 0x400;
const IFF_VNET_HDR: i32 = 0x4000;

const IFUP: &str = "/etc/qemu-ifup";
const IFDOWN: &str = "/etc/qemu-ifdown";
const BRIDGE_HELPER: &str = "/usr/lib/qemu/qemu-bridge-helper";
const BRIDGE: &str = "br0";
/// virtio-net header without the buffer count.
const HEADER: usize = 10;
const MAX_HEADER: usize = 12;
/// Most queues of a tap.
const MAX_QUEUES: usize = 1024;

/// Work that may be left to the other side of a tap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums.
    pub csum: bool,
    /// Segmentation of TCP over IPv4.
    pub tso4: bool,
    /// Segmentation of TCP over IPv6.
    pub tso6: bool,
    /// Segmentation of TCP with congestion marks.
    pub ecn: bool,
    /// Fragmentation of UDP.
    pub ufo: bool,
}

impl Offloads {
    fn bits(self) -> libc::c_ulong {
        if !self.csum {
            return 0;
        }
        let mut bits = 1;
        for (on, bit) in
            [(self.tso4, 2), (self.tso6, 4), (self.ecn && (self.tso4 || self.tso6), 8), (self.ufo, 16)]
        {
            if on {
                bits |= bit;
            }
        }
        bits
    }
}

/// A tap that a card reads and writes itself.
#[derive(Debug)]
pub struct TapFd {
    /// Non-blocking; one frame a read or write.
    pub fd: OwnedFd,
    /// Length of the virtio-net header in front of each frame; 0: none. If the guest does not want one
    /// (`wanted` is false), strip it after reading and put zeroes in front before writing.
    pub header: usize,
    /// The card switched headers on.
    pub wanted: bool,
}

/// One queue of a tap.
pub(crate) struct Tap {
    file: File,
    info: String,
    kind: &'static str,
    /// Bytes of virtio-net header that the kernel puts in front; 0: none.
    header: usize,
    /// The card wants the header.
    wanted: bool,
    /// The kernel delivers frames here.
    in_use: bool,
    ifname: String,
    downscript: Option<String>,
    out: Vec<u8>,
}

/// `struct ifreq` as far as tun/tap uses it.
#[repr(C)]
struct IfReq {
    name: [u8; libc::IFNAMSIZ],
    flags: i16,
    pad: [u8; 22],
}

impl IfReq {
    fn new(name: &str, flags: i32) -> Self {
        let mut r = Self { name: [0; libc::IFNAMSIZ], flags: flags as i16, pad: [0; 22] };
        let n = name.len().min(libc::IFNAMSIZ - 1);
        r.name[..n].copy_from_slice(&name.as_bytes()[..n]);
        r
    }

    fn name(&self) -> String {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(self.name.len());
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

/// An ioctl whose argument is a pointer.
fn ioctl<T>(fd: &impl AsRawFd, request: libc::c_ulong, arg: &mut T) -> io::Result<()> {
    // SAFETY: each request used here reads or writes at most a `T` (an int or an `ifreq`), which lives over the call.
    match unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(arg)) } {
        r if r < 0 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn open_interface(name: Option<&str>, vnet: Option<bool>, multi: bool) -> QResult<(File, String, bool)> {
    const DEV: &str = "/dev/net/tun";
    let f = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEV);
    let f = f.map_err(|e| qerr!("could not open {DEV}: {}", strerror(&e)))?;
    let mut features = 0i32;
    // An old kernel without the call has none of the features.
    let _ = ioctl(&f, TUNGETFEATURES, &mut features);
    let has_vnet = features & IFF_VNET_HDR != 0;
    if vnet == Some(true) && !has_vnet {
        return Err(qerr!("vnet_hdr=1 requested, but no kernel support for IFF_VNET_HDR available"));
    }
    if multi && features & IFF_MULTI_QUEUE == 0 {
        return Err(qerr!("multiqueue required, but no kernel support for IFF_MULTI_QUEUE available"));
    }
    let vnet = vnet.unwrap_or(true) && has_vnet;
    let mut flags = IFF_TAP | IFF_NO_PI;
    flags |= if vnet { IFF_VNET_HDR } else { 0 } | if multi { IFF_MULTI_QUEUE } else { 0 };
    let mut req = IfReq::new(name.unwrap_or("tap%d"), flags);
    ioctl(&f, TUNSETIFF, &mut req).map_err(|e| match name {
        Some(n) => qerr!("could not configure {DEV} ({n}): {}", strerror(&e)),
        None => qerr!("could not configure {DEV}: {}", strerror(&e)),
    })?;
    let name = req.name();
    Ok((f, name, vnet))
}

fn run_script(script: &str, ifname: &str) -> QResult<()> {
    let status = match Command::new(script).arg(ifname).stdin(std::process::Stdio::null()).status() {
        Ok(s) => s.into_raw(),
        // As a shell would report it.
        Err(_) => 256,
    };
    match status {
        0 => Ok(()),
        s => Err(qerr!("network script {script} failed with status {s}")),
    }
}

/// A script's name, unless it is `no` or empty.
fn script<'a>(p: &'a Dict, key: &str, default: &'static str) -> (&'a str, Option<&'a str>) {
    let text = p.get_str(key).unwrap_or(default);
    (text, Some(text).filter(|s| !s.is_empty() && *s != "no"))
}

/// Opens the queues of a tap.
pub(super) fn open(id: &str, p: &Dict) -> QResult<Vec<Tap>> {
    let has = |keys: &[&str]| keys.iter().any(|k| p.contains(k));
    if has(&["vhostfd", "vhostfds"]) && !p.get_bool("vhost")?.unwrap_or(false) {
        return Err(qerr!("vhostfd(s)= is not valid without vhost"));
    }
    if p.get_bool("vhost")? == Some(true) || p.get_bool("vhostforce")? == Some(true) {
        let e = OpenOptions::new().read(true).write(true).open("/dev/vhost-net").err();
        return Err(match e {
            Some(e) => qerr!("tap: open vhost char device failed: {}", strerror(&e)),
            None => qerr!("vhost-net requested but could not be initialized"),
        });
    }
    if has(&["poll-us"]) {
        return Err(qerr!("poll-us= is not valid without vhost"));
    }
    let sndbuf = p.get_u64("sndbuf")?;
    let taps = if let Some(fd) = p.get_str("fd") {
        let others = ["ifname", "script", "downscript", "vnet_hdr", "helper", "queues", "fds", "vhostfds"];
        if has(&others) {
            return Err(qerr!(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd="
            ));
        }
        vec![Tap::from_fd(id, fd)?]
    } else if let Some(fds) = p.get_str("fds") {
        if has(&["ifname", "script", "downscript", "vnet_hdr", "helper", "queues", "vhostfd"]) {
            return Err(qerr!(
                "ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds="
            ));
        }
        fds.split(':').take(MAX_QUEUES).map(|fd| Tap::from_fd(id, fd)).collect::<QResult<_>>()?
    } else if let Some(helper) = p.get_str("helper") {
        if has(&["ifname", "script", "downscript", "vnet_hdr", "queues", "vhostfds"]) {
            return Err(qerr!(
                "ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper="
            ));
        }
        let file = bridge_helper(helper, p.get_str("br").unwrap_or(BRIDGE))?;
        vec![Tap::new(file, "tap", format!("helper={helper}"), String::new(), None)?]
    } else {
        open_named(p)?
    };
    if let Some(n) = sndbuf {
        for t in &taps {
            let mut value = i32::try_from(n).unwrap_or(i32::MAX);
            ioctl(&t.file, TUNSETSNDBUF, &mut value)
                .map_err(|e| qerr!("TUNSETSNDBUF ioctl failed: {}", strerror(&e)))?;
        }
    }
    Ok(taps)
}

fn open_named(p: &Dict) -> QResult<Vec<Tap>> {
    let queues = p.get_u64("queues")?.unwrap_or(1);
    if queues == 0 || queues > MAX_QUEUES as u64 {
        return Err(qerr!("tap: queues= must be between 1 and {MAX_QUEUES}"));
    }
    let (up, run_up) = script(p, "script", IFUP);
    let (down, run_down) = script(p, "downscript", IFDOWN);
    let vnet = p.get_bool("vnet_hdr")?;
    let mut ifname = p.get_str("ifname").map(str::to_string);
    let mut taps = Vec::new();
    for q in 0..queues {
        let (file, name, vnet) = open_interface(ifname.as_deref(), vnet, queues > 1)?;
        let first = q == 0;
        if let (true, Some(s)) = (first, run_up) {
            run_script(s, &name)?;
        }
        let (up, down) = if first { (up, down) } else { ("no", "no") };
        let info = format!("ifname={name},script={up},downscript={down}");
        let run_down = run_down.filter(|_| first).map(str::to_string);
        let mut tap = Tap::new(file, "tap", info, name.clone(), run_down)?;
        if !vnet {
            tap.header = 0;
        }
        ifname = Some(name);
        taps.push(tap);
    }
    Ok(taps)
}

/// `bridge`: a tap on a bridge, made by the helper program.
pub(super) fn open_bridge(p: &Dict) -> QResult<Tap> {
    let helper = p.get_str("helper").unwrap_or(BRIDGE_HELPER);
    let br = p.get_str("br").unwrap_or(BRIDGE);
    let file = bridge_helper(helper, br)?;
    Tap::new(file, "bridge", format!("helper={helper},br={br}"), String::new(), None)
}

/// Lets the helper program make a tap and pass its descriptor back.
fn bridge_helper(helper: &str, br: &str) -> QResult<File> {
    let failed = || qerr!("bridge helper failed");
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(|_| failed())?;
    // SAFETY: plain fcntl on our descriptor: the child is to have it.
    unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
    let fd = theirs.as_raw_fd();
    let mut cmd = if helper.contains([' ', '\t']) {
        let mut c = Command::new("/bin/sh");
        let bridge = if helper.contains("--br=") { String::new() } else { format!("--br={br}") };
        c.arg("-c").arg(format!("{helper} --use-vnet --fd={fd} {bridge}"));
        c
    } else {
        let mut c = Command::new(helper);
        c.args(["--use-vnet".into(), format!("--fd={fd}"), format!("--br={br}")]);
        c
    };
    let mut child = cmd.spawn().map_err(|_| failed())?;
    drop(theirs);
    let mut byte = [0];
    let got = ours.recv_with_fd(&mut byte);
    let status = child.wait();
    match (got, status) {
        (Ok((1, Some(f))), Ok(s)) if s.success() => Ok(f),
        _ => Err(failed()),
    }
}

impl Tap {
    fn new(
        file: File,
        kind: &'static str,
        info: String,
        ifname: String,
        downscript: Option<String>,
    ) -> QResult<Self> {
        let fd = file.as_raw_fd();
        // SAFETY: plain fcntl on our descriptor.
        unsafe {
            let flags = libc::fcntl(fd, libc::F_GETFL);
            libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
        }
        let mut req = IfReq::new("", 0);
        ioctl(&file, TUNGETIFF, &mut req)
            .map_err(|e| qerr!("Unable to query TUNGETIFF on FD {fd}: {}", strerror(&e)))?;
        let vnet = i32::from(req.flags) & IFF_VNET_HDR != 0;
        let mut tap = Self {
            file,
            info,
            kind,
            header: if vnet { HEADER } else { 0 },
            wanted: false,
            in_use: true,
            ifname,
            downscript,
            out: Vec::new(),
        };
        tap.set_offloads(Offloads::default());
        Ok(tap)
    }

    fn from_fd(id: &str, text: &str) -> QResult<Self> {
        let fd = inherited(id, text)?;
        Self::new(fd.into(), "tap", format!("fd={text}"), String::new(), None)
    }

    fn set_offloads(&mut self, o: Offloads) {
        // SAFETY: the argument is a number, not a pointer. A kernel without an offload refuses; the guest was told
        // then that it has none.
        unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, o.bits()) };
    }

    /// What the kernel can do; `None` without virtio-net headers.
    fn kernel_offloads(&self) -> Option<Offloads> {
        if self.header == 0 {
            return None;
        }
        let bits = Offloads { csum: true, ufo: true, ..Offloads::default() }.bits();
        // SAFETY: the argument is a number; the setting is replaced when the guest says what it takes.
        let ufo = unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, bits) } == 0;
        // SAFETY: as above.
        unsafe { libc::ioctl(self.file.as_raw_fd(), TUNSETOFFLOAD, 0) };
        Some(Offloads { csum: true, tso4: true, tso6: true, ecn: true, ufo })
    }

    fn switch_header(&mut self, len: Option<usize>, guest: Offloads) {
        if self.header == 0 {
            return;
        }
        let len = len.filter(|l| (HEADER..=MAX_HEADER).contains(l));
        self.wanted = len.is_some();
        let mut size = len.unwrap_or(HEADER) as i32;
        if ioctl(&self.file, TUNSETVNETHDRSZ, &mut size).is_ok() {
            self.header = size as usize;
        }
        self.set_offloads(if self.wanted { guest } else { Offloads::default() });
    }

    /// Lets the kernel deliver frames to this queue of a tap, or only to others. A tap with one queue has no choice.
    pub fn use_queue(&mut self, on: bool) {
        if self.in_use == on {
            return;
        }
        self.in_use = on;
        let mut req = IfReq::new("", if on { IFF_ATTACH_QUEUE } else { IFF_DETACH_QUEUE });
        // A kernel without it delivers to all queues; then frames on the others wait.
        let _ = ioctl(&self.file, TUNSETQUEUE, &mut req);
    }

    pub fn take(&mut self) -> Option<TapFd> {
        let fd = self.file.as_raw_fd();
        // SAFETY: duplicates our open descriptor.
        let dup = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if dup < 0 {
            return None;
        }
        // SAFETY: the descriptor is new and ours.
        let fd = unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(dup) };
        Some(TapFd { fd, header: self.header, wanted: self.wanted })
    }
}

impl NetBackend for Tap {
    fn kind(&self) -> &'static str {
        self.kind
    }
    fn info(&self) -> String {
        self.info.clone()
    }
    fn fd(&self) -> Option<RawFd> {
        Some(self.file.as_raw_fd())
    }
    fn read(&mut self, buf: &mut [u8]) -> Received {
        loop {
            match self.file.read(buf) {
                Ok(n) if self.wanted || self.header == 0 => return Received::Frame(n),
                Ok(n) if n > self.header => {
                    buf.copy_within(self.header..n, 0);
                    return Received::Frame(n - self.header);
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Received::Nothing,
            }
        }
    }
    fn write(&mut self, frame: &[u8]) -> bool {
        let data = if self.wanted || self.header == 0 {
            frame
        } else {
            self.out.clear();
            self.out.resize(self.header, 0);
            self.out.extend(frame);
            &self.out
        };
        !matches!(self.file.write(data), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
    fn header(&self) -> usize {
        if self.wanted {
            self.header
        } else {
            0
        }
    }
    fn offloads(&mut self) -> Option<Offloads> {
        self.kernel_offloads()
    }
    fn set_header(&mut self, len: Option<usize>, guest: Offloads) {
        self.switch_header(len, guest);
    }
    fn tap(&mut self) -> Option<&mut Tap> {
        Some(self)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if let Some(s) = self.downscript.take() {
            // Nobody is left to tell if it fails.
            let _ = run_script(&s, &self.ifname);
        }
    }
}
