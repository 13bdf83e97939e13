//! create, ls, start --checkpoint, rm, and what the container's state says meanwhile.

use super::{counting, counts_past, numbers};
use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Daemon, binary, eventually};

#[test]
fn a_frozen_container_is_gone_and_thaws_where_it_was() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok().stdout_is("cp1\n");
    let state = daemon.state("web");
    assert_eq!((&state["Status"], &state["Running"]), (&"exited".into(), &false.into()), "{state}");
    eventually("nothing but the daemon to be there", || {
        let left = daemon.leftovers();
        left.mounts.is_empty() && left.cgroups.is_empty() && left.processes.len() == 1
    });
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_has("CHECKPOINT NAME").stdout_has("cp1");
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    assert_eq!(daemon.state("web")["Status"], "running");
    counts_past(&daemon, frozen);
    daemon.dewar(&["checkpoint", "rm", "web", "cp1"]).ok();
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_lacks("cp1");
    daemon.dewar(&["rm", "-f", "web"]).ok();
}

#[test]
fn leave_running_does() {
    requires!(root, criu);
    let daemon = counting(&[]);
    let pid = daemon.state("web")["Pid"].clone();
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    assert_eq!(daemon.state("web")["Pid"], pid);
    counts_past(&daemon, numbers(&daemon).len());
    // The checkpoint is older than what runs; a container that runs cannot be thawed over.
    let output = daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).run();
    assert!(output.code == 0 || output.stderr.contains("running"), "{output}");
    assert_eq!(daemon.state("web")["Pid"], pid);
}

#[test]
fn it_can_be_frozen_again_and_again() {
    requires!(root, criu);
    let daemon = counting(&[]);
    for round in 1..=4 {
        let name = format!("cp{round}");
        daemon.dewar(&["checkpoint", "create", "web", &name]).ok();
        let frozen = numbers(&daemon).len();
        daemon.dewar(&["start", "--checkpoint", &name, "web"]).ok();
        counts_past(&daemon, frozen);
    }
}

#[test]
fn the_thawed_exit_code_is_seen() {
    requires!(root, criu);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "echo ready; read line; echo got $line; exit 42");
    eventually("it being ready", || daemon.logs("web").contains("ready"));
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    daemon.dewar(&["attach", "web"]).stdin("word\n").fails(42).stdout_has("got word");
    assert_eq!(daemon.state("web")["ExitCode"], 42);
    assert_eq!(daemon.logs("web"), "ready\ngot word\n");
    // Started without a checkpoint it begins anew.
    daemon.dewar(&["start", "web"]).ok();
    eventually("a new beginning", || daemon.logs("web").matches("ready").count() == 2);
}

#[test]
fn a_thawed_container_can_do_all_a_started_one_can() {
    requires!(root, criu);
    let daemon = counting(&["--memory", "64m"]);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    daemon.dewar(&["exec", "web", "sh", "-c", "echo in; exit 3"]).fails(3).stdout_is("in\n");
    daemon.dewar(&["pause", "web"]).ok();
    daemon.dewar(&["unpause", "web"]).ok();
    daemon.dewar(&["top", "web"]).ok().stdout_has("sleep");
    // Same limits, same confinement, same view of the cgroups.
    daemon.dewar(&["exec", "web", "grep", "-c", "Seccomp:\t2", "/proc/1/status"]).ok().stdout_is("1\n");
    daemon.dewar(&["exec", "web", "grep", "CapEff", "/proc/1/status"]).ok().stdout_has("00000000a80425fb");
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    assert_eq!(daemon.state("web")["ExitCode"], 137);
}

#[test]
fn on_a_terminal() {
    requires!(root, criu);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-it"], "i=0; while read line; do i=$((i+1)); echo $i $line; done");
    let host = daemon.host();
    let args = ["-H", &host, "attach", "web"];
    let mut first = Terminal::start(&binary(), &args);
    first.send("one\n");
    first.expect("1 one");
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    first.wait();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    let mut second = Terminal::start(&binary(), &args);
    second.send("two\n");
    second.expect("2 two");
    daemon.dewar(&["exec", "web", "sh", "-c", "test -c /dev/pts/0"]).ok();
}

#[test]
fn checkpoints_can_be_kept_elsewhere() {
    requires!(root, criu);
    let daemon = counting(&[]);
    let elsewhere = daemon.dir().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a fresh directory");
    let dir = elsewhere.display().to_string();
    daemon.dewar(&["checkpoint", "create", "--checkpoint-dir", &dir, "web", "cp1"]).ok();
    assert!(std::fs::read_dir(&elsewhere).expect("made above").count() > 0);
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_lacks("cp1");
    daemon.dewar(&["checkpoint", "ls", "--checkpoint-dir", &dir, "web"]).ok().stdout_has("cp1");
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["start", "--checkpoint-dir", &dir, "--checkpoint", "cp1", "web"]).ok();
    counts_past(&daemon, frozen);
    daemon.dewar(&["checkpoint", "rm", "--checkpoint-dir", &dir, "web", "cp1"]).ok();
    assert_eq!(
        std::fs::read_dir(&elsewhere)
            .expect("made above")
            .flatten()
            .filter(|entry| entry.path().join("cp1").exists())
            .count(),
        0
    );
}

#[test]
fn checkpoints_go_with_their_container_and_outlive_the_daemon() {
    requires!(root, criu);
    let mut daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(&daemon).len();
    daemon.kill9();
    daemon.restart();
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_has("cp1");
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    counts_past(&daemon, frozen);
    // The thawed container has a shim that outlives the daemon, too.
    daemon.kill9();
    daemon.restart();
    assert_eq!(daemon.state("web")["Status"], "running");
    counts_past(&daemon, numbers(&daemon).len());
    daemon.dewar(&["rm", "-f", "web"]).ok();
    let left = crate::support::Cmd::new("find").arg(daemon.dir().join("data")).args(["-name", "cp1"]).ok();
    left.stdout_is("");
}

#[test]
fn events_and_errors_of_checkpoints() {
    requires!(root, criu);
    let daemon = counting(&[]);
    let events = |daemon: &Daemon| daemon.dewar(&["events", "--since", "1h", "--until", "0s"]).ok().stdout;
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    eventually("the event", || events(&daemon).contains("checkpoint"));
    daemon.dewar(&["checkpoint", "create", "web", "cp2"]).fails(1).stderr_has("not running");
    daemon.dewar(&["start", "--checkpoint", "nope", "web"]).fails(1).stderr_has("nope");
    daemon.dewar(&["checkpoint", "rm", "web", "nope"]).fails(1).stderr_has("nope");
    daemon.dewar(&["checkpoint", "ls", "none"]).fails(1).stderr_has("No such container: none");
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1).stderr_has("cp1");
    counts_past(&daemon, numbers(&daemon).len());
    assert_eq!(daemon.state("web")["Status"], "running");
}
