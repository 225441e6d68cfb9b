//! Description of the monitor: VESA Enhanced EDID (E-EDID) 1.4, with a CTA-861 block of video modes and, for modes
//! that a detailed timing cannot express, a DisplayID 1.3 block.

/// What to describe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EdidSpec {
    /// Preferred width in pixels.
    pub xres: u32,
    /// Preferred height in pixels.
    pub yres: u32,
    /// Largest width, 0 = any.
    pub xmax: u32,
    /// Largest height, 0 = any.
    pub ymax: u32,
    /// Refresh rate in mHz, 0 = 75 Hz.
    pub refresh_mhz: u32,
}

impl EdidSpec {
    fn allows(&self, x: u32, y: u32) -> bool {
        (self.xmax == 0 || x <= self.xmax) && (self.ymax == 0 || y <= self.ymax)
    }
}

/// Size of the description in bytes: three blocks, the last all zero if not needed.
pub const EDID_SIZE: usize = 384;
const DPI: u64 = 100;
const DEFAULT_REFRESH: u32 = 75_000;

/// Established timings: width, height, byte and bit in block 0.
const ESTABLISHED: [(u32, u32, usize, u8); 3] =
    [(640, 480, 0x23, 0x20), (800, 600, 0x23, 0x01), (1024, 768, 0x24, 0x08)];

/// Modes for the eight standard timings, in order of preference: width, height, standard timing, and byte and bit in
/// the "established timings III" descriptor, which takes those that come after the eighth.
type StandardMode = (u32, u32, Option<[u8; 2]>, Option<(usize, u8)>);
const STANDARD: [StandardMode; 14] = [
    (2048, 1152, Some([0xe1, 0xc0]), None),
    (1920, 1080, Some([0xd1, 0xc0]), None),
    (1920, 1200, Some([0xd1, 0x00]), None),
    (1600, 1200, Some([0xa9, 0x40]), None),
    (1680, 1050, Some([0xb3, 0x00]), None),
    (1440, 900, Some([0x95, 0x00]), None),
    (1280, 1024, Some([0x81, 0x80]), None),
    (1280, 960, Some([0x81, 0x40]), None),
    (1280, 768, None, Some((7, 0x40))),
    (1920, 1440, Some([0xd1, 0x40]), Some((11, 0x20))),
    (1856, 1392, Some([0xc9, 0x40]), Some((10, 0x08))),
    (1792, 1344, Some([0xc1, 0x40]), Some((10, 0x20))),
    (1400, 1050, None, Some((8, 0x02))),
    (1360, 768, None, Some((8, 0x80))),
];

/// Video identification codes of CTA-861: width, height, code.
const VICS: [(u32, u32, u8); 6] = [
    (5120, 2160, 125),
    (4096, 2160, 101),
    (3840, 2160, 96),
    (2560, 1080, 89),
    (1920, 1080, 31),
    (3840, 2160, 97),
];

/// One video timing.
struct Timing {
    x: u32,
    y: u32,
    x_blank: u32,
    y_blank: u32,
    x_front: u32,
    y_front: u32,
    x_sync: u32,
    y_sync: u32,
    /// In units of 10 kHz.
    clock: u64,
}

impl Timing {
    fn new(s: &EdidSpec) -> Self {
        let refresh = u64::from(if s.refresh_mhz == 0 { DEFAULT_REFRESH } else { s.refresh_mhz });
        let part = |v: u32, n: u64, of: u64| (u64::from(v) * n / of) as u32;
        let (x_blank, y_blank) = (part(s.xres, 35, 100), part(s.yres, 35, 1000));
        let total = (u64::from(s.xres) + u64::from(x_blank)) * (u64::from(s.yres) + u64::from(y_blank));
        Self {
            x: s.xres,
            y: s.yres,
            x_blank,
            y_blank,
            x_front: part(s.xres, 25, 100),
            y_front: part(s.yres, 5, 1000),
            x_sync: part(s.xres, 3, 100),
            y_sync: part(s.yres, 5, 1000),
            clock: total.saturating_mul(refresh) / 10_000_000,
        }
    }

    /// Too large for the fields of a detailed timing.
    fn is_large(&self) -> bool {
        self.x >= 4096 || self.y >= 4096 || self.clock > 0xffff
    }

    /// Detailed timing descriptor for a screen of `mm` millimetres.
    fn detailed(&self, mm: (u32, u32)) -> [u8; 18] {
        let low = |v: u32| v as u8;
        let nibbles = |a: u32, b: u32| ((a >> 8 & 15) << 4 | (b >> 8 & 15)) as u8;
        let clock = self.clock as u16;
        [
            clock as u8,
            (clock >> 8) as u8,
            low(self.x),
            low(self.x_blank),
            nibbles(self.x, self.x_blank),
            low(self.y),
            low(self.y_blank),
            nibbles(self.y, self.y_blank),
            low(self.x_front),
            low(self.x_sync),
            ((self.y_front & 15) << 4 | (self.y_sync & 15)) as u8,
            ((self.x_front >> 8 & 3) << 6
                | (self.x_sync >> 8 & 3) << 4
                | (self.y_front >> 4 & 3) << 2
                | (self.y_sync >> 4 & 3)) as u8,
            low(mm.0),
            low(mm.1),
            nibbles(mm.0, mm.1),
            0,
            0,
            0x18,
        ]
    }

    /// DisplayID block with one "type I" timing.
    fn display_id(&self, b: &mut [u8]) {
        b[..8].copy_from_slice(&[0x70, 0x13, 23, 3, 0, 3, 0, 20]);
        b[8..11].copy_from_slice(&self.clock.to_le_bytes()[..3]);
        b[11] = 0x88;
        let fields = [
            self.x,
            self.x_blank,
            self.x_front,
            self.x_sync,
            self.y,
            self.y_blank,
            self.y_front,
            self.y_sync,
        ];
        for (i, f) in fields.into_iter().enumerate() {
            b[12 + 2 * i..14 + 2 * i].copy_from_slice(&(f.wrapping_sub(1) as u16).to_le_bytes());
        }
        b[28] = checksum(&b[1..28]);
    }
}

/// The byte that makes all bytes sum to zero.
fn checksum(b: &[u8]) -> u8 {
    b.iter().fold(0u8, |s, v| s.wrapping_add(*v)).wrapping_neg()
}

/// Size of `pixels` in millimetres.
fn millimetres(pixels: u32) -> u32 {
    (u64::from(pixels) * 254 / 10 / DPI) as u32
}

/// Builds the description.
pub fn edid(s: &EdidSpec) -> Box<[u8]> {
    let mut out = vec![0; EDID_SIZE];
    let timing = Timing::new(s);
    let large = timing.is_large();
    base_block(s, &timing, &mut out[..128]);
    out[126] = if large { 2 } else { 1 };
    cta_block(s, &mut out[128..256]);
    if large {
        timing.display_id(&mut out[256..384]);
    }
    let blocks = if large { 3 } else { 2 };
    for b in out.chunks_exact_mut(128).take(blocks) {
        b[127] = checksum(&b[..127]);
    }
    out.into()
}

fn base_block(s: &EdidSpec, timing: &Timing, b: &mut [u8]) {
    let mm = (millimetres(s.xres), millimetres(s.yres));
    b[..8].copy_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
    // Maker "RHT", product 0x1234, no serial number, week 42 of 2014, EDID 1.4.
    b[8..20].copy_from_slice(&[0x49, 0x14, 0x34, 0x12, 0, 0, 0, 0, 42, 24, 1, 4]);
    // Digital, 8 bits a colour, DisplayPort; gamma 2.2; preferred timing is native, sRGB.
    b[20..25].copy_from_slice(&[0xa5, (mm.0 / 10) as u8, (mm.1 / 10) as u8, 120, 0x06]);
    // Chromaticity of sRGB.
    b[25..35].copy_from_slice(&[0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54]);
    for (x, y, byte, bit) in ESTABLISHED {
        if s.allows(x, y) {
            b[byte] |= bit;
        }
    }
    let mut more = [0; 18];
    more[..6].copy_from_slice(&[0, 0, 0, 0xf7, 0, 10]);
    standard_timings(s, &mut b[38..54], &mut more);
    let mut descriptors: Vec<[u8; 18]> = Vec::with_capacity(4);
    if !timing.is_large() {
        descriptors.push(timing.detailed(mm));
    }
    descriptors.push(more);
    // 50 to 125 Hz, 30 to 160 kHz, up to 2550 MHz, range limits only.
    descriptors.push(text_descriptor([0, 0, 0, 0xfd, 0], &[50, 125, 30, 160, 255, 1, b'\n']));
    descriptors.push(text_descriptor([0, 0, 0, 0xfc, 0], b"QEMU Monitor\n"));
    descriptors.resize(4, DUMMY);
    for (d, to) in descriptors.iter().zip(b[54..126].chunks_exact_mut(18)) {
        to.copy_from_slice(d);
    }
}

const DUMMY: [u8; 18] = [0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A descriptor of up to 13 bytes, padded with spaces.
fn text_descriptor(head: [u8; 5], body: &[u8]) -> [u8; 18] {
    let mut d = [b' '; 18];
    d[..5].copy_from_slice(&head);
    d.iter_mut().skip(5).zip(body).for_each(|(to, from)| *to = *from);
    d
}

fn standard_timings(s: &EdidSpec, slots: &mut [u8], more: &mut [u8; 18]) {
    slots.fill(1);
    let mut used = 0;
    for (_, _, std, est3) in STANDARD.into_iter().filter(|m| s.allows(m.0, m.1)) {
        match (std, est3) {
            (Some(std), _) if used < slots.len() => {
                slots[used..used + 2].copy_from_slice(&std);
                used += 2;
            }
            (_, Some((byte, bit))) if used >= slots.len() => more[byte] |= bit,
            _ => {}
        }
    }
}

fn cta_block(s: &EdidSpec, b: &mut [u8]) {
    let vics: Vec<u8> = VICS.into_iter().filter(|v| s.allows(v.0, v.1)).map(|v| v.2).collect();
    b[..2].copy_from_slice(&[2, 3]);
    b[4] = 0x40 | vics.len() as u8;
    b[5..5 + vics.len()].copy_from_slice(&vics);
    let mut at = 5 + vics.len();
    b[2] = at as u8;
    while at + 18 < 127 {
        b[at..at + 18].copy_from_slice(&DUMMY);
        at += 18;
    }
}
