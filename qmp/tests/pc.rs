//! Commands on a whole machine: ours and, where it is installed, QEMU's.

mod common;

use common::{Client, Kind, Server};
use serde_json::{json, Value};
use std::path::Path;

/// A machine needs KVM to be built.
fn usable() -> bool {
    Path::new("/dev/kvm").exists()
}

fn run(client: &mut Client, command: &str, arguments: Value) -> Value {
    let request = json!({"execute": command, "arguments": arguments});
    client.send(request.to_string().as_bytes());
    loop {
        let line = client.line();
        let reply: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        if reply.get("event").is_none() {
            return reply;
        }
    }
}

fn human(client: &mut Client, line: &str) -> String {
    let reply = run(client, "human-monitor-command", json!({"command-line": line}));
    reply["return"].as_str().unwrap_or_else(|| panic!("{reply}")).into()
}

/// What QEMU 7.2 refuses on the same machine, or without arguments.
const ERRORS: &[(&str, &str)] = &[
    ("query-balloon", "No balloon device has been activated"),
    ("query-cpu-model-expansion", "Parameter 'type' is missing"),
    ("query-sev-attestation-report", "Parameter 'mnonce' is missing"),
    ("query-sev-capabilities", "SEV is not enabled in KVM"),
    ("query-sev-launch-measure", "SEV launch measurement is not available"),
    ("query-sgx", "No EPC regions defined, SGX not available"),
    ("query-sgx-capabilities", "SGX is not enabled in KVM"),
    ("query-stats", "Parameter 'target' is missing"),
    ("query-vm-generation-id", "VM Generation ID device not found"),
];

#[test]
fn every_query_answers() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let commands = run(&mut client, "query-commands", json!({}));
    for c in commands["return"].as_array().unwrap() {
        let name = c["name"].as_str().unwrap();
        if name.starts_with("query-") {
            let reply = run(&mut client, name, json!({}));
            if std::env::var_os("SHOW").is_some() {
                println!("{name}: {}", reply.to_string().chars().take(1500).collect::<String>());
            }
            match ERRORS.iter().find(|(n, _)| *n == name) {
                Some((_, text)) => assert_eq!(reply["error"]["desc"], *text, "{name}"),
                None => assert!(reply.get("return").is_some(), "{name}: {reply}"),
            }
        }
    }
}

#[test]
fn every_info_answers() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let list = human(&mut client, "info");
    for line in list.lines() {
        let name = line.split_whitespace().nth(1).unwrap();
        let text = human(&mut client, &format!("info {name}"));
        if std::env::var_os("SHOW").is_some() {
            println!("=== {name}\n{}", text.chars().take(6000).collect::<String>());
        }
        assert!(!text.contains("unknown command"), "{name}: {text}");
    }
}

#[test]
fn media_and_trays() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.iso");
    std::fs::write(&image, vec![0; 4096]).unwrap();
    let tray = |client: &mut Client| {
        let list = run(client, "query-block", json!({}));
        let cd =
            list["return"].as_array().unwrap().iter().find(|d| d["device"] == "ide1-cd0").unwrap().clone();
        (cd["tray_open"].clone(), cd["inserted"]["file"].clone())
    };
    let ok = json!({"return": {}});
    assert_eq!(tray(&mut client), (json!(false), json!(null)));
    let change = json!({"device": "ide1-cd0", "filename": image, "format": "raw"});
    assert_eq!(run(&mut client, "blockdev-change-medium", change), ok);
    assert_eq!(tray(&mut client), (json!(false), json!(image)));
    // A file that is not there leaves the medium where it is.
    let missing = json!({"device": "ide1-cd0", "filename": "/nonexistent", "format": "raw"});
    assert!(run(&mut client, "blockdev-change-medium", missing)["error"]["desc"].is_string());
    assert_eq!(tray(&mut client), (json!(false), json!(image)));
    assert_eq!(run(&mut client, "eject", json!({"device": "ide1-cd0"})), ok);
    assert_eq!(tray(&mut client), (json!(true), json!(null)));
    assert_eq!(run(&mut client, "blockdev-close-tray", json!({"device": "ide1-cd0"})), ok);
    assert_eq!(tray(&mut client), (json!(false), json!(null)));
    assert_eq!(human(&mut client, &format!("change ide1-cd0 {} raw", image.display())), "");
    assert_eq!(tray(&mut client), (json!(false), json!(image)));
    assert_eq!(human(&mut client, "eject nosuch"), "Error: Device 'nosuch' not found\r\n");
}

#[test]
fn objects_and_memory() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let get = |client: &mut Client, path: &str, property: &str| {
        run(client, "qom-get", json!({"path": path, "property": property}))
    };
    assert_eq!(get(&mut client, "/machine", "type"), json!({"return": "pc-i440fx-7.2-machine"}));
    assert_eq!(get(&mut client, "/machine/i440fx/pci.0", "type"), json!({"return": "PCI"}));
    assert_eq!(
        get(&mut client, "/machine", "zz")["error"]["desc"],
        "Property 'pc-i440fx-7.2-machine.zz' not found"
    );
    assert_eq!(human(&mut client, "xp/2xw 0"), "0000000000000000: 0x00000000 0x00000000\r\n");
    assert_eq!(human(&mut client, "o/b 0x71 0\n").as_str(), "");
    assert_eq!(human(&mut client, "i/b 0x61.0").len(), "portb[0x0062] = 0x00\r\n".len());
    assert_eq!(human(&mut client, "p/x $eip"), "0xfff0\r\n");
    assert!(human(&mut client, "info registers").starts_with("\r\nCPU#0\r\nEAX="));
    assert_eq!(human(&mut client, "sendkey ctrl-alt-delete 1"), "");
    let file = tempfile::NamedTempFile::new().unwrap();
    let save = json!({"val": 0, "size": 5000, "filename": file.path()});
    assert_eq!(run(&mut client, "pmemsave", save), json!({"return": {}}));
    assert_eq!(file.path().metadata().unwrap().len(), 5000);
}

#[test]
fn dumps_hold_the_memory() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core");
    let dump =
        json!({"paging": false, "protocol": format!("file:{}", path.display()), "begin": 0, "length": 8192});
    assert_eq!(run(&mut client, "dump-guest-memory", dump), json!({"return": {}}));
    let total = json!({"status": "completed", "completed": 8192, "total": 8192});
    assert_eq!(run(&mut client, "query-dump", json!({})), json!({"return": total}));
    let core = std::fs::read(&path).unwrap();
    assert_eq!(&core[..4], b"\x7fELF");
    // Two CPUs, each with two notes; then the memory, then the names of the sections.
    let notes = 2 * (12 + 8 + 144) + 2 * (12 + 8 + 440);
    assert_eq!(core.len(), 52 + 2 * 40 + 2 * 32 + notes + 8192 + 11);
    let beyond = json!({"paging": false, "protocol": format!("file:{}", path.display()), "begin": 1u64 << 40, "length": 1});
    let reply = run(&mut client, "dump-guest-memory", beyond);
    assert_eq!(reply["error"]["desc"], "dump: no guest memory to dump");
}

#[test]
fn backends_come_and_go() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let ok = json!({"return": {}});
    let add = json!({"qom-type": "memory-backend-ram", "id": "m0", "size": 1 << 20});
    assert_eq!(run(&mut client, "object-add", add), ok);
    let size = json!({"path": "/objects/m0", "property": "size"});
    assert_eq!(run(&mut client, "qom-get", size), json!({"return": 1 << 20}));
    assert_eq!(human(&mut client, "object_add iothread,id=t0,poll-max-ns=5"), "");
    let thread = run(&mut client, "query-iothreads", json!({}))["return"][0].clone();
    assert_eq!((thread["id"].as_str(), thread["poll-max-ns"].as_i64()), (Some("t0"), Some(5)));
    assert!(thread["thread-id"].as_i64() > Some(0));
    for id in ["t0", "m0"] {
        assert_eq!(human(&mut client, &format!("object_del {id}")), "");
    }
    let ring = json!({"id": "r", "backend": {"type": "ringbuf", "data": {"size": 8}}});
    assert_eq!(run(&mut client, "chardev-add", ring), ok);
    assert_eq!(human(&mut client, "ringbuf_write r abcdefghijk"), "");
    assert_eq!(human(&mut client, "ringbuf_read r 4"), "defg\r\n");
    let rest = json!({"device": "r", "size": 100, "format": "base64"});
    assert_eq!(run(&mut client, "ringbuf-read", rest), json!({"return": "aGlqaw=="}));
    let null = json!({"id": "r", "backend": {"type": "null", "data": {}}});
    assert_eq!(run(&mut client, "chardev-change", null), ok);
    assert_eq!(human(&mut client, "ringbuf_read r 4"), "Error: r is not a ringbuf device\r\n");
    assert_eq!(human(&mut client, "chardev-remove r"), "");
}

#[test]
fn devices_that_cannot_be_plugged() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let mut refusal = |what: serde_json::Value| run(&mut client, "device_add", what)["error"]["desc"].clone();
    assert_eq!(refusal(json!({"driver": "isa-serial"})), "Bus 'isa.0' does not support hotplugging");
    let pluggable = "Parameter 'driver' expects a pluggable device type";
    assert_eq!(refusal(json!({"driver": "VGA"})), pluggable);
    assert_eq!(refusal(json!({"driver": "PIIX3"})), pluggable);
    let name = json!({"driver": "virtio-rng-pci", "id": "1v"});
    assert_eq!(refusal(name), "Parameter 'id' expects an identifier");
    // Values are read as on the command line: text and numbers are the same.
    let word = json!({"driver": "virtio-rng-pci", "max-bytes": "x"});
    assert_eq!(refusal(word), "Parameter 'max-bytes' expects integer");
    assert!(refusal(json!({"driver": "virtio-rng-pci", "id": "v", "max-bytes": "1024"})).is_null());
    let get = json!({"path": "/machine/peripheral/v", "property": "max-bytes"});
    assert_eq!(run(&mut client, "qom-get", get), json!({"return": 1024}));
}

#[test]
fn statistics_of_kvm() {
    if !usable() {
        return;
    }
    let server = Server::pc(Kind::Qmp);
    let mut client = server.client();
    let schemas = run(&mut client, "query-stats-schemas", json!({}));
    let cpu = &schemas["return"][0];
    if cpu.is_null() {
        return; // a kernel before 5.14
    }
    assert_eq!((&cpu["target"], &cpu["provider"]), (&json!("vcpu"), &json!("kvm")));
    let exits = cpu["stats"].as_array().unwrap().iter().find(|s| s["name"] == "exits").unwrap();
    assert_eq!(*exits, json!({"name": "exits", "type": "cumulative", "exponent": 0}));
    let filter = json!({"target": "vcpu", "providers": [{"provider": "kvm", "names": ["exits"]}]});
    let list = run(&mut client, "query-stats", filter)["return"].clone();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["qom-path"], "/machine/unattached/device[0]");
    assert!(list[0]["stats"][0]["value"].is_u64());
}
