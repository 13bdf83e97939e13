//! Answers: five shapes, and the one place where a refusal's class becomes a status.
//!
//! | shape | on the wire |
//! |---|---|
//! | bytes, JSON | head with Content-Length, and the body, in one write |
//! | empty | head only |
//! | stream | head at once, then each flush is one chunk; ends when the writer returns |
//! | hijack | `101 UPGRADED` (or `200` without Upgrade), then raw bytes both ways |
//! | upgrade | `101` to a protocol of its own (WebSocket) |
//!
//! A handler describes an answer and returns; the writers of streams and hijacks run after it, on a thread
//! they may keep as long as they like, and see the peer through [`Peer`].
//!
//! Not here: when a connection is kept, and threads (`server`).

use std::fmt;
use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use serde::Serialize;

use super::api::{Class, Endpoint, ErrorResponse, Failure, Shape};
use super::connection::Peer;
use super::hijack::Hijacked;
use super::message;
use super::socket::{self, Socket};

const JSON: &str = "application/json";
/// A stream's writes are gathered up to this many bytes before they become a chunk unasked.
const CHUNK_BYTES: usize = 32 * 1024;

type Run = Box<dyn FnOnce(&mut Outgoing) -> io::Result<()> + Send>;
type TakeOver = Box<dyn FnOnce(Hijacked) + Send>;

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    payload: Payload,
}

/// What follows the head.
pub(super) enum Payload {
    Empty,
    Bytes {
        content_type: &'static str,
        bytes: Vec<u8>,
    },
    Stream {
        content_type: &'static str,
        run: Run,
    },
    Hijack {
        content_type: &'static str,
        run: TakeOver,
    },
    /// To a protocol of its own, which the reply's headers agree on.
    Upgrade {
        protocol: &'static str,
        run: TakeOver,
    },
}

impl fmt::Debug for Payload {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Payload::Empty => write!(out, "Empty"),
            Payload::Bytes { content_type, bytes } => write!(out, "Bytes({content_type}, {})", bytes.len()),
            Payload::Stream { content_type, .. } => write!(out, "Stream({content_type})"),
            Payload::Hijack { content_type, .. } => write!(out, "Hijack({content_type})"),
            Payload::Upgrade { protocol, .. } => write!(out, "Upgrade({protocol})"),
        }
    }
}

/// The status of each class of refusal.
pub fn status(class: Class) -> u16 {
    match class {
        Class::NotModified => 304,
        Class::InvalidParameter => 400,
        Class::Unauthorized => 401,
        Class::Forbidden => 403,
        Class::NotFound => 404,
        Class::Conflict => 409,
        Class::TooLarge => 413,
        Class::System => 500,
        Class::NotImplemented => 501,
        Class::Unavailable => 503,
    }
}

impl Reply {
    fn new(status: u16, payload: Payload) -> Reply {
        Reply { status, headers: Vec::new(), payload }
    }

    /// One JSON value.
    pub fn json(status: u16, value: &impl Serialize) -> Reply {
        // Docker's encoder ends each value with a newline.
        match serde_json::to_vec(value) {
            Ok(mut bytes) => {
                bytes.push(b'\n');
                Reply::new(status, Payload::Bytes { content_type: JSON, bytes })
            }
            Err(cause) => Reply::refusal(500, &format!("encode answer: {cause}")),
        }
    }

    /// A status without a body.
    pub fn empty(status: u16) -> Reply {
        Reply::new(status, Payload::Empty)
    }

    /// Bytes of a known length. In answer to HEAD only their head is sent.
    pub fn bytes(content_type: &'static str, bytes: Vec<u8>) -> Reply {
        Reply::new(200, Payload::Bytes { content_type, bytes })
    }

    /// Bytes of unknown length: `run` writes them, each flush reaches the peer at once as one chunk.
    ///
    /// The head is sent before `run` is called. An error from `run` cuts the connection, so that the peer
    /// cannot take the stream for complete.
    pub fn stream(
        content_type: &'static str,
        run: impl FnOnce(&mut Outgoing) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        Reply::new(200, Payload::Stream { content_type, run: Box::new(run) })
    }

    /// Takes over the connection: `run` is called once the head is sent, alone in its segment.
    pub fn hijack(content_type: &'static str, run: impl FnOnce(Hijacked) + Send + 'static) -> Reply {
        Reply::new(101, Payload::Hijack { content_type, run: Box::new(run) })
    }

    /// As [`Reply::hijack`], to a protocol whose handshake the handler has checked.
    pub fn upgrade(protocol: &'static str, run: impl FnOnce(Hijacked) + Send + 'static) -> Reply {
        Reply::new(101, Payload::Upgrade { protocol, run: Box::new(run) })
    }

    /// Adds a header. A value that cannot stand in a header is left out.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Reply {
        let value = value.into();
        // A line break in a value (a path in X-Docker-Container-Path-Stat) would start another header.
        if value.bytes().all(|byte| byte == b'\t' || (b' '..0x7f).contains(&byte) || byte >= 0x80) {
            self.headers.push((name, value));
        }
        self
    }

    /// Changes the status of success.
    pub fn with_status(mut self, status: u16) -> Reply {
        self.status = status;
        self
    }

    /// The answer to a refused request.
    pub fn failure(failure: &Failure) -> Reply {
        Reply::refusal(status(failure.class), &failure.message)
    }

    /// An error of the given status; 304 has no body.
    pub(super) fn refusal(status: u16, message: &str) -> Reply {
        if status == 304 {
            return Reply::empty(status);
        }
        Reply::json(status, &ErrorResponse { message: message.to_owned() })
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    /// The reply's own headers.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.headers.iter().map(|(name, value)| (*name, value.as_str()))
    }

    /// What the body is said to be; `None` without one, and for a protocol of its own.
    pub fn content_type(&self) -> Option<&'static str> {
        match &self.payload {
            Payload::Bytes { content_type, .. }
            | Payload::Stream { content_type, .. }
            | Payload::Hijack { content_type, .. } => Some(content_type),
            Payload::Empty | Payload::Upgrade { .. } => None,
        }
    }

    /// The body of a reply whose length is known.
    pub fn body(&self) -> Option<&[u8]> {
        match &self.payload {
            Payload::Bytes { bytes, .. } => Some(bytes),
            Payload::Empty => Some(&[]),
            Payload::Stream { .. } | Payload::Hijack { .. } | Payload::Upgrade { .. } => None,
        }
    }

    pub(super) fn into_parts(self) -> (Head, Payload) {
        (Head { status: self.status, headers: self.headers }, self.payload)
    }
}

impl<Q, B, R> Endpoint<Q, B, R> {
    /// The endpoint's answer, of the type and status its client expects.
    pub fn reply(&self, answer: &R) -> Reply
    where
        R: Serialize,
    {
        match self.operation.shape {
            Shape::Empty => Reply::empty(self.operation.status),
            Shape::Json | Shape::Stream | Shape::Hijack => Reply::json(self.operation.status, answer),
        }
    }

    /// The endpoint's answer as a stream; see [`Reply::stream`].
    pub fn stream(
        &self,
        content_type: &'static str,
        run: impl FnOnce(&mut Outgoing) -> io::Result<()> + Send + 'static,
    ) -> Reply {
        Reply::stream(content_type, run).with_status(self.operation.status)
    }
}

/// The status line and headers of an answer, before they are bytes.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
}

impl Head {
    /// Writes status line, common headers and the reply's own into `out`, without the empty line.
    pub(super) fn write(&self, out: &mut Vec<u8>, common: &[u8]) {
        out.extend_from_slice(
            format!("HTTP/1.1 {} {}\r\n", self.status, message::reason(self.status)).as_bytes(),
        );
        out.extend_from_slice(common);
        for (name, value) in &self.headers {
            header(out, name, value);
        }
    }
}

/// Appends one header.
pub(super) fn header(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The body of a stream, being written.
///
/// What is written is sent with the next flush, or when 32 KiB have gathered, as one chunk and one system
/// call. Writes block while the peer takes nothing, and fail once it has gone.
#[derive(Debug)]
pub struct Outgoing {
    socket: Arc<Socket>,
    peer: Peer,
    buffer: Vec<u8>,
    chunked: bool,
    /// Bytes of the body handed to the kernel.
    sent: u64,
}

impl Outgoing {
    pub(super) fn new(socket: Arc<Socket>, peer: Peer, chunked: bool) -> Outgoing {
        Outgoing { socket, peer, buffer: Vec::new(), chunked, sent: 0 }
    }

    /// The client, to ask whether it is still there while there is nothing to write.
    pub fn peer(&self) -> Peer {
        self.peer.clone()
    }

    /// How many bytes of the body were sent.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.sent += bytes.len() as u64;
        if bytes.is_empty() {
            // An empty chunk would be the end.
            return Ok(());
        }
        if !self.chunked {
            return socket::write_all_vectored(&self.socket, &mut [IoSlice::new(bytes)]);
        }
        let size = format!("{:x}\r\n", bytes.len());
        let mut slices = [IoSlice::new(size.as_bytes()), IoSlice::new(bytes), IoSlice::new(b"\r\n")];
        socket::write_all_vectored(&self.socket, &mut slices)
    }

    /// Sends what is left and the end of the stream.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        if !self.chunked {
            return self.flush();
        }
        self.sent += self.buffer.len() as u64;
        let mut last = Vec::with_capacity(self.buffer.len() + 16);
        if !self.buffer.is_empty() {
            last.extend_from_slice(format!("{:x}\r\n", self.buffer.len()).as_bytes());
            last.extend_from_slice(&self.buffer);
            last.extend_from_slice(b"\r\n");
        }
        last.extend_from_slice(b"0\r\n\r\n");
        (&*self.socket).write_all(&last)
    }
}

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && bytes.len() >= CHUNK_BYTES {
            self.send(bytes)?;
            return Ok(bytes.len());
        }
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = self.send(&buffer);
        buffer.clear();
        // An idle stream should not keep what a busy moment needed.
        buffer.shrink_to(4096);
        self.buffer = buffer;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_json_with_a_newline_and_304_is_empty() {
        let failure = |class| Failure { class, message: "no \"such\" thing".to_owned() };
        let reply = Reply::failure(&failure(Class::NotFound));
        assert_eq!(reply.status(), 404);
        assert_eq!(reply.body(), Some(&b"{\"message\":\"no \\\"such\\\" thing\"}\n"[..]));
        let reply = Reply::failure(&failure(Class::NotModified));
        assert_eq!((reply.status(), reply.body()), (304, Some(&b""[..])));
    }

    #[test]
    fn header_values_cannot_start_another_header() {
        let reply = Reply::empty(200).header("X-A", "ok").header("X-B", "a\r\nX-C: d").header("X-D", "a\0");
        let (head, _) = reply.into_parts();
        let mut bytes = Vec::new();
        head.write(&mut bytes, b"Server: x\r\n");
        assert_eq!(bytes, b"HTTP/1.1 200 OK\r\nServer: x\r\nX-A: ok\r\n");
    }
}
