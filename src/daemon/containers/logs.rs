//! Reading what a container said: the json-file log, its rotated predecessors, and what is still to come.
//!
//! The shim writes (`runtime::shim::log`), this reads: line by line, each a JSON object. A line that a power
//! cut left half written is passed over. Following ends when the container has ended and all is read.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use serde::Deserialize;

use super::container::Container;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::LogsQuery;

/// Between looks at whether the container or the client is still there; output itself wakes at once.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// One line of the file.
#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    time: String,
}

/// What to read, checked.
#[derive(Debug)]
pub struct Request {
    path: PathBuf,
    stdout: bool,
    stderr: bool,
    follow: bool,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    timestamps: bool,
    /// `None` is everything.
    tail: Option<u64>,
}

/// Checks a request before the answer begins.
///
/// # Errors
/// InvalidParameter when no stream is asked for or a time does not parse; NotImplemented when the driver
/// keeps nothing that could be read.
pub fn request(container: &Container, query: &LogsQuery) -> Result<Request> {
    if !query.stdout && !query.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let record = container.record();
    if record.host_config.log_config.kind == "none" {
        return Err(Error::not_implemented("configured logging driver does not support reading"));
    }
    Ok(Request {
        path: container.log_path(),
        stdout: query.stdout,
        stderr: query.stderr,
        follow: query.follow,
        since: timestamp("since", &query.since)?,
        until: timestamp("until", &query.until)?,
        timestamps: query.timestamps,
        // Compat: an invalid number is "all".
        tail: query.tail.parse().ok(),
    })
}

/// `seconds[.nanoseconds]`; empty and zero are no bound.
pub fn timestamp(name: &str, text: &str) -> Result<Option<jiff::Timestamp>> {
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let invalid = || Error::invalid(format!("invalid value for \"{name}\": {text:?}"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid());
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
    jiff::Timestamp::new(seconds, nanos).map(Some).map_err(|_| invalid())
}

/// Reads the log into `sink`; blocks while following, until the container ends or `is_gone` says that
/// nobody listens.
pub fn read(
    container: &Arc<Container>,
    request: &Request,
    is_gone: &dyn Fn() -> bool,
    sink: &mut dyn FnMut(Source, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut follower = match Follower::open(&request.path, request.tail)? {
        Some(follower) => follower,
        None if !request.follow => return Ok(()),
        None => match wait_for_file(container, &request.path, is_gone)? {
            Some(follower) => follower,
            None => return Ok(()),
        },
    };
    loop {
        // Looked at before reading: what was written before the exit was recorded is then all read.
        let is_over = !request.follow || !may_write(container);
        while let Some(line) = follower.next_line()? {
            if request.deliver(&line, sink)? {
                return Ok(());
            }
        }
        if is_over {
            return Ok(());
        }
        if is_gone() {
            return Ok(());
        }
        if request.until.is_some_and(|until| jiff::Timestamp::now() > until) {
            return Ok(());
        }
        follower.wait()?;
    }
}

fn may_write(container: &Container) -> bool {
    let inner = container.lock();
    inner.is_starting
        || inner.record.state.is_alive()
        || inner.record.state == super::state::State::Restarting
}

/// A container that was never started has no file yet; Docker ends at once unless it runs.
fn wait_for_file(
    container: &Container,
    path: &Path,
    is_gone: &dyn Fn() -> bool,
) -> io::Result<Option<Follower>> {
    loop {
        let is_over = !may_write(container);
        if let Some(follower) = Follower::open(path, None)? {
            return Ok(Some(follower));
        }
        if is_over || is_gone() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Request {
    /// Hands one line on; `true` when `until` is passed.
    fn deliver(
        &self,
        text: &[u8],
        sink: &mut dyn FnMut(Source, &[u8]) -> io::Result<()>,
    ) -> io::Result<bool> {
        let Ok(line) = serde_json::from_slice::<Line>(text) else { return Ok(false) };
        let source = if line.stream == "stderr" { Source::Stderr } else { Source::Stdout };
        if self.since.is_some() || self.until.is_some() {
            let Ok(time) = line.time.parse::<jiff::Timestamp>() else { return Ok(false) };
            if self.since.is_some_and(|since| time < since) {
                return Ok(false);
            }
            if self.until.is_some_and(|until| time > until) {
                return Ok(true);
            }
        }
        let wanted = match source {
            Source::Stdout => self.stdout,
            Source::Stderr => self.stderr,
        };
        if wanted {
            if self.timestamps {
                let time = line
                    .time
                    .parse::<jiff::Timestamp>()
                    .map_or_else(|_| line.time.clone(), |time| format!("{time:.9}"));
                sink(source, format!("{time} {}", line.log).as_bytes())?;
            } else {
                sink(source, line.log.as_bytes())?;
            }
        }
        Ok(false)
    }
}

/// Reads lines across the rotated files and then the current one, as it grows and is rotated away.
struct Follower {
    path: PathBuf,
    /// Files still to be read, the next one last.
    older: Vec<File>,
    current: BufReader<File>,
    inode: u64,
    /// A line whose end is not written yet.
    partial: Vec<u8>,
    watch: Option<std::os::fd::OwnedFd>,
}

impl Follower {
    /// Opens the log so that the last `tail` lines come first; `None` when there is no file.
    fn open(path: &Path, tail: Option<u64>) -> io::Result<Option<Follower>> {
        let mut files = Vec::new();
        let mut wanted = tail;
        for number in 0.. {
            let mut file = match File::open(rotated(path, number)) {
                Ok(file) => file,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => break,
                Err(cause) => return Err(cause),
            };
            if let Some(lines) = wanted {
                let found = seek_to_last_lines(&mut file, lines)?;
                wanted = Some(lines - found);
            }
            files.push(file);
            if wanted == Some(0) {
                break;
            }
        }
        // `files` is newest first, so popping from its end reads oldest to newest.
        let Some(oldest) = files.pop() else { return Ok(None) };
        let inode = oldest.metadata()?.ino();
        Ok(Some(Follower {
            path: path.to_owned(),
            older: files,
            current: BufReader::new(oldest),
            inode,
            partial: Vec::new(),
            watch: None,
        }))
    }

    /// The next whole line without its newline, or `None` when there is none yet.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            self.current.read_until(b'\n', &mut self.partial)?;
            if self.partial.last() == Some(&b'\n') {
                let mut line = std::mem::take(&mut self.partial);
                line.pop();
                return Ok(Some(line));
            }
            // The end of this file. A line cut off at the end of a finished file will never be whole.
            if let Some(next) = self.older.pop() {
                self.partial.clear();
                self.inode = next.metadata()?.ino();
                self.current = BufReader::new(next);
            } else if self.was_rotated()? {
                self.partial.clear();
                self.watch = None;
                let file = match File::open(&self.path) {
                    Ok(file) => file,
                    Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(cause) => return Err(cause),
                };
                self.inode = file.metadata()?.ino();
                self.current = BufReader::new(file);
            } else {
                return Ok(None);
            }
        }
    }

    fn was_rotated(&self) -> io::Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok(meta.ino() != self.inode),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    /// Blocks until the file changes, at most [`IDLE`].
    fn wait(&mut self) -> io::Result<()> {
        if self.watch.is_none() {
            let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            // A file that vanished meanwhile is noticed by the next look.
            let _ = inotify::add_watch(
                &watch,
                &self.path,
                inotify::WatchFlags::MODIFY
                    | inotify::WatchFlags::MOVE_SELF
                    | inotify::WatchFlags::DELETE_SELF,
            );
            self.watch = Some(watch);
            // Whatever was written between the last read and the watch is read before the next wait.
            return Ok(());
        }
        if let Some(watch) = &self.watch {
            let mut fds = [PollFd::new(watch, PollFlags::IN)];
            match poll(&mut fds, Some(&IDLE)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
            let mut discard = [0u8; 4096];
            // What happened is of no interest, only that something did.
            let _ = rustix::io::read(watch, &mut discard);
        }
        Ok(())
    }
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

    #[test]
    fn the_last_lines_are_found_across_rotated_files() {
        let dir = scratch("tail");
        let path = dir.join("log");
        std::fs::write(dir.join("log.2"), "1\n2\n").unwrap();
        std::fs::write(dir.join("log.1"), "3\n4\n").unwrap();
        std::fs::write(&path, "5\n6\n").unwrap();
        let read = |tail| lines(&mut Follower::open(&path, tail).unwrap().unwrap());
        assert_eq!(read(None), ["1", "2", "3", "4", "5", "6"]);
        assert_eq!(read(Some(3)), ["4", "5", "6"]);
        assert_eq!(read(Some(2)), ["5", "6"]);
        assert_eq!(read(Some(0)), Vec::<String>::new());
        assert_eq!(read(Some(99)).len(), 6);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_follower_goes_on_after_growth_and_rotation_and_waits_for_a_whole_line() {
        let dir = scratch("follow");
        let path = dir.join("log");
        std::fs::write(&path, "1\nhal").unwrap();
        let mut follower = Follower::open(&path, None).unwrap().unwrap();
        assert_eq!(lines(&mut follower), ["1"]);
        File::options().append(true).open(&path).unwrap().write_all(b"f\n2\n").unwrap();
        assert_eq!(lines(&mut follower), ["half", "2"]);
        std::fs::rename(&path, dir.join("log.1")).unwrap();
        std::fs::write(&path, "3\n").unwrap();
        assert_eq!(lines(&mut follower), ["3"]);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn bounds_in_time_are_seconds_with_nanoseconds() {
        assert_eq!(timestamp("since", "").unwrap(), None);
        assert_eq!(timestamp("since", "5.25").unwrap(), Some(jiff::Timestamp::new(5, 250_000_000).unwrap()));
        for bad in ["x", "1.x", "1.0000000001", "9999999999999"] {
            assert!(timestamp("since", bad).is_err(), "{bad}");
        }
    }
}
