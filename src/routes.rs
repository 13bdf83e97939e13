//! Which function serves which operation: one line each, grouped by noun, in the API's order.
//!
//! Handlers are a few lines: they take the request apart, call the engine once, and put the answer together.

mod attach;
mod authorization;
mod build;
mod checkpoint;
mod compat;
mod container;
mod exec;
mod filesystem;
mod image;
pub mod metrics;
mod migrate;
mod network;
mod progress;
mod pump;
mod system;
mod usage;
mod volume;

use std::sync::Arc;

use crate::daemon::engine::Engine;
use crate::http::api::auth::SYSTEM_AUTH;
use crate::http::api::build::IMAGE_BUILD;
use crate::http::api::checkpoint::{
    CHECKPOINT_CHECK, CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_EXPORT, CHECKPOINT_IMPORT,
    CHECKPOINT_INSPECT, CHECKPOINT_LIST, CHECKPOINT_LIST_ALL, CHECKPOINT_PRUNE, CHECKPOINT_PULL,
    CHECKPOINT_PUSH,
};
use crate::http::api::checkpoint_stream::CHECKPOINT_STREAM;
use crate::http::api::container::{
    CONTAINER_ARCHIVE, CONTAINER_ARCHIVE_INFO, CONTAINER_ATTACH, CONTAINER_ATTACH_WEBSOCKET,
    CONTAINER_CREATE, CONTAINER_DELETE, CONTAINER_INSPECT, CONTAINER_KILL, CONTAINER_LIST, CONTAINER_LOGS,
    CONTAINER_PAUSE, CONTAINER_RENAME, CONTAINER_RESIZE, CONTAINER_RESTART, CONTAINER_START, CONTAINER_STOP,
    CONTAINER_TOP, CONTAINER_UNPAUSE, CONTAINER_UPDATE, CONTAINER_WAIT, PUT_CONTAINER_ARCHIVE,
};
use crate::http::api::copies::{CHECKPOINT_RESTORE, CONTAINER_CLONE};
use crate::http::api::event::SYSTEM_EVENTS;
use crate::http::api::exec::{CONTAINER_EXEC, EXEC_INSPECT, EXEC_RESIZE, EXEC_START};
use crate::http::api::filesystem::{CONTAINER_CHANGES, CONTAINER_EXPORT, IMAGE_COMMIT};
use crate::http::api::image::{
    DISTRIBUTION_INSPECT, IMAGE_CREATE, IMAGE_DELETE, IMAGE_GET, IMAGE_GET_ALL, IMAGE_HISTORY, IMAGE_INSPECT,
    IMAGE_LIST, IMAGE_LOAD, IMAGE_PRUNE, IMAGE_PUSH, IMAGE_SEARCH, IMAGE_TAG,
};
use crate::http::api::migrate::{CONTAINER_MIGRATE, MIGRATION_RECEIVE};
use crate::http::api::network::{
    NETWORK_CONNECT, NETWORK_CREATE, NETWORK_DELETE, NETWORK_DISCONNECT, NETWORK_INSPECT, NETWORK_LIST,
    NETWORK_PRUNE,
};
use crate::http::api::stats::CONTAINER_STATS;
use crate::http::api::system::{
    OPTIONS, PLUGIN_LIST, SYSTEM_INFO, SYSTEM_PING, SYSTEM_PING_HEAD, SYSTEM_VERSION,
};
use crate::http::api::usage::{BUILD_PRUNE, CONTAINER_PRUNE, SYSTEM_DATA_USAGE};
use crate::http::api::volume::{VOLUME_CREATE, VOLUME_DELETE, VOLUME_INSPECT, VOLUME_LIST, VOLUME_PRUNE};
use crate::http::api::{Class, Failure, Method, Operation, Shape};
use crate::http::middleware::{Middleware, debug, version};
use crate::http::route::Route;
use crate::route;

/// An operation this daemon does not have, and why: clients show the reason instead of "page not found".
macro_rules! refused {
    ($method:ident $path:literal, $id:literal, $reason:expr) => {
        Route {
            operation: &Operation {
                id: $id,
                method: Method::$method,
                path: $path,
                shape: Shape::Empty,
                status: 501,
                slow: false,
            },
            handler: |_, _| Err($reason.failure($id)),
            has_json_body: || false,
        }
    };
}

/// Why an operation is refused.
struct Refusal {
    class: Class,
    reason: &'static str,
}

impl Refusal {
    const fn later(reason: &'static str) -> Refusal {
        Refusal { class: Class::NotImplemented, reason }
    }

    fn failure(&self, operation: &str) -> Failure {
        Failure { class: self.class, message: format!("{operation}: {}", self.reason) }
    }
}

const BUILD: Refusal = Refusal::later("dewar has the classic builder only: set DOCKER_BUILDKIT=0");
/// Compat: Docker's words and status for what only a swarm's volumes have.
const CLUSTER_VOLUMES: Refusal = Refusal {
    class: Class::Unavailable,
    reason: "volume update only valid for cluster volumes, but swarm is unavailable",
};
const PLUGINS: Refusal = Refusal::later("dewar has no plugins");
/// Compat: `docker inspect` asks for a plugin of the name last, and says "No such object" for a 404 only.
const NO_PLUGIN: Refusal =
    Refusal { class: Class::NotFound, reason: "no such plugin: this version of dewar has none" };
/// Compat: the status and the words that compose and backup tools look for; a 404 breaks them.
const SWARM: Refusal = Refusal {
    class: Class::Unavailable,
    reason: "This node is not a swarm manager. dewar has no swarm mode.",
};

/// What requests pass on the way to the routes, in this order; answers come back the other way.
pub static MIDDLEWARES: &[Middleware<Arc<Engine>>] = &[
    Middleware::new("version", version::enter).headers(version::headers),
    Middleware::new("authorization", authorization::enter).may_last(authorization::may_last),
    Middleware::new("debug", debug::enter),
];

/// Every operation this daemon serves.
pub static ROUTES: &[Route<Arc<Engine>>] = &[
    route!(SYSTEM_PING, system::ping),
    route!(SYSTEM_PING_HEAD, system::ping),
    route!(SYSTEM_VERSION, system::version),
    route!(SYSTEM_INFO, system::info),
    route!(SYSTEM_EVENTS, system::events),
    route!(SYSTEM_AUTH, system::auth),
    route!(SYSTEM_DATA_USAGE, usage::data_usage),
    //
    route!(CONTAINER_LIST, container::list),
    route!(CONTAINER_CREATE, container::create),
    route!(CONTAINER_INSPECT, container::inspect),
    route!(CONTAINER_TOP, container::top),
    route!(CONTAINER_LOGS, container::logs),
    route!(CONTAINER_STATS, container::stats),
    route!(CONTAINER_RESIZE, container::resize),
    route!(CONTAINER_START, container::start),
    route!(CONTAINER_STOP, container::stop),
    route!(CONTAINER_RESTART, container::restart),
    route!(CONTAINER_KILL, container::kill),
    route!(CONTAINER_UPDATE, container::update),
    route!(CONTAINER_RENAME, container::rename),
    route!(CONTAINER_PAUSE, container::pause),
    route!(CONTAINER_UNPAUSE, container::unpause),
    route!(CONTAINER_ATTACH, attach::attach),
    route!(CONTAINER_ATTACH_WEBSOCKET, attach::websocket),
    route!(CONTAINER_WAIT, container::wait),
    route!(CONTAINER_DELETE, container::delete),
    route!(CONTAINER_ARCHIVE_INFO, container::archive_info),
    route!(CONTAINER_ARCHIVE, container::archive),
    route!(PUT_CONTAINER_ARCHIVE, container::put_archive),
    route!(CONTAINER_CHANGES, filesystem::changes),
    route!(CONTAINER_EXPORT, filesystem::export),
    route!(CONTAINER_PRUNE, usage::prune_containers),
    route!(IMAGE_BUILD, build::build),
    route!(BUILD_PRUNE, usage::prune_build_cache),
    route!(IMAGE_COMMIT, filesystem::commit),
    //
    route!(CONTAINER_EXEC, exec::create),
    route!(EXEC_START, exec::start),
    route!(EXEC_RESIZE, exec::resize),
    route!(EXEC_INSPECT, exec::inspect),
    //
    route!(CHECKPOINT_CREATE, checkpoint::create),
    route!(CHECKPOINT_LIST, checkpoint::list),
    route!(CHECKPOINT_DELETE, checkpoint::delete),
    route!(CHECKPOINT_CHECK, checkpoint::check),
    route!(CHECKPOINT_INSPECT, checkpoint::inspect),
    route!(CHECKPOINT_LIST_ALL, checkpoint::all),
    route!(CHECKPOINT_PRUNE, checkpoint::prune),
    route!(CHECKPOINT_EXPORT, checkpoint::export),
    route!(CHECKPOINT_IMPORT, checkpoint::import),
    route!(CHECKPOINT_PUSH, checkpoint::push),
    route!(CHECKPOINT_PULL, checkpoint::pull),
    route!(CHECKPOINT_RESTORE, checkpoint::restore),
    route!(CONTAINER_CLONE, checkpoint::clone),
    route!(CHECKPOINT_STREAM, checkpoint::stream),
    route!(CONTAINER_MIGRATE, migrate::send),
    route!(MIGRATION_RECEIVE, migrate::receive),
    //
    route!(IMAGE_LIST, image::list),
    route!(IMAGE_CREATE, image::create),
    route!(IMAGE_INSPECT, image::inspect),
    route!(IMAGE_HISTORY, image::history),
    route!(IMAGE_TAG, image::tag),
    route!(IMAGE_DELETE, image::delete),
    route!(IMAGE_PUSH, image::push),
    route!(IMAGE_PRUNE, usage::prune_images),
    route!(IMAGE_SEARCH, image::search),
    route!(DISTRIBUTION_INSPECT, image::distribution),
    route!(IMAGE_LOAD, image::load),
    route!(IMAGE_GET, image::save),
    route!(IMAGE_GET_ALL, image::save_several),
    //
    route!(NETWORK_LIST, network::list),
    route!(NETWORK_INSPECT, network::inspect),
    route!(NETWORK_DELETE, network::delete),
    route!(NETWORK_CREATE, network::create),
    route!(NETWORK_CONNECT, network::connect),
    route!(NETWORK_DISCONNECT, network::disconnect),
    route!(NETWORK_PRUNE, network::prune),
    route!(VOLUME_LIST, volume::list),
    route!(VOLUME_CREATE, volume::create),
    route!(VOLUME_INSPECT, volume::inspect),
    route!(VOLUME_DELETE, volume::delete),
    route!(VOLUME_PRUNE, volume::prune),
    //
    route!(OPTIONS, system::options),
    route!(PLUGIN_LIST, system::plugins),
    //
    // The rest of the API, refused by name.
    refused!(Put "/volumes/{name}", "VolumeUpdate", CLUSTER_VOLUMES),
    refused!(Get "/plugins/privileges", "GetPluginPrivileges", PLUGINS),
    refused!(Post "/plugins/pull", "PluginPull", PLUGINS),
    refused!(Get "/plugins/{name...}/json", "PluginInspect", NO_PLUGIN),
    refused!(Delete "/plugins/{name...}", "PluginDelete", PLUGINS),
    refused!(Post "/plugins/{name...}/enable", "PluginEnable", PLUGINS),
    refused!(Post "/plugins/{name...}/disable", "PluginDisable", PLUGINS),
    refused!(Post "/plugins/{name...}/upgrade", "PluginUpgrade", PLUGINS),
    refused!(Post "/plugins/create", "PluginCreate", PLUGINS),
    refused!(Post "/plugins/{name...}/push", "PluginPush", PLUGINS),
    refused!(Post "/plugins/{name...}/set", "PluginSet", PLUGINS),
    refused!(Get "/nodes", "NodeList", SWARM),
    refused!(Get "/nodes/{name}", "NodeInspect", SWARM),
    refused!(Delete "/nodes/{name}", "NodeDelete", SWARM),
    refused!(Post "/nodes/{name}/update", "NodeUpdate", SWARM),
    refused!(Get "/swarm", "SwarmInspect", SWARM),
    refused!(Post "/swarm/init", "SwarmInit", SWARM),
    refused!(Post "/swarm/join", "SwarmJoin", SWARM),
    refused!(Post "/swarm/leave", "SwarmLeave", SWARM),
    refused!(Post "/swarm/update", "SwarmUpdate", SWARM),
    refused!(Get "/swarm/unlockkey", "SwarmUnlockkey", SWARM),
    refused!(Post "/swarm/unlock", "SwarmUnlock", SWARM),
    refused!(Get "/services", "ServiceList", SWARM),
    refused!(Post "/services/create", "ServiceCreate", SWARM),
    refused!(Get "/services/{name}", "ServiceInspect", SWARM),
    refused!(Delete "/services/{name}", "ServiceDelete", SWARM),
    refused!(Post "/services/{name}/update", "ServiceUpdate", SWARM),
    refused!(Get "/services/{name}/logs", "ServiceLogs", SWARM),
    refused!(Get "/tasks", "TaskList", SWARM),
    refused!(Get "/tasks/{name}", "TaskInspect", SWARM),
    refused!(Get "/tasks/{name}/logs", "TaskLogs", SWARM),
    refused!(Get "/secrets", "SecretList", SWARM),
    refused!(Post "/secrets/create", "SecretCreate", SWARM),
    refused!(Get "/secrets/{name}", "SecretInspect", SWARM),
    refused!(Delete "/secrets/{name}", "SecretDelete", SWARM),
    refused!(Post "/secrets/{name}/update", "SecretUpdate", SWARM),
    refused!(Get "/configs", "ConfigList", SWARM),
    refused!(Post "/configs/create", "ConfigCreate", SWARM),
    refused!(Get "/configs/{name}", "ConfigInspect", SWARM),
    refused!(Delete "/configs/{name}", "ConfigDelete", SWARM),
    refused!(Post "/configs/{name}/update", "ConfigUpdate", SWARM),
    refused!(Post "/session", "Session", BUILD),
    refused!(Post "/grpc", "Grpc", BUILD),
];
