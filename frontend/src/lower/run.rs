//! How the process runs.

use rqemu_machine::spec::schema;
use rqemu_machine::spec::visit::{self, Mode};
use rqemu_machine::spec::{
    size, text, AddFdSpec, Elevate, IcountSpec, Loc, PanicAction, SandboxSpec, WatchdogAction, Word,
};
use rqemu_machine::{qerr, QResult};

use super::device::plain;
use super::{at, is_help, Arg, Cx, Res, Stop};
use crate::groups;
use crate::opts::Opts;
use crate::{grammar, help, keyval, HelpRequest};

/// `-h`, `-help`.
pub fn help(_: &mut Cx, _: &Arg<'_>) -> Res {
    Err(Stop::Text(help::text(), 0))
}

/// `-version`.
pub fn version(_: &mut Cx, _: &Arg<'_>) -> Res {
    Err(Stop::Text(help::version(), 0))
}

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident => $($field:ident).+ ;)*) => {
        $($(#[$doc])*
        pub fn $name(cx: &mut Cx, _: &Arg<'_>) -> Res {
            cx.$($field).+ = true;
            Ok(())
        })*
    };
}

switches! {
    /// `-S`.
    start_stopped => spec.run.start_stopped;
    /// `-preconfig`.
    preconfig => spec.run.preconfig;
    /// `-daemonize`.
    daemonize => spec.run.daemonize;
    /// `-no-reboot`.
    no_reboot => spec.run.action.reboot_is_shutdown;
    /// `-no-shutdown`.
    no_shutdown => spec.run.action.shutdown_pauses;
    /// `-only-migratable`.
    only_migratable => spec.run.only_migratable;
    /// `-singlestep`.
    singlestep => spec.run.singlestep;
    /// `-async-teardown`.
    async_teardown => spec.run.async_teardown;
    /// `-win2k-hack`.
    win2k_hack => spec.run.win2k_hack;
    /// `-nodefaults`.
    nodefaults => late.nodefaults;
}

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident => $($field:ident).+ ;)*) => {
        $($(#[$doc])*
        pub fn $name(cx: &mut Cx, arg: &Arg<'_>) -> Res {
            cx.$($field).+ = Some(arg.value.to_string());
            Ok(())
        })*
    };
}

texts! {
    /// `-pidfile`.
    pidfile => spec.run.pidfile;
    /// `-loadvm`.
    loadvm => spec.run.loadvm;
    /// `-chroot`.
    chroot => spec.run.chroot;
    /// `-qtest-log`.
    qtest_log => spec.run.qtest_log;
    /// `-D`.
    log_file => spec.run.log.file;
}

fn word(arg: &Arg<'_>) -> Option<Word> {
    Some(Word { text: arg.value.to_string(), loc: arg.loc.clone() })
}

/// `-incoming`.
pub fn incoming(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.run.incoming = word(arg);
    Ok(())
}

/// `-runas`.
pub fn runas(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    at(&arg.loc, rqemu_machine::process::user_ids(arg.value))?;
    cx.spec.run.runas = word(arg);
    Ok(())
}

/// `-dump-vmstate`.
pub fn dump_vmstate(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.run.dump_vmstate = word(arg);
    Ok(())
}

/// `-no-user-config`: there is no default configuration file anyway.
pub fn no_user_config(_: &mut Cx, _: &Arg<'_>) -> Res {
    Ok(())
}

/// `-watchdog-action X` is `-action watchdog=X`.
pub fn watchdog_action(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let mut opts = Opts::new(&groups::ACTION, arg.loc.clone());
    opts.items.push(("watchdog".into(), arg.value.into()));
    action(cx, &opts)
}

/// `-action`.
pub fn action(cx: &mut Cx, opts: &Opts) -> Res {
    let action = &mut cx.spec.run.action;
    for (key, value) in &opts.items {
        match (key.as_str(), value.as_str()) {
            ("reboot", "reset") => action.reboot_is_shutdown = false,
            ("reboot", "shutdown") => action.reboot_is_shutdown = true,
            ("shutdown", "poweroff") => action.shutdown_pauses = false,
            ("shutdown", "pause") => action.shutdown_pauses = true,
            ("panic", "pause") => action.panic = PanicAction::Pause,
            ("panic", "shutdown") => action.panic = PanicAction::Shutdown,
            ("panic", "exit-failure") => action.panic = PanicAction::ExitFailure,
            ("panic", "none") => action.panic = PanicAction::None,
            ("watchdog", "reset") => action.watchdog = WatchdogAction::Reset,
            ("watchdog", "shutdown") => action.watchdog = WatchdogAction::Shutdown,
            ("watchdog", "poweroff") => action.watchdog = WatchdogAction::Poweroff,
            ("watchdog", "pause") => action.watchdog = WatchdogAction::Pause,
            ("watchdog", "debug") => action.watchdog = WatchdogAction::Debug,
            ("watchdog", "none") => action.watchdog = WatchdogAction::None,
            ("watchdog", "inject-nmi") => action.watchdog = WatchdogAction::InjectNmi,
            _ => {
                let err = qerr!("Parameter '{key}' does not accept value '{value}'");
                return Err(Stop::error(&opts.loc, err));
            }
        }
    }
    Ok(())
}

/// `-add-fd`.
pub fn add_fd(cx: &mut Cx, opts: &Opts) -> Res {
    let spec = at(&opts.loc, add_fd_spec(opts))?;
    cx.spec.run.fds.push(spec);
    Ok(())
}

fn add_fd_spec(opts: &Opts) -> QResult<AddFdSpec> {
    let fd = opts.number("fd")?.map(|v| v as i32).unwrap_or(-1);
    if fd < 0 {
        return Err(qerr!("fd option is required and must be non-negative"));
    }
    if fd <= 2 {
        return Err(qerr!("fd cannot be a standard I/O stream"));
    }
    if !open_fd(fd) {
        return Err(qerr!("fd is not valid or already in use"));
    }
    let set = opts.number("set")?.map(|v| v as i64).unwrap_or(-1);
    if set < 0 {
        return Err(qerr!("set option is required and must be non-negative"));
    }
    Ok(AddFdSpec { fd, set, opaque: opts.string("opaque"), loc: opts.loc.clone() })
}

/// True for a descriptor that this process inherited.
fn open_fd(fd: i32) -> bool {
    std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok()
}

/// `-msg`, at once: it changes how errors of later options look.
pub fn msg(cx: &mut Cx, opts: &Opts) -> Res {
    if let Some(on) = at(&opts.loc, opts.bool("timestamp"))? {
        cx.spec.run.msg_timestamp = on;
    }
    if let Some(on) = at(&opts.loc, opts.bool("guest-name"))? {
        cx.spec.run.msg_guest_name = on;
    }
    Ok(())
}

/// `-overcommit`.
pub fn overcommit(cx: &mut Cx, opts: &Opts) -> Res {
    let run = &mut cx.spec.run;
    run.mem_lock = at(&opts.loc, opts.bool("mem-lock"))?.unwrap_or(run.mem_lock);
    run.cpu_pm = at(&opts.loc, opts.bool("cpu-pm"))?.unwrap_or(run.cpu_pm);
    Ok(())
}

/// `-echr`: a number in C notation; what is no number counts as 0, as in QEMU.
pub fn echr(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.run.escape_char = Some(size::parse_i64(arg.value).unwrap_or(0) as u8);
    Ok(())
}

/// `-seed`.
pub fn seed(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let seed = size::parse_u64(arg.value).filter(|_| !arg.value.contains('-'));
    let seed = seed.ok_or_else(|| qerr!("Invalid seed number: {}", arg.value));
    cx.spec.run.seed = Some(at(&arg.loc, seed)?);
    Ok(())
}

/// `-compat`: only the default policy is kept.
pub fn compat(_: &mut Cx, arg: &Arg<'_>) -> Res {
    let dict = at(&arg.loc, keyval::parse_no_help(arg.value, None))?;
    let policy = at(&arg.loc, visit::check(dict, &schema::COMPAT, Mode::Keyval))?;
    let other = policy.iter().find(|(_, v)| v.as_str() != Some("accept")).map(|(key, _)| key.to_string());
    match other {
        None => Ok(()),
        Some(key) => Err(Stop::error(&arg.loc, qerr!("rqemu supports '{key}=accept' only"))),
    }
}

/// Items of `-d` and what they log.
pub const LOG_ITEMS: &[(&str, &str)] = &[
    ("out_asm", "host code made from each translated block"),
    ("in_asm", "guest code of each translated block"),
    ("op", "intermediate operations of each block"),
    ("op_opt", "the same after optimization"),
    ("op_ind", "the same before indirect accesses are resolved"),
    ("int", "interrupts and exceptions"),
    ("exec", "each block as it is run (very long)"),
    ("cpu", "CPU registers before each block"),
    ("fpu", "FPU registers too with 'cpu'"),
    ("mmu", "events of the MMU"),
    ("pcall", "protected mode far calls, returns and exceptions (x86)"),
    ("cpu_reset", "CPU state before a reset"),
    ("unimp", "functions that are not implemented"),
    ("guest_errors", "what the guest does wrong"),
    ("page", "memory pages at start"),
    ("nochain", "run blocks unchained, so that 'exec' and 'cpu' are complete"),
    ("strace", "system calls (user mode only)"),
    ("tid", "one log file a thread"),
    ("vpu", "vector registers too with 'cpu'"),
    ("plugin", "output of plugins"),
];

/// `-d`.
pub fn log_items(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    for item in arg.value.split(',') {
        let known = item == "all" || item.starts_with("trace:") || LOG_ITEMS.iter().any(|(n, _)| *n == item);
        if is_help(item) || !known {
            return Err(Stop::Help(HelpRequest::Log));
        }
        if let Some(event) = item.strip_prefix("trace:") {
            no_event(cx, &Loc::NONE, event);
            continue;
        }
        cx.spec.run.log.items.push(item.to_string());
    }
    Ok(())
}

/// `-dfilter`.
pub fn log_ranges(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let ranges = at(&arg.loc, parse_ranges(arg.value))?;
    cx.spec.run.log.ranges.extend(ranges);
    Ok(())
}

fn parse_ranges(text: &str) -> QResult<Vec<(u64, u64)>> {
    let spans = grammar::spans(text).ok_or_else(|| qerr!("Bad range specifier"))?;
    spans
        .into_iter()
        .map(|[left, op, right]| {
            let a = size::parse_u64(left).ok_or_else(|| qerr!("Invalid number to the left of {op}"))?;
            let b = size::parse_u64(right).ok_or_else(|| qerr!("Invalid number to the right of {op}"))?;
            let (low, high) = match op {
                "+" => (Some(a), b.checked_sub(1).and_then(|n| a.checked_add(n))),
                "-" => (b.checked_sub(1).and_then(|n| a.checked_sub(n)), Some(a)),
                _ => (Some(a), Some(b)),
            };
            match (low, high) {
                (Some(low), Some(high)) if low <= high => Ok((low, high)),
                _ => Err(qerr!("Invalid range")),
            }
        })
        .collect()
}

/// `-trace`: this program has no trace events, so each name is unknown.
pub fn trace(cx: &mut Cx, opts: &Opts) -> Res {
    if opts.get("enable").is_some_and(is_help) {
        return Err(Stop::Help(HelpRequest::Trace));
    }
    if let Some(name) = opts.get("enable") {
        no_event(cx, &opts.loc, name);
    }
    if let Some(path) = opts.get("events") {
        let text = std::fs::read_to_string(text::to_path(path)).map_err(|e| {
            let loc = Loc::file(path, 0);
            Stop::error(&loc, qerr!("{}", rqemu_machine::error::strerror(&e)))
        })?;
        for name in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            no_event(cx, &opts.loc, name);
        }
    }
    Ok(())
}

fn no_event(cx: &mut Cx, loc: &Loc, name: &str) {
    cx.warn(loc, format!("trace event '{}' does not exist", name.trim_start_matches('-')));
}

/// `-sandbox`, `-icount`, and options that exclude each other.
pub fn process(cx: &mut Cx) -> Res {
    let run = &cx.spec.run;
    let exclusive = |a: &str, b: &str| {
        Err(Stop::error(&Loc::NONE, qerr!("'{a}' and '{b}' options are mutually exclusive")))
    };
    if run.loadvm.is_some() && run.incoming.is_some() {
        return exclusive("incoming", "loadvm");
    }
    if run.loadvm.is_some() && run.preconfig {
        return exclusive("preconfig", "loadvm");
    }
    if run.preconfig && run.incoming.as_ref().is_some_and(|i| i.text != "defer") {
        return Err(Stop::error(&Loc::NONE, qerr!("'preconfig' supports '-incoming defer' only")));
    }
    if let Some(opts) = cx.take_merged(&groups::SANDBOX) {
        cx.spec.run.sandbox = at(&opts.loc, sandbox(&opts))?;
    }
    let iscsi = cx.take(&groups::ISCSI).into_iter().map(plain).collect();
    cx.spec.iscsi = iscsi;
    Ok(())
}

/// `-icount`.
pub fn icount_option(cx: &mut Cx) -> Res {
    if let Some(opts) = cx.take_merged(&groups::ICOUNT) {
        cx.spec.run.icount = at(&opts.loc, icount(&opts))?;
    }
    Ok(())
}

fn sandbox(opts: &Opts) -> QResult<Option<SandboxSpec>> {
    if opts.bool("enable")? != Some(true) {
        return Ok(None);
    }
    let deny = |key: &str, default| match opts.get(key) {
        None => Ok(default),
        Some("allow") => Ok(false),
        Some("deny") => Ok(true),
        Some(_) => Err(qerr!("invalid argument for {key}")),
    };
    let elevate = match opts.get("elevateprivileges") {
        None | Some("allow") => Elevate::Allow,
        Some("deny") => Elevate::Deny,
        Some("children") => Elevate::Children,
        Some(_) => return Err(qerr!("invalid argument for elevateprivileges")),
    };
    Ok(Some(SandboxSpec {
        deny_obsolete: deny("obsolete", true)?,
        elevate,
        deny_spawn: deny("spawn", false)?,
        deny_resource_control: deny("resourcecontrol", false)?,
    }))
}

/// Largest `shift`.
const MAX_SHIFT: u64 = 10;

fn icount(opts: &Opts) -> QResult<Option<IcountSpec>> {
    let align = opts.bool("align")?.unwrap_or(false);
    let sleep = opts.bool("sleep")?.unwrap_or(true);
    let rr = match opts.get("rr") {
        None => None,
        Some("record" | "replay") => {
            let mode = opts.string("rr").unwrap_or_default();
            let Some(file) = opts.string("rrfile") else {
                return Err(qerr!("File name not specified for replay"));
            };
            Some((mode, file, opts.string("rrsnapshot")))
        }
        Some(other) => return Err(qerr!("Invalid icount rr option: {other}")),
    };
    let Some(text) = opts.get("shift") else {
        return if align { Err(qerr!("Please specify shift option when using align")) } else { Ok(None) };
    };
    let shift = match text {
        "auto" => None,
        _ => match size::parse_u64(text).filter(|v| *v <= MAX_SHIFT) {
            Some(v) => Some(v as u8),
            None => return Err(qerr!("icount: Invalid shift value")),
        },
    };
    if align && !sleep {
        return Err(qerr!("align=on and sleep=off are incompatible"));
    }
    Ok(Some(IcountSpec { shift, align, sleep, rr }))
}

/// `-name`.
pub fn name(cx: &mut Cx) -> Res {
    if let Some(opts) = cx.take_merged(&groups::NAME) {
        let name = &mut cx.spec.name;
        name.guest = opts.string("guest");
        name.process = opts.string("process");
        name.debug_threads = at(&opts.loc, opts.bool("debug-threads"))?.unwrap_or(false);
    }
    Ok(())
}
