//! Sources of random numbers: `rng-builtin` (the kernel's generator) and `rng-random` (a file).

use std::any::Any;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_derive::Device;

use super::props::Str;
use super::UserObject;
use crate::devices::virtio::rng::RngSource;
use crate::machine::Machine;
use crate::qom::{PropAccess, PropInput};
use crate::{qerr, QResult};

struct Kernel;

impl RngSource for Kernel {
    fn fill(&mut self, buf: &mut [u8]) -> usize {
        // SAFETY: writes at most `buf.len()` bytes into `buf`.
        let n = unsafe { libc::getrandom(buf.as_mut_ptr().cast(), buf.len(), libc::GRND_NONBLOCK) };
        usize::try_from(n).unwrap_or(0)
    }
}

/// A file that is read without waiting.
struct FileSource(File);

impl RngSource for FileSource {
    fn fill(&mut self, buf: &mut [u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            match self.0.read(rest) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        done
    }
}

/// `rng-builtin`.
#[derive(Device)]
pub struct RngBuiltin {}

impl UserObject for RngBuiltin {
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()> {
        m.rngs.add(id, Arc::new(Mutex::new(Kernel)));
        Ok(())
    }
    fn removed(&mut self, m: &mut Machine, id: &str) {
        m.rngs.remove(id);
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// `rng-random`.
#[derive(Device)]
pub struct RngRandom {
    #[prop]
    opened: bool,
    #[prop(default = "/dev/urandom")]
    filename: Str,
}

impl UserObject for RngRandom {
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()> {
        let name = self.filename.0.clone().unwrap_or_default();
        let f = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&name);
        let fail = |e| qerr!("Could not open '{name}': {}", crate::error::strerror(&e));
        m.rngs.add(id, Arc::new(Mutex::new(FileSource(f.map_err(fail)?))));
        self.opened = true;
        Ok(())
    }
    fn removed(&mut self, m: &mut Machine, id: &str) {
        m.rngs.remove(id);
    }
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        match name {
            "filename" => Err(qerr!("Property 'filename' can no longer be set")),
            "opened" => Err(qerr!("Property '{ty}.opened' is not writable")),
            _ => self.set_prop(ty, name, input),
        }
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
