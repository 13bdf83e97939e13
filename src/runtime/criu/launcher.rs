//! The launcher: prepares its own namespaces, for a restore its cgroup, and becomes CRIU. It is a program of its own,
//! or for a restore, where it can be, a child of the shim that was born in the container's cgroup.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use super::rpc::Conversation;
use super::{LAUNCHER_NAME, cache_file, system};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::shim::protocol::CriuPlace;
use crate::runtime::sys::process::unshare;
use crate::runtime::sys::{process, signal};
use crate::runtime::{Cause, Error};

/// Where a restored tree is to live; CRIU's processes become its own.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    pub cgroup: &'a Cgroup,
    /// It has a cgroup namespace of its own.
    pub has_namespace: bool,
}

/// Starts a CRIU.
#[derive(Debug)]
pub struct Launcher<'a> {
    exe: &'a Path,
    pub(super) place: &'a CriuPlace,
    /// To be in.
    pub home: Option<Home<'a>>,
    /// A directory below /run that keeps its path.
    pub keep_reachable: Option<&'a Path>,
}

impl<'a> Launcher<'a> {
    /// Of the CRIU at `place`; `exe` is the dewar binary.
    pub fn new(exe: &'a Path, place: &'a CriuPlace) -> Launcher<'a> {
        Launcher { exe, place, home: None, keep_reachable: None }
    }

    /// Starts it for a conversation. For one in a cgroup the caller must be single-threaded.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self) -> Result<Conversation, Error> {
        let failed = |error: io::Error| Error {
            op: "start".into(),
            object: format!("criu at \"{}\"", self.place.path.display()),
            cause: Cause::Io(error),
        };
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
            .map_err(|errno| failed(errno.into()))?;
        if let Some(home) = self.home
            && let Some(dir) = home.cgroup.clone_into()?
        {
            let child = match process::clone(0, Some(dir.as_fd())).map_err(failed)? {
                process::Side::Child => self.born(home, &theirs),
                process::Side::Parent { pid, .. } => pid,
            };
            let child = Pid::from_raw(child).ok_or_else(|| failed(io::ErrorKind::InvalidData.into()))?;
            return Ok(Conversation::new(ours, child));
        }
        let child = self
            .prepared()
            // One signal ends it with all its processes.
            .process_group(0)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        // Who talks to it waits for it, too.
        Ok(Conversation::new(ours, Pid::from_child(&child)))
    }

    /// The child's side of [`start`](Launcher::start): becomes CRIU, or ends.
    fn born(&self, home: Home<'_>, socket: &OwnedFd) -> ! {
        let become_criu = || -> Result<Infallible, Error> {
            signal::reset();
            let place = || -> rustix::io::Result<()> {
                // One signal ends it with all its processes.
                rustix::process::setpgid(None, None)?;
                let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
                rustix::stdio::dup2_stdin(socket)?;
                rustix::stdio::dup2_stdout(&null)?;
                rustix::stdio::dup2_stderr(&null)
            };
            place().map_err(|errno| system("place", "criu's descriptors", errno))?;
            let cache = cache_file(self.place).unwrap_or_default();
            let reachable = self.keep_reachable.unwrap_or(Path::new(""));
            born(self.place.path.as_os_str(), &cache, home, reachable)
        };
        // The end of its socket tells that it failed. Nothing of the shim's may go on here.
        let _ = catch_unwind(AssertUnwindSafe(become_criu));
        process::exit(1)
    }

    /// The launcher's command, which ends in a conversation unless arguments for CRIU are added.
    pub fn prepared(&self) -> Command {
        let empty = OsStr::new("");
        let (cgroup, namespace) =
            self.home.map_or(("", false), |home| (home.cgroup.path(), home.has_namespace));
        let cache = cache_file(self.place);
        let mut command = Command::new(self.exe);
        command
            .arg0(LAUNCHER_NAME)
            .arg(&self.place.path)
            .arg(cache.as_deref().map_or(empty, Path::as_os_str))
            .arg(cgroup)
            .arg(if namespace { "private" } else { "shared" })
            .arg(self.keep_reachable.map_or(empty, Path::as_os_str))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
        command
    }
}

/// The launcher's main. Arguments as `Launcher::prepared` gives them; with nothing after them standard input is the
/// conversation's socket.
pub fn main(args: &[OsString]) -> ExitCode {
    let [criu, cache, cgroup, namespace, reachable, words @ ..] = args else { return ExitCode::from(2) };
    let enter = || {
        if cgroup.is_empty() {
            // A dump that is killed may take the container along: let the kernel find somebody else when it is out of
            // memory. (A restore's children would have it, too.) Without CAP_SYS_RESOURCE it stays as it is.
            let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
            return Ok(());
        }
        Cgroup::open(&cgroup.to_string_lossy())?.enter_self()?;
        leave_cgroup_namespace(namespace == "private")
    };
    match enter().and_then(|()| launch(criu, Path::new(cache), Path::new(reachable), words)) {
        Ok(never) => match never {},
        // The socket's end tells that it failed; a parent that keeps standard error learns why.
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// As [`main`], in a process that was born in the container's cgroup2; with the conversation's socket for standard
/// input. Returns the reason only.
pub fn born(criu: &OsStr, cache: &Path, home: Home<'_>, reachable: &Path) -> Result<Infallible, Error> {
    home.cgroup.enter_self_v1()?;
    leave_cgroup_namespace(home.has_namespace)?;
    launch(criu, cache, reachable, &[])
}

fn leave_cgroup_namespace(is_private: bool) -> Result<(), Error> {
    if !is_private {
        return Ok(());
    }
    unshare(UnshareFlags::NEWCGROUP).map_err(|error| Error {
        op: "leave".into(),
        object: "cgroup namespace".into(),
        cause: Cause::Io(error),
    })
}

fn launch(criu: &OsStr, cache: &Path, reachable: &Path, words: &[OsString]) -> Result<Infallible, Error> {
    // A cache is a convenience: without it CRIU is slower, not wrong.
    let _ = cover_run(cache, reachable);
    let failed = |error: io::Error| Error {
        op: "execute".into(),
        object: criu.to_string_lossy().into_owned(),
        cause: Cause::Io(error),
    };
    if !words.is_empty() {
        return Err(failed(Command::new(criu).arg("--no-default-config").args(words).exec()));
    }
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 100)
        .and_then(|copy| rustix::io::fcntl_setfd(&copy, rustix::io::FdFlags::empty()).map(|()| copy))
        .map_err(|errno| system("pass", "criu's socket", errno))?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| system("open", "/dev/null", errno))?;
    rustix::stdio::dup2_stdin(&null).map_err(|errno| system("open", "/dev/null", errno))?;
    let error =
        Command::new(criu).arg("--no-default-config").arg("swrk").arg(socket.as_raw_fd().to_string()).exec();
    Err(failed(error))
}

const RUN: &str = "/run";

/// Whether a CRIU that is launched here sees what is mounted here later: where /run is no tmpfs it goes to a mount
/// namespace of its own.
pub fn stays_here() -> bool {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    rustix::fs::statfs(RUN).is_ok_and(|found| found.f_type as u32 == TMPFS_MAGIC)
}

/// Puts a tmpfs holding the cached features on /run, unless it is one; `reachable` keeps its path.
fn cover_run(cache: &Path, reachable: &Path) -> io::Result<()> {
    if stays_here() {
        return Ok(());
    }
    unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    // The mount point only serves to build on; the host's directory is not seen through.
    let build = Path::new("/proc/self/fd");
    let scratch = Path::new("/run/lock");
    let scratch = if scratch.is_dir() { scratch } else { build };
    rustix::mount::mount(
        "dewar-criu",
        scratch,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        c"mode=0700",
    )?;
    if !cache.as_os_str().is_empty() && cache.exists() {
        std::fs::copy(cache, scratch.join("criu.kdat"))?;
    }
    if let Ok(below) = reachable.strip_prefix(RUN)
        && !below.as_os_str().is_empty()
    {
        let copy = scratch.join(below);
        std::fs::create_dir_all(&copy)?;
        rustix::mount::mount_bind_recursive(reachable, &copy)?;
    }
    rustix::mount::mount_move(scratch, RUN)?;
    Ok(())
}
