//! QMP input: the parser in pieces of any size, a session around it, and what is written back.
#![cfg_attr(fuzzing, no_main)]

use rqemu_qmp::session::Session;
use rqemu_qmp::wire::{self, Parser, Style};

fn check(data: &[u8]) {
    let whole = items(data, data.len().max(1));
    let step = data.first().map_or(1, |b| usize::from(*b % 7) + 1);
    assert_eq!(whole, items(data, step), "the result depends on how the input is cut");
    let mut s = Session::new(Style::Compact);
    s.opened();
    for c in data.chunks(step) {
        s.input(c);
        while let Some(mut r) = s.next_request() {
            if r.command == "qmp_capabilities" {
                s.negotiate(true);
            }
            let to = r.reply_to();
            s.reply(to, Ok(r.arguments.into()));
        }
    }
}

fn items(data: &[u8], step: usize) -> Vec<String> {
    let mut p = Parser::new();
    let mut out = Vec::new();
    for mut c in data.chunks(step) {
        while let Some(i) = p.next(&mut c) {
            out.push(match i {
                Ok(v) => {
                    let text = wire::to_string(&v, Style::Compact);
                    // A bare word ends only with what follows it.
                    let again = Parser::new().next(&mut format!("{text}\n").as_bytes());
                    assert!(matches!(again, Some(Ok(_))), "{text}");
                    text
                }
                Err(e) => e,
            });
        }
    }
    out
}

rqemu_fuzz::target!(
    [
        r#"{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}{"exec-oob":"x","id":[1,null]}"#,
        r#"{"execute":"device_add","id":"a","arguments":{"driver":"virtio-net-pci","mac":"52:54","x":-1.5e3}}"#,
        "{'a':[true,false,null,'\\u20ac\\ud83d\\ude00\\n'],'b':{'c':18446744073709551615}}[[[[]]]]",
        "{\"a\": 0x, tru} \u{1f} 'x\n {\"execute\":\"quit\"}\n",
    ]
    .map(|s| s.as_bytes().to_vec())
    .to_vec(),
    check
);
