//! Checkpoints in Debian's registry, read by skopeo.

use serde_json::Value;

use super::fixture::{PASSWORD, RegistryServer, USER};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

/// Counts in memory, and says so.
const COUNTER: &str = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done";

fn numbers(daemon: &Daemon) -> Vec<u32> {
    daemon.logs("web").split_whitespace().filter_map(|line| line.parse().ok()).collect()
}

#[test]
fn a_checkpoint_goes_through_a_registry() {
    requires!(root, criu, docker_registry);
    let from = Daemon::start();
    let registry = RegistryServer::htpasswd(from.network(), 5000);
    from.run_detached("web", &["-v", "data:/data"], COUNTER);
    eventually("it counting", || numbers(&from).len() > 5);
    from.dewar(&["exec", "web", "sh", "-c", "echo new > /file; rm /bin/vi; echo kept > /data/file"]).ok();
    from.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(&from).len() as u32;
    let name = format!("{}/frozen/web", registry.host());
    let reference = format!("{name}:cp1");
    from.dewar(&["checkpoint", "push", "web", "cp1", &reference])
        .fails(1)
        .stderr_has("no basic auth credentials");
    let home = from.dir().join("home").display().to_string();
    let login = |daemon: &Daemon| {
        let command = ["--config", &home, "login", "-u", USER, "--password-stdin", &registry.host()];
        daemon.dewar(&command).stdin(PASSWORD).ok();
    };
    login(&from);
    let pushed = from.dewar(&["--config", &home, "checkpoint", "push", "web", "cp1", &reference]).ok();
    pushed.stdout_has(&format!("The push refers to repository [{name}]")).stdout_has("cp1: digest: sha256:");
    let (_, digest) = pushed.stdout.split_once("digest: ").expect("said above");
    let digest = digest.split(' ').next().unwrap_or_default().to_owned();

    let manifest: Value =
        serde_json::from_str(&registry.inspect("frozen/web:cp1", &["--raw"])).expect("JSON");
    let says = |key: &str| manifest["annotations"][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(says("io.podman.annotations.checkpoint.name"), "web");
    assert_eq!(says("io.podman.annotations.checkpoint.rootfsImageName"), "busybox");
    assert_eq!(says("io.podman.annotations.checkpoint.rootfsImageID").len(), 64);
    assert!(
        says("io.podman.annotations.checkpoint.criu.version")
            .parse::<u32>()
            .is_ok_and(|number| number > 30_000)
    );
    assert_eq!(
        (says("org.criu.checkpoint.container.name"), says("org.criu.checkpoint.engine.name")),
        ("web".into(), "dewar".into())
    );
    assert_eq!(manifest["layers"].as_array().map(Vec::len), Some(1));
    // Others unpack it as they unpack any image.
    let copy = from.dir().join("copy").display().to_string();
    let creds = format!("{USER}:{PASSWORD}");
    let docker = format!("docker://{reference}");
    let arguments =
        ["--insecure-policy", "copy", "-q", "--src-tls-verify=false", "--src-creds", &creds, &docker];
    from.network().run("skopeo", &[&arguments[..], &[&format!("dir:{copy}")]].concat());
    let layer =
        manifest["layers"][0]["digest"].as_str().expect("a digest").trim_start_matches("sha256:").to_owned();
    let list = Cmd::new("tar").args(["-tzf", &format!("{copy}/{layer}")]).ok();
    list.stdout_has("config.dump\n").stdout_has("checkpoint/pstree.img\n").stdout_has("rootfs-diff.tar\n");

    let image = from.dir().join("image.tar").display().to_string();
    from.dewar(&["save", "-o", &image, "busybox"]).ok();
    let to = Daemon::start_in(from.network(), &[]);
    let pull = |daemon: &Daemon, reference: &str| {
        daemon.dewar(&["--config", &home, "checkpoint", "pull", "--name", "web", reference])
    };
    pull(&to, &reference).fails(1).stderr_has("it was taken over image busybox (sha256:");
    to.dewar(&["load", "-i", &image]).ok();
    pull(&to, &format!("{name}:none")).fails(1).stderr_has("not found");
    pull(&to, &format!("{name}@{digest}")).ok().stdout_has("web cp1\n");
    to.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    eventually("it going on", || numbers(&to).len() > 3);
    let first = numbers(&to)[0];
    assert!(first > 1 && first <= frozen + 1, "it began with {first}, frozen by {frozen}");
    to.dewar(&["exec", "web", "sh", "-c", "cat /file /data/file; test -e /bin/vi || echo gone"])
        .ok()
        .stdout_is("new\nkept\ngone\n");

    // What is no checkpoint is not taken for one.
    let plain = format!("{name}:image");
    from.dewar(&["tag", "busybox", &plain]).ok();
    from.dewar(&["--config", &home, "push", "-q", &plain]).ok();
    from.dewar(&["--config", &home, "checkpoint", "pull", "--name", "x", &plain]).fails(1);
    from.dewar(&["ps", "-aq", "--filter", "name=x"]).ok().stdout_is("");
}

#[test]
fn an_import_pulls_its_image() {
    requires!(root, criu, docker_registry);
    let from = Daemon::start();
    let registry = RegistryServer::plain(from.network(), 5000);
    let image = registry.name("base/box:1");
    from.dewar(&["tag", "busybox", &image]).ok();
    from.dewar(&["push", "-q", &image]).ok();
    from.dewar(&["run", "-d", "--name", "web", &image, "sh", "-c", COUNTER]).ok();
    eventually("it counting", || numbers(&from).len() > 5);
    from.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let file = from.dir().join("cp1.tar").display().to_string();
    from.dewar(&["checkpoint", "export", "-o", &file, "web", "cp1"]).ok();

    let to = Daemon::start_in(from.network(), &[]);
    to.dewar(&["rmi", "-f", "busybox"]).ok();
    let import = |flags: &[&str]| to.dewar(&[&["checkpoint", "import"], flags, &[file.as_str()]].concat());
    import(&[])
        .fails(1)
        .stderr_has(&format!("it was taken over image {image} (sha256:"))
        .stderr_has("--pull pulls it");
    import(&["--pull"]).ok().stdout_is("web cp1\n");
    to.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    eventually("it going on", || numbers(&to).len() > 3);
    // What the registry does not have is said.
    let gone = from.dir().join("gone.tar").display().to_string();
    from.dewar(&["tag", "busybox", &registry.name("base/gone:1")]).ok();
    from.dewar(&["run", "-d", "--name", "gone", &registry.name("base/gone:1"), "sleep", "60"]).ok();
    from.dewar(&["checkpoint", "create", "gone", "cp1"]).ok();
    from.dewar(&["checkpoint", "export", "-o", &gone, "gone", "cp1"]).ok();
    to.dewar(&["rm", "-f", "web"]).ok();
    to.dewar(&["rmi", "-f", &image]).ok();
    let refused = to.dewar(&["checkpoint", "import", "--pull", &gone]).fails(1);
    refused.stderr_has("Cannot import the checkpoint: pull its image").stderr_has("base/gone");
    to.dewar(&["ps", "-aq"]).ok().stdout_is("");
}
