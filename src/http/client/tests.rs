//! The client against our own server.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Client, ClientError, Host};
use crate::http::api::{ApiVersion, Class, Endpoint, Failure, Method, Shape};
use crate::http::middleware::{Middleware, version};
use crate::http::reply::Reply;
use crate::http::request::Call;
use crate::http::route::{Route, RouteTable};
use crate::http::server::{Handle, Limits, Listener, Server};
use crate::route;

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Seen {
    name: String,
    tag: String,
    body: String,
    agent: String,
}

crate::query! { pub struct Tagged { tag: String = "tag" } }

static SHOW: Endpoint<Tagged, Seen, Seen> =
    Endpoint::new("Show", Method::Post, "/show/{name...}/it", Shape::Json, 200);
static START: Endpoint<(), (), ()> = Endpoint::new("Start", Method::Post, "/start/{id}", Shape::Empty, 204);
static STAT: Endpoint<(), (), ()> = Endpoint::new("Stat", Method::Head, "/stat/{id}", Shape::Empty, 200);
static WAIT: Endpoint<(), (), ()> = Endpoint::new("Wait", Method::Post, "/wait", Shape::Stream, 200);
static LOAD: Endpoint<Tagged, (), ()> = Endpoint::new("Load", Method::Post, "/load", Shape::Stream, 200);
static SHELL: Endpoint<(), Option<Seen>, ()> =
    Endpoint::new("Shell", Method::Post, "/shell/{id}", Shape::Hijack, 101);

static ROUTES: &[Route<()>] = &[
    route!(SHOW, show),
    route!(START, start),
    route!(STAT, |_: &(), call: Call| Ok::<_, Failure>(
        Reply::empty(200).header("X-Docker-Container-Path-Stat", call.param("id"))
    )),
    route!(WAIT, wait),
    route!(LOAD, load),
    route!(SHELL, shell),
];

static MIDDLEWARES: &[Middleware<()>] = &[Middleware::new("version", version::enter)];

fn show(_: &(), call: Call<Tagged, Seen>) -> Result<Reply, Failure> {
    Ok(SHOW.reply(&Seen {
        name: call.param("name").to_owned(),
        tag: call.query.tag,
        body: call.body.body,
        agent: call.raw.headers.get("user-agent").unwrap_or_default().to_owned(),
    }))
}

fn start(_: &(), call: Call) -> Result<Reply, Failure> {
    let fail = |class, message: &str| Err(Failure { class, message: message.to_owned() });
    match call.param("id") {
        "running" => fail(Class::NotModified, "already started"),
        "gone" => fail(Class::NotFound, "No such container: gone"),
        _ => Ok(START.reply(&())),
    }
}

fn wait(_: &(), _: Call) -> Result<Reply, Failure> {
    Ok(WAIT.stream("application/json", |out| {
        for line in 0..3 {
            std::thread::sleep(Duration::from_millis(60));
            writeln!(out, "{{\"Name\":\"{line}\",\"Tag\":\"\",\"Body\":\"\",\"Agent\":\"\"}}")?;
            out.flush()?;
        }
        Ok(())
    }))
}

fn load(_: &(), mut call: Call<Tagged>) -> Result<Reply, Failure> {
    if call.query.tag == "refuse" {
        return Err(Failure { class: Class::Conflict, message: "not now".to_owned() });
    }
    Ok(LOAD.stream("application/json", move |out| {
        let (mut buffer, mut total) = (vec![0; 65536], 0);
        loop {
            match call.raw.body.read(&mut buffer)? {
                0 => break,
                count => total += count,
            }
            // More progress than the socket's buffers hold.
            writeln!(out, "progress {total:0500}")?;
            out.flush()?;
        }
        writeln!(out, "total {total}")
    }))
}

fn shell(_: &(), call: Call<(), Option<Seen>>) -> Result<Reply, Failure> {
    if call.param("id") == "paused" {
        return Err(Failure { class: Class::Conflict, message: "paused".to_owned() });
    }
    Ok(Reply::hijack("application/vnd.docker.raw-stream", move |hijacked| {
        let (mut reader, mut writer) = hijacked.split();
        let mut input = Vec::new();
        let _ = writer.write_all(call.body.unwrap_or_default().body.as_bytes());
        let _ = reader.read_to_end(&mut input);
        input.reverse();
        let _ = writer.write_all(&input);
    }))
}

struct Fixture {
    handle: Handle,
    path: PathBuf,
    client: Client,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.handle.stop(Duration::from_millis(100));
        let _ = std::fs::remove_file(&self.path);
    }
}

fn fixture() -> Fixture {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("dewar-client-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    let listeners = vec![Listener::Unix(UnixListener::bind(&path).unwrap())];
    let table = RouteTable::new(ROUTES).unwrap();
    let server = Server::new(listeners, table, MIDDLEWARES, (), Limits::default()).unwrap();
    let client = Client::new(Host::parse(&format!("unix://{}", path.display())).unwrap(), None);
    Fixture { handle: server.start().unwrap(), path, client }
}

#[test]
fn calls_carry_names_queries_and_bodies_both_ways() {
    let fixture = fixture();
    let query = Tagged { tag: "a b&c=ü".to_owned() };
    let body = Seen { body: "x\"y".to_owned(), ..Seen::default() };
    for _ in 0..3 {
        let seen = fixture.client.call(&SHOW, &["docker.io/lib ü%/web:1"], &query, &body).unwrap();
        assert_eq!(seen.name, "docker.io/lib ü%/web:1");
        assert_eq!((seen.tag.as_str(), seen.body.as_str()), ("a b&c=ü", "x\"y"));
        assert!(seen.agent.starts_with("dewar-client/"), "{}", seen.agent);
    }
    // All on one kept connection.
    assert_eq!(fixture.handle.connections(), 1);
    fixture.client.call(&START, &["web"], &(), &()).unwrap();
    fixture.client.call(&START, &["running"], &(), &()).unwrap();
    let head = fixture.client.head(&STAT, &["abc"], &()).unwrap();
    assert_eq!(head.headers.get("x-docker-container-path-stat"), Some("abc"));
}

#[test]
fn refusals_are_told_apart() {
    let fixture = fixture();
    let start = |client: &Client, id: &str| client.call(&START, &[id], &(), &()).unwrap_err();
    let error = start(&fixture.client, "gone");
    assert!(matches!(error, ClientError::Server { status: 404, .. }), "{error:?}");
    assert_eq!(error.to_string(), "No such container: gone");
    assert!(matches!(start(&fixture.client, ""), ClientError::Empty { variable: "id", .. }));
    let newer = fixture.client.clone().with_version(ApiVersion { major: 1, minor: 99 });
    let error = start(&newer, "web");
    assert!(matches!(error, ClientError::Version { .. }), "{error:?}");
    assert!(error.to_string().contains("client version 1.99 is too new"), "{error}");

    let absent = Client::new(Host::parse("unix:///nonexistent/dewar.sock").unwrap(), None);
    for error in [
        start(&absent, "web"),
        absent.hijack(&SHELL, &["web"], &(), &None).unwrap_err(),
        absent.upload(&LOAD, &[], &Tagged::default(), "application/x-tar", io::empty()).unwrap_err(),
    ] {
        assert!(matches!(error, ClientError::NoDaemon { .. }), "{error:?}");
        assert_eq!(
            error.to_string(),
            "Cannot connect to the Docker daemon at unix:///nonexistent/dewar.sock. \
             Is the docker daemon running?"
        );
    }
}

#[test]
fn a_daemon_that_restarted_is_found_again() {
    let first = fixture();
    first.client.call(&START, &["web"], &(), &()).unwrap();
    first.handle.stop(Duration::from_millis(100));
    assert!(matches!(
        first.client.call(&START, &["web"], &(), &()).unwrap_err(),
        ClientError::NoDaemon { .. }
    ));
    let _ = std::fs::remove_file(&first.path);
    let listeners = vec![Listener::Unix(UnixListener::bind(&first.path).unwrap())];
    let table = RouteTable::new(ROUTES).unwrap();
    let server = Server::new(listeners, table, MIDDLEWARES, (), Limits::default()).unwrap();
    let handle = server.start().unwrap();
    first.client.call(&START, &["web"], &(), &()).unwrap();
    handle.stop(Duration::from_millis(100));
}

#[test]
fn streams_give_the_head_first_and_each_line_as_it_comes() {
    let fixture = fixture();
    let start = Instant::now();
    let stream = fixture.client.stream(&WAIT, &[], &(), &()).unwrap();
    assert!(start.elapsed() < Duration::from_millis(55), "{:?}", start.elapsed());
    assert_eq!(stream.head.headers.get("content-type"), Some("application/json"));
    let mut times = Vec::new();
    for line in BufReader::new(stream).lines() {
        assert!(line.unwrap().starts_with("{\"Name\":"));
        times.push(start.elapsed());
    }
    assert_eq!(times.len(), 3);
    assert!(times[2] - times[0] > Duration::from_millis(90), "{times:?}");
}

#[test]
fn uploads_are_read_while_they_are_answered() {
    let fixture = fixture();
    let source = io::repeat(7).take(30_000_000);
    let stream = fixture.client.upload(&LOAD, &[], &Tagged::default(), "application/x-tar", source).unwrap();
    // Nothing is read for a while: progress must not stop the upload for good.
    std::thread::sleep(Duration::from_millis(50));
    let last = BufReader::new(stream).lines().map(Result::unwrap).last();
    assert_eq!(last.as_deref(), Some("total 30000000"));
    // Refused before a large body is read: the answer still arrives.
    let refuse = Tagged { tag: "refuse".to_owned() };
    let error = fixture.client.upload(&LOAD, &[], &refuse, "application/x-tar", io::repeat(7)).unwrap_err();
    assert!(
        matches!(&error, ClientError::Server { status: 409, message } if message == "not now"),
        "{error:?}"
    );
    // A source that fails cuts the request, and is named.
    struct Broken(u32);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 += 1;
            if self.0 > 3 { Err(io::Error::other("disk on fire")) } else { Ok(buffer.len()) }
        }
    }
    let result = fixture
        .client
        .upload(&LOAD, &[], &Tagged::default(), "application/x-tar", Broken(0))
        .and_then(|stream| {
            let context = stream.context.clone();
            let result: io::Result<Vec<_>> = BufReader::new(stream).lines().collect();
            result.map_err(|cause| context.io(cause))
        });
    assert!(result.unwrap_err().to_string().contains("disk on fire"));
}

#[test]
fn upgrades_are_full_duplex_and_refusals_are_errors() {
    let fixture = fixture();
    let body = Seen { body: "hello ".to_owned(), ..Seen::default() };
    let upgraded = fixture.client.hijack(&SHELL, &["web"], &(), &Some(body)).unwrap();
    let (mut reader, mut writer) = upgraded.stream.split();
    writer.write_all(b"abc").unwrap();
    writer.shutdown_write();
    let mut output = String::new();
    reader.read_to_string(&mut output).unwrap();
    assert_eq!(output, "hello cba");
    let error = fixture.client.hijack(&SHELL, &["paused"], &(), &None).unwrap_err();
    assert!(matches!(error, ClientError::Server { status: 409, .. }), "{error:?}");
}

#[test]
fn hosts_are_parsed_or_refused() {
    for (text, host) in [
        ("unix:///run/dewar.sock", Host::Unix("/run/dewar.sock".into())),
        ("tcp://127.0.0.1:2376", Host::Tcp("127.0.0.1".to_owned(), 2376)),
        ("tcp://example.org", Host::Tcp("example.org".to_owned(), 2375)),
        ("tcp://[::1]:80", Host::Tcp("::1".to_owned(), 80)),
        ("tcp://[::1]", Host::Tcp("::1".to_owned(), 2375)),
    ] {
        assert_eq!(Host::parse(text), Ok(host), "{text}");
    }
    for text in [
        "",
        "/run/x",
        "unix://x",
        "tcp://",
        "tcp://a:b",
        "tcp://a b:1",
        "ssh://",
        "ssh://-oX=y",
        "tcp://::1:80",
    ] {
        assert!(Host::parse(text).is_err(), "{text}");
    }
    assert_eq!(Host::parse("tcp://[::1]:80").unwrap().to_string(), "tcp://[::1]:80");
}
