//! One container on this kernel: namespaces, cgroup, root filesystem, shim, init, CRIU.
//!
//! The daemon hands a [`Launch`] to a [`Runtime`] and gets a [`Sandbox`], the living form of a container.
//! Commands go down as method calls that block until the shim has answered; what happens by itself (an
//! exit, an OOM kill) comes up as a [`SandboxEvent`] through the channel the runtime was given.
//!
//! Nothing here knows HTTP, Docker's words or the daemon's state files.

pub mod capabilities;
pub mod cgroup;
pub mod conntrack;
pub mod console;
pub mod criu;
pub mod devices;
pub mod host;
pub mod host_devices;
pub mod init;
pub mod layer;
pub mod look;
pub mod mount_namespace;
pub mod mounts;
pub mod netlink;
pub mod netns;
pub mod nftables;
pub mod oci;
pub mod plan;
pub mod program;
pub mod record;
pub mod rootfs;
pub mod sandbox;
pub mod seccomp;
pub mod shim;
pub mod signal;
pub mod spec;
pub mod sys;
pub mod user;
pub mod uts;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use criu::CriuInfo;
pub use sandbox::{Adopted, Runtime, RuntimeConfig, Sandbox};

/// A failure below the daemon: what was attempted, on what, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{op} {object}: {cause}")]
pub struct Error {
    /// The attempt: `mount proc on`.
    pub op: String,
    /// What it was attempted on: `/proc`.
    pub object: String,
    pub cause: Cause,
}

/// The last link of an [`Error`].
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// A system call failed.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The peer or the kernel said something that makes no sense to us, or that we refuse.
    #[error("{0}")]
    Refused(String),
    /// The command cannot be run: not found (127), not executable (126). The text is the one Docker's
    /// clients derive their exit code from, and stands alone.
    #[error("{0}")]
    Command(CommandError),
}

/// The reason in a refusal that comes because the process has ended meanwhile.
pub const NOT_RUNNING: &str = "it is not running";

/// The exit recorded in `path`; `None` when there is none.
///
/// # Errors
/// It cannot be read, or not be understood.
pub fn read_exit(path: &std::path::Path) -> Result<Option<Exit>, Error> {
    let failed = |cause: Cause| Error { op: "read".into(), object: path.display().to_string(), cause };
    match std::fs::read(path) {
        Ok(text) => record::decode(&text).map(Some).map_err(|reason| failed(Cause::Refused(reason))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(Cause::Io(error))),
    }
}

impl Error {
    /// Whether it failed because what it was about has ended: the caller was a moment too late.
    pub fn is_too_late(&self) -> bool {
        matches!(&self.cause, Cause::Refused(reason) if reason == NOT_RUNNING || reason == sandbox::SHIM_GONE)
    }
}

/// Why `execve` of the container's command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct CommandError {
    /// 126 or 127, as a shell would exit.
    pub exit_code: u8,
    /// `exec: "nope": executable file not found in $PATH`
    pub message: String,
}

/// The root filesystem of one container: read-only layers with one writable directory on top.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Overlay {
    /// Topmost first, as overlayfs wants them. Never empty.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// Skip syncing on unmount: for containers that do not outlive their run.
    pub volatile: bool,
    /// A mount namespace that has these layers mounted as its root already: see [`look::View::shared`].
    #[serde(default)]
    pub shared: Option<PathBuf>,
}

/// Where the container's standard streams go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Stdio {
    /// A pty instead of three pipes.
    pub terminal: bool,
    /// Keep stdin open; otherwise it is the container's own /dev/null.
    pub open_stdin: bool,
    /// Close stdin for good when the first attached client ends its input.
    pub stdin_once: bool,
    /// `None`: output cannot be read back.
    pub log: Option<LogFile>,
    /// `None`: nobody but attached clients gets the output at once.
    #[serde(default)]
    pub log_remote: Option<LogRemote>,
}

/// A log file, written by the shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogFile {
    pub path: PathBuf,
    /// Rotate before a write when the file has reached this many bytes.
    pub max_size_bytes: Option<u64>,
    /// Files kept in all, the current one included; at least 1.
    pub max_files: u32,
    /// Compress rotated files.
    #[serde(default)]
    pub compress: bool,
    #[serde(default)]
    pub format: LogFormat,
    /// Written into every entry.
    #[serde(default)]
    pub attrs: Vec<(String, String)>,
}

impl LogFile {
    /// A `json-file` log that is never rotated.
    pub fn at(path: PathBuf) -> LogFile {
        let (compress, format) = (false, LogFormat::Json);
        LogFile { path, max_size_bytes: None, max_files: 1, compress, format, attrs: Vec::new() }
    }
}

/// How entries stand in a log file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Docker's `json-file`.
    #[default]
    Json,
    /// Docker's `local`.
    Local,
}

/// Somebody else who gets the output, sent by the shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogRemote {
    pub address: LogAddress,
    pub form: LogForm,
    /// Let the container wait when the receiver falls behind, for a while; else what it cannot take is lost.
    pub is_blocking: bool,
    /// What may wait to be sent.
    pub buffer_bytes: usize,
}

/// Where a receiver listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogAddress {
    /// The first of these sockets that is there.
    Local(Vec<PathBuf>),
    Unix(PathBuf),
    UnixDatagram(PathBuf),
    /// One after the other is tried.
    Udp(Vec<std::net::SocketAddr>),
    Tcp(Vec<std::net::SocketAddr>),
}

/// What a receiver understands.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogForm {
    Syslog {
        /// 0..=23
        facility: u8,
        form: SyslogForm,
        tag: String,
        hostname: String,
    },
    /// systemd's journal; the fields are in every entry, their names valid.
    Journal { fields: Vec<(String, String)> },
}

/// The head of a syslog message, in Docker's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyslogForm {
    /// As RFC 3164 without the host's name.
    #[default]
    Unix,
    Rfc3164,
    Rfc5424,
    Rfc5424Micro,
}

/// A place in a log. The inode names the file whatever rotation has made of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    pub inode: u64,
    /// From the file's beginning.
    pub bytes: u64,
}

/// Everything needed to bring one container to life.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// 64 hex digits.
    pub id: String,
    /// `/run/dewar/containers/<id>`: made by [`Runtime::launch`], holds the shim's socket and the mount point
    /// of the root filesystem; removed by [`Sandbox::dismiss`].
    pub run_dir: PathBuf,
    pub spec: spec::Spec,
    pub overlay: Overlay,
    pub stdio: Stdio,
    /// The shim records the exit here (see [`Exit`]) before it tells anyone; replaced atomically.
    pub exit_file: PathBuf,
    /// Whether the exit record must survive a power cut (costs an fsync).
    pub durable: bool,
    /// Run the command below a minimal init that reaps and forwards signals (`--init`).
    pub reaper: bool,
    /// Who makes the container out of the spec; absent for our own init.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oci: Option<oci::OciRuntime>,
}

/// How a container's life ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// 0..=255; 128 + signal for a death by signal.
    pub code: i32,
    /// Whether the kernel's OOM killer struck in this container's cgroup.
    pub oom_killed: bool,
    /// UTC, RFC 3339 with nanoseconds.
    pub finished_at: String,
    /// Whether it ended because a [`Dump`] without `leave_running` took it: the container is frozen on disk,
    /// nothing died, and no restart policy applies.
    #[serde(default)]
    pub checkpointed: bool,
    /// Why the shim ended it, when it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One client's attachment to a process's streams. `stream` is a connected AF_UNIX SOCK_STREAM socket: the
/// client's input is read from it until end of file, output is written to it, framed as Docker's
/// multiplexed stream unless the process has a terminal. The peer has to read whatever comes, and to keep what
/// its own client does not take: see [`shim::stdio::CLIENT_PATIENCE`].
#[derive(Debug)]
pub struct Attachment {
    pub stream: OwnedFd,
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// Bytes that detach when typed in sequence on a terminal; empty for none.
    pub detach_keys: Vec<u8>,
    /// The client has read, or will read, the log: it gets the unfinished lines that are not in it yet.
    pub reads_log: bool,
}

/// A further process in a running container.
#[derive(Debug)]
pub struct Exec {
    /// 64 hex digits.
    pub id: String,
    pub process: spec::Process,
    /// Full set of capabilities (`exec --privileged`).
    pub privileged: bool,
    /// `None` runs detached, its output discarded.
    pub attachment: Option<Attachment>,
}

/// What to freeze, and where to.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Dump {
    /// An existing empty directory; receives `images/` (CRIU's), `rootfs.tar` (the writable layer as an OCI
    /// layer), `shm.tar` (/dev/shm), `dump.log` and `descriptors.json`.
    pub dir: PathBuf,
    pub leave_running: bool,
    /// TCP connections are not saved; such a dump is only thawed with [`Thaw::tcp_close`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tcp_close: bool,
    /// Archived while everything stands still.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<DumpVolume>,
    /// Its caller saves the writable layer, while it stands still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_layer: bool,
    /// What memory can be brought later stays in the frozen processes while the container is handed over, and is
    /// written out before they end if the gate's keeper says so or is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lazy: bool,
    /// A [`criu::stream::capture::Capture`] listens in `dir`, which has an `images` then: what is large or secret goes there
    /// and is no file.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub streamed: bool,
    /// How many [`Sandbox::pre_dump`]s are in `dir`, whose memory is only written again where it has changed. A shim
    /// that does not know of them writes all.
    #[serde(default)]
    pub pre_dumps: u32,
}

/// A directory beside the container that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpVolume {
    /// On the host.
    pub from: PathBuf,
    /// The archive, a path below [`Dump::dir`].
    pub file: String,
}

/// A frozen container to thaw instead of running its command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Thaw {
    /// What [`Dump::dir`] was. It is not written to; CRIU's log goes to [`Launch::run_dir`].
    pub dir: PathBuf,
    /// TCP connections come back closed, for they cannot go on: every one, those on the loopback interface among
    /// them. Otherwise each needs the address it had.
    pub tcp_close: bool,
    /// Another hostname than the one it was frozen with; the processes never see the old one.
    pub hostname: Option<String>,
    /// The processes run before their memory is there; a daemon of the shim's brings it from `dir`, which must stay
    /// until [`Runtime::thaw`] has returned, and no longer.
    pub lazy: bool,
    /// Where that daemon asks for the memory, which is not in `dir`; see [`criu::asking`].
    #[serde(skip)]
    pub asks: Option<Arc<OwnedFd>>,
}

/// What happens without being asked for.
#[derive(Debug)]
pub enum SandboxEvent {
    /// The container's first process ended; the exit is already on disk.
    Exited { id: String, exit: Exit },
    /// A process started with [`Sandbox::exec`] ended, its output delivered.
    ExecExited { id: String, exec_id: String, code: i32 },
    /// The kernel killed a process of this container for want of memory.
    Oom { id: String },
    /// A client typed the detach keys.
    Detached { id: String, exec_id: Option<String> },
    /// The shim is gone without having reported an exit: killed, or broken.
    Lost { id: String },
}
