//! Checkpoints, and what is made of them.

use std::sync::Arc;

use super::{image, migrate, progress};
use crate::daemon::containers::checkpoint;
use crate::daemon::containers::checkpoint::import::Import;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::Reference;
use crate::daemon::registry;
use crate::http::api::checkpoint::{
    CHECKPOINT_CHECK, CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_EXPORT, CHECKPOINT_IMPORT,
    CHECKPOINT_INSPECT, CHECKPOINT_LIST, CHECKPOINT_LIST_ALL, CHECKPOINT_PRUNE, CheckpointCreate,
    CheckpointExportQuery, CheckpointImportQuery, CheckpointPruneQuery, CheckpointPullQuery,
    CheckpointPushQuery, CheckpointQuery,
};
use crate::http::api::checkpoint_stream::CheckpointStream;
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

pub fn export(engine: &Arc<Engine>, call: Call<CheckpointExportQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let CheckpointExportQuery { dir, compress, format } = &call.query;
    let how = (compress.as_str(), format.as_str());
    let export = checkpoint::export::export(&container, call.param("checkpoint"), dir, how)?;
    Ok(CHECKPOINT_EXPORT.stream("application/octet-stream", move |out| export.write(out)))
}

/// The head is sent when what can be refused has been.
pub fn stream(engine: &Arc<Engine>, call: Call<(), CheckpointStream>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    if call.raw.headers.get("upgrade").is_none() {
        let text = "a streamed checkpoint takes its connection over: ask with \"Upgrade: tcp\"";
        return Err(Error::invalid(text));
    }
    let (engine, request) = (Arc::clone(engine), call.body);
    checkpoint::stream::check(&engine, &container, &request)?;
    Ok(Reply::hijack("application/vnd.docker.raw-stream", move |client| {
        checkpoint::stream::serve(&engine, &container, &request, migrate::connection(client));
    }))
}

pub fn import(engine: &Arc<Engine>, mut call: Call<CheckpointImportQuery>) -> Result<Reply> {
    let CheckpointImportQuery { name, trust, pull } = call.query;
    let request = Import { name, trust, pull };
    Ok(CHECKPOINT_IMPORT.reply(&checkpoint::import::import(engine, &mut call.raw.body, &request)?))
}

pub fn push(engine: &Arc<Engine>, call: Call<CheckpointPushQuery>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    let name = checkpoint::registry::name_to_push(&call.query.reference)?;
    let (client, peer) = (image::client(&call.raw.headers), call.raw.peer.clone());
    let registry = registry::registry(&engine.config(), name.domain(), &client)?;
    let (id, dir) = (call.param("checkpoint").to_owned(), call.query.dir);
    progress::stream_while_wanted(
        "push",
        &peer,
        move || client.cancel.cancel(),
        move |tell| checkpoint::registry::push(&container, (&id, &dir), (&registry, &name), tell),
    )
}

pub fn pull(engine: &Arc<Engine>, call: Call<CheckpointPullQuery>) -> Result<Reply> {
    let CheckpointPullQuery { reference, name, trust, pull } = call.query;
    let reference = Reference::parse(&reference)?.with_default_tag();
    let request = Import { name, trust, pull };
    let (engine, client, peer) = (Arc::clone(engine), image::client(&call.raw.headers), call.raw.peer);
    let cancel = client.cancel.clone();
    progress::stream_while_wanted(
        "pull",
        &peer,
        move || cancel.cancel(),
        move |tell| checkpoint::registry::pull(&engine, &reference, &client, &request, tell),
    )
}
