//! Thaws that let processes run before their memory is there: nothing of it is lost, and without the rest nothing runs
//! on.

use super::peers::{self, MEMORY};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

/// A container that remembers so many MiB, and has looked at them once.
fn remembering(mebibytes: u32) -> Daemon {
    let daemon = Daemon::start();
    peers::run(&daemon, "web", &[], &format!("{MEMORY}{mebibytes}"));
    eventually("its memory", || rounds(&daemon, "web") > 1);
    daemon
}

/// How often the memory was whole.
#[track_caller]
pub(super) fn rounds(daemon: &Daemon, name: &str) -> usize {
    let logs = daemon.logs(name);
    assert!(!logs.contains("broken"), "{name}: {logs}");
    logs.matches("whole").count()
}

/// The page daemons of a daemon's containers.
pub(super) fn page_daemons(daemon: &Daemon) -> Vec<u32> {
    let dir = daemon.dir().join("run/containers").display().to_string();
    let numbers = std::fs::read_dir("/proc").expect("it is mounted").flatten();
    let numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_one = |number: &u32| {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.contains("lazy-pages\0-D") && line.contains(&dir)
    };
    numbers.filter(is_one).collect()
}

#[test]
fn memory_that_comes_later_is_whole() {
    requires!(root, criu);
    let mut daemon = remembering(48);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let before = rounds(&daemon, "web");
    daemon.dewar(&["start", "--lazy", "--checkpoint", "cp1", "web"]).ok();
    assert_eq!(daemon.state("web")["Status"], "running");
    eventually("its memory again", || rounds(&daemon, "web") > before + 2);
    daemon.has_told(&["container restore", "memory=lazy"]);
    // When all of it is there nobody brings any more, and it can be frozen as any other.
    eventually("the end of the page daemon", || page_daemons(&daemon).is_empty());
    daemon.dewar(&["checkpoint", "create", "web", "cp2"]).ok();
    daemon.dewar(&["restore", "--lazy", "--count", "2", "--name", "copy", "web", "cp2"]).ok();
    // Who brings the memory is the shims', not the daemon's.
    daemon.kill9();
    daemon.restart();
    for name in ["copy-1", "copy-2"] {
        eventually("its memory again", || rounds(&daemon, name) > 2);
    }
    eventually("the end of the page daemons", || page_daemons(&daemon).is_empty());
    // One that is ended early takes its page daemon with it.
    daemon.dewar(&["start", "--lazy", "--checkpoint", "cp2", "web"]).ok();
    daemon.dewar(&["rm", "-f", "web"]).ok();
    eventually("the end of the page daemon", || page_daemons(&daemon).is_empty());
    daemon.dewar(&["clone", "--name", "third", "copy-1"]).ok();
    eventually("its memory", || rounds(&daemon, "third") > 2);
}

#[test]
fn without_the_rest_of_its_memory_nothing_runs_on() {
    requires!(root, criu);
    let daemon = remembering(192);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let caught = (0..10).any(|_| {
        daemon.dewar(&["start", "--lazy", "--checkpoint", "cp1", "web"]).ok();
        let found = page_daemons(&daemon);
        for number in &found {
            Cmd::new("kill").args(["-9", &number.to_string()]).run();
        }
        // It may have come to its end just before.
        let is_over = || daemon.state("web")["Running"] == false;
        let ended = !found.is_empty() && {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while !is_over() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            is_over()
        };
        if !ended {
            daemon.dewar(&["kill", "web"]).run();
        }
        ended
    });
    assert!(caught, "no page daemon was met at work");
    let state = daemon.state("web");
    assert_eq!(state["ExitCode"], 137, "{state}");
    assert!(state["Error"].as_str().unwrap_or_default().contains("memory is not whole"), "{state}");
    assert!(daemon.log().contains("memory is not whole"), "{}", daemon.log());
    rounds(&daemon, "web");
    // The checkpoint is as good as before.
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    let before = rounds(&daemon, "web");
    eventually("its memory again", || rounds(&daemon, "web") > before + 2);
    daemon.dewar(&["start", "--lazy", "web"]).fails(1).stderr_has("--checkpoint");
}
