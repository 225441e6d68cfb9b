//! Block nodes and drives.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::{Empty, Made, Raw};
use rqemu_block::{query, BlockBackend};
use rqemu_machine::builder::block_error;
use rqemu_machine::device::DevId;
use rqemu_machine::{qerr, ErrorClass, QError, QResult};
use serde_json::{json, Map, Value};
use std::sync::Arc;

qapi_struct! {
    /// Arguments of `blockdev-add`, besides the options of the driver.
    pub struct BlockdevOptions {
        /// Driver.
        driver: String,
        /// Name of the node.
        node_name: Option<String>,
        /// No writing.
        read_only: Option<bool>,
        /// Read-only if the image cannot be written.
        auto_read_only: Option<bool>,
        /// Others may do anything to the image.
        force_share: Option<bool>,
    }
    /// Arguments of `blockdev-del`.
    pub struct NodeName {
        /// Node.
        node_name: String,
    }
    /// Arguments of `query-named-block-nodes`.
    pub struct QueryNodes {
        /// Leave out backing images.
        flat: Option<bool>,
    }
    /// Arguments of `query-blockstats`.
    pub struct QueryStats {
        /// Nodes instead of drives.
        query_nodes: Option<bool>,
    }
    /// Element of `query-named-block-nodes`.
    pub struct BlockDeviceInfo {
        /// File.
        file: String,
        /// Node.
        node_name: Option<String>,
        /// Read-only.
        ro: bool,
        /// Driver.
        drv: String,
        /// File of the backing image.
        backing_file as "backing_file": Option<String>,
        /// Images below it.
        backing_file_depth as "backing_file_depth": i64,
        /// Encrypted.
        encrypted: bool,
        /// Zeroes in writes.
        detect_zeroes as "detect_zeroes": String,
        /// Image.
        image: Value,
        /// Limits and cache.
        cache: Value,
    }
    /// Element of `query-block`.
    pub struct BlockInfo {
        /// Drive.
        device: String,
        /// Device that uses it.
        qdev: Option<String>,
        /// Kind; always `unknown`.
        type_ as "type": String,
        /// The medium can be changed.
        removable: bool,
        /// The guest has locked the medium.
        locked: bool,
        /// Medium.
        inserted: Option<BlockDeviceInfo>,
        /// Tray is open.
        tray_open as "tray_open": Option<bool>,
        /// State after an error.
        io_status: Option<String>,
    }
    /// Element of `query-blockstats`.
    pub struct BlockStats {
        /// Drive.
        device: Option<String>,
        /// Device that uses it.
        qdev: Option<String>,
        /// Node.
        node_name: Option<String>,
        /// Counters.
        stats: Value,
        /// File below.
        parent: Option<Box<BlockStats>>,
        /// Backing image.
        backing: Option<Box<BlockStats>>,
    }
    /// Arguments of `block_resize`.
    pub struct BlockResize {
        /// Drive.
        device: Option<String>,
        /// Node.
        node_name: Option<String>,
        /// New size in bytes.
        size: i64,
    }
    /// Arguments of `eject`.
    pub struct Eject {
        /// Drive.
        device: Option<String>,
        /// Id or path of the device.
        id: Option<String>,
        /// Even if the guest has locked the tray.
        force: Option<bool>,
    }
}

pub(super) fn blockdev_add(cx: &mut MonitorCx<'_, '_>, args: Raw<BlockdevOptions>) -> QResult<()> {
    cx.m.block.blockdev_add(Value::Object(args.map)).map(|_| ()).map_err(block_error)
}

pub(super) fn blockdev_del(cx: &mut MonitorCx<'_, '_>, args: NodeName) -> QResult<()> {
    cx.m.block.blockdev_del(&args.node_name).map_err(block_error)
}

pub(super) fn query_named_block_nodes(
    cx: &mut MonitorCx<'_, '_>,
    args: QueryNodes,
) -> QResult<Made<Vec<BlockDeviceInfo>>> {
    Ok(cx.m.block.query_named_nodes(args.flat.unwrap_or(false)).into())
}

/// The device that uses a drive, by the name that it gave.
pub(crate) fn user(cx: &MonitorCx<'_, '_>, drive: &BlockBackend) -> Option<(DevId, String)> {
    let who = drive.attached_to()?;
    let tree = &cx.m.tree;
    let found = tree.iter().find(|d| tree.path(d.id) == who || d.user_id() == Some(who.as_str()))?;
    // A device without an id is named by its path.
    Some((found.id, who))
}

/// What the device says about its medium: removable, tray open.
fn medium(cx: &mut MonitorCx<'_, '_>, dev: Option<DevId>) -> (bool, Option<bool>) {
    let Some(dev) = dev else { return (true, None) };
    let facts = cx.m.with_dev(dev, |d, _| d.block().map(|b| (b.removable(), b.tray_open())));
    facts.flatten().unwrap_or((false, None))
}

pub(crate) fn query_block(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Made<Vec<BlockInfo>>> {
    let mut list = Vec::new();
    for drive in cx.m.block.drives() {
        let user = user(cx, &drive);
        let (removable, tray) = medium(cx, user.as_ref().map(|u| u.0));
        let mut m = Map::new();
        if user.is_some() && drive.has_medium() {
            m.insert("io-status".into(), "ok".into());
        }
        m.insert("device".into(), drive.name().into());
        m.insert("locked".into(), false.into());
        m.insert("removable".into(), removable.into());
        if let Some(root) = drive.root() {
            m.insert("inserted".into(), query::device_info(&root, drive.write_cache(), false));
        }
        if let Some((_, who)) = user {
            m.insert("qdev".into(), who.into());
        }
        if let Some(open) = tray {
            m.insert("tray_open".into(), open.into());
        }
        m.insert("type".into(), "unknown".into());
        list.push(m.into());
    }
    Ok(Value::Array(list).into())
}

pub(crate) fn query_blockstats(
    cx: &mut MonitorCx<'_, '_>,
    args: QueryStats,
) -> QResult<Made<Vec<BlockStats>>> {
    if args.query_nodes == Some(true) {
        return Ok(cx.m.block.query_node_stats().into());
    }
    let mut list = Vec::new();
    for drive in cx.m.block.drives() {
        let mut stats = query::backend_stats(&drive);
        if let (Some((_, who)), Some(map)) = (user(cx, &drive), stats.as_object_mut()) {
            map.insert("qdev".into(), json!(who));
        }
        list.push(stats);
    }
    Ok(Value::Array(list).into())
}

/// A drive by its name, or by the id or path of the device that uses it.
pub(crate) fn find_drive(
    cx: &MonitorCx<'_, '_>,
    device: Option<&str>,
    id: Option<&str>,
) -> QResult<BlockBackend> {
    let missing = |name: &str| QError::new(ErrorClass::DeviceNotFound, format!("Device '{name}' not found"));
    match (device, id) {
        (Some(name), None) => cx.m.block.find_drive(name).ok_or_else(|| missing(name)),
        (None, Some(id)) => {
            let dev = super::device::find(cx, id)?;
            let drives = cx.m.block.drives();
            let found = drives.into_iter().find(|d| user(cx, d).is_some_and(|u| u.0 == dev));
            found.ok_or_else(|| qerr!("Device does not have a block device backend"))
        }
        _ => Err(qerr!("Need exactly one of 'device' and 'id'")),
    }
}

pub(crate) fn block_resize(cx: &mut MonitorCx<'_, '_>, args: BlockResize) -> QResult<()> {
    let (device, node_name) = (args.device.as_deref(), args.node_name.as_deref());
    let drive = device.and_then(|d| cx.m.block.find_drive(d));
    if let Some(empty) = drive.as_ref().filter(|d| !d.has_medium()) {
        return Err(qerr!("Device '{}' has no medium", empty.name()));
    }
    let node = drive.as_ref().and_then(BlockBackend::root);
    let node = node.or_else(|| node_name.and_then(|n| cx.m.block.find_node(n))).ok_or_else(|| {
        qerr!("Cannot find device='{}' nor node-name='{}'", device.unwrap_or(""), node_name.unwrap_or(""))
    })?;
    let size = u64::try_from(args.size).map_err(|_| qerr!("Parameter 'size' expects a >0 size"))?;
    node.truncate(size).map_err(block_error)?;
    let drives = cx.m.block.drives();
    for drive in drives.iter().filter(|d| d.root().is_some_and(|r| Arc::ptr_eq(&r, &node))) {
        if let Some((dev, _)) = user(cx, drive) {
            cx.m.with_dev(dev, |d, cx| {
                if let Some(b) = d.block() {
                    b.resized(cx);
                }
            });
        }
    }
    Ok(())
}

pub(crate) fn eject(cx: &mut MonitorCx<'_, '_>, args: Eject) -> QResult<()> {
    let drive = find_drive(cx, args.device.as_deref(), args.id.as_deref())?;
    let user = user(cx, &drive);
    let (removable, tray) = medium(cx, user.as_ref().map(|u| u.0));
    if !removable {
        return Err(qerr!("Device '{}' is not removable", drive.name()));
    }
    let Some((dev, _)) = user else {
        drive.eject();
        return Ok(());
    };
    let force = args.force == Some(true);
    if tray == Some(false) {
        with_block(cx, dev, |b, cx| b.eject_request(cx, force));
        let (_, now) = medium(cx, Some(dev));
        if now == Some(false) {
            let name = drive.name();
            return Err(qerr!(
                "Device '{name}' is locked and force was not specified, wait for tray to open and try again"
            ));
        }
    }
    drive.eject();
    with_block(cx, dev, |b, cx| b.media_changed(cx, false));
    Ok(())
}

fn with_block(
    cx: &mut MonitorCx<'_, '_>,
    dev: DevId,
    f: impl FnOnce(&mut dyn rqemu_machine::device::BlockFrontend, &mut rqemu_machine::device::Cx<'_>),
) {
    cx.m.with_dev(dev, |d, cx| {
        if let Some(b) = d.block() {
            f(b, cx);
        }
    });
}
