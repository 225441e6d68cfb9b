//! VM generation id (QEMU's `docs/specs/vmgenid`): a GUID in guest memory that changes when a saved state is used a
//! second time. The ACPI table that points to it is made with the other tables.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use rqemu_derive::Device;
use serde_json::Value;

use crate::device::{Cx, Device, RealizeCx};
use crate::devices::chipset::fw_cfg::{FwCfg, OnWrite};
use crate::qom::{DeviceClass, PropInput, PropValue};
use crate::{qerr, QResult};

/// Blob with the GUID, loaded into guest memory by firmware.
pub const GUID_FILE: &str = "etc/vmgenid_guid";
/// File into which firmware writes the blob's address.
pub const ADDR_FILE: &str = "etc/vmgenid_addr";
/// Size of the blob.
pub const BLOB_SIZE: usize = 4096;
/// Where the GUID lies in the blob.
pub const GUID_OFFSET: usize = 40;

/// A GUID in text order; `None` means "make one up".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guid(pub Option<[u8; 16]>);

impl Guid {
    fn parse(text: &str) -> Option<[u8; 16]> {
        let b = text.as_bytes();
        if b.len() != 36 || [8, 13, 18, 23].iter().any(|i| b[*i] != b'-') {
            return None;
        }
        let digits: Vec<u8> = b.iter().copied().filter(|c| *c != b'-').collect();
        let mut out = [0; 16];
        if digits.len() != 32 {
            return None;
        }
        for (o, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
            *o = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(out)
    }

    fn text(self) -> String {
        let Some(g) = self.0 else { return "auto".to_string() };
        let hex = |r: std::ops::Range<usize>| g[r].iter().map(|b| format!("{b:02x}")).collect::<String>();
        format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
    }
}

impl PropValue for Guid {
    const TYPE: &'static str = "str";
    fn from_input(owner: &str, name: &str, input: &PropInput<'_>) -> QResult<Self> {
        let s = match input {
            PropInput::Str(s) => *s,
            PropInput::Json(Value::String(s)) => s,
            PropInput::Json(_) => {
                return Err(qerr!("Invalid parameter type for '{name}', expected: string"));
            }
        };
        if s == "auto" {
            return Ok(Self(None));
        }
        let g = Self::parse(s);
        g.map(|g| Self(Some(g))).ok_or_else(|| qerr!("Property '{owner}.{name}' doesn't take value '{s}'"))
    }
    fn to_value(&self) -> Value {
        Value::String(self.text())
    }
    fn to_qtree(&self) -> String {
        format!("\"{}\"", self.text())
    }
}

/// VM generation id.
#[derive(Device)]
#[class(name = "vmgenid", parent = "device", category = Misc)]
pub struct VmgenidProps {
    /// GUID, or "auto" for a random one
    #[prop]
    pub guid: Guid,
}

impl DeviceClass for VmgenidProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if cx.m().tree.iter().filter(|n| n.class.name == "vmgenid").count() > 1 {
            return Err(qerr!("at most one vmgenid device is permitted"));
        }
        let fw_cfg = cx.m().tree.by_class("fw_cfg_io").map(|n| n.id);
        let Some(dev) = fw_cfg else {
            return Err(qerr!(
                "vmgenid requires DMA write support in fw_cfg, which this machine type does not provide"
            ));
        };
        let guid = match self.guid.0 {
            Some(g) => g,
            None => random_guid()?,
        };
        self.guid = Guid(Some(guid));
        let addr = Arc::new(AtomicU64::new(0));
        let told = addr.clone();
        let on_write: OnWrite = Arc::new(move |_, data| {
            if let Ok(b) = <[u8; 8]>::try_from(data) {
                told.store(u64::from_le_bytes(b), Ordering::Relaxed);
            }
        });
        let mut blob = vec![0; BLOB_SIZE];
        blob[GUID_OFFSET..GUID_OFFSET + 16].copy_from_slice(&guest_order(guid));
        cx.m()
            .with::<FwCfg, _>(dev, |f, _| {
                f.add_file(GUID_FILE, blob)?;
                f.add_writable_file(ADDR_FILE, vec![0; 8], Some(on_write))
            })
            .unwrap_or(Ok(()))?;
        Ok(Box::new(Vmgenid { guid, addr }))
    }
}

/// A random GUID of version 4.
fn random_guid() -> QResult<[u8; 16]> {
    let mut g = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut g));
    read.map_err(|e| qerr!("cannot make a GUID: {}", crate::error::strerror(&e)))?;
    g[6] = (g[6] & 0x0f) | 0x40;
    g[8] = (g[8] & 0x3f) | 0x80;
    Ok(g)
}

/// The first three fields are little-endian in guest memory.
fn guest_order(mut g: [u8; 16]) -> [u8; 16] {
    g[0..4].reverse();
    g[4..6].reverse();
    g[6..8].reverse();
    g
}

/// The device at run time.
pub struct Vmgenid {
    guid: [u8; 16],
    addr: Arc<AtomicU64>,
}

impl Vmgenid {
    /// The GUID as text (`query-vm-generation-id`).
    pub fn guid(&self) -> String {
        Guid(Some(self.guid)).text()
    }

    /// Gives the running guest the present GUID (after loading a state). `true` if it has to be notified (general
    /// purpose event 0).
    pub fn update_guest(&self, cx: &mut Cx<'_>) -> bool {
        let at = self.addr.load(Ordering::Relaxed);
        at != 0 && cx.dma_write(at.wrapping_add(GUID_OFFSET as u64), &guest_order(self.guid)).is_ok()
    }
}

impl Device for Vmgenid {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        self.addr.store(0, Ordering::Relaxed);
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
