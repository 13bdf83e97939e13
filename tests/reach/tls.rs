//! TLS: what works over it, who is let in, and which certificates are in force.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::{Pid, Signal, kill_process};

use base64::Engine as _;

use crate::support::certificates::Certificates;
use crate::support::plugin::{Asked, Notebook, Plugin, no, yes};
use crate::support::requires::{docker_path, requires};
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, Output, TempDir, binary, busybox_tar, eventually};

/// A daemon that verifies its clients.
fn daemon(certificates: &Certificates) -> Daemon {
    let flags = certificates.daemon_flags();
    Daemon::on_host(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// `docker` over TLS, with the certificate `name`.
fn docker(certificates: &Certificates, daemon: &Daemon, name: &str) -> Cmd {
    Cmd::new(docker_path().expect("required"))
        .env("DOCKER_CONFIG", daemon.dir().join("docker-config"))
        .env("DOCKER_CLI_HINTS", "false")
        .args(certificates.client_flags(name))
        .args(["-H", &format!("tcp://127.0.0.1:{}", daemon.port())])
}

/// `curl` on `/_ping`; its output is body and status.
fn curl(certificates: &Certificates, daemon: &Daemon, flags: &[&str]) -> Output {
    Cmd::new("curl")
        .args(["--silent", "--show-error", "--max-time", "15", "--write-out", " %{http_code}"])
        .args(["--cacert", &certificates.path("ca.pem")])
        .args(flags)
        .arg(format!("https://localhost:{}/_ping", daemon.port()))
        .run()
}

fn with_certificate<'a>(cert: &'a str, key: &'a str) -> Vec<&'a str> {
    vec!["--cert", cert, "--key", key]
}

#[test]
fn docker_works_over_tls() {
    requires!(root, docker, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    let docker = |args: &[&str]| docker(&certificates, &daemon, "client").args(args);
    docker(&["version", "--format", "{{.Server.Os}}"]).ok().stdout_is("linux\n");
    // Bodies of megabytes, up and down.
    docker(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    let saved = daemon.dir().join("saved.tar");
    docker(&["save", "busybox", "-o"]).arg(&saved).ok();
    assert!(std::fs::metadata(&saved).expect("it was saved").len() > 1 << 20);

    let run = ["run", "--rm", "-i", "--network", "none", "busybox"];
    // The client's half-close ends cat's input, and cat's last words come back.
    let input = "line\n".repeat(200_000);
    let output = docker(&run).arg("cat").stdin(input.clone()).ok();
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    let output = docker(&run).args(["sh", "-c", "echo out; echo err >&2; exit 7"]).fails(7);
    output.stdout_is("out\n").stderr_has("err");

    docker(&["run", "-d", "--name", "web", "--network", "none", "busybox", "sleep", "300"]).ok();
    docker(&["exec", "web", "echo", "hello"]).ok().stdout_is("hello\n");
    let shown = docker(&["events", "--since", "1h", "--until", "0s", "--filter", "event=exec_die"]);
    eventually("the event", {
        let mut first = Some(shown);
        move || {
            let events = first.take().unwrap_or_else(|| {
                docker(&["events", "--since", "1h", "--until", "0s", "--filter", "event=exec_die"])
            });
            events.ok().stdout.contains("exec_die")
        }
    });
}

#[test]
fn terminals_and_followers_work_over_tls() {
    requires!(root, docker, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    daemon.dewar(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    let config = daemon.dir().join("docker-config").display().to_string();
    let host = format!("tcp://127.0.0.1:{}", daemon.port());
    let flags = certificates.client_flags("client");
    let terminal = |args: &[&str]| {
        let mut all = vec!["--config", &config, "-H", &host];
        all.extend(flags.iter().map(String::as_str));
        all.extend(args);
        Terminal::start(&docker_path().expect("required"), &all)
    };
    let mut shell = terminal(&["run", "-it", "--name", "web", "--network", "none", "busybox", "sh"]);
    shell.expect("/ # ");
    shell.send("echo $((40+2)); stty size\n");
    shell.expect("42");
    shell.expect("24 80");
    let mut second = terminal(&["exec", "-it", "web", "sh"]);
    second.expect("/ # ");
    second.send("exit 5\n");
    assert_eq!(second.wait(), 5);

    // A follower gets each line as it is written, and its going is noticed.
    let follower = docker(&certificates, &daemon, "client").args(["logs", "-f", "web"]).spawn();
    let mut follower = follower;
    let mut out = follower.child.stdout.take().expect("it is piped");
    shell.send("echo followed-$((1+1))\n");
    let mut seen = String::new();
    let mut block = [0; 4096];
    while !seen.contains("followed-2") {
        let count = out.read(&mut block).expect("the log goes on");
        assert!(count > 0, "the log ended: {seen}");
        seen.push_str(&String::from_utf8_lossy(&block[..count]));
    }
    shell.send("exit 3\n");
    assert_eq!(shell.wait(), 3);
    assert_eq!(follower.wait(), 0);
}

#[test]
fn only_who_the_authority_knows_is_let_in() {
    requires!(root, docker, openssl, curl);
    let certificates = Certificates::new();
    let flags = certificates.daemon_flags();
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.push("-D");
    let daemon = Daemon::on_host(&flags, &[]);
    let (client, client_key) = (certificates.path("client.pem"), certificates.path("client-key.pem"));
    let own = with_certificate(&client, &client_key);
    let versions = [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]];
    for version in versions {
        let flags = [&own[..], &version[..]].concat();
        assert_eq!(curl(&certificates, &daemon, &flags).stdout, "OK 200", "{version:?}");
        // Nobody, and somebody the authority does not know.
        let output = curl(&certificates, &daemon, &version);
        assert!(output.code != 0 && output.stdout.ends_with("000"), "{output}");
        let (cert, key) = (certificates.path("stranger.pem"), certificates.path("stranger-key.pem"));
        let flags = [&with_certificate(&cert, &key)[..], &version[..]].concat();
        let output = curl(&certificates, &daemon, &flags);
        assert!(output.code != 0 && output.stdout.ends_with("000"), "{output}");
        output.stderr_has("alert");
    }
    // A server's certificate is no client's, whoever signed it.
    certificates.sign("ca", "wrong", "/CN=eve", "extendedKeyUsage=serverAuth");
    let (cert, key) = (certificates.path("wrong.pem"), certificates.path("wrong-key.pem"));
    assert!(curl(&certificates, &daemon, &with_certificate(&cert, &key)).code != 0);
    certificates.sign_for(-1, "ca", "past", "/CN=bob", "extendedKeyUsage=clientAuth");
    let (cert, key) = (certificates.path("past.pem"), certificates.path("past-key.pem"));
    let output = curl(&certificates, &daemon, &with_certificate(&cert, &key));
    assert!(output.code != 0, "{output}");
    output.stderr_has("expired");
    // Old versions.
    let old = [&own[..], &["--tlsv1.1", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"]].concat();
    let output = curl(&certificates, &daemon, &old);
    assert!(output.code != 0, "{output}");
    output.stderr_has("alert");

    docker(&certificates, &daemon, "stranger")
        .arg("version")
        .fails(1)
        .stderr_has("tls: certificate required");
    // No TLS at all, as a client that forgot it.
    let plain = Cmd::new(docker_path().expect("required"))
        .args(["-H", &format!("tcp://127.0.0.1:{}", daemon.port()), "version"])
        .fails(1);
    plain.stderr_has("Client sent an HTTP request to an HTTPS server.");

    let log = daemon.log();
    assert!(log.contains(r#"user="alice""#), "the access log says who: {log}");
    assert!(log.contains("speak TLS with 127.0.0.1") && log.contains("without TLS"), "{log}");
    assert!(!log.contains("mallory") && !log.contains("bob"), "nobody unknown got to a request: {log}");
}

fn hang_up(daemon: &Daemon) {
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a pid");
    kill_process(pid, Signal::HUP).expect("the daemon runs");
}

#[test]
fn certificates_are_read_again_on_sighup() {
    requires!(root, openssl, curl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    let (client, client_key) = (certificates.path("client.pem"), certificates.path("client-key.pem"));
    let own = with_certificate(&client, &client_key);
    let (other, other_key) = (certificates.path("stranger.pem"), certificates.path("stranger-key.pem"));
    let others = with_certificate(&other, &other_key);
    assert_eq!(curl(&certificates, &daemon, &own).stdout, "OK 200");
    let mut kept = certificates.connect(daemon.port());

    // What cannot be used leaves everything as it was.
    std::fs::rename(certificates.file("server-key.pem"), certificates.file("kept")).expect("a file of ours");
    std::fs::copy(certificates.file("client-key.pem"), certificates.file("server-key.pem"))
        .expect("a file of ours");
    hang_up(&daemon);
    eventually("the refusal", || {
        daemon.log().contains("the key is not the certificate's: it stays as it was")
    });
    assert_eq!(curl(&certificates, &daemon, &own).stdout, "OK 200");

    // Another authority for the clients, under the same name.
    std::fs::rename(certificates.file("kept"), certificates.file("server-key.pem")).expect("a file of ours");
    std::fs::copy(certificates.file("ca.pem"), certificates.file("trusted.pem")).expect("a file of ours");
    std::fs::copy(certificates.file("other-ca.pem"), certificates.file("ca.pem")).expect("a file of ours");
    hang_up(&daemon);
    eventually("the reload", || daemon.log().contains("the configuration was reloaded"));
    std::fs::copy(certificates.file("trusted.pem"), certificates.file("ca.pem")).expect("a file of ours");
    assert!(curl(&certificates, &daemon, &own).code != 0, "the old authority's clients are out");
    assert_eq!(curl(&certificates, &daemon, &others).stdout, "OK 200");
    // A connection keeps what it was made with.
    kept.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it is open");
    let mut answer = String::new();
    kept.read_to_string(&mut answer).expect("an answer, and a proper end");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    std::fs::write(certificates.file("text"), "no PEM").expect("a directory of ours");
    let broken = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    std::fs::write(certificates.file("broken"), broken).expect("a directory of ours");
    let sealed = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(certificates.file("sealed"), sealed).expect("a directory of ours");
    for (ca, cert, key, part) in [
        ("ca.pem", "missing", "server-key.pem", "missing\": No such file"),
        ("ca.pem", "text", "server-key.pem", "text\": there is no PEM certificate in it"),
        ("ca.pem", "broken", "server-key.pem", "broken\": broken PEM"),
        ("ca.pem", "server.pem", "server.pem", "server.pem\": there is no PEM private key in it"),
        ("ca.pem", "server.pem", "sealed", "sealed\": it is encrypted"),
        ("ca.pem", "server.pem", "client-key.pem", "the key is not the certificate's"),
        ("missing", "server.pem", "server-key.pem", "missing\": No such file"),
    ] {
        // --validate reads them as the start does.
        let output = Cmd::new(binary())
            .args(["daemon", "--validate", "--tlsverify", "-H", "tcp://"])
            .args(["--tlscacert", &certificates.path(ca), "--tlscert", &certificates.path(cert)])
            .args(["--tlskey", &certificates.path(key)])
            .fails(1);
        output.stderr_has("set up TLS").stderr_has(part).no_panic();
    }
}

#[test]
fn tcp_without_verified_clients_stays_at_home() {
    requires!(root, openssl, curl);
    let certificates = Certificates::new();
    let validate = |flags: &[&str]| {
        Cmd::new(binary())
            .args(["daemon", "--validate"])
            .args([
                "--tlscacert",
                &certificates.path("ca.pem"),
                "--tlscert",
                &certificates.path("server.pem"),
            ])
            .args(["--tlskey", &certificates.path("server-key.pem")])
            .args(flags)
    };
    validate(&["-H", "tcp://0.0.0.0:0", "--tlsverify"]).ok();
    validate(&["-H", "tcp://127.0.0.1:0", "--tls", "--insecure-tcp"]).ok();
    for flags in [
        &["-H", "tcp://0.0.0.0:0"][..],
        &["-H", "tcp://0.0.0.0:0", "--tls", "--insecure-tcp"],
        &["-H", "tcp://0.0.0.0:0", "--tlsverify=false", "--insecure-tcp"],
        &["-H", "tcp://127.0.0.1:0", "--tls"],
        // Without a host, TLS is served on localhost: the same rule.
        &["--tls"],
    ] {
        validate(flags).fails(1).stderr_has("whoever can connect is root");
    }

    // Certificates from where the environment says; the daemon's is verified by its clients all the same.
    let dir = certificates.path("");
    std::fs::copy(certificates.file("server.pem"), certificates.file("cert.pem")).expect("a file of ours");
    std::fs::copy(certificates.file("server-key.pem"), certificates.file("key.pem")).expect("a file of ours");
    let flags = ["-H", "tcp://127.0.0.1:0", "--tls", "--insecure-tcp"];
    let daemon = Daemon::on_host(&flags, &[("DOCKER_CERT_PATH", &dir)]);
    assert_eq!(curl(&certificates, &daemon, &[]).stdout, "OK 200");
}

#[test]
fn an_expired_certificate_is_told_and_used() {
    requires!(root, openssl, curl);
    let certificates = Certificates::new();
    certificates.sign_for(-1, "ca", "server", "/CN=dewar", "subjectAltName=DNS:localhost");
    let daemon = daemon(&certificates);
    let log = daemon.log();
    assert!(log.contains("server.pem\" has expired on "), "{log}");
    let (client, key) = (certificates.path("client.pem"), certificates.path("client-key.pem"));
    let own = with_certificate(&client, &key);
    curl(&certificates, &daemon, &own).stderr_has("expired");
    assert_eq!(curl(&certificates, &daemon, &[&own[..], &["--insecure"]].concat()).stdout, "OK 200");
}

#[test]
fn a_client_that_hangs_up_in_the_handshake_is_nobody() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    for bytes in
        [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01", b"\x80\x2e\x01", b"\0\0\0\0", &[0xff; 20_000]]
    {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.port())).expect("the daemon listens");
        // It may have ended already.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    let mut tls = certificates.connect(daemon.port());
    tls.write_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n").expect("it is open");
    let mut answer = [0; 15];
    tls.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[test]
fn an_authorization_plugin_learns_who_asks() {
    requires!(root, openssl, curl);
    let certificates = Certificates::new();
    let config = TempDir::new();
    let file = config.path().join("daemon.json");
    let configure = |text: &str| std::fs::write(&file, text).expect("a directory of ours");
    configure("{}");
    let mut flags = certificates.daemon_flags();
    flags.extend(["--config-file".to_owned(), file.display().to_string()]);
    let daemon = Daemon::on_host(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    let notebook = Notebook::default();
    let decide = |asked: &Asked| if asked.field("User") == "alice" { yes() } else { no("only alice") };
    let _plugin = Plugin::start(&daemon.dir().join("run/plugins"), "guard", &notebook, decide);
    configure(r#"{"authorization-plugins": ["guard"]}"#);
    let reloads = || daemon.log().matches("the configuration was reloaded").count();
    hang_up(&daemon);
    eventually("the reload", || reloads() == 1);
    let (cert, key) = (certificates.path("client.pem"), certificates.path("client-key.pem"));
    assert_eq!(curl(&certificates, &daemon, &with_certificate(&cert, &key)).stdout, "OK 200");
    // Whoever comes by the unix socket has shown nothing.
    daemon.api("GET", "/info").refuses(403, "only alice");
    let asked = std::mem::take(&mut *notebook.lock().expect("no plugin panics"));
    let told = asked.iter().find(|asked| asked.field("User") == "alice").expect("alice asked");
    assert_eq!(told.field("UserAuthNMethod"), "TLS");
    let certificate = told.question["RequestPeerCertificates"][0].as_str().expect("a certificate");
    let pem = base64::engine::general_purpose::STANDARD.decode(certificate).expect("base64");
    let shown = std::fs::read_to_string(certificates.file("client.pem")).expect("a file of ours");
    assert_eq!(String::from_utf8_lossy(&pem), shown);
    // The test's own end is none of the plugin's business.
    configure("{}");
    hang_up(&daemon);
    eventually("the reload", || reloads() == 2);
}
