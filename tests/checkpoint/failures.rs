//! Dumps and restores that fail: the container runs on, nothing half written stays, the words say what to do.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{counting, counts_past, kinds_of_run, numbers, with_run};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, eventually};

/// A criu that answers as `body` says, put before the real one.
fn fake_criu(dir: &std::path::Path, body: &str) -> String {
    let path = dir.join("fake-criu");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a fresh directory");
    Cmd::new("chmod").arg("755").arg(&path).ok();
    path.display().to_string()
}

pub fn with_fake_criu(body: &str) -> (Daemon, TempDir) {
    let dir = TempDir::new();
    let criu = fake_criu(dir.path(), body);
    let daemon = Daemon::with(&["--criu", &criu], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run_detached("web", &[], super::COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
    (daemon, dir)
}

/// Files named like a checkpoint, whole or partial.
fn files_of(daemon: &Daemon, name: &str) -> String {
    Cmd::new("find").arg(daemon.dir().join("data")).args(["-name", &format!("*{name}*")]).ok().stdout
}

#[test]
fn no_criu_is_said_with_what_to_do() {
    requires!(root);
    let daemon = Daemon::with(&["--criu", "/nonexistent/criu"], &[]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    daemon.run_detached("web", &[], super::COUNTER);
    let output = daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1);
    output.stderr_has("/nonexistent/criu").stderr_has("--criu");
    assert_eq!(daemon.state("web")["Status"], "running");
    assert_eq!(files_of(&daemon, "cp1"), "");
}

#[test]
fn a_criu_that_does_not_work_is_said_with_what_to_do() {
    requires!(root);
    let (daemon, _dir) =
        with_fake_criu("case \" $* \" in *version*|*-V*) echo 'Version: 3.11'; exit 0;; esac; exit 1");
    let output = daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1);
    // It does not even speak the protocol; the words say which one it is and how to get another.
    output.stderr_has("does not start").stderr_has("fake-criu").stderr_has("scripts/criu.sh");
    counts_past(&daemon, numbers(&daemon).len());
    assert_eq!(files_of(&daemon, "cp1"), "");
}

#[test]
fn a_dump_that_fails_leaves_the_container_running() {
    requires!(root);
    let body = "case \" $* \" in *version*|*-V*) echo 'Version: 4.2'; exit 0;; esac\n\
                dir=.; while [ $# -gt 0 ]; do case $1 in -D|--images-dir|-W|--work-dir) dir=$2; echo junk > \"$2/pages-1.img\"; \
                echo '(00.1) Error (criu/some.c:1): the reason it failed' > \"$2/dump.log\";; esac; shift; done; exit 1";
    let (daemon, _dir) = with_fake_criu(body);
    let output = daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1);
    output.stderr_has("web");
    counts_past(&daemon, numbers(&daemon).len());
    assert_eq!(files_of(&daemon, "cp1"), "");
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_lacks("cp1");
    assert_eq!(daemon.state("web")["Status"], "running");
}

#[test]
fn a_container_that_cannot_be_dumped_runs_on() {
    requires!(root, criu);
    // A file of the host's init, open in the container's process, cannot be found again.
    let daemon = counting(&["--pid", "host"]);
    let output = daemon.dewar(&["checkpoint", "create", "web", "cp1"]).run();
    if output.code != 0 {
        counts_past(&daemon, numbers(&daemon).len());
        assert_eq!(daemon.state("web")["Status"], "running");
        assert_eq!(files_of(&daemon, "cp1"), "");
        assert!(!output.stderr.trim().is_empty());
    }
}

#[test]
fn a_broken_checkpoint_is_refused_and_can_be_tried_again() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "web", "good"]).ok();
    let frozen = numbers(&daemon).len();
    // Its network namespace goes after the exit was told.
    eventually("what it had to go", || daemon.leftovers().mounts.is_empty());
    let before = daemon.leftovers();
    let good = files_of(&daemon, "good");
    let good = std::path::Path::new(good.lines().next().expect("it is on disk"));
    let bad = good.with_file_name("bad");
    Cmd::new("cp").arg("-a").arg(good).arg(&bad).ok();
    let pages = Cmd::new("find").arg(&bad).args(["-name", "core-*.img"]).ok();
    for file in pages.stdout.lines() {
        std::fs::write(file, "not an image").expect("a file of ours");
    }
    let output = daemon.dewar(&["start", "--checkpoint", "bad", "web"]).fails(1);
    output.stderr_has("bad");
    assert_eq!(daemon.state("web")["Running"], false);
    before.assert_same_now();
    daemon.dewar(&["start", "--checkpoint", "good", "web"]).ok();
    counts_past(&daemon, frozen);
}

/// The words are CRIU's decisive ones with their cause; the whole log is kept, of the newest attempts, and goes with
/// the container.
#[test]
fn the_log_of_a_failure_is_kept_and_named() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let shared = daemon.dir().join("shared");
    std::fs::create_dir(&shared).expect("a fresh directory");
    std::fs::write(shared.join("file"), "text").expect("a fresh directory");
    let mount = format!("{}:/shared", shared.display());
    daemon.run_detached("web", &["-v", &mount], "exec 9< /shared/file; while :; do sleep 1; done");
    let named = |output: &crate::support::Output| {
        let path = output.stderr.split_once("(criu's log: ").expect("a log").1;
        std::path::PathBuf::from(path.split_once(')').expect("a path").0)
    };
    // A queue of messages cannot be frozen.
    let queue = "/dev/mqueue/queue";
    daemon.dewar(&["exec", "web", "touch", queue]).ok();
    let mut logs = Vec::new();
    for _ in 0..6 {
        let output = daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1);
        output.stderr_has("POSIX message queue").stderr_has("mqueue isn't empty");
        logs.push(named(&output));
    }
    let text = std::fs::read_to_string(&logs[5]).expect("the newest is kept");
    assert!(text.contains("Error (") && text.contains("mqueue isn't empty"), "{text}");
    assert!(!logs[0].exists(), "no more than five are kept");
    let meta = std::fs::metadata(&logs[5]).expect("kept");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o600);
    daemon.dewar(&["exec", "web", "rm", queue]).ok();
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    std::fs::write(shared.join("file"), "text and more").expect("it is there");
    let output = daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).fails(1);
    output.stderr_has("has changed since").stderr_has("has bad size 13 (expect 4)");
    let log = named(&output);
    assert!(std::fs::read_to_string(&log).expect("kept").contains("has bad size"));
    // A copy's is with the original: the copy is gone.
    let output = daemon.dewar(&["restore", "web", "cp1"]).fails(1);
    assert_eq!(named(&output).parent(), log.parent());
    std::fs::write(shared.join("file"), "text").expect("it is there");
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    daemon.dewar(&["rm", "-f", "web"]).ok();
    assert!(!log.exists());
}

#[test]
fn a_dump_that_cannot_get_its_name_is_not_lost() {
    requires!(root, criu);
    let place = TempDir::new();
    let (dir, flag) = (place.path().join("checkpoints"), place.path().join("flag"));
    let target = dir.join("cp1");
    // Something takes the name between the look at it and the end of the dump.
    let (mut daemon, _fake) = with_fake_criu(&format!(
        "[ \"$2\" = swrk ] && [ -e {flag} ] && mkdir -p {target} && : >{target}/taken\nexec {criu} \"$@\"",
        flag = flag.display(),
        target = target.display(),
        criu = std::env::var("DEWAR_TEST_CRIU").expect("it is required"),
    ));
    let dir = dir.display().to_string();
    let freeze = |daemon: &Daemon| {
        std::fs::write(&flag, "").expect("a directory of ours");
        let output = daemon.dewar(&["checkpoint", "create", "--checkpoint-dir", &dir, "web", "cp1"]).fails(1);
        output.stderr_has("it is frozen, and stays in").stderr_has("cp1.partial");
        std::fs::remove_file(&flag).expect("it was made");
        eventually("it gone", || daemon.state("web")["Running"] == false);
    };
    let thaw =
        |daemon: &Daemon| daemon.dewar(&["start", "--checkpoint", "cp1", "--checkpoint-dir", &dir, "web"]);
    freeze(&daemon);
    thaw(&daemon).fails(1).stderr_has("finish checkpoint cp1").stderr_has("not empty");
    daemon.kill9();
    daemon.restart();
    assert!(std::path::Path::new(&dir).join("cp1.partial").is_dir(), "the next daemon keeps it");
    thaw(&daemon).fails(1);
    std::fs::remove_dir_all(&target).expect("it was made");
    thaw(&daemon).ok();
    counts_past(&daemon, numbers(&daemon).len());
    // Or it is finished when the next daemon starts.
    daemon.dewar(&["checkpoint", "rm", "--checkpoint-dir", &dir, "web", "cp1"]).ok();
    freeze(&daemon);
    std::fs::remove_dir_all(&target).expect("it was made");
    daemon.kill9();
    daemon.restart();
    daemon.dewar(&["checkpoint", "ls", "--checkpoint-dir", &dir, "web"]).ok().stdout_has("cp1");
    thaw(&daemon).ok();
    counts_past(&daemon, numbers(&daemon).len());
    // Or nobody wants it.
    daemon.dewar(&["checkpoint", "rm", "--checkpoint-dir", &dir, "web", "cp1"]).ok();
    freeze(&daemon);
    daemon.dewar(&["checkpoint", "rm", "--checkpoint-dir", &dir, "web", "cp1"]).ok();
    assert!(!std::path::Path::new(&dir).join("cp1.partial").exists());
    std::fs::remove_dir_all(&target).expect("it was made");
    thaw(&daemon).fails(1).stderr_has("does not exist");
}

#[test]
fn checkpoint_names_cannot_leave_their_directory() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    for name in ["../x", "a/b", "/abs", "..", ".", "", "a\u{0}b", "-x", ".hidden", &"n".repeat(300)] {
        let body = serde_json::json!({"CheckpointID": name, "Exit": false});
        daemon.api_json("POST", "/containers/web/checkpoints", &body).refuses(400, "");
        if !name.contains('\0') {
            let output = daemon.dewar(&["checkpoint", "create", "--", "web", name]).run();
            assert!(output.code != 0, "{name:?}: {output}");
        }
    }
    for name in ["..%2Fx", "%2E%2E", "a%2Fb"] {
        let status = daemon.api("DELETE", &format!("/containers/web/checkpoints/{name}")).status;
        assert!(matches!(status, 400 | 404), "{name}: {status}");
        let status = daemon.api("POST", &format!("/containers/web/start?checkpoint={name}")).status;
        assert!(matches!(status, 400 | 404), "{name}: {status}");
    }
    assert!(!daemon.dir().join("x").exists() && !daemon.dir().join("data/x").exists());
    assert_eq!(daemon.state("web")["Status"], "running");
}

#[test]
fn a_paused_container_and_a_stopped_one() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["pause", "web"]).ok();
    let output = daemon.dewar(&["checkpoint", "create", "web", "cp1"]).run();
    if output.code != 0 {
        output.stderr_has("paused");
        assert_eq!(daemon.state("web")["Status"], "paused");
        daemon.dewar(&["unpause", "web"]).ok();
    }
    daemon.dewar(&["rm", "-f", "web"]).ok();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1).stderr_has("not running");
}

/// Whoever is attached while CRIU fails to thaw is told why, and not left waiting; the next start serves the next one.
#[test]
fn attached_clients_hear_of_a_thaw_that_fails() {
    requires!(root, criu, docker);
    const SCRIPT: &str =
        "[ ! -e /own/again ] || { echo again; exit 3; }; exec 3>/own/file; while :; do sleep 0.1; done";
    let daemon = Daemon::start();
    for (flags, end) in [(&["-i"][..], "\n"), (&["-it"], "\r\n")] {
        let dir = TempDir::new();
        let mount = format!("{}:/own", dir.path().display());
        daemon.run_detached("web", &[flags, &["-v", &mount]].concat(), SCRIPT);
        let file = dir.path().join("file");
        eventually("it running", || file.exists());
        daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
        // It is opened again, and is not there.
        std::fs::remove_file(&file).expect("a directory of ours");
        let thaw = ["start", "-a", "--checkpoint", "cp1", "web"];
        for output in [daemon.docker(&thaw).fails(1), daemon.dewar(&thaw).fails(1)] {
            output.stderr_has("failed to start container").stderr_has("own/file").stdout_is("");
        }
        assert_eq!(daemon.state("web")["Status"], "exited");
        std::fs::write(dir.path().join("again"), "").expect("a directory of ours");
        daemon.docker(&["start", "-a", "web"]).fails(3).stdout_is(&format!("again{end}"));
        daemon.dewar(&["start", "-a", "web"]).fails(3).stdout_is(&format!("again{end}"));
        daemon.dewar(&["rm", "web"]).ok();
    }
}

/// Whatever of CRIU there is by then, nothing of the shim's may live on in it.
#[test]
fn a_shim_that_is_killed_when_criu_comes_is_missed_at_once() {
    requires!(root, criu);
    let disk = TempDir::new();
    for mount in kinds_of_run(disk.path()) {
        let daemon = with_run(&mount, "");
        daemon.run_detached("web", &[], super::COUNTER);
        eventually("it counting", || numbers(&daemon).len() > 5);
        daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
        eventually("the end of its shim", || children(daemon.pid()).is_empty());
        let frozen = numbers(&daemon).len();
        let thaw = ["start", "--checkpoint", "cp1", "web"];
        let mut client = daemon.dewar(&thaw).spawn();
        let begin = Instant::now();
        // Without a rest: it is milliseconds.
        let shim = loop {
            if let Some(shim) = children(daemon.pid()).into_iter().find(|shim| !children(*shim).is_empty()) {
                break shim;
            }
            assert!(begin.elapsed() < Duration::from_secs(10), "no criu has come");
        };
        kill_process(Pid::from_raw(shim as i32).expect("not 0"), Signal::KILL).expect("a process of ours");
        assert_eq!(client.wait(), 1, "{mount}");
        daemon.dewar(&thaw).ok();
        counts_past(&daemon, frozen);
        daemon.dewar(&["rm", "-f", "web"]).ok();
    }
}

/// The processes that a process has started and not reaped.
fn children(pid: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.map(|thread| std::fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}
