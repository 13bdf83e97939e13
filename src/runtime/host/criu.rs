//! CRIU: which one is found, what it says of itself, what is known to be wrong with it on this kernel.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

use super::kernel::apart;
use super::{Check, Verdict};
use crate::runtime::criu::{self, fault};
use crate::runtime::shim::protocol::CriuPlace;
use crate::runtime::sys::process::unshare;

const AREA: &str = "checkpoints";
const COSTS: &str = "containers cannot be frozen or thawed";

/// What `criu check --feature` is asked, what goes without it, and how to have it.
const FEATURES: [(&str, &str, &str, &str); 3] = [
    (
        "mem_dirty_track",
        "soft-dirty",
        "no pre-copy: a move stops the container for as long as all of its memory takes to send, unless it is --lazy",
        "a kernel with CONFIG_MEM_SOFT_DIRTY",
    ),
    (
        "uffd-noncoop",
        "lazy pages",
        "no lazy thaw: a container goes on only when all of its memory is read",
        "a kernel with CONFIG_USERFAULTFD",
    ),
    (
        "clone3_set_tid",
        "chosen pids",
        "thawing races with other processes for their ids, and may have to be tried again",
        "Linux 5.5 or newer",
    ),
];

/// Looks at the CRIU that the daemon would use; `named` as in its configuration.
pub fn checks(named: Option<&Path>) -> Vec<Check> {
    let path = match criu::find(named) {
        Ok(path) => path,
        Err(error) => {
            return vec![Check::ok(AREA, "criu", "not found").but(
                Verdict::Warning,
                COSTS,
                error.cause.to_string(),
            )];
        }
    };
    let cache_dir = std::env::temp_dir().join(format!("dewar-doctor-{}", std::process::id()));
    let place = CriuPlace { path: path.clone(), cache_dir };
    let probed = criu::probe(Path::new("/proc/self/exe"), &place);
    // What it learnt there is for the next daemon to learn again, where that keeps it.
    let _ = std::fs::remove_dir_all(&place.cache_dir);
    let info = match probed {
        Ok(info) => info,
        Err(error) => {
            let found = path.display().to_string();
            return vec![Check::ok(AREA, "criu", found).but(
                Verdict::Warning,
                COSTS,
                error.cause.to_string(),
            )];
        }
    };
    let mut checks = vec![Check::ok(AREA, "criu", format!("{} {}", info.path.display(), info.version))];
    for fault in &info.faults {
        checks.push(Check::ok(AREA, "known fault", fault.clone()).but(
            Verdict::Warning,
            "containers with such processes cannot be frozen",
            criu::HOW_TO_GET,
        ));
    }
    match run(&path, &["check"]) {
        Ok(said) => checks.push(Check::ok(AREA, "criu check", said)),
        Err(said) => {
            let does_begin = !said.contains("Could not initialize kernel features detection");
            checks.push(Check::ok(AREA, "criu check", last_words(&said)).but(
                Verdict::Warning,
                if does_begin { "some containers cannot be frozen or thawed" } else { COSTS },
                fault::meaning(&said).unwrap_or("what it names; the daemon's rights above matter to it, too"),
            ));
            if !does_begin {
                return checks;
            }
        }
    }
    for (feature, name, costs, remedy) in FEATURES {
        checks.push(match run(&path, &["check", "--feature", feature]) {
            Ok(_) => Check::ok(AREA, name, "works"),
            Err(said) => Check::ok(AREA, name, last_words(&said)).but(Verdict::Warning, costs, remedy),
        });
    }
    checks
}

/// What a `criu check` comes to, and if it fails all it says. It is given a /run of its own, where it leaves what it learns.
fn run(path: &Path, args: &[&str]) -> Result<String, String> {
    let output = apart(|| {
        unshare(UnshareFlags::NEWNS)?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        rustix::mount::mount("dewar-doctor", "/run", "tmpfs", MountFlags::NOSUID, None)?;
        Command::new(path).args(args).stdin(Stdio::null()).output()
    });
    let output = output.map_err(|error| error.to_string())?;
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok("looks good".to_owned());
    }
    Err(said)
}

fn last_words(said: &str) -> &str {
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it says nothing");
    // `Error (criu/x.c:1): message` is about the message.
    last.split_once("): ").map_or(last, |(_, message)| message)
}
