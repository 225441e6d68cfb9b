//! What command lines are lowered to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use rqemu_frontend::{parse, HelpRequest, Parsed};
use rqemu_machine::spec::*;

fn outcome(line: &str) -> rqemu_frontend::Outcome {
    let argv: Vec<OsString> =
        ["/usr/bin/qemu"].into_iter().chain(line.split_whitespace()).map(Into::into).collect();
    parse(&argv)
}

fn spec(line: &str) -> VmSpec {
    match outcome(line).result {
        Ok(Parsed::Run(spec)) => *spec,
        other => panic!("{line}: {other:?}"),
    }
}

/// With the default devices of `pc`.
fn pc(line: &str) -> VmSpec {
    let mut spec = spec(line);
    defaults::apply(&mut spec, &MachineDefaults::default()).unwrap();
    spec
}

fn error(line: &str) -> String {
    match outcome(line).result {
        Err(err) => err.0.iter().map(|r| r.render("qemu")).collect(),
        other => panic!("{line}: {other:?}"),
    }
}

fn labels(spec: &VmSpec) -> Vec<&str> {
    spec.chardevs.iter().map(|c| c.id.as_str()).collect()
}

fn chardev<'a>(spec: &'a VmSpec, id: &str) -> &'a ChardevBackend {
    &spec.chardevs.iter().find(|c| c.id == id).unwrap_or_else(|| panic!("no chardev {id}")).backend
}

#[test]
fn nothing_said() {
    let spec = pc("");
    assert_eq!(spec.accels.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["tcg"]);
    assert_eq!(labels(&spec), ["serial0", "parallel0", "compat_monitor0"]);
    let places = place::place_drives(&spec.drives, &MachineDefaults::default()).0;
    assert_eq!(places.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["ide1-cd0", "floppy0", "sd0"]);
    assert_eq!(spec.nics.len(), 1);
    assert_eq!(spec.netdevs[0].kind, "user");
}

#[test]
fn a_program_called_kvm_tries_kvm() {
    let argv: Vec<OsString> = vec!["/usr/bin/kvm".into()];
    let Ok(Parsed::Run(spec)) = parse(&argv).result else { panic!() };
    assert_eq!(spec.accels.iter().map(|a| a.name.as_str()).collect::<Vec<_>>(), ["kvm", "tcg"]);
}

#[test]
fn nographic_and_its_company() {
    let spec = pc("-nographic");
    assert_eq!(labels(&spec), ["parallel0", "serial0-base", "serial0"]);
    assert_eq!(spec.monitors[0].chardev, "serial0");
    assert_eq!(spec.display.kind.as_deref(), Some("none"));

    let spec = pc("-nographic -serial stdio");
    assert_eq!(labels(&spec), ["serial0", "parallel0", "compat_monitor0"]);
    assert_eq!(chardev(&spec, "compat_monitor0"), &ChardevBackend::Stdio { signal: None });

    let spec = pc("-nographic -serial mon:stdio");
    assert_eq!(labels(&spec), ["serial0-base", "serial0", "parallel0"]);
    assert_eq!(chardev(&spec, "serial0-base"), &ChardevBackend::Stdio { signal: Some(false) });
    assert_eq!(spec.monitors.len(), 1);

    let spec = pc("-nographic -monitor none -nodefaults");
    assert!(spec.chardevs.is_empty() && spec.monitors.is_empty() && spec.drives.is_empty());
}

#[test]
fn drives_of_all_forms() {
    let spec = spec(
        "disk.img -cdrom cd.iso -fda f.img -pflash code.fd -drive file=a.qcow2,if=virtio,cache=none,format=qcow2,id=x \
         -drive if=none,media=cdrom,readonly=on,bps=1000,bps_max=7000 -snapshot",
    );
    let d = &spec.drives;
    assert_eq!((d[0].index, d[0].file.as_deref(), d[0].media), (Some(0), Some("disk.img"), Media::Disk));
    assert_eq!((d[1].index, d[1].media, d[1].read_only), (Some(2), Media::Cdrom, true));
    assert_eq!((d[2].interface, d[2].index), (Some(DriveInterface::Floppy), Some(0)));
    assert_eq!((d[3].interface, d[3].index), (Some(DriveInterface::Pflash), None));
    assert_eq!(d[4].id.as_deref(), Some("x"));
    assert!(d[4].writeback && d[4].options.get_bool("cache.direct").unwrap().unwrap());
    assert_eq!(d[4].options.get_str("driver"), Some("qcow2"));
    assert_eq!(d[5].throttle.limits, [("bps-total".to_string(), 1000), ("bps-total-max".to_string(), 7000)]);
    assert!(d.iter().all(|d| d.snapshot));
}

#[test]
fn machine_memory_and_cpus() {
    let spec = spec(
        "-M q35,accel=kvm:tcg,usb=off -machine hpet=off -m 2G,slots=2,maxmem=4G -smp 4,sockets=2 -cpu host,-vmx,+avx,kvm=off \
         -no-acpi -kernel k -append a=b -global a.b=c -rtc driftfix=slew",
    );
    assert_eq!(spec.machine.kind.as_deref(), Some("q35"));
    let props: Vec<_> = spec.machine.props.iter().map(|(k, v)| (k, v.as_str().unwrap())).collect();
    assert_eq!(props, [("usb", "off"), ("hpet", "off"), ("acpi", "off")]);
    assert_eq!(
        spec.accels.iter().map(|a| (a.name.as_str(), a.origin)).collect::<Vec<_>>(),
        [("kvm", AccelOrigin::Machine), ("tcg", AccelOrigin::Machine)]
    );
    assert_eq!(
        (spec.memory.size, spec.memory.slots, spec.memory.maxmem),
        (Some(2 << 30), Some(2), Some(4 << 30))
    );
    assert_eq!((spec.smp.cpus, spec.smp.sockets), (Some(4), Some(2)));
    assert_eq!(spec.cpu.as_ref().unwrap().features.len(), 3);
    assert_eq!(spec.firmware.append.as_deref(), Some("a=b"));
    let globals: Vec<_> =
        spec.globals.iter().map(|g| format!("{}.{}={}", g.driver, g.property, g.value)).collect();
    assert_eq!(globals, ["mc146818rtc.lost_tick_policy=slew", "a.b=c"]);
}

#[test]
fn later_machine_options_and_smp_merge() {
    let spec =
        spec("-machine pc,smp.cpus=2,boot.order=c -smp cores=4 -boot menu=on -m 1 -m slots=1,maxmem=1G");
    assert_eq!((spec.smp.cpus, spec.smp.cores), (Some(2), Some(4)));
    assert_eq!((spec.boot.order.as_deref(), spec.boot.menu), (Some("c"), Some(true)));
    assert_eq!((spec.memory.size, spec.memory.slots), (Some(1 << 20), Some(1)));
}

#[test]
fn sockets_and_old_strings() {
    let spec = spec(
        "-qmp unix:/tmp/q,server=on,wait=off -serial tcp:localhost:4,server,nowait -monitor telnet::5,server,nowait \
         -chardev socket,id=c,host=h,port=1,nodelay=on -chardev stdio,id=m,mux=on -mon m -serial chardev:m",
    );
    assert_eq!(labels(&spec), ["compat_monitor0", "compat_monitor1", "c", "m-base", "m", "serial0"]);
    let ChardevBackend::Socket(qmp) = chardev(&spec, "compat_monitor0") else { panic!() };
    assert_eq!((qmp.server, qmp.wait), (Some(true), Some(false)));
    assert_eq!(qmp.addr, SocketAddress::Unix { path: "/tmp/q".into(), abstract_: None, tight: None });
    let ChardevBackend::Socket(hmp) = chardev(&spec, "compat_monitor1") else { panic!() };
    assert_eq!(hmp.telnet, Some(true));
    let modes: Vec<_> = spec.monitors.iter().map(|m| (m.chardev.as_str(), m.mode)).collect();
    assert_eq!(
        modes,
        [
            ("compat_monitor0", MonitorMode::Control),
            ("compat_monitor1", MonitorMode::Readline),
            ("m", MonitorMode::Readline)
        ]
    );
    let serials: Vec<_> = spec.serials.iter().map(|s| s.chardev.as_deref()).collect();
    assert_eq!(serials, [Some("serial0"), Some("m")]);
}

#[test]
fn gdb_listens_without_waiting() {
    let spec = spec("-s");
    let ChardevBackend::Socket(gdb) = chardev(&spec, "gdb") else { panic!() };
    assert_eq!((gdb.server, gdb.wait, gdb.nodelay), (Some(true), Some(false), Some(true)));
    let SocketAddress::Inet(addr) = &gdb.addr else { panic!() };
    assert_eq!((addr.host.as_str(), addr.port.as_str()), ("", "1234"));
}

#[test]
fn networks() {
    let spec = spec(
        "-netdev user,id=n,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4 -nic user,model=e1000,mac=52:54:00:12:34:56 \
         -net nic,model=virtio -net user -netdev stream,id=s,addr.type=unix,addr.path=/x,server=on",
    );
    let kinds: Vec<_> =
        spec.netdevs.iter().map(|n| (n.kind.as_str(), n.id.as_deref(), n.peer.clone())).collect();
    assert_eq!(
        kinds,
        [
            ("stream", Some("s"), NetPeer::None),
            ("user", Some("n"), NetPeer::None),
            ("user", None, NetPeer::Index(0)),
            ("user", None, NetPeer::Hub(0)),
        ]
    );
    let Some(Value::List(rules)) = spec.netdevs[1].props.get("hostfwd") else { panic!() };
    assert_eq!(rules.len(), 2);
    assert_eq!(spec.nics[0].mac, Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert_eq!((spec.nics[0].peer.clone(), spec.nics[1].peer.clone()), (NetPeer::Index(2), NetPeer::Hub(0)));
    assert!(!spec.defaults.net);
}

#[test]
fn json_and_text_give_the_same_backend() {
    let text = spec("-netdev stream,id=s,addr.type=inet,addr.host=h,addr.port=1,server=on");
    let json = spec(
        r#"-netdev {"type":"stream","id":"s","server":true,"addr":{"type":"inet","host":"h","port":"1"}}"#,
    );
    assert_eq!(text, json);
}

#[test]
fn devices_in_order() {
    let spec = spec(
        r#"-device {"driver":"e1000","id":"j","addr":3} -device virtio-blk-pci,drive=d,id=v -usbdevice tablet -debugcon null -virtfs local,path=/tmp,mount_tag=t,security_model=none"#,
    );
    let names: Vec<_> = spec.devices.iter().map(|d| d.driver.as_str()).collect();
    assert_eq!(names, ["usb-tablet", "virtio-blk-pci", "virtio-9p-pci", "isa-debugcon", "e1000"]);
    assert_eq!(spec.devices[4].props.get("addr"), Some(&Value::Int(3)));
    assert_eq!(spec.devices[1].props.get("drive"), Some(&Value::text("d")));
    assert_eq!(spec.machine.props.get_str("usb"), Some("on"));
    assert_eq!(spec.fsdevs[0].id.as_deref(), Some("t"));
}

#[test]
fn a_device_keeps_the_default_of_its_class_away() {
    assert!(!spec("-device isa-serial,chardev=c -chardev null,id=c").defaults.serial);
    assert!(!spec("-device VGA").defaults.vga);
    assert!(!spec("-device ide-cd,drive=x").defaults.cdrom);
    assert!(!spec("-vga none").defaults.vga);
    assert!(spec("-device e1000").defaults.serial);
}

#[test]
fn set_and_readconfig() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.cfg");
    let text =
        "# comment\n[machine]\n  type = \"q35\"\n[device \"d\"]\n  driver = \"e1000\"\n  addr = \"5\"\n\
                [smp-opts]\n  cpus = \"3\"\n[net]\n  type = \"none\"\n[msg]\n  timestamp = \"on\"\n";
    std::fs::write(&file, text).unwrap();
    let name = file.to_str().unwrap();
    let spec = spec(&format!("-readconfig {name} -set device.d.addr=6"));
    assert_eq!(spec.machine.kind.as_deref(), Some("q35"));
    assert_eq!((spec.devices[0].driver.as_str(), spec.devices[0].id.as_deref()), ("e1000", Some("d")));
    assert_eq!(spec.devices[0].props.get_str("addr"), Some("6"));
    assert_eq!(spec.smp.cpus, Some(3));
    assert!(!spec.defaults.net && spec.run.msg_timestamp);

    std::fs::write(&file, "[device]\nx = y\n").unwrap();
    assert_eq!(error(&format!("-readconfig {name}")), format!("qemu:{name}:2: parse error\n"));
    std::fs::write(&file, "[nosuch]\n").unwrap();
    assert_eq!(
        error(&format!("-readconfig {name}")),
        format!("qemu:{name}:1: There is no option group 'nosuch'\n")
    );
}

#[test]
fn help_requests() {
    let help = |line: &str| match outcome(line).result {
        Ok(Parsed::Help(help)) => help,
        other => panic!("{line}: {other:?}"),
    };
    assert_eq!(help("-device help -cpu help -M help"), HelpRequest::Machine(None));
    assert_eq!(help("-device help -cpu ?"), HelpRequest::Cpu);
    assert_eq!(help("-M pc,help"), HelpRequest::Machine(Some("pc".into())));
    assert_eq!(help("-device e1000,help"), HelpRequest::Device(Some("e1000".into())));
    assert_eq!(help("-object rng-random,help"), HelpRequest::Object(Some("rng-random".into())));
    assert_eq!(help("-accel help"), HelpRequest::Accel);
    assert_eq!(help("-chardev help"), HelpRequest::Chardev);
    assert_eq!(help("-netdev help"), HelpRequest::Netdev);
    assert_eq!(help("-net nic,model=help"), HelpRequest::NicModels);
    assert_eq!(help("-drive format=help"), HelpRequest::DriveFormats);
    assert_eq!(help("-d nosuch"), HelpRequest::Log);
    assert_eq!(help("-display help"), HelpRequest::Display);
    assert_eq!(help("-vga help"), HelpRequest::Vga);
    assert_eq!(help("-L help"), HelpRequest::DataDirs);
}

#[test]
fn help_and_version_texts() {
    let text = |line: &str| match outcome(line).result {
        Ok(Parsed::Text(text, status)) => (text, status),
        other => panic!("{line}: {other:?}"),
    };
    let (version, status) = text("--version");
    assert_eq!(status, 0);
    assert_eq!(version.lines().count(), 2);
    assert!(version.starts_with("QEMU emulator version 7.2.22 (rqemu "));
    let (help, status) = text("-h");
    assert_eq!(status, 0);
    assert!(help.starts_with("QEMU emulator version "));
    // What scripts look for.
    for start in [
        "-netdev user",
        "-netdev tap",
        "-gdb ",
        "-qmp ",
        "-enable-kvm ",
        "-display ",
        "-machine ",
        "-uuid ",
        "-no-acpi ",
        "-spice ",
        "-blockdev ",
        "-chardev ",
        "-object ",
        "-daemonize ",
        "-sandbox ",
        "-vnc ",
    ] {
        assert!(help.lines().any(|l| l.starts_with(start)), "{start}");
    }
    for part in [",vhost=on|off", ",fds=x:y:...:z", "auto-read-only=on|off"] {
        assert!(help.contains(part), "{part}");
    }
    assert_eq!(text("-chardev null,help").1, 1);
    assert_eq!(text("-boot help").1, 0);
}

#[test]
fn bytes_that_are_not_utf8_survive() {
    let argv = vec![OsString::from("q"), "-kernel".into(), OsString::from_vec(b"/k\xff".to_vec())];
    let Ok(Parsed::Run(spec)) = parse(&argv).result else { panic!() };
    let path = text::to_path(spec.firmware.kernel.as_deref().unwrap());
    assert_eq!(path.into_os_string().into_vec(), b"/k\xff");
}

#[test]
fn no_text_makes_the_parser_panic() {
    use proptest::prelude::*;
    let words = prop::sample::select(vec![
        "-m",
        "-smp",
        "-device",
        "-drive",
        "-chardev",
        "-serial",
        "-netdev",
        "-object",
        "-machine",
        "-cpu",
        "-boot",
        "-global",
        "-set",
        "-nic",
        "-net",
        "-rtc",
        "-smbios",
        "-numa",
        "-audiodev",
        "-display",
        "-blockdev",
        "-icount",
        "-qmp",
        "-dfilter",
        "-uuid",
        "-acpitable",
        "-fw_cfg",
        "-sandbox",
        "-mon",
    ]);
    let value = "[a-d0-9=,.:{}\"'\\[\\]xno@+-]{0,24}|\\PC{0,12}";
    proptest!(ProptestConfig::with_cases(2000), |(option in words, value in value)| {
        let argv: Vec<OsString> = vec!["q".into(), option.into(), value.into()];
        let _ = parse(&argv);
    });
}
