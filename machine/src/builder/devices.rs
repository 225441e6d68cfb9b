//! User-created devices: one path for `-device` and `device_add`.

use super::Build;
use crate::device::{BusId, DevId, Place};
use crate::machine::Machine;
use crate::qom::{resolve_device_class, ClassInfo, PropInput};
use crate::spec::Dict;
use crate::{qerr, QError, QResult};

/// What a user asks for.
#[derive(Clone, Debug)]
pub struct DeviceArgs<'a> {
    /// Class or alias.
    pub driver: &'a str,
    /// Id.
    pub id: Option<&'a str>,
    /// Bus by name or path.
    pub bus: Option<&'a str>,
    /// Everything else.
    pub props: &'a Dict,
}

/// Creates a device for a user.
///
/// # Errors
/// With QEMU's texts: unknown or abstract or internal driver, no bus, wrong bus, duplicate id, and what the device says.
pub fn create_device(m: &mut Machine, a: &DeviceArgs<'_>) -> QResult<DevId> {
    let class = resolve_device_class(a.driver)
        .ok_or_else(|| qerr!("'{}' is not a valid device model name", a.driver))?;
    if class.is_abstract {
        return Err(qerr!("Parameter 'driver' expects a non-abstract device type"));
    }
    let not_pluggable = || qerr!("Parameter 'driver' expects a pluggable device type");
    if !class.user_creatable {
        return Err(not_pluggable());
    }
    let bus = find_bus(m, class, a.bus)?;
    if m.ready {
        if let Some(b) = bus.and_then(|b| m.tree.bus(b)).filter(|b| !b.hotpluggable) {
            return Err(qerr!("Bus '{}' does not support hotplugging", b.name));
        }
        if !class.hotpluggable {
            return Err(not_pluggable());
        }
    }
    if let Some(id) = a.id {
        if !crate::objects::valid_id(id) {
            return Err(qerr!("Parameter 'id' expects an identifier"));
        }
        if m.tree.by_user_id(id).is_some() {
            return Err(qerr!("Duplicate device ID '{id}'"));
        }
    }
    let place = match a.id {
        Some(id) => Place::Peripheral(id.to_string()),
        None => m.tree.next_anon(),
    };
    let json: Vec<(&str, Option<&str>, serde_json::Value)> = a
        .props
        .iter()
        .map(|(k, v)| match v {
            crate::spec::Value::Text(t) => (k, Some(t.as_str()), serde_json::Value::Null),
            other => (k, None, other.to_json()),
        })
        .collect();
    let props: Vec<(&str, PropInput<'_>)> =
        json.iter().map(|(k, t, j)| (*k, t.map_or(PropInput::Json(j), PropInput::Str))).collect();
    let dev = m.add_device(class, bus, place, &props)?;
    if m.ready {
        plugged(m, dev, bus);
    }
    Ok(dev)
}

fn plugged(m: &mut Machine, dev: DevId, bus: Option<BusId>) {
    if let Some(n) = m.tree.get_mut(dev) {
        n.hotplugged = true;
    }
    m.reset_device(dev);
    let handler = bus.and_then(|b| m.tree.bus(b)).and_then(|b| b.hotplug_handler);
    if let Some(h) = handler {
        m.with_dev(h, |d, cx| {
            if let Some(p) = d.hotplug() {
                p.plugged(cx, dev);
            }
        });
    }
}

fn find_bus(m: &Machine, class: &ClassInfo, name: Option<&str>) -> QResult<Option<BusId>> {
    let Some(kind) = class.bus else { return Ok(None) };
    let bus = match name {
        Some(n) => m.tree.find_bus(n).ok_or_else(|| qerr!("Bus '{n}' not found"))?,
        // Transports are taken from the last one down.
        None if kind == crate::device::BusKind::Virtio => {
            let free = |b: &&crate::device::Bus| {
                b.kind == kind && b.max_devices.is_none_or(|max| (b.children.len() as u32) < max)
            };
            m.tree
                .buses()
                .filter(free)
                .last()
                .or_else(|| m.tree.first_bus(kind))
                .ok_or_else(|| qerr!("No '{}' bus found for device '{}'", kind.type_name(), class.name))?
        }
        None => m
            .tree
            .first_bus(kind)
            .ok_or_else(|| qerr!("No '{}' bus found for device '{}'", kind.type_name(), class.name))?,
    };
    if bus.kind != kind {
        return Err(qerr!("Device '{}' can't go on {} bus", class.name, bus.kind.type_name()));
    }
    if let Some(max) = bus.max_devices {
        if bus.children.len() as u32 >= max {
            return Err(qerr!("Bus '{}' is full", bus.name));
        }
    }
    Ok(Some(bus.id))
}

/// Asks for a device to be unplugged (`device_del`).
pub fn unplug_device(m: &mut Machine, dev: DevId) -> QResult<()> {
    let Some(n) = m.tree.get(dev) else { return Err(QError::device_not_found("")) };
    let (class, bus, pending) = (n.class, n.parent_bus, n.pending_unplug);
    let id = n.user_id().unwrap_or("").to_string();
    let b = bus.and_then(|b| m.tree.bus(b));
    if let Some(b) = b.filter(|b| !b.hotpluggable) {
        return Err(qerr!("Bus '{}' does not support hotplugging", b.name));
    }
    if !class.hotpluggable {
        return Err(qerr!("Device '{}' does not support hotplugging", class.name));
    }
    if pending {
        return Err(qerr!("Device {id} is already in the process of unplug"));
    }
    match b.and_then(|b| b.hotplug_handler) {
        Some(h) => {
            let r = m.with_dev(h, |d, cx| d.hotplug().map(|p| p.unplug_request(cx, dev)));
            r.flatten().unwrap_or_else(|| Err(qerr!("hot plug controller is busy")))?;
            if let Some(n) = m.tree.get_mut(dev) {
                n.pending_unplug = true;
            }
        }
        None => m.remove_device(dev),
    }
    m.settle();
    Ok(())
}

impl Build<'_> {
    /// `-device` and devices that other options stand for.
    pub fn create_user_devices(&mut self) -> QResult<()> {
        self.create_virtio_drives()?;
        for d in &self.spec.devices {
            let bus = d.props.get("bus").and_then(|v| v.as_str()).map(str::to_string);
            let mut props = d.props.clone();
            props.remove("bus");
            let a = DeviceArgs { driver: &d.driver, id: d.id.as_deref(), bus: bus.as_deref(), props: &props };
            create_device(self.m, &a).map_err(|e| d.loc.locate(e))?;
        }
        Ok(())
    }

    /// Video card of the board.
    pub fn create_vga(&mut self, pci: BusId) -> QResult<()> {
        use crate::spec::VgaKind;
        let kind = match self.spec.vga {
            Some(k) => k,
            None if self.spec.defaults.vga => VgaKind::Std,
            None => VgaKind::None,
        };
        match kind {
            VgaKind::None => Ok(()),
            VgaKind::Std if crate::qom::class_by_name("VGA").is_some() => {
                self.m.add_board_device("VGA", Some(pci), &[]).map(|_| ())
            }
            VgaKind::Std => Ok(()),
            _ => Err(qerr!("video card is not supported")),
        }
    }
}
