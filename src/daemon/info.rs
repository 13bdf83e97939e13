//! What the daemon says of itself and of the host: version, info.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::Config;
use super::containers::State;
use super::containers::logs::drivers;
use super::engine::Engine;
use super::runtimes;
use crate::http::api::system::{
    Component, Platform, RegistryConfig, RuntimeInfo, Swarm, SystemInfo, SystemVersion,
};
use crate::http::api::{API_VERSION, MIN_API_VERSION};
use crate::runtime::cgroup;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The language, and the oldest compiler of it that builds dewar.
const COMPILER: &str = concat!("none (Rust ", env!("CARGO_PKG_RUST_VERSION"), ")");

/// The architecture in Go's words, which clients compare.
fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Answers `GET /version`.
pub fn version() -> SystemVersion {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let details = [
        ("ApiVersion", API_VERSION.to_string()),
        ("Arch", go_arch().to_owned()),
        ("BuildTime", String::new()),
        ("Experimental", "true".to_owned()),
        ("GitCommit", String::new()),
        // Compat: clients print it beside the version; there is no Go here.
        ("GoVersion", COMPILER.to_owned()),
        ("KernelVersion", kernel.clone()),
        ("MinAPIVersion", MIN_API_VERSION.to_string()),
        ("Os", "linux".to_owned()),
    ];
    SystemVersion {
        platform: Platform { name: "dewar".to_owned() },
        components: vec![Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details: details.map(|(key, value)| (key.to_owned(), value)).into(),
        }],
        version: VERSION.to_owned(),
        api_version: API_VERSION.to_string(),
        min_api_version: MIN_API_VERSION.to_string(),
        go_version: COMPILER.to_owned(),
        os: "linux".to_owned(),
        arch: go_arch().to_owned(),
        kernel_version: kernel,
        // The stock CLI hides `checkpoint` from a daemon that does not call itself experimental.
        experimental: true,
        ..SystemVersion::default()
    }
}

/// Answers `GET /info`.
pub fn info(engine: &Arc<Engine>) -> SystemInfo {
    let config = engine.config();
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    let containers = engine.containers.all();
    for container in &containers {
        *counts.entry(container.lock().record.state.name()).or_default() += 1;
    }
    let count = |states: &[State]| states.iter().filter_map(|state| counts.get(state.name())).sum::<u64>();
    let uname = rustix::system::uname();
    let (criu, mut warnings) = match engine.criu() {
        Ok(found) => {
            let faults = found.faults.iter().map(|fault| format!("WARNING: {fault}")).collect();
            (format!("{} {}", found.path.display(), found.version), faults)
        }
        Err(error) => (String::new(), vec![format!("WARNING: checkpoints are not available: {error}")]),
    };
    let cgroups = cgroup::features().unwrap_or_else(|error| {
        warnings.push(format!("WARNING: {error}"));
        cgroup::Features::default()
    });
    warnings.extend(super::doctor::warnings());
    warnings.extend(engine.firewall.warnings());
    // Compat: Docker's words; the stock client prints them as they are.
    warnings.extend(lacking(&cgroups).map(|what| format!("WARNING: No {what} support")));
    SystemInfo {
        id: engine.id.clone(),
        containers: containers.len() as u64,
        containers_running: count(&[State::Running, State::Restarting]),
        containers_paused: count(&[State::Paused]),
        containers_stopped: count(&[State::Created, State::Exited, State::Dead, State::Removing]),
        images: engine.images.images().len() as u64,
        driver: "overlay2".to_owned(),
        driver_status: vec![["Backing Filesystem".to_owned(), filesystem(&config.data_root)]],
        plugins: crate::http::api::system::Plugins {
            volume: vec!["local".to_owned()],
            network: ["bridge", "host", "ipvlan", "macvlan", "null"].map(str::to_owned).to_vec(),
            log: drivers::names(),
            authorization: engine.authorization.names(),
        },
        memory_limit: cgroups.memory_limit,
        swap_limit: cgroups.swap_limit,
        cpu_cfs_period: cgroups.cpu_cfs_period,
        cpu_cfs_quota: cgroups.cpu_cfs_quota,
        cpu_shares: cgroups.cpu_shares,
        cpu_set: cgroups.cpuset,
        pids_limit: cgroups.pids_limit,
        ipv4_forwarding: read("/proc/sys/net/ipv4/ip_forward") == "1",
        debug: config.debug,
        n_fd: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        oom_kill_disable: cgroups.oom_kill_disable,
        n_goroutines: std::fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count() as u64),
        system_time: super::containers::create::now(),
        logging_driver: config.defaults.log.kind.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: cgroups.version.to_string(),
        n_events_listener: engine.events.subscribers() as u64,
        kernel_version: uname.release().to_string_lossy().into_owned(),
        operating_system: os_release("PRETTY_NAME"),
        os_version: os_release("VERSION_ID"),
        os_type: "linux".to_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: registries(&config),
        http_proxy: masked(&config.http_proxy),
        https_proxy: masked(&config.https_proxy),
        no_proxy: config.no_proxy.clone(),
        labels: config.labels.clone(),
        ncpu: std::thread::available_parallelism().map_or(1, |count| count.get() as u64),
        mem_total: memory_total_bytes(),
        docker_root_dir: config.data_root.to_string_lossy().into_owned(),
        name: uname.nodename().to_string_lossy().into_owned(),
        experimental_build: true,
        server_version: VERSION.to_owned(),
        runtimes: known_runtimes(&config),
        default_runtime: config.default_runtime.clone(),
        swarm: Swarm { local_node_state: "inactive".to_owned(), ..Swarm::default() },
        live_restore_enabled: config.live_restore,
        init_binary: "dewar".to_owned(),
        security_options: vec!["name=seccomp,profile=builtin".to_owned(), "name=cgroupns".to_owned()],
        criu,
        warnings,
        ..SystemInfo::default()
    }
}

/// A proxy's address without the password, as Docker shows it.
pub fn masked(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    // A password may have an @ in it, a host may not.
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        None => url.to_owned(),
    }
}

fn registries(config: &Config) -> RegistryConfig {
    let (networks, hosts): (Vec<_>, Vec<_>) =
        config.insecure_registries.iter().cloned().partition(|registry| registry.contains('/'));
    let index = |name: &str, mirrors: &[String], secure: bool, official: bool| serde_json::json!({"Name": name, "Mirrors": mirrors, "Secure": secure, "Official": official});
    let docker = ("docker.io".to_owned(), index("docker.io", &config.registry_mirrors, true, true));
    let others = hosts.into_iter().map(|host| {
        let entry = index(&host, &[], false, false);
        (host, entry)
    });
    RegistryConfig {
        // Compat: Docker trusts the host itself.
        insecure_registry_cidrs: networks
            .into_iter()
            .chain(["::1/128".to_owned(), "127.0.0.0/8".to_owned()])
            .collect(),
        index_configs: others.chain([docker]).collect(),
        mirrors: config.registry_mirrors.clone(),
    }
}

/// What the host is made of.
pub struct Host {
    pub kernel: String,
    /// In the kernel's word.
    pub architecture: String,
    pub os: String,
    pub os_version: String,
    pub cpus: usize,
    pub memory_bytes: u64,
}

/// Reads a few files.
pub fn host() -> Host {
    let uname = rustix::system::uname();
    Host {
        kernel: uname.release().to_string_lossy().into_owned(),
        architecture: uname.machine().to_string_lossy().into_owned(),
        os: os_release("PRETTY_NAME"),
        os_version: os_release("VERSION_ID"),
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_total_bytes(),
    }
}

/// Our own runtime and those that are registered.
fn known_runtimes(config: &Config) -> BTreeMap<String, RuntimeInfo> {
    let own = RuntimeInfo { path: "built in".to_owned(), ..RuntimeInfo::default() };
    let others = config.runtimes.iter().map(|(name, runtime)| {
        let path = runtime.path.to_string_lossy().into_owned();
        (name.clone(), RuntimeInfo { path, runtime_args: runtime.args.clone() })
    });
    others.chain([(runtimes::BUILT_IN.to_owned(), own)]).collect()
}

/// The limits this kernel cannot set, in Docker's words.
fn lacking(kernel: &cgroup::Features) -> impl Iterator<Item = &'static str> {
    // cgroup v2 has no such knob, and nobody is told of it.
    let is_v2 = kernel.version == 2;
    [
        (kernel.memory_limit, "memory limit"),
        (kernel.swap_limit, "swap limit"),
        (kernel.oom_kill_disable || is_v2, "oom kill disable"),
        (kernel.cpu_cfs_quota, "cpu cfs quota"),
        (kernel.cpu_cfs_period, "cpu cfs period"),
        (kernel.cpu_shares, "cpu shares"),
        (kernel.cpuset, "cpuset"),
        (kernel.pids_limit, "pids limit"),
        (kernel.blkio_weight, "blkio weight"),
        (kernel.blkio_throttle, "blkio throttle"),
    ]
    .into_iter()
    .filter_map(|(has, what)| (!has).then_some(what))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// A field of os-release(5); empty where the host has no such file.
pub fn os_release(field: &str) -> String {
    read("/etc/os-release")
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
        .unwrap_or_default()
}

/// Source: proc_meminfo(5), in KiB.
fn memory_total_bytes() -> u64 {
    read("/proc/meminfo")
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        })
        .map_or(0, |kib| kib * 1024)
}

/// The name of the file system below a path. Source: statfs(2), magic numbers of linux/magic.h.
fn filesystem(path: &std::path::Path) -> String {
    match rustix::fs::statfs(path).map(|stat| stat.f_type) {
        Ok(0xef53) => "extfs".to_owned(),
        Ok(0x5846_5342) => "xfs".to_owned(),
        Ok(0x9123_683e) => "btrfs".to_owned(),
        Ok(0x0102_1994) => "tmpfs".to_owned(),
        Ok(0x794c_7630) => "overlayfs".to_owned(),
        Ok(other) => format!("{other:#x}"),
        Err(_) => String::new(),
    }
}
