//! Block jobs: stream, commit, mirror, backup, create; and the commands that steer jobs.

use crate::monitors::MonitorCx;
use crate::types::{Empty, Made};
use crate::{qapi_enum, qapi_struct};
use rqemu_block::{BackupOpts, CommitOpts, JobOpts, MirrorOpts, MirrorSync, StreamOpts, Target, Verb};
use rqemu_machine::builder::block_error;
use rqemu_machine::{qerr, QError, QResult};
use serde_json::Value;

qapi_enum! {
    /// What to do about errors.
    pub enum BlockdevOnError {
        Report = "report",
        Ignore = "ignore",
        Enospc = "enospc",
        Stop = "stop",
        Auto = "auto",
    }
    /// What a copy contains.
    pub enum MirrorSyncMode {
        Top = "top",
        Full = "full",
        None = "none",
        Incremental = "incremental",
        Bitmap = "bitmap",
    }
    /// How a mirror follows writes.
    pub enum MirrorCopyMode {
        Background = "background",
        WriteBlocking = "write-blocking",
    }
    /// Whether an image is made.
    pub enum NewImageMode {
        Existing = "existing",
        AbsolutePaths = "absolute-paths",
    }
    /// What becomes of a bitmap.
    pub enum BitmapSyncMode {
        OnSuccess = "on-success",
        Never = "never",
        Always = "always",
    }
}

qapi_struct! {
    /// Arguments of `block-stream`.
    pub struct BlockStream {
        /// Job.
        job_id: Option<String>,
        /// Drive or node.
        device: String,
        /// Image that stays below, by file name.
        base: Option<String>,
        /// The same by node name.
        base_node: Option<String>,
        /// Text for the header.
        backing_file: Option<String>,
        /// Last image that is copied.
        bottom: Option<String>,
        /// Bytes per second.
        speed: Option<i64>,
        /// Errors.
        on_error: Option<BlockdevOnError>,
        /// Name of the filter.
        filter_node_name: Option<String>,
        /// End without asking.
        auto_finalize: Option<bool>,
        /// Vanish at the end.
        auto_dismiss: Option<bool>,
    }
    /// Arguments of `block-commit`.
    pub struct BlockCommit {
        /// Job.
        job_id: Option<String>,
        /// Drive or node.
        device: String,
        /// Image that receives the data.
        base_node: Option<String>,
        /// The same by file name.
        base: Option<String>,
        /// Highest image that is committed.
        top_node: Option<String>,
        /// The same by file name.
        top: Option<String>,
        /// Text for the header.
        backing_file: Option<String>,
        /// Bytes per second.
        speed: Option<i64>,
        /// Errors.
        on_error: Option<BlockdevOnError>,
        /// Name of the filter.
        filter_node_name: Option<String>,
        /// End without asking.
        auto_finalize: Option<bool>,
        /// Vanish at the end.
        auto_dismiss: Option<bool>,
    }
    /// Arguments of `blockdev-mirror`.
    pub struct BlockdevMirror {
        /// Job.
        job_id: Option<String>,
        /// Drive or node.
        device: String,
        /// Node that receives the data.
        target: String,
        /// Node to replace.
        replaces: Option<String>,
        /// Contents.
        sync: MirrorSyncMode,
        /// Bytes per second.
        speed: Option<i64>,
        /// Bytes per dirty bit.
        granularity: Option<u32>,
        /// Bytes in flight.
        buf_size: Option<i64>,
        /// Read errors.
        on_source_error: Option<BlockdevOnError>,
        /// Write errors.
        on_target_error: Option<BlockdevOnError>,
        /// Name of the filter.
        filter_node_name: Option<String>,
        /// How writes are followed.
        copy_mode: Option<MirrorCopyMode>,
        /// End without asking.
        auto_finalize: Option<bool>,
        /// Vanish at the end.
        auto_dismiss: Option<bool>,
    }
    /// Arguments of `drive-mirror`.
    pub struct DriveMirror {
        /// Job.
        job_id: Option<String>,
        /// Drive or node.
        device: String,
        /// File that receives the data.
        target: String,
        /// Its format.
        format: Option<String>,
        /// Its node name.
        node_name: Option<String>,
        /// Node to replace.
        replaces: Option<String>,
        /// Contents.
        sync: MirrorSyncMode,
        /// Whether the file is made.
        mode: Option<NewImageMode>,
        /// Bytes per second.
        speed: Option<i64>,
        /// Bytes per dirty bit.
        granularity: Option<u32>,
        /// Bytes in flight.
        buf_size: Option<i64>,
        /// Read errors.
        on_source_error: Option<BlockdevOnError>,
        /// Write errors.
        on_target_error: Option<BlockdevOnError>,
        /// Give zeroes back.
        unmap: Option<bool>,
        /// How writes are followed.
        copy_mode: Option<MirrorCopyMode>,
        /// End without asking.
        auto_finalize: Option<bool>,
        /// Vanish at the end.
        auto_dismiss: Option<bool>,
    }
    /// Tuning of a backup.
    pub struct BackupPerf {
        /// Copy by the host.
        use_copy_range: Option<bool>,
        /// Parallel requests.
        max_workers: Option<i64>,
        /// Size of a request.
        max_chunk: Option<i64>,
    }
    /// Arguments of `blockdev-backup`.
    pub struct BlockdevBackup {
        /// Job.
        job_id: Option<String>,
        /// Drive or node.
        device: String,
        /// Contents.
        sync: MirrorSyncMode,
        /// Bytes per second.
        speed: Option<i64>,
        /// What to copy.
        bitmap: Option<String>,
        /// What becomes of it.
        bitmap_mode: Option<BitmapSyncMode>,
        /// Compressed clusters.
        compress: Option<bool>,
        /// Read errors.
        on_source_error: Option<BlockdevOnError>,
        /// Write errors.
        on_target_error: Option<BlockdevOnError>,
        /// End without asking.
        auto_finalize: Option<bool>,
        /// Vanish at the end.
        auto_dismiss: Option<bool>,
        /// Name of the filter.
        filter_node_name: Option<String>,
        /// Tuning.
        x_perf: Option<BackupPerf>,
        /// Node that receives the data.
        target: String,
    }
    /// Arguments of `drive-backup`.
    pub struct DriveBackup {
        /// Job.
        job_id: Option<String>,
        /// Drive or node.
        device: String,
        /// Contents.
        sync: MirrorSyncMode,
        /// Bytes per second.
        speed: Option<i64>,
        /// What to copy.
        bitmap: Option<String>,
        /// What becomes of it.
        bitmap_mode: Option<BitmapSyncMode>,
        /// Compressed clusters.
        compress: Option<bool>,
        /// Read errors.
        on_source_error: Option<BlockdevOnError>,
        /// Write errors.
        on_target_error: Option<BlockdevOnError>,
        /// End without asking.
        auto_finalize: Option<bool>,
        /// Vanish at the end.
        auto_dismiss: Option<bool>,
        /// Name of the filter.
        filter_node_name: Option<String>,
        /// Tuning.
        x_perf: Option<BackupPerf>,
        /// File that receives the data.
        target: String,
        /// Its format.
        format: Option<String>,
        /// Whether the file is made.
        mode: Option<NewImageMode>,
    }
    /// Arguments of `blockdev-create`.
    pub struct BlockdevCreate {
        /// Job.
        job_id: String,
        /// Options.
        options: Value,
    }
    /// A job by its id.
    pub struct JobId {
        /// Job.
        id: String,
    }
    /// A block job by its id.
    pub struct JobDevice {
        /// Job.
        device: String,
    }
    /// Arguments of `block-job-cancel`.
    pub struct BlockJobCancel {
        /// Job.
        device: String,
        /// Even if it is in sync.
        force: Option<bool>,
    }
    /// Arguments of `block-job-set-speed`.
    pub struct BlockJobSetSpeed {
        /// Job.
        device: String,
        /// Bytes per second.
        speed: i64,
    }
    /// Element of `query-block-jobs`.
    pub struct BlockJobInfo {
        /// Kind.
        type_ as "type": String,
        /// Job.
        device: String,
        /// Bytes in all.
        len: i64,
        /// Bytes done.
        offset: i64,
        /// Working.
        busy: bool,
        /// Paused.
        paused: bool,
        /// Bytes per second.
        speed: i64,
        /// Errors so far.
        io_status: String,
        /// Can be completed.
        ready: bool,
        /// State.
        status: String,
        /// Ends without asking.
        auto_finalize: bool,
        /// Vanishes at the end.
        auto_dismiss: bool,
        /// Why it failed.
        error: Option<String>,
    }
    /// Data of `BLOCK_JOB_COMPLETED`.
    pub struct BlockJobCompleted {
        /// Kind.
        type_ as "type": String,
        /// Job.
        device: String,
        /// Bytes in all.
        len: i64,
        /// Bytes done.
        offset: i64,
        /// Bytes per second.
        speed: i64,
        /// Why it failed.
        error: Option<String>,
    }
    /// Data of `BLOCK_JOB_READY` and `BLOCK_JOB_CANCELLED`.
    pub struct BlockJobEvent {
        /// Kind.
        type_ as "type": String,
        /// Job.
        device: String,
        /// Bytes in all.
        len: i64,
        /// Bytes done.
        offset: i64,
        /// Bytes per second.
        speed: i64,
    }
    /// Data of `BLOCK_JOB_ERROR`.
    pub struct BlockJobError {
        /// Job.
        device: String,
        /// `read` or `write`.
        operation: String,
        /// What is done about it.
        action: String,
    }
    /// Data of `BLOCK_JOB_PENDING`.
    pub struct BlockJobPending {
        /// Kind.
        type_ as "type": String,
        /// Job.
        id: String,
    }
    /// Data of `JOB_STATUS_CHANGE`.
    pub struct JobStatusChange {
        /// Job.
        id: String,
        /// State.
        status: String,
    }
}

/// Takes an error policy, of which only reporting exists.
fn policy(p: Option<BlockdevOnError>) -> QResult<()> {
    match p {
        None | Some(BlockdevOnError::Report | BlockdevOnError::Auto) => Ok(()),
        Some(_) => Err(qerr!("This error policy is not supported for jobs")),
    }
}

/// Refuses arguments that nothing here stands behind, by name.
fn refuse(given: &[(bool, &str)]) -> QResult<()> {
    match given.iter().find(|(given, _)| *given) {
        Some((_, name)) => Err(qerr!("'{name}' is not supported")),
        None => Ok(()),
    }
}

fn job(
    cx: &mut MonitorCx<'_, '_>,
    id: Option<String>,
    device: &str,
    speed: Option<i64>,
    auto: (Option<bool>, Option<bool>),
) -> QResult<JobOpts> {
    let speed = u64::try_from(speed.unwrap_or(0))
        .map_err(|_| qerr!("Parameter 'speed' expects a non-negative value"))?;
    Ok(JobOpts {
        id: cx.m.block.default_job_id(id, device),
        speed,
        auto_finalize: auto.0.unwrap_or(true),
        auto_dismiss: auto.1.unwrap_or(true),
    })
}

/// Runs a command on jobs; events that it caused go out before its reply.
pub(super) fn with_jobs<T>(
    cx: &mut MonitorCx<'_, '_>,
    f: impl FnOnce(&rqemu_block::BlockGraph) -> rqemu_block::Result<T>,
) -> QResult<T> {
    cx.m.watch_block_jobs();
    let graph = cx.m.block.clone();
    let r = f(&graph);
    cx.m.poll_block_jobs();
    for w in graph.take_warnings() {
        eprintln!("{w}");
    }
    r.map_err(class_error)
}

/// A block layer error with the class that it names.
pub(super) fn class_error(e: rqemu_block::BlockError) -> QError {
    match e {
        rqemu_block::BlockError::Class("DeviceNotActive", text) => {
            QError::new(rqemu_machine::ErrorClass::DeviceNotActive, text)
        }
        e => block_error(e),
    }
}

pub(crate) fn block_stream(cx: &mut MonitorCx<'_, '_>, a: BlockStream) -> QResult<()> {
    policy(a.on_error)?;
    refuse(&[(a.bottom.is_some(), "bottom"), (a.filter_node_name.is_some(), "filter-node-name")])?;
    let j = job(cx, a.job_id, &a.device, a.speed, (a.auto_finalize, a.auto_dismiss))?;
    let o =
        StreamOpts { device: a.device, base: a.base, base_node: a.base_node, backing_file: a.backing_file };
    with_jobs(cx, |g| g.block_stream(&o, &j))
}

pub(crate) fn block_commit(cx: &mut MonitorCx<'_, '_>, a: BlockCommit) -> QResult<()> {
    policy(a.on_error)?;
    refuse(&[(a.filter_node_name.is_some(), "filter-node-name")])?;
    let j = job(cx, a.job_id, &a.device, a.speed, (a.auto_finalize, a.auto_dismiss))?;
    let o = CommitOpts {
        device: a.device,
        base: a.base,
        base_node: a.base_node,
        top: a.top,
        top_node: a.top_node,
        backing_file: a.backing_file,
    };
    with_jobs(cx, |g| g.block_commit(&o, &j))
}

fn mirror_sync(s: MirrorSyncMode) -> QResult<MirrorSync> {
    match s {
        MirrorSyncMode::Full => Ok(MirrorSync::Full),
        MirrorSyncMode::Top => Ok(MirrorSync::Top),
        MirrorSyncMode::None => Ok(MirrorSync::None),
        other => Err(qerr!("Sync mode '{}' not supported", other.as_str())),
    }
}

fn copy_mode(m: Option<MirrorCopyMode>) -> QResult<()> {
    match m {
        Some(MirrorCopyMode::WriteBlocking) => Err(qerr!("Copy mode 'write-blocking' is not supported")),
        _ => Ok(()),
    }
}

pub(crate) fn blockdev_mirror(cx: &mut MonitorCx<'_, '_>, a: BlockdevMirror) -> QResult<()> {
    policy(a.on_source_error)?;
    policy(a.on_target_error)?;
    copy_mode(a.copy_mode)?;
    refuse(&[(a.filter_node_name.is_some(), "filter-node-name"), (a.buf_size.is_some(), "buf-size")])?;
    let j = job(cx, a.job_id, &a.device, a.speed, (a.auto_finalize, a.auto_dismiss))?;
    let o = MirrorOpts {
        device: a.device,
        target: a.target,
        sync: mirror_sync(a.sync)?,
        granularity: a.granularity.filter(|g| *g != 0).map(u64::from),
        adopt_backing: false,
        replaces: a.replaces,
    };
    with_jobs(cx, |g| g.blockdev_mirror(&o, &j))
}

pub(crate) fn drive_mirror(cx: &mut MonitorCx<'_, '_>, a: DriveMirror) -> QResult<()> {
    policy(a.on_source_error)?;
    policy(a.on_target_error)?;
    copy_mode(a.copy_mode)?;
    refuse(&[(a.buf_size.is_some(), "buf-size"), (a.unmap == Some(false), "unmap")])?;
    let j = job(cx, a.job_id, &a.device, a.speed, (a.auto_finalize, a.auto_dismiss))?;
    let existing = a.mode == Some(NewImageMode::Existing);
    let sync = mirror_sync(a.sync)?;
    with_jobs(cx, |g| {
        let source = g.device_or_node(&a.device)?;
        let backing = match sync {
            MirrorSync::Top => source.backing(),
            MirrorSync::None => Some(source.clone()),
            _ => None,
        };
        let adopt = sync == MirrorSync::Top && !existing;
        let open = backing.as_ref().filter(|_| !adopt);
        let named = backing.as_ref();
        let t = Target {
            file: &a.target,
            format: a.format.as_deref(),
            existing,
            named,
            backing: open,
            node_name: a.node_name.as_deref(),
        };
        let (node, made) = g.open_target(&t, &source)?;
        print_made(made);
        let o = MirrorOpts {
            device: a.device.clone(),
            target: node.name().to_owned(),
            sync,
            granularity: a.granularity.filter(|g| *g != 0).map(u64::from),
            adopt_backing: adopt,
            replaces: a.replaces.clone(),
        };
        g.blockdev_mirror(&o, &j)
    })
}

/// What QEMU says about an image that it makes goes to stdout.
pub(super) fn print_made(made: Option<String>) {
    if let Some(text) = made {
        use std::io::Write;
        // Nobody to tell if that fails.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

fn backup(
    device: String,
    target: String,
    sync: MirrorSyncMode,
    bitmap: (Option<String>, Option<BitmapSyncMode>),
    compress: Option<bool>,
) -> BackupOpts {
    BackupOpts {
        device,
        target,
        sync: sync.as_str().into(),
        bitmap: bitmap.0,
        bitmap_mode: bitmap.1.map(|m| m.as_str().to_owned()),
        compress: compress == Some(true),
    }
}

pub(crate) fn blockdev_backup(cx: &mut MonitorCx<'_, '_>, a: BlockdevBackup) -> QResult<()> {
    policy(a.on_source_error)?;
    policy(a.on_target_error)?;
    refuse(&[(a.filter_node_name.is_some(), "filter-node-name"), (a.x_perf.is_some(), "x-perf")])?;
    let j = job(cx, a.job_id, &a.device, a.speed, (a.auto_finalize, a.auto_dismiss))?;
    let o = backup(a.device, a.target, a.sync, (a.bitmap, a.bitmap_mode), a.compress);
    with_jobs(cx, |g| g.blockdev_backup(&o, &j))
}

pub(crate) fn drive_backup(cx: &mut MonitorCx<'_, '_>, a: DriveBackup) -> QResult<()> {
    policy(a.on_source_error)?;
    policy(a.on_target_error)?;
    refuse(&[(a.filter_node_name.is_some(), "filter-node-name"), (a.x_perf.is_some(), "x-perf")])?;
    let j = job(cx, a.job_id, &a.device, a.speed, (a.auto_finalize, a.auto_dismiss))?;
    let existing = a.mode == Some(NewImageMode::Existing);
    with_jobs(cx, |g| {
        let source = g.device_or_node(&a.device)?;
        let backing = match a.sync {
            MirrorSyncMode::Top => source.backing(),
            MirrorSyncMode::None => Some(source.clone()),
            _ => None,
        };
        let t = Target {
            file: &a.target,
            format: a.format.as_deref(),
            existing,
            named: backing.as_ref(),
            backing: backing.as_ref(),
            node_name: None,
        };
        let (node, made) = g.open_target(&t, &source)?;
        print_made(made);
        let o = backup(
            a.device.clone(),
            node.name().to_owned(),
            a.sync,
            (a.bitmap.clone(), a.bitmap_mode),
            a.compress,
        );
        g.blockdev_backup(&o, &j)
    })
}

pub(super) fn blockdev_create(cx: &mut MonitorCx<'_, '_>, a: BlockdevCreate) -> QResult<()> {
    with_jobs(cx, |g| g.blockdev_create(&a.job_id, a.options))
}

pub(crate) fn verb(cx: &mut MonitorCx<'_, '_>, id: &str, v: Verb, block: bool) -> QResult<()> {
    with_jobs(cx, |g| g.job_command(id, v, block))
}

pub(crate) fn block_job_cancel(cx: &mut MonitorCx<'_, '_>, a: BlockJobCancel) -> QResult<()> {
    verb(cx, &a.device, Verb::Cancel { force: a.force == Some(true) }, true)
}

pub(crate) fn block_job_set_speed(cx: &mut MonitorCx<'_, '_>, a: BlockJobSetSpeed) -> QResult<()> {
    let speed =
        u64::try_from(a.speed).map_err(|_| qerr!("Parameter 'speed' expects a non-negative value"))?;
    verb(cx, &a.device, Verb::SetSpeed(speed), true)
}

macro_rules! verbs {
    ($($vis:vis $name:ident($arg:ident: $ty:ty, $block:literal) => $v:expr;)*) => {$(
        $vis fn $name(cx: &mut MonitorCx<'_, '_>, a: $ty) -> QResult<()> {
            verb(cx, &a.$arg, $v, $block)
        }
    )*};
}

verbs! {
    pub(crate) block_job_pause(device: JobDevice, true) => Verb::Pause;
    pub(crate) block_job_resume(device: JobDevice, true) => Verb::Resume;
    pub(crate) block_job_complete(device: JobDevice, true) => Verb::Complete;
    pub(super) block_job_finalize(id: JobId, true) => Verb::Finalize;
    pub(super) block_job_dismiss(id: JobId, true) => Verb::Dismiss;
    pub(super) job_pause(id: JobId, false) => Verb::Pause;
    pub(super) job_resume(id: JobId, false) => Verb::Resume;
    pub(super) job_complete(id: JobId, false) => Verb::Complete;
    pub(super) job_finalize(id: JobId, false) => Verb::Finalize;
    pub(super) job_dismiss(id: JobId, false) => Verb::Dismiss;
    pub(super) job_cancel(id: JobId, false) => Verb::Cancel { force: true };
}

pub(crate) fn query_block_jobs(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Made<Vec<BlockJobInfo>>> {
    cx.m.poll_block_jobs();
    Ok(cx.m.block.query_block_jobs().into())
}

pub(super) fn query_jobs(
    cx: &mut MonitorCx<'_, '_>,
    _: Empty,
) -> QResult<Made<Vec<super::machine::JobInfo>>> {
    cx.m.poll_block_jobs();
    Ok(cx.m.block.query_jobs().into())
}
