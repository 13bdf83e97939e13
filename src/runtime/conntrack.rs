//! The kernel's memory of connections, as far as it keeps datagrams from where they are led now.
//!
//! A client that goes on sending keeps an entry alive, and with it where its datagrams went when it began.
//! TCP has no such trouble: its connections end.
//!
//! Source: linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.

use std::io;
use std::net::IpAddr;

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

/// `CTA_FILTER_FLAG(CTA_PROTO_NUM)`. Addresses are not left to the kernel: it takes IPv6 ones that differ for equal.
const BY_PROTOCOL: u32 = 1 << 3;

/// What is looked at of an entry.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Where the client sends to.
    pub to: (IpAddr, u16),
    /// Who answers.
    pub from: (IpAddr, u16),
    /// Somebody else than who was asked.
    pub is_led: bool,
    tuple: Vec<u8>,
}

fn message(kind: u16, flags: i32, is_ipv6: bool) -> Message {
    let mut message = Message::new(kind, flags as u16);
    let family = if is_ipv6 { libc::AF_INET6 } else { libc::AF_INET };
    message.put(&[family as u8, 0, 0, 0]);
    message
}

/// Forgets the UDP flows of a family for which `is_wanted` holds. Looking through the kernel's table takes some 20 ms.
///
/// # Errors
/// The kernel's.
pub fn forget(socket: &mut Socket, is_ipv6: bool, is_wanted: &dyn Fn(&Flow) -> bool) -> io::Result<()> {
    let mut question = message(GET, libc::NLM_F_DUMP, is_ipv6);
    // Kernels before 5.8 know no filters and give all.
    question.nested(TUPLE_ORIG, |tuple| {
        tuple.nested(2, |protocol| {
            protocol.u8(1, UDP);
        });
    });
    question.nested(FILTER, |filter| {
        filter.u32(1, BY_PROTOCOL).u32(2, 0);
    });
    let mut found = Vec::new();
    socket.dump(&question, &mut |payload| found.extend(flow(payload).filter(is_wanted)))?;
    for flow in &found {
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
    // `CTA_TUPLE_IP` has sources as 1 and 3, destinations as 2 and 4; `CTA_TUPLE_PROTO` ports as 2 and 3.
    let end = |tuple, kinds: [u16; 2], port: u16| -> Option<(IpAddr, u16)> {
        let address =
            attributes(own(tuple, 1)?).filter(|(kind, _)| kinds.contains(kind)).find_map(|(_, value)| {
                let four = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
                four.or_else(|| <[u8; 16]>::try_from(value).ok().map(IpAddr::from))
            });
        let port = own(own(tuple, 2)?, port)?;
        Some((address?, u16::from_be_bytes(port.try_into().ok()?)))
    };
    let is_udp = own(own(forth, 2)?, 1) == Some(&[UDP]);
    let is_led = u32::from_be(number(own(all, STATUS)?, 0)) & LED != 0;
    let (to, from) = (end(forth, [2, 4], 3)?, end(back, [1, 3], 2)?);
    is_udp.then(|| Flow { to, from, is_led, tuple: forth.to_vec() })
}
