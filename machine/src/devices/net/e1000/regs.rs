//! The register file: which registers there are, what of them can be written, reset values, counters.

/// Offsets (section 13 of the manual).
pub mod reg {
    #![allow(missing_docs)]
    pub const CTRL: u32 = 0x0000;
    pub const STATUS: u32 = 0x0008;
    pub const EECD: u32 = 0x0010;
    pub const EERD: u32 = 0x0014;
    pub const MDIC: u32 = 0x0020;
    pub const VET: u32 = 0x0038;
    pub const ICR: u32 = 0x00c0;
    pub const ITR: u32 = 0x00c4;
    pub const ICS: u32 = 0x00c8;
    pub const IMS: u32 = 0x00d0;
    pub const IMC: u32 = 0x00d8;
    pub const RCTL: u32 = 0x0100;
    pub const TCTL: u32 = 0x0400;
    pub const LEDCTL: u32 = 0x0e00;
    pub const PBA: u32 = 0x1000;
    pub const RDBAL: u32 = 0x2800;
    pub const RDBAH: u32 = 0x2804;
    pub const RDLEN: u32 = 0x2808;
    pub const RDH: u32 = 0x2810;
    pub const RDT: u32 = 0x2818;
    pub const RDTR: u32 = 0x2820;
    pub const RADV: u32 = 0x282c;
    pub const TDBAL: u32 = 0x3800;
    pub const TDBAH: u32 = 0x3804;
    pub const TDLEN: u32 = 0x3808;
    pub const TDH: u32 = 0x3810;
    pub const TDT: u32 = 0x3818;
    pub const TADV: u32 = 0x382c;
    pub const MPC: u32 = 0x4010;
    pub const PRC64: u32 = 0x405c;
    pub const GPRC: u32 = 0x4074;
    pub const BPRC: u32 = 0x4078;
    pub const MPRC: u32 = 0x407c;
    pub const GPTC: u32 = 0x4080;
    pub const GORCL: u32 = 0x4088;
    pub const GOTCL: u32 = 0x4090;
    pub const RNBC: u32 = 0x40a0;
    pub const ROC: u32 = 0x40ac;
    pub const TORL: u32 = 0x40c0;
    pub const TOTL: u32 = 0x40c8;
    pub const TPR: u32 = 0x40d0;
    pub const TPT: u32 = 0x40d4;
    pub const PTC64: u32 = 0x40d8;
    pub const MPTC: u32 = 0x40f0;
    pub const BPTC: u32 = 0x40f4;
    pub const TSCTC: u32 = 0x40f8;
    pub const MTA: u32 = 0x5200;
    pub const RAL0: u32 = 0x5400;
    pub const RAH0: u32 = 0x5404;
    pub const VFTA: u32 = 0x5600;
    pub const MANC: u32 = 0x5820;
    /// End of the registers.
    pub const END: u32 = 0x6000;
}

/// Self-clearing reset bit.
pub const CTRL_RST: u32 = 1 << 26;
/// Tags are stripped and inserted.
pub const CTRL_VME: u32 = 1 << 30;
/// The link is up.
pub const STATUS_LU: u32 = 2;
/// Address entries.
pub const ADDRESSES: u32 = 16;

const RANGE: std::ops::Range<u32> = 0..reg::END;

/// The registers.
pub struct Regs {
    words: Box<[u32]>,
    extra: bool,
}

/// Which bits of a plain register a driver can write; `None`: no such register, or not a plain one.
fn writable(at: u32) -> Option<u32> {
    Some(match at {
        reg::VET | reg::LEDCTL | reg::PBA | reg::MANC => u32::MAX,
        reg::ITR | reg::RDTR | reg::RADV | reg::TADV | reg::RDH | reg::TDH | 0x458 => 0xffff,
        reg::RDBAL | reg::RDBAH | reg::TDBAL | reg::TDBAH | 0x3828 | 0x4058 => u32::MAX,
        reg::RDLEN | reg::TDLEN => 0xf_ff80,
        // Positions in the packet buffer.
        0x2410 | 0x2418 | 0x2420 | 0x2428 | 0x2430 | 0x3420 | 0x3428 | 0x3430 => 0x1fff,
        0x3410 | 0x3418 => 0x7ff,
        // Multicast and address tables, VLAN table and wake-up.
        reg::MTA..=0x547c | reg::VFTA..=0x5800 | 0x5808 | 0x5810 | 0x5838 => u32::MAX,
        0x5840..=0x5858 | 0x5880..=0x588c | 0x5a00..=0x5a7c | 0x5b50 => u32::MAX,
        0x5f00..=0x5f18 => 0x7ff,
        _ => return None,
    })
}

/// Registers that `extra_mac_registers=off` takes away.
fn is_extra(at: u32) -> bool {
    match at {
        0x458 | 0x4058 | 0x5800 | 0x5810 | 0x5838 | 0x5840 | 0x5880 | 0x5a00 | 0x5f00 => true,
        0x2410..=0x2430 | 0x3410..=0x3430 => true,
        reg::GPRC | reg::GPTC | reg::MPC => false,
        0x40c0..=0x40d4 => false,
        0x4000..=0x4124 => true,
        _ => false,
    }
}

impl Regs {
    /// All zero. `extra`: all registers exist.
    pub fn new(extra: bool) -> Self {
        Self { words: vec![0; reg::END as usize / 4].into(), extra }
    }

    /// Values after power-on.
    pub fn power_on(&mut self, mac: [u8; 6], vet: bool) {
        self.words.fill(0);
        self.set(reg::CTRL, 0x14_0240);
        self.set(reg::STATUS, 0x8008_0783);
        self.set(reg::LEDCTL, 0x602);
        self.set(reg::PBA, 0x10_0030);
        self.set(reg::MANC, 0x22_2300);
        if vet {
            self.set(reg::VET, 0x8100);
        }
        let [a, b, c, d, e, f] = mac;
        self.set(reg::RAL0, u32::from_le_bytes([a, b, c, d]));
        self.set(reg::RAH0, u32::from_le_bytes([e, f, 0, 0x80]));
    }

    /// A register's value.
    pub fn get(&self, at: u32) -> u32 {
        self.words.get(at as usize / 4).copied().unwrap_or(0)
    }

    /// Sets a register's value.
    pub fn set(&mut self, at: u32, v: u32) {
        if let Some(w) = self.words.get_mut(at as usize / 4) {
            *w = v;
        }
    }

    fn absent(&self, at: u32) -> bool {
        !RANGE.contains(&at) || (!self.extra && is_extra(at))
    }

    /// A driver reads.
    pub fn read(&mut self, at: u32) -> u32 {
        if self.absent(at) {
            return 0;
        }
        let v = self.get(at);
        match at {
            0x4058 => {}
            // 64-bit counters are cleared by a read of the high half.
            reg::GORCL | reg::GOTCL | reg::TORL | reg::TOTL => {}
            0x408c | 0x4094 | 0x40c4 | 0x40cc => {
                self.set(at, 0);
                self.set(at - 4, 0);
            }
            0x4000..=0x4124 => self.set(at, 0),
            _ => {}
        }
        v
    }

    /// A driver writes a plain register.
    pub fn write(&mut self, at: u32, v: u32) {
        if self.absent(at) {
            return;
        }
        if let Some(mask) = writable(at) {
            self.set(at, v & mask);
        }
    }

    /// Counts one event; counters stick at their maximum.
    pub fn count(&mut self, at: u32) {
        self.set(at, self.get(at).saturating_add(1));
    }

    /// Adds to a 64-bit counter that begins at `at`.
    pub fn add(&mut self, at: u32, n: u64) {
        let v = u64::from(self.get(at)) | u64::from(self.get(at + 4)) << 32;
        let v = v.saturating_add(n);
        self.set(at, v as u32);
        self.set(at + 4, (v >> 32) as u32);
    }

    /// Counts a frame by its size in a set of six counters that begins at `first`.
    pub fn count_size(&mut self, first: u32, size: usize) {
        let class = match size {
            64 => 0,
            65..=127 => 1,
            128..=255 => 2,
            256..=511 => 3,
            512..=1023 => 4,
            1024.. => 5,
            _ => return,
        };
        self.count(first + 4 * class);
    }

    /// Counts a frame that goes out; its checksum counts, too.
    pub fn count_sent(&mut self, data: &[u8]) {
        let size = data.len() + 4;
        self.count_size(reg::PTC64, size);
        self.count(reg::TPT);
        self.count(reg::GPTC);
        self.add(reg::TOTL, size as u64);
        self.add(reg::GOTCL, size as u64);
        match data.first_chunk::<6>() {
            Some([0xff, 0xff, 0xff, 0xff, 0xff, 0xff]) => self.count(reg::BPTC),
            Some([first, ..]) if first & 1 != 0 => self.count(reg::MPTC),
            _ => {}
        }
    }

    /// Entry `i` of the address table.
    pub fn address(&self, i: u32) -> [u8; 6] {
        let [a, b, c, d] = self.get(reg::RAL0 + 8 * i).to_le_bytes();
        let [e, f, ..] = self.get(reg::RAH0 + 8 * i).to_le_bytes();
        [a, b, c, d, e, f]
    }

    /// Whether entry `i` of the address table is in use.
    pub fn address_valid(&self, i: u32) -> bool {
        self.get(reg::RAH0 + 8 * i) >> 31 != 0
    }

    /// A descriptor ring: base address and number of entries.
    pub fn ring(&self, base_low: u32, len: u32) -> (u64, u32) {
        let base = u64::from(self.get(base_low + 4)) << 32 | u64::from(self.get(base_low) & !15);
        (base, self.get(len) / 16)
    }
}
