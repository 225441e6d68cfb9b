//! The SMART feature set: a disk that is always well.

use super::{AfterPio, AtaPort, Drive};
use crate::device::Cx;

/// Attributes: id, flags, value, worst, raw bytes, threshold.
const ATTRIBUTES: [(u8, u8, u8, u8, [u8; 4], u8); 7] = [
    (0x01, 0x03, 0x64, 0x64, [0; 4], 0x06),          // raw read error rate
    (0x03, 0x03, 0x64, 0x64, [0x10, 0, 0, 0], 0x00), // spin up
    (0x04, 0x02, 0x64, 0x64, [0x64, 0, 0, 0], 0x14), // start/stop count
    (0x05, 0x03, 0x64, 0x64, [0; 4], 0x24),          // remapped sectors
    (0x09, 0x03, 0x64, 0x64, [1, 0, 0, 0], 0x00),    // power-on hours
    (0x0c, 0x03, 0x64, 0x64, [0; 4], 0x00),          // power cycles
    (0xbe, 0x03, 0x45, 0x45, [0x1f, 0, 0x1f, 0x1f], 0x32), // air flow temperature
];

/// Entries of the self-test log.
const LOG_ENTRIES: usize = 21;

/// SMART state of a disk.
pub(super) struct Smart {
    enabled: bool,
    autosave: bool,
    /// Self-tests of the log, as the guest numbered them.
    tests: [u8; LOG_ENTRIES],
    /// Most recent entry, 1 to 21; 0 if no test was run.
    last: usize,
}

impl Default for Smart {
    fn default() -> Self {
        Self { enabled: true, autosave: true, tests: [0; LOG_ENTRIES], last: 0 }
    }
}

/// Sets the last byte so that all bytes sum to zero.
fn checksum(b: &mut [u8; 512]) {
    let sum = b[..511].iter().fold(0u8, |s, v| s.wrapping_add(*v));
    b[511] = sum.wrapping_neg();
}

impl Smart {
    fn data(&self) -> [u8; 512] {
        let mut b = [0; 512];
        b[0] = 1;
        for (row, a) in b[2..].chunks_exact_mut(12).zip(ATTRIBUTES) {
            row[..9].copy_from_slice(&[a.0, a.1, 0, a.2, a.3, a.4[0], a.4[1], a.4[2], a.4[3]]);
        }
        b[362] = 2 | u8::from(self.autosave) << 7;
        // Off-line collection: 288 s, capabilities; error logging; self-tests of 2 and 54 minutes.
        b[364..375].copy_from_slice(&[0x20, 1, 0, 0x19, 3, 0, 1, 0, 2, 0x36, 1]);
        checksum(&mut b);
        b
    }

    fn thresholds() -> [u8; 512] {
        let mut b = [0; 512];
        b[0] = 1;
        for (row, a) in b[2..].chunks_exact_mut(12).zip(ATTRIBUTES) {
            row[..2].copy_from_slice(&[a.0, a.5]);
        }
        checksum(&mut b);
        b
    }

    fn log(&self, address: u8) -> Option<[u8; 512]> {
        let mut b = [0; 512];
        b[0] = 1;
        match address {
            // Summary error log: empty.
            1 => {}
            // Self-test log.
            6 => {
                b[508] = self.last as u8;
                for (row, t) in b[2..].chunks_exact_mut(24).zip(self.tests).take(self.last) {
                    // Test, status "completed", 0x1234 hours.
                    row[..4].copy_from_slice(&[t, 0, 0x34, 0x12]);
                }
            }
            _ => return None,
        }
        checksum(&mut b);
        Some(b)
    }
}

impl Drive {
    /// SMART (B0h). `false`: the command failed.
    pub(super) fn smart_command(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort) -> Option<bool> {
        if (self.tf.lcyl, self.tf.hcyl) != (0x4f, 0xc2) || (!self.smart.enabled && self.tf.feature != 0xd8) {
            return None;
        }
        let page = match self.tf.feature {
            0xd0 => self.smart.data(),
            0xd1 => Smart::thresholds(),
            0xd5 if self.tf.nsector & 0xff == 1 => self.smart.log(self.tf.sector)?,
            0xd2 => {
                match self.tf.nsector & 0xff {
                    0 => self.smart.autosave = false,
                    0xf1 => self.smart.autosave = true,
                    _ => return None,
                }
                return Some(true);
            }
            0xd4 if self.tf.sector <= 2 => {
                self.smart.last = self.smart.last % LOG_ENTRIES + 1;
                if let Some(t) = self.smart.tests.get_mut(self.smart.last - 1) {
                    *t = self.tf.sector;
                }
                return Some(true);
            }
            0xd8 => {
                self.smart.enabled = true;
                return Some(true);
            }
            0xd9 => {
                self.smart.enabled = false;
                return Some(true);
            }
            // RETURN STATUS: the registers keep the values that mean "healthy".
            0xda => return Some(true),
            _ => return None,
        };
        self.reply_sector(cx, port, &page);
        Some(false)
    }

    /// Offers one sector of data and raises the interrupt.
    pub(super) fn reply_sector(&mut self, cx: &mut Cx<'_>, port: &mut dyn AtaPort, data: &[u8; 512]) {
        self.tf.status = super::status::DRDY | super::status::DSC;
        self.buf.clear();
        self.buf.extend_from_slice(data);
        self.offer(512, AfterPio::Done);
        port.irq(cx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums() {
        let mut s = Smart::default();
        assert_eq!((s.data()[362], s.data()[511], Smart::thresholds()[511]), (0x82, 0x06, 0xaf));
        s.autosave = false;
        assert_eq!(s.data()[511], 0x86);
        assert_eq!(s.log(1).map(|b| b[511]), Some(0xff));
        assert!(s.log(7).is_none());
    }
}
