//! What the daemon logs of requests: who asked for what, and no secret.

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

#[test]
fn each_request_is_a_line_of_the_access_log() {
    requires!(root);
    let daemon = Daemon::with(&["--debug"], &[]);
    daemon.api("GET", "/v1.44/version?x=hidden").is(200);
    daemon.api("GET", "/containers/none/json").is(404);
    daemon.api("GET", "/nothing").is(404);
    let peer = format!("uid=0 pid={}", std::process::id());
    for parts in [
        ["method=GET path=/version version=1.44 status=200 bytes=", &peer],
        ["method=GET path=/containers/none/json version=- status=404 bytes=", &peer],
        ["method=GET path=/nothing version=- status=404 bytes=29 seconds=0.", &peer],
    ] {
        eventually(&format!("a line with {parts:?}"), || {
            daemon.log().lines().any(|line| parts.iter().all(|part| line.contains(part)))
        });
    }
    assert!(!daemon.log().contains("hidden"), "{}", daemon.log());
}

#[test]
fn a_stream_is_told_when_it_has_ended_with_its_bytes() {
    requires!(root);
    let daemon = Daemon::with(&["--debug"], &[]);
    let mut connection = Connection::open(&daemon.socket());
    connection.request("GET", "/events?until=1", &[], None);
    let body = connection.reply("GET").is(200).body;
    let line = format!("path=/events version=- status=200 bytes={}", body.len());
    eventually("the stream's line", || daemon.log().contains(&line));
}

#[test]
fn a_debug_log_has_bodies_without_their_secrets() {
    requires!(root);
    let daemon = Daemon::with(&["--debug"], &[]);
    let body = serde_json::json!({
        "Image": "none", "Cmd": ["shown"], "Env": ["DB_PASSWORD=hidden1"], "Labels": {"api-token": "hidden2"},
    });
    daemon.api_json("POST", "/containers/create?name=masked", &body).is(404);
    eventually("the request's line", || daemon.log().contains("ContainerCreate: POST /containers/create"));
    let log = daemon.log();
    assert!(log.contains("shown") && log.contains("DB_PASSWORD=*****"), "{log}");
    assert!(!log.contains("hidden"), "{log}");
}

/// It used to be an error of the daemon's that a client asked for what it does not have.
#[test]
fn what_is_not_implemented_is_no_error() {
    requires!(root);
    let daemon = Daemon::empty();
    daemon.api("POST", "/session").is(501);
    daemon.api("GET", "/swarm").is(503);
    eventually("the refusals' lines", || daemon.log().contains("Session") && daemon.log().contains("Swarm"));
    assert!(!daemon.log().contains("ERROR"), "{}", daemon.log());
}

#[test]
fn the_access_log_can_be_had_without_debug() {
    requires!(root);
    let daemon = Daemon::with(&["--access-log"], &[]);
    daemon.api("GET", "/version").is(200);
    eventually("the line", || daemon.log().contains("[INFO ] access: method=GET path=/version"));
    assert!(!daemon.log().contains("DEBUG"), "{}", daemon.log());
}
