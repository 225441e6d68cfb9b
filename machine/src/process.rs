//! The process around the machine: daemon, pid file, user, root directory, locked memory, names.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::error::strerror;
use crate::{qerr, QResult};

fn last_error() -> String {
    strerror(&std::io::Error::last_os_error())
}

/// Keeps all threads on one heap: each further arena costs address space, system calls and pages, and threads that
/// run the guest or its I/O allocate next to nothing. Call it before threads are started.
pub fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a parameter of the allocator; no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Lets go of the program's own code and constants, most of which only the start needed: what is used again comes back
/// from the page cache. Not under a debugger, whose breakpoints would be lost.
pub fn forget_start() {
    extern "C" {
        // The linker's names for the ends of what is loaded read-only, before the relocated data.
        static __executable_start: u8;
        static etext: u8;
    }
    let traced =
        std::fs::read_to_string("/proc/self/status").map_or(true, |s| !s.contains("TracerPid:\t0\n"));
    if traced {
        return;
    }
    let (start, end) = (&raw const __executable_start as usize, &raw const etext as usize & !0xfff);
    // SAFETY: the range is the program's file, mapped without write permission; a page that is dropped is read again
    // with the same contents when it is touched.
    unsafe {
        libc::madvise(start as *mut libc::c_void, end.saturating_sub(start), libc::MADV_DONTNEED);
    }
}

/// The child's end of a daemonized start: the parent exits when [`Daemon::ready`] is called, or fails when the child
/// ends before.
pub struct Daemon {
    status: File,
}

impl Daemon {
    /// Forks; returns only in the child. The parent waits for the child to be ready and exits with status 0 then, 1 if
    /// the child ended before. Must be called while the process has one thread.
    pub fn start() -> QResult<Self> {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for the two descriptors.
        if unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
            return Err(qerr!("cannot daemonize: {}", last_error()));
        }
        // SAFETY: both descriptors are new and owned by nobody else.
        let (mut reader, status) = unsafe { (File::from_raw_fd(fds[0]), File::from_raw_fd(fds[1])) };
        // SAFETY: the process has one thread, so the child may go on with everything.
        match unsafe { libc::fork() } {
            -1 => Err(qerr!("cannot daemonize: {}", last_error())),
            0 => {
                drop(reader);
                // SAFETY: plain calls.
                unsafe {
                    libc::setsid();
                    // A second fork gives up the session, so that no terminal can become the controlling one.
                    match libc::fork() {
                        0 => {}
                        p => libc::_exit(i32::from(p < 0)),
                    }
                    libc::umask(0o027);
                }
                Ok(Self { status })
            }
            _ => {
                drop(status);
                let mut byte = [1u8];
                let n = reader.read(&mut byte).unwrap_or(0);
                let failed = n != 1 || byte[0] != 0;
                // SAFETY: ends the parent without running the child's clean-up.
                unsafe { libc::_exit(i32::from(failed)) }
            }
        }
    }

    /// The machine is up: detaches from the terminal and lets the parent exit.
    pub fn ready(mut self) -> QResult<()> {
        std::env::set_current_dir("/").map_err(|e| qerr!("cannot chdir to /: {}", strerror(&e)))?;
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .map_err(|e| qerr!("cannot open /dev/null: {}", strerror(&e)))?;
        for fd in 0..3 {
            // SAFETY: plain descriptor duplication.
            unsafe { libc::dup2(null.as_raw_fd(), fd) };
        }
        self.status.write_all(&[0]).map_err(|e| qerr!("cannot report to parent: {}", strerror(&e)))
    }
}

/// A locked pid file, removed when dropped.
pub struct PidFile {
    path: PathBuf,
    _file: File,
}

impl PidFile {
    /// Creates, locks and fills the file (mode 0600).
    pub fn create(path: &str) -> QResult<Self> {
        let fail = |what: &str, e: &std::io::Error| qerr!("cannot create PID file: {what}: {}", strerror(e));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(|e| fail(&format!("Could not create '{path}'"), &e))?;
        // SAFETY: an all-zero flock asks for the whole file; the structure outlives the call.
        let locked = unsafe {
            let mut l: libc::flock = std::mem::zeroed();
            l.l_type = libc::F_WRLCK as i16;
            l.l_whence = libc::SEEK_SET as i16;
            libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &l)
        };
        if locked < 0 {
            return Err(fail("Cannot lock pid file", &std::io::Error::last_os_error()));
        }
        file.set_len(0).map_err(|e| fail("Failed to truncate pid file", &e))?;
        let pid = std::process::id();
        file.write_all(format!("{pid}\n").as_bytes()).map_err(|e| fail("Failed to write pid file", &e))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
        Ok(Self { path, _file: file })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // It may be out of reach after a chroot; nothing else to do then.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Changes the root directory.
pub fn chroot(dir: &str) -> QResult<()> {
    let c = CString::new(dir).map_err(|_| qerr!("chroot failed"))?;
    // SAFETY: `c` is a valid C string.
    if unsafe { libc::chroot(c.as_ptr()) } < 0 || std::env::set_current_dir("/").is_err() {
        return Err(qerr!("chroot failed"));
    }
    Ok(())
}

/// uid and gid of `user` (a name, or `uid:gid`).
///
/// # Errors
/// There is no such user.
pub fn user_ids(user: &str) -> QResult<(u32, u32)> {
    let ids = match user.split_once(':') {
        Some((u, g)) => u.parse().ok().zip(g.parse().ok()),
        None => lookup(user),
    };
    ids.ok_or_else(|| qerr!("User \"{user}\" doesn't exist (and is not <uid>:<gid>)"))
}

/// Becomes `user`.
///
/// # Errors
/// There is no such user, or this process may not become it.
pub fn run_as(user: &str) -> QResult<()> {
    let (uid, gid) = user_ids(user)?;
    // SAFETY: plain calls without pointers (an empty list is passed to setgroups).
    let ok = unsafe {
        libc::setgroups(0, std::ptr::null()) == 0 && libc::setgid(gid) == 0 && libc::setuid(uid) == 0
    };
    if !ok {
        return Err(qerr!("Failed to setuid({uid})"));
    }
    // SAFETY: plain call; it must fail now.
    if unsafe { libc::setuid(0) } == 0 {
        return Err(qerr!("Dropping privileges failed"));
    }
    Ok(())
}

/// uid and gid of a user name, from the password file.
fn lookup(user: &str) -> Option<(u32, u32)> {
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    text.lines().find_map(|l| {
        let mut f = l.split(':');
        if f.next()? != user {
            return None;
        }
        let _password = f.next()?;
        Some((f.next()?.parse().ok()?, f.next()?.parse().ok()?))
    })
}

/// Locks all memory.
pub fn lock_memory() -> QResult<()> {
    // SAFETY: plain call.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } < 0 {
        return Err(qerr!("mlockall: {}", last_error()).prepend("locking memory failed: "));
    }
    Ok(())
}

/// Sets the name that `ps` shows.
pub fn set_name(name: &str) {
    if let Ok(c) = CString::new(name) {
        // SAFETY: `c` is a valid C string; the kernel copies at most 16 bytes.
        unsafe { libc::prctl(libc::PR_SET_NAME, c.as_ptr()) };
    }
}

/// Command name of a process, for messages about signals.
pub fn command_of(pid: i32) -> String {
    std::fs::read(format!("/proc/{pid}/cmdline"))
        .ok()
        .and_then(|v| v.split(|b| *b == 0).next().map(|s| String::from_utf8_lossy(s).into_owned()))
        .filter(|s| !s.is_empty())
        .unwrap_or_else(|| "<unknown process>".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_file_is_written_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        let p = PidFile::create(path.to_str().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(p);
        assert!(!path.exists());
        let e = PidFile::create("/nonexistent/p").err().unwrap();
        assert_eq!(
            e.desc,
            "cannot create PID file: Could not create '/nonexistent/p': No such file or directory"
        );
    }

    #[test]
    fn unknown_user() {
        assert!(run_as("no-such-user-here").unwrap_err().desc.contains("doesn't exist"));
        assert_eq!(lookup("root"), Some((0, 0)));
    }
}
