//! The VMware backdoor: a port through which guests ask their hypervisor.
//!
//! Follows `backdoor_def.h` of open-vm-tools: a guest puts a magic number into EAX and a command into ECX, and reads
//! the port; the answer comes in registers. What is answered, and how commands that do not exist are refused, is what
//! QEMU 7.2 does. Left out: the high-bandwidth port, and the commands that QEMU does not know either. Tests beside it.

mod mouse;

pub use mouse::{VmMouse, VmMouseProps};

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use crate::cpu::{BackdoorRegs, CpuDevice};
use crate::device::{Cx, DevId, Device, IoHandler, RealizeCx};
use crate::machine::Machine;
use crate::memory::IoSpec;
use crate::qom::DeviceClass;
use crate::{qerr, QResult};

/// The port.
pub const PORT: u16 = 0x5658;
const MAGIC: u32 = 0x564d_5868;

/// Commands.
mod cmd {
    pub const VERSION: u32 = 10;
    pub const UUID: u32 = 19;
    pub const RAM_SIZE: u32 = 20;
    pub const MOUSE_DATA: u32 = 39;
    pub const MOUSE_STATUS: u32 = 40;
    pub const MOUSE_COMMAND: u32 = 41;
    pub const FREQUENCIES: u32 = 45;
    pub const VCPU_INFO: u32 = 68;
}

/// What EBX says beside the size of RAM.
const RAM_EBX: u32 = 0x1177;
/// The bus clock of the local APIC in Hz.
const APIC_HZ: u32 = 1_000_000_000;
/// The processor's x2APIC may be used.
const X2APIC_OK: u32 = 8;

/// Properties of `vmport`.
#[derive(DeriveDevice, Debug)]
#[class(name = "vmport", parent = "isa-device", bus = Isa, internal)]
pub struct VmportProps {
    /// Reads set the whole of EAX
    #[prop(default = true)]
    pub x_read_set_eax: bool,
    /// Unknown commands answer with all ones
    #[prop(default = true)]
    pub x_signal_unsupported_cmd: bool,
    /// The version command names the product
    #[prop(default = true)]
    pub x_report_vmx_type: bool,
    /// Commands that came with the second generation
    #[prop(default = true)]
    pub x_cmds_v2: bool,
    /// Version of the hypervisor
    #[prop(default = 6u32)]
    pub vmware_vmx_version: u32,
    /// Product
    #[prop(default = 2u8)]
    pub vmware_vmx_type: u8,
}

impl DeviceClass for VmportProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if cx.m().vmport.is_some() {
            return Err(qerr!("only one vmport is allowed"));
        }
        cx.map_ports("vmport", PORT, 1, 0, IoSpec { valid: (1, 4), imp: (4, 4), unaligned: false });
        let dev = cx.id();
        cx.m().vmport = Some(dev);
        Ok(Box::new(Vmport {
            set_eax: self.x_read_set_eax,
            signal_unknown: self.x_signal_unsupported_cmd,
            report_type: self.x_report_vmx_type,
            second: self.x_cmds_v2,
            version: self.vmware_vmx_version,
            product: self.vmware_vmx_type,
            mouse: None,
        }))
    }
}

/// The port at run time.
pub struct Vmport {
    set_eax: bool,
    signal_unknown: bool,
    report_type: bool,
    second: bool,
    version: u32,
    product: u8,
    mouse: Option<DevId>,
}

impl Vmport {
    /// Lets `mouse` answer the commands about the pointer.
    pub(super) fn set_mouse(&mut self, mouse: DevId) {
        self.mouse = Some(mouse);
    }

    /// Carries out what the registers ask for; returns what the port reads as.
    fn access(&mut self, cx: &mut Cx<'_>, r: &mut BackdoorRegs) -> u32 {
        let answer = if r.eax == MAGIC { self.command(cx, r) } else { None };
        let eax = match answer {
            Some(v) => v,
            None if self.signal_unknown => u32::MAX,
            None => r.eax,
        };
        if self.set_eax {
            r.eax = eax;
        }
        eax
    }

    /// `None`: there is no such command.
    fn command(&mut self, cx: &mut Cx<'_>, r: &mut BackdoorRegs) -> Option<u32> {
        match r.ecx {
            cmd::VERSION => {
                r.ebx = MAGIC;
                if self.report_type {
                    r.ecx = self.product.into();
                }
                Some(self.version)
            }
            cmd::RAM_SIZE => {
                r.ebx = RAM_EBX;
                Some(cx.m.info.ram_size as u32)
            }
            cmd::UUID if self.second => {
                let uuid = cx.m.info.uuid.unwrap_or_default();
                let regs = [&mut r.eax, &mut r.ebx, &mut r.ecx, &mut r.edx];
                for (reg, b) in regs.into_iter().zip(uuid.chunks_exact(4)) {
                    *reg = u32::from_le_bytes([b[0], b[1], b[2], b[3]]);
                }
                Some(r.eax)
            }
            cmd::FREQUENCIES if self.second => {
                match cx.m.accel.tsc_khz().map(|khz| u64::from(khz) * 1000) {
                    Some(hz) => {
                        (r.eax, r.ebx, r.ecx) = (hz as u32, (hz >> 32) as u32, APIC_HZ);
                    }
                    None => r.ebx = u32::MAX,
                }
                Some(r.eax)
            }
            cmd::VCPU_INFO if self.second => {
                let cpu = cx.m.info.cpus.get(r.cpu).copied();
                let x2apic =
                    cpu.and_then(|id| cx.m.with::<CpuDevice, _>(id, |c, _| c.cpu.features.has("x2apic")));
                Some(if x2apic == Some(true) { X2APIC_OK } else { 0 })
            }
            cmd::MOUSE_DATA | cmd::MOUSE_STATUS | cmd::MOUSE_COMMAND => {
                let command = r.ecx;
                cx.m.with::<VmMouse, _>(self.mouse?, |mouse, cx| match command {
                    cmd::MOUSE_DATA => mouse.data(cx, r),
                    cmd::MOUSE_STATUS => r.eax = mouse.status(),
                    _ => mouse.command(cx, r.ebx),
                })?;
                Some(r.eax)
            }
            _ => None,
        }
    }
}

impl Device for Vmport {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn unrealize(&mut self, cx: &mut Cx<'_>) {
        cx.m.vmport = None;
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// Accesses that come from no processor (their registers are unknown) get no answer.
impl IoHandler for Vmport {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        u64::from(u32::MAX)
    }
    fn write(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, _value: u64) {}
}

impl Machine {
    /// A processor with these registers reads or writes the port; returns what a read gives.
    pub fn vmport_access(&mut self, regs: &mut BackdoorRegs) -> Option<u32> {
        let dev = self.vmport?;
        self.with::<Vmport, _>(dev, |v, cx| v.access(cx, regs))
    }
}

#[cfg(test)]
mod tests;
