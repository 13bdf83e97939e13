//! Volumes in checkpoints: which are saved, and how they are brought back.
//!
//! Saved are the local driver's volumes that the container may write to, unless their label or the caller says
//! otherwise. Not saved is what lies elsewhere: directories of the host, and volumes that are another device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::manifest::{Manifest, SavedVolume};
use super::passes;
use crate::daemon::containers::container::{Container, Inner, Record};
use crate::daemon::containers::mounts::Mount;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::volumes::{LOCAL, Replaced, Volume};
use crate::http::api::checkpoint::CheckpointCreate;

/// A volume with this label and the value `skip` is in no checkpoint.
pub const LABEL: &str = "dewar.checkpoint";
/// Below the checkpoint's directory.
pub const DIRECTORY: &str = "volumes";
/// NAME_MAX, with room for `.tar`.
const LONGEST_NAME: usize = 255 - 4;

/// The volumes of a container to be saved, and where the content of each is.
///
/// # Errors
/// InvalidParameter for a volume to be skipped that the container does not have.
pub fn to_save(
    engine: &Engine,
    record: &Record,
    request: &CheckpointCreate,
) -> Result<Vec<(SavedVolume, PathBuf)>> {
    let has = |name: &String| {
        record
            .mounts
            .iter()
            .any(|mount| is_volume(mount) && [&mount.name, &mount.destination].contains(&name))
    };
    if let Some(unknown) = request.skip_volumes.iter().find(|name| !has(name)) {
        return Err(Error::invalid(format!("the container has no volume {unknown:?} to be left out")));
    }
    if request.no_volumes {
        return Ok(Vec::new());
    }
    let mut found: BTreeMap<String, (SavedVolume, PathBuf)> = BTreeMap::new();
    for mount in record.mounts.iter().filter(|mount| is_volume(mount)) {
        let is_skipped =
            [&mount.name, &mount.destination].iter().any(|name| request.skip_volumes.contains(name));
        let volume = engine.volumes.get(&mount.name)?;
        if is_skipped || why_not(mount, &volume).is_some() {
            continue;
        }
        let number = found.len();
        let (saved, _) = found.entry(mount.name.clone()).or_insert_with(|| {
            let file = match mount.name.len() {
                0..=LONGEST_NAME => format!("{DIRECTORY}/{}.tar", mount.name),
                // No volume's name begins like this.
                _ => format!("{DIRECTORY}/.{number}.tar"),
            };
            let saved = SavedVolume { name: mount.name.clone(), file, destinations: Vec::new() };
            (saved, volume.mountpoint())
        });
        saved.destinations.push(mount.destination.clone());
    }
    Ok(found.into_values().collect())
}

fn is_volume(mount: &Mount) -> bool {
    mount.kind == "volume"
}

/// Why a volume's content is in no checkpoint that does not ask for less.
pub fn why_not(mount: &Mount, volume: &Volume) -> Option<&'static str> {
    let shown = volume.shown();
    let has_device = shown.options.is_some_and(|options| options.contains_key("device"));
    let is_labelled =
        shown.labels.is_some_and(|labels| labels.get(LABEL).is_some_and(|value| value == "skip"));
    match () {
        () if mount.driver != LOCAL => Some("its driver is not local"),
        () if has_device => Some("its content is on another device"),
        () if !mount.rw => Some("it is mounted read-only"),
        () if is_labelled => Some("its label says skip"),
        () => None,
    }
}

/// Volumes that have the checkpoint's content; dropping this gives them back what they had.
#[derive(Debug, Default)]
pub struct BroughtBack(Vec<Replaced>);

impl BroughtBack {
    /// The checkpoint's content stays.
    pub fn keep(self) {
        self.0.into_iter().for_each(Replaced::keep);
    }
}

/// Puts the checkpoint's content into the container's volumes, for its new writable layer `layer`. Blocks for as
/// long as the unpacking takes.
///
/// # Errors
/// Conflict when another container uses one of them; nothing is changed then.
pub fn bring_back(
    engine: &Engine,
    container: &Container,
    dir: &Path,
    manifest: &Manifest,
    layer: u32,
) -> Result<BroughtBack> {
    let record = container.record();
    let mut brought = BroughtBack::default();
    for saved in &manifest.volumes {
        let is_its = |mount: &Mount| is_volume(mount) && mount.name == saved.name;
        if !record.mounts.iter().any(is_its) {
            return Err(Error::conflict(format!(
                "it brings the content of volume {}, which the container does not have",
                saved.name
            )));
        }
        let volume = engine.volumes.get(&saved.name)?;
        await_release(engine, &saved.name);
        let replaced = volume
            .replace(&container.id, layer, |into| passes::unpack(dir, &saved.file, into))
            .map_err(|error| advised(engine, error))?;
        brought.0.push(replaced);
    }
    Ok(brought)
}

/// Waits for containers that have ended, and are just about to let go of a volume.
fn await_release(engine: &Engine, volume: &str) {
    const PATIENCE: Duration = Duration::from_secs(10);
    for other in engine.containers.all() {
        let is_leaving = |inner: &Inner| {
            !inner.record.state.is_alive()
                && (inner.sandbox.is_some() || inner.is_releasing)
                && inner.record.mounts.iter().any(|mount| is_volume(mount) && mount.name == volume)
        };
        other.wait_until(Some(PATIENCE), |inner| !is_leaving(inner));
    }
}

/// Says what can be done about a volume that another container uses, and its name.
fn advised(engine: &Engine, mut error: Error) -> Error {
    if error.class == crate::http::api::Class::Conflict {
        let user = error.message.rsplit(' ').next().unwrap_or_default();
        if let Ok(container) = engine.containers.get(user) {
            error.message = error.message.replace(user, &format!("container {}", container.name()));
        }
        error.message.push_str("; --keep-volumes takes the volumes as they are");
    }
    error
}
