//! The daemon's own log: its shape, and where it goes on a host without a supervisor.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, binary, eventually};

/// Makes the daemon say something: at level debug each request is a line.
fn ask(daemon: &Daemon, word: &str) {
    daemon.api("GET", &format!("/containers/{word}/json")).is(404);
}

#[test]
fn json_lines_have_dockers_keys() {
    requires!(root);
    let daemon = Daemon::with(&["--log-format", "json", "--debug"], &[]);
    ask(&daemon, "quoted%22name");
    let log = daemon.log();
    let mut levels = Vec::new();
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).expect(line);
        let keys: Vec<&str> = value.as_object().expect(line).keys().map(String::as_str).collect();
        assert_eq!(keys, ["level", "msg", "time"], "{line}");
        assert!(value["time"].as_str().expect(line).parse::<jiff::Timestamp>().is_ok(), "{line}");
        levels.push(value["level"].as_str().expect(line).to_owned());
    }
    assert!(levels.contains(&"info".to_owned()) && levels.contains(&"debug".to_owned()), "{log}");
    assert!(log.contains("serves API"), "{log}");
}

#[test]
fn a_file_is_rotated_and_made_again_when_it_was_moved() {
    requires!(root);
    let dir = TempDir::new();
    let path = dir.path().join("dewar.log");
    let text = path.to_string_lossy().into_owned();
    let flags = ["--log-to", &text, "--log-file-max-size", "2k", "--log-file-max-files", "3", "--debug"];
    let daemon = Daemon::with(&flags, &[]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    // It answers before it has said so.
    eventually("it serves", || read("dewar.log").contains("serves API"));
    assert_eq!(daemon.log(), "", "nothing of it goes to standard error");
    for number in 0..100 {
        ask(&daemon, &format!("name{number}"));
    }
    eventually("it is rotated", || !read("dewar.log.2").is_empty());
    assert!(!dir.path().join("dewar.log.3").exists());
    let log = ["dewar.log.2", "dewar.log.1", "dewar.log"].map(read).concat();
    assert!(["dewar.log", "dewar.log.1", "dewar.log.2"].iter().all(|name| read(name).len() <= 2048));
    let times: Vec<&str> = log.lines().map(|line| line.split(' ').next().expect("a time")).collect();
    assert!(times.iter().all(|time| time.parse::<jiff::Timestamp>().is_ok()) && times.is_sorted(), "{log}");
    std::fs::rename(&path, dir.path().join("moved")).expect("one directory");
    ask(&daemon, "after");
    eventually("the file is there again", || read("dewar.log").contains("after"));
    assert!(!read("moved").contains("after"));
    // A start that fails says so in both places.
    daemon.again().args(["--log-to", &text]).fails(1).stderr_has("failed to start daemon");
    assert!(read("dewar.log").contains("[ERROR] failed to start daemon"), "{}", read("dewar.log"));
}

#[test]
fn what_the_file_does_not_take_goes_to_standard_error() {
    requires!(root);
    // A full disk.
    let daemon = Daemon::with(&["--log-to", "/dev/full"], &[]);
    eventually("its first line is there", || daemon.log().contains("[INFO ] dewar"));
    let nowhere = ["--log-to", "/nowhere/log"];
    daemon.again().args(nowhere).fails(1).stderr_has("open the log \"/nowhere/log\": No such file");
    let validate = |flags: [&str; 2]| Cmd::new(binary()).args(["daemon", "--validate"]).args(flags);
    validate(["--log-to", "some/file"]).fails(1).stderr_has("expected stderr, syslog or the absolute path");
    validate(["--log-format", "xml"]).fails(1).stderr_has("log-format");
    validate(["--log-file-max-files", "0"]).fails(1).stderr_has("log-file-max-files");
    validate(["--log-to", "syslog"]).ok();
}

/// This host's syslog is a socket of the test's, in a mount namespace of the daemon's own.
#[test]
fn syslog_gets_each_record_and_may_be_restarted() {
    requires!(root);
    let dir = TempDir::new();
    let bind = || {
        let socket = UnixDatagram::bind(dir.path().join("log")).expect("a free name");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        socket
    };
    let script = format!(
        "mount -t tmpfs none /run && ln -s {0}/log /run/log \
         && if [ -e /dev/log ]; then mount --bind {0}/log /dev/log; fi \
         && exec \"$0\" \"$@\" --log-to syslog --debug",
        dir.path().display()
    );
    let receiver = bind();
    let daemon = Daemon::inside(&["unshare", "-m", "sh", "-c", &script]);
    let receive = |from: &UnixDatagram| {
        let mut buffer = [0; 4096];
        let bytes = from.recv(&mut buffer).expect("a record");
        String::from_utf8_lossy(&buffer[..bytes]).into_owned()
    };
    let find = |from: &UnixDatagram, part: &str| {
        (0..100).map(|_| receive(from)).find(|text| text.contains(part)).expect("a record")
    };
    let first = find(&receiver, "serves API");
    // daemon is 3; info 6, debug 7.
    assert!(
        first.starts_with("<30>") && first.contains(&format!(" dewar[{}]: dewar ", daemon.pid())),
        "{first}"
    );
    ask(&daemon, "before");
    assert!(find(&receiver, "before").starts_with("<31>"));
    if std::path::Path::new("/dev/log").exists() {
        // What is bound there stays there.
        return;
    }
    drop(receiver);
    std::fs::remove_file(dir.path().join("log")).expect("the socket's name");
    ask(&daemon, "between");
    eventually("it is said elsewhere", || daemon.log().contains("between"));
    let receiver = bind();
    ask(&daemon, "after");
    find(&receiver, "after");
}
