//! What a starting daemon finds: containers on disk, some of them alive under their shims.
//!
//! A corrupt record costs that container only. A living shim is adopted; the exit of one that ended
//! meanwhile is read from disk; one that left no word (power cut) exited with 255, as Docker says.

use std::path::Path;
use std::sync::Arc;

use super::container::{Container, Record};
use super::create::now;
use super::state::State;
use super::{health, lifecycle, mounts, policy};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::{names, state_dir};
use crate::runtime::{Adopted, Exit, Launch, cgroup, netns};

/// Loads every container, adopts the living, finishes what was half done.
pub fn recover(engine: &Arc<Engine>) -> Result<()> {
    let dir = engine.state_dir.data_root.join("containers");
    let entries = std::fs::read_dir(&dir)
        .map_err(|cause| Error::system(format!("list containers in {dir:?}"), cause))?;
    let mut loaded = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry.file_name().to_str().filter(|name| names::is_id(name)).map(str::to_owned) else {
            log::warn!("{:?} is not a container's directory: left alone", entry.path());
            continue;
        };
        let file = entry.path().join("container.json");
        if !file.exists() {
            // Cut off in its creation, before anyone was told its id.
            if let Err(error) = state_dir::remove_tree(&entry.path()) {
                log::warn!("{error}");
            }
            continue;
        }
        match load(engine, &id) {
            Ok(container) => loaded.push(container),
            Err(error) => log::error!("container {id} is left out: {error}"),
        }
    }
    // All are known before the first is removed: another may have its volumes.
    loaded.iter().for_each(|container| recover_one(engine, container));
    bring_up(engine, loaded);
    sweep(engine);
    engine.volumes.sweep();
    Ok(())
}

fn load(engine: &Engine, id: &str) -> Result<Arc<Container>> {
    let dir = engine.state_dir.container(id);
    let record: Record = state_dir::load(&dir.join("container.json"))?;
    if record.id != id {
        return Err(Error::system(format!("read {dir:?}"), format!("the record is of {:?}", record.id)));
    }
    engine.containers.reserve(&record.name, id)?;
    mounts::restore(engine, &record, false);
    let container = Arc::new(Container::new(dir, record));
    engine.containers.insert(Arc::clone(&container));
    Ok(container)
}

fn recover_one(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.record();
    let run_dir = engine.state_dir.run_dir(&container.id);
    match record.state {
        State::Removing | State::Dead => {
            if let Err(error) = lifecycle::finish_removal(engine, container) {
                log::error!("{error}");
            }
            return;
        }
        State::Running | State::Paused => {}
        // Its record says it does not run; a daemon that died between the start and its record left a shim.
        State::Created | State::Exited | State::Restarting if run_dir.exists() => {}
        State::Created | State::Exited | State::Restarting => {
            remove_if_auto(engine, container);
            return;
        }
    }
    match engine.runtime.adopt(&run_dir) {
        Ok(Adopted::Running(sandbox)) => {
            let mut inner = container.lock();
            inner.record.pid = sandbox.pid();
            inner.record.state = if sandbox.was_paused() { State::Paused } else { State::Running };
            inner.run_began = Some(began(&inner.record.started_at));
            inner.run += 1;
            if sandbox.was_oom_killed() && !inner.record.oom_killed {
                inner.record.oom_killed = true;
                engine.events.publish("container", "oom", &container.id, inner.record.event_attributes());
            }
            inner.sandbox = Some(sandbox);
            mounts::restore(engine, &inner.record, true);
            health::begin(engine, &mut inner);
            if inner.record.state == State::Paused {
                health::suspend(engine, &mut inner);
            }
            if let Err(error) = container.save(&inner) {
                log::error!("{error}");
            }
        }
        Ok(Adopted::Exited(exit)) => end(engine, container, &exit),
        Ok(Adopted::Gone) => {
            let exit = recorded_exit(container).unwrap_or_else(unknown_exit);
            end(engine, container, &exit);
        }
        Err(error) => {
            log::error!("container {:?}: {error}", record.name);
            end(engine, container, &recorded_exit(container).unwrap_or_else(unknown_exit));
        }
    }
    remove_if_auto(engine, container);
}

/// Records an exit that happened while no daemon ran.
fn end(engine: &Arc<Engine>, container: &Arc<Container>, exit: &Exit) {
    {
        let mut inner = container.lock();
        let is_oom_news = exit.oom_killed && !inner.record.oom_killed;
        let record = &mut inner.record;
        record.state = State::Exited;
        record.pid = 0;
        record.exit_code = exit.code;
        record.oom_killed |= exit.oom_killed;
        record.finished_at.clone_from(&exit.finished_at);
        record.manually_stopped |= exit.checkpointed;
        let mut attributes = record.event_attributes();
        if is_oom_news {
            engine.events.publish("container", "oom", &container.id, attributes.clone());
        }
        attributes.insert("exitCode".to_owned(), exit.code.to_string());
        attributes.insert("execDuration".to_owned(), run_secs(record).to_string());
        engine.events.publish("container", "die", &container.id, attributes);
        if let Err(error) = container.save(&inner) {
            log::error!("{error}");
        }
    }
    let run_dir = engine.state_dir.run_dir(&container.id);
    if run_dir.exists()
        && let Err(error) = clean_up(engine, &run_dir)
    {
        log::warn!("clean up after container {:?}: {error}", container.name());
    }
    let netns = engine.state_dir.netns(&container.id);
    if netns.exists()
        && let Err(error) = netns::remove(&netns)
    {
        log::warn!("{error}");
    }
}

/// When a run began that an earlier daemon started, by this one's clock.
fn began(started_at: &str) -> std::time::Instant {
    let now = std::time::Instant::now();
    let started = started_at.parse::<jiff::Timestamp>().ok();
    let age = started.and_then(|started| jiff::Timestamp::now().duration_since(started).try_into().ok());
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

/// Seconds from a container's start to its end.
fn run_secs(record: &Record) -> i64 {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    match (time(&record.started_at), time(&record.finished_at)) {
        (Some(start), Some(end)) => end.duration_since(start).as_secs().max(0),
        _ => 0,
    }
}

/// Starts what the policies want up: those whose namespaces others join before those others.
fn bring_up(engine: &Arc<Engine>, mut containers: Vec<Arc<Container>>) {
    containers.sort_by_cached_key(|container| depth(engine, &container.record(), 8));
    containers.iter().for_each(|container| begin_again(engine, container));
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

/// Starts a container whose policy wants it up.
fn begin_again(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.record();
    if !matches!(record.state, State::Exited | State::Restarting) {
        return;
    }
    if !policy::wants_start_with_daemon(&record) {
        if record.state == State::Restarting {
            container.lock().record.state = State::Exited;
        }
        return;
    }
    if let Err(error) = lifecycle::start(engine, container) {
        log::error!("restart container {:?}: {error}", record.name);
    }
}

fn remove_if_auto(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.record();
    let has_run = !record.started_at.is_empty();
    if record.host_config.auto_remove
        && has_run
        && !record.state.is_alive()
        && let Err(error) = lifecycle::remove_with_volumes(engine, container, false)
    {
        log::error!("{error}");
    }
}

/// The exit the shim wrote, if it belongs to the current run.
pub fn recorded_exit(container: &Container) -> Option<Exit> {
    let text = std::fs::read(container.exit_path()).ok()?;
    let exit: Exit = serde_json::from_slice(&text).ok()?;
    let started_at = container.record().started_at;
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    (time(&exit.finished_at)? >= time(&started_at)?).then_some(exit)
}

/// What is said of a run that left no word. Source: Docker.
pub fn unknown_exit() -> Exit {
    Exit { code: 255, oom_killed: false, finished_at: now(), checkpointed: false }
}

/// Removes what a shim that is gone left, as its own launch file describes it.
fn clean_up(engine: &Engine, run_dir: &Path) -> Result<()> {
    let launch = std::fs::read(run_dir.join(crate::runtime::shim::LAUNCH))
        .ok()
        .and_then(|text| serde_json::from_slice::<Launch>(&text).ok());
    match launch {
        Some(launch) => Ok(engine.runtime.clean_up(&launch)?),
        None => state_dir::remove_tree(run_dir),
    }
}

/// Removes what earlier daemons left on the kernel for containers that are no more.
fn sweep(engine: &Engine) {
    let containers = engine.containers.all();
    let alive: Vec<String> = containers
        .iter()
        .filter(|container| container.lock().record.state.is_alive())
        .map(|container| container.id.clone())
        .collect();
    for (kind, dir) in [
        ("containers", engine.state_dir.exec_root.join("containers")),
        ("netns", engine.state_dir.exec_root.join("netns")),
    ] {
        let Ok(entries) = std::fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !names::is_id(&name) || alive.contains(&name) {
                continue;
            }
            let result = if kind == "netns" {
                netns::remove(&entry.path()).map_err(Error::from)
            } else {
                clean_up(engine, &entry.path())
            };
            if let Err(error) = result {
                log::warn!("sweep {:?}: {error}", entry.path());
            }
        }
    }
    if let Err(error) = cgroup::sweep(&engine.config().cgroup_parent(), &alive) {
        log::warn!("{error}");
    }
}
