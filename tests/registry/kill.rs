//! A daemon that is killed in the middle of a pull, at any moment.

use std::path::Path;
use std::time::Duration;

use super::hostile::{Fault, Hostile, digest, image, noise};
use crate::support::requires::requires;
use crate::support::{Daemon, prop};

/// Every layer and blob in the store is whole, and nothing is unfinished.
fn check(images: &Path) {
    let entries = |directory: &str| {
        let entries = std::fs::read_dir(images.join(directory)).expect("the store is there");
        entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>()
    };
    assert_eq!(entries("tmp"), [] as [&Path; 0], "unfinished work");
    for blob in entries("blobs/sha256") {
        let name = format!("sha256:{}", blob.file_name().and_then(|name| name.to_str()).expect("a digest"));
        assert_eq!(digest(&std::fs::read(&blob).expect("a blob")), name);
    }
    for layer in entries("layers") {
        for part in ["layer.json", "diff", "split.gz"] {
            assert!(layer.join(part).exists(), "{} has no {part}", layer.display());
        }
    }
}

#[test]
fn a_pull_killed_at_any_moment_leaves_a_store_that_is_repaired() {
    requires!(root);
    let mut daemon = Daemon::empty();
    let files: Vec<(String, Vec<u8>)> =
        (0..6).map(|number| (format!("file-{number}"), noise(600_000, number + 1))).collect();
    let files: Vec<(&str, Vec<u8>)> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let made = image("box", "1", &files);
    let layers = made.layers.clone();
    // About as fast as a disk that syncs, so that every phase is met.
    let server = Hostile::new(daemon.network(), made.content, |asked| match asked.line.as_str() {
        line if line.starts_with("GET /v2/box/blobs/") => Fault::Slowly(60_000, Duration::from_millis(5)),
        _ => Fault::None,
    });
    let name = server.name("box:1");
    let images = daemon.dir().join("data/images");
    let mut complete = 0;
    let mut round = 0;
    prop::check("kill -9 during a pull", 20, |random| {
        round += 1;
        let pull = daemon.dewar(&["pull", &name]).spawn();
        std::thread::sleep(Duration::from_millis(random.below(900) as u64));
        daemon.kill9();
        drop(pull);
        daemon.restart();
        check(&images);
        let list = daemon.api("GET", "/images/json?all=1").is(200).json();
        match list.as_array().map(Vec::len) {
            // Nothing is visible before it is complete, and what no image uses is swept.
            Some(0) => {
                let left = std::fs::read_dir(images.join("layers")).expect("the store is there").count();
                assert_eq!(left, 0, "round {round}");
            }
            Some(1) => {
                complete += 1;
                let saved = daemon.dir().join("saved.tar");
                daemon.dewar(&["save", "-o"]).arg(&saved).arg(&name).ok();
                daemon.dewar(&["rmi", &name]).ok();
            }
            _ => panic!("round {round}: {list}"),
        }
    });
    println!("{complete} of 20 pulls were complete when the daemon was killed");
    daemon.dewar(&["pull", &name]).ok().stdout_has("Downloaded newer image");
    let image = daemon.api("GET", &format!("/images/{name}/json")).is(200).json();
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(layers.len()));
    check(&images);
}
