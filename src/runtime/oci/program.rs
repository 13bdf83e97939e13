//! One call of a runtime's program: its streams, its deadline, the terminal it sends, its last words.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::MemfdFlags;
use rustix::net::SocketFlags;
use serde::Deserialize;

use crate::runtime::console;
use crate::runtime::sys::process;

/// Longest that a call may take; below what the daemon waits for a start.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most of a runtime's words that are passed on.
const WORDS_BYTES: u64 = 16 * 1024;

/// What the program has for standard streams.
pub enum Output {
    /// The container's: its first process inherits them.
    Container { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// None but a file for its complaints.
    Own,
}

/// Why a call did nothing.
#[derive(Debug)]
pub enum Ended {
    /// The program cannot be executed.
    NotRun(io::Error),
    /// It ended with `status` (in words), and `said` this on its own stderr.
    Failed { status: String, said: Option<String> },
}

/// Runs the program to its end. Returns the descriptor that was sent to the socket `console`.
///
/// # Errors
/// It cannot be executed, ends with a code other than 0, or takes longer than a minute and is killed.
pub fn run(
    path: &Path,
    args: &[&OsStr],
    output: Output,
    console: Option<&OwnedFd>,
) -> Result<Option<OwnedFd>, Ended> {
    let mut command = Command::new(path);
    // What it starts inherits them.
    process::with_fresh_signals(command.args(args));
    let mut complaints = None;
    match output {
        Output::Container { stdin, stdout, stderr } => {
            command.stdin(stdin.map_or_else(Stdio::null, Stdio::from)).stdout(stdout).stderr(stderr);
        }
        Output::Own => {
            let file = rustix::fs::memfd_create("complaints", MemfdFlags::CLOEXEC).map(File::from);
            let file = file.map_err(|errno| Ended::NotRun(errno.into()))?;
            let copy = file.try_clone().map_err(Ended::NotRun)?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(copy);
            complaints = Some(file);
        }
    }
    let mut child = command.spawn().map_err(Ended::NotRun)?;
    // Its streams are the container's now: our copies would keep them from ever ending.
    drop(command);
    let id = i32::try_from(child.id()).unwrap_or(i32::MAX);
    let watched = process::pidfd_open(id).and_then(|pidfd| watch(&pidfd, console));
    if watched.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().map_err(Ended::NotRun)?;
    let failure = match watched {
        Ok(received) if status.success() => return Ok(received),
        Ok(_) => status.to_string(),
        Err(cause) => cause.to_string(),
    };
    Err(Ended::Failed { status: failure, said: complaints.and_then(|file| words(file).ok().flatten()) })
}

/// Waits until the process has ended, taking the terminal meanwhile.
fn watch(pidfd: &OwnedFd, console: Option<&OwnedFd>) -> io::Result<Option<OwnedFd>> {
    let deadline = Instant::now() + PATIENCE;
    let mut connection: Option<OwnedFd> = None;
    let mut received = None;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!("it did not end within {} s", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        let source = if received.is_some() { None } else { connection.as_ref().or(console) };
        if let Some(source) = source {
            fds.push(PollFd::new(source, PollFlags::IN));
        }
        let wait = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let is_over = !fds[0].revents().is_empty();
        let is_offered = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        drop(fds);
        if is_offered {
            match (&connection, console) {
                (Some(connected), _) => {
                    received = console::receive(connected, &mut [0; 4096])?.1;
                    if received.is_none() {
                        return Err(io::Error::other("it sent something else than a terminal"));
                    }
                }
                (None, Some(listener)) => {
                    connection = Some(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?);
                }
                (None, None) => {}
            }
        } else if is_over {
            // What it had sent would have been offered with its end.
            return Ok(received);
        }
    }
}

/// A line of `--log-format json`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    level: String,
    msg: String,
}

/// The last error in a runtime's log.
pub fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let errors = lines.filter(|line| matches!(line.level.as_str(), "error" | "fatal" | "panic"));
    errors.map(|line| line.msg.trim().to_owned()).rfind(|msg| !msg.is_empty())
}

/// What is in a pipe; it must not block.
pub fn drain(pipe: BorrowedFd<'_>) -> Option<String> {
    let file = File::from(pipe.as_fd().try_clone_to_owned().ok()?);
    let mut text = Vec::new();
    // Ends with `WouldBlock` while somebody still holds the other end: what has been read counts.
    let _ = file.take(WORDS_BYTES).read_to_end(&mut text);
    tidy(&text)
}

fn words(mut file: File) -> io::Result<Option<String>> {
    file.rewind()?;
    let mut text = Vec::new();
    file.take(WORDS_BYTES).read_to_end(&mut text)?;
    Ok(tidy(&text))
}

fn tidy(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text).trim().to_owned();
    (!text.is_empty()).then_some(text)
}
