//! Differential test against `qcow2-rs`, inside the bounds in which that crate is sound: version 3, clusters of 4 KiB
//! and more, no snapshots, no encryption, no compressed clusters, no backing image, one thread, and host I/O that
//! fills reads behind the end of the file with zeroes.

mod common;
use common::*;
use qcow2_rs::dev::{Qcow2Dev, Qcow2DevParams};
use qcow2_rs::error::Qcow2Result;
use qcow2_rs::helpers::Qcow2IoBuf;
use qcow2_rs::ops::{Qcow2IoOps, Qcow2OpsFlags};
use rqemu_block::*;
use std::fs::File;
use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::task::{Context, Poll, Waker};

struct Io(File);

impl Qcow2IoOps for Io {
    async fn read_to(&self, offset: u64, buf: &mut [u8]) -> Qcow2Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.0.read_at(&mut buf[done..], offset + done as u64)? {
                0 => break,
                n => done += n,
            }
        }
        buf[done..].fill(0);
        Ok(buf.len())
    }
    async fn write_from(&self, offset: u64, buf: &[u8]) -> Qcow2Result<()> {
        Ok(self.0.write_all_at(buf, offset)?)
    }
    async fn fallocate(&self, offset: u64, len: usize, flags: u32) -> Qcow2Result<()> {
        let mode = if flags & Qcow2OpsFlags::FALLOCATE_ZERO_RAGE != 0 {
            libc::FALLOC_FL_ZERO_RANGE
        } else {
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE
        };
        // SAFETY: plain system call on our descriptor.
        match unsafe { libc::fallocate(self.0.as_raw_fd(), mode, offset as i64, len as i64) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }
    async fn fsync(&self, _offset: u64, _len: usize, _flags: u32) -> Qcow2Result<()> {
        Ok(self.0.sync_data()?)
    }
}

/// All I/O above is synchronous and there is one task, so that nothing ever has to be woken.
fn block_on<F: Future>(f: F) -> F::Output {
    let mut f = std::pin::pin!(f);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..1000 {
        if let Poll::Ready(v) = f.as_mut().poll(&mut cx) {
            return v;
        }
    }
    panic!("qcow2-rs waits for something that nobody does");
}

fn open(path: &Path) -> Qcow2Dev<Io> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let params = Qcow2DevParams::new(9, None, None, false, false);
    let (dev, backing) = block_on(qcow2_rs::utils::qcow2_alloc_dev(path, Io(file), &params)).unwrap();
    assert!(backing.is_none());
    block_on(dev.qcow2_prep_io()).unwrap();
    dev
}

#[test]
fn both_engines_agree() {
    if !have_tools() {
        return;
    }
    for opt in ["cluster_size=64k", "cluster_size=4k,refcount_bits=1", "cluster_size=1M", "refcount_bits=64"]
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.qcow2");
        let size = 8u64 << 20;
        img(&["create", "-q", "-f", "qcow2", "-o", opt, s(&path), &size.to_string()]);
        let mut shadow = vec![0u8; size as usize];
        let mut rng = Rng(opt.len() as u64 * 31 + 7);
        for round in 0..4 {
            // They write, we read.
            let dev = open(&path);
            for _ in 0..20 {
                let len = 512 * (1 + rng.below(200));
                let off = rng.below((size - len) / 512) * 512;
                let mut buf = Qcow2IoBuf::<u8>::new(len as usize);
                buf.iter_mut().for_each(|x| *x = rng.next() as u8);
                block_on(dev.write_at(&buf, off)).unwrap();
                shadow[off as usize..(off + len) as usize].copy_from_slice(&buf);
            }
            block_on(dev.flush_meta()).unwrap();
            drop(dev);
            check(&path);
            // We read and write.
            let graph = BlockGraph::new();
            let b = drive(&graph, "d", &path, &[("format", "qcow2"), ("discard", "unmap")]).unwrap();
            let mut all = vec![0; size as usize];
            b.read_at(0, &mut all).unwrap();
            assert!(all == shadow, "{opt} round {round}: their writes, our reads");
            for i in 0..20 {
                let len = 1 + rng.below(100_000);
                let off = rng.below(size - len);
                let range = off as usize..(off + len) as usize;
                if i % 5 == 4 {
                    b.write_zeroes(off, len, true).unwrap();
                    shadow[range].fill(0);
                } else {
                    shadow[range.clone()].iter_mut().for_each(|x| *x = rng.next() as u8);
                    b.write_at(off, &shadow[range]).unwrap();
                }
            }
            drop(b);
            graph.shutdown();
            drop(graph);
            check(&path);
            // They read.
            let dev = open(&path);
            let mut buf = Qcow2IoBuf::<u8>::new(64 << 10);
            for off in (0..size).step_by(64 << 10) {
                block_on(dev.read_at(&mut buf, off)).unwrap();
                assert!(
                    buf[..] == shadow[off as usize..off as usize + buf.len()],
                    "{opt}: our writes, their reads at {off}"
                );
            }
        }
    }
}
