//! Frame information structures (Serial ATA 3.0, chapter 10) that the adapter writes into memory.

use super::super::ata::TaskFile;

/// Register FIS from the host.
pub const H2D: u8 = 0x27;
/// In byte 1 of it: a command, not device control.
pub const IS_COMMAND: u8 = 0x80;
/// In its device control byte: reset.
pub const SRST: u8 = 4;

/// Where each kind goes in the receive area.
pub const PIO_AT: u64 = 0x20;
/// See above.
pub const D2H_AT: u64 = 0x40;
/// See above.
pub const SDB_AT: u64 = 0x58;

/// In byte 1: raise an interrupt.
const INTERRUPT: u8 = 0x40;

/// Register FIS to the host.
pub fn d2h(t: &TaskFile, interrupt: bool) -> [u8; 20] {
    let mut f = [0; 20];
    f[..8].copy_from_slice(&[
        0x34,
        if interrupt { INTERRUPT } else { 0 },
        t.status,
        t.error,
        t.sector,
        t.lcyl,
        t.hcyl,
        t.select,
    ]);
    f[8..11].copy_from_slice(&[t.hob_sector, t.hob_lcyl, t.hob_hcyl]);
    f[12..14].copy_from_slice(&(t.nsector as u16).to_le_bytes());
    f
}

/// PIO set-up FIS for a block of `len` bytes.
pub fn pio_setup(t: &TaskFile, len: usize, interrupt: bool) -> [u8; 20] {
    let mut f = d2h(t, interrupt);
    f[0] = 0x5f;
    f[15] = t.status;
    f[16..18].copy_from_slice(&(len as u16).to_le_bytes());
    f
}

/// Set device bits FIS: `done` are the queued commands that have ended.
pub fn device_bits(status: u8, error: u8, done: u32) -> [u8; 8] {
    let mut f = [0xa1, INTERRUPT, status & 0x77, error, 0, 0, 0, 0];
    f[4..].copy_from_slice(&done.to_le_bytes());
    f
}
