//! Every kind of state file, damaged in every way: it costs what the file is about, a line in the log names
//! the file, the file is kept, and everything else goes on.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Signal, kill_process};

use super::{container_dir, shim_of};
use crate::support::requires::requires;
use crate::support::{Daemon, Output, eventually};

/// What it is called, and how it is done.
type Damage = (&'static str, fn(&Path));

/// How a file is damaged.
const DAMAGES: [Damage; 5] = [
    ("cut off", |path| {
        let text = fs::read(path).expect("a file");
        fs::write(path, &text[..text.len() / 2]).expect("ours");
    }),
    ("empty", |path| fs::write(path, "").expect("ours")),
    ("garbage", |path| fs::write(path, [0xff; 64]).expect("ours")),
    ("of a later format", |path| fs::write(path, LATER).expect("ours")),
    ("unreadable", |path| {
        fs::remove_file(path).expect("a file");
        fs::create_dir(path).expect("ours");
    }),
];

const LATER: &str = r#"{"format":99,"all":"different"}"#;

/// The files of one kind each, by what they are.
struct Victims {
    container: PathBuf,
    volume: PathBuf,
    blob: PathBuf,
    layer: PathBuf,
    references: PathBuf,
    networks: PathBuf,
    engine_id: PathBuf,
    format: PathBuf,
    checkpoint: PathBuf,
    launch: PathBuf,
    health: PathBuf,
    exit: PathBuf,
}

impl Victims {
    fn all(&self) -> [&Path; 12] {
        [
            &self.container,
            &self.volume,
            &self.blob,
            &self.layer,
            &self.references,
            &self.networks,
            &self.engine_id,
            &self.format,
            &self.checkpoint,
            &self.launch,
            &self.health,
            &self.exit,
        ]
    }
}

fn digest(daemon: &Daemon, image: &str, pointer: &str) -> String {
    let shown = daemon.api("GET", &format!("/images/{image}/json")).is(200).json();
    let digest = shown.pointer(pointer).and_then(|value| value.as_str()).expect("a digest");
    digest.trim_start_matches("sha256:").to_owned()
}

/// An image of one file.
fn import(daemon: &Daemon, name: &str) {
    let (dir, tar) = (daemon.dir().join(name), daemon.dir().join(format!("{name}.tar")));
    fs::create_dir_all(&dir).expect("a fresh directory");
    fs::write(dir.join(name), name).expect("ours");
    crate::support::Cmd::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&dir).arg(".").ok();
    daemon.dewar(&["import"]).arg(&tar).arg(name).ok();
}

fn prepare(daemon: &Daemon) -> Victims {
    let data = daemon.dir().join("data");
    import(daemon, "blob");
    import(daemon, "layer");
    for volume in ["good", "bad"] {
        daemon.dewar(&["volume", "create", volume]).ok();
    }
    daemon.dewar(&["create", "--name", "bad", "--network", "none", "busybox", "true"]).ok();
    let flags = ["-v", "good:/v", "--health-cmd", "true", "--health-interval", "1h"];
    let flags = [&flags[..], &["--health-start-period", "1h", "--health-start-interval", "100ms"]].concat();
    daemon.run_detached("good", &flags, "exec sleep 1000");
    eventually("its health", || daemon.state("good")["Health"]["Status"] == "healthy");
    let good = container_dir(daemon, "good");
    let checkpoint = good.join("checkpoints/cp1/checkpoint.json");
    fs::create_dir_all(checkpoint.parent().expect("a directory")).expect("ours");
    let run = daemon.dir().join("run/containers").join(good.file_name().expect("an id"));
    // The last change but one is what is known of a table that is lost.
    daemon.dewar(&["tag", "busybox", "again"]).ok();
    daemon.dewar(&["tag", "busybox", "again:2"]).ok();
    Victims {
        container: container_dir(daemon, "bad").join("container.json"),
        volume: data.join("volumes/bad/volume.json"),
        blob: data.join("images/blobs/sha256").join(digest(daemon, "blob", "/Id")),
        layer: data
            .join("images/layers")
            .join(digest(daemon, "layer", "/RootFS/Layers/0"))
            .join("layer.json"),
        references: data.join("images/references.json"),
        networks: data.join("networks.json"),
        engine_id: data.join("engine-id"),
        format: data.join("format"),
        checkpoint,
        launch: run.join("launch.json"),
        health: good.join("health.json"),
        exit: PathBuf::new(),
    }
}

/// What is there instead of a file, to be held against later.
fn look(path: &Path) -> Option<Vec<u8>> {
    if path.is_dir() { Some(b"a directory".to_vec()) } else { fs::read(path).ok() }
}

fn kept(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.broken", path.display()))
}

#[test]
fn a_damaged_file_costs_what_it_is_about_and_nothing_else() {
    requires!(root);
    let mut daemon = Daemon::start();
    let mut victims = prepare(&daemon);
    let good = daemon.state("good")["Pid"].clone();
    for (how, damage) in DAMAGES {
        let is_later = how == "of a later format";
        fs::write(&victims.checkpoint, r#"{"format":1,"name":"cp1"}"#).expect("ours");
        daemon.run_detached("ends", &[], "while [ ! -e /go ]; do sleep 0.02; done; exit 7");
        victims.exit = container_dir(&daemon, "ends").join("exit.json");
        let root = format!("/proc/{}/root/go", daemon.state("ends")["Pid"]);
        daemon.kill9();
        fs::write(root, "").expect("a running container");
        eventually("the exit on disk", || victims.exit.exists());
        let originals: Vec<(PathBuf, Vec<u8>)> = victims
            .all()
            .iter()
            .map(|path| {
                (path.to_path_buf(), fs::read(path).unwrap_or_else(|cause| panic!("{path:?}: {cause}")))
            })
            .collect();
        let damaged: Vec<&Path> = victims
            .all()
            .into_iter()
            // Each has a test of its own: the first is of all images, the second of the whole root.
            .filter(|path| !(is_later && (*path == victims.references || *path == victims.format)))
            // Half of "1\n" is as good as all of it.
            .filter(|path| !(how == "cut off" && *path == victims.format))
            .collect();
        damaged.iter().for_each(|path| damage(path));
        let before: Vec<_> = damaged.iter().map(|path| look(path)).collect();
        let log_before = daemon.log().len();
        daemon.restart();
        check(&daemon, &victims, how);
        assert_eq!(daemon.state("good")["Pid"], good, "{how}: the one that runs is the one that ran");
        let log = daemon.log()[log_before..].to_owned();
        for (path, before) in damaged.iter().zip(before) {
            // The launch file of a living container is not needed, and so not read.
            let is_told = *path != victims.launch;
            // What the daemon needs is made again in its place; the rest stays where it is.
            let is_replaced = [&victims.references, &victims.networks, &victims.engine_id, &victims.format]
                .into_iter()
                .chain([&victims.layer, &victims.health, &victims.exit])
                .any(|replaced| replaced == path);
            let is_kept = match (is_replaced, is_later) {
                (true, false) => look(&kept(path)) == before,
                (true, true) if *path == victims.engine_id || *path == victims.exit => {
                    look(&kept(path)) == before
                }
                _ => look(path) == before,
            };
            assert!(is_kept, "{how}: {path:?} is not kept\n{log}");
            let name = match *path == victims.blob || *path == victims.layer {
                true => path.to_str().and_then(|path| path.split('/').rev().find(|part| part.len() == 64)),
                false => path.to_str(),
            };
            let name = name.expect("a path in UTF-8");
            assert!(
                !is_told || log.lines().any(|line| line.contains(name)),
                "{how}: nothing of {path:?}\n{log}"
            );
        }
        daemon.dewar(&["rm", "ends"]).ok();
        daemon.kill9();
        for (path, original) in originals {
            if path.is_dir() {
                fs::remove_dir(&path).expect("ours");
            }
            let kept = kept(&path);
            drop(fs::remove_file(&kept).or_else(|_| fs::remove_dir(&kept)));
            if path.parent().is_some_and(Path::is_dir) {
                fs::write(path, original).expect("ours");
            }
        }
        daemon.restart();
        daemon.api("GET", "/containers/bad/json").is(200);
        daemon.api("GET", "/volumes/bad").is(200);
        daemon.api("GET", "/images/blob/json").is(200);
    }
    daemon.api("DELETE", "/containers/bad").is(204);
    daemon.api("DELETE", "/volumes/bad").is(204);
}

/// Everything but the victims is there and works.
#[track_caller]
fn check(daemon: &Daemon, victims: &Victims, how: &str) {
    let out = |args: &[&str]| -> Output { daemon.dewar(args).ok() };
    let names = |args: &[&str]| -> Vec<String> { out(args).stdout.lines().map(str::to_owned).collect() };
    let mut containers = names(&["ps", "-a", "--format", "{{.Names}}"]);
    containers.sort();
    assert_eq!(containers, ["ends", "good"], "{how}");
    assert_eq!(daemon.state("ends")["ExitCode"], 255, "{how}: nobody knows");
    assert_eq!(names(&["volume", "ls", "-q"]), ["good"], "{how}");
    let images = names(&["images", "--format", "{{.Repository}}"]);
    assert!(
        images.contains(&"busybox".to_owned()) && !images.contains(&"blob".to_owned()),
        "{how}: {images:?}"
    );
    // Made again from the layer's files, unless a later dewar wrote it.
    assert_eq!(images.contains(&"layer".to_owned()), how != "of a later format", "{how}: {images:?}");
    let mut networks = names(&["network", "ls", "--format", "{{.Name}}"]);
    networks.sort();
    assert_eq!(networks, ["bridge", "host", "none"], "{how}");
    let id = daemon.api("GET", "/info").is(200).json()["ID"].clone();
    assert_eq!(id.as_str().map(str::len), Some(32), "{how}: {id}");
    out(&["exec", "good", "true"]);
    daemon.run(&["-v", "good:/v"], "true").ok();
    assert_eq!(names(&["checkpoint", "ls", "good"]).len(), 2, "{how}");
    daemon
        .dewar(&["start", "--checkpoint", "cp1", "ends"])
        .fails(1)
        .stderr_has("checkpoint cp1 does not exist");
    // What cannot be thawed any more can be told, and removed.
    let other = daemon.dir().join("data/containers");
    let id = daemon.api("GET", "/containers/ends/json").is(200).json()["Id"].clone();
    let copy = other.join(id.as_str().expect("an id")).join("checkpoints/cp1");
    fs::create_dir_all(&copy).expect("ours");
    match victims.checkpoint.is_dir() {
        true => fs::create_dir(copy.join("checkpoint.json")),
        false => fs::copy(&victims.checkpoint, copy.join("checkpoint.json")).map(drop),
    }
    .expect("ours");
    daemon.dewar(&["start", "--checkpoint", "cp1", "ends"]).fails(1).stderr_has("checkpoint.json");
    assert!(daemon.log().contains("cannot be used: read"), "{how}: {}", daemon.log());
    out(&["checkpoint", "rm", "ends", "cp1"]);
    // A second daemon would read the first's checkpoint only when asked to.
    daemon
        .api_json("POST", "/containers/good/checkpoints", &serde_json::json!({"CheckpointID": "cp1"}))
        .refuses(409, "already exists");
    log_of_checkpoint(daemon, victims);
}

/// Nobody reads a checkpoint's record before it is to be thawed; asking for it tells which file it is.
fn log_of_checkpoint(daemon: &Daemon, victims: &Victims) {
    let dir = victims.checkpoint.parent().and_then(Path::parent).expect("a directory").display().to_string();
    let path = format!("/containers/ends/start?checkpoint=cp1&checkpoint-dir={dir}");
    let reply = daemon.api("POST", &path);
    assert!(reply.status >= 400, "{}", reply.text());
}

#[test]
fn a_table_of_images_from_a_later_dewar_is_left_alone() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon.kill9();
    let path = daemon.dir().join("data/images/references.json");
    let before = fs::read(&path).expect("a table");
    fs::write(&path, LATER).expect("ours");
    daemon.restart();
    daemon.dewar(&["images", "-q"]).ok().stdout_is("");
    daemon.dewar(&["exec", "web", "true"]).ok();
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("new").fails(1).stderr_has("format 99");
    assert!(daemon.log().contains("references.json"), "{}", daemon.log());
    daemon.kill9();
    assert_eq!(fs::read_to_string(&path).expect("a table"), LATER);
    fs::write(&path, before).expect("ours");
    daemon.restart();
    daemon.run(&[], "true").ok();
}

#[test]
fn a_container_that_is_left_out_keeps_its_processes_and_its_volumes() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.dewar(&["volume", "create", "kept"]).ok();
    daemon.run_detached("web", &["-v", "kept:/v"], "exec sleep 1000");
    let (dir, pid) = (container_dir(&daemon, "web"), daemon.state("web")["Pid"].to_string());
    daemon.kill9();
    let path = dir.join("container.json");
    let before = fs::read_to_string(&path).expect("a record");
    // As a later dewar might have written it.
    fs::write(&path, before.replacen("\"format\":1", "\"format\":2", 1)).expect("ours");
    daemon.restart();
    daemon.api("GET", "/containers/web/json").is(404);
    assert!(Path::new(&format!("/proc/{pid}")).exists(), "it lives on");
    daemon.dewar(&["volume", "rm", "kept"]).fails(1).stderr_has("volume is in use");
    daemon.kill9();
    fs::write(&path, before).expect("ours");
    daemon.restart();
    assert_eq!(daemon.state("web")["Pid"].to_string(), pid);
    daemon.dewar(&["exec", "web", "true"]).ok();
}

#[test]
fn a_shim_that_died_with_a_damaged_launch_file_leaves_nothing() {
    requires!(root);
    let mut daemon = Daemon::start();
    daemon.run_detached("web", &["--pid", "host"], "sleep 1000 & exec sleep 1000");
    let (shim, pid) = (shim_of(&daemon, "web"), daemon.state("web")["Pid"].to_string());
    let id = container_dir(&daemon, "web").file_name().expect("an id").to_owned();
    let run = daemon.dir().join("run/containers").join(id);
    daemon.kill9();
    kill_process(shim, Signal::KILL).expect("it lives");
    fs::write(run.join("launch.json"), "{").expect("ours");
    daemon.restart();
    assert_eq!(daemon.state("web")["ExitCode"], 255);
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    assert!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    assert!(!run.exists(), "{:?}", daemon.leftovers());
    daemon.dewar(&["start", "web"]).ok();
}
