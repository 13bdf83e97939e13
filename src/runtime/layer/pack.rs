//! A directory becomes a tar stream: names in byte order, so that equal trees give equal streams.
//!
//! The tree is read by one descriptor at a time, names resolved beneath the start and never through a
//! symbolic link, so depth costs no descriptors and a changing tree leads nowhere else.
//!
//! Sockets are left out, tar has no word for them. Holes of sparse files are written as zeros.
//!
//! A tree that is in use changes: what vanishes is left out, and a file that shrinks while it is read is
//! filled up with zeros, as its size was written before.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, major, minor};
use rustix::io::Errno;

use super::tar::{Entry, Kind, Time, Writer};
use super::unpack::{magic_link, open_in};
use super::{OPAQUE, OVERLAY_XATTRS, WHITEOUT, WHITEOUT_OPAQUE, alias, diff, error, refused, shown};
use crate::runtime::sys::fd::write_back;
use crate::runtime::{Cause, Error};

/// Contents that are the kernel's, made up on reading: shown as empty directories.
const KERNEL_TREES: [u32; 11] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x1cd1,      // devpts
    0x1980_0202, // mqueue
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x7363_6673, // securityfs
    0xcafe_4a11, // bpf
    0x9584_58f6, // hugetlbfs
];

/// What [`pack_tree`] makes of special files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trees {
    /// The upper directory of an overlay: 0:0 devices become whiteouts.
    Upper,
    /// The same, of an overlay that is in use.
    LiveUpper,
    /// As it is.
    Plain,
    /// A live root with file systems mounted in it: the kernel's own are not descended into.
    Mounted,
    /// A live root by itself; the directory packed has no entry of its own, as in Docker's exports.
    Bare,
}

impl Trees {
    fn is_upper(self) -> bool {
        matches!(self, Trees::Upper | Trees::LiveUpper)
    }

    fn is_live(self) -> bool {
        !matches!(self, Trees::Upper | Trees::Plain)
    }
}

/// Writes the upper directory of an overlay as an OCI layer; returns the size of the stream in bytes.
///
/// The tree must not change meanwhile, or the error names the file that did.
pub fn pack(upper: &Path, out: impl Write) -> Result<u64, Error> {
    pack_directory(upper, out, Trees::Upper)
}

/// [`pack`] for the upper directory of an overlay that is in use, on the layers `below` it (see
/// [`look::below`](crate::runtime::look::below)), whose further names of files that changed are added.
pub fn pack_live(upper: &Path, below: BorrowedFd<'_>, out: impl Write) -> Result<u64, Error> {
    let failed = |cause: Cause| error("pack", upper.display().to_string(), cause);
    let root = open_root(upper).map_err(failed)?;
    let mut writer = Writer::new(out);
    let marked = pack_tree(root.as_fd(), b".", Trees::LiveUpper, &mut writer)?;
    let mut written = HashSet::new();
    for (path, of) in alias::find(root.as_fd(), below, &marked).map_err(|errno| failed(errno.into()))? {
        add_link(root.as_fd(), below, &path, of, &mut written, &mut writer).map_err(failed)?;
    }
    Ok(writer.finish().map_err(|cause| failed(cause.into()))?.1)
}

/// Appends a hard link, and before it the directories it is in that only `below` has.
fn add_link<W: Write>(
    upper: BorrowedFd<'_>,
    below: BorrowedFd<'_>,
    path: &[u8],
    of: Vec<u8>,
    written: &mut HashSet<Vec<u8>>,
    writer: &mut Writer<W>,
) -> Result<(), Cause> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for directory in ends.map(|end| &path[..end]) {
        let is_new = diff::open(upper, directory)?.is_none() && written.insert(directory.to_vec());
        let Some(inode) = (if is_new { diff::open(below, directory)? } else { None }) else { continue };
        writer.append(&describe_directory(inode.as_fd(), directory)?, &mut io::empty())?;
    }
    let mut entry = Entry::new(path, Kind::HardLink, 0);
    entry.link = of;
    Ok(writer.append(&entry, &mut io::empty())?)
}

pub(super) fn open_root(path: &Path) -> Result<OwnedFd, Cause> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Writes a directory that is no layer; returns the size of the stream in bytes.
pub fn pack_plain(directory: &Path, out: impl Write) -> Result<u64, Error> {
    pack_directory(directory, out, Trees::Plain)
}

fn pack_directory(path: &Path, out: impl Write, trees: Trees) -> Result<u64, Error> {
    let failed = |cause: Cause| error("pack", path.display().to_string(), cause);
    let root = open_root(path).map_err(failed)?;
    let mut writer = Writer::new(out);
    pack_tree(root.as_fd(), b".", trees, &mut writer)?;
    Ok(writer.finish().map_err(|cause| failed(cause.into()))?.1)
}

/// Appends the inode `start` under `name`, and everything below it when it is a directory. Returns the paths
/// of files that may have further names in the layers below.
pub fn pack_tree<W: Write>(
    start: BorrowedFd<'_>,
    name: &[u8],
    trees: Trees,
    writer: &mut Writer<W>,
) -> Result<Vec<Vec<u8>>, Error> {
    let mut take = |entry: &Entry, content: &mut dyn Read| writer.append(entry, content).map(|()| true);
    let mut packer =
        Packer { start, name, trees, links: HashMap::new(), marked: Vec::new(), part: None, take: &mut take };
    packer.add_all()?;
    Ok(packer.marked)
}

/// Writes those of a tree whose paths are in `wanted`, among them the directories they are in; `written_back`: each
/// file's pages are written back before they are read. Returns the size of the stream in bytes.
pub(super) fn pack_some(
    start: BorrowedFd<'_>,
    trees: Trees,
    wanted: &BTreeSet<Vec<u8>>,
    written_back: bool,
    out: impl Write,
) -> Result<u64, Error> {
    let mut writer = Writer::new(out);
    if wanted.contains(b"".as_slice()) {
        let mut take = |entry: &Entry, content: &mut dyn Read| writer.append(entry, content).map(|()| true);
        let part = Some(Part { wanted, written_back });
        let (links, marked) = (HashMap::new(), Vec::new());
        Packer { start, name: b".", trees, links, marked, part, take: &mut take }.add_all()?;
    }
    Ok(writer.finish().map_err(|cause| error("pack", "archive", cause))?.1)
}

/// What [`pack_some`] packs.
struct Part<'a> {
    wanted: &'a BTreeSet<Vec<u8>>,
    written_back: bool,
}

/// What is done with each entry and its content: whether it was taken. What is in a directory that was not is
/// passed over.
type Take<'a> = dyn FnMut(&Entry, &mut dyn Read) -> io::Result<bool> + 'a;

/// Shows the inode `start`, and everything below it when it is a directory, to `take`: names in the order of their
/// bytes, relative to `start`, which is `./` or, when it is no directory, `.`. Of a file with several names, the
/// first that is taken has the content, and the others are hard links to it.
pub fn walk(
    start: BorrowedFd<'_>,
    take: &mut dyn FnMut(&Entry, &mut dyn Read) -> io::Result<bool>,
) -> Result<(), Error> {
    let links = HashMap::new();
    Packer { start, name: b".", trees: Trees::Plain, links, marked: Vec::new(), part: None, take }.add_all()
}

/// An entry that says of a directory what it is: owner, mode, time and attributes. `inode` is any descriptor of it.
///
/// # Errors
/// As fstat(2) and flistxattr(2).
pub fn describe_directory(inode: BorrowedFd<'_>, path: &[u8]) -> io::Result<Entry> {
    let stat = rustix::fs::statat(inode, "", AtFlags::EMPTY_PATH)?;
    let mut entry = Entry::new([path, b"/"].concat(), Kind::Directory, stat.st_mode & 0o7777);
    (entry.uid, entry.gid, entry.mtime) = (stat.st_uid, stat.st_gid, mtime(&stat));
    entry.xattrs = xattrs(inode)?;
    entry.xattrs.retain(|(name, _)| !name.starts_with(OVERLAY_XATTRS));
    entry.xattrs.sort();
    Ok(entry)
}

struct Packer<'a, 'b> {
    start: BorrowedFd<'a>,
    name: &'a [u8],
    trees: Trees,
    /// Device and inode to the name under which the content is in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
    marked: Vec<Vec<u8>>,
    /// Not all of it.
    part: Option<Part<'a>>,
    take: &'a mut Take<'b>,
}

impl Packer<'_, '_> {
    fn add_all(&mut self) -> Result<(), Error> {
        // A stack of paths below `start`, the next one last.
        let mut pending = vec![Vec::new()];
        while let Some(path) = pending.pop() {
            let children = self
                .add(&path)
                .map_err(|cause| error("pack", format!("{:?}", shown(&self.shown_path(&path))), cause))?;
            pending.extend(children);
        }
        Ok(())
    }

    fn shown_path(&self, path: &[u8]) -> Vec<u8> {
        match (self.name, path) {
            (name, b"") => name.to_vec(),
            // The root is "./", the rest has no prefix: what every other builder writes.
            (b"." | b"", path) => path.to_vec(),
            // Compat: the docker client looks for the "." of `docker cp c:dir/.` in every name.
            (b"./", path) => [b"./", path].concat(),
            // Compat: `docker cp c:/` has names that begin with the slash.
            (b"/", path) => [b"/", path].concat(),
            (name, path) => [name, b"/", path].concat(),
        }
    }

    /// Appends one inode; its children, last first, if it is a directory to descend into.
    fn add(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>, Cause> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened;
        let inode = if path.is_empty() {
            self.start
        } else {
            opened = match open_in(self.start, path, flags, resolve) {
                Ok(inode) => inode,
                // Gone since its name was read.
                Err(Errno::NOENT | Errno::NOTDIR) if self.trees.is_live() => return Ok(Vec::new()),
                Err(errno) => return Err(errno.into()),
            };
            opened.as_fd()
        };
        let stat = rustix::fs::statat(inode, "", AtFlags::EMPTY_PATH)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => return Ok(Vec::new()),
        };
        let shown_path = self.shown_path(path);
        if self.trees.is_upper() && kind == Kind::Char && stat.st_rdev == 0 {
            let at = shown_path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            let name = [&shown_path[..at], WHITEOUT, &shown_path[at..]].concat();
            let mut entry = Entry::new(name, Kind::File, 0);
            entry.mtime = mtime(&stat);
            (self.take)(&entry, &mut io::empty())?;
            return Ok(Vec::new());
        }
        let mut entry = Entry::new(shown_path, kind, stat.st_mode & 0o7777);
        (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        entry.mtime = mtime(&stat);
        let mut opaque = false;
        for (name, value) in xattrs(inode)? {
            match name.as_slice() {
                name if name == OPAQUE.as_bytes() => opaque = value == b"y",
                b"trusted.overlay.redirect" | b"trusted.overlay.metacopy" if self.trees.is_upper() => {
                    return Err(refused("its content is in a lower layer (overlay redirect or metacopy)"));
                }
                name if name == alias::NAMES.as_bytes() => self.marked.push(path.to_vec()),
                name if name.starts_with(OVERLAY_XATTRS) => {}
                _ => entry.xattrs.push((name, value)),
            }
        }
        entry.xattrs.sort();
        if kind != Kind::Directory
            && stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            entry.kind = Kind::HardLink;
            entry.link.clone_from(first);
            entry.xattrs.clear();
            (self.take)(&entry, &mut io::empty())?;
            return Ok(Vec::new());
        }
        let is_taken = match kind {
            Kind::File => {
                // The magic link reopens this very inode; anything put in its place is not looked at.
                let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
                let file = match rustix::fs::open(magic_link(inode), flags, Mode::empty()) {
                    // Deleted, and the container with it.
                    Err(Errno::STALE | Errno::NOENT) if self.trees.is_live() => return Ok(Vec::new()),
                    other => File::from(other?),
                };
                if self.part.as_ref().is_some_and(|part| part.written_back) {
                    write_back(file.as_fd())?;
                }
                entry.size = u64::try_from(stat.st_size).unwrap_or(0);
                match self.trees.is_live() {
                    true => (self.take)(&entry, &mut (&file).chain(io::repeat(0)))?,
                    false => (self.take)(&entry, &mut &file)?,
                }
            }
            Kind::Symlink => {
                entry.link = rustix::fs::readlinkat(inode, "", Vec::new())?.into_bytes();
                (self.take)(&entry, &mut io::empty())?
            }
            Kind::Directory => {
                if !entry.path.ends_with(b"/") {
                    entry.path.push(b'/');
                }
                let is_shown = !(path.is_empty() && self.trees == Trees::Bare);
                if is_shown && !(self.take)(&entry, &mut io::empty())? {
                    return Ok(Vec::new());
                }
                if opaque && self.trees.is_upper() {
                    let inside = self.shown_path(&join(path, WHITEOUT_OPAQUE));
                    (self.take)(&Entry::new(inside, Kind::File, 0), &mut io::empty())?;
                }
                if self.trees == Trees::Mounted && self.is_kernel_tree(inode)? {
                    return Ok(Vec::new());
                }
                let mut names = list(inode)?;
                names.sort();
                names.reverse();
                let inside = names.into_iter().map(|name| join(path, &name));
                let is_wanted = |path: &Vec<u8>| match &self.part {
                    Some(part) => part.wanted.contains(path),
                    None => true,
                };
                return Ok(inside.filter(is_wanted).collect());
            }
            _ => {
                entry.device = (major(stat.st_rdev), minor(stat.st_rdev));
                (self.take)(&entry, &mut io::empty())?
            }
        };
        if is_taken && stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), entry.path);
        }
        Ok(Vec::new())
    }

    fn is_kernel_tree(&self, inode: BorrowedFd<'_>) -> Result<bool, Errno> {
        let kind = rustix::fs::fstatfs(inode)?.f_type;
        Ok(KERNEL_TREES.iter().any(|magic| i64::from(*magic) == kind))
    }
}

pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}

fn mtime(stat: &Stat) -> Time {
    Time { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

pub(super) fn list(directory: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(magic_link(directory), flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); 32 << 10];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = CStr::to_bytes(entry.file_name());
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// Names and values.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn xattrs(inode: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    let path = magic_link(inode);
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::listxattr(&path, names.as_mut_slice()) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 64 << 10];
        match rustix::fs::getxattr(&path, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                found.push((name.to_vec(), value));
            }
            // Removed meanwhile, or not for us to read.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(found)
}
