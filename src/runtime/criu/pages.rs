//! The page daemon of a lazy restore: `criu lazy-pages`, which gives memory to processes that run already, on demand
//! and by and by.
//!
//! ```text
//!  shim ─ spawn ─▶ criu lazy-pages ◀─ lazy-pages.socket (in the work directory) ─ criu restore
//!   │ pidfd            │ userfaultfd per process: fault ─▶ page of the images
//!   └─ holds copies of those, so that processes whose daemon is gone wait, and never see zeroes for memory
//! ```
//!
//! It ends by itself when everything is delivered, or when there are no processes any more.
//!
//! Of a move's memory the images have only the map: then it asks for the pages on a socket, see
//! [`asking`](super::asking), behind which a [`relay`](super::relay) stands.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

use super::launcher::Launcher;
use super::{asking, fault, open_dir, read_log, relay, system};
use crate::runtime::shim::protocol::CriuPlace;
use crate::runtime::{Cause, Error};

const LOG: &str = "lazy-pages.log";
/// How long the daemon may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the relay may take to tell that all is there.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A running page daemon; dropping it ends it.
#[derive(Debug)]
pub struct PageDaemon {
    child: Child,
    pidfd: OwnedFd,
    /// The processes' userfaultfds, ours too.
    held: Vec<OwnedFd>,
    log: std::path::PathBuf,
    /// Where it asks for pages: its end, which is ours, too; and who passes that on.
    asks: Option<(UnixStream, Relay)>,
    /// Its processes run.
    is_begun: bool,
}

/// The process that keeps its questions; dropping it waits until it has ended, or ends it.
#[derive(Debug)]
struct Relay(Child);

impl Drop for Relay {
    fn drop(&mut self) {
        let deadline = Instant::now() + LAST_WORD;
        while matches!(self.0.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn failed(op: &str, cause: impl Into<Cause>) -> Error {
    Error { op: op.into(), object: "the page daemon".into(), cause: cause.into() }
}

impl PageDaemon {
    /// Starts one for the images, with its sockets and its log in `work`; blocks until it listens. With `asks` the
    /// pages are not in the images, and the daemon at the other end of that is asked for them.
    ///
    /// # Errors
    /// It ended, or said nothing for long; the cause has its own words.
    pub fn start(
        place: &CriuPlace,
        images: &Path,
        work: &Path,
        asks: Option<OwnedFd>,
    ) -> Result<PageDaemon, Error> {
        let mut launcher = Launcher::new(Path::new("/proc/self/exe"), place);
        launcher.keep_reachable = Some(work);
        let mut command = launcher.prepared();
        let asks = asks.map(|line| -> Result<(UnixStream, Relay), Error> {
            let (theirs, criu) = UnixStream::pair().map_err(|error| failed("make a socket for", error))?;
            Ok((theirs, Relay(relay::start(work, criu.into(), line)?)))
        });
        let asks = asks.transpose()?;
        // Without close-on-exec, and out of the way of the standard streams.
        let passed = asks.as_ref().map(|(asks, _)| {
            let copy = rustix::io::fcntl_dupfd_cloexec(asks, 10)?;
            rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).map(|()| copy)
        });
        let passed = passed.transpose().map_err(|errno| system("pass", "the socket for pages", errno))?;
        // On a socket that is not TCP it warns at each request.
        let level = if passed.is_some() { "-v1" } else { "-v2" };
        command
            .args(["lazy-pages", "-D", "/proc/self/fd/0", "-o", LOG, level, "--status-fd", "1", "-W"])
            .arg(work);
        if let Some(passed) = &passed {
            command.arg("--page-server").arg("--ps-socket").arg(passed.as_raw_fd().to_string());
        }
        let child = command
            // A descriptor, which is good in whatever mount namespace.
            .stdin(Stdio::from(open_dir(images)?))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| failed("start", error))?;
        drop(passed);
        PageDaemon::listening(child, work.join(LOG), asks)
    }

    fn listening(
        mut child: Child,
        log: std::path::PathBuf,
        asks: Option<(UnixStream, Relay)>,
    ) -> Result<PageDaemon, Error> {
        let status = child.stdout.take();
        let pid = rustix::process::Pid::from_child(&child);
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed("watch", errno));
            }
        };
        let daemon = PageDaemon { child, pidfd, held: Vec::new(), log, asks, is_begun: false };
        let Some(mut status) = status else { return Err(failed("hear", Cause::Refused("no pipe".into()))) };
        let (deadline, mut byte) = (Instant::now() + PATIENCE, [0]);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            let mut fds = [PollFd::new(&status, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) => return Err(failed("start", Cause::Refused("it does not listen".into()))),
                Ok(_) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(failed("start", errno)),
            }
        }
        match std::io::Read::read(&mut status, &mut byte) {
            Ok(1..) => Ok(daemon),
            _ => Err(failed("start", Cause::Refused(daemon.words("it ended at once")))),
        }
    }

    /// Holds what the processes wait on, now that they have been restored. Those that they fork later are not among
    /// it. Failing is no matter: then an untimely end of the daemon is only not as safe.
    pub fn hold(&mut self) {
        self.is_begun = true;
        // It takes them up by itself: give it a moment.
        for _ in 0..20 {
            self.hold_now();
            if !self.held.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn hold_now(&mut self) {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{}/fd", self.child.id())) else { return };
        for entry in entries.flatten() {
            let is_ours = std::fs::read_link(entry.path())
                .is_ok_and(|target| target.as_os_str() == "anon_inode:[userfaultfd]");
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(number) = number.filter(|_| is_ours) {
                let copy = rustix::process::pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty());
                self.held.extend(copy);
            }
        }
    }

    /// Becomes readable when it has ended.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Takes leave of a daemon that has ended: an error when it had not delivered everything.
    ///
    /// The memory that is missing then stays so: the processes wait for it until they are killed or `self` is dropped.
    pub fn ended(&mut self) -> Result<(), String> {
        match self.child.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(self.lost(&format!("it ended untimely ({status})"))),
            Err(error) => Err(self.lost(&format!("it ended untimely: {error}"))),
        }
    }

    /// It is not told that all is there.
    fn lost(&mut self, what: &str) -> String {
        self.asks = None;
        self.words(what)
    }

    fn words(&self, what: &str) -> String {
        let said = fault::decisive(&read_log(&self.log)).join("; ");
        if said.is_empty() { what.to_owned() } else { format!("{what}: {said}") }
    }
}

impl Drop for PageDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Everything is there, or there are no processes any more that could want it.
        self.asks.iter().filter(|_| self.is_begun).for_each(|(asks, _)| asking::is_whole(asks));
    }
}
