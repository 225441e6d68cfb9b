//! Makes a command line from somebody's script runnable in a temporary folder: every file it names is replaced by a
//! small one of the same kind, sockets and logs land in the folder, remote hosts become this one, and nothing is
//! displayed or preallocated.

use crate::Res;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A command line ready to run.
pub struct Ready {
    pub argv: Vec<String>,
}

/// Rewrites `argv` (without the program's name), creating files in `dir`.
pub fn rewrite(argv: &[String], dir: &Path) -> Res<Ready> {
    let mut r = Rewriter { dir, made: BTreeMap::new() };
    let mut out = vec![];
    let mut it = argv.iter().peekable();
    while let Some(a) = it.next() {
        let Some(opt) = a.strip_prefix("--").or_else(|| a.strip_prefix('-')).filter(|o| !o.is_empty()) else {
            out.push(r.file(a, Kind::Disk, None)?);
            continue;
        };
        if opt == "mem-prealloc" {
            continue;
        }
        out.push(a.clone());
        if !takes_value(opt) {
            continue;
        }
        if let Some(v) = it.next() {
            out.push(r.value(opt, v)?);
        }
    }
    Ok(Ready { argv: out })
}

/// What a file has to look like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Disk,
    Floppy,
    Rom,
    Kernel,
    Plain,
    Dir,
    /// A file that is to be created by the program; only its folder must exist.
    Fresh,
}

/// Options whose next word is not theirs.
fn takes_value(opt: &str) -> bool {
    const FLAGS: &[&str] = &[
        "h",
        "help",
        "version",
        "snapshot",
        "no-fd-bootchk",
        "no-acpi",
        "no-hpet",
        "enable-kvm",
        "no-kvm",
        "S",
        "s",
        "nographic",
        "no-user-config",
        "nodefaults",
        "nodefconfig",
        "no-reboot",
        "no-shutdown",
        "daemonize",
        "usb",
        "full-screen",
        "alt-grab",
        "ctrl-grab",
        "no-quit",
        "sdl",
        "win2k-hack",
        "localtime",
        "portrait",
        "only-migratable",
        "preconfig",
        "show-cursor",
        "enable-sync-profile",
        "no-tsc-retry",
        "enable-fips",
        "curses",
        "mem-prealloc",
        "singlestep",
        "replay",
        "audio-help",
        "old-param",
        "semihosting",
        "no-frame",
        "xen-attach",
    ];
    !FLAGS.contains(&opt)
}

struct Rewriter<'a> {
    dir: &'a Path,
    made: BTreeMap<String, PathBuf>,
}

impl Rewriter<'_> {
    fn value(&mut self, opt: &str, v: &str) -> Res<String> {
        match opt {
            "hda" | "hdb" | "hdc" | "hdd" | "cdrom" | "sd" | "mtdblock" => self.file(v, Kind::Disk, None),
            "fda" | "fdb" => self.file(v, Kind::Floppy, None),
            "pflash" | "bios" => self.file(v, Kind::Rom, None),
            "kernel" => self.file(v, Kind::Kernel, None),
            "initrd" | "dtb" | "readconfig" => self.file(v, Kind::Plain, None),
            "mem-path" | "L" if v.starts_with('/') => self.file(v, Kind::Dir, None),
            "pidfile" | "D" => self.file(v, Kind::Fresh, None),
            "display" => Ok(if needs_screen(v) { "none".into() } else { v.to_owned() }),
            _ if v.starts_with('{') => self.json(v),
            _ => self.keyval(opt, v),
        }
    }

    fn json(&mut self, v: &str) -> Res<String> {
        let Ok(mut j) = serde_json::from_str::<Value>(v) else { return Ok(v.to_owned()) };
        self.json_value(&mut j)?;
        Ok(j.to_string())
    }

    fn json_value(&mut self, j: &mut Value) -> Res<()> {
        match j {
            Value::Object(m) => {
                m.remove("prealloc");
                let driver = m.get("driver").and_then(Value::as_str).unwrap_or_default().to_owned();
                let secret = m.get("qom-type").is_some_and(|t| t == "secret");
                let remote = matches!(driver.as_str(), "rbd" | "iscsi" | "nbd" | "ssh" | "nfs" | "gluster");
                for (k, v) in m.iter_mut() {
                    match v {
                        Value::String(s) if k == "filename" || k == "mem-path" || k == "path" => {
                            let kind = match k.as_str() {
                                "filename" if s.starts_with("/dev/") && !driver.contains("host") => continue,
                                "filename" => Kind::Disk,
                                "mem-path" => Kind::Dir,
                                _ => Kind::Fresh,
                            };
                            *s = self.file(s, kind, None)?;
                        }
                        Value::String(s) if k == "file" && secret => *s = self.file(s, Kind::Plain, None)?,
                        Value::String(s) if remote && (k == "host" || k == "portal") => {
                            *s = "127.0.0.1".into()
                        }
                        _ => self.json_value(v)?,
                    }
                }
            }
            Value::Array(a) => {
                for v in a {
                    self.json_value(v)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn keyval(&mut self, opt: &str, v: &str) -> Res<String> {
        if opt == "append" || opt == "name" {
            return Ok(v.to_owned());
        }
        // `,,` stands for a comma inside a value.
        let hidden = v.replace(",,", "\u{1}");
        let parts: Vec<&str> = hidden.split(',').collect();
        let format = parts.iter().find_map(|p| p.strip_prefix("format=")).map(str::to_owned);
        let pflash = parts.contains(&"if=pflash");
        let floppy = parts.contains(&"if=floppy");
        let node_ref = opt == "blockdev"
            && !parts.iter().any(|p| p.starts_with("driver=file") || p.starts_with("driver=host"));
        let waits = parts.iter().any(|p| matches!(*p, "server" | "server=on"))
            && !parts.iter().any(|p| matches!(*p, "nowait" | "wait=off" | "nowait=on"));
        let mut out = vec![];
        for p in parts {
            if matches!(p, "prealloc=on" | "prealloc=yes" | "prealloc=true") {
                continue;
            }
            out.push(match p.split_once('=') {
                Some((k, val)) => {
                    let kind = match (opt, k) {
                        ("drive", "file" | "file.filename") if pflash => Kind::Rom,
                        ("drive", "file" | "file.filename") if floppy => Kind::Floppy,
                        ("blockdev", "file" | "backing") if node_ref => {
                            out.push(p.to_owned());
                            continue;
                        }
                        (
                            "drive" | "blockdev",
                            "file" | "filename" | "file.filename" | "backing.file.filename",
                        ) => Kind::Disk,
                        ("object", "mem-path") => Kind::Dir,
                        ("object", "filename" | "file") if !val.starts_with("/dev/") => Kind::Plain,
                        ("object", "file") => Kind::Fresh,
                        ("smbios" | "fw_cfg" | "acpitable", "file" | "path" | "data") => Kind::Plain,
                        ("fsdev" | "virtfs", "path") | ("netdev" | "net" | "nic", "tftp") => Kind::Dir,
                        ("chardev", "path" | "logfile") if !val.starts_with("/dev/") => Kind::Fresh,
                        ("boot", "splash") => Kind::Plain,
                        ("netdev" | "net", "connect") => {
                            out.push(format!("{k}=127.0.0.1:{}", val.rsplit(':').next().unwrap_or("1")));
                            continue;
                        }
                        _ => {
                            out.push(format!("{k}={}", self.local(val)));
                            continue;
                        }
                    };
                    format!("{k}={}", self.file(val, kind, format.as_deref())?)
                }
                None => self.local(p),
            });
        }
        if waits {
            // Nobody will connect.
            out.push("wait=off".into());
        }
        Ok(out.join(",").replace('\u{1}', ",,"))
    }

    /// A value that may be `unix:PATH`, `file:PATH`, `pipe:PATH` -> into the folder.
    fn local(&mut self, v: &str) -> String {
        for scheme in ["unix:", "file:", "pipe:"] {
            if let Some(p) = v.strip_prefix(scheme) {
                let base = p.rsplit('/').next().unwrap_or(p);
                return format!("{scheme}{}", self.dir.join(base).display());
            }
        }
        v.to_owned()
    }

    /// The replacement for one named file.
    fn file(&mut self, name: &str, kind: Kind, format: Option<&str>) -> Res<String> {
        if name.is_empty() || name == "none" || name == "-" {
            return Ok(name.to_owned());
        }
        if let Some(rest) = name.strip_prefix("fat:") {
            let (flags, p) = rest.rsplit_once(':').unwrap_or(("", rest));
            let d = self.file(p, Kind::Dir, None)?;
            return Ok(if flags.is_empty() { format!("fat:{d}") } else { format!("fat:{flags}:{d}") });
        }
        if let Some((scheme, rest)) = name.split_once("://") {
            // Never a host but this one.
            let path = rest.split_once('/').map(|(_, p)| p).unwrap_or_default();
            return Ok(format!("{scheme}://127.0.0.1/{path}"));
        }
        if ["nbd:", "rbd:", "ssh:", "json:"].iter().any(|s| name.starts_with(s)) {
            return Ok(format!("{}127.0.0.1:1", &name[..=name.find(':').unwrap_or(0)]));
        }
        if let Some(p) = self.made.get(name) {
            return Ok(p.to_string_lossy().into_owned());
        }
        let base: String =
            name.trim_end_matches('/').rsplit('/').next().unwrap_or("x").replace([' ', ',', ':'], "_");
        let mut path = self.dir.join(&base);
        if path.exists() {
            path = self.dir.join(format!("{}_{base}", self.made.len()));
        }
        make(&path, kind, format)?;
        self.made.insert(name.to_owned(), path.clone());
        Ok(path.to_string_lossy().into_owned())
    }
}

fn needs_screen(v: &str) -> bool {
    ["sdl", "gtk", "cocoa", "curses", "spice-app", "egl-headless", "vnc", "dbus"]
        .iter()
        .any(|d| v.starts_with(d))
}

fn make(path: &Path, kind: Kind, format: Option<&str>) -> Res<()> {
    let put = |data: &[u8]| std::fs::write(path, data).map_err(|e| format!("{}: {e}", path.display()));
    let ext = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
    match kind {
        Kind::Dir => std::fs::create_dir_all(path).map_err(|e| e.to_string()),
        Kind::Fresh => Ok(()),
        Kind::Plain => put(b"# empty\n"),
        Kind::Rom if format == Some("qcow2") => make_image(path, "qcow2", 256 << 10),
        Kind::Rom => put(&vec![0; 256 << 10]),
        Kind::Kernel => crate::guests::bzimage_for_parsing().and_then(|d| put(&d)),
        Kind::Floppy => put(&vec![0; 1_474_560]),
        Kind::Disk => match format.unwrap_or(if ext == "qcow2" { "qcow2" } else { "raw" }) {
            f @ ("qcow2" | "vmdk" | "vdi" | "vpc" | "vhdx" | "qed") => make_image(path, f, 16 << 20),
            _ => make_image(path, "raw", 16 << 20),
        },
    }
}

/// An empty image of `size` bytes; made by `qemu-img`, except raw.
pub fn make_image(path: &Path, format: &str, size: u64) -> Res<()> {
    if format == "raw" {
        let f = std::fs::File::create(path).map_err(|e| format!("{}: {e}", path.display()))?;
        return f.set_len(size).map_err(|e| e.to_string());
    }
    let out = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", format])
        .arg(path)
        .arg(size.to_string())
        .output()
        .map_err(|e| format!("qemu-img: {e}"))?;
    if out.status.success() {
        Ok(())
    } else {
        Err(format!("qemu-img: {}", String::from_utf8_lossy(&out.stderr)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(words: &[&str]) -> (Vec<String>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let argv: Vec<String> = words.iter().map(|s| s.to_string()).collect();
        let r = rewrite(&argv, dir.path()).unwrap();
        let d = dir.path().to_string_lossy().into_owned();
        (r.argv.iter().map(|a| a.replace(&d, "D")).collect(), dir)
    }

    #[test]
    fn replaces_files_and_keeps_the_rest() {
        let (v, dir) =
            run(&["-m", "1G", "-drive", "file=/a/b/x.img,if=virtio,format=raw", "-S", "-hda", "y.img"]);
        assert_eq!(v, ["-m", "1G", "-drive", "file=D/x.img,if=virtio,format=raw", "-S", "-hda", "D/y.img"]);
        assert_eq!(std::fs::metadata(dir.path().join("x.img")).unwrap().len(), 16 << 20);
    }

    #[test]
    fn sockets_screens_and_remote_hosts() {
        let (v, _d) = run(&["-qmp", "unix:/tmp/q,server,nowait", "-display", "gtk,gl=on", "-mem-prealloc"]);
        assert_eq!(v, ["-qmp", "unix:D/q,server,nowait", "-display", "none"]);
        let (v, _d) = run(&["-drive", "file=iscsi://10.0.0.1/iqn/0,id=a"]);
        assert_eq!(v, ["-drive", "file=iscsi://127.0.0.1/iqn/0,id=a"]);
    }
}
