//! Archives of the real podman: they come here and go on, and ours go on there; and what its friends read of ours.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::archive::{Member, members, on_disk, packed};
use super::{counts_on, exec, numbers_of};
use crate::support::requires::{podman_path, requires};
use crate::support::{Cmd, Daemon, Output, TempDir, eventually, source};

/// The counter, in podman's container: what it says is nowhere but in memory.
const COUNT: &str = r"i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done";
/// As the tests' image is called at podman's, which has no short names.
const IMAGE: &str = "localhost/counter:1";

/// Runs a script among podman's programs; `dir` is /mnt there.
#[track_caller]
fn among_podmans(dir: &Path, script: &str) -> Output {
    with_cgroup(dir, script, "").ok()
}

/// The same, with containers in a cgroup that is removed in the end.
fn with_cgroup(dir: &Path, script: &str, group: &str) -> Cmd {
    let program = source().join("tests/checkpoint/podman.sh");
    let root = podman_path().expect("it is required");
    Cmd::new("sh").arg(program).arg(root).arg(dir).arg(script).arg(group)
}

/// A daemon with the image, and a directory with it for podman.
fn with_image() -> (Daemon, TempDir) {
    let daemon = Daemon::start();
    daemon.dewar(&["tag", "busybox", IMAGE]).ok();
    let dir = TempDir::new();
    daemon.dewar(&["save", "-o", &dir.path().join("image.tar").display().to_string(), IMAGE]).ok();
    (daemon, dir)
}

/// A script that starts container `web` of podman's and waits until it has said some numbers.
fn started(flags: &str, before: &str) -> String {
    format!(
        "$podman load -qi /mnt/image.tar\n\
         $run -d --name web {flags} {IMAGE} sh -c '{before}{COUNT}'\n\
         until [ \"$($podman logs --tail 1 web)\" -gt 5 ] 2>/dev/null; do sleep 0.1; done\n"
    )
}

fn path_of(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).display().to_string()
}

#[test]
fn podmans_archives_come_and_go_on() {
    requires!(root, criu, podman, curl);
    let (daemon, dir) = with_image();
    let flags =
        "-p 8080:80 -v data:/data --tmpfs /scratch -w /home -e A=b -l k=v --hostname there --memory 64m";
    let before = "echo named > /data/file; echo kept > /scratch/file; echo shared > /dev/shm/file; \
                  echo new > /root/file; echo deeper > /tmp/file; rm /bin/vi; exec 5>/scratch/open; \
                  mkdir /www; echo page > /www/index.html; httpd -p 80 -h /www; ";
    let script = format!(
        "{}{}{}",
        started(flags, before),
        "for how in none gzip; do\n\
           $podman container checkpoint -R --compress $how -e /mnt/$how.tar web >/dev/null\n\
         done\n",
        "$podman container checkpoint --compress zstd -e /mnt/zstd.tar web >/dev/null\n\
         $podman logs --tail 1 web\n",
    );
    let said = among_podmans(dir.path(), &script);
    let frozen: u32 = said.stdout.lines().last().and_then(|line| line.parse().ok()).expect("a number");

    let untrusted = daemon.dewar(&["checkpoint", "import", &path_of(&dir, "zstd.tar")]).fails(1);
    untrusted.stderr_has("dewar did not write it").stderr_has("--trust takes it all the same");
    daemon.dewar(&["ps", "-aq"]).ok().stdout_is("");
    daemon
        .dewar(&["checkpoint", "import", "--trust", &path_of(&dir, "zstd.tar")])
        .ok()
        .stdout_is("web podman\n");
    let made = daemon.api("GET", "/containers/web/json").is(200).json();
    assert_eq!((&made["State"]["Status"], &made["Config"]["Labels"]["k"]), (&json!("created"), &json!("v")));
    assert_eq!((&made["Config"]["Image"], &made["HostConfig"]["Memory"]), (&json!(IMAGE), &json!(64 << 20)));
    assert_eq!(made["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");

    daemon.dewar(&["start", "--checkpoint", "podman", "web"]).ok();
    counts_on(&daemon, "web");
    let first = numbers_of(&daemon, "web")[0];
    assert!(first > 5 && first <= frozen + 1, "it began with {first}, frozen by {frozen}");
    let look = "cat /data/file /scratch/file /dev/shm/file /root/file /tmp/file; test -e /bin/vi || echo gone; \
                hostname; pwd; echo $A; stat -c %a /tmp /root; readlink /proc/1/fd/5";
    // Directories that podman's archive says nothing of are the image's.
    let seen = "named\nkept\nshared\nnew\ndeeper\ngone\nthere\n/home\nb\n1777\n700\n/scratch/open\n";
    assert_eq!(exec(&daemon, "web", look), seen);
    // The server that listens in a bridge of podman's does here.
    let page = daemon.network().run("curl", &["-sf", "--max-time", "5", "http://127.0.0.1:8080/"]);
    assert_eq!(page, "page\n");
    // It is one of dewar's now.
    daemon.dewar(&["checkpoint", "create", "web", "again"]).ok();
    daemon.dewar(&["start", "--checkpoint", "again", "web"]).ok();
    counts_on(&daemon, "web");
    assert_eq!(exec(&daemon, "web", look), seen);
    daemon.dewar(&["restore", "--name", "copy", "web", "podman"]).ok();
    counts_on(&daemon, "copy");

    for how in ["gzip", "none"] {
        let file = path_of(&dir, &format!("{how}.tar"));
        daemon
            .dewar(&["checkpoint", "import", "--trust", "--name", how, &file])
            .ok()
            .stdout_is(&format!("{how} podman\n"));
    }
    daemon.dewar(&["stop", "-t", "0", "web", "copy"]).ok();
    daemon.dewar(&["start", "--checkpoint", "podman", "none"]).ok();
    counts_on(&daemon, "none");
    assert_eq!(exec(&daemon, "none", "cat /root/file; hostname"), "new\nthere\n");
    // And a container like any other.
    daemon.dewar(&["restart", "-t", "0", "none"]).ok();
    eventually("it beginning anew", || daemon.logs("none").lines().rev().take(20).any(|line| line == "1"));
}

/// A member's content, changed.
fn with(members: &[Member], name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut members = members.to_vec();
    let found = members.iter_mut().find(|(found, _, _)| found == name);
    change(&mut found.unwrap_or_else(|| panic!("no {name} in it")).2);
    packed(&members)
}

/// A document of the archive, changed.
fn with_document(members: &[Member], name: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    with(members, name, |text| {
        let mut document: Value = serde_json::from_slice(text).expect("JSON");
        change(&mut document);
        *text = document.to_string().into_bytes();
    })
}

#[test]
fn what_cannot_come_from_podman_is_refused_and_leaves_nothing() {
    requires!(root, criu, podman);
    let (daemon, dir) = with_image();
    let script = format!(
        "{}{}",
        started("--network none -v data:/data --tmpfs /scratch", "echo new > /file; "),
        "$podman container checkpoint --compress none -e /mnt/none.tar web >/dev/null\n",
    );
    among_podmans(dir.path(), &script);
    let whole = std::fs::read(dir.path().join("none.tar")).expect("podman wrote it");
    let members = members(&whole);
    let before = on_disk(&daemon);
    let refused = |archive: &[u8], reason: &str| {
        let import = daemon.dewar(&["checkpoint", "import", "--trust", "-"]).stdin(archive);
        import.fails(1).stderr_has(reason).no_panic();
        assert_eq!(on_disk(&daemon), before, "{reason}");
        daemon.dewar(&["volume", "ls", "-q"]).ok().stdout_is("");
    };
    let without = |name: &str| {
        packed(&members.iter().filter(|(found, _, _)| found != name).cloned().collect::<Vec<_>>())
    };
    let and = |name: &str, kind: u8, content: &[u8]| {
        packed(&[members.clone(), vec![(name.to_owned(), kind, content.to_vec())]].concat())
    };
    let layer = |path: &str, kind: u8| {
        with(&members, "rootfs-diff.tar", |tar| *tar = packed(&[(path.to_owned(), kind, b"x".to_vec())]))
    };
    refused(&whole[..whole.len() / 2], "the archive is damaged");
    refused(&without("spec.dump"), "it has no spec.dump");
    refused(&without("checkpoint/inventory.img"), "no archive of a checkpoint");
    let mounts = members.iter().find(|(name, _, _)| name.starts_with("checkpoint/mountpoints-"));
    refused(&without(&mounts.expect("it has mounts").0), "mountpoints-");
    refused(&and("checkpoint/pages-9.img", b'2', b""), "is no plain file");
    refused(&and("config.dump", b'0', b"{}"), "comes twice");
    refused(&and("volumes/other.tar", b'0', b""), "of which its container has no volume");
    refused(&and("deleted.files", b'0', br#"["/../../etc"]"#), "is no path in a root file system");
    refused(&layer("../../../evil", b'0'), "is no path in a root file system");
    refused(&layer("bin/.wh.sh", b'0'), "is no path in a root file system");
    // A link to another place, and a file through it.
    let through =
        packed(&[("out".to_owned(), b'2', Vec::new()), ("out/evil".to_owned(), b'0', b"x".to_vec())]);
    refused(&with(&members, "rootfs-diff.tar", |tar| *tar = through.clone()), "out/evil");
    let tmpfs = members.iter().find(|(name, _, _)| name.contains("tmpfs-dev-")).expect("of /scratch or /dev");
    refused(&with(&members, &tmpfs.0, |image| *image = b"\x1f\x8b damaged".to_vec()), "unpack");
    let config = |key: &'static str, value: Value| {
        with_document(&members, "config.dump", |config| config[key] = value)
    };
    refused(&config("pod", json!("0123456789abcdef")), "it is in pod 0123456789ab");
    refused(&config("ipcNsCtr", json!("donor")), "it shares the IPC namespace of container donor");
    let image = with_document(&members, "config.dump", |config| {
        config["rootfsImageName"] = json!("docker.io/library/none:1");
        config["rootfsImageID"] = json!("0".repeat(64));
    });
    refused(&image, "it was taken over image docker.io/library/none:1 (sha256:0000");
    refused(&image, "which is not here: --pull pulls it, or load it first");
    let spec = |change: &dyn Fn(&mut Value)| with_document(&members, "spec.dump", change);
    let users = spec(&|spec| {
        spec["linux"]["namespaces"].as_array_mut().expect("a list").push(json!({"type": "user"}));
    });
    refused(&users, "its processes are in a user namespace");
    let outside = spec(&|spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().expect("a list");
        let network = namespaces.iter_mut().find(|namespace| namespace["type"] == "network");
        network.expect("it has one")["path"] = json!("/run/netns/outside");
    });
    refused(&outside, "its network namespace is /run/netns/outside of the other host");
    refused(&spec(&|spec| spec["annotations"] = json!({"io.container.manager": "cri-o"})), "cri-o wrote it");
    // The images bring more than the configuration says: that is found before anything is thawed.
    let meek = spec(&|spec| spec["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN"]));
    daemon.dewar(&["checkpoint", "import", "--trust", "-"]).stdin(meek).ok();
    let thaw = daemon.dewar(&["start", "--checkpoint", "podman", "web"]).fails(1);
    thaw.stderr_has("has capabilities that the container is not given: CAP_DAC_OVERRIDE");
}

/// A whole circle: what was frozen here counts on at podman's, and what podman froze of that here.
#[test]
fn podman_goes_on_with_what_is_exported_for_it() {
    requires!(root, criu, podman, curl);
    let (daemon, dir) = with_image();
    let group = format!("/dewar-exported-{}", std::process::id());
    let flags = "-d --name web -p 127.0.0.1:8080:80 -v data:/data --tmpfs /scratch:size=1m --hostname there -l k=v \
                 --memory 64m --cgroup-parent";
    let before = "echo named > /data/file; echo kept > /scratch/file; echo shared > /dev/shm/file; \
                  echo new > /root/file; rm /bin/vi; rm -r /var; mkdir /var; echo deeper > /var/file; \
                  exec 5>/scratch/open; mkdir /www; echo page > /www/index.html; httpd -p 80 -h /www; ";
    daemon
        .dewar(&["run"])
        .args(flags.split_whitespace())
        .args([&group, IMAGE, "sh", "-c", &format!("{before}{COUNT}")])
        .ok();
    counts_on(&daemon, "web");
    daemon.dewar(&["checkpoint", "create", "--compress", "web", "cp1"]).ok();
    let frozen = *numbers_of(&daemon, "web").last().expect("it has counted");
    for how in ["none", "zstd"] {
        let file = path_of(&dir, &format!("{how}.tar"));
        daemon
            .dewar(&[
                "checkpoint",
                "export",
                "--format",
                "podman",
                "--compress",
                how,
                "-o",
                &file,
                "web",
                "cp1",
            ])
            .ok();
    }
    // One without a network has a loopback device all the same, and a server on it.
    let serves =
        format!("mkdir /tmp/www; echo own > /tmp/www/index.html; httpd -p 127.0.0.1:80 -h /tmp/www; {COUNT}");
    daemon
        .dewar(&["run", "-d", "--name", "alone", "--read-only", "--tmpfs", "/tmp", "--network", "none"])
        .args(["--cgroup-parent", &group, IMAGE, "sh", "-c", &serves])
        .ok();
    counts_on(&daemon, "alone");
    // It has been thawed here before, by which masks that were several became one.
    daemon.dewar(&["checkpoint", "create", "alone", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "alone"]).ok();
    counts_on(&daemon, "alone");
    daemon.dewar(&["checkpoint", "create", "alone", "cp2"]).ok();
    let file = path_of(&dir, "alone.tar");
    daemon.dewar(&["checkpoint", "export", "--format", "podman", "-o", &file, "alone", "cp2"]).ok();
    daemon.dewar(&["rm", "-f", "web", "alone"]).ok();
    daemon.dewar(&["volume", "rm", "data"]).ok();

    let look = "cat /data/file /scratch/file /dev/shm/file /root/file /var/file; test -e /bin/vi || echo gone; \
                ls /var; hostname; readlink /proc/1/fd/5; stat -c %a /tmp; : > /dev/null && echo writes";
    let expected = "named\nkept\nshared\nnew\ndeeper\ngone\nfile\nthere\n/scratch/open\n1777\nwrites\n";
    std::fs::write(dir.path().join("look"), look).expect("a fresh directory");
    let script = format!(
        "$podman load -qi /mnt/image.tar\n\
         checkpointctl inspect --all --format json /mnt/zstd.tar >/mnt/all.json\n\
         for how in none zstd; do\n\
           $podman container restore -i /mnt/$how.tar\n\
           until [ \"$($podman logs --tail 1 web)\" -gt {} ] 2>/dev/null; do sleep 0.1; done\n\
           $podman logs web >/mnt/$how.log\n\
           $podman exec web sh -c \"$(cat /mnt/look)\" >/mnt/$how.seen\n\
           busybox wget -qO- http://127.0.0.1:8080/ >/mnt/$how.page\n\
           for process in /proc/[0-9]*; do\n\
             read name <$process/comm 2>/dev/null && [ \"$name\" != conmon ] || continue\n\
             busybox grep -q :pids:{group}/ $process/cgroup 2>/dev/null && echo $name\n\
           done >/mnt/$how.members\n\
           $podman inspect -f '{{{{.HostConfig.Memory}}}} {{{{.Config.Labels.k}}}}' web >/mnt/$how.inspected\n\
           if [ $how = none ]; then $podman rm -ft 0 web >/dev/null; $podman volume rm data >/dev/null; fi\n\
         done\n\
         $podman container checkpoint --compress zstd -e /mnt/back.tar web >/dev/null\n\
         $podman container restore -i /mnt/alone.tar\n\
         $podman exec alone sh -c 'wget -qO- http://127.0.0.1/; grep -c : /proc/net/dev' >/mnt/alone.page\n",
        frozen + 10
    );
    with_cgroup(dir.path(), &script, &group).ok();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("podman's script wrote it");
    for how in ["none", "zstd"] {
        let first: u32 =
            read(&format!("{how}.log")).lines().next().and_then(|line| line.parse().ok()).expect("a number");
        assert!(first == frozen || first == frozen + 1, "it began with {first}, frozen by {frozen}");
        assert_eq!(read(&format!("{how}.seen")), expected, "{how}");
        assert_eq!(read(&format!("{how}.page")), "page\n", "{how}");
        assert_eq!(read(&format!("{how}.inspected")), "67108864 v\n", "{how}");
        // The shell, httpd, and for most of the time a sleep.
        let members = read(&format!("{how}.members"));
        assert!(
            members.lines().filter(|name| matches!(*name, "sh" | "httpd")).count() == 2,
            "{how}: {members}"
        );
    }
    assert_eq!(read("alone.page"), "own\n1\n", "nothing but the loopback device");
    let all: Value = serde_json::from_str(&read("all.json")).expect("JSON");
    assert_eq!((&all[0]["container_name"], &all[0]["runtime"]), (&json!("web"), &json!("crun")), "{all}");
    let mounts = all[0]["mounts"].as_array().expect("a list");
    assert!(mounts.iter().any(|mount| mount["destination"] == "/data"), "{all}");

    // Back it comes as one of podman's, and so does what was exported for it, without having been there.
    for (file, name) in [("back.tar", "back"), ("zstd.tar", "straight")] {
        daemon.dewar(&["checkpoint", "import", "--trust", "--name", name, &path_of(&dir, file)]).ok();
        daemon.dewar(&["start", "--checkpoint", "podman", name]).ok();
        counts_on(&daemon, name);
        assert_eq!(exec(&daemon, name, look), expected, "{name}");
        daemon.dewar(&["rm", "-f", name]).ok();
        daemon.dewar(&["volume", "rm", "data"]).ok();
    }
}

#[test]
fn what_podman_cannot_restore_is_not_exported_for_it() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let export = |name: &str, format: &str| {
        let words = ["checkpoint", "export", "--format", format, "-o", "-", name, "cp1"];
        daemon.dewar(&words)
    };
    daemon.run_detached("web", &["--init"], "sleep 1000; true");
    daemon.run_detached(
        "group",
        &[],
        "exec 5</sys/fs/cgroup/pids/pids.max || exec 5</sys/fs/cgroup/pids.max; sleep 1000; true",
    );
    for name in ["web", "group"] {
        daemon.dewar(&["checkpoint", "create", name, "cp1"]).ok();
    }
    export("web", "cri-o").fails(1).stderr_has("--format cri-o: there are dewar and podman");
    let init = export("web", "podman").fails(1);
    init.stderr_has("Cannot export checkpoint cp1 of container web").stderr_has("the init of --init");
    let group = export("group", "podman").fails(1);
    group.stderr_has("pids.max").stderr_has("a process has it open");
    let unknown = daemon.api("GET", "/containers/web/checkpoints/cp1/archive?format=cri-o").is(400);
    assert!(unknown.text().contains("there are dewar and podman"));
}

#[test]
fn checkpointctl_reads_what_is_exported() {
    requires!(root, criu, podman);
    let daemon = Daemon::start();
    // Not the counter: one of its processes may just have ended, and of that there is no memory, which it looks for.
    daemon.run_detached(
        "web",
        &["-v", "data:/data"],
        "echo new > /file; rm /bin/vi; echo made; sleep 1000; true",
    );
    eventually("it made", || daemon.logs("web").contains("made"));
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let dir = TempDir::new();
    for how in ["none", "gzip", "zstd"] {
        let file = path_of(&dir, &format!("{how}.tar"));
        daemon.dewar(&["checkpoint", "export", "--compress", how, "-o", &file, "web", "cp1"]).ok();
    }
    let script = "for how in none gzip zstd; do checkpointctl show /mnt/$how.tar; done\n\
                  checkpointctl inspect --all --format json /mnt/zstd.tar >/mnt/all.json\n\
                  for what in ps-tree files sockets mounts metadata stats; do\n\
                    checkpointctl inspect --$what /mnt/zstd.tar >/mnt/$what\n\
                  done\n\
                  checkpointctl memparse /mnt/zstd.tar\n";
    let said = among_podmans(dir.path(), script).stdout;
    assert_eq!(said.matches("busybox").count(), 3, "{said}");
    assert_eq!(said.matches("dewar").count(), 3, "the runtime: {said}");
    let processes = said.split("PROCESS NAME").nth(1).unwrap_or_default();
    assert!(processes.lines().any(|line| line.contains("sh ")), "{said}");
    for (what, has) in [
        ("ps-tree", "sleep"),
        ("files", "/dev/null"),
        ("mounts", "Destination: /proc"),
        ("mounts", "Destination: /data"),
        ("metadata", "org.criu.checkpoint.engine.name: dewar"),
        ("stats", "Frozen time"),
    ] {
        let shown = std::fs::read_to_string(dir.path().join(what)).expect("it was written");
        assert!(shown.contains(has), "{what}: {shown}");
    }
    let all: PathBuf = dir.path().join("all.json");
    let all: Value = serde_json::from_slice(&std::fs::read(all).expect("it was written")).expect("JSON");
    let all = if all.is_array() { all[0].clone() } else { all };
    assert_eq!((&all["container_name"], &all["image"]), (&json!("web"), &json!("busybox")), "{all}");
    assert!(all["process_tree"]["pid"] == 1, "{all}");
    assert!(all["statistics"]["pages_written"].as_u64().is_some_and(|pages| pages > 0), "{all}");
}
