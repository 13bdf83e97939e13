//! Daemons that die, and what the next one finds: living containers, half-done work, damaged files.

mod adoption;
mod damage;
mod half_done;
mod upgrade;

use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Daemon, within};

/// The directory of a container under the data root.
#[track_caller]
fn container_dir(daemon: &Daemon, name: &str) -> PathBuf {
    let id = daemon.api("GET", &format!("/containers/{name}/json")).is(200).json()["Id"].clone();
    daemon.dir().join("data/containers").join(id.as_str().expect("an id"))
}

/// The process that watches over a container.
#[track_caller]
fn shim_of(daemon: &Daemon, name: &str) -> rustix::process::Pid {
    let pid = daemon.state(name)["Pid"].to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    rustix::process::Pid::from_raw(parent.parse().expect("a number")).expect("not 0")
}

/// Waits until a daemon that was restarted has started what policies want up, removed what was to go, and met
/// every shim: one may still have been writing a dump.
#[track_caller]
fn settled(daemon: &Daemon) {
    within(Duration::from_secs(30), "nothing under way", || {
        let list = daemon.api("GET", "/containers/json?all=1").is(200).json();
        list.as_array().expect("a list").iter().all(|container| match container["State"].as_str() {
            Some("restarting" | "removing") => false,
            Some("running") => {
                let id = container["Id"].as_str().expect("an id");
                daemon.api("POST", &format!("/containers/{id}/resize?h=24&w=80")).status == 200
            }
            _ => true,
        })
    });
}
