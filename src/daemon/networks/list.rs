//! What clients see of networks: the list and its filters, inspect and prune.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Networks;
use super::network::{Driver, Given, Network, Pool};
use crate::daemon::error::{Error, Result};
use crate::daemon::images;
use crate::daemon::pattern::Pattern;
use crate::http::api::Filters;
use crate::http::api::network::{ConfigReference, Ipam, IpamConfig, Network as Shown, NetworkEndpoint};

/// What `GET /networks` can be asked for.
const FILTERS: [&str; 7] = ["name", "id", "driver", "type", "scope", "label", "dangling"];

/// The networks that pass the filters, by name, without their containers.
///
/// # Errors
/// InvalidParameter for a filter or a value Docker does not know.
pub fn list(networks: &Networks, filters: &Filters) -> Result<Vec<Shown>> {
    if let Some(unknown) = filters.unknown(&FILTERS) {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    let is_dangling = dangling(filters.get("dangling"))?;
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
    let wanted = |network: &Arc<Network>| {
        let is_unused = || !network.is_predefined() && networks.members(&network.id).is_empty();
        fits(&by_name, &network.name)
            && fits(&by_id, &network.id)
            && is("driver", network.driver.name())
            && is("scope", "local")
            && is("type", if network.is_predefined() { "builtin" } else { "custom" })
            && filters.get("label").iter().all(|label| has_label(network, label))
            && is_dangling.is_none_or(|wanted| is_unused() == wanted)
    };
    Ok(networks.all().iter().filter(|network| wanted(network)).map(|network| describe(network)).collect())
}

/// Docker calls dangling what is its user's and in nobody's use.
fn dangling(values: &[String]) -> Result<Option<bool>> {
    match values {
        [] => Ok(None),
        [value] if matches!(value.as_str(), "1" | "true") => Ok(Some(true)),
        [value] if matches!(value.as_str(), "0" | "false") => Ok(Some(false)),
        [_] => Err(Error::invalid(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
        _ => Err(Error::invalid("got more than one value for filter key \"dangling\"")),
    }
}

fn has_label(network: &Network, label: &str) -> bool {
    match label.split_once('=') {
        Some((key, value)) => network.labels.get(key).is_some_and(|actual| actual == value),
        None => network.labels.contains_key(label),
    }
}

/// One network and those who are in it; `name_of` gives the name of a container.
///
/// # Errors
/// NotFound, also for one of another scope than asked for; InvalidParameter for an ambiguous prefix.
pub fn inspect(
    networks: &Networks,
    reference: &str,
    scope: &str,
    name_of: &dyn Fn(&str) -> String,
) -> Result<Shown> {
    let network = networks.find(reference)?;
    if !matches!(scope, "" | "local") {
        return Err(Error::not_found(format!("network {reference} not found")));
    }
    let mut shown = describe(&network);
    let text = |subnet: Option<super::subnet::Subnet>| subnet.map(|one| one.to_string()).unwrap_or_default();
    let endpoint = |(id, given): (String, Given)| {
        let endpoint = NetworkEndpoint {
            name: name_of(&id),
            endpoint_id: given.endpoint_id,
            mac_address: given.mac,
            ipv4_address: text(given.ipv4),
            ipv6_address: text(given.ipv6),
        };
        (id, endpoint)
    };
    shown.containers = networks.members(&network.id).into_iter().map(endpoint).collect();
    Ok(shown)
}

/// A network without its containers.
pub fn describe(network: &Network) -> Shown {
    let config = |pool: &Pool| IpamConfig {
        subnet: pool.subnet.to_string(),
        ip_range: pool.range.map(|range| range.to_string()).unwrap_or_default(),
        gateway: pool.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        auxiliary_addresses: pool
            .auxiliary
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string()))
            .collect(),
    };
    let pools = network.pools_of(false).chain(network.pools_of(true)).map(config).collect();
    // Compat: what never had any is null, what has none is empty.
    let has_none = network.driver.has_addresses() || network.config_only;
    Shown {
        name: network.name.clone(),
        id: network.id.clone(),
        created: network.created.clone(),
        scope: "local".to_owned(),
        driver: network.driver.name().to_owned(),
        enable_ipv4: network.ipv4,
        enable_ipv6: network.ipv6,
        ipam: Ipam {
            driver: "default".to_owned(),
            options: network.ipam_options.clone(),
            config: has_none.then_some(pools),
        },
        internal: network.internal,
        attachable: network.attachable,
        ingress: false,
        config_from: ConfigReference { network: network.config_from.clone() },
        config_only: network.config_only,
        containers: BTreeMap::new(),
        options: network.options.clone(),
        labels: network.labels.clone(),
    }
}

/// The networks of the users' own that nobody is in and that pass the filters: what prune removes.
///
/// Compat: a container that does not run is in no network; templates stay.
///
/// # Errors
/// InvalidParameter for a filter or a value Docker does not know.
pub fn prune(networks: &Networks, filters: &Filters) -> Result<Vec<Arc<Network>>> {
    if let Some(unknown) = filters.unknown(&["until", "label", "label!"]) {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    let until = images::until(filters)?;
    let is_due = |network: &Arc<Network>| {
        let created = network.created.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        !network.is_predefined()
            && !network.config_only
            && network.driver != Driver::Null
            && until.is_none_or(|until| created <= until)
            && images::prune_labels_match(filters, &network.labels)
            && networks.members(&network.id).is_empty()
    };
    Ok(networks.all().into_iter().filter(is_due).collect())
}
