//! Drives that come and go, snapshots of disks, and block jobs.

use crate::commands::{blockjob, snapshot};
use crate::hmp::{Args, HmpCx};
use crate::types::{Empty, ToQapi};
use rqemu_block::DriveOpts;
use rqemu_machine::builder::block_error;
use rqemu_machine::{qerr, QResult};
use serde_json::{Map, Value};

/// Splits `a=b,c=d`; a doubled comma stands for one. A member without a value is `on`.
fn members(text: &str) -> Vec<(String, String)> {
    let (mut list, mut word) = (Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    loop {
        let c = chars.next();
        match c {
            Some(',') if chars.peek() == Some(&',') => {
                chars.next();
                word.push(',');
            }
            Some(',') | None => {
                if !word.is_empty() {
                    let (k, v) = word.split_once('=').unwrap_or((&word, "on"));
                    list.push((k.to_owned(), v.to_owned()));
                }
                word.clear();
                if c.is_none() {
                    return list;
                }
            }
            Some(c) => word.push(c),
        }
    }
}

const INTERFACES: [&str; 9] = ["none", "ide", "scsi", "floppy", "pflash", "mtd", "sd", "virtio", "xen"];

fn add_drive(h: &mut HmpCx<'_, '_, '_>, text: &str) -> QResult<()> {
    let mut o = DriveOpts::default();
    let mut interface = 1;
    for (k, v) in members(text) {
        match k.as_str() {
            "if" => {
                interface = INTERFACES
                    .iter()
                    .position(|i| *i == v)
                    .ok_or_else(|| qerr!("unsupported bus type '{v}'"))?;
            }
            "id" => o.id = v,
            "media" if v == "cdrom" => o.force_read_only = true,
            "media" if v == "disk" => {}
            "media" => return Err(qerr!("'{v}' invalid media")),
            "bus" | "unit" | "index" => {}
            _ => o.options.push((k, v)),
        }
    }
    if o.id.is_empty() {
        let taken = |g: &rqemu_block::BlockGraph, id: &str| g.find_drive(id).is_some();
        let base = INTERFACES[interface];
        o.id =
            (0u32..).map(|n| format!("{base}{n}")).find(|id| !taken(&h.cx.m.block, id)).unwrap_or_default();
    }
    let opened = h.cx.m.block.open_drive(&o);
    for w in h.cx.m.block.take_warnings() {
        eprintln!("{w}");
    }
    let opened = opened.map_err(block_error)?;
    if interface != 0 {
        h.cx.m.block.remove_drive(opened.backend.name());
        return Err(qerr!("Can't hot-add drive to type {interface}"));
    }
    Ok(())
}

fn add_node(h: &mut HmpCx<'_, '_, '_>, text: &str) -> QResult<()> {
    let map: Map<String, Value> = members(text).into_iter().map(|(k, v)| (k, v.into())).collect();
    if !map.contains_key("node-name") {
        return Err(qerr!("'node-name' needs to be specified"));
    }
    h.cx.m.block.blockdev_add_text(map).map(|_| ()).map_err(block_error)
}

pub(super) fn drive_add(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let text = args.str("opts").to_owned();
    let result = match args.flag("-n") {
        true => add_node(h, &text),
        false => add_drive(h, &text),
    };
    match result {
        Ok(()) if args.flag("-n") => {}
        Ok(()) => h.line("OK"),
        Err(e) => {
            h.line(&e.desc);
            if let Some(hint) = &e.hint {
                h.out.push_str(hint);
            }
        }
    }
}

pub(super) fn drive_del(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let id = args.str("id");
    if let Some(node) = h.cx.m.block.find_node(id).filter(|_| h.cx.m.block.find_drive(id).is_none()) {
        let result = h.cx.m.block.blockdev_del(node.name()).map_err(block_error);
        drop(node);
        h.report(result);
        return;
    }
    if !h.cx.m.block.remove_drive(id) {
        h.line(format!("Error: Device '{id}' not found"));
    }
}

pub(super) fn snapshot_blkdev(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let Some(file) = args.opt_str("snapshot-file") else {
        // Without a file there is nothing to go to.
        h.line("Error: Parameter 'snapshot-file' is missing");
        return;
    };
    let mode = match args.flag("-n") {
        true => blockjob::NewImageMode::Existing,
        false => blockjob::NewImageMode::AbsolutePaths,
    };
    let a = snapshot::BlockdevSnapshotSync {
        device: Some(args.str("device").into()),
        node_name: None,
        snapshot_file: file.into(),
        snapshot_node_name: None,
        format: args.opt_str("format").map(Into::into),
        mode: Some(mode),
    };
    let result = snapshot::blockdev_snapshot_sync(h.cx, a);
    h.report(result);
}

pub(super) fn snapshot_blkdev_internal(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = snapshot::BlockdevSnapshotInternal {
        device: args.str("device").into(),
        name: args.str("name").into(),
    };
    let result = snapshot::blockdev_snapshot_internal(h.cx, a);
    h.report(result);
}

pub(super) fn snapshot_delete_blkdev_internal(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = snapshot::SnapshotDelete {
        device: args.str("device").into(),
        name: Some(args.str("name").into()),
        id: args.opt_str("id").map(Into::into),
    };
    let result = snapshot::snapshot_delete(h.cx, a);
    h.report(result);
}

pub(super) fn block_stream(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = blockjob::BlockStream {
        job_id: None,
        device: args.str("device").into(),
        base: args.opt_str("base").map(Into::into),
        base_node: None,
        backing_file: None,
        bottom: None,
        speed: args.opt_int("speed"),
        on_error: None,
        filter_node_name: None,
        auto_finalize: None,
        auto_dismiss: None,
    };
    let result = blockjob::block_stream(h.cx, a);
    h.report(result);
}

pub(super) fn block_job_cancel(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = blockjob::BlockJobCancel { device: args.str("device").into(), force: Some(args.flag("-f")) };
    let result = blockjob::block_job_cancel(h.cx, a);
    h.report(result);
}

pub(super) fn block_job_set_speed(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let a = blockjob::BlockJobSetSpeed { device: args.str("device").into(), speed: args.int("speed") };
    let result = blockjob::block_job_set_speed(h.cx, a);
    h.report(result);
}

fn job(args: &Args) -> blockjob::JobDevice {
    blockjob::JobDevice { device: args.str("device").into() }
}

pub(super) fn block_job_pause(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = blockjob::block_job_pause(h.cx, job(args));
    h.report(result);
}

pub(super) fn block_job_resume(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = blockjob::block_job_resume(h.cx, job(args));
    h.report(result);
}

pub(super) fn block_job_complete(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = blockjob::block_job_complete(h.cx, job(args));
    h.report(result);
}

pub(super) fn info_block_jobs(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let all = blockjob::query_block_jobs(h.cx, Empty).ok().and_then(ToQapi::to_qapi).unwrap_or_default();
    let list = all.as_array().cloned().unwrap_or_default();
    if list.is_empty() {
        h.line("No active jobs");
        return;
    }
    for j in list {
        let n = |k: &str| j[k].as_i64().unwrap_or(0);
        let s = |k: &str| j[k].as_str().unwrap_or("").to_owned();
        let (done, len, speed) = (n("offset"), n("len"), n("speed"));
        match j["type"] == "stream" {
            true => h.line(format!(
                "Streaming device {}: Completed {done} of {len} bytes, speed limit {speed} bytes/s",
                s("device")
            )),
            false => h.line(format!(
                "Type {}, device {}: Completed {done} of {len} bytes, speed limit {speed} bytes/s",
                s("type"),
                s("device")
            )),
        }
    }
}

pub(super) fn drive_backup(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let full = args.flag("-f");
    let a = blockjob::DriveBackup {
        job_id: None,
        device: args.str("device").into(),
        sync: if full { blockjob::MirrorSyncMode::Full } else { blockjob::MirrorSyncMode::Top },
        speed: None,
        bitmap: None,
        bitmap_mode: None,
        compress: Some(args.flag("-c")),
        on_source_error: None,
        on_target_error: None,
        auto_finalize: None,
        auto_dismiss: None,
        filter_node_name: None,
        x_perf: None,
        target: args.str("target").into(),
        format: args.opt_str("format").map(Into::into),
        mode: Some(mode(args.flag("-n"))),
    };
    let result = blockjob::drive_backup(h.cx, a);
    h.report(result);
}

fn mode(reuse: bool) -> blockjob::NewImageMode {
    if reuse {
        blockjob::NewImageMode::Existing
    } else {
        blockjob::NewImageMode::AbsolutePaths
    }
}

pub(super) fn drive_mirror(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let full = args.flag("-f");
    let a = blockjob::DriveMirror {
        job_id: None,
        device: args.str("device").into(),
        target: args.str("target").into(),
        format: args.opt_str("format").map(Into::into),
        node_name: None,
        replaces: None,
        sync: if full { blockjob::MirrorSyncMode::Full } else { blockjob::MirrorSyncMode::Top },
        mode: Some(mode(args.flag("-n"))),
        speed: None,
        granularity: None,
        buf_size: None,
        on_source_error: None,
        on_target_error: None,
        unmap: None,
        copy_mode: None,
        auto_finalize: None,
        auto_dismiss: None,
    };
    let result = blockjob::drive_mirror(h.cx, a);
    h.report(result);
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn doubled_commas() {
        let m = members("file=a,,b,if=none,readonly");
        let want = [("file", "a,b"), ("if", "none"), ("readonly", "on")];
        assert_eq!(m, want.map(|(a, b)| (a.to_string(), b.to_string())));
    }
}
