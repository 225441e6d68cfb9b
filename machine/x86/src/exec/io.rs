//! Port input and output.

use super::{fail, Int, Next, Op};
use crate::cpu::Cpu;
use crate::fault::{Exception, R};
use crate::state::gpr;

impl Cpu {
    /// IOPL and the TSS permission bitmap; #GP(0).
    pub(crate) fn check_io(&mut self, port: u16, size: u8) -> R<()> {
        if self.assisting && self.bus().port_elsewhere(port) {
            return self.raise(Exception::new(Exception::LEAVE));
        }
        self.check_io_allowed(port, size)?;
        if self.dr[7] & 0xff != 0 {
            self.note_io(port, size);
        }
        Ok(())
    }

    fn check_io_allowed(&mut self, port: u16, size: u8) -> R<()> {
        if !self.protected() || (!self.vm86() && self.cpl <= self.iopl()) {
            return Ok(());
        }
        let tr = self.tr;
        // Only a 32/64-bit TSS (type 9 or 11) has a bitmap.
        if !tr.present() || tr.attr & 0xd != 9 || tr.limit < 103 {
            return self.gp(0);
        }
        let base = self.as_supervisor(|c| c.read_lin::<u16>(tr.base.wrapping_add(102), 3))?;
        let at = base as u32 + port as u32 / 8;
        if at + 1 > tr.limit {
            return self.gp(0);
        }
        let bits = self.as_supervisor(|c| c.read_lin::<u16>(tr.base.wrapping_add(at as u64), 3))?;
        if bits >> (port & 7) & ((1 << size) - 1) != 0 {
            return self.gp(0);
        }
        Ok(())
    }
}

fn port(cpu: &Cpu, op: &Op) -> u16 {
    let by_imm = matches!(
        op.code(),
        iced_x86::Code::In_AL_imm8
            | iced_x86::Code::In_AX_imm8
            | iced_x86::Code::In_EAX_imm8
            | iced_x86::Code::Out_imm8_AL
            | iced_x86::Code::Out_imm8_AX
            | iced_x86::Code::Out_imm8_EAX
    );
    if by_imm {
        op.imm8() as u16
    } else {
        cpu.regs[gpr::RDX] as u16
    }
}

fn done(cpu: &mut Cpu, op: &Op, r: R<()>) -> Next {
    match r {
        Ok(()) => {
            cpu.rip = cpu.op_next_rip(op);
            if cpu.watch_hits != 0 {
                return Next::Recheck;
            }
            super::chain(cpu, 1)
        }
        Err(_) => fail(cpu, op),
    }
}

/// IN. Ends the block so that what the device requests is seen at once.
pub fn input<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let p = port(cpu, op);
    let r = cpu.check_io(p, T::BYTES as u8);
    if r.is_ok() {
        let v = cpu.bus().port_in(p, T::BYTES as u8);
        cpu.set_reg(0, T::from_u64(v as u64));
    }
    done(cpu, op, r)
}

/// OUT.
pub fn output<T: Int>(cpu: &mut Cpu, op: &Op) -> Next {
    let p = port(cpu, op);
    let r = cpu.check_io(p, T::BYTES as u8);
    if r.is_ok() {
        let v = cpu.reg::<T>(0).to_u64() as u32;
        cpu.bus().port_out(p, T::BYTES as u8, v);
        cpu.device_written();
    }
    done(cpu, op, r)
}
