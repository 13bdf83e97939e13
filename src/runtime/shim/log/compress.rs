//! Compressing rotated log files beside the container's output.
//!
//! ```text
//!   log.2 ──> log.gz.tmp ──fsync──> (under the lock) find log.2 again, by inode: it may be log.3 by now
//!                                   rename log.gz.tmp log.3.gz, then remove log.3
//! ```
//!
//! This runs in a process of its own, the shim's child, while there is something to do: a thread would not do,
//! because the shim clones itself for every exec, and is to stay as small as it is. Rotation takes the lock (flock
//! on the directory) only for its renames, and so does the child. Whoever dies half way, the plain file is there
//! until the compressed one is whole and on disk; what is left of an attempt is removed by [`Names::tidy`].
//!
//! The gzip header names the inode of the file that was compressed: a reader that had it open, or that was told
//! of it, knows the compressed one for the same (see [`inode_in`]).
//!
//! Source: moby `daemon/logger/loggerutils/logfile.go` (names; a JSON object in the header's extra field).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use flate2::{Compression, GzBuilder};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::runtime::sys::process::pidfd_open;

/// `argv[0]` of the process that compresses; its arguments are the log's path and how many files it may have.
pub const NAME: &str = "dewar-gzip";

/// That process's main.
pub fn main(args: &[OsString]) -> ExitCode {
    let max_files = args.get(1).and_then(|text| text.to_str()).and_then(|text| text.parse().ok());
    let (Some(path), Some(max_files)) = (args.first(), max_files) else { return ExitCode::FAILURE };
    // The container's own work comes first.
    let _ = rustix::process::nice(10);
    match Names::new(Path::new(path), max_files).compress_all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{NAME}: compress the rotated files of {path:?}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The child at work. Dropping it ends it: it must not write into a directory that is being removed.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    pidfd: OwnedFd,
}

impl Worker {
    /// Readable when it has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end; whether it has compressed everything.
    pub fn has_succeeded(&mut self) -> bool {
        self.child.wait().is_ok_and(|status| status.success())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Mostly it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The names of a log's rotated files.
#[derive(Debug)]
pub struct Names {
    path: PathBuf,
    /// Files in all, the current one included.
    max_files: u32,
}

/// In a compressed file's header.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Origin {
    /// Docker's readers skip a file that ended before what they look for.
    last_time: String,
    #[serde(default)]
    inode: u64,
}

/// The inode of the file whose content was compressed, from the header's extra field.
pub fn inode_in(extra: Option<&[u8]>) -> Option<u64> {
    let origin: Origin = serde_json::from_slice(extra?).ok()?;
    Some(origin.inode).filter(|inode| *inode != 0)
}

/// `log.1`, `log.2`, …
pub fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// `log.1.gz`
pub fn compressed(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}.gz"));
    name.into()
}

impl Names {
    pub fn new(path: &Path, max_files: u32) -> Names {
        Names { path: path.to_owned(), max_files: max_files.max(1) }
    }

    /// The right to change names, until dropped. Not having it must not stop a log.
    fn lock(&self) -> Option<File> {
        let dir = File::open(self.path.parent()?).ok()?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&dir, FlockOperation::LockExclusive)).ok()?;
        Some(dir)
    }

    fn scratch(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".gz.tmp");
        name.into()
    }

    /// Removes what a worker that was ended has written; mostly there is nothing.
    pub fn remove_scratch(&self) {
        let _ = std::fs::remove_file(self.scratch());
    }

    /// Removes what an earlier writer left half done.
    pub fn tidy(&self) {
        self.remove_scratch();
        for number in 1..self.max_files {
            let plain = numbered(&self.path, number);
            if plain.exists() && compressed(&self.path, number).exists() {
                let _ = std::fs::remove_file(plain);
            }
        }
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on, up to the first number that is free; the last
    /// file goes when none is. A rotation that was cut off leaves such a free number: nothing is lost by it.
    pub fn rotate(&self) {
        let _lock = self.lock();
        let (path, last) = (&self.path, self.max_files - 1);
        if last == 0 {
            let _ = std::fs::remove_file(path);
            return;
        }
        let is_free = |number: &u32| !numbered(path, *number).exists() && !compressed(path, *number).exists();
        let to = (1..last).find(is_free).unwrap_or(last);
        let _ = std::fs::remove_file(numbered(path, to));
        let _ = std::fs::remove_file(compressed(path, to));
        for number in (1..to).rev() {
            // Each number has one of the two.
            let _ = std::fs::rename(numbered(path, number), numbered(path, number + 1));
            let _ = std::fs::rename(compressed(path, number), compressed(path, number + 1));
        }
        let _ = std::fs::rename(path, numbered(path, 1));
    }

    /// The rotated file that is not compressed and has the highest number.
    fn oldest_plain(&self) -> Option<File> {
        (1..self.max_files).rev().find_map(|number| File::open(numbered(&self.path, number)).ok())
    }

    /// Starts compressing; `None` when there is nothing to do, or no process to be had: the next rotation asks again.
    pub fn start(&self) -> Option<Worker> {
        self.oldest_plain()?;
        let mut child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .arg(&self.path)
            .arg(self.max_files.to_string())
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        match i32::try_from(child.id()).map_err(io::Error::other).and_then(pidfd_open) {
            Ok(pidfd) => Some(Worker { child, pidfd }),
            Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                None
            }
        }
    }

    fn compress_all(&self) -> io::Result<()> {
        while let Some(file) = self.oldest_plain() {
            if let Err(error) = self.compress_one(&file) {
                // A full disk, most likely: the next rotation tries again.
                let _ = std::fs::remove_file(self.scratch());
                return Err(error);
            }
        }
        Ok(())
    }

    fn compress_one(&self, mut file: &File) -> io::Result<()> {
        let meta = file.metadata()?;
        let last: jiff::Timestamp = meta.modified()?.try_into().map_err(io::Error::other)?;
        let origin = Origin { last_time: format!("{last:.9}"), inode: meta.ino() };
        let out = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(self.scratch())?;
        let mut gzip =
            GzBuilder::new().extra(serde_json::to_vec(&origin)?).write(&out, Compression::default());
        let mut buffer = vec![0_u8; 32 * 1024];
        loop {
            let bytes = file.read(&mut buffer)?;
            if bytes == 0 {
                break;
            }
            io::Write::write_all(&mut gzip, &buffer[..bytes])?;
        }
        gzip.finish()?;
        // The plain one goes only after this one would survive a power cut.
        out.sync_all()?;
        let _lock = self.lock();
        let place = (1..self.max_files).find(|number| {
            std::fs::metadata(numbered(&self.path, *number)).is_ok_and(|found| found.ino() == meta.ino())
        });
        match place {
            Some(number) => {
                std::fs::rename(self.scratch(), compressed(&self.path, number))?;
                std::fs::remove_file(numbered(&self.path, number))
            }
            // Rotated away meanwhile.
            None => std::fs::remove_file(self.scratch()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn names(test: &str, max_files: u32) -> (Dir, Names) {
        let dir = std::env::temp_dir().join(format!("dewar-gzip-{test}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let path = dir.join("log");
        (Dir(dir), Names::new(&path, max_files))
    }

    fn listing(dir: &Dir) -> Vec<String> {
        let entries = std::fs::read_dir(&dir.0).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn unpack(path: &Path) -> (String, Option<u64>) {
        let mut decoder = flate2::read::GzDecoder::new(File::open(path).unwrap());
        let mut text = String::new();
        decoder.read_to_string(&mut text).unwrap();
        (text, inode_in(decoder.header().unwrap().extra()))
    }

    #[test]
    fn a_file_is_found_again_after_a_rotation() {
        let (dir, names) = names("moved", 4);
        std::fs::write(dir.0.join("log.1"), "old").unwrap();
        let file = names.oldest_plain().unwrap();
        let inode = file.metadata().unwrap().ino();
        std::fs::write(dir.0.join("log"), "new").unwrap();
        names.rotate();
        names.compress_one(&file).unwrap();
        assert_eq!(listing(&dir), ["log.1", "log.2.gz"]);
        assert_eq!(unpack(&dir.0.join("log.2.gz")), ("old".to_owned(), Some(inode)));
    }

    #[test]
    fn a_file_that_was_rotated_away_leaves_nothing() {
        let (dir, names) = names("gone", 2);
        std::fs::write(dir.0.join("log.1"), "old").unwrap();
        let file = names.oldest_plain().unwrap();
        std::fs::write(dir.0.join("log"), "new").unwrap();
        names.rotate();
        names.compress_one(&file).unwrap();
        assert_eq!(listing(&dir), ["log.1"]);
        assert_eq!(std::fs::read_to_string(dir.0.join("log.1")).unwrap(), "new");
    }

    #[test]
    fn rotation_moves_both_kinds_and_drops_the_last() {
        let (dir, names) = names("kinds", 4);
        for (name, text) in [("log", "5"), ("log.1", "4"), ("log.2.gz", "3"), ("log.3", "2")] {
            std::fs::write(dir.0.join(name), text).unwrap();
        }
        names.rotate();
        assert_eq!(listing(&dir), ["log.1", "log.2", "log.3.gz"]);
        assert_eq!(std::fs::read_to_string(dir.0.join("log.3.gz")).unwrap(), "3");
    }

    /// A rotation cut off between two renames left a gap, which the next one moved along while it dropped the
    /// oldest file.
    #[test]
    fn a_gap_is_filled_before_a_file_is_dropped() {
        let (dir, names) = names("gap", 4);
        for name in ["log", "log.2", "log.3.gz"] {
            std::fs::write(dir.0.join(name), "").unwrap();
        }
        names.rotate();
        assert_eq!(listing(&dir), ["log.1", "log.2", "log.3.gz"]);
    }

    #[test]
    fn what_a_crash_left_is_tidied() {
        let (dir, names) = names("tidy", 4);
        for name in ["log", "log.1", "log.2", "log.2.gz", "log.gz.tmp"] {
            std::fs::write(dir.0.join(name), "").unwrap();
        }
        names.tidy();
        assert_eq!(listing(&dir), ["log", "log.1", "log.2.gz"]);
    }

    #[test]
    fn all_that_is_plain_is_compressed() {
        let (dir, names) = names("all", 9);
        for number in 1..5 {
            std::fs::write(dir.0.join(format!("log.{number}")), "x".repeat(100_000)).unwrap();
        }
        names.compress_all().unwrap();
        assert_eq!(listing(&dir), ["log.1.gz", "log.2.gz", "log.3.gz", "log.4.gz"]);
    }
}
