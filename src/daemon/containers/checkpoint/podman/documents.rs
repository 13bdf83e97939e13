//! `config.dump` and `spec.dump`: what podman says of a container, as the record of one of dewar's.
//!
//! Both are Go's: what is not set is absent or null. A field that is not understood is as one that is not there,
//! except where that would be less confinement than the container had, or where its processes need what cannot
//! be here: that is refused.
//!
//! Sources: podman's `libpod/container_config.go`, the OCI runtime spec.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::daemon::containers::container::Record;
use crate::daemon::containers::mounts::Mount;
use crate::daemon::containers::spec::MASKED_PATHS;
use crate::daemon::containers::state::State;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::network::Given;
use crate::daemon::networks::subnet::Subnet;
use crate::daemon::volumes::LOCAL;
use crate::http::api::container::{
    ContainerConfig, DeviceMapping, Empty, Healthcheck, HostConfig, PortBinding, RestartPolicy, Ulimit,
};
use crate::runtime::shim::checkpoint::adopt::Surroundings;

/// Files that dewar makes for every container.
const GENERATED: [&str; 3] = ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"];
/// What says that it is podman's container; nothing reads it.
const CONTAINERENV: &str = "/run/.containerenv";
/// Options of a tmpfs that mean the same here.
const TMPFS_WORDS: [&str; 8] = ["ro", "rw", "exec", "noexec", "suid", "nosuid", "dev", "nodev"];
const TMPFS_KEYS: [&str; 5] = ["size=", "nr_inodes=", "mode=", "uid=", "gid="];

/// A container of podman's.
#[derive(Debug, Default)]
pub struct Described {
    pub id: String,
    pub name: String,
    /// The image's name, and its id with `sha256:` before it.
    pub image: String,
    pub image_id: String,
    /// Without an id, an image, networks and defaults.
    pub record: Record,
    pub surroundings: Surroundings,
    /// Where something is mounted, and whether that is a file.
    pub mount_points: Vec<(String, bool)>,
    pub warnings: Vec<String>,
}

/// The refusal of a container that cannot be one of dewar's.
pub fn cannot(reason: &str) -> Error {
    Error::conflict(format!("{reason}, which cannot be brought here"))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> Vec<String> {
    items(value).iter().map(text).collect()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

fn is(value: &Value) -> bool {
    value.as_bool().unwrap_or_default()
}

/// Nothing for an empty list, as the API has it.
fn some(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

/// Reads both documents.
///
/// # Errors
/// Conflict for what a container of dewar's cannot have; InvalidParameter for what is none of podman's.
pub fn describe(config: &Value, spec: &Value) -> Result<Described> {
    let manager = text(&spec["annotations"]["io.container.manager"]);
    if manager != "libpod" {
        let whose = if manager.is_empty() { "another engine" } else { &manager };
        return Err(Error::invalid(format!("{whose} wrote it: archives of dewar and of podman are read")));
    }
    let mut described = Described {
        id: text(&config["id"]),
        name: text(&config["name"]),
        image: text(&config["rootfsImageName"]),
        image_id: format!("sha256:{}", text(&config["rootfsImageID"]).trim_start_matches("sha256:")),
        ..Described::default()
    };
    if described.id.len() < 12 || described.name.is_empty() {
        return Err(Error::invalid("config.dump does not say which container it was"));
    }
    if let Some(directory) = config["rootfs"].as_str().filter(|directory| !directory.is_empty()) {
        return Err(cannot(&format!(
            "its root is the directory {directory} of the other host, and no image"
        )));
    }
    let namespaces = Namespaces::read(config, spec)?;
    let mut host = host_config(config, spec, &namespaces);
    described.surroundings.has_netns = host.network_mode != "host";
    described.surroundings.masked =
        texts(&spec["linux"]["maskedPaths"]).into_iter().chain(MASKED_PATHS.map(str::to_owned)).collect();
    // Also where the configuration leaves them to whoever restores it.
    described.surroundings.binds.extend(GENERATED.map(str::to_owned));
    let mut mounts = volumes(config)?;
    for mount in items(&spec["mounts"]) {
        take_mount(mount, &mut mounts, &mut host, &mut described)?;
    }
    for mount in &mounts {
        described.surroundings.binds.insert(mount.destination.clone());
        let is_file = mount.kind == "bind" && std::path::Path::new(&mount.source).is_file();
        described.mount_points.push((mount.destination.clone(), is_file));
        let source = if mount.kind == "bind" { &mount.source } else { &mount.name };
        if !mount.is_anonymous {
            let access = if mount.rw { "" } else { ":ro" };
            host.binds.get_or_insert_default().push(format!("{source}:{}{access}", mount.destination));
        }
    }
    described.mount_points.extend(host.tmpfs.keys().map(|destination| (destination.clone(), false)));
    networks(config, &mut host, &mut described.warnings);
    let process = &spec["process"];
    let mut words = texts(&process["args"]).into_iter();
    let path = words.next().filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| Error::invalid("spec.dump does not say what the container runs"))?;
    described.record = Record {
        path,
        args: words.collect(),
        config: container_config(config, spec, &described.image),
        host_config: host,
        mounts,
        state: State::Created,
        ..Record::default()
    };
    Ok(described)
}

/// The container's own namespaces.
#[derive(Debug, Default)]
struct Namespaces {
    /// Of which kinds it has one.
    own: BTreeSet<String>,
    /// podman made its network.
    has_network: bool,
}

impl Namespaces {
    fn read(config: &Value, spec: &Value) -> Result<Namespaces> {
        let pod = text(&config["pod"]);
        if !pod.is_empty() {
            return Err(cannot(&format!("it is in pod {}", pod.get(..12).unwrap_or(&pod))));
        }
        let donors = [
            ("netNsCtr", "network"),
            ("ipcNsCtr", "IPC"),
            ("pidNsCtr", "process"),
            ("utsNsCtr", "UTS"),
            ("userNsCtr", "user"),
            ("mountNsCtr", "mount"),
            ("cgroupNsCtr", "cgroup"),
        ];
        for (key, what) in donors {
            let donor = text(&config[key]);
            if !donor.is_empty() {
                return Err(cannot(&format!("it shares the {what} namespace of container {donor}")));
            }
        }
        let mut found = Namespaces { has_network: is(&config["createNetNS"]), ..Namespaces::default() };
        for namespace in items(&spec["linux"]["namespaces"]) {
            let (kind, path) = (text(&namespace["type"]), text(&namespace["path"]));
            if kind == "user" {
                return Err(cannot("its processes are in a user namespace"));
            }
            // A bridge's is podman's own, whatever its path.
            let is_bridge = kind == "network" && found.has_network;
            if !path.is_empty() && !is_bridge {
                return Err(cannot(&format!("its {kind} namespace is {path} of the other host")));
            }
            found.own.insert(kind);
        }
        if !found.own.contains("pid") {
            return Err(cannot("it shares the other host's process ids (--pid host)"));
        }
        Ok(found)
    }

    fn mode(&self, kind: &str) -> String {
        if self.own.contains(kind) { String::new() } else { "host".to_owned() }
    }
}

fn container_config(config: &Value, spec: &Value, image: &str) -> ContainerConfig {
    let process = &spec["process"];
    let stop_signal = number(&config["stopSignal"]);
    let exposed = config["exposedPorts"].as_object().into_iter().flatten();
    let exposed = exposed.flat_map(|(port, protocols)| {
        items(protocols).iter().map(move |protocol| format!("{port}/{}", text(protocol)))
    });
    let mapped = items(&config["newPortMappings"]).iter().flat_map(ports).map(|(port, _)| port);
    ContainerConfig {
        hostname: text(&spec["hostname"]),
        domainname: text(&spec["domainname"]),
        user: text(&config["user"]),
        tty: is(&process["terminal"]),
        open_stdin: is(&config["stdin"]),
        env: texts(&process["env"]),
        cmd: some(texts(&process["args"])),
        image: image.to_owned(),
        working_dir: text(&process["cwd"]),
        labels: serde_json::from_value(config["labels"].clone()).unwrap_or_default(),
        exposed_ports: exposed.chain(mapped).map(|port| (port, Empty {})).collect(),
        stop_signal: (stop_signal > 0).then(|| stop_signal.to_string()),
        stop_timeout: config["stopTimeout"].as_i64(),
        healthcheck: serde_json::from_value::<Healthcheck>(config["healthcheck"].clone()).ok(),
        ..ContainerConfig::default()
    }
}

fn host_config(config: &Value, spec: &Value, namespaces: &Namespaces) -> HostConfig {
    let (process, linux) = (&spec["process"], &spec["linux"]);
    let privileged = is(&config["privileged"]);
    let mut host = HostConfig {
        network_mode: match namespaces.mode("network").as_str() {
            "host" => "host",
            _ if namespaces.has_network => "default",
            _ => "none",
        }
        .to_owned(),
        restart_policy: RestartPolicy {
            name: text(&config["restart_policy"]),
            maximum_retry_count: number(&config["restart_retries"]),
        },
        ipc_mode: namespaces.mode("ipc"),
        uts_mode: namespaces.mode("uts"),
        dns: texts(&config["dnsServer"]),
        dns_search: texts(&config["dnsSearch"]),
        dns_options: texts(&config["dnsOption"]),
        extra_hosts: some(texts(&config["hostsAdd"])),
        group_add: some(texts(&config["groups"])),
        oom_score_adj: number(&process["oomScoreAdj"]) as i32,
        privileged,
        readonly_rootfs: is(&spec["root"]["readonly"]),
        shm_size: number(&config["shmSize"]),
        sysctls: serde_json::from_value(linux["sysctl"].clone()).unwrap_or_default(),
        ..HostConfig::default()
    };
    let mut options = Vec::new();
    if is(&process["noNewPrivileges"]) {
        options.push("no-new-privileges".to_owned());
    }
    if !privileged {
        if linux["seccomp"].is_null() {
            options.push("seccomp=unconfined".to_owned());
        }
        if items(&linux["maskedPaths"]).is_empty() {
            options.push("systempaths=unconfined".to_owned());
        }
        host.cap_drop = Some(vec!["ALL".to_owned()]);
        host.cap_add = some(texts(&process["capabilities"]["bounding"]));
        let device = |device: &Value| DeviceMapping {
            path_on_host: text(&device["path"]),
            path_in_container: text(&device["path"]),
            cgroup_permissions: "rwm".to_owned(),
        };
        host.resources.devices = items(&linux["devices"]).iter().map(device).collect();
    }
    host.security_opt = some(options);
    let (limits, given) = (&mut host.resources, &linux["resources"]);
    limits.memory = number(&given["memory"]["limit"]).max(0);
    limits.memory_reservation = number(&given["memory"]["reservation"]).max(0);
    limits.memory_swap = number(&given["memory"]["swap"]);
    limits.cpu_shares = number(&given["cpu"]["shares"]);
    limits.cpu_quota = number(&given["cpu"]["quota"]).max(0);
    limits.cpu_period = number(&given["cpu"]["period"]);
    limits.cpuset_cpus = text(&given["cpu"]["cpus"]);
    limits.cpuset_mems = text(&given["cpu"]["mems"]);
    limits.pids_limit = given["pids"]["limit"].as_i64();
    let ulimit = |limit: &Value| Ulimit {
        name: text(&limit["type"]).trim_start_matches("RLIMIT_").to_lowercase(),
        hard: limit["hard"].as_i64().unwrap_or(-1),
        soft: limit["soft"].as_i64().unwrap_or(-1),
    };
    limits.ulimits = items(&process["rlimits"]).iter().map(ulimit).collect();
    for (port, binding) in items(&config["newPortMappings"]).iter().flat_map(ports) {
        host.port_bindings.entry(port).or_default().get_or_insert_default().push(binding);
    }
    host
}

/// The ports of a mapping, which may be of a range and for several protocols.
fn ports(mapping: &Value) -> Vec<(String, PortBinding)> {
    let (container, host) = (number(&mapping["container_port"]), number(&mapping["host_port"]));
    let count = number(&mapping["range"]).clamp(1, 65_536);
    let protocols = text(&mapping["protocol"]);
    let mut found = Vec::new();
    for protocol in protocols.split(',') {
        for at in 0..count {
            let binding = PortBinding {
                host_ip: text(&mapping["host_ip"]),
                host_port: if host == 0 { String::new() } else { host.saturating_add(at).to_string() },
            };
            let protocol = if protocol.is_empty() { "tcp" } else { protocol };
            found.push((format!("{}/{protocol}", container.saturating_add(at)), binding));
        }
    }
    found
}

/// Its named volumes, the content of which comes along.
fn volumes(config: &Value) -> Result<Vec<Mount>> {
    let mut mounts = Vec::new();
    for volume in items(&config["namedVolumes"]) {
        let options = texts(&volume["options"]);
        let mount = Mount {
            kind: "volume".to_owned(),
            name: text(&volume["volumeName"]),
            destination: text(&volume["dest"]),
            driver: LOCAL.to_owned(),
            rw: !options.iter().any(|option| option == "ro"),
            is_anonymous: is(&volume["isAnonymous"]),
            subpath: text(&volume["subPath"]).trim_matches('/').to_owned(),
            ..Mount::default()
        };
        if mount.name.is_empty() || !mount.destination.starts_with('/') {
            return Err(Error::invalid("config.dump has a volume without a name or a place"));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// Decides what becomes of a mount of the spec.
fn take_mount(
    mount: &Value,
    mounts: &mut Vec<Mount>,
    host: &mut HostConfig,
    described: &mut Described,
) -> Result<()> {
    let (destination, source) = (text(&mount["destination"]), text(&mount["source"]));
    let options = texts(&mount["options"]);
    let has = |word: &str| options.iter().any(|option| option == word);
    if !destination.starts_with('/') || mounts.iter().any(|known| known.destination == destination) {
        return Ok(());
    }
    match text(&mount["type"]).as_str() {
        "overlay" => {
            Err(cannot(&format!("its mount at {destination} is an overlay of the other host's {source}")))
        }
        "tmpfs" if !destination.starts_with("/dev") && !destination.starts_with("/sys") => {
            let is_known = |option: &&String| {
                TMPFS_WORDS.contains(&option.as_str()) || TMPFS_KEYS.iter().any(|key| option.starts_with(key))
            };
            let kept: Vec<&str> = options.iter().filter(is_known).map(String::as_str).collect();
            host.tmpfs.insert(destination, kept.join(","));
            Ok(())
        }
        "bind" if destination == "/dev/shm" => Ok(()),
        // What podman keeps of a container is below directories that have its id.
        "bind" if source.split('/').any(|part| part == described.id) => {
            if GENERATED.contains(&destination.as_str()) {
                return Ok(());
            }
            if destination != CONTAINERENV {
                let text = format!("its mount at {destination} was podman's own and does not come along");
                described.warnings.push(text);
            }
            described.surroundings.dropped.insert(destination);
            Ok(())
        }
        "bind" => {
            let propagations = ["private", "rprivate", "slave", "rslave", "shared", "rshared"];
            let propagation = propagations.into_iter().find(|word| has(word)).unwrap_or("rprivate");
            mounts.push(Mount {
                kind: "bind".to_owned(),
                source,
                destination,
                rw: !has("ro"),
                propagation: propagation.to_owned(),
                is_non_recursive: !has("rbind"),
                ..Mount::default()
            });
            Ok(())
        }
        _ => Ok(()),
    }
}

/// podman's networks are not here: it is in the default one.
fn networks(config: &Value, host: &mut HostConfig, warnings: &mut Vec<String>) {
    let names = config["newNetworks"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let others: Vec<&str> = names.filter(|name| *name != "podman").collect();
    if host.network_mode == "default" && !others.is_empty() {
        warnings.push(format!("its networks {} are not here: it is in the default one", others.join(", ")));
    }
}

/// Where it was in networks, by their names here: of addresses that it cannot have again connections are closed.
pub fn places(status: &Value) -> BTreeMap<String, Given> {
    let mut places = BTreeMap::new();
    for (network, status) in status.as_object().into_iter().flatten() {
        let name = if network == "podman" { "bridge" } else { network };
        let Some((_, interface)) = status["interfaces"].as_object().into_iter().flatten().next() else {
            continue;
        };
        let mut given = Given { mac: text(&interface["mac_address"]), ..Given::default() };
        for subnet in
            items(&interface["subnets"]).iter().filter_map(|subnet| text(&subnet["ipnet"]).parse().ok())
        {
            let subnet: Subnet = subnet;
            let family = if subnet.address.is_ipv4() { &mut given.ipv4 } else { &mut given.ipv6 };
            family.get_or_insert(subnet);
        }
        places.insert(name.to_owned(), given);
    }
    places
}

#[cfg(test)]
mod tests;
