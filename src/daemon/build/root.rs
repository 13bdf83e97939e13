//! File trees to read from and paths in them: images, contexts, and where a path leads in an image.
//!
//! An image's files are read through a mount that nobody else sees and that goes with its descriptor. Links are
//! the image's own affair: they are followed as its processes would, and never lead out.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::Staging;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::ImageId;
use crate::runtime::{Overlay, look};

/// Links followed in one path. Source: Linux.
const MAX_LINKS: usize = 40;

/// An empty directory.
pub fn empty(staging: &Staging) -> Result<OwnedFd> {
    open_directory(&staging.make("empty")?)
}

pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::system(format!("open {}", path.display()), errno))
}

/// What the image's processes would find, as it is.
pub fn of_image(engine: &Engine, staging: &Staging, id: &ImageId) -> Result<OwnedFd> {
    let mut lower = engine.images.layers_of(id)?;
    // The kernel wants two at least.
    lower.push(staging.make("empty")?);
    let overlay =
        Overlay { lower, upper: PathBuf::new(), work: PathBuf::new(), volatile: false, shared: None };
    Ok(look::below(&overlay, &staging.make("look")?)?)
}

/// `path`, taken from the directory `base`, without `.`, `..` and doubled slashes.
pub fn absolute(base: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{base}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Where a path leads.
#[derive(Debug)]
pub struct Place {
    /// From the root, without a slash at its start, and without links but for what is missing.
    pub path: Vec<u8>,
    /// `None` when there is nothing.
    pub stat: Option<Stat>,
}

impl Place {
    pub fn is_directory(&self) -> bool {
        self.stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Directory)
    }
}

pub fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Follows `path` from `root`, links and all; what is missing is taken to be directories yet to be made.
pub fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<Place> {
    let failed =
        |cause: &str| Error::invalid(format!("resolve {:?}: {cause}", String::from_utf8_lossy(path)));
    let split = |path: &[u8]| path.split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
    let mut pending: VecDeque<Vec<u8>> = split(path).into();
    let (mut parts, mut links): (Vec<Vec<u8>>, usize) = (Vec::new(), 0);
    let mut stat = lstat(root, b"")?;
    while let Some(part) = pending.pop_front() {
        match part.as_slice() {
            b"" | b"." => continue,
            b".." => {
                parts.pop();
                stat = lstat(root, &parts.join(&b'/'))?;
                continue;
            }
            _ => {}
        }
        if stat.as_ref().is_some_and(|stat| kind(stat) != FileType::Directory) {
            return Err(failed("not a directory"));
        }
        parts.push(part);
        let here = parts.join(&b'/');
        // Below what is missing everything is.
        stat = if stat.is_some() { lstat(root, &here)? } else { None };
        if stat.as_ref().is_some_and(|stat| kind(stat) == FileType::Symlink) {
            links += 1;
            if links > MAX_LINKS {
                return Err(failed("too many levels of symbolic links"));
            }
            let link = open_plain(root, &here)
                .and_then(|inode| rustix::fs::readlinkat(&inode, "", Vec::new()))
                .map_err(|errno| failed(&errno.to_string()))?
                .into_bytes();
            match link.first() {
                Some(b'/') => parts.clear(),
                _ => drop(parts.pop()),
            }
            split(&link).into_iter().rev().for_each(|part| pending.push_front(part));
            stat = lstat(root, &parts.join(&b'/'))?;
        }
    }
    Ok(Place { path: parts.join(&b'/'), stat })
}

/// What is at a path without links in it; a link itself at its end.
pub fn lstat(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Stat>> {
    match open_plain(root, path).and_then(|inode| rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH)) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(Error::system(format!("look at {:?}", String::from_utf8_lossy(path)), errno)),
    }
}

/// The inode at a path without links in it.
///
/// # Errors
/// `ELOOP` for one with links, and openat2(2)'s.
pub fn open_plain(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_with(root, path, OFlags::NOFOLLOW, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// The inode a path leads to, links followed within `root`.
///
/// # Errors
/// openat2(2)'s.
pub fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    open_with(root, path, OFlags::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

fn open_with(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty(), resolve)
        {
            // Something was renamed at this moment.
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The file of this inode, to read.
pub fn reopen(inode: impl AsFd) -> std::io::Result<std::fs::File> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", inode.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?.into())
}

/// Removes what was made only to be mounted on, if nothing was put there: an empty directory or an empty file.
/// `path` has no links in it; what has come into it since is left alone.
pub fn remove_stub(root: BorrowedFd<'_>, path: &[u8]) {
    remove(root, path, |parent, name, stat| match kind(stat) {
        FileType::Directory => rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR),
        FileType::RegularFile if stat.st_size == 0 => rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        _ => Ok(()),
    });
}

/// Removes a file, if it is there. `path` has no links in it.
pub fn remove_file(root: BorrowedFd<'_>, path: &[u8]) {
    remove(root, path, |parent, name, _| rustix::fs::unlinkat(parent, name, AtFlags::empty()));
}

fn remove(root: BorrowedFd<'_>, path: &[u8], how: impl FnOnce(&OwnedFd, &[u8], &Stat) -> Result<(), Errno>) {
    let at = path.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
    let remove = || -> Result<(), Errno> {
        let parent = open_plain(root, parent)?;
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        how(&parent, name, &stat)
    };
    // Not empty, or not there: it is somebody else's doing.
    let _ = remove();
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn paths_are_made_absolute() {
        for (base, path, wanted) in
            [("", "a", "/a"), ("/w", "a/../b/.", "/w/b"), ("/w", "/x//y/", "/x/y"), ("/w", "../../..", "/")]
        {
            assert_eq!(absolute(base, path), wanted);
        }
    }

    #[test]
    fn links_are_followed_and_never_lead_out() {
        let dir = std::env::temp_dir().join(format!("dewar-build-root-{}", std::process::id()));
        let at = |name: &str| dir.join(name);
        std::fs::create_dir_all(at("run/real")).unwrap();
        std::fs::write(at("file"), b"").unwrap();
        for (link, target) in
            [("var", "/run/real"), ("out", "../../../../etc"), ("loop", "loop"), ("gone", "/a/b")]
        {
            symlink(target, at(link)).unwrap();
        }
        let root = open_directory(&dir).unwrap();
        let resolved = |path: &str| {
            resolve(root.as_fd(), path.as_bytes()).map(|place| String::from_utf8(place.path).unwrap())
        };
        assert_eq!(resolved("/var/new/file").unwrap(), "run/real/new/file");
        assert_eq!(resolved("out/passwd").unwrap(), "etc/passwd");
        assert_eq!(resolved("gone/x/../y").unwrap(), "a/b/y");
        assert_eq!(resolved("/").unwrap(), "");
        assert!(resolved("loop").unwrap_err().message.contains("too many levels"));
        assert!(resolved("file/x").unwrap_err().message.contains("not a directory"));
        assert!(resolve(root.as_fd(), b"var").unwrap().is_directory());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
