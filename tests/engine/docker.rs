//! The stock docker client on dewar's socket: the same session, somebody else's code.

use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Daemon, busybox_tar, eventually};

#[test]
fn a_whole_session() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    daemon.docker(&["version"]).ok().stdout_has("Server");
    daemon.docker(&["info"]).ok();
    daemon.docker(&["import"]).arg(busybox_tar()).arg("busybox").ok().stdout_has("sha256:");
    daemon.docker(&["images"]).ok().stdout_has("busybox").stdout_has("latest");
    daemon.docker(&["image", "inspect", "busybox"]).ok();
    daemon.docker(&["tag", "busybox", "other:v1"]).ok();
    daemon.docker(&["rmi", "other:v1"]).ok().stdout_has("Untagged: other:v1");
    let run = |args: &[&str]| daemon.docker(&["run", "--network", "none"]).args(args);
    run(&["--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"])
        .fails(7)
        .stdout_is("out\n")
        .stderr_has("err");
    run(&["--rm", "-i", "busybox", "cat"]).stdin("typed\n").ok().stdout_is("typed\n");
    run(&[
        "--rm",
        "-e",
        "A=b",
        "-w",
        "/tmp",
        "-u",
        "1000",
        "--hostname",
        "here",
        "busybox",
        "sh",
        "-c",
        "echo $A; pwd; id -u; hostname",
    ])
    .ok()
    .stdout_is("b\n/tmp\n1000\nhere\n");
    run(&[
        "--rm",
        "--memory",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--read-only",
        "--cap-drop",
        "ALL",
        "--init",
        "busybox",
        "true",
    ])
    .ok();
    run(&["--rm", "busybox", "nope"]).fails(127);
    run(&["--rm", "busybox", "/etc/passwd"]).fails(126);
    let id = run(&["-d", "--name", "web", "busybox", "sh", "-c", "echo ready; exec sleep 1000"])
        .ok()
        .trimmed()
        .to_owned();
    assert_eq!(id.len(), 64);
    daemon.docker(&["ps"]).ok().stdout_has("web").stdout_has("Up ");
    daemon.docker(&["exec", "web", "sh", "-c", "echo in; exit 3"]).fails(3).stdout_is("in\n");
    daemon.docker(&["exec", "-i", "web", "cat"]).stdin("typed\n").ok().stdout_is("typed\n");
    daemon.docker(&["logs", "web"]).ok().stdout_is("ready\n");
    daemon.docker(&["inspect", "--format", "{{.State.Status}}", "web"]).ok().stdout_is("running\n");
    daemon.docker(&["top", "web"]).ok().stdout_has("sleep 1000");
    daemon.docker(&["pause", "web"]).ok();
    daemon.docker(&["ps"]).ok().stdout_has("(Paused)");
    daemon.docker(&["unpause", "web"]).ok();
    daemon.docker(&["kill", "--signal", "KILL", "web"]).ok();
    daemon.docker(&["wait", "web"]).ok().stdout_is("137\n");
    daemon.docker(&["start", "web"]).ok();
    daemon.docker(&["stop", "-t", "0", "web"]).ok();
    daemon.docker(&["ps", "-a"]).ok().stdout_has("Exited (137)");
    daemon.docker(&["rm", "web"]).ok();
    daemon.docker(&["rm", "web"]).fails(1).stderr_has("No such container: web");
    daemon.docker(&["ps", "-aq"]).ok().stdout_is("");
    let told = super::events::told(&daemon, &[]);
    assert!(
        told.iter().any(|line| line.contains("container die") && line.contains("exitCode=7")),
        "{told:#?}"
    );
}

#[test]
fn cp_both_ways() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let file = daemon.dir().join("file");
    std::fs::write(&file, "content\n").expect("a fresh directory");
    daemon.docker(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    daemon.docker(&["cp"]).arg(&file).arg("web:/tmp/renamed").ok();
    let back = daemon.dir().join("back");
    daemon.docker(&["cp", "web:/tmp/renamed"]).arg(&back).ok();
    assert_eq!(std::fs::read_to_string(back).expect("copied"), "content\n");
}

#[test]
fn a_shell_on_a_terminal() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let docker = crate::support::requires::docker_path().expect("required above");
    let host = daemon.host();
    let args = ["-H", &host, "run", "--rm", "-it", "--network", "none", "busybox", "sh"];
    let mut terminal = Terminal::start(&docker, &args);
    terminal.expect("#");
    terminal.send("echo a$((40+2))b; stty size\n");
    terminal.expect("a42b");
    terminal.expect("24 80");
    terminal.send("exit 5\n");
    assert_eq!(terminal.wait(), 5);
}

#[test]
fn start_attached_and_attach() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon
        .docker(&["create", "--name", "web", "-i", "--network", "none", "busybox", "sh", "-c", "cat; exit 4"])
        .ok();
    daemon.docker(&["start", "-a", "-i", "web"]).stdin("typed\n").fails(4).stdout_is("typed\n");
    daemon
        .docker(&[
            "run",
            "-d",
            "-i",
            "--name",
            "two",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "read a; echo got $a; exit 2",
        ])
        .ok();
    daemon.docker(&["attach", "two"]).stdin("word\n").fails(2).stdout_is("got word\n");
}

#[test]
fn freezes_and_thaws() {
    requires!(root, docker, criu);
    let daemon = Daemon::start();
    let script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
    daemon.docker(&["run", "-d", "--name", "web", "--network", "none", "busybox", "sh", "-c", script]).ok();
    eventually("it counting", || daemon.logs("web").contains("5\n"));
    daemon.docker(&["checkpoint", "create", "web", "cp1"]).ok().stdout_is("cp1\n");
    daemon.docker(&["ps", "-a"]).ok().stdout_has("Exited");
    daemon.docker(&["checkpoint", "ls", "web"]).ok().stdout_has("cp1");
    let frozen = daemon.logs("web");
    daemon.docker(&["start", "--checkpoint", "cp1", "web"]).ok();
    eventually("it going on", || daemon.logs("web").len() > frozen.len() + 4);
    let numbers: Vec<u32> =
        daemon.logs("web").lines().map(|line| line.parse().expect("only numbers")).collect();
    assert!(numbers.iter().zip(1..).all(|(have, want)| *have == want), "a gap in {numbers:?}");
    daemon.docker(&["checkpoint", "create", "--leave-running", "web", "cp2"]).ok();
    daemon.docker(&["ps"]).ok().stdout_has("web");
    daemon.docker(&["checkpoint", "rm", "web", "cp1"]).ok();
    daemon.docker(&["checkpoint", "ls", "web"]).ok().stdout_has("cp2").stdout_lacks("cp1");
}
