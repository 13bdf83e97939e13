//! The orderly end: stop accepting, cut what lasts, stop, freeze or leave the containers.
//!
//! Containers that hibernate are frozen a few at once. One that has had no turn after half the time there is, or
//! cannot be frozen, is stopped as the others are. A dump that is not over at the deadline goes on under its shim;
//! the next daemon finishes it, or finds it half-made.
//!
//! The caller then removes sockets and pid file; ending the process releases the lock on the data root.

use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::containers::{Container, hibernate, lifecycle};
use super::engine::Engine;
use super::spawn;
use crate::http::api::Class;
use crate::http::server::Handle;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::mount_namespace;

/// How long requests in flight get to finish.
const FINISH: Duration = Duration::from_secs(5);
/// How much longer than its grace a container may take to be gone.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Containers frozen at once: each writes its memory to the same disk.
const FREEZES: usize = 4;

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
    let limit = config.shutdown_timeout_secs.map(Duration::from_secs);
    if !engine.digests.wait(limit.and_then(|limit| Instant::now().checked_add(limit))) {
        log::warn!(
            "checkpoints lack their digests: the next daemon takes them, unless the machine goes down before"
        );
    }
}

/// So many may freeze now.
#[derive(Default)]
struct Turns {
    taken: Mutex<usize>,
    given_back: Condvar,
}

impl Turns {
    /// Does `work` when it is its turn; `None` when that has not come by `deadline`.
    fn take<T>(&self, deadline: Option<Instant>, work: impl FnOnce() -> T) -> Option<T> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken >= FREEZES {
            taken = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return None,
                Some(left) => {
                    self.given_back.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.given_back.wait(taken).unwrap_or_else(PoisonError::into_inner),
            };
        }
        *taken += 1;
        drop(taken);
        let done = work();
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.given_back.notify_one();
        Some(done)
    }
}

/// Freezes a container that is to hibernate; false when it is to be stopped instead.
fn froze(engine: &Arc<Engine>, container: &Arc<Container>, turns: &Turns, limit: Option<Duration>) -> bool {
    let is_daemons_way = engine.config().checkpoint_on_shutdown;
    if !hibernate::is_wanted(&container.lock().record, true, is_daemons_way) {
        return false;
    }
    let until = limit.and_then(|limit| Instant::now().checked_add(limit / 2));
    match turns.take(until, || hibernate::freeze(engine, container, true)) {
        Some(Ok(())) => return true,
        Some(Err(error)) => log::error!("{error}: it is stopped instead"),
        None => log::error!(
            "container {:?} is stopped instead of frozen: the others took too long, see --shutdown-timeout",
            container.name()
        ),
    }
    false
}

/// Stops every container side by side. Each gets its own grace, but none more than `timeout_secs`.
fn stop_containers(engine: &Arc<Engine>, timeout_secs: Option<u64>, default_secs: i64) {
    let limit = timeout_secs.map(|secs| i64::try_from(secs).unwrap_or(i64::MAX));
    let (done, finished) = channel();
    let mut waiting = 0_usize;
    let (began, turns) = (Instant::now(), Arc::new(Turns::default()));
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
        let turns = Arc::clone(&turns);
        let stop = move || {
            if !froze(&engine, &stopping, &turns, timeout_secs.map(Duration::from_secs)) {
                // An attempt to freeze it has taken from its grace.
                let left = limit.map(|limit| limit.saturating_sub(began.elapsed().as_secs() as i64).max(0));
                let grace = left.map_or(grace, |left| grace.min(left));
                let result = lifecycle::stop_by_signal(&engine, &stopping, "", Some(grace));
                if let Err(error) = result
                    && error.class != Class::NotModified
                {
                    log::error!("{error}");
                }
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
    let names = engine.state_dir.netns_dir();
    if let Err(cause) = mount_namespace::let_in(&names) {
        log::warn!("unmount {names:?}: {cause}");
    }
    if let Err(error) = Cgroup::open(&engine.config().cgroup_parent()).and_then(|parent| parent.remove()) {
        log::warn!("{error}");
    }
}
