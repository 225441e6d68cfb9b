//! Drives and block nodes.

use rqemu_machine::spec::value::Value;
use rqemu_machine::spec::{BlockdevSpec, Dict, DriveInterface, DriveSpec, Media, OnError, ThrottleSpec};
use rqemu_machine::{qerr, QResult};

use super::{at, is_help, Arg, Cx, Res, Stop};
use crate::groups;
use crate::opts::Opts;
use crate::{json, keyval, HelpRequest};

/// `-blockdev`.
pub fn blockdev(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let options = if json::is_json(arg.value) {
        at(&arg.loc, json::parse_object(arg.value))?
    } else {
        at(&arg.loc, keyval::parse_no_help(arg.value, Some("driver")))?
    };
    if !options.contains("driver") {
        return Err(Stop::error(&arg.loc, qerr!("Parameter 'driver' is missing")));
    }
    cx.spec.blockdevs.push(BlockdevSpec { options, loc: arg.loc.clone() });
    Ok(())
}

/// A drive option with the given keys.
fn drive(cx: &mut Cx, arg: &Arg<'_>, keys: &[(&str, &str)]) -> Res {
    let mut opts = Opts::new(&groups::DRIVE, arg.loc.clone());
    opts.items.extend(keys.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    opts.items.push(("file".into(), arg.value.into()));
    cx.add(opts)
}

/// A hard disk at an index.
fn disk(cx: &mut Cx, arg: &Arg<'_>, index: &str) -> Res {
    drive(cx, arg, &[("index", index), ("media", "disk")])
}

/// `-hda`.
pub fn hda(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    disk(cx, arg, "0")
}

/// `-hdb`.
pub fn hdb(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    disk(cx, arg, "1")
}

/// `-hdc`.
pub fn hdc(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    disk(cx, arg, "2")
}

/// `-hdd`.
pub fn hdd(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    disk(cx, arg, "3")
}

/// `-cdrom`.
pub fn cdrom(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    drive(cx, arg, &[("index", "2"), ("media", "cdrom")])
}

/// `-fda`.
pub fn fda(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    drive(cx, arg, &[("if", "floppy"), ("index", "0")])
}

/// `-fdb`.
pub fn fdb(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    drive(cx, arg, &[("if", "floppy"), ("index", "1")])
}

/// `-pflash`.
pub fn pflash(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    drive(cx, arg, &[("if", "pflash")])
}

/// `-mtdblock`.
pub fn mtdblock(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    drive(cx, arg, &[("if", "mtd")])
}

/// `-sd`.
pub fn sd(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    drive(cx, arg, &[("if", "sd")])
}

/// `-snapshot`.
pub fn snapshot(cx: &mut Cx, _: &Arg<'_>) -> Res {
    cx.late.snapshot = true;
    Ok(())
}

/// Drives of all forms.
pub fn finish(cx: &mut Cx) -> Res {
    for opts in cx.take(&groups::DRIVE) {
        let loc = opts.loc.clone();
        if opts.get("format").is_some_and(is_help) {
            return Err(Stop::Help(HelpRequest::DriveFormats));
        }
        let mut warnings = Vec::new();
        let spec = at(&loc, drive_spec(opts, &mut warnings))?;
        for text in warnings {
            cx.warn(&loc, text);
        }
        cx.spec.drives.push(DriveSpec { snapshot: spec.snapshot || cx.late.snapshot, ..spec });
    }
    Ok(())
}

/// Old names of keys.
const ALIASES: &[(&str, &str)] = &[
    ("iops", "throttling.iops-total"),
    ("iops_rd", "throttling.iops-read"),
    ("iops_wr", "throttling.iops-write"),
    ("bps", "throttling.bps-total"),
    ("bps_rd", "throttling.bps-read"),
    ("bps_wr", "throttling.bps-write"),
    ("iops_max", "throttling.iops-total-max"),
    ("iops_rd_max", "throttling.iops-read-max"),
    ("iops_wr_max", "throttling.iops-write-max"),
    ("bps_max", "throttling.bps-total-max"),
    ("bps_rd_max", "throttling.bps-read-max"),
    ("bps_wr_max", "throttling.bps-write-max"),
    ("iops_size", "throttling.iops-size"),
    ("group", "throttling.group"),
    ("readonly", "read-only"),
];

fn rename_aliases(opts: &mut Opts) -> QResult<()> {
    for (old, new) in ALIASES {
        let Some(value) = opts.take(old) else { continue };
        if opts.get(new).is_some() {
            return Err(qerr!("'{new}' and its alias '{old}' can't be used at the same time"));
        }
        opts.items.push((new.to_string(), value));
    }
    Ok(())
}

/// `cache=` as the three flags it stands for; flags given by themselves win.
fn expand_cache(opts: &mut Opts) -> QResult<()> {
    let Some(mode) = opts.take("cache") else { return Ok(()) };
    let (writeback, direct, no_flush) = match mode.as_str() {
        "none" => (true, true, false),
        "off" => (true, true, false),
        "writeback" => (true, false, false),
        "writethrough" => (false, false, false),
        "directsync" => (false, true, false),
        "unsafe" => (true, false, true),
        _ => return Err(qerr!("invalid cache option")),
    };
    for (key, on) in [("cache.writeback", writeback), ("cache.direct", direct), ("cache.no-flush", no_flush)]
    {
        if opts.get(key).is_none() {
            opts.items.push((key.into(), if on { "on" } else { "off" }.into()));
        }
    }
    Ok(())
}

fn interface(name: &str) -> QResult<DriveInterface> {
    use DriveInterface as I;
    [I::None, I::Ide, I::Scsi, I::Floppy, I::Pflash, I::Mtd, I::Sd, I::Virtio, I::Xen]
        .into_iter()
        .find(|i| i.as_str() == name)
        .ok_or_else(|| qerr!("unsupported bus type '{name}'"))
}

/// Number of a bus, unit or index; negative numbers count as not given.
fn small_number(opts: &mut Opts, key: &str) -> QResult<Option<u32>> {
    Ok(opts.take_number(key)?.and_then(|v| u32::try_from(v as i32).ok()))
}

fn on_error(opts: &mut Opts, key: &str, what: &str, interface: Option<DriveInterface>) -> QResult<OnError> {
    let Some(action) = opts.take(key) else { return Ok(OnError::Auto) };
    use DriveInterface as I;
    if !matches!(interface, None | Some(I::Ide | I::Scsi | I::Virtio | I::None)) {
        return Err(qerr!("{key} is not supported by this bus type"));
    }
    Ok(match action.as_str() {
        "ignore" => OnError::Ignore,
        "report" => OnError::Report,
        "stop" => OnError::Stop,
        "enospc" if key == "werror" => OnError::Enospc,
        _ => return Err(qerr!("'{action}' invalid {what} error action")),
    })
}

fn drive_spec(mut opts: Opts, warnings: &mut Vec<String>) -> QResult<DriveSpec> {
    rename_aliases(&mut opts)?;
    expand_cache(&mut opts)?;
    let loc = opts.loc.clone();
    let opts = &mut opts;
    let media = match opts.take("media").as_deref() {
        None | Some("disk") => Media::Disk,
        Some("cdrom") => Media::Cdrom,
        Some(other) => return Err(qerr!("'{other}' invalid media")),
    };
    let interface = opts.take("if").map(|name| interface(&name)).transpose()?;
    let mut spec = DriveSpec {
        id: opts.id.take(),
        interface,
        bus: small_number(opts, "bus")?,
        unit: small_number(opts, "unit")?,
        index: small_number(opts, "index")?,
        media,
        read_only: opts.take_bool("read-only")?.unwrap_or(false) || media == Media::Cdrom,
        copy_on_read: opts.take_bool("copy-on-read")?.unwrap_or(false),
        file: opts.take("file").filter(|f| !f.is_empty()),
        werror: on_error(opts, "werror", "write", interface)?,
        rerror: on_error(opts, "rerror", "read", interface)?,
        loc,
        ..DriveSpec::default()
    };
    if spec.copy_on_read && spec.read_only {
        warnings.push("disabling copy-on-read on read-only drive".to_string());
        spec.copy_on_read = false;
    }
    spec.snapshot = opts.take_bool("snapshot")?.unwrap_or(false);
    spec.account_invalid = opts.take_bool("stats-account-invalid")?;
    spec.account_failed = opts.take_bool("stats-account-failed")?;
    spec.writeback = opts.take_bool("cache.writeback")?.unwrap_or(true);
    spec.throttle = throttle(opts)?;
    spec.options = node_options(opts)?;
    Ok(spec)
}

fn throttle(opts: &mut Opts) -> QResult<ThrottleSpec> {
    let mut spec = ThrottleSpec { group: opts.take("throttling.group"), limits: Vec::new() };
    let keys: Vec<String> =
        opts.items.iter().map(|(k, _)| k.clone()).filter(|k| is_throttle_limit(k)).collect();
    for key in keys {
        if let Some(value) = opts.take_number(&key)? {
            spec.limits.push((key["throttling.".len()..].to_string(), value));
        }
    }
    spec.check()?;
    Ok(spec)
}

fn is_throttle_limit(key: &str) -> bool {
    key.strip_prefix("throttling.").is_some_and(|k| k.starts_with("bps-") || k.starts_with("iops-"))
}

/// What is left belongs to the root node.
fn node_options(opts: &mut Opts) -> QResult<Dict> {
    if let Some(aio) = opts.get("aio") {
        if !matches!(aio, "threads" | "native" | "io_uring") {
            return Err(qerr!("invalid aio option"));
        }
    }
    if let Some(format) = opts.take("format") {
        if opts.get("driver").is_some() {
            return Err(qerr!("Cannot specify both 'driver' and 'format'"));
        }
        opts.items.push(("driver".into(), format));
    }
    if let Some(discard) = opts.get("discard") {
        if !matches!(discard, "ignore" | "off" | "unmap" | "on") {
            return Err(qerr!("Invalid discard option"));
        }
    }
    if let Some(mode) = opts.get("detect-zeroes") {
        if !matches!(mode, "off" | "on" | "unmap") {
            return Err(qerr!("invalid parameter value: {mode}"));
        }
    }
    for key in ["cache.direct", "cache.no-flush", "auto-read-only", "force-share"] {
        opts.bool(key)?;
    }
    let mut out = Dict::new();
    for (key, value) in std::mem::take(&mut opts.items) {
        out.set(&key, Value::Text(value));
    }
    Ok(out)
}

/// The bare image argument is the first hard disk.
pub fn image(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    hda(cx, arg)
}
