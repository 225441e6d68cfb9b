//! RAM: size, and the memory backends behind it.

use std::sync::Arc;

use super::Build;
use crate::boards::MachineType;
use crate::memory::{RamBlock, RegionId, RegionKind};
use crate::objects::options;
use crate::spec::{MemorySize, Value, VmSpec};
use crate::{qerr, QResult};

/// RAM sizes in bytes, with QEMU's checks.
pub fn ram_size(spec: &VmSpec, kind: &MachineType) -> QResult<MemorySize> {
    const MAX_SLOTS: u64 = 256;
    let size = spec.memory.resolve(kind.default_ram)?;
    if size.slots > MAX_SLOTS {
        return Err(qerr!("unsupported amount of memory slots: {}", size.slots));
    }
    Ok(size)
}

impl Build<'_> {
    /// Name of the RAM's backend that the machine uses or makes.
    fn ram_id(&self) -> &'static str {
        self.kind.default_ram_id.unwrap_or("ram")
    }

    /// `-machine memory-backend=`, if it is given.
    fn memory_backend(&self) -> Option<String> {
        let b = self.m.board.as_ref()?.get("memory-backend")?;
        b.value.as_str().filter(|s| !s.is_empty()).map(str::to_string)
    }

    /// The RAM of the board: one region, made of one or more backends. Not mapped yet.
    ///
    /// # Errors
    /// A backend is missing, has the wrong size or is used twice, or the host has not enough memory.
    pub fn main_ram(&mut self) -> QResult<RegionId> {
        let backend = self.memory_backend();
        if backend.is_some() && self.spec.memory.mem_path.is_some() {
            return Err(qerr!("'-mem-path' can't be used together with'-machine memory-backend'"));
        }
        let memdevs: Vec<String> =
            self.m.numa.iter().flat_map(|n| &n.nodes).filter_map(|n| n.memdev.clone()).collect();
        match (backend, memdevs.is_empty()) {
            (Some(_), false) => {
                Err(qerr!("'-machine memory-backend' and '-numa memdev' properties are mutually exclusive"))
            }
            (Some(id), true) => self.backend_ram(&id),
            (None, false) => self.node_ram(&memdevs),
            (None, true) => {
                self.create_default_backend()?;
                self.backend_ram(self.ram_id())
            }
        }
    }

    /// The backend that `-m`, `-mem-path` and `-mem-prealloc` stand for.
    fn create_default_backend(&mut self) -> QResult<()> {
        let mut props = options([
            ("size", Value::Int(self.ram_size as i64)),
            ("prealloc", Value::Bool(self.spec.memory.prealloc)),
        ]);
        let ty = match &self.spec.memory.mem_path {
            Some(path) => {
                props.push("mem-path", Value::Str(path.clone()));
                "memory-backend-file"
            }
            None => "memory-backend-ram",
        };
        self.m.create_object(ty, self.ram_id(), &props)
    }

    /// One backend as the whole RAM.
    fn backend_ram(&mut self, id: &str) -> QResult<RegionId> {
        let block = self.m.memdev_block(id).ok_or_else(|| qerr!("Memory backend '{id}' not found"))?;
        let size = self.m.objects.get(id).and_then(|n| Some(n.object()?.memory()?.info(id).size));
        if size != Some(self.ram_size) {
            return Err(qerr!("Machine memory size does not match the size of the memory backend"));
        }
        self.m.info.ram_id = id.to_string();
        self.use_block(id, block)
    }

    fn use_block(&mut self, id: &str, block: Arc<RamBlock>) -> QResult<RegionId> {
        if self.m.objects.in_use(id) {
            return Err(qerr!("memory backend {id} can't be used multiple times."));
        }
        self.m.objects.use_object(id);
        self.m.main_ram.push(block.clone());
        let (name, size) = (block.name().to_string(), u128::from(block.len()));
        Ok(self.m.mem.add(name, size, RegionKind::Ram { block, readonly: false }, None))
    }

    /// The backends of all nodes, one after the other.
    fn node_ram(&mut self, memdevs: &[String]) -> QResult<RegionId> {
        let all = self.m.mem.add(self.ram_id(), u128::from(self.ram_size), RegionKind::Container, None);
        let mut at = 0;
        for id in memdevs {
            let block = self.m.memdev_block(id).ok_or_else(|| qerr!("Memory backend '{id}' not found"))?;
            let len = block.len();
            let r = self.use_block(id, block)?;
            self.m.mem.map(all, r, at, 0);
            at += len;
        }
        Ok(all)
    }
}
