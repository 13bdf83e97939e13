//! One health probe: a command in the container, its exit code and the beginning of what it said.
//!
//! It is an exec like any other, events included, except that it is forgotten as soon as it has ended: a
//! check every second would otherwise fill the memory. One that outlives its time is killed with what it
//! started.

use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::container::{Container, Inner};
use super::exec::{self, Phase};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::exec::{ExecCreate, ExecStart};

/// Source: Docker keeps that many bytes of a probe's output.
const OUTPUT_BYTES: usize = 4096;
/// How long the kernel gets to end a killed probe; a paused container keeps it longer.
const KILL_WAIT: Duration = Duration::from_secs(10);

/// Runs `command`; its time begins when it has started. Returns exit code and output, -1 for a probe that
/// took too long.
///
/// # Errors
/// It could not be started; the text is for the user.
pub fn run(
    engine: &Engine,
    container: &Arc<Container>,
    command: Vec<String>,
    timeout: Duration,
) -> Result<(i32, String)> {
    let request =
        ExecCreate { cmd: command, attach_stdout: true, attach_stderr: true, ..ExecCreate::default() };
    let id = exec::create_probe(engine, container, request)?;
    let result = run_exec(engine, container, &id, timeout);
    exec::forget(engine, container, &id);
    result
}

fn run_exec(
    engine: &Engine,
    container: &Arc<Container>,
    id: &str,
    timeout: Duration,
) -> Result<(i32, String)> {
    let mut ready = exec::prepare(engine, id, &ExecStart::default())?;
    let attached = ready.attached.take();
    ready.run(engine)?;
    let deadline = Instant::now() + timeout;
    let mut output = Output::default();
    if let Some(attached) = &attached {
        output.read(&attached.stream, deadline);
    }
    let has_ended = |inner: &Inner| code_of(inner, id).is_some();
    let left = deadline.saturating_duration_since(Instant::now());
    if container.wait_until(Some(left), has_ended) {
        let code = code_of(&container.lock(), id);
        return code
            .map(|code| (code, output.text()))
            .ok_or_else(|| Error::system("check the health", "the probe was forgotten"));
    }
    let sandbox = container.lock().sandbox.clone();
    // What cannot be killed has ended, or the container has; either is seen below.
    if let Some(Err(error)) = sandbox.map(|sandbox| sandbox.signal(9, Some(id))) {
        log::debug!("kill a probe of container {:?}: {error}", container.name());
    }
    container.wait_until(Some(KILL_WAIT), has_ended);
    let mut text = format!("Health check exceeded timeout ({})", go_duration(timeout));
    let said = output.text();
    if !said.is_empty() {
        text = format!("{text}: {said}");
    }
    Ok((-1, text))
}

fn code_of(inner: &Inner, id: &str) -> Option<i32> {
    match inner.execs.get(id)?.phase {
        Phase::Ended { code, .. } => Some(code),
        Phase::Created | Phase::Running => None,
    }
}

/// What a probe said: both streams as one, out of Docker's frames (stream, three zeros, length, bytes).
#[derive(Debug, Default)]
struct Output {
    said: Vec<u8>,
    is_cut: bool,
    header: Vec<u8>,
    /// Bytes of the current frame still to come.
    left: usize,
}

impl Output {
    /// Reads until the end, or the deadline.
    fn read(&mut self, stream: &UnixStream, deadline: Instant) {
        let mut stream = stream;
        let mut block = [0_u8; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || stream.set_read_timeout(Some(left)).is_err() {
                return;
            }
            match stream.read(&mut block) {
                Ok(0) => return,
                Ok(count) => self.push(&block[..count]),
                Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            if self.left == 0 {
                self.header.push(*first);
                bytes = rest;
                if let [_, _, _, _, a, b, c, d] = self.header[..] {
                    self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                    self.header.clear();
                }
                continue;
            }
            let (taken, rest) = bytes.split_at(self.left.min(bytes.len()));
            let room = OUTPUT_BYTES - self.said.len();
            self.said.extend_from_slice(&taken[..taken.len().min(room)]);
            self.is_cut |= taken.len() > room;
            self.left -= taken.len();
            bytes = rest;
        }
    }

    fn text(&self) -> String {
        let mut text = String::from_utf8_lossy(&self.said).into_owned();
        if self.is_cut {
            text.push_str("...");
        }
        text
    }
}

/// A duration in Go's spelling, which Docker's message has: `1m30s`, `1.5s`, `20ms`.
fn go_duration(duration: Duration) -> String {
    let (secs, nanos) = (duration.as_secs(), duration.subsec_nanos());
    let fraction = |value: u32, digits: usize| {
        let text = format!("{value:0digits$}");
        let text = text.trim_end_matches('0');
        if text.is_empty() { String::new() } else { format!(".{text}") }
    };
    match (secs, nanos) {
        (0, 0) => "0s".to_owned(),
        (0, ..1_000) => format!("{nanos}ns"),
        (0, ..1_000_000) => format!("{}{}µs", nanos / 1_000, fraction(nanos % 1_000, 3)),
        (0, _) => format!("{}{}ms", nanos / 1_000_000, fraction(nanos % 1_000_000, 6)),
        _ => {
            let (hours, minutes) = (secs / 3600, secs / 60 % 60);
            let mut text = String::new();
            if hours > 0 {
                text = format!("{hours}h");
            }
            if hours > 0 || minutes > 0 {
                text = format!("{text}{minutes}m");
            }
            format!("{text}{}{}s", secs % 60, fraction(nanos, 9))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stream: u8, text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text].concat()
    }

    #[test]
    fn frames_are_taken_apart_wherever_they_are_cut() {
        let bytes = [frame(1, b"out\n"), frame(2, b""), frame(2, b"err\n")].concat();
        for cut in 0..bytes.len() {
            let mut output = Output::default();
            output.push(&bytes[..cut]);
            output.push(&bytes[cut..]);
            assert_eq!(output.text(), "out\nerr\n", "cut at {cut}");
        }
    }

    #[test]
    fn output_is_cut_and_said_to_be() {
        let mut output = Output::default();
        output.push(&frame(1, &[b'x'; OUTPUT_BYTES]));
        assert_eq!(output.text().len(), OUTPUT_BYTES);
        output.push(&frame(2, b"y"));
        assert_eq!(output.text(), "x".repeat(OUTPUT_BYTES) + "...");
    }

    #[test]
    fn durations_are_spelt_as_go_does() {
        for (nanos, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }
}
