//! import, load, images, tag, rmi, inspect. What other tools read and write: `image_archives`.

use std::path::{Path, PathBuf};

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, busybox_tar};

/// The busybox image as skopeo writes it, in `kind`: `docker-archive`, `oci-archive` or `oci`.
fn written_by_skopeo(daemon: &Daemon, kind: &str) -> PathBuf {
    let plain = oci_layout(daemon.dir());
    let target = daemon.dir().join(format!("{kind}.out"));
    let from = format!("oci:{}:busybox", plain.display());
    let to = match kind {
        "docker-archive" => format!("{kind}:{}:example/busybox:v2", target.display()),
        _ => format!("{kind}:{}:busybox", target.display()),
    };
    Cmd::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &to]).ok();
    target
}

/// Writes a minimal OCI layout with sha256sum and cat only, so that no writer of ours is tested against itself.
fn oci_layout(dir: &Path) -> PathBuf {
    let layout = dir.join("layout");
    let script = r#"
set -e
mkdir -p "$1/blobs/sha256"; cd "$1"
put() { sum=$(sha256sum "$1" | cut -d' ' -f1); size=$(wc -c < "$1"); mv "$1" "blobs/sha256/$sum"; }
diff=$(sha256sum "$2" | cut -d' ' -f1)
gzip -1 -n -c "$2" > layer; put layer; layer=$sum layersize=$size
printf '{"architecture":"amd64","os":"linux","config":{"Cmd":["sh","-c","echo default"],"Env":["FROM=layout"],"WorkingDir":"/var"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created_by":"hand"}]}' "$diff" > config
put config; config=$sum configsize=$size
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}]}' "$config" "$configsize" "$layer" "$layersize" > manifest
put manifest
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"busybox"}}]}' "$sum" "$size" > index.json
printf '{"imageLayoutVersion":"1.0.0"}' > oci-layout
"#;
    if !layout.exists() {
        Cmd::new("sh").args(["-c", script, "sh"]).arg(&layout).arg(busybox_tar()).ok();
    }
    layout
}

#[test]
fn import_makes_an_image_of_a_tar() {
    requires!(root);
    let daemon = Daemon::empty();
    let id = daemon.dewar(&["import"]).arg(busybox_tar()).arg("example/box:v1").ok();
    assert!(id.trimmed().starts_with("sha256:") && id.trimmed().len() == 71, "{id}");
    let images = daemon.dewar(&["images"]).ok();
    images
        .stdout_has("REPOSITORY")
        .stdout_has("example/box")
        .stdout_has("v1")
        .stdout_has(&id.trimmed()[7..19]);
    daemon.dewar(&["images", "-q", "--no-trunc"]).ok().stdout_is(&id.stdout);
    daemon
        .dewar(&["run", "--rm", "--network", "none", "example/box:v1", "echo", "hi"])
        .ok()
        .stdout_is("hi\n");
}

#[test]
fn import_reads_standard_input_and_gzip() {
    requires!(root);
    let daemon = Daemon::empty();
    let tar = std::fs::read(busybox_tar()).expect("made before");
    daemon.dewar(&["import", "-", "plain"]).stdin(tar).ok();
    let packed = daemon.dir().join("packed.tar.gz");
    Cmd::new("sh").args(["-c", "gzip -1 -c \"$1\" > \"$2\"", "sh"]).arg(busybox_tar()).arg(&packed).ok();
    daemon.dewar(&["import"]).arg(&packed).arg("packed").ok();
    // The same content is the same layer, unpacked once.
    let layer = |name: &str| {
        daemon.api("GET", &format!("/images/{name}/json")).is(200).json()["RootFS"]["Layers"].clone()
    };
    assert_eq!(layer("plain"), layer("packed"));
    daemon.dewar(&["run", "--rm", "--network", "none", "packed", "true"]).ok();
}

#[test]
fn import_changes_set_the_defaults() {
    requires!(root);
    let daemon = Daemon::empty();
    let changes =
        ["--change", "CMD [\"echo\",\"by default\"]", "--change", "ENV A=b", "--change", "WORKDIR /tmp"];
    daemon.dewar(&["import"]).args(changes).arg(busybox_tar()).arg("box").ok();
    daemon.dewar(&["run", "--rm", "--network", "none", "box"]).ok().stdout_is("by default\n");
    daemon
        .dewar(&["run", "--rm", "--network", "none", "box", "sh", "-c", "echo $A; pwd"])
        .ok()
        .stdout_is("b\n/tmp\n");
}

#[test]
fn load_reads_what_skopeo_writes() {
    requires!(root, skopeo);
    for (kind, name) in [("docker-archive", "example/busybox:v2"), ("oci-archive", "busybox")] {
        let daemon = Daemon::empty();
        let archive = written_by_skopeo(&daemon, kind);
        let loaded = daemon.dewar(&["load", "-i"]).arg(&archive).ok();
        loaded.stdout_has("Loaded image");
        let images = daemon.dewar(&["images", "-q"]).ok();
        assert_eq!(images.stdout.lines().count(), 1, "{kind}: {images}");
        let image = if loaded.stdout.contains(name) { name } else { images.trimmed() };
        daemon.dewar(&["run", "--rm", "--network", "none", image]).ok().stdout_is("default\n");
        daemon
            .dewar(&["run", "--rm", "--network", "none", image, "sh", "-c", "pwd; echo $FROM"])
            .ok()
            .stdout_is("/var\nlayout\n");
        // Again changes nothing; from standard input too.
        daemon.dewar(&["load"]).stdin(std::fs::read(&archive).expect("written above")).ok();
        assert_eq!(daemon.dewar(&["images", "-q"]).ok().stdout.lines().count(), 1);
    }
}

#[test]
fn load_reads_an_oci_layout_in_a_tar() {
    requires!(root);
    let daemon = Daemon::empty();
    let layout = oci_layout(daemon.dir());
    let tar = daemon.dir().join("layout.tar");
    Cmd::new("tar").arg("-C").arg(&layout).arg("-cf").arg(&tar).arg(".").ok();
    daemon.dewar(&["load", "-i"]).arg(&tar).ok();
    let id = daemon.dewar(&["images", "-q"]).ok();
    daemon.dewar(&["run", "--rm", "--network", "none", id.trimmed()]).ok().stdout_is("default\n");
}

#[test]
fn tag_and_rmi_move_names_and_then_the_image() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.dewar(&["tag", "busybox", "other:v1"]).ok();
    daemon.dewar(&["images"]).ok().stdout_has("other").stdout_has("busybox");
    daemon.dewar(&["rmi", "other:v1"]).ok().stdout_has("Untagged: other:v1");
    daemon.run(&[], "true").ok();
    daemon.dewar(&["create", "--name", "user", "--network", "none", "busybox", "true"]).ok();
    daemon.dewar(&["rmi", "busybox"]).fails(1).stderr_has("busybox");
    daemon.dewar(&["rm", "user"]).ok();
    daemon
        .dewar(&["rmi", "busybox"])
        .ok()
        .stdout_has("Untagged: busybox:latest")
        .stdout_has("Deleted: sha256:");
    daemon.dewar(&["images", "-q"]).ok().stdout_is("");
    daemon.dewar(&["rmi", "busybox"]).fails(1).stderr_has("No such image: busybox");
    // Its layers are gone from the disk too.
    let left = Cmd::new("find").arg(daemon.dir().join("data")).args(["-name", "busybox"]).ok();
    left.stdout_is("");
}

#[test]
fn bad_references_are_refused() {
    requires!(root);
    let daemon = Daemon::start();
    for name in ["Upper", "a b", "x:", "a//b", "x@sha256:12", "-x", &"a".repeat(300)] {
        let output = daemon.dewar(&["tag", "--", "busybox", name]).run();
        assert!(output.code != 0, "{name:?}: {output}");
        output.no_panic();
        let output = daemon.dewar(&["run", "--rm", "--", name]).fails(125);
        output.no_panic();
    }
    assert_eq!(daemon.dewar(&["images", "-q"]).ok().stdout.lines().count(), 1);
}

#[test]
fn image_inspect_tells_the_config() {
    requires!(root);
    let daemon = Daemon::start();
    let value: serde_json::Value =
        serde_json::from_str(&daemon.dewar(&["image", "inspect", "busybox"]).ok().stdout).expect("JSON");
    let image = &value[0];
    assert_eq!(image["RepoTags"][0], "busybox:latest");
    assert_eq!(image["Os"], "linux");
    assert!(image["Id"].as_str().is_some_and(|id| id.starts_with("sha256:")));
    assert!(image["Size"].as_u64().is_some_and(|size| size > 1_000_000));
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(1));
}
