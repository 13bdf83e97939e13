//! The macvlan and ipvlan drivers: a container's interface lives on one of the host's, without a bridge.
//!
//! Source: dockerd's macvlan and ipvlan drivers, for names and refusals.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use super::bridge::{Owner, PlugOptions, Wiring};
use super::endpoint;
use super::network::{Driver, Given, Network, option};
use crate::daemon::error::{Error, Result};
use crate::runtime::netlink::link::{self, Child, Which};
use crate::runtime::netlink::{Message, Protocol, Socket};
use crate::runtime::netns;

/// linux/if_link.h: the interface is not to be used for now.
const IFLA_PROTO_DOWN: u16 = 39;

/// The interface of the host's that a network lives on: what was named, or one of ours that leads nowhere.
pub fn parent(network: &Network) -> String {
    match network.options.get(option::PARENT).filter(|name| !name.is_empty()) {
        Some(name) => name.clone(),
        // Compat: dockerd's names for them.
        None => {
            let prefix = if network.driver == Driver::Ipvlan { "di" } else { "dm" };
            format!("{prefix}-{}", network.id.get(..12).unwrap_or(&network.id))
        }
    }
}

/// What kind of child, as linux/if_link.h numbers modes and flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Macvlan(u32),
    Ipvlan(u16, u16),
}

fn mode(network: &Network) -> Result<Mode> {
    let value = |key: &str| network.options.get(key).map_or("", String::as_str);
    if network.driver == Driver::Ipvlan {
        let mode = match value(option::IPVLAN_MODE) {
            "" | "l2" => 0,
            "l3" => 1,
            "l3s" => 2,
            other => return Err(Error::invalid(format!("unknown ipvlan mode: {other}"))),
        };
        let flag = match value(option::IPVLAN_FLAG) {
            "" | "bridge" => 0,
            "private" => 1,
            "vepa" => 2,
            other => return Err(Error::invalid(format!("unknown ipvlan flag: {other}"))),
        };
        return Ok(Mode::Ipvlan(mode, flag));
    }
    match value(option::MACVLAN_MODE) {
        "private" => Ok(Mode::Macvlan(1)),
        "vepa" => Ok(Mode::Macvlan(2)),
        "" | "bridge" => Ok(Mode::Macvlan(4)),
        "passthru" => Ok(Mode::Macvlan(8)),
        other => Err(Error::invalid(format!(
            "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
        ))),
    }
}

/// Refuses what cannot be, and makes the parent where it is ours to make.
///
/// # Errors
/// The parent is missing and cannot be made; a mode is unknown; the kernel lacks the driver.
pub fn create(wiring: &Wiring, network: &Network) -> Result<()> {
    let mode = mode(network)?;
    let mut host = wiring.host();
    let socket = host.socket().map_err(|error| Error::system("ask for interfaces", error))?;
    can(socket, mode)?;
    ensure_parent(wiring, socket, network).map(|_| ())
}

/// Whether this kernel has the driver at all: asked before there is a container to fail.
fn can(socket: &mut Socket, mode: Mode) -> Result<()> {
    // Asking for a child of nobody makes nothing; a kernel without the driver says so first.
    let nowhere = fs::File::open("/proc/thread-self/ns/net");
    let nowhere = nowhere.map_err(|error| Error::system("open the network namespace", error))?;
    let child = Child { name: "dewar-probe", parent: 0, netns: nowhere.as_fd(), mac: None, mtu: None };
    match socket.run(&[message(&child, mode)]) {
        Err(error) if error.errno == rustix::io::Errno::OPNOTSUPP => {
            let name = if matches!(mode, Mode::Macvlan(_)) { "macvlan" } else { "ipvlan" };
            Err(Error::not_implemented(format!("this kernel has no {name} interfaces")))
        }
        _ => Ok(()),
    }
}

fn message(child: &Child<'_>, mode: Mode) -> Message {
    match mode {
        Mode::Macvlan(mode) => link::macvlan(child, mode),
        Mode::Ipvlan(mode, flags) => link::ipvlan(child, mode, flags),
    }
}

/// The parent's index. A part of an interface with a VLAN tag (`eth0.10`) is made if need be, and so is what stands in
/// for a parent where none is named.
fn ensure_parent(wiring: &Wiring, socket: &mut Socket, network: &Network) -> Result<u32> {
    let name = parent(network);
    let failed = |error: io::Error| Error::system(format!("find parent interface {name}"), error);
    if name == "lo" {
        return Err(Error::invalid("loopback interface is not a valid parent link"));
    }
    if let Some(found) = link::find(socket, Which::Name(&name)).map_err(failed)? {
        return Ok(found.index);
    }
    let is_named = network.options.get(option::PARENT).is_some_and(|name| !name.is_empty());
    let made = if is_named {
        let tag = name.rsplit_once('.').and_then(|(of, id)| Some((of, id.parse::<u16>().ok()?)));
        let Some((of, id)) = tag.filter(|(_, id)| (1..=4094).contains(id)) else {
            return Err(Error::invalid(format!(
                "invalid subinterface vlan name {name}, example formatting is eth0.10"
            )));
        };
        let Some(of) = link::find(socket, Which::Name(of)).map_err(failed)? else {
            return Err(Error::invalid(format!(
                "failed to find master interface {of} on the Docker host: Link not found"
            )));
        };
        link::vlan(&name, of.index, id)
    } else {
        link::dummy(&name)
    };
    let mut marked = link::change(Which::Name(&name), Some(true));
    marked.string(libc::IFLA_IFALIAS, &wiring.mark_of(&Owner::Network(network.id.clone())));
    match socket.run(&[made, marked]) {
        Ok(()) => {}
        Err(error) if error.errno == rustix::io::Errno::OPNOTSUPP => {
            let kind = if is_named { "vlan" } else { "dummy" };
            return Err(Error::not_implemented(format!(
                "make interface {name}: this kernel has no {kind} interfaces"
            )));
        }
        Err(error) => return Err(Error::system(format!("make interface {name}"), error)),
    }
    let found = link::find(socket, Which::Name(&name)).map_err(failed)?;
    found.map(|found| found.index).ok_or_else(|| failed(rustix::io::Errno::NODEV.into()))
}

/// Gives the namespace at `netns` its interface on the parent.
///
/// # Errors
/// The kernel refuses; nothing is left behind.
pub fn plug(
    wiring: &Wiring,
    netns: &Path,
    network: &Network,
    given: &Given,
    options: &PlugOptions,
) -> Result<()> {
    let name = given.interface.as_str();
    let failed = |error: &dyn std::fmt::Display| {
        Error::system(format!("plug {name} into network {}", network.name), error)
    };
    let mode = mode(network)?;
    let namespace = fs::File::open(netns).map_err(|error| failed(&error))?;
    // An ipvlan interface has its parent's.
    let mac = match mode {
        Mode::Macvlan(_) => endpoint::mac(&given.mac).map_err(|error| failed(&error))?,
        Mode::Ipvlan(..) => None,
    };
    {
        let mut host = wiring.host();
        let socket = host.socket().map_err(|error| failed(&error))?;
        let parent = ensure_parent(wiring, socket, network)?;
        let mtu = options.mtu.or_else(|| wiring.mtu(network));
        let child = Child { name, parent, netns: namespace.as_fd(), mac, mtu };
        socket.run(&[message(&child, mode)]).map_err(|error| failed(&error))?;
    }
    netns::within(netns, || {
        let mut inside = Socket::open(Protocol::Route)?;
        let made = (|| {
            if options.is_held {
                inside.run(&[hold(name, true)])?;
            }
            let index = endpoint::configure(&mut inside, given, &options.sysctls, false)?;
            if options.is_held { Ok(()) } else { endpoint::announce(&mut inside, index) }
        })();
        if made.is_err() {
            let _ = inside.run(&[link::delete(Which::Name(name))]);
        }
        made
    })
    .map_err(|error| failed(&error))
}

/// Cuts the cable of an interface that has no other end on the host, or mends it.
pub fn hold(interface: &str, is_held: bool) -> Message {
    let mut message = link::change(Which::Name(interface), None);
    message.u8(IFLA_PROTO_DOWN, u8::from(is_held));
    message
}
