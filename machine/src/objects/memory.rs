//! Memory backends: `memory-backend-ram`, `memory-backend-file`, `memory-backend-memfd`.
//!
//! Left out: persistent memory (`pmem=on`) and `prealloc-context`, which are refused.

use std::any::Any;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rqemu_derive::Device;

use super::props::{Bytes, HostMemPolicy, NodeList, Str, ThreadContextRef};
use super::UserObject;
use crate::machine::Machine;
use crate::memory::{RamBlock, RamOptions, RamSource};
use crate::qom::{PropAccess, PropInput};
use crate::{qerr, QError, QResult};

const PAGE: u64 = 4096;

/// Memory of an object, for boards and devices.
pub trait MemoryBackend {
    /// The memory.
    fn block(&self) -> Option<Arc<RamBlock>>;
    /// What `query-memdev` shows.
    fn info(&self, id: &str) -> Memdev;
}

/// A memory backend as `query-memdev` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memdev {
    /// Id.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Pages may be merged.
    pub merge: bool,
    /// Part of core dumps.
    pub dump: bool,
    /// All pages were made at start.
    pub prealloc: bool,
    /// Other processes see writes.
    pub share: bool,
    /// Swap or huge pages are reserved.
    pub reserve: bool,
    /// Host nodes.
    pub host_nodes: Vec<u64>,
    /// Placement on them.
    pub policy: HostMemPolicy,
}

/// Properties of all memory backends.
#[derive(Device)]
pub struct CommonProps {
    /// The memory, once it exists.
    block: Option<Arc<RamBlock>>,
    /// Set to 'off' to exclude from core dump
    #[prop(default = true)]
    dump: bool,
    /// Binds memory to the list of NUMA host nodes
    #[prop(name = "host-nodes")]
    host_nodes: NodeList,
    /// Mark memory as mergeable
    #[prop(default = true)]
    merge: bool,
    /// Set the NUMA policy
    #[prop]
    policy: HostMemPolicy,
    /// Context to use for creating CPU threads for preallocation
    #[prop(name = "prealloc-context")]
    prealloc_context: ThreadContextRef,
    /// Number of CPU threads to use for prealloc
    #[prop(name = "prealloc-threads", default = 1u64)]
    prealloc_threads: Bytes,
    /// Preallocate memory
    #[prop]
    prealloc: bool,
    /// Reserve swap space (or huge pages) if applicable
    #[prop(default = true)]
    reserve: bool,
    /// Mark the memory as private to QEMU or shared
    #[prop]
    share: bool,
    /// Size of the memory region (ex: 500M)
    #[prop]
    size: Bytes,
    #[prop(name = "x-use-canonical-path-for-ramblock-id")]
    canonical_path: bool,
}

impl CommonProps {
    /// As the machine's `mem-merge` and `dump-guest-core` say.
    fn prepare(&mut self, m: &Machine) {
        let Some(b) = &m.board else { return };
        let get = |name| b.get(name).and_then(|p| p.value.as_bool());
        self.merge = get("mem-merge").unwrap_or(true);
        self.dump = get("dump-guest-core").unwrap_or(true);
    }

    fn check_size(&self, ty: &str) -> QResult<()> {
        if self.size.0 == 0 {
            return Err(qerr!("property 'size' of {ty} doesn't take value '0'"));
        }
        self.check_threads(ty)
    }

    fn check_threads(&self, ty: &str) -> QResult<()> {
        match self.prealloc_threads.0 {
            0 => Err(qerr!("property 'prealloc-threads' of {ty} doesn't take value '0'")),
            _ => Ok(()),
        }
    }

    /// Maps `source` in pages of `page` bytes and does to it what the properties say.
    fn map(&mut self, m: &mut Machine, id: &str, source: RamSource, page: u64) -> QResult<()> {
        if let Some(name) = self.prealloc_context.0.as_deref().filter(|n| !n.is_empty()) {
            return Err(QError::device_not_found(name));
        }
        let name = if self.canonical_path { format!("/objects/{id}") } else { id.to_string() };
        let options = RamOptions { page, reserve: self.reserve };
        let block = RamBlock::with(&name, self.size.0, source, options).map_err(|e| qerr!("{e}"))?;
        if self.merge {
            // Kernels without page merging refuse; it is only a wish.
            let _ = block.advise(libc::MADV_MERGEABLE);
        }
        if !self.dump {
            block.advise(libc::MADV_DONTDUMP).map_err(|e| advice_failed(&e))?;
        }
        self.bind(&block)?;
        if self.prealloc {
            prealloc(&block, self.prealloc_threads.0)?;
        }
        let block = Arc::new(block);
        m.rams.push(block.clone());
        self.block = Some(block);
        Ok(())
    }

    /// Applies the NUMA policy.
    fn bind(&self, block: &RamBlock) -> QResult<()> {
        let nodes = &self.host_nodes.0;
        let mode = match (self.policy, nodes.is_empty()) {
            (HostMemPolicy::Default, true) => return Ok(()),
            (HostMemPolicy::Default, false) => {
                return Err(qerr!(
                    "host-nodes must be empty for policy default, or you should explicitly specify a policy other \
                     than default"
                ))
            }
            (p, true) => return Err(qerr!("host-nodes must be set for policy {}", policy_name(p))),
            (HostMemPolicy::Preferred, _) => libc::MPOL_PREFERRED,
            (HostMemPolicy::Bind, _) => libc::MPOL_BIND,
            (HostMemPolicy::Interleave, _) => libc::MPOL_INTERLEAVE,
        };
        let mut mask = [0u64; 2];
        for n in nodes {
            let word = mask.get_mut((*n / 64) as usize);
            *word.ok_or_else(|| qerr!("Invalid host-nodes value: '{n}'"))? |= 1 << (n % 64);
        }
        /// MPOL_MF_STRICT and MPOL_MF_MOVE.
        const FLAGS: usize = 1 | 2;
        // SAFETY: the range is the block's mapping; the mask lives over the call and holds `128` bits (one is added as
        // the kernel counts one less).
        let r = unsafe {
            libc::syscall(libc::SYS_mbind, block.host(), block.len(), mode, mask.as_ptr(), 129usize, FLAGS)
        };
        if r != 0 {
            let e = std::io::Error::last_os_error();
            return Err(qerr!("cannot bind memory to host NUMA nodes: {}", crate::error::strerror(&e)));
        }
        Ok(())
    }

    /// `qom-set` when the memory exists. `Ok(None)`: the property may be set as usual.
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<Option<bool>> {
        match name {
            "size" => Err(qerr!("cannot change property size of {ty} ")),
            "share" | "reserve" => Err(qerr!("cannot change property value")),
            "prealloc" => {
                let mut wanted = CommonProps::default();
                wanted.set_prop(ty, name, input)?;
                if let (true, false, Some(b)) = (wanted.prealloc, self.prealloc, &self.block) {
                    prealloc(b, self.prealloc_threads.0)?;
                    self.prealloc = true;
                }
                Ok(Some(true))
            }
            "prealloc-threads" => {
                let old = self.prealloc_threads;
                self.set_prop(ty, name, input)?;
                self.check_threads(ty).inspect_err(|_| self.prealloc_threads = old)?;
                Ok(Some(true))
            }
            "prealloc-context" => {
                Err(QError::device_not_found(if let PropInput::Json(serde_json::Value::String(s)) = input {
                    s
                } else {
                    ""
                }))
            }
            "merge" | "dump" => {
                self.set_prop(ty, name, input)?;
                if let Some(b) = &self.block {
                    let _ = b.advise(if self.merge { libc::MADV_MERGEABLE } else { libc::MADV_UNMERGEABLE });
                    b.advise(if self.dump { libc::MADV_DODUMP } else { libc::MADV_DONTDUMP })
                        .map_err(|e| advice_failed(&e))?;
                }
                Ok(Some(true))
            }
            _ => Ok(None),
        }
    }

    fn removed(&mut self, m: &mut Machine) {
        if let Some(b) = self.block.take() {
            m.rams.retain(|r| !Arc::ptr_eq(r, &b));
        }
    }

    fn info(&self, id: &str) -> Memdev {
        let mut host_nodes = self.host_nodes.0.clone();
        host_nodes.sort_unstable();
        host_nodes.dedup();
        Memdev {
            id: id.to_string(),
            size: self.size.0,
            merge: self.merge,
            dump: self.dump,
            prealloc: self.prealloc,
            share: self.share,
            reserve: self.reserve,
            host_nodes,
            policy: self.policy,
        }
    }
}

fn policy_name(p: HostMemPolicy) -> String {
    use crate::qom::PropValue;
    p.to_value().as_str().unwrap_or_default().to_string()
}

fn advice_failed(e: &std::io::Error) -> QError {
    qerr!("cannot advise on guest memory: {}", crate::error::strerror(e))
}

fn prealloc(block: &RamBlock, threads: u64) -> QResult<()> {
    block
        .prealloc(threads.min(64) as usize)
        .map_err(|e| qerr!("qemu_prealloc_mem: preallocating memory failed: {}", crate::error::strerror(&e)))
}

macro_rules! backend {
    () => {
        fn prepare(&mut self, m: &Machine) {
            self.base.prepare(m);
        }
        fn removed(&mut self, m: &mut Machine, _id: &str) {
            self.base.removed(m);
        }
        fn memory(&self) -> Option<&dyn MemoryBackend> {
            Some(self)
        }
        fn as_any(&mut self) -> &mut dyn Any {
            self
        }
    };
}

macro_rules! memory_backend {
    ($t:ty) => {
        impl MemoryBackend for $t {
            fn block(&self) -> Option<Arc<RamBlock>> {
                self.base.block.clone()
            }
            fn info(&self, id: &str) -> Memdev {
                self.base.info(id)
            }
        }
    };
}

/// `memory-backend-ram`: anonymous memory.
#[derive(Device)]
pub struct MemoryBackendRam {
    #[base]
    base: CommonProps,
}

memory_backend!(MemoryBackendRam);

impl UserObject for MemoryBackendRam {
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()> {
        self.base.check_size("memory-backend-ram")?;
        let source = if self.base.share { RamSource::Shared } else { RamSource::Anonymous };
        self.base.map(m, id, source, PAGE)
    }
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        match self.base.change(ty, name, input)? {
            Some(done) => Ok(done),
            None => self.set_prop(ty, name, input),
        }
    }
    backend!();
}

/// `memory-backend-file`: a file, or a new nameless file in a folder (huge pages).
#[derive(Device)]
pub struct MemoryBackendFile {
    #[base]
    base: CommonProps,
    #[prop]
    align: Bytes,
    #[prop(name = "discard-data")]
    discard_data: bool,
    #[prop(name = "mem-path")]
    mem_path: Str,
    #[prop]
    pmem: bool,
    #[prop]
    readonly: bool,
}

memory_backend!(MemoryBackendFile);

impl UserObject for MemoryBackendFile {
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()> {
        self.base.check_size("memory-backend-file")?;
        let path = self.mem_path.0.clone().filter(|p| !p.is_empty());
        let path = path.ok_or_else(|| qerr!("mem-path property not set"))?;
        if self.pmem {
            return Err(qerr!(
                "Lack of libpmem support while setting the 'pmem=on' of memory-backend-file. We can't ensure data \
                 persistence."
            ));
        }
        let mut made = None;
        let r = self.open_and_map(m, id, &path, &mut made);
        if let (Err(_), Some(path)) = (&r, made) {
            // Best effort: the file that this call made is of no use.
            let _ = std::fs::remove_file(path);
        }
        r
    }
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        match name {
            "mem-path" | "align" => return Err(qerr!("cannot change property '{name}' of {ty}")),
            "pmem" | "readonly" => return Err(qerr!("cannot change property '{name}' of {ty}.")),
            _ => {}
        }
        match self.base.change(ty, name, input)? {
            Some(done) => Ok(done),
            None => self.set_prop(ty, name, input),
        }
    }
    backend!();
}

impl MemoryBackendFile {
    fn open_and_map(
        &mut self,
        m: &mut Machine,
        id: &str,
        path: &str,
        made: &mut Option<String>,
    ) -> QResult<()> {
        let (file, new) = open_backing(path, id, self.readonly, made)?;
        let page = page_size(&file);
        let (size, align) = (self.base.size.0, self.align.0);
        if align % page != 0 {
            return Err(qerr!("alignment 0x{align:x} must be multiples of page size 0x{page:x}"));
        }
        if align != 0 && !align.is_power_of_two() {
            return Err(qerr!("alignment 0x{align:x} must be a power of two"));
        }
        if size < page {
            return Err(qerr!("memory size 0x{size:x} must be equal to or larger than page size 0x{page:x}"));
        }
        let have = file.metadata().map(|m| m.len()).unwrap_or(0);
        if have > 0 && have < size && !new {
            return Err(qerr!("backing store size 0x{have:x} does not match 'size' option 0x{size:x}"));
        }
        if have < size {
            let full = size.next_multiple_of(page);
            // A file system that cannot do it fails at the mapping.
            let _ = file.set_len(full);
        }
        let share = self.base.share;
        self.base.map(m, id, RamSource::File { file, share, readonly: self.readonly }, page.max(align))
    }
}

impl Drop for MemoryBackendFile {
    fn drop(&mut self) {
        if let (true, Some(b)) = (self.discard_data && self.base.share, &self.base.block) {
            // Best effort: the file's pages need not be written back.
            let _ = b.advise(libc::MADV_REMOVE);
        }
    }
}

/// Opens a file, makes it, or makes a nameless one in a folder; `true` if it is new.
fn open_backing(path: &str, id: &str, readonly: bool, made: &mut Option<String>) -> QResult<(File, bool)> {
    let fail = |e: std::io::Error| {
        qerr!("can't open backing store {path} for guest RAM: {}", crate::error::strerror(&e))
    };
    match OpenOptions::new().read(true).write(!readonly).open(path) {
        Ok(f) => {
            // A folder can be opened for reading.
            if f.metadata().is_ok_and(|m| m.is_dir()) {
                return nameless(path, id).map(|f| (f, true)).map_err(fail);
            }
            Ok((f, false))
        }
        Err(e) if e.raw_os_error() == Some(libc::EISDIR) => {
            nameless(path, id).map(|f| (f, true)).map_err(fail)
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !readonly => {
            let f = OpenOptions::new().read(true).write(true).create_new(true).open(path).map_err(fail)?;
            *made = Some(path.to_string());
            Ok((f, true))
        }
        Err(e) => Err(fail(e)),
    }
}

/// A file that has no name any more.
fn nameless(dir: &str, id: &str) -> std::io::Result<File> {
    let id = id.replace('/', "_");
    let template = Path::new(dir).join(format!("qemu_back_mem.{id}.XXXXXX"));
    let mut name = CString::new(template.as_os_str().as_bytes())?.into_bytes_with_nul();
    // SAFETY: `name` is a writable C string that ends in XXXXXX.
    let fd = unsafe { libc::mkostemp(name.as_mut_ptr().cast(), libc::O_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours; `name` is still a C string.
    unsafe {
        libc::unlink(name.as_ptr().cast());
        Ok(File::from_raw_fd(fd))
    }
}

/// Page size of the file system: huge on hugetlbfs.
fn page_size(file: &File) -> u64 {
    // SAFETY: an all-zero statfs is valid, and the call fills at most one.
    let (r, s) = unsafe {
        let mut s: libc::statfs = std::mem::zeroed();
        (libc::fstatfs(file.as_raw_fd(), &mut s), s)
    };
    if r == 0 && s.f_type == libc::HUGETLBFS_MAGIC {
        u64::try_from(s.f_bsize).unwrap_or(PAGE)
    } else {
        PAGE
    }
}

/// `memory-backend-memfd`: an anonymous file.
#[derive(Device)]
pub struct MemoryBackendMemfd {
    #[base]
    base: MemfdBase,
    /// Use huge pages
    #[prop]
    hugetlb: bool,
    /// Huge pages size (ex: 2M, 1G)
    #[prop]
    hugetlbsize: Bytes,
    /// Seal growing & shrinking
    #[prop(default = true)]
    seal: bool,
}

/// The common properties, shared by default.
struct MemfdBase(CommonProps);

impl Default for MemfdBase {
    fn default() -> Self {
        Self(CommonProps { share: true, ..CommonProps::default() })
    }
}

impl std::ops::Deref for MemfdBase {
    type Target = CommonProps;
    fn deref(&self) -> &CommonProps {
        &self.0
    }
}

impl std::ops::DerefMut for MemfdBase {
    fn deref_mut(&mut self) -> &mut CommonProps {
        &mut self.0
    }
}

impl crate::qom::PropStruct for MemfdBase {
    const PROPS: &'static crate::qom::PropTable = <CommonProps as crate::qom::PropStruct>::PROPS;
}

impl PropAccess for MemfdBase {
    fn set_prop(&mut self, owner: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        self.0.set_prop(owner, name, input)
    }
    fn get_prop(&self, name: &str) -> Option<crate::qom::PropGet> {
        self.0.get_prop(name)
    }
}

memory_backend!(MemoryBackendMemfd);

impl UserObject for MemoryBackendMemfd {
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()> {
        self.base.check_size("memory-backend-memfd")?;
        let page = match (self.hugetlb, self.hugetlbsize.0) {
            (false, _) => PAGE,
            (true, 0) => default_huge_page().unwrap_or(2 << 20),
            (true, n) if n.is_power_of_two() => n,
            _ => return Err(qerr!("Hugepage size must be a power of 2")),
        };
        let file = self.memfd()?;
        let share = self.base.share;
        self.base.map(m, id, RamSource::File { file, share, readonly: false }, page)
    }
    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        if name == "hugetlbsize" {
            return Err(qerr!("cannot change property value"));
        }
        match self.base.change(ty, name, input)? {
            Some(done) => Ok(done),
            None => self.set_prop(ty, name, input),
        }
    }
    backend!();
}

impl MemoryBackendMemfd {
    fn memfd(&self) -> QResult<File> {
        let mut flags = libc::MFD_CLOEXEC;
        if self.seal {
            flags |= libc::MFD_ALLOW_SEALING;
        }
        if self.hugetlb {
            flags |= libc::MFD_HUGETLB;
            if self.hugetlbsize.0 > 0 {
                flags |= self.hugetlbsize.0.trailing_zeros() << libc::MFD_HUGE_SHIFT;
            }
        }
        let fail = |what: &str, e: std::io::Error| Err(qerr!("{what}: {}", crate::error::strerror(&e)));
        // SAFETY: the name is a C string; the call returns a new descriptor or -1.
        let fd = unsafe { libc::memfd_create(c"memory-backend-memfd".as_ptr(), flags) };
        if fd < 0 {
            return fail("failed to create memfd", std::io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let file = unsafe { File::from_raw_fd(fd) };
        let size = self.base.size.0;
        if let Err(e) = file.set_len(size) {
            return fail(&format!("failed to resize memfd to {size}"), e);
        }
        if self.seal {
            let seals = libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
            // SAFETY: plain fcntl on our descriptor.
            if unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, seals) } < 0 {
                return fail("failed to add seals", std::io::Error::last_os_error());
            }
        }
        Ok(file)
    }
}

/// The kernel's default huge page size in bytes.
fn default_huge_page() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("Hugepagesize:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

impl Machine {
    /// `query-memdev`: memory backends in the order of QEMU's list (by a table of its own; here: order of creation).
    pub fn memdev_info(&self) -> Vec<Memdev> {
        let one = |n: &super::ObjectNode| Some(n.object()?.memory()?.info(&n.id));
        self.objects.iter().filter_map(one).collect()
    }

    /// Memory of the backend `id`; `None` if there is no such backend.
    pub fn memdev_block(&self, id: &str) -> Option<Arc<RamBlock>> {
        self.objects.get(id)?.object()?.memory()?.block()
    }
}
