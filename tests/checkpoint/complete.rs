//! What a checkpoint says of itself, and what is compared before it is thawed.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::lazy::rounds;
use super::peers::{self, MEMORY};
use super::{counting, counts_past, numbers};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

/// The directory of a checkpoint of `web`.
#[track_caller]
fn directory(daemon: &Daemon, name: &str) -> PathBuf {
    let id = daemon.dewar(&["inspect", "-f", "{{.Id}}", "web"]).ok().trimmed().to_owned();
    daemon.dir().join("data/containers").join(id).join("checkpoints").join(name)
}

fn manifest(daemon: &Daemon, name: &str) -> Value {
    let text = std::fs::read(directory(daemon, name).join("checkpoint.json")).expect("it is written last");
    serde_json::from_slice(&text).expect("it is JSON")
}

/// Copies a checkpoint of `web` under another name, and changes what it says.
#[track_caller]
fn altered(daemon: &Daemon, from: &str, to: &str, change: impl Fn(&mut Value)) {
    Cmd::new("cp").arg("-a").arg(directory(daemon, from)).arg(directory(daemon, to)).ok();
    let mut value = manifest(daemon, to);
    change(&mut value);
    std::fs::write(directory(daemon, to).join("checkpoint.json"), value.to_string()).expect("a file of ours");
}

#[test]
fn a_checkpoint_says_what_it_holds() {
    requires!(root, criu);
    let daemon = counting(&["-e", "WORD=said", "--memory", "64m"]);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    let says = manifest(&daemon, "cp1");
    assert_eq!(says["version"], 2);
    assert_eq!((&says["image"], &says["options"]["leave_running"]), (&json!("busybox"), &json!(true)));
    let record = &says["record"];
    assert_eq!(record["host_config"]["Memory"], 64 << 20);
    assert!(record["config"]["Env"].to_string().contains("WORD=said"), "{record}");
    assert!(says["criu"].as_str().is_some_and(|text| text.contains('.')), "{says}");
    assert!(says["frozen_us"].as_u64().is_some_and(|frozen| frozen > 0), "{says}");
    assert!(says["log_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{says}");
    assert!(matches!(says["cgroup_version"].as_u64(), Some(1 | 2)), "{says}");
    let files = says["files"].as_object().expect("a map");
    assert!(files.contains_key("images/pstree.img") && files.contains_key("rootfs.tar"), "{files:?}");
    for (name, sealed) in files {
        let digest = Cmd::new("sha256sum").arg(directory(&daemon, "cp1").join(name)).ok();
        let digest = digest.stdout.split_whitespace().next().unwrap_or_default().to_owned();
        assert_eq!(sealed["sha256"], format!("sha256:{digest}"), "{name}");
    }
    // Memory may hold secrets.
    let open = Cmd::new("find").arg(directory(&daemon, "cp1")).args(["-perm", "/077"]).ok();
    open.stdout_is("");
    daemon
        .dewar(&["checkpoint", "ls", "web"])
        .ok()
        .stdout_has("CREATED")
        .stdout_has("SIZE")
        .stdout_has("ago");
    let list = daemon.api("GET", "/containers/web/checkpoints").json();
    assert_eq!(list[0]["Name"], "cp1");
    assert!(list[0]["Size"].as_u64().is_some_and(|bytes| bytes > 10_000), "{list}");
}

/// The pages of the largest memory in a checkpoint of `web`, and whether its manifest has a digest of them.
#[track_caller]
fn pages(daemon: &Daemon, name: &str) -> (String, bool) {
    let says = manifest(daemon, name);
    let files = says["files"].as_object().expect("a map");
    let is_large = |sealed: &Value| sealed["bytes"].as_u64() > Some(32 << 20);
    let (file, sealed) = files.iter().find(|(_, sealed)| is_large(sealed)).expect("its memory");
    (file.clone(), sealed["sha256"].is_string())
}

/// Changes what a checkpoint of `web` says, so that its memory has no digest yet.
#[track_caller]
fn without_digest(daemon: &Daemon, name: &str, change: impl Fn(&mut Value)) {
    let (file, mut says) = (pages(daemon, name).0, manifest(daemon, name));
    says["files"][&file].as_object_mut().expect("a map").remove("sha256").expect("it had one");
    says["version"] = json!(5);
    change(&mut says);
    std::fs::write(directory(daemon, name).join("checkpoint.json"), says.to_string())
        .expect("a file of ours");
}

/// Nobody waits for the digests of large files; they come all the same, whatever ends before, and until then inodes tell
/// whether anybody touched them.
#[test]
fn digests_of_large_files_come_after_the_answer() {
    requires!(root, criu);
    let mut daemon = Daemon::start();
    peers::run(&daemon, "web", &[], &format!("{MEMORY}48"));
    eventually("its memory", || rounds(&daemon, "web") > 1);
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    let archive = daemon.dir().join("cp1.tar").display().to_string();
    daemon.dewar(&["checkpoint", "export", "-o", &archive, "web", "cp1"]).ok();
    daemon.dewar(&["checkpoint", "import", "--trust", "--name", "copy", &archive]).ok();
    let is_right = |daemon: &Daemon, name: &str| {
        let (says, file) = (manifest(daemon, name), pages(daemon, name).0);
        let digest = Cmd::new("sha256sum").arg(directory(daemon, name).join(&file)).ok();
        let digest = digest.stdout.split_whitespace().next().unwrap_or_default().to_owned();
        assert_eq!(says["files"][&file]["sha256"], format!("sha256:{digest}"));
        assert_eq!(says["version"], 2);
    };
    is_right(&daemon, "cp1");
    // The daemon's end waits for them.
    daemon.dewar(&["checkpoint", "create", "web", "cp2"]).ok();
    assert_eq!(daemon.stop(), 0, "{}", daemon.log());
    daemon.restart();
    is_right(&daemon, "cp2");
    // What a killed one leaves is taken up.
    without_digest(&daemon, "cp1", |_| {});
    daemon.kill9();
    daemon.restart();
    eventually("the digest", || pages(&daemon, "cp1").1);
    is_right(&daemon, "cp1");
    // Nobody vouches for what a loss of power may have taken.
    without_digest(&daemon, "cp2", |says| says["boot_id"] = json!("another"));
    daemon.kill9();
    daemon.restart();
    let words = "had no digest yet when the machine went down";
    daemon
        .dewar(&["start", "--checkpoint", "cp2", "web"])
        .fails(1)
        .stderr_has(words)
        .stderr_has("--trust thaws it as it is");
    daemon.dewar(&["checkpoint", "export", "-o", &archive, "web", "cp2"]).fails(1).stderr_has(words);
    assert!(!pages(&daemon, "cp2").1);
    let before = rounds(&daemon, "web");
    daemon.dewar(&["start", "--trust", "--checkpoint", "cp2", "web"]).ok();
    eventually("its memory", || rounds(&daemon, "web") > before);
    daemon.dewar(&["kill", "web"]).ok();
    // As it was, without anybody's having read it; and touched.
    without_digest(&daemon, "cp1", |_| {});
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    daemon.dewar(&["kill", "web"]).ok();
    Cmd::new("touch").arg(directory(&daemon, "cp1").join(pages(&daemon, "cp1").0)).ok();
    let words = "is not what it was when the checkpoint was taken";
    daemon.dewar(&["start", "--trust", "--checkpoint", "cp1", "web"]).fails(1).stderr_has(words);
}

#[test]
fn what_version_1_wrote_is_thawed() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "web", "new"]).ok();
    let frozen = numbers(&daemon).len();
    altered(&daemon, "new", "old", |says| {
        let known = ["format", "name", "container_id", "container_name", "image_id", "created", "kernel"];
        let known = [&known[..], &["architecture", "engine", "places"]].concat();
        says.as_object_mut().expect("a map").retain(|key, _| known.contains(&key.as_str()));
    });
    daemon.dewar(&["checkpoint", "ls", "web"]).ok().stdout_has("old").stdout_has("N/A");
    daemon.dewar(&["start", "--checkpoint", "old", "web"]).ok();
    counts_past(&daemon, frozen);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_touched() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["checkpoint", "create", "web", "good"]).ok();
    let frozen = numbers(&daemon).len();
    let refused = |name: &str, change: &dyn Fn(&mut Value), words: &str| {
        altered(&daemon, "good", name, change);
        let before = daemon.leftovers();
        daemon.dewar(&["start", "--checkpoint", name, "web"]).fails(1).stderr_has(words);
        before.assert_same_now();
        daemon.api("POST", &format!("/containers/web/start?checkpoint={name}")).refuses(409, words);
    };
    refused("machine", &|says| says["architecture"] = json!("riscv64"), "it was taken on riscv64");
    refused("kernel", &|says| says["kernel"] = json!("99.1.0"), "it was taken on kernel 99.1.0");
    refused("criu", &|says| says["criu"] = json!("99.0"), "criu 99.0 wrote it");
    refused("image", &|says| says["image_id"] = json!("sha256:0"), "it was taken over image sha256:0");
    let add = |says: &mut Value| says["cpu_features"].as_array_mut().expect("a list").push(json!("avx99"));
    if cfg!(target_arch = "x86_64") {
        refused("cpu", &add, "a CPU with avx99, which this one does not have");
    }
    refused("later", &|says| says["version"] = json!(99), "a later dewar wrote it");
    for (name, file) in [("one", "images/core-1.img"), ("two", "rootfs.tar"), ("three", "images/pages-1.img")]
    {
        altered(&daemon, "good", name, |_| {});
        let path = directory(&daemon, name).join(file);
        let mut content = std::fs::read(&path).expect("a file of the checkpoint");
        let middle = content.len() / 2;
        content[middle] ^= 1;
        std::fs::write(&path, content).expect("a file of ours");
        let words = format!("its file {file} is not what it was");
        daemon.dewar(&["start", "--checkpoint", name, "web"]).fails(1).stderr_has(&words);
    }
    daemon.dewar(&["start", "--checkpoint", "good", "web"]).ok();
    counts_past(&daemon, frozen);
}

/// The images decide what processes may do: those of a stronger container do not make a weaker one strong.
#[test]
fn credentials_beyond_the_containers_need_trust() {
    requires!(root, criu);
    let daemon = counting(&["--cap-drop", "CHOWN"]);
    let id = daemon.dewar(&["inspect", "-f", "{{.Id}}", "web"]).ok().trimmed().to_owned();
    for (name, flags, words) in [
        (
            "caps",
            &["--cap-add", "SYS_ADMIN"][..],
            "capabilities that the container is not given: CAP_CHOWN, CAP_SYS_ADMIN",
        ),
        ("open", &["--cap-drop", "CHOWN", "--security-opt", "seccomp=unconfined"], "under no seccomp filter"),
    ] {
        daemon.run_detached(name, flags, super::COUNTER);
        daemon.dewar(&["checkpoint", "create", "--leave-running", "web", name]).ok();
        daemon.dewar(&["checkpoint", "create", name, "cp"]).ok();
        let other = daemon.dewar(&["inspect", "-f", "{{.Id}}", name]).ok().trimmed().to_owned();
        let to = daemon.dir().join("data/containers").join(&id).join("checkpoints").join(name);
        std::fs::remove_dir_all(&to).expect("made above");
        let from = daemon.dir().join("data/containers").join(other).join("checkpoints/cp");
        Cmd::new("cp").arg("-a").arg(from).arg(to).ok();
        daemon.dewar(&["kill", "web"]).ok();
        daemon.dewar(&["wait", "web"]).ok();
        daemon
            .dewar(&["start", "--checkpoint", name, "web"])
            .fails(1)
            .stderr_has(words)
            .stderr_has("--trust");
        daemon.dewar(&["start", "--checkpoint", name, "--trust", "web"]).ok();
        assert_eq!(daemon.state("web")["Running"], true);
    }
}

/// A volume's files, owners and modes are those of the moment, whatever came later.
#[test]
fn volumes_are_as_they_were_when_frozen() {
    requires!(root, criu);
    let daemon = counting(&["-v", "data:/data", "-v", "/anon", "-v", "skipped:/skipped"]);
    let exec = |script: &str| daemon.dewar(&["exec", "web", "sh", "-c", script]).ok().stdout;
    exec(
        "for d in /data /anon /skipped; do echo frozen > $d/file; done; chown 7:8 /data/file; chmod 750 /data",
    );
    daemon.dewar(&["checkpoint", "create", "--skip-volume", "skipped", "--leave-running", "web", "one"]).ok();
    exec("for d in /data /anon /skipped; do echo later > $d/file; touch $d/new; done; chmod 777 /data");
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["checkpoint", "create", "web", "two"]).ok();
    let look = "cat /data/file /anon/file /skipped/file; ls /data; stat -c '%a %u:%g' /data /data/file";
    daemon.dewar(&["start", "--checkpoint", "one", "web"]).ok();
    let text = exec(look);
    assert_eq!(text, "frozen\nfrozen\nlater\nfile\n750 0:0\n644 7:8\n");
    daemon.dewar(&["kill", "web"]).ok();
    daemon.dewar(&["wait", "web"]).ok();
    daemon.dewar(&["start", "--checkpoint", "two", "web"]).ok();
    assert_eq!(exec(look), "later\nlater\nlater\nfile\nnew\n777 0:0\n644 7:8\n");
    assert!(frozen > 0);
    let left = Cmd::new("find").arg(daemon.dir().join("data/volumes")).args(["-name", "*thaw*"]).ok();
    left.stdout_is("");
    let says = daemon.api("GET", "/containers/web/checkpoints/one/json").json();
    let left_out = says["LeftOut"].as_array().expect("a list");
    assert!(left_out.iter().any(|mount| mount["Source"] == "skipped"), "{says}");
    assert_eq!(says["Volumes"].as_array().map(Vec::len), Some(2), "{says}");
    daemon
        .dewar(&["checkpoint", "create", "--skip-volume", "none", "web", "cp9"])
        .fails(1)
        .stderr_has("no volume");
}

#[test]
fn a_volume_that_another_uses_is_left_alone() {
    requires!(root, criu);
    let daemon = counting(&["-v", "data:/data"]);
    daemon.dewar(&["exec", "web", "sh", "-c", "echo frozen > /data/file"]).ok();
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.run_detached("other", &["-v", "data:/data"], "echo other > /data/file; exec sleep 1000");
    let file = daemon.dir().join("data/volumes/data/_data/file");
    let content = || std::fs::read_to_string(&file).unwrap_or_default();
    crate::support::eventually("the other's word", || content() == "other\n");
    let output = daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).fails(1);
    output.stderr_has("in use by container other").stderr_has("--keep-volumes");
    assert_eq!(content(), "other\n");
    daemon.dewar(&["start", "--checkpoint", "cp1", "--keep-volumes", "web"]).ok();
    assert_eq!(content(), "other\n");
}

/// A thaw that fails after the volumes were exchanged gives them back what they had.
#[test]
fn volumes_are_put_back_when_the_thaw_fails() {
    requires!(root, criu);
    let daemon = counting(&["-v", "data:/data"]);
    daemon.dewar(&["exec", "web", "sh", "-c", "echo frozen > /data/file"]).ok();
    daemon.dewar(&["checkpoint", "create", "web", "good"]).ok();
    daemon.run(&["-v", "data:/data"], "echo later > /data/file").ok();
    altered(&daemon, "good", "bad", |says| drop(says.as_object_mut().expect("a map").remove("files")));
    let images = Cmd::new("find").arg(directory(&daemon, "bad")).args(["-name", "mountpoints-*.img"]).ok();
    std::fs::write(images.trimmed(), "not an image").expect("a file of ours");
    daemon.dewar(&["start", "--checkpoint", "bad", "web"]).fails(1);
    daemon.run(&["-v", "data:/data"], "cat /data/file").ok().stdout_is("later\n");
    daemon.dewar(&["start", "--checkpoint", "good", "web"]).ok();
    daemon.dewar(&["exec", "web", "cat", "/data/file"]).ok().stdout_is("frozen\n");
}

#[test]
fn inspect_shows_what_is_in_it_and_prune_keeps_the_newest() {
    requires!(root, criu);
    let daemon = counting(&["-v", "/tmp:/host"]);
    for name in ["one", "two", "three"] {
        daemon.dewar(&["checkpoint", "create", "--leave-running", "web", name]).ok();
    }
    let show = |format: &str| {
        daemon.dewar(&["checkpoint", "inspect", "-f", format, "web", "one"]).ok().trimmed().to_owned()
    };
    assert_eq!(show("{{.Name}} {{.Container.Name}} {{.Image}} {{len .Connections}}"), "one web busybox 0");
    assert_eq!(show("{{(index .Processes 0).Pid}} {{(index .Processes 0).Command}}"), "1 sh");
    assert_eq!(show("{{(index .LeftOut 0).Type}} {{(index .LeftOut 0).Source}}"), "bind /tmp");
    assert_ne!(show("{{.FrozenMicroseconds}} {{.Size.Memory}}").split(' ').next(), Some("0"));
    daemon.dewar(&["checkpoint", "inspect", "web", "none"]).fails(1).stderr_has("none");
    let all = daemon.api("GET", "/checkpoints").json();
    let names: Vec<&str> =
        all.as_array().expect("a list").iter().filter_map(|one| one["Name"].as_str()).collect();
    assert_eq!(names, ["three", "two", "one"]);
    daemon.dewar(&["checkpoint", "prune", "-f", "--filter", "until=1h"]).ok().stdout_lacks("web/");
    daemon
        .dewar(&["checkpoint", "prune", "-f", "--keep", "2"])
        .ok()
        .stdout_has("web/one")
        .stdout_lacks("web/two");
    daemon.dewar(&["checkpoint", "prune", "-f"]).ok().stdout_has("web/two").stdout_lacks("web/three");
    daemon.dewar(&["checkpoint", "ls", "-q", "web"]).ok().stdout_is("three\n");
}
