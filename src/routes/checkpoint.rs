//! Checkpoints, and what is made of them.

use std::sync::Arc;

use crate::daemon::containers::checkpoint;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::checkpoint::{
    CHECKPOINT_CHECK, CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_INSPECT, CHECKPOINT_LIST,
    CHECKPOINT_LIST_ALL, CHECKPOINT_PRUNE, CheckpointCreate, CheckpointPruneQuery, CheckpointQuery,
};
use crate::http::api::copies::{CHECKPOINT_RESTORE, CONTAINER_CLONE, CopyRequest};
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn create(engine: &Arc<Engine>, call: Call<(), CheckpointCreate>) -> Result<Reply> {
    checkpoint::create(engine, &engine.containers.get(call.param("name"))?, &call.body)?;
    Ok(CHECKPOINT_CREATE.reply(&()))
}

pub fn check(engine: &Arc<Engine>, call: Call<()>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    Ok(CHECKPOINT_CHECK.reply(&checkpoint::check::check(engine, &container)?))
}

pub fn list(engine: &Arc<Engine>, call: Call<CheckpointQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    Ok(CHECKPOINT_LIST.reply(&checkpoint::list(&container, &call.query.dir)?))
}

pub fn delete(engine: &Arc<Engine>, call: Call<CheckpointQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    checkpoint::delete(&container, call.param("checkpoint"), &call.query.dir)?;
    Ok(CHECKPOINT_DELETE.reply(&()))
}

pub fn restore(engine: &Arc<Engine>, call: Call<(), CopyRequest>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let copies = checkpoint::restore::copies(engine, &container, call.param("checkpoint"), &call.body)?;
    Ok(CHECKPOINT_RESTORE.reply(&copies))
}

pub fn clone(engine: &Arc<Engine>, call: Call<(), CopyRequest>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    Ok(CONTAINER_CLONE.reply(&checkpoint::clone::clone(engine, &container, &call.body)?))
}

pub fn inspect(engine: &Arc<Engine>, call: Call<CheckpointQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let detail = checkpoint::inspect::inspect(engine, &container, call.param("checkpoint"), &call.query.dir)?;
    Ok(CHECKPOINT_INSPECT.reply(&detail))
}

pub fn all(engine: &Arc<Engine>, _: Call<()>) -> Result<Reply> {
    Ok(CHECKPOINT_LIST_ALL.reply(&checkpoint::prune::all(engine)?))
}

pub fn prune(engine: &Arc<Engine>, call: Call<CheckpointPruneQuery>) -> Result<Reply> {
    let keep = usize::try_from(call.query.keep.unwrap_or(1))
        .map_err(|_| Error::invalid("keep: not a number of checkpoints"))?;
    Ok(CHECKPOINT_PRUNE.reply(&checkpoint::prune::prune(engine, keep, &call.query.filters)?))
}
