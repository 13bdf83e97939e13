//! `checkpoint check` says beforehand what CRIU refuses, and of what it says nothing CRIU freezes: each animal of zoo.c
//! has something that stands in the way.

use crate::support::daemon::BUSYBOX;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, eventually, source};

/// What most of them need.
const FREE: &[&str] = &["--cap-add", "ALL", "--security-opt", "seccomp=unconfined"];

/// A daemon, and the zoo, built static.
struct Zoo {
    daemon: Daemon,
    dir: TempDir,
}

impl Zoo {
    fn open() -> Zoo {
        let dir = TempDir::new();
        let program = dir.path().join("zoo");
        Cmd::new("musl-gcc")
            .args(["-static", "-O1", "-o"])
            .arg(&program)
            .arg(source().join("tests/checkpoint/zoo.c"))
            .ok();
        Zoo { daemon: Daemon::start(), dir }
    }

    /// Starts a container that is an animal; `false` where the kernel has none of its kind, which it says.
    #[track_caller]
    fn start(&self, flags: &[&str], words: &[&str]) -> bool {
        let program = format!("{}:/zoo:ro", self.dir.path().join("zoo").display());
        self.daemon.dewar(&["rm", "-f", "zoo"]).run();
        let run = self.daemon.dewar(&["run", "-d", "--name", "zoo", "-v", &program]);
        run.args(flags).args([BUSYBOX, "/zoo"]).args(words).ok();
        eventually("it being ready", || !self.daemon.logs("zoo").is_empty());
        let logs = self.daemon.logs("zoo");
        match logs.split_whitespace().next() {
            Some("ready") => true,
            Some("unsupported") => false,
            _ => panic!("{words:?}: {logs}"),
        }
    }

    /// What `checkpoint check` says of it, by its JSON, and its exit status.
    #[track_caller]
    fn check(&self) -> (serde_json::Value, i32) {
        let output = self.daemon.dewar(&["checkpoint", "check", "--format", "json", "zoo"]).run();
        let found = serde_json::from_str(&output.stdout).unwrap_or_else(|cause| panic!("{cause}: {output}"));
        (found, output.code)
    }

    /// Whether it can be frozen; fails the test unless that is what was said.
    #[track_caller]
    fn freezes(&self) -> bool {
        let output = self.daemon.dewar(&["checkpoint", "create", "--leave-running", "zoo", "cp1"]).run();
        assert_eq!(self.daemon.state("zoo")["Status"], "running", "{output}");
        output.code == 0
    }

    /// An animal that cannot be frozen, and how it is named: the kind of obstacle, and a part of what it is.
    #[track_caller]
    fn refuses(&self, flags: &[&str], words: &[&str], kind: &str, object: &str) {
        if !self.start(flags, words) {
            return;
        }
        let (found, code) = self.check();
        let obstacles = found["Obstacles"].as_array().expect("a list");
        let is_it = |it: &&serde_json::Value| {
            it["Kind"] == kind && it["Object"].as_str().is_some_and(|text| text.contains(object))
        };
        let it = obstacles.iter().find(is_it).unwrap_or_else(|| panic!("{words:?}: {found:#}"));
        assert_eq!((code, &found["CanFreeze"]), (1, &false.into()), "{words:?}: {found:#}");
        if kind != "mount" {
            assert!(it["PID"].is_number() && it["Command"] == "zoo", "{words:?}: {it:#}");
        }
        assert!(it["Reason"].as_str() > Some("") && it["Remedy"].as_str() > Some(""), "{words:?}: {it:#}");
        assert!(!self.freezes(), "{words:?} was frozen in spite of {it:#}");
    }
}

#[test]
fn descriptors_that_criu_does_not_save_are_named() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    zoo.refuses(FREE, &["io_uring"], "descriptor", "io_uring");
    zoo.refuses(FREE, &["perf"], "descriptor", "perf_event");
    zoo.refuses(FREE, &["userfaultfd"], "descriptor", "userfaultfd");
    zoo.refuses(FREE, &["landlock"], "descriptor", "landlock");
    zoo.refuses(FREE, &["fsopen"], "descriptor", "fscontext");
    zoo.refuses(FREE, &["notify"], "descriptor", "seccomp");
    zoo.refuses(FREE, &["secret"], "descriptor", "secretmem");
    zoo.refuses(&[], &["queue"], "descriptor", "/queue");
    zoo.refuses(&["--device", "/dev/fuse"], &["open", "/dev/fuse"], "descriptor", "/dev/fuse");
    zoo.refuses(&[], &["watch", "/sys/kernel"], "descriptor", "inotify");
    zoo.refuses(&[], &["ghost"], "descriptor", "/ghost");
    zoo.refuses(FREE, &["hidden"], "descriptor", "/hidden/file");
    zoo.refuses(FREE, &["unmounted"], "descriptor", "/file");
}

#[test]
fn sockets_that_criu_does_not_save_are_named() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    let outside = zoo.dir.path().join("outside");
    std::fs::create_dir(&outside).expect("a fresh directory");
    let stream = std::os::unix::net::UnixListener::bind(outside.join("stream")).expect("a fresh directory");
    let _datagram =
        std::os::unix::net::UnixDatagram::bind(outside.join("datagram")).expect("a fresh directory");
    // Whoever is not accepted has no peer yet.
    std::thread::spawn(move || stream.incoming().flatten().collect::<Vec<_>>());
    let mount = format!("{}:/outside", outside.display());
    zoo.refuses(&["-v", &mount], &["stream", "/outside/stream"], "socket", "socket:[");
    zoo.refuses(&["-v", &mount], &["datagram", "/outside/datagram"], "socket", "socket:[");
    zoo.refuses(&[], &["unread"], "socket", "socket:[");
    zoo.refuses(FREE, &["vsock"], "socket", "socket:[");
    zoo.refuses(FREE, &["xdp"], "socket", "socket:[");
    zoo.refuses(&["--sysctl", "net.mptcp.enabled=1"], &["mptcp"], "socket", "socket:[");
    zoo.refuses(FREE, &["sctp"], "socket", "socket:[");
}

#[test]
fn processes_and_mounts_that_criu_does_not_save_are_named() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    zoo.refuses(FREE, &["pidns"], "namespace", "pid namespace");
    zoo.refuses(FREE, &["userns"], "namespace", "user namespace");
    zoo.refuses(FREE, &["own-userns"], "namespace", "user namespace");
    zoo.refuses(FREE, &["own-mntns"], "descriptor", "fd 0");
    zoo.refuses(FREE, &["timens"], "namespace", "time namespace");
    zoo.refuses(&[], &["traced"], "process", "traced by zoo");
    zoo.refuses(&[], &["vm"], "process", "memory");
    zoo.refuses(FREE, &["ramfs"], "mount", "ramfs on /mnt");
    zoo.refuses(&[], &["closed-queue"], "mount", "/dev/mqueue");
}

/// Whether these can be frozen depends on the machine: on huge pages being there, and on the daemon's capabilities.
#[test]
fn what_depends_on_the_machine_is_foreseen() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    for (flags, words) in [
        (FREE, &["mntns"][..]),
        (&[], &["plain"]),
        (&[], &["user"]),
        (&["-u", "1000"], &["plain"]),
        (&[], &["huge"]),
    ] {
        if zoo.start(flags, words) {
            let (found, code) = zoo.check();
            assert_eq!(code == 0, found["CanFreeze"] == true, "{found:#}");
            assert_eq!(zoo.freezes(), code == 0, "{flags:?} {words:?}: {found:#}");
        }
    }
}

/// CRIU freezes them, and cannot thaw them.
#[test]
fn what_would_not_come_back_is_named_too() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    let flags: Vec<&str> = FREE.iter().copied().chain(["--device", "/dev/net/tun"]).collect();
    for (flags, words, object) in
        [(&flags[..], &["tun"][..], "/dev/net/tun"), (FREE, &["overlay"], "overlay on /mnt")]
    {
        if !zoo.start(flags, words) {
            continue;
        }
        let (found, code) = zoo.check();
        assert_eq!((code, &found["CanFreeze"]), (1, &false.into()), "{words:?}: {found:#}");
        assert!(found["Obstacles"][0]["Object"].as_str().is_some_and(|it| it.contains(object)), "{found:#}");
        zoo.daemon.dewar(&["checkpoint", "create", "--pre-check", "zoo", "cp1"]).fails(1).stderr_has(object);
        // Without being asked, too: it would be frozen for ever.
        let output = zoo.daemon.dewar(&["checkpoint", "create", "zoo", "cp1"]).fails(1);
        output.stderr_has(object).stderr_has("could be frozen and not thawed");
        assert_eq!(zoo.daemon.state("zoo")["Status"], "running");
    }
}

#[test]
fn a_file_that_has_lost_its_name_on_a_read_only_mount() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    let shared = zoo.dir.path().join("shared");
    std::fs::create_dir(&shared).expect("a fresh directory");
    std::fs::write(shared.join("one"), "text").expect("a fresh directory");
    std::fs::hard_link(shared.join("one"), shared.join("two")).expect("a fresh directory");
    let mount = format!("{}:/shared:ro", shared.display());
    assert!(zoo.start(&["-v", &mount], &["unlinked", "/shared/one"]));
    let (found, code) = zoo.check();
    assert_eq!(code, 0, "{found:#}");
    std::fs::remove_file(shared.join("one")).expect("it is there");
    let (found, _) = zoo.check();
    assert!(found["Obstacles"][0]["Reason"].as_str().is_some_and(|it| it.contains("read-only")), "{found:#}");
    assert!(!zoo.freezes());
}

/// What CRIU cannot freeze is not to be had without being asked for.
#[test]
fn io_uring_and_mptcp_are_not_to_be_had_by_default() {
    requires!(root, criu, musl);
    let zoo = Zoo::open();
    for animal in ["io_uring", "mptcp"] {
        let program = format!("{}:/zoo:ro", zoo.dir.path().join("zoo").display());
        let output = zoo.daemon.dewar(&["run", "--rm", "-v", &program, BUSYBOX, "/zoo", animal]).fails(1);
        output.stdout_has(&format!(" {animal}: "));
    }
}

#[test]
fn a_good_container_can_be_frozen_and_is() {
    requires!(root, criu);
    let daemon = super::counting(&[]);
    let output = daemon.dewar(&["checkpoint", "check", "web"]).ok();
    output.stdout_has("web can be frozen (");
    let before = super::numbers(&daemon).len();
    super::counts_past(&daemon, before);
    // A session beside it is not part of it, and is said.
    daemon.dewar(&["exec", "-d", "web", "sleep", "1000"]).ok();
    eventually("the session", || {
        daemon.dewar(&["checkpoint", "check", "web"]).ok().stdout.contains("note: processes of exec sessions")
    });
    let reply = daemon.api("GET", "/containers/web/checkpoint-check");
    assert_eq!((reply.status, &reply.json()["CanFreeze"]), (200, &true.into()));
    daemon.dewar(&["checkpoint", "check", "--format", "{{.CanFreeze}}", "web"]).ok().stdout_is("true\n");
    daemon.dewar(&["checkpoint", "create", "--pre-check", "web", "cp1"]).ok();
    let frozen = super::numbers(&daemon).len();
    daemon.dewar(&["checkpoint", "check", "web"]).fails(1).stderr_has("is not running");
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    daemon.dewar(&["checkpoint", "check", "web"]).ok().stdout_has("web can be frozen (");
    super::counts_past(&daemon, frozen);
    daemon.dewar(&["checkpoint", "check", "nobody"]).fails(1).stderr_has("No such container: nobody");
}

#[test]
fn what_stands_in_the_way_of_the_container_itself() {
    requires!(root, criu);
    let daemon = super::counting(&["--pid", "host"]);
    daemon
        .dewar(&["checkpoint", "check", "web"])
        .fails(1)
        .stdout_has("cannot be frozen")
        .stdout_has("--pid host");
    daemon.run_detached("other", &[], "exec sleep 1000");
    daemon.dewar(&["pause", "other"]).ok();
    daemon.dewar(&["checkpoint", "check", "other"]).fails(1).stdout_has("it is paused").stdout_has("unpause");
    daemon.dewar(&["unpause", "other"]).ok();
    daemon.dewar(&["checkpoint", "check", "other"]).ok();
}

/// What nsenter leaves behind belongs to a session outside, and has the host's files open.
#[test]
fn what_came_from_outside_is_named() {
    requires!(root, criu);
    let daemon = super::counting(&[]);
    let pid = daemon.state("web")["Pid"].to_string();
    let script = "/bin/sleep 1000 < /dev/null > /dev/null 2>&1 &";
    Cmd::new("nsenter").args(["-t", &pid, "-p", "-m", "/bin/sh", "-c", script]).ok();
    let output = daemon.dewar(&["checkpoint", "check", "web"]).fails(1);
    output.stdout_has("session").stdout_has("sleep").stdout_has("setsid");
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).fails(1);
    assert_eq!(daemon.state("web")["Status"], "running");
}
