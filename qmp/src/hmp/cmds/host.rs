//! What the host and this build offer, and texts that QMP's `x-query-…` give.

use crate::commands::{host, migrate, nmi, text};
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use crate::types::Empty;
use rqemu_machine::{qerr, QResult};

/// Prints the text of a command, or its error.
fn show(
    h: &mut HmpCx<'_, '_, '_>,
    command: fn(&mut MonitorCx<'_, '_>, Empty) -> QResult<text::HumanReadableText>,
) {
    let result = command(h.cx, Empty);
    if let Some(t) = h.report(result) {
        h.out.push_str(&t.human_readable_text);
    }
}

pub(super) fn irq(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::irq);
}

pub(super) fn jit(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::jit);
}

pub(super) fn numa(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::numa);
}

pub(super) fn opcount(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::opcount);
}

pub(super) fn profile(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::profile);
}

pub(super) fn ramblock(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::ramblock);
}

pub(super) fn rdma(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::rdma);
}

pub(super) fn usb(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    show(h, text::usb);
}

/// Memory modules, TPM devices: there are none to show.
pub(super) fn nothing(_: &mut HmpCx<'_, '_, '_>, _: &Args) {}

pub(super) fn block_jobs(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    h.line("No active jobs");
}

pub(super) fn replay(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    h.line("Record/replay is not active");
}

pub(super) fn sev(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    h.line("SEV is not enabled");
}

pub(super) fn sgx(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    if let Err(e) = host::query_sgx(h.cx, Empty) {
        h.line(e.desc);
    }
}

pub(super) fn vm_generation_id(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = host::query_vm_generation_id(h.cx, Empty);
    if let Some(id) = h.report(result) {
        h.line(id.guid);
    }
}

pub(super) fn migrate_capabilities(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    for c in migrate::query_migrate_capabilities(h.cx, Empty).unwrap_or_default() {
        h.line(format!("{}: {}", c.capability.as_str(), if c.state { "on" } else { "off" }));
    }
}

pub(super) fn migrate_set_capability(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let name = args.str("capability");
    let result = match migrate::MigrationCapability::by_name(name) {
        None => Err(qerr!("invalid parameter value: {name}")),
        Some(capability) => {
            let one = migrate::MigrationCapabilityStatus { capability, state: args.flag("state") };
            migrate::migrate_set_capabilities(
                h.cx,
                migrate::MigrateSetCapabilities { capabilities: vec![one] },
            )
        }
    };
    h.report(result);
}

pub(super) fn exit_preconfig(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    h.report::<()>(Err(qerr!("The command is permitted only before machine initialization")));
}

pub(super) fn inject_nmi(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = nmi::inject_nmi(h.cx, Empty);
    h.report(result);
}

pub(super) fn replay_break(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = host::replay_break(h.cx, host::ReplayPosition { icount: args.int("icount") });
    h.report(result);
}

pub(super) fn replay_delete_break(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = host::replay_delete_break(h.cx, Empty);
    h.report(result);
}

pub(super) fn replay_seek(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = host::replay_seek(h.cx, host::ReplayPosition { icount: args.int("icount") });
    h.report(result);
}
