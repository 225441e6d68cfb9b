//! What QMP wants to know about the command line: `query-command-line-options`, and HMP's options in the command line's
//! notation.

use rqemu_machine::spec::{ChardevSpec, Loc};
use rqemu_machine::{qerr, QResult};
use rqemu_qmp::monitors::{CommandLineOption, CommandLineParameter, Env};

use crate::groups::{
    self,
    Type::{self, Bool, Number, Size, Str},
    GROUPS,
};
use crate::lower::{chardev, Cx, Stop};
use crate::opts::{Opts, Parsed};

/// The command line as monitors see it.
pub struct CommandLine;

/// Groups whose options are refused when the machine is built, so that nobody is told to use them.
const REFUSED: &[&str] = &["fsdev", "icount", "iscsi", "plugin", "spice", "tpmdev", "trace", "virtfs", "vnc"];

/// Keys that the reply names for `-machine`: a fixed list, kept for old clients.
const MACHINE: &[(&str, Type)] = &[
    ("loadparm", Str),
    ("dea-key-wrap", Bool),
    ("aes-key-wrap", Bool),
    ("suppress-vmdesc", Bool),
    ("iommu", Bool),
    ("firmware", Str),
    ("usb", Bool),
    ("mem-merge", Bool),
    ("dump-guest-core", Bool),
    ("dt_compatible", Str),
    ("phandle_start", Number),
    ("dumpdtb", Str),
    ("dtb", Str),
    ("append", Str),
    ("initrd", Str),
    ("kernel", Str),
    ("kvm_shadow_mem", Size),
    ("kernel_irqchip", Bool),
    ("accel", Str),
    ("type", Str),
];

/// Keys of `-drive`, which the block layer checks (`werror` stands there twice, as in QEMU).
const DRIVE: &[(&str, Type)] = &[
    ("copy-on-read", Bool),
    ("werror", Str),
    ("rerror", Str),
    ("read-only", Bool),
    ("file", Str),
    ("if", Str),
    ("media", Str),
    ("index", Number),
    ("unit", Number),
    ("bus", Number),
    ("stats-account-failed", Bool),
    ("stats-account-invalid", Bool),
    ("detect-zeroes", Str),
    ("throttling.group", Str),
    ("throttling.iops-size", Number),
    ("throttling.bps-write-max-length", Number),
    ("throttling.bps-read-max-length", Number),
    ("throttling.bps-total-max-length", Number),
    ("throttling.iops-write-max-length", Number),
    ("throttling.iops-read-max-length", Number),
    ("throttling.iops-total-max-length", Number),
    ("throttling.bps-write-max", Number),
    ("throttling.bps-read-max", Number),
    ("throttling.bps-total-max", Number),
    ("throttling.iops-write-max", Number),
    ("throttling.iops-read-max", Number),
    ("throttling.iops-total-max", Number),
    ("throttling.bps-write", Number),
    ("throttling.bps-read", Number),
    ("throttling.bps-total", Number),
    ("throttling.iops-write", Number),
    ("throttling.iops-read", Number),
    ("throttling.iops-total", Number),
    ("werror", Str),
    ("format", Str),
    ("cache.writeback", Bool),
    ("aio", Str),
    ("snapshot", Bool),
    ("force-share", Bool),
    ("discard", Str),
    ("auto-read-only", Bool),
    ("cache.no-flush", Bool),
    ("cache.direct", Bool),
    ("driver", Str),
    ("node-name", Str),
];

fn parameter(name: &str, ty: Type) -> CommandLineParameter {
    CommandLineParameter { name: name.into(), ty: ty.qmp_name(), help: None, default: None }
}

impl Env for CommandLine {
    fn command_line_options(&self) -> Vec<CommandLineOption> {
        let list = |option: &str, keys: &mut dyn Iterator<Item = &(&str, Type)>| CommandLineOption {
            option: option.into(),
            parameters: keys.map(|(name, ty)| parameter(name, *ty)).collect(),
        };
        let mut all = vec![list("machine", &mut MACHINE.iter())];
        for g in GROUPS.iter().rev().filter(|g| !REFUSED.contains(&g.name)) {
            let mut option = match g.name {
                "drive" => list(g.name, &mut DRIVE.iter()),
                name => list(name, &mut g.params.iter().rev()),
            };
            if g.name == "chardev" {
                let tight = option.parameters.iter_mut().find(|p| p.name == "tight");
                tight.into_iter().for_each(|p| p.default = Some("on".into()));
            }
            all.push(option);
        }
        all
    }

    fn chardevs(&self, text: &str, id: Option<&str>) -> QResult<Vec<ChardevSpec>> {
        let mut cx = Cx::default();
        let mut opts = match Opts::parse(&groups::CHARDEV, text, &Loc::NONE, &mut Vec::new())? {
            Parsed::Opts(opts) => opts,
            Parsed::Help => return Err(qerr!("invalid parameter 'help'")),
        };
        if let Some(id) = id {
            opts.id = Some(id.into());
        }
        match chardev::add(&mut cx, opts) {
            Ok(()) => Ok(cx.spec.chardevs),
            Err(Stop::Fail(reports)) => {
                Err(reports.into_iter().next().map_or_else(|| qerr!("invalid chardev"), |r| r.err))
            }
            Err(_) => Err(qerr!("invalid parameter 'help'")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_listed_newest_first() {
        let all = CommandLine.command_line_options();
        let names: Vec<&str> = all.iter().map(|o| o.option.as_str()).collect();
        assert_eq!((names[0], names[names.len() - 1]), ("machine", "drive"));
        assert!(!names.contains(&"vnc"));
        let memory = all.iter().find(|o| o.option == "memory").unwrap();
        let keys: Vec<_> = memory.parameters.iter().map(|p| (p.name.as_str(), p.ty)).collect();
        assert_eq!(keys, [("maxmem", "size"), ("slots", "number"), ("size", "size")]);
    }

    #[test]
    fn chardevs_from_text() {
        let two = CommandLine.chardevs("null,id=a,mux=on", None).unwrap();
        assert_eq!(two.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(), ["a-base", "a"]);
        assert_eq!(CommandLine.chardevs("ringbuf", Some("x")).unwrap()[0].id, "x");
        let error = |t| CommandLine.chardevs(t, None).unwrap_err().desc;
        assert_eq!(error("null"), "chardev: no id specified");
        assert_eq!(error("file,id=a"), "chardev: file: no filename given");
    }
}
