//! docker-py from end to end: one script of `python/` per test, each on a daemon of its own.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, requires};

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

scripts!(run containers logs streams images system);

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
