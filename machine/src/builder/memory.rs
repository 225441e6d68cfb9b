//! RAM: size, backends.

use std::fs::OpenOptions;

use super::Build;
use crate::boards::MachineType;
use crate::memory::{RamSource, RegionId};
use crate::spec::VmSpec;
use crate::{qerr, QResult};

/// RAM size in bytes, with QEMU's checks.
pub fn ram_size(spec: &VmSpec, kind: &MachineType) -> QResult<u64> {
    let size = spec.memory.size.unwrap_or(kind.default_ram);
    if let Some(max) = spec.memory.maxmem {
        if max < size {
            return Err(qerr!(
                "invalid value of maxmem: maximum memory size (0x{max:x}) must be at least the initial memory size (0x{size:x})"
            ));
        }
        if max > size && spec.memory.slots.unwrap_or(0) == 0 {
            return Err(qerr!(
                "invalid value of maxmem: memory slots were not specified but maximum memory size (0x{max:x}) is not equal to the initial memory size (0x{size:x})"
            ));
        }
    } else if spec.memory.slots.is_some() {
        return Err(qerr!("slots can't be used without maxmem").prepend(""));
    }
    Ok(size)
}

impl Build<'_> {
    /// The RAM block of the board.
    pub fn main_ram(&mut self) -> QResult<RegionId> {
        let name = self.kind.default_ram_id.unwrap_or("ram");
        let source = match &self.spec.memory.mem_path {
            Some(path) => ram_file(path, self.ram_size)?,
            None => RamSource::Anonymous,
        };
        let r = self.m.new_ram_from(name, self.ram_size, false, None, source)?;
        if self.spec.memory.prealloc {
            if let Some(b) = self.m.ram_of(r) {
                b.prealloc();
            }
        }
        self.m.main_ram = self.m.ram_of(r);
        Ok(r)
    }
}

/// `-mem-path`: a file, or a new unlinked file in a directory.
fn ram_file(path: &str, size: u64) -> QResult<RamSource> {
    let fail = |e: std::io::Error| {
        qerr!("can't open backing store {path} for guest RAM: {}", crate::error::strerror(&e))
    };
    let meta = std::fs::metadata(path);
    let file = if meta.as_ref().is_ok_and(std::fs::Metadata::is_dir) {
        let name = format!("{path}/qemu_back_mem.pc.ram.{}", std::process::id());
        let f = OpenOptions::new().read(true).write(true).create_new(true).open(&name).map_err(fail)?;
        std::fs::remove_file(&name).map_err(fail)?;
        f
    } else {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?
    };
    if file.metadata().map_err(fail)?.len() < size {
        file.set_len(size).map_err(fail)?;
    }
    Ok(RamSource::File { file, share: false, readonly: false })
}
