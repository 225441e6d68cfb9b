//! A bounded child process: output captured, killed on drop, its CPU time known at the end.

use crate::bins::Bin;
use crate::stream::Stream;
use crate::Res;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// `exit(n)`.
    Code(i32),
    /// Killed by a signal.
    Signal(i32),
}

/// What a process used, from `wait4`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User CPU time, microseconds.
    pub user_us: u64,
    /// System CPU time, microseconds.
    pub sys_us: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
}

impl Usage {
    /// User + system, microseconds.
    pub fn cpu_us(&self) -> u64 {
        self.user_us + self.sys_us
    }
}

/// A finished run.
#[derive(Clone, Debug)]
pub struct Output {
    pub exit: Exit,
    pub stdout: String,
    pub stderr: String,
    pub usage: Usage,
}

/// What standard input is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Null,
    /// A pipe; stays open until [`Proc::close_stdin`].
    Pipe,
}

/// A command line to be run.
pub struct Cmd {
    bin: Bin,
    args: Vec<OsString>,
    dir: Option<PathBuf>,
    input: Input,
    fds: Vec<(OwnedFd, i32)>,
}

impl Cmd {
    /// `bin` without arguments.
    pub fn new(bin: &Bin) -> Cmd {
        Cmd { bin: bin.clone(), args: vec![], dir: None, input: Input::Null, fds: vec![] }
    }

    /// Adds one argument.
    pub fn arg(mut self, a: impl AsRef<OsStr>) -> Cmd {
        self.args.push(a.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, list: I) -> Cmd {
        self.args.extend(list.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds the words of `text` (split at blanks, no quoting).
    pub fn words(self, text: &str) -> Cmd {
        self.args(text.split_whitespace())
    }

    /// Working directory.
    pub fn dir(mut self, d: impl Into<PathBuf>) -> Cmd {
        self.dir = Some(d.into());
        self
    }

    /// Standard input is a pipe that stays open (default: `/dev/null`).
    pub fn pipe_stdin(mut self) -> Cmd {
        self.input = Input::Pipe;
        self
    }

    /// Passes `fd` to the child under the number `as_fd` (>= 3).
    pub fn pass_fd(mut self, fd: OwnedFd, as_fd: i32) -> Cmd {
        self.fds.push((fd, as_fd));
        self
    }

    /// Starts it.
    pub fn spawn(self) -> Res<Proc> {
        let mut c = Command::new(&self.bin.path);
        c.args(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped());
        c.stdin(if self.input == Input::Pipe { Stdio::piped() } else { Stdio::null() });
        if let Some(d) = &self.dir {
            c.current_dir(d);
        }
        let fds: Vec<(i32, i32)> = self.fds.iter().map(|(f, n)| (f.as_raw_fd(), *n)).collect();
        // SAFETY: the closure only makes async-signal-safe system calls and touches memory it owns.
        unsafe {
            c.pre_exec(move || {
                // If the test program dies, its children go too.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                for (from, to) in &fds {
                    if libc::dup2(*from, *to) < 0 {
                        return Err(std::io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        let mut child = c.spawn().map_err(|e| format!("cannot run {}: {e}", self.bin.path.display()))?;
        let pid = child.id() as i32;
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i32;
        if fd < 0 {
            let e = std::io::Error::last_os_error();
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("pidfd_open: {e}"));
        }
        // SAFETY: the descriptor is new and nothing else owns it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(fd) };
        let stdin = child.stdin.take().map(|s| File::from(OwnedFd::from(s)));
        let stdout = child.stdout.take().map(Stream::reading).unwrap_or_else(Stream::ended);
        let stderr = child.stderr.take().map(Stream::reading).unwrap_or_else(Stream::ended);
        Ok(Proc { pid, pidfd, stdin, stdout, stderr, done: None })
    }

    /// Runs it to its end. It is killed, and that is an error, when it takes longer than `timeout`.
    pub fn run(self, timeout: Duration) -> Res<Output> {
        self.spawn()?.finish(timeout)
    }
}

/// A running child. Dropping it kills it.
pub struct Proc {
    pid: i32,
    pidfd: OwnedFd,
    stdin: Option<File>,
    /// Its standard output.
    pub stdout: Stream,
    /// Its standard error.
    pub stderr: Stream,
    done: Option<(Exit, Usage)>,
}

impl Proc {
    /// Process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Writes to its standard input.
    pub fn write(&mut self, data: &[u8]) -> Res<()> {
        let f = self.stdin.as_mut().ok_or("no pipe to standard input")?;
        f.write_all(data).map_err(|e| format!("write to standard input: {e}"))
    }

    /// Closes its standard input.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for its end; `None` when it still runs after `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> Option<(Exit, Usage)> {
        if self.done.is_none() {
            let mut p = libc::pollfd { fd: self.pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            let ms = timeout.as_millis().min(i32::MAX as u128) as i32;
            // SAFETY: one valid pollfd.
            let n = unsafe { libc::poll(&mut p, 1, ms) };
            if n > 0 {
                self.done = Some(self.reap());
            }
        }
        self.done
    }

    /// Waits for its end and collects its output; kills it at the time limit.
    pub fn finish(mut self, timeout: Duration) -> Res<Output> {
        let Some((exit, usage)) = self.wait(timeout) else {
            self.kill();
            return Err(format!("still running after {timeout:?}; stderr {:?}", self.stderr.text()));
        };
        // A forked child (-daemonize) may hold the pipes: do not wait for ever.
        let grace = Duration::from_secs(2);
        let _ = self.stdout.to_end(grace);
        let _ = self.stderr.to_end(grace);
        Ok(Output { exit, usage, stdout: self.stdout.text(), stderr: self.stderr.text() })
    }

    /// Sends a signal.
    pub fn signal(&self, sig: i32) {
        if self.done.is_none() {
            // SAFETY: the child is not reaped yet, so the pid is still its own.
            unsafe { libc::kill(self.pid, sig) };
        }
    }

    /// Kills it and collects its usage.
    pub fn kill(&mut self) -> (Exit, Usage) {
        if let Some(d) = self.done {
            return d;
        }
        self.signal(libc::SIGKILL);
        let d = self.reap();
        self.done = Some(d);
        d
    }

    /// User + system CPU time so far of all its threads, microseconds, to this moment (`/proc` lags behind a thread
    /// that is running).
    pub fn cpu_us_now(&self) -> Res<u64> {
        let mut clock = 0;
        let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointers are to live locals.
        let bad = unsafe {
            libc::clock_getcpuclockid(self.pid as libc::pid_t, &mut clock) != 0
                || libc::clock_gettime(clock, &mut t) != 0
        };
        if bad {
            return Err(format!("no CPU clock of process {}", self.pid));
        }
        Ok(t.tv_sec as u64 * 1_000_000 + t.tv_nsec as u64 / 1000)
    }

    /// Proportional set size, KiB.
    pub fn pss_kib(&self) -> Res<u64> {
        let p = format!("/proc/{}/smaps_rollup", self.pid);
        let s = std::fs::read_to_string(&p).map_err(|e| format!("{p}: {e}"))?;
        s.lines()
            .find_map(|l| l.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| format!("{p}: no Pss line"))
    }

    /// Proportional set size as if no other process ran the same program, KiB: files that only processes of this program
    /// map count in full.
    pub fn pss_alone_kib(&self) -> Res<u64> {
        let exe = std::fs::read_link(format!("/proc/{}/exe", self.pid)).map_err(|e| format!("exe: {e}"))?;
        let common = files_of_others(&exe);
        let p = format!("/proc/{}/smaps", self.pid);
        let smaps = std::fs::read_to_string(&p).map_err(|e| format!("{p}: {e}"))?;
        let mut total = 0;
        let mut shared = true;
        for line in smaps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or("");
            if !first.ends_with(':') {
                let file = words.nth(4).unwrap_or("");
                shared = !file.starts_with('/') || common.contains(file);
            } else if first == if shared { "Pss:" } else { "Rss:" } {
                total += words.next().and_then(|k| k.parse::<u64>().ok()).unwrap_or(0);
            }
        }
        Ok(total)
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid)).map(|d| d.count()).unwrap_or(0)
    }

    fn reap(&self) -> (Exit, Usage) {
        let mut status = 0;
        // SAFETY: rusage is plain data, all zero is valid.
        let mut ru: libc::rusage = unsafe { std::mem::zeroed() };
        loop {
            // SAFETY: both pointers are to live locals; the pid is our own unreaped child.
            let r = unsafe { libc::wait4(self.pid, &mut status, 0, &mut ru) };
            if r == self.pid || std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                break;
            }
        }
        let exit = if libc::WIFSIGNALED(status) {
            Exit::Signal(libc::WTERMSIG(status))
        } else {
            Exit::Code(libc::WEXITSTATUS(status))
        };
        let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
        (exit, Usage { user_us: us(ru.ru_utime), sys_us: us(ru.ru_stime), max_rss_kib: ru.ru_maxrss as u64 })
    }
}

impl Drop for Proc {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Files that processes of other programs than `exe` have mapped.
fn files_of_others(exe: &std::path::Path) -> std::collections::HashSet<String> {
    let mut out = std::collections::HashSet::new();
    for p in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let other = std::fs::read_link(p.path().join("exe"));
        if other.is_ok_and(|e| e != exe) {
            let maps = std::fs::read_to_string(p.path().join("maps")).unwrap_or_default();
            out.extend(maps.lines().filter_map(|l| l.split_whitespace().nth(5)).map(str::to_owned));
        }
    }
    out
}
