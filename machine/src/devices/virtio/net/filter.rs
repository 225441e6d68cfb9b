//! Which frames reach the guest.

use crate::net::{RxFilter, RxState};
use crate::qom::MacAddr;

/// Addresses that a table holds; with more it lets everything of its kind in.
pub const TABLE: usize = 64;
const VLANS: usize = 4096;

/// One half of the address table.
#[derive(Clone, Default)]
pub struct Table {
    pub list: Vec<[u8; 6]>,
    pub overflow: bool,
}

impl Table {
    fn lets_in(&self, all: bool, none: bool, mac: &[u8; 6]) -> bool {
        !none && (all || self.overflow || self.list.contains(mac))
    }

    /// Takes over a new list.
    pub fn set(&mut self, list: Vec<[u8; 6]>) {
        self.overflow = list.len() > TABLE;
        self.list = if self.overflow { Vec::new() } else { list };
    }
}

/// The receive filter.
pub struct Filter {
    pub promiscuous: bool,
    pub all_multi: bool,
    pub all_uni: bool,
    pub no_multi: bool,
    pub no_uni: bool,
    pub no_broadcast: bool,
    pub unicast: Table,
    pub multicast: Table,
    vlans: [u64; VLANS / 64],
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            // Until a driver says otherwise: old ones do not say anything.
            promiscuous: true,
            all_multi: false,
            all_uni: false,
            no_multi: false,
            no_uni: false,
            no_broadcast: false,
            unicast: Table::default(),
            multicast: Table::default(),
            vlans: [u64::MAX; VLANS / 64],
        }
    }
}

impl Filter {
    /// A driver that can filter VLANs starts with none, another one gets all.
    pub fn vlans_filtered(&mut self, on: bool) {
        self.vlans.fill(if on { 0 } else { u64::MAX });
    }

    /// Lets a VLAN in or not; `false` if there is no such VLAN.
    pub fn set_vlan(&mut self, id: u16, on: bool) -> bool {
        let Some(word) = self.vlans.get_mut(usize::from(id / 64)) else { return false };
        let bit = 1 << (id % 64);
        *word = if on { *word | bit } else { *word & !bit };
        true
    }

    /// Whether a frame (without virtio-net header) for a card with address `mac` may pass.
    pub fn lets_in(&self, mac: &[u8; 6], frame: &[u8]) -> bool {
        if self.promiscuous {
            return true;
        }
        let Some((dst, rest)) = frame.split_first_chunk::<6>() else { return false };
        if let [0x81, 0, hi, lo] = rest.get(6..10).unwrap_or_default() {
            let id = usize::from(u16::from_be_bytes([*hi, *lo]) & 0xfff);
            if self.vlans[id / 64] >> (id % 64) & 1 == 0 {
                return false;
            }
        }
        match dst {
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xff] => !self.no_broadcast,
            [first, ..] if first & 1 != 0 => self.multicast.lets_in(self.all_multi, self.no_multi, dst),
            _ => !self.no_uni && (dst == mac || self.unicast.lets_in(self.all_uni, false, dst)),
        }
    }

    /// For `query-rx-filter`.
    pub fn describe(&self, mac: [u8; 6], vlan_filter: bool) -> RxFilter {
        let state = |none, all| match (none, all) {
            (true, _) => RxState::None,
            (false, true) => RxState::All,
            _ => RxState::Normal,
        };
        let macs = |t: &Table| t.list.iter().map(|m| MacAddr(*m)).collect();
        // The table is shown from its end.
        let vlans = (0..VLANS).rev().filter(|v| self.vlans[v / 64] >> (v % 64) & 1 != 0);
        let vlan_table: Vec<u16> = vlans.map(|v| v as u16).collect();
        let vlan = match (vlan_filter, vlan_table.is_empty()) {
            (false, _) => RxState::All,
            (true, true) => RxState::None,
            _ => RxState::Normal,
        };
        RxFilter {
            promiscuous: self.promiscuous,
            multicast: state(self.no_multi, self.all_multi || self.multicast.overflow),
            unicast: state(self.no_uni, self.all_uni || self.unicast.overflow),
            vlan,
            // The switch that the driver has, as it is: set when broadcasts are *not* let in.
            broadcast_allowed: self.no_broadcast,
            multicast_overflow: self.multicast.overflow,
            unicast_overflow: self.unicast.overflow,
            main_mac: MacAddr(mac),
            vlan_table,
            unicast_table: macs(&self.unicast),
            multicast_table: macs(&self.multicast),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
    const OTHER: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];

    fn frame(dst: [u8; 6], tag: Option<u16>) -> Vec<u8> {
        let mut f = dst.to_vec();
        f.extend([2; 6]);
        if let Some(t) = tag {
            f.extend([0x81, 0]);
            f.extend(t.to_be_bytes());
        }
        f.extend([8, 0]);
        f
    }

    #[test]
    fn addresses() {
        let mut f = Filter::default();
        assert!(f.lets_in(&MAC, &frame(OTHER, None)), "everything before a driver says otherwise");
        f.promiscuous = false;
        assert!(f.lets_in(&MAC, &frame(MAC, None)));
        assert!(!f.lets_in(&MAC, &frame(OTHER, None)));
        assert!(!f.lets_in(&MAC, &frame(GROUP, None)));
        assert!(f.lets_in(&MAC, &frame([0xff; 6], None)));
        assert!(!f.lets_in(&MAC, &[1, 2, 3]), "a runt");
        f.multicast.set(vec![GROUP]);
        f.unicast.set(vec![OTHER]);
        assert!(f.lets_in(&MAC, &frame(GROUP, None)) && f.lets_in(&MAC, &frame(OTHER, None)));
        f.no_multi = true;
        f.no_uni = true;
        f.no_broadcast = true;
        for dst in [MAC, OTHER, GROUP, [0xff; 6]] {
            assert!(!f.lets_in(&MAC, &frame(dst, None)));
        }
        f.no_uni = false;
        f.unicast.set(vec![GROUP; TABLE + 1]);
        assert!(f.lets_in(&MAC, &frame([2; 6], None)), "an overflown table lets all in");
    }

    #[test]
    fn vlans() {
        let mut f = Filter { promiscuous: false, ..Filter::default() };
        assert!(f.lets_in(&MAC, &frame(MAC, Some(0x2005))));
        f.vlans_filtered(true);
        assert!(!f.lets_in(&MAC, &frame(MAC, Some(0x2005))));
        assert!(f.set_vlan(5, true) && !f.set_vlan(4096, true));
        assert!(f.lets_in(&MAC, &frame(MAC, Some(0x2005))));
        assert!(!f.lets_in(&MAC, &frame(MAC, Some(6))));
        assert_eq!(f.describe(MAC, true).vlan_table, [5]);
    }
}
