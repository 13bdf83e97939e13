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

pub mod bell;
pub mod config;
pub mod containers;
pub mod engine;
pub mod error;
pub mod event_stream;
pub mod events;
pub mod images;
pub mod info;
pub mod listeners;
pub mod names;
pub mod networks;
pub mod pattern;
pub mod state_dir;
pub mod usage;
pub mod volumes;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use config::Config;
use containers::lifecycle;
use engine::Engine;
use error::{Error, Result};
use listeners::activation::Activated;

use crate::http::api::{API_VERSION, Class};
use crate::http::middleware::Middleware;
use crate::http::route::{Route, RouteTable};
use crate::http::server::{Limits, Server};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::{SandboxEvent, cgroup};

/// How long requests in flight get to finish when the daemon stops.
const FINISH: Duration = Duration::from_secs(5);
/// Threads that only wait or do short work; the kernel gives them memory as they touch it.
const SMALL_STACK: usize = 256 * 1024;

/// Checks a configuration without touching anything.
///
/// # Errors
/// What [`run`] would refuse before it begins.
pub fn validate(config: &Config) -> Result<()> {
    listeners::check(config)?;
    for (name, root) in [("data", &config.data_root), ("exec", &config.exec_root)] {
        if !root.is_absolute() {
            return Err(Error::invalid(format!("use {root:?} as the {name} root: not an absolute path")));
        }
    }
    Ok(())
}

/// Runs the daemon until INT or TERM.
///
/// # Errors
/// Everything that keeps it from serving; what it had made until then is removed.
pub fn run(
    config: Config,
    routes: &'static [Route<Arc<Engine>>],
    middlewares: &'static [Middleware<Arc<Engine>>],
) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::forbidden("start the daemon: it must run as root"));
    }
    let activated = Activated::take();
    validate(&config)?;
    let table = RouteTable::new(routes).map_err(|cause| Error::system("read the route table", cause))?;
    let (sender, shutdown) = channel();
    let signals = trap_signals(sender)?;
    let pidfile = config.pidfile.clone();
    cgroup::ensure_mounted()?;
    let (engine, sandbox_events) = Engine::open(config.clone())?;
    let mut bound = listeners::bind(&config, activated)?;
    let _pidfile = pidfile.as_deref().map(PidFile::write).transpose()?;
    spawn("events", {
        let engine = Arc::clone(&engine);
        move || dispatch(&engine, &sandbox_events)
    })?;
    containers::recover::recover(&engine)?;
    let server = Server::new(
        std::mem::take(&mut bound.listeners),
        table,
        middlewares,
        Arc::clone(&engine),
        Limits::default(),
    )
    .and_then(Server::start)
    .map_err(|cause| Error::system("serve the API", cause))?;
    let names: Vec<&str> = middlewares.iter().map(|middleware| middleware.name).collect();
    log::debug!("requests pass {}", names.join(", "));
    log::info!("dewar {} serves API {API_VERSION} on {}", env!("CARGO_PKG_VERSION"), bound.places.join(", "));
    tell_ready(config.ready_fd);

    let reason = wait(&shutdown);
    log::info!("stopping: {reason}");
    engine.is_stopping.store(true, Ordering::SeqCst);
    let cut = server.stop(FINISH);
    if cut > 0 {
        log::info!("{cut} requests were cut");
    }
    if !config.live_restore {
        stop_containers(&engine, &shutdown, Duration::from_secs(config.shutdown_timeout_secs));
    }
    bound.remove_files();
    tidy(&engine);
    signals.close();
    Ok(())
}

/// INT and TERM arrive on the channel, by name.
fn trap_signals(sender: std::sync::mpsc::Sender<String>) -> Result<signal_hook::iterator::Handle> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])
        .map_err(|cause| Error::system("trap signals", cause))?;
    let handle = signals.handle();
    spawn("signals", move || {
        for signal in &mut signals {
            let name = match signal {
                SIGINT => "SIGINT",
                SIGTERM => "SIGTERM",
                _ => {
                    // A terminal that closes must not take the containers with it.
                    log::info!("SIGHUP: nothing to reload");
                    continue;
                }
            };
            if sender.send(name.to_owned()).is_err() {
                return;
            }
        }
    })?;
    Ok(handle)
}

fn wait(shutdown: &Receiver<String>) -> String {
    shutdown.recv().unwrap_or_else(|_| "no signal can arrive any more".to_owned())
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

/// What happened below goes to the container it happened to; an exit gets a thread of its own, because its
/// aftermath waits for the kernel.
fn dispatch(engine: &Arc<Engine>, events: &Receiver<SandboxEvent>) {
    while let Ok(event) = events.recv() {
        let id = match &event {
            SandboxEvent::Exited { id, .. }
            | SandboxEvent::ExecExited { id, .. }
            | SandboxEvent::Oom { id }
            | SandboxEvent::Detached { id, .. }
            | SandboxEvent::Lost { id } => id.clone(),
        };
        let Some(container) = engine.containers.by_id(&id) else {
            log::warn!("an event of container {id}, which is not known: {event:?}");
            continue;
        };
        match event {
            SandboxEvent::Exited { exit, .. } => {
                let engine = Arc::clone(engine);
                aftermath(move || lifecycle::exited(&engine, &container, &exit));
            }
            SandboxEvent::Lost { .. } => {
                let engine = Arc::clone(engine);
                aftermath(move || lifecycle::lost(&engine, &container));
            }
            SandboxEvent::ExecExited { exec_id, code, .. } => {
                containers::exec::ended(engine, &container, &exec_id, code);
            }
            SandboxEvent::Oom { .. } => {
                let mut inner = container.lock();
                // On disk at once: the next daemon must not tell it again.
                if !std::mem::replace(&mut inner.record.oom_killed, true)
                    && let Err(error) = container.save(&inner)
                {
                    log::error!("{error}");
                }
                engine.events.publish("container", "oom", &id, inner.record.event_attributes());
            }
            SandboxEvent::Detached { exec_id: Some(exec_id), .. } => {
                containers::exec::detached(engine, &container, &exec_id);
            }
            SandboxEvent::Detached { exec_id: None, .. } => {
                engine.events.publish("container", "detach", &id, container.record().event_attributes());
            }
        }
    }
}

fn aftermath(run: impl FnOnce() + Send + 'static) {
    if let Err(error) = spawn("exit", run) {
        // The container stays "running" until the daemon restarts, which reads its exit from disk.
        log::error!("follow up on an exit: {error}");
    }
}

/// Stops every container side by side, at most `timeout`; a second signal cuts the wait short.
fn stop_containers(engine: &Arc<Engine>, shutdown: &Receiver<String>, timeout: Duration) {
    let (done, finished) = channel();
    let mut waiting = 0;
    for container in engine.containers.all() {
        if !container.lock().record.state.is_alive() {
            continue;
        }
        let done = done.clone();
        let grace = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let stopping = Arc::clone(&container);
        let engine = Arc::clone(engine);
        let stop = move || {
            let result = lifecycle::stop(&engine, &stopping, "", Some(grace.min(10)));
            if let Err(error) = result
                && error.class != Class::NotModified
            {
                log::error!("{error}");
            }
            // The main thread may have stopped waiting.
            let _ = done.send(());
        };
        match spawn("stop", stop) {
            Ok(()) => waiting += 1,
            Err(error) => log::error!("stop container {:?}: {error}", container.name()),
        }
    }
    let deadline = std::time::Instant::now() + timeout + Duration::from_secs(5);
    while waiting > 0 && std::time::Instant::now() < deadline {
        if shutdown.try_recv().is_ok() {
            log::warn!("stopping at once: {waiting} containers are left to their shims");
            return;
        }
        if finished.recv_timeout(Duration::from_millis(100)).is_ok() {
            waiting -= 1;
        }
    }
    // Each exit's aftermath removes namespaces and `--rm` containers.
    for container in engine.containers.all() {
        let left = deadline.saturating_duration_since(std::time::Instant::now());
        container.wait_until(Some(left), |inner| inner.sandbox.is_none());
    }
}

/// Removes the cgroup that held the containers' own, unless one still lives in it.
fn tidy(engine: &Engine) {
    if engine.containers.all().iter().any(|container| container.lock().record.state.is_alive()) {
        return;
    }
    if let Err(error) = Cgroup::open(&engine.config.cgroup_parent()).and_then(|parent| parent.remove()) {
        log::warn!("{error}");
    }
}

/// Tells a supervisor: one newline on the descriptor it gave.
fn tell_ready(ready_fd: Option<i32>) {
    let Some(number) = ready_fd else { return };
    match runtime_fd(number).and_then(|fd| std::fs::File::from(fd).write_all(b"\n")) {
        Ok(()) => {}
        Err(cause) => log::warn!("tell readiness on descriptor {number}: {cause}"),
    }
}

/// The inherited descriptor `number`, through /proc so that a wrong number is an error and not a surprise.
fn runtime_fd(number: i32) -> std::io::Result<OwnedFd> {
    let file = std::fs::File::options().write(true).open(format!("/proc/self/fd/{number}"))?;
    Ok(file.into())
}

/// A pid file, removed at the end.
struct PidFile<'a>(&'a Path);

impl PidFile<'_> {
    /// Refuses to replace the file of a daemon that lives; a stale one is overwritten.
    fn write(path: &Path) -> Result<PidFile<'_>> {
        if let Ok(text) = std::fs::read_to_string(path)
            && let Ok(pid) = text.trim().parse::<i32>()
            && u32::try_from(pid) != Ok(std::process::id())
            && Path::new(&format!("/proc/{pid}")).exists()
        {
            return Err(Error::conflict(format!(
                "write pid file {path:?}: process with PID {pid} is still running"
            )));
        }
        let text = std::process::id().to_string();
        state_dir::replace(path, text.as_bytes(), 0o644, state_dir::Durability::Renamed)?;
        Ok(PidFile(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        if let Err(cause) = std::fs::remove_file(self.0) {
            log::warn!("remove pid file {:?}: {cause}", self.0);
        }
    }
}
