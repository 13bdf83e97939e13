//! The files of a log as one stream of entries: oldest first, then the current one as it grows and is rotated.
//!
//! ```text
//!   log.2.gz  log.1  log         `current` is read to its end; then the file that came after it, found by
//!     `────────`──────`─> ...     inode, because a rotation renames what is being read
//! ```
//!
//! A rotated file is never written to again, so one that is seen to be rotated is read to its end once more
//! before the next is opened. An entry cut off at the end of such a file will never be whole. A compressed file
//! has the name of the plain one's inode in its header, and is the same file to everybody here; one that does not
//! unpack ends where it breaks.
//!
//! An entry of `json-file` is a line, an entry of `local` the message inside its frame; nonsense between two frames is
//! passed over.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use rustix::fs::{FlockOperation, inotify};

use crate::runtime::shim::log::compress::{compressed, inode_in, numbered};
use crate::runtime::shim::log::entry::Frame;
use crate::runtime::{LogFormat, LogMark};

/// Reads entries across the rotated files and then the current one.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    format: LogFormat,
    /// Files still to be read, the next one last.
    newer: Vec<Opened>,
    current: Option<Opened>,
    /// Nothing will be added to the current file.
    is_final: bool,
    /// An entry whose end is not written yet.
    partial: Vec<u8>,
    /// Of the log's directory: growth, rotation and the first file are all seen there.
    watch: Option<OwnedFd>,
    end: Option<LogMark>,
    /// The file in which the end is is among the plain ones; an inode may be in use again since one was packed.
    is_end_plain: bool,
}

/// A file being read.
#[derive(Debug)]
struct Opened {
    reader: Reader,
    /// Of the file as it was written.
    inode: u64,
    /// What has been read of it, unpacked.
    at: u64,
}

#[derive(Debug)]
enum Reader {
    Plain(BufReader<File>),
    Packed(Box<BufReader<MultiGzDecoder<BufReader<File>>>>),
}

impl Opened {
    fn plain(mut file: File) -> io::Result<Opened> {
        let (inode, at) = (file.metadata()?.ino(), file.stream_position()?);
        Ok(Opened { reader: Reader::Plain(BufReader::new(file)), inode, at })
    }

    fn packed(file: File) -> io::Result<Opened> {
        let own = file.metadata()?.ino();
        let decoder = MultiGzDecoder::new(BufReader::new(file));
        let inode = decoder.header().and_then(|header| inode_in(header.extra())).unwrap_or(own);
        Ok(Opened { reader: Reader::Packed(Box::new(BufReader::new(decoder))), inode, at: 0 })
    }

    fn is_packed(&self) -> bool {
        matches!(self.reader, Reader::Packed(_))
    }

    /// Adds to `partial` until it begins with a whole entry, which is taken out of it; `None` at the end.
    fn next_entry(&mut self, format: LogFormat, partial: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let is_packed = self.is_packed();
        let result = match &mut self.reader {
            Reader::Plain(reader) => next_entry(reader, format, partial, &mut self.at),
            Reader::Packed(reader) => next_entry(&mut **reader, format, partial, &mut self.at),
        };
        match result {
            Err(cause) if is_packed => {
                log::warn!("a compressed log is damaged: {cause}");
                Ok(None)
            }
            result => result,
        }
    }
}

fn next_entry(
    reader: &mut impl BufRead,
    format: LogFormat,
    partial: &mut Vec<u8>,
    at: &mut u64,
) -> io::Result<Option<Vec<u8>>> {
    if format == LogFormat::Json {
        *at += reader.read_until(b'\n', partial)? as u64;
        return Ok(partial.pop_if(|last| *last == b'\n').map(|_| std::mem::take(partial)));
    }
    loop {
        match Frame::at(partial) {
            Frame::Whole(length) => {
                let mut entry = std::mem::take(partial);
                entry.drain(..4);
                entry.truncate(length);
                return Ok(Some(entry));
            }
            Frame::Short(more) => {
                let read = reader.take(more as u64).read_to_end(partial)?;
                *at += read as u64;
                if read < more {
                    // A damaged length may ask for more than there will ever be; entries are written in order.
                    let is_whole = |start: &usize| matches!(Frame::at(&partial[*start..]), Frame::Whole(_));
                    let Some(next) = (1..partial.len()).find(is_whole) else { return Ok(None) };
                    partial.drain(..next);
                }
            }
            Frame::Broken => {
                let next = (1..partial.len()).find(|start| Frame::at(&partial[*start..]) != Frame::Broken);
                partial.drain(..next.unwrap_or(partial.len()));
            }
        }
    }
}

impl Follower {
    /// Opens the log so that the last `tail` entries come first. There may be no file yet.
    pub fn open(path: &Path, format: LogFormat, tail: Option<u64>, follow: bool) -> io::Result<Follower> {
        // Before the first look, so that nothing falls between the two.
        let watch = if follow { watch_directory(path) } else { None };
        let mut wanted = tail;
        let mut newer = Vec::new();
        for mut file in files(path, None) {
            if let Some(entries) = wanted {
                wanted = Some(entries - file.seek_to_last_entries(format, entries)?);
            }
            newer.push(file);
            if wanted == Some(0) {
                break;
            }
        }
        let current = newer.pop();
        let mut follower = Follower {
            path: path.to_owned(),
            format,
            newer,
            current: None,
            is_final: false,
            partial: Vec::new(),
            watch,
            end: None,
            is_end_plain: false,
        };
        follower.become_current(current);
        Ok(follower)
    }

    /// Ends the stream at `end`.
    pub fn end_at(&mut self, end: Option<LogMark>) {
        let files = || self.newer.iter().chain(&self.current);
        self.is_end_plain =
            end.is_some_and(|end| files().any(|file| !file.is_packed() && file.inode == end.inode));
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

    /// The next whole entry, or `None` when there is none yet.
    pub fn next_entry(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(current) = &mut self.current else {
                self.newer = files(&self.path, None);
                if self.newer.is_empty() {
                    return Ok(None);
                }
                self.advance();
                continue;
            };
            if let Some(end) = self.end
                && end.inode == current.inode
                && current.at >= end.bytes
                && !(self.is_end_plain && current.is_packed())
            {
                return Ok(None);
            }
            if let Some(entry) = current.next_entry(self.format, &mut self.partial)? {
                return Ok(Some(entry));
            }
            if !self.newer.is_empty() {
                self.advance();
            } else if !self.is_final {
                self.is_final = was_rotated(&self.path, current.inode)?;
                if !self.is_final {
                    return Ok(None);
                }
            } else {
                // All of them if the current one is deleted.
                self.newer = files(&self.path, Some(current.inode));
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
        let next = self.newer.pop();
        self.become_current(next);
    }

    fn become_current(&mut self, file: Option<Opened>) {
        self.is_final = file.as_ref().is_some_and(Opened::is_packed);
        self.current = file;
    }
}

/// The log's files, newest first, up to one with the inode `until`, which is not among them.
///
/// Rotations meanwhile would mix them up: then the current file is another one at the end than at the beginning, and
/// it is done again, at last under the lock that rotation takes. One rotation under way is no harm: it leaves one gap
/// in the row, and moves a file that was just opened to the next number.
fn files(path: &Path, until: Option<u64>) -> Vec<Opened> {
    const ATTEMPTS: usize = 3;
    let current = || std::fs::metadata(path).ok().map(|meta| meta.ino());
    for _ in 0..ATTEMPTS {
        let before = current();
        let found = row(path, until);
        if (before.is_some() && current() == before) || found.is_empty() {
            return found;
        }
    }
    let dir = path.parent().and_then(|dir| File::open(dir).ok());
    if let Some(dir) = &dir {
        // Without the lock it is as good as it was.
        let _ = rustix::io::retry_on_intr(|| rustix::fs::flock(dir, FlockOperation::LockShared));
    }
    row(path, until)
}

fn row(path: &Path, until: Option<u64>) -> Vec<Opened> {
    let mut found: Vec<Opened> = Vec::new();
    let (mut number, mut gaps) = (0, 0);
    while gaps < 2 {
        let file = open(path, number);
        number += 1;
        let Some(file) = file else {
            gaps += 1;
            continue;
        };
        gaps = 0;
        if Some(file.inode) == until {
            break;
        }
        if found.last().is_none_or(|last| last.inode != file.inode) {
            found.push(file);
        }
    }
    found
}

/// The file with this number. The plain one goes after the compressed one has come.
fn open(path: &Path, number: u32) -> Option<Opened> {
    if number == 0 {
        return Opened::plain(File::open(path).ok()?).ok();
    }
    match File::open(numbered(path, number)) {
        Ok(file) => Opened::plain(file).ok(),
        Err(_) => Opened::packed(File::open(compressed(path, number)).ok()?).ok(),
    }
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

impl Opened {
    /// Moves to the start of the last `entries` entries; returns how many there are.
    fn seek_to_last_entries(&mut self, format: LogFormat, entries: u64) -> io::Result<u64> {
        let found = match &mut self.reader {
            Reader::Plain(reader) => {
                let file = reader.get_mut();
                let found = match format {
                    LogFormat::Json => Some(seek_to_last_lines(file, entries)?),
                    LogFormat::Local => seek_to_last_messages(file, entries)?,
                };
                self.at = file.stream_position()?;
                found
            }
            Reader::Packed(_) => None,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        // It cannot be read backwards: once to count, once to pass over what is not wanted.
        let all = self.passed_over(format, u64::MAX)?;
        self.rewind()?;
        self.passed_over(format, all.saturating_sub(entries))?;
        Ok(all.min(entries))
    }

    /// Reads at most so many entries; returns how many there were.
    fn passed_over(&mut self, format: LogFormat, most: u64) -> io::Result<u64> {
        let (mut count, mut partial) = (0, Vec::new());
        while count < most && self.next_entry(format, &mut partial)?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    fn rewind(&mut self) -> io::Result<()> {
        let mut file = match &self.reader {
            Reader::Plain(reader) => reader.get_ref().try_clone()?,
            Reader::Packed(reader) => reader.get_ref().get_ref().get_ref().try_clone()?,
        };
        file.rewind()?;
        let inode = self.inode;
        *self = if self.is_packed() { Opened::packed(file)? } else { Opened::plain(file)? };
        self.inode = inode;
        Ok(())
    }
}

/// Moves to the start of the last `messages` of a `local` file; returns how many there are, `None` when their
/// lengths do not fit each other.
fn seek_to_last_messages(file: &mut File, messages: u64) -> io::Result<Option<u64>> {
    let (mut at, mut found) = (file.metadata()?.len(), 0);
    let number = |at: u64| -> io::Result<u64> {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, at)?;
        Ok(u64::from(u32::from_be_bytes(bytes)))
    };
    while at > 0 && found < messages {
        let Some(after) = at.checked_sub(4) else { return Ok(None) };
        let length = number(after)?;
        let Some(before) = after.checked_sub(length + 4) else { return Ok(None) };
        if length == 0 || number(before)? != length {
            return Ok(None);
        }
        at = before;
        found += 1;
    }
    file.seek(SeekFrom::Start(at))?;
    Ok(Some(found))
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
        std::iter::from_fn(|| follower.next_entry().unwrap())
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
        let read = |tail| lines(&mut Follower::open(&path, LogFormat::Json, tail, false).unwrap());
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
        let mut follower = Follower::open(&path, LogFormat::Json, None, true).unwrap();
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
        let mut follower = Follower::open(&path, LogFormat::Json, None, true).unwrap();
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
        let mut follower = Follower::open(&path, LogFormat::Json, None, false).unwrap();
        follower.end_at(Some(LogMark { inode, bytes: 4 }));
        assert_eq!(lines(&mut follower), ["1", "2"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    fn pack(path: &Path, inode: u64) {
        let text = std::fs::read(path).unwrap();
        let mut name = path.as_os_str().to_owned();
        name.push(".gz");
        let extra = format!("{{\"lastTime\":\"\",\"inode\":{inode}}}");
        let out = File::create(name).unwrap();
        let mut gzip = flate2::GzBuilder::new().extra(extra).write(out, flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        gzip.finish().unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn compressed_files_are_read_like_the_others() {
        let dir = scratch("packed");
        let path = dir.join("log");
        std::fs::write(dir.join("log.2"), "1\n2\n").unwrap();
        pack(&dir.join("log.2"), 7);
        std::fs::write(dir.join("log.1"), "3\n4\n").unwrap();
        std::fs::write(&path, "5\n").unwrap();
        let read = |tail| lines(&mut Follower::open(&path, LogFormat::Json, tail, false).unwrap());
        assert_eq!(read(None), ["1", "2", "3", "4", "5"]);
        assert_eq!(read(Some(4)), ["2", "3", "4", "5"]);
        assert_eq!(read(Some(3)), ["3", "4", "5"]);
        assert_eq!(read(Some(9)).len(), 5);
        // One that breaks off costs only what is behind the break.
        let whole = std::fs::read(dir.join("log.2.gz")).unwrap();
        std::fs::write(dir.join("log.2.gz"), &whole[..whole.len() - 9]).unwrap();
        assert!(read(None).ends_with(&["3".into(), "4".into(), "5".into()]));
        std::fs::write(dir.join("log.2.gz"), "nonsense").unwrap();
        assert_eq!(read(None), ["3", "4", "5"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    /// A follower that has a file open must know it again when it is compressed under another inode, or all of it
    /// would come twice.
    #[test]
    fn a_file_that_is_compressed_while_it_is_followed_comes_once() {
        let dir = scratch("repack");
        let path = dir.join("log");
        append(&path, "1\n");
        let inode = std::fs::metadata(&path).unwrap().ino();
        let mut follower = Follower::open(&path, LogFormat::Json, None, true).unwrap();
        assert_eq!(lines(&mut follower), ["1"]);
        append(&path, "2\n");
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        pack(&dir.join("log.1"), inode);
        append(&path, "3\n");
        assert_eq!(lines(&mut follower), ["2", "3"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn local_files_are_read_from_either_end_and_past_nonsense() {
        use crate::runtime::LogFile;
        use crate::runtime::shim::log::entry::{Moment, decode_local};
        use crate::runtime::shim::log::{Log, Stream};
        let dir = scratch("local");
        let path = dir.join("log");
        let config = LogFile { format: LogFormat::Local, ..LogFile::at(path.clone()) };
        let mut log = Log::open(Some(config), None).unwrap();
        log.write(Stream::Stdout, b"1\n2\n3\n", &Moment::now());
        let read = |tail| -> Vec<String> {
            let mut follower = Follower::open(&path, LogFormat::Local, tail, false).unwrap();
            std::iter::from_fn(|| follower.next_entry().unwrap())
                .map(|entry| String::from_utf8(decode_local(&entry).unwrap().text.to_vec()).unwrap())
                .collect()
        };
        assert_eq!(read(None), ["1", "2", "3"]);
        assert_eq!(read(Some(2)), ["2", "3"]);
        assert_eq!(read(Some(0)), Vec::<String>::new());
        let whole = std::fs::read(&path).unwrap();
        let length = whole.len() / 3;
        // The middle one is damaged, and half of another stands at the end.
        let mut damaged = [&whole[..], &whole[..length / 2]].concat();
        damaged[length + 2] = 0xff;
        std::fs::write(&path, &damaged).unwrap();
        assert_eq!(read(None), ["1", "3"]);
        assert_eq!(read(Some(1)), ["3"]);
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        pack(&dir.join("log.1"), 7);
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(read(Some(4)), ["3", "1", "2", "3"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
