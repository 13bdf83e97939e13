//! What a starting process tells the one that made it.
//!
//! ```text
//!   init ──'C' + pty master──► shim      once, with a terminal
//!        ──'E' + JSON────────► shim      it failed; nothing follows
//!        ──end of stream─────► shim      execve closed the socket: the command runs
//! ```
//!
//! The socket is close-on-exec, so success needs no message and cannot be forged by the command. A process
//! that is killed before execve looks started, and its exit code tells the rest.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::SendFlags;
use serde::{Deserialize, Serialize};

use crate::runtime::{Cause, CommandError, Error, console};

const CONSOLE: u8 = b'C';
const FAILURE: u8 = b'E';

/// An [`Error`] that can cross the socket.
#[derive(Serialize, Deserialize)]
struct Failure {
    op: String,
    object: String,
    cause: Reason,
}

#[derive(Serialize, Deserialize)]
enum Reason {
    Errno(i32),
    Refused(String),
    Command(CommandError),
}

/// Hands the pty's master over.
///
/// # Errors
/// `EPIPE` when the other side is gone.
pub fn send_console(socket: BorrowedFd<'_>, master: BorrowedFd<'_>) -> io::Result<()> {
    console::send_fd(socket, CONSOLE, master)
}

/// Sends `error`; a peer that is gone needs none.
pub fn send_failure(socket: BorrowedFd<'_>, error: Error) {
    let cause = match error.cause {
        Cause::Io(cause) => match cause.raw_os_error() {
            Some(errno) => Reason::Errno(errno),
            None => Reason::Refused(cause.to_string()),
        },
        Cause::Refused(text) => Reason::Refused(text),
        Cause::Command(command) => Reason::Command(command),
    };
    let failure = Failure { op: error.op, object: error.object, cause };
    let mut message = vec![FAILURE];
    if serde_json::to_writer(&mut message, &failure).is_err() {
        return;
    }
    let mut rest = &message[..];
    while !rest.is_empty() {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(sent) => rest = &rest[sent..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Waits until the process at the other end of `socket` executes its command, and returns its console.
///
/// # Errors
/// What the process could not do.
pub fn collect(socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let failed = |cause: Cause| Error { op: "hear from".to_owned(), object: "init".to_owned(), cause };
    let mut console = None;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let (count, fd) = console::receive(socket, &mut buffer).map_err(|error| failed(Cause::Io(error)))?;
        if fd.is_some() {
            console = fd;
        }
        if count == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..count]);
    }
    let rest = if console.is_some() { text.strip_prefix(&[CONSOLE]).unwrap_or(&text) } else { &text };
    match rest.split_first() {
        None => Ok(console),
        Some((&FAILURE, json)) => {
            let failure: Failure = serde_json::from_slice(json)
                .map_err(|error| failed(Cause::Refused(format!("a report cut short: {error}"))))?;
            let cause = match failure.cause {
                Reason::Errno(errno) => Cause::Io(io::Error::from_raw_os_error(errno)),
                Reason::Refused(text) => Cause::Refused(text),
                Reason::Command(command) => Cause::Command(command),
            };
            Err(Error { op: failure.op, object: failure.object, cause })
        }
        Some(_) => Err(failed(Cause::Refused("an unexpected message".to_owned()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    fn told(cause: Cause) -> Error {
        let (near, far) = UnixStream::pair().unwrap();
        send_failure(far.as_fd(), Error { op: "mount".into(), object: "/x".into(), cause });
        drop(far);
        collect(near.as_fd()).unwrap_err()
    }

    #[test]
    fn errors_arrive_as_they_were_sent() {
        let denied = Cause::Io(io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(told(denied).to_string(), "mount /x: Permission denied (os error 13)");
        assert_eq!(told(Cause::Refused("no".repeat(9000))).cause.to_string().len(), 18000);
        let command = CommandError { exit_code: 127, message: "m".into() };
        assert!(matches!(told(Cause::Command(command.clone())).cause, Cause::Command(got) if got == command));
    }

    #[test]
    fn an_end_without_words_is_success_and_noise_is_not() {
        let (near, far) = UnixStream::pair().unwrap();
        let (reader, _writer) = io::pipe().unwrap();
        send_console(far.as_fd(), reader.as_fd()).unwrap();
        drop(far);
        assert!(collect(near.as_fd()).unwrap().is_some());
        let (near, far) = UnixStream::pair().unwrap();
        rustix::net::send(&far, b"Zzz", SendFlags::empty()).unwrap();
        drop(far);
        assert!(collect(near.as_fd()).is_err());
    }
}
