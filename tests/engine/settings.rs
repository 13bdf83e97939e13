//! The docker client's settings and contexts, as dewar's client honours them.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use crate::support::requires::requires;
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, TempDir, binary};

/// `dewar args` with the settings in `dir`, and nothing else to tell it where the daemon is.
fn dewar(dir: &TempDir, args: &[&str]) -> Cmd {
    Cmd::new(binary()).env("DOCKER_CONFIG", dir.path()).args(args)
}

#[test]
fn contexts_are_shared_with_docker() {
    requires!(root, docker);
    let daemon = Daemon::empty();
    let dir = TempDir::new();
    let docker_path = crate::support::requires::docker_path().expect("required above");
    let docker = |args: &[&str]| Cmd::new(&docker_path).env("DOCKER_CONFIG", dir.path()).args(args);
    let host = format!("host={}", daemon.host());
    docker(&["context", "create", "far", "--description", "over there", "--docker", &host]).ok();
    let name = "{{.Name}}";
    let real = dewar(&dir, &["--context", "far", "info", "-f", name]).ok().stdout;
    assert!(!real.trim().is_empty());
    dewar(&dir, &["info", "-f", name]).env("DOCKER_CONTEXT", "far").ok().stdout_is(&real);
    dewar(&dir, &["context", "use", "far"])
        .ok()
        .stdout_is("far\n")
        .stderr_has("Current context is now \"far\"");
    docker(&["context", "show"]).ok().stdout_is("far\n");
    dewar(&dir, &["info", "-f", name]).ok().stdout_is(&real);
    dewar(&dir, &["version", "-f", "{{.Client.Context}}"]).ok().stdout_is("far\n");
    // The other way round: docker uses what dewar made.
    dewar(&dir, &["context", "create", "near", "--docker", &host]).ok().stdout_is("near\n");
    docker(&["--context", "near", "info", "-f", name]).ok().stdout_is(&real);
    let columns = "{{.Name}} {{.Description}} {{.Current}}";
    let list = docker(&["context", "ls", "--format", columns]).ok().stdout;
    dewar(&dir, &["context", "ls", "--format", columns]).ok().stdout_is(&list);
    dewar(&dir, &["context", "ls"]).ok().stdout_has("far *").stdout_has("over there");
    let one = docker(&["context", "inspect", "far", "near"]).ok().stdout;
    dewar(&dir, &["context", "inspect", "far", "near"]).ok().stdout_is(&one);
    // DOCKER_HOST comes before what was chosen, --context before DOCKER_HOST.
    dewar(&dir, &["ps"]).env("DOCKER_HOST", "unix:///nonexistent/x").fails(1).stderr_has("/nonexistent/x");
    dewar(&dir, &["-c", "far", "ps"]).env("DOCKER_HOST", "unix:///nonexistent/x").ok();
    dewar(&dir, &["-c", "far", "-H", "unix:///x", "ps"]).fails(1).stderr_has("both --host and --context");
    dewar(&dir, &["-c", "lost", "ps"]).fails(1).stderr_has("context \"lost\": context not found: open ");
    dewar(&dir, &["context", "rm", "far"]).fails(1).stderr_has("is in use");
    dewar(&dir, &["context", "rm", "-f", "far", "near"]).ok();
    docker(&["context", "show"]).ok().stdout_is("default\n");
}

#[test]
fn formats_and_proxies_come_from_the_settings() {
    requires!(root);
    let daemon = Daemon::start();
    let dir = TempDir::new();
    let settings = r#"{"psFormat": "{{.Names}}!", "imagesFormat": "table {{.Repository}}",
        "proxies": {"default": {"httpProxy": "http://proxy:1", "noProxy": "here"}}}"#;
    std::fs::write(dir.path().join("config.json"), settings).expect("a fresh directory");
    let host = daemon.host();
    let on = |args: &[&str]| dewar(&dir, &["-H", &host]).args(args);
    on(&["run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "1000"]).ok();
    on(&["ps"]).ok().stdout_is("web!\n");
    on(&["ps", "--format", "{{.State}}"]).ok().stdout_is("running\n");
    on(&["ps", "--format", "table"]).ok().stdout_has("CONTAINER ID");
    on(&["images"]).ok().stdout_is("REPOSITORY\nbusybox\n");
    on(&[
        "run",
        "--rm",
        "--network",
        "none",
        "-e",
        "NO_PROXY=mine",
        "busybox",
        "sh",
        "-c",
        "echo $http_proxy $NO_PROXY $no_proxy",
    ])
    .ok()
    .stdout_is("http://proxy:1 mine here\n");
    std::fs::write(dir.path().join("config.json"), "{nonsense").expect("a directory of ours");
    on(&["ps", "-q"]).ok().stderr_has("WARNING: Error loading config file");
}

/// Answers each request by its first line, and keeps what came.
fn fake(
    answer: impl Fn(&str) -> (u16, &'static str) + Send + 'static,
) -> (TempDir, String, Arc<Mutex<String>>) {
    let dir = TempDir::new();
    let socket = dir.path().join("fake.sock");
    let listener = UnixListener::bind(&socket).expect("a socket in a fresh directory");
    let seen = Arc::new(Mutex::new(String::new()));
    let kept = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut bytes = vec![0; 8192];
            let count = stream.read(&mut bytes).unwrap_or(0);
            let head = String::from_utf8_lossy(&bytes[..count]).into_owned();
            let (status, body) = answer(head.lines().next().unwrap_or_default());
            kept.lock().expect("no test panics with it").push_str(&head);
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            drop(stream.write_all((head + body).as_bytes()));
        }
    });
    let host = format!("unix://{}", socket.display());
    (dir, host, seen)
}

#[test]
fn headers_of_the_settings_are_sent() {
    let (dir, host, seen) = fake(|_| (200, "[]"));
    let settings = r#"{"HttpHeaders": {"X-Team": "blue"}}"#;
    std::fs::write(dir.path().join("config.json"), settings).expect("a fresh directory");
    dewar(&dir, &["-H", &host, "ps", "-q"]).ok().stdout_is("");
    let seen = seen.lock().expect("the server does not panic").to_ascii_lowercase();
    assert!(seen.contains("\r\nx-team: blue\r\n"), "{seen}");
}

#[test]
fn an_older_daemon_is_spoken_to_in_its_own_version() {
    let answer = |line: &str| match line.contains(" /v1.41/") {
        true => (200, "[]"),
        false => {
            (400, "{\"message\":\"client version 1.51 is too new. Maximum supported API version is 1.41\"}")
        }
    };
    let (dir, host, _) = fake(answer);
    dewar(&dir, &["-H", &host, "ps", "-q"]).ok().stdout_is("");
    dewar(&dir, &["-H", &host, "ps", "-q"]).env("DOCKER_API_VERSION", "1.51").fails(1).stderr_has("1.41");
    dewar(&dir, &["-H", &host, "ps", "-q"]).env("DOCKER_API_VERSION", "1.41").ok();
    dewar(&dir, &["-H", &host, "ps"])
        .env("DOCKER_API_VERSION", "new")
        .fails(1)
        .stderr_has("DOCKER_API_VERSION");
}

#[test]
fn stats_are_drawn_again_and_again_on_a_terminal() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], "exec sleep 1000");
    let host = daemon.host();
    let mut terminal = Terminal::start(&binary(), &["-H", &host, "stats"]);
    terminal.expect("\u{1b}[H");
    terminal.expect("MEM USAGE / LIMIT");
    terminal.expect("web");
    let name = "late";
    daemon.run_detached(name, &[], "exec sleep 1000");
    terminal.expect(name);
    terminal.send("\u{3}");
    assert_ne!(terminal.wait(), 0, "it goes on until it is stopped");
}

#[test]
fn stats_without_a_stream_end_with_one_table() {
    requires!(root);
    let daemon = Daemon::start();
    daemon.run_detached("web", &["--memory", "64m"], "exec sleep 1000");
    let output = daemon.dewar(&["stats", "--no-stream"]).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{output}");
    assert!(lines[0].starts_with("CONTAINER ID   NAME      CPU %"), "{output}");
    assert!(lines[1].contains("web") && lines[1].contains("/ 64MiB") && lines[1].contains('%'), "{output}");
    daemon.dewar(&["stats", "--no-stream", "--format", "json", "web"]).ok().stdout_has("\"PIDs\":\"1\"");
}
