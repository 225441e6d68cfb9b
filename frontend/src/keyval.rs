//! `keyval`: options whose dotted keys make nested dictionaries and lists (`a.b=1`, `a.0=x`).

use rqemu_machine::spec::{Dict, Value};
use rqemu_machine::{qerr, QResult};

use crate::grammar::{self, Item, Step};

/// What a keyval string holds.
#[derive(Debug, PartialEq)]
pub struct Keyval {
    /// The options.
    pub dict: Dict,
    /// `help` or `?` was among them.
    pub help: bool,
}

/// Parses `text`; a first word without `=` is the value of `implied`.
pub fn parse(text: &str, implied: Option<&str>) -> QResult<Keyval> {
    let mut tree = Tree::default();
    let mut help = false;
    for item in grammar::items(text, implied.is_some()) {
        match item {
            Item::Pair(key, value) => tree.put(&key, value)?,
            Item::Bare(word) if is_help(&word) => help = true,
            Item::Bare(word) if word.is_empty() => return Err(qerr!("Invalid parameter ''")),
            Item::Bare(word) => tree.put(implied.unwrap_or_default(), word)?,
            Item::Flag(flag) if is_help(&flag) => help = true,
            Item::Flag(flag) => return Err(qerr!("Expected '=' after parameter '{flag}'")),
        }
    }
    Ok(Keyval { dict: tree.into_dict("")?, help })
}

/// For options that have no help of their own: `help` among the keys is refused.
pub fn parse_no_help(text: &str, implied: Option<&str>) -> QResult<Dict> {
    let parsed = parse(text, implied)?;
    if parsed.help {
        return Err(qerr!("Help is not available for this option"));
    }
    Ok(parsed.dict)
}

fn is_help(word: &str) -> bool {
    word == "help" || word == "?"
}

/// Flat or dotted keys and values (from `-readconfig`) as nested dictionaries.
pub fn from_pairs(pairs: impl IntoIterator<Item = (String, String)>) -> QResult<Dict> {
    let mut tree = Tree::default();
    for (key, value) in pairs {
        tree.put(&key, value)?;
    }
    tree.into_dict("")
}

/// Merges `src` into `dest`: dictionaries merge, lists are joined, other values are replaced.
pub fn merge(dest: &mut Dict, src: Dict) -> QResult<()> {
    merge_at(dest, src, "")
}

fn merge_at(dest: &mut Dict, src: Dict, prefix: &str) -> QResult<()> {
    for (key, value) in src {
        match (dest.get_mut(&key), value) {
            (Some(Value::Dict(old)), Value::Dict(new)) => merge_at(old, new, &format!("{prefix}{key}."))?,
            (Some(Value::List(old)), Value::List(new)) => old.extend(new),
            (Some(Value::Dict(_) | Value::List(_)), _) | (Some(_), Value::Dict(_) | Value::List(_)) => {
                return Err(qerr!("Parameter '{prefix}{key}' used inconsistently"));
            }
            (_, new) => dest.set(&key, new),
        }
    }
    Ok(())
}

/// Keys under construction. Lookup by key is linear, except that repeated and dotted keys must not make
/// long inputs quadratic: see `MAX_KEYS`.
#[derive(Default)]
struct Tree(Vec<(Step, Node)>);

enum Node {
    Leaf(String),
    Branch(Tree),
}

/// More different keys on one level than any option has; a bound on the linear lookup.
const MAX_KEYS: usize = 4096;

impl Tree {
    fn put(&mut self, key: &str, value: String) -> QResult<()> {
        let Some(path) = grammar::key_path(key) else { return Err(qerr!("Invalid parameter '{key}'")) };
        let mut tree = self;
        let mut walked = String::new();
        let last = path.len() - 1;
        for (depth, step) in path.into_iter().enumerate() {
            walked += &step_name(&step);
            let at = match tree.0.iter().position(|(s, _)| *s == step) {
                Some(at) => at,
                None if tree.0.len() >= MAX_KEYS => return Err(qerr!("Too many parameters")),
                None => {
                    let node =
                        if depth == last { Node::Leaf(String::new()) } else { Node::Branch(Tree::default()) };
                    tree.0.push((step, node));
                    tree.0.len() - 1
                }
            };
            match (&mut tree.0[at].1, depth == last) {
                (Node::Leaf(slot), true) => {
                    *slot = value;
                    return Ok(());
                }
                (Node::Branch(next), false) => tree = next,
                _ => return Err(qerr!("Parameters '{walked}.*' used inconsistently")),
            }
            walked.push('.');
        }
        Ok(())
    }

    fn into_dict(self, prefix: &str) -> QResult<Dict> {
        let mut dict = Dict::new();
        for (step, node) in self.0 {
            let key = step_name(&step);
            let value = node.into_value(&format!("{prefix}{key}"))?;
            dict.push(key, value);
        }
        Ok(dict)
    }

    /// A list if all keys are indexes, a dictionary if none is.
    fn into_value(self, path: &str) -> QResult<Value> {
        let indexes = self.0.iter().filter(|(s, _)| matches!(s, Step::Index(_))).count();
        if indexes == 0 {
            return Ok(Value::Dict(self.into_dict(&format!("{path}."))?));
        }
        if indexes != self.0.len() {
            return Err(qerr!("Parameters '{path}.*' used inconsistently"));
        }
        let mut slots: Vec<Option<Node>> = (0..indexes).map(|_| None).collect();
        for (step, node) in self.0 {
            if let Step::Index(i) = step {
                if let Some(slot) = slots.get_mut(i) {
                    *slot = Some(node);
                }
            }
        }
        let mut list = Vec::with_capacity(indexes);
        for (i, slot) in slots.into_iter().enumerate() {
            let at = format!("{path}.{i}");
            match slot {
                Some(node) => list.push(node.into_value(&at)?),
                None => return Err(qerr!("Parameter '{at}' missing")),
            }
        }
        Ok(Value::List(list))
    }
}

impl Node {
    fn into_value(self, path: &str) -> QResult<Value> {
        match self {
            Self::Leaf(text) => Ok(Value::Text(text)),
            Self::Branch(tree) => tree.into_value(path),
        }
    }
}

fn step_name(step: &Step) -> String {
    match step {
        Step::Name(name) => name.clone(),
        Step::Index(i) => i.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> String {
        match parse(text, Some("type")) {
            Ok(kv) => Value::Dict(kv.dict).to_json().to_string(),
            Err(e) => e.desc,
        }
    }

    #[test]
    fn nests() {
        assert_eq!(
            json("pc,a.b=1,a.c=2,l.0=x,l.1.y=z"),
            r#"{"type":"pc","a":{"b":"1","c":"2"},"l":["x",{"y":"z"}]}"#
        );
        assert_eq!(json("a=1,a=2"), r#"{"a":"2"}"#);
        assert_eq!(json(""), "{}");
    }

    #[test]
    fn refusals() {
        assert_eq!(json("pc,foo"), "Expected '=' after parameter 'foo'");
        assert_eq!(json("pc,=foo"), "Invalid parameter ''");
        assert_eq!(json("pc,a.b=1,a=2"), "Parameters 'a.*' used inconsistently");
        assert_eq!(json("pc,a=1,a.b=2"), "Parameters 'a.*' used inconsistently");
        assert_eq!(json("pc,a.0=1,a.2=2"), "Parameter 'a.1' missing");
        assert_eq!(json("pc,a.0=1,a.b=2"), "Parameters 'a.*' used inconsistently");
    }

    #[test]
    fn help_is_told_apart() {
        assert!(parse("help", Some("type")).unwrap().help);
        assert!(parse("pc,?", Some("type")).unwrap().help);
        assert!(!parse("type=help", Some("type")).unwrap().help);
    }

    #[test]
    fn merging() {
        let mut a = parse("pc,a.b=1,l.0=x", Some("type")).unwrap().dict;
        merge(&mut a, parse("q35,a.c=2,l.0=y", Some("type")).unwrap().dict).unwrap();
        assert_eq!(
            Value::Dict(a.clone()).to_json().to_string(),
            r#"{"type":"q35","a":{"b":"1","c":"2"},"l":["x","y"]}"#
        );
        let err = merge(&mut a, parse("a=1", None).unwrap().dict).unwrap_err();
        assert_eq!(err.desc, "Parameter 'a' used inconsistently");
    }
}
