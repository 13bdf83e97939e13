//! Copies of a container that runs, with its memory, and goes on: a checkpoint that nobody sees, and what is made of
//! it.
//!
//! The checkpoint lies in memory if there is room for it, else on disk, in a directory of its own that a starting
//! daemon sweeps.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::restore::{self, Origin};
use super::{Manifest, create};
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::containers::network::Frozen;
use crate::daemon::containers::spec;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::names;
use crate::daemon::state_dir;
use crate::http::api::checkpoint::CheckpointCreate;
use crate::http::api::copies::{Copies, CopyRequest};
use crate::runtime::cgroup::Cgroup;

/// Where the checkpoints of clones are, below the exec root or the data root.
const CLONES: &str = "clones";
/// What such a checkpoint is called.
const NAME: &str = "clone";

/// Copies a running container. Blocks until all copies run; the original stands still while its memory is written,
/// and no longer.
///
/// # Errors
/// Conflict when it does not run; as [`restore::make_all`]. The original runs on.
pub fn clone(engine: &Arc<Engine>, container: &Arc<Container>, request: &CopyRequest) -> Result<Copies> {
    if !request.checkpoint_dir.is_empty() {
        return Err(Error::invalid("a clone keeps no checkpoint: --checkpoint-dir goes with restore"));
    }
    if request.lazy {
        return Err(Error::invalid("the memory of a clone is copied at once: lazy goes with restore"));
    }
    let attempt = || format!("Cannot clone container {}", container.name());
    // Until its checkpoint is gone: nobody needs digests of that.
    let _held = engine.digests.hold();
    let record = container.record();
    let dir = match request.copy_volumes {
        // Nobody knows how much is in them.
        true => engine.state_dir.data_root.join(CLONES),
        false => directory(engine, &record, request.count.max(1)),
    };
    let dir = dir.join(names::new_id()?);
    state_dir::make_dir(&dir, 0o700)?;
    let result = clone_by(engine, container, request, &dir);
    // The next start of the daemon sweeps what stays.
    if let Err(error) = state_dir::remove_tree(&dir) {
        log::warn!("{error}");
    }
    result.map_err(|error| error.during(attempt()))
}

fn clone_by(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    request: &CopyRequest,
    dir: &Path,
) -> Result<Copies> {
    let began = Instant::now();
    let dump = CheckpointCreate {
        checkpoint_id: NAME.to_owned(),
        checkpoint_dir: dir.to_string_lossy().into_owned(),
        no_volumes: !request.copy_volumes,
        ..CheckpointCreate::default()
    };
    create(engine, container, &dump)?;
    let stopped = began.elapsed();
    let dir = dir.join(NAME);
    let manifest: Manifest = Manifest::load(&dir)?;
    let places = Frozen { is_anothers: true, ..manifest.places };
    let volumes = manifest.volumes;
    let origin = Origin { record: container.record(), memory: dir.clone(), dir, places, volumes };
    let containers = restore::make_all(engine, &origin, request)?;
    let stopped = u64::try_from(stopped.as_millis()).unwrap_or(u64::MAX);
    Ok(Copies { containers, stopped_milliseconds: Some(stopped) })
}

/// A place for the checkpoint: in memory if there is room for it there and for the copies beside it.
fn directory(engine: &Engine, record: &Record, count: u32) -> PathBuf {
    let in_memory = engine.state_dir.exec_root.join(CLONES);
    match has_room(engine, record, count) {
        Some(true) => in_memory,
        _ => engine.state_dir.data_root.join(CLONES),
    }
}

/// Whether the exec root is in memory and takes the container's memory; `None` when that cannot be told.
fn has_room(engine: &Engine, record: &Record, count: u32) -> Option<bool> {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    let filesystem = rustix::fs::statfs(&engine.state_dir.exec_root).ok()?;
    if filesystem.f_type as u32 != TMPFS_MAGIC {
        return Some(false);
    }
    let path = spec::cgroup_path(record, &engine.config().cgroup_parent());
    let needed = Cgroup::open(&path).ok()?.stats().memory.usage_bytes;
    let needed = needed.saturating_add(needed / 8).saturating_add(16 << 20);
    let free = filesystem.f_bavail.saturating_mul(u64::try_from(filesystem.f_bsize).ok()?);
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = available.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10;
    Some(needed < free && needed.saturating_mul(u64::from(count) + 1) < available)
}

/// Removes what clones of an earlier daemon have left, once no shim can be at work on it: one that is out of reach may
/// be.
pub fn sweep(engine: &Engine) {
    if engine.containers.all().iter().any(|container| container.lock().out_of_reach.is_some()) {
        return;
    }
    for root in [&engine.state_dir.exec_root, &engine.state_dir.data_root] {
        let dir = root.join(CLONES);
        if dir.exists()
            && let Err(error) = state_dir::remove_tree(&dir)
        {
            log::warn!("{error}");
        }
    }
}
