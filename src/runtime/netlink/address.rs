//! Addresses of interfaces.
//!
//! Source: rtnetlink(7), linux/if_addr.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Socket;
use rustix::event::{PollFd, PollFlags, Timespec};

use super::message::{Message, attributes, number};

/// `struct ifaddrmsg`
const HEAD_BYTES: usize = 8;

/// linux/rtnetlink.h: the group that is told of IPv6 addresses.
pub const IPV6_NEWS: u32 = 9;

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Of the interface.
    pub index: u32,
    pub address: IpAddr,
    /// How many of its bits the neighbours share.
    pub prefix: u8,
}

/// Gives an interface an address; one it has already is fine. IPv6's is used at once, without asking whether somebody
/// else has it.
pub fn add(address: &Address) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut message = say(libc::RTM_NEWADDR, flags as u16, address);
    if let IpAddr::V4(v4) = address.address
        && address.prefix < 31
    {
        let hosts = u32::MAX.checked_shr(u32::from(address.prefix)).unwrap_or(0);
        message.attribute(libc::IFA_BROADCAST, &Ipv4Addr::from(u32::from(v4) | hosts).octets());
    }
    message
}

#[cfg(test)]
pub fn delete(address: &Address) -> Message {
    say(libc::RTM_DELADDR, 0, address)
}

fn say(kind: u16, flags: u16, address: &Address) -> Message {
    let mut message = Message::new(kind, flags);
    let family = family(address.address);
    let mark = if address.address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    message.put(&[family, address.prefix, mark, libc::RT_SCOPE_UNIVERSE]).put(&address.index.to_ne_bytes());
    with_ip(&mut message, libc::IFA_LOCAL, address.address);
    with_ip(&mut message, libc::IFA_ADDRESS, address.address);
    message
}

/// Waits until IPv6 addresses just added are in use: that they are the host's own, and which multicast groups belong
/// to them, is settled by a thread of the kernel's even where nobody has to be asked. `news` is a socket that was
/// subscribed to [`IPV6_NEWS`] before. Gives up after a second.
///
/// # Errors
/// The kernel does not say.
pub fn wait_settled(news: &mut Socket, mut expected: Vec<IpAddr>) -> io::Result<()> {
    let patience = Timespec { tv_sec: 1, tv_nsec: 0 };
    while !expected.is_empty() {
        if rustix::event::poll(&mut [PollFd::new(news, PollFlags::IN)], Some(&patience))? == 0 {
            break;
        }
        // Nobody has this number: all news count.
        news.receive_others(u32::MAX, &mut |kind, payload| {
            if kind == libc::RTM_NEWADDR {
                for (_, value) in attributes(payload.get(HEAD_BYTES..).unwrap_or_default()) {
                    expected.retain(|address| ip(value) != Some(*address));
                }
            }
        })?;
    }
    Ok(())
}

/// All addresses of the socket's namespace.
///
/// # Errors
/// The kernel's; `EINTR` when they changed meanwhile.
pub fn list(socket: &mut Socket) -> io::Result<Vec<Address>> {
    let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP as u16);
    message.put(&[0; HEAD_BYTES]);
    let mut list = Vec::new();
    socket.dump(&message, &mut |payload| {
        let mut found: Option<IpAddr> = None;
        for (kind, value) in attributes(payload.get(HEAD_BYTES..).unwrap_or_default()) {
            // At point-to-point links the other attribute is the far end's.
            if kind == libc::IFA_LOCAL || (kind == libc::IFA_ADDRESS && found.is_none()) {
                found = ip(value);
            }
        }
        if let Some(address) = found {
            let prefix = payload.get(1).copied().unwrap_or_default();
            list.push(Address { index: number(payload, 4), address, prefix });
        }
    })?;
    Ok(list)
}

pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv6() { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

/// Appends an attribute that is an address.
pub(super) fn with_ip(message: &mut Message, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => message.attribute(kind, &v4.octets()),
        IpAddr::V6(v6) => message.attribute(kind, &v6.octets()),
    };
}

/// An attribute's address, by its length.
pub(super) fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(|octets| Ipv4Addr::from(octets).into());
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(|octets| Ipv6Addr::from(octets).into())).ok()
}
