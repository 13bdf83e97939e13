//! The engine: containers, images and their state on disk, served until a signal.
//!
//! ```text
//! lock the roots ─► bind listeners ─► recover containers ─► serve ─► ready ─► wait ─► stop in order
//! ```
//!
//! The main thread ends in one `recv` on the shutdown channel; signals are the senders. Order of the end:
//! stop accepting and cut what lasts → stop or leave the containers → remove sockets and pid file →
//! release the lock (by ending).
//!
//! Lock order in the engine: container map → a container's `action` → its `inner` → event bus. None but
//! `action` is held across the kernel's work.

pub mod authorization;
pub mod bell;
pub mod build;
pub mod config;
pub mod containers;
mod dispatch;
pub mod dockerfile;
pub mod doctor;
mod dump;
pub mod engine;
pub mod error;
pub mod event_stream;
pub mod events;
pub mod images;
pub mod info;
pub mod listeners;
pub mod logger;
pub mod login;
pub mod metrics;
pub mod names;
pub mod networks;
mod notify;
pub mod pattern;
mod pidfile;
pub mod registry;
mod reload;
pub mod runtimes;
mod shutdown;
mod signals;
pub mod state_dir;
pub mod usage;
pub mod volumes;

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use config::Config;
use config::load::{Given, Loaded};
use engine::Engine;
use error::{Error, Result};
use listeners::activation::Activated;
use listeners::secure;
use notify::Notifier;
use pidfile::PidFile;
use signals::Order;

use crate::http::api::API_VERSION;
use crate::http::middleware::Middleware;
use crate::http::route::{Route, RouteTable};
use crate::http::server::{Handle, Limits, Listener, Server};
use crate::http::tls::Acceptor;
use crate::runtime::cgroup;

/// Threads that only wait or do short work; the kernel gives them memory as they touch it.
const SMALL_STACK: usize = 256 * 1024;

/// What the daemon serves; `main` joins them.
#[derive(Clone, Copy)]
pub struct Tables {
    pub routes: &'static [Route<Arc<Engine>>],
    /// What every request to `routes` passes, in this order.
    pub middlewares: &'static [Middleware<Arc<Engine>>],
    /// What the metrics listener serves.
    pub metrics: &'static [Route<Arc<Engine>>],
}

/// Checks a configuration without touching anything.
///
/// # Errors
/// What [`run`] would refuse before it begins.
pub fn validate(config: &Config) -> Result<()> {
    listeners::check(config)?;
    // Compat: dockerd's words.
    containers::logs::drivers::validate(&config.defaults.log)
        .map_err(|error| error.during("failed to set log opts"))
}

/// The most that is logged under this configuration.
pub fn log_level(config: &Config) -> log::LevelFilter {
    // Compat: with dockerd, too, `debug` counts more than a level.
    match config.debug {
        true => log::LevelFilter::Debug,
        false => config.log_level.parse().unwrap_or(log::LevelFilter::Info),
    }
}

/// Runs the daemon until INT or TERM: each step of ARCHITECTURE.md's table in its order.
///
/// # Errors
/// Everything that keeps it from serving; what it had made until then is removed.
pub fn run(loaded: Loaded, given: &Given, tables: Tables) -> Result<()> {
    let Loaded { config, notes } = loaded;
    notes.iter().for_each(|note| log::warn!("{note}"));
    if !rustix::process::geteuid().is_root() {
        return Err(Error::forbidden("start the daemon: it must run as root"));
    }
    let activated = Activated::take();
    validate(&config)?;
    let read = |routes| RouteTable::new(routes).map_err(|cause| Error::system("read the route table", cause));
    let (table, metrics_table) = (read(tables.routes)?, read(tables.metrics)?);
    let notifier = Notifier::from_environment();
    let (sender, orders) = channel();
    let signals = signals::trap(sender)?;
    cgroup::ensure_mounted()?;
    let (engine, sandbox_events) = Engine::open(config.clone())?;
    signals.dump_of(&engine);
    let acceptor = secure::certificates(&config)?.map(|certificates| Arc::new(Acceptor::new(certificates)));
    let acceptor = acceptor.map(|acceptor| engine.acceptor.get_or_init(|| acceptor));
    let mut bound = listeners::bind(&config, activated, acceptor)?;
    let metrics_listener = config.metrics_addr.map(listeners::bind_metrics).transpose()?;
    let pidfile = config.pidfile.as_deref().map(PidFile::write).transpose()?;
    signals.remove_when_forced(bound.files().iter().map(Into::into).chain(config.pidfile.clone()));
    spawn("events", {
        let engine = Arc::clone(&engine);
        move || dispatch::dispatch(&engine, &sandbox_events)
    })?;
    let authorization = &engine.authorization;
    authorization.commit(authorization.prepare(&config.authorization_plugins)?);
    containers::recover::recover(&engine)?;
    build::Builds::recover(&engine);
    let metrics =
        metrics_listener.map(|listener| serve_metrics(&engine, listener, metrics_table)).transpose()?;
    let server = serve(&engine, std::mem::take(&mut bound.listeners), table, tables.middlewares)?;
    log::info!("dewar {} serves API {API_VERSION} on {}", env!("CARGO_PKG_VERSION"), bound.places.join(", "));
    notifier.ready(config.ready_fd);

    let reason = wait(&engine, &server, &orders, given, &notifier);
    log::info!("stopping: {reason}");
    notifier.tell("STOPPING=1");
    shutdown::stop(&engine, &server);
    metrics.map(|server| server.stop(Duration::from_secs(1)));
    bound.remove_files();
    drop(pidfile);
    shutdown::tidy(&engine);
    signals.close();
    Ok(())
}

/// Serves the route table on bound sockets.
fn serve(
    engine: &Arc<Engine>,
    listeners: Vec<Listener>,
    table: RouteTable<Arc<Engine>>,
    middlewares: &'static [Middleware<Arc<Engine>>],
) -> Result<Handle> {
    let server = Server::new(listeners, table, middlewares, Arc::clone(engine), Limits::default())
        .and_then(Server::start)
        .map_err(|cause| Error::system("serve the API", cause))?;
    server.set_access_log(engine.config().access_log);
    let names: Vec<&str> = middlewares.iter().map(|middleware| middleware.name).collect();
    log::debug!("requests pass {}", names.join(", "));
    Ok(server)
}

/// Serves the figures, to a few readers at once.
fn serve_metrics(
    engine: &Arc<Engine>,
    listener: TcpListener,
    table: RouteTable<Arc<Engine>>,
) -> Result<Handle> {
    let place = listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
    let limits = Limits { workers: 4, connections: 64, ..Limits::default() };
    let server = Server::new(vec![Listener::Tcp(listener)], table, &[], Arc::clone(engine), limits)
        .and_then(Server::start)
        .map_err(|cause| Error::system("serve metrics", cause))?;
    log::info!("metrics are served on http://{place}/metrics");
    Ok(server)
}

/// The blocking wait that drives everything after the start: reloads as they are ordered, until the order
/// to stop, whose reason it gives.
fn wait(
    engine: &Arc<Engine>,
    server: &Handle,
    orders: &Receiver<Order>,
    given: &Given,
    notifier: &Notifier,
) -> &'static str {
    loop {
        let order = match notifier.watchdog() {
            Some(interval) => orders.recv_timeout(interval),
            None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match order {
            Ok(Order::Stop(signal)) => return signal,
            Ok(Order::Reload) => notifier.reloading(|| {
                reload::reload(engine, given);
                server.set_access_log(engine.config().access_log);
            }),
            // A daemon whose containers cannot be listed does not get here, and its supervisor acts.
            Err(RecvTimeoutError::Timeout) => {
                engine.containers.all();
                notifier.tell("WATCHDOG=1");
            }
            Err(RecvTimeoutError::Disconnected) => return "no signal can arrive any more",
        }
    }
}

/// Starts a thread with a small stack.
pub fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(SMALL_STACK)
        .spawn(run)
        .map(drop)
        .map_err(|cause| Error::system(format!("start thread {name:?}"), cause))
}
