//! virtio-serial (VIRTIO 1.2, section 5.3): consoles and named ports over one device.
//!
//! Each port has a pair of queues; a control pair announces ports and their state. Ports are devices of their own on
//! the `virtio-serial-bus` ([`port`]); their queues are served here, under the machine lock. What cannot be delivered
//! is kept: at most one chardev read per port towards the guest, at most one request per port from it.

pub mod port;
#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::Arc;

use rqemu_derive::Device as DeriveDevice;
use serde_json::json;

use self::port::{NewPort, PortLink};
use super::pci::{OwnProps, PciClass};
use super::queue::{Chain, MAX_BURST};
use super::served::MainQueues;
use super::{BuildEnv, ChildBus, Raise, Start, VirtioClass, VirtioDevice, VirtioProps};
use crate::chardev::CharId;
use crate::device::{BusKind, Cx, DevId, Device, RealizeCx};
use crate::qom::{ClassInfo, Classed, DeviceClass};
use crate::{qerr, QResult};

const MULTIPORT: u64 = 1 << 1;
const EMERG_WRITE: u64 = 1 << 2;

const CONTROL_IN: u16 = 2;
const CONTROL_OUT: u16 = 3;
/// Offset of the emergency write register.
const EMERG: usize = 8;

/// Control messages.
mod event {
    pub const DEVICE_READY: u16 = 0;
    pub const PORT_ADD: u16 = 1;
    pub const PORT_REMOVE: u16 = 2;
    pub const PORT_READY: u16 = 3;
    pub const CONSOLE_PORT: u16 = 4;
    pub const PORT_OPEN: u16 = 6;
    pub const PORT_NAME: u16 = 7;
}

/// Properties of `virtio-serial-device`.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtio-serial-device", parent = "virtio-device", bus = Virtio, category = Input)]
pub struct VirtioSerialProps {
    #[prop(name = "max_ports", default = 31u32)]
    pub max_ports: u32,
    /// on/off
    #[prop(default = true)]
    pub emergency_write: bool,
    /// Those of every virtio device.
    #[base]
    pub virtio: VirtioProps,
}

/// Transport properties on PCI.
#[derive(DeriveDevice)]
pub struct SerialPciProps {
    /// on/off
    #[prop(default = true)]
    pub ioeventfd: bool,
    #[prop(default = 2u32)]
    pub vectors: u32,
    #[prop]
    pub class: u32,
}

impl OwnProps for SerialPciProps {
    fn class(&self) -> u32 {
        self.class
    }
    fn resolve_class(&mut self, class: u16) {
        self.class = class.into();
    }
    fn ioeventfd(&self) -> bool {
        self.ioeventfd
    }
    fn vectors(&mut self) -> Option<&mut u32> {
        Some(&mut self.vectors)
    }
}

impl PciClass for VirtioSerialProps {
    type Own = SerialPciProps;
    const LEGACY_ID: u16 = 0x1003;
    const PCI_CLASS: u16 = 0x0780;
    fn class_info() -> &'static ClassInfo {
        Self::CLASS
    }
}

crate::virtio_pci_classes! {
    device: super::serial::VirtioSerialProps, own: super::serial::SerialPciProps, category: Input,
    parent: "virtio-serial-pci-base", alias: "virtio-serial", backend: "virtio-serial-device",
    generic: "virtio-serial-pci", transitional: "virtio-serial-pci-transitional",
    non_transitional: "virtio-serial-pci-non-transitional",
}

impl DeviceClass for VirtioSerialProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        super::part::realize_on_bus(self, cx, false)
    }
}

impl VirtioClass for VirtioSerialProps {
    fn build(&mut self, _cx: &mut RealizeCx<'_>, _env: &BuildEnv) -> QResult<Box<dyn VirtioDevice>> {
        const MAX: u32 = 511;
        if self.max_ports == 0 {
            return Err(qerr!("Maximum number of serial ports not specified"));
        }
        // Each port takes two queues.
        if self.max_ports > MAX {
            return Err(qerr!("maximum ports supported: {MAX}"));
        }
        Ok(Box::new(Serial {
            max_ports: self.max_ports,
            emergency: self.emergency_write,
            multiport: false,
            driver_ok: false,
            ports: Vec::new(),
            control: VecDeque::new(),
            queues: MainQueues::default(),
        }))
    }

    fn common(&self) -> &VirtioProps {
        &self.virtio
    }
}

/// A port as the device keeps it.
struct Port {
    id: u32,
    dev: DevId,
    /// The user's id, for events.
    user_id: Option<String>,
    name: Option<String>,
    console: bool,
    chr: Option<CharId>,
    link: Arc<PortLink>,
    /// Input that the guest has no buffer for yet.
    backlog: Vec<u8>,
    /// Output that the chardev has not taken yet: request, data, position.
    pending: Option<(u16, Vec<u8>, usize)>,
}

/// The device.
pub struct Serial {
    max_ports: u32,
    emergency: bool,
    /// The driver knows more than one port.
    multiport: bool,
    driver_ok: bool,
    ports: Vec<Port>,
    /// Control messages that wait for buffers.
    control: VecDeque<Vec<u8>>,
    queues: MainQueues,
}

/// Queue from the host to port `id`.
fn input_queue(id: u32) -> u16 {
    if id == 0 {
        0
    } else {
        (id * 2 + 2) as u16
    }
}

/// Port of a queue and whether it goes to the guest; `None` for the control pair.
fn port_of(q: u16) -> Option<(u32, bool)> {
    let pair = u32::from(q / 2);
    let id = match pair {
        0 => 0,
        1 => return None,
        n => n - 1,
    };
    Some((id, q & 1 == 0))
}

impl Serial {
    fn port(&mut self, id: u32) -> Option<&mut Port> {
        self.ports.iter_mut().find(|p| p.id == id)
    }

    fn port_by_dev(&self, dev: DevId) -> Option<u32> {
        self.ports.iter().find(|p| p.dev == dev).map(|p| p.id)
    }

    /// Checks a new port's place and takes it.
    ///
    /// # Errors
    /// With QEMU's texts: taken, out of range, reserved, or none free.
    pub fn attach(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, dev: DevId, new: NewPort) -> QResult<u32> {
        let taken = |id: u32| self.ports.iter().any(|p| p.id == id);
        if let Some(n) = new.name.as_deref() {
            if self.ports.iter().any(|p| p.name.as_deref() == Some(n)) {
                return Err(qerr!("virtio-serial-bus: A port already exists by name {n}"));
            }
        }
        let id = match new.nr {
            // Port 0 is for the first console.
            None if new.console && !taken(0) => 0,
            None => (1..self.max_ports)
                .find(|id| !taken(*id))
                .ok_or_else(|| qerr!("virtio-serial-bus: Maximum port limit for this device reached"))?,
            Some(n) if n >= self.max_ports => {
                let max = self.max_ports - 1;
                return Err(qerr!("virtio-serial-bus: Out-of-range port id specified, max. allowed: {max}"));
            }
            Some(n) if taken(n) => return Err(qerr!("virtio-serial-bus: A port already exists at id {n}")),
            Some(0) if !new.console => {
                return Err(qerr!(
                    "Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility."
                ));
            }
            Some(n) => n,
        };
        *new.link.input.lock() = self.queues.queue(input_queue(id));
        self.ports.push(Port {
            id,
            dev,
            user_id: new.user_id,
            name: new.name,
            console: new.console,
            chr: new.chr,
            link: new.link,
            backlog: Vec::new(),
            pending: None,
        });
        if self.driver_ok && self.multiport {
            self.send(cx, raise, id, event::PORT_ADD, 1, &[]);
        }
        if new.console {
            self.host_open(cx, raise, id, true);
        }
        Ok(id)
    }

    /// A port goes away.
    pub fn detach(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, dev: DevId) {
        let Some(id) = self.port_by_dev(dev) else { return };
        self.ports.retain(|p| p.id != id);
        if self.driver_ok && self.multiport {
            self.send(cx, raise, id, event::PORT_REMOVE, 1, &[]);
        }
    }

    /// The host side of a port opened or closed.
    pub fn host_open_dev(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, dev: DevId, open: bool) {
        if let Some(id) = self.port_by_dev(dev) {
            self.host_open(cx, raise, id, open);
        }
    }

    fn host_open(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, id: u32, open: bool) {
        let Some(p) = self.port(id) else { return };
        if p.link.host.swap(open, Ordering::AcqRel) == open {
            return;
        }
        if !open {
            p.backlog.clear();
        }
        if self.driver_ok && self.multiport {
            self.send(cx, raise, id, event::PORT_OPEN, open.into(), &[]);
        }
        if !open {
            self.flush_out(cx, raise, id);
        }
    }

    /// Queues a control message and delivers what there is room for.
    fn send(&mut self, _cx: &mut Cx<'_>, raise: &mut Raise, id: u32, event: u16, value: u16, text: &[u8]) {
        // A guest that takes none cannot make the queue grow without end.
        if self.control.len() >= 8 * self.max_ports as usize {
            self.control.pop_front();
        }
        let mut m = id.to_le_bytes().to_vec();
        m.extend(event.to_le_bytes());
        m.extend(value.to_le_bytes());
        m.extend(text);
        self.control.push_back(m);
        self.flush_control(raise);
    }

    fn flush_control(&mut self, raise: &mut Raise) {
        let mut chain = Chain::default();
        let mut any = false;
        while !self.control.is_empty() && self.queues.pop(raise, CONTROL_IN, &mut chain) {
            if let Some(m) = self.control.pop_front() {
                let n = chain.writable.write(0, &m);
                self.queues.push(raise, CONTROL_IN, chain.head, n);
                any = true;
            }
        }
        if any {
            self.queues.notify(raise, CONTROL_IN);
        }
    }

    fn control_out(&mut self, cx: &mut Cx<'_>, raise: &mut Raise) {
        let mut chain = Chain::default();
        let mut burst = 0..MAX_BURST;
        while burst.next().is_some() && self.queues.pop(raise, CONTROL_OUT, &mut chain) {
            let m = chain.readable.to_vec(64);
            self.queues.push(raise, CONTROL_OUT, chain.head, 0);
            self.queues.notify(raise, CONTROL_OUT);
            if let [a, b, c, d, e, f, g, h, ..] = m[..] {
                let id = u32::from_le_bytes([a, b, c, d]);
                self.control_message(cx, raise, id, u16::from_le_bytes([e, f]), u16::from_le_bytes([g, h]));
            }
        }
    }

    fn control_message(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, id: u32, event: u16, value: u16) {
        match event {
            event::DEVICE_READY if value != 0 => {
                for id in self.ports.iter().map(|p| p.id).collect::<Vec<_>>() {
                    self.send(cx, raise, id, event::PORT_ADD, 1, &[]);
                }
            }
            event::PORT_READY if value != 0 => {
                let Some(p) = self.port(id) else { return };
                let (console, name, open) = (p.console, p.name.clone(), p.link.host.load(Ordering::Acquire));
                if console {
                    self.send(cx, raise, id, event::CONSOLE_PORT, 1, &[]);
                }
                if let Some(n) = name {
                    let mut text = n.into_bytes();
                    text.push(0);
                    self.send(cx, raise, id, event::PORT_NAME, 1, &text);
                }
                if open {
                    self.send(cx, raise, id, event::PORT_OPEN, 1, &[]);
                }
            }
            event::PORT_OPEN => self.guest_open(cx, id, value != 0),
            _ => {}
        }
    }

    fn guest_open(&mut self, cx: &mut Cx<'_>, id: u32, open: bool) {
        let Some(p) = self.port(id) else { return };
        p.link.guest.store(open, Ordering::Release);
        if let Some(chr) = p.chr {
            if !p.console {
                cx.m.chr_set_frontend_open(chr, open);
            }
            if open {
                cx.chr_accept_input(chr);
            }
        }
        if let Some(user) = &p.user_id {
            let data = json!({"id": user, "open": open});
            cx.event("VSERPORT_CHANGE", Some(data));
        }
    }

    /// Input for a port, from its chardev.
    pub fn receive(&mut self, raise: &mut Raise, dev: DevId, data: &[u8]) {
        let Some(id) = self.port_by_dev(dev) else { return };
        if let Some(p) = self.port(id) {
            p.backlog.extend_from_slice(data);
            p.link.backlog.store(true, Ordering::Release);
        }
        self.flush_in(raise, id);
    }

    fn flush_in(&mut self, raise: &mut Raise, id: u32) {
        let q = input_queue(id);
        let Some(p) = self.ports.iter_mut().find(|p| p.id == id) else { return };
        let (mut chain, mut done) = (Chain::default(), 0);
        while done < p.backlog.len() && self.queues.pop(raise, q, &mut chain) {
            let n = chain.writable.write(0, &p.backlog[done..]);
            self.queues.push(raise, q, chain.head, n);
            done += n;
        }
        p.backlog.drain(..done);
        p.link.backlog.store(!p.backlog.is_empty(), Ordering::Release);
        if done > 0 {
            self.queues.notify(raise, q);
        }
    }

    /// Output of a port: what its chardev does not take waits, and with it the rest of the queue.
    fn flush_out(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, id: u32) {
        let q = input_queue(id) + 1;
        let mut chain = Chain::default();
        for _ in 0..MAX_BURST {
            let p = self.ports.iter_mut().find(|p| p.id == id);
            let listening = p.as_ref().is_some_and(|p| p.link.host.load(Ordering::Acquire));
            let chr = p.as_ref().and_then(|p| p.chr).filter(|_| listening);
            let pending = p.and_then(|p| p.pending.take());
            let (head, data, mut at) = match pending {
                Some(x) => x,
                None if !self.queues.pop(raise, q, &mut chain) => return,
                None => (chain.head, chain.readable.to_vec(MAX_OUT), 0),
            };
            if let Some(chr) = chr {
                at += cx.chr_write(chr, &data[at..]);
                if at < data.len() {
                    if let Some(p) = self.port(id) {
                        p.link.throttled.store(true, Ordering::Release);
                        p.pending = Some((head, data, at));
                    }
                    return;
                }
            }
            self.queues.push(raise, q, head, 0);
            self.queues.notify(raise, q);
        }
    }

    /// The chardev of a port takes output again.
    pub fn writable(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, dev: DevId) {
        let Some(id) = self.port_by_dev(dev) else { return };
        if let Some(p) = self.port(id) {
            p.link.throttled.store(false, Ordering::Release);
        }
        self.flush_out(cx, raise, id);
    }
}

/// Most bytes of one request; no driver sends more than a few pages.
const MAX_OUT: usize = 1 << 20;

impl VirtioDevice for Serial {
    fn id(&self) -> u16 {
        3
    }
    fn features(&self, _modern: bool) -> u64 {
        let on = |c: bool, f: u64| if c { f } else { 0 };
        on(self.max_ports > 1, MULTIPORT) | on(self.emergency, EMERG_WRITE)
    }
    fn queue_sizes(&self) -> Vec<u16> {
        let mut v = vec![128; 2];
        v.extend([32; 2]);
        v.resize(4 + 2 * (self.max_ports as usize - 1), 128);
        v
    }
    fn config_len(&self) -> usize {
        if self.emergency {
            12
        } else {
            8
        }
    }
    fn config(&self, out: &mut [u8]) {
        if let Some(d) = out.get_mut(4..8) {
            d.copy_from_slice(&self.max_ports.to_le_bytes());
        }
    }
    fn set_config(&mut self, cx: &mut Cx<'_>, _raise: &mut Raise, offset: usize, data: &[u8]) {
        let Some(c) = EMERG.checked_sub(offset).and_then(|i| data.get(i)) else { return };
        let console = self.ports.iter().find(|p| p.console && p.chr.is_some());
        if let (true, Some(chr)) = (self.emergency, console.and_then(|p| p.chr)) {
            cx.chr_write(chr, &[*c]);
        }
    }
    fn start(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, s: &Start<'_>) {
        self.multiport = s.features & MULTIPORT != 0;
        self.driver_ok = true;
        self.queues.start(s);
        for p in &self.ports {
            *p.link.input.lock() = self.queues.queue(input_queue(p.id));
        }
        let known = self.port(0).is_none_or(|p| p.link.guest.load(Ordering::Acquire));
        if !self.multiport && !known {
            // Such a driver cannot say that it opened its only port.
            self.guest_open(cx, 0, true);
        }
        let queues = 4 + 2 * (self.max_ports as u16 - 1);
        for q in 0..queues {
            self.kick(cx, raise, q);
        }
    }
    fn stop(&mut self, _cx: &mut Cx<'_>) {
        self.queues.stop();
        for p in &self.ports {
            *p.link.input.lock() = None;
        }
    }
    fn reset(&mut self, cx: &mut Cx<'_>) {
        self.driver_ok = false;
        self.multiport = false;
        self.control.clear();
        for i in 0..self.ports.len() {
            let p = &mut self.ports[i];
            p.pending = None;
            p.backlog.clear();
            p.link.backlog.store(false, Ordering::Release);
            p.link.throttled.store(false, Ordering::Release);
            let (id, open) = (p.id, p.link.guest.load(Ordering::Acquire));
            if open {
                self.guest_open(cx, id, false);
            }
        }
    }
    fn kick(&mut self, cx: &mut Cx<'_>, raise: &mut Raise, q: u16) {
        match (q, port_of(q)) {
            (CONTROL_IN, _) => self.flush_control(raise),
            (CONTROL_OUT, _) => self.control_out(cx, raise),
            (_, Some((id, true))) => {
                self.flush_in(raise, id);
                if let Some(chr) = self.port(id).and_then(|p| p.chr) {
                    cx.chr_accept_input(chr);
                }
            }
            (_, Some((id, false))) => {
                let held = self.port(id).is_some_and(|p| p.link.throttled.load(Ordering::Acquire));
                if !held {
                    self.flush_out(cx, raise, id);
                }
            }
            _ => {}
        }
    }
    fn child_bus(&self) -> Option<ChildBus> {
        Some(ChildBus { kind: BusKind::VirtioSerial, max: self.max_ports })
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
