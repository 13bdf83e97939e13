//! What else talks to a Docker socket: curl by hand, dashboards, reverse proxies, updaters.
//!
//! These clients are not here; what they ask is, in their order and over their kind of connection.

use serde_json::Value;

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

fn curl(daemon: &Daemon, args: &[&str]) -> Cmd {
    Cmd::new("curl").args(["-sS", "--max-time", "20", "--unix-socket"]).arg(daemon.socket()).args(args)
}

#[test]
fn curl_speaks_to_the_socket() {
    requires!(root, curl);
    let daemon = Daemon::start();
    curl(&daemon, &["http://localhost/_ping"]).ok().stdout_is("OK");
    let head = curl(&daemon, &["-I", "http://localhost/v1.51/_ping"]).ok();
    head.stdout_has("HTTP/1.1 200 OK").stdout_has("Api-Version: 1.51").stdout_has("Swarm: inactive");
    // HTTP/1.0: no chunks, closed at the end.
    let old = curl(&daemon, &["-0", "-i", "http://localhost/containers/json?all=1"]).ok();
    old.stdout_lacks("chunked").stdout_has("[]");
    curl(&daemon, &["-0", "http://localhost/events?since=1&until=2"]).ok().stdout_is("");
    // A body of no announced length, after "100 Continue".
    let body = r#"{"Image":"busybox","Cmd":["echo","from curl"],"HostConfig":{"NetworkMode":"none"}}"#;
    let json = "Content-Type: application/json";
    let create = ["-H", json, "-H", "Transfer-Encoding: chunked", "-H", "Expect: 100-continue", "-d", "@-"];
    let url = "http://localhost/v1.40/containers/create?name=curled";
    let made = curl(&daemon, &create).arg(url).stdin(body).ok().stdout;
    let made: Value = serde_json::from_str(&made).expect("the reply is JSON");
    assert_eq!(made["Id"].as_str().map(str::len), Some(64));
    let status = ["-o", "/dev/null", "-w", "%{http_code}", "-X"];
    let post =
        |path: &str| curl(&daemon, &status).args(["POST", &format!("http://localhost{path}")]).ok().stdout;
    assert_eq!(post("/containers/curled/start"), "204");
    curl(&daemon, &["-X", "POST", "http://localhost/containers/curled/wait"])
        .ok()
        .stdout_has(r#""StatusCode":0"#);
    curl(&daemon, &["-o", "-", "http://localhost/containers/curled/logs?stdout=1"])
        .ok()
        .stdout_has("from curl\n");
    // Many requests on one connection, answered in order.
    let many =
        curl(&daemon, &["http://localhost/_ping", "http://localhost/version", "http://localhost/_ping"]).ok();
    assert!(many.stdout.starts_with("OK{") && many.stdout.ends_with("OK"), "{many}");
    let missing = curl(&daemon, &["-i", "http://localhost/containers/absent/json"]).ok();
    missing.stdout_has("404 Not Found").stdout_has(r#"{"message":"No such container: absent"}"#);
    assert_eq!(post("/containers/absent/start"), "404");
    // An upload that is refused before it was read.
    let tar =
        curl(&daemon, &status).args(["PUT", "-T", "-", "http://localhost/containers/absent/archive?path=/"]);
    tar.stdin(vec![0; 3 << 20]).ok().stdout_is("404");
}

/// What a dashboard asks for one screen, version by version, over one connection: objects and arrays, never null.
#[test]
fn a_dashboard_reads_everything() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["--label", "a=b"], "exec sleep 1000");
    let mut kept = Connection::open(&daemon.socket());
    for version in ["", "/v1.25", "/v1.41", "/v1.44", "/v1.51"] {
        let mut get = |path: &str| {
            kept.request("GET", &format!("{version}{path}"), &[("User-Agent", "dashboard")], None);
            kept.reply("GET").is(200).json()
        };
        let info = get("/info");
        assert_eq!((&info["Containers"], &info["ContainersRunning"]), (&1.into(), &1.into()), "{version}");
        for list in ["Warnings", "SecurityOptions", "Labels", "DriverStatus"] {
            assert!(info[list].is_array() || info[list].is_null(), "{version} {list}: {}", info[list]);
        }
        for kind in ["Volume", "Network", "Log"] {
            assert!(info["Plugins"][kind].is_array(), "{version} {kind}: {}", info["Plugins"]);
        }
        assert!(get("/version")["Components"].is_array());
        let containers = get("/containers/json?all=1&size=1");
        assert_eq!(containers[0]["Names"][0], "/web");
        assert!(containers[0]["Ports"].is_array() && containers[0]["Mounts"].is_array(), "{containers}");
        assert_eq!(get("/images/json?all=0")[0]["RepoTags"][0], "busybox:latest");
        let volumes = get("/volumes?filters=%7B%22dangling%22%3A%5B%22true%22%5D%7D");
        assert!(volumes["Volumes"].is_array(), "{volumes}");
        assert_eq!(get("/networks").as_array().map(Vec::len), Some(3));
        let used = get("/system/df");
        for list in ["Images", "Containers", "Volumes", "BuildCache"] {
            assert!(used[list].is_array(), "{version} {list}: {used}");
        }
        let id = containers[0]["Id"].as_str().expect("an id");
        assert_eq!(get(&format!("/containers/{id}/json"))["Config"]["Labels"]["a"], "b");
        assert!(get(&format!("/containers/{id}/top"))["Processes"].is_array());
        assert!(get(&format!("/containers/{id}/stats?stream=false&one-shot=true"))["cpu_stats"].is_object());
        assert!(
            get(&format!("/images/{}/history", containers[0]["ImageID"].as_str().expect("an id"))).is_array()
        );
    }
    for path in ["/services", "/swarm", "/nodes", "/tasks", "/secrets", "/configs"] {
        daemon.api("GET", path).refuses(503, "not a swarm manager");
    }
}

/// What a reverse proxy does: follow the events of containers on one connection, and on each one list and inspect over
/// another that stays open.
#[test]
fn a_proxy_watches_containers_come_and_go() {
    requires!(root);
    let daemon = Daemon::start();
    let mut events = Connection::open(&daemon.socket());
    let filters = "%7B%22type%22%3A%7B%22container%22%3Atrue%7D%7D";
    events.request("GET", &format!("/v1.24/events?filters={filters}"), &[], None);
    assert_eq!(events.head().expect("a reply").status, 200);
    daemon.run_detached("web", &["--label", "proxy.rule=Host(`x`)"], "exec sleep 1000");
    let mut next = || serde_json::from_slice::<Value>(&events.chunk().expect("an event")).expect("JSON");
    assert_eq!((&next()["status"], &next()["status"]), (&"create".into(), &"start".into()));
    let mut kept = Connection::open(&daemon.socket());
    let mut get = |path: &str| {
        kept.request("GET", path, &[], None);
        kept.reply("GET").is(200).json()
    };
    let list = get("/v1.24/containers/json?limit=0");
    assert_eq!(list[0]["Labels"]["proxy.rule"], "Host(`x`)");
    let id = list[0]["Id"].as_str().expect("an id").to_owned();
    let inspect = get(&format!("/v1.24/containers/{id}/json"));
    assert_eq!(inspect["State"]["Running"], true);
    assert!(inspect["NetworkSettings"]["Networks"]["none"].is_object(), "{inspect}");
    assert_eq!(inspect["HostConfig"]["NetworkMode"], "none");
    daemon.dewar(&["rm", "-f", "web"]).ok();
    let ends: Vec<Value> = (0..3).map(|_| next()["status"].clone()).collect();
    assert_eq!(ends, ["kill", "die", "destroy"]);
    assert_eq!(get("/v1.24/containers/json"), serde_json::json!([]));
}

/// What an updater does: inspect a container, stop and remove it, and create it again from what inspect said, under the
/// same name.
#[test]
fn an_updater_replaces_a_container_by_its_inspection() {
    requires!(root);
    let daemon = Daemon::start();
    let flags = ["--memory", "64m", "--restart", "always", "-e", "KEPT=yes", "-l", "a=b", "--tmpfs", "/t"];
    daemon.run_detached("app", &flags, "echo $KEPT; exec sleep 1000");
    let old = daemon.api("GET", "/v1.41/containers/app/json").is(200).json();
    daemon.api("GET", &format!("/images/{}/json", old["Image"].as_str().expect("an id"))).is(200);
    let id = old["Id"].as_str().expect("an id");
    daemon.api("POST", &format!("/containers/{id}/kill?signal=SIGKILL")).is(204);
    daemon.api("POST", &format!("/containers/{id}/stop?t=0"));
    eventually("it has stopped", || !daemon.state("app")["Running"].as_bool().unwrap_or(true));
    daemon.api("DELETE", &format!("/containers/{id}?force=1")).is(204);
    let mut body = old["Config"].clone();
    body["HostConfig"] = old["HostConfig"].clone();
    body["NetworkingConfig"] = serde_json::json!({"EndpointsConfig": old["NetworkSettings"]["Networks"]});
    let made = daemon.api_json("POST", "/v1.41/containers/create?name=app", &body).is(201).json();
    daemon.api("POST", "/v1.41/containers/app/start").is(204);
    let new = daemon.api("GET", "/v1.41/containers/app/json").is(200).json();
    assert_eq!(new["Id"], made["Id"]);
    for part in ["HostConfig", "Image", "Args", "Path"] {
        assert_eq!(new[part], old[part], "{part} changed");
    }
    assert_eq!(new["Config"]["Env"], old["Config"]["Env"]);
    eventually("it runs as before", || daemon.logs("app") == "yes\n");
}
