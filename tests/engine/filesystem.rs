//! diff, export, commit: what became of a container's files, told by dewar, docker and docker-py.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, eventually};

/// Makes every kind of file a layer can have, and changes and deletes some of the image's.
const WORK: &str = "mkdir -p /made/deep; echo text > /made/file; ln /made/file /made/twin; ln -s file /made/link; \
    mknod /made/null c 1 3; mkfifo /made/pipe; chown 12:34 /made/file; chmod 4751 /made/file; \
    truncate -s 5000000 /made/sparse; rm /etc/group; rm -rf /var/spool; rm -rf /root; mkdir /root; touch /root/fresh; \
    echo changed >> /etc/passwd; echo done";

/// A stopped (or running) container named `web` in which that was done, on an image that has what it deletes.
fn worked(daemon: &Daemon, running: bool) {
    daemon
        .dewar(&["run", "--name", "base", "--network", "none", "busybox", "sh", "-c"])
        .arg("mkdir -p /var/spool/mail /root; touch /var/spool/mail/a /root/old /etc/group")
        .ok();
    daemon.dewar(&["commit", "base", "prepared"]).ok().stdout_has("sha256:");
    let script = if running { format!("{WORK}; exec sleep 1000") } else { WORK.to_owned() };
    daemon
        .dewar(&[
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            "none",
            "-v",
            "/tmp:/data",
            "prepared",
            "sh",
            "-c",
        ])
        .arg(script)
        .ok();
    eventually("the work", || daemon.logs("web").contains("done"));
    if !running {
        daemon.dewar(&["wait", "web"]).ok();
    }
}

const CHANGES: &str = "A /data\nC /etc\nD /etc/group\nC /etc/passwd\nA /made\nA /made/deep\nA /made/file\n\
    A /made/link\nA /made/null\nA /made/pipe\nA /made/sparse\nA /made/twin\nC /root\nA /root/fresh\nD /root/old\n\
    C /var\nD /var/spool\n";

#[test]
fn diff_tells_what_changed_while_it_runs_and_afterwards() {
    requires!(root, docker);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "idle", "--network", "none", "busybox", "true"]).ok();
    daemon.dewar(&["diff", "idle"]).ok().stdout_is("");
    daemon.docker(&["diff", "idle"]).ok().stdout_is("");
    worked(&daemon, true);
    daemon.dewar(&["diff", "web"]).ok().stdout_is(CHANGES);
    daemon.docker(&["diff", "web"]).ok().stdout_is(CHANGES);
    daemon.dewar(&["kill", "web"]).ok();
    daemon.docker(&["container", "diff", "web"]).ok().stdout_is(CHANGES);
    daemon.dewar(&["diff", "none"]).fails(1).stderr_has("No such container: none");
}

#[test]
fn export_is_the_whole_root_and_nothing_that_is_mounted() {
    requires!(root, docker);
    let daemon = Daemon::start();
    worked(&daemon, true);
    let (one, other) = (daemon.dir().join("one.tar"), daemon.dir().join("other.tar"));
    daemon.dewar(&["export", "-o"]).arg(&one).arg("web").ok().stdout_is("");
    daemon.dewar(&["kill", "web"]).ok();
    daemon.docker(&["export", "-o"]).arg(&other).arg("web").ok();
    for tar in [&one, &other] {
        let listed = Cmd::new("tar").args(["--numeric-owner", "-tvf"]).arg(tar).ok().stdout;
        let line = |name: &str| {
            let found = listed
                .lines()
                .find(|line| line.split(" -> ").next().is_some_and(|line| line.ends_with(name)));
            found.unwrap_or_else(|| panic!("no {name} in {listed}"))
        };
        assert!(line(" made/file").starts_with("-rwsr-x--x 12/34"), "{listed}");
        assert!(listed.contains(" made/twin link to made/file\n"), "{listed}");
        assert!(listed.contains(" made/link -> file\n"), "{listed}");
        assert!(line(" made/null").starts_with("crw") && line(" made/null").contains("1,3"), "{listed}");
        assert!(line(" made/pipe").starts_with("prw"), "{listed}");
        assert!(line(" made/sparse").contains(" 5000000 "), "{listed}");
        for absent in [" etc/group\n", " root/old\n", " var/spool/", " ./\n"] {
            assert!(!listed.contains(absent), "{absent} in {listed}");
        }
        // Mount points are there, and empty.
        for mounted in [" proc/", " data/", " sys/"] {
            assert_eq!(
                listed.lines().filter(|line| line.contains(mounted)).count(),
                1,
                "{mounted} in {listed}"
            );
        }
        Cmd::new("tar").args(["-xOf"]).arg(tar).arg("etc/hostname").ok().stdout_is("");
    }
    assert_eq!(
        std::fs::read(&one).expect("exported"),
        std::fs::read(&other).expect("exported"),
        "they differ"
    );
    daemon.dewar(&["import"]).arg(&one).arg("again").ok();
    let script = "stat -c '%u %g %a %h' /made/twin; cat /made/file";
    daemon
        .dewar(&["run", "--rm", "--network", "none", "again", "sh", "-c", script])
        .ok()
        .stdout_is("12 34 4751 2\ntext\n");
}

#[test]
fn attributes_survive_export_and_commit() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    daemon.dewar(&["create", "--name", "web", "--network", "none", "busybox", "true"]).ok();
    // Put there from outside, as busybox cannot set them.
    let script = r#"
import io, sys, tarfile
out = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT)
entry = tarfile.TarInfo('tool'); entry.size = 1; entry.mode = 0o755
entry.pax_headers = {'SCHILY.xattr.user.kind': 'odd value', 'SCHILY.xattr.security.capability': '\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00'}
out.addfile(entry, io.BytesIO(b'x')); out.close()
"#;
    let tar = daemon.dir().join("tool.tar");
    Cmd::new("sh").args(["-c", "python3 -c \"$1\" > \"$2\"", "sh", script]).arg(&tar).ok();
    daemon.dewar(&["cp", "-", "web:/"]).stdin(std::fs::read(&tar).expect("made above")).ok();
    let exported = daemon.dir().join("web.tar");
    daemon.dewar(&["export", "-o"]).arg(&exported).arg("web").ok();
    let read = "import sys, tarfile; h = tarfile.open(sys.argv[1]).getmember(sys.argv[2]).pax_headers; \
                print(h['SCHILY.xattr.user.kind'], len(h['SCHILY.xattr.security.capability']))";
    Cmd::new("python3").args(["-c", read]).arg(&exported).arg("tool").ok().stdout_is("odd value 20\n");
    daemon.dewar(&["commit", "web", "made"]).ok();
    daemon.dewar(&["create", "--name", "next", "--network", "none", "made", "true"]).ok();
    daemon.dewar(&["export", "-o"]).arg(&exported).arg("next").ok();
    Cmd::new("python3").args(["-c", read]).arg(&exported).arg("tool").ok().stdout_is("odd value 20\n");
}

#[test]
fn a_commit_is_an_image_like_any_other() {
    requires!(root, docker);
    let daemon = Daemon::start();
    worked(&daemon, true);
    let changes = [
        "-c",
        "ENV A=b",
        "--change",
        "CMD [\"sh\", \"-c\", \"echo $A; cat /made/twin\"]",
        "-c",
        "WORKDIR /made",
    ];
    let id = daemon
        .docker(&["commit", "-a", "Me <me@example.org>", "-m", "the work"])
        .args(changes)
        .args(["web", "made:v1"])
        .ok()
        .trimmed()
        .to_owned();
    // It ran on, and may be paused by its owner.
    assert_eq!(daemon.state("web")["Status"], "running");
    daemon.dewar(&["pause", "web"]).ok();
    daemon.dewar(&["commit", "web", "made:v2"]).ok();
    assert_eq!(daemon.state("web")["Status"], "paused");
    daemon.dewar(&["unpause", "web"]).ok();
    daemon.dewar(&["commit", "--pause=false", "web"]).ok();

    daemon.dewar(&["run", "--rm", "--network", "none", "made:v1"]).ok().stdout_is("b\ntext\n");
    let script = "ls /root /var/spool /etc/group; stat -c '%u %g %a %h %t' /made/file /made/null; pwd";
    let output = daemon.dewar(&["run", "--rm", "--network", "none", "made:v1", "sh", "-c", script]).ok();
    output.stdout_has("/root:\nfresh\n").stdout_has("12 34 4751 2 0\n0 0 644 1 1\n").stdout_has("/made\n");
    output.stderr_has("/var/spool: No such file").stderr_has("/etc/group: No such file");
    let image = daemon.api("GET", "/images/made:v1/json").is(200).json();
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(
        (image["Author"].as_str(), image["Comment"].as_str()),
        (Some("Me <me@example.org>"), Some("the work"))
    );
    assert_eq!(image["RootFS"]["Layers"].as_array().map(Vec::len), Some(3));
    let parent = daemon.api("GET", "/images/prepared/json").is(200).json()["Id"].clone();
    assert_eq!(image["Parent"], parent);
    daemon.docker(&["history", "made:v1"]).ok().stdout_has("the work");
    daemon.has_told(&["container commit", "imageRef=made:v1", "comment=the work"]);

    // Saved, removed and loaded, it is the same image.
    let tar = daemon.dir().join("made.tar");
    daemon.docker(&["save", "-o"]).arg(&tar).arg("made:v1").ok();
    let other = Daemon::empty();
    other.docker(&["load", "-i"]).arg(&tar).ok().stdout_has("Loaded image: made:v1");
    assert_eq!(other.api("GET", "/images/made:v1/json").is(200).json()["Id"], id.as_str());
    other.dewar(&["run", "--rm", "--network", "none", "made:v1"]).ok().stdout_is("b\ntext\n");
}

#[test]
fn a_commit_shows_what_the_container_saw_under_every_name() {
    requires!(root);
    let daemon = Daemon::start();
    let run = |name: &str, image: &str, script: &str| {
        daemon.dewar(&["run", "--name", name, "--network", "none", image, "sh", "-c", script]).ok()
    };
    run("one", "busybox", "mkdir /d; echo one > /a; ln /a /d/b");
    daemon.dewar(&["commit", "one", "linked"]).ok();
    run("two", "linked", "echo two >> /a; cat /d/b").stdout_is("one\ntwo\n");
    daemon.dewar(&["diff", "two"]).ok().stdout_is("C /a\nC /d\nC /d/b\n");
    daemon.dewar(&["commit", "two", "changed"]).ok();
    run("three", "changed", "cat /d/b; stat -c %h /a /d/b").stdout_is("one\ntwo\n2\n2\n");
}

#[test]
fn what_cannot_be_committed_leaves_nothing() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let layers = || std::fs::read_dir(daemon.dir().join("data/images/layers")).expect("the store").count();
    let before = layers();
    for (path, status, text) in [
        ("/commit?container=none", 404, "No such container: none"),
        ("/commit", 400, "no container name or ID supplied"),
        ("/commit?container=web&repo=UPPER", 400, "UPPER"),
        ("/commit?container=web&repo=a&tag=b%20c", 400, "invalid tag format"),
        ("/commit?container=web&changes=RUN%20x", 400, "RUN is not a valid change command"),
        ("/commit?container=web&changes=EXPOSE%20x", 400, "invalid port"),
    ] {
        let reply = daemon.api("POST", path);
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
        assert!(reply.text().contains(text), "{path}: {}", reply.text());
    }
    assert_eq!(daemon.state("web")["Status"], "running");
    assert_eq!((layers(), daemon.dewar(&["images", "-aq"]).ok().stdout.lines().count()), (before, 1));
    // Nothing written is no layer, but an image of its own.
    daemon.dewar(&["commit", "web", "same"]).ok();
    assert_eq!(layers(), before);
    daemon.dewar(&["run", "--rm", "--network", "none", "same", "true"]).ok();
}

#[test]
fn docker_py_reads_and_commits() {
    requires!(root, docker_py);
    let daemon = Daemon::start();
    let script = r#"
import io, tarfile
box = client.containers.create('busybox', ['sh', '-c', 'echo hi > /new; rm /etc/passwd'], network_mode='none')
assert not box.diff()
box.start(); box.wait()
assert box.diff() == [{'Path': '/etc', 'Kind': 0}, {'Path': '/etc/passwd', 'Kind': 2}, {'Path': '/new', 'Kind': 1}], box.diff()
tar = tarfile.open(fileobj=io.BytesIO(b''.join(box.export())))
assert tar.extractfile('new').read() == b'hi\n'
assert 'etc/passwd' not in tar.getnames() and tar.getmember('etc').isdir()
image = box.commit('made', tag='v1', message='m', author='a', changes='CMD ["cat", "/new"]')
assert image.tags == ['made:v1'], image.tags
assert client.containers.run('made:v1', network_mode='none', remove=True) == b'hi\n'
conf = {'Env': ['A=b'], 'Cmd': ['sh', '-c', 'echo $A']}
assert client.containers.run(box.commit(conf=conf).id, network_mode='none', remove=True) == b'b\n'
saved = b''.join(image.save(named=True))
client.images.remove('made:v1', force=True)
[loaded] = client.images.load(saved)
assert loaded.tags == ['made:v1'], loaded.tags
plain = io.BytesIO()
with tarfile.open(fileobj=plain, mode='w') as out:
    entry = tarfile.TarInfo('only'); entry.size = 1
    out.addfile(entry, io.BytesIO(b'x'))
answer = client.api.import_image_from_data(plain.getvalue(), repository='tiny')
assert 'sha256:' in answer, answer
assert client.images.get('tiny').tags == ['tiny:latest']
"#;
    daemon.python(script).ok();
}
