//! What a minimal init has not mounted: control groups, and the file systems without which nothing works.
//!
//! ```text
//!  /proc, /sys, /dev    only where they are not there
//!  no cgroups           cgroup2 on /sys/fs/cgroup
//!   └ its controllers are in hierarchies of version 1 (mounted elsewhere, or the kernel's choice), or the kernel
//!     has no cgroup2: a tmpfs on /sys/fs/cgroup, a directory for each hierarchy, cgroup2 at `unified`
//! ```
//!
//! What is mounted stays, as after `mount` in an init script: containers that outlive the daemon need it.
//!
//! In a container of its own the daemon is in the root of its cgroup namespace, which is no root to the kernel: as
//! long as processes are in it, it gives its children no controllers. They are moved into a leaf.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rustix::mount::{MountFlags, UnmountFlags};

use super::layout::{Layout, ROOT};
use super::tree::{WANTED, read_pids};
use super::{failed, put};
use crate::runtime::Error;

/// Where processes go that are in the way.
const LEAF: &str = "init";

/// Mounts what is needed and missing; see the header.
///
/// # Errors
/// The kernel has no cgroups, or does not let us mount.
pub fn ensure_mounted() -> Result<(), Error> {
    ensure("/proc/self", "proc", "/proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)?;
    ensure("/sys/fs", "sysfs", "/sys", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC)?;
    ensure("/dev/null", "devtmpfs", "/dev", MountFlags::NOSUID)?;
    let mut layout = Layout::detect()?;
    if layout.is_empty() {
        mount_cgroups()?;
        layout = Layout::detect()?;
    }
    if let Some(root) = &layout.v2 {
        make_way(root);
    }
    Ok(())
}

/// Whether the kernel has control groups of any version to mount.
pub fn can_mount() -> bool {
    has("cgroup2") || has("cgroup")
}

/// Whether the kernel knows a file system.
fn has(kind: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    known.lines().any(|line| line.split_ascii_whitespace().last() == Some(kind))
}

fn ensure(probe: &str, kind: &str, at: &str, flags: MountFlags) -> Result<(), Error> {
    if Path::new(probe).exists() {
        return Ok(());
    }
    mount(kind, Path::new(at), flags, None)?;
    log::info!("{at} was not mounted: mounted {kind}");
    Ok(())
}

fn mount(kind: &str, at: &Path, flags: MountFlags, data: Option<&str>) -> Result<(), Error> {
    let op = format!("mount {kind} on");
    fs::create_dir_all(at).map_err(|error| failed(&op, at, error))?;
    let data = data.map(std::ffi::CString::new).transpose().map_err(|error| failed(&op, at, error.into()))?;
    rustix::mount::mount(kind, at, kind, flags, data.as_deref())
        .map_err(|errno| failed(&op, at, errno.into()))
}

fn mount_cgroups() -> Result<(), Error> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RELATIME;
    let root = Path::new(ROOT);
    let occupied = hierarchies(&fs::read_to_string("/proc/cgroups").unwrap_or_default(), !has("cgroup2"));
    if has("cgroup2") {
        mount("cgroup2", root, flags, None)?;
        if occupied.is_empty() {
            log::info!("no cgroups were mounted: mounted cgroup2 on {ROOT}");
            return Ok(());
        }
        let failed = |errno: rustix::io::Errno| failed("unmount cgroup2 from", root, errno.into());
        rustix::mount::unmount(root, UnmountFlags::empty()).map_err(failed)?;
    }
    mount("tmpfs", root, flags - MountFlags::RELATIME, Some("mode=755"))?;
    for controllers in &occupied {
        let at = root.join(controllers);
        if let Err(error) = mount("cgroup", &at, flags, Some(controllers)) {
            // The rest limits what it can; `info` and `doctor` tell what is missing.
            log::warn!("{error}");
            let _ = fs::remove_dir(&at);
        }
    }
    if has("cgroup2") {
        mount("cgroup2", &root.join("unified"), flags, None)?;
    }
    log::info!("no cgroups were mounted: mounted {} of version 1 below {ROOT}", occupied.len());
    Ok(())
}

/// The hierarchies of version 1 that hold controllers, each as its mount option. `all` takes those that are in
/// none as well: without cgroup2 they have no other place.
fn hierarchies(proc_cgroups: &str, all: bool) -> Vec<String> {
    let mut found: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for line in proc_cgroups.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, hierarchy, _, "1"] = fields[..] else { continue };
        let group = if hierarchy == "0" { name } else { hierarchy };
        if hierarchy != "0" || all {
            found.entry(group.to_owned()).or_default().push(name);
        }
    }
    found.into_values().map(|names| names.join(",")).collect()
}

/// Moves processes out of the root of a cgroup namespace, where they would keep controllers from containers.
fn make_way(root: &Path) {
    // The kernel's own root has no type, and may have both processes and children with controllers.
    if !root.join("cgroup.type").exists() {
        return;
    }
    let words = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let (available, enabled) = (words("cgroup.controllers"), words("cgroup.subtree_control"));
    let has = |list: &str, name: &str| list.split_ascii_whitespace().any(|word| word == name);
    if WANTED.iter().all(|name| !has(&available, name) || has(&enabled, name)) {
        return;
    }
    match evacuate(root) {
        Ok(0) => {}
        Ok(moved) => log::info!("{moved} processes moved from {} to its {LEAF:?}", root.display()),
        Err(error) => log::warn!("{error}"),
    }
}

/// Moves the processes of a cgroup into a leaf below it; gives how many.
fn evacuate(root: &Path) -> Result<usize, Error> {
    let leaf = root.join(LEAF);
    let mut moved = 0;
    // Those that are moved may have children that are not: until nobody is left, or nobody moves any more.
    loop {
        let pids = read_pids(root).map_err(|error| failed("list processes of", root, error))?;
        if pids.is_empty() {
            return Ok(moved);
        }
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(failed("create cgroup", &leaf, error));
            }
            _ => {}
        }
        let before = moved;
        let procs = leaf.join("cgroup.procs");
        let mut last = None;
        for pid in pids {
            match put(&procs, &pid.to_string()) {
                Ok(()) => moved += 1,
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last
            && moved == before
        {
            return Err(failed("move processes to", &leaf, error));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const PROC_CGROUPS: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
        cpuset\t3\t19\t1\ncpu\t1\t19\t1\ncpuacct\t1\t19\t1\nmemory\t4\t129\t1\nnet_cls\t0\t1\t1\npids\t8\t1\t0\n";

    #[test]
    fn controllers_that_are_taken_are_mounted_where_they_are() {
        assert_eq!(hierarchies(PROC_CGROUPS, false), ["cpu,cpuacct", "cpuset", "memory"]);
        assert_eq!(hierarchies(PROC_CGROUPS, true), ["cpu,cpuacct", "cpuset", "memory", "net_cls"]);
        assert!(hierarchies("memory\t0\t1\t1\n", false).is_empty(), "all are cgroup2's");
    }

    #[test]
    fn processes_make_way_for_controllers() {
        let layout = Layout::detect().unwrap();
        let root = layout.v2.expect("a cgroup2 mount").join(format!("dewar-way-{}", std::process::id()));
        fs::create_dir(&root).unwrap();
        let mut children: Vec<_> = (0..3).map(|_| Command::new("sleep").arg("60").spawn().unwrap()).collect();
        for child in &children {
            put(&root.join("cgroup.procs"), &child.id().to_string()).unwrap();
        }
        let moved = evacuate(&root);
        let (left, leaf) = (read_pids(&root).unwrap(), read_pids(&root.join(LEAF)).unwrap());
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let removed =
            super::super::tree::remove_tree(&root, std::time::Instant::now() + super::super::REMOVE_TIMEOUT);
        assert_eq!((moved.unwrap(), left.len(), leaf.len()), (3, 0, 3));
        removed.unwrap();
    }
}
