//! Authorization plugins: what they are asked, and that nothing is done they did not allow.

use std::io::{Read, Write};
use std::sync::Arc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::configuration::file;
use crate::support::daemon::BUSYBOX;
use crate::support::http::Connection;
use crate::support::plugin::{Asked, Notebook, Plugin, no, yes};
use crate::support::requires::requires;
use crate::support::{Daemon, TempDir, busybox_tar, eventually};

/// A daemon with plugins in its own directory.
struct Guarded {
    daemon: Daemon,
    notebook: Notebook,
    config: String,
    plugins: Vec<Plugin>,
    _dir: TempDir,
}

impl Guarded {
    /// Nobody is asked yet; the image is there.
    #[track_caller]
    fn new(flags: &[&str]) -> Guarded {
        let (dir, config) = file("");
        let args: Vec<&str> = ["--config-file", &config].into_iter().chain(flags.iter().copied()).collect();
        let is_tcp = flags.contains(&"--insecure-tcp");
        let daemon = if is_tcp { Daemon::on_host(&args, &[]) } else { Daemon::with(&args, &[]) };
        daemon.dewar(&["import"]).arg(busybox_tar()).arg(BUSYBOX).ok();
        Guarded { daemon, notebook: Notebook::default(), config, plugins: Vec::new(), _dir: dir }
    }

    /// Starts a plugin; it is asked after the next [`Guarded::reload`].
    #[track_caller]
    fn plugin(&mut self, name: &str, decide: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) {
        let directory = self.daemon.dir().join("run/plugins");
        self.plugins.push(Plugin::start(&directory, name, &self.notebook, decide));
    }

    /// Asks `names` from now on; gives how the reload went.
    #[track_caller]
    fn reload(&self, names: &[&str]) -> String {
        let before = self.daemon.log().len();
        std::fs::write(&self.config, json!({"authorization-plugins": names}).to_string()).expect("ours");
        let pid = Pid::from_raw(self.daemon.pid().cast_signed()).expect("a pid");
        kill_process(pid, Signal::HUP).expect("the daemon runs");
        let news = || self.daemon.log()[before..].to_owned();
        eventually("the reload", || {
            news().contains("the configuration was reloaded") || news().contains("it stays as it was")
        });
        news()
    }

    /// One plugin, asked from now on.
    #[track_caller]
    fn guard(&mut self, decide: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) {
        self.plugin("guard", decide);
        let news = self.reload(&["guard"]);
        assert!(news.contains("was reloaded"), "{news}");
        self.asked();
    }

    /// What was asked since the last time.
    fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.notebook.lock().expect("no plugin panics"))
    }

    /// Sends bytes as they are; gives the status and body of the first answer.
    #[track_caller]
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut connection = Connection::open(&self.daemon.socket());
        connection.send(request);
        let reply = connection.reply(if request.starts_with(b"HEAD") { "HEAD" } else { "GET" });
        (reply.status, reply.text())
    }

    /// Whether there is a container, asked without a plugin.
    #[track_caller]
    fn has_containers(&self) -> bool {
        self.reload(&[]);
        let list = self.daemon.api("GET", "/containers/json?all=1").is(200).json();
        !list.as_array().expect("a list").is_empty()
    }
}

impl Drop for Guarded {
    /// The daemon's own end must not depend on a plugin.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.reload(&[]);
        }
    }
}

#[test]
fn the_stock_client_shows_a_denial() {
    requires!(root, docker);
    let mut guarded = Guarded::new(&[]);
    guarded.daemon.run_detached("web", &[], "sleep 1000");
    guarded.guard(|asked| match asked.field("RequestUri") {
        uri if uri.contains("/create") || uri.contains("/exec") || uri.contains("/attach") => no("not you"),
        _ => yes(),
    });
    let denied = "Error response from daemon: authorization denied by plugin guard: not you";
    for args in [
        &["create", "--network", "none", BUSYBOX, "true"][..],
        &["exec", "web", "true"],
        &["run", "--network", "none", BUSYBOX, "true"],
    ] {
        let output = guarded.daemon.docker(args).run();
        assert_ne!(output.code, 0, "{output}");
        output.stderr_has(denied);
    }
    // The client has words of its own there.
    guarded.daemon.docker(&["attach", "web"]).fails(1).stderr_has("unable to upgrade to tcp, received 403");
    guarded.daemon.docker(&["ps"]).ok().stdout_has("web");
    guarded.daemon.docker(&["info"]).ok().stdout_has("Authorization: guard");
    // The other way to a container's streams.
    let upgrade = "GET /containers/web/attach/ws?stream=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert_eq!(guarded.raw(upgrade.as_bytes()).0, 403);
}

#[test]
fn whatever_is_allowed_works_as_without_plugins() {
    requires!(root, docker);
    let mut guarded = Guarded::new(&[]);
    guarded.guard(|_| yes());
    let run = guarded
        .daemon
        .docker(&["run", "-i", "--rm", "--network", "none", BUSYBOX, "cat"])
        .stdin("in and out");
    run.ok().stdout_is("in and out");
    let lines: Vec<String> =
        guarded.asked().iter().filter(|asked| !asked.is_answer).map(Asked::line).collect();
    for part in ["HEAD /_ping", "/containers/create", "/attach?", "/wait?", "/start"] {
        assert!(lines.iter().any(|line| line.contains(part)), "{part} in {lines:?}");
    }
}

#[test]
fn plugins_are_asked_in_order_and_about_answers_in_reverse() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    guarded.plugin("first", |_| yes());
    guarded.plugin("second", |_| yes());
    guarded.reload(&["first", "second", "first"]);
    guarded.asked();
    let mut connection = Connection::open(&guarded.daemon.socket());
    let secret = [("Authorization", "hidden"), ("X-Registry-Auth", "hidden"), ("x-my-header", "seen")];
    let body = br#"{"Image":"none"}"#;
    connection.request("POST", "/v1.51/containers/create?name=a", &secret, Some(body));
    connection.reply("POST").refuses(404, "No such image");
    let asked = guarded.asked();
    let order: Vec<_> = asked.iter().map(|asked| (asked.plugin.as_str(), asked.is_answer)).collect();
    assert_eq!(order, [("first", false), ("second", false), ("second", true), ("first", true)]);
    for asked in &asked {
        assert_eq!(asked.line(), "POST /v1.51/containers/create?name=a");
        assert_eq!(asked.body("RequestBody").as_bytes(), body);
        assert_eq!(asked.question["RequestHeaders"]["X-My-Header"], "seen");
        assert_eq!(asked.question["RequestHeaders"]["Content-Type"], "application/json");
        assert!(!asked.question.to_string().contains("hidden"), "{asked:?}");
        assert_eq!(asked.question.get("User"), None, "nobody proved who they are: {asked:?}");
    }
    assert_eq!(asked[0].question.get("ResponseStatusCode"), None);
    for answer in &asked[2..] {
        assert_eq!(answer.question["ResponseStatusCode"], 404);
        assert!(answer.body("ResponseBody").contains("No such image"), "{answer:?}");
        assert_eq!(answer.question["ResponseHeaders"]["Content-Type"], "application/json");
    }
}

/// What decides is what the handler will read, not what the client says of it: CVE-2024-41110 and its kin.
#[test]
fn no_way_of_sending_a_body_hides_it() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    let is_shown = |asked: &Asked| asked.body("RequestBody").contains("\"Privileged\":true");
    guarded.guard(move |asked| if is_shown(asked) { no("no privileges") } else { yes() });
    let body = format!(r#"{{"Image":"{BUSYBOX}","HostConfig":{{"Privileged":true,"NetworkMode":"none"}}}}"#);
    let length = format!("Content-Length: {}", body.len());
    let (one, rest) = body.split_at(7);
    let chunked = format!("{:x}\r\n{one}\r\n{:x};x=y\r\n{rest}\r\n0\r\nX: y\r\n\r\n", one.len(), rest.len());
    const JSON: &str = "Content-Type: application/json";
    for (headers, body) in [
        (vec![JSON, &length], &body),
        (vec![&length], &body),
        (vec!["Content-Type: text/plain", &length], &body),
        (vec!["Content-Type: text/plain", JSON, &length], &body),
        (vec![JSON, "Content-Type: application/x-tar", &length], &body),
        (vec!["content-type: Application/JSON; charset=utf-8", &length], &body),
        (vec![JSON, &length, "Content-Encoding: gzip"], &body),
        (vec![JSON, &length, "X-Registry-Auth: x", "Content-Length-: 0"], &body),
        (vec![JSON, "Transfer-Encoding: chunked"], &chunked),
        (vec!["Transfer-Encoding: Chunked"], &chunked),
    ] {
        let request =
            format!("POST /containers/create HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n{body}", headers.join("\r\n"));
        let (status, text) = guarded.raw(request.as_bytes());
        assert_eq!(status, 403, "{headers:?}: {text}");
        assert!(text.contains("authorization denied by plugin guard: no privileges"), "{text}");
    }
    // What the plugin is not shown, the handler does not have either.
    for headers in [
        vec![JSON, "Content-Length: 0"],
        vec![JSON],
        vec![JSON, "Content-Length: 0", "Transfer-Encoding: chunked"],
        vec![JSON, "Content-Length: 0", &length],
        vec![JSON, "Transfer-Encoding: chunked, identity"],
    ] {
        let request =
            format!("POST /containers/create HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n{body}", headers.join("\r\n"));
        let (status, text) = guarded.raw(request.as_bytes());
        assert!((400..=501).contains(&status), "{headers:?}: {status} {text}");
    }
    assert!(!guarded.has_containers());
}

/// CVE-2026-34040: a body too large to be shown was not shown, and served.
#[test]
fn a_body_too_large_to_be_shown_is_refused() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    guarded.guard(|_| yes());
    let body =
        format!(r#"{{"Image":"{BUSYBOX}","HostConfig":{{"NetworkMode":"none"}}}}{}"#, " ".repeat(4 << 20));
    for framing in ["length", "chunked"] {
        let head = "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = match framing {
            "length" => format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
            _ => format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        };
        let mut connection = Connection::open(&guarded.daemon.socket());
        // The daemon may answer before it has everything.
        drop(connection.stream().try_clone().expect("a descriptor").write_all(request.as_bytes()));
        connection.reply("POST").refuses(413, "larger than 4 MiB");
    }
    assert!(guarded.asked().iter().all(|asked| asked.field("RequestUri") != "/containers/create"));
    assert!(!guarded.has_containers());
}

#[test]
fn the_uri_is_what_is_routed_however_it_is_spelt() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    guarded.guard(|_| yes());
    for (request, line) in [
        ("GET /containers/json", "GET /containers/json"),
        ("GET /v1.44/containers/json?all=1", "GET /v1.44/containers/json?all=1"),
        ("GET http://other/v1.44/containers/json", "GET /v1.44/containers/json"),
        ("GET x://y/containers/json?%61ll=1", "GET /containers/json?all=1"),
        ("GET /v01.0044/containers/json", "GET /v1.44/containers/json"),
        ("HEAD /_ping", "HEAD /_ping"),
        ("GET /containers/w%65b/json", "GET /containers/web/json"),
        ("DELETE /images/a%2fb", "DELETE /images/a/b"),
    ] {
        guarded.raw(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let asked = guarded.asked();
        assert_eq!(asked.first().map(Asked::line).as_deref(), Some(line), "{request}");
    }
    for request in [
        "GET /v1.51/../containers/json",
        "GET //containers/json",
        "GET /images/../containers/json",
        "GET /images/%2e%2e/containers/json",
        "GET /containers%2fjson",
        "HEAD /containers/json",
        "get /containers/json",
        "GET containers/json",
    ] {
        let (status, text) = guarded.raw(format!("{request} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        assert!((400..405).contains(&status), "{request}: {status} {text}");
        assert!(guarded.asked().is_empty(), "{request}");
    }
}

#[test]
fn a_plugin_that_does_not_plainly_say_yes_says_no() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    let answer = Arc::new(std::sync::Mutex::new(yes()));
    let says = Arc::clone(&answer);
    guarded.guard(move |_| says.lock().expect("nobody panics").clone());
    guarded.daemon.api("GET", "/version").is(200);
    for (status, text, wanted, part) in [
        (200, "{}", 403, "authorization denied by plugin guard: "),
        (200, "yes", 500, "plugin guard failed with error: AuthZPlugin.AuthZReq: read the plugin's answer"),
        (200, r#"{"Allow":"true"}"#, 500, "plugin guard failed with error"),
        (200, r#"{"Allow":true,"Err":"no idea"}"#, 500, "failed with error: AuthZPlugin.AuthZReq: no idea"),
        (500, r#"{"Err":"an error"}"#, 500, "plugin guard failed with error: AuthZPlugin.AuthZReq: an error"),
        (404, r#"{"Allow":true}"#, 500, "plugin guard failed with error"),
    ] {
        *answer.lock().expect("nobody panics") = (status, text.to_owned());
        guarded.daemon.api("GET", "/version").refuses(wanted, part);
    }
    let large = format!(r#"{{"Allow":true,"Msg":"{}"}}"#, "x".repeat(100_000));
    *answer.lock().expect("nobody panics") = (200, large);
    guarded.daemon.api("GET", "/version").refuses(500, "larger than 65536 bytes");
    *answer.lock().expect("nobody panics") = yes();
    guarded.daemon.api("GET", "/version").is(200);
    // A plugin that has gone, and one that is back.
    guarded.plugins.clear();
    guarded.daemon.api("GET", "/_ping").refuses(500, "plugin guard failed with error");
    guarded.plugin("guard", |_| yes());
    guarded.daemon.api("GET", "/_ping").is(200);
}

#[test]
fn an_answer_that_is_denied_is_not_given() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    guarded.daemon.run_detached("web", &[], "echo secret; sleep 1000");
    eventually("the output", || guarded.daemon.logs("web").contains("secret"));
    guarded.guard(|asked| if asked.is_answer { no("too much said") } else { yes() });
    let upgrade = "POST /containers/web/attach?stream=1&stdin=1&stdout=1&logs=1 HTTP/1.1\r\nHost: x\r\n\
        Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    for request in [
        "GET /containers/json HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/web/logs?stdout=1&follow=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /containers/web/archive?path=/etc HTTP/1.1\r\nHost: x\r\n\r\n",
        upgrade,
        "GET /containers/none/json HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n",
    ] {
        let (status, text) = guarded.raw(request.as_bytes());
        assert_eq!(status, 403, "{request}: {text}");
        assert_eq!(
            text, "{\"message\":\"authorization denied by plugin guard: too much said\"}\n",
            "{request}"
        );
    }
    let statuses: Vec<Value> = guarded
        .asked()
        .iter()
        .filter(|asked| asked.is_answer)
        .map(|asked| {
            let is_stream =
                ["/logs", "/events", "/archive", "/attach"].iter().any(|part| asked.line().contains(part));
            assert!(!is_stream || asked.question.get("ResponseBody").is_none(), "{asked:?}");
            asked.question["ResponseStatusCode"].clone()
        })
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 101, 404, 200]);
    // The container and its streams are as before.
    guarded.reload(&[]);
    guarded.daemon.docker(&["kill", "web"]).ok();
}

/// The end of an attachment that was never given out used to be the end of the container's input.
#[test]
fn a_denied_attachment_is_forgotten() {
    requires!(root, docker);
    let mut guarded = Guarded::new(&[]);
    guarded.daemon.docker(&["create", "-i", "--name", "echo", "--network", "none", BUSYBOX, "cat"]).ok();
    guarded.guard(|asked| if asked.is_answer { no("too much said") } else { yes() });
    let attach = "POST /containers/echo/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: x\r\n\
        Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(guarded.raw(attach.as_bytes()).0, 403);
    guarded.reload(&[]);
    let start = guarded.daemon.docker(&["start", "-ai", "echo"]).stdin("in and out");
    start.ok().stdout_is("in and out");
}

/// As with Docker: an archive may be of any size, and says nothing a plugin could read in time.
#[test]
fn uploads_are_asked_about_without_their_content() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    guarded.guard(|asked| if asked.line().contains("/images/load") { no("no images") } else { yes() });
    let tar = vec![0_u8; 6 << 20];
    let mut connection = Connection::open(&guarded.daemon.socket());
    let head = format!(
        "POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        tar.len()
    );
    connection.send(head.as_bytes());
    drop(connection.stream().try_clone().expect("a descriptor").write_all(&tar));
    connection.reply("POST").refuses(403, "no images");
    let asked = guarded.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0].question.get("RequestBody"), None);
}

#[test]
fn a_reload_adds_and_removes_plugins_or_leaves_them() {
    requires!(root);
    let mut guarded = Guarded::new(&[]);
    guarded.guard(|asked| if asked.line() == "GET /version" { no("never") } else { yes() });
    guarded.daemon.api("GET", "/version").refuses(403, "never");
    for names in [&["guard", "absent"][..], &["../guard"], &["driver"]] {
        let directory = guarded.daemon.dir().join("run/plugins");
        let _driver = Plugin::of_kind("VolumeDriver", &directory, "driver", &guarded.notebook, |_| yes());
        let news = guarded.reload(names);
        assert!(news.contains("it stays as it was") && news.contains(names[names.len() - 1]), "{news}");
        guarded.daemon.api("GET", "/version").refuses(403, "never");
    }
    guarded.reload(&[]);
    guarded.daemon.api("GET", "/version").is(200);
    assert_eq!(guarded.daemon.api("GET", "/info").is(200).json()["Plugins"]["Authorization"], json!([]));
    // From the start on, too.
    guarded.reload(&["guard"]);
    assert_eq!(guarded.daemon.stop(), 0);
    guarded.daemon.restart();
    guarded.daemon.api("GET", "/version").refuses(403, "never");
}

#[test]
fn a_daemon_without_its_plugin_does_not_start() {
    requires!(root);
    let dir = TempDir::new();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let second = crate::support::Cmd::new(crate::support::binary()).args([
        "daemon",
        "--authorization-plugin",
        "absent",
    ]);
    let output = second
        .args(["--data-root", &path("data"), "--exec-root", &path("run")])
        .args(["-H", &format!("unix://{}", path("x.sock"))])
        .run();
    assert_eq!(output.code, 1, "{output}");
    output.stderr_has("failed to start daemon").stderr_has("plugin \"absent\" not found").no_panic();
}

#[test]
fn every_listener_is_guarded() {
    requires!(root);
    // Free a moment ago, and of no one else's by then: the kernel hands ephemeral ports out in turn.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let address = format!("127.0.0.1:{}", port.expect("loopback has ports").port());
    let mut guarded = Guarded::new(&["--insecure-tcp", "-H", &format!("tcp://{address}")]);
    guarded.guard(|asked| if asked.line() == "GET /version" { no("never") } else { yes() });
    let mut stream = std::net::TcpStream::connect(&address).expect("the daemon listens");
    stream.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("never"), "{answer}");
}
