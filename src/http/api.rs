//! The vocabulary of the wire: every operation with its types, once, for client and server alike.
//!
//! An [`Endpoint`] ties an Engine API operation to its method, path, query, body and answer. The client
//! calls through it and the route table serves through it. Types carry Docker's field names (`PascalCase`, with `ID`, `IP` and `URL` spelled
//! as Docker spells them).
//!
//! Not here: how bytes travel (`http::connection`), who answers (`routes`).
//!
//! Source: Docker Engine API v1.51.

pub mod auth;
pub mod build;
pub mod checkpoint;
pub mod checkpoint_policy;
pub mod checkpoint_stream;
pub mod container;
pub mod copies;
pub mod event;
pub mod exec;
pub mod filesystem;
pub mod ignore;
pub mod image;
pub mod migrate;
pub mod network;
pub mod query;
pub mod stats;
mod strict;
pub mod system;
pub mod usage;
pub mod volume;

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

pub use query::{Filters, Query};

/// The newest API version this daemon speaks and the one its client asks for.
pub const API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 51 };
/// The oldest API version this daemon accepts.
pub const MIN_API_VERSION: ApiVersion = ApiVersion { major: 1, minor: 24 };

/// A version of the Engine API, compared numerically part by part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiVersion {
    /// Always 1 so far.
    pub major: u16,
    /// The part that moves.
    pub minor: u16,
}

impl ApiVersion {
    /// Parses `1.43`; no sign, no spaces, no prefix.
    pub fn parse(text: &str) -> Option<ApiVersion> {
        let (major, minor) = text.split_once('.')?;
        let digits = |part: &str| {
            (!part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
                .then(|| part.parse().ok())
                .flatten()
        };
        Some(ApiVersion { major: digits(major)?, minor: digits(minor)? })
    }
}

impl std::fmt::Display for ApiVersion {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.major, self.minor)
    }
}

/// Operations that are younger than the oldest version, by the minor version they came with.
///
/// Source: Engine API version history; what is not here has been there since 1.24.
const SINCE: &[(&str, u16)] = &[
    ("BuildPrune", 31),
    ("ContainerPrune", 25),
    ("DistributionInspect", 30),
    ("ImagePrune", 25),
    ("NetworkPrune", 25),
    ("ServiceLogs", 29),
    ("Session", 31),
    ("SystemDataUsage", 25),
    ("TaskLogs", 29),
    ("VolumePrune", 25),
    ("VolumeUpdate", 42),
];

/// The first version that has `operation`.
pub fn since(operation: &Operation) -> ApiVersion {
    let minor =
        SINCE.iter().find(|(id, _)| *id == operation.id).map_or(MIN_API_VERSION.minor, |(_, minor)| *minor);
    ApiVersion { major: 1, minor }
}

/// The method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
}

impl Method {
    /// The method's spelling on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }

    /// The method spelled `name`, or `None`.
    pub fn parse(name: &str) -> Option<Method> {
        [Method::Get, Method::Head, Method::Post, Method::Put, Method::Delete, Method::Options]
            .into_iter()
            .find(|method| method.name() == name)
    }
}

/// What a successful answer looks like, and so how long the request may hold its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One JSON value.
    Json,
    /// A status and no body.
    Empty,
    /// Bytes or JSON messages that go on until the daemon or the peer ends them.
    Stream,
    /// The connection is taken over: raw bytes both ways.
    Hijack,
}

/// The types of an operation without its types: what a table can hold.
#[derive(Debug)]
pub struct Operation {
    /// The Engine API's operationId, for example `ContainerCreate`.
    pub id: &'static str,
    pub method: Method,
    /// A pattern: `{name}` stands for one path segment, `{name...}` for one or more.
    pub path: &'static str,
    pub shape: Shape,
    /// The status of success.
    pub status: u16,
    /// Whether the call may block long although its answer is short (stop, checkpoint): it is then not
    /// counted against the worker pool, like `Stream` and `Hijack`.
    pub slow: bool,
}

/// One operation: `Q` is its query, `B` its body (`()` for none), `R` its answer (`()` for none).
pub struct Endpoint<Q, B, R> {
    pub operation: Operation,
    types: PhantomData<fn(Q, B) -> R>,
}

impl<Q, B, R> Endpoint<Q, B, R> {
    /// An operation that answers `status` in the given shape.
    pub const fn new(
        id: &'static str,
        method: Method,
        path: &'static str,
        shape: Shape,
        status: u16,
    ) -> Self {
        Endpoint { operation: Operation { id, method, path, shape, status, slow: false }, types: PhantomData }
    }

    /// The same operation, marked as one that may block long.
    pub const fn slow(mut self) -> Self {
        self.operation.slow = true;
        self
    }
}

/// Why a request was refused: the classes the API knows, each with one status.
///
/// Chosen where the failure is understood, turned into a status in `http::reply` only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 304: the object already is as asked. Clients count it as success.
    NotModified,
    /// 400
    InvalidParameter,
    /// 401: a registry does not know who asks.
    Unauthorized,
    /// 403
    Forbidden,
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 413
    TooLarge,
    /// 501
    NotImplemented,
    /// 503
    Unavailable,
    /// 500: the daemon's or the kernel's fault, not the caller's.
    System,
}

/// A refusal as it crosses the wire.
#[derive(Clone, Debug)]
pub struct Failure {
    pub class: Class,
    /// Attempt, object and cause, joined by ": "; Docker's text where clients match on it.
    pub message: String,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorResponse {
    pub message: String,
}

/// Decodes one JSON value and nothing after it, by Docker's rules: `null` means unset at every depth, as Go
/// clients and docker-py send it, and a list is no object. Depth is bounded by serde_json (128). The error says
/// where the text stops making sense.
pub fn decode<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    decode_value(serde_json::from_slice(text)?)
}

/// As [`decode`], of a value that is parsed already. Every reader of these types goes through here: each
/// further deserializer would compile all of them once more.
pub fn decode_value<T: serde::de::DeserializeOwned>(
    value: serde_json::Value,
) -> Result<T, serde_json::Error> {
    T::deserialize(strict::Strict(value))
}
