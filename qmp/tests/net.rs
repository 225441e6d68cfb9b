//! Network commands of both monitors, on a machine without devices. The expected texts are QEMU 7.2's.

mod common;

use common::{Client, Kind, Server};
use serde_json::{json, Value};

fn run(client: &mut Client, command: &str, arguments: Value) -> Value {
    client.send(json!({"execute": command, "arguments": arguments}).to_string().as_bytes());
    loop {
        let line = client.line();
        let reply: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        if reply.get("event").is_none() {
            return reply;
        }
    }
}

fn error(client: &mut Client, command: &str, arguments: Value) -> String {
    let reply = run(client, command, arguments);
    reply["error"]["desc"].as_str().unwrap_or_else(|| panic!("{reply}")).into()
}

fn ok(client: &mut Client, command: &str, arguments: Value) {
    let reply = run(client, command, arguments);
    assert_eq!(reply["return"], json!({}), "{reply}");
}

fn human(client: &mut Client, line: &str) -> String {
    let reply = run(client, "human-monitor-command", json!({"command-line": line}));
    reply["return"].as_str().unwrap_or_else(|| panic!("{reply}")).replace('\r', "")
}

#[test]
fn back_ends_come_and_go() {
    let server = Server::ours(Kind::Qmp);
    let mut c = server.client();
    let hub = |id: &str| json!({"type": "hubport", "id": id, "hubid": 3});
    ok(&mut c, "netdev_add", hub("h"));
    assert_eq!(error(&mut c, "netdev_add", hub("h")), "Duplicate ID 'h'");
    assert_eq!(error(&mut c, "netdev_add", hub("9x")), "Parameter 'id' expects an identifier");
    let e = error(&mut c, "netdev_add", json!({"type": "foo", "id": "a"}));
    assert_eq!(e, "Parameter 'type' does not accept value 'foo'");
    let e = error(&mut c, "netdev_add", json!({"type": "hubport", "id": "a"}));
    assert_eq!(e, "Parameter 'hubid' is missing");
    assert_eq!(human(&mut c, "info network"), "hub 3\n \\ h\n");
    ok(&mut c, "set_link", json!({"name": "h", "up": false}));
    assert_eq!(error(&mut c, "set_link", json!({"name": "x", "up": true})), "Device 'x' not found");
    assert_eq!(error(&mut c, "set_link", json!({"name": "h"})), "Parameter 'up' is missing");
    assert_eq!(error(&mut c, "query-rx-filter", json!({"name": "x"})), "invalid net client name: x");
    assert_eq!(error(&mut c, "query-rx-filter", json!({"name": "h"})), "net client(h) isn't a NIC");
    assert_eq!(run(&mut c, "query-rx-filter", json!({}))["return"], json!([]));
    ok(
        &mut c,
        "announce-self",
        json!({"initial": 50, "max": 550, "rounds": 2, "step": 50, "interfaces": ["x"]}),
    );
    assert_eq!(error(&mut c, "announce-self", json!({})), "Parameter 'initial' is missing");
    ok(&mut c, "netdev_del", json!({"id": "h"}));
    assert_eq!(error(&mut c, "netdev_del", json!({"id": "h"})), "Device 'h' not found");
}

#[test]
fn human_commands() {
    let server = Server::ours(Kind::Qmp);
    let mut c = server.client();
    for (line, answer) in [
        ("netdev_add hubport,id=h,hubid=4", ""),
        ("netdev_add hubport,id=h,hubid=4", "Try \"help netdev_add\" for more information\n"),
        ("netdev_add hubport", "Error: Parameter 'id' is missing\n"),
        ("netdev_add hubport,id=b,hubid=zz", "Error: Parameter 'hubid' expects an int64 value\n"),
        ("set_link h off", ""),
        ("set_link h 1", "Expected 'on' or 'off'\nTry \"help set_link\" for more information\n"),
        ("set_link x on", "Error: Device 'x' not found\n"),
        ("announce_self", ""),
        ("announce_self x,y id", ""),
        ("info network", "hub 4\n \\ h\n"),
        ("netdev_del h", ""),
        ("netdev_del h", "Error: Device 'h' not found\n"),
        ("info network", "hub 4\n"),
    ] {
        assert_eq!(human(&mut c, line), answer, "{line}");
    }
}
