//! `attach/ws`: spoken by hand and by docker-py.

use std::io::Write;

use crate::support::http::Connection;
use crate::support::requires::{python_with_websocket, requires};
use crate::support::{Cmd, Daemon, busybox_tar, eventually};

/// A client of one container.
struct Socket(Connection);

/// A frame from the daemon: its first byte and its payload.
type Frame = (u8, Vec<u8>);

impl Socket {
    #[track_caller]
    fn open(daemon: &Daemon, path: &str) -> Socket {
        let mut connection = Connection::open(&daemon.socket());
        connection.request("GET", path, &handshake(None), None);
        let head = connection.head().expect("an answer");
        assert_eq!(head.status, 101, "{head:?}");
        // The example of RFC 6455.
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert_eq!(head.header("upgrade"), Some("websocket"));
        Socket(connection)
    }

    /// Sends one frame, masked as a client has to.
    fn send(&mut self, first: u8, payload: &[u8]) {
        let mask = [9, 200, 3, 77];
        let mut frame = vec![first, 0x80 | 127];
        frame.extend((payload.len() as u64).to_be_bytes());
        if payload.len() < 126 {
            frame = vec![first, 0x80 | payload.len() as u8];
        }
        frame.extend(mask);
        frame.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
        self.0.send(&frame);
    }

    /// The next frame; `None` at the end of the connection.
    fn frame(&mut self) -> Option<Frame> {
        let head = self.0.exact(2)?;
        assert_eq!(head[1] & 0x80, 0, "a server does not mask");
        let more = match head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let length = self.0.exact(more).expect("a whole frame");
        let length = match more {
            0 => usize::from(head[1]),
            _ => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        };
        Some((head[0], self.0.exact(length).expect("a whole frame")))
    }

    /// Payload of data frames until `count` bytes are there.
    #[track_caller]
    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < count {
            let (first, payload) = self.frame().expect("more output");
            assert_eq!(first, 0x82, "binary, in one frame");
            bytes.extend(payload);
        }
        bytes
    }
}

/// The headers of a handshake, one of them changed; an empty value leaves it out.
fn handshake<'a>(change: Option<(&'a str, &'a str)>) -> Vec<(&'a str, &'a str)> {
    [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    .into_iter()
    .map(|(name, value)| {
        (name, change.filter(|(changed, _)| *changed == name).map_or(value, |(_, value)| value))
    })
    .filter(|(_, value)| !value.is_empty())
    .collect()
}

#[test]
fn a_conversation() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "echo before; read line; echo got $line; echo err >&2; cat");
    eventually("the first line", || daemon.logs("web") == "before\n");
    let mut socket =
        Socket::open(&daemon, "/containers/web/attach/ws?logs=1&stream=1&stdin=1&stdout=1&stderr=1");
    assert_eq!(socket.read(7), b"before\n", "the log comes first");
    // In pieces, and with a question in between.
    socket.send(0x02, b"wo");
    socket.send(0x89, b"there?");
    socket.send(0x80, b"rd\n");
    let (mut output, mut pongs) = (Vec::new(), Vec::new());
    while output.len() < 13 || pongs.is_empty() {
        match socket.frame().expect("more output") {
            (0x82, payload) => output.extend(payload),
            (0x8a, payload) => pongs.push(payload),
            other => panic!("{other:?}"),
        }
    }
    // Stdout and stderr come through two pipes: their order is not ours.
    let text = String::from_utf8(output).expect("text");
    assert!(text.contains("got word\n") && text.contains("err\n"), "{text:?}");
    assert_eq!(pongs, [b"there?".to_vec()]);
    let long: Vec<u8> = b"0123456789abcdef".repeat(20_000);
    socket.send(0x82, &long);
    assert!(socket.read(long.len()) == long);
    socket.send(0x88, b"\x03\xe8");
    assert_eq!(socket.frame(), Some((0x88, b"\x03\xe8".to_vec())));
    assert_eq!(socket.frame(), None);
    assert_eq!(daemon.state("web")["Running"], true, "it goes on without its client");
}

#[test]
fn the_end_of_the_container_is_a_close() {
    requires!(root);
    let daemon = Daemon::start();
    daemon
        .dewar(&[
            "create",
            "--name",
            "web",
            "--network",
            "none",
            "busybox",
            "sh",
            "-c",
            "echo out; echo err >&2",
        ])
        .ok();
    let mut all = Socket::open(&daemon, "/v1.41/containers/web/attach/ws?stream=1");
    let mut errors = Socket::open(&daemon, "/containers/web/attach/ws?stream=1&stderr=1");
    let mut text = Socket::open(&daemon, "/v1.27/containers/web/attach/ws?stream=1");
    daemon.api("POST", "/containers/web/start").is(204);
    let collected = |socket: &mut Socket| {
        let mut frames = Vec::new();
        while let Some(frame) = socket.frame() {
            frames.push(frame);
        }
        assert_eq!(frames.pop(), Some((0x88, b"\x03\xe8".to_vec())));
        frames
    };
    let both: usize = collected(&mut all).iter().map(|(_, payload)| payload.len()).sum();
    assert_eq!(both, 8, "below 1.42 everything");
    assert_eq!(collected(&mut errors), [(0x82, b"err\n".to_vec())]);
    assert!(collected(&mut text).iter().all(|(first, _)| *first == 0x81), "below 1.28 text");
}

#[test]
fn detach_keys_end_it() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-it"], "exec cat");
    let path = "/containers/web/attach/ws?stream=1&stdin=1&stdout=1&detachKeys=ctrl-a,b";
    let mut socket = Socket::open(&daemon, path);
    socket.send(0x81, b"\x01b");
    assert_eq!(socket.frame(), Some((0x88, b"\x03\xe8".to_vec())));
    assert_eq!(daemon.state("web")["Running"], true);
}

#[test]
fn frames_that_break_the_rules_end_it() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["-i"], "exec cat");
    for wire in [
        &b"\x82\x01x"[..],
        b"\xf2\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        b"\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0",
    ] {
        let mut socket = Socket::open(&daemon, "/containers/web/attach/ws?stream=1&stdin=1&stdout=1");
        socket.0.send(wire);
        assert_eq!(socket.frame(), Some((0x88, b"\x03\xea".to_vec())), "{wire:?}");
        assert_eq!(socket.frame(), None);
    }
    // Half a frame, and the client is gone.
    let socket = Socket::open(&daemon, "/containers/web/attach/ws?stream=1&stdin=1&stdout=1");
    socket.0.stream().write_all(b"\x82\xfe\xff").expect("a socket takes a few bytes");
    drop(socket);
    daemon.api("GET", "/_ping").is(200);
}

#[test]
fn handshakes_are_checked() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let mut connection = Connection::open(&daemon.socket());
    let mut ask = |path: &str, headers: &[(&str, &str)]| {
        connection.request("GET", path, headers, None);
        connection.reply("GET")
    };
    let path = "/containers/web/attach/ws?stream=1&stdout=1";
    for change in [
        ("Upgrade", "tcp"),
        ("Connection", "keep-alive"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", ""),
    ] {
        ask(path, &handshake(Some(change))).refuses(400, "WebSocket");
    }
    let mut foreign = handshake(None);
    foreign.push(("Origin", "http://evil.example"));
    ask(path, &foreign).refuses(403, "another site");
    ask("/containers/none/attach/ws?stream=1", &handshake(None)).refuses(404, "No such container: none");
    // All on one connection: a refused upgrade leaves it usable.
    ask("/_ping", &[]).is(200);
}

#[test]
fn docker_py_attaches() {
    requires!(root, docker_py_websocket);
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
    let host = format!("tcp://{port}");
    let daemon = Daemon::on_host(&["-H", &host, "--insecure-tcp"], &[]);
    daemon.dewar(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    // Over tcp: docker-py makes no WebSocket address of a unix socket's.
    let script = format!(
        r#"
import docker
client = docker.DockerClient(base_url='{host}')
box = client.containers.create('busybox', ['sh', '-c', 'read a; echo got $a; echo err >&2'], network_mode='none', stdin_open=True)
socket = box.attach_socket(params={{'stdin': 1, 'stdout': 1, 'stderr': 1, 'stream': 1}}, ws=True)
box.start()
socket.ping('there?')
socket.send('word\n')
out = b''
while len(out) < 13:
    out += socket.recv()
assert sorted(out.splitlines()) == [b'err', b'got word'], out
socket.close()
assert box.wait()['StatusCode'] == 0
box.remove()
"#
    );
    Cmd::new(python_with_websocket().expect("required above")).arg("-c").arg(script).ok();
}
