//! The kernel's memory of connections, as far as it keeps datagrams from where they are led now.
//!
//! A client that goes on sending keeps an entry alive, and with it where its datagrams went when it began.
//! TCP has no such trouble: its connections end.
//!
//! Source: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c (filters).

use std::io;
use std::net::{IpAddr, UdpSocket};

use super::netlink::message::{attributes, number};
use super::netlink::{Message, Socket};

const SUBSYSTEM: u16 = (libc::NFNL_SUBSYS_CTNETLINK as u16) << 8;
/// `IPCTNL_MSG_CT_GET`
const GET: u16 = SUBSYSTEM | 1;
/// `IPCTNL_MSG_CT_DELETE`
const DELETE: u16 = SUBSYSTEM | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const STATUS: u16 = 3;
const FILTER: u16 = 25;
/// `IPS_DST_NAT`
const LED: u32 = 1 << 5;
const UDP: u8 = 17;

/// Which fields of a tuple a filter looks at: `CTA_FILTER_FLAG(CTA_…)`, one bit each. Addresses are compared here:
/// the kernel takes IPv6 ones that differ for equal.
mod field {
    pub const PROTOCOL: u32 = 1 << 3;
    pub const SOURCE_PORT: u32 = 1 << 4;
    pub const DESTINATION_PORT: u32 = 1 << 5;
}

/// `CTA_PROTO_SRC_PORT`
const SOURCE_PORT: u16 = 2;
/// `CTA_PROTO_DST_PORT`
const DESTINATION_PORT: u16 = 3;

/// What is looked at of an entry.
struct Flow {
    /// Where the client sends to.
    to: IpAddr,
    /// Who answers.
    from: IpAddr,
    is_led: bool,
    tuple: Vec<u8>,
}

fn message(kind: u16, flags: i32, is_ipv6: bool) -> Message {
    let mut message = Message::new(kind, flags as u16);
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    message.put(&[family as u8, 0, 0, 0]);
    message
}

/// Forgets UDP flows that are led to a port of an address.
///
/// # Errors
/// The kernel's.
pub fn forget_led_to(socket: &mut Socket, address: IpAddr, port: u16) -> io::Result<()> {
    let mut question = message(GET, libc::NLM_F_DUMP, address.is_ipv6());
    ask(&mut question, TUPLE_REPLY, SOURCE_PORT, port);
    question.nested(FILTER, |filter| {
        filter.u32(1, 0).u32(2, field::PROTOCOL | field::SOURCE_PORT);
    });
    forget(socket, &question, address.is_ipv6(), &|flow| flow.is_led && flow.from == address)
}

/// Forgets UDP flows to a port of the host that are led nowhere. `host` unspecified is every address.
///
/// # Errors
/// The kernel's.
pub fn forget_unled(socket: &mut Socket, host: IpAddr, port: u16) -> io::Result<()> {
    let mut question = message(GET, libc::NLM_F_DUMP, host.is_ipv6());
    ask(&mut question, TUPLE_ORIG, DESTINATION_PORT, port);
    question.nested(FILTER, |filter| {
        filter.u32(1, field::PROTOCOL | field::DESTINATION_PORT).u32(2, 0);
    });
    // A flow that only passes through is none of ours: to be the host's, an address can be bound.
    let is_ours = |to: IpAddr| host == to || host.is_unspecified() && UdpSocket::bind((to, 0)).is_ok();
    forget(socket, &question, host.is_ipv6(), &|flow| !flow.is_led && is_ours(flow.to))
}

/// Names the protocol and a port, by which kernels that know filters (Linux 5.8) choose; older ones give all.
fn ask(question: &mut Message, tuple: u16, kind: u16, port: u16) {
    question.nested(tuple, |tuple| {
        tuple.nested(2, |protocol| {
            protocol.u8(1, UDP).be16(kind, port);
        });
    });
}

fn forget(
    socket: &mut Socket,
    question: &Message,
    is_ipv6: bool,
    is_wanted: &dyn Fn(&Flow) -> bool,
) -> io::Result<()> {
    let mut found = Vec::new();
    socket.dump(question, &mut |payload| found.extend(flow(payload)))?;
    for flow in found.iter().filter(|flow| is_wanted(flow)) {
        let mut request = message(DELETE, 0, is_ipv6);
        request.attribute(TUPLE_ORIG | libc::NLA_F_NESTED as u16, &flow.tuple);
        match socket.run(&[request]) {
            Err(failed) if failed.errno != rustix::io::Errno::NOENT => return Err(failed.into()),
            _ => {}
        }
    }
    Ok(())
}

fn flow(payload: &[u8]) -> Option<Flow> {
    let own = |bytes, kind| attributes(bytes).find(|(it, _)| *it == kind).map(|(_, value)| value);
    let all = payload.get(4..)?;
    let (forth, back) = (own(all, TUPLE_ORIG)?, own(all, TUPLE_REPLY)?);
    // `CTA_TUPLE_IP`: sources are 1 and 3, destinations 2 and 4.
    let address = |tuple, kinds: [u16; 2]| -> Option<IpAddr> {
        attributes(own(tuple, 1)?).filter(|(kind, _)| kinds.contains(kind)).find_map(|(_, value)| {
            let four = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
            four.or_else(|| <[u8; 16]>::try_from(value).ok().map(IpAddr::from))
        })
    };
    let is_udp = own(own(forth, 2)?, 1) == Some(&[UDP]);
    let is_led = u32::from_be(number(own(all, STATUS)?, 0)) & LED != 0;
    let (to, from) = (address(forth, [2, 4])?, address(back, [1, 3])?);
    is_udp.then(|| Flow { to, from, is_led, tuple: forth.to_vec() })
}
