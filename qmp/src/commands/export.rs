//! Exports of block nodes: the NBD server.

use crate::monitors::MonitorCx;
use crate::types::Empty;
use crate::{qapi_enum, qapi_struct};
use rqemu_block::{ExportOpts, NbdAddr};
use rqemu_machine::builder::block_error;
use rqemu_machine::{qerr, QResult};
use serde_json::{json, Value};

qapi_enum! {
    /// What happens to clients of an export that goes.
    pub enum BlockExportRemoveMode {
        Safe = "safe",
        Hard = "hard",
    }
    /// Kind of an export.
    pub enum BlockExportType {
        Nbd = "nbd",
    }
}

qapi_struct! {
    /// Arguments of `nbd-server-start`.
    pub struct NbdServerStart {
        /// Where to listen.
        addr: Value,
        /// Credentials.
        tls_creds: Option<String>,
        /// Authorization.
        tls_authz: Option<String>,
        /// Clients at a time; 0 = any number.
        max_connections: Option<u32>,
    }
    /// Arguments of `nbd-server-add`.
    pub struct NbdServerAdd {
        /// Name for clients.
        name: Option<String>,
        /// Text for clients.
        description: Option<String>,
        /// Drive or node.
        device: String,
        /// Clients may write.
        writable: Option<bool>,
        /// Bitmap that clients may read.
        bitmap: Option<String>,
    }
    /// Arguments of `nbd-server-remove`.
    pub struct NbdServerRemove {
        /// Name.
        name: String,
        /// Clients.
        mode: Option<BlockExportRemoveMode>,
    }
    /// Arguments of `block-export-add`.
    pub struct BlockExportAdd {
        /// Kind.
        type_ as "type": BlockExportType,
        /// Id.
        id: String,
        /// Node.
        node_name: String,
        /// Clients may write.
        writable: Option<bool>,
        /// Flush after each write.
        writethrough: Option<bool>,
        /// Thread that serves it.
        iothread: Option<String>,
        /// Keep the node on that thread.
        fixed_iothread: Option<bool>,
        /// Name for clients.
        name: Option<String>,
        /// Text for clients.
        description: Option<String>,
        /// Bitmaps that clients may read.
        bitmaps: Option<Vec<Value>>,
        /// Clients may ask how deep data lie.
        allocation_depth: Option<bool>,
    }
    /// Arguments of `block-export-del`.
    pub struct BlockExportDel {
        /// Id.
        id: String,
        /// Clients.
        mode: Option<BlockExportRemoveMode>,
    }
    /// Element of `query-block-exports`.
    pub struct BlockExportInfo {
        /// Id.
        id: String,
        /// Kind.
        type_ as "type": BlockExportType,
        /// Node.
        node_name: String,
        /// It is about to go.
        shutting_down: bool,
    }
    /// Data of `BLOCK_EXPORT_DELETED`.
    pub struct BlockExportDeleted {
        /// Id.
        id: String,
    }
}

fn address(v: &Value) -> QResult<NbdAddr> {
    // `SocketAddressLegacy` has its members below `data`, the newer form beside `type`.
    let data = v.get("data").unwrap_or(v);
    let text = |k: &str| {
        data.get(k)
            .and_then(Value::as_str)
            .map(str::to_owned)
            .ok_or_else(|| qerr!("Parameter 'addr.data.{k}' is missing"))
    };
    match v.get("type").and_then(Value::as_str) {
        Some("unix") => Ok(NbdAddr::Unix(text("path")?)),
        Some("inet") => Ok(NbdAddr::Inet(text("host")?, text("port")?)),
        Some(k @ ("fd" | "vsock")) => Err(qerr!("NBD server on an address of type '{k}' is not supported")),
        Some(k) => Err(qerr!("Parameter 'addr.type' does not accept value '{k}'")),
        None => Err(qerr!("Parameter 'addr.type' is missing")),
    }
}

pub(crate) fn nbd_server_start(cx: &mut MonitorCx<'_, '_>, a: NbdServerStart) -> QResult<()> {
    if a.tls_creds.is_some() || a.tls_authz.is_some() {
        return Err(qerr!("TLS is not supported by the NBD server"));
    }
    let addr = address(&a.addr)?;
    cx.m.block.nbd_start(&addr, a.max_connections.unwrap_or(0)).map_err(block_error)
}

pub(crate) fn nbd_server_add(cx: &mut MonitorCx<'_, '_>, a: NbdServerAdd) -> QResult<()> {
    let name = a.name.unwrap_or_else(|| a.device.clone());
    let writable = a.writable == Some(true);
    let o = ExportOpts {
        id: name.clone(),
        bitmaps: a.bitmap.into_iter().map(|b| (a.device.clone(), b)).collect(),
        node: a.device,
        name: Some(name),
        // An image that cannot be written is exported read-only here, whatever was asked for.
        writable,
        description: a.description,
        allocation_depth: false,
    };
    let read_only = cx.m.block.device_or_node(&o.node).is_ok_and(|n| n.read_only());
    let o = ExportOpts { writable: writable && !read_only, ..o };
    cx.m.block.export_add(o).map_err(block_error)
}

pub(crate) fn nbd_server_remove(cx: &mut MonitorCx<'_, '_>, a: NbdServerRemove) -> QResult<()> {
    let hard = a.mode == Some(BlockExportRemoveMode::Hard);
    let id = cx.m.block.export_del(&a.name, true, hard).map_err(block_error)?;
    deleted(cx, id);
    Ok(())
}

fn deleted(cx: &mut MonitorCx<'_, '_>, id: String) {
    cx.m.emit("BLOCK_EXPORT_DELETED", Some(json!({ "id": id })));
}

pub(crate) fn nbd_server_stop(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    let ids = cx.m.block.nbd_stop().map_err(block_error)?;
    ids.into_iter().for_each(|id| deleted(cx, id));
    Ok(())
}

pub(super) fn block_export_add(cx: &mut MonitorCx<'_, '_>, a: BlockExportAdd) -> QResult<()> {
    if a.iothread.is_some() || a.fixed_iothread == Some(true) {
        return Err(qerr!("'iothread' is not supported for exports"));
    }
    if a.writethrough == Some(true) {
        return Err(qerr!("'writethrough' is not supported for exports"));
    }
    let mut bitmaps = Vec::new();
    for (i, b) in a.bitmaps.into_iter().flatten().enumerate() {
        let member = |k: &str| b.get(k).and_then(Value::as_str).map(str::to_owned);
        match (&b, member("node"), member("name")) {
            (Value::String(name), ..) => bitmaps.push((a.node_name.clone(), name.clone())),
            (_, Some(node), Some(name)) => bitmaps.push((node, name)),
            _ => {
                return Err(qerr!(
                    "Invalid parameter type for 'bitmaps[{i}]', expected: BlockDirtyBitmapOrStr"
                ));
            }
        }
    }
    let o = ExportOpts {
        id: a.id,
        node: a.node_name,
        name: a.name,
        writable: a.writable == Some(true),
        description: a.description,
        bitmaps,
        allocation_depth: a.allocation_depth == Some(true),
    };
    cx.m.block.export_add(o).map_err(block_error)
}

pub(super) fn block_export_del(cx: &mut MonitorCx<'_, '_>, a: BlockExportDel) -> QResult<()> {
    let hard = a.mode == Some(BlockExportRemoveMode::Hard);
    let id = cx.m.block.export_del(&a.id, false, hard).map_err(block_error)?;
    deleted(cx, id);
    Ok(())
}

pub(super) fn query_block_exports(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<BlockExportInfo>> {
    let list = cx.m.block.query_exports().into_iter();
    Ok(list
        .map(|e| BlockExportInfo {
            id: e.id,
            type_: BlockExportType::Nbd,
            node_name: e.node,
            shutting_down: e.shutting_down,
        })
        .collect())
}
