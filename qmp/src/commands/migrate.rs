//! Capabilities of migration.

use crate::monitors::MonitorCx;
use crate::types::Empty;
use crate::{qapi_enum, qapi_struct};
use rqemu_machine::{qerr, QResult};

qapi_enum! {
    /// What migration may be asked to do.
    pub enum MigrationCapability {
        Xbzrle = "xbzrle",
        RdmaPinAll = "rdma-pin-all",
        AutoConverge = "auto-converge",
        ZeroBlocks = "zero-blocks",
        Compress = "compress",
        Events = "events",
        PostcopyRam = "postcopy-ram",
        XColo = "x-colo",
        ReleaseRam = "release-ram",
        Block = "block",
        ReturnPath = "return-path",
        PauseBeforeSwitchover = "pause-before-switchover",
        Multifd = "multifd",
        DirtyBitmaps = "dirty-bitmaps",
        PostcopyBlocktime = "postcopy-blocktime",
        LateBlockActivate = "late-block-activate",
        XIgnoreShared = "x-ignore-shared",
        ValidateUuid = "validate-uuid",
        BackgroundSnapshot = "background-snapshot",
        ZeroCopySend = "zero-copy-send",
        PostcopyPreempt = "postcopy-preempt",
    }
}

qapi_struct! {
    /// A capability and its state.
    pub struct MigrationCapabilityStatus {
        /// Capability.
        capability: MigrationCapability,
        /// It is on.
        state: bool,
    }
    /// Arguments of `migrate-set-capabilities`.
    pub struct MigrateSetCapabilities {
        /// What to change.
        capabilities: Vec<MigrationCapabilityStatus>,
    }
}

pub(crate) fn query_migrate_capabilities(
    cx: &mut MonitorCx<'_, '_>,
    _: Empty,
) -> QResult<Vec<MigrationCapabilityStatus>> {
    let state = |c| c == MigrationCapability::Events && cx.m.migration_events;
    let one = |c: &MigrationCapability| MigrationCapabilityStatus { capability: *c, state: state(*c) };
    Ok(MigrationCapability::ALL.iter().map(one).collect())
}

/// Only what this program does can be switched on.
pub(crate) fn migrate_set_capabilities(
    cx: &mut MonitorCx<'_, '_>,
    args: MigrateSetCapabilities,
) -> QResult<()> {
    let refused = |c: &&MigrationCapabilityStatus| c.state && c.capability != MigrationCapability::Events;
    if let Some(c) = args.capabilities.iter().find(refused) {
        return Err(qerr!("Migration capability '{}' is not supported", c.capability.as_str()));
    }
    for c in args.capabilities {
        if c.capability == MigrationCapability::Events {
            cx.m.migration_events = c.state;
        }
    }
    Ok(())
}
