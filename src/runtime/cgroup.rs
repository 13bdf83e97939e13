//! Control groups: one [`Cgroup`] per container, in whichever version the host mounts.
//!
//! In: a path (`/dewar/<id>`, relative to every mount) and the specification's resources. A cgroup is a
//! directory of the same name in each v1 hierarchy and in the cgroup2 mount; a hybrid host has both, and a
//! process belongs to all of them. The value holds nothing open: it can be stored, sent and made again from
//! its path.
//!
//! ```text
//!   create ─► enter_self (child) ─► update, freeze, thaw, stats … ─► kill_all ─► remove
//!             └ Entrance: the same, opened beforehand by the parent
//! ```
//!
//! Invariants: a directory that already has our name is reused only when no process is in it, and then is
//! made anew, so that no stale limit survives; a device policy that cannot be enforced is an error, any
//! other limit the kernel lacks is a warning in Docker's words.
//!
//! Elsewhere: detection (`layout`), conversion of limits (`limits`), device policy (`devices`), entering and
//! killing (`processes`), freezing (`freezer`), counters (`stats`), OOM notices (`oom`), directories (`tree`),
//! the mounts a container sees (`view`), mounting them on a
//! bare host (`mount`).
//!
//! Source: cgroups(7); kernel Documentation/admin-guide/cgroup-v1, cgroup-v2.rst.

mod devices;
mod freezer;
mod layout;
mod limits;
mod mount;
mod oom;
mod processes;
mod stats;
mod tree;
mod undo;
mod view;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::devices::{can_restrict, default_device_rules};
pub use self::layout::{Layout, ROOT, Version};
use self::limits::{Controller, Current};
pub use self::mount::{can_mount, ensure_mounted};
pub use self::oom::OomNotifier;
pub use self::stats::{BlkioEntry, CpuStats, Stats};
use self::tree::{children, enable_controllers, make_cpuset, make_dir, remove_tree};
pub use self::undo::Undo;
pub use self::view::{Features, Namespace, features, features_of, view};
use super::{Cause, Error, spec};

/// Longest wait for a cgroup to be free of dying processes.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Below every mount, with a leading slash.
    path: String,
    layout: Layout,
}

fn failed(op: &str, path: &Path, error: io::Error) -> Error {
    Error { op: op.to_owned(), object: path.display().to_string(), cause: Cause::Io(error) }
}

fn refused(op: &str, object: &str, cause: &str) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Refused(cause.to_owned()) }
}

/// Writes a cgroup file in one write(2), as the kernel wants it; never creates one.
fn put(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Reads a number; `max` and "unlimited by overflow" are `u64::MAX`.
fn number(path: &Path) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    match text.trim() {
        "max" => Ok(u64::MAX),
        text => text.parse().map_err(|_| io::ErrorKind::InvalidData.into()),
    }
}

/// The value of `key` in a file of `key value` lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Cgroup {
    /// Makes the cgroup `path` with these limits and this device policy on this host.
    ///
    /// # Errors
    /// When a process is in a cgroup of that name, a limit is refused by the kernel, or the device policy
    /// cannot be enforced. What was made is removed again.
    pub fn create(path: &str, resources: &spec::Resources) -> Result<Cgroup, Error> {
        Cgroup::create_in(Layout::host()?, path, resources)
    }

    /// As [`Cgroup::create`], below the given mounts.
    pub fn create_in(layout: &Layout, path: &str, resources: &spec::Resources) -> Result<Cgroup, Error> {
        let cgroup = Cgroup::open_in(layout, path)?;
        // Asked first, since a failure further down removes what is there.
        if !cgroup.pids()?.is_empty() {
            return Err(refused("create cgroup", path, "it exists and has processes"));
        }
        let made = cgroup.make_dirs().and_then(|()| cgroup.apply(resources, None));
        match made {
            // Nobody waits for what a limit could not do; the host's abilities are in its info.
            Ok(_) => Ok(cgroup),
            Err(error) => {
                // The first failure is the one to report. Nobody has entered: nothing to wait for.
                let _ = cgroup.remove_until(Instant::now());
                Err(error)
            }
        }
    }

    /// Names an existing cgroup of this host. Nothing is looked up.
    pub fn open(path: &str) -> Result<Cgroup, Error> {
        Cgroup::open_in(Layout::host()?, path)
    }

    /// As [`Cgroup::open`], below the given mounts.
    pub fn open_in(layout: &Layout, path: &str) -> Result<Cgroup, Error> {
        let sound = path.starts_with('/')
            && path.len() > 1
            && path[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !sound {
            return Err(refused("open cgroup", &format!("\"{path}\""), "not a clean absolute path"));
        }
        Ok(Cgroup { path: path.to_owned(), layout: layout.clone() })
    }

    /// Below every mount: `/dewar/<id>`.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn below(&self, mount: &Path) -> PathBuf {
        mount.join(&self.path[1..])
    }

    fn v1_dir(&self, controller: &str) -> Option<PathBuf> {
        let hierarchy = self.layout.v1.iter().find(|h| h.has(controller))?;
        Some(self.below(&hierarchy.mount))
    }

    fn v2_dir(&self) -> Option<PathBuf> {
        self.layout.v2.as_deref().map(|mount| self.below(mount))
    }

    fn dirs(&self) -> impl Iterator<Item = PathBuf> {
        self.layout.mounts().map(|mount| self.below(mount))
    }

    /// Where the files of `controller` (v1's name) are. On v2 all are in one place, enabled or not.
    fn home(&self, controller: &str) -> Option<(Version, PathBuf)> {
        if let Some(dir) = self.v1_dir(controller) {
            return Some((Version::V1, dir));
        }
        self.v2_dir().map(|dir| (Version::V2, dir))
    }

    fn make_dirs(&self) -> Result<(), Error> {
        for hierarchy in &self.layout.v1 {
            let dir = self.below(&hierarchy.mount);
            if hierarchy.has("cpuset") {
                make_cpuset(&hierarchy.mount, &dir)?;
            } else {
                make_dir(&dir)?;
            }
        }
        if let (Some(root), Some(dir)) = (&self.layout.v2, self.v2_dir()) {
            if let Some(parent) = dir.parent() {
                fs::create_dir_all(parent).map_err(|e| failed("create cgroup", parent, e))?;
                enable_controllers(root, parent);
            }
            make_dir(&dir)?;
        }
        Ok(())
    }

    /// Changes limits of a living cgroup, all or none; what is absent stays as it is. Returns warnings, and
    /// the way back.
    ///
    /// # Errors
    /// When the kernel refuses a value; those before it are taken back.
    pub fn update(&self, resources: &spec::Resources) -> Result<(Vec<String>, Undo), Error> {
        let mut undo = Undo::default();
        match self.apply(resources, Some(&mut undo)) {
            Ok(warnings) => Ok((warnings, undo)),
            Err(error) => {
                undo.run();
                Err(error)
            }
        }
    }

    /// Writes the limits. With `undo` the cgroup lives, and what was there is noted before each write.
    fn apply(&self, resources: &spec::Resources, mut undo: Option<&mut Undo>) -> Result<Vec<String>, Error> {
        let mut warnings: Vec<String> = Vec::new();
        for controller in Controller::ALL {
            let home = self.home(controller.name());
            let version = home.as_ref().map_or(Version::V1, |(version, _)| *version);
            let current = match &home {
                Some((_, dir)) if undo.is_some() => current(dir),
                _ => Current::default(),
            };
            // A period the old quota does not allow is set again once the new quota is.
            let mut again = None;
            for write in limits::writes(controller, version, resources, &current) {
                let mut found = false;
                if let Some((_, dir)) = &home {
                    for (file, value) in &write.files {
                        let path = dir.join(file);
                        if let Some(undo) = undo.as_deref_mut() {
                            undo.note(&path, value);
                        }
                        match put(&path, value) {
                            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                            // Weights per device take a device whose scheduler knows them.
                            Err(e)
                                if e.raw_os_error() == Some(libc::EOPNOTSUPP) && file.contains("weight") =>
                            {
                                continue;
                            }
                            Err(e)
                                if e.kind() == io::ErrorKind::InvalidInput
                                    && *file == "cpu.cfs_period_us" =>
                            {
                                again = Some((path, value.clone()));
                            }
                            Err(e) => return Err(failed(&format!("write \"{value}\" to"), &path, e)),
                            Ok(()) => {}
                        }
                        found = true;
                        break;
                    }
                }
                if !found && !write.discarded.is_empty() && !warnings.iter().any(|w| w == write.discarded) {
                    warnings.push(write.discarded.to_owned());
                }
            }
            if let Some((path, value)) = again {
                put(&path, &value).map_err(|e| failed(&format!("write \"{value}\" to"), &path, e))?;
            }
        }
        if !resources.devices.is_empty() {
            match self.home("devices") {
                Some((Version::V1, dir)) => devices::apply_v1(&dir, &resources.devices)?,
                Some((Version::V2, dir)) => devices::apply_v2(&dir, &resources.devices)?,
                None => {
                    let cause = "no devices cgroup and no cgroup2 is mounted";
                    return Err(refused("restrict devices of", &self.path, cause));
                }
            }
        }
        Ok(warnings)
    }

    /// How often the OOM killer has struck in the cgroup and below it. Zero without a memory controller,
    /// and when the cgroup is gone.
    #[cfg(test)]
    pub fn oom_kills(&self) -> u64 {
        match self.home("memory") {
            Some((version, dir)) => oom::kills(version, &dir),
            None => 0,
        }
    }

    /// Watches for the OOM killer.
    ///
    /// # Errors
    /// Refused when the host has no memory controller: then nothing is limited and nothing strikes.
    pub fn oom_notifier(&self) -> Result<OomNotifier, Error> {
        match self.home("memory") {
            Some((version, dir)) => OomNotifier::open(version, dir),
            None => Err(refused("watch memory of", &self.path, "no memory controller is mounted")),
        }
    }

    /// Reads the counters. Controllers that are missing leave zeros.
    pub fn stats(&self) -> Stats {
        Stats::read(self)
    }

    /// Removes the cgroup with everything a container made below it. Blocks while dying processes linger,
    /// at most five seconds. Not an error when it is already gone.
    ///
    /// # Errors
    /// EBUSY when a process stays; the other hierarchies are removed all the same.
    pub fn remove(&self) -> Result<(), Error> {
        self.remove_until(Instant::now() + REMOVE_TIMEOUT)
    }

    fn remove_until(&self, deadline: Instant) -> Result<(), Error> {
        let mut first = None;
        for dir in self.dirs() {
            if let Err(e) = remove_tree(&dir, deadline) {
                first.get_or_insert(failed("remove cgroup", &dir, e));
            }
        }
        first.map_or(Ok(()), Err)
    }
}

/// Removes cgroups below `parent` that are not `alive` and have no process: left by a crash, or made again
/// by something that walks the v1 hierarchies. Returns how many directories went.
pub fn sweep(parent: &str, alive: &[String]) -> Result<usize, Error> {
    sweep_in(Layout::host()?, parent, alive)
}

fn sweep_in(layout: &Layout, parent: &str, alive: &[String]) -> Result<usize, Error> {
    let mut swept = 0;
    for mount in layout.mounts() {
        for dir in children(&mount.join(parent.trim_start_matches('/'))) {
            let known = dir.file_name().is_some_and(|name| alive.iter().any(|id| name == id.as_str()));
            // The deadline has passed already: one attempt, the kernel refuses what is in use.
            if !known && remove_tree(&dir, Instant::now()).is_ok() {
                swept += 1;
            }
        }
    }
    Ok(swept)
}

/// The state an update must know; a file that is missing or strange counts as unlimited.
fn current(dir: &Path) -> Current {
    let bytes = |file| number(&dir.join(file)).ok().filter(|n| *n != u64::MAX);
    Current {
        memsw_bytes: bytes("memory.memsw.limit_in_bytes"),
        memory_bytes: bytes("memory.max"),
        cpu_max: fs::read_to_string(dir.join("cpu.max")).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
