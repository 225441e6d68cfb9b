//! Standard VGA with the Bochs display interface, the card that QEMU calls `std`.
//!
//! Follows the register descriptions of the IBM VGA (as in Ferraro's and Abrash's books) and the Bochs VBE
//! documentation. Left out, as in QEMU: attribute blinking, pixel panning, interrupts, retrace timing (the retrace bits
//! simply alternate), CRT modes other than what the registers' display ends say.
//!
//! - [`regs`]: ports; [`dispi`]: Bochs interface; [`window`]: planes behind 0xa0000; [`draw`], [`text`]: picture;
//!   [`edid`]: monitor description; [`pci`]: the PCI card; [`mode3`]: text mode without firmware.
//! - Tested by unit tests and by running the same scripts on a real QEMU (`tests`).

mod dispi;
mod draw;
pub mod edid;
mod mode3;
pub mod pci;
mod regs;
pub mod secondary;
mod text;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::device::{Cx, RealizeCx};
use crate::memory::{IoSpec, Owner, RamBlock, RegionId, RegionKind};
use crate::ui::Picture;
use crate::{qerr, QResult};
use dispi::{Dispi, Todo};
use regs::Regs;

/// Tags of the regions; those of port regions are their first ports.
mod tag {
    pub const WINDOW: u32 = 1;
    pub const EDID: u32 = 2;
    pub const MMIO_PORTS: u32 = 3;
    pub const MMIO_DISPI: u32 = 4;
    pub const MMIO_EXT: u32 = 5;
    pub const DISPI_PORTS: u32 = 0x1ce;
    /// Tags from here on are VGA port ranges.
    pub const VGA_PORTS: u32 = 0x3b0;
}

/// Start of the legacy memory window.
const WINDOW_BASE: u64 = 0xa_0000;
/// Port ranges of the VGA: first port and length.
const PORT_RANGES: [(u16, u32); 5] = [(0x3b4, 2), (0x3ba, 1), (0x3c0, 16), (0x3d4, 2), (0x3da, 1)];
/// Memory-mapped registers may be accessed in up to 8 bytes, which are split.
const MMIO_BYTES: IoSpec = IoSpec { valid: (1, 8), imp: (1, 1), unaligned: false };

/// What the card holds when it is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VgaState {
    regs: Regs,
    dispi: Dispi,
    big_endian: bool,
    cursor_shown: bool,
    cursor_toggle_ns: i64,
}

/// The VGA itself, without a bus.
pub struct VgaCore {
    vram: Arc<RamBlock>,
    /// Video memory in bytes, a power of two.
    vram_size: u64,
    regs: Regs,
    dispi: Dispi,
    /// Pixels of more than 8 bits are stored with the highest byte first.
    big_endian: bool,
    /// Blinking text cursor: whether it is shown, and the virtual time when that changes.
    cursor_shown: bool,
    cursor_toggle_ns: i64,
    /// The last picture was of a text mode.
    showed_text: bool,
    /// Size of the picture shown last, which stays while the screen is switched off.
    last_size: Option<(u32, u32)>,
    edid: Option<Box<[u8]>>,
    /// Container of the legacy window and region of video memory; `None` without legacy ranges.
    legacy: Option<(RegionId, RegionId)>,
    /// Alias of video memory over the linear part of the legacy window, while there is one.
    linear: Option<RegionId>,
}

/// Video memory for a card: `mb` brought into QEMU's limits (a power of two, 1 to 512 MiB).
pub fn vram_mb(mb: u32) -> u32 {
    mb.clamp(1, 512).next_power_of_two()
}

impl VgaCore {
    /// A card with `mb` MiB of memory; returns the region of that memory too, which is not mapped yet.
    ///
    /// # Errors
    /// The host has no memory.
    pub fn new(cx: &mut RealizeCx<'_>, mb: u32) -> QResult<(Self, RegionId)> {
        let vram_size = u64::from(mb) << 20;
        let region = cx.ram_region("vga.vram", vram_size, false)?;
        let vram = cx.m().ram_of(region).ok_or_else(|| qerr!("no video memory"))?;
        let core = Self {
            vram,
            vram_size,
            regs: Regs::default(),
            dispi: Dispi::default(),
            big_endian: false,
            cursor_shown: false,
            cursor_toggle_ns: 0,
            showed_text: false,
            last_size: None,
            edid: None,
            legacy: None,
            linear: None,
        };
        Ok((core, region))
    }

    /// Adds the ports and the memory window that every PC's VGA has; `memory` is the container of the window and
    /// `vram` the region of video memory.
    pub fn add_legacy(&mut self, cx: &mut RealizeCx<'_>, memory: RegionId, vram: RegionId) {
        for (port, len) in PORT_RANGES {
            // Wider accesses reach the handler, which answers like a bus without a card.
            cx.map_ports("vga", port, len, u32::from(port), IoSpec::PORTS);
        }
        // The data register is a word at an odd port.
        cx.map_ports("vbe", 0x1ce, 4, tag::DISPI_PORTS, IoSpec::PORTS);
        let window = cx.io_region("vga-lowmem", 0x2_0000, tag::WINDOW, MMIO_BYTES);
        cx.m().mem.map(memory, window, WINDOW_BASE, 1);
        self.legacy = Some((memory, vram));
    }

    /// Makes the region of memory-mapped registers (4 KiB): ports at 0x400, dispi at 0x500, if `ext` QEMU's registers
    /// at 0x600, and the monitor's description at 0.
    pub fn add_mmio(&mut self, cx: &mut RealizeCx<'_>, ext: bool, edid: Option<Box<[u8]>>) -> RegionId {
        let words = IoSpec { valid: (1, 8), imp: (2, 2), unaligned: false };
        let dwords = IoSpec { valid: (4, 8), imp: (4, 4), unaligned: false };
        let ports = cx.io_region("vga ioports remapped", 0x20, tag::MMIO_PORTS, MMIO_BYTES);
        let dispi = cx.io_region("bochs dispi interface", 0x16, tag::MMIO_DISPI, words);
        let ext = ext.then(|| cx.io_region("qemu extended regs", 8, tag::MMIO_EXT, dwords));
        let edid_region = edid.as_ref().map(|e| cx.io_region("edid", e.len() as u64, tag::EDID, MMIO_BYTES));
        self.edid = edid;
        let dev = cx.id();
        let mem = &mut cx.m().mem;
        // Between the registers it reads as ones.
        let rest = RegionKind::Io { owner: Owner::Nobody, spec: MMIO_BYTES };
        let all = mem.add("vga.mmio", 0x1000, rest, Some(dev));
        mem.map(all, ports, 0x400, 0);
        mem.map(all, dispi, 0x500, 0);
        if let Some(e) = ext {
            mem.map(all, e, 0x600, 0);
        }
        if let Some(e) = edid_region {
            mem.map(all, e, 0, 0);
        }
        all
    }

    /// Power-on state. Video memory keeps its contents, and the screen its size.
    pub fn reset(&mut self, cx: &mut Cx<'_>) {
        self.regs = Regs::default();
        self.dispi = Dispi::default();
        self.big_endian = false;
        self.update_window(cx);
    }

    /// Sequencer register `i` as it applies.
    fn sr(&self, i: usize) -> u8 {
        self.dispi.sequencer(&self.regs).get(i).copied().unwrap_or(0)
    }

    /// Maps video memory over the part of the legacy window that is linear now.
    fn update_window(&mut self, cx: &mut Cx<'_>) {
        let Some((memory, vram)) = self.legacy else { return };
        let mem = &mut cx.m.mem;
        let Some((at, size, offset)) = self.linear_window() else {
            if let Some(old) = self.linear.take() {
                mem.remove(old);
            }
            return;
        };
        let alias = self.linear.unwrap_or_else(|| {
            let alias = RegionKind::Alias { target: vram, offset, readonly: false };
            let r = mem.add("vga.chain4", u128::from(size), alias, Some(cx.dev));
            mem.map(memory, r, WINDOW_BASE + at, 2);
            r
        });
        self.linear = Some(alias);
        mem.set_size(alias, u128::from(size));
        mem.set_addr(alias, WINDOW_BASE + at);
        mem.set_alias_offset(alias, offset);
    }

    fn finish(&mut self, cx: &mut Cx<'_>, todo: Todo) {
        if todo.clear > 0 {
            self.clear_vram(todo.clear.min(self.vram_size));
        }
        if todo.window {
            self.update_window(cx);
        }
    }

    fn clear_vram(&mut self, len: u64) {
        let zero = [0; 4096];
        let mut at = 0;
        while at < len {
            let n = (len - at).min(zero.len() as u64);
            self.vram.write(at, &zero[..n as usize]);
            at += n;
        }
    }

    fn port_write(&mut self, cx: &mut Cx<'_>, port: u16, value: u8) {
        if self.regs.write(port, value) {
            self.update_window(cx);
        }
    }

    /// Reads a region made by this type.
    pub fn read(&mut self, region: u32, offset: u64, size: u8) -> u64 {
        match region {
            tag::WINDOW => u64::from(self.window_read(offset)),
            tag::EDID => {
                let e = self.edid.as_deref().unwrap_or_default();
                u64::from(e.get(offset as usize).copied().unwrap_or(0))
            }
            tag::MMIO_PORTS => u64::from(self.regs.read(0x3c0 + (offset & 0x1f) as u16)),
            tag::MMIO_DISPI => u64::from(self.dispi.read((offset >> 1) as u16, self.vram_size)),
            tag::MMIO_EXT if offset == 0 => 8,
            tag::MMIO_EXT if self.big_endian => 0xbebe_bebe,
            tag::MMIO_EXT => 0x1e1e_1e1e,
            tag::DISPI_PORTS if size != 2 => u64::MAX,
            tag::DISPI_PORTS if offset == 0 => u64::from(self.dispi.read_index()),
            tag::DISPI_PORTS => u64::from(self.dispi.read_data(self.vram_size)),
            tag::VGA_PORTS.. if size <= 2 => {
                let port = (region as u16).wrapping_add(offset as u16);
                (0..size)
                    .fold(0, |v, i| v | u64::from(self.regs.read(port.wrapping_add(u16::from(i)))) << (8 * i))
            }
            _ => u64::MAX,
        }
    }

    /// Writes a region made by this type.
    pub fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        let vram = self.vram_size;
        match region {
            tag::WINDOW => self.window_write(offset, value as u8),
            tag::MMIO_PORTS => self.port_write(cx, 0x3c0 + (offset & 0x1f) as u16, value as u8),
            tag::MMIO_DISPI => {
                let todo = self.dispi.write((offset >> 1) as u16, value as u16, vram, &mut self.regs);
                self.finish(cx, todo);
            }
            tag::MMIO_EXT if offset == 4 => match value as u32 {
                0xbebe_bebe => self.big_endian = true,
                0x1e1e_1e1e => self.big_endian = false,
                _ => {}
            },
            tag::DISPI_PORTS if size != 2 => {}
            tag::DISPI_PORTS if offset == 0 => self.dispi.write_index(value as u16),
            tag::DISPI_PORTS => {
                let todo = self.dispi.write_data(value as u16, vram, &mut self.regs);
                self.finish(cx, todo);
            }
            tag::VGA_PORTS.. if size <= 2 => {
                let port = (region as u16).wrapping_add(offset as u16);
                for i in 0..size {
                    self.port_write(cx, port.wrapping_add(u16::from(i)), (value >> (8 * i)) as u8);
                }
            }
            _ => {}
        }
    }

    /// The picture now.
    pub fn snapshot(&mut self, cx: &mut Cx<'_>) -> Picture {
        let now = cx.now();
        self.draw(now).unwrap_or_else(|| crate::ui::placeholder(cx.m))
    }

    fn save(&self) -> QResult<serde_json::Value> {
        let s = VgaState {
            regs: self.regs.clone(),
            dispi: self.dispi.clone(),
            big_endian: self.big_endian,
            cursor_shown: self.cursor_shown,
            cursor_toggle_ns: self.cursor_toggle_ns,
        };
        serde_json::to_value(s).map_err(|e| qerr!("{e}"))
    }

    fn load(&mut self, cx: &mut Cx<'_>, state: &serde_json::Value) -> QResult<()> {
        let s: VgaState =
            serde_json::from_value(state.clone()).map_err(|e| qerr!("Bad state of section 'vga': {e}"))?;
        if !s.regs.is_sane() || !s.dispi.is_sane(self.vram_size) {
            return Err(qerr!("Bad state of section 'vga': value out of range"));
        }
        self.regs = s.regs;
        self.dispi = s.dispi;
        self.big_endian = s.big_endian;
        self.cursor_shown = s.cursor_shown;
        self.cursor_toggle_ns = s.cursor_toggle_ns;
        self.last_size = None;
        self.update_window(cx);
        Ok(())
    }
}
