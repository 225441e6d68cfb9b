//! Network cards that are not virtio.

pub mod e1000;
mod microwire;
pub mod ne2000;
pub mod rtl8139;

use crate::device::RealizeCx;
use crate::net::{NetId, NicArgs, Offloads};
use crate::pci::{load_rom, PciProps, PciState};
use crate::qom::{MacAddr, NetdevRef};
use crate::{qerr, QResult};

/// Connects a card with one queue to its back end; an all-zero `mac` gets the next default address.
///
/// # Errors
/// There is no such back end, or another card has it.
pub(crate) fn connect(
    cx: &mut RealizeCx<'_>,
    model: &'static str,
    netdev: &NetdevRef,
    mac: &mut MacAddr,
) -> QResult<NetId> {
    let dev = cx.id();
    let m = cx.m();
    let id = m.tree.get(dev).and_then(|n| n.user_id()).map(str::to_string);
    let args = NicArgs { dev, owner: model, model, id: id.as_deref(), netdev };
    let nic = m.net_new_nic(&args, mac)?.first().copied().ok_or_else(|| qerr!("no queue"))?;
    // A tap may have served a virtio card before.
    m.net_set_header(nic, None, Offloads::default());
    m.net_use_queue(nic, true);
    Ok(nic)
}

/// Loads a card's boot ROM; a card works without its ROM where that is not installed.
///
/// # Errors
/// As [`load_rom`] for a ROM that the user named.
pub(crate) fn boot_rom(
    cx: &mut RealizeCx<'_>,
    pci: &mut PciState,
    props: &mut PciProps,
    model: &'static str,
    file: &'static str,
) -> QResult<()> {
    let file = if cx.m().find_firmware(file).is_some() { file } else { "" };
    load_rom(cx, pci, props, model, file)
}
