//! The launcher: prepares its own namespaces, for a restore its cgroup, and becomes CRIU.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use super::system;
use crate::runtime::cgroup::Cgroup;
use crate::runtime::sys::process::unshare;
use crate::runtime::{Cause, Error};

/// The launcher's main. Arguments as `Launcher::prepared` gives them; with nothing after them standard input is the
/// conversation's socket.
pub fn main(args: &[OsString]) -> ExitCode {
    let [criu, cache, cgroup, namespace, reachable, words @ ..] = args else { return ExitCode::from(2) };
    match launch(criu, Path::new(cache), cgroup, namespace == "private", Path::new(reachable), words) {
        Ok(never) => match never {},
        // The socket's end tells that it failed; a parent that keeps standard error learns why.
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn launch(
    criu: &OsStr,
    cache: &Path,
    cgroup: &OsStr,
    cgroup_namespace: bool,
    reachable: &Path,
    words: &[OsString],
) -> Result<std::convert::Infallible, Error> {
    if !cgroup.is_empty() {
        Cgroup::open(&cgroup.to_string_lossy())?.enter_self()?;
        if cgroup_namespace {
            unshare(UnshareFlags::NEWCGROUP).map_err(|error| unshared("cgroup", error))?;
        }
    }
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

fn unshared(what: &str, error: io::Error) -> Error {
    Error { op: "leave".into(), object: format!("{what} namespace"), cause: Cause::Io(error) }
}

/// Puts a tmpfs holding the cached features on /run, unless it is one; `reachable` keeps its path.
fn cover_run(cache: &Path, reachable: &Path) -> io::Result<()> {
    const TMPFS_MAGIC: u32 = 0x0102_1994;
    const RUN: &str = "/run";
    if rustix::fs::statfs(RUN)?.f_type as u32 == TMPFS_MAGIC {
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
