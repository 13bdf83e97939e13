//! Create, names, ids, conflicts: what the API answers and with which words.

use serde_json::json;

use crate::support::Daemon;
use crate::support::requires::requires;

#[test]
fn a_name_can_be_had_once() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
    let id = daemon.api_json("POST", "/containers/create?name=web", &body).is(201).json()["Id"].clone();
    let conflict = daemon.api_json("POST", "/containers/create?name=web", &body).refuses(409, "Conflict.");
    let message = conflict.json()["message"].as_str().unwrap_or_default().to_owned();
    assert!(
        message.contains("\"/web\" is already in use by container")
            && message.contains(id.as_str().unwrap_or("?"))
    );
    daemon.api("DELETE", "/containers/web").is(204);
    daemon.api_json("POST", "/containers/create?name=web", &body).is(201);
}

#[test]
fn names_are_checked() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
    for name in ["a", "-ab", "a%20b", "..", "a%2Fb", "%C3%BCber", "a%00b"] {
        daemon.api_json("POST", &format!("/containers/create?name={name}"), &body).refuses(400, "");
    }
    daemon.api_json("POST", "/containers/create?name=/a_b.c-d", &body).is(201);
    assert_eq!(daemon.api("GET", "/containers/a_b.c-d/json").is(200).json()["Name"], "/a_b.c-d");
}

#[test]
fn ids_may_be_shortened_until_they_are_ambiguous() {
    requires!(root);
    let daemon = Daemon::start();
    let body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
    let mut ids = Vec::new();
    // Among seventeen ids two begin with the same digit.
    for _ in 0..17 {
        let id = daemon.api_json("POST", "/containers/create", &body).is(201).json()["Id"].clone();
        ids.push(id.as_str().expect("an id").to_owned());
    }
    assert!(ids.iter().all(|id| id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    daemon.api("GET", &format!("/containers/{}/json", &ids[0][..12])).is(200);
    let digit =
        ids.iter().map(|id| &id[..1]).find(|digit| ids.iter().filter(|id| id.starts_with(digit)).count() > 1);
    let digit = digit.expect("the pigeonhole principle");
    daemon
        .api("GET", &format!("/containers/{digit}/json"))
        .refuses(400, "multiple IDs found with provided prefix");
}

#[test]
fn create_refuses_what_it_cannot_do() {
    requires!(root);
    let daemon = Daemon::start();
    let create = |config: serde_json::Value| {
        let mut body = json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}});
        for (key, value) in config.as_object().cloned().unwrap_or_default() {
            if key == "HostConfig" {
                for (key, value) in value.as_object().cloned().unwrap_or_default() {
                    body["HostConfig"][key] = value;
                }
            } else {
                body[key] = value;
            }
        }
        daemon.api_json("POST", "/containers/create", &body)
    };
    create(json!({"Cmd": null})).refuses(400, "no command specified");
    create(json!({"HostConfig": {"Memory": 1024}})).refuses(400, "");
    // A source that does not begin with a slash is a volume's name, and this is none.
    create(json!({"HostConfig": {"Binds": ["re/lative:/x:ro"]}})).refuses(400, "includes invalid characters");
    create(json!({"HostConfig": {"Binds": ["/tmp:relative"]}})).refuses(400, "");
    create(json!({"HostConfig": {"Binds": ["/tmp:/x", "/var:/x"]}})).refuses(400, "Duplicate mount point");
    let mount = json!([{"Type": "bind", "Source": "/nonexistent/source", "Target": "/x"}]);
    create(json!({"HostConfig": {"Mounts": mount}})).refuses(400, "bind source path does not exist");
    create(json!({"HostConfig": {"AutoRemove": true, "RestartPolicy": {"Name": "always"}}})).refuses(400, "");
    create(json!({"HostConfig": {"RestartPolicy": {"Name": "sometimes"}}})).refuses(400, "");
    create(json!({"HostConfig": {"CapAdd": ["CAP_NONSENSE"]}})).refuses(400, "NONSENSE");
    create(json!({"HostConfig": {"NetworkMode": "container:absent"}})).refuses(404, "absent");
    // Nothing of a refused create stays.
    let left = daemon.api("GET", "/containers/json?all=1").is(200).json();
    assert_eq!(left, json!([]));
}

#[test]
fn states_allow_and_refuse() {
    requires!(root);
    let daemon = Daemon::start();
    let post = |path: &str| daemon.api("POST", &format!("/containers/web/{path}"));
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "sleep", "1000"]).ok();
    post("kill").refuses(409, "not running");
    post("pause").refuses(409, "not running");
    post("stop").is(304);
    let body = json!({"Cmd": ["true"]});
    daemon.api_json("POST", "/containers/web/exec", &body).refuses(409, "not running");
    post("start").is(204);
    post("start").is(304);
    post("kill?signal=NONSENSE").refuses(400, "NONSENSE");
    post("kill?signal=0").refuses(400, "");
    daemon.api("DELETE", "/containers/web").refuses(409, "running");
    post("pause").is(204);
    post("pause").refuses(409, "already paused");
    assert_eq!(daemon.state("web")["Status"], "paused");
    daemon.api_json("POST", "/containers/web/exec", &body).refuses(409, "paused");
    post("unpause").is(204);
    post("stop?t=0").is(204);
    post("stop").is(304);
    daemon.api("DELETE", "/containers/web").is(204);
    daemon.api("DELETE", "/containers/web").refuses(404, "No such container");
}

#[test]
fn inspect_has_what_clients_read() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached(
        "web",
        &["-e", "A=b", "-w", "/tmp", "--hostname", "here", "--memory", "64m"],
        "exec sleep 1000",
    );
    let inspect = daemon.api("GET", "/containers/web/json").is(200).json();
    assert_eq!(inspect["Name"], "/web");
    assert_eq!(inspect["State"]["Status"], "running");
    assert!(inspect["State"]["Pid"].as_u64().is_some_and(|pid| pid > 1));
    assert_eq!(inspect["Config"]["Hostname"], "here");
    assert_eq!(inspect["Config"]["WorkingDir"], "/tmp");
    assert_eq!(inspect["Config"]["Tty"], false);
    assert!(inspect["Config"]["Env"].as_array().is_some_and(|env| env.contains(&json!("A=b"))));
    assert_eq!(inspect["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(inspect["HostConfig"]["NetworkMode"], "none");
    assert_eq!(inspect["HostConfig"]["LogConfig"]["Type"], "json-file");
    assert!(inspect["Image"].as_str().is_some_and(|image| image.starts_with("sha256:")));
    assert_eq!(inspect["Path"], "sh");
    assert!(inspect["Mounts"].is_array() && inspect["NetworkSettings"]["Networks"].is_object());
    assert_eq!(inspect["State"]["FinishedAt"], "0001-01-01T00:00:00Z");
}
