//! Compares firmware tables and fw_cfg contents with those of real QEMU 7.2, byte for byte.
//!
//! Each case gives a command line and the configuration that the board code would derive from it. Without
//! QEMU the tests skip with a message; in CI they fail.

mod acpi;
mod fw_cfg;
mod microvm;
#[path = "../../../compat-tests/src/qtest.rs"]
#[allow(dead_code)]
mod qtest;
mod smbios;

use qtest::{FwCfgFile, Qtest, QEMU};

/// fw_cfg files of real QEMU with the given options.
fn real_files(args: &[&str]) -> Vec<FwCfgFile> {
    Qtest::start(QEMU, args).unwrap_or_else(|e| panic!("QEMU with {args:?}: {e}")).fw_cfg_files()
}

/// Says where two byte strings differ first, with some bytes of both around it.
fn first_difference(ours: &[u8], theirs: &[u8]) -> String {
    let at = ours.iter().zip(theirs).position(|(a, b)| a != b).unwrap_or(ours.len().min(theirs.len()));
    let around = |b: &[u8]| {
        let part = b.get(at.saturating_sub(24)..(at + 24).min(b.len())).unwrap_or_default();
        part.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
    };
    format!(
        "lengths {} and {}, first difference at {at:#x}\n ours   {}\n theirs {}",
        ours.len(),
        theirs.len(),
        around(ours),
        around(theirs)
    )
}
