//! ACPI tables of machine `pc` (and [`microvm`]), as three fw_cfg files that firmware installs.
//!
//! [`build`] is a pure function of an [`AcpiConfig`]. QEMU builds the files when the machine starts and again
//! when the guest selects `etc/acpi/tables`, because firmware has programmed the PM base and the PCI windows
//! by then; the board code does the same by calling [`build`] again.
//!
//! Specification: ACPI 6.4; what the tables contain follows QEMU 7.2 (`pc-i440fx-7.2`), and the bytes are equal
//! to QEMU's for the configurations in `tests/firmware_oracle.rs`. Left out: NVDIMM (NFIT, SSDT), TPM2, HMAT,
//! `pxb` root buses, IPMI, AppleSMC and other optional ISA devices.

pub mod aml;
pub mod blob;
pub mod config;
mod cpu;
mod dsdt;
mod isa;
pub mod loader;
mod memhp;
pub mod microvm;
mod pci;
pub mod resource;
pub mod tables;
pub mod user;

pub use blob::{LOADER_FILE, RSDP_FILE, TABLES_FILE};
pub use config::*;

use aml::Term;
use blob::TableBlob;

/// `etc/acpi/tables` grows in steps of this size, so that small changes keep migration compatible.
const TABLES_STEP: usize = 0x2_0000;
/// `etc/table-loader` likewise.
const LOADER_STEP: usize = 0x1000;

/// Contents of the three fw_cfg files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcpiBlobs {
    /// `etc/acpi/tables`: offsets in place of addresses, checksums zero, padded.
    pub tables: Vec<u8>,
    /// `etc/acpi/rsdp`: 20 bytes.
    pub rsdp: Vec<u8>,
    /// `etc/table-loader`: the commands, padded.
    pub loader: Vec<u8>,
}

/// Builds the tables.
pub fn build(cfg: &AcpiConfig) -> AcpiBlobs {
    let mut blob = TableBlob::new();
    let facs = blob.data.len();
    tables::facs(&mut blob);
    let dsdt = blob.table(b"DSDT", 1, &cfg.oem, |blob| dsdt::emit(cfg, &mut blob.data));
    // A licence table binds its OEM ids to the FADT and the RSDT.
    let slic = cfg.user_tables.iter().find(|table| table.starts_with(b"SLIC"));
    let oem = slic.and_then(|table| Oem::of_table(table)).unwrap_or(cfg.oem);
    blob.list(|blob| tables::fadt(cfg, &oem, facs, dsdt, blob));
    let ioapics = [(tables::IOAPIC_BASE, 0)];
    blob.list(|blob| tables::madt(&cfg.oem, &cfg.cpus, &ioapics, &tables::PC_OVERRIDES, blob));
    if cfg.vmgenid {
        blob.list(|blob| tables::vmgenid(cfg, blob));
    }
    if cfg.hpet {
        blob.list(|blob| tables::hpet(cfg, blob));
    }
    if let Some(numa) = &cfg.numa {
        blob.list(|blob| tables::srat(cfg, numa, blob));
        if let Some(distances) = &numa.distances {
            blob.list(|blob| tables::slit(cfg, numa.node_memory.len(), distances, blob));
        }
    }
    blob.list(|blob| tables::waet(cfg, blob));
    for table in &cfg.user_tables {
        blob.list(|blob| blob.data.extend_from_slice(table));
    }
    let rsdt = blob.rsdt(&oem);
    let rsdp = blob.rsdp(&cfg.oem, rsdt);
    finish(blob, rsdp)
}

/// Pads the files.
fn finish(blob: TableBlob, rsdp: Vec<u8>) -> AcpiBlobs {
    let mut tables = blob.data;
    tables.resize(tables.len().next_multiple_of(TABLES_STEP), 0);
    let mut loader = blob.loader.bytes();
    loader.resize(loader.len().next_multiple_of(LOADER_STEP), 0);
    AcpiBlobs { tables, rsdp, loader }
}

/// Encodes one term (for tests and small tables).
pub fn encode(term: &impl Term) -> Vec<u8> {
    let mut out = Vec::new();
    term.emit(&mut out);
    out
}
