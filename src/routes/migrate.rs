//! Moves of containers between daemons: both ends of the connection that a client joins.

use std::sync::Arc;

use crate::daemon::containers::migrate::wire::Connection;
use crate::daemon::containers::migrate::{receive as receiving, send as sending};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::http::api::migrate::MigrateRequest;
use crate::http::hijack::Hijacked;
use crate::http::reply::Reply;
use crate::http::request::{Call, Raw};

const RAW_STREAM: &str = "application/vnd.docker.raw-stream";

/// The head is sent when what can be refused has been.
pub fn send(engine: &Arc<Engine>, call: Call<(), MigrateRequest>) -> Result<Reply> {
    let container = engine.containers.get(call.param("name"))?;
    check_upgrade(&call.raw)?;
    let (engine, request) = (Arc::clone(engine), call.body);
    sending::check(&engine, &container, &request)?;
    Ok(Reply::hijack(RAW_STREAM, move |client| {
        sending::serve(&engine, &container, &request, connection(client));
    }))
}

pub fn receive(engine: &Arc<Engine>, call: Call<()>) -> Result<Reply> {
    check_upgrade(&call.raw)?;
    let engine = Arc::clone(engine);
    Ok(Reply::hijack(RAW_STREAM, move |client| receiving::serve(&engine, connection(client))))
}

/// Nobody speaks frames by mistake.
fn check_upgrade(raw: &Raw) -> Result<()> {
    match raw.headers.get("upgrade") {
        Some(_) => Ok(()),
        None => Err(Error::invalid("a migration takes its connection over: ask with \"Upgrade: tcp\"")),
    }
}

pub fn connection(client: Hijacked) -> Connection {
    let closer = client.closer();
    let (input, output) = client.split();
    Connection { input: Box::new(input), output: Box::new(output), hang_up: Box::new(move || closer.close()) }
}
