//! The allocator's manners.
#![allow(unsafe_code, reason = "mallopt and malloc_trim have no safe wrapper")]

use libc::{M_ARENA_MAX, M_TRIM_THRESHOLD};

/// Keeps the heap of a long-lived, many-threaded process small.
///
/// glibc gives each new thread an arena of its own up to eight per processor, and keeps what was freed in
/// it: after a burst of requests a daemon stayed at 15 MB where two arenas hold it below 3.
pub fn keep_small() {
    // SAFETY: mallopt only sets parameters of the allocator; both values are in their documented range
    // (mallopt(3)). It is called before any other thread is started, as it is not thread-safe.
    unsafe {
        libc::mallopt(M_ARENA_MAX, 2);
        libc::mallopt(M_TRIM_THRESHOLD, 128 * 1024);
    }
}

/// Gives freed memory back to the kernel.
pub fn trim() {
    // SAFETY: malloc_trim(3) takes the allocator's own locks and may be called from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
