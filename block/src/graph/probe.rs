//! Guessing an image's format from its first bytes and its name.

/// Bytes that are looked at.
pub(crate) const PROBE_BYTES: usize = 2048;

/// The format an image has, by QEMU's name for it. `raw` if nothing matches. Formats that cannot be opened here are
/// recognised too: reading such an image as raw would show the guest its metadata, and writing would destroy it.
pub(crate) fn guess(head: &[u8], filename: &str) -> &'static str {
    let starts = |m: &[u8]| head.starts_with(m);
    let be32 = |at: usize| head.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let le32 = |at: usize| head.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    if starts(b"QFI\xfb") {
        return match be32(4) {
            Some(1) => "qcow",
            Some(v) if v >= 2 => "qcow2",
            _ => "raw",
        };
    }
    if starts(b"KDMV") || starts(b"COWD") || vmdk_descriptor(head) {
        return "vmdk";
    }
    if le32(0x40) == Some(0xbeda_107f) {
        return "vdi";
    }
    if starts(b"vhdxfile") {
        return "vhdx";
    }
    if starts(b"conectix") {
        return "vpc";
    }
    if starts(b"QED\0") {
        return "qed";
    }
    if starts(b"LUKS\xba\xbe\0\x01") {
        return "luks";
    }
    if (starts(b"WithoutFreeSpace") || starts(b"WithouFreSpacExt")) && le32(16) == Some(2) {
        return "parallels";
    }
    if starts(b"Bochs Virtual HD Image") {
        return "bochs";
    }
    if starts(b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n") {
        return "cloop";
    }
    if filename.ends_with(".dmg") {
        return "dmg";
    }
    "raw"
}

/// A VMDK text descriptor: comments, then `version=`.
fn vmdk_descriptor(head: &[u8]) -> bool {
    let text = head.split(|b| *b == 0).next().unwrap_or(&[]);
    for line in text.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.starts_with(b"#") || line.iter().all(|b| *b == b' ') && !line.is_empty() {
            continue;
        }
        return [&b"version=1"[..], b"version=2", b"version=3"].contains(&line);
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognised() {
        assert_eq!(guess(b"QFI\xfb\0\0\0\x03", "x"), "qcow2");
        assert_eq!(guess(b"QFI\xfb\0\0\0\x01", "x"), "qcow");
        assert_eq!(guess(b"QFI\xfb", "x"), "raw");
        assert_eq!(guess(b"", "x"), "raw");
        assert_eq!(guess(b"KDMV....", "x"), "vmdk");
        assert_eq!(guess(b"# Disk DescriptorFile\nversion=1\n", "x"), "vmdk");
        assert_eq!(guess(b"# Disk DescriptorFile\nversion=9\n", "x"), "raw");
        assert_eq!(guess(b"\n\n", "x"), "raw");
        assert_eq!(guess(b"conectix", "x"), "vpc");
        assert_eq!(guess(b"abc", "x.dmg"), "dmg");
    }
}
