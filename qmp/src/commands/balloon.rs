//! The memory balloon.

use crate::monitors::MonitorCx;
use crate::qapi_struct;
use crate::types::Empty;
use rqemu_machine::{qerr, QResult};

qapi_struct! {
    /// Arguments of `balloon`.
    pub struct Balloon {
        /// Bytes that the guest shall keep.
        value: i64,
    }
    /// Reply of `query-balloon`, data of `BALLOON_CHANGE`.
    pub struct BalloonInfo {
        /// Bytes that the guest has.
        actual: i64,
    }
}

pub(crate) fn balloon(cx: &mut MonitorCx<'_, '_>, args: Balloon) -> QResult<()> {
    // Whether there is a balloon is the first question.
    cx.m.balloon_actual()?;
    match u64::try_from(args.value) {
        Ok(bytes) if bytes > 0 => cx.m.balloon_set(bytes),
        _ => Err(qerr!("Parameter 'target' expects a size")),
    }
}

pub(crate) fn query_balloon(cx: &mut MonitorCx<'_, '_>, _: Empty) -> QResult<BalloonInfo> {
    Ok(BalloonInfo { actual: i64::try_from(cx.m.balloon_actual()?).unwrap_or(i64::MAX) })
}
