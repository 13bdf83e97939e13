//! Requests and answers on one connection, one after the other.
//!
//! The order is fixed: head, framing, route, middlewares, handler, answer, what is left of the body, next head. What
//! cannot be put in order (a head that does not parse, an answer that failed half way, a body nobody can
//! find the end of) ends the connection, in a way that lets the peer read what was sent.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::access::Line;
use super::pool::{self, Place};
use super::{Connection, Core, Registration};
use crate::http::api::{API_VERSION, Class, Failure, Shape};
use crate::http::connection::{Arrival, Body, Claim, Peer};
use crate::http::hijack::Hijacked;
use crate::http::message::{self, Framing, Head};
use crate::http::middleware;
use crate::http::reply::{self, Outgoing, Payload, Reply};
use crate::http::request::{Raw, Request};
use crate::http::socket::Socket;

/// How long an ending connection may take to take in an answer.
const LINGER: Duration = Duration::from_secs(1);
/// How long the unread rest of a body may take to be skipped.
const SKIP: Duration = Duration::from_secs(2);
/// Compat: docker-py (seen in 7.x) reads the head of an upgrade through a buffer and loses what came with
/// it, so its first bytes must come after the head was read: known on a unix socket, guessed on TCP.
const HEAD_READ: Duration = Duration::from_secs(1);
const HEAD_ALONE: Duration = Duration::from_millis(20);
const HEAD_NOTE: &str = "what follows is sent when this has been read: docker-py loses what comes with it, \
     and a socket tells of long messages only";
/// An answer up to this size fits a socket's buffer (at least 160 KiB by default, half of it payload), so that
/// writing it cannot be held up by a peer that does not read.
const SURE_TO_FIT: usize = 64 * 1024;
/// Without an upgrade no client expects frames, whatever they are.
const RAW_STREAM: &str = "application/vnd.docker.raw-stream";

/// Serves a connection until it is idle, ended, or others need its worker more.
pub(super) fn serve<S: Send + Sync + 'static>(
    core: &Arc<Core<S>>,
    mut connection: Connection,
    place: &mut Place<'_>,
) {
    loop {
        match connection.input.head(core.limits.head_bytes) {
            Arrival::Head(head) => {
                connection.head_since = None;
                let Some(kept) = exchange(core, connection, head, place) else { return };
                if core.control.is_stopping() {
                    return;
                }
                connection = kept;
                if core.pool.is_pressed() || !place.rejoin() {
                    let is_idle =
                        connection.input.unused().is_empty() && !connection.input.socket().has_buffered();
                    return if is_idle {
                        core.park(connection);
                    } else {
                        pool::submit(core, connection);
                    };
                }
            }
            Arrival::Pending if core.control.is_stopping() => return,
            Arrival::Pending => {
                let is_late = |since: Instant| since.elapsed() >= core.limits.head_time;
                if connection.head_since.is_some_and(is_late) {
                    return refuse_now(&connection, 408, "request head does not arrive in time");
                }
                if connection.input.socket().has_buffered() {
                    // No poll would tell of it.
                    connection.head_since.get_or_insert_with(Instant::now);
                    return pool::submit(core, connection);
                }
                return core.park(connection);
            }
            Arrival::Closed => return closed(core, &connection, place),
            Arrival::Refused(refusal) => {
                refuse_now(&connection, refusal.status, refusal.message);
                return connection.input.socket().linger(LINGER, 64 * 1024);
            }
        }
    }
}

/// Ends a connection whose peer says no more, or nothing that makes sense.
fn closed<S: Send + Sync + 'static>(core: &Arc<Core<S>>, connection: &Connection, place: &mut Place<'_>) {
    if let Socket::Tls(stream) = &**connection.input.socket()
        && let Some(why) = stream.failure()
    {
        let peer = stream.peer_addr().map_or_else(|_| "a peer that left".to_owned(), |peer| peer.to_string());
        log::info!("speak TLS with {peer}: {why}");
        pool::leave(core, place);
        // The peer is to read why, before what it sent meanwhile makes the kernel reset the connection.
        connection.input.socket().linger(LINGER, 64 * 1024);
    }
}

/// Answers a request that will not be read, unless its peer could not understand. Does not block: the socket of a
/// new answer has room.
pub(super) fn refuse_now(connection: &Connection, status: u16, message: &str) {
    if connection.input.socket().is_handshaking() {
        log::debug!("connection {}: closed before its TLS handshake: {message}", connection.registration.id);
        return;
    }
    let (head, payload) = Reply::refusal(status, message).into_parts();
    let mut bytes = Vec::new();
    head.write(&mut bytes, b"");
    write_body(&mut bytes, payload, false, false);
    let mut socket: &Socket = connection.input.socket();
    // The peer may be gone, which is as good an end.
    let _ = socket.write_all(&bytes);
    log::debug!("connection {}: {status}: {message}", connection.registration.id);
}

/// Appends the rest of the head and the body of an answer whose length is known.
fn write_body(out: &mut Vec<u8>, payload: Payload, is_head: bool, keep: bool) {
    let status_allows_body = !out.starts_with(b"HTTP/1.1 204") && !out.starts_with(b"HTTP/1.1 304");
    if !keep {
        reply::header(out, "Connection", "close");
    }
    let bytes = match payload {
        Payload::Bytes { content_type, bytes } if status_allows_body => {
            reply::header(out, "Content-Type", content_type);
            bytes
        }
        _ => Vec::new(),
    };
    if status_allows_body {
        reply::header(out, "Content-Length", &bytes.len().to_string());
    }
    out.extend_from_slice(b"\r\n");
    if !is_head {
        out.extend_from_slice(&bytes);
    }
}

/// What an answer needs to know about its request.
struct Asked {
    line: String,
    is_head: bool,
    minor: u8,
    keep: bool,
    upgrade: bool,
    is_docker_py: bool,
    access: Option<Line>,
}

impl Asked {
    /// Notes how much of the answer's body was sent.
    fn sent(&self, bytes: Option<u64>) {
        if let Some(access) = &self.access {
            access.sent.set(bytes);
        }
    }
}

/// One request and its answer. Returns the connection if another request may follow.
fn exchange<S: Send + Sync + 'static>(
    core: &Arc<Core<S>>,
    connection: Connection,
    head: Head,
    place: &mut Place<'_>,
) -> Option<Connection> {
    let Connection { input, registration, is_registered, .. } = connection;
    let framing = match message::request_framing(head.minor, &head.headers) {
        Ok(framing) => framing,
        Err(refusal) => {
            let connection = Connection { input, registration, head_since: None, is_registered };
            refuse_now(&connection, refusal.status, refusal.message);
            connection.input.socket().linger(LINGER, 64 * 1024);
            return None;
        }
    };
    let (path, query) = split_target(&head.target);
    let asked = Asked {
        line: format!("{} {path}", head.method),
        is_head: head.method == "HEAD",
        minor: head.minor,
        keep: head.minor == 1 && !head.headers.has_token("connection", "close"),
        upgrade: head.headers.get("upgrade").is_some(),
        // Testcontainers uses it under a name of its own.
        is_docker_py: head
            .headers
            .get("user-agent")
            .is_some_and(|agent| agent.contains("docker-sdk-python") || agent.contains("tc-python")),
        access: Line::begin(
            core.control.has_access_log.load(Ordering::Relaxed),
            &head.method,
            path,
            input.socket(),
        ),
    };
    let socket = input.socket().clone();
    let peer = Peer::new(socket.clone(), core.control.stopping.clone());
    let expects =
        head.minor == 1 && framing != Framing::Length(0) && head.headers.has_token("expect", "100-continue");
    // A body that is still on its way may take its time, but not a place in the pool.
    if !matches!(framing, Framing::Length(length) if length <= input.unused().len() as u64) {
        pool::leave(core, place);
    }
    let (body, claim) = Body::lend(input, framing, expects, core.limits.body_idle);

    let result = match core.table.find(&head.method, path) {
        Err(failure) => {
            drop(body);
            Err(failure)
        }
        Ok(found) => {
            let operation = found.route.operation;
            if operation.slow
                || matches!(operation.shape, Shape::Stream | Shape::Hijack)
                || core.middlewares.iter().any(|middleware| (middleware.may_last)(&core.state))
            {
                pool::leave(core, place);
            }
            let raw = Raw::new(API_VERSION, head.headers, peer.clone(), body);
            let request = Request { params: found.params, query: query.to_owned(), raw };
            let pass =
                || middleware::pass(core.middlewares, &core.state, found.route, found.version, request);
            // One request's bug must not take the others with it.
            catch_unwind(AssertUnwindSafe(pass)).unwrap_or_else(|_| {
                Err(Failure { class: Class::System, message: "the request's handler panicked".to_owned() })
            })
        }
    };
    let reply = result.unwrap_or_else(|failure| {
        let status = reply::status(failure.class);
        // What this daemon does not do is no fault of its.
        match failure.class {
            Class::System => log::error!("{}: {status}: {}", asked.line, failure.message),
            Class::NotImplemented | Class::Unavailable | Class::Forbidden => {
                log::info!("{}: {status}: {}", asked.line, failure.message);
            }
            _ => {}
        }
        Reply::failure(&failure)
    });
    if let Some(access) = &asked.access {
        access.status.set(reply.status());
    }

    let keep = answer(core, &asked, reply, &claim, &peer, registration, place)?;
    let (registration, input) = match claim.settle(core.limits.skip_bytes, Instant::now() + SKIP) {
        Some((input, true)) if keep.0 => (keep.1, input),
        Some((_, true)) => return None,
        // Something of the request is still to come, or in somebody's hands.
        Some((_, false)) | None => {
            socket.linger(LINGER, 1 << 20);
            return None;
        }
    };
    Some(Connection { input, registration, head_since: None, is_registered })
}

/// Sends the answer; returns whether the connection can be kept, `None` if it has ended.
fn answer<S: Send + Sync + 'static>(
    core: &Arc<Core<S>>,
    asked: &Asked,
    reply: Reply,
    claim: &Claim,
    peer: &Peer,
    registration: Registration,
    place: &mut Place<'_>,
) -> Option<(bool, Registration)> {
    let socket = peer.socket();
    let (mut head, payload) = reply.into_parts();
    let mut bytes = Vec::with_capacity(512);
    match payload {
        Payload::Empty | Payload::Bytes { .. } => {
            if let Payload::Bytes { bytes, .. } = &payload
                && !asked.is_head
            {
                asked.sent(Some(bytes.len() as u64));
            }
            let keep = asked.keep && !core.control.is_stopping() && claim.may_keep(core.limits.skip_bytes);
            head.write(&mut bytes, &core.common);
            write_body(&mut bytes, payload, asked.is_head, keep);
            if bytes.len() > SURE_TO_FIT {
                pool::leave(core, place);
            }
            (&**socket).write_all(&bytes).ok()?;
            Some((keep, registration))
        }
        Payload::Stream { content_type, run } => {
            pool::leave(core, place);
            claim.send_continue(socket).ok()?;
            let chunked = asked.minor == 1;
            let keep = asked.keep && chunked;
            head.write(&mut bytes, &core.common);
            reply::header(&mut bytes, "Content-Type", content_type);
            if chunked {
                reply::header(&mut bytes, "Transfer-Encoding", "chunked");
            }
            if !keep {
                reply::header(&mut bytes, "Connection", "close");
            }
            bytes.extend_from_slice(b"\r\n");
            // A reader may pause for as long as it likes; is_gone tells when it left.
            socket.set_write_timeout(None).ok()?;
            (&**socket).write_all(&bytes).ok()?;
            if asked.is_head {
                return Some((keep, registration));
            }
            drop(bytes);
            let mut out = Outgoing::new(socket.clone(), peer.clone(), chunked);
            let ran = catch_unwind(AssertUnwindSafe(|| run(&mut out)));
            let finished = match &ran {
                Ok(Ok(())) => out.finish().ok(),
                _ => None,
            };
            asked.sent(Some(out.sent()));
            match ran {
                Ok(Ok(())) => finished?,
                Ok(Err(cause)) => {
                    log::debug!("{}: stream ends early: {cause}", asked.line);
                    // Without the last chunk the peer knows that the stream is not whole.
                    socket.linger(LINGER, 64 * 1024);
                    return None;
                }
                Err(_) => {
                    log::error!("{}: the stream's writer panicked", asked.line);
                    socket.linger(LINGER, 64 * 1024);
                    return None;
                }
            }
            socket.set_write_timeout(Some(core.limits.stall_time)).ok()?;
            Some((keep, registration))
        }
        Payload::Hijack { .. } | Payload::Upgrade { .. } => {
            let (content_type, protocol, run) = match payload {
                Payload::Hijack { content_type, run } if asked.upgrade => {
                    (Some(content_type), Some("tcp"), run)
                }
                Payload::Hijack { run, .. } => (Some(RAW_STREAM), None, run),
                Payload::Upgrade { protocol, run } => (None, Some(protocol), run),
                _ => return None,
            };
            pool::leave(core, place);
            let Some((mut input, true)) = claim.settle(core.limits.skip_bytes, Instant::now() + SKIP) else {
                log::debug!("{}: the body before the upgrade was not read", asked.line);
                let (head, payload) =
                    Reply::refusal(413, "a request to upgrade has no such body").into_parts();
                head.write(&mut bytes, &core.common);
                write_body(&mut bytes, payload, asked.is_head, false);
                // The peer may be gone, which is as good an end.
                let _ = (&**socket).write_all(&bytes);
                socket.linger(LINGER, 64 * 1024);
                return None;
            };
            head.status = if protocol.is_some() { 101 } else { 200 };
            head.write(&mut bytes, &core.common);
            if let Some(content_type) = content_type {
                reply::header(&mut bytes, "Content-Type", content_type);
            }
            if let Some(protocol) = protocol {
                reply::header(&mut bytes, "Connection", "Upgrade");
                reply::header(&mut bytes, "Upgrade", protocol);
            }
            if asked.is_docker_py {
                // Long enough for its being read to be seen, whatever else is in it.
                reply::header(&mut bytes, "X-Head", HEAD_NOTE);
            }
            bytes.extend_from_slice(b"\r\n");
            (&**socket).write_all(&bytes).ok()?;
            if asked.is_docker_py && !socket.wait_until_read(HEAD_READ) {
                std::thread::sleep(HEAD_ALONE);
            }
            let early = input.take_unused();
            drop(input);
            asked.sent(None);
            let hijacked =
                Hijacked::server(socket.clone(), early, peer.clone(), Box::new(registration)).ok()?;
            if catch_unwind(AssertUnwindSafe(|| run(hijacked))).is_err() {
                log::error!("{}: the handler of an upgraded connection panicked", asked.line);
            }
            None
        }
    }
}

/// Splits a request's target into path and query; accepts the absolute form, and looks at no host.
fn split_target(target: &str) -> (&str, &str) {
    let path = match target.find("://") {
        Some(at) if !target.starts_with('/') => {
            let rest = &target[at + 3..];
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    path.split_once('?').unwrap_or((path, ""))
}
