//! Reading what a container said: the json-file log, its rotated predecessors, and what is still to come.
//!
//! The shim writes (`runtime::shim::log`), this reads: line by line, each a JSON object. A line that a power
//! cut left half written is passed over.
//!
//! Following lasts for one run of the container, as Docker's does: it ends when the run has ended and all of
//! it is read. Clients that follow across restarts (compose) ask again at each start.
//!
//! Not here: files and their rotation (`follower`).

mod follower;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::container::{Container, Record};
use crate::daemon::bell::Bell;
use crate::daemon::error::{Error, Result};
use crate::daemon::pattern::Pattern;
use crate::http::api::container::LogsQuery;
use crate::runtime::LogMark;
use follower::Follower;

/// Between looks at a log the kernel does not watch for us.
const UNWATCHED: Duration = Duration::from_millis(100);

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
    path: std::path::PathBuf,
    stdout: bool,
    stderr: bool,
    /// Rings when the container's state changes; `None` does not follow.
    follow: Option<Arc<Bell>>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    timestamps: bool,
    /// What `details` puts before each line.
    details: String,
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
    if record.host_config.log_config.kind == "none" {
        return Err(Error::not_implemented("configured logging driver does not support reading"));
    }
    Ok(Request {
        path: container.log_path(),
        stdout: query.stdout,
        stderr: query.stderr,
        follow: if query.follow { Some(container.watch()?) } else { None },
        since: timestamp("since", &query.since)?,
        until: timestamp("until", &query.until)?,
        timestamps: query.timestamps,
        details: if query.details { details(&record) } else { String::new() },
        // Compat: an invalid number is "all".
        tail: query.tail.parse().ok(),
    })
}

/// The labels and variables that the log options (`labels`, `labels-regex`, `env`, `env-regex`) name, and the `tag`: `k=v` pairs as in a
/// URL, in order, and the space that stands before the line even when there are none.
fn details(record: &Record) -> String {
    let options = &record.host_config.log_config.config;
    let named = |key: &str| options.get(key).into_iter().flat_map(|list| list.split(',')).map(str::trim);
    let mut found = std::collections::BTreeMap::new();
    let wanted = |list: &str, regex: &str| {
        let names: Vec<&str> = named(list).collect();
        let pattern = options.get(regex).filter(|text| !text.is_empty()).map(|text| Pattern::new(text));
        move |name: &str| names.contains(&name) || pattern.as_ref().is_some_and(|one| one.matches(name))
    };
    let variables = record.config.env.iter().filter_map(|variable| variable.split_once('='));
    let is_wanted = wanted("env", "env-regex");
    // A name given twice has its last value.
    found.extend(variables.filter(|(name, _)| is_wanted(name)).map(|(k, v)| (k.to_owned(), v.to_owned())));
    let is_wanted = wanted("labels", "labels-regex");
    let labels = record.config.labels.iter().filter(|(name, _)| is_wanted(name));
    found.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
    if let Some(tag) = options.get("tag").filter(|tag| !tag.is_empty()) {
        found.insert("tag".to_owned(), expand_tag(tag, record));
    }
    let pairs: Vec<_> =
        found.iter().map(|(key, value)| format!("{}={}", escape(key), escape(value))).collect();
    format!("{} ", pairs.join(","))
}

/// Docker's words for a log's tag.
fn expand_tag(tag: &str, record: &Record) -> String {
    let image_id = record.image_id.strip_prefix("sha256:").unwrap_or(&record.image_id);
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    [
        ("{{.ID}}", short(&record.id)),
        ("{{.FullID}}", record.id.clone()),
        ("{{.Name}}", record.name.clone()),
        ("{{.FullName}}", format!("/{}", record.name)),
        ("{{.ImageName}}", record.config.image.clone()),
        ("{{.ImageID}}", short(image_id)),
        ("{{.ImageFullID}}", record.image_id.clone()),
        ("{{.DaemonName}}", "docker".to_owned()),
    ]
    .iter()
    .fold(tag.to_owned(), |text, (word, value)| text.replace(word, value))
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
    let mut follower = Follower::open(&request.path, request.tail, request.follow.is_some())?;
    let mut run = None;
    loop {
        if let Some(bell) = &request.follow {
            bell.silence();
        }
        // Looked at before reading: what was written before the exit was recorded is then all read.
        let goes_on = request.follow.is_some() && may_write(container, &mut run);
        while let Some(line) = follower.next_line()? {
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
        let mut follower = Follower::open(&request.path, request.tail, false)?;
        follower.end_at(end);
        Ok(Replay { follower, request })
    }

    /// The next piece, `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<(Source, Vec<u8>)>> {
        while let Some(line) = self.follower.next_line()? {
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
pub fn mark(container: &Container) -> Option<LogMark> {
    use std::os::unix::fs::MetadataExt;
    let meta = std::fs::metadata(container.log_path()).ok()?;
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
    fn select(&self, text: &[u8]) -> Verdict {
        let Ok(line) = serde_json::from_slice::<Line>(text) else { return Verdict::Skip };
        let source = if line.stream == "stderr" { Source::Stderr } else { Source::Stdout };
        let time = || line.time.parse::<jiff::Timestamp>();
        if self.since.is_some() || self.until.is_some() {
            let Ok(time) = time() else { return Verdict::Skip };
            if self.since.is_some_and(|since| time < since) {
                return Verdict::Skip;
            }
            if self.until.is_some_and(|until| time > until) {
                return Verdict::Past;
            }
        }
        let is_wanted = match source {
            Source::Stdout => self.stdout,
            Source::Stderr => self.stderr,
        };
        if !is_wanted {
            return Verdict::Skip;
        }
        let mut out = String::new();
        if self.timestamps {
            out = time().map_or_else(|_| line.time.clone(), |time| format!("{time:.9}"));
            out.push(' ');
        }
        out.push_str(&self.details);
        out.push_str(&line.log);
        Verdict::Deliver(source, out.into_bytes())
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
    fn details_are_what_the_log_options_name_in_order() {
        let mut record = Record { id: "ab".repeat(32), name: "web".into(), ..Record::default() };
        assert_eq!(details(&record), " ");
        record.config.labels = [("b", "1 2"), ("other", "x")].map(|(k, v)| (k.into(), v.into())).into();
        record.config.env = vec!["A=x/y".to_owned(), "B=z".to_owned()];
        record.host_config.log_config.config =
            [("labels", "b,none"), ("env", "A"), ("tag", "{{.Name}}/{{.ID}}")]
                .map(|(k, v)| (k.into(), v.into()))
                .into();
        assert_eq!(details(&record), "A=x%2Fy,b=1+2,tag=web%2Fabababababab ");
        record.host_config.log_config.config =
            [("labels-regex", "^(b|oth)"), ("env-regex", "B")].map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(details(&record), "B=z,b=1+2,other=x ");
    }
}
