//! Which function serves which operation: one line each, grouped by noun, in the API's order.
//!
//! Handlers are a few lines: they take the request apart, call the engine once, and put the answer together.

mod checkpoint;
mod container;
mod exec;
mod image;
mod pump;
mod system;

use std::sync::Arc;

use crate::daemon::engine::Engine;
use crate::http::api::checkpoint::{CHECKPOINT_CREATE, CHECKPOINT_DELETE, CHECKPOINT_LIST};
use crate::http::api::container::{
    CONTAINER_ARCHIVE, CONTAINER_ARCHIVE_INFO, CONTAINER_ATTACH, CONTAINER_CREATE, CONTAINER_DELETE,
    CONTAINER_INSPECT, CONTAINER_KILL, CONTAINER_LIST, CONTAINER_LOGS, CONTAINER_PAUSE, CONTAINER_RENAME,
    CONTAINER_RESIZE, CONTAINER_RESTART, CONTAINER_START, CONTAINER_STOP, CONTAINER_TOP, CONTAINER_UNPAUSE,
    CONTAINER_WAIT, PUT_CONTAINER_ARCHIVE,
};
use crate::http::api::event::SYSTEM_EVENTS;
use crate::http::api::exec::{CONTAINER_EXEC, EXEC_INSPECT, EXEC_RESIZE, EXEC_START};
use crate::http::api::image::{
    IMAGE_CREATE, IMAGE_DELETE, IMAGE_GET, IMAGE_GET_ALL, IMAGE_HISTORY, IMAGE_INSPECT, IMAGE_LIST,
    IMAGE_LOAD, IMAGE_PRUNE, IMAGE_TAG,
};
use crate::http::api::system::{SYSTEM_INFO, SYSTEM_PING, SYSTEM_PING_HEAD, SYSTEM_VERSION};
use crate::http::route::Route;
use crate::route;

/// Every operation this daemon serves.
pub static ROUTES: &[Route<Arc<Engine>>] = &[
    route!(SYSTEM_PING, system::ping),
    route!(SYSTEM_PING_HEAD, system::ping),
    route!(SYSTEM_VERSION, system::version),
    route!(SYSTEM_INFO, system::info),
    route!(SYSTEM_EVENTS, system::events),
    //
    route!(CONTAINER_LIST, container::list),
    route!(CONTAINER_CREATE, container::create),
    route!(CONTAINER_INSPECT, container::inspect),
    route!(CONTAINER_TOP, container::top),
    route!(CONTAINER_LOGS, container::logs),
    route!(CONTAINER_RESIZE, container::resize),
    route!(CONTAINER_START, container::start),
    route!(CONTAINER_STOP, container::stop),
    route!(CONTAINER_RESTART, container::restart),
    route!(CONTAINER_KILL, container::kill),
    route!(CONTAINER_RENAME, container::rename),
    route!(CONTAINER_PAUSE, container::pause),
    route!(CONTAINER_UNPAUSE, container::unpause),
    route!(CONTAINER_ATTACH, container::attach),
    route!(CONTAINER_WAIT, container::wait),
    route!(CONTAINER_DELETE, container::delete),
    route!(CONTAINER_ARCHIVE_INFO, container::archive_info),
    route!(CONTAINER_ARCHIVE, container::archive),
    route!(PUT_CONTAINER_ARCHIVE, container::put_archive),
    //
    route!(CONTAINER_EXEC, exec::create),
    route!(EXEC_START, exec::start),
    route!(EXEC_RESIZE, exec::resize),
    route!(EXEC_INSPECT, exec::inspect),
    //
    route!(CHECKPOINT_CREATE, checkpoint::create),
    route!(CHECKPOINT_LIST, checkpoint::list),
    route!(CHECKPOINT_DELETE, checkpoint::delete),
    //
    route!(IMAGE_LIST, image::list),
    route!(IMAGE_CREATE, image::create),
    route!(IMAGE_INSPECT, image::inspect),
    route!(IMAGE_HISTORY, image::history),
    route!(IMAGE_TAG, image::tag),
    route!(IMAGE_DELETE, image::delete),
    route!(IMAGE_PRUNE, image::prune),
    route!(IMAGE_LOAD, image::load),
    route!(IMAGE_GET, image::save),
    route!(IMAGE_GET_ALL, image::save_several),
];
