//! What the host and this build offer, and texts that QMP's `x-query-…` give.

use crate::commands::{dump, host, migrate, nmi, stats, text};
use crate::hmp::{Args, HmpCx};
use crate::monitors::MonitorCx;
use crate::types::Empty;
use rqemu_machine::accel::stats::{Stat, StatKind, StatUnit};
use rqemu_machine::{qerr, QResult};
use std::fmt::Write;

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

/// Prints what replay has to say; its errors stand alone.
fn replayed(h: &mut HmpCx<'_, '_, '_>, result: QResult<()>) {
    if let Err(e) = result {
        h.line(e.desc);
    }
}

pub(super) fn replay_break(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = host::replay_break(h.cx, host::ReplayPosition { icount: args.int("icount") });
    replayed(h, result);
}

pub(super) fn replay_delete_break(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let result = host::replay_delete_break(h.cx, Empty);
    replayed(h, result);
}

pub(super) fn replay_seek(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = host::replay_seek(h.cx, host::ReplayPosition { icount: args.int("icount") });
    replayed(h, result);
}

pub(super) fn dump(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let Ok(d) = dump::query_dump(h.cx, Empty) else { return };
    h.line(format!("Status: {}", d.status.as_str()));
}

pub(super) fn dump_guest_memory(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    use dump::DumpGuestMemoryFormat as F;
    let formats: Vec<F> =
        [("-z", F::KdumpZlib), ("-l", F::KdumpLzo), ("-s", F::KdumpSnappy), ("-w", F::WinDmp)]
            .into_iter()
            .filter(|(flag, _)| args.flag(flag))
            .map(|(_, format)| format)
            .collect();
    if formats.len() > 1 {
        h.report::<()>(Err(qerr!("only one of '-z|-l|-s|-w' can be set")));
        return;
    }
    let a = dump::DumpGuestMemory {
        paging: args.flag("-p"),
        protocol: format!("file:{}", args.str("filename")),
        detach: Some(args.flag("-d")),
        begin: args.opt_int("begin"),
        length: args.opt_int("length"),
        format: formats.first().copied(),
    };
    let result = dump::dump_guest_memory(h.cx, a);
    h.report(result);
}

/// Why the state of the machine cannot be saved or loaded.
fn no_snapshots(h: &mut HmpCx<'_, '_, '_>) -> rqemu_machine::QError {
    let storage = h.cx.m.tree.iter().any(|d| d.props.get_prop("drive").is_some_and(|p| !p.text.is_empty()));
    if storage {
        qerr!("State blocked by non-migratable device '/machine'")
    } else {
        qerr!("no block device can store vmstate for snapshot")
    }
}

pub(super) fn savevm(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let e = no_snapshots(h);
    h.report::<()>(Err(e));
}

pub(super) fn loadvm(h: &mut HmpCx<'_, '_, '_>, _: &Args) {
    let e = no_snapshots(h);
    h.report::<()>(Err(e));
}

pub(super) fn stats(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let target = args.str("target");
    let cpu = match target {
        "vm" => None,
        "vcpu" => Some(h.cx.mon.cpu),
        _ => {
            h.line(format!("invalid stats target {target}"));
            return;
        }
    };
    if let Some(p) = args.opt_str("provider").filter(|p| *p != "kvm") {
        h.line(format!("invalid stats provider {p}"));
        return;
    }
    let names: Option<Vec<&str>> =
        args.opt_str("names").filter(|n| *n != "*").map(|n| n.split(',').collect());
    let list: Vec<Stat> = stats::read(h.cx, cpu)
        .into_iter()
        .filter(|s| names.as_ref().is_none_or(|n| n.contains(&s.name.as_str())))
        .collect();
    if args.opt_str("provider").is_none() && !list.is_empty() {
        h.line("provider: kvm");
    }
    for s in list {
        h.line(format!("    {} ({}{}):{}", s.name, kind(s.kind), unit(&s), values(&s)));
    }
}

fn kind(kind: StatKind) -> &'static str {
    match kind {
        StatKind::Cumulative => "cumulative",
        StatKind::Instant => "instant",
        StatKind::Peak => "peak",
        StatKind::LinearHistogram => "linear-histogram",
        StatKind::Log2Histogram => "log2-histogram",
    }
}

/// The unit, with a prefix where the scale has one.
fn unit(s: &Stat) -> String {
    let name = match s.unit {
        StatUnit::None => "",
        StatUnit::Bytes => "B",
        StatUnit::Seconds => "s",
        StatUnit::Cycles => "cycles",
        StatUnit::Boolean => return ", boolean".into(),
    };
    let prefix = match (s.unit, s.base, s.exponent) {
        (_, _, 0) => Some(""),
        (StatUnit::Seconds, 10, -9) => Some("n"),
        (StatUnit::Seconds, 10, -6) => Some("u"),
        (StatUnit::Seconds, 10, -3) => Some("m"),
        (StatUnit::Bytes, 2, 10) => Some("Ki"),
        (StatUnit::Bytes, 2, 20) => Some("Mi"),
        (StatUnit::Bytes, 2, 30) => Some("Gi"),
        _ => None,
    };
    match prefix {
        Some(_) if name.is_empty() => String::new(),
        Some(p) => format!(", {p}{name}"),
        None => format!(", * {}^{}{}{name}", s.base, s.exponent, if name.is_empty() { "" } else { " " }),
    }
}

fn values(s: &Stat) -> String {
    match (s.values.as_slice(), s.unit) {
        ([v], StatUnit::Boolean) => format!(" {}", if *v != 0 { "yes" } else { "no" }),
        ([v], _) => format!(" {v}"),
        (list, _) => {
            let mut out = String::from(" ");
            for (i, v) in list.iter().enumerate() {
                let _ = match s.kind {
                    StatKind::LinearHistogram => {
                        let width = u64::from(s.bucket_size);
                        write!(out, "[{}-{}]={v} ", i as u64 * width, (i as u64 + 1) * width)
                    }
                    _ => write!(out, "[{}]={v} ", i + 1),
                };
            }
            out
        }
    }
}

pub(super) fn dumpdtb(h: &mut HmpCx<'_, '_, '_>, args: &Args) {
    let result = host::dumpdtb(h.cx, host::Dumpdtb { filename: args.str("filename").into() });
    h.report(result);
}
