//! Value syntax (pest grammars) turned into small Rust values.

use pest::iterators::Pair;
use pest::Parser;
use rqemu_machine::spec::CpuFeature;

#[derive(pest_derive::Parser)]
#[grammar = "grammar/values.pest"]
struct Values;

/// One item of `a=b,c,d`.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// `key=value`.
    Pair(String, String),
    /// A word without `=`.
    Flag(String),
    /// The first word, a value for the implied key.
    Bare(String),
}

fn parse(rule: Rule, text: &str) -> Option<Pair<'_, Rule>> {
    Values::parse(rule, text).ok()?.next()
}

/// Undoes the doubling of commas.
fn unescape(value: &str) -> String {
    if value.contains(",,") {
        value.replace(",,", ",")
    } else {
        value.to_string()
    }
}

/// Splits `text`; with `implied`, its first word may be a bare value. Any text is well-formed here.
pub fn items(text: &str, implied: bool) -> Vec<Item> {
    let rule = if implied { Rule::opts_implied } else { Rule::opts };
    let mut out = Vec::new();
    for pair in parse(rule, text).into_iter().flat_map(Pair::into_inner) {
        match pair.as_rule() {
            Rule::pair => {
                let mut inner = pair.into_inner();
                if let (Some(key), Some(value)) = (inner.next(), inner.next()) {
                    out.push(Item::Pair(key.as_str().to_string(), unescape(value.as_str())));
                }
            }
            Rule::flag => out.push(Item::Flag(pair.as_str().to_string())),
            Rule::bare => out.push(Item::Bare(unescape(pair.as_str()))),
            _ => {}
        }
    }
    // A comma at the end, or no text at all, is not an item.
    if matches!(out.last(), Some(Item::Flag(f)) if f.is_empty())
        || (out.len() == 1 && matches!(&out[0], Item::Bare(b) if b.is_empty()) && text.is_empty())
    {
        out.pop();
    }
    out
}

/// A step of a keyval key.
#[derive(Debug, PartialEq, Eq, Clone)]
pub enum Step {
    /// Dictionary key.
    Name(String),
    /// List index.
    Index(usize),
}

/// `a.0.b`; `None` = malformed.
pub fn key_path(text: &str) -> Option<Vec<Step>> {
    parse(Rule::key_path, text)?
        .into_inner()
        .filter(|p| p.as_rule() != Rule::EOI)
        .map(|p| match p.as_rule() {
            Rule::index => p.as_str().parse().ok().map(Step::Index),
            _ => (p.as_str().len() < 128).then(|| Step::Name(p.as_str().to_string())),
        })
        .collect()
}

/// CPU model and features; a bare feature becomes `feature=on`.
pub fn cpu(text: &str) -> (String, Vec<CpuFeature>) {
    let mut model = String::new();
    let mut features = Vec::new();
    for p in parse(Rule::cpu, text).into_iter().flat_map(Pair::into_inner) {
        let rule = p.as_rule();
        let word = p.as_str();
        match rule {
            Rule::cpu_model => model = word.to_string(),
            Rule::cpu_plus => features.push(CpuFeature::Plus(word[1..].to_string())),
            Rule::cpu_minus => features.push(CpuFeature::Minus(word[1..].to_string())),
            Rule::cpu_flag => features.push(CpuFeature::Prop(word.to_string(), "on".to_string())),
            Rule::cpu_prop => {
                if let Some((k, v)) = word.split_once('=') {
                    features.push(CpuFeature::Prop(k.to_string(), v.to_string()));
                }
            }
            _ => {}
        }
    }
    (model, features)
}

/// `host:port[,rest]`: host, port, rest.
pub fn inet(text: &str) -> Option<(&str, &str, Option<&str>)> {
    let mut p = parse(Rule::inet, text)?.into_inner();
    let (host, port) = (p.next()?.as_str(), p.next()?.as_str());
    let rest = p.next().filter(|p| p.as_rule() == Rule::rest).map(|p| p.as_str());
    (host.len() <= 64 && port.len() <= 32).then_some((host, port, rest))
}

/// `path[,rest]`, commas in the path doubled.
pub fn path(text: &str) -> (String, Option<&str>) {
    let words = texts(Rule::path, text).unwrap_or_default();
    (words.first().map(|w| unescape(w)).unwrap_or_default(), words.get(1).copied())
}

/// Host and port.
pub type HostPort<'a> = (&'a str, &'a str);

/// `[host]:port[@[host]:port]`: remote and local end.
pub fn udp(text: &str) -> Option<(HostPort<'_>, Option<HostPort<'_>>)> {
    let mut p = parse(Rule::udp, text)?.into_inner();
    let remote = (p.next()?.as_str(), p.next()?.as_str());
    let local = p.next().filter(|p| p.as_rule() == Rule::local).and_then(|p| {
        let mut p = p.into_inner();
        Some((p.next()?.as_str(), p.next()?.as_str()))
    });
    Some((remote, local))
}

/// Size of a text console.
#[derive(Debug, PartialEq, Eq)]
pub enum VcSize {
    /// `WxH`.
    Pixels(u64, u64),
    /// `WCxHC`.
    Chars(u64, u64),
}

/// What follows `vc:`.
pub fn vc(text: &str) -> Option<VcSize> {
    let form = parse(Rule::vc, text)?.into_inner().next()?;
    let rule = form.as_rule();
    let mut numbers = form.into_inner().map(|p| p.as_str().parse().ok());
    let (w, h) = (numbers.next()??, numbers.next()??);
    Some(if rule == Rule::vc_chars { VcSize::Chars(w, h) } else { VcSize::Pixels(w, h) })
}

fn texts(rule: Rule, text: &str) -> Option<Vec<&str>> {
    Some(parse(rule, text)?.into_inner().filter(|p| p.as_rule() != Rule::EOI).map(|p| p.as_str()).collect())
}

/// `driver.property=value`.
pub fn global(text: &str) -> Option<[&str; 3]> {
    texts(Rule::global, text)?.try_into().ok()
}

/// `group.id.arg=value`.
pub fn set(text: &str) -> Option<[&str; 4]> {
    texts(Rule::set, text)?.try_into().ok()
}

/// `3` or `0-3`, ends included, the first not above the second.
pub fn range(text: &str) -> Option<(u64, u64)> {
    let words = texts(Rule::range, text)?;
    let first = words.first()?.parse().ok()?;
    let last = words.last()?.parse().ok()?;
    (first <= last).then_some((first, last))
}

/// Year, month, day, hour, minute, second.
pub fn datetime(text: &str) -> Option<[i64; 6]> {
    let mut out = [0; 6];
    for (slot, word) in out.iter_mut().zip(texts(Rule::datetime, text)?) {
        *slot = word.parse().ok().filter(|v| *v < 1_000_000)?;
    }
    Some(out)
}

/// The 16 bytes of a UUID.
pub fn uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = texts(Rule::uuid, text)?.concat();
    let mut out = [0; 16];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}

/// Address ranges of `-dfilter`: left, operator, right.
pub fn spans(text: &str) -> Option<Vec<[&str; 3]>> {
    parse(Rule::ranges, text)?
        .into_inner()
        .filter(|p| p.as_rule() == Rule::span)
        .map(|p| p.into_inner().map(|q| q.as_str()).collect::<Vec<_>>().try_into().ok())
        .collect()
}

/// A line of a configuration file.
#[derive(Debug, PartialEq, Eq)]
pub enum IniLine<'a> {
    /// Nothing, or a comment.
    Blank,
    /// `[group]` or `[group "id"]`.
    Section(&'a str, Option<&'a str>),
    /// `key = "value"`.
    Setting(&'a str, &'a str),
}

/// Reads one line; `None` = malformed.
pub fn ini_line(line: &str) -> Option<IniLine<'_>> {
    let Some(inner) = parse(Rule::ini_line, line)?.into_inner().next() else { return Some(IniLine::Blank) };
    let rule = inner.as_rule();
    let mut words = inner.into_inner().map(|p| p.as_str());
    Some(match rule {
        Rule::section => IniLine::Section(words.next()?, words.next()),
        Rule::setting => IniLine::Setting(words.next()?, words.next().unwrap_or_default()),
        _ => IniLine::Blank,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(k: &str, v: &str) -> Item {
        Item::Pair(k.into(), v.into())
    }

    fn flag(f: &str) -> Item {
        Item::Flag(f.into())
    }

    #[test]
    fn option_items() {
        assert_eq!(items("", false), []);
        assert_eq!(items("", true), []);
        assert_eq!(items("a=b,c,d=", false), [pair("a", "b"), flag("c"), pair("d", "")]);
        assert_eq!(items("a=b,,c,d", false), [pair("a", "b,c"), flag("d")]);
        assert_eq!(items("a=b=c", false), [pair("a", "b=c")]);
        assert_eq!(items("x,,y=1,a=b", true), [Item::Bare("x,y=1".into()), pair("a", "b")]);
        assert_eq!(items("x=y,a", true), [pair("x", "y"), flag("a")]);
        assert_eq!(items("x,", true), [Item::Bare("x".into())]);
        assert_eq!(items(",", false), [flag("")]);
        assert_eq!(items("=", false), [pair("", "")]);
        assert_eq!(items("a=b,,,c=d", false), [pair("a", "b,"), pair("c", "d")]);
    }

    #[test]
    fn huge_values_take_linear_time() {
        let start = std::time::Instant::now();
        for pattern in ["a", ",", "=", ",,", "a=b,", "no,"] {
            let text = pattern.repeat(200_000 / pattern.len());
            assert!(items(&text, false).len() <= 200_001);
            items(&text, true);
        }
        // Quadratic work would take much longer; the bound leaves room for a loaded debug build.
        assert!(start.elapsed().as_secs() < 60);
    }

    #[test]
    fn key_paths() {
        let n = |s: &str| Step::Name(s.into());
        assert_eq!(key_path("a.0.b"), Some(vec![n("a"), Step::Index(0), n("b")]));
        assert_eq!(key_path("cache.no-flush"), Some(vec![n("cache"), n("no-flush")]));
        for bad in ["", "0", "1a", "a..b", ".a", "a.", "a$b", "a.1b"] {
            assert_eq!(key_path(bad), None, "{bad}");
        }
    }

    #[test]
    fn cpu_models() {
        let (model, features) = cpu("qemu64,+avx,-svm,kvm=off,check,");
        assert_eq!(model, "qemu64");
        let expected = [
            CpuFeature::Plus("avx".into()),
            CpuFeature::Minus("svm".into()),
            CpuFeature::Prop("kvm".into(), "off".into()),
            CpuFeature::Prop("check".into(), "on".into()),
        ];
        assert_eq!(features, expected);
        assert_eq!(cpu(",x").0, "");
    }

    #[test]
    fn chardev_addresses() {
        assert_eq!(inet("h:1,server=on"), Some(("h", "1", Some("server=on"))));
        assert_eq!(inet(":4444"), Some(("", "4444", None)));
        assert_eq!(inet("h:p:q"), Some(("h", "p:q", None)));
        assert_eq!(inet("x"), None);
        assert_eq!(udp("h:1@:2"), Some((("h", "1"), Some(("", "2")))));
        assert_eq!(udp(":1"), Some((("", "1"), None)));
        assert_eq!(udp("x"), None);
        assert_eq!(path("/a,,b,server=on"), ("/a,b".to_string(), Some("server=on")));
        assert_eq!(path("/a"), ("/a".to_string(), None));
        assert_eq!(vc("80Cx24C"), Some(VcSize::Chars(80, 24)));
        assert_eq!(vc("800x600"), Some(VcSize::Pixels(800, 600)));
        assert_eq!(vc("800"), None);
    }

    #[test]
    fn small_forms() {
        assert_eq!(global("e1000.mac=a=b"), Some(["e1000", "mac", "a=b"]));
        assert_eq!(global("e1000"), None);
        assert_eq!(set("drive.x.file=/a.b"), Some(["drive", "x", "file", "/a.b"]));
        assert_eq!(set("a.b.c"), None);
        assert_eq!(range("0-3"), Some((0, 3)));
        assert_eq!(range("5"), Some((5, 5)));
        assert_eq!(range("3-1"), None);
        assert_eq!(datetime("2006-06-17"), Some([2006, 6, 17, 0, 0, 0]));
        assert_eq!(datetime("foo"), None);
        assert_eq!(uuid("12345678-1234-1234-1234-12345678901"), None);
        assert_eq!(uuid("00112233-4455-6677-8899-aabbccddeeff").unwrap()[15], 0xff);
        assert_eq!(spans("0x10..0x1f,0+4"), Some(vec![["0x10", "..", "0x1f"], ["0", "+", "4"]]));
        assert_eq!(spans("foo"), None);
    }

    #[test]
    fn ini_lines() {
        assert_eq!(ini_line("  # x"), Some(IniLine::Blank));
        assert_eq!(ini_line(""), Some(IniLine::Blank));
        assert_eq!(ini_line("[machine]"), Some(IniLine::Section("machine", None)));
        assert_eq!(ini_line("[device \"a b\"]"), Some(IniLine::Section("device", Some("a b"))));
        assert_eq!(ini_line("  type = \"q35\""), Some(IniLine::Setting("type", "q35")));
        assert_eq!(ini_line("a=\"\""), Some(IniLine::Setting("a", "")));
        assert_eq!(ini_line("a ="), Some(IniLine::Setting("a", "")));
        assert_eq!(ini_line("type = q35"), None);
    }
}
