//! How far long work has come: the daemon's messages as bars on a terminal and as plain lines elsewhere, and
//! a count of what a copy has moved.
//!
//! On a terminal each object of a stream has a line of its own, which is written again as it moves on:
//!
//! ```text
//!  5f70bf18a086: Loading layer [====>              ]  1.024kB/4.096kB     ↑ one line up for each object
//!  a1b2c3d4e5f6: Loading layer [=================>]  4.096kB/4.096kB     below, down again afterwards
//! ```
//!
//! Compat: widths, bars and texts are the docker client's (its `jsonmessage`); like it, progress in numbers is
//! left out where nobody watches.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::http::api::image::{ErrorDetail, JsonMessage, ProgressDetail};
use crate::runtime::sys::terminal;

use super::error::Error;
use super::format::{size_decimal, size_total};
use super::terminal::output_error;

/// Terminals not wider than this have no room for a bar.
const BAR_COLUMNS: u16 = 110;
/// Source: what the docker client takes for the width of a terminal that does not tell.
const UNKNOWN_COLUMNS: u16 = 200;
/// Source: the docker client's rate for the count of a copy.
const TICK: Duration = Duration::from_millis(75);

/// Prints a progress stream, unless `quiet`, and ends with the failure it carries, if it carries one.
pub fn show(reader: impl Read, quiet: bool, out: impl Write + AsFd) -> Result<(), Error> {
    follow(reader, quiet, out, &mut |message| failure(message).map_or(Ok(()), Err))
}

/// The failure a message carries: its words as they are, and the exit code of the step that failed.
pub fn failure(message: &JsonMessage) -> Option<Error> {
    let (words, code) = match (&message.error_detail, &message.error) {
        (Some(ErrorDetail { message, code }), _) => (message, *code),
        (None, Some(words)) => (words, 0),
        (None, None) => return None,
    };
    let code = u8::try_from(code).ok().filter(|code| *code != 0).unwrap_or(1);
    Some(Error::Stream { message: words.clone(), code })
}

/// Prints a progress stream, unless `quiet`, after `look` saw each message: it decides what is a failure.
pub fn follow(
    reader: impl Read,
    quiet: bool,
    mut out: impl Write + AsFd,
    look: &mut dyn FnMut(&JsonMessage) -> Result<(), Error>,
) -> Result<(), Error> {
    if quiet {
        return show_to(reader, None, &mut io::sink(), look);
    }
    let width = |columns| if columns == 0 { UNKNOWN_COLUMNS } else { columns };
    let columns = terminal::is_terminal(&out)
        .then(|| terminal::size(&out).map_or(UNKNOWN_COLUMNS, |size| width(size.columns)));
    show_to(reader, columns, &mut out, look)
}

/// `columns` of the terminal that `out` is, `None` when it is none.
fn show_to(
    reader: impl Read,
    columns: Option<u16>,
    out: &mut impl Write,
    look: &mut dyn FnMut(&JsonMessage) -> Result<(), Error>,
) -> Result<(), Error> {
    // Which line an object has, counted from the first of this block.
    let mut lines: BTreeMap<String, usize> = BTreeMap::new();
    for line in BufReader::new(reader).lines() {
        let line = line.map_err(|cause| Error::local("read the daemon's progress", cause))?;
        if line.trim().is_empty() {
            continue;
        }
        let message: JsonMessage = serde_json::from_str(line.trim())
            .map_err(|cause| Error::local("read the daemon's progress", cause))?;
        look(&message)?;
        // Compat: results for programs are no progress.
        if message.aux.is_some() {
            continue;
        }
        let text = match columns {
            None => plain(&message),
            Some(columns) => placed(&message, columns, &mut lines),
        };
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(output_error)?;
    }
    Ok(())
}

/// One message where nobody watches: no numbers that are out of date at once.
fn plain(message: &JsonMessage) -> String {
    let is_measured = message.progress_detail.as_ref().is_some_and(|detail| !bar(detail, 0).is_empty());
    match (&message.stream, &message.status) {
        _ if is_measured => String::new(),
        (Some(text), _) => text.clone(),
        (None, Some(status)) => format!("{}{status}\n", prefix(message)),
        (None, None) => String::new(),
    }
}

/// One message on its line of a terminal.
fn placed(message: &JsonMessage, columns: u16, lines: &mut BTreeMap<String, usize>) -> String {
    let detail = match (&message.stream, &message.progress_detail) {
        (None, Some(detail)) => detail,
        _ => {
            // What is printed between ends the block: its lines are not written again.
            lines.clear();
            return plain(message);
        }
    };
    let status = message.status.as_deref().unwrap_or_default();
    let text = format!("\x1b[2K\r{}{status} {}\r", prefix(message), bar(detail, columns));
    if message.id.is_empty() {
        lines.clear();
        return text;
    }
    let count = lines.len();
    let (line, begin) = match lines.get(&message.id) {
        Some(line) => (*line, ""),
        None => (count, "\n"),
    };
    lines.insert(message.id.clone(), line);
    let up = lines.len() - line;
    format!("{begin}\x1b[{up}A{text}\x1b[{up}B")
}

fn prefix(message: &JsonMessage) -> String {
    if message.id.is_empty() { String::new() } else { format!("{}: ", message.id) }
}

/// The bar, where there is room, and the numbers; empty when there is nothing to measure.
fn bar(detail: &ProgressDetail, columns: u16) -> String {
    let ProgressDetail { current, total, .. } = *detail;
    if current <= 0 && total <= 0 {
        return String::new();
    }
    if total <= 0 {
        return match detail.units.as_str() {
            "" => format!("{:>8}", size_total(current)),
            units => format!("{current} {units}"),
        };
    }
    let filled =
        usize::try_from((current.max(0) as f64 / total as f64 * 100.0) as i64 / 2).unwrap_or(0).min(50);
    let mut text = String::new();
    if columns > BAR_COLUMNS {
        text = format!("[{}>{}] ", "=".repeat(filled), " ".repeat(50 - filled));
    }
    if !detail.hidecounts {
        text += &match detail.units.as_str() {
            "" if current > total => format!("{:>8}", size_total(current)),
            "" => format!("{:>8}/{}", size_total(current), size_total(total)),
            units if current > total => format!("{current} {units}"),
            units => format!("{current}/{total} {units}"),
        };
    }
    text
}

/// Counts the bytes of a copy, and shows the count on stderr while it grows.
pub struct Meter {
    count: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    ticker: Option<JoinHandle<()>>,
}

impl Meter {
    /// Shows nothing unless `is_shown` and stderr is a terminal. `header` says what the count is of.
    pub fn start(header: &'static str, is_shown: bool) -> Meter {
        let count = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let ticker = (is_shown && terminal::is_terminal(io::stderr())).then(|| {
            let (count, is_over) = (count.clone(), is_over.clone());
            thread::Builder::new().name("meter".to_owned()).spawn(move || tick(header, &count, &is_over))
        });
        // A count that cannot be shown is no reason not to copy.
        Meter { count, is_over, ticker: ticker.and_then(Result::ok) }
    }

    /// A reader that counts what passes.
    pub fn count<R: Read>(&self, inner: R) -> Counted<R> {
        Counted { inner, count: self.count.clone() }
    }

    /// Takes the count off the screen; what it came to, in words.
    pub fn finish(mut self) -> String {
        self.stop();
        size_decimal(i64::try_from(self.count.load(Ordering::Relaxed)).unwrap_or(i64::MAX))
    }

    fn stop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(ticker) = self.ticker.take() {
            ticker.thread().unpark();
            // It only writes to stderr; nothing of its end matters here.
            let _ = ticker.join();
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn tick(header: &str, count: &AtomicU64, is_over: &AtomicBool) {
    let mut stderr = io::stderr();
    let mut shown = None;
    while !is_over.load(Ordering::Relaxed) {
        let now = count.load(Ordering::Relaxed);
        if shown != Some(now) {
            shown = Some(now);
            let size = size_decimal(i64::try_from(now).unwrap_or(i64::MAX));
            // A terminal that does not take it misses a count.
            let _ = stderr.write_all(format!("\r\x1b[2K{header}{size}").as_bytes());
        }
        thread::park_timeout(TICK);
    }
    if shown.is_some() {
        let _ = stderr.write_all(b"\r\x1b[2K");
    }
}

/// See [`Meter::count`].
pub struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stream: &str, columns: Option<u16>) -> String {
        let mut out = Vec::new();
        show_to(stream.as_bytes(), columns, &mut out, &mut |_| Ok(())).unwrap();
        String::from_utf8(out).unwrap()
    }

    const STREAM: &str = "{\"status\":\"Loading layer\",\"id\":\"abc\",\"progressDetail\":{\"current\":1000,\"total\":2000}}\r\n\
        {\"status\":\"Loading layer\",\"id\":\"def\",\"progressDetail\":{\"current\":5,\"total\":5}}\r\n\
        {\"status\":\"Loading layer\",\"id\":\"abc\",\"progressDetail\":{\"current\":2000,\"total\":2000}}\r\n\
        {\"stream\":\"Loaded image: x\\n\"}\r\n";

    #[test]
    fn numbers_are_for_terminals() {
        assert_eq!(shown(STREAM, None), "Loaded image: x\n");
        let unmeasured =
            "{\"status\":\"Waiting\",\"id\":\"abc\",\"progressDetail\":{}}\n{\"status\":\"sha256:0\"}\n";
        assert_eq!(shown(unmeasured, None), "abc: Waiting\nsha256:0\n");
    }

    #[test]
    fn each_object_keeps_its_line() {
        let narrow = shown(STREAM, Some(80));
        assert_eq!(
            narrow,
            "\n\x1b[1A\x1b[2K\rabc: Loading layer      1kB/2kB\r\x1b[1B\
             \n\x1b[1A\x1b[2K\rdef: Loading layer       5B/5B\r\x1b[1B\
             \x1b[2A\x1b[2K\rabc: Loading layer      2kB/2kB\r\x1b[2B\
             Loaded image: x\n"
        );
        let half = format!("[{}>{}]      1kB/2kB", "=".repeat(25), " ".repeat(25));
        assert!(shown(STREAM, Some(120)).contains(&half));
    }

    #[test]
    fn a_failure_in_the_stream_is_one() {
        let failing = "{\"errorDetail\":{\"message\":\"disk full\"},\"error\":\"disk full\"}\r\n";
        let error = show(failing.as_bytes(), true, io::stdout()).unwrap_err();
        // Compat: docker has no words of its own before it.
        assert_eq!(error.to_string(), "disk full");
        assert!(show(&b"garbage"[..], true, io::stdout()).is_err());
    }

    #[test]
    fn a_copy_is_counted() {
        let meter = Meter::start("Copying - ", false);
        io::copy(&mut meter.count(&[0; 2048][..]), &mut io::sink()).unwrap();
        assert_eq!(meter.finish(), "2.05kB");
    }
}
