//! What a daemon was doing to a container when it died: finished where the essential has happened, undone where
//! it has not.
//!
//! | cut off | found by | becomes |
//! |---|---|---|
//! | start | a shim that lives, a record that says nothing of it | started: the launch file tells since when, on which layer |
//! | checkpoint | [`Record::dump`] | published if the dump is whole or took the container, else removed |
//! | thaw of what slept | [`Record::hibernation`] | used up if it came to life, else thawed again |
//! | restore | a second writable layer | the one that is in use stays |
//! | update | [`Record::is_updating`] | the recorded limits are in force |
//! | restore of a copy, clone | [`Record::is_unborn`] | the copy is there if it came to life, else removed (`recover`) |
//! | move | [`Record::leaving`], [`Record::arriving`] | as the verdict says (`migrate`) |
//! | commit | [`Record::is_held`] | the container goes on (`recover`) |
//!
//! Not here: creations and removals, which their directories tell of (`create`, `lifecycle`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::checkpoint::manifest::{Digesting, boot_id};
use super::checkpoint::{self, Manifest, UnderWay, digests};
use super::container::{Container, Record};
use super::create::now;
use super::hibernate;
use super::migrate;
use super::network;
use super::recover;
use super::spec;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::daemon::state_dir;
use crate::runtime::Exit;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::shim::LAUNCH;

/// A text in the launch file of `run_dir`, by its JSON pointer. Whatever dewar wrote it, nothing else of it
/// needs to be understood.
pub fn launched(run_dir: &Path, pointer: &str) -> Option<String> {
    let text = fs::read(run_dir.join(LAUNCH)).ok()?;
    let launch: serde_json::Value = serde_json::from_slice(&text).ok()?;
    launch.pointer(pointer)?.as_str().map(str::to_owned)
}

/// Writes down a start that has happened.
pub fn complete_start(record: &mut Record, dir: &Path, run_dir: &Path) {
    let launched_at = fs::metadata(run_dir.join(LAUNCH)).and_then(|meta| meta.modified()).ok();
    let started_at = launched_at.and_then(|time| jiff::Timestamp::try_from(time).ok());
    record.started_at = started_at.map_or_else(now, |time| format!("{time:.9}"));
    (record.exit_code, record.oom_killed, record.manually_stopped) = (0, false, false);
    record.error.clear();
    (record.is_unborn, record.is_ended_by_daemon) = (false, false);
    (record.leaving, record.arriving) = (None, None);
    let upper = launched(run_dir, "/overlay/upper").map(PathBuf::from);
    let layer = upper.as_deref().and_then(Path::parent).and_then(layer_number);
    // A thaw has a layer of its own. Of which checkpoint is not known here; the container may have slept in it.
    let asleep = record.hibernation.as_ref().map(|asleep| asleep.checkpoint.clone());
    hibernate::started(
        record,
        asleep.as_deref().filter(|_| layer.is_some_and(|layer| layer != record.layer)),
    );
    record.layer = layer.unwrap_or(record.layer);
    network::complete_start(record, dir);
}

fn layer_number(dir: &Path) -> Option<u32> {
    dir.file_name()?.to_str()?.strip_prefix("rw-")?.parse().ok()
}

/// Puts the recorded limits in force; what the kernel refuses now it has refused, or will, at the next start.
pub fn complete_update(record: &Record, cgroup_parent: &str) {
    let update = || -> Result<()> {
        let limits = spec::resources(&record.host_config.resources)?;
        Cgroup::open(&spec::cgroup_path(record, cgroup_parent))?.update(&limits)?;
        Ok(())
    };
    match update() {
        Ok(()) => log::info!("container {:?}: its update was cut off, and is undone", record.name),
        Err(error) => log::warn!("put the limits of container {:?} in force: {error}", record.name),
    }
}

/// Publishes the dump that was under way, or removes it. `exit` is how the container has ended meanwhile.
pub fn settle_dump(container: &Container, record: &mut Record, exit: Option<&Exit>) {
    // A stream that was cut off is nobody's.
    if let Err(error) = state_dir::remove_tree(&container.dir.join(checkpoint::stream::SCRATCH)) {
        log::warn!("{error}");
    }
    let took_it = exit.is_some_and(|exit| exit.checkpointed);
    let noted = record.dump.take();
    if let Some(dump) = noted.as_ref().filter(|dump| dump.is_published()) {
        dump.note(record);
        return;
    }
    let under_way = noted.or_else(|| took_it.then(|| orphan(container)).flatten());
    let Some(dump) = under_way.filter(|dump| dump.partial().is_dir()) else { return };
    let id = &dump.name;
    let result = if took_it || dump.is_whole() {
        log::info!("checkpoint {id} of container {:?} was cut off, and is finished", record.name);
        dump.publish(record, Digesting::Now).map(|_| dump.note(record))
    } else {
        log::info!("checkpoint {id} of container {:?} was cut off, and is undone", record.name);
        state_dir::remove_tree(&dump.partial())
    };
    if let Err(error) = result {
        log::error!("checkpoint {id} of container {:?}: {error}", record.name);
        // Nobody else has what is in it: the next use of the container's checkpoints tries again.
        record.dump = Some(dump);
    }
}

/// Publishes a whole dump that could not be published when it was made. The caller holds the action lock.
///
/// # Errors
/// Why it still cannot be; it stays as it is.
pub fn finish_dump(container: &Container) -> Result<()> {
    let record = container.record();
    let Some(dump) = &record.dump else { return Ok(()) };
    if !dump.is_published() && dump.is_whole() {
        dump.publish(&record, Digesting::Now).map_err(|error| {
            error.during(format!("finish checkpoint {} of container {}", dump.name, record.name))
        })?;
        log::info!("checkpoint {} of container {:?} has its name now", dump.name, record.name);
    }
    let mut inner = container.lock();
    if dump.is_published() {
        dump.note(&mut inner.record);
    }
    inner.record.dump = None;
    container.save(&inner)
}

/// As [`settle_dump`], for a container whose end was on record before its checkpoint had its name, and whose shim is gone.
fn settle_rest(container: &Container) {
    if container.lock().record.dump.is_none() {
        return;
    }
    let exit = recover::recorded_exit(container);
    let mut inner = container.lock();
    let exit = exit.filter(|_| !inner.record.state.is_alive());
    settle_dump(container, &mut inner.record, exit.as_ref());
    if let Err(error) = container.save(&inner) {
        log::error!("{error}");
    }
}

/// A dump that took the container under a daemon which did not write down where it goes.
fn orphan(container: &Container) -> Option<UnderWay> {
    let dir = container.dir.join("checkpoints");
    let partials = fs::read_dir(&dir).ok()?.flatten().filter(|entry| entry.path().join("images").is_dir());
    let newest = partials
        .filter_map(|entry| {
            let name = entry.file_name().to_str()?.strip_suffix(checkpoint::PARTIAL)?.to_owned();
            Some((entry.metadata().ok()?.modified().ok()?, name))
        })
        .max()?;
    Some(UnderWay { dir, name: newest.1, ..UnderWay::default() })
}

/// Removes half-made checkpoints and writable layers that are not the container's, settles what volumes hold, and has the
/// digests of checkpoints taken that an earlier daemon did not come to.
pub fn sweep(engine: &Arc<Engine>, container: &Arc<Container>) {
    settle_rest(container);
    hibernate::use_up(container);
    let record = container.record();
    migrate::sweep(container, &record);
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        if let Ok(volume) = engine.volumes.get(&mount.name) {
            volume.settle(&record.id, record.layer);
        }
    }
    let partials = children(&container.dir.join("checkpoints"))
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(checkpoint::PARTIAL)))
        .filter(|path| record.dump.as_ref().is_none_or(|dump| dump.partial() != *path));
    let layers = children(&container.dir)
        .filter(|path| layer_number(path).is_some_and(|number| number != record.layer));
    for path in partials.chain(layers) {
        match state_dir::remove_tree(&path) {
            Ok(()) => log::info!("{path:?} is removed: it was half made"),
            Err(error) => log::warn!("{error}"),
        }
    }
    let boot_id = boot_id();
    children(&container.dir.join("checkpoints"))
        .filter(|dir| lacks_digests(dir, &boot_id))
        .for_each(|dir| digests::later(engine, container, dir));
}

/// Whether a checkpoint lacks digests that can still be taken.
fn lacks_digests(dir: &Path, boot_id: &str) -> bool {
    Manifest::load(dir).is_ok_and(|manifest| !manifest.has_digests() && manifest.boot_id == boot_id)
}

fn children(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path())
}
