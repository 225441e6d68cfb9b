//! Decimal adjust instructions (not in 64-bit mode).

use super::Int;
use crate::fault::Exception;
use crate::flags::Flags;
use crate::handler;
use crate::state::rflags::{AF, CF, PF, SF, ZF};

fn szp(al: u8) -> u64 {
    Flags::logic(al.sext()).bits() & (SF | ZF | PF)
}

handler! {
    pub fn aaa(cpu, _op) {
        let adj = cpu.reg::<u8>(0) & 15 > 9 || cpu.fl.af();
        if adj {
            let ax = cpu.reg::<u16>(0).wrapping_add(0x106);
            cpu.set_reg(0, ax);
        }
        let al = cpu.reg::<u8>(0) & 15;
        cpu.set_reg(0, al);
        cpu.fl = Flags::from_bits(szp(al) | if adj { AF | CF } else { 0 });
        Ok(())
    }
    pub fn aas(cpu, _op) {
        let adj = cpu.reg::<u8>(0) & 15 > 9 || cpu.fl.af();
        if adj {
            let ax = cpu.reg::<u16>(0).wrapping_sub(0x106);
            cpu.set_reg(0, ax);
        }
        let al = cpu.reg::<u8>(0) & 15;
        cpu.set_reg(0, al);
        cpu.fl = Flags::from_bits(szp(al) | if adj { AF | CF } else { 0 });
        Ok(())
    }
    pub fn daa(cpu, _op) {
        let old = cpu.reg::<u8>(0);
        let (cf, af) = (cpu.fl.cf(), cpu.fl.af());
        let mut al = old;
        let mut f = 0;
        if al & 15 > 9 || af {
            al = al.wrapping_add(6);
            f |= AF;
        }
        if old > 0x99 || cf {
            al = al.wrapping_add(0x60);
            f |= CF;
        }
        cpu.set_reg(0, al);
        cpu.fl = Flags::from_bits(szp(al) | f);
        Ok(())
    }
    pub fn das(cpu, _op) {
        let old = cpu.reg::<u8>(0);
        let (cf, af) = (cpu.fl.cf(), cpu.fl.af());
        let mut al = old;
        let mut f = 0;
        if al & 15 > 9 || af {
            f |= AF;
            if al < 6 || cf {
                f |= CF;
            }
            al = al.wrapping_sub(6);
        }
        if old > 0x99 || cf {
            al = al.wrapping_sub(0x60);
            f |= CF;
        }
        cpu.set_reg(0, al);
        cpu.fl = Flags::from_bits(szp(al) | f);
        Ok(())
    }
    pub fn aam(cpu, op) {
        let d = op.imm8();
        if d == 0 {
            return cpu.raise(Exception::new(Exception::DE));
        }
        let al = cpu.reg::<u8>(0);
        cpu.set_reg(0, (al % d) as u16 | ((al / d) as u16) << 8);
        cpu.fl = Flags::from_bits(szp(al % d));
        Ok(())
    }
    pub fn aad(cpu, op) {
        let ax = cpu.reg::<u16>(0);
        let al = (ax as u8).wrapping_add(((ax >> 8) as u8).wrapping_mul(op.imm8()));
        cpu.set_reg(0, al as u16);
        cpu.fl = Flags::from_bits(szp(al));
        Ok(())
    }
}
