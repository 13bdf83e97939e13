//! Requests that meet on one container: never a deadlock, never a 5xx, and a state that is true in the end.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Daemon, eventually, prop};

fn create(daemon: &Daemon, name: &str, body: Value) -> String {
    let reply = daemon.api_json("POST", &format!("/containers/create?name={name}"), &body).is(201);
    reply.json()["Id"].as_str().expect("an id").to_owned()
}

#[test]
fn eight_threads_on_one_container() {
    requires!(root);
    let daemon = Daemon::start();
    let operations = [
        ("POST", "start"),
        ("POST", "start"),
        ("POST", "stop?t=0"),
        ("POST", "kill"),
        ("POST", "kill?signal=USR1"),
        ("POST", "restart?t=0"),
        ("POST", "pause"),
        ("POST", "unpause"),
        ("POST", "resize?h=1&w=1"),
        ("GET", "json"),
        ("GET", "top"),
        ("GET", "logs?stdout=1"),
    ];
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}});
    let id = create(&daemon, "web", body);
    let failures = Mutex::new(BTreeMap::<String, usize>::new());
    let until = Instant::now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (daemon, id, failures) = (&daemon, &id, &failures);
            scope.spawn(move || {
                prop::check(&format!("thread {thread}"), 1, |random| {
                    for _ in 0..thread {
                        random.next();
                    }
                    while Instant::now() < until {
                        let (method, path) = random.pick(&operations);
                        let reply = daemon.api(method, &format!("/containers/{id}/{path}"));
                        if reply.status >= 500 {
                            let what = format!("{method} {path}: {} {}", reply.status, reply.text());
                            *failures.lock().expect("no panic while held").entry(what).or_default() += 1;
                        }
                    }
                });
            });
        }
    });
    let failures = failures.into_inner().expect("no panic while held");
    assert!(failures.is_empty(), "{failures:#?}");
    let state = daemon.state(&id);
    let pid = state["Pid"].as_u64().expect("a number");
    let is_alive = pid != 0 && std::path::Path::new(&format!("/proc/{pid}")).exists();
    assert_eq!(state["Running"] == true, is_alive, "what is said is so: {state}");
    daemon.api("DELETE", &format!("/containers/{id}?force=1")).is(204);
}

#[test]
fn removal_meets_everything_else() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["sleep", "1000"],
        "HostConfig": {"NetworkMode": "none", "AutoRemove": true, "RestartPolicy": {"Name": "no"}}});
    for round in 0..15 {
        let id = create(&daemon, "web", body.clone());
        daemon.api("POST", "/containers/web/start").is(204);
        let paths = ["restart?t=0", "stop?t=0", "kill", "start", "wait?condition=removed"];
        let replies = std::thread::scope(|scope| {
            let ask = |method: &'static str, path: String| {
                let daemon = &daemon;
                scope.spawn(move || (path.clone(), daemon.api(method, &path)))
            };
            let mut threads: Vec<_> =
                paths.iter().map(|path| ask("POST", format!("/containers/{id}/{path}"))).collect();
            threads.push(ask("DELETE", format!("/containers/{id}?force=1")));
            threads.into_iter().map(|thread| thread.join().expect("an answer")).collect::<Vec<_>>()
        });
        for (path, reply) in replies {
            assert!(reply.status < 500, "round {round}, {path}: {} {}", reply.status, reply.text());
        }
        // Whoever was last, it can be removed now, and then the name is free.
        let last = daemon.api("DELETE", &format!("/containers/{id}?force=1"));
        assert!(matches!(last.status, 204 | 404 | 409), "{last:?}");
        eventually("the removal", || daemon.api("GET", &format!("/containers/{id}/json")).status == 404);
    }
}

#[test]
fn the_name_is_free_when_the_removal_is_told() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "AutoRemove": true}});
    for round in 0..60 {
        let id = create(&daemon, "same", body.clone());
        let mut wait = Connection::open(&daemon.socket());
        wait.request("POST", &format!("/containers/{id}/wait?condition=removed"), &[], None);
        assert_eq!(wait.head().map(|reply| reply.status), Some(200));
        daemon.api("POST", &format!("/containers/{id}/start")).is(204);
        let answer: Value = serde_json::from_slice(&wait.chunk().expect("an outcome")).expect("JSON");
        assert_eq!((&answer["StatusCode"], &answer["Error"]), (&json!(0), &Value::Null), "round {round}");
    }
}

#[test]
fn run_rm_of_the_same_name_again_and_again() {
    requires!(root, docker);
    let daemon = Daemon::start();
    for round in 0..40 {
        let args = ["run", "--rm", "--name", "same", "--network", "none", "busybox", "echo", "here"];
        let output = if round % 2 == 0 { daemon.docker(&args) } else { daemon.dewar(&args) };
        output.ok().stdout_is("here\n");
    }
}

#[test]
fn a_start_that_fails_is_a_removal_to_those_who_wait_for_one() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["nope"], "HostConfig": {"NetworkMode": "none", "AutoRemove": true}});
    let id = create(&daemon, "same", body.clone());
    let mut wait = Connection::open(&daemon.socket());
    wait.request("POST", &format!("/containers/{id}/wait?condition=removed"), &[], None);
    assert_eq!(wait.head().map(|reply| reply.status), Some(200));
    daemon.api("POST", &format!("/containers/{id}/start")).refuses(400, "executable file not found");
    let answer: Value = serde_json::from_slice(&wait.chunk().expect("an outcome")).expect("JSON");
    assert_eq!(answer["StatusCode"], 127);
    create(&daemon, "same", body);
}

#[test]
fn waiters_hear_of_an_exit_and_of_a_removal_without_one() {
    requires!(root);
    let daemon = Daemon::start();
    let body =
        json!({"Image": "busybox", "Cmd": ["sh", "-c", "exit 6"], "HostConfig": {"NetworkMode": "none"}});
    create(&daemon, "web", body.clone());
    let wait = |condition: &str| {
        let mut wait = Connection::open(&daemon.socket());
        wait.request("POST", &format!("/containers/web/wait?condition={condition}"), &[], None);
        assert_eq!(wait.head().map(|reply| reply.status), Some(200));
        wait
    };
    let outcome = |mut wait: Connection| -> Value {
        serde_json::from_slice(&wait.chunk().expect("an outcome")).expect("JSON")
    };
    // Never started: a removal is all that can still happen.
    let waiters = ["next-exit", "removed"].map(wait);
    daemon.api("DELETE", "/containers/web").is(204);
    for waiter in waiters {
        assert_eq!(outcome(waiter)["StatusCode"], 0);
    }
    create(&daemon, "web", body);
    let waiters = ["next-exit", "next-exit", "removed"].map(wait);
    daemon.api("POST", "/containers/web/start").is(204);
    let [first, second, removed] = waiters;
    assert_eq!(outcome(first)["StatusCode"], 6);
    assert_eq!(outcome(second)["StatusCode"], 6);
    daemon.api("DELETE", "/containers/web").is(204);
    assert_eq!(outcome(removed)["StatusCode"], 6);
    daemon.api("POST", "/containers/web/wait?condition=removed").refuses(404, "No such container: web");
}
