//! `dewar ping --wait`, which init scripts stand on: it ends with the daemon's first answer or when the time is over.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

use super::dewar;
use crate::support::{Cmd, TempDir, binary};

/// `dewar ping --wait DURATION` of a socket in `dir`.
fn ping(dir: &TempDir, wait: &str) -> Cmd {
    let host = format!("unix://{}", dir.path().join("s").display());
    Cmd::new(binary()).args(["-H", &host, "ping", "--wait", wait])
}

#[test]
fn without_a_daemon_it_ends_when_the_time_is_over() {
    dewar(&["ping", "--wait", "0.1"]).fails(69).stderr_has("Cannot connect");
    dewar(&["ping", "--wait=100ms"]).fails(69);
    dewar(&["ping", "--wait", "soon"]).fails(125);
}

#[test]
fn a_daemon_that_takes_connections_without_answering_does_not_hold_it() {
    let dir = TempDir::new();
    let _listener = UnixListener::bind(dir.path().join("s")).expect("a fresh directory");
    ping(&dir, "200ms").fails(69).stderr_has("does not answer within 200ms");
}

#[test]
fn one_that_hangs_up_or_is_not_there_yet_is_asked_again() {
    let dir = TempDir::new();
    let mut waiting = ping(&dir, "30").spawn();
    let listener = UnixListener::bind(dir.path().join("s")).expect("a fresh directory");
    drop(listener.accept().expect("it asks"));
    let (mut asking, _) = listener.accept().expect("it asks again");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        asking.read_exact(&mut byte).expect("a request has a head");
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HEAD "), "{}", String::from_utf8_lossy(&head));
    asking
        .write_all(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n")
        .expect("it listens");
    assert_eq!(waiting.wait(), 0);
}
