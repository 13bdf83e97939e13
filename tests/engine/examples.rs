//! Every script under examples/ runs, as it stands.

use crate::support::requires::requires;
use crate::support::{Cmd, Daemon, binary, busybox_tar, source};

fn example(name: &str, daemon: &Daemon) -> crate::support::Output {
    let bin = binary().parent().expect("a file in a directory").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    Cmd::new(source().join("examples").join(name))
        .arg(busybox_tar())
        .env("DOCKER_HOST", daemon.host())
        .env("PATH", path)
        .ok()
}

#[test]
fn first_container() {
    requires!(root);
    let daemon = Daemon::empty();
    let output = example("first-container.sh", &daemon);
    output.stdout_has("hello from a container").stdout_has("a page").stdout_has("running as pid");
}

#[test]
fn checkpoint() {
    requires!(root, criu);
    let daemon = Daemon::empty();
    example("checkpoint.sh", &daemon).stdout_has("before").stdout_has("later");
}

#[test]
fn network() {
    requires!(root);
    let daemon = Daemon::empty();
    let output = example("network.sh", &daemon);
    for words in ["from the store", "127.0.0.1:18083", "example-site 10.83.0.10/24", "from the site"] {
        output.stdout_has(words);
    }
}

#[test]
fn daemon_restart() {
    requires!(root);
    // It starts a daemon of its own; this one only makes the helper's shape fit.
    let daemon = Daemon::empty();
    let output = example("daemon-restart.sh", &daemon);
    for step in 1..=8 {
        output.stdout_has(&format!("step {step}\n"));
    }
    output.stdout_has("the job ended with 3");
}

#[test]
fn all_of_them_are_tested() {
    let mut names: Vec<_> = std::fs::read_dir(source().join("examples"))
        .expect("a directory of the source")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["checkpoint.sh", "daemon-restart.sh", "first-container.sh", "network.sh"]);
}
