//! What a request for a network asks, checked; subnets are chosen by the store, which knows those in use.
//!
//! Source: Docker 28, for the order of the checks, their words and classes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::network::{Driver, Network, Pool, is_predefined, option};
use super::subnet::Subnet;
use crate::daemon::config::NetworkDefaults;
use crate::daemon::error::{Error, Result};
use crate::http::api::Class;
use crate::http::api::network::{Ipam, IpamConfig, NetworkCreate};

/// The only address manager.
const DEFAULT_IPAM: &str = "default";

/// The network asked for, with the pools that were named: without an id, and without what a template adds.
///
/// # Errors
/// InvalidParameter, Forbidden or NotFound, in Docker's words.
pub fn check(request: NetworkCreate, defaults: &NetworkDefaults) -> Result<Network> {
    let name = request.name;
    if is_predefined(&name) {
        // Compat: with the blank at its end.
        return Err(Error::forbidden(format!("operation is not permitted on predefined {name} network ")));
    }
    let driver = if request.driver.is_empty() { Driver::Bridge.name() } else { request.driver.as_str() };
    if driver == "overlay" {
        return Err(Error::forbidden(
            "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this \
             node to swarm and try again.",
        ));
    }
    let config_from = request.config_from.map(|from| from.network).unwrap_or_default();
    let mut options = request.options;
    if config_from.is_empty() {
        for (key, value) in defaults.default_opts.get(driver).into_iter().flatten() {
            options.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let ipv4 = family(request.enable_ipv4, &mut options, option::ENABLE_IPV4, true)?;
    let ipv6 = family(request.enable_ipv6, &mut options, option::ENABLE_IPV6, false)?;
    let ipam = request.ipam.unwrap_or_default();
    let pools = pools(&ipam, ipv6)?;
    if name.trim().is_empty() {
        return Err(Error::invalid("invalid name: name is empty"));
    }
    let is_operators = request.ingress || request.internal || request.attachable || !request.scope.is_empty();
    if request.config_only && is_operators {
        return Err(Error::forbidden(
            "configuration network can only contain network specific fields. Network operator fields like \
             [ ingress | internal | attachable | scope ] are not supported.",
        ));
    }
    let network = Network {
        name,
        driver: if request.config_only { Driver::Null } else { known(driver)? },
        internal: request.internal,
        attachable: request.attachable,
        ipv4,
        ipv6,
        pools: pools.into_iter().filter(|pool| if pool.subnet.is_ipv6() { ipv6 } else { ipv4 }).collect(),
        options,
        ipam_options: ipam.options,
        labels: request.labels,
        config_from,
        config_only: request.config_only,
        ..Network::default()
    };
    if !network.config_from.is_empty() {
        check_dependent(&network, &ipam.driver)?;
    }
    if network.config_only {
        return Ok(network);
    }
    if request.ingress {
        return Err(Error::forbidden("Ingress network can only be global scope network"));
    }
    match request.scope.as_str() {
        "" | "local" => {}
        "swarm" => {
            let refusal = "cannot create a swarm scoped network when swarm is not active";
            return Err(Error::forbidden(refusal));
        }
        other => return Err(Error::forbidden(format!("networks of scope {other} are not supported"))),
    }
    match ipam.driver.as_str() {
        "" | DEFAULT_IPAM => Ok(network),
        // An address manager that gives none.
        "null" if !ipv4 && !ipv6 => Ok(network),
        "null" => Err(no_pool(!ipv4)),
        other => Err(no_plugin(other)),
    }
}

/// Whether a family is on: as asked, else as the option says, which only stands for what was not asked.
fn family(
    asked: Option<bool>,
    options: &mut BTreeMap<String, String>,
    key: &str,
    default: bool,
) -> Result<bool> {
    if let Some(asked) = asked {
        options.remove(key);
        return Ok(asked);
    }
    match options.get(key) {
        None => Ok(default),
        Some(text) => {
            parse_bool(text).ok_or_else(|| Error::invalid(format!("driver-opt {key:?} is not a valid bool")))
        }
    }
}

fn known(driver: &str) -> Result<Driver> {
    match driver {
        "bridge" => Ok(Driver::Bridge),
        "macvlan" => Ok(Driver::Macvlan),
        "ipvlan" => Ok(Driver::Ipvlan),
        "host" | "null" => {
            Err(Error::forbidden(format!("only one instance of \"{driver}\" network is allowed")))
        }
        other => Err(no_plugin(other)),
    }
}

fn no_plugin(name: &str) -> Error {
    Error::not_found(format!("plugin {name:?} not found"))
}

fn no_pool(is_ipv6: bool) -> Error {
    Error::invalid(format!("ipv{} pool is empty", if is_ipv6 { 6 } else { 4 }))
}

/// What depends on a template brings nothing of its own.
fn check_dependent(network: &Network, ipam: &str) -> Result<()> {
    if network.config_only {
        return Err(Error::forbidden(
            "a configuration network cannot depend on another configuration network",
        ));
    }
    if !matches!(ipam, "" | DEFAULT_IPAM)
        || !network.ipv4
        || network.ipv6
        || !network.labels.is_empty()
        || network.ipam_options.as_ref().is_some_and(|options| !options.is_empty())
        || !network.pools.is_empty()
    {
        return Err(Error::forbidden(
            "user-specified configurations are not supported if the network depends on a configuration network",
        ));
    }
    if !network.options.is_empty() {
        return Err(Error::forbidden(
            "network driver options are not supported if the network depends on a configuration network",
        ));
    }
    Ok(())
}

/// Takes over from a template what it says.
pub fn apply(template: &Network, network: &mut Network) {
    network.ipv4 = template.ipv4;
    network.ipv6 = template.ipv6;
    network.labels.clone_from(&template.labels);
    network.options.clone_from(&template.options);
    network.pools.clone_from(&template.pools);
    if template.ipam_options.is_some() {
        network.ipam_options.clone_from(&template.ipam_options);
    }
}

/// The pools of a request. All that is wrong with them is told at once.
fn pools(ipam: &Ipam, has_ipv6: bool) -> Result<Vec<Pool>> {
    let (mut pools, mut faults) = (Vec::new(), Vec::new());
    for config in ipam.config.iter().flatten() {
        match config.subnet.parse::<Subnet>() {
            Err(_) => faults.push(format!("invalid subnet {}: invalid CIDR block notation", config.subnet)),
            Ok(subnet) if subnet.is_ipv6() && !has_ipv6 => {}
            Ok(subnet) => pools.push(pool(subnet, config, &mut faults)),
        }
    }
    match &faults[..] {
        [] => Ok(pools),
        [fault] => Err(Error::invalid(format!("invalid network config:\n{fault}"))),
        faults => Err(Error::invalid(format!("invalid network config:\n* {}", faults.join("\n* ")))),
    }
}

fn pool(subnet: Subnet, config: &IpamConfig, faults: &mut Vec<String>) -> Pool {
    if subnet != subnet.network() {
        faults.push(format!("invalid subnet {subnet}: it should be {}", subnet.network()));
    }
    let range = (!config.ip_range.is_empty()).then(|| range(subnet, &config.ip_range, faults)).flatten();
    let mut inside = |what: &str, text: &str| match address(subnet, text) {
        Ok(address) => Some(address),
        Err(fault) => {
            faults.push(format!("invalid {what}: {fault}"));
            None
        }
    };
    let gateway = match config.gateway.as_str() {
        "" => None,
        text => inside(&format!("gateway {text}"), text),
    };
    let auxiliary = config
        .auxiliary_addresses
        .iter()
        .filter_map(|(name, text)| Some((name.clone(), inside(&format!("auxiliary address {name}"), text)?)));
    Pool { subnet, range, gateway, auxiliary: auxiliary.collect(), is_chosen: true }
}

fn range(subnet: Subnet, text: &str, faults: &mut Vec<String>) -> Option<Subnet> {
    let Ok(range) = text.parse::<Subnet>() else {
        faults.push(format!("invalid ip-range {text}: invalid CIDR block notation"));
        return None;
    };
    if range.is_ipv6() != subnet.is_ipv6() {
        faults.push(format!("invalid ip-range {text}: parent subnet is an {} block", block(subnet)));
        return None;
    }
    let before = faults.len();
    if range.prefix < subnet.prefix {
        let fault = format!("CIDR block is bigger than its parent subnet {subnet}");
        faults.push(format!("invalid ip-range {text}: {fault}"));
    }
    if range != range.network() {
        faults.push(format!("invalid ip-range {range}: it should be {}", range.network()));
    }
    if !subnet.overlaps(&range) {
        faults.push(format!("invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"));
    }
    (faults.len() == before).then_some(range)
}

fn address(subnet: Subnet, text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| "invalid address".to_owned())?;
    if address.is_ipv6() != subnet.is_ipv6() {
        return Err(format!("parent subnet is an {} block", block(subnet)));
    }
    match subnet.contains(address) {
        true => Ok(address),
        false => Err(format!("parent subnet {subnet} doesn't contain this address")),
    }
}

fn block(subnet: Subnet) -> &'static str {
    if subnet.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// The options of a driver, and what it does not do.
///
/// # Errors
/// InvalidParameter or System, in Docker's words.
pub fn check_options(network: &Network) -> Result<()> {
    let given = |key: &str| network.options.get(key).map_or("", String::as_str);
    let plain = |message: String| Err(Error { class: Class::System, message });
    match network.driver {
        Driver::Bridge => {
            for (key, value) in &network.options {
                check_bridge_option(key, value).map_err(|cause| {
                    Error::invalid(format!("failed to parse {key} value: {value} ({cause})"))
                })?;
            }
            let is_isolated = [option::GATEWAY_MODE_IPV4, option::GATEWAY_MODE_IPV6]
                .iter()
                .any(|key| given(key) == "isolated");
            if is_isolated && !network.internal {
                return plain("gateway mode 'isolated' can only be used for an internal network".to_owned());
            }
        }
        Driver::Macvlan => match given(option::MACVLAN_MODE) {
            "" | "bridge" | "private" | "passthru" | "vepa" => {}
            mode => {
                return plain(format!(
                    "requested macvlan mode '{mode}' is not valid, 'bridge' mode is the macvlan driver default"
                ));
            }
        },
        Driver::Ipvlan => {
            match given(option::IPVLAN_MODE) {
                "" | "l2" | "l3" | "l3s" => {}
                mode => {
                    return plain(format!(
                        "requested ipvlan mode '{mode}' is not valid, 'l2' mode is the ipvlan driver default"
                    ));
                }
            }
            match given(option::IPVLAN_FLAG) {
                "" | "bridge" | "private" | "vepa" => {}
                flag => {
                    return plain(format!(
                        "requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default"
                    ));
                }
            }
        }
        Driver::Host | Driver::Null => {}
    }
    if network.driver != Driver::Bridge && given(option::PARENT) == "lo" {
        let driver = network.driver.name();
        return plain(format!("loopback interface is not a valid {driver} parent link"));
    }
    Ok(())
}

fn check_bridge_option(key: &str, value: &str) -> Result<(), String> {
    match key {
        option::MTU if value.parse::<i64>().is_err() => {
            Err(format!("strconv.Atoi: parsing {value:?}: invalid syntax"))
        }
        option::ICC
        | option::MASQUERADE
        | option::INHIBIT_IPV4
        | option::DEFAULT_BRIDGE
        | option::ENABLE_IPV4
        | option::ENABLE_IPV6
            if parse_bool(value).is_none() =>
        {
            Err(format!("strconv.ParseBool: parsing {value:?}: invalid syntax"))
        }
        option::GATEWAY_MODE_IPV4 | option::GATEWAY_MODE_IPV6
            if !matches!(value, "nat" | "nat-unprotected" | "routed" | "isolated") =>
        {
            Err(format!("unknown gateway mode {value}"))
        }
        option::HOST_BINDING if value.parse::<IpAddr>().is_err() => Err("nil ip".to_owned()),
        option::HOST_IPV4 if value.parse::<Ipv4Addr>().is_err() => Err("nil ip".to_owned()),
        option::HOST_IPV6 if value.parse::<Ipv6Addr>().is_err() => Err("nil ip".to_owned()),
        _ => Ok(()),
    }
}

/// Source: Go's ParseBool.
fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Whether the network itself has an address in the pools of this family.
pub fn needs_gateway(network: &Network, is_ipv6: bool) -> bool {
    let given = |key: &str| network.options.get(key).map_or("", String::as_str);
    let is_closed = network.internal || given(option::PARENT).is_empty();
    match network.driver {
        Driver::Bridge if is_ipv6 => given(option::GATEWAY_MODE_IPV6) != "isolated",
        Driver::Bridge => {
            let is_inhibited = network.internal && network.switch(option::INHIBIT_IPV4, false);
            given(option::GATEWAY_MODE_IPV4) != "isolated" && !is_inhibited
        }
        Driver::Macvlan => !is_closed,
        Driver::Ipvlan => !is_closed && !matches!(given(option::IPVLAN_MODE), "l3" | "l3s"),
        Driver::Host | Driver::Null => false,
    }
}

/// What a bridge does not do, and what no network can have for a subnet.
///
/// # Errors
/// InvalidParameter or Forbidden, in Docker's words.
pub fn check_pools(network: &Network) -> Result<()> {
    if network.driver == Driver::Bridge && !network.ipv4 && !network.ipv6 {
        return Err(Error::invalid("IPv4 or IPv6 must be enabled"));
    }
    if let Some(pool) = network.pools.iter().find(|pool| pool.subnet.prefix == 0) {
        return Err(no_pool(pool.subnet.is_ipv6()));
    }
    if network.driver != Driver::Bridge {
        return Ok(());
    }
    if network.pools_of(false).count() > 1 || network.pools_of(true).count() > 1 {
        return Err(Error::forbidden("bridge driver doesn't support multiple subnets"));
    }
    if let Some(mtu) = network.options.get(option::MTU)
        && mtu.starts_with('-')
    {
        return Err(Error::invalid(format!("invalid MTU number: {mtu}")));
    }
    for pool in network.pools_of(true) {
        let subnet = pool.subnet;
        let IpAddr::V6(first) = subnet.first() else { continue };
        if first.is_multicast() {
            return Err(Error::invalid(format!("multicast subnet '{subnet}' is not allowed")));
        }
        let link_local = Subnet { address: IpAddr::V6([0xfe80, 0, 0, 0, 0, 0, 0, 0].into()), prefix: 64 };
        if subnet != link_local && link_local.overlaps(&subnet) {
            let fault = format!("'{subnet}' clashes with the Link-Local prefix '{link_local}'");
            return Err(Error::invalid(fault));
        }
    }
    Ok(())
}

/// Why a network cannot live on its parent beside those that do. Source: Docker 28, whose macvlan networks share one
/// unless a mode takes it whole, and whose ipvlan networks do not.
pub fn same_parent<'a>(network: &Network, others: impl Iterator<Item = &'a Arc<Network>>) -> Option<Error> {
    let parent = network.options.get(option::PARENT).filter(|name| !name.is_empty())?;
    let others = others.filter(|other| other.driver == network.driver);
    let mut others =
        others.filter(|other| !other.config_only && other.options.get(option::PARENT) == Some(parent));
    let is_whole =
        |network: &Network| network.options.get(option::MACVLAN_MODE).is_some_and(|mode| mode == "passthru");
    let message = match network.driver {
        Driver::Macvlan if is_whole(network) => {
            let other = others.next()?;
            let id = &other.id;
            format!(
                "cannot use mode passthru, macvlan network {id} is already using parent interface {parent}"
            )
        }
        Driver::Macvlan => {
            let other = others.find(|other| is_whole(other))?;
            let id = &other.id;
            format!("macvlan network {id} is already using parent interface {parent} in mode passthru")
        }
        Driver::Ipvlan => {
            let other = others.next()?;
            let id = other.id.get(..12).unwrap_or(&other.id);
            format!("network di-{id} is already using parent interface {parent}")
        }
        Driver::Bridge | Driver::Host | Driver::Null => return None,
    };
    Some(Error { class: Class::System, message })
}

#[cfg(test)]
mod tests;
