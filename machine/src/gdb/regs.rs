//! Registers as gdb counts them on x86-64, and their description for gdb.

use crate::cpu::CpuRegs;

/// Value types of the description.
#[derive(Clone, Copy)]
struct Reg {
    name: &'static str,
    /// Bytes.
    size: usize,
    ty: &'static str,
    /// `group=` or empty.
    group: &'static str,
}

const fn reg(name: &'static str, size: usize, ty: &'static str, group: &'static str) -> Reg {
    Reg { name, size, ty, group }
}

/// Registers of the feature `org.gnu.gdb.i386.core`.
const CORE: [Reg; 49] = [
    reg("rax", 8, "int64", ""),
    reg("rbx", 8, "int64", ""),
    reg("rcx", 8, "int64", ""),
    reg("rdx", 8, "int64", ""),
    reg("rsi", 8, "int64", ""),
    reg("rdi", 8, "int64", ""),
    reg("rbp", 8, "data_ptr", ""),
    reg("rsp", 8, "data_ptr", ""),
    reg("r8", 8, "int64", ""),
    reg("r9", 8, "int64", ""),
    reg("r10", 8, "int64", ""),
    reg("r11", 8, "int64", ""),
    reg("r12", 8, "int64", ""),
    reg("r13", 8, "int64", ""),
    reg("r14", 8, "int64", ""),
    reg("r15", 8, "int64", ""),
    reg("rip", 8, "code_ptr", ""),
    reg("eflags", 4, "i386_eflags", ""),
    reg("cs", 4, "int32", ""),
    reg("ss", 4, "int32", ""),
    reg("ds", 4, "int32", ""),
    reg("es", 4, "int32", ""),
    reg("fs", 4, "int32", ""),
    reg("gs", 4, "int32", ""),
    reg("fs_base", 8, "int64", ""),
    reg("gs_base", 8, "int64", ""),
    reg("k_gs_base", 8, "int64", ""),
    reg("cr0", 8, "int64", ""),
    reg("cr2", 8, "int64", ""),
    reg("cr3", 8, "int64", ""),
    reg("cr4", 8, "int64", ""),
    reg("cr8", 8, "int64", ""),
    reg("efer", 8, "int64", ""),
    reg("st0", 10, "i387_ext", ""),
    reg("st1", 10, "i387_ext", ""),
    reg("st2", 10, "i387_ext", ""),
    reg("st3", 10, "i387_ext", ""),
    reg("st4", 10, "i387_ext", ""),
    reg("st5", 10, "i387_ext", ""),
    reg("st6", 10, "i387_ext", ""),
    reg("st7", 10, "i387_ext", ""),
    reg("fctrl", 4, "int", "float"),
    reg("fstat", 4, "int", "float"),
    reg("ftag", 4, "int", "float"),
    reg("fiseg", 4, "int", "float"),
    reg("fioff", 4, "int", "float"),
    reg("foseg", 4, "int", "float"),
    reg("fooff", 4, "int", "float"),
    reg("fop", 4, "int", "float"),
];

/// First register of the feature `org.gnu.gdb.i386.sse`: xmm0 to xmm15 and mxcsr.
const SSE: usize = CORE.len();
const MXCSR: usize = SSE + 16;
/// Number of registers.
pub const COUNT: usize = MXCSR + 1;

/// Fields of eflags: name, first and last bit.
const FLAGS: [(&str, u8, u8); 17] = [
    ("CF", 0, 0),
    ("PF", 2, 2),
    ("AF", 4, 4),
    ("ZF", 6, 6),
    ("SF", 7, 7),
    ("TF", 8, 8),
    ("IF", 9, 9),
    ("DF", 10, 10),
    ("OF", 11, 11),
    ("IOPL", 12, 13),
    ("NT", 14, 14),
    ("RF", 16, 16),
    ("VM", 17, 17),
    ("AC", 18, 18),
    ("VIF", 19, 19),
    ("VIP", 20, 20),
    ("ID", 21, 21),
];

/// The whole description.
pub fn target_xml() -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target>\
         <architecture>i386:x86-64</architecture><feature name=\"org.gnu.gdb.i386.core\">",
    );
    xml += "<flags id=\"i386_eflags\" size=\"4\">";
    for (name, first, last) in FLAGS {
        xml += &format!("<field name=\"{name}\" start=\"{first}\" end=\"{last}\"/>");
    }
    xml += "</flags>";
    for r in &CORE {
        let group = if r.group.is_empty() { String::new() } else { format!(" group=\"{}\"", r.group) };
        xml += &format!("<reg name=\"{}\" bitsize=\"{}\" type=\"{}\"{group}/>", r.name, r.size * 8, r.ty);
    }
    xml += "</feature><feature name=\"org.gnu.gdb.i386.sse\">\
            <vector id=\"v4f\" type=\"ieee_single\" count=\"4\"/>\
            <vector id=\"v2d\" type=\"ieee_double\" count=\"2\"/>\
            <vector id=\"v16i8\" type=\"int8\" count=\"16\"/>\
            <vector id=\"v8i16\" type=\"int16\" count=\"8\"/>\
            <vector id=\"v4i32\" type=\"int32\" count=\"4\"/>\
            <vector id=\"v2i64\" type=\"int64\" count=\"2\"/>\
            <union id=\"vec128\"><field name=\"v4_float\" type=\"v4f\"/><field name=\"v2_double\" type=\"v2d\"/>\
            <field name=\"v16_int8\" type=\"v16i8\"/><field name=\"v8_int16\" type=\"v8i16\"/>\
            <field name=\"v4_int32\" type=\"v4i32\"/><field name=\"v2_int64\" type=\"v2i64\"/>\
            <field name=\"uint128\" type=\"uint128\"/></union>";
    for i in 0..16 {
        xml += &format!("<reg name=\"xmm{i}\" bitsize=\"128\" type=\"vec128\"/>");
    }
    xml += "<reg name=\"mxcsr\" bitsize=\"32\" type=\"int\" group=\"vector\"/></feature></target>";
    xml
}

/// cs, ss, ds, es, fs, gs as indexes into [`CpuRegs::segments`].
const SEGMENTS: [usize; 6] = [1, 2, 3, 0, 4, 5];

/// Value of a register in memory order; `None` beyond the last.
pub fn get(r: &CpuRegs, index: usize) -> Option<Vec<u8>> {
    const LONG_CODE: u32 = 1 << 21;
    let narrow = |v: u64| if r.segments[1].flags & LONG_CODE != 0 { v } else { v & 0xffff_ffff };
    let quad = |v: u64| v.to_le_bytes().to_vec();
    let word = |v: u32| v.to_le_bytes().to_vec();
    let fx = |from: usize, len: usize| match &r.fxsave {
        Some(a) => a.get(from..from + len).unwrap_or(&[]).to_vec(),
        None => vec![0; len],
    };
    let fx32 = |from: usize, len: usize| {
        let mut v = fx(from, len);
        v.resize(4, 0);
        v
    };
    Some(match index {
        0..=15 => quad(narrow(r.gpr[index])),
        16 => quad(narrow(r.rip)),
        17 => word(r.rflags as u32),
        18..=23 => word(u32::from(r.segments[SEGMENTS[index - 18]].selector)),
        24 => quad(r.segments[4].base),
        25 => quad(r.segments[5].base),
        26 => quad(0),
        27..=31 => quad(r.cr[index - 27]),
        32 => quad(r.efer),
        33..=40 => fx(32 + 16 * (index - 33), 10),
        41 => fx32(0, 2),
        42 => fx32(2, 2),
        43 => word(full_tag(fx(4, 1).first().copied().unwrap_or(0))),
        44 => fx32(12, 2),
        45 => fx32(8, 4),
        46 => fx32(20, 2),
        47 => fx32(16, 4),
        48 => fx32(6, 2),
        i if (SSE..MXCSR).contains(&i) => fx(160 + 16 * (i - SSE), 16),
        MXCSR => fx32(24, 4),
        _ => return None,
    })
}

/// The x87 tag word from FXSAVE's one bit a register (used registers count as valid).
fn full_tag(short: u8) -> u32 {
    (0..8).fold(0, |w, i| if short >> i & 1 == 0 { w | 3 << (2 * i) } else { w })
}

/// Changes a register: general ones, rip and eflags. `false`: not one of them, or too few bytes.
pub fn set(r: &mut CpuRegs, index: usize, value: &[u8]) -> bool {
    let quad = value.get(..8).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes);
    let word = value.get(..4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
    match (index, quad, word) {
        (0..=15, Some(v), _) => r.gpr[index] = v,
        (16, Some(v), _) => r.rip = v,
        (17, _, Some(v)) => r.rflags = v.into(),
        _ => return false,
    }
    true
}

/// All registers, one after the other.
pub fn all(r: &CpuRegs) -> Vec<u8> {
    (0..COUNT).filter_map(|i| get(r, i)).flatten().collect()
}

/// Changes from a block as [`all`] gives it: what [`set`] can change.
pub fn set_all(r: &mut CpuRegs, mut block: &[u8]) {
    for (i, reg) in CORE.iter().take(18).enumerate() {
        let Some((value, rest)) = block.split_at_checked(reg.size) else { return };
        set(r, i, value);
        block = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_agree_with_the_description() {
        let r = CpuRegs::default();
        for (i, reg) in CORE.iter().enumerate() {
            assert_eq!(get(&r, i).unwrap().len(), reg.size, "{}", reg.name);
        }
        assert_eq!(get(&r, COUNT), None);
        assert_eq!(target_xml().matches("<reg ").count(), COUNT);
    }

    #[test]
    fn there_and_back() {
        let mut r = CpuRegs::default();
        r.segments[1].flags = 1 << 21;
        for i in 0..17 {
            assert!(set(&mut r, i, &(i as u64 + 1).to_le_bytes()));
        }
        assert!(set(&mut r, 17, &0x246u32.to_le_bytes()));
        assert!(!set(&mut r, 18, &[0; 8]));
        let block = all(&r);
        let mut copy = CpuRegs::default();
        set_all(&mut copy, &block);
        assert_eq!((copy.gpr, copy.rip, copy.rflags), (r.gpr, r.rip, r.rflags));
        assert_eq!(r.gpr[1], 2, "rbx comes second, as in the machine's order");
    }
}
