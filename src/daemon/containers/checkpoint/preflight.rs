//! What is compared before a checkpoint is thawed, and before anything is touched: the machine, CRIU, the image, the
//! files, and who the processes are.
//!
//! A checkpoint is code with credentials: CRIU gives its processes what the images say, whatever the container is
//! configured with. So capabilities and the filter of system calls are read from the images and held against the
//! configuration. What is not compared: the rules of the filter, only that there is one;
//! and of threads that are not a process's first, whether they are under it, which the images do not say.

use std::path::Path;

use super::manifest::{self, Manifest};
use super::seal;
use crate::daemon::containers::container::Record;
use crate::daemon::containers::spec::{self, Confinement};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::runtime::capabilities;
use crate::runtime::criu::images::{self, Credentials, Seccomp, Task};

/// Whether the checkpoint in `dir` may be thawed as the container of `record`. `is_trusted` lets it bring
/// credentials that the container does not have, and files whose digests were never taken. Reads all of it that may have changed.
///
/// # Errors
/// Conflict, in one sentence.
pub fn check(
    engine: &Engine,
    record: &Record,
    dir: &Path,
    manifest: &Manifest,
    is_trusted: bool,
) -> Result<()> {
    fits(engine, manifest)?;
    seal::verify(dir, manifest, &manifest::boot_id(), is_trusted)?;
    admits(record, dir, manifest, is_trusted)
}

/// As [`check`], of a checkpoint that fits this machine and whose files are known to be what the manifest says.
///
/// # Errors
/// Conflict, in one sentence.
pub fn admits(record: &Record, dir: &Path, manifest: &Manifest, is_trusted: bool) -> Result<()> {
    if manifest.image_id != record.image_id {
        return Err(Error::conflict(format!(
            "it was taken over image {}, the container has {}",
            manifest.image_id, record.image_id
        )));
    }
    if !is_trusted {
        let tree = images::tree(&dir.join("images")).map_err(|error| Error::conflict(error.to_string()))?;
        let confinement = spec::confinement(record)?;
        if let Some(reason) = tree.iter().find_map(|task| excess(task, &confinement)) {
            return Err(Error::conflict(format!("{reason}; --trust thaws it all the same")));
        }
    }
    Ok(())
}

/// Whether what was frozen with this manifest can go on on this machine.
///
/// # Errors
/// Conflict, in one sentence.
pub fn fits(engine: &Engine, manifest: &Manifest) -> Result<()> {
    let uname = rustix::system::uname();
    let here = Here {
        architecture: uname.machine().to_string_lossy().into_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        criu: engine.criu().as_ref().map_or_else(|_| String::new(), |info| info.version.clone()),
        cpu_features: manifest::cpu_features(),
    };
    unfit(manifest, &here).map_or(Ok(()), |reason| Err(Error::conflict(reason)))
}

/// Where a checkpoint is to be thawed.
struct Here {
    architecture: String,
    kernel: String,
    /// Empty if there is none: the thaw itself says so.
    criu: String,
    cpu_features: std::collections::BTreeSet<String>,
}

/// Why it cannot be thawed on this machine.
fn unfit(manifest: &Manifest, here: &Here) -> Option<String> {
    if manifest.architecture != here.architecture {
        return Some(format!("it was taken on {}, this is {}", manifest.architecture, here.architecture));
    }
    // A release has two numbers that count; what follows are fixes.
    if numbers(&here.kernel, 2) < numbers(&manifest.kernel, 2) {
        return Some(format!(
            "it was taken on kernel {}, this is {}: thaw it on that kernel or a newer one",
            manifest.kernel, here.kernel
        ));
    }
    if !here.criu.is_empty() && numbers(&here.criu, 3) < numbers(&manifest.criu, 3) {
        return Some(format!(
            "criu {} wrote it, this is criu {}, which may not understand it: install criu {0} or newer",
            manifest.criu, here.criu
        ));
    }
    let missing: Vec<&str> = manifest
        .cpu_features
        .iter()
        .filter(|feature| is_for_programs(feature, &manifest.architecture))
        .filter(|feature| !here.cpu_features.contains(*feature))
        .map(String::as_str)
        .collect();
    if !missing.is_empty() {
        return Some(format!(
            "it was taken on a CPU with {}, which this one does not have and its processes may be using",
            missing.join(", ")
        ));
    }
    None
}

/// The first numbers of a version.
fn numbers(version: &str, count: usize) -> Vec<u32> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .map(|number| number.parse().unwrap_or(0))
        .chain(std::iter::repeat(0))
        .take(count)
        .collect()
}

/// Whether programs use a feature by themselves; the others are the kernel's.
fn is_for_programs(feature: &str, architecture: &str) -> bool {
    const WORDS: [&str; 47] = [
        "fpu",
        "cx8",
        "cmov",
        "mmx",
        "fxsr",
        "rdtscp",
        "lm",
        "pni",
        "pclmulqdq",
        "ssse3",
        "fma",
        "cx16",
        "movbe",
        "popcnt",
        "aes",
        "xsave",
        "xsaveopt",
        "xsavec",
        "xgetbv1",
        "f16c",
        "rdrand",
        "lahf_lm",
        "abm",
        "xop",
        "fma4",
        "tbm",
        "bmi1",
        "bmi2",
        "rtm",
        "rdseed",
        "adx",
        "clflushopt",
        "clwb",
        "sha_ni",
        "vaes",
        "vpclmulqdq",
        "gfni",
        "rdpid",
        "fsgsbase",
        "pku",
        "ospke",
        "movdiri",
        "movdir64b",
        "serialize",
        "waitpkg",
        "user_shstk",
        "3dnowprefetch",
    ];
    const FAMILIES: [&str; 3] = ["sse", "avx", "amx"];
    if !matches!(architecture, "x86_64" | "i686") {
        // Elsewhere the kernel lists nothing else.
        return true;
    }
    WORDS.contains(&feature) || FAMILIES.iter().any(|family| feature.starts_with(family))
}

/// What a process of a checkpoint has that the container's may not have.
fn excess(task: &Task, allowed: &Confinement) -> Option<String> {
    let who = format!("its process {} ({:?})", task.pid, task.comm);
    if task.is_dead {
        return None;
    }
    if task.credentials.is_empty() {
        return Some(format!("{who} does not say what it may do"));
    }
    // CRIU puts the filter of the first thread on all of them (TSYNC) when they share it, and says only there which.
    let is_filtered = task.credentials.first().is_some_and(|leader| leader.seccomp != Seccomp::Off);
    if allowed.has_seccomp && !is_filtered {
        return Some(format!("{who} is under no seccomp filter, which the container's processes are to be"));
    }
    task.credentials.iter().find_map(|thread| excess_of(thread, allowed).map(|what| format!("{who} {what}")))
}

fn excess_of(thread: &Credentials, allowed: &Confinement) -> Option<String> {
    let held = thread.inheritable | thread.permitted | thread.effective | thread.bounding | thread.ambient;
    let beyond = held & !allowed.capabilities;
    if beyond != 0 {
        let mut names = capabilities::names(beyond);
        let unnamed = beyond.count_ones() as usize - names.len();
        if unnamed > 0 {
            names.push(format!("{unnamed} that are not known here"));
        }
        return Some(format!("has capabilities that the container is not given: {}", names.join(", ")));
    }
    if allowed.no_new_privileges && !thread.no_new_privs {
        return Some("may gain privileges, which the container is not to (no-new-privileges)".into());
    }
    if allowed.no_new_privileges && allowed.is_never_root && thread.uids.contains(&0) {
        return Some("is root, which the container's user cannot become".into());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/daemon/containers/checkpoint/fixtures/v1");
        let mut manifest = Manifest::load(&dir).unwrap();
        (manifest.kernel, manifest.criu) = ("6.12.3-1".into(), "4.2.1".into());
        manifest.architecture = "x86_64".into();
        manifest.cpu_features = ["avx2", "sse", "hypervisor"].map(str::to_owned).into();
        manifest
    }

    fn here() -> Here {
        Here {
            architecture: "x86_64".into(),
            kernel: "6.12.0".into(),
            criu: "4.2.1".into(),
            cpu_features: ["avx2", "sse", "sse2"].map(str::to_owned).into(),
        }
    }

    #[test]
    fn a_machine_that_cannot_run_it_is_said_to_be_none() {
        let why = |change: fn(&mut Here)| {
            let mut here = here();
            change(&mut here);
            unfit(&manifest(), &here).unwrap_or_default()
        };
        assert_eq!(why(|_| {}), "");
        assert_eq!(why(|here| here.kernel = "7.0.0-rc1".into()), "");
        assert_eq!(why(|here| here.criu = "4.10".into()), "");
        assert!(
            why(|here| here.architecture = "aarch64".into()).contains("taken on x86_64, this is aarch64")
        );
        assert!(why(|here| here.kernel = "6.9.12".into()).contains("kernel 6.12.3-1, this is 6.9.12"));
        assert!(why(|here| here.criu = "4.2".into()).contains("criu 4.2.1 wrote it, this is criu 4.2"));
        assert!(why(|here| here.cpu_features.clear()).contains("a CPU with avx2, sse, which"));
    }

    #[test]
    fn nothing_is_thawed_with_more_than_the_container_may() {
        let allowed = Confinement {
            capabilities: 0b0111,
            has_seccomp: true,
            no_new_privileges: true,
            is_never_root: true,
        };
        let fine = Credentials {
            uids: [7; 4],
            gids: [7; 4],
            effective: 0b0011,
            no_new_privs: true,
            seccomp: Seccomp::Filter,
            ..Credentials::default()
        };
        let why = |thread: Credentials| {
            let task = Task {
                pid: 9,
                comm: "sh".into(),
                credentials: vec![fine.clone(), thread],
                ..Task::default()
            };
            excess(&task, &allowed).unwrap_or_default()
        };
        assert_eq!(why(fine.clone()), "");
        let more = why(Credentials { bounding: 1 << 21, ..fine.clone() });
        assert!(
            more.starts_with("its process 9 (\"sh\") has capabilities") && more.ends_with("CAP_SYS_ADMIN"),
            "{more}"
        );
        assert!(why(Credentials { ambient: 1 << 63, ..fine.clone() }).contains("not known here"));
        // Of a thread that is not the first one it says nothing.
        assert_eq!(why(Credentials { seccomp: Seccomp::Off, ..fine.clone() }), "");
        let open = Credentials { seccomp: Seccomp::Off, ..fine.clone() };
        let task = Task { pid: 9, credentials: vec![open], ..Task::default() };
        assert!(excess(&task, &allowed).unwrap_or_default().contains("no seccomp filter"));
        assert!(why(Credentials { no_new_privs: false, ..fine.clone() }).contains("may gain privileges"));
        assert!(why(Credentials { uids: [7, 0, 7, 7], ..fine.clone() }).contains("is root"));
        let nobody = Task { pid: 9, ..Task::default() };
        assert!(excess(&nobody, &allowed).is_some());
        assert_eq!(excess(&Task { is_dead: true, ..nobody }, &allowed), None);
    }
}
