//! Clients that die: a thousand of every streaming kind leave nothing behind, in the daemon or in the shims.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Daemon, prop, within};

const CLIENTS: usize = 1000;
/// How many are connected at once.
const AT_ONCE: usize = 40;
/// What a daemon that has served a thousand may keep: caches, never something per client (10 KiB of each
/// would be 10 MiB).
const SLACK_KIB: u64 = 9 * 1024;

const UPGRADE: &[(&str, &str)] = &[("Connection", "Upgrade"), ("Upgrade", "tcp")];
const WEBSOCKET: &[(&str, &str)] = &[
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn entries(pid: u32, what: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count)
}

fn anonymous_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a process of ours");
    let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a line in status");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// Descriptors of the shims that watch over this daemon's containers.
fn shim_files(daemon: &Daemon) -> Vec<usize> {
    let shims = daemon.leftovers().processes.into_iter().filter(|(_, line)| line.starts_with("dewar-shim"));
    shims.map(|(pid, _)| entries(pid, "fd")).collect()
}

/// Descriptors and threads of the daemon, descriptors of the shims.
type Counts = (usize, usize, Vec<usize>);

fn counts(daemon: &Daemon) -> Counts {
    (entries(daemon.pid(), "fd"), entries(daemon.pid(), "task"), shim_files(daemon))
}

#[test]
fn a_thousand_dead_clients_leave_nothing() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.run_detached("busy", &["-i"], "while :; do echo line; sleep 0.05; done");
    daemon.run_detached("quiet", &["-i"], "exec sleep 1000");
    // What the first of each kind brings to life for good is not counted.
    prop::check("soak: the first", 1, |random| drop(clients(&daemon, random, 16)));
    // Threads that served a request rest for five seconds.
    let idle = || entries(daemon.pid(), "task") <= 6;
    within(Duration::from_secs(20), "a quiet daemon", idle);
    let (before, before_kib) = (counts(&daemon), anonymous_kib(daemon.pid()));
    let mut peak = before.clone();
    prop::check("soak", 1, |random| peak = clients(&daemon, random, CLIENTS));
    within(Duration::from_secs(30), "descriptors and threads to be freed", || {
        let (files, threads, shims) = counts(&daemon);
        files <= before.0 && threads <= before.1 + 2 && shims == before.2
    });
    let after_kib = anonymous_kib(daemon.pid());
    println!("(descriptors, threads, descriptors of shims): before {before:?}, among them {peak:?}");
    println!("after {:?}; memory {before_kib} KiB, then {after_kib} KiB", counts(&daemon));
    assert!(after_kib <= before_kib + SLACK_KIB, "{before_kib} KiB before, {after_kib} KiB after");
    // Nothing hangs: what they watched can still be used and removed.
    daemon.docker(&["exec", "quiet", "true"]).ok();
    daemon.docker(&["rm", "-f", "busy", "quiet"]).ok();
}

/// Clients of every kind, cut off at random moments; gives the counts while the last of them are there.
fn clients(daemon: &Daemon, random: &mut prop::Gen, count: usize) -> Counts {
    let mut alive = Vec::new();
    let mut programs = Vec::new();
    for number in 0..count {
        let name = *random.pick(&["busy", "quiet"]);
        let mut connection = Connection::open(&daemon.socket());
        match number % 8 {
            0 => connection.request(
                "GET",
                &format!("/containers/{name}/logs?follow=1&stdout=1&tail=3"),
                &[],
                None,
            ),
            1 => connection.request("GET", "/events", &[], None),
            2 => {
                connection.request("POST", &format!("/containers/{name}/wait?condition=next-exit"), &[], None)
            }
            3 => {
                let path = format!("/containers/{name}/attach?stream=1&stdin=1&stdout=1&stderr=1");
                connection.request("POST", &path, UPGRADE, None);
                connection.send(b"typed\n");
            }
            4 => connection.request("GET", &format!("/containers/{name}/stats"), &[], None),
            5 => connection.request("POST", &format!("/containers/{name}/wait?condition=removed"), &[], None),
            6 => {
                let config = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true});
                let path = format!("/containers/{name}/exec");
                let id = daemon.api_json("POST", &path, &config).is(201).json()["Id"].clone();
                let path = format!("/exec/{}/start", id.as_str().expect("an id"));
                connection.request("POST", &path, UPGRADE, Some(br#"{"Detach":false}"#));
            }
            _ => {
                let path = format!("/containers/{name}/attach/ws?stream=1&stdin=1&stdout=1");
                connection.request("GET", &path, WEBSOCKET, None);
            }
        }
        if random.below(2) == 0 {
            // Some have seen the head, others are cut off before.
            connection.head();
        }
        alive.push(connection);
        if alive.len() > AT_ONCE {
            alive.swap_remove(random.below(AT_ONCE));
        }
        if number % 100 == 50 {
            let args = [&["logs", "-f", "busy"][..], &["events"], &["wait", "quiet"], &["attach", "busy"]];
            programs.push(daemon.docker(args[random.below(args.len())]).spawn());
        }
    }
    // The rest are killed by being dropped.
    counts(daemon)
}
