//! Containers another OCI runtime runs: what differs for the shim from its own.
//!
//! Everything that is not here is the same: the loop, streams, exits, freezing, cleaning up.

use std::path::Path;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::stdio::{Ends, Stdio};
use super::{Container, connect, plumb};
use crate::runtime::cgroup::Cgroup;
use crate::runtime::init::{Started, Trees};
use crate::runtime::oci::{Foreign, OciRuntime, bundle};
use crate::runtime::spec::Process;
use crate::runtime::sys::{memory, terminal};
use crate::runtime::{Error, Launch, oci};

/// Starts the container's command.
pub(super) fn start(
    launch: Launch,
    runtime: &OciRuntime,
    root: &Path,
    trees: Trees,
    stdio: &mut Stdio,
) -> Result<Container, Error> {
    let cgroup = Cgroup::open(&launch.spec.linux.cgroups_path)?;
    let mut foreign = Foreign::new(runtime, &launch.id, &launch.run_dir);
    let begin = || -> Result<Started, Error> {
        let staged = bundle::write(&launch, root, trees, &launch.run_dir.join(oci::DIR))?;
        let (streams, ends) = plumb(launch.stdio.terminal, launch.stdio.open_stdin)?;
        let mut started = foreign.create(streams, stderr_of(ends.as_ref()))?;
        drop(staged);
        let console = started.console.take();
        resize(console.as_ref(), &launch.spec.process);
        let run = || {
            // Before the command runs, so that whatever it starts is inside, too.
            cgroup.adopt(started.pid)?;
            foreign.start()?;
            connect(stdio, ends, console)
        };
        match run() {
            Ok(()) => Ok(started),
            Err(error) => {
                foreign.discard(&started);
                Err(error)
            }
        }
    };
    match begin() {
        Ok(started) => {
            memory::trim();
            let container = Container::new(launch, cgroup, started.pid, started.pidfd);
            Ok(Container { foreign: Some(foreign), ..container })
        }
        Err(error) => {
            let _ = cgroup.kill_all();
            let _ = foreign.delete();
            let _ = cgroup.remove();
            Err(error)
        }
    }
}

/// Starts a further process in a container of `foreign`.
pub(super) fn exec(
    container: &Container,
    foreign: &mut Foreign,
    process: &Process,
    wants_input: bool,
    stdio: &mut Stdio,
) -> Result<(i32, OwnedFd), Error> {
    let root = container.launch.run_dir.join(super::ROOTFS);
    let process = bundle::process(process, &root)?;
    let (streams, ends) = plumb(process.terminal, wants_input)?;
    let mut started = foreign.exec(&process, streams, stderr_of(ends.as_ref()))?;
    let console = started.console.take();
    resize(console.as_ref(), &process);
    let run = || {
        container.cgroup.adopt(started.pid)?;
        connect(stdio, ends, console)
    };
    match run() {
        Ok(()) => Ok((started.pid, started.pidfd)),
        Err(error) => {
            foreign.discard(&started);
            Err(error)
        }
    }
}

/// Gives a terminal the size that was asked for: not every runtime does.
fn resize(console: Option<&OwnedFd>, process: &Process) {
    if let (Some(console), Some(size)) = (console, process.console_size) {
        // One without a size still works.
        let _ = terminal::set_size(console, terminal::Size { rows: size.height, columns: size.width });
    }
}

/// Our end of the process's stderr.
fn stderr_of(ends: Option<&Ends>) -> Option<BorrowedFd<'_>> {
    match ends {
        Some(Ends::Pipes { stderr, .. }) => Some(stderr.as_fd()),
        _ => None,
    }
}
