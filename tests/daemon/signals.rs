//! INT, TERM, USR1, QUIT, PIPE, and what is left when the daemon has ended.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

fn send(daemon: &Daemon, signal: Signal) {
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a pid");
    kill_process(pid, signal).expect("the daemon runs");
}

#[test]
fn containers_stop_within_their_grace_and_the_daemons() {
    requires!(root);
    let mut daemon = Daemon::with(&["--shutdown-timeout", "1"], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run_detached("polite", &[], "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done");
    daemon.run_detached(
        "deaf",
        &["--stop-timeout", "60"],
        "trap '' TERM; echo up; while :; do sleep 0.05; done",
    );
    eventually("both being up", || {
        daemon.logs("polite").contains("up") && daemon.logs("deaf").contains("up")
    });
    let pidfile = daemon.dir().join("none");
    assert!(!pidfile.exists());
    let start = Instant::now();
    assert_eq!(daemon.stop(), 0);
    assert!(start.elapsed() < Duration::from_secs(20), "its own 60 s do not count: {:?}", start.elapsed());
    assert!(!daemon.socket().exists(), "the socket is gone");
    daemon.restart();
    assert_eq!(daemon.state("polite")["ExitCode"], 3);
    assert_eq!(daemon.state("deaf")["ExitCode"], 137);
    assert!(daemon.logs("polite").contains("bye"));
}

#[test]
fn the_third_signal_ends_it_at_once_and_leaves_containers_alone() {
    requires!(root);
    let mut daemon = Daemon::with(&["--shutdown-timeout", "-1"], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run_detached(
        "deaf",
        &["--stop-timeout", "-1"],
        "trap '' TERM; echo up; while :; do sleep 0.05; done",
    );
    eventually("it being up", || daemon.logs("deaf").contains("up"));
    let container = daemon.state("deaf")["Pid"].clone();
    for expected in ["stopping: SIGTERM", "already stopping", ""] {
        send(&daemon, Signal::TERM);
        if !expected.is_empty() {
            eventually(expected, || daemon.log().contains(expected));
        }
    }
    assert_eq!(daemon.wait(), 128 + 15);
    assert!(!daemon.socket().exists(), "even a forced end takes the socket away");
    assert!(daemon.log().contains("left to their shims"));
    daemon.restart();
    assert_eq!(daemon.state("deaf")["Pid"], container, "it was never touched");
}

#[test]
fn a_dump_says_what_threads_and_containers_do() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "sleep 100");
    let dumps = || {
        let entries = std::fs::read_dir(daemon.dir().join("run")).expect("the exec root is there").flatten();
        let mut paths: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
            .collect();
        paths.sort();
        paths
    };
    for (signal, count) in [(Signal::USR1, 1), (Signal::QUIT, 2)] {
        send(&daemon, signal);
        eventually("the dump", || dumps().len() == count);
        let text = std::fs::read_to_string(&dumps()[count - 1]).expect("a file");
        for part in ["threads", "http-poller", "\"web\" running, shim ", "VmRSS", "configuration"] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
    }
    // It goes on, and a closed log or terminal does not end it either.
    send(&daemon, Signal::PIPE);
    daemon.api("GET", "/_ping").is(200);
}
