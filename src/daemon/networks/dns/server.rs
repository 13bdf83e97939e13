//! The sockets of all containers' name servers, and the queries under way to somebody else.
//!
//! One thread polls them all. Everything is behind one lock, which the thread has while it deals with what has
//! come, and requests have for a map's insertion: nothing that is done under it waits.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};

use super::answer::{Verdict, judge};
use super::forward::{Asker, Query};
use super::message::{self, Question, STREAM_LIMIT};
use super::namespace::Home;
use super::stream::{Stream, is_later};
use super::zones::{View, Zones};
use crate::daemon::bell::Bell;
use crate::daemon::networks::resolv_conf::Watched;

/// Datagrams taken from one socket before the others have their turn.
const AT_A_TIME: usize = 32;
/// Connections a container may have open.
const MOST_STREAMS: usize = 32;
/// How long a connection without a question stays.
const IDLE: Duration = Duration::from_secs(10);
/// Queries under way to somebody else, of one container and of all: each has a descriptor.
const MOST_FORWARDED: (usize, usize) = (128, 512);

/// What an event is about: the lowest bits of its number. The others say which.
pub mod kind {
    pub const DATAGRAMS: u64 = 0;
    pub const LISTENER: u64 = 1;
    pub const STREAM: u64 = 2;
    pub const QUERY: u64 = 3;
    pub const ALL: u64 = 3;
    /// The server's own bell.
    pub const BELL: u64 = u64::MAX;
}

/// What threads share.
#[derive(Debug)]
pub struct Server {
    state: Mutex<State>,
    /// Made for the first container.
    poll: OnceLock<Poll>,
}

#[derive(Debug)]
struct Poll {
    epoll: OwnedFd,
    /// Wakes the thread.
    bell: Bell,
}

/// A container's name server.
#[derive(Debug)]
pub struct Served {
    /// Where its namespace is bound.
    pub netns: PathBuf,
    pub view: View,
    datagrams: UdpSocket,
    listener: TcpListener,
}

/// A client's connection.
#[derive(Debug)]
struct Client {
    served: u64,
    stream: Stream,
    /// Questions of it under way to somebody else.
    waiting: usize,
    expires: Instant,
}

/// See [`Server`].
#[derive(Debug)]
pub struct State {
    pub zones: Zones,
    pub served: HashMap<u64, Served>,
    by_container: HashMap<String, u64>,
    clients: HashMap<u64, Client>,
    pub queries: HashMap<u64, Query>,
    /// The number last given.
    last: u64,
    /// Counts answers, so that several addresses take turns.
    turn: usize,
    pub host: Watched,
    is_running: bool,
    is_over: bool,
}

/// What the polling thread has for itself.
pub struct Tools<'a> {
    pub poll: &'a OwnedFd,
    pub home: &'a Home,
    pub buffer: &'a mut [u8],
}

impl Server {
    pub fn new(resolv_conf: PathBuf) -> Server {
        let state = State {
            zones: Zones::default(),
            served: HashMap::new(),
            by_container: HashMap::new(),
            clients: HashMap::new(),
            queries: HashMap::new(),
            last: 0,
            turn: 0,
            host: Watched::new(resolv_conf),
            is_running: false,
            is_over: false,
        };
        Server { state: Mutex::new(state), poll: OnceLock::new() }
    }

    fn poll(&self) -> io::Result<&Poll> {
        if let Some(poll) = self.poll.get() {
            return Ok(poll);
        }
        let poll = Poll {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            bell: Bell::new().map_err(io::Error::other)?,
        };
        epoll::add(&poll.epoll, &poll.bell, EventData::new_u64(kind::BELL), EventFlags::IN)?;
        // Of two that are made at once, one is used.
        Ok(self.poll.get_or_init(|| poll))
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        // A panic loses a query; the maps are whole between any two of their operations.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to serve a container with sockets of its namespace, which must not block. Says whether somebody
    /// has yet to call [`run`](Server::run).
    ///
    /// # Errors
    /// `EMFILE`; `ENOSPC` from epoll.
    pub fn add(
        &self,
        container: &str,
        netns: PathBuf,
        view: View,
        sockets: (UdpSocket, TcpListener),
    ) -> io::Result<bool> {
        let poll = self.poll()?;
        let mut state = self.lock();
        state.forget(container);
        let number = state.number();
        let (datagrams, listener) = sockets;
        let data = |kind| EventData::new_u64(number << 2 | kind);
        epoll::add(&poll.epoll, &datagrams, data(kind::DATAGRAMS), EventFlags::IN)?;
        epoll::add(&poll.epoll, &listener, data(kind::LISTENER), EventFlags::IN)?;
        state.by_container.insert(container.to_owned(), number);
        state.served.insert(number, Served { netns, view, datagrams, listener });
        Ok(!std::mem::replace(&mut state.is_running, true))
    }

    /// Nobody polls, though somebody was asked to.
    pub fn is_not_running(&self) {
        self.lock().is_running = false;
    }

    /// Ends the thread that polls.
    pub fn end(&self) {
        self.lock().is_over = true;
        if let Some(poll) = self.poll.get() {
            poll.bell.ring();
        }
    }

    /// Serves until [`end`](Server::end).
    ///
    /// # Errors
    /// Those of epoll itself.
    pub fn run(&self) -> io::Result<()> {
        let Poll { epoll, bell } = self.poll()?;
        let home = Home::of_this_thread()?;
        let mut buffer = vec![0; STREAM_LIMIT];
        let mut tools = Tools { poll: epoll, home: &home, buffer: &mut buffer };
        let mut events = Vec::with_capacity(64);
        let mut patience = None;
        loop {
            let timeout = patience.and_then(|patience: Duration| patience.try_into().ok());
            match epoll::wait(epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut state = self.lock();
            if state.is_over {
                return Ok(());
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    kind::BELL => bell.silence(),
                    number => state.handle(number, &mut tools),
                }
            }
            patience = state.expire(&mut tools);
        }
    }
}

impl State {
    /// A number that nothing else has or had.
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub fn change(&mut self, container: &str, view: View) {
        if let Some(served) = self.by_container.get(container).and_then(|number| self.served.get_mut(number))
        {
            served.view = view;
        }
    }

    /// Closes everything that a container has: its namespace can go.
    pub fn forget(&mut self, container: &str) {
        let Some(number) = self.by_container.remove(container) else { return };
        self.served.remove(&number);
        self.clients.retain(|_, client| client.served != number);
        self.queries.retain(|_, query| query.served != number);
    }

    fn handle(&mut self, event: u64, tools: &mut Tools<'_>) {
        let number = event >> 2;
        match event & kind::ALL {
            kind::DATAGRAMS => self.receive(number, tools),
            kind::LISTENER => self.accept(number, tools),
            kind::STREAM => self.converse(number, tools),
            _ => self.hear(number, tools),
        }
    }

    fn receive(&mut self, number: u64, tools: &mut Tools<'_>) {
        for _ in 0..AT_A_TIME {
            let Some(served) = self.served.get(&number) else { return };
            let (length, from) = match served.datagrams.recv_from(tools.buffer) {
                Ok(received) => received,
                Err(error) if is_later(&error) => return,
                // What a client's closed socket said of an answer to it.
                Err(_) => continue,
            };
            let turn = self.turn;
            self.turn = turn.wrapping_add(1);
            match judge(&self.zones, &served.view, &tools.buffer[..length], None, turn) {
                Verdict::Reply(reply) => drop(served.datagrams.send_to(&reply, from)),
                Verdict::Forward(question) => {
                    let query = tools.buffer[..length].to_vec();
                    self.forward(number, Asker::Datagram(from), query, &question, tools);
                }
                Verdict::Silence => {}
            }
        }
    }

    fn accept(&mut self, number: u64, tools: &Tools<'_>) {
        for _ in 0..AT_A_TIME {
            let Some(served) = self.served.get(&number) else { return };
            let Ok((socket, _)) = served.listener.accept() else { return };
            let count = self.clients.values().filter(|client| client.served == number).count();
            if count >= MOST_STREAMS || socket.set_nonblocking(true).is_err() {
                continue;
            }
            let client = self.number();
            let data = EventData::new_u64(client << 2 | kind::STREAM);
            if epoll::add(tools.poll, &socket, data, EventFlags::IN).is_ok() {
                let expires = Instant::now() + IDLE;
                let stream = Stream::new(socket);
                self.clients.insert(client, Client { served: number, stream, waiting: 0, expires });
            }
        }
    }

    /// Receives from and sends to a client by TCP.
    fn converse(&mut self, number: u64, tools: &mut Tools<'_>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        if client.stream.pump(tools.buffer).is_err() {
            self.clients.remove(&number);
            return;
        }
        while let Some(client) = self.clients.get_mut(&number) {
            let Some(query) = client.stream.next() else { break };
            client.expires = Instant::now() + IDLE;
            let of = client.served;
            let Some(served) = self.served.get(&of) else { break };
            let turn = self.turn;
            self.turn = turn.wrapping_add(1);
            match judge(&self.zones, &served.view, &query, Some(STREAM_LIMIT), turn) {
                Verdict::Reply(reply) => client.stream.push(&reply),
                Verdict::Forward(question) => {
                    client.waiting += 1;
                    self.forward(of, Asker::Stream(number), query, &question, tools);
                }
                Verdict::Silence => {}
            }
        }
        self.settle(number, tools);
    }

    /// Sends what can be sent, waits for what cannot, and ends a conversation that is over.
    fn settle(&mut self, number: u64, tools: &Tools<'_>) {
        let Some(client) = self.clients.get_mut(&number) else { return };
        let is_broken = client.stream.flush().is_err();
        let is_over = client.stream.is_ended && client.waiting == 0 && client.stream.is_flushed();
        let data = EventData::new_u64(number << 2 | kind::STREAM);
        if is_broken
            || is_over
            || epoll::modify(tools.poll, &client.stream.socket, data, client.stream.interest()).is_err()
        {
            self.clients.remove(&number);
        }
    }

    /// Sends a query on its way to whoever knows more.
    fn forward(
        &mut self,
        served: u64,
        asker: Asker,
        query: Vec<u8>,
        question: &Question,
        tools: &mut Tools<'_>,
    ) {
        let of_it = self.queries.values().filter(|query| query.served == served).count();
        if of_it >= MOST_FORWARDED.0 || self.queries.len() >= MOST_FORWARDED.1 {
            let reply = message::reply(&query, question, message::REFUSED, &[], STREAM_LIMIT);
            return self.deliver(served, &asker, &reply, tools);
        }
        let failure = message::reply(&query, question, message::SERVER_FAILURE, &[], STREAM_LIMIT);
        let Some(view) = self.served.get(&served).map(|served| &served.view) else { return };
        let servers = super::forward::servers(view, &mut self.host);
        let number = self.number();
        self.queries.insert(number, Query::new(served, asker, query, failure, servers));
        self.ask(number, tools);
    }

    /// Gives a reply to whoever asked.
    pub fn deliver(&mut self, served: u64, asker: &Asker, reply: &[u8], tools: &Tools<'_>) {
        match asker {
            Asker::Datagram(to) => {
                if let Some(served) = self.served.get(&served) {
                    // The client asks again if it misses this.
                    let _ = served.datagrams.send_to(reply, to);
                }
            }
            Asker::Stream(number) => {
                if let Some(client) = self.clients.get_mut(number) {
                    client.waiting = client.waiting.saturating_sub(1);
                    client.stream.push(reply);
                    self.settle(*number, tools);
                }
            }
        }
    }

    /// Ends what has taken too long. Gives how long until something else has.
    fn expire(&mut self, tools: &mut Tools<'_>) -> Option<Duration> {
        if self.clients.is_empty() && self.queries.is_empty() {
            return None;
        }
        let now = Instant::now();
        self.clients.retain(|_, client| client.expires > now || client.waiting > 0);
        let late: Vec<u64> = self
            .queries
            .iter()
            .filter(|(_, query)| query.deadline <= now)
            .map(|(number, _)| *number)
            .collect();
        late.into_iter().for_each(|number| self.ask(number, tools));
        let clients = self.clients.values().filter(|client| client.waiting == 0).map(|client| client.expires);
        let next = clients.chain(self.queries.values().map(|query| query.deadline)).min()?;
        // epoll counts milliseconds: a rest of less would be waited for in circles.
        Some(next.saturating_duration_since(now) + Duration::from_millis(1))
    }

    /// The containers that are served.
    #[cfg(test)]
    pub fn containers(&self) -> Vec<&str> {
        self.by_container.keys().map(String::as_str).collect()
    }
}

/// Sockets of the thread's namespace that a container's queries come to, and that do not block.
///
/// # Errors
/// Those of binding: `EADDRNOTAVAIL` while `lo` is down.
pub fn bind(address: Ipv4Addr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    let datagrams = UdpSocket::bind((address, port))?;
    datagrams.set_nonblocking(true)?;
    let listener = TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    Ok((datagrams, listener))
}
