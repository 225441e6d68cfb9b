//! fw_cfg items, SMBIOS and ACPI additions, option ROMs, clock.

use rqemu_machine::firmware::acpi::user::user_table;
use rqemu_machine::spec::{FwCfgSource, FwCfgSpec, GlobalSpec, Loc, OptionRomSpec, RtcBase, RtcClock};
use rqemu_machine::{qerr, QResult};

use super::{at, Arg, Cx, Res, Stop};
use crate::grammar;
use crate::groups;
use crate::opts::Opts;
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
    at(&opts.loc, cx.spec.smbios.add(&opts.items))
}

/// `-acpitable`.
pub fn acpitable(cx: &mut Cx, opts: Opts) -> Res {
    let made = at(&opts.loc, user_table(&opts.items))?;
    if let Some(w) = made.warning {
        cx.warn(&opts.loc, w);
    }
    cx.spec.acpi_tables.push(made.table);
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
