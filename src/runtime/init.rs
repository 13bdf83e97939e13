//! Inside the namespaces: how a process comes to be a container's first, or joins it.
//!
//! ```text
//!   shim                            child
//!   check, compile, open  ─clone3─► enter the cgroup, join and unshare namespaces, setsid
//!   wait for the report             run the plan (mounts … pivot_root)              steps
//!                                   streams to 0, 1, 2; close everything else
//!                         ◄──'C'──  pty master, if there is a terminal              report
//!                         ◄──'E'──  what failed, or end of stream at execve         report
//!                                   user, limits, seccomp, capabilities, execve     program
//! ```
//!
//! The caller is the shim, which has one thread: so the child of clone3 may run ordinary Rust, allocate and
//! return errors (see `sys::process`). Until execve it is not dumpable: a process of the container that sees
//! it (a shared pid namespace, `exec`) must not reach the host through its /proc entries.
//!
//! What makes the container checkpointable is kept here: its session starts inside its pid namespace, no
//! descriptor of the host stays open, stdin is its own /dev/null, masks are its own /dev/null.
//!
//! Not here: user namespaces (refused), networks (a named namespace is joined by path), restoring (`criu`).

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::DumpableBehavior;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags};

pub use self::program::REAPER;
use self::program::{Program, Rights, Supervision};
use self::root::Root;
use self::steps::Assembly;
pub use self::steps::{Trees, borrow};
use super::cgroup::Cgroup;
use super::spec::{Mount, NamespaceKind, Process, Spec};
use super::sys::process::{self, Side};
use super::sys::{fd, signal};
use super::{Cause, Error, Launch, console, plan};

mod command;
mod program;
pub mod reaper;
mod report;
pub(super) mod root;
mod steps;

/// Where the report socket is kept: above whatever a shim has open, so that streams never meet it.
const REPORT_FD: i32 = 100;

/// A process that runs its command.
#[derive(Debug)]
pub struct Started {
    /// As seen by the caller, whose child it is.
    pub pid: i32,
    pub pidfd: OwnedFd,
    /// The pty's master, with a terminal.
    pub console: Option<OwnedFd>,
}

/// What the process gets as fds 0, 1 and 2.
#[derive(Debug)]
pub enum Streams {
    /// `stdin: None` is the container's own /dev/null.
    Pipes { stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd },
    /// A pty from the container's devpts; its master comes back in [`Started::console`].
    Terminal,
}

/// A running container to join.
#[derive(Debug)]
pub struct Target<'a> {
    /// Its first process: a child of the caller, not yet reaped.
    pub pid: i32,
    pub cgroup: &'a Cgroup,
    pub spec: &'a Spec,
}

/// Starts a container's first process on `rootfs`, its mounted root, and returns once it runs its command.
///
/// Blocks for as long as the set-up takes (milliseconds). The caller must have one thread, and reaps the
/// process. Nothing is left behind on failure but the cgroup and the mount, which are the caller's.
///
/// # Errors
/// [`Cause::Command`] when the command cannot be run, in Docker's words; else what failed, by name.
pub fn start(
    launch: &Launch,
    rootfs: &Path,
    trees: Trees,
    cgroup: &Cgroup,
    streams: Streams,
) -> Result<Started, Error> {
    let with_init;
    let (spec, supervision) = if launch.reaper {
        with_init = add_reaper(&launch.spec)?;
        (&with_init, Supervision::Reaper)
    } else {
        (&launch.spec, Supervision::Direct)
    };
    let plan = plan::plan(spec)?;
    let rights = Rights::Listed(spec.process.capabilities.as_ref());
    let policy = spec.linux.seccomp.as_ref();
    let program = Program::prepare(&spec.process, &spec.process, rights, policy, supervision)?;
    let namespaces = Namespaces::open(spec)?;
    let borrowed = steps::borrow(spec)?;
    let born_inside = cgroup.clone_into()?;

    let body = |report: BorrowedFd<'_>| {
        if born_inside.is_some() {
            cgroup.enter_self_v1()?;
        } else {
            cgroup.enter_self()?;
        }
        namespaces.enter()?;
        // EPERM: we lead a session already, as the first process of a pid namespace cannot.
        rustix::process::setsid().map_err(|errno| failed("start", "a session", errno))?;
        program.adjust_oom_score()?;
        rustix::process::umask(Mode::empty());
        let mut assembly = Assembly::new(spec, rootfs, report, &borrowed, trees)?;
        assembly.run(&plan)?;
        let terminal = assembly.terminal.take();
        place(assembly.root(), streams, terminal)
    };
    let birth = Birth {
        flags: namespaces.new,
        pid: namespaces.pid.as_ref().map(Pid::Link),
        cgroup: born_inside.as_ref(),
    };
    spawn(&birth, body, &program)
}

/// Clones the sources of the container's binds whose mounts are to reach the host: see [`steps::open_shared`].
///
/// # Errors
/// As [`plan::plan`]; a source that cannot be opened.
pub fn open_shared(spec: &Spec) -> Result<Trees, Error> {
    steps::open_shared(&plan::plan(spec)?)
}

/// A detached copy of what a bind of the specification shows.
///
/// # Errors
/// As [`plan::plan`]; a source that cannot be opened.
pub fn open_source_of(mount: &Mount) -> Result<OwnedFd, Error> {
    let options = plan::Options::parse(&mount.options)
        .map_err(|cause| refused("mount on", &mount.destination, &cause))?;
    steps::open_source(Path::new(&mount.source), &options)
}

/// Starts a further process in a running container: same namespaces, same cgroup, same policy.
///
/// `privileged` gives it all capabilities and no filter. Otherwise as [`start`].
///
/// # Errors
/// As [`start`]; also when the container has ended meanwhile.
pub fn join(
    target: &Target<'_>,
    process: &Process,
    privileged: bool,
    streams: Streams,
) -> Result<Started, Error> {
    let spec = target.spec;
    let listed = process.capabilities.as_ref().or(spec.process.capabilities.as_ref());
    let (rights, policy) = match privileged {
        true => (Rights::Full, None),
        false => (Rights::Listed(listed), spec.linux.seccomp.as_ref()),
    };
    let program = Program::prepare(process, &spec.process, rights, policy, Supervision::Direct)?;
    let pidfd = process::pidfd_open(target.pid).map_err(|cause| Error {
        op: "join".to_owned(),
        object: "the container".to_owned(),
        cause: Cause::Io(cause),
    })?;

    let born_inside = target.cgroup.clone_into()?;

    let body = |report: BorrowedFd<'_>| {
        program.adjust_oom_score()?;
        if born_inside.is_some() {
            target.cgroup.enter_self_v1()?;
        } else {
            target.cgroup.enter_self()?;
        }
        enter_all(pidfd.as_fd())?;
        // Inside the pid namespace: a daemon the command leaves behind would otherwise belong to a session
        // CRIU cannot see, and the container could never be checkpointed again.
        rustix::process::setsid().map_err(|errno| failed("start", "a session", errno))?;
        let root = Root::open(Path::new("/")).map_err(|cause| failed("open", "/", cause))?;
        let terminal = match streams {
            Streams::Pipes { .. } => None,
            Streams::Terminal => {
                let pty = console::allocate(root.as_fd(), process.console_size)
                    .map_err(|cause| failed("make", "the terminal", cause))?;
                report::send_console(report, pty.master.as_fd())
                    .map_err(|cause| failed("hand over", "the terminal", cause))?;
                Some(pty.slave)
            }
        };
        place(&root, streams, terminal)
    };
    let birth = Birth { flags: 0, pid: Some(Pid::Of(&pidfd)), cgroup: born_inside.as_ref() };
    spawn(&birth, body, &program)
}

/// The spec with Docker's bind of the minimal init, unless the daemon already put one there.
fn add_reaper(spec: &Spec) -> Result<Spec, Error> {
    let mut spec = spec.clone();
    if spec.mounts.iter().all(|mount| mount.destination != program::REAPER) {
        let own = std::env::current_exe().map_err(|cause| failed("find", "our own program", cause))?;
        spec.mounts.push(Mount {
            destination: program::REAPER.to_owned(),
            kind: "bind".to_owned(),
            source: own.display().to_string(),
            options: ["bind", "ro", "nosuid", "nodev", "private"].map(str::to_owned).into(),
        });
    }
    Ok(spec)
}

/// The namespaces a container's first process is made in, or moves to.
struct Namespaces {
    /// `CLONE_NEW*` for clone3.
    new: u64,
    /// A cgroup namespace shows the cgroup it was made in as its root, so it is made after moving there.
    new_cgroup: bool,
    /// Of another container: only children can be born in it.
    pid: Option<OwnedFd>,
    joined: Vec<(LinkNameSpaceType, OwnedFd, String)>,
}

impl Namespaces {
    fn open(spec: &Spec) -> Result<Namespaces, Error> {
        let mut namespaces = Namespaces { new: 0, new_cgroup: false, pid: None, joined: Vec::new() };
        for namespace in &spec.linux.namespaces {
            let (flag, link) = match namespace.kind {
                NamespaceKind::Mount => (libc::CLONE_NEWNS, LinkNameSpaceType::Mount),
                NamespaceKind::Pid => (libc::CLONE_NEWPID, LinkNameSpaceType::ProcessID),
                NamespaceKind::Network => (libc::CLONE_NEWNET, LinkNameSpaceType::Network),
                NamespaceKind::Ipc => (libc::CLONE_NEWIPC, LinkNameSpaceType::InterProcessCommunication),
                NamespaceKind::Uts => (libc::CLONE_NEWUTS, LinkNameSpaceType::HostNameAndNISDomainName),
                NamespaceKind::Cgroup => (0, LinkNameSpaceType::ControlGroup),
                NamespaceKind::User => return Err(refused("make", "a user namespace", "not supported")),
                NamespaceKind::Time => (0, LinkNameSpaceType::Time),
            };
            match (&namespace.path, namespace.kind) {
                (Some(path), kind) => {
                    let file = File::open(path).map_err(|cause| failed("open namespace", path, cause))?;
                    match kind {
                        NamespaceKind::Mount => {
                            return Err(refused(
                                "join",
                                path,
                                "a container mounts in a namespace of its own",
                            ));
                        }
                        NamespaceKind::Pid => namespaces.pid = Some(file.into()),
                        _ => namespaces.joined.push((link, file.into(), path.clone())),
                    }
                }
                (None, NamespaceKind::Cgroup) => namespaces.new_cgroup = true,
                // CRIU gives the restored tree a time namespace; a second one could not be nested.
                (None, NamespaceKind::Time) => {
                    return Err(refused("make", "a time namespace", "not supported"));
                }
                (None, _) => namespaces.new |= u64::from(flag.cast_unsigned()),
            }
        }
        if namespaces.new & u64::from(libc::CLONE_NEWNS.cast_unsigned()) == 0 {
            return Err(refused("start", "the container", "it has no mount namespace of its own"));
        }
        Ok(namespaces)
    }

    fn enter(&self) -> Result<(), Error> {
        for (kind, namespace, path) in &self.joined {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(*kind))
                .map_err(|errno| failed("join namespace", path, errno))?;
        }
        if self.new_cgroup {
            process::unshare(UnshareFlags::NEWCGROUP)
                .map_err(|cause| failed("make", "a cgroup namespace", cause))?;
        }
        Ok(())
    }
}

/// Moves into every namespace of a process but its pid namespace, in which we were born. Time included: a
/// restored container has one.
fn enter_all(pidfd: BorrowedFd<'_>) -> Result<(), Error> {
    let base = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::NETWORK;
    let entered = match rustix::thread::move_into_thread_name_spaces(pidfd, base | ThreadNameSpaceType::TIME)
    {
        // A kernel without time namespaces.
        Err(rustix::io::Errno::INVAL) => rustix::thread::move_into_thread_name_spaces(pidfd, base),
        other => other,
    };
    entered.map_err(|errno| failed("join", "the container's namespaces", errno))
}

/// An existing pid namespace for a child to be born in.
enum Pid<'a> {
    Link(&'a OwnedFd),
    Of(&'a OwnedFd),
}

/// Where a child is born.
struct Birth<'a> {
    /// `CLONE_NEW*`.
    flags: u64,
    pid: Option<Pid<'a>>,
    /// A cgroup2 directory.
    cgroup: Option<&'a OwnedFd>,
}

/// Makes a child that runs `setup`, then `program`, and waits until it has executed its command.
fn spawn<F>(birth: &Birth<'_>, setup: F, program: &Program<'_>) -> Result<Started, Error>
where
    F: FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
{
    let pair = || -> rustix::io::Result<(OwnedFd, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (near, far) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((near, rustix::io::fcntl_dupfd_cloexec(far, REPORT_FD)?))
    };
    let (near, far) = pair().map_err(|errno| failed("make", "the report socket", errno))?;
    let home = match &birth.pid {
        None => None,
        Some(pid) => Some(visit(pid)?),
    };
    let side = process::clone(birth.flags, birth.cgroup.map(AsFd::as_fd));
    if let Ok(Side::Child) = side {
        drop(near);
        child(far.as_fd(), setup, program)
    }
    drop(far);
    if let Some(home) = home {
        // Our own namespace is always allowed; failing would only send the next child to the wrong one.
        rustix::thread::move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .map_err(|errno| failed("return to", "our pid namespace", errno))?;
    }
    let (pid, pidfd) = match side.map_err(|cause| failed("clone", "a process", cause))? {
        Side::Parent { pid, pidfd } => (pid, pidfd),
        Side::Child => unreachable!("the child does not return"),
    };
    match report::collect(near.as_fd()) {
        Ok(console) => Ok(Started { pid, pidfd, console }),
        Err(error) => {
            // It said what failed and is about to exit; a child that said nonsense is not waited for.
            let _ = signal::send(pidfd.as_fd(), libc::SIGKILL);
            let _ = process::wait(pid);
            Err(error)
        }
    }
}

/// Lets our next child be born in another pid namespace; returns the way back. We stay where we are.
fn visit(pid: &Pid<'_>) -> Result<File, Error> {
    let home = File::open("/proc/self/ns/pid").map_err(|cause| failed("open", "/proc/self/ns/pid", cause))?;
    let visited = match pid {
        Pid::Link(namespace) => {
            rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ProcessID))
        }
        Pid::Of(pidfd) => {
            rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID)
        }
    };
    visited.map_err(|errno| failed("join", "the pid namespace", errno))?;
    Ok(home)
}

fn child<F>(report: BorrowedFd<'_>, setup: F, program: &Program<'_>) -> !
where
    F: FnOnce(BorrowedFd<'_>) -> Result<(), Error>,
{
    let begin = || {
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(|errno| failed("protect", "the process", errno))?;
        signal::reset();
        setup(report)
    };
    let run = || {
        // Everything the set-up opened is dropped by now, and what the shim has open is not ours to keep.
        fd::close_from(3, report).map_err(|cause| failed("close", "descriptors", cause))?;
        program.run()
    };
    let outcome = catch_unwind(AssertUnwindSafe(begin))
        .and_then(|ready| catch_unwind(AssertUnwindSafe(|| ready.and_then(|()| run()))));
    let error = match outcome {
        Ok(Ok(never)) => match never {},
        Ok(Err(error)) => error,
        Err(_) => refused("start", "the process", "init panicked"),
    };
    report::send_failure(report, error);
    process::exit(1)
}

/// Makes the streams fds 0, 1 and 2.
fn place(root: &Root, streams: Streams, terminal: Option<OwnedFd>) -> Result<(), Error> {
    let (stdin, stdout, stderr) = match (streams, terminal) {
        (Streams::Pipes { stdin, stdout, stderr }, _) => {
            let stdin = match stdin {
                Some(stdin) => stdin,
                None => root::open_null(root).map_err(|cause| failed("open", "/dev/null", cause))?,
            };
            (stdin, stdout, stderr)
        }
        (Streams::Terminal, Some(slave)) => {
            console::control(slave.as_fd()).map_err(|cause| failed("control", "the terminal", cause))?;
            let copy = || slave.try_clone().map_err(|cause| failed("copy", "the terminal", cause));
            (copy()?, copy()?, slave)
        }
        (Streams::Terminal, None) => {
            return Err(refused("start", "the process", "a terminal was promised and none asked for"));
        }
    };
    let put = || -> rustix::io::Result<()> {
        // Out of the way first: one of them may be fd 0, 1 or 2 already, and not where it belongs.
        let stdin = rustix::io::fcntl_dupfd_cloexec(stdin, 3)?;
        let stdout = rustix::io::fcntl_dupfd_cloexec(stdout, 3)?;
        let stderr = rustix::io::fcntl_dupfd_cloexec(stderr, 3)?;
        rustix::stdio::dup2_stdin(&stdin)?;
        rustix::stdio::dup2_stdout(&stdout)?;
        rustix::stdio::dup2_stderr(&stderr)
    };
    put().map_err(|errno| failed("place", "the streams", errno))
}

fn failed(op: &str, object: &str, cause: impl Into<std::io::Error>) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Io(cause.into()) }
}

fn refused(op: &str, object: &str, cause: &str) -> Error {
    Error { op: op.to_owned(), object: object.to_owned(), cause: Cause::Refused(cause.to_owned()) }
}

#[cfg(test)]
mod tests;
