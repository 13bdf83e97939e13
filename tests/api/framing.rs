//! HTTP/1.1 itself: keep-alive, pipelining, lengths, chunks, and requests that smuggle or dawdle.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Daemon, eventually, prop};

#[test]
fn a_connection_serves_many_requests() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut connection = Connection::open(&daemon.socket());
    for round in 0..200 {
        let (method, path, status) =
            [("GET", "/_ping", 200), ("HEAD", "/_ping", 200), ("GET", "/nope", 404)][round % 3];
        connection.request(method, path, &[], None);
        assert_eq!(connection.reply(method).status, status, "round {round}");
    }
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut connection = Connection::open(&daemon.socket());
    connection
        .send(&b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\nGET /nope HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10));
    for _ in 0..10 {
        assert_eq!(connection.reply("GET").status, 200);
        assert_eq!(connection.reply("GET").status, 404);
    }
}

#[test]
fn the_peers_wish_to_close_is_honoured() {
    requires!(root);
    let daemon = Daemon::empty();
    for head in ["GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /_ping HTTP/1.0\r\n\r\n"]
    {
        let mut connection = Connection::open(&daemon.socket());
        connection.send(head.as_bytes());
        assert_eq!(connection.reply("GET").status, 200);
        assert!(connection.rest().is_empty(), "the daemon closes after {head:?}");
    }
}

#[test]
fn a_body_the_handler_does_not_read_does_not_become_a_request() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut connection = Connection::open(&daemon.socket());
    let body = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n";
    connection.request("POST", "/containers/none/stop", &[("Content-Type", "text/plain")], Some(body));
    let first = connection.reply("POST");
    assert!(first.status >= 400, "{first:?}");
    connection.request("GET", "/nope", &[], None);
    // Either the connection is closed now, or the next reply is the next request's.
    if let Some(next) = connection.head() {
        assert_eq!(next.status, 404);
    }
}

#[test]
fn chunked_bodies_are_read() {
    requires!(root);
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.socket());
    connection.send(
        b"POST /containers/create?name=chunked HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n",
    );
    connection.send(b"Transfer-Encoding: chunked\r\n\r\n");
    for piece in
        ["{\"Image\":\"busy", "box\",\"Cmd\":[\"true\"],", "\"HostConfig\":{\"NetworkMode\":\"none\"}}"]
    {
        connection.send(format!("{:x};ext=1\r\n{piece}\r\n", piece.len()).as_bytes());
    }
    connection.send(b"0\r\nTrailer: x\r\n\r\n");
    connection.reply("POST").is(201);
    connection.request("GET", "/_ping", &[], None);
    connection.reply("GET").is(200);
}

#[test]
fn continue_is_said_before_the_body_is_read() {
    requires!(root);
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.socket());
    let body = br#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}"#;
    let head = format!(
        "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Expect: 100-continue\r\n\r\n",
        body.len()
    );
    connection.send(head.as_bytes());
    assert_eq!(connection.head().map(|reply| reply.status), Some(100));
    connection.send(body);
    connection.reply("POST").is(201);
}

#[test]
fn ambiguous_lengths_are_refused() {
    requires!(root);
    let daemon = Daemon::empty();
    for headers in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: abc",
        "Content-Length: -1",
        "Content-Length: +5",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, gzip",
        "Content-Length: 99999999999999999999",
    ] {
        let mut connection = Connection::open(&daemon.socket());
        connection.send(
            format!("POST /containers/create HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\nhello").as_bytes(),
        );
        let reply = connection.reply("POST");
        assert!((400..=501).contains(&reply.status), "{headers:?}: {reply:?}");
        // The rest of such a connection cannot be trusted.
        assert!(connection.rest().is_empty(), "{headers:?}: the connection is closed");
    }
    daemon.api("GET", "/_ping").is(200);
}

#[test]
fn heads_have_limits() {
    requires!(root);
    let daemon = Daemon::empty();
    for head in [
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /_ping HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(1 << 20)),
        format!("GET /_ping HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(10_000)),
    ] {
        let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout that is not zero");
        // It may close before it has read everything.
        drop(stream.write_all(head.as_bytes()));
        let mut answer = [0; 12];
        let count = stream.read(&mut answer).unwrap_or(0);
        let text = String::from_utf8_lossy(&answer[..count]);
        assert!(count == 0 || text.starts_with("HTTP/1.1 4"), "{text:?}");
    }
    daemon.api("GET", "/_ping").is(200);
}

#[test]
fn bodies_have_limits() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut connection = Connection::open(&daemon.socket());
    connection.send(
        b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n",
    );
    let reply = connection.reply("POST");
    assert!(matches!(reply.status, 400 | 413), "{reply:?}");
}

#[test]
fn no_bytes_bring_it_down() {
    requires!(root);
    let daemon = Daemon::empty();
    let starts = [
        "",
        "GET ",
        "GET / HTTP/1.1\r\n",
        "POST /containers/create HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ];
    prop::check("no_bytes_bring_it_down", 150, |random| {
        let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout that is not zero");
        drop(stream.write_all(random.pick(&starts).as_bytes()));
        drop(stream.write_all(&random.bytes(300)));
        drop(stream.shutdown(std::net::Shutdown::Write));
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1."),
            "{:?}",
            String::from_utf8_lossy(&answer)
        );
    });
    daemon.api("GET", "/_ping").is(200);
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

#[test]
fn idle_and_slow_peers_do_not_starve_others() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut idle = Vec::new();
    for number in 0..100 {
        let mut stream = UnixStream::connect(daemon.socket()).expect("the daemon listens");
        if number % 2 == 0 {
            stream.write_all(b"GET /_ping HTT").expect("a socket takes a few bytes");
        }
        idle.push(stream);
    }
    let start = Instant::now();
    daemon.api("GET", "/_ping").is(200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn peers_that_vanish_are_noticed() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("quiet", &[], "exec sleep 1000");
    let open_files =
        || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("a process of ours").count();
    let threads =
        || std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("a process of ours").count();
    daemon.api("GET", "/_ping");
    let (files, tasks) = (open_files(), threads());
    let mut waiting = Vec::new();
    for path in ["/events", "/containers/quiet/wait", "/containers/quiet/logs?follow=1&stdout=1"].repeat(5) {
        let method = if path.ends_with("wait") { "POST" } else { "GET" };
        let mut connection = Connection::open(&daemon.socket());
        connection.request(method, path, &[], None);
        assert_eq!(connection.head().map(|reply| reply.status), Some(200), "{path}");
        waiting.push(connection);
    }
    assert!(open_files() >= files + 15);
    drop(waiting);
    eventually("descriptors and threads of vanished peers to be freed", || {
        open_files() <= files + 2 && threads() <= tasks + 4
    });
}
