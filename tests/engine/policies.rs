//! What brings a container back, what keeps it down, and in which order the events tell it.

use std::time::Duration;

use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

/// `action`s of a container so far, with the signal of a kill: `kill 15`.
fn actions(daemon: &Daemon, name: &str) -> Vec<String> {
    let filters = format!("%7B%22container%22:%5B%22{name}%22%5D%7D");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let until = now.as_secs_f64();
    let reply = daemon.api("GET", &format!("/events?since=1&until={until:.6}&filters={filters}")).is(200);
    reply
        .text()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("an event"))
        .map(|event| {
            let action = event["Action"].as_str().expect("a text").to_owned();
            match event["Actor"]["Attributes"]["signal"].as_str() {
                Some(signal) => format!("{action} {signal}"),
                None => action,
            }
        })
        .collect()
}

fn restart_count(daemon: &Daemon, name: &str) -> i64 {
    let inspected = daemon.api("GET", &format!("/containers/{name}/json")).is(200).json();
    inspected["RestartCount"].as_i64().expect("a number")
}

#[test]
fn events_at_an_end_are_in_dockers_order() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "trap 'exit 3' TERM; while :; do sleep 0.05; done";
    daemon.run_detached("stops", &[], &format!("echo ready; {script}"));
    eventually("it being ready", || daemon.logs("stops").contains("ready"));
    daemon.docker(&["restart", "stops"]).ok();
    eventually("it being ready again", || daemon.logs("stops").matches("ready").count() == 2);
    daemon.docker(&["stop", "stops"]).ok();
    assert_eq!(
        actions(&daemon, "stops"),
        ["create", "start", "kill 15", "die", "stop", "start", "restart", "kill 15", "die", "stop"]
    );
    daemon.run_detached("stubborn", &[], "trap '' TERM; while :; do sleep 0.05; done");
    daemon.docker(&["stop", "-t", "0", "stubborn"]).ok();
    assert_eq!(actions(&daemon, "stubborn"), ["create", "start", "kill 15", "kill 9", "die", "stop"]);
    daemon.run_detached("forced", &[], "sleep 1000");
    daemon.docker(&["rm", "-f", "forced"]).ok();
    assert_eq!(actions(&daemon, "forced"), ["create", "start", "kill 9", "die", "destroy"]);
    daemon.run_detached("killed", &[], "sleep 1000");
    daemon.docker(&["kill", "killed"]).ok();
    assert_eq!(actions(&daemon, "killed"), ["create", "start", "kill 9", "die"]);
    daemon.run_detached("frozen", &[], "trap 'exit 4' USR1; while :; do sleep 0.05; done");
    daemon.docker(&["pause", "frozen"]).ok();
    daemon.docker(&["stop", "-t", "-1", "--signal", "SIGUSR1", "frozen"]).ok();
    assert_eq!(daemon.state("frozen")["ExitCode"], 4);
    daemon.docker(&["stop", "--signal", "NOPE", "frozen"]).run();
    daemon.api("POST", "/containers/frozen/stop").is(304);
}

#[test]
fn a_failing_container_is_tried_again_as_often_as_asked() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.run_detached("fails", &["--restart", "on-failure:2"], "echo go; exit 5");
    eventually("it being given up", || daemon.state("fails")["Status"] == "exited");
    assert_eq!(daemon.logs("fails"), "go\ngo\ngo\n");
    assert_eq!((restart_count(&daemon, "fails"), &daemon.state("fails")["ExitCode"]), (2, &5.into()));
    // A start by hand begins to count anew.
    daemon.docker(&["start", "fails"]).ok();
    eventually("six lines", || daemon.logs("fails").lines().count() == 6);
    eventually("it being given up again", || daemon.state("fails")["Status"] == "exited");
    assert_eq!(restart_count(&daemon, "fails"), 2);
    daemon.run_detached("content", &["--restart", "on-failure"], "exit 0");
    eventually("its end", || daemon.state("content")["Status"] == "exited");
    assert_eq!(restart_count(&daemon, "content"), 0);
}

#[test]
fn the_pause_before_a_restart_can_be_called_off() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let in_pause = |name: &str| {
        daemon.run_detached(name, &["--restart", "always"], "exit 1");
        // After five failures the pause is longer than any request takes.
        eventually("a long pause", || {
            restart_count(&daemon, name) >= 5 && daemon.state(name)["Restarting"] == true
        });
    };
    in_pause("stopped");
    let state = daemon.state("stopped");
    assert_eq!((&state["Running"], &state["Status"]), (&true.into(), &"restarting".into()), "{state}");
    daemon.docker(&["ps"]).ok().stdout_has("Restarting (1)");
    daemon.docker(&["rm", "stopped"]).fails(1).stderr_has("container is restarting: stop the container");
    let mut wait = daemon.docker(&["wait", "stopped"]).spawn();
    daemon.docker(&["stop", "stopped"]).ok();
    assert_eq!(wait.wait(), 0, "a waiter is released by the stop");
    assert_eq!(daemon.state("stopped")["Status"], "exited");
    assert_eq!(actions(&daemon, "stopped").last().map(String::as_str), Some("stop"));
    in_pause("killed");
    daemon.docker(&["kill", "killed"]).ok();
    assert_eq!(daemon.state("killed")["Status"], "exited");
    in_pause("removed");
    daemon.docker(&["rm", "-f", "removed"]).ok();
    in_pause("changed");
    // The pause under way still ends in a start; the exit after it is the last.
    daemon.docker(&["update", "--restart", "no", "changed"]).ok();
    daemon.docker(&["start", "changed"]).ok();
    eventually("its end", || daemon.state("changed")["Status"] == "exited");
}

#[test]
fn a_policy_given_later_counts_from_then_on() {
    requires!(root, docker, docker_py);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "trap 'exit 1' USR1; echo ready; while :; do sleep 0.05; done");
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    daemon
        .python(
            "client.containers.get('web').update(restart_policy={'Name': 'on-failure', 'MaximumRetryCount': 4})",
        )
        .ok();
    daemon.docker(&["kill", "-s", "USR1", "web"]).ok();
    eventually("its restart", || restart_count(&daemon, "web") == 1 && daemon.state("web")["Pid"] != 0);
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(daemon.state("web")["Status"], "exited");
    daemon.docker(&["update", "--restart", "sometimes", "web"]).fails(1);
    daemon.docker(&["create", "--name", "rm", "--rm", "--network", "none", "busybox", "true"]).ok();
    daemon
        .docker(&["update", "--restart", "always", "rm"])
        .fails(1)
        .stderr_has("Restart policy cannot be updated because AutoRemove is enabled for the container");
}

#[test]
fn a_restart_keeps_a_container_that_removes_itself() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["--rm"], "echo ready; exec sleep 1000");
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    daemon.docker(&["restart", "-t", "0", "web"]).ok();
    assert_eq!(daemon.state("web")["Status"], "running");
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    eventually("its removal", || daemon.api("GET", "/containers/web/json").status == 404);
}

#[test]
fn policies_hold_across_the_daemons_end() {
    requires!(root, docker);
    let mut daemon = Daemon::start();
    let idle = "trap 'exit 2' TERM; echo up; while :; do sleep 0.05; done";
    for (name, policy) in [
        ("always", "always"),
        ("unless", "unless-stopped"),
        ("halted", "unless-stopped"),
        ("risen", "always"),
        ("plain", "no"),
    ] {
        daemon.run_detached(name, &["--restart", policy], idle);
        eventually("it being up", || daemon.logs(name).contains("up"));
    }
    daemon.docker(&["stop", "halted", "risen"]).ok();
    let running = |daemon: &Daemon| {
        let mut names: Vec<String> =
            daemon.docker(&["ps", "--format", "{{.Names}}"]).ok().stdout.lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(running(&daemon), ["always", "plain", "unless"]);
    assert_eq!(daemon.stop(), 0);
    daemon.restart();
    let are_up = |daemon: &Daemon| {
        eventually("those the policies want", || {
            running(daemon) == ["always", "risen", "unless"]
                && daemon.docker(&["ps", "--filter", "status=restarting", "-q"]).ok().stdout.is_empty()
        });
    };
    are_up(&daemon);
    // After a crash the living are found as they were, and what ended meanwhile is brought back.
    let pid = daemon.state("always")["Pid"].clone();
    let ended = daemon.state("unless")["Pid"].as_i64().expect("a number");
    daemon.kill9();
    let ended = rustix::process::Pid::from_raw(i32::try_from(ended).expect("a pid")).expect("not 0");
    rustix::process::kill_process(ended, rustix::process::Signal::TERM).expect("it lives");
    std::thread::sleep(Duration::from_millis(500));
    daemon.restart();
    are_up(&daemon);
    assert_eq!(daemon.state("always")["Pid"], pid);
    eventually("a third life", || daemon.logs("unless").matches("up").count() == 3);
    assert_eq!(daemon.state("halted")["Status"], "exited");
}

#[test]
fn a_container_comes_back_before_those_that_join_it() {
    requires!(root, docker);
    let mut daemon = Daemon::start();
    let flags = ["--restart", "always", "--stop-signal", "KILL"];
    daemon.run_detached("donor", &flags, "exec sleep 1000");
    for name in ["one", "two", "three", "four"] {
        daemon
            .docker(&["run", "-d", "--name", name, "--network", "container:donor"])
            .args(flags)
            .args(["busybox", "sleep", "1000"])
            .ok();
    }
    assert_eq!(daemon.stop(), 0);
    daemon.restart();
    for name in ["donor", "one", "two", "three", "four"] {
        // Brought up while the API serves already.
        eventually(&format!("{name} running"), || daemon.state(name)["Status"] == "running");
    }
}
