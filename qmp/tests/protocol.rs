//! The protocol below the commands: what QEMU 7.2 answers to good and bad input.
//!
//! `protocol.txt` was recorded from it: `>` lines are input with `\xNN` and `\n` escapes, `<` lines what comes back,
//! without the line end. Where QEMU is installed the record is checked against it too. `RECORD=1` writes it anew.

mod common;

use common::{Client, Kind, Server};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/protocol.txt");

fn unescape(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [b, tail @ ..] = rest {
        rest = tail;
        match (b, rest) {
            (b'\\', [b'n', tail @ ..]) => {
                out.push(b'\n');
                rest = tail;
            }
            (b'\\', [b'x', h, l, tail @ ..]) => {
                let digit = |d: &u8| (*d as char).to_digit(16).unwrap() as u8;
                out.push(digit(h) << 4 | digit(l));
                rest = tail;
            }
            _ => out.push(*b),
        }
    }
    out
}

/// Input and answers of each case.
fn cases() -> Vec<(String, Vec<String>)> {
    let mut cases: Vec<(String, Vec<String>)> = Vec::new();
    for line in std::fs::read_to_string(RECORD).unwrap().lines() {
        match line.split_at(line.len().min(2)) {
            ("> ", input) => cases.push((input.into(), Vec::new())),
            ("< ", answer) => cases.last_mut().unwrap().1.push(answer.into()),
            _ => {}
        }
    }
    cases
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

fn check(server: &Server) {
    for (input, want) in cases() {
        let got = server.client().talk(&unescape(&input));
        let got: Vec<&str> = got.iter().map(|l| l.strip_suffix("\r\n").expect("line end")).collect();
        assert_eq!(got.len(), want.len(), "{input}");
        for (got, want) in got.into_iter().zip(want) {
            // The order of members means nothing in replies; errors are compared byte for byte.
            let same = got == want || (!want.contains("\"error\"") && json(got) == json(&want));
            assert!(same, "{input}\n got {got}\nwant {want}");
        }
    }
}

#[test]
fn ours_answers_as_recorded() {
    check(&Server::ours(Kind::Qmp));
}

#[test]
fn qemu_answers_as_recorded() {
    let Some(qemu) = Server::qemu(Kind::Qmp) else { return };
    if std::env::var_os("RECORD").is_some() {
        let mut out = String::new();
        for (input, _) in cases() {
            out.push_str(&format!("> {input}\n"));
            for line in qemu.client().talk(&unescape(&input)) {
                out.push_str(&format!("< {}", line.replace("\r\n", "\n")));
            }
        }
        std::fs::write(RECORD, out).unwrap();
    }
    check(&qemu);
}

#[test]
fn any_split_of_the_bytes_gives_the_same() {
    let server = Server::ours(Kind::Qmp);
    for (input, want) in cases().into_iter().filter(|c| c.0.len() < 80).step_by(7) {
        let mut client = server.client();
        for byte in unescape(&input) {
            client.send(&[byte]);
        }
        assert_eq!(client.talk(b"").len(), want.len(), "{input}");
    }
}

fn negotiation(server: &Server) -> Vec<String> {
    let mut client = Client::new(server.connect());
    client.line();
    client.send(
        b"{'execute': 'query-name', 'id': 1}{'execute': 'nope'}{'exec-oob': 'qmp_capabilities'}
        {'execute': 'qmp_capabilities', 'arguments': {'enable': ['foo']}}
        {'execute': 'qmp_capabilities', 'arguments': {'enable': [1]}}
        {'execute': 'qmp_capabilities', 'arguments': {'enabl': [1]}}{'a': 1}
        {'execute': 'qmp_capabilities', 'arguments': {'enable': ['oob', 'oob']}}",
    );
    let mut lines: Vec<String> = (0..8).map(|_| client.line()).collect();
    // What QEMU answers out of band may overtake the rest.
    let mut rest = client.talk(
        b"{'exec-oob': 'query-name', 'id': 1}{'exec-oob': 'nope'}
        {'execute': 'query-name', 'exec-oob': 'query-name', 'id': 3}
        {'exec-oob': 1}{'execute': 'qmp_capabilities', 'id': 4}",
    );
    rest.sort();
    lines.extend(rest);
    lines
}

#[test]
fn negotiation_is_qemus() {
    let ours = negotiation(&Server::ours(Kind::Qmp));
    assert!(ours[0].contains("Expecting capabilities negotiation with 'qmp_capabilities'"));
    assert_eq!(ours[7], "{\"return\": {}}\r\n");
    assert_eq!(ours.len(), 14);
    if let Some(qemu) = Server::qemu(Kind::Qmp) {
        assert_eq!(ours, negotiation(&qemu));
    }
}

fn greeting(kind: Kind, qemu: bool) -> Option<String> {
    let server = if qemu { Server::qemu(kind)? } else { Server::ours(kind) };
    let mut text = Client::new(server.connect()).until("    \"oob\"\r\n        ]\r\n    }\r\n}\r\n");
    let start = text.find("\"package\": \"").unwrap() + 12;
    let end = start + text[start..].find('"').unwrap();
    text.replace_range(start..end, "");
    Some(text)
}

#[test]
fn pretty_greeting_is_qemus() {
    let ours = greeting(Kind::Pretty, false).unwrap();
    if let Some(qemu) = greeting(Kind::Pretty, true) {
        assert_eq!(ours, qemu);
    }
}

#[test]
fn a_new_client_is_greeted_again() {
    let server = Server::ours(Kind::Qmp);
    for _ in 0..3 {
        // Half a request of the client before is forgotten.
        server.client().send(b"{'execute': ");
    }
    assert!(server.client().talk(b"{'execute': 'query-name'}")[0].contains("return"));
}

#[test]
fn events_come_before_the_reply() {
    let mut client = {
        let server = Server::ours(Kind::Qmp);
        let mut client = server.client();
        let lines = client
            .talk(b"{'execute': 'cont', 'id': 1}{'execute': 'stop'}{'execute': 'system_reset', 'id': 2}");
        let names: Vec<&str> = lines[..6]
            .iter()
            .map(|l| ["RESUME", "STOP", "RESET", "return"].into_iter().find(|n| l.contains(n)).unwrap_or("?"))
            .collect();
        assert_eq!(names, ["RESUME", "return", "STOP", "return", "RESET", "return"]);
        assert!(lines[0].starts_with("{\"timestamp\": {\"seconds\": "));
        assert!(lines[4].ends_with(
            "\"event\": \"RESET\", \"data\": {\"guest\": false, \"reason\": \"host-qmp-system-reset\"}}\r\n"
        ));
        client.send(b"{'execute': 'quit'}{'execute': 'query-name'}");
        client
    };
    assert!(client.line().contains("\"reason\": \"host-qmp-quit\""));
    assert_eq!(client.line(), "{\"return\": {}}\r\n");
    assert_eq!(client.line(), "");
}

#[test]
fn a_client_that_never_reads_is_stopped() {
    let server = Server::ours(Kind::Qmp);
    let mut stream = server.connect();
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    stream.write_all(b"{'execute': 'qmp_capabilities'}").unwrap();
    let request = b"{'execute': 'query-commands'}".repeat(100);
    let start = Instant::now();
    let mut sent = 0;
    // Sooner or later the socket takes no more.
    while stream.write_all(&request).is_ok() {
        sent += request.len();
        assert!(sent < 64 << 20 && start.elapsed() < Duration::from_secs(60), "input is never refused");
    }
    // Whoever reads gets on.
    let mut read = 0;
    let mut buf = vec![0; 1 << 16];
    while read < 4 << 20 {
        read += stream.read(&mut buf).unwrap();
    }
    drop(stream);
    server.client();
}

#[test]
fn junk_is_survived() {
    let server = Server::ours(Kind::Qmp);
    for byte in [b'a', b'&', b'{', b'"', b'0'] {
        let mut client = server.client();
        let start = Instant::now();
        client.send(&vec![byte; 1 << 20]);
        client.talk(b"\n");
        assert!(start.elapsed() < Duration::from_secs(10), "{}", byte as char);
    }
}
