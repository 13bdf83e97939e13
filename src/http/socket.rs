//! One connected socket of any kind, shared by the halves that read and write it.
//!
//! Reading and writing go through `&Socket`, so that an upgraded connection is two independent halves over
//! one descriptor without a lock. TLS is a variant here and, but for its handshake, nowhere else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;

use super::tls::TlsSocket;

/// A connected stream socket in blocking mode.
#[derive(Debug)]
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// Shuts down one or both directions; a peer that is gone already is no error.
    pub fn shutdown(&self, how: Shutdown) {
        // ENOTCONN means the peer was faster, which is what the caller wants.
        let _ = match self {
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Tcp(stream) => stream.shutdown(how),
            Socket::Tls(stream) => {
                stream.shutdown(how);
                Ok(())
            }
        };
    }

    /// Makes reads and writes that would block fail with `WouldBlock` instead.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_nonblocking(nonblocking),
            Socket::Tcp(stream) => stream.set_nonblocking(nonblocking),
            Socket::Tls(stream) => {
                stream.set_nonblocking(nonblocking);
                Ok(())
            }
        }
    }

    /// Makes a read give up with `WouldBlock` after `time`; `None` waits for ever.
    pub fn set_read_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_read_timeout(time),
            Socket::Tcp(stream) => stream.set_read_timeout(time),
            Socket::Tls(stream) => {
                stream.set_read_timeout(time);
                Ok(())
            }
        }
    }

    /// Makes a write that moves nothing for `time` fail with `WouldBlock`; `None` waits for ever.
    pub fn set_write_timeout(&self, time: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Unix(stream) => stream.set_write_timeout(time),
            Socket::Tcp(stream) => stream.set_write_timeout(time),
            Socket::Tls(stream) => {
                stream.set_write_timeout(time);
                Ok(())
            }
        }
    }

    /// Waits until one of `events` (or an error or hang-up) is there; false when `deadline` passed first.
    pub fn wait(&self, events: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
        if events.contains(PollFlags::IN) && self.has_buffered() {
            return Ok(true);
        }
        wait(self, events, deadline)
    }

    /// Whether a read would give bytes, or the end, that no poll of the descriptor announces.
    pub fn has_buffered(&self) -> bool {
        matches!(self, Socket::Tls(stream) if stream.has_buffered())
    }

    /// Whether nothing of what is carried can have come yet, nor be sent.
    pub fn is_handshaking(&self) -> bool {
        matches!(self, Socket::Tls(stream) if stream.is_handshaking())
    }

    /// Waits until the peer has read the message just written, of at least 200 bytes; at most `time`. False when
    /// the kernel cannot tell, as with TCP and TLS, which know of the peer's kernel only.
    ///
    /// A unix socket is writable while what its peer has not read, with the kernel's own overhead, fills at most a
    /// quarter of the send buffer. Of the smallest buffer the kernel grants (4608 bytes), any such message takes more.
    /// Source: unix_writable() in net/unix/af_unix.c, SOCK_MIN_SNDBUF.
    pub fn wait_until_read(&self, time: Duration) -> bool {
        let Socket::Unix(stream) = self else { return false };
        let Ok(size) = sockopt::socket_send_buffer_size(stream) else { return false };
        if sockopt::set_socket_send_buffer_size(stream, 1).is_err() {
            return false;
        }
        let is_read = self.wait(PollFlags::OUT, Some(Instant::now() + time));
        // The kernel doubles what it is given.
        let restored = sockopt::set_socket_send_buffer_size(stream, size / 2);
        matches!(is_read, Ok(true)) && restored.is_ok()
    }

    /// Whether one of `events` is there now.
    pub fn has(&self, events: PollFlags) -> bool {
        let mut fds = [PollFd::new(self, events)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // A failing poll (ENOMEM) says nothing about the peer.
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
    }

    /// Ends the connection so that what was written still reaches the peer.
    ///
    /// Closing a socket that holds unread input makes the kernel send ECONNRESET (AF_UNIX) or RST (TCP),
    /// which can overtake the last bytes written. So: end our direction, then take in what the peer
    /// still sends until it ends its own, for `time` and `bytes` at most. Blocks for up to `time`.
    pub fn linger(&self, time: Duration, bytes: usize) {
        self.shutdown(Shutdown::Write);
        let deadline = Instant::now() + time;
        let mut taken = 0;
        let mut sink = [0; 4096];
        let _ = self.set_read_timeout(Some(Duration::from_millis(10)));
        while taken < bytes {
            match wait(self, PollFlags::IN, Some(deadline)) {
                Ok(true) => match self.discard(&mut sink) {
                    Ok(0) => return,
                    Ok(count) => taken += count,
                    Err(error) if is_retry(&error) => continue,
                    Err(_) => return,
                },
                Ok(false) | Err(_) => return,
            }
        }
    }

    /// Takes in what nobody will look at, encrypted or not.
    fn discard(&self, sink: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tls(stream) => stream.discard(sink),
            Socket::Unix(_) | Socket::Tcp(_) => (&mut &*self).read(sink),
        }
    }
}

/// Waits until one of `events` (or an error or hang-up) is there; false when `deadline` passed first.
pub fn wait(fd: &impl AsFd, events: PollFlags, deadline: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = deadline.map(time_left);
        let mut fds = [PollFd::new(fd, events)];
        match rustix::event::poll(&mut fds, left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What is left until `deadline`, as poll wants it.
pub fn time_left(deadline: Instant) -> Timespec {
    let left = deadline.saturating_duration_since(Instant::now());
    Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
}

/// Whether a read or write failed only because it was interrupted or its slice of time was over.
pub fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(stream) => stream.as_fd(),
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Tls(stream) => stream.as_fd(),
        }
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).read(buffer),
            Socket::Tcp(stream) => (&mut &*stream).read(buffer),
            Socket::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).write(bytes),
            Socket::Tcp(stream) => (&mut &*stream).write(bytes),
            Socket::Tls(stream) => stream.write(&[io::IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Unix(stream) => (&mut &*stream).write_vectored(slices),
            Socket::Tcp(stream) => (&mut &*stream).write_vectored(slices),
            Socket::Tls(stream) => stream.write(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes all of `slices` with as few system calls as the kernel allows.
pub fn write_all_vectored(mut out: &Socket, mut slices: &mut [io::IoSlice<'_>]) -> io::Result<()> {
    io::IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match out.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => io::IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
