//! Into a network and out of it while the container exists, running or not.

use std::sync::Arc;

use super::{Place, as_asked, names, refusals};
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::containers::files;
use crate::daemon::containers::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::network::{Driver, Network};
use crate::http::api::network::{NetworkConnect, NetworkDisconnect};

/// Gives a container a place in a network; one that runs has it at once.
///
/// # Errors
/// NotFound; InvalidParameter and Forbidden for what Docker refuses. The container is then as it was.
pub fn connect(engine: &Arc<Engine>, reference: &str, body: NetworkConnect) -> Result<()> {
    let network = engine.networks.find(reference)?;
    let container = engine.containers.get(&body.container)?;
    let _action = container.begin();
    let mut record = container.record();
    check_exists(&record)?;
    let asked = as_asked(body.endpoint_config.unwrap_or_default());
    refusals::company(&record.host_config.network_mode, &record.networks, &network)?;
    refusals::place(&network, &asked)?;
    let is_alive = record.state.is_alive();
    if is_alive && record.networks.contains_key(&network.name) {
        return Err(Error::forbidden(format!(
            "endpoint with name {} already exists in network {}",
            record.name, network.name
        )));
    }
    record.networks.insert(network.name.clone(), Box::new(Place { asked, ..Place::default() }));
    if !is_alive {
        return keep(&container, &record);
    }
    let path = engine.state_dir.netns(&container.id);
    let was_served = names::is_served(engine, &record);
    let result = super::join(engine, &mut record, &network.name, None)
        .and_then(|joined| super::plug(engine, &record, &joined, &path, false))
        .and_then(|()| rearrange(engine, &container, &mut record, was_served))
        .and_then(|()| keep(&container, &record));
    if let Err(error) = result {
        part(engine, &container, &mut record, &network);
        return Err(error);
    }
    super::tell(engine, &record, &network, "connect");
    Ok(())
}

/// Takes a container's place in a network away; one that runs loses it at once.
///
/// # Errors
/// NotFound; InvalidParameter and Forbidden for what Docker refuses.
pub fn disconnect(engine: &Arc<Engine>, reference: &str, body: &NetworkDisconnect) -> Result<()> {
    let network = engine.networks.find(reference)?;
    let container = engine.containers.get(&body.container)?;
    let _action = container.begin();
    let mut record = container.record();
    if record.host_config.network_mode == "host" || network.driver == Driver::Host {
        return Err(Error::invalid(
            "container cannot be disconnected from host network or connected to host network",
        ));
    }
    check_exists(&record)?;
    if !record.networks.contains_key(&network.name) {
        return Err(Error::forbidden(format!(
            "container {} is not connected to network {}",
            container.id, network.name
        )));
    }
    let is_alive = record.state.is_alive();
    if !is_alive {
        record.networks.remove(&network.name);
        return keep(&container, &record);
    }
    part(engine, &container, &mut record, &network);
    keep(&container, &record)
}

/// Undoes what a living container has of a network. What cannot be undone is told, and goes with the container.
fn part(engine: &Engine, container: &Container, record: &mut Record, network: &Network) {
    let path = engine.state_dir.netns(&container.id);
    let was_served = names::is_served(engine, record);
    let Some(place) = record.networks.remove(&network.name) else { return };
    if let Some(given) = place.given.as_ref().filter(|given| !given.interface.is_empty())
        && let Err(error) = engine.wiring.unplug(&path, network, given)
    {
        log::warn!("container {:?}: {error}", record.name);
    }
    super::leave(engine, record, &place);
    if let Err(error) = rearrange(engine, container, record, was_served) {
        log::warn!("container {:?}: {error}", record.name);
    }
}

/// Brings a living container's routes, ports, names and files in line with its places.
fn rearrange(engine: &Engine, container: &Container, record: &mut Record, was_served: bool) -> Result<()> {
    let path = engine.state_dir.netns(&container.id);
    super::route(engine, record, &path)?;
    engine.firewall.unpublish(&container.id)?;
    let has_way_in = super::published::way_in(engine, record).is_some();
    match (has_way_in, record.ports.is_empty()) {
        (true, true) => super::claim_ports(engine, record, None)?,
        (false, false) => {
            engine.ports.release(&container.id);
            record.ports.clear();
        }
        _ => {}
    }
    super::publish_ports(engine, record)?;
    super::links::open(engine, record)?;
    names::serve_anew(engine, record, &path, was_served)?;
    files::rewrite(&container.dir, record, &super::surroundings(engine, record)?)
}

/// Writes what has changed into the container.
fn keep(container: &Container, record: &Record) -> Result<()> {
    let mut inner = container.lock();
    inner.record.networks.clone_from(&record.networks);
    inner.record.ports.clone_from(&record.ports);
    container.save(&inner)
}

fn check_exists(record: &Record) -> Result<()> {
    if matches!(record.state, State::Removing | State::Dead) {
        return Err(Error::conflict(format!(
            "container {} is marked for removal and cannot be connected or disconnected to the network",
            record.id
        )));
    }
    Ok(())
}
