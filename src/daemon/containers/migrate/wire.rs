//! What the two daemons of a migration say to each other, in the frames of `http::api::migrate`.
//!
//! ```text
//!  sender                                         receiver
//!    |  --- offer {what it is, what it needs} --->  |   checks everything that can be without it
//!    |  <-- accepted {image? layers} -------------  |   or failed {why}
//!    |  --- file image, pieces, end ------------->  |   without the layers that are there
//!    |  <-- stored -------------------------------  |   the container is there, empty
//!    |  --- file …, pieces, end {digest} -------->  |   logs, passes over its files and memory while it runs
//!    |  --- freezing ---------------------------->  |
//!    |  <-- prepared -----------------------------  |   all of that is unpacked
//!    |  --- file …, pieces, end {digest} -------->  |   what has changed since, memory
//!    |  --- whole {manifest} -------------------->  |   unpacks, thaws up to its gate, writes "ready" down
//!    |  <-- ready --------------------------------  |
//!    |  --- commit ------------------------------>  |   writes "committed" down, lets it run
//!    |  <-- done ---------------------------------  |   or failed: it has been discarded, nothing ran
//!    |                                              |
//!    |  <-- pages {process, address, bytes} -------  |   lazy: from "whole" on, as processes touch them, then the rest
//!    |  --- pieces ------------------------------>  |   in that order
//!    |  <-- fetched ------------------------------  |   all of it has come; or lost: it had to be ended
//!    |                                              |
//!    |  --- resolve {ticket} -------------------->  |   later, by another connection
//!    |  <-- standing {ready, taken, fetching, …} -  |   then commit, or pages, as above
//!    |  --- withdraw {container} ---------------->  |   the sender has it: what waits here is discarded
//!    |  <-- done ---------------------------------  |
//! ```
//!
//! Each side lets the other one hear from it every second, and hangs up when it has heard nothing for long.
//!
//! Stays whole: what is written is read beside it.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::daemon::containers::checkpoint::Manifest;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Digest;
use crate::http::api::image::JsonMessage;
use crate::http::api::migrate::{self, ALIVE, DATA, FRAME_BYTES, HEADER_BYTES, MESSAGE, PROGRESS};
use crate::http::api::volume::VolumeCreate;

/// Counts up when the other side cannot go on without knowing.
pub const VERSION: u32 = 3;

/// How often a side lets hear from it, and how long silence is borne.
const PULSE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a piece.
const PIECE_BYTES: usize = 256 * 1024;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    Offer(Box<Offer>),
    File {
        item: Item,
    },
    End {
        sha256: Digest,
        bytes: u64,
    },
    /// The logs are sent once more, from their beginning.
    LogsAnew {},
    /// What comes after this is of a container that stands still.
    Freezing {},
    Whole {
        manifest: Box<Manifest>,
    },
    Commit {},
    Resolve {
        container: String,
        ticket: String,
    },
    Withdraw {
        container: String,
    },
    Accepted {
        has_image: bool,
        /// Those of the image's layers that are there.
        #[serde(default)]
        layers: BTreeSet<Digest>,
        warnings: Vec<String>,
        /// It knows memory that was written while the container ran.
        #[serde(default)]
        takes_pre_dumps: bool,
    },
    Stored {},
    Prepared {},
    Ready {
        warnings: Vec<String>,
    },
    Done {},
    /// Memory that is wanted now.
    Pages {
        /// Its number in the container.
        process: u64,
        address: u64,
        bytes: u64,
    },
    /// All of its memory is there.
    Fetched {},
    /// It was ended, for what was missing of its memory could not come.
    Lost {},
    /// Nothing of it is here.
    Failed {
        message: String,
    },
    Standing(Standing),
}

/// What a container is, and what it brings.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Offer {
    pub version: u32,
    /// Names this migration.
    pub ticket: String,
    /// The sending host's name.
    pub from: String,
    /// Of its image, by diff id.
    #[serde(default)]
    pub layers: Vec<Digest>,
    /// As its checkpoint will have it, without files and numbers.
    pub manifest: Manifest,
    /// Whose content comes along, and the others.
    pub volumes: Vec<OfferedVolume>,
    #[serde(default)]
    pub keep_volumes: bool,
    #[serde(default)]
    pub lazy: bool,
    #[serde(default)]
    pub tcp_close: bool,
    #[serde(default)]
    pub trust: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OfferedVolume {
    pub request: VolumeCreate,
    /// Why its content does not come along.
    #[serde(default)]
    pub left_out: Option<String>,
}

/// What the pieces that follow are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Item {
    /// An archive as `save` writes it.
    Image,
    /// Below the checkpoint's directory.
    Checkpoint(String),
    /// More of the container's log.
    Log,
    /// One that was put aside; what its name has more than the log's.
    OldLog(String),
}

/// What a receiver has of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Frozen, until it is told.
    Ready,
    /// It has taken it over.
    Taken,
    /// It runs, and lacks some of its memory.
    Fetching,
    /// It was ended, as it lacked some of its memory.
    Lost,
    Unknown,
}

/// A connection that was taken over, as the routes have it.
pub struct Connection {
    pub input: Box<dyn Read + Send>,
    pub output: Box<dyn Write + Send>,
    /// Ends it for both directions.
    pub hang_up: Box<dyn Fn() + Send + Sync>,
}

struct Shared {
    output: Mutex<Box<dyn Write + Send>>,
    hang_up: Box<dyn Fn() + Send + Sync>,
    began: Instant,
    /// Since when somebody waits for the other side, in milliseconds since `began`, counted from 1.
    waiting: AtomicU64,
    is_over: AtomicBool,
    is_broken: AtomicBool,
}

impl Shared {
    fn send(&self, kind: u8, content: &[u8]) -> io::Result<()> {
        let mut output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        let sent =
            output.write_all(&migrate::header(kind, content.len())).and_then(|()| output.write_all(content));
        sent.inspect_err(|_| self.is_broken.store(true, Ordering::Relaxed))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// Sends frames; cheap to clone. Dropping the first one ends the pulse.
#[derive(Clone)]
pub struct Sender(Arc<Shared>);

/// Receives frames.
pub struct Receiver {
    input: Box<dyn Read + Send>,
    shared: Arc<Shared>,
}

/// Something that was received.
#[derive(Debug)]
pub enum Heard {
    Message(Message),
    Piece(Vec<u8>),
}

/// Begins to speak frames.
///
/// # Errors
/// There is no thread to be had.
pub fn begin(connection: Connection) -> Result<(Sender, Receiver)> {
    let Connection { input, output, hang_up } = connection;
    let shared = Arc::new(Shared {
        output: Mutex::new(output),
        hang_up,
        began: Instant::now(),
        waiting: AtomicU64::new(0),
        is_over: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
    });
    let pulse = Arc::clone(&shared);
    crate::daemon::spawn("migration-pulse", move || {
        let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
        while !pulse.is_over.load(Ordering::Relaxed) {
            std::thread::park_timeout(PULSE);
            let waiting = pulse.waiting.load(Ordering::Relaxed);
            let is_silent = waiting != 0 && pulse.now().saturating_sub(waiting) > patience;
            // Somebody who is sending is heard anyway.
            let is_sent = match pulse.output.try_lock() {
                Ok(mut output) => output.write_all(&migrate::header(ALIVE, 0)).is_ok(),
                Err(_) => true,
            };
            if is_silent || !is_sent {
                (pulse.hang_up)();
                return;
            }
        }
    })?;
    Ok((Sender(Arc::clone(&shared)), Receiver { input, shared }))
}

impl Sender {
    /// Tells the other daemon.
    pub fn tell(&self, message: &Message) -> Result<()> {
        let text = serde_json::to_vec(message).map_err(|cause| Error::system("encode a message", cause))?;
        self.0.send(MESSAGE, &text).map_err(broken)
    }

    /// Whether something could not be sent.
    pub fn is_broken(&self) -> bool {
        self.0.is_broken.load(Ordering::Relaxed)
    }

    /// Tells the client; one that has gone shows by what follows.
    pub fn progress(&self, message: &JsonMessage) {
        if let Ok(mut text) = serde_json::to_vec(message) {
            text.push(b'\n');
            let _ = self.0.send(PROGRESS, &text);
        }
    }

    /// Sends a file, and after each piece says how much that was. Gives its digest and size.
    pub fn file(&self, item: Item, mut from: impl Read, sent: &mut dyn FnMut(u64)) -> Result<(Digest, u64)> {
        self.tell(&Message::File { item })?;
        let mut hashing = crate::daemon::images::codec::Hashing::new(io::sink());
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let count = match from.read(&mut piece) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(|cause| Error::system("read what is to be sent", cause))?,
            };
            if count == 0 {
                break;
            }
            self.0.send(DATA, &piece[..count]).map_err(broken)?;
            hashing.write_all(&piece[..count]).map_err(broken)?;
            sent(count as u64);
        }
        let (sha256, bytes) = hashing.finish();
        self.tell(&Message::End { sha256: sha256.clone(), bytes })?;
        Ok((sha256, bytes))
    }

    /// Sends memory that was asked for.
    pub fn pages(&self, pages: &[u8]) -> Result<()> {
        pages.chunks(PIECE_BYTES).try_for_each(|piece| self.0.send(DATA, piece)).map_err(broken)
    }

    /// Sends what `write` writes, as [`file`](Sender::file) does. Gives its digest and size.
    pub fn written(
        &self,
        item: Item,
        sent: &mut dyn FnMut(u64),
        write: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<(Digest, u64)> {
        self.tell(&Message::File { item })?;
        let mut out = Pieces { sender: self, piece: Vec::with_capacity(PIECE_BYTES), bytes: 0, sent };
        let mut hashing = crate::daemon::images::codec::Hashing::new(&mut out);
        write(&mut hashing)?;
        let (sha256, bytes) = hashing.finish();
        out.flush().map_err(broken)?;
        self.tell(&Message::End { sha256: sha256.clone(), bytes })?;
        Ok((sha256, bytes))
    }

    /// Ends the connection, and the pulse.
    pub fn hang_up(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
        (self.0.hang_up)();
    }
}

/// Gathers small writes.
struct Pieces<'a> {
    sender: &'a Sender,
    piece: Vec<u8>,
    bytes: u64,
    sent: &'a mut dyn FnMut(u64),
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..count]);
        if self.piece.len() == PIECE_BYTES {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            self.sender.0.send(DATA, &self.piece)?;
            self.bytes += self.piece.len() as u64;
            (self.sent)(self.piece.len() as u64);
            self.piece.clear();
        }
        Ok(())
    }
}

fn broken(cause: io::Error) -> Error {
    Error::system("the connection to the other daemon broke", cause)
}

impl Receiver {
    /// Waits for the next word.
    ///
    /// # Errors
    /// The connection has ended, or makes no sense.
    pub fn next(&mut self) -> Result<Heard> {
        loop {
            let (kind, content) = self.frame()?;
            match kind {
                MESSAGE => {
                    let message = serde_json::from_slice(&content).map_err(|cause| {
                        Error::invalid(format!("read the other daemon's message: {cause}"))
                    })?;
                    return Ok(Heard::Message(message));
                }
                DATA => return Ok(Heard::Piece(content)),
                _ => {}
            }
        }
    }

    /// Waits for the next message.
    ///
    /// # Errors
    /// As [`next`](Receiver::next).
    pub fn message(&mut self) -> Result<Message> {
        match self.next()? {
            Heard::Message(message) => Ok(message),
            Heard::Piece(_) => Err(strange("a piece of no file")),
        }
    }

    fn frame(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.fill(&mut header)?;
        let (kind, length) = migrate::parse(header).ok_or_else(|| strange("something that is no frame"))?;
        let mut content = vec![0; length.min(FRAME_BYTES)];
        self.fill(&mut content)?;
        Ok((kind, content))
    }

    fn fill(&mut self, into: &mut [u8]) -> Result<()> {
        let mut at = 0;
        while at < into.len() {
            self.shared.waiting.store(self.shared.now(), Ordering::Relaxed);
            let read = self.input.read(&mut into[at..]);
            self.shared.waiting.store(0, Ordering::Relaxed);
            match read {
                Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => at += count,
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Err(broken(cause)),
            }
        }
        Ok(())
    }

    /// The pieces of a file that was announced, up to its end.
    pub fn body(&mut self) -> Body<'_> {
        let hashing = crate::daemon::images::codec::Hashing::new(io::sink());
        Body { receiver: self, piece: Vec::new(), at: 0, end: None, hashing: Some(hashing) }
    }
}

/// That the other side said what it must not.
pub fn strange(what: &str) -> Error {
    Error::invalid(format!("the other daemon sent {what}"))
}

/// A file on its way.
pub struct Body<'a> {
    receiver: &'a mut Receiver,
    piece: Vec<u8>,
    at: usize,
    /// What the sender says of the whole.
    end: Option<(Digest, u64)>,
    hashing: Option<crate::daemon::images::codec::Hashing<io::Sink>>,
}

impl Body<'_> {
    /// Reads what is left; gives digest and size, which are what the sender says.
    ///
    /// # Errors
    /// They are not; the connection broke.
    pub fn finish(mut self) -> Result<(Digest, u64)> {
        io::copy(&mut self, &mut io::sink()).map_err(broken)?;
        let own = self.hashing.take().map(|hashing| hashing.finish());
        match (own, self.end) {
            (Some(own), Some(end)) if own == end => Ok(end),
            _ => Err(strange("a file that is not what it says")),
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.end.is_some() {
                return Ok(0);
            }
            match self.receiver.next().map_err(|error| io::Error::other(error.message))? {
                Heard::Piece(piece) => {
                    if let Some(hashing) = &mut self.hashing {
                        hashing.write_all(&piece)?;
                    }
                    (self.piece, self.at) = (piece, 0);
                }
                Heard::Message(Message::End { sha256, bytes }) => self.end = Some((sha256, bytes)),
                Heard::Message(Message::Failed { message }) => return Err(io::Error::other(message)),
                Heard::Message(_) => return Err(io::Error::other("a message in the middle of a file")),
            }
        }
        let count = into.len().min(self.piece.len() - self.at);
        into[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    fn pair() -> ((Sender, Receiver), (Sender, Receiver)) {
        let (one, other) = UnixStream::pair().unwrap();
        let end = |stream: UnixStream| {
            let closer = stream.try_clone().unwrap();
            begin(Connection {
                input: Box::new(stream.try_clone().unwrap()),
                output: Box::new(stream),
                hang_up: Box::new(move || drop(closer.shutdown(std::net::Shutdown::Both))),
            })
            .unwrap()
        };
        (end(one), end(other))
    }

    #[test]
    fn files_arrive_whole_and_known() {
        let ((sender, _input), (_output, mut receiver)) = pair();
        let content: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
        let copy = content.clone();
        let send = std::thread::spawn(move || {
            let mut count = 0;
            let item = Item::Checkpoint("images/x".into());
            let sealed = sender.file(item, &copy[..], &mut |bytes| count += bytes).unwrap();
            sender
                .written(Item::Image, &mut |_| {}, |out| {
                    out.write_all(b"archive").map_err(|cause| Error::system("write", cause))
                })
                .unwrap();
            sender.tell(&Message::Commit {}).unwrap();
            (sealed, count)
        });
        let Message::File { item } = receiver.message().unwrap() else { panic!("no file") };
        assert_eq!(item, Item::Checkpoint("images/x".into()));
        let (mut body, mut read) = (receiver.body(), Vec::new());
        body.read_to_end(&mut read).unwrap();
        let got = body.finish().unwrap();
        assert!(read == content);
        assert!(matches!(receiver.message().unwrap(), Message::File { item: Item::Image }));
        assert_eq!(receiver.body().finish().unwrap(), (Digest::of(b"archive"), 7));
        assert!(matches!(receiver.message().unwrap(), Message::Commit {}));
        assert_eq!(send.join().unwrap(), (got, content.len() as u64));
    }

    #[test]
    fn what_is_cut_off_or_altered_is_noticed() {
        let ((sender, _input), (_output, mut receiver)) = pair();
        sender.tell(&Message::File { item: Item::Log }).unwrap();
        sender.0.send(DATA, b"something").unwrap();
        sender.tell(&Message::End { sha256: Digest::of(b"another"), bytes: 9 }).unwrap();
        receiver.message().unwrap();
        assert!(receiver.body().finish().is_err());
        sender.0.send(DATA, b"more").unwrap();
        assert!(receiver.message().is_err());
        sender.hang_up();
        assert!(receiver.message().is_err());
    }
}
