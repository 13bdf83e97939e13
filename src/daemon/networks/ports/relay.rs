//! The relay: what the kernel cannot lead from a host port to a container is carried through the daemon.
//!
//! That is clients of `[::1]`, which no packet leaves; IPv6 clients of a container that has IPv4 alone; and all of
//! them when the daemon was told to make no rules. One thread waits for all sockets while there is something to
//! relay, and each TCP connection has two more, one a direction, while it lasts. The container sees the host's
//! address and not the client's.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SocketFlags, sockopt};

use super::Protocol;
use crate::daemon::bell::Bell;

/// Docker's proxy forgets a UDP client that long after its last datagram.
const UDP_SILENCE: Duration = Duration::from_secs(90);
/// How long a container's listener may take to answer.
const CONNECT: Duration = Duration::from_secs(10);
/// Connections, and UDP clients of one port: what a flood can cost.
const MOST: usize = 1024;
/// Of a thread that copies through 8 KiB of its stack.
const STACK_BYTES: usize = 64 * 1024;
/// The largest datagram.
const DATAGRAM: usize = 65536;

/// Everything that is relayed.
#[derive(Debug, Default)]
pub struct Relays {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    table: Mutex<Table>,
    connections: AtomicUsize,
}

#[derive(Debug, Default)]
struct Table {
    /// While the thread runs.
    poll: Option<Arc<OwnedFd>>,
    sources: BTreeMap<u64, Source>,
    last: u64,
}

/// What the thread waits for.
#[derive(Debug, Clone)]
enum Source {
    Tcp {
        listener: Arc<OwnedFd>,
        to: SocketAddr,
        open: Arc<Open>,
    },
    Udp {
        socket: Arc<OwnedFd>,
        to: SocketAddr,
    },
    /// A socket that stands for a client of the front, inside.
    Back {
        socket: Arc<UdpSocket>,
        front: u64,
        client: SocketAddr,
        heard: Instant,
    },
    /// Something was removed.
    Bell(Arc<Bell>),
}

/// The connections of a port; `None` once it is relayed no more.
type Open = Mutex<Option<Vec<Weak<Pair>>>>;

/// Both ends of a relayed connection.
#[derive(Debug)]
struct Pair {
    outside: TcpStream,
    inside: TcpStream,
}

impl Relays {
    /// Begins to relay what reaches a bound socket to an address; gives the token to end it by, or none for
    /// SCTP, which is not relayed.
    pub fn add(&self, socket: Arc<OwnedFd>, protocol: Protocol, to: SocketAddr) -> io::Result<Option<u64>> {
        rustix::io::ioctl_fionbio(&*socket, true)?;
        let source = match protocol {
            Protocol::Tcp => {
                super::hold::listen(&socket)?;
                Source::Tcp { listener: socket, to, open: Arc::new(Mutex::new(Some(Vec::new()))) }
            }
            Protocol::Udp => {
                sockopt::set_socket_recv_buffer_size(&*socket, 256 * 1024)?;
                Source::Udp { socket, to }
            }
            Protocol::Sctp => return Ok(None),
        };
        let mut table = self.shared.table();
        if table.poll.is_none() {
            let poll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
            let (shared, waited) = (Arc::clone(&self.shared), Arc::clone(&poll));
            table.poll = Some(poll);
            let bell = Bell::new().map_err(|error| io::Error::other(error.message));
            let started = bell.and_then(|bell| table.insert(Source::Bell(Arc::new(bell)))).and_then(|_| {
                let worker = move || shared.work(&waited);
                thread::Builder::new().name("relay".to_owned()).stack_size(2 * STACK_BYTES).spawn(worker)
            });
            if let Err(error) = started {
                (table.poll, table.sources) = (None, BTreeMap::new());
                return Err(error);
            }
        }
        table.insert(source).map(Some)
    }

    /// Ends a relay and what goes through it. The socket stays bound, for whoever holds it.
    pub fn remove(&self, token: u64) {
        let mut table = self.shared.table();
        match table.remove(token) {
            Some(Source::Tcp { listener, open, .. }) => {
                let _ = super::hold::unlisten(&listener);
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                for pair in open.take().into_iter().flatten().filter_map(|pair| pair.upgrade()) {
                    let _ = pair.outside.shutdown(Shutdown::Both);
                    let _ = pair.inside.shutdown(Shutdown::Both);
                }
            }
            Some(Source::Udp { socket, .. }) => {
                let _ = sockopt::set_socket_recv_buffer_size(&*socket, 0);
                table.drop_backs(|front, _| front == token);
            }
            _ => {}
        }
        if table.is_idle() {
            for source in table.sources.values() {
                if let Source::Bell(bell) = source {
                    bell.ring();
                }
            }
        }
    }
}

#[cfg(test)]
impl Relays {
    pub fn left(&self) -> (bool, usize) {
        for _ in 0..100 {
            if self.shared.table().poll.is_none() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let table = self.shared.table();
        (table.poll.is_some(), table.sources.len())
    }
}

impl Table {
    fn insert(&mut self, source: Source) -> io::Result<u64> {
        let poll = self.poll.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        self.last += 1;
        epoll::add(poll, source.as_fd(), epoll::EventData::new_u64(self.last), epoll::EventFlags::IN)?;
        self.sources.insert(self.last, source);
        Ok(self.last)
    }

    fn remove(&mut self, token: u64) -> Option<Source> {
        let source = self.sources.remove(&token)?;
        if let Some(poll) = &self.poll {
            let _ = epoll::delete(poll, source.as_fd());
        }
        Some(source)
    }

    fn drop_backs(&mut self, is_over: impl Fn(u64, Instant) -> bool) {
        let over = |(token, source): (&u64, &Source)| match source {
            Source::Back { front, heard, .. } if is_over(*front, *heard) => Some(*token),
            _ => None,
        };
        let tokens: Vec<u64> = self.sources.iter().filter_map(over).collect();
        for token in tokens {
            self.remove(token);
        }
    }

    /// Only the bell is left.
    fn is_idle(&self) -> bool {
        self.sources.values().all(|source| matches!(source, Source::Bell(_)))
    }

    fn back(&mut self, front: u64, client: SocketAddr) -> Option<Arc<UdpSocket>> {
        self.sources.values_mut().find_map(|source| match source {
            Source::Back { socket, front: of, client: one, heard } if (*of, *one) == (front, client) => {
                *heard = Instant::now();
                Some(Arc::clone(socket))
            }
            _ => None,
        })
    }
}

impl AsFd for Source {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Source::Tcp { listener: socket, .. } | Source::Udp { socket, .. } => (**socket).as_fd(),
            Source::Back { socket, .. } => socket.as_fd(),
            Source::Bell(bell) => bell.as_fd(),
        }
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // A panic could only leave a source the poll no longer has.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for sockets until none is left.
    fn work(self: Arc<Shared>, poll: &OwnedFd) {
        let mut buffer = vec![0_u8; DATAGRAM];
        let mut events = Vec::with_capacity(64);
        let pause = rustix::time::Timespec { tv_sec: 10, tv_nsec: 0 };
        loop {
            events.clear();
            match epoll::wait(poll, rustix::buffer::spare_capacity(&mut events), Some(&pause)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(cause) => log::error!("wait for relayed ports: {cause}"),
            }
            for event in &events {
                let token = event.data.u64();
                let source = self.table().sources.get(&token).cloned();
                match source {
                    Some(Source::Tcp { listener, to, open }) => self.accept(&listener, to, &open),
                    Some(Source::Udp { socket, to }) => self.forth(token, &socket, to, &mut buffer),
                    Some(Source::Back { socket, front, client, .. }) => {
                        self.back(front, &socket, client, &mut buffer);
                    }
                    Some(Source::Bell(bell)) => bell.silence(),
                    None => {}
                }
            }
            let mut table = self.table();
            table.drop_backs(|_, heard| heard.elapsed() > UDP_SILENCE);
            if table.is_idle() {
                (table.poll, table.sources) = (None, BTreeMap::new());
                return;
            }
        }
    }

    fn accept(self: &Arc<Shared>, listener: &OwnedFd, to: SocketAddr, open: &Arc<Open>) {
        let outside = match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            Ok(socket) => TcpStream::from(socket),
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return,
            Err(cause) => {
                // Out of descriptors, most likely: the event stays, so this must not spin.
                log::warn!("accept for {to}: {cause}");
                return thread::sleep(Duration::from_millis(100));
            }
        };
        if self.connections.load(Ordering::Relaxed) >= MOST {
            log::warn!("relay to {to}: {MOST} connections are open already");
            return;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        let (shared, open) = (Arc::clone(self), Arc::clone(open));
        let worker = move || {
            if let Ok(inside) = TcpStream::connect_timeout(&to, CONNECT) {
                carry(Pair { outside, inside }, &open);
            }
            shared.connections.fetch_sub(1, Ordering::Relaxed);
        };
        if let Err(cause) =
            thread::Builder::new().name("relayed".to_owned()).stack_size(STACK_BYTES).spawn(worker)
        {
            self.connections.fetch_sub(1, Ordering::Relaxed);
            log::warn!("relay to {to}: {cause}");
        }
    }

    /// Datagrams of clients, each through a socket of its own.
    fn forth(&self, front: u64, socket: &OwnedFd, to: SocketAddr, buffer: &mut [u8]) {
        let flags = rustix::net::RecvFlags::DONTWAIT;
        while let Ok((length, _, Some(client))) = rustix::net::recvfrom(socket, &mut *buffer, flags) {
            let Ok(client) = SocketAddr::try_from(client) else { return };
            let known = self.table().back(front, client);
            let back = match known.map_or_else(|| self.new_back(front, client, to), Ok) {
                Ok(back) => back,
                Err(cause) => {
                    log::warn!("relay to {to}: {cause}");
                    continue;
                }
            };
            let _ = back.send(&buffer[..length]);
        }
    }

    fn new_back(&self, front: u64, client: SocketAddr, to: SocketAddr) -> io::Result<Arc<UdpSocket>> {
        let any = if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let mut table = self.table();
        if !table.sources.contains_key(&front) || table.sources.len() > MOST {
            return Err(io::Error::other("too many clients"));
        }
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(to)?;
        let socket = Arc::new(socket);
        table.insert(Source::Back { socket: Arc::clone(&socket), front, client, heard: Instant::now() })?;
        Ok(socket)
    }

    /// The container's answers.
    fn back(&self, front: u64, back: &UdpSocket, client: SocketAddr, buffer: &mut [u8]) {
        let Some(Source::Udp { socket, .. }) = self.table().sources.get(&front).cloned() else { return };
        loop {
            match back.recv(buffer) {
                Ok(length) => {
                    self.table().back(front, client);
                    let flags = rustix::net::SendFlags::DONTWAIT;
                    let _ = rustix::net::sendto(&*socket, &buffer[..length], flags, &client);
                }
                // Refused: nobody listens there; the error is taken with this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(_) => return,
            }
        }
    }
}

/// Copies both ways until both have ended; each end's end is passed on.
fn carry(pair: Pair, open: &Open) {
    let pair = Arc::new(pair);
    {
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = open.as_mut() else { return };
        open.retain(|pair| pair.strong_count() > 0);
        open.push(Arc::downgrade(&pair));
    }
    let _ = (pair.outside.set_nodelay(true), pair.inside.set_nodelay(true));
    let answers = Arc::clone(&pair);
    let worker = thread::Builder::new().name("relayed".to_owned()).stack_size(STACK_BYTES).spawn(move || {
        let _ = io::copy(&mut &answers.inside, &mut &answers.outside);
        let _ = answers.outside.shutdown(Shutdown::Write);
    });
    if worker.is_ok() {
        let _ = io::copy(&mut &pair.outside, &mut &pair.inside);
        let _ = pair.inside.shutdown(Shutdown::Write);
    }
}
