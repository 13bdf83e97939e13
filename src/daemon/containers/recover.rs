//! What a starting daemon finds: containers on disk, some of them alive under their shims.
//!
//! ```text
//!  before the API is served                              after
//!  load every record ─► meet the shims, side by side ─► finish removals ─► start what policies want up,
//!       │                      │                          side by side, donors before those who join them
//!       │ unreadable           │ half done: finished or undone ([`unfinished`])
//!       ▼                      ▼
//!  left out and left alone   sweep what no container owns
//! ```
//!
//! A record that cannot be read costs that container only, and only its daemon: its files, processes and volumes stay
//! as they are until somebody mends or removes the file. A living shim is adopted; the exit of one that ended meanwhile
//! is read from disk; one that left no word (power cut) exited with 255, as Docker says. A shim that does not answer,
//! because it writes a dump or is stopped, is waited for; its container is out of reach until then, never taken for dead.
//!
//! Stays whole: the order in which things are found and finished is the invariant.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::container::{Container, Outcome, Record};
use super::create::now;
use super::policy::{self, Backoff};
use super::state::State;
use super::{
    checkpoint, create, exec, health, hibernate, lifecycle, migrate, mounts, network, revive, schedule, spec,
    unfinished,
};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::{names, state_dir};
use crate::runtime::{self, Adopted, Exit, Sandbox, cgroup, netns};

/// How long the API waits for a shim's first word.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a shim that is still silent then is waited for in the background: as long as a dump may take.
const LONG_PATIENCE: Duration = Duration::from_secs(3600);
/// Shims met at once: each costs a round trip.
const MEETINGS: usize = 16;
/// Containers started at once: each costs the kernel's work.
const STARTS: usize = 4;

/// Loads every container, adopts the living, finishes what was half done. What takes long (removals, starts)
/// goes on after it has returned.
pub fn recover(engine: &Arc<Engine>) -> Result<()> {
    let (containers, left_out) = load_all(engine)?;
    side_by_side(&containers, MEETINGS, |container| meet(engine, container));
    exec::restore(engine);
    network::recover(engine, &containers, &left_out);
    sweep(engine, &left_out);
    checkpoint::clone::sweep(engine);
    if left_out.is_empty() {
        // Otherwise the mounts may be those of a container that is not known.
        engine.volumes.sweep();
    }
    let count = |test: &dyn Fn(&Record) -> bool| {
        containers.iter().filter(|container| test(&container.lock().record)).count()
    };
    let alive = count(&|record| record.state.is_alive());
    containers.iter().for_each(mark_pending);
    let pending = count(&|record| record.state == State::Restarting);
    if !containers.is_empty() {
        log::info!("{} containers: {alive} run, {pending} are started by their policies", containers.len());
    }
    schedule::recover(engine);
    let engine = Arc::clone(engine);
    crate::daemon::spawn("recovery", move || finish_all(&engine, containers))
}

/// Every container whose record can be read, and the ids of the others.
fn load_all(engine: &Arc<Engine>) -> Result<(Vec<Arc<Container>>, BTreeSet<String>)> {
    let dir = engine.state_dir.data_root.join("containers");
    let entries = std::fs::read_dir(&dir)
        .map_err(|cause| Error::system(format!("list containers in {dir:?}"), cause))?;
    let (mut loaded, mut left_out) = (Vec::new(), BTreeSet::new());
    for entry in entries.flatten() {
        let Some(id) = entry.file_name().to_str().filter(|name| names::is_id(name)).map(str::to_owned) else {
            log::warn!("{:?} is not a container's directory: left alone", entry.path());
            continue;
        };
        if entry.path().join("container.json").symlink_metadata().is_err() {
            // Cut off in its creation, before anyone was told its id.
            create::undo(engine, &id, &entry.path());
            continue;
        }
        match load(engine, &id) {
            Ok(container) => loaded.push(container),
            Err(error) => {
                log::error!("container {id} is left out and left as it is: {error}");
                hold_volumes(engine, &id);
                left_out.insert(id);
            }
        }
    }
    Ok((loaded, left_out))
}

fn load(engine: &Engine, id: &str) -> Result<Arc<Container>> {
    let dir = engine.state_dir.container(id);
    let mut record: Record = state_dir::load(&dir.join("container.json"))?;
    if record.id != id {
        return Err(Error::system(format!("read {dir:?}"), format!("the record is of {:?}", record.id)));
    }
    engine.containers.reserve(&record.name, id)?;
    mounts::restore(engine, &record, false);
    network::complete(&mut record);
    let container = Arc::new(Container::new(dir, record));
    health::restore(&container, &mut container.lock());
    engine.containers.insert(Arc::clone(&container));
    Ok(container)
}

/// The volumes of a container whose record is a later dewar's, as far as they can be told: nobody may remove
/// them.
fn hold_volumes(engine: &Engine, id: &str) {
    let file = engine.state_dir.container(id).join("container.json");
    let Ok(text) = std::fs::read(file) else { return };
    let Ok(record) = serde_json::from_slice::<serde_json::Value>(&text) else { return };
    for name in record["mounts"].as_array().into_iter().flatten().filter_map(|mount| mount["Name"].as_str()) {
        if !name.is_empty()
            && let Err(error) = engine.volumes.restore(name, id, false)
        {
            log::warn!("{error}");
        }
    }
}

/// Runs `work` for each container on a few threads, and waits for all.
fn side_by_side(containers: &[Arc<Container>], threads: usize, work: impl Fn(&Arc<Container>) + Sync) {
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some(container) = containers.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(container);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(containers.len()) {
            let builder = std::thread::Builder::new().name("recovery".to_owned()).stack_size(256 * 1024);
            if let Err(cause) = builder.spawn_scoped(scope, run) {
                // The others, this one among them, do its share.
                log::warn!("start thread \"recovery\": {cause}");
            }
        }
        run();
    });
}

/// Looks for a container's shim, where there may be one.
fn meet(engine: &Arc<Engine>, container: &Arc<Container>) {
    let may_have_shim = match container.lock().record.state {
        State::Removing | State::Dead => false,
        State::Running | State::Paused => true,
        // Its record says it does not run; a daemon that died between the start and its record left a shim.
        State::Created | State::Exited | State::Restarting => true,
    };
    if may_have_shim {
        take_up(engine, container, PATIENCE);
    }
    if container.lock().out_of_reach.is_none() {
        unfinished::sweep(engine, container);
    }
}

/// Meets the shim, and brings the record in line with what it says.
fn take_up(engine: &Arc<Engine>, container: &Arc<Container>, patience: Duration) {
    let run_dir = engine.state_dir.run_dir(&container.id);
    let is_alive = container.lock().record.state.is_alive();
    if !is_alive && !run_dir.exists() {
        return;
    }
    // An exit that comes at once waits until its life is on record.
    container.lock().is_starting = true;
    meet_shim(engine, container, patience, &run_dir);
    container.lock().is_starting = false;
    container.notify();
}

fn meet_shim(engine: &Arc<Engine>, container: &Arc<Container>, patience: Duration, run_dir: &Path) {
    match engine.runtime.adopt(run_dir, patience) {
        Ok(Adopted::Running(sandbox)) => adopt(engine, container, sandbox, run_dir),
        Ok(Adopted::Exited(exit)) => end(engine, container, &exit, run_dir),
        Ok(Adopted::Gone) => gone(engine, container, run_dir),
        Ok(Adopted::Silent) => {
            put_out_of_reach(container, "its shim does not answer; it is taken up when it does".to_owned());
            wait_for(engine, container);
        }
        Ok(Adopted::Strange(reason)) => put_out_of_reach(container, reason),
        Err(error) => put_out_of_reach(container, error.to_string()),
    }
}

/// The container lives, or may live, and nobody can speak to it.
fn put_out_of_reach(container: &Container, reason: String) {
    let mut inner = container.lock();
    log::error!("container {:?} is left alone: {reason}", inner.record.name);
    if !inner.record.state.is_alive() {
        inner.record.state = State::Running;
        // Its start was not written down; it is when it is taken up, but its places are its own already.
        inner.record.started_at.clear();
        network::complete_start(&mut inner.record, &container.dir);
    }
    inner.out_of_reach = Some(reason);
}

/// Takes the container up when its shim answers at last.
fn wait_for(engine: &Arc<Engine>, container: &Arc<Container>) {
    let (engine, waiting) = (Arc::clone(engine), Arc::clone(container));
    let wait = move || {
        take_up(&engine, &waiting, LONG_PATIENCE);
        if waiting.lock().out_of_reach.is_none() {
            log::info!("container {:?} is taken up", waiting.name());
            unfinished::sweep(&engine, &waiting);
            checkpoint::clone::sweep(&engine);
            mark_pending(&waiting);
            finish(&engine, &waiting);
        }
    };
    if let Err(error) = crate::daemon::spawn("adoption", wait) {
        log::error!("wait for the shim of container {:?}: {error}", container.name());
    }
}

/// A shim that lives: the container goes on where it is.
fn adopt(engine: &Arc<Engine>, container: &Arc<Container>, sandbox: Arc<Sandbox>, run_dir: &Path) {
    let mut inner = container.lock();
    inner.out_of_reach = None;
    // A dump or a thaw that an earlier daemon began has come to its end.
    let Record { dump, leaving, state, started_at, .. } = &inner.record;
    let was_held = dump.is_some() || leaving.is_some() || !state.is_alive() || started_at.is_empty();
    migrate::settle(container, &mut inner.record);
    if !inner.record.state.is_alive() || inner.record.started_at.is_empty() {
        unfinished::complete_start(&mut inner.record, &container.dir, run_dir);
    }
    let mut is_paused = sandbox.was_paused();
    if std::mem::take(&mut inner.record.is_held) && is_paused {
        match sandbox.resume() {
            Ok(()) => is_paused = false,
            Err(error) => log::warn!("let container {:?} go on: {error}", inner.record.name),
        }
    }
    inner.record.pid = sandbox.pid();
    inner.record.state = if is_paused { State::Paused } else { State::Running };
    inner.run_began = Some(began(&inner.record.started_at));
    inner.run += 1;
    if sandbox.was_oom_killed() && !inner.record.oom_killed {
        inner.record.oom_killed = true;
        engine.events.publish("container", "oom", &container.id, inner.record.event_attributes());
    }
    inner.sandbox = Some(sandbox);
    mounts::restore(engine, &inner.record, true);
    if std::mem::take(&mut inner.record.is_updating) {
        unfinished::complete_update(&inner.record, &engine.config().cgroup_parent());
    }
    unfinished::settle_dump(container, &mut inner.record, None);
    health::go_on(engine, &mut inner);
    if inner.record.state == State::Paused {
        health::suspend(engine, &mut inner);
    }
    if let Err(error) = container.save(&inner) {
        log::error!("{error}");
    }
    if was_held {
        network::release(engine, &inner.record);
    }
    drop(inner);
    migrate::receive::await_rest(container);
}

/// No shim: it ended while no daemon ran, or its start did not come far enough to be one.
fn gone(engine: &Arc<Engine>, container: &Arc<Container>, run_dir: &Path) {
    let exit = recorded_exit(container);
    let record = container.record();
    if record.state.is_alive() {
        end(engine, container, &exit.unwrap_or_else(unknown_exit), run_dir);
        return;
    }
    let is_news = |exit: &Exit| time(&exit.finished_at) > time(&record.finished_at);
    if let Some(exit) = exit.filter(is_news) {
        unfinished::complete_start(&mut container.lock().record, &container.dir, run_dir);
        end(engine, container, &exit, run_dir);
        return;
    }
    log::info!("container {:?}: its start was cut off, and is undone", record.name);
    release(engine, container, run_dir);
}

/// Records an exit that happened while no daemon ran.
fn end(engine: &Arc<Engine>, container: &Arc<Container>, exit: &Exit, run_dir: &Path) {
    {
        let mut inner = container.lock();
        inner.out_of_reach = None;
        let is_oom_news = exit.oom_killed && !inner.record.oom_killed;
        migrate::settle(container, &mut inner.record);
        unfinished::settle_dump(container, &mut inner.record, Some(exit));
        let record = &mut inner.record;
        record.state = State::Exited;
        record.pid = 0;
        record.exit_code = exit.code;
        record.oom_killed |= exit.oom_killed;
        record.finished_at.clone_from(&exit.finished_at);
        record.manually_stopped |= exit.checkpointed && !hibernate::is_by_daemon(record);
        if let Some(reason) = &exit.reason {
            log::error!("container {:?}: {reason}", record.name);
            record.error.clone_from(reason);
        }
        (record.is_held, record.is_updating) = (false, false);
        let mut attributes = record.event_attributes();
        if is_oom_news {
            engine.events.publish("container", "oom", &container.id, attributes.clone());
        }
        attributes.insert("exitCode".to_owned(), exit.code.to_string());
        attributes.insert("execDuration".to_owned(), run_secs(record).to_string());
        engine.events.publish("container", "die", &container.id, attributes);
        health::end(engine, &mut inner);
        if let Err(error) = container.save(&inner) {
            log::error!("{error}");
        }
    }
    release(engine, container, run_dir);
}

/// Removes what a container that does not run has on the kernel.
fn release(engine: &Engine, container: &Container, run_dir: &Path) {
    if run_dir.exists() {
        let cgroup = spec::cgroup_path(&container.record(), &engine.config().cgroup_parent());
        if let Err(error) = engine.runtime.clean_up(&cgroup, run_dir) {
            log::warn!("clean up after container {:?}: {error}", container.name());
        }
    }
    network::end(engine, container);
}

fn time(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

/// When a run began that an earlier daemon started, by this one's clock.
fn began(started_at: &str) -> std::time::Instant {
    let now = std::time::Instant::now();
    let age =
        time(started_at).and_then(|started| jiff::Timestamp::now().duration_since(started).try_into().ok());
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

/// Seconds from a container's start to its end.
fn run_secs(record: &Record) -> i64 {
    match (time(&record.started_at), time(&record.finished_at)) {
        (Some(start), Some(end)) => end.duration_since(start).as_secs().max(0),
        _ => 0,
    }
}

/// The exit the shim wrote, if it belongs to the current run. One that cannot be read is told, and kept aside
/// for whoever wants to look at it.
pub fn recorded_exit(container: &Container) -> Option<Exit> {
    let path = container.exit_path();
    match runtime::read_exit(&path) {
        Ok(exit) => exit.filter(|exit| time(&exit.finished_at) >= time(&container.record().started_at)),
        Err(error) => {
            let kept = state_dir::put_aside(&path);
            log::error!("container {:?}: how it ended is not known: {error}{kept}", container.name());
            None
        }
    }
}

/// What is said of a run that left no word. Source: Docker.
pub fn unknown_exit() -> Exit {
    Exit { code: 255, oom_killed: false, finished_at: now(), checkpointed: false, reason: None }
}

/// Until its turn comes, a container that is to come up is one whose policy makes a pause.
fn mark_pending(container: &Arc<Container>) {
    let mut inner = container.lock();
    if matches!(inner.record.state, State::Exited | State::Restarting) && inner.sandbox.is_none() {
        let is_wanted = policy::wants_start_with_daemon(&inner.record);
        inner.record.state = if is_wanted { State::Restarting } else { State::Exited };
    }
}

/// What the API need not wait for.
fn finish_all(engine: &Arc<Engine>, mut containers: Vec<Arc<Container>>) {
    // All are known before the first is removed: another may have its volumes.
    containers.iter().for_each(|container| finish_removal(engine, container));
    containers.retain(|container| container.lock().record.state == State::Restarting);
    containers.sort_by_cached_key(|container| depth(engine, &container.record(), 8));
    for level in
        containers.chunk_by(|one, other| depth(engine, &one.record(), 8) == depth(engine, &other.record(), 8))
    {
        side_by_side(level, STARTS, |container| begin_again(engine, container));
    }
    runtime::sys::memory::trim();
}

/// As [`finish_all`], for one that was taken up late.
fn finish(engine: &Arc<Engine>, container: &Arc<Container>) {
    finish_removal(engine, container);
    begin_again(engine, container);
}

/// How many containers must be up before this one; `most` ends a circle.
fn depth(engine: &Engine, record: &Record, most: usize) -> usize {
    let host = &record.host_config;
    [&host.network_mode, &host.ipc_mode, &host.pid_mode]
        .into_iter()
        .filter_map(|mode| engine.containers.by_id(mode.strip_prefix("container:")?))
        .map(|donor| if most == 0 { 0 } else { 1 + depth(engine, &donor.record(), most - 1) })
        .max()
        .unwrap_or(0)
}

/// Starts a container whose policy wants it up, unless somebody has decided otherwise meanwhile.
fn begin_again(engine: &Arc<Engine>, container: &Arc<Container>) {
    let _action = container.begin();
    {
        let mut inner = container.lock();
        if inner.record.state != State::Restarting || engine.is_stopping.load(Ordering::SeqCst) {
            return;
        }
        inner.record.restart_count = 0;
        inner.backoff = Backoff::default();
    }
    let Err(error) = revive::start(engine, container) else { return };
    log::error!("restart container {:?}: {error}", container.name());
    let mut inner = container.lock();
    if inner.record.state == State::Restarting {
        // Source: Docker tries once.
        inner.record.state = State::Exited;
        if let Err(error) = container.save(&inner) {
            log::error!("{error}");
        }
        let outcome = Outcome { exit_code: inner.record.exit_code, error: None };
        inner.release_exit(&outcome);
    }
    drop(inner);
    container.notify();
}

/// Ends a removal or a move that was cut off, and removes what was to remove itself.
fn finish_removal(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.record();
    let result = match record.state {
        State::Removing | State::Dead => {
            let _action = container.begin();
            lifecycle::finish_removal(engine, container)
        }
        state
            if !state.is_alive()
                && (record.is_unborn || record.host_config.auto_remove && !record.started_at.is_empty()) =>
        {
            lifecycle::remove_with_volumes(engine, container, false)
        }
        _ => Ok(()),
    };
    if let Err(error) = result {
        log::error!("{error}");
    }
    migrate::finish(engine, container);
}

/// Removes what earlier daemons left on the kernel for containers that are no more. Those that are left out
/// keep what they have.
fn sweep(engine: &Engine, left_out: &BTreeSet<String>) {
    let containers = engine.containers.all();
    let mut alive: Vec<String> = containers
        .iter()
        .filter(|container| container.lock().record.state.is_alive())
        .map(|container| container.id.clone())
        .collect();
    alive.extend(left_out.iter().cloned());
    let parent = engine.config().cgroup_parent();
    for (kind, dir) in [
        ("containers", engine.state_dir.exec_root.join("containers")),
        ("netns", engine.state_dir.netns_dir()),
    ] {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if name.contains(super::rootfs::LOOK) {
                // Where a daemon looked into a container; its mounts went with it.
                if let Err(cause) = std::fs::remove_dir(entry.path()) {
                    log::warn!("sweep {:?}: {cause}", entry.path());
                }
                continue;
            }
            if !names::is_id(&name) || alive.contains(&name) {
                continue;
            }
            let result = if kind == "netns" {
                netns::remove(&entry.path())
            } else {
                let cgroup = unfinished::launched(&entry.path(), "/spec/linux/cgroupsPath");
                engine.runtime.clean_up(&cgroup.unwrap_or(format!("{parent}/{name}")), &entry.path())
            };
            if let Err(error) = result {
                log::warn!("sweep {:?}: {error}", entry.path());
            }
        }
    }
    if let Err(error) = cgroup::sweep(&parent, &alive) {
        log::warn!("{error}");
    }
}
