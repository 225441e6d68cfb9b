//! The log of `-d` and `-D`: what the machine says of the guest's doings.
//!
//! Items that describe translated code (`in_asm`, `exec`, …) have no lines under an accelerator that translates none.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use parking_lot::Mutex;

use crate::error::strerror;
use crate::spec::LogSpec;
use crate::{qerr, QResult};

/// Processor state before each reset.
pub const CPU_RESET: u32 = 1 << 0;
/// What the guest does wrong.
pub const GUEST_ERRORS: u32 = 1 << 1;
/// Functions that are not implemented.
pub const UNIMP: u32 = 1 << 2;

/// The log. Cheap to ask while nothing is logged.
#[derive(Debug, Default)]
pub struct Log {
    items: AtomicU32,
    /// `None`: standard error.
    file: Mutex<Option<File>>,
}

impl Log {
    /// Opens the log that the user asked for; without items no file is made.
    ///
    /// # Errors
    /// A bad file name, or a file that cannot be created.
    pub fn open(spec: &LogSpec) -> QResult<Self> {
        let log = Self::default();
        let items = spec.items.iter().fold(0, |all, item| all | bit(item));
        if spec.items.is_empty() {
            return Ok(log);
        }
        if let Some(name) = &spec.file {
            let name = file_name(name)?;
            let file =
                File::create(&name).map_err(|e| qerr!("Error opening logfile {name}: {}", strerror(&e)))?;
            *log.file.lock() = Some(file);
        }
        log.items.store(items, Ordering::Relaxed);
        Ok(log)
    }

    /// Whether one of these items is logged.
    #[inline]
    pub fn wants(&self, items: u32) -> bool {
        self.items.load(Ordering::Relaxed) & items != 0
    }

    /// Writes text that ends in a newline.
    pub fn write(&self, text: &str) {
        // A full disk or a closed terminal must not stop the guest.
        let _ = match &mut *self.file.lock() {
            Some(f) => f.write_all(text.as_bytes()),
            None => std::io::stderr().write_all(text.as_bytes()),
        };
    }

    /// An access to memory where nothing is.
    #[cold]
    pub fn unassigned(&self, write: bool, addr: u64, size: usize) {
        if self.wants(GUEST_ERRORS) {
            let what = if write { "write" } else { "read" };
            self.write(&format!(
                "Invalid {what} at addr 0x{addr:X}, size {size}, region '(null)', reason: rejected\n"
            ));
        }
    }
}

fn bit(item: &str) -> u32 {
    match item {
        "all" => u32::MAX,
        "cpu_reset" => CPU_RESET,
        "guest_errors" => GUEST_ERRORS,
        "unimp" => UNIMP,
        // Code that no accelerator here translates.
        _ => 0,
    }
}

/// `%d` stands for the process id, once.
fn file_name(template: &str) -> QResult<String> {
    match template.matches('%').count() {
        0 => Ok(template.to_string()),
        1 if template.contains("%d") => Ok(template.replace("%d", &std::process::id().to_string())),
        _ => Err(qerr!("Bad logfile template: {template}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_and_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log%d");
        let spec = LogSpec {
            items: vec!["guest_errors".into()],
            file: Some(path.to_str().unwrap().into()),
            ..LogSpec::default()
        };
        let log = Log::open(&spec).unwrap();
        assert!(log.wants(GUEST_ERRORS) && !log.wants(CPU_RESET));
        log.unassigned(false, 0xe000_0000, 4);
        let path = dir.path().join(format!("log{}", std::process::id()));
        assert_eq!(
            std::fs::read_to_string(path).unwrap(),
            "Invalid read at addr 0xE0000000, size 4, region '(null)', reason: rejected\n"
        );
    }

    #[test]
    fn no_items_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let spec = LogSpec { file: Some(path.to_str().unwrap().into()), ..LogSpec::default() };
        assert!(!Log::open(&spec).unwrap().wants(u32::MAX));
        assert!(!path.exists());
    }

    #[test]
    fn bad_names() {
        assert_eq!(file_name("/x%d%d").unwrap_err().desc, "Bad logfile template: /x%d%d");
        assert_eq!(file_name("/x%s").unwrap_err().desc, "Bad logfile template: /x%s");
        let spec =
            LogSpec { items: vec!["int".into()], file: Some("/nonexistent/x".into()), ..LogSpec::default() };
        let e = Log::open(&spec).unwrap_err().desc;
        assert_eq!(e, "Error opening logfile /nonexistent/x: No such file or directory");
    }
}
