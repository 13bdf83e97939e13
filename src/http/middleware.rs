//! What a request passes between its route and its handler, and its answer on the way back.
//!
//! ```text
//!   head ──> route ──> first ──> second ──> … ──> handler
//!                        │ leave   │ leave           │
//!   bytes <───────────── <──────── <─────────────────┘
//! ```
//!
//! A [`Middleware`] is a line of a table, as a route is, and the table is the order. Entering, it may change the
//! request or refuse it; then what lies behind it never sees the request. What it returns looks at the answer,
//! a refusal like any other, and may refuse that. One that has nothing to say about a request costs a call.
//!
//! A request that leads to no route passes none, nor does one whose head does not parse.
//!
//! Not here: the table (`routes`), who may do what (`routes::authorization`).

pub mod debug;
pub mod version;

use super::api::{Failure, Operation};
use super::reply::Reply;
use super::request::Request;
use super::route::Route;

/// What a middleware has to say about the answer; called once, before the answer's first byte is sent.
pub type Leave = Box<dyn FnOnce(&Reply) -> Result<(), Failure> + Send>;

/// One line of the table.
#[derive(Debug)]
pub struct Middleware<S> {
    pub name: &'static str,
    /// Sees each request; what it returns sees the request's answer.
    pub enter: fn(&S, &mut Passing<'_>) -> Result<Option<Leave>, Failure>,
    /// The headers of every answer, asked for once.
    pub headers: fn() -> Vec<(&'static str, String)>,
    /// Whether it may, at the moment, hold requests up for long: their threads then do not count as workers.
    pub may_last: fn(&S) -> bool,
}

impl<S> Middleware<S> {
    /// One that adds no headers and does not block.
    pub const fn new(
        name: &'static str,
        enter: fn(&S, &mut Passing<'_>) -> Result<Option<Leave>, Failure>,
    ) -> Middleware<S> {
        Middleware { name, enter, headers: Vec::new, may_last: |_| false }
    }

    /// The same, with headers for every answer.
    pub const fn headers(mut self, headers: fn() -> Vec<(&'static str, String)>) -> Middleware<S> {
        self.headers = headers;
        self
    }

    /// The same, with when it may block for long.
    pub const fn may_last(mut self, may_last: fn(&S) -> bool) -> Middleware<S> {
        self.may_last = may_last;
        self
    }
}

/// A request on its way to its handler.
pub struct Passing<'a> {
    pub operation: &'static Operation,
    /// Whether the handler reads its body as JSON: decided by the handler's types, by nothing the client says.
    pub has_json_body: bool,
    /// The version as the path has it.
    pub version: Option<&'a str>,
    pub request: &'a mut Request,
}

/// Takes a request through all of `middlewares` to its handler and back.
pub(super) fn pass<S>(
    middlewares: &[Middleware<S>],
    state: &S,
    route: &Route<S>,
    version: Option<&str>,
    mut request: Request,
) -> Result<Reply, Failure> {
    let mut leaving = Vec::new();
    let mut entered = Ok(());
    for middleware in middlewares {
        let mut passing = Passing {
            operation: route.operation,
            has_json_body: (route.has_json_body)(),
            version,
            request: &mut request,
        };
        match (middleware.enter)(state, &mut passing) {
            Ok(leave) => leaving.extend(leave),
            Err(refused) => {
                entered = Err(refused);
                break;
            }
        }
    }
    let mut result = entered.and_then(|()| (route.handler)(state, request));
    for leave in leaving.into_iter().rev() {
        let allowed = match &result {
            Ok(reply) => leave(reply),
            Err(failure) => leave(&Reply::failure(failure)),
        };
        if let Err(refused) = allowed {
            result = Err(refused);
        }
    }
    result
}
