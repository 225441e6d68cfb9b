//! Descriptors that clients hand over with SCM_RIGHTS.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::fdsets::{FdSetInfo, SetFd};
use rqemu_machine::{qerr, QResult};
use std::os::fd::{AsRawFd, OwnedFd};

qapi_struct! {
    /// Arguments of `getfd` and `closefd`.
    pub struct FdName {
        /// Name.
        fdname: String,
    }
    /// Arguments of `add-fd`.
    pub struct AddFd {
        /// Set; a new one if left out.
        fdset_id: Option<i64>,
        /// The client's note.
        opaque: Option<String>,
    }
    /// Reply of `add-fd`.
    pub struct AddfdInfo {
        /// Set.
        fdset_id: i64,
        /// Number of the descriptor in this process.
        fd: i64,
    }
    /// Arguments of `remove-fd`.
    pub struct RemoveFd {
        /// Set.
        fdset_id: i64,
        /// Descriptor; all if left out.
        fd: Option<i64>,
    }
    /// A descriptor of a set.
    pub struct FdsetFdInfo {
        /// Number.
        fd: i64,
        /// The client's note.
        opaque: Option<String>,
    }
    /// Element of `query-fdsets`.
    pub struct FdsetInfo {
        /// Set.
        fdset_id: i64,
        /// Its descriptors.
        fds: Vec<FdsetFdInfo>,
    }
}

/// The descriptor that came with the command.
fn received(cx: &mut MonitorCx<'_, '_>) -> QResult<OwnedFd> {
    let fd = cx.mon.chr.and_then(|chr| cx.m.chr_take_fd(chr));
    fd.ok_or_else(|| qerr!("No file descriptor supplied via SCM_RIGHTS"))
}

pub(crate) fn getfd(cx: &mut MonitorCx<'_, '_>, args: FdName) -> QResult<()> {
    let fd = received(cx)?;
    if args.fdname.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(qerr!("Parameter 'fdname' expects a name not starting with a digit"));
    }
    cx.fds.put(args.fdname, fd);
    Ok(())
}

pub(crate) fn closefd(cx: &mut MonitorCx<'_, '_>, args: FdName) -> QResult<()> {
    match cx.fds.take(&args.fdname) {
        Some(_) => Ok(()),
        None => Err(qerr!("File descriptor named '{}' not found", args.fdname)),
    }
}

pub(super) fn add_fd(cx: &mut MonitorCx<'_, '_>, args: AddFd) -> QResult<AddfdInfo> {
    let fd = received(cx)?;
    if args.fdset_id.is_some_and(|id| id < 0) {
        return Err(qerr!("Parameter 'fdset-id' expects a non-negative value"));
    }
    let number = fd.as_raw_fd().into();
    let fdset_id = cx.m.fdsets.add(args.fdset_id, SetFd { fd, opaque: args.opaque });
    Ok(AddfdInfo { fdset_id, fd: number })
}

pub(super) fn remove_fd(cx: &mut MonitorCx<'_, '_>, args: RemoveFd) -> QResult<()> {
    if cx.m.fdsets.remove(args.fdset_id, args.fd) {
        return Ok(());
    }
    let fd = args.fd.map_or(String::new(), |fd| format!(", fd:{fd}"));
    Err(qerr!("File descriptor named 'fdset-id:{}{fd}' not found", args.fdset_id))
}

pub(super) fn query_fdsets(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<Vec<FdsetInfo>> {
    let one = |(fd, opaque): (i32, Option<String>)| FdsetFdInfo { fd: fd.into(), opaque };
    // Highest number first, as QEMU lists them.
    let set = |s: FdSetInfo| FdsetInfo { fdset_id: s.id, fds: s.fds.into_iter().map(one).collect() };
    Ok(cx.m.fdsets.info().into_iter().rev().map(set).collect())
}
