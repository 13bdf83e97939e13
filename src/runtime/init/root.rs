//! Paths inside a root directory that somebody hostile filled.
//!
//! Every path is resolved by openat2(2) with `RESOLVE_IN_ROOT` from the root's descriptor: a link to
//! `/etc/shadow` or `../../..` ends inside, whatever the image says and however it changes meanwhile. What
//! is found is used by descriptor, never by name again.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// Links followed while making a path, as the kernel's own limit.
const MAX_LINKS: u32 = 40;
/// A rename elsewhere can make openat2 ask for another try.
const MAX_TRIES: u32 = 64;

/// What to make when a path is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Directory,
    /// An empty file, to mount on.
    File,
}

/// A root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Root {
    /// Opens the directory at `path` (a path of the host, trusted).
    ///
    /// # Errors
    /// As open(2).
    pub fn open(path: &Path) -> io::Result<Root> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Root { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Finds what `path` names, links followed, as an `O_PATH` descriptor.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn find(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, OFlags::PATH, ResolveFlags::empty())?)
    }

    /// Finds `path` if no link is on the way.
    ///
    /// # Errors
    /// `ELOOP` when there is one; else as openat2(2).
    pub fn find_plain(&self, path: &Path) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)?)
    }

    /// Finds `path`, making what is missing: directories 0755, the last as `kind` says. Links lead to where
    /// the container would see them lead, and what is missing there is made.
    ///
    /// # Errors
    /// `ENOTDIR`, `ELOOP`, `EROFS` and so on.
    pub fn make(&self, path: &Path, kind: Kind) -> io::Result<OwnedFd> {
        match self.find(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(self.walk(path, kind)?),
            other => other,
        }
    }

    /// The directory `path` is in, made if missing, and its name there.
    ///
    /// # Errors
    /// As [`Root::make`]; `EINVAL` when `path` is the root.
    pub fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::INVAL.into());
        };
        Ok((self.make(parent, Kind::Directory)?, name))
    }

    fn resolve(&self, path: &Path, flags: OFlags, more: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | more;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries < MAX_TRIES => tries += 1,
                other => return other,
            }
        }
    }

    /// Component by component, so that a link to nowhere shows what has to be made.
    fn walk(&self, path: &Path, kind: Kind) -> Result<OwnedFd, Errno> {
        let mut todo: VecDeque<OsString> = parts(path);
        let mut done = PathBuf::from("/");
        let mut links = 0;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let parent = self.resolve(&done, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::empty())?;
            let here = done.join(&name);
            let found = match self.resolve(&here, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::empty()) {
                Err(Errno::NOENT) => {
                    let kind = if todo.is_empty() { kind } else { Kind::Directory };
                    create(&parent, &name, kind)?;
                    self.resolve(&here, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::empty())?
                }
                other => other?,
            };
            if FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) != FileType::Symlink {
                done = here;
                continue;
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP);
            }
            let target = rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes();
            let target = PathBuf::from(OsString::from_vec(target));
            if target.is_absolute() {
                done = PathBuf::from("/");
            }
            for part in parts(&target).into_iter().rev() {
                todo.push_front(part);
            }
        }
        self.resolve(&done, OFlags::PATH, ResolveFlags::empty())
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

fn create(parent: &OwnedFd, name: &OsStr, kind: Kind) -> Result<(), Errno> {
    let made = match kind {
        Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let (file, mode) = (FileType::RegularFile, Mode::from_raw_mode(0o644));
            rustix::fs::mknodat(parent, name, file, mode, 0)
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// Opens what a path below `source` leads to. Containers write there: a link that leads out is refused.
///
/// # Errors
/// `EXDEV` when it leads out; as openat2(2).
pub fn open_below(source: &Path, below: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let top = rustix::fs::open(source, flags, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(&top, below, flags, Mode::empty(), resolve)
}

/// The type and, for device nodes, the number behind a descriptor.
///
/// # Errors
/// As fstat(2).
pub fn identify(fd: impl AsFd) -> io::Result<(FileType, (u32, u32))> {
    let stat = rustix::fs::fstat(fd)?;
    let number = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok((FileType::from_raw_mode(stat.st_mode), number))
}

/// Opens the container's own null device below `root` for reading and writing.
///
/// # Errors
/// `ENODEV` when `/dev/null` is anything else: a hostile process could have put a file there.
pub fn open_null(root: &Root) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let path = root.find(Path::new("/dev/null"))?;
    if identify(&path)? != (FileType::CharacterDevice, (1, 3)) {
        return Err(Errno::NODEV.into());
    }
    let null = root.resolve(Path::new("/dev/null"), flags, ResolveFlags::empty())?;
    if identify(&null)? != (FileType::CharacterDevice, (1, 3)) {
        return Err(Errno::NODEV.into());
    }
    rustix::fs::fcntl_setfl(&null, OFlags::empty())?;
    Ok(null)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("dewar-root-{name}-{}", std::process::id()));
            fs::create_dir_all(dir.join("root")).unwrap();
            Dir(dir)
        }

        fn root(&self) -> PathBuf {
            self.0.join("root")
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn links_out_of_the_root_stay_inside() {
        let dir = Dir::new("out");
        fs::create_dir(dir.0.join("outside")).unwrap();
        symlink(dir.0.join("outside"), dir.root().join("absolute")).unwrap();
        symlink("../outside", dir.root().join("climbing")).unwrap();
        symlink("/proc/self/root", dir.root().join("magic")).unwrap();
        let root = Root::open(&dir.root()).unwrap();
        for name in ["absolute", "climbing", "magic"] {
            root.make(&Path::new("/").join(name).join("made"), Kind::File).unwrap();
        }
        assert_eq!(fs::read_dir(dir.0.join("outside")).unwrap().count(), 0);
        assert!(dir.root().join("outside/made").exists());
        assert!(dir.root().join("proc/self/root/made").exists());
    }

    #[test]
    fn a_link_to_nowhere_is_made_where_the_container_sees_it() {
        let dir = Dir::new("nowhere");
        fs::create_dir(dir.root().join("etc")).unwrap();
        symlink("../run/systemd/resolve/stub.conf", dir.root().join("etc/resolv.conf")).unwrap();
        let root = Root::open(&dir.root()).unwrap();
        root.make(Path::new("/etc/resolv.conf"), Kind::File).unwrap();
        assert!(dir.root().join("run/systemd/resolve/stub.conf").is_file());
        assert_eq!(
            root.find_plain(Path::new("/etc/resolv.conf")).unwrap_err().raw_os_error(),
            Some(libc::ELOOP)
        );
    }

    #[test]
    fn circles_and_files_on_the_way_are_errors() {
        let dir = Dir::new("circle");
        symlink("b", dir.root().join("a")).unwrap();
        symlink("a", dir.root().join("b")).unwrap();
        fs::write(dir.root().join("file"), "").unwrap();
        let root = Root::open(&dir.root()).unwrap();
        assert!(root.make(Path::new("/a/x"), Kind::File).is_err());
        assert!(root.make(Path::new("/file/x"), Kind::Directory).is_err());
        assert!(root.parent(Path::new("/")).is_err());
        assert!(open_null(&root).is_err());
    }
}
