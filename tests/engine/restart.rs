//! The daemon's end, orderly or not, under running containers.

use std::time::Duration;

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn a_killed_daemon_loses_no_output_and_no_exit_code() {
    requires!(root);
    let mut daemon = Daemon::start();
    let script = "i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo $i; sleep 0.05; done; exit 9";
    daemon.run_detached("counter", &[], script);
    daemon.run_detached("stays", &[], "trap 'exit 4' TERM; while :; do sleep 0.05; done");
    eventually("it counting", || daemon.logs("counter").contains("3\n"));
    let pid = daemon.state("stays")["Pid"].clone();
    daemon.kill9();
    // The counter ends while nobody watches.
    std::thread::sleep(Duration::from_millis(2500));
    daemon.restart();
    let state = daemon.state("counter");
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &9.into()), "{state}");
    let expected: String = (1..=30).map(|number| format!("{number}\n")).collect();
    assert_eq!(daemon.logs("counter"), expected);
    // The other is the same process as before, and can be talked to.
    assert_eq!(daemon.state("stays")["Pid"], pid);
    assert_eq!(daemon.state("stays")["Status"], "running");
    daemon.dewar(&["exec", "stays", "echo", "hi"]).ok().stdout_is("hi\n");
    daemon.dewar(&["stop", "stays"]).ok();
    assert_eq!(daemon.state("stays")["ExitCode"], 4);
    daemon.dewar(&["start", "stays"]).ok();
}

#[test]
fn a_daemon_killed_again_and_again_keeps_its_containers() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "i=0; while :; do i=$((i+1)); echo $i; sleep 0.01; done");
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        daemon.kill9();
        daemon.restart();
    }
    assert_eq!(daemon.state("web")["Running"], true);
    let logs = daemon.logs("web");
    let numbers: Vec<u32> = logs.lines().map(|line| line.parse().expect("only numbers")).collect();
    assert!(numbers.iter().zip(1..).all(|(have, want)| *have == want), "a gap in {numbers:?}");
}

#[test]
fn an_orderly_stop_stops_containers_and_keeps_them() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &["--label", "a=b"],
        "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done",
    );
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    daemon.dewar(&["tag", "busybox", "other:v1"]).ok();
    assert_eq!(daemon.stop(), 0);
    assert!(!daemon.socket().exists(), "the socket is removed");
    daemon.restart();
    let state = daemon.state("web");
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &3.into()), "{state}");
    assert_eq!(daemon.logs("web"), "ready\nbye\n");
    daemon.dewar(&["images"]).ok().stdout_has("other").stdout_has("busybox");
    daemon.dewar(&["ps", "-aq", "--filter", "label=a=b"]).ok().stdout_has("");
    daemon.dewar(&["start", "web"]).ok();
}

#[test]
fn a_container_with_rm_does_not_outlive_its_exit_across_a_restart() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &["--rm"], "sleep 0.5");
    daemon.kill9();
    std::thread::sleep(Duration::from_secs(1));
    daemon.restart();
    eventually("its removal", || daemon.dewar(&["ps", "-aq"]).ok().stdout.is_empty());
}

#[test]
fn a_paused_container_is_still_paused_after_a_crash() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.dewar(&["pause", "web"]).ok();
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.state("web")["Status"], "paused");
    daemon.dewar(&["unpause", "web"]).ok();
    assert_eq!(daemon.state("web")["Status"], "running");
}

#[test]
fn a_shim_that_was_killed_is_noticed() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let pid = daemon.state("web")["Pid"].to_string();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let shim =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().to_owned();
    crate::support::Cmd::new("kill").args(["-9", &shim]).ok();
    eventually("the container to be known as gone", || daemon.state("web")["Running"] == false);
    // It went on without anybody to watch it, and kept the next run from mounting its layers.
    eventually("its death", || {
        std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |text| text.is_empty())
    });
    assert_ne!(daemon.state("web")["ExitCode"], 0);
    daemon.dewar(&["start", "web"]).ok();
    daemon.dewar(&["kill", "web"]).ok();
    daemon.dewar(&["rm", "web"]).ok();
}

#[test]
fn broken_state_is_named_and_does_not_stop_the_rest() {
    requires!(root);
    let mut daemon = Daemon::start();
    let good = daemon
        .dewar(&["create", "--name", "good", "--network", "none", "busybox", "true"])
        .ok()
        .trimmed()
        .to_owned();
    let bad = daemon
        .dewar(&["create", "--name", "bad", "--network", "none", "busybox", "true"])
        .ok()
        .trimmed()
        .to_owned();
    daemon.kill9();
    let dir = daemon.dir().join("data/containers").join(&bad);
    for entry in std::fs::read_dir(&dir).expect("the container's directory").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "json") {
            std::fs::write(entry.path(), "{\"half\":").expect("a file of ours");
        }
    }
    daemon.restart();
    daemon.api("GET", &format!("/containers/{good}/json")).is(200);
    assert!(daemon.log().contains(&bad[..12]), "the log names it: {}", daemon.log());
}
