//! What this host can do for containers, asked of the kernel itself: each finding says what it costs and how to
//! get what is missing.
//!
//! [`quick`] only reads and asks, from any thread of a daemon; [`thorough`] also makes namespaces, a process and a
//! mount on threads and in directories of its own, and leaves nothing.
//!
//! [`criu`] asks a CRIU. Not here: how it is shown to people (`daemon::doctor`).

mod cgroups;
mod criu;
mod filesystem;
mod kernel;

use std::path::Path;

use serde::Serialize;

pub use self::criu::checks as criu;
use super::sys::process::{self, Side};

/// How much something matters that is as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    /// Containers run; something does not work or is not limited.
    Warning,
    /// Containers do not run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// `kernel`, `cgroups`, …
    pub area: &'static str,
    pub name: String,
    pub status: Verdict,
    /// What is there.
    pub found: String,
    /// What does not work; empty when all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub costs: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Check {
    pub fn ok(area: &'static str, name: impl Into<String>, found: impl Into<String>) -> Check {
        Check {
            area,
            name: name.into(),
            status: Verdict::Ok,
            found: found.into(),
            costs: String::new(),
            remedy: String::new(),
        }
    }

    /// The same, found wanting.
    pub fn but(self, status: Verdict, costs: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check { status, costs: costs.into(), remedy: remedy.into(), ..self }
    }
}

/// What can be told by looking: for a daemon's `info`.
pub fn quick() -> Vec<Check> {
    let mut checks = kernel::quick();
    checks.extend(cgroups::checks());
    checks.extend(kernel::rights());
    checks
}

/// Everything about this host; `data_root` is where images and containers are, or are to be.
///
/// Must be called by the only thread of a process.
pub fn thorough(data_root: &Path) -> Vec<Check> {
    let mut checks = kernel::quick();
    checks.push(clone3());
    checks.extend(kernel::namespaces());
    checks.extend(cgroups::checks());
    checks.extend(kernel::rights());
    checks.extend(filesystem::checks(data_root));
    checks.extend(kernel::networking());
    checks
}

fn clone3() -> Check {
    let check = |found: String| Check::ok("kernel", "clone3", found);
    match process::clone(0, None) {
        Ok(Side::Child) => process::exit(0),
        Ok(Side::Parent { pid, .. }) => {
            // Nobody else waits for it; how it ended does not matter.
            let _ = process::wait(pid);
            check("works".into())
        }
        Err(error) => check(error.to_string()).but(
            Verdict::Missing,
            "no container can be started",
            "Linux 5.3 or newer; inside of a container, a seccomp policy that allows clone3",
        ),
    }
}
