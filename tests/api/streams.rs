//! Replies that go on: wait, events, logs, attach, exec.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::{Connection, demultiplex};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

const UPGRADE: &[(&str, &str)] = &[("Connection", "Upgrade"), ("Upgrade", "tcp")];

/// Creates a container that is not started; gives its id.
fn create(daemon: &Daemon, config: Value) -> String {
    let mut body = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "none"}});
    for (key, value) in config.as_object().cloned().unwrap_or_default() {
        body[key] = value;
    }
    daemon.api_json("POST", "/containers/create", &body).is(201).json()["Id"]
        .as_str()
        .expect("an id")
        .to_owned()
}

/// An upgraded attachment.
fn attach(daemon: &Daemon, id: &str, query: &str) -> Connection {
    let mut connection = Connection::open(&daemon.socket());
    connection.request("POST", &format!("/containers/{id}/attach?{query}"), UPGRADE, None);
    let head = connection.head().expect("an answer");
    assert_eq!(head.status, 101, "{head:?}");
    assert_eq!(head.header("upgrade"), Some("tcp"));
    connection
}

#[test]
fn wait_answers_its_head_before_the_exit() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(&daemon, json!({"Cmd": ["sh", "-c", "exit 7"]}));
    let mut wait = Connection::open(&daemon.socket());
    wait.request("POST", &format!("/containers/{id}/wait?condition=next-exit"), &[], None);
    // docker sends start only after this has arrived.
    assert_eq!(wait.head().map(|reply| reply.status), Some(200));
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
    let mut body = Vec::new();
    while let Some(chunk) = wait.chunk() {
        body.extend(chunk);
    }
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["StatusCode"], 7);
    // Not running any more: at once.
    let reply = daemon.api("POST", &format!("/containers/{id}/wait")).is(200);
    assert_eq!(reply.json()["StatusCode"], 7);
    daemon.api("POST", &format!("/containers/{id}/wait?condition=bogus")).refuses(400, "");
}

#[test]
fn wait_for_removal_ends_with_it() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(&daemon, json!({"Cmd": ["sh", "-c", "exit 3"]}));
    let mut wait = Connection::open(&daemon.socket());
    wait.request("POST", &format!("/containers/{id}/wait?condition=removed"), &[], None);
    assert_eq!(wait.head().map(|reply| reply.status), Some(200));
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
    eventually("the exit", || daemon.state(&id)["Running"] == false);
    daemon.api("DELETE", &format!("/containers/{id}")).is(204);
    let mut body = Vec::new();
    while let Some(chunk) = wait.chunk() {
        body.extend(chunk);
    }
    assert_eq!(serde_json::from_slice::<Value>(&body).expect("JSON")["StatusCode"], 3);
}

#[test]
fn attach_before_start_loses_nothing() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(
        &daemon,
        json!({"Cmd": ["sh", "-c", "echo out; echo err >&2"], "AttachStdout": true, "AttachStderr": true}),
    );
    let mut attached = attach(&daemon, &id, "stream=1&stdout=1&stderr=1");
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
    assert_eq!(demultiplex(&attached.rest()), ("out\n".to_owned(), "err\n".to_owned()));
}

#[test]
fn stdin_ends_when_the_client_half_closes() {
    requires!(root);
    let daemon = Daemon::start();
    let config = json!({"Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": true, "StdinOnce": true, "AttachStdin": true});
    let id = create(&daemon, config);
    let mut attached = attach(&daemon, &id, "stream=1&stdin=1&stdout=1&stderr=1");
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
    attached.send(b"one\ntwo\n");
    attached.stream().shutdown(Shutdown::Write).expect("a connected socket");
    assert_eq!(demultiplex(&attached.rest()).0, "one\ntwo\nend\n");
    eventually("the exit", || daemon.state(&id)["ExitCode"] == 0 && daemon.state(&id)["Running"] == false);
}

#[test]
fn attach_without_upgrade_is_raw_after_200() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(&daemon, json!({"Cmd": ["echo", "hello"]}));
    let mut connection = Connection::open(&daemon.socket());
    connection.request("POST", &format!("/containers/{id}/attach?stream=1&stdout=1"), &[], None);
    let head = connection.head().expect("an answer");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, None));
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
    assert_eq!(demultiplex(&connection.rest()).0, "hello\n");
}

#[test]
fn attach_errors_are_plain_replies() {
    requires!(root);
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.socket());
    connection.request("POST", "/containers/none/attach?stream=1&stdout=1", UPGRADE, None);
    connection.reply("POST").refuses(404, "No such container: none");
}

#[test]
fn output_left_unread_at_the_exit_is_not_lost() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(&daemon, json!({"Cmd": ["head", "-c", "500000", "/dev/zero"]}));
    let mut attached = attach(&daemon, &id, "stream=1&stdout=1&stderr=1");
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
    daemon.api("POST", &format!("/containers/{id}/wait")).is(200);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(demultiplex(&attached.rest()).0.len(), 500_000);
}

/// Creates and starts an exec; gives its upgraded connection and its id.
fn exec(daemon: &Daemon, container: &str, config: Value) -> (Connection, String) {
    let path = format!("/containers/{container}/exec");
    let id = daemon.api_json("POST", &path, &config).is(201).json()["Id"].as_str().expect("an id").to_owned();
    let mut connection = Connection::open(&daemon.socket());
    let body = json!({"Detach": false, "Tty": config["Tty"] == true}).to_string();
    connection.request("POST", &format!("/exec/{id}/start"), UPGRADE, Some(body.as_bytes()));
    let head = connection.head().expect("an answer");
    assert_eq!(head.status, 101, "{head:?}");
    (connection, id)
}

#[test]
fn exec_streams_both_ways_and_knows_its_code_when_it_ends() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let config = json!({
        "Cmd": ["sh", "-c", "cat; echo err >&2; exit 9"], "AttachStdin": true, "AttachStdout": true, "AttachStderr": true,
    });
    let (mut connection, id) = exec(&daemon, "web", config);
    connection.send(b"typed\n");
    connection.stream().shutdown(Shutdown::Write).expect("a connected socket");
    assert_eq!(demultiplex(&connection.rest()), ("typed\n".to_owned(), "err\n".to_owned()));
    // Clients ask at once and must not see a null.
    let inspect = daemon.api("GET", &format!("/exec/{id}/json")).is(200).json();
    assert_eq!((&inspect["ExitCode"], &inspect["Running"]), (&json!(9), &json!(false)), "{inspect}");
    daemon.api_json("POST", &format!("/exec/{id}/start"), &json!({"Detach": false})).is(409);
}

#[test]
fn exec_of_nothing_is_126_or_127() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon
        .api_json("POST", "/containers/web/exec", &json!({"Cmd": []}))
        .refuses(400, "No exec command specified");
    for (command, code) in [("nope", 127), ("/etc/passwd", 126)] {
        let (mut connection, id) = exec(&daemon, "web", json!({"Cmd": [command], "AttachStdout": true}));
        connection.rest();
        let inspect = daemon.api("GET", &format!("/exec/{id}/json")).is(200).json();
        assert_eq!(inspect["ExitCode"], code, "{inspect}");
    }
}

#[test]
fn an_exec_outlives_its_client() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let config =
        json!({"Cmd": ["sh", "-c", "sleep 0.5; echo here > /tmp/mark; sleep 1000"], "AttachStdout": true});
    let (connection, _) = exec(&daemon, "web", config);
    drop(connection);
    eventually("the exec going on", || {
        daemon.dewar(&["exec", "web", "test", "-e", "/tmp/mark"]).run().code == 0
    });
}

#[test]
fn logs_frame_lines_and_stamp_them() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "echo one; echo two >&2; sleep 0.2; echo three");
    daemon.api("POST", "/containers/web/wait").is(200);
    let logs =
        |query: &str| demultiplex(&daemon.api("GET", &format!("/containers/web/logs?{query}")).is(200).body);
    assert_eq!(logs("stdout=1&stderr=1"), ("one\nthree\n".to_owned(), "two\n".to_owned()));
    assert_eq!(logs("stdout=1"), ("one\nthree\n".to_owned(), String::new()));
    assert_eq!(logs("stdout=1&tail=1").0, "three\n");
    assert_eq!(logs("stdout=1&tail=0").0, "");
    assert_eq!(logs("stdout=1&tail=nonsense").0, "one\nthree\n");
    let stamped = logs("stdout=1&timestamps=1").0;
    let first = stamped.lines().next().expect("a line");
    // RFC 3339 with nine digits, Z and a space: thirty bytes before the space.
    assert!(first.len() == 34 && first.as_bytes()[29] == b'Z' && first.ends_with(" one"), "{first:?}");
    daemon.api("GET", "/containers/web/logs").refuses(400, "stream");
    let head = daemon.api("GET", "/containers/web/logs?stdout=1");
    assert_eq!(head.header("content-type"), Some("application/vnd.docker.multiplexed-stream"));
    let old = daemon.api("GET", "/v1.41/containers/web/logs?stdout=1");
    assert_eq!(old.header("content-type"), Some("application/vnd.docker.raw-stream"));
}

#[test]
fn followed_logs_arrive_line_by_line_and_end_with_the_container() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &["-i"],
        "echo first; while read line; do echo got $line; done; echo last; exec sleep 1000",
    );
    let mut follow = Connection::open(&daemon.socket());
    follow.request("GET", "/containers/web/logs?follow=1&stdout=1&stderr=1", &[], None);
    assert_eq!(follow.head().map(|reply| reply.status), Some(200));
    assert_eq!(demultiplex(&follow.chunk().expect("the first line")).0, "first\n");
    let mut attached = attach(&daemon, "web", "stream=1&stdin=1&stdout=1");
    for word in ["a", "b"] {
        let start = Instant::now();
        attached.send(format!("{word}\n").as_bytes());
        assert_eq!(demultiplex(&follow.chunk().expect("a line")).0, format!("got {word}\n"));
        assert!(start.elapsed() < Duration::from_secs(2), "a line waits for no other: {:?}", start.elapsed());
    }
    daemon.api("POST", "/containers/web/kill").is(204);
    while follow.chunk().is_some() {}
}

#[test]
fn events_arrive_as_they_happen_and_can_be_replayed() {
    requires!(root);
    let daemon = Daemon::start();
    let mut live = Connection::open(&daemon.socket());
    live.request("GET", "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D", &[], None);
    assert_eq!(live.head().map(|reply| reply.status), Some(200));
    let before =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let id = daemon.run_detached("web", &["--label", "a=b"], "exit 5");
    daemon.api("POST", "/containers/web/wait").is(200);
    eventually("the exit", || daemon.state("web")["Running"] == false);
    daemon.api("DELETE", "/containers/web").is(204);
    let mut seen = Vec::new();
    while !seen.iter().any(|event: &Value| event["Action"] == "destroy") {
        let chunk = live.chunk().expect("events go on");
        seen.extend(
            chunk
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
                .map(|line| serde_json::from_slice::<Value>(line).expect("a JSON object per line")),
        );
    }
    let actions: Vec<_> = seen.iter().map(|event| event["Action"].as_str().unwrap_or_default()).collect();
    let order: Vec<_> = ["create", "start", "die", "destroy"]
        .iter()
        .map(|name| actions.iter().position(|a| a == name))
        .collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{actions:?}");
    let die = seen.iter().find(|event| event["Action"] == "die").expect("found above");
    assert_eq!(die["Type"], "container");
    assert_eq!(die["Actor"]["ID"], json!(id));
    assert_eq!(die["Actor"]["Attributes"]["exitCode"], "5");
    assert_eq!(die["Actor"]["Attributes"]["name"], "web");
    assert_eq!(die["Actor"]["Attributes"]["a"], "b");
    // Compat: below 1.52 the old fields are there too.
    assert_eq!((&die["status"], &die["id"]), (&json!("die"), &json!(id)));
    // A past that is over ends by itself.
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    let past = daemon.api("GET", &format!("/events?since={before}&until={}", now + 1)).is(200).text();
    assert!(past.contains("\"die\"") && past.contains("\"destroy\""), "{past}");
}
