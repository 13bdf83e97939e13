//! Requests that make no sense: each operation answers each of them with a 4xx and a message, or refuses itself by
//! name; nothing hangs, nothing panics, and nothing changes.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::api::OPERATIONS;
use crate::support::Daemon;
use crate::support::http::{Connection, Reply};
use crate::support::prop::{Gen, check};
use crate::support::requires::requires;

/// Operations that have a value of their own in the place of `x` below, and what is done to whom.
struct Bench {
    daemon: Daemon,
    created: String,
    running: String,
}

impl Bench {
    fn new() -> Bench {
        let daemon = Daemon::start();
        let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
        let created =
            daemon.api_json("POST", "/containers/create?name=created", &body).is(201).json()["Id"].clone();
        let running = daemon.run_detached("running", &["--init"], "exec sleep 1000");
        Bench { daemon, created: created.as_str().unwrap_or_default().to_owned(), running }
    }

    /// The ids and states of all containers.
    fn state(&self) -> Value {
        let list = self.daemon.api("GET", "/containers/json?all=1").is(200).json();
        let pick = |container: &Value| json!([container["Id"], container["Names"], container["State"]]);
        list.as_array().expect("a list").iter().map(pick).collect()
    }

    #[track_caller]
    fn unharmed(&self, before: &Value) {
        assert_eq!(self.state(), *before, "{}", self.daemon.log());
        assert!(!self.daemon.log().contains("panicked"), "{}", self.daemon.log());
        let log = self.daemon.log();
        let failed = log.lines().find(|line| line.contains(": 500") && !is_unreachable(line));
        assert_eq!(failed, None, "{log}");
    }
}

/// Sends bytes and reads the head of the answer, and its body when that ends.
fn send(daemon: &Daemon, bytes: &[u8], method: &str) -> Reply {
    let mut connection = Connection::open(&daemon.socket());
    // The daemon may answer before it has read all, and close.
    let _ = std::io::Write::write_all(&mut connection.stream(), bytes);
    let reply = connection.head().unwrap_or_else(|| panic!("no answer to {:?}", text(bytes)));
    if reply.status < 400 || method == "HEAD" {
        // A stream or an upgrade needs no end here.
        return reply;
    }
    let length = reply.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    Reply { body: connection.exact(length).expect("a body as long as announced"), ..reply }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned()
}

fn request(method: &str, path: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n").into_bytes();
    if method == "POST" || method == "PUT" {
        bytes.extend(format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n", body.len()).bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// The rule of this file.
#[track_caller]
fn is_fair(reply: &Reply, method: &str, what: &str) {
    let is_refusal = matches!(reply.status, 501 | 503) || is_unreachable(&reply.text());
    assert!(reply.status < 500 || is_refusal, "{what}: {} {}", reply.status, reply.text());
    if reply.status >= 400 && method != "HEAD" {
        assert_eq!(reply.header("content-type"), Some("application/json"), "{what}: {}", reply.text());
        assert!(reply.json()["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}");
    }
}

/// Docker's registry is out of reach of these daemons, and a valid request may be about it.
fn is_unreachable(text: &str) -> bool {
    text.contains("docker.io/v2/") && text.contains("dial tcp: lookup")
}

/// Not to be asked with a container that runs: they would do what they are asked.
const TELLING: &[&str] = &[
    "ContainerDelete",
    "ContainerRename",
    "ContainerStop",
    "ContainerKill",
    "ContainerRestart",
    "ContainerStart",
    "ContainerPrune",
];

/// Paths of an operation with `x` replaced.
fn path_of(path: &str, name: &str) -> String {
    path.replacen("/x", &format!("/{name}"), 1)
}

#[test]
fn names_that_are_none_are_refused_by_every_operation() {
    requires!(root);
    let bench = Bench::new();
    let before = bench.state();
    let long = "a".repeat(10_000);
    let names = [
        "..%2F..%2F..%2Fetc",
        "%2e%2e",
        "%00",
        "a%00b",
        "%F0%9F%92%A9",
        "%zz",
        "%ff",
        "%",
        "-x",
        "a%0d%0aX:%20y",
        "%2F",
        "",
        "*",
        "sha256:x",
        "a@b",
        "x%20y",
        ".",
        "%5C",
        "{}",
        "[a-z]*",
        "%25%30%30",
        &long,
    ];
    for (method, path, id) in OPERATIONS.iter().filter(|(_, path, _)| path.contains("/x")) {
        for name in names {
            let path = path_of(path, name);
            let reply = send(&bench.daemon, &request(method, &path, "application/json", b""), method);
            is_fair(&reply, method, &format!("{id}: {method} {}", text(path.as_bytes())));
            // A name and a tag to Docker, too, and a push says only in its stream that there is no such image.
            let is_name = *id == "ImagePush" && name == "sha256:x" && reply.status == 200;
            assert!(reply.status >= 400 || is_name, "{id}: {method} {path}: {}", reply.status);
        }
    }
    bench.unharmed(&before);
}

#[test]
fn unknown_paths_and_methods_are_not_found() {
    requires!(root);
    let bench = Bench::new();
    let before = bench.state();
    for (method, path, id) in OPERATIONS {
        let bare = path.split('?').next().unwrap_or_default();
        for other in ["PATCH", "TRACE", "BREW", "get"] {
            send(&bench.daemon, &request(other, bare, "", b""), other).refuses(404, "page not found");
        }
        if !id.starts_with("Plugin") && !matches!(*id, "ImageDelete" | "ImageHistory" | "ImageGet") {
            let path = format!("{bare}/a/b/c/d");
            let reply = send(&bench.daemon, &request(method, &path, "application/json", b""), method);
            // Names of images have slashes.
            assert!(matches!(reply.status, 404 | 501), "{id}: {method} {path}: {}", reply.status);
        }
    }
    bench.unharmed(&before);
}

#[test]
fn bodies_that_are_none_are_refused_by_every_operation() {
    requires!(root);
    let bench = Bench::new();
    let before = bench.state();
    let deep = [vec![b'['; 100_000], b"{\"a\":".repeat(50_000)];
    let bodies: [&[u8]; 14] = [
        b"{",
        b"[]",
        b"1",
        b"\"x\"",
        b"{}{}",
        b"\xff\xfe",
        &deep[0],
        &deep[1],
        b"{\"x\":1e999}",
        b"{\"a\":\"\\ud800\"}",
        br#"{"Cmd":1,"CheckpointID":1,"Memory":"x","Detach":"x","Container":[],"Name":7}"#,
        br#"{"Cmd":["\u0000"],"CheckpointID":"../../x","Container":"\u0000","Name":"\u0000"}"#,
        br#"{"Memory":-1,"NanoCpus":-1,"RestartPolicy":{"Name":"x"}}"#,
        br#"{"BlkioWeight":70000,"CpusetCpus":"x","ConsoleSize":[1],"Env":["=x"]}"#,
    ];
    for (method, path, id) in OPERATIONS.iter().filter(|(method, ..)| matches!(*method, "POST" | "PUT")) {
        if TELLING.contains(id) || *id == "ContainerPause" || *id == "ContainerWait" {
            continue;
        }
        let targets = match path.starts_with("/containers/x") {
            // What says nothing that it knows asks for a clone like any other.
            true if *id == "ContainerClone" => vec![bench.created.as_str()],
            true => vec![bench.created.as_str(), bench.running.as_str()],
            false => vec!["x"],
        };
        for target in targets {
            let path = path_of(path, target);
            for (number, body) in bodies.iter().enumerate() {
                let content_type = ["application/json", "text/plain", "application/x-tar", ""][number % 4];
                for content_type in ["application/json", content_type] {
                    let reply = send(&bench.daemon, &request(method, &path, content_type, body), method);
                    is_fair(
                        &reply,
                        method,
                        &format!("{id}: {method} {path}: {content_type}: {}", text(body)),
                    );
                }
            }
        }
    }
    // One that needs a body does not do without.
    for (path, part) in [
        ("/containers/create".to_owned(), ""),
        (format!("/containers/{}/exec", bench.running), "No exec command specified"),
        (format!("/containers/{}/checkpoints", bench.running), ""),
    ] {
        send(&bench.daemon, &request("POST", &path, "application/json", b""), "POST").refuses(400, part);
    }
    // What is announced to be too big is not waited for.
    let huge = "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{";
    let start = Instant::now();
    send(&bench.daemon, huge.as_bytes(), "POST").refuses(413, "larger than");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    bench.unharmed(&before);
}

#[test]
fn query_values_that_are_none_are_refused_by_every_operation() {
    requires!(root);
    let bench = Bench::new();
    let before = bench.state();
    let keys = [
        "filters",
        "all",
        "limit",
        "size",
        "t",
        "signal",
        "h",
        "w",
        "since",
        "until",
        "tail",
        "condition",
        "path",
        "repo",
        "tag",
        "names",
        "fromSrc",
        "fromImage",
        "checkpoint",
        "checkpoint-dir",
        "dir",
        "stream",
        "one-shot",
        "ps_args",
        "detachKeys",
        "type",
        "changes",
        "platform",
        "scope",
        "noOverwriteDirNonDir",
        "name",
        "stdout",
    ];
    let long = "a".repeat(5000);
    let values = [
        "",
        "x",
        "-1",
        "1e99",
        "99999999999999999999",
        "%00",
        "NaN",
        "..%2Fx",
        "[",
        "{}",
        "null",
        "%22x%22",
        "%zz",
        "1.5",
        "-9223372036854775808",
        "1700000000.9999999999",
        "%7B%22x%22:1%7D",
        "%7B%22label%22:%5B1%5D%7D",
        "%7B%22until%22:%5B%22x%22%5D%7D",
        "%7B%22dangling%22:%5B%22x%22%5D%7D",
        "%7B%22name%22:%5B%22%5B%22%5D%7D",
        "%7B%22before%22:%5B%22nope%22%5D%7D",
        "%7B%22publish%22:%5B%22-%22%5D%7D",
        &long,
    ];
    let mut turn = 0;
    for (method, path, id) in OPERATIONS {
        if TELLING.contains(id) || matches!(*id, "ContainerPause" | "ContainerWait" | "ImageImport") {
            continue;
        }
        let target = if *id == "ContainerClone" { &bench.created } else { &bench.running };
        let bare = path_of(path.split('?').next().unwrap_or_default(), target);
        for key in keys {
            // Each key meets a third of the values at each operation, all of them at all operations.
            for value in values.iter().skip(turn % 3).step_by(3) {
                let tail = match *id {
                    "SystemEvents" => "&until=1",
                    "ContainerLogs" => "&stdout=1",
                    _ => "",
                };
                let path = format!("{bare}?{key}={value}&{key}={value}{tail}");
                let reply = send(&bench.daemon, &request(method, &path, "application/json", b""), method);
                is_fair(&reply, method, &format!("{id}: {method} {}", text(path.as_bytes())));
            }
            turn += 1;
        }
    }
    for filters in ["x", "[]", "%7B%22bogus%22:%5B%22x%22%5D%7D", "%7B%22until%22:%5B%22x%22%5D%7D"] {
        let path = format!("/containers/prune?filters={filters}");
        send(&bench.daemon, &request("POST", &path, "", b""), "POST").refuses(400, "");
    }
    // What stops or signals a container is asked with what cannot be meant.
    for (operation, query) in [
        ("stop", "t=x"),
        ("stop", "t=99999999999999999999"),
        ("stop", "signal=nonsense"),
        ("restart", "t=1.5"),
        ("kill", "signal=nonsense"),
        ("kill", "signal=0"),
        ("kill", "signal=-9"),
        ("kill", "signal=%00"),
        ("kill", "signal=65"),
        ("rename", ""),
        ("rename", "name="),
        ("rename", "name=.."),
        ("rename", "name=a%2Fb"),
        ("rename", "name=%00%00"),
        ("rename", "name=a%20b"),
        ("wait", "condition=x"),
    ] {
        let path = format!("/containers/{}/{operation}?{query}", bench.running);
        let reply = send(&bench.daemon, &request("POST", &path, "", b""), "POST");
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        is_fair(&reply, "POST", &path);
    }
    bench.unharmed(&before);
}

/// A body that says everything a create can say.
const FULL_CREATE: &str = r#"{
        "Hostname": "h", "Domainname": "d", "User": "0", "AttachStdin": false, "AttachStdout": true, "AttachStderr": true,
        "ExposedPorts": {"80/tcp": {}}, "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": ["A=b"], "Cmd": ["true"],
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 1000000000, "Timeout": 1000000000, "StartPeriod": 0, "Retries": 3},
        "Image": "busybox", "WorkingDir": "/tmp", "Entrypoint": ["sh"], "NetworkDisabled": false, "OnBuild": ["a"],
        "Labels": {"a": "b"}, "StopSignal": "TERM", "StopTimeout": 1, "Shell": ["sh"],
        "HostConfig": {
            "Binds": ["/tmp:/mnt:ro"], "ContainerIDFile": "", "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
            "NetworkMode": "none", "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
            "AutoRemove": false, "VolumeDriver": "", "VolumesFrom": [], "ConsoleSize": [0, 0], "Annotations": {"a": "b"},
            "CapAdd": ["NET_ADMIN"], "CapDrop": ["MKNOD"], "CgroupnsMode": "private", "Dns": ["1.1.1.1"],
            "DnsOptions": ["ndots:1"], "DnsSearch": ["example.com"], "ExtraHosts": ["a:127.0.0.1"], "GroupAdd": ["0"],
            "IpcMode": "private", "Cgroup": "", "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false,
            "ReadonlyRootfs": false, "SecurityOpt": ["no-new-privileges"], "Tmpfs": {"/t": "size=1m"}, "UTSMode": "",
            "UsernsMode": "", "ShmSize": 1048576, "Sysctls": {"kernel.msgmax": "1"}, "Runtime": "", "Isolation": "",
            "CpuShares": 512, "Memory": 67108864, "NanoCpus": 500000000, "CgroupParent": "", "BlkioWeight": 0,
            "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
            "CpuRealtimeRuntime": 0, "CpusetCpus": "0", "CpusetMems": "",
            "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "rwm"}],
            "DeviceCgroupRules": ["c 1:3 rwm"], "DeviceRequests": [], "MemoryReservation": 0, "MemorySwap": 0,
            "MemorySwappiness": -1, "OomKillDisable": false, "PidsLimit": 10,
            "Ulimits": [{"Name": "nofile", "Hard": 10, "Soft": 5}],
            "Mounts": [
                {"Type": "bind", "Source": "/tmp", "Target": "/m", "ReadOnly": true, "BindOptions": {"Propagation": "rprivate"}},
                {"Type": "tmpfs", "Target": "/t2", "TmpfsOptions": {"SizeBytes": 1000000, "Mode": 448, "Options": [["noexec"]]}}
            ],
            "MaskedPaths": ["/a"], "ReadonlyPaths": ["/b"], "Init": true
        },
        "NetworkingConfig": {"EndpointsConfig": {"none": {
            "IPAMConfig": {"IPv4Address": ""}, "Aliases": [], "MacAddress": "", "GwPriority": 0, "IPPrefixLen": 0
        }}}
    }"#;

fn full_create() -> Value {
    serde_json::from_str(FULL_CREATE).expect("JSON")
}

/// The places of all values in `value`, as JSON pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    let escape = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, field)| places(field, &format!("{at}/{}", escape(key)), found));
        }
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(number, item)| places(item, &format!("{at}/{number}"), found));
        }
        _ => {}
    }
}

/// Whether a value of this kind is of the type that `original` has in the API.
fn has_same_type(original: &Value, other: &Value) -> bool {
    match (original, other) {
        (Value::Number(_), Value::Number(number)) => number.is_i64(),
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => true,
        (Value::String(_), Value::String(_)) | (Value::Bool(_), Value::Bool(_)) => true,
        (_, Value::Null) => true,
        _ => false,
    }
}

#[test]
fn every_field_of_a_create_refuses_what_it_is_not() {
    requires!(root);
    let bench = Bench::new();
    let daemon = &bench.daemon;
    let full = full_create();
    let mut all = Vec::new();
    places(&full, "", &mut all);
    let others = [
        json!("x"),
        json!("\u{0}"),
        json!("../../etc"),
        json!("a".repeat(10_000)),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(true),
        json!(null),
        json!([]),
        json!([[]]),
        json!([1]),
        json!(["x"]),
        json!({}),
        json!({"x": {"y": "z"}}),
        json!([{"x": 1}]),
    ];
    let mut connection = Connection::open(&daemon.socket());
    let mut ask = |method: &str, path: &str, body: &Value| {
        let body = body.to_string();
        connection.request(method, path, &[], Some(body.as_bytes()));
        // The connection is good for the next, whatever this one was.
        connection.reply(method)
    };
    ask("POST", "/containers/create?name=full", &full).is(201);
    ask("DELETE", "/containers/full", &json!(null)).is(204);
    let before = bench.state();
    let mut made = 0;
    for (number, place) in all.iter().enumerate() {
        // Neighbours are of one kind mostly: each meets half of the values.
        for other in others.iter().skip(number % 2).step_by(2) {
            let mut body = full.clone();
            let original = body.pointer_mut(place).expect("a place of this value");
            let is_plausible = has_same_type(original, other);
            *original = other.clone();
            let reply = ask("POST", "/containers/create", &body);
            let what = format!("{place} = {}", text(other.to_string().as_bytes()));
            is_fair(&reply, "POST", &what);
            if reply.status != 201 {
                continue;
            }
            // Two of them take one word for a list of words, as old clients send it.
            let is_word = other.is_string() && matches!(place.as_str(), "/Cmd" | "/Entrypoint");
            assert!(is_plausible || is_word, "{what} was taken");
            let id = reply.json()["Id"].as_str().unwrap_or_default().to_owned();
            ask("GET", &format!("/containers/{id}/json"), &json!(null)).is(200);
            ask("DELETE", &format!("/containers/{id}"), &json!(null)).is(204);
            made += 1;
        }
    }
    assert!(made > 50, "most of this is refused for another reason than meant: {made} were made");
    bench.unharmed(&before);
}

#[test]
fn random_requests_are_survived() {
    requires!(root);
    let bench = Bench::new();
    let before = bench.state();
    let full = full_create().to_string().into_bytes();
    let deadline = Instant::now() + Duration::from_secs(8);
    check("random_requests_are_survived", 400, |random: &mut Gen| {
        if Instant::now() > deadline {
            return;
        }
        let (method, path, id) = random.pick(OPERATIONS);
        let mut bytes = match random.below(3) {
            // A create with a few bytes changed.
            0 => request("POST", "/containers/create", "application/json", &full),
            _ if TELLING.contains(id) => request("GET", path, "", b""),
            1 => request(method, &path_of(path, "x"), "application/json", &random.bytes(200)),
            _ => {
                let tail: String = random.bytes(40).iter().map(|byte| format!("%{byte:02x}")).collect();
                request(method, &format!("{path}{tail}"), "application/json", b"{}")
            }
        };
        for _ in 0..random.below(6) {
            let at = random.below(bytes.len());
            bytes[at] = *random.pick(b"\"{}[]:,0-9eE.\\u\x00\xff xn");
        }
        // Mutations may make a valid head, and a wait for the rest of its body: an end of file is one too.
        let mut connection = Connection::open(&bench.daemon.socket());
        let _ = std::io::Write::write_all(&mut connection.stream(), &bytes);
        let _ = connection.stream().shutdown(std::net::Shutdown::Write);
        if let Some(reply) = connection.head() {
            let is_refusal = matches!(reply.status, 501 | 503 | 505);
            let length = reply.header("content-length").and_then(|length| length.parse().ok());
            let is_beyond =
                |length| connection.exact(length).is_some_and(|body| is_unreachable(&text(&body)));
            assert!(
                reply.status < 500 || is_refusal || length.is_some_and(is_beyond),
                "{:?}: {reply:?}",
                text(&bytes)
            );
            if reply.status == 201 {
                // One of the creates was still one.
                let list = bench.daemon.api("GET", "/containers/json?all=1").is(200).json();
                for container in list.as_array().into_iter().flatten() {
                    let id = container["Id"].as_str().unwrap_or_default();
                    if id != bench.created && id != bench.running {
                        bench.daemon.api("DELETE", &format!("/containers/{id}")).is(204);
                    }
                }
            }
        }
    });
    bench.unharmed(&before);
}
