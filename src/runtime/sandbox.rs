//! The daemon's end: starting shims, finding them again, and one thread that listens to all of them.
//!
//! ```text
//!   caller ── call ──> Link ── packet ──> shim          any thread; blocks until the answer is there
//!   caller <─ answer ─ Link <── monitor <── packet      one thread, epoll over every shim's socket
//!   daemon <─────── SandboxEvent ─┘
//! ```
//!
//! A `Link` costs a descriptor and some hundred bytes; there is no thread per container. The monitor
//! never blocks on a caller: answers go into a channel with room for them.
//!
//! Order: events of one container arrive in the order in which they happened, and an `Exited` may arrive
//! before the [`Runtime::launch`] that began that life has returned.
//!
//! Lock order: `Monitor::links`, then `Link::state`; neither is held across a system call that blocks.
//!
//! Stays whole: one end of the shim's protocol; its other end is `shim.rs`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll};
use rustix::fs::{FlockOperation, MemfdFlags, Mode, OFlags};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::cgroup::Cgroup;
use super::criu::check::Examination;
use super::criu::memory::Memory;
use super::criu::{self, CriuInfo, predump, relay};
use super::oci::{self, Foreign};
use super::program::Program;
use super::shim::protocol::{
    self, Call, Client, CriuPlace, Done, EndedExec, Event, Fault, FaultCause, Heard, Hello, Message, Outcome,
    Request,
};
use super::shim::{self, LAUNCH, LOG, ROOTFS, SOCKET};
use super::sys::perf;
use super::{
    Attachment, Cause, Dump, Error, Exec, Exit, Launch, LogMark, SandboxEvent, Thaw, mount_namespace, record,
};

/// Starting may have to wait for a loaded machine.
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(120);
/// Dumps and thaws write and read as much as the container has memory.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(3600);
/// Anything else; a dump under way holds it up.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a shim that is about to listen is looked for.
const LISTEN_PAUSE: Duration = Duration::from_millis(2);

/// What a [`Runtime`] is made with.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// The dewar binary; `None` for the running one.
    pub exe: Option<PathBuf>,
    /// `None`: searched for when first needed.
    pub criu: Option<PathBuf>,
    /// Keeps what CRIU learnt about the kernel; made when needed.
    pub criu_cache_dir: PathBuf,
}

/// Brings containers to life and keeps in touch with them.
#[derive(Debug)]
pub struct Runtime {
    program: Program,
    /// What shims begin with, once one was started; `None` where the kernel has refused it.
    bare: OnceLock<Option<OwnedFd>>,
    monitor: Arc<Monitor>,
    thread: Option<JoinHandle<()>>,
    criu: Arc<CriuFinder>,
}

/// Where CRIU is, searched for when first needed.
#[derive(Debug)]
struct CriuFinder {
    named: Option<PathBuf>,
    cache_dir: PathBuf,
    found: Mutex<Option<PathBuf>>,
}

impl CriuFinder {
    fn place(&self) -> Result<CriuPlace, Error> {
        let mut found = lock(&self.found);
        let path = match &*found {
            Some(path) => path.clone(),
            None => found.insert(criu::find(self.named.as_deref())?).clone(),
        };
        Ok(CriuPlace { path, cache_dir: self.cache_dir.clone() })
    }

    /// As [`place`](CriuFinder::place), for one that is to work at once.
    fn at_hand(&self) -> Result<CriuPlace, Error> {
        let place = self.place()?;
        // CRIU sets breakpoints, and would wait while the kernel gets ready for the first. It stays so for a second;
        // without this CRIU is slower, not wrong.
        let _ = std::thread::Builder::new().name("breakpoints".to_owned()).spawn(perf::count_nothing);
        Ok(place)
    }
}

/// What became of a container while no daemon listened.
#[derive(Debug)]
pub enum Adopted {
    Running(Arc<Sandbox>),
    /// It ended; its shim is dismissed. Clean up with [`Runtime::clean_up`].
    Exited(Exit),
    /// There is no shim. Its last word is in [`Launch::exit_file`], unless both were killed together or the
    /// machine went down.
    Gone,
    /// There is a shim and it has not answered: it may be writing a dump.
    Silent,
    /// There is a shim of a later dewar, which this one does not understand: the text says which. Its
    /// container is to be left alone.
    Strange(String),
}

/// A container that lives, or has ended and not been dismissed.
#[derive(Debug)]
pub struct Sandbox {
    pid: i32,
    run_dir: PathBuf,
    paused_when_adopted: bool,
    oom_killed_when_adopted: bool,
    ended_when_adopted: Vec<EndedExec>,
    /// The shim's, of its protocol.
    revision: u32,
    criu: Arc<CriuFinder>,
    link: Arc<Link>,
    monitor: Arc<Monitor>,
    /// Present if this process started the shim, and so must reap it.
    child: Mutex<Option<Child>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is changed by single assignments: a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(op: &str, object: impl AsRef<Path>, cause: impl Into<Cause>) -> Error {
    Error { op: op.to_owned(), object: object.as_ref().display().to_string(), cause: cause.into() }
}

fn refused(op: &str, object: &str, reason: &str) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Refused(reason.to_owned()) }
}

impl Runtime {
    /// Starts the monitor. Events go to `events` until the runtime is dropped.
    ///
    /// # Errors
    /// No descriptors or threads are to be had, or we are not root.
    pub fn new(config: RuntimeConfig, events: mpsc::Sender<SandboxEvent>) -> Result<Runtime, Error> {
        let failed = |errno: rustix::io::Errno| failed("start", "the shims' monitor", errno);
        let monitor = Monitor {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed)?,
            stop: rustix::event::eventfd(0, EventfdFlags::CLOEXEC).map_err(failed)?,
            links: Mutex::new(HashMap::new()),
            next: AtomicU64::new(1),
        };
        let data = epoll::EventData::new_u64(0);
        epoll::add(&monitor.epoll, &monitor.stop, data, epoll::EventFlags::IN).map_err(failed)?;
        let monitor = Arc::new(monitor);
        let listening = Arc::clone(&monitor);
        let thread = std::thread::Builder::new()
            .name("shims".into())
            .stack_size(256 * 1024)
            .spawn(move || listening.run(&events))
            .map_err(|error| self::failed("start", "the shims' monitor", error))?;
        let program = Program::open(config.exe.as_deref().unwrap_or(Path::new("/proc/self/exe")))?;
        let criu = CriuFinder {
            named: config.criu.clone(),
            cache_dir: config.criu_cache_dir.clone(),
            found: Mutex::new(None),
        };
        Ok(Runtime { program, bare: OnceLock::new(), monitor, thread: Some(thread), criu: Arc::new(criu) })
    }

    /// Runs a container's command. Blocks until execve has succeeded.
    ///
    /// Clients attached here miss nothing of its output.
    ///
    /// # Errors
    /// [`Cause::Command`] when the command cannot be run. In any case nothing is left behind: no process,
    /// mount, cgroup or directory.
    pub fn launch(&self, launch: Launch, attachments: Vec<Attachment>) -> Result<Arc<Sandbox>, Error> {
        self.begin(launch, attachments, None)
    }

    /// Brings a frozen container back instead of running its command. `launch.overlay.upper` holds the
    /// checkpoint's `rootfs.tar` already. Blocks until it runs. CRIU's log of a failure is kept at `log`.
    ///
    /// # Errors
    /// As [`Runtime::launch`]; and when there is no usable CRIU.
    pub fn thaw(
        &self,
        launch: Launch,
        thaw: Thaw,
        attachments: Vec<Attachment>,
        log: &Path,
    ) -> Result<Arc<Sandbox>, Error> {
        let place = self.criu.at_hand()?;
        self.begin(launch, attachments, Some((thaw, place, log, None)))
    }

    /// As [`thaw`](Runtime::thaw), but waits at the gate before anything runs.
    ///
    /// # Errors
    /// As [`thaw`](Runtime::thaw); and when the gate's keeper said no, or is gone.
    pub fn thaw_at_gate(
        &self,
        launch: Launch,
        thaw: Thaw,
        attachments: Vec<Attachment>,
        log: &Path,
        gate: OwnedFd,
    ) -> Result<Arc<Sandbox>, Error> {
        let place = self.criu.at_hand()?;
        self.begin(launch, attachments, Some((thaw, place, log, Some(gate))))
    }

    /// Looks for the shim of a container that was started by an earlier daemon; `run_dir` as in
    /// [`Launch::run_dir`]. Waits for its first word, at most `patience`.
    ///
    /// # Errors
    /// The shim is there and cannot be spoken to.
    pub fn adopt(&self, run_dir: &Path, patience: Duration) -> Result<Adopted, Error> {
        let deadline = Instant::now() + patience;
        let socket = loop {
            match connect(run_dir)? {
                Contact::Made(socket) => break socket,
                Contact::Busy => return Ok(Adopted::Silent),
                Contact::None if !has_shim(run_dir) => return Ok(Adopted::Gone),
                // Just started, or just ending.
                Contact::None if Instant::now() >= deadline => return Ok(Adopted::Silent),
                Contact::None => std::thread::sleep(LISTEN_PAUSE),
            }
        };
        let (link, hello) = self.link(socket, None)?;
        let hello = match hello.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(hello) => hello,
            // It ended between our connecting and its greeting.
            Err(RecvTimeoutError::Disconnected) => return Ok(Adopted::Gone),
            Err(RecvTimeoutError::Timeout) => {
                self.monitor.forget(&link);
                return Ok(Adopted::Silent);
            }
        };
        if hello.version > protocol::VERSION {
            self.monitor.forget(&link);
            return Ok(Adopted::Strange(format!(
                "its shim speaks version {}, this dewar {}",
                hello.version,
                protocol::VERSION
            )));
        }
        if let Some(exit) = hello.exit {
            let _ = link.call(Call::Dismiss {}, &[], CALL_TIMEOUT);
            self.monitor.forget(&link);
            return Ok(Adopted::Exited(exit));
        }
        let (Some(id), Some(pid)) = (hello.id, hello.pid) else {
            self.monitor.forget(&link);
            return Ok(Adopted::Gone);
        };
        if hello.revision < 1 {
            ::log::info!(
                "container {id}: its shim is an older dewar's (revision {} of {}): how an exec ended while no daemon \
                 ran is not known",
                hello.revision,
                protocol::REVISION
            );
        }
        *lock(&link.id) = Some(id);
        let sandbox = Sandbox {
            pid,
            run_dir: run_dir.to_owned(),
            paused_when_adopted: hello.paused,
            oom_killed_when_adopted: hello.oom_killed,
            ended_when_adopted: hello.ended,
            criu: Arc::clone(&self.criu),
            revision: hello.revision,
            link: Arc::clone(&link),
            monitor: Arc::clone(&self.monitor),
            child: Mutex::new(None),
        };
        // What ended meanwhile was held back until the container had a name.
        Ok(Adopted::Running(Arc::new(sandbox)))
    }

    /// Removes what a container has left whose shim is gone: processes in its cgroup, the cgroup, its run
    /// directory. The root filesystem went with the shim's mount namespace. Nothing there is fine.
    ///
    /// # Errors
    /// The first thing that would not go; the rest is removed all the same.
    pub fn clean_up(&self, cgroup: &str, run_dir: &Path) -> Result<(), Error> {
        let cgroup = end_orphans(cgroup, run_dir);
        let run_dir = remove_run_dir(run_dir);
        cgroup.and(run_dir)
    }

    /// Finds CRIU and asks what it can do here; costs about 0.1 s.
    ///
    /// # Errors
    /// There is none, or it does not work here; the message says what to do.
    pub fn probe_criu(&self) -> Result<CriuInfo, Error> {
        criu::probe(&self.program.path(), &self.criu.place()?)
    }

    fn link(&self, socket: OwnedFd, id: Option<String>) -> Result<(Arc<Link>, Receiver<Hello>), Error> {
        let (hello, greeted) = mpsc::sync_channel(1);
        let link = Arc::new(Link {
            token: self.monitor.next.fetch_add(1, Ordering::Relaxed),
            id: Mutex::new(id),
            socket,
            state: Mutex::new(LinkState {
                hello: Some(hello),
                answers: HashMap::new(),
                next: 1,
                launching: None,
                closed: false,
                lives: false,
            }),
        });
        self.monitor.watch(&link)?;
        Ok((link, greeted))
    }

    /// The mount namespace a shim begins with; without one it copies all of the host's mounts.
    fn bare(&self) -> Stdio {
        let made = self.bare.get_or_init(|| {
            let made = mount_namespace::bare();
            made.inspect_err(|error| ::log::warn!("make a mount namespace for shims to begin with: {error}"))
                .ok()
        });
        made.as_ref().and_then(|made| made.try_clone().ok()).map_or_else(Stdio::null, Stdio::from)
    }

    fn begin(
        &self,
        launch: Launch,
        attachments: Vec<Attachment>,
        thaw: Option<(Thaw, CriuPlace, &Path, Option<OwnedFd>)>,
    ) -> Result<Arc<Sandbox>, Error> {
        let run_dir = launch.run_dir.clone();
        let rootfs = run_dir.join(ROOTFS);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&run_dir)
            .and_then(|()| std::fs::DirBuilder::new().mode(0o700).create(&rootfs))
            .map_err(|error| {
                // One that exists is another life's, and not ours to remove.
                if error.kind() != io::ErrorKind::AlreadyExists {
                    let _ = std::fs::remove_dir(&run_dir);
                }
                failed("make", &run_dir, error)
            })?;
        let (thaw, log) = thaw.map(|(thaw, place, log, gate)| ((thaw, place, gate), log)).unzip();
        let begun = self.start_shim(launch, attachments, thaw);
        if begun.is_err() {
            if let Some(log) = log {
                criu::keep_log(&run_dir.join(criu::RESTORE_LOG), log);
            }
            let _ = remove_run_dir(&run_dir);
        }
        begun
    }

    fn start_shim(
        &self,
        launch: Launch,
        attachments: Vec<Attachment>,
        thaw: Option<(Thaw, CriuPlace, Option<OwnedFd>)>,
    ) -> Result<Arc<Sandbox>, Error> {
        let run_dir = launch.run_dir.clone();
        let path = run_dir.join(LAUNCH);
        let text = record::encode(&launch)
            .map_err(|error| failed("write", &path, Cause::Refused(error.to_string())))?;
        std::fs::write(&path, text).map_err(|error| failed("write", &path, error))?;
        let (clients, streams): (Vec<Client>, Vec<OwnedFd>) =
            attachments.into_iter().map(Client::split).unzip();

        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| failed("start", "shim", errno))?;
        // Its lock lives as long as the shim, which inherits it.
        let log = std::fs::File::create(run_dir.join(LOG))
            .and_then(|file| {
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
                Ok(file)
            })
            .map_err(|error| failed("make", run_dir.join(LOG), error))?;
        let child = Command::new(self.program.path())
            .arg0(shim::NAME)
            .arg(launch.id.get(..12).unwrap_or(&launch.id))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()))
            .stdin(Stdio::from(theirs))
            .stdout(self.bare())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|error| failed("start", "shim", error))?;
        let mut child = Reaped(Some(child));
        let (link, _) = self.link(ours, Some(launch.id.clone()))?;
        // While it comes up: directories in every hierarchy of cgroup v1 take as long as that.
        let cgroup = Cgroup::create(&launch.spec.linux.cgroups_path, &launch.spec.linux.resources)
            .inspect_err(|_| self.monitor.forget(&link))?;

        let (mut gate, mut asks) = (None, None);
        let (call, timeout) = match thaw {
            None => (Call::Launch { run_dir: run_dir.clone(), clients }, LAUNCH_TIMEOUT),
            Some((thaw, criu, passed)) => {
                let Thaw { dir, tcp_close, hostname, lazy, asks: socket } = thaw;
                let (run_dir, is_gated) = (run_dir.clone(), passed.is_some());
                (gate, asks) = (passed, socket);
                let asks = asks.is_some();
                let call =
                    Call::Thaw { run_dir, dir, criu, clients, tcp_close, hostname, lazy, is_gated, asks };
                (call, CHECKPOINT_TIMEOUT)
            }
        };
        let fds: Vec<_> = streams.iter().chain(asks.as_deref()).chain(&gate).map(AsFd::as_fd).collect();
        let answer = link.call(call, &fds, timeout);
        let pid = match answer {
            Ok(Done { pid: Some(pid), .. }) => pid,
            Ok(_) => {
                self.monitor.forget(&link);
                let _ = cgroup.remove();
                return Err(refused("start", "shim", "it did not tell the container's process"));
            }
            Err(error) => {
                self.monitor.forget(&link);
                return Err(match error.cause {
                    // A shim that died has said why in its log, if anywhere.
                    Cause::Refused(ref reason) if reason == SHIM_GONE => {
                        // One that was killed had no time to end what it had begun.
                        let _ = end_orphans(&launch.spec.linux.cgroups_path, &run_dir);
                        let said = std::fs::read_to_string(run_dir.join(LOG)).unwrap_or_default();
                        let said = said.trim().to_owned();
                        if said.is_empty() { error } else { failed("start", "shim", Cause::Refused(said)) }
                    }
                    _ => {
                        // If it had begun something it has ended that.
                        let _ = cgroup.remove();
                        error
                    }
                });
            }
        };
        Ok(Arc::new(Sandbox {
            pid,
            run_dir,
            paused_when_adopted: false,
            oom_killed_when_adopted: false,
            ended_when_adopted: Vec::new(),
            criu: Arc::clone(&self.criu),
            revision: protocol::REVISION,
            link,
            monitor: Arc::clone(&self.monitor),
            child: Mutex::new(child.0.take()),
        }))
    }
}

/// A shim that failed to start its container, on its way out.
struct Reaped(Option<Child>);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Its socket is closed, so it ends by itself; one that hangs must not hold the caller.
            for _ in 0..1000 {
                if !matches!(child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.monitor.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Ends what a container whose shim is gone still has: processes, the cgroup, another runtime's notes.
fn end_orphans(cgroup: &str, run_dir: &Path) -> Result<(), Error> {
    let cgroup = Cgroup::open(cgroup)?;
    cgroup.kill_all()?;
    if run_dir.join(oci::DIR).exists()
        && let Some(Launch { id, oci: Some(runtime), .. }) = read_launch(run_dir)
        && let Err(error) = Foreign::new(&runtime, &id, run_dir).delete()
    {
        // Its files go with the run directory all the same.
        log::warn!("{error}");
    }
    cgroup.remove()
}

/// The launch a run directory keeps, if it was written whole.
fn read_launch(run_dir: &Path) -> Option<Launch> {
    record::decode(&std::fs::read(run_dir.join(LAUNCH)).ok()?).ok()
}

/// Removes a run directory: exactly what dewar puts there, and nothing through a mount.
fn remove_run_dir(run_dir: &Path) -> Result<(), Error> {
    let gone = |result: io::Result<()>| match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let remove = || -> io::Result<()> {
        // Never recursive here: should the root be mounted, this fails instead of emptying it.
        gone(std::fs::remove_dir(run_dir.join(ROOTFS)))?;
        if let Ok(stages) = std::fs::read_dir(run_dir.join("stage")) {
            for stage in stages {
                std::fs::remove_dir(stage?.path())?;
            }
        }
        gone(std::fs::remove_dir(run_dir.join("stage")))?;
        oci::remove_dir(&run_dir.join(oci::DIR))?;
        let files = match std::fs::read_dir(run_dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            files => files?,
        };
        for file in files {
            gone(std::fs::remove_file(file?.path()))?;
        }
        gone(std::fs::remove_dir(run_dir))
    };
    remove().map_err(|error| failed("remove", run_dir, error))
}

/// What came of knocking at a shim's socket.
enum Contact {
    Made(OwnedFd),
    /// Nobody listens.
    None,
    /// Somebody does, and has not come to it for long.
    Busy,
}

/// Connects to the shim of `run_dir`.
fn connect(run_dir: &Path) -> Result<Contact, Error> {
    use rustix::io::Errno;
    let connect = || -> rustix::io::Result<OwnedFd> {
        let dir = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(run_dir, dir, Mode::empty())?;
        // Non-blocking only here: a full queue must not hold a starting daemon.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &shim::socket_address(dir.as_fd())?)?;
        rustix::io::ioctl_fionbio(&socket, false)?;
        Ok(socket)
    };
    match connect() {
        Ok(socket) => Ok(Contact::Made(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR) => Ok(Contact::None),
        Err(Errno::AGAIN) => Ok(Contact::Busy),
        Err(errno) => Err(failed("connect to", run_dir.join(SOCKET), errno)),
    }
}

/// Whether a shim of `run_dir` lives, listening or not. One of revision 0 is not seen: it has no lock.
fn has_shim(run_dir: &Path) -> bool {
    let Ok(file) = std::fs::File::open(run_dir.join(LOG)) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
}

impl Sandbox {
    /// Its first process, in the host's numbers.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it was paused when it was adopted.
    pub fn was_paused(&self) -> bool {
        self.paused_when_adopted
    }

    /// Whether the OOM killer had struck before it was adopted.
    pub fn was_oom_killed(&self) -> bool {
        self.oom_killed_when_adopted
    }

    /// The execs of this container that had ended before it was adopted, with their exit codes: the last
    /// few, oldest first.
    pub fn had_ended(&self) -> impl Iterator<Item = (&str, i32)> {
        self.ended_when_adopted.iter().map(|ended| (ended.exec.as_str(), ended.code))
    }

    /// Whether an exec runs.
    pub fn runs(&self, exec_id: &str) -> bool {
        self.signal(0, Some(exec_id)).is_ok()
    }

    /// Adds a client to the container's streams.
    /// Gives the place in the log where its output begins.
    pub fn attach(&self, attachment: Attachment) -> Result<Option<LogMark>, Error> {
        let (client, stream) = Client::split(attachment);
        let call = Call::Attach { exec: None, client };
        self.link.call(call, &[stream.as_fd()], CALL_TIMEOUT).map(|done| done.log)
    }

    /// Starts a further process; blocks until its execve has succeeded. Returns its pid.
    ///
    /// # Errors
    /// [`Cause::Command`] when the command cannot be run; refused while paused.
    pub fn exec(&self, exec: Exec) -> Result<i32, Error> {
        let Exec { id, process, privileged, attachment } = exec;
        let text = serde_json::to_vec(&process)
            .map_err(|error| failed("start", "exec", Cause::Refused(error.to_string())))?;
        let memfd = rustix::fs::memfd_create("process", MemfdFlags::CLOEXEC)
            .map_err(|errno| failed("start", "exec", errno))?;
        let mut file = std::fs::File::from(memfd);
        io::Write::write_all(&mut file, &text).map_err(|error| failed("start", "exec", error))?;
        let (client, stream) = attachment.map(Client::split).unzip();
        let fds: Vec<_> = std::iter::once(file.as_fd()).chain(stream.as_ref().map(AsFd::as_fd)).collect();
        let call = Call::Exec { exec: id, privileged, client };
        let pid = self.link.call(call, &fds, LAUNCH_TIMEOUT)?.pid;
        pid.ok_or_else(|| refused("start", "exec", "the shim did not tell its process"))
    }

    /// Sets the size of the container's terminal, or of an exec's, in characters.
    pub fn resize(&self, exec_id: Option<&str>, height: u16, width: u16) -> Result<(), Error> {
        let call = Call::Resize { exec: exec_id.map(str::to_owned), height, width };
        self.link.call(call, &[], CALL_TIMEOUT).map(|_| ())
    }

    /// Sends a signal to the first process, or to an exec's.
    pub fn signal(&self, signal: i32, exec_id: Option<&str>) -> Result<(), Error> {
        let call = Call::Signal { exec: exec_id.map(str::to_owned), signal };
        self.link.call(call, &[], CALL_TIMEOUT).map(|_| ())
    }

    /// Freezes every process.
    pub fn pause(&self) -> Result<(), Error> {
        self.link.call(Call::Pause {}, &[], CALL_TIMEOUT).map(|_| ())
    }

    /// Lets them go on.
    pub fn resume(&self) -> Result<(), Error> {
        self.link.call(Call::Resume {}, &[], CALL_TIMEOUT).map(|_| ())
    }

    /// Saves the container to disk. Without `leave_running` it has then ended, and an
    /// [`SandboxEvent::Exited`] with [`Exit::checkpointed`] follows. Blocks for as long as its memory takes.
    ///
    /// Processes started by [`Sandbox::exec`] are not saved: without `leave_running` they end with it.
    ///
    /// # Errors
    /// The container runs on; what is in `dump.dir` is worthless, and the caller's to remove.
    pub fn dump(&self, dump: Dump) -> Result<(), Error> {
        if self.revision < 2 && (dump.tcp_close || !dump.volumes.is_empty()) {
            let reason = "its shim is an older dewar's, which knows neither volumes nor --tcp-close: leave them out, or \
                          start the container anew";
            return Err(refused("freeze", "container", reason));
        }
        let criu = self.criu.at_hand()?;
        let call = Call::Dump { dump, criu, verdict: None };
        self.link.call(call, &[], CHECKPOINT_TIMEOUT).map(|_| ())
    }

    /// Writes the container's memory below `dir` while it runs on, what has changed of it since the pass before; the bytes
    /// of it, see [`predump`]. Blocks for as long as that takes.
    ///
    /// # Errors
    /// The container runs on; no pass is of use any more.
    pub fn pre_dump(&self, dir: &Path, number: u32) -> Result<u64, Error> {
        predump::pre_dump(&self.criu.place()?, self.pid, dir, number)
    }

    /// How much memory its processes have that a pre-dump would write, as far as that is known.
    pub fn resident_bytes(&self) -> u64 {
        let Some(launch) = read_launch(&self.run_dir) else { return 0 };
        let pids = Cgroup::open(&launch.spec.linux.cgroups_path).and_then(|cgroup| cgroup.pids());
        predump::resident_bytes(&pids.unwrap_or_default())
    }

    /// What stands in the way of a [`Sandbox::dump`]; nothing is stopped meanwhile. Blocks for as long as reading
    /// /proc takes.
    ///
    /// # Errors
    /// It has ended.
    pub fn examine(&self) -> Result<Examination, Error> {
        let launch = read_launch(&self.run_dir)
            .ok_or_else(|| refused("look at", "container", "what it was launched with cannot be read"))?;
        shim::checkpoint::examine(&launch, self.pid)
    }

    /// Freezes the container as [`dump`](Sandbox::dump) does, and waits at the gate: it ends, or runs on, as its keeper
    /// says, or as the verdict at `verdict` does when there is no keeper any more. Blocks until then.
    ///
    /// # Errors
    /// As [`dump`](Sandbox::dump); and when the keeper said no. The container runs on.
    pub fn hand_over(&self, dump: Dump, gate: OwnedFd, verdict: PathBuf) -> Result<(), Error> {
        if self.revision < if dump.streamed { 5 } else { 4 } {
            let reason = "its shim is an older dewar's, which cannot: start the container anew";
            return Err(refused("hand over", "container", reason));
        }
        if dump.lazy && self.revision < 5 {
            let reason = "its shim is an older dewar's, which cannot send its memory later: leave --lazy out";
            return Err(refused("hand over", "container", reason));
        }
        let criu = self.criu.at_hand()?;
        let call = Call::Dump { dump, criu, verdict: Some(verdict) };
        self.link.call(call, &[gate.as_fd()], CHECKPOINT_TIMEOUT).map(|_| ())
    }

    /// What a lazy [`Dump`] to `images` has left in the container's processes, which stand frozen at the gate.
    ///
    /// # Errors
    /// The images are damaged; the container has ended.
    pub fn memory(&self, images: &Path) -> Result<Memory, Error> {
        let launch = read_launch(&self.run_dir)
            .ok_or_else(|| refused("look at", "container", "what it was launched with cannot be read"))?;
        Memory::of_tree(images, &Cgroup::open(&launch.spec.linux.cgroups_path)?.pids()?)
    }

    /// Looks whether memory of it is still to come, for a daemon that did not begin that.
    ///
    /// # Errors
    /// Who asks for it cannot be spoken to.
    pub fn asking(&self) -> Result<relay::Found, Error> {
        relay::find(&self.run_dir)
    }

    /// Lets go of a container that has ended: its shim exits, its run directory goes.
    ///
    /// # Errors
    /// It still runs.
    pub fn dismiss(&self) -> Result<(), Error> {
        match self.link.call(Call::Dismiss {}, &[], CALL_TIMEOUT) {
            // The shim of a lost container has nothing left to say.
            Err(Error { cause: Cause::Refused(reason), .. }) if reason == SHIM_GONE => {
                // One that was killed had no time to end its container.
                if let Some(launch) = read_launch(&self.run_dir) {
                    end_orphans(&launch.spec.linux.cgroups_path, &self.run_dir)?;
                }
            }
            other => other.map(|_| ())?,
        }
        self.monitor.forget(&self.link);
        if let Some(mut child) = lock(&self.child).take() {
            let _ = child.wait();
        }
        remove_run_dir(&self.run_dir)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The shim lives on; only its zombie would be ours.
        if let Some(child) = lock(&self.child).as_mut() {
            let _ = child.try_wait();
        }
    }
}

/// The reason in a refusal by a shim that has ended.
pub const SHIM_GONE: &str = "the shim is gone";

/// One shim's connection.
#[derive(Debug)]
struct Link {
    /// Names it in the epoll set.
    token: u64,
    /// The container's id; unknown until an adopted shim has said it.
    id: Mutex<Option<String>>,
    socket: OwnedFd,
    state: Mutex<LinkState>,
}

#[derive(Debug)]
struct LinkState {
    hello: Option<SyncSender<Hello>>,
    answers: HashMap<u64, SyncSender<Outcome>>,
    next: u64,
    /// The call that brings a container to life.
    launching: Option<u64>,
    closed: bool,
    /// A container lives behind it, so that losing it is news.
    lives: bool,
}

impl Link {
    /// Sends a call and waits for its answer.
    fn call(
        &self,
        call: Call,
        fds: &[std::os::fd::BorrowedFd<'_>],
        timeout: Duration,
    ) -> Result<Done, Error> {
        let failed = |cause: Cause| Error { op: "talk to".into(), object: "shim".into(), cause };
        let (sender, answer) = mpsc::sync_channel(1);
        let id = {
            let mut state = lock(&self.state);
            if state.closed {
                return Err(failed(Cause::Refused(SHIM_GONE.into())));
            }
            let id = state.next;
            state.next += 1;
            state.answers.insert(id, sender);
            if matches!(call, Call::Launch { .. } | Call::Thaw { .. }) {
                state.launching = Some(id);
            }
            id
        };
        if let Err(error) = protocol::send(&self.socket, &Request { id, call }, fds, SendFlags::empty()) {
            lock(&self.state).answers.remove(&id);
            let cause = match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    Cause::Refused(SHIM_GONE.into())
                }
                _ => Cause::Io(error),
            };
            return Err(failed(cause));
        }
        match answer.recv_timeout(timeout) {
            Ok(Outcome::Done(done)) => Ok(done),
            Ok(Outcome::Failed(fault)) => Err(fault.into()),
            Err(RecvTimeoutError::Disconnected) => Err(failed(Cause::Refused(SHIM_GONE.into()))),
            Err(RecvTimeoutError::Timeout) => {
                lock(&self.state).answers.remove(&id);
                Err(failed(Cause::Io(io::ErrorKind::TimedOut.into())))
            }
        }
    }
}

/// The thread over all connections.
#[derive(Debug)]
struct Monitor {
    epoll: OwnedFd,
    stop: OwnedFd,
    links: Mutex<HashMap<u64, Arc<Link>>>,
    next: AtomicU64,
}

impl Monitor {
    fn watch(&self, link: &Arc<Link>) -> Result<(), Error> {
        lock(&self.links).insert(link.token, Arc::clone(link));
        let data = epoll::EventData::new_u64(link.token);
        epoll::add(&self.epoll, &link.socket, data, epoll::EventFlags::IN).map_err(|errno| {
            lock(&self.links).remove(&link.token);
            failed("listen to", "shim", errno)
        })
    }

    /// Stops listening; the shim sees the connection end when the last owner drops it.
    fn forget(&self, link: &Link) {
        if lock(&self.links).remove(&link.token).is_some() {
            let _ = epoll::delete(&self.epoll, &link.socket);
        }
        let mut state = lock(&link.state);
        state.closed = true;
        state.answers.clear();
        let _ = rustix::net::shutdown(&link.socket, rustix::net::Shutdown::Both);
    }

    fn run(&self, events: &mpsc::Sender<SandboxEvent>) {
        let mut ready = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; 64];
        loop {
            let ready = match epoll::wait(&self.epoll, &mut ready, None) {
                Ok((ready, _)) => ready,
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => {
                    ::log::error!("wait for shims: {errno}");
                    return;
                }
            };
            for event in ready.iter() {
                let token = event.data.u64();
                if token == 0 {
                    return;
                }
                let link = lock(&self.links).get(&token).cloned();
                if let Some(link) = link {
                    self.listen(&link, events);
                }
            }
        }
    }

    /// Takes every packet that is there.
    fn listen(&self, link: &Link, events: &mpsc::Sender<SandboxEvent>) {
        loop {
            match protocol::receive::<Heard>(&link.socket, RecvFlags::DONTWAIT) {
                Ok(Some((Heard::Message(message), _))) => self.take(link, message, events),
                Ok(Some((Heard::Answer(id, reason), _))) => {
                    let fault = Fault {
                        op: "understand".into(),
                        object: "the shim".into(),
                        cause: FaultCause::Refused(reason),
                    };
                    self.take(link, Message::Answer { id, outcome: Outcome::Failed(fault) }, events);
                }
                Ok(Some((Heard::Strange(reason), _))) => {
                    ::log::warn!("a shim's message is passed over: {reason}");
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                end => {
                    if let Err(error) = &end
                        && error.kind() == io::ErrorKind::InvalidData
                    {
                        ::log::error!("a shim's message: {error}");
                    }
                    let known = lock(&self.links).contains_key(&link.token);
                    self.forget(link);
                    let lived = {
                        let mut state = lock(&link.state);
                        state.hello = None;
                        state.lives
                    };
                    let id = lock(&link.id).clone();
                    if let Some(id) = id
                        && known
                        && lived
                    {
                        let _ = events.send(SandboxEvent::Lost { id });
                    }
                    return;
                }
            }
        }
    }

    fn take(&self, link: &Link, message: Message, events: &mpsc::Sender<SandboxEvent>) {
        let event = match message {
            Message::Hello(hello) => {
                if let Some(id) = &hello.id {
                    lock(&link.id).get_or_insert_with(|| id.clone());
                }
                let mut state = lock(&link.state);
                state.lives = hello.pid.is_some() && hello.exit.is_none();
                if let Some(waiting) = state.hello.take() {
                    let _ = waiting.try_send(hello);
                }
                return;
            }
            Message::Answer { id, outcome } => {
                let mut state = lock(&link.state);
                state.lives |= state.launching == Some(id) && matches!(outcome, Outcome::Done(_));
                if let Some(waiting) = state.answers.remove(&id) {
                    let _ = waiting.try_send(outcome);
                }
                return;
            }
            Message::Event(event) => event,
        };
        let Some(id) = lock(&link.id).clone() else { return };
        let event = match event {
            Event::Exited(exit) => {
                lock(&link.state).lives = false;
                SandboxEvent::Exited { id, exit }
            }
            Event::ExecExited { exec, code } => SandboxEvent::ExecExited { id, exec_id: exec, code },
            Event::Oom {} => SandboxEvent::Oom { id },
            Event::Detached { exec } => SandboxEvent::Detached { id, exec_id: exec },
        };
        let _ = events.send(event);
    }
}
