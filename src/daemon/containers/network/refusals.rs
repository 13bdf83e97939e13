//! What may not be asked of a place in a network, in Docker's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Places;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::network::{Driver, Network, Wanted};
use crate::http::api::container::EndpointSettings;

const HOST_CONNECT: &str = "container cannot be disconnected from host network or connected to host network";
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
const NONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

/// Six bytes, or nothing.
pub fn mac_address(text: &str) -> Result<()> {
    let is_byte = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    if text.is_empty() || (text.split(':').count() == 6 && text.split(':').all(is_byte)) {
        Ok(())
    } else {
        Err(Error::invalid(format!("{text} is not a valid mac address")))
    }
}

/// Reads what is asked of a place, wherever that will be.
///
/// # Errors
/// InvalidParameter.
pub fn endpoint(asked: &EndpointSettings) -> Result<Wanted> {
    mac_address(&asked.mac_address)?;
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
    wanted.mac = Some(asked.mac_address.to_ascii_lowercase()).filter(|mac| !mac.is_empty());
    Ok(wanted)
}

/// Checks what is asked of a place against its network.
///
/// # Errors
/// InvalidParameter.
pub fn place(network: &Network, asked: &EndpointSettings) -> Result<()> {
    let wanted = endpoint(asked)?;
    let has_address = wanted.ipv4.is_some() || wanted.ipv6.is_some() || !wanted.link_local.is_empty();
    if network.is_predefined() && has_address {
        return Err(Error::invalid("user specified IP address is supported on user defined networks only"));
    }
    if network.is_predefined() && asked.aliases.as_ref().is_some_and(|aliases| !aliases.is_empty()) {
        return Err(Error::invalid(
            "network-scoped alias is supported only for containers in user defined networks",
        ));
    }
    for (address, family) in [(wanted.ipv4.map(IpAddr::V4), "IPv4"), (wanted.ipv6.map(IpAddr::V6), "IPv6")] {
        let Some(address) = address else { continue };
        if !network.pools.iter().any(|pool| pool.subnet.contains(address)) {
            return Err(Error::invalid(format!(
                "invalid config for network {}: invalid endpoint settings:\nno configured subnet contains {} address \
                 {address}",
                network.name,
                if family == "IPv4" { "IP" } else { "IPv6" },
            )));
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
