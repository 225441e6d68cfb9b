//! Removable media: trays and what is in them.

use super::block::{find_drive, Drive, Eject};
use crate::monitors::MonitorCx;
use crate::{qapi_enum, qapi_struct};
use rqemu_machine::builder::block_error;
use rqemu_machine::{qerr, QResult};
use serde_json::json;

qapi_struct! {
    /// Arguments of the commands that name a drive by its device.
    pub struct DeviceId {
        /// Id or path of the device.
        id: String,
    }
    /// Arguments of `blockdev-open-tray` and `blockdev-close-tray`.
    pub struct Tray {
        /// Drive.
        device: Option<String>,
        /// Id or path of the device.
        id: Option<String>,
        /// Even if the guest has locked it.
        force: Option<bool>,
    }
    /// Arguments of `blockdev-close-tray`.
    pub struct CloseTray {
        /// Drive.
        device: Option<String>,
        /// Id or path of the device.
        id: Option<String>,
    }
    /// Arguments of `blockdev-insert-medium`.
    pub struct InsertMedium {
        /// Id or path of the device.
        id: String,
        /// Node with the medium.
        node_name: String,
    }
    /// Arguments of `blockdev-change-medium`.
    pub struct ChangeMedium {
        /// Drive.
        device: Option<String>,
        /// Id or path of the device.
        id: Option<String>,
        /// File.
        filename: String,
        /// Format; guessed if left out.
        format: Option<String>,
        /// Even if the guest has locked the tray.
        force: Option<bool>,
        /// Whether it can be written.
        read_only_mode: Option<ChangeReadOnly>,
    }
    /// Data of `DEVICE_TRAY_MOVED`.
    pub struct TrayMoved {
        /// Drive.
        device: String,
        /// Path of the device.
        id: String,
        /// It is open now.
        tray_open: bool,
    }
}

qapi_enum! {
    /// Whether a new medium can be written.
    pub enum ChangeReadOnly {
        Retain = "retain",
        ReadOnly = "read-only",
        ReadWrite = "read-write",
    }
}

fn pick(cx: &mut MonitorCx<'_, '_>, device: Option<&str>, id: Option<&str>) -> QResult<Drive> {
    find_drive(cx, device.filter(|d| !d.is_empty()), id.filter(|i| !i.is_empty()))
}

/// The drive, if its medium can be changed.
fn pick_removable(cx: &mut MonitorCx<'_, '_>, device: Option<&str>, id: Option<&str>) -> QResult<Drive> {
    let drive = pick(cx, device, id)?;
    match drive.facts(cx).removable {
        true => Ok(drive),
        false => Err(qerr!("Device '{}' is not removable", drive.backend.name())),
    }
}

/// Moves the tray.
fn move_tray(cx: &mut MonitorCx<'_, '_>, drive: &Drive, open: bool) {
    drive.with_frontend(cx, |b, cx| b.media_changed(cx, !open));
    if let Some((_, who)) = &drive.user {
        let data = json!({"device": drive.backend.name(), "id": who, "tray-open": open});
        cx.m.emit("DEVICE_TRAY_MOVED", Some(data));
    }
}

/// Opens the tray.
///
/// # Errors
/// The guest has locked it; it is told what the user wants.
fn open(cx: &mut MonitorCx<'_, '_>, drive: &Drive, force: bool) -> QResult<()> {
    let facts = drive.facts(cx);
    if facts.tray_open != Some(false) {
        return Ok(());
    }
    if facts.locked {
        drive.with_frontend(cx, |b, cx| b.eject_request(cx, force));
        if !force {
            return Err(qerr!(
                "Device '{}' is locked and force was not specified, wait for tray to open and try again",
                drive.backend.name()
            ));
        }
    }
    move_tray(cx, drive, true);
    Ok(())
}

/// Takes the medium out of a drive whose tray, if it has one, is open.
fn remove(cx: &mut MonitorCx<'_, '_>, drive: &Drive) -> QResult<()> {
    let facts = drive.facts(cx);
    if facts.tray_open == Some(false) {
        return Err(qerr!("Tray of device '{}' is not open", drive.backend.name()));
    }
    if drive.backend.eject().is_some() && facts.tray_open.is_none() {
        drive.with_frontend(cx, |b, cx| b.media_changed(cx, false));
    }
    Ok(())
}

pub(crate) fn eject(cx: &mut MonitorCx<'_, '_>, args: Eject) -> QResult<()> {
    let drive = pick_removable(cx, args.device.as_deref(), args.id.as_deref())?;
    open(cx, &drive, args.force == Some(true))?;
    remove(cx, &drive)
}

pub(super) fn blockdev_open_tray(cx: &mut MonitorCx<'_, '_>, args: Tray) -> QResult<()> {
    let drive = pick_removable(cx, args.device.as_deref(), args.id.as_deref())?;
    open(cx, &drive, args.force == Some(true))
}

pub(super) fn blockdev_close_tray(cx: &mut MonitorCx<'_, '_>, args: CloseTray) -> QResult<()> {
    let drive = pick_removable(cx, args.device.as_deref(), args.id.as_deref())?;
    if drive.facts(cx).tray_open == Some(true) {
        move_tray(cx, &drive, false);
    }
    Ok(())
}

pub(super) fn blockdev_remove_medium(cx: &mut MonitorCx<'_, '_>, args: DeviceId) -> QResult<()> {
    let drive = pick_removable(cx, None, Some(&args.id))?;
    remove(cx, &drive)
}

pub(super) fn blockdev_insert_medium(cx: &mut MonitorCx<'_, '_>, args: InsertMedium) -> QResult<()> {
    let drive = pick_removable(cx, None, Some(&args.id))?;
    let name = &args.node_name;
    let node = cx.m.block.find_node(name).ok_or_else(|| qerr!("Node '{name}' not found"))?;
    let facts = drive.facts(cx);
    if facts.tray_open == Some(false) {
        return Err(qerr!("Tray of device '{}' is not open", drive.backend.name()));
    }
    drive.backend.insert(&node).map_err(block_error)?;
    if facts.tray_open.is_none() {
        drive.with_frontend(cx, |b, cx| b.media_changed(cx, true));
    }
    Ok(())
}

pub(crate) fn blockdev_change_medium(cx: &mut MonitorCx<'_, '_>, args: ChangeMedium) -> QResult<()> {
    let drive = pick(cx, args.device.as_deref(), args.id.as_deref())?;
    let read_only = match args.read_only_mode {
        None | Some(ChangeReadOnly::Retain) => drive.backend.read_only(),
        Some(mode) => mode == ChangeReadOnly::ReadOnly,
    };
    let options = rqemu_block::DriveOpts {
        options: [("file", Some(args.filename)), ("format", args.format)]
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_string(), v?)))
            .collect(),
        force_read_only: read_only,
        ..Default::default()
    };
    // The new image is opened first: if that fails, the old one stays.
    let opened = cx.m.block.open_drive(&options).map_err(block_error)?.backend;
    let node = opened.eject().ok_or_else(|| qerr!("no medium was opened"))?;
    // The drive that opened the image was only a means.
    cx.m.block.remove_drive("");
    if !drive.facts(cx).removable {
        return Err(qerr!("Device '{}' is not removable", drive.backend.name()));
    }
    open(cx, &drive, args.force == Some(true))?;
    remove(cx, &drive)?;
    drive.backend.insert(&node).map_err(block_error)?;
    match drive.facts(cx).tray_open {
        Some(_) => move_tray(cx, &drive, false),
        None => drive.with_frontend(cx, |b, cx| b.media_changed(cx, true)),
    }
    Ok(())
}
