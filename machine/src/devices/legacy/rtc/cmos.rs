//! What the board of a PC leaves in the CMOS RAM for its firmware (the layout of the IBM AT, with the additions that
//! SeaBIOS reads).

use crate::{qerr, QResult};

/// Kind of a floppy drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FloppyKind {
    /// No drive.
    #[default]
    None,
    /// 1.44 MB, 3.5".
    F144,
    /// 2.88 MB, 3.5".
    F288,
    /// 1.2 MB, 5.25".
    F120,
}

impl FloppyKind {
    /// Type number in byte 0x10.
    fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::F120 => 2,
            Self::F144 => 4,
            Self::F288 => 5,
        }
    }
}

/// How the BIOS should translate a disk's geometry (`bios-chs-trans`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskTranslation {
    /// None.
    None = 0,
    /// To logical block addressing.
    Lba = 1,
    /// "Large" (bit shift).
    Large = 2,
    /// Revised ECHS.
    RevisedEchs = 3,
}

/// An IDE disk for the disk table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CmosDisk {
    /// Cylinders, heads and sectors as the drive reports them.
    pub chs: (u16, u8, u8),
    /// Translation.
    pub translation: DiskTranslation,
}

/// What the contents depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CmosConfig {
    /// Guest RAM below 4 GiB, bytes.
    pub below_4g: u64,
    /// Guest RAM above 4 GiB, bytes.
    pub above_4g: u64,
    /// `-boot order=`, as given.
    pub boot_order: String,
    /// Check for the boot signature of floppies (off: `-no-fd-bootchk`).
    pub fd_bootchk: bool,
    /// Floppy drives A and B.
    pub floppies: [FloppyKind; 2],
    /// CPUs present at boot.
    pub cpus: u32,
    /// IDE disks (not CDs): primary master, primary slave, secondary master, secondary slave.
    pub disks: [Option<CmosDisk>; 4],
}

/// Number of a boot device letter.
fn boot_device(c: char) -> Option<u8> {
    match c {
        'a' | 'b' => Some(1),
        'c' => Some(2),
        'd' => Some(3),
        'n' => Some(4),
        _ => None,
    }
}

/// Bytes 0x3d and 0x38 for a boot order (also for changes at run time, `boot_set`).
///
/// # Errors
/// More than three devices, or an unknown letter.
pub fn boot_order_bytes(order: &str, fd_bootchk: bool) -> QResult<[(u8, u8); 2]> {
    if order.chars().count() > 3 {
        return Err(qerr!("Too many boot devices for PC"));
    }
    let mut d = [0u8; 3];
    for (slot, c) in d.iter_mut().zip(order.chars()) {
        *slot = boot_device(c).ok_or_else(|| qerr!("Invalid boot device for PC: '{c}'"))?;
    }
    Ok([(0x3d, d[1] << 4 | d[0]), (0x38, d[2] << 4 | u8::from(!fd_bootchk))])
}

/// The bytes that the board sets, as (index, value).
///
/// # Errors
/// A bad boot order.
pub fn pc_cmos_init(c: &CmosConfig) -> QResult<Vec<(u8, u8)>> {
    let mut out = Vec::with_capacity(64);
    memory(c, &mut out);
    out.push((0x5f, u8::try_from(c.cpus.saturating_sub(1)).unwrap_or(0)));
    out.extend(boot_order_bytes(&c.boot_order, c.fd_bootchk)?);

    let [a, b] = c.floppies;
    out.push((0x10, a.number() << 4 | b.number()));
    let drives = c.floppies.iter().filter(|f| **f != FloppyKind::None).count();
    // Coprocessor, PS/2 mouse, and the floppy drives less one.
    let floppies = match drives {
        0 => 0,
        1 => 0x01,
        _ => 0x41,
    };
    out.push((0x14, 0x06 | floppies));

    let present = |i: usize, bits: u8| if c.disks[i].is_some() { bits } else { 0 };
    out.push((0x12, present(0, 0xf0) | present(1, 0x0f)));
    for (i, type_at, table_at) in [(0, 0x19, 0x1b), (1, 0x1a, 0x24)] {
        if let Some(d) = c.disks[i] {
            disk(&d, type_at, table_at, &mut out);
        }
    }
    let translations =
        c.disks.iter().enumerate().map(|(i, d)| d.map_or(0, |d| (d.translation as u8) << (2 * i)));
    out.push((0x39, translations.fold(0, |all, t| all | t)));
    Ok(out)
}

fn memory(c: &CmosConfig, out: &mut Vec<(u8, u8)>) {
    let mut word = |at: u8, v: u64| {
        out.push((at, v as u8));
        out.push((at + 1, (v >> 8) as u8));
    };
    const MIB: u64 = 1 << 20;
    word(0x15, (c.below_4g >> 10).min(640));
    let extended = (c.below_4g.saturating_sub(MIB) >> 10).min(0xffff);
    word(0x17, extended);
    word(0x30, extended);
    word(0x34, (c.below_4g.saturating_sub(16 * MIB) >> 16).min(0xffff));
    let high = c.above_4g >> 16;
    word(0x5b, high);
    out.push((0x5d, (high >> 16) as u8));
}

/// A disk of user-defined type 47.
fn disk(d: &CmosDisk, type_at: u8, t: u8, out: &mut Vec<(u8, u8)>) {
    let (cylinders, heads, sectors) = d.chs;
    let [lo, hi] = cylinders.to_le_bytes();
    out.push((type_at, 47));
    let control = 0xc0 | u8::from(heads > 8) << 3;
    // Cylinders, heads, write precompensation (none), control byte, landing zone, sectors.
    for (i, v) in [lo, hi, heads, 0xff, 0xff, control, lo, hi, sectors].into_iter().enumerate() {
        out.push((t + i as u8, v));
    }
}
