//! Checkpoints of a container: written whole or not at all, listed, restored, deleted.
//!
//! ```text
//! <name>.partial/   made new; the shim and CRIU write into it        (a crash leaves this: see `unfinished`)
//!      │ dump.json written last
//!      ▼ checkpoint.json, rename
//! <name>/           images/ rootfs.tar shm.tar volumes/ dump.log descriptors.json checkpoint.json
//! ```
//!
//! [`check`] says before whether it can be done, [`manifest`] is what it says of itself, [`seal`] the digests of its
//! files, [`digests`] when they are taken, [`pack`] its memory compressed, [`preflight`] what is compared before one is thawed, [`volumes`] what becomes of volumes, [`passes`] the
//! archives of files, [`logs`] what CRIU said when it failed; [`archive`] is one as a file, [`stream`] one that is none here, [`podman`] a file that podman
//! wrote, or restores.
//!
//! The memory images and the writable layer are one unit: a restore brings both back, into a new layer, and
//! the old layer is deleted only when the restored processes run.

pub mod archive;
pub mod check;
pub mod clone;
pub mod digests;
pub mod export;
pub mod import;
pub mod inspect;
pub mod logs;
pub mod manifest;
pub mod pack;
pub mod passes;
pub mod podman;
pub mod preflight;
pub mod prune;
pub mod registry;
pub mod restore;
pub mod seal;
pub mod stream;
pub mod volumes;

use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::container::{Container, Record};
use super::lifecycle;
use super::network::{self, Frozen};
use super::rootfs;
use super::state::Action;
use super::unfinished;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::metrics;
use crate::daemon::names::CheckpointId;
use crate::daemon::runtimes;
use crate::daemon::state_dir;
use crate::http::api::checkpoint::{CheckpointCreate, CheckpointSummary};
use crate::runtime::criu::DUMP_LOG;
use crate::runtime::{Dump, DumpVolume, Thaw};
use manifest::{Digesting, MANIFEST, Options};
use volumes::BroughtBack;

pub use manifest::{Manifest, PARTIAL, Purpose, UnderWay};

/// How a checkpoint is to come back to life.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// TCP connections come back closed, even if they could go on.
    pub tcp_close: bool,
    /// Its processes run before their memory is there.
    pub lazy: bool,
    /// Its processes may have more than the container's configuration gives them.
    pub trust: bool,
    /// Volumes keep the content they have.
    pub keep_volumes: bool,
    /// Its memory is not in the checkpoint, and is asked for here.
    pub asks: Option<Arc<OwnedFd>>,
}

/// A checkpoint on its way back to life.
#[derive(Clone, Debug)]
pub struct Thawing {
    pub thaw: Thaw,
    /// The number of the writable layer made of it.
    pub layer: u32,
    pub places: Frozen,
    /// Where CRIU's log is kept if it fails.
    pub log: PathBuf,
}

/// Where a container's checkpoints are: its own directory, or one the caller names.
fn directory(container: &Container, custom: &str) -> Result<PathBuf> {
    if custom.is_empty() {
        Ok(container.dir.join("checkpoints"))
    } else if custom.starts_with('/') {
        Ok(PathBuf::from(custom))
    } else {
        Err(Error::invalid(format!("checkpoint directory {custom:?}: not an absolute path")))
    }
}

/// Freezes a running container to disk.
///
/// # Errors
/// Conflict when it does not run or the name is taken; System with CRIU's reason when it cannot be frozen:
/// the container then runs on and nothing is left on disk.
pub fn create(engine: &Arc<Engine>, container: &Arc<Container>, request: &CheckpointCreate) -> Result<()> {
    create_for(engine, container, request, Purpose::Asked)
}

/// As [`create`], and notes on the container's record what the checkpoint is for.
///
/// # Errors
/// As [`create`].
pub fn create_for(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &CheckpointCreate,
    purpose: Purpose,
) -> Result<()> {
    let id = CheckpointId::parse(&request.checkpoint_id)?;
    let parent = directory(container, &request.checkpoint_dir)?;
    let attempt = || format!("Cannot checkpoint container {}", container.name());
    let _action = container.begin();
    let _held = engine.digests.hold();
    let began = Instant::now();
    let sandbox = lifecycle::sandbox(container, Action::Checkpoint)?;
    unfinished::finish_dump(container).map_err(|error| error.during(attempt()))?;
    let record = container.record();
    check_runtime(engine, &record).map_err(|error| error.during(attempt()))?;
    if record.host_config.auto_remove && request.exit && request.checkpoint_dir.is_empty() {
        return Err(Error::conflict(format!(
            "{}: it was started with --rm and would take the checkpoint with it: use --leave-running or --checkpoint-dir",
            attempt()
        )));
    }
    match (request.pre_check, request.exit) {
        (true, _) => check::refuse(engine, container, &sandbox),
        (false, true) => check::refuse_traps(&sandbox),
        // It runs on whatever becomes of the checkpoint.
        (false, false) => Ok(()),
    }
    .map_err(|error| error.during(attempt()))?;
    let target = parent.join(id.as_str());
    if target.symlink_metadata().is_ok() {
        return Err(Error::conflict(format!(
            "checkpoint with name {id} already exists for container {}",
            container.name()
        )));
    }
    state_dir::make_dir(&parent, 0o700)?;
    let (volumes, parts): (Vec<_>, Vec<_>) = volumes::to_save(engine, &record, request)
        .map_err(|error| error.during(attempt()))?
        .into_iter()
        .map(|(saved, from)| (saved.clone(), DumpVolume { from, file: saved.file }))
        .unzip();
    let mut under_way = UnderWay {
        dir: parent,
        name: id.to_string(),
        options: Options {
            leave_running: !request.exit,
            tcp_close: request.tcp_close,
            compress: request.compress,
        },
        criu: String::new(),
        volumes,
        log_bytes: log_bytes(container),
        purpose,
    };
    let partial = under_way.partial();
    // Left by a daemon that died in the middle; the action lock says that nobody is writing it now.
    state_dir::remove_tree(&partial)?;
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&partial)
        .map_err(|cause| Error::system(format!("{}: create directory {partial:?}", attempt()), cause))?;
    let dump = Dump {
        dir: partial.clone(),
        leave_running: !request.exit,
        tcp_close: request.tcp_close,
        volumes: parts,
        ..Dump::default()
    };
    let write = || -> Result<Manifest> {
        note(container, Some(under_way.clone()))?;
        network::hold(engine, &record);
        if request.exit {
            rootfs::hold(container, &record);
        }
        let dumped = sandbox.dump(dump);
        if dumped.is_err() || !request.exit {
            network::release(engine, &record);
        }
        dumped
            .map_err(|error| {
                logs::keep(error, &partial.join(DUMP_LOG), &logs::place(&container.dir, "freeze"))
            })
            .map_err(|error| explained(engine, error))?;
        // Asked for now: the first time takes a tenth of a second, which nothing is to wait for.
        under_way.criu = engine.criu().as_ref().map_or_else(|_| String::new(), |info| info.version.clone());
        under_way.publish(&record, digesting(purpose))
    };
    let written = write();
    if let Err(error) = &written
        && request.exit
        && under_way.is_whole()
    {
        // The processes are in it and nowhere else. The note on the record says so, to whoever comes next.
        return Err(Error::system(
            format!(
                "{}: it is frozen, and stays in {partial:?} until its checkpoint {id} can be finished",
                attempt()
            ),
            error,
        ));
    }
    if let Err(error) = settle(container, written.is_ok().then_some(&under_way)) {
        // The next daemon finds no such dump and forgets it.
        log::warn!("{error}");
    }
    let manifest = match written {
        Ok(manifest) => manifest,
        Err(error) => {
            // The first failure is the one to tell; the next attempt or start sweeps what stays.
            let _ = state_dir::remove_tree(&partial);
            return Err(error.during(attempt()));
        }
    };
    if !manifest.has_digests() {
        digests::later(engine, container, target);
    }
    engine.metrics.done(metrics::Action::Checkpoint, began);
    let mut attributes = record.event_attributes();
    attributes.insert("checkpoint".to_owned(), id.to_string());
    engine.events.publish("container", "checkpoint", &container.id, attributes);
    if request.exit {
        // Compat: after `checkpoint create`, `docker ps` must not show it running any more.
        container
            .wait_until(Some(std::time::Duration::from_secs(10)), |inner| !inner.record.state.is_alive());
    }
    Ok(())
}

fn digesting(purpose: Purpose) -> Digesting {
    match purpose {
        // The machine may be about to go down, and nothing but digests tells then that all of it was written.
        Purpose::Hibernation { by_daemon: true, .. } => Digesting::Now,
        // Inodes tell nothing where it is not known which life of the kernel this is.
        _ if manifest::boot_id().is_empty() => Digesting::Now,
        _ => Digesting::Later,
    }
}

/// How much the container has said so far; `None` where that is not kept in a file.
fn log_bytes(container: &Container) -> Option<u64> {
    let path = container.dir.join(format!("{}-json.log", container.id));
    fs::metadata(path).ok().map(|meta| meta.len())
}

/// Writes down that a dump is under way, or that none is.
fn note(container: &Container, dump: Option<UnderWay>) -> Result<()> {
    let mut inner = container.lock();
    inner.record.dump = dump;
    container.save(&inner)
}

/// Writes down that a dump is over, and what follows from the checkpoint it made.
fn settle(container: &Container, made: Option<&UnderWay>) -> Result<()> {
    let mut inner = container.lock();
    inner.record.dump = None;
    if let Some(made) = made {
        made.note(&mut inner.record);
    }
    container.save(&inner)
}

/// Refuses what another OCI runtime runs: that is not ours to take apart.
pub fn check_runtime(engine: &Engine, record: &Record) -> Result<()> {
    match runtimes::find(&engine.config(), &record.host_config.runtime)? {
        None => Ok(()),
        Some(runtime) => Err(Error::not_implemented(format!(
            "runtime {:?} does not support checkpoints, only the built-in one does",
            runtime.name
        ))),
    }
}

/// The checkpoints there are, by name; half-made ones and strangers are passed over.
pub fn list(container: &Container, custom: &str) -> Result<Vec<CheckpointSummary>> {
    let dir = directory(container, custom)?;
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::system(format!("list checkpoints in {dir:?}"), cause)),
    };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| {
            CheckpointId::parse(name).is_ok() && dir.join(name).join(MANIFEST).symlink_metadata().is_ok()
        })
        .collect();
    names.sort();
    let summary = |name: String| {
        // One that cannot be read has a name all the same, and can be removed by it.
        let manifest = Manifest::load(&dir.join(&name)).ok();
        let created = manifest.as_ref().map_or_else(String::new, |manifest| manifest.created.clone());
        let bytes = manifest.filter(|manifest| !manifest.files.is_empty()).map(|manifest| manifest.bytes());
        CheckpointSummary { name, created, size: bytes }
    };
    Ok(names.into_iter().map(summary).collect())
}

/// The directory of a whole checkpoint.
fn locate(container: &Container, id: &CheckpointId, custom: &str) -> Result<PathBuf> {
    let dir = directory(container, custom)?.join(id.as_str());
    if dir.join(MANIFEST).symlink_metadata().is_err() {
        return Err(Error::not_found(format!(
            "checkpoint {id} does not exist for container {}",
            container.name()
        )));
    }
    Ok(dir)
}

/// As [`locate`], with what it says of itself.
fn find(container: &Container, id: &CheckpointId, custom: &str) -> Result<(PathBuf, Manifest)> {
    let dir = locate(container, id, custom)?;
    let manifest = Manifest::load(&dir).inspect_err(|error| {
        log::error!("checkpoint {id} of container {:?} cannot be used: {error}", container.name());
    })?;
    Ok((dir, manifest))
}

/// As [`find`], and all its files have digests: those that it lacks are taken now.
fn find_digested(container: &Container, id: &CheckpointId, custom: &str) -> Result<(PathBuf, Manifest)> {
    let (dir, manifest) = find(container, id, custom)?;
    match manifest.has_digests() {
        true => Ok((dir, manifest)),
        false => digests::complete(container, &dir, &|| {}).map(|manifest| (dir, manifest)),
    }
}

/// Deletes one.
pub fn delete(container: &Container, id: &str, custom: &str) -> Result<()> {
    let id = CheckpointId::parse(id)?;
    let _action = container.begin();
    delete_locked(container, &id, custom)
}

/// As [`delete`]; the caller holds the action lock.
///
/// # Errors
/// NotFound; System.
pub fn delete_locked(container: &Container, id: &CheckpointId, custom: &str) -> Result<()> {
    if let Err(error) = unfinished::finish_dump(container) {
        let waiting = container.lock().record.dump.clone();
        let is_it = |dump: &UnderWay| {
            dump.name == id.as_str() && directory(container, custom).is_ok_and(|dir| dir == dump.dir)
        };
        let Some(dump) = waiting.filter(is_it) else { return Err(error) };
        // It need not be finished to be thrown away.
        state_dir::remove_tree(&dump.partial())?;
        return note(container, None);
    }
    // What it says of itself does not matter any more.
    let dir = locate(container, id, custom)?;
    // Renamed first: a removal cut short must not leave something that looks whole.
    let doomed = dir.with_file_name(format!("{id}{PARTIAL}"));
    state_dir::remove_tree(&doomed)?;
    fs::rename(&dir, &doomed).map_err(|cause| Error::system(format!("remove checkpoint {id}"), cause))?;
    state_dir::remove_tree(&doomed)
}

/// Thaws a stopped container where it was: memory, writable layer, volumes and /dev/shm, and its places in networks as far
/// as they can be had. Its TCP connections go on if it has its addresses, unless they are to be closed.
///
/// # Errors
/// NotFound for an unknown checkpoint; Conflict when the container runs, or for what [`preflight`] finds; System
/// with CRIU's reason. The container and its layer are then as they were.
pub fn restore(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    id: &str,
    custom: &str,
    how: How,
) -> Result<()> {
    let _action = container.begin();
    restore_locked(engine, container, id, custom, how, Action::Restore)
}

/// As [`restore`]; the caller holds the action lock and says as what this counts.
///
/// # Errors
/// As [`restore`].
pub fn restore_locked(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    id: &str,
    custom: &str,
    how: How,
    action: Action,
) -> Result<()> {
    let id = CheckpointId::parse(id)?;
    let _held = engine.digests.hold();
    let attempt = || format!("Cannot restore container {} from checkpoint {id}", container.name());
    container.lock().check(action)?;
    let finished = unfinished::finish_dump(container);
    let (dir, manifest) = match (find(container, &id, custom), finished) {
        (Ok(found), _) => found,
        (Err(error), Ok(())) => return Err(error),
        // Perhaps this is the one that is not there.
        (Err(_), Err(error)) => return Err(error.during(attempt())),
    };
    let record = container.record();
    check_runtime(engine, &record).map_err(|error| error.during(attempt()))?;
    preflight::check(engine, &record, &dir, &manifest, how.trust).map_err(|error| error.during(attempt()))?;
    if how.lazy {
        pack::check_lazy(&manifest).map_err(|error| error.during(attempt()))?;
        check_lazy(engine).map_err(|error| error.during(attempt()))?;
    }
    let fresh = record.layer.wrapping_add(1);
    let fresh_dir = container.layer_dir(fresh);
    let bring_back = || -> Result<()> {
        state_dir::remove_tree(&fresh_dir)?;
        let upper = fresh_dir.join("upper");
        state_dir::make_dir(&upper, 0o755)?;
        state_dir::make_dir(&fresh_dir.join("work"), 0o700)?;
        passes::unpack(&dir, passes::ROOTFS, &upper)?;
        let volumes = match how.keep_volumes {
            true => BroughtBack::default(),
            false => volumes::bring_back(engine, container, &dir, &manifest, fresh)?,
        };
        let memory = pack::unpack(&dir, &manifest)?;
        let thaw = Thaw {
            dir: memory.path().to_owned(),
            tcp_close: how.tcp_close || manifest.options.tcp_close,
            hostname: None,
            lazy: how.lazy,
            asks: how.asks.clone(),
        };
        let thawing = Thawing {
            thaw,
            layer: fresh,
            places: manifest.places.clone(),
            log: logs::place(&container.dir, "thaw"),
        };
        lifecycle::start_locked(engine, container, action, Some(thawing))?;
        volumes.keep();
        Ok(())
    };
    match bring_back() {
        Ok(()) => {
            // It runs on the new layer; the old one is only space.
            if let Err(error) = state_dir::remove_tree(&container.layer_dir(record.layer)) {
                log::warn!("{error}");
            }
            Ok(())
        }
        Err(error) => {
            let _ = state_dir::remove_tree(&fresh_dir);
            Err(error.during(attempt()))
        }
    }
}

/// Refuses to let anything run before its memory is there, where CRIU or the kernel cannot.
pub fn check_lazy(engine: &Engine) -> Result<()> {
    match engine.criu() {
        Ok(info) if info.has_lazy_pages => Ok(()),
        Ok(info) => Err(Error::not_implemented(format!(
            "criu {} cannot bring memory later on this kernel, which lacks userfaultfd: leave --lazy out",
            info.version
        ))),
        // The restore itself will say what is the matter.
        Err(_) => Ok(()),
    }
}

/// A failed dump with what is known to be wrong with this CRIU: its own last words seldom say it.
pub fn explained(engine: &Engine, error: crate::runtime::Error) -> Error {
    match engine.criu() {
        Err(reason) => Error::system("freeze", reason),
        Ok(info) if info.faults.is_empty() => error.into(),
        Ok(info) => Error::system(error, info.faults.join("; ")),
    }
}
