//! Control groups: one [`Cgroup`] per container, in whichever version the host mounts.
//!
//! In: a path (`/dewar/<id>`, relative to every mount) and the specification's resources. A cgroup is a
//! directory of the same name in each v1 hierarchy and in the cgroup2 mount; a hybrid host has both, and a
//! process belongs to all of them. The value holds nothing open: it can be stored, sent and made again from
//! its path.
//!
//! ```text
//!   create ─► enter_self (child) / attach (pid) ─► update, freeze, thaw, stats … ─► kill_all ─► remove
//!             └ Entrance: the same, opened beforehand by the parent
//! ```
//!
//! Invariants: a directory that already has our name is reused only when no process is in it, and then is
//! made anew, so that no stale limit survives; a device policy that cannot be enforced is an error, any
//! other limit the kernel lacks is a warning in Docker's words.
//!
//! Elsewhere: detection (`layout`), conversion of limits (`limits`), device policy (`devices`), counters
//! (`stats`), OOM notices (`oom`), the mounts a container sees (`view`).
//!
//! Source: cgroups(7); kernel Documentation/admin-guide/cgroup-v1, cgroup-v2.rst.

mod devices;
mod layout;
mod limits;
mod oom;
mod stats;
mod view;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use self::devices::default_device_rules;
pub use self::layout::{Hierarchy, Layout, ROOT, Version};
use self::limits::{Controller, Current};
pub use self::oom::OomNotifier;
pub use self::stats::{BlkioEntry, CpuStats, MemoryStats, PidsStats, Stats};
pub use self::view::{Features, Namespace, View, features, view};
use super::{Cause, Error, spec};

/// Longest wait for the kernel to freeze or thaw every task.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for killed processes to be gone, and for a cgroup to be free of dying ones.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Below every mount, with a leading slash.
    path: String,
    layout: Layout,
}

/// A cgroup that has just been made.
#[derive(Debug)]
pub struct Created {
    pub cgroup: Cgroup,
    /// Limits that were asked for and are not in force, in Docker's words.
    pub warnings: Vec<String>,
}

/// Opened doors into a cgroup: whoever holds them can enter by writing alone.
///
/// [`Entrance::enter`] is async-signal-safe: for a child between fork and exec, or one that has already
/// given up the rights or the root directory needed to open them (v1 and v2 check the opener's rights).
#[derive(Debug)]
pub struct Entrance {
    files: Vec<File>,
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
    pub fn create(path: &str, resources: &spec::Resources) -> Result<Created, Error> {
        Cgroup::create_in(Layout::host()?, path, resources)
    }

    /// As [`Cgroup::create`], below the given mounts.
    pub fn create_in(layout: &Layout, path: &str, resources: &spec::Resources) -> Result<Created, Error> {
        let cgroup = Cgroup::open_in(layout, path)?;
        let made = cgroup.make_dirs().and_then(|()| cgroup.apply(resources, true));
        match made {
            Ok(warnings) => Ok(Created { cgroup, warnings }),
            Err(error) => {
                // The first failure is the one to report.
                let _ = cgroup.remove();
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

    /// Changes limits of a living cgroup; what is absent stays as it is. Returns warnings.
    ///
    /// # Errors
    /// When the kernel refuses a value; earlier ones stay in force.
    pub fn update(&self, resources: &spec::Resources) -> Result<Vec<String>, Error> {
        self.apply(resources, false)
    }

    fn apply(&self, resources: &spec::Resources, fresh: bool) -> Result<Vec<String>, Error> {
        let mut warnings: Vec<String> = Vec::new();
        for controller in Controller::ALL {
            let home = self.home(controller.name());
            let version = home.as_ref().map_or(Version::V1, |(version, _)| *version);
            let current = match &home {
                Some((_, dir)) if !fresh => current(dir),
                _ => Current::default(),
            };
            // A period the old quota does not allow is set again once the new quota is.
            let mut again = None;
            for write in limits::writes(controller, version, resources, &current) {
                let mut found = false;
                if let Some((_, dir)) = &home {
                    for (file, value) in &write.files {
                        let path = dir.join(file);
                        match put(&path, value) {
                            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
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

    /// Opens the files through which the holder can enter later; close-on-exec.
    pub fn entrance(&self) -> Result<Entrance, Error> {
        let mut files = Vec::with_capacity(self.layout.v1.len() + 1);
        // In v1 a thread's own move through `tasks` is several times faster than through cgroup.procs,
        // which waits for every thread of the process to be at rest.
        let tasks = self.layout.v1.iter().map(|h| self.below(&h.mount).join("tasks"));
        for path in tasks.chain(self.v2_dir().map(|dir| dir.join("cgroup.procs"))) {
            files.push(OpenOptions::new().write(true).open(&path).map_err(|e| failed("open", &path, e))?);
        }
        Ok(Entrance { files })
    }

    /// Moves the calling process, which must have only one thread, into the cgroup.
    pub fn enter_self(&self) -> Result<(), Error> {
        let entered = self.entrance()?.enter();
        match entered {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => self.attach_v2_leaf("0"),
            result => result.map_err(|e| failed("enter cgroup", Path::new(&self.path), e)),
        }
    }

    /// Moves a process with all its threads into the cgroup.
    pub fn attach(&self, pid: i32) -> Result<(), Error> {
        let value = pid.to_string();
        for dir in self.dirs() {
            let path = dir.join("cgroup.procs");
            match put(&path, &value) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Some(&dir) == self.v2_dir().as_ref() => {
                    self.attach_v2_leaf(&value)?;
                }
                result => result.map_err(|e| failed(&format!("move process {pid} to"), &path, e))?,
            }
        }
        Ok(())
    }

    /// A container that runs an init of its own moves its processes into sub-cgroups and enables
    /// controllers for them; then v2 lets nobody into the inner node (EBUSY), and a newcomer joins the
    /// first inhabited leaf.
    fn attach_v2_leaf(&self, pid: &str) -> Result<(), Error> {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let dir = self.v2_dir().ok_or_else(|| refused("enter cgroup", &self.path, "no cgroup2"))?;
        for leaf in descendants(&dir) {
            if read_pids(&leaf).is_ok_and(|pids| !pids.is_empty())
                && put(&leaf.join("cgroup.procs"), pid).is_ok()
            {
                return Ok(());
            }
        }
        Err(failed("enter cgroup", &dir, busy()))
    }

    /// The directory for clone3's CLONE_INTO_CGROUP; `None` unless v2 is all there is.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>, Error> {
        if !self.layout.is_v2() {
            return Ok(None);
        }
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        let file = File::open(&dir).map_err(|e| failed("open cgroup", &dir, e))?;
        Ok(Some(file.into()))
    }

    /// Stops every task where it is. Blocks until all are stopped, at most ten seconds; on failure they run.
    pub fn freeze(&self) -> Result<(), Error> {
        match self.freezer() {
            Some((Version::V1, dir)) => {
                let frozen = freeze_v1(&dir.join("freezer.state"), FREEZE_TIMEOUT);
                frozen.map_err(|e| {
                    let _ = self.thaw();
                    failed("freeze cgroup", &dir, e)
                })
            }
            Some((Version::V2, dir)) => {
                let frozen = put(&dir.join("cgroup.freeze"), "1")
                    .and_then(|()| wait_frozen(&dir.join("cgroup.events"), true));
                frozen.map_err(|e| {
                    let _ = self.thaw();
                    failed("freeze cgroup", &dir, e)
                })
            }
            None => Err(refused("freeze cgroup", &self.path, "no freezer is mounted")),
        }
    }

    /// Lets every task run again. Not an error when they already do.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.freezer() {
            Some((Version::V1, dir)) => {
                put(&dir.join("freezer.state"), "THAWED").map_err(|e| failed("thaw cgroup", &dir, e))
            }
            Some((Version::V2, dir)) => put(&dir.join("cgroup.freeze"), "0")
                .and_then(|()| wait_frozen(&dir.join("cgroup.events"), false))
                .map_err(|e| failed("thaw cgroup", &dir, e)),
            None => Err(refused("thaw cgroup", &self.path, "no freezer is mounted")),
        }
    }

    /// Whether [`Cgroup::freeze`] is in force (or under way) on this very cgroup.
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let (file, running) = match self.freezer() {
            Some((Version::V1, dir)) => (dir.join("freezer.state"), "THAWED"),
            Some((Version::V2, dir)) => (dir.join("cgroup.freeze"), "0"),
            None => return Ok(false),
        };
        let state = fs::read_to_string(&file).map_err(|e| failed("read", &file, e))?;
        Ok(state.trim() != running)
    }

    fn freezer(&self) -> Option<(Version, PathBuf)> {
        self.home("freezer")
    }

    /// What CRIU's `--freeze-cgroup` wants: the directory with `freezer.state` (v1) or `cgroup.freeze` (v2).
    pub fn freezer_path(&self) -> Option<PathBuf> {
        self.freezer().map(|(_, dir)| dir)
    }

    /// Every process in the cgroup and below it, as this process's pid namespace numbers them. Empty when
    /// the cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let dir = self
            .v2_dir()
            .or_else(|| self.v1_dir("freezer"))
            .or_else(|| self.dirs().next())
            .ok_or_else(|| refused("list processes of", &self.path, "no cgroup filesystem is mounted"))?;
        let mut pids = Vec::new();
        for dir in std::iter::once(dir.clone()).chain(descendants(&dir)) {
            match read_pids(&dir) {
                Ok(mut more) => pids.append(&mut more),
                // Threaded sub-cgroups list their processes in the domain above them.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(failed("list processes of", &dir, e)),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in the cgroup, frozen ones included. Does not wait for them to be reaped.
    ///
    /// # Errors
    /// When processes keep appearing for five seconds (only without `cgroup.kill`, before Linux 5.14).
    pub fn kill_all(&self) -> Result<(), Error> {
        let killed = match self.v2_dir() {
            Some(dir) => match put(&dir.join("cgroup.kill"), "1") {
                Ok(()) => true,
                Err(e) if is_gone(&e) => false,
                Err(e) => return Err(failed("kill processes of", &dir, e)),
            },
            None => false,
        };
        if !killed {
            self.kill_each()?;
        }
        // A task frozen by v1 dies only when it runs again.
        match self.freezer() {
            Some((Version::V1, dir)) => match put(&dir.join("freezer.state"), "THAWED") {
                Err(e) if !is_gone(&e) => Err(failed("thaw cgroup", &dir, e)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Signals what is listed until nothing new is: a process may fork between the list and the signal.
    fn kill_each(&self) -> Result<(), Error> {
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut signalled: Vec<i32> = Vec::new();
        loop {
            let pids = self.pids()?;
            let mut fresh = false;
            for pid in &pids {
                fresh |= !signalled.contains(pid);
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    // Gone meanwhile is as good as killed.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if !fresh {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(failed(
                    "kill processes of",
                    Path::new(&self.path),
                    io::ErrorKind::TimedOut.into(),
                ));
            }
            signalled = pids;
        }
    }

    /// How often the OOM killer has struck in the cgroup and below it. Zero without a memory controller,
    /// and when the cgroup is gone.
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
        let deadline = Instant::now() + REMOVE_TIMEOUT;
        let mut first = None;
        for dir in self.dirs() {
            if let Err(e) = remove_tree(&dir, deadline) {
                first.get_or_insert(failed("remove cgroup", &dir, e));
            }
        }
        first.map_or(Ok(()), Err)
    }
}

impl Entrance {
    /// Moves the calling process, which must have only one thread, into the cgroup. Async-signal-safe.
    pub fn enter(&self) -> io::Result<()> {
        for mut file in &self.files {
            file.write_all(b"0")?;
        }
        Ok(())
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

/// Mounts cgroup2 where the host has no cgroups at all: a minimal init does not.
pub fn ensure_mounted() -> Result<(), Error> {
    if !Layout::detect()?.is_empty() {
        return Ok(());
    }
    let flags = rustix::mount::MountFlags::NOSUID
        | rustix::mount::MountFlags::NODEV
        | rustix::mount::MountFlags::NOEXEC
        | rustix::mount::MountFlags::RELATIME;
    rustix::mount::mount("cgroup2", ROOT, "cgroup2", flags, None)
        .map_err(|e| failed("mount cgroup2 on", Path::new(ROOT), e.into()))
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

/// Makes one cgroup directory and its parents.
fn make_dir(dir: &Path) -> Result<(), Error> {
    match fs::create_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A cgroup's mode is of no consequence to root; umask decides.
            return fs::create_dir_all(dir).map_err(|e| failed("create cgroup", dir, e));
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed("create cgroup", dir, e)),
    }
    let inhabited = read_pids(dir).is_ok_and(|pids| !pids.is_empty());
    if inhabited {
        return Err(refused("create cgroup", &dir.display().to_string(), "it exists and has processes"));
    }
    remove_tree(dir, Instant::now())
        .and_then(|()| fs::create_dir(dir))
        .map_err(|e| failed("replace stale cgroup", dir, e))
}

/// Makes a cpuset, which starts without processors or memory nodes and then admits nobody: it takes its
/// parent's, as does every directory on the way.
fn make_cpuset(mount: &Path, dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent() else { return make_dir(dir) };
    if parent != mount && !parent.exists() {
        make_cpuset(mount, parent)?;
        // New children then start as copies: two reads per container instead of two reads and two writes.
        // Refused under an exclusive parent, which is why the copies are checked below.
        let _ = put(&parent.join("cgroup.clone_children"), "1");
    }
    make_dir(dir)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(file);
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| failed("read", path, e));
        if read(&path)?.trim().is_empty() {
            let value = read(&parent.join(file))?;
            put(&path, value.trim())
                .map_err(|e| failed(&format!("write \"{}\" to", value.trim()), &path, e))?;
        }
    }
    Ok(())
}

/// Enables controllers from the mount's root down to `parent`, so that its children get their files.
///
/// A controller that cannot be enabled shows later as a missing file, hence as a warning.
fn enable_controllers(root: &Path, parent: &Path) {
    const WANTED: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];
    let mut levels: Vec<&Path> = parent.ancestors().take_while(|dir| dir.starts_with(root)).collect();
    levels.reverse();
    for dir in levels {
        let words = |file| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let (available, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
        let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|word| word == name);
        let missing: Vec<String> = WANTED
            .iter()
            .filter(|name| has(&available, name) && !has(&enabled, name))
            .map(|name| format!("+{name}"))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let control = dir.join("cgroup.subtree_control");
        // One refused controller (realtime tasks and cpu, say) makes the kernel refuse them all.
        if put(&control, &missing.join(" ")).is_err() {
            for one in &missing {
                if let Err(e) = put(&control, one) {
                    log::warn!("enable cgroup controller {one} in {}: {e}", dir.display());
                }
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    // ENODEV: the directory was removed after its file was opened.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn read_pids(dir: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    // 0 is a process of another pid namespace, which nobody here can name.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The direct sub-cgroups; none when `dir` is gone.
fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// All sub-cgroups, parents before children.
fn descendants(dir: &Path) -> Vec<PathBuf> {
    // A cgroup directory has two links and one per sub-cgroup: almost none has any.
    if fs::metadata(dir).is_ok_and(|meta| std::os::unix::fs::MetadataExt::nlink(&meta) == 2) {
        return Vec::new();
    }
    let mut found = children(dir);
    let mut next = 0;
    while next < found.len() {
        let below = children(&found[next]);
        found.extend(below);
        next += 1;
    }
    found
}

/// Removes a cgroup and what is below it, waiting for dying processes until `deadline`.
fn remove_tree(dir: &Path, deadline: Instant) -> io::Result<()> {
    let mut pause = Duration::from_micros(200);
    loop {
        let busy = match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            Err(e) => e,
        };
        for child in descendants(dir).into_iter().rev() {
            let _ = fs::remove_dir(child);
        }
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if is_gone(&e) => return Ok(()),
            Err(_) if busy.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Err(e) => return Err(e),
        }
    }
}

/// v1's freezer takes repeated asking: a task that forks or sleeps uninterruptibly at the wrong moment leaves
/// the group FREEZING until somebody looks again, and sometimes only a thaw in between helps.
fn freeze_v1(state: &Path, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_micros(20);
    let mut tries = 0u32;
    loop {
        put(state, "FROZEN")?;
        if fs::read_to_string(state)?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tries += 1;
        if tries.is_multiple_of(50) {
            put(state, "THAWED")?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Waits until `cgroup.events` says what is wanted; the file raises POLLPRI when it changes.
fn wait_frozen(events: &Path, wanted: bool) -> io::Result<()> {
    use std::io::{Read, Seek};
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    let mut file = File::open(events)?;
    let mut text = String::new();
    loop {
        text.clear();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        if keyed(&text, "frozen") == Some(u64::from(wanted)) {
            return Ok(());
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut fds = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::PRI)];
        // Bounded, should the kernel's notice come before its count; an interruption reads again.
        let left = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(left.min(Duration::from_millis(100)).subsec_nanos()),
        };
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests;
