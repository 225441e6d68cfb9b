//! A domain of libvirt (Debian's libvirt-daemon-system) with our program as its emulator: a daemon of the test's own, with
//! its own folders. Skipped where libvirt is not installed.

use rqemu_compat::areas::Sides;
use rqemu_compat::bins::{have_kvm, Bin};
use rqemu_compat::guests::images;
use rqemu_compat::proc::{Cmd, Exit, Proc};
use rqemu_compat::stream::Stream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);
const DAEMON: &str = "/usr/sbin/libvirtd";
const NAME: &str = "rqemu-compat";

/// libvirtd with its own folders; as root a system daemon in a mount namespace of its own, else a session daemon.
struct Daemon {
    dir: tempfile::TempDir,
    uri: String,
    _proc: Proc,
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|s| s.contains("Uid:\t0\t0"))
}

fn tool(path: &str) -> Bin {
    Bin { path: path.into(), side: "ours" }
}

impl Daemon {
    fn start() -> Daemon {
        let dir = tempfile::Builder::new().prefix("rqc").tempdir().unwrap();
        let d = dir.path().to_str().unwrap();
        for sub in ["etc/libvirt", "run", "lib", "cache", "log"] {
            std::fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let socket = if is_root() { format!("{d}/run") } else { format!("{d}/run/libvirt") };
        let conf = format!("unix_sock_dir = \"{socket}\"\nauth_unix_rw = \"none\"\nlog_outputs = \"3:file:{d}/log/libvirtd\"\n");
        std::fs::create_dir_all(&socket).unwrap();
        std::fs::write(dir.path().join("etc/libvirt/libvirtd.conf"), conf).unwrap();
        // No control groups, no change of user: a container has neither.
        let qemu = "user = \"root\"\ngroup = \"root\"\ndynamic_ownership = 0\nremember_owner = 0\nsecurity_driver = \"none\"\n\
                    stdio_handler = \"file\"\ncgroup_controllers = []\nnamespaces = []\n";
        std::fs::write(dir.path().join("etc/libvirt/qemu.conf"), qemu).unwrap();
        let exec = format!("exec {DAEMON} -p {d}/pid -f {d}/etc/libvirt/libvirtd.conf");
        let proc = if is_root() {
            let bind =
                |(from, to): (&str, &str)| format!("mkdir -p {to} && mount --bind {d}/{from} {to} && ");
            let binds = [
                ("etc/libvirt", "/etc/libvirt"),
                ("run", "/run/libvirt"),
                ("lib", "/var/lib/libvirt"),
                ("cache", "/var/cache/libvirt"),
                ("log", "/var/log/libvirt"),
            ];
            let script = binds.map(bind).concat() + &exec;
            Cmd::new(&tool("unshare")).args(["-m", "--propagation", "private", "sh", "-c", &script])
        } else {
            let env = format!(
                "export HOME={d} XDG_CONFIG_HOME={d}/etc XDG_CACHE_HOME={d}/cache XDG_DATA_HOME={d}/lib XDG_RUNTIME_DIR={d}/run; "
            );
            Cmd::new(&tool("sh")).args(["-c", &(env + &exec)])
        };
        let proc = proc.spawn().unwrap();
        let mode = if is_root() { "system" } else { "session" };
        let uri = format!("qemu:///{mode}?socket={socket}/libvirt-sock");
        let daemon = Daemon { dir, uri, _proc: proc };
        let end = Instant::now() + LIMIT;
        while daemon.try_virsh(&["list"]).is_err() {
            assert!(Instant::now() < end, "libvirtd does not answer: {:?}", daemon.try_virsh(&["list"]));
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon
    }

    fn try_virsh(&self, args: &[&str]) -> Result<String, String> {
        let out = Cmd::new(&tool("virsh")).args(["-q", "-c", &self.uri]).args(args).run(LIMIT)?;
        if out.exit == Exit::Code(0) {
            Ok(out.stdout.trim().to_owned())
        } else {
            Err(format!("virsh {args:?}: {:?} {}", out.exit, out.stderr))
        }
    }

    fn virsh(&self, args: &str) -> String {
        self.try_virsh(&args.split_whitespace().collect::<Vec<_>>()).unwrap()
    }

    fn disk(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        let ok =
            Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("16M").status();
        assert!(ok.unwrap().success());
        path
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The guest outlives its daemon.
        let _ = self.try_virsh(&["destroy", NAME]);
    }
}

fn domain(emulator: &Path, kernel: &Path, disk: &Path) -> String {
    let (emulator, kernel, disk) = (emulator.display(), kernel.display(), disk.display());
    let kind = if have_kvm() { "kvm" } else { "qemu" };
    format!(
        "<domain type='{kind}'><name>{NAME}</name><memory unit='MiB'>128</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type><kernel>{kernel}</kernel><cmdline>where=0 by=libvirt</cmdline></os>
<features><acpi/><apic/></features>
<devices><emulator>{emulator}</emulator><controller type='usb' model='none'/>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>
<serial type='pty'><target port='0'/></serial><console type='pty'><target type='serial' port='0'/></console>
</devices></domain>"
    )
}

fn check_image(path: &Path) {
    let out = Command::new("qemu-img").args(["check", "-q"]).arg(path).output().unwrap();
    assert!(out.status.success(), "{path:?}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn a_domain_lives_and_changes_its_disks() {
    let emulator = Sides::from_env().ours.path;
    let installed = Path::new(DAEMON).exists() && Command::new("virsh").arg("--version").output().is_ok();
    if !emulator.exists() || !installed {
        eprintln!(
            "skipped: no libvirtd and virsh here (Debian packages libvirt-daemon-system, libvirt-clients)"
        );
        return;
    }
    let emulator = std::fs::canonicalize(emulator).unwrap();
    let d = Daemon::start();
    let (disk, extra) = (d.disk("disk.qcow2"), d.disk("extra.qcow2"));
    let xml = d.dir.path().join("domain.xml");
    std::fs::write(&xml, domain(&emulator, &images().unwrap().pvh, &disk)).unwrap();
    d.virsh(&format!("define {}", xml.display()));
    d.virsh(&format!("start {NAME} --paused"));
    // The console: what the guest writes on its serial line.
    let tty = d.virsh(&format!("ttyconsole {NAME}"));
    let console = Stream::reading(std::fs::File::open(&tty).unwrap());
    d.virsh(&format!("resume {NAME}"));
    let text = console.expect("done", LIMIT).unwrap();
    assert!(text.contains("arguments: where=0 by=libvirt"), "{text}");
    let info = d.virsh(&format!("dominfo {NAME}"));
    assert!(info.lines().any(|l| l.starts_with("State:") && l.ends_with("running")), "{info}");

    d.virsh(&format!("attach-disk {NAME} {} vdb --subdriver qcow2", extra.display()));
    let disks = d.virsh(&format!("domblklist {NAME}"));
    assert!(disks.contains("disk.qcow2") && disks.contains("extra.qcow2"), "{disks}");
    assert!(d.virsh(&format!("domblkinfo {NAME} vdb")).contains("16777216"));
    let rng = d.dir.path().join("rng.xml");
    std::fs::write(&rng, "<rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>").unwrap();
    d.virsh(&format!("attach-device {NAME} {}", rng.display()));
    assert!(d.virsh(&format!("dumpxml {NAME}")).contains("<rng model='virtio'>"));
    // The guest does not let go of it: a request, no error.
    d.virsh(&format!("detach-disk {NAME} vdb"));

    let overlay = d.dir.path().join("overlay.qcow2");
    d.virsh(&format!(
        "snapshot-create-as {NAME} s1 --disk-only --diskspec vda,file={} --diskspec vdb,snapshot=no",
        overlay.display()
    ));
    assert!(d.virsh(&format!("domblklist {NAME}")).contains("overlay.qcow2"));
    d.virsh(&format!("blockcommit {NAME} vda --active --pivot --wait"));
    let disks = d.virsh(&format!("domblklist {NAME}"));
    assert!(disks.contains("disk.qcow2") && !disks.contains("overlay.qcow2"), "{disks}");
    d.virsh(&format!("snapshot-delete {NAME} s1 --metadata"));

    d.virsh(&format!("suspend {NAME}"));
    assert_eq!(d.virsh(&format!("domstate {NAME}")), "paused");
    d.virsh(&format!("resume {NAME}"));
    d.virsh(&format!("reset {NAME}"));
    console.expect("done", LIMIT).unwrap();
    // A power button that this guest does not look at.
    d.virsh(&format!("shutdown {NAME}"));
    assert_eq!(d.virsh(&format!("domstate {NAME}")), "running");
    d.virsh(&format!("destroy {NAME}"));
    assert_eq!(d.virsh(&format!("domstate {NAME}")), "shut off");
    d.virsh(&format!("undefine {NAME}"));
    [&disk, &extra, &overlay].into_iter().for_each(|p| check_image(p));
}
