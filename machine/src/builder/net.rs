//! Network back ends, and the cards of the board.

use super::Build;
use crate::device::BusId;
use crate::qom::{class_by_name, resolve_device_class, Category, ClassInfo, PropInput, ALL_CLASSES};
use crate::spec::{NetPeer, NicSpec};
use crate::{qerr, QResult};

/// Default card of the PC boards.
const DEFAULT_MODEL: &str = "e1000";

/// PCI network cards that `-nic model=` takes, sorted.
pub fn nic_models() -> Vec<&'static str> {
    ALL_CLASSES.iter().filter(|c| is_nic(c)).map(|c| c.name).collect()
}

fn is_nic(c: &ClassInfo) -> bool {
    c.category == Category::Network && c.bus == Some(crate::device::BusKind::Pci) && c.user_creatable
}

/// Text of `-nic model=help`.
pub fn nic_help() -> String {
    let lines: String = nic_models().iter().map(|m| format!("{m}\n")).collect();
    format!("Supported NIC models:\n{lines}")
}

impl Build<'_> {
    /// All back ends; those of `-net` on hub 0.
    ///
    /// # Errors
    /// What the back end says.
    pub fn create_netdevs(&mut self) -> QResult<()> {
        // Cards come first on a hub, as in the usual `-net nic -net tap`: the options' order is not kept.
        let ports = self.spec.nics.iter().map(|n| match n.peer {
            NetPeer::Hub(hub) => {
                let port = self.m.net_hub_port(hub, None);
                self.m.net_name(port)
            }
            _ => None,
        });
        self.nic_ports = ports.collect();
        let mut names = vec![None; self.spec.netdevs.len()];
        for (i, n) in self.spec.netdevs.iter().enumerate() {
            let name = n.id.clone().unwrap_or_else(|| self.m.net_new_name());
            self.m.create_netdev(&n.kind, &name, &n.props).map_err(|e| n.loc.locate(e))?;
            for w in self.m.net_take_warnings() {
                self.messages.warning_at(&n.loc, &w);
            }
            if let NetPeer::Hub(hub) = n.peer {
                self.m.net_plug_into_hub(&name, hub);
            }
            names[i] = Some(name);
        }
        self.netdev_names = names;
        for n in &self.spec.nics {
            if let NetPeer::Netdev(id) = &n.peer {
                if !self.m.net_exists(id) {
                    return Err(n.loc.locate(qerr!("netdev '{id}' not found")));
                }
            }
        }
        Ok(())
    }

    /// Network cards of the board.
    ///
    /// # Errors
    /// There is no such model, or the card refuses its options.
    pub fn create_nics(&mut self, pci: BusId, _isa: BusId) -> QResult<()> {
        for (i, n) in self.spec.nics.iter().enumerate() {
            let model = n.model.as_deref().unwrap_or(DEFAULT_MODEL);
            let class = match model {
                "virtio" => class_by_name("virtio-net-pci"),
                m => resolve_device_class(m).filter(|c| c.name == m && is_nic(c)),
            };
            let class = class.ok_or_else(|| qerr!("Unsupported NIC model: {model}"))?;
            self.create_nic(class, pci, i, n)?;
            self.created_nics.push(i);
        }
        Ok(())
    }

    fn create_nic(
        &mut self,
        class: &'static ClassInfo,
        pci: BusId,
        index: usize,
        n: &NicSpec,
    ) -> QResult<()> {
        let mac = n.mac.map(|m| crate::qom::MacAddr(m).to_string());
        let vectors = n.vectors.map(|v| v.to_string());
        let netdev = match &n.peer {
            NetPeer::None => None,
            NetPeer::Netdev(id) => Some(id.clone()),
            NetPeer::Index(i) => self.netdev_names.get(*i).cloned().flatten(),
            NetPeer::Hub(_) => self.nic_ports.get(index).cloned().flatten(),
        };
        let props: Vec<(&str, PropInput<'_>)> =
            [("mac", &mac), ("netdev", &netdev), ("vectors", &vectors), ("addr", &n.addr)]
                .into_iter()
                .filter_map(|(k, v)| Some((k, PropInput::Str(v.as_deref()?))))
                .collect();
        self.m.add_board_device(class.name, Some(pci), &props).map(|_| ())
    }

    /// Warns about back ends, cards and hubs that lead nowhere, and cards that the board did not make.
    pub fn warn_net(&mut self) {
        // Nobody asked for the network that machines have anyway, so nobody misses what it leads to.
        if self.spec.nics.iter().any(|n| n.loc.as_str().is_none()) {
            return;
        }
        for w in self.m.net_warnings() {
            self.messages.warning(&w);
        }
        for (i, n) in self.spec.nics.iter().enumerate() {
            if n.loc.as_str().is_none() || self.created_nics.contains(&i) {
                continue;
            }
            let name = n.name.as_deref().unwrap_or("anonymous");
            let model = n.model.as_deref().unwrap_or("unspecified");
            self.messages.warning(&format!(
                "requested NIC ({name}, model {model}) was not created (not supported by this machine?)"
            ));
        }
    }
}
