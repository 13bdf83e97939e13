//! Every option of the daemon, one line each: the table that flags, file and reload go through.
//!
//! A new option is a line here, a field of [`Config`] and a flag in `cli::daemon`; a test in `main` fails until
//! both tables agree. Names are dockerd's where it has the option. What dockerd has and dewar has no use for is in
//! `ignored`. A table, which stays whole however long it gets.

use serde_json::{Map, Value};

use super::values::{
    absolute, absolute_path, at_least, boolean, bytes, cgroup_parent, check_labels, is_plain, level,
    metrics_address, mirror_url, one_of, optional, positive_or, seccomp_profile, ulimit,
};
use super::{Config, network};
use crate::daemon::error::Error;
use crate::daemon::logger::{Destination, Format};
use crate::daemon::runtimes;

/// How setting went; the error says what is wrong with the value.
pub type Checked = Result<(), String>;

/// What an option holds, and how it is set. A flag's text is read as this, a file's JSON must be it.
pub enum Set {
    /// `true` or `false`.
    Switch(fn(&mut Config, bool) -> Checked),
    /// A whole number.
    Number(fn(&mut Config, i64) -> Checked),
    Text(fn(&mut Config, &str) -> Checked),
    /// A list of strings; a flag is given several times.
    List(fn(&mut Config, Vec<String>) -> Checked),
    /// An object; a flag is given several times, each `key=value`.
    Map(fn(&mut Config, &Map<String, Value>) -> Checked),
    /// An object of objects; a flag is given several times, each `name=key=value`.
    Maps(fn(&mut Config, &Map<String, Value>) -> Checked),
    /// A list of objects; a flag is given several times, each `key=value,key=value`.
    Objects(fn(&mut Config, &[Value]) -> Checked),
}

/// What SIGHUP does with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Read again and put in force.
    Reload,
    /// A change waits for the next start, and is said to.
    Start,
}

/// What happens to an option that is given as a flag and in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Both {
    /// As dockerd: an error that names both values.
    Refused,
    /// The flag counts, and the start says so.
    FlagWins,
    /// As dockerd: what the flags say is added to the file's, which counts where both name the same.
    Joined,
}

/// One option.
pub struct DaemonOption {
    /// The flag's long name; empty where only the file has it.
    pub flag: &'static str,
    /// The key in the file; `a.b` is key b of the object a. Empty where only the command line has it.
    pub key: &'static str,
    /// The environment variable that has the value when neither flag nor file has; empty for none.
    pub env: &'static str,
    pub when: When,
    pub both: Both,
    pub set: Set,
}

const fn option(flag: &'static str, key: &'static str, when: When, set: Set) -> DaemonOption {
    DaemonOption { flag, key, env: "", when, both: Both::Refused, set }
}

use Set::{List, Maps, Number, Objects, Switch, Text};
use When::{Reload, Start};

pub static OPTIONS: &[DaemonOption] = &[
    DaemonOption {
        both: Both::Joined,
        ..option(
            "add-runtime",
            "runtimes",
            Reload,
            Set::Map(|config, given| {
                config.runtimes = runtimes::parse(given)?;
                Ok(())
            }),
        )
    },
    option(
        "access-log",
        "access-log",
        Reload,
        Switch(|config, on| {
            config.access_log = on;
            Ok(())
        }),
    ),
    option(
        "allow-direct-routing",
        "allow-direct-routing",
        Start,
        Switch(|config, on| {
            config.network.allow_direct_routing = on;
            Ok(())
        }),
    ),
    option(
        "authorization-plugin",
        "authorization-plugins",
        Reload,
        List(|config, names| {
            config.authorization_plugins = names;
            Ok(())
        }),
    ),
    option("bip", "bip", Start, Text(network::bip)),
    option("bip6", "bip6", Start, Text(network::bip6)),
    option("bridge", "bridge", Start, Text(network::bridge)),
    option(
        "cgroup-parent",
        "cgroup-parent",
        Start,
        Text(|config, text| {
            config.cgroup_parent = Some(cgroup_parent(text)?).filter(|parent| !parent.is_empty());
            Ok(())
        }),
    ),
    option(
        "checkpoint-on-shutdown",
        "checkpoint-on-shutdown",
        Reload,
        Switch(|config, on| {
            config.checkpoint_on_shutdown = on;
            Ok(())
        }),
    ),
    option(
        "criu",
        "criu",
        Start,
        Text(|config, text| {
            config.criu = optional(text).map(Into::into);
            Ok(())
        }),
    ),
    option(
        "data-root",
        "data-root",
        Start,
        Text(|config, text| {
            config.data_root = absolute(text)?.into();
            Ok(())
        }),
    ),
    option(
        "debug",
        "debug",
        Reload,
        Switch(|config, on| {
            config.debug = on;
            Ok(())
        }),
    ),
    option("default-address-pool", "default-address-pools", Start, Objects(network::address_pools)),
    option(
        "default-cgroupns-mode",
        "default-cgroupns-mode",
        Reload,
        Text(|config, text| {
            config.defaults.cgroupns_mode = one_of(text, &["private", "host"])?;
            Ok(())
        }),
    ),
    option("default-gateway", "default-gateway", Start, Text(network::gateway)),
    option("default-gateway-v6", "default-gateway-v6", Start, Text(network::gateway_v6)),
    option(
        "default-ipc-mode",
        "default-ipc-mode",
        Reload,
        Text(|config, text| {
            config.defaults.ipc_mode = one_of(text, &["private", "shareable"])?;
            Ok(())
        }),
    ),
    option("default-network-opt", "default-network-opts", Start, Maps(network::default_options)),
    option(
        "default-runtime",
        "default-runtime",
        Reload,
        Text(|config, text| {
            config.default_runtime = optional(text).unwrap_or_else(|| runtimes::BUILT_IN.to_owned());
            Ok(())
        }),
    ),
    option(
        "default-shm-size",
        "default-shm-size",
        Reload,
        Text(|config, text| {
            config.defaults.shm_size = bytes(text)?;
            Ok(())
        }),
    ),
    option(
        "default-stop-timeout",
        "default-stop-timeout",
        Reload,
        Number(|config, secs| {
            config.default_stop_timeout_secs = at_least(0, secs)?;
            Ok(())
        }),
    ),
    option(
        "default-ulimit",
        "default-ulimits",
        Start,
        Set::Map(|config, limits| {
            config.defaults.ulimits = limits
                .iter()
                .map(|(name, limit)| Ok((name.clone(), ulimit(name, limit)?)))
                .collect::<Result<_, String>>()?;
            Ok(())
        }),
    ),
    option(
        "dns",
        "dns",
        Start,
        List(|config, servers| {
            let is_bad = |server: &&String| server.parse::<std::net::IpAddr>().is_err();
            if let Some(server) = servers.iter().find(is_bad) {
                return Err(format!("{server:?} is not an ip address"));
            }
            config.defaults.dns = servers;
            Ok(())
        }),
    ),
    option(
        "dns-opt",
        "dns-opts",
        Start,
        List(|config, words| {
            config.defaults.dns_options = words;
            Ok(())
        }),
    ),
    option(
        "dns-search",
        "dns-search",
        Start,
        List(|config, domains| {
            if let Some(domain) =
                domains.iter().find(|domain| domain.is_empty() || domain.contains(char::is_whitespace))
            {
                return Err(format!("{domain:?} is not a valid domain"));
            }
            config.defaults.dns_search = domains;
            Ok(())
        }),
    ),
    option(
        "exec-root",
        "exec-root",
        Start,
        Text(|config, text| {
            config.exec_root = absolute(text)?.into();
            Ok(())
        }),
    ),
    // Compat: a daemon without experiments would hide checkpoints from the stock client.
    option("experimental", "experimental", Start, Switch(|_, _| Ok(()))),
    option(
        "feature",
        "features",
        Reload,
        Set::Map(|config, features| {
            let read = |(name, value): (&String, &Value)| match value {
                Value::Bool(on) => Ok((name.clone(), *on)),
                Value::String(text) => Ok((name.clone(), boolean(text)?)),
                _ => Err(format!("{name}: expected true or false")),
            };
            config.features = features.iter().map(read).collect::<Result<_, String>>()?;
            Ok(())
        }),
    ),
    option("fixed-cidr", "fixed-cidr", Start, Text(network::fixed_cidr)),
    option("fixed-cidr-v6", "fixed-cidr-v6", Start, Text(network::fixed_cidr_v6)),
    option(
        "group",
        "group",
        Start,
        Text(|config, text| {
            config.group = optional(text);
            Ok(())
        }),
    ),
    DaemonOption {
        both: Both::FlagWins,
        ..option(
            "host",
            "hosts",
            Start,
            List(|config, hosts| {
                if !hosts.is_empty() {
                    config.hosts = hosts;
                }
                Ok(())
            }),
        )
    },
    option("", "host-gateway-ip", Start, Text(network::host_gateway)),
    option("host-gateway-ip", "host-gateway-ips", Start, List(network::host_gateways)),
    DaemonOption {
        env: "HTTP_PROXY",
        ..option(
            "http-proxy",
            "proxies.http-proxy",
            Reload,
            Text(|config, text| {
                config.http_proxy = text.to_owned();
                Ok(())
            }),
        )
    },
    DaemonOption {
        env: "HTTPS_PROXY",
        ..option(
            "https-proxy",
            "proxies.https-proxy",
            Reload,
            Text(|config, text| {
                config.https_proxy = text.to_owned();
                Ok(())
            }),
        )
    },
    option(
        "icc",
        "icc",
        Start,
        Switch(|config, on| {
            config.network.icc = on;
            Ok(())
        }),
    ),
    option(
        "init",
        "init",
        Start,
        Switch(|config, on| {
            config.defaults.init = on;
            Ok(())
        }),
    ),
    option(
        "insecure-registry",
        "insecure-registries",
        Reload,
        List(|config, registries| {
            if let Some(bad) =
                registries.iter().find(|registry| registry.contains("://") || !is_plain(registry))
            {
                return Err(format!(
                    "insecure registry {bad} is not valid: expected host[:port] or a network in CIDR notation"
                ));
            }
            config.insecure_registries = registries;
            Ok(())
        }),
    ),
    option(
        "insecure-tcp",
        "insecure-tcp",
        Start,
        Switch(|config, on| {
            config.insecure_tcp = on;
            Ok(())
        }),
    ),
    option("ip", "ip", Start, Text(network::published_ip)),
    option(
        "ip-forward",
        "ip-forward",
        Start,
        Switch(|config, on| {
            config.network.ip_forward = on;
            Ok(())
        }),
    ),
    option(
        "ip-masq",
        "ip-masq",
        Start,
        Switch(|config, on| {
            config.network.ip_masq = on;
            Ok(())
        }),
    ),
    option(
        "ip6tables",
        "ip6tables",
        Start,
        Switch(|config, on| {
            config.network.ip6tables = on;
            Ok(())
        }),
    ),
    option(
        "iptables",
        "iptables",
        Start,
        Switch(|config, on| {
            config.network.iptables = on;
            Ok(())
        }),
    ),
    option(
        "ipv6",
        "ipv6",
        Start,
        Switch(|config, on| {
            config.network.ipv6 = on;
            Ok(())
        }),
    ),
    option(
        "label",
        "labels",
        Reload,
        List(|config, labels| {
            config.labels = check_labels(labels)?;
            Ok(())
        }),
    ),
    option(
        "live-restore",
        "live-restore",
        Reload,
        Switch(|config, on| {
            config.live_restore = on;
            Ok(())
        }),
    ),
    option(
        "log-driver",
        "log-driver",
        Start,
        Text(|config, text| {
            if !text.is_empty() {
                config.defaults.log.kind = text.to_owned();
            }
            Ok(())
        }),
    ),
    option(
        "log-file-max-files",
        "log-file-max-files",
        Start,
        Number(|config, count| {
            config.log_file_max_files = u32::try_from(at_least(1, count)?).unwrap_or(u32::MAX);
            Ok(())
        }),
    ),
    option(
        "log-file-max-size",
        "log-file-max-size",
        Start,
        Text(|config, text| {
            let size = u64::try_from(bytes(text)?).ok().filter(|size| *size > 0);
            config.log_file_max_bytes = size.ok_or("expected a size greater than 0")?;
            Ok(())
        }),
    ),
    option(
        "log-format",
        "log-format",
        Start,
        Text(|config, text| {
            config.log_format = match one_of(text, &["text", "json"])?.as_str() {
                "json" => Format::Json,
                _ => Format::Text,
            };
            Ok(())
        }),
    ),
    option(
        "log-level",
        "log-level",
        Reload,
        Text(|config, text| {
            config.log_level = level(text)?;
            Ok(())
        }),
    ),
    option(
        "log-opt",
        "log-opts",
        Start,
        Set::Map(|config, options| {
            let read = |(key, value): (&String, &Value)| match value {
                Value::String(text) => Ok((key.clone(), text.clone())),
                _ => Err(format!("{key}: expected a string")),
            };
            config.defaults.log.config = options.iter().map(read).collect::<Result<_, String>>()?;
            Ok(())
        }),
    ),
    option(
        "log-to",
        "log-to",
        Start,
        Text(|config, text| {
            config.log_to = match text {
                "" | "stderr" => Destination::Stderr,
                "syslog" => Destination::Syslog,
                path => {
                    let path = absolute(path).map_err(|_| {
                        format!("{path:?}: expected stderr, syslog or the absolute path of a file")
                    })?;
                    Destination::File(path.into())
                }
            };
            Ok(())
        }),
    ),
    option(
        "max-concurrent-downloads",
        "max-concurrent-downloads",
        Reload,
        Number(|config, count| {
            config.max_concurrent_downloads = positive_or(3, count)?;
            Ok(())
        }),
    ),
    option(
        "max-concurrent-uploads",
        "max-concurrent-uploads",
        Reload,
        Number(|config, count| {
            config.max_concurrent_uploads = positive_or(5, count)?;
            Ok(())
        }),
    ),
    option(
        "max-download-attempts",
        "max-download-attempts",
        Reload,
        Number(|config, count| {
            config.max_download_attempts = positive_or(5, count)?;
            Ok(())
        }),
    ),
    option(
        "metrics-addr",
        "metrics-addr",
        Start,
        Text(|config, text| {
            config.metrics_addr = optional(text).map(|text| metrics_address(&text)).transpose()?;
            Ok(())
        }),
    ),
    option("mtu", "mtu", Start, Number(network::mtu)),
    DaemonOption {
        env: "NO_PROXY",
        ..option(
            "no-proxy",
            "proxies.no-proxy",
            Reload,
            Text(|config, text| {
                config.no_proxy = text.to_owned();
                Ok(())
            }),
        )
    },
    option(
        "no-new-privileges",
        "no-new-privileges",
        Start,
        Switch(|config, on| {
            config.defaults.no_new_privileges = on;
            Ok(())
        }),
    ),
    option(
        "pidfile",
        "pidfile",
        Start,
        Text(|config, text| {
            config.pidfile = optional(text).map(absolute_path).transpose()?;
            Ok(())
        }),
    ),
    option(
        "ready-fd",
        "ready-fd",
        Start,
        Number(|config, number| {
            let fd = i32::try_from(number).ok().filter(|fd| *fd >= 3);
            config.ready_fd = Some(fd.ok_or("expected the number of an inherited descriptor, 3 or above")?);
            Ok(())
        }),
    ),
    option(
        "registry-mirror",
        "registry-mirrors",
        Reload,
        List(|config, mirrors| {
            config.registry_mirrors =
                mirrors.iter().map(|mirror| mirror_url(mirror)).collect::<Result<_, _>>()?;
            Ok(())
        }),
    ),
    option(
        "seccomp-profile",
        "seccomp-profile",
        Start,
        Text(|config, text| {
            config.defaults.seccomp_profile = seccomp_profile(text)?;
            Ok(())
        }),
    ),
    option(
        "shutdown-timeout",
        "shutdown-timeout",
        Reload,
        Number(|config, secs| {
            // Compat: -1 waits for the containers as long as they take.
            config.shutdown_timeout_secs = u64::try_from(at_least(-1, secs)?).ok();
            Ok(())
        }),
    ),
    option(
        "storage-driver",
        "storage-driver",
        Start,
        Text(|_, text| match text {
            "" | "overlay2" | "overlay" => Ok(()),
            _ => Err("dewar has overlay2 only".to_owned()),
        }),
    ),
    option(
        "tls",
        "tls",
        Start,
        Switch(|config, on| {
            config.tls.is_on = Some(on);
            Ok(())
        }),
    ),
    option(
        "tlscacert",
        "tlscacert",
        Start,
        Text(|config, text| {
            config.tls.ca = optional(text).map(Into::into);
            Ok(())
        }),
    ),
    option(
        "tlscert",
        "tlscert",
        Start,
        Text(|config, text| {
            config.tls.cert = optional(text).map(Into::into);
            Ok(())
        }),
    ),
    option(
        "tlskey",
        "tlskey",
        Start,
        Text(|config, text| {
            config.tls.key = optional(text).map(Into::into);
            Ok(())
        }),
    ),
    option(
        "tlsverify",
        "tlsverify",
        Start,
        Switch(|config, on| {
            config.tls.verifies = Some(on);
            Ok(())
        }),
    ),
    option(
        "userland-proxy",
        "userland-proxy",
        Start,
        Switch(|config, on| {
            config.network.userland_proxy = on;
            Ok(())
        }),
    ),
];

/// The option with this flag.
#[cfg(test)]
pub fn by_flag(flag: &str) -> Option<&'static DaemonOption> {
    OPTIONS.iter().find(|option| option.flag == flag)
}

/// The option with this key.
pub fn by_key(key: &str) -> Option<&'static DaemonOption> {
    OPTIONS.iter().find(|option| option.key == key)
}

impl DaemonOption {
    /// Puts a merged value in force.
    ///
    /// # Errors
    /// InvalidParameter naming the key, the value and what is wrong.
    pub fn apply(&self, config: &mut Config, value: &Value) -> Result<(), Error> {
        let strings = || -> Option<Vec<String>> {
            value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
        };
        let expected = |what: &str| Err(format!("expected {what}"));
        let result = match &self.set {
            Set::Switch(set) => {
                value.as_bool().map_or_else(|| expected("true or false"), |on| set(config, on))
            }
            Set::Number(set) => {
                value.as_i64().map_or_else(|| expected("a whole number"), |number| set(config, number))
            }
            Set::Text(set) => value.as_str().map_or_else(|| expected("a string"), |text| set(config, text)),
            Set::List(set) => {
                strings().map_or_else(|| expected("a list of strings"), |list| set(config, list))
            }
            Set::Map(set) | Set::Maps(set) => {
                value.as_object().map_or_else(|| expected("an object"), |map| set(config, map))
            }
            Set::Objects(set) => {
                value.as_array().map_or_else(|| expected("a list of objects"), |list| set(config, list))
            }
        };
        result.map_err(|cause| Error::invalid(format!("configure {}: {value}: {cause}", self.key)))
    }

    /// A flag's values, in order, as the file would have them.
    ///
    /// # Errors
    /// InvalidParameter naming flag and value.
    pub fn read(&self, given: &[String]) -> Result<Value, Error> {
        let last = given.last().map_or("", String::as_str);
        let invalid = |text: &str, expected: &str| {
            Error::invalid(format!("invalid argument {text:?} for \"--{}\": expected {expected}", self.flag))
        };
        Ok(match &self.set {
            Set::Switch(_) => Value::Bool(boolean(last).map_err(|_| invalid(last, "true or false"))?),
            Set::Number(_) => {
                let number: i64 = last.trim().parse().map_err(|_| invalid(last, "a whole number"))?;
                number.into()
            }
            Set::Text(_) => last.into(),
            Set::List(_) => given.iter().map(|text| Value::from(text.as_str())).collect(),
            Set::Map(_) => {
                let mut map = Map::new();
                for text in given {
                    let (key, value) = text.split_once('=').ok_or_else(|| invalid(text, "key=value"))?;
                    map.insert(key.to_owned(), value.into());
                }
                Value::Object(map)
            }
            Set::Maps(_) => {
                let mut maps = Map::new();
                for text in given {
                    let parts =
                        text.split_once('=').and_then(|(name, rest)| Some((name, rest.split_once('=')?)));
                    let (name, (key, value)) = parts.ok_or_else(|| invalid(text, "name=key=value"))?;
                    let map = maps.entry(name).or_insert_with(|| Value::Object(Map::new()));
                    map[key] = value.into();
                }
                Value::Object(maps)
            }
            Set::Objects(_) => {
                let object = |text: &String| -> Result<Value, Error> {
                    let field = |field: &str| {
                        let (key, value) = field.split_once('=')?;
                        let value = value.parse::<i64>().map_or_else(|_| value.into(), Value::from);
                        Some((key.to_owned(), value))
                    };
                    let fields: Option<Map<String, Value>> = text.split(',').map(field).collect();
                    Ok(Value::Object(fields.ok_or_else(|| invalid(text, "key=value pairs with commas"))?))
                };
                Value::Array(given.iter().map(object).collect::<Result<_, Error>>()?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_sorted() {
        let flags: Vec<&str> = OPTIONS.iter().map(|option| option.flag).collect();
        let mut keys: Vec<&str> = OPTIONS.iter().map(|option| option.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), OPTIONS.len(), "a key that is there twice");
        assert!(flags.iter().all(|flag| by_flag(flag).is_some_and(|option| option.flag == *flag)));
    }

    #[test]
    fn values_are_checked_with_dockers_words() {
        let refused = |key: &str, json: &str| {
            let value = serde_json::from_str(json).unwrap();
            by_key(key).unwrap().apply(&mut Config::default(), &value).unwrap_err().message
        };
        for (key, json, part) in [
            ("debug", "1", "true or false"),
            ("hosts", "\"unix:///a\"", "a list of strings"),
            ("labels", "[\"a\"]", "bad attribute format: a"),
            ("labels", "[\"a=1\",\"a=2\"]", "conflict labels for a=2 and a=1"),
            ("log-level", "\"loud\"", "expected error, warn"),
            ("registry-mirrors", "[\"mirror.example\"]", "no scheme"),
            ("registry-mirrors", "[\"https://m/path\"]", "path, query"),
            ("insecure-registries", "[\"http://r\"]", "insecure registry http://r is not valid"),
            ("shutdown-timeout", "-2", "-1 or more"),
            ("shutdown-timeout", "1.5", "a whole number"),
            ("max-concurrent-downloads", "-1", "not negative"),
            ("default-ulimits", "{\"nofile\":{\"Hard\":1,\"Soft\":2}}", "above the hard"),
            ("default-ulimits", "{\"files\":{\"Hard\":1}}", "invalid ulimit type: files"),
            ("dns", "[\"x\"]", "not an ip address"),
            ("storage-driver", "\"btrfs\"", "overlay2 only"),
            ("cgroup-parent", "\"a.slice\"", "systemd"),
            ("data-root", "\"d\"", "absolute"),
            ("seccomp-profile", "\"/nowhere\"", "No such file"),
            ("features", "{\"a\":1}", "a: expected true or false"),
            ("runtimes", "{\"dewar\":{\"path\":\"/r\"}}", "reserved"),
        ] {
            let message = refused(key, json);
            assert!(message.contains(part) && message.contains(key), "{key} {json}: {message}");
        }
    }

    #[test]
    fn a_flag_reads_as_the_file_does() {
        let read = |flag: &str, given: &[&str]| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            by_flag(flag).unwrap().read(&given)
        };
        let mut config = Config::default();
        for (flag, given) in [
            ("debug", &["true"][..]),
            ("shutdown-timeout", &["-1"]),
            ("default-ulimit", &["nofile=64:128", "core=0"]),
            ("feature", &["a=true"]),
            ("default-shm-size", &["128M"]),
            ("registry-mirror", &["https://m.example"]),
        ] {
            let value = read(flag, given).unwrap();
            by_flag(flag).unwrap().apply(&mut config, &value).unwrap();
        }
        assert!(config.debug && config.shutdown_timeout_secs.is_none() && config.features["a"]);
        assert_eq!(config.defaults.ulimits["nofile"].soft, 64);
        assert_eq!(config.defaults.shm_size, 128 << 20);
        assert_eq!(config.registry_mirrors, ["https://m.example/"]);
        assert!(read("debug", &["perhaps"]).unwrap_err().message.contains("--debug"));
        assert!(read("feature", &["a"]).unwrap_err().message.contains("key=value"));
    }
}
