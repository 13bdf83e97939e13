//! The client's ways to a daemon: TLS by flags, environment and contexts, and ssh.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::support::certificates::Certificates;
use crate::support::requires::{docker_path, requires};
use crate::support::terminal::Terminal;
use crate::support::{Cmd, Daemon, TempDir, binary, busybox_tar};

fn daemon(certificates: &Certificates) -> Daemon {
    let flags = certificates.daemon_flags();
    Daemon::on_host(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// `dewar` with settings of its own.
fn dewar(settings: &TempDir) -> Cmd {
    Cmd::new(binary()).env("DOCKER_CONFIG", settings.path())
}

#[test]
fn dewar_works_over_tls() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    let settings = TempDir::new();
    let host = format!("tcp://127.0.0.1:{}", daemon.port());
    let dewar = |args: &[&str]| {
        dewar(&settings).args(certificates.client_flags("client")).args(["-H", &host]).args(args)
    };
    dewar(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    let saved = daemon.dir().join("saved.tar");
    dewar(&["save", "busybox", "-o"]).arg(&saved).ok();
    assert!(std::fs::metadata(&saved).expect("it was saved").len() > 1 << 20);
    let input = "line\n".repeat(200_000);
    let run = ["run", "--rm", "-i", "--network", "none", "busybox"];
    let output = dewar(&run).arg("cat").stdin(input.clone()).ok();
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    dewar(&run)
        .args(["sh", "-c", "echo out; echo err >&2; exit 7"])
        .fails(7)
        .stdout_is("out\n")
        .stderr_has("err");

    let flags = certificates.client_flags("client");
    let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
    all.extend(["-H", &host, "run", "-it", "--rm", "--network", "none", "busybox", "sh"]);
    let mut shell = Terminal::start(&binary(), &all);
    shell.expect("/ # ");
    shell.send("echo $((40+2)); stty size; exit 4\n");
    shell.expect("24 80");
    assert_eq!(shell.wait(), 4);
}

#[test]
fn who_is_at_the_other_end_is_verified_or_not_as_asked() {
    requires!(root, openssl);
    let certificates = Certificates::new();
    certificates.sign("ca", "server", "/CN=dewar", "subjectAltName=DNS:localhost");
    let daemon = daemon(&certificates);
    let settings = TempDir::new();
    let at = |name: &str| format!("tcp://{name}:{}", daemon.port());
    for (from, to) in [("client.pem", "cert.pem"), ("client-key.pem", "key.pem")] {
        std::fs::copy(certificates.file(from), settings.path().join(to)).expect("a directory of ours");
    }
    // The environment, with certificates where docker has them.
    let verified = || dewar(&settings).env("DOCKER_TLS_VERIFY", "1");
    verified().env("DOCKER_HOST", at("127.0.0.1")).arg("ping").fails(1).stderr_has("ca.pem\": No such file");
    std::fs::copy(certificates.file("ca.pem"), settings.path().join("ca.pem")).expect("a directory of ours");
    verified().env("DOCKER_HOST", at("localhost")).arg("ping").ok();
    verified().env("DOCKER_HOST", daemon.host()).arg("ping").ok();
    // A name that is not in the certificate, and another authority than the daemon's.
    let wrong = verified().env("DOCKER_HOST", at("127.0.0.1")).arg("ps").fails(1);
    wrong.stderr_has("certificate not valid for name").no_panic();
    std::fs::copy(certificates.file("other-ca.pem"), settings.path().join("ca.pem"))
        .expect("a directory of ours");
    verified().env("DOCKER_HOST", at("localhost")).arg("ps").fails(1).stderr_has("UnknownIssuer");
    // Without verification anybody may answer; the client still shows who it is.
    dewar(&settings).args(["--tls", "-H", &at("127.0.0.1"), "ping"]).ok();
    dewar(&settings).args(["--tlsverify=false", "-H", &at("127.0.0.1"), "ping"]).ok();
    // No TLS at all, and nobody's certificate.
    dewar(&settings)
        .args(["-H", &at("127.0.0.1"), "ps"])
        .fails(1)
        .stderr_has("HTTP request to an HTTPS server");
    let nobody = TempDir::new();
    dewar(&nobody).args(["--tls", "-H", &at("127.0.0.1"), "ps"]).fails(1).stderr_has("CertificateRequired");
    // TLS with who does not speak it.
    let plain = Daemon::on_host(&["-H", "tcp://127.0.0.1:0", "--insecure-tcp"], &[]);
    let host = format!("tcp://127.0.0.1:{}", plain.port());
    dewar(&settings).args(["--tls", "-H", &host, "ps"]).fails(1).stderr_has("answers without TLS");
}

#[test]
fn contexts_keep_certificates_as_dockers_do() {
    requires!(root, docker, openssl);
    let certificates = Certificates::new();
    let daemon = daemon(&certificates);
    let settings = TempDir::new();
    let host = format!("tcp://localhost:{}", daemon.port());
    let docker = || {
        Cmd::new(docker_path().expect("required"))
            .env("DOCKER_CONFIG", settings.path())
            .env("DOCKER_CLI_HINTS", "false")
    };
    let place = format!(
        "host={host},ca={},cert={},key={}",
        certificates.path("ca.pem"),
        certificates.path("client.pem"),
        certificates.path("client-key.pem")
    );
    dewar(&settings).args(["context", "create", "ours", "--docker", &place]).ok();
    docker().args(["context", "create", "theirs", "--docker", &place]).ok();
    for name in ["ours", "theirs"] {
        docker().args(["--context", name, "version", "--format", "{{.Server.Os}}"]).ok().stdout_is("linux\n");
        dewar(&settings)
            .args(["--context", name, "version", "--format", "{{.Server.Os}}"])
            .ok()
            .stdout_is("linux\n");
        let inspect = ["context", "inspect", "-f", "{{json .TLSMaterial}} {{json .Endpoints}}", name];
        let said = docker().args(inspect).ok().stdout;
        dewar(&settings).args(inspect).ok().stdout_is(&said);
    }
    let path = dewar(&settings).args(["context", "inspect", "-f", "{{.Storage.TLSPath}}", "ours"]).ok();
    let key = Path::new(path.trimmed()).join("docker/key.pem");
    let mode = std::fs::metadata(&key).expect("the key is kept").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    dewar(&settings).args(["context", "rm", "ours", "theirs"]).ok();
    assert!(!key.exists(), "a context's key goes with it");

    let skip = format!("host={host},skip-tls-verify=true");
    dewar(&settings).args(["context", "create", "loose", "--docker", &skip]).ok();
    dewar(&settings).args(["--context", "loose", "ps"]).fails(1).stderr_has("CertificateRequired");
    let missing = format!("host={host},ca=/nowhere");
    let output = dewar(&settings).args(["context", "create", "broken", "--docker", &missing]).fails(1);
    output.stderr_has("invalid docker endpoint options").stderr_has("/nowhere");
}

/// A directory for PATH whose `ssh` runs what it is told here, as the sshd over there would, and notes how it was
/// called. Over there, both names of the client are dewar.
fn far_away(daemon: &Daemon) -> TempDir {
    let dir = TempDir::new();
    let far = dir.path().join("far");
    std::fs::create_dir(&far).expect("a fresh directory");
    for name in ["dewar", "docker"] {
        std::os::unix::fs::symlink(binary(), far.join(name)).expect("a fresh directory");
    }
    let script = format!(
        "#!/bin/sh\necho \"$@\" >>{log}\nwhile [ \"$1\" != -- ]; do shift; done\nshift 2\n\
         unset DOCKER_HOST DEWAR_HOST DOCKER_TLS_VERIFY\nexport PATH={far}:$PATH DEWAR_HOST={host}\nexec sh -c \"$*\"\n",
        log = dir.path().join("log").display(),
        far = far.display(),
        host = daemon.host(),
    );
    let ssh = dir.path().join("ssh");
    std::fs::write(&ssh, script).expect("a fresh directory");
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
    dir
}

fn path_with(dir: &TempDir) -> String {
    format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap_or_default())
}

#[test]
fn ssh_hosts_are_reached_through_dial_stdio() {
    requires!(root);
    let daemon = Daemon::start();
    let far = far_away(&daemon);
    let settings = TempDir::new();
    let on = |host: &str, args: &[&str]| {
        dewar(&settings).env("PATH", path_with(&far)).args(["-H", host]).args(args)
    };
    let input = "line\n".repeat(200_000);
    let run = ["run", "--rm", "-i", "--network", "none", "busybox", "cat"];
    let output = on("ssh://me@far.example:2222", &run).stdin(input.clone()).ok();
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    on("ssh://far.example", &["exec", "nobody", "true"]).fails(1).stderr_has("No such container: nobody");
    on("ssh://far.example", &["import"]).arg(busybox_tar()).arg("again").ok();
    on(&format!("ssh://far.example{}", daemon.socket().display()), &["ps"]).ok();
    let log = std::fs::read_to_string(far.path().join("log")).expect("ssh was called");
    assert!(log.contains("-T -l me -p 2222 -- far.example dewar system dial-stdio"), "{log}");
    assert!(log.contains(&format!("dewar --host {} system dial-stdio", daemon.host())), "{log}");
    // Nobody there.
    on("ssh://far.example/nowhere.sock", &["ps"]).fails(1).stderr_has("Cannot connect").no_panic();
    dewar(&settings).env("PATH", "/nowhere").args(["-H", "ssh://far", "ps"]).fails(1).stderr_has("start ssh");
    on("ssh://-oProxyCommand=x", &["ps"]).fails(1).stderr_has("invalid host name");
}

#[test]
fn the_stock_client_reaches_dewar_by_ssh() {
    requires!(root, docker);
    let daemon = Daemon::start();
    let far = far_away(&daemon);
    let docker = |args: &[&str]| {
        Cmd::new(docker_path().expect("required"))
            .env("PATH", path_with(&far))
            .env("DOCKER_CONFIG", far.path().join("docker-config"))
            .env("DOCKER_CLI_HINTS", "false")
            .env("DOCKER_HOST", "ssh://far.example")
            .args(args)
    };
    docker(&["version", "--format", "{{.Server.Os}}"]).ok().stdout_is("linux\n");
    let input = "line\n".repeat(200_000);
    let run = ["run", "--rm", "-i", "--network", "none", "busybox"];
    let output = docker(&run).arg("cat").stdin(input.clone()).ok();
    assert!(output.stdout == input, "{} of {} bytes came back", output.stdout.len(), input.len());
    docker(&run)
        .args(["sh", "-c", "echo out; echo err >&2; exit 7"])
        .fails(7)
        .stdout_is("out\n")
        .stderr_has("err");
}

#[test]
fn dial_stdio_passes_a_half_close_on_and_ends_with_the_daemon() {
    requires!(root);
    let daemon = Daemon::start();
    // The request's end of input must not cut its answer.
    let request = "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let output = daemon.dewar(&["system", "dial-stdio"]).stdin(request).ok();
    assert!(output.stdout.starts_with("HTTP/1.1 200 OK") && output.stdout.ends_with("OK"), "{output}");
    // The daemon's end ends it, although our input has not ended.
    let mut open = daemon.dewar(&["system", "dial-stdio"]).spawn();
    let mut stdin = open.child.stdin.take().expect("it is piped");
    std::io::Write::write_all(&mut stdin, request.as_bytes()).expect("it reads");
    assert_eq!(open.wait(), 0);
    drop(stdin);
    Cmd::new(binary())
        .args(["-H", "unix:///nowhere.sock", "system", "dial-stdio"])
        .fails(1)
        .stderr_has("Cannot connect");
}
