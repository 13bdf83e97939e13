//! What the daemon was asked to be: one value, every default with its source.
//!
//! ```text
//! flags ──┐
//! file  ──┼─ load ─▶ merged values, by key ─ options ─▶ Config     (again on SIGHUP: reload)
//! env   ──┘
//! ```
//!
//! `options` is the one table of what can be set; flags and file go through the same checks.

pub mod ignored;
pub mod load;
mod network;
pub mod options;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::{Error, Result};
use super::logger::{Destination, Format};
use super::networks::subnet::Subnet;
use super::runtimes::{self, Runtimes};
use crate::http::api::container::{LogConfig, Ulimit};

/// The merged values by configuration key, as JSON; what is not in it has its default.
pub type Values = BTreeMap<&'static str, Value>;

/// The daemon's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// What this was made from.
    pub values: Values,
    /// As given; `listeners` reads them. Never empty.
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
    pub tls: Tls,
    /// Gets one newline when the daemon answers, then is closed (as s6 expects).
    pub ready_fd: Option<i32>,
    /// Seconds that containers get to stop when the daemon does; `None` waits for them.
    pub shutdown_timeout_secs: Option<u64>,
    /// Seconds a container gets to stop that says nothing of its own.
    pub default_stop_timeout_secs: i64,
    /// Leave containers running when the daemon stops.
    pub live_restore: bool,
    /// Freeze containers to disk when the daemon stops, and thaw them when it starts.
    pub checkpoint_on_shutdown: bool,
    pub debug: bool,
    /// Tell each request at level info.
    pub access_log: bool,
    /// Where metrics are served, if at all.
    pub metrics_addr: Option<SocketAddr>,
    /// Names of the plugins that decide about requests, in the order they are asked.
    pub authorization_plugins: Vec<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    pub log_format: Format,
    pub log_to: Destination,
    pub log_file_max_bytes: u64,
    /// The current one included.
    pub log_file_max_files: u32,
    /// `key=value`, shown by `info`.
    pub labels: Vec<String>,
    /// The cgroup below which each container gets its own; `None` derives it from `exec_root`.
    pub cgroup_parent: Option<String>,
    pub registry_mirrors: Vec<String>,
    /// `host[:port]` or a network in CIDR notation.
    pub insecure_registries: Vec<String>,
    pub max_concurrent_downloads: u32,
    pub max_concurrent_uploads: u32,
    pub max_download_attempts: u32,
    /// Experiments by name; clients read them from `info`.
    pub features: BTreeMap<String, bool>,
    pub http_proxy: String,
    pub https_proxy: String,
    pub no_proxy: String,
    /// OCI runtimes beside our own.
    pub runtimes: Runtimes,
    /// Runs containers that name none.
    pub default_runtime: String,
    /// What containers get that say nothing of their own.
    pub defaults: ContainerDefaults,
    pub network: NetworkDefaults,
}

/// The default bridge, and what networks get that say nothing of their own.
#[derive(Clone, Debug)]
pub struct NetworkDefaults {
    /// `--bridge`: an interface of the host's own making, `none` for no default network; empty for ours.
    pub bridge: String,
    /// The default bridge's own address and subnet, by family.
    pub bip: Option<Subnet>,
    pub bip6: Option<Subnet>,
    /// The range that containers on the default bridge get addresses from.
    pub fixed_cidr: Option<Subnet>,
    pub fixed_cidr_v6: Option<Subnet>,
    /// The way out of the default bridge, when it is not the bridge.
    pub default_gateway: Option<Ipv4Addr>,
    pub default_gateway_v6: Option<Ipv6Addr>,
    /// Where subnets nobody chose come from, and how long their prefix is; empty for Docker's.
    pub address_pools: Vec<(Subnet, u8)>,
    /// The default bridge has IPv6.
    pub ipv6: bool,
    /// Containers on the default bridge may speak to each other.
    pub icc: bool,
    /// Firewall rules are made, by family.
    pub iptables: bool,
    pub ip6tables: bool,
    /// Forwarding between interfaces is turned on.
    pub ip_forward: bool,
    /// The default bridge's containers speak to the world with the host's address.
    pub ip_masq: bool,
    /// The host's address for published ports that name none.
    pub ip: IpAddr,
    /// Of the default bridge, in bytes.
    pub mtu: u32,
    /// What `host-gateway` means, at most one of each family; empty for the default bridge's addresses.
    pub host_gateway_ips: Vec<IpAddr>,
    /// Options of networks to be created, by driver.
    pub default_opts: BTreeMap<String, BTreeMap<String, String>>,
    /// Hosts that route to the containers' subnets reach them.
    pub allow_direct_routing: bool,
    /// The daemon itself relays to published ports what no rule can carry.
    pub userland_proxy: bool,
}

impl Default for NetworkDefaults {
    fn default() -> NetworkDefaults {
        NetworkDefaults {
            bridge: String::new(),
            bip: None,
            bip6: None,
            fixed_cidr: None,
            fixed_cidr_v6: None,
            default_gateway: None,
            default_gateway_v6: None,
            address_pools: Vec::new(),
            ipv6: false,
            icc: true,
            iptables: true,
            ip6tables: true,
            ip_forward: true,
            ip_masq: true,
            ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mtu: 1500,
            host_gateway_ips: Vec::new(),
            default_opts: BTreeMap::new(),
            allow_direct_routing: false,
            userland_proxy: true,
        }
    }
}

/// TLS of tcp hosts, as given; `listeners` reads it.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// `--tls`
    pub is_on: Option<bool>,
    /// `--tlsverify`, which turns TLS on whatever it says.
    pub verifies: Option<bool>,
    /// Files; `None` is the usual one.
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// Defaults of containers to be created.
#[derive(Clone, Debug)]
pub struct ContainerDefaults {
    /// Of containers of the same driver, or that name none.
    pub log: LogConfig,
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Bytes.
    pub shm_size: i64,
    /// `private` or `shareable`.
    pub ipc_mode: String,
    /// `private` or `host`.
    pub cgroupns_mode: String,
    pub init: bool,
    pub no_new_privileges: bool,
    /// The text of a profile, `unconfined`, or empty for the built-in one.
    pub seccomp_profile: String,
    pub dns: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
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
            values: Values::new(),
            hosts: vec![DEFAULT_HOST.to_owned()],
            data_root: DEFAULT_DATA_ROOT.into(),
            exec_root: DEFAULT_EXEC_ROOT.into(),
            pidfile: None,
            group: None,
            criu: None,
            insecure_tcp: false,
            tls: Tls::default(),
            ready_fd: None,
            // dockerd's defaults, here and for what follows
            shutdown_timeout_secs: Some(15),
            default_stop_timeout_secs: 10,
            live_restore: false,
            checkpoint_on_shutdown: false,
            debug: false,
            access_log: false,
            metrics_addr: None,
            authorization_plugins: Vec::new(),
            log_level: "info".to_owned(),
            log_format: Format::Text,
            log_to: Destination::Stderr,
            // Small enough for a flash disk, large enough for a story.
            log_file_max_bytes: 10 * 1024 * 1024,
            log_file_max_files: 5,
            labels: Vec::new(),
            cgroup_parent: None,
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            max_concurrent_downloads: 3,
            max_concurrent_uploads: 5,
            max_download_attempts: 5,
            features: BTreeMap::new(),
            http_proxy: String::new(),
            https_proxy: String::new(),
            no_proxy: String::new(),
            runtimes: Runtimes::new(),
            default_runtime: runtimes::BUILT_IN.to_owned(),
            defaults: ContainerDefaults {
                log: LogConfig { kind: "json-file".to_owned(), config: BTreeMap::new() },
                ulimits: BTreeMap::new(),
                shm_size: 64 * 1024 * 1024,
                ipc_mode: "private".to_owned(),
                // Compat: Docker gives v1 hosts the host's cgroup namespace; a private one is what CRIU can
                // restore and what v2 hosts get, so dewar's default is private everywhere.
                cgroupns_mode: "private".to_owned(),
                init: false,
                no_new_privileges: false,
                seccomp_profile: String::new(),
                dns: Vec::new(),
                dns_options: Vec::new(),
                dns_search: Vec::new(),
            },
            network: NetworkDefaults::default(),
        }
    }
}

impl Config {
    /// The configuration that `values` make over the defaults.
    ///
    /// # Errors
    /// InvalidParameter naming the key, the value and what is wrong with it.
    pub fn new(values: Values) -> Result<Config> {
        let mut config = Config::default();
        for option in options::OPTIONS {
            if let Some(value) = values.get(option.key) {
                option.apply(&mut config, value)?;
            }
        }
        if config.live_restore && config.checkpoint_on_shutdown {
            return Err(Error::invalid(
                "live-restore leaves containers running where checkpoint-on-shutdown freezes them: choose one",
            ));
        }
        runtimes::check_default(&config)?;
        network::settle(&mut config.network)?;
        config.values = values;
        Ok(config)
    }

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
pub fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
