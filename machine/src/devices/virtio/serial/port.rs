//! `virtconsole` and `virtserialport`: the ports of a virtio-serial device.

use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_derive::Device as DeriveDevice;

use super::super::core;
use super::super::part;
use super::super::queue::Queue;
use super::super::Raise;
use super::Serial;
use crate::chardev::{CharEvent, CharFrontend, CharId};
use crate::device::{Cx, DevId, Device, RealizeCx};
use crate::qom::{ChardevRef, DeviceClass};
use crate::{qerr, QResult};

/// Most bytes taken from a chardev at once.
const CHUNK: usize = 4096;

/// State that the port device and the controller both look at.
#[derive(Default)]
pub struct PortLink {
    /// The guest has the port open.
    pub guest: AtomicBool,
    /// The host side is open.
    pub host: AtomicBool,
    /// Output waits for the chardev.
    pub throttled: AtomicBool,
    /// Input waits for the guest.
    pub backlog: AtomicBool,
    /// Queue for input while the driver is ready.
    pub input: Mutex<Option<Arc<Queue>>>,
}

/// What a port hands to its controller.
pub struct NewPort {
    /// Wanted number.
    pub nr: Option<u32>,
    /// Name for the guest.
    pub name: Option<String>,
    /// It is a console.
    pub console: bool,
    /// The user's id.
    pub user_id: Option<String>,
    /// Its chardev.
    pub chr: Option<CharId>,
    /// Shared state.
    pub link: Arc<PortLink>,
}

/// Properties of all ports.
#[derive(DeriveDevice, Clone, Debug)]
pub struct PortBase {
    #[prop(default = u32::MAX)]
    pub nr: u32,
    #[prop]
    pub name: Option<String>,
}

/// A console for the guest's kernel and users.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtconsole", parent = "virtserialport", bus = VirtioSerial, category = Input, hotplug)]
pub struct VirtConsoleProps {
    /// ID of a chardev to use as a backend
    #[prop]
    pub chardev: ChardevRef,
    /// Those of every port.
    #[base]
    pub port: PortBase,
}

/// A named channel for programs in the guest.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtserialport", parent = "virtio-serial-port", bus = VirtioSerial, category = Input, hotplug)]
pub struct VirtSerialPortProps {
    /// ID of a chardev to use as a backend
    #[prop]
    pub chardev: ChardevRef,
    /// Those of every port.
    #[base]
    pub port: PortBase,
}

impl DeviceClass for VirtConsoleProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        realize(cx, "virtconsole", &self.chardev, &mut self.port, true)
    }
}

impl DeviceClass for VirtSerialPortProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        realize(cx, "virtserialport", &self.chardev, &mut self.port, false)
    }
}

fn realize(
    cx: &mut RealizeCx<'_>,
    class: &str,
    chardev: &ChardevRef,
    base: &mut PortBase,
    console: bool,
) -> QResult<Box<dyn Device>> {
    let parent = cx.parent_dev().ok_or_else(|| qerr!("device has no parent bus"))?;
    let transport = part::transport_of(cx.m(), parent).ok_or_else(|| qerr!("bus has no controller"))?;
    let dev = cx.id();
    let chr = cx.connect_chardev(class, "chardev", chardev, 0)?;
    let link = Arc::new(PortLink::default());
    let new = NewPort {
        nr: (base.nr != u32::MAX).then_some(base.nr),
        name: base.name.clone(),
        console,
        user_id: cx.m().tree.get(dev).and_then(|n| n.user_id().map(str::to_string)),
        chr,
        link: link.clone(),
    };
    let attached = with_serial(&mut cx.cx, transport, |s, cx, raise| s.attach(cx, raise, dev, new));
    base.nr = attached.unwrap_or_else(|| Err(qerr!("bus controller is busy")))?;
    Ok(Box::new(Port { transport, console, nr: base.nr, link }))
}

/// Calls the serial device behind a transport.
fn with_serial<R>(
    cx: &mut Cx<'_>,
    transport: DevId,
    f: impl FnOnce(&mut Serial, &mut Cx<'_>, &mut Raise) -> R,
) -> Option<R> {
    cx.call(transport, |d, cx| {
        let t = part::transport(d)?;
        let mut raise = Raise::default();
        let s = t.core().dev.as_any().downcast_mut::<Serial>()?;
        let r = f(s, cx, &mut raise);
        core::deliver(t, cx, raise);
        Some(r)
    })
    .flatten()
}

/// A port at run time.
struct Port {
    transport: DevId,
    console: bool,
    nr: u32,
    link: Arc<PortLink>,
}

impl Device for Port {
    // The controller resets its ports.
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn chardev(&mut self) -> Option<&mut dyn CharFrontend> {
        Some(self)
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        let dev = cx.dev;
        with_serial(cx, self.transport, |s, cx, raise| s.detach(cx, raise, dev));
    }
    fn qtree_lines(&self, out: &mut Vec<String>) {
        let on = |b: &AtomicBool| if b.load(Ordering::Acquire) { "on" } else { "off" };
        out.push(format!(
            "port {}, guest {}, host {}, throttle {}",
            self.nr,
            on(&self.link.guest),
            on(&self.link.host),
            on(&self.link.throttled)
        ));
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl CharFrontend for Port {
    fn can_receive(&mut self, _port: u32) -> usize {
        let ready = self.link.guest.load(Ordering::Acquire) && !self.link.backlog.load(Ordering::Acquire);
        let room = ready && self.link.input.lock().as_ref().is_some_and(|q| q.avail.lock().has_work());
        if room {
            CHUNK
        } else {
            0
        }
    }

    fn receive(&mut self, cx: &mut Cx<'_>, _port: u32, data: &[u8]) {
        let dev = cx.dev;
        with_serial(cx, self.transport, |s, _, raise| s.receive(raise, dev, data));
    }

    fn event(&mut self, cx: &mut Cx<'_>, _port: u32, event: CharEvent) {
        // A console is always open.
        let open = match event {
            CharEvent::Opened if !self.console => true,
            CharEvent::Closed if !self.console => false,
            _ => return,
        };
        let dev = cx.dev;
        with_serial(cx, self.transport, |s, cx, raise| s.host_open_dev(cx, raise, dev, open));
    }

    fn writable(&mut self, cx: &mut Cx<'_>, _port: u32) {
        let dev = cx.dev;
        with_serial(cx, self.transport, |s, cx, raise| s.writable(cx, raise, dev));
    }
}
