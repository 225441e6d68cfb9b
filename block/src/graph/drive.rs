//! `-drive`: a named backend with its image, in the older flat syntax.

use super::open::Inherit;
use super::opts::{nest, Opts};
use super::BlockGraph;
use crate::backend::{BackendOpts, BlockBackend, OnError};
use crate::error::{BlockError, Result};
use crate::qcow2;
use serde_json::{Map, Value};

/// `-drive` options that concern the block layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DriveOpts {
    /// `id=`, or the name the board makes up (`ide0-hd0`).
    pub id: String,
    /// All other options in order, without those of the frontend and the board (`if`, `bus`, `unit`, `index`,
    /// `media`, `id`, `addr`, `serial`): `file`, `format`, `cache`, `aio`, `snapshot`, `file.locking` …
    pub options: Vec<(String, String)>,
    /// The medium can only be read, whatever the options say (`media=cdrom`).
    pub force_read_only: bool,
}

/// A drive that was opened.
#[derive(Debug, Clone)]
pub struct OpenedDrive {
    /// The drive; without a medium if no file was named.
    pub backend: BlockBackend,
}

fn on_off(key: &str, v: &str) -> Result<bool> {
    match v {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(BlockError::BadBool(key.into())),
    }
}

fn on_error(kind: &str, v: &str) -> Result<OnError> {
    match v {
        "ignore" => Ok(OnError::Ignore),
        "enospc" if kind == "write" => Ok(OnError::Enospc),
        "stop" => Ok(OnError::Stop),
        "report" => Ok(OnError::Report),
        _ => Err(BlockError::text(format!("'{v}' invalid {kind} error action"))),
    }
}

/// `cache=` shorthands: (direct, no-flush, writeback).
fn cache_mode(v: &str) -> Result<(bool, bool, bool)> {
    match v {
        "none" | "off" => Ok((true, false, true)),
        "directsync" => Ok((true, false, false)),
        "writeback" => Ok((false, false, true)),
        "unsafe" => Ok((false, true, true)),
        "writethrough" => Ok((false, false, false)),
        _ => Err(BlockError::text("invalid cache option")),
    }
}

/// What is taken out of the list before the rest goes to the drivers.
#[derive(Default)]
struct Split {
    file: Option<String>,
    format: Option<String>,
    snapshot: bool,
    backend: BackendOpts,
    copy_on_read: bool,
    group: Option<String>,
    limits: Option<crate::throttle::Limits>,
    rest: Map<String, Value>,
}

impl Split {
    fn throttle(&mut self, key: &str, v: &str) -> Result<()> {
        let name = key.strip_prefix("throttling.").unwrap_or(key);
        if matches!(name, "group" | "throttling-group") {
            self.group = Some(v.into());
            return Ok(());
        }
        let number = || super::parse_size(v).ok_or_else(|| BlockError::BadSize(key.into()));
        let l = self.limits.get_or_insert_default();
        if name == "iops-size" {
            l.iops_size = number()?;
            return Ok(());
        }
        let (base, field) = match name {
            n if n.ends_with("-max-length") => (&n[..n.len() - 11], 2),
            n if n.ends_with("-max") => (&n[..n.len() - 4], 1),
            n => (n, 0),
        };
        let kinds = ["bps-total", "bps-read", "bps-write", "iops-total", "iops-read", "iops-write"];
        let Some(i) = kinds.iter().position(|k| *k == base) else {
            return Err(BlockError::text(format!("Invalid parameter '{key}'")));
        };
        let b = &mut l.buckets[i];
        *[&mut b.avg, &mut b.max, &mut b.length][field] = number()?;
        Ok(())
    }
}

fn split(o: &DriveOpts) -> Result<Split> {
    let mut s = Split::default();
    // The shorthand gives way to explicit cache.* members wherever it stands.
    if let Some((_, v)) = o.options.iter().rev().find(|(k, _)| k == "cache") {
        let (direct, no_flush, wb) = cache_mode(v)?;
        s.rest.insert("cache.direct".into(), direct.into());
        s.rest.insert("cache.no-flush".into(), no_flush.into());
        s.backend.writeback = wb;
    }
    for (k, v) in &o.options {
        match k.as_str() {
            "cache" => {}
            "file" => s.file = Some(v.clone()),
            "format" | "driver" => s.format = Some(v.clone()),
            "snapshot" => s.snapshot = on_off(k, v)?,
            "cache.writeback" => s.backend.writeback = on_off(k, v)?,
            "readonly" | "read-only" => {
                s.rest.insert("read-only".into(), on_off("read-only", v)?.into());
            }
            "rerror" => s.backend.rerror = on_error("read", v)?,
            "werror" => s.backend.werror = on_error("write", v)?,
            "copy-on-read" => s.copy_on_read = on_off(k, v)?,
            k if k.starts_with("throttling.") || k == "throttling-group" => {
                s.throttle(k, v)?;
            }
            "stats-account-invalid" | "stats-account-failed" => {
                on_off(k, v)?;
            }
            _ => {
                s.rest.insert(k.clone(), Value::from(v.as_str()));
            }
        }
    }
    Ok(s)
}

impl BlockGraph {
    /// Opens a `-drive`. Without a file the drive has no medium.
    pub fn open_drive(&self, o: &DriveOpts) -> Result<OpenedDrive> {
        let mut s = split(o)?;
        if self.find_drive(&o.id).is_some() {
            return Err(BlockError::text(format!("Duplicate ID '{}' for drive", o.id)));
        }
        if self.find_node(&o.id).is_some() {
            return Err(BlockError::text(format!(
                "Device name '{}' conflicts with an existing node name",
                o.id
            )));
        }
        if o.force_read_only {
            s.rest.insert("read-only".into(), true.into());
        }
        s.backend.read_only = s.rest.get("read-only") == Some(&Value::Bool(true));
        if s.snapshot {
            // Everything goes to a temporary overlay; it need not survive, and the image below is only read.
            s.rest.insert("cache.no-flush".into(), true.into());
            s.backend.writeback = true;
        }
        if s.copy_on_read {
            if s.backend.read_only {
                self.warn("warning: disabling copy-on-read on read-only drive".into());
            } else {
                return Err(BlockError::Unsupported("copy-on-read".into()));
            }
        }
        let backend = self.make_backend(&o.id, s.backend);
        if let Some(l) = s.limits {
            self.set_limits(&backend, s.group.as_deref().unwrap_or(&o.id), l)?;
        }
        let nested = nest(std::mem::take(&mut s.rest));
        let has_file = s.file.is_some() || nested.contains_key("file");
        let standalone =
            matches!(s.format.as_deref(), Some("null-co" | "null-aio")) || nested.contains_key("filename");
        if has_file || standalone {
            let node = self.open_drive_image(&s, nested)?;
            backend.insert(&node)?;
        } else if let Some(f @ ("file" | "host_device" | "host_cdrom")) = s.format.as_deref() {
            return Err(BlockError::text(format!("The '{f}' block driver requires a file name")));
        } else if let Some(f) = s.format.as_deref() {
            if !super::open::DRIVERS.contains(&f) {
                return Err(BlockError::UnknownDriver(f.into()));
            }
            return Err(BlockError::text("A block device must be specified for \"file\""));
        }
        self.0.state.lock().drives.push(backend.clone());
        Ok(OpenedDrive { backend })
    }

    fn open_drive_image(
        &self,
        s: &Split,
        mut options: Map<String, Value>,
    ) -> Result<std::sync::Arc<crate::Node>> {
        let inherit = Inherit { auto_read_only: true, ..Inherit::default() };
        // The overlay is what the options speak of; the image below is only read.
        let mut overlay = Map::new();
        if s.snapshot {
            for key in ["read-only", "discard", "detect-zeroes"] {
                overlay.extend(options.shift_remove_entry(key));
            }
            options.insert("read-only".into(), true.into());
        }
        let format = s.format.as_deref();
        let node = match (&s.file, options.remove("file")) {
            (Some(name), None) => self.open_image(name, format, options, &inherit)?,
            (name, Some(Value::Object(mut file))) => {
                if let Some(n) = name {
                    file.entry("filename").or_insert_with(|| n.as_str().into());
                }
                self.open_nested(format, file, options, &inherit)?
            }
            (_, Some(_)) => return Err(BlockError::text("Invalid file option")),
            (None, None) => {
                options.insert("driver".into(), format.unwrap_or("file").into());
                self.open_node(Opts::new(options, "", false), &inherit)?
            }
        };
        if s.snapshot {
            return self.temporary_overlay(&node, overlay);
        }
        Ok(node)
    }

    /// `file.driver=…,file.filename=…` with or without `format=`.
    fn open_nested(
        &self,
        format: Option<&str>,
        file: Map<String, Value>,
        mut options: Map<String, Value>,
        inherit: &Inherit,
    ) -> Result<std::sync::Arc<crate::Node>> {
        match format {
            Some(f) => {
                options.insert("file".into(), Value::Object(file));
                options.insert("driver".into(), f.into());
                self.open_node(Opts::new(options, "", false), inherit)
            }
            None => {
                let name = file.get("filename").and_then(Value::as_str).unwrap_or("").to_owned();
                self.open_probed(&name, options, Value::Object(file), inherit)
            }
        }
    }

    /// `snapshot=on`: a qcow2 image without a name on top of `base`.
    fn temporary_overlay(
        &self,
        base: &std::sync::Arc<crate::Node>,
        options: Map<String, Value>,
    ) -> Result<std::sync::Arc<crate::Node>> {
        let path = temporary_name()?;
        let result = self.overlay_at(&path, base, options);
        // From now on the descriptor keeps it; with the process it is gone.
        let _ = std::fs::remove_file(&path);
        result
    }

    fn overlay_at(
        &self,
        path: &str,
        base: &std::sync::Arc<crate::Node>,
        mut options: Map<String, Value>,
    ) -> Result<std::sync::Arc<crate::Node>> {
        let inherit = Inherit::default();
        let file = serde_json::json!({"driver": "file", "filename": path, "cache": {"no-flush": true}});
        let node = self.open_node(Opts::new(super::object(file), "", true), &inherit)?;
        qcow2::create(&node, &qcow2::CreateOpts::new(base.len()))?;
        options.insert("driver".into(), "qcow2".into());
        options.insert("file".into(), node.name().into());
        options.insert("backing".into(), base.name().into());
        options.insert("cache.no-flush".into(), true.into());
        self.open_node(Opts::new(options, "", false), &inherit)
    }
}

/// An empty file in `$TMPDIR` or `/var/tmp`, readable by nobody else.
fn temporary_name() -> Result<String> {
    use std::hash::{BuildHasher, Hasher};
    use std::os::unix::fs::OpenOptionsExt;
    let dir = std::env::var("TMPDIR").ok().filter(|d| !d.is_empty()).unwrap_or_else(|| "/var/tmp".into());
    let mut last = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
    for _ in 0..64 {
        let n = std::collections::hash_map::RandomState::new().build_hasher().finish();
        let path = format!("{dir}/vl.{:06x}", n & 0xff_ffff);
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(_) => return Ok(path),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => last = e,
            Err(e) => return Err(BlockError::io("Could not get temporary filename", e)),
        }
    }
    Err(BlockError::io("Could not get temporary filename", last))
}
