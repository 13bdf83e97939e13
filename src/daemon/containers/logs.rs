//! Reading what a container said: its log, the rotated predecessors, and what is still to come.
//!
//! The shim writes (`runtime::shim::log`), this reads: entry by entry, JSON objects or `local`'s messages. One that a
//! power cut left half written is passed over.
//!
//! Following lasts for one run of the container, as Docker's does: it ends when the run has ended and all of
//! it is read. Clients that follow across restarts (compose) ask again at each start.
//!
//! Not here: files and their rotation (`follower`), drivers and their options (`drivers`).

pub mod drivers;
mod follower;
mod tag;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::container::Container;
use crate::daemon::bell::Bell;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{LogConfig, LogsQuery};
use crate::runtime::shim::log::entry::decode_local;
use crate::runtime::{LogFormat, LogMark};
use follower::Follower;

/// Between looks at a log the kernel does not watch for us.
const UNWATCHED: Duration = Duration::from_millis(100);

/// Which stream a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Stdout,
    Stderr,
}

/// One line of a `json-file` log.
#[derive(Deserialize)]
struct Line {
    log: String,
    stream: String,
    #[serde(default)]
    attrs: BTreeMap<String, String>,
    time: String,
}

/// An entry of either format.
struct Entry {
    source: Source,
    /// `None` when it cannot be read.
    time: Option<jiff::Timestamp>,
    text: Vec<u8>,
    /// In order of their names.
    attrs: BTreeMap<String, String>,
}

impl Entry {
    fn read(format: LogFormat, bytes: &[u8]) -> Option<Entry> {
        match format {
            LogFormat::Json => {
                let line: Line = serde_json::from_slice(bytes).ok()?;
                let source = if line.stream == "stderr" { Source::Stderr } else { Source::Stdout };
                let text = line.log.into_bytes();
                Some(Entry { source, time: line.time.parse().ok(), text, attrs: line.attrs })
            }
            LogFormat::Local => {
                let entry = decode_local(bytes)?;
                let mut text = entry.text.to_vec();
                if entry.ends_line {
                    text.push(b'\n');
                }
                let attrs = entry.attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
                Some(Entry {
                    source: if entry.is_stderr { Source::Stderr } else { Source::Stdout },
                    time: jiff::Timestamp::from_nanosecond(i128::from(entry.nanos)).ok(),
                    text,
                    attrs: attrs.collect(),
                })
            }
        }
    }
}

/// What to read, checked.
#[derive(Debug)]
pub struct Request {
    path: std::path::PathBuf,
    format: LogFormat,
    stdout: bool,
    stderr: bool,
    /// Rings when the container's state changes; `None` does not follow.
    follow: Option<Arc<Bell>>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    timestamps: bool,
    /// Put the entry's attributes before it.
    details: bool,
    /// `None` is everything.
    tail: Option<u64>,
}

/// Checks a request before the answer begins.
///
/// # Errors
/// InvalidParameter when no stream is asked for or a time does not parse; NotImplemented when the driver
/// keeps nothing that could be read; Conflict when the container is on its way out.
pub fn request(container: &Container, query: &LogsQuery) -> Result<Request> {
    if !query.stdout && !query.stderr {
        return Err(Error::invalid("Bad parameters: you must choose at least one stream"));
    }
    let record = container.record();
    if matches!(record.state, super::state::State::Removing | super::state::State::Dead) {
        return Err(Error::conflict("can not get logs from container which is dead or marked for removal"));
    }
    let place = drivers::place(container, &record.host_config.log_config);
    let (path, format) =
        place.ok_or_else(|| Error::not_implemented("configured logging driver does not support reading"))?;
    Ok(Request {
        path,
        format,
        stdout: query.stdout,
        stderr: query.stderr,
        follow: if query.follow { Some(container.watch()?) } else { None },
        since: timestamp("since", &query.since)?,
        until: timestamp("until", &query.until)?,
        timestamps: query.timestamps,
        details: query.details,
        // Compat: an invalid number is "all".
        tail: query.tail.parse().ok(),
    })
}

/// The attributes as `k=v` pairs as in a URL, and the space that stands before the line even when there are none.
fn details(attrs: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> =
        attrs.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    format!("{} ", pairs.join(","))
}

/// As Go's `url.QueryEscape`.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            b' ' => "+".to_owned(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
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

/// Waits for one of the descriptors, or as long as given; false when nobody listens any more.
pub type Wait<'a> = &'a dyn Fn(&[BorrowedFd<'_>], Option<Duration>) -> bool;

/// Takes a piece of the log, or `None` when no more is there for now.
pub type Sink<'a> = &'a mut dyn FnMut(Option<(Source, &[u8])>) -> io::Result<()>;

/// Reads the log into `sink`; blocks while following, until the container's run ends or `wait` says that
/// nobody listens.
pub fn read(container: &Container, request: &Request, wait: Wait<'_>, sink: Sink<'_>) -> io::Result<()> {
    let mut follower = Follower::open(&request.path, request.format, request.tail, request.follow.is_some())?;
    let mut run = None;
    loop {
        if let Some(bell) = &request.follow {
            bell.silence();
        }
        // Looked at before reading: what was written before the exit was recorded is then all read.
        let goes_on = request.follow.is_some() && may_write(container, &mut run);
        while let Some(line) = follower.next_entry()? {
            match request.select(&line) {
                Verdict::Skip => {}
                Verdict::Past => return Ok(()),
                Verdict::Deliver(source, text) => sink(Some((source, &text)))?,
            }
        }
        let Some(bell) = request.follow.as_ref().filter(|_| goes_on) else { return Ok(()) };
        sink(None)?;
        let left = request.until.map(|until| until.duration_since(jiff::Timestamp::now()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or_default());
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        let is_there = match follower.watch() {
            Some(watch) => wait(&[bell.as_fd(), watch], left),
            None => wait(&[bell.as_fd()], Some(left.map_or(UNWATCHED, |left| left.min(UNWATCHED)))),
        };
        if !is_there {
            return Ok(());
        }
        follower.calm();
    }
}

/// Whether the run that was first seen may still write; `run` is its number, once known.
fn may_write(container: &Container, run: &mut Option<u64>) -> bool {
    let inner = container.lock();
    if inner.record.state.is_alive() {
        return *run.get_or_insert(inner.run) == inner.run;
    }
    inner.is_starting && run.is_none()
}

/// The log up to a point, for a client that hears the rest from the process itself.
#[derive(Debug)]
pub struct Replay {
    follower: Follower,
    request: Request,
}

impl Replay {
    /// Everything up to `end`; `None` is what is there now.
    pub fn open(request: Request, end: Option<LogMark>) -> io::Result<Replay> {
        let mut follower = Follower::open(&request.path, request.format, request.tail, false)?;
        follower.end_at(end);
        Ok(Replay { follower, request })
    }

    /// The next piece, `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<(Source, Vec<u8>)>> {
        while let Some(line) = self.follower.next_entry()? {
            match self.request.select(&line) {
                Verdict::Skip => {}
                Verdict::Past => break,
                Verdict::Deliver(source, text) => return Ok(Some((source, text))),
            }
        }
        Ok(None)
    }
}

/// Where the log of a container that does not run ends.
pub fn mark(container: &Container, config: &LogConfig) -> Option<LogMark> {
    use std::os::unix::fs::MetadataExt;
    let (path, _) = drivers::place(container, config)?;
    let meta = std::fs::metadata(path).ok()?;
    Some(LogMark { inode: meta.ino(), bytes: meta.len() })
}

/// What becomes of a line.
enum Verdict {
    Skip,
    /// It is later than `until`, and so is everything after it.
    Past,
    Deliver(Source, Vec<u8>),
}

impl Request {
    fn select(&self, bytes: &[u8]) -> Verdict {
        let Some(entry) = Entry::read(self.format, bytes) else { return Verdict::Skip };
        if self.since.is_some() || self.until.is_some() {
            let Some(time) = entry.time else { return Verdict::Skip };
            if self.since.is_some_and(|since| time < since) {
                return Verdict::Skip;
            }
            if self.until.is_some_and(|until| time > until) {
                return Verdict::Past;
            }
        }
        let is_wanted = match entry.source {
            Source::Stdout => self.stdout,
            Source::Stderr => self.stderr,
        };
        if !is_wanted {
            return Verdict::Skip;
        }
        let mut out = Vec::new();
        if self.timestamps {
            let time = entry.time.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
            out.extend_from_slice(format!("{time:.9} ").as_bytes());
        }
        if self.details {
            out.extend_from_slice(details(&entry.attrs).as_bytes());
        }
        out.extend_from_slice(&entry.text);
        Verdict::Deliver(entry.source, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_in_time_are_seconds_with_nanoseconds() {
        assert_eq!(timestamp("since", "").unwrap(), None);
        assert_eq!(timestamp("since", "5.25").unwrap(), Some(jiff::Timestamp::new(5, 250_000_000).unwrap()));
        for bad in ["x", "1.x", "1.0000000001", "9999999999999"] {
            assert!(timestamp("since", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn entries_of_both_formats_are_read() {
        let line =
            br#"{"log":"a\n","stream":"stderr","attrs":{"tag":"x y","a":"/"},"time":"2026-01-02T03:04:05Z"}"#;
        let entry = Entry::read(LogFormat::Json, line).unwrap();
        assert_eq!((entry.source, &entry.text[..]), (Source::Stderr, &b"a\n"[..]));
        assert_eq!(details(&entry.attrs), "a=%2F,tag=x+y ");
        assert_eq!(details(&BTreeMap::new()), " ");
        let old = br#"{"log":"a","stream":"stdout","time":"never"}"#;
        assert!(Entry::read(LogFormat::Json, old).is_some_and(|entry| entry.time.is_none()));
        assert!(Entry::read(LogFormat::Json, b"{\"log\":").is_none());
        assert!(Entry::read(LogFormat::Local, b"\x0a\xff").is_none());
    }
}
