//! Moves between vector registers, memory and general registers, MXCSR, and the instructions that only order memory.

use iced_x86::Code;

use crate::cpu::Cpu;
use crate::exec::{Handler, Op};
use crate::fault::R;
use crate::handler;
use crate::state::{gpr, sreg, Ymm};

use super::MXCSR_MASK;

impl Cpu {
    #[inline(always)]
    pub(crate) fn xmm(&self, r: u8) -> [u64; 2] {
        let v = &self.ymm[r as usize & 15].0;
        [v[0], v[1]]
    }

    /// Writes the low 128 bits; a VEX instruction clears the rest.
    #[inline(always)]
    pub(crate) fn put_xmm(&mut self, op: &Op, r: u8, v: [u64; 2]) {
        if op.has(Op::VEX) {
            self.set_xmm_vex(r, v);
        } else {
            self.set_xmm(r, v);
        }
    }
}

const LOW32: u64 = 0xffff_ffff;

handler! {
    fn load_aligned(cpu, op) {
        let v = if op.has(Op::MEM) { cpu.read128_aligned(op)? } else { cpu.xmm(op.r[1]) };
        cpu.put_xmm(op, op.r[0], v);
        Ok(())
    }
    fn load(cpu, op) {
        let v = if op.has(Op::MEM) { cpu.read128(op)? } else { cpu.xmm(op.r[1]) };
        cpu.put_xmm(op, op.r[0], v);
        Ok(())
    }
    fn store_aligned(cpu, op) {
        let v = cpu.xmm(op.r[1]);
        if op.has(Op::MEM) {
            return cpu.write128_aligned(op, v);
        }
        cpu.put_xmm(op, op.r[0], v);
        Ok(())
    }
    fn store(cpu, op) {
        let v = cpu.xmm(op.r[1]);
        if op.has(Op::MEM) {
            return cpu.write128(op, v);
        }
        cpu.put_xmm(op, op.r[0], v);
        Ok(())
    }
    fn load256(cpu, op) {
        cpu.ymm[op.r[0] as usize & 15] = cpu.vector_rm(op, 1, 32, false)?;
        Ok(())
    }
    fn load256_aligned(cpu, op) {
        cpu.check_aligned(op, 32)?;
        cpu.ymm[op.r[0] as usize & 15] = cpu.vector_rm(op, 1, 32, false)?;
        Ok(())
    }
    fn store256(cpu, op) {
        let v = cpu.ymm[op.r[1] as usize & 15];
        if op.has(Op::MEM) {
            return cpu.write256(op, v);
        }
        cpu.ymm[op.r[0] as usize & 15] = v;
        Ok(())
    }
    fn store256_aligned(cpu, op) {
        cpu.check_aligned(op, 32)?;
        let v = cpu.ymm[op.r[1] as usize & 15];
        if op.has(Op::MEM) {
            return cpu.write256(op, v);
        }
        cpu.ymm[op.r[0] as usize & 15] = v;
        Ok(())
    }
    fn broadcast128(cpu, op) {
        let [a, b] = cpu.read128(op)?;
        cpu.ymm[op.r[0] as usize & 15] = Ymm([a, b, a, b]);
        Ok(())
    }

    // MOVSS, MOVSD: a load clears the rest, a register form leaves it.
    fn movss_load(cpu, op) {
        if op.has(Op::MEM) {
            let v = u64::from(cpu.read::<u32>(op)?);
            cpu.put_xmm(op, op.r[0], [v, 0]);
        } else {
            let ([d0, d1], s) = (cpu.xmm(op.r[0]), cpu.xmm(op.r[1])[0]);
            cpu.set_xmm(op.r[0], [d0 & !LOW32 | s & LOW32, d1]);
        }
        Ok(())
    }
    fn movsd_load(cpu, op) {
        if op.has(Op::MEM) {
            let v = cpu.read::<u64>(op)?;
            cpu.put_xmm(op, op.r[0], [v, 0]);
        } else {
            let (d1, s) = (cpu.xmm(op.r[0])[1], cpu.xmm(op.r[1])[0]);
            cpu.set_xmm(op.r[0], [s, d1]);
        }
        Ok(())
    }
    fn movss_store(cpu, op) {
        let s = cpu.xmm(op.r[1])[0];
        if op.has(Op::MEM) {
            return cpu.write(op, s as u32);
        }
        let [d0, d1] = cpu.xmm(op.r[0]);
        cpu.set_xmm(op.r[0], [d0 & !LOW32 | s & LOW32, d1]);
        Ok(())
    }
    fn movsd_store(cpu, op) {
        let s = cpu.xmm(op.r[1])[0];
        if op.has(Op::MEM) {
            return cpu.write(op, s);
        }
        let d1 = cpu.xmm(op.r[0])[1];
        cpu.set_xmm(op.r[0], [s, d1]);
        Ok(())
    }
    fn vmovss_merge(cpu, op) {
        let ([a0, a1], b) = (cpu.xmm(op.r[1]), cpu.xmm(op.r[2])[0]);
        cpu.set_xmm_vex(op.r[0], [a0 & !LOW32 | b & LOW32, a1]);
        Ok(())
    }
    fn vmovsd_merge(cpu, op) {
        let (a1, b) = (cpu.xmm(op.r[1])[1], cpu.xmm(op.r[2])[0]);
        cpu.set_xmm_vex(op.r[0], [b, a1]);
        Ok(())
    }

    // Halves. With VEX, the unchanged half comes from the second operand.
    fn low_load(cpu, op) {
        let v = cpu.read::<u64>(op)?;
        let other = cpu.xmm(op.r[usize::from(op.has(Op::VEX))])[1];
        cpu.put_xmm(op, op.r[0], [v, other]);
        Ok(())
    }
    fn high_load(cpu, op) {
        let v = cpu.read::<u64>(op)?;
        let other = cpu.xmm(op.r[usize::from(op.has(Op::VEX))])[0];
        cpu.put_xmm(op, op.r[0], [other, v]);
        Ok(())
    }
    fn high_store(cpu, op) {
        let v = cpu.xmm(op.r[1])[1];
        cpu.write(op, v)
    }
    fn movhlps(cpu, op) {
        let n = usize::from(op.has(Op::VEX));
        let v = [cpu.xmm(op.r[1 + n])[1], cpu.xmm(op.r[n])[1]];
        cpu.put_xmm(op, op.r[0], v);
        Ok(())
    }
    fn movlhps(cpu, op) {
        let n = usize::from(op.has(Op::VEX));
        let v = [cpu.xmm(op.r[n])[0], cpu.xmm(op.r[1 + n])[0]];
        cpu.put_xmm(op, op.r[0], v);
        Ok(())
    }

    // To and from general registers.
    fn movd_load(cpu, op) {
        let v = if op.has(Op::MEM) { cpu.read::<u32>(op)? } else { cpu.reg::<u32>(op.r[1]) };
        cpu.put_xmm(op, op.r[0], [u64::from(v), 0]);
        Ok(())
    }
    fn movq_load_gpr(cpu, op) {
        let v = if op.has(Op::MEM) { cpu.read::<u64>(op)? } else { cpu.reg::<u64>(op.r[1]) };
        cpu.put_xmm(op, op.r[0], [v, 0]);
        Ok(())
    }
    fn movd_store(cpu, op) {
        let v = cpu.xmm(op.r[1])[0] as u32;
        if op.has(Op::MEM) {
            return cpu.write(op, v);
        }
        cpu.set_reg::<u32>(op.r[0], v);
        Ok(())
    }
    fn movq_store_gpr(cpu, op) {
        let v = cpu.xmm(op.r[1])[0];
        if op.has(Op::MEM) {
            return cpu.write(op, v);
        }
        cpu.set_reg::<u64>(op.r[0], v);
        Ok(())
    }
    fn movq_load(cpu, op) {
        let v = if op.has(Op::MEM) { cpu.read::<u64>(op)? } else { cpu.xmm(op.r[1])[0] };
        cpu.put_xmm(op, op.r[0], [v, 0]);
        Ok(())
    }
    fn movq_store(cpu, op) {
        let v = cpu.xmm(op.r[1])[0];
        if op.has(Op::MEM) {
            return cpu.write(op, v);
        }
        cpu.put_xmm(op, op.r[0], [v, 0]);
        Ok(())
    }
    fn mmx_movd_load(cpu, op) {
        cpu.fpu_check()?;
        let v = if op.has(Op::MEM) { cpu.read::<u32>(op)? } else { cpu.reg::<u32>(op.r[1]) };
        cpu.set_mm(op.r[0], u64::from(v));
        Ok(())
    }
    fn mmx_movq_load_gpr(cpu, op) {
        cpu.fpu_check()?;
        let v = if op.has(Op::MEM) { cpu.read::<u64>(op)? } else { cpu.reg::<u64>(op.r[1]) };
        cpu.set_mm(op.r[0], v);
        Ok(())
    }
    fn mmx_movd_store(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.mm(op.r[1]) as u32;
        if op.has(Op::MEM) {
            cpu.write(op, v)?;
        } else {
            cpu.set_reg::<u32>(op.r[0], v);
        }
        cpu.mmx_touch();
        Ok(())
    }
    fn mmx_movq_store_gpr(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.mm(op.r[1]);
        if op.has(Op::MEM) {
            cpu.write(op, v)?;
        } else {
            cpu.set_reg::<u64>(op.r[0], v);
        }
        cpu.mmx_touch();
        Ok(())
    }
    fn mmx_load(cpu, op) {
        cpu.fpu_check()?;
        let v = if op.has(Op::MEM) { cpu.read::<u64>(op)? } else { cpu.mm(op.r[1]) };
        cpu.set_mm(op.r[0], v);
        Ok(())
    }
    fn mmx_store(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.mm(op.r[1]);
        if op.has(Op::MEM) {
            cpu.write(op, v)?;
            cpu.mmx_touch();
        } else {
            cpu.set_mm(op.r[0], v);
        }
        Ok(())
    }
    fn movq2dq(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.mm(op.r[1]);
        cpu.mmx_touch();
        cpu.set_xmm(op.r[0], [v, 0]);
        Ok(())
    }
    fn movdq2q(cpu, op) {
        cpu.fpu_check()?;
        let v = cpu.xmm(op.r[1])[0];
        cpu.set_mm(op.r[0], v);
        Ok(())
    }
    fn movnti32(cpu, op) {
        let v = cpu.reg::<u32>(op.r[1]);
        cpu.write(op, v)
    }
    fn movnti64(cpu, op) {
        let v = cpu.reg::<u64>(op.r[1]);
        cpu.write(op, v)
    }

    // Sign masks.
    fn movmskps(cpu, op) {
        let v = cpu.ymm[op.r[1] as usize & 15].0;
        let n = if op.has(Op::L256) { 4 } else { 2 };
        let m = (0..n).fold(0u64, |m, i| m | (v[i] >> 31 & 1) << (2 * i) | (v[i] >> 63) << (2 * i + 1));
        cpu.set_reg::<u64>(op.r[0], m);
        Ok(())
    }
    fn movmskpd(cpu, op) {
        let v = cpu.ymm[op.r[1] as usize & 15].0;
        let n = if op.has(Op::L256) { 4 } else { 2 };
        let m = (0..n).fold(0u64, |m, i| m | (v[i] >> 63) << i);
        cpu.set_reg::<u64>(op.r[0], m);
        Ok(())
    }
    fn pmovmskb(cpu, op) {
        let v = cpu.ymm[op.r[1] as usize & 15].0;
        let n = if op.has(Op::L256) { 4 } else { 2 };
        let m = (0..n).fold(0u64, |m, i| m | byte_signs(v[i]) << (8 * i));
        cpu.set_reg::<u64>(op.r[0], m);
        Ok(())
    }
    fn mmx_pmovmskb(cpu, op) {
        cpu.fpu_check()?;
        let m = byte_signs(cpu.mm(op.r[1]));
        cpu.mmx_touch();
        cpu.set_reg::<u64>(op.r[0], m);
        Ok(())
    }

    // Masked stores.
    fn maskmovdqu(cpu, op) {
        let (v, m) = (cpu.xmm(op.r[1]), cpu.xmm(op.r[2]));
        let mut bytes = [0; 16];
        for (i, b) in bytes.iter_mut().enumerate() {
            *b = (v[i / 8] >> (8 * (i % 8))) as u8;
        }
        cpu.masked_store(op, &bytes, |i| m[i / 8] >> (8 * (i % 8) + 7) & 1 != 0)
    }
    fn maskmovq(cpu, op) {
        cpu.fpu_check()?;
        let (v, m) = (cpu.mm(op.r[1]), cpu.mm(op.r[2]));
        cpu.masked_store(op, &v.to_le_bytes(), |i| m >> (8 * i + 7) & 1 != 0)?;
        cpu.mmx_touch();
        Ok(())
    }

    // MXCSR.
    fn ldmxcsr(cpu, op) {
        let v = cpu.read::<u32>(op)?;
        if v & !MXCSR_MASK != 0 {
            return cpu.gp(0);
        }
        cpu.set_mxcsr(v);
        Ok(())
    }
    fn stmxcsr(cpu, op) {
        let v = cpu.mxcsr_now();
        cpu.write(op, v)
    }

    fn vzeroupper(cpu, op) {
        let n = if op.has(Op::LONG) { 16 } else { 8 };
        for r in &mut cpu.ymm[..n] {
            (r.0[2], r.0[3]) = (0, 0);
        }
        Ok(())
    }
    fn vzeroall(cpu, op) {
        let n = if op.has(Op::LONG) { 16 } else { 8 };
        cpu.ymm[..n].fill(Ymm::default());
        Ok(())
    }
    fn emms(cpu, _op) {
        cpu.fpu_check()?;
        (cpu.fpu.tag, cpu.fpu.top) = (0, 0);
        Ok(())
    }
    fn fence(_cpu, _op) {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        Ok(())
    }
    fn hint(_cpu, _op) {
        Ok(())
    }
}

fn byte_signs(v: u64) -> u64 {
    v.to_le_bytes().iter().enumerate().fold(0, |m, (i, b)| m | u64::from(b >> 7) << i)
}

impl Cpu {
    fn check_aligned(&mut self, op: &Op, n: u64) -> R<()> {
        if op.has(Op::MEM) && self.lin_r(op, n as usize)? & (n - 1) != 0 {
            return self.gp(0);
        }
        Ok(())
    }

    /// Stores the bytes that `on` selects at DS:rDI. Everything is checked before the first is written.
    fn masked_store(&mut self, op: &Op, bytes: &[u8], on: impl Fn(usize) -> bool) -> R<()> {
        let rdi = self.regs[gpr::RDI];
        let base = match () {
            _ if op.has(Op::A32) => u64::from(rdi as u32),
            _ if op.has(Op::A16) => u64::from(rdi as u16),
            _ => rdi,
        };
        let seg = if op.has(Op::MEM) { op.seg as usize } else { sreg::DS };
        let at = self.seg_lin(seg, base, bytes.len(), true)?;
        for i in (0..bytes.len()).filter(|i| on(*i)) {
            self.probe_w(at.wrapping_add(i as u64), 1, seg as u8)?;
        }
        for (i, b) in bytes.iter().enumerate().filter(|(i, _)| on(*i)) {
            self.write_lin(at.wrapping_add(i as u64), *b, seg as u8)?;
        }
        Ok(())
    }
}

/// The handler of a move.
pub fn lookup(code: Code) -> Option<Handler> {
    use Code::*;
    Some(match code {
        Movaps_xmm_xmmm128
        | Movapd_xmm_xmmm128
        | Movdqa_xmm_xmmm128
        | Movntdqa_xmm_m128
        | VEX_Vmovaps_xmm_xmmm128
        | VEX_Vmovapd_xmm_xmmm128
        | VEX_Vmovdqa_xmm_xmmm128
        | VEX_Vmovntdqa_xmm_m128 => load_aligned,
        Movups_xmm_xmmm128
        | Movupd_xmm_xmmm128
        | Movdqu_xmm_xmmm128
        | Lddqu_xmm_m128
        | VEX_Vmovups_xmm_xmmm128
        | VEX_Vmovupd_xmm_xmmm128
        | VEX_Vmovdqu_xmm_xmmm128
        | VEX_Vlddqu_xmm_m128 => load,
        Movaps_xmmm128_xmm
        | Movapd_xmmm128_xmm
        | Movdqa_xmmm128_xmm
        | Movntps_m128_xmm
        | Movntpd_m128_xmm
        | Movntdq_m128_xmm
        | VEX_Vmovaps_xmmm128_xmm
        | VEX_Vmovapd_xmmm128_xmm
        | VEX_Vmovdqa_xmmm128_xmm
        | VEX_Vmovntps_m128_xmm
        | VEX_Vmovntpd_m128_xmm
        | VEX_Vmovntdq_m128_xmm => store_aligned,
        Movups_xmmm128_xmm
        | Movupd_xmmm128_xmm
        | Movdqu_xmmm128_xmm
        | VEX_Vmovups_xmmm128_xmm
        | VEX_Vmovupd_xmmm128_xmm
        | VEX_Vmovdqu_xmmm128_xmm => store,
        VEX_Vmovups_ymm_ymmm256 | VEX_Vmovupd_ymm_ymmm256 | VEX_Vmovdqu_ymm_ymmm256 | VEX_Vlddqu_ymm_m256 => {
            load256
        }
        VEX_Vmovaps_ymm_ymmm256
        | VEX_Vmovapd_ymm_ymmm256
        | VEX_Vmovdqa_ymm_ymmm256
        | VEX_Vmovntdqa_ymm_m256 => load256_aligned,
        VEX_Vmovups_ymmm256_ymm | VEX_Vmovupd_ymmm256_ymm | VEX_Vmovdqu_ymmm256_ymm => store256,
        VEX_Vmovaps_ymmm256_ymm
        | VEX_Vmovapd_ymmm256_ymm
        | VEX_Vmovdqa_ymmm256_ymm
        | VEX_Vmovntps_m256_ymm
        | VEX_Vmovntpd_m256_ymm
        | VEX_Vmovntdq_m256_ymm => store256_aligned,
        VEX_Vbroadcastf128_ymm_m128 | VEX_Vbroadcasti128_ymm_m128 => broadcast128,
        Movss_xmm_xmmm32 | VEX_Vmovss_xmm_m32 => movss_load,
        Movsd_xmm_xmmm64 | VEX_Vmovsd_xmm_m64 => movsd_load,
        Movss_xmmm32_xmm | VEX_Vmovss_m32_xmm => movss_store,
        Movsd_xmmm64_xmm | VEX_Vmovsd_m64_xmm => movsd_store,
        VEX_Vmovss_xmm_xmm_xmm | VEX_Vmovss_xmm_xmm_xmm_0F11 => vmovss_merge,
        VEX_Vmovsd_xmm_xmm_xmm | VEX_Vmovsd_xmm_xmm_xmm_0F11 => vmovsd_merge,
        Movlps_xmm_m64 | Movlpd_xmm_m64 | VEX_Vmovlps_xmm_xmm_m64 | VEX_Vmovlpd_xmm_xmm_m64 => low_load,
        Movhps_xmm_m64 | Movhpd_xmm_m64 | VEX_Vmovhps_xmm_xmm_m64 | VEX_Vmovhpd_xmm_xmm_m64 => high_load,
        Movlps_m64_xmm | Movlpd_m64_xmm | VEX_Vmovlps_m64_xmm | VEX_Vmovlpd_m64_xmm => movsd_store,
        Movhps_m64_xmm | Movhpd_m64_xmm | VEX_Vmovhps_m64_xmm | VEX_Vmovhpd_m64_xmm => high_store,
        Movhlps_xmm_xmm | VEX_Vmovhlps_xmm_xmm_xmm => movhlps,
        Movlhps_xmm_xmm | VEX_Vmovlhps_xmm_xmm_xmm => movlhps,
        Movd_xmm_rm32 | VEX_Vmovd_xmm_rm32 => movd_load,
        Movq_xmm_rm64 | VEX_Vmovq_xmm_rm64 => movq_load_gpr,
        Movd_rm32_xmm | VEX_Vmovd_rm32_xmm => movd_store,
        Movq_rm64_xmm | VEX_Vmovq_rm64_xmm => movq_store_gpr,
        Movq_xmm_xmmm64 | VEX_Vmovq_xmm_xmmm64 => movq_load,
        Movq_xmmm64_xmm | VEX_Vmovq_xmmm64_xmm => movq_store,
        Movd_mm_rm32 => mmx_movd_load,
        Movq_mm_rm64 => mmx_movq_load_gpr,
        Movd_rm32_mm => mmx_movd_store,
        Movq_rm64_mm => mmx_movq_store_gpr,
        Movq_mm_mmm64 => mmx_load,
        Movq_mmm64_mm | Movntq_m64_mm => mmx_store,
        Movq2dq_xmm_mm => movq2dq,
        Movdq2q_mm_xmm => movdq2q,
        Movnti_m32_r32 => movnti32,
        Movnti_m64_r64 => movnti64,
        Movmskps_r32_xmm
        | Movmskps_r64_xmm
        | VEX_Vmovmskps_r32_xmm
        | VEX_Vmovmskps_r64_xmm
        | VEX_Vmovmskps_r32_ymm
        | VEX_Vmovmskps_r64_ymm => movmskps,
        Movmskpd_r32_xmm
        | Movmskpd_r64_xmm
        | VEX_Vmovmskpd_r32_xmm
        | VEX_Vmovmskpd_r64_xmm
        | VEX_Vmovmskpd_r32_ymm
        | VEX_Vmovmskpd_r64_ymm => movmskpd,
        Pmovmskb_r32_xmm
        | Pmovmskb_r64_xmm
        | VEX_Vpmovmskb_r32_xmm
        | VEX_Vpmovmskb_r64_xmm
        | VEX_Vpmovmskb_r32_ymm
        | VEX_Vpmovmskb_r64_ymm => pmovmskb,
        Pmovmskb_r32_mm | Pmovmskb_r64_mm => mmx_pmovmskb,
        Maskmovdqu_rDI_xmm_xmm | VEX_Vmaskmovdqu_rDI_xmm_xmm => maskmovdqu,
        Maskmovq_rDI_mm_mm => maskmovq,
        Ldmxcsr_m32 | VEX_Vldmxcsr_m32 => ldmxcsr,
        Stmxcsr_m32 | VEX_Vstmxcsr_m32 => stmxcsr,
        VEX_Vzeroupper => vzeroupper,
        VEX_Vzeroall => vzeroall,
        Emms | Femms => emms,
        Mfence | Mfence_F1 | Mfence_F2 | Mfence_F3 | Mfence_F4 | Mfence_F5 | Mfence_F6 | Mfence_F7
        | Lfence | Lfence_E9 | Lfence_EA | Lfence_EB | Lfence_EC | Lfence_ED | Lfence_EE | Lfence_EF
        | Sfence | Sfence_F9 | Sfence_FA | Sfence_FB | Sfence_FC | Sfence_FD | Sfence_FE | Sfence_FF => fence,
        Prefetch_m8 | Prefetchw_m8 | Prefetchwt1_m8 | Prefetchnta_m8 | Prefetcht0_m8 | Prefetcht1_m8
        | Prefetcht2_m8 | Prefetchreserved3_m8 | Prefetchreserved4_m8 | Prefetchreserved5_m8
        | Prefetchreserved6_m8 | Prefetchreserved7_m8 => hint,
        _ => return None,
    })
}
