//! What the daemon was asked to be: one value, every default with its source.

use std::path::{Path, PathBuf};

/// The daemon's settings after flags are merged with defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// `unix:///path` or `tcp://address:port`; never empty.
    pub hosts: Vec<String>,
    /// Images, containers and volumes: what survives a reboot.
    pub data_root: PathBuf,
    /// Sockets, mounts and namespaces: what does not.
    pub exec_root: PathBuf,
    pub pidfile: Option<PathBuf>,
    /// The group that may use the unix socket; `None` is `dewar` where it exists, else root's.
    pub group: Option<String>,
    /// The CRIU to use; `None` looks in PATH and the well-known prefixes.
    pub criu: Option<PathBuf>,
    /// Permits tcp hosts on loopback without TLS: whoever can connect is root.
    pub insecure_tcp: bool,
    /// Gets one newline when the daemon answers, then is closed (as s6 expects).
    pub ready_fd: Option<i32>,
    /// Seconds that containers get to stop when the daemon does.
    pub shutdown_timeout_secs: u64,
    /// Leave containers running when the daemon stops.
    pub live_restore: bool,
    pub debug: bool,
    /// The cgroup below which each container gets its own; `None` derives it from `exec_root`.
    pub cgroup_parent: Option<String>,
}

/// Where the client looks and the daemon listens unless told otherwise.
pub const DEFAULT_HOST: &str = "unix:///run/dewar.sock";
/// hier(7): variable state of a service.
pub const DEFAULT_DATA_ROOT: &str = "/var/lib/dewar";
/// hier(7): run-time state, gone after a boot.
pub const DEFAULT_EXEC_ROOT: &str = "/run/dewar";

impl Default for Config {
    fn default() -> Config {
        Config {
            hosts: vec![DEFAULT_HOST.to_owned()],
            data_root: DEFAULT_DATA_ROOT.into(),
            exec_root: DEFAULT_EXEC_ROOT.into(),
            pidfile: None,
            group: None,
            criu: None,
            insecure_tcp: false,
            ready_fd: None,
            // dockerd's default
            shutdown_timeout_secs: 15,
            live_restore: false,
            debug: false,
            cgroup_parent: None,
        }
    }
}

impl Config {
    /// The cgroup below which containers live.
    ///
    /// Two daemons on one host must not sweep each other's cgroups, so every exec-root but the default
    /// has a parent of its own.
    pub fn cgroup_parent(&self) -> String {
        match &self.cgroup_parent {
            Some(parent) => format!("/{}", parent.trim_matches('/')),
            None if self.exec_root == Path::new(DEFAULT_EXEC_ROOT) => "/dewar".to_owned(),
            None => format!("/dewar-{:08x}", fnv1a(self.exec_root.as_os_str().as_encoded_bytes())),
        }
    }
}

/// FNV-1a, 32 bits: a short stable name for a path; collisions only cost tidiness.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
