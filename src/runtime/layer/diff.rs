//! What a container changed: its upper directory, held against the layers below.
//!
//! ```text
//!  upper                          below    change
//!  0:0 device                     there    D
//!  anything                       nothing  A
//!  anything                       there    C if owner, mode, device, capabilities or (but for
//!                                          directories) size or time differ
//!  directory, opaque              there    D for each name that only `below` has
//! ```
//!
//! A directory in which something changed is C at least; the root itself is never told. As in Docker, what a
//! deleted directory had in it is not told either.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::pack::{join, list};
use super::unpack::{magic_link, open_in};
use super::{OPAQUE, alias, error, refused, shown};
use crate::runtime::{Cause, Error};

/// How a name changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Modified,
    Added,
    Deleted,
}

/// Absolute paths and what became of them, in the order of their bytes.
pub type Changes = BTreeMap<Vec<u8>, Change>;

/// The changes that `upper`, the writable directory of an overlay, makes to the tree `below`. Both may be in
/// use: what vanishes meanwhile is passed over.
///
/// # Errors
/// `Cause::Refused` for a directory that was renamed without its content (overlay's `redirect_dir`).
pub fn changes(upper: &Path, below: BorrowedFd<'_>) -> Result<Changes, Error> {
    let failed = |cause: Cause| error("compare", upper.display().to_string(), cause);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let upper = rustix::fs::open(upper, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
    let mut found = Changes::new();
    // Directories of `upper` yet to be read, and whether `below` has one of that name.
    let mut pending = vec![(Vec::new(), true)];
    let mut marked = Vec::new();
    while let Some((path, is_below)) = pending.pop() {
        let compared = compare(upper.as_fd(), below, &path, is_below, &mut found, &mut marked);
        pending.extend(compared.map_err(|cause| error("compare", format!("{:?}", shown(&path)), cause))?);
    }
    let others = alias::find(upper.as_fd(), below, &marked).map_err(|errno| failed(errno.into()))?;
    for (path, of) in others {
        if found.contains_key(&[b"/", of.as_slice()].concat()) {
            tell(&mut found, &path, Change::Modified);
        }
    }
    Ok(found)
}

/// One directory; those in it that are left to compare. Files to look for other names of go to `marked`.
fn compare(
    upper: BorrowedFd<'_>,
    below: BorrowedFd<'_>,
    path: &[u8],
    is_below: bool,
    found: &mut Changes,
    marked: &mut Vec<Vec<u8>>,
) -> Result<Vec<(Vec<u8>, bool)>, Cause> {
    let Some(directory) = open(upper, path)? else { return Ok(Vec::new()) };
    let old = if is_below { open(below, path)? } else { None };
    if xattr(directory.as_fd(), b".", "trusted.overlay.redirect")?.is_some() {
        return Err(refused("its content is in a lower layer (overlay redirect)"));
    }
    let mut names = list(directory.as_fd())?;
    names.sort();
    let mut inner = Vec::new();
    for name in &names {
        let Some(stat) = stat(directory.as_fd(), name)? else { continue };
        let before = match &old {
            Some(old) => self::stat(old.as_fd(), name)?,
            None => None,
        };
        let child = join(path, name);
        let kind = FileType::from_raw_mode(stat.st_mode);
        match &before {
            Some(_) if kind == FileType::CharacterDevice && stat.st_rdev == 0 => {
                tell(found, &child, Change::Deleted);
                continue;
            }
            None if kind == FileType::CharacterDevice && stat.st_rdev == 0 => continue,
            None => tell(found, &child, Change::Added),
            Some(before) => {
                if before.st_nlink > 1
                    && kind != FileType::Directory
                    && xattr(directory.as_fd(), name, alias::NAMES)?.is_some()
                {
                    marked.push(child.clone());
                }
                let capabilities = |fd: BorrowedFd<'_>| xattr(fd, name, "security.capability");
                let old = old.as_ref().map(AsFd::as_fd).unwrap_or(below);
                if differ(before, &stat)
                    || kind == FileType::RegularFile && capabilities(directory.as_fd())? != capabilities(old)?
                {
                    tell(found, &child, Change::Modified);
                }
            }
        }
        if kind == FileType::Directory {
            let is_below =
                before.is_some_and(|before| FileType::from_raw_mode(before.st_mode) == FileType::Directory);
            inner.push((child, is_below));
        }
    }
    if let Some(old) = old
        && xattr(directory.as_fd(), b".", OPAQUE)?.as_deref() == Some(b"y")
    {
        for name in list(old.as_fd())? {
            if names.binary_search(&name).is_err() {
                tell(found, &join(path, &name), Change::Deleted);
            }
        }
    }
    Ok(inner)
}

/// Notes a change, and that the directories it is in are not as they were.
fn tell(found: &mut Changes, path: &[u8], change: Change) {
    let absolute = [b"/", path].concat();
    for (at, byte) in absolute.iter().enumerate().skip(1) {
        if *byte == b'/' {
            found.entry(absolute[..at].to_vec()).or_insert(Change::Modified);
        }
    }
    found.insert(absolute, change);
}

fn differ(before: &Stat, now: &Stat) -> bool {
    let is_directory = FileType::from_raw_mode(before.st_mode) == FileType::Directory;
    // A file system without fractions of seconds is no change; source: Docker.
    let is_same_time = before.st_mtime == now.st_mtime
        && (before.st_mtime_nsec == now.st_mtime_nsec || before.st_mtime_nsec == 0 || now.st_mtime_nsec == 0);
    (before.st_mode, before.st_uid, before.st_gid, before.st_rdev)
        != (now.st_mode, now.st_uid, now.st_gid, now.st_rdev)
        || !is_directory && (before.st_size != now.st_size || !is_same_time)
}

/// A directory below `root`; `None` when there is none any more.
pub(super) fn open(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<std::os::fd::OwnedFd>, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match open_in(root, if path.is_empty() { b"." } else { path }, flags, resolve) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

pub(super) fn stat(directory: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Stat>, Errno> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// An attribute of `name` in `directory`, links not followed.
pub(super) fn xattr(
    directory: BorrowedFd<'_>,
    name: &[u8],
    attribute: &str,
) -> Result<Option<Vec<u8>>, Errno> {
    let path = [magic_link(directory).as_bytes(), b"/", name].concat();
    let mut value = [0; 256];
    match rustix::fs::lgetxattr(path, attribute, value.as_mut_slice()) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT | Errno::ACCESS | Errno::PERM) => Ok(None),
        // More than any attribute asked for here has in it: present, and odd.
        Err(Errno::RANGE) => Ok(Some(Vec::new())),
        Err(errno) => Err(errno),
    }
}
