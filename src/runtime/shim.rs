//! The shim: one small process per container that holds its stdio, reaps it, and outlives the daemon.
//!
//! It is the dewar binary executed again as `dewar-shim`, with the control socket as standard input and, if
//! there is one, the mount namespace to begin with as standard output. One thread, one poll loop, everything
//! non-blocking; only starting, dumping and restoring block the loop, for as long as they take.
//!
//! ```text
//!            launch / thaw              init ends                output ended, or 2 s
//!  [Waiting] ─────────────> [Running] ───────────> [Draining] ───────────────────────> [Ended]
//!      │ fails: undo all        ^ │ pause, resume, exec, dump …                            │
//!      v                        └─┘                                                        v
//!    exits                                                     dismissed, or no daemon: exits
//! ```
//!
//! On entering Ended, in this order: the exit is recorded on disk; the daemon is told; clients are let go;
//! what is left in the cgroup is killed, the root unmounted, the cgroup removed.
//!
//! The cgroup was made by the daemon, while the shim came up.
//!
//! Invariants: the overlay is mounted in the shim's private mount namespace, so the host sees nothing of it
//! and it goes with the shim; the shim is outside of the container's cgroup (it would be frozen with it);
//! nothing the container or a client does can make it wait. It never parses what a user typed: the daemon did.
//!
//! Processes of an exec are the shim's children; their orphans go to the container's init, or to the host's
//! when the container shares its pid namespace, so pidfds suffice and SIGCHLD is not used.
//!
//! Not here: what is said on the socket ([`protocol`]), streams ([`stdio`]), dump and restore
//! ([`checkpoint`]), what another OCI runtime does instead of us ([`foreign`]).
//!
//! Stays whole: one loop over everything a container can do, and all it owns.

pub mod aside;
pub mod checkpoint;
pub mod detach;
mod foreign;
pub mod gate;
pub mod log;
pub mod protocol;
pub mod stdio;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::{PipeFlags, pipe_with};

use super::cgroup::{Cgroup, OomNotifier};
use super::criu::pages::PageDaemon;
use super::oci::Foreign;
use super::spec::{NamespaceKind, Process, Spec};
use super::sys::process;
use super::sys::{signal, terminal};
use super::{Cause, Dump, Error, Exit, Launch, NOT_RUNNING, Thaw, init, mount_namespace, record, rootfs};
use gate::Gate;
use log::Log;
use protocol::{AnyRequest, Call, Client, CriuPlace, Done, EndedExec, Event, Hello, Message, Outcome};
use stdio::{CHUNK_BYTES, Ends, Port, Stdio};

/// `argv[0]` of a shim.
pub const NAME: &str = "dewar-shim";
/// The socket in the run directory on which a later daemon finds the shim.
pub const SOCKET: &str = "shim.sock";
/// The [`Launch`] in the run directory.
pub const LAUNCH: &str = "launch.json";
/// What a shim has to complain of. It holds a lock on the file for as long as it lives.
pub const LOG: &str = "shim.log";
/// The mount point of the root filesystem in the run directory.
pub const ROOTFS: &str = "rootfs";

/// How long output is awaited after its process has ended: a grandchild may hold the pipe for ever.
const DRAIN: Duration = Duration::from_secs(2);
/// How long the daemon may leave messages unread before its connection is given up.
const SEND_PATIENCE: Duration = Duration::from_secs(5);

/// Execs whose end is remembered.
const REMEMBERED: usize = 32;

/// A shim's main. Standard input is the control socket; arguments only serve to tell shims apart.
pub fn main(_args: &[OsString]) -> ExitCode {
    match Shim::prepare() {
        Ok(mut shim) => shim.run(),
        Err(error) => {
            eprintln!("dewar-shim: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The container, while it lives.
struct Container {
    launch: Launch,
    cgroup: Cgroup,
    pid: i32,
    pidfd: Option<OwnedFd>,
    oom: Option<OomNotifier>,
    oom_killed: bool,
    paused: bool,
    /// Its first process was sent SIGKILL.
    killed: bool,
    /// A dump without leave_running took it.
    checkpointed: bool,
    /// When a dump failed, which may have struck it.
    dump_failed: Option<Instant>,
    /// Its first process has ended with this code.
    ended: Option<(i32, Instant)>,
    pid_namespace: bool,
    /// Another runtime made it.
    foreign: Option<Foreign>,
    /// Brings its memory, while some is missing.
    pages: Option<PageDaemon>,
    /// Why we killed it.
    reason: Option<String>,
}

/// The gate that came with a call, its last descriptor.
fn gate(fds: &mut Vec<OwnedFd>, verdict: Option<PathBuf>) -> Result<Gate, Error> {
    let fd = fds.pop().ok_or_else(|| refused("hand over", "container", "no gate came with it"))?;
    Ok(Gate { stream: fd.into(), verdict })
}

/// A process started by exec.
struct ExecProcess {
    id: String,
    pidfd: Option<OwnedFd>,
    pid: i32,
    stdio: Stdio,
    ended: Option<(i32, Instant)>,
}

/// Everything the loop owns.
struct Shim {
    control: Option<OwnedFd>,
    /// The mount namespace to begin with.
    bare: Option<OwnedFd>,
    listener: Option<OwnedFd>,
    id: Option<String>,
    container: Option<Container>,
    stdio: Stdio,
    execs: Vec<ExecProcess>,
    /// The last to end, for a daemon that was not there.
    ended: VecDeque<EndedExec>,
    exit: Option<Exit>,
    done: bool,
}

/// What a descriptor in the poll set is.
#[derive(Clone, Copy, Debug)]
enum Token {
    Control,
    Listener,
    Init,
    /// A process another runtime left behind.
    Stray,
    Oom,
    /// What brings the memory of a lazy thaw.
    Pages,
    Exec(usize),
    Stdio(Port),
    ExecStdio(usize, Port),
}

/// Descriptors to wait for, and what each is.
#[derive(Default)]
struct PollSet<'a> {
    fds: Vec<PollFd<'a>>,
    tokens: Vec<Token>,
}

impl<'a> PollSet<'a> {
    fn add(&mut self, fd: BorrowedFd<'a>, flags: PollFlags, token: Token) {
        self.fds.push(PollFd::from_borrowed_fd(fd, flags));
        self.tokens.push(token);
    }
}

fn failed(op: &str, object: impl AsRef<Path>, cause: impl Into<Cause>) -> Error {
    Error { op: op.to_owned(), object: object.as_ref().display().to_string(), cause: cause.into() }
}

fn refused(op: &str, object: &str, reason: &str) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Refused(reason.to_owned()) }
}

impl Shim {
    /// Takes the control socket and leaves the daemon's session.
    fn prepare() -> Result<Shim, Error> {
        let inherited = io::stdin();
        let kind = rustix::net::sockopt::socket_type(&inherited);
        if kind != Ok(SocketType::SEQPACKET) {
            return Err(refused("start", "shim", "standard input is no control socket"));
        }
        let control = inherited.as_fd().try_clone_to_owned();
        let control = control.map_err(|error| failed("keep", "the control socket", error))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let null = null.map_err(|errno| failed("open", "/dev/null", errno))?;
        rustix::stdio::dup2_stdin(&null).map_err(|errno| failed("open", "/dev/null", errno))?;
        let bare = bare_namespace();
        rustix::stdio::dup2_stdout(&null).map_err(|errno| failed("open", "/dev/null", errno))?;
        // Executed by a descriptor's path, its name would be a number.
        let _ = rustix::thread::set_name(c"dewar-shim");
        // Fails only for a process group's leader, which a shim started from a shell would be.
        let _ = rustix::process::setsid();
        let _ = rustix::process::chdir("/");
        Ok(Shim {
            control: Some(control),
            bare,
            listener: None,
            id: None,
            container: None,
            stdio: Stdio::new(false, false, None),
            execs: Vec::new(),
            ended: VecDeque::new(),
            exit: None,
            done: false,
        })
    }

    fn run(&mut self) -> ExitCode {
        self.greet();
        let mut buffer = [0_u8; CHUNK_BYTES];
        // A daemon that died before the greeting left nothing to wait for.
        self.settle(&mut buffer);
        while !self.done {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    eprintln!("dewar-shim: wait for events: {error}");
                    return ExitCode::FAILURE;
                }
            };
            for (token, flags) in ready {
                self.handle(token, flags, &mut buffer);
            }
            self.settle(&mut buffer);
        }
        ExitCode::SUCCESS
    }

    fn wait(&self) -> io::Result<Vec<(Token, PollFlags)>> {
        let now = Instant::now();
        let mut set = PollSet::default();
        for (fd, token) in [(&self.control, Token::Control), (&self.listener, Token::Listener)] {
            if let Some(fd) = fd {
                set.add(fd.as_fd(), PollFlags::IN, token);
            }
        }
        if let Some(container) = &self.container {
            if let Some(pidfd) = &container.pidfd {
                set.add(pidfd.as_fd(), PollFlags::IN, Token::Init);
            }
            for stray in container.foreign.iter().flat_map(Foreign::strays) {
                set.add(stray, PollFlags::IN, Token::Stray);
            }
            if let Some(oom) = &container.oom {
                set.add(oom.as_fd(), PollFlags::IN, Token::Oom);
            }
            if let Some(pages) = &container.pages {
                set.add(pages.as_fd(), PollFlags::IN, Token::Pages);
            }
        }
        self.stdio.register(now, |fd, flags, port| set.add(fd, flags, Token::Stdio(port)));
        for (at, exec) in self.execs.iter().enumerate() {
            if let Some(pidfd) = &exec.pidfd {
                set.add(pidfd.as_fd(), PollFlags::IN, Token::Exec(at));
            }
            exec.stdio.register(now, |fd, flags, port| set.add(fd, flags, Token::ExecStdio(at, port)));
        }
        let drains = self.container.iter().filter_map(|container| container.ended);
        let drains = drains.chain(self.execs.iter().filter_map(|exec| exec.ended));
        let deadline = drains
            .map(|(_, ended)| ended + DRAIN)
            .filter(|_| self.exit.is_none())
            .chain(self.stdio.deadline())
            .chain(self.execs.iter().filter_map(|exec| exec.stdio.deadline()))
            .min();
        let timeout = deadline.map(|at| {
            let left = at.saturating_duration_since(now) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) }
        });
        match rustix::event::poll(&mut set.fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = set.tokens.into_iter().zip(set.fds.iter().map(PollFd::revents));
        Ok(ready.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    fn handle(&mut self, token: Token, flags: PollFlags, buffer: &mut [u8; CHUNK_BYTES]) {
        match token {
            Token::Control => self.serve(),
            Token::Listener => self.accept(),
            Token::Init => self.reap_init(),
            Token::Stray => {
                let container = self.container.as_mut();
                container.and_then(|container| container.foreign.as_mut()).map(Foreign::reap_strays);
            }
            Token::Oom => self.oom_signalled(),
            Token::Pages => self.pages_ended(),
            Token::Exec(at) => {
                let exec = &mut self.execs[at];
                if exec.ended.is_none() && exec.pidfd.take().is_some() {
                    exec.ended = Some((reap(exec.pid), Instant::now()));
                }
            }
            Token::Stdio(port) => {
                if self.stdio.ready(port, flags, buffer) == stdio::Outcome::Detached {
                    self.say(&Message::Event(Event::Detached { exec: None }));
                }
            }
            Token::ExecStdio(at, port) => {
                if self.execs[at].stdio.ready(port, flags, buffer) == stdio::Outcome::Detached {
                    let exec = Some(self.execs[at].id.clone());
                    self.say(&Message::Event(Event::Detached { exec }));
                }
            }
        }
    }

    /// Follows up on what has ended. Execs first: their exits are told before the container's.
    fn settle(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        let now = Instant::now();
        self.stdio.tend(now);
        for exec in &mut self.execs {
            exec.stdio.tend(now);
        }
        let init_ended = self.container.as_ref().is_some_and(|container| container.ended.is_some());
        let mut at = 0;
        while at < self.execs.len() {
            let exec = &mut self.execs[at];
            if let Some((code, since)) = exec.ended {
                exec.stdio.drain_ended_process(buffer);
                if exec.stdio.output_ended() || now >= since + DRAIN {
                    let mut exec = self.execs.remove(at);
                    exec.stdio.end_output(buffer);
                    if self.ended.len() == REMEMBERED {
                        self.ended.pop_front();
                    }
                    self.ended.push_back(EndedExec { exec: exec.id.clone(), code });
                    self.say(&Message::Event(Event::ExecExited { exec: exec.id, code }));
                    exec.stdio.close_clients();
                    continue;
                }
            }
            at += 1;
        }
        if init_ended && self.exit.is_none() {
            self.stdio.drain_ended_process(buffer);
            let container = self.container.as_ref().expect("it has ended, so it was there");
            let (_, since) = container.ended.expect("checked above");
            if (self.stdio.output_ended() && self.stdio.is_logged()) || now >= since + DRAIN {
                self.end(buffer);
            }
        }
        if self.control.is_none() && (self.exit.is_some() || self.container.is_none()) {
            self.done = true;
        }
    }

    fn greet(&mut self) {
        let hello = Hello {
            version: protocol::VERSION,
            revision: protocol::REVISION,
            id: self.id.clone(),
            pid: self.container.as_ref().map(|container| container.pid),
            paused: self.container.as_ref().is_some_and(|container| container.paused),
            oom_killed: self.container.as_ref().is_some_and(|container| container.oom_killed),
            exit: self.exit.clone(),
            ended: self.ended.iter().cloned().collect(),
        };
        self.say(&Message::Hello(hello));
    }

    /// Tells the daemon. One that does not read for long is treated as gone: another will come.
    fn say(&mut self, message: &Message) {
        let Some(control) = &self.control else { return };
        let started = Instant::now();
        loop {
            match protocol::send(control, message, &[], SendFlags::DONTWAIT) {
                Ok(()) => return,
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && started.elapsed() < SEND_PATIENCE =>
                {
                    let mut fds = [PollFd::new(control, PollFlags::OUT)];
                    let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                    let _ = rustix::event::poll(&mut fds, Some(&wait));
                }
                Err(_) => {
                    self.control = None;
                    return;
                }
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok(connection) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            self.control = Some(connection);
            self.greet();
        }
    }

    fn serve(&mut self) {
        let Some(control) = &self.control else { return };
        match protocol::receive::<AnyRequest>(control, RecvFlags::DONTWAIT) {
            Ok(Some((request, fds))) => {
                let id = request.id;
                let call = request.call();
                let launches = matches!(call, Ok(Call::Launch { .. } | Call::Thaw { .. }));
                // A later daemon's word is refused, not taken for the end of the talk.
                let strange = |reason: String| refused("understand", "the daemon", &reason);
                let outcome = match call.map_err(strange).and_then(|call| self.call(call, fds)) {
                    Ok(done) => Outcome::Done(done),
                    Err(error) => Outcome::Failed(error.into()),
                };
                // One that has a container already goes on with it.
                let fatal = launches && self.container.is_none() && matches!(outcome, Outcome::Failed(_));
                self.say(&Message::Answer { id, outcome });
                self.done |= fatal;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(None) => self.control = None,
            Err(error) => {
                eprintln!("dewar-shim: the daemon's message: {error}");
                self.control = None;
            }
        }
    }

    fn call(&mut self, call: Call, mut fds: Vec<OwnedFd>) -> Result<Done, Error> {
        let started = |pid| Done { pid: Some(pid), ..Done::default() };
        match call {
            Call::Launch { run_dir, clients } => self.launch(&run_dir, None, clients, fds).map(started),
            Call::Thaw { run_dir, dir, criu, clients, tcp_close, hostname, lazy, is_gated, asks } => {
                let gate = if is_gated { Some(gate(&mut fds, None)?) } else { None };
                let asks = match (asks, fds.pop_if(|_| asks)) {
                    (true, None) => {
                        return Err(refused("thaw", "container", "no socket for memory came with it"));
                    }
                    (_, socket) => socket.map(Arc::new),
                };
                let thaw = Thaw { dir, tcp_close, hostname, lazy, asks };
                self.launch(&run_dir, Some((thaw, criu, gate)), clients, fds).map(started)
            }
            Call::Attach { exec, client } => {
                let stream =
                    fds.pop().ok_or_else(|| refused("attach", "client", "no stream came with it"))?;
                if self.exit.is_some() {
                    return Err(refused("attach to", "container", NOT_RUNNING));
                }
                Ok(Done { log: self.stdio_of(exec.as_deref())?.attach(client, stream), ..Done::default() })
            }
            Call::Exec { exec, privileged, client } => self.exec(exec, privileged, client, fds).map(started),
            Call::Resize { exec, height, width } => {
                let stdio = self.stdio_of(exec.as_deref())?;
                // Compat: what has no terminal has any size.
                if let Some(console) = stdio.console() {
                    terminal::set_size(console, terminal::Size { rows: height, columns: width })
                        .map_err(|error| failed("resize", "terminal", error))?;
                }
                Ok(Done::default())
            }
            Call::Signal { exec, signal } => self.signal(exec.as_deref(), signal).map(|()| Done::default()),
            Call::Pause {} => {
                let container = self.running()?;
                if container.killed {
                    // Frozen now it would never die.
                    return Err(refused("pause", "container", NOT_RUNNING));
                }
                container.cgroup.freeze()?;
                container.paused = true;
                Ok(Done::default())
            }
            Call::Resume {} => {
                let container = self.running()?;
                container.cgroup.thaw()?;
                container.paused = false;
                Ok(Done::default())
            }
            Call::Dump { dump, criu, verdict } => {
                let gate = match verdict {
                    Some(verdict) => Some(gate(&mut fds, Some(verdict))?),
                    None => None,
                };
                self.dump(&dump, &criu, gate.as_ref()).map(|()| Done::default())
            }
            Call::Dismiss {} => {
                if self.container.is_some() && self.exit.is_none() {
                    return Err(refused("dismiss", "shim", "its container still runs"));
                }
                self.done = true;
                Ok(Done::default())
            }
        }
    }

    /// The container, unless it has ended.
    fn running(&mut self) -> Result<&mut Container, Error> {
        match &mut self.container {
            Some(container) if container.ended.is_none() => Ok(container),
            _ => Err(refused("find", "container", NOT_RUNNING)),
        }
    }

    fn stdio_of(&mut self, exec: Option<&str>) -> Result<&mut Stdio, Error> {
        let Some(id) = exec else { return Ok(&mut self.stdio) };
        let found = self.execs.iter_mut().find(|exec| exec.id == id);
        found.map(|exec| &mut exec.stdio).ok_or_else(|| refused("find", "exec", NOT_RUNNING))
    }

    fn launch(
        &mut self,
        run_dir: &Path,
        thaw: Option<(Thaw, CriuPlace, Option<Gate>)>,
        clients: Vec<Client>,
        fds: Vec<OwnedFd>,
    ) -> Result<i32, Error> {
        if self.container.is_some() {
            return Err(refused("launch", "container", "this shim already has one"));
        }
        if clients.len() != fds.len() {
            return Err(refused("attach", "clients", "not every client came with a stream"));
        }
        let path = run_dir.join(LAUNCH);
        let text = std::fs::read(&path).map_err(|error| failed("read", &path, error))?;
        let launch: Launch =
            record::decode(&text).map_err(|reason| failed("read", &path, Cause::Refused(reason)))?;
        drop(text);
        self.id = Some(launch.id.clone());
        let log = open_log(&launch)?;
        self.stdio = Stdio::new(launch.stdio.terminal, launch.stdio.stdin_once, log);
        for (client, stream) in clients.into_iter().zip(fds) {
            self.stdio.attach(client, stream);
        }
        self.listener = Some(listen(run_dir)?);
        // The last life's record must not be taken for this one's.
        match std::fs::remove_file(&launch.exit_file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("remove", &launch.exit_file, error));
            }
            _ => {}
        }
        // Only here their mounts have the host's for peers.
        let trees = init::open_shared(&launch.spec)?;
        let bare = self.bare.take();
        mount_namespace::leave(bare.as_ref().map(AsFd::as_fd), &launch.spec, &launch.overlay)?;
        let root = run_dir.join(ROOTFS);
        if thaw.is_none() {
            rootfs::mount(&launch.overlay, &root)?;
        }
        let container = match (thaw, launch.oci.clone()) {
            (None, None) => start(launch, &root, trees, &mut self.stdio),
            (None, Some(runtime)) => foreign::start(launch, &runtime, &root, trees, &mut self.stdio),
            (Some((thaw, criu, gate)), _) => {
                checkpoint::thaw(launch, &root, trees, (&thaw, gate), &criu, &mut self.stdio)
            }
        };
        match container {
            Ok(container) => {
                let pid = container.pid;
                self.container = Some(container);
                Ok(pid)
            }
            Err(error) => {
                // Goes with the mount namespace too, but not before the daemon may want the layers back.
                unmount(&root);
                let _ = std::fs::remove_file(run_dir.join(SOCKET));
                self.stdio.close_clients();
                Err(error)
            }
        }
    }

    fn exec(
        &mut self,
        id: String,
        privileged: bool,
        client: Option<Client>,
        fds: Vec<OwnedFd>,
    ) -> Result<i32, Error> {
        let mut fds = fds.into_iter();
        let text = fds.next().ok_or_else(|| refused("start", "exec", "no process came with it"))?;
        let stream = fds.next();
        let mut text = std::fs::File::from(text);
        io::Seek::rewind(&mut text).map_err(|error| failed("read", "the process", error))?;
        let process: Process = serde_json::from_reader(io::BufReader::new(text))
            .map_err(|error| refused("read", "the process", &error.to_string()))?;
        if self.execs.iter().any(|exec| exec.id == id) {
            return Err(refused("start", "exec", "one of that id is running"));
        }
        let container = self.running()?;
        if container.paused {
            return Err(refused("start", "exec", "the container is paused"));
        }
        let wants_input = client.as_ref().is_some_and(|client| client.stdin);
        let mut stdio = Stdio::new(process.terminal, true, None);
        let (pid, pidfd) = match container.foreign.take() {
            None => join(container, &process, privileged, wants_input, &mut stdio)?,
            Some(mut foreign) => {
                let begun = foreign::exec(container, &mut foreign, &process, wants_input, &mut stdio);
                container.foreign = Some(foreign);
                begun?
            }
        };
        if let (Some(client), Some(stream)) = (client, stream) {
            stdio.attach(client, stream);
        }
        self.execs.push(ExecProcess { id, pidfd: Some(pidfd), pid, stdio, ended: None });
        Ok(pid)
    }

    fn signal(&mut self, exec: Option<&str>, number: i32) -> Result<(), Error> {
        let sent = |result: io::Result<()>, object: &str| match result {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(failed("signal", object, error)),
            // It ended meanwhile: its exit is on the way.
            _ => Ok(()),
        };
        if let Some(id) = exec {
            let exec = self.execs.iter().find(|exec| exec.id == id);
            let pidfd = exec.and_then(|exec| exec.pidfd.as_ref());
            let pidfd = pidfd.ok_or_else(|| refused("signal", "exec", NOT_RUNNING))?;
            if number == libc::SIGKILL
                && let Some(exec) = exec
            {
                // It leads a session of its own and is not reaped: its group is what it started. Refusals
                // are no matter, it gets the signal itself below.
                let _ = signal::kill(-exec.pid, number);
            }
            return sent(signal::send(pidfd.as_fd(), number), "exec");
        }
        let container = self.running()?;
        if let Some(pidfd) = &container.pidfd {
            // Another runtime's process need not be the container's: it knows where signals go.
            let told = container.foreign.as_ref().is_some_and(|foreign| foreign.kill(number).is_ok());
            if !told {
                sent(signal::send(pidfd.as_fd(), number), "container")?;
            }
        }
        container.killed |= number == libc::SIGKILL;
        if number == libc::SIGKILL && container.paused {
            // A frozen process takes no signal, not even this one.
            container.cgroup.thaw()?;
            container.paused = false;
        }
        Ok(())
    }

    fn dump(&mut self, dump: &Dump, criu: &CriuPlace, gate: Option<&Gate>) -> Result<(), Error> {
        let Some(container) = self.container.as_mut().filter(|container| container.ended.is_none()) else {
            return Err(refused("freeze", "container", "it is not running"));
        };
        let stdio = &mut self.stdio;
        let has_execs = !self.execs.is_empty();
        let mut work = || checkpoint::dump(container, stdio, (dump, gate), has_execs, criu);
        let live = self.execs.iter().enumerate();
        let live = live.filter_map(|(at, exec)| Some((at, exec.pidfd.as_ref()?.as_fd(), exec.pid)));
        let (places, children): (Vec<usize>, Vec<aside::Child<'_>>) =
            live.map(|(at, pidfd, pid)| (at, (pidfd, pid))).unzip();
        let (result, codes) = if children.is_empty() {
            (work(), Vec::new())
        } else {
            aside::reaping(&children, work).map_err(|error| failed("freeze", "container", error))?
        };
        for (at, code) in places.into_iter().zip(codes) {
            if let Some(code) = code {
                let exec = &mut self.execs[at];
                exec.pidfd = None;
                exec.ended = Some((code, Instant::now()));
            }
        }
        container.dump_failed = result.is_err().then(Instant::now);
        result?;
        container.checkpointed = !dump.leave_running;
        Ok(())
    }

    fn reap_init(&mut self) {
        let Some(container) = &mut self.container else { return };
        if container.pidfd.take().is_none() {
            return;
        }
        let code = reap(container.pid);
        container.ended = Some((code, Instant::now()));
        if container.was_struck(code) {
            container.reason.get_or_insert_with(|| {
                format!(
                    "it was ended by signal {}: criu died in the middle of a checkpoint, inside of its processes",
                    code - 128
                )
            });
        }
        if !container.pid_namespace {
            // Without a pid namespace of its own nothing else ends with it.
            let _ = container.cgroup.kill_all();
        }
    }

    /// The memory is there, or will never be: then its processes must not run on.
    fn pages_ended(&mut self) {
        let Some(container) = &mut self.container else { return };
        let Some(pages) = &mut container.pages else { return };
        match pages.ended() {
            Ok(()) => container.pages = None,
            // With its processes gone it is no loss.
            Err(_) if container.ended.is_some() => container.pages = None,
            Err(why) => {
                let reason = format!(
                    "the container is ended: its memory is not whole, and the rest cannot come: {why}"
                );
                eprintln!("dewar-shim: {reason}");
                container.reason = Some(reason);
                if let Err(error) = container.cgroup.kill_all() {
                    eprintln!("dewar-shim: {error}");
                }
                container.pages = None;
            }
        }
    }

    fn oom_signalled(&mut self) {
        let Some(container) = &mut self.container else { return };
        if container.oom.as_mut().is_some_and(OomNotifier::struck) {
            container.oom_killed = true;
            self.say(&Message::Event(Event::Oom {}));
        }
    }

    /// Records the exit, tells it, cleans up.
    fn end(&mut self, buffer: &mut [u8; CHUNK_BYTES]) {
        self.stdio.end_output(buffer);
        // The notification may come later than the death it explains.
        self.oom_signalled();
        let Some(container) = &mut self.container else { return };
        let Some((code, _)) = container.ended else { return };
        let exit = Exit {
            code,
            oom_killed: container.oom_killed,
            finished_at: stdio::timestamp(),
            checkpointed: container.checkpointed,
            reason: container.reason.take(),
        };
        if let Err(error) = record_exit(&exit, &container.launch.exit_file, container.launch.durable) {
            // The daemon still learns it from us; only a daemon that is not there would not.
            eprintln!("dewar-shim: {error}");
        }
        self.exit = Some(exit.clone());
        let clean = self.clean_up();
        self.say(&Message::Event(Event::Exited(exit)));
        if let Err(error) = clean {
            eprintln!("dewar-shim: {error}");
        }
        self.stdio.close_clients();
    }

    fn clean_up(&mut self) -> Result<(), Error> {
        let Some(container) = &mut self.container else { return Ok(()) };
        container.oom = None;
        container.pages = None;
        unmount(&container.launch.run_dir.join(ROOTFS));
        if container.paused {
            let _ = container.cgroup.thaw();
        }
        container.cgroup.kill_all()?;
        let forgotten = container.foreign.as_ref().map_or(Ok(()), Foreign::delete);
        container.cgroup.remove().and(forgotten)
    }
}

impl Container {
    /// Whether its end is that of a process in which CRIU's code runs, and no CRIU any more that would wait for it.
    fn was_struck(&self, code: i32) -> bool {
        const SOON: Duration = Duration::from_secs(2);
        matches!(code - 128, libc::SIGTRAP | libc::SIGSEGV | libc::SIGILL)
            && self.dump_failed.is_some_and(|failed| failed.elapsed() < SOON)
    }

    /// Takes over what was started.
    fn new(launch: Launch, cgroup: Cgroup, pid: i32, pidfd: OwnedFd) -> Container {
        let oom = cgroup.oom_notifier().ok();
        let pid_namespace = has_namespace(&launch.spec, NamespaceKind::Pid);
        Container {
            launch,
            cgroup,
            pid,
            pidfd: Some(pidfd),
            oom,
            oom_killed: false,
            paused: false,
            killed: false,
            checkpointed: false,
            dump_failed: None,
            ended: None,
            pid_namespace,
            foreign: None,
            pages: None,
            reason: None,
        }
    }
}

/// The container's log, if it has one.
fn open_log(launch: &Launch) -> Result<Option<Log>, Error> {
    let (file, remote) = (launch.stdio.log.clone(), launch.stdio.log_remote.clone());
    if file.is_none() && remote.is_none() {
        return Ok(None);
    }
    // Compat: Docker's words; whose fault it is, is in the cause.
    let log = Log::open(file, remote).map_err(|error| failed("initialize", "logging driver", error))?;
    Ok(Some(log))
}

/// The mount namespace that standard output is, if it is one.
fn bare_namespace() -> Option<OwnedFd> {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    let inherited = io::stdout();
    let stat = rustix::fs::fstatfs(&inherited).ok()?;
    let is_namespace = u64::try_from(stat.f_type) == Ok(NSFS_MAGIC);
    is_namespace.then(|| inherited.as_fd().try_clone_to_owned().ok())?
}

fn has_namespace(spec: &Spec, kind: NamespaceKind) -> bool {
    spec.linux.namespaces.iter().any(|namespace| namespace.kind == kind)
}

/// Starts the container's command.
fn start(launch: Launch, root: &Path, trees: init::Trees, stdio: &mut Stdio) -> Result<Container, Error> {
    let cgroup = Cgroup::open(&launch.spec.linux.cgroups_path)?;
    let begin = || -> Result<init::Started, Error> {
        let (streams, ends) = plumb(launch.stdio.terminal, launch.stdio.open_stdin)?;
        let mut started = init::start(&launch, root, trees, &cgroup, streams)?;
        connect(stdio, ends, started.console.take())?;
        Ok(started)
    };
    match begin() {
        Ok(started) => {
            // What the launch needed (spec, plan, filter) is freed: a shim lives long and does little.
            crate::runtime::sys::memory::trim();
            Ok(Container::new(launch, cgroup, started.pid, started.pidfd))
        }
        Err(error) => {
            let _ = cgroup.kill_all();
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

/// Runs a further process in the container.
fn join(
    container: &Container,
    process: &Process,
    privileged: bool,
    wants_input: bool,
    stdio: &mut Stdio,
) -> Result<(i32, OwnedFd), Error> {
    let target = init::Target { pid: container.pid, cgroup: &container.cgroup, spec: &container.launch.spec };
    let (streams, ends) = plumb(process.terminal, wants_input)?;
    let started = init::join(&target, process, privileged, streams)?;
    connect(stdio, ends, started.console)?;
    Ok((started.pid, started.pidfd))
}

/// The process's streams and our ends of them; a terminal's come when the process has made it.
fn plumb(terminal: bool, open_stdin: bool) -> Result<(init::Streams, Option<Ends>), Error> {
    if terminal {
        return Ok((init::Streams::Terminal, None));
    }
    let pipes = plumb_pipes(open_stdin)?;
    let streams = init::Streams::Pipes { stdin: pipes.stdin, stdout: pipes.stdout, stderr: pipes.stderr };
    Ok((streams, Some(pipes.ends)))
}

/// Pipes for a process: its ends, and ours.
struct Pipes {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
    ends: Ends,
}

fn plumb_pipes(open_stdin: bool) -> Result<Pipes, Error> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed("make", "a pipe", errno));
    let ours = |end: OwnedFd| -> Result<OwnedFd, Error> {
        rustix::io::ioctl_fionbio(&end, true).map_err(|errno| failed("make", "a pipe", errno))?;
        Ok(end)
    };
    let (stdin, our_stdin) = match open_stdin {
        true => {
            let (read, write) = pipe()?;
            (Some(read), Some(ours(write)?))
        }
        false => (None, None),
    };
    let (our_stdout, stdout) = pipe()?;
    let (our_stderr, stderr) = pipe()?;
    let ends = Ends::Pipes { stdin: our_stdin, stdout: ours(our_stdout)?, stderr: ours(our_stderr)? };
    Ok(Pipes { stdin, stdout, stderr, ends })
}

fn connect(stdio: &mut Stdio, ends: Option<Ends>, console: Option<OwnedFd>) -> Result<(), Error> {
    let ends = match (ends, console) {
        (Some(ends), _) => ends,
        (None, Some(master)) => {
            rustix::io::ioctl_fionbio(&master, true).map_err(|errno| failed("use", "the terminal", errno))?;
            Ends::Console(master)
        }
        (None, None) => return Err(refused("use", "the terminal", "the process made none")),
    };
    stdio.connect(ends);
    Ok(())
}

/// Reaps a child whose pidfd says it has ended.
fn reap(pid: i32) -> i32 {
    match process::wait(pid) {
        Ok(ended) => ended.code,
        // Nobody else reaps: this is a kernel that lost our child.
        Err(_) => 255,
    }
}

/// Writes the exit where a later daemon finds it: whole, or not at all.
fn record_exit(exit: &Exit, path: &Path, durable: bool) -> Result<(), Error> {
    let write = || -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let new = PathBuf::from(name);
        let mut file = std::fs::File::create(&new)?;
        io::Write::write_all(&mut file, &record::encode(exit)?)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&new, path)?;
        if durable && let Some(dir) = path.parent() {
            std::fs::File::open(dir)?.sync_all()?;
        }
        Ok(())
    };
    write().map_err(|error| failed("record the exit in", path, error))
}

/// Binds the socket in `run_dir`. The directory is addressed by descriptor: a socket's path is short.
fn listen(run_dir: &Path) -> Result<OwnedFd, Error> {
    let bind = || -> rustix::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(run_dir, dir, Mode::empty())?;
        rustix::net::bind(&socket, &socket_address(dir.as_fd())?)?;
        rustix::net::listen(&socket, 4)?;
        Ok(socket)
    };
    bind().map_err(|errno| failed("listen on", run_dir.join(SOCKET), errno))
}

/// The address of the shim whose run directory is `dir`.
pub fn socket_address(dir: BorrowedFd<'_>) -> rustix::io::Result<SocketAddrUnix> {
    address_in(dir, SOCKET)
}

/// The address of a socket in a directory.
pub fn address_in(dir: BorrowedFd<'_>, name: &str) -> rustix::io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))
}

/// Unmounts if something is mounted; lazily if something still holds it.
fn unmount(at: &Path) {
    if rustix::mount::unmount(at, UnmountFlags::empty()) == Err(rustix::io::Errno::BUSY) {
        let _ = rustix::mount::unmount(at, UnmountFlags::DETACH);
    }
}

#[cfg(test)]
mod tests;
