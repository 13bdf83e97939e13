//! What a peer can cost that has not even said who it is.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::support::certificates::{Certificates, Tls};
use crate::support::requires::requires;
use crate::support::{Daemon, eventually};

fn daemon(certificates: &Certificates) -> Daemon {
    let flags = certificates.daemon_flags();
    Daemon::on_host(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// A figure of the daemon's `/proc/PID/status`.
fn status(daemon: &Daemon, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("it runs");
    let value = text.lines().find_map(|line| line.strip_prefix(name)).expect("a field of status");
    value.trim_matches([':', '\t', ' ', 'k', 'B']).parse().expect("a number")
}

fn ping(tls: &mut Tls) {
    tls.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").expect("the connection is open");
    let mut head = Vec::new();
    let mut block = [0; 1024];
    while !head.ends_with(b"\r\n\r\nOK") {
        let count = tls.read(&mut block).expect("an answer");
        assert!(count > 0, "the connection ended: {}", String::from_utf8_lossy(&head));
        head.extend_from_slice(&block[..count]);
    }
    assert!(head.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&head));
}

/// The first bytes a client says.
fn hello(certificates: &Certificates) -> Vec<u8> {
    let mut session = certificates.session();
    let mut bytes = Vec::new();
    session.write_tls(&mut bytes).expect("a vector takes everything");
    bytes
}

#[test]
fn silent_and_slow_handshakes_hold_nobody_up_and_end() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    let connect = || TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
    let hello = hello(&certificates);
    let start = Instant::now();
    let mut stuck: Vec<TcpStream> = (0..280).map(|_| connect()).collect();
    for index in 0..20 {
        let mut stream = connect();
        stream.write_all(&hello[..1 + index * 10]).expect("it listens");
        stuck.push(stream);
    }
    // One says a byte now and then: that must not buy it time.
    let mut slow = connect();
    let dripping = std::thread::spawn(move || {
        for byte in hello.iter().cycle() {
            if slow.write_all(&[*byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for _ in 0..20 {
        ping(&mut certificates.connect(daemon.port()));
    }
    // The silent ones never met a worker, the others for 10 ms.
    let threads = status(&daemon, "Threads");
    assert!(threads < 60, "300 connections hold {threads} threads");
    for mut stream in stuck {
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => panic!("still open after {:?}: {error}", start.elapsed()),
        }
    }
    dripping.join().expect("it only writes");
    assert!(start.elapsed() > Duration::from_secs(5), "nobody was given time: {:?}", start.elapsed());
    ping(&mut certificates.connect(daemon.port()));
}

#[test]
fn hundreds_of_idle_connections_cost_no_thread_and_little_memory() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    ping(&mut certificates.connect(daemon.port()));
    let before = status(&daemon, "VmRSS");
    let mut idle: Vec<Tls> = (0..400).map(|_| certificates.connect(daemon.port())).collect();
    idle.iter_mut().for_each(ping);
    let kib = status(&daemon, "VmRSS").saturating_sub(before) / 400;
    assert!(kib < 64, "an idle TLS connection costs {kib} KiB");
    eventually("the workers end", || status(&daemon, "Threads") < 20);
    // Each is as good as new.
    idle.iter_mut().rev().for_each(ping);
}

#[test]
fn a_daemon_without_descriptors_recovers() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a pid");
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).expect("it runs").count() as u64;
    let few = Rlimit { current: Some(open + 20), maximum: Some(open + 20) };
    prlimit(Some(pid), Resource::Nofile, few).expect("a limit can be lowered");
    let crowd: Vec<TcpStream> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", daemon.port())).expect("they queue in the kernel"))
        .collect();
    eventually("it runs out", || daemon.log().contains("Too many open files"));
    // Those that say nothing make room for those that come by the other door.
    daemon.api("GET", "/_ping").is(200);
    drop(crowd);
    let mut tls = certificates.connect(daemon.port());
    ping(&mut tls);
    daemon.api("GET", "/_ping").is(200);
}
