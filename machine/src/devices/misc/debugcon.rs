//! Debug console of Bochs and SeaBIOS: one port; bytes written go to a character device.

use rqemu_derive::Device;

use crate::chardev::{CharFrontend, CharId};
use crate::device::{Cx, Device, IoHandler, RealizeCx};
use crate::memory::{IoSpec, Space};
use crate::qom::{ChardevRef, DeviceClass};
use crate::{qerr, QResult};

/// Debug console.
#[derive(Device)]
#[class(name = "isa-debugcon", parent = "isa-device", bus = Isa, category = Misc)]
pub struct DebugconProps {
    /// Its port
    #[prop(default = 0xe9u32)]
    pub iobase: u32,
    /// Character device that gets the output
    #[prop]
    pub chardev: ChardevRef,
    /// Value that the port reads as, by which guests find it
    #[prop(default = 0xe9u32)]
    pub readback: u32,
}

impl DeviceClass for DebugconProps {
    fn realize(&mut self, cx: &mut RealizeCx<'_>) -> QResult<Box<dyn Device>> {
        let Some(chr) = cx.connect_chardev("isa-debugcon", "chardev", &self.chardev, 0)? else {
            return Err(qerr!("Can't create debugcon device, empty char device"));
        };
        // Ports beyond 64 Ki are accepted and never reached.
        let r = cx.io_region("isa-debugcon", 1, 0, IoSpec::BYTE);
        cx.map(Space::Io, r, u64::from(self.iobase), 0);
        Ok(Box::new(Debugcon { chr, readback: self.readback }))
    }
}

/// The console at run time.
pub struct Debugcon {
    chr: CharId,
    readback: u32,
}

impl Device for Debugcon {
    fn reset(&mut self, _cx: &mut Cx<'_>) {}
    fn io(&mut self) -> Option<&mut dyn IoHandler> {
        Some(self)
    }
    fn chardev(&mut self) -> Option<&mut dyn CharFrontend> {
        Some(self)
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

impl CharFrontend for Debugcon {
    fn can_receive(&mut self, _port: u32) -> usize {
        0
    }
    fn receive(&mut self, _cx: &mut Cx<'_>, _port: u32, _data: &[u8]) {}
}

impl IoHandler for Debugcon {
    fn read(&mut self, _cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8) -> u64 {
        u64::from(self.readback)
    }
    fn write(&mut self, cx: &mut Cx<'_>, _region: u32, _offset: u64, _size: u8, value: u64) {
        // A back end that takes nothing loses the byte: the guest has no way to wait on this port.
        cx.chr_write(self.chr, &[value as u8]);
    }
}
