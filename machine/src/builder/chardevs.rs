//! Character devices and what the board connects to them.

use super::Build;
use crate::device::BusId;
use crate::qom::{class_by_name, PropInput};
use crate::{QError, QResult};

/// The line that follows the error of a character device which an option for something else asked for.
fn consequence(option: &str) -> Option<String> {
    let (option, value) = option.split_once(' ')?;
    match option {
        "-serial" => Some(format!("could not connect serial device to character backend '{value}'")),
        "-parallel" => Some(format!("could not connect parallel device to character backend '{value}'")),
        "-debugcon" => Some(format!("invalid character backend '{value}'")),
        _ => None,
    }
}

impl Build<'_> {
    /// Creates all character devices.
    pub fn create_chardevs(&mut self) -> QResult<()> {
        for c in &self.spec.chardevs {
            let messages = &mut *self.messages;
            let loc = &c.loc;
            let id = self
                .m
                .add_chardev(c, &mut |text| match loc.as_str() {
                    Some(l) => messages.info(&format!("{l}: {text}")),
                    None => messages.info(&text),
                })
                .map_err(|e| match consequence(loc.as_str().unwrap_or("")) {
                    Some(text) => {
                        messages.info(&loc.locate(e).desc);
                        loc.locate(QError::generic(text))
                    }
                    None => loc.locate(e),
                })?;
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
