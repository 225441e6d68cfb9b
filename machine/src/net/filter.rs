//! What a card lets in, for `query-rx-filter`.

use crate::machine::Machine;
use crate::qom::MacAddr;
use crate::{qerr, QResult};

use super::Kind;

/// Which frames of a kind pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RxState {
    /// Those that the tables name.
    Normal,
    /// None.
    None,
    /// All.
    All,
}

impl RxState {
    /// Its name in the monitor protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::None => "none",
            Self::All => "all",
        }
    }
}

/// The receive filter of a card.
#[derive(Clone, Debug)]
pub struct RxFilter {
    /// Everything passes.
    pub promiscuous: bool,
    /// Multicast frames.
    pub multicast: RxState,
    /// Unicast frames.
    pub unicast: RxState,
    /// Frames with a VLAN tag.
    pub vlan: RxState,
    /// What the monitor shows as `broadcast-allowed`.
    pub broadcast_allowed: bool,
    /// The multicast table was too small.
    pub multicast_overflow: bool,
    /// The unicast table was too small.
    pub unicast_overflow: bool,
    /// The card's address.
    pub main_mac: MacAddr,
    /// VLANs that pass.
    pub vlan_table: Vec<u16>,
    /// More unicast addresses that pass.
    pub unicast_table: Vec<MacAddr>,
    /// Multicast addresses that pass.
    pub multicast_table: Vec<MacAddr>,
}

impl Machine {
    /// Receive filters by name of the card: of all cards that tell theirs, or of the one named.
    ///
    /// # Errors
    /// There is no such card, or it does not tell.
    pub fn rx_filters(&mut self, name: Option<&str>) -> QResult<Vec<(String, RxFilter)>> {
        let mut out = Vec::new();
        let ids = self.net.ids(|c| name.is_none_or(|n| c.name == n));
        for id in ids {
            let Some(c) = self.net.get(id) else { continue };
            let dev = match c.kind {
                Kind::Nic { dev, .. } if c.queue_index == 0 => Some(dev),
                Kind::Nic { .. } => continue,
                _ => None,
            };
            let client = c.name.clone();
            let Some(dev) = dev else {
                match name {
                    Some(_) => return Err(qerr!("net client({client}) isn't a NIC")),
                    None => continue,
                }
            };
            let filter = self.with_dev(dev, |d, cx| d.net().and_then(|n| n.rx_filter(cx))).flatten();
            match (filter, name) {
                (Some(f), _) => out.push((client, f)),
                (None, Some(_)) => {
                    return Err(qerr!("net client({client}) doesn't support rx-filter querying"))
                }
                (None, None) => {}
            }
        }
        match name {
            Some(n) if out.is_empty() => Err(qerr!("invalid net client name: {n}")),
            _ => Ok(out),
        }
    }
}
