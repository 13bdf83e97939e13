//! Containers that lived on: their execs, their health, their shims, and who comes up by itself.

use std::time::Duration;

use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::{container_dir, shim_of};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

fn new_exec(daemon: &Daemon, name: &str, script: &str) -> String {
    let body = json!({"Cmd": ["sh", "-c", script], "AttachStdout": true});
    let made = daemon.api_json("POST", &format!("/containers/{name}/exec"), &body).is(201).json();
    made["Id"].as_str().expect("an id").to_owned()
}

fn start_exec(daemon: &Daemon, id: &str) {
    daemon.api_json("POST", &format!("/exec/{id}/start"), &json!({"Detach": true})).is(200);
}

fn exec(daemon: &Daemon, id: &str) -> serde_json::Value {
    daemon.api("GET", &format!("/exec/{id}/json")).is(200).json()
}

#[test]
fn execs_keep_their_ids_and_their_ends() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.run_detached("gone", &[], "exec sleep 1000");
    let [created, ended, ends_alone, runs] =
        ["exit 3", "exit 4", "while [ ! -e /go ]; do sleep 0.02; done; exit 5", "exec sleep 1000"]
            .map(|script| new_exec(&daemon, "web", script));
    let orphan = new_exec(&daemon, "gone", "true");
    [&ended, &ends_alone, &runs].iter().for_each(|id| start_exec(&daemon, id));
    eventually("the end of the short one", || exec(&daemon, &ended)["Running"] == false);
    let pid = daemon.state("web")["Pid"].to_string();
    let pid_of_exec = exec(&daemon, &ends_alone)["Pid"].to_string();
    daemon.dewar(&["rm", "-f", "gone"]).ok();
    daemon.kill9();
    std::fs::write(format!("/proc/{pid}/root/go"), "").expect("a running container");
    eventually("its end without a daemon", || {
        !std::path::Path::new(&format!("/proc/{pid_of_exec}")).exists()
    });
    daemon.restart();
    let stands = |id: &str| {
        let exec = exec(&daemon, id);
        (exec["Running"] == true, exec["ExitCode"].as_i64(), exec["Pid"] != 0)
    };
    assert_eq!(stands(&ended), (false, Some(4), true));
    assert_eq!(stands(&ends_alone), (false, Some(5), true));
    assert_eq!(stands(&runs), (true, None, true));
    assert_eq!(stands(&created), (false, None, false));
    daemon.api("GET", &format!("/exec/{orphan}/json")).is(404);
    // They go on: what was created can be started, what runs can end, and nothing runs twice.
    start_exec(&daemon, &created);
    eventually("the end of the one that waited", || stands(&created) == (false, Some(3), true));
    daemon.api_json("POST", &format!("/exec/{ended}/start"), &json!({"Detach": true})).is(409);
    daemon.dewar(&["exec", "web", "sh", "-c", "kill -9 $(pidof sleep | tr ' ' '\\n' | grep -vx 1)"]).run();
    eventually("the end of the one that ran", || stands(&runs) == (false, Some(137), true));
    let files = || std::fs::read_dir(daemon.dir().join("run/execs")).expect("a directory").count();
    assert!(files() >= 4, "{} files", files());
    daemon.dewar(&["rm", "-f", "web"]).ok();
    assert_eq!(files(), 0, "an exec goes with its container");
}

#[test]
fn health_is_as_it_was() {
    requires!(root);
    let mut daemon = Daemon::start();
    let flags = ["--health-cmd", "echo said; test -e /well", "--health-interval", "100ms"];
    let flags = [&flags[..], &["--health-retries", "2"]].concat();
    daemon.run_detached("web", &flags, "touch /well; exec sleep 1000");
    let health = |daemon: &Daemon| daemon.state("web")["Health"].clone();
    eventually("it being well", || health(&daemon)["Status"] == "healthy");
    // A probe that hangs is ended by the next daemon: nobody else would.
    daemon.kill9();
    daemon.restart();
    let after = health(&daemon);
    assert_eq!(after["Status"], "healthy", "{after}");
    assert!(!after["Log"].as_array().expect("a list").is_empty(), "{after}");
    daemon.dewar(&["exec", "web", "rm", "/well"]).ok();
    eventually("it being unwell", || health(&daemon)["Status"] == "unhealthy");
    daemon.kill9();
    daemon.restart();
    let after = health(&daemon);
    assert_eq!(after["Status"], "unhealthy", "{after}");
    assert!(after["FailingStreak"].as_i64() >= Some(2), "{after}");
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    daemon.kill9();
    daemon.restart();
    assert!(!health(&daemon)["Log"].as_array().expect("a list").is_empty(), "{}", health(&daemon));
}

#[test]
fn a_shim_that_is_silent_is_waited_for_and_never_given_up() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "trap 'exit 6' TERM; while :; do sleep 0.05; done");
    daemon.run_detached("other", &[], "exec sleep 1000");
    let shim = shim_of(&daemon, "web");
    daemon.kill9();
    kill_process(shim, Signal::STOP).expect("it lives");
    daemon.restart();
    assert!(daemon.log().contains("its shim does not answer"), "{}", daemon.log());
    // The rest of it works; of this one nothing is done that would end it.
    daemon.dewar(&["exec", "other", "true"]).ok();
    assert_eq!(daemon.state("web")["Status"], "running");
    for request in [&["stop", "web"] as &[&str], &["rm", "-f", "web"], &["exec", "web", "true"]] {
        daemon.dewar(request).fails(1).stderr_has("out of reach: its shim does not answer");
    }
    kill_process(shim, Signal::CONT).expect("it lives");
    eventually("it being taken up", || daemon.dewar(&["exec", "web", "true"]).run().code == 0);
    daemon.dewar(&["stop", "web"]).ok();
    assert_eq!(daemon.state("web")["ExitCode"], 6);
}

#[test]
fn what_policies_bring_up_does_not_keep_the_api_waiting() {
    requires!(root);
    let mut daemon = Daemon::start();
    let names: Vec<String> = (0..6).map(|number| format!("c{number}")).collect();
    for name in &names {
        daemon.run_detached(name, &["--restart", "always", "--stop-signal", "KILL"], "exec sleep 1000");
    }
    assert_eq!(daemon.stop(), 0);
    // A power cut: nothing of the run directory is left, and the records say that they run.
    for name in &names {
        let containers = daemon.dir().join("data/containers");
        for entry in std::fs::read_dir(containers).expect("a directory").flatten() {
            let path = entry.path().join("container.json");
            let text = std::fs::read_to_string(&path).expect("a record");
            if text.contains(&format!("\"name\":\"{name}\"")) {
                std::fs::write(&path, text.replace("\"state\":\"exited\"", "\"state\":\"running\""))
                    .expect("ours");
                drop(std::fs::remove_file(entry.path().join("exit.json")));
            }
        }
    }
    std::fs::remove_dir_all(daemon.dir().join("run"))
        .unwrap_or_else(|cause| panic!("{cause}: {:#?}", daemon.leftovers()));
    daemon.restart();
    // One that was to come up can be told not to.
    daemon.dewar(&["stop", "-t", "0", "c5"]).ok();
    for name in &names[..5] {
        eventually(&format!("{name} running"), || daemon.state(name)["Status"] == "running");
    }
    let log = daemon.log();
    let serves = log.rfind("serves API").expect("it serves");
    assert!(log[..serves].contains("6 containers: 0 run, 6 are started by their policies"), "{log}");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(daemon.state("c5")["Status"], "exited");
}

#[test]
fn a_life_without_a_last_word_ended_with_255() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.run_detached("stays", &["--restart", "unless-stopped"], "exec sleep 1000");
    let shims = ["web", "stays"].map(|name| shim_of(&daemon, name));
    let dir = container_dir(&daemon, "web");
    daemon.kill9();
    for shim in shims {
        kill_process(shim, Signal::KILL).expect("it lives");
    }
    daemon.restart();
    let state = daemon.state("web");
    assert_eq!((&state["Status"], &state["ExitCode"]), (&"exited".into(), &255.into()), "{state}");
    assert!(!dir.join("exit.json").exists());
    eventually("the other running again", || daemon.state("stays")["Status"] == "running");
}

#[test]
fn what_ended_between_two_daemons_ends_as_if_one_had_watched() {
    requires!(root);
    let mut daemon = Daemon::start();
    let waits = |end: &str| format!("while [ ! -e /go ]; do sleep 0.02; done; {end}");
    for (name, policy, end) in [
        ("fails", "on-failure:2", "exit 4"),
        ("content", "on-failure:2", "exit 0"),
        ("always", "always", "exit 0"),
        ("plain", "no", "exit 9"),
    ] {
        daemon.run_detached(name, &["--restart", policy], &waits(end));
    }
    daemon.run_detached("hungry", &["-m", "8m"], &waits("x=$(yes | head -c 50000000 | tr '\\n' x); echo $x"));
    // Told to stop under the first daemon, it ends under none: it was stopped by hand.
    let slow = "trap 'while [ ! -e /go ]; do sleep 0.02; done; exit 0' TERM; echo ready; while :; do sleep 0.02; done";
    daemon.run_detached("stopped", &["--restart", "unless-stopped"], slow);
    eventually("it being ready", || daemon.logs("stopped").contains("ready"));
    let mut stop = daemon.dewar(&["stop", "-t", "100", "stopped"]).spawn();
    let names = ["fails", "content", "always", "plain", "hungry", "stopped"];
    let pids = names.map(|name| daemon.state(name)["Pid"].to_string());
    std::thread::sleep(Duration::from_millis(300));
    daemon.kill9();
    stop.wait();
    for pid in &pids {
        std::fs::write(format!("/proc/{pid}/root/go"), "").expect("a running container");
    }
    eventually("their ends", || {
        pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
    });
    daemon.restart();
    let stands = |name: &str| {
        let state = daemon.state(name);
        (state["Status"].as_str().unwrap_or_default().to_owned(), state["ExitCode"].as_i64().unwrap_or(-1))
    };
    let is = |status: &str, code: i64| (status.to_owned(), code);
    for (name, code) in [("content", 0), ("plain", 9), ("hungry", 137), ("stopped", 0)] {
        assert_eq!(stands(name), is("exited", code), "{name}");
    }
    assert_eq!(daemon.state("hungry")["OOMKilled"], true);
    // Its file is there: each further life ends at once, and is counted anew.
    eventually("it being given up", || stands("fails") == is("exited", 4));
    let inspected = daemon.api("GET", "/containers/fails/json").is(200).json();
    assert_eq!(inspected["RestartCount"], 2);
    eventually("lives of the other", || {
        daemon.api("GET", "/containers/always/json").is(200).json()["RestartCount"].as_i64() >= Some(2)
    });
}
