//! From a specification to a running VM.

use std::process::ExitCode;

use rqemu_machine::spec::{Loc, VmSpec};
use rqemu_machine::QError;

use crate::report::{Printer, Report};
use crate::HelpRequest;

/// Builds and runs the VM.
pub fn run(_spec: VmSpec, printer: &Printer) -> ExitCode {
    printer.print(&Report::error(Loc::NONE, QError::generic("not wired yet")));
    ExitCode::FAILURE
}

/// Prints a list of what is registered.
pub fn help(_request: &HelpRequest, printer: &Printer) -> ExitCode {
    printer.print(&Report::error(Loc::NONE, QError::generic("not wired yet")));
    ExitCode::FAILURE
}
