//! Character devices.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::{qerr, QResult};

qapi_struct! {
    /// Element of `query-chardev`.
    pub struct ChardevInfo {
        /// Id.
        label: String,
        /// Description.
        filename: String,
        /// The front end is open.
        frontend_open: bool,
    }
    /// Arguments of `chardev-remove` and `chardev-send-break`.
    pub struct ChardevId {
        /// Id.
        id: String,
    }
}

pub(crate) fn query_chardev(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<ChardevInfo>> {
    let info = cx.m.chardevs.info().into_iter();
    let one = |c: rqemu_machine::chardev::CharInfo| ChardevInfo {
        label: c.label,
        filename: c.filename,
        frontend_open: c.frontend_open,
    };
    Ok(info.map(one).collect())
}

pub(crate) fn chardev_remove(cx: &mut MonitorCx<'_, '_>, args: ChardevId) -> QResult<()> {
    cx.m.remove_chardev(&args.id)
}

pub(crate) fn chardev_send_break(cx: &mut MonitorCx<'_, '_>, args: ChardevId) -> QResult<()> {
    let id = cx.m.chardevs.find(&args.id).ok_or_else(|| qerr!("Chardev '{}' not found", args.id))?;
    cx.m.chr_send_break(id);
    Ok(())
}
