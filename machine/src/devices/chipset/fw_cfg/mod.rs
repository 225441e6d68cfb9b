//! Firmware configuration device (`docs/specs/fw_cfg` of QEMU): named and numbered blobs that firmware reads through
//! two ports or by DMA, and writes by DMA where a blob allows it.
//!
//! Files are kept sorted by name, and their selectors follow from that order, as in QEMU 7.2. A blob can be built
//! when the guest first selects it after a reset (ACPI tables depend on what firmware did before).
//! Left out: writes through the data port (removed from QEMU too). Tests: beside, and against a real QEMU.

mod dma;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use rqemu_derive::Device;

use crate::device::{Cx, DevId, Device, DeviceTree, IoHandler, Place, RealizeCx};
pub use crate::firmware::fw_cfg_files::{key, MAX_NAME};
use crate::machine::Machine;
use crate::memory::IoSpec;
use crate::qom::{DeviceClass, PropInput};
use crate::{qerr, QResult};

/// Selector bits that do not name an item: the write channel, and "architecture local" items.
const WRITE_CHANNEL: u16 = 0x4000;
const ENTRY_MASK: u16 = 0x3fff;
/// Smallest number of file slots.
const MIN_SLOTS: u16 = 0x10;

/// Makes the contents of a blob; called with the machine when the guest selects it.
pub type Builder = Arc<dyn Fn(&mut Machine) -> Vec<u8> + Send + Sync>;
/// Told of the whole contents after the guest wrote to a file.
pub type OnWrite = Arc<dyn Fn(&mut Cx<'_>, &[u8]) + Send + Sync>;

/// Contents of an item.
#[derive(Clone)]
pub enum FwCfgData {
    /// Known now.
    Bytes(Arc<[u8]>),
    /// Built at the first selection after each reset.
    Built {
        /// Size that the directory shows before that; a shorter result is padded with zeroes to it.
        size: u32,
        /// Makes it.
        build: Builder,
    },
}

impl From<Vec<u8>> for FwCfgData {
    fn from(v: Vec<u8>) -> Self {
        Self::Bytes(v.into())
    }
}

impl From<Arc<[u8]>> for FwCfgData {
    fn from(v: Arc<[u8]>) -> Self {
        Self::Bytes(v)
    }
}

impl From<&[u8]> for FwCfgData {
    fn from(v: &[u8]) -> Self {
        Self::Bytes(v.into())
    }
}

impl FwCfgData {
    /// Bytes that the directory shows before anybody asked for the contents.
    pub fn size(&self) -> u32 {
        match self {
            Self::Bytes(b) => b.len() as u32,
            Self::Built { size, .. } => *size,
        }
    }

    /// Built on selection; the directory shows `size` until then.
    pub fn built(size: u32, build: impl Fn(&mut Machine) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::Built { size, build: Arc::new(build) }
    }
}

/// One item.
struct Entry {
    source: FwCfgData,
    /// Result of the builder since the last reset.
    built: Option<Arc<[u8]>>,
    writable: bool,
    on_write: Option<OnWrite>,
}

impl Entry {
    fn new(source: FwCfgData) -> Self {
        Self { source, built: None, writable: false, on_write: None }
    }

    fn size(&self) -> u32 {
        match (&self.built, &self.source) {
            (Some(b), _) => b.len() as u32,
            (None, source) => source.size(),
        }
    }

    fn contents(&mut self, m: &mut Machine) -> Arc<[u8]> {
        match &self.source {
            FwCfgData::Bytes(b) => b.clone(),
            FwCfgData::Built { size, build } => {
                let built = self.built.take().unwrap_or_else(|| {
                    let mut v = build(m);
                    if v.len() < *size as usize {
                        v.resize(*size as usize, 0);
                    }
                    v.into()
                });
                self.built.insert(built).clone()
            }
        }
    }
}

/// Firmware configuration device on I/O ports.
#[derive(Device)]
#[class(name = "fw_cfg_io", parent = "fw_cfg", bus = System, category = Misc, internal)]
pub struct FwCfgIoProps {
    /// Transfers by DMA
    #[prop(name = "dma_enabled", default = true)]
    pub dma_enabled: bool,
    /// Number of selectors reserved for files
    #[prop(default = 0x20u16)]
    pub x_file_slots: u16,
    /// Base properties
    #[base]
    pub base: FwCfgProps,
}

/// Properties of every firmware configuration device.
#[derive(Device)]
pub struct FwCfgProps {
    /// Restore the memory that holds ACPI tables on migration
    #[prop(default = true)]
    pub acpi_mr_restore: bool,
}

const TAG_PORTS: u32 = 0;
const TAG_DMA: u32 = 1;

impl DeviceClass for FwCfgIoProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if self.x_file_slots < MIN_SLOTS {
            return Err(qerr!("\"file_slots\" must be at least 0x{MIN_SLOTS:x}"));
        }
        if self.x_file_slots > ENTRY_MASK + 1 - key::FILE_FIRST {
            return Err(qerr!("\"file_slots\" must not exceed 0x{:x}", ENTRY_MASK + 1 - key::FILE_FIRST));
        }
        cx.map_ports("fwcfg", 0x510, 2, TAG_PORTS, IoSpec { valid: (1, 2), imp: (1, 2), unaligned: false });
        if self.dma_enabled {
            cx.map_ports("fwcfg.dma", 0x514, 8, TAG_DMA, IoSpec::ANY8);
        }
        let mut f = FwCfg {
            items: BTreeMap::new(),
            files: Vec::new(),
            slots: usize::from(self.x_file_slots),
            selected: Selected::default(),
            dma_addr: 0,
        };
        f.add_bytes(key::SIGNATURE, b"QEMU".as_slice());
        f.add_u32(key::ID, if self.dma_enabled { 3 } else { 1 });
        Ok(Box::new(f))
    }
}

/// What reads and writes go to.
#[derive(Default)]
struct Selected {
    /// Selector without the write channel bit.
    key: u16,
    /// Contents; `None` if there is no such item.
    data: Option<Arc<[u8]>>,
    /// Next byte.
    offset: usize,
}

/// The device at run time.
pub struct FwCfg {
    items: BTreeMap<u16, Entry>,
    /// Sorted by name; the selector is `FILE_FIRST` + index.
    files: Vec<(String, Entry)>,
    slots: usize,
    selected: Selected,
    dma_addr: u64,
}

impl FwCfg {
    /// Adds or replaces a numbered item.
    pub fn add_bytes(&mut self, key: u16, data: impl Into<FwCfgData>) {
        self.items.insert(key, Entry::new(data.into()));
    }

    /// Adds or replaces a numbered item: 16 bits, little-endian.
    pub fn add_u16(&mut self, key: u16, v: u16) {
        self.add_bytes(key, v.to_le_bytes().as_slice());
    }

    /// Adds or replaces a numbered item: 32 bits, little-endian.
    pub fn add_u32(&mut self, key: u16, v: u32) {
        self.add_bytes(key, v.to_le_bytes().as_slice());
    }

    /// Adds or replaces a numbered item: 64 bits, little-endian.
    pub fn add_u64(&mut self, key: u16, v: u64) {
        self.add_bytes(key, v.to_le_bytes().as_slice());
    }

    /// Adds or replaces a numbered item: text with a terminating zero.
    pub fn add_string(&mut self, key: u16, text: &str) {
        let mut v = text.as_bytes().to_vec();
        v.push(0);
        self.add_bytes(key, v);
    }

    /// Adds a file.
    ///
    /// # Errors
    /// The name is taken or longer than [`MAX_NAME`], or all slots are in use.
    pub fn add_file(&mut self, name: &str, data: impl Into<FwCfgData>) -> QResult<()> {
        self.insert_file(name, Entry::new(data.into()))
    }

    /// Adds a file that the guest may write; `on_write` is told of each write.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn add_writable_file(&mut self, name: &str, data: Vec<u8>, on_write: Option<OnWrite>) -> QResult<()> {
        let entry = Entry { source: data.into(), built: None, writable: true, on_write };
        self.insert_file(name, entry)
    }

    /// Replaces a file's contents, or adds the file.
    ///
    /// # Errors
    /// As [`Self::add_file`].
    pub fn set_file(&mut self, name: &str, data: impl Into<FwCfgData>) -> QResult<()> {
        match self.position(name) {
            Ok(i) => {
                if let Some((_, e)) = self.files.get_mut(i) {
                    e.source = data.into();
                    e.built = None;
                }
                Ok(())
            }
            Err(_) => self.add_file(name, data),
        }
    }

    /// Whether there is such a file.
    pub fn has_file(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// Names of all files, in the order of their selectors.
    pub fn file_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(|(n, _)| n.as_str())
    }

    /// Contents of a file as the guest would read them now; builds it if need be.
    pub fn file_contents(&mut self, m: &mut Machine, name: &str) -> Option<Arc<[u8]>> {
        let i = self.position(name).ok()?;
        Some(self.files.get_mut(i)?.1.contents(m))
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.files.binary_search_by(|(n, _)| n.as_str().cmp(name))
    }

    fn insert_file(&mut self, name: &str, entry: Entry) -> QResult<()> {
        if name.len() > MAX_NAME {
            return Err(qerr!("name too long (max. {MAX_NAME} char)"));
        }
        let at = match self.position(name) {
            Ok(_) => return Err(qerr!("duplicate fw_cfg file name: {name}")),
            Err(at) => at,
        };
        if self.files.len() >= self.slots {
            return Err(qerr!("no fw_cfg file slot left for {name}"));
        }
        self.files.insert(at, (name.to_string(), entry));
        Ok(())
    }

    fn directory(&self) -> Arc<[u8]> {
        // QEMU always shows the full table, with unused entries zero.
        let mut v = Vec::with_capacity(4 + 64 * self.slots);
        v.extend_from_slice(&(self.files.len() as u32).to_be_bytes());
        for (i, (name, e)) in self.files.iter().enumerate() {
            v.extend_from_slice(&e.size().to_be_bytes());
            v.extend_from_slice(&(key::FILE_FIRST + i as u16).to_be_bytes());
            v.extend_from_slice(&[0; 2]);
            v.extend_from_slice(name.as_bytes());
            v.resize(4 + 64 * (i + 1), 0);
        }
        v.resize(4 + 64 * self.slots, 0);
        v.into()
    }

    fn entry_mut(&mut self, key: u16) -> Option<&mut Entry> {
        match usize::from(key).checked_sub(usize::from(key::FILE_FIRST)) {
            Some(i) if i < self.files.len() => self.files.get_mut(i).map(|f| &mut f.1),
            _ => self.items.get_mut(&key),
        }
    }

    fn select(&mut self, m: &mut Machine, selector: u16) {
        let key = selector & !WRITE_CHANNEL;
        let data = if key == key::FILE_DIR {
            (!self.files.is_empty()).then(|| self.directory())
        } else {
            self.entry_mut(key).map(|e| e.contents(m))
        };
        self.selected = Selected { key, data, offset: 0 };
    }

    fn read_byte(&mut self) -> u8 {
        let s = &mut self.selected;
        let Some(b) = s.data.as_ref().and_then(|d| d.get(s.offset)) else { return 0 };
        s.offset += 1;
        *b
    }
}

impl Device for FwCfg {
    fn reset(&mut self, cx: &mut Cx<'_>) {
        for e in self.items.values_mut().chain(self.files.iter_mut().map(|f| &mut f.1)) {
            e.built = None;
        }
        self.select(cx.m, key::SIGNATURE);
        self.dma_addr = 0;
    }
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl IoHandler for FwCfg {
    fn read(&mut self, _cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        match (region, size) {
            (TAG_DMA, _) => dma::read_signature(offset, size),
            (_, 1) => u64::from(self.read_byte()),
            _ => 0,
        }
    }
    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        match (region, size) {
            (TAG_DMA, _) => self.write_dma(cx, offset, size, value),
            (_, 2) => self.select(cx.m, value as u16),
            _ => {}
        }
    }
}

/// Makes the device at `/machine/fw_cfg`.
///
/// # Errors
/// Only those of device creation.
pub fn create(m: &mut Machine, props: &[(&str, PropInput<'_>)]) -> QResult<DevId> {
    m.add_board_device_at("fw_cfg_io", Some(DeviceTree::SYSTEM), Place::Machine("fw_cfg"), props)
}
