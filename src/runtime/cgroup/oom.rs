//! Noticing the OOM killer: v1's eventfd on `memory.oom_control`, v2's inotify on `memory.events`.
//!
//! In: a cgroup with a memory controller. Out: a descriptor to poll, and the answer whether it struck.
//! The notice races with the victim's exit, so whoever reports an exit also asks [`kills`].
//!
//! Source: kernel Documentation/admin-guide/cgroup-v1/memory.rst section 10, cgroup-v2.rst `memory.events`.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify;

use super::layout::Version;
use super::tree::descendants;
use super::{failed, keyed, put};
use crate::runtime::Error;

/// Becomes readable when a process of the cgroup is out of memory; close-on-exec.
#[derive(Debug)]
pub struct OomNotifier {
    fd: OwnedFd,
    version: Version,
    dir: PathBuf,
    seen: u64,
}

impl OomNotifier {
    pub(super) fn open(version: Version, dir: PathBuf) -> Result<OomNotifier, Error> {
        let fd = match version {
            Version::V1 => {
                let control = dir.join("memory.oom_control");
                let file = File::open(&control).map_err(|e| failed("open", &control, e))?;
                let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(|e| failed("make an eventfd for", &control, e.into()))?;
                let line = format!("{} {}", fd.as_raw_fd(), file.as_raw_fd());
                // The kernel keeps the eventfd; the file may be closed.
                let register = dir.join("cgroup.event_control");
                put(&register, &line).map_err(|e| failed("write to", &register, e))?;
                fd
            }
            Version::V2 => {
                let events = dir.join("memory.events");
                let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
                    .map_err(|e| failed("make an inotify for", &events, e.into()))?;
                inotify::add_watch(&fd, &events, inotify::WatchFlags::MODIFY)
                    .map_err(|e| failed("watch", &events, e.into()))?;
                fd
            }
        };
        let seen = kills(version, &dir);
        Ok(OomNotifier { fd, version, dir, seen })
    }

    /// Whether the OOM killer struck since the last call. Takes the notice off the descriptor; never blocks.
    ///
    /// v1 gives notice just before it kills, so there a notice is the answer; it also gives notice when the
    /// cgroup is removed, which is none.
    pub fn struck(&mut self) -> bool {
        let noticed = match self.version {
            Version::V1 => {
                let mut count = [0u8; 8];
                rustix::io::read(&self.fd, &mut count).is_ok()
            }
            Version::V2 => {
                let mut buffer = [MaybeUninit::uninit(); 512];
                let mut reader = inotify::Reader::new(&self.fd, &mut buffer);
                while reader.next().is_ok() {}
                false
            }
        };
        let now = kills(self.version, &self.dir);
        let more = now > self.seen;
        // A v1 notice ahead of its count must not be reported a second time when the count follows, but a
        // count that never follows must not hide the next kill either: the count seen is the count read.
        self.seen = now;
        more || (noticed && self.dir.exists())
    }
}

impl AsFd for OomNotifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Kills counted so far; v2 counts a whole subtree in one file, v1 each cgroup for itself.
pub(super) fn kills(version: Version, dir: &Path) -> u64 {
    let count = |dir: &Path, file: &str| {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        keyed(&text, "oom_kill").unwrap_or(0)
    };
    match version {
        Version::V1 => std::iter::once(dir.to_owned())
            .chain(descendants(dir))
            .map(|dir| count(&dir, "memory.oom_control"))
            .sum(),
        Version::V2 => count(dir, "memory.events"),
    }
}
