//! Input of a multiplexer: escapes, focus, and what waits for a front end.

use super::mux::Key;
use super::{CharEvent, CharId};
use crate::machine::Machine;

impl Machine {
    pub(super) fn chr_mux_event(&mut self, id: CharId, index: usize, ev: CharEvent) {
        let f = self.chardevs.mux(id).and_then(|m| m.frontends.get(index).map(|f| f.0));
        if let Some(f) = f {
            self.chr_event_to(f, ev);
        }
    }

    pub(super) fn chr_mux_key(&mut self, id: CharId, b: u8) {
        let Some(m) = self.chardevs.mux(id) else { return };
        let (focus, base) = (m.focus, m.base);
        match m.key(b) {
            Key::Nothing => {}
            Key::Data(b) => {
                m.keep(focus, b);
                self.chr_mux_flush(id);
            }
            Key::Help => {
                let help = m.help();
                self.chr_write(base, help.as_bytes());
            }
            Key::Quit => {
                self.chr_write(base, b"QEMU: Terminated\n\r");
                self.run.requests.exit.get_or_insert(0);
                self.wake_loop();
            }
            Key::Commit => self.block_commit_all(),
            Key::Break => self.chr_mux_event(id, focus, CharEvent::Break),
            Key::Timestamps => m.timestamps = !m.timestamps,
            Key::Next => {
                let n = m.frontends.len().max(1);
                m.focus = (focus + 1) % n;
                let next = m.focus;
                self.chr_mux_event(id, focus, CharEvent::MuxOut);
                self.chr_mux_event(id, next, CharEvent::MuxIn);
                self.chr_mux_flush(id);
            }
        }
    }

    /// Gives the focused front end what its buffer holds.
    pub(super) fn chr_mux_flush(&mut self, id: CharId) {
        loop {
            let Some(m) = self.chardevs.mux(id) else { return };
            let Some((f, q)) = m.frontends.get(m.focus) else { return };
            if q.is_empty() {
                return;
            }
            let f = *f;
            if self.chr_can_receive(f) == 0 {
                return;
            }
            let Some(m) = self.chardevs.mux(id) else { return };
            let focus = m.focus;
            let Some(b) = m.frontends.get_mut(focus).and_then(|(_, q)| q.pop_front()) else { return };
            self.chr_deliver(f, &[b]);
        }
    }
}
