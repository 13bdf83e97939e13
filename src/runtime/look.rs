//! A look into a container's root filesystem that hinders nobody.
//!
//! ```text
//!  running  the container's mount namespace ──copy──▶ View ── root: what its processes see
//!  stopped  layers (+ its binds) ──mount in a new one──▶ View ── bare: the root file system alone
//! ```
//!
//! A [`View`] is a mount namespace that nobody is in, kept by a descriptor: the host never sees its mounts,
//! and they go when it is dropped. It stays whole while the container stops, starts or is removed. A start
//! meanwhile must use the view's overlay, because the kernel gives the same upper directory to one overlay
//! only: [`Overlay::shared`] names it.
//!
//! Namespaces belong to threads, so each view is made on a thread of its own that ends with the making.
//! Nothing runs in the container, and its paths are resolved by `openat2` below the root's descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::init::root::{self, Kind, Root};
use super::sys::mount::{Attributes, Reach, set_attributes};
use super::sys::process;
use super::{Cause, Error, Overlay, rootfs};

/// Something of the host's to show in the view of a container that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    /// What of the source is shown; empty for all.
    pub below: PathBuf,
    /// In the container; made if missing, as a start would.
    pub target: PathBuf,
    pub read_only: bool,
}

/// A container's root filesystem as it is, for as long as this lives.
#[derive(Debug)]
pub struct View {
    /// Keeps the mounts.
    namespace: OwnedFd,
    root: OwnedFd,
    bare: OwnedFd,
}

impl View {
    /// What the process `pid` of a running container sees now.
    ///
    /// # Errors
    /// `ENOENT`, `ESRCH` or `EACCES` when it has ended; `EINVAL` when it lives in our own mount namespace,
    /// so that a number used again cannot show the host.
    pub fn of_process(pid: i32) -> Result<View, Error> {
        let path = format!("/proc/{pid}/ns/mnt");
        let failed = |cause: io::Error| failed("look at", Path::new(&path), cause);
        let theirs = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(errno.into()))?;
        let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let ours = rustix::fs::stat("/proc/self/ns/mnt").map_err(|errno| failed(errno.into()))?;
        if rustix::fs::fstat(&theirs).map(identity).map_err(|errno| failed(errno.into()))? == identity(ours) {
            return Err(failed(Errno::INVAL.into()));
        }
        on_a_thread(|| {
            let proc = open_directory(Path::new("/proc")).map_err(failed)?;
            process::unshare(UnshareFlags::FS).map_err(failed)?;
            join(theirs.as_fd()).map_err(failed)?;
            process::unshare(UnshareFlags::NEWNS).map_err(failed)?;
            View::here(&proc).map_err(failed)
        })
    }

    /// The layers of a container that does not run, with `binds` mounted in them. `at` is an existing empty
    /// directory, in use until this returns.
    ///
    /// # Errors
    /// As [`rootfs::mount`]. A bind whose source is not there is left out.
    pub fn of_layers(overlay: &Overlay, at: &Path, binds: &[Bind]) -> Result<View, Error> {
        on_a_thread(|| {
            let proc = open_directory(Path::new("/proc")).map_err(|cause| failed("open", at, cause))?;
            process::unshare(UnshareFlags::NEWNS)
                .map_err(|cause| failed("leave the mount namespace for", at, cause))?;
            make_private().map_err(|cause| failed("make mounts private for", at, cause))?;
            rootfs::mount(overlay, at)?;
            let root = Root::open(at).map_err(|cause| failed("open", at, cause))?;
            for bind in binds {
                attach(&root, bind).map_err(|cause| failed("mount on", &bind.target, cause))?;
            }
            enter(at).map_err(|cause| failed("pivot_root to", at, cause))?;
            View::here(&proc).map_err(|cause| failed("look at", at, cause))
        })
    }

    /// Of the mount namespace the calling thread is alone in; `proc` is the host's.
    fn here(proc: &OwnedFd) -> io::Result<View> {
        // A copy of mounts that are told of others' changes would be told too.
        make_private()?;
        let namespace = OFlags::RDONLY | OFlags::CLOEXEC;
        Ok(View {
            namespace: rustix::fs::openat(proc, "thread-self/ns/mnt", namespace, Mode::empty())?,
            root: open_directory(Path::new("/"))?,
            bare: rustix::mount::open_tree(CWD, "/", clone_flags())?,
        })
    }

    /// The root directory with everything that is mounted in it.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The root file system alone.
    pub fn bare(&self) -> BorrowedFd<'_> {
        self.bare.as_fd()
    }

    /// The value for [`Overlay::shared`], good in any process of this host while this lives.
    pub fn shared(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_raw_fd()))
    }
}

/// The root file system of the mount namespace at `path`, without what is mounted in it, mounted nowhere.
///
/// # Errors
/// As open(2), setns(2) and open_tree(2).
pub(super) fn root_of(path: &Path) -> io::Result<OwnedFd> {
    let namespace = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    on_a_thread(|| {
        process::unshare(UnshareFlags::FS)?;
        join(namespace.as_fd())?;
        Ok(rustix::mount::open_tree(CWD, "/", clone_flags())?)
    })
}

/// The layers of `overlay` below its writable one, read-only and mounted nowhere. `at` is an existing empty
/// directory, in use until this returns.
///
/// # Errors
/// As [`rootfs::mount`].
pub fn below(overlay: &Overlay, at: &Path) -> Result<OwnedFd, Error> {
    match rootfs::lower_tree(overlay) {
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => {}
        other => return other.map_err(|errno| failed("mount the lower layers for", at, errno.into())),
    }
    on_a_thread(|| {
        process::unshare(UnshareFlags::NEWNS)?;
        make_private()?;
        rootfs::mount_lower(overlay, at)?;
        Ok(rustix::mount::open_tree(CWD, at, clone_flags())?)
    })
    .map_err(|cause: io::Error| failed("mount the lower layers on", at, cause))
}

fn join(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?)
}

fn make_private() -> io::Result<()> {
    let flags = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(rustix::mount::mount_change("/", flags)?)
}

/// Mounts what a running container would have there. Its own files decide where that is, so the target is
/// resolved below `root` and used by descriptor.
fn attach(root: &Root, bind: &Bind) -> io::Result<()> {
    let flags = clone_flags() | OpenTreeFlags::AT_RECURSIVE;
    let opened = if bind.below.as_os_str().is_empty() {
        rustix::mount::open_tree(CWD, &bind.source, flags)
    } else {
        root::open_below(&bind.source, &bind.below)
            .and_then(|below| rustix::mount::open_tree(&below, "", flags | OpenTreeFlags::AT_EMPTY_PATH))
    };
    let tree = match opened {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV) => return Ok(()),
        other => other?,
    };
    let (kind, _) = root::identify(&tree)?;
    let kind = if kind == FileType::Directory { Kind::Directory } else { Kind::File };
    let target = root.make(&bind.target, kind)?;
    if bind.read_only {
        let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, ..Attributes::default() };
        set_attributes(tree.as_fd(), attributes, Reach::Recursive)?;
    }
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&tree, "", &target, "", flags)?)
}

/// Makes the mount at `at` the root of this namespace and lets everything else go.
fn enter(at: &Path) -> io::Result<()> {
    rustix::process::chdir(at)?;
    // Source: pivot_root(2), "pivot_root(\".\", \".\")": the old root ends up on top of the new one.
    rustix::process::pivot_root(".", ".")?;
    Ok(rustix::mount::unmount(".", UnmountFlags::DETACH)?)
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Runs `work` on a thread that may change its namespaces, and waits for it.
fn on_a_thread<T: Send, E: From<ThreadFailed> + Send>(
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("look".to_owned()).spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ThreadFailed(io::Error::other("its thread panicked")).into()),
            Err(cause) => Err(ThreadFailed(cause).into()),
        }
    })
}

/// The thread could not be had, or panicked.
struct ThreadFailed(io::Error);

impl From<ThreadFailed> for io::Error {
    fn from(failure: ThreadFailed) -> io::Error {
        failure.0
    }
}

impl From<ThreadFailed> for Error {
    fn from(failure: ThreadFailed) -> Error {
        failed("start a thread to look into", Path::new("a container"), failure.0)
    }
}

fn failed(op: &str, path: &Path, cause: io::Error) -> Error {
    Error { op: op.to_owned(), object: path.display().to_string(), cause: Cause::Io(cause) }
}
