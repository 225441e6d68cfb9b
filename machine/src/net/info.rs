//! `info network`, and warnings about loose ends.

use super::{Client, Hub, Kind, NetId};
use crate::machine::Machine;

/// A client in words, as `info network` shows it.
fn describe(c: &Client) -> String {
    let (kind, info) = match &c.kind {
        Kind::Nic { mac, .. } => ("nic", format!("model={},macaddr={mac}", c.model)),
        Kind::Port { .. } => ("hubport", String::new()),
        Kind::Backend(b) => (b.kind(), b.info()),
        Kind::Gone { kind, info } => (*kind, info.clone()),
    };
    format!("{}: index={},type={kind},{info}\n", c.name, c.queue_index)
}

impl Machine {
    fn hub_ports(&self, hub: i32) -> Vec<NetId> {
        self.net.ids(|c| matches!(c.kind, Kind::Port { hub: h } if h == hub))
    }

    /// Text of `info network`.
    pub fn net_info(&self) -> String {
        let mut out = String::new();
        let net = &self.net;
        for Hub { id, .. } in net.hubs.iter().rev() {
            out.push_str(&format!("hub {id}\n"));
            for port in self.hub_ports(*id).into_iter().rev() {
                let Some(c) = net.get(port) else { continue };
                out.push_str(&format!(" \\ {}", c.name));
                match c.peer.and_then(|p| net.get(p)) {
                    Some(p) => out.push_str(&format!(": {}", describe(p))),
                    None => out.push('\n'),
                }
            }
        }
        for (_, c) in net.iter() {
            let peer = c.peer.and_then(|p| net.get(p));
            let in_hub = |c: &Client| match &c.kind {
                Kind::Port { .. } => true,
                Kind::Gone { kind, .. } => *kind == "hubport",
                _ => false,
            };
            if in_hub(c) || peer.is_some_and(in_hub) {
                continue;
            }
            let nic = matches!(c.kind, Kind::Nic { .. });
            if peer.is_none() || nic {
                out.push_str(&describe(c));
            }
            if let (Some(p), true) = (peer, nic) {
                out.push_str(&format!(" \\ {}", describe(p)));
            }
        }
        out
    }

    /// Warnings about hubs and clients that lead nowhere.
    pub fn net_warnings(&self) -> Vec<String> {
        let net = &self.net;
        let mut out = Vec::new();
        for Hub { id, .. } in net.hubs.iter().rev() {
            let (mut nic, mut host) = (false, false);
            for port in self.hub_ports(*id).into_iter().rev() {
                let Some(c) = net.get(port) else { continue };
                match c.peer.and_then(|p| net.get(p)).map(|p| &p.kind) {
                    None => out.push(format!("hub port {} has no peer", c.name)),
                    Some(Kind::Nic { .. }) => nic = true,
                    Some(Kind::Backend(_)) => host = true,
                    Some(_) => {}
                }
            }
            match (nic, host) {
                (true, false) => out.push(format!("hub {id} is not connected to host network")),
                (false, true) => out.push(format!("hub {id} with no nics")),
                _ => {}
            }
        }
        for (_, c) in net.iter().filter(|(_, c)| c.peer.is_none() && c.queue_index == 0) {
            let what = if matches!(c.kind, Kind::Nic { .. }) { "nic" } else { "netdev" };
            out.push(format!("{what} {} has no peer", c.name));
        }
        out
    }
}
