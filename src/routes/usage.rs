//! What is on the disk, and giving it back.

use std::sync::Arc;

use super::compat;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::daemon::usage;
use crate::http::api::image::{IMAGE_PRUNE, PruneQuery};
use crate::http::api::usage::{BUILD_PRUNE, CONTAINER_PRUNE, DataUsageQuery, SYSTEM_DATA_USAGE};
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn data_usage(engine: &Arc<Engine>, call: Call<DataUsageQuery>) -> Result<Reply> {
    compat::reply(&SYSTEM_DATA_USAGE, call.raw.version, &usage::data_usage(engine, &call.query.types)?)
}

pub fn prune_containers(engine: &Arc<Engine>, call: Call<PruneQuery>) -> Result<Reply> {
    Ok(CONTAINER_PRUNE.reply(&usage::prune_containers(engine, &call.query.filters)?))
}

pub fn prune_images(engine: &Arc<Engine>, call: Call<PruneQuery>) -> Result<Reply> {
    Ok(IMAGE_PRUNE.reply(&usage::prune_images(engine, &call.query.filters)?))
}

pub fn prune_build_cache(engine: &Arc<Engine>, call: Call<PruneQuery>) -> Result<Reply> {
    Ok(BUILD_PRUNE.reply(&usage::prune_build_cache(engine, &call.query.filters)?))
}
