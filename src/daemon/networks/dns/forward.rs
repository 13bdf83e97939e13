//! Queries about names that are no container's: asked on behalf of the container, answered as they are.
//!
//! Servers are asked one after the other, as the host's own resolver would; one that is slow is not given up
//! when the next is asked, and whoever answers first is believed. Each query has a socket and an id of its own,
//! so that nobody but the server asked can answer it.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::rand::{GetRandomFlags, getrandom};

use super::message;
use super::namespace::begin_connect;
use super::redirect::PORT;
use super::server::{State, Tools, kind};
use super::stream::{Stream, is_later};
use super::zones::{Upstreams, View};
use crate::daemon::networks::resolv_conf::{self, Server, Watched};

/// Source: resolv.conf(5), MAXNS.
const MOST_SERVERS: usize = 3;
/// How long a server has before the next is asked too, and the last before we give up.
const PATIENCE: Duration = Duration::from_millis(1500);
const LAST_PATIENCE: Duration = Duration::from_secs(4);

/// Who is to have the answer.
#[derive(Debug)]
pub enum Asker {
    Datagram(SocketAddr),
    /// The number of the connection.
    Stream(u64),
}

/// A server, and from where it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    address: SocketAddr,
    /// From the host's namespace instead of the container's.
    is_from_host: bool,
}

/// A query under way.
#[derive(Debug)]
pub struct Query {
    /// The number of the container.
    pub served: u64,
    asker: Asker,
    /// The client's id.
    id: [u8; 2],
    /// What is sent: the client's query with an id of ours.
    message: Vec<u8>,
    /// The reply when nobody answers.
    failure: Vec<u8>,
    /// Those that have not been asked yet.
    servers: VecDeque<Upstream>,
    /// To those that have.
    lines: Vec<Line>,
    pub deadline: Instant,
}

#[derive(Debug)]
enum Line {
    Datagram(UdpSocket),
    Stream(Stream),
}

impl Query {
    /// `message` is the client's query, `failure` the reply when nobody answers it.
    pub fn new(
        served: u64,
        asker: Asker,
        message: Vec<u8>,
        failure: Vec<u8>,
        servers: Vec<Upstream>,
    ) -> Query {
        let id = message.first_chunk().copied().unwrap_or_default();
        let (servers, lines) = (servers.into(), Vec::new());
        Query { served, asker, id, message, failure, servers, lines, deadline: Instant::now() }
    }
}

/// Whom a container's queries go to.
pub fn servers(view: &View, host: &mut Watched) -> Vec<Upstream> {
    let own = SocketAddr::from((super::ADDRESS, PORT));
    let found: Vec<Upstream> = match &view.upstreams {
        Upstreams::Nobody => Vec::new(),
        Upstreams::Given(addresses) => {
            let given = |address: &IpAddr| Upstream { address: (*address, PORT).into(), is_from_host: false };
            addresses.iter().map(given).filter(|server| server.address != own).collect()
        }
        Upstreams::Host => {
            let conf = host.content();
            let fallback =
                if conf.servers.is_empty() { resolv_conf::fallback(view.has_ipv6) } else { Vec::new() };
            conf.servers.iter().chain(&fallback).filter_map(|server| of_host(server, view)).collect()
        }
    };
    found.into_iter().take(MOST_SERVERS).collect()
}

fn of_host(server: &Server, view: &View) -> Option<Upstream> {
    let scope = match server.interface.as_str() {
        "" => 0,
        name => {
            std::fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?.trim().parse().ok()?
        }
    };
    let address = match server.address {
        IpAddr::V4(address) => (address, PORT).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, PORT, 0, scope).into(),
    };
    // What only the host can reach; everybody else is asked by the container, under its own firewall.
    let is_from_host =
        server.address.is_loopback() || scope != 0 || server.address.is_ipv6() && !view.has_ipv6;
    Some(Upstream { address, is_from_host })
}

/// A number nobody can guess; the socket's port, which the kernel draws, is the other half of it.
fn draw_id() -> [u8; 2] {
    let mut id = [0; 2];
    // Two bytes are there or the kernel has no entropy yet, and then nobody to resolve for.
    let _ = getrandom(&mut id, GetRandomFlags::empty());
    id
}

impl State {
    /// Asks the next server, as long as one can be asked; or gives up when the last has had its time.
    pub fn ask(&mut self, number: u64, tools: &mut Tools<'_>) {
        let Some(query) = self.queries.get_mut(&number) else { return };
        let Some(served) = self.served.get(&query.served) else { return };
        let data = EventData::new_u64(number << 2 | kind::QUERY);
        while let Some(server) = query.servers.pop_front() {
            let netns = (!server.is_from_host).then_some(served.netns.as_path());
            if query.lines.is_empty() {
                message::set_id(&mut query.message, draw_id());
            }
            let line = match query.asker {
                Asker::Datagram(_) => tools.home.visit(netns, || datagram(&server.address, &query.message)),
                Asker::Stream(_) => tools.home.visit(netns, || stream(&server.address, &query.message)),
            };
            let added = line.and_then(|line| {
                match &line {
                    Line::Datagram(socket) => epoll::add(tools.poll, socket, data, EventFlags::IN)?,
                    Line::Stream(stream) => epoll::add(tools.poll, &stream.socket, data, stream.interest())?,
                }
                Ok(line)
            });
            match added {
                Ok(line) => query.lines.push(line),
                Err(cause) => {
                    log::debug!("ask name server {}: {cause}", server.address);
                    continue;
                }
            }
            let patience = if query.servers.is_empty() { LAST_PATIENCE } else { PATIENCE };
            query.deadline = Instant::now() + patience;
            return;
        }
        if query.lines.is_empty() || query.deadline <= Instant::now() {
            self.finish(number, None, tools);
        }
    }

    /// Reads what a query's servers have said.
    pub fn hear(&mut self, number: u64, tools: &mut Tools<'_>) {
        let Some(query) = self.queries.get_mut(&number) else { return };
        let mut answer = None;
        let message = &query.message;
        query.lines.retain_mut(|line| {
            if answer.is_some() {
                return true;
            }
            match line.hear(message, tools.buffer) {
                Ok(heard) => {
                    answer = heard;
                    true
                }
                Err(cause) => {
                    log::debug!("hear a name server: {cause}");
                    false
                }
            }
        });
        if answer.is_some() {
            return self.finish(number, answer, tools);
        }
        if query.lines.is_empty() {
            return self.ask(number, tools);
        }
        let data = EventData::new_u64(number << 2 | kind::QUERY);
        for line in &query.lines {
            if let Line::Stream(stream) = line {
                let _ = epoll::modify(tools.poll, &stream.socket, data, stream.interest());
            }
        }
    }

    /// Gives whoever asked the answer, or says that there is none.
    fn finish(&mut self, number: u64, answer: Option<Vec<u8>>, tools: &mut Tools<'_>) {
        let Some(query) = self.queries.remove(&number) else { return };
        let mut reply = answer.unwrap_or(query.failure);
        message::set_id(&mut reply, query.id);
        self.deliver(query.served, &query.asker, &reply, tools);
    }
}

fn datagram(server: &SocketAddr, message: &[u8]) -> io::Result<Line> {
    let any: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    socket.send(message)?;
    Ok(Line::Datagram(socket))
}

fn stream(server: &SocketAddr, message: &[u8]) -> io::Result<Line> {
    let mut stream = Stream::new(begin_connect(server)?);
    stream.push(message);
    Ok(Line::Stream(stream))
}

impl Line {
    /// The answer to `message`, once there is one.
    ///
    /// # Errors
    /// When there will be none here: nobody is there, or it has none to give.
    fn hear(&mut self, message: &[u8], buffer: &mut [u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            let found = match self {
                Line::Datagram(socket) => match socket.recv(buffer) {
                    Ok(length) => buffer[..length].to_vec(),
                    Err(error) if is_later(&error) => return Ok(None),
                    Err(error) => return Err(error),
                },
                Line::Stream(stream) => {
                    stream.pump(buffer)?;
                    match stream.next() {
                        Some(found) => found,
                        None if stream.is_ended => return Err(io::ErrorKind::UnexpectedEof.into()),
                        None => return Ok(None),
                    }
                }
            };
            if !message::answers(&found, message) {
                continue;
            }
            return match message::code(&found) {
                message::SERVER_FAILURE | message::REFUSED => Err(io::Error::other("it has no answer")),
                _ => Ok(Some(found)),
            };
        }
    }
}
