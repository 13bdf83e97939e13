//! `dewar daemon`: its flags, handed to the daemon as they were typed.
//!
//! The client does not know the daemon: what a value may be, and what a flag that is not given means, is decided
//! there, by the table that reads the configuration file too. A test in `main` holds the two tables together.

use super::command::{Action, Args, Command, Flag, Matches};
use super::context::print;

static CONFIG_FILE: Flag = Flag::value(
    "config-file",
    "FILE",
    "Read options from this file (/etc/dewar/daemon.json where there is one)",
);
static VALIDATE: Flag = Flag::switch("validate", "Check flags and configuration file, then exit");
static VERSION: Flag = Flag::switch("version", "Print the version and exit").short('v');

static FLAGS: &[&Flag] = &[
    &Flag::switch("access-log", "Log each request at level info, not at level debug"),
    &Flag::many("add-runtime", "NAME=PATH", "OCI runtime that containers can ask for by this name"),
    &Flag::switch("allow-direct-routing", "Let hosts that route to containers' networks reach them"),
    &Flag::many("authorization-plugin", "NAME", "Plugin that is asked whether a request is allowed"),
    &Flag::value("bip", "ADDRESS/PREFIX", "IPv4 address of the default bridge, and so its network"),
    &Flag::value("bip6", "ADDRESS/PREFIX", "IPv6 address of the default bridge, and so its network"),
    &Flag::value(
        "bridge",
        "NAME",
        "Bridge of the host's own for the default network; none for no such network",
    )
    .short('b'),
    &Flag::value("cgroup-parent", "PATH", "Cgroup below which containers get their own"),
    &Flag::switch(
        "checkpoint-on-shutdown",
        "Freeze containers to disk when the daemon ends, and thaw them when it starts",
    ),
    &CONFIG_FILE,
    &Flag::value("criu", "PATH", "The criu that freezes and thaws (found in PATH otherwise)"),
    &Flag::value("data-root", "DIRECTORY", "What must survive a reboot: images, containers, checkpoints"),
    &Flag::switch("debug", "Log at level debug").short('D'),
    &Flag::many(
        "default-address-pool",
        "base=CIDR,size=BITS",
        "Where networks get their subnets from when they name none",
    ),
    &Flag::value("default-cgroupns-mode", "MODE", "Cgroup namespace of containers: private or host"),
    &Flag::value("default-gateway", "ADDRESS", "IPv4 router of the default bridge's containers"),
    &Flag::value("default-gateway-v6", "ADDRESS", "IPv6 router of the default bridge's containers"),
    &Flag::value("default-ipc-mode", "MODE", "IPC namespace of containers: private or shareable"),
    &Flag::many("default-network-opt", "DRIVER=KEY=VALUE", "Option of new networks of a driver"),
    &Flag::value("default-runtime", "NAME", "Runtime of containers that name none, dewar otherwise"),
    &Flag::value("default-shm-size", "BYTES", "Size of containers' /dev/shm, 64m otherwise"),
    &Flag::value("default-stop-timeout", "SECONDS", "Time a container gets to stop, 10 otherwise"),
    &Flag::many("default-ulimit", "NAME=SOFT[:HARD]", "Limit of containers' processes"),
    &Flag::many("dns", "ADDRESS", "Name server of containers"),
    &Flag::many("dns-opt", "OPTION", "Resolver option of containers"),
    &Flag::many("dns-search", "DOMAIN", "Search domain of containers"),
    &Flag::value("exec-root", "DIRECTORY", "What need not survive a reboot: sockets, mounts, pids"),
    &Flag::switch("experimental", "Accepted: nothing of dewar waits for it"),
    &Flag::many("feature", "NAME=BOOL", "Switch a feature on or off"),
    &Flag::value(
        "fixed-cidr",
        "CIDR",
        "Range of the default bridge that containers' IPv4 addresses are from",
    ),
    &Flag::value(
        "fixed-cidr-v6",
        "CIDR",
        "Range of the default bridge that containers' IPv6 addresses are from",
    ),
    &Flag::value("group", "GROUP", "Group that may use the unix socket").short('G'),
    &Flag::many("host", "URL", "Address to serve: unix://[PATH], tcp://[HOST][:PORT], fd://[NUMBER|NAME]")
        .short('H'),
    &Flag::many(
        "host-gateway-ip",
        "ADDRESS",
        "What host-gateway means in --add-host, one of each family; the default bridge otherwise",
    ),
    &Flag::value("http-proxy", "URL", "Proxy for registries without TLS"),
    &Flag::value("https-proxy", "URL", "Proxy for registries"),
    &Flag::switch("icc", "Let containers on the default bridge speak to each other, the default"),
    &Flag::switch("init", "Run an init inside containers that forwards signals and reaps"),
    &Flag::many("insecure-registry", "HOST", "Registry to be trusted without, or with a broken, certificate"),
    &Flag::switch(
        "insecure-tcp",
        "Allow tcp without client certificates on loopback: everyone on this machine is root",
    ),
    &Flag::value("ip", "ADDRESS", "Host's address of published ports that name none, all otherwise"),
    &Flag::switch("ip-forward", "Turn on forwarding between the host's interfaces, the default"),
    &Flag::switch(
        "ip-masq",
        "Let the default bridge's containers speak with the host's address, the default",
    ),
    &Flag::switch("ip6tables", "Make IPv6 firewall rules, the default"),
    &Flag::switch("iptables", "Make IPv4 firewall rules, the default: nftables, without a program"),
    &Flag::switch("ipv6", "Give the default bridge IPv6"),
    &Flag::many("label", "KEY=VALUE", "Label of this daemon"),
    &Flag::switch("live-restore", "Leave containers running when the daemon ends, and take them up again"),
    &Flag::value("log-driver", "DRIVER", "Log driver of containers, json-file otherwise"),
    &Flag::value("log-file-max-files", "NUMBER", "Files kept of a log in a file, 5 otherwise"),
    &Flag::value("log-file-max-size", "BYTES", "Size at which a log in a file is set aside, 10m otherwise"),
    &Flag::value("log-format", "FORMAT", "The daemon's own log as text or json"),
    &Flag::value("log-level", "LEVEL", "Log at level error, warn, info, debug or trace").short('l'),
    &Flag::many("log-opt", "KEY=VALUE", "Option of the log driver, for containers of that driver"),
    &Flag::value("log-to", "DESTINATION", "The daemon's own log: stderr, syslog or a file's path"),
    &Flag::value("max-concurrent-downloads", "NUMBER", "Layers pulled at once, 3 otherwise"),
    &Flag::value("max-concurrent-uploads", "NUMBER", "Layers pushed at once, 5 otherwise"),
    &Flag::value("max-download-attempts", "NUMBER", "Attempts at each layer, 5 otherwise"),
    &Flag::value("metrics-addr", "ADDRESS:PORT", "Serve Prometheus metrics there"),
    &Flag::value("mtu", "BYTES", "MTU of the default bridge, 1500 otherwise"),
    &Flag::switch("no-new-privileges", "Keep processes of containers from gaining privileges"),
    &Flag::value("no-proxy", "LIST", "Hosts for which no proxy is used, separated by commas"),
    &Flag::value("pidfile", "FILE", "Write the daemon's process ID to this file").short('p'),
    &Flag::value("ready-fd", "NUMBER", "Write a line to this descriptor once requests are answered"),
    &Flag::many("registry-mirror", "URL", "Mirror of Docker's registry to ask first"),
    &Flag::value("seccomp-profile", "FILE", "Seccomp profile of containers; unconfined for none"),
    &Flag::value(
        "shutdown-timeout",
        "SECONDS",
        "Time containers get to stop when the daemon ends, 15 otherwise; -1 waits for them",
    ),
    &Flag::value("storage-driver", "NAME", "Accepted: overlay2 is what there is").short('s'),
    &Flag::switch("tls", "Serve tcp with TLS; clients need no certificates unless --tlsverify is given"),
    &Flag::value("tlscacert", "FILE", "CA certificate clients' certificates are verified against"),
    &Flag::value("tlscert", "FILE", "Certificate shown to clients"),
    &Flag::value("tlskey", "FILE", "Private key of the certificate"),
    &Flag::switch("tlsverify", "Serve tcp with TLS to clients whose certificates the CA has signed"),
    &Flag::switch(
        "userland-proxy",
        "Relay to published ports what no rule can carry (::1, IPv6 to IPv4), the default",
    ),
    &VALIDATE,
    &VERSION,
];

pub static DAEMON: Command = Command {
    names: &["daemon"],
    summary: "Serve the Engine API and look after the containers",
    usage: "[OPTIONS]",
    about: "Runs in the foreground until it gets SIGTERM or SIGINT. Containers belong to processes of \
            their own, so even a daemon that is killed loses none of them. Every flag but config-file, validate \
            and version can be given in the configuration file as well, under dockerd's name: what is given in \
            both is refused, except that --host replaces the file's hosts. SIGHUP reads the file again, and the \
            certificates. Whoever can connect is root: a unix socket admits root and its group; tcp needs \
            --tlsverify, or a loopback address and --insecure-tcp. Of TLS files that are not named, those of \
            DOCKER_CERT_PATH, /etc/dewar or ~/.docker are used (ca.pem, cert.pem, key.pem); with TLS and without a \
            host, tcp://localhost:2376 is served. With fd://, sockets passed by socket activation are served: all, \
            one by its number, or those with a name.",
    flags: FLAGS,
    args: Args::NONE,
    example: "dewar daemon --data-root /var/lib/dewar -H unix:///run/dewar.sock",
    usage_code: 1,
    plan: |matches| {
        if matches.is(&VERSION) {
            return Action::call(|_| {
                print(&format!("dewar version {}\n", env!("CARGO_PKG_VERSION"))).map(|()| 0)
            });
        }
        Ok(Action::Daemon(request(matches)))
    },
};

/// `dewar daemon`'s command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The long name of each flag that was given, with every value in order; switches have `true` or `false`.
    pub given: Vec<(&'static str, Vec<String>)>,
    pub config_file: Option<String>,
    pub validate: bool,
}

fn request(matches: &Matches) -> Options {
    let own = [&CONFIG_FILE, &VALIDATE, &VERSION];
    let is_own = |flag: &&'static Flag| own.iter().any(|own| std::ptr::eq(*own, *flag));
    let options = FLAGS.iter().copied().filter(|flag| !is_own(flag));
    Options {
        given: options
            .map(|flag| (flag.long, matches.list(flag)))
            .filter(|(_, values)| !values.is_empty())
            .collect(),
        config_file: matches.get(&CONFIG_FILE).filter(|path| !path.is_empty()).map(str::to_owned),
        validate: matches.is(&VALIDATE),
    }
}

/// The long names of the flags that are options of the daemon.
#[cfg(test)]
pub fn flags() -> impl Iterator<Item = &'static str> {
    FLAGS.iter().map(|flag| flag.long).filter(|flag| !matches!(*flag, "config-file" | "validate" | "version"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::{Parsed, parse};

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(Into::into)).unwrap() {
            Parsed::Run { matches, .. } => request(&matches),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_are_handed_on_as_typed() {
        assert_eq!(options("daemon"), Options::default());
        let options =
            options("daemon -H unix:///a -H tcp://b -D --live-restore=false --validate --config-file /f");
        let one = |text: &str| vec![text.to_owned()];
        assert_eq!(
            options.given,
            [
                ("debug", one("true")),
                ("host", vec!["unix:///a".to_owned(), "tcp://b".to_owned()]),
                ("live-restore", one("false")),
            ]
        );
        assert_eq!(options.config_file.as_deref(), Some("/f"));
        assert!(options.validate);
    }
}
