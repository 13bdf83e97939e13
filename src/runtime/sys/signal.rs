//! Signals by number: dispositions, masks, waiting, sending.
//!
//! Numbers, not names: real-time signals (34..=64) have none in rustix.
#![allow(unsafe_code, reason = "signal sets and siginfo are C structures filled in place")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// The largest signal number of Linux on every architecture we build for.
pub const MAX: i32 = 64;

/// Gives every signal its default disposition and unblocks all: what a fresh program expects. (Rust's
/// runtime ignores SIGPIPE, glibc's posix_spawn the two signals it keeps to itself, and an ignored signal stays
/// ignored across execve.)
pub fn reset() {
    // The kernel's sigaction: handler, flags, restorer, mask. All zero is SIG_DFL.
    let default = [0_u64; 4];
    for number in 1..=MAX {
        // Not signal(3), which refuses libc's own signals. KILL and STOP are refused by the kernel, which is as good.
        // SAFETY: the structure is live and of the size of the kernel's, a null old one is allowed, 8 is the size
        // of the kernel's signal set, and SIG_DFL installs no code of ours.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                number,
                default.as_ptr(),
                std::ptr::null_mut::<libc::c_void>(),
                size_of::<u64>(),
            )
        };
    }
    change_mask(libc::SIG_SETMASK, &empty());
}

/// Blocks every signal that can be blocked, for [`wait`] to take them one by one.
pub fn block_all() {
    let mut all = empty();
    // SAFETY: `all` is a live sigset_t.
    unsafe { libc::sigfillset(&raw mut all) };
    change_mask(libc::SIG_BLOCK, &all);
}

/// Waits for a blocked signal and takes it. Interruptions are waited out.
pub fn wait() -> i32 {
    let mut all = empty();
    // SAFETY: `all` is a live sigset_t.
    unsafe { libc::sigfillset(&raw mut all) };
    loop {
        // SAFETY: the set is live, and a null siginfo is allowed.
        let number = unsafe { libc::sigwaitinfo(&raw const all, std::ptr::null_mut()) };
        if number > 0 {
            return number;
        }
    }
}

/// Sends signal `number` to the process `pidfd` refers to; 0 only probes.
///
/// # Errors
/// `ESRCH` when it has ended and been reaped, `EINVAL` for a number that is no signal.
pub fn send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the call, and a null siginfo is allowed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, info, 0) })?;
    Ok(())
}

/// Sends signal `number` to `pid`, as kill(2). The caller holds `pid` unreaped, or means a group (< 0).
///
/// # Errors
/// `ESRCH`, `EPERM`, `EINVAL`.
pub fn kill(pid: i32, number: i32) -> io::Result<()> {
    // SAFETY: takes two integers and touches no memory.
    check(unsafe { libc::kill(pid, number) }.into())?;
    Ok(())
}

fn empty() -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::uninit();
    // SAFETY: sigemptyset initialises the whole set it is given and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

fn change_mask(how: libc::c_int, set: &libc::sigset_t) {
    // SAFETY: `set` is live and initialised, the old mask is not asked for, and `how` is one of the three
    // constants, so the call cannot fail.
    unsafe { libc::sigprocmask(how, std::ptr::from_ref(set), std::ptr::null_mut()) };
}
