//! Hibernation: stops that freeze, starts that go on, and what happens when that cannot be.

use serde_json::{Value, json};

use super::{COUNTER, counting, counts_past, exec, numbers, peers};
use crate::support::requires::{self, requires};
use crate::support::{Daemon, eventually};

const FROZEN: &[&str] = &["--stop-mode", "checkpoint"];

pub(super) fn checkpointing(daemon: &Daemon, name: &str) -> Value {
    daemon.state(name)["Checkpointing"].clone()
}

/// The names of a container's checkpoints.
pub(super) fn checkpoints(daemon: &Daemon, name: &str) -> Vec<String> {
    let list = daemon.api("GET", &format!("/containers/{name}/checkpoints")).is(200).json();
    let name = |one: &Value| one["Name"].as_str().expect("a name").to_owned();
    list.as_array().expect("a list").iter().map(name).collect()
}

/// A daemon that freezes what it runs when it ends, with a container `web` that counts.
fn freezing(flags: &[&str]) -> Daemon {
    let criu = requires::criu_path().expect("required").display().to_string();
    let daemon = Daemon::with(&["--criu", &criu, "--checkpoint-on-shutdown"], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run_detached("web", flags, COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
    daemon
}

#[test]
fn a_stop_freezes_and_a_start_thaws() {
    requires!(root, criu);
    let daemon = counting(FROZEN);
    let host = daemon.api("GET", "/containers/web/json").is(200).json()["HostConfig"].clone();
    assert_eq!(host["CheckpointPolicy"]["StopMode"], "checkpoint");
    for round in 1..=3 {
        exec(&daemon, "web", &format!("echo {round} > /file"));
        daemon.dewar(&["stop", "web"]).ok();
        assert_eq!(daemon.state("web")["Status"], "exited");
        let names = checkpoints(&daemon, "web");
        assert_eq!(names.len(), 1, "{names:?}");
        assert_eq!(checkpointing(&daemon, "web")["Hibernated"], names[0].as_str());
        // What is slept in is not old.
        daemon.dewar(&["checkpoint", "prune", "-f", "--keep", "0"]).ok();
        assert_eq!(checkpoints(&daemon, "web"), names);
        let frozen = numbers(&daemon).len();
        daemon.dewar(&["start", "web"]).ok();
        counts_past(&daemon, frozen);
        assert_eq!(exec(&daemon, "web", "cat /file"), format!("{round}\n"));
        // It is used up.
        assert!(checkpoints(&daemon, "web").is_empty());
        assert_eq!(checkpointing(&daemon, "web"), Value::Null);
    }
    daemon.has_told(&["container hibernate", "container restore"]);
    // A second stop of what is stopped is nothing new.
    daemon.dewar(&["stop", "web"]).ok();
    daemon.api("POST", "/containers/web/stop").is(304);
}

#[test]
fn kills_and_signals_and_restarts_do_not_freeze() {
    requires!(root, criu);
    let daemon = counting(FROZEN);
    for words in [&["stop", "-t", "0", "--signal", "TERM", "web"][..], &["kill", "web"]] {
        daemon.dewar(words).ok();
        assert_eq!(daemon.state("web")["Status"], "exited");
        assert!(checkpoints(&daemon, "web").is_empty(), "{words:?}");
        daemon.dewar(&["start", "web"]).ok();
    }
    daemon.dewar(&["restart", "-t", "0", "web"]).ok();
    assert!(checkpoints(&daemon, "web").is_empty());
    // Kill drops what it sleeps in: the next start begins with the first number.
    daemon.dewar(&["stop", "web"]).ok();
    daemon.dewar(&["kill", "web"]).ok();
    assert!(checkpoints(&daemon, "web").is_empty());
    daemon.dewar(&["kill", "web"]).fails(1).stderr_has("is not running");
    let said = daemon.logs("web").lines().filter(|line| *line == "1").count();
    daemon.dewar(&["start", "web"]).ok();
    eventually("it begins anew", || {
        daemon.logs("web").lines().filter(|line| *line == "1").count() == said + 1
    });
    daemon.dewar(&["stop", "web"]).ok();
    daemon.dewar(&["rm", "-f", "web"]).ok();
    // The mode can be changed.
    daemon.run_detached("two", &[], "sleep 1000");
    daemon.dewar(&["update", "--stop-mode", "checkpoint", "two"]).ok();
    daemon.dewar(&["stop", "two"]).ok();
    assert_eq!(checkpoints(&daemon, "two").len(), 1);
    daemon.dewar(&["start", "two"]).ok();
    daemon.dewar(&["update", "--stop-mode", "signal", "two"]).ok();
    daemon.dewar(&["stop", "-t", "0", "two"]).ok();
    assert!(checkpoints(&daemon, "two").is_empty());
}

#[test]
fn what_makes_no_sense_is_refused() {
    requires!(root);
    let mut daemon = Daemon::start();
    let run = ["run", "--rm", "--network", "none", "--stop-mode", "checkpoint", "busybox", "true"];
    daemon.dewar(&run).fails(125).stderr_has("AutoRemove");
    daemon.dewar(&["create", "--stop-mode", "freeze", "busybox", "true"]).fails(125);
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"CheckpointPolicy": {"StopMode": "freeze"}}});
    daemon.api_json("POST", "/containers/create", &body).refuses(400, "invalid stop mode");
    let body = json!({"Image": "busybox", "HostConfig": {"CheckpointPolicy": {"StopMode": 1}}});
    assert_eq!(daemon.api_json("POST", "/containers/create", &body).status, 400);
    daemon
        .again()
        .args(["--live-restore", "--checkpoint-on-shutdown", "--validate"])
        .fails(1)
        .stderr_has("choose one");
    daemon.end();
}

#[test]
fn the_daemons_end_freezes_and_its_start_thaws() {
    requires!(root, criu);
    let mut daemon = freezing(&["--restart", "unless-stopped"]);
    for name in ["two", "three", "paused"] {
        daemon.run_detached(name, &[], "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done");
    }
    daemon.run_detached("plain", &["--stop-mode", "signal", "--stop-timeout", "0"], "sleep 1000");
    daemon.run_detached("passing", &["--rm", "--stop-timeout", "0"], "sleep 1000");
    daemon.dewar(&["pause", "paused"]).ok();
    let pid = daemon.state("web")["Pid"].clone();
    assert_eq!(daemon.stop(), 0, "{}", daemon.log());
    let left = daemon.leftovers();
    assert!(left.processes.is_empty() && left.mounts.is_empty() && left.cgroups.is_empty(), "{left:?}");
    daemon.restart();
    eventually("web runs", || daemon.state("web")["Status"] == "running");
    assert_ne!(daemon.state("web")["Pid"], pid);
    counts_past(&daemon, numbers(&daemon).len());
    for name in ["two", "three"] {
        eventually("it runs", || daemon.state(name)["Status"] == "running");
        let ones = || daemon.logs(name).lines().filter(|line| *line == "1").count();
        assert_eq!(ones(), 1, "{name} began anew");
        assert!(checkpoints(&daemon, name).is_empty());
    }
    eventually("it is paused", || daemon.state("paused")["Status"] == "paused");
    assert_eq!(daemon.state("plain")["Status"], "exited");
    assert_eq!(daemon.dewar(&["ps", "-aq", "--filter", "name=passing"]).ok().stdout, "");
    // Nothing is thawed twice: a daemon that finds them running leaves them so.
    let before = numbers(&daemon).len();
    daemon.kill9();
    daemon.restart();
    counts_past(&daemon, before);
    // Once frozen by hand, they stay so: the policy is `unless-stopped`.
    daemon.dewar(&["update", "--stop-mode", "checkpoint", "web"]).ok();
    daemon.dewar(&["stop", "web"]).ok();
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.state("web")["Status"], "exited");
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["start", "web"]).ok();
    counts_past(&daemon, frozen);
}

#[test]
fn what_cannot_be_thawed_begins_anew_and_says_why() {
    requires!(root, criu);
    let mut daemon = freezing(&[]);
    assert_eq!(daemon.stop(), 0, "{}", daemon.log());
    let found = crate::support::Cmd::new("find")
        .arg(daemon.dir().join("data"))
        .args(["-path", "*/hibernated-*", "-name", "pages-*.img"])
        .ok();
    for file in found.stdout.lines() {
        std::fs::write(file, "not memory").expect("a file of ours");
    }
    daemon.restart();
    eventually("it runs", || daemon.state("web")["Status"] == "running");
    eventually("it begins anew", || daemon.logs("web").lines().filter(|line| *line == "1").count() == 2);
    let failure = checkpointing(&daemon, "web")["ThawFailure"].clone();
    let error = failure["Error"].as_str().unwrap_or_default().to_owned();
    assert!(error.contains("pages-"), "{failure}");
    assert!(daemon.log().contains("BEGINS ANEW"), "{}", daemon.log());
    daemon.has_told(&["container thaw-failed", "pages-"]);
    // The checkpoint is there to be looked at, and is not tried again.
    assert_eq!(checkpoints(&daemon, "web").len(), 1);
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.state("web")["Status"], "running");
}

#[test]
fn what_cannot_be_frozen_runs_on_or_ends_with_the_daemon() {
    requires!(root, criu);
    let mut daemon = Daemon::start();
    let socket = daemon.dir().join("outside.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a fresh directory");
    let bind = format!("{}:{}", socket.display(), peers::OUTSIDE);
    let flags = ["-v", &bind, "--stop-mode", "checkpoint", "--stop-timeout", "1"];
    peers::run(&daemon, "web", &flags, peers::UNFREEZABLE);
    listener.set_nonblocking(true).expect("a listener of ours");
    let mut line = None;
    eventually("its line to the host", || {
        line = line.take().or_else(|| listener.accept().ok());
        line.is_some()
    });
    daemon.dewar(&["stop", "web"]).fails(1).stderr_has("it runs on").stderr_has("--signal TERM");
    assert_eq!(daemon.state("web")["Status"], "running");
    assert!(checkpoints(&daemon, "web").is_empty());
    assert_eq!(daemon.stop(), 0);
    assert!(daemon.log().contains("it is stopped instead"), "{}", daemon.log());
    let left = daemon.leftovers();
    assert!(left.processes.is_empty() && left.mounts.is_empty(), "{left:?}");
    daemon.restart();
    assert_eq!(daemon.state("web")["Status"], "exited");
}

#[test]
fn a_freeze_that_takes_too_long_is_left_to_its_shim_and_taken_up() {
    requires!(root, criu);
    let dir = crate::support::TempDir::new();
    let (criu, slow) = (dir.path().join("criu"), dir.path().join("slow"));
    let real = requires::criu_path().expect("required above");
    let script = format!(
        "#!/bin/sh\nif [ -e {} ]; then sleep 9; fi\nexec {} \"$@\"\n",
        slow.display(),
        real.display()
    );
    std::fs::write(&criu, script).expect("a fresh directory");
    crate::support::Cmd::new("chmod").arg("755").arg(&criu).ok();
    let criu = criu.display().to_string();
    let mut daemon =
        Daemon::with(&["--criu", &criu, "--checkpoint-on-shutdown", "--shutdown-timeout", "1"], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run_detached("web", &[], COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
    std::fs::write(&slow, "").expect("a directory of ours");
    let began = std::time::Instant::now();
    assert_eq!(daemon.stop(), 0, "{}", daemon.log());
    // The time there is, and what an end may take beyond it.
    assert!(began.elapsed() < std::time::Duration::from_secs(9), "{:?}", began.elapsed());
    std::fs::remove_file(&slow).expect("made above");
    daemon.restart();
    crate::support::within(std::time::Duration::from_secs(40), "it goes on", || {
        daemon.log().contains("container \"web\" is taken up") && daemon.state("web")["Status"] == "running"
    });
    counts_past(&daemon, numbers(&daemon).len());
    eventually("it is used up", || checkpoints(&daemon, "web").is_empty());
}
