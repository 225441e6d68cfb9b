//! `-help`, `-version` and `-d help`.

use crate::lower::run::LOG_ITEMS;
use crate::table::{self, Section};

/// Version of QEMU whose behaviour this is.
pub const QEMU_VERSION: &str = "7.2.22";

/// Text of `-version`. Scripts read the first line.
pub fn version() -> String {
    format!(
        "QEMU emulator version {QEMU_VERSION} (rqemu {})\nrqemu: copyright the rqemu developers, Apache-2.0 OR MIT\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Text of `-help`.
pub fn text() -> String {
    let mut out = String::with_capacity(32 * 1024);
    out += &version();
    out += "usage: qemu-system-x86_64 [options] [disk_image]\n\n\
            disk_image becomes the first IDE hard disk; its format is found out or raw\n";
    for Section { title, options } in table::SECTIONS {
        out += "\n";
        out += title;
        out += "\n";
        for option in *options {
            out += option.help;
            if !option.help.is_empty() && !option.help.ends_with('\n') {
                out.push('\n');
            }
        }
    }
    out += "\nWith -nographic or mon:, press Ctrl-A h on the console for its keys.\n";
    out
}

/// Text of `-d help`.
pub fn log_items() -> String {
    let mut out = String::from("Log items (comma separated):\n");
    for (name, what) in LOG_ITEMS {
        out += &format!("{name:<15} {what}\n");
    }
    out + "trace:PATTERN   enable trace events\n\nUse \"-d trace:help\" to get a list of trace events.\n"
}
