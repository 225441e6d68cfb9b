//! fw_cfg items, SMBIOS and ACPI additions, option ROMs, clock.

use rqemu_machine::spec::value::parse_bool;
use rqemu_machine::spec::{
    AcpiTableSpec, FwCfgSource, FwCfgSpec, GlobalSpec, Loc, OptionRomSpec, RtcBase, RtcClock, SmbiosKind,
    SmbiosSpec,
};
use rqemu_machine::{qerr, QResult};

use super::{at, Arg, Cx, Res, Stop};
use crate::grammar;
use crate::groups;
use crate::opts::{number, Opts};
use crate::report::days_from_civil;

/// `-L`.
pub fn data_dir(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if super::is_help(arg.value) {
        cx.help.push(crate::HelpRequest::DataDirs);
    } else {
        cx.spec.firmware.data_dirs.push(arg.value.to_string());
    }
    Ok(())
}

/// `-smbios`.
pub fn smbios(cx: &mut Cx, opts: Opts) -> Res {
    let loc = opts.loc.clone();
    let kind = at(&loc, smbios_kind(opts))?;
    cx.spec.smbios.push(SmbiosSpec { kind, loc });
    Ok(())
}

/// Fields of each SMBIOS type: text, number (`#`) or truth (`?`) by the last letter.
const SMBIOS_FIELDS: &[(u8, &[&str])] = &[
    (0, &["vendor", "version", "date", "release", "uefi?"]),
    (1, &["manufacturer", "product", "version", "serial", "uuid", "sku", "family"]),
    (2, &["manufacturer", "product", "version", "serial", "asset", "location"]),
    (3, &["manufacturer", "version", "serial", "asset", "sku"]),
    (
        4,
        &[
            "sock_pfx",
            "manufacturer",
            "version",
            "serial",
            "asset",
            "part",
            "max-speed#",
            "current-speed#",
            "processor-id#",
        ],
    ),
    (8, &["internal_reference", "external_reference", "connector_type#", "port_type#"]),
    (11, &["value", "path"]),
    (17, &["loc_pfx", "bank", "manufacturer", "serial", "asset", "part", "speed#"]),
    (41, &["designation", "kind", "instance#", "pcidev"]),
];

fn smbios_kind(mut opts: Opts) -> QResult<SmbiosKind> {
    if let Some(file) = opts.take("file") {
        return match opts.items.first() {
            Some((key, _)) => Err(qerr!("Invalid parameter '{key}'")),
            None => Ok(SmbiosKind::File(file)),
        };
    }
    let Some(kind) = opts.take("type") else { return Err(qerr!("Must specify type= or file=")) };
    let kind = number("type", &kind)?;
    if kind > 127 {
        return Err(qerr!("out of range!"));
    }
    let Some((number_of, fields)) = SMBIOS_FIELDS.iter().find(|(n, _)| u64::from(*n) == kind) else {
        return Err(qerr!("Don't know how to build fields for SMBIOS type {kind}"));
    };
    for (key, value) in &opts.items {
        let field = fields.iter().find(|f| f.trim_end_matches(['#', '?']) == key);
        match field {
            None => return Err(qerr!("Invalid parameter '{key}'")),
            Some(f) if f.ends_with('#') => drop(number(key, value)?),
            Some(f) if f.ends_with('?') => drop(parse_bool(key, value)?),
            Some(_) => {}
        }
    }
    if let Some(uuid) = opts.get("uuid") {
        grammar::uuid(uuid).ok_or_else(|| qerr!("Invalid UUID"))?;
    }
    if let (0, Some(release)) = (kind, opts.get("release")) {
        // Two numbers; QEMU cuts them to bytes and looks at nothing behind them.
        let digit = |s: &str| s.starts_with(|c: char| c.is_ascii_digit());
        release
            .split_once('.')
            .filter(|(a, b)| digit(a) && a.bytes().all(|c| c.is_ascii_digit()) && digit(b))
            .ok_or_else(|| qerr!("Invalid release"))?;
    }
    Ok(SmbiosKind::Type { number: *number_of, fields: opts.items })
}

/// `-acpitable`.
pub fn acpitable(cx: &mut Cx, opts: Opts) -> Res {
    at(&opts.loc, check_acpitable(&opts))?;
    cx.spec.acpi_tables.push(AcpiTableSpec { fields: opts.items, loc: opts.loc });
    Ok(())
}

fn check_acpitable(opts: &Opts) -> QResult<()> {
    for (key, value) in &opts.items {
        match key.as_str() {
            "sig" | "oem_id" | "oem_table_id" | "asl_compiler_id" | "file" | "data" => {}
            "rev" | "oem_rev" | "asl_compiler_rev" => {
                let bound = if key == "rev" { ("uint8_t", 0xff) } else { ("uint32_t", 0xffff_ffff) };
                match rqemu_machine::spec::size::parse_u64(value).filter(|_| !value.contains('-')) {
                    None => return Err(qerr!("Parameter '{key}' expects a uint64 value")),
                    Some(v) if v > bound.1 => return Err(qerr!("Parameter '{key}' expects {}", bound.0)),
                    Some(_) => {}
                }
            }
            _ => return Err(qerr!("Invalid parameter '{key}'")),
        }
    }
    if opts.get("file").is_some() == opts.get("data").is_some() {
        return Err(qerr!("'-acpitable' requires one of 'data' or 'file'"));
    }
    Ok(())
}

/// Longest name of a fw_cfg item.
const MAX_FW_CFG_NAME: usize = 55;

fn fw_cfg(cx: &mut Cx, mut opts: Opts) -> QResult<FwCfgSpec> {
    let loc = opts.loc.clone();
    let name = opts.take("name").filter(|n| !n.is_empty());
    let mut full = |key| opts.take(key).filter(|v| !v.is_empty());
    let mut sources = [
        full("file").map(FwCfgSource::File),
        full("string").map(FwCfgSource::Text),
        full("gen_id").map(FwCfgSource::GenId),
    ]
    .into_iter()
    .flatten();
    let (Some(name), Some(source), None) = (name, sources.next(), sources.next()) else {
        return Err(qerr!("name, plus exactly one of file, string and gen_id, are needed"));
    };
    if name.len() > MAX_FW_CFG_NAME {
        return Err(qerr!("name too long (max. {MAX_FW_CFG_NAME} char)"));
    }
    if !name.starts_with("opt/") && !matches!(source, FwCfgSource::GenId(_)) {
        cx.warn(&loc, "externally provided fw_cfg item names should be prefixed with \"opt/\"");
    }
    Ok(FwCfgSpec { name, source, loc })
}

/// `-rtc`.
fn rtc(cx: &mut Cx, opts: &Opts) -> QResult<()> {
    let bad = |v: &str| qerr!("invalid option value '{v}'");
    let rtc = &mut cx.spec.rtc;
    rtc.base = match opts.get("base") {
        None | Some("utc") => RtcBase::Utc,
        Some("localtime") => RtcBase::Localtime,
        Some(text) => {
            let Some([y, mo, d, h, mi, s]) = grammar::datetime(text) else {
                return Err(qerr!("invalid datetime format")
                    .with_hint("valid formats: '2006-06-17T16:01:21' or '2006-06-17'"));
            };
            RtcBase::At(days_from_civil(y, mo, d) * 86_400 + h * 3600 + mi * 60 + s)
        }
    };
    rtc.clock = match opts.get("clock") {
        None | Some("host") => RtcClock::Host,
        Some("rt") => RtcClock::Rt,
        Some("vm") => RtcClock::Vm,
        Some(other) => return Err(bad(other)),
    };
    match opts.get("driftfix") {
        None | Some("none") => {}
        Some("slew") => cx.spec.globals.push(GlobalSpec {
            driver: "mc146818rtc".into(),
            property: "lost_tick_policy".into(),
            value: "slew".into(),
            loc: Loc::NONE,
        }),
        Some(other) => return Err(bad(other)),
    }
    Ok(())
}

/// Clock and option ROMs.
pub fn early(cx: &mut Cx) -> Res {
    if let Some(opts) = cx.take_merged(&groups::RTC) {
        at(&Loc::NONE, rtc(cx, &opts))?;
    }
    for opts in cx.take(&groups::OPTION_ROM) {
        let Some(romfile) = opts.string("romfile") else {
            return Err(Stop::error(&opts.loc, qerr!("Option ROM file is not specified")));
        };
        let bootindex = at(&opts.loc, opts.number("bootindex"))?.map(|v| v as i32);
        cx.spec.firmware.option_roms.push(OptionRomSpec { romfile, bootindex, loc: opts.loc });
    }
    Ok(())
}

/// fw_cfg items.
pub fn finish(cx: &mut Cx) -> Res {
    for opts in cx.take(&groups::FW_CFG) {
        let loc = opts.loc.clone();
        let item = fw_cfg(cx, opts);
        cx.spec.fw_cfg.push(at(&loc, item)?);
    }
    Ok(())
}

/// `-uuid`.
pub fn uuid(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let uuid = grammar::uuid(arg.value).ok_or_else(|| qerr!("failed to parse UUID string: wrong format"));
    cx.spec.uuid = Some(at(&arg.loc, uuid)?);
    Ok(())
}
