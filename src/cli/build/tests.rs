//! Command lines, secrets, and what is packed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use super::context::prepare;
use super::{Request, Secret, request, secret, secrets_header};
use crate::cli::error::Error;
use crate::cli::parse::{Parsed, parse};
use crate::cli::progress::failure;
use crate::http::api::image::{ErrorDetail, JsonMessage};

fn request_of(line: &str) -> Result<Request, Error> {
    match parse(line.split_whitespace().map(Into::into))? {
        Parsed::Run { matches, .. } => request(&matches),
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_become_a_query() {
    let request = request_of(
        "build -t a -t b:1 -f D --build-arg A=1=2 --build-arg NOT_SET_HERE --label l=m --label n --no-cache --pull \
         --rm=false --force-rm --network none -m 1m --memory-swap -1 --cpu-quota 5 --shm-size 2k --ulimit nofile=1:2 \
         --add-host x:1.2.3.4 --cache-from a,b --cache-from c --target t -q --platform linux/amd64 --progress plain .",
    )
    .unwrap();
    let query = request.query;
    assert_eq!(query.tags, ["a", "b:1"]);
    assert_eq!(query.build_args["A"].as_deref(), Some("1=2"));
    assert_eq!(query.build_args["NOT_SET_HERE"], None);
    assert_eq!((query.labels["l"].as_str(), query.labels["n"].as_str()), ("m", ""));
    assert!(query.no_cache && query.pull && query.force_remove && query.quiet);
    assert_eq!(query.remove, Some(false));
    assert_eq!((query.network_mode.as_str(), query.target.as_str()), ("none", "t"));
    assert_eq!((query.memory, query.memory_swap, query.cpu_quota, query.shm_size), (1 << 20, -1, 5, 2048));
    assert_eq!((query.ulimits[0].soft, query.ulimits[0].hard), (1, 2));
    assert_eq!(query.extra_hosts, ["x:1.2.3.4"]);
    assert_eq!(query.cache_from, ["a", "b", "c"]);
    assert_eq!((request.context.as_str(), request.dockerfile.as_str()), (".", "D"));
    let plain = request_of("build .").unwrap().query;
    assert_eq!((plain.remove, plain.network_mode.as_str()), (None, ""));
    let error = |line: &str| request_of(line).unwrap_err().to_string();
    assert_eq!(
        error("build -t A ."),
        "invalid argument \"A\" for \"-t, --tag\" flag: invalid reference format: repository name (library/A) must be lowercase"
    );
    assert!(error("build --progress fast .").contains("expected auto, plain or tty"));
    assert!(error("build --secret src=x .").contains("id is required"));
}

#[test]
fn secrets_are_files_or_variables() {
    let of = |id: &str, file: Option<&str>, variable: Option<&str>| Secret {
        id: id.to_owned(),
        file: file.map(str::to_owned),
        variable: variable.map(str::to_owned),
    };
    for (text, expected) in [
        ("id=a,src=/f", of("a", Some("/f"), None)),
        ("type=file,id=a,source=f", of("a", Some("f"), None)),
        ("id=a,env=B", of("a", None, Some("B"))),
        ("id=a,type=env,src=B", of("a", None, Some("B"))),
        ("id=a,type=env", of("a", None, Some("a"))),
        ("id=not_a_variable", of("not_a_variable", Some("not_a_variable"), None)),
        ("id=PATH", of("PATH", None, Some("PATH"))),
    ] {
        assert_eq!(secret(text).unwrap(), expected, "{text}");
    }
    for text in ["", "src=x", "id=", "id=a,nope=b", "id=a,type=b"] {
        assert!(secret(text).is_err(), "{text}");
    }
    assert_eq!(secrets_header(&[]).unwrap(), None);
    let dir = Scratch::new("secrets");
    fs::write(dir.0.join("s"), b"top\xff").unwrap();
    let file = dir.0.join("s").to_string_lossy().into_owned();
    let header = secrets_header(&[of("a", Some(&file), None)]).unwrap().unwrap();
    use base64::Engine as _;
    let json = base64::engine::general_purpose::URL_SAFE.decode(header).unwrap();
    assert_eq!(json, br#"{"a":"dG9w/w=="}"#);
    fs::write(dir.0.join("s"), vec![0; 40 << 10]).unwrap();
    assert!(secrets_header(&[of("a", Some(&file), None)]).unwrap_err().to_string().contains("more than"));
    let missing = secrets_header(&[of("a", None, Some("NOT_SET_HERE"))]).unwrap_err().to_string();
    assert_eq!(missing, "secret a: environment variable NOT_SET_HERE is not set");
}

#[test]
fn a_failed_step_gives_its_exit_code() {
    let message = |code| JsonMessage {
        error_detail: Some(ErrorDetail { code, message: "no".to_owned() }),
        ..JsonMessage::default()
    };
    assert_eq!(failure(&message(7)).unwrap().code(), 7);
    assert_eq!(failure(&message(0)).unwrap().code(), 1);
    assert_eq!(failure(&message(300)).unwrap().code(), 1);
    assert_eq!(failure(&message(7)).unwrap().to_string(), "no");
    assert!(failure(&JsonMessage::stream("x")).is_none());
}

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("dewar-build-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Name, and a word about each entry, in order.
fn listed(body: impl Read) -> Vec<(String, String)> {
    let mut archive = tar::Archive::new(body);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap()), (0, 0));
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let what = match header.entry_type() {
            tar::EntryType::Regular => text,
            kind => format!("{kind:?} {}", entry.link_name().unwrap().unwrap_or_default().display()),
        };
        (name, what.trim_end().to_owned())
    });
    entries.collect()
}

fn names(body: impl Read) -> Vec<String> {
    listed(body).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_directory_is_packed_as_it_is() {
    let dir = Scratch::new("pack");
    dir.file("Dockerfile", "FROM x");
    dir.file("b/a", "A");
    dir.file("b.c", "");
    let long = format!("{}/{}", "d".repeat(120), "e".repeat(120));
    dir.file(&long, "long");
    symlink("../x//y/", dir.0.join("link")).unwrap();
    symlink("t".repeat(150), dir.0.join("longlink")).unwrap();
    fs::hard_link(dir.0.join("b/a"), dir.0.join("z")).unwrap();
    let _socket = UnixListener::bind(dir.0.join("socket")).unwrap();
    fs::set_permissions(dir.0.join("b.c"), fs::Permissions::from_mode(0o4751)).unwrap();
    let body = || prepare(dir.0.to_str().unwrap(), "", false).unwrap().body.unwrap();
    let pairs = listed(body());
    let expected = [
        ("Dockerfile", "FROM x"),
        ("b/", "Directory"),
        ("b/a", "A"),
        ("b.c", ""),
        (&format!("{}/", "d".repeat(120)), "Directory"),
        (&long, "long"),
        ("link", "Symlink ../x//y/"),
        ("longlink", &format!("Symlink {}", "t".repeat(150))),
        ("z", "Link b/a"),
    ];
    assert_eq!(pairs.iter().map(|(name, what)| (name.as_str(), what.as_str())).collect::<Vec<_>>(), expected);
    let mut archive = tar::Archive::new(body());
    let modes: BTreeMap<String, u32> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.path().unwrap().display().to_string(), entry.header().mode().unwrap())
        })
        .collect();
    assert_eq!(modes["b.c"], 0o4751);
    let mut packed = Vec::new();
    let mut body = prepare(dir.0.to_str().unwrap(), "", true).unwrap().body.unwrap();
    body.read_to_end(&mut packed).unwrap();
    assert_eq!(names(flate2::read::GzDecoder::new(packed.as_slice())).len(), expected.len());
}

#[test]
fn what_is_named_stays_behind() {
    let dir = Scratch::new("ignore");
    for name in ["Dockerfile", "a", "d/keep/x", "d/other", "e/f.o", "e/f.c", "sub/other.Dockerfile"] {
        dir.file(name, "");
    }
    let sent = |dockerfile: &str| {
        let dockerfile = match dockerfile {
            "" => String::new(),
            name => dir.0.join(name).to_string_lossy().into_owned(),
        };
        let prepared = prepare(dir.0.to_str().unwrap(), &dockerfile, false).unwrap();
        (prepared.dockerfile, names(prepared.body.unwrap()))
    };
    dir.file(".dockerignore", "**/*.o\nd\n!d/keep\nDockerfile\n.dockerignore\n");
    let expected = [
        ".dockerignore",
        "Dockerfile",
        "a",
        "d/keep/",
        "d/keep/x",
        "e/",
        "e/f.c",
        "sub/",
        "sub/other.Dockerfile",
    ];
    assert_eq!(sent(""), ("Dockerfile".to_owned(), expected.map(str::to_owned).to_vec()));
    dir.file("sub/other.Dockerfile.dockerignore", "*\n");
    let (name, names) = sent("sub/other.Dockerfile");
    assert_eq!(name, "sub/other.Dockerfile");
    assert_eq!(names, [".dockerignore", "sub/other.Dockerfile"]);
    dir.file(".dockerignore", "[\n");
    let error = prepare(dir.0.to_str().unwrap(), "", false).err().unwrap().to_string();
    assert_eq!(error, "error checking context: syntax error in pattern");
}

#[test]
fn a_dockerfile_from_outside_is_hidden_in_the_context() {
    let dir = Scratch::new("outside");
    let other = Scratch::new("outside-other");
    dir.file("a", "");
    other.file("D", "FROM y");
    let file = other.0.join("D").to_string_lossy().into_owned();
    let sent = || {
        let prepared = prepare(dir.0.to_str().unwrap(), &file, false).unwrap();
        (prepared.dockerfile, listed(prepared.body.unwrap()))
    };
    let (name, entries) = sent();
    assert!(name.starts_with(".dockerfile.") && name.len() == 32, "{name}");
    let ignore = format!(".dockerignore\n{name}");
    let expected = [("a", ""), (name.as_str(), "FROM y"), (".dockerignore", ignore.as_str())];
    assert_eq!(entries.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>(), expected);
    dir.file(".dockerignore", "x\n");
    let (name, entries) = sent();
    let ignore = format!("x\n\n{name}");
    let expected = [(".dockerignore", ignore.as_str()), ("a", ""), (name.as_str(), "FROM y")];
    assert_eq!(entries.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect::<Vec<_>>(), expected);
}

#[test]
fn what_is_no_context_is_refused() {
    let dir = Scratch::new("none");
    dir.file("f", "");
    let error =
        |context: &str, dockerfile: &str| prepare(context, dockerfile, false).err().unwrap().to_string();
    let here = dir.0.to_str().unwrap();
    assert_eq!(error("/does/not/exist", ""), "unable to prepare context: path \"/does/not/exist\" not found");
    assert_eq!(
        error(here, ""),
        format!(
            "unable to prepare context: unable to evaluate symlinks in Dockerfile path: \
             lstat {here}/Dockerfile: no such file or directory"
        )
    );
    assert_eq!(
        error(&format!("{here}/f"), ""),
        format!("unable to prepare context: context must be a directory: {here}/f")
    );
    assert!(error("https://host/a.git#main:sub", "").contains("is a git repository"));
    assert!(error("git@host:a", "").contains("is a git repository"));
    assert_eq!(error("-", "-"), "invalid argument: can't use stdin for both build context and dockerfile");
    let remote = prepare("http://host/a.tar", "d/D", false).unwrap();
    assert!(remote.body.is_none());
    assert_eq!((remote.remote.as_str(), remote.dockerfile.as_str()), ("http://host/a.tar", "d/D"));
}
