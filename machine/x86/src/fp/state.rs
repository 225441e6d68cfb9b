//! Saving and restoring: FSAVE, FSTENV, FXSAVE and the XSAVE family (Intel SDM volume 1, chapters 8, 10 and 13).

use iced_x86::Code;

use super::x87::{from_bytes, F80};
use super::MXCSR_MASK;
use crate::cpu::Cpu;
use crate::exec::{Handler, Op};
use crate::fault::R;
use crate::state::{efer, gpr, Ymm};
use crate::{handler, handler_recheck};

/// Components of the XSAVE area that this engine has: x87, SSE, AVX.
const COMPONENTS: u64 = 7;
/// Where the AVX component lies in the standard format, and its size.
const AVX_OFFSET: usize = 576;
const AVX_SIZE: usize = 256;
/// Legacy region and header.
const HEADER: usize = 512;
const AREA: usize = 576;

impl Cpu {
    /// The full tag word: two bits a register.
    fn full_tags(&self) -> u16 {
        (0..8).fold(0, |t, i| {
            let [m, e] = self.fpu.r[i];
            let e = e & 0x7fff;
            let tag = match () {
                _ if self.fpu.tag >> i & 1 == 0 => 3,
                _ if e == 0 && m == 0 => 1,
                _ if e == 0 || e == 0x7fff || m >> 63 == 0 => 2,
                _ => 0,
            };
            t | tag << (2 * i)
        })
    }

    fn set_full_tags(&mut self, t: u16) {
        self.fpu.tag = (0..8).fold(0, |v, i| v | u8::from(t >> (2 * i) & 3 != 3) << i);
    }

    /// The environment in 16- or 32-bit form; `real` gives linear addresses.
    fn environment(&self, wide: bool) -> ([u8; 28], usize) {
        let f = &self.fpu;
        let real = !self.protected() || self.vm86();
        let lin = |sel: u16, off: u64| (u32::from(sel) << 4).wrapping_add(off as u32);
        let (ip, dp) =
            if real { (lin(f.fcs, f.fip), lin(f.fds, f.fdp)) } else { (f.fip as u32, f.fdp as u32) };
        let mut out = [0; 28];
        let mut put = |i: usize, v: u32| {
            let size = if wide { 4 } else { 2 };
            out[i * size..(i + 1) * size].copy_from_slice(&v.to_le_bytes()[..size]);
        };
        let filler = if wide { 0xffff_0000 } else { 0 };
        put(0, filler | u32::from(f.cw));
        put(1, filler | u32::from(self.fpu_status()));
        put(2, filler | u32::from(self.full_tags()));
        let fop = u32::from(f.fop & 0x7ff);
        match (real, wide) {
            (false, true) => {
                put(3, ip);
                put(4, u32::from(f.fcs) | fop << 16);
                put(5, dp);
                put(6, filler | u32::from(f.fds));
            }
            (false, false) => {
                put(3, ip);
                put(4, u32::from(f.fcs));
                put(5, dp);
                put(6, u32::from(f.fds));
            }
            (true, true) => {
                put(3, filler | ip & 0xffff);
                put(4, ip >> 16 << 12 | fop);
                put(5, filler | dp & 0xffff);
                put(6, dp >> 16 << 12);
            }
            (true, false) => {
                put(3, ip);
                put(4, ip >> 16 << 12 | fop);
                put(5, dp);
                put(6, dp >> 16 << 12);
            }
        }
        (out, if wide { 28 } else { 14 })
    }

    fn set_environment(&mut self, b: &[u8], wide: bool) {
        let size = if wide { 4 } else { 2 };
        let get = |i: usize| {
            let mut v = [0; 4];
            v[..size].copy_from_slice(&b[i * size..(i + 1) * size]);
            u32::from_le_bytes(v)
        };
        self.fpu.cw = get(0) as u16 & 0x1f7f | 0x40;
        self.set_full_tags(get(2) as u16);
        self.set_fpu_status(get(1) as u16);
        let real = !self.protected() || self.vm86();
        if real {
            let high = |i: usize| u64::from(get(i) >> 12 & 0xffff) << 16;
            (self.fpu.fip, self.fpu.fdp) =
                (u64::from(get(3) & 0xffff) | high(4), u64::from(get(5) & 0xffff) | high(6));
            (self.fpu.fcs, self.fpu.fds) = (0, 0);
        } else {
            (self.fpu.fip, self.fpu.fdp) = (u64::from(get(3)), u64::from(get(5)));
            (self.fpu.fcs, self.fpu.fds) = (get(4) as u16, get(6) as u16);
        }
    }

    fn store_environment(&mut self, op: &Op, wide: bool) -> R<()> {
        let (b, n) = self.environment(wide);
        let lin = self.lin_w(op, n)?;
        self.write_buf(lin, &b[..n], op.seg)?;
        // All exceptions are masked, as by the instruction.
        self.fpu.cw |= 0x3f;
        self.fpu_summary();
        Ok(())
    }

    fn load_environment(&mut self, op: &Op, wide: bool) -> R<()> {
        self.fpu_check()?;
        let mut b = [0; 28];
        let n = if wide { 28 } else { 14 };
        let lin = self.lin_r(op, n)?;
        self.read_buf(lin, &mut b[..n], op.seg)?;
        self.set_environment(&b[..n], wide);
        Ok(())
    }

    fn save(&mut self, op: &Op, wide: bool) -> R<()> {
        let (env, n) = self.environment(wide);
        let mut b = [0; 108];
        b[..n].copy_from_slice(&env[..n]);
        for i in 0..8 {
            b[n + 10 * i..n + 10 * (i + 1)].copy_from_slice(&register_bytes(self.st(i as u8)));
        }
        let lin = self.lin_w(op, n + 80)?;
        self.write_buf(lin, &b[..n + 80], op.seg)?;
        self.fpu_init();
        Ok(())
    }

    fn restore(&mut self, op: &Op, wide: bool) -> R<()> {
        self.fpu_check()?;
        let n = if wide { 28 } else { 14 };
        let mut b = [0; 108];
        let lin = self.lin_r(op, n + 80)?;
        self.read_buf(lin, &mut b[..n + 80], op.seg)?;
        self.set_environment(&b[..n], wide);
        for i in 0..8 {
            let at = n + 10 * i;
            let mut r = [0; 10];
            r.copy_from_slice(&b[at..at + 10]);
            let k = self.st_index(i as u8);
            self.fpu.r[k] = from_bytes(r);
        }
        Ok(())
    }

    // ---- FXSAVE ------------------------------------------------------------------------------------------------

    /// The x87 part of the legacy region.
    fn put_x87(&self, b: &mut [u8], rex: bool) {
        let f = &self.fpu;
        b[..2].copy_from_slice(&f.cw.to_le_bytes());
        b[2..4].copy_from_slice(&self.fpu_status().to_le_bytes());
        b[4] = f.tag;
        b[5] = 0;
        b[6..8].copy_from_slice(&(f.fop & 0x7ff).to_le_bytes());
        b[8..16].copy_from_slice(&f.fip.to_le_bytes());
        b[16..24].copy_from_slice(&f.fdp.to_le_bytes());
        if !rex {
            b[12..16].copy_from_slice(&u32::from(f.fcs).to_le_bytes());
            b[20..24].copy_from_slice(&u32::from(f.fds).to_le_bytes());
        }
        for i in 0..8 {
            let at = 32 + 16 * i;
            b[at..at + 10].copy_from_slice(&register_bytes(self.st(i as u8)));
            b[at + 10..at + 16].fill(0);
        }
    }

    fn get_x87(&mut self, b: &[u8], rex: bool) {
        let u16_at = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        self.fpu.cw = u16_at(0) & 0x1f7f | 0x40;
        self.fpu.tag = b[4];
        self.fpu.fop = u16_at(6) & 0x7ff;
        self.fpu.fip = u64_at(b, 8);
        self.fpu.fdp = u64_at(b, 16);
        if !rex {
            (self.fpu.fcs, self.fpu.fds) = (u16_at(12), u16_at(20));
            self.fpu.fip &= 0xffff_ffff;
            self.fpu.fdp &= 0xffff_ffff;
        }
        self.set_fpu_status(u16_at(2));
        for i in 0..8 {
            let mut r = [0; 10];
            r.copy_from_slice(&b[32 + 16 * i..42 + 16 * i]);
            let k = self.st_index(i as u8);
            self.fpu.r[k] = from_bytes(r);
        }
    }

    fn vector_count(&self, op: &Op) -> usize {
        if op.has(Op::LONG) {
            16
        } else {
            8
        }
    }

    fn put_xmms(&self, op: &Op, b: &mut [u8]) {
        for i in 0..self.vector_count(op) {
            let v = self.ymm[i].0;
            b[160 + 16 * i..168 + 16 * i].copy_from_slice(&v[0].to_le_bytes());
            b[168 + 16 * i..176 + 16 * i].copy_from_slice(&v[1].to_le_bytes());
        }
    }

    fn get_xmms(&mut self, op: &Op, b: &[u8]) {
        for i in 0..self.vector_count(op) {
            let at = 160 + 16 * i;
            self.set_xmm(i as u8, [u64_at(b, at), u64_at(b, at + 8)]);
        }
    }

    /// AMD's fast FXSAVE leaves out the XMM registers in 64-bit kernel code.
    fn fast_fxsave(&self) -> bool {
        self.efer & efer::FFXSR != 0 && self.cpl == 0 && self.long_code
    }

    fn fxsave(&mut self, op: &Op, rex: bool) -> R<()> {
        let lin = self.lin_w(op, HEADER)?;
        if lin & 15 != 0 {
            return self.gp(0);
        }
        let mut b = [0; HEADER];
        self.read_buf(lin, &mut b, op.seg)?;
        self.put_x87(&mut b, rex);
        let mxcsr = self.mxcsr_now();
        b[24..28].copy_from_slice(&mxcsr.to_le_bytes());
        b[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
        if !self.fast_fxsave() {
            self.put_xmms(op, &mut b);
        }
        self.write_buf(lin, &b, op.seg)
    }

    fn fxrstor(&mut self, op: &Op, rex: bool) -> R<()> {
        let lin = self.lin_r(op, HEADER)?;
        if lin & 15 != 0 {
            return self.gp(0);
        }
        let mut b = [0; HEADER];
        self.read_buf(lin, &mut b, op.seg)?;
        let mxcsr = u32::from_le_bytes([b[24], b[25], b[26], b[27]]);
        if mxcsr & !MXCSR_MASK != 0 {
            return self.gp(0);
        }
        self.get_x87(&b, rex);
        self.set_mxcsr(mxcsr);
        if !self.fast_fxsave() {
            self.get_xmms(op, &b);
        }
        Ok(())
    }

    // ---- XSAVE -------------------------------------------------------------------------------------------------

    fn requested(&self) -> u64 {
        let mask = self.regs[gpr::RAX] & 0xffff_ffff | self.regs[gpr::RDX] << 32;
        mask & self.xcr0 & COMPONENTS
    }

    /// Components that are not in their initial state.
    fn in_use(&self) -> u64 {
        let f = &self.fpu;
        let x87 = f.cw != 0x37f || self.fpu_status() != 0 || f.tag != 0 || f.fip != 0 || f.fdp != 0;
        let sse = self.ymm.iter().any(|v| v.0[0] | v.0[1] != 0);
        let avx = self.ymm.iter().any(|v| v.0[2] | v.0[3] != 0);
        u64::from(x87) | u64::from(sse) << 1 | u64::from(avx) << 2
    }

    fn xsave_at(&mut self, op: &Op, write: bool) -> R<u64> {
        let lin = if write { self.lin_w(op, AREA)? } else { self.lin_r(op, AREA)? };
        if lin & 63 != 0 {
            return self.gp(0);
        }
        Ok(lin)
    }

    /// XSAVE and XSAVEOPT (`skip_initial`), XSAVEC and XSAVES (`compact`).
    fn xsave(&mut self, op: &Op, rex: bool, skip_initial: bool, compact: bool) -> R<()> {
        let lin = self.xsave_at(op, true)?;
        let (rfbm, used) = (self.requested(), self.in_use());
        let mxcsr = self.mxcsr_now();
        let store = if skip_initial || compact { rfbm & used } else { rfbm };
        let end = if rfbm & 4 != 0 { AVX_OFFSET + AVX_SIZE } else { AREA };
        let mut b = [0; AVX_OFFSET + AVX_SIZE];
        self.read_buf(lin, &mut b[..end], op.seg)?;
        if store & 1 != 0 {
            self.put_x87(&mut b, rex);
        }
        if rfbm & 6 != 0 && !(compact && rfbm & 2 == 0) {
            b[24..28].copy_from_slice(&mxcsr.to_le_bytes());
            b[28..32].copy_from_slice(&MXCSR_MASK.to_le_bytes());
        }
        // A default MXCSR counts as in use only if it differs.
        let sse_used = used & 2 != 0 || mxcsr != super::DEFAULT && compact;
        if store & 2 != 0 {
            self.put_xmms(op, &mut b);
        }
        if store & 4 != 0 {
            for i in 0..self.vector_count(op) {
                let (v, at) = (self.ymm[i].0, AVX_OFFSET + 16 * i);
                b[at..at + 8].copy_from_slice(&v[2].to_le_bytes());
                b[at + 8..at + 16].copy_from_slice(&v[3].to_le_bytes());
            }
        }
        let used = if sse_used { used | 2 } else { used };
        let bv = if compact { rfbm & used } else { u64_at(&b, HEADER) & !rfbm | rfbm & used };
        b[HEADER..HEADER + 8].copy_from_slice(&bv.to_le_bytes());
        if compact {
            b[HEADER + 8..HEADER + 16].copy_from_slice(&(rfbm | 1 << 63).to_le_bytes());
        }
        self.write_buf(lin, &b[..end], op.seg)
    }

    fn xrstor(&mut self, op: &Op, rex: bool, supervisor: bool) -> R<()> {
        let lin = self.xsave_at(op, false)?;
        let mut b = [0; AVX_OFFSET + AVX_SIZE];
        self.read_buf(lin, &mut b[..AREA], op.seg)?;
        let (bv, comp) = (u64_at(&b, HEADER), u64_at(&b, HEADER + 8));
        let compact = comp >> 63 != 0;
        let bad = if compact {
            comp & !(1 << 63) & !self.xcr0 != 0 || bv & !comp != 0
        } else {
            supervisor || bv & !self.xcr0 != 0 || comp != 0 || u64_at(&b, HEADER + 16) != 0
        };
        if bad || b[HEADER + 24..AREA].iter().any(|x| *x != 0) && compact {
            return self.gp(0);
        }
        let rfbm = self.requested();
        let mxcsr = u32::from_le_bytes([b[24], b[25], b[26], b[27]]);
        let loads_mxcsr = if compact { rfbm & bv & 2 != 0 } else { rfbm & 6 != 0 };
        if loads_mxcsr && mxcsr & !MXCSR_MASK != 0 {
            return self.gp(0);
        }
        if rfbm & bv & 4 != 0 {
            self.read_buf(lin, &mut b, op.seg)?;
        }
        if rfbm & 1 != 0 {
            if bv & 1 != 0 {
                self.get_x87(&b, rex);
            } else {
                self.fpu_init();
                self.fpu.r = [[0; 2]; 8];
            }
        }
        if loads_mxcsr {
            self.set_mxcsr(mxcsr);
        } else if compact && rfbm & 2 != 0 {
            self.set_mxcsr(super::DEFAULT);
        }
        let n = self.vector_count(op);
        if rfbm & 2 != 0 {
            if bv & 2 != 0 {
                self.get_xmms(op, &b);
            } else {
                (0..n).for_each(|i| self.set_xmm(i as u8, [0; 2]));
            }
        }
        if rfbm & 4 != 0 {
            for i in 0..n {
                let at = AVX_OFFSET + 16 * i;
                let high = if bv & 4 != 0 { [u64_at(&b, at), u64_at(&b, at + 8)] } else { [0; 2] };
                let Ymm(v) = &mut self.ymm[i];
                (v[2], v[3]) = (high[0], high[1]);
            }
        }
        Ok(())
    }

    fn supervisor_only(&mut self) -> R<()> {
        if self.cpl != 0 {
            return self.gp(0);
        }
        Ok(())
    }
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    let mut v = [0; 8];
    v.copy_from_slice(&b[at..at + 8]);
    u64::from_le_bytes(v)
}

fn register_bytes(v: F80) -> [u8; 10] {
    let mut b = [0; 10];
    b[..8].copy_from_slice(&v[0].to_le_bytes());
    b[8..].copy_from_slice(&(v[1] as u16).to_le_bytes());
    b
}

handler! {
    fn fnstenv14(cpu, op) { cpu.store_environment(op, false) }
    fn fnstenv28(cpu, op) { cpu.store_environment(op, true) }
    fn fldenv14(cpu, op) { cpu.load_environment(op, false) }
    fn fldenv28(cpu, op) { cpu.load_environment(op, true) }
    fn fnsave94(cpu, op) { cpu.save(op, false) }
    fn fnsave108(cpu, op) { cpu.save(op, true) }
    fn frstor94(cpu, op) { cpu.restore(op, false) }
    fn frstor108(cpu, op) { cpu.restore(op, true) }
    fn fxsave32(cpu, op) { cpu.fxsave(op, false) }
    fn fxsave64(cpu, op) { cpu.fxsave(op, true) }
    fn fxrstor32(cpu, op) { cpu.fxrstor(op, false) }
    fn fxrstor64(cpu, op) { cpu.fxrstor(op, true) }
    fn xsave32(cpu, op) { cpu.xsave(op, false, false, false) }
    fn xsave64(cpu, op) { cpu.xsave(op, true, false, false) }
    fn xsaveopt32(cpu, op) { cpu.xsave(op, false, true, false) }
    fn xsaveopt64(cpu, op) { cpu.xsave(op, true, true, false) }
    fn xsavec32(cpu, op) { cpu.xsave(op, false, true, true) }
    fn xsavec64(cpu, op) { cpu.xsave(op, true, true, true) }
    fn xsaves32(cpu, op) { cpu.supervisor_only()?; cpu.xsave(op, false, true, true) }
    fn xsaves64(cpu, op) { cpu.supervisor_only()?; cpu.xsave(op, true, true, true) }
    fn xrstor32(cpu, op) { cpu.xrstor(op, false, false) }
    fn xrstor64(cpu, op) { cpu.xrstor(op, true, false) }
    fn xrstors32(cpu, op) { cpu.supervisor_only()?; cpu.xrstor(op, false, true) }
    fn xrstors64(cpu, op) { cpu.supervisor_only()?; cpu.xrstor(op, true, true) }
    fn xgetbv(cpu, _op) {
        let v = match cpu.regs[gpr::RCX] as u32 {
            0 => cpu.xcr0,
            1 => cpu.xcr0 & cpu.in_use(),
            _ => return cpu.gp(0),
        };
        cpu.set_reg::<u32>(gpr::RAX as u8 * 8, v as u32);
        cpu.set_reg::<u32>(gpr::RDX as u8 * 8, (v >> 32) as u32);
        Ok(())
    }
}

handler_recheck! {
    /// Ends its block: the mode depends on XCR0.
    fn xsetbv(cpu, _op) {
        cpu.supervisor_only()?;
        let v = cpu.regs[gpr::RAX] & 0xffff_ffff | cpu.regs[gpr::RDX] << 32;
        let supported = cpu.xcr0_supported();
        if cpu.regs[gpr::RCX] as u32 != 0 || v & 1 == 0 || v & !supported != 0 || v & 6 == 4 {
            return cpu.gp(0);
        }
        cpu.xcr0 = v;
        cpu.update_mode();
        Ok(())
    }
}

impl Cpu {
    /// Components that CPUID shows.
    fn xcr0_supported(&self) -> u64 {
        let r = self.model.cpuid(0xd, 0);
        (u64::from(r[0]) | u64::from(r[3]) << 32) & COMPONENTS
    }
}

/// The handler of such an instruction.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    Some(match code {
        Fnstenv_m14byte => fnstenv14,
        Fnstenv_m28byte => fnstenv28,
        Fldenv_m14byte => fldenv14,
        Fldenv_m28byte => fldenv28,
        Fnsave_m94byte => fnsave94,
        Fnsave_m108byte => fnsave108,
        Frstor_m94byte => frstor94,
        Frstor_m108byte => frstor108,
        Fxsave_m512byte => fxsave32,
        Fxsave64_m512byte => fxsave64,
        Fxrstor_m512byte => fxrstor32,
        Fxrstor64_m512byte => fxrstor64,
        Xsave_mem => xsave32,
        Xsave64_mem => xsave64,
        Xsaveopt_mem => xsaveopt32,
        Xsaveopt64_mem => xsaveopt64,
        Xsavec_mem => xsavec32,
        Xsavec64_mem => xsavec64,
        Xsaves_mem => xsaves32,
        Xsaves64_mem => xsaves64,
        Xrstor_mem => xrstor32,
        Xrstor64_mem => xrstor64,
        Xrstors_mem => xrstors32,
        Xrstors64_mem => xrstors64,
        Xgetbv => xgetbv,
        Xsetbv => xsetbv,
        _ => return None,
    })
}
