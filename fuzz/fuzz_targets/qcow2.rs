//! qcow2 images with broken metadata: opening, reading all, writing, and opening again.
#![cfg_attr(fuzzing, no_main)]

use rqemu_block::{BlockGraph, DriveOpts};

fn check(data: &[u8]) {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(file.path(), data).expect("temporary file");
    for round in 0..2 {
        let g = BlockGraph::new();
        let options = [("file", file.path().display().to_string()), ("format", "qcow2".into())];
        let options = options.map(|(k, v)| (k.to_string(), v)).to_vec();
        let opts = DriveOpts { id: "d".into(), options, force_read_only: round == 1 };
        if g.open_drive(&opts).is_ok() {
            if let Ok(b) = g.backend_for("d") {
                let end = b.len().min(4 << 20);
                let mut buf = vec![0; 65536];
                for at in (0..end).step_by(buf.len()) {
                    let n = (end - at).min(65536) as usize;
                    // Errors are answers too.
                    let _ = b.read_at(at, &mut buf[..n]);
                }
                if round == 0 {
                    let _ = b.write_at(end / 2 & !511, &[0x5a; 4096]);
                    let _ = b.discard(0, 65536.min(end));
                    let _ = b.write_zeroes(65536, 65536, true);
                    let _ = b.flush();
                }
            }
        }
        g.shutdown();
    }
}

/// A small image: header, a refcount table and block, an L1 and an L2 table, one data cluster.
fn sample(version: u32, bits: u32) -> Vec<u8> {
    let cluster = 1u64 << bits;
    let mut v = vec![0u8; cluster as usize * 6];
    let mut put = |at: usize, data: &[u8]| v[at..at + data.len()].copy_from_slice(data);
    put(0, b"QFI\xfb");
    put(4, &version.to_be_bytes());
    put(20, &bits.to_be_bytes());
    put(24, &(1u64 << 20).to_be_bytes());
    put(36, &8u32.to_be_bytes());
    put(40, &(3 * cluster).to_be_bytes());
    put(48, &cluster.to_be_bytes());
    put(56, &1u32.to_be_bytes());
    if version > 2 {
        put(96, &4u32.to_be_bytes());
        put(100, &104u32.to_be_bytes());
    }
    let at = |n: u64| (n * cluster) as usize;
    put(at(1), &(2 * cluster).to_be_bytes());
    for i in 0..6 {
        put(at(2) + 2 * i, &1u16.to_be_bytes());
    }
    put(at(3), &((1 << 63) | (4 * cluster)).to_be_bytes());
    put(at(4), &((1 << 63) | (5 * cluster)).to_be_bytes());
    v
}

rqemu_fuzz::target!(vec![sample(3, 9), sample(2, 9), sample(3, 12)], check);
