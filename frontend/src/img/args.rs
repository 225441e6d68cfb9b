//! Options in the manner of `getopt_long`: short ones bundle, long ones may be abbreviated, operands may stand anywhere.

use super::Failure;

/// What the options of a command are.
pub(crate) struct Spec {
    /// Short options, as `getopt` writes them: a colon follows those with a value.
    pub short: &'static str,
    /// Long options: name, takes a value, the same as this short one.
    pub long: &'static [(&'static str, bool, Option<char>)],
}

/// Arguments of a command.
pub(crate) struct Args {
    raw: Vec<String>,
}

/// Options found, and operands.
#[derive(Default)]
pub(crate) struct Parsed {
    options: Vec<(String, Option<String>)>,
    pub operands: Vec<String>,
}

impl Args {
    pub(crate) fn new(raw: &[String]) -> Args {
        Args { raw: raw.to_vec() }
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.raw)
    }

    pub(crate) fn parse(self, spec: &Spec) -> Result<Parsed, Failure> {
        let mut p = Parsed::default();
        let mut it = self.raw.into_iter();
        while let Some(a) = it.next() {
            if a == "--" {
                p.operands.extend(it);
                break;
            }
            if let Some(long) = a.strip_prefix("--") {
                p.long(long, spec, &mut it)?;
            } else if a.len() > 1 && a.starts_with('-') {
                p.short(&a[1..], spec, &mut it)?;
            } else {
                p.operands.push(a);
            }
        }
        Ok(p)
    }
}

fn missing(what: &str) -> Failure {
    Failure::usage(format!("missing argument for option '{what}'"))
}

impl Parsed {
    fn long(
        &mut self,
        text: &str,
        spec: &Spec,
        it: &mut impl Iterator<Item = String>,
    ) -> Result<(), Failure> {
        let (name, value) = match text.split_once('=') {
            Some((n, v)) => (n, Some(v.to_owned())),
            None => (text, None),
        };
        let exact = spec.long.iter().find(|l| l.0 == name);
        let mut near = spec.long.iter().filter(|l| l.0.starts_with(name));
        let found = match (exact, near.next(), near.next()) {
            (Some(l), ..) | (None, Some(l), None) => l,
            _ => return Err(Failure::usage(format!("unrecognized option '--{name}'"))),
        };
        let value = match (found.1, value) {
            (true, None) => Some(it.next().ok_or_else(|| missing(&format!("--{name}")))?),
            (_, v) => v,
        };
        let key = found.2.map_or_else(|| found.0.to_owned(), String::from);
        self.options.push((key, value));
        Ok(())
    }

    fn short(
        &mut self,
        text: &str,
        spec: &Spec,
        it: &mut impl Iterator<Item = String>,
    ) -> Result<(), Failure> {
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let at = spec.short.find(c).filter(|_| c != ':');
            let Some(at) = at else {
                return Err(Failure::usage(format!("unrecognized option '-{c}'")));
            };
            if spec.short[at + c.len_utf8()..].starts_with(':') {
                let tail: String = rest.collect();
                let value = match tail.is_empty() {
                    true => it.next().ok_or_else(|| missing(&format!("-{c}")))?,
                    false => tail,
                };
                self.options.push((c.to_string(), Some(value)));
                return Ok(());
            }
            self.options.push((c.to_string(), None));
        }
        Ok(())
    }

    /// Whether an option was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(k, _)| k == name)
    }

    /// The last value of an option.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(k, _)| k == name).and_then(|(_, v)| v.as_deref())
    }

    /// The last value, owned.
    pub(crate) fn own(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// All values of an option.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.options.iter().filter(move |(k, _)| k == name).filter_map(|(_, v)| v.as_deref())
    }

    /// Last of several options that was given.
    pub(crate) fn last_of(&self, names: &[&str]) -> Option<(&str, Option<&str>)> {
        let found = self.options.iter().rev().find(|(k, _)| names.contains(&k.as_str()));
        found.map(|(k, v)| (k.as_str(), v.as_deref()))
    }

    /// `--output`: true for JSON.
    pub(crate) fn json(&self) -> Result<bool, Failure> {
        match self.get("output") {
            None | Some("human") => Ok(false),
            Some("json") => Ok(true),
            Some(_) => Err(Failure::new("--output must be used with human or json as argument.")),
        }
    }

    /// The only operand.
    pub(crate) fn one_file(&self) -> Result<&str, Failure> {
        match self.operands.as_slice() {
            [f] => Ok(f),
            _ => Err(Failure::usage("Expecting one image file name")),
        }
    }
}

/// `-o a=b,c=d`; a doubled comma stands for one.
pub(crate) fn list(text: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek(), parts.last_mut()) {
            (',', Some(','), Some(p)) => {
                chars.next();
                p.push(',');
            }
            (',', ..) => parts.push(String::new()),
            (c, _, Some(p)) => p.push(c),
            _ => {}
        }
    }
    let pair = |p: &String| match p.split_once('=') {
        Some((k, v)) => (k.to_owned(), v.to_owned()),
        None => match p.strip_prefix("no") {
            Some(k) if !k.is_empty() && k != "cow" => (k.to_owned(), "off".to_owned()),
            _ => (p.clone(), "on".to_owned()),
        },
    };
    parts.iter().filter(|p| !p.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Parsed, Failure> {
        let raw: Vec<String> = args.iter().map(|a| a.to_string()).collect();
        let spec = Spec {
            short: "f:qp",
            long: &[("output", true, None), ("backing-chain", false, None), ("quiet", false, Some('q'))],
        };
        Args::new(&raw).parse(&spec)
    }

    #[test]
    fn like_getopt() {
        let p = parse(&["-qf", "raw", "a", "--output=json", "--back", "-", "--", "-p"]).ok().unwrap();
        assert!(p.has("q") && p.has("backing-chain") && !p.has("p"));
        assert_eq!((p.get("f"), p.get("output")), (Some("raw"), Some("json")));
        assert_eq!(p.operands, ["a", "-", "-p"]);
        assert!(parse(&["-x"]).is_err() && parse(&["-f"]).is_err() && parse(&["--foo"]).is_err());
        assert!(parse(&["--quiet"]).ok().unwrap().has("q"));
    }

    #[test]
    fn option_lists() {
        let l = list("a=1,b=x,,y,c");
        let want = [("a", "1"), ("b", "x,y"), ("c", "on")];
        assert_eq!(l, want.map(|(a, b)| (a.to_string(), b.to_string())));
    }
}
