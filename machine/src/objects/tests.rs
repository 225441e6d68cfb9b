use super::*;
use crate::spec::visit::Mode;

fn add(m: &mut Machine, ty: &str, id: &str, json: serde_json::Value) -> Result<(), String> {
    let Value::Dict(d) = Value::from_json(json) else { panic!("not an object") };
    m.object_add(ty, id, &d, Mode::Json).map_err(|e| e.desc)
}

fn j(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn types_are_sorted() {
    assert!(TYPES.windows(2).all(|w| w[0].name < w[1].name));
    for t in TYPES {
        assert!(ABSTRACT_TYPES.iter().any(|(n, _)| *n == t.parent), "{}", t.name);
        for f in t.schema.fields {
            assert!(t.props.find(f.name).is_some(), "{}.{}", t.name, f.name);
        }
    }
}

#[test]
fn errors_are_qemus() {
    let mut m = Machine::new();
    let err = |m: &mut Machine, ty, id, json| add(m, ty, id, j(json)).unwrap_err();
    assert_eq!(err(&mut m, "foo", "a", "{}"), "Parameter 'qom-type' does not accept value 'foo'");
    assert_eq!(
        err(&mut m, "iothread", "b", r#"{"poll-max-ns":"x"}"#),
        "Invalid parameter type for 'poll-max-ns', expected: integer"
    );
    assert_eq!(err(&mut m, "iothread", "b", r#"{"foo":1}"#), "Parameter 'foo' is unexpected");
    assert_eq!(err(&mut m, "iothread", "1b", "{}"), "Parameter 'id' expects an identifier");
    assert_eq!(
        err(&mut m, "iothread", "b", r#"{"poll-max-ns":-1}"#),
        "poll-max-ns value must be in range [0, 9223372036854775807]"
    );
    assert_eq!(
        err(&mut m, "iothread", "b", r#"{"thread-pool-max":0}"#),
        "bad thread-pool-min/thread-pool-max values"
    );
    assert_eq!(err(&mut m, "memory-backend-ram", "b", "{}"), "Parameter 'size' is missing");
    assert_eq!(
        err(&mut m, "memory-backend-ram", "b", r#"{"size":0}"#),
        "property 'size' of memory-backend-ram doesn't take value '0'"
    );
    assert_eq!(
        err(&mut m, "memory-backend-ram", "b", r#"{"size":4096,"policy":"bind"}"#),
        "host-nodes must be set for policy bind"
    );
    assert_eq!(
        err(&mut m, "memory-backend-file", "b", r#"{"size":4096,"mem-path":"/nonexistent/x"}"#),
        "can't open backing store /nonexistent/x for guest RAM: No such file or directory"
    );
    assert_eq!(
        err(&mut m, "memory-backend-memfd", "b", r#"{"size":4096,"hugetlb":true,"hugetlbsize":3000}"#),
        "Hugepage size must be a power of 2"
    );
    assert_eq!(err(&mut m, "secret", "b", "{}"), "Either 'file' or 'data' must be provided");
    assert_eq!(
        err(&mut m, "rng-random", "b", r#"{"filename":"/nonexistent"}"#),
        "Could not open '/nonexistent': No such file or directory"
    );
    assert_eq!(m.objects.iter().count(), 0);
    assert!(m.rams.is_empty());
}

#[test]
fn lives_and_dies() {
    let mut m = Machine::new();
    add(&mut m, "iothread", "t", j("{}")).unwrap();
    assert_eq!(
        add(&mut m, "iothread", "t", j("{}")).unwrap_err(),
        "attempt to add duplicate property 't' to object (type 'container')"
    );
    let info = m.iothread_info();
    assert_eq!((info[0].id.as_str(), info[0].poll_max_ns), ("t", 32768));
    assert!(info[0].thread_id > 0);
    m.object_set("t", "poll-max-ns", &j("0")).unwrap();
    assert!(m.object_set("t", "poll-max-ns", &j("-1")).is_err());
    assert_eq!(m.iothread_info()[0].poll_max_ns, 0);
    m.objects.use_object("t");
    assert_eq!(m.object_del("t").unwrap_err().desc, "object 't' is in use, can not be deleted");
    m.objects.unuse("t");
    m.object_del("t").unwrap();
    assert_eq!(m.object_del("t").unwrap_err().desc, "object 't' not found");
    assert!(m.iothreads.get("t").is_none());
}

#[test]
fn memory_backends() {
    let mut m = Machine::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ram");
    let file = format!(r#"{{"size":1048576,"mem-path":"{}","share":true}}"#, path.display());
    add(&mut m, "memory-backend-file", "f", j(&file)).unwrap();
    add(&mut m, "memory-backend-ram", "r", j(r#"{"size":1048576,"prealloc":true,"prealloc-threads":2}"#))
        .unwrap();
    add(&mut m, "memory-backend-memfd", "m", j(r#"{"size":1048576}"#)).unwrap();
    m.memdev_block("f").unwrap().write(4096, b"hello");
    assert_eq!(&std::fs::read(&path).unwrap()[4096..4101], b"hello");
    let info = m.memdev_info();
    let brief: Vec<_> = info.iter().map(|i| (i.id.as_str(), i.share, i.prealloc)).collect();
    assert_eq!(brief, [("f", true, false), ("r", false, true), ("m", true, false)]);
    assert_eq!(m.rams.len(), 3);
    let small = format!(r#"{{"size":2097152,"mem-path":"{}"}}"#, path.display());
    assert_eq!(
        add(&mut m, "memory-backend-file", "g", j(&small)).unwrap_err(),
        "backing store size 0x100000 does not match 'size' option 0x200000"
    );
    assert_eq!(
        m.object_set("f", "align", &j("1")).unwrap_err().desc,
        "cannot change property 'align' of memory-backend-file"
    );
    let hidden = format!(r#"{{"size":4096,"mem-path":"{}"}}"#, dir.path().display());
    add(&mut m, "memory-backend-file", "h", j(&hidden)).unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the file in the folder has no name");
    for id in ["f", "r", "m", "h"] {
        m.object_del(id).unwrap();
    }
    assert!(m.rams.is_empty());
}

#[test]
fn random_numbers_and_secrets() {
    let mut m = Machine::new();
    add(&mut m, "rng-builtin", "b", j("{}")).unwrap();
    add(&mut m, "rng-random", "r", j(r#"{"filename":"/dev/urandom"}"#)).unwrap();
    for id in ["b", "r"] {
        let (mut x, mut y) = ([0; 32], [0; 32]);
        let source = m.rngs.get(id).unwrap();
        assert_eq!(source.lock().fill(&mut x), 32);
        assert_eq!(source.lock().fill(&mut y), 32);
        assert_ne!(x, y);
        m.object_del(id).unwrap();
        assert!(m.rngs.get(id).is_none());
    }
    add(&mut m, "secret", "s", j(r#"{"data":"aGVsbG8=","format":"base64"}"#)).unwrap();
    assert_eq!(m.objects.with::<Secret, _>("s", |s| s.bytes().to_vec()).unwrap(), b"hello");
}

#[test]
fn help_texts() {
    assert!(help().starts_with("List of user creatable objects:\n  iothread\n"));
    assert_eq!(type_help("rng-builtin").unwrap(), "There are no options for rng-builtin.\n");
    assert_eq!(type_help("rng-random").unwrap(), "rng-random options:\n  filename=<string>\n");
    let text = type_help("memory-backend-ram").unwrap();
    assert!(text.contains("  prealloc-context=<link<thread-context>> - Context"), "{text}");
    assert!(text.contains("  dump=<bool>            - Set to 'off'"), "{text}");
}
