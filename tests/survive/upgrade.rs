//! What an older dewar left on disk. `version-1/` is a data root written by the first one: an image, containers
//! in every state, a checkpoint without its dump; `volume.json` and `networks.json` are in the words of the
//! first that had them.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::requires::requires;
use crate::support::{Daemon, eventually, source};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("ours");
    for entry in fs::read_dir(from).expect("the fixture").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("ours");
        }
    }
}

#[test]
fn state_of_version_1_is_read() {
    requires!(root);
    let mut daemon = Daemon::empty();
    assert_eq!(daemon.stop(), 0);
    let data = daemon.dir().join("data");
    fs::remove_dir_all(&data).expect("nothing is mounted there");
    copy(&source().join("tests/survive/version-1"), &data);
    let volume =
        r#"{"format":1,"name":"old","created":"2026-11-25T01:00:00Z","labels":{"a":"b"},"options":null}"#;
    fs::create_dir_all(data.join("volumes/old/_data")).expect("ours");
    fs::write(data.join("volumes/old/volume.json"), volume).expect("ours");
    let [bridge, host, none] = ["a", "b", "c"].map(|digit| digit.repeat(64));
    let networks = json!({"format": 1, "created": "2026-11-25T01:00:00Z",
        "ids": {"bridge": bridge, "host": host, "none": none}});
    fs::write(data.join("networks.json"), networks.to_string()).expect("ours");
    daemon.restart();

    let image = daemon.api("GET", "/images/small:1/json").is(200).json();
    assert_eq!(image["RepoTags"], json!(["small:1", "small:2"]));
    assert_eq!((&image["Config"]["Cmd"], &image["Config"]["Labels"]["l"]), (&json!(["/bin/a"]), &json!("v")));
    daemon.dewar(&["save", "small:1"]).ok();
    let id = fs::read_to_string(data.join("engine-id")).expect("an id");
    assert_eq!(daemon.api("GET", "/info").is(200).json()["ID"], id.trim());
    assert_eq!(daemon.api("GET", "/networks/bridge").is(200).json()["Id"], bridge);
    assert_eq!(daemon.api("GET", "/volumes/old").is(200).json()["Labels"]["a"], "b");

    // Those that ran have no shim any more: the machine has been started anew since.
    let stands = |name: &str| {
        let state = daemon.state(name);
        (state["Status"].as_str().unwrap_or_default().to_owned(), state["ExitCode"].as_i64().unwrap_or(-1))
    };
    let is = |status: &str, code: i64| (status.to_owned(), code);
    assert_eq!(stands("created"), is("created", 0));
    assert_eq!(stands("ended"), is("exited", 3));
    assert_eq!(stands("paused"), is("exited", 255));
    assert_eq!(stands("frozen").0, "exited");
    // Their policies want these up; their image is gone, and that is all that is wrong with them.
    for name in ["running", "halted"] {
        eventually("its start having been tried", || stands(name).0 == "exited");
        let error = daemon.state(name)["Error"].to_string();
        assert!(error.contains("No such image"), "{name}: {error}");
    }
    let created = daemon.api("GET", "/containers/created/json").is(200).json();
    assert_eq!(created["HostConfig"]["Memory"], 64 << 20);
    assert_eq!(created["HostConfig"]["Binds"], json!(["/tmp:/host:ro"]));
    assert_eq!(
        (&created["Config"]["Labels"]["c"], &created["Mounts"][0]["RW"]),
        (&json!("d"), &json!(false))
    );
    let ended = daemon.api("GET", "/containers/ended/json").is(200).json();
    let policy = &ended["HostConfig"]["RestartPolicy"];
    assert_eq!((&policy["Name"], &policy["MaximumRetryCount"]), (&json!("on-failure"), &json!(2)));
    daemon.dewar(&["checkpoint", "ls", "frozen"]).ok().stdout_has("cp1");
    for line in daemon.log().lines() {
        assert!(!line.contains("left out") && !line.contains(".broken"), "{line}");
    }
    // They can be changed and removed like any other.
    daemon.dewar(&["rename", "ended", "done"]).ok();
    daemon.dewar(&["checkpoint", "rm", "frozen", "cp1"]).ok();
    daemon.dewar(&["rm", "done", "created", "paused", "frozen", "running", "halted"]).ok();
    daemon.dewar(&["rmi", "small:1", "small:2"]).ok();
    daemon.dewar(&["volume", "rm", "old"]).ok();
}
