//! Command line of rqemu: the table of options, the syntax of their values, and the way from argv to a
//! [`VmSpec`](rqemu_machine::spec::VmSpec).
//!
//! [`parse`] does all of it without touching the host, save for files that `-readconfig`, `-acpitable` and `-smbios` name and the user
//! of `-runas`.
//! [`main`] prints what parsing came to, or hands the specification to [`run::run`].

#![forbid(unsafe_code)]

pub mod grammar;
pub mod groups;
pub mod help;
pub mod img;
pub mod introspect;
pub mod json;
pub mod keyval;
pub mod lists;
pub mod lower;
pub mod opts;
pub mod report;
pub mod run;
pub mod table;

use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use rqemu_machine::spec::{text, VmSpec};

use report::{Printer, Report};

/// A list that the registry (or another crate) prints. It goes to standard output with status 0 unless noted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HelpRequest {
    /// `-machine help` (`None`) or `-machine X,help`.
    Machine(Option<String>),
    /// `-cpu help`.
    Cpu,
    /// `-accel help`.
    Accel,
    /// `-device help` (`None`) or `-device X,help`.
    Device(Option<String>),
    /// `-object help` (`None`) or `-object X,help`.
    Object(Option<String>),
    /// `-chardev help`.
    Chardev,
    /// `-netdev help`.
    Netdev,
    /// `-nic model=help`, `-net nic,model=help`.
    NicModels,
    /// `-display help`.
    Display,
    /// `-vga help`.
    Vga,
    /// `-audiodev help`.
    Audiodev,
    /// `-audio model=help`.
    SoundCards,
    /// `-audio-help`.
    AudioHelp,
    /// `-drive format=help`.
    DriveFormats,
    /// `-L help`: the directories searched for firmware.
    DataDirs,
    /// `-trace help`.
    Trace,
    /// `-d help`, or an unknown item: [`help::log_items`], status 1.
    Log,
    /// `-tpmdev help`: this text on standard error, status 1.
    Tpmdev(&'static str),
}

/// What the command line asks for.
#[derive(Debug)]
pub enum Parsed {
    /// Run this VM.
    Run(Box<VmSpec>),
    /// Print this on standard output and exit with the status.
    Text(String, u8),
    /// Print a list.
    Help(HelpRequest),
}

/// Why a command line is refused: error lines in order. The exit status is 1.
#[derive(Debug)]
pub struct ArgError(pub Vec<Report>);

/// Result of [`parse`], with what is printed in any case.
#[derive(Debug)]
pub struct Outcome {
    /// Last part of argv\[0\].
    pub program: String,
    /// `-msg timestamp=on` was met.
    pub timestamp: bool,
    /// Name of the guest, if `-msg guest-name=on` was met.
    pub guest: Option<String>,
    /// Warnings, printed before anything else.
    pub warnings: Vec<Report>,
    /// The rest.
    pub result: Result<Parsed, ArgError>,
}

/// Parses a whole command line; `argv[0]` is the program.
pub fn parse(argv: &[OsString]) -> Outcome {
    let mut words = argv.iter().map(|a| text::from_bytes(a.as_bytes()));
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_string();
    let args: Vec<String> = words.collect();
    let mut cx = lower::Cx::default();
    let result = match lower::run(&mut cx, &args) {
        Ok(()) => {
            lower::machine::default_accels(&mut cx, &program);
            Ok(Parsed::Run(Box::new(std::mem::take(&mut cx.spec))))
        }
        Err(lower::Stop::Text(text, status)) => Ok(Parsed::Text(text, status)),
        Err(lower::Stop::Help(help)) => Ok(Parsed::Help(help)),
        Err(lower::Stop::Fail(reports)) => Err(ArgError(reports)),
    };
    let spec = match &result {
        Ok(Parsed::Run(spec)) => spec,
        _ => &cx.spec,
    };
    let guest = spec.name.guest.clone().filter(|_| spec.run.msg_guest_name);
    Outcome { program, timestamp: spec.run.msg_timestamp, guest, warnings: cx.warnings, result }
}

/// The program: parses `std::env::args_os()` and acts on it.
pub fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    let outcome = parse(&argv);
    let printer = Printer { program: outcome.program, timestamp: outcome.timestamp, guest: outcome.guest };
    for warning in &outcome.warnings {
        printer.print(warning);
    }
    match outcome.result {
        Ok(Parsed::Run(spec)) => run::run(*spec, &printer),
        Ok(Parsed::Text(text, status)) => print_out(&text, status),
        Ok(Parsed::Help(HelpRequest::Log)) => print_out(&help::log_items(), 1),
        Ok(Parsed::Help(HelpRequest::Tpmdev(text))) => {
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
        Ok(Parsed::Help(request)) => lists::help(&request, &printer),
        Err(ArgError(reports)) => {
            for report in &reports {
                printer.print(report);
            }
            ExitCode::FAILURE
        }
    }
}

/// Writes a text to standard output. A reader that went away is no error.
fn print_out(text: &str, status: u8) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::from(status)
}
