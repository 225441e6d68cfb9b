//! Sources of random numbers: `rng-builtin` (the kernel's generator) and `rng-random` (a file).

use std::any::Any;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use rqemu_derive::Device;

use super::props::Str;
use super::UserObject;
use crate::machine::Machine;
use crate::qom::PropInput;
use crate::{qerr, QResult};

/// What a source gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RngRead {
    /// This many bytes at the start of the buffer, at least one.
    Bytes(usize),
    /// None now; ask again when [`RngSource::fd`] is readable.
    Later,
}

/// A source of random numbers. It never blocks.
pub trait RngSource: Send {
    /// Takes up to `buf.len()` random bytes.
    ///
    /// # Errors
    /// The source is broken.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<RngRead>;
    /// The descriptor that becomes readable after [`RngRead::Later`].
    fn fd(&self) -> Option<RawFd> {
        None
    }
}

/// `rng-builtin`.
#[derive(Device)]
pub struct RngBuiltin {}

impl RngSource for RngBuiltin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<RngRead> {
        if buf.is_empty() {
            return Ok(RngRead::Later);
        }
        // SAFETY: writes at most `buf.len()` bytes into `buf`.
        let n = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), libc::GRND_NONBLOCK) };
        match n {
            n if n > 0 => Ok(RngRead::Bytes(n as usize)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl UserObject for RngBuiltin {
    fn complete(&mut self, _m: &mut Machine, _id: &str) -> QResult<()> {
        Ok(())
    }
    fn rng(&mut self) -> Option<&mut dyn RngSource> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// `rng-random`.
#[derive(Device)]
pub struct RngRandom {
    /// The open file.
    file: Option<File>,
    #[prop]
    opened: bool,
    #[prop(default = "/dev/urandom")]
    filename: Str,
}

impl RngSource for RngRandom {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<RngRead> {
        let Some(f) = &mut self.file else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
        match f.read(buf) {
            Ok(0) if buf.is_empty() => Ok(RngRead::Later),
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => Ok(RngRead::Bytes(n)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                Ok(RngRead::Later)
            }
            Err(e) => Err(e),
        }
    }
    fn fd(&self) -> Option<RawFd> {
        self.file.as_ref().map(File::as_raw_fd)
    }
}

impl UserObject for RngRandom {
    fn complete(&mut self, _m: &mut Machine, _id: &str) -> QResult<()> {
        let name = self.filename.0.clone().unwrap_or_default();
        let f = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&name);
        let fail = |e| qerr!("Could not open '{name}': {}", crate::error::strerror(&e));
        self.file = Some(f.map_err(fail)?);
        self.opened = true;
        Ok(())
    }
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        use crate::qom::PropAccess;
        match name {
            "filename" => Err(qerr!("Property 'filename' can no longer be set")),
            "opened" => Err(qerr!("Property '{ty}.opened' is not writable")),
            _ => self.set_prop(ty, name, input),
        }
    }
    fn rng(&mut self) -> Option<&mut dyn RngSource> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
