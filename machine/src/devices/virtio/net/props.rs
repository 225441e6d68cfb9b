//! Properties of virtio network cards and the checks at start.

use rqemu_derive::Device as DeriveDevice;

use super::{feature as f, Config, Net};
use crate::device::{Device, RealizeCx};
use crate::devices::storage::blk::BootIndex;
use crate::devices::virtio::pci::{OwnProps, PciClass};
use crate::devices::virtio::{BuildEnv, VirtioClass, VirtioDevice, VirtioProps};
use crate::net::NicArgs;
use crate::qom::{ClassInfo, Classed, DeviceClass, MacAddr, NetdevRef};
use crate::{qerr, QResult};

/// Properties of `virtio-net-device`.
#[derive(DeriveDevice, Clone, Debug)]
#[class(name = "virtio-net-device", parent = "virtio-device", bus = Virtio, category = Network)]
pub struct VirtioNetProps {
    /// on/off
    #[prop(default = true)]
    pub csum: bool,
    /// on/off
    #[prop(name = "guest_csum", default = true)]
    pub guest_csum: bool,
    /// on/off
    #[prop(default = true)]
    pub gso: bool,
    /// on/off
    #[prop(name = "guest_tso4", default = true)]
    pub guest_tso4: bool,
    /// on/off
    #[prop(name = "guest_tso6", default = true)]
    pub guest_tso6: bool,
    /// on/off
    #[prop(name = "guest_ecn", default = true)]
    pub guest_ecn: bool,
    /// on/off
    #[prop(name = "guest_ufo", default = true)]
    pub guest_ufo: bool,
    /// on/off
    #[prop(name = "guest_announce", default = true)]
    pub guest_announce: bool,
    /// on/off
    #[prop(name = "host_tso4", default = true)]
    pub host_tso4: bool,
    /// on/off
    #[prop(name = "host_tso6", default = true)]
    pub host_tso6: bool,
    /// on/off
    #[prop(name = "host_ecn", default = true)]
    pub host_ecn: bool,
    /// on/off
    #[prop(name = "host_ufo", default = true)]
    pub host_ufo: bool,
    /// on/off
    #[prop(name = "mrg_rxbuf", default = true)]
    pub mrg_rxbuf: bool,
    /// on/off
    #[prop(default = true)]
    pub status: bool,
    /// on/off
    #[prop(name = "ctrl_vq", default = true)]
    pub ctrl_vq: bool,
    /// on/off
    #[prop(name = "ctrl_rx", default = true)]
    pub ctrl_rx: bool,
    /// on/off
    #[prop(name = "ctrl_vlan", default = true)]
    pub ctrl_vlan: bool,
    /// on/off
    #[prop(name = "ctrl_rx_extra", default = true)]
    pub ctrl_rx_extra: bool,
    /// on/off
    #[prop(name = "ctrl_mac_addr", default = true)]
    pub ctrl_mac_addr: bool,
    /// on/off
    #[prop(name = "ctrl_guest_offloads", default = true)]
    pub ctrl_guest_offloads: bool,
    /// on/off
    #[prop]
    pub mq: bool,
    /// on/off
    #[prop]
    pub rss: bool,
    /// on/off
    #[prop]
    pub hash: bool,
    /// on/off
    #[prop(name = "guest_rsc_ext")]
    pub guest_rsc_ext: bool,
    #[prop(name = "rsc_interval", default = 300_000u32)]
    pub rsc_interval: u32,
    /// Ethernet address, for example 52:54:00:12:34:56
    #[prop]
    pub mac: MacAddr,
    /// ID of a netdev to use as a backend
    #[prop]
    pub netdev: NetdevRef,
    #[prop(object)]
    pub bootindex: BootIndex,
    #[prop(default = 150_000u32)]
    pub x_txtimer: u32,
    #[prop(default = 256i32)]
    pub x_txburst: i32,
    #[prop]
    pub tx: Option<String>,
    #[prop(name = "rx_queue_size", default = 256u16)]
    pub rx_queue_size: u16,
    #[prop(name = "tx_queue_size", default = 256u16)]
    pub tx_queue_size: u16,
    #[prop(name = "host_mtu")]
    pub host_mtu: u16,
    #[prop(default = true)]
    pub x_mtu_bypass_backend: bool,
    #[prop(default = -1i32)]
    pub speed: i32,
    #[prop]
    pub duplex: Option<String>,
    #[prop]
    pub failover: bool,
    /// Those of every virtio device.
    #[base]
    pub virtio: VirtioProps,
}

/// Transport properties on PCI.
#[derive(DeriveDevice)]
pub struct NetPciProps {
    /// on/off
    #[prop(default = true)]
    pub ioeventfd: bool,
    #[prop(default = u32::MAX)]
    pub vectors: u32,
}

impl OwnProps for NetPciProps {
    fn ioeventfd(&self) -> bool {
        self.ioeventfd
    }
    fn vectors(&mut self) -> Option<&mut u32> {
        Some(&mut self.vectors)
    }
}

impl PciClass for VirtioNetProps {
    type Own = NetPciProps;
    const LEGACY_ID: u16 = 0x1000;
    const PCI_CLASS: u16 = 0x0200;
    const ROM: &'static str = "efi-virtio.rom";
    const ROM_MEMORY: &'static str = "virtio-net-pci";
    fn class_info() -> &'static ClassInfo {
        Self::CLASS
    }
}

crate::virtio_pci_classes! {
    device: super::VirtioNetProps, own: super::NetPciProps, category: Network,
    parent: "virtio-net-pci-base", alias: "virtio-net", backend: "virtio-net-device",
    generic: "virtio-net-pci", transitional: "virtio-net-pci-transitional",
    non_transitional: "virtio-net-pci-non-transitional",
}

impl DeviceClass for VirtioNetProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        crate::devices::virtio::part::realize_on_bus(self, cx, false)
    }
}

/// Smallest receive queue, and the size of transmit queues.
const MIN_QUEUE: u16 = 256;
const MAX_QUEUE: u16 = 1024;

impl VirtioNetProps {
    fn check(&self) -> QResult<()> {
        for (on, name) in [
            (self.rss, "rss"),
            (self.hash, "hash"),
            (self.guest_rsc_ext, "guest_rsc_ext"),
            (self.failover, "failover"),
        ] {
            if on {
                return Err(qerr!("virtio-net: '{name}' is not supported"));
            }
        }
        let good = |n: u16| (MIN_QUEUE..=MAX_QUEUE).contains(&n) && n.is_power_of_two();
        let n = self.rx_queue_size;
        if !good(n) {
            return Err(qerr!(
                "Invalid rx_queue_size (= {n}), must be a power of 2 between {MIN_QUEUE} and {MAX_QUEUE}."
            ));
        }
        let n = self.tx_queue_size;
        if !good(n) {
            return Err(qerr!(
                "Invalid tx_queue_size (= {n}), must be a power of 2 between {MIN_QUEUE} and {MAX_QUEUE}"
            ));
        }
        Ok(())
    }

    /// Speed and duplex mode, if they are to be shown.
    fn line(&self) -> QResult<Option<(u32, u8)>> {
        let duplex = match self.duplex.as_deref() {
            None => None,
            Some("half") => Some(0),
            Some("full") => Some(1),
            Some(_) => return Err(qerr!("'duplex' must be 'half' or 'full'")),
        };
        if self.speed < -1 {
            return Err(qerr!("'speed' must be between 0 and INT_MAX"));
        }
        let shown = duplex.is_some() || self.speed >= 0;
        Ok(shown.then_some((self.speed as u32, duplex.unwrap_or(0xff))))
    }

    /// Features that the properties switch on.
    fn wanted(&self) -> u64 {
        [
            (self.csum, f::CSUM),
            (self.guest_csum, f::GUEST_CSUM),
            (self.ctrl_guest_offloads, f::CTRL_GUEST_OFFLOADS),
            (self.host_mtu != 0, f::MTU),
            (true, f::MAC),
            (self.gso, f::GSO),
            (self.guest_tso4, f::GUEST_TSO4),
            (self.guest_tso6, f::GUEST_TSO6),
            (self.guest_ecn, f::GUEST_ECN),
            (self.guest_ufo, f::GUEST_UFO),
            (self.host_tso4, f::HOST_TSO4),
            (self.host_tso6, f::HOST_TSO6),
            (self.host_ecn, f::HOST_ECN),
            (self.host_ufo, f::HOST_UFO),
            (self.mrg_rxbuf, f::MRG_RXBUF),
            (self.status, f::STATUS),
            (self.ctrl_vq, f::CTRL_VQ),
            (self.ctrl_rx, f::CTRL_RX),
            (self.ctrl_vlan, f::CTRL_VLAN),
            (self.ctrl_rx_extra, f::CTRL_RX_EXTRA),
            (self.guest_announce, f::GUEST_ANNOUNCE),
            (self.mq, f::MQ),
            (self.ctrl_mac_addr, f::CTRL_MAC_ADDR),
        ]
        .into_iter()
        .filter(|(on, _)| *on)
        .fold(0, |all, (_, bit)| all | bit)
    }
}

impl VirtioClass for VirtioNetProps {
    fn build(&mut self, cx: &mut RealizeCx<'_>, env: &BuildEnv) -> QResult<Box<dyn VirtioDevice>> {
        let line = self.line()?;
        self.check()?;
        let mut features = self.wanted();
        if line.is_some() {
            features |= f::SPEED_DUPLEX;
        }
        match self.tx.as_deref() {
            None | Some("timer" | "bh") => {}
            Some(other) => eprintln!(
                "rqemu-system-x86_64: warning: virtio-net: Unknown option tx={other}, valid options: \"timer\" \"bh\"\n\
                 Defaulting to \"bh\""
            ),
        }
        // Larger transmit queues are for back ends outside this process.
        self.tx_queue_size = MIN_QUEUE;
        let dev = cx.id();
        let m = cx.m();
        let (model, id) = match m.tree.get(dev) {
            Some(n) => (n.class.name, n.user_id().map(str::to_string)),
            None => ("virtio-net-device", None),
        };
        let args =
            NicArgs { dev, owner: "virtio-net-device", model, id: id.as_deref(), netdev: &self.netdev };
        let nics = m.net_new_nic(&args, &mut self.mac)?;
        let Some(&first) = nics.first() else { return Err(qerr!("no queue")) };
        let config = Config {
            mtu: (self.host_mtu != 0).then_some(self.host_mtu),
            line,
            permanent_mac: self.mac.0,
            rx_size: self.rx_queue_size,
            tx_size: self.tx_queue_size,
            tx_delay: (self.tx.as_deref() == Some("timer")).then_some(i64::from(self.x_txtimer)),
            tx_burst: u32::try_from(self.x_txburst).unwrap_or(u32::MAX).max(1),
            path: env.who.clone(),
            name: id,
        };
        let offloads = m.net_offloads(first);
        let up = m.net_link_up(first);
        Ok(Box::new(Net::new(config, features, offloads, nics, up)))
    }

    fn common(&self) -> &VirtioProps {
        &self.virtio
    }
}
