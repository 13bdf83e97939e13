//! What a daemon has put on the host: mounts, cgroups, processes, interfaces. Counted, compared and, after a failure, removed.
//!
//! A daemon under test is known by its directory: its mounts lie under it, its processes hold files of it, and its
//! cgroups' parent carries a hash of it. Whoever is in its network namespace is its own, too: when nobody is, the
//! namespace dies with the test, and all that is in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Namespace;

/// What of one daemon exists on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leftovers {
    dir: PathBuf,
    network: Option<Namespace>,
    pub mounts: BTreeSet<PathBuf>,
    pub cgroups: BTreeSet<PathBuf>,
    /// Process ids with their command lines; the daemon itself is among them while it runs.
    pub processes: BTreeSet<(u32, String)>,
    /// Namespace files and sockets below `run/`.
    pub run_files: BTreeSet<PathBuf>,
    /// The host's ends of what containers have.
    pub interfaces: BTreeSet<String>,
}

impl Leftovers {
    pub fn of(dir: &Path) -> Leftovers {
        Leftovers::within(dir, None)
    }

    /// As [`Leftovers::of`], of a daemon in a network of its own.
    pub fn within(dir: &Path, network: Option<&Namespace>) -> Leftovers {
        let parent = cgroup_parent(dir);
        let cgroups = cgroups(&parent);
        // Bridges are of networks, not of containers.
        let is_containers = |name: &String| name.starts_with("veth");
        Leftovers {
            mounts: mounts(dir),
            processes: processes(dir, &parent, network),
            cgroups,
            run_files: files(&dir.join("run")),
            interfaces: network
                .map(Namespace::interfaces)
                .unwrap_or_default()
                .into_iter()
                .filter(is_containers)
                .collect(),
            dir: dir.to_owned(),
            network: network.cloned(),
        }
    }

    fn now(&self) -> Leftovers {
        Leftovers::within(&self.dir, self.network.as_ref())
    }

    fn is_nothing(&self) -> bool {
        self.mounts.is_empty()
            && self.cgroups.is_empty()
            && self.processes.is_empty()
            && self.interfaces.is_empty()
    }

    /// Fails the test if a mount, cgroup, process or interface is there. Removal may lag behind an exit: it gets two seconds.
    #[track_caller]
    pub fn assert_none(&self) {
        let start = Instant::now();
        let mut left = self.clone();
        while !left.is_nothing() {
            assert!(start.elapsed() < Duration::from_secs(2), "left behind: {left:#?}");
            std::thread::sleep(Duration::from_millis(20));
            left = self.now();
        }
    }

    /// Fails the test unless what is there now is what was there at `self`. Removal may lag: it gets three seconds.
    #[track_caller]
    pub fn assert_same_now(&self) {
        let start = Instant::now();
        loop {
            let now = self.now();
            if now == *self {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(3),
                "left behind.\nbefore: {self:#?}\nnow: {now:#?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends and unmounts it all, so that one failed test does not fail others.
    pub fn remove(&self) {
        for (pid, _) in &self.processes {
            if let Some(pid) = i32::try_from(*pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        for mount in self.mounts.iter().rev() {
            let _ = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH);
        }
        let _ = rustix::mount::unmount(names(&self.dir), rustix::mount::UnmountFlags::DETACH);
        if !self.processes.is_empty() {
            std::thread::sleep(Duration::from_millis(100));
        }
        for cgroup in self.cgroups.iter().rev() {
            drop(fs::remove_dir(cgroup));
        }
    }
}

/// Containers' mounts: not the one that holds the names of network namespaces, which is the daemon's.
pub fn mounts(dir: &Path) -> BTreeSet<PathBuf> {
    mount_points().into_iter().filter(|point| point.starts_with(dir) && *point != names(dir)).collect()
}

/// Whether a daemon's names of network namespaces are still a mount.
pub fn has_names(dir: &Path) -> bool {
    mount_points().contains(&names(dir))
}

fn names(dir: &Path) -> PathBuf {
    dir.join("run/netns")
}

fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

/// The cgroup under which the daemon of `dir` puts its containers: `dewar-` and the FNV-1a of its exec-root, so that
/// two daemons do not sweep each other's.
pub fn cgroup_parent(dir: &Path) -> String {
    let hash = dir
        .join("run")
        .as_os_str()
        .as_bytes()
        .iter()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    format!("dewar-{hash:08x}")
}

/// The parent itself may stay: it is empty and its next daemon uses it again. What is below it may not.
fn cgroups(parent: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return found };
    let mut roots: Vec<PathBuf> = hierarchies.flatten().map(|entry| entry.path().join(parent)).collect();
    roots.push(Path::new("/sys/fs/cgroup").join(parent));
    while let Some(root) = roots.pop() {
        let below = fs::read_dir(&root).into_iter().flatten().flatten();
        for entry in below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            found.insert(entry.path());
            roots.push(entry.path());
        }
    }
    found
}

/// Processes in the daemon's cgroups and network, and those that were given or hold a file of its directory.
fn processes(dir: &Path, cgroup: &str, network: Option<&Namespace>) -> BTreeSet<(u32, String)> {
    let text = dir.as_os_str().as_bytes();
    let link = network.map(Namespace::link).unwrap_or_default();
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let proc = entry.path();
        let line = fs::read(proc.join("cmdline")).unwrap_or_default();
        let named = line.windows(text.len()).any(|part| part == text);
        let confined = fs::read_to_string(proc.join("cgroup")).is_ok_and(|paths| paths.contains(cgroup));
        let holds = || {
            let links = fs::read_dir(proc.join("fd")).into_iter().flatten().flatten().map(|fd| fd.path());
            links
                .chain([proc.join("cwd"), proc.join("root")])
                .any(|link| fs::read_link(link).is_ok_and(|target| target.starts_with(dir)))
        };
        let is_inside = || fs::read_link(proc.join("ns/net")).is_ok_and(|ns| ns.as_os_str() == link.as_str());
        if named || confined || holds() || is_inside() {
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            // A zombie is gone; only its parent has not looked yet.
            let state = fs::read_to_string(proc.join("stat")).unwrap_or_default();
            let zombie = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
            if !state.is_empty() && !zombie {
                found.insert((pid, line.trim().to_owned()));
            }
        }
    }
    found
}

fn files(dir: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    found
}
