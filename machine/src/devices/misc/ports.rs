//! Ports that a PC answers without doing anything: the POST code port and the coprocessor reset port.

use crate::machine::Machine;
use crate::memory::{IoSpec, Owner, RegionKind};

/// Maps `ioport80` and `ioportF0`; both read as ones and ignore writes.
pub fn create(m: &mut Machine) {
    let io = m.mem.io;
    for (name, port) in [("ioport80", 0x80), ("ioportF0", 0xf0)] {
        let kind = RegionKind::Io { owner: Owner::Nobody, spec: IoSpec::BYTES };
        let r = m.mem.add(name, 1, kind, None);
        m.mem.map(io, r, port, 0);
    }
}
