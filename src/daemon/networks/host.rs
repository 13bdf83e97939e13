//! What of the host's surroundings a subnet nobody chose keeps away from.
//!
//! And what an interface has that the default bridge is to be.
//!
//! Source: `/proc/net/route` (proc_net(5)), resolv.conf(5). Docker looks at name servers and at routes without a
//! gateway; what is reached through one is reached no more either once a bridge has its addresses, so that all
//! count here. A route to a sixteenth of all addresses or more is a way out, not a network.

use std::net::{IpAddr, Ipv4Addr};

use super::subnet::Subnet;
use crate::runtime::netlink::{Protocol, Socket, address, link};

/// The shortest prefix that counts as a network.
const SHORTEST: u8 = 8;

/// The ranges of a family that are in use around this host; empty where they cannot be read. Blocks for two reads.
pub fn ranges(is_ipv6: bool) -> Vec<Subnet> {
    let servers = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut ranges: Vec<Subnet> = name_servers(&servers).filter(|one| one.is_ipv6() == is_ipv6).collect();
    if !is_ipv6 {
        // Compat: Docker's IPv6 subnets are drawn by lot, and need no look at routes.
        ranges.extend(routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default()));
    }
    ranges
}

/// The address that an interface of somebody else's has in a family: the first one, or the one whose subnet has
/// `range` in it. None when there is no such interface. Blocks for a look.
pub fn address_of(interface: &str, is_ipv6: bool, range: Option<Subnet>) -> Option<Subnet> {
    let look = || -> std::io::Result<Option<Subnet>> {
        let mut socket = Socket::open(Protocol::Route)?;
        let Some(link) = link::find(&mut socket, link::Which::Name(interface))? else { return Ok(None) };
        let mut own = address::list(&mut socket)?;
        own.retain(|one| one.index == link.index);
        let subnets = own.iter().map(|one| Subnet { address: one.address, prefix: one.prefix });
        Ok(suitable(subnets, is_ipv6, range))
    };
    look().unwrap_or_else(|cause| {
        log::error!("look at the addresses of {interface:?}: {cause}");
        None
    })
}

fn suitable(
    mut subnets: impl Iterator<Item = Subnet>,
    is_ipv6: bool,
    range: Option<Subnet>,
) -> Option<Subnet> {
    subnets.find(|one| {
        let is_local = matches!(one.address, IpAddr::V6(address) if address.is_unicast_link_local());
        one.is_ipv6() == is_ipv6 && !is_local && range.is_none_or(|range| one.contains(range.first()))
    })
}

fn name_servers(text: &str) -> impl Iterator<Item = Subnet> {
    text.lines().filter_map(|line| {
        let address = line.trim_start().strip_prefix("nameserver")?.split_whitespace().next()?;
        let address: IpAddr = address.split('%').next()?.parse().ok()?;
        Some(Subnet { address, prefix: if address.is_ipv6() { 128 } else { 32 } })
    })
}

/// Destination and mask are the second and the eighth column, each a word in the host's order of the network's bytes.
fn routes(text: &str) -> impl Iterator<Item = Subnet> {
    text.lines().skip(1).filter_map(|line| {
        let word = |at: usize| {
            let text = line.split_whitespace().nth(at)?;
            u32::from_str_radix(text, 16).ok().map(|word| Ipv4Addr::from(word.to_ne_bytes()))
        };
        let prefix = u32::from(word(7)?).leading_ones() as u8;
        (prefix >= SHORTEST).then_some(Subnet { address: word(1)?.into(), prefix })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn routes_and_name_servers_are_read() {
        let text = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            tun0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n\
            eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            eth0\t000012AC\t010200C0\t0003\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let found: Vec<String> = routes(text).map(|one| one.to_string()).collect();
        assert_eq!(found, ["192.0.2.0/24", "172.18.0.0/16"]);
        let own = ["fe80::1/64", "198.18.0.1/24", "198.19.0.1/24", "fd00::1/64"];
        let own = || own.iter().map(|text| text.parse::<Subnet>().unwrap());
        let found =
            |is_ipv6, range: &str| suitable(own(), is_ipv6, range.parse().ok()).map(|one| one.to_string());
        assert_eq!(found(false, "").as_deref(), Some("198.18.0.1/24"));
        assert_eq!(found(false, "198.19.0.128/25").as_deref(), Some("198.19.0.1/24"));
        assert_eq!(found(true, "").as_deref(), Some("fd00::1/64"));
        assert_eq!(found(true, "fd01::/64"), None);
        let text = "# nameserver 1.1.1.1\nnameserver 172.17.0.53\nnameserver fe80::1%eth0 \nnameserver x\n";
        let found: Vec<String> = name_servers(text).map(|one| one.to_string()).collect();
        assert_eq!(found, ["172.17.0.53/32", "fe80::1/128"]);
    }
}
