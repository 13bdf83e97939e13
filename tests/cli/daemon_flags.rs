//! `dewar daemon` before it serves: what it refuses to start with, and that it leaves nothing then.

use super::as_nobody;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, binary};

/// `dewar daemon` on directories below `dir`, with further flags.
fn daemon(dir: &TempDir, flags: &[&str]) -> Cmd {
    let at = |name: &str| dir.path().join(name).display().to_string();
    let host = format!("unix://{}", at("s"));
    let command = Cmd::new(binary()).args(["daemon", "--data-root", &at("data"), "--exec-root", &at("run")]);
    // A second -H would add a host; tests that give one mean only that one.
    let command = if flags.contains(&"-H") { command } else { command.args(["-H", &host]) };
    command.args(flags)
}

#[test]
fn not_root_is_said_so() {
    requires!(root);
    let dir = TempDir::new();
    Cmd::new("chmod").arg("777").arg(dir.path()).ok();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let host = format!("unix://{}", at("s"));
    let args = ["daemon", "--data-root", &at("data"), "--exec-root", &at("run"), "-H", &host];
    let output = as_nobody(dir.path(), &args).run();
    assert!(output.code != 0, "{output}");
    output.stderr_has("root").no_panic();
}

#[test]
fn tcp_is_refused_unless_asked_for_and_loopback() {
    requires!(root);
    let dir = TempDir::new();
    for flags in [&["-H", "tcp://127.0.0.1:0"][..], &["-H", "tcp://0.0.0.0:0", "--insecure-tcp"]] {
        let output = daemon(&dir, flags).run();
        assert!(output.code != 0, "{output}");
        output.stderr_has("tcp").no_panic();
        assert!(!dir.path().join("s").exists(), "no socket is left: {output}");
    }
}

#[test]
fn bad_flags_are_refused() {
    requires!(root);
    let dir = TempDir::new();
    for flags in [
        &["--dta-root", "/x"][..],
        &["-H", "bogus://x"],
        &["-H", "unix://relative"],
        &["--group", "no-such-group-here"],
        &["extra"],
    ] {
        let output = daemon(&dir, flags).run();
        assert!(output.code != 0, "{output}");
        output.no_panic();
        assert!(!output.stderr.trim().is_empty(), "it must say why: {output}");
    }
}

#[test]
fn a_second_daemon_on_the_same_root_is_refused() {
    requires!(root);
    let daemon = Daemon::empty();
    let output = daemon.again().run();
    assert!(output.code != 0, "{output}");
    output.stderr_has(&daemon.dir().join("data").to_string_lossy());
    // The first is none the worse for it, its socket included.
    daemon.api("GET", "/_ping").is(200);
}

#[test]
fn a_socket_in_use_is_refused() {
    requires!(root);
    let first = Daemon::empty();
    let dir = TempDir::new();
    let output = daemon(&dir, &["-H", &first.host()]).run();
    assert!(output.code != 0, "{output}");
    first.api("GET", "/_ping").is(200);
}

#[test]
fn a_data_root_that_cannot_be_made_is_named() {
    requires!(root);
    let dir = TempDir::new();
    std::fs::write(dir.path().join("data"), "a file").expect("a fresh directory");
    let output = daemon(&dir, &[]).run();
    assert!(output.code != 0, "{output}");
    output.stderr_has("data").no_panic();
    assert!(!dir.path().join("s").exists(), "no socket is left");
}
