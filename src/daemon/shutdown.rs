//! The orderly end: stop accepting, cut what lasts, stop or leave the containers.
//!
//! The caller then removes sockets and pid file; ending the process releases the lock on the data root.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::containers::lifecycle;
use super::engine::Engine;
use super::spawn;
use crate::http::api::Class;
use crate::http::server::Handle;
use crate::runtime::cgroup::Cgroup;

/// How long requests in flight get to finish.
const FINISH: Duration = Duration::from_secs(5);
/// How much longer than its grace a container may take to be gone.
const AFTERMATH: Duration = Duration::from_secs(5);

/// Stops serving, then stops the containers unless `live-restore` leaves them. Blocks for as long as that takes.
pub fn stop(engine: &Arc<Engine>, server: &Handle) {
    // From now on an exit is not answered by a restart.
    engine.is_stopping.store(true, Ordering::SeqCst);
    let cut = server.stop(FINISH);
    if cut > 0 {
        log::info!("{cut} requests were cut");
    }
    let config = engine.config();
    if config.live_restore {
        log::info!("containers that run are left to their shims");
    } else {
        stop_containers(engine, config.shutdown_timeout_secs, config.default_stop_timeout_secs);
    }
}

/// Stops every container side by side. Each gets its own grace, but none more than `timeout_secs`.
fn stop_containers(engine: &Arc<Engine>, timeout_secs: Option<u64>, default_secs: i64) {
    let limit = timeout_secs.map(|secs| i64::try_from(secs).unwrap_or(i64::MAX));
    let (done, finished) = channel();
    let mut waiting = 0_usize;
    for container in engine.containers.all() {
        let wanted = {
            let inner = container.lock();
            if !inner.record.state.is_alive() {
                continue;
            }
            inner.record.config.stop_timeout.unwrap_or(default_secs)
        };
        // Compat: -1 is for ever.
        let grace = match limit {
            Some(limit) if wanted < 0 => limit,
            Some(limit) => wanted.min(limit),
            None => wanted,
        };
        let done = done.clone();
        let stopping = Arc::clone(&container);
        let engine = Arc::clone(engine);
        let stop = move || {
            let result = lifecycle::stop(&engine, &stopping, "", Some(grace));
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
    let deadline =
        timeout_secs.and_then(|secs| Instant::now().checked_add(Duration::from_secs(secs) + AFTERMATH));
    let left = || deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    drop(done);
    while waiting > 0 {
        let told = match left() {
            Some(left) => finished.recv_timeout(left).is_ok(),
            None => finished.recv().is_ok(),
        };
        if !told {
            log::error!("{waiting} containers did not stop in time: they are left to their shims");
            return;
        }
        waiting -= 1;
    }
    // Each exit's aftermath removes namespaces and `--rm` containers.
    for container in engine.containers.all() {
        container.wait_until(left(), |inner| inner.sandbox.is_none() && !inner.is_releasing);
    }
}

/// Removes the bridges, their rules and the cgroup that held the containers' own, unless a container still lives.
pub fn tidy(engine: &Engine) {
    if engine.containers.all().iter().any(|container| container.lock().record.state.is_alive()) {
        return;
    }
    engine.firewall.uninstall();
    if let Err(error) = engine.wiring.sweep(&|_| false) {
        log::warn!("{error}");
    }
    if let Err(error) = Cgroup::open(&engine.config().cgroup_parent()).and_then(|parent| parent.remove()) {
        log::warn!("{error}");
    }
}
