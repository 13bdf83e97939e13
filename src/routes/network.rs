//! Networks.

use std::sync::Arc;

use crate::daemon::containers::list;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks;
use crate::http::api::network::*;
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn list(engine: &Arc<Engine>, call: Call<ListQuery>) -> Result<Reply> {
    Ok(NETWORK_LIST.reply(&networks::list(&engine.networks, &call.query.filters)?))
}

pub fn inspect(engine: &Arc<Engine>, call: Call<InspectQuery>) -> Result<Reply> {
    let running = list::running(engine);
    Ok(NETWORK_INSPECT.reply(&networks::inspect(
        &engine.networks,
        call.param("name"),
        &call.query.scope,
        running,
    )?))
}

pub fn create(_: &Arc<Engine>, call: Call<(), NetworkCreate>) -> Result<Reply> {
    let name = call.body.name;
    if name.is_empty() {
        return Err(Error::invalid("invalid network name: name is empty"));
    }
    Err(refused("create", &name))
}

pub fn delete(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    networks::remove(&engine.networks, call.param("name"))?;
    Ok(NETWORK_DELETE.reply(&()))
}

/// Connect and disconnect: what is not there is said first, as a client that pulls or waits goes by it.
pub fn connect(engine: &Arc<Engine>, call: Call<(), NetworkMember>) -> Result<Reply> {
    change(engine, &call, "connect a container to")
}

pub fn disconnect(engine: &Arc<Engine>, call: Call<(), NetworkMember>) -> Result<Reply> {
    change(engine, &call, "disconnect a container from")
}

fn change(engine: &Arc<Engine>, call: &Call<(), NetworkMember>, attempt: &str) -> Result<Reply> {
    let name = engine.networks.find(call.param("name"))?;
    engine.containers.get(&call.body.container)?;
    Err(refused(attempt, name))
}

fn refused(attempt: &str, name: &str) -> Error {
    Error::not_implemented(format!(
        "{attempt} network {name:?}: this version of dewar has the networks bridge, host and none only"
    ))
}

pub fn prune(_: &Arc<Engine>, call: Call<PruneQuery>) -> Result<Reply> {
    Ok(NETWORK_PRUNE.reply(&networks::prune(&call.query.filters)?))
}
