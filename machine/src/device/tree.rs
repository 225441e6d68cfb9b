//! Where devices sit: the tree of devices and buses, and the QOM path of each.

use super::{BusKind, DevId, Device};
use crate::memory::RegionId;
use crate::qom::{ClassInfo, DeviceClass};

/// Handle of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BusId(pub u32);

/// Where a device hangs in the QOM tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/machine/peripheral/<id>`.
    Peripheral(String),
    /// `/machine/peripheral-anon/device[n]`.
    Anon(u32),
    /// `/machine/unattached/device[n]`.
    Unattached(u32),
    /// `/machine/<name>`.
    Machine(&'static str),
    /// `<parent path>/<name>`.
    Child(DevId, &'static str),
}

/// A device and its place.
pub struct DeviceNode {
    /// Handle.
    pub id: DevId,
    /// Class.
    pub class: &'static ClassInfo,
    /// Bus it sits on.
    pub parent_bus: Option<BusId>,
    /// Place in the QOM tree.
    pub place: Place,
    /// Properties.
    pub props: Box<dyn DeviceClass>,
    /// The run-time device; `None` before realize and while the device is being called.
    pub dev: Option<Box<dyn Device>>,
    /// Realize has succeeded.
    pub realized: bool,
    /// Plugged while the machine ran.
    pub hotplugged: bool,
    /// An unplug was requested and not yet done.
    pub pending_unplug: bool,
    /// Its buses.
    pub buses: Vec<BusId>,
    /// `gpio-in` / `gpio-out` lines for `info qtree`: (name, is input, count).
    pub gpios: Vec<(&'static str, bool, u32)>,
    /// Memory regions that the board places (devices of the system bus).
    pub mmio: Vec<RegionId>,
}

impl DeviceNode {
    /// User's id, if it has one.
    pub fn user_id(&self) -> Option<&str> {
        match &self.place {
            Place::Peripheral(id) => Some(id),
            _ => None,
        }
    }
}

/// A bus.
pub struct Bus {
    /// Handle.
    pub id: BusId,
    /// Name (`pci.0`).
    pub name: String,
    /// Kind.
    pub kind: BusKind,
    /// QOM type name, when not that of the kind.
    pub type_name: &'static str,
    /// The device that provides it; `None` for the main system bus.
    pub owner: Option<DevId>,
    /// Devices on it, in order of creation.
    pub children: Vec<DevId>,
    /// Accepts plugs while the machine runs.
    pub hotpluggable: bool,
    /// Device that handles hot plug.
    pub hotplug_handler: Option<DevId>,
    /// Largest number of devices, if limited.
    pub max_devices: Option<u32>,
}

/// All devices and buses of a machine.
pub struct DeviceTree {
    nodes: Vec<Option<DeviceNode>>,
    buses: Vec<Option<Bus>>,
    unattached: u32,
    anon: u32,
    /// Interrupt lines that belong to the board itself, as the object tree shows them.
    pub board_irqs: u32,
}

impl Default for DeviceTree {
    fn default() -> Self {
        let mut t =
            Self { nodes: Vec::with_capacity(64), buses: Vec::new(), unattached: 0, anon: 0, board_irqs: 0 };
        t.add_bus("main-system-bus".into(), BusKind::System, None);
        t
    }
}

impl DeviceTree {
    /// The bus of board devices.
    pub const SYSTEM: BusId = BusId(0);

    /// Adds an unrealized device.
    pub fn add(
        &mut self,
        class: &'static ClassInfo,
        props: Box<dyn DeviceClass>,
        bus: Option<BusId>,
        place: Place,
    ) -> DevId {
        let id = DevId(self.nodes.len() as u32);
        self.nodes.push(Some(DeviceNode {
            id,
            class,
            parent_bus: bus,
            place,
            props,
            dev: None,
            realized: false,
            hotplugged: false,
            pending_unplug: false,
            buses: Vec::new(),
            gpios: Vec::new(),
            mmio: Vec::new(),
        }));
        if let Some(b) = bus.and_then(|b| self.bus_mut(b)) {
            b.children.push(id);
        }
        id
    }

    /// Next `/machine/unattached/device[n]`.
    pub fn next_unattached(&mut self) -> Place {
        self.unattached += 1;
        Place::Unattached(self.unattached - 1)
    }

    /// Next `/machine/peripheral-anon/device[n]`.
    pub fn next_anon(&mut self) -> Place {
        self.anon += 1;
        Place::Anon(self.anon - 1)
    }

    /// A device.
    pub fn get(&self, id: DevId) -> Option<&DeviceNode> {
        self.nodes.get(id.0 as usize)?.as_ref()
    }

    /// A device.
    pub fn get_mut(&mut self, id: DevId) -> Option<&mut DeviceNode> {
        self.nodes.get_mut(id.0 as usize)?.as_mut()
    }

    /// A bus.
    pub fn bus(&self, id: BusId) -> Option<&Bus> {
        self.buses.get(id.0 as usize)?.as_ref()
    }

    /// A bus.
    pub fn bus_mut(&mut self, id: BusId) -> Option<&mut Bus> {
        self.buses.get_mut(id.0 as usize)?.as_mut()
    }

    /// Adds a bus.
    pub fn add_bus(&mut self, name: String, kind: BusKind, owner: Option<DevId>) -> BusId {
        let id = BusId(self.buses.len() as u32);
        self.buses.push(Some(Bus {
            id,
            name,
            kind,
            type_name: kind.type_name(),
            owner,
            children: Vec::new(),
            hotpluggable: false,
            hotplug_handler: None,
            max_devices: None,
        }));
        if let Some(d) = owner.and_then(|o| self.get_mut(o)) {
            d.buses.push(id);
        }
        id
    }

    /// Removes a device and its buses, and everything on them. Returns what was removed, children first.
    pub fn remove(&mut self, id: DevId) -> Vec<DeviceNode> {
        let mut out = Vec::new();
        let buses = self.get(id).map(|d| d.buses.clone()).unwrap_or_default();
        let parts: Vec<DevId> =
            self.iter().filter(|n| matches!(n.place, Place::Child(p, _) if p == id)).map(|n| n.id).collect();
        for c in parts {
            out.extend(self.remove(c));
        }
        for b in buses {
            for c in self.bus(b).map(|b| b.children.clone()).unwrap_or_default() {
                out.extend(self.remove(c));
            }
            if let Some(slot) = self.buses.get_mut(b.0 as usize) {
                *slot = None;
            }
        }
        if let Some(node) = self.nodes.get_mut(id.0 as usize).and_then(Option::take) {
            if let Some(b) = node.parent_bus.and_then(|b| self.bus_mut(b)) {
                b.children.retain(|c| *c != id);
            }
            out.push(node);
        }
        out
    }

    /// All devices in order of creation.
    pub fn iter(&self) -> impl Iterator<Item = &DeviceNode> {
        self.nodes.iter().flatten()
    }

    /// All buses in order of creation.
    pub fn buses(&self) -> impl Iterator<Item = &Bus> {
        self.buses.iter().flatten()
    }

    /// Handles of all devices, in order of creation.
    pub fn ids(&self) -> Vec<DevId> {
        self.iter().map(|n| n.id).collect()
    }

    /// Device by user id.
    pub fn by_user_id(&self, id: &str) -> Option<&DeviceNode> {
        self.iter().find(|n| n.user_id() == Some(id))
    }

    /// First device of a class (exact name).
    pub fn by_class(&self, name: &str) -> Option<&DeviceNode> {
        self.iter().find(|n| n.class.name == name)
    }

    /// Bus by name, or by `<device id>/<bus name>` or QOM path.
    pub fn find_bus(&self, name: &str) -> Option<&Bus> {
        if let Some((dev, bus)) = name.rsplit_once('/') {
            let owner = self.iter().find(|n| n.user_id() == Some(dev) || self.path(n.id) == dev)?.id;
            return self.buses().find(|b| b.owner == Some(owner) && b.name == bus);
        }
        self.buses().find(|b| b.name == name)
    }

    /// First bus of a kind that still has room.
    pub fn first_bus(&self, kind: BusKind) -> Option<&Bus> {
        let full = |b: &Bus| b.max_devices.is_some_and(|m| b.children.len() as u32 >= m);
        let of_kind = || self.buses().filter(|b| b.kind == kind);
        of_kind().find(|b| !full(b)).or_else(|| of_kind().next())
    }

    /// QOM path.
    pub fn path(&self, id: DevId) -> String {
        let Some(n) = self.get(id) else { return String::new() };
        match &n.place {
            Place::Peripheral(id) => format!("/machine/peripheral/{id}"),
            Place::Anon(n) => format!("/machine/peripheral-anon/device[{n}]"),
            Place::Unattached(n) => format!("/machine/unattached/device[{n}]"),
            Place::Machine(name) => format!("/machine/{name}"),
            Place::Child(p, name) => format!("{}/{name}", self.path(*p)),
        }
    }
}
