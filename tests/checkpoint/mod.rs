//! Freezing and thawing. The counter's log tells it all: a number lost, repeated or begun again is a failure.

mod archive;
mod clone;
mod complete;
mod contents;
mod encrypted;
mod failures;
mod hibernate;
mod kills;
mod lazy;
mod lifecycle;
mod migrate;
mod network;
mod packed;
mod passes;
pub mod peers;
mod podman;
mod postcopy;
mod programs;
mod restore;
mod schedule;
mod servers;
mod stream;
mod ways;
mod zoo;

use std::path::Path;

use crate::support::requires;
use crate::support::{Daemon, busybox_tar, eventually};

/// Counts in a shell variable: in memory and nowhere else.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

/// A daemon with a container `web` that counts and has begun to.
fn counting(flags: &[&str]) -> Daemon {
    let daemon = Daemon::start();
    daemon.run_detached("web", flags, COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
    daemon
}

/// How /run can be: a tmpfs, or not, on `disk`. It decides when a thaw's CRIU is started.
fn kinds_of_run(disk: &Path) -> [String; 2] {
    ["mount -t tmpfs none /run".to_owned(), format!("mount --bind {} /run", disk.display())]
}

/// A daemon with an image, whose /run is as `mount` makes it.
#[track_caller]
fn with_run(mount: &str, flags: &str) -> Daemon {
    let criu = requires::criu_path().expect("the test requires criu");
    let script = format!("{mount} && exec \"$0\" \"$@\" --criu {} {flags}", criu.display());
    let daemon = Daemon::inside(&["unshare", "-m", "sh", "-c", &script]);
    daemon.dewar(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    daemon
}

/// What the counter has said. Fails the test unless it is 1, 2, 3 and so on.
#[track_caller]
fn numbers(daemon: &Daemon) -> Vec<u32> {
    let logs = daemon.dewar(&["logs", "web"]).ok().stdout;
    let numbers: Vec<u32> = logs.split_whitespace().filter_map(|line| line.parse().ok()).collect();
    assert!(
        numbers.iter().zip(1..).all(|(have, want)| *have == want),
        "lost, repeated or begun again: {numbers:?}"
    );
    numbers
}

/// Waits until the counter is past `count`.
#[track_caller]
fn counts_past(daemon: &Daemon, count: usize) {
    eventually("it going on", || numbers(daemon).len() > count + 3);
}

/// What a copy of the counter has said: its log begins where the original was frozen, not with 1. Fails the test
/// unless each number follows the one before.
#[track_caller]
fn numbers_of(daemon: &Daemon, name: &str) -> Vec<u32> {
    let logs = daemon.logs(name);
    let numbers: Vec<u32> = logs.split_whitespace().map(|line| line.parse().expect("a number")).collect();
    assert!(
        numbers.windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{name}: lost, repeated or begun again: {numbers:?}"
    );
    numbers
}

/// Waits until a copy has counted on by a few.
#[track_caller]
fn counts_on(daemon: &Daemon, name: &str) {
    let before = numbers_of(daemon, name).len();
    eventually("the copy going on", || numbers_of(daemon, name).len() > before + 3);
}

/// What `sh -c SCRIPT` in a container says.
#[track_caller]
fn exec(daemon: &Daemon, name: &str, script: &str) -> String {
    daemon.dewar(&["exec", name, "sh", "-c", script]).ok().stdout
}
