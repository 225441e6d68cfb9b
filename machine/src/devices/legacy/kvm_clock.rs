//! `kvmclock`: keeps the clock of paravirtualized guests (`MSR_KVM_SYSTEM_TIME`) from running on while the machine is
//! stopped.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;

use super::part::save_field;
use crate::device::{Cx, Device, RealizeCx};
use crate::qom::DeviceClass;
use crate::state::SaveState;
use crate::QResult;

/// Properties of `kvmclock`.
#[derive(DeriveDevice, Debug)]
#[class(name = "kvmclock", parent = "sys-bus-device", bus = System, internal)]
pub struct KvmClockProps {
    /// The saved value is the kernel's own, not one worked out from the guest's memory
    #[prop(default = true)]
    pub x_mach_use_reliable_get_clock: bool,
}

impl DeviceClass for KvmClockProps {
    fn realize(&mut self, _cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        if !self.x_mach_use_reliable_get_clock {
            return Err(crate::qerr!("kvmclock.x-mach-use-reliable-get-clock=off is not supported"));
        }
        Ok(Box::new(KvmClock { clock: None }))
    }
}

/// The clock at run time.
struct KvmClock {
    /// Value in nanoseconds while the machine is stopped.
    clock: Option<u64>,
}

impl Device for KvmClock {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn run_state_changed(&mut self, cx: &mut Cx<'_>, running: bool) {
        if running {
            if let Some(ns) = self.clock.take() {
                cx.m.accel.set_guest_clock(ns);
            }
        } else {
            self.clock = cx.m.accel.guest_clock();
        }
    }
    fn state(&mut self) -> Option<&mut dyn SaveState> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(KvmClock, "kvmclock", 1, clock, |_, _| {});
