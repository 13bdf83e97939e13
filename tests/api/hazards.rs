//! What has broken other engines: what clients send that servers do not expect, and how much of it.

use std::net::Shutdown;

use serde_json::json;

use crate::support::http::{Connection, Reply};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

/// Sends `text` and reads one reply.
#[track_caller]
fn ask(daemon: &Daemon, text: &str) -> Reply {
    let mut connection = Connection::open(&daemon.socket());
    connection.send(text.as_bytes());
    connection.reply(text.split(' ').next().unwrap_or_default())
}

#[test]
fn a_refused_upgrade_leaves_the_connection_usable() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.api("POST", "/containers/web/pause").is(204);
    let mut connection = Connection::open(&daemon.socket());
    let refusals = [
        ("/containers/none/attach?stream=1&stdout=1", 404),
        ("/containers/web/attach?stream=1&stdout=1", 409),
        ("/containers/web/attach?stream=1&stdout=1&logs=1", 409),
        ("/exec/none/start", 404),
    ];
    for (path, status) in refusals {
        connection.send(
            format!("POST {path} HTTP/1.1\r\nHost: x\r\n{UPGRADE}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}")
                .as_bytes(),
        );
        connection.reply("POST").refuses(status, "");
        connection.request("GET", "/_ping", &[], None);
        connection.reply("GET").is(200);
    }
    // Even when the next request comes in the same segment.
    connection.send(
        format!("POST /containers/none/attach HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\nGET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            .as_bytes(),
    );
    connection.reply("POST").is(404);
    connection.reply("GET").is(200);
}

#[test]
fn heads_are_read_in_every_spelling() {
    requires!(root);
    let daemon = Daemon::start();
    let body = r#"{"Image":"busybox","Cmd":["true"],"HostConfig":{"NetworkMode":"none"}}"#;
    for (target, names) in [
        ("/containers/create", ["host", "content-type", "content-length", "connection"]),
        ("/v1.51/containers/create", ["HOST", "CONTENT-TYPE", "CONTENT-LENGTH", "CONNECTION"]),
        ("http://docker/containers/create", ["Host", "Content-type", "Content-length", "connection"]),
        (
            "http://%2Fvar%2Frun%2Fdocker.sock/v1.41/containers/create",
            ["Host", "Content-Type", "Content-Length", "Connection"],
        ),
    ] {
        let [host, kind, length, close] = names;
        let text = format!(
            "POST {target} HTTP/1.1\r\n{host}: x\r\n{kind}: application/json\r\n{length}: {}\r\n{close}: close\r\n\r\n{body}",
            body.len()
        );
        ask(&daemon, &text).is(201);
    }
}

#[test]
fn old_clients_get_a_body_that_ends_with_the_connection() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "echo one; echo two");
    daemon.api("POST", "/containers/web/wait").is(200);
    for (path, part) in [
        ("/containers/json?all=1", "\"web\"".replace("web", "/web")),
        ("/containers/web/logs?stdout=1", "two\n".to_owned()),
        ("/events?since=1&until=2", String::new()),
    ] {
        let mut connection = Connection::open(&daemon.socket());
        connection.send(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
        let head = connection.head().expect("an answer");
        assert_eq!((head.status, head.header("transfer-encoding")), (200, None), "{path}");
        let body = String::from_utf8_lossy(&connection.rest()).into_owned();
        assert!(body.contains(&part), "{path}: {body:?}");
    }
}

#[test]
fn only_what_docker_answers_to_head_is_answered() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    let mut connection = Connection::open(&daemon.socket());
    for (path, status) in [("/_ping", 200), ("/containers/web/archive?path=/bin", 200), ("/version", 404)] {
        connection.request("HEAD", path, &[], None);
        connection.reply("HEAD").is(status);
    }
}

#[test]
fn names_come_with_a_slash_however_it_is_written() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    daemon.dewar(&["tag", "busybox", "some/where/name:v1"]).ok();
    for path in
        ["/containers/%2Fweb/json", "/containers/%2fweb/json", "/images/some%2Fwhere%2fname%3Av1/json"]
    {
        daemon.api("GET", path).is(200);
    }
    daemon.api("POST", "/containers/%2Fweb/rename?name=%2Fother").is(204);
    daemon.api("GET", "/containers/other/json").is(200);
    daemon.api("GET", "/containers/%zz/json").refuses(400, "escape");
}

#[test]
fn filters_are_maps_of_lists_or_of_maps_everywhere() {
    requires!(root);
    let daemon = Daemon::start();
    let create = ["create", "--name", "web", "--label", "a=b", "--network", "none", "busybox", "true"];
    daemon.dewar(&create).ok();
    let encode = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    for filters in [r#"{"label":["a=b"]}"#, r#"{"label":{"a=b":true}}"#] {
        let list =
            daemon.api("GET", &format!("/containers/json?all=1&filters={}", encode(filters))).is(200).json();
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{filters}: {list}");
    }
    for filters in [r#"{"reference":["busybox"]}"#, r#"{"reference":{"busybox":true}}"#] {
        let list = daemon.api("GET", &format!("/images/json?filters={}", encode(filters))).is(200).json();
        assert_eq!(list.as_array().map(Vec::len), Some(1), "{filters}: {list}");
    }
    for filters in [r#"{"event":["create"]}"#, r#"{"event":{"create":true}}"#] {
        let path = format!("/events?since=1&until=9999999999.5&filters={}", encode(filters));
        let mut connection = Connection::open(&daemon.socket());
        connection.request("GET", &path, &[], None);
        assert_eq!(connection.head().map(|reply| reply.status), Some(200));
        let text = String::from_utf8(connection.chunk().expect("a past event")).expect("text");
        assert!(text.contains("\"create\"") && !text.contains("\"import\""), "{text}");
    }
    for path in ["/containers/json", "/images/json", "/events"] {
        for filters in ["[]", "1", "x", r#"{"label":1}"#, r#"{"label":[1]}"#] {
            let reply = daemon.api("GET", &format!("{path}?filters={}", encode(filters)));
            reply.refuses(400, "filter");
        }
    }
}

/// A chunked request body of `bytes` of `head` and zeros, sent as fast as it is taken; gives the answer.
fn upload(daemon: &Daemon, target: &str, head: &[u8], bytes: usize) -> Reply {
    let mut connection = Connection::open(&daemon.socket());
    connection.send(
        format!("{target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n")
            .as_bytes(),
    );
    assert_eq!(connection.head().map(|reply| reply.status), Some(100));
    connection.send(format!("{:x}\r\n", head.len()).as_bytes());
    connection.send(head);
    let block = vec![0_u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        connection.send(b"\r\n100000\r\n");
        connection.send(&block);
    }
    connection.send(b"\r\n0\r\n\r\n");
    connection.reply("PUT")
}

/// The most memory a process ever had, in KiB.
fn peak_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("a line in status");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// A tar's header for a file of zeros.
fn header(name: &str, size: usize) -> Vec<u8> {
    let mut header = vec![0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[156] = b'0';
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[test]
fn bodies_of_any_size_cost_no_memory() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    upload(&daemon, "PUT /containers/web/archive?path=/tmp", &header("small", 0), 1 << 20).is(200);
    let before = peak_kib(daemon.pid());
    let size = 300 << 20;
    upload(&daemon, "PUT /containers/web/archive?path=/tmp", &header("big", size - (1 << 20)), size).is(200);
    let stat = daemon.api("HEAD", "/containers/web/archive?path=/tmp/big").is(200);
    assert!(stat.header("x-docker-container-path-stat").is_some());
    // No image is in this, which is told after all of it has been looked at.
    let reply = upload(&daemon, "POST /images/load", &header("big", size - (1 << 20)), size);
    assert!(matches!(reply.status, 200 | 400), "{reply:?}");
    let after = peak_kib(daemon.pid());
    println!("peak memory: {before} KiB, then {after} KiB after two bodies of {} MiB", size >> 20);
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
}

#[test]
fn a_body_that_stops_in_the_middle_leaves_nothing() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    let mut connection = Connection::open(&daemon.socket());
    connection.send(b"PUT /containers/web/archive?path=/tmp HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n");
    connection.send(&header("part", 100_000));
    connection.stream().shutdown(Shutdown::Write).expect("a connected socket");
    let reply = connection.reply("PUT");
    assert!((400..500).contains(&reply.status), "{reply:?}");
    // The container can be used at once.
    eventually("the container", || daemon.api("GET", "/containers/web/json").status == 200);
    daemon.api_json("POST", "/containers/web/exec", &json!({"Cmd": ["true"]})).is(409);
}
