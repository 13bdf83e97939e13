//! Descriptors by number: what a process about to become somebody else's needs to know for sure.
//!
//! Descriptors that stay ours are `OwnedFd` and never come here.
#![allow(unsafe_code, reason = "closing and replacing descriptors by number breaks ownership on purpose")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::check;

/// Closes every descriptor `>= first` of this process. Only for a process that is about to execute another
/// program: every `OwnedFd` and `File` above `first` is dead afterwards.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, 0)
}

/// Marks every descriptor `>= first` close-on-exec.
///
/// # Errors
/// `EINVAL` before Linux 5.11.
pub fn cloexec_from(first: u32) -> io::Result<()> {
    close_range(first, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory. Closing descriptors other values own is what the
    // callers document; they execute another program or end right after.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) })?;
    Ok(())
}

/// Makes `number` a close-on-exec duplicate of `from`, closing what was there.
///
/// # Errors
/// `EINVAL` when `number` is `from` itself.
pub fn place(from: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: takes three integers and touches no memory. The caller owns the number it names: it is laying
    // out the descriptor table of a process that is about to execute another program.
    check(unsafe { libc::syscall(libc::SYS_dup3, from.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    Ok(())
}

/// Borrows descriptor `number` for the rest of this process.
///
/// The caller put it there with [`place`] and will not close it.
pub fn placed(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: `number` is not -1 (callers pass constants), and stays open until execve or exit because
    // nothing owns it.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn placing_replaces_and_keeps_reading() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let copy = rustix::io::fcntl_dupfd_cloexec(&writer, 700).unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&copy);
        super::place(writer.as_fd(), number).unwrap();
        rustix::io::write(super::placed(number), b"x").unwrap();
        drop((writer, copy));
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }
}
