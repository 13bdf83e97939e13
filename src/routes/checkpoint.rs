//! Checkpoints, and what is made of them.

use std::sync::Arc;

use crate::daemon::containers::checkpoint;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::http::api::checkpoint::{
    CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_LIST, CheckpointCreate, CheckpointQuery,
};
use crate::http::api::copies::{CHECKPOINT_RESTORE, CONTAINER_CLONE, CopyRequest};
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn create(engine: &Arc<Engine>, call: Call<(), CheckpointCreate>) -> Result<Reply> {
    checkpoint::create(engine, &engine.containers.get(call.param("name"))?, &call.body)?;
    Ok(CHECKPOINT_CREATE.reply(&()))
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
