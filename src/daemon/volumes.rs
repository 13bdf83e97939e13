//! The volume store: storage with a name of its own, that outlives the containers it is mounted in.
//!
//! ```text
//! data-root/volumes/
//!   <name>/volume.json   what it was made from
//!   <name>/_data/        what containers see; a mount point when the options name a device
//!   .new-<id>/           being made      (a crash leaves these: swept)
//!   .gone-<id>/          being removed
//! ```
//!
//! A volume appears and goes by one rename, so its name means a whole volume or none. Which containers have
//! it is told by [`Volumes::acquire`] and [`Volumes::release`] and is not on disk here: the containers'
//! own records say it, and a starting daemon reads them. A *user* is a container that runs with it: the
//! first brings the device's mount, the last takes it away.
//!
//! [`replace`] exchanges the content of a volume for that of a checkpoint.
//!
//! Locks: a volume's `users` is held across mount(2), which may hang with a dead server, and then only that
//! volume hangs; `links` and the index are short. Order: `users` → `reserved`, `users` → `links` → index.
//!
//! [`local`] is the one driver, [`list`](mod@list) the filters and prune, [`usage`] the sizes.

mod list;
mod local;
mod replace;
mod usage;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::events::Bus;
use super::names;
use super::state_dir::{self, Durability};
use crate::http::api::Class;
use crate::http::api::volume::{Volume as Shown, VolumeCreate};
use crate::runtime::mounts;

/// The only driver.
pub const LOCAL: &str = "local";
pub use replace::Replaced;
pub use usage::bytes_below;

/// On every volume that was not given a name; what `volume prune` goes by. Source: Docker.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// NAME_MAX.
const MAX_NAME_BYTES: usize = 255;

/// All volumes.
#[derive(Debug)]
pub struct Volumes {
    dir: PathBuf,
    index: Mutex<BTreeMap<String, Arc<Volume>>>,
}

/// One volume.
#[derive(Debug)]
pub struct Volume {
    pub name: String,
    dir: PathBuf,
    record: Record,
    links: Mutex<Links>,
    /// The running containers that have it.
    users: Mutex<BTreeSet<String>>,
    /// The only one that may begin to use it, while its content is exchanged.
    reserved: Mutex<Option<String>>,
}

/// `volume.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    name: String,
    /// UTC, RFC 3339.
    created: String,
    labels: Option<BTreeMap<String, String>>,
    options: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default)]
struct Links {
    /// Ids of the containers that have it, running or not.
    containers: BTreeSet<String>,
    /// Removed: whoever still holds the `Arc` looks again.
    is_gone: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is changed by single insertions and removals: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volumes {
    /// Opens the store and sweeps what was half made or half removed. A volume whose record cannot be read
    /// costs that volume only.
    pub fn open(dir: &Path) -> Result<Volumes> {
        state_dir::make_dir(dir, 0o701)?;
        let entries =
            fs::read_dir(dir).map_err(|cause| Error::system(format!("list volumes in {dir:?}"), cause))?;
        let mut index = BTreeMap::new();
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(".new-") || name.starts_with(".gone-") {
                if let Err(error) = state_dir::remove_tree(&path) {
                    log::warn!("{error}");
                }
                continue;
            }
            match state_dir::load::<Record>(&path.join("volume.json")) {
                Ok(record) if record.name == name => {
                    index.insert(name, Arc::new(Volume::new(path, record)));
                }
                Ok(record) => log::error!("{path:?} is left out: its record is of {:?}", record.name),
                Err(error) => log::error!("volume {name:?} is left out: {error}"),
            }
        }
        Ok(Volumes { dir: dir.to_owned(), index: Mutex::new(index) })
    }

    /// The volume of this name. Docker's text when there is none.
    pub fn get(&self, name: &str) -> Result<Arc<Volume>> {
        let found = lock(&self.index).get(name).cloned();
        found.ok_or_else(|| Error::not_found(format!("get {name}: no such volume")))
    }

    /// Every volume, by name.
    fn all(&self) -> Vec<Arc<Volume>> {
        lock(&self.index).values().cloned().collect()
    }

    /// Makes a volume, or gives the one that has the name already.
    ///
    /// Compat: as with Docker, options and labels that differ from the existing volume's are not looked at.
    ///
    /// # Errors
    /// InvalidParameter for names and options that are none, NotFound for an unknown driver.
    pub fn create(&self, events: &Bus, request: VolumeCreate) -> Result<Arc<Volume>> {
        self.acquire(events, request, None, Durability::Synced)
    }

    /// As [`create`](Volumes::create), for the container `holder`: the volume cannot be removed before it is
    /// [released](Volumes::release).
    pub fn acquire(
        &self,
        events: &Bus,
        request: VolumeCreate,
        holder: Option<&str>,
        durability: Durability,
    ) -> Result<Arc<Volume>> {
        let (name, mut labels) = (request.name, request.labels);
        let is_anonymous = name.is_empty();
        let name = if is_anonymous { names::new_id()? } else { name };
        if is_anonymous {
            labels.get_or_insert_default().insert(ANONYMOUS.to_owned(), String::new());
        }
        let attempt = |error: Error| error.during(format!("create {name}"));
        if !matches!(request.driver.as_str(), "" | LOCAL) {
            return Err(attempt(unknown_driver(&request.driver)));
        }
        loop {
            let found = lock(&self.index).get(&name).cloned();
            if let Some(volume) = found {
                if volume.link(holder) {
                    return Ok(volume);
                }
                // Its removal is about to take it out of the index.
                std::thread::yield_now();
                continue;
            }
            check_name(&name).map_err(attempt)?;
            let options = request.driver_opts.clone();
            local::check(options.as_ref()).map_err(attempt)?;
            let created = format!("{:.0}", jiff::Timestamp::now());
            let record = Record { name: name.clone(), created, labels: labels.clone(), options };
            // Held while it is made: of two that want the name at once, the other finds it.
            let mut index = lock(&self.index);
            if index.contains_key(&name) {
                continue;
            }
            let volume = Arc::new(Volume::new(self.dir.join(&name), record));
            self.write(&volume, durability).map_err(attempt)?;
            volume.link(holder);
            index.insert(name.clone(), Arc::clone(&volume));
            drop(index);
            let attributes = BTreeMap::from([("driver".to_owned(), LOCAL.to_owned())]);
            events.publish("volume", "create", &name, attributes);
            return Ok(volume);
        }
    }

    /// Puts a volume on disk: whole under its name, or not at all.
    fn write(&self, volume: &Volume, durability: Durability) -> Result<()> {
        let new = self.dir.join(format!(".new-{}", names::new_id()?));
        let make = || -> Result<()> {
            state_dir::make_dir(&new, 0o701)?;
            state_dir::make_dir(&new.join("_data"), 0o755)?;
            state_dir::save(&new.join("volume.json"), &volume.record, durability)?;
            fs::rename(&new, &volume.dir)
                .and_then(|()| match durability {
                    Durability::Synced => File::open(&self.dir)?.sync_data(),
                    Durability::Renamed => Ok(()),
                })
                .map_err(|cause| Error::system(format!("rename {new:?} to {:?}", volume.dir), cause))
        };
        let made = make();
        if made.is_err() {
            // The first failure is the one to tell; the next start sweeps what stays.
            let _ = state_dir::remove_tree(&new);
        }
        made
    }

    /// Says that container `holder` has the volume; for a starting daemon, which reads it from its record.
    pub fn restore(&self, name: &str, holder: &str, is_running: bool) -> Result<()> {
        let volume = self.get(name)?;
        volume.link(Some(holder));
        if is_running {
            lock(&volume.users).insert(holder.to_owned());
        }
        Ok(())
    }

    /// Says that container `holder` no longer has the volume.
    pub fn release(&self, name: &str, holder: &str) {
        if let Ok(volume) = self.get(name) {
            lock(&volume.links).containers.remove(holder);
        }
    }

    /// Takes away the mounts of volumes that nobody uses: their users ended while no daemon looked.
    pub fn sweep(&self) {
        for volume in self.all() {
            let users = lock(&volume.users);
            if users.is_empty()
                && volume.has_device()
                && let Err(error) = mounts::unmount(&volume.mountpoint())
            {
                log::warn!("{error}");
            }
        }
    }

    /// Removes a volume and what is in it.
    ///
    /// # Errors
    /// NotFound, unless `force`; Conflict when a container has it, running or not.
    pub fn remove(&self, events: &Bus, name: &str, force: bool) -> Result<()> {
        let volume = match self.get(name) {
            Err(error) if force && error.class == Class::NotFound => return Ok(()),
            other => other?,
        };
        self.remove_volume(events, &volume)
    }

    fn remove_volume(&self, events: &Bus, volume: &Arc<Volume>) -> Result<()> {
        let name = &volume.name;
        let attempt = |error: Error| error.during(format!("remove {name}"));
        let mut links = lock(&volume.links);
        if links.is_gone {
            return Err(Error::not_found(format!("get {name}: no such volume")));
        }
        if !links.containers.is_empty() {
            let ids: Vec<&str> = links.containers.iter().map(String::as_str).collect();
            return Err(Error::conflict(format!("remove {name}: volume is in use - [{}]", ids.join(", "))));
        }
        volume.clear_mounts().map_err(attempt)?;
        let gone = self.dir.join(format!(".gone-{}", names::new_id()?));
        fs::rename(&volume.dir, &gone)
            .or_else(|cause| if cause.kind() == ErrorKind::NotFound { Ok(()) } else { Err(cause) })
            .map_err(|cause| attempt(Error::system(format!("rename {:?}", volume.dir), cause)))?;
        links.is_gone = true;
        lock(&self.index).remove(name);
        drop(links);
        let removed = state_dir::remove_tree(&gone).map_err(attempt);
        events.publish("volume", "destroy", name, BTreeMap::from([("driver".to_owned(), LOCAL.to_owned())]));
        removed
    }
}

impl Volume {
    fn new(dir: PathBuf, record: Record) -> Volume {
        let name = record.name.clone();
        Volume {
            name,
            dir,
            record,
            links: Mutex::default(),
            users: Mutex::default(),
            reserved: Mutex::default(),
        }
    }

    /// Where its content is on the host.
    pub fn mountpoint(&self) -> PathBuf {
        self.dir.join("_data")
    }

    /// Notes that `holder` has it; false when it was removed meanwhile.
    fn link(&self, holder: Option<&str>) -> bool {
        let mut links = lock(&self.links);
        if !links.is_gone {
            links.containers.extend(holder.map(str::to_owned));
        }
        !links.is_gone
    }

    fn is_anonymous(&self) -> bool {
        self.record.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }

    fn has_device(&self) -> bool {
        self.record.options.as_ref().is_some_and(|options| options.contains_key("device"))
    }

    /// As the API shows it.
    pub fn shown(&self) -> Shown {
        Shown {
            created_at: self.record.created.clone(),
            driver: LOCAL.to_owned(),
            labels: self.record.labels.clone(),
            mountpoint: self.mountpoint().to_string_lossy().into_owned(),
            name: self.name.clone(),
            options: self.record.options.clone(),
            scope: "local".to_owned(),
            usage_data: None,
        }
    }

    /// Makes the content reachable for `user`; false when it was already for this one. The first one
    /// mounts the device the options name.
    ///
    /// # Errors
    /// InvalidParameter when the device cannot be mounted: it and its options are the caller's. Conflict while its
    /// content is exchanged for somebody else.
    pub fn mount(&self, user: &str) -> Result<bool> {
        let mut users = lock(&self.users);
        if lock(&self.reserved).as_ref().is_some_and(|by| by != user) {
            return Err(Error::conflict(format!(
                "volume {} is being brought back from a checkpoint",
                self.name
            )));
        }
        if users.is_empty() && self.has_device() {
            let at = self.mountpoint();
            local::mount(self.record.options.as_ref(), &at)
                .map_err(|error| error.during(format!("error while mounting volume '{}'", at.display())))?;
        }
        Ok(users.insert(user.to_owned()))
    }

    /// Says that `user` no longer uses it; false when it did not. The last one takes the mount away.
    pub fn unmount(&self, user: &str) -> bool {
        let mut users = lock(&self.users);
        let was_used = users.remove(user);
        if was_used
            && users.is_empty()
            && self.has_device()
            && let Err(error) = mounts::unmount(&self.mountpoint())
        {
            log::warn!("{error}");
        }
        was_used
    }

    /// Before its removal: nothing may be mounted in it that would be emptied too.
    fn clear_mounts(&self) -> Result<()> {
        if self.has_device() {
            mounts::unmount(&self.mountpoint())?;
        }
        let mounted = mounts::list()?;
        match mounted.iter().find(|mount| Path::new(&mount.destination).starts_with(&self.dir)) {
            None => Ok(()),
            Some(mount) => Err(Error::conflict(format!("something is mounted on {}", mount.destination))),
        }
    }
}

/// Docker's text. NotFound: nobody asks for a volume's driver by pulling it.
pub fn unknown_driver(name: &str) -> Error {
    Error::not_found(format!("error looking up volume plugin {name}: plugin \"{name}\" not found"))
}

fn check_name(name: &str) -> Result<()> {
    if name.len() == 1 {
        return Err(Error::invalid(
            "volume name is too short, names should be at least two alphanumeric characters",
        ));
    }
    if !names::is_name(name) {
        return Err(Error::invalid(format!(
            "{name:?} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        )));
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(Error::invalid(format!("the name is longer than {MAX_NAME_BYTES} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
