//! From argv to a [`VmSpec`]: every option is looked up and parsed in order, then what depends on several options
//! is put together.

pub mod block;
pub mod chardev;
pub mod config;
pub mod device;
pub mod display;
pub mod firmware;
pub mod machine;
pub mod net;
pub mod run;

use rqemu_machine::spec::{DeviceSpec, Dict, Loc, ObjectSpec, VmSpec};
use rqemu_machine::{qerr, QError, QResult};

use crate::groups::OptGroup;
use crate::opts::{self, Opts};
use crate::report::Report;
use crate::table::{self, Action, OptDef};
use crate::HelpRequest;

/// Why parsing ends early.
pub enum Stop {
    /// Print these, exit with status 1.
    Fail(Vec<Report>),
    /// Print this on standard output, exit with the status.
    Text(String, u8),
    /// Print a list that others know.
    Help(HelpRequest),
}

impl Stop {
    /// One error.
    pub fn error(loc: &Loc, err: QError) -> Self {
        Self::Fail(vec![Report::error(loc.clone(), err)])
    }

    /// Adds a further error line.
    pub fn and(mut self, loc: &Loc, err: QError) -> Self {
        if let Self::Fail(list) = &mut self {
            list.push(Report::error(loc.clone(), err));
        }
        self
    }
}

/// Result of a lowering step.
pub type Res<T = ()> = Result<T, Stop>;

/// Attaches a location to an error.
pub fn at<T>(loc: &Loc, result: QResult<T>) -> Res<T> {
    result.map_err(|e| Stop::error(loc, e))
}

/// One option of the command line.
pub struct Arg<'a> {
    /// Its value; empty if it takes none.
    pub value: &'a str,
    /// Option and value as typed.
    pub loc: Loc,
}

/// Parsing under way.
#[derive(Default)]
pub struct Cx {
    /// What has been lowered.
    pub spec: VmSpec,
    /// Parsed options of all groups, in order.
    pub sets: Vec<Opts>,
    /// `-machine` and what other options put there.
    pub machine: Dict,
    /// Warnings so far.
    pub warnings: Vec<Report>,
    /// Help asked for by options that only note it.
    pub help: Vec<HelpRequest>,
    /// Things that need a second look at the end.
    pub late: Late,
}

/// Text of options that is looked at once all options are known.
#[derive(Default)]
pub struct Late {
    pub cpu: Option<String>,
    pub vga: Option<String>,
    pub snapshot: bool,
    pub nodefaults: bool,
    /// `-serial` and so on, in order.
    pub serial: Vec<Text>,
    pub parallel: Vec<Text>,
    pub debugcon: Vec<Text>,
    pub usb: Vec<Text>,
    pub gdb: Option<Text>,
    pub qtest: Option<Text>,
    /// `-device` in JSON.
    pub json_devices: Vec<(Dict, Loc)>,
    /// `-netdev` in JSON or keyval.
    pub modern_netdevs: Vec<(Dict, Loc)>,
    /// Devices made by `-virtfs` and `-audio`.
    pub devices: Vec<DeviceSpec>,
    /// `-object` in JSON, each with the number of other objects before it.
    pub json_objects: Vec<(usize, ObjectSpec)>,
}

/// An option's text with its place.
pub struct Text {
    pub text: String,
    pub loc: Loc,
}

impl Text {
    fn of(arg: &Arg<'_>) -> Self {
        Self { text: arg.value.to_string(), loc: arg.loc.clone() }
    }
}

/// Lowers the arguments after argv\[0\].
pub fn run(cx: &mut Cx, args: &[String]) -> Res {
    let found = scan(args)?;
    for (def, arg) in &found {
        match &def.action {
            Action::Call(f) => f(cx, arg)?,
            Action::Opts(group) => cx.parse(group, arg)?,
            Action::OtherTarget => {
                return Err(Stop::error(&arg.loc, qerr!("Option not supported for this target")));
            }
            Action::Refused => return Err(Stop::error(&arg.loc, unsupported())),
        }
    }
    cx.finish()
}

/// First pass: every option must exist and have its argument.
fn scan(args: &[String]) -> Res<Vec<(&'static OptDef, Arg<'_>)>> {
    let mut found = Vec::with_capacity(args.len());
    let mut rest = args.iter();
    while let Some(word) = rest.next() {
        let Some(name) = word.strip_prefix('-') else {
            found.push((&table::IMAGE, Arg { value: word, loc: Loc::option(&[word]) }));
            continue;
        };
        let name = name.strip_prefix('-').unwrap_or(name);
        let here = || Loc::option(&[word]);
        let Some(def) = table::find(name) else {
            return Err(Stop::error(&here(), qerr!("invalid option")));
        };
        if !def.has_arg {
            found.push((def, Arg { value: "", loc: here() }));
            continue;
        }
        match rest.next() {
            Some(value) => found.push((def, Arg { value, loc: Loc::option(&[word, value]) })),
            None => return Err(Stop::error(&here(), qerr!("requires an argument"))),
        }
    }
    Ok(found)
}

impl Cx {
    /// Parses an option of a group and keeps it.
    fn parse(&mut self, group: &'static OptGroup, arg: &Arg<'_>) -> Res {
        let opts = self.opts(group, arg.value, &arg.loc)?;
        self.apply(opts)
    }

    /// Does at once what an option of this group does at once, else keeps it for the end. Options of the command
    /// line and sections of a configuration file both come here.
    pub fn apply(&mut self, opts: Opts) -> Res {
        match opts.group.name {
            "action" => run::action(self, &opts),
            "add-fd" => run::add_fd(self, &opts),
            "msg" => run::msg(self, &opts),
            "overcommit" => run::overcommit(self, &opts),
            "trace" => run::trace(self, &opts),
            "smbios" => firmware::smbios(self, opts),
            "acpi" => firmware::acpitable(self, opts),
            "virtfs" => device::virtfs(self, opts),
            "plugin" => Err(Stop::error(&opts.loc, unsupported())),
            "net" | "nic" => {
                self.spec.defaults.net = false;
                self.add(opts)
            }
            "mon" => {
                self.spec.defaults.monitor = false;
                self.add(opts)
            }
            _ => self.add(opts),
        }
    }

    /// Parses text for a group.
    pub fn opts(&mut self, group: &'static OptGroup, text: &str, loc: &Loc) -> Res<Opts> {
        match at(loc, Opts::parse(group, text, loc, &mut self.warnings))? {
            opts::Parsed::Opts(opts) => Ok(opts),
            opts::Parsed::Help => Err(Stop::Text(group.help(), 1)),
        }
    }

    /// Keeps a parsed set; merges it if its group is merged. An id may be used once in a group.
    pub fn add(&mut self, opts: Opts) -> Res {
        let group = opts.group;
        if group.merge {
            if let Some(old) = self.sets.iter_mut().find(|o| std::ptr::eq(o.group, group)) {
                old.items.extend(opts.items);
                old.loc = opts.loc;
                return Ok(());
            }
        } else if let Some(id) = &opts.id {
            if self.sets.iter().any(|o| std::ptr::eq(o.group, group) && o.id.as_ref() == Some(id)) {
                return Err(Stop::error(&opts.loc, qerr!("Duplicate ID '{id}' for {}", group.name)));
            }
        }
        self.sets.push(opts);
        Ok(())
    }

    /// Takes all sets of a group out, in order.
    pub fn take(&mut self, group: &'static OptGroup) -> Vec<Opts> {
        let (mine, rest) =
            std::mem::take(&mut self.sets).into_iter().partition(|o| std::ptr::eq(o.group, group));
        self.sets = rest;
        mine
    }

    /// The merged set of a group.
    pub fn take_merged(&mut self, group: &'static OptGroup) -> Option<Opts> {
        self.take(group).pop()
    }

    /// A warning.
    pub fn warn(&mut self, loc: &Loc, text: impl Into<String>) {
        self.warnings.push(Report::warning(loc.clone(), text));
    }

    /// What depends on several options. The order is that of QEMU's start, so that of two errors the same one shows.
    fn finish(&mut self) -> Res {
        machine::check_combinations(self)?;
        run::process(self)?;
        machine::find_help(self);
        device::find_help(self);
        if let Some(help) = self.first_help() {
            return Err(Stop::Help(help));
        }
        run::name(self)?;
        firmware::early(self)?;
        machine::globals(self)?;
        device::disable_defaults(self);
        display::finish(self)?;
        device::objects(self)?;
        let chardevs = self.take(&crate::groups::CHARDEV);
        for opts in chardevs {
            chardev::add(self, opts)?;
        }
        device::fsdevs(self)?;
        machine::finish(self)?;
        block::finish(self)?;
        run::icount_option(self)?;
        net::finish(self)?;
        machine::numa(self)?;
        firmware::finish(self)?;
        device::tpmdevs(self)?;
        chardev::monitors(self)?;
        chardev::ports(self)?;
        device::devices(self)?;
        chardev::stubs(self)?;
        Ok(())
    }

    fn first_help(&mut self) -> Option<HelpRequest> {
        let rank = |h: &HelpRequest| match h {
            HelpRequest::Machine(_) => 0,
            HelpRequest::Cpu => 1,
            HelpRequest::Device(_) => 2,
            _ => 3,
        };
        let help = std::mem::take(&mut self.help);
        help.into_iter().min_by_key(rank)
    }
}

/// Error of the options that rqemu refuses.
fn unsupported() -> QError {
    qerr!("rqemu does not support this option")
}

/// `help` or `?`.
pub fn is_help(text: &str) -> bool {
    text == "help" || text == "?"
}
