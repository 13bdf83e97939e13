//! Memory that comes when its container runs here already: CRIU's page daemon asks for it on a socket, the sender has it.
//!
//! ```text
//!  criu lazy-pages ── relay ─▶ listen ── "pages" ──▶ the sender
//!        ▲                                              │
//!        └── relay ◀── answer ◀── carry ◀──── pieces ───┘      in the order of the questions
//! ```
//!
//! A line that breaks is no harm to what runs: whoever touches what has not come yet waits, until a new line
//! (`dewar migrate --resolve`) takes the questions up that have no answer. Nor is the end of this daemon: a process of its
//! own ([`relay`](crate::runtime::criu::relay)) keeps the questions, and asks the next daemon.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::wire::{self, Heard, Message, Receiver, Sender};
use crate::daemon::error::{Error, Result};
use crate::runtime::criu::asking::{self, Asked, Request};

/// Who still wants memory says so at once, and takes it at once: a page daemon that neither asks nor reads nor ends hangs,
/// and with it all that waits for memory. Nothing but an end helps then.
const STALL: Duration = Duration::from_secs(10);

/// Those whose memory has not all come, by the container's id.
static UNDER_WAY: Mutex<BTreeMap<String, Arc<Relay>>> = Mutex::new(BTreeMap::new());

/// Waits for what the sender says beside the memory.
pub type Hear<'a> = &'a mut (dyn FnMut() -> Result<Message> + Send);

/// How asking ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All of it is here, or nobody wants it any more.
    Whole,
    /// The container was ended: the rest could not come.
    Lost,
    /// The line broke; what asks waits for another one.
    Unanswered,
}

/// Between CRIU's page daemon and the sender.
pub struct Relay {
    /// Our end of the daemon's socket.
    criu: UnixStream,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Not answered yet; all of them have been asked on the line, if there is one.
    waiting: VecDeque<Request>,
    /// An answer is on its way to the page daemon.
    is_answering: bool,
    line: Option<Sender>,
    /// How many there were.
    lines: u64,
    end: Option<End>,
    /// When the last question came, or the last answer went.
    heard: Option<Instant>,
}

impl Relay {
    /// Makes the socket, and listens on it; gives the page daemon's end. `ended` runs on another thread when that has
    /// ended, before anybody learns it from [`wait`](Relay::wait).
    ///
    /// # Errors
    /// There is no socket or thread to be had.
    pub fn begin(id: &str, ended: impl FnOnce(End) + Send + 'static) -> Result<(Arc<Relay>, OwnedFd)> {
        let (criu, theirs) =
            UnixStream::pair().map_err(|cause| Error::system("make a socket for memory", cause))?;
        Relay::go_on(id, criu, ended).map(|relay| (relay, theirs.into()))
    }

    /// Listens on a socket that is there already, as [`begin`](Relay::begin) does on its own.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn go_on(id: &str, criu: UnixStream, ended: impl FnOnce(End) + Send + 'static) -> Result<Arc<Relay>> {
        let relay = Arc::new(Relay { criu, state: Mutex::default(), changed: Condvar::new() });
        let (listener, id) = (Arc::clone(&relay), id.to_owned());
        lock(&UNDER_WAY).insert(id.clone(), Arc::clone(&relay));
        let listen = move || {
            let end = listener.listen();
            ended(end);
            let mut all = lock(&UNDER_WAY);
            if all.get(&id).is_some_and(|one| Arc::ptr_eq(one, &listener)) {
                all.remove(&id);
            }
            drop(all);
            lock(&listener.state).end = Some(end);
            listener.changed.notify_all();
        };
        crate::daemon::spawn("migration-faults", listen)?;
        Ok(relay)
    }

    /// The one of a container whose memory has not all come; `None` if there is none, or not any more.
    pub fn of(id: &str) -> Option<Arc<Relay>> {
        lock(&UNDER_WAY).get(id).cloned()
    }

    fn listen(&self) -> End {
        loop {
            let request = match asking::next(&self.criu) {
                Ok(Some(Asked::Pages(request))) => request,
                Ok(Some(Asked::Whole)) => return End::Whole,
                Ok(None) => return End::Lost,
                Err(error) => {
                    log::error!("memory of a container that has moved: {error}");
                    let _ = self.criu.shutdown(std::net::Shutdown::Both);
                    return End::Lost;
                }
            };
            let mut state = lock(&self.state);
            state.waiting.push_back(request);
            state.heard = Some(Instant::now());
            if let Some(line) = &state.line {
                // Of one that broke the carrier learns, too.
                let _ = line.tell(&question(&request));
            }
        }
    }

    /// Runs `work` with memory coming over the line; that gets what the sender says beside it, and ends the line in any
    /// case: nothing can be said on it afterwards.
    ///
    /// # Errors
    /// Those of `work`, which the sender is told.
    pub fn beside<T>(
        &self,
        sender: &Sender,
        receiver: &mut Receiver,
        work: impl FnOnce(Hear<'_>) -> Result<T>,
    ) -> Result<T> {
        let number = {
            let mut state = lock(&self.state);
            // The last one's answer; it is cut off if that is never taken.
            while state.is_answering {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            for request in &state.waiting {
                sender.tell(&question(request))?;
            }
            state.line = Some(sender.clone());
            state.lines += 1;
            state.lines
        };
        std::thread::scope(|scope| {
            let (words, heard) = mpsc::channel::<Result<Message>>();
            let carry = move || {
                let error = self.carry(receiver, &words);
                let mut state = lock(&self.state);
                if state.lines == number {
                    state.line = None;
                }
                drop(state);
                self.changed.notify_all();
                let _ = words.send(Err(error));
            };
            let carrier = std::thread::Builder::new().name("migration-memory".to_owned());
            let result = match carrier.spawn_scoped(scope, carry) {
                Err(cause) => Err(Error::system("start thread \"migration-memory\"", cause)),
                Ok(_) => work(&mut move || {
                    heard.recv().unwrap_or_else(|_| Err(wire::strange("nothing, and ended the connection")))
                }),
            };
            if let Err(error) = &result {
                let _ = sender.tell(&Message::Failed { message: error.message.clone() });
            }
            sender.hang_up();
            result
        })
    }

    /// Brings the answers until the line ends; why it did.
    fn carry(&self, receiver: &mut Receiver, words: &mpsc::Sender<Result<Message>>) -> Error {
        let mut pages: Vec<u8> = Vec::new();
        loop {
            match receiver.next() {
                Ok(Heard::Message(message)) => drop(words.send(Ok(message))),
                Ok(Heard::Piece(piece)) => {
                    let front = lock(&self.state).waiting.front().copied();
                    let Some(request) = front else { return wire::strange("memory that nobody asked for") };
                    pages.extend(piece);
                    if pages.len() > request.bytes {
                        return wire::strange("more memory than was asked for");
                    }
                    if pages.len() == request.bytes {
                        {
                            let mut state = lock(&self.state);
                            state.waiting.pop_front();
                            (state.is_answering, state.heard) = (true, Some(Instant::now()));
                        }
                        // Whole or not at all: a line that breaks in between is no matter to CRIU. One that is gone
                        // is noticed where it asks.
                        let _ = asking::answer(&self.criu, &request, &pages);
                        let mut state = lock(&self.state);
                        (state.is_answering, state.heard) = (false, Some(Instant::now()));
                        drop(state);
                        self.changed.notify_all();
                        pages.clear();
                    }
                }
                Err(error) => return error,
            }
        }
    }

    /// Waits until there is no more to ask, or nobody to be asked. A page daemon that has come to wait for nothing, or
    /// does not take what it has asked for, is cut off, and its container has to end.
    pub fn wait(&self) -> End {
        let began = Instant::now();
        let mut state = lock(&self.state);
        while state.end.is_none() && state.line.is_some() {
            let quiet = state.heard.map_or(began, |heard| heard.max(began)).elapsed();
            if (state.waiting.is_empty() || state.is_answering) && quiet >= STALL {
                let does = if state.is_answering { "takes none" } else { "asks for no more" };
                log::error!("memory of a container that has moved: criu {does}, and does not end");
                let _ = self.criu.shutdown(std::net::Shutdown::Both);
                state.heard = Some(Instant::now());
            }
            let waited = self.changed.wait_timeout(state, STALL.saturating_sub(quiet).max(STALL / 10));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.end.unwrap_or(End::Unanswered)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn question(request: &Request) -> Message {
    Message::Pages { process: request.process, address: request.address, bytes: request.bytes as u64 }
}
