//! `--link`: on the default bridge lines of the hosts file and variables, elsewhere names only the one that links sees.

use std::net::IpAddr;
use std::sync::Arc;

use super::of_mode;
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::EndpointSettings;

/// The other container, and what it is called here.
pub struct Link {
    pub container: Arc<Container>,
    pub alias: String,
}

/// `name` or `name:alias`.
fn parse(engine: &Engine, text: &str) -> Result<Link> {
    let (name, alias) = match text.split_once(':') {
        Some((name, alias)) if !alias.is_empty() => (name, alias),
        Some((name, _)) => (name, name),
        None => (text, text),
    };
    let container = engine
        .containers
        .get(name)
        .map_err(|error| Error::invalid(format!("could not get container for {name}: {error}")))?;
    Ok(Link { container, alias: alias.trim_start_matches('/').to_owned() })
}

/// Checks the links of a new container.
///
/// # Errors
/// InvalidParameter for what is no link or no container's name.
pub fn check(engine: &Engine, links: &[String]) -> Result<()> {
    for text in links {
        let link = parse(engine, text)?;
        let mode = link.container.record().host_config.network_mode;
        if mode == "host" {
            return Err(Error::invalid(
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior",
            ));
        }
    }
    Ok(())
}

/// The links that count on the default bridge.
///
/// # Errors
/// Conflict when one of the others does not run.
fn legacy(engine: &Engine, record: &Record) -> Result<Vec<(Link, Record, IpAddr)>> {
    if of_mode(&record.host_config.network_mode) != Some("bridge") {
        return Ok(Vec::new());
    }
    let links = record.host_config.links.iter().flatten();
    links
        .map(|text| {
            let link = parse(engine, text)?;
            let other = link.container.record();
            let place = other.networks.get("bridge").and_then(|place| place.given.as_ref());
            let address = place.and_then(|given| given.ipv4.or(given.ipv6));
            match address {
                Some(subnet) if other.state.is_alive() => Ok((link, other, subnet.address)),
                _ => Err(Error::invalid(format!(
                    "Cannot link to a non running container: /{} AS /{}/{}",
                    other.name, record.name, link.alias
                ))),
            }
        })
        .collect()
}

/// Lines for the hosts file: an address and its names.
pub fn hosts(engine: &Engine, record: &Record) -> Result<Vec<(IpAddr, Vec<String>)>> {
    let line = |(link, other, address): (Link, Record, IpAddr)| {
        let mut names = vec![link.alias];
        for name in [other.config.hostname, other.name] {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        (address, names)
    };
    Ok(legacy(engine, record)?.into_iter().map(line).collect())
}

/// The variables that links set. Source: Docker's legacy links.
pub fn environment(engine: &Engine, record: &Record) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for (link, other, address) in legacy(engine, record)? {
        let prefix = link.alias.replace('-', "_").to_ascii_uppercase();
        let mut ports: Vec<(u16, &str)> = other
            .config
            .exposed_ports
            .keys()
            .filter_map(|port| {
                let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                Some((number.parse().ok()?, protocol))
            })
            .collect();
        // Source: Docker names the lowest tcp port, or the lowest of all, in PORT.
        ports.sort_by_key(|(number, protocol)| (*protocol != "tcp", *number));
        if let Some((number, protocol)) = ports.first() {
            variables.push(format!("{prefix}_PORT={protocol}://{address}:{number}"));
        }
        for (number, protocol) in ports {
            let name = format!("{prefix}_PORT_{number}_{}", protocol.to_ascii_uppercase());
            variables.push(format!("{name}={protocol}://{address}:{number}"));
            variables.push(format!("{name}_ADDR={address}"));
            variables.push(format!("{name}_PORT={number}"));
            variables.push(format!("{name}_PROTO={protocol}"));
        }
        variables.push(format!("{prefix}_NAME=/{}/{}", record.name, link.alias));
        for variable in &other.config.env {
            let name = variable.split('=').next().unwrap_or_default();
            if name != "HOME" && name != "PATH" {
                variables.push(format!("{prefix}_ENV_{variable}"));
            }
        }
    }
    Ok(variables)
}

/// As [`environment`], without the links whose other end has gone meanwhile.
pub fn environment_now(engine: &Engine, record: &Record) -> Vec<String> {
    environment(engine, record).unwrap_or_default()
}

/// What a container calls others in a network of the user's own: the alias, and the other's name there.
pub fn aliases(
    engine: &Engine,
    record: &Record,
    is_mode: bool,
    asked: &EndpointSettings,
) -> Vec<(String, String)> {
    let of_host = record.host_config.links.iter().flatten().filter(|_| is_mode);
    of_host
        .chain(asked.links.iter().flatten())
        .filter_map(|text| {
            let link = parse(engine, text).ok()?;
            Some((link.alias, link.container.id.clone()))
        })
        .collect()
}
