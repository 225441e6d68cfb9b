//! Opening nodes from option dictionaries.

use super::opts::Opts;
use super::{object, probe, qcow2_opts, BlockGraph};
use crate::driver::{perm, Driver};
use crate::error::{BlockError, Result};
use crate::formats;
use crate::nbd;
use crate::node::{CacheMode, DetectZeroes, Edge, Node, NodeInfo};
use crate::null::{self, NullDriver};
use crate::posix::{self, Aio, FileOpts, Kind};
use crate::qcow2;
use crate::raw::{format_perms, RawDriver};
use serde_json::{json, Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Every driver name of QEMU's schema: the known-but-absent ones are refused differently from nonsense.
const QAPI_DRIVERS: &[&str] = &[
    "blkdebug",
    "blklogwrites",
    "blkreplay",
    "blkverify",
    "bochs",
    "cloop",
    "compress",
    "copy-before-write",
    "copy-on-read",
    "dmg",
    "file",
    "ftp",
    "ftps",
    "gluster",
    "host_cdrom",
    "host_device",
    "http",
    "https",
    "iscsi",
    "io_uring",
    "luks",
    "nbd",
    "nfs",
    "null-aio",
    "null-co",
    "nvme",
    "parallels",
    "preallocate",
    "qcow",
    "qcow2",
    "qed",
    "quorum",
    "raw",
    "rbd",
    "replication",
    "snapshot-access",
    "ssh",
    "throttle",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
    "vvfat",
];

/// Drivers that can be opened here.
pub(crate) const DRIVERS: &[&str] = &[
    "file",
    "host_cdrom",
    "host_device",
    "nbd",
    "null-aio",
    "null-co",
    "qcow2",
    "raw",
    "vdi",
    "vhdx",
    "vmdk",
    "vpc",
];

/// True for every driver name that QEMU knows.
pub(crate) fn is_driver(name: &str) -> bool {
    QAPI_DRIVERS.contains(&name)
}

fn is_protocol(driver: &str) -> bool {
    matches!(driver, "file" | "host_device" | "host_cdrom" | "nbd" | "null-co" | "null-aio")
}

/// What a child takes over from its parent unless it says otherwise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherit {
    pub read_only: bool,
    pub auto_read_only: bool,
    pub cache: CacheMode,
    pub aio: Aio,
    pub unmap: bool,
    pub force_share: bool,
    /// Names of the images above in the backing chain.
    pub chain: Vec<String>,
}

/// Images opened on one stack.
const STACK_LEVELS: usize = 24;
/// Longest backing chain, as libvirt's; a longer one is an attack.
const MAX_DEPTH: usize = 200;

/// Members common to all drivers.
struct Common {
    driver: String,
    info: NodeInfo,
    auto_read_only: bool,
    aio: Aio,
}

impl BlockGraph {
    /// Opens a node whose driver is named in `opts`.
    pub(crate) fn open_node(&self, mut opts: Opts, inherit: &Inherit) -> Result<Arc<Node>> {
        let driver = opts.need_string("driver")?;
        if !DRIVERS.contains(&driver.as_str()) {
            return Err(if !opts.strict || QAPI_DRIVERS.contains(&driver.as_str()) {
                BlockError::UnknownDriver(driver)
            } else {
                BlockError::BadEnum { name: opts.full("driver"), value: driver }
            });
        }
        self.open_known(opts, driver, inherit, false)
    }

    /// Complains about what the driver would miss first.
    pub(super) fn check_required(&self, opts: &Opts) -> Result<()> {
        let need = |key: &str| {
            if opts.has(key) {
                Ok(())
            } else {
                Err(BlockError::Missing(opts.full(key)))
            }
        };
        match opts.peek_str("driver") {
            Some("file" | "host_device" | "host_cdrom") => need("filename"),
            Some("raw" | "qcow2" | "vdi" | "vhdx" | "vmdk" | "vpc") => need("file"),
            Some("nbd") => need("server"),
            Some(d) if !QAPI_DRIVERS.contains(&d) => {
                Err(BlockError::BadEnum { name: opts.full("driver"), value: d.into() })
            }
            _ => Ok(()),
        }
    }

    fn common(&self, opts: &mut Opts, driver: String, inherit: &Inherit) -> Result<Common> {
        let node_name = opts.string("node-name")?;
        let mut cache = opts.dict("cache")?;
        let cache_mode = CacheMode {
            direct: cache.boolean("direct")?.unwrap_or(inherit.cache.direct),
            no_flush: cache.boolean("no-flush")?.unwrap_or(inherit.cache.no_flush),
        };
        cache.finish("format", &driver)?;
        let read_only = opts.boolean("read-only")?.unwrap_or(inherit.read_only);
        let auto_read_only = opts.boolean("auto-read-only")?.unwrap_or(inherit.auto_read_only);
        let unmap = opts
            .choice("discard", &[("unmap", true), ("on", true), ("ignore", false), ("off", false)])?
            .unwrap_or(inherit.unmap);
        let detect_zeroes = opts
            .choice(
                "detect-zeroes",
                &[("off", DetectZeroes::Off), ("on", DetectZeroes::On), ("unmap", DetectZeroes::Unmap)],
            )?
            .unwrap_or_default();
        let force_share = opts.boolean("force-share")?.unwrap_or(inherit.force_share);
        if detect_zeroes == DetectZeroes::Unmap && !unmap {
            return Err(BlockError::text(
                "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap",
            ));
        }
        if force_share && !read_only {
            return Err(BlockError::text("force-share=on can only be used with read-only images"));
        }
        let aio = opts
            .choice("aio", &[("threads", Aio::Threads), ("native", Aio::Native), ("io_uring", Aio::IoUring)])?
            .unwrap_or(inherit.aio);
        let info = NodeInfo {
            name: String::new(),
            filename: String::new(),
            read_only,
            cache: cache_mode,
            detect_zeroes,
            unmap,
            force_share,
            seq: 0,
        };
        let mut c = Common { driver, info, auto_read_only, aio };
        c.info.name = node_name.unwrap_or_default();
        if !c.info.name.is_empty() {
            c.info.name = self.node_name(Some(c.info.name))?;
        }
        Ok(c)
    }

    fn check_required_of(&self, opts: &Opts, driver: &str) -> Result<()> {
        let missing = match driver {
            "file" | "host_device" | "host_cdrom" => (!opts.has("filename")).then_some("filename"),
            "raw" | "qcow2" | "vdi" | "vhdx" | "vmdk" | "vpc" => (!opts.has("file")).then_some("file"),
            "nbd" if opts.strict => (!opts.has("server")).then_some("server"),
            _ => None,
        };
        match missing {
            Some(key) if opts.strict => Err(BlockError::Missing(opts.full(key))),
            Some("filename") => {
                Err(BlockError::text(format!("The '{driver}' block driver requires a file name")))
            }
            Some(_) => Err(BlockError::text("A block device must be specified for \"file\"")),
            None => Ok(()),
        }
    }

    pub(super) fn open_known(
        &self,
        mut opts: Opts,
        driver: String,
        inherit: &Inherit,
        probed: bool,
    ) -> Result<Arc<Node>> {
        self.check_required_of(&opts, &driver)?;
        let c = self.common(&mut opts, driver, inherit)?;
        self.open_parsed(opts, c, inherit, probed, None)
    }

    fn open_parsed(
        &self,
        opts: Opts,
        mut c: Common,
        inherit: &Inherit,
        probed: bool,
        file: Option<Arc<Node>>,
    ) -> Result<Arc<Node>> {
        let node = match c.driver.as_str() {
            "file" | "host_device" | "host_cdrom" => self.open_posix(opts, &mut c)?,
            "null-co" | "null-aio" => self.open_null(opts, &mut c)?,
            "nbd" => self.open_nbd(opts, &mut c)?,
            "raw" => self.open_raw(opts, &mut c, inherit, probed, file)?,
            "qcow2" => self.open_qcow2(opts, &mut c, inherit, file)?,
            "vdi" | "vhdx" | "vmdk" | "vpc" => self.open_foreign(opts, &mut c, inherit, file)?,
            other => return Err(BlockError::UnknownDriver(other.into())),
        };
        self.register(&node);
        Ok(node)
    }

    fn finish_node(
        &self,
        c: &mut Common,
        drv: Box<dyn Driver>,
        file: Option<Arc<Node>>,
        backing: Option<Arc<Node>>,
    ) -> Result<Arc<Node>> {
        self.reserve_name(c)?;
        Ok(Node::new(std::mem::take(&mut c.info), drv, file, backing))
    }

    fn open_posix(&self, mut opts: Opts, c: &mut Common) -> Result<Arc<Node>> {
        let kind = match c.driver.as_str() {
            "file" => Kind::File,
            "host_device" => Kind::HostDevice,
            _ => Kind::HostCdrom,
        };
        let filename = opts.need_string("filename")?;
        let locking = opts.choice("locking", &[("auto", None), ("on", Some(true)), ("off", Some(false))])?;
        if let Some(m) = opts.string("pr-manager")? {
            return Err(BlockError::text(format!("No such object of type pr-manager with id '{m}'")));
        }
        // Only tunes native AIO, which is served through io_uring here.
        opts.number("aio-max-batch")?;
        if opts.boolean("x-check-cache-dropped")? == Some(true) {
            return Err(BlockError::Unsupported("x-check-cache-dropped".into()));
        }
        opts.boolean("drop-cache")?;
        opts.finish("protocol", &c.driver)?;
        let opener = self.opener();
        let (drv, read_only) = posix::open_file(&FileOpts {
            kind,
            filename: &filename,
            read_only: c.info.read_only || kind == Kind::HostCdrom,
            auto_read_only: c.auto_read_only,
            direct: c.info.cache.direct,
            no_flush: c.info.cache.no_flush,
            aio: c.aio,
            locking: locking.flatten(),
            opener,
        })?;
        c.info.read_only = read_only;
        c.info.filename = filename;
        self.finish_node(c, Box::new(drv), None, None)
    }

    fn open_null(&self, mut opts: Opts, c: &mut Common) -> Result<Arc<Node>> {
        let size = opts.number("size")?.unwrap_or(null::DEFAULT_SIZE);
        let latency = opts.number("latency-ns")?.unwrap_or(0);
        let read_zeroes = opts.boolean("read-zeroes")?.unwrap_or(false);
        opts.take("filename");
        opts.finish("protocol", &c.driver)?;
        if i64::try_from(latency).is_err() {
            return Err(BlockError::text("latency-ns is invalid"));
        }
        if i64::try_from(size).is_err() {
            return Err(BlockError::text("Parameter 'size' expects a smaller value"));
        }
        let name = if c.driver == "null-co" { "null-co" } else { "null-aio" };
        c.info.filename = format!("{name}://");
        let drv = NullDriver { name, size: size.into(), read_zeroes, latency: Duration::from_nanos(latency) };
        self.finish_node(c, Box::new(drv), None, None)
    }

    /// Formats that can only be read.
    fn open_foreign(
        &self,
        mut opts: Opts,
        c: &mut Common,
        inherit: &Inherit,
        file: Option<Arc<Node>>,
    ) -> Result<Arc<Node>> {
        let below = Inherit { read_only: true, ..Self::below(c, inherit) };
        let file = match file {
            Some(f) => f,
            None => self.child(&mut opts, "file", &below)?,
        };
        if c.driver == "vmdk" {
            match opts.take("backing") {
                None | Some(Value::Null) => {}
                Some(Value::String(s)) if s.is_empty() => {}
                Some(_) => return Err(BlockError::Unsupported("vmdk option 'backing'".into())),
            }
        }
        let driver = c.driver.clone();
        opts.finish("format", &driver)?;
        if !c.info.read_only {
            if !c.auto_read_only {
                return Err(BlockError::Unsupported(format!("Writing to '{driver}' images")));
            }
            c.info.read_only = true;
        }
        let name = self.reserve_name(c)?;
        c.info.filename = file.info.filename.clone();
        let (mut files, mut extents) = (vec![file.clone()], Vec::new());
        if driver == "vmdk" {
            let mut head = vec![0u8; file.len().min(64 << 10) as usize];
            file.pread(0, &mut head).map_err(|e| BlockError::io("Could not read VMDK descriptor", e))?;
            if !head.starts_with(b"KDMV") && !head.starts_with(b"COWD") {
                extents = formats::descriptor(&String::from_utf8_lossy(&head))?.0;
                if extents.is_empty() {
                    return Err(BlockError::NotInFormat("vmdk"));
                }
                for f in extents.iter().filter_map(|e| e.file.as_deref()) {
                    if f.contains(':') || f.starts_with('/') {
                        // A descriptor must not reach devices or the network of whoever opens it.
                        return Err(BlockError::text(format!("Cannot use extent file '{f}'")));
                    }
                    let full = backing_path(&file.info.filename, f);
                    let mut m = Map::new();
                    m.insert("read-only".into(), true.into());
                    files.push(self.open_filename(&full, m, &below)?);
                }
            }
        }
        let drv = formats::open(&driver, &files, &format!("node '{name}'"), extents)?;
        self.finish_node(c, Box::new(drv), Some(file), None)
    }

    fn open_nbd(&self, mut opts: Opts, c: &mut Common) -> Result<Arc<Node>> {
        let bad = || BlockError::text("Invalid NBD server address");
        let (server, mut export) = match opts.string("filename")? {
            Some(name) => nbd::parse_name(&name).ok_or_else(bad)?,
            None => {
                let mut s = opts.dict("server")?;
                let flat = (opts.string("host")?, opts.string("port")?, opts.string("path")?);
                let kind = s.string("type")?;
                let server = match (kind.as_deref(), flat) {
                    (Some("unix"), _) => nbd::Server::Unix(s.need_string("path")?),
                    (Some("inet"), _) => nbd::Server::Inet(s.need_string("host")?, s.need_string("port")?),
                    (Some(k), _) => {
                        return Err(BlockError::BadEnum { name: s.full("type"), value: k.into() });
                    }
                    (None, (_, _, Some(p))) => nbd::Server::Unix(p),
                    (None, (Some(h), p, _)) => nbd::Server::Inet(h, p.unwrap_or_else(|| "10809".into())),
                    _ => return Err(BlockError::Missing("server".into())),
                };
                s.finish("protocol", "nbd")?;
                (server, String::new())
            }
        };
        if let Some(e) = opts.string("export")? {
            export = e;
        }
        for lack in ["tls-creds", "tls-hostname", "x-dirty-bitmap"] {
            if opts.take(lack).is_some() {
                return Err(BlockError::Unsupported(format!("nbd option '{lack}'")));
            }
        }
        let reconnect = opts.number("reconnect-delay")?.unwrap_or(0);
        // Opening does not wait; a server that is not there is an error, as with the default of 0.
        if opts.number("open-timeout")?.unwrap_or(0) != 0 {
            return Err(BlockError::Unsupported("nbd option 'open-timeout'".into()));
        }
        opts.finish("protocol", "nbd")?;
        let (drv, read_only) = nbd::open(server, &export, reconnect)?;
        if read_only && !c.info.read_only {
            if !c.auto_read_only {
                return Err(BlockError::text("request on write denied without write permission"));
            }
            c.info.read_only = true;
        }
        c.info.filename = drv.filename();
        self.finish_node(c, Box::new(drv), None, None)
    }

    /// The node below a format: a reference, an inline dictionary, or (outside `-blockdev`) a file name.
    fn child(&self, opts: &mut Opts, key: &str, inherit: &Inherit) -> Result<Arc<Node>> {
        match opts.take(key) {
            Some(Value::String(name)) if opts.strict => {
                self.find_node(&name).ok_or(BlockError::NoSuchNode(name))
            }
            Some(Value::String(name)) => match self.find_node(&name) {
                Some(n) => Ok(n),
                None => self.open_filename(&name, Map::new(), inherit),
            },
            Some(Value::Object(map)) => {
                let strict = opts.strict;
                let mut o = Opts::new(map, &opts.full(&format!("{key}.")), strict);
                o.text = opts.text;
                if strict {
                    return self.open_node(o, inherit);
                }
                let name = o.take("filename");
                match (o.has("driver"), name) {
                    (false, Some(Value::String(n))) => self.open_filename(&n, o.into_map(), inherit),
                    (_, name) => {
                        name.into_iter().for_each(|n| o.set_default("filename", n));
                        if !o.has("driver") {
                            o.set_default("driver", "file");
                        }
                        self.open_node(o, inherit)
                    }
                }
            }
            Some(_) => Err(BlockError::BadType { name: opts.full(key), expected: "BlockdevRef" }),
            None => Err(BlockError::Missing(opts.full(key))),
        }
    }

    fn below(c: &Common, inherit: &Inherit) -> Inherit {
        Inherit {
            read_only: c.info.read_only,
            auto_read_only: c.auto_read_only,
            cache: c.info.cache,
            aio: c.aio,
            // The format decides what to pass down; its file takes it.
            unmap: true,
            force_share: c.info.force_share,
            chain: inherit.chain.clone(),
        }
    }

    fn open_raw(
        &self,
        mut opts: Opts,
        c: &mut Common,
        inherit: &Inherit,
        probed: bool,
        file: Option<Arc<Node>>,
    ) -> Result<Arc<Node>> {
        let file = self.file_child(&mut opts, c, inherit, file)?;
        let offset = opts.number("offset")?.unwrap_or(0);
        let size = opts.number("size")?;
        opts.finish("format", "raw")?;
        c.info.read_only |= file.info.read_only && c.auto_read_only;
        if file.info.read_only && !c.info.read_only {
            return Err(BlockError::NodeReadOnly);
        }
        c.info.filename = match (offset, size) {
            (0, None) => file.info.filename.clone(),
            _ => json_name(json!({"driver": "raw", "offset": offset, "size": size, "file":
                {"driver": file.driver().name(), "filename": file.info.filename}})),
        };
        let name = self.reserve_name(c)?;
        let edge = Edge::new(&file, &format!("node '{name}'"), "file", 0, perm::ALL)?;
        let drv = RawDriver::new(edge, offset, size, probed)?;
        self.finish_node(c, Box::new(drv), Some(file), None)
    }

    fn file_child(
        &self,
        opts: &mut Opts,
        c: &Common,
        inherit: &Inherit,
        opened: Option<Arc<Node>>,
    ) -> Result<Arc<Node>> {
        match opened {
            Some(node) => Ok(node),
            None => self.child(opts, "file", &Self::below(c, inherit)),
        }
    }

    fn reserve_name(&self, c: &mut Common) -> Result<String> {
        if c.info.name.is_empty() {
            c.info.name = self.node_name(None)?;
        }
        if c.info.seq == 0 {
            c.info.seq = self.next_seq();
        }
        Ok(c.info.name.clone())
    }

    fn open_qcow2(
        &self,
        mut opts: Opts,
        c: &mut Common,
        inherit: &Inherit,
        file: Option<Arc<Node>>,
    ) -> Result<Arc<Node>> {
        let file = self.file_child(&mut opts, c, inherit, file)?;
        let open_opts = qcow2_opts::open_options(&mut opts, c.info.read_only)?;
        let backing = opts.take("backing");
        opts.finish("format", "qcow2")?;
        if file.info.read_only && !c.info.read_only {
            if !c.auto_read_only {
                return Err(BlockError::NodeReadOnly);
            }
            c.info.read_only = true;
        }
        let name = self.reserve_name(c)?;
        let (want, shared) = format_perms(c.info.read_only);
        let edge = Edge::new(&file, &format!("node '{name}'"), "file", want, shared)?;
        let hdr = qcow2::read_header(&file)?;
        let below = Inherit {
            read_only: true,
            auto_read_only: false,
            chain: inherit.chain.iter().cloned().chain([file.info.filename.clone()]).collect(),
            unmap: false,
            ..Self::below(c, inherit)
        };
        let backing = self
            .open_backing(backing, hdr.backing_file.as_deref(), hdr.backing_format.as_deref(), &file, &below)
            .map_err(|e| match e {
                e @ BlockError::BadType { .. } => e,
                e => BlockError::Backing(Box::new(e)),
            })?;
        let backing_edge = match &backing {
            Some(b) => {
                let shared = perm::ALL & !(perm::WRITE | perm::RESIZE);
                Some(Edge::new(b, &format!("node '{name}'"), "backing", perm::READ, shared)?)
            }
            None => None,
        };
        c.info.filename = file.info.filename.clone();
        if open_opts.lazy && hdr.version < 3 {
            return Err(BlockError::text(
                "Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility level",
            ));
        }
        let open_opts = qcow2::OpenOpts { read_only: c.info.read_only, ..open_opts };
        let image = qcow2::open(hdr, edge, backing_edge, &open_opts)?;
        let node = self.finish_node(c, Box::new(qcow2::Qcow2Driver(image)), Some(file), backing)?;
        node.driver().bitmaps().iter().for_each(|b| node.hooks.add_bitmap(b));
        Ok(node)
    }

    /// The backing image: as the options say, else as the header says.
    fn open_backing(
        &self,
        option: Option<Value>,
        header_name: Option<&str>,
        header_format: Option<&str>,
        file: &Arc<Node>,
        inherit: &Inherit,
    ) -> Result<Option<Arc<Node>>> {
        match option {
            Some(Value::Null) => return Ok(None),
            Some(Value::String(s)) if s.is_empty() => return Ok(None),
            Some(Value::String(s)) => return self.find_node(&s).ok_or(BlockError::NoSuchNode(s)).map(Some),
            Some(Value::Object(m)) => {
                let mut o = Opts::new(m, "backing.", false);
                if o.has("driver") {
                    return self.open_node(o, inherit).map(Some);
                }
                // Only changes to what the header names.
                let Some(name) = header_name else { return Ok(None) };
                let full = backing_path(&file.info.filename, name);
                let format = o.string("format")?;
                let format = format.as_deref().or(header_format);
                return self.open_image(&full, format, o.into_map(), inherit).map(Some);
            }
            Some(_) => {
                return Err(BlockError::BadType { name: "backing".into(), expected: "BlockdevRefOrNull" })
            }
            None => {}
        }
        let Some(name) = header_name else { return Ok(None) };
        let full = backing_path(&file.info.filename, name);
        if inherit.chain.len() > MAX_DEPTH || inherit.chain.contains(&full) {
            return Err(BlockError::text("Backing chain is too long or a cycle"));
        }
        self.deeper(&full, header_format, inherit).map(Some)
    }

    /// Opens the next image of a chain; a long chain continues on a fresh stack now and then.
    fn deeper(&self, name: &str, format: Option<&str>, inherit: &Inherit) -> Result<Arc<Node>> {
        let open = || self.open_image(name, format, Map::new(), inherit);
        match inherit.chain.len() % STACK_LEVELS {
            0 => {}
            _ => return open(),
        }
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(2 << 20).spawn_scoped(scope, open);
            match thread.map(|t| t.join()) {
                Ok(Ok(node)) => node,
                _ => Err(BlockError::text("Could not start a thread to open the backing chain")),
            }
        })
    }

    /// Opens a file name given by a user or a header: `json:{…}`, `proto:…`, or a host path. With `format` in
    /// `extra` that driver is used; without, the result is the bare protocol node.
    pub(super) fn open_filename(
        &self,
        name: &str,
        extra: Map<String, Value>,
        inherit: &Inherit,
    ) -> Result<Arc<Node>> {
        if let Some(text) = name.strip_prefix("json:") {
            let mut map = parse_json_name(text)?;
            map.extend(extra);
            let mut o = Opts::new(map, "", false);
            if !o.has("driver") {
                o.set_default("driver", "file");
            }
            return self.open_node(o, inherit);
        }
        let driver = protocol_of(name)?;
        let mut o = Opts::new(extra, "", false);
        o.set_default("filename", name);
        self.open_known(o, driver.into(), inherit, false)
    }

    /// Opens an image by name, guessing its format if `format` is not given.
    pub(crate) fn open_image(
        &self,
        name: &str,
        format: Option<&str>,
        options: Map<String, Value>,
        inherit: &Inherit,
    ) -> Result<Arc<Node>> {
        let (mut options, format, mut file) = (options, format.map(str::to_owned), Value::from(name));
        if let Some(text) = name.strip_prefix("json:") {
            let map = parse_json_name(text)?;
            let mut o = Opts::new(map, "", false);
            match o.peek_str("driver") {
                Some(d) if is_protocol(d) => file = Value::Object(o.into_map()),
                Some(_) => {
                    let driver = o.string("driver")?.unwrap_or_default();
                    for (k, v) in options {
                        o.set_default(&k, v);
                    }
                    return self.open_with(o, driver, inherit);
                }
                None => {
                    file = o.take("file").unwrap_or(Value::Null);
                    if file.is_null() {
                        file = Value::Object(object(Value::Object(o.into_map())));
                    } else {
                        options.extend(o.into_map());
                    }
                }
            }
        }
        if let Some(f) = &format {
            if is_protocol(f) {
                options.insert("filename".into(), name.into());
                return self.open_with(Opts::new(options, "", false), format.unwrap_or_default(), inherit);
            }
        }
        if format.is_none() {
            return self.open_probed(name, options, file, inherit);
        }
        options.insert("file".into(), file);
        self.open_with(Opts::new(options, "", false), format.unwrap_or_default(), inherit)
    }

    /// Opens the protocol, looks at the first bytes, and puts the format they show on top.
    pub(super) fn open_probed(
        &self,
        name: &str,
        options: Map<String, Value>,
        file: Value,
        inherit: &Inherit,
    ) -> Result<Arc<Node>> {
        let mut o = Opts::new(options, "", false);
        o.set_default("file", file);
        let mut c = self.common(&mut o, String::new(), inherit)?;
        let node = self.child(&mut o, "file", &Self::below(&c, inherit))?;
        let guess = self.probe(&node, name)?;
        if guess == "raw" && !c.info.read_only {
            self.warn_probed(name);
        }
        if !DRIVERS.contains(&guess) {
            return Err(BlockError::UnknownDriver(guess.into()));
        }
        c.driver = guess.into();
        self.open_parsed(o, c, inherit, guess == "raw", Some(node))
    }

    fn open_with(&self, o: Opts, driver: String, inherit: &Inherit) -> Result<Arc<Node>> {
        if !DRIVERS.contains(&driver.as_str()) {
            return Err(BlockError::UnknownDriver(driver));
        }
        self.open_known(o, driver, inherit, false)
    }

    fn probe(&self, node: &Arc<Node>, name: &str) -> Result<&'static str> {
        let mut head = vec![0u8; (node.len().min(probe::PROBE_BYTES as u64)) as usize];
        if !head.is_empty() {
            node.pread(0, &mut head)
                .map_err(|e| BlockError::io("Could not read image for determining its format", e))?;
        }
        Ok(probe::guess(&head, name))
    }

    fn warn_probed(&self, name: &str) {
        self.warn(format!(
            "WARNING: Image format was not specified for '{name}' and probing guessed raw.\n         Automatically \
             detecting the format is dangerous for raw images, write operations on block 0 will be restricted.\n         \
             Specify the 'raw' format explicitly to remove the restrictions."
        ));
    }
}

/// A backing file name is relative to the directory of the image that names it.
pub fn backing_path(image: &str, name: &str) -> String {
    let has_protocol = name.split_once(':').is_some_and(|(p, _)| !p.contains('/') && !p.is_empty());
    if name.starts_with('/') || has_protocol || image.starts_with("json:") {
        return name.to_owned();
    }
    let image = image.strip_prefix("file:").unwrap_or(image);
    match image.rfind('/') {
        Some(i) => format!("{}{name}", &image[..=i]),
        None => name.to_owned(),
    }
}

fn json_name(v: Value) -> String {
    let mut m = object(v);
    m.retain(|_, v| !v.is_null());
    format!("json:{}", Value::Object(m))
}

fn parse_json_name(text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(text) {
        Ok(Value::Object(m)) => Ok(m),
        Ok(_) => Err(BlockError::text("Invalid JSON object given")),
        Err(_) => {
            let word: String = text.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
            Err(BlockError::text(if word.is_empty() {
                "Could not parse the JSON options: JSON parse error".to_owned()
            } else {
                format!("Could not parse the JSON options: JSON parse error, invalid keyword '{word}'")
            }))
        }
    }
}

/// The protocol driver for a file name: by `proto:` prefix, by device type, else `file`.
pub(crate) fn protocol_of(name: &str) -> Result<&'static str> {
    if let Some((proto, _)) = name.split_once(':') {
        let slash = name.find('/').is_some_and(|s| s < proto.len());
        if !slash && !proto.is_empty() {
            return match proto {
                "file" => Ok("file"),
                "host_device" => Ok("host_device"),
                "host_cdrom" => Ok("host_cdrom"),
                "nbd" | "nbd+unix" | "nbd+tcp" => Ok("nbd"),
                "null-co" => Ok("null-co"),
                "null-aio" => Ok("null-aio"),
                other => Err(BlockError::UnknownProtocol(other.into())),
            };
        }
    }
    use std::os::unix::fs::FileTypeExt;
    match std::fs::metadata(name) {
        Ok(m) if m.file_type().is_block_device() || m.file_type().is_char_device() => {
            let cd = name.starts_with("/dev/cdrom") || name.starts_with("/dev/sr");
            Ok(if cd { "host_cdrom" } else { "host_device" })
        }
        _ => Ok("file"),
    }
}
