//! What is on the disk, and giving it back: `system df` and the prunes, by both clients on one daemon.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon};

/// Runs the same words with both clients and compares all that they say. Ages move on between the two, so it
/// takes several tries; words that change anything are not for this.
fn alike(daemon: &Daemon, words: &[&str], input: &str) -> String {
    let mut tries = 0;
    loop {
        let ours = daemon.dewar(words).stdin(input).run();
        let theirs = daemon.docker(words).stdin(input).run();
        if (ours.code, &ours.stdout) == (theirs.code, &theirs.stdout) {
            return ours.stdout.clone();
        }
        tries += 1;
        assert!(tries < 5, "{words:?}\n{ours}\n{theirs}");
    }
}

/// Two images that share a layer, one nameless, a stopped container of 5000 bytes and a running one.
fn filled() -> Daemon {
    let daemon = Daemon::start();
    let write = "head -c 5000 /dev/zero > /x; ln /x /y";
    daemon
        .dewar(&[
            "run",
            "--name",
            "ended",
            "--network",
            "none",
            "--label",
            "a=b",
            "busybox",
            "sh",
            "-c",
            write,
        ])
        .ok();
    daemon.dewar(&["commit", "ended"]).ok();
    daemon.dewar(&["commit", "ended", "made:v1"]).ok();
    daemon.dewar(&["volume", "create", "unused"]).ok();
    daemon.run_detached("web", &[], "exec sleep 1000");
    daemon
}

#[test]
fn disk_usage_is_told_alike() {
    requires!(root, docker);
    let daemon = filled();
    let table = alike(&daemon, &["system", "df"], "");
    assert!(table.contains("Containers      2         1         5kB       5kB (100%)"), "{table}");
    let verbose = alike(&daemon, &["system", "df", "-v"], "");
    assert!(verbose.contains("unused        0         0B\n"), "{verbose}");
    for format in ["{{.Type}}: {{.Size}}", "table {{.Type}}\t{{.Reclaimable}}"] {
        alike(&daemon, &["system", "df", "--format", format], "");
    }
    let json = |words: &[&str], client: fn(&Daemon, &[&str]) -> Cmd| -> serde_json::Value {
        let text = client(&daemon, words).ok().stdout;
        text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")).collect()
    };
    let words = ["system", "df", "--format", "json"];
    assert_eq!(
        json(&words, |daemon, words| daemon.dewar(words)),
        json(&words, |daemon, words| daemon.docker(words))
    );
    let sizes = daemon.api("GET", "/containers/json?all=1&size=1").is(200).json();
    let ended =
        sizes.as_array().and_then(|all| all.iter().find(|one| one["Names"][0] == "/ended")).expect("listed");
    let image = daemon.api("GET", "/images/busybox/json").is(200).json()["Size"].as_i64().expect("a size");
    assert_eq!((ended["SizeRw"].as_i64(), ended["SizeRootFs"].as_i64()), (Some(5000), Some(image + 5000)));
    alike(&daemon, &["ps", "-as", "--format", "{{.Names}} {{.Size}}"], "");
}

#[test]
fn what_is_asked_for_is_told() {
    requires!(root, docker_py);
    let daemon = filled();
    let of = |query: &str| daemon.api("GET", &format!("/system/df{query}")).is(200).json();
    let whole = of("");
    assert_eq!(whole["Images"].as_array().map(Vec::len), Some(3));
    assert_eq!(whole["BuildCache"], serde_json::json!([]));
    assert_eq!(whole["Volumes"][0]["UsageData"], serde_json::json!({ "RefCount": 0, "Size": 0 }));
    let size = |image: &serde_json::Value, key: &str| image[key].as_i64().expect("a number");
    for image in whole["Images"].as_array().expect("a list") {
        let shared = size(image, "Size") - size(image, "SharedSize");
        assert!(shared == 0, "all layers are shared: {image}");
    }
    let busybox = daemon.api("GET", "/images/busybox/json").is(200).json();
    assert_eq!(size(&whole, "LayersSize"), size(&busybox, "Size") + 5000);
    let part = of("?type=container");
    assert!(part["Images"].is_null() && part["Volumes"].is_null(), "{part}");
    assert_eq!(part["Containers"].as_array().map(Vec::len), Some(2));
    let two = of("?type=image&type=volume");
    assert!(two["Images"].is_array() && two["Volumes"].is_array() && two["Containers"].is_null(), "{two}");
    daemon.api("GET", "/system/df?type=moon").refuses(400, "moon");
    let script = r#"
df = client.df()
assert [c['SizeRw'] for c in df['Containers'] if c['Names'] == ['/ended']] == [5000], df
assert client.containers.prune(filters={'until': '1h'})['ContainersDeleted'] in (None, [])
pruned = client.containers.prune()
assert len(pruned['ContainersDeleted']) == 1 and pruned['SpaceReclaimed'] == 5000, pruned
assert client.images.prune(filters={'dangling': True})['ImagesDeleted']
assert client.images.prune_builds()['SpaceReclaimed'] == 0
"#;
    daemon.python(script).ok();
}

#[test]
fn prunes_ask_and_remove_alike() {
    requires!(root, docker);
    let daemon = filled();
    let daemon = &daemon;
    // Nobody says yes: nothing happens, and it is no failure.
    for words in [
        &["container", "prune"][..],
        &["image", "prune"],
        &["image", "prune", "-a"],
        &["system", "prune"],
        &["system", "prune", "-a", "--volumes", "--filter", "label=x"],
    ] {
        for answer in ["", "n\n", "yes\n"] {
            alike(daemon, words, answer);
        }
    }
    let filters = [&["--filter", "label=a=c"][..], &["--filter", "label!=a=b"], &["--filter", "until=1h"]];
    for filter in filters {
        let words = [&["container", "prune", "-f"], filter].concat();
        assert_eq!(alike(daemon, &words, ""), "Total reclaimed space: 0B\n");
    }
    daemon.dewar(&["container", "prune", "-f", "--filter", "nonsense=1"]).fails(1).stderr_has("nonsense");
    let id = daemon.api("GET", "/containers/ended/json").is(200).json()["Id"].clone();
    let pruned = daemon.dewar(&["container", "prune"]).stdin("y\n").ok();
    pruned.stdout_has("WARNING! This will remove all stopped containers.\n");
    pruned.stdout_has(&format!(
        "Deleted Containers:\n{}\n\nTotal reclaimed space: 5kB\n",
        id.as_str().expect("an id")
    ));
    assert_eq!(daemon.dewar(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout, "web\n");
    let dangling = daemon.dewar(&["image", "prune", "-f"]).ok();
    dangling.stdout_has("Deleted Images:\ndeleted: sha256:").stdout_has("\n\nTotal reclaimed space: 0B\n");
    daemon
        .docker(&["image", "prune", "-a", "-f"])
        .ok()
        .stdout_has("untagged: made:v1")
        .stdout_has("space: 5kB");
    assert_eq!(
        daemon.dewar(&["images", "-aq"]).ok().stdout.lines().count(),
        1,
        "the running one's image stays"
    );
    daemon.has_told(&["container prune", "image prune", "reclaimed=5000"]);
}

#[test]
fn one_command_removes_all_that_nobody_uses() {
    requires!(root, docker);
    for client in [Daemon::dewar::<&str>, Daemon::docker::<&str>] {
        let daemon = filled();
        daemon.dewar(&["create", "--name", "idle", "--network", "none", "busybox", "true"]).ok();
        let output = client(&daemon, &["system", "prune", "-a", "-f", "--volumes"]).ok();
        output.stdout_has("Deleted Containers:\n").stdout_has("Deleted Images:\n");
        output.stdout_has("Total reclaimed space: 10kB\n");
        assert_eq!(daemon.dewar(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout, "web\n");
        assert_eq!(daemon.dewar(&["images", "-aq"]).ok().stdout.lines().count(), 1);
        // What has a name of its own stays.
        assert_eq!(daemon.dewar(&["volume", "ls", "-q"]).ok().stdout, "unused\n");
        client(&daemon, &["system", "prune", "--volumes", "--filter", "until=1h"])
            .fails(1)
            .stderr_has("\"until\" filter");
    }
}
