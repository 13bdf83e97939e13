//! The flags `run` and `create` share, and the create request they make.
//!
//! A table: one static per flag, in the order help shows them, then one function that reads them all.
//! What a value may look like is `values.rs`; what a request contains is `http::api::container`.
//!
//! Stays whole: a table, and the one function that reads it.

use std::collections::BTreeMap;

use crate::cli::command::{Flag, Matches};
use crate::cli::error::Error;
use crate::http::api::checkpoint_policy::CheckpointPolicy;
use crate::http::api::container::{
    ContainerConfig, ContainerCreate, CreateQuery, Empty, EndpointSettings, Healthcheck, HostConfig,
    LogConfig, NetworkingConfig, Resources, RestartPolicy,
};

use super::mount_values::{self, Volume};
use super::network_values::{self, Attachment};
use super::values;

const WINDOWS: &str = "it exists on Windows only";

pub static ADD_HOST: Flag = Flag::many("add-host", "NAME:IP", "Add a line to the container's /etc/hosts");
pub static ANNOTATION: Flag =
    Flag::many("annotation", "KEY=VALUE", "Add an annotation that is handed to the OCI runtime");
pub static ATTACH: Flag =
    Flag::many("attach", "STREAM", "Attach to stdin, stdout or stderr (default: both outputs)").short('a');
pub static BLKIO_WEIGHT: Flag =
    Flag::value("blkio-weight", "WEIGHT", "Share of block I/O, 10 to 1000, or 0 for no limit");
pub static BLKIO_WEIGHT_DEVICE: Flag =
    Flag::many("blkio-weight-device", "DEVICE:WEIGHT", "Share of one device's block I/O, 10 to 1000");
pub static CAP_ADD: Flag = Flag::many("cap-add", "CAPABILITY", "Add a Linux capability, or ALL");
pub static CAP_DROP: Flag = Flag::many("cap-drop", "CAPABILITY", "Drop a Linux capability, or ALL");
pub static CGROUP_PARENT: Flag =
    Flag::value("cgroup-parent", "CGROUP", "Put the container below this cgroup");
pub static CGROUPNS: Flag = Flag::value("cgroupns", "MODE", "Cgroup namespace: private or host");
pub static CHECKPOINT_EVERY: Flag = Flag::value(
    "checkpoint-every",
    "DURATION",
    "Write a checkpoint this often while it runs on (10m; 0 for never)",
);
pub static CHECKPOINT_KEEP: Flag =
    Flag::value("checkpoint-keep", "NUMBER", "Newest of those checkpoints to keep (3 unless given)");
pub static CIDFILE: Flag = Flag::value("cidfile", "FILE", "Write the container's ID to a new file");
pub static CPU_COUNT: Flag = Flag::value("cpu-count", "COUNT", "Number of CPUs").refused(WINDOWS);
pub static CPU_PERCENT: Flag = Flag::value("cpu-percent", "PERCENT", "Share of CPUs").refused(WINDOWS);
pub static CPU_PERIOD: Flag =
    Flag::value("cpu-period", "MICROSECONDS", "Length of the period --cpu-quota is measured over");
pub static CPU_QUOTA: Flag =
    Flag::value("cpu-quota", "MICROSECONDS", "CPU time the container may use in each period");
pub static CPU_RT_PERIOD: Flag =
    Flag::value("cpu-rt-period", "MICROSECONDS", "Length of the real-time scheduling period");
pub static CPU_RT_RUNTIME: Flag =
    Flag::value("cpu-rt-runtime", "MICROSECONDS", "Real-time CPU time in each real-time period");
pub static CPU_SHARES: Flag =
    Flag::value("cpu-shares", "SHARES", "Share of CPU time when CPUs are busy (1024 is usual)").short('c');
pub static CPUS: Flag = Flag::value("cpus", "NUMBER", "Number of CPUs the container may use, such as 1.5");
pub static CPUSET_CPUS: Flag = Flag::value("cpuset-cpus", "LIST", "CPUs to run on, such as 0-3 or 0,1");
pub static CPUSET_MEMS: Flag =
    Flag::value("cpuset-mems", "LIST", "Memory nodes to allocate from, such as 0-3 or 0,1");
pub static DETACH: Flag =
    Flag::switch("detach", "Leave the container in the background and print its ID").short('d');
pub static DETACH_KEYS: Flag =
    Flag::value("detach-keys", "KEYS", "Keys that detach from the container (ctrl-p,ctrl-q)");
pub static DEVICE: Flag =
    Flag::many("device", "HOST[:INSIDE][:rwm]", "Give the container a device of the host");
pub static DEVICE_CGROUP_RULE: Flag =
    Flag::many("device-cgroup-rule", "RULE", "Add a rule such as 'c 1:3 rwm' to the allowed devices");
pub static DEVICE_READ_BPS: Flag =
    Flag::many("device-read-bps", "DEVICE:RATE", "Limit bytes per second read from a device");
pub static DEVICE_READ_IOPS: Flag =
    Flag::many("device-read-iops", "DEVICE:RATE", "Limit reads per second from a device");
pub static DEVICE_WRITE_BPS: Flag =
    Flag::many("device-write-bps", "DEVICE:RATE", "Limit bytes per second written to a device");
pub static DEVICE_WRITE_IOPS: Flag =
    Flag::many("device-write-iops", "DEVICE:RATE", "Limit writes per second to a device");
pub static CONTENT_TRUST: Flag = Flag::switch("disable-content-trust", "Skip the check of image signatures")
    .ignored("image signatures are not checked");
pub static DNS: Flag = Flag::many("dns", "ADDRESS", "Name server for the container");
pub static DNS_OPTION: Flag =
    Flag::many("dns-option", "OPTION", "Option line of the container's resolv.conf");
pub static DNS_SEARCH: Flag = Flag::many("dns-search", "DOMAIN", "Search domain for the container");
pub static DOMAINNAME: Flag = Flag::value("domainname", "NAME", "NIS domain name inside the container");
pub static ENTRYPOINT: Flag =
    Flag::value("entrypoint", "COMMAND", "Run this instead of the image's entrypoint; '' for none");
pub static ENV: Flag =
    Flag::many("env", "NAME[=VALUE]", "Set an environment variable, or pass one on").short('e');
pub static ENV_FILE: Flag = Flag::many("env-file", "FILE", "Set the environment variables a file lists");
pub static EXPOSE: Flag = Flag::many("expose", "PORT[-PORT]", "Say that the container listens on a port");
pub static GPUS: Flag =
    Flag::many("gpus", "REQUEST", "Add GPUs to the container").refused("name the devices with --device");
pub static GROUP_ADD: Flag = Flag::many("group-add", "GROUP", "Add a supplementary group");
pub static HEALTH_CMD: Flag = Flag::value("health-cmd", "COMMAND", "Shell command that checks health");
pub static HEALTH_INTERVAL: Flag =
    Flag::value("health-interval", "DURATION", "Time between health checks, such as 30s");
pub static HEALTH_RETRIES: Flag =
    Flag::value("health-retries", "COUNT", "Failed checks in a row that make the container unhealthy");
pub static HEALTH_START_INTERVAL: Flag =
    Flag::value("health-start-interval", "DURATION", "Time between checks during the start period");
pub static HEALTH_START_PERIOD: Flag =
    Flag::value("health-start-period", "DURATION", "Time during which failed checks do not count");
pub static HEALTH_TIMEOUT: Flag = Flag::value("health-timeout", "DURATION", "Time one check may take");
pub static HOSTNAME: Flag = Flag::value("hostname", "NAME", "Host name inside the container").short('h');
pub static INIT: Flag =
    Flag::switch("init", "Run an init as process 1 that forwards signals and reaps orphans");
pub static INTERACTIVE: Flag =
    Flag::switch("interactive", "Keep the container's stdin open, attached or not").short('i');
pub static IO_MAXBANDWIDTH: Flag = Flag::value("io-maxbandwidth", "RATE", "I/O bandwidth").refused(WINDOWS);
pub static IO_MAXIOPS: Flag = Flag::value("io-maxiops", "RATE", "I/O operations").refused(WINDOWS);
pub static IP: Flag = Flag::value("ip", "ADDRESS", "IPv4 address on the container's network");
pub static IP6: Flag = Flag::value("ip6", "ADDRESS", "IPv6 address on the container's network");
pub static IPC: Flag = Flag::value("ipc", "MODE", "IPC namespace: private, host, none or container:NAME");
pub static ISOLATION: Flag = Flag::value("isolation", "TECHNOLOGY", "Isolation technology: default");
pub static KERNEL_MEMORY: Flag = Flag::value("kernel-memory", "SIZE", "Limit of kernel memory")
    .ignored("the kernel no longer has this limit");
pub static LABEL: Flag = Flag::many("label", "KEY[=VALUE]", "Set a label").short('l');
pub static LABEL_FILE: Flag = Flag::many("label-file", "FILE", "Set the labels a file lists, one per line");
pub static LINK: Flag = Flag::many("link", "CONTAINER[:ALIAS]", "Reach another container by name");
pub static LINK_LOCAL_IP: Flag =
    Flag::many("link-local-ip", "ADDRESS", "Link-local address of the container");
pub static LOG_DRIVER: Flag =
    Flag::value("log-driver", "DRIVER", "How output is logged: json-file, local, syslog, journald or none");
pub static LOG_OPT: Flag = Flag::many("log-opt", "KEY=VALUE", "Option of the log driver");
pub static MAC_ADDRESS: Flag = Flag::value("mac-address", "ADDRESS", "Ethernet address of the container");
pub static MEMORY: Flag = Flag::value("memory", "SIZE", "Limit of memory, such as 512m or 1g").short('m');
pub static MEMORY_RESERVATION: Flag =
    Flag::value("memory-reservation", "SIZE", "Memory the container keeps when memory is short");
pub static MEMORY_SWAP: Flag =
    Flag::value("memory-swap", "SIZE", "Limit of memory and swap together; -1 for no limit");
pub static MEMORY_SWAPPINESS: Flag =
    Flag::value("memory-swappiness", "PERCENT", "How readily the kernel swaps (0 to 100)").default("-1");
pub static MOUNT: Flag =
    Flag::many("mount", "FIELDS", "Mount something: type=bind|volume|tmpfs,source=,target=");
pub static NAME: Flag = Flag::value("name", "NAME", "Name of the container");
pub static NETWORK: Flag =
    Flag::many("network", "NETWORK", "Network to join, or name=NETWORK,alias=,ip=,mac-address= and the like");
pub static NET: Flag = Flag::many("net", "NETWORK", "The old spelling of --network");
pub static NETWORK_ALIAS: Flag =
    Flag::many("network-alias", "NAME", "Further name of the container on its network");
pub static NO_HEALTHCHECK: Flag =
    Flag::switch("no-healthcheck", "Do not check health, whatever the image says");
pub static OOM_KILL_DISABLE: Flag =
    Flag::switch("oom-kill-disable", "Let processes wait for memory instead of killing one");
pub static OOM_SCORE_ADJ: Flag =
    Flag::value("oom-score-adj", "NUMBER", "Preference when the kernel picks what to kill (-1000 to 1000)");
pub static PID: Flag = Flag::value("pid", "MODE", "PID namespace: private, host or container:NAME");
pub static PIDS_LIMIT: Flag =
    Flag::value("pids-limit", "COUNT", "Limit of processes and threads; -1 for none");
pub static PLATFORM: Flag = Flag::value("platform", "OS/ARCH", "Platform of the image");
pub static PRIVILEGED: Flag =
    Flag::switch("privileged", "Give the container nearly all the rights of the host");
pub static PUBLISH: Flag =
    Flag::many("publish", "[IP:][HOST:]PORT", "Publish a port of the container on the host").short('p');
pub static PUBLISH_ALL: Flag =
    Flag::switch("publish-all", "Publish every exposed port on a port the daemon picks").short('P');
pub static PULL: Flag =
    Flag::value("pull", "WHEN", "When to pull the image: always, missing or never").default("missing");
pub static QUIET: Flag = Flag::switch("quiet", "Do not show the progress of a pull").short('q');
pub static READ_ONLY: Flag = Flag::switch("read-only", "Mount the container's root filesystem read-only");
pub static RESTART: Flag = Flag::value(
    "restart",
    "POLICY",
    "When to start it again: no, always, unless-stopped, on-failure[:N], checkpoint[:N]",
)
.default("no");
pub static RM: Flag = Flag::switch("rm", "Remove the container and its anonymous volumes when it exits");
pub static RUNTIME: Flag = Flag::value("runtime", "NAME", "Runtime to use");
pub static SECURITY_OPT: Flag = Flag::many(
    "security-opt",
    "OPTION",
    "seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined",
);
pub static SHM_SIZE: Flag = Flag::value("shm-size", "SIZE", "Size of /dev/shm (64m unless given)");
pub static SIG_PROXY: Flag =
    Flag::switch("sig-proxy", "Pass signals on to the container's process").default("true");
pub static STOP_MODE: Flag = Flag::value(
    "stop-mode",
    "MODE",
    "How it is stopped: signal, or checkpoint to freeze it for the next start",
);
pub static STOP_SIGNAL: Flag =
    Flag::value("stop-signal", "SIGNAL", "Signal that stop sends (the image's or TERM)");
pub static STOP_TIMEOUT: Flag =
    Flag::value("stop-timeout", "SECONDS", "Time between that signal and the kill (10 unless given)");
pub static STORAGE_OPT: Flag = Flag::many("storage-opt", "KEY=VALUE", "Option of the storage driver");
pub static SYSCTL: Flag = Flag::many("sysctl", "NAME=VALUE", "Set a namespaced kernel parameter");
pub static TMPFS: Flag = Flag::many("tmpfs", "PATH[:OPTIONS]", "Mount an empty tmpfs");
pub static TTY: Flag = Flag::switch("tty", "Give the process a terminal").short('t');
pub static ULIMIT: Flag = Flag::many("ulimit", "NAME=SOFT[:HARD]", "Set a resource limit");
pub static USE_API_SOCKET: Flag = Flag::switch("use-api-socket", "Mount the daemon's socket")
    .refused("mount the socket with --volume where this is meant");
pub static USER: Flag = Flag::value("user", "USER[:GROUP]", "User to run as, by name or number").short('u');
pub static USERNS: Flag = Flag::value("userns", "MODE", "User namespace to use");
pub static UTS: Flag = Flag::value("uts", "MODE", "UTS namespace: private or host");
pub static VOLUME: Flag =
    Flag::many("volume", "[SOURCE:]PATH[:MODE]", "Mount a directory of the host or a volume").short('v');
pub static VOLUME_DRIVER: Flag = Flag::value("volume-driver", "DRIVER", "Driver for new volumes");
pub static VOLUMES_FROM: Flag =
    Flag::many("volumes-from", "CONTAINER", "Mount the volumes of another container");
pub static WORKDIR: Flag = Flag::value("workdir", "PATH", "Working directory of the process").short('w');

macro_rules! flags {
    ($name:ident $(, $extra:ident)*) => {
        pub static $name: &[&Flag] = &[
            &ADD_HOST, &ANNOTATION, &ATTACH, &BLKIO_WEIGHT, &BLKIO_WEIGHT_DEVICE, &CAP_ADD, &CAP_DROP, &CGROUP_PARENT, &CGROUPNS,
            &CHECKPOINT_EVERY, &CHECKPOINT_KEEP, &CIDFILE, &CPU_COUNT, &CPU_PERCENT, &CPU_PERIOD, &CPU_QUOTA, &CPU_RT_PERIOD, &CPU_RT_RUNTIME,
            &CPU_SHARES, &CPUS, &CPUSET_CPUS, &CPUSET_MEMS, &DEVICE, &DEVICE_CGROUP_RULE, &DEVICE_READ_BPS,
            &DEVICE_READ_IOPS, &DEVICE_WRITE_BPS, &DEVICE_WRITE_IOPS, &CONTENT_TRUST, &DNS, &DNS_OPTION,
            &DNS_SEARCH, &DOMAINNAME, &ENTRYPOINT, &ENV, &ENV_FILE, &EXPOSE, &GPUS, &GROUP_ADD, &HEALTH_CMD,
            &HEALTH_INTERVAL, &HEALTH_RETRIES, &HEALTH_START_INTERVAL, &HEALTH_START_PERIOD, &HEALTH_TIMEOUT,
            &HOSTNAME, &INIT, &INTERACTIVE, &IO_MAXBANDWIDTH, &IO_MAXIOPS, &IP, &IP6, &IPC, &ISOLATION,
            &KERNEL_MEMORY, &LABEL, &LABEL_FILE, &LINK, &LINK_LOCAL_IP, &LOG_DRIVER, &LOG_OPT, &MAC_ADDRESS,
            &MEMORY, &MEMORY_RESERVATION, &MEMORY_SWAP, &MEMORY_SWAPPINESS, &MOUNT, &NAME, &NETWORK, &NET,
            &NETWORK_ALIAS, &NO_HEALTHCHECK, &OOM_KILL_DISABLE, &OOM_SCORE_ADJ, &PID, &PIDS_LIMIT, &PLATFORM,
            &PRIVILEGED, &PUBLISH, &PUBLISH_ALL, &PULL, &QUIET, &READ_ONLY, &RESTART, &RM, &RUNTIME,
            &SECURITY_OPT, &SHM_SIZE, &STOP_MODE, &STOP_SIGNAL, &STOP_TIMEOUT, &STORAGE_OPT, &SYSCTL, &TMPFS, &TTY,
            &ULIMIT, &USE_API_SOCKET, &USER, &USERNS, &UTS, &VOLUME, &VOLUME_DRIVER, &VOLUMES_FROM, &WORKDIR,
            $(&$extra),*
        ];
    };
}
flags!(CREATE_FLAGS);
flags!(RUN_FLAGS, DETACH, DETACH_KEYS, SIG_PROXY);

/// When the image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    Always,
    Missing,
    Never,
}

/// A create request and what the client does around it.
#[derive(Debug)]
pub struct Creation {
    pub query: CreateQuery,
    pub body: ContainerCreate,
    pub pull: Pull,
    pub quiet: bool,
    /// Where to leave the ID; empty for nowhere.
    pub cidfile: String,
}

/// Which streams a container is attached to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
}

fn optional(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

/// Reads the shared flags and the positional arguments: image, command.
///
/// `detach` is `run`'s flag; `create` has none and attaches as the foreground would.
pub fn creation(matches: &Matches, detach: bool) -> Result<Creation, Error> {
    let auto_remove = matches.is(&RM);
    let host_config = host_config(matches, auto_remove)?;
    if auto_remove && !matches!(host_config.restart_policy.name.as_str(), "" | "no") {
        return Err(Error::Local("conflicting options: cannot specify both --restart and --rm".to_owned()));
    }
    let pull = match matches.get(&PULL) {
        Some("always") => Pull::Always,
        Some("missing" | "") | None => Pull::Missing,
        Some("never") => Pull::Never,
        Some(other) => return Err(Error::value(&PULL, other, "expected always, missing or never")),
    };
    let mut config = container_config(matches, detach)?;
    let mut port_bindings = BTreeMap::new();
    for (port, binding) in matches.read_all(&PUBLISH, values::publish)?.into_iter().flatten() {
        config.exposed_ports.insert(port.clone(), Empty {});
        port_bindings.entry(port).or_insert_with(|| Some(Vec::new())).get_or_insert_default().push(binding);
    }
    for port in matches.read_all(&EXPOSE, values::expose)?.into_iter().flatten() {
        config.exposed_ports.insert(port, Empty {});
    }
    let mut host_config = HostConfig { port_bindings, ..host_config };
    volumes(matches, &mut config, &mut host_config)?;
    let networking_config = networking(matches, &mut config, &mut host_config)?;
    Ok(Creation {
        query: CreateQuery { name: matches.text(&NAME), platform: matches.text(&PLATFORM) },
        body: ContainerCreate { config, host_config, networking_config },
        pull,
        quiet: matches.is(&QUIET),
        cidfile: matches.text(&CIDFILE),
    })
}

/// `-a`, `-d` and `-i` together decide what is attached.
fn streams(matches: &Matches, detach: bool) -> Result<Streams, Error> {
    let mut streams = Streams::default();
    let interactive = matches.is(&INTERACTIVE);
    let named = matches.all(&ATTACH);
    for name in &named {
        match name.to_ascii_lowercase().as_str() {
            "stdin" => streams.stdin = true,
            "stdout" => streams.stdout = true,
            "stderr" => streams.stderr = true,
            _ => return Err(Error::value(&ATTACH, name, "expected stdin, stdout or stderr")),
        }
    }
    if detach {
        if !named.is_empty() {
            return Err(Error::Refused(
                "conflicting options: cannot specify both --attach and --detach".to_owned(),
            ));
        }
        return Ok(streams);
    }
    if named.is_empty() {
        streams = Streams { stdin: interactive, stdout: true, stderr: true };
    }
    Ok(streams)
}

fn container_config(matches: &Matches, detach: bool) -> Result<ContainerConfig, Error> {
    let (image, command) = matches.args.split_first().expect("the table asks for an image");
    if image.is_empty() {
        return Err(Error::Local("invalid reference format: the image's name is empty".to_owned()));
    }
    let streams = streams(matches, detach)?;
    let open_stdin = matches.is(&INTERACTIVE);
    let mut env: Vec<String> = Vec::new();
    for lines in matches.read_all(&ENV_FILE, values::lines_of)? {
        // A bare name the client has no value for is passed over here, unlike with --env.
        env.extend(
            lines.iter().filter_map(|line| values::env(line).ok()).filter(|entry| entry.contains('=')),
        );
    }
    env.extend(matches.read_all(&ENV, values::env)?);
    let mut labels = BTreeMap::new();
    for lines in matches.read_all(&LABEL_FILE, values::lines_of)? {
        labels.extend(lines.iter().filter_map(|line| values::pair(line).ok()));
    }
    labels.extend(matches.read_all(&LABEL, values::pair)?);
    let stop_signal = matches.text(&STOP_SIGNAL);
    Ok(ContainerConfig {
        hostname: matches.text(&HOSTNAME),
        domainname: matches.text(&DOMAINNAME),
        user: matches.text(&USER),
        attach_stdin: streams.stdin,
        attach_stdout: streams.stdout,
        attach_stderr: streams.stderr,
        tty: matches.is(&TTY),
        open_stdin,
        stdin_once: open_stdin && streams.stdin,
        env,
        cmd: optional(command.to_vec()),
        healthcheck: healthcheck(matches)?,
        image: image.clone(),
        working_dir: matches.text(&WORKDIR),
        entrypoint: matches.given(&ENTRYPOINT).then(|| vec![matches.text(&ENTRYPOINT)]),
        mac_address: matches.get(&MAC_ADDRESS).map(str::to_owned),
        labels,
        stop_signal: (!stop_signal.is_empty()).then_some(stop_signal),
        stop_timeout: matches.parse(&STOP_TIMEOUT, "a number of seconds")?,
        ..ContainerConfig::default()
    })
}

fn healthcheck(matches: &Matches) -> Result<Option<Healthcheck>, Error> {
    let off = matches.is(&NO_HEALTHCHECK);
    let duration = |flag| matches.read(flag, values::duration_ns).map(Option::unwrap_or_default);
    let command = matches.text(&HEALTH_CMD);
    let check = Healthcheck {
        test: if command.is_empty() { Vec::new() } else { vec!["CMD-SHELL".to_owned(), command] },
        interval: duration(&HEALTH_INTERVAL)?,
        timeout: duration(&HEALTH_TIMEOUT)?,
        start_period: duration(&HEALTH_START_PERIOD)?,
        start_interval: duration(&HEALTH_START_INTERVAL)?,
        retries: matches.parse(&HEALTH_RETRIES, "a number")?.unwrap_or_default(),
    };
    match (off, check == Healthcheck::default()) {
        (true, true) => Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() })),
        (true, false) => Err(Error::Local("--no-healthcheck conflicts with --health-* options".to_owned())),
        (false, true) => Ok(None),
        (false, false) => Ok(Some(check)),
    }
}

fn host_config(matches: &Matches, auto_remove: bool) -> Result<HostConfig, Error> {
    let mut security_opt = matches.read_all(&SECURITY_OPT, values::security_opt)?;
    // Compat: Docker's client turns this option into empty lists of paths; the daemon never sees it.
    let system_paths = security_opt.iter().any(|option| option == "systempaths=unconfined");
    security_opt.retain(|option| option != "systempaths=unconfined");
    let paths = || system_paths.then(Vec::new);
    let storage_opt = matches.read_all(&STORAGE_OPT, values::pair)?;
    Ok(HostConfig {
        container_id_file: matches.text(&CIDFILE),
        log_config: LogConfig {
            kind: matches.text(&LOG_DRIVER),
            config: values::map(matches.read_all(&LOG_OPT, values::pair)?),
        },
        restart_policy: matches
            .read(&RESTART, values::restart)?
            .unwrap_or_else(|| RestartPolicy { name: "no".to_owned(), maximum_retry_count: 0 }),
        checkpoint_policy: checkpoint_policy(matches)?,
        auto_remove,
        volume_driver: matches.text(&VOLUME_DRIVER),
        volumes_from: optional(matches.list(&VOLUMES_FROM)),
        annotations: values::map(matches.read_all(&ANNOTATION, values::pair)?),
        cap_add: optional(matches.list(&CAP_ADD)),
        cap_drop: optional(matches.list(&CAP_DROP)),
        cgroupns_mode: mode(matches, &CGROUPNS, &["private", "host"])?,
        dns: matches.list(&DNS),
        dns_options: matches.list(&DNS_OPTION),
        dns_search: matches.list(&DNS_SEARCH),
        extra_hosts: optional(matches.read_all(&ADD_HOST, values::extra_host)?),
        group_add: optional(matches.list(&GROUP_ADD)),
        ipc_mode: mode(matches, &IPC, &["private", "host", "none", "shareable", "container:"])?,
        links: optional(matches.read_all(&LINK, network_values::link)?),
        oom_score_adj: matches.parse(&OOM_SCORE_ADJ, "a number from -1000 to 1000")?.unwrap_or_default(),
        pid_mode: match mode(matches, &PID, &["private", "host", "container:"])?.as_str() {
            // Docker's API spells the private PID namespace as an empty string.
            "private" => String::new(),
            other => other.to_owned(),
        },
        privileged: matches.is(&PRIVILEGED),
        publish_all_ports: matches.is(&PUBLISH_ALL),
        readonly_rootfs: matches.is(&READ_ONLY),
        security_opt: optional(security_opt),
        storage_opt: values::map(storage_opt),
        tmpfs: values::map(matches.read_all(&TMPFS, values::tmpfs)?),
        uts_mode: match mode(matches, &UTS, &["private", "host"])?.as_str() {
            "private" => String::new(),
            other => other.to_owned(),
        },
        userns_mode: matches.text(&USERNS),
        shm_size: matches.read(&SHM_SIZE, values::bytes)?.unwrap_or_default(),
        sysctls: values::map(matches.read_all(&SYSCTL, values::pair)?),
        runtime: matches.text(&RUNTIME),
        isolation: matches.text(&ISOLATION),
        resources: resources(matches)?,
        masked_paths: paths(),
        readonly_paths: paths(),
        init: matches.given(&INIT).then(|| matches.is(&INIT)),
        ..HostConfig::default()
    })
}

/// When it is frozen without being told to; what is not given is left out.
pub fn checkpoint_policy(matches: &Matches) -> Result<CheckpointPolicy, Error> {
    Ok(CheckpointPolicy {
        stop_mode: mode(matches, &STOP_MODE, &["signal", "checkpoint"])?,
        every: matches.read(&CHECKPOINT_EVERY, values::duration_ns)?,
        keep: matches.integer(&CHECKPOINT_KEEP)?,
    })
}

/// A mode; entries of `known` that end in `:` are prefixes.
fn mode(matches: &Matches, flag: &'static Flag, known: &[&str]) -> Result<String, Error> {
    let mode = matches.text(flag);
    let fits = |known: &&str| match known.ends_with(':') {
        true => mode.len() > known.len() && mode.starts_with(*known),
        false => mode == **known,
    };
    if mode.is_empty() || known.iter().any(fits) {
        return Ok(mode);
    }
    Err(Error::value(flag, &mode, &format!("expected one of {}", known.join(", "))))
}

fn resources(matches: &Matches) -> Result<Resources, Error> {
    let number = |flag| matches.parse::<i64>(flag, "a number").map(Option::unwrap_or_default);
    let size = |flag| matches.read(flag, values::bytes).map(Option::unwrap_or_default);
    let throttle = |flag| matches.read_all(flag, values::throttle);
    Ok(Resources {
        cpu_shares: number(&CPU_SHARES)?,
        memory: size(&MEMORY)?,
        nano_cpus: matches.read(&CPUS, values::nano_cpus)?.unwrap_or_default(),
        cgroup_parent: matches.text(&CGROUP_PARENT),
        blkio_weight: matches.parse(&BLKIO_WEIGHT, "a number from 10 to 1000, or 0")?.unwrap_or_default(),
        blkio_weight_device: matches.read_all(&BLKIO_WEIGHT_DEVICE, values::weight)?,
        blkio_device_read_bps: throttle(&DEVICE_READ_BPS)?,
        blkio_device_write_bps: throttle(&DEVICE_WRITE_BPS)?,
        blkio_device_read_iops: throttle(&DEVICE_READ_IOPS)?,
        blkio_device_write_iops: throttle(&DEVICE_WRITE_IOPS)?,
        cpu_period: number(&CPU_PERIOD)?,
        cpu_quota: number(&CPU_QUOTA)?,
        cpu_realtime_period: number(&CPU_RT_PERIOD)?,
        cpu_realtime_runtime: number(&CPU_RT_RUNTIME)?,
        cpuset_cpus: matches.text(&CPUSET_CPUS),
        cpuset_mems: matches.text(&CPUSET_MEMS),
        devices: matches.read_all(&DEVICE, values::device)?,
        device_cgroup_rules: optional(matches.list(&DEVICE_CGROUP_RULE)),
        memory_reservation: size(&MEMORY_RESERVATION)?,
        memory_swap: matches.read(&MEMORY_SWAP, values::bytes_or_unlimited)?.unwrap_or_default(),
        memory_swappiness: matches.parse(&MEMORY_SWAPPINESS, "a number from 0 to 100, or -1")?,
        oom_kill_disable: Some(matches.is(&OOM_KILL_DISABLE)),
        pids_limit: Some(number(&PIDS_LIMIT)?),
        ulimits: matches.read_all(&ULIMIT, values::ulimit)?,
        ..Resources::default()
    })
}

fn volumes(matches: &Matches, config: &mut ContainerConfig, host: &mut HostConfig) -> Result<(), Error> {
    let mut binds = Vec::new();
    for volume in matches.read_all(&VOLUME, mount_values::volume)? {
        match volume {
            Volume::Bind(bind) => binds.push(bind),
            Volume::Anonymous(path) => {
                config.volumes.get_or_insert_default().insert(path, Empty {});
            }
        }
    }
    host.binds = optional(binds);
    host.mounts = matches.read_all(&MOUNT, mount_values::mount)?;
    Ok(())
}

/// The networks joined; the first one is the container's mode and takes the flags beside `--network`.
fn networking(
    matches: &Matches,
    config: &mut ContainerConfig,
    host: &mut HostConfig,
) -> Result<NetworkingConfig, Error> {
    let mut networks = matches.read_all(&NET, network_values::network)?;
    networks.extend(matches.read_all(&NETWORK, network_values::network)?);
    let is_silent = networks.len() == 1;
    if networks.is_empty() {
        networks.push(Attachment { target: "default".to_owned(), ..Attachment::default() });
    }
    let flags = Attachment {
        aliases: matches.list(&NETWORK_ALIAS),
        links: host.links.clone().unwrap_or_default(),
        ip: matches.text(&IP),
        ip6: matches.text(&IP6),
        link_local: matches.list(&LINK_LOCAL_IP),
        // Compat: the container's own has gone from the API with 1.44.
        mac: config.mac_address.take().unwrap_or_default(),
        ..Attachment::default()
    };
    networks[0].add(flags).map_err(Error::Local)?;
    host.network_mode.clone_from(&networks[0].target);
    let mut endpoints_config = network_values::endpoints(&networks).map_err(Error::Local)?;
    if is_silent {
        endpoints_config.retain(|_, settings| *settings != EndpointSettings::default());
    }
    Ok(NetworkingConfig { endpoints_config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::{Parsed, parse};

    fn creation_of(line: &[&str]) -> Result<Creation, Error> {
        let argv = ["run"].iter().chain(line).map(std::ffi::OsString::from);
        let Parsed::Run { matches, .. } = parse(argv)? else { panic!("not a command") };
        let detach = matches.is(&DETACH);
        creation(&matches, detach)
    }

    fn made(line: &str) -> Creation {
        creation_of(&line.split_whitespace().collect::<Vec<_>>()).unwrap()
    }

    fn refused(line: &str) -> String {
        creation_of(&line.split_whitespace().collect::<Vec<_>>()).unwrap_err().to_string()
    }

    #[test]
    fn the_plainest_run_asks_for_what_docker_would() {
        let made = made("alpine");
        let (config, host) = (&made.body.config, &made.body.host_config);
        assert_eq!(config.image, "alpine");
        assert_eq!((&config.cmd, &config.entrypoint), (&None, &None));
        assert_eq!((config.attach_stdin, config.attach_stdout, config.attach_stderr), (false, true, true));
        assert_eq!(host.network_mode, "default");
        assert_eq!(host.restart_policy.name, "no");
        assert_eq!(host.resources.memory_swappiness, Some(-1));
        assert_eq!(made.pull, Pull::Missing);
        assert_eq!((&host.masked_paths, &host.init), (&None, &None));
    }

    #[test]
    fn a_rich_run_reaches_every_corner_of_the_request() {
        let made = made(
            "-it --rm --name web -e A=1 -w /srv -u 1000:100 -v /host:/data:ro -v /anon --network none \
             -m 64m --memory-swap -1 --cpus 1.5 --pids-limit 10 --read-only --cap-add NET_ADMIN \
             --cap-drop ALL --security-opt no-new-privileges --security-opt systempaths=unconfined \
             --init --entrypoint /bin/sh --hostname box -l a=b --ulimit nofile=5:6 --sysctl net.x=1 \
             --tmpfs /run:size=1m --shm-size 1m --stop-signal INT --stop-timeout 3 -p 8080:80 \
             --device /dev/fuse --health-cmd true --health-interval 5s alpine -c true",
        );
        let (config, host) = (&made.body.config, &made.body.host_config);
        assert_eq!(made.query.name, "web");
        assert_eq!(config.cmd.as_deref(), Some(&["-c".to_owned(), "true".to_owned()][..]));
        assert_eq!(config.entrypoint.as_deref(), Some(&["/bin/sh".to_owned()][..]));
        assert_eq!((config.tty, config.open_stdin, config.stdin_once), (true, true, true));
        assert_eq!(config.env, ["A=1"]);
        assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv", "1000:100"));
        assert_eq!(config.hostname, "box");
        assert_eq!(config.labels["a"], "b");
        assert_eq!((config.stop_signal.as_deref(), config.stop_timeout), (Some("INT"), Some(3)));
        assert!(config.volumes.as_ref().unwrap().contains_key("/anon"));
        assert!(config.exposed_ports.contains_key("80/tcp"));
        let check = config.healthcheck.as_ref().unwrap();
        assert_eq!(
            (check.test.as_slice(), check.interval),
            (&["CMD-SHELL".to_owned(), "true".to_owned()][..], 5_000_000_000)
        );
        assert!(host.auto_remove && host.readonly_rootfs);
        assert_eq!(host.binds.as_deref(), Some(&["/host:/data:ro".to_owned()][..]));
        assert_eq!(host.network_mode, "none");
        assert_eq!(host.resources.memory, 64 << 20);
        assert_eq!(host.resources.memory_swap, -1);
        assert_eq!(host.resources.nano_cpus, 1_500_000_000);
        assert_eq!(host.resources.pids_limit, Some(10));
        assert_eq!(host.resources.ulimits[0].soft, 5);
        assert_eq!(host.resources.devices[0].path_on_host, "/dev/fuse");
        assert_eq!(host.security_opt.as_deref(), Some(&["no-new-privileges".to_owned()][..]));
        assert_eq!(host.masked_paths, Some(Vec::new()));
        assert_eq!(host.init, Some(true));
        assert_eq!(host.tmpfs["/run"], "size=1m");
        assert_eq!(host.port_bindings["80/tcp"].as_ref().unwrap()[0].host_port, "8080");
    }

    #[test]
    fn a_detached_container_is_attached_to_nothing_but_may_keep_stdin_open() {
        let made = made("-di alpine");
        let config = &made.body.config;
        assert_eq!((config.attach_stdin, config.attach_stdout, config.attach_stderr), (false, false, false));
        assert_eq!((config.open_stdin, config.stdin_once), (true, false));
    }

    #[test]
    fn an_empty_entrypoint_clears_the_images() {
        let made = creation_of(&["--entrypoint", "", "alpine", "ls"]).unwrap();
        assert_eq!(made.body.config.entrypoint, Some(vec![String::new()]));
    }

    #[test]
    fn a_bare_env_name_passes_the_clients_value_on() {
        let made = made("-e PATH -e DEWAR_SURELY_UNSET -e X= alpine");
        assert!(made.body.config.env[0].starts_with("PATH="));
        assert_eq!(made.body.config.env[1..], ["DEWAR_SURELY_UNSET".to_owned(), "X=".to_owned()]);
    }

    #[test]
    fn env_files_come_before_env() {
        let path = std::env::temp_dir().join(format!("dewar-env-{}", std::process::id()));
        std::fs::write(&path, "# comment\n\nA=1\nB=2 3\n").unwrap();
        let made = creation_of(&["--env-file", path.to_str().unwrap(), "-e", "A=9", "alpine"]);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(made.unwrap().body.config.env, ["A=1", "B=2 3", "A=9"]);
    }

    #[test]
    fn mistakes_are_told_before_anything_is_asked_of_the_daemon() {
        assert!(refused("-m zz alpine").starts_with("invalid argument \"zz\" for \"-m, --memory\""));
        assert!(refused("--rm --restart always alpine").contains("--restart and --rm"));
        assert!(refused("-d -a stdout alpine").contains("--attach and --detach"));
        assert!(refused("-a stdfoo alpine").contains("expected stdin, stdout or stderr"));
        assert!(refused("--pull often alpine").contains("always, missing or never"));
        assert!(refused("--ipc odd alpine").contains("expected one of"));
        assert!(refused("--gpus all alpine").contains("not supported"));
        assert!(refused("--env-file /does/not/exist alpine").contains("No such file"));
        assert!(refused("--no-healthcheck --health-cmd x alpine").contains("conflicts"));
        assert!(refused("--network a --network a alpine").contains("multiple times"));
    }

    /// What the docker client 28.2 was seen to send, and to refuse.
    #[test]
    fn places_in_networks_are_asked_for_as_docker_asks() {
        let asked = |line: &str| {
            let body = made(&format!("{line} alpine")).body;
            let mut endpoints = serde_json::to_value(&body.networking_config.endpoints_config).unwrap();
            // What only answers have.
            for (_, endpoint) in endpoints.as_object_mut().unwrap() {
                endpoint.as_object_mut().unwrap().retain(|_, value| {
                    !value.is_null() && *value != serde_json::json!("") && *value != serde_json::json!(0)
                });
            }
            assert_eq!(body.config.mac_address, None, "{line}");
            (body.host_config.network_mode, body.host_config.links, endpoints)
        };
        let links = |links: &[&str]| Some(links.iter().map(|&link| link.to_owned()).collect::<Vec<_>>());
        for (line, mode, linked, endpoints) in [
            ("", "default", None, serde_json::json!({"default": {}})),
            ("--network none", "none", None, serde_json::json!({})),
            ("--network name=a", "a", None, serde_json::json!({})),
            ("--network a --network b", "a", None, serde_json::json!({"a": {}, "b": {}})),
            (
                "--network a --network b --ip 10.0.0.5 --network-alias x",
                "a",
                None,
                serde_json::json!({"a": {"IPAMConfig": {"IPv4Address": "10.0.0.5"}, "Aliases": ["x"]}, "b": {}}),
            ),
            (
                "--mac-address 02:42:ac:11:00:03",
                "default",
                None,
                serde_json::json!({"default": {"MacAddress": "02:42:ac:11:00:03"}}),
            ),
            (
                "--network a --link c:d --link e",
                "a",
                links(&["c:d", "e"]),
                serde_json::json!({"a": {"Links": ["c:d", "e"]}}),
            ),
            ("--link c:d", "default", links(&["c:d"]), serde_json::json!({"default": {}})),
            ("--network host --link c:d", "host", links(&["c:d"]), serde_json::json!({})),
            (
                "--network container:x --ip 1.2.3.4",
                "container:x",
                None,
                serde_json::json!({"container:x": {"IPAMConfig": {"IPv4Address": "1.2.3.4"}}}),
            ),
            (
                "--network name=a,driver-opt=x=y,gw-priority=3 --ip6 fd00::1 --link-local-ip 169.254.1.1",
                "a",
                None,
                serde_json::json!({"a": {
                    "DriverOpts": {"x": "y"}, "GwPriority": 3,
                    "IPAMConfig": {"IPv6Address": "fd00::1", "LinkLocalIPs": ["169.254.1.1"]},
                }}),
            ),
        ] {
            assert_eq!(asked(line), (mode.to_owned(), linked, endpoints), "{line}");
        }
        let both = |what: &str| format!("conflicting options: cannot specify both {what}");
        for (line, words) in [
            ("--network name=a,alias=x --network-alias y", both("--network-alias and per-network alias")),
            ("--network name=a,ip=10.0.0.1 --ip 10.0.0.2", both("--ip and per-network IPv4 address")),
            ("--network name=a,ip6=fd00::1 --ip6 fd00::2", both("--ip6 and per-network IPv6 address")),
            (
                "--network name=a,mac-address=02:42:ac:11:00:02 --mac-address 02:42:ac:11:00:03",
                both("--mac-address and per-network MAC address"),
            ),
            (
                "--network name=a,link-local-ip=169.254.1.1 --link-local-ip 169.254.1.2",
                both("--link-local-ip and per-network link-local IP addresses"),
            ),
            (
                "--network a --network host",
                "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
                    .to_owned(),
            ),
            ("--network a --network a", "network \"a\" is specified multiple times".to_owned()),
            (
                "--network-alias x",
                "network-scoped aliases are only supported for user-defined networks".to_owned(),
            ),
            (
                "--network name=bridge,alias=x",
                "network-scoped aliases are only supported for user-defined networks".to_owned(),
            ),
            ("--mac-address x", "x is not a valid mac address".to_owned()),
            (
                "--link a:b:c",
                "invalid argument \"a:b:c\" for \"--link\" flag: bad format for links: a:b:c".to_owned(),
            ),
            (
                "--network a,alias=x",
                "invalid argument \"a,alias=x\" for \"--network\" flag: invalid field a".to_owned(),
            ),
        ] {
            assert_eq!(refused(&format!("{line} alpine")), words, "{line}");
        }
        assert_eq!(
            creation_of(&["--network", "", "alpine"]).unwrap_err().to_string(),
            "no name set for network"
        );
    }
}
