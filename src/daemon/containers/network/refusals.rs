//! What may not be asked of a place in a network, in Docker's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Places;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::mac;
use crate::daemon::networks::network::{Driver, Network, Wanted};
use crate::http::api::container::EndpointSettings;

const HOST_CONNECT: &str = "container cannot be disconnected from host network or connected to host network";
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
const NONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/// `02:42:ac:11:00:02`, whichever way it was written; none for nothing.
///
/// # Errors
/// InvalidParameter.
pub fn mac_address(text: &str) -> Result<Option<String>> {
    if text.is_empty() {
        return Ok(None);
    }
    match mac::parse(text) {
        Some(mac) => Ok(Some(mac::text(mac))),
        None => Err(Error::invalid(format!("{text} is not a valid mac address"))),
    }
}

/// Reads what is asked of a place, wherever that will be.
///
/// # Errors
/// InvalidParameter.
pub fn endpoint(asked: &EndpointSettings) -> Result<Wanted> {
    let invalid = |what: &str, text: &str| {
        Error::invalid(format!("invalid endpoint settings:\ninvalid {what} address: {text}"))
    };
    let mut wanted = Wanted::default();
    if let Some(ipam) = &asked.ipam_config {
        if !ipam.ipv4_address.is_empty() {
            let address: Option<Ipv4Addr> = ipam.ipv4_address.parse().ok();
            wanted.ipv4 = Some(address.ok_or_else(|| invalid("IPv4", &ipam.ipv4_address))?);
        }
        if !ipam.ipv6_address.is_empty() {
            let address: Option<Ipv6Addr> = ipam.ipv6_address.parse().ok();
            wanted.ipv6 = Some(address.ok_or_else(|| invalid("IPv6", &ipam.ipv6_address))?);
        }
        for text in &ipam.link_local_ips {
            let address: Option<IpAddr> = text.parse().ok();
            wanted.link_local.push(address.ok_or_else(|| invalid("link-local IP", text))?);
        }
    }
    wanted.mac = mac_address(&asked.mac_address)?;
    Ok(wanted)
}

/// Checks what is asked of a place against its network.
///
/// # Errors
/// InvalidParameter.
pub fn place(network: &Network, asked: &EndpointSettings) -> Result<()> {
    let wanted = endpoint(asked)?;
    let addresses = || [wanted.ipv4.map(IpAddr::V4), wanted.ipv6.map(IpAddr::V6)].into_iter().flatten();
    let refused = |fault: &str| {
        let name = &network.name;
        Err(Error::invalid(format!("invalid config for network {name}: invalid endpoint settings:\n{fault}")))
    };
    if network.is_predefined() && addresses().next().is_some() {
        return refused("user specified IP address is supported on user defined networks only");
    }
    if network.is_predefined() && asked.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        return refused("network-scoped alias is supported only for containers in user defined networks");
    }
    for address in addresses() {
        let mut chosen = network.pools_of(address.is_ipv6()).filter(|pool| pool.is_chosen).peekable();
        if chosen.peek().is_none() {
            return refused(
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            );
        }
        if !chosen.any(|pool| pool.subnet.contains(address)) {
            return refused(&format!("no configured subnet or ip-range contain the IP address {address}"));
        }
    }
    Ok(())
}

/// Checks that a container in `places` may be in this network too.
///
/// # Errors
/// InvalidParameter, with Docker's texts.
pub fn company(mode: &str, places: &Places, network: &Network) -> Result<()> {
    if mode == "host" || network.driver == Driver::Host {
        return Err(Error::invalid(HOST_CONNECT));
    }
    if mode.starts_with("container:") {
        return Err(Error::invalid(SHARED));
    }
    let others = places.keys().filter(|name| **name != network.name);
    let is_none = |name: &str| name == "none";
    if others.clone().any(|name| is_none(name)) || (is_none(&network.name) && others.count() > 0) {
        return Err(Error::invalid(NONE));
    }
    Ok(())
}

/// Checks that a new container's places go together.
///
/// # Errors
/// InvalidParameter.
pub fn together(mode: &str, places: &Places) -> Result<()> {
    if places.len() < 2 {
        return Ok(());
    }
    if mode == "host" || places.contains_key("host") {
        return Err(Error::invalid(SHARED));
    }
    if mode == "none" || places.contains_key("none") {
        return Err(Error::invalid(NONE));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::networks::network::Pool;

    fn network(name: &str, is_chosen: bool) -> Network {
        let (range, gateway) = (None, None);
        let subnet = "10.0.0.0/24".parse().unwrap();
        let pool = Pool { subnet, range, gateway, auxiliary: Default::default(), is_chosen };
        Network { name: name.to_owned(), ipv4: true, pools: vec![pool], ..Network::default() }
    }

    fn asked(json: serde_json::Value) -> EndpointSettings {
        crate::http::api::decode_value(json).unwrap()
    }

    #[test]
    fn addresses_are_chosen_where_subnets_were() {
        let with = |address: &str| asked(serde_json::json!({"IPAMConfig": {"IPv4Address": address}}));
        let of = |network: &Network, asked: &EndpointSettings| {
            place(network, asked).map_err(|error| error.message)
        };
        let invalid = |name: &str, fault: &str| {
            Err(format!("invalid config for network {name}: invalid endpoint settings:\n{fault}"))
        };
        assert_eq!(of(&network("a", true), &with("10.0.0.9")), Ok(()));
        assert_eq!(
            of(&network("a", true), &with("10.0.1.9")),
            invalid("a", "no configured subnet or ip-range contain the IP address 10.0.1.9")
        );
        assert_eq!(
            of(&network("a", false), &with("10.0.0.9")),
            invalid(
                "a",
                "user specified IP address is supported only when connecting to networks with user configured subnets"
            )
        );
        assert_eq!(
            of(&network("bridge", true), &with("10.0.0.9")),
            invalid("bridge", "user specified IP address is supported on user defined networks only")
        );
        assert!(of(&network("bridge", true), &asked(serde_json::json!({"Aliases": ["x"]}))).is_err());
        assert!(endpoint(&with("x")).is_err());
    }

    #[test]
    fn hardware_addresses_are_kept_as_docker_writes_them() {
        assert_eq!(mac_address("02-42-AC-11-00-02").unwrap().as_deref(), Some("02:42:ac:11:00:02"));
        assert_eq!(mac_address("").unwrap(), None);
        assert_eq!(mac_address("x").unwrap_err().message, "x is not a valid mac address");
    }
}
