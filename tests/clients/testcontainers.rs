//! Testcontainers for Python.

use super::docker_py::python_script;
use crate::support::requires::requires;
use crate::support::{Daemon, requires};

#[test]
fn starts_waits_and_cleans_up() {
    requires!(root, testcontainers);
    let daemon = Daemon::start_on_host();
    let python = requires::testcontainers_python().expect("required above");
    python_script(&daemon, python, include_str!("python/testcontainers.py")).ok();
}
