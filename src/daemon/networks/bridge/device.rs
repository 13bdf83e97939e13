//! The bridge itself: made, marked, addressed.

use std::fs;
use std::io;
use std::net::Ipv6Addr;

use super::{Host, Owner, Wiring};
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::network::{Network, option};
use crate::daemon::networks::subnet::Subnet;
use crate::daemon::networks::{endpoint, firewall};
use crate::runtime::netlink::address::{self, Address};
use crate::runtime::netlink::link::{self, Which};
use crate::runtime::netns;

/// linux/if.h: room for a name, without its NUL.
const NAME_BYTES: usize = 15;
/// What a bridge needs to hand traffic of the host's own, sent to 127.0.0.1, to a container.
const ROUTE_LOCALNET: &str = "route_localnet";

impl Wiring {
    /// The bridge's own addresses.
    fn bridge_addresses(&self, network: &Network) -> Vec<Subnet> {
        let is_default = Wiring::is_default(network);
        let mut addresses = Vec::new();
        for pool in &network.pools {
            let is_ipv6 = pool.subnet.is_ipv6();
            let mode = if is_ipv6 { option::GATEWAY_MODE_IPV6 } else { option::GATEWAY_MODE_IPV4 };
            let is_isolated = network.options.get(mode).is_some_and(|mode| mode == "isolated");
            if is_isolated || (!is_ipv6 && network.switch(option::INHIBIT_IPV4, false)) {
                continue;
            }
            let own = if is_ipv6 { self.defaults.bip6 } else { self.defaults.bip };
            let own = own.filter(|own| is_default && pool.subnet.contains(own.address));
            let address = own.map(|own| own.address).or(pool.gateway);
            addresses.extend(address.map(|address| Subnet { address, prefix: pool.subnet.prefix }));
        }
        if network.pools_of(true).next().is_some() {
            // Compat: every bridge with IPv6 has this one.
            addresses.push(Subnet { address: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).into(), prefix: 64 });
        }
        addresses
    }

    /// The bridge of a network as it should be; gives its index.
    pub(super) fn ensure(&self, host: &mut Host, network: &Network) -> Result<u32> {
        let name = self.bridge_name(network);
        let failed = |error: io::Error| Error::system(format!("make bridge {name}"), error);
        if name.len() > NAME_BYTES || name.is_empty() || name.contains(['/', ' ']) || name.starts_with('.') {
            return Err(Error::invalid(format!("invalid bridge name: {name}")));
        }
        let socket = host.socket().map_err(failed)?;
        let found = link::find(socket, Which::Name(&name)).map_err(failed)?;
        let mark = self.mark_of(&Owner::Network(network.id.clone()));
        let is_ours = found.as_ref().is_none_or(|found| found.alias == mark);
        let index = match found {
            Some(found) if found.kind != "bridge" => {
                return Err(Error::conflict(format!("existing interface {name} is not a bridge")));
            }
            Some(found) if found.alias.starts_with("dewar") && !is_ours => {
                return Err(Error::conflict(format!(
                    "bridge {name} belongs to another network: {}",
                    found.alias
                )));
            }
            Some(found) => found.index,
            None if self.is_given(network) => {
                return Err(Error::not_found(format!(
                    "bridge device with non default name {name} must be created manually"
                )));
            }
            None => {
                let mut marked = link::change(Which::Name(&name), None);
                marked.string(libc::IFLA_IFALIAS, &mark);
                let made = link::bridge(&name, endpoint::bridge_mac(&network.id), self.mtu(network));
                socket.run(&[made, marked]).map_err(|error| failed(error.into()))?;
                let found = link::find(socket, Which::Name(&name)).map_err(failed)?;
                found.ok_or_else(|| failed(rustix::io::Errno::NODEV.into()))?.index
            }
        };
        let has_ipv6 = network.pools_of(true).next().is_some();
        if is_ours {
            set_up(&name, has_ipv6).map_err(failed)?;
            if Wiring::is_default(network) && firewall::needs_isolation(network) {
                speak_through_the_host(&name).map_err(failed)?;
            }
        }
        let wanted = self.bridge_addresses(network).into_iter();
        let mut requests: Vec<_> = wanted
            .map(|own| address::add(&Address { index, address: own.address, prefix: own.prefix }))
            .collect();
        requests.push(link::change(Which::Index(index), Some(true)));
        socket.run(&requests).map_err(|error| failed(error.into()))?;
        if self.defaults.ip_forward && !network.internal {
            forward(&mut host.forwards, has_ipv6).map_err(failed)?;
        }
        host.bridges.insert(network.id.clone(), index);
        Ok(index)
    }
}

/// Settings of a bridge of ours, before it is up.
fn set_up(name: &str, has_ipv6: bool) -> io::Result<()> {
    netns::set(&format!("net/ipv4/conf/{name}/{ROUTE_LOCALNET}"), "1")?;
    let ipv6 = |setting: &str, value: &str| netns::set(&format!("net/ipv6/conf/{name}/{setting}"), value);
    if has_ipv6 {
        ipv6("disable_ipv6", "0")?;
        // Containers are no routers (CVE-2020-13401).
        return ipv6("accept_ra", "0");
    }
    without_ipv6(name)
}

/// Has containers whose ports are kept apart reach each other by way of the host, whose rules say which may: those
/// that are linked. The host answers for their addresses, and at once.
fn speak_through_the_host(name: &str) -> io::Result<()> {
    netns::set(&format!("net/ipv4/conf/{name}/proxy_arp_pvlan"), "1")?;
    netns::set(&format!("net/ipv4/neigh/{name}/proxy_delay"), "0")
}

/// Spares an interface that is only to be in a bridge addresses of its own: each costs routes, in lists that are walked.
/// Before it is up.
pub(super) fn only_a_port(name: &str) -> io::Result<()> {
    without_ipv6(name)
}

fn without_ipv6(name: &str) -> io::Result<()> {
    match netns::set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1") {
        // A kernel without IPv6 has nothing to turn off.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Has the host pass on what is not for it.
fn forward(done: &mut [bool; 2], has_ipv6: bool) -> io::Result<()> {
    if !done[0] {
        netns::set("net/ipv4/ip_forward", "1")?;
        done[0] = true;
    }
    if done[1] || !has_ipv6 {
        return Ok(());
    }
    let forwards = fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding")?;
    if forwards.trim() != "1" {
        // A host that forwards takes no route from a router any more unless told that it still should.
        for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
            let setting = entry?.path().join("accept_ra");
            if fs::read_to_string(&setting).is_ok_and(|value| value.trim() == "1") {
                fs::write(&setting, "2")?;
            }
        }
        netns::set("net/ipv6/conf/default/forwarding", "1")?;
        netns::set("net/ipv6/conf/all/forwarding", "1")?;
    }
    done[1] = true;
    Ok(())
}
