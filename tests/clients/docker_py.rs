//! docker-py from end to end: one script of `python/` per test, each on a daemon of its own.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, busybox_tar, requires};

/// What every script begins with.
const PRELUDE: &str = include_str!("python/prelude.py");

/// A test per script.
macro_rules! scripts {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            requires!(root, docker_py);
            let daemon = Daemon::start();
            let python = requires::python_path().expect("required above");
            python_script(&daemon, python, include_str!(concat!("python/", stringify!($name), ".py"))).ok();
        })+
    };
}

scripts!(run containers logs streams images networks volumes files health system);

/// Over TCP, which only loopback and an express flag allow.
#[test]
fn logs_over_tcp() {
    requires!(root, docker_py);
    let port = {
        // Free now; nobody else is told of it before the daemon takes it.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        listener.local_addr().expect("bound").port()
    };
    let host = format!("tcp://127.0.0.1:{port}");
    let daemon = Daemon::on_host(&["-H", &host, "--insecure-tcp"], &[]);
    daemon.dewar(&["import"]).arg(busybox_tar()).arg("busybox").ok();
    let python = requires::python_path().expect("required above");
    python_script(&daemon, python, include_str!("python/logs.py")).env("DOCKER_HOST", &host).ok();
}

/// A script of `python/` behind the prelude, told where the daemon is.
pub fn python_script(daemon: &Daemon, python: std::path::PathBuf, script: &str) -> Cmd {
    // A file, so that a traceback shows the line that failed.
    let path = daemon.dir().join("script.py");
    std::fs::write(&path, format!("{PRELUDE}\n\n{script}")).expect("a fresh directory");
    Cmd::new(python)
        .args(["-W", "ignore"])
        .arg(&path)
        .env("DOCKER_HOST", daemon.host())
        .env("DEWAR_TEST_DIR", daemon.dir())
        .env("TESTCONTAINERS_RYUK_DISABLED", "true")
        // A test machine may be a container itself; the address is the host's all the same.
        .env("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
}
