//! SIGHUP: all of the new configuration, or nothing of it.

use rustix::process::{Pid, Signal, kill_process};

use super::configuration::file;
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

fn hang_up(daemon: &Daemon) {
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a pid");
    kill_process(pid, Signal::HUP).expect("the daemon runs");
}

#[test]
fn what_can_change_changes_and_the_rest_waits_for_a_restart() {
    requires!(root, docker);
    let (_dir, path) = file(r#"{"labels": ["old=1"]}"#);
    let mut daemon = Daemon::with(&["--config-file", &path], &[]);
    let new =
        r#"{"labels": ["new=2"], "debug": true, "registry-mirrors": ["http://m.example"], "group": "0"}"#;
    std::fs::write(&path, new).expect("the file is the test's");
    hang_up(&daemon);
    eventually("the reload", || daemon.log().contains("the configuration was reloaded"));
    let info = daemon.api("GET", "/info").is(200).json();
    assert_eq!((&info["Labels"][0], &info["Debug"]), (&"new=2".into(), &true.into()));
    assert_eq!(info["RegistryConfig"]["Mirrors"][0], "http://m.example/");
    let log = daemon.log();
    assert!(log.contains("a restart is needed for what changed in group"), "{log}");
    assert!(log.contains("GET /info"), "the new level is in force: {log}");
    daemon.has_told(&["daemon reload", r#"labels=["new=2"]"#, "debug=true"]);
    // What is gone from the file has its default again.
    std::fs::write(&path, "").expect("the file is the test's");
    hang_up(&daemon);
    eventually("the default", || daemon.api("GET", "/info").is(200).json()["Debug"] == false);
    assert_eq!(daemon.stop(), 0);
}

#[test]
fn a_bad_file_leaves_everything_as_it_was() {
    requires!(root);
    let (_dir, path) = file(r#"{"labels": ["old=1"], "debug": true}"#);
    let daemon = Daemon::with(&["--config-file", &path], &[]);
    for (text, part) in [
        (r#"{"labels": ["new=2"], "debug": fal"#, "EOF"),
        (r#"{"labels": ["new=2"], "no-such-key": 1}"#, "no-such-key"),
        (r#"{"labels": ["new"], "debug": false}"#, "bad attribute format: new"),
    ] {
        std::fs::write(&path, text).expect("the file is the test's");
        hang_up(&daemon);
        eventually("the refusal", || {
            let log = daemon.log();
            log.lines().any(|line| line.contains("it stays as it was") && line.contains(part))
        });
        let info = daemon.api("GET", "/info").is(200).json();
        assert_eq!((&info["Labels"][0], &info["Debug"]), (&"old=1".into(), &true.into()), "after {text}");
    }
}

#[test]
fn the_access_log_is_switched_on_and_off() {
    requires!(root);
    let (_dir, path) = file("");
    let daemon = Daemon::with(&["--config-file", &path], &[]);
    let is_told = |path: &str| daemon.log().contains(&format!("access: method=GET path={path} "));
    let set = |text: &str, count: usize| {
        std::fs::write(&path, text).expect("the file is the test's");
        hang_up(&daemon);
        let done = || daemon.log().matches("the configuration was reloaded").count() == count;
        eventually("the reload", done);
    };
    daemon.api("GET", "/v1.40/version").is(200);
    set(r#"{"access-log": true}"#, 1);
    // The switch follows the news.
    eventually("a line", || {
        daemon.api("GET", "/v1.41/version").is(200);
        is_told("/version version=1.41")
    });
    set("", 2);
    eventually("silence", || {
        let before = daemon.log().matches("access:").count();
        daemon.api("GET", "/v1.42/version").is(200);
        std::thread::sleep(std::time::Duration::from_millis(20));
        daemon.log().matches("access:").count() == before
    });
    assert!(!is_told("/version version=1.40"), "{}", daemon.log());
}
