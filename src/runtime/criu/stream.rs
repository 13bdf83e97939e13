//! Dumps whose images never are files: CRIU and the shim write into pipes, and [`capture`] reads those.
//!
//! ```text
//!  daemon ([`capture::Capture`])             shim                             dewar-criu, then criu dump --stream
//!    | listens: images/streamer-capture.sock   |                                  |
//!    |          files.sock                     |                                  |
//!    |                                         | --- spawn ---------------------> |
//!    | <-- name, a pipe's reading end ------------------------------------------  |  once for each image
//!    |                                         | <-- hook.sock: "post-dump" ----  |  the hook, this binary again
//!    | <-- name, a pipe's reading end -------  |                                  |  once for each archive of files
//!    |                                         | --- yes or no -----------------> |
//! ```
//!
//! CRIU streams only when it is started by its command line: over RPC it aborts. So what the conversation of `rpc`
//! reports comes by an action script here, a link to this binary that asks the shim and ends as it says. The sockets
//! are in the dump's directory, whose path is longer than a socket's may be: CRIU works in `images/` and knows it as
//! `.`, everybody else goes through a descriptor.
//!
//! A terminal's master is only handed over by RPC: a container that has one cannot be streamed.
//!
//! A restore reads files: CRIU asks for `inventory.img` and `pstree.img` first and for pages last, and a dump ends these two
//! behind all pages. Whoever served it from a stream would have to hold all of the memory beside what the processes get.
//!
//! Sources: criu(8); CRIU's `criu/img-streamer.c`, `criu/action-scripts.c`, `images/img-streamer.proto`.

pub mod capture;

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::process::PidfdFlags;

use super::launcher::Launcher;
use super::{DUMP_LOG, DumpRequest, GHOST_LIMIT_BYTES, fault, open_dir, read_log};
use crate::runtime::console;
use crate::runtime::shim::protocol::CriuPlace;
use crate::runtime::{Cause, Error};

/// The last part of the hook's `argv[0]`.
pub const HOOK_NAME: &str = "dewar-criu-hook";

/// Where the hook finds the shim: the dump's directory.
const HOOK_DIR: &str = "DEWAR_CRIU_HOOK";
const HOOK_SOCKET: &str = "hook.sock";
/// Where the shim finds the capture.
const FILES_SOCKET: &str = "files.sock";
const YES: u8 = b'y';
const NO: u8 = b'n';

fn failed(op: &str, object: &Path, cause: impl Into<Cause>) -> Error {
    Error { op: op.into(), object: object.display().to_string(), cause: cause.into() }
}

/// A short name for what is in an open directory.
fn within(dir: &OwnedFd, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// As [`dump`](super::dump), into the [`capture::Capture`] that listens in `request.work_dir`, whose `images` is
/// `request.images_dir`.
///
/// # Errors
/// As [`dump`](super::dump).
pub fn dump(
    place: &CriuPlace,
    request: &DumpRequest<'_>,
    begins: &mut dyn FnMut(),
    frozen: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<(), Error> {
    let work = request.work_dir;
    let hook = work.join(HOOK_NAME);
    // Whatever has become of the file since, this is the program that runs here.
    std::os::unix::fs::symlink(format!("/proc/{}/exe", std::process::id()), &hook)
        .map_err(|cause| failed("make link", &hook, cause))?;
    let dir = open_dir(work)?;
    let listener = UnixListener::bind(within(&dir, HOOK_SOCKET))
        .map_err(|cause| failed("listen at", &work.join(HOOK_SOCKET), cause))?;
    let mut command = Launcher::new(Path::new("/proc/self/exe"), place).prepared();
    command
        .args(words(request, &hook))
        .current_dir(request.images_dir)
        .env(HOOK_DIR, work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|cause| failed("start criu at", &place.path, cause))?;
    let pid = rustix::process::Pid::from_child(&child);
    let watched = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    let mut ours = None;
    let served = watched
        .map_err(|errno| failed("watch", &place.path, errno))
        .and_then(|pidfd| serve(&listener, &pidfd, begins, frozen, &mut ours));
    if served.is_err() {
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
    }
    let status = child.wait().map_err(|cause| failed("wait for", &place.path, cause))?;
    served?;
    match ours {
        Some(error) => Err(error),
        None if status.success() => Ok(()),
        None => {
            let log = read_log(&work.join(DUMP_LOG));
            let text = match fault::decisive(&log).is_empty() {
                true => format!("{}; criu ended with {status}", fault::explain(&log)),
                false => fault::explain(&log),
            };
            Err(Error { op: "freeze".into(), object: "container".into(), cause: Cause::Refused(text) })
        }
    }
}

/// The options of [`dump`](super::dump) as the command line has them.
fn words(request: &DumpRequest<'_>, hook: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    let mut add = |list: &[&str]| words.extend(list.iter().map(OsString::from));
    add(&["dump", "--stream", "--tree", &request.pid.to_string(), "--images-dir", ".", "-v2"]);
    add(&["--log-file", DUMP_LOG, "--ext-unix-sk", "--tcp-established", "--file-locks", "--link-remap"]);
    add(&["--ghost-limit", &GHOST_LIMIT_BYTES.to_string(), "--skip-in-flight"]);
    add(&["--manage-cgroups=ignore", "--network-lock", "skip"]);
    for word in &request.external {
        add(&["--external", word]);
    }
    if request.leave_running {
        add(&["--leave-running"]);
    }
    if request.tcp_close {
        add(&["--tcp-close"]);
    }
    let paths = [
        ("--work-dir", Some(request.work_dir)),
        ("--root", Some(request.root)),
        ("--action-script", Some(hook)),
        ("--freeze-cgroup", request.freeze_cgroup),
    ];
    for (word, path) in paths {
        if let Some(path) = path {
            words.push(word.into());
            words.push(path.into());
        }
    }
    words
}

/// Answers the hook until CRIU has ended.
fn serve(
    listener: &UnixListener,
    pidfd: &OwnedFd,
    begins: &mut dyn FnMut(),
    frozen: &mut dyn FnMut() -> Result<(), Error>,
    ours: &mut Option<Error>,
) -> Result<(), Error> {
    let hook = Path::new(HOOK_SOCKET);
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result.map_err(|errno| failed("wait at", hook, errno))?,
        };
        if fds[0].revents().is_empty() {
            return Ok(());
        }
        let (mut asking, _) = listener.accept().map_err(|cause| failed("listen at", hook, cause))?;
        let mut phase = String::new();
        // One that breaks off has nothing to ask, and CRIU hears that it failed.
        if (&mut asking).take(64).read_to_string(&mut phase).is_err() {
            continue;
        }
        let answer = match phase.as_str() {
            "pre-dump" => {
                begins();
                YES
            }
            "post-dump" => match frozen() {
                Ok(()) => YES,
                Err(error) => {
                    *ours = Some(error);
                    NO
                }
            },
            _ => YES,
        };
        let _ = asking.write_all(&[answer]);
    }
}

/// The hook's main: CRIU runs it at every phase, and goes on if it succeeds.
pub fn hook_main() -> ExitCode {
    let phase = std::env::var("CRTOOLS_SCRIPT_ACTION").unwrap_or_default();
    if !matches!(phase.as_str(), "pre-dump" | "post-dump") {
        return ExitCode::SUCCESS;
    }
    let ask = || -> std::io::Result<u8> {
        let dir = std::env::var_os(HOOK_DIR).unwrap_or_default();
        std::env::set_current_dir(dir)?;
        let mut stream = UnixStream::connect(HOOK_SOCKET)?;
        stream.write_all(phase.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = [NO];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    };
    match ask() {
        Ok(YES) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// The shim's way to the capture.
pub struct Files {
    stream: UnixStream,
}

impl Files {
    /// Connects to the capture that listens in `dir`.
    ///
    /// # Errors
    /// There is none.
    pub fn connect(dir: &Path) -> Result<Files, Error> {
        let open = open_dir(dir)?;
        let stream = UnixStream::connect(within(&open, FILES_SOCKET))
            .map_err(|cause| failed("connect to", &dir.join(FILES_SOCKET), cause))?;
        Ok(Files { stream })
    }

    /// A file called `name`: what is written into it is captured, and its end is the file's.
    ///
    /// # Errors
    /// The capture has ended.
    pub fn create(&mut self, name: &str) -> Result<File, Error> {
        let mut send = || -> std::io::Result<File> {
            let (reader, writer) = std::io::pipe()?;
            let mut message = super::rpc::Writer::default();
            message.text(1, name.as_bytes());
            let length = u32::try_from(message.bytes().len()).unwrap_or(u32::MAX);
            self.stream.write_all(&length.to_le_bytes())?;
            self.stream.write_all(message.bytes())?;
            console::send_fd(&self.stream, 0, reader.as_fd())?;
            Ok(File::from(OwnedFd::from(writer)))
        };
        send().map_err(|cause| failed("send", Path::new(name), cause))
    }
}
