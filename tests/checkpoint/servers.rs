//! Servers of the real world over a freeze, a thaw and a move, with a client in the middle of something.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use super::lazy::page_daemons;
use super::migrate::{Cut, Way, containers, wired};
use super::programs::{address, address_of, freeze_and_thaw, start};
use crate::support::requires::{docker_registry_path, postgres_path, requires};
use crate::support::{Cmd, Daemon, Namespace, TempDir, eventually};

/// How long an answer may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A psql that stays connected.
struct Session {
    psql: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
}

impl Session {
    /// Connects from the network `from`.
    fn open(from: &Namespace, host: &str) -> Session {
        let prefix = postgres_path().expect("it is required");
        let libraries = ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"]
            .map(|dir| prefix.join(dir).display().to_string())
            .join(":");
        let mut psql = from.within(|| {
            std::process::Command::new(prefix.join("lib64/ld-linux-x86-64.so.2"))
                .args(["--library-path", &libraries])
                .arg(prefix.join("usr/lib/postgresql/15/bin/psql"))
                .args(["-X", "-A", "-t", "-q", "-h", host, "-U", "postgres"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("psql starts")
        });
        let (stdin, stdout) = (psql.stdin.take().expect("a pipe"), psql.stdout.take().expect("a pipe"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Session { psql, stdin, lines }
    }

    /// What the server answers, its lines joined by blanks.
    #[track_caller]
    fn ask(&mut self, sql: &str) -> String {
        writeln!(self.stdin, "{sql}\n\\echo answered").expect("psql is there");
        let mut answer = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) if line == "answered" => return answer.join(" "),
                Ok(line) => answer.push(line),
                Err(cause) => panic!("{sql}: {cause} after {answer:?}"),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}

/// Starts PostgreSQL as `web` with its data on a volume.
///
/// It will not run as root, and another user's processes cannot be dumped without CAP_SYS_RESOURCE, which a host may lack:
/// so it is told that it is another's.
fn start_postgres(daemon: &Daemon, flags: &[&str], dir: &TempDir) {
    let prefix = postgres_path().expect("it is required");
    let (source, library) = (dir.path().join("uid.c"), dir.path().join("uid.so"));
    std::fs::write(&source, "unsigned geteuid(void) { return 70; }\nunsigned getuid(void) { return 70; }\n")
        .expect("a fresh directory");
    Cmd::new("gcc").args(["-shared", "-nostdlib", "-fPIC", "-o"]).arg(&library).arg(&source).ok();
    let mut mounts = vec![format!("{}:/uid.so:ro", library.display())];
    mounts.extend(["usr", "lib", "lib64"].map(|name| format!("{}:/{name}:ro", prefix.join(name).display())));
    const SCRIPT: &str = "
        echo postgres:x:70:70::/:/bin/sh >> /etc/passwd
        mkdir -p /data/pg /tmp && chown 70 /data/pg && export LD_PRELOAD=/uid.so && cd /usr/lib/postgresql/15/bin
        [ -e /data/pg/PG_VERSION ] || ./initdb -D /data/pg -U postgres -A trust --locale=C -E UTF8 --no-sync || exit
        echo 'host all all all trust' >> /data/pg/pg_hba.conf
        exec ./postgres -D /data/pg -c listen_addresses='*' -c timezone=GMT -c log_timezone=GMT -c fsync=off \
            -c unix_socket_directories=/tmp 2>&1";
    let mounts = mounts.iter().flat_map(|mount| ["-v", mount]);
    daemon
        .dewar(&["run", "-d", "--name", "web", "-v", "data:/data"])
        .args(mounts)
        .args(flags)
        .args(["busybox", "sh", "-c", SCRIPT])
        .ok();
    crate::support::within(Duration::from_secs(60), "the server", || {
        assert_eq!(daemon.state("web")["Running"], true, "{}", daemon.logs("web"));
        daemon.logs("web").contains("is ready to accept connections")
    });
}

#[test]
fn postgresql_goes_on_in_the_middle_of_a_transaction() {
    requires!(root, criu, iproute, postgres);
    let (wire, dir) = (wired(), TempDir::new());
    start_postgres(&wire.here, &["--network", "wire", "--ip", "10.77.0.100"], &dir);
    let host = "10.77.0.100";
    let (mut one, mut two) = (Session::open(&wire.outside, host), Session::open(&wire.outside, host));
    assert_eq!(
        one.ask("CREATE TABLE t (n int); BEGIN; INSERT INTO t VALUES (1); SELECT count(*) FROM t;"),
        "1"
    );
    assert_eq!(
        two.ask("CREATE TEMP TABLE own (n int); INSERT INTO own VALUES (7); SELECT count(*) FROM t;"),
        "0"
    );
    freeze_and_thaw(&wire.here, "cp1");
    assert_eq!(one.ask("INSERT INTO t VALUES (2); SELECT count(*) FROM t;"), "2", "its transaction goes on");
    assert_eq!(two.ask("SELECT count(*) FROM t; SELECT n FROM own;"), "0 7", "nobody else sees it yet");
    // A move would leave it behind.
    wire.here.dewar(&["checkpoint", "rm", "web", "cp1"]).ok();
    wire.here.dewar(&["migrate", "web", &wire.there.host()]).ok();
    assert_eq!(two.ask("SELECT count(*) FROM t; SELECT n FROM own;"), "0 7");
    assert_eq!(one.ask("INSERT INTO t VALUES (3); COMMIT; SELECT count(*) FROM t;"), "3");
    assert_eq!(two.ask("SELECT count(*), sum(n) FROM t;"), "3|6");
    // What it has committed is on the volume, which has come along, and new clients are welcome.
    wire.there.dewar(&["restart", "-t", "1", "web"]).ok();
    eventually("it ready again", || {
        wire.there.logs("web").matches("is ready to accept connections").count() == 2
    });
    assert_eq!(Session::open(&wire.outside, host).ask("SELECT count(*), sum(n) FROM t;"), "3|6");
    // A copy of it while it runs is a server of its own, on a volume of its own.
    wire.there.dewar(&["clone", "--copy-volumes", "--name", "copy", "--ip", "10.77.0.101", "web"]).ok();
    let at = "10.77.0.101";
    let mut copy = Session::open(&wire.outside, at);
    assert_eq!(copy.ask("INSERT INTO t VALUES (4); SELECT count(*), sum(n) FROM t;"), "4|10");
    assert_eq!(Session::open(&wire.outside, host).ask("SELECT count(*), sum(n) FROM t;"), "3|6");
    wire.there.dewar(&["restart", "-t", "1", "copy"]).ok();
    eventually("the copy ready", || wire.there.logs("copy").contains("is ready to accept connections"));
    assert_eq!(Session::open(&wire.outside, at).ask("SELECT count(*), sum(n) FROM t;"), "4|10");
}

/// A backend is a fork of the server's first process: those that come for clients while memory is still to come, and those
/// that were there.
#[test]
fn postgresql_serves_new_clients_before_its_memory_is_there() {
    requires!(root, criu, iproute, postgres);
    let (wire, dir) = (wired(), TempDir::new());
    start_postgres(&wire.here, &["--network", "wire", "--ip", "10.77.0.100"], &dir);
    let host = "10.77.0.100";
    let mut old = Session::open(&wire.outside, host);
    assert_eq!(
        old.ask("CREATE TABLE t AS SELECT generate_series(1, 20000) AS n; BEGIN; INSERT INTO t VALUES (0); SELECT count(*) FROM t;"),
        "20001"
    );
    for (from, to) in [(&wire.here, &wire.there), (&wire.there, &wire.here)] {
        let way = Way::to(to);
        way.cuts(Cut::HoldAfter("{\"done\""));
        let mut client = from.dewar(&["migrate", "-q", "--lazy", "web", &way.host()]).spawn();
        // Its data goes first.
        crate::support::within(Duration::from_secs(60), "it running there", || {
            containers(to).iter().any(|(_, state)| state == "running")
        });
        assert!(!page_daemons(to).is_empty());
        // They are on their way when the memory comes.
        let mut new: Vec<Session> = (0..4).map(|_| Session::open(&wire.outside, host)).collect();
        std::thread::sleep(Duration::from_millis(300));
        way.cuts(Cut::Never);
        let sum = "SELECT count(*), sum(n) FROM t;";
        for session in &mut new {
            assert_eq!(session.ask(sum), "20000|200010000", "{}", to.logs("web"));
        }
        assert_eq!(client.wait(), 0, "{}", to.log());
        assert_eq!(old.ask("SELECT count(*) FROM t;"), "20001", "its transaction goes on");
        assert_eq!(Session::open(&wire.outside, host).ask(sum), "20000|200010000");
        assert_eq!(containers(from), []);
        eventually("the end of the page daemon", || page_daemons(to).is_empty());
    }
    assert_eq!(old.ask("COMMIT; SELECT count(*) FROM t;"), "20001");
    assert!(!wire.here.logs("web").contains("terminated by signal"), "{}", wire.here.logs("web"));
}

/// One connection to an HTTP server, kept.
struct Http(BufReader<TcpStream>);

impl Http {
    fn open(daemon: &Daemon, to: &str) -> Http {
        let stream = daemon.network().within(|| TcpStream::connect(to)).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Http(BufReader::new(stream))
    }

    /// The status, and the header `Location` if there is one.
    #[track_caller]
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> (String, String) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: registry\r\nContent-Length: {}\r\n\
             Content-Type: application/octet-stream\r\n\r\n",
            body.len()
        );
        let out = self.0.get_mut();
        out.write_all(head.as_bytes()).and_then(|()| out.write_all(body)).expect("the connection is there");
        let mut lines = (&mut self.0).lines().map(|line| line.expect("an answer in time"));
        let status = lines.next().expect("a status line").split(' ').nth(1).expect("a status").to_owned();
        let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let header = |name: &str| {
            let found = headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_default().to_owned()
        };
        let length = header("Content-Length").parse().unwrap_or(0);
        self.0.by_ref().take(length).read_to_end(&mut Vec::new()).expect("the whole answer");
        let location = header("Location");
        (status, location.split_once("/v2/").map_or(location.clone(), |(_, path)| format!("/v2/{path}")))
    }
}

/// Debian's registry is a Go program: many threads, a heap of its own, a key that is nowhere but in memory.
#[test]
fn a_go_server_goes_on_in_the_middle_of_an_upload() {
    requires!(root, criu, docker_registry);
    let daemon = Daemon::start();
    let dir = TempDir::new();
    std::fs::write(
        dir.path().join("config.yml"),
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: /registry\nhttp:\n  addr: :5000\n",
    )
    .expect("a fresh directory");
    std::fs::copy(docker_registry_path().expect("it is required"), dir.path().join("registry"))
        .expect("it can be copied");
    let mount = format!("{}:/own:ro", dir.path().display());
    start(&daemon, &["-v", &mount], &["/own/registry", "serve", "/own/config.yml"]);
    let to = format!("{}:5000", address(&daemon));
    eventually("the server", || daemon.network().within(|| TcpStream::connect(&to)).is_ok());
    let mut http = Http::open(&daemon, &to);
    let (status, mut location) = http.ask("POST", "/v2/a/blobs/uploads/", b"");
    assert_eq!(status, "202");
    let parts: [&[u8]; 3] = [&[b'a'; 50_000], &[b'b'; 50_000], &[b'c'; 50_000]];
    for (round, part) in parts.into_iter().enumerate() {
        let (status, next) = http.ask("PATCH", &location, part);
        assert_eq!(status, "202", "part {round}");
        location = next;
        freeze_and_thaw(&daemon, &format!("cp{round}"));
    }
    // A copy of it is in the middle of the same upload, and has the same key; its client asks it at its own address.
    daemon.dewar(&["clone", "--name", "copy", "web"]).ok();
    let mut copy = Http::open(&daemon, &format!("{}:5000", address_of(&daemon, "copy")));
    std::fs::write(dir.path().join("blob"), parts.concat()).expect("a directory of ours");
    let sum = Cmd::new("sha256sum").arg(dir.path().join("blob")).ok().stdout;
    let digest = sum.split_whitespace().next().expect("a digest");
    let joint = if location.contains('?') { '&' } else { '?' };
    let (end, blob) =
        (format!("{location}{joint}digest=sha256:{digest}"), format!("/v2/a/blobs/sha256:{digest}"));
    assert_eq!(http.ask("PUT", &end, b"").0, "201", "it has all three parts, over one connection");
    assert_eq!(Http::open(&daemon, &to).ask("GET", &blob, b"").0, "200");
    assert_eq!(copy.ask("GET", &blob, b"").0, "404", "they have files of their own");
    assert_eq!(copy.ask("PUT", &end, b"").0, "201", "and the copy has all three parts, too");
    assert_eq!(copy.ask("GET", &blob, b"").0, "200");
}
