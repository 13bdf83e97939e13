//! The server: listeners, idle connections, workers, and stopping.
//!
//! ```text
//!            accept                    head or 10 ms of nothing
//!   poller ─────────> queue ──> worker ────────────────────────> poller (parked: a descriptor, no thread)
//!      ^ readable, or past its deadline │      │
//!      └────────────────────────────────┘      `─ stream, hijack, slow: the thread leaves the pool's count
//! ```
//!
//! - One thread polls: listeners, and connections that wait for a request. A connection costs a worker only
//!   while it has a request, or had one within the last 10 ms (a busy connection stays on its worker and
//!   never meets the poller).
//! - The pool grows when more connections are queued than workers are idle, up to [`Limits::workers`]; an
//!   operation that may last is not counted, so followers of logs cannot starve short calls.
//! - Every wait for a peer ends: heads, bodies and stalled answers by [`Limits`], streams when the peer goes
//!   (handlers wait with [`Peer::wait`](super::connection::Peer::wait)) or the server stops.
//!
//! Locks: parking, pool queue and the table of connections; each is a leaf, none is held across a call
//! that blocks.
//!
//! Not here: one request and its answer (`server::exchange`), the queue (`server::pool`), what is logged of a
//! request (`server::access`).

mod access;
mod exchange;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll};

use super::connection::{Input, SLICE, Stopping};
use super::middleware::Middleware;
use super::route::RouteTable;
use super::socket::Socket;
use super::tls::Acceptor;
use pool::Pool;

/// Bounds on what a peer can cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most bytes of a request's head; more is answered 431.
    pub head_bytes: usize,
    /// How long a head may take from its first byte; more is answered 408.
    pub head_time: Duration,
    /// How long a connection may wait for its next request.
    pub idle_time: Duration,
    /// How long a handler waits for the next bytes of an upload.
    pub body_idle: Duration,
    /// How long a peer may take nothing of a short answer.
    pub stall_time: Duration,
    /// The most bytes of a body nobody read that are skipped to keep the connection.
    pub skip_bytes: u64,
    /// The most short calls at once; more wait in a queue.
    pub workers: usize,
    /// The most connections at once; the longest idle one makes room, else a new one is refused with 503.
    pub connections: usize,
    /// The stack of each thread that serves requests.
    pub stack_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 64 * 1024,
            head_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(300),
            body_idle: Duration::from_secs(300),
            stall_time: Duration::from_secs(60),
            skip_bytes: 256 * 1024,
            workers: 256,
            connections: 4096,
            stack_bytes: 256 * 1024,
        }
    }
}

/// A bound and listening socket.
#[derive(Debug)]
pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
    Tls(TcpListener, Arc<Acceptor>),
}

impl Listener {
    fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Listener::Unix(listener) => listener.set_nonblocking(true),
            Listener::Tcp(listener) | Listener::Tls(listener, _) => listener.set_nonblocking(true),
        }
    }

    fn accept(&self) -> io::Result<Socket> {
        match self {
            Listener::Unix(listener) => Ok(Socket::Unix(listener.accept()?.0)),
            Listener::Tcp(listener) => Ok(Socket::Tcp(accept_tcp(listener)?)),
            Listener::Tls(listener, acceptor) => {
                Ok(Socket::Tls(Box::new(acceptor.accept(accept_tcp(listener)?)?)))
            }
        }
    }
}

fn accept_tcp(listener: &TcpListener) -> io::Result<TcpStream> {
    let stream = listener.accept()?.0;
    stream.set_nodelay(true)?;
    // A peer that lost power must not hold a follower's thread for ever.
    rustix::net::sockopt::set_socket_keepalive(&stream, true)?;
    Ok(stream)
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) | Listener::Tls(listener, _) => listener.as_fd(),
        }
    }
}

/// A server that is set up and not yet serving.
pub struct Server<S: 'static> {
    core: Arc<Core<S>>,
    listeners: Vec<Listener>,
}

/// What every thread of a server shares.
struct Core<S: 'static> {
    table: RouteTable<S>,
    middlewares: &'static [Middleware<S>],
    state: S,
    limits: Limits,
    /// The headers of every answer, as bytes.
    common: Vec<u8>,
    pool: Pool,
    parking: Parking,
    control: Arc<Control>,
}

/// What outlives the server's type: the part a [`Handle`] holds.
struct Control {
    stopping: Arc<Stopping>,
    wake: OwnedFd,
    active: Mutex<Active>,
    ended: Condvar,
    next_id: AtomicU64,
    /// Whether each request is told at level info.
    has_access_log: AtomicBool,
}

/// What a stopping server waits for.
#[derive(Default)]
struct Active {
    is_listening: bool,
    /// Every connection, to wait for and to cut.
    connections: HashMap<u64, Arc<Socket>>,
}

impl Active {
    fn is_over(&self) -> bool {
        !self.is_listening && self.connections.is_empty()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one of these locks, and each guards a value that is whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Control {
    fn wake(&self) {
        // EAGAIN means the counter is high already: the poller will wake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_set()
    }
}

/// A connection's entry among the active ones; dropping it ends the entry.
struct Registration {
    id: u64,
    control: Arc<Control>,
}

impl fmt::Debug for Registration {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Registration({})", self.id)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut active = lock(&self.control.active);
        active.connections.remove(&self.id);
        if active.is_over() {
            self.control.ended.notify_all();
        }
    }
}

/// A connection between requests.
#[derive(Debug)]
struct Connection {
    input: Input,
    registration: Registration,
    /// When the first bytes of an unfinished head were there.
    head_since: Option<Instant>,
    /// Whether the poller knows the descriptor.
    is_registered: bool,
}

/// Connections that wait for a request without a thread.
struct Parking {
    epoll: OwnedFd,
    state: Mutex<Parked>,
}

#[derive(Default)]
struct Parked {
    connections: HashMap<u64, (Connection, Instant)>,
    /// When the poller will look at deadlines next.
    next_scan: Option<Instant>,
    is_closed: bool,
}

/// Epoll's name for the wake-up counter; listeners follow downwards, connections count up from 1.
const WAKE: u64 = u64::MAX;

/// Stops a server, from any thread.
#[derive(Clone)]
pub struct Handle {
    control: Arc<Control>,
}

impl Handle {
    /// Stops accepting, lets running requests finish for up to `deadline`, then cuts the rest.
    ///
    /// Followers end at once, because [`Peer::wait`](super::connection::Peer::wait) says so from now on.
    /// Blocks until the listeners are closed and every connection has ended, `deadline` and one second
    /// more at most; returns how many connections still had not ended.
    pub fn stop(&self, deadline: Duration) -> usize {
        self.control.stopping.set();
        self.control.wake();
        let wait = |time: Duration| {
            let active = lock(&self.control.active);
            let (active, _) = self
                .control
                .ended
                .wait_timeout_while(active, time, |active| !active.is_over())
                .unwrap_or_else(PoisonError::into_inner);
            active.connections.values().cloned().collect::<Vec<_>>()
        };
        let left = wait(deadline);
        if left.is_empty() {
            return 0;
        }
        log::warn!("stop serving: cut {} connections that did not end in {deadline:?}", left.len());
        left.iter().for_each(|socket| socket.shutdown(Shutdown::Both));
        drop(left);
        wait(Duration::from_secs(1)).len()
    }

    /// Whether each request is told at level info, or at level debug as from the start.
    pub fn set_access_log(&self, on: bool) {
        self.control.has_access_log.store(on, Ordering::Relaxed);
    }

    /// How many connections there are, idle ones included.
    #[cfg(test)]
    pub fn connections(&self) -> usize {
        lock(&self.control.active).connections.len()
    }
}

impl<S: Send + Sync + 'static> Server<S> {
    /// Prepares to serve `table` on `listeners`; requests pass `middlewares` in their order.
    pub fn new(
        listeners: Vec<Listener>,
        table: RouteTable<S>,
        middlewares: &'static [Middleware<S>],
        state: S,
        limits: Limits,
    ) -> io::Result<Server<S>> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        for listener in &listeners {
            listener.set_nonblocking()?;
        }
        let mut common = Vec::new();
        for (name, value) in middlewares.iter().flat_map(|middleware| (middleware.headers)()) {
            super::reply::header(&mut common, name, &value);
        }
        let control = Arc::new(Control {
            stopping: Arc::new(Stopping::new()?),
            wake,
            active: Mutex::default(),
            ended: Condvar::new(),
            next_id: AtomicU64::new(1),
            has_access_log: AtomicBool::new(false),
        });
        let parking = Parking { epoll, state: Mutex::default() };
        let pool = Pool::new(limits.workers, limits.stack_bytes);
        let core = Core { table, middlewares, state, limits, common, pool, parking, control };
        Ok(Server { core: Arc::new(core), listeners })
    }

    /// A handle to stop the server with.
    pub fn handle(&self) -> Handle {
        Handle { control: self.core.control.clone() }
    }

    /// Serves on a thread of its own.
    pub fn start(self) -> io::Result<Handle> {
        let handle = self.handle();
        lock(&handle.control.active).is_listening = true;
        let poller = std::thread::Builder::new().name("http-poller".to_owned());
        let started = poller.spawn(move || {
            if let Err(cause) = self.serve() {
                log::error!("serve the API: {cause}");
            }
        });
        if let Err(cause) = started {
            lock(&handle.control.active).is_listening = false;
            return Err(cause);
        }
        Ok(handle)
    }

    /// Serves until [`Handle::stop`]; fails only when the kernel refuses to poll.
    pub fn serve(self) -> io::Result<()> {
        let core = self.core;
        lock(&core.control.active).is_listening = true;
        let mut poller = Poller { core: &core, listeners: self.listeners, paused_until: None };
        let result = poller.run();
        drop(poller);
        core.control.stopping.set();
        lock(&core.control.active).is_listening = false;
        core.control.ended.notify_all();
        let idle = {
            let mut parked = lock(&core.parking.state);
            parked.is_closed = true;
            std::mem::take(&mut parked.connections)
        };
        // Dropped without the lock: each takes the lock of the active ones.
        drop(idle);
        core.pool.close();
        result
    }
}

impl<S: Send + Sync + 'static> Core<S> {
    /// Leaves a connection to the poller until it is readable.
    fn park(&self, mut connection: Connection) {
        let now = Instant::now();
        let is_idle = connection.input.unused().is_empty() && !connection.input.socket().is_handshaking();
        let deadline = if is_idle {
            connection.head_since = None;
            now + self.limits.idle_time
        } else {
            *connection.head_since.get_or_insert(now) + self.limits.head_time
        };
        let socket = connection.input.socket().clone();
        let (id, is_registered) = (connection.registration.id, connection.is_registered);
        connection.is_registered = true;
        let mut parked = lock(&self.parking.state);
        if parked.is_closed {
            drop(parked);
            return;
        }
        parked.connections.insert(id, (connection, deadline));
        // One event, then silence until it is parked again.
        let events = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ONESHOT;
        let data = epoll::EventData::new_u64(id);
        let epoll = &self.parking.epoll;
        let result = if is_registered {
            epoll::modify(epoll, &*socket, data, events)
        } else {
            epoll::add(epoll, &*socket, data, events)
        };
        let dropped = match result {
            Ok(()) => None,
            Err(_) => parked.connections.remove(&id),
        };
        let is_earlier = parked.next_scan.is_none_or(|scan| deadline < scan);
        if is_earlier {
            parked.next_scan = Some(deadline);
        }
        drop(parked);
        if is_earlier {
            self.control.wake();
        }
        if dropped.is_some() {
            log::debug!("park a connection: the kernel refuses to watch it; closed");
        }
    }

    /// Closes the idle connection that would expire first; false if there is none.
    fn evict(&self) -> bool {
        let mut parked = lock(&self.parking.state);
        // Who has not even finished a handshake is no better than an idle one.
        let is_idle = |connection: &Connection| {
            connection.head_since.is_none() || connection.input.socket().is_handshaking()
        };
        let idle = parked.connections.iter().filter(|(_, (connection, _))| is_idle(connection));
        let first = idle.min_by_key(|(_, (_, deadline))| *deadline).map(|(id, _)| *id);
        let evicted = first.and_then(|id| parked.connections.remove(&id));
        drop(parked);
        evicted.is_some()
    }
}

/// The thread that waits for everything that is not a request in progress.
struct Poller<'a, S: 'static> {
    core: &'a Arc<Core<S>>,
    listeners: Vec<Listener>,
    /// Accepting rests until then, for lack of descriptors or memory.
    paused_until: Option<Instant>,
}

impl<S: Send + Sync + 'static> Poller<'_, S> {
    fn watch(&self, add: bool, events: epoll::EventFlags) -> io::Result<()> {
        let epoll = &self.core.parking.epoll;
        for (index, listener) in self.listeners.iter().enumerate() {
            let data = epoll::EventData::new_u64(WAKE - 1 - index as u64);
            if add {
                epoll::add(epoll, listener, data, events)?;
            } else {
                epoll::modify(epoll, listener, data, events)?;
            }
        }
        Ok(())
    }

    fn run(&mut self) -> io::Result<()> {
        self.watch(true, epoll::EventFlags::IN)?;
        let mut events = Vec::with_capacity(64);
        while !self.core.control.is_stopping() {
            let timeout = self.expire().map(|left| Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            events.clear();
            match epoll::wait(
                &self.core.parking.epoll,
                rustix::buffer::spare_capacity(&mut events),
                timeout.as_ref(),
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if self.core.control.is_stopping() {
                break;
            }
            if self.paused_until.is_some_and(|until| until <= Instant::now()) {
                self.paused_until = None;
                self.watch(false, epoll::EventFlags::IN)?;
            }
            for event in &events {
                match event.data.u64() {
                    WAKE => {
                        let _ = rustix::io::read(&self.core.control.wake, &mut [0_u8; 8]);
                    }
                    token if WAKE - token <= self.listeners.len() as u64 => {
                        self.accept((WAKE - 1 - token) as usize)?;
                    }
                    id => {
                        let ready = lock(&self.core.parking.state).connections.remove(&id);
                        if let Some((connection, _)) = ready {
                            pool::submit(self.core, connection);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Ends what has waited too long; returns how long the poller may sleep, `None` for ever.
    fn expire(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let mut expired = Vec::new();
        let mut parked = lock(&self.core.parking.state);
        if parked.next_scan.is_some_and(|scan| scan <= now) {
            let late = |(_, deadline): &mut (Connection, Instant)| *deadline <= now;
            expired = parked.connections.extract_if(|_, entry| late(entry)).collect();
            parked.next_scan = parked.connections.values().map(|(_, deadline)| *deadline).min();
        }
        let next_scan = parked.next_scan;
        drop(parked);
        for (_, (connection, _)) in expired {
            if connection.head_since.is_some() {
                exchange::refuse_now(&connection, 408, "request head does not arrive in time");
            }
        }
        // A worker that could not be started is tried again, should no other take its place.
        let retry = pool::staff(self.core).then(|| now + Duration::from_millis(100));
        let next = [next_scan, self.paused_until, retry].into_iter().flatten().min()?;
        // A scan costs a walk over all connections: a second apart is precise enough.
        let least = if self.paused_until.is_some() { Duration::ZERO } else { Duration::from_millis(100) };
        Some(next.saturating_duration_since(now).max(least))
    }

    fn accept(&mut self, index: usize) -> io::Result<()> {
        // Bounded, so that a flood of connections cannot keep the parked ones from being seen.
        for _ in 0..64 {
            match self.listeners[index].accept() {
                Ok(socket) => self.admit(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    // accept(2): errors of the one connection, already gone, are passed on like any other.
                    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
                    if !error.raw_os_error().is_some_and(|errno| exhausted.contains(&errno)) {
                        log::debug!("accept a connection: {error}");
                        continue;
                    }
                    let made_room = self.core.evict();
                    log::warn!(
                        "accept a connection: {error}; trying again in 50 ms, idle one closed: {made_room}"
                    );
                    self.paused_until = Some(Instant::now() + Duration::from_millis(50));
                    return self.watch(false, epoll::EventFlags::empty());
                }
            }
        }
        Ok(())
    }

    fn admit(&self, socket: Socket) {
        let core = self.core;
        let prepared = socket
            .set_read_timeout(Some(SLICE))
            .and_then(|()| socket.set_write_timeout(Some(core.limits.stall_time)));
        if let Err(cause) = prepared {
            log::debug!("prepare a connection: {cause}");
            return;
        }
        let socket = Arc::new(socket);
        let id = core.control.next_id.fetch_add(1, Ordering::Relaxed);
        let is_full =
            lock(&core.control.active).connections.len() >= core.limits.connections && !core.evict();
        lock(&core.control.active).connections.insert(id, socket.clone());
        let registration = Registration { id, control: core.control.clone() };
        let connection =
            Connection { input: Input::new(socket), registration, head_since: None, is_registered: false };
        if is_full {
            exchange::refuse_now(&connection, 503, "too many connections");
            return;
        }
        if connection.input.socket().is_handshaking() {
            // Its first bytes are a round trip away: no worker need wait for them.
            return core.park(connection);
        }
        pool::submit(core, connection);
    }
}
