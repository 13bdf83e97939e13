//! Older API versions: each sees the shapes it knows, and a whole session works in each.

use serde_json::{Value, json};

use crate::support::Daemon;
use crate::support::requires::requires;

/// Where an answer changed: the first version with the new shape, what to ask, and what to look at. `look` gives the
/// part of the answer that tells old from new.
struct Boundary {
    minor: u16,
    path: &'static str,
    look: fn(&Value) -> Value,
    old: fn() -> Value,
    new: fn() -> Value,
}

const BOUNDARIES: &[Boundary] = &[
    Boundary {
        minor: 51,
        path: "/images/json",
        look: |list| list[0]["Containers"].clone(),
        old: || json!(-1),
        new: || json!(1),
    },
    Boundary {
        minor: 50,
        path: "/images/busybox/json",
        look: |image| image["Config"].get("AttachStdin").cloned().unwrap_or_default(),
        old: || json!(false),
        new: || Value::Null,
    },
    Boundary {
        minor: 50,
        path: "/info",
        look: |info| info.get("BridgeNfIptables").cloned().unwrap_or_default(),
        old: || json!(false),
        new: || Value::Null,
    },
    Boundary {
        minor: 49,
        path: "/info",
        look: |info| info["RuncCommit"].get("Expected").cloned().unwrap_or_default(),
        old: || json!(""),
        new: || Value::Null,
    },
    Boundary {
        minor: 46,
        path: "/containers/json?all=1",
        look: |list| list[0]["HostConfig"].clone(),
        old: || json!({"NetworkMode": "none"}),
        new: || json!({"NetworkMode": "none", "Annotations": {"k": "v"}}),
    },
    Boundary {
        minor: 45,
        path: "/images/busybox/json",
        look: |image| image.get("Container").cloned().unwrap_or_default(),
        old: || json!(""),
        new: || Value::Null,
    },
    Boundary {
        minor: 44,
        path: "/images/json",
        look: |list| json!(list[0]["VirtualSize"].is_number()),
        old: || json!(true),
        new: || json!(false),
    },
    Boundary {
        minor: 44,
        path: "/images/busybox/json",
        look: |image| json!(image["VirtualSize"].is_number()),
        old: || json!(true),
        new: || json!(false),
    },
    Boundary {
        minor: 43,
        path: "/images/json?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D",
        look: |list| list[0]["RepoTags"].clone(),
        old: || json!(["<none>:<none>"]),
        new: || json!([]),
    },
    Boundary {
        minor: 42,
        path: "/info",
        look: |info| info.get("KernelMemory").cloned().unwrap_or_default(),
        old: || json!(false),
        new: || Value::Null,
    },
    Boundary {
        minor: 25,
        path: "/info",
        look: |info| info["SecurityOptions"][0].clone(),
        old: || json!("seccomp"),
        new: || json!("name=seccomp,profile=builtin"),
    },
];

#[test]
fn each_version_sees_the_shapes_it_knows() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none", "Annotations": {"k": "v"}}});
    daemon.api_json("POST", "/containers/create?name=web", &body).is(201);
    // An image without a name beside the one with one.
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).args(["--message", "other"]).ok();
    for boundary in BOUNDARIES {
        for (minor, wanted) in [(boundary.minor - 1, (boundary.old)()), (boundary.minor, (boundary.new)())] {
            // The oldest there is stands in for what is older still.
            let path = format!("/v1.{}{}", minor.max(24), boundary.path);
            let mut answer = daemon.api("GET", &path).is(200).json();
            // Of several images the named one is meant, unless asked otherwise.
            if boundary.path == "/images/json" {
                let list = answer.as_array().expect("a list").clone();
                answer =
                    list.into_iter().filter(|image| image["RepoTags"] == json!(["busybox:latest"])).collect();
            }
            assert_eq!((boundary.look)(&answer), wanted, "{path}");
        }
    }
}

#[test]
fn requests_mean_what_their_version_meant() {
    requires!(root);
    let daemon = Daemon::start();
    let create = |minor: u16, name: &str, mut body: Value| {
        body["Image"] = json!("busybox");
        body["Cmd"] = json!(["sleep", "1000"]);
        body["HostConfig"]["NetworkMode"] = json!("none");
        daemon.api_json("POST", &format!("/v1.{minor}/containers/create?name={name}"), &body)
    };
    let host = |minor: u16, given: Value| {
        create(minor, "web", json!({"HostConfig": given})).is(201);
        let inspect = daemon.api("GET", "/containers/web/json").is(200).json();
        daemon.api("DELETE", "/containers/web?force=1").is(204);
        inspect["HostConfig"].clone()
    };
    assert_eq!(host(40, json!({}))["IpcMode"], "private");
    assert_eq!(host(39, json!({}))["IpcMode"], "shareable");
    assert_eq!(host(42, json!({"ConsoleSize": [3, 4]}))["ConsoleSize"], json!([3, 4]));
    assert_eq!(host(41, json!({"ConsoleSize": [3, 4]}))["ConsoleSize"], json!([0, 0]));
    assert_eq!(host(43, json!({"Annotations": {"a": "b"}}))["Annotations"], json!({"a": "b"}));
    assert!(host(42, json!({"Annotations": {"a": "b"}}))["Annotations"].is_null());
    assert_eq!(host(24, json!({"AutoRemove": true}))["AutoRemove"], false);
    // What a newer version knows is tolerated, as every unknown field is.
    host(41, json!({"KernelMemory": 67_108_864, "KernelMemoryTCP": 1}));
    let subpath = json!({"HostConfig": {"Mounts": [
        {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": {"Subpath": "x"}},
    ]}});
    create(44, "web", subpath).refuses(400, "VolumeOptions.Subpath needs API v1.45 or newer");
    create(51, "web", json!({})).is(201);
    // A body at the start was for the options, before 1.24.
    let body = json!({"Binds": ["/a:/b"]});
    daemon.api_json("POST", "/v1.24/containers/web/start", &body).refuses(400, "non-empty request body");
    daemon.api("POST", "/v1.24/containers/web/start").is(204);
    // The signal of a stop is younger than 1.41: the container's own is sent, and then the kill.
    daemon.api("POST", "/v1.41/containers/web/stop?signal=nonsense&t=0").is(204);
    daemon.api("POST", "/v1.42/containers/web/start").is(204);
    daemon.api("POST", "/v1.42/containers/web/stop?signal=nonsense&t=0").refuses(400, "nonsense");
    daemon.api("POST", "/v1.30/containers/web/wait?condition=nonsense").refuses(400, "nonsense");
    daemon.api("POST", "/v1.42/containers/web/kill").is(204);
    let code = daemon.api("POST", "/v1.29/containers/web/wait?condition=nonsense").is(200).json();
    assert_eq!(code["StatusCode"], 137);
}

/// A wait of before 1.30 answers in one piece, when it is over.
#[test]
fn an_old_wait_is_silent_until_the_end() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "read line; exit 3");
    let ask = |minor: u16| {
        let mut connection = crate::support::http::Connection::open(&daemon.socket());
        connection.request("POST", &format!("/v1.{minor}/containers/web/wait"), &[], None);
        connection
    };
    let (mut old, mut new) = (ask(29), ask(30));
    // The new one's head is there while the container runs; the old one has nothing yet.
    assert_eq!(new.head().map(|reply| reply.status), Some(200));
    old.stream().set_nonblocking(true).expect("a socket");
    let mut byte = [0];
    let nothing = std::io::Read::read(&mut old.stream(), &mut byte).map_err(|cause| cause.kind());
    assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock));
    old.stream().set_nonblocking(false).expect("a socket");
    daemon.api("POST", "/containers/web/kill").is(204);
    let reply = old.reply("POST").is(200);
    assert!(reply.header("content-length").is_some(), "{reply:?}");
    assert_eq!(reply.json(), json!({"StatusCode": 137}));
}

#[test]
fn operations_begin_with_their_version() {
    requires!(root);
    let daemon = Daemon::empty();
    for (minor, method, path, done) in [
        (25, "POST", "/images/prune", 200),
        (25, "POST", "/networks/prune", 200),
        // No registry is within reach.
        (30, "GET", "/distribution/x/json", 500),
    ] {
        let wanted = format!("requires minimum API version 1.{minor}");
        daemon.api(method, &format!("/v1.{}{path}", minor - 1)).refuses(400, &wanted);
        assert_eq!(daemon.api(method, &format!("/v1.{minor}{path}")).status, done, "{path}");
    }
}

/// The stock client in every version it speaks; it refuses some old ones itself.
#[test]
fn docker_works_in_every_version() {
    requires!(root, docker);
    let daemon = Daemon::start();
    // Around each version that changed something, and the newest.
    for minor in [24, 25, 29, 30, 34, 36, 40, 42, 43, 44, 45, 46, 49, 50, 51] {
        let version = format!("1.{minor}");
        let docker = |args: &[&str]| daemon.docker(args).env("DOCKER_API_VERSION", &version);
        let run = ["run", "--network", "none", "--name", "web", "busybox", "sh", "-c", "echo out; exit 7"];
        let first = docker(&run).run();
        if first.stderr.contains("client version 1.") && first.stderr.contains("too new") {
            // Its own maximum, not ours.
            continue;
        }
        assert_eq!((first.code, first.stdout.as_str()), (7, "out\n"), "{version}: {first}");
        docker(&["logs", "web"]).ok().stdout_is("out\n");
        docker(&["ps", "-a", "--format", "{{.Names}} {{.Image}}"]).ok().stdout_is("web busybox\n");
        docker(&["inspect", "-f", "{{.State.ExitCode}}", "web"]).ok().stdout_is("7\n");
        docker(&["rm", "web"]).ok();
        if matches!(minor, 24 | 36 | 45) {
            docker(&["images", "-q"]).ok();
            docker(&["image", "inspect", "busybox"]).ok();
            docker(&["info"]).ok().stdout_has("Server Version");
            docker(&["version"]).ok().stdout_has("Server");
            docker(&["network", "ls"]).ok().stdout_has("bridge");
            docker(&["run", "-d", "--network", "none", "--name", "web", "busybox", "sleep", "1000"]).ok();
            docker(&["exec", "web", "echo", "in"]).ok().stdout_is("in\n");
            docker(&["stats", "--no-stream", "--format", "{{.Name}}", "web"]).ok().stdout_is("web\n");
            docker(&["stop", "-t", "0", "web"]).ok();
            docker(&["rm", "web"]).ok();
        }
    }
}

#[test]
fn docker_py_works_in_old_versions() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let host = daemon.host();
    for version in ["1.24", "1.35", "1.41", "auto"] {
        let script = format!(
            r#"
client = docker.DockerClient(base_url='{host}', version='{version}')
out = client.containers.run('busybox', ['sh', '-c', 'echo out; echo err >&2'], network_mode='none')
assert out == b'out\n', out
for old in client.containers.list(all=True):
    assert old.wait()['StatusCode'] == 0
    old.remove()
web = client.containers.run('busybox', ['sleep', '1000'], network_mode='none', name='web', detach=True)
assert web.exec_run(['echo', 'hi']) == (0, b'hi\n')
assert web.stats(stream=False)['name'] == '/web'
assert web.name == 'web' and web.attrs['NetworkSettings']['Networks']['none']['NetworkID']
assert client.images.get('busybox').tags == ['busybox:latest']
assert [n.name for n in client.networks.list(names=['host'])] == ['host']
assert client.info()['ServerVersion']
web.stop(timeout=0); assert web.wait()['StatusCode'] == 137
web.remove()
"#
        );
        daemon.python(&script).ok();
    }
}
