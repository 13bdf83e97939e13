//! Docker's words become the OCI runtime specification's: here and nowhere else.
//!
//! [`build`] is a pure function of a container's record and of where its files are; what it returns can be
//! printed and compared. It stays whole although it is long: one reader must be able to see every default
//! at once.
//!
//! Source: docker-engine defaults (capabilities, masked paths, mounts, devices) as documented by the Engine
//! API and `runtime-spec`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::container::Record;
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{DeviceMapping, Resources as Limits};
use crate::runtime::spec::{
    BlockIo, Capabilities, ConsoleSize, Cpu, Device, DeviceRule, Linux, Memory, Mount, Namespace,
    NamespaceKind, Pids, Process, Resources, Rlimit, Root, Seccomp, Spec, Throttle, User, WeightDevice,
};
use crate::runtime::{capabilities, cgroup, host_devices, seccomp};

/// What a container without privileges may do. Source: Docker's default set.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Hidden: they tell about, or act on, the host.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Visible, but not to be changed.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The first search path a container gets. Source: Docker.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What [`build`] needs to know beside the record.
pub struct Surroundings {
    /// `containers/<id>`: holds hostname, hosts, resolv.conf; another's, when its network is joined.
    pub dir: PathBuf,
    /// Our own binary on the host: the init of `--init`.
    pub program: PathBuf,
    /// Where the shim will have mounted the root filesystem.
    pub rootfs: PathBuf,
    /// The named network namespace, unless the host's is used.
    pub netns: Option<PathBuf>,
    /// Variables of old-style links, which the container's own come after.
    pub link_env: Vec<String>,
    /// `/dewar`.
    pub cgroup_parent: String,
    /// `container:<id>` modes: the pid whose namespace is joined.
    pub joined: BTreeMap<&'static str, i32>,
}

/// The security options, parsed.
#[derive(Debug, Default)]
struct Security {
    no_new_privileges: bool,
    seccomp: SeccompChoice,
    /// `systempaths=unconfined`
    is_system_paths_open: bool,
    /// `writable-cgroups=true`
    is_cgroup_writable: bool,
}

#[derive(Debug, Default)]
enum SeccompChoice {
    #[default]
    Builtin,
    Unconfined,
    /// A profile in Docker's JSON.
    Profile(String),
}

/// Translates a container's record.
///
/// # Errors
/// InvalidParameter for options that do not parse; System when a device's host node cannot be read.
pub fn build(record: &Record, around: &Surroundings) -> Result<Spec> {
    let host = &record.host_config;
    let config = &record.config;
    let security = parse_security(host.security_opt.as_deref().unwrap_or(&[]))?;
    let bounding = capability_set(host)?;
    let seccomp = match (&security.seccomp, host.privileged) {
        (SeccompChoice::Unconfined, _) | (SeccompChoice::Builtin, true) => None,
        (SeccompChoice::Builtin, false) => Some(seccomp::default_profile(&bounding)),
        (SeccompChoice::Profile(json), _) => Some(parse_profile(json, &bounding)?),
    };
    let (devices, device_rules) = device_policy(record)?;
    let (masked_paths, readonly_paths) = hidden_paths(record)?;
    let args: Vec<String> = std::iter::once(&record.path).chain(&record.args).cloned().collect();
    Ok(Spec {
        oci_version: "1.2.0".to_owned(),
        process: Process {
            terminal: config.tty,
            console_size: console_size(host.console_size),
            user: User {
                username: Some(config.user.clone()),
                group_add: host.group_add.clone().unwrap_or_default(),
                ..User::default()
            },
            args,
            env: environment(record, &around.link_env),
            cwd: if config.working_dir.is_empty() { "/".to_owned() } else { config.working_dir.clone() },
            capabilities: Some(Capabilities {
                effective: bounding.clone(),
                permitted: bounding.clone(),
                bounding,
                ..Capabilities::default()
            }),
            rlimits: rlimits(&host.resources)?,
            no_new_privileges: security.no_new_privileges,
            oom_score_adj: (host.oom_score_adj != 0).then_some(host.oom_score_adj),
        },
        root: Root { path: around.rootfs.to_string_lossy().into_owned(), readonly: host.readonly_rootfs },
        hostname: if host.uts_mode == "host" { String::new() } else { config.hostname.clone() },
        domainname: config.domainname.clone(),
        mounts: mounts(record, around, &security)?,
        annotations: host.annotations.clone(),
        linux: Linux {
            namespaces: namespaces(record, around),
            devices,
            cgroups_path: cgroup_path(record, &around.cgroup_parent),
            resources: Resources { devices: device_rules, ..resources(&host.resources)? },
            sysctl: host.sysctls.clone(),
            seccomp,
            rootfs_propagation: String::new(),
            masked_paths: masked_paths.unwrap_or_default(),
            readonly_paths: readonly_paths.unwrap_or_default(),
        },
    })
}

/// Paths of a container; `None` is no word about them.
type Paths = Option<Vec<String>>;

/// The paths that are masked and those that are read-only: as given, or the defaults; `None` when the container
/// is privileged or its system paths are open.
pub fn hidden_paths(record: &Record) -> Result<(Paths, Paths)> {
    let host = &record.host_config;
    let security = parse_security(host.security_opt.as_deref().unwrap_or(&[]))?;
    let is_open = host.privileged || security.is_system_paths_open;
    let or =
        |given: &Paths, default: &dyn Fn() -> Vec<String>| given.clone().or_else(|| (!is_open).then(default));
    let readonly = || READONLY_PATHS.map(str::to_owned).to_vec();
    Ok((or(&host.masked_paths, &masked_paths), or(&host.readonly_paths, &readonly)))
}

/// The process of an exec: the container's, changed as asked; `links` are the variables of its links.
pub fn exec_process(
    record: &Record,
    exec: &crate::http::api::exec::ExecCreate,
    links: &[String],
) -> Result<Process> {
    let host = &record.host_config;
    let bounding = if exec.privileged { all_capabilities() } else { capability_set(host)? };
    let mut env = environment(record, links);
    merge_env(&mut env, &exec.env);
    let has_term = record.config.tty || exec.env.iter().any(|entry| entry.starts_with("TERM="));
    if exec.tty && !has_term {
        env.push("TERM=xterm".to_owned());
    }
    let cwd = [&exec.working_dir, &record.config.working_dir].into_iter().find(|dir| !dir.is_empty());
    Ok(Process {
        terminal: exec.tty,
        console_size: exec.console_size.and_then(console_size),
        user: User {
            username: Some(if exec.user.is_empty() { record.config.user.clone() } else { exec.user.clone() }),
            group_add: host.group_add.clone().unwrap_or_default(),
            ..User::default()
        },
        args: exec.cmd.clone(),
        env,
        cwd: cwd.map_or_else(|| "/".to_owned(), Clone::clone),
        capabilities: Some(Capabilities {
            effective: bounding.clone(),
            permitted: bounding.clone(),
            bounding,
            ..Capabilities::default()
        }),
        rlimits: rlimits(&host.resources)?,
        no_new_privileges: parse_security(host.security_opt.as_deref().unwrap_or(&[]))?.no_new_privileges,
        oom_score_adj: (host.oom_score_adj != 0).then_some(host.oom_score_adj),
    })
}

/// Height and width; zero is unknown.
fn console_size([height, width]: [u16; 2]) -> Option<ConsoleSize> {
    (height > 0 && width > 0).then_some(ConsoleSize { height, width })
}

/// Checks everything [`build`] would refuse, so that `create` refuses it first.
pub fn validate(record: &Record) -> Result<()> {
    elsewhere(record).map(drop)
}

/// What [`build`] makes of a container that is nowhere: what it would get from its surroundings is missing, or is `/`.
///
/// # Errors
/// As there.
pub fn elsewhere(record: &Record) -> Result<Spec> {
    let around = Surroundings {
        dir: PathBuf::from("/"),
        program: PathBuf::from("/"),
        rootfs: PathBuf::from("/"),
        netns: (record.host_config.network_mode != "host").then(|| PathBuf::from("/")),
        link_env: Vec::new(),
        cgroup_parent: String::new(),
        joined: BTreeMap::new(),
    };
    build(record, &around)
}

fn parse_security(options: &[String]) -> Result<Security> {
    let mut security = Security::default();
    for option in options {
        let (key, value) = option.split_once('=').or_else(|| option.split_once(':')).unwrap_or((option, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => security.no_new_privileges = true,
            ("no-new-privileges", "false") => security.no_new_privileges = false,
            ("seccomp", "unconfined") => security.seccomp = SeccompChoice::Unconfined,
            ("seccomp", "builtin") => security.seccomp = SeccompChoice::Builtin,
            ("seccomp", json) if !json.is_empty() => {
                security.seccomp = SeccompChoice::Profile(json.to_owned())
            }
            ("systempaths", "unconfined") => security.is_system_paths_open = true,
            ("writable-cgroups", "true") => security.is_cgroup_writable = true,
            ("writable-cgroups", "false") => security.is_cgroup_writable = false,
            // Labels of security modules: this build has none, so the request to switch one off holds.
            ("apparmor" | "label", "unconfined" | "disable") => {}
            ("apparmor" | "label", _) => {
                return Err(Error::invalid(format!(
                    "invalid --security-opt {option:?}: {key} is not supported"
                )));
            }
            _ => return Err(Error::invalid(format!("invalid --security-opt: {option:?}"))),
        }
    }
    Ok(security)
}

fn parse_profile(json: &str, bounding: &[String]) -> Result<Seccomp> {
    seccomp::from_docker_profile(json, bounding)
        .map_err(|cause| Error::invalid(format!("decoding seccomp profile failed: {cause}")))
}

/// Docker's rule: all when privileged, else the default less the dropped plus the added; `ALL` on either
/// side stands for every capability.
fn capability_set(host: &crate::http::api::container::HostConfig) -> Result<Vec<String>> {
    if host.privileged {
        return Ok(all_capabilities());
    }
    let parse = |names: &Option<Vec<String>>| -> Result<Vec<String>> {
        names.iter().flatten().map(|name| capability(name)).collect()
    };
    let (added, dropped) = (parse(&host.cap_add)?, parse(&host.cap_drop)?);
    let all = |names: &[String]| names.iter().any(|name| name == "ALL");
    let base = match (all(&added), all(&dropped)) {
        (true, _) => all_capabilities(),
        (false, true) => Vec::new(),
        (false, false) => DEFAULT_CAPABILITIES.map(str::to_owned).to_vec(),
    };
    let mut set: Vec<String> = base.into_iter().filter(|name| !dropped.contains(name)).collect();
    for name in added {
        if name != "ALL" && !set.contains(&name) {
            set.push(name);
        }
    }
    Ok(set)
}

/// The most that processes of a container may have, as far as a checkpoint can bring more.
#[derive(Clone, Copy, Debug)]
pub struct Confinement {
    /// A set as in [`capabilities`].
    pub capabilities: u64,
    /// They are under a filter of system calls.
    pub has_seccomp: bool,
    pub no_new_privileges: bool,
    /// The container has a user that is not root.
    pub is_never_root: bool,
}

/// What the configuration says its processes may have at most.
///
/// # Errors
/// InvalidParameter.
pub fn confinement(record: &Record) -> Result<Confinement> {
    let host = &record.host_config;
    let security = parse_security(host.security_opt.as_deref().unwrap_or(&[]))?;
    let names = capability_set(host)?;
    let capabilities =
        capabilities::set(&names).map_err(|name| Error::invalid(format!("unknown capability: {name:?}")))?;
    let user = record.config.user.split(':').next().unwrap_or_default();
    Ok(Confinement {
        capabilities,
        has_seccomp: !matches!(
            (&security.seccomp, host.privileged),
            (SeccompChoice::Unconfined, _) | (SeccompChoice::Builtin, true)
        ),
        no_new_privileges: security.no_new_privileges,
        is_never_root: !matches!(user, "" | "0" | "root"),
    })
}

/// Every capability this kernel knows.
fn all_capabilities() -> Vec<String> {
    capabilities::names(capabilities::known())
}

fn capability(name: &str) -> Result<String> {
    if name.eq_ignore_ascii_case("ALL") {
        return Ok("ALL".to_owned());
    }
    capabilities::canonical(name)
        .ok_or_else(|| Error::invalid(format!("invalid CapAdd/CapDrop: unknown capability: {name:?}")))
}

/// The environment in Docker's order: search path, host name, terminal, then image and caller by key.
fn environment(record: &Record, links: &[String]) -> Vec<String> {
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if record.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    env.extend_from_slice(links);
    merge_env(&mut env, &record.config.env);
    env
}

/// Later entries replace earlier ones by key; an entry without `=` removes the key.
pub fn merge_env(env: &mut Vec<String>, added: &[String]) {
    for entry in added {
        let key = entry.split_once('=').map_or(entry.as_str(), |(key, _)| key);
        let same = |other: &String| other.split_once('=').is_some_and(|(other, _)| other == key);
        match (env.iter().position(same), entry.contains('=')) {
            (Some(at), true) => env[at].clone_from(entry),
            (Some(at), false) => {
                env.remove(at);
            }
            (None, true) => env.push(entry.clone()),
            (None, false) => {}
        }
    }
}

fn namespaces(record: &Record, around: &Surroundings) -> Vec<Namespace> {
    let host = &record.host_config;
    let own = |kind| Namespace { kind, path: None };
    let mut namespaces = vec![own(NamespaceKind::Mount)];
    if let Some(netns) = &around.netns {
        let path = Some(netns.to_string_lossy().into_owned());
        namespaces.push(Namespace { kind: NamespaceKind::Network, path });
    }
    let mut mode = |mode: &str, kind, file: &'static str| match (mode, around.joined.get(file)) {
        ("host", _) => {}
        (_, Some(pid)) => namespaces.push(Namespace { kind, path: Some(format!("/proc/{pid}/ns/{file}")) }),
        _ => namespaces.push(own(kind)),
    };
    mode(&host.pid_mode, NamespaceKind::Pid, "pid");
    mode(&host.ipc_mode, NamespaceKind::Ipc, "ipc");
    mode(&host.uts_mode, NamespaceKind::Uts, "uts");
    mode(&host.cgroupns_mode, NamespaceKind::Cgroup, "cgroup");
    namespaces
}

/// `/dewar/<id>`, or below the parent the caller named.
pub fn cgroup_path(record: &Record, parent: &str) -> String {
    let given = record.host_config.resources.cgroup_parent.trim_matches('/');
    if given.is_empty() { format!("{parent}/{}", record.id) } else { format!("/{given}/{}", record.id) }
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: kind.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|&option| option.to_owned()).collect(),
    }
}

/// Whether the command runs below a minimal init: `--init`, unless the pid namespace is another's.
pub fn has_reaper(record: &Record) -> bool {
    record.host_config.init == Some(true) && record.host_config.pid_mode.is_empty()
}

/// The system's mounts, then the generated files, then the user's by depth of destination.
fn mounts(record: &Record, around: &Surroundings, security: &Security) -> Result<Vec<Mount>> {
    let host = &record.host_config;
    let shm_size = format!("size={}", host.shm_size);
    let is_writable = host.privileged || security.is_cgroup_writable;
    let sys_mode = if host.privileged { "rw" } else { "ro" };
    let mut mounts = vec![
        mount("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", sys_mode]),
        mount(
            "/sys/fs/cgroup",
            "cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", if is_writable { "rw" } else { "ro" }],
        ),
    ];
    mounts.push(mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]));
    let mut user: Vec<Mount> = Vec::new();
    match (host.ipc_mode.as_str(), around.joined.get("ipc")) {
        // The donor's memory, not only its namespace.
        (_, Some(pid)) => {
            mounts.push(mount(
                "/dev/shm",
                "bind",
                &format!("/proc/{pid}/root/dev/shm"),
                &["rbind", "rprivate"],
            ));
        }
        ("none", _) => {}
        ("host", _) => mounts.push(mount("/dev/shm", "bind", "/dev/shm", &["rbind", "rprivate"])),
        _ => mounts.push(mount(
            "/dev/shm",
            "tmpfs",
            "shm",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm_size],
        )),
    }
    for (destination, options) in &host.tmpfs {
        let given: Vec<&str> = options.split(',').filter(|option| !option.is_empty()).collect();
        let mut words = vec!["noexec", "nosuid", "nodev"];
        for option in given {
            // `exec` after `noexec`: the last word wins.
            words.push(option);
        }
        user.push(mount(destination, "tmpfs", "tmpfs", &words));
    }
    for point in &record.mounts {
        let options = point.options();
        let words: Vec<&str> = options.iter().map(String::as_str).collect();
        if point.kind == "tmpfs" {
            let mut tmpfs = vec!["noexec", "nosuid", "nodev"];
            tmpfs.extend(point.data.iter().map(String::as_str));
            user.push(mount(&point.destination, "tmpfs", "tmpfs", &tmpfs));
        } else {
            user.push(mount(&point.destination, "bind", &point.source, &words));
        }
    }
    for (destination, file) in
        [("/etc/resolv.conf", "resolv.conf"), ("/etc/hostname", "hostname"), ("/etc/hosts", "hosts")]
    {
        if !user.iter().any(|mount| mount.destination == destination) {
            let source = around.dir.join(file);
            let access = if host.readonly_rootfs { "ro" } else { "rw" };
            mounts.push(mount(
                destination,
                "bind",
                &source.to_string_lossy(),
                &["rbind", "rprivate", access],
            ));
        }
    }
    if has_reaper(record) {
        let options = ["bind", "ro", "nosuid", "nodev", "private"];
        mounts.push(mount("/sbin/docker-init", "bind", &around.program.to_string_lossy(), &options));
    }
    mounts.retain(|system| !user.iter().any(|mount| mount.destination == system.destination));
    user.sort_by_key(|mount| Path::new(&mount.destination).components().count());
    mounts.extend(user);
    Ok(mounts)
}

/// [`MASKED_PATHS`] and the thermal counters of each processor the host has.
fn masked_paths() -> Vec<String> {
    let mut paths: Vec<String> = MASKED_PATHS.map(str::to_owned).to_vec();
    for cpu in 0.. {
        let path = format!("/sys/devices/system/cpu/cpu{cpu}");
        if !Path::new(&path).exists() {
            break;
        }
        let throttle = format!("{path}/thermal_throttle");
        if Path::new(&throttle).exists() {
            paths.push(throttle);
        }
    }
    paths
}

fn rlimits(limits: &Limits) -> Result<Vec<Rlimit>> {
    limits
        .ulimits
        .iter()
        .map(|limit| {
            let value = |number: i64| if number < 0 { u64::MAX } else { number.unsigned_abs() };
            if limit.soft >= 0 && limit.hard >= 0 && limit.soft > limit.hard {
                return Err(Error::invalid(format!(
                    "ulimit soft limit must be less than or equal to hard limit: {} > {}",
                    limit.soft, limit.hard
                )));
            }
            Ok(Rlimit {
                kind: format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
                hard: value(limit.hard),
                soft: value(limit.soft),
            })
        })
        .collect()
}

/// Nodes to make and rules for them. Privileged containers get every node of the host's /dev.
fn device_policy(record: &Record) -> Result<(Vec<Device>, Vec<DeviceRule>)> {
    let host = &record.host_config;
    if host.privileged {
        let any = DeviceRule { allow: true, access: "rwm".to_owned(), ..DeviceRule::default() };
        return Ok((host_devices::all()?, vec![any]));
    }
    let mut nodes = Vec::new();
    let mut rules = cgroup::default_device_rules();
    for mapping in &host.resources.devices {
        for (node, rule) in mapped_devices(mapping)? {
            nodes.push(node);
            rules.push(rule);
        }
    }
    for rule in host.resources.device_cgroup_rules.iter().flatten() {
        rules.push(parse_device_rule(rule)?);
    }
    Ok((nodes, rules))
}

fn mapped_devices(mapping: &DeviceMapping) -> Result<Vec<(Device, DeviceRule)>> {
    let access = if mapping.cgroup_permissions.is_empty() { "rwm" } else { &mapping.cgroup_permissions };
    if !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(Error::invalid(format!("invalid device mode: {access:?}")));
    }
    let target =
        if mapping.path_in_container.is_empty() { &mapping.path_on_host } else { &mapping.path_in_container };
    let nodes = host_devices::from_host(Path::new(&mapping.path_on_host), target).map_err(|cause| {
        Error::invalid(format!(
            "error gathering device information while adding custom device {:?}: {cause}",
            mapping.path_on_host
        ))
    })?;
    Ok(nodes
        .into_iter()
        .map(|node| {
            let rule = DeviceRule {
                allow: true,
                kind: node.kind.clone(),
                major: Some(node.major),
                minor: Some(node.minor),
                access: access.to_owned(),
            };
            (node, rule)
        })
        .collect())
}

/// `c 1:3 rwm`, numbers may be `*`.
fn parse_device_rule(text: &str) -> Result<DeviceRule> {
    let invalid = || Error::invalid(format!("invalid device cgroup rule format: '{text}'"));
    let mut words = text.split_ascii_whitespace();
    let (Some(kind), Some(numbers), Some(access), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(invalid());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(invalid)?;
    let number =
        |text: &str| if text == "*" { Ok(None) } else { text.parse().map(Some).map_err(|_| invalid()) };
    if !matches!(kind, "a" | "b" | "c") || !access.bytes().all(|byte| b"rwm".contains(&byte)) {
        return Err(invalid());
    }
    Ok(DeviceRule {
        allow: true,
        kind: kind.to_owned(),
        major: number(major)?,
        minor: number(minor)?,
        access: access.to_owned(),
    })
}

/// Limits, zero being unset.
///
/// # Errors
/// InvalidParameter with Docker's texts.
pub fn resources(limits: &Limits) -> Result<Resources> {
    super::limits::check(limits)?;
    // Source: Docker refuses less than 6 MiB: the container could not start.
    const LEAST_MEMORY: i64 = 6 * 1024 * 1024;
    if limits.memory != 0 && limits.memory < LEAST_MEMORY {
        return Err(Error::invalid("Minimum memory limit allowed is 6MB"));
    }
    if limits.memory_swap > 0 && limits.memory == 0 {
        return Err(Error::invalid(
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ));
    }
    if limits.memory_swap > 0 && limits.memory_swap < limits.memory {
        return Err(Error::invalid("Minimum memoryswap limit should be larger than memory limit, see usage"));
    }
    if limits.memory_reservation != 0 && limits.memory != 0 && limits.memory_reservation > limits.memory {
        return Err(Error::invalid(
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ));
    }
    if let Some(swappiness) = limits.memory_swappiness
        && !(-1..=100).contains(&swappiness)
    {
        return Err(Error::invalid(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        )));
    }
    if limits.nano_cpus != 0 && (limits.cpu_period != 0 || limits.cpu_quota != 0) {
        return Err(Error::invalid(
            "Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set",
        ));
    }
    let ncpu = std::thread::available_parallelism().map_or(1, |count| count.get());
    let ncpu = i64::try_from(ncpu).unwrap_or(i64::MAX);
    if limits.nano_cpus < 0 || limits.nano_cpus > ncpu.saturating_mul(1_000_000_000) {
        return Err(Error::invalid(format!(
            "range of CPUs is from 0.01 to {ncpu}.00, as there are only {ncpu} CPUs available"
        )));
    }
    if limits.cpu_period != 0 && !(1_000..=1_000_000).contains(&limits.cpu_period) {
        return Err(Error::invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ));
    }
    if limits.cpu_quota > 0 && limits.cpu_quota < 1_000 {
        return Err(Error::invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)"));
    }
    if limits.blkio_weight != 0 && !(10..=1000).contains(&limits.blkio_weight) {
        return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
    }
    let set = |value: i64| (value != 0).then_some(value);
    let positive = |value: i64| (value > 0).then_some(value.unsigned_abs());
    let text = |value: &String| (!value.is_empty()).then(|| value.clone());
    // Billionths of a CPU to microseconds per 100 ms, the kernel's default period.
    let (quota, period) = if limits.nano_cpus > 0 {
        (Some(limits.nano_cpus / 10_000), Some(100_000))
    } else {
        (set(limits.cpu_quota), positive(limits.cpu_period))
    };
    Ok(Resources {
        devices: Vec::new(),
        memory: Memory {
            limit: set(limits.memory),
            reservation: set(limits.memory_reservation),
            swap: set(limits.memory_swap),
            swappiness: limits.memory_swappiness.and_then(|value| u64::try_from(value).ok()),
            disable_oom_killer: limits.oom_kill_disable.filter(|disable| *disable),
        },
        cpu: Cpu {
            shares: positive(limits.cpu_shares),
            quota,
            period,
            cpus: text(&limits.cpuset_cpus),
            mems: text(&limits.cpuset_mems),
        },
        pids: Pids { limit: limits.pids_limit.filter(|limit| *limit > 0) },
        block_io: BlockIo {
            weight: (limits.blkio_weight != 0).then_some(limits.blkio_weight),
            weight_device: weights(&limits.blkio_weight_device)?,
            throttle_read_bps_device: throttles(&limits.blkio_device_read_bps)?,
            throttle_write_bps_device: throttles(&limits.blkio_device_write_bps)?,
            throttle_read_iops_device: throttles(&limits.blkio_device_read_iops)?,
            throttle_write_iops_device: throttles(&limits.blkio_device_write_iops)?,
        },
    })
}

fn weights(given: &[crate::http::api::container::WeightDevice]) -> Result<Vec<WeightDevice>> {
    given
        .iter()
        .map(|one| {
            if one.weight != 0 && !(10..=1000).contains(&one.weight) {
                return Err(Error::invalid("Range of blkio weight is from 10 to 1000"));
            }
            let (major, minor) = block_device(&one.path)?;
            Ok(WeightDevice { major, minor, weight: one.weight })
        })
        .collect()
}

fn throttles(given: &[crate::http::api::container::ThrottleDevice]) -> Result<Vec<Throttle>> {
    given
        .iter()
        .map(|throttle| {
            let (major, minor) = block_device(&throttle.path)?;
            Ok(Throttle { major, minor, rate: throttle.rate })
        })
        .collect()
}

/// The number of the host's block device at `path`.
fn block_device(path: &str) -> Result<(u32, u32)> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let meta = std::fs::metadata(path)
        .map_err(|cause| Error::invalid(format!("limit block device {path:?}: {cause}")))?;
    if !meta.file_type().is_block_device() {
        return Err(Error::invalid(format!("limit block device {path:?}: not a block device")));
    }
    Ok((rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_entries_replace_by_key_and_remove_without_a_value() {
        let mut env = vec!["A=1".to_owned(), "B=2".to_owned()];
        merge_env(&mut env, &["A=3".to_owned(), "B".to_owned(), "C".to_owned(), "D=".to_owned()]);
        assert_eq!(env, ["A=3", "D="]);
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let set = |add: &[&str], drop: &[&str]| {
            let list = |names: &[&str]| Some(names.iter().map(|&name| name.to_owned()).collect());
            let host = crate::http::api::container::HostConfig {
                cap_add: list(add),
                cap_drop: list(drop),
                ..Default::default()
            };
            capability_set(&host)
        };
        assert_eq!(set(&[], &[]).unwrap().len(), 14);
        assert_eq!(set(&["net_admin"], &["ALL"]).unwrap(), ["CAP_NET_ADMIN"]);
        assert!(!set(&["ALL"], &["CAP_SYS_ADMIN"]).unwrap().contains(&"CAP_SYS_ADMIN".to_owned()));
        assert!(set(&["nonsense"], &[]).is_err());
    }

    #[test]
    fn limits_out_of_range_are_refused() {
        let refuse = |limits: Limits| resources(&limits).unwrap_err().message;
        assert!(refuse(Limits { memory: 1024, ..Limits::default() }).contains("6MB"));
        assert!(refuse(Limits { memory_swap: 1 << 30, ..Limits::default() }).contains("Memoryswap"));
        assert!(refuse(Limits { nano_cpus: i64::MAX, ..Limits::default() }).contains("range of CPUs"));
        let half = resources(&Limits { nano_cpus: 500_000_000, ..Limits::default() }).unwrap();
        assert_eq!((half.cpu.quota, half.cpu.period), (Some(50_000), Some(100_000)));
        let unset = Limits { memory_swappiness: Some(-1), pids_limit: Some(0), ..Limits::default() };
        assert_eq!(resources(&unset).unwrap(), Resources::default());
    }
}
