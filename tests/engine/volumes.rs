//! Volumes by themselves: made, listed, shown, removed; through dewar's own client and the stock one.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

/// The events about volumes so far: action, name, attributes.
fn events(daemon: &Daemon) -> Vec<String> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let query = format!("since=1&until={}.{:09}", now.as_secs(), now.subsec_nanos());
    let reply = daemon.api("GET", &format!("/events?{query}&filters=%7B%22type%22%3A%5B%22volume%22%5D%7D"));
    let line = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let actor = &event["Actor"];
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", text(&event["Action"]), text(&actor["ID"]), actor["Attributes"])
    };
    reply.is(200).text().lines().map(line).collect()
}

/// What both clients must say alike: the same commands through `client`, on a daemon of its own.
fn session(client: impl Fn(&[&str]) -> Cmd, daemon: &Daemon) {
    client(&["volume", "ls"]).ok().stdout_is("DRIVER    VOLUME NAME\n");
    client(&["volume", "create", "v10"]).ok().stdout_is("v10\n");
    client(&["volume", "create", "v10"]).ok().stdout_is("v10\n");
    client(&["volume", "create", "--label", "team=a", "--label", "blue", "v2"]).ok().stdout_is("v2\n");
    let anonymous = client(&["volume", "create"]).ok().trimmed().to_owned();
    assert!(anonymous.len() == 64 && anonymous.bytes().all(|byte| byte.is_ascii_hexdigit()), "{anonymous}");
    client(&["volume", "ls", "-f", "name=v"])
        .ok()
        .stdout_is("DRIVER    VOLUME NAME\nlocal     v2\nlocal     v10\n");
    client(&["volume", "ls", "-q", "--filter", "label=team=a"]).ok().stdout_is("v2\n");
    client(&["volume", "ls", "-q", "--filter", "dangling=false"]).ok().stdout_is("");
    client(&[
        "volume",
        "ls",
        "--filter",
        "label=blue",
        "--format",
        "{{.Name}} {{.Scope}} {{.Label \"team\"}}",
    ])
    .ok()
    .stdout_is("v2 local a\n");
    let row = client(&["volume", "ls", "--filter", "name=v2", "--format", "json"]).ok();
    let row: serde_json::Value = serde_json::from_str(row.trimmed()).expect("one line of JSON");
    assert_eq!((&row["Size"], &row["Links"], &row["Status"]), (&"N/A".into(), &"N/A".into(), &"N/A".into()));
    for (filter, text) in [
        ("odd=1", "Error response from daemon: invalid filter 'odd'\n"),
        ("dangling=x", "Error response from daemon: invalid filter 'dangling=[x]'\n"),
    ] {
        assert_eq!(client(&["volume", "ls", "--filter", filter]).fails(1).stderr, text);
    }
    let shown = client(&["volume", "inspect", "v2"]).ok().stdout;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let mountpoint = daemon.dir().join("data/volumes/v2/_data");
    assert_eq!(shown[0]["Mountpoint"], mountpoint.to_str().expect("UTF-8"));
    assert_eq!((&shown[0]["Driver"], &shown[0]["Scope"]), (&"local".into(), &"local".into()));
    assert_eq!(shown[0]["Labels"], serde_json::json!({"blue": "", "team": "a"}));
    client(&["volume", "inspect", "-f", "{{.Name}}", "v2"]).ok().stdout_is("v2\n");
    client(&["inspect", "--type", "volume", "-f", "{{.Name}}", "v2"]).ok().stdout_is("v2\n");
    client(&["inspect", "-f", "{{.Driver}}", "v2"]).ok().stdout_is("local\n");
    let missing = client(&["volume", "inspect", "nope"]).fails(1);
    missing.stdout_is("[]\n").stderr_has("Error response from daemon: get nope: no such volume");
    for (args, text) in [
        (&["volume", "create", "x"][..], "create x: volume name is too short"),
        (
            &["volume", "create", "a/b"],
            "create a/b: \"a/b\" includes invalid characters for a local volume name",
        ),
        (
            &["volume", "create", "-d", "odd", "vv"],
            "create vv: error looking up volume plugin odd: plugin \"odd\" not found",
        ),
        (&["volume", "create", "-o", "odd=1", "vv"], "create vv: invalid option: \"odd\""),
        (&["volume", "create", "-o", "type=tmpfs", "vv"], "create vv: missing required option: \"device\""),
        (
            &["volume", "create", "-o", "size=1g", "vv"],
            "create vv: quota size requested but no quota support",
        ),
        (&["volume", "rm", "nope"], "get nope: no such volume"),
    ] {
        client(args).fails(1).stderr_has(text);
    }
    let removed = client(&["volume", "rm", "nope", "v2"]).fails(1);
    removed.stdout_is("v2\n").stderr_has("no such volume");
    assert!(!mountpoint.exists());
    client(&["volume", "rm", "--force", "nope"]).ok().stdout_is("nope\n");

    let warning = "WARNING! This will remove anonymous local volumes not used by at least one container.\n\
                   Are you sure you want to continue? [y/N] ";
    client(&["volume", "prune"]).stdin("n\n").ok().stdout_is(warning);
    let pruned = format!("{warning}Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: 0B\n");
    client(&["volume", "prune"]).stdin("y\n").ok().stdout_is(&pruned);
    client(&["volume", "prune", "-f"]).ok().stdout_is("Total reclaimed space: 0B\n");
    std::fs::write(daemon.dir().join("data/volumes/v10/_data/file"), vec![0; 1234])
        .expect("the volume is there");
    client(&["volume", "prune", "-af", "--filter", "label=none"])
        .ok()
        .stdout_is("Total reclaimed space: 0B\n");
    client(&["volume", "prune", "-af"])
        .ok()
        .stdout_is("Deleted Volumes:\nv10\n\nTotal reclaimed space: 1.234kB\n");
}

#[test]
fn a_session_through_dewars_client() {
    requires!(root);
    let daemon = Daemon::empty();
    session(|args| daemon.dewar(args), &daemon);
}

#[test]
fn the_same_session_through_the_stock_client() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    session(|args| daemon.docker(args), &daemon);
}

#[test]
fn docker_py_and_old_api_versions() {
    requires!(root, docker_py);
    let daemon = Daemon::empty();
    let script = r#"
volume = client.volumes.create('data', labels={'a': 'b'})
assert volume.name == 'data' and volume.attrs['Labels'] == {'a': 'b'}, volume.attrs
assert [v.name for v in client.volumes.list(filters={'label': 'a'})] == ['data']
assert client.volumes.get('data').attrs['Mountpoint'].endswith('/volumes/data/_data')
try:
    client.volumes.get('nope')
    raise SystemExit('no NotFound')
except docker.errors.NotFound as error:
    assert 'get nope: no such volume' in str(error), error
assert client.volumes.prune() == {'VolumesDeleted': [], 'SpaceReclaimed': 0}
assert client.volumes.prune(filters={'all': True})['VolumesDeleted'] == ['data']
volume = client.volumes.create()
volume.remove()
"#;
    daemon.python(script).ok();
    // Before 1.42 prune took volumes with a name, too, and there was no filter "all".
    daemon.dewar(&["volume", "create", "data"]).ok();
    daemon.api("POST", "/v1.41/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D").is(400);
    let pruned = daemon.api("POST", "/v1.41/volumes/prune").is(200).json();
    assert_eq!(pruned["VolumesDeleted"], serde_json::json!(["data"]));
    daemon.api("PUT", "/volumes/data").is(503);
    daemon.api("POST", "/volumes/prune?filters=nonsense").is(400);
}

#[test]
fn the_next_daemon_finds_them_and_events_tell_of_them() {
    requires!(root);
    let mut daemon = Daemon::empty();
    daemon.dewar(&["volume", "create", "--label", "a=b", "data"]).ok();
    daemon.dewar(&["volume", "create", "gone"]).ok();
    daemon.dewar(&["volume", "rm", "gone"]).ok();
    daemon.dewar(&["volume", "prune", "-f"]).ok();
    let said = events(&daemon);
    let expected = [
        "create data {\"driver\":\"local\"}",
        "create gone {\"driver\":\"local\"}",
        "destroy gone {\"driver\":\"local\"}",
        "prune  {\"reclaimed\":\"0\"}",
    ];
    assert_eq!(said, expected);
    daemon.kill9();
    daemon.restart();
    daemon.dewar(&["volume", "ls", "-q", "--filter", "label=a=b"]).ok().stdout_is("data\n");
}
