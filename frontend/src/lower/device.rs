//! Devices, objects, and options that stand for them.

use rqemu_machine::spec::schema;
use rqemu_machine::spec::value::{bad_type, Value};
use rqemu_machine::spec::visit::{self, Mode};
use rqemu_machine::spec::{DefaultDevices, DeviceSpec, Dict, Loc, ObjectSpec, OptsSpec};
use rqemu_machine::{qerr, QResult};

use super::{at, is_help, Arg, Cx, Res, Stop, Text};
use crate::groups;
use crate::opts::{check_id, id_wellformed, Opts};
use crate::{json, keyval, HelpRequest};

/// `-device`.
pub fn device(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if json::is_json(arg.value) {
        let dict = at(&arg.loc, json::parse_object(arg.value))?;
        cx.late.json_devices.push((dict, arg.loc.clone()));
        return Ok(());
    }
    let opts = cx.opts(&groups::DEVICE, arg.value, &arg.loc)?;
    cx.add(opts)
}

/// `-object`.
pub fn object(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if !json::is_json(arg.value) {
        let opts = cx.opts(&groups::OBJECT, arg.value, &arg.loc)?;
        let kind = opts.get("qom-type").map(str::to_string);
        match kind {
            Some(kind) if is_help(&kind) => cx.help.push(HelpRequest::Object(None)),
            Some(kind) if asks_help(&opts) => cx.help.push(HelpRequest::Object(Some(kind))),
            Some(_) => {}
            None => return Err(Stop::error(&arg.loc, qerr!("Parameter 'qom-type' is missing"))),
        }
        return cx.add(opts);
    }
    let spec = at(&arg.loc, json::parse_object(arg.value).and_then(|d| object_spec(d, &arg.loc)))?;
    let before = cx.sets.iter().filter(|o| std::ptr::eq(o.group, &groups::OBJECT)).count();
    cx.late.json_objects.push((before, spec));
    Ok(())
}

fn asks_help(opts: &Opts) -> bool {
    opts.items.iter().any(|(k, v)| is_help(k) && v == "on")
}

/// Objects of both notations in the order of the command line.
pub fn objects(cx: &mut Cx) -> Res {
    let mut json = std::mem::take(&mut cx.late.json_objects).into_iter().peekable();
    for (n, mut opts) in cx.take(&groups::OBJECT).into_iter().enumerate() {
        while let Some((_, spec)) = json.next_if(|(before, _)| *before <= n) {
            cx.spec.objects.push(spec);
        }
        let loc = opts.loc.clone();
        let id = opts.id.take();
        let mut dict = opts.into_dict();
        if let Some(id) = id {
            dict.push("id", Value::Text(id));
        }
        let spec = at(&loc, object_spec(dict, &loc))?;
        cx.spec.objects.push(spec);
    }
    cx.spec.objects.extend(json.map(|(_, spec)| spec));
    for (i, object) in cx.spec.objects.iter().enumerate() {
        if cx.spec.objects[..i].iter().any(|o| o.id == object.id) {
            let err = qerr!("attempt to add duplicate property '{}' to object (type 'container')", object.id);
            return Err(Stop::error(&Loc::NONE, err));
        }
        at(&Loc::NONE, check_id(&object.id))?;
    }
    Ok(())
}

/// The string under `key`, which must be there.
fn need_str(dict: &mut Dict, key: &str) -> QResult<String> {
    match dict.remove(key) {
        Some(Value::Text(s) | Value::Str(s)) => Ok(s),
        Some(_) => Err(bad_type(key, "string")),
        None => Err(qerr!("Parameter '{key}' is missing")),
    }
}

fn object_spec(mut dict: Dict, loc: &Loc) -> QResult<ObjectSpec> {
    let qom_type = need_str(&mut dict, "qom-type")?;
    if dict.get("id").is_none() {
        // Of two mistakes, QEMU names this one.
        rqemu_machine::objects::known_type(&qom_type)?;
    }
    let id = need_str(&mut dict, "id")?;
    Ok(ObjectSpec { qom_type, id, props: dict, loc: loc.clone() })
}

/// `-device help`, `-device X,help`.
pub fn find_help(cx: &mut Cx) {
    let mut found = Vec::new();
    for opts in cx.sets.iter().filter(|o| std::ptr::eq(o.group, &groups::DEVICE)) {
        match opts.get("driver") {
            Some(driver) if is_help(driver) => found.push(HelpRequest::Device(None)),
            Some(driver) if asks_help(opts) => found.push(HelpRequest::Device(Some(driver.to_string()))),
            _ => {}
        }
    }
    cx.help.extend(found);
}

/// A device or global value of these classes keeps the default device of its kind away.
fn clear_default(d: &mut DefaultDevices, driver: &str) {
    match driver {
        "isa-serial" => d.serial = false,
        "isa-parallel" => d.parallel = false,
        "isa-fdc" | "floppy" => d.floppy = false,
        "ide-cd" | "ide-hd" | "scsi-cd" | "scsi-hd" => d.cdrom = false,
        "VGA" | "isa-vga" | "cirrus-vga" | "isa-cirrus-vga" | "vmware-svga" | "qxl-vga" | "virtio-vga"
        | "virtio-vga-gl" | "ati-vga" | "vhost-user-vga" => d.vga = false,
        _ => {}
    }
}

/// Works out which default devices are not wanted.
pub fn disable_defaults(cx: &mut Cx) {
    let d = &mut cx.spec.defaults;
    for opts in cx.sets.iter().filter(|o| std::ptr::eq(o.group, &groups::DEVICE)) {
        clear_default(d, opts.get("driver").unwrap_or_default());
    }
    for (dict, _) in &cx.late.json_devices {
        clear_default(d, dict.get_str("driver").unwrap_or_default());
    }
    for global in &cx.spec.globals {
        clear_default(d, &global.driver);
    }
    if cx.late.nodefaults {
        *d = DefaultDevices::NONE;
    }
}

/// `-usbdevice`.
pub fn usbdevice(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    cx.machine.set("usb", Value::text("on"));
    cx.late.usb.push(Text::of(arg));
    Ok(())
}

fn usb_device(text: &Text) -> Res<DeviceSpec> {
    let failed = || qerr!("could not add USB device '{}'", text.text);
    let driver = match text.text.as_str() {
        "tablet" => "usb-tablet",
        "mouse" => "usb-mouse",
        "keyboard" => "usb-kbd",
        "wacom-tablet" => "usb-wacom-tablet",
        other if other.contains(':') => {
            let err = qerr!("usbdevice parameters are not supported anymore");
            return Err(Stop::error(&text.loc, err).and(&text.loc, failed()));
        }
        _ => return Err(Stop::error(&text.loc, failed())),
    };
    Ok(DeviceSpec { driver: driver.into(), id: None, props: Dict::new(), json: false, loc: text.loc.clone() })
}

/// All devices in the order of their creation.
pub fn devices(cx: &mut Cx) -> Res {
    for text in std::mem::take(&mut cx.late.usb) {
        let device = usb_device(&text)?;
        cx.spec.devices.push(device);
    }
    for mut opts in cx.take(&groups::DEVICE) {
        let loc = opts.loc.clone();
        let Some(driver) = opts.take("driver") else {
            return Err(Stop::error(&loc, qerr!("Parameter 'driver' is missing")));
        };
        let id = opts.id.take();
        cx.spec.devices.push(DeviceSpec { driver, id, props: opts.into_dict(), json: false, loc });
    }
    let late = std::mem::take(&mut cx.late.devices);
    cx.spec.devices.extend(late);
    for (mut dict, loc) in std::mem::take(&mut cx.late.json_devices) {
        let Some(driver) = dict.remove_str("driver") else {
            return Err(Stop::error(&loc, qerr!("Parameter 'driver' is missing")));
        };
        let id = dict.remove_str("id");
        cx.spec.devices.push(DeviceSpec { driver, id, props: dict, json: true, loc });
    }
    Ok(())
}

const SECURITY_HINT: &str = "Valid options are: security_model=[passthrough|mapped-xattr|mapped-file|none]";

/// Checks the keys of a file system backend.
fn check_fsdev(driver: &str, opts: &Opts, id: Option<&str>) -> QResult<()> {
    let keys: &[&str] = match driver {
        "local" => {
            &["path", "security_model", "writeout", "readonly", "multidevs", "fmode", "dmode", "mount_tag"]
        }
        "proxy" => &["socket", "sock_fd", "writeout", "readonly", "multidevs", "mount_tag"],
        "synth" => &["readonly", "mount_tag"],
        _ => return Err(qerr!("fsdev: fsdriver {driver} not found")),
    };
    if id.is_none() {
        return Err(qerr!("fsdev: No id specified"));
    }
    let allowed = |k: &str| keys.contains(&k) || (driver == "local" && k.starts_with("throttling."));
    if let Some((key, _)) = opts.items.iter().find(|(k, _)| !allowed(k)) {
        return Err(qerr!("'{key}' is invalid for fsdriver '{driver}'"));
    }
    if driver == "proxy" && opts.get("socket").is_none() && opts.get("sock_fd").is_none() {
        return Err(qerr!("both socket and sock_fd properties are missing"));
    }
    if let Some(mode) = opts.get("multidevs").filter(|m| !matches!(*m, "remap" | "forbid" | "warn")) {
        return Err(qerr!("invalid multidevs property '{mode}'")
            .with_hint("Valid options are: multidevs=[remap|forbid|warn]"));
    }
    if driver == "local" {
        match opts.get("security_model") {
            Some("passthrough" | "mapped" | "mapped-xattr" | "mapped-file" | "none") => {}
            None => return Err(qerr!("security_model property not set").with_hint(SECURITY_HINT)),
            Some(other) => {
                return Err(qerr!("invalid security_model property '{other}'").with_hint(SECURITY_HINT));
            }
        }
        if opts.get("path").is_none() {
            return Err(qerr!("path property not set"));
        }
    }
    Ok(())
}

/// `-fsdev` and the backends of `-virtfs`.
pub fn fsdevs(cx: &mut Cx) -> Res {
    for mut opts in cx.take(&groups::FSDEV) {
        let loc = opts.loc.clone();
        if opts.id.is_none() {
            return Err(Stop::error(&loc, qerr!("fsdev: No id specified")));
        }
        let Some(driver) = opts.take("fsdriver") else {
            return Err(Stop::error(&loc, qerr!("fsdev: No fsdriver specified")));
        };
        at(&loc, check_fsdev(&driver, &opts, opts.id.as_deref()))?;
        opts.items.insert(0, ("fsdriver".into(), driver));
        cx.spec.fsdevs.push(plain(opts));
    }
    Ok(())
}

/// `-virtfs`: a backend and a `virtio-9p-pci`.
pub fn virtfs(cx: &mut Cx, mut opts: Opts) -> Res {
    let loc = opts.loc.clone();
    let (Some(driver), Some(tag)) = (opts.take("fsdriver"), opts.take("mount_tag")) else {
        return Err(Stop::error(&loc, qerr!("Usage: -virtfs fsdriver,mount_tag=tag")));
    };
    let id = opts.id.take().unwrap_or_else(|| tag.clone());
    let mut fsdev = Opts::new(&groups::FSDEV, loc.clone());
    fsdev.id = Some(id.clone());
    fsdev.items.push(("fsdriver".into(), driver));
    fsdev.items.extend(opts.items);
    let taken = |o: &Opts| std::ptr::eq(o.group, &groups::FSDEV) && o.id.as_deref() == Some(&id);
    if !id_wellformed(&id) || cx.sets.iter().any(taken) {
        return Err(Stop::error(&loc, qerr!("duplicate or invalid fsdev id: {id}")));
    }
    cx.add(fsdev)?;
    let props = Dict::from_iter([
        ("fsdev".to_string(), Value::Text(id)),
        ("mount_tag".to_string(), Value::Text(tag)),
    ]);
    cx.late.devices.push(DeviceSpec { driver: "virtio-9p-pci".into(), id: None, props, json: false, loc });
    Ok(())
}

/// A set whose keys others check.
pub fn plain(mut opts: Opts) -> OptsSpec {
    let (id, loc) = (opts.id.take(), opts.loc.clone());
    OptsSpec { id, props: opts.into_dict(), loc }
}

/// Text of `-tpmdev help`.
const TPM_TYPES: &str =
    "Supported TPM types (choose only one):\n passthrough   Passthrough TPM backend driver\n    \
                         emulator   TPM emulator backend driver\n";

/// `-tpmdev`.
pub fn tpmdev(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if is_help(arg.value) {
        return Err(Stop::Help(HelpRequest::Tpmdev(TPM_TYPES)));
    }
    let opts = cx.opts(&groups::TPMDEV, arg.value, &arg.loc)?;
    cx.add(opts)
}

/// TPM backends.
pub fn tpmdevs(cx: &mut Cx) -> Res {
    for opts in cx.take(&groups::TPMDEV) {
        let fail = |err| Err(Stop::error(&opts.loc, err));
        if opts.id.is_none() {
            return fail(qerr!("Parameter 'id' is missing"));
        }
        match opts.get("type") {
            Some("passthrough" | "emulator") => {}
            Some(_) => {
                return fail(qerr!("Parameter 'type' expects a TPM backend type").with_hint(TPM_TYPES))
            }
            None => return fail(qerr!("Parameter 'type' is missing").with_hint(TPM_TYPES)),
        }
        if opts.get("type") == Some("emulator") && opts.get("chardev").is_none() {
            return fail(qerr!("tpm-emulator: parameter 'chardev' is missing"));
        }
        cx.spec.tpmdevs.push(plain(opts));
    }
    Ok(())
}

/// `-audiodev`.
pub fn audiodev(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    if is_help(arg.value) {
        return Err(Stop::Help(HelpRequest::Audiodev));
    }
    let (dict, mode) = if json::is_json(arg.value) {
        (at(&arg.loc, json::parse_object(arg.value))?, Mode::Json)
    } else {
        (at(&arg.loc, keyval::parse_no_help(arg.value, Some("driver")))?, Mode::Keyval)
    };
    push_audiodev(cx, dict, mode, &arg.loc)
}

fn push_audiodev(cx: &mut Cx, dict: Dict, mode: Mode, loc: &Loc) -> Res {
    let mut props = at(loc, visit::check(dict, &schema::AUDIODEV, mode))?;
    let id = props.remove_str("id");
    cx.spec.audiodevs.push(OptsSpec { id, props, loc: loc.clone() });
    Ok(())
}

/// Sound cards of `-audio model=`: name and the devices it stands for.
const SOUND_CARDS: &[(&str, &[&str])] = &[
    ("ac97", &["AC97"]),
    ("adlib", &["adlib"]),
    ("cs4231a", &["cs4231a"]),
    ("es1370", &["ES1370"]),
    ("gus", &["gus"]),
    ("hda", &["intel-hda", "hda-duplex"]),
    ("sb16", &["sb16"]),
];

/// `-audio`: a backend and a card.
pub fn audio_option(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let parsed = at(&arg.loc, keyval::parse(arg.value, Some("driver")))?;
    if parsed.help {
        return Err(Stop::Help(HelpRequest::Audiodev));
    }
    let mut dict = parsed.dict;
    let Some(model) = dict.remove_str("model") else {
        return Err(Stop::error(&arg.loc, qerr!("Parameter 'model' is missing")));
    };
    if is_help(&model) {
        return Err(Stop::Help(HelpRequest::SoundCards));
    }
    let Some((_, drivers)) = SOUND_CARDS.iter().find(|(name, _)| *name == model) else {
        return Err(Stop::error(&arg.loc, qerr!("Unknown sound card name `{model}'")));
    };
    let id = match dict.get_str("id") {
        Some(id) => id.to_string(),
        None => {
            let id = "audiodev0".to_string();
            dict.set("id", Value::text(id.clone()));
            id
        }
    };
    push_audiodev(cx, dict, Mode::Keyval, &arg.loc)?;
    for (i, driver) in drivers.iter().enumerate() {
        let mut props = Dict::new();
        if i + 1 == drivers.len() {
            props.push("audiodev", Value::text(id.clone()));
        }
        cx.late.devices.push(DeviceSpec {
            driver: driver.to_string(),
            id: None,
            props,
            json: false,
            loc: arg.loc.clone(),
        });
    }
    Ok(())
}

/// `-audio-help`.
pub fn audio_help(_: &mut Cx, _: &Arg<'_>) -> Res {
    Err(Stop::Help(HelpRequest::AudioHelp))
}
