//! Foreign formats, made by the real tool.

mod common;
use common::*;
use rqemu_block::*;

const M: usize = 1 << 20;

#[test]
fn foreign_images_read_right() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("d.raw");
    let mut data = vec![0u8; 37 * M];
    let mut rng = Rng(5);
    for _ in 0..20 {
        let at = rng.below(36 * M as u64) as usize;
        let len = 1 + rng.below(900_000) as usize;
        let v = rng.next() as u8;
        data[at..at + len].iter_mut().enumerate().for_each(|(i, b)| *b = v.wrapping_add((i / 77) as u8));
    }
    std::fs::write(&raw, &data).unwrap();
    let cases: &[(&str, &[&str])] = &[
        ("vdi", &[]),
        ("vdi", &["-o", "static=on"]),
        ("vpc", &["-o", "force_size=on"]),
        ("vpc", &["-o", "force_size=on,subformat=fixed"]),
        ("vhdx", &[]),
        ("vhdx", &["-o", "block_size=1M"]),
        ("vhdx", &["-o", "subformat=fixed"]),
        ("vmdk", &[]),
        ("vmdk", &["-o", "zeroed_grain=on"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
        ("vmdk", &["-o", "subformat=monolithicFlat"]),
        ("vmdk", &["-o", "subformat=twoGbMaxExtentSparse"]),
        ("vmdk", &["-o", "subformat=twoGbMaxExtentFlat"]),
    ];
    for (i, (format, options)) in cases.iter().enumerate() {
        let path = dir.path().join(format!("d{i}.{format}"));
        let mut args = vec!["convert", "-q", "-f", "raw", "-O", format];
        args.extend(*options);
        args.extend([s(&raw), s(&path)]);
        img(&args);
        let graph = BlockGraph::new();
        // Fixed VHD images look like raw ones from the start.
        let known = if *format == "vpc" { Some("vpc".to_owned()) } else { None };
        let image = graph.open_tool(s(&path), &ImageOpts { format: known, ..Default::default() }).unwrap();
        assert_eq!(image.format(), *format, "{options:?}");
        assert_eq!(image.len(), data.len() as u64, "{format} {options:?}");
        let mut got = vec![1u8; data.len()];
        image.read(0, &mut got).unwrap();
        assert!(got == data, "{format} {options:?}");
        // And in odd pieces.
        for _ in 0..50 {
            let at = rng.below(37 * M as u64 - 1) as usize;
            let len = (1 + rng.below(100_000) as usize).min(data.len() - at);
            image.read(at as u64, &mut got[..len]).unwrap();
            assert!(got[..len] == data[at..at + len], "{format} {options:?} {at}+{len}");
        }
        drop(image);
        let write = ImageOpts { format: Some((*format).into()), write: true, ..Default::default() };
        assert!(graph.open_tool(s(&path), &write).is_err());
    }
}

#[test]
fn damaged_foreign_images_do_no_harm() {
    if !have_tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("d.raw");
    std::fs::write(&raw, vec![3u8; 3 * M]).unwrap();
    let mut rng = Rng(11);
    for format in ["vdi", "vpc", "vhdx", "vmdk"] {
        let path = dir.path().join("x");
        img(&["convert", "-q", "-f", "raw", "-O", format, s(&raw), s(&path)]);
        let good = std::fs::read(&path).unwrap();
        for _ in 0..150 {
            let mut bad = good.clone();
            for _ in 0..1 + rng.below(6) {
                // Headers and tables stand in the first parts.
                let area = [512, 4096, 400_000][rng.below(3) as usize].min(bad.len() as u64);
                let at = rng.below(area) as usize;
                bad[at] = rng.next() as u8;
            }
            if rng.below(8) == 0 {
                bad.truncate(rng.below(bad.len() as u64) as usize);
            }
            std::fs::write(&path, &bad).unwrap();
            let graph = BlockGraph::new();
            let o = ImageOpts { format: Some(format.into()), ..Default::default() };
            if let Ok(image) = graph.open_tool(s(&path), &o) {
                let mut buf = vec![0; 100_000];
                for _ in 0..8 {
                    let _ = image.read(rng.below(image.len().max(1)), &mut buf);
                    let _ = image.map(rng.below(image.len().max(1)), 4096);
                }
            }
        }
    }
}
