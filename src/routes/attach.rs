//! Clients on a container's streams: by a taken-over connection, or by WebSocket.

use std::io;
use std::sync::Arc;

use super::container::{stream_of, stream_type};
use super::pump::{self, End, Heard, Joint, Plain, Wire};
use crate::daemon::containers::attach::{self, Attached};
use crate::daemon::containers::backlog::{self, Backlog};
use crate::daemon::containers::{Container, logs};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::ApiVersion;
use crate::http::api::container::{AttachQuery, LogsQuery};
use crate::http::hijack::Hijacked;
use crate::http::reply::Reply;
use crate::http::request::Call;
use crate::http::{stdcopy, websocket};

/// The shim has its end of the streams before the client sees the head, so that a start that follows
/// loses nothing.
pub fn attach(engine: &Arc<Engine>, call: Call<AttachQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let joined = Joined::new(&container, &call.query)?;
    let content_type = stream_type(joined.is_terminal, call.raw.version);
    let engine = Arc::clone(engine);
    Ok(Reply::hijack(content_type, move |client| joined.talk(&engine, client, &mut Plain)))
}

/// Messages in place of frames; stdout and stderr are not told apart.
pub fn websocket(engine: &Arc<Engine>, call: Call<AttachQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let accept = websocket::accept(&call.raw.headers).map_err(|refused| match refused {
        websocket::Refused::Malformed(reason) => Error::invalid(reason),
        websocket::Refused::Foreign => Error::forbidden("WebSocket handshake of a page of another site"),
    })?;
    let since = |minor| call.raw.version >= ApiVersion { major: 1, minor };
    let mut query = call.query;
    if !since(42) {
        // Compat: older versions know no choice.
        (query.stdin, query.stdout, query.stderr) = (true, true, true);
    }
    let joined = Joined::new(&container, &query)?;
    let mut wire = Messages {
        kind: if since(28) { websocket::Kind::Binary } else { websocket::Kind::Text },
        frames: (!joined.is_terminal).then(stdcopy::Decoder::default),
        decoder: websocket::Decoder::default(),
    };
    let engine = Arc::clone(engine);
    let reply = Reply::upgrade("websocket", move |client| joined.talk(&engine, client, &mut wire));
    Ok(reply.header("Sec-WebSocket-Accept", accept))
}

/// A client about to talk.
struct Joined {
    container: Arc<Container>,
    is_terminal: bool,
    /// `None` when only the log is asked for.
    attached: Option<Attached>,
    replay: Option<logs::Replay>,
}

impl Joined {
    fn new(container: &Arc<Container>, query: &AttachQuery) -> Result<Joined> {
        let log = match query.logs {
            true => {
                let both = LogsQuery { stdout: query.stdout, stderr: query.stderr, ..LogsQuery::default() };
                Some(logs::request(container, &both)?)
            }
            false => None,
        };
        let attached = if query.stream { Some(attach::attach(container, query)?) } else { None };
        let replay = match log {
            Some(log) => {
                let end = attached.as_ref().and_then(|attached| attached.log);
                Some(logs::Replay::open(log, end).map_err(|cause| Error::system("read the log", cause))?)
            }
            None => None,
        };
        let is_terminal = container.record().config.tty;
        Ok(Joined { container: Arc::clone(container), is_terminal, attached, replay })
    }

    fn talk(mut self, engine: &Engine, client: Hijacked, wire: &mut dyn Wire) {
        let container = &self.container;
        let attributes = container.record().event_attributes();
        engine.events.publish("container", "attach", &container.id, attributes.clone());
        let mut replay = self.replay.take().map(|mut replay| move || piece(&mut replay, self.is_terminal));
        let joint = Joint {
            process: self.attached.as_ref().map(|attached| &attached.stream),
            wire,
            replay: replay.as_mut().map(|replay| replay as pump::Replay<'_>),
            backlog: Backlog::new(container.dir.clone(), backlog::Limits::default()),
        };
        let end = pump::pump(client, joint, || {});
        self.leave();
        let container = &self.container;
        if end == End::Client {
            engine.events.publish("container", "detach", &container.id, attributes);
        }
    }
}

impl Joined {
    fn leave(&mut self) {
        if self.attached.take().is_some() {
            attach::forget_gone(&self.container);
        }
    }
}

impl Drop for Joined {
    /// A client that is never talked to must leave no end of its own behind: the shim would take it for the end of
    /// the container's input.
    fn drop(&mut self) {
        self.leave();
    }
}

/// The next piece of a log as the shim would send it.
fn piece(replay: &mut logs::Replay, is_terminal: bool) -> Option<Vec<u8>> {
    let (source, text) = match replay.next() {
        Ok(next) => next?,
        Err(cause) => {
            ::log::warn!("read a log for an attached client: {cause}");
            return None;
        }
    };
    if is_terminal {
        return Some(text);
    }
    let mut frame = Vec::with_capacity(text.len() + stdcopy::HEADER_BYTES);
    // Writing to memory does not fail.
    let _ = stdcopy::write_frame(&mut frame, stream_of(source), &text);
    Some(frame)
}

/// A WebSocket client's messages.
struct Messages {
    kind: websocket::Kind,
    /// Takes the shim's frames apart; `None` on a terminal, which has none.
    frames: Option<stdcopy::Decoder>,
    decoder: websocket::Decoder,
}

impl Wire for Messages {
    fn encode(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        let Some(frames) = &mut self.frames else {
            websocket::encode(self.kind, bytes, out);
            return Ok(());
        };
        let mut payload = Vec::with_capacity(bytes.len());
        frames.feed(bytes, |_, piece| {
            payload.extend_from_slice(piece);
            Ok(())
        })?;
        if !payload.is_empty() {
            websocket::encode(self.kind, &payload, out);
        }
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8], input: &mut Vec<u8>, out: &mut Vec<u8>) -> Heard {
        if self.decoder.feed(bytes, input, out) { Heard::Some } else { Heard::Last }
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        websocket::close(out);
    }
}
