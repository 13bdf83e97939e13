//! `seccomp(2)`: loading a filter into the calling thread.
#![allow(unsafe_code, reason = "a filter is passed as pointer and length")]

use std::io;

use super::check;

/// Loads `filter`; it holds for this thread and everything it executes, for good.
///
/// `flags` is a set of `SECCOMP_FILTER_FLAG_*`.
///
/// # Errors
/// `EACCES` without `no_new_privs` and without CAP_SYS_ADMIN; `EINVAL` for a filter the kernel refuses or a
/// flag it does not know.
pub fn load(filter: &[libc::sock_filter], flags: libc::c_ulong) -> io::Result<()> {
    let Ok(len) = u16::try_from(filter.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: `program` names exactly the live slice `filter`; the kernel copies it and writes nothing.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })?;
    Ok(())
}
