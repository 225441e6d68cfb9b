//! Block layer of rqemu: image formats, host files, I/O engines, and the graph of nodes on which drives stand.
//!
//! A device model holds a [`BlockBackend`]. It submits requests that carry guest memory as raw segments; whatever the
//! page cache can serve is done on the calling thread, and everything else completes through a [`CompletionSink`] from
//! a worker thread.
//!
//! ```
//! use rqemu_block::*;
//! use std::sync::{mpsc, Arc};
//!
//! # let dir = tempfile::tempdir().unwrap();
//! # let path = dir.path().join("d.img");
//! # std::fs::write(&path, vec![7u8; 8192]).unwrap();
//! let graph = BlockGraph::new();
//! let drive = graph.open_drive(&DriveOpts {
//!     id: "d0".into(),
//!     options: vec![
//!         ("file".into(), path.to_str().unwrap().into()),
//!         ("format".into(), "raw".into()),
//!         ("cache".into(), "writeback".into()),
//!     ],
//!     ..Default::default()
//! })?;
//! let disk = drive.backend;
//! // A disk device takes permissions (and the image locks that go with them).
//! disk.attach("virtio0", Attach { resizable: true, ..Default::default() })?;
//!
//! struct Sink(mpsc::Sender<(u64, IoResult)>);
//! impl CompletionSink for Sink {
//!     fn complete(&self, tag: u64, result: IoResult) {
//!         let _ = self.0.send((tag, result)); // and wake the device's thread
//!     }
//! }
//! let (tx, rx) = mpsc::channel();
//! let sink: Arc<dyn CompletionSink> = Arc::new(Sink(tx));
//! let mut guest = vec![0u8; 4096];
//! // SAFETY: `guest` is not touched until the request has completed.
//! let iov = [unsafe { Seg::new(guest.as_mut_ptr(), guest.len()) }];
//! let req = Request { op: Op::Read, offset: 4096, len: 4096, iov: &iov, tag: 1 };
//! let result = match disk.submit(req, &sink) {
//!     Submitted::Done(r) => r,
//!     Submitted::Pending => rx.recv().unwrap().1,
//! };
//! assert!(result.is_ok() && guest[0] == 7);
//!
//! // Simple devices and firmware code just wait.
//! disk.write_at(0, &[1u8; 512]).unwrap();
//! disk.flush().unwrap();
//! graph.shutdown();
//! # Ok::<(), BlockError>(())
//! ```
//!
//! Removable media: [`BlockGraph::anonymous_backend`] or a `-drive` without a file is an empty drive;
//! [`BlockBackend::eject`] and [`BlockBackend::insert`] change the medium. The tray is the device's business.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]
#![warn(missing_docs)]

mod backend;
mod bitmap;
mod create;
mod driver;
mod error;
mod formats;
mod graph;
mod hooks;
mod iov;
mod jobs;
mod nbd;
mod node;
mod null;
mod pool;
mod posix;
mod qcow2;
mod raw;
mod request;
mod stats;
mod throttle;
mod tool;

pub use backend::{Attach, BackendOpts, BlockBackend, ErrorAction, OnError};
pub use bitmap::{BitmapFacts, DirtyBitmap};
pub use create::{BackingRef, ImagePlan};
pub use driver::Driver as ImageFormat;
pub use driver::{
    perm, CheckReport, DataGuard, Driver, GuardRef, ImageFacts, Inline, Op, Repair, SnapshotInfo, Snapshots,
    Status,
};
pub use error::{BlockError, Errno, IoResult, Result};
pub use graph::{
    backing_path, parse_size, query, text, BlockGraph, DriveOpts, OpenedDrive, SnapshotSync, Target, Undo,
};
pub use iov::{Iov, Seg};
pub use jobs::{BackupOpts, CommitOpts, JobEvent, JobOpts, MirrorOpts, MirrorSync, StreamOpts, Verb};
pub use nbd::{ExportInfo, ExportOpts, NbdAddr};
pub use node::{CacheMode, DetectZeroes, Edge, Node, NodeInfo};
pub use posix::FdOpener;
pub use request::{Completion, CompletionSink, Request, Submitted};
pub use stats::{Counter, Stats};
pub use throttle::{Limit, Limits, Throttle};
pub use tool::{Image, ImageOpts, MapEntry};
