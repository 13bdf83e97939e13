//! `_ping`, `version`, `info`, versions in paths, and errors as clients read them.

use serde_json::json;

use crate::support::Daemon;
use crate::support::http::Connection;
use crate::support::requires::requires;

#[test]
fn ping_carries_what_clients_negotiate_with() {
    requires!(root);
    let daemon = Daemon::empty();
    let reply = daemon.api("GET", "/_ping").is(200);
    assert_eq!(reply.text(), "OK");
    assert_eq!(reply.header("api-version"), Some("1.51"));
    assert_eq!(reply.header("ostype"), Some("linux"));
    // Without it docker hides its checkpoint commands.
    assert_eq!(reply.header("docker-experimental"), Some("true"));
    assert!(reply.header("server").is_some_and(|server| !server.is_empty()));
    assert!(reply.header("cache-control").is_some_and(|cache| cache.contains("no-store")));
    assert_eq!(reply.header("swarm"), Some("inactive"));
    let head = daemon.api("HEAD", "/_ping").is(200);
    assert_eq!(head.header("api-version"), Some("1.51"));
    assert!(head.body.is_empty());
}

#[test]
fn version_and_info_have_what_clients_print() {
    requires!(root);
    let daemon = Daemon::empty();
    let version = daemon.api("GET", "/version").is(200).json();
    assert_eq!(version["ApiVersion"], "1.51");
    assert_eq!(version["MinAPIVersion"], "1.24");
    assert_eq!(version["Os"], "linux");
    assert_eq!(version["Version"], env!("CARGO_PKG_VERSION"));
    assert!(version["KernelVersion"].is_string() && version["Arch"].is_string());
    let info = daemon.api("GET", "/info").is(200).json();
    for key in [
        "ID",
        "Driver",
        "KernelVersion",
        "OperatingSystem",
        "OSType",
        "Architecture",
        "DockerRootDir",
        "Name",
    ] {
        assert!(info[key].as_str().is_some_and(|text| !text.is_empty()), "{key}: {}", info[key]);
    }
    assert_eq!(info["Containers"], 0);
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert_eq!(info["LoggingDriver"], "json-file");
    // Arrays are never null: clients range over them.
    assert!(info["SecurityOptions"].is_array());
    assert!(info["NCPU"].as_u64().is_some_and(|count| count > 0));
}

#[test]
fn versions_in_paths_are_checked() {
    requires!(root);
    let daemon = Daemon::empty();
    for path in
        ["/v1.24/containers/json", "/v1.51/containers/json", "/v1.43/containers/json", "/containers/json"]
    {
        assert_eq!(daemon.api("GET", path).is(200).json(), json!([]), "{path}");
    }
    daemon.api("GET", "/v1.23/containers/json").refuses(400, "too old");
    daemon.api("GET", "/v1.52/containers/json").refuses(400, "too new");
    // Numerically, not as text: 1.100 is newer than 1.51.
    daemon.api("GET", "/v1.100/containers/json").refuses(400, "too new");
}

#[test]
fn unknown_paths_and_methods_are_not_found() {
    requires!(root);
    let daemon = Daemon::empty();
    daemon.api("GET", "/nope").refuses(404, "page not found");
    daemon.api("GET", "/v1.51/nope").refuses(404, "page not found");
    // Compat: Docker answers 404, never 405.
    daemon.api("PUT", "/containers/json").refuses(404, "page not found");
}

#[test]
fn objects_that_are_not_there_are_named() {
    requires!(root);
    let daemon = Daemon::empty();
    daemon.api("GET", "/containers/web/json").refuses(404, "No such container: web");
    for path in ["start", "stop", "kill", "pause", "unpause", "wait", "checkpoints", "restart"] {
        if path == "checkpoints" {
            let body = json!({"CheckpointID": "cp1"});
            daemon
                .api_json("POST", "/containers/web/checkpoints", &body)
                .refuses(404, "No such container: web");
        } else {
            daemon.api("POST", &format!("/containers/web/{path}")).refuses(404, "No such container: web");
        }
    }
    daemon.api("DELETE", "/containers/web").refuses(404, "No such container: web");
    daemon.api("GET", "/images/web/json").refuses(404, "No such image: web");
    daemon.api("DELETE", "/images/web").refuses(404, "No such image: web");
    daemon.api("GET", "/exec/abc/json").refuses(404, "No such exec instance: abc");
    let body = json!({"Image": "web"});
    daemon.api_json("POST", "/containers/create", &body).refuses(404, "No such image: web");
}

#[test]
fn bodies_are_json_and_nothing_else() {
    requires!(root);
    let daemon = Daemon::start();
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let mut connection = Connection::open(&daemon.socket());
        connection.request("POST", "/containers/create", headers, Some(body));
        connection.reply("POST")
    };
    post(&[], b"").refuses(400, "");
    post(&[], b"{").refuses(400, "");
    post(&[], b"[]").refuses(400, "");
    post(&[], br#"{"Image":7}"#).refuses(400, "");
    post(&[], br#"{"Image":"busybox"}{}"#).refuses(400, "");
    post(&[("Content-Type", "text/plain")], br#"{"Image":"busybox"}"#).refuses(400, "Content-Type");
    post(&[], &[b'['; 100_000]).refuses(400, "");
    // Parameters of the type are allowed; unknown fields are ignored; null means unset, at any depth.
    let body = json!({
        "Image": "busybox", "Cmd": ["true"], "SomethingNew": {"a": 1}, "Entrypoint": null, "Env": null,
        "Labels": null, "HostConfig": {"NetworkMode": "none", "Binds": null, "CapAdd": null, "LogConfig": null},
        "NetworkingConfig": null,
    });
    post(&[("Content-Type", "application/json; charset=utf-8")], body.to_string().as_bytes()).is(201);
}

#[test]
fn queries_are_decoded_once_and_booleans_read_as_docker_reads_them() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    let count = |query: &str| {
        daemon.api("GET", &format!("/containers/json{query}")).is(200).json().as_array().map_or(0, Vec::len)
    };
    for no in ["", "?all=0", "?all=false", "?all=no", "?all=none", "?all=", "?all=FALSE"] {
        assert_eq!(count(no), 0, "{no}");
    }
    for yes in ["?all=1", "?all=true", "?all=yes", "?all=x"] {
        assert_eq!(count(yes), 1, "{yes}");
    }
    // Go sends maps, docker-py sends lists.
    assert_eq!(count("?all=1&filters=%7B%22name%22%3A%7B%22web%22%3Atrue%7D%7D"), 1);
    assert_eq!(count("?all=1&filters=%7B%22name%22%3A%5B%22other%22%5D%7D"), 0);
    daemon.api("GET", "/containers/json?filters=nonsense").refuses(400, "invalid filter");
    daemon.api("GET", "/containers/json?filters=%7B%22bogus%22%3A%5B%22x%22%5D%7D").refuses(400, "bogus");
    daemon.api("GET", "/containers/json?filters=%7B%22status%22%3A%5B%22flying%22%5D%7D").refuses(400, "");
    daemon.api("GET", "/containers/json?limit=x").refuses(400, "");
    daemon.api("GET", "/containers/w%65b/json").is(200);
}

#[test]
fn what_is_not_built_yet_is_refused_with_a_reason() {
    requires!(root);
    let daemon = Daemon::start();
    for (method, path) in [("POST", "/session"), ("POST", "/commit?container=x")] {
        let reply = daemon.api(method, path);
        assert!(matches!(reply.status, 501 | 404), "{method} {path}: {} {}", reply.status, reply.text());
        assert!(
            reply.json()["message"].as_str().is_some_and(|message| message != "page not found"),
            "{path}"
        );
    }
    // Clients probe swarm; it must say so, not 404 (a bare 404 broke backup tools on another engine).
    daemon.api("GET", "/swarm").refuses(503, "swarm");
    daemon.api("GET", "/services").refuses(503, "swarm");
}
