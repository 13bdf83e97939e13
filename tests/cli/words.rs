//! Help, unknown words, missing words, and the client's own failures.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use super::{as_nobody, dewar};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, binary, prop};

/// What issue 2 says works; each must have a help page.
const COMMANDS: &[&str] = &[
    "attach",
    "cp",
    "create",
    "daemon",
    "events",
    "exec",
    "images",
    "import",
    "info",
    "inspect",
    "kill",
    "load",
    "logs",
    "pause",
    "ps",
    "rm",
    "rmi",
    "run",
    "start",
    "stop",
    "tag",
    "top",
    "unpause",
    "version",
    "wait",
    "checkpoint create",
    "checkpoint ls",
    "checkpoint rm",
    "container inspect",
    "image inspect",
];

#[test]
fn help_lists_the_commands() {
    let help = Cmd::new(binary()).arg("--help").ok();
    for word in ["run", "ps", "checkpoint", "daemon"] {
        help.stdout_has(word);
    }
    assert!(help.stderr.is_empty(), "asked-for help goes to stdout: {help}");
}

#[test]
fn every_command_has_a_help_page() {
    for command in COMMANDS {
        let words: Vec<_> = command.split(' ').collect();
        let help = Cmd::new(binary()).args(&words).arg("--help").ok();
        help.stdout_has("Usage").stdout_has(command);
    }
}

#[test]
fn unknown_words_get_a_suggestion() {
    dewar(&["chekpoint"]).fails(1).stderr_has("chekpoint").stderr_has("checkpoint");
    dewar(&["checkpoint", "creat", "a", "b"]).fails(1).stderr_has("create");
    dewar(&["rnu", "busybox"]).fails(1).stderr_has("run");
    // As docker: a flag that does not read is 125, with every command.
    dewar(&["run", "--detahc", "busybox"]).fails(125).stderr_has("--detahc").stderr_has("--detach");
    let output = dewar(&["ps", "--al"]).fails(125);
    output.stderr_has("--al").stderr_has("--all");
}

#[test]
fn missing_arguments_are_named() {
    for words in
        [&["rm"][..], &["stop"], &["checkpoint", "create", "web"], &["tag", "a"], &["logs"], &["exec", "web"]]
    {
        let output = dewar(words).fails(1);
        output.stderr_has("argument").stderr_has("Usage:").no_panic();
    }
    dewar(&["run"]).fails(1).stderr_has("argument");
}

#[test]
fn too_many_arguments_are_refused() {
    dewar(&["version", "now"]).fails(1).stderr_has("accepts no arguments");
}

#[test]
fn values_that_do_not_read_are_named() {
    for (flag, value) in [
        ("--memory", "lots"),
        ("--memory", "-5m"),
        ("--cpus", "many"),
        ("--cpus", "-1"),
        ("--pids-limit", "x"),
        ("--volume", "relative:"),
        ("--env", ""),
    ] {
        let output = dewar(&["run", &format!("{flag}={value}"), "busybox"]).fails(125);
        output.no_panic();
        assert!(
            !output.stderr.contains("Cannot connect"),
            "the daemon need not be asked about {flag} {value}: {output}"
        );
    }
}

#[test]
fn a_missing_daemon_is_said_so() {
    // Compat: docker's words and codes, to the letter.
    let words = "Cannot connect to the Docker daemon at unix:///nonexistent/dewar.sock. \
                 Is the docker daemon running?\n";
    let output = dewar(&["ps"]).fails(1);
    assert_eq!(output.stderr, words, "{output}");
    let output = dewar(&["rm", "a", "b"]).fails(1);
    assert_eq!(output.stderr, words.repeat(2), "each name gets its turn: {output}");
    dewar(&["run", "busybox"]).fails(125).stderr_has(words).stderr_has("Run 'dewar run --help'");
    dewar(&["ping"]).fails(69).stderr_has("/nonexistent/dewar.sock");
    Cmd::new(binary()).args(["-H", "tcp://127.0.0.1:1", "ps"]).fails(1).stderr_has("127.0.0.1:1");
}

#[test]
fn a_host_that_is_none_is_refused() {
    for host in ["", "nonsense://x", "tcp://", "unix://", "tcp://127.0.0.1:99999999", "tcp://host:port"] {
        let output = Cmd::new(binary()).args(["-H", host, "ps"]).run();
        assert!(output.code != 0, "{output}");
        output.no_panic();
    }
}

#[test]
fn a_socket_one_may_not_open_is_said_so() {
    requires!(root);
    let daemon = Daemon::empty();
    let dir = TempDir::new();
    // The daemon's directory is private; its socket is what this is about.
    Cmd::new("chmod").arg("755").arg(daemon.dir()).ok();
    as_nobody(dir.path(), &["-H", &daemon.host(), "ping"]).fails(77);
    let output = as_nobody(dir.path(), &["-H", &daemon.host(), "ps"]).fails(1);
    output.stderr_has("permission denied").stderr_has(&daemon.socket().to_string_lossy());
}

/// Serves one canned reply to each connection.
fn canned(reply: &'static [u8]) -> (TempDir, String) {
    let dir = TempDir::new();
    let socket = dir.path().join("fake.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in a fresh directory");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            drop(stream.read(&mut [0; 4096]));
            drop(stream.write_all(reply));
        }
    });
    let host = format!("unix://{}", socket.display());
    (dir, host)
}

#[test]
fn versions_that_do_not_meet_are_said_so() {
    let (_dir, host) = canned(
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 98\r\nConnection: close\r\n\r\n\
          {\"message\":\"client version 1.51 is too new. Maximum supported API version is 1.20          \"}         ",
    );
    Cmd::new(binary()).args(["-H", &host, "ps"]).fails(1).stderr_has("1.20");
    Cmd::new(binary()).args(["-H", &host, "ping"]).fails(76);
}

#[test]
fn a_peer_that_speaks_something_else_is_said_so() {
    for reply in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n<html",
        b"\x00\xff\r\n\r\n",
    ] {
        let (_dir, host) = canned(reply);
        let output = Cmd::new(binary()).args(["-H", &host, "ps"]).run();
        assert!(output.code != 0, "{output}");
        output.no_panic();
        assert!(!output.stderr.trim().is_empty(), "it must say why: {output}");
    }
}

#[test]
fn a_server_error_is_said_in_the_servers_words() {
    let (_dir, host) = canned(
        b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\
          Connection: close\r\n\r\n{\"message\":\"disk on fire!!\"}\n",
    );
    Cmd::new(binary()).args(["-H", &host, "ps"]).fails(1).stderr_has("disk on fire!!");
}

#[test]
fn nothing_typed_makes_it_panic() {
    let words = [
        "run",
        "ps",
        "exec",
        "checkpoint",
        "create",
        "ls",
        "image",
        "container",
        "inspect",
        "cp",
        "logs",
        "-",
        "--",
        "-a",
        "-it",
        "--rm",
        "--name",
        "--name=",
        "=",
        "--memory",
        "99999999999999999999g",
        "-v",
        "::",
        "/:/:/",
        "busybox",
        "--cap-add",
        "\u{1f980}",
        "--tail",
        "-1",
        "--since",
        "--format",
        "{{",
        "{{.Names}}",
        "--filter",
        "a=b=c",
        "",
        " ",
        "--unknown",
        "-\u{301}",
        "--security-opt",
        "seccomp=",
        "--cpus",
        "1e309",
        "--signal",
        "SIG",
        "-H",
        "help",
    ];
    prop::check("nothing_typed_makes_it_panic", 150, |random| {
        let count = random.below(7);
        let args: Vec<_> = (0..count).map(|_| *random.pick(&words)).collect();
        dewar(&args).run().no_panic();
    });
}
