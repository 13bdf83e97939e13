//! Calling a build off, from outside or from one of its stages.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::daemon::bell::Bell;
use crate::daemon::error::{Error, Result};
use crate::http::registry;

/// A build that may be called off.
#[derive(Debug)]
pub struct Cancel {
    is_set: AtomicBool,
    bell: Bell,
    /// Ends what is fetched from the network.
    pub(super) requests: registry::Cancel,
}

impl Cancel {
    /// # Errors
    /// System, when there are no descriptors left.
    pub fn new() -> Result<Cancel> {
        Ok(Cancel {
            is_set: AtomicBool::new(false),
            bell: Bell::new()?,
            requests: registry::Cancel::default(),
        })
    }

    /// Calls it off, once and for all.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::SeqCst);
        self.requests.cancel();
        self.bell.ring();
    }

    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::SeqCst)
    }

    /// Fails once it is called off.
    pub(super) fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::conflict("build canceled")) } else { Ok(()) }
    }
}

impl AsFd for Cancel {
    /// Readable from the moment it is called off.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
