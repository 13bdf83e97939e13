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

/// How long one address of a TCP host may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// Why the daemon could not be reached, told apart from what goes wrong later.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ConnectFailed(pub(super) io::Error);

/// Connects to a daemon. Blocks for [`CONNECT_TIME`] per address at most.
pub(super) fn dial(host: &Host) -> io::Result<Socket> {
    match host {
        Host::Unix(path) => UnixStream::connect(path).map(Socket::Unix),
        Host::Tcp(name, port) => {
            let mut failure = io::Error::other("the host name has no address");
            for address in (name.as_str(), *port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                    Ok(stream) => {
                        stream.set_nodelay(true)?;
                        return Ok(Socket::Tcp(stream));
                    }
                    Err(cause) => failure = cause,
                }
            }
            Err(failure)
        }
    }
}

/// Dials one host, whatever the URL says.
#[derive(Debug)]
pub(super) struct SocketConnector {
    pub(super) host: Host,
}

impl Connector for SocketConnector {
    type Out = SocketTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<SocketTransport>, ureq::Error> {
        let socket = dial(&self.host).map_err(|cause| ureq::Error::Other(Box::new(ConnectFailed(cause))))?;
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

/// A connection as ureq wants it. Timeouts are not applied: none are configured.
#[derive(Debug)]
pub(super) struct SocketTransport {
    socket: Arc<Socket>,
    buffers: LazyBuffers,
}

impl Transport for SocketTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        (&*self.socket).write_all(&self.buffers.output()[..amount])?;
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let input = self.buffers.input_append_buf();
        let count = loop {
            match (&*self.socket).read(input) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
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
pub(super) struct StaticResolver;

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
