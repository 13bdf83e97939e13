//! A daemon killed in the middle of something: the next one finishes it or undoes it, and nothing is left.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{container_dir, settled};
use crate::support::prop::check;
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

/// A request whose answer may never come.
fn ask(socket: &Path, method: &str, path: &str, body: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}

/// What clients do, over and over: every operation that writes more than one file or moves the kernel.
fn work(socket: &Path, number: usize, criu: bool, is_over: &AtomicBool) {
    let name = format!("w{number}");
    let create = r#"{"Image":"busybox","Cmd":["sh","-c","echo x > /v/x; echo y > /y; exec sleep 1000"],
        "Volumes":{"/v":{}},"HostConfig":{"NetworkMode":"none","Memory":67108864}}"#;
    let mut round = 0;
    while !is_over.load(Ordering::SeqCst) {
        round += 1;
        let step = |method: &str, path: String, body: &str| drop(ask(socket, method, &path, body));
        let of = |rest: &str| format!("/containers/{name}{rest}");
        step("POST", format!("/containers/create?name={name}"), create);
        step("POST", of("/start"), "");
        step("POST", of("/update"), r#"{"Memory":134217728,"MemorySwap":268435456}"#);
        step("POST", "/volumes/create".to_owned(), &format!(r#"{{"Name":"v{number}"}}"#));
        step("POST", format!("/commit?container={name}&repo=made{number}"), "{}");
        if criu && round % 2 == 0 {
            step("POST", of("/checkpoints"), r#"{"CheckpointID":"cp","Exit":false}"#);
            step("DELETE", of("/checkpoints/cp"), "");
        }
        step("POST", of(&format!("/rename?name={name}x")), "");
        step("DELETE", format!("/images/made{number}"), "");
        step("DELETE", format!("/volumes/v{number}"), "");
        step("DELETE", format!("/containers/{name}x?force=1&v=1"), "");
        step("DELETE", of("?force=1&v=1"), "");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Says that it is over, however that comes.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_daemon_killed_at_any_moment_leaves_no_debris() {
    requires!(root);
    // A seed a day would be a flaky test; a failure can be replayed with more of them.
    check("killed at any moment", 1, |random| {
        let criu = crate::support::requires::criu().is_ok();
        let mut daemon = Daemon::start();
        daemon.run_detached("stays", &[], "exec sleep 1000");
        let pid = daemon.state("stays")["Pid"].clone();
        let (socket, is_over) = (daemon.socket(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            // A failure in here must end them, too: the scope waits for its threads.
            let _end = Ends(&is_over);
            for number in 0..3 {
                let (socket, is_over) = (&socket, &is_over);
                scope.spawn(move || work(socket, number, criu, is_over));
            }
            for _ in 0..10 {
                std::thread::sleep(Duration::from_millis(20 + random.next() % 300));
                daemon.kill9();
                daemon.restart();
            }
        });
        daemon.kill9();
        daemon.restart();
        settled(&daemon);
        assert_whole(&daemon);
        assert_eq!(daemon.state("stays")["Pid"], pid);
        // Whatever state they are in, they work.
        let list = daemon.api("GET", "/containers/json?all=1").is(200).json();
        for container in list.as_array().expect("a list") {
            assert_ne!(container["State"], "paused", "held by a commit whose daemon is gone: {container}");
            let id = container["Id"].as_str().expect("an id");
            if container["State"] != "running" {
                daemon.dewar(&["start", id]).ok();
            }
            daemon.dewar(&["exec", id, "true"]).ok();
        }
        for container in list.as_array().expect("a list") {
            daemon
                .api(
                    "DELETE",
                    &format!("/containers/{}?force=1&v=1", container["Id"].as_str().expect("an id")),
                )
                .is(204);
        }
        assert_whole(&daemon);
        let names = |dir: &str| fs::read_dir(daemon.dir().join(dir)).expect("a directory").count();
        assert_eq!((names("data/containers"), names("run/containers"), names("run/netns")), (0, 0, 0));
    });
}

/// Nothing on disk is without an owner.
#[track_caller]
fn assert_whole(daemon: &Daemon) {
    let entries = |dir: &str| -> Vec<String> {
        let entries = fs::read_dir(daemon.dir().join(dir)).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let list = daemon.api("GET", "/containers/json?all=1").is(200).json();
    let known: Vec<(&str, bool)> = list
        .as_array()
        .expect("a list")
        .iter()
        .map(|container| (container["Id"].as_str().expect("an id"), container["State"] == "running"))
        .collect();
    for id in entries("data/containers") {
        assert!(known.iter().any(|(known, _)| *known == id), "a directory of no container: {id}");
        let dir = format!("data/containers/{id}");
        let layers = entries(&dir).iter().filter(|name| name.starts_with("rw-")).count();
        assert_eq!(layers, 1, "writable layers: {:?}", entries(&dir));
        assert!(entries(&dir).iter().all(|name| !name.ends_with(".new")), "{:?}", entries(&dir));
        if daemon.dir().join(&dir).join("checkpoints").exists() {
            let checkpoints = entries(&format!("{dir}/checkpoints"));
            assert!(checkpoints.iter().all(|name| !name.ends_with(".partial")), "{checkpoints:?}");
        }
    }
    for (dir, what) in [("run/containers", "a run directory"), ("run/netns", "a namespace")] {
        for id in entries(dir) {
            assert!(known.iter().any(|(known, runs)| *known == id && *runs), "{what} of no life: {id}");
        }
    }
    let volumes = daemon.api("GET", "/volumes").is(200).json()["Volumes"].clone();
    let volumes = volumes.as_array().cloned().unwrap_or_default();
    assert_eq!(
        entries("data/volumes").len(),
        volumes.len(),
        "half-made volumes: {:?}",
        entries("data/volumes")
    );
    let mounted: Vec<String> = known
        .iter()
        .flat_map(|(id, _)| {
            let shown = daemon.api("GET", &format!("/containers/{id}/json")).is(200).json();
            shown["Mounts"].as_array().cloned().unwrap_or_default()
        })
        .filter_map(|mount| mount["Name"].as_str().map(str::to_owned))
        .collect();
    for volume in volumes {
        let name = volume["Name"].as_str().expect("a name");
        assert!(name.len() < 64 || mounted.iter().any(|mounted| mounted == name), "nobody's volume: {name}");
    }
    assert_eq!(entries("data/images/tmp"), Vec::<String>::new());
}

#[test]
fn a_dump_that_outlives_its_daemon_is_finished() {
    requires!(root, criu);
    let mut daemon = Daemon::start();
    // Enough memory for the dump to be under way when the daemon dies.
    let fill = "x=$(head -c 60000000 /dev/zero | tr '\\0' 'x'); echo full; while :; do sleep 0.1; done";
    for name in ["stays", "goes"] {
        daemon.run_detached(name, &[], fill);
        eventually("it being full", || daemon.logs(name).contains("full"));
    }
    for (name, exit) in [("stays", false), ("goes", true)] {
        let partial = container_dir(&daemon, name).join("checkpoints/cp1.partial");
        let path = format!("/containers/{name}/checkpoints");
        let body = format!(r#"{{"CheckpointID":"cp1","Exit":{exit}}}"#);
        let socket = daemon.socket();
        let asking = std::thread::spawn(move || ask(&socket, "POST", &path, &body));
        let start = Instant::now();
        while !partial.join("images").exists() {
            assert!(start.elapsed() < Duration::from_secs(10), "no dump begins");
        }
        daemon.kill9();
        assert!(
            asking.join().expect("no panic").is_none_or(|reply| !reply.contains("201")),
            "it was too quick"
        );
        daemon.restart();
        eventually(&format!("the checkpoint of {name}"), || {
            daemon.dewar(&["checkpoint", "ls", name]).ok().stdout.contains("cp1")
        });
        assert!(!partial.exists());
        let state = if exit { "exited" } else { "running" };
        eventually("its state", || daemon.state(name)["Status"] == state);
        daemon.dewar(&["stop", "-t", "0", name]).run();
        daemon.dewar(&["start", "--checkpoint", "cp1", name]).ok();
        assert_eq!(daemon.state(name)["Status"], "running");
    }
}

#[test]
fn what_a_commit_held_goes_on() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "head -c 100000000 /dev/urandom > /big; echo full; exec sleep 1000");
    daemon.run_detached("paused", &[], "exec sleep 1000");
    daemon.dewar(&["pause", "paused"]).ok();
    eventually("the file", || daemon.logs("web").contains("full"));
    let socket = daemon.socket();
    let asking = std::thread::spawn(move || ask(&socket, "POST", "/commit?container=web&repo=made", "{}"));
    let start = Instant::now();
    while daemon.state("web")["Status"] != "paused" {
        assert!(start.elapsed() < Duration::from_secs(10), "no commit begins");
    }
    daemon.kill9();
    drop(asking.join());
    daemon.restart();
    assert_eq!(daemon.state("web")["Status"], "running");
    assert_eq!(daemon.state("paused")["Status"], "paused", "that was asked for");
    assert!(!daemon.dewar(&["images"]).ok().stdout.contains("made"));
    assert_eq!(fs::read_dir(daemon.dir().join("data/images/tmp")).expect("a directory").count(), 0);
}

#[test]
fn a_start_that_was_not_written_down_has_happened() {
    requires!(root);
    let mut daemon = Daemon::start();
    let create = ["create", "--name", "web", "--network", "none", "busybox", "sh", "-c"];
    daemon.dewar(&create).arg("trap 'exit 3' TERM; while :; do sleep 0.05; done").ok();
    let path = container_dir(&daemon, "web").join("container.json");
    let before = fs::read(&path).expect("a record");
    daemon.dewar(&["start", "web"]).ok();
    daemon.kill9();
    // As if the daemon had died before it wrote the record.
    fs::write(&path, before).expect("ours");
    daemon.restart();
    let state = daemon.state("web");
    assert_eq!(state["Status"], "running", "{state}");
    assert!(state["StartedAt"].as_str().is_some_and(|time| time.starts_with("20")), "{state}");
    daemon.dewar(&["stop", "web"]).ok();
    assert_eq!(daemon.state("web")["ExitCode"], 3);
}
