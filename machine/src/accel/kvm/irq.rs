//! Interrupt routes and the state of the in-kernel controllers.

use kvm_bindings::{
    kvm_irq_routing_entry, kvm_irqchip, kvm_pit_state2, KvmIrqRouting, KVM_IRQCHIP_IOAPIC,
    KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI,
};
use kvm_ioctls::{VcpuFd, VmFd};

use super::ioctl_error;
use crate::accel::MsiMessage;
use crate::cpu::pc_chips;
use crate::QResult;

/// Pins of I/O APICs, which have the first GSIs: two chips of 24.
pub const PINS: u32 = 48;
/// First GSI for messages of devices.
const FIRST_MSI: u32 = PINS;
const MAX_GSI: u32 = 4096;

/// Whether a vCPU's local APIC in the kernel has an interrupt that its priorities let through.
pub fn apic_pending(fd: &VcpuFd) -> bool {
    const TPR: usize = 0x80;
    const SPURIOUS: usize = 0xf0;
    const ISR: usize = 0x100;
    const IRR: usize = 0x200;
    let Ok(state) = fd.get_lapic() else { return true };
    let byte = |at: usize| state.regs.get(at).map_or(0, |b| b.cast_unsigned());
    // Highest vector of a 256-bit register, which lies in every fourth word.
    let highest = |reg: usize| {
        (0..32).rev().find_map(|i| {
            let b = byte(reg + i / 4 * 16 + i % 4);
            (b != 0).then(|| i as u32 * 8 + 7 - b.leading_zeros())
        })
    };
    let busy = highest(ISR).unwrap_or(0).max(u32::from(byte(TPR))) >> 4;
    byte(SPURIOUS + 1) & 1 != 0 && highest(IRR).is_some_and(|v| v >> 4 > busy)
}

/// Whether the 8259 in the kernel may have an interrupt.
pub fn pic_pending(vm: &VmFd) -> bool {
    let mut chip = kvm_irqchip { chip_id: KVM_IRQCHIP_PIC_MASTER, ..Default::default() };
    if vm.get_irqchip(&mut chip).is_err() {
        return true;
    }
    // SAFETY: the chip asked for is an 8259, so `pic` is the valid member.
    let pic = unsafe { chip.chip.pic };
    let waiting = pic.irr & !pic.imr;
    waiting != 0 && (pic.isr == 0 || waiting.trailing_zeros() < pic.isr.trailing_zeros())
}

/// Message routes by GSI.
#[derive(Default)]
pub struct Routes {
    /// With the I/O APIC in user space: what its pins send.
    pub pins: Option<Vec<Option<MsiMessage>>>,
    msi: Vec<Option<MsiMessage>>,
}

impl Routes {
    /// Gives a message a GSI.
    pub fn add(&mut self, msg: MsiMessage) -> Option<u32> {
        let i = self.msi.iter().position(Option::is_none).unwrap_or(self.msi.len());
        if i as u32 + FIRST_MSI >= MAX_GSI {
            return None;
        }
        if i == self.msi.len() {
            self.msi.push(None);
        }
        self.msi[i] = Some(msg);
        Some(i as u32 + FIRST_MSI)
    }

    /// The message of a GSI.
    pub fn get(&self, gsi: u32) -> Option<MsiMessage> {
        self.msi.get(gsi.checked_sub(FIRST_MSI)? as usize).copied().flatten()
    }

    /// Releases a GSI; its stale route is replaced at the next commit.
    pub fn free(&mut self, gsi: u32) {
        if let Some(e) = gsi.checked_sub(FIRST_MSI).and_then(|i| self.msi.get_mut(i as usize)) {
            *e = None;
        }
    }

    /// Tells KVM all routes.
    pub fn commit(&self, vm: &VmFd) -> QResult<()> {
        let mut entries = Vec::with_capacity(48 + self.msi.len());
        match &self.pins {
            Some(pins) => {
                let set = pins.iter().zip(0..).filter_map(|(m, gsi)| m.map(|m| message(gsi, m)));
                entries.extend(set);
            }
            None => kernel_pins(&mut entries),
        }
        for (i, m) in self.msi.iter().enumerate() {
            if let Some(m) = m {
                entries.push(message(i as u32 + FIRST_MSI, *m));
            }
        }
        let routing =
            KvmIrqRouting::from_entries(&entries).map_err(|_| crate::qerr!("too many interrupt routes"))?;
        vm.set_gsi_routing(&routing).map_err(|e| ioctl_error("KVM_SET_GSI_ROUTING", e))
    }
}

/// The pins of the controllers in the kernel.
fn kernel_pins(entries: &mut Vec<kvm_irq_routing_entry>) {
    for gsi in 0..16 {
        // The timer interrupt arrives on pin 2 of the I/O APIC; pin 2 of the PIC is the cascade.
        if gsi != 2 {
            entries.push(pin(
                gsi,
                if gsi < 8 { KVM_IRQCHIP_PIC_MASTER } else { KVM_IRQCHIP_PIC_SLAVE },
                gsi % 8,
            ));
        }
    }
    for gsi in 0..24 {
        match gsi {
            0 => entries.push(pin(0, KVM_IRQCHIP_IOAPIC, 2)),
            2 => {}
            _ => entries.push(pin(gsi, KVM_IRQCHIP_IOAPIC, gsi)),
        }
    }
}

fn pin(gsi: u32, chip: u32, n: u32) -> kvm_irq_routing_entry {
    let mut e = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_IRQCHIP, ..Default::default() };
    e.u.irqchip.irqchip = chip;
    e.u.irqchip.pin = n;
    e
}

fn message(gsi: u32, m: MsiMessage) -> kvm_irq_routing_entry {
    let mut e = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    e.u.msi.address_lo = m.addr as u32;
    e.u.msi.address_hi = (m.addr >> 32) as u32;
    e.u.msi.data = m.data;
    e
}

/// State of PICs, I/O APIC and PIT.
pub struct ChipState {
    chips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
}

impl ChipState {
    /// Reads it.
    pub fn capture(vm: &VmFd) -> QResult<Self> {
        let mut chips = Vec::new();
        for id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
            let mut c = kvm_irqchip { chip_id: id, ..Default::default() };
            vm.get_irqchip(&mut c).map_err(|e| ioctl_error("KVM_GET_IRQCHIP", e))?;
            chips.push(c);
        }
        let pit = vm.get_pit2().map_err(|e| ioctl_error("KVM_GET_PIT2", e))?;
        Ok(Self { chips, pit })
    }

    /// Writes it back; with `bios`, programmed as a PC's BIOS does.
    pub fn restore(&self, vm: &VmFd, bios: bool) {
        for c in &self.chips {
            let mut c = *c;
            if let Some((base, mask, level)) = pc_chips::PIC.get(c.chip_id as usize).filter(|_| bios) {
                // SAFETY: the first two chips are 8259s, whose part of the union this is; it is plain data.
                let pic = unsafe { &mut c.chip.pic };
                (pic.irq_base, pic.imr, pic.elcr, pic.init4) = (*base, *mask, *level, 1);
            }
            // What was read from this VM can be written to it.
            let _ = vm.set_irqchip(&c);
        }
        let mut pit = self.pit;
        for c in &mut pit.channels {
            // The counters have not been programmed: KVM leaves a mode that none of them has.
            (c.mode, c.rw_mode) = (3, 0);
        }
        if bios {
            let c = &mut pit.channels[0];
            (c.mode, c.rw_mode, c.bcd, c.count, c.gate) = (pc_chips::PIT_MODE, 3, 0, 0, 1);
        }
        let _ = vm.set_pit2(&pit);
    }
}
