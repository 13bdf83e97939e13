//! What the processes of a tree have open or mapped that CRIU does not save, or would not find again.
//!
//! Every file must lie on a mount of the tree: what came in from elsewhere (by nsenter, by a descriptor passed over a
//! socket, from a mount that is gone) has none that CRIU could open it on again. Files that are gone are saved whole
//! if nobody else has a link to them, and get one if somebody has.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::mounts::{Table, id_of, id_of_own};
use super::sockets::Sockets;
use super::{Obstacle, Task, read};
use crate::runtime::criu::GHOST_LIMIT_BYTES;
use crate::runtime::sys::fd::opens_handle;

/// Descriptors without a file that CRIU knows.
const ANONYMOUS: [&str; 9] = [
    "[eventfd]",
    "[eventpoll]",
    "inotify",
    "[fanotify]",
    "[signalfd]",
    "[timerfd]",
    "[pidfd]",
    "fanotify",
    "[aio]",
];
/// The kinds of namespaces, whose files it knows too.
const NAMESPACES: [&str; 9] =
    ["net", "mnt", "pid", "pid_for_children", "user", "uts", "ipc", "cgroup", "time"];
/// Where CRIU looks for watched files that it cannot open by their handles.
const SEARCHED: [&str; 6] = [
    "/etc",
    "/var/spool",
    "/var/log",
    "/usr/share/dbus-1/system.d",
    "/var/lib/polkit-1/localauthority",
    "/usr/share/polkit-1/actions",
];
const HUGETLBFS: i64 = 0x9584_58f6;
const MQUEUE: i64 = 0x1980_0202;
const SECRETMEM: i64 = 0x5345_434d;
/// Major numbers of devices, and minor ones of the class of miscellanea.
const MEMORY: u32 = 1;
const TERMINALS: u32 = 4;
const TERMINALS_TOO: u32 = 5;
const MISCELLANEA: u32 = 10;
const TUN: u32 = 200;
const AUTOFS: u32 = 235;
const PSEUDOTERMINALS: std::ops::RangeInclusive<u32> = 128..=143;

/// Looks at files, and remembers those that it has seen.
#[derive(Debug)]
pub(super) struct Files<'a> {
    table: &'a Table,
    /// The tree's root directory.
    root: Option<OwnedFd>,
    /// Where the kernel keeps memory that has no file: that of memfds, of System V, of shared mappings.
    memory: Option<u64>,
    /// Mappings: mount namespaces are the same all over, so a file is where it is.
    seen: BTreeSet<(u64, u64)>,
}

impl<'a> Files<'a> {
    pub(super) fn new(table: &'a Table, pid: i32) -> Files<'a> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(format!("/proc/{pid}/root"), flags, Mode::empty()).ok();
        let memory = rustix::fs::memfd_create("check", rustix::fs::MemfdFlags::CLOEXEC).ok();
        let memory = memory.and_then(|fd| rustix::fs::fstat(fd).ok()).map(|stat| stat.st_dev);
        Files { table, root, memory, seen: BTreeSet::new() }
    }

    /// Looks at all a process has.
    pub(super) fn examine(&mut self, task: &Task, sockets: &mut Sockets, found: &mut Vec<Obstacle>) {
        let mut entries: Vec<String> = fs::read_dir(task.path("fd"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        entries.sort_by_key(|name| name.parse::<u32>().unwrap_or(u32::MAX));
        for fd in entries {
            found.extend(self.descriptor(task, &fd, sockets));
        }
        self.mappings(task, found);
        for (name, words) in [("cwd", "working directory"), ("root", "root directory")] {
            let path = task.path(name);
            let Some(mount) = open_path(&path).and_then(|fd| id_of_own(&fd)) else { continue };
            if self.table.get(mount).is_none() {
                let at = fs::read_link(&path).unwrap_or_default();
                found.push(task.obstacle(
                    "process",
                    &format!("{words} {}", at.display()),
                    "it is on a mount outside of the container's",
                    "end the process, or have it change its directory",
                ));
            }
        }
    }

    fn descriptor(&self, task: &Task, fd: &str, sockets: &mut Sockets) -> Option<Obstacle> {
        let path = task.path(&format!("fd/{fd}"));
        let link = fs::read_link(&path).ok()?.to_string_lossy().into_owned();
        let obstacle = |reason: &str, remedy: &str| {
            Some(task.obstacle("descriptor", &format!("fd {fd}: {link}"), reason, remedy))
        };
        if let Some(inode) = numbered(&link, "socket") {
            sockets.add(task, fd, inode);
            return None;
        }
        if let Some(kind) = link.strip_prefix("anon_inode:") {
            if let Some((reason, remedy)) = anonymous(kind) {
                return obstacle(&reason, remedy);
            }
            let info = read(task.path(&format!("fdinfo/{fd}")));
            return match self.unreachable_watch(&info) {
                true => obstacle(
                    "it watches a file that criu would not find again: of proc, sysfs or devpts, or mounted by itself",
                    "have the program watch the file's directory instead, or close the watch before the checkpoint",
                ),
                false => None,
            };
        }
        if !link.starts_with('/') {
            let kind = link.split(':').next().unwrap_or_default();
            let is_known = kind == "pipe" || kind == "pidfd" || NAMESPACES.contains(&kind);
            return match is_known {
                true => None,
                false => obstacle("criu does not know this kind of descriptor", CLOSE),
            };
        }
        let meta = fs::metadata(&path).ok()?;
        let kind = meta.file_type();
        if kind.is_block_device() {
            return obstacle("criu does not save open block devices", CLOSE);
        }
        let info = read(task.path(&format!("fdinfo/{fd}")));
        if kind.is_char_device()
            && let Some(reason) = tunnel(&meta, &info)
        {
            let found = obstacle(&reason, "end the program that has the tunnel");
            return found.map(|found| Obstacle { is_trap: true, ..found });
        }
        if kind.is_char_device()
            && let Some((reason, remedy)) = device(&meta)
        {
            return obstacle(&reason, remedy);
        }
        let (reason, remedy) = self.file(&path, &link, &meta, id_of(&info))?;
        obstacle(&reason, remedy)
    }

    fn mappings(&mut self, task: &Task, found: &mut Vec<Obstacle>) {
        for line in read(task.path("maps")).lines() {
            let Some((range, name)) = mapping(line) else { continue };
            let obstacle = |reason: &str, remedy: &str| {
                task.obstacle("mapping", &format!("{range} {name}"), reason, remedy)
            };
            let path = task.path(&format!("map_files/{range}"));
            let Ok(meta) = fs::metadata(&path) else { continue };
            if !self.seen.insert((meta.dev(), meta.ino())) {
                continue;
            }
            if let Some(kind) = name.strip_prefix("anon_inode:") {
                if let Some((reason, remedy)) = anonymous(kind) {
                    found.push(obstacle(&reason, remedy));
                }
                continue;
            }
            let device = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
            if meta.file_type().is_char_device() && device != (MEMORY, 5) {
                found.push(obstacle("criu does not save the memory of devices", CLOSE));
                continue;
            }
            // What asynchronous reads and writes are queued in has a name as if it were a file's.
            if !name.starts_with('/') || name.starts_with("/[aio]") {
                continue;
            }
            let mount = open_path(&path).and_then(|fd| id_of_own(&fd));
            if let Some((reason, remedy)) = self.file(&path, name, &meta, mount) {
                found.push(obstacle(&reason, remedy));
            }
        }
    }

    /// Whether an open or mapped file would be found again. `path` leads to it from here, `link` is its name in the
    /// container.
    fn file(
        &self,
        path: &str,
        link: &str,
        meta: &fs::Metadata,
        mount: Option<u64>,
    ) -> Option<(String, &'static str)> {
        if Some(meta.dev()) == self.memory {
            return None;
        }
        let stat = rustix::fs::statfs(path).ok()?;
        match stat.f_type {
            HUGETLBFS => {
                let size = u64::try_from(stat.f_bsize).unwrap_or_default() >> 10;
                let free = read(format!("/sys/kernel/mm/hugepages/hugepages-{size}kB/free_hugepages"));
                return (free.trim().parse::<u64>().unwrap_or_default() == 0).then(|| {
                    (
                        format!("criu needs a free huge page of {size} KiB to know such memory by, and there is none"),
                        "reserve huge pages (/proc/sys/vm/nr_hugepages), or run the program without them",
                    )
                });
            }
            MQUEUE => {
                return Some((
                    "criu does not save POSIX message queues".to_owned(),
                    "have the program close and remove its queue, or use another kind of queue",
                ));
            }
            SECRETMEM => {
                return Some((
                    "nobody but the process can read secret memory (memfd_secret), criu included".to_owned(),
                    CLOSE,
                ));
            }
            _ => {}
        }
        let named = link.strip_suffix(" (deleted)").unwrap_or(link);
        let is_where_it_was =
            || self.resolve(named).is_some_and(|it| (it.dev, it.ino) == (meta.dev(), meta.ino()));
        let Some(mount) = mount.and_then(|id| self.table.get(id)) else {
            // A copy of a mount shows the same.
            return (!is_where_it_was()).then_some((
                "it is not on a mount of the container's: it was opened outside, or its mount is gone"
                    .to_owned(),
                CLOSE,
            ));
        };
        if !meta.is_file() {
            return None;
        }
        if meta.nlink() == 0 {
            let bytes = meta.blocks() * 512;
            return (bytes > GHOST_LIMIT_BYTES).then(|| {
                (
                    format!(
                        "it is a deleted file with {} MiB, and up to {} are saved",
                        bytes >> 20,
                        GHOST_LIMIT_BYTES >> 20
                    ),
                    "have the program close or truncate it",
                )
            });
        }
        // A further link is made beside where it was, if it is not there any more.
        if is_where_it_was() {
            return None;
        }
        let parent = Path::new(named).parent().and_then(|parent| self.resolve(&parent.to_string_lossy()));
        if mount.is_read_only {
            return Some((
                "its name is gone, and on a read-only mount it cannot be given another".to_owned(),
                "mount the volume writable, or have the program open the file anew",
            ));
        }
        if parent.is_none_or(|parent| parent.mount != Some(mount.id)) {
            return Some((
                "something else is mounted where it is".to_owned(),
                "unmount what hides it, or have the program close it",
            ));
        }
        None
    }

    /// What is at a path of the container's.
    fn resolve(&self, path: &str) -> Option<Place> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = self.root.as_ref()?;
        // The container's links lead nowhere else.
        let fd = rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        Some(Place { dev: stat.st_dev, ino: stat.st_ino, mount: id_of_own(&fd) })
    }

    /// Whether one of the watches in an inotify's or fanotify's fdinfo is on something that cannot be opened by its
    /// handle, which is how CRIU finds it.
    fn unreachable_watch(&self, info: &str) -> bool {
        info.lines().filter_map(Watch::parse).any(|watch| !self.is_reachable(&watch))
    }

    fn is_reachable(&self, watch: &Watch) -> bool {
        for mount in self.table.iter().filter(|mount| mount.device == watch.device) {
            let Ok(path) = CString::new(mount.destination.as_bytes()) else { continue };
            let (Some(root), flags) = (&self.root, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC)
            else {
                continue;
            };
            let is_found = SEARCHED.iter().any(|dir| Path::new(&mount.destination).starts_with(dir));
            let flags = flags | OFlags::NOFOLLOW;
            let directory = rustix::fs::openat2(
                root,
                &path,
                flags | OFlags::DIRECTORY,
                Mode::empty(),
                ResolveFlags::IN_ROOT,
            );
            match directory {
                Ok(directory) if opens_handle(directory.as_fd(), watch.kind, &watch.handle) => return true,
                Ok(_) => {}
                Err(_) => {
                    // A file that is mounted by itself.
                    if is_found && self.resolve(&mount.destination).is_some_and(|it| it.ino == watch.inode) {
                        return true;
                    }
                }
            }
        }
        false
    }
}

/// For what nothing else can be done about.
const CLOSE: &str = "have the program close it before the checkpoint, or run that program elsewhere";

/// What is at a path.
struct Place {
    dev: u64,
    ino: u64,
    mount: Option<u64>,
}

/// A watched file.
#[derive(Debug, PartialEq, Eq)]
struct Watch {
    inode: u64,
    device: (u32, u32),
    kind: i32,
    handle: Vec<u8>,
}

impl Watch {
    /// A line of fdinfo; `None` for others, and for watches of whole mounts, which CRIU finds otherwise.
    fn parse(line: &str) -> Option<Watch> {
        let value = |name: &str| {
            line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix(':')).map(str::to_owned)
        };
        if !line.starts_with("inotify ") && !line.starts_with("fanotify ino:") {
            return None;
        }
        let hex = |text: String| u64::from_str_radix(&text, 16).ok();
        let device = u32::try_from(hex(value("sdev")?)?).ok()?;
        // As the kernel has it inside: twenty bits of minor number.
        let device = (device >> 20, device & 0xf_ffff);
        let text = value("f_handle").unwrap_or_default();
        let handle = text
            .as_bytes()
            .chunks_exact(2)
            .filter_map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok());
        Some(Watch {
            inode: hex(value("ino")?)?,
            device,
            kind: value("fhandle-type")
                .and_then(hex)
                .and_then(|kind| i32::try_from(kind).ok())
                .unwrap_or_default(),
            handle: handle.collect(),
        })
    }
}

fn open_path(path: &str) -> Option<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// N of `kind:[N]`.
fn numbered(link: &str, kind: &str) -> Option<u64> {
    link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?.parse().ok()
}

/// What of an anonymous descriptor's kind CRIU does not save, and what to do about it.
fn anonymous(kind: &str) -> Option<(String, &'static str)> {
    if ANONYMOUS.contains(&kind) {
        return None;
    }
    let name = kind.trim_matches(['[', ']']);
    let remedy = match name {
        "io_uring" => {
            "run the program without io_uring (dewar's seccomp profile forbids it, and programs do without)"
        }
        "perf_event" => "end the profiler",
        "userfaultfd" => "run the program without userfaultfd, or wait until a lazy restore has ended",
        _ => CLOSE,
    };
    Some((format!("criu does not save descriptors of kind {name}"), remedy))
}

/// What becomes of a tunnel's interface.
fn tunnel(meta: &fs::Metadata, info: &str) -> Option<String> {
    let number = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    let name = super::fields(info).get("iff").cloned().filter(|name| !name.is_empty());
    let name = name.filter(|_| number == (MISCELLANEA, TUN))?;
    Some(format!("its interface {name} would not be there when it is thawed"))
}

/// What of a character device CRIU does not save.
fn device(meta: &fs::Metadata) -> Option<(String, &'static str)> {
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    match (major, minor) {
        (MEMORY | TERMINALS | TERMINALS_TOO, _) | (MISCELLANEA, AUTOFS | TUN) => None,
        (major, _) if PSEUDOTERMINALS.contains(&major) => None,
        _ => Some((format!("criu does not save open devices such as {major}:{minor}"), CLOSE)),
    }
}

/// The range and the name of a mapped file, of a line of maps.
fn mapping(line: &str) -> Option<(&str, &str)> {
    let (range, rest) = line.split_once(' ')?;
    // Permissions, offset, device, number; the name follows after blanks.
    let mut rest = rest;
    let mut inode = "";
    for _ in 0..4 {
        let (word, after) = rest.trim_start().split_once(' ')?;
        (inode, rest) = (word, after);
    }
    (inode != "0").then(|| (range, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_files_are_told_from_other_memory() {
        let line = "7f1c000-7f1d000 r-xp 00001000 fe:01 4242       /usr/lib/a b.so (deleted)";
        assert_eq!(mapping(line), Some(("7f1c000-7f1d000", "/usr/lib/a b.so (deleted)")));
        assert_eq!(mapping("7ffc000-7ffd000 rw-p 00000000 00:00 0          [stack]"), None);
        assert_eq!(mapping("7ffc000-7ffd000 rw-p 00000000 00:00 0 "), None);
        assert_eq!(mapping(""), None);
    }

    #[test]
    fn watches_are_read_from_fdinfo() {
        let line = "inotify wd:1 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:7e9e0000640d1b6d";
        let watch = Watch::parse(line).unwrap();
        assert_eq!((watch.inode, watch.device, watch.kind), (0x9e7e, (8, 19), 1));
        assert_eq!(watch.handle, [0x7e, 0x9e, 0, 0, 0x64, 0x0d, 0x1b, 0x6d]);
        assert_eq!(Watch::parse("fanotify mnt_id:12 mflags:0 mask:38 ignored_mask:40000000"), None);
        assert_eq!(Watch::parse("pos:\t0"), None);
        let none = Watch::parse("inotify wd:1 ino:1 sdev:14 mask:2 ignored_mask:0 ").unwrap();
        assert!(none.handle.is_empty());
    }

    #[test]
    fn kinds_that_criu_saves_are_not_in_the_way() {
        assert!(anonymous("[eventfd]").is_none() && anonymous("inotify").is_none());
        assert!(anonymous("[io_uring]").unwrap().1.contains("seccomp"));
        assert!(anonymous("bpf-map").unwrap().0.ends_with("bpf-map"));
        assert_eq!(numbered("socket:[12]", "socket"), Some(12));
        assert_eq!(numbered("socket:12", "socket"), None);
        assert!(device(&fs::metadata("/dev/null").unwrap()).is_none());
    }
}
