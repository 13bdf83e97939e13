//! Stopping every task of a cgroup where it is: v1's `freezer.state`, v2's `cgroup.freeze`.
//!
//! ```text
//!   v1   THAWED ──"FROZEN"──► FREEZING ──► FROZEN        ask until it says so
//!   v2   frozen 0 ──"1"──► (tasks stop one by one) ──► frozen 1    the file announces it (POLLPRI)
//! ```
//!
//! Source: kernel Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst, cgroup-v2.rst `cgroup.freeze`.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Cgroup, Version, failed, keyed, put, refused};
use crate::runtime::Error;

/// Longest wait for the kernel to freeze or thaw every task.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Stops every task where it is. Blocks until all are stopped, at most ten seconds; on failure they run.
    pub fn freeze(&self) -> Result<(), Error> {
        match self.freezer() {
            Some((Version::V1, dir)) => {
                let frozen = freeze_v1(&dir.join("freezer.state"), FREEZE_TIMEOUT);
                frozen.map_err(|e| {
                    let _ = self.thaw();
                    failed("freeze cgroup", &dir, e)
                })
            }
            Some((Version::V2, dir)) => {
                let frozen = put(&dir.join("cgroup.freeze"), "1")
                    .and_then(|()| wait_frozen(&dir.join("cgroup.events"), true));
                frozen.map_err(|e| {
                    let _ = self.thaw();
                    failed("freeze cgroup", &dir, e)
                })
            }
            None => Err(refused("freeze cgroup", &self.path, "no freezer is mounted")),
        }
    }

    /// Lets every task run again. Not an error when they already do.
    pub fn thaw(&self) -> Result<(), Error> {
        match self.freezer() {
            Some((Version::V1, dir)) => {
                put(&dir.join("freezer.state"), "THAWED").map_err(|e| failed("thaw cgroup", &dir, e))
            }
            Some((Version::V2, dir)) => put(&dir.join("cgroup.freeze"), "0")
                .and_then(|()| wait_frozen(&dir.join("cgroup.events"), false))
                .map_err(|e| failed("thaw cgroup", &dir, e)),
            None => Err(refused("thaw cgroup", &self.path, "no freezer is mounted")),
        }
    }

    /// Whether [`Cgroup::freeze`] is in force (or under way) on this very cgroup.
    #[cfg(test)]
    pub fn is_frozen(&self) -> Result<bool, Error> {
        let (file, running) = match self.freezer() {
            Some((Version::V1, dir)) => (dir.join("freezer.state"), "THAWED"),
            Some((Version::V2, dir)) => (dir.join("cgroup.freeze"), "0"),
            None => return Ok(false),
        };
        let state = fs::read_to_string(&file).map_err(|e| failed("read", &file, e))?;
        Ok(state.trim() != running)
    }

    pub(super) fn freezer(&self) -> Option<(Version, PathBuf)> {
        self.home("freezer")
    }

    /// What CRIU's `--freeze-cgroup` wants: the directory with `freezer.state` (v1) or `cgroup.freeze` (v2).
    pub fn freezer_path(&self) -> Option<PathBuf> {
        self.freezer().map(|(_, dir)| dir)
    }
}

/// v1's freezer takes repeated asking: a task that forks or sleeps uninterruptibly at the wrong moment leaves
/// the group FREEZING until somebody looks again, and sometimes only a thaw in between helps.
fn freeze_v1(state: &Path, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut pause = Duration::from_micros(20);
    let mut tries = 0u32;
    loop {
        put(state, "FROZEN")?;
        if fs::read_to_string(state)?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        tries += 1;
        if tries.is_multiple_of(50) {
            put(state, "THAWED")?;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Waits until `cgroup.events` says what is wanted; the file raises POLLPRI when it changes.
fn wait_frozen(events: &Path, wanted: bool) -> io::Result<()> {
    let deadline = Instant::now() + FREEZE_TIMEOUT;
    let mut file = File::open(events)?;
    let mut text = String::new();
    loop {
        text.clear();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        if keyed(&text, "frozen") == Some(u64::from(wanted)) {
            return Ok(());
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut fds = [rustix::event::PollFd::new(&file, rustix::event::PollFlags::PRI)];
        // Bounded, should the kernel's notice come before its count; an interruption reads again.
        let left = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: i64::from(left.min(Duration::from_millis(100)).subsec_nanos()),
        };
        match rustix::event::poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
