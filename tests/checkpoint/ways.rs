//! Moves to hosts that are reached by TLS and by ssh, and who is refused there.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::lazy::rounds;
use super::migrate::containers;
use super::peers::{self, MEMORY};
use super::{COUNTER, counts_past, numbers};
use crate::support::certificates::Certificates;
use crate::support::requires::{criu_path, requires, sshd_path};
use crate::support::{Cmd, Daemon, TempDir, binary, eventually};

/// A daemon with a container that counts, and nothing in the network.
fn counting() -> Daemon {
    let daemon = Daemon::start();
    daemon.run_detached("web", &[], COUNTER);
    eventually("it counting", || numbers(&daemon).len() > 5);
    daemon
}

#[test]
fn a_host_behind_tls_takes_it_from_whom_it_knows() {
    requires!(root, criu, openssl);
    let certificates = Certificates::new();
    let here = counting();
    let criu = criu_path().expect("required").display().to_string();
    let flags = certificates.daemon_flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--criu", &criu]).collect();
    let there = Daemon::on_host(&flags, &[]);
    let host = format!("tcp://127.0.0.1:{}", there.port());
    let migrate = |client: &str| {
        let command = Cmd::new(binary()).args(certificates.client_flags(client));
        command.args(["-H", &here.host(), "migrate", "web", &host])
    };
    for (client, words) in [("stranger", "UnknownCA"), ("nobody", "nobody.pem")] {
        migrate(client).fails(1).stderr_has(words).no_panic();
    }
    here.dewar(&["migrate", "web", &host]).fails(1).stderr_has("HTTP request to an HTTPS server");
    counts_past(&here, numbers(&here).len());
    assert_eq!(containers(&there), []);
    migrate("client").ok().stdout_has("web runs at tcp://127.0.0.1").stdout_has("it stood still for ");
    counts_past(&there, numbers(&there).len());
    assert_eq!(containers(&here), []);
    // Memory comes the same way when it runs there. (Not of one that forks: CRIU 4.2.1 may come to a standstill over
    // that, which `postcopy` knows, and which has nothing to do with the way.)
    peers::run(&here, "memory", &["--network", "none"], &format!("{MEMORY}8"));
    eventually("its memory", || rounds(&here, "memory") > 1);
    let later = Cmd::new(binary()).args(certificates.client_flags("client"));
    later
        .args(["-H", &here.host(), "migrate", "--lazy", "memory", &host])
        .ok()
        .stdout_has("sending its memory");
    let before = rounds(&there, "memory");
    eventually("its memory there", || rounds(&there, "memory") > before + 2);
    there.dewar(&["rm", "-f", "memory"]).ok();
    // Back, both by a context's name.
    let settings = TempDir::new();
    let dewar = |args: &[&str]| Cmd::new(binary()).env("DOCKER_CONFIG", settings.path()).args(args);
    let place = format!(
        "host={host},ca={},cert={},key={}",
        certificates.path("ca.pem"),
        certificates.path("client.pem"),
        certificates.path("client-key.pem")
    );
    dewar(&["context", "create", "far", "--docker", &place]).ok();
    dewar(&["context", "create", "near", "--docker", &format!("host={}", here.host())]).ok();
    dewar(&["--context", "far", "migrate", "web", "near"]).ok().stdout_has("web runs at near");
    counts_past(&here, numbers(&here).len());
    here.dewar(&["rm", "-f", "web"]).ok();
}

/// A real sshd on the loopback, with keys, users and settings of its own.
struct Sshd {
    process: Child,
    dir: TempDir,
    port: u16,
}

impl Sshd {
    fn start() -> Sshd {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "user", "stranger"] {
            Cmd::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &at(key)]).ok();
        }
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("ours");
        std::fs::create_dir(dir.path().join("bin")).expect("a fresh directory");
        std::os::unix::fs::symlink(binary(), dir.path().join("bin/dewar")).expect("a fresh directory");
        write(
            "passwd",
            "root:x:0:0::/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/usr/sbin/nologin\n".to_owned(),
        );
        write("shadow", "root:*:19000:0:99999:7:::\nsshd:*:19000:0:99999:7:::\n".to_owned());
        std::fs::copy(dir.path().join("user.pub"), dir.path().join("authorized")).expect("it was made");
        write(
            "sshd_config",
            format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
                 UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n\
                 SetEnv PATH={}:/usr/bin:/bin\n",
                at("host"),
                at("authorized"),
                at("bin")
            ),
        );
        let known = std::fs::read_to_string(dir.path().join("host.pub")).expect("it was made");
        write("known", format!("[127.0.0.1]:{port} {known}"));
        // Its users, and the directory it wants to be empty, are seen by itself alone.
        let script = "mount --make-rprivate / && mount --bind \"$1/passwd\" /etc/passwd && \
            mount --bind \"$1/shadow\" /etc/shadow && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && \
            exec \"$2\" -D -e -f \"$1/sshd_config\"";
        let sshd = sshd_path().expect("required");
        // Its libraries are beside it, unless it is the host's.
        let libraries = sshd.ancestors().nth(2).map(|usr| usr.join("lib")).unwrap_or_default();
        let log = std::fs::File::create(dir.path().join("log")).expect("a fresh directory");
        let process = Command::new("unshare")
            .args(["-m", "sh", "-c", script, "sh"])
            .args([dir.path(), &sshd])
            .env("LD_LIBRARY_PATH", below(&libraries))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("unshare is there");
        let sshd = Sshd { process, dir, port };
        eventually("sshd listening", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        sshd
    }

    /// A directory for PATH, whose `ssh` is the real one with a key of ours.
    fn client(&self, key: &str) -> TempDir {
        use std::os::unix::fs::PermissionsExt;
        let dir = TempDir::new();
        let script = format!(
            "#!/bin/sh\nexec /usr/bin/ssh -F none -o BatchMode=yes -o IdentitiesOnly=yes -o UserKnownHostsFile={} -i {} \"$@\"\n",
            self.dir.path().join("known").display(),
            self.dir.path().join(key).display()
        );
        let path = dir.path().join("ssh");
        std::fs::write(&path, script).expect("a fresh directory");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a file of ours");
        dir
    }
}

/// The directories below `lib` that have libraries in them, as LD_LIBRARY_PATH wants them.
fn below(lib: &Path) -> String {
    let entries = std::fs::read_dir(lib).into_iter().flatten().flatten();
    let found = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with("-linux-gnu"));
    let found: Vec<String> = found.map(|entry| entry.path().display().to_string()).collect();
    found.join(":")
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        if std::thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default());
        }
    }
}

#[test]
fn a_host_behind_ssh_takes_it_with_its_key() {
    requires!(root, criu, ssh);
    let here = counting();
    let there = Daemon::empty();
    let sshd = Sshd::start();
    let host = format!("ssh://root@127.0.0.1:{}{}", sshd.port, there.socket().display());
    let migrate = |key: &str| {
        let client = sshd.client(key);
        let path = format!("{}:{}", client.path().display(), std::env::var("PATH").unwrap_or_default());
        (here.dewar(&["migrate", "web", &host]).env("PATH", path), client)
    };
    let (refused, _client) = migrate("stranger");
    refused.fails(1).stderr_has("Permission denied (publickey)").no_panic();
    counts_past(&here, numbers(&here).len());
    assert_eq!(containers(&there), []);
    let (moved, _client) = migrate("user");
    moved.ok().stdout_has(&format!("web runs at {host}"));
    counts_past(&there, numbers(&there).len());
    assert_eq!(containers(&here), []);
    there.dewar(&["rm", "-f", "web"]).ok();
}
