//! A container's end of a network: its interface's addresses, settings and routes, said from inside the namespace.

use std::io;
use std::net::IpAddr;

use super::mac::{self, Mac};
use super::network::Given;
use crate::runtime::netlink::address::{self, Address};
use crate::runtime::netlink::link::{self, Which};
use crate::runtime::netlink::route::{self, Route};
use crate::runtime::netlink::{Message, Protocol, Socket};
use crate::runtime::netns;

/// Docker's word for the interface in the names of its settings.
const IFNAME: &str = "IFNAME";

/// The bytes of `02:42:ac:11:00:02`; `None` for an empty text, which leaves it to the kernel.
///
/// # Errors
/// It is no address.
pub fn mac(text: &str) -> io::Result<Option<Mac>> {
    if text.is_empty() {
        return Ok(None);
    }
    mac::parse(text).map(Some).ok_or_else(|| invalid(format!("{text} is no MAC address")))
}

/// A bridge's: the same whenever it is made again, so that nobody has to ask for it anew.
pub fn bridge_mac(network: &str) -> Mac {
    let mut last = [0; 4];
    for (at, byte) in last.iter_mut().enumerate() {
        let digits = network.get(2 * at..2 * at + 2).unwrap_or_default();
        *byte = u8::from_str_radix(digits, 16).unwrap_or_default();
    }
    mac::with(last)
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// The number of an interface of the socket's namespace.
///
/// # Errors
/// `ENODEV`.
pub fn index(inside: &mut Socket, name: &str) -> io::Result<u32> {
    let found = link::find(inside, Which::Name(name))?;
    found.map(|found| found.index).ok_or_else(|| rustix::io::Errno::NODEV.into())
}

/// Gives the interface its settings and addresses, and sets it up; gives its index. `is_told` by the network who its
/// router is, so that it listens to nobody else who says so.
///
/// # Errors
/// A setting is not one of the interface's, or the kernel refuses.
pub fn configure(
    inside: &mut Socket,
    given: &Given,
    sysctls: &[(String, String)],
    is_told: bool,
) -> io::Result<u32> {
    let name = given.interface.as_str();
    let index = index(inside, name)?;
    let all = addresses(given);
    let has_ipv6 = all.iter().any(|(address, _)| address.is_ipv6());
    let ipv6 = |setting: &str, value: &str| netns::set(&format!("net/ipv6/conf/{name}/{setting}"), value);
    if has_ipv6 {
        ipv6("disable_ipv6", "0")?;
        ipv6("ndisc_notify", "1")?;
        if is_told {
            ipv6("accept_ra", "0")?;
        }
    } else {
        match ipv6("disable_ipv6", "1") {
            // A kernel without IPv6 has nothing to turn off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    for (setting, value) in sysctls {
        let path = setting_path(setting, name)?;
        netns::set(&path, value)
            .map_err(|error| io::Error::new(error.kind(), format!("set {setting}: {error}")))?;
    }
    let ipv6: Vec<IpAddr> = all.iter().map(|(address, _)| *address).filter(IpAddr::is_ipv6).collect();
    let mut requests: Vec<Message> =
        all.into_iter().map(|(address, prefix)| address::add(&Address { index, address, prefix })).collect();
    requests.push(link::change(Which::Index(index), Some(true)));
    // Moves, as after a restore elsewhere, are told to the neighbours: see [`announce`]. That it comes up is not.
    if !sysctls.iter().any(|(setting, _)| setting.ends_with(".arp_notify")) {
        requests.push(link::notify(index));
    }
    if ipv6.is_empty() {
        inside.run(&requests)?;
    } else {
        let mut news = Socket::open(Protocol::Route)?;
        news.subscribe(address::IPV6_NEWS)?;
        inside.run(&requests)?;
        address::wait_settled(&mut news, ipv6)?;
    }
    Ok(index)
}

/// All addresses of a place, with their prefixes.
fn addresses(given: &Given) -> Vec<(IpAddr, u8)> {
    let own = given.ipv4.iter().chain(&given.ipv6).map(|subnet| (subnet.address, subnet.prefix));
    let local = given.link_local.iter().map(|address| (*address, if address.is_ipv6() { 64 } else { 16 }));
    own.chain(local).collect()
}

/// `net.ipv4.conf.IFNAME.log_martians` as a path below `/proc/sys`.
fn setting_path(setting: &str, interface: &str) -> io::Result<String> {
    let parts: Vec<&str> = setting.split('.').collect();
    let is_plain = |part: &&str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    match parts[..] {
        // Compat: the stock client makes small letters of what `--network` says.
        ["net", family, group, IFNAME | "ifname", key] if [family, group, key].iter().all(is_plain) => {
            Ok(format!("net/{family}/{group}/{interface}/{key}"))
        }
        _ => Err(invalid(format!("{setting} is no setting of an interface: net.FAMILY.GROUP.IFNAME.KEY"))),
    }
}

/// Has the kernel tell everybody on the network which addresses are where: an ARP request for each IPv4 address of
/// the interface, an unsolicited neighbour advertisement for each of IPv6.
///
/// Being given the address it has is the one event after which the kernel does so for an interface that stays up.
/// The alternative, a packet socket, takes the kernel 10 ms to close.
///
/// # Errors
/// The kernel refuses.
pub fn announce(inside: &mut Socket, index: u32) -> io::Result<()> {
    let Some(found) = link::find(inside, Which::Index(index))? else {
        return Err(rustix::io::Errno::NODEV.into());
    };
    let mut message = link::change(Which::Index(index), None);
    message.attribute(libc::IFLA_ADDRESS, &found.mac);
    Ok(inside.run(&[message])?)
}

/// Makes these the only default routes of the socket's namespace.
///
/// # Errors
/// There is no such interface, or the kernel refuses.
pub fn default_routes(inside: &mut Socket, wanted: &[(IpAddr, &str)]) -> io::Result<()> {
    let mut routes = Vec::new();
    for (gateway, device) in wanted {
        routes.push(Route::default_by(*gateway, index(inside, device)?));
    }
    let all = route::list(inside)?;
    let present: Vec<Route> = all.into_iter().filter(|route| route.prefix == 0).collect();
    let superfluous = present.iter().filter(|route| !routes.contains(route)).map(route::delete);
    inside.run(&superfluous.collect::<Vec<_>>())?;
    for route in routes.iter().filter(|route| !present.contains(route)) {
        match inside.run(&[route::add(route, false)]) {
            // A gateway outside of the network's range: it is out there all the same.
            Err(error)
                if matches!(error.errno, rustix::io::Errno::NETUNREACH | rustix::io::Errno::HOSTUNREACH) =>
            {
                inside.run(&[route::add(route, true)])?;
            }
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_has_the_same_mac_address_every_time() {
        assert_eq!(mac("").unwrap(), None);
        assert!(mac("x").is_err());
        assert_eq!(bridge_mac("0a1bff00"), [2, 0x42, 0x0a, 0x1b, 0xff, 0]);
        assert_eq!(bridge_mac(""), [2, 0x42, 0, 0, 0, 0]);
    }

    #[test]
    fn settings_are_of_the_interface_and_nothing_else() {
        let path = |setting| setting_path(setting, "eth0.1").ok();
        assert_eq!(path("net.ipv4.conf.IFNAME.log_martians").unwrap(), "net/ipv4/conf/eth0.1/log_martians");
        assert_eq!(path("net.ipv4.conf.ifname.log_martians"), path("net.ipv4.conf.IFNAME.log_martians"));
        for setting in [
            "net.ipv4.ip_forward",
            "net.ipv4.conf.eth0.log_martians",
            "kernel.a.b.IFNAME.c",
            "net.ipv4.conf.IFNAME.../x",
            "net.ipv4..IFNAME.x",
            "net.ipv4/conf.x.IFNAME.y",
        ] {
            assert_eq!(path(setting), None, "{setting}");
        }
    }
}
