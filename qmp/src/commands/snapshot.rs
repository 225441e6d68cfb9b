//! Snapshots of disks, dirty bitmaps, and transactions of them.

use super::blockjob::{self, class_error, with_jobs, NewImageMode};
use crate::monitors::MonitorCx;
use crate::types::Made;
use crate::{qapi_enum, qapi_struct};
use rqemu_block::{SnapshotInfo, SnapshotSync, Undo};
use rqemu_machine::clock::ClockKind;
use rqemu_machine::{qerr, QResult};
use serde_json::{json, Value};

qapi_enum! {
    /// How actions that last are tied together.
    pub enum ActionCompletionMode {
        Individual = "individual",
        Grouped = "grouped",
    }
}

qapi_struct! {
    /// Arguments of `blockdev-snapshot`.
    pub struct BlockdevSnapshot {
        /// Node that is frozen.
        node: String,
        /// Node that goes on top.
        overlay: String,
    }
    /// Arguments of `blockdev-snapshot-sync`.
    pub struct BlockdevSnapshotSync {
        /// Drive.
        device: Option<String>,
        /// Or node.
        node_name: Option<String>,
        /// File of the new image.
        snapshot_file: String,
        /// Its node name.
        snapshot_node_name: Option<String>,
        /// Its format.
        format: Option<String>,
        /// Whether it is made.
        mode: Option<NewImageMode>,
    }
    /// Arguments of `blockdev-snapshot-internal-sync`.
    pub struct BlockdevSnapshotInternal {
        /// Drive or node.
        device: String,
        /// Name.
        name: String,
    }
    /// Arguments of `blockdev-snapshot-delete-internal-sync`.
    pub struct SnapshotDelete {
        /// Drive or node.
        device: String,
        /// Id.
        id: Option<String>,
        /// Name.
        name: Option<String>,
    }
    /// An internal snapshot.
    pub struct SnapshotInfoOut {
        /// Id.
        id: String,
        /// Name.
        name: String,
        /// Bytes of VM state.
        vm_state_size: i64,
        /// When.
        date_sec: i64,
        /// When.
        date_nsec: i64,
        /// Guest time.
        vm_clock_sec: i64,
        /// Guest time.
        vm_clock_nsec: i64,
        /// Instructions.
        icount: Option<i64>,
    }
    /// Arguments of `block-dirty-bitmap-add`.
    pub struct BitmapAdd {
        /// Node.
        node: String,
        /// Name.
        name: String,
        /// Bytes per bit.
        granularity: Option<u32>,
        /// Saved in the image.
        persistent: Option<bool>,
        /// Does not record yet.
        disabled: Option<bool>,
    }
    /// A bitmap.
    pub struct BitmapRef {
        /// Node.
        node: String,
        /// Name.
        name: String,
    }
    /// Arguments of `block-dirty-bitmap-merge`.
    pub struct BitmapMerge {
        /// Node.
        node: String,
        /// Bitmap that gains.
        target: String,
        /// Names, or nodes and names.
        bitmaps: Vec<Value>,
    }
    /// An action of a transaction.
    pub struct TransactionAction {
        /// Kind.
        type_ as "type": String,
        /// Arguments.
        data: Value,
    }
    /// Properties of a transaction.
    pub struct TransactionProperties {
        /// Whether jobs fail together.
        completion_mode: Option<ActionCompletionMode>,
    }
    /// Arguments of `transaction`.
    pub struct Transaction {
        /// All or none.
        actions: Vec<TransactionAction>,
        /// How.
        properties: Option<TransactionProperties>,
    }
    /// Arguments of `change-backing-file`.
    pub struct ChangeBackingFile {
        /// Drive or node at the top of the chain.
        device: String,
        /// Node whose header is changed.
        image_node_name: String,
        /// Text for it.
        backing_file: String,
    }
}

fn now(cx: &mut MonitorCx<'_, '_>, name: &str) -> SnapshotInfo {
    let t = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    SnapshotInfo {
        name: name.into(),
        date_sec: t.as_secs() as u32,
        date_nsec: t.subsec_nanos(),
        vm_clock_ns: u64::try_from(cx.m.clock.now(ClockKind::Virtual)).unwrap_or(0),
        ..SnapshotInfo::default()
    }
}

pub(super) fn blockdev_snapshot(cx: &mut MonitorCx<'_, '_>, a: BlockdevSnapshot) -> QResult<()> {
    cx.m.block.blockdev_snapshot(&a.node, &a.overlay).map(|_| ()).map_err(class_error)
}

fn snapshot_sync(cx: &mut MonitorCx<'_, '_>, a: BlockdevSnapshotSync) -> QResult<Undo> {
    let o = SnapshotSync {
        device: a.device,
        node_name: a.node_name,
        snapshot_file: a.snapshot_file,
        snapshot_node_name: a.snapshot_node_name,
        format: a.format,
        existing: a.mode == Some(NewImageMode::Existing),
    };
    let (undo, made) = cx.m.block.blockdev_snapshot_sync(&o).map_err(class_error)?;
    blockjob::print_made(made);
    Ok(undo)
}

pub(crate) fn blockdev_snapshot_sync(cx: &mut MonitorCx<'_, '_>, a: BlockdevSnapshotSync) -> QResult<()> {
    snapshot_sync(cx, a).map(|_| ())
}

fn internal(cx: &mut MonitorCx<'_, '_>, a: &BlockdevSnapshotInternal) -> QResult<Undo> {
    let info = now(cx, &a.name);
    cx.m.block.snapshot_internal(&a.device, info).map_err(class_error)
}

pub(crate) fn blockdev_snapshot_internal(
    cx: &mut MonitorCx<'_, '_>,
    a: BlockdevSnapshotInternal,
) -> QResult<()> {
    internal(cx, &a).map(|_| ())
}

pub(crate) fn snapshot_delete(
    cx: &mut MonitorCx<'_, '_>,
    a: SnapshotDelete,
) -> QResult<Made<SnapshotInfoOut>> {
    let s =
        cx.m.block
            .snapshot_delete_internal(&a.device, a.id.as_deref(), a.name.as_deref())
            .map_err(class_error)?;
    let mut v = json!({"id": s.id, "name": s.name, "vm-state-size": s.vm_state_size, "date-sec": s.date_sec,
        "date-nsec": s.date_nsec, "vm-clock-sec": s.vm_clock_ns / 1_000_000_000,
        "vm-clock-nsec": s.vm_clock_ns % 1_000_000_000});
    if let (Some(i), Some(m)) = (s.icount, v.as_object_mut()) {
        m.insert("icount".into(), i.into());
    }
    Ok(v.into())
}

fn bitmap_add(cx: &mut MonitorCx<'_, '_>, a: &BitmapAdd) -> QResult<Undo> {
    cx.m.block
        .bitmap_add(
            &a.node,
            &a.name,
            a.granularity.map(u64::from),
            a.persistent == Some(true),
            a.disabled == Some(true),
        )
        .map_err(class_error)
}

pub(super) fn block_dirty_bitmap_add(cx: &mut MonitorCx<'_, '_>, a: BitmapAdd) -> QResult<()> {
    bitmap_add(cx, &a).map(|_| ())
}

pub(super) fn block_dirty_bitmap_remove(cx: &mut MonitorCx<'_, '_>, a: BitmapRef) -> QResult<()> {
    cx.m.block.bitmap_remove(&a.node, &a.name).map(|_| ()).map_err(class_error)
}

pub(super) fn block_dirty_bitmap_clear(cx: &mut MonitorCx<'_, '_>, a: BitmapRef) -> QResult<()> {
    cx.m.block.bitmap_clear(&a.node, &a.name).map(|_| ()).map_err(class_error)
}

pub(super) fn block_dirty_bitmap_enable(cx: &mut MonitorCx<'_, '_>, a: BitmapRef) -> QResult<()> {
    cx.m.block.bitmap_enable(&a.node, &a.name, true).map(|_| ()).map_err(class_error)
}

pub(super) fn block_dirty_bitmap_disable(cx: &mut MonitorCx<'_, '_>, a: BitmapRef) -> QResult<()> {
    cx.m.block.bitmap_enable(&a.node, &a.name, false).map(|_| ()).map_err(class_error)
}

fn merge(cx: &mut MonitorCx<'_, '_>, a: &BitmapMerge) -> QResult<Undo> {
    let mut from = Vec::new();
    for b in &a.bitmaps {
        let member = |k: &str| b.get(k).and_then(Value::as_str).map(str::to_owned);
        match (b, member("node"), member("name")) {
            (Value::String(name), ..) => from.push((a.node.clone(), name.clone())),
            (_, Some(node), Some(name)) => from.push((node, name)),
            _ => {
                return Err(qerr!(
                    "Invalid parameter type for 'bitmaps[{}]', expected: BlockDirtyBitmapOrStr",
                    from.len()
                ))
            }
        }
    }
    cx.m.block.bitmap_merge(&a.node, &a.target, &from).map_err(class_error)
}

pub(super) fn block_dirty_bitmap_merge(cx: &mut MonitorCx<'_, '_>, a: BitmapMerge) -> QResult<()> {
    merge(cx, &a).map(|_| ())
}

fn arguments<T: crate::types::FromQapi>(data: &Value, at: usize) -> QResult<T> {
    use crate::types::Path;
    let root = Path::Root;
    let actions = Path::Member(&root, "actions");
    let nth = Path::Index(&actions, at);
    T::from_qapi(data.clone(), &Path::Member(&nth, "data"))
}

fn act(cx: &mut MonitorCx<'_, '_>, a: &TransactionAction, nth: usize) -> QResult<Option<Undo>> {
    let d = &a.data;
    Ok(Some(match a.type_.as_str() {
        "abort" => return Err(qerr!("Transaction aborted using Abort action")),
        "blockdev-snapshot" => {
            let s: BlockdevSnapshot = arguments(d, nth)?;
            cx.m.block.blockdev_snapshot(&s.node, &s.overlay).map_err(class_error)?
        }
        "blockdev-snapshot-sync" => snapshot_sync(cx, arguments(d, nth)?)?,
        "blockdev-snapshot-internal-sync" => internal(cx, &arguments(d, nth)?)?,
        "block-dirty-bitmap-add" => bitmap_add(cx, &arguments(d, nth)?)?,
        "block-dirty-bitmap-remove" => {
            let b: BitmapRef = arguments(d, nth)?;
            cx.m.block.bitmap_remove(&b.node, &b.name).map_err(class_error)?
        }
        "block-dirty-bitmap-clear" => {
            let b: BitmapRef = arguments(d, nth)?;
            cx.m.block.bitmap_clear(&b.node, &b.name).map_err(class_error)?
        }
        "block-dirty-bitmap-enable" | "block-dirty-bitmap-disable" => {
            let b: BitmapRef = arguments(d, nth)?;
            let on = a.type_.ends_with("enable");
            cx.m.block.bitmap_enable(&b.node, &b.name, on).map_err(class_error)?
        }
        "block-dirty-bitmap-merge" => merge(cx, &arguments(d, nth)?)?,
        "blockdev-backup" => {
            let b: blockjob::BlockdevBackup = arguments(d, nth)?;
            let id = cx.m.block.default_job_id(b.job_id.clone(), &b.device);
            blockjob::blockdev_backup(cx, b)?;
            cancel(id)
        }
        "drive-backup" => {
            let b: blockjob::DriveBackup = arguments(d, nth)?;
            let id = cx.m.block.default_job_id(b.job_id.clone(), &b.device);
            blockjob::drive_backup(cx, b)?;
            cancel(id)
        }
        other => {
            return Err(qerr!("Parameter 'type' does not accept value '{other}'"));
        }
    }))
}

fn cancel(id: String) -> Undo {
    rqemu_block::BlockGraph::cancel_undo(&id)
}

pub(super) fn transaction(cx: &mut MonitorCx<'_, '_>, a: Transaction) -> QResult<()> {
    if a.properties.and_then(|p| p.completion_mode) == Some(ActionCompletionMode::Grouped) {
        return Err(qerr!("Completion mode 'grouped' is not supported"));
    }
    let mut done: Vec<Undo> = Vec::new();
    for (nth, action) in a.actions.iter().enumerate() {
        match act(cx, action, nth) {
            Ok(undo) => done.extend(undo),
            Err(e) => {
                let graph = cx.m.block.clone();
                done.into_iter().rev().for_each(|u| u(&graph));
                cx.m.poll_block_jobs();
                return Err(e);
            }
        }
    }
    Ok(())
}

pub(super) fn change_backing_file(cx: &mut MonitorCx<'_, '_>, a: ChangeBackingFile) -> QResult<()> {
    with_jobs(cx, |g| g.change_backing_file(&a.device, &a.image_node_name, &a.backing_file))
}
