//! What `dewar build` sends and says, held against what `docker build` sends and says: both are typed at a fixture
//! that takes down the request and answers what the test chose.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::fixture::{Entry, Fixture, Sent};
use crate::support::requires::requires;
use crate::support::{Output, TempDir};

const BUILT: &str = r#"{"stream":"Step 1/1 : FROM scratch\n"}
{"aux":{"ID":"sha256:4dd3ff3ee42a4ef2d2ad4ff4dd8a7a65a9d5c3f0e4e0b8f1d1d7ae0ac6a6f9c1"}}
{"stream":"Successfully built 4dd3ff3ee42a\n"}"#;

/// Both clients' requests and answers for one line, `@` standing for the directory.
#[track_caller]
fn both(fixture: &Fixture, line: &str, dir: &Path, stdin: &[u8]) -> [(Output, Sent); 2] {
    let words: Vec<String> =
        line.split_whitespace().map(|word| word.replace('@', &dir.display().to_string())).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    [fixture.docker(&words), fixture.dewar(&words)].map(|command| {
        let output = command.env("FROM_HERE", "here").stdin(stdin).run();
        (output, fixture.sent())
    })
}

fn write(dir: &Path, name: &str, text: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("below the directory")).expect("a fresh directory");
    fs::write(path, text).expect("a fresh directory");
}

/// What was asked, but for the builder that docker means: there is one. Random names are made alike.
fn query(sent: &Sent) -> Vec<(String, serde_json::Value)> {
    let pairs = sent.query.iter().filter(|(name, _)| name != "version");
    let pairs = pairs.map(|(name, value)| match value.starts_with(".dockerfile.") {
        true => (name.clone(), ".dockerfile.RANDOM".into()),
        // Members of objects have no order.
        false => (name.clone(), serde_json::from_str(value).unwrap_or_else(|_| value.clone().into())),
    });
    pairs.collect()
}

/// Random names made alike, so that two requests can be compared.
fn alike(entries: Vec<Entry>) -> Vec<Entry> {
    let is_random = |name: &str| name.strip_prefix(".dockerfile.").is_some_and(|rest| rest.len() == 20);
    let random = entries.iter().map(|entry| entry.name.clone()).find(|name| is_random(name));
    let mut entries: Vec<Entry> = entries
        .into_iter()
        .map(|mut entry| {
            if let Some(random) = &random {
                entry.name = entry.name.replace(random, ".dockerfile.RANDOM");
                let text = String::from_utf8_lossy(&entry.content).replace(random, ".dockerfile.RANDOM");
                entry.content = text.into_bytes();
                if entry.kind == '0' && (entry.name == ".dockerignore" || entry.name.ends_with("RANDOM")) {
                    // Made on the way, at different times.
                    entry.modified = 0;
                }
            }
            entry
        })
        .collect();
    if random.is_some() {
        // Docker adds what it made in any order.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
    }
    entries
}

#[test]
fn the_same_context_is_sent() {
    requires!(docker);
    let fixture = Fixture::start();
    fixture.answers(BUILT);
    let dir = TempDir::new();
    let root = dir.path().join("ctx");
    for name in [
        "Dockerfile",
        "a",
        "a.o",
        "b/a.o",
        "b/c",
        "b/d/e.txt",
        "b/d/f",
        "docs/README.md",
        "docs/x/README.md",
        "docs/y.md",
        "node_modules/m/index.js",
        "src/.hidden",
        "src/main.c",
        "src/node_modules/z",
        "tmp/1",
        "z[1]",
        "sp ace",
        "!bang",
        "#hash",
        "deep/er/and/deeper/file",
        "other/Dockerfile.dev",
    ] {
        write(&root, name, name);
    }
    symlink("../outside//x", root.join("b/link")).expect("a link");
    symlink("nowhere", root.join("dangling")).expect("a link");
    symlink("src", root.join("dirlink")).expect("a link");
    fs::hard_link(root.join("a"), root.join("zz-hard")).expect("a hard link");
    fs::create_dir(root.join("empty")).expect("a directory");
    let long = format!("{}/{}", "l".repeat(90), "n".repeat(200));
    write(&root, &long, "long");
    symlink("t".repeat(180), root.join("longlink")).expect("a link");
    fs::set_permissions(root.join("a.o"), fs::Permissions::from_mode(0o4755)).expect("a mode");
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("a mode");
    fs::set_permissions(root.join("b/c"), fs::Permissions::from_mode(0o000)).expect("a mode");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o640),
        0,
    )
    .expect("a fifo");
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).expect("a socket");
    for ignored in [
        "",
        "*.o\n",
        "**/*.o\n",
        "*\n!src\n",
        "*\n!src/main.c\n",
        "b\n!b/d/f\n",
        "b\n!b/d\nb/d/f\n",
        "docs/*.md\n!docs/README.md\n",
        "docs/**/*.md\n!docs/README.md\n",
        "**/node_modules\n",
        "/a\n/b/d/\n",
        "# comment\n#hash\n  tmp  \r\n\n",
        "\\#hash\n\\!bang\n",
        "!bang\n*\n",
        "z\\[1\\]\n",
        "?\n",
        "[a-c]\n",
        "[^a-d]*\n",
        "sp ace\n",
        "**\n!deep/er\n",
        "*/*\n",
        "*/*\n!*/d\n",
        "deep/**/file\n",
        "./a\nb/../src\n",
        "..\n../x\n.\n/\n",
        "Dockerfile\n.dockerignore\n",
        "*\n",
        "**\n",
        "*\n!**/*.md\n",
        "b/\n!b/d/e.txt\nb/d/*.txt\n",
        "\u{feff}a\n",
        "dirlink\ndangling\nzz*\n",
        "a\n",
    ] {
        match ignored {
            "" => drop(fs::remove_file(root.join(".dockerignore"))),
            text => write(&root, ".dockerignore", text),
        }
        for line in ["build @/ctx", "build -f @/ctx/other/Dockerfile.dev @/ctx"] {
            let [(_, docker), (_, dewar)] = both(&fixture, line, dir.path(), b"");
            assert_eq!(query(&dewar), query(&docker), "{ignored:?} {line}");
            assert_eq!(dewar.entries(), docker.entries(), "{ignored:?} {line}");
        }
    }
}

#[test]
fn the_same_dockerfile_is_meant() {
    requires!(docker);
    let fixture = Fixture::start();
    fixture.answers(BUILT);
    let dir = TempDir::new();
    for name in ["ctx/Dockerfile", "ctx/sub/D", "ctx/x", "small/dockerfile", "outside", "ignoring/Dockerfile"]
    {
        write(dir.path(), name, "FROM scratch\n");
    }
    write(dir.path(), "ignoring/.dockerignore", "*\n");
    write(dir.path(), "ignoring/a", "");
    symlink("ctx", dir.path().join("link")).expect("a link");
    symlink("sub/D", dir.path().join("ctx/L")).expect("a link");
    for (line, stdin) in [
        ("build @/ctx", ""),
        ("build @/ctx/", ""),
        ("build @/link", ""),
        ("build @/small", ""),
        ("build -f @/ctx/sub/D @/ctx", ""),
        ("build -f @/link/sub/D @/ctx", ""),
        ("build -f @/ctx/L @/ctx", ""),
        ("build -f @/outside @/ctx", ""),
        ("build -f @/outside @/ignoring", ""),
        ("build -f - @/ctx", "FROM scratch\nLABEL a=b\n"),
        ("build -f - @/ignoring", "FROM scratch\nLABEL a=b\n"),
        ("build --compress @/ctx", ""),
    ] {
        let [(_, docker), (_, dewar)] = both(&fixture, line, dir.path(), stdin.as_bytes());
        assert_eq!(query(&dewar), query(&docker), "{line}");
        assert_eq!(alike(dewar.entries()), alike(docker.entries()), "{line}");
        assert_eq!(dewar.body.starts_with(&[0x1f, 0x8b]), line.contains("--compress"), "{line}");
        assert_eq!(dewar.headers["content-type"], docker.headers["content-type"]);
    }
    // A Dockerfile on stdin is the only file; what it is called on the way there is the client's affair.
    let [(_, docker), (_, dewar)] = both(&fixture, "build -", dir.path(), b"FROM scratch\n");
    assert_eq!(query(&dewar), query(&docker));
    assert_eq!(dewar.names(), ["Dockerfile"]);
    assert_eq!(dewar.entries()[0].content, docker.entries()[0].content);
    // An archive goes through untouched.
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_path_with_name(dir.path().join("ctx/Dockerfile"), "D").expect("an archive in memory");
    let archive = archive.into_inner().expect("an archive in memory");
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &archive).expect("memory");
    for bytes in [archive.clone(), packed.finish().expect("memory")] {
        let [(_, docker), (_, dewar)] = both(&fixture, "build -f D -", dir.path(), &bytes);
        assert_eq!(query(&dewar), query(&docker));
        assert!(dewar.body == bytes && docker.body == bytes);
    }
}

#[test]
fn a_dockerfiles_own_ignore_file_comes_first() {
    let fixture = Fixture::start();
    fixture.answers(BUILT);
    let dir = TempDir::new();
    for name in ["Dockerfile", "a", "b", "D"] {
        write(dir.path(), name, "FROM scratch\n");
    }
    write(dir.path(), ".dockerignore", "a\n");
    write(dir.path(), "D.dockerignore", "b\n");
    let path = dir.path().display().to_string();
    fixture.dewar(&["build", &path]).ok();
    assert_eq!(fixture.sent().names(), [".dockerignore", "D", "D.dockerignore", "Dockerfile", "b"]);
    fixture.dewar(&["build", "-f", &format!("{path}/D"), &path]).ok();
    assert_eq!(fixture.sent().names(), [".dockerignore", "D", "D.dockerignore", "Dockerfile", "a"]);
}

#[test]
fn flags_mean_the_same() {
    requires!(docker);
    let fixture = Fixture::start();
    fixture.answers(BUILT);
    let dir = TempDir::new();
    write(dir.path(), "Dockerfile", "FROM scratch\n");
    for line in [
        "build @",
        "image build @",
        "builder build @",
        "build -t a -t b:1 -t localhost:5000/c/d:2 @",
        "build --build-arg A=1 --build-arg B=x=y --build-arg FROM_HERE --build-arg NOT_SET_HERE @",
        "build --label a=b --label c --label d=e=f @",
        "build --target t --no-cache --pull --rm=false --force-rm @",
        "build --network none @",
        "build --memory 64m --memory-swap -1 --cpu-shares 5 --cpu-period 10000 --cpu-quota 20000 @",
        "build -m 1g -c 7 --cpuset-cpus 0-1 --cpuset-mems 0 --shm-size 128m --cgroup-parent /x @",
        "build --ulimit nofile=10:20 @",
        "build --add-host a:1.2.3.4 --add-host b=::1 @",
        "build --cache-from a,b --cache-from c @",
        "build --platform linux/amd64 @",
        "build --security-opt seccomp=unconfined @",
        "build -q @",
    ] {
        let [(_, docker), (_, dewar)] = both(&fixture, line, dir.path(), b"");
        assert_eq!(query(&dewar), query(&docker), "{line}");
    }
}

#[test]
fn output_and_exit_codes_are_the_same() {
    requires!(docker);
    let fixture = Fixture::start();
    let dir = TempDir::new();
    write(dir.path(), "Dockerfile", "FROM scratch\n");
    let failing = r#"{"stream":"Step 1/1 : RUN false\n"}
{"stream":"out\n"}
{"errorDetail":{"code":3,"message":"The command '/bin/sh -c exit 3' returned a non-zero code: 3"},"error":"The command '/bin/sh -c exit 3' returned a non-zero code: 3"}"#;
    let refused = r#"{"errorDetail":{"message":"no such stage"},"error":"no such stage"}"#;
    let quiet = "{\"stream\":\"sha256:4dd3\\n\"}\n{\"aux\":{\"ID\":\"sha256:4dd3\"}}";
    for (line, answer) in [
        ("build @", BUILT),
        ("build @", failing),
        ("build @", refused),
        ("build -q @", quiet),
        ("build -q @", failing),
        ("build --iidfile @/id @", BUILT),
        ("build --iidfile @/id @", failing),
        ("build --iidfile @/id @", "{\"stream\":\"x\\n\"}"),
    ] {
        fixture.answers(answer);
        write(dir.path(), "id", "old");
        let [(docker, _), (dewar, _)] = both(&fixture, line, dir.path(), b"");
        // The archives differ in the length of their end.
        let sizes = |text: &str| {
            text.lines()
                .map(|line| line.split("daemon  ").next().unwrap_or_default().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(&dewar.stdout), sizes(&docker.stdout), "{line} {answer}");
        assert_eq!(dewar.code, docker.code, "{line} {answer}");
        let said: String = docker
            .stderr
            .split_inclusive('\n')
            .filter(|line| {
                let advice =
                    ["DEPRECATED", "buildx", "BuildKit", "environment-variable", "Sending build context"];
                !advice.iter().any(|word| line.contains(word)) && !line.trim().is_empty()
            })
            .collect();
        assert_eq!(dewar.stderr, said, "{line} {answer}");
        if answer == BUILT && line.contains("iidfile") {
            let id = fs::read_to_string(dir.path().join("id")).expect("written");
            assert!(id.starts_with("sha256:4dd3ff3e") && !id.ends_with('\n'), "{id}");
        } else if line.contains("iidfile") {
            assert!(!dir.path().join("id").exists(), "an old id is not left");
        }
    }
}

#[test]
fn secrets_go_in_a_header_and_nowhere_else() {
    use base64::Engine as _;
    let fixture = Fixture::start();
    fixture.answers(BUILT);
    let dir = TempDir::new();
    write(dir.path(), "ctx/Dockerfile", "FROM scratch\n");
    write(dir.path(), "s", "hush");
    let at = |name: &str| dir.path().join(name).display().to_string();
    let secret = format!("id=one,src={}", at("s"));
    let output = fixture
        .dewar(&["-D", "build", "--secret", &secret, "--secret", "id=two,env=TOKEN", &at("ctx")])
        .env("TOKEN", "tell nobody")
        .ok();
    let sent = fixture.sent();
    let header = &sent.headers["x-dewar-build-secrets"];
    let json = base64::engine::general_purpose::URL_SAFE.decode(header).expect("base64url");
    let secrets: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    assert_eq!(secrets, serde_json::json!({ "one": encode("hush"), "two": encode("tell nobody") }));
    let everything = format!("{:?} {} {}", sent.query, output.stdout, output.stderr);
    assert!(!everything.contains("hush") && !everything.contains(header.as_str()), "{everything}");
    assert_eq!(sent.names(), ["Dockerfile"]);
}

#[test]
fn a_context_that_cannot_be_packed_is_no_build() {
    let fixture = Fixture::start();
    fixture.answers(BUILT);
    let dir = TempDir::new();
    write(dir.path(), "Dockerfile", "FROM scratch\n");
    write(dir.path(), ".dockerignore", "a[\n");
    let path = dir.path().display().to_string();
    fixture.dewar(&["build", &path]).fails(1).stderr_has("error checking context: syntax error in pattern");
    for (args, words) in [
        (["build", "/does/not/exist"], "unable to prepare context: path \"/does/not/exist\" not found"),
        (["build", "https://example.invalid/x.git"], "is a git repository, which is not fetched"),
        (["build", "git@example.invalid:x"], "is a git repository, which is not fetched"),
    ] {
        fixture.dewar(&args).fails(1).stderr_has(words);
    }
}
