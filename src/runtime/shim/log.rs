//! The json-file log: container output as one JSON object per line.
//!
//! In: chunks of a stream as read from its pipe. Out: `{"log":"…\n","stream":"stdout","time":"…"}` lines
//! appended to a file, rotated by size. A line longer than [`LINE_BYTES`] is cut into pieces without a
//! newline, as Docker's driver does; a piece never ends inside a UTF-8 character. Bytes that are not UTF-8
//! become U+FFFD: JSON cannot carry them.
//!
//! A full disk must not stop the container: what cannot be written is lost, and writing is tried again with
//! the next line. A write cut short is completed first, so that no line is torn.
//!
//! Source: moby `daemon/logger/jsonfilelog` for format and rotation order.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::runtime::{LogFile, LogMark};

/// Longest piece of a line.
pub const LINE_BYTES: usize = 16 * 1024;

/// Which of a process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// An open log and the unfinished line of each stream.
#[derive(Debug)]
pub struct Log {
    file: RotatedFile,
    pending: [Vec<u8>; 2],
}

impl Log {
    /// Opens the log for appending.
    pub fn open(config: LogFile) -> io::Result<Log> {
        Ok(Log { file: RotatedFile::open(config)?, pending: [Vec::new(), Vec::new()] })
    }

    /// Where the next line will be written; `None` when the file cannot be looked at.
    pub fn mark(&self) -> Option<LogMark> {
        let inode = self.file.file.as_ref()?.metadata().ok()?.ino();
        Some(LogMark { inode, bytes: self.file.size })
    }

    /// What of `stream` is not written yet, because its line goes on.
    pub fn unfinished(&self, stream: Stream) -> &[u8] {
        &self.pending[stream as usize]
    }

    /// Takes a chunk of `stream`, and writes the lines it completes. `time` is RFC 3339.
    pub fn write(&mut self, stream: Stream, chunk: &[u8], time: &str) {
        let pending = &mut self.pending[stream as usize];
        let mut out = Vec::new();
        let mut rest = chunk;
        while !rest.is_empty() {
            let line_end = rest.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let room = LINE_BYTES - pending.len();
            let take = line_end.unwrap_or(rest.len()).min(room);
            let complete = line_end == Some(take);
            if pending.is_empty() && complete {
                encode(&mut out, stream, &rest[..take], time);
            } else {
                pending.extend_from_slice(&rest[..take]);
                if complete {
                    encode(&mut out, stream, pending, time);
                    // Most programs write whole lines: do not keep a buffer for the odd one that did not.
                    *pending = Vec::new();
                } else if pending.len() == LINE_BYTES {
                    let cut = character_boundary(pending);
                    encode(&mut out, stream, &pending[..cut], time);
                    pending.drain(..cut);
                }
            }
            rest = &rest[take..];
            // A rotation is due between two lines, not only between two chunks.
            if self.file.is_full_with(out.len()) {
                self.file.append(&out);
                out.clear();
            }
        }
        if !out.is_empty() {
            self.file.append(&out);
        }
    }

    /// Writes what was not ended by a newline: the stream has ended.
    pub fn finish(&mut self, stream: Stream, time: &str) {
        let pending = std::mem::take(&mut self.pending[stream as usize]);
        if !pending.is_empty() {
            let mut out = Vec::new();
            encode(&mut out, stream, &pending, time);
            self.file.append(&out);
        }
    }
}

/// The largest prefix that does not end inside a UTF-8 character; never empty.
fn character_boundary(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() && error.valid_up_to() > 0 => error.valid_up_to(),
        _ => bytes.len(),
    }
}

/// Appends one log line.
fn encode(out: &mut Vec<u8>, stream: Stream, text: &[u8], time: &str) {
    out.reserve(text.len() + 80);
    out.extend_from_slice(b"{\"log\":\"");
    for chunk in text.utf8_chunks() {
        escape(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// JSON's string escapes, as short as they come.
fn escape(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..=0x1f => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        if short == 0 {
            out.extend_from_slice(b"\\u00");
            out.push(HEX[usize::from(byte >> 4)]);
            out.push(HEX[usize::from(byte & 15)]);
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}

/// A file that is set aside when it has grown to its limit.
#[derive(Debug)]
struct RotatedFile {
    config: LogFile,
    file: Option<File>,
    size: u64,
    /// What a full disk kept from being written of a line that was begun.
    torn: Vec<u8>,
}

impl RotatedFile {
    fn open(config: LogFile) -> io::Result<RotatedFile> {
        let file = open_append(&config.path)?;
        let size = file.metadata()?.len();
        Ok(RotatedFile { config, file: Some(file), size, torn: Vec::new() })
    }

    /// Appends whole lines; failure loses them.
    fn append(&mut self, lines: &[u8]) {
        if self.config.max_size_bytes.is_some_and(|max| self.size >= max) && self.torn.is_empty() {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = open_append(&self.config.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        while !self.torn.is_empty() {
            match file.write(&self.torn) {
                Ok(written) if written > 0 => {
                    self.torn.drain(..written);
                    self.size += written as u64;
                }
                _ => return,
            }
        }
        let mut rest = lines;
        while !rest.is_empty() {
            match file.write(rest) {
                Ok(written) if written > 0 => {
                    rest = &rest[written..];
                    self.size += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
        // `rest` starts inside a line if something of that line is already in the file.
        let begun = rest.len() < lines.len() && lines[lines.len() - rest.len() - 1] != b'\n';
        if begun {
            let end = rest.iter().position(|&byte| byte == b'\n').map_or(rest.len(), |at| at + 1);
            self.torn = rest[..end].to_vec();
        }
    }

    /// Whether the file has reached its size once `bytes` more are in it.
    fn is_full_with(&self, bytes: usize) -> bool {
        bytes > 0 && self.config.max_size_bytes.is_some_and(|max| self.size + bytes as u64 >= max)
    }

    /// `log` becomes `log.1`, `log.1` becomes `log.2`, and so on; the last one goes.
    fn rotate(&mut self) {
        self.file = None;
        self.size = 0;
        let path = &self.config.path;
        for number in (1..self.config.max_files.max(1)).rev() {
            let from = if number == 1 { path.clone() } else { numbered(path, number - 1) };
            // A missing file in the row is no reason to stop logging.
            let _ = std::fs::rename(from, numbered(path, number));
        }
        if self.config.max_files <= 1 {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn open_append(path: &Path) -> io::Result<File> {
    // 0640: readable by the log's group, as Docker's.
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: &str = "2026-11-23T19:00:00.000000001Z";

    fn lines(path: &Path) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines()
            .map(|line| {
                let value: serde_json::Value = serde_json::from_str(line).expect("each line is JSON");
                assert_eq!(value["time"], TIME);
                (value["stream"].as_str().unwrap().to_owned(), value["log"].as_str().unwrap().to_owned())
            })
            .collect()
    }

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("dewar-log-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir(&dir).unwrap();
            Dir(dir)
        }

        fn log(&self, max_size_bytes: Option<u64>, max_files: u32) -> (PathBuf, Log) {
            let path = self.0.join("c-json.log");
            let log = Log::open(LogFile { path: path.clone(), max_size_bytes, max_files }).unwrap();
            (path, log)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn chunks_become_lines_per_stream() {
        let dir = Dir::new("lines");
        let (path, mut log) = dir.log(None, 1);
        log.write(Stream::Stdout, b"one\ntw", TIME);
        log.write(Stream::Stderr, b"oops\n", TIME);
        log.write(Stream::Stdout, b"o\nlast", TIME);
        log.finish(Stream::Stdout, TIME);
        log.finish(Stream::Stderr, TIME);
        let expected = [("stdout", "one\n"), ("stderr", "oops\n"), ("stdout", "two\n"), ("stdout", "last")];
        let expected: Vec<_> = expected.iter().map(|(s, l)| (s.to_string(), l.to_string())).collect();
        assert_eq!(lines(&path), expected);
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let dir = Dir::new("long");
        let (path, mut log) = dir.log(None, 1);
        // One byte of "é" falls on each side of the limit.
        let text = format!("{}é{}\n", "a".repeat(LINE_BYTES - 1), "b".repeat(LINE_BYTES));
        for chunk in text.as_bytes().chunks(1000) {
            log.write(Stream::Stdout, chunk, TIME);
        }
        let got: Vec<String> = lines(&path).into_iter().map(|(_, log)| log).collect();
        assert_eq!(got.concat(), text);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES - 1, LINE_BYTES, 3]);
    }

    #[test]
    fn any_bytes_make_valid_json() {
        let dir = Dir::new("bytes");
        let (path, mut log) = dir.log(None, 1);
        log.write(Stream::Stdout, b"q\"b\\t\tc\x01\x1b[0m\xff\xfe\xc3\x28\xe2\x82\n", TIME);
        let text = &lines(&path)[0].1;
        assert_eq!(text, "q\"b\\t\tc\u{1}\u{1b}[0m\u{fffd}\u{fffd}\u{fffd}(\u{fffd}\n");
        let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        log.write(Stream::Stderr, &all, TIME);
        assert!(lines(&path).len() > 300);
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let dir = Dir::new("rotate");
        let (path, mut log) = dir.log(Some(100), 3);
        for number in 0..8 {
            log.write(Stream::Stdout, format!("{number} {}\n", "x".repeat(60)).as_bytes(), TIME);
        }
        let first = |path: &Path| lines(path)[0].1[..1].to_owned();
        assert_eq!(first(&path), "7");
        assert_eq!(first(&numbered(&path, 1)), "6");
        assert_eq!(first(&numbered(&path, 2)), "5");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_single_file_starts_over() {
        let dir = Dir::new("single");
        let (path, mut log) = dir.log(Some(10), 1);
        log.write(Stream::Stdout, b"old\n", TIME);
        log.write(Stream::Stdout, b"new\n", TIME);
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(lines(&path)[0].1, "new\n");
        assert!(!numbered(&path, 1).exists());
    }
}
