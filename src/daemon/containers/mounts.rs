//! What is mounted in a container: from the request to the running container and back.
//!
//! ```text
//!  create   wanted    requests and --volumes-from, checked          nothing is touched
//!           acquire   volumes made and held; sources known
//!           populate  what the image has there is copied into empty volumes
//!  start    begin     sources there, propagation possible, devices mounted
//!  end      end       the last user's devices unmounted
//!  remove   forget    volumes let go; the anonymous ones removed if asked for
//! ```
//!
//! Not here: the mount itself (`runtime::init`), the store (`daemon::volumes`).

mod parse;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::container::{Container, Record};
use super::rootfs;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir;
use crate::daemon::volumes::{LOCAL, Volume};
use crate::http::api::Class;
use crate::http::api::container::MountPoint;
use crate::http::api::volume::VolumeCreate;
use crate::runtime::{layer, mounts};

/// A mount as `container.json` has it: what `inspect` shows, and what it was asked for with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Mount {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// The volume's.
    pub name: String,
    /// On the host; empty for a tmpfs.
    pub source: String,
    pub destination: String,
    pub driver: String,
    /// As given.
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
    /// A volume nobody named: it may go with the container.
    pub is_anonymous: bool,
    /// An empty volume gets what the image has at the destination.
    pub is_copied: bool,
    /// What of the volume is shown; empty for all.
    pub subpath: String,
    /// Without what is mounted below the source.
    pub is_non_recursive: bool,
    /// Read-only, but not what is mounted below.
    pub is_read_only_once: bool,
    /// A missing source is made, as `-v` does.
    pub is_source_made: bool,
    /// A tmpfs's options.
    pub data: Vec<String>,
}

/// A mount that is asked for, and the volume it needs.
#[derive(Debug)]
pub struct Wanted {
    pub mount: Mount,
    pub volume: Option<VolumeCreate>,
}

impl Mount {
    /// As `inspect` and `ps` show it.
    pub fn shown(&self) -> MountPoint {
        MountPoint {
            kind: self.kind.clone(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: self.driver.clone(),
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        }
    }

    /// As the runtime's specification has it.
    pub fn options(&self) -> Vec<String> {
        let subpath = format!("X-mount.subdir={}", self.subpath);
        let mut words = vec![if self.is_non_recursive { "bind" } else { "rbind" }];
        words.push(if self.propagation.is_empty() { "rprivate" } else { &self.propagation });
        if !self.subpath.is_empty() {
            words.push(&subpath);
        }
        if !self.rw {
            words.push(if self.is_read_only_once || self.is_non_recursive { "ro" } else { "rro" });
        }
        words.into_iter().map(str::to_owned).collect()
    }
}

/// Everything the record asks to be mounted, each destination once: `--volumes-from`, then `-v` and
/// `--mount`, then what only names a destination and finds it free.
///
/// # Errors
/// InvalidParameter.
pub fn wanted(engine: &Engine, record: &Record) -> Result<Vec<Wanted>> {
    let host = &record.host_config;
    let mut all: Vec<Wanted> = Vec::new();
    for text in host.volumes_from.iter().flatten() {
        let (container, is_read_only) = parse::volumes_from(text)?;
        // Not NotFound: clients take that for a missing image.
        let other = engine.containers.get(container).map_err(|error| Error::invalid(error.message))?;
        for mount in other.record().mounts {
            if matches!(mount.kind.as_str(), "bind" | "volume") {
                let volume = (mount.kind == "volume")
                    .then(|| VolumeCreate { name: mount.name.clone(), ..VolumeCreate::default() });
                let rw = mount.rw && !is_read_only;
                let mode = String::new();
                put(&mut all, Wanted { mount: Mount { rw, mode, is_copied: false, ..mount }, volume });
            }
        }
    }
    let mut given: Vec<Wanted> = Vec::new();
    for text in host.binds.iter().flatten() {
        given.push(parse::bind(text, &host.volume_driver)?);
    }
    for request in &host.mounts {
        given.push(parse::request(request)?);
    }
    for destination in host.tmpfs.keys() {
        parse::destination_of(destination)
            .map_err(|why| Error::invalid(format!("invalid mount config for type \"tmpfs\": {why}")))?;
    }
    for (at, wanted) in given.iter().enumerate() {
        let destination = &wanted.mount.destination;
        let is_taken = given[..at].iter().any(|other| other.mount.destination == *destination)
            || host.tmpfs.contains_key(destination);
        if is_taken {
            return Err(Error::invalid(format!("Duplicate mount point: {destination}")));
        }
    }
    given.into_iter().for_each(|wanted| put(&mut all, wanted));
    for destination in record.config.volumes.iter().flatten().map(|(destination, _)| destination) {
        let wanted = parse::anonymous(destination, &host.volume_driver)?;
        let destination = &wanted.mount.destination;
        let is_taken = all.iter().any(|other| other.mount.destination == *destination)
            || host.tmpfs.contains_key(destination);
        if !is_taken {
            all.push(wanted);
        }
    }
    Ok(all)
}

/// Adds a mount in the place of one that has its destination.
fn put(all: &mut Vec<Wanted>, wanted: Wanted) {
    all.retain(|other| other.mount.destination != wanted.mount.destination);
    all.push(wanted);
}

/// Makes the volumes that are not there and holds all of them for the container.
///
/// # Errors
/// InvalidParameter for names, options and drivers that are none; nothing is held or made then.
pub fn acquire(engine: &Engine, record: &mut Record, wanted: Vec<Wanted>) -> Result<()> {
    for Wanted { mut mount, volume } in wanted {
        if let Some(request) = volume {
            // Compat: the class is not NotFound, which clients take for a missing image.
            let volume = engine
                .volumes
                .acquire(&engine.events, request, Some(&record.id), record.durability())
                .map_err(|error| match error.class {
                    Class::NotFound => Error::invalid(error.message),
                    _ => error,
                });
            let volume = match volume {
                Ok(volume) => volume,
                Err(error) => {
                    forget(engine, record, true);
                    return Err(error);
                }
            };
            mount.name.clone_from(&volume.name);
            mount.driver = LOCAL.to_owned();
            mount.source = volume.mountpoint().to_string_lossy().into_owned();
        }
        record.mounts.push(mount);
    }
    Ok(())
}

/// Lets the volumes go; `is_removing` removes those nobody named and nobody else has.
pub fn forget(engine: &Engine, record: &Record, is_removing: bool) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        engine.volumes.release(&mount.name, &record.id);
    }
    let anonymous = record.mounts.iter().filter(|mount| mount.kind == "volume" && mount.is_anonymous);
    for mount in anonymous.filter(|_| is_removing) {
        match engine.volumes.remove(&engine.events, &mount.name, true) {
            Ok(()) => {}
            // Another container has it.
            Err(error) if error.class == Class::Conflict => {}
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// Copies what the image has at a volume's destination into the volume, if that is empty: content, owners,
/// modes, times, attributes. Blocks for as long as the copy takes.
///
/// # Errors
/// InvalidParameter for a volume over a file of the image; System when the copy fails.
pub fn populate(engine: &Engine, container: &Container) -> Result<()> {
    let record = container.record();
    let copied: Vec<&Mount> =
        record.mounts.iter().filter(|mount| mount.kind == "volume" && mount.is_copied).collect();
    if copied.is_empty() {
        return Ok(());
    }
    let _used = use_volumes(engine, &record, "copy")?;
    let mut empty = Vec::new();
    for mount in copied {
        if is_empty(Path::new(&mount.source))? {
            empty.push(mount);
        }
    }
    if empty.is_empty() {
        return Ok(());
    }
    let image = rootfs::below(engine, container, &record)?;
    empty.into_iter().try_for_each(|mount| copy_up(image.as_fd(), mount, Path::new(&mount.source)))
}

/// The volumes of a container, in use until this is dropped.
pub struct Used {
    volumes: Vec<Arc<Volume>>,
    user: String,
}

impl Drop for Used {
    fn drop(&mut self) {
        for volume in &self.volumes {
            volume.unmount(&self.user);
        }
    }
}

/// Has the devices of a container's volumes mounted that does not run, for `purpose`. No event tells of it.
///
/// # Errors
/// As [`Volume::mount`].
pub fn use_volumes(engine: &Engine, record: &Record, purpose: &str) -> Result<Used> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut used = Used { volumes: Vec::new(), user: format!("{purpose}-{number}") };
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let volume = engine.volumes.get(&mount.name)?;
        volume.mount(&used.user)?;
        used.volumes.push(volume);
    }
    Ok(used)
}

fn is_empty(dir: &Path) -> Result<bool> {
    let mut entries =
        std::fs::read_dir(dir).map_err(|cause| Error::system(format!("read volume {dir:?}"), cause))?;
    Ok(entries.next().is_none())
}

fn copy_up(root: BorrowedFd<'_>, mount: &Mount, into: &Path) -> Result<()> {
    let destination = &mount.destination;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found = rustix::fs::openat2(root, destination.as_str(), flags, Mode::empty(), resolve);
    let from = match found {
        Ok(from) => from,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        Err(errno) => {
            return Err(Error::system(
                format!("find {destination:?} in the image"),
                std::io::Error::from(errno),
            ));
        }
    };
    let stat = rustix::fs::fstat(&from)
        .map_err(|errno| Error::system(format!("look at {destination:?}"), std::io::Error::from(errno)))?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::Directory {
        return Err(Error::invalid(format!(
            "cannot mount volume over existing file, file exists {destination}"
        )));
    }
    layer::copy(&from, into)
        .map_err(|error| Error::system(format!("copy {destination:?} into volume {:?}", mount.name), error))
}

/// Makes everything ready that the container's start will mount, and says so: events, devices, checks.
///
/// # Errors
/// NotFound for a volume that is gone, InvalidParameter for a device that cannot be mounted or a propagation
/// the source does not allow. Nothing is in use then.
pub fn begin(engine: &Engine, record: &Record) -> Result<()> {
    let result = record.mounts.iter().try_for_each(|mount| begin_one(engine, record, mount));
    if result.is_err() {
        end(engine, record);
    }
    result
}

fn begin_one(engine: &Engine, record: &Record, mount: &Mount) -> Result<()> {
    match mount.kind.as_str() {
        "volume" => {
            let is_new = engine.volumes.get(&mount.name)?.mount(&record.id)?;
            if is_new {
                let attributes = [
                    ("container", record.id.clone()),
                    ("destination", mount.destination.clone()),
                    ("driver", mount.driver.clone()),
                    ("propagation", mount.propagation.clone()),
                    ("read/write", mount.rw.to_string()),
                ];
                tell(engine, "mount", mount, attributes);
            }
        }
        "bind" => {
            let source = Path::new(&mount.source);
            if std::fs::symlink_metadata(source).is_err() {
                if !mount.is_source_made {
                    return Err(Error::invalid(format!(
                        "invalid mount config for type \"bind\": bind source path does not exist: {}",
                        mount.source
                    )));
                }
                state_dir::make_dir(source, 0o755)?;
            }
            check_propagation(mount)?;
        }
        _ => {}
    }
    Ok(())
}

/// The propagation a mount asks for needs a source that takes part in it. Docker's texts.
fn check_propagation(mount: &Mount) -> Result<()> {
    let (is_shared, is_slave) = match mount.propagation.as_str() {
        "shared" | "rshared" => (true, false),
        "slave" | "rslave" => (false, true),
        _ => return Ok(()),
    };
    let mounted = mounts::list()?;
    let source = mounts::resolved(Path::new(&mount.source));
    let Some(holder) = mounts::holding(&mounted, &source) else { return Ok(()) };
    let refuse = |what: &str| {
        Error::invalid(format!(
            "path {} is mounted on {} but it is not a {what} mount",
            mount.source, holder.destination
        ))
    };
    if is_shared && !holder.is_shared {
        return Err(refuse("shared"));
    }
    if is_slave && !holder.is_shared && !holder.is_slave {
        return Err(refuse("shared or slave"));
    }
    Ok(())
}

/// Says that the container no longer uses its volumes; those it did not use are fine.
pub fn end(engine: &Engine, record: &Record) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        let Ok(volume) = engine.volumes.get(&mount.name) else { continue };
        if volume.unmount(&record.id) {
            let attributes = [("container", record.id.clone()), ("driver", mount.driver.clone())];
            tell(engine, "unmount", mount, attributes);
        }
    }
}

fn tell<const COUNT: usize>(
    engine: &Engine,
    action: &str,
    mount: &Mount,
    attributes: [(&str, String); COUNT],
) {
    let attributes: BTreeMap<String, String> =
        attributes.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    engine.events.publish("volume", action, &mount.name, attributes);
}

/// What a starting daemon reads from a container's record: which volumes it has, and uses.
pub fn restore(engine: &Engine, record: &Record, is_running: bool) {
    for mount in record.mounts.iter().filter(|mount| mount.kind == "volume") {
        if let Err(error) = engine.volumes.restore(&mount.name, &record.id, is_running) {
            log::error!("container {:?} has a volume that is not there: {error}", record.name);
        }
    }
}
