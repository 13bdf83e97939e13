//! What the daemon and a shim say to each other.
//!
//! A connection is an AF_UNIX SOCK_SEQPACKET pair; every packet is one JSON message, descriptors travel
//! beside it (SCM_RIGHTS). The first connection is inherited; later daemons connect to `run_dir/shim.sock`,
//! and the newest connection replaces the older one.
//!
//! ```text
//!  daemon                                            shim
//!    |  <---- hello {version, revision, pid?, exit?} ---  |   at once on every connection
//!    |  --- call {id, launch}  + one fd per client --->  |   reads run_dir/launch.json
//!    |  --- call {id, thaw}    + one fd per client --->  |   the same, from a checkpoint
//!    |  <------------------------ answer {id, done} ---  |   every call has exactly one answer;
//!    |  --- call {id, attach}  + stream ------------->  |   answers come in the order of the calls
//!    |  --- call {id, exec}    + memfd, stream? ----->  |   memfd: the process as JSON
//!    |  --- call {id, resize|signal} ---------------->  |
//!    |  --- call {id, pause|resume|dump} ------------>  |
//!    |  <------------------------------ event {…} ------  |   exited, exec_exited, oom, detached
//!    |  --- call {id, dismiss} ---------------------->  |   only after exited; the shim ends
//! ```
//!
//! Invariants: a packet is at most [`PACKET_BYTES`]; anything larger travels as a file or memfd. A packet that
//! is no message ends the connection, on both sides.
//!
//! A shim outlives the daemon's binary, and a daemon may be replaced by an older one, so messages only ever
//! grow:
//!
//! - fields that are not known are ignored, and every field added later is optional;
//! - a call that is not known is answered with an error, a message that is not known is passed over
//!   (revision 0 ends the connection instead: it must be sent neither);
//! - [`REVISION`] counts up when something is added that the other side may have to do without. A daemon
//!   asks [`Hello::revision`] before it relies on it; a shim sends old daemons nothing new but fields;
//! - [`VERSION`] counts up when none of this helps: then a daemon leaves the container alone and says so.
//!
//! ```text
//!  revision 0   no revision in its hello; forgets how an exec ended once it has told whoever listened;
//!               writes no `dump.json`
//!  revision 1   hello tells the execs that ended last; `dump.json` marks a dump that is whole
//!  revision 2   dumps with volumes, and without TCP connections
//!  revision 3   hands containers over: dumps and thaws wait at a gate
//!  revision 4   dumps without the writable layer, which the daemon saves at the gate
//!  revision 5   hands containers over whose memory is sent when they are gone; dumps into a capture of the daemon's
//!               instead of files
//! ```
//!
//! `fixtures/` holds what version 1, revision 0 said and heard; tests on both ends replay it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::runtime::{Attachment, Cause, CommandError, Dump, Error, Exit, LogMark};

/// Counts up when a message changes so that the other side cannot go on without knowing.
pub const VERSION: u32 = 1;

/// Counts up when something is added that the other side can do without.
pub const REVISION: u32 = 5;

/// Largest packet; a quarter of the kernel's default for a unix socket's buffer.
pub const PACKET_BYTES: usize = 48 * 1024;

/// Most descriptors in one packet; the kernel's limit is 253.
pub const PACKET_FDS: usize = 128;

/// Daemon to shim.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the daemon, repeated in the answer.
    pub id: u64,
    pub call: Call,
}

/// What is asked of a shim.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// Fds: one stream per client.
    Launch {
        run_dir: PathBuf,
        clients: Vec<Client>,
    },
    /// Fds: one stream per client.
    Thaw {
        run_dir: PathBuf,
        dir: PathBuf,
        criu: CriuPlace,
        clients: Vec<Client>,
        #[serde(default)]
        tcp_close: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hostname: Option<String>,
        #[serde(default)]
        lazy: bool,
        /// The last fd is a gate.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_gated: bool,
        /// The fd before that is where memory is asked for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        asks: bool,
    },
    /// Fds: the stream. `exec` absent means the container's first process, here and below.
    Attach {
        exec: Option<String>,
        client: Client,
    },
    /// Fds: a memfd holding the process as JSON, then the stream if there is a client.
    Exec {
        exec: String,
        privileged: bool,
        client: Option<Client>,
    },
    Resize {
        exec: Option<String>,
        height: u16,
        width: u16,
    },
    Signal {
        exec: Option<String>,
        signal: i32,
    },
    Pause {},
    Resume {},
    Dump {
        #[serde(flatten)]
        dump: Dump,
        criu: CriuPlace,
        /// The container is handed over: the fd is a gate, and this its verdict.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<PathBuf>,
    },
    Dismiss {},
}

/// Where criu is, as the daemon found it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CriuPlace {
    pub path: PathBuf,
    /// Keeps what criu learnt about this kernel.
    pub cache_dir: PathBuf,
}

/// An [`Attachment`] without its stream.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Client {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub detach_keys: Vec<u8>,
    #[serde(default)]
    pub reads_log: bool,
}

impl Client {
    /// Splits an attachment into what is said and what is sent beside it.
    pub fn split(attachment: Attachment) -> (Client, OwnedFd) {
        let Attachment { stream, stdin, stdout, stderr, detach_keys, reads_log } = attachment;
        (Client { stdin, stdout, stderr, detach_keys, reads_log }, stream)
    }
}

/// Shim to daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    Hello(Hello),
    Answer { id: u64, outcome: Outcome },
    Event(Event),
}

/// The shim's first word on every connection.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Hello {
    pub version: u32,
    /// 0 of a shim that does not say it.
    pub revision: u32,
    pub id: Option<String>,
    /// The container's first process, once it runs.
    pub pid: Option<i32>,
    pub paused: bool,
    /// Whether the OOM killer has struck in this life.
    pub oom_killed: bool,
    /// How it ended, once it has.
    pub exit: Option<Exit>,
    /// The execs that ended last, oldest first: nobody may have listened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<EndedExec>,
}

/// How an exec ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedExec {
    pub exec: String,
    pub code: i32,
}

/// The answer to a call.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done(Done),
    Failed(Fault),
}

/// What a call that succeeded has to tell.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Launch, thaw, exec: the new process.
    #[serde(default)]
    pub pid: Option<i32>,
    /// Attach: where the log ended at that moment; what comes later goes to the client as well.
    #[serde(default)]
    pub log: Option<LogMark>,
}

/// An [`Error`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
pub struct Fault {
    pub op: String,
    pub object: String,
    pub cause: FaultCause,
}

/// A [`Cause`] on the wire.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCause {
    Errno(i32),
    Refused(String),
    Command(CommandError),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        let cause = match error.cause {
            Cause::Io(error) => match error.raw_os_error() {
                Some(errno) => FaultCause::Errno(errno),
                None => FaultCause::Refused(error.to_string()),
            },
            Cause::Refused(reason) => FaultCause::Refused(reason),
            Cause::Command(error) => FaultCause::Command(error),
        };
        Fault { op: error.op, object: error.object, cause }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        let cause = match fault.cause {
            FaultCause::Errno(errno) => Cause::Io(io::Error::from_raw_os_error(errno)),
            FaultCause::Refused(reason) => Cause::Refused(reason),
            FaultCause::Command(error) => Cause::Command(error),
        };
        Error { op: fault.op, object: fault.object, cause }
    }
}

/// What a shim says unasked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    Exited(Exit),
    ExecExited { exec: String, code: i32 },
    Oom {},
    Detached { exec: Option<String> },
}

/// Sends one message with its descriptors, which the caller keeps.
///
/// Blocks while the peer's buffer is full unless `flags` has `DONTWAIT` (then `WouldBlock`).
pub fn send<M: Serialize>(
    socket: impl AsFd,
    message: &M,
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > PACKET_BYTES || fds.len() > PACKET_FDS {
        let size = format!("message of {} bytes and {} descriptors is too large", packet.len(), fds.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, size));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let flags = flags | SendFlags::NOSIGNAL;
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket.as_fd(), &[IoSlice::new(&packet)], &mut control, flags)
    })?;
    Ok(())
}

/// Receives one message and its descriptors. `Ok(None)` is the end of the connection; `InvalidData` a packet
/// that makes no sense; `WouldBlock` no packet now (with `DONTWAIT`).
pub fn receive<M: DeserializeOwned>(
    socket: impl AsFd,
    flags: RecvFlags,
) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut packet = vec![0_u8; PACKET_BYTES];
    let mut fds = Vec::new();
    let (bytes, truncated) = receive_raw(socket, &mut packet, &mut fds, flags)?;
    if bytes == 0 {
        return Ok(None);
    }
    if truncated {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet is larger than agreed"));
    }
    let message = serde_json::from_slice(&packet[..bytes])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some((message, fds)))
}

/// A request whose call may be one that is not known here.
#[derive(Debug, Deserialize)]
pub struct AnyRequest {
    pub id: u64,
    call: serde_json::Value,
}

impl AnyRequest {
    /// The call.
    ///
    /// # Errors
    /// A later dewar's call, or one with something missing; the text says what.
    pub fn call(self) -> Result<Call, String> {
        Call::deserialize(self.call).map_err(|error| error.to_string())
    }
}

/// What came from a shim, understood or not.
#[derive(Debug)]
pub enum Heard {
    Message(Message),
    /// An answer of a kind that is not known here, to this call.
    Answer(u64, String),
    /// Anything else that is not known here.
    Strange(String),
}

impl<'de> Deserialize<'de> for Heard {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Heard, D::Error> {
        let value = serde_json::Map::deserialize(from)?;
        let answers = value.get("answer").and_then(|answer| answer.get("id")?.as_u64());
        Ok(match (Message::deserialize(serde_json::Value::Object(value)), answers) {
            (Ok(message), _) => Heard::Message(message),
            (Err(error), Some(id)) => Heard::Answer(id, error.to_string()),
            (Err(error), None) => Heard::Strange(error.to_string()),
        })
    }
}

/// Receives one packet as it is: its length, and whether something of it was lost.
pub fn receive_raw(
    socket: impl AsFd,
    packet: &mut [u8],
    fds: &mut Vec<OwnedFd>,
    flags: RecvFlags,
) -> io::Result<(usize, bool)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket.as_fd(), &mut [IoSliceMut::new(packet)], &mut control, flags)
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let truncated = got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
    Ok((got.bytes, truncated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn client() -> Client {
        Client { stdin: true, stdout: true, stderr: false, detach_keys: vec![16, 17], reads_log: true }
    }

    fn criu() -> CriuPlace {
        CriuPlace { path: "/usr/sbin/criu".into(), cache_dir: "/run/dewar/criu".into() }
    }

    /// Every call and message survives the wire, with its JSON name spelt as the drawing has it.
    #[test]
    fn messages_round_trip() {
        let calls = vec![
            ("launch", Call::Launch { run_dir: "/r".into(), clients: vec![client()] }),
            (
                "thaw",
                Call::Thaw {
                    run_dir: "/r".into(),
                    dir: "/d".into(),
                    criu: criu(),
                    clients: vec![],
                    tcp_close: true,
                    hostname: Some("h".into()),
                    lazy: true,
                    is_gated: true,
                    asks: true,
                },
            ),
            ("attach", Call::Attach { exec: None, client: client() }),
            ("exec", Call::Exec { exec: "e".into(), privileged: true, client: Some(client()) }),
            ("resize", Call::Resize { exec: Some("e".into()), height: 24, width: 80 }),
            ("signal", Call::Signal { exec: None, signal: 15 }),
            ("pause", Call::Pause {}),
            ("resume", Call::Resume {}),
            (
                "dump",
                Call::Dump {
                    dump: Dump {
                        dir: "/d".into(),
                        leave_running: true,
                        lazy: true,
                        streamed: true,
                        ..Dump::default()
                    },
                    criu: criu(),
                    verdict: Some("/v".into()),
                },
            ),
            ("dismiss", Call::Dismiss {}),
        ];
        let (daemon, shim) = pair();
        for (name, call) in calls {
            let sent = Request { id: 7, call };
            let text = serde_json::to_string(&sent).unwrap();
            assert!(text.contains(&format!("\"{name}\":")), "{text}");
            send(&daemon, &sent, &[], SendFlags::empty()).unwrap();
            let (got, _) = receive::<Request>(&shim, RecvFlags::empty()).unwrap().unwrap();
            assert_eq!(serde_json::to_string(&got).unwrap(), text);
        }
        let exit =
            Exit { code: 137, oom_killed: true, finished_at: "t".into(), checkpointed: false, reason: None };
        let refused = Error {
            op: "open".into(),
            object: "/x".into(),
            cause: Cause::Io(io::Error::from_raw_os_error(libc::ENOENT)),
        };
        let messages = vec![
            Message::Hello(Hello { version: VERSION, exit: Some(exit.clone()), ..Hello::default() }),
            Message::Answer { id: 1, outcome: Outcome::Done(Done { pid: Some(4), log: None }) },
            Message::Answer { id: 2, outcome: Outcome::Failed(refused.into()) },
            Message::Event(Event::Exited(exit)),
            Message::Event(Event::ExecExited { exec: "e".into(), code: 1 }),
            Message::Event(Event::Oom {}),
            Message::Event(Event::Detached { exec: None }),
        ];
        for sent in messages {
            send(&shim, &sent, &[], SendFlags::empty()).unwrap();
            let (got, _) = receive::<Message>(&daemon, RecvFlags::empty()).unwrap().unwrap();
            assert_eq!(serde_json::to_string(&got).unwrap(), serde_json::to_string(&sent).unwrap());
        }
    }

    /// Whether `new` has everything that `old` has: then whoever understood the old understands the new.
    fn covers(new: &serde_json::Value, old: &serde_json::Value) -> bool {
        match (new, old) {
            (serde_json::Value::Object(new), serde_json::Value::Object(old)) => {
                old.iter().all(|(key, old)| new.get(key).is_some_and(|new| covers(new, old)))
            }
            (serde_json::Value::Array(new), serde_json::Value::Array(old)) => {
                new.len() == old.len() && new.iter().zip(old).all(|(new, old)| covers(new, old))
            }
            (new, old) => new == old,
        }
    }

    /// What the first released dewars said is understood, and is still said in a way they understand.
    #[test]
    fn version_1_is_spoken_in_both_directions() {
        for line in include_str!("fixtures/daemon-v1.jsonl").lines() {
            let old: serde_json::Value = serde_json::from_str(line).unwrap();
            let heard: AnyRequest = serde_json::from_str(line).unwrap();
            let request =
                Request { id: heard.id, call: heard.call().unwrap_or_else(|why| panic!("{why}: {line}")) };
            assert!(covers(&serde_json::to_value(request).unwrap(), &old), "{line}");
        }
        for line in include_str!("fixtures/shim-v1.jsonl").lines() {
            let old: serde_json::Value = serde_json::from_str(line).unwrap();
            match serde_json::from_str::<Heard>(line).unwrap() {
                Heard::Message(message) => {
                    assert!(covers(&serde_json::to_value(message).unwrap(), &old), "{line}");
                }
                other => panic!("{other:?}: {line}"),
            }
        }
    }

    #[test]
    fn what_a_later_dewar_says_is_no_end() {
        let hello = r#"{"hello":{"version":1,"revision":9,"id":"a","pid":1,"mood":"fine","ended":[]}}"#;
        let Heard::Message(Message::Hello(hello)) = serde_json::from_str(hello).unwrap() else { panic!() };
        assert_eq!((hello.revision, hello.pid, hello.paused), (9, Some(1), false));
        let event = r#"{"event":{"yawned":{"at":"noon"}}}"#;
        assert!(matches!(serde_json::from_str(event).unwrap(), Heard::Strange(_)));
        let answer = r#"{"answer":{"id":7,"outcome":{"postponed":{}}}}"#;
        assert!(matches!(serde_json::from_str(answer).unwrap(), Heard::Answer(7, _)));
        let call = r#"{"id":8,"call":{"sing":{"song":"x"}}}"#;
        let heard: AnyRequest = serde_json::from_str(call).unwrap();
        assert_eq!(heard.id, 8);
        assert!(heard.call().unwrap_err().contains("sing"));
        let more = r#"{"id":9,"call":{"signal":{"exec":null,"signal":1,"softly":true}}}"#;
        assert!(serde_json::from_str::<AnyRequest>(more).unwrap().call().is_ok());
    }

    #[test]
    fn errors_keep_their_meaning() {
        let cause = Cause::Command(CommandError { exit_code: 127, message: "exec: \"x\": no".into() });
        let error = Error { op: "execute".into(), object: "x".into(), cause };
        let back = Error::from(Fault::from(error));
        assert!(matches!(back.cause, Cause::Command(CommandError { exit_code: 127, .. })));
        let denied = Error {
            op: "mount".into(),
            object: "/proc".into(),
            cause: io::Error::from_raw_os_error(libc::EPERM).into(),
        };
        let back = Error::from(Fault::from(denied));
        assert!(matches!(&back.cause, Cause::Io(e) if e.kind() == io::ErrorKind::PermissionDenied), "{back}");
    }

    #[test]
    fn descriptors_travel() {
        let (daemon, shim) = pair();
        let (left, right) = pair();
        let sent = Request { id: 1, call: Call::Attach { exec: None, client: client() } };
        send(&daemon, &sent, &[left.as_fd()], SendFlags::empty()).unwrap();
        drop(left);
        let (_, fds) = receive::<Request>(&shim, RecvFlags::empty()).unwrap().unwrap();
        assert_eq!(fds.len(), 1);
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut byte = [0_u8; 1];
        assert_eq!(rustix::io::read(&right, &mut byte).unwrap(), 1);
    }

    #[test]
    fn nonsense_and_the_end_are_told_apart() {
        let (daemon, shim) = pair();
        rustix::io::write(&daemon, b"{\"what\":1}").unwrap();
        let error = receive::<Request>(&shim, RecvFlags::empty()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = receive::<Request>(&shim, RecvFlags::DONTWAIT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(daemon);
        assert!(receive::<Request>(&shim, RecvFlags::empty()).unwrap().is_none());
    }

    #[test]
    fn oversize_is_refused_before_it_is_sent() {
        let (daemon, _shim) = pair();
        let object = "x".repeat(PACKET_BYTES);
        let fault = Fault { op: "a".into(), object, cause: FaultCause::Errno(1) };
        let message = Message::Answer { id: 1, outcome: Outcome::Failed(fault) };
        let error = send(&daemon, &message, &[], SendFlags::empty()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}
