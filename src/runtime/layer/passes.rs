//! A tree that is saved while it is in use: all of it first, then, again and again, what has changed since, the last
//! time while it stands still. So how long it must stand still follows from the changes, not from its size.
//!
//! ```text
//!  look ─▶ Seen ─▶ pack what was seen          everything that changes from here on has another mark
//!  look ─▶ Seen, compared with the one before ─▶ gone: names to be removed; pack: what is new or not as it was
//! ```
//!
//! A mark is what stat(2) tells of an inode. The kernel notes every change there but one: writes to pages that a
//! process has mapped and written to already. So a file's pages are written back after the look and before they are
//! read: then the next write is noted, too. That holds on the file systems of [`is_tracked`]; elsewhere only a tree
//! that stands still can be saved. Where time is counted in ticks, a change may have the tick of the look before: an
//! inode that has just been changed counts as changed again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::pack::{join, list, open_root, pack_some, xattrs};
use super::{Trees, diff, error, refused, shown};
use crate::runtime::{Cause, Error};

/// Longer than the ticks in which any of these file systems counts.
const TICK: Duration = Duration::from_millis(50);
/// Bytes of all the names that may be gone.
const GONE_BYTES: u64 = 256 << 20;

/// File systems that count time in fractions of a second, and note the first write to a page after it was written
/// back.
const TRACKED: [u32; 6] = [
    0xef53,      // ext2, 3, 4
    0x5846_5342, // xfs
    0x9123_683e, // btrfs
    0xf2f5_2010, // f2fs
    0x2fc1_2fc1, // zfs
    0xca45_1a4e, // bcachefs
];

/// Whether changes to a tree are noted well enough to save it while it is in use.
pub fn is_tracked(tree: &Path) -> bool {
    rustix::fs::statfs(tree).is_ok_and(|found| TRACKED.iter().any(|magic| i64::from(*magic) == found.f_type))
}

/// What there is to know of an inode without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    rdev: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
    /// Names of a directory's attributes: those of others come anew with the file.
    xattrs: Vec<Vec<u8>>,
    /// Changed so shortly before that a further change need not show.
    is_fresh: bool,
}

impl Mark {
    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    /// Still the same thing, perhaps changed: what is below a directory has its own marks.
    fn is_same_directory(&self, now: &Mark) -> bool {
        (self.device, self.inode, self.kind()) == (now.device, now.inode, now.kind())
            && now.kind() == FileType::Directory
            && self.xattrs.iter().all(|name| now.xattrs.contains(name))
    }
}

/// A tree as it was looked at.
#[derive(Clone, Debug, Default)]
pub struct Seen(BTreeMap<Vec<u8>, Mark>);

/// One pass over a tree: what it found, not saved yet.
#[derive(Debug)]
pub struct Pass {
    root: OwnedFd,
    trees: Trees,
    is_frozen: bool,
    seen: Seen,
    /// Names that are not what they were: to be removed, each with all that is below it, before the rest is unpacked.
    pub gone: Vec<Vec<u8>>,
    wanted: BTreeSet<Vec<u8>>,
}

/// Looks at a tree; what vanishes meanwhile is passed over.
fn look(root: BorrowedFd<'_>) -> Result<Seen, Error> {
    let mut seen = Seen::default();
    let stat = rustix::fs::fstat(root).map_err(|errno| error("look at", "the tree", errno))?;
    seen.0.insert(Vec::new(), mark(root, &stat).map_err(|errno| error("look at", "the tree", errno))?);
    let mut pending = vec![Vec::new()];
    while let Some(path) = pending.pop() {
        let mut inside = || -> Result<Vec<Vec<u8>>, Errno> {
            let Some(directory) = diff::open(root, &path)? else { return Ok(Vec::new()) };
            let mut directories = Vec::new();
            for name in list(directory.as_fd())? {
                let Some(stat) = diff::stat(directory.as_fd(), &name)? else { continue };
                let kind = FileType::from_raw_mode(stat.st_mode);
                if kind == FileType::Socket {
                    continue;
                }
                let child = join(&path, &name);
                let is_directory = kind == FileType::Directory;
                let opened = if is_directory { diff::open(root, &child)? } else { None };
                let found = match (&opened, is_directory) {
                    (Some(inode), _) => mark(inode.as_fd(), &rustix::fs::fstat(inode)?)?,
                    (None, true) => continue,
                    (None, false) => plain_mark(&stat),
                };
                seen.0.insert(child.clone(), found);
                if is_directory {
                    directories.push(child);
                }
            }
            Ok(directories)
        };
        let found = inside().map_err(|errno| error("look at", format!("{:?}", shown(&path)), errno))?;
        pending.extend(found);
    }
    Ok(seen)
}

fn plain_mark(stat: &Stat) -> Mark {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let changed = Duration::new(
        u64::try_from(stat.st_ctime).unwrap_or(0),
        u32::try_from(stat.st_ctime_nsec).unwrap_or(0).min(999_999_999),
    );
    Mark {
        device: stat.st_dev,
        inode: stat.st_ino,
        mode: stat.st_mode,
        owner: (stat.st_uid, stat.st_gid),
        rdev: stat.st_rdev,
        size: stat.st_size,
        modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        changed: (stat.st_ctime, i64::try_from(stat.st_ctime_nsec).unwrap_or(0)),
        xattrs: Vec::new(),
        is_fresh: changed + TICK > now,
    }
}

fn mark(directory: BorrowedFd<'_>, stat: &Stat) -> Result<Mark, Errno> {
    let xattrs = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => xattrs(directory)?.into_iter().map(|(name, _)| name).collect(),
        _ => Vec::new(),
    };
    Ok(Mark { xattrs, ..plain_mark(stat) })
}

/// The names that are gone, and those to be packed with the directories they are in.
fn compare(before: &Seen, now: &Seen) -> (Vec<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let (mut gone, mut wanted) = (Vec::new(), BTreeSet::new());
    // Everything below it comes anew.
    let mut replaced: Option<Vec<u8>> = None;
    let is_below = |path: &[u8], top: &Option<Vec<u8>>| {
        top.as_ref().is_some_and(|top| path.starts_with(top) && path.get(top.len()) == Some(&b'/'))
    };
    let mut want = |path: &[u8]| {
        wanted.insert(path.to_vec());
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        wanted.extend(ends.map(|end| path[..end].to_vec()));
        wanted.insert(Vec::new());
    };
    // A tree's order: what is below a directory comes at once after it.
    let mut paths: Vec<&Vec<u8>> = before.0.keys().chain(now.0.keys()).collect();
    paths.sort_by(|one, other| one.split(|byte| *byte == b'/').cmp(other.split(|byte| *byte == b'/')));
    paths.dedup();
    for path in paths {
        if is_below(path, &replaced) {
            if now.0.contains_key(path) {
                want(path);
            }
            continue;
        }
        match (before.0.get(path), now.0.get(path)) {
            (Some(_), None) => {
                gone.push(path.clone());
                replaced = Some(path.clone());
                // Its directory gets its time back.
                if let Some(at) = path.iter().rposition(|byte| *byte == b'/') {
                    if now.0.contains_key(&path[..at]) {
                        want(&path[..at]);
                    }
                } else {
                    want(b"");
                }
            }
            (None, Some(_)) => want(path),
            (Some(old), Some(new)) if old == new && !old.is_fresh => {}
            (Some(old), Some(new)) if old.is_same_directory(new) => want(path),
            (Some(_), Some(_)) => {
                if !path.is_empty() {
                    gone.push(path.clone());
                }
                want(path);
                replaced = Some(path.clone());
            }
            (None, None) => {}
        }
    }
    (gone, wanted)
}

impl Pass {
    /// Looks for what has changed since `before` was seen; of an empty `before` that is everything. `is_upper`: the tree
    /// is the upper directory of an overlay. `is_frozen`: nobody changes it; else what vanishes is passed over.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub fn over(tree: &Path, is_upper: bool, is_frozen: bool, before: &Seen) -> Result<Pass, Error> {
        let root = open_root(tree).map_err(|cause| error("pack", tree.display().to_string(), cause))?;
        let seen = look(root.as_fd())?;
        let (gone, wanted) = compare(before, &seen);
        let trees = match (is_upper, is_frozen) {
            (true, true) => Trees::Upper,
            (true, false) => Trees::LiveUpper,
            (false, true) => Trees::Plain,
            (false, false) => Trees::Mounted,
        };
        Ok(Pass { root, trees, is_frozen, seen, gone, wanted })
    }

    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Writes what is new or not as it was; gives what this pass has seen, and the bytes written.
    ///
    /// # Errors
    /// The tree cannot be read, or `out` not be written.
    pub fn pack(self, out: impl Write) -> Result<(Seen, u64), Error> {
        let bytes = pack_some(self.root.as_fd(), self.trees, &self.wanted, !self.is_frozen, out)?;
        Ok((self.seen, bytes))
    }
}

/// Removes from the tree `into` what a pass found gone: names, each ended by a NUL. What is not there is fine.
///
/// # Errors
/// `Cause::Refused` for a name that leads elsewhere.
pub fn remove_gone(names: impl Read, into: &Path) -> Result<(), Error> {
    let failed = |cause: Cause| error("remove from", into.display().to_string(), cause);
    let root = open_root(into).map_err(failed)?;
    let mut text = Vec::new();
    names.take(GONE_BYTES).read_to_end(&mut text).map_err(|cause| failed(cause.into()))?;
    for name in text.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        remove(root.as_fd(), name).map_err(|cause| error("remove", format!("{:?}", shown(name)), cause))?;
    }
    Ok(())
}

fn remove(root: BorrowedFd<'_>, path: &[u8]) -> Result<(), Cause> {
    if path.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
        return Err(refused("no name in a tree"));
    }
    let (parent, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    let Some(parent) = diff::open(root, parent)? else { return Ok(()) };
    match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // Refuses what has become a link meanwhile.
            drop(rustix::fs::openat(&parent, name, flags, Mode::empty())?);
            let tree = [super::unpack::magic_link(parent.as_fd()).as_bytes(), b"/", name].concat();
            let tree: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(tree.as_slice());
            Ok(std::fs::remove_dir_all(tree)?)
        }
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;
    use crate::runtime::layer::{Limits, unpack, unpack_plain};

    fn scratch(name: &str) -> (PathBuf, PathBuf) {
        let dir = std::env::temp_dir().join(format!("dewar-passes-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(&to).unwrap();
        (from, to)
    }

    /// Takes one pass from `from` to `to`; the bytes of its archive.
    fn carry(from: &Path, to: &Path, (is_upper, is_frozen): (bool, bool), seen: &mut Seen) -> u64 {
        let pass = Pass::over(from, is_upper, is_frozen, seen).unwrap();
        remove_gone(pass.gone.join(&0).as_slice(), to).unwrap();
        let mut archive = Vec::new();
        let (now, bytes) = pass.pack(&mut archive).unwrap();
        *seen = now;
        match is_upper {
            true => unpack(archive.as_slice(), to, Limits::default()).unwrap(),
            false => unpack_plain(archive.as_slice(), to, Limits::default()).unwrap(),
        };
        bytes
    }

    /// Everything there is to tell of a tree.
    fn told(tree: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![tree.to_owned()];
        while let Some(path) = pending.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = match meta.file_type() {
                kind if kind.is_file() => format!("{:?}", fs::read(&path).unwrap()),
                kind if kind.is_symlink() => format!("{:?}", fs::read_link(&path).unwrap()),
                kind if kind.is_dir() => {
                    pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
                    String::new()
                }
                _ => format!("{}", meta.rdev()),
            };
            let links = if meta.is_dir() { 0 } else { meta.nlink() };
            let name = path.strip_prefix(tree).unwrap().display();
            let (mode, time) = (meta.mode(), (meta.mtime(), meta.mtime_nsec()));
            found.push(format!("{name} {mode:o} {time:?} {links} {content}"));
        }
        found.sort();
        found
    }

    /// Older than a tick, so that what is unchanged is known for that.
    fn settle() {
        std::thread::sleep(TICK + Duration::from_millis(20));
    }

    #[test]
    fn what_has_changed_comes_again_and_what_is_gone_goes() {
        let (from, to) = scratch("changes");
        let write = |name: &str, text: &str| fs::write(from.join(name), text).unwrap();
        for name in ["a/b/c", "doomed/inner", "kept", "moved"] {
            fs::create_dir_all(from.join(name)).unwrap();
        }
        for name in ["a/b/file", "a/gone", "doomed/inner/file", "kept/file", "moved/file", "turns", "x"] {
            write(name, name);
        }
        write("large", &"large".repeat(200_000));
        fs::hard_link(from.join("x"), from.join("y")).unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        settle();
        let mut seen = Seen::default();
        assert!(carry(&from, &to, (false, false), &mut seen) > 1_000_000);
        assert_eq!(told(&from), told(&to));
        assert!(carry(&from, &to, (false, false), &mut seen) < 2048, "nothing has changed");

        write("a/b/file", "another");
        fs::remove_file(from.join("a/gone")).unwrap();
        fs::remove_dir_all(from.join("doomed")).unwrap();
        fs::rename(from.join("moved"), from.join("a/moved")).unwrap();
        fs::remove_file(from.join("turns")).unwrap();
        fs::create_dir(from.join("turns")).unwrap();
        write("turns/inside", "new");
        fs::remove_file(from.join("y")).unwrap();
        fs::hard_link(from.join("x"), from.join("z")).unwrap();
        fs::set_permissions(from.join("kept"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::remove_file(from.join("link")).unwrap();
        symlink("elsewhere", from.join("link")).unwrap();
        assert!(carry(&from, &to, (false, true), &mut seen) < 100_000, "not what is as it was");
        assert_eq!(told(&from), told(&to));
        fs::remove_dir_all(from.parent().unwrap()).unwrap();
    }

    /// A directory that took another's place, of the same name, brings nothing of it.
    #[test]
    fn a_directory_in_the_place_of_another_begins_anew() {
        let (from, to) = scratch("place");
        for name in ["d/old", "d/both", "e/new", "e/both"] {
            fs::create_dir_all(from.join(name).parent().unwrap()).unwrap();
            fs::write(from.join(name), name).unwrap();
        }
        let mut seen = Seen::default();
        carry(&from, &to, (false, false), &mut seen);
        fs::remove_dir_all(from.join("d")).unwrap();
        fs::rename(from.join("e"), from.join("d")).unwrap();
        carry(&from, &to, (false, true), &mut seen);
        assert_eq!(told(&from), told(&to));
        assert!(!to.join("d/old").exists());
        fs::remove_dir_all(from.parent().unwrap()).unwrap();
    }

    /// Names sort by their parts: "d.x" stands between "d" and "d/x" as bytes, and is not in it.
    #[test]
    fn a_name_that_only_begins_alike_is_not_below() {
        let (from, to) = scratch("alike");
        for name in ["d", "d.x", "d-"] {
            fs::create_dir_all(from.join(name)).unwrap();
            fs::write(from.join(name).join("f"), name).unwrap();
        }
        let mut seen = Seen::default();
        carry(&from, &to, (false, false), &mut seen);
        settle();
        carry(&from, &to, (false, false), &mut seen);
        fs::remove_dir_all(from.join("d")).unwrap();
        fs::write(from.join("d.x/f"), "new").unwrap();
        carry(&from, &to, (false, true), &mut seen);
        assert_eq!(told(&from), told(&to));
        fs::remove_dir_all(from.parent().unwrap()).unwrap();
    }

    /// What the kernel does not note of a mapping that has been written to is not missed.
    #[test]
    fn writes_through_a_mapping_are_noticed() {
        let program = "import mmap, os, sys\n\
            f = open(sys.argv[1], 'r+b')\n\
            m = mmap.mmap(f.fileno(), 4096)\n\
            m[0:1] = b'1'\n\
            print('ready', flush=True)\n\
            for line in sys.stdin:\n    \
                m[0:1] = line[0:1].encode()\n    \
                print('done', flush=True)\n";
        let (from, to) = scratch("mapping");
        if !is_tracked(&from) {
            eprintln!("skip: {from:?} is on a file system that does not note such writes");
            return;
        }
        let file = from.join("mapped");
        fs::write(&file, vec![b'0'; 4096]).unwrap();
        let python = std::process::Command::new("python3")
            .args(["-c", program])
            .arg(&file)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn();
        let Ok(mut python) = python else {
            eprintln!("skip: there is no python3");
            return;
        };
        let (mut input, output) = (python.stdin.take().unwrap(), python.stdout.take().unwrap());
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
        assert_eq!(lines.next().unwrap().unwrap(), "ready");
        settle();
        let mut seen = Seen::default();
        carry(&from, &to, (false, false), &mut seen);
        assert_eq!(fs::read(to.join("mapped")).unwrap()[0], b'1');
        input.write_all(b"2\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "done");
        carry(&from, &to, (false, true), &mut seen);
        assert_eq!(fs::read(to.join("mapped")).unwrap()[0], b'2');
        drop(input);
        python.wait().unwrap();
        fs::remove_dir_all(from.parent().unwrap()).unwrap();
    }

    #[test]
    fn names_that_lead_elsewhere_remove_nothing() {
        let (from, to) = scratch("away");
        fs::write(from.join("file"), "").unwrap();
        symlink(&from, to.join("link")).unwrap();
        for name in ["../from/file", "/etc/passwd", "a/../../from/file", "."] {
            assert!(remove_gone(name.as_bytes(), &to).is_err(), "{name}");
        }
        remove_gone(&b"link/file\0missing/file\0missing"[..], &to).unwrap();
        assert!(from.join("file").exists());
        remove_gone(&b"link"[..], &to).unwrap();
        assert!(from.join("file").exists() && fs::symlink_metadata(to.join("link")).is_err());
        fs::remove_dir_all(from.parent().unwrap()).unwrap();
    }
}
