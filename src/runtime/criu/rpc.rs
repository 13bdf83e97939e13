//! A conversation with `criu swrk`: one request, its notifications, its response.
//!
//! ```text
//!   shim                                   criu swrk FD
//!    | --- criu_req {type, opts} ------------> |
//!    | <-- criu_resp {NOTIFY, script} + fd? -- |   pre-dump, post-dump, orphan-pts-master, …
//!    | --- criu_req {NOTIFY, notify_success}-> |   criu waits for this answer
//!    | <-- criu_resp {type, success, …} ------ |   end of the conversation
//! ```
//!
//! AF_UNIX SOCK_SEQPACKET, one protobuf message per packet. Only the fields dewar uses are encoded; their
//! numbers are CRIU's `images/rpc.proto`, stable by protobuf's own rules. Responses are read leniently:
//! unknown fields are skipped, malformed ones are an error.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::runtime::shim::protocol::receive_raw;
use crate::runtime::sys::process::pidfd_open;
use crate::runtime::{Cause, Error};

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestType {
    Dump = 1,
    Restore = 2,
    Notify = 6,
    FeatureCheck = 9,
    Version = 10,
    /// `SINGLE_PRE_DUMP`: its connection is for this one.
    PreDump = 13,
}

/// Largest response: an error message of CRIU's and some numbers.
const RESPONSE_BYTES: usize = 16 * 1024;

/// A protobuf message being written.
#[derive(Clone, Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// Adds an integer or enum. Negative values do not occur.
    pub fn int(&mut self, field: u32, value: u64) -> &mut Writer {
        self.varint(u64::from(field) << 3);
        self.varint(value);
        self
    }

    /// Adds a boolean.
    pub fn bool(&mut self, field: u32, value: bool) -> &mut Writer {
        self.int(field, u64::from(value))
    }

    /// Adds a string.
    pub fn text(&mut self, field: u32, value: &[u8]) -> &mut Writer {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Adds a message within this one.
    pub fn message(&mut self, field: u32, value: &Writer) -> &mut Writer {
        self.text(field, &value.0)
    }

    /// Adds the fields of another.
    pub fn append(&mut self, more: &Writer) -> &mut Writer {
        self.0.extend_from_slice(&more.0);
        self
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// A field's content as far as its wire type tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
    /// Fixed-width numbers: not used by us.
    Other,
}

impl Value<'_> {
    /// Its number; 0 if it is none.
    pub fn int(self) -> u64 {
        if let Value::Int(value) = self { value } else { 0 }
    }

    /// Its text; empty if it is none.
    pub fn text(self) -> String {
        if let Value::Bytes(bytes) = self {
            String::from_utf8_lossy(bytes).into_owned()
        } else {
            String::new()
        }
    }
}

/// The bytes are no protobuf message.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Reads a message's fields in order.
#[derive(Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// Reads a number that stands by itself.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed)?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    fn take(&mut self, bytes: u64) -> Result<&'a [u8], Malformed> {
        let bytes = usize::try_from(bytes).map_err(|_| Malformed)?;
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), Malformed> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).map_err(|_| Malformed)?;
        let value = match key & 7 {
            0 => Value::Int(self.varint()?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let bytes = self.varint()?;
                Value::Bytes(self.take(bytes)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return Err(Malformed),
        };
        Ok((number, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// `criu_resp`, as far as it matters here.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// `criu_req_type`.
    pub kind: u64,
    pub success: bool,
    /// Restore: the restored root process.
    pub pid: Option<i32>,
    /// An errno, when CRIU knows one.
    pub errno: i32,
    /// The *first* error CRIU logged, seldom the decisive one.
    pub message: String,
    /// Notify: the phase.
    pub script: String,
    /// Notify: the root of the tree, once it is there.
    pub root: i32,
    pub version: Option<Version>,
    /// Feature check, as the next one.
    pub has_lazy_pages: bool,
    pub has_dirty_tracking: bool,
}

/// A release of CRIU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub sublevel: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.sublevel > 0 { write!(f, ".{}", self.sublevel) } else { Ok(()) }
    }
}

impl Response {
    /// Decodes a response.
    pub fn decode(bytes: &[u8]) -> Result<Response, Malformed> {
        let mut response = Response::default();
        for field in Fields(bytes) {
            match field? {
                (1, value) => response.kind = value.int(),
                (2, value) => response.success = value.int() != 0,
                (4, Value::Bytes(restore)) => {
                    response.pid = numbers(restore)?.first().map(|&pid| pid as i32);
                }
                (5, Value::Bytes(notify)) => {
                    for field in Fields(notify) {
                        match field? {
                            (1, value) => response.script = value.text(),
                            (2, value) => response.root = value.int() as i32,
                            _ => {}
                        }
                    }
                }
                (7, value) => response.errno = value.int() as i32,
                (8, Value::Bytes(features)) => {
                    let [dirty_tracking, lazy_pages, ..] = numbers(features)?;
                    (response.has_dirty_tracking, response.has_lazy_pages) =
                        (dirty_tracking != 0, lazy_pages != 0);
                }
                (9, value) => response.message = value.text(),
                (10, Value::Bytes(version)) => {
                    let at = numbers(version)?.map(|value| value as u32);
                    response.version = Some(Version { major: at[0], minor: at[1], sublevel: at[3] });
                }
                _ => {}
            }
        }
        Ok(response)
    }
}

/// The integer fields 1 to 4 of a message; 0 where absent.
fn numbers(bytes: &[u8]) -> Result<[u64; 4], Malformed> {
    let mut found = [0; 4];
    for field in Fields(bytes) {
        if let (number @ 1..=4, Value::Int(value)) = field? {
            found[number as usize - 1] = value;
        }
    }
    Ok(found)
}

/// A notification: CRIU waits at `phase`.
#[derive(Debug)]
pub struct Notice<'a> {
    pub phase: &'a str,
    /// `orphan-pts-master`: the restored terminal's master.
    pub fd: Option<OwnedFd>,
    /// CRIU's own process.
    pub criu_pid: i32,
    /// The root of the tree; 0 where there is none yet.
    pub pid: i32,
}

/// A running `criu swrk`. Dropping it ends CRIU.
#[derive(Debug)]
pub struct Conversation {
    socket: OwnedFd,
    /// A child of ours that nobody else waits for, and the leader of a process group.
    pid: Pid,
    /// It has been waited for: its number may be another's.
    is_reaped: Cell<bool>,
}

impl Conversation {
    /// Takes over the process and our end of its socket.
    pub fn new(socket: OwnedFd, pid: Pid) -> Conversation {
        Conversation { socket, pid, is_reaped: Cell::new(false) }
    }

    /// Sends a request and serves its notifications until the response is there. Blocks for as long as CRIU
    /// takes. An error of `notify` makes CRIU give up, and is returned beside CRIU's response.
    ///
    /// # Errors
    /// CRIU ended without a response, or what it said makes no sense.
    pub fn request(
        &mut self,
        kind: RequestType,
        body: &Writer,
        notify: &mut dyn FnMut(Notice<'_>) -> Result<(), Error>,
    ) -> Result<(Response, Option<Error>), Error> {
        let mut request = Writer::default();
        request.int(1, kind as u64);
        request.append(body);
        let failed = |cause: Cause| Error { op: "talk to".into(), object: "criu".into(), cause };
        let mut refusal = None;
        let mut next = Some(request);
        let mut packet = vec![0; RESPONSE_BYTES];
        loop {
            if let Some(request) = next.take() {
                rustix::io::retry_on_intr(|| {
                    rustix::net::send(&self.socket, request.bytes(), SendFlags::NOSIGNAL)
                })
                .map_err(|errno| failed(Cause::Io(errno.into())))?;
            }
            let mut fds = Vec::new();
            if !self.has_packet().map_err(|error| failed(Cause::Io(error)))? {
                // Its own processes, if any, go with it: one would hold the container's, and files of the images.
                let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
                let cause = self.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(failed(Cause::Refused(format!("it ended without an answer ({cause})"))));
            }
            let got = receive_raw(self.socket.as_fd(), &mut packet, &mut fds, RecvFlags::empty());
            let (bytes, truncated) = got.map_err(|error| failed(error.into()))?;
            if bytes == 0 {
                let cause = match self.wait() {
                    Ok(status) => format!("it ended without an answer ({status})"),
                    Err(error) => format!("it ended without an answer: {error}"),
                };
                return Err(failed(Cause::Refused(cause)));
            }
            let response = Response::decode(&packet[..bytes]);
            let response = match response {
                Ok(response) if !truncated => response,
                _ => return Err(failed(Cause::Refused("its response is malformed".into()))),
            };
            if response.kind == RequestType::Notify as u64 {
                let (phase, pid) = (response.script.as_str(), response.root);
                let notice = Notice { phase, fd: fds.pop(), criu_pid: self.pid.as_raw_nonzero().get(), pid };
                let outcome = if refusal.is_none() { notify(notice) } else { Ok(()) };
                let mut answer = Writer::default();
                answer.int(1, RequestType::Notify as u64).bool(3, outcome.is_ok());
                refusal = refusal.or(outcome.err());
                next = Some(answer);
            } else if response.kind == kind as u64 || !response.success {
                return Ok((response, refusal));
            } else {
                return Err(failed(Cause::Refused("it answered another question".into())));
            }
        }
    }
}

impl Conversation {
    /// Waits until there is a packet or an end of file; false when CRIU has ended without either. A process of its
    /// own may outlive it and hold its end of the socket.
    fn has_packet(&self) -> io::Result<bool> {
        let process = pidfd_open(self.pid.as_raw_nonzero().get())?;
        let mut ready = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, None))?;
        Ok(!ready[0].revents().is_empty())
    }

    fn wait(&self) -> io::Result<ExitStatus> {
        let waited =
            rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(self.pid), WaitOptions::empty()))?;
        self.is_reaped.set(true);
        waited
            .map(|(_, status)| ExitStatus::from_raw(status.as_raw()))
            .ok_or_else(|| rustix::io::Errno::CHILD.into())
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        const PATIENCE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };
        // End of file on its socket ends a criu that waits; one that is still at work is in the way.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let no_wait = || rustix::process::waitpid(Some(self.pid), WaitOptions::NOHANG);
        if self.is_reaped.get() || !matches!(no_wait(), Ok(None)) {
            return;
        }
        let ended = pidfd_open(self.pid.as_raw_nonzero().get()).is_ok_and(|process| {
            let mut ready = [PollFd::new(&process, PollFlags::IN)];
            let polled = rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, Some(&PATIENCE)));
            polled.is_ok_and(|ready| ready > 0)
        });
        if !ended {
            let _ = rustix::process::kill_process(self.pid, Signal::KILL);
        }
        let _ = self.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut inner = Writer::default();
        inner.text(1, b"pipe:[42]").int(2, 7);
        let mut outer = Writer::default();
        outer.int(1, 300).bool(2, true).message(27, &inner).int(35, u64::from(u32::MAX));
        let fields: Result<Vec<_>, _> = Fields(outer.bytes()).collect();
        let fields = fields.unwrap();
        assert_eq!(fields[0], (1, Value::Int(300)));
        assert_eq!(fields[1], (2, Value::Int(1)));
        let (27, Value::Bytes(bytes)) = fields[2] else { panic!("{fields:?}") };
        let inner: Vec<_> = Fields(bytes).map(Result::unwrap).collect();
        assert_eq!(inner, [(1, Value::Bytes(&b"pipe:[42]"[..])), (2, Value::Int(7))]);
        assert_eq!(fields[3], (35, Value::Int(u64::from(u32::MAX))));
    }

    #[test]
    fn encoding_is_protobufs() {
        // From the protobuf documentation: field 1 = 150 is 08 96 01; field 2 = "testing" is 12 07 …
        assert_eq!(Writer::default().int(1, 150).bytes(), [0x08, 0x96, 0x01]);
        assert_eq!(Writer::default().text(2, b"testing").bytes(), b"\x12\x07testing");
    }

    #[test]
    fn a_response_is_decoded() {
        let mut notify = Writer::default();
        notify.text(1, b"post-dump").int(2, 99);
        let mut version = Writer::default();
        version.int(1, 4).int(2, 2).text(3, b"v4.2.1").int(4, 1);
        let mut bytes = Writer::default();
        bytes.int(1, 6).bool(2, true).message(5, &notify).int(7, 22).text(9, b"why").message(10, &version);
        bytes.int(99, 1);
        let response = Response::decode(bytes.bytes()).unwrap();
        assert_eq!(
            (response.script.as_str(), response.errno, response.message.as_str()),
            ("post-dump", 22, "why")
        );
        assert_eq!(response.version.unwrap().to_string(), "4.2.1");
    }

    #[test]
    fn any_bytes_are_decoded_or_refused() {
        let mut state = 1_u64;
        for length in 0..200 {
            let bytes: Vec<u8> = (0..length)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (state >> 33) as u8
                })
                .collect();
            let _ = Response::decode(&bytes);
        }
        assert_eq!(Response::decode(&[0x12, 0xff]), Err(Malformed));
        assert_eq!(Response::decode(&[0xff; 11]), Err(Malformed));
    }
}
