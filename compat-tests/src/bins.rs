//! Which binaries are compared, and small facts about them.

use std::path::{Path, PathBuf};

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bin {
    /// Path, or a bare name to be found in `PATH`.
    pub path: PathBuf,
    /// `ours` or `qemu`: how reports call this side.
    pub side: &'static str,
}

impl Bin {
    /// The binary under test.
    pub fn ours() -> Bin {
        let path = std::env::var_os("RQEMU").map(PathBuf::from).unwrap_or_else(default_ours);
        Bin { path, side: "ours" }
    }

    /// The reference.
    pub fn qemu() -> Bin {
        let path = std::env::var_os("QEMU").map(PathBuf::from).unwrap_or_else(|| "qemu-system-x86_64".into());
        Bin { path, side: "qemu" }
    }

    /// `argv[0]`'s last component, which prefixes error lines.
    pub fn name(&self) -> String {
        self.path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// `target/<profile>/rqemu-system-x86_64` as seen from `target/<profile>/[deps/]<this program>`.
fn default_ours() -> PathBuf {
    const NAME: &str = "rqemu-system-x86_64";
    let exe = std::env::current_exe().unwrap_or_default();
    exe.ancestors().skip(1).take(2).map(|d| d.join(NAME)).find(|p| p.is_file()).unwrap_or_else(|| NAME.into())
}

/// The crate's folder (data, guests, scoreboard).
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where generated files go; not committed.
pub fn out_dir() -> PathBuf {
    let d = crate_dir().join("out");
    let _ = std::fs::create_dir_all(&d);
    d
}

/// Whether this user may open `/dev/kvm`.
pub fn have_kvm() -> bool {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

/// The reference must be there: without it nothing can be compared. Panics with the fix in the message.
pub fn require_qemu() {
    let out = std::process::Command::new(Bin::qemu().path).arg("--version").output();
    match out {
        Ok(o) if String::from_utf8_lossy(&o.stdout).starts_with("QEMU emulator version 7.2.") => {}
        Ok(o) => panic!("the reference is not QEMU 7.2: {}", String::from_utf8_lossy(&o.stdout)),
        Err(e) => {
            panic!("cannot run the reference {}: {e}; run scripts/setup.sh", Bin::qemu().path.display())
        }
    }
}
