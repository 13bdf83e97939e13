//! What a container is called, what it calls others, and the files that say so.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use super::{in_order, links, of_mode, way_out};
use crate::daemon::containers::container::Record;
use crate::daemon::containers::files;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::dns::{Link, Seen, Upstreams, View};
use crate::daemon::networks::network::Network;
use crate::http::api::container::EndpointSettings;

/// Whether a network has names: those that users make have.
pub(super) fn has_names(network: &Network) -> bool {
    !network.is_predefined()
}

/// What a container is called in a network, the name that addresses lead back to first.
pub fn names(record: &Record, asked: &EndpointSettings) -> Vec<String> {
    let mut names = vec![record.name.clone()];
    let more = asked.aliases.iter().flatten().cloned();
    for name in more.chain([record.id[..12].to_owned(), record.config.hostname.clone()]) {
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Lets the others find the container, and the container them.
pub(super) fn serve_names(engine: &Engine, record: &Record, netns: &Path) -> Result<()> {
    join_zones(engine, record);
    match view(engine, record) {
        Some(view) => {
            engine
                .dns
                .serve(&record.id, netns, view)
                .map_err(|cause| Error::system("serve names to the container".to_owned(), cause))?;
            Ok(())
        }
        None => Ok(()),
    }
}

/// Whether the container's names are ours to answer.
pub(super) fn is_served(engine: &Engine, record: &Record) -> bool {
    !named(engine, record).is_empty()
}

/// As [`serve_names`], for a container whose places have changed: who is served already keeps the server.
pub(super) fn serve_anew(engine: &Engine, record: &Record, netns: &Path, was_served: bool) -> Result<()> {
    match view(engine, record) {
        Some(view) if was_served => {
            join_zones(engine, record);
            engine.dns.change(&record.id, view);
            Ok(())
        }
        Some(_) => serve_names(engine, record, netns),
        None => {
            engine.dns.forget(&record.id);
            Ok(())
        }
    }
}

/// The container's networks that have names, in the order they are asked; the way out's first, as Docker's.
pub(super) fn named(engine: &Engine, record: &Record) -> Vec<(Arc<Network>, bool)> {
    let first = of_mode(&record.host_config.network_mode).unwrap_or_default();
    in_order(record)
        .iter()
        .filter_map(|name| {
            let place = record.networks.get(name).filter(|place| place.given.is_some())?;
            let network = engine.networks.by_id(&place.network_id)?;
            has_names(&network).then(|| (network, name == first))
        })
        .collect()
}

/// What `host-gateway` means to a container with this network mode.
pub(super) fn gateways(engine: &Engine, mode: &str) -> Vec<IpAddr> {
    let config = engine.config();
    match &config.network.host_gateway_ips[..] {
        [] if mode == "host" => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        [] => {
            let bridge = engine.networks.find("bridge").ok();
            bridge.iter().flat_map(|network| &network.pools).filter_map(|pool| pool.gateway).collect()
        }
        given => given.to_vec(),
    }
}

/// What the container's files say of its networks before it has a place in them.
pub fn before_start(engine: &Engine, record: &Record) -> Result<files::Network> {
    let gateways = gateways(engine, &record.host_config.network_mode);
    Ok(files::Network { gateways, ..files::Network::default() })
}

/// What the container's files say of its networks.
pub(super) fn surroundings(engine: &Engine, record: &Record) -> Result<files::Network> {
    let names = files::own_names(&record.config);
    let mut hosts = links::hosts(engine, record)?;
    for name in in_order(record) {
        let Some(given) = record.networks.get(&name).and_then(|place| place.given.as_ref()) else { continue };
        for subnet in [given.ipv4, given.ipv6].into_iter().flatten() {
            hosts.push((subnet.address, names.clone()));
        }
    }
    let has_server = is_served(engine, record);
    Ok(files::Network { hosts, gateways: gateways(engine, &record.host_config.network_mode), has_server })
}

/// How the container sees names; `None` when it has no server of ours.
pub(super) fn view(engine: &Engine, record: &Record) -> Option<View> {
    let networks = named(engine, record);
    if networks.is_empty() {
        return None;
    }
    let mut links = Vec::new();
    for (network, is_mode) in &networks {
        let asked = record.networks.get(&network.name).map(|place| &place.asked);
        for (alias, target) in
            asked.map_or_else(Vec::new, |asked| links::aliases(engine, record, *is_mode, asked))
        {
            links.push(Link { network: network.id.clone(), alias, target });
        }
    }
    let host = &record.host_config;
    let given: Vec<IpAddr> = host.dns.iter().filter_map(|server| server.parse().ok()).collect();
    let has_way_out = way_out(record, false).is_some() || way_out(record, true).is_some();
    let upstreams = match has_way_out {
        // Asked by the container itself: they may be its neighbours.
        _ if !given.is_empty() => Upstreams::Given(given),
        true => Upstreams::Host,
        false => Upstreams::Nobody,
    };
    let seen =
        |(network, _): (Arc<Network>, bool)| Seen { id: network.id.clone(), name: network.name.clone() };
    Some(View {
        networks: networks.into_iter().map(seen).collect(),
        links,
        upstreams,
        has_ndots: files::has_ndots(record),
        has_ipv6: way_out(record, true).is_some(),
    })
}

pub(super) fn join_zones(engine: &Engine, record: &Record) {
    for place in record.networks.values() {
        let Some(given) = &place.given else { continue };
        let Some(network) = engine.networks.by_id(&place.network_id).filter(|one| has_names(one)) else {
            continue;
        };
        let addresses: Vec<IpAddr> =
            [given.ipv4, given.ipv6].into_iter().flatten().map(|subnet| subnet.address).collect();
        engine.dns.join(&network.id, &record.id, &names(record, &place.asked), &addresses);
    }
}
