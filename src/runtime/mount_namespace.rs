//! The mount namespace a container begins in: the host's mounts, without those that are only names.
//!
//! The name of a network namespace is a mount. unshare(2) copies every mount there is, for the shim and again for the
//! container's first process, and taking the copies down costs as much: beside 500 containers it was a third of a start.
//!
//! ```text
//!   daemon   keep_out   the directory of names becomes a mount that copies made by binding pass by
//!            bare       a mount namespace with next to nothing in it
//!   shim     leave      copies the host's tree by binding, goes into a copy of the bare one, and has the tree for its root
//! ```
//!
//! Sources: mount_namespaces(7), open_tree(2), pivot_root(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::spec::{NamespaceKind, Spec};
use super::sys::process;
use super::{Cause, Error, Overlay};

/// Has mounts below the directory `dir` stay out of containers' mount namespaces. Again is fine. Where names are in it
/// from before, those who hold them would lose them: it stays as it is.
///
/// # Errors
/// `EPERM`; there is no such directory.
pub fn keep_out(dir: &Path) -> io::Result<()> {
    let found = rustix::fs::statx(CWD, dir, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
    if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        if fs::read_dir(dir)?.next().is_some() {
            return Ok(());
        }
        rustix::mount::mount_bind(dir, dir)?;
    }
    Ok(rustix::mount::mount_change(dir, MountPropagationFlags::UNBINDABLE)?)
}

/// Undoes [`keep_out`], unless there are names below `dir`.
///
/// # Errors
/// `EPERM`.
pub fn let_in(dir: &Path) -> io::Result<()> {
    match rustix::mount::unmount(dir, UnmountFlags::NOFOLLOW) {
        // INVAL: it is no mount.
        Ok(()) | Err(Errno::BUSY | Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Makes a mount namespace that has an empty directory for its root, for [`leave`]. Blocks for as long as copying the
/// mount table takes.
///
/// # Errors
/// `EPERM`, `ENOSPC`; `EINVAL` where our root lies on nothing that could be pivoted.
pub fn bare() -> io::Result<OwnedFd> {
    let make = || -> io::Result<OwnedFd> {
        process::unshare(UnshareFlags::NEWNS)?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let namespace = open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?;
        let host = open("/", OFlags::PATH | OFlags::DIRECTORY)?;
        let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        let root = rustix::mount::fsmount(
            &context,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_RDONLY,
        )?;
        attach(&root, Path::new("/proc"))?;
        rustix::process::fchdir(&root)?;
        rustix::process::pivot_root(".", ".")?;
        rustix::process::fchdir(&host)?;
        rustix::mount::unmount(".", UnmountFlags::DETACH)?;
        Ok(namespace)
    };
    thread::scope(|scope| {
        scope.spawn(make).join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    })
}

/// Takes the calling thread, which must share its root with no other, to a mount namespace of its own, with the host's
/// mounts but for those that are kept out; of these only the name of the container's own network namespace is there.
/// Mounts that the host shares are slaves: what it unmounts is not held.
///
/// Without a `bare` one, or where something of the container's lies below a mount that cannot be bound, the copy is of
/// everything.
///
/// # Errors
/// `EPERM`, `ENOSPC`.
pub fn leave(bare: Option<BorrowedFd<'_>>, spec: &Spec, overlay: &Overlay) -> Result<(), Error> {
    let failed = |op: &str, object: &str, cause: io::Error| Error {
        op: op.to_owned(),
        object: object.to_owned(),
        cause: Cause::Io(cause),
    };
    let name = match bare {
        Some(bare) => leave_through(bare, spec, overlay)
            .map_err(|cause| failed("leave", "the mount namespace by way of a bare one", cause))?,
        None => Way::Barred,
    };
    if matches!(name, Way::Barred) {
        process::unshare(UnshareFlags::NEWNS)
            .map_err(|cause| failed("leave", "the mount namespace", cause))?;
    }
    let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", slave).map_err(|errno| failed("detach mounts of", "/", errno.into()))?;
    match name {
        // Not before: a mount below one that the host shares would be the host's, too.
        Way::Through(Some((path, tree))) => {
            attach(&tree, path).map_err(|cause| failed("show", &path.display().to_string(), cause))
        }
        Way::Through(None) | Way::Barred => Ok(()),
    }
}

/// What came of going by a bare namespace.
enum Way<'a> {
    /// We are there. The name is still to be put in its place.
    Through(Option<(&'a Path, OwnedFd)>),
    /// Something of the container's would not be seen: we are where we were.
    Barred,
}

fn leave_through<'a>(bare: BorrowedFd<'_>, spec: &'a Spec, overlay: &Overlay) -> io::Result<Way<'a>> {
    let binds = spec.mounts.iter().map(|mount| PathBuf::from(&mount.source));
    let sources: Vec<PathBuf> = binds
        .filter(|source| source.is_absolute() && !source.starts_with("/proc"))
        .chain(overlay.lower.iter().cloned())
        .chain([overlay.upper.clone()])
        .collect();
    let look = || sources.iter().map(|source| identity(source)).collect::<Vec<_>>();
    let network = spec.linux.namespaces.iter().find(|namespace| namespace.kind == NamespaceKind::Network);
    let network = network.and_then(|network| network.path.as_deref().map(Path::new));
    let name = match network.filter(|path| !path.starts_with("/proc")) {
        Some(path) => Some((path, identity(path), clone(path, OpenTreeFlags::empty())?)),
        None => None,
    };
    let seen = look();
    let home = open("/proc/thread-self/ns/mnt", OFlags::RDONLY)?;
    let host = clone(Path::new("/"), OpenTreeFlags::AT_RECURSIVE)?;
    rustix::thread::move_into_link_name_space(bare, Some(LinkNameSpaceType::Mount))?;
    process::unshare(UnshareFlags::NEWNS)?;
    attach(&host, Path::new("/"))?;
    rustix::process::fchdir(&host)?;
    rustix::process::chroot(".")?;
    if look() != seen {
        rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Mount))?;
        return Ok(Way::Barred);
    }
    let is_missing = |(path, is, _): &(&Path, _, _)| identity(path) != *is;
    Ok(Way::Through(name.filter(is_missing).map(|(path, _, tree)| (path, tree))))
}

/// What is at `path`, to tell it from something else there: device and inode.
fn identity(path: &Path) -> Option<(u64, u64)> {
    rustix::fs::stat(path).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

fn clone(path: &Path, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | more;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

fn open(path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::netns;
    use crate::runtime::spec::{Mount, Namespace};

    /// Runs `work` where its mounts are nobody else's.
    fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        aside(|| {
            process::unshare(UnshareFlags::NEWNS).unwrap();
            let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", slave).unwrap();
            // As on most hosts.
            let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", shared).unwrap();
            work()
        })
    }

    /// Runs `work` on a thread that can be taken elsewhere.
    fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        let aside = || {
            process::unshare(UnshareFlags::FS).unwrap();
            work()
        };
        thread::scope(|scope| scope.spawn(aside).join().unwrap())
    }

    fn points(below: &Path) -> Vec<PathBuf> {
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
        points.filter(|point| point.starts_with(below)).collect()
    }

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-{name}-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        dir
    }

    fn overlay(upper: PathBuf) -> Overlay {
        Overlay { lower: Vec::new(), work: upper.clone(), upper, volatile: false, shared: None }
    }

    #[test]
    fn of_all_names_only_the_containers_own_is_there() {
        let dir = scratch("names");
        apart(|| {
            keep_out(&dir).unwrap();
            keep_out(&dir).unwrap();
            assert_eq!(points(&dir), [dir.as_path()], "once is enough");
            let names = ["a", "b", "c"].map(|name| dir.join(name));
            names.iter().for_each(|name| netns::create(name).unwrap());
            let bare = bare().unwrap();
            let mut spec = Spec::default();
            let path = Some(names[1].display().to_string());
            spec.linux.namespaces.push(Namespace { kind: NamespaceKind::Network, path });
            let is = identity(&names[1]);
            let (there, seen) = aside(|| {
                leave(Some(bare.as_fd()), &spec, &overlay(dir.clone())).unwrap();
                assert!(Path::new("/proc/thread-self/mountinfo").exists());
                (points(&dir), identity(&names[1]))
            });
            assert_eq!((there, seen), (vec![names[1].clone()], is));
            assert_eq!(points(&dir).len(), 4, "the host has none of it");
            let_in(&dir).unwrap();
            assert_eq!(points(&dir).len(), 4, "names are not taken away");
            names.iter().for_each(|name| netns::remove(name).unwrap());
            let_in(&dir).unwrap();
            assert_eq!(points(&dir), Vec::<PathBuf>::new());
        });
        fs::remove_dir(dir).unwrap();
    }

    #[test]
    fn names_from_before_are_left_where_they_are() {
        let dir = scratch("before");
        apart(|| {
            netns::create(&dir.join("a")).unwrap();
            keep_out(&dir).unwrap();
            assert_eq!(points(&dir), [dir.join("a")]);
            netns::remove(&dir.join("a")).unwrap();
        });
        fs::remove_dir(dir).unwrap();
    }

    /// Someone else's mount that cannot be bound hides what is mounted below it.
    #[test]
    fn what_a_copy_by_binding_would_not_show_is_there_all_the_same() {
        let dir = scratch("hidden");
        apart(|| {
            keep_out(&dir).unwrap();
            let below = dir.join("volume");
            fs::create_dir(&below).unwrap();
            rustix::mount::mount("tmpfs", &below, "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
            fs::write(below.join("file"), "x").unwrap();
            let bare = bare().unwrap();
            let source = below.display().to_string();
            let mount = Mount { destination: "/v".into(), kind: "bind".into(), source, options: Vec::new() };
            let spec = Spec { mounts: vec![mount], ..Spec::default() };
            aside(|| {
                leave(Some(bare.as_fd()), &spec, &overlay("/".into())).unwrap();
                assert_eq!(fs::read(below.join("file")).unwrap(), b"x");
            });
            rustix::mount::unmount(&below, UnmountFlags::DETACH).unwrap();
            fs::remove_dir(&below).unwrap();
            let_in(&dir).unwrap();
        });
        fs::remove_dir(dir).unwrap();
    }
}
