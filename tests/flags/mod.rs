//! Every flag of `run`, `create`, `start` and `exec`, given by the stock docker client and by dewar's own, and looked
//! at from inside the container or from the kernel.
//!
//! Many flags share a container where they do not disturb each other: a container and a client cost time.

mod environment;
mod exec;
mod isolation;
mod limits;
mod process;
mod refusals;
mod streams;
mod texts;

use crate::support::daemon::BUSYBOX;
use crate::support::{Cmd, Daemon};

/// Whose command line it is.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    Docker,
    Dewar,
}

pub const BOTH: [Client; 2] = [Client::Docker, Client::Dewar];

impl Client {
    /// `docker|dewar -H … args`
    #[track_caller]
    pub fn on(self, daemon: &Daemon, args: &[&str]) -> Cmd {
        match self {
            Client::Docker => daemon.docker(args),
            Client::Dewar => daemon.dewar(args),
        }
    }

    /// `run --rm --network none flags busybox sh -c script`; flags are separated by white space.
    #[track_caller]
    pub fn run(self, daemon: &Daemon, flags: &str, script: &str) -> Cmd {
        let flags: Vec<&str> = flags.split_whitespace().collect();
        self.on(daemon, &["run", "--rm", "--network", "none"]).args(flags).args([BUSYBOX, "sh", "-c", script])
    }
}

/// Runs a script with flags through both clients; each must print `expected`.
#[track_caller]
pub fn inside(daemon: &Daemon, flags: &str, script: &str, expected: &str) {
    for client in BOTH {
        client.run(daemon, flags, script).ok().stdout_is(expected);
    }
}

/// Both clients' output must contain every one of `parts`.
#[track_caller]
pub fn shows(daemon: &Daemon, flags: &str, script: &str, parts: &[&str]) {
    for client in BOTH {
        let output = client.run(daemon, flags, script).run();
        for part in parts {
            output.says(part);
        }
    }
}

/// Both clients must end with 125 and say `part`, and leave no container.
#[track_caller]
pub fn refused(daemon: &Daemon, flags: &str, part: &str) {
    for client in BOTH {
        client.run(daemon, flags, "true").fails(125).stderr_has(part);
    }
}

/// What `inspect --format` shows of a container, by dewar's client.
#[track_caller]
pub fn inspect(daemon: &Daemon, name: &str, format: &str) -> String {
    daemon.dewar(&["inspect", "--format", format, name]).ok().trimmed().to_owned()
}

/// A file in the daemon's own directory.
#[track_caller]
pub fn file(daemon: &Daemon, name: &str, content: &str) -> String {
    let path = daemon.dir().join(name);
    std::fs::write(&path, content).expect("a directory of ours");
    path.display().to_string()
}
