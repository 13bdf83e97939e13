//! The server against raw sockets: what clients do, and what hostile ones try.
//!
//! Stays whole: one table of routes and one reader of raw answers, a third of it, on which each promise is tried.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Handle, Limits, Listener, Server};
use crate::http::api::{Class, Endpoint, Failure, Method, Shape};
use crate::http::middleware::{Leave, Middleware, Passing, version};
use crate::http::reply::Reply;
use crate::http::request::Call;
use crate::http::route::{Route, RouteTable};
use crate::route;

#[derive(Debug, Default)]
struct Bench {
    /// How many followers noticed that their peer left.
    gone: AtomicUsize,
    uploaded: AtomicUsize,
    /// What the middlewares saw.
    seen: Mutex<Vec<String>>,
}

type State = Arc<Bench>;

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Note {
    text: String,
}

crate::query! { pub struct Many { count: i64 = "count" } }

static PING: Endpoint<(), (), ()> = Endpoint::new("Ping", Method::Get, "/_ping", Shape::Json, 200);
static PING_HEAD: Endpoint<(), (), ()> = Endpoint::new("PingHead", Method::Head, "/_ping", Shape::Json, 200);
static ECHO: Endpoint<(), Note, Note> = Endpoint::new("Echo", Method::Post, "/echo", Shape::Json, 201);
static EMPTY: Endpoint<(), (), ()> = Endpoint::new("Empty", Method::Post, "/empty", Shape::Empty, 204);
static FAIL: Endpoint<(), (), ()> = Endpoint::new("Fail", Method::Get, "/fail/{how}", Shape::Empty, 204);
static SLEEP: Endpoint<(), (), ()> = Endpoint::new("Sleep", Method::Get, "/sleep", Shape::Empty, 204);
static LINES: Endpoint<Many, (), ()> = Endpoint::new("Lines", Method::Get, "/lines", Shape::Stream, 200);
static CUT: Endpoint<(), (), ()> = Endpoint::new("Cut", Method::Get, "/cut", Shape::Stream, 200);
static FOLLOW: Endpoint<(), (), ()> = Endpoint::new("Follow", Method::Get, "/follow", Shape::Stream, 200);
static UPLOAD: Endpoint<(), (), ()> = Endpoint::new("Upload", Method::Put, "/upload", Shape::Stream, 200);
static IGNORE: Endpoint<(), (), ()> = Endpoint::new("Ignore", Method::Put, "/ignore", Shape::Empty, 200);
static SHELL: Endpoint<(), Option<Note>, ()> =
    Endpoint::new("Shell", Method::Post, "/shell", Shape::Hijack, 101);

static ROUTES: &[Route<State>] = &[
    route!(PING, ping),
    route!(PING_HEAD, ping),
    route!(ECHO, echo),
    route!(EMPTY, |_: &State, _: Call| Ok::<_, Failure>(EMPTY.reply(&()))),
    route!(FAIL, fail),
    route!(SLEEP, sleep),
    route!(LINES, lines),
    route!(CUT, cut),
    route!(FOLLOW, follow),
    route!(UPLOAD, upload),
    route!(IGNORE, |_: &State, _: Call| Ok::<_, Failure>(IGNORE.reply(&()))),
    route!(SHELL, shell),
];

static MIDDLEWARES: &[Middleware<State>] = &[
    Middleware::new("version", version::enter)
        .headers(|| vec![("Server", "Docker/1.0 (linux)".to_owned()), ("Api-Version", "1.51".to_owned())]),
    Middleware::new("outer", |state, passing| note(state, passing, "outer")),
    Middleware::new("inner", |state, passing| note(state, passing, "inner")),
];

/// Writes down who saw what; refuses what the request's header says.
fn note(state: &State, passing: &mut Passing<'_>, name: &'static str) -> Result<Option<Leave>, Failure> {
    let Some(wish) = passing.request.raw.headers.get("x-refuse").map(str::to_owned) else { return Ok(None) };
    let refusal = move |side: &str| match wish == format!("{side} {name}") {
        true => Err(Failure { class: Class::Forbidden, message: format!("{side} {name} says no") }),
        false => Ok(()),
    };
    state.seen.lock().unwrap().push(format!("enter {name}"));
    refusal("enter")?;
    let state = state.clone();
    Ok(Some(Box::new(move |reply| {
        state.seen.lock().unwrap().push(format!("leave {name} {}", reply.status()));
        refusal("leave")
    })))
}

fn ping(_: &State, _: Call) -> Result<Reply, Failure> {
    Ok(Reply::bytes("text/plain; charset=utf-8", b"OK".to_vec()).header("Swarm", "inactive"))
}

fn echo(_: &State, call: Call<(), Note>) -> Result<Reply, Failure> {
    Ok(ECHO.reply(&call.body))
}

fn fail(_: &State, call: Call) -> Result<Reply, Failure> {
    let class = match call.param("how") {
        "panic" => panic!("as asked"),
        "304" => Class::NotModified,
        "409" => Class::Conflict,
        _ => Class::System,
    };
    Err(Failure { class, message: format!("fail {}", call.param("how")) })
}

fn sleep(_: &State, _: Call) -> Result<Reply, Failure> {
    thread::sleep(Duration::from_millis(100));
    Ok(SLEEP.reply(&()))
}

fn lines(_: &State, call: Call<Many>) -> Result<Reply, Failure> {
    Ok(LINES.stream("application/json", move |out| {
        for line in 0..call.query.count {
            thread::sleep(Duration::from_millis(30));
            writeln!(out, "line {line}")?;
            out.flush()?;
        }
        Ok(())
    }))
}

fn cut(_: &State, _: Call) -> Result<Reply, Failure> {
    Ok(CUT.stream("application/json", |out| {
        out.write_all(b"half")?;
        out.flush()?;
        Err(std::io::Error::other("as asked"))
    }))
}

fn follow(state: &State, _: Call) -> Result<Reply, Failure> {
    let state = state.clone();
    Ok(FOLLOW.stream("application/json", move |out| {
        let peer = out.peer();
        while peer.wait(&[], None) {}
        state.gone.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }))
}

/// Reads while it answers, like the loading of images.
fn upload(state: &State, mut call: Call) -> Result<Reply, Failure> {
    let state = state.clone();
    Ok(UPLOAD.stream("application/json", move |out| {
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        loop {
            let count = call.raw.body.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            total += count;
        }
        state.uploaded.fetch_add(total, Ordering::Relaxed);
        writeln!(out, "{total}")
    }))
}

/// Answers each line in capitals at once, and says goodbye at the end of input.
fn shell(_: &State, call: Call<(), Option<Note>>) -> Result<Reply, Failure> {
    let prompt = call.body.unwrap_or_default().text;
    Ok(Reply::hijack("application/vnd.docker.multiplexed-stream", move |hijacked| {
        let (reader, mut writer) = hijacked.split();
        let (sender, receiver) = mpsc::channel();
        let input = thread::spawn(move || {
            for line in BufReader::new(reader).lines().map_while(Result::ok) {
                if sender.send(line.to_uppercase()).is_err() {
                    break;
                }
            }
        });
        writer.write_all(prompt.as_bytes()).unwrap();
        for line in receiver {
            if writeln!(writer, "{line}").is_err() || line == "EXIT" {
                return;
            }
        }
        input.join().unwrap();
        let _ = writer.write_all(b"bye\n");
    }))
}

struct Fixture {
    handle: Handle,
    state: State,
    path: PathBuf,
    tcp: std::net::SocketAddr,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.handle.stop(Duration::from_millis(200));
        let _ = std::fs::remove_file(&self.path);
    }
}

fn limits() -> Limits {
    Limits { head_time: Duration::from_millis(400), ..Limits::default() }
}

fn serve(limits: Limits) -> Fixture {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("dewar-http-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = std::env::temp_dir().join(name);
    let _ = std::fs::remove_file(&path);
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let listeners = vec![Listener::Unix(UnixListener::bind(&path).unwrap()), Listener::Tcp(tcp)];
    let state = State::default();
    let table = RouteTable::new(ROUTES).unwrap();
    let server = Server::new(listeners, table, MIDDLEWARES, state.clone(), limits).unwrap();
    Fixture { handle: server.start().unwrap(), state, path, tcp: address }
}

impl Fixture {
    fn connect(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        BufReader::new(stream)
    }

    /// Sends `request` on a connection of its own and reads to the end.
    fn once(&self, request: &[u8]) -> String {
        let mut stream = self.connect();
        // The server may refuse and close before it has read everything.
        let _ = stream.get_mut().write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Reads one answer; `no_body` for HEAD.
fn read_answer(stream: &mut BufReader<impl Read>, no_body: bool) -> Option<Answer> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let value = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name).map(|value| value.trim().to_owned()))
    };
    let mut body = Vec::new();
    if no_body || status == 100 {
    } else if let Some(length) = value("Content-Length:") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).ok()?;
    } else if value("Transfer-Encoding:").is_some() {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some(Answer { status, head, body: String::from_utf8(body).ok()? })
}

fn ask(stream: &mut BufReader<UnixStream>, request: &str) -> Answer {
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    read_answer(stream, request.starts_with("HEAD")).unwrap_or_else(|| panic!("no answer to {request:?}"))
}

const PING_REQUEST: &str = "GET /_ping HTTP/1.1\r\nHost: /run/x.sock\r\n\r\n";

#[test]
fn middlewares_are_passed_in_order_and_back_in_reverse() {
    let server = serve(limits());
    for (target, wish, status, message, seen) in [
        ("GET /_ping", "nothing", 200, "OK", "enter outer, enter inner, leave inner 200, leave outer 200"),
        (
            "GET /fail/409",
            "nothing",
            409,
            "fail 409",
            "enter outer, enter inner, leave inner 409, leave outer 409",
        ),
        ("GET /_ping", "enter outer", 403, "enter outer says no", "enter outer"),
        (
            "GET /_ping",
            "enter inner",
            403,
            "enter inner says no",
            "enter outer, enter inner, leave outer 403",
        ),
        (
            "GET /_ping",
            "leave inner",
            403,
            "leave inner says no",
            "enter outer, enter inner, leave inner 200, leave outer 403",
        ),
        (
            "GET /lines?count=1",
            "leave outer",
            403,
            "leave outer says no",
            "enter outer, enter inner, leave inner 200, leave outer 200",
        ),
        (
            "POST /shell",
            "leave outer",
            403,
            "leave outer says no",
            "enter outer, enter inner, leave inner 101, leave outer 101",
        ),
        ("GET /v1.23/_ping", "nothing", 400, "too old", ""),
        ("GET /nothing", "nothing", 404, "page not found", ""),
    ] {
        let mut stream = server.connect();
        let answer = ask(&mut stream, &format!("{target} HTTP/1.1\r\nX-Refuse: {wish}\r\n\r\n"));
        assert_eq!(answer.status, status, "{target} {wish}");
        assert!(answer.body.contains(message), "{target} {wish}: {}", answer.body);
        assert_eq!(server.state.seen.lock().unwrap().join(", "), seen, "{target} {wish}");
        server.state.seen.lock().unwrap().clear();
        // The connection is as good as before.
        assert_eq!(ask(&mut stream, PING_REQUEST).status, 200);
    }
}

#[test]
fn one_connection_serves_many_shapes_in_turn() {
    let server = serve(limits());
    let mut stream = server.connect();
    for _ in 0..3 {
        let answer = ask(&mut stream, PING_REQUEST);
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
        for line in [
            "HTTP/1.1 200 OK",
            "Server: Docker/1.0 (linux)",
            "Api-Version: 1.51",
            "Swarm: inactive",
            "Content-Type: text/plain; charset=utf-8",
            "Content-Length: 2",
        ] {
            assert!(answer.head.lines().any(|found| found == line), "{line} in {}", answer.head);
        }
        let answer = ask(&mut stream, "HEAD /v1.30/_ping HTTP/1.1\r\n\r\n");
        assert!(answer.head.contains("Content-Length: 2\r\n"));
        let note = "{\"Text\":\"a\\u00fc\"}";
        let answer = ask(
            &mut stream,
            &format!(
                "POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{note}",
                note.len()
            ),
        );
        assert_eq!((answer.status, answer.body.as_str()), (201, "{\"Text\":\"aü\"}\n"));
        assert!(answer.head.contains("Content-Type: application/json\r\n"));
        let answer = ask(&mut stream, "POST /empty HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(answer.status, 204);
        assert!(!answer.head.contains("Content-"), "{}", answer.head);
        let answer = ask(&mut stream, "GET /fail/304 HTTP/1.1\r\n\r\n");
        assert_eq!(answer.status, 304);
        assert!(!answer.head.contains("Content-"), "{}", answer.head);
        let answer = ask(&mut stream, "GET /fail/409 HTTP/1.1\r\n\r\n");
        assert_eq!((answer.status, answer.body.as_str()), (409, "{\"message\":\"fail 409\"}\n"));
        assert!(answer.head.contains("Content-Type: application/json\r\n"));
        let answer = ask(&mut stream, "GET /nothing HTTP/1.1\r\n\r\n");
        assert_eq!((answer.status, answer.body.as_str()), (404, "{\"message\":\"page not found\"}\n"));
        let answer = ask(&mut stream, "POST /_ping HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(answer.status, 404);
        let answer = ask(&mut stream, "GET /v1.99/_ping HTTP/1.1\r\n\r\n");
        assert_eq!(answer.status, 400);
        let answer = ask(&mut stream, "GET /lines?count=2 HTTP/1.1\r\n\r\n");
        assert_eq!((answer.status, answer.body.as_str()), (200, "line 0\nline 1\n"));
        // Past the grace, so that the next request comes through the poller.
        thread::sleep(Duration::from_millis(30));
    }
}

#[test]
fn a_panic_is_one_request_s_problem() {
    let server = serve(limits());
    let mut stream = server.connect();
    for _ in 0..3 {
        assert_eq!(ask(&mut stream, "GET /fail/panic HTTP/1.1\r\n\r\n").status, 500);
        assert_eq!(ask(&mut stream, PING_REQUEST).status, 200);
    }
}

#[test]
fn hostile_requests_are_refused_and_the_connection_closed() {
    let server = serve(limits());
    for (request, status) in [
        ("GET / HTTP/1.1\r\nContent-Length: abc\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST /echo HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        ("POST /echo HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        ("POST /echo HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("GET /_ping HTTP/1.1\r\nA : b\r\n\r\n", 400),
        ("GET /_ping HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        ("GET /_ping\r\n\r\n", 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("\x16\x03\x01\x02\x00\x01\x00", 400),
        (
            "POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            400,
        ),
        ("POST /echo HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
    ] {
        let answer = server.once(request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
        assert!(answer.contains("{\"message\":"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{request:?}: {answer}");
    }
    let long = format!("GET /_ping HTTP/1.1\r\nA: {}\r\n\r\n", "b".repeat(70_000));
    assert!(server.once(long.as_bytes()).starts_with("HTTP/1.1 431 "));
    let many = format!("GET /_ping HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert!(server.once(many.as_bytes()).starts_with("HTTP/1.1 431 "));
    let almost = format!("GET /_ping HTTP/1.1\r\nConnection: close\r\nA: {}\r\n\r\n", "b".repeat(60_000));
    assert!(server.once(almost.as_bytes()).starts_with("HTTP/1.1 200 "));
    // Cut in the middle of a head, and of a body.
    let mut stream = server.connect();
    stream.get_mut().write_all(b"GET /_pi").unwrap();
    stream.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn slow_heads_are_timed_out_and_hold_no_worker() {
    // With one worker, a drip that held it would stop the pings.
    let server = serve(Limits { workers: 1, ..limits() });
    let path = server.path.clone();
    let drip = move |pause: u64| {
        let mut stream = UnixStream::connect(&path).unwrap();
        let start = Instant::now();
        let mut answer = String::new();
        while start.elapsed() < Duration::from_secs(3) {
            if stream.write_all(b"G").is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(pause));
        }
        let _ = stream.read_to_string(&mut answer);
        (answer, start.elapsed())
    };
    let drips: Vec<_> = [2, 30, 3000]
        .into_iter()
        .map(|pause| {
            let drip = drip.clone();
            thread::spawn(move || drip(pause))
        })
        .collect();
    let start = Instant::now();
    let mut pings = 0;
    while start.elapsed() < Duration::from_millis(700) {
        let answer = ask(&mut server.connect(), PING_REQUEST);
        assert_eq!(answer.status, 200);
        pings += 1;
        thread::sleep(Duration::from_millis(5));
    }
    assert!(pings > 5, "{pings}");
    for drip in drips {
        let (answer, _) = drip.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer:?}");
    }
}

#[test]
fn bodies_come_chunked_and_by_length_with_their_exact_end() {
    let server = serve(limits());
    let mut stream = server.connect();
    let answer = ask(
        &mut stream,
        "POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;x=y\r\n{\"T\r\n0b\r\next\":\"abc\"}\r\n0\r\nSum: 1\r\n\r\n",
    );
    assert_eq!(answer.body, "{\"Text\":\"abc\"}\n");
    // Two requests in one segment.
    let answer =
        ask(&mut stream, &format!("PUT /upload HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello{PING_REQUEST}"));
    assert_eq!(answer.body, "5\n");
    assert_eq!(read_answer(&mut stream, false).unwrap().body, "OK");
    // Ignored bodies do not become requests.
    let answer = ask(&mut stream, "PUT /ignore HTTP/1.1\r\nContent-Length: 9\r\n\r\nGET / HTT");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("Content-Length: 0\r\n"));
    let answer =
        ask(&mut stream, "PUT /ignore HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(ask(&mut stream, PING_REQUEST).body, "OK");
    // A large one that nobody reads closes the connection, after an answer that arrives.
    let answer = ask(&mut stream, "PUT /ignore HTTP/1.1\r\nContent-Length: 50000000\r\n\r\nabc");
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("Connection: close\r\n"));
}

#[test]
fn large_uploads_keep_their_size_both_ways_of_framing() {
    let server = serve(limits());
    let mut stream = server.connect();
    let block = vec![7_u8; 100_000];
    for round in 0..2 {
        let mut out = stream.get_ref().try_clone().unwrap();
        let block = block.clone();
        let sender = thread::spawn(move || {
            if round == 0 {
                out.write_all(b"PUT /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
                for _ in 0..200 {
                    write!(out, "{:x}\r\n", block.len()).unwrap();
                    out.write_all(&block).unwrap();
                    out.write_all(b"\r\n").unwrap();
                }
                out.write_all(b"0\r\n\r\n").unwrap();
            } else {
                write!(out, "PUT /upload HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n").unwrap();
                (0..200).for_each(|_| out.write_all(&block).unwrap());
            }
        });
        assert_eq!(read_answer(&mut stream, false).unwrap().body, "20000000\n");
        sender.join().unwrap();
    }
    assert_eq!(server.state.uploaded.load(Ordering::Relaxed), 40_000_000);
    // A body that ends early is an error of the stream, not a short success.
    stream.get_mut().write_all(b"PUT /upload HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    stream.get_mut().shutdown(Shutdown::Write).unwrap();
    assert!(read_answer(&mut stream, false).is_none());
}

#[test]
fn expect_continue_is_answered_only_when_the_body_is_wanted() {
    let server = serve(limits());
    for path in ["/upload", "/echo"] {
        let mut stream = server.connect();
        let method = if path == "/echo" { "POST" } else { "PUT" };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\
             Content-Length: 12\r\n\r\n"
        );
        assert_eq!(ask(&mut stream, &head).status, 100, "{path}");
        assert!(ask(&mut stream, "{\"Text\":\"a\"}").status < 300);
        assert_eq!(ask(&mut stream, PING_REQUEST).status, 200);
    }
    let mut stream = server.connect();
    let head = "PUT /ignore HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n";
    let answer = ask(&mut stream, head);
    assert_eq!(answer.status, 200);
    assert!(answer.head.contains("Connection: close"));
}

#[test]
fn streams_are_sent_line_by_line_and_cut_ones_are_not_whole() {
    let server = serve(limits());
    let mut stream = server.connect();
    let start = Instant::now();
    stream.get_mut().write_all(b"GET /lines?count=5 HTTP/1.1\r\n\r\n").unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        stream.read_line(&mut head).unwrap();
    }
    let at_head = start.elapsed();
    let mut size = String::new();
    stream.read_line(&mut size).unwrap();
    let at_first = start.elapsed();
    assert_eq!(size, "7\r\n");
    assert!(at_head < at_first && at_first < Duration::from_millis(140), "{at_head:?} {at_first:?}");
    let answer = server.once(b"GET /cut HTTP/1.1\r\n\r\n");
    assert!(answer.ends_with("4\r\nhalf\r\n"), "{answer}");
    // HTTP/1.0 knows no chunks.
    let answer = server.once(b"GET /lines?count=1 HTTP/1.0\r\n\r\n");
    assert!(answer.ends_with("\r\n\r\nline 0\n") && !answer.contains("chunked"), "{answer}");
}

#[test]
fn followers_notice_that_their_peer_left_and_starve_nobody() {
    let server = serve(Limits { workers: 2, ..limits() });
    let followers: Vec<_> = (0..32)
        .map(|_| {
            let mut stream = server.connect();
            stream.get_mut().write_all(b"GET /follow HTTP/1.1\r\n\r\n").unwrap();
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            assert!(line.contains("200"), "{line}");
            stream
        })
        .collect();
    assert_eq!(ask(&mut server.connect(), PING_REQUEST).status, 200);
    assert_eq!(server.state.gone.load(Ordering::Relaxed), 0);
    drop(followers);
    let start = Instant::now();
    while server.state.gone.load(Ordering::Relaxed) < 32 {
        assert!(start.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    }
    while server.handle.connections() > 0 {
        assert!(start.elapsed() < Duration::from_secs(5), "{} leaked", server.handle.connections());
        thread::sleep(Duration::from_millis(5));
    }
}

fn upgrade(server: &Fixture, extra: &str, body: &str) -> (String, BufReader<UnixStream>) {
    let mut stream = server.connect();
    let length = body.find('}').map_or(0, |at| at + 1);
    let request = format!(
        "POST /shell HTTP/1.1\r\n{extra}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "{head}");
    }
    (head, stream)
}

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: tcp\r\n";

#[test]
fn upgraded_connections_are_full_duplex_and_half_close() {
    let server = serve(limits());
    // The first line of input comes with the request.
    let (head, mut stream) = upgrade(&server, UPGRADE, "{\"Text\":\"$ \"}one\ntw");
    assert!(head.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{head}");
    for line in
        ["Content-Type: application/vnd.docker.multiplexed-stream", "Connection: Upgrade", "Upgrade: tcp"]
    {
        assert!(head.lines().any(|found| found == line), "{head}");
    }
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, "$ ONE\n");
    for (sent, expected) in [("o\n", "TWO\n"), ("three\n", "THREE\n")] {
        stream.get_mut().write_all(sent.as_bytes()).unwrap();
        line.clear();
        stream.read_line(&mut line).unwrap();
        assert_eq!(line, expected);
    }
    stream.get_mut().shutdown(Shutdown::Write).unwrap();
    line.clear();
    stream.read_to_string(&mut line).unwrap();
    assert_eq!(line, "bye\n");
    let (head, mut stream) = upgrade(&server, "", "");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("Upgrade"), "{head}");
    assert!(head.contains("Content-Type: application/vnd.docker.raw-stream\r\n"), "{head}");
    stream.get_mut().write_all(b"plain\n").unwrap();
    line.clear();
    stream.read_line(&mut line).unwrap();
    assert_eq!(line, "PLAIN\n");
}

#[test]
fn unread_input_does_not_reset_an_upgraded_connection() {
    let server = serve(limits());
    for _ in 0..20 {
        let (_, mut stream) = upgrade(&server, UPGRADE, "");
        stream.get_mut().write_all(b"exit\n").unwrap();
        stream.get_mut().write_all(&[b'x'; 50_000]).unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "EXIT\n");
    }
}

#[test]
fn the_head_of_an_upgrade_is_alone_for_docker_py() {
    let server = serve(limits());
    let mut stream = server.connect();
    let request = format!(
        "POST /shell HTTP/1.1\r\nUser-Agent: docker-sdk-python/7.1.0\r\n{UPGRADE}\
         Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{{\"Text\":\"x\"}}"
    );
    stream.get_mut().write_all(request.as_bytes()).unwrap();
    // However late it is read: on a busy machine a pause of fixed length was over before docker-py woke.
    std::thread::sleep(Duration::from_millis(50));
    let mut first = [0; 4096];
    let count = stream.get_mut().read(&mut first).unwrap();
    assert!(first[..count].ends_with(b"\r\n\r\n"));
}

#[test]
fn bursts_of_connections_are_all_answered() {
    let server = serve(limits());
    for size in [5, 8, 16, 64] {
        for round in 0..50 {
            let mut streams: Vec<_> = (0..size).map(|_| server.connect()).collect();
            streams
                .iter_mut()
                .for_each(|stream| stream.get_mut().write_all(PING_REQUEST.as_bytes()).unwrap());
            for stream in &mut streams {
                let start = Instant::now();
                assert_eq!(read_answer(stream, false).unwrap().status, 200);
                assert!(start.elapsed() < Duration::from_millis(900), "{size} {round}");
            }
        }
    }
}

#[test]
fn slow_calls_run_side_by_side_and_beyond_the_cap_in_turn() {
    let server = serve(Limits { workers: 4, ..limits() });
    let start = Instant::now();
    let mut streams: Vec<_> = (0..12).map(|_| server.connect()).collect();
    streams.iter_mut().for_each(|s| s.get_mut().write_all(b"GET /sleep HTTP/1.1\r\n\r\n").unwrap());
    streams.iter_mut().for_each(|stream| assert_eq!(read_answer(stream, false).unwrap().status, 204));
    let time = start.elapsed();
    assert!(time > Duration::from_millis(290) && time < Duration::from_millis(900), "{time:?}");
}

#[test]
fn slow_bodies_and_lazy_readers_hold_no_worker() {
    let server = serve(Limits { workers: 1, ..limits() });
    let slow: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = server.connect();
            let head = "POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n{";
            stream.get_mut().write_all(head.as_bytes()).unwrap();
            stream
        })
        .collect();
    let text = "a".repeat(4_000_000);
    let lazy: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = server.connect();
            let body = format!("{{\"Text\":\"{text}\"}}");
            let head = format!(
                "POST /echo HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            stream.get_mut().write_all(head.as_bytes()).unwrap();
            stream.get_mut().write_all(body.as_bytes()).unwrap();
            stream
        })
        .collect();
    thread::sleep(Duration::from_millis(50));
    let start = Instant::now();
    assert_eq!(ask(&mut server.connect(), PING_REQUEST).status, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    for mut stream in slow {
        assert_eq!(ask(&mut stream, "\"Text\":\"\"}").status, 201);
    }
    for mut stream in lazy {
        assert_eq!(read_answer(&mut stream, false).unwrap().body.len(), text.len() + 12);
    }
}

/// Descriptors are the whole process's, so this runs in one of its own.
#[test]
fn running_out_of_descriptors_is_survived() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "http::server::tests::out_of_descriptors", "--ignored"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
#[ignore = "run by running_out_of_descriptors_is_survived"]
fn out_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let server = serve(limits());
    let mut idle = server.connect();
    assert_eq!(ask(&mut idle, PING_REQUEST).status, 200);
    let old = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(50), maximum: old.maximum }).unwrap();
    let mut streams = Vec::new();
    while let Ok(stream) = UnixStream::connect(&server.path) {
        streams.push(stream);
    }
    assert!(streams.len() < 60);
    thread::sleep(Duration::from_millis(200));
    // One descriptor for a client again: the server makes its own room by closing idle connections.
    drop(streams.pop());
    let start = Instant::now();
    assert_eq!(ask(&mut server.connect(), PING_REQUEST).status, 200);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(streams);
    for _ in 0..20 {
        assert_eq!(ask(&mut server.connect(), PING_REQUEST).status, 200);
    }
}

#[test]
fn idle_connections_expire_and_make_room() {
    let server = serve(Limits { idle_time: Duration::from_millis(200), connections: 8, ..limits() });
    let mut old: Vec<_> = (0..8).map(|_| server.connect()).collect();
    old.iter_mut().for_each(|stream| assert_eq!(ask(stream, PING_REQUEST).status, 200));
    thread::sleep(Duration::from_millis(50));
    // A ninth: the longest idle one makes room.
    let mut ninth = server.connect();
    assert_eq!(ask(&mut ninth, PING_REQUEST).status, 200);
    thread::sleep(Duration::from_millis(600));
    assert_eq!(server.handle.connections(), 0);
    assert!(old.iter_mut().all(|stream| stream.read(&mut [0; 1]).unwrap() == 0));
}

#[test]
fn tcp_serves_the_same() {
    let server = serve(limits());
    let mut stream = BufReader::new(TcpStream::connect(server.tcp).unwrap());
    for _ in 0..3 {
        stream.get_mut().write_all(b"GET http://any:1/_ping?x HTTP/1.1\r\nHost: [bad\r\n\r\n").unwrap();
        assert_eq!(read_answer(&mut stream, false).unwrap().body, "OK");
        thread::sleep(Duration::from_millis(20));
    }
    // Gone by FIN only: TCP tells no hang-up.
    stream.get_mut().write_all(b"GET /follow HTTP/1.1\r\n\r\n").unwrap();
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    drop(stream);
    let start = Instant::now();
    while server.state.gone.load(Ordering::Relaxed) < 1 {
        assert!(start.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn stop_finishes_short_calls_ends_followers_and_cuts_the_rest() {
    let server = serve(limits());
    let mut idle = server.connect();
    assert_eq!(ask(&mut idle, PING_REQUEST).status, 200);
    let mut short = server.connect();
    short.get_mut().write_all(b"GET /sleep HTTP/1.1\r\n\r\n").unwrap();
    let mut follower = server.connect();
    follower.get_mut().write_all(b"GET /follow HTTP/1.1\r\n\r\n").unwrap();
    let mut line = String::new();
    follower.read_line(&mut line).unwrap();
    let (_, mut shell) = upgrade(&server, UPGRADE, "");
    thread::sleep(Duration::from_millis(30));
    let start = Instant::now();
    assert_eq!(server.handle.stop(Duration::from_millis(300)), 0);
    assert!(start.elapsed() < Duration::from_millis(1200), "{:?}", start.elapsed());
    assert_eq!(read_answer(&mut short, false).unwrap().status, 204);
    assert_eq!(idle.read(&mut [0; 1]).unwrap(), 0);
    assert_eq!(server.state.gone.load(Ordering::Relaxed), 1);
    line.clear();
    shell.read_to_string(&mut line).unwrap();
    assert!(UnixStream::connect(&server.path).is_err());
    assert!(TcpStream::connect(server.tcp).is_err());
}

/// Prints requests per second; run with `--release -- --ignored --nocapture` (the budget is 30k on one
/// connection and 80k on eight).
#[test]
#[ignore = "a measurement, not a check"]
fn throughput_of_ping() {
    let server = serve(limits());
    for connections in [1, 8, 64] {
        let count = Arc::new(AtomicUsize::new(0));
        let end = Instant::now() + Duration::from_secs(2);
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let (mut stream, count) = (UnixStream::connect(&server.path).unwrap(), count.clone());
                thread::spawn(move || {
                    let mut buffer = [0; 4096];
                    while Instant::now() < end {
                        stream.write_all(PING_REQUEST.as_bytes()).unwrap();
                        assert!(stream.read(&mut buffer).unwrap() > 0);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
        eprintln!("{connections} connections: {} requests/s", count.load(Ordering::Relaxed) / 2);
    }
}
