//! Performance events, as far as breakpoints need them.
#![allow(unsafe_code, reason = "perf_event_open has no wrapper")]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::check;

/// `perf_event_attr` as its first version was, `PERF_ATTR_SIZE_VER0`: all kernels know it.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    event: u64,
    sampling: [u64; 3],
    flags: u64,
    breakpoint: [u64; 2],
}

/// Counts an event that never happens, in the calling thread, for as long as the descriptor is open.
///
/// A hardware breakpoint is such an event, too, and the first event of any thread costs the kernel an RCU grace period
/// (9 ms measured): it then turns on what its scheduler does for them, and off a second after the last.
///
/// # Errors
/// `ENOSYS` from a kernel without events; `EACCES` where only the mighty may count.
pub fn count_nothing() -> io::Result<OwnedFd> {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_COUNT_SW_DUMMY: u64 = 9;
    /// `disabled`, `exclude_kernel` and `exclude_hv`.
    const FLAGS: u64 = 0x61;
    let size = size_of::<Attributes>() as u32;
    let attributes = Attributes {
        kind: PERF_TYPE_SOFTWARE,
        size,
        event: PERF_COUNT_SW_DUMMY,
        flags: FLAGS,
        ..Attributes::default()
    };
    let (this_thread, any_processor, no_group, close_on_exec) = (0, -1, -1, 8);
    // SAFETY: `attributes` is a live perf_event_attr of the size it says; the kernel only reads it.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            this_thread,
            any_processor,
            no_group,
            close_on_exec,
        )
    })?;
    let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel has just made it, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_counted_where_that_is_allowed() {
        match count_nothing() {
            Ok(event) => {
                let mut count = [1; 8];
                assert_eq!(rustix::io::read(&event, &mut count), Ok(8));
                assert_eq!(count, [0; 8]);
            }
            Err(error) => {
                let refusals = [libc::ENOSYS, libc::EACCES, libc::EPERM].map(Some);
                assert!(refusals.contains(&error.raw_os_error()), "{error}");
            }
        }
    }
}
