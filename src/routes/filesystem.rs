//! A container's filesystem: its changes, its export, its commit.

use std::sync::Arc;

use crate::daemon::containers::{commit, filesystem};
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::http::api::container::ContainerConfig;
use crate::http::api::filesystem::{
    CONTAINER_CHANGES, CONTAINER_EXPORT, CommitQuery, IMAGE_COMMIT, ImageCommitted,
};
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn changes(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    Ok(CONTAINER_CHANGES.reply(&filesystem::changes(engine, &container)?))
}

pub fn export(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let (view, layer) = filesystem::export(engine, &container)?;
    Ok(CONTAINER_EXPORT.stream("application/octet-stream", move |out| {
        filesystem::write(&view, layer, &container, out).map_err(|error| std::io::Error::other(error.message))
    }))
}

pub fn commit(engine: &Arc<Engine>, call: Call<CommitQuery, Option<ContainerConfig>>) -> Result<Reply> {
    let container = engine.containers.get(&call.query.container)?;
    let id = commit::commit(engine, &container, &call.query, call.body)?.to_string();
    Ok(IMAGE_COMMIT.reply(&ImageCommitted { id }))
}
