//! The bus outside of `run`: nothing there.

use crate::bus::{Bus, Page};

pub(crate) struct NoBus;
pub(crate) static NOBUS: NoBus = NoBus;

impl Bus for NoBus {
    fn page(&self, _: u64, _: bool) -> Page {
        Page::Mmio
    }
    fn mmio_read(&self, _: u64, _: u8) -> u64 {
        u64::MAX
    }
    fn mmio_write(&self, _: u64, _: u8, _: u64) {}
    fn port_in(&self, _: u16, _: u8) -> u32 {
        u32::MAX
    }
    fn port_out(&self, _: u16, _: u8, _: u32) {}
    fn take_interrupt(&self, _: u32) -> Option<u8> {
        None
    }
    fn tsc(&self) -> u64 {
        0
    }
}
