//! What a test cannot do without, declared in its first line: `requires!(root, criu);`
//!
//! A missing requirement prints `skip: …` and ends the test; with `DEWAR_TEST_STRICT=1`, which `make test` sets, it
//! fails it instead: a skip that looks like a pass is a lie.

use std::path::{Path, PathBuf};
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

/// The program that ships: debug builds are neither small nor light.
pub fn release() -> Result<(), String> {
    let is_release = super::binary().components().any(|part| part.as_os_str() == "release");
    if is_release { Ok(()) } else { Err("a debug build: set DEWAR_BIN to the release binary".to_owned()) }
}

/// A CRIU that works here: see [`criu_path`].
pub fn criu() -> Result<(), String> {
    root()?;
    criu_path().map(|_| ())
}

/// The CRIU that scripts/criu.sh found: `DEWAR_TEST_CRIU`, or where it installs one.
pub fn criu_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_CRIU", "/opt/dewar/criu/bin/criu")
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

/// Archives that are encrypted.
pub fn age() -> Result<(), String> {
    on_path("age").map(drop).ok_or_else(|| "no age: run scripts/deps.sh test".to_owned())
}

/// Programs built with musl.
pub fn musl() -> Result<(), String> {
    on_path("musl-gcc").map(drop).ok_or_else(|| "no musl-gcc: run scripts/deps.sh test".to_owned())
}

/// The distribution's Python, for containers that have its /usr.
pub fn system_python() -> Result<(), String> {
    let is_there = Path::new("/usr/bin/python3").exists();
    if is_there { Ok(()) } else { Err("no /usr/bin/python3: run scripts/deps.sh test".to_owned()) }
}

/// Python with docker-py.
pub fn docker_py() -> Result<(), String> {
    root()?;
    python_path().map(|_| ())
}

/// A python3 that has docker-py: what scripts/python.sh made, else the host's.
pub fn python_path() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let candidates = venv_python().into_iter().chain(on_path("python3"));
            candidates.chain([PathBuf::from("/usr/bin/python3")]).find(|python| imports(python, "docker"))
        })
        .clone()
        .ok_or_else(|| "no python3 with docker-py: run scripts/deps.sh test".to_owned())
}

/// Python with docker-py and what its `attach_socket(ws=True)` needs.
pub fn docker_py_websocket() -> Result<(), String> {
    root()?;
    python_with_websocket().map(|_| ())
}

/// A python3 that has docker-py and websocket-client.
pub fn python_with_websocket() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| {
            let candidates = venv_python().into_iter().chain(on_path("python3"));
            candidates
                .chain([PathBuf::from("/usr/bin/python3")])
                .find(|python| imports(python, "docker, websocket"))
        })
        .clone()
        .ok_or_else(|| "no python3 with docker-py and websocket-client: run scripts/deps.sh test".to_owned())
}

/// Testcontainers for Python, and the docker-py it is tested with.
pub fn testcontainers() -> Result<(), String> {
    root()?;
    testcontainers_python().map(|_| ())
}

/// The Python that scripts/python.sh made: `DEWAR_TEST_PYTHON`, or where it puts one.
pub fn testcontainers_python() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Option<PathBuf>> = OnceLock::new();
    FOUND
        .get_or_init(|| venv_python().filter(|python| imports(python, "testcontainers.core.container")))
        .clone()
        .ok_or_else(|| "no python3 with testcontainers: run scripts/python.sh".to_owned())
}

fn venv_python() -> Option<PathBuf> {
    installed("DEWAR_TEST_PYTHON", "/opt/dewar/python/bin/python3")
}

/// Whether `python` has `module`.
fn imports(python: &Path, module: &str) -> bool {
    let quiet = Command::new(python)
        .args(["-c", &format!("import {module}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    quiet.is_ok_and(|status| status.success())
}

/// Docker Compose 2.
pub fn compose() -> Result<(), String> {
    root()?;
    compose_path().map(|_| ())
}

/// What scripts/compose.sh found: `DEWAR_TEST_COMPOSE`, or where it installs one.
pub fn compose_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_COMPOSE", "/opt/dewar/compose2/bin/docker-compose")
        .ok_or_else(|| "no docker-compose: run scripts/compose.sh".to_owned())
}

/// Docker Compose 1, in Python.
pub fn compose_v1() -> Result<(), String> {
    root()?;
    compose_v1_path().map(|_| ())
}

/// Where scripts/compose.sh installs the old one.
pub fn compose_v1_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_COMPOSE_V1", "/opt/dewar/compose1/bin/docker-compose")
        .ok_or_else(|| "no docker-compose of version 1: run scripts/compose.sh 1".to_owned())
}

/// runc, to run containers instead of our own runtime.
pub fn runc() -> Result<(), String> {
    root()?;
    on_path("runc").map(|_| ()).ok_or_else(|| "no runc: run scripts/deps.sh test".to_owned())
}

/// crun, for the same.
pub fn crun() -> Result<(), String> {
    root()?;
    on_path("crun").map(|_| ()).ok_or_else(|| "no crun: run scripts/deps.sh test".to_owned())
}

/// curl.
pub fn curl() -> Result<(), String> {
    root()?;
    on_path("curl").map(|_| ()).ok_or_else(|| "no curl: run scripts/deps.sh test".to_owned())
}

/// openssl makes certificates.
pub fn openssl() -> Result<(), String> {
    on_path("openssl").map(|_| ()).ok_or_else(|| "no openssl: run scripts/deps.sh test".to_owned())
}

/// The programs of OpenSSH.
pub fn ssh() -> Result<(), String> {
    root()?;
    let has_client = on_path("ssh").is_some();
    if has_client && sshd_path().is_some() {
        return Ok(());
    }
    Err("no ssh and sshd: run scripts/deps.sh test".to_owned())
}

/// The host's sshd, or what scripts/deps.sh unpacked.
pub fn sshd_path() -> Option<PathBuf> {
    ["/usr/sbin/sshd", "/opt/dewar/sshd/usr/sbin/sshd"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// systemd's launcher for socket activation, which needs no systemd.
pub fn socket_activate() -> Result<(), String> {
    on_path("systemd-socket-activate")
        .map(|_| ())
        .ok_or_else(|| "no systemd-socket-activate: run scripts/deps.sh test".to_owned())
}

/// iproute2 makes the hosts around a daemon.
pub fn iproute() -> Result<(), String> {
    root()?;
    in_sbin("ip").then_some(()).ok_or_else(|| "no ip: run scripts/deps.sh test".to_owned())
}

/// nft, and iptables of both kinds, to be somebody else on the host.
pub fn nftables() -> Result<(), String> {
    root()?;
    let all = ["nft", "iptables-nft", "iptables-legacy"];
    all.into_iter()
        .all(in_sbin)
        .then_some(())
        .ok_or_else(|| "no nft or iptables: run scripts/deps.sh test".to_owned())
}

/// Whether the shell finds a program, or root's shell would.
fn in_sbin(name: &str) -> bool {
    on_path(name).is_some() || Path::new("/usr/sbin").join(name).exists()
}

/// What scripts/boot.sh starts, and makes a disk with.
pub fn vm() -> Result<(), String> {
    root()?;
    if !Path::new("/opt/dewar/vm/bin/qemu").exists() {
        return Err("no virtual machine: run scripts/vm.sh".to_owned());
    }
    if in_sbin("mkfs.ext4") { Ok(()) } else { Err("no mkfs.ext4: run scripts/deps.sh test".to_owned()) }
}

/// Supervisors of Debian's, and make.
pub fn supervisors() -> Result<(), String> {
    root()?;
    on_path("make").ok_or_else(|| "no make".to_owned())?;
    supervisors_path().map(|_| ())
}

/// What scripts/supervisors.sh fetched: `DEWAR_TEST_SUPERVISORS`, or where it puts them.
pub fn supervisors_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_SUPERVISORS", "/opt/dewar/supervisors")
        .ok_or_else(|| "no supervisors: run scripts/supervisors.sh".to_owned())
}

/// podman, its runtime and checkpointctl.
pub fn podman() -> Result<(), String> {
    root()?;
    podman_path().map(|_| ())
}

/// What scripts/podman.sh fetched: `DEWAR_TEST_PODMAN`, or where it puts it.
pub fn podman_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_PODMAN", "/opt/dewar/podman")
        .ok_or_else(|| "no podman: run scripts/podman.sh".to_owned())
}

/// systemd's program that looks at units, which needs no systemd.
pub fn systemd_analyze() -> Result<(), String> {
    on_path("systemd-analyze")
        .map(|_| ())
        .ok_or_else(|| "no systemd-analyze: run scripts/deps.sh test".to_owned())
}

/// What `variable` names, else `usual`, if it is there.
fn installed(variable: &str, usual: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).filter(|path| !path.is_empty()).map(PathBuf::from);
    named.or_else(|| Some(usual.into())).filter(|path| path.exists())
}

/// umoci makes and unpacks layouts that are not ours.
pub fn umoci() -> Result<(), String> {
    on_path("umoci").map(|_| ()).ok_or_else(|| "no umoci: run scripts/deps.sh test".to_owned())
}

/// skopeo writes archives that are not ours.
pub fn skopeo() -> Result<(), String> {
    on_path("skopeo").map(|_| ()).ok_or_else(|| "no skopeo: run scripts/deps.sh test".to_owned())
}

/// Debian's registry, and skopeo to fill it.
pub fn docker_registry() -> Result<(), String> {
    root()?;
    skopeo()?;
    docker_registry_path().map(|_| ())
}

/// What scripts/deps.sh unpacked: `DEWAR_TEST_REGISTRY`, or where it puts it.
pub fn docker_registry_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_REGISTRY", "/opt/dewar/registry/bin/docker-registry")
        .ok_or_else(|| "no docker-registry: run scripts/deps.sh test".to_owned())
}

/// PostgreSQL 15 with its libraries.
pub fn postgres() -> Result<(), String> {
    postgres_path().map(|_| ())
}

/// What scripts/deps.sh unpacked, as the root of a filesystem: `DEWAR_TEST_POSTGRES`, or where it puts it.
pub fn postgres_path() -> Result<PathBuf, String> {
    installed("DEWAR_TEST_POSTGRES", "/opt/dewar/postgres")
        .ok_or_else(|| "no PostgreSQL: run scripts/deps.sh test".to_owned())
}

/// `name` as the shell would find it.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
