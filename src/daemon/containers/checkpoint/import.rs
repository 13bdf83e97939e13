//! A new container out of a checkpoint's archive: it does not run, and has this checkpoint.
//!
//! ```text
//!  incoming/                        the archive's files, verified          nobody knows of it
//!  volumes, checkpoints/NAME, rw-0  what belongs to the container          still nobody
//!  container.json                   it is there, whole
//! ```
//!
//! A failure before the last step leaves nothing; what a daemon that died left is swept by the next one, as that of
//! any creation that was cut off (`create::undo`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::sync::Arc;

use super::archive::{self, Header};
use super::manifest::{self, MANIFEST, Manifest};
use super::{check_runtime, passes, podman, preflight};
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::containers::create::{self, now};
use crate::daemon::containers::mounts::{self, Mount, Wanted};
use crate::daemon::containers::{network, spec, state::State};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::{ImageId, Reference, codec};
use crate::daemon::names::{self, CheckpointId};
use crate::daemon::networks::ports::Ports;
use crate::daemon::registry::Client;
use crate::daemon::state_dir::{self, Durability};
use crate::http::api::checkpoint::CheckpointImported;
use crate::http::api::container::NetworkingConfig;
use crate::http::api::volume::VolumeCreate;

/// Where the archive's files are until the container is made.
const INCOMING: &str = "incoming";

/// What an import is asked for with.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Empty for the name it had.
    pub name: String,
    /// It may ask for what is the host's, and bring credentials that its configuration does not have.
    pub trust: bool,
    /// An image that is not here is pulled.
    pub pull: bool,
}

/// What has to be given back if the import fails.
struct Undo<'a> {
    engine: &'a Engine,
    id: String,
    name: String,
    /// Volumes that are held for it, and whether they were made for it.
    volumes: Vec<(String, bool)>,
    is_done: bool,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        if !self.name.is_empty() {
            self.engine.containers.release(&self.name);
        }
        for (volume, is_made) in &self.volumes {
            self.engine.volumes.release(volume, &self.id);
            if !is_made || self.engine.volumes.get(volume).is_err() {
                continue;
            }
            if let Err(error) = self.engine.volumes.remove(&self.engine.events, volume, true) {
                log::warn!("{error}");
            }
        }
        // The first failure is the one to tell; what cannot be removed now is swept at the next start.
        let _ = state_dir::remove_tree(&self.engine.state_dir.container(&self.id));
    }
}

/// Makes a container out of an archive, plain or compressed. Blocks as long as it comes.
///
/// # Errors
/// InvalidParameter for an archive that is damaged; NotFound for an image that is not here; Conflict for a name that
/// is taken, for what does not fit this machine, and for what needs trust.
pub fn import(engine: &Arc<Engine>, stream: impl Read, request: &Import) -> Result<CheckpointImported> {
    let attempt = "Cannot import the checkpoint";
    take(engine, stream, request).map_err(|error| error.during(attempt))
}

fn take(engine: &Arc<Engine>, stream: impl Read, request: &Import) -> Result<CheckpointImported> {
    let id = names::new_id()?;
    let dir = engine.state_dir.container(&id);
    let mut undo = Undo { engine, id: id.clone(), name: String::new(), volumes: Vec::new(), is_done: false };
    let incoming = dir.join(INCOMING);
    state_dir::make_dir(&dir, 0o710)?;
    state_dir::make_dir(&incoming, 0o700)?;
    let mut record = Record::default();
    let mut begin = |header: &Header| -> Result<()> {
        record = begin(engine, &header.manifest, request, &id)?;
        engine.containers.reserve(&record.name, &id)?;
        undo.name.clone_from(&record.name);
        Ok(())
    };
    let (is_own, stream) = archive::look(codec::decompress(stream)?)?;
    let (header, mut warnings) = match is_own {
        true => (archive::read(stream, &incoming, &mut begin)?, Vec::new()),
        false => podman::read(engine, stream, &incoming, request, &mut begin)?,
    };
    let mut manifest = header.manifest;
    let checkpoint = CheckpointId::parse(&manifest.name)?;

    let was = manifest.record.as_deref().cloned().unwrap_or_default();
    let mut wanted: Vec<Wanted> = was.mounts.iter().map(wanted).collect();
    create::note_volumes(&dir, &mut wanted)?;
    // By the name it had: the name it has, and whether it was here before.
    let mut renamed = BTreeMap::new();
    for (wanted, was) in wanted.iter().zip(&was.mounts) {
        let Some(volume) = &wanted.volume else { continue };
        let is_known = engine.volumes.get(&volume.name).is_ok();
        renamed.insert(was.name.clone(), (volume.name.clone(), is_known));
    }
    undo.volumes = renamed.values().map(|(name, is_known)| (name.clone(), !is_known)).collect();
    mounts::acquire(engine, &mut record, wanted)?;
    for saved in &mut manifest.volumes {
        let (name, is_known) = renamed.get(&saved.name).cloned().ok_or_else(|| {
            Error::invalid(format!(
                "it brings the content of volume {}, which its container does not have",
                saved.name
            ))
        })?;
        if is_known {
            warnings.push(format!(
                "volume {name} was here already: start --checkpoint exchanges its content, unless --keep-volumes"
            ));
        } else {
            passes::unpack(&incoming, &saved.file, &engine.volumes.get(&name)?.mountpoint())?;
        }
        saved.name = name;
    }
    // What it says of its mounts is to be true of the next export, too.
    for mount in manifest.record.iter_mut().flat_map(|record| &mut record.mounts) {
        if let Some((name, _)) = renamed.get(&mount.name).filter(|_| mount.kind == "volume") {
            mount.name.clone_from(name);
        }
    }
    manifest.needs.volumes = manifest.volumes.iter().map(|volume| volume.name.clone()).collect();
    manifest.boot_id = manifest::boot_id();
    preflight::check(engine, &record, &incoming, &manifest, request.trust)?;
    state_dir::save(&incoming.join(MANIFEST), &manifest, Durability::Synced)?;

    let checkpoints = dir.join("checkpoints");
    state_dir::make_dir(&checkpoints, 0o700)?;
    let published = checkpoints.join(checkpoint.as_str());
    fs::rename(&incoming, &published)
        .map_err(|cause| Error::system(format!("rename {incoming:?} to {published:?}"), cause))?;
    let container = Arc::new(Container::new(dir, record));
    let upper = container.layer_dir(0).join("upper");
    state_dir::make_dir(&upper, 0o755)?;
    passes::unpack(&published, passes::ROOTFS, &upper)?;
    // With this it is there.
    create::write(engine, &container)?;
    undo.is_done = true;
    drop(undo);
    let _ = fs::remove_file(container.dir.join(create::PENDING));
    engine.containers.insert(Arc::clone(&container));
    let record = container.record();
    engine.events.publish("container", "create", &id, record.event_attributes());
    Ok(CheckpointImported { id, name: record.name, checkpoint: checkpoint.to_string(), warnings })
}

/// The record of a container that is to be, checked as far as it can be before anything is made.
fn begin(engine: &Engine, manifest: &Manifest, request: &Import, id: &str) -> Result<Record> {
    CheckpointId::parse(&manifest.name)?;
    let was = manifest.record.as_deref();
    let was = was.ok_or_else(|| Error::invalid("it does not say what its container was"))?;
    let image = ImageId::parse(&was.image_id).filter(|_| was.image_id == manifest.image_id);
    let image = image.ok_or_else(|| Error::invalid("it does not say which image its container has"))?;
    if engine.images.get(&image).is_err() && request.pull {
        pull(engine, &manifest.image)?;
        engine.images.get(&image).map_err(|_| {
            Error::conflict(format!(
                "it was taken over image {image}, and {} is another one by now",
                manifest.image
            ))
        })?;
    }
    engine.images.get(&image).map_err(|_| no_image(&manifest.image, &was.image_id))?;
    let mut record = Record {
        id: id.to_owned(),
        created: now(),
        image_id: was.image_id.clone(),
        path: was.path.clone(),
        args: was.args.clone(),
        config: was.config.clone(),
        host_config: was.host_config.clone(),
        state: State::Created,
        ..Record::default()
    };
    record.host_config.container_id_file.clear();
    let asked = wishes(engine, was);
    if !request.trust && !asked.is_empty() {
        return Err(Error::conflict(format!(
            "its container asks for what is this host's: {}; --trust gives it that",
            asked.join(", ")
        )));
    }
    check_runtime(engine, &record)?;
    let endpoints = was.networks.iter().map(|(name, place)| (name.clone(), place.asked.clone()));
    let given = NetworkingConfig { endpoints_config: endpoints.collect() };
    record.networks = network::places(engine, &record.host_config, &record.config, given)?;
    Ports::wishes(&record.host_config, &record.config.exposed_ports)?;
    record.mounts.clone_from(&was.mounts);
    spec::validate(&record)?;
    record.mounts.clear();
    let name = if request.name.is_empty() { &manifest.container_name } else { &request.name };
    names::container_name(name)?.clone_into(&mut record.name);
    Ok(record)
}

/// Pulls the image a checkpoint was taken over.
///
/// # Errors
/// What the registry says.
pub fn pull(engine: &Engine, name: &str) -> Result<()> {
    let attempt = || format!("pull its image {name:?}");
    let reference = Reference::parse(name).map_err(|error| error.during(attempt()))?.with_default_tag();
    let pulled = engine.pull(reference, None, &Client::default(), &mut |_| ());
    pulled.map(drop).map_err(|error| error.during(attempt()))
}

/// The refusal of a checkpoint whose image is not here.
pub fn no_image(name: &str, id: &str) -> Error {
    let (name, remedy) = match name {
        "" => ("without a name", "load it first"),
        name => (name, "--pull pulls it, or load it first"),
    };
    Error::not_found(format!("it was taken over image {name} ({id}), which is not here: {remedy}"))
}

/// What of the host a container is configured to have.
fn wishes(engine: &Engine, record: &Record) -> Vec<String> {
    let host = &record.host_config;
    let mut wishes = Vec::new();
    if host.privileged {
        wishes.push("all privileges".to_owned());
    }
    let binds = record.mounts.iter().filter(|mount| mount.kind == "bind");
    wishes.extend(binds.map(|mount| format!("its {}", mount.source)));
    // A volume that nobody has yet becomes the container's own; one that is here is somebody's.
    let volumes = record.mounts.iter().filter(|mount| {
        mount.kind == "volume" && !mount.is_anonymous && engine.volumes.get(&mount.name).is_ok()
    });
    wishes.extend(volumes.map(|mount| format!("the content of volume {}", mount.name)));
    let modes = [
        ("network", &host.network_mode),
        ("processes", &host.pid_mode),
        ("IPC", &host.ipc_mode),
        ("hostname", &host.uts_mode),
        ("cgroups", &host.cgroupns_mode),
    ];
    for (what, mode) in modes {
        if mode == "host" {
            wishes.push(format!("its {what}"));
        } else if mode.starts_with("container:") {
            wishes.push(format!("the {what} of {mode}"));
        }
    }
    let lists = [("capability", &host.cap_add), ("security option", &host.security_opt)];
    for (what, list) in lists {
        let more = list.iter().flatten().filter(|item| !item.starts_with("no-new-privileges"));
        wishes.extend(more.map(|item| format!("{what} {item}")));
    }
    if !host.resources.cgroup_parent.is_empty() {
        wishes.push(format!("cgroup {}", host.resources.cgroup_parent));
    }
    if host.oom_score_adj < 0 {
        wishes.push(format!("OOM score adjustment {}", host.oom_score_adj));
    }
    wishes.extend(host.resources.devices.iter().map(|device| format!("device {}", device.path_on_host)));
    wishes.extend(host.resources.device_cgroup_rules.iter().flatten().map(|rule| format!("devices {rule}")));
    if host.masked_paths.is_some() || host.readonly_paths.is_some() {
        wishes.push("more of /proc and /sys than others see".to_owned());
    }
    wishes
}

/// A mount that the container had. A volume nobody named has a new one in its place.
fn wanted(was: &Mount) -> Wanted {
    let mount = Mount { is_copied: false, ..was.clone() };
    let volume = (mount.kind == "volume").then(|| VolumeCreate {
        name: if mount.is_anonymous { String::new() } else { mount.name.clone() },
        ..VolumeCreate::default()
    });
    Wanted { mount, volume }
}
