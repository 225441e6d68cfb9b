//! Images for tools (`rqemu-img`): opened by name, used with blocking calls, without a device.

use crate::driver::{perm, CheckReport, Repair, Status};
use crate::error::{BlockError, Errno, IoResult, Result};
use crate::graph::BlockGraph;
use crate::iov;
use crate::jobs::{self, Holds};
use crate::node::{Edge, Node};
use crate::Op;
use serde_json::{Map, Value};
use std::sync::Arc;

/// How a tool wants an image.
#[derive(Clone, Debug, Default)]
pub struct ImageOpts {
    /// Format; guessed if left out.
    pub format: Option<String>,
    /// Open for writing.
    pub write: bool,
    /// Leave the backing image alone.
    pub no_backing: bool,
    /// Others may change the image meanwhile (`-U`).
    pub force_share: bool,
    /// `none`, `writeback`, `unsafe` …
    pub cache: Option<String>,
    /// Further options by their `-drive` names.
    pub options: Vec<(String, String)>,
}

/// An open image.
pub struct Image {
    node: Arc<Node>,
    _edge: Edge,
}

impl BlockGraph {
    /// Opens an image for a tool.
    pub fn open_tool(&self, name: &str, o: &ImageOpts) -> Result<Image> {
        let mut m = Map::new();
        m.insert("read-only".into(), (!o.write).into());
        if o.force_share {
            m.insert("force-share".into(), true.into());
        }
        let (direct, no_flush) = match o.cache.as_deref() {
            None | Some("writeback" | "writethrough") => (false, false),
            Some("none" | "off") => (true, false),
            Some("directsync") => (true, false),
            Some("unsafe") => (false, true),
            Some(c) => return Err(BlockError::text(format!("Invalid cache option: {c}"))),
        };
        m.insert("cache.direct".into(), direct.into());
        m.insert("cache.no-flush".into(), no_flush.into());
        m.insert("discard".into(), "unmap".into());
        for (k, v) in &o.options {
            m.insert(k.clone(), v.as_str().into());
        }
        let node = self.open_tool_node(name, o, m)?;
        let want = if o.write { perm::READ | perm::WRITE | perm::RESIZE } else { perm::READ };
        let shared = if o.write {
            perm::READ | perm::WRITE_UNCHANGED
        } else {
            perm::ALL & !(perm::WRITE | perm::RESIZE)
        };
        let edge = Edge::new(&node, "the tool", "root", want, shared)?;
        Ok(Image { node, _edge: edge })
    }

    fn open_tool_node(&self, name: &str, o: &ImageOpts, mut m: Map<String, Value>) -> Result<Arc<Node>> {
        use crate::graph::Inherit;
        if o.no_backing {
            let (format, _) = match &o.format {
                Some(f) => (f.clone(), ()),
                None => (self.probe_name(name, o.force_share)?, ()),
            };
            if format == "qcow2" {
                m.insert("backing".into(), "".into());
            }
            return self.open_image(name, Some(&format), m, &Inherit::default());
        }
        let node = self.open_image(name, o.format.as_deref(), m, &Inherit::default());
        // A tool knows what it does; only machines warn about guessed formats.
        self.take_warnings();
        node
    }

    /// The format that an image seems to have.
    pub fn probe_format(&self, name: &str) -> Result<String> {
        self.probe_name(name, true)
    }

    fn probe_name(&self, name: &str, force_share: bool) -> Result<String> {
        let o = ImageOpts { format: Some("raw".into()), force_share, ..ImageOpts::default() };
        let raw = self.open_tool(name, &o)?;
        let mut head = vec![0u8; (raw.len().min(crate::graph::probe::PROBE_BYTES as u64)) as usize];
        raw.read(0, &mut head)
            .map_err(|e| BlockError::io("Could not read image for determining its format", e))?;
        Ok(crate::graph::probe::guess(&head, name).to_owned())
    }
}

/// A piece of an image as `map` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct MapEntry {
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// Images above the one that decides.
    pub depth: u64,
    /// Some image of the chain decides.
    pub present: bool,
    /// Reads as zeroes.
    pub zero: bool,
    /// Bytes are stored.
    pub data: bool,
    /// Where, in the file below.
    pub offset: Option<u64>,
    /// File that holds them.
    pub filename: String,
}

impl Image {
    /// The node, for queries.
    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.node.len()
    }

    /// True if there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Format.
    pub fn format(&self) -> &'static str {
        self.node.driver().name()
    }

    /// Reads; behind the end there are zeroes.
    pub fn read(&self, off: u64, buf: &mut [u8]) -> IoResult {
        self.node.read_padded(off, &[iov::own(buf)])
    }

    /// Writes.
    pub fn write(&self, off: u64, buf: &[u8]) -> IoResult {
        self.run(Op::Write { fua: false }, off, buf.len() as u64, &[iov::own_ro(buf)])
    }

    fn run(&self, op: Op, off: u64, len: u64, iov: iov::Iov<'_>) -> IoResult {
        let op = self.node.admit(op, off, len, iov)?;
        self.node.run(op, off, len, iov)
    }

    /// Writes a cluster compressed.
    pub fn write_compressed(&self, off: u64, buf: &[u8]) -> IoResult {
        self.node.driver().write_compressed(off, buf)
    }

    /// Compresses a cluster as [`Self::write_packed`] takes it; `None` if that does not help.
    pub fn pack(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.node.driver().pack(plain)
    }

    /// Writes a cluster that was compressed before.
    pub fn write_packed(&self, off: u64, packed: &[u8]) -> IoResult {
        self.node.driver().write_packed(off, packed)
    }

    /// Makes a range read as zeroes.
    pub fn write_zeroes(&self, off: u64, len: u64, unmap: bool) -> IoResult {
        self.run(Op::WriteZeroes { unmap, fua: false }, off, len, &[])
    }

    /// True if the range reads as zeroes without any doubt.
    pub fn is_zero(&self, off: u64, len: u64) -> bool {
        self.node.driver().is_zero(off, len)
    }

    /// Lets a range go.
    pub fn discard(&self, off: u64, len: u64) -> IoResult {
        self.run(Op::Discard, off, len, &[])
    }

    /// Makes all writes stable.
    pub fn flush(&self) -> IoResult {
        self.node.driver().flush()
    }

    /// Changes the size.
    pub fn resize(&self, len: u64) -> Result<()> {
        self.node.truncate(len)
    }

    /// Allocation unit.
    pub fn cluster_size(&self) -> Option<u64> {
        self.node.driver().image_facts().cluster_size
    }

    /// How a range starts in this image alone.
    pub fn status(&self, off: u64, len: u64) -> Result<(Status, u64), Errno> {
        self.node.driver().block_status(off, len)
    }

    /// True if the range holds data anywhere in the chain; for how many bytes.
    pub fn has_data(&self, off: u64, len: u64) -> Result<(bool, u64), Errno> {
        let (h, n) = jobs::status_above(&self.node, None, off, len)?;
        Ok((h == Holds::Data, n.max(1)))
    }

    /// The start of `[off, off+len)` as `map` shows it.
    pub fn map(&self, off: u64, len: u64) -> Result<MapEntry, Errno> {
        let (mut node, mut depth, mut n) = (self.node.clone(), 0, len);
        loop {
            let have = node.len().saturating_sub(off);
            let end = |present, zero, n: u64, node: &Arc<Node>| MapEntry {
                start: off,
                length: n,
                depth,
                present,
                zero,
                data: false,
                offset: None,
                filename: node.info.filename.clone(),
            };
            if have == 0 {
                return Ok(end(false, true, n, &node));
            }
            let (s, m) = node.driver().block_status(off, n.min(have))?;
            n = m;
            if s.allocated {
                let mut zero = s.zero;
                if let (true, Some(host), Some(file)) = (s.data, s.host, node.file()) {
                    // A hole in the file below is as good as zero.
                    if let Ok((f, k)) = file.driver().block_status(host, n) {
                        if node.driver().name() != "raw" && f.zero && k >= n {
                            zero = true;
                        }
                    }
                }
                return Ok(MapEntry { zero, data: s.data, offset: s.host, ..end(true, zero, n, &node) });
            }
            match node.backing() {
                Some(b) => {
                    node = b;
                    depth += 1;
                }
                None => return Ok(end(false, true, n, &node)),
            }
        }
    }

    /// Checks the image.
    pub fn check(&self, fix: Repair) -> Result<CheckReport> {
        self.node.driver().check(fix)
    }

    /// Lets everything go that the image holds, so that it shows its backing image.
    pub fn make_empty(&self) -> Result<()> {
        self.node.driver().make_empty().map_err(|e| BlockError::text(e.to_string()))
    }

    /// The backing image.
    pub fn backing(&self) -> Option<Arc<Node>> {
        self.node.backing()
    }

    /// Names another backing image in the header, and nothing else.
    pub fn set_backing_name(&self, name: Option<(&str, &str)>) -> Result<()> {
        self.node.driver().change_backing_name(name)
    }

    /// Internal snapshots.
    pub fn snapshots(&self) -> Option<&dyn crate::Snapshots> {
        self.node.driver().snapshots()
    }

    /// Copies what this image holds into its backing image. `empty`: and lets it go here.
    pub fn commit(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let base =
            self.node.backing().ok_or_else(|| BlockError::text("Image does not have a backing file"))?;
        let edge = jobs::open_base(&base, std::slice::from_ref(&self.node))?;
        let io = |e: Errno| BlockError::text(e.to_string());
        let len = self.len();
        if base.len() < len {
            base.truncate(len)?;
        }
        let mut buf = vec![0u8; 1 << 20];
        let mut at = 0;
        while at < len {
            at += jobs::copy_above(&self.node, &base, at, (len - at).min(1 << 20), &mut buf).map_err(io)?;
            progress(at, len);
        }
        base.driver().flush().map_err(io)?;
        drop(edge);
        base.reopen(true)
    }
}
