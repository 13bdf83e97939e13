//! A container's places as clients see them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Place;
use super::names::{has_names, names};
use crate::daemon::containers::container::Record;
use crate::daemon::engine::Engine;
use crate::http::api::container::EndpointSettings;

/// The places as `inspect` and `ps` show them.
pub fn shown(engine: &Engine, record: &Record) -> BTreeMap<String, EndpointSettings> {
    record
        .networks
        .iter()
        .map(|(name, place)| (name.clone(), shown_place(engine, record, name, place)))
        .collect()
}

fn shown_place(engine: &Engine, record: &Record, name: &str, place: &Place) -> EndpointSettings {
    let network = engine.networks.find(name).ok();
    let mut shown = place.asked.clone();
    shown.network_id = match &network {
        Some(network) => network.id.clone(),
        None => place.network_id.clone(),
    };
    let text = |address: Option<IpAddr>| address.map(|address| address.to_string()).unwrap_or_default();
    if network.is_some_and(|network| has_names(&network)) {
        shown.dns_names = Some(names(record, &place.asked));
    }
    shown.mac_address.clear();
    if let Some(given) = place.given.as_ref().filter(|_| record.state.is_alive()) {
        shown.endpoint_id.clone_from(&given.endpoint_id);
        shown.mac_address.clone_from(&given.mac);
        shown.gateway = text(given.gateway.map(IpAddr::V4));
        shown.ipv6_gateway = text(given.ipv6_gateway.map(IpAddr::V6));
        shown.ip_address = text(given.ipv4.map(|subnet| subnet.address));
        shown.ip_prefix_len = given.ipv4.map_or(0, |subnet| i64::from(subnet.prefix));
        shown.global_ipv6_address = text(given.ipv6.map(|subnet| subnet.address));
        shown.global_ipv6_prefix_len = given.ipv6.map_or(0, |subnet| i64::from(subnet.prefix));
    }
    shown
}
