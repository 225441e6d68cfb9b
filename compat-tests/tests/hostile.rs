//! Circumstances that a command line alone does not make: images and ports in use, no KVM, clients that send junk or
//! never read. What is printed and the exit status must be QEMU's.

use rqemu_compat::areas::errors::normalise;
use rqemu_compat::bins::{have_kvm, require_qemu, Bin};
use rqemu_compat::proc::{Cmd, Exit};
use rqemu_compat::vm::{Vm, SOON};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const NONE: &str = "-machine none -nodefaults -display none";
/// Stops before the guest runs; the sizes of the machine do not matter.
const PC: &str = "-machine pc,accel=kvm -nodefaults -display none -S";

/// Whether machines can be built here; says so if not.
fn kvm() -> bool {
    let have = have_kvm();
    if !have {
        eprintln!("skipped: needs /dev/kvm");
    }
    have
}

/// Exit status, standard output, standard error.
fn seen(bin: &Bin, cmd: Cmd, dir: &Path) -> (Exit, String, String) {
    let o = cmd.dir(dir).run(SOON).unwrap_or_else(|e| panic!("{}: {e}", bin.side));
    (o.exit, normalise(&o.stdout, bin, dir), normalise(&o.stderr, bin, dir))
}

/// Runs both with the words of `args` in `dir`; they must end alike, with status 1.
fn refused_alike(args: &str, dir: &Path) {
    require_qemu();
    let [ours, qemu] = [Bin::ours(), Bin::qemu()].map(|b| seen(&b, Cmd::new(&b).words(args), dir));
    assert_eq!(ours, qemu, "{args}");
    assert_eq!(ours.0, Exit::Code(1), "{args}");
}

fn qemu_img(dir: &Path, args: &str) {
    let out = std::process::Command::new("qemu-img").current_dir(dir).args(args.split(' ')).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn locked_image() {
    if !kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    qemu_img(dir.path(), "create -q -f qcow2 d.qcow2 1M");
    let path = dir.path().join("d.qcow2");
    for holder in [Bin::ours(), Bin::qemu()] {
        // A drive that no device uses holds no lock for writing.
        let args = format!("{PC} -drive file={},format=qcow2,if=virtio", path.display());
        let vm = Vm::start(&holder, &args).unwrap();
        refused_alike(&format!("{PC} -drive file=d.qcow2,format=qcow2,if=virtio"), dir.path());
        refused_alike(&format!("{PC} -hda d.qcow2"), dir.path());
        vm.quit().unwrap();
    }
    qemu_img(dir.path(), "check -q d.qcow2");
}

#[test]
fn wrong_backing_chains() {
    if !kvm() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    qemu_img(dir.path(), "create -q -f raw d.img 1M");
    qemu_img(dir.path(), "create -q -f qcow2 -u -b d.img -F qcow2 format.qcow2 1M");
    qemu_img(dir.path(), "create -q -f qcow2 -u -b gone.qcow2 -F qcow2 gone-top.qcow2 1M");
    for image in ["format.qcow2", "gone-top.qcow2"] {
        refused_alike(&format!("{PC} -drive file={image},format=qcow2,if=virtio"), dir.path());
    }
    // Images that back each other: QEMU stumbles over its own lock, which says less.
    qemu_img(dir.path(), "create -q -f qcow2 a.qcow2 1M");
    qemu_img(dir.path(), "create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2");
    qemu_img(dir.path(), "create -q -f qcow2 -b b.qcow2 -F qcow2 c.qcow2");
    qemu_img(dir.path(), "rebase -u -b c.qcow2 -F qcow2 a.qcow2");
    let ours = Bin::ours();
    let cmd = Cmd::new(&ours).words(&format!("{PC} -drive file=c.qcow2,format=qcow2,if=virtio"));
    let (exit, _, err) = seen(&ours, cmd, dir.path());
    assert_eq!(exit, Exit::Code(1));
    assert!(err.contains("Could not open backing file"), "{err}");
}

#[test]
fn ports_and_paths_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for option in ["-qmp", "-serial", "-parallel", "-debugcon"] {
        refused_alike(&format!("{NONE} {option} tcp:127.0.0.1:{port},server=on,wait=off"), dir.path());
    }
    if kvm() {
        refused_alike(&format!("{PC} -netdev socket,id=n,listen=127.0.0.1:{port}"), dir.path());
    }
    refused_alike(&format!("{NONE} -qmp unix:{},server=on,wait=off", "x".repeat(200)), dir.path());
    refused_alike(&format!("{NONE} -qmp unix:/nonexistent/q,server=on,wait=off"), dir.path());
    drop(taken);
    refused_alike(&format!("{NONE} -qmp tcp:127.0.0.1:{port}"), dir.path());
}

/// Runs both in a mount namespace where `hide` was done to `/dev`; skipped where that is not allowed.
fn without_kvm(hide: &str, args: &str) {
    require_qemu();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("empty"), "").unwrap();
    let run = |b: &Bin| {
        let script = format!("{hide} && exec \"$0\" \"$@\"");
        let sh = Bin { path: "unshare".into(), side: "ours" };
        let cmd = Cmd::new(&sh).args(["-m", "sh", "-c", &script]).arg(&b.path).words(args);
        seen(b, cmd, dir.path())
    };
    let [ours, qemu] = [Bin::ours(), Bin::qemu()].map(|b| run(&b));
    assert_eq!(ours, qemu, "{hide}; {args}");
    assert_eq!(ours.0, Exit::Code(1));
}

#[test]
fn no_kvm() {
    let dir = tempfile::tempdir().unwrap();
    let probe = Cmd::new(&Bin { path: "unshare".into(), side: "ours" }).args(["-m", "true"]);
    if !have_kvm() || probe.dir(dir.path()).run(SOON).map_or(true, |o| o.exit != Exit::Code(0)) {
        eprintln!("skipped: needs /dev/kvm and mount namespaces");
        return;
    }
    for args in ["-machine pc,accel=kvm", "-enable-kvm", "-accel kvm -accel foo"] {
        let args = format!("{args} -nodefaults -display none -S");
        without_kvm("mount --bind empty /dev/kvm", &args);
        without_kvm("mount -t tmpfs none /dev", &args);
    }
}

/// Sends `data`, then what every client ends with; returns the exit (`None`: it waits for more) and what was answered.
fn conversation(bin: &Bin, data: &[u8]) -> (Option<Exit>, String) {
    let mut p = Cmd::new(bin).words(NONE).args(["-qmp", "stdio"]).pipe_stdin().spawn().unwrap();
    p.stdout.expect("\"QMP\"", SOON).unwrap();
    // It may end before it has read all.
    let _ = p.write(data);
    let _ = p.write(b"\n{\"execute\":\"qmp_capabilities\"}\n{\"execute\":\"quit\"}\n");
    let exit = p.wait(Duration::from_secs(6)).map(|(e, _)| e);
    p.kill();
    let _ = p.stdout.to_end(SOON);
    let text = p.stdout.text();
    let lines = text.lines().skip(1).filter(|l| !l.starts_with("{\"timestamp\""));
    (exit, lines.collect::<Vec<_>>().join("\n"))
}

#[test]
fn junk_on_qmp() {
    require_qemu();
    let mib = 1 << 20;
    let inputs: [(&str, Vec<u8>); 6] = [
        ("half a request", b"{\"execute\":".to_vec()),
        ("blanks", vec![b' '; mib]),
        ("a word", vec![b'a'; mib]),
        ("a string", [b"\"", &vec![b'a'; mib][..], b"\""].concat()),
        ("brackets", vec![b'['; mib]),
        ("bytes", (0..mib).map(|i| (i * 7 + i / 256) as u8).collect()),
    ];
    for (name, data) in inputs {
        let [ours, qemu] = [Bin::ours(), Bin::qemu()].map(|b| conversation(&b, &data));
        assert_eq!(ours.0, qemu.0, "{name}");
        assert!(ours.1 == qemu.1, "{name}: {} bytes of answers, QEMU {}", ours.1.len(), qemu.1.len());
    }
}

#[test]
fn a_client_that_never_reads() {
    let ours = Bin::ours();
    let dir = tempfile::tempdir().unwrap();
    let sock = dir.path().join("deaf");
    let extra = format!("{NONE} -qmp unix:{},server=on,wait=off", sock.display());
    let mut vm = Vm::start(&ours, &extra).unwrap();
    let mut deaf = UnixStream::connect(&sock).unwrap();
    deaf.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    deaf.write_all(b"{\"execute\":\"qmp_capabilities\"}\n").unwrap();
    let request = b"{\"execute\":\"query-qmp-schema\"}\n".repeat(16);
    // Up to 16,000 requests of 200 KB of answer each: it must stop reading, not gather gigabytes.
    let blocked = (0..1000).any(|_| match deaf.write_all(&request) {
        Ok(()) => false,
        Err(e) => matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    });
    assert!(blocked, "a client that reads nothing was read for ever");
    let mib = vm.proc.pss_kib().unwrap() / 1024;
    assert!(mib < 64, "{mib} MiB");
    // Others are served meanwhile.
    assert_eq!(vm.query("query-status").unwrap()["status"], "running");
    // And it gets its answers when it reads at last.
    deaf.set_read_timeout(Some(SOON)).unwrap();
    let mut buf = vec![0; 1 << 20];
    deaf.read_exact(&mut buf).unwrap();
    vm.quit().unwrap();
}
