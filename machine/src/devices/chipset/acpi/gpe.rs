//! General-purpose event block: status bytes, then enable bytes (ACPI 4.8.4).

/// A block of `2 * half` bytes.
pub struct Gpe {
    status: Vec<u8>,
    enable: Vec<u8>,
}

impl Gpe {
    /// A block of `len` bytes, half of them status.
    pub fn new(len: usize) -> Self {
        Self { status: vec![0; len / 2], enable: vec![0; len / 2] }
    }

    /// Power-on state.
    pub fn reset(&mut self) {
        self.status.fill(0);
        self.enable.fill(0);
    }

    /// Whether an enabled event is pending; like QEMU's, only the first byte raises the interrupt.
    pub fn active(&self) -> bool {
        matches!((self.status.first(), self.enable.first()), (Some(s), Some(e)) if s & e != 0)
    }

    /// Raises events of the first byte.
    pub fn raise(&mut self, bits: u8) {
        if let Some(s) = self.status.first_mut() {
            *s |= bits;
        }
    }

    /// Byte read.
    pub fn read(&self, offset: u64) -> u8 {
        let i = offset as usize;
        let n = self.status.len();
        self.status.get(i).or_else(|| self.enable.get(i.checked_sub(n)?)).copied().unwrap_or(0)
    }

    /// Byte write: status bits are cleared by ones.
    pub fn write(&mut self, offset: u64, v: u8) {
        let i = offset as usize;
        let n = self.status.len();
        if let Some(s) = self.status.get_mut(i) {
            *s &= !v;
        } else if let Some(e) = i.checked_sub(n).and_then(|i| self.enable.get_mut(i)) {
            *e = v;
        }
    }
}
