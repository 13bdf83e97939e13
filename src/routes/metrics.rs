//! The table of the metrics listener: one page, for whoever can reach it, and nothing of the API.

use std::sync::Arc;

use crate::daemon::engine::Engine;
use crate::daemon::metrics;
use crate::http::api::{Failure, Method, Operation, Shape};
use crate::http::reply::Reply;
use crate::http::request::Request;
use crate::http::route::Route;

const fn operation(id: &'static str, method: Method) -> Operation {
    Operation { id, method, path: "/metrics", shape: Shape::Json, status: 200, slow: false }
}

/// What `--metrics-addr` serves.
pub static METRICS: &[Route<Arc<Engine>>] = &[
    Route { operation: &operation("Metrics", Method::Get), handler: page, has_json_body: || false },
    Route { operation: &operation("MetricsHead", Method::Head), handler: page, has_json_body: || false },
];

fn page(engine: &Arc<Engine>, _: Request) -> Result<Reply, Failure> {
    Ok(Reply::bytes("text/plain; version=0.0.4; charset=utf-8", metrics::page(engine).into_bytes()))
}
