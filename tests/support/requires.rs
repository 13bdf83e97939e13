//! What a test cannot do without, declared in its first line: `requires!(root, criu);`
//!
//! A missing requirement prints `skip: …` and ends the test; with `DEWAR_TEST_STRICT=1`, which `make test` sets, it
//! fails it instead: a skip that looks like a pass is a lie.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Ends the test as skipped (or failed, if strict) unless every named requirement is met.
macro_rules! requires {
    ($($need:ident),+ $(,)?) => {
        $(if let Err(why) = $crate::support::requires::$need() {
            $crate::support::requires::skip(&why);
            return;
        })+
    };
}
pub(crate) use requires;

/// Says that a test is skipped, and why.
#[track_caller]
pub fn skip(why: &str) {
    let strict = std::env::var("DEWAR_TEST_STRICT").is_ok_and(|value| value == "1");
    assert!(!strict, "skip: {why} (DEWAR_TEST_STRICT=1 makes a skip a failure)");
    println!("skip: {why}");
}

/// Containers need root.
pub fn root() -> Result<(), String> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err("not root".to_owned()) }
}

/// A CRIU that works here: see [`criu_path`].
pub fn criu() -> Result<(), String> {
    root()?;
    criu_path().map(|_| ())
}

/// The CRIU that scripts/criu.sh found: `DEWAR_TEST_CRIU`, or where it installs one.
pub fn criu_path() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let named =
                std::env::var_os("DEWAR_TEST_CRIU").filter(|path| !path.is_empty()).map(PathBuf::from);
            named.or_else(|| Some("/opt/dewar/criu/bin/criu".into())).filter(|path| path.exists())
        })
        .clone()
        .ok_or_else(|| "no criu that works on this kernel: run scripts/criu.sh".to_owned())
}

/// The stock docker client.
pub fn docker() -> Result<(), String> {
    root()?;
    docker_path().map(|_| ())
}

/// `docker` on PATH, or where scripts/deps.sh puts one.
pub fn docker_path() -> Result<PathBuf, String> {
    on_path("docker")
        .or_else(|| Some(PathBuf::from("/opt/dewar/docker/bin/docker")).filter(|path| path.exists()))
        .ok_or_else(|| "no docker client: run scripts/deps.sh test".to_owned())
}

/// Python with docker-py.
pub fn docker_py() -> Result<(), String> {
    root()?;
    python_path().map(|_| ())
}

/// A python3 that has docker-py.
pub fn python_path() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let candidates = on_path("python3").into_iter().chain([PathBuf::from("/usr/bin/python3")]);
            candidates.into_iter().find(|python| {
                let quiet = Command::new(python)
                    .args(["-c", "import docker"])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status();
                quiet.is_ok_and(|status| status.success())
            })
        })
        .clone()
        .ok_or_else(|| "no python3 with docker-py: run scripts/deps.sh test".to_owned())
}

/// skopeo writes archives that are not ours.
pub fn skopeo() -> Result<(), String> {
    on_path("skopeo").map(|_| ()).ok_or_else(|| "no skopeo: run scripts/deps.sh test".to_owned())
}

/// `name` as the shell would find it.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
