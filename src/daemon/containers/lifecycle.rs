//! What changes a container's state: start, stop, kill, pause, remove, and the exit that nobody asked for.
//!
//! A request holds the container's `action` lock while the kernel works, so two of them never interleave;
//! stop and kill do not take it, because they must be able to end a request that hangs. The end of a
//! process arrives on a thread of its own ([`exited`]) and takes only the short lock.
//!
//! Order at an exit, which clients depend on: output delivered and exit on disk (the shim did that) →
//! places in networks given back → state and record → event `die` → waiters → kernel objects gone → restart or
//! removal → waiters for the removal, after the name is free.
//!
//! Stays whole: the order of these steps is the invariant, and it is read in one place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::checkpoint::{Thawing, logs};
use super::container::{Container, Inner, Outcome, Record};
use super::create::now;
use super::logs::drivers;
use super::policy::{self, Backoff};
use super::revive::Revival;
use super::spec::Surroundings;
use super::state::{Action, State};
use super::{exec, health, hibernate, migrate, mounts, network, rootfs, schedule, spec};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::{metrics, runtimes, state_dir};
use crate::http::api::Class;
use crate::runtime::shim::gate::{Decision, Keeper};
use crate::runtime::{self, Attachment, Cause, Exit, Launch, Sandbox, Stdio, Thaw};

/// How long the kernel gets to end a killed process before the daemon gives up waiting.
const KILL_WAIT: Duration = Duration::from_secs(10);
/// How long whoever ends a container waits for its start to come to an end.
const START_WAIT: Duration = Duration::from_secs(30);
/// How often the deletion of files is tried again.
const REMOVAL_TRIES: u32 = 5;

/// Starts a container that does not run.
///
/// # Errors
/// NotModified when it runs; InvalidParameter (Docker's 400) when its command cannot be executed.
pub fn start(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let action = container.begin();
    {
        let mut inner = container.lock();
        if inner.check(Action::Start).is_ok() {
            // Source: Docker counts restarts from the last start by hand.
            inner.record.restart_count = 0;
            inner.record.revival = Revival::default();
            inner.backoff = Backoff::default();
        }
    }
    let result = hibernate::wake(engine, container);
    drop(action);
    if result.is_err() {
        remove_if_never_to_run(engine, container);
    }
    result
}

/// A container that was to remove itself and could not even start is removed, and its waiters told.
fn remove_if_never_to_run(engine: &Arc<Engine>, container: &Arc<Container>) {
    let is_due = {
        let inner = container.lock();
        inner.record.host_config.auto_remove
            && !inner.record.state.is_alive()
            && !inner.record.error.is_empty()
    };
    if is_due && let Err(error) = remove_with_volumes(engine, container, false) {
        log::warn!("remove container {:?} after its start failed: {error}", container.name());
    }
}

/// The start itself; the caller holds the action lock. `thaw` brings a checkpoint and the writable layer
/// that belongs to it.
pub fn start_locked(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    action: Action,
    thaw: Option<Thawing>,
) -> Result<()> {
    start_by(engine, container, action, thaw, None)
}

/// Asked when a thawed container has everything and stands still: whether it may run.
pub type Agree<'a> = &'a mut (dyn FnMut() -> bool + Send);

/// As a thaw by [`start_locked`], but the container runs only if it is `agreed`; nothing reaches it before that, either.
pub fn start_at_gate(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    thaw: Thawing,
    agreed: Agree<'_>,
) -> Result<()> {
    start_by(engine, container, Action::Restore, Some(thaw), Some(agreed))
}

fn start_by(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    action: Action,
    mut thaw: Option<Thawing>,
    agreed: Option<Agree<'_>>,
) -> Result<()> {
    let began = Instant::now();
    let (mut record, pending) = {
        let mut inner = container.lock();
        inner.check(action)?;
        if action == Action::Start {
            migrate::check_start(&inner.record)?;
        }
        inner.is_starting = true;
        (inner.record.clone(), std::mem::take(&mut inner.pending))
    };
    // The aftermath of the last exit may not have come to its turn yet: its shim must be gone first.
    release_kernel_objects(engine, container);
    if let Some(thaw) = &thaw {
        record.layer = thaw.layer;
    }
    let result = launch(engine, container, &mut record, thaw.as_mut(), agreed, pending);
    let mut inner = container.lock();
    inner.is_starting = false;
    let mut is_scheduled = false;
    let outcome = match result {
        Ok(sandbox) => {
            let live = &mut inner.record;
            live.layer = record.layer;
            live.networks = record.networks;
            live.ports = record.ports;
            live.state = State::Running;
            live.pid = sandbox.pid();
            live.exit_code = 0;
            live.error.clear();
            live.oom_killed = false;
            live.manually_stopped = false;
            live.is_unborn = false;
            let thawed = thaw.as_ref().and_then(|thaw| own_checkpoint(container, &thaw.thaw.dir));
            hibernate::started(live, thawed);
            live.revival.begun(thawed);
            live.is_ended_by_daemon = false;
            (live.leaving, live.arriving) = (None, None);
            live.started_at = now();
            inner.sandbox = Some(sandbox);
            inner.run_began = Some(Instant::now());
            inner.run += 1;
            is_scheduled = schedule::has_schedule(&inner.record);
            health::begin(engine, &mut inner);
            // The container runs; that its record could not be written is worth a line, not its death. The
            // next daemon finds it through its run directory.
            if let Err(error) = container.save(&inner) {
                log::error!("record the start of container {:?}: {error}", inner.record.name);
            }
            Ok(())
        }
        Err((exit_code, error)) => {
            let live = &mut inner.record;
            live.exit_code = exit_code;
            live.error.clone_from(&error.message);
            if let Err(error) = container.save(&inner) {
                log::error!("record the failed start of container {:?}: {error}", inner.record.name);
            }
            Err(error)
        }
    };
    if outcome.is_ok() {
        let action = if thaw.is_some() { metrics::Action::Restore } else { metrics::Action::Start };
        engine.metrics.done(action, began);
        // Told under the lock: an exit that follows at once is told later.
        if let Some(thaw) = thaw {
            let mut attributes = inner.record.event_attributes();
            if thaw.thaw.lazy {
                attributes.insert("memory".to_owned(), "lazy".to_owned());
            }
            if thaw.thaw.tcp_close {
                attributes.insert("tcp".to_owned(), "closed".to_owned());
            }
            engine.events.publish("container", "restore", &container.id, attributes);
        }
        publish(engine, &inner, "start");
    }
    drop(inner);
    container.notify();
    if is_scheduled {
        engine.schedule.ring(engine);
    }
    outcome
}

/// The name of a checkpoint that lies in the container's own directory.
fn own_checkpoint<'dir>(container: &Container, dir: &'dir std::path::Path) -> Option<&'dir str> {
    let parent = dir.parent()?;
    (parent == container.dir.join("checkpoints")).then(|| dir.file_name()?.to_str()).flatten()
}

/// Brings the container to life; says in `thaw` what became of its connections. The error comes with the exit code
/// Docker records for it.
fn launch(
    engine: &Engine,
    container: &Container,
    record: &mut Record,
    mut thaw: Option<&mut Thawing>,
    agreed: Option<Agree<'_>>,
    pending: Vec<Attachment>,
) -> Result<Arc<Sandbox>, (i32, Error)> {
    mounts::begin(engine, record).map_err(|error| (128, error))?;
    let mut launch =
        prepare(engine, container, record, thaw.as_deref().map(|thaw| &thaw.places)).map_err(|error| {
            mounts::end(engine, record);
            (128, error)
        })?;
    container.release_holds(record.layer);
    // Whoever looks into the layers has them mounted, and the kernel mounts them once.
    let view = container.view_of(record.layer);
    launch.overlay.shared = view.as_ref().map(|view| view.shared());
    let launched = match thaw.as_deref_mut() {
        None => engine.runtime.launch(launch, pending),
        Some(Thawing { thaw, places, log, .. }) => {
            let lost = places.lost(record);
            thaw.tcp_close |= !lost.is_empty();
            let thaw = thaw.clone();
            let thawed = network::without(engine, record, &lost, || match agreed {
                None => engine.runtime.thaw(launch, thaw, pending, log),
                Some(agreed) => thaw_at_gate(engine, record, launch, (thaw, log), pending, agreed),
            });
            thawed.map_err(|error| logs::mention(error, log))
        }
    };
    match launched {
        Ok(sandbox) => {
            if thaw.is_some() {
                network::release(engine, record);
            }
            Ok(sandbox)
        }
        Err(error) => {
            network::take_down(engine, record);
            mounts::end(engine, record);
            Err(classify(container, error))
        }
    }
}

/// Thaws up to the gate, and asks there.
fn thaw_at_gate(
    engine: &Engine,
    record: &Record,
    launch: Launch,
    (thaw, log): (Thaw, &Path),
    pending: Vec<Attachment>,
    agreed: Agree<'_>,
) -> std::result::Result<Arc<Sandbox>, runtime::Error> {
    let failed = |cause: std::io::Error| runtime::Error {
        op: "make".into(),
        object: "a gate".into(),
        cause: Cause::Io(cause),
    };
    let (keeper, gate) = Keeper::pair().map_err(failed)?;
    std::thread::scope(|scope| {
        let keep = move || {
            if !keeper.is_ready(|| {}) {
                return;
            }
            let is_agreed = agreed();
            if is_agreed {
                // Before anything runs: the first word is a question that its peers must be able to answer.
                network::release(engine, record);
            }
            keeper.decide(if is_agreed { Decision::Go } else { Decision::No });
        };
        std::thread::Builder::new().name("gate".to_owned()).spawn_scoped(scope, keep).map_err(failed)?;
        engine.runtime.thaw_at_gate(launch, thaw, pending, log, gate)
    })
}

/// Docker's classes and texts for a start that failed: clients derive 125, 126 and 127 from the text.
fn classify(container: &Container, error: runtime::Error) -> (i32, Error) {
    match error.cause {
        Cause::Command(command) => (
            i32::from(command.exit_code),
            Error::invalid(format!("failed to start container \"{}\": {command}", container.id)),
        ),
        // What was asked for cannot be; Docker tells the code from the cause's words.
        Cause::Refused(ref cause) => {
            let code = if cause.contains("not a directory") {
                127
            } else if cause.contains("permission denied") || cause.contains("is a directory") {
                126
            } else {
                128
            };
            (code, Error::invalid(format!("failed to start container \"{}\": {error}", container.id)))
        }
        Cause::Io(_) => {
            (128, Error::system(format!("failed to start container \"{}\"", container.id), error))
        }
    }
}

/// Everything the runtime needs, the container's networks among it: see [`network::set_up`].
fn prepare(
    engine: &Engine,
    container: &Container,
    record: &mut Record,
    thaw: Option<&network::Frozen>,
) -> Result<Launch> {
    let connected = network::set_up(engine, container, record, thaw)?;
    let launch = describe(engine, container, record, connected);
    if launch.is_err() {
        network::take_down(engine, record);
    }
    launch
}

fn describe(
    engine: &Engine,
    container: &Container,
    record: &Record,
    connected: network::Connected,
) -> Result<Launch> {
    let host = &record.host_config;
    let run_dir = engine.state_dir.run_dir(&container.id);
    let mut joined = BTreeMap::new();
    let mut join = |mode: &str, kind: &'static str| -> Result<()> {
        if let Some(id) = mode.strip_prefix("container:") {
            joined.insert(kind, running_pid(engine, id)?);
        }
        Ok(())
    };
    join(&host.pid_mode, "pid")?;
    if let Some(id) = host.ipc_mode.strip_prefix("container:") {
        check_ipc_donor(engine, id)?;
    }
    join(&host.ipc_mode, "ipc")?;
    let around = Surroundings {
        dir: match host.network_mode.strip_prefix("container:") {
            Some(id) => engine.containers.get(id)?.dir.clone(),
            None => container.dir.clone(),
        },
        program: own_program(),
        rootfs: run_dir.join("rootfs"),
        netns: connected.netns,
        link_env: connected.env,
        cgroup_parent: engine.config().cgroup_parent(),
        joined,
    };
    let (log, log_remote) = drivers::setup(container, record)?;
    Ok(Launch {
        id: container.id.clone(),
        run_dir,
        spec: spec::build(record, &around)?,
        overlay: rootfs::overlay(engine, container, record)?,
        stdio: Stdio {
            terminal: record.config.tty,
            open_stdin: record.config.open_stdin,
            stdin_once: record.config.stdin_once,
            log,
            log_remote,
        },
        exit_file: container.exit_path(),
        durable: !host.auto_remove,
        // Compat: with another's pid namespace the command is not its init, and gets none.
        reaper: spec::has_reaper(record),
        oci: runtimes::find(&engine.config(), &host.runtime)?,
    })
}

/// Where our binary is on the host, whether or not it has been replaced since we began.
fn own_program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_default();
    match path.to_str().and_then(|path| path.strip_suffix(" (deleted)")) {
        Some(path) => PathBuf::from(path),
        None => path,
    }
}

/// Whether another container may join the IPC namespace of this one.
fn check_ipc_donor(engine: &Engine, id: &str) -> Result<()> {
    let donor = engine.containers.get(id)?.record();
    if matches!(donor.host_config.ipc_mode.as_str(), "shareable" | "host") {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    )))
}

/// The process of a container whose namespace another one joins.
pub fn running_pid(engine: &Engine, id: &str) -> Result<i32> {
    let other = engine.containers.get(id)?;
    let inner = other.lock();
    if inner.record.state.is_alive() {
        Ok(inner.record.pid)
    } else {
        Err(Error::conflict(format!(
            "cannot join namespace of a non running container: container {id} is not running"
        )))
    }
}

/// The living form, or why there is none.
pub fn sandbox(container: &Container, action: Action) -> Result<Arc<Sandbox>> {
    let inner = container.lock();
    inner.check(action)?;
    inner.living()
}

/// Sets the size of the container's terminal, in characters.
pub fn resize(engine: &Engine, container: &Container, height: u16, width: u16) -> Result<()> {
    let sandbox = sandbox(container, Action::Top)?;
    // Compat: Docker takes the size of a container without a terminal, and does nothing with it.
    if container.lock().record.config.tty {
        sandbox.resize(None, height, width)?;
    }
    let mut attributes = container.record().event_attributes();
    attributes.insert("height".to_owned(), height.to_string());
    attributes.insert("width".to_owned(), width.to_string());
    engine.events.publish("container", "resize", &container.id, attributes);
    Ok(())
}

/// The signal named by Docker's rules: with or without `SIG`, any case, or a number.
pub fn parse_signal(text: &str) -> Result<i32> {
    runtime::signal::number(text).ok_or_else(|| Error::invalid(format!("Invalid signal: {text}")))
}

/// Tells of something that happened to a container. The bus never blocks, so this may be under the lock:
/// then events are in the order of the states.
fn publish(engine: &Engine, inner: &Inner, action: &str) {
    engine.events.publish("container", action, &inner.record.id, inner.record.event_attributes());
}

fn publish_kill(engine: &Engine, inner: &Inner, signal: i32) {
    let mut attributes = inner.record.event_attributes();
    attributes.insert("signal".to_owned(), signal.to_string());
    engine.events.publish("container", "kill", &inner.record.id, attributes);
}

/// Waits for a start by the policy that is under way: called off now, the container would come up all the same.
fn let_restart_come(container: &Container) {
    container
        .wait_until(Some(START_WAIT), |inner| inner.record.state != State::Restarting || !inner.is_starting);
}

/// Ends the restart policy's pause: the container stays down.
fn call_off_restart(container: &Container, inner: &mut Inner) -> Result<()> {
    inner.record.state = State::Exited;
    let outcome = Outcome { exit_code: inner.record.exit_code, error: None };
    inner.release_exit(&outcome);
    container.notify();
    container.save(inner)
}

/// Asks the container to stop, and kills it when it has not within the grace; a negative grace is for ever.
///
/// Returns when the exit is recorded, so that what follows never sees it running.
///
/// # Errors
/// NotModified when it does not run; System when it outlives the kill.
pub fn stop(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    signal: &str,
    timeout_secs: Option<i64>,
) -> Result<()> {
    if signal.is_empty() && hibernate::is_wanted(&container.lock().record, false, false) {
        return hibernate::stop(engine, container);
    }
    stop_by_signal(engine, container, signal, timeout_secs)
}

/// As [`stop`], whatever the container's stop mode is.
///
/// # Errors
/// As [`stop`].
pub fn stop_by_signal(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    signal: &str,
    timeout_secs: Option<i64>,
) -> Result<()> {
    let_restart_come(container);
    let began = Instant::now();
    let (signal, grace) = {
        let mut inner = container.lock();
        inner.check(Action::Stop)?;
        let given =
            if signal.is_empty() { inner.record.config.stop_signal.clone() } else { Some(signal.to_owned()) };
        let number = parse_signal(given.as_deref().unwrap_or("TERM"))?;
        if inner.out_of_reach.is_some() {
            inner.living()?;
        }
        // Compat: a stop by the daemon is not a stop by hand: policies bring it back at the next start.
        let is_by_daemon = engine.is_stopping.load(Ordering::SeqCst);
        inner.record.manually_stopped |= !is_by_daemon;
        inner.record.is_ended_by_daemon = is_by_daemon;
        if inner.record.state == State::Restarting {
            call_off_restart(container, &mut inner)?;
            publish(engine, &inner, "stop");
            return Ok(());
        }
        if inner.record.host_config.restart_policy.name != "no" {
            // Should this daemon die before the container does, the next one must not bring it back.
            container.save(&inner)?;
        }
        (
            number,
            timeout_secs
                .or(inner.record.config.stop_timeout)
                .unwrap_or_else(|| engine.config().default_stop_timeout_secs),
        )
    };
    end(engine, container, signal, grace)?;
    engine.metrics.done(metrics::Action::Stop, began);
    publish(engine, &container.lock(), "stop");
    Ok(())
}

/// The signal, the grace, the kill.
fn end(engine: &Arc<Engine>, container: &Container, signal: i32, grace: i64) -> Result<()> {
    let Some(sandbox) = container.lock().sandbox.clone() else { return Ok(()) };
    // Compat: told before it is sent, so that no exit is told before its signal.
    let is_paused = {
        let inner = container.lock();
        publish_kill(engine, &inner, signal);
        inner.record.state == State::Paused
    };
    if is_paused {
        // A frozen process cannot obey: it is thawed first, as Docker does on v1.
        thaw_for_signal(engine, container, &sandbox);
    }
    if sandbox.signal(signal, None).is_ok() {
        let grace = u64::try_from(grace).ok().map(Duration::from_secs);
        if container.wait_until(grace, |inner| has_ended(inner, &sandbox)) {
            return Ok(());
        }
    }
    kill_and_wait(engine, container, &sandbox)
}

/// Whether this life of the container is over, even if another has begun already.
fn has_ended(inner: &Inner, sandbox: &Arc<Sandbox>) -> bool {
    !inner.record.state.is_alive() || !inner.sandbox.as_ref().is_some_and(|now| Arc::ptr_eq(now, sandbox))
}

fn thaw_for_signal(engine: &Arc<Engine>, container: &Container, sandbox: &Sandbox) {
    match sandbox.resume() {
        Ok(()) => {
            let mut inner = container.lock();
            if inner.record.state == State::Paused {
                inner.record.state = State::Running;
                health::resume(engine, &mut inner);
            }
        }
        // The signal is tried all the same; its own failure is the one that counts.
        Err(error) => log::warn!("thaw container {:?} to signal it: {error}", container.name()),
    }
}

fn kill_and_wait(engine: &Engine, container: &Container, sandbox: &Arc<Sandbox>) -> Result<()> {
    publish_kill(engine, &container.lock(), 9);
    let killed = sandbox.signal(9, None);
    if container.wait_until(Some(KILL_WAIT), |inner| has_ended(inner, sandbox)) {
        return Ok(());
    }
    let cause = killed.err().map_or_else(|| "it outlived SIGKILL".to_owned(), |error| error.to_string());
    Err(Error::system(format!("cannot stop container: {}", container.name()), cause))
}

/// Sends one signal.
///
/// # Errors
/// Conflict when it does not run; InvalidParameter for an unknown signal.
pub fn kill(engine: &Arc<Engine>, container: &Arc<Container>, signal: &str) -> Result<()> {
    let number = parse_signal(if signal.is_empty() { "KILL" } else { signal })?;
    let_restart_come(container);
    if number == 9 && container.lock().record.hibernation.is_some() && hibernate::discard(engine, container)?
    {
        return Ok(());
    }
    let (sandbox, is_paused) = {
        let mut inner = container.lock();
        inner.check(Action::Kill)?;
        let stop_signal = inner.record.config.stop_signal.clone();
        let stop_signal = stop_signal.and_then(|name| parse_signal(&name).ok()).unwrap_or(15);
        let is_end = number == 9 || number == stop_signal;
        inner.record.manually_stopped |= is_end;
        if inner.record.state == State::Restarting {
            // There is no process; what would have ended it ends the waiting for the next one.
            return if is_end { call_off_restart(container, &mut inner) } else { Ok(()) };
        }
        let sandbox = inner.living()?;
        if is_end && inner.record.host_config.restart_policy.name != "no" {
            // Should this daemon die before the container does, the next one must not bring it back.
            container.save(&inner)?;
        }
        publish_kill(engine, &inner, number);
        (sandbox, inner.record.state == State::Paused)
    };
    sandbox.signal(number, None).map_err(|error| {
        let attempt = format!("cannot kill container: {}", container.name());
        match error.is_too_late() {
            true => Error::conflict(format!("{attempt}: container {} is not running", container.id)),
            false => Error::system(attempt, error),
        }
    })?;
    if is_paused {
        thaw_for_signal(engine, container, &sandbox);
    }
    if number == 9 {
        // Compat: `kill; rm` must not meet a container that still runs.
        container.wait_until(Some(KILL_WAIT), |inner| has_ended(inner, &sandbox));
    }
    Ok(())
}

/// Freezes every process of the container.
pub fn pause(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let _action = container.begin();
    pause_locked(engine, container)
}

/// As [`pause`]; the caller holds the action lock.
pub fn pause_locked(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let sandbox = sandbox(container, Action::Pause)?;
    sandbox.pause()?;
    settle(engine, container, State::Running, State::Paused, "pause")
}

/// Lets them go on.
pub fn unpause(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let _action = container.begin();
    let sandbox = sandbox(container, Action::Unpause)?;
    sandbox.resume()?;
    settle(engine, container, State::Paused, State::Running, "unpause")
}

/// Records a change of state, unless the container ended meanwhile.
fn settle(engine: &Arc<Engine>, container: &Container, from: State, to: State, event: &str) -> Result<()> {
    let mut inner = container.lock();
    if inner.record.state == from {
        inner.record.state = to;
        match to {
            State::Paused => health::suspend(engine, &mut inner),
            _ => {
                inner.record.is_held = false;
                health::resume(engine, &mut inner);
            }
        }
        container.save(&inner)?;
    }
    publish(engine, &inner, event);
    drop(inner);
    container.notify();
    Ok(())
}

/// Stops and starts.
pub fn restart(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    signal: &str,
    timeout_secs: Option<i64>,
) -> Result<()> {
    // The exit in between must not remove the container.
    container.lock().is_kept = true;
    let result = match stop_by_signal(engine, container, signal, timeout_secs) {
        Err(error) if error.class != Class::NotModified => Err(error),
        _ => match start(engine, container) {
            Err(error) if error.class != Class::NotModified => Err(error),
            _ => Ok(()),
        },
    };
    container.lock().is_kept = false;
    result.map_err(|error| error.during(format!("Cannot restart container {}", container.name())))?;
    publish(engine, &container.lock(), "restart");
    Ok(())
}

/// Gives a container another name.
pub fn rename(engine: &Engine, container: &Arc<Container>, name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("Neither old nor new names may be empty"));
    }
    let name = crate::daemon::names::container_name(name)?;
    let old = container.name();
    if old == name {
        return Err(Error::invalid("Renaming a container with the same name as its current name"));
    }
    engine.containers.reserve(name, &container.id)?;
    let mut inner = container.lock();
    inner.record.name = name.to_owned();
    if let Err(error) = container.save(&inner) {
        inner.record.name = old;
        drop(inner);
        engine.containers.release(name);
        return Err(error);
    }
    let mut attributes = inner.record.event_attributes();
    let record = inner.record.clone();
    drop(inner);
    network::rename(engine, &record);
    engine.containers.release(&old);
    attributes.insert("oldName".to_owned(), format!("/{old}"));
    engine.events.publish("container", "rename", &container.id, attributes);
    Ok(())
}

/// Removes a container with everything it wrote. Its volumes stay.
///
/// # Errors
/// Conflict when it runs and `force` is not given, or when its removal is under way.
pub fn remove(engine: &Arc<Engine>, container: &Arc<Container>, force: bool) -> Result<()> {
    remove_as(engine, container, force, false)
}

/// As [`remove`], with the volumes that nobody named and no other container has.
///
/// # Errors
/// As [`remove`].
pub fn remove_with_volumes(engine: &Arc<Engine>, container: &Arc<Container>, force: bool) -> Result<()> {
    remove_as(engine, container, force, true)
}

fn remove_as(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    force: bool,
    with_volumes: bool,
) -> Result<()> {
    let (mut is_ended, began) = (false, Instant::now());
    let _action = loop {
        is_ended |= force && end_for_removal(engine, container)?;
        // A start that was under way has it running again: `force` ends that life, too.
        let is_back = |inner: &Inner| force && inner.record.state.is_alive();
        // The end brought about here may have a `--rm` container remove itself: that is waited for.
        let is_going = |inner: &Inner| is_ended && inner.record.state == State::Removing;
        // What can be refused at once does not wait for whoever is at work on it.
        let inner = container.lock();
        if !is_back(&inner) && !is_going(&inner) {
            inner.check(Action::Remove)?;
        }
        drop(inner);
        let action = container.begin();
        let mut inner = container.lock();
        if is_going(&inner) && engine.containers.by_id(&container.id).is_none() {
            return Ok(());
        }
        if is_back(&inner) {
            continue;
        }
        inner.check(Action::Remove)?;
        inner.record.state = State::Removing;
        inner.record.is_removed_with_volumes = with_volumes;
        // A daemon that dies here finishes the removal at its next start.
        container.save(&inner)?;
        break action;
    };
    container.notify();
    finish_removal(engine, container)?;
    engine.metrics.done(metrics::Action::Delete, began);
    Ok(())
}

/// Ends a container that is to be removed; false when it did not live.
fn end_for_removal(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<bool> {
    let_restart_come(container);
    let (sandbox, is_paused) = {
        let mut inner = container.lock();
        if inner.record.state == State::Restarting {
            inner.record.manually_stopped = true;
            call_off_restart(container, &mut inner)?;
        }
        if !inner.record.state.is_alive() {
            return Ok(false);
        }
        let sandbox = inner.living()?;
        inner.record.manually_stopped = true;
        if inner.record.host_config.restart_policy.name != "no" {
            container.save(&inner)?;
        }
        (sandbox, inner.record.state == State::Paused)
    };
    if is_paused {
        thaw_for_signal(engine, container, &sandbox);
    }
    kill_and_wait(engine, container, &sandbox)
        .map(|()| true)
        .map_err(|error| error.during(format!("cannot remove container \"/{}\"", container.name())))
}

/// Deletes the files and forgets the container; the state is `removing` already.
pub fn finish_removal(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    release_kernel_objects(engine, container);
    let record = container.record();
    container.mark_gone();
    // The record goes last: a daemon that dies in between goes on from it.
    let result = remove_files(container).and_then(|()| {
        mounts::forget(engine, &record, record.is_removed_with_volumes);
        state_dir::remove_tree(&container.dir)
    });
    let outcome = Outcome {
        exit_code: record.exit_code,
        error: result.as_ref().err().map(|error| error.message.clone()),
    };
    match result {
        Ok(()) => {
            migrate::forget_volumes(engine, &record);
            engine.containers.forget(&container.id);
            engine.events.publish("container", "destroy", &container.id, record.event_attributes());
            container.lock().release_all(&outcome);
            Ok(())
        }
        Err(error) => {
            let mut inner = container.lock();
            inner.record.state = State::Dead;
            inner.record.error.clone_from(&error.message);
            if let Err(error) = container.save(&inner) {
                log::warn!("record the failed removal of container {:?}: {error}", inner.record.name);
            }
            inner.release_all(&outcome);
            Err(error.during(format!("cannot remove container \"/{}\"", record.name)))
        }
    }
}

/// Deletes what is in the container's directory, but its record. A copy into it that has not ended yet may add a
/// file at a bad moment.
fn remove_files(container: &Container) -> Result<()> {
    for _ in 0..REMOVAL_TRIES {
        match remove_content(&container.dir) {
            Err(_) if container.dir.exists() => std::thread::sleep(Duration::from_millis(10)),
            other => return other,
        }
    }
    remove_content(&container.dir)
}

fn remove_content(dir: &std::path::Path) -> Result<()> {
    let failed = |cause: std::io::Error| Error::system(format!("remove {dir:?}"), cause);
    let entries = match std::fs::read_dir(dir) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_type().map_err(failed)?.is_dir() {
            state_dir::remove_tree(&path)?;
        } else if entry.file_name() != "container.json" {
            match std::fs::remove_file(&path) {
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(failed(cause)),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Lets the shim go and removes the network namespace. Failures are told, never returned: the container's
/// end is a fact, and the next start of the daemon sweeps what is left.
fn release_kernel_objects(engine: &Engine, container: &Container) {
    let sandbox = {
        let mut inner = container.lock();
        inner.is_releasing = true;
        inner.sandbox.take()
    };
    if let Some(sandbox) = sandbox
        && let Err(error) = sandbox.dismiss()
    {
        log::warn!("clean up after container {:?}: {error}", container.name());
    }
    network::end(engine, container);
    // After the shim: its namespace holds the mounts.
    mounts::end(engine, &container.record());
    container.lock().is_releasing = false;
    container.notify();
}

/// A container's first process ended. Runs on a thread of its own; see the header for the order.
pub fn exited(engine: &Arc<Engine>, container: &Arc<Container>, exit: &Exit) {
    // The exit can be faster than the answer to the start.
    container.wait_until(None, |inner| !inner.is_starting);
    // Compat: whoever waits for the end may remove the networks, or take the ports. A request that is just changing
    // its places has what it did undone by the second call, below.
    let record = container.record();
    if record.state.is_alive() {
        network::take_down(engine, &record);
    }
    let (record, run, run_time, is_kept) = {
        let mut inner = container.lock();
        if !inner.record.state.is_alive() {
            return;
        }
        let is_kept = inner.is_kept;
        let run_time = inner.run_began.map(|began| began.elapsed()).unwrap_or_default();
        let record = &mut inner.record;
        record.state = State::Exited;
        record.pid = 0;
        record.exit_code = exit.code;
        record.oom_killed |= exit.oom_killed;
        record.finished_at.clone_from(&exit.finished_at);
        // Compat: what the daemon's own end brings about is no stop by hand.
        if exit.checkpointed && !engine.is_stopping.load(Ordering::SeqCst) {
            record.manually_stopped = true;
        }
        if let Some(reason) = &exit.reason {
            log::error!("container {:?}: {reason}", record.name);
            record.error.clone_from(reason);
        }
        if !engine.is_stopping.load(Ordering::SeqCst) && policy::wants_restart(record) {
            record.state = State::Restarting;
            record.restart_count += 1;
        }
        inner.execs.values_mut().for_each(|exec| exec.end_with_container());
        exec::erase_all(engine, &inner);
        health::end(engine, &mut inner);
        if let Err(error) = container.save(&inner) {
            log::error!("record the exit of container {:?}: {error}", inner.record.name);
        }
        let mut attributes = inner.record.event_attributes();
        attributes.insert("exitCode".to_owned(), exit.code.to_string());
        attributes.insert("execDuration".to_owned(), run_time.as_secs().to_string());
        engine.events.publish("container", "die", &container.id, attributes);
        inner.release_exit(&Outcome { exit_code: exit.code, error: None });
        (inner.record.clone(), inner.run, run_time, is_kept)
    };
    container.notify();
    // The sandbox is let go under the action lock, so that a start that follows finds its place free.
    let action = container.begin();
    if !container.lock().record.state.is_alive() {
        release_kernel_objects(engine, container);
    }
    drop(action);
    if record.host_config.auto_remove && !is_kept {
        if let Err(error) = remove_with_volumes(engine, container, false)
            && error.class != Class::Conflict
        {
            log::error!("{error}");
        }
    } else if record.state == State::Restarting {
        policy::restart(engine, container, run, run_time);
    }
    // What the container's life has left on the heap goes back while nobody waits.
    runtime::sys::memory::trim();
}

/// The shim vanished: what it was running is unknown or dead; it is counted as killed.
pub fn lost(engine: &Arc<Engine>, container: &Arc<Container>) {
    log::error!("container {:?}: its shim is gone without a word", container.name());
    let exit = super::recover::recorded_exit(container).unwrap_or_else(super::recover::unknown_exit);
    exited(engine, container, &exit);
}
