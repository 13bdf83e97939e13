//! The daemon itself.

use std::io::Write;
use std::sync::Arc;

use super::compat;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::{event_stream, info, login};
use crate::http::api::auth::{AuthConfig, SYSTEM_AUTH};
use crate::http::api::event::EventsQuery;
use crate::http::api::system::{OPTIONS, PLUGIN_LIST, PluginQuery, SYSTEM_INFO, SYSTEM_VERSION};
use crate::http::reply::Reply;
use crate::http::request::Call;

pub fn ping(_: &Arc<Engine>, _: Call) -> Result<Reply> {
    Ok(Reply::bytes("text/plain; charset=utf-8", b"OK".to_vec())
        .header("Builder-Version", "1")
        .header("Swarm", "inactive")
        .header("Cache-Control", "no-cache, no-store, must-revalidate")
        .header("Pragma", "no-cache"))
}

pub fn version(_: &Arc<Engine>, _: Call) -> Result<Reply> {
    Ok(SYSTEM_VERSION.reply(&info::version()))
}

pub fn info(engine: &Arc<Engine>, call: Call) -> Result<Reply> {
    compat::reply(&SYSTEM_INFO, call.raw.version, &info::info(engine))
}

pub fn auth(engine: &Arc<Engine>, call: Call<(), AuthConfig>) -> Result<Reply> {
    Ok(SYSTEM_AUTH.reply(&login::login(engine, call.body.settled())?))
}

pub fn options(_: &Arc<Engine>, _: Call) -> Result<Reply> {
    Ok(OPTIONS.reply(&()))
}

pub fn plugins(_: &Arc<Engine>, call: Call<PluginQuery>) -> Result<Reply> {
    match call.query.filters.unknown(&["capability", "enabled"]) {
        Some(unknown) => Err(Error::invalid(format!("invalid filter '{unknown}'"))),
        None => Ok(PLUGIN_LIST.reply(&Vec::new())),
    }
}

/// Subscribed before the head goes out: what a client does once it has seen it is not missed.
pub fn events(engine: &Arc<Engine>, call: Call<EventsQuery>) -> Result<Reply> {
    let stream = event_stream::request(call.query)?.open(&engine.events)?;
    Ok(Reply::stream("application/json", move |out| {
        let peer = out.peer();
        stream.follow(&|bell, left| peer.wait(&[bell], left), &mut |event| {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            out.write_all(&line)?;
            out.flush()
        })
    }))
}
