//! Networks.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::daemon::containers;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::daemon::networks::{self, network::Network};
use crate::http::api::network::*;
use crate::http::reply::Reply;
use crate::http::request::Call;
use crate::routes::compat;

/// Compat: before 1.28 each came with its containers.
pub fn list(engine: &Arc<Engine>, call: Call<ListQuery>) -> Result<Reply> {
    let mut list = networks::list(&engine.networks, &call.query.filters)?;
    if compat::before(call.raw.version, 28) {
        for network in &mut list {
            // One that was removed meanwhile has none.
            let found = networks::inspect(&engine.networks, &network.id, "", &name_of(engine));
            network.containers = found.map(|network| network.containers).unwrap_or_default();
        }
    }
    Ok(NETWORK_LIST.reply(&list))
}

pub fn inspect(engine: &Arc<Engine>, call: Call<InspectQuery>) -> Result<Reply> {
    Ok(NETWORK_INSPECT.reply(&networks::inspect(
        &engine.networks,
        call.param("name"),
        &call.query.scope,
        &name_of(engine),
    )?))
}

pub fn create(engine: &Arc<Engine>, mut call: Call<(), NetworkCreate>) -> Result<Reply> {
    compat::lift_network_create(call.raw.version, &mut call.body);
    let (network, warning) = engine.networks.create(call.body, &engine.config().network)?;
    let made = engine.wiring.create(&network);
    if let Err(error) = made {
        if let Err(cleanup) = engine.networks.remove(&network.id, &|_| String::new()) {
            log::warn!("{cleanup}");
        }
        return Err(error);
    }
    told(engine, "create", &network);
    Ok(NETWORK_CREATE.reply(&NetworkCreated { id: network.id.clone(), warning }))
}

pub fn delete(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    remove(engine, &*engine.networks.find(call.param("name"))?)?;
    Ok(NETWORK_DELETE.reply(&()))
}

fn remove(engine: &Engine, network: &Network) -> Result<()> {
    engine.networks.remove(&network.id, &name_of(engine))?;
    // It is gone for everybody; what the kernel keeps of it is swept at the next start.
    for result in [engine.firewall.remove_network(&network.id), engine.wiring.remove(network)] {
        if let Err(error) = result {
            log::warn!("{error}");
        }
    }
    // Compat: Docker says nothing of the end of a template.
    if !network.config_only {
        told(engine, "destroy", network);
    }
    Ok(())
}

/// The name of a container, by id.
fn name_of(engine: &Engine) -> impl Fn(&str) -> String {
    |id| engine.containers.by_id(id).map(|container| container.name()).unwrap_or_default()
}

fn told(engine: &Engine, action: &str, network: &Network) {
    let attributes = [("name", network.name.as_str()), ("type", network.driver.name())];
    let attributes = attributes.map(|(key, value)| (key.to_owned(), value.to_owned()));
    engine.events.publish("network", action, &network.id, attributes.into());
}

pub fn connect(engine: &Arc<Engine>, mut call: Call<(), NetworkConnect>) -> Result<Reply> {
    compat::lift_network_connect(call.raw.version, &mut call.body);
    containers::network::connect(engine, call.param("name"), call.body.clone())?;
    Ok(NETWORK_CONNECT.reply(&()))
}

pub fn disconnect(engine: &Arc<Engine>, call: Call<(), NetworkDisconnect>) -> Result<Reply> {
    containers::network::disconnect(engine, call.param("name"), &call.body)?;
    Ok(NETWORK_DISCONNECT.reply(&()))
}

pub fn prune(engine: &Arc<Engine>, call: Call<PruneQuery>) -> Result<Reply> {
    let due = networks::prune(&engine.networks, &call.query.filters)?;
    let _pruner = engine.pruning.begin()?;
    let mut pruned = Vec::new();
    for network in due {
        match remove(engine, &network) {
            Ok(()) => pruned.push(network.name.clone()),
            // Joined or removed since we looked.
            Err(error) => log::warn!("prune networks: {error}"),
        }
    }
    let attributes = BTreeMap::from([("reclaimed".to_owned(), "0".to_owned())]);
    engine.events.publish("network", "prune", "", attributes);
    Ok(NETWORK_PRUNE.reply(&NetworksPruned { networks_deleted: (!pruned.is_empty()).then_some(pruned) }))
}
