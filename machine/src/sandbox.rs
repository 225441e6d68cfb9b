//! `-sandbox`: a filter of system calls (seccomp, classic BPF) for the whole process.
//!
//! Which calls belong to which group follows QEMU's documentation of `-sandbox`. A forbidden call of the base, obsolete,
//! elevating or spawning group ends the process with SIGSYS; one that would take resources fails with EPERM. `clone3` is
//! answered with ENOSYS when spawning is denied, because its flags are out of a filter's sight; the C library then makes
//! threads by `clone`.
//!
//! Reference: the kernel's `Documentation/userspace-api/seccomp_filter.rst`.

use crate::spec::{Elevate, SandboxSpec};
use crate::{qerr, QResult};

/// Never needed by a virtual machine.
const BASE: &[libc::c_long] = &[
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
];

/// `elevateprivileges=deny`.
const ELEVATE: &[libc::c_long] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
];

/// `resourcecontrol=deny`.
const RESOURCES: &[libc::c_long] = &[
    libc::SYS_setpriority,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setaffinity,
];

#[cfg(target_arch = "x86_64")]
mod arch {
    /// AUDIT_ARCH_X86_64.
    pub const AUDIT: u32 = 0xc000_003e;
    /// `obsolete=deny`.
    pub const OBSOLETE: &[libc::c_long] =
        &[libc::SYS__sysctl, libc::SYS_sysfs, libc::SYS_uselib, libc::SYS_ustat];
    /// `spawn=deny`, besides `clone` without `CLONE_THREAD`.
    pub const SPAWN: &[libc::c_long] =
        &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_execve, libc::SYS_execveat];
}

#[cfg(target_arch = "aarch64")]
mod arch {
    /// AUDIT_ARCH_AARCH64.
    pub const AUDIT: u32 = 0xc000_00b7;
    /// This architecture never had them.
    pub const OBSOLETE: &[libc::c_long] = &[];
    /// `spawn=deny`, besides `clone` without `CLONE_THREAD`.
    pub const SPAWN: &[libc::c_long] = &[libc::SYS_execve, libc::SYS_execveat];
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const JUMP_BITS: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`.
const NR: u32 = 0;
const ARCH: u32 = 4;
/// Low half of the first argument on little-endian hosts.
const ARG0: u32 = 16;

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

fn errno(e: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | e as u32
}

/// The filter program.
fn program(spec: &SandboxSpec) -> Vec<libc::sock_filter> {
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    let mut p = vec![op(LOAD, 0, 0, ARCH), op(JUMP_EQUAL, 1, 0, arch::AUDIT), op(RETURN, 0, 0, KILL)];
    p.push(op(LOAD, 0, 0, NR));
    let mut deny = |calls: &[libc::c_long], action: u32| {
        for nr in calls {
            p.push(op(JUMP_EQUAL, 0, 1, *nr as u32));
            p.push(op(RETURN, 0, 0, action));
        }
    };
    deny(BASE, KILL);
    if spec.deny_obsolete {
        deny(arch::OBSOLETE, KILL);
    }
    if spec.elevate == Elevate::Deny {
        deny(ELEVATE, KILL);
    }
    if spec.deny_resource_control {
        deny(RESOURCES, errno(libc::EPERM));
    }
    if spec.deny_spawn {
        deny(arch::SPAWN, KILL);
        deny(&[libc::SYS_clone3], errno(libc::ENOSYS));
        p.extend([
            op(JUMP_EQUAL, 0, 3, libc::SYS_clone as u32),
            op(LOAD, 0, 0, ARG0),
            op(JUMP_BITS, 1, 0, libc::CLONE_THREAD as u32),
            op(RETURN, 0, 0, KILL),
        ]);
    }
    p.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    p
}

/// Filters this process and all its threads from now on. New programs can gain no privileges afterwards.
///
/// # Errors
/// The kernel has no seccomp.
pub fn enter(spec: &SandboxSpec) -> QResult<()> {
    let mut p = program(spec);
    let failed = || qerr!("failed to install seccomp syscall filter in the kernel");
    let prog = libc::sock_fprog { len: p.len() as u16, filter: p.as_mut_ptr() };
    // SAFETY: plain prctl without pointers; `prog` and the program that it points to outlive the second call.
    let ok = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &prog,
            ) == 0
    };
    if ok {
        Ok(())
    } else {
        Err(failed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `f` in a child under the filter; returns the child's wait status.
    fn child(spec: &SandboxSpec, f: fn() -> i32) -> i32 {
        // SAFETY: the child only makes system calls and exits without unwinding.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                let code = if enter(spec).is_ok() { f() } else { 99 };
                libc::_exit(code);
            }
            let mut status = 0;
            libc::waitpid(pid, &mut status, 0);
            status
        }
    }

    fn killed(status: i32) -> bool {
        libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSYS
    }

    fn exited(status: i32) -> Option<i32> {
        libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status))
    }

    fn fork() -> i32 {
        // SAFETY: the grandchild ends at once.
        match unsafe { libc::fork() } {
            // SAFETY: as above.
            0 => unsafe { libc::_exit(0) },
            _ => 0,
        }
    }

    fn set_uid() -> i32 {
        // SAFETY: plain call; it sets what is set already.
        unsafe { libc::setuid(libc::getuid()) }
    }

    fn set_priority() -> i32 {
        // SAFETY: plain call.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    #[test]
    fn groups_are_denied_when_asked_for() {
        let open = SandboxSpec { deny_obsolete: true, ..SandboxSpec::default() };
        assert_eq!(exited(child(&open, fork)), Some(0));
        assert_eq!(exited(child(&open, set_uid)), Some(0));
        assert!(killed(child(&SandboxSpec { deny_spawn: true, ..open }, fork)));
        assert!(killed(child(&SandboxSpec { elevate: Elevate::Deny, ..open }, set_uid)));
        let poor = SandboxSpec { deny_resource_control: true, ..open };
        assert_eq!(exited(child(&poor, set_priority)), Some(libc::EPERM));
    }

    #[test]
    fn jumps_stay_inside() {
        let all = SandboxSpec {
            deny_obsolete: true,
            elevate: Elevate::Deny,
            deny_spawn: true,
            deny_resource_control: true,
        };
        let p = program(&all);
        for (i, op) in p.iter().enumerate() {
            assert!(i + 1 + usize::from(op.jt.max(op.jf)) <= p.len());
        }
    }
}
