//! The floor: the only place where the kernel is spoken to without the compiler's proof.
//!
//! rustix's safe functions are called directly wherever they exist; here is what it lacks (clone3, execve,
//! mount_setattr, closing ranges of descriptors, signal dispositions, seccomp filters, interface ioctls) and
//! the few of its functions it cannot make safe for everybody. One function per system call, no policy;
//! a descriptor is an `OwnedFd` or a `BorrowedFd`, a failure is the call's errno. Every `unsafe` block of the
//! crate is below this module, one obligation per `SAFETY` line.
//!
//! Imports nothing of the crate.

pub mod bpf;
pub mod fd;
pub mod memory;
pub mod mount;
pub mod net;
pub mod perf;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod terminal;
pub mod time;

/// Turns a raw system call's result into a value or its errno.
fn check(result: libc::c_long) -> std::io::Result<libc::c_long> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}
