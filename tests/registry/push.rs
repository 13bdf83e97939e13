//! push, to Debian's registry, read by skopeo.

use super::fixture::{PASSWORD, RegistryServer, USER, layout, source};
use crate::support::certificates::Certificates;
use crate::support::requires::requires;
use crate::support::{Daemon, Namespace};

/// The digest that a push says the tag has.
fn digest_of(stdout: &str) -> String {
    let (_, rest) = stdout.split_once("digest: ").unwrap_or_else(|| panic!("no digest: {stdout}"));
    rest.split(' ').next().unwrap_or_default().to_owned()
}

fn id_of(daemon: &Daemon, name: &str) -> String {
    daemon.dewar(&["image", "inspect", "--format", "{{.Id}}", name]).ok().trimmed().to_owned()
}

#[test]
fn what_is_pushed_is_read_by_others_and_remembered() {
    requires!(docker_registry, docker);
    let daemon = Daemon::start();
    let registry = RegistryServer::plain(daemon.network(), 5000);
    let name = format!("{}/me/box", registry.host());
    daemon.dewar(&["tag", "busybox", &format!("{name}:1")]).ok();
    let pushed = daemon.dewar(&["push", &format!("{name}:1")]).ok();
    pushed.stdout_has(&format!("The push refers to repository [{name}]"));
    pushed.stdout_has(": Preparing").stdout_has(": Pushed").stdout_has("1: digest: sha256:");
    let digest = digest_of(&pushed.stdout);

    let raw = registry.inspect("me/box:1", &["--raw"]);
    let manifest: serde_json::Value = serde_json::from_str(&raw).expect("a manifest");
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(registry.digest("me/box:1"), digest);
    let copy = daemon.dir().join("copy.tar");
    let to = format!("docker-archive:{}:copied:1", copy.display());
    let from = format!("docker://{name}:1");
    daemon
        .network()
        .run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to]);
    let elsewhere = Daemon::empty();
    elsewhere.dewar(&["load", "-i"]).arg(&copy).ok();
    assert_eq!(id_of(&elsewhere, "copied:1"), id_of(&daemon, "busybox"));
    elsewhere.dewar(&["run", "--rm", "--network", "none", "copied:1", "echo", "hi"]).ok().stdout_is("hi\n");

    let digests = daemon.dewar(&["image", "inspect", "--format", "{{json .RepoDigests}}", "busybox"]).ok();
    digests.stdout_has(&format!("{name}@{digest}"));
    let events = daemon.dewar(&["events", "--since", "1", "--until", "0s", "--filter", "event=push"]).ok();
    events.stdout_has(&format!("image push {name}:1 (")).stdout_has(&format!("name={name}"));

    // Again, by Docker's client; and to another repository of the same registry.
    let again = daemon.docker(&["push", &format!("{name}:1")]).ok();
    again.stdout_has("Layer already exists").stdout_lacks("Pushed");
    assert_eq!(digest_of(&again.stdout), digest);
    let other = format!("{}/you/box:2", registry.host());
    daemon.dewar(&["tag", "busybox", &other]).ok();
    let mounted = daemon.dewar(&["push", &other]).ok();
    mounted.stdout_has("Mounted from me/box").stdout_lacks("Pushed");
    assert_eq!(digest_of(&mounted.stdout), digest);

    // A registry that knows nothing of it gets the same, and so the same digest.
    let second = RegistryServer::plain(daemon.network(), 5001);
    let third = format!("{}/box:1", second.host());
    daemon.dewar(&["tag", "busybox", &third]).ok();
    let fresh = daemon.dewar(&["push", &third]).ok();
    fresh.stdout_has("Pushed");
    assert_eq!(digest_of(&fresh.stdout), digest);
    assert_eq!(daemon.dewar(&["push", "-q", &third]).ok().stdout, format!("{third}\n"));
}

#[test]
fn all_tags_go_at_once_and_docker_py_pushes() {
    requires!(docker_registry, docker, docker_py);
    let daemon = Daemon::start();
    let registry = RegistryServer::plain(daemon.network(), 5000);
    let name = format!("{}/me/box", registry.host());
    daemon.dewar(&["tag", "busybox", &format!("{name}:1")]).ok();
    daemon.dewar(&["tag", "busybox", &format!("{name}:2")]).ok();
    let pushed = daemon.docker(&["push", "--all-tags", &name]).ok();
    pushed.stdout_has("1: digest: sha256:").stdout_has("2: digest: sha256:");
    let place = format!("docker://{name}");
    let tags = daemon.network().run("skopeo", &["list-tags", "--tls-verify=false", &place]);
    // In no order.
    assert!(tags.contains("\"1\"") && tags.contains("\"2\""), "{tags}");
    let script = format!(
        "import json\n\
         lines = list(client.api.push('{name}', tag='1', stream=True, decode=True))\n\
         assert lines[0]['status'].startswith('The push refers to repository'), lines\n\
         assert lines[-1]['aux']['Tag'] == '1' and lines[-1]['aux']['Digest'].startswith('sha256:'), lines\n\
         assert all('errorDetail' not in line for line in lines), lines\n"
    );
    daemon.python(&script).ok();
}

#[test]
fn what_cannot_be_pushed_is_told_in_dockers_words() {
    requires!(docker_registry, docker);
    let daemon = Daemon::start();
    let registry = RegistryServer::htpasswd(daemon.network(), 5000);
    let name = format!("{}/me/box", registry.host());
    let refused = |reference: &str, words: &str| {
        daemon.dewar(&["push", reference]).fails(1).stderr_has(words);
        daemon.docker(&["push", reference]).fails(1).stderr_has(words);
    };
    refused(&format!("{name}:1"), &format!("An image does not exist locally with the tag: {name}"));
    daemon.dewar(&["tag", "busybox", &format!("{name}:1")]).ok();
    refused(&format!("{name}:2"), &format!("tag does not exist: {name}:2"));
    refused(&format!("{name}:1"), "no basic auth credentials");
    daemon
        .dewar(&["push", "--platform", "linux/riscv64", &format!("{name}:1")])
        .fails(1)
        .stderr_has("does not provide the specified platform");
    daemon.dewar(&["tag", "busybox", "127.0.0.1:1/box"]).ok();
    refused("127.0.0.1:1/box", "connection refused");

    let config = daemon.dir().join("config");
    let with = |args: &[&str]| daemon.dewar(&["--config"]).arg(&config).args(args);
    with(&["login", "-u", USER, "--password-stdin", &registry.host()]).stdin(PASSWORD).ok();
    with(&["push", &format!("{name}:1")]).ok().stdout_has("Pushed");
    // Wrong ones, as the registry says it.
    let bad = serde_json::json!({ "auths": { registry.host(): { "auth": "dGVzdGVyOndyb25n" } } });
    std::fs::write(config.join("config.json"), bad.to_string()).expect("made by login");
    with(&["push", &format!("{name}:1")]).fails(1).stderr_has("unauthorized: authentication required");
}

#[test]
fn a_registry_with_tls_is_pushed_to_and_manifests_are_shown_as_dockers() {
    requires!(docker_registry, docker);
    let certificates = Certificates::new();
    let network = Namespace::new();
    let registry = RegistryServer::tls(&network, 5000, &certificates, true);
    let certs = registry.certs_dir(certificates.dir(), &certificates, true);
    let certs = certs.to_str().expect("a path of ours");
    let daemon = Daemon::within(&network, &[], &[("DEWAR_CERTS_DIR", certs)]);
    daemon.dewar(&["import"]).arg(crate::support::busybox_tar()).arg("busybox").ok();
    let name = registry.name("me/box:1");
    daemon.dewar(&["tag", "busybox", &name]).ok();
    let pushed = daemon.dewar(&["push", &name]).ok();
    pushed.stdout_has(": Pushed").stdout_has("1: digest: sha256:");
    // A daemon that is not shown the authority refuses.
    let stranger = Daemon::start_in(&network, &[]);
    stranger.dewar(&["tag", "busybox", &name]).ok();
    stranger.dewar(&["push", &name]).fails(1).stderr_has("x509: ");

    let plain = RegistryServer::plain(&network, 5001);
    let source = source(&layout(daemon.dir(), 1, 1000));
    plain.fill(&source, "me/box:oci", &[]);
    plain.fill(&source, "me/box:docker", &["--format", "v2s2"]);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    for tag in ["oci", "docker"] {
        let name = plain.name(&format!("me/box:{tag}"));
        let show = |command: crate::support::Cmd| network.within(|| command.ok()).stdout;
        let args = ["manifest", "inspect", "--insecure", &name];
        assert_eq!(show(daemon.dewar(&args)), show(daemon.docker(&args)));
        let args = ["manifest", "inspect", "--insecure", "-v", &name];
        assert_eq!(json(&show(daemon.dewar(&args))), json(&show(daemon.docker(&args))));
    }
    let absent = plain.name("me/box:absent");
    let refused = network.within(|| daemon.dewar(&["manifest", "inspect", "--insecure", &absent]).fails(1));
    refused.stderr_has(&format!("no such manifest: {absent}"));
    let dockers = network.within(|| daemon.docker(&["manifest", "inspect", "--insecure", &absent]).fails(1));
    assert_eq!(refused.stderr, dockers.stderr);
}

#[test]
fn an_image_that_came_from_a_registry_keeps_its_digest() {
    requires!(docker_registry);
    let network = Namespace::new();
    let registry = RegistryServer::plain(&network, 5000);
    let daemon = Daemon::within(&network, &[], &[]);
    registry.fill(&source(&layout(daemon.dir(), 3, 50_000)), "test/box:1", &[]);
    let name = registry.name("test/box:1");
    daemon.dewar(&["pull", &name]).ok();
    let digest = registry.digest("test/box:1");
    // Into another repository of the same registry: nothing is sent but names.
    let moved = registry.name("mine/box:2");
    daemon.dewar(&["tag", &name, &moved]).ok();
    let pushed = daemon.dewar(&["push", &moved]).ok();
    pushed.stdout_has("Mounted from test/box").stdout_lacks("Pushed");
    assert_eq!(digest_of(&pushed.stdout), digest);
    assert_eq!(registry.digest("mine/box:2"), digest);

    // By dewar, skopeo, another dewar and skopeo: what arrives is what went.
    let second = RegistryServer::plain(&network, 5001);
    let local = second.name("box:1");
    daemon.dewar(&["tag", &name, &local]).ok();
    let sent = daemon.dewar(&["push", &local]).ok();
    sent.stdout_has("Pushed");
    let sent = digest_of(&sent.stdout);
    let (from, to) = (format!("docker://{local}"), format!("docker://{}", registry.name("back/box:1")));
    let flags = ["--src-tls-verify=false", "--dest-tls-verify=false", "--preserve-digests"];
    let copy = ["--insecure-policy", "copy", "-q", flags[0], flags[1], flags[2], &from, &to];
    network.run("skopeo", &copy);
    let other = Daemon::within(&network, &[], &[]);
    other.dewar(&["pull", &registry.name("back/box:1")]).ok();
    assert_eq!(id_of(&other, &registry.name("back/box:1")), id_of(&daemon, &name));
    let again = registry.name("again/box:1");
    other.dewar(&["tag", &registry.name("back/box:1"), &again]).ok();
    let pushed = other.dewar(&["push", &again]).ok();
    assert_eq!(digest_of(&pushed.stdout), sent);
    // What another client compressed with zstd goes on as it is, or as gzip where it cannot be mounted.
    registry.fill(
        &source(&layout(daemon.dir(), 1, 1000)),
        "test/zstd:1",
        &["--dest-compress-format", "zstd"],
    );
    let zstd = registry.name("test/zstd:1");
    daemon.dewar(&["pull", &zstd]).ok();
    let there = second.name("zstd:1");
    daemon.dewar(&["tag", &zstd, &there]).ok();
    daemon.dewar(&["push", &there]).ok();
    let raw = second.inspect("zstd:1", &["--raw"]);
    assert!(raw.contains("tar.gzip") && !raw.contains("zstd"), "{raw}");
}
