//! Named network namespaces: a file one can join, outlive and hand to CRIU.
//!
//! The namespace is made on a thread of its own, because `unshare` moves the calling thread and a daemon's
//! threads belong to the host. What a fresh one needs before anybody runs in it is set here; interfaces
//! other than `lo`, addresses and routes are the daemon's.
//!
//! Source: network_namespaces(7), ip-netns(8) (the bind mount that names one).

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::sys::{net, process};
use super::{Cause, Error};

/// Where the settings of the namespace are. The kernel finds the one of a thread among those of all namespaces: once
/// is enough.
const SETTINGS: &str = "/proc/sys/net";
/// Written inside a new namespace.
const SYSCTLS: [(&str, &str); 3] = [
    // Go listens with MPTCP by default since 1.24 and falls back to TCP without it; CRIU cannot dump MPTCP.
    ("mptcp/enabled", "0"),
    // Compat: Docker lets any user of a container bind low ports and send pings.
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0 2147483647"),
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

/// Writes a setting of the calling thread's namespace: `net/` and what follows it below `/proc/sys`, slashes between
/// the parts.
///
/// # Errors
/// `ENOENT` for what this kernel does not have; `EINVAL` for a value it does not like.
pub fn set(setting: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(setting), value)
}

fn populate(path: &Path, setup: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    process::unshare(UnshareFlags::NEWNET)?;
    net::set_up("lo")?;
    let settings =
        rustix::fs::open(SETTINGS, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for (name, value) in SYSCTLS {
        match rustix::fs::openat(&settings, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => fs::File::from(file).write_all(value.as_bytes())?,
            // A kernel built without MPTCP has nothing to turn off.
            Err(rustix::io::Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
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
