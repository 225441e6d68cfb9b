//! `iothread`: a thread that serves queues of devices.

use std::any::Any;
use std::sync::Arc;

use rqemu_derive::Device;

use super::props::Int64;
use super::UserObject;
use crate::devices::virtio::iothread::IoThread;
use crate::machine::Machine;
use crate::qom::PropInput;
use crate::{qerr, QResult};

/// Properties and thread.
#[derive(Device)]
pub struct IothreadObject {
    /// The thread, once it runs.
    thread: Option<Arc<IoThread>>,
    #[prop(name = "aio-max-batch")]
    aio_max_batch: Int64,
    #[prop(name = "poll-grow")]
    poll_grow: Int64,
    #[prop(name = "poll-max-ns", default = 32768i64)]
    poll_max_ns: Int64,
    #[prop(name = "poll-shrink")]
    poll_shrink: Int64,
    #[prop(name = "thread-pool-max", default = 64i64)]
    thread_pool_max: Int64,
    #[prop(name = "thread-pool-min")]
    thread_pool_min: Int64,
}

/// What `query-iothreads` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IothreadInfo {
    /// Id.
    pub id: String,
    /// Thread id of the host.
    pub thread_id: i32,
    /// Longest time to look for work before sleeping, in nanoseconds; 0: none.
    pub poll_max_ns: i64,
    /// Factor by which that time grows; 0: the default.
    pub poll_grow: i64,
    /// Divisor by which it shrinks; 0: back to nothing.
    pub poll_shrink: i64,
    /// Most requests submitted to the kernel at once; 0: the default.
    pub aio_max_batch: i64,
}

impl IothreadObject {
    fn check(&self) -> QResult<()> {
        let range = [
            ("poll-max-ns", self.poll_max_ns),
            ("poll-grow", self.poll_grow),
            ("poll-shrink", self.poll_shrink),
            ("aio-max-batch", self.aio_max_batch),
        ];
        for (name, v) in range {
            if v.0 < 0 {
                return Err(qerr!("{name} value must be in range [0, {}]", i64::MAX));
            }
        }
        let pool = [("thread-pool-min", self.thread_pool_min), ("thread-pool-max", self.thread_pool_max)];
        for (name, v) in pool {
            if v.0 < 0 {
                return Err(qerr!("{name} value must be in range [0, {}]", i64::MAX));
            }
        }
        if self.thread_pool_min.0 > self.thread_pool_max.0 || self.thread_pool_max.0 == 0 {
            return Err(qerr!("bad thread-pool-min/thread-pool-max values"));
        }
        // Requests go to the kernel in rounds, without a pool of threads; the time to look adapts by itself.
        let fixed = [
            ("poll-grow", self.poll_grow, 0),
            ("poll-shrink", self.poll_shrink, 0),
            ("aio-max-batch", self.aio_max_batch, 0),
            ("thread-pool-min", self.thread_pool_min, 0),
            ("thread-pool-max", self.thread_pool_max, 64),
        ];
        if let Some((name, _, only)) = fixed.iter().find(|(_, v, only)| v.0 != *only) {
            return Err(qerr!("iothread property '{name}' only supports the value {only}"));
        }
        Ok(())
    }
}

impl UserObject for IothreadObject {
    fn complete(&mut self, m: &mut Machine, id: &str) -> QResult<()> {
        self.check()?;
        let t = m.iothreads.add(id, self.poll_max_ns.0 as u64);
        self.thread = Some(t.map_err(|e| qerr!("cannot start thread: {}", crate::error::strerror(&e)))?);
        Ok(())
    }

    fn change(&mut self, ty: &str, name: &str, input: &PropInput<'_>) -> QResult<bool> {
        use crate::qom::PropAccess;
        let Some(old) = self.get_prop(name) else { return Ok(false) };
        self.set_prop(ty, name, input)?;
        if let Err(e) = self.check() {
            self.set_prop(ty, name, &PropInput::Json(&old.value))?;
            return Err(e);
        }
        if name == "poll-max-ns" {
            if let Some(t) = &self.thread {
                t.set_look_ns(self.poll_max_ns.0 as u64);
            }
        }
        Ok(true)
    }

    fn removed(&mut self, m: &mut Machine, id: &str) {
        self.thread = None;
        m.iothreads.remove(id);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl Machine {
    /// `query-iothreads`, in order of creation.
    pub fn iothread_info(&mut self) -> Vec<IothreadInfo> {
        let ids: Vec<String> =
            self.objects.iter().filter(|n| n.ty.name == "iothread").map(|n| n.id.clone()).collect();
        let one = |id: String| {
            self.objects.with::<IothreadObject, _>(&id.clone(), |o| IothreadInfo {
                id,
                thread_id: o.thread.as_ref().map_or(-1, |t| t.thread_id()),
                poll_max_ns: o.poll_max_ns.0,
                poll_grow: o.poll_grow.0,
                poll_shrink: o.poll_shrink.0,
                aio_max_batch: o.aio_max_batch.0,
            })
        };
        ids.into_iter().filter_map(one).collect()
    }
}
