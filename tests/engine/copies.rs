//! Copies that take their time: what happens to the container meanwhile, and where copies may go.

use std::io::Read;

use crate::support::http::Connection;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

/// Begins to fetch `/big` of `name` and reads no further than the head of the answer.
fn begin(daemon: &Daemon, name: &str) -> Connection {
    let mut connection = Connection::open(&daemon.socket());
    connection.request("GET", &format!("/containers/{name}/archive?path=/big"), &[], None);
    assert_eq!(connection.head().expect("an answer").status, 200);
    connection
}

/// Puts 20 MB into the container, more than sockets hold.
const BIG: &str = "[ -e /big ] || head -c 20000000 /dev/zero > /big; echo made";

#[test]
fn a_slow_copy_hinders_nobody() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], &format!("{BIG}; exec sleep 1000"));
    eventually("the file", || daemon.logs("web").contains("made"));
    // While it runs, and again while it does not.
    let mut copies = vec![begin(&daemon, "web")];
    daemon.dewar(&["stop", "-t", "0", "web"]).ok();
    copies.push(begin(&daemon, "web"));
    copies.push(begin(&daemon, "web"));
    daemon.dewar(&["start", "web"]).ok();
    daemon.dewar(&["exec", "web", "sh", "-c", "echo later > /later"]).ok();
    copies.push(begin(&daemon, "web"));
    daemon.dewar(&["restart", "-t", "0", "web"]).ok();
    daemon.dewar(&["exec", "web", "cat", "/later"]).ok().stdout_is("later\n");
    daemon.dewar(&["pause", "web"]).ok();
    daemon.dewar(&["unpause", "web"]).ok();
    for copy in &mut copies {
        let size: usize = std::iter::from_fn(|| copy.chunk()).map(|chunk| chunk.len()).sum();
        assert!(size > 20_000_000, "a copy was cut off");
    }
    // What is copied when it is removed ends early, and is not taken for whole.
    let cut = begin(&daemon, "web");
    daemon.dewar(&["rm", "-f", "web"]).ok();
    let mut rest = Vec::new();
    drop((&mut cut.stream()).read_to_end(&mut rest));
    assert!(rest.len() < 20_000_000 && !rest.ends_with(b"0\r\n\r\n"), "{} bytes", rest.len());
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
}

#[test]
fn a_slow_upload_hinders_nobody() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "cat", "/in/file"]).ok();
    daemon.dewar(&["cp", "-", "web:/"]).stdin(tar(&daemon, "add('in', tarfile.DIRTYPE)")).ok();
    let archive = tar(&daemon, "add('file', data=b'x' * 100000); add('last', data=b'y')");
    let length = archive.len().to_string();
    let headers = [("Content-Length", length.as_str()), ("Content-Type", "application/x-tar")];
    let begin = || {
        let mut connection = Connection::open(&daemon.socket());
        connection.request("PUT", "/containers/web/archive?path=/in", &headers, None);
        connection.send(&archive[..60_000]);
        connection
    };
    let mut upload = begin();
    eventually("its beginning", || daemon.dewar(&["cp", "web:/in/file", "-"]).run().code == 0);
    daemon.dewar(&["start", "-a", "web"]).ok();
    upload.send(&archive[60_000..]);
    assert_eq!(upload.head().expect("an answer").status, 200);
    daemon.dewar(&["cp", "web:/in/last", "-"]).ok().stdout_has("y");
    // The rest comes when there is nothing left to put it into.
    let mut late = begin();
    daemon.dewar(&["rm", "web"]).ok();
    late.send(&archive[60_000..]);
    assert!(late.head().is_some_and(|head| head.status >= 400), "it was told that it went well");
    let left = Cmd::new("find").arg(daemon.dir().join("data/containers")).args(["-name", "last"]).ok();
    left.stdout_is("");
}

/// An archive made by Python; `body` calls `add(name, type, link, data)`.
fn tar(daemon: &Daemon, body: &str) -> Vec<u8> {
    let path = daemon.dir().join("made.tar");
    let script = format!(
        "import io, sys, tarfile\nout = tarfile.open(sys.argv[1], 'w')\n\
         def add(name, type=tarfile.REGTYPE, link='', data=b''):\n    entry = tarfile.TarInfo(name)\n    \
         entry.type = type; entry.linkname = link; entry.size = len(data); entry.mode = 0o755\n    \
         out.addfile(entry, io.BytesIO(data))\n{body}\nout.close()\n"
    );
    Cmd::new("python3").arg("-c").arg(script).arg(&path).ok();
    std::fs::read(path).expect("made above")
}

#[test]
fn copies_reach_what_is_mounted_and_respect_what_is_read_only() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let host = daemon.dir().join("host");
    std::fs::create_dir(&host).expect("a fresh directory");
    let file = daemon.dir().join("file");
    std::fs::write(&file, "content\n").expect("a fresh directory");
    let (bind, sealed) = (format!("{}:/data", host.display()), format!("{}:/sealed:ro", host.display()));
    let mounts = ["-v", &bind, "-v", &sealed, "--tmpfs", "/scratch"];
    let create = |name: &str, more: &[&str]| {
        let command = daemon.dewar(&["create", "--name", name, "--network", "none"]).args(mounts).args(more);
        command.args(["busybox", "sleep", "1000"]).ok();
    };
    create("web", &[]);
    create("fixed", &["--read-only"]);
    for running in [false, true] {
        for name in ["web", "fixed"] {
            if running {
                daemon.dewar(&["start", name]).ok();
            }
            let to = |place: &str| daemon.docker(&["cp"]).arg(&file).arg(format!("{name}:{place}"));
            to("/data/here").ok();
            assert_eq!(std::fs::read_to_string(host.join("here")).expect("on the host"), "content\n");
            daemon.docker(&["cp", &format!("{name}:/sealed/here"), "-"]).ok().stdout_has("content\n");
            std::fs::remove_file(host.join("here")).expect("copied above");
            to("/sealed/no").fails(1).stderr_has("mounted volume is marked read-only");
            if name == "fixed" {
                to("/tmp/no").fails(1).stderr_has("container rootfs is marked read-only");
            } else {
                to("/tmp/yes").ok();
            }
        }
    }
    daemon.docker(&["cp"]).arg(&file).arg("fixed:/scratch/yes").ok();
    daemon.dewar(&["exec", "fixed", "cat", "/scratch/yes"]).ok().stdout_is("content\n");
    daemon.has_told(&["container archive-path", "container extract-to-dir"]);
}

#[test]
fn both_clients_copy_alike() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let script = "mkdir -p /src/sub /dst /old; echo a > /src/a; ln -s a /src/l; ln -s /src /way; echo b > /old/f; exec sleep 1000";
    daemon.run_detached("web", &[], script);
    eventually("the files", || daemon.dewar(&["exec", "web", "test", "-f", "/old/f"]).run().code == 0);
    let host = |client: &str| {
        let dir = daemon.dir().join(client);
        std::fs::create_dir_all(dir.join("there")).expect("a fresh directory");
        std::fs::create_dir_all(dir.join("tree/sub")).expect("a fresh directory");
        std::fs::write(dir.join("tree/leaf"), "leaf\n").expect("a fresh directory");
        std::fs::write(dir.join("plain"), "plain\n").expect("a fresh directory");
        std::os::unix::fs::symlink("plain", dir.join("link")).expect("a fresh directory");
        dir
    };
    let (dewar, docker) = (host("by-dewar"), host("by-docker"));
    for words in [
        // Out: into a directory, under a new name, contents only, through links, what is not there.
        "web:/src HOST/there",
        "web:/src HOST/new",
        "web:/src/. HOST/contents",
        "web:/src/a HOST/a",
        "web:/way HOST/link-itself",
        "-L web:/way HOST/followed",
        "web:/way/. HOST/through",
        "web:/src/l HOST/",
        "-L web:/src/l HOST/followed-file",
        "web:/nope HOST/x",
        "web:/src/a HOST/no/where",
        "web:/src HOST/plain",
        "web:/src/a HOST/none/",
        "-a web:/src HOST/kept",
        // In, the same.
        "HOST/tree web:/dst/CLIENT",
        "HOST/tree web:/dst/CLIENT",
        "HOST/tree/. web:/dst/CLIENT",
        "HOST/plain web:/dst/CLIENT/p",
        "HOST/plain web:/way/CLIENT-p",
        "HOST/link web:/dst/CLIENT/l",
        "-L HOST/link web:/dst/CLIENT/fl",
        "HOST/tree web:/old/f",
        "HOST/plain web:/none/CLIENT",
        "HOST/plain web:/none/",
        "HOST/missing web:/dst",
        "HOST/tree/. web:/dst/CLIENT/fresh",
        "web:/a web:/b",
        "web: HOST/x",
        "HOST/plain web:",
        "HOST/plain/ web:/dst",
        "- web:/old/f",
        "web:/old/f/. HOST/x",
        "none:/a HOST/x",
        "HOST/plain HOST/x",
    ] {
        let run = |command: Cmd, dir: &std::path::Path, client: &str| {
            let words = words.replace("HOST", &dir.display().to_string()).replace("CLIENT", client);
            command.arg("cp").args(words.split(' ').collect::<Vec<_>>()).run()
        };
        let ours = run(daemon.dewar::<&str>(&[]), &dewar, "ours");
        let theirs = run(daemon.docker::<&str>(&[]), &docker, "them");
        assert_eq!(ours.code, theirs.code, "cp {words}\n{ours}\n{theirs}");
        assert_eq!(ours.stdout, theirs.stdout, "cp {words}");
        // The last line: docker's packer says of itself that it was interrupted.
        let said = |text: &str| text.lines().last().unwrap_or_default().replace("by-docker", "by-dewar");
        assert_eq!(said(&ours.stderr).trim_start_matches("dewar: "), said(&theirs.stderr), "cp {words}");
    }
    let listing = |dir: &std::path::Path| {
        Cmd::new("sh")
            .args(["-c", "cd \"$1\"; find . -printf '%p %y %m %l\\n' | sort", "sh"])
            .arg(dir)
            .ok()
            .stdout
    };
    assert_eq!(listing(&dewar), listing(&docker));
    let inside = |client: &str| {
        let script = format!(
            "cd /dst/{client}; find . | sort | while read f; do stat -c '%N %a' \"$f\"; done; ls /src/{client}-p"
        );
        daemon.dewar(&["exec", "web", "sh", "-c", &script]).ok().stdout.replace(client, "x")
    };
    assert_eq!(inside("ours"), inside("them"));
}

/// A stopped container's mounts are made for the copy; where they go is not for its image to say.
#[test]
fn a_mount_point_that_is_a_link_stays_in_the_container() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let (source, victim) = (daemon.dir().join("source"), daemon.dir().join("victim"));
    for dir in [&source, &victim] {
        std::fs::create_dir(dir).expect("a fresh directory");
    }
    daemon.dewar(&["create", "--name", "base", "--network", "none", "busybox", "true"]).ok();
    let up = "../".repeat(20);
    let link = format!(
        "add('data', tarfile.SYMTYPE, '{up}{}')",
        victim.display().to_string().trim_start_matches('/')
    );
    daemon.dewar(&["cp", "-", "base:/"]).stdin(tar(&daemon, &link)).ok();
    daemon.dewar(&["commit", "base", "linked"]).ok();
    let bind = format!("{}:/data", source.display());
    daemon.dewar(&["create", "--name", "web", "--network", "none", "-v", &bind, "linked", "true"]).ok();
    daemon.dewar(&["cp", "-", "web:/data"]).stdin(tar(&daemon, "add('planted', data=b'x')")).ok();
    assert!(source.join("planted").exists(), "it did not reach the mount");
    assert_eq!(std::fs::read_dir(&victim).expect("made above").count(), 0, "it reached the host");
    // Nothing of it is seen on the host, and nothing stays mounted.
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("a process of ours");
    assert!(!mounts.contains(&daemon.dir().display().to_string()), "{mounts}");
}

/// An image made while its container goes away is whole or not there.
#[test]
fn a_commit_and_a_removal_do_not_meet() {
    requires!(root);
    let daemon = Daemon::start();
    let layers = || std::fs::read_dir(daemon.dir().join("data/images/layers")).expect("the store").count();
    for delay in [0, 2, 5, 10, 20, 40] {
        let name = format!("web{delay}");
        let script = "for i in 1 2 3 4 5 6 7 8 9; do mkdir /d$i; for j in 1 2 3 4 5 6 7 8 9; do echo $j > /d$i/$j; done; done";
        daemon.dewar(&["run", "--name", &name, "--network", "none", "busybox", "sh", "-c", script]).ok();
        let before = layers();
        let mut connection = Connection::open(&daemon.socket());
        connection.request("POST", &format!("/commit?container={name}&repo={name}"), &[], None);
        std::thread::sleep(std::time::Duration::from_millis(delay));
        daemon.dewar(&["rm", "-f", &name]).ok();
        let reply = connection.reply("POST");
        if reply.status == 201 {
            let script = "cat /d9/9; ls / | grep -c '^d[0-9]'";
            daemon
                .dewar(&["run", "--rm", "--network", "none", &name, "sh", "-c", script])
                .ok()
                .stdout_is("9\n9\n");
        } else {
            assert!(matches!(reply.status, 404 | 409 | 500), "{}: {}", reply.status, reply.text());
            daemon.api("GET", &format!("/images/{name}/json")).is(404);
            eventually("its layer to be gone", || layers() == before);
        }
    }
}
