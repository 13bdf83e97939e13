//! The bundle: our [`Spec`] as the `config.json` any OCI runtime understands.
//!
//! What our init does by itself is said in the specification's words here: users are looked up in the root
//! filesystem (without the container's mounts, as Docker does it), `HOME` is set, the minimal init comes
//! before the command, capabilities we do not have are left out, and so are limits this host cannot set.
//!
//! A bind whose source has no path in the shim's mount namespace (another container's /dev/shm, what is below
//! a volume, a mount that shall reach the host) is opened by us and mounted at a place of its own first.
//!
//! Source: runtime-spec `config.md`, `config-linux.md`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType};
use rustix::mount::{MoveMountFlags, UnmountFlags};

use crate::runtime::init::root::{self, Root};
use crate::runtime::init::{self, REAPER, Trees};
use crate::runtime::spec::{Capabilities, Process, Resources, Spec};
use crate::runtime::{Cause, Error, Launch, capabilities, cgroup, plan, user};

/// The specification's name for it.
pub const CONFIG: &str = "config.json";
/// Where sources without a path are mounted.
const MOUNTS: &str = "mounts";
/// What all runtimes in use accept.
const OCI_VERSION: &str = "1.0.2";
/// More of a passwd file is not read.
const MAX_ACCOUNTS_BYTES: u64 = 1024 * 1024;

/// The mounts made for a bundle. They are unmounted when this goes: the container has its own by then.
#[derive(Debug)]
pub struct Staged {
    dir: PathBuf,
    count: usize,
}

impl Drop for Staged {
    fn drop(&mut self) {
        for number in 0..self.count {
            let _ = rustix::mount::unmount(place(&self.dir, number), UnmountFlags::DETACH);
        }
        let _ = remove_mount_points(&self.dir);
    }
}

fn place(dir: &Path, number: usize) -> PathBuf {
    dir.join(MOUNTS).join(number.to_string())
}

fn failed(op: &str, object: &Path, cause: impl Into<io::Error>) -> Error {
    Error { op: op.to_owned(), object: object.display().to_string(), cause: Cause::Io(cause.into()) }
}

/// Writes the bundle for a container whose root is mounted on `root` to the new directory `dir`.
///
/// # Errors
/// A user who is not there, a source that cannot be opened, a directory that cannot be written.
pub fn write(launch: &Launch, root: &Path, mut trees: Trees, dir: &Path) -> Result<Staged, Error> {
    fs::DirBuilder::new().mode(0o700).create(dir).map_err(|error| failed("make", dir, error))?;
    let mut spec = config(launch, root)?;
    let mut borrowed = init::borrow(&launch.spec)?;
    let mut staged = Staged { dir: dir.to_owned(), count: 0 };
    for mount in &mut spec.mounts {
        let mut options = plan::Options::parse(&mount.options).map_err(|cause| Error {
            op: "mount on".to_owned(),
            object: mount.destination.clone(),
            cause: Cause::Refused(cause),
        })?;
        let mut tree = None;
        if mount.kind == "bind" || options.binding != plan::Binding::None {
            tree = match trees.remove(Path::new(&mount.destination)) {
                None if !options.below.as_os_str().is_empty() => Some(init::open_source_of(mount)?),
                None => borrowed.remove(Path::new(&mount.source)),
                shared => shared,
            };
            options.below.clear();
            if options.binding == plan::Binding::None {
                options.binding = plan::Binding::One;
            }
        }
        // Each word once, as it ends up: which of two wins is not the same for all runtimes.
        mount.options = options.to_string().split(',').map(str::to_owned).collect();
        mount.options.retain(|word| !word.is_empty());
        if let Some(tree) = tree {
            let at = place(dir, staged.count);
            stage(&tree, &at).map_err(|error| failed("mount on", &at, error))?;
            staged.count += 1;
            mount.source = at.to_string_lossy().into_owned();
        }
    }
    let file = dir.join(CONFIG);
    let text = serde_json::to_vec(&spec).map_err(|error| failed("write", &file, error))?;
    fs::write(&file, text).map_err(|error| failed("write", &file, error))?;
    Ok(staged)
}

/// Removes the mount points, and no more than those.
pub fn remove_mount_points(dir: &Path) -> io::Result<()> {
    let mounts = dir.join(MOUNTS);
    let places = match fs::read_dir(&mounts) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        places => places?,
    };
    for place in places {
        let place = place?;
        if place.file_type()?.is_dir() {
            fs::remove_dir(place.path())?;
        } else {
            fs::remove_file(place.path())?;
        }
    }
    fs::remove_dir(mounts)
}

fn stage(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    if let Some(parent) = at.parent() {
        fs::create_dir_all(parent)?;
    }
    if root::identify(tree)?.0 == FileType::Directory {
        fs::create_dir(at)?;
    } else {
        File::create(at)?;
    }
    Ok(rustix::mount::move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// What is written, but for the sources of mounts.
fn config(launch: &Launch, root: &Path) -> Result<Spec, Error> {
    let mut spec = launch.spec.clone();
    spec.oci_version = OCI_VERSION.to_owned();
    spec.root.path = root.to_string_lossy().into_owned();
    spec.process = process(&launch.spec.process, root)?;
    if launch.reaper {
        spec.process.args.splice(0..0, [REAPER.to_owned(), "--".to_owned()]);
    }
    if spec.linux.rootfs_propagation.is_empty() {
        spec.linux.rootfs_propagation = propagation(&spec).to_owned();
    }
    // A field of its own only since version 1.1 of the specification.
    let domain = std::mem::take(&mut spec.domainname);
    if !domain.is_empty() {
        spec.linux.sysctl.entry("kernel.domainname".to_owned()).or_insert(domain);
    }
    limits(&mut spec.linux.resources, &cgroup::features()?);
    Ok(spec)
}

/// A mount that is to reach the host needs a root that lets it.
fn propagation(spec: &Spec) -> &'static str {
    let mut words = spec.mounts.iter().flat_map(|mount| &mount.options).map(String::as_str);
    if words.any(|word| matches!(word, "shared" | "rshared")) { "shared" } else { "rslave" }
}

/// A process in the specification's words: users by number, `HOME` set, capabilities we can give.
///
/// # Errors
/// [`Cause::Refused`] in Docker's words when there is no such user or group.
pub fn process(process: &Process, root: &Path) -> Result<Process, Error> {
    let mut process = process.clone();
    let root = Root::open(root).map_err(|error| failed("open", root, error))?;
    let passwd = accounts(&root, "/etc/passwd");
    let who = &mut process.user;
    let identity = match who.username.take() {
        None => user::by_number(who.uid, who.gid, &who.additional_gids, &passwd),
        Some(name) => user::resolve(&name, &who.group_add, &passwd, &accounts(&root, "/etc/group")).map_err(
            |cause| Error {
                op: "resolve user".to_owned(),
                object: format!("{name:?}"),
                cause: Cause::Refused(cause),
            },
        )?,
    };
    who.group_add.clear();
    (who.uid, who.gid, who.additional_gids) = (identity.uid, identity.gid, identity.groups);
    let has_home = process.env.iter().rev().find_map(|entry| entry.strip_prefix("HOME="));
    if has_home.unwrap_or_default().is_empty() {
        process.env.retain(|entry| !entry.starts_with("HOME="));
        process.env.push(format!("HOME={}", identity.home));
    }
    if let Some(sets) = &mut process.capabilities {
        give(sets)?;
    }
    Ok(process)
}

/// Takes out what we cannot hand on: runtimes fail where our init makes do.
fn give(sets: &mut Capabilities) -> Result<(), Error> {
    let own = rustix::thread::capabilities(None)
        .map_err(|errno| failed("read", Path::new("our own capabilities"), errno))?
        .permitted
        .bits();
    for set in [
        &mut sets.bounding,
        &mut sets.effective,
        &mut sets.inheritable,
        &mut sets.permitted,
        &mut sets.ambient,
    ] {
        set.retain(|name| capabilities::number(name).is_none_or(|number| own & (1 << number) != 0));
    }
    Ok(())
}

/// Takes out the limits this host lacks, of which the daemon has warned, and fills in what the specification
/// wants spelt out.
fn limits(resources: &mut Resources, host: &cgroup::Features) {
    for rule in &mut resources.devices {
        if rule.kind.is_empty() {
            rule.kind = "a".to_owned();
        }
        if rule.access.is_empty() {
            rule.access = "rwm".to_owned();
        }
    }
    let memory = &mut resources.memory;
    memory.swap = memory.swap.filter(|_| host.swap_limit);
    memory.swappiness = memory.swappiness.filter(|_| host.memory_swappiness);
    memory.disable_oom_killer = memory.disable_oom_killer.filter(|_| host.oom_kill_disable);
    if !host.blkio_weight {
        resources.block_io.weight = None;
        resources.block_io.weight_device.clear();
    }
}

/// An accounts file of the image; anything but a plain file reads as empty.
fn accounts(root: &Root, path: &str) -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let found = root.find(Path::new(path))?;
        let mut text = Vec::new();
        if root::identify(&found)?.0 == FileType::RegularFile {
            let file = File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
            file.take(MAX_ACCOUNTS_BYTES).read_to_end(&mut text)?;
        }
        Ok(text)
    };
    read().unwrap_or_default()
}
