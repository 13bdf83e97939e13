//! The daemon itself.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use crate::daemon::containers::logs::timestamp;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::info;
use crate::http::api::Filters;
use crate::http::api::event::{Event, EventsQuery};
use crate::http::api::system::{SYSTEM_INFO, SYSTEM_VERSION};
use crate::http::reply::Reply;
use crate::http::request::Call;

/// How often a quiet stream asks whether its client is still there.
const LOOK: Duration = Duration::from_millis(500);

/// Docker's kinds of objects and what else may be filtered by.
const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

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

pub fn info(engine: &Arc<Engine>, _: Call) -> Result<Reply> {
    Ok(SYSTEM_INFO.reply(&info::info(engine)))
}

pub fn events(engine: &Arc<Engine>, call: Call<EventsQuery>) -> Result<Reply> {
    let EventsQuery { since, until, filters } = call.query;
    if let Some(unknown) = filters.unknown(&FILTERS) {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    let (since, until) = (timestamp("since", &since)?, timestamp("until", &until)?);
    let (past, future) = engine.events.subscribe();
    let nanos = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let (since, until) = (since.map(nanos), until.map(nanos));
    Ok(Reply::stream("application/json", move |out| {
        let peer = out.peer();
        let is_wanted =
            |event: &Event| until.is_none_or(|until| event.time_nano <= until) && matches(&filters, event);
        let mut send = |event: &Event| {
            let mut line = serde_json::to_vec(event)?;
            line.push(b'\n');
            out.write_all(&line)?;
            out.flush()
        };
        // Without `since` only what happens from now on is asked for.
        if let Some(since) = since {
            past.iter()
                .filter(|event| event.time_nano >= since && is_wanted(event))
                .try_for_each(&mut send)?;
        }
        loop {
            let now = nanos(jiff::Timestamp::now());
            let left = until.map(|until| Duration::from_nanos(u64::try_from(until - now).unwrap_or(0)));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(());
            }
            match future.recv_timeout(left.unwrap_or(LOOK).min(LOOK)) {
                Ok(event) if is_wanted(&event) => send(&event)?,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if peer.is_gone() => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }))
}

fn matches(filters: &Filters, event: &Event) -> bool {
    let any = |key: &str, test: &dyn Fn(&str) -> bool| {
        let values = filters.get(key);
        values.is_empty() || values.iter().any(|value| test(value))
    };
    let attributes: &BTreeMap<String, String> = &event.actor.attributes;
    let is_object = |kind: &str, value: &str| {
        event.kind == kind
            && (event.actor.id.starts_with(value)
                || attributes.get("name").is_some_and(|name| name == value)
                || attributes.get("image").is_some_and(|image| kind == "image" && image == value))
    };
    any("type", &|value| event.kind == value)
        // `exec_create` stands for `exec_create: sh`.
        && any("event", &|value| {
            event.action == value || event.action.split(':').next() == Some(value)
        })
        && any("scope", &|value| event.scope == value)
        && any("image", &|value| {
            is_object("image", value) || attributes.get("image").is_some_and(|image| image == value)
        })
        && ["container", "volume", "network", "daemon", "plugin", "service", "node", "secret", "config"]
            .iter()
            .all(|kind| any(kind, &|value| is_object(kind, value)))
        && filters.get("label").iter().all(|label| match label.split_once('=') {
            Some((key, value)) => attributes.get(key).is_some_and(|actual| actual == value),
            None => attributes.contains_key(label),
        })
}
