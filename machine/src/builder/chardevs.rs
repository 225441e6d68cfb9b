//! Character devices and what the board connects to them.

use super::Build;
use crate::device::BusId;
use crate::qom::{class_by_name, PropInput};
use crate::spec::ChardevBackend;
use crate::{qerr, QResult};

impl Build<'_> {
    /// Creates all character devices.
    pub fn create_chardevs(&mut self) -> QResult<()> {
        for c in &self.spec.chardevs {
            let messages = &mut *self.messages;
            let loc = &c.loc;
            if self.spec.run.daemonize && matches!(c.backend, ChardevBackend::Stdio { .. }) {
                return Err(loc.locate(qerr!("cannot use stdio with -daemonize")));
            }
            let id = self
                .m
                .add_chardev(c, &mut |text| match loc.as_str() {
                    Some(l) => messages.info(&format!("{l}: {text}")),
                    None => messages.info(&text),
                })
                .map_err(|e| loc.locate(e))?;
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
