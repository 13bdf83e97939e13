//! Programs of the real world over a freeze and a thaw: they are the host's, with its /usr mounted into the container.

use std::path::Path;

use super::peers::Line;
use super::{counts_past, exec, numbers};
use crate::support::daemon::BUSYBOX;
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, eventually, source};

/// What dynamic programs need of the host. `/lib` is a link there, as a rule.
const HOST: &[&str] = &["/usr", "/lib", "/lib64"];

/// Starts `web` with the host's programs, `flags` and `words` for a command.
#[track_caller]
pub(super) fn start(daemon: &Daemon, flags: &[&str], words: &[&str]) {
    let host = HOST.iter().filter(|path| Path::new(path).exists()).map(|path| format!("{path}:{path}:ro"));
    let mounts: Vec<String> = host.flat_map(|it| ["-v".to_owned(), it]).collect();
    daemon.dewar(&["run", "-d", "--name", "web"]).args(mounts).args(flags).arg(BUSYBOX).args(words).ok();
}

#[track_caller]
pub(super) fn freeze_and_thaw(daemon: &Daemon, name: &str) {
    daemon.dewar(&["checkpoint", "check", "web"]).ok();
    daemon.dewar(&["checkpoint", "create", "web", name]).ok();
    daemon.dewar(&["start", "--checkpoint", name, "web"]).ok();
}

#[track_caller]
pub(super) fn address(daemon: &Daemon) -> String {
    address_of(daemon, "web")
}

#[track_caller]
pub(super) fn address_of(daemon: &Daemon, name: &str) -> String {
    let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    daemon.dewar(&["inspect", "-f", format, name]).ok().trimmed().to_owned()
}

/// Files, locks, memory, queues, watches, terminals: three generations, each frozen out of the one before.
#[test]
fn everything_a_program_can_have_comes_back_three_times() {
    requires!(root, criu, musl);
    let dir = TempDir::new();
    let program = dir.path().join("keeper");
    let text = source().join("tests/checkpoint/keeper.c");
    Cmd::new("musl-gcc").args(["-static", "-O1", "-o"]).arg(&program).arg(text).ok();
    let daemon = Daemon::start();
    let mount = format!("{}:/keeper:ro", program.display());
    daemon.run_detached("web", &["-v", &mount], "mkfifo /in; /keeper < /in & exec 8> /in; wait");
    let is_whole = |round: u32| {
        exec(&daemon, "web", "echo look > /in");
        eventually("it looking", || {
            let logs = daemon.logs("web");
            assert!(!logs.contains("lost"), "{logs}");
            logs.contains(&format!("whole {round}\n"))
        });
    };
    is_whole(1);
    for round in 2..=4 {
        freeze_and_thaw(&daemon, &format!("cp{round}"));
        is_whole(round);
    }
    // The oldest of them comes back as well as the newest did; what it has said since is of another life.
    daemon.dewar(&["kill", "web"]).ok();
    eventually("the exit", || daemon.state("web")["Running"] == false);
    daemon.dewar(&["start", "--checkpoint", "cp2", "web"]).ok();
    exec(&daemon, "web", "echo look > /in");
    eventually("it looking", || daemon.logs("web").matches("whole 2\n").count() == 2);
}

#[test]
fn a_python_server_keeps_its_clients() {
    requires!(root, criu, system_python);
    const SERVER: &str = "
import socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        count = 0
        while True:
            word = self.request.recv(512)
            if not word:
                return
            count += 1
            self.request.sendall(b'%d %s' % (count, word))
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
Server(('0.0.0.0', 7000), Handler).serve_forever()
";
    let daemon = Daemon::start();
    start(&daemon, &[], &["/usr/bin/python3", "-c", SERVER]);
    let to = format!("{}:7000", address(&daemon));
    let listens = "netstat -ltn | grep -q :7000";
    eventually("the server", || daemon.dewar(&["exec", "web", "sh", "-c", listens]).run().code == 0);
    let mut lines: Vec<Line> = daemon.network().within(|| (0..3).map(|_| Line::open(&to)).collect());
    for round in 1..=2 {
        freeze_and_thaw(&daemon, &format!("cp{round}"));
        for line in &mut lines {
            assert!((0..3).all(|_| line.says()), "a connection broke in round {round}");
        }
    }
    // And it takes new ones.
    daemon.network().within(|| drop(Line::open(&to)));
}

/// After a thaw the processes are in a time namespace: whoever enters by exec must see the same clock.
#[test]
fn exec_sees_the_clock_of_the_thawed() {
    requires!(root, criu);
    let daemon = super::counting(&[]);
    let clocks = || exec(&daemon, "web", "readlink /proc/1/ns/time; readlink /proc/self/ns/time");
    let before = clocks();
    daemon.dewar(&["checkpoint", "create", "web", "cp1"]).ok();
    daemon.dewar(&["start", "--checkpoint", "cp1", "web"]).ok();
    let after = clocks();
    assert_ne!(before, after, "a thaw makes a new one");
    let links: Vec<&str> = after.lines().collect();
    assert_eq!(links[0], links[1]);
}

/// Sessions are no part of a checkpoint: they go on beside it, or end with the container; and probes are sessions.
#[test]
fn sessions_and_probes_beside_a_checkpoint() {
    requires!(root, criu);
    let probe = ["--health-cmd", "test -e /bin/sh", "--health-interval", "100ms", "--health-retries", "1"];
    let daemon = super::counting(&probe);
    let health = || daemon.state("web")["Health"]["Status"].as_str().unwrap_or_default().to_owned();
    eventually("it being healthy", || health() == "healthy");
    daemon.dewar(&["exec", "-d", "web", "sleep", "1234"]).ok();
    let has_session = || daemon.dewar(&["top", "web"]).ok().stdout.contains("sleep 1234");
    eventually("the session", has_session);
    for round in 1..=3 {
        daemon.dewar(&["checkpoint", "create", "--leave-running", "web", &format!("cp{round}")]).ok();
        assert!(has_session(), "it goes on");
        assert_eq!(health(), "healthy", "one failed probe would be enough");
    }
    let frozen = numbers(&daemon).len();
    daemon.dewar(&["checkpoint", "create", "web", "last"]).ok();
    daemon.dewar(&["start", "--checkpoint", "last", "web"]).ok();
    counts_past(&daemon, frozen);
    assert!(!has_session(), "it ended with the container");
    eventually("it being healthy again", || health() == "healthy");
}
