//! One connection's input: heads with limits, bodies with their exact end, and whether the peer is there.
//!
//! ```text
//!   Input ──head()──> Head + Body(Input) ──dropped──> Input ──head()──> ...
//!                            └── read by the handler, or by a reply that outlives it
//! ```
//!
//! A request's [`Body`] owns the connection's input. It gives the input back when it is dropped, so a handler
//! may read a body, ignore it, or move it into a streaming reply; if it is still held somewhere when the
//! reply ends, the connection is closed rather than shared.
//!
//! Sockets are in blocking mode with a read timeout of [`SLICE`], so that one `recv` is the common case and
//! a deadline is a loop of slices.
//!
//! Not here: the grammar (`message`), answers (`reply`), threads (`server`).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags};

use super::message::{self, Chunks, Framing, Head, Refusal};
use super::socket::{self, Socket};

/// How long one `recv` blocks: the grace a keep-alive connection has before it leaves its worker.
pub const SLICE: Duration = Duration::from_millis(10);

const BUFFER_BYTES: usize = 8 * 1024;
/// How often bytes may come without completing a head before others get the worker: a peer that drips one
/// byte just within each slice would keep it for ever.
const MAX_FILLS: usize = 16;

/// The read side of a connection: its socket and what was received but not used.
#[derive(Debug)]
pub struct Input {
    socket: Arc<Socket>,
    buffer: Vec<u8>,
    /// Where the unused bytes start.
    start: usize,
    /// How many unused bytes were searched for the end of a head already.
    searched: usize,
}

/// What came of waiting for a head.
#[derive(Debug)]
pub enum Arrival {
    Head(Head),
    /// Nothing yet, or not all of it.
    Pending,
    /// The peer ended the connection between requests, or in the middle of a head.
    Closed,
    Refused(Refusal),
}

impl Input {
    pub fn new(socket: Arc<Socket>) -> Input {
        Input { socket, buffer: Vec::new(), start: 0, searched: 0 }
    }

    pub fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// Bytes received but not used.
    pub fn unused(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Takes the bytes received but not used, and gives the buffer back to the heap.
    pub fn take_unused(&mut self) -> Vec<u8> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.drain(..std::mem::take(&mut self.start));
        self.searched = 0;
        buffer
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
        self.searched = 0;
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        }
    }

    /// One `recv` into the buffer. 0 is the end of input.
    fn fill(&mut self) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let used = self.buffer.len();
        self.buffer.resize(used + BUFFER_BYTES, 0);
        let result = (&*self.socket).read(&mut self.buffer[used..]);
        self.buffer.truncate(used + result.as_ref().copied().unwrap_or(0));
        result
    }

    /// Waits for a head of at most `limit` bytes: a [`SLICE`], or a few while bytes keep coming.
    pub fn head(&mut self, limit: usize) -> Arrival {
        for _ in 0..MAX_FILLS {
            let unused = &self.buffer[self.start..];
            // A TLS hello or other noise on a plain socket is told at once, not after the head's time limit.
            if unused.first().is_some_and(|byte| !byte.is_ascii_alphabetic() && !b"\r\n".contains(byte)) {
                return Arrival::Refused(Refusal { status: 400, message: "malformed HTTP request" });
            }
            if let Some(end) = message::head_end(unused, self.searched) {
                if end > limit {
                    return Arrival::Refused(too_large());
                }
                let parsed = message::parse_head(&unused[..end]);
                self.consume(end);
                return parsed.map_or_else(Arrival::Refused, Arrival::Head);
            }
            self.searched = unused.len();
            if unused.len() > limit {
                return Arrival::Refused(too_large());
            }
            match self.fill() {
                Ok(0) => return Arrival::Closed,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if socket::is_retry(&error) => {
                    if self.unused().is_empty() {
                        // An idle connection should cost its socket and little more.
                        self.buffer = Vec::new();
                    }
                    return Arrival::Pending;
                }
                Err(_) => return Arrival::Closed,
            }
        }
        Arrival::Pending
    }
}

fn too_large() -> Refusal {
    Refusal { status: 431, message: "request header fields too large" }
}

/// What a body and its connection share while the body is out with a handler.
#[derive(Debug)]
struct Loan {
    returned: Mutex<Option<(Input, Rest)>>,
    /// The client waits for `100 Continue` before it sends the body.
    expects: AtomicBool,
}

/// The connection's claim on the input its body holds.
#[derive(Debug)]
pub struct Claim(Arc<Loan>);

/// How much of a body was left unread.
#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunked(Chunks),
    /// Malformed or cut off: what follows cannot be told from the body.
    Broken,
}

impl Claim {
    /// The input, if the body was dropped; with whether nothing of the body is left in it after skipping at
    /// most `limit` bytes until `deadline`.
    pub fn settle(&self, limit: u64, deadline: Instant) -> Option<(Input, bool)> {
        let (input, rest) = self.0.returned.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let too_much = match &rest {
            Rest::Length(0) => return Some((input, true)),
            Rest::Chunked(chunks) if chunks.is_done() => return Some((input, true)),
            // A client that was never told to go on may send the body or not: nobody can know what is next.
            _ if self.0.expects.load(Ordering::Relaxed) => return Some((input, false)),
            Rest::Broken => return Some((input, false)),
            Rest::Length(left) => *left > limit,
            Rest::Chunked(_) => false,
        };
        if too_much {
            return Some((input, false));
        }
        let mut parts = Parts { input, rest, deadline: Some(deadline), idle: SLICE };
        let (mut sink, mut taken) = ([0; 4096], 0);
        let clean = loop {
            match parts.read(&mut sink) {
                Ok(0) => break true,
                Ok(count) => taken += count as u64,
                Err(_) => break false,
            }
            if taken > limit {
                break false;
            }
        };
        Some((parts.input, clean))
    }

    /// Whether the connection can be kept, as far as can be told before the answer is written.
    pub fn may_keep(&self, limit: u64) -> bool {
        match &*self.0.returned.lock().unwrap_or_else(PoisonError::into_inner) {
            None | Some((_, Rest::Broken)) => false,
            Some((_, Rest::Length(0))) => true,
            Some((_, Rest::Chunked(chunks))) if chunks.is_done() => true,
            Some((_, Rest::Length(left))) => *left <= limit && !self.0.expects.load(Ordering::Relaxed),
            Some((_, Rest::Chunked(_))) => !self.0.expects.load(Ordering::Relaxed),
        }
    }

    /// Whether a body is still out and its client waits for `100 Continue`: it must precede the answer's head.
    pub fn send_continue(&self, socket: &Socket) -> io::Result<()> {
        if self.0.returned.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return Ok(());
        }
        self.0.send_continue(socket)
    }
}

impl Loan {
    fn send_continue(&self, mut socket: &Socket) -> io::Result<()> {
        if self.expects.swap(false, Ordering::Relaxed) {
            socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Parts {
    input: Input,
    rest: Rest,
    deadline: Option<Instant>,
    /// How long to wait for the next bytes.
    idle: Duration,
}

impl Parts {
    /// Waits until there is something to decode.
    fn receive(&mut self) -> io::Result<()> {
        let idle = Instant::now() + self.idle;
        let deadline = self.deadline.map_or(idle, |deadline| deadline.min(idle));
        loop {
            match self.input.fill() {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "request body ends early")),
                Ok(_) => return Ok(()),
                Err(error) if socket::is_retry(&error) => {}
                Err(error) => return Err(error),
            }
            if !self.input.socket.wait(PollFlags::IN, Some(deadline))? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "request body does not arrive"));
            }
        }
    }

    fn decode(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        loop {
            match &mut self.rest {
                Rest::Broken => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "broken request body"));
                }
                Rest::Length(0) => return Ok(0),
                Rest::Length(left) if !self.input.unused().is_empty() => {
                    let unused = self.input.unused();
                    let count =
                        unused.len().min(output.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    output[..count].copy_from_slice(&unused[..count]);
                    *left -= count as u64;
                    self.input.consume(count);
                    return Ok(count);
                }
                Rest::Chunked(chunks) if chunks.is_done() => return Ok(0),
                Rest::Chunked(chunks) if !self.input.unused().is_empty() => {
                    let (consumed, produced) = chunks
                        .decode(self.input.unused(), output)
                        .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message))?;
                    self.input.consume(consumed);
                    if produced > 0 || chunks.is_done() {
                        return Ok(produced);
                    }
                }
                Rest::Length(_) | Rest::Chunked(_) => self.receive()?,
            }
        }
    }

    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let result = self.decode(output);
        if result.is_err() {
            self.rest = Rest::Broken;
        }
        result
    }
}

/// The body of a request, decoded; reading past its end gives 0 for ever.
///
/// Reads block until bytes come; a peer that sends nothing for [`super::server::Limits::body_idle`] or past
/// the deadline gets an error of kind `TimedOut`, one that leaves `UnexpectedEof`, one that breaks the
/// chunked coding `InvalidData`.
#[derive(Debug)]
pub struct Body {
    /// `None` only while dropping.
    parts: Option<Parts>,
    loan: Arc<Loan>,
    length: Option<u64>,
}

impl Body {
    /// Lends `input` to a body; the claim gets it back.
    pub fn lend(input: Input, framing: Framing, expects: bool, idle: Duration) -> (Body, Claim) {
        let (rest, length) = match framing {
            Framing::Length(length) => (Rest::Length(length), Some(length)),
            Framing::Chunked => (Rest::Chunked(Chunks::default()), None),
            // A request cannot end with its connection; message::request_framing never says so.
            Framing::Close => (Rest::Broken, None),
        };
        let expects = expects && length != Some(0);
        let loan = Arc::new(Loan { returned: Mutex::new(None), expects: AtomicBool::new(expects) });
        let parts = Some(Parts { input, rest, deadline: None, idle });
        (Body { parts, loan: loan.clone(), length }, Claim(loan))
    }

    /// The length the client announced; `None` for a chunked body.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Whether the client announced that there is no body.
    pub fn is_empty(&self) -> bool {
        self.length == Some(0)
    }

    /// Makes every later read fail with `TimedOut` once `deadline` has passed.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        if let Some(parts) = &mut self.parts {
            parts.deadline = deadline;
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(parts) = &mut self.parts else { return Ok(0) };
        if self.loan.expects.load(Ordering::Relaxed) {
            self.loan.send_continue(&parts.input.socket)?;
        }
        parts.read(buffer)
    }
}

impl Drop for Body {
    fn drop(&mut self) {
        if let Some(parts) = self.parts.take() {
            *self.loan.returned.lock().unwrap_or_else(PoisonError::into_inner) =
                Some((parts.input, parts.rest));
        }
    }
}

/// That the server is stopping: a flag to look at, and a descriptor to wait for.
#[derive(Debug)]
pub struct Stopping {
    flag: AtomicBool,
    /// Readable from the moment the flag is set: nobody ever reads it.
    event: OwnedFd,
}

impl Stopping {
    pub fn new() -> io::Result<Stopping> {
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Stopping { flag: AtomicBool::new(false), event })
    }

    /// Says it, once and for all.
    pub fn set(&self) {
        self.flag.store(true, Ordering::Relaxed);
        // EAGAIN means that it is readable already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }
}

/// The other end of a connection, for handlers that wait: is it still there?
#[derive(Clone, Debug)]
pub struct Peer {
    socket: Arc<Socket>,
    stopping: Arc<Stopping>,
    /// On an upgraded connection a half-close is the end of stdin, not of interest in stdout.
    upgraded: bool,
}

impl Peer {
    pub fn new(socket: Arc<Socket>, stopping: Arc<Stopping>) -> Peer {
        Peer { socket, stopping, upgraded: false }
    }

    /// The same peer, once the connection is upgraded.
    pub fn upgraded(mut self) -> Peer {
        self.upgraded = true;
        self
    }

    pub(super) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// The certificates the peer has proven to be its own, DER, its own first, then those that vouch for it; empty
    /// without TLS, and where no client certificates are asked for.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        match &*self.socket {
            Socket::Tls(stream) => stream.peer_certificates(),
            Socket::Unix(_) | Socket::Tcp(_) => Vec::new(),
        }
    }

    /// The common name of the peer's own certificate.
    pub fn common_name(&self) -> Option<String> {
        match &*self.socket {
            Socket::Tls(stream) => stream.common_name(),
            Socket::Unix(_) | Socket::Tcp(_) => None,
        }
    }

    fn hang_up(&self) -> PollFlags {
        if self.upgraded { PollFlags::HUP } else { PollFlags::HUP | PollFlags::RDHUP }
    }

    /// Readable once the server is stopping.
    pub fn stopping(&self) -> BorrowedFd<'_> {
        self.stopping.event.as_fd()
    }

    /// Waits until one of `sources` is readable or `time` is over (`None` is for ever); false as soon as nobody
    /// waits for more: the peer has closed, or the server is stopping. Costs nothing while nothing happens.
    pub fn wait(&self, sources: &[BorrowedFd<'_>], time: Option<Duration>) -> bool {
        let deadline = time.map(|time| Instant::now() + time);
        let mut fds = vec![
            PollFd::new(&*self.socket, self.hang_up()),
            PollFd::from_borrowed_fd(self.stopping.event.as_fd(), PollFlags::IN),
        ];
        fds.extend(sources.iter().map(|source| PollFd::from_borrowed_fd(*source, PollFlags::IN)));
        loop {
            let left = deadline.map(socket::time_left);
            match rustix::event::poll(&mut fds, left.as_ref()) {
                Ok(_) => return fds[..2].iter().all(|fd| fd.revents().is_empty()),
                Err(rustix::io::Errno::INTR) => {}
                // A kernel without memory to poll with: better to end a follower than to spin.
                Err(_) => return false,
            }
        }
    }
}
