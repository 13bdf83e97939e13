//! A checkpoint that goes to its client while it is made, and is no file on this host.
//!
//! ```text
//!  client                 daemon                                             shim, criu
//!    |                      | --- dump, gate ---------------------------------> |   images, archives: pipes
//!    | <-- d: archive ----  | <-- pieces of them -----------------------------  |
//!    |                      | <-- ready: all stands still, all is written ----  |
//!    | <-- m: end --------  |   the archive's end, with all digests             |
//!    | --- m: accepted -->  |   the client has it                               |
//!    |                      | --- go: it ends --------------------------------> |
//!    | <-- m: done -------  |                                                   |
//! ```
//!
//! Until the client has accepted it, whatever breaks lets the container run on: a client that is gone or takes nothing for
//! [`PATIENCE`], a CRIU that fails, this daemon's end. One that is to run on anyway does so as soon as its last byte has
//! been read, and nobody waits for an answer.
//!
//! Only what says nothing of the container's memory is on disk meanwhile, in [`SCRATCH`]: CRIU's log, sockets, and the
//! names of mounts and pipes.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::archive::pieces::Writer;
use super::manifest::{Options, Purpose, UnderWay};
use super::{check, check_runtime, explained, log_bytes, logs, volumes};
use crate::daemon::containers::container::Container;
use crate::daemon::containers::lifecycle;
use crate::daemon::containers::migrate::wire::Connection;
use crate::daemon::containers::network;
use crate::daemon::containers::rootfs;
use crate::daemon::containers::state::Action;
use crate::daemon::containers::unfinished;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Compression;
use crate::daemon::metrics;
use crate::daemon::names::CheckpointId;
use crate::daemon::state_dir;
use crate::http::api::checkpoint::CheckpointCreate;
use crate::http::api::checkpoint_stream::{CheckpointStream, StreamWord};
use crate::http::api::migrate::{self, DATA, HEADER_BYTES, MESSAGE};
use crate::runtime::criu::DUMP_LOG;
use crate::runtime::criu::stream::capture::{Capture, Captured};
use crate::runtime::shim::gate::{Decision, Keeper};
use crate::runtime::{self, Cause, Dump, DumpVolume, Sandbox};

/// In the container's directory.
pub const SCRATCH: &str = "stream";
/// How long a client may take nothing, or not answer, while the container stands still.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a frame.
const FRAME_BYTES: usize = 256 << 10;
/// What is said in place of the dump's own failure.
const NOT_FROZEN: &str = "it could not be frozen";
/// A client's words are short.
const MOST_WORD: usize = 4096;

/// Refuses what cannot be streamed, while that is an answer's status.
///
/// # Errors
/// Conflict when it does not run or has a terminal; InvalidParameter, NotImplemented.
pub fn check(engine: &Engine, container: &Container, request: &CheckpointStream) -> Result<()> {
    CheckpointId::parse(&request.checkpoint_id)?;
    compression(request)?;
    let sandbox = lifecycle::sandbox(container, Action::Checkpoint)?;
    let record = container.record();
    let attempt = || format!("Cannot checkpoint container {}", record.name);
    check_runtime(engine, &record).map_err(|error| error.during(attempt()))?;
    if record.config.tty {
        return Err(Error::conflict(format!(
            "{}: it has a terminal, which criu cannot stream: take an ordinary checkpoint, and export that",
            attempt()
        )));
    }
    match (request.pre_check, request.exit) {
        (true, _) => check::refuse(engine, container, &sandbox),
        (false, true) => check::refuse_traps(&sandbox),
        (false, false) => Ok(()),
    }
    .map_err(|error| error.during(attempt()))
}

fn compression(request: &CheckpointStream) -> Result<Compression> {
    Compression::parse(&request.compress).ok_or_else(|| {
        Error::invalid(format!("compression {:?}: there are zstd, gzip and none", request.compress))
    })
}

/// Freezes a running container into the connection. Blocks until it is decided what becomes of it, which is the last word
/// on the connection.
pub fn serve(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &CheckpointStream,
    client: Connection,
) {
    let Connection { mut input, output, hang_up } = client;
    let mut frames = Frames { output, blocked: Arc::new(Blocked::default()) };
    let watched = watch(Arc::clone(&frames.blocked), hang_up);
    let made = watched.and_then(|()| stream(engine, container, request, (&mut *input, &mut frames)));
    let word = match made {
        Ok(()) => StreamWord::Done {},
        Err(error) => {
            let error = match frames.blocked.is_late.load(Ordering::Relaxed) {
                true => Error::conflict(format!("its client kept it waiting for {} s", PATIENCE.as_secs())),
                false => error,
            };
            let error = error.during(format!("Cannot checkpoint container {}", container.name()));
            log::warn!("{error}");
            StreamWord::Failed { message: error.message }
        }
    };
    // A client that is gone need not know.
    let _ = frames.say(&word);
    frames.blocked.is_over.store(true, Ordering::Relaxed);
}

/// Since when the client keeps us waiting.
struct Blocked {
    began: Instant,
    /// In milliseconds since `began`, counted from 1.
    since: AtomicU64,
    is_over: AtomicBool,
    /// It was hung up on.
    is_late: AtomicBool,
}

impl Default for Blocked {
    fn default() -> Blocked {
        Blocked {
            began: Instant::now(),
            since: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
        }
    }
}

impl Blocked {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }

    /// Does what waits for the client.
    fn during<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.since.store(self.now(), Ordering::Relaxed);
        let result = wait();
        self.since.store(0, Ordering::Relaxed);
        result
    }
}

/// Hangs up on a client that keeps us waiting for too long.
fn watch(blocked: Arc<Blocked>, hang_up: Box<dyn Fn() + Send + Sync>) -> Result<()> {
    const PACE: Duration = Duration::from_millis(500);
    let patience = u64::try_from(PATIENCE.as_millis()).unwrap_or(u64::MAX);
    crate::daemon::spawn("checkpoint-watch", move || {
        while !blocked.is_over.load(Ordering::Relaxed) {
            std::thread::park_timeout(PACE);
            let since = blocked.since.load(Ordering::Relaxed);
            if since != 0 && blocked.now().saturating_sub(since) > patience {
                blocked.is_late.store(true, Ordering::Relaxed);
                return hang_up();
            }
        }
    })
}

/// The way to the client.
struct Frames {
    output: Box<dyn Write + Send>,
    blocked: Arc<Blocked>,
}

impl Frames {
    fn frame(&mut self, kind: u8, content: &[u8]) -> io::Result<()> {
        let Frames { output, blocked } = self;
        blocked.during(|| {
            output.write_all(&migrate::header(kind, content.len()))?;
            output.write_all(content)
        })
    }

    fn say(&mut self, word: &StreamWord) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        self.frame(MESSAGE, &text)
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME_BYTES);
        self.frame(DATA, &bytes[..count])?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether the client says that it has everything.
fn is_accepted(input: &mut dyn Read) -> io::Result<bool> {
    let mut header = [0; HEADER_BYTES];
    input.read_exact(&mut header)?;
    let Some((MESSAGE, length)) = migrate::parse(header).filter(|(_, length)| *length <= MOST_WORD) else {
        return Ok(false);
    };
    let mut text = vec![0; length];
    input.read_exact(&mut text)?;
    Ok(matches!(serde_json::from_slice(&text), Ok(StreamWord::Accepted {})))
}

fn stream(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &CheckpointStream,
    (input, frames): (&mut dyn Read, &mut Frames),
) -> Result<()> {
    let compression = compression(request)?;
    let id = CheckpointId::parse(&request.checkpoint_id)?;
    let _action = container.begin();
    let began = Instant::now();
    let sandbox = lifecycle::sandbox(container, Action::Checkpoint)?;
    unfinished::finish_dump(container)?;
    let record = container.record();
    let wanted = CheckpointCreate {
        no_volumes: request.no_volumes,
        skip_volumes: request.skip_volumes.clone(),
        ..CheckpointCreate::default()
    };
    let (saved, parts): (Vec<_>, Vec<_>) = volumes::to_save(engine, &record, &wanted)?
        .into_iter()
        .map(|(saved, from)| (saved.clone(), DumpVolume { from, file: saved.file }))
        .unzip();
    let scratch = container.dir.join(SCRATCH);
    // Left by a daemon that died in the middle.
    state_dir::remove_tree(&scratch)?;
    let work = || -> Result<()> {
        state_dir::make_dir(&scratch, 0o700)?;
        state_dir::make_dir(&scratch.join("images"), 0o700)?;
        let manifest = UnderWay {
            dir: scratch.clone(),
            name: id.to_string(),
            options: Options { leave_running: !request.exit, tcp_close: request.tcp_close, compress: false },
            criu: engine.criu().as_ref().map_or_else(|_| String::new(), |info| info.version.clone()),
            volumes: saved,
            log_bytes: log_bytes(container),
            purpose: Purpose::Asked,
        }
        .describe(&record, BTreeMap::new());
        let dump = Dump {
            dir: scratch.clone(),
            leave_running: !request.exit,
            tcp_close: request.tcp_close,
            volumes: parts,
            streamed: true,
            ..Dump::default()
        };
        if request.exit {
            rootfs::hold(container, &record);
        }
        let freezing = Freezing { container, sandbox: &sandbox, dump: &dump };
        let send = |capture: Capture, over: &OwnedFd, ready: &dyn Fn() -> bool, let_go: &dyn Fn()| {
            compression
                .write(&mut *frames, |out| freezing.send(capture, over, ready, Writer::new(out, manifest)?))
                .map_err(|cause| Error::system("stream it", cause))?;
            // All of it has been read.
            if !request.exit {
                let_go();
            }
            frames.say(&StreamWord::End {}).map_err(|cause| Error::system("send its end", cause))?;
            if !request.exit {
                return Ok(());
            }
            match frames.blocked.during(|| is_accepted(input)) {
                Ok(true) => Ok(()),
                _ => Err(Error::conflict("its client did not say that it has it")),
            }
        };
        let frozen = freezing.run(|| network::hold(engine, &record), send);
        if frozen.is_err() || !request.exit {
            network::release(engine, &record);
        }
        frozen.map_err(|failure| match failure {
            Failure::Ours(error) => error,
            Failure::Dump(cause) => {
                let at = logs::place(&container.dir, "freeze");
                explained(engine, logs::keep(cause, &scratch.join(DUMP_LOG), &at))
            }
        })
    };
    let made = work();
    if let Err(error) = state_dir::remove_tree(&scratch) {
        // The next one tries again.
        log::warn!("{error}");
    }
    made?;
    engine.metrics.done(metrics::Action::Checkpoint, began);
    let mut attributes = record.event_attributes();
    attributes.insert("checkpoint".to_owned(), id.to_string());
    engine.events.publish("container", "checkpoint", &container.id, attributes);
    if request.exit {
        container.wait_until(Some(Duration::from_secs(10)), |inner| !inner.record.state.is_alive());
    }
    Ok(())
}

/// Why it runs on.
enum Failure {
    Ours(Error),
    Dump(runtime::Error),
}

/// A container on its way into a stream.
struct Freezing<'a> {
    container: &'a Container,
    sandbox: &'a Sandbox,
    dump: &'a Dump,
}

impl Freezing<'_> {
    /// Freezes it, has it sent, and decides.
    ///
    /// # Errors
    /// It runs on.
    fn run(
        &self,
        hold: impl FnMut() + Send,
        send: impl FnOnce(Capture, &OwnedFd, &dyn Fn() -> bool, &dyn Fn()) -> Result<()>,
    ) -> std::result::Result<(), Failure> {
        let system = |attempt: &str, cause: io::Error| Failure::Ours(Error::system(attempt, cause));
        let capture = Capture::listen(&self.dump.dir).map_err(Failure::Dump)?;
        let (keeper, gate) = Keeper::pair().map_err(|cause| system("make a gate", cause))?;
        let (over, ends) = io::pipe().map_err(|cause| system("make a pipe", cause))?;
        let over = OwnedFd::from(over);
        let (is_ready, is_free) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // First: without it nobody would answer a dump.
            let wait = || {
                // Dropped when it is known, or when this panics: whoever polls the other end goes on.
                let _ends = ends;
                is_ready.store(keeper.is_ready(hold), Ordering::SeqCst);
            };
            std::thread::Builder::new()
                .name("checkpoint-gate".to_owned())
                .spawn_scoped(scope, wait)
                .map_err(|cause| system("start thread \"checkpoint-gate\"", cause))?;
            let verdict = self.dump.dir.join("verdict");
            let dump = || self.sandbox.hand_over(self.dump.clone(), gate, verdict);
            let dump = std::thread::Builder::new()
                .name("checkpoint-dump".to_owned())
                .spawn_scoped(scope, dump)
                .map_err(|cause| system("start thread \"checkpoint-dump\"", cause))?;
            let let_go = || {
                is_free.store(true, Ordering::SeqCst);
                keeper.decide(Decision::No);
            };
            let sent = send(capture, &over, &|| is_ready.load(Ordering::SeqCst), &let_go);
            if !is_free.load(Ordering::SeqCst) {
                keeper.decide(if sent.is_ok() { Decision::Go } else { Decision::No });
            }
            let dumped = dump.join().unwrap_or_else(|_| {
                Err(runtime::Error {
                    op: "freeze".into(),
                    object: "container".into(),
                    cause: Cause::Refused("its thread panicked".into()),
                })
            });
            match (sent, dumped) {
                (Ok(()), Ok(())) => Ok(()),
                (Ok(()), Err(cause)) => Err(Failure::Dump(cause)),
                // A dump that failed by itself says more than that there was nothing to send.
                (Err(error), Err(cause)) if error.message.contains(NOT_FROZEN) => Err(Failure::Dump(cause)),
                (Err(error), _) => Err(Failure::Ours(error)),
            }
        })
    }

    /// Writes all of it but the end of the compressed stream.
    fn send<W: Write>(
        &self,
        capture: Capture,
        over: &OwnedFd,
        is_ready: &dyn Fn() -> bool,
        mut archive: Writer<W>,
    ) -> io::Result<()> {
        let captured = capture.run(over, &mut |captured| {
            let (name, written) = match captured {
                Captured::Piece(name, bytes) => (name, archive.piece(name, bytes)),
                Captured::End(name) => (name, archive.piece(name, b"")),
            };
            written.map_err(|cause| runtime::Error {
                op: "send".into(),
                object: name.to_owned(),
                cause: Cause::Io(cause),
            })
        });
        captured.map_err(io::Error::other)?;
        if !is_ready() {
            return Err(io::Error::other(NOT_FROZEN));
        }
        for name in ["descriptors.json", "mounts.json", DUMP_LOG] {
            match fs::read(self.dump.dir.join(name)) {
                Ok(bytes) => archive.piece(name, &bytes)?,
                Err(cause) if cause.kind() == io::ErrorKind::NotFound && name == DUMP_LOG => {}
                Err(cause) => return Err(cause),
            }
        }
        log::debug!("container {:?}: all of its checkpoint has been read", self.container.name());
        archive.finish()
    }
}
