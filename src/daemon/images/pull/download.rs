//! One blob as a stream that mends itself: resumed where the connection broke, tried again after a pause, ended
//! when nobody wants it.
//!
//! The reader gives exactly as many bytes as the manifest said, or an error; their digest is the business of
//! whoever reads. The failure itself is kept, because what reads through a decompressor only learns that there was
//! one.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use crate::daemon::images::Digest;
use crate::http::registry::{Cancel, Registry, RegistryError, is_cancelled};

/// The pause before the second attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);
const SLICE: Duration = Duration::from_millis(100);
/// Attempts are counted anew once so much more has come: a line that breaks every now and then is slow, not dead.
const PROGRESS_BYTES: u64 = 4 << 20;

/// What a download tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many bytes are there.
    At(u64),
    /// The next attempt is in so many seconds.
    RetryIn(u64),
}

/// A blob on its way.
pub struct Download<'a> {
    registry: &'a Registry,
    repository: &'a str,
    digest: &'a Digest,
    size: u64,
    at: u64,
    body: Option<Box<dyn Read + Send>>,
    /// Attempts in a row, and where the first of them began.
    failed: u32,
    failed_from: u64,
    attempts: u32,
    cancel: &'a Cancel,
    tell: &'a mut dyn FnMut(Step),
    failure: Option<RegistryError>,
}

impl<'a> Download<'a> {
    /// `attempts` is the most in a row.
    pub fn new(
        registry: &'a Registry,
        repository: &'a str,
        (digest, size): (&'a Digest, u64),
        attempts: u32,
        cancel: &'a Cancel,
        tell: &'a mut dyn FnMut(Step),
    ) -> Download<'a> {
        Download {
            registry,
            repository,
            digest,
            size,
            at: 0,
            body: None,
            failed: 0,
            failed_from: 0,
            attempts,
            cancel,
            tell,
            failure: None,
        }
    }

    /// Why the reader failed, if it did.
    pub fn take_failure(&mut self) -> Option<RegistryError> {
        self.failure.take()
    }

    /// Bytes still to come.
    pub fn left(&self) -> u64 {
        self.size - self.at
    }

    fn open(&mut self) -> Result<(), RegistryError> {
        let blob = self.registry.get_blob(self.repository, self.digest.as_str(), self.at)?;
        match blob.total {
            Some(total) if total != self.size => Err(RegistryError::Setup(format!(
                "blob {}: the registry has {total} bytes of it, the manifest says {}",
                self.digest, self.size
            ))),
            _ => {
                self.body = Some(blob.reader);
                Ok(())
            }
        }
    }

    /// Waits for the next attempt, or gives up with `error`.
    fn again(&mut self, error: RegistryError) -> io::Result<()> {
        self.body = None;
        if self.at >= self.failed_from + PROGRESS_BYTES {
            self.failed = 0;
            self.failed_from = self.at;
        }
        self.failed += 1;
        if self.cancel.is_cancelled() {
            return self.fail(RegistryError::Cancelled);
        }
        if !error.is_temporary() || self.failed >= self.attempts {
            return self.fail(error);
        }
        log::debug!("blob {}: {error}; attempt {} of {}", self.digest, self.failed + 1, self.attempts);
        let pause = FIRST_PAUSE.saturating_mul(1 << (self.failed - 1).min(8)).min(LONGEST_PAUSE);
        let end = Instant::now() + pause;
        let mut told = None;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if self.cancel.is_cancelled() {
                return self.fail(RegistryError::Cancelled);
            }
            let seconds = left.as_millis().div_ceil(1000) as u64;
            if told.replace(seconds) != Some(seconds) {
                (self.tell)(Step::RetryIn(seconds));
            }
            std::thread::sleep(left.min(SLICE));
        }
    }

    fn fail(&mut self, error: RegistryError) -> io::Result<()> {
        let words = error.to_string();
        self.failure = Some(error);
        Err(io::Error::other(words))
    }
}

impl Read for Download<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        // Whoever drains what is left must not begin anew.
        if let Some(failure) = &self.failure {
            return Err(io::Error::other(failure.to_string()));
        }
        loop {
            if self.left() == 0 {
                // What a registry sends beyond its size is nobody's.
                self.body = None;
                return Ok(0);
            }
            if self.body.is_none()
                && let Err(error) = self.open()
            {
                self.again(error)?;
                continue;
            }
            let most = usize::try_from(self.left()).unwrap_or(usize::MAX).min(into.len());
            let Some(body) = &mut self.body else { continue };
            let cause = match body.read(&mut into[..most]) {
                Ok(count) if count > 0 => {
                    self.at += count as u64;
                    (self.tell)(Step::At(self.at));
                    return Ok(count);
                }
                Ok(_) => "unexpected EOF".to_owned(),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) if is_cancelled(&cause) => {
                    self.fail(RegistryError::Cancelled)?;
                    continue;
                }
                Err(cause) => cause.to_string(),
            };
            let attempt = format!("read blob {} after {} of {} bytes", self.digest, self.at, self.size);
            self.again(RegistryError::Unreachable { attempt, cause, is_tls: false })?;
        }
    }
}
