//! What is compared, area by area.

pub mod boot;
pub mod cmdlines;
pub mod errors;
pub mod firmware;
pub mod guests;
pub mod help;
pub mod machines;
pub mod processor;
pub mod rewrite;
pub mod schema;
pub mod trees;
pub mod usernet;
pub mod wire;

use crate::bins::Bin;
use crate::score::{Report, Row};

/// The two binaries.
#[derive(Clone, Debug)]
pub struct Sides {
    pub ours: Bin,
    pub qemu: Bin,
}

impl Sides {
    /// From the environment.
    pub fn from_env() -> Sides {
        Sides { ours: Bin::ours(), qemu: Bin::qemu() }
    }

    /// Runs the same step on both, the reference second.
    pub fn both<T>(&self, mut f: impl FnMut(&Bin) -> T) -> (T, T) {
        (f(&self.ours), f(&self.qemu))
    }
}

/// The words of a command line with `-accel kvm` in front when none of them chooses an accelerator: the default is
/// QEMU's software CPU, and both sides shall run on the same one.
pub fn with_accel(words: Vec<String>) -> Vec<String> {
    let chosen = |w: &String| {
        let option = w.starts_with('-').then(|| w.trim_start_matches('-'));
        option.is_some_and(|o| ["accel", "enable-kvm", "no-kvm", "icount"].contains(&o))
            || w.contains("accel=")
    };
    if words.is_empty() || words.iter().any(chosen) {
        return words;
    }
    ["-accel", "kvm"].map(str::to_owned).into_iter().chain(words).collect()
}

/// A named group of comparisons.
pub struct Area {
    pub name: &'static str,
    /// What one row is.
    pub about: &'static str,
    pub run: fn(&Sides) -> Vec<Row>,
}

/// Every area, in the order of the scoreboard.
pub const AREAS: &[Area] = &[
    Area {
        name: "help",
        about: "entries of the help lists; names, types and defaults, not prose",
        run: help::run,
    },
    Area { name: "errors", about: "bad command lines: exit status and standard error", run: errors::run },
    Area {
        name: "cmdlines",
        about: "real-world command lines: error, or the same devices",
        run: cmdlines::run,
    },
    Area { name: "qmp", about: "query commands on three machines: structure and values", run: machines::qmp },
    Area { name: "schema", about: "commands, events and options that introspection shows", run: schema::run },
    Area { name: "qom", about: "object tree, device tree, memory map", run: machines::qom },
    Area { name: "pci", about: "PCI functions of several configurations", run: machines::pci },
    Area { name: "firmware", about: "fw_cfg files byte for byte", run: firmware::run },
    Area {
        name: "guests",
        about: "own bare-metal guests under KVM: what they print, how they end",
        run: guests::run,
    },
    Area {
        name: "hardware",
        about: "CPUID, MSRs, PCI, fw_cfg and ACPI as a guest sees them",
        run: guests::hardware,
    },
    Area {
        name: "processor",
        about: "the software CPU: corners of protected mode, CPUID and warnings of several models",
        run: processor::run,
    },
    Area { name: "boot", about: "SeaBIOS and GRUB under KVM: text and screen", run: boot::run },
    Area {
        name: "usernet",
        about: "what the user-mode network answers to frames of a guest",
        run: usernet::run,
    },
];

impl Area {
    /// Runs it and saves the rows.
    pub fn report(&self, sides: &Sides) -> Report {
        let report = Report::new(self.name, (self.run)(sides));
        if let Err(e) = report.save() {
            eprintln!("{}: {e}", self.name);
        }
        report
    }
}

/// The area of this name.
pub fn area(name: &str) -> Option<&'static Area> {
    AREAS.iter().find(|a| a.name == name)
}
