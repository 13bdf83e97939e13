//! Pulling from a registry that breaks off, lies and makes trouble; from mirrors, through proxies, with tokens.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::fixture::{ADDRESS, outside};
use super::hostile::{Fault, Hostile, Made, OCI_INDEX, OCI_MANIFEST, digest, image, image_for, noise};
use crate::support::requires::requires;
use crate::support::{Daemon, Namespace, eventually};

const BIG: usize = 3_000_000;

fn big() -> Made {
    image("box", "1", &[("noise", noise(BIG, 1)), ("small", b"small".to_vec())])
}

/// What the store holds: names of layers and blobs, and what is in tmp.
fn store(daemon: &Daemon) -> Vec<String> {
    let images = daemon.dir().join("data/images");
    let mut found = Vec::new();
    for directory in ["layers", "blobs/sha256", "tmp"] {
        for entry in std::fs::read_dir(images.join(directory)).into_iter().flatten().flatten() {
            found.push(format!("{directory}/{}", entry.file_name().to_string_lossy()));
        }
    }
    found
}

#[track_caller]
fn has_nothing(daemon: &Daemon) {
    eventually("nothing is left", || store(daemon).is_empty());
    assert_eq!(daemon.api("GET", "/images/json?all=1").is(200).json(), serde_json::json!([]));
}

#[test]
fn a_broken_line_is_taken_up_where_it_broke() {
    requires!(root);
    let daemon = Daemon::empty();
    let made = big();
    let blob = format!("GET /v2/box/blobs/{}", made.layers[0].0);
    let line = blob.clone();
    let server = Hostile::new(daemon.network(), made.content, move |asked| match asked.before {
        0 if asked.line == line => Fault::CutAfter(1_000_000),
        _ => Fault::None,
    });
    let name = server.name("box:1");
    daemon.dewar(&["pull", &name]).ok().stdout_has("Retrying in 1 second").stdout_has("Pull complete");
    let asked: Vec<_> = server.asked().into_iter().filter(|asked| asked.line == blob).collect();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[1].headers.to_ascii_lowercase().contains("range: bytes=1000000-\r\n"), "{asked:?}");
    let saved = daemon.dir().join("saved.tar");
    daemon.dewar(&["save", "-o"]).arg(&saved).arg(&name).ok();
}

#[test]
fn trouble_passes_and_is_waited_for() {
    requires!(root);
    let daemon = Daemon::empty();
    let made = big();
    let blob = format!("GET /v2/box/blobs/{}", made.layers[0].0);
    let server = Hostile::new(daemon.network(), made.content, move |asked| match asked.before {
        0 if asked.line == blob => Fault::Answer(429, String::new(), "{}".to_owned()),
        1 if asked.line == blob => Fault::Answer(503, String::new(), String::new()),
        _ => Fault::None,
    });
    daemon.dewar(&["pull", &server.name("box:1")]).ok().stdout_has("Retrying in 2 seconds");
    // What does not pass is told, after as many attempts as are allowed.
    let made = image("box", "1", &[("other", noise(1000, 2))]);
    let blob = format!("GET /v2/box/blobs/{}", made.layers[0].0);
    let line = blob.clone();
    let server = Hostile::new(daemon.network(), made.content, move |asked| {
        if asked.line == line { Fault::Answer(500, String::new(), String::new()) } else { Fault::None }
    });
    let other = Daemon::within(daemon.network(), &["--max-download-attempts", "2"], &[]);
    other.dewar(&["pull", &server.name("box:1")]).fails(1).stderr_has("500 Internal Server Error");
    assert_eq!(server.count(&blob), 2);
    has_nothing(&other);
}

#[test]
fn lies_are_refused_and_leave_nothing() {
    requires!(root);
    let daemon = Daemon::with(&["--max-download-attempts", "2"], &[]);
    let layers = big().layers;
    let (blob, bytes) = (format!("GET /v2/box/blobs/{}", layers[0].0), layers[0].1.clone());
    let mut altered = bytes.clone();
    altered[2_000_000] ^= 1;
    let mut longer = bytes.clone();
    longer.push(0);
    let garbage = noise(bytes.len(), 9);
    for (fault, words) in [
        (Fault::Body(altered), "filesystem layer verification failed for digest sha256:"),
        (Fault::Body(garbage), "filesystem layer verification failed for digest sha256:"),
        (Fault::Body(longer), "the manifest says"),
        (Fault::Body(bytes[..bytes.len() - 1].to_vec()), "the manifest says"),
        (Fault::CutAfter(0), "after 0 of"),
    ] {
        let line = blob.clone();
        let shown: String = format!("{fault:?}").chars().take(30).collect();
        let server = Hostile::new(daemon.network(), big().content, move |asked| {
            if asked.line == line { fault.clone() } else { Fault::None }
        });
        let output = daemon.dewar(&["pull", &server.name("box:1")]).fails(1);
        assert!(output.stderr.contains(words), "{shown}: {output}");
        has_nothing(&daemon);
    }
    // A body without end is only read to the length it has.
    let line = blob.clone();
    let server = Hostile::new(daemon.network(), big().content, move |asked| {
        if asked.line == line { Fault::Endless } else { Fault::None }
    });
    daemon.dewar(&["pull", &server.name("box:1")]).ok();
    let name = server.name("box:1");
    daemon.dewar(&["rmi", &name]).ok();
    has_nothing(&daemon);
}

#[test]
fn manifests_and_configs_that_lie_are_refused() {
    requires!(root);
    let daemon = Daemon::empty();
    let made = image("box", "1", &[("a", b"a".to_vec())]);
    let manifest: serde_json::Value = serde_json::from_slice(&made.manifest).expect("ours");
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = manifest.clone();
        change(&mut changed);
        changed.to_string().into_bytes()
    };
    let foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip";
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (OCI_MANIFEST, b"<html>".to_vec(), "read image manifest"),
        (OCI_MANIFEST, vec![b' '; (4 << 20) + 1], "larger than"),
        (OCI_INDEX, made.manifest.clone(), "and is not"),
        (
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            b"{\"schemaVersion\":1}".to_vec(),
            "schema 1 support has been removed",
        ),
        (OCI_MANIFEST, with(&|m| m["layers"][0]["mediaType"] = foreign.into()), "foreign layer"),
        (OCI_MANIFEST, with(&|m| m["layers"] = serde_json::json!([])), "don't match image configuration"),
        (OCI_MANIFEST, with(&|m| m["config"]["size"] = 1.into()), "image config verification failed"),
        (OCI_MANIFEST, with(&|m| m["config"]["size"] = (1_u64 << 40).into()), "too many"),
        (
            OCI_MANIFEST,
            with(&|m| m["config"]["mediaType"] = "application/vnd.oci.empty.v1+json".into()),
            "is no image config",
        ),
        (OCI_MANIFEST, with(&|m| m["layers"][0]["size"] = 5.into()), "the manifest says"),
    ];
    for (kind, bytes, words) in cases {
        let mut content = made.content.clone();
        content.insert("/v2/box/manifests/1".to_owned(), (kind.to_owned(), bytes.clone()));
        content.insert(format!("/v2/box/manifests/{}", digest(&bytes)), (kind.to_owned(), bytes));
        let server = Hostile::new(daemon.network(), content, |_| Fault::None);
        let output = daemon.dewar(&["pull", &server.name("box:1")]).fails(1);
        assert!(output.stderr.contains(words), "{words}: {output}");
        has_nothing(&daemon);
    }
}

#[test]
fn the_platform_is_chosen() {
    requires!(root);
    let daemon = Daemon::empty();
    let mut content = super::hostile::Content::new();
    let mut manifests = Vec::new();
    let tar = "application/vnd.oci.image.layer.v1.tar";
    for (architecture, variant) in [("arm64", "v8"), ("arm", "v6"), ("arm", "v7"), ("amd64", "")] {
        let file = format!("{architecture}{variant}");
        let made = image_for("box", &file, &[(&file, b"x".to_vec())], architecture, tar);
        let mut platform = serde_json::json!({"os": "linux", "architecture": architecture});
        if !variant.is_empty() {
            platform["variant"] = variant.into();
        }
        manifests.push(serde_json::json!({
            "mediaType": OCI_MANIFEST, "digest": digest(&made.manifest), "size": made.manifest.len(),
            "platform": platform,
        }));
        content.extend(made.content);
    }
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let index = index.to_string().into_bytes();
    content.insert("/v2/box/manifests/1".into(), (OCI_INDEX.to_owned(), index.clone()));
    content.insert(format!("/v2/box/manifests/{}", digest(&index)), (OCI_INDEX.to_owned(), index.clone()));
    let server = Hostile::new(daemon.network(), content, |_| Fault::None);
    let name = server.name("box:1");
    for (flags, architecture, layer) in [
        (&[][..], "amd64", "amd64"),
        (&["--platform", "linux/arm64"], "arm64", "arm64v8"),
        (&["--platform", "linux/arm/v7"], "arm", "armv7"),
        (&["--platform", "linux/arm/v6"], "arm", "armv6"),
    ] {
        daemon.dewar(&["pull"]).args(flags).arg(&name).ok().stdout_has(&digest(&index));
        let image = daemon.api("GET", &format!("/images/{name}/json")).is(200).json();
        assert_eq!(image["Architecture"], architecture, "{flags:?}");
        let of_layer = image["RootFS"]["Layers"][0].as_str().unwrap_or_default().to_owned();
        let file = daemon.dir().join("data/images/layers").join(&of_layer[7..]).join("diff").join(layer);
        assert!(file.exists(), "{flags:?}: {}", file.display());
    }
    let none = daemon.dewar(&["pull", "--platform", "linux/s390x", &name]).fails(1);
    none.stderr_has("no matching manifest for linux/s390x in the manifest list entries");
    let found = daemon.api("GET", &format!("/distribution/{name}/json")).is(200).json();
    assert_eq!(found["Platforms"].as_array().map(Vec::len), Some(4), "{found}");
}

#[test]
fn tokens_are_fetched_for_what_is_asked() {
    requires!(root);
    let daemon = Daemon::empty();
    let made = big();
    let port = Arc::new(AtomicUsize::new(0));
    let known = Arc::clone(&port);
    let server = Hostile::new(daemon.network(), made.content, move |asked| {
        if asked.line.starts_with("GET /token?") {
            let scope = "service=test&scope=repository%3Abox%3Apull";
            return match asked.line.contains(scope) {
                true => Fault::Answer(200, String::new(), "{\"token\":\"good\",\"expires_in\":300}".into()),
                false => Fault::Answer(400, String::new(), "{}".into()),
            };
        }
        if asked.headers.to_ascii_lowercase().contains("authorization: bearer good\r\n") {
            return Fault::None;
        }
        let realm = format!("http://127.0.0.1:{}/token", known.load(Ordering::Relaxed));
        let header = format!("WWW-Authenticate: Bearer realm=\"{realm}\",service=\"test\"\r\n");
        Fault::Answer(401, header, "{}".into())
    });
    port.store(server.port.into(), Ordering::Relaxed);
    daemon.dewar(&["pull", &server.name("box:1")]).ok().stdout_has("Downloaded newer image");
    let tokens = server.asked().iter().filter(|asked| asked.line.starts_with("GET /token?")).count();
    assert_eq!(tokens, 1, "a token serves all requests of a pull");
    // What one may not see is denied in Docker's words.
    let made = image("secret", "1", &[("a", b"a".to_vec())]);
    let denied = r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#;
    let server = Hostile::new(daemon.network(), made.content, move |asked| match asked.line.as_str() {
        "GET /v2/" => Fault::None,
        _ => Fault::Answer(403, String::new(), denied.into()),
    });
    let name = server.name("secret");
    let words = format!(
        "pull access denied for {name}, repository does not exist or may require 'docker login': denied: requested \
         access to the resource is denied"
    );
    daemon.api("POST", &format!("/images/create?fromImage={name}&tag=1")).refuses(404, &words);
}

#[test]
fn two_pulls_of_one_layer_share_it() {
    requires!(root);
    let daemon = Daemon::empty();
    let made = big();
    let blob = format!("GET /v2/box/blobs/{}", made.layers[0].0);
    let line = blob.clone();
    let server = Hostile::new(daemon.network(), made.content, move |asked| {
        if asked.line == line { Fault::Slowly(200_000, Duration::from_millis(100)) } else { Fault::None }
    });
    let name = server.name("box:1");
    let mut first = daemon.dewar(&["pull", &name]).spawn();
    eventually("the first pull is at it", || server.count(&blob) == 1);
    let second = daemon.dewar(&["pull", &name]).ok();
    second.stdout_has("Pull complete").stdout_has("Downloaded newer image").stdout_has("Download complete");
    assert_eq!(first.wait(), 0);
    assert_eq!(server.count(&blob), 1, "one download for both");
}

#[test]
fn who_goes_away_stops_the_download() {
    requires!(root);
    let daemon = Daemon::empty();
    let made = big();
    let blob = format!("GET /v2/box/blobs/{}", made.layers[0].0);
    let line = blob.clone();
    let server = Hostile::new(daemon.network(), made.content, move |asked| {
        if asked.line == line { Fault::Slowly(10_000, Duration::from_millis(50)) } else { Fault::None }
    });
    let name = server.name("box:1");
    let first = daemon.dewar(&["pull", &name]).spawn();
    eventually("the pull is at it", || server.count(&blob) == 1);
    // Another one that wants the same keeps it going.
    let second = daemon.dewar(&["pull", &name]).spawn();
    eventually("the second is there, too", || server.count("HEAD /v2/box/manifests/1") == 2);
    std::thread::sleep(Duration::from_millis(500));
    drop(first);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(server.broken(), 0, "somebody still wants it");
    drop(second);
    eventually("the download ends", || server.broken() == 1);
    has_nothing(&daemon);
}

#[test]
fn mirrors_are_asked_first_and_need_not_have_it() {
    requires!(root);
    let network = Namespace::new();
    let made = image("library/box", "latest", &[("a", b"mirrored".to_vec())]);
    let empty = Hostile::new(&network, super::hostile::Content::new(), |_| Fault::None);
    let mirror = Hostile::new(&network, made.content, |_| Fault::None);
    let urls: Vec<String> =
        [&empty, &mirror].iter().map(|server| format!("http://127.0.0.1:{}", server.port)).collect();
    let flags = ["--registry-mirror", &urls[0], "--registry-mirror", &urls[1]];
    let daemon = Daemon::within(&network, &flags, &[]);
    daemon.dewar(&["pull", "box"]).ok().stdout_has("latest: Pulling from library/box");
    assert_eq!(empty.count("HEAD /v2/library/box/manifests/latest"), 1);
    assert_eq!(mirror.count("GET /v2/library/box/manifests/latest"), 1);
    // What no mirror has is asked for at Docker's, which is not there.
    let failure = daemon.dewar(&["pull", "other"]).fails(1);
    failure.stderr_has("Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io");
}

/// A proxy that understands CONNECT and nothing else; tells whom it was asked for.
fn proxy(network: &Namespace) -> (u16, Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = network.within(|| std::net::TcpListener::bind("127.0.0.1:0")).expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let asked: Arc<std::sync::Mutex<Vec<String>>> = Arc::default();
    let (log, network) = (Arc::clone(&asked), network.clone());
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") && client.read_exact(&mut byte).is_ok() {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            log.lock().expect("no panic").push(head.clone());
            let target = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()).unwrap_or("");
            let target = target.to_owned();
            if !head.contains("Proxy-Authorization: Basic bWU6cHc=\r\n") {
                let _ = client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
                continue;
            }
            let Ok(server) = network.within(|| std::net::TcpStream::connect(&target)) else { continue };
            let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let (mut from, mut to) = (client.try_clone().expect("open"), server.try_clone().expect("open"));
            std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
            let (mut from, mut to) = (server, client);
            std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
        }
    });
    (port, asked)
}

#[test]
fn a_proxy_leads_there_unless_excepted() {
    requires!(root);
    let network = Namespace::new();
    outside(&network);
    let made = image("box", "1", &[("a", b"a".to_vec())]);
    let server = Hostile::at(&network, &format!("{ADDRESS}:0"), made.content, |_| Fault::None);
    let name = format!("{ADDRESS}:{}/box:1", server.port);
    let (port, asked) = proxy(&network);
    let insecure = ["--insecure-registry", "10.77.0.0/16"];
    let flags = |user: &str| {
        let url = format!("http://{user}127.0.0.1:{port}");
        let mut flags: Vec<String> = insecure.iter().map(|flag| (*flag).to_owned()).collect();
        flags.extend(["--http-proxy".to_owned(), url.clone(), "--https-proxy".to_owned(), url]);
        flags
    };
    let with = |user: &str, more: &[&str]| {
        let flags = flags(user);
        let flags: Vec<&str> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Daemon::within(&network, &flags, &[])
    };
    let daemon = with("me:pw@", &[]);
    daemon.dewar(&["pull", &name]).ok();
    let heads = asked.lock().expect("no panic").clone();
    assert!(
        heads.iter().all(|head| head.starts_with(&format!("CONNECT {ADDRESS}:{}", server.port))),
        "{heads:?}"
    );
    assert!(!heads.is_empty());
    drop(daemon);
    let daemon = with("", &[]);
    daemon.dewar(&["pull", &name]).fails(1).stderr_has("proxyconnect tcp: Proxy Authentication Required");
    drop(daemon);
    let before = asked.lock().expect("no panic").len();
    let daemon = with("", &["--no-proxy", "10.77.0.0/16"]);
    daemon.dewar(&["pull", &name]).ok();
    assert_eq!(asked.lock().expect("no panic").len(), before);
}

#[test]
fn a_search_asks_the_index() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    let server = Hostile::new(daemon.network(), super::hostile::Content::new(), |asked| {
        let results = r#"{"num_results":2,"query":"box","results":[
            {"name":"box","description":"A box","star_count":7,"is_official":true,"is_automated":false},
            {"name":"me/box","description":null,"star_count":1,"is_official":false,"is_automated":false}]}"#;
        match asked.line.as_str() {
            "GET /v1/search?q=my%20box&n=25" => Fault::Answer(200, String::new(), results.to_owned()),
            _ => Fault::None,
        }
    });
    let term = server.name("my box");
    let found = daemon.docker(&["search", &term]).ok();
    found.stdout_has("A box").stdout_has("[OK]").stdout_has("me/box");
    let some = daemon.docker(&["search", "--filter", "stars=3", &term]).ok();
    some.stdout_has("A box").stdout_lacks("me/box");
    daemon.api("GET", "/images/search?term=x&limit=101").refuses(400, "outside the range of [1, 100]");
    daemon
        .api("GET", "/images/search?term=x&filters=%7B%22no%22%3A%5B%22x%22%5D%7D")
        .refuses(400, "invalid filter");
}
