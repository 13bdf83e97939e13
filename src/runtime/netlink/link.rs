//! Interfaces: made, changed, found and deleted.
//!
//! Source: rtnetlink(7), linux/if_link.h, linux/veth.h.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::Socket;
use super::message::{self, Message, attributes, number, text};

/// `struct ifinfomsg`
const HEAD_BYTES: usize = 16;
const IFF_UP: u32 = libc::IFF_UP as u32;
// linux/if_link.h and linux/veth.h: what libc does not have.
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
// linux/if_link.h, linux/ip.h
const IFLA_INET_CONF: u16 = 1;
const IPV4_DEVCONF_ARP_NOTIFY: u16 = 22;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const VETH_INFO_PEER: u16 = 1;
const IFLA_MACVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_MODE: u16 = 1;
const IFLA_IPVLAN_FLAGS: u16 = 2;
const IFLA_VLAN_ID: u16 = 1;
/// linux/if.h
const IF_OPER_UP: u8 = 6;
/// How long a change of the cable may take to be known to everybody.
const RUNNING_TRIES: u32 = 50;

/// An interface, by what is known of it.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    Name(&'a str),
    Index(u32),
}

/// An interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`; empty for hardware and `lo`.
    pub kind: String,
    /// The bridge it is plugged into; zero for none.
    pub master: u32,
    /// What somebody wrote down beside it; empty for none.
    pub alias: String,
    pub is_up: bool,
    /// It is up, its cable is plugged in, and everybody knows.
    pub is_running: bool,
    /// Of the other end, or of the parent, in its own namespace; zero for none.
    pub link: u32,
    /// Six bytes for ethernet.
    pub mac: Vec<u8>,
    pub mtu: u32,
}

/// Two interfaces that are each other's cable: one here in a bridge, the other in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// Made down, as is the other end.
    pub host: &'a str,
    pub master: u32,
    pub peer: &'a str,
    pub netns: BorrowedFd<'a>,
    /// Of the end in the namespace; `None` is the kernel's choice.
    pub mac: Option<[u8; 6]>,
    /// Of both ends, in bytes; `None` is the kernel's 1500.
    pub mtu: Option<u32>,
}

/// An interface with a name in a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Child<'a> {
    pub name: &'a str,
    /// The index, here, of the interface it lives on.
    pub parent: u32,
    pub netns: BorrowedFd<'a>,
    /// `None` is the kernel's choice, and the parent's for ipvlan.
    pub mac: Option<[u8; 6]>,
    /// In bytes; `None` is the parent's.
    pub mtu: Option<u32>,
}

fn head(index: u32, flags: u32, change: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[4..8].copy_from_slice(&index.to_ne_bytes());
    head[8..12].copy_from_slice(&flags.to_ne_bytes());
    head[12..].copy_from_slice(&change.to_ne_bytes());
    head
}

/// A new interface of this name here, down; refused when the name is taken.
fn new(name: &str) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16);
    message.put(&head(0, 0, 0)).string(libc::IFLA_IFNAME, name);
    message
}

fn info(message: &mut Message, kind: &str, data: impl FnOnce(&mut Message)) {
    message.nested(libc::IFLA_LINKINFO, |info| {
        info.string(libc::IFLA_INFO_KIND, kind).nested(libc::IFLA_INFO_DATA, data);
    });
}

fn traits(message: &mut Message, mac: Option<[u8; 6]>, mtu: Option<u32>) {
    if let Some(mac) = mac {
        message.attribute(libc::IFLA_ADDRESS, &mac);
    }
    if let Some(mtu) = mtu {
        message.u32(libc::IFLA_MTU, mtu);
    }
}

/// A bridge without ports, down.
pub fn bridge(name: &str, mac: [u8; 6], mtu: Option<u32>) -> Message {
    let mut message = new(name);
    traits(&mut message, Some(mac), mtu);
    info(&mut message, "bridge", |_| {});
    message
}

pub fn veth(veth: &Veth<'_>) -> Message {
    let mut message = new(veth.host);
    message.u32(libc::IFLA_MASTER, veth.master);
    traits(&mut message, None, veth.mtu);
    info(&mut message, "veth", |data| {
        data.nested(VETH_INFO_PEER, |peer| {
            peer.put(&head(0, 0, 0)).string(libc::IFLA_IFNAME, veth.peer);
            peer.u32(libc::IFLA_NET_NS_FD, veth.netns.as_raw_fd().cast_unsigned());
            traits(peer, veth.mac, veth.mtu);
        });
    });
    message
}

fn child(child: &Child<'_>, kind: &str, data: impl FnOnce(&mut Message)) -> Message {
    let mut message = new(child.name);
    message.u32(libc::IFLA_LINK, child.parent);
    message.u32(libc::IFLA_NET_NS_FD, child.netns.as_raw_fd().cast_unsigned());
    traits(&mut message, child.mac, child.mtu);
    info(&mut message, kind, data);
    message
}

/// `mode` as linux/if_link.h numbers it.
pub fn macvlan(of: &Child<'_>, mode: u32) -> Message {
    child(of, "macvlan", |data| {
        data.u32(IFLA_MACVLAN_MODE, mode);
    })
}

/// `mode` and `flags` as linux/if_link.h numbers them.
pub fn ipvlan(of: &Child<'_>, mode: u16, flags: u16) -> Message {
    child(of, "ipvlan", |data| {
        data.u16(IFLA_IPVLAN_MODE, mode).u16(IFLA_IPVLAN_FLAGS, flags);
    })
}

/// The part of a parent's traffic that has this tag.
pub fn vlan(name: &str, parent: u32, id: u16) -> Message {
    let mut message = new(name);
    message.u32(libc::IFLA_LINK, parent);
    info(&mut message, "vlan", |data| {
        data.u16(IFLA_VLAN_ID, id);
    });
    message
}

/// An interface that leads nowhere.
pub fn dummy(name: &str) -> Message {
    let mut message = new(name);
    info(&mut message, "dummy", |_| {});
    message
}

/// The beginning of a change to an existing interface: attributes of what is to be different follow.
pub fn change(which: Which<'_>, is_up: Option<bool>) -> Message {
    let flags = if is_up == Some(true) { IFF_UP } else { 0 };
    let mut message = Message::new(libc::RTM_NEWLINK, 0);
    address(&mut message, which, flags, is_up.map_or(0, |_| IFF_UP));
    message
}

/// Has a bridge send a port's own traffic back to it, which a container that speaks to its own published port needs;
/// an isolated port's traffic reaches the bridge itself and no other isolated port (Linux 4.18).
pub fn hairpin(port: &mut Message, is_isolated: bool) -> &mut Message {
    port.nested(libc::IFLA_LINKINFO, |info| {
        info.string(IFLA_INFO_SLAVE_KIND, "bridge").nested(IFLA_INFO_SLAVE_DATA, |data| {
            data.u8(IFLA_BRPORT_MODE, 1).u8(IFLA_BRPORT_ISOLATED, u8::from(is_isolated));
        });
    })
}

/// Has an interface tell its neighbours of its IPv4 addresses when it comes up or its hardware address is said anew.
pub fn notify(index: u32) -> Message {
    let mut message = change(Which::Index(index), None);
    message.nested(libc::IFLA_AF_SPEC, |families| {
        families.nested(libc::AF_INET as u16, |inet| {
            inet.nested(IFLA_INET_CONF, |settings| {
                settings.u32(IPV4_DEVCONF_ARP_NOTIFY, 1);
            });
        });
    });
    message
}

/// Has the bridge that a running port is in know that this hardware address is behind it, as if it had spoken.
pub fn seen(port: u32, mac: [u8; 6]) -> Message {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let mut message = Message::new(libc::RTM_NEWNEIGH, flags as u16);
    // struct ndmsg
    message.put(&[libc::AF_BRIDGE as u8, 0, 0, 0]).put(&port.to_ne_bytes());
    message.put(&libc::NUD_REACHABLE.to_ne_bytes()).put(&[libc::NTF_MASTER, 0]);
    message.attribute(libc::NDA_LLADDR, &mac);
    message
}

pub fn delete(which: Which<'_>) -> Message {
    let mut message = Message::new(libc::RTM_DELLINK, 0);
    address(&mut message, which, 0, 0);
    message
}

fn address(message: &mut Message, which: Which<'_>, flags: u32, change: u32) {
    match which {
        Which::Index(index) => message.put(&head(index, flags, change)),
        Which::Name(name) => message.put(&head(0, flags, change)).string(libc::IFLA_IFNAME, name),
    };
}

/// Waits until an interface carries traffic: that its cable was plugged in is told to its own queue, and to the bridge
/// it is in, by a thread of the kernel's. What is sent before is lost, and is sent again a second later at best.
/// Since Linux 6.7 being asked is enough; before, it takes a millisecond or two. Gives up after 50.
///
/// # Errors
/// As [`find`].
pub fn wait_running(socket: &mut Socket, which: Which<'_>) -> io::Result<()> {
    for _ in 0..RUNNING_TRIES {
        if find(socket, which)?.is_none_or(|found| found.is_running || !found.is_up) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// The interface, if there is one.
///
/// # Errors
/// Whatever the kernel says but that there is none.
pub fn find(socket: &mut Socket, which: Which<'_>) -> io::Result<Option<Link>> {
    let mut message = Message::new(libc::RTM_GETLINK, 0);
    address(&mut message, which, 0, 0);
    let mut found = None;
    match socket.dump(&message, &mut |payload| found = Some(read(payload))) {
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
        other => other.map(|()| found),
    }
}

/// All interfaces of the socket's namespace.
///
/// # Errors
/// The kernel's; `EINTR` when it changed meanwhile.
pub fn list(socket: &mut Socket) -> io::Result<Vec<Link>> {
    let mut message = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16);
    message.put(&head(0, 0, 0));
    let mut links = Vec::new();
    socket.dump(&message, &mut |payload| links.push(read(payload)))?;
    Ok(links)
}

fn read(payload: &[u8]) -> Link {
    let mut link =
        Link { index: number(payload, 4), is_up: number(payload, 8) & IFF_UP != 0, ..Link::default() };
    for (kind, value) in attributes(payload.get(HEAD_BYTES..).unwrap_or_default()) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_IFALIAS => link.alias = text(value),
            libc::IFLA_MASTER => link.master = number(value, 0),
            libc::IFLA_LINK => link.link = number(value, 0),
            libc::IFLA_OPERSTATE => link.is_running = value.first() == Some(&IF_OPER_UP),
            libc::IFLA_MTU => link.mtu = number(value, 0),
            libc::IFLA_ADDRESS => link.mac = value.to_vec(),
            libc::IFLA_LINKINFO => {
                let kind = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = kind.map_or_else(String::new, |(_, value)| message::text(value));
            }
            _ => {}
        }
    }
    link
}
