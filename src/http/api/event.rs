//! The event stream.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Endpoint, Filters, Method, Shape};

/// One thing that happened.
///
/// Compat: `status`, `id` and `from` repeat what `Action` and `Actor` say, for containers and images, as
/// every API version below 1.52 does; docker-py filters and old tools rely on them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub from: String,
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(rename = "Action")]
    pub action: String,
    #[serde(rename = "Actor")]
    pub actor: Actor,
    pub scope: String,
    /// Seconds since the epoch.
    pub time: i64,
    /// Nanoseconds since the epoch.
    #[serde(rename = "timeNano")]
    pub time_nano: i64,
}

/// The object an event is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Actor {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "Attributes")]
    pub attributes: BTreeMap<String, String>,
}

crate::query! {
    /// Which events, from when to when.
    pub struct EventsQuery {
        /// `seconds[.nanoseconds]` since the epoch; with it the past is replayed first.
        since: String = "since",
        /// As `since`; the stream ends there.
        until: String = "until",
        filters: Filters = "filters",
    }
}

/// The stream: one JSON object per line.
pub static SYSTEM_EVENTS: Endpoint<EventsQuery, (), Event> =
    Endpoint::new("SystemEvents", Method::Get, "/events", Shape::Stream, 200);
