//! `isa-pcspk`: port 0x61 (system control port B): gate of the PIT's channel 2, its output, the speaker switch and
//! the refresh toggle.
//!
//! No sound is made. The refresh bit changes at every read, as in QEMU: software only waits for it to change.

use std::any::Any;

use rqemu_derive::Device as DeriveDevice;
use serde::{Deserialize, Serialize};

use super::Pit;
use crate::device::{Cx, DevId, Device, IoHandler, RealizeCx};
use crate::devices::legacy::part::save_field;
use crate::memory::IoSpec;
use crate::qom::{AudiodevRef, DeviceClass};
use crate::{qerr, QResult};

/// Properties of `isa-pcspk`.
#[derive(DeriveDevice, Debug)]
#[class(name = "isa-pcspk", parent = "isa-device", bus = Isa, category = Sound, internal,
    extra("pcspk[0]", "child<memory-region>"), extra("pit", "link<pit-common>"))]
pub struct PcspkProps {
    /// ID of an audiodev to use as a backend
    #[prop]
    pub audiodev: AudiodevRef,
    /// Port
    #[prop(default = 0x61u32)]
    pub iobase: u32,
    /// Save the state of the port
    #[prop(default = true)]
    pub migrate: bool,
}

impl DeviceClass for PcspkProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let base = u16::try_from(self.iobase).map_err(|_| qerr!("Invalid I/O base {:#x}", self.iobase))?;
        let pit = cx.m().tree.iter().find(|n| n.class.parent == Some("pit-common")).map(|n| n.id);
        let Some(pit) = pit else {
            return Err(qerr!("pcspk: No \"pit\" link property set"));
        };
        cx.map_ports("pcspk", base, 1, 0, IoSpec::BYTES);
        Ok(Box::new(Pcspk { s: PcspkState::default(), pit, migrate: self.migrate }))
    }
}

/// Saved state.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PcspkState {
    speaker: bool,
    refresh: bool,
}

/// Port 0x61.
pub struct Pcspk {
    s: PcspkState,
    pit: DevId,
    migrate: bool,
}

impl IoHandler for Pcspk {
    fn read(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        self.s.refresh = !self.s.refresh;
        let now = cx.now();
        // An in-kernel PIT answers this port itself; then nobody comes here.
        let pit = cx.m.with::<Pit, _>(self.pit, |p, _| (p.gate2(), p.output(2, now)));
        let (gate, out) = pit.unwrap_or_default();
        u64::from(gate)
            | u64::from(self.s.speaker) << 1
            | u64::from(self.s.refresh) << 4
            | u64::from(out) << 5
    }

    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, value: u64) {
        let now = cx.now();
        self.s.speaker = value & 2 != 0;
        cx.m.with::<Pit, _>(self.pit, |p, _| p.set_gate2(value & 1 != 0, now));
    }
}

impl Device for Pcspk {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn state(&mut self) -> Option<&mut dyn crate::state::SaveState> {
        if self.migrate {
            Some(self)
        } else {
            None
        }
    }
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

save_field!(Pcspk, "pcspk", 1, s, |_, _| {});
