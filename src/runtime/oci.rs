//! OCI runtimes other than our own: runc, crun and whatever speaks their command line.
//!
//! ```text
//!   shim ── create ──► RUNTIME ──► init, stopped before its command     bundle: config.json and the mounts
//!        ── start ───► RUNTIME                                          it cannot find by path
//!        ── exec, kill, delete ──► RUNTIME
//!   shim ◄── init and execs are its children (it is their subreaper): reaped as its own are
//! ```
//!
//! What else a runtime leaves behind becomes our child as well, and must be reaped: a pid namespace does not end
//! while one of its processes, be it dead, waits for its parent.
//!
//! The division: the runtime makes namespaces, mounts, and processes, and sends signals. Everything around
//! them is as with the built-in one: the root filesystem, the streams, the cgroup with its limits (made before
//! the runtime is called, and given to it), freezing, counters, exit codes.
//!
//! All files of a container are in one directory, [`DIR`] in its run directory: the bundle, the runtime's
//! state (`--root`), its log, the socket for the terminal.
//!
//! Not here: which runtimes there are (the daemon), streams (`shim`), checkpoints (only the built-in runtime
//! has them).
//!
//! Source: the command line of runc(8), which crun(1), youki and runsc follow; runtime-spec `runtime.md`.

pub mod bundle;
mod program;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use self::program::{Ended, Output};
use super::init::{Started, Streams};
use super::spec::Process;
use super::sys::{process, signal};
use super::{Cause, CommandError, Error};

/// In a container's run directory, what the runtime and we have for one another.
pub const DIR: &str = "oci";

/// A runtime's name, where its program is, and what it is always given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OciRuntime {
    pub name: String,
    /// A path, or a name to be found in `PATH`.
    pub path: PathBuf,
    /// Before the command: `--systemd-cgroup` and the like.
    #[serde(default)]
    pub args: Vec<String>,
}

/// A container in a runtime's hands.
#[derive(Debug)]
pub struct Foreign {
    runtime: OciRuntime,
    id: String,
    dir: PathBuf,
    /// Processes the runtime left to us that nobody asked for.
    strays: Vec<(i32, OwnedFd)>,
}

fn failed(op: &str, object: &Path, cause: impl Into<io::Error>) -> Error {
    Error { op: op.to_owned(), object: object.display().to_string(), cause: Cause::Io(cause.into()) }
}

impl Foreign {
    /// Names a container of `runtime` whose run directory is `run_dir`. Nothing is looked at.
    pub fn new(runtime: &OciRuntime, id: &str, run_dir: &Path) -> Foreign {
        Foreign { runtime: runtime.clone(), id: id.to_owned(), dir: run_dir.join(DIR), strays: Vec::new() }
    }

    /// Makes the container from the bundle, up to the point where its command would run. Its first process is
    /// then our child.
    ///
    /// `words` is where the runtime's own words end up should it write them to the container's stderr: our end
    /// of that pipe.
    ///
    /// # Errors
    /// [`Cause::Command`] when the command cannot be run; [`Cause::Refused`] with what the runtime says;
    /// [`Cause::Io`] when it cannot be called.
    pub fn create(&mut self, streams: Streams, words: Option<BorrowedFd<'_>>) -> Result<Started, Error> {
        let bundle = self.dir.clone().into_os_string();
        self.bring(&["create".as_ref(), "--bundle".as_ref(), &bundle], "create", "", streams, words)
    }

    /// Lets the container's command run.
    ///
    /// # Errors
    /// As [`Foreign::create`].
    pub fn start(&self) -> Result<(), Error> {
        self.call(&["start", &self.id]).map_err(|ended| self.explain("start", "", ended, None))
    }

    /// Runs a further process. It is our child.
    ///
    /// # Errors
    /// As [`Foreign::create`].
    pub fn exec(
        &mut self,
        process: &Process,
        streams: Streams,
        words: Option<BorrowedFd<'_>>,
    ) -> Result<Started, Error> {
        let file = self.dir.join("process.json");
        let text = serde_json::to_vec(process).map_err(|error| failed("write", &file, error))?;
        fs::write(&file, text).map_err(|error| failed("write", &file, error))?;
        let command = process.args.first().map_or("", String::as_str);
        let begin = ["exec".as_ref(), "--detach".as_ref(), "--process".as_ref(), file.as_os_str()];
        self.bring(&begin, "exec", command, streams, words)
    }

    /// Sends a signal to the container's first process.
    ///
    /// # Errors
    /// As [`Foreign::start`].
    pub fn kill(&self, number: i32) -> Result<(), Error> {
        self.call(&["kill", &self.id, &number.to_string()])
            .map_err(|ended| self.explain("kill", "", ended, None))
    }

    /// Lets the runtime forget the container, killing what is left of it, and removes our own files.
    ///
    /// # Errors
    /// As [`Foreign::start`]; the files are removed all the same.
    pub fn delete(&self) -> Result<(), Error> {
        let known = self.dir.join(STATE).join(&self.id).exists();
        let forgotten = if known { self.call(&["delete", "--force", &self.id]) } else { Ok(()) };
        let removed = remove_dir(&self.dir);
        forgotten.map_err(|ended| self.explain("delete", "", ended, None))?;
        removed.map_err(|error| failed("remove", &self.dir, error))
    }

    /// `create` and `exec`: calls that leave a process behind, which is to become our child.
    fn bring(
        &mut self,
        begin: &[&OsStr],
        what: &str,
        command: &str,
        streams: Streams,
        words: Option<BorrowedFd<'_>>,
    ) -> Result<Started, Error> {
        let pid_file = self.dir.join("pid");
        let console = match streams {
            Streams::Terminal => Some(ConsoleSocket::bind(&self.dir)?),
            Streams::Pipes { .. } => None,
        };
        let output = match streams {
            Streams::Terminal => Output::Own,
            Streams::Pipes { stdin, stdout, stderr } => Output::Container { stdin, stdout, stderr },
        };
        let mut args = begin.to_vec();
        args.extend([OsStr::new("--pid-file"), pid_file.as_os_str()]);
        if let Some(console) = &console {
            args.extend([OsStr::new("--console-socket"), console.name.as_os_str()]);
        }
        args.push(self.id.as_ref());
        let listener = console.as_ref().map(|console| &console.listener);
        // Orphans come to us while the runtime lets go of its child, and at no other time: those of a container
        // without a pid namespace belong to the host's init.
        let adoption = Adoption::begin()?;
        let before = process::children();
        let received = self.run(&args, output, listener);
        drop(adoption);
        let text = fs::read_to_string(&pid_file);
        let _ = fs::remove_file(&pid_file);
        let pid = text.as_ref().ok().and_then(|text| text.trim().parse::<i32>().ok()).filter(|pid| *pid > 0);
        let wanted = pid.filter(|_| received.is_ok());
        self.take_in(
            process::children().into_iter().filter(|pid| !before.contains(pid) && Some(*pid) != wanted),
        );
        let received = received.map_err(|ended| self.explain(what, command, ended, words))?;
        let text = text.map_err(|error| failed("read", &pid_file, error))?;
        let pid = pid.ok_or_else(|| self.complaint(what, &format!("it named {text:?} as the process")))?;
        let pidfd = process::pidfd_open(pid).map_err(|error| failed("open", &pid_file, error))?;
        let started = Started { pid, pidfd, console: received };
        if console.is_some() && started.console.is_none() {
            self.discard(&started);
            return Err(self.complaint(what, "it sent no terminal"));
        }
        Ok(started)
    }

    fn take_in(&mut self, pids: impl Iterator<Item = i32>) {
        self.strays.extend(pids.filter_map(|pid| Some((pid, process::pidfd_open(pid).ok()?))));
        self.reap_strays();
    }

    /// What to wait for, for [`Foreign::reap_strays`].
    pub fn strays(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.strays.iter().map(|(_, pidfd)| pidfd.as_fd())
    }

    /// Reaps the strays that have ended.
    pub fn reap_strays(&mut self) {
        self.strays.retain(|(pid, _)| matches!(process::try_wait(*pid), Ok(None)));
    }

    /// Kills and reaps a process nobody wants.
    pub fn discard(&mut self, started: &Started) {
        let _ = signal::send(started.pidfd.as_fd(), libc::SIGKILL);
        loop {
            self.reap_strays();
            if !matches!(process::try_wait(started.pid), Ok(None)) {
                return;
            }
            let fds = self.strays().chain([started.pidfd.as_fd()]);
            let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            let _ = rustix::event::poll(&mut fds, None);
        }
    }

    fn call(&self, words: &[&str]) -> Result<(), Ended> {
        let args: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
        self.run(&args, Output::Own, None).map(drop)
    }

    fn run(
        &self,
        words: &[&OsStr],
        output: Output,
        console: Option<&OwnedFd>,
    ) -> Result<Option<OwnedFd>, Ended> {
        let (state, log) = (self.dir.join(STATE), self.dir.join(LOG));
        // Each call's own words; the file is there for the next.
        let _ = fs::remove_file(&log);
        let mut args: Vec<&OsStr> = self.runtime.args.iter().map(AsRef::as_ref).collect();
        args.extend([OsStr::new("--root"), state.as_os_str()]);
        args.extend([OsStr::new("--log"), log.as_os_str(), OsStr::new("--log-format"), OsStr::new("json")]);
        args.extend_from_slice(words);
        program::run(&self.runtime.path, &args, output, console)
    }

    /// What a failed call means.
    fn explain(&self, what: &str, command: &str, ended: Ended, words: Option<BorrowedFd<'_>>) -> Error {
        let said = match ended {
            Ended::NotRun(cause) => {
                let object = format!("OCI runtime {:?} ({})", self.runtime.name, self.runtime.path.display());
                return Error { op: "run".to_owned(), object, cause: Cause::Io(cause) };
            }
            Ended::Failed { status, said } => program::last_error(&self.dir.join(LOG))
                .or_else(|| words.and_then(program::drain))
                .or(said)
                .unwrap_or(status),
        };
        let command = if command.is_empty() { self.command() } else { command.to_owned() };
        match command_error(&said, &command) {
            Some(error) => Error { op: "run".to_owned(), object: command, cause: Cause::Command(error) },
            None => self.complaint(what, &said),
        }
    }

    /// The command of the bundle.
    fn command(&self) -> String {
        let text = fs::read(self.dir.join(bundle::CONFIG)).unwrap_or_default();
        let spec = serde_json::from_slice::<super::spec::Spec>(&text).unwrap_or_default();
        spec.process.args.into_iter().next().unwrap_or_default()
    }

    fn complaint(&self, what: &str, said: &str) -> Error {
        let op = "OCI runtime".to_owned();
        let object = format!("{:?} {what} failed", self.runtime.name);
        // runc says itself what failed, in front of why.
        let mut said = said;
        for words in ["runc ", what, " failed: ", "unable to start container process: "] {
            said = said.strip_prefix(words).unwrap_or(said);
        }
        Error { op, object, cause: Cause::Refused(said.to_owned()) }
    }
}

/// The runtime's own directory (`--root`) and its log, in [`DIR`].
const STATE: &str = "state";
const LOG: &str = "log.json";

/// Removes [`DIR`]. Mount points in it are removed as such: should something be mounted on one, this fails
/// instead of emptying it.
pub fn remove_dir(dir: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    bundle::remove_mount_points(dir)?;
    gone(fs::remove_dir_all(dir.join(STATE)))?;
    let files = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        files => files?,
    };
    for file in files {
        gone(fs::remove_file(file?.path()))?;
    }
    gone(fs::remove_dir(dir))
}

/// Orphans below us become our children for as long as this is held.
struct Adoption;

impl Adoption {
    fn begin() -> Result<Adoption, Error> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|errno| failed("become", Path::new("subreaper"), errno))?;
        Ok(Adoption)
    }
}

impl Drop for Adoption {
    fn drop(&mut self) {
        let _ = rustix::process::set_child_subreaper(None);
    }
}

/// Where the runtime sends the terminal's master.
struct ConsoleSocket {
    listener: OwnedFd,
    /// A path the runtime can connect to, and no longer than such a path may be.
    name: PathBuf,
    file: PathBuf,
    _dir: OwnedFd,
}

impl ConsoleSocket {
    fn bind(dir: &Path) -> Result<ConsoleSocket, Error> {
        const FILE: &str = "tty";
        let file = dir.join(FILE);
        let make = || -> io::Result<ConsoleSocket> {
            let _ = fs::remove_file(&file);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let held = rustix::fs::open(dir, flags, Mode::empty())?;
            let name = format!("/proc/{}/fd/{}/{FILE}", std::process::id(), held.as_raw_fd());
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let listener = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            rustix::net::bind(&listener, &SocketAddrUnix::new(&name)?)?;
            rustix::net::listen(&listener, 1)?;
            Ok(ConsoleSocket { listener, name: name.into(), file: file.clone(), _dir: held })
        };
        make().map_err(|error| failed("listen on", &file, error))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// Whether what the runtime said means that the command cannot be run, and Docker's text for that.
///
/// Source: Docker derives 127 and 126 from the same words.
fn command_error(said: &str, command: &str) -> Option<CommandError> {
    let name = command.rsplit('/').next().unwrap_or(command);
    let lower = said.to_ascii_lowercase();
    // crun's, for a file that is there and not to be executed.
    let is_open = lower.starts_with("open executable: ");
    if name.is_empty() || !(is_open || said.contains(name)) {
        return None;
    }
    let is_missing = lower.contains("executable file not found")
        || lower.contains("no such file or directory")
        || (lower.contains("executable file `") && lower.contains("not found in $path"));
    let exit_code = match lower {
        _ if is_missing => 127,
        _ if is_open || lower.contains("permission denied") || lower.contains("is a directory") => 126,
        _ => return None,
    };
    // runc's words are Docker's; crun has its own.
    let message = match said.find("exec: \"") {
        Some(at) => said[at..].to_owned(),
        None if exit_code == 127 && !command.contains('/') => {
            format!("exec: \"{command}\": executable file not found in $PATH")
        }
        None if exit_code == 127 => format!("exec: \"{command}\": stat {command}: no such file or directory"),
        None => format!("exec: \"{command}\": permission denied"),
    };
    Some(CommandError { exit_code, message })
}

#[cfg(test)]
mod tests;
