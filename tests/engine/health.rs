//! Health checks and the OOM killer: what a container's state says of how it fares.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::requires::requires;
use crate::support::{Daemon, busybox_tar, eventually};

fn health(daemon: &Daemon, name: &str) -> Value {
    daemon.state(name)["Health"].clone()
}

#[track_caller]
fn becomes(daemon: &Daemon, name: &str, status: &str) {
    eventually(&format!("{name} being {status}"), || health(daemon, name)["Status"] == status);
}

/// `docker run -d` with a check four times a second, and further flags.
fn run(daemon: &Daemon, name: &str, check: &str, flags: &[&str], script: &str) {
    daemon
        .docker(&["run", "-d", "--name", name, "--network", "none", "--health-interval", "250ms"])
        .args(["--health-cmd", check])
        .args(flags)
        .args(["busybox", "sh", "-c", script])
        .ok();
}

const IDLE: &str = "exec sleep 1000";

/// What `docker events` has told so far.
fn events(daemon: &Daemon, flags: &[&str]) -> String {
    super::events::told(daemon, flags).iter().map(|line| format!("{line}\n")).collect()
}

#[test]
fn a_check_is_told_wherever_docker_tells_it() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon
        .docker(&["create", "--name", "new", "--network", "none", "--health-cmd", "true", "busybox", "true"])
        .ok();
    assert_eq!(health(&daemon, "new"), Value::Null, "nothing is known before the first start");
    run(&daemon, "web", "echo said; echo wrong >&2; test -f /tmp/well", &["--health-retries", "2"], IDLE);
    daemon.docker(&["ps"]).ok().stdout_has("(health: starting)");
    becomes(&daemon, "web", "unhealthy");
    daemon.docker(&["ps", "--filter", "health=unhealthy"]).ok().stdout_has("(unhealthy)");
    daemon.docker(&["exec", "web", "touch", "/tmp/well"]).ok();
    becomes(&daemon, "web", "healthy");
    daemon.docker(&["ps"]).ok().stdout_has("(healthy)");
    daemon.docker(&["ps", "-q", "--filter", "health=unhealthy"]).ok().stdout_is("");
    daemon.docker(&["ps", "-q", "--filter", "health=none"]).ok().stdout_is("");
    daemon.docker(&["ps", "--filter", "health=what"]).fails(1);
    eventually("a full log", || health(&daemon, "web")["Log"].as_array().is_some_and(|log| log.len() == 5));
    let shown = health(&daemon, "web");
    let last = &shown["Log"][4];
    assert_eq!((&last["ExitCode"], &shown["FailingStreak"]), (&json!(0), &json!(0)), "{shown}");
    let said = last["Output"].as_str().expect("a text");
    assert!(said.contains("said\n") && said.contains("wrong\n"), "{said:?}");
    assert!(last["Start"].as_str() < last["End"].as_str(), "{last}");
    let told = events(&daemon, &["--filter", "event=health_status"]);
    let told: Vec<&str> = told.lines().filter_map(|line| line.split("health_status: ").nth(1)).collect();
    assert_eq!(told.len(), 2, "only changes are told: {told:?}");
    assert!(told[0].starts_with("unhealthy") && told[1].starts_with("healthy"), "{told:?}");
    let execs = events(&daemon, &["--filter", "event=exec_die", "--filter", "container=web"]);
    assert!(execs.contains("exitCode=1") && execs.contains("execID="), "{execs}");
    assert!(events(&daemon, &[]).contains("exec_create: /bin/sh -c echo said"), "probes are execs");
    // A stop ends the checks; a start begins anew.
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(health(&daemon, "web")["Status"], "unhealthy");
    daemon.docker(&["start", "web"]).ok();
    daemon.docker(&["inspect", "--format", "{{.State.Health.FailingStreak}}", "web"]).ok().stdout_is("0\n");
    becomes(&daemon, "web", "healthy");
}

#[test]
fn a_probe_that_hangs_is_killed_with_what_it_started() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let check = "echo begun; sleep 777 & sleep 778";
    run(&daemon, "web", check, &["--health-timeout", "300ms", "--health-retries", "1"], IDLE);
    becomes(&daemon, "web", "unhealthy");
    let shown = health(&daemon, "web");
    assert_eq!(shown["Log"][0]["ExitCode"], -1, "{shown}");
    assert_eq!(shown["Log"][0]["Output"], "Health check exceeded timeout (300ms): begun\n", "{shown}");
    daemon.docker(&["pause", "web"]).ok();
    let top = daemon.docker(&["top", "web"]).ok().stdout;
    assert!(top.matches("sleep 777").count() <= 1, "the probes' children pile up:\n{top}");
    daemon.docker(&["unpause", "web"]).ok();
}

#[test]
fn odd_probes_are_failures_that_say_why() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let create = |name: &str, healthcheck: Value| {
        let body = json!({
            "Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"},
            "Healthcheck": healthcheck,
        });
        daemon.api_json("POST", &format!("/containers/create?name={name}"), &body)
    };
    let fast = 200_000_000;
    create("missing", json!({"Test": ["CMD", "/no/such"], "Interval": fast, "Retries": 1})).is(201);
    create(
        "loud",
        json!({"Test": ["CMD-SHELL", "yes | head -c 9000; exit 3"], "Interval": fast, "Retries": 1}),
    )
    .is(201);
    create("off", json!({"Test": ["NONE"], "Interval": fast})).is(201);
    create(
        "slow",
        json!({"Test": ["CMD", "false"], "Interval": fast, "StartInterval": fast,
                          "StartPeriod": 3_600_000_000_000_i64, "Retries": 1}),
    )
    .is(201);
    for name in ["missing", "loud", "off", "slow"] {
        daemon.docker(&["start", name]).ok();
    }
    becomes(&daemon, "missing", "unhealthy");
    let entry = health(&daemon, "missing")["Log"][0].clone();
    assert_eq!(entry["ExitCode"], -1);
    assert!(
        entry["Output"].as_str().is_some_and(|text| text.contains("no such file or directory")),
        "{entry}"
    );
    becomes(&daemon, "loud", "unhealthy");
    let entry = health(&daemon, "loud")["Log"][0].clone();
    assert_eq!(entry["ExitCode"], 3);
    let said = entry["Output"].as_str().expect("a text");
    assert!(said.len() == 4099 && said.ends_with("..."), "{} bytes", said.len());
    assert_eq!(health(&daemon, "off"), Value::Null);
    eventually("five failures", || {
        health(&daemon, "slow")["Log"].as_array().is_some_and(|log| log.len() == 5)
    });
    let shown = health(&daemon, "slow");
    assert_eq!((&shown["Status"], &shown["FailingStreak"]), (&json!("starting"), &json!(0)), "{shown}");
    for (healthcheck, part) in [
        (json!({"Test": ["CMD", "x"], "Interval": 1000}), "Interval in Healthcheck cannot be less than 1ms"),
        (json!({"Test": ["CMD", "x"], "Retries": -1}), "Retries in Healthcheck cannot be negative"),
        (json!({"StartPeriod": 5}), "StartPeriod in Healthcheck cannot be less than 1ms"),
    ] {
        create("bad", healthcheck).refuses(400, part);
    }
}

#[test]
fn an_images_check_is_inherited_and_can_be_switched_off() {
    requires!(root, docker, docker_py);
    let daemon = Daemon::empty();
    let change = "HEALTHCHECK --interval=300ms --retries=7 CMD exit 0";
    daemon.docker(&["import", "--change", change]).arg(busybox_tar()).arg("checked").ok();
    let run = |name: &str, flags: &[&str]| {
        daemon
            .docker(&["run", "-d", "--name", name, "--network", "none"])
            .args(flags)
            .args(["checked", "sleep", "1000"])
            .ok();
    };
    run("plain", &[]);
    run("other", &["--health-retries", "2"]);
    run("none", &["--no-healthcheck"]);
    becomes(&daemon, "plain", "healthy");
    becomes(&daemon, "other", "healthy");
    daemon
        .docker(&["ps", "-q", "--filter", "health=none"])
        .ok()
        .stdout_is(&daemon.docker(&["ps", "-q", "--filter", "name=none"]).ok().stdout);
    let script = "
config = client.api.inspect_container('other')['Config']['Healthcheck']
assert config['Retries'] == 2 and config['Interval'] == 300000000, config
assert config['Test'] == ['CMD-SHELL', 'exit 0'], config
assert client.containers.get('plain').health == 'healthy'
assert 'Health' not in client.containers.get('none').attrs['State']
";
    daemon.python(script).ok();
}

#[test]
fn checks_rest_in_a_pause_and_begin_anew_with_the_daemon() {
    requires!(root, docker);
    let mut daemon = Daemon::start();
    run(&daemon, "web", "test -f /tmp/well", &["--health-retries", "1"], "touch /tmp/well; exec sleep 1000");
    becomes(&daemon, "web", "healthy");
    daemon.docker(&["pause", "web"]).ok();
    let log = health(&daemon, "web")["Log"].clone();
    std::thread::sleep(Duration::from_millis(800));
    assert_eq!(health(&daemon, "web")["Log"], log, "a paused container was probed");
    daemon.docker(&["ps"]).ok().stdout_has("(Paused)").stdout_lacks("healthy");
    daemon.docker(&["unpause", "web"]).ok();
    eventually("the next probe", || health(&daemon, "web")["Log"] != log);
    assert_eq!(health(&daemon, "web")["Status"], "healthy");
    daemon.kill9();
    daemon.restart();
    becomes(&daemon, "web", "healthy");
    // A probe of the last daemon is neither running nor known; at most one of this daemon's is.
    let inspected = daemon.api("GET", "/containers/web/json").is(200).json();
    assert!(inspected["ExecIDs"].as_array().map_or(0, Vec::len) <= 1, "{}", inspected["ExecIDs"]);
}

#[test]
fn a_checked_container_is_frozen_while_it_is_probed() {
    requires!(root, docker, criu);
    let daemon = Daemon::start();
    let check = "sleep 0.2; test -f /tmp/well";
    run(&daemon, "web", check, &[], "touch /tmp/well; exec sleep 1000");
    becomes(&daemon, "web", "healthy");
    for round in 0..2 {
        let running = || !daemon.api("GET", "/containers/web/json").is(200).json()["ExecIDs"].is_null();
        eventually("a probe under way", running);
        daemon.docker(&["checkpoint", "create", "web", &format!("cp{round}")]).ok();
        assert_eq!(daemon.state("web")["Status"], "exited");
        daemon.docker(&["start", "--checkpoint", &format!("cp{round}"), "web"]).ok();
        becomes(&daemon, "web", "healthy");
    }
    eventually("a probe under way", || {
        !daemon.api("GET", "/containers/web/json").is(200).json()["ExecIDs"].is_null()
    });
    daemon.docker(&["checkpoint", "create", "--leave-running", "web", "left"]).ok();
    let log = health(&daemon, "web")["Log"].clone();
    eventually("the next probe", || health(&daemon, "web")["Log"] != log);
    assert_eq!(health(&daemon, "web")["Status"], "healthy");
}

/// A shell that doubles a string until it is killed.
const HUNGRY: &str = "x=0123456789abcdef; while :; do x=$x$x; done";

#[test]
fn a_container_out_of_memory_says_so() {
    requires!(root, docker);
    let mut daemon = Daemon::start();
    let limits = ["--memory", "16m", "--memory-swap", "16m"];
    daemon.run_detached("hog", &limits, &format!("test -f /ran && exit 0; touch /ran; {HUNGRY}"));
    eventually("its end", || daemon.state("hog")["Status"] == "exited");
    let state = daemon.state("hog");
    assert_eq!((&state["OOMKilled"], &state["ExitCode"]), (&json!(true), &json!(137)), "{state}");
    let told = events(&daemon, &["--filter", "container=hog", "--format", "{{.Action}}"]);
    // The kernel tells of each time it ran short, until the killed one is gone.
    let mut told: Vec<&str> = told.lines().collect();
    told.dedup();
    assert_eq!(told, ["create", "start", "oom", "die"]);
    daemon.docker(&["start", "-a", "hog"]).ok();
    assert_eq!(daemon.state("hog")["OOMKilled"], false, "of an earlier life");
    // A child's death is told while the container goes on, and again by the next daemon if it was missed.
    let child =
        format!("trap : USR1; echo ready; sleep 1000 & wait; sh -c '{HUNGRY}'; echo survived; sleep 1000");
    daemon.run_detached("parent", &limits, &child);
    eventually("it being ready", || daemon.logs("parent").contains("ready"));
    daemon.run_detached("unseen", &limits, &format!("sleep 1; {HUNGRY}"));
    let pid = daemon.state("parent")["Pid"].as_i64().expect("a number");
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not 0");
    daemon.kill9();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("it lives");
    std::thread::sleep(Duration::from_secs(3));
    daemon.restart();
    let state = daemon.state("unseen");
    assert_eq!((&state["OOMKilled"], &state["ExitCode"]), (&json!(true), &json!(137)), "{state}");
    eventually("the parent's loss", || daemon.logs("parent").contains("survived"));
    let state = daemon.state("parent");
    assert_eq!((&state["OOMKilled"], &state["Status"]), (&json!(true), &json!("running")), "{state}");
    let told = events(&daemon, &["--filter", "event=oom", "--format", "{{.Actor.Attributes.name}}"]);
    let mut told: Vec<&str> = told.lines().collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, ["parent", "unseen"]);
}
