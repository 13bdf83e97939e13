//! What a checkpoint carries: files, shared memory, sockets, several processes.

use super::{counting, counts_past, kinds_of_run, numbers, with_run};
use crate::support::requires::requires;
use crate::support::{Daemon, TempDir, eventually};

#[test]
fn files_and_shared_memory_are_as_they_were_when_frozen() {
    requires!(root, criu);
    let daemon = counting(&[]);
    let exec = |script: &str| daemon.dewar(&["exec", "web", "sh", "-c", script]).ok().stdout;
    exec(
        "echo frozen > /file; echo frozen > /dev/shm/file; rm /bin/vi; echo changed > /etc/passwd; mkdir -p /d; touch /d/a",
    );
    daemon.dewar(&["checkpoint", "create", "--leave-running", "web", "cp1"]).ok();
    // What happens after the freeze is not part of it.
    exec("echo later > /file; echo later > /dev/shm/file; touch /after /d/b; rm /d/a");
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["kill", "web"]).ok();
    eventually("the exit", || daemon.state("web")["Running"] == false);
    let logs_before = daemon.logs("web");
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    assert_eq!(
        exec("cat /file /dev/shm/file; test -e /bin/vi || echo gone; cat /etc/passwd"),
        "frozen\nfrozen\ngone\nchanged\n"
    );
    assert_eq!(exec("test -e /after || echo none; ls /d"), "none\na\n");
    // The count goes on from the freeze, so numbers said after it are said again: that is the log's truth.
    eventually("it going on", || daemon.logs("web").len() > logs_before.len());
    assert!(frozen > 0);
}

#[test]
fn several_processes_and_their_pipes() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let script = "(i=0; while :; do i=$((i+1)); echo $i; sleep 0.02; done) | while read n; do echo $n; done";
    daemon.run_detached("web", &[], script);
    eventually("it counting", || numbers(&daemon).len() > 5);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    counts_past(&daemon, frozen);
}

#[test]
fn a_listening_socket_listens_again() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let serve = "mkdir /www; echo page > /www/index.html; exec httpd -f -p 127.0.0.1:80 -h /www";
    daemon.run_detached("web", &[], serve);
    let fetch = || daemon.dewar(&["exec", "web", "wget", "-q", "-O", "-", "http://127.0.0.1/"]).run().stdout;
    eventually("the server", || fetch() == "page\n");
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    eventually("the server again", || fetch() == "page\n");
}

#[test]
fn a_daemon_that_exec_left_behind_is_frozen_too() {
    requires!(root, criu);
    let daemon = counting(&[]);
    // Reparented to the container's first process. CRIU refuses the whole tree if its session is outside of it.
    let script =
        "(i=0; while :; do i=$((i+1)); echo $i > /side; sleep 0.02; done) < /dev/null > /dev/null 2>&1 &";
    daemon.dewar(&["exec", "web", "sh", "-c", script]).ok();
    let side = || {
        // The file is empty for a moment whenever it is written.
        let read = || daemon.dewar(&["exec", "web", "cat", "/side"]).run().trimmed().parse::<u32>().ok();
        (0..100).find_map(|_| read()).unwrap_or(0)
    };
    eventually("the other counter", || side() > 5);
    let before = side();
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    counts_past(&daemon, frozen);
    let thawed = side();
    assert!(thawed >= before, "it went on from {before}, not from {thawed}");
    eventually("the other counter going on", || side() > thawed);
}

#[test]
fn bind_mounts_and_read_only_roots() {
    requires!(root, criu);
    mounts_go_on(&Daemon::start());
}

/// CRIU is started before the mounts are made that it takes from us, but where /run is no tmpfs: there it has a copy of
/// the mount table, with a tmpfs for what it learnt of the kernel.
#[test]
fn whatever_run_is_on() {
    requires!(root, criu);
    let disk = TempDir::new();
    for mount in kinds_of_run(disk.path()) {
        let daemon = with_run(&mount, "");
        mounts_go_on(&daemon);
        daemon.dewar(&["rm", "-f", "web"]).ok();
    }
    assert_eq!(std::fs::read_dir(disk.path()).expect("still there").count(), 0, "nothing is left on /run");
}

/// Freezes and thaws a container that has mounts of every kind.
fn mounts_go_on(daemon: &Daemon) {
    let shared = daemon.dir().join("shared");
    std::fs::create_dir(&shared).expect("a fresh directory");
    let bind = format!("{}:/data", shared.display());
    let script = "i=0; exec 3> /data/out; while :; do i=$((i+1)); echo $i; echo $i >&3; sleep 0.02; done";
    daemon.run_detached("web", &["--read-only", "-v", &bind, "--tmpfs", "/scratch"], script);
    daemon.dewar(&["exec", "web", "sh", "-c", "echo kept > /scratch/file"]).ok();
    eventually("it counting", || numbers(daemon).len() > 5);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(daemon).len();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    counts_past(daemon, frozen);
    let out = std::fs::read_to_string(shared.join("out")).expect("written in the container");
    assert!(out.lines().count() > frozen, "it goes on writing to the same file");
    daemon.dewar(&["exec", "web", "cat", "/scratch/file"]).ok().stdout_is("kept\n");
}

/// CRIU does not follow a link to the source of a mount, as a start does.
#[test]
fn a_bind_mount_by_a_symbolic_link() {
    requires!(root, criu);
    let daemon = Daemon::start();
    std::fs::create_dir(daemon.dir().join("shared")).expect("a fresh directory");
    std::fs::write(daemon.dir().join("shared/file"), "text").expect("a fresh directory");
    std::os::unix::fs::symlink("shared", daemon.dir().join("link")).expect("a fresh directory");
    let bind = format!("{}:/data:ro", daemon.dir().join("link").display());
    daemon.run_detached("web", &["-v", &bind], super::COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    counts_past(&daemon, frozen);
    daemon.dewar(&["exec", "web", "cat", "/data/file"]).ok().stdout_is("text");
}

#[test]
fn several_at_once() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let names = ["c1", "c2", "c3", "c4"];
    for name in names {
        daemon.run_detached(name, &[], super::COUNTER);
    }
    std::thread::scope(|scope| {
        for name in names {
            let daemon = &daemon;
            scope.spawn(move || {
                eventually("it counting", || daemon.logs(name).lines().count() > 3);
                daemon.dewar(&["checkpoint", "create", name, "cp"]).ok();
                let frozen = daemon.logs(name).lines().count();
                daemon.dewar(&["start", "--checkpoint", "cp", name]).ok();
                eventually("it going on", || daemon.logs(name).lines().count() > frozen + 3);
            });
        }
    });
}

#[test]
fn named_volumes_are_there_again() {
    requires!(root, criu);
    let daemon = Daemon::start();
    let shared = daemon.dir().join("shared");
    std::fs::create_dir(&shared).expect("a fresh directory");
    daemon.run(&["-v", "sub:/v"], "mkdir /v/below; echo deep > /v/below/file").ok();
    let bind = format!("{}:/bind", shared.display());
    let sub = "type=volume,src=sub,dst=/sub,volume-subpath=below";
    let flags = ["-v", "data:/data", "-v", "/anon", "-v", &bind, "--mount", sub, "--tmpfs", "/scratch"];
    let script = "i=0; exec 3> /data/out 4> /anon/out; while :; do i=$((i+1)); echo $i; echo $i >&3; echo $i >&4; sleep 0.02; done";
    daemon.run_detached("web", &flags, script);
    daemon.dewar(&["exec", "web", "sh", "-c", "echo kept > /scratch/file; echo bound > /bind/file"]).ok();
    eventually("it counting", || numbers(&daemon).len() > 5);
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    let frozen = numbers(&daemon).len();
    // A volume's content is part of the checkpoint, unless it is to stay as it is.
    daemon.run(&["-v", "data:/data"], "echo later > /data/later").ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "--keep-volumes", "web"]).ok();
    counts_past(&daemon, frozen);
    let out = daemon.dir().join("data/volumes/data/_data/out");
    let lines = || std::fs::read_to_string(&out).expect("written in the container").lines().count();
    assert!(lines() > frozen, "it goes on writing to the same file");
    daemon
        .dewar(&["exec", "web", "cat", "/data/later", "/scratch/file", "/bind/file", "/sub/file"])
        .ok()
        .stdout_is("later\nkept\nbound\ndeep\n");
    daemon.dewar(&["volume", "rm", "data"]).fails(1).stderr_has("volume is in use");
    daemon.dewar(&["rm", "-fv", "web"]).ok();
    daemon.dewar(&["volume", "ls", "-q"]).ok().stdout_is("data\nsub\n");
}

/// What is mounted where in the container, and how: destination, the mount's own flags, kind of file system.
#[track_caller]
fn mounts(daemon: &Daemon) -> Vec<String> {
    let text = daemon.dewar(&["exec", "web", "cat", "/proc/self/mountinfo"]).ok().stdout;
    let mut mounts: Vec<String> = text
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let dash = words.iter().position(|word| *word == "-").expect("mountinfo has one");
            // The superblock's flag counts, too: it is as good as the mount's.
            let is_read_only = words[5].split(',').chain(words[dash + 3].split(',')).any(|flag| flag == "ro");
            let flags = words[5].split(',').filter(|flag| flag.starts_with("no") && *flag != "noatime");
            format!(
                "{} {} {} {}",
                words[4],
                words[dash + 1],
                if is_read_only { "ro" } else { "rw" },
                flags.collect::<Vec<_>>().join(",")
            )
        })
        .collect();
    mounts.sort();
    mounts
}

/// What was read-only, masks among it, is so after a thaw.
#[test]
fn mounts_have_their_flags_again() {
    requires!(root, criu);
    let daemon = Daemon::start();
    std::fs::create_dir(daemon.dir().join("shared")).expect("a fresh directory");
    let bind = format!("{}:/data:ro", daemon.dir().join("shared").display());
    let scratch = ["-v", &bind, "--tmpfs", "/scratch:ro,noexec", "--tmpfs", "/plain"];
    daemon.run_detached("web", &scratch, super::COUNTER);
    let before = mounts(&daemon);
    assert!(before.iter().any(|line| line.starts_with("/sys/firmware tmpfs ro")), "{before:#?}");
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    assert_eq!(mounts(&daemon), before);
    let refused = daemon.dewar(&["exec", "web", "touch", "/sys/firmware/x", "/data/x"]).run();
    assert_eq!(refused.stderr.matches("Read-only file system").count(), 2, "{refused}");
}

/// Its layers stay mounted for a while after a dump, where nobody sees it, and are there for whoever wants them.
#[test]
fn what_was_frozen_is_looked_into_and_started_anew_at_once() {
    requires!(root, criu);
    let daemon = counting(&[]);
    daemon.dewar(&["exec", "web", "sh", "-c", "echo kept > /file"]).ok();
    for round in ["cp1", "cp2"] {
        daemon.dewar(&["checkpoint", "create", "web", round]).ok();
        daemon.dewar(&["cp", "web:/file", "-"]).ok();
        daemon.dewar(&["start", "web"]).ok();
        daemon.dewar(&["exec", "web", "cat", "/file"]).ok().stdout_is("kept\n");
    }
}
