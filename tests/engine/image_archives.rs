//! Images between dewar and the tools that others use: skopeo, umoci, GNU tar. What goes out and comes back is the same.

use std::path::Path;

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, busybox_tar};

/// An OCI layout of two images by umoci: `v1` is busybox, `v2` deletes, changes and adds on top of it.
fn layout_by_umoci(dir: &Path) {
    let script = r#"
set -e
cd "$1"
umoci init --layout layout
umoci new --image layout:v1
umoci unpack --image layout:v1 one
tar -xf "$2" -C one/rootfs
umoci repack --image layout:v1 one
umoci config --image layout:v1 --config.cmd sh --config.cmd -c --config.cmd 'echo of umoci' --config.label a=b
umoci unpack --image layout:v1 two
rm two/rootfs/bin/vi
mkdir two/rootfs/new
echo new > two/rootfs/new/file
umoci repack --image layout:v2 two
"#;
    Cmd::new("sh").args(["-c", script, "sh"]).arg(dir).arg(busybox_tar()).ok();
}

fn skopeo(from: &str, to: &str) {
    Cmd::new("skopeo").args(["--insecure-policy", "copy", "-q", from, to]).ok();
}

/// The digest of an image's config in an OCI layout: dewar's id of it.
fn config_digest(image: &str) -> String {
    let manifest = Cmd::new("skopeo").args(["inspect", "--raw", image]).ok();
    let manifest: serde_json::Value = serde_json::from_str(&manifest.stdout).expect("a manifest");
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}

fn id_of(daemon: &Daemon, name: &str) -> String {
    let image = daemon.api("GET", &format!("/images/{name}/json")).is(200).json();
    image["Id"].as_str().expect("an id").to_owned()
}

#[test]
fn layouts_and_archives_keep_their_ids_there_and_back() {
    requires!(root, skopeo, umoci);
    let daemon = Daemon::empty();
    let dir = daemon.dir();
    layout_by_umoci(dir);
    let at = |name: &str| dir.join(name).display().to_string();
    let layout = format!("oci:{}", at("layout"));
    let wanted = config_digest(&format!("{layout}:v2"));

    // The whole layout as a tar: both images, known by their ids.
    Cmd::new("tar").args(["-C", &at("layout"), "-cf", &at("layout.tar"), "."]).ok();
    let loaded = daemon.dewar(&["load", "-i", &at("layout.tar")]).ok();
    loaded.stdout_has(&format!("Loaded image ID: {wanted}"));
    assert_eq!(loaded.stdout.lines().count(), 2, "{loaded}");

    // Named, through the formats that skopeo writes.
    daemon.dewar(&["tag", &wanted, "example/two:v2"]).ok();
    daemon.dewar(&["save", "-o", &at("saved.tar"), "example/two:v2"]).ok();
    let saved = format!("oci-archive:{}", at("saved.tar"));
    assert_eq!(config_digest(&saved), wanted);
    skopeo(&saved, &format!("oci:{}:again", at("back")));
    assert_eq!(config_digest(&format!("oci:{}:again", at("back"))), wanted);
    skopeo(&saved, &format!("docker-archive:{}:example/three:v3", at("docker.tar")));
    for codec in ["gzip", "bzip2", "xz", "zstd"] {
        let other = Daemon::empty();
        let packed = at(&format!("docker.tar.{codec}"));
        Cmd::new("sh").args(["-c", "$0 -c < $1 > $2", codec, &at("docker.tar"), &packed]).ok();
        other.dewar(&["load", "-i", &packed]).ok().stdout_is("Loaded image: example/three:v3\n");
        assert_eq!(id_of(&other, "example/three:v3"), wanted, "{codec}");
        other.dewar(&["run", "--rm", "--network", "none", "example/three:v3"]).ok().stdout_is("of umoci\n");
        let script = "cat /new/file; test ! -e /bin/vi && echo gone";
        let run = ["run", "--rm", "--network", "none", "example/three:v3", "sh", "-c", script];
        other.dewar(&run).ok().stdout_is("new\ngone\n");
    }

    // umoci unpacks what dewar saved, and finds the same tree.
    Cmd::new("sh").args(["-c", "mkdir $0 && tar -xf $1 -C $0", &at("layout2"), &at("saved.tar")]).ok();
    Cmd::new("umoci").args(["unpack", "--image", &format!("{}:v2", at("layout2")), &at("bundle")]).ok();
    let script = "cd $0/rootfs && find . | sort";
    let theirs = Cmd::new("sh").args(["-c", script, &at("two")]).ok();
    Cmd::new("sh").args(["-c", script, &at("bundle")]).ok().stdout_is(&theirs.stdout);
}

#[test]
fn several_images_and_their_tags_travel_in_one_archive() {
    requires!(root, skopeo);
    let daemon = Daemon::start();
    let at = |name: &str| daemon.dir().join(name).display().to_string();
    daemon.dewar(&["tag", "busybox", "example/box:1"]).ok();
    daemon.dewar(&["run", "--name", "made", "--network", "none", "busybox", "touch", "/made"]).ok();
    daemon.dewar(&["commit", "made", "example/made:2"]).ok();
    daemon.dewar(&["save", "-o", &at("both.tar"), "example/box", "busybox:latest", "example/made:2"]).ok();
    let ids = ["busybox", "example/made:2"].map(|name| id_of(&daemon, name));
    let other = Daemon::empty();
    let loaded = other.docker(&["load", "-i", &at("both.tar")]).ok();
    for name in ["busybox:latest", "example/box:1", "example/made:2"] {
        loaded.stdout_has(&format!("Loaded image: {name}\n"));
    }
    assert_eq!(ids, ["example/box:1", "example/made:2"].map(|name| id_of(&other, name)));
    // skopeo finds each by its name.
    for name in ["example/box:1", "example/made:2"] {
        let from = format!("docker-archive:{}:docker.io/{name}", at("both.tar"));
        Cmd::new("skopeo").args(["inspect", &from]).ok().stdout_has("Layers");
    }
    // A layer that both have counts once.
    let usage = other.api("GET", "/system/df").is(200).json();
    let sizes: Vec<_> =
        usage["Images"].as_array().expect("a list").iter().map(|image| image["Size"].as_u64()).collect();
    assert!(usage["LayersSize"].as_u64() == sizes.iter().copied().max().flatten(), "{usage}");
}

#[test]
fn an_image_for_another_platform_is_not_taken_for_this_one() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let wanted = "does not match the specified platform (linux/arm64)";
    let archive = daemon.dir().join("box.tar");
    let out = daemon.dir().join("out.tar").display().to_string();
    daemon.docker(&["save", "--platform", "linux/amd64", "-o"]).arg(&archive).arg("busybox").ok();
    daemon.docker(&["save", "--platform", "linux/arm64", "-o", &out, "busybox"]).fails(1).stderr_has(wanted);
    daemon.docker(&["load", "--platform", "linux/arm64", "-i"]).arg(&archive).fails(1).says(wanted);
    daemon.docker(&["history", "--platform", "linux/arm64", "busybox"]).fails(1).stderr_has(wanted);
    daemon.dewar(&["save", "--platform", "linux/arm64", "-o", &out, "busybox"]).fails(1).stderr_has(wanted);
    daemon.docker(&["load", "--platform", "linux/amd64", "-i"]).arg(&archive).ok();
}

#[test]
fn artifacts_are_loaded_listed_saved_and_removed() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = r#"
set -e
mkdir -p "$1/blobs/sha256"; cd "$1"
put() { sum=$(sha256sum "$1" | cut -d' ' -f1); size=$(wc -c < "$1"); mv "$1" "blobs/sha256/$sum"; }
printf '{}' > config; put config; config=$sum
head -c 5000000 /dev/urandom > pages; put pages; pages=$sum pagesize=$size
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example.dump","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:%s","size":2},"layers":[{"mediaType":"application/vnd.example.pages","digest":"sha256:%s","size":%s}],"annotations":{"step":"3"}}' "$config" "$pages" "$pagesize" > manifest
put manifest
printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.example.dump","digest":"sha256:%s","size":%s,"annotations":{"io.containerd.image.name":"docker.io/example/dump:3"}}]}' "$sum" "$size" > index.json
printf '{"imageLayoutVersion":"1.0.0"}' > oci-layout
tar -cf ../artifact.tar .
find . -type f | grep blobs | sort | xargs sha256sum
"#;
    let at = |name: &str| daemon.dir().join(name).display().to_string();
    let blobs = Cmd::new("sh").args(["-c", script, "sh", &at("artifact")]).ok();
    daemon.docker(&["load", "-i", &at("artifact.tar")]).ok().stdout_is("Loaded artifact: example/dump:3\n");
    daemon.docker(&["images"]).ok().stdout_lacks("dump");
    daemon.dewar(&["images", "--artifacts"]).ok().stdout_has("example/dump").stdout_lacks("busybox");
    daemon.dewar(&["image", "prune", "-a", "-f"]).ok();
    daemon.dewar(&["save", "-o", &at("saved.tar"), "example/dump:3"]).ok();
    let script =
        "mkdir $0 && tar -xf $1 -C $0 && cd $0 && find . -type f | grep blobs | sort | xargs sha256sum";
    Cmd::new("sh").args(["-c", script, &at("back"), &at("saved.tar")]).ok().stdout_is(&blobs.stdout);
    daemon
        .docker(&["rmi", "example/dump:3"])
        .ok()
        .stdout_has("Untagged: example/dump:3")
        .stdout_has("Deleted: sha256:");
    daemon.docker(&["rmi", "example/dump:3"]).fails(1).stderr_has("No such image: example/dump:3");
    let left =
        Cmd::new("find").arg(daemon.dir().join("data/images/artifacts/blobs")).args(["-type", "f"]).ok();
    left.stdout_is("");
}

/// What GNU tar packed, dewar imports and exports: GNU tar finds no difference, to the nanosecond.
#[test]
fn an_export_is_what_was_imported_in_every_respect() {
    requires!(root);
    let daemon = Daemon::empty();
    let script = r#"
set -e
mkdir -p "$1/tree/d/sub" "$1/tree/sticky" && cd "$1/tree"
echo x > d/file; chmod 4751 d/file; chown 12:70000 d/file; ln d/file d/sub/same
ln -s ../d/file link; mkfifo pipe; mknod null c 1 3; mknod disk b 7 200
truncate -s 1000000 sparse; printf data | dd of=sparse bs=1 seek=500000 conv=notrunc status=none
echo y > "$(printf 'n%.0s' $(seq 200))"; chmod 1777 sticky; chmod 2755 d; echo z > 'a
b'
python3 -c 'import os
os.setxattr("d/file", "user.note", b"a=b\n")
os.setxattr("d/file", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))'
find . -depth -exec touch -h -d '2001-02-03 04:05:06.789012345 UTC' {} +
tar --format=pax --xattrs --xattrs-include='*' --numeric-owner -S -cf ../tree.tar .
"#;
    Cmd::new("sh").args(["-c", script, "sh"]).arg(daemon.dir()).ok();
    let at = |name: &str| daemon.dir().join(name).display().to_string();
    daemon.dewar(&["import", &at("tree.tar"), "tree"]).ok();
    daemon.dewar(&["create", "--name", "tree", "--network", "none", "tree", "/none"]).ok();
    daemon.dewar(&["export", "-o", &at("export.tar"), "tree"]).ok();
    // --compare looks at content, size, mode, owner, time, links and devices; attributes are looked at by hand.
    let compare = Cmd::new("tar").args(["-C", &at("tree"), "--numeric-owner", "-df", &at("export.tar")]);
    let paths =
        ["d", "link", "pipe", "null", "disk", "sparse", "sticky", "a\nb"].map(|name| format!("./{name}"));
    let listed = Cmd::new("tar").args(["-tf", &at("export.tar"), "--quoting-style=literal"]).ok();
    let prefix = if listed.stdout.starts_with("./") { "" } else { "./" };
    compare.args(paths.iter().map(|path| path.trim_start_matches(prefix))).ok().stdout_is("");
    let script = "mkdir $0 && tar --xattrs --xattrs-include='*' -xpf $1 -C $0 && cd $0 && \
                  python3 -c 'import os; print([os.getxattr(\"d/sub/same\", name).hex() for name in (\"user.note\", \"security.capability\")], \
                  os.stat(\"d/file\").st_mtime_ns, os.stat(\"d/file\").st_nlink, os.stat(\"sparse\").st_size)'";
    let wanted = "['613d620a', '0100000200200000000000000000000000000000'] 981173106789012345 2 1000000\n";
    Cmd::new("sh").args(["-c", script, &at("out"), &at("export.tar")]).ok().stdout_is(wanted);
    // And a layer leaves as it came: the tar of a saved image is the imported one.
    daemon.dewar(&["save", "-o", &at("saved.tar"), "tree"]).ok();
    let sum = Cmd::new("sha256sum").arg(at("tree.tar")).ok();
    let layer = format!("blobs/sha256/{}", &sum.stdout[..64]);
    Cmd::new("sh").args(["-c", "tar -xOf $0 $1 | cmp - $2", &at("saved.tar"), &layer, &at("tree.tar")]).ok();
}
