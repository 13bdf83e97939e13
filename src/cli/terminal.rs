//! The conversation between this process's stdio and a container's, over one upgraded connection.
//!
//! ```text
//!  stdin ──thread──▶ [detach keys] ──▶ WriteHalf … half-close at end of input
//!  stdout, stderr ◀── [frames apart, unless a terminal] ◀── ReadHalf, on the caller's thread
//! ```
//!
//! The conversation ends when the other side's output ends: `echo x | dewar run -i …` ends by itself
//! although the container may never read a byte. A thread that still waits for the keyboard then dies with
//! the process.
//!
//! Invariant: the terminal is raw only as long as the [`Conversation`] lives.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::http::hijack::{Hijacked, WriteHalf};
use crate::http::stdcopy::{Decoder, Stream};
use crate::runtime::sys::terminal::{self, RawMode, Size};

use super::error::Error;

/// A thread that copies bytes needs little stack.
const STACK_BYTES: usize = 64 << 10;

/// How the two sides are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wiring {
    /// Whether our stdin is sent.
    pub stdin: bool,
    /// Whether the other side is a terminal: bytes are raw, and ours becomes raw too.
    pub tty: bool,
}

/// A connection whose input is already flowing.
pub struct Conversation {
    reader: Option<crate::http::hijack::ReadHalf>,
    tty: bool,
    detached: Arc<AtomicBool>,
    /// Restores the terminal when dropped.
    raw: Option<RawMode>,
    /// Keeps the sending direction open where there is no stdin to close it.
    _writer: Option<WriteHalf>,
}

/// Starts to talk: raw mode if both sides are terminals, and stdin on a thread of its own.
pub fn converse(connection: Hijacked, wiring: Wiring, keys: Vec<u8>) -> Result<Conversation, Error> {
    let (reader, writer) = connection.split();
    let detached = Arc::new(AtomicBool::new(false));
    let raw = if wiring.tty && wiring.stdin && terminal::is_terminal(io::stdin()) {
        Some(
            RawMode::enter(io::stdin())
                .map_err(|cause| Error::local("set the terminal to raw mode", cause))?,
        )
    } else {
        None
    };
    let writer = if wiring.stdin {
        let detached = detached.clone();
        // Keys can only be meant where somebody types them.
        let keys = if wiring.tty { Keys::new(keys) } else { Keys::new(Vec::new()) };
        thread::Builder::new()
            .name("stdin".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || send_stdin(writer, keys, &detached))
            .map_err(|cause| Error::local("start a thread for stdin", cause))?;
        None
    } else {
        Some(writer)
    };
    Ok(Conversation { reader: Some(reader), tty: wiring.tty, detached, raw, _writer: writer })
}

impl Conversation {
    /// Copies output until it ends, then gives the terminal back. True when the user detached.
    pub fn finish(mut self) -> Result<bool, Error> {
        let reader = self.reader.take().expect("a conversation is finished once");
        let result = copy_output(reader, self.tty);
        self.raw = None;
        if self.detached.load(Ordering::SeqCst) {
            return Ok(true);
        }
        result.map(|()| false)
    }
}

/// Copies what a container prints to stdout and stderr: raw from a terminal, else frames taken apart.
///
/// # Errors
/// `BrokenPipe` when our own reader is gone; the daemon's in-band failures as they are.
pub fn copy_output(mut reader: impl Read, tty: bool) -> Result<(), Error> {
    let (mut stdout, mut stderr) = (io::stdout().lock(), io::stderr().lock());
    copy_to(&mut reader, tty, &mut stdout, &mut stderr)
}

fn copy_to(
    reader: &mut impl Read,
    tty: bool,
    stdout: &mut impl Write,
    stderr: &mut impl Write,
) -> Result<(), Error> {
    let mut buffer = vec![0; 32 << 10];
    let mut decoder = Decoder::default();
    let mut system_error = Vec::new();
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            // The daemon went away in mid-stream: what it said so far is all there is.
            Err(cause) if cause.kind() == io::ErrorKind::ConnectionReset => break,
            Err(cause) => return Err(Error::local("read the container's output", cause)),
        };
        let written = if tty {
            stdout.write_all(&buffer[..count])
        } else {
            decoder.feed(&buffer[..count], |stream, bytes| match stream {
                Stream::Stdout | Stream::Stdin => stdout.write_all(bytes),
                Stream::Stderr => stderr.write_all(bytes),
                Stream::SystemError => {
                    system_error.extend_from_slice(bytes);
                    Ok(())
                }
            })
        };
        written.and_then(|()| stdout.flush()).map_err(output_error)?;
    }
    if system_error.is_empty() {
        return Ok(());
    }
    Err(Error::Daemon { status: 200, message: String::from_utf8_lossy(&system_error).trim().to_owned() })
}

/// A failure to write to our own stdout or stderr.
pub fn output_error(cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::BrokenPipe => Error::BrokenPipe,
        io::ErrorKind::InvalidData => Error::local("read the container's output", cause),
        _ => Error::local("write the output", cause),
    }
}

fn send_stdin(mut writer: WriteHalf, mut keys: Keys, detached: &AtomicBool) {
    let mut stdin = io::stdin().lock();
    let mut buffer = vec![0; 32 << 10];
    let mut out = Vec::new();
    loop {
        let count = match stdin.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        out.clear();
        let leaves = keys.pass(&buffer[..count], &mut out);
        // A container that no longer reads is no failure of ours; its exit code tells the story.
        if writer.write_all(&out).is_err() {
            return;
        }
        if leaves {
            detached.store(true, Ordering::SeqCst);
            writer.shutdown();
            return;
        }
    }
    writer.shutdown_write();
    // Dropping the half would be as good; keeping the order explicit costs nothing.
    drop(writer);
}

/// Looks for the detach keys in what is typed.
#[derive(Debug)]
struct Keys {
    sequence: Vec<u8>,
    matched: usize,
}

impl Keys {
    fn new(sequence: Vec<u8>) -> Keys {
        Keys { sequence, matched: 0 }
    }

    /// Passes `input` on to `out`, less a match in progress; true when the sequence is complete.
    fn pass(&mut self, input: &[u8], out: &mut Vec<u8>) -> bool {
        if self.sequence.is_empty() {
            out.extend_from_slice(input);
            return false;
        }
        for byte in input {
            if *byte == self.sequence[self.matched] {
                self.matched += 1;
                if self.matched == self.sequence.len() {
                    return true;
                }
                continue;
            }
            // The keys held back were meant for the container after all.
            out.extend_from_slice(&self.sequence[..self.matched]);
            self.matched = usize::from(*byte == self.sequence[0]);
            if self.matched == 0 {
                out.push(*byte);
            }
        }
        false
    }
}

/// The bytes of `ctrl-p,ctrl-q`; an empty text is that default.
pub fn detach_keys(text: &str) -> Result<Vec<u8>, String> {
    let text = if text.is_empty() { "ctrl-p,ctrl-q" } else { text };
    let key = |name: &str| match name.as_bytes() {
        [byte] => Ok(*byte),
        b"DEL" => Ok(127),
        _ => match name.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
            Some([b'@']) => Ok(0),
            Some([mark @ b'['..=b'_']) => Ok(mark - b'[' + 27),
            _ => Err(format!("unknown key {name:?}")),
        },
    };
    text.split(',').map(key).collect()
}

/// The size of the terminal we print on, if it is one.
pub fn size() -> Option<Size> {
    terminal::size(io::stdout()).ok().filter(|size| size.rows > 0 && size.columns > 0)
}

/// Whether somebody watches.
pub fn is_watched() -> bool {
    terminal::is_terminal(io::stdout())
}

/// Whether stdin is a keyboard.
pub fn is_typed() -> bool {
    terminal::is_terminal(io::stdin())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::stdcopy::write_frame;

    #[test]
    fn frames_are_taken_apart() {
        let mut wire = Vec::new();
        write_frame(&mut wire, Stream::Stdout, b"out\n").unwrap();
        write_frame(&mut wire, Stream::Stderr, b"err\n").unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        copy_to(&mut wire.as_slice(), false, &mut out, &mut err).unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        out.clear();
        copy_to(&mut &b"raw\x01"[..], true, &mut out, &mut err).unwrap();
        assert_eq!(out, b"raw\x01");
        write_frame(&mut wire, Stream::SystemError, b"log is gone\n").unwrap();
        let error = copy_to(&mut wire.as_slice(), false, &mut out, &mut err).unwrap_err();
        assert_eq!(error.to_string(), "Error response from daemon: log is gone");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = copy_to(&mut &b"x"[..], true, &mut Gone, &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), 0);
    }

    #[test]
    fn detach_keys_are_found_across_reads_and_held_back_no_longer_than_needed() {
        let mut keys = Keys::new(detach_keys("").unwrap());
        let mut out = Vec::new();
        assert!(!keys.pass(b"ab\x10", &mut out));
        assert_eq!(out, b"ab");
        assert!(!keys.pass(b"c\x10\x10x", &mut out));
        assert_eq!(out, b"ab\x10c\x10\x10x");
        assert!(!keys.pass(b"\x10", &mut out));
        assert!(keys.pass(b"\x11", &mut out));
        assert_eq!(out, b"ab\x10c\x10\x10x");
        let mut none = Keys::new(Vec::new());
        assert!(!none.pass(b"\x10\x11", &mut out));
    }

    #[test]
    fn detach_keys_are_spelt_as_docker_spells_them() {
        assert_eq!(detach_keys("ctrl-a,b,DEL,ctrl-[,ctrl-@,ctrl-_"), Ok(vec![1, b'b', 127, 27, 0, 31]));
        assert!(
            detach_keys("ctrl-").is_err() && detach_keys("ctrl-1").is_err() && detach_keys("word").is_err()
        );
    }
}
