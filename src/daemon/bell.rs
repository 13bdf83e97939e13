//! A bell: what a thread can poll for together with a client's socket.
//!
//! A condition variable cannot be waited for beside a descriptor, so a handler that waits for the daemon's
//! own doings would have to look after its client every so often. It waits for both at once instead.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;

use crate::daemon::error::{Error, Result};

/// Readable from [`Bell::ring`] until [`Bell::silence`].
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// System, when there are no descriptors left.
    pub fn new() -> Result<Bell> {
        rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Bell)
            .map_err(|cause| Error::system("make an event descriptor", cause))
    }

    pub fn ring(&self) {
        // EAGAIN means that it rings already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    pub fn silence(&self) {
        // EAGAIN means that it is silent already.
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
