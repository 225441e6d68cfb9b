//! Lists that come from the registries: `-device help`, `-machine help` and their kin.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use rqemu_machine::accel::BUILT;
use rqemu_machine::boards;
use rqemu_machine::chardev::BackendInfo;
use rqemu_machine::net::NET_KINDS;
use rqemu_machine::objects;
use rqemu_machine::qom::{self, Category, ClassInfo};
use rqemu_machine::spec::Loc;
use rqemu_machine::{qerr, QResult};

use crate::lower::display::VGA_CARDS;
use crate::report::{Printer, Report};
use crate::HelpRequest;

/// Prints a list.
pub fn help(request: &HelpRequest, printer: &Printer) -> ExitCode {
    match text(request) {
        Ok(t) => {
            // A reader that went away (`| head`) is no error.
            let _ = std::io::stdout().lock().write_all(t.as_bytes());
            ExitCode::SUCCESS
        }
        Err(e) => {
            printer.print(&Report::error(Loc::NONE, e));
            ExitCode::FAILURE
        }
    }
}

fn text(request: &HelpRequest) -> QResult<String> {
    Ok(match request {
        HelpRequest::Machine(None) => machines(),
        HelpRequest::Machine(Some(name)) => machine(name)?,
        HelpRequest::Device(None) => devices(),
        HelpRequest::Device(Some(name)) => device(name)?,
        HelpRequest::Accel => format!("Accelerators supported in QEMU binary:\n{}\n", BUILT.join("\n")),
        HelpRequest::Chardev => {
            let mut t = String::from("Available chardev backend types: \n");
            for b in BackendInfo::ALL {
                let _ = writeln!(t, "  {}", b.name);
            }
            t
        }
        HelpRequest::Display => "Available display backend types:\nnone\n".into(),
        HelpRequest::Vga => vga_cards(),
        HelpRequest::DriveFormats => drive_formats(),
        HelpRequest::DataDirs => {
            let dirs = rqemu_machine::machine::firmware_dirs();
            dirs.iter().map(|d| format!("{}\n", d.display())).collect()
        }
        HelpRequest::Cpu => rqemu_machine::cpu::help(),
        HelpRequest::Object(None) => objects::help(),
        HelpRequest::Object(Some(name)) => objects::type_help(name)?,
        HelpRequest::Netdev => netdevs(),
        HelpRequest::NicModels => rqemu_machine::builder::nic_help(),
        HelpRequest::Audiodev => "Available audio drivers:\nnone\n".into(),
        HelpRequest::SoundCards => "Valid sound card names (comma separated):\n".into(),
        HelpRequest::AudioHelp => audio_help(),
        HelpRequest::Trace => String::new(),
        // Handled before.
        HelpRequest::Log | HelpRequest::Tpmdev(_) => String::new(),
    })
}

fn machines() -> String {
    let mut t = String::from("Supported machines are:\n");
    for m in boards::MACHINES {
        if let Some(a) = m.alias {
            let _ = writeln!(t, "{a:<20} {} (alias of {})", m.desc, m.name);
        }
        let default = if m.is_default { " (default)" } else { "" };
        let _ = writeln!(t, "{:<20} {}{default}", m.name, m.desc);
    }
    t
}

fn machine(name: &str) -> QResult<String> {
    let m = boards::find(name).ok_or_else(|| {
        qerr!("unsupported machine type").with_hint("Use -machine help to list supported machines")
    })?;
    let props = (m.props)();
    let mut lines: Vec<String> =
        props.table().iter().filter(|p| p.qdev).map(|p| option_line(p.name, p.ty, p.desc, None)).collect();
    lines.sort();
    lines.dedup();
    Ok(format!("{} options:\n{}", m.type_name(), lines.concat()))
}

/// `  name=<type>          - description (default: value)`.
fn option_line(name: &str, ty: &str, desc: &str, default: Option<serde_json::Value>) -> String {
    let left = format!("  {name}=<{ty}>");
    let default = default.map(|v| match v {
        serde_json::Value::Bool(b) => format!("(default: {b})"),
        v => format!("(default: {v})"),
    });
    match (desc.is_empty(), default) {
        (true, None) => format!("{left}\n"),
        (false, None) => format!("{left:<24} - {desc}\n"),
        (_, Some(d)) => format!("{left:<24} - {desc} {d}\n"),
    }
}

const CATEGORIES: [Category; 11] = [
    Category::Bridge,
    Category::Usb,
    Category::Storage,
    Category::Network,
    Category::Input,
    Category::Display,
    Category::Sound,
    Category::Misc,
    Category::Cpu,
    Category::Watchdog,
    Category::Uncategorized,
];

fn devices() -> String {
    let mut t = String::with_capacity(4096);
    for c in CATEGORIES {
        let list: Vec<&ClassInfo> =
            qom::ALL_CLASSES.iter().copied().filter(|k| k.user_creatable && k.category == c).collect();
        if list.is_empty() {
            continue;
        }
        if !t.is_empty() {
            t.push('\n');
        }
        let _ = writeln!(t, "{} devices:", c.heading());
        for k in list {
            let _ = write!(t, "name \"{}\"", k.name);
            if let Some(b) = k.bus {
                let _ = write!(t, ", bus {}", b.type_name());
            }
            for a in k.aliases {
                let _ = write!(t, ", alias \"{a}\"");
            }
            if !k.desc.is_empty() {
                let _ = write!(t, ", desc \"{}\"", k.desc);
            }
            t.push('\n');
        }
    }
    t
}

fn device(name: &str) -> QResult<String> {
    let k =
        qom::resolve_device_class(name).ok_or_else(|| qerr!("'{name}' is not a valid device model name"))?;
    let mut lines: Vec<(&str, String)> =
        k.props.iter().map(|p| (p.name, option_line(p.name, p.ty, p.desc, (p.default)()))).collect();
    lines.extend(k.extra.iter().map(|(n, ty)| (*n, option_line(n, ty, "", None))));
    lines.sort_by(|a, b| a.0.cmp(b.0));
    if lines.is_empty() {
        return Ok(format!("There are no options for {}.\n", k.name));
    }
    Ok(format!("{} options:\n{}", k.name, lines.into_iter().map(|l| l.1).collect::<String>()))
}

fn vga_cards() -> String {
    let cards = VGA_CARDS.iter().filter(|c| c.available());
    let mark = |name| if name == "std" { " (default)" } else { "" };
    cards.map(|c| format!("{:<20} {}{}\n", c.name, c.text, mark(c.name))).collect()
}

fn drive_formats() -> String {
    let list = "file host_cdrom host_device null-aio null-co qcow2 raw";
    format!("Supported formats: {list}\nSupported formats (read-only): {list}\n")
}

fn netdevs() -> String {
    let mut t = String::from("Available netdev backend types:\n");
    for k in NET_KINDS {
        let _ = writeln!(t, "{k}");
    }
    t
}

fn audio_help() -> String {
    "Environment variable based configuration deprecated.\nPlease use the new -audiodev option.\n\nEquivalent -audiodev to your current environment variables:\n(Since you didn't specify QEMU_AUDIO_DRV, I'll list all possibilities)\n-audiodev id=none,driver=none\n".into()
}
