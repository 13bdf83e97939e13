//! Volumes.

use std::sync::Arc;

use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::http::api::ApiVersion;
use crate::http::api::volume::*;
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn list(engine: &Arc<Engine>, call: Call<ListQuery>) -> Result<Reply> {
    let volumes = engine.volumes.list(&call.query.filters)?;
    Ok(VOLUME_LIST.reply(&VolumeList { volumes, warnings: None }))
}

pub fn create(engine: &Arc<Engine>, call: Call<(), VolumeCreate>) -> Result<Reply> {
    Ok(VOLUME_CREATE.reply(&engine.volumes.create(&engine.events, call.body)?.shown()))
}

pub fn inspect(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    Ok(VOLUME_INSPECT.reply(&engine.volumes.get(call.param("name"))?.shown()))
}

pub fn delete(engine: &Arc<Engine>, call: Call<DeleteQuery>) -> Result<Reply> {
    engine.volumes.remove(&engine.events, call.param("name"), call.query.force)?;
    Ok(VOLUME_DELETE.reply(&()))
}

/// Compat: before 1.42 volumes with a name were pruned too.
pub fn prune(engine: &Arc<Engine>, call: Call<ListQuery>) -> Result<Reply> {
    let is_everything = call.raw.version < ApiVersion { major: 1, minor: 42 };
    let _pruner = engine.pruning.begin()?;
    Ok(VOLUME_PRUNE.reply(&engine.volumes.prune(&engine.events, &call.query.filters, is_everything)?))
}
