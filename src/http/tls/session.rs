//! One TLS connection, read and written by two threads at once.
//!
//! One lock holds the session for as long as cryptography takes, never across a wait: the socket is read and
//! written without blocking, and waited for by poll, outside of the lock. So a reader that waits for its peer does
//! not keep the writer from writing.
//!
//! ```text
//!   socket ──recv──> input ──rustls──> plaintext ──> read()        waits by poll(IN)
//!   socket <──send── records <──rustls── write()                   waits by poll(OUT)
//! ```
//!
//! - A read that would block has taken everything the kernel had, so that a poll tells when there is more; before
//!   that, [`TlsSocket::has_buffered`] does.
//! - A write reports bytes once their record is with the kernel: nothing waits here for a flush nobody makes. When
//!   it would block, the bytes are encrypted already, and the caller must come back with the same ones, as every
//!   caller that waits for room does.
//! - Reads drive the handshake; a connection that is silent in it costs no thread.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use rustls::Connection;

use super::certificate::common_name;
use crate::http::socket::wait;

/// What one receive takes: a whole record.
const BLOCK_BYTES: usize = 17 * 1024;
/// How long a last word may wait for room.
const LAST_WORD: Duration = Duration::from_secs(1);
/// No time limit, in nanoseconds.
const FOR_EVER: u64 = u64::MAX;
/// Compat: Go's words to a client that forgot TLS, which the docker client shows.
const SPEAK_TLS: &[u8] = b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// A TLS connection over TCP.
pub struct TlsSocket {
    stream: TcpStream,
    session: Mutex<Session>,
    /// Held by a writer while it waits for room, so that two writers do not take each other's turn.
    turn: Mutex<()>,
    is_handshaking: AtomicBool,
    is_nonblocking: AtomicBool,
    /// Nanoseconds.
    read_time: AtomicU64,
    write_time: AtomicU64,
}

struct Session {
    tls: Connection,
    /// Received and not decrypted.
    input: Vec<u8>,
    at: usize,
    /// Bytes of plaintext that are encrypted and not yet reported as written.
    owed: usize,
    /// We have said our last word.
    has_ended: bool,
    /// Why the handshake or a record failed.
    failure: Option<String>,
}

/// What came of advancing a session.
enum Step {
    /// Something was received.
    Moved,
    /// The kernel has nothing more.
    Dry,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn nanoseconds(time: Option<Duration>) -> u64 {
    time.map_or(FOR_EVER, |time| u64::try_from(time.as_nanos()).unwrap_or(FOR_EVER))
}

fn deadline(time: &AtomicU64) -> Option<Instant> {
    let time = time.load(Ordering::Relaxed);
    (time != FOR_EVER).then(|| Instant::now() + Duration::from_nanos(time))
}

/// The socket as rustls writes to it: what the kernel does not take at once waits in rustls.
struct Sender<'a>(&'a TcpStream);

impl Write for Sender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        Ok(rustix::net::sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), flags)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Session {
    /// Sends what rustls has ready; true when all of it is with the kernel.
    fn flush(&mut self, stream: &TcpStream) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Sender(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Receives once, unless there is input left, and decrypts.
    fn advance(&mut self, stream: &TcpStream) -> io::Result<Step> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::new(io::ErrorKind::InvalidData, failure.clone()));
        }
        if self.at == self.input.len() {
            self.input.clear();
            self.at = 0;
            let mut block = [0; BLOCK_BYTES];
            let count = loop {
                match rustix::net::recv(stream, &mut block, RecvFlags::DONTWAIT) {
                    Ok((count, _)) => break count,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => {
                        // An idle connection should cost its session and little more.
                        self.input = Vec::new();
                        return Ok(Step::Dry);
                    }
                    Err(errno) => return Err(errno.into()),
                }
            };
            if count == 0 && self.tls.is_handshaking() {
                let cause = "the connection ends in the TLS handshake";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause));
            }
            self.input.extend_from_slice(&block[..count]);
            if count == 0 {
                // rustls tells a connection that was cut from one that was ended.
                self.tls.read_tls(&mut io::empty())?;
                return Ok(Step::Moved);
            }
        }
        let mut rest = &self.input[self.at..];
        let before = rest.len();
        self.tls.read_tls(&mut rest)?;
        let taken = before - rest.len();
        let is_first = self.at == 0;
        self.at += taken;
        if taken == 0 {
            // After the peer's last word nothing counts.
            self.at = self.input.len();
        }
        match self.tls.process_new_packets() {
            Ok(_) => {
                // What rustls has to say for itself. What does not fit goes with the next write, which also tells
                // if it never will; what the peer sent before it left is to be read all the same.
                let _ = self.flush(stream);
                Ok(Step::Moved)
            }
            Err(cause) => Err(self.fail(stream, &cause, is_first)),
        }
    }

    /// Notes why it failed, and tells the peer.
    fn fail(&mut self, stream: &TcpStream, cause: &rustls::Error, is_first: bool) -> io::Error {
        let looks_plain = is_first && self.tls.is_handshaking();
        let is_client = matches!(self.tls, Connection::Client(_));
        let text = if looks_plain && is_client && self.input.starts_with(b"HTTP/") {
            "the server answers without TLS".to_owned()
        } else if looks_plain && !is_client && self.input.first().is_some_and(u8::is_ascii_alphabetic) {
            // It cannot read an alert.
            let _ = Sender(stream).write(SPEAK_TLS);
            "the client speaks without TLS".to_owned()
        } else {
            let _ = self.flush(stream);
            cause.to_string()
        };
        self.has_ended = true;
        self.failure = Some(text.clone());
        io::Error::new(io::ErrorKind::InvalidData, text)
    }
}

impl TlsSocket {
    /// A connection whose handshake is still to come.
    pub(super) fn new(stream: TcpStream, tls: Connection) -> TlsSocket {
        let session = Session { tls, input: Vec::new(), at: 0, owed: 0, has_ended: false, failure: None };
        TlsSocket {
            stream,
            session: Mutex::new(session),
            turn: Mutex::new(()),
            is_handshaking: AtomicBool::new(true),
            is_nonblocking: AtomicBool::new(false),
            read_time: AtomicU64::new(FOR_EVER),
            write_time: AtomicU64::new(FOR_EVER),
        }
    }

    /// Completes the handshake, in `time` at most.
    pub(super) fn handshake(&self, time: Duration) -> io::Result<()> {
        let deadline = Some(Instant::now() + time);
        loop {
            let mut session = lock(&self.session);
            let is_sent = session.flush(&self.stream)?;
            if is_sent && !session.tls.is_handshaking() {
                self.is_handshaking.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if let Step::Moved = session.advance(&self.stream)? {
                continue;
            }
            drop(session);
            let events = if is_sent { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
            if !wait(&self.stream, events, deadline)? {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake is not answered"));
            }
        }
    }

    /// Reads plaintext; 0 after the peer's last word. A connection that was cut instead is `UnexpectedEof`.
    ///
    /// # Errors
    /// `WouldBlock` after the read timeout, however many bytes came in that time that made no plaintext.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = deadline(&self.read_time);
        loop {
            let mut session = lock(&self.session);
            let step = loop {
                match session.tls.reader().read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return result,
                }
                let step = session.advance(&self.stream)?;
                if self.is_handshaking.load(Ordering::Relaxed) {
                    self.is_handshaking.store(session.tls.is_handshaking(), Ordering::Relaxed);
                }
                if matches!(step, Step::Dry) || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    break step;
                }
            };
            drop(session);
            if self.is_nonblocking.load(Ordering::Relaxed)
                || matches!(step, Step::Moved)
                || !wait(&self.stream, PollFlags::IN, deadline)?
            {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    /// Whether a read would give something, or the end, that no poll announces.
    pub fn has_buffered(&self) -> bool {
        let mut session = lock(&self.session);
        if session.at < session.input.len() {
            return true;
        }
        let mut reader = session.tls.reader();
        !matches!(io::BufRead::fill_buf(&mut reader), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes plaintext; returns once its records are with the kernel.
    ///
    /// # Errors
    /// `WouldBlock` when nothing moves for the write timeout, or at once if nonblocking: come back with the same
    /// bytes.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total == 0 {
            return Ok(0);
        }
        if self.is_handshaking() {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let _turn = lock(&self.turn);
        loop {
            let mut session = lock(&self.session);
            if session.has_ended {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if session.owed == 0 {
                session.owed = session.tls.writer().write_vectored(slices)?;
            }
            if session.flush(&self.stream)? {
                let count = session.owed.min(total);
                session.owed -= count;
                return Ok(count);
            }
            drop(session);
            if self.is_nonblocking.load(Ordering::Relaxed)
                || !wait(&self.stream, PollFlags::OUT, deadline(&self.write_time))?
            {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    /// Shuts down one or both directions, the last word first. Waits [`LAST_WORD`] for room for it at most.
    pub fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read && !self.is_handshaking() {
            let until = Instant::now() + LAST_WORD;
            loop {
                let mut session = lock(&self.session);
                if !std::mem::replace(&mut session.has_ended, true) {
                    session.tls.send_close_notify();
                }
                // A peer that is gone hears nothing.
                let is_said = session.flush(&self.stream).unwrap_or(true);
                drop(session);
                let may_wait = how == Shutdown::Write;
                if is_said || !may_wait || !wait(&self.stream, PollFlags::OUT, Some(until)).unwrap_or(false) {
                    break;
                }
            }
        }
        let _ = self.stream.shutdown(how);
    }

    /// Takes in and forgets bytes as they came, for a connection that is ending.
    pub fn discard(&self, sink: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(&self.stream, sink, RecvFlags::DONTWAIT)?.0)
    }

    pub fn set_nonblocking(&self, is_nonblocking: bool) {
        self.is_nonblocking.store(is_nonblocking, Ordering::Relaxed);
    }

    pub fn set_read_timeout(&self, time: Option<Duration>) {
        self.read_time.store(nanoseconds(time), Ordering::Relaxed);
    }

    pub fn set_write_timeout(&self, time: Option<Duration>) {
        self.write_time.store(nanoseconds(time), Ordering::Relaxed);
    }

    /// Whether the handshake is not over: no byte of HTTP can have come, and none can be sent.
    pub fn is_handshaking(&self) -> bool {
        self.is_handshaking.load(Ordering::Relaxed)
    }

    /// Why the connection failed, if it did by what the peer sent.
    pub fn failure(&self) -> Option<String> {
        lock(&self.session).failure.clone()
    }

    /// The certificates the peer has proven to be its own, DER, its own first; empty if it was not asked.
    pub fn peer_certificates(&self) -> Vec<Vec<u8>> {
        let session = lock(&self.session);
        let certificates = session.tls.peer_certificates().unwrap_or_default();
        certificates.iter().map(|certificate| certificate.to_vec()).collect()
    }

    /// The common name of the peer's certificate, if it was asked for one and that has a name.
    pub fn common_name(&self) -> Option<String> {
        common_name(lock(&self.session).tls.peer_certificates()?.first()?)
    }

    pub fn peer_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.peer_addr()
    }
}

impl Drop for TlsSocket {
    /// Says the last word, if nobody has: else the peer could not tell the end from a cut.
    fn drop(&mut self) {
        let is_handshaking = self.is_handshaking();
        let session = self.session.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !is_handshaking && !session.has_ended {
            session.tls.send_close_notify();
            // A peer that takes nothing more, or is gone, hears nothing.
            let _ = session.flush(&self.stream);
        }
    }
}

impl AsFd for TlsSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TlsSocket({:?})", self.stream)
    }
}
