//! Mounts of the namespace we are in: what there is, and the few the daemon makes for volumes.
//!
//! Not here: what a container mounts (`plan`, `init`), its root (`rootfs`).
//!
//! Sources: proc_pid_mountinfo(5), mount(2), mount_namespaces(7).

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::plan::{Binding, Options};
use super::sys::mount::{Attributes, Reach, set_attributes};
use super::{Cause, Error, Overlay, rootfs};

/// A line of mountinfo, as far as it matters.
#[derive(Debug, PartialEq, Eq)]
pub struct Mounted {
    /// The kernel's, unique while it is mounted.
    pub id: u64,
    /// Major and minor number of the file system.
    pub device: (u32, u32),
    /// The directory of the file system that is shown.
    pub root: String,
    pub destination: String,
    pub kind: String,
    /// The superblock's.
    pub options: String,
    /// The mount, or all of the file system.
    pub is_read_only: bool,
    /// Mounts made here appear in its peers, and the reverse.
    pub is_shared: bool,
    /// Mounts made in its master appear here.
    pub is_slave: bool,
}

/// Parses `/proc/PID/mountinfo`.
pub fn parse(text: &str) -> Vec<Mounted> {
    let line = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ');
        let (id, device) = (left.next()?.parse().ok()?, left.nth(1)?);
        let (major, minor) = device.split_once(':')?;
        let (root, destination, own_options) = (left.next()?, left.next()?, left.next()?);
        let tags: Vec<&str> = left.collect();
        let has = |tag: &str| tags.iter().any(|word| word.starts_with(tag));
        let mut right = right.split(' ');
        let kind = right.next()?.to_owned();
        let options = right.nth(1).unwrap_or_default().to_owned();
        let is_read_only = [own_options, &options].iter().any(|all| all.split(',').any(|word| word == "ro"));
        Some(Mounted {
            id,
            device: (major.parse().ok()?, minor.parse().ok()?),
            is_read_only,
            root: unescape(root),
            destination: unescape(destination),
            kind,
            options,
            is_shared: has("shared:"),
            is_slave: has("master:"),
        })
    };
    text.lines().filter_map(line).collect()
}

/// Undoes the kernel's octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        let code = after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The mounts we see, in the order they were made.
///
/// # Errors
/// There is no /proc.
pub fn list() -> Result<Vec<Mounted>, Error> {
    let path = "/proc/self/mountinfo";
    let text = std::fs::read_to_string(path).map_err(|cause| failed("read", path, cause))?;
    Ok(parse(&text))
}

/// The mount `path`, absolute and without links, lies on.
pub fn holding<'a>(mounts: &'a [Mounted], path: &Path) -> Option<&'a Mounted> {
    // Of two on one another the later one is seen.
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.destination))
        .max_by_key(|mount| Path::new(&mount.destination).components().count())
}

/// Mounts `device` on the existing directory `at` of the host, as mount(8) would be asked to.
///
/// The mount is shared: shims that have a copy of it lose it when it is unmounted here.
///
/// # Errors
/// [`Cause::Refused`] for options that make no sense; else the kernel's.
pub fn mount(kind: &str, device: &str, at: &Path, words: &[String]) -> Result<(), Error> {
    let refuse = |cause: String| Error {
        op: "mount on".to_owned(),
        object: at.display().to_string(),
        cause: Cause::Refused(cause),
    };
    let (flags, words) = flags(words);
    let options = Options::parse(&words).map_err(refuse)?;
    let made = if options.binding == Binding::None {
        filesystem(kind, device, at, flags, &options)
    } else {
        bind(Path::new(device), at, &options)
    };
    made.and_then(|()| {
        rustix::mount::mount_change(at, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
        Ok(())
    })
    .map_err(|cause| failed("mount on", at, cause))
}

/// Mounts layers, with one that is written to on top, on the existing directory `at` of the host; shared, as
/// [`mount`] does.
///
/// # Errors
/// As [`rootfs::mount`].
pub fn mount_layers(overlay: &Overlay, at: &Path) -> Result<(), Error> {
    rootfs::mount(overlay, at)?;
    rustix::mount::mount_change(at, MountPropagationFlags::SHARED)
        .map_err(|cause| failed("mount on", at, cause.into()))
}

/// Takes away what is mounted on `at`; nothing there is fine.
///
/// # Errors
/// `EPERM`.
pub fn unmount(at: &Path) -> Result<(), Error> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("unmount", at, errno.into())),
    }
}

/// The words that are the superblock's flags for mount(2), and the others.
fn flags(words: &[String]) -> (MountFlags, Vec<String>) {
    let mut flags = MountFlags::empty();
    let mut others = Vec::new();
    for word in words {
        match word.as_str() {
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            _ => others.push(word.clone()),
        }
    }
    (flags, others)
}

fn filesystem(kind: &str, device: &str, at: &Path, flags: MountFlags, options: &Options) -> io::Result<()> {
    let data = CString::new(options.data.join(","))?;
    let data = (!options.data.is_empty()).then_some(data.as_c_str());
    let mut flags = flags;
    for (attribute, flag) in [
        (libc::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (libc::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (libc::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (libc::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
        (libc::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
        (libc::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
        (libc::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
    ] {
        if (options.attributes | options.recursive) & attribute != 0 {
            flags |= flag;
        }
    }
    Ok(rustix::mount::mount(device, at, kind, flags, data)?)
}

fn bind(source: &Path, at: &Path, options: &Options) -> io::Result<()> {
    let mut clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.binding == Binding::Tree {
        clone |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = rustix::mount::open_tree(CWD, source, clone)?;
    // What happens to the source's mounts is followed, what happens here is not told to them.
    let slave = Attributes { propagation: libc::MS_SLAVE, ..Attributes::default() };
    set_attributes(tree.as_fd(), slave, Reach::Recursive)?;
    for (set, reach) in [(options.attributes, Reach::One), (options.recursive, Reach::Recursive)] {
        if set != 0 {
            let clear = if set & libc::MOUNT_ATTR__ATIME == 0 { 0 } else { libc::MOUNT_ATTR__ATIME };
            set_attributes(tree.as_fd(), Attributes { set, clear, propagation: 0 }, reach)?;
        }
    }
    Ok(rustix::mount::move_mount(&tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// `path` with its links resolved, for [`holding`]; as it is when that fails.
pub fn resolved(path: &Path) -> PathBuf {
    std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn failed(op: &str, object: impl AsRef<Path>, cause: io::Error) -> Error {
    Error { op: op.to_owned(), object: object.as_ref().display().to_string(), cause: Cause::Io(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
519 484 0:45 / / rw,relatime shared:1 - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
523 521 0:51 / /dev/shm rw,nosuid shared:3 master:2 - tmpfs shm rw,size=65536k
525 519 254:1 /srv/my\\040data /data rw,relatime master:9 propagate_from:2 - ext4 /dev/vda1 rw
526 525 0:60 / /data/sub rw,relatime - tmpfs tmpfs rw
";

    #[test]
    fn mountinfo_is_parsed_with_its_escapes_and_peers() {
        let mounts = parse(MOUNTINFO);
        assert_eq!(mounts.len(), 4);
        assert_eq!(mounts[2].root, "/srv/my data");
        assert_eq!((mounts[1].kind.as_str(), mounts[1].options.as_str()), ("tmpfs", "rw,size=65536k"));
        let peers: Vec<_> = mounts.iter().map(|mount| (mount.is_shared, mount.is_slave)).collect();
        assert_eq!(peers, [(true, false), (true, true), (false, true), (false, false)]);
        assert!(parse("nonsense\n1 2 3 - x").is_empty());
    }

    #[test]
    fn the_mount_that_holds_a_path_is_the_nearest_above() {
        let mounts = parse(MOUNTINFO);
        let holding = |path: &str| holding(&mounts, Path::new(path)).unwrap().destination.clone();
        assert_eq!(holding("/data/sub/x"), "/data/sub");
        assert_eq!(holding("/data/subway"), "/data");
        assert_eq!(holding("/database"), "/");
    }
}
