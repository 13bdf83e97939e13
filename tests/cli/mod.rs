//! The client without a container: words, suggestions, exit codes.

mod daemon_flags;
mod ping;
mod words;

use std::path::Path;

use crate::support::{Cmd, binary};

/// `dewar args`, pointed at a socket that is not there.
fn dewar(args: &[&str]) -> Cmd {
    Cmd::new(binary()).args(["-H", "unix:///nonexistent/dewar.sock"]).args(args)
}

/// The program as someone who is not root, from a place that everyone may read.
fn as_nobody(dir: &Path, args: &[&str]) -> Cmd {
    let copy = dir.join("dewar");
    if !copy.exists() {
        // Not std::fs::copy: a command another thread starts meanwhile would inherit the file open for
        // writing, and executing it then fails with ETXTBSY.
        Cmd::new("install").args(["-m", "755"]).arg(binary()).arg(&copy).ok();
    }
    Cmd::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(args)
}
