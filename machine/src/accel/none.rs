//! No processor at all: devices driven over the qtest protocol, and `-machine none`.

use super::Accel;

/// An accelerator without CPUs.
pub struct NoCpu;

impl Accel for NoCpu {
    fn name(&self) -> &'static str {
        "qtest"
    }
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
