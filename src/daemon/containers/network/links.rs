//! `--link`: on the default bridge lines of the hosts file and variables, and with `--icc=false` the other's exposed
//! ports; elsewhere names only the one that links sees.

use std::net::IpAddr;
use std::sync::Arc;

use super::of_mode;
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::firewall::Passage;
use crate::daemon::networks::network::option;
use crate::daemon::networks::ports::Protocol;
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

/// Which containers are there for [`passages`] beside those that live.
#[derive(Clone, Copy)]
enum Now<'a> {
    All,
    /// This one is about to.
    With(&'a Record),
    /// This one has ended, by id.
    Without(&'a str),
}

/// What a container on the default bridge is let through to by its links; nothing of those who do not run.
fn passages(engine: &Engine, record: &Record, now: Now<'_>) -> Vec<Passage> {
    let links = record.host_config.links.iter().flatten().filter_map(|text| parse(engine, text).ok());
    let mut list = Vec::new();
    for link in links {
        let other = match now {
            Now::Without(id) if link.container.id == id => continue,
            Now::With(starting) if link.container.id == starting.id => starting.clone(),
            _ => Some(link.container.record()).filter(|other| other.state.is_alive()).unwrap_or_default(),
        };
        let (own, its) = (addresses(record), addresses(&other));
        for (number, name) in exposed(&other) {
            let Some(protocol) = Protocol::named(name) else { continue };
            let pairs = own.iter().zip(&its).filter_map(|(from, to)| Some(((*from)?, (*to)?)));
            list.extend(pairs.map(|(from, to)| Passage { from, to, protocol, port: number }));
        }
    }
    list
}

/// On the default bridge: IPv4, IPv6.
fn addresses(record: &Record) -> [Option<IpAddr>; 2] {
    let given = record.networks.get("bridge").and_then(|place| place.given.as_ref());
    given.map_or([None; 2], |given| [given.ipv4, given.ipv6].map(|subnet| Some(subnet?.address)))
}

/// Whether links open anything: containers of the default bridge may not speak to each other anyway.
fn is_needed(engine: &Engine) -> bool {
    engine.networks.find("bridge").is_ok_and(|network| !network.switch(option::ICC, true))
}

/// Opens, to a container that is about to run, the exposed ports of those it is linked to, and its own to those that
/// are linked to it.
///
/// # Errors
/// System, with the kernel's reason.
pub fn open(engine: &Engine, record: &Record) -> Result<()> {
    if !is_needed(engine) {
        return Ok(());
    }
    engine.firewall.link(&record.id, passages(engine, record, Now::All))?;
    linked_to(engine, &record.id)
        .iter()
        .try_for_each(|other| engine.firewall.link(&other.id, passages(engine, other, Now::With(record))))
}

/// Opens what a living container's links open, for a daemon that has just started.
///
/// # Errors
/// System, with the kernel's reason.
pub fn adopt(engine: &Engine, record: &Record) -> Result<()> {
    match is_needed(engine) {
        true => engine.firewall.link(&record.id, passages(engine, record, Now::All)),
        false => Ok(()),
    }
}

/// Closes what was opened to a container, and what was opened of it.
///
/// # Errors
/// System, with the kernel's reason; the rest has been tried.
pub fn close(engine: &Engine, record: &Record) -> Result<()> {
    if !is_needed(engine) {
        return Ok(());
    }
    let mut result = engine.firewall.link(&record.id, Vec::new());
    for other in linked_to(engine, &record.id) {
        let list = passages(engine, &other, Now::Without(&record.id));
        result = result.and(engine.firewall.link(&other.id, list));
    }
    result
}

/// The living containers that are linked to one.
fn linked_to(engine: &Engine, id: &str) -> Vec<Record> {
    let all = engine.containers.all();
    let living = all.iter().filter(|other| {
        let inner = other.lock();
        inner.record.state.is_alive() && inner.record.host_config.links.iter().flatten().next().is_some()
    });
    let is_linked = |record: &Record| {
        let links = record.host_config.links.iter().flatten();
        links.filter_map(|text| parse(engine, text).ok()).any(|link| link.container.id == id)
    };
    living.map(|other| other.record()).filter(|record| record.id != id && is_linked(record)).collect()
}

/// The ports of a container's configuration, with what is spoken there.
fn exposed(record: &Record) -> Vec<(u16, &str)> {
    let ports = record.config.exposed_ports.keys();
    ports
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            Some((number.parse().ok()?, protocol))
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
        let mut ports = exposed(&other);
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
