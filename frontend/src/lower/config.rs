//! `-set` and `-readconfig`: options from elsewhere.

use rqemu_machine::spec::{text, Dict, Loc, Value};
use rqemu_machine::{qerr, QError};

use super::{at, Arg, Cx, Res, Stop};
use crate::grammar::{self, IniLine};
use crate::groups;
use crate::keyval;
use crate::opts::{check_id, Opts};

/// `-set group.id.arg=value`: changes an option given before.
pub fn set(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let fail = |err| Err(Stop::error(&arg.loc, err));
    let Some([group, id, key, value]) = grammar::set(arg.value) else {
        return fail(qerr!("can't parse: \"{}\"", arg.value));
    };
    let Some(group) = groups::find(group) else { return fail(no_group(group)) };
    let mut warnings = std::mem::take(&mut cx.warnings);
    let found = cx.sets.iter_mut().find(|o| std::ptr::eq(o.group, group) && o.id.as_deref() == Some(id));
    let Some(opts) = found else { return fail(qerr!("there is no {} \"{id}\" defined", group.name)) };
    let result = opts.push(key.to_string(), value.to_string(), &arg.loc, &mut warnings);
    cx.warnings = warnings;
    at(&arg.loc, result)
}

fn no_group(name: &str) -> QError {
    qerr!("There is no option group '{name}'")
}

/// `-readconfig file`.
pub fn readconfig(cx: &mut Cx, arg: &Arg<'_>) -> Res {
    let contents = std::fs::read(text::to_path(arg.value)).map_err(|e| {
        let reason = rqemu_machine::error::strerror(&e);
        Stop::error(&arg.loc, qerr!("Could not open '{}': {reason}", arg.value))
    })?;
    let contents = text::from_bytes(&contents);
    let mut section: Option<Section> = None;
    for (number, line) in contents.lines().enumerate() {
        let loc = Loc::file(arg.value, number as u32 + 1);
        match grammar::ini_line(line) {
            None => return Err(Stop::error(&loc, qerr!("parse error"))),
            Some(IniLine::Blank) => {}
            Some(IniLine::Section(name, id)) => {
                if let Some(done) = section.take() {
                    done.finish(cx)?;
                }
                section = Some(Section {
                    name: name.to_string(),
                    id: id.map(str::to_string),
                    pairs: Vec::new(),
                    loc,
                });
            }
            Some(IniLine::Setting(key, value)) => match &mut section {
                Some(section) => {
                    section.pairs.push((key.to_string(), value.to_string()));
                    section.loc = loc;
                }
                None => return Err(Stop::error(&loc, qerr!("no group defined"))),
            },
        }
    }
    match section {
        Some(done) => done.finish(cx),
        None => Ok(()),
    }
}

/// One `[group "id"]` with its settings.
struct Section {
    name: String,
    id: Option<String>,
    pairs: Vec<(String, String)>,
    /// Its last line with something in it.
    loc: Loc,
}

impl Section {
    fn finish(self, cx: &mut Cx) -> Res {
        match self.name.as_str() {
            "machine" => {
                let dict = at(&self.loc, keyval::from_pairs(self.pairs))?;
                at(&self.loc, keyval::merge(&mut cx.machine, dict))
            }
            "smp-opts" | "boot-opts" => {
                let dict = at(&self.loc, keyval::from_pairs(self.pairs))?;
                let key = self.name.trim_end_matches("-opts");
                let part = Dict::from_iter([(key.to_string(), Value::Dict(dict))]);
                at(&self.loc, keyval::merge(&mut cx.machine, part))
            }
            _ => self.options(cx),
        }
    }

    fn options(self, cx: &mut Cx) -> Res {
        let Some(group) = groups::find(&self.name) else {
            return Err(Stop::error(&self.loc, no_group(&self.name)));
        };
        let mut opts = Opts::new(group, self.loc.clone());
        let (ids, pairs): (Vec<_>, Vec<_>) = self.pairs.into_iter().partition(|(k, _)| k == "id");
        let id = ids.into_iter().map(|(_, v)| v).next_back().or(self.id);
        if let Some(id) = &id {
            at(&self.loc, check_id(id))?;
        }
        opts.id = id.filter(|_| !group.merge);
        for (key, value) in pairs {
            at(&self.loc, opts.push(key, value, &self.loc, &mut cx.warnings))?;
        }
        cx.apply(opts)
    }
}
