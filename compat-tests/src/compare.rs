//! Structural comparison of JSON values, with a list of known and accepted differences.

use serde_json::Value;

/// A place where the two sides may differ, and why.
pub struct Tolerance {
    /// What is compared: a command's name, or `*`.
    pub what: &'static str,
    /// Path inside the value: segments by `.`, `*` for one segment, `**` at the end for any rest.
    pub path: &'static str,
    /// Why that is no fault.
    pub why: &'static str,
}

/// Values that depend on the process, the host or the build, not on compatibility. The place must still exist and hold
/// the same JSON type on both sides.
pub const TOLERATED: &[Tolerance] = &[
    Tolerance { what: "query-version", path: "package", why: "name and version of the build" },
    Tolerance { what: "greeting", path: "QMP.version.package", why: "name and version of the build" },
    Tolerance { what: "query-cpus-fast", path: "*.thread-id", why: "host thread id" },
    Tolerance { what: "query-iothreads", path: "*.thread-id", why: "host thread id" },
    Tolerance {
        what: "query-chardev",
        path: "*.filename",
        why: "holds socket paths and pty numbers of this run",
    },
    Tolerance { what: "query-blockstats", path: "*.stats.**", why: "time and counts of this run" },
    Tolerance { what: "query-blockstats", path: "*.parent.stats.**", why: "time and counts of this run" },
    Tolerance { what: "query-sev-capabilities", path: "**", why: "host firmware" },
    Tolerance { what: "query-dirty-rate", path: "start-time", why: "time of this run" },
    Tolerance { what: "qom-get", path: "**", why: "value may be a time or a host id; the type is compared" },
    Tolerance { what: "query-stats", path: "**", why: "counters of this run" },
    Tolerance { what: "query-rtc-time", path: "**", why: "time of this run" },
];

/// Up to `limit` differences as `path: ours | qemu`, none when equal. Object key order does not matter, array order does.
pub fn diff(what: &str, ours: &Value, qemu: &Value, limit: usize) -> Vec<String> {
    let mut out = vec![];
    let mut path = vec![];
    walk(what, &mut path, ours, qemu, limit, &mut out);
    out
}

/// First difference as one line, or `None`. Numbers of this run inside strings do not count ([`scrub`]).
pub fn first(what: &str, ours: &Value, qemu: &Value) -> Option<String> {
    diff(what, &scrubbed(ours), &scrubbed(qemu), 1).pop()
}

fn scrubbed(v: &Value) -> Value {
    match v {
        Value::String(s) => Value::String(scrub(s)),
        Value::Array(a) => Value::Array(a.iter().map(scrubbed).collect()),
        Value::Object(m) => Value::Object(m.iter().map(|(k, v)| (k.clone(), scrubbed(v))).collect()),
        v => v.clone(),
    }
}

/// Replaces what differs between any two runs of one program: names of temporary folders, host thread ids, and the
/// random numbers in generated node and net client names.
pub fn scrub(s: &str) -> String {
    type Part = fn(char) -> bool;
    const MARKS: &[(&str, Part)] = &[
        ("/tmp/rqc", |c| c.is_ascii_alphanumeric()),
        ("thread_id=", |c| c.is_ascii_digit()),
        ("#net", |c| c.is_ascii_digit()),
        ("#block", |c| c.is_ascii_digit()),
    ];
    let mut out = s.to_owned();
    for (mark, part) in MARKS {
        let mut at = 0;
        while let Some(i) = out[at..].find(mark).map(|i| at + i + mark.len()) {
            let len = out[i..].find(|c| !part(c)).unwrap_or(out.len() - i);
            out.replace_range(i..i + len, "~");
            at = i + 1;
        }
    }
    out
}

fn walk(what: &str, path: &mut Vec<String>, a: &Value, b: &Value, limit: usize, out: &mut Vec<String>) {
    if out.len() >= limit || a == b {
        return;
    }
    let same_type = std::mem::discriminant(a) == std::mem::discriminant(b);
    if same_type && tolerated(what, path) {
        return;
    }
    let at = if path.is_empty() { "value".to_owned() } else { path.join(".") };
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            for (k, v) in y {
                match x.get(k) {
                    Some(u) => {
                        path.push(k.clone());
                        walk(what, path, u, v, limit, out);
                        path.pop();
                    }
                    None => push(out, limit, format!("{at}: no {k:?} (qemu {})", short(v))),
                }
            }
            for (k, v) in x.iter().filter(|(k, _)| !y.contains_key(*k)) {
                push(out, limit, format!("{at}: extra {k:?} ({})", short(v)));
            }
        }
        (Value::Array(x), Value::Array(y)) => {
            if x.len() != y.len() {
                push(out, limit, format!("{at}: {} elements, qemu {}", x.len(), y.len()));
            }
            for (i, (u, v)) in x.iter().zip(y).enumerate() {
                path.push(i.to_string());
                walk(what, path, u, v, limit, out);
                path.pop();
            }
        }
        _ => push(out, limit, format!("{at}: {} | qemu {}", short(a), short(b))),
    }
}

fn push(out: &mut Vec<String>, limit: usize, s: String) {
    if out.len() < limit {
        out.push(s);
    }
}

fn tolerated(what: &str, path: &[String]) -> bool {
    TOLERATED.iter().any(|t| (t.what == "*" || t.what == what) && matches(t.path, path))
}

fn matches(pattern: &str, path: &[String]) -> bool {
    let mut at = 0;
    for seg in pattern.split('.') {
        if seg == "**" {
            return true;
        }
        match path.get(at) {
            Some(p) if seg == "*" || p == seg => at += 1,
            _ => return false,
        }
    }
    at == path.len()
}

/// A value cut to fit a table cell.
pub fn short(v: &Value) -> String {
    cut(&v.to_string(), 90)
}

/// At most `n` characters of `s`, with an ellipsis when cut.
pub fn cut(s: &str, n: usize) -> String {
    match s.char_indices().nth(n) {
        Some((i, _)) => format!("{}…", &s[..i]),
        None => s.to_owned(),
    }
}

/// First line in which two texts differ.
pub fn first_line(ours: &str, qemu: &str) -> Option<String> {
    let (mut a, mut b) = (ours.lines(), qemu.lines());
    let mut n = 0;
    loop {
        n += 1;
        match (a.next(), b.next()) {
            (None, None) => return None,
            (x, y) if x == y => {}
            (x, y) => {
                let show = |s: Option<&str>| s.map_or("end".to_owned(), |s| format!("{:?}", cut(s, 120)));
                return Some(format!("line {n}: {} | qemu {}", show(x), show(y)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn finds_differences() {
        assert_eq!(first("x", &json!({"a": 1, "b": [1]}), &json!({"b": [1], "a": 1})), None);
        assert_eq!(first("x", &json!({"a": 1}), &json!({"a": 2})).unwrap(), "a: 1 | qemu 2");
        assert!(first("x", &json!({}), &json!({"a": 2})).unwrap().contains("no \"a\""));
        assert!(first("x", &json!({"z": 1}), &json!({})).unwrap().contains("extra"));
        assert!(first("x", &json!([1]), &json!([1, 2])).is_some());
    }

    #[test]
    fn tolerance_keeps_the_type() {
        let w = "query-version";
        assert_eq!(first(w, &json!({"package": "a"}), &json!({"package": "b"})), None);
        assert!(first(w, &json!({"package": 1}), &json!({"package": "b"})).is_some());
        assert!(first(w, &json!({}), &json!({"package": "b"})).is_some());
        assert!(first("query-name", &json!({"package": "a"}), &json!({"package": "b"})).is_some());
    }

    #[test]
    fn scrubs_only_numbers_of_the_run() {
        assert_eq!(
            scrub("a unix:/tmp/rqcAb3/x #net12: thread_id=4 y"),
            "a unix:/tmp/rqc~/x #net~: thread_id=~ y"
        );
        assert_eq!(scrub("index=12"), "index=12");
    }

    #[test]
    fn lines() {
        assert_eq!(first_line("a\nb\n", "a\nb"), None);
        assert_eq!(first_line("a", "a\nb").unwrap(), "line 2: end | qemu \"b\"");
    }
}
