//! `blockdev-create`: making an image on a node, as a job.

use super::{Finish, Job, JobOpts};
use crate::error::Result;
use crate::graph::BlockGraph;
use serde_json::Value;

struct Nothing;

impl Finish for Nothing {
    fn commit(&mut self, _graph: &BlockGraph, _job: &Job) -> Result<()> {
        Ok(())
    }
    fn clean(&mut self, _graph: &BlockGraph, _ok: bool) {}
}

impl BlockGraph {
    /// `blockdev-create`: `options` is the QAPI dictionary `BlockdevCreateOptions`.
    pub fn blockdev_create(&self, id: &str, options: Value) -> Result<()> {
        self.check_job_id(id)?;
        let plan = self.plan_create(options)?;
        let job = JobOpts { id: id.into(), speed: 0, auto_finalize: true, auto_dismiss: false };
        self.start_job(&job, "create", Vec::new(), 1, Box::new(Nothing), move |job| {
            let r = plan();
            job.checkpoint(1)?;
            Ok(r)
        })
    }
}
