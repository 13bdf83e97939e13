//! Descriptors by number: what a process about to become somebody else's needs to know for sure.
//!
//! Descriptors that stay ours are `OwnedFd`; here they only come in.
#![allow(unsafe_code, reason = "closing descriptors by number breaks ownership on purpose")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// Closes every descriptor `>= first` of this process but `keep`. Only for a process that is about to execute
/// another program: every other `OwnedFd` and `File` above `first` is dead afterwards.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_from(first: u32, keep: BorrowedFd<'_>) -> io::Result<()> {
    let keep = keep.as_raw_fd().cast_unsigned();
    if keep > first {
        close_range(first, keep - 1, 0)?;
    }
    close_range(first.max(keep.saturating_add(1)), libc::c_uint::MAX, 0)
}

/// Marks every descriptor `>= first` close-on-exec.
///
/// # Errors
/// `EINVAL` before Linux 5.11.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

/// Takes over descriptor `number`, which whoever started this program left open for it, and marks it close-on-exec.
/// Only for numbers that were announced, before anything else is opened: nobody else may own it.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherit(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers and touches no memory.
    let done = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    check(done.into())?;
    // SAFETY: it is open, and was handed to this process to be its own, as the caller knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory. Closing descriptors other values own is what the
    // callers document; they execute another program or end right after.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}
