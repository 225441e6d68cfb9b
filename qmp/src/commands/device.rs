//! Plugging and unplugging devices.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Raw;
use rqemu_machine::builder::{create_device, unplug_device, DeviceArgs};
use rqemu_machine::device::DevId;
use rqemu_machine::spec::{Dict, Value as SpecValue};
use rqemu_machine::{qerr, QError, QResult};

qapi_struct! {
    /// Arguments of `device_add`, besides the properties of the device.
    pub struct DeviceAdd {
        /// Class.
        driver: String,
        /// Bus.
        bus: Option<String>,
        /// Id.
        id: Option<String>,
    }
    /// Arguments of `device_del`.
    pub struct DeviceDel {
        /// Id or QOM path.
        id: String,
    }
    /// Data of `DEVICE_DELETED`.
    pub struct DeviceDeleted {
        /// Id.
        device: Option<String>,
        /// QOM path.
        path: String,
    }
}

/// Text of a JSON value where QEMU takes anything that it can turn into text.
fn text(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::String(s) => s.clone(),
        other => other.to_string(),
    }
}

/// Scalars are read as text, as on the command line.
fn property(value: serde_json::Value) -> SpecValue {
    use serde_json::Value as Json;
    match value {
        Json::String(s) => SpecValue::text(s),
        Json::Bool(b) => SpecValue::text(if b { "on" } else { "off" }),
        Json::Number(n) => SpecValue::text(n.to_string()),
        other => SpecValue::from_json(other),
    }
}

pub(crate) fn device_add(cx: &mut MonitorCx<'_, '_>, args: Raw<DeviceAdd>) -> QResult<()> {
    let mut map = args.map;
    let driver = map.swap_remove("driver").ok_or_else(|| qerr!("Parameter 'driver' is missing"))?;
    let id = map.swap_remove("id");
    let bus = map.swap_remove("bus");
    let mut props = Dict::new();
    for (name, value) in map {
        props.push(name, property(value));
    }
    add(cx, &text(&driver), id.as_ref().map(text).as_deref(), bus.as_ref().map(text).as_deref(), &props)
}

/// Creates a device from either monitor.
pub(crate) fn add(
    cx: &mut MonitorCx<'_, '_>,
    driver: &str,
    id: Option<&str>,
    bus: Option<&str>,
    props: &Dict,
) -> QResult<()> {
    // Guests must not run while the memory map and the buses change under them.
    cx.m.pause_vcpus();
    let made = create_device(cx.m, &DeviceArgs { driver, id, bus, props });
    cx.m.resume_vcpus();
    made.map(|_| ())
}

/// A device by id or QOM path.
pub(crate) fn find(cx: &MonitorCx<'_, '_>, name: &str) -> QResult<DevId> {
    let tree = &cx.m.tree;
    let by_path = || tree.iter().find(|d| name.starts_with('/') && tree.path(d.id) == name);
    let node = tree.by_user_id(name).or_else(by_path);
    node.map(|d| d.id).ok_or_else(|| QError::device_not_found(name))
}

pub(crate) fn device_del(cx: &mut MonitorCx<'_, '_>, args: DeviceDel) -> QResult<()> {
    let dev = find(cx, &args.id)?;
    cx.m.pause_vcpus();
    let asked = unplug_device(cx.m, dev);
    cx.m.resume_vcpus();
    asked
}
