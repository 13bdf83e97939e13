//! The processes of a cgroup: how they get in, who they are, how they are killed.
//!
//! A process enters by its own write where it can ([`Cgroup::enter_self`], [`Entrance`]): on v1 that is
//! several times faster than being moved.
//!
//! Source: cgroups(7); kernel Documentation/admin-guide/cgroup-v2.rst "No Internal Process Constraint".

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::tree::{descendants, is_gone, read_pids};
use super::{Cgroup, Version, failed, put, refused};
use crate::runtime::Error;

/// Longest time to chase processes that fork while they are being killed.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Opened doors into a cgroup: whoever holds them can enter by writing alone.
///
/// [`Entrance::enter`] is async-signal-safe: for a child between fork and exec, or one that has already
/// given up the rights or the root directory needed to open them (v1 and v2 check the opener's rights).
#[derive(Debug)]
pub struct Entrance {
    files: Vec<File>,
}

impl Cgroup {
    /// Opens the files through which the holder can enter later; close-on-exec.
    pub fn entrance(&self) -> Result<Entrance, Error> {
        let mut files = Vec::with_capacity(self.layout.v1.len() + 1);
        // In v1 a thread's own move through `tasks` is several times faster than through cgroup.procs,
        // which waits for every thread of the process to be at rest.
        let tasks = self.layout.v1.iter().map(|h| self.below(&h.mount).join("tasks"));
        for path in tasks.chain(self.v2_dir().map(|dir| dir.join("cgroup.procs"))) {
            files.push(OpenOptions::new().write(true).open(&path).map_err(|e| failed("open", &path, e))?);
        }
        Ok(Entrance { files })
    }

    /// Moves the calling process, which must have only one thread, into the cgroup.
    pub fn enter_self(&self) -> Result<(), Error> {
        let entered = self.entrance()?.enter();
        match entered {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => self.attach_v2_leaf("0"),
            result => result.map_err(|e| failed("enter cgroup", Path::new(&self.path), e)),
        }
    }

    /// Moves a process with all its threads into the cgroup.
    #[cfg(test)]
    pub fn attach(&self, pid: i32) -> Result<(), Error> {
        let value = pid.to_string();
        for dir in self.dirs() {
            let path = dir.join("cgroup.procs");
            match put(&path, &value) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Some(&dir) == self.v2_dir().as_ref() => {
                    self.attach_v2_leaf(&value)?;
                }
                result => result.map_err(|e| failed(&format!("move process {pid} to"), &path, e))?,
            }
        }
        Ok(())
    }

    /// Sees to it that a process is in the cgroup, or below it, in every hierarchy: an OCI runtime may not know,
    /// or not use, all of them.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn adopt(&self, pid: i32) -> Result<(), Error> {
        for dir in self.dirs() {
            let is_inside = |dir: &Path| read_pids(dir).is_ok_and(|pids| pids.contains(&pid));
            if is_inside(&dir) || descendants(&dir).iter().any(|below| is_inside(below)) {
                continue;
            }
            let path = dir.join("cgroup.procs");
            put(&path, &pid.to_string()).map_err(|e| failed(&format!("move process {pid} to"), &path, e))?;
        }
        Ok(())
    }

    /// A container that runs an init of its own moves its processes into sub-cgroups and enables
    /// controllers for them; then v2 lets nobody into the inner node (EBUSY), and a newcomer joins the
    /// first inhabited leaf.
    fn attach_v2_leaf(&self, pid: &str) -> Result<(), Error> {
        let busy = || io::Error::from_raw_os_error(libc::EBUSY);
        let dir = self.v2_dir().ok_or_else(|| refused("enter cgroup", &self.path, "no cgroup2"))?;
        for leaf in descendants(&dir) {
            if read_pids(&leaf).is_ok_and(|pids| !pids.is_empty())
                && put(&leaf.join("cgroup.procs"), pid).is_ok()
            {
                return Ok(());
            }
        }
        Err(failed("enter cgroup", &dir, busy()))
    }

    /// The cgroup2 directory for clone3's CLONE_INTO_CGROUP; a child born there only needs
    /// [`Cgroup::enter_self_v1`]. `None` without cgroup2, or when its own children hold the controllers.
    ///
    /// Worth it on hybrid hosts too: moving a process into a cgroup2 waits for an RCU grace period (11 ms
    /// measured), being born in one does not.
    pub fn clone_into(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(dir) = self.v2_dir() else { return Ok(None) };
        let is_inner =
            fs::read(dir.join("cgroup.subtree_control")).is_ok_and(|text| !text.trim_ascii().is_empty());
        if is_inner {
            return Ok(None);
        }
        let file = File::open(&dir).map_err(|e| failed("open cgroup", &dir, e))?;
        Ok(Some(file.into()))
    }

    /// Moves the calling process, which must have only one thread, into the cgroup's v1 hierarchies.
    pub fn enter_self_v1(&self) -> Result<(), Error> {
        for hierarchy in &self.layout.v1 {
            let path = self.below(&hierarchy.mount).join("tasks");
            put(&path, "0").map_err(|e| failed("enter cgroup", &path, e))?;
        }
        Ok(())
    }

    /// Every process in the cgroup and below it, as this process's pid namespace numbers them. Empty when
    /// the cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>, Error> {
        let dir = self
            .v2_dir()
            .or_else(|| self.v1_dir("freezer"))
            .or_else(|| self.dirs().next())
            .ok_or_else(|| refused("list processes of", &self.path, "no cgroup filesystem is mounted"))?;
        let mut pids = Vec::new();
        for dir in std::iter::once(dir.clone()).chain(descendants(&dir)) {
            match read_pids(&dir) {
                Ok(mut more) => pids.append(&mut more),
                // Threaded sub-cgroups list their processes in the domain above them.
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(failed("list processes of", &dir, e)),
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Kills every process in the cgroup, frozen ones included. Does not wait for them to be reaped.
    ///
    /// # Errors
    /// When processes keep appearing for five seconds (only without `cgroup.kill`, before Linux 5.14).
    pub fn kill_all(&self) -> Result<(), Error> {
        let killed = match self.v2_dir() {
            Some(dir) => match put(&dir.join("cgroup.kill"), "1") {
                Ok(()) => true,
                Err(e) if is_gone(&e) => false,
                Err(e) => return Err(failed("kill processes of", &dir, e)),
            },
            None => false,
        };
        if !killed {
            self.kill_each()?;
        }
        // A task frozen by v1 dies only when it runs again.
        match self.freezer() {
            Some((Version::V1, dir)) => match put(&dir.join("freezer.state"), "THAWED") {
                Err(e) if !is_gone(&e) => Err(failed("thaw cgroup", &dir, e)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// Signals what is listed until nothing new is: a process may fork between the list and the signal.
    fn kill_each(&self) -> Result<(), Error> {
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut signalled: Vec<i32> = Vec::new();
        loop {
            let pids = self.pids()?;
            let mut fresh = false;
            for pid in &pids {
                fresh |= !signalled.contains(pid);
                if let Some(pid) = rustix::process::Pid::from_raw(*pid) {
                    // Gone meanwhile is as good as killed.
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if !fresh {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(failed(
                    "kill processes of",
                    Path::new(&self.path),
                    io::ErrorKind::TimedOut.into(),
                ));
            }
            signalled = pids;
        }
    }
}

impl Entrance {
    /// Moves the calling process, which must have only one thread, into the cgroup. Async-signal-safe.
    pub fn enter(&self) -> io::Result<()> {
        for mut file in &self.files {
            file.write_all(b"0")?;
        }
        Ok(())
    }
}
