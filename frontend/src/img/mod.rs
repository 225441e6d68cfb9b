//! `rqemu-img`: makes, inspects, converts and checks disk images, with `qemu-img`'s options, output and exit statuses.

mod args;
mod change;
mod check;
mod convert;
mod info;

use std::io::Write;
use std::process::ExitCode;

use rqemu_block::{BlockError, BlockGraph, Image, ImageOpts};

use args::Args;

/// Why a command failed: text for stderr, exit status.
pub(crate) struct Failure {
    text: String,
    status: u8,
}

impl Failure {
    fn new(text: impl Into<String>) -> Failure {
        Failure { text: text.into(), status: 1 }
    }

    fn usage(text: impl Into<String>) -> Failure {
        Failure::new(format!("{}\nTry 'qemu-img --help' for more information", text.into()))
    }

    fn with_status(self, status: u8) -> Failure {
        Failure { status, ..self }
    }
}

impl From<BlockError> for Failure {
    fn from(e: BlockError) -> Failure {
        Failure::new(with_hint(&e))
    }
}

pub(crate) type Done = Result<u8, Failure>;

type Command = fn(Args) -> Done;

const COMMANDS: &[(&str, Command)] = &[
    ("check", check::check),
    ("commit", change::commit),
    ("compare", convert::compare),
    ("convert", convert::convert),
    ("create", info::create),
    ("info", info::info),
    ("map", info::map),
    ("measure", info::measure),
    ("rebase", change::rebase),
    ("resize", change::resize),
    ("snapshot", change::snapshot),
];

/// Commands of `qemu-img` that do not exist here.
const ABSENT: &[&str] = &["amend", "bench", "bitmap", "dd"];

/// Runs the program.
pub fn main() -> ExitCode {
    let argv: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match run(&argv) {
        Ok(status) => ExitCode::from(status),
        Err(f) => {
            let mut err = std::io::stderr();
            // If stderr is gone there is nobody to tell.
            let _ = writeln!(err, "rqemu-img: {}", f.text);
            ExitCode::from(f.status)
        }
    }
}

fn run(argv: &[String]) -> Done {
    let Some(first) = argv.first() else { return Err(Failure::usage("Not enough arguments")) };
    match first.as_str() {
        "-h" | "--help" => {
            say(&help());
            return Ok(0);
        }
        "-V" | "--version" => {
            say(&format!("{}\n", version()));
            return Ok(0);
        }
        o if o.starts_with('-') => {
            return Err(Failure::usage(format!("unrecognized option '{o}'")));
        }
        _ => {}
    }
    if let Some((_, f)) = COMMANDS.iter().find(|(n, _)| n == first) {
        if argv[1..].iter().any(|a| a == "-h" || a == "--help") {
            say(&help());
            return Ok(0);
        }
        return f(Args::new(&argv[1..]));
    }
    if ABSENT.contains(&first.as_str()) {
        return Err(Failure::new(format!("Command not supported: {first}")));
    }
    Err(Failure::usage(format!("Command not found: {first}")))
}

fn version() -> String {
    format!("rqemu-img version 7.2.22 (rqemu {})", env!("CARGO_PKG_VERSION"))
}

fn help() -> String {
    let mut s = format!("{}\nusage: rqemu-img [standard options] command [command options]\n", version());
    s.push_str(
        "Disk image tool\n\n    '-h', '--help'       show this text\n    '-V', '--version'    show the version\n\n\
         Command syntax:\n",
    );
    for line in SYNTAX {
        s.push_str("  ");
        s.push_str(line);
        s.push('\n');
    }
    s.push_str("\nSupported formats: ");
    s.push_str(&rqemu_block::BlockGraph::driver_names().join(" "));
    s.push('\n');
    s
}

const SYNTAX: &[&str] = &[
    "check [-q] [-f fmt] [--output=ofmt] [-r [leaks | all]] [-T src_cache] [-U] filename",
    "commit [-q] [-f fmt] [-t cache] [-b base] [-d] [-p] filename",
    "compare [-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] filename1 filename2",
    "convert [--target-is-zero] [-U] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] [-B backing_file [-F backing_fmt]] [-o options] [-l snapshot_param] [-S sparse_size] [-m num_coroutines] [-W] filename [filename2 [...]] output_filename",
    "create [-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]",
    "info [-f fmt] [--output=ofmt] [--backing-chain] [-U] filename",
    "map [-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] filename",
    "measure [--output=ofmt] [-O output_fmt] [-o options] [--size N | [-f fmt] filename]",
    "snapshot [-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] filename",
    "rebase [-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename",
    "resize [-f fmt] [-q] [--shrink] filename [+ | -]size",
];

/// Prints to stdout.
pub(crate) fn say(text: &str) {
    // A reader that went away is no error of ours.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Prints an error that does not end the command.
pub(crate) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "rqemu-img: {text}");
}

fn with_hint(e: &BlockError) -> String {
    match e.hint() {
        Some(h) => format!("{e}\n{h}"),
        None => e.to_string(),
    }
}

/// Opens an image.
pub(crate) fn open(graph: &BlockGraph, name: &str, o: &ImageOpts) -> Result<Image, Failure> {
    graph.open_tool(name, o).map_err(|e| Failure::new(format!("Could not open '{name}': {}", with_hint(&e))))
}

/// A number as QEMU writes it in JSON with an indent of four.
pub(crate) fn pretty(v: &serde_json::Value) -> String {
    use serde::Serialize;
    let mut out = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut ser = serde_json::Serializer::with_formatter(&mut out, format);
    // Writing a value into memory cannot fail.
    let _ = v.serialize(&mut ser);
    let mut s = String::from_utf8_lossy(&out).into_owned();
    s.push('\n');
    s
}

/// `-p`.
pub(crate) struct Progress {
    on: bool,
    last: f64,
}

impl Progress {
    pub(crate) fn new(on: bool) -> Progress {
        let p = Progress { on, last: 0.0 };
        p.print(0.0);
        p
    }

    fn print(&self, percent: f64) {
        if self.on {
            say(&format!("    ({percent:.2}/100%)\r"));
            let _ = std::io::stdout().flush();
        }
    }

    pub(crate) fn set(&mut self, done: u64, total: u64) {
        let now = if total == 0 { 100.0 } else { done as f64 * 100.0 / total as f64 };
        if now - self.last >= 1.0 {
            self.last = now;
            self.print(now);
        }
    }

    pub(crate) fn end(self) {
        self.print(100.0);
        if self.on {
            say("\n");
        }
    }
}

pub(crate) fn size(text: &str) -> Result<u64, Failure> {
    rqemu_block::parse_size(text).filter(|v| i64::try_from(*v).is_ok()).ok_or_else(|| {
        Failure::new(
            "Invalid image size specified. You may use k, M, G, T, P or E suffixes for\nrqemu-img: kilobytes, megabytes, \
             gigabytes, terabytes, petabytes and exabytes.",
        )
    })
}
