//! Panic notifier (QEMU's `docs/specs/pvpanic`): the guest reports that it panicked or loads a crash kernel.

use rqemu_derive::Device;

use crate::device::{Cx, Device, IoHandler, PciFunction, RealizeCx};
use crate::devices::chipset::fw_cfg::FwCfg;
use crate::machine::{Cause, Machine};
use crate::memory::IoSpec;
use crate::pci::{BarKind, PciIds, PciProps, PciState};
use crate::qom::DeviceClass;
use crate::run::{PanicAction, RunState, ShutdownAction};
use crate::QResult;

const PANICKED: u8 = 1;
const CRASH_LOADED: u8 = 2;

/// Panic notifier on ISA.
#[derive(Device)]
#[class(name = "pvpanic", parent = "isa-device", bus = Isa, category = Misc, extra("pvpanic[0]", "child<memory-region>"))]
pub struct PvpanicProps {
    /// Its port
    #[prop(default = 0x505u16)]
    pub ioport: u16,
    /// Events that it announces: 1 panicked, 2 crash kernel loaded
    #[prop(default = PANICKED | CRASH_LOADED)]
    pub events: u8,
}

impl DeviceClass for PvpanicProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        cx.map_ports("pvpanic", self.ioport, 1, 0, IoSpec::BYTES);
        let port = self.ioport.to_le_bytes().to_vec();
        let fw_cfg = cx.m().tree.by_class("fw_cfg_io").map(|n| n.id);
        if let Some(dev) = fw_cfg {
            cx.m().with::<FwCfg, _>(dev, |f, _| f.add_file("etc/pvpanic-port", port)).unwrap_or(Ok(()))?;
        }
        Ok(Box::new(Pvpanic { events: self.events }))
    }
}

/// Panic notifier on PCI.
#[derive(Device)]
#[class(name = "pvpanic-pci", parent = "pci-device", bus = Pci, category = Misc, hotplug)]
pub struct PvpanicPciProps {
    /// Events that it announces: 1 panicked, 2 crash kernel loaded
    #[prop(default = PANICKED | CRASH_LOADED)]
    pub events: u8,
    /// PCI properties
    #[base]
    pub pci: PciProps,
}

impl DeviceClass for PvpanicPciProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let mut pci = PciState::new(PciIds {
            vendor: 0x1b36,
            device: 0x0011,
            revision: 1,
            class: 0x0880,
            ..PciIds::default()
        });
        let bar = cx.io_region("pvpanic", 2, 0, IoSpec::BYTES);
        pci.add_bar(0, bar, 2, BarKind::Mem32);
        cx.pci_attach(&mut pci, self.pci.addr.0, self.pci.multifunction)?;
        Ok(Box::new(PvpanicPci { core: Pvpanic { events: self.events }, pci }))
    }
}

/// Notifier at run time.
pub struct Pvpanic {
    events: u8,
}

/// Notifier on PCI at run time.
pub struct PvpanicPci {
    core: Pvpanic,
    pci: PciState,
}

impl Device for Pvpanic {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl Device for PvpanicPci {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(&mut self.core)
    }
    fn pci(&mut self) -> Option<&mut dyn PciFunction> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl PciFunction for PvpanicPci {
    fn state(&mut self) -> &mut PciState {
        &mut self.pci
    }
}

impl IoHandler for Pvpanic {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        u64::from(self.events)
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, value: u64) {
        let v = value as u8;
        if v & PANICKED != 0 {
            cx.m.guest_panicked();
        } else if v & CRASH_LOADED != 0 {
            cx.event("GUEST_CRASHLOADED", Some(serde_json::json!({"action": "run"})));
        }
    }
}

impl Machine {
    /// The guest panicked: says so and does what `-action panic=` asks for.
    pub fn guest_panicked(&mut self) {
        let actions = self.run.actions;
        let pause = actions.panic == PanicAction::Pause
            || (actions.panic == PanicAction::Shutdown && actions.shutdown == ShutdownAction::Pause);
        let action = match actions.panic {
            PanicAction::None => "run",
            _ if pause => "pause",
            _ => "poweroff",
        };
        self.emit("GUEST_PANICKED", Some(serde_json::json!({ "action": action })));
        if actions.panic == PanicAction::None {
            return;
        }
        self.run.request_stop(RunState::GuestPanicked);
        if !pause {
            if actions.panic == PanicAction::ExitFailure {
                self.run.exit_code = 1;
            }
            self.request_shutdown(Cause::GuestPanic);
        }
    }
}
