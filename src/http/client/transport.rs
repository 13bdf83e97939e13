//! ureq over our own sockets: a connector that ignores the URL and dials the daemon's host.
//!
//! The only user of `ureq::unversioned`, which changes between ureq's minor versions (hence `~3.5` in
//! Cargo.toml). The resolver resolves nothing: a unix socket has no name, and a TCP host's name is looked up
//! by the dialling itself.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rustix::event::PollFlags;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};

use super::Host;
use crate::http::socket::Socket;
use crate::http::tls;

/// How long one address of a TCP host may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Why the daemon could not be reached, told apart from what goes wrong later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ConnectFailed(pub(crate) io::Error);

/// Connects to a daemon, over TCP with TLS if that is given. Blocks for [`CONNECT_TIME`] per address at most, and as
/// long for a handshake; on a unix socket as long as the daemon
/// lets connections queue.
pub(super) fn dial(host: &Host, tls: Option<&tls::Connector>) -> io::Result<Socket> {
    match host {
        Host::Ssh(ssh) => ssh.dial(),
        Host::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
        Host::Tcp(name, port) => {
            let mut failure = io::Error::other("the host name has no address");
            for address in (name.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return match tls {
                            Some(tls) => Ok(Socket::Tls(Box::new(tls.connect(name, stream)?))),
                            None => Ok(Socket::Tcp(stream)),
                        };
                    }
                    Err(cause) => failure = cause,
                }
            }
            Err(failure)
        }
    }
}

/// As [`dial`], but gives up after `time`.
fn dial_within(host: &Host, tls: Option<&tls::Connector>, time: Duration) -> io::Result<Socket> {
    match host {
        Host::Unix(path) => {
            use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
            let fd = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::STREAM,
                SocketFlags::CLOEXEC,
                None,
            )?;
            // Source: unix(7) is silent, unix_stream_connect() waits for room in the backlog as long as a write may.
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, Some(time))?;
            rustix::net::connect(&fd, &SocketAddrUnix::new(path)?)?;
            sockopt::set_socket_timeout(&fd, sockopt::Timeout::Send, None)?;
            Ok(Socket::Unix(fd.into()))
        }
        Host::Tcp(..) | Host::Ssh(_) => dial(host, tls),
    }
}

/// Dials one host, whatever the URL says.
#[derive(Debug)]
pub(crate) struct SocketConnector {
    pub(crate) host: Host,
    pub(crate) tls: Option<tls::Connector>,
}

impl Connector for SocketConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<SocketTransport>, ureq::Error> {
        let socket = match time_of(&details.timeout) {
            Some(time) => dial_within(&self.host, self.tls.as_ref(), time),
            None => dial(&self.host, self.tls.as_ref()),
        };
        let socket = socket.map_err(|cause| ureq::Error::Other(Box::new(ConnectFailed(cause))))?;
        let socket = Arc::new(socket);
        let weak: Weak<dyn ShutdownHandle> = Arc::downgrade(&socket) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(weak)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(SocketTransport { socket, buffers }))
    }
}

impl ShutdownHandle for Socket {
    fn shutdown(&self) {
        Socket::shutdown(self, std::net::Shutdown::Both);
    }
}

/// What ureq leaves for the next step; `None` when nobody set a limit.
fn time_of(timeout: &NextTimeout) -> Option<Duration> {
    // A limit of nothing means none to the kernel.
    (!timeout.after.is_not_happening()).then(|| (*timeout.after).max(Duration::from_millis(1)))
}

/// That a step took longer than it may.
fn timed_out(error: io::Error, timeout: &NextTimeout) -> ureq::Error {
    let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    if is_late { ureq::Error::Timeout(timeout.reason) } else { error.into() }
}

/// A connection as ureq wants it.
#[derive(Debug)]
pub(crate) struct SocketTransport {
    socket: Arc<Socket>,
    buffers: LazyBuffers,
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        if let Some(time) = time_of(&timeout) {
            self.socket.set_write_timeout(Some(time))?;
        }
        let written = (&*self.socket).write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| timed_out(error, &timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if let Some(time) = time_of(&timeout) {
            self.socket.set_read_timeout(Some(time))?;
        }
        let input = self.buffers.input_append_buf();
        let count = loop {
            match (&*self.socket).read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.map_err(|error| timed_out(error, &timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Between requests a daemon has nothing to say: whatever there is to read is its farewell.
        !self.socket.has(PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }
}

/// Resolves everything to an address nobody dials.
#[derive(Debug)]
pub(crate) struct StaticResolver;

impl Resolver for StaticResolver {
    fn resolve(
        &self,
        _uri: &Uri,
        _config: &ureq::config::Config,
        _timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from(([127, 0, 0, 1], 0)));
        Ok(addresses)
    }
}
