//! Where copies have their mounts from: the original's source, another one that is named, or a copy of a volume.

use std::path::Path;

use super::Origin;
use crate::daemon::containers::checkpoint::manifest::SavedVolume;
use crate::daemon::containers::container::Record;
use crate::daemon::containers::create;
use crate::daemon::containers::mounts::{Mount, Wanted};
use crate::daemon::error::Result;
use crate::http::api::container::HostConfig;
use crate::http::api::copies::CopyRequest;
use crate::http::api::volume::VolumeCreate;

/// A mount of the copy's in place of one of the original's, which `record` then asks for, too. A volume that it `has` a
/// copy of is one without a name yet.
pub(super) fn copied_mount(
    record: &mut Record,
    was: &Mount,
    request: &CopyRequest,
    has_copy: bool,
) -> Wanted {
    let mut mount = Mount { is_copied: false, ..was.clone() };
    match request.volumes.get(&was.destination) {
        Some(source) if source.starts_with('/') => {
            mount.kind = "bind".to_owned();
            mount.source.clone_from(source);
            (mount.name, mount.driver) = (String::new(), String::new());
            (mount.is_anonymous, mount.is_source_made) = (false, false);
            if mount.propagation.is_empty() {
                mount.propagation = "rprivate".to_owned();
            }
        }
        Some(name) => {
            mount.kind = "volume".to_owned();
            mount.name.clone_from(name);
            (mount.source, mount.propagation) = (String::new(), String::new());
            mount.is_anonymous = false;
        }
        None if has_copy => {
            (mount.name, mount.source) = (String::new(), String::new());
            mount.is_anonymous = true;
        }
        None => {}
    }
    let volume = (mount.kind == "volume")
        .then(|| VolumeCreate { name: mount.name.clone(), ..VolumeCreate::default() });
    if request.volumes.contains_key(&was.destination) {
        let source = if mount.kind == "bind" { &mount.source } else { &mount.name };
        point_elsewhere(&mut record.host_config, &was.destination, &mount.kind, source);
    }
    Wanted { mount, volume }
}

/// Gives names to the volumes that are to be the copy's own; those whose content the checkpoint has are given with it.
pub(super) fn name_volumes<'a>(
    dir: &Path,
    origin: &'a Origin,
    record: &mut Record,
    wanted: &mut [Wanted],
) -> Result<Vec<(&'a SavedVolume, String)>> {
    let is_new = |wanted: &Wanted| wanted.volume.as_ref().is_some_and(|volume| volume.name.is_empty());
    let are_new: Vec<bool> = wanted.iter().map(is_new).collect();
    create::note_volumes(dir, wanted)?;
    let mut new: Vec<(&SavedVolume, String)> = Vec::new();
    for ((wanted, was), _) in
        wanted.iter_mut().zip(&origin.record.mounts).zip(are_new).filter(|(_, new)| *new)
    {
        let Some(volume) = &mut wanted.volume else { continue };
        let Some(saved) = origin.volumes.iter().find(|saved| saved.name == was.name) else { continue };
        match new.iter().find(|(known, _)| known.name == saved.name) {
            // In two places it is one volume.
            Some((_, name)) => volume.name.clone_from(name),
            None => new.push((saved, volume.name.clone())),
        }
        point_elsewhere(&mut record.host_config, &was.destination, "volume", &volume.name);
    }
    Ok(new)
}

/// Puts another source into what the host's configuration says of a mount.
fn point_elsewhere(host: &mut HostConfig, destination: &str, kind: &str, source: &str) {
    for bind in host.binds.iter_mut().flatten() {
        let mut words = bind.splitn(3, ':');
        let (Some(_), Some(at)) = (words.next(), words.next()) else { continue };
        if Path::new(at) == Path::new(destination) {
            let mode = words.next().map(|mode| format!(":{mode}")).unwrap_or_default();
            *bind = format!("{source}:{at}{mode}");
        }
    }
    for mount in &mut host.mounts {
        if Path::new(&mount.target) == Path::new(destination) {
            (mount.kind, mount.source) = (kind.to_owned(), source.to_owned());
        }
    }
}
