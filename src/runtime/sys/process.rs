//! Processes: making one in new namespaces, becoming another program, waiting.
//!
//! [`clone`] is fork(2) with clone3's flags and without libc's help: no atfork handler runs, so the caller
//! must be single-threaded (the shim and init are). Its child may then run ordinary Rust: the allocator's
//! locks are free because nobody else could hold them. A daemon with threads and a gigabyte of memory never
//! comes here; it starts the shim with `std::process::Command` without `pre_exec`, which is posix_spawn
//! (vfork underneath: no page tables copied, nothing of ours runs in the child).
#![allow(unsafe_code, reason = "clone3 and execve have no safe form")]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::{Pid, PidfdFlags, WaitOptions, WaitStatus};
use rustix::thread::UnshareFlags;

use super::{check, signal};

/// linux/sched.h; libc has it truncated to an int's type.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// On which side of a [`clone`] we are.
#[derive(Debug)]
pub enum Side {
    /// The new process.
    Child,
    /// The old one; `pid` as seen in its pid namespace.
    Parent { pid: i32, pidfd: OwnedFd },
}

/// Duplicates this single-threaded process into the namespaces named by `flags` (`CLONE_NEW*`). The child
/// dies unnoticed unless waited for; its end raises SIGCHLD.
///
/// `cgroup` is a cgroup2 directory the child is born in (Linux 5.7).
///
/// # Errors
/// `ENOSPC` when namespaces are exhausted, `EAGAIN` for too many processes, `ENOMEM` also when the pid
/// namespace set for children has lost its pid 1.
pub fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    let mut args = libc::clone_args {
        flags: flags | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: 0,
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a live clone_args of the size passed, its one pointer is to a live int. Without
    // CLONE_VM the child gets a copy of the address space, as after fork. The process is single-threaded
    // (the contract above), so no lock is held by a thread that does not exist in the child.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid: i32::try_from(pid).expect("a pid fits an int"), pidfd })
}

/// Duplicates this single-threaded process, as fork does, where seccomp may forbid clone3.
///
/// Container policies answer clone3 with `ENOSYS`, because they cannot look into its arguments; the older
/// call without namespace flags is always allowed. The child's end raises SIGCHLD.
///
/// # Errors
/// `EAGAIN` for too many processes, `ENOMEM`.
pub fn fork() -> io::Result<Side> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: a zero stack without CLONE_VM gives the child a copy of ours, as after fork; CLONE_PIDFD stores
    // an int through the third argument on every architecture, and the last two are unused. The process is
    // single-threaded (the contract above), so no lock is held by a thread that does not exist in the child.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) })?;
    if pid == 0 {
        return Ok(Side::Child);
    }
    // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor there, which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Side::Parent { pid: i32::try_from(pid).expect("a pid fits an int"), pidfd })
}

/// Replaces this process by the program at `path`.
///
/// # Errors
/// Returns only on failure, with execve's errno.
pub fn exec(path: &CStr, args: &[CString], env: &[CString]) -> io::Result<Infallible> {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: the path is NUL-terminated; both arrays are live, end in a null pointer and point to
    // NUL-terminated strings that outlive the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    Err(io::Error::last_os_error())
}

/// Ends this process at once, without destructors or exit handlers: for the child side of [`clone`], whose
/// buffers and handlers are copies of the parent's.
pub fn exit(code: i32) -> ! {
    // SAFETY: always allowed; nothing of this process runs afterwards.
    unsafe { libc::_exit(code) }
}

/// Removes a variable from this process's environment, so that no program started later inherits it.
///
/// # Errors
/// `EBUSY` once there is a second thread: it could be reading the environment.
pub fn forget_variable(name: &str) -> io::Result<()> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(rustix::io::Errno::BUSY.into());
    }
    // SAFETY: no other thread exists that could read the environment meanwhile.
    unsafe { std::env::remove_var(name) };
    Ok(())
}

/// Has a command begin with every signal at its default, which posix_spawn does not give it: see
/// [`signal::reset`]. It costs a fork, which copies page tables: for a shim, not for a daemon in a hurry.
pub fn with_fresh_signals(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let reset = || {
        signal::reset();
        Ok(())
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; `reset` makes system calls on its own
    // stack and nothing else.
    unsafe { command.pre_exec(reset) }
}

/// Moves the calling thread into new namespaces (`CLONE_NEW*` only).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` when exhausted.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    let allowed = flags.difference(UnshareFlags::FILES);
    // SAFETY: the one hazard is CLONE_FILES, and it is masked out: descriptors stay shared between threads.
    Ok(unsafe { rustix::thread::unshare_unsafe(allowed) }?)
}

/// Opens a pidfd for `pid`; close-on-exec.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// A child that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    pub pid: i32,
    /// As a shell says it: 0..=255, or 128 + signal.
    pub code: i32,
}

/// Waits for child `pid` and reaps it. Interruptions are waited out.
///
/// # Errors
/// `ECHILD` when it is not ours.
pub fn wait(pid: i32) -> io::Result<Ended> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match rustix::process::waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                return Ok(Ended { pid: pid.as_raw_nonzero().get(), code: exit_code(status) });
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Reaps child `pid` if it has ended. `None` when it has not.
///
/// # Errors
/// `ECHILD` when it is not ours.
pub fn try_wait(pid: i32) -> io::Result<Option<Ended>> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let waited = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG))?;
    Ok(waited.map(|(pid, status)| Ended { pid: pid.as_raw_nonzero().get(), code: exit_code(status) }))
}

/// The children of the calling thread, ended ones included. Empty on a kernel that does not tell
/// (`CONFIG_PROC_CHILDREN`, which CRIU needs too).
pub fn children() -> Vec<i32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Reaps one ended child, whichever. `None` when children are left but none has ended, or none is left.
pub fn reap() -> Option<Ended> {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                return Some(Ended { pid: pid.as_raw_nonzero().get(), code: exit_code(status) });
            }
            Err(rustix::io::Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

/// A wait status as a shell says it: the exit code, or 128 + signal.
pub fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        // Neither ended nor killed cannot come from a wait without WUNTRACED and WCONTINUED.
        (None, None) => 255,
    }
}

/// Whether two processes have the same memory, not copies of it.
///
/// # Errors
/// `ESRCH` when one is gone; `ENOSYS` from a kernel without kcmp(2).
pub fn shares_memory(one: i32, other: i32) -> io::Result<bool> {
    const KCMP_VM: libc::c_int = 1;
    // SAFETY: takes integers and touches no memory.
    check(unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_VM, 0, 0) }).map(|order| order == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_reports_its_exit_code_and_its_signal() {
        match clone(0, None).unwrap() {
            Side::Child => exit(42),
            Side::Parent { pid, .. } => assert_eq!(wait(pid).unwrap(), Ended { pid, code: 42 }),
        }
        match clone(0, None).unwrap() {
            Side::Child => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).ok();
                exit(0)
            }
            Side::Parent { pid, .. } => assert_eq!(wait(pid).unwrap().code, 137),
        }
    }

    #[test]
    fn exec_reports_a_missing_program() {
        let error = exec(c"/no/such/program", &[c"x".to_owned()], &[]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
