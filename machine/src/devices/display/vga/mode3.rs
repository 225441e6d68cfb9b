//! Text mode for guests that start without firmware.

use super::VgaCore;
use crate::device::Cx;

impl VgaCore {
    /// Programs the 80x25 colour text mode.
    pub fn firmware_text_mode(&mut self, cx: &mut Cx<'_>) {
        self.update_window(cx);
    }
}
