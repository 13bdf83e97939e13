//! The files of a log as one stream of lines: oldest first, then the current one as it grows and is rotated.
//!
//! ```text
//!   log.2  log.1  log            `current` is read to its end; then the file that came after it, found by
//!     `──────`──────`─> ...       inode, because a rotation renames what is being read
//! ```
//!
//! A rotated file is never written to again, so one that is seen to be rotated is read to its end once more
//! before the next is opened. A line cut off at the end of such a file will never be whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify;

use crate::runtime::LogMark;

/// Reads lines across the rotated files and then the current one.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    /// Files still to be read, the next one last.
    newer: Vec<Opened>,
    current: Option<Opened>,
    /// Nothing will be added to the current file.
    is_final: bool,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
    /// Of the log's directory: growth, rotation and the first file are all seen there.
    watch: Option<OwnedFd>,
    end: Option<LogMark>,
}

/// A file being read.
#[derive(Debug)]
struct Opened {
    reader: BufReader<File>,
    inode: u64,
    /// What has been read of it.
    at: u64,
}

impl Opened {
    fn new(mut file: File) -> io::Result<Opened> {
        let (inode, at) = (file.metadata()?.ino(), file.stream_position()?);
        Ok(Opened { reader: BufReader::new(file), inode, at })
    }
}

impl Follower {
    /// Opens the log so that the last `tail` lines come first. There may be no file yet.
    pub fn open(path: &Path, tail: Option<u64>, follow: bool) -> io::Result<Follower> {
        // Before the first look, so that nothing falls between the two.
        let watch = if follow { watch_directory(path) } else { None };
        let mut wanted = tail;
        let mut newer = Vec::new();
        for mut file in Files::new(path) {
            if let Some(lines) = wanted {
                wanted = Some(lines - seek_to_last_lines(&mut file, lines)?);
            }
            newer.push(Opened::new(file)?);
            if wanted == Some(0) {
                break;
            }
        }
        let current = newer.pop();
        Ok(Follower {
            path: path.to_owned(),
            newer,
            current,
            is_final: false,
            partial: Vec::new(),
            watch,
            end: None,
        })
    }

    /// Ends the stream at `end`.
    pub fn end_at(&mut self, end: Option<LogMark>) {
        self.end = end;
    }

    /// Readable when something happened to the log; `None` when the kernel has no watch left to give.
    pub fn watch(&self) -> Option<BorrowedFd<'_>> {
        self.watch.as_ref().map(AsFd::as_fd)
    }

    /// Takes note of what happened so far.
    pub fn calm(&mut self) {
        let Some(watch) = &self.watch else { return };
        // What happened is of no interest, only that something did.
        while rustix::io::read(watch, &mut [0_u8; 4096]).is_ok_and(|bytes| bytes > 0) {}
    }

    /// The next whole line without its newline, or `None` when there is none yet.
    pub fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(current) = &mut self.current else {
                match File::open(&self.path) {
                    Ok(file) => self.current = Some(Opened::new(file)?),
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(cause) => return Err(cause),
                }
                continue;
            };
            if self.end.is_some_and(|end| end.inode == current.inode && current.at >= end.bytes) {
                return Ok(None);
            }
            current.at += current.reader.read_until(b'\n', &mut self.partial)? as u64;
            if self.partial.last() == Some(&b'\n') {
                let mut line = std::mem::take(&mut self.partial);
                line.pop();
                return Ok(Some(line));
            }
            if !self.newer.is_empty() {
                self.advance();
            } else if !self.is_final {
                self.is_final = was_rotated(&self.path, current.inode)?;
                if !self.is_final {
                    return Ok(None);
                }
            } else {
                self.newer = newer_than(&self.path, current.inode)?;
                if self.newer.is_empty() {
                    // Between two steps of a rotation.
                    return Ok(None);
                }
                self.advance();
            }
        }
    }

    fn advance(&mut self) {
        self.partial.clear();
        self.is_final = false;
        self.current = self.newer.pop();
    }
}

/// The log's files, newest first.
struct Files<'a> {
    path: &'a Path,
    number: u32,
    last: Option<u64>,
}

impl Files<'_> {
    fn new(path: &Path) -> Files<'_> {
        Files { path, number: 0, last: None }
    }
}

impl Iterator for Files<'_> {
    type Item = File;

    fn next(&mut self) -> Option<File> {
        // A rotation under way leaves one gap in the row.
        let mut gaps = 0;
        loop {
            let file = File::open(rotated(self.path, self.number)).ok();
            self.number += 1;
            let Some(file) = file else {
                gaps += 1;
                if gaps == 2 {
                    return None;
                }
                continue;
            };
            let inode = file.metadata().ok()?.ino();
            // And it moves a file that was just opened to the next number.
            if self.last.replace(inode) != Some(inode) {
                return Some(file);
            }
        }
    }
}

/// The files written after the one with this inode, the oldest last. All of them if that one is deleted.
fn newer_than(path: &Path, inode: u64) -> io::Result<Vec<Opened>> {
    let mut newer = Vec::new();
    for file in Files::new(path) {
        let file = Opened::new(file)?;
        if file.inode == inode {
            break;
        }
        newer.push(file);
    }
    Ok(newer)
}

fn was_rotated(path: &Path, inode: u64) -> io::Result<bool> {
    match std::fs::metadata(path) {
        Ok(meta) => Ok(meta.ino() != inode),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

fn watch_directory(path: &Path) -> Option<OwnedFd> {
    use inotify::{CreateFlags, WatchFlags};
    let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let flags = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
    inotify::add_watch(&watch, path.parent()?, flags).ok()?;
    Some(watch)
}

/// `path`, `path.1`, `path.2`, …
fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Moves to the start of the last `lines` lines; returns how many there are.
fn seek_to_last_lines(file: &mut File, lines: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let end = file.seek(SeekFrom::End(0))?;
    let (mut start, mut found) = (end, 0u64);
    let mut block = Vec::new();
    while start > 0 {
        let from = start.saturating_sub(BLOCK);
        block.clear();
        file.seek(SeekFrom::Start(from))?;
        file.by_ref().take(start - from).read_to_end(&mut block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            if *byte == b'\n' {
                // The newline that ends line `found` from the end; the one before the first wanted line stops.
                if found == lines {
                    file.seek(SeekFrom::Start(from + at as u64 + 1))?;
                    return Ok(found);
                }
                found += 1;
            }
        }
        start = from;
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(found.min(lines))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-logs-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn lines(follower: &mut Follower) -> Vec<String> {
        std::iter::from_fn(|| follower.next_line().unwrap())
            .map(|line| String::from_utf8(line).unwrap())
            .collect()
    }

    fn append(path: &Path, text: &str) {
        File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_are_found_across_rotated_files() {
        let dir = scratch("tail");
        let path = dir.join("log");
        std::fs::write(dir.join("log.2"), "1\n2\n").unwrap();
        std::fs::write(dir.join("log.1"), "3\n4\n").unwrap();
        std::fs::write(&path, "5\n6\n").unwrap();
        let read = |tail| lines(&mut Follower::open(&path, tail, false).unwrap());
        assert_eq!(read(None), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(read(Some(3)), ["4", "5", "6"]);
        assert_eq!(read(Some(2)), ["5", "6"]);
        assert_eq!(read(Some(0)), Vec::<String>::new());
        assert_eq!(read(Some(99)).len(), 6);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_follower_waits_for_the_first_file_and_for_whole_lines() {
        let dir = scratch("first");
        let path = dir.join("log");
        let mut follower = Follower::open(&path, None, true).unwrap();
        assert_eq!(lines(&mut follower), Vec::<String>::new());
        append(&path, "1\nhal");
        assert_eq!(lines(&mut follower), ["1"]);
        append(&path, "f\n2\n");
        assert_eq!(lines(&mut follower), ["half", "2"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// Two rotations between two looks used to lose the file in the middle; a last line written just before
    /// a rotation used to be lost with it.
    #[test]
    fn rotations_between_two_looks_lose_nothing() {
        let dir = scratch("rotations");
        let path = dir.join("log");
        append(&path, "1\n");
        let mut follower = Follower::open(&path, None, true).unwrap();
        assert_eq!(lines(&mut follower), ["1"]);
        append(&path, "2\n");
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        append(&path, "3\n");
        std::fs::rename(dir.join("log.1"), dir.join("log.2")).unwrap();
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        // In the middle of a rotation there is no current file.
        assert_eq!(lines(&mut follower), ["2"]);
        append(&path, "4\n");
        assert_eq!(lines(&mut follower), ["3", "4"]);
        // A log of one file starts over.
        for name in ["log", "log.1", "log.2"] {
            std::fs::remove_file(dir.join(name)).unwrap();
        }
        append(&path, "5\n");
        assert_eq!(lines(&mut follower), ["5"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_mark_ends_the_stream() {
        let dir = scratch("mark");
        let path = dir.join("log");
        append(&path, "1\n2\n");
        let inode = std::fs::metadata(&path).unwrap().ino();
        append(&path, "3\n");
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        append(&path, "4\n");
        let mut follower = Follower::open(&path, None, false).unwrap();
        follower.end_at(Some(LogMark { inode, bytes: 4 }));
        assert_eq!(lines(&mut follower), ["1", "2"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
