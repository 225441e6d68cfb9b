//! The stub without a processor: packets in, packets out.

use std::sync::Arc;

use super::*;
use crate::chardev::MonId;
use crate::shared::Shared;
use crate::spec::{ChardevBackend, ChardevSpec, Loc};

struct Host;

impl MonitorHost for Host {
    fn input(&mut self, _m: &mut MachineLock<'_>, _mon: MonId, _input: MonInput) {}
    fn flush_events(&mut self, _m: &mut MachineLock<'_>) {}
    fn monitor_command(&mut self, _m: &mut MachineLock<'_>, line: &str) -> String {
        line.to_uppercase()
    }
}

/// A machine whose stub writes into a ring buffer.
fn machine() -> Arc<Shared> {
    let mut m = crate::device::testing::machine();
    let spec = ChardevSpec {
        id: "gdb".into(),
        backend: ChardevBackend::Ringbuf { size: Some(65536) },
        logfile: None,
        logappend: false,
        loc: Loc::NONE,
    };
    let chr = m.add_chardev(&spec, &mut |_| {}).unwrap();
    m.start_gdb(chr).unwrap();
    let ram = m.new_ram("ram", 1 << 20, false, None).unwrap();
    let system = m.mem.system;
    m.mem.map(system, ram, 0, 0);
    m.settle();
    Shared::new(m)
}

/// What the stub answers to a packet, without acknowledgement and frame.
fn ask(shared: &Arc<Shared>, packet: &[u8]) -> String {
    let mut m = shared.lock();
    m.gdb_inbox.push_back(MonInput::Data(frame(packet)));
    pump(&mut m, &mut Host);
    let chr = m.chardevs.find("gdb").unwrap();
    let out = m.chardevs.ringbuf_take(chr, 65536).unwrap();
    let text = String::from_utf8(out).unwrap();
    let start = text.find('$').unwrap();
    text[start + 1..text.len() - 3].to_string()
}

#[test]
fn queries() {
    let s = machine();
    assert!(ask(&s, b"qSupported:multiprocess+").contains("qXfer:features:read+"));
    assert_eq!(ask(&s, b"qfThreadInfo"), "m01");
    assert_eq!(ask(&s, b"qsThreadInfo"), "l");
    assert_eq!(ask(&s, b"?"), "T05thread:01;");
    assert_eq!(ask(&s, b"Hg1"), "OK");
    assert_eq!(ask(&s, b"Hg9"), "E22");
    assert_eq!(ask(&s, b"vCont?"), "vCont;c;C;s;S");
    assert_eq!(ask(&s, b"qNonsense"), "");
    assert_eq!(ask(&s, b"g"), "E22", "no processor, no registers");
    let hex = to_hex(b"info x");
    assert_eq!(ask(&s, format!("qRcmd,{hex}").as_bytes()), to_hex(b"INFO X"));
}

#[test]
fn the_description_comes_in_parts() {
    let s = machine();
    let mut xml = String::new();
    loop {
        let part = ask(&s, format!("qXfer:features:read:target.xml:{:x},400", xml.len()).as_bytes());
        xml += &part[1..];
        if part.starts_with('l') {
            break;
        }
    }
    assert_eq!(xml, regs::target_xml());
}

#[test]
fn memory_by_physical_address() {
    let s = machine();
    assert_eq!(ask(&s, b"m1000,4"), "E14", "nothing translates addresses");
    assert_eq!(ask(&s, b"Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(ask(&s, b"M1000,4:11223344"), "OK");
    assert_eq!(ask(&s, b"m1000,4"), "11223344");
    assert_eq!(ask(&s, b"Z0,1001,1"), "OK");
    assert_eq!(ask(&s, b"m1000,4"), "11cc3344");
    assert_eq!(ask(&s, b"z0,1001,1"), "OK");
    assert_eq!(ask(&s, b"m1000,4"), "11223344");
    assert_eq!(ask(&s, b"z0,1001,1"), "E22");
    assert_eq!(ask(&s, b"Z0,1001,1"), "OK");
    assert_eq!(ask(&s, b"D"), "OK");
    assert_eq!(ask(&s, b"Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(ask(&s, b"m1000,4"), "11223344", "detaching takes breakpoints out");
}

#[test]
fn junk_gets_errors() {
    let s = machine();
    for bad in ["m", "mzz,1", "m0,ffffff", "M0,2:00", "P", "Pff=00", "Z9,0,0,", "Z1,3,", "vCont;x", "H"] {
        let reply = ask(&s, bad.as_bytes());
        assert!(reply.is_empty() || reply.starts_with('E'), "{bad}: {reply}");
    }
}
