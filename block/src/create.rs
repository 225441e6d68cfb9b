//! Making new images: `blockdev-create`, snapshots, `rqemu-img create`.

use crate::error::{BlockError, Errno, Result};
use crate::graph::{parse_size, BlockGraph};
use crate::node::Node;
use crate::qcow2::{self, CreateOpts};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::sync::Arc;

/// Name and, if known, format of a backing image.
pub type BackingRef = (String, Option<String>);

/// An image to be made, with all options checked for form.
#[derive(Clone, Debug)]
pub struct ImagePlan {
    filename: String,
    format: String,
    size: u64,
    backing: Option<BackingRef>,
    options: Vec<(String, String)>,
}

const QCOW2_OPTIONS: &[&str] = &[
    "backing_file",
    "backing_fmt",
    "cluster_size",
    "compat",
    "compression_type",
    "data_file",
    "data_file_raw",
    "extended_l2",
    "lazy_refcounts",
    "nocow",
    "preallocation",
    "refcount_bits",
    "size",
    "encryption",
    "encrypt.format",
    "encrypt.key-secret",
];
const RAW_OPTIONS: &[&str] = &["size", "preallocation", "nocow", "extent_size_hint"];

impl ImagePlan {
    fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// The line that QEMU prints about a new image.
    pub fn describe(&self) -> String {
        let mut s = format!("Formatting '{}', fmt={}", self.filename, self.format);
        let opt = |n: &str| self.option(n).map(str::to_owned);
        let mut put = |k: &str, v: Option<String>| {
            if let Some(v) = v {
                let _ = write!(s, " {k}={v}");
            }
        };
        let on_off = |v: Option<String>, d: &str| Some(v.unwrap_or_else(|| d.into()));
        if self.format == "qcow2" {
            let c = opt("cluster_size").map_or(65536, |c| parse_size(&c).unwrap_or(0));
            put("cluster_size", Some(c.to_string()));
            put("extended_l2", on_off(opt("extended_l2"), "off"));
            put("preallocation", opt("preallocation"));
            put("compression_type", on_off(opt("compression_type"), "zlib"));
            put("size", Some(self.size.to_string()));
            put("compat", opt("compat"));
            put("backing_file", self.backing.as_ref().map(|b| b.0.clone()));
            put("backing_fmt", self.backing.as_ref().and_then(|b| b.1.clone()));
            put("data_file", opt("data_file"));
            put("data_file_raw", opt("data_file_raw"));
            put("lazy_refcounts", on_off(opt("lazy_refcounts"), "off"));
            put("refcount_bits", on_off(opt("refcount_bits"), "16"));
        } else {
            put("size", Some(self.size.to_string()));
            put("preallocation", opt("preallocation"));
        }
        put("nocow", opt("nocow"));
        s
    }

    /// Format.
    pub fn format(&self) -> &str {
        &self.format
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.option(name) {
            None | Some("off" | "no" | "false" | "n") => Ok(false),
            Some("on" | "yes" | "true" | "y") => Ok(true),
            Some(_) => Err(BlockError::BadBool(name.into())),
        }
    }

    fn qcow2(&self) -> Result<(CreateOpts, &str)> {
        let text = |s: &str| Err(BlockError::text(s));
        for lack in ["data_file", "encryption", "encrypt.format"] {
            if self.option(lack).is_some_and(|v| v != "off") {
                return Err(BlockError::Unsupported(format!("qcow2 option '{lack}'")));
            }
        }
        if self.flag("extended_l2")? {
            return Err(BlockError::Unsupported("qcow2 option 'extended_l2'".into()));
        }
        let version = match self.option("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(v) => return Err(BlockError::text(format!("Invalid compatibility level: '{v}'"))),
        };
        let cluster = match self.option("cluster_size") {
            None => 65536,
            Some(v) => {
                parse_size(v).ok_or_else(|| BlockError::text("Parameter 'cluster_size' expects a size"))?
            }
        };
        if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
            return text("Cluster size must be a power of two between 512 and 2048k");
        }
        let bits: u64 = match self.option("refcount_bits") {
            None => 16,
            Some(v) => v.parse().map_err(|_| BlockError::BadSize("refcount_bits".into()))?,
        };
        if !bits.is_power_of_two() || bits > 64 {
            return text("Refcount width must be a power of two and may not exceed 64 bits");
        }
        if version < 3 && bits != 16 {
            return text(
                "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or \
                 greater)",
            );
        }
        let lazy = self.flag("lazy_refcounts")?;
        if lazy && version < 3 {
            return text(
                "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)",
            );
        }
        let zstd = match self.option("compression_type") {
            None | Some("zlib") => false,
            Some("zstd") if version < 3 => {
                return text("Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)");
            }
            Some("zstd") => true,
            Some(v) => return Err(BlockError::BadEnum { name: "compression_type".into(), value: v.into() }),
        };
        if !self.size.is_multiple_of(512) {
            return text("Image size must be a multiple of 512 bytes");
        }
        let prealloc = self.option("preallocation").unwrap_or("off");
        if !["off", "metadata", "falloc", "full"].contains(&prealloc) {
            return Err(BlockError::BadEnum { name: "preallocation".into(), value: prealloc.into() });
        }
        if prealloc != "off" && self.backing.is_some() {
            return text(
                "Backing file and preallocation can only be used at the same time if extended_l2 is enabled",
            );
        }
        let o = CreateOpts {
            size: self.size,
            version,
            cluster_bits: cluster.trailing_zeros(),
            refcount_order: bits.trailing_zeros(),
            lazy_refcounts: lazy,
            backing: self.backing.clone().map(|(n, f)| (n, f.unwrap_or_default())),
            zstd,
        };
        Ok((o, prealloc))
    }

    /// Makes the image in an open file.
    fn write(&self, graph: &BlockGraph, file: &Arc<Node>) -> Result<()> {
        match self.format.as_str() {
            "raw" => {
                file.truncate(self.size)?;
                let p = self.option("preallocation").unwrap_or("off");
                preallocate(file, p)
            }
            _ => {
                let (o, prealloc) = self.qcow2()?;
                qcow2::create(file, &o)?;
                if prealloc == "off" {
                    return Ok(());
                }
                let mut m = Map::new();
                m.insert("driver".into(), "qcow2".into());
                m.insert("file".into(), file.name().into());
                let node = graph.open_plain(m)?;
                let io = |e| BlockError::io("Could not preallocate metadata", e);
                qcow2::preallocate(&node, 0, self.size).map_err(io)?;
                drop(node);
                preallocate(file, if prealloc == "metadata" { "off" } else { prealloc })
            }
        }
    }
}

/// Gives a file its blocks now.
fn preallocate(file: &Arc<Node>, how: &str) -> Result<()> {
    let io = |e: Errno| BlockError::io("Could not preallocate data", e);
    match how {
        "off" => Ok(()),
        "falloc" => {
            let len = file.len();
            file.driver().write_zeroes(0, 0, false).map_err(io)?;
            file.driver().preallocate(len).map_err(io)
        }
        "full" => {
            let (len, buf) = (file.len(), vec![0u8; 1 << 20]);
            let mut at = 0;
            while at < len {
                let n = (len - at).min(buf.len() as u64);
                let mut old = vec![0u8; n as usize];
                file.pread(at, &mut old).map_err(io)?;
                file.pwrite(at, &old).map_err(io)?;
                at += n;
            }
            Ok(())
        }
        other => Err(BlockError::BadEnum { name: "preallocation".into(), value: other.into() }),
    }
}

impl BlockGraph {
    /// Checks what a new image shall be. `options` are creation options by their `qemu-img` names.
    pub fn plan_image(
        &self,
        filename: &str,
        format: &str,
        size: Option<u64>,
        backing: Option<BackingRef>,
        options: &[(String, String)],
    ) -> Result<ImagePlan> {
        let known = match format {
            "qcow2" => QCOW2_OPTIONS,
            "raw" => RAW_OPTIONS,
            f if super::graph::is_driver(f) => {
                return Err(BlockError::text(format!("Format driver '{f}' does not support image creation")));
            }
            f => return Err(BlockError::text(format!("Unknown file format '{f}'"))),
        };
        if let Some((k, _)) = options.iter().find(|(k, _)| !known.contains(&k.as_str())) {
            return Err(BlockError::text(format!("Invalid parameter '{k}'")));
        }
        let find = |n: &str| options.iter().rev().find(|(k, _)| k == n).map(|(_, v)| v.clone());
        let backing = match (backing, find("backing_file")) {
            (Some(b), _) => Some(b),
            (None, Some(f)) => Some((f, find("backing_fmt"))),
            (None, None) => None,
        };
        if backing.is_some() && format == "raw" {
            return Err(BlockError::text(format!("Backing file not supported for file format '{format}'")));
        }
        let size = match (size, find("size")) {
            (Some(s), _) => Some(s),
            (None, Some(v)) => {
                Some(parse_size(&v).ok_or_else(|| BlockError::text("Parameter 'size' expects a size"))?)
            }
            (None, None) => None,
        };
        let Some(size) = size else {
            return Err(BlockError::text("Image creation needs a size parameter"));
        };
        Ok(ImagePlan {
            filename: filename.into(),
            format: format.into(),
            size,
            backing,
            options: options.to_vec(),
        })
    }

    /// Makes the image; an existing file loses its contents.
    pub fn create_image(&self, plan: &ImagePlan) -> Result<()> {
        if plan.format == "qcow2" {
            // Nothing is made if the options are wrong.
            plan.qcow2()?;
        }
        let fail = |e| BlockError::io(format!("Could not create '{}'", plan.filename), Errno::from(e));
        let path = plan.filename.strip_prefix("file:").unwrap_or(&plan.filename);
        use std::os::unix::fs::OpenOptionsExt;
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(path)
            .map_err(fail)?;
        let mut m = Map::new();
        m.insert("driver".into(), "file".into());
        m.insert("filename".into(), path.into());
        let file = self.open_plain(m)?;
        let edge = crate::Edge::new(&file, "image creation", "file", 11, 0)?;
        file.truncate(0)?;
        drop(edge);
        plan.write(self, &file)?;
        file.driver().flush().map_err(|e| BlockError::io("Could not flush the image", e))
    }

    /// `BlockdevCreateOptions`, as work for another thread.
    pub(crate) fn plan_create(&self, options: Value) -> Result<Box<dyn FnOnce() -> Result<()> + Send>> {
        let Value::Object(mut m) = options else {
            return Err(BlockError::BadType { name: "options".into(), expected: "object" });
        };
        let mut text = |k: &str| match m.remove(k) {
            Some(Value::String(s)) => Some(s),
            Some(Value::Bool(b)) => Some(if b { "on" } else { "off" }.into()),
            Some(Value::Number(n)) => Some(n.to_string()),
            Some(other) => Some(other.to_string()),
            None => None,
        };
        let driver = text("driver").ok_or_else(|| BlockError::Missing("options.driver".into()))?;
        let size = text("size").ok_or_else(|| BlockError::Missing("options.size".into()))?;
        let size: u64 = size.parse().map_err(|_| BlockError::BadSize("options.size".into()))?;
        let mut opts = Vec::new();
        for (qapi, name) in [
            ("preallocation", "preallocation"),
            ("nocow", "nocow"),
            ("cluster-size", "cluster_size"),
            ("lazy-refcounts", "lazy_refcounts"),
            ("refcount-bits", "refcount_bits"),
            ("compression-type", "compression_type"),
            ("extended-l2", "extended_l2"),
            ("version", "compat"),
        ] {
            if let Some(v) = text(qapi) {
                opts.push((name.to_owned(), v));
            }
        }
        let backing = text("backing-file").map(|b| (b, text("backing-fmt")));
        let graph = self.clone();
        match driver.as_str() {
            "file" => {
                let name = text("filename").ok_or_else(|| BlockError::Missing("options.filename".into()))?;
                rest(&m)?;
                let plan = self.plan_image(&name, "raw", Some(size), None, &opts)?;
                Ok(Box::new(move || graph.create_image(&plan)))
            }
            "qcow2" => {
                let file = text("file").ok_or_else(|| BlockError::Missing("options.file".into()))?;
                rest(&m)?;
                let node = self.device_or_node(&file)?;
                let plan = self.plan_image("", "qcow2", Some(size), backing, &opts)?;
                Ok(Box::new(move || {
                    plan.qcow2()?;
                    let edge = crate::Edge::new(&node, "image creation", "file", 11, 0)?;
                    node.truncate(0)?;
                    drop(edge);
                    plan.write(&graph, &node)?;
                    node.driver().flush().map_err(|e| BlockError::io("Could not flush the image", e))
                }))
            }
            other => {
                Err(BlockError::text(format!("Block driver '{other}' does not support blockdev-create")))
            }
        }
    }
}

fn rest(m: &Map<String, Value>) -> Result<()> {
    match m.keys().next() {
        Some(k) => Err(BlockError::Unexpected(format!("options.{k}"))),
        None => Ok(()),
    }
}
