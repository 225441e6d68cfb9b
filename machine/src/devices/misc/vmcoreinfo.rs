//! Where the guest says that its vmcoreinfo note is (QEMU's `docs/specs/vmcoreinfo`): a writable fw_cfg file.

use std::sync::Arc;

use parking_lot::Mutex;
use rqemu_derive::Device;

use crate::device::{Cx, Device, RealizeCx};
use crate::devices::chipset::fw_cfg::{FwCfg, OnWrite};
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// Host format: ELF note.
const FORMAT_ELF: u16 = 1;

/// What the guest wrote: host format, guest format, size and physical address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Formats that the host takes.
    pub host_format: u16,
    /// Format of the note, 1 for ELF.
    pub guest_format: u16,
    /// Length in bytes.
    pub size: u32,
    /// Guest physical address.
    pub addr: u64,
}

/// Receiver of the address of the guest's vmcoreinfo note.
#[derive(Device)]
#[class(name = "vmcoreinfo", parent = "device", category = Misc)]
pub struct VmcoreinfoProps {}

impl DeviceClass for VmcoreinfoProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if cx.m().tree.iter().filter(|n| n.class.name == "vmcoreinfo").count() > 1 {
            return Err(qerr!("at most one vmcoreinfo device is permitted"));
        }
        let fw_cfg = cx.m().tree.by_class("fw_cfg_io").map(|n| n.id);
        let Some(dev) = fw_cfg else {
            return Err(qerr!("vmcoreinfo device requires fw_cfg with DMA"));
        };
        let note = Arc::new(Mutex::new(None));
        let told = note.clone();
        let on_write: OnWrite = Arc::new(move |_, data| *told.lock() = parse(data));
        let mut start = FORMAT_ELF.to_le_bytes().to_vec();
        start.resize(16, 0);
        cx.m()
            .with::<FwCfg, _>(dev, |f, _| f.add_writable_file("etc/vmcoreinfo", start, Some(on_write)))
            .unwrap_or(Ok(()))?;
        Ok(Box::new(Vmcoreinfo { note }))
    }
}

fn parse(d: &[u8]) -> Option<Note> {
    Some(Note {
        host_format: u16::from_le_bytes(d.get(0..2)?.try_into().ok()?),
        guest_format: u16::from_le_bytes(d.get(2..4)?.try_into().ok()?),
        size: u32::from_le_bytes(d.get(4..8)?.try_into().ok()?),
        addr: u64::from_le_bytes(d.get(8..16)?.try_into().ok()?),
    })
}

/// The device at run time.
pub struct Vmcoreinfo {
    note: Arc<Mutex<Option<Note>>>,
}

impl Vmcoreinfo {
    /// The guest's note in ELF format, if it told of one.
    pub fn note(&self) -> Option<Note> {
        self.note.lock().filter(|n| n.guest_format == FORMAT_ELF)
    }
}

impl Device for Vmcoreinfo {
    fn reset(&mut self, _cx: &mut Cx<'_>) {
        *self.note.lock() = None;
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
