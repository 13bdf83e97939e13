//! A look into the root filesystem of a container that does not run.
//!
//! The layers are mounted in a mount namespace of a thread of its own: the host never sees the mount, and it
//! goes when the thread ends, however it ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use super::sys::process;
use super::{Cause, Error, Overlay, rootfs};

fn failed(op: &str, path: &Path, cause: impl Into<io::Error>) -> Error {
    Error { op: op.to_owned(), object: path.display().to_string(), cause: Cause::Io(cause.into()) }
}

/// Mounts `overlay` on the existing directory `at`, for `look` alone, and calls it with the root directory.
///
/// Blocks until `look` returns. Nobody else may mount the same layers meanwhile (`EBUSY`).
pub fn inside<T: Send>(
    overlay: &Overlay,
    at: &Path,
    look: impl FnOnce(BorrowedFd<'_>) -> T + Send,
) -> Result<T, Error> {
    let work = || -> Result<T, Error> {
        process::unshare(UnshareFlags::NEWNS)
            .map_err(|cause| failed("leave the mount namespace for", at, cause))?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .map_err(|cause| failed("make mounts private for", at, cause))?;
        rootfs::mount(overlay, at)?;
        let root = open_root(at)?;
        let seen = look(root.as_fd());
        drop(root);
        // The namespace would take it along, but later than the next look may want the layers.
        rootfs::unmount(at)?;
        Ok(seen)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("look".to_owned()).spawn_scoped(scope, work);
        match thread.map(std::thread::ScopedJoinHandle::join) {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(failed("look into", at, io::Error::other("its thread panicked"))),
            Err(cause) => Err(failed("start a thread to look into", at, cause)),
        }
    })
}

/// Opens a container's root directory: the mount point, or `/proc/<pid>/root`.
pub fn open_root(path: &Path) -> Result<std::os::fd::OwnedFd, Error> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|cause| failed("open root directory", path, cause))
}
