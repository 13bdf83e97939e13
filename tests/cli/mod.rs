//! The client without a container: words, suggestions, exit codes.

mod daemon_flags;
mod words;

use std::path::Path;

use crate::support::{Cmd, binary};

/// `dewar args`, pointed at a socket that is not there.
fn dewar(args: &[&str]) -> Cmd {
    Cmd::new(binary()).args(["-H", "unix:///nonexistent/dewar.sock"]).args(args)
}

/// The program as someone who is not root, from a place that everyone may read.
fn as_nobody(dir: &Path, args: &[&str]) -> Cmd {
    use std::os::unix::fs::PermissionsExt;
    let copy = dir.join("dewar");
    if !copy.exists() {
        std::fs::copy(binary(), &copy).expect("copying the program under test");
        std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("a file of ours");
    }
    Cmd::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(args)
}
