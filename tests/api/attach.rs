//! Attached clients: several, slow, dead, late, leaving; and execs, which are talked to the same way.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::http::{Connection, demultiplex};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually, within};

const UPGRADE: &[(&str, &str)] = &[("Connection", "Upgrade"), ("Upgrade", "tcp")];

fn create(daemon: &Daemon, config: Value) -> String {
    let mut body = json!({"Image": "busybox", "HostConfig": {"NetworkMode": "none"}});
    for (key, value) in config.as_object().cloned().unwrap_or_default() {
        body[key] = value;
    }
    let reply = daemon.api_json("POST", "/containers/create", &body).is(201);
    reply.json()["Id"].as_str().expect("an id").to_owned()
}

fn attach(daemon: &Daemon, id: &str, query: &str) -> Connection {
    let mut connection = Connection::open(&daemon.socket());
    connection.request("POST", &format!("/containers/{id}/attach?{query}"), UPGRADE, None);
    let head = connection.head().expect("an answer");
    assert_eq!(head.status, 101, "{head:?}");
    connection
}

fn start(daemon: &Daemon, id: &str) {
    daemon.api("POST", &format!("/containers/{id}/start")).is(204);
}

/// Creates and starts an exec; gives its connection and its id.
fn exec(daemon: &Daemon, container: &str, config: &Value) -> (Connection, String) {
    let path = format!("/containers/{container}/exec");
    let id = daemon.api_json("POST", &path, config).is(201).json()["Id"].as_str().expect("an id").to_owned();
    let mut connection = Connection::open(&daemon.socket());
    let body = json!({"Detach": false, "Tty": config["Tty"] == true}).to_string();
    connection.request("POST", &format!("/exec/{id}/start"), UPGRADE, Some(body.as_bytes()));
    assert_eq!(connection.head().map(|head| head.status), Some(101));
    (connection, id)
}

/// A client that reads nothing used to hold the process for ten seconds, and was then cut off.
#[test]
fn a_process_does_not_wait_for_its_clients_and_each_gets_every_byte() {
    requires!(root);
    let daemon = Daemon::start();
    let count = 40_000_000;
    let script = format!("head -c {count} /dev/zero; echo error >&2; exit 3");
    let config = json!({"Cmd": ["sh", "-c", script], "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}}});
    let id = create(&daemon, config);
    let query = "stream=1&stdout=1&stderr=1";
    let mut late = attach(&daemon, &id, query);
    let mut errors = attach(&daemon, &id, "stream=1&stderr=1");
    let mut dead = attach(&daemon, &id, query);
    start(&daemon, &id);
    let mut wait = Connection::open(&daemon.socket());
    wait.request("POST", &format!("/containers/{id}/wait"), &[], None);
    dead.exact(1000).expect("some output");
    drop(dead);
    // 40 MB are past two clients that have read nothing.
    assert_eq!(wait.reply("POST").is(200).json()["StatusCode"], 3);
    let (out, err) = demultiplex(&late.rest());
    assert_eq!((out.len(), err.as_str()), (count, "error\n"));
    assert_eq!(demultiplex(&errors.rest()), (String::new(), "error\n".to_owned()));
    assert!(
        std::fs::read_dir(daemon.dir().join("data/containers").join(&id))
            .expect("its directory")
            .all(|entry| !entry.expect("an entry").file_name().to_string_lossy().starts_with("backlog"))
    );
}

#[test]
fn a_process_that_does_not_read_holds_nobody_up() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(
        &daemon,
        json!({"Cmd": ["sh", "-c", "sleep 0.3; echo talking; read word </tmp/never || exec sleep 1000"], "OpenStdin": true}),
    );
    let typing = attach(&daemon, &id, "stream=1&stdin=1");
    let mut listening = attach(&daemon, &id, "stream=1&stdout=1");
    start(&daemon, &id);
    typing.stream().set_write_timeout(Some(Duration::from_millis(300))).expect("not zero");
    // More than every buffer on the way holds.
    while (&mut typing.stream()).write_all(&[b'x'; 65536]).is_ok() {}
    assert_eq!(demultiplex(&listening.exact(16).expect("output goes on")).0, "talking\n");
    let second = attach(&daemon, &id, "stream=1&stdin=1&stdout=1");
    drop((typing, second));
    daemon.api("POST", &format!("/containers/{id}/kill")).is(204);
    assert!(listening.rest().is_empty());
}

#[test]
fn two_clients_type_and_both_see() {
    requires!(root);
    let daemon = Daemon::start();
    let id = create(
        &daemon,
        json!({"Cmd": ["sh", "-c", "while read line; do echo got $line; done"], "OpenStdin": true}),
    );
    start(&daemon, &id);
    let query = "stream=1&stdin=1&stdout=1";
    let (mut one, mut two) = (attach(&daemon, &id, query), attach(&daemon, &id, query));
    let both_see = |clients: [&mut Connection; 2], line: &str| {
        for client in clients {
            assert_eq!(demultiplex(&client.exact(8 + line.len()).expect("output")).0, line);
        }
    };
    one.send(b"first\n");
    both_see([&mut one, &mut two], "got first\n");
    two.send(b"second\n");
    both_see([&mut one, &mut two], "got second\n");
    // Without StdinOnce the end of one client's input is nobody else's.
    one.stream().shutdown(Shutdown::Write).expect("a connected socket");
    two.send(b"third\n");
    both_see([&mut one, &mut two], "got third\n");
    daemon.api("POST", &format!("/containers/{id}/kill")).is(204);
    assert!(one.rest().is_empty() && two.rest().is_empty());
}

#[test]
fn the_log_comes_first_and_nothing_twice() {
    requires!(root);
    let daemon = Daemon::start();
    // A line every few milliseconds, and a prompt that is no line yet.
    let script = "i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); sleep 0.01; done; printf 'prompt> '; read word; echo $word";
    let id = create(&daemon, json!({"Cmd": ["sh", "-c", script], "OpenStdin": true}));
    start(&daemon, &id);
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(attach(&daemon, &id, "logs=1&stream=1&stdout=1"));
        std::thread::sleep(Duration::from_millis(150));
    }
    within(Duration::from_secs(30), "the last line", || daemon.logs(&id).contains("line 299\n"));
    std::thread::sleep(Duration::from_millis(100));
    let mut last = attach(&daemon, &id, "logs=1&stream=1&stdin=1&stdout=1");
    last.send(b"word\n");
    let expected: String =
        (0..300).map(|number| format!("line {number}\n")).chain(["prompt> word\n".to_owned()]).collect();
    for client in clients.iter_mut().chain([&mut last]) {
        assert_eq!(demultiplex(&client.rest()).0, expected);
    }
    // After the end the log is all there is.
    let mut log = attach(&daemon, &id, "logs=1&stdout=1");
    assert_eq!(demultiplex(&log.rest()).0, expected);
}

#[test]
fn who_leaves_is_told_in_the_events() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-it"], "exec cat");
    let mut events = Connection::open(&daemon.socket());
    events.request("GET", "/events", &[], None);
    assert_eq!(events.head().map(|head| head.status), Some(200));
    let mut next = || -> Value { serde_json::from_slice(&events.chunk().expect("an event")).expect("JSON") };
    let mut keys = attach(&daemon, "web", "stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,b");
    assert_eq!(next()["Action"], "attach");
    // The first key alone is only held back.
    keys.send(b"\x01x\x01");
    assert_eq!(keys.exact(3).as_deref(), Some(&b"^Ax"[..]), "the echo");
    keys.send(b"b");
    assert!(keys.rest().is_empty());
    assert_eq!(next()["Action"], "detach");
    drop(attach(&daemon, "web", "stream=1&stdin=1&stdout=1"));
    assert_eq!((&next()["Action"], &next()["Action"]), (&json!("attach"), &json!("detach")));
    let config = json!({"Cmd": ["cat"], "AttachStdin": true, "AttachStdout": true, "Tty": true, "DetachKeys": "ctrl-x"});
    let (mut exec, id) = exec(&daemon, "web", &config);
    assert_eq!(next()["Action"], "exec_create: cat");
    assert_eq!(next()["Action"], "exec_start: cat");
    let begun = Instant::now();
    exec.send(b"\x18");
    assert!(exec.rest().is_empty());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let detach = next();
    assert_eq!(
        (&detach["Action"], &detach["Actor"]["Attributes"]["execID"]),
        (&json!("exec_detach"), &json!(id))
    );
    let inspect = daemon.api("GET", &format!("/exec/{id}/json")).is(200).json();
    assert_eq!((&inspect["Running"], &inspect["ExitCode"]), (&json!(true), &Value::Null));
}

#[test]
fn an_exec_loses_its_client_and_reads_the_end_of_its_input() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let script = "cat >/tmp/typed; echo over >/tmp/over; exec sleep 1000";
    let config = json!({"Cmd": ["sh", "-c", script], "AttachStdin": true, "AttachStdout": true});
    let (mut client, id) = exec(&daemon, "web", &config);
    client.send(b"last words");
    drop(client);
    eventually("the end of its input", || {
        daemon.dewar(&["exec", "web", "test", "-e", "/tmp/over"]).run().code == 0
    });
    daemon.dewar(&["exec", "web", "cat", "/tmp/typed"]).ok().stdout_is("last words");
    assert_eq!(daemon.api("GET", &format!("/exec/{id}/json")).is(200).json()["Running"], true);
}

#[test]
fn what_ends_at_once_has_said_everything() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let config = json!({"Cmd": ["sh", "-c", "echo out; echo err >&2; exit 5"], "AttachStdout": true, "AttachStderr": true});
    for round in 0..200 {
        let (mut client, id) = exec(&daemon, "web", &config);
        assert_eq!(demultiplex(&client.rest()), ("out\n".to_owned(), "err\n".to_owned()), "round {round}");
        let inspect = daemon.api("GET", &format!("/exec/{id}/json")).is(200).json();
        assert_eq!(inspect["ExitCode"], 5, "round {round}");
    }
}

#[test]
fn docker_py_loses_no_byte() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
box = client.containers.run('busybox', ['sleep', '1000'], network_mode='none', detach=True)
for n in range(100):
    code, out = box.exec_run(['echo', str(n)])
    assert (code, out) == (0, b'%d\n' % n), (n, code, out)
for n in range(100):
    code, out = box.exec_run(['sh', '-c', 'echo out; echo err >&2'], demux=True)
    assert (code, out) == (0, (b'out\n', b'err\n')), (n, code, out)
box.remove(force=True)
for n in range(25):
    box = client.containers.create('busybox', ['echo', 'said %d' % n], network_mode='none')
    stream = box.attach(stdout=True, stderr=True, stream=True, logs=False)
    box.start()
    out = b''.join(stream)
    assert out == b'said %d\n' % n, (n, out)
    assert box.attach(stdout=True, logs=True) == b'said %d\n' % n
    box.wait()
    box.remove()
"#;
    daemon.python(script).ok();
}

#[test]
fn pipes_through_the_stock_client_are_whole() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let docker = crate::support::requires::docker_path().expect("required above");
    let run = format!("{} -H {} run --rm --network none", docker.display(), daemon.host());
    // A reader that pauses, and one that has had enough.
    let script = format!("{run} busybox head -c 5000000 /dev/zero | (sleep 1; wc -c)");
    crate::support::Cmd::new("/bin/sh").args(["-c", &script]).ok().stdout_has("5000000");
    let script = format!("{run} busybox yes | head -n 3");
    crate::support::Cmd::new("/bin/sh").args(["-c", &script]).ok().stdout_is("y\ny\ny\n");
    let script = format!("head -c 3000000 /dev/zero | {run} -i busybox sh -c 'sleep 1; wc -c'");
    crate::support::Cmd::new("/bin/sh").args(["-c", &script]).ok().stdout_has("3000000");
    // Input that nobody reads keeps nobody waiting.
    let script = format!("head -c 3000000 /dev/zero | {run} -i busybox echo done");
    crate::support::Cmd::new("/bin/sh").args(["-c", &script]).ok().stdout_is("done\n");
}
