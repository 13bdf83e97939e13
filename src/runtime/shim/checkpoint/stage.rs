//! What takes the place of mounts that CRIU takes from us, got ready for a thaw.
//!
//! Fresh file systems are mounted on one tmpfs in the run directory, in the shim's mount namespace, and go with it: an
//! unmount costs the kernel a wait, however much it takes along. Masks that are the same are one.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::{External, Kind, dev, failed, is_bind, refused};
use crate::runtime::cgroup;
use crate::runtime::init::{self, Trees};
use crate::runtime::spec::Spec;
use crate::runtime::{Error, layer};

/// In the run directory.
const STAGE: &str = "stage";

/// The place; dropping it lets go of all that is there. The container has mounts of its own by then.
pub struct Stage {
    dir: PathBuf,
    /// By their options.
    masks: BTreeMap<String, PathBuf>,
}

impl Stage {
    /// Makes it.
    ///
    /// # Errors
    /// There is one; `EPERM`.
    pub fn new(run_dir: &Path) -> Result<Stage, Error> {
        let dir = run_dir.join(STAGE);
        std::fs::create_dir(&dir).map_err(|error| failed("make", &dir, error))?;
        let stage = Stage { dir, masks: BTreeMap::new() };
        rustix::mount::mount("tmpfs", &stage.dir, "tmpfs", MountFlags::empty(), c"mode=700")
            .map_err(|errno| failed("mount tmpfs on", &stage.dir, errno))?;
        Ok(stage)
    }

    /// Gets everything ready, and gives CRIU's `--external` words for it. `dir` is the checkpoint's.
    ///
    /// # Errors
    /// The specification has no source for a mount; what making it says.
    pub fn fill(
        &mut self,
        mounts: &[External],
        spec: &Spec,
        dir: &Path,
        trees: &mut Trees,
    ) -> Result<Vec<String>, Error> {
        let dev = mounts.iter().position(|mount| matches!(mount.kind, Kind::Dev { .. }));
        let mut external = Vec::new();
        for (number, mount) in mounts.iter().enumerate() {
            let place = self.dir.join(number.to_string());
            let source = match (&mount.kind, dev) {
                // The container's own, so that it can be frozen again.
                (Kind::Null, Some(dev)) => self.dir.join(dev.to_string()).join("null"),
                (Kind::Null, None) => PathBuf::from("/dev/null"),
                (Kind::Tmpfs { options, archive: None }, _) => match self.masks.get(options) {
                    Some(mask) => mask.clone(),
                    None => {
                        // CRIU gives it no flags of its own.
                        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
                        mount_tmpfs(&place, options, MountFlags::RDONLY | flags)?;
                        self.masks.insert(options.clone(), place.clone());
                        place
                    }
                },
                _ => source(mount, spec, dir, &place, trees)?,
            };
            external.push(format!("mnt[{}]:{}", mount.destination, source.display()));
        }
        Ok(external)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
        let _ = std::fs::remove_dir(&self.dir);
    }
}

fn mount_tmpfs(at: &Path, options: &str, flags: MountFlags) -> Result<(), Error> {
    std::fs::create_dir_all(at).map_err(|error| failed("make", at, error))?;
    let options = std::ffi::CString::new(options)
        .map_err(|_| refused("mount", "tmpfs", "its options have a NUL in them"))?;
    rustix::mount::mount("tmpfs", at, "tmpfs", flags, options.as_c_str())
        .map_err(|errno| failed("mount tmpfs on", at, errno))
}

/// What takes an external mount's place; the container's cgroup exists already.
fn source(
    mount: &External,
    spec: &Spec,
    dir: &Path,
    stage: &Path,
    trees: &mut Trees,
) -> Result<PathBuf, Error> {
    let fresh = |options: &str| mount_tmpfs(stage, options, MountFlags::empty());
    match &mount.kind {
        Kind::Bind { mount: destination, below } => {
            let from = spec.mounts.iter().find(|from| from.destination == *destination && is_bind(from));
            let from = from.ok_or_else(|| {
                refused("thaw", "container", &format!("the checkpoint needs a mount at {destination}"))
            })?;
            match trees.remove(Path::new(destination)) {
                Some(tree) => place_tree(&tree, stage)?,
                // Only the clone knows how to find it without being led astray.
                None if from.options.iter().any(|word| word.starts_with("X-mount.subdir=")) => {
                    place_tree(&init::open_source_of(from)?, stage)?;
                }
                None => {
                    // A start follows links, and CRIU does not.
                    let source = std::fs::canonicalize(&from.source)
                        .map_err(|error| failed("find", &from.source, error))?;
                    return if below.is_empty() { Ok(source) } else { place_below(&source, below, stage) };
                }
            }
            if below.is_empty() {
                return Ok(stage.to_owned());
            }
            place_below(stage, below, &stage.with_extension("below"))
        }
        Kind::Tmpfs { options, archive: Some(name) } => {
            fresh(options)?;
            if Path::new(name).file_name() != Some(name.as_ref()) {
                let reason = format!("{name:?} is no name of a file in it");
                return Err(refused("thaw", "checkpoint", &reason));
            }
            let path = dir.join(name);
            let file = File::open(&path).map_err(|error| failed("open", &path, error))?;
            layer::unpack_plain(BufReader::new(file), stage, layer::Limits::default())?;
            Ok(stage.to_owned())
        }
        Kind::Dev { options } => {
            fresh(options)?;
            dev::fill(stage, spec)?;
            Ok(stage.to_owned())
        }
        // Of one place for several.
        Kind::Null | Kind::Tmpfs { archive: None, .. } => Ok(stage.to_owned()),
        Kind::Cgroup { below } => {
            let path = &spec.linux.cgroups_path;
            let view = cgroup::view(path, cgroup::Namespace::Host, false)?;
            let destination = Path::new(cgroup::ROOT).join(below);
            let own = |source: &str| match Path::new(source).ends_with(path.trim_start_matches('/')) {
                true => PathBuf::from(source),
                // v2's is the whole tree.
                false => Path::new(source).join(path.trim_start_matches('/')),
            };
            let found = view.mounts.iter().find(|mount| Path::new(&mount.destination) == destination);
            if let Some(found) = found.filter(|found| found.kind == "bind") {
                return Ok(own(&found.source));
            }
            // The tmpfs; or a hierarchy this host does not have, of which nothing can be shown.
            fresh("mode=755")?;
            if below.is_empty() {
                let inside = |path: &str| {
                    stage.join(Path::new(path).strip_prefix(cgroup::ROOT).unwrap_or(Path::new("")))
                };
                for mount in &view.mounts {
                    let path = inside(&mount.destination);
                    std::fs::create_dir_all(&path).map_err(|error| failed("make", &path, error))?;
                }
                for (link, target) in &view.symlinks {
                    let path = inside(link);
                    std::os::unix::fs::symlink(target, &path)
                        .map_err(|error| failed("make link", &path, error))?;
                }
            }
            Ok(stage.to_owned())
        }
    }
}

/// Shows at `stage` what is at `below` in `from`. The path is what a checkpoint says, and the links on its way are
/// whoever's who wrote there: it leads nowhere else.
fn place_below(from: &Path, below: &str, stage: &Path) -> Result<PathBuf, Error> {
    let open = || -> rustix::io::Result<OwnedFd> {
        let from = rustix::fs::open(from, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let found = rustix::fs::openat2(from, below, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), beneath)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        rustix::mount::open_tree(found, "", flags)
    };
    let tree = open().map_err(|errno| failed("open", from.join(below), errno))?;
    place_tree(&tree, stage)?;
    Ok(stage.to_owned())
}

/// Shows a detached tree at `stage`, made for it.
fn place_tree(tree: &OwnedFd, stage: &Path) -> Result<(), Error> {
    let stat = rustix::fs::fstat(tree).map_err(|errno| failed("look at", stage, errno))?;
    let made = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => std::fs::create_dir_all(stage),
        _ => stage
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| File::create(stage).map(drop)),
    };
    made.map_err(|error| failed("make", stage, error))?;
    rustix::mount::move_mount(tree, "", CWD, stage, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| failed("mount on", stage, errno))
}
