//! The blob of tables under construction, with the loader commands that belong to it.

use super::config::Oem;
use super::loader::{Loader, Zone};
use super::tables::{VMGENID_ADDR_FILE, VMGENID_GUID_FILE, VMGENID_OFFSET};

/// fw_cfg file with the tables.
pub const TABLES_FILE: &str = "etc/acpi/tables";
/// fw_cfg file with the RSDP.
pub const RSDP_FILE: &str = "etc/acpi/rsdp";
/// fw_cfg file with the loader commands.
pub const LOADER_FILE: &str = "etc/table-loader";

/// Creator id and revision of every table.
const CREATOR: [u8; 8] = *b"BXPC\x01\0\0\0";
/// Length of the standard table header.
const HEADER_LEN: usize = 36;
/// Offset of the checksum in it.
const CHECKSUM_AT: usize = 9;

/// Tables so far.
#[derive(Debug, Default)]
pub struct TableBlob {
    /// Bytes of `etc/acpi/tables`.
    pub data: Vec<u8>,
    /// Commands.
    pub loader: Loader,
    /// Offsets of the tables that the RSDT lists.
    listed: Vec<usize>,
}

impl TableBlob {
    /// An empty blob whose file is placed in high memory.
    pub fn new() -> Self {
        let mut blob = Self::default();
        blob.loader.allocate(TABLES_FILE, 64, Zone::High);
        blob
    }

    /// Appends a table: header, body, and the command for its checksum; returns its offset.
    pub fn table(
        &mut self,
        signature: &[u8; 4],
        revision: u8,
        oem: &Oem,
        body: impl FnOnce(&mut Self),
    ) -> usize {
        let start = self.data.len();
        self.data.extend_from_slice(signature);
        self.data.extend([0, 0, 0, 0, revision, 0]);
        self.data.extend_from_slice(&oem.id);
        self.data.extend_from_slice(&oem.table_id);
        self.data.extend(1u32.to_le_bytes());
        self.data.extend(CREATOR);
        debug_assert_eq!(self.data.len(), start + HEADER_LEN);
        body(self);
        let len = self.data.len() - start;
        self.data[start + 4..start + 8].copy_from_slice(&(len as u32).to_le_bytes());
        self.loader.add_checksum(TABLES_FILE, start + CHECKSUM_AT, start, len);
        start
    }

    /// Appends a 32-bit pointer to another place in the blob.
    pub fn pointer(&mut self, target: usize) {
        self.loader.add_pointer(TABLES_FILE, self.data.len(), 4, TABLES_FILE);
        self.data.extend((target as u32).to_le_bytes());
    }

    /// Lists what `emit` appends in the RSDT.
    pub fn list(&mut self, emit: impl FnOnce(&mut Self)) {
        self.listed.push(self.data.len());
        emit(self);
    }

    /// Adds the commands that place the generation id and link it both ways.
    pub fn link_vmgenid(&mut self, at: usize) {
        self.loader.allocate(VMGENID_GUID_FILE, 4096, Zone::High);
        self.loader.write_pointer(VMGENID_ADDR_FILE, 0, 8, VMGENID_GUID_FILE, VMGENID_OFFSET);
        self.loader.add_pointer(TABLES_FILE, at, 4, VMGENID_GUID_FILE);
    }

    /// Appends the RSDT; returns its offset.
    pub fn rsdt(&mut self, oem: &Oem) -> usize {
        let listed = std::mem::take(&mut self.listed);
        self.table(b"RSDT", 1, oem, |blob| listed.iter().for_each(|at| blob.pointer(*at)))
    }

    /// The ACPI 1.0 RSDP for an RSDT at the given offset.
    pub fn rsdp(&mut self, oem: &Oem, rsdt: usize) -> Vec<u8> {
        const LEN: usize = 20;
        let mut rsdp = Vec::with_capacity(LEN);
        rsdp.extend_from_slice(b"RSD PTR \0");
        rsdp.extend_from_slice(&oem.id);
        rsdp.push(0);
        rsdp.extend((rsdt as u32).to_le_bytes());
        self.loader.allocate(RSDP_FILE, 16, Zone::FSegment);
        self.loader.add_pointer(RSDP_FILE, 16, 4, TABLES_FILE);
        self.loader.add_checksum(RSDP_FILE, 8, 0, LEN);
        rsdp
    }

    /// Appends a 64-bit pointer to another place in the blob.
    pub fn pointer64(&mut self, target: usize) {
        self.loader.add_pointer(TABLES_FILE, self.data.len(), 8, TABLES_FILE);
        self.data.extend((target as u64).to_le_bytes());
    }

    /// Appends the XSDT; returns its offset.
    pub fn xsdt(&mut self, oem: &Oem) -> usize {
        let listed = std::mem::take(&mut self.listed);
        self.table(b"XSDT", 1, oem, |blob| listed.iter().for_each(|at| blob.pointer64(*at)))
    }

    /// The ACPI 2.0 RSDP for an XSDT at the given offset, without an RSDT.
    pub fn rsdp2(&mut self, oem: &Oem, xsdt: usize) -> Vec<u8> {
        const LEN: usize = 36;
        const LEN1: usize = 20;
        let mut rsdp = Vec::with_capacity(LEN);
        rsdp.extend_from_slice(b"RSD PTR \0");
        rsdp.extend_from_slice(&oem.id);
        rsdp.push(2);
        rsdp.extend(0u32.to_le_bytes());
        rsdp.extend((LEN as u32).to_le_bytes());
        rsdp.extend((xsdt as u64).to_le_bytes());
        rsdp.extend([0; 4]);
        self.loader.allocate(RSDP_FILE, 16, Zone::FSegment);
        self.loader.add_checksum(RSDP_FILE, 8, 0, LEN1);
        self.loader.add_pointer(RSDP_FILE, 24, 8, TABLES_FILE);
        self.loader.add_checksum(RSDP_FILE, 32, 0, LEN);
        rsdp
    }
}
