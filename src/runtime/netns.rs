//! Named network namespaces: a file one can join, outlive and hand to CRIU.
//!
//! The namespace is made on a thread of its own, because `unshare` moves the calling thread and a daemon's
//! threads belong to the host. What a fresh one needs before anybody runs in it is set here; interfaces
//! other than `lo`, addresses and routes are the daemon's.
//!
//! Source: network_namespaces(7), ip-netns(8) (the bind mount that names one).

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::sys::{net, process};
use super::{Cause, Error};

/// Written inside a new namespace.
const SYSCTLS: [(&str, &str); 3] = [
    // Go listens with MPTCP by default since 1.24 and falls back to TCP without it; CRIU cannot dump MPTCP.
    ("net/mptcp/enabled", "0"),
    // Compat: Docker lets any user of a container bind low ports and send pings.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// Makes a network namespace with `lo` up and binds it at `path`, a file that must not exist; its directory
/// must.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN; whatever creating the file says. Nothing is left behind.
pub fn create(path: &Path) -> Result<(), Error> {
    create_with(path, || Ok(()))
}

/// [`create`] with something more to be done inside before the namespace has its name, on the thread that made it.
///
/// # Errors
/// As [`create`], and what `setup` says.
pub fn create_with(path: &Path, setup: impl FnOnce() -> io::Result<()> + Send) -> Result<(), Error> {
    let failed = |cause: io::Error| Error {
        op: "create network namespace".to_owned(),
        object: path.display().to_string(),
        cause: Cause::Io(cause),
    };
    fs::File::create_new(path).map_err(failed)?;
    let made = on_thread(|| populate(path, setup));
    made.map_err(|cause| {
        let _ = fs::remove_file(path);
        failed(cause)
    })
}

/// Runs `work` in the namespace at `path`, on a thread of its own; sockets it opens stay there for good, and so do
/// threads it starts. Blocks until it is done.
///
/// # Errors
/// There is no namespace at `path`, or no thread to be had; what `work` says.
pub fn within<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_thread(|| {
        let namespace = fs::File::open(path)?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        work()
    })
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work)?;
        worker.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    })
}

/// A procfs of our own, mounted nowhere.
///
/// The names of settings are the same in all network namespaces, and procfs keeps those of each that was asked about in
/// one chain, which every look-up walks: beside 500 containers a name took ten times as long. This one is made to
/// forget them, which the host's cannot be asked to.
///
/// `None` where the kernel refuses; the host's is as good, if slower.
fn procfs() -> Option<&'static OwnedFd> {
    static OWN: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let make = || -> rustix::io::Result<OwnedFd> {
        let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
        rustix::mount::fsconfig_create(&context)?;
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    };
    OWN.get_or_init(|| make().ok()).as_ref()
}

/// Has [`procfs`] forget the names it keeps. The kernel drops what it remembers of a file system that is reconfigured.
fn forget_names() {
    if let Some(own) = procfs() {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        // Only the time it takes to find them depends on it.
        let _ = rustix::mount::fspick(own, "", flags).and_then(rustix::mount::fsconfig_reconfigure);
    }
}

fn open_setting(setting: &str, access: OFlags) -> io::Result<fs::File> {
    let flags = access | OFlags::CLOEXEC;
    let path = Path::new("sys").join(setting);
    let opened = match procfs() {
        Some(own) => rustix::fs::openat(own, &path, flags, Mode::empty()),
        None => rustix::fs::open(Path::new("/proc").join(path), flags, Mode::empty()),
    };
    Ok(opened?.into())
}

/// Writes a setting of the calling thread's namespace: `net/` and what follows it below `/proc/sys`, slashes between
/// the parts.
///
/// # Errors
/// `ENOENT` for what this kernel does not have; `EINVAL` for a value it does not like.
pub fn set(setting: &str, value: &str) -> io::Result<()> {
    open_setting(setting, OFlags::WRONLY)?.write_all(value.as_bytes())
}

/// Reads what [`set`] writes.
///
/// # Errors
/// `ENOENT` for what this kernel does not have.
pub fn get(setting: &str) -> io::Result<String> {
    io::read_to_string(open_setting(setting, OFlags::RDONLY)?)
}

fn populate(path: &Path, setup: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    process::unshare(UnshareFlags::NEWNET)?;
    net::set_up("lo")?;
    forget_names();
    for (name, value) in SYSCTLS {
        match set(name, value) {
            // A kernel built without MPTCP has nothing to turn off.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    setup()?;
    Ok(rustix::mount::mount_bind("/proc/thread-self/ns/net", path)?)
}

/// Takes the name away; the namespace goes with its last process. A name that is gone already is fine.
///
/// # Errors
/// `EPERM`, `EBUSY`.
pub fn remove(path: &Path) -> Result<(), Error> {
    let failed = |cause: io::Error| Error {
        op: "remove network namespace".to_owned(),
        object: path.display().to_string(),
        cause: Cause::Io(cause),
    };
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        // INVAL: a plain file, left by a creation that was cut short.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(failed(errno.into())),
    }
    fs::remove_file(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_namespace_has_lo_up_and_leaves_nothing() {
        let path = std::env::temp_dir().join(format!("dewar-netns-{}", std::process::id()));
        create(&path).unwrap();
        assert!(create(&path).is_err(), "a name is used once");
        let ours = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert_ne!(fs::metadata(&path).unwrap().ino(), ours);
        let inside = path.clone();
        let (state, ports, mptcp) = thread::spawn(move || {
            let namespace = fs::File::open(inside).unwrap();
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), None).unwrap();
            let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
            (
                read("/proc/thread-self/net/if_inet6").contains("lo"),
                read("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
                read("/proc/sys/net/mptcp/enabled"),
            )
        })
        .join()
        .unwrap();
        assert!(state || !Path::new("/proc/net/if_inet6").exists(), "lo has ::1 only once it is up");
        assert_eq!(ports.trim(), "0");
        assert!(mptcp.is_empty() || mptcp.trim() == "0");
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
    }
}
