//! What a container whose record cannot be read has in networks: it runs on, and nobody else is to be given it.

use std::net::IpAddr;

use serde_json::Value;

use super::published::publish_ports;
use crate::daemon::containers::container::Record;
use crate::daemon::engine::Engine;
use crate::daemon::networks::network::Driver;
use crate::runtime::netlink::{Protocol, Socket, address};
use crate::runtime::netns;

/// Keeps its addresses, as far as its namespace tells, and its ports, as far as its record can be made out. Blocks for
/// a look into the namespace.
pub fn keep(engine: &Engine, id: &str) {
    let path = engine.state_dir.netns(id);
    if !path.exists() {
        return;
    }
    match netns::within(&path, || address::list(&mut Socket::open(Protocol::Route)?)) {
        Ok(list) => {
            let own: Vec<IpAddr> =
                list.iter().map(|one| one.address).filter(|own| !own.is_loopback()).collect();
            engine.networks.keep(&own);
            if let Some(record) = made_out(engine, id) {
                keep_ports(engine, &record, &own);
            }
        }
        Err(error) => log::error!("container {id}: see which addresses it has: {error}"),
    }
}

/// Its places and ports, where a record that is not ours to read has them as ours do.
fn made_out(engine: &Engine, id: &str) -> Option<Record> {
    let text = std::fs::read(engine.state_dir.container(id).join("container.json")).ok()?;
    let mut record: Value = serde_json::from_slice(&text).ok()?;
    Some(Record {
        id: id.to_owned(),
        networks: serde_json::from_value(record["networks"].take()).ok()?,
        ports: serde_json::from_value(record["ports"].take()).ok()?,
        ..Record::default()
    })
}

/// Leads its ports to it, which are led nowhere once the rules are made anew; only to where its namespace is seen to be.
fn keep_ports(engine: &Engine, record: &Record, own: &[IpAddr]) {
    let warn =
        |error: &dyn std::fmt::Display| log::error!("container {}: keep its ports: {error}", record.id);
    for place in record.networks.values() {
        let Some(given) = &place.given else { continue };
        let addresses = [given.ipv4.map(|it| it.address), given.ipv6.map(|it| it.address)];
        if addresses.iter().flatten().any(|address| !own.contains(address)) {
            return warn(&"its record has other addresses than its namespace");
        }
        if let Some(network) = engine.networks.by_id(&place.network_id)
            && network.driver == Driver::Bridge
            && !given.interface.is_empty()
            && let Err(error) = engine.firewall.add_network(&network, &engine.wiring.bridge_name(&network))
        {
            warn(&error);
        }
    }
    engine.ports.adopt(&record.id, &record.ports).iter().for_each(|text| warn(text));
    if let Err(error) = publish_ports(engine, record) {
        warn(&error);
    }
}
