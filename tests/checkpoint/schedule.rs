//! Scheduled checkpoints, and containers that come back from them after a crash.

use serde_json::{Value, json};

use super::hibernate::{checkpointing, checkpoints};
use super::{COUNTER, counting, counts_past, numbers, peers};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually, within};

/// Counts, and ends with 7 as soon as there is a file `/tmp/crash`; says `anew` when it begins.
const CRASHING: &str =
    "echo anew; i=0; while :; do i=$((i+1)); echo $i; test -e /tmp/crash && exit 7; sleep 0.05; done";

fn scheduled(daemon: &Daemon, name: &str) -> Vec<String> {
    let names = checkpointing(daemon, name)["Scheduled"].clone();
    names.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

fn times(daemon: &Daemon, name: &str, word: &str) -> usize {
    daemon.logs(name).lines().filter(|line| *line == word).count()
}

#[test]
fn checkpoints_come_by_themselves_and_old_ones_go() {
    requires!(root, criu);
    let mut daemon = counting(&["--checkpoint-every", "1s", "--checkpoint-keep", "2"]);
    let host = daemon.api("GET", "/containers/web/json").is(200).json()["HostConfig"].clone();
    assert_eq!(host["CheckpointPolicy"], json!({"StopMode": "", "Every": 1_000_000_000, "Keep": 2}));
    let pid = daemon.state("web")["Pid"].clone();
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "mine"]).ok();
    within(std::time::Duration::from_secs(30), "the first ones", || scheduled(&daemon, "web").len() == 2);
    let first = scheduled(&daemon, "web");
    within(std::time::Duration::from_secs(30), "others in their place", || {
        let now = scheduled(&daemon, "web");
        now.len() == 2 && now.iter().all(|name| !first.contains(name))
    });
    // The next daemon goes on with it.
    daemon.kill9();
    daemon.restart();
    let found = scheduled(&daemon, "web");
    within(std::time::Duration::from_secs(30), "more of them", || {
        scheduled(&daemon, "web").iter().all(|name| !found.contains(name))
    });
    // Off: what is there stays, and what somebody made was never touched.
    daemon.dewar(&["update", "--checkpoint-every", "0", "web"]).ok();
    eventually("it to settle", || {
        let names = checkpoints(&daemon, "web");
        names.len() == 3 && names.contains(&"mine".to_owned()) && scheduled(&daemon, "web").len() == 2
    });
    let kept = scheduled(&daemon, "web");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(scheduled(&daemon, "web"), kept);
    assert_eq!(daemon.state("web")["Pid"], pid);
    counts_past(&daemon, numbers(&daemon).len());
    // It is a checkpoint like any other.
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    daemon.dewar(&["start", "--checkpoint", &kept[1], "web"]).ok();
    assert_eq!(daemon.state("web")["Running"], true);
}

#[test]
fn one_that_fails_is_told_and_hurts_nobody() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let socket = daemon.dir().join("outside.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a fresh directory");
    let bind = format!("{}:{}", socket.display(), peers::OUTSIDE);
    peers::run(&daemon, "web", &["-v", &bind, "--checkpoint-every", "1s"], peers::UNFREEZABLE);
    let pid = daemon.state("web")["Pid"].clone();
    within(std::time::Duration::from_secs(30), "two failures", || {
        checkpointing(&daemon, "web")["Failures"].as_u64() >= Some(2)
    });
    let failure = checkpointing(&daemon, "web")["ScheduleFailure"].clone();
    assert!(failure["Error"].as_str().is_some_and(|error| error.contains("unix")), "{failure}");
    assert_eq!(daemon.state("web")["Pid"], pid);
    assert!(checkpoints(&daemon, "web").is_empty());
    daemon.has_told(&["container checkpoint-failed"]);
    assert!(daemon.log().contains("tried again in 2s"), "{}", daemon.log());
}

#[test]
fn slips_of_the_hand_are_refused() {
    requires!(root);
    let daemon = Daemon::start();
    for (key, value) in
        [("Every", json!(5)), ("Every", json!(-1)), ("Keep", json!(0)), ("Keep", json!(100_000))]
    {
        let body =
            json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"CheckpointPolicy": {key: value}}});
        daemon.api_json("POST", "/containers/create", &body).refuses(400, "checkpoint");
    }
    daemon.dewar(&["create", "--name", "web", "busybox", "true"]).ok();
    let body = json!({"CheckpointPolicy": {"Every": 5}});
    daemon.api_json("POST", "/containers/web/update", &body).refuses(400, "a second");
    daemon.dewar(&["create", "--restart", "checkpoint:x", "busybox", "true"]).fails(125);
    let policy = json!({"Name": "sometimes", "MaximumRetryCount": 0});
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"RestartPolicy": policy}});
    daemon.api_json("POST", "/containers/create", &body).refuses(
        400,
        "unknown policy 'sometimes'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    );
}

#[test]
fn after_a_crash_it_goes_on_from_the_last_checkpoint() {
    requires!(root, criu);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["--restart", "checkpoint"], CRASHING);
    eventually("it counting", || times(&daemon, "web", "5") == 1);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "old"]).ok();
    eventually("it counting on", || times(&daemon, "web", "30") == 1);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "new"]).ok();
    let frozen = daemon.logs("web").lines().count();
    // The file is not in the checkpoint: what comes back does not crash.
    daemon.dewar(&["exec", "web", "touch", "/tmp/crash"]).ok();
    eventually("it back", || {
        daemon.state("web")["Running"] == true
            && daemon.state("web")["Restarting"] == false
            && restarts(&daemon) == 1
    });
    eventually("it going on", || daemon.logs("web").lines().count() > frozen + 10);
    assert_eq!((times(&daemon, "web", "anew"), times(&daemon, "web", "5")), (1, 1), "{}", daemon.logs("web"));
    assert_eq!(checkpointing(&daemon, "web"), Value::Null);
    // Killed by the kernel or anybody: a crash, too.
    let pid = daemon.state("web")["Pid"].as_i64().expect("a pid");
    crate::support::Cmd::new("kill").arg("-9").arg(pid.to_string()).ok();
    eventually("it back", || restarts(&daemon) == 2 && daemon.state("web")["Status"] == "running");
    assert_eq!(times(&daemon, "web", "anew"), 1);
    // A newest one that is damaged is passed over for the older one, and that is said.
    let found = crate::support::Cmd::new("find")
        .arg(daemon.dir().join("data"))
        .args(["-path", "*/new/*", "-name", "pages-*.img"])
        .ok();
    for file in found.stdout.lines() {
        std::fs::write(file, "not memory").expect("a file of ours");
    }
    daemon.dewar(&["exec", "web", "touch", "/tmp/crash"]).ok();
    eventually("it back", || restarts(&daemon) == 3 && daemon.state("web")["Status"] == "running");
    assert_eq!(times(&daemon, "web", "anew"), 1);
    assert!(daemon.log().contains("goes on from an older one"), "{}", daemon.log());
    // Stopped by hand it stays so; started by hand it begins anew.
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(daemon.state("web")["Status"], "exited");
    daemon.dewar(&["start", "web"]).ok();
    eventually("it anew", || times(&daemon, "web", "anew") == 2);
}

#[test]
fn one_that_has_eaten_its_memory_goes_on_from_the_last_checkpoint() {
    requires!(root, criu);
    let daemon = Daemon::start();
    // The shell itself grows, so that it is what the kernel kills.
    let hungry = "echo anew; i=0; x=12345678; while :; do i=$((i+1)); echo $i; sleep 0.05; \
                  if [ -e /tmp/eat ]; then while :; do x=$x$x; done; fi; done";
    let flags = ["--restart", "checkpoint", "--memory", "32m", "--memory-swap", "32m"];
    daemon.run_detached("web", &flags, hungry);
    eventually("it counting", || times(&daemon, "web", "5") == 1);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    let frozen = daemon.logs("web").lines().count();
    daemon.dewar(&["exec", "web", "touch", "/tmp/eat"]).ok();
    eventually("it back", || restarts(&daemon) == 1 && daemon.state("web")["Status"] == "running");
    eventually("it going on", || daemon.logs("web").lines().count() > frozen + 10);
    assert_eq!((times(&daemon, "web", "anew"), times(&daemon, "web", "5")), (1, 1), "{}", daemon.logs("web"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is past 1970");
    let events = daemon.api("GET", &format!("/events?since=1&until={:.6}", now.as_secs_f64())).is(200).text();
    assert!(events.contains("\"oom\""), "the kernel has killed it for its memory: {events}");
}

fn restarts(daemon: &Daemon) -> u64 {
    let found = daemon.api("GET", "/containers/web/json").is(200).json();
    found["RestartCount"].as_u64().expect("a count")
}

#[test]
fn a_checkpoint_that_crashes_again_and_again_is_given_up() {
    requires!(root, criu);
    let daemon = Daemon::start();
    // Without a checkpoint it begins anew.
    daemon.run_detached("web", &["--restart", "checkpoint"], CRASHING);
    eventually("it counting", || times(&daemon, "web", "5") == 1);
    daemon.dewar(&["exec", "web", "touch", "/tmp/crash"]).ok();
    eventually("it has crashed", || restarts(&daemon) > 0);
    let reason = || checkpointing(&daemon, "web")["ThawFailure"]["Error"].clone();
    eventually("the reason", || reason().as_str().is_some_and(|error| error.contains("there is none")));
    daemon.dewar(&["rm", "-f", "web"]).ok();
    // One that is doomed when it is frozen: it reads the file a second later.
    daemon.run_detached(
        "web",
        &["--restart", "checkpoint:5"],
        "echo anew; if test ! -e /tmp/doomed; then touch /tmp/doomed; sleep 1; echo crash; exit 7; fi; sleep 1000",
    );
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "doomed"]).ok();
    within(std::time::Duration::from_secs(60), "it given up", || {
        daemon.log().contains("has crashed 3 times right after thaws of doomed")
    });
    within(std::time::Duration::from_secs(30), "it anew", || times(&daemon, "web", "anew") == 2);
    assert_eq!(times(&daemon, "web", "crash"), 4, "{}", daemon.logs("web"));
    assert!(reason().as_str().is_some_and(|error| error.contains("given up")), "{}", reason());
    assert_eq!(daemon.state("web")["Status"], "running");
}

#[test]
fn the_daemons_end_is_no_crash() {
    requires!(root, criu);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &["--restart", "checkpoint", "--stop-timeout", "0"], COUNTER);
    eventually("it counting", || times(&daemon, "web", "5") == 1);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    assert_eq!(daemon.stop(), 0);
    daemon.restart();
    // Its end came in order: it begins anew, and the volumes it has written since are not taken back.
    eventually("it anew", || times(&daemon, "web", "1") == 2);
}
