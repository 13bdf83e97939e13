//! A daemon that only takes builds down: what a client sent, and an answer the test chose.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use crate::support::{Cmd, TempDir, binary, requires};

/// One `POST /build`.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// Decoded; what says nothing (empty, zero, an empty list) is left out, as clients differ in saying it.
    pub query: Vec<(String, String)>,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// One entry of an archive, so far as a build can tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: char,
    pub mode: u32,
    pub owner: (u64, u64),
    pub modified: u64,
    pub link: String,
    pub content: Vec<u8>,
}

impl Sent {
    /// The entries of the context in their order.
    #[track_caller]
    pub fn entries(&self) -> Vec<Entry> {
        let body: Box<dyn Read> = match self.body.starts_with(&[0x1f, 0x8b]) {
            true => Box::new(flate2::read::GzDecoder::new(self.body.as_slice())),
            false => Box::new(self.body.as_slice()),
        };
        // Docker leaves out the padding of what it adds last.
        let mut archive = tar::Archive::new(body.chain(std::io::repeat(0).take(1536)));
        let entries = archive.entries().expect("an archive").map(|entry| {
            let mut entry = entry.expect("an archive that is whole");
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("an archive that is whole");
            let header = entry.header();
            let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
            Entry {
                name: String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned(),
                kind: char::from(header.entry_type().as_byte()),
                mode: header.mode().expect("a mode") & 0o7777,
                owner: (header.uid().expect("an owner"), header.gid().expect("a group")),
                modified: header.mtime().expect("a time"),
                link: String::from_utf8_lossy(&link).into_owned(),
                content,
            }
        });
        entries.collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.entries().into_iter().map(|entry| entry.name).collect()
    }
}

/// What was sent last, and what is answered.
struct State {
    sent: Option<Sent>,
    answer: String,
}

/// Serves until the test's process ends; a thread that waits for connections costs nothing.
pub struct Fixture {
    dir: TempDir,
    state: Arc<Mutex<State>>,
}

impl Fixture {
    pub fn start() -> Fixture {
        let dir = TempDir::new();
        let listener = UnixListener::bind(dir.path().join("sock")).expect("a socket in a fresh directory");
        let state = Arc::new(Mutex::new(State { sent: None, answer: String::new() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(stream, &state));
            }
        });
        Fixture { dir, state }
    }

    /// Messages to answer the next builds with, one per line.
    pub fn answers(&self, messages: &str) {
        self.state.lock().expect("no test fails while it holds it").answer =
            messages.lines().map(|line| format!("{line}\r\n")).collect();
    }

    /// What was sent since the last time.
    #[track_caller]
    pub fn sent(&self) -> Sent {
        self.state
            .lock()
            .expect("no test fails while it holds it")
            .sent
            .take()
            .expect("a build was asked for")
    }

    /// `dewar -H … args`
    pub fn dewar(&self, args: &[&str]) -> Cmd {
        self.prepared(Cmd::new(binary()), args)
    }

    /// `docker -H … args`, with the classic builder.
    pub fn docker(&self, args: &[&str]) -> Cmd {
        let docker = requires::docker_path().expect("the test requires docker");
        self.prepared(Cmd::new(docker), args)
    }

    fn prepared(&self, command: Cmd, args: &[&str]) -> Cmd {
        command
            .env("DOCKER_CONFIG", self.dir.path())
            .env("DOCKER_BUILDKIT", "0")
            .args(["-H", &format!("unix://{}/sock", self.dir.path().display())])
            .args(args)
    }
}

fn serve(stream: UnixStream, state: &Mutex<State>) {
    let mut writer = stream.try_clone().expect("a descriptor can be copied");
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let target = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let is_head = line.starts_with("HEAD");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            match line.trim_end().split_once(':') {
                Some((name, value)) => headers.insert(name.to_ascii_lowercase(), value.trim().to_owned()),
                None => break,
            };
        }
        if headers.get("expect").is_some_and(|value| value == "100-continue") {
            writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("the client waits");
        }
        let body = body(&mut reader, &headers);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let mut kind = "application/json";
        let mut answer = "{}".to_owned();
        if path.ends_with("/_ping") {
            (kind, answer) = ("text/plain", "OK".to_owned());
        } else if path.ends_with("/version") {
            answer = r#"{"ApiVersion":"1.51","MinAPIVersion":"1.24","Os":"linux"}"#.to_owned();
        } else if path.ends_with("/build") {
            let mut state = state.lock().expect("no test fails while it holds it");
            state.sent = Some(Sent { query: pairs(query), headers, body });
            answer.clone_from(&state.answer);
        }
        let length = answer.len();
        let head = format!(
            "HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nOstype: linux\r\nBuilder-Version: 1\r\nServer: Docker/28.0.0 (linux)\r\n\
             Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        let body = if is_head { "" } else { &answer };
        if writer.write_all(format!("{head}{body}").as_bytes()).is_err() {
            return;
        }
    }
}

fn body(reader: &mut impl BufRead, headers: &BTreeMap<String, String>) -> Vec<u8> {
    let mut body = Vec::new();
    if headers.get("transfer-encoding").is_some_and(|value| value == "chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a chunk");
            let size = u64::from_str_radix(line.trim(), 16).expect("a chunk's size");
            reader.by_ref().take(size).read_to_end(&mut body).expect("a chunk");
            reader.read_line(&mut line).expect("a chunk's end");
            if size == 0 {
                return body;
            }
        }
    }
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_end(&mut body).expect("a body");
    body
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap_or(0), rest.next().unwrap_or(0)];
                    u8::from_str_radix(&String::from_utf8_lossy(&digits), 16).expect("two digits")
                }
                byte => byte,
            });
        }
        String::from_utf8(bytes).expect("text")
    };
    let mut pairs: Vec<_> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .filter(|(_, value)| !["", "0", "[]", "{}", "null"].contains(&value.as_str()))
        .collect();
    pairs.sort();
    pairs
}
