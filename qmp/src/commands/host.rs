//! What the host and this build offer: encryption of memory, TPM, dumps, replay; and what connections can be cut.

use crate::monitors::MonitorCx;
use crate::types::{structure, Checked, Describe, Empty, Made, Schema, SpecType};
use crate::{qapi_enum, qapi_struct, qapi_union};
use rqemu_machine::spec::schema::{self, Struct};
use rqemu_machine::{qerr, ErrorClass, QError, QResult};

qapi_enum! {
    /// State of a guest with encrypted memory.
    pub enum SevState {
        Uninit = "uninit",
        LaunchUpdate = "launch-update",
        LaunchSecret = "launch-secret",
        Running = "running",
        SendUpdate = "send-update",
        ReceiveUpdate = "receive-update",
    }
    /// Models of TPM devices.
    pub enum TpmModel {
        Tis = "tpm-tis",
        Crb = "tpm-crb",
        Spapr = "tpm-spapr",
    }
    /// Kinds of TPM back ends.
    pub enum TpmType {
        Passthrough = "passthrough",
        Emulator = "emulator",
    }
    /// What record and replay does.
    pub enum ReplayMode {
        None = "none",
        Record = "record",
        Play = "play",
    }
    /// Kinds of slots that ACPI reports on.
    pub enum AcpiSlotType {
        Dimm = "DIMM",
        Cpu = "CPU",
    }
}

qapi_struct! {
    /// Reply of `query-sev`.
    pub struct SevInfo {
        /// Memory is encrypted.
        enabled: bool,
        /// Version of the firmware interface.
        api_major: i64,
        /// Version of the firmware interface.
        api_minor: i64,
        /// Build of the firmware.
        build_id: i64,
        /// Policy of the guest.
        policy: i64,
        /// State of the guest.
        state: SevState,
        /// The guest's handle.
        handle: i64,
    }
    /// Reply of `query-sev-capabilities`.
    pub struct SevCapability {
        /// Platform key.
        pdh: String,
        /// Certificates.
        cert_chain: String,
        /// Id of the first processor.
        cpu0_id: String,
        /// Number of the bit that marks encrypted pages.
        cbitpos: i64,
        /// Physical address bits that encryption takes away.
        reduced_phys_bits: i64,
    }
    /// Reply of `query-sev-launch-measure` and of `query-sev-attestation-report`.
    pub struct SevData {
        /// Base64.
        data: String,
    }
    /// Arguments of `query-sev-attestation-report`.
    pub struct SevAttestation {
        /// Base64.
        mnonce: String,
    }
    /// A section of enclave memory.
    pub struct SgxEpcSection {
        /// Node.
        node: i64,
        /// Bytes.
        size: u64,
    }
    /// Reply of `query-sgx` and `query-sgx-capabilities`.
    pub struct SgxInfo {
        /// Enclaves.
        sgx: bool,
        /// First version.
        sgx1: bool,
        /// Second version.
        sgx2: bool,
        /// Launch control.
        flc: bool,
        /// Bytes of all sections.
        section_size: u64,
        /// Sections.
        sections: Vec<SgxEpcSection>,
    }
    /// Where a TPM passthrough device is.
    pub struct TpmPassthroughOptions {
        /// Path.
        path: Option<String>,
        /// Path for cancelling.
        cancel_path: Option<String>,
    }
    /// Where a TPM emulator is.
    pub struct TpmEmulatorOptions {
        /// Character device.
        chardev: String,
    }
    /// Wrapped options.
    pub struct TpmPassthroughData {
        /// Options.
        data: TpmPassthroughOptions,
    }
    /// Wrapped options.
    pub struct TpmEmulatorData {
        /// Options.
        data: TpmEmulatorOptions,
    }
    /// Element of `query-tpm`.
    pub struct TpmInfo {
        /// Id.
        id: String,
        /// Model.
        model: TpmModel,
        /// Back end.
        options: TpmTypeOptions,
    }
    /// Element of `query-pr-managers`.
    pub struct PrManagerInfo {
        /// Id.
        id: String,
        /// Its helper is there.
        connected: bool,
    }
    /// Reply of `query-replay`.
    pub struct ReplayInfo {
        /// Mode.
        mode: ReplayMode,
        /// File.
        filename: Option<String>,
        /// Instructions so far.
        icount: i64,
    }
    /// Arguments of `replay-break` and `replay-seek`.
    pub struct ReplayPosition {
        /// Instruction.
        icount: i64,
    }
    /// Arguments of `dumpdtb`.
    pub struct Dumpdtb {
        /// File.
        filename: String,
    }
    /// Reply of `query-vm-generation-id`.
    pub struct GuidInfo {
        /// The id.
        guid: String,
    }
    /// Element of `query-acpi-ospm-status`, and what `ACPI_DEVICE_OST` tells.
    pub struct AcpiOstInfo {
        /// Id.
        device: Option<String>,
        /// Slot.
        slot: String,
        /// Kind of slot.
        slot_type: AcpiSlotType,
        /// What the guest answers to.
        source: i64,
        /// Its answer.
        status: i64,
    }
    /// Data of `ACPI_DEVICE_OST`.
    pub struct AcpiDeviceOst {
        /// What the guest said.
        info: AcpiOstInfo,
    }
    /// A block node that can be cut off.
    pub struct YankBlockNode {
        /// Node.
        node_name: String,
    }
    /// A character device that can be cut off.
    pub struct YankChardev {
        /// Id.
        id: String,
    }
    /// Arguments of `yank`.
    pub struct Yank {
        /// What to cut off.
        instances: Vec<YankInstance>,
    }
}

qapi_union! {
    /// Options of a TPM back end.
    pub union TpmTypeOptions("type") {
        "passthrough" => Passthrough(TpmPassthroughData),
        "emulator" => Emulator(TpmEmulatorData),
    }
    /// A connection that can be cut off.
    pub union YankInstance("type") {
        "block-node" => BlockNode(YankBlockNode),
        "chardev" => Chardev(YankChardev),
        "migration" => Migration(Empty),
    }
}

pub(crate) fn query_sev(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<SevInfo> {
    Ok(SevInfo {
        enabled: false,
        api_major: 0,
        api_minor: 0,
        build_id: 0,
        policy: 0,
        state: SevState::Uninit,
        handle: 0,
    })
}

fn kvm(cx: &MonitorCx<'_, '_>) -> bool {
    cx.m.accel.name() == "kvm"
}

pub(super) fn query_sev_capabilities(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<SevCapability> {
    Err(if kvm(cx) { qerr!("SEV is not enabled in KVM") } else { qerr!("KVM not enabled") })
}

pub(super) fn query_sev_launch_measure(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<SevData> {
    Err(qerr!("SEV launch measurement is not available"))
}

pub(super) fn query_sev_attestation_report(_: &mut MonitorCx<'_, '_>, _: SevAttestation) -> QResult<SevData> {
    Err(qerr!("SEV is not enabled"))
}

pub(crate) fn query_sgx(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<SgxInfo> {
    let pc = cx.m.board.as_ref().is_some_and(|b| b.kind.name.starts_with("pc-"));
    Err(if pc {
        qerr!("No EPC regions defined, SGX not available")
    } else {
        qerr!("SGX is only supported on PC machines")
    })
}

pub(super) fn query_sgx_capabilities(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<SgxInfo> {
    Err(qerr!("SGX is not enabled in KVM"))
}

/// There are no TPM devices.
pub(super) fn query_tpm(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<TpmInfo>> {
    Ok(Vec::new())
}

pub(super) fn query_tpm_models(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<TpmModel>> {
    Ok(Vec::new())
}

pub(super) fn query_tpm_types(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<TpmType>> {
    Ok(Vec::new())
}

/// There is no class of such objects.
pub(super) fn query_pr_managers(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<PrManagerInfo>> {
    Ok(Vec::new())
}

pub(super) fn query_replay(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<ReplayInfo> {
    Ok(ReplayInfo { mode: ReplayMode::None, filename: None, icount: 0 })
}

pub(crate) fn replay_break(_: &mut MonitorCx<'_, '_>, _: ReplayPosition) -> QResult<()> {
    Err(qerr!("setting the breakpoint is allowed only in play mode"))
}

pub(crate) fn replay_delete_break(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<()> {
    Err(qerr!("replay breakpoints are allowed only in play mode"))
}

pub(crate) fn replay_seek(_: &mut MonitorCx<'_, '_>, _: ReplayPosition) -> QResult<()> {
    Err(qerr!("replay must be enabled to seek"))
}

pub(crate) fn query_vm_generation_id(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<GuidInfo> {
    use rqemu_machine::devices::misc::vmgenid::Vmgenid;
    let dev = cx.m.tree.by_class("vmgenid").map(|d| d.id);
    let guid = dev.and_then(|dev| cx.m.with(dev, |v: &mut Vmgenid, _| v.guid()));
    guid.map(|guid| GuidInfo { guid }).ok_or_else(|| qerr!("VM Generation ID device not found"))
}

/// No memory module or CPU can be plugged whose slot would report.
pub(super) fn query_acpi_ospm_status(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<AcpiOstInfo>> {
    match cx.m.board.as_ref() {
        Some(b) if b.kind.name != "none" => Ok(Vec::new()),
        _ => Err(qerr!("command is not supported, missing ACPI device")),
    }
}

/// Reply of `query-display-options`.
#[derive(Clone, Copy, Debug)]
pub struct DisplayOptions;

impl Describe for DisplayOptions {
    fn describe(schema: &mut Schema) -> String {
        structure(schema, &schema::DISPLAY)
    }
}

/// There is no display but `none`.
pub(super) fn query_display_options(_: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Made<DisplayOptions>> {
    Ok(serde_json::json!({"type": "none"}).into())
}

/// Arguments of `set-numa-node`.
#[derive(Clone, Copy, Debug)]
pub struct NumaOptions;

impl SpecType for NumaOptions {
    const STRUCT: &'static Struct = &schema::NUMA;
}

/// The machine exists when the first command is read.
pub(super) fn set_numa_node(_: &mut MonitorCx<'_, '_>, _: Checked<NumaOptions>) -> QResult<()> {
    Err(qerr!("The command is permitted only before the machine has been created"))
}

pub(super) fn query_yank(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<YankInstance>> {
    let one = |id: String| YankInstance::Chardev(YankChardev { id });
    Ok(cx.m.chardevs.sockets().into_iter().map(one).collect())
}

pub(super) fn yank(cx: &mut MonitorCx<'_, '_>, args: Yank) -> QResult<()> {
    let sockets = cx.m.chardevs.sockets();
    let known = |i: &YankInstance| matches!(i, YankInstance::Chardev(c) if sockets.contains(&c.id));
    if !args.instances.iter().all(known) {
        return Err(QError::new(ErrorClass::DeviceNotFound, "Instance not found"));
    }
    for instance in args.instances {
        if let YankInstance::Chardev(c) = instance {
            cx.m.chr_yank(&c.id);
        }
    }
    Ok(())
}

/// No machine is described by a device tree.
pub(crate) fn dumpdtb(_: &mut MonitorCx<'_, '_>, _: Dumpdtb) -> QResult<()> {
    Err(qerr!("This machine doesn't have a FDT"))
}
