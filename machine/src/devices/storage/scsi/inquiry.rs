//! INQUIRY: standard data and vital product data.

use super::{Cdb, Sense, Unit};

fn padded(out: &mut Vec<u8>, s: &str, len: usize) {
    out.extend(s.bytes().chain(std::iter::repeat(b' ')).take(len));
}

impl Unit {
    fn device_type(&self) -> u8 {
        if self.is_cd() {
            5
        } else {
            0
        }
    }

    pub(super) fn inquiry(&self, c: &Cdb) -> Result<Vec<u8>, Sense> {
        if c.at(1) & 1 != 0 {
            return self.vital_product_data(c.at(2));
        }
        if c.at(2) != 0 {
            return Err(Sense::INVALID_FIELD);
        }
        const LEN: usize = 36;
        let room = usize::from(c.at(4));
        let removable = self.is_cd() || self.id.removable;
        let mut d = vec![
            self.device_type(),
            if removable { 0x80 } else { 0 },
            self.id.scsi_version,
            // Addresses of units in the hierarchical form; SPC-3 response.
            0x12,
            (room.max(LEN) - 5) as u8,
            0,
            0,
            // Synchronous transfers and queueing.
            0x12,
        ];
        padded(&mut d, &self.id.vendor, 8);
        padded(&mut d, &self.id.product, 16);
        padded(&mut d, &self.id.version, 4);
        Ok(d)
    }

    fn vital_product_data(&self, page: u8) -> Result<Vec<u8>, Sense> {
        let body = match page {
            0x00 => self.pages(),
            0x80 if !self.id.serial.is_empty() => self.id.serial.bytes().take(36).collect(),
            0x83 => self.designators(),
            0xb0 if !self.is_cd() => self.limits(),
            0xb1 => {
                let mut d = self.id.rotation.to_be_bytes().to_vec();
                d.resize(0x3c, 0);
                d
            }
            // Discards by UNMAP and both forms of WRITE SAME.
            0xb2 => vec![0, 0xe0, if self.id.discard_granularity != 0 { 2 } else { 1 }, 0],
            _ => return Err(Sense::INVALID_FIELD),
        };
        let mut d = vec![self.device_type(), page];
        d.extend((body.len() as u16).to_be_bytes());
        d.extend(body);
        Ok(d)
    }

    fn pages(&self) -> Vec<u8> {
        let mut d = vec![0x00];
        if !self.id.serial.is_empty() {
            d.push(0x80);
        }
        d.push(0x83);
        if !self.is_cd() {
            d.extend([0xb0, 0xb1, 0xb2]);
        }
        d
    }

    fn designators(&self) -> Vec<u8> {
        let mut d = Vec::new();
        if !self.id.device_id.is_empty() {
            // ASCII, vendor specific.
            let id: Vec<u8> = self.id.device_id.bytes().take(255 - 8).collect();
            d.extend([2, 0, 0, id.len() as u8]);
            d.extend(id);
        }
        if self.id.wwn != 0 {
            d.extend([1, 3, 0, 8]);
            d.extend(self.id.wwn.to_be_bytes());
        }
        if self.id.port_wwn != 0 {
            d.extend([0x61, 0x93, 0, 8]);
            d.extend(self.id.port_wwn.to_be_bytes());
        }
        if self.id.port_index != 0 {
            d.extend([0x61, 0x94, 0, 4, 0, 0]);
            d.extend(self.id.port_index.to_be_bytes());
        }
        d
    }

    /// Block limits.
    fn limits(&self) -> Vec<u8> {
        let (id, block) = (&self.id, self.block());
        let blocks = |bytes: u64| u32::try_from(bytes / block).unwrap_or(u32::MAX).to_be_bytes();
        let mut d = vec![0; 0x3c];
        let mut put = |at: usize, bytes: &[u8]| d[at - 4..at - 4 + bytes.len()].copy_from_slice(bytes);
        // WRITE SAME of no blocks is refused.
        put(4, &[1]);
        put(6, &((u64::from(id.min_io) / block) as u16).to_be_bytes());
        put(8, &blocks(id.max_io));
        put(12, &blocks(id.opt_io.into()));
        put(20, &blocks(id.max_unmap));
        put(24, &255u32.to_be_bytes());
        put(28, &blocks(id.discard_granularity.into()));
        put(36, &(id.max_io / block).to_be_bytes());
        d
    }
}
