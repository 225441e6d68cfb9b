//! Port accesses of the power management function.

use super::{cpuhp, IoHandler, Piix4Pm, Tag, APMC_EN, DEVACTB_HIGH};
use crate::device::Cx;
use crate::devices::chipset::acpi::Pm1;
use crate::memory::IoSpec;

/// APM commands by which firmware and the guest switch ACPI mode.
const ACPI_ENABLE: u8 = 0xf1;
const ACPI_DISABLE: u8 = 0xf0;

impl IoHandler for Piix4Pm {
    fn read(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8) -> u64 {
        let Some(tag) = Tag::ALL.get(region as usize) else { return 0 };
        match tag {
            Tag::Event => u64::from(self.acpi.pm1.read_event(cx.now(), offset)),
            // Like QEMU's, these two ignore where in the register an access begins.
            Tag::Control => u64::from(self.acpi.pm1.control()),
            Tag::Timer => u64::from(Pm1::timer(cx.now())),
            Tag::Apm => u64::from(self.apm[offset as usize & 1]),
            Tag::Gpe => u64::from(self.acpi.gpe.read(offset)),
            Tag::PciHp => self.pcihp.as_mut().map_or(0, |p| u64::from(p.read(cx, offset))),
            Tag::CpuHp => self.cpuhp.read(offset, size),
            Tag::Smbus => u64::from(self.smbus.read(cx.m, self.i2c, offset)),
        }
    }

    fn write(&mut self, cx: &mut Cx<'_>, region: u32, offset: u64, size: u8, value: u64) {
        let Some(tag) = Tag::ALL.get(region as usize) else { return };
        match tag {
            Tag::Event => {
                self.acpi.pm1.write_event(cx.now(), offset, value as u16);
                self.acpi.update_sci(cx);
            }
            Tag::Control => self.acpi.pm1.write_control(cx, value as u16),
            Tag::Timer => {}
            Tag::Apm => self.write_apm(cx, offset, value as u8),
            Tag::Gpe => {
                self.acpi.gpe.write(offset, value as u8);
                self.acpi.update_sci(cx);
            }
            Tag::PciHp => {
                let gone = self.pcihp.as_mut().map(|p| p.write(cx, offset, value as u32)).unwrap_or_default();
                gone.into_iter().for_each(|dev| cx.unplug(dev));
            }
            Tag::CpuHp => self.write_cpuhp(cx, offset, size, value),
            Tag::Smbus => self.smbus.write(offset, value as u8),
        }
    }
}

impl Piix4Pm {
    fn write_apm(&mut self, cx: &mut Cx<'_>, offset: u64, v: u8) {
        self.apm[offset as usize & 1] = v;
        if offset == 0 {
            match v {
                ACPI_ENABLE => self.acpi.pm1.set_acpi_mode(true),
                ACPI_DISABLE => self.acpi.pm1.set_acpi_mode(false),
                _ => {}
            }
            if self.pci.config()[DEVACTB_HIGH] & APMC_EN != 0 {
                cx.pulse_irq(self.smi);
            }
        }
    }

    fn write_cpuhp(&mut self, cx: &mut Cx<'_>, offset: u64, size: u8, value: u64) {
        let (gone, switched) = self.cpuhp.write(cx, offset, size, value);
        if let Some(dev) = gone {
            self.cpuhp.unplugged(dev);
            cx.unplug(dev);
        }
        if switched {
            let spec = IoSpec { valid: (1, 4), imp: (1, 4), unaligned: false };
            cx.m.mem.set_io(self.regions.cpus, u128::from(cpuhp::MODERN_LEN), spec);
        }
    }
}
