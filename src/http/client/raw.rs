//! The two calls ureq cannot make: bodies sent while the answer is read, and upgrades.
//!
//! ```text
//!   upload    head ──>  chunks (own thread) ──────────────> 0
//!                       <── head, body (caller's thread) ──
//!   upgrade   head + JSON ──>  <── 101 or 200  ══ raw both ways ══
//! ```
//!
//! An uploader must read while it writes: a daemon that refuses in the middle answers and closes, and one
//! that reports progress would block on an answer nobody reads.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};

use super::transport::dial;
use super::{AnswerHead, ClientError, Context, Upgraded, user_agent};
use crate::http::api::Method;
use crate::http::hijack::Hijacked;
use crate::http::message::{self, Chunks, Framing, StatusHead};
use crate::http::reply::header;
use crate::http::socket::Socket;

const MAX_HEAD_BYTES: usize = 64 * 1024;
const BLOCK_BYTES: usize = 64 * 1024;

/// The failure of the caller's source, found by the thread that reads it.
type SourceFailure = Arc<Mutex<Option<io::Error>>>;

fn take(failure: &SourceFailure) -> Option<io::Error> {
    failure.lock().unwrap_or_else(PoisonError::into_inner).take()
}

fn request(context: &Context, method: Method, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = format!("{} {target} HTTP/1.1\r\n", method.name()).into_bytes();
    header(&mut bytes, "Host", "localhost");
    header(&mut bytes, "User-Agent", user_agent());
    headers.iter().for_each(|(name, value)| header(&mut bytes, name, value));
    context.headers.iter().for_each(|(name, value)| header(&mut bytes, name, value));
    bytes.extend_from_slice(b"\r\n");
    bytes
}

/// Reads the head of the final answer and what came with it.
fn read_head(context: &Context, socket: &Socket) -> Result<(StatusHead, Vec<u8>), ClientError> {
    let (mut bytes, mut searched) = (Vec::new(), 0);
    loop {
        if let Some(end) = message::head_end(&bytes, searched) {
            let head = message::parse_status_head(&bytes[..end])
                .map_err(|refusal| context.protocol(refusal.message))?;
            bytes.drain(..end);
            searched = 0;
            // Interim answers (100 Continue) come before the one that counts.
            if head.status >= 200 || head.status == 101 {
                return Ok((head, bytes));
            }
            continue;
        }
        searched = bytes.len();
        if searched > MAX_HEAD_BYTES {
            return Err(context.protocol("the answer's head is too long"));
        }
        bytes.resize(searched + 4096, 0);
        let count = loop {
            match (&mut &*socket).read(&mut bytes[searched..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|cause| context.io(cause))?,
            }
        };
        bytes.truncate(searched + count);
        if count == 0 {
            return Err(context.io(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the daemon closed the connection without an answer",
            )));
        }
    }
}

fn answer_head(head: StatusHead) -> AnswerHead {
    AnswerHead { status: head.status, headers: head.headers }
}

/// Sends a request whose body comes from `source`; see [`super::Client::upload`].
pub(super) fn upload(
    context: &Context,
    method: Method,
    target: &str,
    content_type: &str,
    source: Box<dyn Read + Send>,
) -> Result<(AnswerHead, AnswerBody), ClientError> {
    let socket =
        Arc::new(dial(&context.host, context.tls.as_ref()).map_err(|cause| context.unreachable(cause))?);
    let headers = [("Connection", "close"), ("Content-Type", content_type), ("Transfer-Encoding", "chunked")];
    (&*socket).write_all(&request(context, method, target, &headers)).map_err(|cause| context.io(cause))?;
    let failure = SourceFailure::default();
    let (out, told) = (socket.clone(), failure.clone());
    std::thread::Builder::new()
        .name("upload".to_owned())
        .spawn(move || {
            if let Err(cause) = send_chunks(&out, source) {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(cause);
                out.shutdown(Shutdown::Both);
            }
        })
        .map_err(|cause| context.io(cause))?;
    let source_failed = || {
        let cause = take(&failure)?;
        Some(ClientError::Source { operation: context.operation, cause })
    };
    let (head, early) = match read_head(context, &socket) {
        Ok(read) => read,
        Err(error) => {
            socket.shutdown(Shutdown::Both);
            return Err(source_failed().unwrap_or(error));
        }
    };
    let framing = match head.status {
        204 | 304 => Framing::Length(0),
        _ => message::response_framing(&head).map_err(|refusal| context.protocol(refusal.message))?,
    };
    Ok((answer_head(head), AnswerBody { socket, early, framing, chunks: Chunks::default(), failure }))
}

/// Sends all of `source`; only the source's own failure is one: a daemon that stops reading has answered.
fn send_chunks(mut out: &Socket, mut source: Box<dyn Read + Send>) -> io::Result<()> {
    // Room for the size before the data and the line end after it, so that a chunk is one write.
    const SIZE_BYTES: usize = 8;
    let mut block = vec![0; SIZE_BYTES + BLOCK_BYTES + 2];
    loop {
        let count = match source.read(&mut block[SIZE_BYTES..SIZE_BYTES + BLOCK_BYTES]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        };
        if count == 0 {
            let _ = out.write_all(b"0\r\n\r\n");
            return Ok(());
        }
        block[..SIZE_BYTES].copy_from_slice(format!("{count:06x}\r\n").as_bytes());
        block[SIZE_BYTES + count..SIZE_BYTES + count + 2].copy_from_slice(b"\r\n");
        if out.write_all(&block[..SIZE_BYTES + count + 2]).is_err() {
            return Ok(());
        }
    }
}

/// The body of an answer on a connection of its own.
#[derive(Debug)]
pub(super) struct AnswerBody {
    socket: Arc<Socket>,
    /// Received and not decoded.
    early: Vec<u8>,
    framing: Framing,
    chunks: Chunks,
    failure: SourceFailure,
}

impl AnswerBody {
    fn decode(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let done = match self.framing {
                Framing::Length(left) => left == 0,
                Framing::Chunked => self.chunks.is_done(),
                Framing::Close => false,
            };
            if done {
                return Ok(0);
            }
            if self.early.is_empty() {
                self.early.resize(BLOCK_BYTES, 0);
                let result = (&*self.socket).read(&mut self.early);
                self.early.truncate(result.as_ref().copied().unwrap_or(0));
                match (result?, self.framing) {
                    (0, Framing::Close) => return Ok(0),
                    (0, _) => {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ends early"));
                    }
                    _ => {}
                }
            }
            let (consumed, produced) = match &mut self.framing {
                Framing::Chunked => self
                    .chunks
                    .decode(&self.early, buffer)
                    .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.message))?,
                Framing::Length(left) => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let count = self.early.len().min(buffer.len()).min(most);
                    buffer[..count].copy_from_slice(&self.early[..count]);
                    *left -= count as u64;
                    (count, count)
                }
                Framing::Close => {
                    let count = self.early.len().min(buffer.len());
                    buffer[..count].copy_from_slice(&self.early[..count]);
                    (count, count)
                }
            };
            self.early.drain(..consumed);
            if produced > 0 {
                return Ok(produced);
            }
        }
    }
}

impl Read for AnswerBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decode(buffer).map_err(|cause| take(&self.failure).unwrap_or(cause))
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // Ends the sending thread too, should the daemon have answered before it had everything.
        self.socket.shutdown(Shutdown::Both);
    }
}

/// Sends a request to take over its connection; see [`super::Client::hijack`].
pub(super) fn upgrade(
    context: &Context,
    method: Method,
    target: &str,
    json: Option<Vec<u8>>,
) -> Result<Upgraded, ClientError> {
    let socket =
        Arc::new(dial(&context.host, context.tls.as_ref()).map_err(|cause| context.unreachable(cause))?);
    let body = json.unwrap_or_default();
    let length = body.len().to_string();
    let mut headers =
        vec![("Connection", "Upgrade"), ("Upgrade", "tcp"), ("Content-Length", length.as_str())];
    if !body.is_empty() {
        headers.push(("Content-Type", "application/json"));
    }
    let mut bytes = request(context, method, target, &headers);
    bytes.extend_from_slice(&body);
    (&*socket).write_all(&bytes).map_err(|cause| context.io(cause))?;
    let (head, early) = read_head(context, &socket)?;
    if head.status != 101 && head.status != 200 {
        let framing =
            message::response_framing(&head).map_err(|refusal| context.protocol(refusal.message))?;
        let failure = SourceFailure::default();
        let body = AnswerBody { socket, early, framing, chunks: Chunks::default(), failure };
        return Err(context.refused(head.status, body));
    }
    let stream = Hijacked::client(socket, early).map_err(|cause| context.io(cause))?;
    Ok(Upgraded { stream })
}
