//! How the process runs: start, stop, security, logging.

use super::chardev::CharPort;
use super::loc::{Loc, Word};

/// What the VM does about events, `-action` and its short forms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActionSpec {
    /// Guest reset: `Some(true)` = exit instead (`-no-reboot`, `reboot=shutdown`).
    pub reboot_is_shutdown: bool,
    /// Guest power off: pause instead of exit (`-no-shutdown`, `shutdown=pause`).
    pub shutdown_pauses: bool,
    /// Guest panic.
    pub panic: PanicAction,
    /// Watchdog.
    pub watchdog: WatchdogAction,
}

/// `-action panic=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PanicAction {
    /// Stop the VM.
    Pause,
    /// Power off, or pause under `shutdown=pause`.
    #[default]
    Shutdown,
    /// Exit with a failing status.
    ExitFailure,
    /// Only the event.
    None,
}

/// `-action watchdog=`, `-watchdog-action`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogAction {
    /// Reset the guest.
    #[default]
    Reset,
    /// ACPI power button.
    Shutdown,
    /// Power off.
    Poweroff,
    /// Stop the VM.
    Pause,
    /// Print a line.
    Debug,
    /// Only the event.
    None,
    /// NMI to the guest.
    InjectNmi,
}

/// `-name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSpec {
    /// Guest name.
    pub guest: Option<String>,
    /// Process name (`prctl`).
    pub process: Option<String>,
    /// Name threads (`CPU 0/KVM`).
    pub debug_threads: bool,
}

/// Process-wide switches.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunSpec {
    /// `-S`: do not start the vCPUs.
    pub start_stopped: bool,
    /// `-preconfig`.
    pub preconfig: bool,
    /// `-daemonize`.
    pub daemonize: bool,
    /// `-pidfile`.
    pub pidfile: Option<String>,
    /// `-incoming`: `defer` or a URI.
    pub incoming: Option<Word>,
    /// `-loadvm`.
    pub loadvm: Option<String>,
    /// `-only-migratable`.
    pub only_migratable: bool,
    /// Reactions to guest events.
    pub action: ActionSpec,
    /// `-gdb` (or `-s`): the stub's chardev (`gdb`).
    pub gdb: Option<CharPort>,
    /// `-chroot`.
    pub chroot: Option<String>,
    /// `-runas`.
    pub runas: Option<Word>,
    /// `-sandbox`.
    pub sandbox: Option<SandboxSpec>,
    /// `-add-fd`.
    pub fds: Vec<AddFdSpec>,
    /// `-overcommit mem-lock`.
    pub mem_lock: bool,
    /// `-overcommit cpu-pm`.
    pub cpu_pm: bool,
    /// `-icount`.
    pub icount: Option<IcountSpec>,
    /// `-msg timestamp`.
    pub msg_timestamp: bool,
    /// `-msg guest-name`.
    pub msg_guest_name: bool,
    /// Logging (`-d`, `-D`, `-dfilter`, `-trace`).
    pub log: LogSpec,
    /// `-seed`.
    pub seed: Option<u64>,
    /// `-echr`: the escape character of mux chardevs; default 1 (Ctrl-A).
    pub escape_char: Option<u8>,
    /// `-singlestep`.
    pub singlestep: bool,
    /// `-async-teardown`.
    pub async_teardown: bool,
    /// `-qtest`: the chardev (`qtest`).
    pub qtest: Option<CharPort>,
    /// `-qtest-log` file.
    pub qtest_log: Option<String>,
    /// `-win2k-hack`: IDE works around the disk-full bug of the Windows 2000 installer.
    pub win2k_hack: bool,
    /// `-dump-vmstate`.
    pub dump_vmstate: Option<Word>,
}

/// `-d`, `-D`, `-dfilter`, `-trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSpec {
    /// Items of `-d`, checked.
    pub items: Vec<String>,
    /// `-D`.
    pub file: Option<String>,
    /// Address ranges of `-dfilter`, inclusive.
    pub ranges: Vec<(u64, u64)>,
}

/// `-sandbox on,…`: true = the group of system calls is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SandboxSpec {
    /// `obsolete=deny` (the default).
    pub deny_obsolete: bool,
    /// `elevateprivileges`.
    pub elevate: Elevate,
    /// `spawn=deny`.
    pub deny_spawn: bool,
    /// `resourcecontrol=deny`.
    pub deny_resource_control: bool,
}

/// `-sandbox elevateprivileges=`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Elevate {
    /// Allowed.
    #[default]
    Allow,
    /// Denied.
    Deny,
    /// Denied here, allowed to children that `execve` (PR_SET_NO_NEW_PRIVS).
    Children,
}

/// `-add-fd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddFdSpec {
    /// Inherited descriptor (above 2).
    pub fd: i32,
    /// fd set id.
    pub set: i64,
    /// Free text.
    pub opaque: Option<String>,
    /// Error prefix.
    pub loc: Loc,
}

/// `-icount`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IcountSpec {
    /// 2^N ns an instruction, 0..=10; `None` = auto.
    pub shift: Option<u8>,
    /// Keep guest and host clock aligned.
    pub align: bool,
    /// Real time sleeps while CPUs idle.
    pub sleep: bool,
    /// `rr=record` / `rr=replay` with file and snapshot.
    pub rr: Option<(String, String, Option<String>)>,
}
