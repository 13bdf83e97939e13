//! DNS over TCP: messages with their length in front, in both directions, without waiting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;

use rustix::event::epoll::EventFlags;

/// Unsent bytes at which we stop listening to somebody who does not read.
const BEHIND: usize = 65_536;

/// A connection, by whichever side it was made. The socket does not block.
#[derive(Debug)]
pub struct Stream {
    pub socket: TcpStream,
    inbox: Vec<u8>,
    outbox: Vec<u8>,
    /// The other side will send no more.
    pub is_ended: bool,
}

impl Stream {
    pub fn new(socket: TcpStream) -> Stream {
        Stream { socket, inbox: Vec::new(), outbox: Vec::new(), is_ended: false }
    }

    /// Puts a message of at most 65 535 bytes into the line.
    pub fn push(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        self.outbox.extend(length.to_be_bytes());
        self.outbox.extend(&message[..usize::from(length)]);
    }

    /// Sends and receives what goes without waiting, at most a bufferful.
    ///
    /// # Errors
    /// Those of a connection that is over, or was never made.
    pub fn pump(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.flush()?;
        // One that was cut wakes us again and again until somebody has asked why.
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        if self.is_ended || self.outbox.len() > BEHIND {
            return Ok(());
        }
        match self.socket.read(buffer) {
            Ok(0) => self.is_ended = true,
            Ok(count) => self.inbox.extend(&buffer[..count]),
            Err(error) if is_later(&error) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Sends what goes without waiting.
    ///
    /// # Errors
    /// Those of a connection that is over.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.outbox.is_empty() {
            match self.socket.write(&self.outbox) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.outbox.drain(..count)),
                Err(error) if is_later(&error) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next message that has come whole.
    pub fn next(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(self.inbox.get(..2)?.try_into().ok()?));
        let message = self.inbox.get(2..2 + length)?.to_vec();
        self.inbox.drain(..2 + length);
        Some(message)
    }

    /// Nothing is left to send.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_empty()
    }

    /// What is worth being woken for.
    pub fn interest(&self) -> EventFlags {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::OUT, !self.outbox.is_empty());
        flags.set(EventFlags::IN, !self.is_ended && self.outbox.len() <= BEHIND);
        flags
    }
}

/// Whether it is to be tried again when the socket is ready.
pub fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
