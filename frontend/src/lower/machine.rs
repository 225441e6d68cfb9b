//! Machine, accelerator, CPU, memory, NUMA, kernel, global values.

use rqemu_machine::spec::schema;
use rqemu_machine::spec::size::{self, Unit};
use rqemu_machine::spec::value::Value;
use rqemu_machine::spec::visit::{self, Mode};
use rqemu_machine::spec::{
    AccelOrigin, AccelSpec, BootSpec, CpuSpec, Dict, GlobalSpec, Loc, NumaKind, NumaSpec, SmpSpec,
};
use rqemu_machine::{qerr, QResult};

use super::{at, is_help, Arg, Cx, Res, Stop};
use crate::groups;
use crate::opts::{parse_size, Opts};
use crate::{grammar, keyval, HelpRequest};

/// RAM of every x86 machine when `-m` is not given.
const DEFAULT_RAM: u64 = 128 << 20;

/// `-machine`.
pub fn machine(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let parsed = at(&arg.loc, keyval::parse(arg.value, Some("type")))?;
    if parsed.help {
        let kind = parsed.dict.get_str("type").map(str::to_string);
        cx.help.push(HelpRequest::Machine(kind));
        return Ok(());
    }
    at(&arg.loc, keyval::merge(&mut cx.machine, parsed.dict))
}

/// `-smp` and `-boot`: keys of a part of the machine.
fn part(cx: &mut Cx, arg: &Arg<'_>, group: &'static groups::OptGroup, key: &str) -> Res {
    let parsed = at(&arg.loc, keyval::parse(arg.value, group.implied))?;
    if parsed.help {
        return Err(Stop::Text(group.help(), 0));
    }
    let part = Dict::from_iter([(key.to_string(), Value::Dict(parsed.dict))]);
    at(&arg.loc, keyval::merge(&mut cx.machine, part))
}

/// `-smp`.
pub fn smp(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    part(cx, arg, &groups::SMP, "smp")
}

/// `-boot`.
pub fn boot(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    part(cx, arg, &groups::BOOT, "boot")
}

/// `-cpu`.
pub fn cpu(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.late.cpu = Some(arg.value.to_string());
    Ok(())
}

/// `-enable-kvm` is `-machine accel=kvm`.
pub fn enable_kvm(cx: &mut Cx, _: &Arg<'_>) -> Res {
    set(cx, "accel", "kvm")
}

fn set(cx: &mut Cx, key: &str, value: &str) -> Res {
    cx.machine.set(key, Value::text(value));
    Ok(())
}

/// `-usb`.
pub fn usb(cx: &mut Cx, _: &Arg<'_>) -> Res {
    set(cx, "usb", "on")
}

/// `-no-acpi`.
pub fn no_acpi(cx: &mut Cx, _: &Arg<'_>) -> Res {
    set(cx, "acpi", "off")
}

/// `-no-hpet`.
pub fn no_hpet(cx: &mut Cx, _: &Arg<'_>) -> Res {
    set(cx, "hpet", "off")
}

/// `-no-fd-bootchk`.
pub fn no_fd_bootchk(cx: &mut Cx, _: &Arg<'_>) -> Res {
    set(cx, "fd-bootchk", "off")
}

/// `-kernel`.
pub fn kernel(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    set(cx, "kernel", arg.value)
}

/// `-initrd`.
pub fn initrd(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    set(cx, "initrd", arg.value)
}

/// `-append`.
pub fn append(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    set(cx, "append", arg.value)
}

/// `-dtb`.
pub fn dtb(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    set(cx, "dtb", arg.value)
}

/// `-bios`.
pub fn bios(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    set(cx, "firmware", arg.value)
}

/// `-mem-path`.
pub fn mem_path(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.spec.memory.mem_path = Some(arg.value.to_string());
    Ok(())
}

/// `-mem-prealloc`.
pub fn mem_prealloc(cx: &mut Cx, _: &Arg<'_>) -> Res {
    cx.spec.memory.prealloc = true;
    Ok(())
}

/// `-global`: `driver.property=value`, or keys.
pub fn global(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if let Some([driver, property, value]) = grammar::global(arg.value) {
        let mut opts = Opts::new(&groups::GLOBAL, arg.loc.clone());
        for (key, value) in [("driver", driver), ("property", property), ("value", value)] {
            opts.items.push((key.into(), value.into()));
        }
        return cx.add(opts);
    }
    let opts = cx.opts(&groups::GLOBAL, arg.value, &arg.loc)?;
    if ["driver", "property", "value"].iter().any(|k| opts.get(k).is_none()) {
        return Err(Stop::error(&arg.loc, qerr!("options 'driver', 'property', and 'value' are required")));
    }
    cx.add(opts)
}

/// Options that need others.
pub fn check_combinations(cx: &Cx) -> Res {
    let has = |key| cx.machine.contains(key);
    let fail = |text: &str| Err(Stop::error(&Loc::NONE, qerr!("{text}")));
    if !has("kernel") && has("append") {
        return fail("-append only allowed with -kernel option");
    }
    if !has("kernel") && has("initrd") {
        return fail("-initrd only allowed with -kernel option");
    }
    if has("accel") && cx.sets.iter().any(|o| std::ptr::eq(o.group, &groups::ACCEL)) {
        return fail("The -accel and \"-machine accel=\" options are incompatible");
    }
    Ok(())
}

/// `-machine help` written as a type, `-cpu help`, `-accel help`.
pub fn find_help(cx: &mut Cx) {
    if cx.machine.get_str("type").is_some_and(is_help) {
        cx.help.push(HelpRequest::Machine(None));
    }
    if cx.late.cpu.as_deref().is_some_and(is_help) {
        cx.help.push(HelpRequest::Cpu);
    }
    let accel_help = |o: &Opts| std::ptr::eq(o.group, &groups::ACCEL) && o.get("accel").is_some_and(is_help);
    if cx.sets.iter().any(accel_help) {
        cx.help.push(HelpRequest::Accel);
    }
}

/// `-global` values.
pub fn globals(cx: &mut Cx) -> Res {
    for mut opts in cx.take(&groups::GLOBAL) {
        let mut word = |key| opts.take(key).unwrap_or_default();
        let (driver, property, value) = (word("driver"), word("property"), word("value"));
        cx.spec.globals.push(GlobalSpec { driver, property, value, loc: opts.loc });
    }
    Ok(())
}

/// Machine, its parts, accelerators, CPU, NUMA.
pub fn finish(cx: &mut Cx) -> Res {
    memory_option(cx)?;
    let boot = take_part(cx, "boot")?;
    at(&Loc::NONE, boot_part(cx, boot))?;
    let smp = take_part(cx, "smp")?;
    smp_part(cx, &smp);
    if cx.machine.get("memory").is_some_and(|v| !matches!(v, Value::Dict(_))) {
        return Err(Stop::error(&Loc::NONE, qerr!("Parameter 'memory' used inconsistently")));
    }
    let memory = take_part(cx, "memory")?;
    memory_part(cx, &memory);
    at(&Loc::NONE, cx.spec.memory.resolve(DEFAULT_RAM).map(drop))?;
    let fw = &mut cx.spec.firmware;
    for (key, slot) in [
        ("kernel", &mut fw.kernel),
        ("initrd", &mut fw.initrd),
        ("append", &mut fw.append),
        ("dtb", &mut fw.dtb),
        ("firmware", &mut fw.bios),
    ] {
        *slot = cx.machine.remove_str(key);
    }
    accels(cx)?;
    cx.spec.machine.kind = cx.machine.remove_str("type").filter(|t| !t.is_empty());
    cx.spec.machine.props = std::mem::take(&mut cx.machine);
    cx.spec.cpu = cx.late.cpu.take().map(|text| {
        let (model, features) = grammar::cpu(&text);
        CpuSpec { model, features }
    });
    Ok(())
}

/// A checked part of the machine's properties.
fn take_part(cx: &mut Cx, key: &str) -> Res<Dict> {
    let Some(value) = cx.machine.remove(key) else { return Ok(Dict::new()) };
    let part = Dict::from_iter([(key.to_string(), value)]);
    let mut part = at(&Loc::NONE, visit::check(part, &schema::MACHINE_PARTS, Mode::Keyval))?;
    Ok(match part.remove(key) {
        Some(Value::Dict(dict)) => dict,
        _ => Dict::new(),
    })
}

/// `-m`: a number without a unit counts MiB.
fn memory_option(cx: &mut Cx) -> Res {
    let Some(opts) = cx.take_merged(&groups::MEMORY) else { return Ok(()) };
    let loc = opts.loc.clone();
    let memory = &mut cx.spec.memory;
    if let Some(text) = opts.get("size").filter(|t| !t.is_empty()) {
        let size = parse_size("size", text, Unit::Mebibytes).map_err(|_| qerr!("ram size too large"));
        memory.size = Some(at(&loc, size)?);
        let hex = text.starts_with("0x") || text.starts_with("0X");
        if hex {
            let text = if size::is_hex_with_suffix(text) { text.to_string() } else { format!("{text}M") };
            let warning = format!("Using a multiplier suffix on hex numbers is deprecated: {text}");
            cx.warnings.push(crate::report::Report::warning(Loc::NONE, warning));
        }
    }
    let memory = &mut cx.spec.memory;
    memory.slots = at(&loc, opts.number("slots"))?;
    memory.maxmem = at(&loc, opts.size("maxmem"))?;
    Ok(())
}

/// `-machine memory.…`; `-m` wins.
fn memory_part(cx: &mut Cx, dict: &Dict) {
    let number = |key| dict.get_u64(key).ok().flatten();
    let memory = &mut cx.spec.memory;
    memory.size = memory.size.or(number("size"));
    memory.maxmem = memory.maxmem.or(number("max-size"));
    memory.slots = memory.slots.or(number("slots"));
}

fn smp_part(cx: &mut Cx, dict: &Dict) {
    let number = |key| dict.get_u64(key).ok().flatten().map(|v| u64::from(v as u32));
    cx.spec.smp = SmpSpec {
        cpus: number("cpus"),
        sockets: number("sockets"),
        dies: number("dies"),
        clusters: number("clusters"),
        cores: number("cores"),
        threads: number("threads"),
        maxcpus: number("maxcpus"),
    };
    if cx.spec.smp.has_zero() {
        cx.warn(
            &Loc::NONE,
            "Deprecated CPU topology (considered invalid): CPU topology parameters must be greater than zero",
        );
    }
}

fn boot_part(cx: &mut Cx, mut dict: Dict) -> QResult<()> {
    let boot = BootSpec {
        order: dict.remove_str("order"),
        once: dict.remove_str("once"),
        menu: dict.get_bool("menu")?,
        splash: dict.remove_str("splash"),
        splash_time: dict.get_i64("splash-time")?,
        reboot_timeout: dict.get_i64("reboot-timeout")?,
        strict: dict.get_bool("strict")?,
    };
    for letters in [&boot.order, &boot.once].into_iter().flatten() {
        check_boot_letters(letters)?;
    }
    if boot.splash_time.is_some_and(|v| !(0..=0xffff).contains(&v)) {
        return Err(qerr!("splash-time is invalid,it should be a value between 0 and 65535"));
    }
    if boot.reboot_timeout.is_some_and(|v| !(-1..=0xffff).contains(&v)) {
        return Err(qerr!("reboot timeout is invalid,it should be a value between -1 and 65535"));
    }
    cx.spec.boot = boot;
    Ok(())
}

/// Letters `a` to `p`, each once.
fn check_boot_letters(letters: &str) -> QResult<()> {
    let mut seen = 0u32;
    for c in letters.chars() {
        if !('a'..='p').contains(&c) {
            return Err(qerr!("Invalid boot device '{c}'"));
        }
        let bit = 1 << (c as u32 - 'a' as u32);
        if seen & bit != 0 {
            return Err(qerr!("Boot device '{c}' was given twice"));
        }
        seen |= bit;
    }
    Ok(())
}

/// The list of accelerators to try.
fn accels(cx: &mut Cx) -> Res {
    for mut opts in cx.take(&groups::ACCEL) {
        let name = opts.take("accel").unwrap_or_default();
        let loc = opts.loc.clone();
        let props = opts.into_dict();
        cx.spec.accels.push(AccelSpec { name, props, origin: AccelOrigin::Option, loc });
    }
    if let Some(list) = cx.machine.remove_str("accel") {
        if list.is_empty() {
            return Err(Stop::error(&Loc::NONE, qerr!("no accelerator found")));
        }
        cx.spec.accels.extend(list.split(':').map(|n| plain_accel(n, AccelOrigin::Machine)));
    }
    Ok(())
}

fn plain_accel(name: &str, origin: AccelOrigin) -> AccelSpec {
    AccelSpec { name: name.to_string(), props: Dict::new(), origin, loc: Loc::NONE }
}

/// Accelerators when none was asked for: a program called `kvm` (or `…kvm`) tries KVM first.
pub fn default_accels(cx: &mut Cx, program: &str) {
    if !cx.spec.accels.is_empty() {
        return;
    }
    if program.ends_with("kvm") {
        cx.spec.accels.push(plain_accel("kvm", AccelOrigin::Default));
    }
    cx.spec.accels.push(plain_accel("tcg", AccelOrigin::Default));
}

/// `-numa` steps.
pub fn numa(cx: &mut Cx) -> Res {
    for mut opts in cx.take(&groups::NUMA) {
        let loc = opts.loc.clone();
        // The last CPU of a range may be written with a unit in `mem` only; `mem` counts MiB without one.
        if let Some(mem) = opts.take("mem") {
            let bytes = size::parse_size(&mem, Unit::Mebibytes);
            opts.items.push(("mem".into(), bytes.map_or(mem, |b| b.to_string())));
        }
        let dict = at(&loc, visit::check(opts.into_dict(), &schema::NUMA, Mode::Opts))?;
        let kind = at(&loc, numa_kind(dict))?;
        cx.spec.numa.push(NumaSpec { kind, loc });
    }
    Ok(())
}

fn numa_kind(mut dict: Dict) -> QResult<NumaKind> {
    let kind = dict.remove_str("type").unwrap_or_default();
    let small = |d: &Dict, key| d.get_u64(key).map(|v| v.map(|v| v as u16));
    Ok(match kind.as_str() {
        "node" => {
            let cpus = match dict.remove("cpus") {
                Some(Value::List(list)) => list.iter().map(|v| v.to_u64("cpus").map(|v| v as u16)).collect(),
                _ => Ok(Vec::new()),
            };
            NumaKind::Node {
                nodeid: small(&dict, "nodeid")?,
                cpus: cpus?,
                mem: dict.get_u64("mem")?,
                memdev: dict.remove_str("memdev"),
                initiator: small(&dict, "initiator")?,
            }
        }
        "dist" => NumaKind::Dist {
            src: small(&dict, "src")?.unwrap_or(0),
            dst: small(&dict, "dst")?.unwrap_or(0),
            val: dict.get_u64("val")?.unwrap_or(0) as u8,
        },
        "cpu" => NumaKind::Cpu(dict),
        "hmat-lb" => NumaKind::HmatLb(dict),
        _ => NumaKind::HmatCache(dict),
    })
}
