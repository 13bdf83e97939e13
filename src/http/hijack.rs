//! Upgraded connections, both ends: raw bytes in two independent halves.
//!
//! ```text
//!   client                              server
//!   POST … Upgrade: tcp  ────────────>
//!                        <────────────  101 UPGRADED (alone in its segment)
//!   stdin bytes          ────────────>  ReadHalf      (first the bytes that came with the request)
//!                        <────────────  WriteHalf     output
//!   shutdown(WR)         ────────────>  ReadHalf: 0   end of stdin, output goes on
//!                        <────────────  both halves dropped: shutdown(WR), drain, close
//! ```
//!
//! The halves share one descriptor and no lock. Neither has a timeout: a quiet terminal is not an error.
//!
//! Not here: the request that upgrades (`server`, `client`), frames (`stdcopy`), terminals (`cli`).

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::connection::Peer;
use super::socket::Socket;

/// How long and how much a server takes in after its output has ended, before it closes.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// A connection that was taken over.
#[derive(Debug)]
pub struct Hijacked {
    reader: ReadHalf,
    writer: WriteHalf,
    peer: Option<Peer>,
}

/// Closes the connection when the last half is gone.
#[derive(Debug)]
struct Ending {
    socket: Arc<Socket>,
    linger: bool,
    /// Dropped last, when the connection has ended.
    _guard: Option<Guard>,
}

/// Something that lasts as long as an upgraded connection.
pub type Guard = Box<dyn std::fmt::Debug + Send + Sync>;

impl Drop for Ending {
    fn drop(&mut self) {
        if self.linger {
            self.socket.linger(LINGER, LINGER_BYTES);
        }
        // A peer handle may keep the descriptor open; the connection ends here all the same.
        self.socket.shutdown(Shutdown::Both);
    }
}

impl Hijacked {
    /// The server's end. `early` came with the request and is read first; `guard` is dropped with the last
    /// half.
    pub fn server(socket: Arc<Socket>, early: Vec<u8>, peer: Peer, guard: Guard) -> io::Result<Hijacked> {
        Hijacked::new(socket, early, Some(peer.upgraded()), Some(guard))
    }

    /// The client's end. `early` came with the answer's head and is read first.
    pub fn client(socket: Arc<Socket>, early: Vec<u8>) -> io::Result<Hijacked> {
        // A client that is done wants to exit; the daemon survives a reset.
        Hijacked::new(socket, early, None, None)
    }

    fn new(
        socket: Arc<Socket>,
        early: Vec<u8>,
        peer: Option<Peer>,
        guard: Option<Guard>,
    ) -> io::Result<Hijacked> {
        socket.set_read_timeout(None)?;
        socket.set_write_timeout(None)?;
        let ending = Arc::new(Ending { socket, linger: peer.is_some(), _guard: guard });
        let reader = ReadHalf { ending: ending.clone(), early, at: 0 };
        Ok(Hijacked { reader, writer: WriteHalf { ending }, peer })
    }

    /// The two directions, each for a thread of its own.
    pub fn split(self) -> (ReadHalf, WriteHalf) {
        (self.reader, self.writer)
    }

    /// Ends the connection for both halves from a third thread.
    pub fn closer(&self) -> Closer {
        Closer(Arc::clone(&self.writer.ending.socket))
    }

    /// For a thread that polls: reads and writes that would block fail with `WouldBlock`.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.writer.ending.socket.set_nonblocking(true)
    }

    /// The client at the other end; `None` on the client's own end.
    pub fn peer(&self) -> Option<Peer> {
        self.peer.clone()
    }
}

/// Ends a connection that others read and write.
#[derive(Debug)]
pub struct Closer(Arc<Socket>);

impl Closer {
    /// Reads and writes end.
    pub fn close(&self) {
        self.0.shutdown(Shutdown::Both);
    }
}

/// What the peer sends. Ends with 0 when the peer shuts down its output or closes.
#[derive(Debug)]
pub struct ReadHalf {
    ending: Arc<Ending>,
    early: Vec<u8>,
    at: usize,
}

impl ReadHalf {
    /// Whether a read would give bytes that no poll of [`ReadHalf::fd`] announces.
    pub fn has_buffered(&self) -> bool {
        self.has_early() || self.ending.socket.has_buffered()
    }

    fn has_early(&self) -> bool {
        self.at < self.early.len()
    }
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.has_early() {
            let rest = &self.early[self.at..];
            let count = rest.len().min(buffer.len());
            buffer[..count].copy_from_slice(&rest[..count]);
            self.at += count;
            if self.at == self.early.len() {
                self.early = Vec::new();
                self.at = 0;
            }
            return Ok(count);
        }
        match (&*self.ending.socket).read(buffer) {
            // A peer that vanished has ended its input like one that said so.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof) =>
            {
                Ok(0)
            }
            result => result,
        }
    }
}

/// What goes to the peer, unbuffered: each write is sent at once. Dropping it tells the peer that no more
/// comes.
#[derive(Debug)]
pub struct WriteHalf {
    ending: Arc<Ending>,
}

impl WriteHalf {
    /// Tells the peer that no more comes; the other direction goes on.
    pub fn shutdown_write(&self) {
        self.ending.socket.shutdown(Shutdown::Write);
    }

    /// Ends this connection for both halves; reads that block in another thread give 0.
    pub fn shutdown(&self) {
        self.ending.socket.shutdown(Shutdown::Both);
    }

    /// The descriptor to poll for room (`POLLOUT`) or for a peer that left (`POLLHUP`).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.ending.socket.as_fd()
    }
}

impl Drop for WriteHalf {
    fn drop(&mut self) {
        // Else a reader that still blocks in another thread would keep the peer waiting for the end.
        self.shutdown_write();
    }
}

impl Write for WriteHalf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&*self.ending.socket).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
