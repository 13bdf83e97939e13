//! Attaching a client to a container's streams, running or about to run.
//!
//! The client's pump gets one end of a socket pair, the shim the other: at once when there is a process,
//! else when it starts. Nothing the process writes is lost, because the shim has its end first.

use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use super::container::{Container, stream_pair};
use super::logs;
use super::state::Action;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::AttachQuery;
use crate::runtime::{Attachment, LogMark};

/// `ctrl-p,ctrl-q`
const DEFAULT_DETACH_KEYS: [u8; 2] = [16, 17];

/// An attached client.
pub struct Attached {
    /// The container's end of the conversation.
    pub stream: UnixStream,
    pub is_terminal: bool,
    /// Where the log ended when it was attached: what comes later comes through `stream`.
    pub log: Option<LogMark>,
}

/// Attaches to the streams that `query` names.
pub fn attach(container: &Container, query: &AttachQuery) -> Result<Attached> {
    let (ours, theirs) = stream_pair()?;
    let mut inner = container.lock();
    inner.check(Action::Attach)?;
    let is_terminal = inner.record.config.tty;
    let attachment = Attachment {
        stream: theirs,
        stdin: query.stdin && inner.record.config.open_stdin,
        stdout: query.stdout,
        stderr: query.stderr,
        detach_keys: if is_terminal { detach_keys(query.detach_keys.as_deref())? } else { Vec::new() },
        reads_log: query.logs,
    };
    let log = match inner.sandbox.clone().filter(|_| inner.record.state.is_alive()) {
        Some(sandbox) => {
            drop(inner);
            sandbox.attach(attachment)?
        }
        None => {
            let log = logs::mark(container, &inner.record.host_config.log_config);
            inner.pending.push(attachment);
            log
        }
    };
    Ok(Attached { stream: ours, is_terminal, log })
}

/// Forgets clients that left before there was a process, unless they have left input for it.
pub fn forget_gone(container: &Container) {
    container.lock().pending.retain(|attachment| {
        let peek = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        // The end of input alone is a client that still listens.
        let mut fds = [PollFd::new(&attachment.stream, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let is_gone = poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0);
        let left = rustix::net::recv(&attachment.stream, &mut [0_u8; 1][..], peek);
        !is_gone || left.is_ok_and(|(_, bytes)| bytes > 0)
    });
}

/// Docker's format: a comma separated list of characters and `ctrl-<letter>`.
pub fn detach_keys(text: Option<&str>) -> Result<Vec<u8>> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(DEFAULT_DETACH_KEYS.to_vec()) };
    text.split(',')
        .map(|key| {
            let invalid = || Error::invalid(format!("Invalid detach keys ({text}): unknown key {key:?}"));
            if key.eq_ignore_ascii_case("DEL") {
                return Ok(127);
            }
            match key.strip_prefix("ctrl-").map(str::as_bytes) {
                Some(&[letter @ b'a'..=b'z']) => Ok(letter - b'a' + 1),
                Some(&[b'@']) => Ok(0),
                Some(&[sign @ (b'[' | b'\\' | b']' | b'^' | b'_')]) => Ok(sign - b'[' + 27),
                Some(_) => Err(invalid()),
                None => match key.as_bytes() {
                    &[byte] => Ok(byte),
                    _ => Err(invalid()),
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_control_characters_and_letters() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,x,ctrl-[,ctrl-_,ctrl-@")).unwrap(), [1, b'x', 27, 31, 0]);
        for bad in ["ctrl-", "ctrl-1", "xx", "ctrl-a,", "é"] {
            assert!(detach_keys(Some(bad)).is_err(), "{bad}");
        }
    }
}
