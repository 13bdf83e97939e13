//! Routes.
//!
//! Source: rtnetlink(7).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Socket;
use super::address::{family, ip, with_ip};
use super::message::{Message, attributes, number};

/// `struct rtmsg`
const HEAD_BYTES: usize = 12;
/// linux/rtnetlink.h: the gateway is a neighbour even if no address of ours says so.
const RTNH_F_ONLINK: u32 = 4;

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: IpAddr,
    /// Zero for the way to everywhere.
    pub prefix: u8,
    /// None for what is reached without.
    pub gateway: Option<IpAddr>,
    /// Of the interface; zero for routes without one, or with several.
    pub index: u32,
}

impl Route {
    /// The way out.
    pub fn default_by(gateway: IpAddr, index: u32) -> Route {
        let to: IpAddr = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Route { to, prefix: 0, gateway: Some(gateway), index }
    }
}

/// A new route. `is_on_link` spares the kernel's question whether the gateway is a neighbour.
pub fn add(route: &Route, is_on_link: bool) -> Message {
    let flags = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
    let scope = if route.gateway.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    say(libc::RTM_NEWROUTE, flags, route, scope, if is_on_link { RTNH_F_ONLINK } else { 0 })
}

pub fn delete(route: &Route) -> Message {
    say(libc::RTM_DELROUTE, 0, route, libc::RT_SCOPE_NOWHERE, 0)
}

fn say(kind: u16, flags: u16, route: &Route, scope: u8, marks: u32) -> Message {
    let mut message = Message::new(kind, flags);
    let (table, protocol) = (libc::RT_TABLE_MAIN, libc::RTPROT_BOOT);
    message.put(&[family(route.to), route.prefix, 0, 0, table, protocol, scope, libc::RTN_UNICAST]);
    message.put(&marks.to_ne_bytes());
    if route.prefix > 0 {
        with_ip(&mut message, libc::RTA_DST, route.to);
    }
    if let Some(gateway) = route.gateway {
        with_ip(&mut message, libc::RTA_GATEWAY, gateway);
    }
    if route.index != 0 {
        message.u32(libc::RTA_OIF, route.index);
    }
    message
}

/// The unicast routes of the main table of the socket's namespace, both families.
///
/// # Errors
/// The kernel's; `EINTR` when they changed meanwhile.
pub fn list(socket: &mut Socket) -> io::Result<Vec<Route>> {
    let mut message = Message::new(libc::RTM_GETROUTE, libc::NLM_F_DUMP as u16);
    message.put(&[0; HEAD_BYTES]);
    let mut list = Vec::new();
    socket.dump(&message, &mut |payload| list.extend(read(payload)))?;
    Ok(list)
}

fn read(payload: &[u8]) -> Option<Route> {
    let (head, rest) = payload.split_at_checked(HEAD_BYTES)?;
    let is_ipv6 = i32::from(head[0]) == libc::AF_INET6;
    if (!is_ipv6 && i32::from(head[0]) != libc::AF_INET)
        || head[4] != libc::RT_TABLE_MAIN
        || head[7] != libc::RTN_UNICAST
    {
        return None;
    }
    let to = if is_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let mut route = Route { to, prefix: head[1], gateway: None, index: 0 };
    for (kind, value) in attributes(rest) {
        match kind {
            libc::RTA_DST => route.to = ip(value)?,
            libc::RTA_GATEWAY => route.gateway = ip(value),
            libc::RTA_OIF => route.index = number(value, 0),
            _ => {}
        }
    }
    Some(route)
}
