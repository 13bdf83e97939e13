//! Output that a client has not taken yet: a little in memory, the rest in a file without a name.
//!
//! ```text
//!   push ──> tail ──> file ──> memory ──> front, consume
//!            only while the file cannot be written
//! ```
//!
//! A process never waits for a client that reads slowly, and that client still gets every byte. Both cost
//! disk: at most [`Limits::file_bytes`], given back as it is read. Beyond that, or when the disk is full, the
//! backlog [is full](Backlog::is_full): what it was given is kept, but no more should be read from the process.
//!
//! The file is unlinked as soon as it is made, so that nothing of it can outlive the daemon.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::FallocateFlags;

/// How much is kept where.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub memory_bytes: usize,
    pub file_bytes: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { memory_bytes: 128 * 1024, file_bytes: 1 << 30 }
    }
}

/// Read from the file at once.
const REFILL_BYTES: usize = 64 * 1024;
/// Given back to the disk at once.
const GIVE_BACK_BYTES: u64 = 4 << 20;

/// Bytes in the order in which they came.
#[derive(Debug)]
pub struct Backlog {
    /// Where the file is made.
    dir: PathBuf,
    limits: Limits,
    memory: Vec<u8>,
    /// What of `memory` is consumed.
    start: usize,
    file: Option<Spill>,
    /// What came while the file could not be written.
    tail: Vec<u8>,
}

#[derive(Debug)]
struct Spill {
    file: File,
    read: u64,
    written: u64,
    /// Below this nothing is kept on the disk any more.
    given_back: u64,
}

impl Backlog {
    pub fn new(dir: PathBuf, limits: Limits) -> Backlog {
        Backlog { dir, limits, memory: Vec::new(), start: 0, file: None, tail: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.start == self.memory.len() && self.file.is_none() && self.tail.is_empty()
    }

    /// Whether no more should come until some is consumed.
    pub fn is_full(&self) -> bool {
        let on_disk = self.file.as_ref().map_or(0, |spill| spill.written - spill.given_back);
        !self.tail.is_empty() || on_disk >= self.limits.file_bytes
    }

    /// How much waits.
    pub fn len(&self) -> u64 {
        let on_disk = self.file.as_ref().map_or(0, |spill| spill.written - spill.read);
        on_disk + (self.memory.len() - self.start + self.tail.len()) as u64
    }

    /// Appends `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.file.is_none() && self.tail.is_empty() {
            if self.memory.len() - self.start + bytes.len() <= self.limits.memory_bytes {
                self.memory.drain(..self.start);
                self.start = 0;
                self.memory.extend_from_slice(bytes);
                return;
            }
            self.file = Spill::create(&self.dir).inspect_err(|cause| self.complain(cause)).ok();
        }
        let written = match &mut self.file {
            Some(spill) if self.tail.is_empty() => match spill.append(bytes) {
                Ok(()) => bytes.len(),
                Err((written, cause)) => {
                    self.complain(&cause);
                    written
                }
            },
            _ => 0,
        };
        self.tail.extend_from_slice(&bytes[written..]);
    }

    fn complain(&self, cause: &io::Error) {
        log::warn!("keep output for a slow client in {:?}: {cause}", self.dir);
    }

    /// The oldest bytes, as many as are at hand; empty only if there are none.
    ///
    /// # Errors
    /// What is in the file cannot be read back.
    pub fn front(&mut self) -> io::Result<&[u8]> {
        if self.start == self.memory.len() {
            self.memory.clear();
            self.start = 0;
            if let Some(spill) = &mut self.file {
                spill.take(&mut self.memory)?;
                if spill.read == spill.written {
                    self.file = None;
                }
            }
            if self.file.is_none() {
                self.memory.append(&mut self.tail);
            }
            if self.memory.is_empty() {
                // An idle client should cost nothing.
                self.memory = Vec::new();
            }
        }
        Ok(&self.memory[self.start..])
    }

    /// Forgets the first `count` bytes of [`Backlog::front`].
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.memory.len());
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Backlog::new(std::mem::take(&mut self.dir), self.limits);
    }
}

impl Spill {
    fn create(dir: &std::path::Path) -> io::Result<Spill> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let path = dir.join(format!("backlog-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        // One that a dead daemon could not unlink any more is taken over.
        let file =
            File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Spill { file, read: 0, written: 0, given_back: 0 })
    }

    /// On failure tells how much was written all the same.
    fn append(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write_at(&bytes[done..], self.written) {
                Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    done += count;
                    self.written += count as u64;
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err((done, cause)),
            }
        }
        Ok(())
    }

    fn take(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        let wanted = usize::try_from(self.written - self.read).unwrap_or(usize::MAX).min(REFILL_BYTES);
        into.resize(wanted, 0);
        self.file.read_exact_at(into, self.read)?;
        self.read += wanted as u64;
        let (from, length) = (self.given_back, self.read - self.given_back);
        if length >= GIVE_BACK_BYTES {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // On a filesystem without holes the whole file counts until it is read to its end.
            if rustix::fs::fallocate(&self.file, hole, from, length).is_ok() {
                self.given_back = self.read;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backlog(name: &str, limits: Limits) -> Backlog {
        let dir = std::env::temp_dir().join(format!("dewar-backlog-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Backlog::new(dir, limits)
    }

    fn take(backlog: &mut Backlog, most: usize) -> Vec<u8> {
        let front = backlog.front().unwrap();
        let taken = front[..front.len().min(most)].to_vec();
        backlog.consume(taken.len());
        taken
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn everything_comes_out_as_it_went_in() {
        let mut backlog = backlog("order", Limits { memory_bytes: 1000, file_bytes: 1 << 30 });
        let text = bytes(20 << 20);
        let (mut pushed, mut got, mut turn) = (0, Vec::new(), 0_usize);
        while got.len() < text.len() {
            turn += 1;
            let count = (turn * 7919 % 60_000).min(text.len() - pushed);
            backlog.push(&text[pushed..pushed + count]);
            pushed += count;
            got.extend(take(&mut backlog, turn * 4801 % 40_000));
            assert_eq!(backlog.len(), (pushed - got.len()) as u64);
        }
        assert!(got == text && backlog.is_empty() && !backlog.is_full());
        assert_eq!(std::fs::read_dir(&backlog.dir).unwrap().count(), 0, "no name is left");
        std::fs::remove_dir_all(&backlog.dir).unwrap();
    }

    #[test]
    fn it_is_full_at_its_limit_and_keeps_what_it_has() {
        let limit = 8 << 20;
        let mut backlog = backlog("full", Limits { memory_bytes: 1000, file_bytes: limit });
        let block = bytes(64 * 1024);
        let mut pushed = 0;
        while !backlog.is_full() {
            backlog.push(&block);
            pushed += block.len();
        }
        assert!(pushed as u64 >= limit);
        let mut got = 0;
        while backlog.is_full() {
            got += take(&mut backlog, usize::MAX).len();
        }
        while !backlog.is_empty() {
            got += take(&mut backlog, usize::MAX).len();
        }
        assert_eq!(got, pushed);
        std::fs::remove_dir_all(&backlog.dir).unwrap();
    }

    #[test]
    fn without_a_place_for_the_file_it_is_full_and_goes_on() {
        let mut backlog = Backlog::new("/nowhere".into(), Limits { memory_bytes: 10, file_bytes: 1 << 30 });
        backlog.push(b"12345678");
        backlog.push(b"90ab");
        assert!(backlog.is_full());
        assert_eq!(take(&mut backlog, 100), b"12345678");
        assert_eq!(take(&mut backlog, 100), b"90ab");
        assert!(backlog.is_empty() && !backlog.is_full());
    }
}
