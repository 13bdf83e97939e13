//! Entries become files beneath one directory, whatever their names say.
//!
//! Each entry's parent is opened by `openat2` under the policy below, and all that follows happens on that
//! descriptor and one plain name in it, so a link that appears in between is never walked through.
//!
//! ```text
//!             names                          parents                       .wh. names
//! layer, dir  relative, no ".."              no symbolic link              translated / kept
//! put         ".." refused, "/" stripped     links followed in the root    kept
//! ```
//!
//! A name that comes twice is replaced by the later entry; a directory stays and takes its attributes.
//! Directories get their times last, as filling them changes these.
//!
//! Limits: directories an archive implies without naming them become root's, 0755, and hide the attributes
//! the directory has in lower layers, as with Docker.
//!
//! Stays whole: every way an entry could lead outside is decided here, side by side.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, makedev,
};
use rustix::io::Errno;

use super::tar::{Entry, Kind, Reader, Time};
use super::{
    Limits, OPAQUE, OVERLAY_XATTRS, Unpacked, WHITEOUT, WHITEOUT_OPAQUE, error, refused, shown, split,
};
use crate::runtime::{Cause, Error};

/// How to unpack into a container ([`put`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Put {
    pub limits: Limits,
    /// Refuse to replace a directory by something else, or the reverse.
    pub no_overwrite_dir_non_dir: bool,
    /// Give everything to this owner instead of the archive's.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks an OCI layer (an uncompressed tar stream, read to its last byte) into the empty directory `into`,
/// in the form overlayfs wants a lower directory in.
///
/// `Cause::Refused` when the archive is at fault; `into` then holds a part and is for the caller to remove.
pub fn unpack(archive: impl Read, into: &Path, limits: Limits) -> Result<Unpacked, Error> {
    unpack_into(archive, into, limits, true, None)
}

/// [`unpack`] that also writes to `split` what [`reassemble`](super::reassemble) needs.
pub fn unpack_recording(
    archive: impl Read,
    into: &Path,
    limits: Limits,
    split: &mut dyn Write,
) -> Result<Unpacked, Error> {
    unpack_into(archive, into, limits, true, Some(split))
}

/// [`unpack`] for a directory that is no layer: whiteouts are ordinary names.
pub fn unpack_plain(archive: impl Read, into: &Path, limits: Limits) -> Result<Unpacked, Error> {
    unpack_into(archive, into, limits, false, None)
}

fn unpack_into(
    archive: impl Read,
    into: &Path,
    limits: Limits,
    overlay: bool,
    split: Option<&mut dyn Write>,
) -> Result<Unpacked, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(into, flags, Mode::empty())
        .map_err(|errno| error("unpack into", into.display().to_string(), errno))?;
    let mut unpacker = Unpacker::new(root.as_fd(), b"");
    unpacker.overlay = overlay;
    unpacker.run(Reader::new(archive, limits), split)
}

/// Unpacks a tar stream into the directory `path` of a container whose root directory is `root`.
///
/// Symbolic links are followed as the container's own processes would, within `root`, even while they are
/// being changed.
pub fn put(root: BorrowedFd<'_>, path: &[u8], archive: impl Read, options: Put) -> Result<Unpacked, Error> {
    let mut unpacker = Unpacker::new(root, path);
    unpacker.follow = true;
    unpacker.no_overwrite_dir_non_dir = options.no_overwrite_dir_non_dir;
    unpacker.owner = options.owner;
    unpacker.run(Reader::new(archive, options.limits), None)
}

struct Unpacker<'a> {
    root: BorrowedFd<'a>,
    /// The directory in `root` everything goes to.
    base: Vec<u8>,
    overlay: bool,
    follow: bool,
    no_overwrite_dir_non_dir: bool,
    owner: Option<(u32, u32)>,
    /// The last parent opened: archives are written directory by directory.
    parent: Option<(Vec<u8>, OwnedFd)>,
    times: BTreeMap<Vec<u8>, Time>,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    fn new(root: BorrowedFd<'a>, base: &[u8]) -> Unpacker<'a> {
        Unpacker {
            root,
            base: base.to_vec(),
            overlay: false,
            follow: false,
            no_overwrite_dir_non_dir: false,
            owner: None,
            parent: None,
            times: BTreeMap::new(),
            buffer: vec![0; 128 << 10],
        }
    }

    fn run<R: Read>(
        mut self,
        mut reader: Reader<R>,
        mut split: Option<&mut dyn Write>,
    ) -> Result<Unpacked, Error> {
        if split.is_some() {
            reader.keep_raw();
        }
        let mut bytes = 0;
        let stream = |cause| error("unpack", "archive", cause);
        let record = |cause| error("record", "archive", Cause::Io(cause));
        while let Some(entry) = reader.next_entry().map_err(stream)? {
            if let Some(split) = &mut split {
                split::write_raw(*split, &reader.take_raw()).map_err(record)?;
            }
            let path = self
                .place(&entry, &mut reader)
                .map_err(|cause| error("unpack", format!("{:?}", shown(&entry.path)), cause))?;
            bytes += entry.size;
            if let (Some(split), Some(path), true) = (&mut split, path, entry.size > 0) {
                let whole = [(0, entry.size)];
                let pieces = entry.sparse.as_deref().unwrap_or(&whole);
                split::write_file(*split, &path, pieces).map_err(record)?;
            }
        }
        loop {
            let more = reader.read_trailer().map_err(stream)?;
            if let Some(split) = &mut split {
                split::write_raw(*split, &reader.take_raw()).map_err(record)?;
            }
            if !more {
                break;
            }
        }
        self.set_times()?;
        Ok(Unpacked { bytes, entries: reader.entries() })
    }

    /// Makes what `entry` describes; the path is where the content of a file went.
    fn place<R: Read>(&mut self, entry: &Entry, reader: &mut Reader<R>) -> Result<Option<Vec<u8>>, Cause> {
        let path = self.clean(&entry.path, "entry")?;
        let Some((parent, name)) = split_last(&path) else {
            return match entry.kind {
                Kind::Directory => {
                    let directory = self.open_directory(b"")?;
                    // Compat: `docker cp dir/. c:/there` leaves the attributes of `there` alone.
                    if !self.follow {
                        self.dress(directory.as_fd(), entry)?;
                        self.times.insert(Vec::new(), entry.mtime);
                    }
                    Ok(None)
                }
                _ => Err(refused("takes the place of the directory unpacked into")),
            };
        };
        let directory = self.open_parent(parent)?;
        if self.overlay && name.starts_with(WHITEOUT) {
            self.white_out(directory.as_fd(), name, entry.mtime)?;
            self.parent = Some((parent.to_vec(), directory));
            return Ok(None);
        }
        let mut placed = None;
        match entry.kind {
            Kind::Directory => self.place_directory(directory.as_fd(), name, &path, entry)?,
            Kind::File => {
                self.place_file(directory.as_fd(), name, entry, reader)?;
                placed = Some(path.clone());
            }
            Kind::HardLink => {
                let target = self.clean(&entry.link, "hard link to")?;
                self.place_hard_link(directory.as_fd(), name, &target)?;
            }
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(refused("a symbolic link to nothing"));
                }
                self.create(directory.as_fd(), name, || {
                    rustix::fs::symlinkat(entry.link.as_slice(), directory.as_fd(), name)
                })?;
                let (uid, gid) = self.owner_of(entry);
                rustix::fs::chownat(&directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
                let inode = open_inode(directory.as_fd(), name)?;
                set_xattrs(inode.as_fd(), entry)?;
                let times = timestamps(entry.mtime);
                rustix::fs::utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Char | Kind::Block | Kind::Fifo => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    Kind::Block => FileType::BlockDevice,
                    _ => FileType::Fifo,
                };
                let device = makedev(entry.device.0, entry.device.1);
                self.create(directory.as_fd(), name, || {
                    rustix::fs::mknodat(directory.as_fd(), name, kind, Mode::from_raw_mode(0o600), device)
                })?;
                let inode = open_inode(directory.as_fd(), name)?;
                let (uid, gid) = self.owner_of(entry);
                rustix::fs::chownat(&inode, "", uid, gid, AtFlags::EMPTY_PATH)?;
                rustix::fs::chmod(magic_link(inode.as_fd()), Mode::from_raw_mode(entry.mode))?;
                set_xattrs(inode.as_fd(), entry)?;
                let times = timestamps(entry.mtime);
                rustix::fs::utimensat(&directory, name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Kind::Other(flag) => {
                return Err(refused(format!("an entry of unknown type {:?}", char::from(flag))));
            }
        }
        self.parent = Some((parent.to_vec(), directory));
        Ok(placed)
    }

    /// A name without `/` at its start, `.` and empty parts.
    fn clean(&self, name: &[u8], what: &str) -> Result<Vec<u8>, Cause> {
        let mut path = Vec::with_capacity(name.len());
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return Err(refused(format!("{what} {:?} leads out by \"..\"", shown(name)))),
                part => {
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(part);
                }
            }
        }
        // Compat: "/" alone is the root directory, which some builders write.
        if name.first() == Some(&b'/') && !self.follow && !path.is_empty() {
            return Err(refused(format!("{what} {:?} is an absolute path", shown(name))));
        }
        Ok(path)
    }

    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = if self.follow {
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS
        } else {
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS
        };
        let full = match (self.base.is_empty(), path.is_empty()) {
            (true, true) => b".".to_vec(),
            (true, false) => path.to_vec(),
            (false, true) => self.base.clone(),
            (false, false) => [&self.base, b"/".as_slice(), path].concat(),
        };
        open_in(self.root, &full, flags, resolve)
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
    }

    fn open_parent(&mut self, path: &[u8]) -> Result<OwnedFd, Cause> {
        // Taken out of the cache, put back by `place` when the entry went well.
        if let Some((cached, directory)) = self.parent.take()
            && cached == path
        {
            return Ok(directory);
        }
        match self.resolve(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC) {
            Ok(directory) => Ok(directory),
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(path),
            Err(Errno::LOOP | Errno::XDEV) => Err(refused("passes through a symbolic link")),
            Err(errno) => Err(errno.into()),
        }
    }

    fn make_parents(&mut self, path: &[u8]) -> Result<OwnedFd, Cause> {
        let mut directory = self.open_directory(b"")?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            let name = split_last(prefix).map_or(prefix, |(_, name)| name);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            directory = match self.resolve(prefix, flags) {
                Ok(next) => next,
                Err(Errno::LOOP | Errno::XDEV) => return Err(refused("passes through a symbolic link")),
                Err(Errno::NOENT | Errno::NOTDIR) => {
                    if self.overlay && is_whiteout(directory.as_fd(), name)? {
                        rustix::fs::unlinkat(&directory, name, AtFlags::empty())?;
                        make_directory(directory.as_fd(), name)?;
                        set_opaque(directory.as_fd(), name)?;
                    } else {
                        match make_directory(directory.as_fd(), name) {
                            Err(Errno::EXIST) => {
                                return Err(refused(format!("{:?} is no directory", shown(prefix))));
                            }
                            other => other?,
                        }
                    }
                    self.resolve(prefix, flags)?
                }
                Err(errno) => return Err(errno.into()),
            };
        }
        Ok(directory)
    }

    fn place_directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        path: &[u8],
        entry: &Entry,
    ) -> Result<(), Cause> {
        if let Err(errno) = rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            if errno != Errno::EXIST {
                return Err(errno.into());
            }
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                let hides_lower = self.overlay && is_whiteout(parent, name)?;
                if self.no_overwrite_dir_non_dir {
                    return Err(refused("cannot overwrite non-directory with directory"));
                }
                rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                if hides_lower {
                    set_opaque(parent, name)?;
                }
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
        self.dress(directory.as_fd(), entry)?;
        self.times.insert(path.to_vec(), entry.mtime);
        Ok(())
    }

    fn place_file<R: Read>(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<(), Cause> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            self.create(parent, name, || rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR))?;
        let mut file = File::from(file);
        match &entry.sparse {
            None => loop {
                let count = reader.read(&mut self.buffer)?;
                if count == 0 {
                    break;
                }
                file.write_all(&self.buffer[..count])?;
            },
            Some(map) => {
                file.set_len(entry.size)?;
                for (offset, length) in map {
                    let (mut at, mut left) = (*offset, *length);
                    while left > 0 {
                        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
                        let count = reader.read(&mut self.buffer[..wanted])?;
                        if count == 0 {
                            return Err(refused("the archive is truncated"));
                        }
                        file.write_all_at(&self.buffer[..count], at)?;
                        (at, left) = (at + count as u64, left - count as u64);
                    }
                }
            }
        }
        self.dress(file.as_fd(), entry)?;
        rustix::fs::futimens(&file, &timestamps(entry.mtime))?;
        Ok(())
    }

    fn place_hard_link(&mut self, parent: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> Result<(), Cause> {
        let missing = || refused(format!("a hard link to {:?}, which is not there", shown(target)));
        let (target_parent, target_name) = split_last(target).ok_or_else(missing)?;
        let directory = match self.resolve(target_parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)
        {
            Ok(directory) => directory,
            Err(Errno::LOOP | Errno::XDEV) => {
                return Err(refused(format!(
                    "a hard link to {:?} passes through a symbolic link",
                    shown(target)
                )));
            }
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(missing()),
            Err(errno) => return Err(errno.into()),
        };
        let stat = match rustix::fs::statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Err(missing()),
            Err(errno) => return Err(errno.into()),
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(refused(format!("a hard link to the directory {:?}", shown(target))));
        }
        // A link to itself must not remove what it links to.
        if let Ok(present) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            && (present.st_dev, present.st_ino) == (stat.st_dev, stat.st_ino)
        {
            return Ok(());
        }
        match self.create(parent, name, || {
            rustix::fs::linkat(&directory, target_name, parent, name, AtFlags::empty())
        }) {
            // It was in the directory that the link takes the place of.
            Err(Cause::Io(cause)) if cause.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            other => other,
        }
    }

    /// Runs `make`, which fails with `EEXIST` when `name` is taken; then the later entry wins.
    fn create<T>(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        make: impl Fn() -> Result<T, Errno>,
    ) -> Result<T, Cause> {
        match make() {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) if self.no_overwrite_dir_non_dir => {
                return Err(refused("cannot overwrite directory with non-directory"));
            }
            Err(Errno::ISDIR) => {
                let tree = [magic_link(parent).as_bytes(), b"/", name].concat();
                let tree: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(tree.as_slice());
                std::fs::remove_dir_all(tree)?;
            }
            Err(errno) => return Err(errno.into()),
        }
        Ok(make()?)
    }

    fn white_out(&self, parent: BorrowedFd<'_>, name: &[u8], mtime: Time) -> Result<(), Cause> {
        if name == WHITEOUT_OPAQUE {
            return Ok(rustix::fs::setxattr(magic_link(parent), OPAQUE, b"y", XattrFlags::empty())?);
        }
        let hidden = &name[WHITEOUT.len()..];
        // What else AUFS kept under its double prefix means nothing to other file systems.
        if hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(refused("a whiteout of no file"));
        }
        match rustix::fs::mknodat(parent, hidden, FileType::CharacterDevice, Mode::empty(), 0) {
            // It hides lower layers only: what this layer brings stays, but a directory starts afresh.
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(parent, hidden, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    set_opaque(parent, hidden)?;
                }
                Ok(())
            }
            // The archive's time, so that the same layer packs to the same bytes again.
            Ok(()) => {
                Ok(rustix::fs::utimensat(parent, hidden, &timestamps(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Err(errno) => Err(errno.into()),
        }
    }

    fn owner_of(&self, entry: &Entry) -> (Option<Uid>, Option<Gid>) {
        let (uid, gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
    }

    /// Owner, mode and attributes, in the order in which one does not undo the other: chown clears the
    /// set-id bits and `security.capability`.
    fn dress(&self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Cause> {
        let (uid, gid) = self.owner_of(entry);
        rustix::fs::fchown(file, uid, gid)?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        set_xattrs(file, entry)
    }

    fn set_times(&self) -> Result<(), Error> {
        // Children first, although a directory's time does not change with that of its children.
        for (path, time) in self.times.iter().rev() {
            match self.open_directory(path) {
                Ok(directory) => rustix::fs::futimens(&directory, &timestamps(*time))
                    .map_err(|errno| error("set times of", shown(path), errno))?,
                // Replaced by a later entry.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(errno) => return Err(error("set times of", shown(path), errno)),
            }
        }
        Ok(())
    }
}

/// `openat2`, tried again while the kernel says that a rename it raced with makes the answer unsafe.
pub(super) fn open_in(
    root: BorrowedFd<'_>,
    path: &[u8],
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The parent and the last name of a clean path; `None` for the empty one.
fn split_last(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    })
}

fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
    // The process's umask must not decide.
    let inode = open_inode(parent, name)?;
    rustix::fs::chmod(magic_link(inode.as_fd()), Mode::from_raw_mode(0o755))
}

fn open_inode(parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// A path that leads to exactly this inode, for calls that do not take an `O_PATH` descriptor.
pub(super) fn magic_link(inode: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", inode.as_raw_fd())
}

fn is_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            Ok(FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

fn set_opaque(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let inode = open_inode(parent, name)?;
    rustix::fs::setxattr(magic_link(inode.as_fd()), OPAQUE, b"y", XattrFlags::empty())
}

fn set_xattrs(inode: BorrowedFd<'_>, entry: &Entry) -> Result<(), Cause> {
    for (name, value) in &entry.xattrs {
        // An archive that could set these could show one layer's files under another's names.
        if name.starts_with(OVERLAY_XATTRS) {
            continue;
        }
        match rustix::fs::setxattr(magic_link(inode), name.as_slice(), value, XattrFlags::empty()) {
            // The file system, or the kind of file, has no such attributes.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(errno) => return Err(refused(format!("attribute {:?}: {errno}", shown(name)))),
        }
    }
    Ok(())
}

fn timestamps(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
