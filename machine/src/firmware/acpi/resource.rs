//! Resource descriptors and resource templates (ACPI 6.4, section 6.4 "Resource Data Types for ACPI").

use super::aml::{int, with_pkg_length, Term};

/// `ResourceTemplate () { … }`: a buffer of descriptors, closed by an end tag without a checksum.
pub struct Resources<T>(pub T);

impl<T: Term> Term for Resources<T> {
    fn emit(&self, out: &mut Vec<u8>) {
        let mut body = Vec::with_capacity(64);
        self.0.emit(&mut body);
        body.extend([0x79, 0x00]);
        out.push(0x11);
        with_pkg_length(out, |out| {
            int(out, body.len() as u64);
            out.extend_from_slice(&body);
        });
    }
}

/// I/O ports, decoded on 16 bits: first port (fixed), alignment, number of ports.
pub struct Io(pub u16, pub u8, pub u8);

impl Term for Io {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x47, 0x01]);
        out.extend(self.0.to_le_bytes());
        out.extend(self.0.to_le_bytes());
        out.extend([self.1, self.2]);
    }
}

/// ISA interrupt line 0 to 15, edge triggered.
pub struct IrqNoFlags(pub u8);

impl Term for IrqNoFlags {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x22);
        out.extend((1u16 << (self.0 & 15)).to_le_bytes());
    }
}

/// 8-bit ISA DMA channel 0 to 7, compatible timing, no bus master.
pub struct Dma8(pub u8);

impl Term for Dma8 {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x2a, 1 << (self.0 & 7), 0x00]);
    }
}

/// Extended interrupt descriptor: consumer, active high, with the given flag bits (see [`Interrupts::LEVEL_SHARED`]).
pub struct Interrupts<'a>(pub u8, pub &'a [u32]);

impl Interrupts<'_> {
    /// Consumer, level triggered, active high, shared.
    pub const LEVEL_SHARED: u8 = 0x09;
    /// Consumer, level triggered, active high, exclusive.
    pub const LEVEL: u8 = 0x01;
    /// Consumer, edge triggered, active high, exclusive.
    pub const EDGE: u8 = 0x03;
}

impl Term for Interrupts<'_> {
    fn emit(&self, out: &mut Vec<u8>) {
        out.push(0x89);
        out.extend((2 + 4 * self.1.len() as u16).to_le_bytes());
        out.extend([self.0, self.1.len() as u8]);
        for irq in self.1 {
            out.extend(irq.to_le_bytes());
        }
    }
}

/// Fixed 32-bit memory range: writable, base, length.
pub struct Memory32Fixed(pub bool, pub u32, pub u32);

impl Term for Memory32Fixed {
    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([0x86, 0x09, 0x00, u8::from(self.0)]);
        out.extend(self.1.to_le_bytes());
        out.extend(self.2.to_le_bytes());
    }
}

/// Kind of an address space window.
#[derive(Clone, Copy)]
pub enum Window {
    /// Memory, write-combining or cached as the guest likes.
    MemoryCacheable,
    /// Memory that is not cached.
    MemoryUncached,
    /// I/O ports (the entire ISA range).
    Io,
    /// PCI bus numbers.
    Bus,
}

impl Window {
    /// Resource type and type-specific flags.
    fn flags(self) -> (u8, u8) {
        match self {
            Self::MemoryCacheable => (0, 0x03),
            Self::MemoryUncached => (0, 0x01),
            Self::Io => (1, 0x03),
            Self::Bus => (2, 0x00),
        }
    }

    /// Descriptor head: tag, length, type, general flags (producer, both ends fixed, positive decode).
    fn head(self, out: &mut Vec<u8>, tag: u8, len: u16) {
        let (kind, specific) = self.flags();
        out.push(tag);
        out.extend(len.to_le_bytes());
        out.extend([kind, 0x0c, specific]);
    }
}

macro_rules! window_term {
    ($(#[$doc:meta])* $name:ident $ty:ty, $tag:literal) => {
        $(#[$doc])*
        pub struct $name(pub Window, pub $ty, pub $ty);

        impl Term for $name {
            fn emit(&self, out: &mut Vec<u8>) {
                const WIDTH: u16 = (<$ty>::BITS / 8) as u16;
                self.0.head(out, $tag, 3 + 5 * WIDTH);
                let zero: $ty = 0;
                let len = self.2.wrapping_sub(self.1).wrapping_add(1);
                for value in [zero, self.1, self.2, zero, len] {
                    out.extend(value.to_le_bytes());
                }
            }
        }
    };
}
window_term!(
    /// Window of 16-bit addresses: kind, first, last.
    WordWindow u16, 0x88
);
window_term!(
    /// Window of 32-bit addresses: kind, first, last.
    DWordWindow u32, 0x87
);
window_term!(
    /// Window of 64-bit addresses: kind, first, last.
    QWordWindow u64, 0x8a
);

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(term: impl Term) -> Vec<u8> {
        let mut out = Vec::new();
        term.emit(&mut out);
        out
    }

    #[test]
    fn template_of_small_descriptors() {
        let got = bytes(Resources((Io(0x60, 1, 1), IrqNoFlags(12), Dma8(2))));
        let want = [
            0x11, 0x13, 0x0a, 0x10, 0x47, 1, 0x60, 0, 0x60, 0, 1, 1, 0x22, 0x00, 0x10, 0x2a, 0x04, 0x00,
            0x79, 0,
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn windows_carry_their_length() {
        let got = bytes(DWordWindow(Window::MemoryUncached, 0xc000_0000, 0xfebf_ffff));
        assert_eq!(got[..6], [0x87, 0x17, 0x00, 0x00, 0x0c, 0x01]);
        assert_eq!(got[10..14], 0xc000_0000u32.to_le_bytes());
        assert_eq!(got[14..18], 0xfebf_ffffu32.to_le_bytes());
        assert_eq!(got[22..], 0x3ec0_0000u32.to_le_bytes());
    }
}
