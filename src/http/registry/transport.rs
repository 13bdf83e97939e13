//! Connections to registries: dialled directly or through a proxy, with TLS or without, given up when nothing
//! moves or nobody wants the answer any more.
//!
//! No request has a limit in time: a slow line may take hours for a layer. A connection on which nothing moves for
//! [`IDLE_TIME`] is dead. Whoever cancels is heard within [`SLICE`].

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};

use super::proxy::{Proxies, Proxy, split_port};
use crate::http::socket::{Socket, is_retry};
use crate::http::tls;

/// How long one address may take to answer.
const CONNECT_TIME: Duration = Duration::from_secs(15);
/// How long nothing may move before a peer is taken for dead.
const IDLE_TIME: Duration = Duration::from_secs(60);
/// How often a wait looks up.
const SLICE: Duration = Duration::from_millis(250);
/// The most bytes of a proxy's answer.
const PROXY_HEAD_BYTES: usize = 8 * 1024;

/// Tells a registry's requests that nobody wants their answers any more. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Ends what is under way and lets nothing more begin.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct ConnectFailed {
    pub(super) message: String,
    /// There is somebody, who does not speak TLS as we want it.
    pub(super) is_tls: bool,
}

/// That a wait was ended by [`Cancel`]; ureq carries it as the inside of an I/O error.
#[derive(Debug, thiserror::Error)]
#[error("context canceled")]
pub(super) struct Cancelled;

/// Dials registries.
#[derive(Debug)]
pub(super) struct RegistryConnector {
    pub(super) tls: Option<tls::Connector>,
    pub(super) proxies: Proxies,
    pub(super) cancel: Cancel,
}

impl RegistryConnector {
    fn dial(&self, scheme: &str, host: &str, port: u16) -> Result<Socket, ConnectFailed> {
        let plain = |message| ConnectFailed { message, is_tls: false };
        let proxy = self.proxies.to(scheme, host, port).map_err(plain)?;
        let stream = match &proxy {
            Some(proxy) => connect(&proxy.host, proxy.port)
                .and_then(|stream| tunnel(stream, proxy, host, port))
                .map_err(|message| plain(format!("proxyconnect tcp: {message}")))?,
            None => connect(host, port).map_err(plain)?,
        };
        if scheme != "https" {
            return Ok(Socket::Tcp(stream));
        }
        let tls = self.tls.as_ref().ok_or_else(|| plain("no TLS is set up".to_owned()))?;
        let socket = tls
            .connect(host, stream)
            .map_err(|cause| ConnectFailed { message: tls_words(&cause.to_string()), is_tls: true })?;
        Ok(Socket::Tls(Box::new(socket)))
    }
}

/// Go's words for what goes wrong with TLS, where people know them; rustls's otherwise.
fn tls_words(cause: &str) -> String {
    const FAILED: &str = "tls: failed to verify certificate: x509:";
    if cause.contains("InvalidContentType") || cause.contains("answers without TLS") {
        "http: server gave HTTP response to HTTPS client".to_owned()
    } else if cause.contains("UnknownIssuer") {
        format!("{FAILED} certificate signed by unknown authority")
    } else if cause.contains("Expired") || cause.contains("certificate expired") {
        format!("{FAILED} certificate has expired or is not yet valid: {cause}")
    } else if let Some(words) = cause.strip_prefix("invalid peer certificate: ") {
        format!("{FAILED} {words}")
    } else {
        format!("tls: {cause}")
    }
}

fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()
        .map_err(|cause| format!("dial tcp: lookup {host}: {cause}"))?
        .collect();
    let mut failure = format!("dial tcp: lookup {host}: no such host");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_TIME) {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(|cause| format!("dial tcp {address}: {cause}"))?;
                return Ok(stream);
            }
            Err(cause) => {
                let words = match cause.kind() {
                    io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                    io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
                    io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
                    io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                    _ => format!("connect: {cause}"),
                };
                failure = format!("dial tcp {address}: {words}");
            }
        }
    }
    Err(failure)
}

/// Has a proxy lead the connection on.
fn tunnel(mut stream: TcpStream, proxy: &Proxy, host: &str, port: u16) -> Result<TcpStream, String> {
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n");
    if let Some(authorization) = &proxy.authorization {
        request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
    }
    request.push_str("\r\n");
    let mut head = Vec::new();
    let mut ask = || -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE_TIME))?;
        stream.write_all(request.as_bytes())?;
        let mut byte = [0];
        // Byte by byte: what follows the head belongs to whoever is behind the proxy.
        while !head.ends_with(b"\r\n\r\n") && head.len() < PROXY_HEAD_BYTES {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        stream.set_read_timeout(None)
    };
    ask().map_err(|cause| format!("ask {}:{}: {cause}", proxy.host, proxy.port))?;
    let text = String::from_utf8_lossy(&head);
    let line = text.lines().next().unwrap_or("");
    match line.split_once(' ') {
        Some((version, rest)) if version.starts_with("HTTP/1.") && rest.starts_with('2') => Ok(stream),
        // Compat: Go shows the proxy's reason alone.
        Some((version, rest)) if version.starts_with("HTTP/1.") => {
            Err(rest.split_once(' ').map_or(rest, |(_, reason)| reason).to_owned())
        }
        _ => Err(format!("{}:{} is no HTTP proxy", proxy.host, proxy.port)),
    }
}

impl Connector for RegistryConnector {
    type Out = RegistryTransport;

    fn connect(
        &self,
        details: &ConnectionDetails,
        _chained: Option<()>,
    ) -> Result<Option<RegistryTransport>, ureq::Error> {
        let failed = |failure: ConnectFailed| ureq::Error::Other(Box::new(failure));
        let scheme = details.uri.scheme_str().unwrap_or("https");
        let default = if scheme == "https" { 443 } else { 80 };
        let authority = details.uri.authority().map_or("", |authority| authority.as_str());
        let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
        let (host, port) = split_port(place, default).ok_or_else(|| {
            failed(ConnectFailed { message: format!("dial tcp: no host in {place:?}"), is_tls: false })
        })?;
        if self.cancel.is_cancelled() {
            return Err(io::Error::other(Cancelled).into());
        }
        let socket = Arc::new(self.dial(scheme, &host, port).map_err(failed)?);
        socket.set_read_timeout(Some(SLICE))?;
        socket.set_write_timeout(Some(SLICE))?;
        let weak: Weak<dyn ShutdownHandle> = Arc::downgrade(&socket) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(weak)?;
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(RegistryTransport { socket, buffers, cancel: self.cancel.clone() }))
    }
}

/// A connection as ureq wants it.
#[derive(Debug)]
pub(super) struct RegistryTransport {
    socket: Arc<Socket>,
    buffers: LazyBuffers,
    cancel: Cancel,
}

/// Repeats `step` until it moves something, nobody wants it any more, or the peer is taken for dead.
fn patiently(cancel: &Cancel, mut step: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    let start = Instant::now();
    loop {
        if cancel.is_cancelled() {
            return Err(io::Error::other(Cancelled));
        }
        match step() {
            Err(error) if is_retry(&error) => {
                if start.elapsed() > IDLE_TIME {
                    let words = format!("i/o timeout: nothing moved for {} seconds", IDLE_TIME.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, words));
                }
            }
            result => return result,
        }
    }
}

impl Transport for RegistryTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _timeout: NextTimeout) -> Result<(), ureq::Error> {
        let mut rest = &self.buffers.output()[..amount];
        while !rest.is_empty() {
            match patiently(&self.cancel, || (&*self.socket).write(rest))? {
                0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                count => rest = &rest[count..],
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let input = self.buffers.input_append_buf();
        let count = patiently(&self.cancel, || (&*self.socket).read(input))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_tls(&self) -> bool {
        matches!(*self.socket, Socket::Tls(_))
    }

    fn is_open(&mut self) -> bool {
        // Between requests a registry has nothing to say: whatever there is to read is its farewell.
        !self.socket.has(PollFlags::IN | PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_failures_are_told_in_gos_words() {
        for (cause, wanted) in [
            (
                "received corrupt message of type InvalidContentType",
                "http: server gave HTTP response to HTTPS client",
            ),
            (
                "invalid peer certificate: UnknownIssuer",
                "tls: failed to verify certificate: x509: certificate signed by unknown authority",
            ),
            (
                "invalid peer certificate: certificate not valid for name \"a\"",
                "tls: failed to verify certificate: x509: certificate not valid for name \"a\"",
            ),
            ("the connection ends", "tls: the connection ends"),
        ] {
            assert_eq!(tls_words(cause), wanted);
        }
    }

    #[test]
    fn a_wait_ends_when_nobody_wants_it() {
        let cancel = Cancel::default();
        let mut steps = 0;
        let failure = patiently(&cancel, || {
            steps += 1;
            if steps == 3 {
                cancel.cancel();
            }
            Err(io::ErrorKind::WouldBlock.into())
        });
        assert_eq!((steps, failure.unwrap_err().to_string().as_str()), (3, "context canceled"));
    }
}
