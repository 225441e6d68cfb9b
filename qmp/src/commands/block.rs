//! Block nodes and drives.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::{Empty, Made, Raw};
use rqemu_block::{query, BlockBackend};
use rqemu_machine::builder::block_error;
use rqemu_machine::device::{BlockFrontend, Cx, DevId};
use rqemu_machine::{qerr, QError, QResult};
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
    /// Data of `BLOCK_IO_ERROR`.
    pub struct BlockIoError {
        /// Drive.
        device: String,
        /// Node.
        node_name: Option<String>,
        /// `read` or `write`.
        operation: String,
        /// What is done about it: `ignore`, `report` or `stop`.
        action: String,
        /// The disk is full.
        nospace: Option<bool>,
        /// In words.
        reason: String,
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

qapi_struct! {
    /// Arguments of `block_set_io_throttle`.
    pub struct BlockIoThrottle {
        /// Drive.
        device: Option<String>,
        /// Id or path of the device.
        id: Option<String>,
        /// Bytes per second.
        bps: i64,
        /// Of reads.
        bps_rd as "bps_rd": i64,
        /// Of writes.
        bps_wr as "bps_wr": i64,
        /// Operations per second.
        iops: i64,
        /// Of reads.
        iops_rd as "iops_rd": i64,
        /// Of writes.
        iops_wr as "iops_wr": i64,
        /// In a burst.
        bps_max as "bps_max": Option<i64>,
        /// Of reads.
        bps_rd_max as "bps_rd_max": Option<i64>,
        /// Of writes.
        bps_wr_max as "bps_wr_max": Option<i64>,
        /// In a burst.
        iops_max as "iops_max": Option<i64>,
        /// Of reads.
        iops_rd_max as "iops_rd_max": Option<i64>,
        /// Of writes.
        iops_wr_max as "iops_wr_max": Option<i64>,
        /// Seconds of a burst.
        bps_max_length as "bps_max_length": Option<i64>,
        /// Of reads.
        bps_rd_max_length as "bps_rd_max_length": Option<i64>,
        /// Of writes.
        bps_wr_max_length as "bps_wr_max_length": Option<i64>,
        /// Seconds of a burst.
        iops_max_length as "iops_max_length": Option<i64>,
        /// Of reads.
        iops_rd_max_length as "iops_rd_max_length": Option<i64>,
        /// Of writes.
        iops_wr_max_length as "iops_wr_max_length": Option<i64>,
        /// Bytes that count as one operation.
        iops_size as "iops_size": Option<i64>,
        /// Drives that share the limits.
        group: Option<String>,
    }
}

pub(crate) fn block_set_io_throttle(cx: &mut MonitorCx<'_, '_>, a: BlockIoThrottle) -> QResult<()> {
    let drive = find_drive(cx, a.device.as_deref(), a.id.as_deref())?;
    if !drive.backend.has_medium() {
        return Err(qerr!("Device '{}' has no medium", drive.backend.name()));
    }
    let one = |avg: i64, max: Option<i64>, length: Option<i64>| {
        // Negative values are as absurd as huge ones and get the same message.
        let n = |v: i64| u64::try_from(v).unwrap_or(u64::MAX);
        rqemu_block::Limit { avg: n(avg), max: n(max.unwrap_or(0)), length: n(length.unwrap_or(1)) }
    };
    let limits = rqemu_block::Limits {
        buckets: [
            one(a.bps, a.bps_max, a.bps_max_length),
            one(a.bps_rd, a.bps_rd_max, a.bps_rd_max_length),
            one(a.bps_wr, a.bps_wr_max, a.bps_wr_max_length),
            one(a.iops, a.iops_max, a.iops_max_length),
            one(a.iops_rd, a.iops_rd_max, a.iops_rd_max_length),
            one(a.iops_wr, a.iops_wr_max, a.iops_wr_max_length),
        ],
        iops_size: u64::try_from(a.iops_size.unwrap_or(0)).unwrap_or(0),
    };
    let group = a.group.or(a.device).or(a.id).unwrap_or_default();
    cx.m.block.set_limits(&drive.backend, &group, limits).map_err(block_error)
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

/// A drive and the device that uses it, with the name that QMP gives the device.
pub(crate) struct Drive {
    pub(crate) backend: BlockBackend,
    pub(crate) user: Option<(DevId, String)>,
}

/// All drives: named ones in the order in which they were made, then those that devices have made for themselves.
pub(crate) fn drives(cx: &mut MonitorCx<'_, '_>) -> Vec<Drive> {
    let mut list: Vec<Drive> =
        cx.m.block.drives().into_iter().map(|backend| Drive { backend, user: None }).collect();
    for dev in cx.m.tree.ids() {
        let backend = cx.m.with_dev(dev, |d, _| d.block().and_then(|b| b.backend())).flatten();
        let Some(backend) = backend else { continue };
        let path = cx.m.tree.path(dev);
        let who = backend.attached_to().unwrap_or(path);
        match list.iter_mut().find(|d| d.backend.same(&backend)) {
            Some(d) => d.user = Some((dev, who)),
            None => list.push(Drive { backend, user: Some((dev, who)) }),
        }
    }
    list
}

/// What a device says about its medium.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    pub(crate) removable: bool,
    pub(crate) locked: bool,
    pub(crate) tray_open: Option<bool>,
    pub(crate) io_status: bool,
}

impl Drive {
    /// Device.
    pub(crate) fn dev(&self) -> Option<DevId> {
        self.user.as_ref().map(|u| u.0)
    }

    /// State of the medium; a drive that no device uses may be changed.
    pub(crate) fn facts(&self, cx: &mut MonitorCx<'_, '_>) -> Facts {
        let free = Facts { removable: true, locked: false, tray_open: None, io_status: true };
        let Some(dev) = self.dev() else { return free };
        let facts = cx.m.with_dev(dev, |d, _| {
            d.block().map(|b| Facts {
                removable: b.removable(),
                locked: b.locked(),
                tray_open: b.tray_open(),
                io_status: b.io_status(),
            })
        });
        facts.flatten().unwrap_or(Facts { removable: false, ..free })
    }

    /// Calls the device's side of the drive.
    pub(crate) fn with_frontend(
        &self,
        cx: &mut MonitorCx<'_, '_>,
        f: impl FnOnce(&mut dyn BlockFrontend, &mut Cx<'_>),
    ) {
        if let Some(dev) = self.dev() {
            cx.m.with_dev(dev, |d, cx| {
                if let Some(b) = d.block() {
                    f(b, cx);
                }
            });
        }
    }
}

pub(crate) fn query_block(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Made<Vec<BlockInfo>>> {
    let mut list = Vec::new();
    for drive in drives(cx) {
        let facts = drive.facts(cx);
        let backend = &drive.backend;
        let mut m = Map::new();
        if drive.user.is_some() && facts.io_status && (backend.has_medium() || facts.removable) {
            m.insert("io-status".into(), backend.io_status().into());
        }
        m.insert("device".into(), backend.name().into());
        m.insert("locked".into(), facts.locked.into());
        m.insert("removable".into(), facts.removable.into());
        if let Some(root) = backend.root() {
            let mut info = query::device_info(&root, backend.write_cache(), false);
            query::add_limits(&mut info, backend);
            m.insert("inserted".into(), info);
        }
        if let Some((_, who)) = &drive.user {
            m.insert("qdev".into(), who.as_str().into());
        }
        if let Some(open) = facts.tray_open {
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
    for drive in drives(cx) {
        let mut stats = query::backend_stats(&drive.backend);
        if let (Some((_, who)), Some(map)) = (&drive.user, stats.as_object_mut()) {
            map.insert("qdev".into(), json!(who));
        }
        list.push(stats);
    }
    Ok(Value::Array(list).into())
}

/// A drive by its name, or by the id or path of the device that uses it.
pub(crate) fn find_drive(
    cx: &mut MonitorCx<'_, '_>,
    device: Option<&str>,
    id: Option<&str>,
) -> QResult<Drive> {
    match (device, id) {
        (Some(name), None) => {
            let missing = || QError::device_not_found(name);
            drives(cx).into_iter().find(|d| d.backend.name() == name).ok_or_else(missing)
        }
        (None, Some(id)) => {
            let dev = super::device::find(cx, id)?;
            let missing = || qerr!("Device does not have a block device backend");
            drives(cx).into_iter().find(|d| d.dev() == Some(dev)).ok_or_else(missing)
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
    for drive in drives(cx) {
        if drive.backend.root().is_some_and(|r| Arc::ptr_eq(&r, &node)) {
            drive.with_frontend(cx, |b, cx| b.resized(cx));
        }
    }
    Ok(())
}
