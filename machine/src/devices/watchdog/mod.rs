//! Watchdogs, and what happens when one expires (`-action watchdog=`).

pub mod i6300esb;
pub mod ib700;

use crate::accel::MsiMessage;
use crate::cpu::CpuDevice;
use crate::machine::{Cause, Machine};
use crate::run::{RunState, WatchdogAction};

impl WatchdogAction {
    /// Name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Shutdown => "shutdown",
            Self::Poweroff => "poweroff",
            Self::Pause => "pause",
            Self::Debug => "debug",
            Self::None => "none",
            Self::InjectNmi => "inject-nmi",
        }
    }
}

impl Machine {
    /// A watchdog expired: tells the clients and does what the user chose.
    pub fn watchdog_expired(&mut self) {
        let action = self.run.actions.watchdog;
        self.emit("WATCHDOG", Some(serde_json::json!({ "action": action.as_str() })));
        match action {
            WatchdogAction::Reset => self.request_reset(Cause::GuestReset),
            WatchdogAction::Shutdown => {
                self.run.requests.powerdown = true;
                self.wake_loop();
            }
            WatchdogAction::Poweroff => self.run.request_exit(0),
            WatchdogAction::Pause => self.run.request_stop(RunState::Watchdog),
            WatchdogAction::Debug => eprintln!("watchdog: timer fired"),
            WatchdogAction::None => {}
            WatchdogAction::InjectNmi => self.broadcast_nmi(),
        }
    }

    /// Sends a non-maskable interrupt to every processor.
    fn broadcast_nmi(&mut self) {
        const NMI: u32 = 4 << 8;
        for id in self.info.cpus.clone() {
            let apic = self.with::<CpuDevice, _>(id, |c, _| c.apic_id);
            if let Some(apic) = apic.filter(|a| *a < 255) {
                self.accel.msi(MsiMessage { addr: 0xfee0_0000 | u64::from(apic) << 12, data: NMI });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::machine;

    #[test]
    fn each_action_does_what_it_says() {
        let fire = |action| {
            let mut m = machine();
            m.run.actions.watchdog = action;
            m.watchdog_expired();
            let e = m.events.pop_front().expect("an event");
            assert_eq!(e.data, Some(serde_json::json!({"action": action.as_str()})));
            let r = &m.run.requests;
            (r.reset.is_some(), r.powerdown, r.exit, r.stop)
        };
        assert_eq!(fire(WatchdogAction::Reset), (true, false, None, None));
        assert_eq!(fire(WatchdogAction::Shutdown), (false, true, None, None));
        assert_eq!(fire(WatchdogAction::Poweroff), (false, false, Some(0), None));
        assert_eq!(fire(WatchdogAction::Pause), (false, false, None, Some(RunState::Watchdog)));
        for quiet in [WatchdogAction::None, WatchdogAction::Debug, WatchdogAction::InjectNmi] {
            assert_eq!(fire(quiet), (false, false, None, None));
        }
    }
}
