//! The sockets that hold host ports, and which ports may be had unasked.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, ipproto, sockopt};

use super::wish::{Protocol, host_range};
use crate::runtime::netns;

/// A socket bound to a port, and not listening; `None` for SCTP where the host itself has none, which does not
/// keep containers from it.
pub(super) fn bind(protocol: Protocol, address: IpAddr, port: u16) -> rustix::io::Result<Option<OwnedFd>> {
    match bind_with(protocol, address, port, false) {
        Ok(socket) => Ok(Some(socket)),
        // The host's own connections of a moment ago keep a port for a minute. Listening tells them from a living
        // socket, where merely binding with this option does not.
        Err(Errno::ADDRINUSE) if protocol == Protocol::Tcp => {
            let socket = bind_with(protocol, address, port, true)?;
            listen(&socket)?;
            unlisten(&socket)?;
            Ok(Some(socket))
        }
        Err(Errno::PROTONOSUPPORT) if protocol == Protocol::Sctp => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Has a bound socket listen. What it accepts lingers after its end without keeping the port; that it listens is
/// what keeps others from it meanwhile.
pub(super) fn listen(socket: &OwnedFd) -> rustix::io::Result<()> {
    sockopt::set_socket_reuseaddr(socket, true)?;
    rustix::net::listen(socket, 128)
}

/// Takes listening back from a socket, which stays bound.
pub(super) fn unlisten(socket: &OwnedFd) -> rustix::io::Result<()> {
    // Source: inet_shutdown in net/ipv4/af_inet.c
    rustix::net::shutdown(socket, Shutdown::Read)?;
    sockopt::set_socket_reuseaddr(socket, false)
}

fn bind_with(protocol: Protocol, address: IpAddr, port: u16, reuse: bool) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(number))?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Udp {
        // What gets past the rules is for nobody: as little of it as the kernel allows.
        sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    }
    if reuse {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(address, port))?;
    Ok(socket)
}

/// Where the kernel takes ports from that nobody chose, and Docker too.
pub(super) fn ephemeral_range() -> (u16, u16) {
    let text = netns::get("net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_whitespace().map(str::parse::<u16>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(first)), Some(Ok(last))) if 0 < first && first <= last => (first, last),
        // Docker's, where the kernel does not say.
        _ => (49153, 65535),
    }
}

/// Ranges of ports the host's administrator keeps from that.
pub(super) fn reserved_ports() -> Vec<(u16, u16)> {
    let text = netns::get("net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    text.trim().split(',').filter_map(|part| host_range(part).ok().filter(|range| range.0 != 0)).collect()
}
