//! `mount_setattr(2)`, which rustix lacks; the rest of the mount interface is rustix's.
#![allow(unsafe_code, reason = "mount_setattr has no safe wrapper")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::check;

/// `MOUNT_ATTR_RDONLY` and the like, to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// One of `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`; 0 leaves propagation alone.
    pub propagation: u64,
}

/// Whether a change reaches the mounts below the one named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The named mount only.
    One,
    /// And everything mounted below it.
    Recursive,
}

/// Changes the attributes of the mount `fd` refers to (a detached tree, or any path's `O_PATH` descriptor
/// that is the root of a mount).
///
/// # Errors
/// `ENOSYS` before Linux 5.12; `EINVAL` when `fd` is not the root of a mount.
pub fn set_attributes(fd: BorrowedFd<'_>, attributes: Attributes, reach: Reach) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    let flags = libc::AT_EMPTY_PATH | if reach == Reach::Recursive { libc::AT_RECURSIVE } else { 0 };
    let empty: &CStr = c"";
    // SAFETY: the path is NUL-terminated, `attr` is a live mount_attr and the size passed is its own; the
    // kernel reads both and keeps neither.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            empty.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })?;
    Ok(())
}
