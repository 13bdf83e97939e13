//! Containers: their configuration, their state, and what can be done to them.
//!
//! Long because Docker's two configuration objects are: `ContainerConfig` (what the image may say too) and
//! `HostConfig` (what only the caller may say). It stays whole so that one file answers what a request
//! contains. `Option` marks fields whose absence means something else than zero, and fields that Docker
//! leaves out or sends as null.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::checkpoint_policy::{CheckpointPolicy, CheckpointingState};
use super::strict::Strict;
use super::{Endpoint, Filters, Method, Shape};

/// A set in Docker's spelling: `{"80/tcp": {}}`.
pub type Set = BTreeMap<String, Empty>;

/// `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Compat: old clients send `Cmd` and `Entrypoint` as one string.
fn string_or_list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::<Either>::deserialize(deserializer)?.map(|either| match either {
        Either::One(word) => vec![word],
        Either::Many(words) => words,
    }))
}

/// What runs in the container; an image gives the defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub exposed_ports: Set,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    /// `KEY=value`; a bare `KEY` removes an inherited one.
    pub env: Vec<String>,
    #[serde(deserialize_with = "string_or_list")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The reference the caller gave.
    pub image: String,
    pub volumes: Option<Set>,
    pub working_dir: String,
    /// `[""]` clears the image's.
    #[serde(deserialize_with = "string_or_list")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_disabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac_address: Option<String>,
    pub on_build: Option<Vec<String>>,
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// How to tell whether the container is well; durations in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    #[serde(skip_serializing_if = "is_default")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub retries: i64,
}

/// What the host grants: mounts, limits, privileges, network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct HostConfig {
    /// `source:destination[:mode]`.
    pub binds: Option<Vec<String>>,
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    pub log_config: LogConfig,
    /// `default`, `bridge`, `none`, `host`, `container:<id>` or a network.
    pub network_mode: String,
    pub port_bindings: BTreeMap<String, Option<Vec<PortBinding>>>,
    pub restart_policy: RestartPolicy,
    /// Dewar's own.
    #[serde(skip_serializing_if = "is_default")]
    pub checkpoint_policy: CheckpointPolicy,
    pub auto_remove: bool,
    pub volume_driver: String,
    pub volumes_from: Option<Vec<String>>,
    /// Height and width in characters.
    pub console_size: [u16; 2],
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    pub cap_add: Option<Vec<String>>,
    pub cap_drop: Option<Vec<String>>,
    pub cgroupns_mode: String,
    pub dns: Vec<String>,
    pub dns_options: Vec<String>,
    pub dns_search: Vec<String>,
    /// `name:address`.
    pub extra_hosts: Option<Vec<String>>,
    pub group_add: Option<Vec<String>>,
    pub ipc_mode: String,
    pub cgroup: String,
    pub links: Option<Vec<String>>,
    pub oom_score_adj: i32,
    pub pid_mode: String,
    pub privileged: bool,
    pub publish_all_ports: bool,
    pub readonly_rootfs: bool,
    pub security_opt: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub storage_opt: BTreeMap<String, String>,
    /// Destination to mount options.
    #[serde(skip_serializing_if = "is_default")]
    pub tmpfs: BTreeMap<String, String>,
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    pub userns_mode: String,
    /// Bytes.
    pub shm_size: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub sysctls: BTreeMap<String, String>,
    pub runtime: String,
    pub isolation: String,
    #[serde(flatten, skip_deserializing)]
    pub resources: Resources,
    #[serde(skip_serializing_if = "is_default")]
    pub mounts: Vec<MountRequest>,
    /// `None` is the default list, an empty list masks nothing.
    pub masked_paths: Option<Vec<String>>,
    pub readonly_paths: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
}

/// Limits; zero means unset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Resources {
    pub cpu_shares: i64,
    /// Bytes.
    pub memory: i64,
    /// Billionths of a CPU.
    pub nano_cpus: i64,
    pub cgroup_parent: String,
    pub blkio_weight: u16,
    pub blkio_weight_device: Vec<WeightDevice>,
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceReadIOps")]
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    #[serde(rename = "BlkioDeviceWriteIOps")]
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
    /// Microseconds.
    pub cpu_period: i64,
    /// Microseconds per period.
    pub cpu_quota: i64,
    pub cpu_realtime_period: i64,
    pub cpu_realtime_runtime: i64,
    pub cpuset_cpus: String,
    pub cpuset_mems: String,
    pub devices: Vec<DeviceMapping>,
    pub device_cgroup_rules: Option<Vec<String>>,
    pub device_requests: Option<Vec<serde_json::Value>>,
    /// Bytes.
    pub memory_reservation: i64,
    /// Bytes of memory and swap together; -1 is unlimited.
    pub memory_swap: i64,
    /// 0..=100; -1 or absent is unset.
    pub memory_swappiness: Option<i64>,
    pub oom_kill_disable: Option<bool>,
    /// ≤ 0 or absent is unlimited.
    pub pids_limit: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub cpu_count: i64,
    pub cpu_percent: i64,
    #[serde(rename = "IOMaximumIOps")]
    pub io_maximum_iops: u64,
    #[serde(rename = "IOMaximumBandwidth")]
    pub io_maximum_bandwidth: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WeightDevice {
    pub path: String,
    pub weight: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ThrottleDevice {
    pub path: String,
    pub rate: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DeviceMapping {
    pub path_on_host: String,
    pub path_in_container: String,
    /// Of `rwm`.
    pub cgroup_permissions: String,
}

/// The names a [`Ulimit`] may have. Source: Docker, which leaves out `as`.
#[rustfmt::skip]
pub const ULIMITS: [&str; 15] = [
    "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
];

/// -1 is unlimited.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Ulimit {
    pub name: String,
    pub hard: i64,
    pub soft: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    #[serde(rename = "Type")]
    pub kind: String,
    pub config: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    pub host_ip: String,
    pub host_port: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no`, `always`, `unless-stopped` or `on-failure`.
    pub name: String,
    pub maximum_retry_count: i64,
}

/// `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountRequest {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub source: String,
    pub target: String,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub consistency: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub propagation: String,
    #[serde(skip_serializing_if = "is_default")]
    pub non_recursive: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub create_mountpoint: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_non_recursive: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub read_only_force_recursive: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub no_copy: bool,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    pub subpath: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
}

/// The driver of a volume that is made on the way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    #[serde(skip_serializing_if = "is_default")]
    pub options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    #[serde(skip_serializing_if = "is_default")]
    pub size_bytes: i64,
    /// Permission bits.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: u32,
    #[serde(skip_serializing_if = "is_default")]
    pub options: Vec<Vec<String>>,
}

/// The body of create: [`ContainerConfig`] at the top level, the rest beside it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default, remote = "Self")]
pub struct ContainerCreate {
    #[serde(flatten, skip_deserializing)]
    pub config: ContainerConfig,
    pub host_config: HostConfig,
    pub networking_config: NetworkingConfig,
}

/// Reads a flattened object twice, once for each of its halves: serde's own `flatten` buffers every field and
/// compiles each type a second time for the buffer, a tenth of a megabyte for these two.
macro_rules! flattened {
    ($type:ident, $half:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let value = serde_json::Value::deserialize(deserializer)?;
                if !value.is_object() {
                    return Err(serde::de::Error::custom(concat!("expected an object, ", stringify!($type))));
                }
                let half =
                    Deserialize::deserialize(Strict(value.clone())).map_err(serde::de::Error::custom)?;
                let mut whole = $type::deserialize(Strict(value)).map_err(serde::de::Error::custom)?;
                whole.$half = half;
                Ok(whole)
            }
        }

        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $type::serialize(self, serializer)
            }
        }
    };
}
flattened!(HostConfig, resources);
flattened!(ContainerCreate, config);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkingConfig {
    pub endpoints_config: BTreeMap<String, EndpointSettings>,
}

/// Addresses asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointIpam {
    #[serde(rename = "IPv4Address", skip_serializing_if = "is_default")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address", skip_serializing_if = "is_default")]
    pub ipv6_address: String,
    #[serde(rename = "LinkLocalIPs", skip_serializing_if = "is_default")]
    pub link_local_ips: Vec<String>,
}

/// A container's place in one network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct EndpointSettings {
    #[serde(rename = "IPAMConfig")]
    pub ipam_config: Option<EndpointIpam>,
    pub links: Option<Vec<String>>,
    pub aliases: Option<Vec<String>>,
    pub mac_address: String,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub gw_priority: i64,
    #[serde(rename = "NetworkID")]
    pub network_id: String,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    #[serde(rename = "DNSNames")]
    pub dns_names: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerCreated {
    pub id: String,
    pub warnings: Vec<String>,
}

/// One line of `ps`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerSummary {
    pub id: String,
    /// With a leading `/`.
    pub names: Vec<String>,
    pub image: String,
    #[serde(rename = "ImageID")]
    pub image_id: String,
    pub command: String,
    /// Seconds since the epoch.
    pub created: i64,
    pub ports: Vec<Port>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    pub labels: BTreeMap<String, String>,
    pub state: String,
    pub status: String,
    pub host_config: SummaryHostConfig,
    pub network_settings: SummaryNetworkSettings,
    pub mounts: Vec<MountPoint>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryHostConfig {
    pub network_mode: String,
    #[serde(skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SummaryNetworkSettings {
    pub networks: BTreeMap<String, EndpointSettings>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Port {
    #[serde(rename = "IP", skip_serializing_if = "is_default")]
    pub ip: String,
    pub private_port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_port: Option<u16>,
    #[serde(rename = "Type")]
    pub kind: String,
}

/// A mount as the container has it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountPoint {
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    pub source: String,
    pub destination: String,
    #[serde(skip_serializing_if = "is_default")]
    pub driver: String,
    pub mode: String,
    #[serde(rename = "RW")]
    pub rw: bool,
    pub propagation: String,
}

/// `docker inspect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerInspect {
    pub id: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    pub path: String,
    pub args: Vec<String>,
    pub state: ContainerState,
    pub image: String,
    pub resolv_conf_path: String,
    pub hostname_path: String,
    pub hosts_path: String,
    pub log_path: String,
    pub name: String,
    pub restart_count: i64,
    pub driver: String,
    pub platform: String,
    pub mount_label: String,
    pub process_label: String,
    pub app_armor_profile: String,
    #[serde(rename = "ExecIDs")]
    pub exec_ids: Option<Vec<String>>,
    pub host_config: HostConfig,
    pub graph_driver: GraphDriver,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_rw: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_root_fs: Option<i64>,
    pub mounts: Vec<MountPoint>,
    pub config: ContainerConfig,
    pub network_settings: NetworkSettings,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GraphDriver {
    pub name: String,
    pub data: BTreeMap<String, String>,
}

/// Times are RFC 3339 with nanoseconds; `0001-01-01T00:00:00Z` is never.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    pub status: String,
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    #[serde(rename = "OOMKilled")]
    pub oom_killed: bool,
    pub dead: bool,
    pub pid: i32,
    pub exit_code: i32,
    pub error: String,
    pub started_at: String,
    pub finished_at: String,
    /// Only with a health check, and only once started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    /// Dewar's own.
    #[serde(skip_serializing_if = "is_default")]
    pub checkpointing: CheckpointingState,
}

/// What a container's health check has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    pub failing_streak: i64,
    /// The last five, oldest first.
    pub log: Vec<HealthcheckResult>,
}

/// One probe.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthcheckResult {
    /// RFC 3339 with nanoseconds.
    pub start: String,
    pub end: String,
    /// 0 is healthy; -1 when the probe did not run or took too long.
    pub exit_code: i32,
    pub output: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NetworkSettings {
    pub bridge: String,
    #[serde(rename = "SandboxID")]
    pub sandbox_id: String,
    pub sandbox_key: String,
    pub ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    /// Compat: from here to the networks all is what the network "bridge" says, or nothing; gone with 1.52.
    pub hairpin_mode: bool,
    #[serde(rename = "LinkLocalIPv6Address")]
    pub link_local_ipv6_address: String,
    #[serde(rename = "LinkLocalIPv6PrefixLen")]
    pub link_local_ipv6_prefix_len: i64,
    #[serde(rename = "SecondaryIPAddresses")]
    pub secondary_ip_addresses: Option<Vec<Empty>>,
    #[serde(rename = "SecondaryIPv6Addresses")]
    pub secondary_ipv6_addresses: Option<Vec<Empty>>,
    #[serde(rename = "EndpointID")]
    pub endpoint_id: String,
    pub gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    pub global_ipv6_prefix_len: i64,
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    pub ip_prefix_len: i64,
    #[serde(rename = "IPv6Gateway")]
    pub ipv6_gateway: String,
    pub mac_address: String,
    pub networks: BTreeMap<String, EndpointSettings>,
}

/// The body of update; zero and absent leave a setting as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerUpdate {
    #[serde(flatten)]
    pub resources: Resources,
    pub restart_policy: RestartPolicy,
    /// Dewar's own.
    #[serde(skip_serializing_if = "is_default")]
    pub checkpoint_policy: CheckpointPolicy,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerUpdated {
    pub warnings: Vec<String>,
}

/// `docker wait`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerWait {
    pub status_code: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<WaitError>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct WaitError {
    pub message: String,
}

/// `docker top`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerTop {
    pub titles: Vec<String>,
    pub processes: Vec<Vec<String>>,
}

crate::query! {
    pub struct ListQuery {
        /// Stopped ones too.
        all: bool = "all",
        /// The newest so many, whatever their state.
        limit: Option<i64> = "limit",
        size: bool = "size",
        filters: Filters = "filters",
    }
}
crate::query! {
    pub struct CreateQuery {
        name: String = "name",
        platform: String = "platform",
    }
}
crate::query! {
    pub struct InspectQuery {
        size: bool = "size",
    }
}
crate::query! {
    pub struct StartQuery {
        /// Thaw this checkpoint instead of running the command.
        checkpoint: String = "checkpoint",
        checkpoint_dir: String = "checkpoint-dir",
        detach_keys: String = "detachKeys",
        /// Dewar's own: the checkpoint's TCP connections come back closed, even if they could go on.
        tcp_close: bool = "tcp-close",
        /// Dewar's own: thaw processes that have more than the container's configuration gives them.
        trust: bool = "trust",
        /// Dewar's own: volumes keep the content they have.
        keep_volumes: bool = "keep-volumes",
        /// Dewar's own: the checkpoint's processes run before their memory is there.
        lazy: bool = "lazy",
    }
}
crate::query! {
    pub struct StopQuery {
        /// Seconds before the kill; -1 waits for ever.
        timeout_secs: Option<i64> = "t",
        signal: String = "signal",
    }
}
crate::query! {
    pub struct KillQuery {
        signal: String = "signal",
    }
}
crate::query! {
    pub struct WaitQuery {
        /// `not-running`, `next-exit` or `removed`.
        condition: String = "condition",
    }
}
crate::query! {
    pub struct AttachQuery {
        stream: bool = "stream",
        logs: bool = "logs",
        stdin: bool = "stdin",
        stdout: bool = "stdout",
        stderr: bool = "stderr",
        detach_keys: Option<String> = "detachKeys",
    }
}
crate::query! {
    pub struct ResizeQuery {
        /// Characters.
        height: Option<u32> = "h",
        width: Option<u32> = "w",
    }
}
crate::query! {
    pub struct LogsQuery {
        stdout: bool = "stdout",
        stderr: bool = "stderr",
        follow: bool = "follow",
        /// `seconds[.nanoseconds]` since the epoch.
        since: String = "since",
        until: String = "until",
        timestamps: bool = "timestamps",
        /// A number of lines; anything else is all.
        tail: String = "tail",
        details: bool = "details",
    }
}
crate::query! {
    pub struct TopQuery {
        ps_args: String = "ps_args",
    }
}
crate::query! {
    pub struct RenameQuery {
        name: String = "name",
    }
}
crate::query! {
    pub struct DeleteQuery {
        /// Anonymous volumes too.
        volumes: bool = "v",
        force: bool = "force",
        link: bool = "link",
    }
}
crate::query! {
    pub struct ArchiveQuery {
        path: String = "path",
        no_overwrite_dir_non_dir: bool = "noOverwriteDirNonDir",
        copy_uid_gid: bool = "copyUIDGID",
    }
}

pub static CONTAINER_LIST: Endpoint<ListQuery, (), Vec<ContainerSummary>> =
    Endpoint::new("ContainerList", Method::Get, "/containers/json", Shape::Json, 200);
pub static CONTAINER_CREATE: Endpoint<CreateQuery, ContainerCreate, ContainerCreated> =
    Endpoint::new("ContainerCreate", Method::Post, "/containers/create", Shape::Json, 201);
pub static CONTAINER_INSPECT: Endpoint<InspectQuery, (), ContainerInspect> =
    Endpoint::new("ContainerInspect", Method::Get, "/containers/{name}/json", Shape::Json, 200);
pub static CONTAINER_START: Endpoint<StartQuery, (), ()> =
    Endpoint::new("ContainerStart", Method::Post, "/containers/{name}/start", Shape::Empty, 204).slow();
pub static CONTAINER_STOP: Endpoint<StopQuery, (), ()> =
    Endpoint::new("ContainerStop", Method::Post, "/containers/{name}/stop", Shape::Empty, 204).slow();
pub static CONTAINER_RESTART: Endpoint<StopQuery, (), ()> =
    Endpoint::new("ContainerRestart", Method::Post, "/containers/{name}/restart", Shape::Empty, 204).slow();
pub static CONTAINER_KILL: Endpoint<KillQuery, (), ()> =
    Endpoint::new("ContainerKill", Method::Post, "/containers/{name}/kill", Shape::Empty, 204).slow();
pub static CONTAINER_WAIT: Endpoint<WaitQuery, (), ContainerWait> =
    Endpoint::new("ContainerWait", Method::Post, "/containers/{name}/wait", Shape::Stream, 200);
pub static CONTAINER_ATTACH: Endpoint<AttachQuery, (), ()> =
    Endpoint::new("ContainerAttach", Method::Post, "/containers/{name}/attach", Shape::Hijack, 101);
/// The same by WebSocket.
pub static CONTAINER_ATTACH_WEBSOCKET: Endpoint<AttachQuery, (), ()> = Endpoint::new(
    "ContainerAttachWebsocket",
    Method::Get,
    "/containers/{name}/attach/ws",
    Shape::Hijack,
    101,
);
pub static CONTAINER_RESIZE: Endpoint<ResizeQuery, (), ()> =
    Endpoint::new("ContainerResize", Method::Post, "/containers/{name}/resize", Shape::Empty, 200);
pub static CONTAINER_LOGS: Endpoint<LogsQuery, (), ()> =
    Endpoint::new("ContainerLogs", Method::Get, "/containers/{name}/logs", Shape::Stream, 200);
pub static CONTAINER_TOP: Endpoint<TopQuery, (), ContainerTop> =
    Endpoint::new("ContainerTop", Method::Get, "/containers/{name}/top", Shape::Json, 200);
pub static CONTAINER_PAUSE: Endpoint<(), (), ()> =
    Endpoint::new("ContainerPause", Method::Post, "/containers/{name}/pause", Shape::Empty, 204).slow();
pub static CONTAINER_UNPAUSE: Endpoint<(), (), ()> =
    Endpoint::new("ContainerUnpause", Method::Post, "/containers/{name}/unpause", Shape::Empty, 204).slow();
pub static CONTAINER_RENAME: Endpoint<RenameQuery, (), ()> =
    Endpoint::new("ContainerRename", Method::Post, "/containers/{name}/rename", Shape::Empty, 204);
pub static CONTAINER_DELETE: Endpoint<DeleteQuery, (), ()> =
    Endpoint::new("ContainerDelete", Method::Delete, "/containers/{name}", Shape::Empty, 204).slow();
pub static CONTAINER_UPDATE: Endpoint<(), ContainerUpdate, ContainerUpdated> =
    Endpoint::new("ContainerUpdate", Method::Post, "/containers/{name}/update", Shape::Json, 200);
/// The answer is in the header `X-Docker-Container-Path-Stat`.
pub static CONTAINER_ARCHIVE_INFO: Endpoint<ArchiveQuery, (), ()> =
    Endpoint::new("ContainerArchiveInfo", Method::Head, "/containers/{name}/archive", Shape::Empty, 200);
/// A tar.
pub static CONTAINER_ARCHIVE: Endpoint<ArchiveQuery, (), ()> =
    Endpoint::new("ContainerArchive", Method::Get, "/containers/{name}/archive", Shape::Stream, 200);
/// The body is a tar, plain or compressed.
pub static PUT_CONTAINER_ARCHIVE: Endpoint<ArchiveQuery, (), ()> =
    Endpoint::new("PutContainerArchive", Method::Put, "/containers/{name}/archive", Shape::Empty, 200).slow();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flattened_object_round_trips() {
        let mut create = ContainerCreate::default();
        create.config.image = "a".to_owned();
        create.config.cmd = Some(vec!["true".to_owned()]);
        create.host_config.resources.memory = 1 << 30;
        create.host_config.network_mode = "none".to_owned();
        let value = serde_json::to_value(&create).unwrap();
        assert_eq!(value["Image"], "a");
        assert_eq!(value["HostConfig"]["Memory"], 1 << 30);
        assert_eq!(
            crate::http::api::decode::<ContainerCreate>(value.to_string().as_bytes()).unwrap(),
            create
        );
    }

    #[test]
    fn one_string_is_a_command_of_one_word_and_nulls_are_unset() {
        let text = br#"{"Cmd":"true","Env":null,"HostConfig":{"Memory":null,"Binds":null}}"#;
        let create: ContainerCreate = crate::http::api::decode(text).unwrap();
        assert_eq!(create.config.cmd, Some(vec!["true".to_owned()]));
        assert_eq!(create.host_config, HostConfig::default());
    }
}
