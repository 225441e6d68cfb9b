//! Character devices and what the board connects to them.

use super::{Build, Messages};
use crate::device::BusId;
use crate::qom::{class_by_name, PropInput};
use crate::spec::{CharPort, ChardevBackend, ChardevSpec, VmSpec};
use crate::{qerr, QError, QResult};

/// The error of a chardev that `-serial` or the like stands for: a second line says what it was for.
fn port_error(spec: &VmSpec, c: &ChardevSpec, e: QError, messages: &mut dyn Messages) -> QError {
    let id = c.id.strip_suffix("-base").unwrap_or(&c.id);
    let Some((option, text)) = c.loc.as_str().and_then(|l| l.split_once(' ')) else { return e };
    let uses = |ports: &[CharPort]| ports.iter().any(|p| p.chardev.as_deref() == Some(id));
    let second = match option.trim_start_matches('-') {
        "serial" if uses(&spec.serials) => {
            format!("could not connect serial device to character backend '{text}'")
        }
        "parallel" if uses(&spec.parallels) => {
            format!("could not connect parallel device to character backend '{text}'")
        }
        "debugcon" => format!("invalid character backend '{text}'"),
        _ => return e,
    };
    messages.info(&e.desc);
    c.loc.locate(qerr!("{second}"))
}

impl Build<'_> {
    /// Creates all character devices.
    pub fn create_chardevs(&mut self) -> QResult<()> {
        for c in &self.spec.chardevs {
            let messages = &mut *self.messages;
            let loc = &c.loc;
            if self.spec.run.daemonize && matches!(c.backend, ChardevBackend::Stdio { .. }) {
                let e = loc.locate(qerr!("cannot use stdio with -daemonize"));
                return Err(port_error(self.spec, c, e, messages));
            }
            let made = self.m.add_chardev(c, &mut |text| match loc.as_str() {
                Some(l) => messages.info(&format!("{l}: {text}")),
                None => messages.info(&text),
            });
            let id = match made {
                Ok(id) => id,
                Err(e) => return Err(port_error(self.spec, c, loc.locate(e), messages)),
            };
            if let Some(path) = self.m.chardevs.pty_path(id) {
                self.messages.out(&format!("char device redirected to {path} (label {})", c.id));
            }
        }
        Ok(())
    }

    /// Serial ports of the board.
    pub fn create_serials(&mut self, isa: BusId) -> QResult<()> {
        for (i, port) in self.spec.serials.iter().enumerate().take(4) {
            let Some(chr) = &port.chardev else { continue };
            let index = i.to_string();
            let props = [("index", PropInput::Str(&index)), ("chardev", PropInput::Str(chr))];
            self.m.add_board_device("isa-serial", Some(isa), &props).map_err(|e| port.loc.locate(e))?;
        }
        Ok(())
    }

    /// Parallel ports of the board.
    pub fn create_parallels(&mut self, isa: BusId) -> QResult<()> {
        if class_by_name("isa-parallel").is_none() {
            return Ok(());
        }
        for (i, port) in self.spec.parallels.iter().enumerate().take(3) {
            let Some(chr) = &port.chardev else { continue };
            let index = i.to_string();
            let props = [("index", PropInput::Str(&index)), ("chardev", PropInput::Str(chr))];
            self.m.add_board_device("isa-parallel", Some(isa), &props).map_err(|e| port.loc.locate(e))?;
        }
        Ok(())
    }
}
