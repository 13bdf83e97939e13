//! Freezing and thawing. The counter's log tells it all: a number lost, repeated or begun again is a failure.

mod contents;
mod failures;
mod lifecycle;
mod network;
pub mod peers;

use crate::support::{Daemon, eventually};

/// Counts in a shell variable: in memory and nowhere else.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

/// A daemon with a container `web` that counts and has begun to.
fn counting(flags: &[&str]) -> Daemon {
    let daemon = Daemon::start();
    daemon.run_detached("web", flags, COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
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
