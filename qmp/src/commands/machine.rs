//! Facts about the machine.

use crate::monitors::MonitorCx;
use crate::qapi_enum;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::boards::MACHINES;
use rqemu_machine::QResult;

qapi_enum! {
    /// Architectures.
    pub enum SysEmuTarget {
        Aarch64 = "aarch64",
        Alpha = "alpha",
        Arm = "arm",
        Avr = "avr",
        Cris = "cris",
        Hppa = "hppa",
        I386 = "i386",
        Loongarch64 = "loongarch64",
        M68k = "m68k",
        Microblaze = "microblaze",
        Microblazeel = "microblazeel",
        Mips = "mips",
        Mips64 = "mips64",
        Mips64el = "mips64el",
        Mipsel = "mipsel",
        Nios2 = "nios2",
        Or1k = "or1k",
        Ppc = "ppc",
        Ppc64 = "ppc64",
        Riscv32 = "riscv32",
        Riscv64 = "riscv64",
        Rx = "rx",
        S390x = "s390x",
        Sh4 = "sh4",
        Sh4eb = "sh4eb",
        Sparc = "sparc",
        Sparc64 = "sparc64",
        Tricore = "tricore",
        X8664 = "x86_64",
        Xtensa = "xtensa",
        Xtensaeb = "xtensaeb",
    }
}

qapi_enum! {
    /// Kinds of jobs.
    pub enum JobType {
        Commit = "commit",
        Stream = "stream",
        Mirror = "mirror",
        Backup = "backup",
        Create = "create",
        Amend = "amend",
        SnapshotLoad = "snapshot-load",
        SnapshotSave = "snapshot-save",
        SnapshotDelete = "snapshot-delete",
    }
    /// States of jobs.
    pub enum JobStatus {
        Undefined = "undefined",
        Created = "created",
        Running = "running",
        Paused = "paused",
        Ready = "ready",
        Standby = "standby",
        Waiting = "waiting",
        Pending = "pending",
        Aborting = "aborting",
        Concluded = "concluded",
        Null = "null",
    }
    /// How requests fare.
    pub enum BlockDeviceIoStatus {
        Ok = "ok",
        Failed = "failed",
        Nospace = "nospace",
    }
}

qapi_struct! {
    /// Reply of `query-name`.
    pub struct NameInfo {
        /// Name of the guest.
        name: Option<String>,
    }
    /// Reply of `query-uuid`.
    pub struct UuidInfo {
        /// UUID of the guest.
        uuid as "UUID": String,
    }
    /// Reply of `query-kvm`.
    pub struct KvmInfo {
        /// KVM runs the guest.
        enabled: bool,
        /// KVM is there.
        present: bool,
    }
    /// Reply of `query-target`.
    pub struct TargetInfo {
        /// Architecture.
        arch: SysEmuTarget,
    }
    /// Reply of `query-current-machine`.
    pub struct CurrentMachineParams {
        /// The machine can wake up from suspend.
        wakeup_suspend_support: bool,
    }
    /// Element of `query-iothreads`.
    pub struct IOThreadInfo {
        /// Id.
        id: String,
        /// Host thread.
        thread_id: i64,
        /// Longest time to look for work before it sleeps, in nanoseconds.
        poll_max_ns: i64,
        /// How that time grows.
        poll_grow: i64,
        /// How it shrinks.
        poll_shrink: i64,
        /// Most requests that go to the kernel at once.
        aio_max_batch: i64,
    }
    /// Element of `query-jobs`.
    pub struct JobInfo {
        /// Id.
        id: String,
        /// Kind.
        type_ as "type": JobType,
        /// State.
        status: JobStatus,
        /// Work done.
        current_progress: i64,
        /// Work in all.
        total_progress: i64,
        /// Why it failed.
        error: Option<String>,
    }
    /// Element of `query-machines`.
    pub struct MachineInfo {
        /// Name.
        name: String,
        /// Short name.
        alias: Option<String>,
        /// It is the default.
        is_default: Option<bool>,
        /// Most CPUs.
        cpu_max: i64,
        /// CPUs can be plugged.
        hotpluggable_cpus: bool,
        /// NUMA nodes may be given by size.
        numa_mem_supported: bool,
        /// It will go away.
        deprecated: bool,
        /// CPU type when none is asked for.
        default_cpu_type: Option<String>,
        /// Name of the main memory backend.
        default_ram_id: Option<String>,
    }
}

pub(super) fn query_name(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<NameInfo> {
    Ok(NameInfo { name: cx.m.info.name.clone() })
}

/// The guest's UUID as text.
pub(crate) fn uuid_text(cx: &MonitorCx<'_, '_>) -> String {
    let mut out = String::new();
    for (i, b) in cx.m.info.uuid.unwrap_or_default().iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        out.push_str(&format!("{b:02x}"));
    }
    out
}

pub(super) fn query_uuid(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<UuidInfo> {
    Ok(UuidInfo { uuid: uuid_text(cx) })
}

pub(crate) fn query_kvm(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<KvmInfo> {
    Ok(KvmInfo { enabled: cx.m.accel.name() == "kvm", present: true })
}

pub(super) fn query_target(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<TargetInfo> {
    Ok(TargetInfo { arch: SysEmuTarget::X8664 })
}

pub(super) fn query_current_machine(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<CurrentMachineParams> {
    Ok(CurrentMachineParams { wakeup_suspend_support: can_suspend(cx) })
}

/// Whether the board has power management registers from which the guest suspends.
pub(super) fn can_suspend(cx: &MonitorCx<'_, '_>) -> bool {
    cx.m.tree.iter().any(|d| matches!(d.class.name, "PIIX4_PM" | "ICH9-LPC"))
}

pub(super) fn query_machines(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<MachineInfo>> {
    let one = |m: &&'static rqemu_machine::boards::MachineType| MachineInfo {
        name: m.name.into(),
        alias: m.alias.map(Into::into),
        is_default: m.is_default.then_some(true),
        cpu_max: m.max_cpus.into(),
        hotpluggable_cpus: m.hotpluggable_cpus,
        numa_mem_supported: m.numa_mem_supported,
        deprecated: false,
        default_cpu_type: m.default_cpu.map(|c| format!("{c}-x86_64-cpu")),
        default_ram_id: m.default_ram_id.map(Into::into),
    };
    Ok(MACHINES.iter().map(one).collect())
}

pub(crate) fn query_iothreads(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<IOThreadInfo>> {
    let one = |t: rqemu_machine::objects::IothreadInfo| IOThreadInfo {
        id: t.id,
        thread_id: t.thread_id.into(),
        poll_max_ns: t.poll_max_ns,
        poll_grow: t.poll_grow,
        poll_shrink: t.poll_shrink,
        aio_max_batch: t.aio_max_batch,
    };
    Ok(cx.m.iothread_info().into_iter().map(one).collect())
}
