//! placeholder
pub fn bzimage_for_parsing() -> crate::Res<Vec<u8>> {
    let mut v = vec![0u8; 8192];
    v[0x1f1] = 4;
    v[0x1fe] = 0x55;
    v[0x1ff] = 0xaa;
    v[0x202..0x206].copy_from_slice(b"HdrS");
    v[0x206] = 0x0c;
    v[0x207] = 2;
    v[0x211] = 1;
    Ok(v)
}
