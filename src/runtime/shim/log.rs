//! A container's log: its output cut into lines, written to a file and sent to whoever else is to have it.
//!
//! ```text
//!   chunk ──> lines and pieces ──┬──> file      json-file or local; rotated, compressed      (file, compress)
//!                                └──> sender    syslog or the journal                         (sender, message)
//! ```
//!
//! In: chunks of a stream as read from its pipe. A line longer than [`LINE_BYTES`] is cut into pieces without a
//! newline, as Docker's drivers do; a piece never ends inside a UTF-8 character.
//!
//! A driver that cannot be read back has a file beside it (Docker's "dual logging"), so there may be both. Only
//! the sender can ask the container to wait ([`Log::is_full`]).
//!
//! Not here: which drivers there are and what their options mean: the daemon decides that.

pub mod compress;
pub mod entry;
pub mod file;
pub mod message;
pub mod sender;

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use rustix::event::PollFlags;

use crate::runtime::{LogFile, LogMark, LogRemote};
use entry::{Encoder, Entry, Moment, Partial};
use file::RotatedFile;
use sender::Sender;

/// Longest piece of a line.
pub const LINE_BYTES: usize = 16 * 1024;

/// Which of a process's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What of a log is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Sender,
    Worker,
}

/// An open log and the unfinished line of each stream.
#[derive(Debug)]
pub struct Log {
    out: Outputs,
    pending: [Vec<u8>; 2],
    /// The last piece of the line that is under way.
    partial: [Option<Partial>; 2],
}

/// Where entries go.
#[derive(Debug)]
struct Outputs {
    file: Option<(RotatedFile, Encoder)>,
    sender: Option<Sender>,
    /// Entries that are not in the file yet, and where each ends.
    batch: Vec<u8>,
    ends: Vec<usize>,
}

impl Log {
    /// Opens the file for appending, and connects to the receiver.
    ///
    /// # Errors
    /// Either cannot be had.
    pub fn open(file: Option<LogFile>, remote: Option<LogRemote>) -> io::Result<Log> {
        let file = match file {
            Some(config) => {
                let encoder = Encoder::new(config.format, &config.attrs);
                Some((RotatedFile::open(config)?, encoder))
            }
            None => None,
        };
        let sender = remote.map(Sender::open).transpose()?;
        let out = Outputs { file, sender, batch: Vec::new(), ends: Vec::new() };
        Ok(Log { out, pending: [Vec::new(), Vec::new()], partial: [None, None] })
    }

    /// Where the next line will be written; `None` when there is no file, or it cannot be looked at.
    pub fn mark(&self) -> Option<LogMark> {
        self.out.file.as_ref()?.0.mark()
    }

    /// What of `stream` is not written yet, because its line goes on.
    pub fn unfinished(&self, stream: Stream) -> &[u8] {
        &self.pending[stream as usize]
    }

    /// Takes a chunk of `stream`, and writes the lines it completes.
    pub fn write(&mut self, stream: Stream, chunk: &[u8], time: &Moment) {
        let (pending, partial) = (&mut self.pending[stream as usize], &mut self.partial[stream as usize]);
        let mut rest = chunk;
        while !rest.is_empty() {
            let line_end = rest.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let room = LINE_BYTES - pending.len();
            let take = line_end.unwrap_or(rest.len()).min(room);
            let complete = line_end == Some(take);
            if pending.is_empty() && complete {
                self.out.put(stream, &rest[..take - 1], true, partial, time);
            } else {
                pending.extend_from_slice(&rest[..take]);
                if complete {
                    self.out.put(stream, &pending[..pending.len() - 1], true, partial, time);
                    // Most programs write whole lines: do not keep a buffer for the odd one that did not.
                    *pending = Vec::new();
                } else if pending.len() == LINE_BYTES {
                    let cut = character_boundary(pending);
                    self.out.put(stream, &pending[..cut], false, partial, time);
                    pending.drain(..cut);
                }
            }
            rest = &rest[take..];
        }
        self.out.write_batch();
    }

    /// Writes what was not ended by a newline: the stream has ended.
    pub fn finish(&mut self, stream: Stream, time: &Moment) {
        let pending = std::mem::take(&mut self.pending[stream as usize]);
        let partial = &mut self.partial[stream as usize];
        if !pending.is_empty() {
            self.out.put(stream, &pending, false, partial, time);
            self.out.write_batch();
        }
        *partial = None;
    }

    /// What to wait for.
    pub fn register<'a>(&'a self, mut add: impl FnMut(BorrowedFd<'a>, PollFlags, Part)) {
        if let Some((fd, flags)) = self.out.sender.as_ref().and_then(Sender::interest) {
            add(fd, flags, Part::Sender);
        }
        if let Some(worker) = self.out.file.as_ref().and_then(|(file, _)| file.worker()) {
            add(worker.as_fd(), PollFlags::IN, Part::Worker);
        }
    }

    /// Handles a part that poll found ready.
    pub fn ready(&mut self, part: Part, flags: PollFlags) {
        match (part, &mut self.out) {
            (Part::Sender, Outputs { sender: Some(sender), .. }) => sender.ready(flags),
            (Part::Worker, Outputs { file: Some((file, _)), .. }) => file.worker_ended(),
            _ => {}
        }
    }

    /// When to look again though nothing is ready.
    pub fn deadline(&self) -> Option<Instant> {
        self.out.sender.as_ref().and_then(Sender::deadline)
    }

    /// Does what is due.
    pub fn tend(&mut self, now: Instant) {
        if let Some(sender) = &mut self.out.sender {
            sender.tend(now);
        }
    }

    /// Whether the container is to wait with its output.
    pub fn is_full(&self) -> bool {
        self.out.sender.as_ref().is_some_and(Sender::is_full)
    }

    /// Whether nothing is under way to a receiver.
    pub fn is_idle(&self) -> bool {
        self.out.sender.as_ref().is_none_or(Sender::is_idle)
    }
}

impl Outputs {
    /// Takes a piece without its newline; `partial` is the piece before it in the same line.
    fn put(
        &mut self,
        stream: Stream,
        text: &[u8],
        ends_line: bool,
        partial: &mut Option<Partial>,
        time: &Moment,
    ) {
        let is_whole = ends_line && partial.is_none();
        if !is_whole {
            let piece = partial.get_or_insert_with(|| Partial { id: entry::line_id(), ..Partial::default() });
            piece.ordinal += 1;
            piece.is_last = ends_line;
        }
        let entry = Entry { stream, text, partial: partial.as_ref(), time };
        if let Some(sender) = &mut self.sender {
            sender.push(&entry);
        }
        if let Some((file, encoder)) = &self.file {
            encoder.encode(&mut self.batch, &entry);
            self.ends.push(self.batch.len());
            // A rotation is due between two lines, not only between two chunks.
            if file.is_full_with(self.batch.len()) {
                self.write_batch();
            }
        }
        if ends_line {
            *partial = None;
        }
    }

    fn write_batch(&mut self) {
        if let Some((file, _)) = &mut self.file
            && !self.ends.is_empty()
        {
            file.append(&self.batch, &self.ends);
            // An idle container should cost nothing.
            (self.batch, self.ends) = (Vec::new(), Vec::new());
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

#[cfg(test)]
mod tests {
    use super::compress::numbered;
    use super::entry::{Decoded, Frame, decode_local};
    use super::*;
    use crate::runtime::LogFormat;
    use std::path::{Path, PathBuf};

    const TIME: &str = "2026-11-23T19:00:00.000000001Z";

    fn time() -> Moment {
        Moment::from(TIME.parse::<jiff::Timestamp>().unwrap())
    }

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
            let config = LogFile { max_size_bytes, max_files, ..LogFile::at(path.clone()) };
            (path, Log::open(Some(config), None).unwrap())
        }

        fn local(&self) -> (PathBuf, Log) {
            let path = self.0.join("container.log");
            let config = LogFile { format: LogFormat::Local, ..LogFile::at(path.clone()) };
            (path, Log::open(Some(config), None).unwrap())
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
        log.write(Stream::Stdout, b"one\ntw", &time());
        log.write(Stream::Stderr, b"oops\n", &time());
        log.write(Stream::Stdout, b"o\nlast", &time());
        log.finish(Stream::Stdout, &time());
        log.finish(Stream::Stderr, &time());
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
            log.write(Stream::Stdout, chunk, &time());
        }
        let got: Vec<String> = lines(&path).into_iter().map(|(_, log)| log).collect();
        assert_eq!(got.concat(), text);
        assert_eq!(got.iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES - 1, LINE_BYTES, 3]);
    }

    #[test]
    fn any_bytes_make_valid_json() {
        let dir = Dir::new("bytes");
        let (path, mut log) = dir.log(None, 1);
        log.write(Stream::Stdout, b"q\"b\\t\tc\x01\x1b[0m\xff\xfe\xc3\x28\xe2\x82\n", &time());
        let text = &lines(&path)[0].1;
        assert_eq!(text, "q\"b\\t\tc\u{1}\u{1b}[0m\u{fffd}\u{fffd}\u{fffd}(\u{fffd}\n");
        let all: Vec<u8> = (0..=255).cycle().take(100_000).collect();
        log.write(Stream::Stderr, &all, &time());
        assert!(lines(&path).len() > 300);
    }

    #[test]
    fn rotation_keeps_the_newest() {
        let dir = Dir::new("rotate");
        let (path, mut log) = dir.log(Some(100), 3);
        for number in 0..8 {
            log.write(Stream::Stdout, format!("{number} {}\n", "x".repeat(60)).as_bytes(), &time());
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
        log.write(Stream::Stdout, b"old\n", &time());
        log.write(Stream::Stdout, b"new\n", &time());
        assert_eq!(lines(&path).len(), 1);
        assert_eq!(lines(&path)[0].1, "new\n");
        assert!(!numbered(&path, 1).exists());
    }

    /// The entries of a file that is whole.
    fn messages(bytes: &[u8]) -> Vec<Decoded<'_>> {
        let (mut all, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let Frame::Whole(length) = Frame::at(rest) else { panic!("{rest:?}") };
            all.push(decode_local(&rest[4..length + 4]).unwrap());
            rest = &rest[length + 8..];
        }
        all
    }

    #[test]
    fn the_local_format_keeps_every_byte_and_tells_pieces() {
        let dir = Dir::new("local");
        let (path, mut log) = dir.local();
        let text = [&b"\xff\n\n"[..], &b"x".repeat(LINE_BYTES + 5), b"\nend"].concat();
        log.write(Stream::Stderr, &text, &time());
        log.finish(Stream::Stderr, &time());
        let bytes = std::fs::read(&path).unwrap();
        let got: Vec<_> = messages(&bytes).iter().map(|entry| (entry.text.len(), entry.ends_line)).collect();
        assert_eq!(got, [(1, true), (0, true), (LINE_BYTES, false), (5, true), (3, false)]);
    }

    /// The next entry used to be joined to what a power cut had left of the last, and was lost with it.
    #[test]
    fn a_torn_end_costs_nothing_but_itself() {
        let dir = Dir::new("torn");
        let (path, mut log) = dir.log(None, 1);
        log.write(Stream::Stdout, b"one\ntwo\n", &time());
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 10]).unwrap();
        let (_, mut log) = dir.log(None, 1);
        log.write(Stream::Stdout, b"three\n", &time());
        let text = std::fs::read_to_string(&path).unwrap();
        let good: Vec<_> =
            text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).collect();
        assert!(good.len() == 2 && good[1].contains("three"), "{text}");

        let (path, mut log) = dir.local();
        log.write(Stream::Stdout, b"one\ntwo\n", &time());
        drop(log);
        let whole = std::fs::read(&path).unwrap();
        for cut in whole.len() / 2 + 1..whole.len() {
            // As it is on disk after a power cut: short, or with zeroes that were never written.
            for zeroes in [0, 3, 4, 50] {
                std::fs::write(&path, [&whole[..cut], &vec![0; zeroes]].concat()).unwrap();
                let (_, mut log) = dir.local();
                log.write(Stream::Stdout, b"three\n", &time());
                let bytes = std::fs::read(&path).unwrap();
                let texts: Vec<_> = messages(&bytes).iter().map(|entry| entry.text.to_vec()).collect();
                assert_eq!(texts, [b"one".to_vec(), b"three".to_vec()], "{cut} {zeroes}");
            }
        }
    }
}
