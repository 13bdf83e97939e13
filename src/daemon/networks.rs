//! The networks there are: Docker's three predefined ones, to be looked at and joined, not changed.
//!
//! `host` is the host's own network, `none` a loopback interface alone. `bridge` is what containers get that
//! ask for nothing else; in this version it has no interfaces and no addresses, so it claims none.
//! Networks of one's own are refused where they are asked for.

#[allow(dead_code, reason = "in use once bridge networks are")]
pub mod network;
#[allow(dead_code, reason = "in use once bridge networks are")]
pub mod subnet;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::names;
use super::pattern::Pattern;
use super::state_dir::{self, Durability, Found, StateDir};
use crate::http::api::Filters;
use crate::http::api::container::EndpointSettings;
use crate::http::api::network::{Ipam, Network, NetworkEndpoint, NetworksPruned};

/// Name and driver, in the order of `docker network ls`.
const PREDEFINED: [(&str, &str); 3] = [("bridge", "bridge"), ("host", "host"), ("none", "null")];

/// What `GET /networks` can be asked for.
const FILTERS: [&str; 7] = ["name", "id", "driver", "type", "scope", "label", "dangling"];

/// `networks.json`: the ids, which stay the same from start to start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Networks {
    /// RFC 3339: when the ids were drawn.
    created: String,
    /// By name.
    ids: BTreeMap<String, String>,
}

impl Networks {
    /// Reads the ids, or draws them: at the first start, or when they cannot be read any more. No container's
    /// record has them, so that other ids cost nothing but themselves.
    pub fn open(state_dir: &StateDir) -> Result<Networks> {
        let path = state_dir.data_root.join("networks.json");
        let is_later = match state_dir::find::<Networks>(&path) {
            Found::Value(networks) if PREDEFINED.iter().all(|(name, _)| networks.ids.contains_key(*name)) => {
                return Ok(networks);
            }
            Found::Value(_) => {
                let kept = state_dir::put_aside(&path);
                log::error!("read {path:?}: a network is missing{kept}");
                false
            }
            Found::Later(_) => true,
            Found::Nothing | Found::Broken => false,
        };
        let mut networks =
            Networks { created: format!("{:.9}", jiff::Timestamp::now()), ids: BTreeMap::new() };
        for (name, _) in PREDEFINED {
            networks.ids.insert(name.to_owned(), names::new_id()?);
        }
        if !is_later {
            state_dir::save(&path, &networks, Durability::Synced)?;
        }
        Ok(networks)
    }

    /// The id of the network of this name; empty if there is none.
    pub fn id(&self, name: &str) -> &str {
        self.ids.get(name).map_or("", String::as_str)
    }

    /// Docker's order: whole id, name, prefix of one id. Gives the name.
    ///
    /// # Errors
    /// NotFound; InvalidParameter for an ambiguous prefix.
    pub fn find(&self, reference: &str) -> Result<&str> {
        let by = |test: &dyn Fn(&str, &str) -> bool| {
            self.ids.iter().filter(|(name, id)| test(name, id)).map(|(name, _)| name.as_str()).collect()
        };
        let mut found: Vec<&str> = by(&|name, id| id == reference || name == reference);
        if found.is_empty() && !reference.is_empty() {
            found = by(&|_, id| id.starts_with(reference));
        }
        match found[..] {
            [name] => Ok(name),
            [] => Err(Error::not_found(format!("network {reference} not found"))),
            _ => Err(Error::invalid(format!(
                "network {reference} is ambiguous ({} matches found)",
                found.len()
            ))),
        }
    }

    /// The networks of a container with this network mode, as `inspect` and `ps` show them; none when it
    /// shares another container's.
    pub fn of(&self, mode: &str, container: &str, is_alive: bool) -> BTreeMap<String, EndpointSettings> {
        let Some(name) = of_mode(mode) else { return BTreeMap::new() };
        let network_id = self.id(name).to_owned();
        let endpoint_id = if is_alive { endpoint_id(container, &network_id) } else { String::new() };
        let settings = EndpointSettings { network_id, endpoint_id, ..EndpointSettings::default() };
        BTreeMap::from([(name.to_owned(), settings)])
    }

    /// A network without its containers.
    fn describe(&self, name: &str) -> Network {
        let driver = PREDEFINED.iter().find(|(known, _)| *known == name).map_or("", |(_, driver)| driver);
        Network {
            name: name.to_owned(),
            id: self.id(name).to_owned(),
            created: self.created.clone(),
            scope: "local".to_owned(),
            driver: driver.to_owned(),
            // Compat: Docker calls all three of them enabled.
            enable_ipv4: true,
            ipam: Ipam {
                driver: "default".to_owned(),
                options: None,
                config: (name == "bridge").then(Vec::new),
            },
            ..Network::default()
        }
    }
}

/// The network a mode means: `default` is the bridge, `container:` none of its own.
pub fn of_mode(mode: &str) -> Option<&str> {
    match mode {
        "default" | "" => Some("bridge"),
        mode if mode.starts_with("container:") => None,
        name => Some(name),
    }
}

/// An endpoint's id: a container is in a network once, so the two ids mixed are one of its own that needs no
/// keeping.
fn endpoint_id(container: &str, network: &str) -> String {
    let digit = |letter: char| letter.to_digit(16).unwrap_or_default();
    container
        .chars()
        .zip(network.chars())
        .filter_map(|(one, other)| char::from_digit(digit(one) ^ digit(other), 16))
        .collect()
}

/// The networks that pass the filters, without their containers.
///
/// # Errors
/// InvalidParameter for a filter or a value Docker does not know.
pub fn list(networks: &Networks, filters: &Filters) -> Result<Vec<Network>> {
    if let Some(unknown) = filters.unknown(&FILTERS) {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    let is_dangling = filters.boolean("dangling").map_err(Error::invalid)?;
    if let Some(other) =
        filters.get("type").iter().find(|kind| !matches!(kind.as_str(), "builtin" | "custom"))
    {
        return Err(Error::invalid(format!("invalid filter: 'type'='{other}'")));
    }
    let patterns = |key: &str| filters.get(key).iter().map(|text| Pattern::new(text)).collect::<Vec<_>>();
    let (by_name, by_id) = (patterns("name"), patterns("id"));
    let fits = |patterns: &[Pattern], text: &str| {
        patterns.is_empty() || patterns.iter().any(|one| one.matches(text))
    };
    let is =
        |key: &str, text: &str| filters.get(key).is_empty() || filters.get(key).iter().any(|one| one == text);
    let wanted = |network: &Network| {
        fits(&by_name, &network.name)
            && fits(&by_id, &network.id)
            && is("driver", &network.driver)
            && is("scope", &network.scope)
            && is("type", "builtin")
            && filters.get("label").is_empty()
            // Docker calls dangling what is its user's and in nobody's use.
            && is_dangling != Some(true)
    };
    Ok(PREDEFINED.iter().map(|(name, _)| networks.describe(name)).filter(wanted).collect())
}

/// A running container: id, name, network mode.
pub type Member = (String, String, String);

/// One network and those of the running containers that are in it.
///
/// # Errors
/// NotFound, also for one of another scope than asked for; InvalidParameter for an ambiguous prefix.
pub fn inspect(networks: &Networks, reference: &str, scope: &str, running: Vec<Member>) -> Result<Network> {
    let name = networks.find(reference)?;
    if !matches!(scope, "" | "local") {
        return Err(Error::not_found(format!("network {reference} not found")));
    }
    let mut network = networks.describe(name);
    for (id, container, mode) in running {
        if of_mode(&mode) == Some(name) {
            let endpoint_id = endpoint_id(&id, &network.id);
            let endpoint = NetworkEndpoint { name: container, endpoint_id, ..NetworkEndpoint::default() };
            network.containers.insert(id, endpoint);
        }
    }
    Ok(network)
}

/// Every network is predefined, so this refuses, or finds nothing.
///
/// # Errors
/// Forbidden; NotFound.
pub fn remove(networks: &Networks, reference: &str) -> Result<()> {
    let name = networks.find(reference)?;
    Err(Error::forbidden(format!("{name} is a pre-defined network and cannot be removed")))
}

/// Removes the networks of the user's own that nobody is in: there are none.
///
/// # Errors
/// InvalidParameter for a filter Docker does not know.
pub fn prune(filters: &Filters) -> Result<NetworksPruned> {
    match filters.unknown(&["until", "label", "label!"]) {
        Some(unknown) => Err(Error::invalid(format!("invalid filter '{unknown}'"))),
        None => Ok(NetworksPruned::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks() -> Networks {
        let id = |digit: &str| digit.repeat(64);
        let ids = [("bridge", id("a")), ("host", format!("ab{}", &id("0")[2..])), ("none", id("c"))];
        Networks {
            created: "2026-01-02T03:04:05Z".to_owned(),
            ids: ids.map(|(name, id)| (name.to_owned(), id)).into(),
        }
    }

    #[test]
    fn networks_are_found_by_id_name_and_prefix() {
        let networks = networks();
        assert_eq!(networks.find("host").unwrap(), "host");
        assert_eq!(networks.find(&"c".repeat(64)).unwrap(), "none");
        assert_eq!(networks.find("aa").unwrap(), "bridge");
        assert!(networks.find("a").unwrap_err().message.contains("ambiguous"));
        assert_eq!(networks.find("nope").unwrap_err().message, "network nope not found");
        assert!(networks.find("").is_err());
    }

    #[test]
    fn a_container_has_an_endpoint_while_it_runs() {
        let networks = networks();
        let of = |mode: &str, is_alive| networks.of(mode, &"1".repeat(64), is_alive);
        assert_eq!(of("none", false)["none"].endpoint_id, "");
        assert_eq!(of("none", true)["none"].endpoint_id, "d".repeat(64));
        assert_eq!(of("default", true)["bridge"].network_id, "a".repeat(64));
        assert!(of("container:1", true).is_empty());
    }
}
