//! A registry made of sockets: what is asked, in which order, with what.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};

use super::*;

/// Answers every request by `serve(line, headers, body)`; tells what it was asked.
struct Server {
    port: u16,
    asked: Receiver<String>,
}

impl Server {
    fn new(serve: impl Fn(&str, &str, &[u8]) -> String + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, asked) = channel();
        std::thread::spawn(move || {
            let serve = Arc::new(serve);
            for stream in listener.incoming().flatten() {
                let (serve, sender) = (Arc::clone(&serve), sender.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some((line, headers, body)) = read_request(&mut reader) {
                        let _ = sender.send(line.clone());
                        let answer = serve(&line, &headers, &body);
                        if (&stream).write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Server { port, asked }
    }

    fn registry(&self, options: Options) -> Registry {
        Registry::new(&format!("http://127.0.0.1:{}", self.port), options).unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.try_iter().collect()
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, Vec<u8>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut headers = String::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? == 0 {
            return None;
        }
        if header == "\r\n" {
            break;
        }
        headers
            .push_str(&header.to_ascii_lowercase().replace("authorization: basic ", "authorization: Basic "));
    }
    let mut body = Vec::new();
    if let Some((_, rest)) = headers.split_once("content-length: ") {
        let length: usize = rest.lines().next()?.trim().parse().ok()?;
        body.resize(length, 0);
        reader.read_exact(&mut body).ok()?;
    } else if headers.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).ok()?;
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }
    Some((line.trim_end().trim_end_matches(" HTTP/1.1").to_owned(), headers, body))
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_token_is_fetched_once_for_a_scope_and_again_when_it_has_run_out() {
    use std::sync::atomic::{AtomicU32, Ordering};
    let tokens = AtomicU32::new(0);
    let server = Server::new(move |line, headers, _| {
        let port =
            headers.split_once("host: 127.0.0.1:").unwrap().1.lines().next().unwrap().trim().to_owned();
        if line.starts_with("GET /token?") {
            assert!(headers.contains("authorization: Basic"), "{headers}");
            let number = tokens.fetch_add(1, Ordering::Relaxed);
            return answer("200 OK", "", &format!("{{\"token\":\"t{number}\"}}"));
        }
        let valid = tokens.load(Ordering::Relaxed).saturating_sub(1);
        // The first token is good once only.
        let is_known = headers.contains(&format!("authorization: bearer t{valid}\r\n"));
        if is_known && !(line.contains("/late") && valid == 0) {
            return answer("200 OK", "Docker-Content-Digest: sha256:x\r\n", "");
        }
        let header =
            format!("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"s\"\r\n");
        answer("401 Unauthorized", &header, "{}")
    });
    let credentials =
        Credentials { username: "me".into(), password: "secret".into(), ..Credentials::default() };
    let registry = server.registry(Options { credentials, ..Options::default() });
    registry.head_manifest("a/b", "one", &[]).unwrap();
    registry.head_manifest("a/b", "two", &[]).unwrap();
    registry.head_manifest("a/b", "late", &[]).unwrap();
    let token = "GET /token?service=s&scope=repository%3Aa%2Fb%3Apull&account=me";
    assert_eq!(
        server.asked(),
        [
            "GET /v2/",
            token,
            "HEAD /v2/a/b/manifests/one",
            "HEAD /v2/a/b/manifests/two",
            "HEAD /v2/a/b/manifests/late",
            token,
            "HEAD /v2/a/b/manifests/late"
        ]
    );
}

#[test]
fn an_identity_token_is_exchanged_by_post_and_never_sent_elsewhere() {
    let server = Server::new(|line, headers, body| {
        let port =
            headers.split_once("host: 127.0.0.1:").unwrap().1.lines().next().unwrap().trim().to_owned();
        if line == "POST /token" {
            let text = String::from_utf8_lossy(body).into_owned();
            assert!(text.contains("grant_type=refresh_token") && text.contains("refresh_token=id"), "{text}");
            return answer("200 OK", "", "{\"access_token\":\"t\"}");
        }
        if headers.contains("authorization: bearer t\r\n") {
            return answer("200 OK", "", "{\"tags\":[]}");
        }
        let header =
            format!("WWW-Authenticate: Bearer realm=\"http://127.0.0.1:{port}/token\",service=\"s\"\r\n");
        answer("401 Unauthorized", &header, "{}")
    });
    let credentials = Credentials { identity_token: "id".into(), ..Credentials::default() };
    let registry = server.registry(Options { credentials, ..Options::default() });
    assert!(registry.list_tags("a").unwrap().is_empty());
    assert_eq!(server.asked(), ["GET /v2/", "POST /token", "GET /v2/a/tags/list"]);
}

#[test]
fn a_registry_that_wants_a_password_says_so_without_being_asked_twice() {
    let server =
        Server::new(|_, _, _| answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"r\"\r\n", "{}"));
    let failure = server.registry(Options::default()).head_manifest("a", "x", &[]).unwrap_err();
    assert!(failure.to_string().ends_with("/v2/a/manifests/x\": no basic auth credentials"), "{failure}");
    let credentials = Credentials { username: "me".into(), password: "no".into(), ..Credentials::default() };
    let failure = server.registry(Options { credentials, ..Options::default() }).login().unwrap_err();
    assert_eq!(failure.status(), 401, "{failure}");
}

#[test]
fn redirects_to_another_host_carry_no_password() {
    let other = Server::new(|line, headers, _| {
        assert!(!headers.contains("authorization"), "{line}\n{headers}");
        answer("200 OK", "", "content")
    });
    let target = other.port;
    let server = Server::new(move |line, headers, _| match line {
        "GET /v2/" => answer("401 x", "WWW-Authenticate: Basic realm=\"r\"\r\n", ""),
        _ => {
            assert!(headers.contains("authorization: Basic"), "{headers}");
            answer("307 x", &format!("Location: http://localhost:{target}/elsewhere\r\n"), "")
        }
    });
    let credentials = Credentials { username: "me".into(), password: "pw".into(), ..Credentials::default() };
    let registry = server.registry(Options { credentials, ..Options::default() });
    let mut text = String::new();
    registry.get_blob("a", "sha256:0", 0).unwrap().reader.read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), other.asked()), ("content", vec!["GET /elsewhere".to_owned()]));
}

#[test]
fn blobs_go_on_where_they_broke_off() {
    let ranged = Server::new(|line, headers, _| match line {
        "GET /v2/" => answer("200 OK", "", ""),
        _ if headers.contains("range: bytes=4-") => {
            answer("206 Partial Content", "Content-Range: bytes 4-7/8\r\n", "5678")
        }
        _ if headers.contains("range: bytes=5-") => {
            answer("206 Partial Content", "Content-Range: bytes 4-7/8\r\n", "5678")
        }
        _ => answer("200 OK", "", "12345678"),
    });
    let registry = ranged.registry(Options::default());
    let read = |from| {
        let blob = registry.get_blob("a", "sha256:0", from)?;
        let (mut reader, total) = (blob.reader, blob.total);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        Ok::<_, RegistryError>((text, total))
    };
    assert_eq!(read(0).unwrap(), ("12345678".to_owned(), Some(8)));
    assert_eq!(read(4).unwrap(), ("5678".to_owned(), Some(8)));
    // The whole blob is sent: what is known is skipped.
    assert_eq!(read(6).unwrap(), ("78".to_owned(), Some(8)));
    // Not what was asked for.
    assert!(read(5).unwrap_err().to_string().contains("asked for bytes from 5"));
    assert!(read(9).unwrap_err().to_string().contains("ends after 8 bytes"));
}

#[test]
fn tags_come_in_pages() {
    let server = Server::new(|line, _, _| match line {
        "GET /v2/" => answer("200 OK", "", ""),
        "GET /v2/a/tags/list" => answer(
            "200 OK",
            "Link: </v2/a/tags/list?last=b&n=2>; rel=\"next\"\r\n",
            "{\"tags\":[\"a\",\"b\"]}",
        ),
        "GET /v2/a/tags/list?last=b&n=2" => answer("200 OK", "", "{\"tags\":[\"c\"]}"),
        "GET /v2/none/tags/list" => answer("200 OK", "", "{\"tags\":null}"),
        _ => {
            answer("404 Not Found", "", "{\"errors\":[{\"code\":\"NAME_UNKNOWN\",\"message\":\"unknown\"}]}")
        }
    });
    let registry = server.registry(Options::default());
    assert_eq!(registry.list_tags("a").unwrap(), ["a", "b", "c"]);
    assert!(registry.list_tags("none").unwrap().is_empty());
    assert_eq!(registry.list_tags("b").unwrap_err().code(), "NAME_UNKNOWN");
}

#[test]
fn uploads_go_where_the_registry_says() {
    let server = Server::new(|line, headers, body| match line {
        "GET /v2/" => answer("200 OK", "", ""),
        "POST /v2/a/blobs/uploads/" => answer("202 Accepted", "Location: /up/1\r\n", ""),
        "PATCH /up/1" => {
            assert_eq!(body, b"some bytes");
            assert!(headers.contains("content-type: application/octet-stream"), "{headers}");
            answer("202 Accepted", "Location: /up/2?state=x\r\n", "")
        }
        "PUT /up/2?state=x&digest=sha256%3A00" => answer("201 Created", "", ""),
        "POST /v2/a/blobs/uploads/?mount=sha256%3A00&from=b" => answer("201 Created", "", ""),
        "POST /v2/a/blobs/uploads/?mount=sha256%3A11&from=b" => {
            answer("202 Accepted", "Location: /up/3\r\n", "")
        }
        _ => answer("400 Bad Request", "", ""),
    });
    let registry = server.registry(Options::default());
    for length in [None, Some(10)] {
        let mut upload = registry.start_upload("a").unwrap();
        registry.patch(&mut upload, &mut &b"some bytes"[..], length).unwrap();
        registry.finish(upload, "sha256:00").unwrap();
    }
    assert!(matches!(registry.mount("a", "sha256:00", "b").unwrap(), Mount::Mounted));
    let Mount::Upload(upload) = registry.mount("a", "sha256:11", "b").unwrap() else { panic!("mounted") };
    assert_eq!(registry.finish(upload, "sha256:00").unwrap_err().status(), 400);
}

#[test]
fn manifests_are_limited_and_have_the_digest_they_were_asked_by() {
    let server = Server::new(|line, headers, _| match line {
        "GET /v2/" => answer("200 OK", "", ""),
        "GET /v2/a/manifests/large" => answer("200 OK", "", &" ".repeat(SMALL_BYTES as usize + 1)),
        _ => {
            assert!(headers.contains("accept: x/one\r\naccept: x/two\r\n"), "{headers}");
            answer("200 OK", "Content-Type: x/one; charset=utf-8\r\n", "{}")
        }
    });
    let registry = server.registry(Options::default());
    let manifest = registry.get_manifest("a", "t", &["x/one", "x/two"]).unwrap();
    assert_eq!((manifest.media_type.as_str(), &manifest.digest), ("x/one", &digest_of(b"{}")));
    let other = digest_of(b"other");
    let failure = registry.get_manifest("a", &other, &["x/one", "x/two"]).unwrap_err();
    assert!(failure.to_string().contains("manifest verification failed"), "{failure}");
    assert!(registry.get_manifest("a", "large", &[]).unwrap_err().to_string().contains("larger than"));
}

#[test]
fn who_is_not_there_is_told_in_gos_words_and_who_cancels_is_heard() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let registry = Registry::new(&format!("http://127.0.0.1:{free}"), Options::default()).unwrap();
    let failure = registry.ping().unwrap_err();
    let wanted = format!(
        "Get \"http://127.0.0.1:{free}/v2/\": dial tcp 127.0.0.1:{free}: connect: connection refused"
    );
    assert_eq!(failure.to_string(), wanted);
    // A server that never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let cancel = Cancel::default();
    let options = Options { cancel: cancel.clone(), ..Options::default() };
    let registry = Registry::new(&format!("http://127.0.0.1:{port}"), options).unwrap();
    let asking = std::thread::spawn(move || registry.ping());
    let _connection = listener.accept().unwrap();
    cancel.cancel();
    assert!(matches!(asking.join().unwrap().unwrap_err(), RegistryError::Cancelled));
}

#[test]
fn places_are_found_from_where_one_is() {
    for (url, reference, wanted) in [
        ("http://h/v2/a?x=1", "/b", "http://h/b"),
        ("http://h/v2/a?x=1", "b", "http://h/v2/b"),
        ("http://h/v2/a?x=1", "?y", "http://h/v2/a?y"),
        ("https://h/v2/a", "//i/b", "https://i/b"),
        ("https://h/v2/a", "http://i/b", "http://i/b"),
    ] {
        assert_eq!(join(url, reference), wanted);
    }
}
