//! The table of options: every option of QEMU 7.2's x86_64 binary, once. `-help`, the check of option names and
//! arguments, and the lowering all come from it.

mod block;
mod chardev;
mod debug;
mod device;
mod net;
mod standard;

use crate::groups::OptGroup;
use crate::lower::{Arg, Cx, Res};

/// What an option does.
pub enum Action {
    /// Calls this.
    Call(fn(&mut Cx, &Arg<'_>) -> Res),
    /// Parses the value for a group.
    Opts(&'static OptGroup),
    /// Exists for other targets only; refused as QEMU does.
    OtherTarget,
    /// Known, but refused: rqemu has nothing behind it.
    Refused,
}

/// One option.
pub struct OptDef {
    /// Name without the dash.
    pub name: &'static str,
    /// Takes an argument.
    pub has_arg: bool,
    /// Lines of `-help`; empty when the option is not shown, or shown with the one before.
    pub help: &'static str,
    /// What it does.
    pub action: Action,
}

/// A part of the help.
pub struct Section {
    /// Heading.
    pub title: &'static str,
    /// Its options.
    pub options: &'static [OptDef],
}

/// All options in the order of the help.
pub static SECTIONS: &[Section] = &[
    Section { title: "Standard options:", options: standard::OPTIONS },
    Section { title: "Block device options:", options: block::OPTIONS },
    Section { title: "USB convenience options:", options: device::USB },
    Section { title: "Display options:", options: device::DISPLAY },
    Section { title: "i386 target only:", options: standard::I386 },
    Section { title: "Network options:", options: net::OPTIONS },
    Section { title: "Character device options:", options: chardev::CHARDEV },
    Section { title: "TPM device options:", options: device::TPM },
    Section { title: "Boot Image or Kernel specific:", options: standard::BOOT },
    Section { title: "Debug/Expert options:", options: debug::OPTIONS },
    Section { title: "Generic object creation:", options: device::OBJECT },
];

/// The bare image argument, which is not an option.
pub static IMAGE: OptDef =
    OptDef { name: "", has_arg: true, help: "", action: Action::Call(crate::lower::block::image) };

/// The option of that name.
pub fn find(name: &str) -> Option<&'static OptDef> {
    SECTIONS.iter().flat_map(|s| s.options).find(|o| o.name == name)
}

/// An option with an argument.
const fn arg(name: &'static str, action: Action, help: &'static str) -> OptDef {
    OptDef { name, has_arg: true, help, action }
}

/// An option without.
const fn flag(name: &'static str, action: Action, help: &'static str) -> OptDef {
    OptDef { name, has_arg: false, help, action }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = SECTIONS.iter().flat_map(|s| s.options).map(|o| o.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn every_option_of_qemu_7_2_is_here() {
        let arity = include_str!("../../tests/data/options.txt");
        for line in arity.lines() {
            let (name, arity) = line.split_once(' ').unwrap();
            let def = find(name).unwrap_or_else(|| panic!("-{name} is missing"));
            assert_eq!(def.has_arg, arity == "1", "-{name}");
        }
        let listed = arity.lines().count();
        assert_eq!(SECTIONS.iter().map(|s| s.options.len()).sum::<usize>(), listed);
    }
}
