//! The DMA interface: a guest structure of control, length and address, all big-endian.

use std::sync::Arc;

use super::{FwCfg, FwCfgData};
use crate::device::Cx;

/// What the address register reads as.
const SIGNATURE: &[u8; 8] = b"QEMU CFG";

const CTL_ERROR: u32 = 0x01;
const CTL_READ: u32 = 0x02;
const CTL_SKIP: u32 = 0x04;
const CTL_SELECT: u32 = 0x08;
const CTL_WRITE: u32 = 0x10;

/// What a command does with the selected item.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Read,
    Write,
    Skip,
}

pub(super) fn read_signature(offset: u64, size: u8) -> u64 {
    (0..u64::from(size)).fold(0, |v, i| {
        let b = SIGNATURE.get((offset + i) as usize).copied().unwrap_or(0);
        v | u64::from(b) << (8 * i)
    })
}

impl FwCfg {
    /// Write to the address register: the low half, or all of it, starts a command.
    pub(super) fn write_dma(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8, value: u64) {
        match (offset, size) {
            (0, 4) => self.dma_addr = u64::from((value as u32).swap_bytes()) << 32,
            (4, 4) => {
                self.dma_addr |= u64::from((value as u32).swap_bytes());
                self.run_dma(cx);
            }
            (0, 8) => {
                self.dma_addr = value.swap_bytes();
                self.run_dma(cx);
            }
            _ => {}
        }
    }

    fn run_dma(&mut self, cx: &mut Cx<'_>) {
        let at = std::mem::take(&mut self.dma_addr);
        let mut cmd = [0; 16];
        if cx.dma_read(at, &mut cmd).is_err() {
            let _ = cx.dma_write(at, &CTL_ERROR.to_be_bytes());
            return;
        }
        let word = |i: usize| u32::from_be_bytes([cmd[i], cmd[i + 1], cmd[i + 2], cmd[i + 3]]);
        let (control, length) = (word(0), word(4));
        let addr = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & CTL_SELECT != 0 {
            self.select(cx.m, (control >> 16) as u16);
        }
        let op = match control {
            c if c & CTL_READ != 0 => Some(Op::Read),
            c if c & CTL_WRITE != 0 => Some(Op::Write),
            c if c & CTL_SKIP != 0 => Some(Op::Skip),
            _ => None,
        };
        let ok = op.is_none_or(|op| self.transfer(cx, op, addr, length as usize));
        let status: u32 = if ok { 0 } else { CTL_ERROR };
        let _ = cx.dma_write(at, &status.to_be_bytes());
    }

    fn transfer(&mut self, cx: &mut Cx<'_>, op: Op, addr: u64, length: usize) -> bool {
        if length == 0 {
            return true;
        }
        let s = &mut self.selected;
        let size = s.data.as_ref().map_or(0, |d| d.len());
        let have = length.min(size.saturating_sub(s.offset));
        let from = s.offset;
        match op {
            Op::Skip => {}
            Op::Read => {
                if let Some(part) = s.data.as_ref().and_then(|d| d.get(from..from + have)) {
                    if cx.dma_write(addr, part).is_err() {
                        return false;
                    }
                }
                if !zero(cx, addr.wrapping_add(have as u64), length - have) {
                    return false;
                }
            }
            Op::Write => {
                if have != length || !self.store(cx, addr, from, length) {
                    return false;
                }
            }
        }
        self.selected.offset += have;
        true
    }

    /// Copies guest memory into the selected writable item. The range was checked against the item.
    fn store(&mut self, cx: &mut Cx<'_>, addr: u64, from: usize, length: usize) -> bool {
        let key = self.selected.key;
        let Some(e) = self.entry_mut(key).filter(|e| e.writable) else { return false };
        let FwCfgData::Bytes(bytes) = &mut e.source else { return false };
        let Some(part) = Arc::make_mut(bytes).get_mut(from..from + length) else { return false };
        if cx.dma_read(addr, part).is_err() {
            return false;
        }
        let (now, told) = (bytes.clone(), e.on_write.clone());
        self.selected.data = Some(now.clone());
        if let Some(f) = told {
            f(cx, &now);
        }
        true
    }
}

/// Fills guest memory with zeroes.
fn zero(cx: &Cx<'_>, mut addr: u64, mut len: usize) -> bool {
    const ZEROES: [u8; 4096] = [0; 4096];
    while len > 0 {
        let n = len.min(ZEROES.len());
        if cx.dma_write(addr, &ZEROES[..n]).is_err() {
            return false;
        }
        addr = addr.wrapping_add(n as u64);
        len -= n;
    }
    true
}
