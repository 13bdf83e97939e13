//! Cgroup directories: making them so that they can be entered, walking them, removing them.
//!
//! Source: cgroups(7); kernel Documentation/admin-guide/cgroup-v1/cpusets.rst, cgroup-v2.rst "Enabling and
//! Disabling".

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{failed, put};
use crate::runtime::Error;

/// Makes one cgroup directory and its parents.
pub(super) fn make_dir(dir: &Path) -> Result<(), Error> {
    match fs::create_dir(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A cgroup's mode is of no consequence to root; umask decides.
            return fs::create_dir_all(dir).map_err(|e| failed("create cgroup", dir, e));
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(failed("create cgroup", dir, e)),
    }
    remove_tree(dir, Instant::now())
        .and_then(|()| fs::create_dir(dir))
        .map_err(|e| failed("replace stale cgroup", dir, e))
}

/// Makes a cpuset, which starts without processors or memory nodes and then admits nobody: it takes its
/// parent's, as does every directory on the way. Others may be making the same way at this moment.
pub(super) fn make_cpuset(mount: &Path, dir: &Path) -> Result<(), Error> {
    make_way(mount, dir)?;
    make_dir(dir)?;
    fill_cpuset(mount, dir)
}

/// Makes the parents of `dir` that are not there.
fn make_way(mount: &Path, dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent().filter(|parent| *parent != mount && !parent.exists()) else {
        return Ok(());
    };
    make_way(mount, parent)?;
    match fs::create_dir(parent) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(failed("create cgroup", parent, e)),
        _ => {}
    }
    fill_cpuset(mount, parent)?;
    // New children then start as copies: two reads per container instead of two reads and two writes.
    // Refused under an exclusive parent, which is why the copies are checked.
    let _ = put(&parent.join("cgroup.clone_children"), "1");
    Ok(())
}

/// Gives a cpuset that has none the processors and memory nodes of its parent, which may be waiting for its own:
/// whoever made it has not come to that yet.
fn fill_cpuset(mount: &Path, dir: &Path) -> Result<(), Error> {
    let Some(parent) = dir.parent().filter(|_| dir != mount) else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let path = dir.join(file);
        let read = |path: &Path| fs::read_to_string(path).map_err(|e| failed("read", path, e));
        if !read(&path)?.trim().is_empty() {
            continue;
        }
        let mut value = read(&parent.join(file))?;
        if value.trim().is_empty() {
            fill_cpuset(mount, parent)?;
            value = read(&parent.join(file))?;
        }
        put(&path, value.trim()).map_err(|e| failed(&format!("write \"{}\" to", value.trim()), &path, e))?;
    }
    Ok(())
}

/// The controllers of cgroup2 that containers are limited by.
pub(super) const WANTED: [&str; 5] = ["cpuset", "cpu", "io", "memory", "pids"];

/// Enables controllers from the mount's root down to `parent`, so that its children get their files.
///
/// A controller that cannot be enabled shows later as a missing file, hence as a warning.
pub(super) fn enable_controllers(root: &Path, parent: &Path) {
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

pub(super) fn is_gone(error: &io::Error) -> bool {
    // ENODEV: the directory was removed after its file was opened.
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

pub(super) fn read_pids(dir: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    // 0 is a process of another pid namespace, which nobody here can name.
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect())
}

/// The direct sub-cgroups; none when `dir` is gone.
pub(super) fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// All sub-cgroups, parents before children.
pub(super) fn descendants(dir: &Path) -> Vec<PathBuf> {
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
pub(super) fn remove_tree(dir: &Path, deadline: Instant) -> io::Result<()> {
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
