//! Pulling from Debian's registry: by all clients, in all its modes.

use super::fixture::{ADDRESS, RegistryServer, layout, source};
use crate::support::certificates::Certificates;
use crate::support::requires::requires;
use crate::support::{Daemon, Namespace};

#[test]
fn an_image_comes_as_it_was_pushed() {
    requires!(docker_registry);
    let daemon = Daemon::empty();
    let registry = RegistryServer::plain(daemon.network(), 5000);
    let layout = layout(daemon.dir(), 3, 200_000);
    registry.fill(&source(&layout), "test/box:1", &[]);
    let name = registry.name("test/box:1");
    let first = daemon.dewar(&["pull", &name]).ok();
    first
        .stdout_has("1: Pulling from test/box\n")
        .stdout_has(&format!("Status: Downloaded newer image for {name}"));
    let digest = registry.digest("test/box:1");
    first.stdout_has(&format!("Digest: {digest}\n")).stdout_has(&format!("\n{name}\n"));
    // The config is the registry's to the bit, and so is the manifest.
    let manifest: serde_json::Value =
        serde_json::from_str(&registry.inspect("test/box:1", &["--raw"])).expect("JSON");
    let image = daemon.api("GET", &format!("/images/{name}/json")).is(200).json();
    assert_eq!(image["Id"], manifest["config"]["digest"]);
    let pinned = format!("{}@{digest}", registry.name("test/box"));
    assert_eq!(image["RepoDigests"], serde_json::json!([pinned]));
    assert_eq!(image["RepoTags"], serde_json::json!([name]));
    daemon.dewar(&["run", "--rm", "--network", "none", &name]).ok().stdout_is("pulled\n");
    daemon
        .dewar(&["run", "--rm", "--network", "none", &pinned, "sh", "-c", "ls /file-3; echo $FROM"])
        .ok()
        .stdout_is("/file-3\nregistry\n");
    // Again, there is nothing to do; by its digest neither.
    let again = daemon.dewar(&["pull", &name]).ok();
    again.stdout_has(&format!("Status: Image is up to date for {name}")).stdout_lacks("Pull complete");
    daemon.dewar(&["pull", "-q", &pinned]).ok().stdout_is(&format!("{pinned}\n"));
    // Taken away with its last name, and pulled by digest alone.
    daemon.dewar(&["rmi", "-f", &image["Id"].as_str().unwrap_or_default()[7..19]]).ok();
    daemon.dewar(&["pull", &pinned]).ok().stdout_has("Pull complete");
    daemon.dewar(&["run", "--rm", "--network", "none", &pinned]).ok().stdout_is("pulled\n");
}

#[test]
fn the_stock_clients_pull_as_from_docker() {
    requires!(docker_registry, docker, docker_py);
    let daemon = Daemon::empty();
    let registry = RegistryServer::plain(daemon.network(), 5000);
    let source = source(&layout(daemon.dir(), 1, 100_000));
    registry.fill(&source, "test/box:1", &[]);
    // Docker's own manifest, and zstd.
    registry.fill(&source, "test/docker:1", &["--format", "v2s2"]);
    registry.fill(&source, "test/zstd:1", &["--dest-compress-format", "zstd"]);
    for kind in ["zstd", "docker", "box"] {
        let name = registry.name(&format!("test/{kind}:1"));
        let output = daemon.docker(&["pull", &name]).ok();
        output.stdout_has(&format!("1: Pulling from test/{kind}\n"));
        output
            .stdout_has("Digest: sha256:")
            .stdout_has(&format!("Status: Downloaded newer image for {name}\n{name}\n"));
        if kind == "zstd" {
            output.stdout_has(": Pulling fs layer\n").stdout_has(": Verifying Checksum\n");
            output.stdout_has(": Download complete\n").stdout_has(": Pull complete\n");
        } else {
            // The layers are the same once they are unpacked.
            output.stdout_has(": Already exists\n").stdout_lacks("Pull complete");
        }
        daemon.docker(&["run", "--rm", "--network", "none", &name]).ok().stdout_is("pulled\n");
    }
    daemon.has_told(&[&format!("image pull {} (from=registry, name=", registry.name("test/box:1"))]);
    let images = daemon.docker(&["images", "--digests"]).ok();
    images.stdout_has(&registry.digest("test/docker:1"));
    // run pulls what is not there, and what it is told to.
    let absent = registry.name("test/box:1");
    for image in images.stdout.lines().filter_map(|line| line.split_whitespace().nth(3)).skip(1) {
        daemon.docker(&["rmi", "-f", image]).run();
    }
    daemon
        .docker(&["run", "--rm", "--network", "none", &absent])
        .ok()
        .stdout_is("pulled\n")
        .stderr_has("Pull complete");
    daemon
        .dewar(&["run", "--rm", "--network", "none", "--pull", "always", &absent])
        .ok()
        .stdout_is("pulled\n");
    daemon.dewar(&["run", "--rm", "--network", "none", "--pull", "never", "nothing/there"]).fails(125);
    let script = format!(
        "image = client.images.pull('{host}/test/docker', tag='1')\nassert image.attrs['RepoDigests'], image.attrs\n\
         data = client.images.get_registry_data('{host}/test/box:1')\nassert data.has_platform('linux/amd64'), data.attrs\n\
         print(data.id)\n\
         try:\n    client.images.pull('{host}/test/none', tag='1')\nexcept docker.errors.NotFound as error:\n    print(error.explanation)\n",
        host = registry.host()
    );
    let python = daemon.python(&script).ok();
    python.stdout_has(&registry.digest("test/box:1"));
    python.stdout_has("manifest unknown: manifest unknown");
}

#[test]
fn all_tags_and_what_is_not_there() {
    requires!(docker_registry, docker);
    let daemon = Daemon::empty();
    let registry = RegistryServer::plain(daemon.network(), 5000);
    let source = source(&layout(daemon.dir(), 0, 0));
    for tag in ["1", "2", "latest"] {
        registry.fill(&source, &format!("many:{tag}"), &[]);
    }
    let name = registry.name("many");
    daemon
        .docker(&["pull", "-a", &name])
        .ok()
        .stdout_has("2: Pulling from many\n")
        .stdout_has("latest: Pulling from many\n");
    let image = daemon.api("GET", &format!("/images/{name}/json")).is(200).json();
    assert_eq!(image["RepoTags"].as_array().map(Vec::len), Some(3), "{image}");
    for (client, code) in [("docker", 1), ("dewar", 1)] {
        let pull = |what: &str| match client {
            "docker" => daemon.docker(&["pull", what]),
            _ => daemon.dewar(&["pull", what]),
        };
        let missing = registry.name("many:3");
        pull(&missing)
            .fails(code)
            .stderr_has(&format!("manifest for {missing} not found: manifest unknown: manifest unknown"));
        pull("scratch").fails(code).stderr_has("'scratch' is a reserved name");
        pull("127.0.0.1:1/x").fails(code).stderr_has("connect: connection refused");
    }
    let wrong = format!("{name}@sha256:{}", "0".repeat(64));
    daemon
        .api("POST", &format!("/images/create?fromImage={wrong}"))
        .refuses(404, "not found: manifest unknown");
    daemon.api("GET", &format!("/distribution/{name}:3/json")).refuses(404, "manifest unknown");
    let found = daemon.api("GET", &format!("/distribution/{name}/json")).is(200).json();
    assert_eq!(found["Descriptor"]["digest"], registry.digest("many:1"));
    assert_eq!(found["Platforms"], serde_json::json!([{"architecture": "amd64", "os": "linux"}]));
}

#[test]
fn passwords_are_asked_for_and_shown() {
    requires!(docker_registry);
    let daemon = Daemon::empty();
    let registry = RegistryServer::htpasswd(daemon.network(), 5000);
    registry.fill(&source(&layout(daemon.dir(), 0, 0)), "private:1", &[]);
    let name = registry.name("private:1");
    daemon
        .dewar(&["pull", &name])
        .fails(1)
        .stderr_has("/v2/private/manifests/1\": no basic auth credentials");
    // {"username":"tester","password":"secret"} and the same with "wrong"
    let good = "eyJ1c2VybmFtZSI6InRlc3RlciIsInBhc3N3b3JkIjoic2VjcmV0In0=";
    let bad = "eyJ1c2VybmFtZSI6InRlc3RlciIsInBhc3N3b3JkIjoid3JvbmcifQ==";
    let pull = |auth: &str| {
        let mut connection = crate::support::http::Connection::open(&daemon.socket());
        let path = format!("/images/create?fromImage={}&tag=1", registry.name("private"));
        connection.request("POST", &path, &[("X-Registry-Auth", auth), ("Connection", "close")], None);
        connection.reply("POST")
    };
    let refused = pull(bad);
    assert_eq!(refused.status, 500, "{}", refused.text());
    assert!(refused.text().contains("unauthorized: authentication required"), "{}", refused.text());
    assert!(pull(good).is(200).text().contains("Downloaded newer image"));
    daemon.dewar(&["run", "--rm", "--network", "none", &name]).ok().stdout_is("pulled\n");
}

#[test]
fn certificates_are_proof() {
    requires!(docker_registry, openssl);
    let network = Namespace::new();
    let certificates = Certificates::new();
    let registry = RegistryServer::tls(&network, 5443, &certificates, true);
    let certs = registry.certs_dir(certificates.dir(), &certificates, true).display().to_string();
    let empty = certificates.path("nothing");
    let unknown = Daemon::within(&network, &[], &[("DEWAR_CERTS_DIR", &empty)]);
    let name = registry.name("test/box:1");
    // Nobody we know has signed it; insecurely it asks for a certificate of ours.
    unknown
        .dewar(&["pull", &name])
        .fails(1)
        .stderr_has("tls: failed to verify certificate: x509: certificate signed by unknown authority");
    let daemon = Daemon::within(&network, &[], &[("DEWAR_CERTS_DIR", &certs)]);
    let mut args = vec!["--insecure-policy", "copy", "-q"];
    let flag = format!("--dest-cert-dir={certs}/{}", registry.host());
    let (from, to) = (source(&layout(daemon.dir(), 0, 0)), format!("docker://{name}"));
    args.extend([flag.as_str(), &from, &to]);
    network.run("skopeo", &args);
    daemon.dewar(&["pull", &name]).ok().stdout_has("Downloaded newer image");
    let host = registry.host();
    let insecure = Daemon::within(&network, &["--insecure-registry", &host], &[("DEWAR_CERTS_DIR", &empty)]);
    // Compat: as with Docker it is http that is tried last, and told of.
    insecure.dewar(&["pull", &name]).fails(1).stderr_has("Client sent an HTTP request to an HTTPS server");
}

#[test]
fn insecure_is_what_is_said_to_be() {
    requires!(docker_registry);
    let network = Namespace::new();
    super::fixture::outside(&network);
    let content = super::hostile::image("box", "1", &[("a", b"a".to_vec())]).content;
    let server = super::hostile::Hostile::at(&network, &format!("{ADDRESS}:0"), content, |_| {
        super::hostile::Fault::None
    });
    let name = format!("{ADDRESS}:{}/box:1", server.port);
    let daemon = Daemon::within(&network, &[], &[]);
    daemon.dewar(&["pull", &name]).fails(1).stderr_has("http: server gave HTTP response to HTTPS client");
    drop(daemon);
    let daemon = Daemon::within(&network, &["--insecure-registry", "10.77.0.0/16"], &[]);
    daemon.dewar(&["pull", &name]).ok().stdout_has("Downloaded newer image");
}
