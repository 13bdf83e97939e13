//! Hosts: several at once, whose they are, sockets that others hold or have passed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use crate::support::daemon::{BUSYBOX, Passed};
use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, TempDir, binary, busybox_tar};

/// `dewar daemon` on directories below `dir`, to be refused.
fn daemon(dir: &TempDir, flags: &[&str]) -> Cmd {
    let at = |name: &str| dir.path().join(name).display().to_string();
    Cmd::new(binary()).args(["daemon", "--data-root", &at("data"), "--exec-root", &at("run")]).args(flags)
}

/// The status line of a ping, whatever it goes over.
fn ping(mut stream: impl Read + Write) -> String {
    stream
        .write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("a request is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer in text");
    answer.lines().next().unwrap_or_default().to_owned()
}

const OK: &str = "HTTP/1.1 200 OK";

#[test]
fn several_hosts_are_served_at_once_and_each_once() {
    requires!(root);
    let dir = TempDir::new();
    let second = dir.path().join("deep/er/second.sock");
    let host = format!("unix://{}", second.display());
    let padded = format!(" {host} ");
    let args = ["-H", &host, "-H", &padded, "-H", "127.0.0.1:0", "--insecure-tcp", "--group", "4242"];
    let mut daemon = Daemon::on_host(&args, &[]);
    assert_eq!(ping(UnixStream::connect(&second).expect("the second host")), OK);
    assert_eq!(ping(TcpStream::connect(("127.0.0.1", daemon.port())).expect("tcp without a scheme")), OK);
    for socket in [&second, &daemon.socket()] {
        let meta = std::fs::metadata(socket).expect("a socket file");
        assert!(meta.file_type().is_socket());
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o660, 0, 4242), "{socket:?}");
    }
    assert_eq!(daemon.stop(), 0);
    assert!(!second.exists() && !daemon.socket().exists(), "the socket files go with the daemon");
    daemon.restart();
}

#[test]
fn a_stale_socket_is_replaced_and_a_used_one_is_not() {
    requires!(root);
    let mut first = Daemon::empty();
    first.kill9();
    assert!(first.socket().exists(), "a daemon that was killed leaves its socket");
    first.restart();
    first.api("GET", "/_ping").is(200);

    // Somebody who is too busy to accept is there all the same.
    let dir = TempDir::new();
    let path = dir.path().join("busy.sock");
    let busy = UnixListener::bind(&path).expect("a fresh path");
    rustix::net::listen(&busy, 0).expect("a shorter queue");
    let _waiting = UnixStream::connect(&path).expect("room for one");
    let host = format!("unix://{}", path.display());
    let output = daemon(&dir, &["-H", &host]).run();
    assert!(output.code != 0, "{output}");
    output.stderr_has("busy.sock").stderr_has("another process has it").no_panic();
    assert!(busy.accept().is_ok(), "its socket is where it was");

    let file = dir.path().join("file");
    std::fs::write(&file, "precious").expect("a fresh path");
    let output = daemon(&dir, &["-H", &format!("unix://{}", file.display())]).run();
    output.stderr_has("no socket is in the way");
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}

#[test]
fn hosts_that_cannot_be_served_are_explained() {
    requires!(root);
    let dir = TempDir::new();
    let long = format!("unix:///tmp/{}", "x".repeat(110));
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let in_use = format!("tcp://127.0.0.1:{port}");
    for (flags, part) in [
        (&["-H", &long][..], "has 115 bytes, the kernel allows 107"),
        (&["-H", "tcp://127.0.0.1:1/path", "--insecure-tcp"], "tcp has no path"),
        (&["-H", &in_use, "--insecure-tcp"], "Address already in use"),
        (&["-H", "tcp://192.0.2.1:1", "--insecure-tcp"], "only loopback"),
        (
            &["-H", "fd://"],
            "no sockets found via socket activation: make sure the service was started by systemd",
        ),
        (&["-H", "fd://3"], "no sockets found via socket activation"),
    ] {
        let output = daemon(&dir, flags).run();
        assert_eq!(output.code, 1, "{output}");
        output.stderr_has("failed to start daemon").stderr_has(part).no_panic();
    }
}

/// What a container's processes and the shim have open, as `readlink` shows it.
fn sockets_of(pid: u32) -> Vec<String> {
    let dir = format!("/proc/{pid}/fd");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links.map(|link| link.display().to_string()).collect()
}

fn inode(socket: &OwnedFd) -> String {
    format!("socket:[{}]", rustix::fs::fstat(socket).expect("an open socket").st_ino)
}

#[test]
fn passed_sockets_are_served_and_stay_the_launchers() {
    requires!(root);
    let dir = TempDir::new();
    let path = dir.path().join("passed.sock");
    let unix: OwnedFd = UnixListener::bind(&path).expect("a fresh path").into();
    let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = tcp.local_addr().expect("it is bound");
    let tcp: OwnedFd = tcp.into();
    let inodes = [inode(&unix), inode(&tcp)];
    let passed = Passed { sockets: vec![unix, tcp], names: "api:net" };
    let mut daemon = Daemon::activated(&["-H", "fd://", "--insecure-tcp"], passed);
    assert_eq!(ping(UnixStream::connect(&path).expect("the first")), OK);
    assert_eq!(ping(TcpStream::connect(address).expect("the second")), OK);

    // Shims and what they start inherit neither the sockets nor the variables.
    daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
    daemon.run_detached("web", &[], "exec sleep 300");
    let pid = u32::try_from(daemon.state("web")["Pid"].as_u64().expect("it runs")).expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim();
    for process in [pid, parent.parse().expect("a pid")] {
        let open = sockets_of(process);
        assert!(!open.iter().any(|link| inodes.contains(link)), "{process} holds a passed socket: {open:?}");
        let environment = std::fs::read(format!("/proc/{process}/environ")).expect("it runs");
        assert!(!String::from_utf8_lossy(&environment).contains("LISTEN_"), "{process} has the variables");
    }

    // While it is down, connections queue: nobody is refused.
    assert_eq!(daemon.stop(), 0);
    assert!(path.exists(), "the file belongs to the launcher");
    let early = UnixStream::connect(&path).expect("the launcher's socket still listens");
    daemon.restart();
    assert_eq!(ping(early), OK);
}

#[test]
fn one_passed_socket_is_chosen_by_name_or_number() {
    requires!(root);
    for (host, chosen) in [("fd://3", 0), ("fd://4", 1), ("fd://api", 0), ("fd://other", 1)] {
        let dir = TempDir::new();
        let paths = [dir.path().join("a.sock"), dir.path().join("b.sock")];
        let bind = |path: &Path| OwnedFd::from(UnixListener::bind(path).expect("a fresh path"));
        let passed = Passed { sockets: paths.iter().map(|path| bind(path)).collect(), names: "api:other" };
        let inodes: Vec<_> = passed.sockets.iter().map(inode).collect();
        let daemon = Daemon::activated(&["-H", host], passed);
        assert_eq!(ping(UnixStream::connect(&paths[chosen]).expect("the chosen one")), OK, "{host}");
        let open = sockets_of(daemon.pid());
        assert!(open.contains(&inodes[chosen]), "{host}: {open:?}");
        assert!(!open.contains(&inodes[1 - chosen]), "{host}: the other one is closed: {open:?}");
        assert!(daemon.log().contains("is served by no host"), "{host}: {}", daemon.log());
    }
}

#[test]
fn a_passed_socket_nobody_may_serve_is_refused() {
    requires!(root);
    let dir = TempDir::new();
    let pair = UnixStream::pair().expect("a pair").0;
    let tcp = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    for (socket, host, part) in [
        (OwnedFd::from(pair), "fd://", "it takes no connections"),
        (tcp.try_clone().expect("a copy").into(), "fd://", "--insecure-tcp"),
        (tcp.into(), "fd://5", "no descriptor 5"),
    ] {
        let at = |name: &str| dir.path().join(name).display().to_string();
        let script = "LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$@\" 3<&0 </dev/null";
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(binary())
            .args(["daemon", "--data-root", &at("data"), "--exec-root", &at("run"), "-H", host])
            .stdin(socket)
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && text.contains(part), "{host}: {text}");
    }
}

#[test]
fn systemd_socket_activate_starts_it_with_the_first_connection() {
    requires!(root, socket_activate);
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let path = dir.path().join("lazy.sock");
    let mut running = Cmd::new("systemd-socket-activate")
        .args(["-l", &at("lazy.sock"), "--fdname=api"])
        .arg(binary())
        .args(["daemon", "--data-root", &at("data"), "--exec-root", &at("run"), "-H", "fd://api"])
        .spawn();
    // Bound, it may not listen yet; a connection that nothing is said on would start the daemon, too.
    crate::support::eventually("the socket is bound", || path.exists());
    let mut stream = None;
    assert!(!dir.path().join("data").exists(), "nothing is started before somebody connects");
    crate::support::eventually("systemd-socket-activate listens", || {
        stream = UnixStream::connect(&path).ok();
        stream.is_some()
    });
    assert_eq!(ping(stream.expect("it was opened")), OK);
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    assert_eq!(running.wait(), 0);
    let left = crate::support::leftovers::Leftovers::of(dir.path());
    left.remove();
    left.assert_none();
}
