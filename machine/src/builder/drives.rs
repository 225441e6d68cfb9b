//! Block nodes and drives, and the drives that the board plugs in itself.

use rqemu_block::{BlockGraph, DriveOpts};

use super::Build;
use crate::boards::PcProps;
use crate::device::BusId;
use crate::qom::{class_by_name, PropInput};
use crate::spec::{DriveInterface, DrivePlace, DriveSpec, Media, OnError};
use crate::{qerr, QResult};

/// Whether a value came from `key=value`.
fn has_text(v: &crate::spec::Value) -> bool {
    match v {
        crate::spec::Value::Text(_) => true,
        crate::spec::Value::Dict(d) => d.iter().any(|(_, v)| has_text(v)),
        _ => false,
    }
}

/// Options of a drive as the block layer takes them; `snapshot` is the global `-snapshot`.
pub fn drive_opts(d: &DriveSpec, place: &DrivePlace) -> DriveOpts {
    let on_off = |b: bool| if b { "on" } else { "off" }.to_string();
    let mut options: Vec<(String, String)> = Vec::new();
    let mut put = |k: &str, v: String| options.push((k.to_string(), v));
    if let Some(f) = &d.file {
        put("file", f.clone());
    }
    for (k, v) in d.options.iter() {
        let text = v.as_str().map_or_else(|| v.to_json().to_string(), str::to_string);
        put(if k == "driver" { "format" } else { k }, text);
    }
    if d.read_only {
        put("read-only", on_off(true));
    }
    if d.snapshot {
        put("snapshot", on_off(true));
    }
    if d.copy_on_read {
        put("copy-on-read", on_off(true));
    }
    put("cache.writeback", on_off(d.writeback));
    for (k, v) in [("rerror", d.rerror), ("werror", d.werror)] {
        let text = match v {
            OnError::Auto => continue,
            OnError::Ignore => "ignore",
            OnError::Report => "report",
            OnError::Stop => "stop",
            OnError::Enospc => "enospc",
        };
        put(k, text.into());
    }
    if let Some(g) = &d.throttle.group {
        put("throttling.group", g.clone());
    }
    for (k, v) in &d.throttle.limits {
        put(&format!("throttling.{k}"), v.to_string());
    }
    DriveOpts { id: place.id.clone(), options, force_read_only: d.media == Media::Cdrom }
}

impl Build<'_> {
    /// Opens `-blockdev` nodes and `-drive` drives.
    pub fn open_block_devices(&mut self) -> QResult<()> {
        for b in &self.spec.blockdevs {
            let options = crate::spec::Value::Dict(b.options.clone()).to_json();
            let text = b.options.iter().any(|(_, v)| has_text(v));
            let add = if text { BlockGraph::blockdev_add_keyval } else { BlockGraph::blockdev_add };
            add(&self.m.block, options).map_err(|e| b.loc.locate(block_error(e)))?;
        }
        let places = std::mem::take(&mut self.places);
        for (d, p) in self.spec.drives.iter().zip(&places) {
            let opened = self.m.block.open_drive(&drive_opts(d, p));
            for w in self.m.block.take_warnings() {
                self.messages.plain(&w);
            }
            opened.map_err(|e| d.loc.locate(block_error(e)))?;
        }
        self.places = places;
        Ok(())
    }

    /// Refuses drives that the user asked for and that no board or controller takes.
    pub fn check_orphans(&self) -> QResult<()> {
        for (d, p) in self.spec.drives.iter().zip(&self.places) {
            let taken = match p.interface {
                DriveInterface::None | DriveInterface::Virtio => true,
                DriveInterface::Ide => p.bus < 2 && self.m.tree.find_bus("ide.0").is_some(),
                DriveInterface::Pflash => p.bus == 0 && p.unit < 2 && self.props::<PcProps>().is_some(),
                DriveInterface::Floppy => p.unit < 2 && self.m.tree.find_bus("floppy-bus.0").is_some(),
                _ => false,
            };
            if !taken && d.loc.as_str().is_some() {
                return Err(d.loc.locate(qerr!(
                    "machine type does not support if={},bus={},unit={}",
                    p.interface.as_str(),
                    p.bus,
                    p.unit
                )));
            }
        }
        Ok(())
    }

    /// The drive at a place: index into `spec.drives`.
    pub fn drive_at(&self, interface: DriveInterface, bus: u32, unit: u32) -> Option<usize> {
        self.places.iter().position(|p| (p.interface, p.bus, p.unit) == (interface, bus, unit))
    }

    /// IDE drives of the board.
    pub fn create_ide_drives(&mut self) -> QResult<()> {
        for bus in 0..2 {
            for unit in 0..2 {
                let Some(i) = self.drive_at(DriveInterface::Ide, bus, unit) else { continue };
                let class = if self.spec.drives[i].media == Media::Cdrom { "ide-cd" } else { "ide-hd" };
                let name = format!("ide.{bus}");
                let Some(b) = self.m.tree.find_bus(&name).map(|b| b.id) else { continue };
                let (id, unit) = (self.places[i].id.clone(), unit.to_string());
                let props = [("unit", PropInput::Str(&unit)), ("drive", PropInput::Str(&id))];
                let loc = self.spec.drives[i].loc.clone();
                self.m.add_board_device(class, Some(b), &props).map_err(|e| loc.locate(e))?;
            }
        }
        Ok(())
    }

    /// Floppy controller and drives of the board.
    pub fn create_floppy(&mut self, isa: BusId) -> QResult<()> {
        if class_by_name("isa-fdc").is_none() {
            return Ok(());
        }
        self.m.add_board_device("isa-fdc", Some(isa), &[])?;
        for unit in 0..2 {
            let Some(i) = self.drive_at(DriveInterface::Floppy, 0, unit) else { continue };
            let Some(bus) = self.m.tree.find_bus("floppy-bus.0").map(|b| b.id) else { continue };
            let (id, unit) = (self.places[i].id.clone(), unit.to_string());
            let props = [("unit", PropInput::Str(&unit)), ("drive", PropInput::Str(&id))];
            let loc = self.spec.drives[i].loc.clone();
            self.m.add_board_device("floppy", Some(bus), &props).map_err(|e| loc.locate(e))?;
        }
        Ok(())
    }

    /// `if=virtio` drives.
    pub fn create_virtio_drives(&mut self) -> QResult<()> {
        let wanted: Vec<usize> =
            (0..self.places.len()).filter(|i| self.places[*i].interface == DriveInterface::Virtio).collect();
        for i in wanted {
            let id = self.places[i].id.clone();
            let loc = self.spec.drives[i].loc.clone();
            let bus = self.pci_root.ok_or_else(|| loc.locate(qerr!("machine has no bus for if=virtio")))?;
            let place = self.m.tree.next_anon();
            let class = class_by_name("virtio-blk-pci")
                .ok_or_else(|| loc.locate(qerr!("'virtio-blk-pci' is not a valid device model name")))?;
            self.m
                .add_device(class, Some(bus), place, &[("drive", PropInput::Str(&id))])
                .map_err(|e| loc.locate(e))?;
        }
        Ok(())
    }
}

/// A block layer error at the user boundary.
pub fn block_error(e: rqemu_block::BlockError) -> crate::QError {
    let q = qerr!("{e}");
    match e.hint() {
        Some(h) => q.with_hint(h),
        None => q,
    }
}
