use super::*;
use crate::device::testing::machine;
use crate::spec::{ChardevBackend, ChardevSpec, Loc};

fn spec(id: &str, backend: ChardevBackend) -> ChardevSpec {
    ChardevSpec { id: id.into(), backend, logfile: None, logappend: false, loc: Loc::NONE }
}

#[test]
fn ringbuf_keeps_the_newest() {
    let mut m = machine();
    let id = m.add_chardev(&spec("r", ChardevBackend::Ringbuf { size: Some(4) }), &mut |_| ()).unwrap();
    assert_eq!(m.chr_write(id, b"abcdef"), 6);
    let got = m.chardevs.with_backend::<files::Ringbuf, _>(id, |r| r.take(10)).unwrap();
    assert_eq!(got, b"cdef");
    let e = m.add_chardev(&spec("r", ChardevBackend::Null), &mut |_| ()).unwrap_err();
    assert_eq!(e.desc, "Chardev with id 'r' already exists");
}

#[test]
fn mux_switches_focus_and_quits() {
    let mut m = machine();
    m.add_chardev(&spec("base", ChardevBackend::Ringbuf { size: None }), &mut |_| ()).unwrap();
    let mux =
        m.add_chardev(&spec("mux", ChardevBackend::Mux { chardev: "base".into() }), &mut |_| ()).unwrap();
    m.chr_connect(mux, FrontendRef::Qtest).unwrap();
    m.chr_connect(mux, FrontendRef::Monitor(MonId(0))).unwrap();
    m.monitor_inbox.clear();
    for b in b"\x01cxy\x01\x01" {
        m.chr_mux_key(mux, *b);
    }
    assert_eq!(m.qtest_inbox, b"xy\x01");
    assert!(m.run.requests.exit.is_none());
    for b in b"\x01x" {
        m.chr_mux_key(mux, *b);
    }
    assert_eq!(m.run.requests.exit, Some(0));
}

#[test]
fn file_output_and_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n: &str| dir.path().join(n).to_str().unwrap().to_string();
    let mut m = machine();
    let mut s = spec("f", ChardevBackend::File { out: path("out"), input: None, append: None });
    s.logfile = Some(path("log"));
    let id = m.add_chardev(&s, &mut |_| ()).unwrap();
    m.chr_write(id, b"hello");
    assert_eq!(std::fs::read(path("out")).unwrap(), b"hello");
    assert_eq!(std::fs::read(path("log")).unwrap(), b"hello");
}

#[test]
fn monitors_come_before_devices_on_a_mux() {
    use crate::device::DevId;
    let device = |n| FrontendRef::Device(DevId(n), 0);
    let mut m = mux::Mux::new(CharId(0), 1);
    assert_eq!(m.connect(device(7)), (0, None));
    assert_eq!(m.connect(FrontendRef::Monitor(MonId(0))), (0, Some(0)));
    assert_eq!(m.focus, 1);
    assert_eq!(m.connect(FrontendRef::Monitor(MonId(1))), (1, Some(1)));
    assert_eq!(m.focus, 2);
    assert_eq!(m.connect(device(8)), (3, Some(2)));
    assert_eq!(m.focus, 3);
    let order: Vec<_> = m.frontends.iter().map(|f| f.0).collect();
    assert_eq!(order, [FrontendRef::Monitor(MonId(0)), FrontendRef::Monitor(MonId(1)), device(7), device(8)]);
}
