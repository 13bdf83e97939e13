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

/// Writes a file's dirty pages back, without its metadata and without emptying the disk's cache, and waits for that: from
/// then on the first write to each page of a mapping is noted in the file's times. Blocks as long as the disk takes.
///
/// # Errors
/// `EIO`, `ENOSPC`, as the disk has it.
pub fn write_back(file: BorrowedFd<'_>) -> io::Result<()> {
    const ALL: libc::c_uint =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes integers and touches no memory.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, ALL) };
    check(done.into()).map(|_| ())
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

/// Whether the file that `handle`, of type `kind`, stands for can be opened on the mount that `mount` is on. Nothing of
/// it stays open, and opening it does nothing to it.
pub fn opens_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> bool {
    let Ok(length) = u32::try_from(handle.len()) else { return false };
    // struct file_handle: how many bytes, their type, the bytes; as words, for they must be aligned.
    let mut words = vec![length, kind.cast_unsigned()];
    words.extend(handle.chunks(4).map(|chunk| {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        u32::from_ne_bytes(four)
    }));
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: the descriptor is open, and `words` is a live file_handle with the bytes its head says; the kernel only
    // reads it.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), words.as_mut_ptr(), flags) };
    let Some(fd) = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0) else { return false };
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    true
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory. Closing descriptors other values own is what the
    // callers document; they execute another program or end right after.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}
