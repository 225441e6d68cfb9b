//! Character devices.

use super::chardev_args::{spec_of, ChardevArguments};
use crate::monitors::MonitorCx;
use crate::types::{Checked, Empty};
use crate::{qapi_enum, qapi_struct};
use rqemu_machine::chardev::{BackendInfo, CharId};
use rqemu_machine::spec::{ChardevBackend, ChardevSpec, SocketAddress};
use rqemu_machine::{qerr, QResult};
use std::os::fd::IntoRawFd;

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
    /// Element of `query-chardev-backends`.
    pub struct ChardevBackendInfo {
        /// Name.
        name: String,
    }
    /// Arguments of `chardev-remove` and `chardev-send-break`.
    pub struct ChardevId {
        /// Id.
        id: String,
    }
    /// Reply of `chardev-add` and `chardev-change`.
    pub struct ChardevReturn {
        /// Path of a pseudo-terminal.
        pty: Option<String>,
    }
    /// Data of `VSERPORT_CHANGE`.
    pub struct VserportChange {
        /// Port.
        id: String,
        /// The guest has it open.
        open: bool,
    }
    /// Arguments of `ringbuf-write`.
    pub struct RingbufWrite {
        /// Id.
        device: String,
        /// What to write.
        data: String,
        /// How it is written down.
        format: Option<DataFormat>,
    }
    /// Arguments of `ringbuf-read`.
    pub struct RingbufRead {
        /// Id.
        device: String,
        /// Most bytes.
        size: i64,
        /// How to write them down.
        format: Option<DataFormat>,
    }
}

qapi_enum! {
    /// How bytes are written as text.
    pub enum DataFormat {
        Utf8 = "utf8",
        Base64 = "base64",
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

pub(super) fn query_chardev_backends(
    _: &mut MonitorCx<'_, '_>,
    _: Empty,
) -> QResult<Vec<ChardevBackendInfo>> {
    Ok(BackendInfo::ALL.iter().map(|b| ChardevBackendInfo { name: b.name.into() }).collect())
}

/// Turns a descriptor's name (`getfd`) into its number.
fn resolve_fd(cx: &mut MonitorCx<'_, '_>, spec: &mut ChardevSpec) -> QResult<()> {
    let ChardevBackend::Socket(s) = &mut spec.backend else { return Ok(()) };
    let SocketAddress::Fd { str } = &mut s.addr else { return Ok(()) };
    if !str.starts_with(|c: char| c.is_ascii_digit()) {
        let fd = cx.fds.take(str);
        let fd = fd.ok_or_else(|| qerr!("File descriptor named '{str}' has not been found"))?;
        *str = fd.into_raw_fd().to_string();
    }
    Ok(())
}

fn created(cx: &mut MonitorCx<'_, '_>, id: CharId) -> ChardevReturn {
    ChardevReturn { pty: cx.m.chardevs.pty_path(id) }
}

/// Creates a character device from either monitor.
pub(crate) fn add(cx: &mut MonitorCx<'_, '_>, mut spec: ChardevSpec) -> QResult<ChardevReturn> {
    if cx.m.chardevs.find(&spec.id).is_some() {
        return Err(qerr!("Chardev with id '{}' already exists", spec.id));
    }
    let made = resolve_fd(cx, &mut spec).and_then(|()| cx.m.add_chardev(&spec, &mut |_| {}));
    let id = made.map_err(|e| qerr!("Failed to add chardev '{}': {}", spec.id, e.desc))?;
    Ok(created(cx, id))
}

pub(super) fn chardev_add(
    cx: &mut MonitorCx<'_, '_>,
    args: Checked<ChardevArguments>,
) -> QResult<ChardevReturn> {
    let spec = spec_of(&args.dict)?;
    add(cx, spec)
}

/// Puts another back end behind a character device, from either monitor.
pub(crate) fn change(cx: &mut MonitorCx<'_, '_>, mut spec: ChardevSpec) -> QResult<ChardevReturn> {
    resolve_fd(cx, &mut spec)?;
    let id = cx.m.change_chardev(&spec, &mut |_| {})?;
    Ok(created(cx, id))
}

pub(super) fn chardev_change(
    cx: &mut MonitorCx<'_, '_>,
    args: Checked<ChardevArguments>,
) -> QResult<ChardevReturn> {
    let spec = spec_of(&args.dict)?;
    change(cx, spec)
}

pub(crate) fn chardev_remove(cx: &mut MonitorCx<'_, '_>, args: ChardevId) -> QResult<()> {
    cx.m.remove_chardev(&args.id)
}

pub(crate) fn chardev_send_break(cx: &mut MonitorCx<'_, '_>, args: ChardevId) -> QResult<()> {
    let id = cx.m.chardevs.find(&args.id).ok_or_else(|| qerr!("Chardev '{}' not found", args.id))?;
    cx.m.chr_send_break(id);
    Ok(())
}

fn ringbuf(cx: &MonitorCx<'_, '_>, name: &str) -> QResult<CharId> {
    let id = cx.m.chardevs.find(name).ok_or_else(|| qerr!("Device '{name}' not found"))?;
    match cx.m.chardevs.class(id).as_deref() {
        Some("chardev-ringbuf") => Ok(id),
        _ => Err(qerr!("{name} is not a ringbuf device")),
    }
}

pub(crate) fn ringbuf_write(cx: &mut MonitorCx<'_, '_>, args: RingbufWrite) -> QResult<()> {
    let id = ringbuf(cx, &args.device)?;
    let data = match args.format {
        Some(DataFormat::Base64) => super::base64::decode(&args.data)
            .ok_or_else(|| qerr!("Base64 data contains invalid characters"))?,
        _ => args.data.into_bytes(),
    };
    cx.m.chardevs.ringbuf_put(id, &data);
    Ok(())
}

pub(crate) fn ringbuf_read(cx: &mut MonitorCx<'_, '_>, args: RingbufRead) -> QResult<String> {
    let id = ringbuf(cx, &args.device)?;
    let size = usize::try_from(args.size).ok().filter(|n| *n > 0);
    let size = size.ok_or_else(|| qerr!("size must be greater than zero"))?;
    let data = cx.m.chardevs.ringbuf_take(id, size).unwrap_or_default();
    if args.format == Some(DataFormat::Base64) {
        return Ok(super::base64::encode(&data));
    }
    // As a C string: it ends at the first zero byte.
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    Ok(String::from_utf8_lossy(&data[..end]).into_owned())
}
