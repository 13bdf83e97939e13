//! What a create request may not ask for, each refused in Docker's words before anything is made.
//!
//! What a value becomes for the kernel is `spec.rs`, and its own refusals stay there; here is what can be told
//! from the request alone.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::hibernate;
use super::logs::drivers;
use super::{policy, schedule};
use crate::daemon::error::{Error, Result};
use crate::http::api::container::{ContainerConfig, HostConfig, Resources, RestartPolicy};
use crate::runtime::plan::Options;

/// What tmpfs itself understands, beside the words of mount(8). Source: tmpfs(5).
const TMPFS_OPTIONS: [&str; 10] =
    ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge", "inode32", "inode64"];

/// Checks what the process is to be, before defaults are filled in.
///
/// # Errors
/// InvalidParameter.
pub fn config(config: &ContainerConfig) -> Result<()> {
    for (what, name) in [("hostname", &config.hostname), ("domainname", &config.domainname)] {
        // Source: sethostname(2), setdomainname(2).
        if name.len() > 64 {
            return Err(Error::invalid(format!("invalid {what} {name:?}: longer than 64 bytes")));
        }
    }
    config.exposed_ports.keys().try_for_each(|port| port_spec(port))?;
    if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
        return Err(Error::invalid(format!(
            "the working directory '{}' is invalid, it needs to be an absolute path",
            config.working_dir
        )));
    }
    if let Some(signal) = config.stop_signal.as_deref().filter(|signal| !signal.is_empty()) {
        super::lifecycle::parse_signal(signal)?;
    }
    if let Some(entry) = config.env.iter().find(|entry| entry.is_empty() || entry.starts_with('=')) {
        return Err(Error::invalid(format!("invalid environment variable: {entry}")));
    }
    Ok(())
}

/// Checks what contradicts the modes asked for, before defaults hide what was asked.
///
/// # Errors
/// InvalidParameter, with Docker's texts.
pub fn conflicts(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    let conflict = |what: &str| Err(Error::invalid(format!("conflicting options: {what}")));
    let (is_host, is_joined) = (host.network_mode == "host", host.network_mode.starts_with("container:"));
    if host.uts_mode == "host" && !config.hostname.is_empty() {
        return conflict("hostname and the UTS mode");
    }
    let has_links = host.links.as_ref().is_some_and(|links| !links.is_empty());
    if has_links && is_host {
        return conflict(
            "host type networking can't be used with links. This would result in undefined behavior",
        );
    }
    if is_joined {
        if !config.hostname.is_empty() {
            return conflict("hostname and the network mode");
        }
        if has_links {
            return conflict(
                "container type network can't be used with links. This would result in undefined behavior",
            );
        }
        if !host.dns.is_empty() {
            return conflict("dns and the network mode");
        }
        if host.extra_hosts.as_ref().is_some_and(|hosts| !hosts.is_empty()) {
            return conflict("custom host-to-IP mapping and the network mode");
        }
        if !host.port_bindings.is_empty() || host.publish_all_ports {
            return conflict("port publishing and the container type network mode");
        }
        if !config.exposed_ports.is_empty() {
            return conflict("port exposing and the container type network mode");
        }
    }
    if (is_host || is_joined) && config.mac_address.as_ref().is_some_and(|address| !address.is_empty()) {
        return conflict("mac-address and the network mode");
    }
    Ok(())
}

fn addresses(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    for entry in host.extra_hosts.iter().flatten() {
        let Some((_, address)) = entry.split_once(':').filter(|(name, _)| !name.is_empty()) else {
            return Err(Error::invalid(format!("bad format for add-host: {entry:?}")));
        };
        if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
            return Err(Error::invalid(format!("invalid IP address in add-host: {address:?}")));
        }
    }
    if let Some(server) = host.dns.iter().find(|server| server.parse::<IpAddr>().is_err()) {
        return Err(Error::invalid(format!("{server} is not an ip address")));
    }
    config.mac_address.as_deref().map_or(Ok(()), |text| super::network::mac_address(text).map(|_| ()))
}

/// `80`, `80/tcp`, `8000-8010/udp`.
fn port_spec(text: &str) -> Result<()> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let is_protocol = ["tcp", "udp", "sctp"].iter().any(|known| protocol.eq_ignore_ascii_case(known));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) if first <= last && is_protocol => Ok(()),
        _ => Err(Error::invalid(format!("invalid port specification: \"{text}\""))),
    }
}

/// Checks where ports of the container are to be led.
fn port_bindings(host: &HostConfig) -> Result<()> {
    for (port, bindings) in &host.port_bindings {
        port_spec(port)?;
        for binding in bindings.iter().flatten() {
            let is_port = |text: &str| text.is_empty() || text.parse::<u16>().is_ok();
            let (first, last) = binding.host_port.split_once('-').unwrap_or((&binding.host_port, ""));
            if !is_port(first) || !is_port(last) {
                return Err(Error::invalid(format!("invalid port specification: \"{}\"", binding.host_port)));
            }
            if !binding.host_ip.is_empty() && binding.host_ip.parse::<IpAddr>().is_err() {
                return Err(Error::invalid(format!("invalid IP address: {}", binding.host_ip)));
            }
        }
    }
    Ok(())
}

fn tmpfs(mounts: &BTreeMap<String, String>) -> Result<()> {
    for options in mounts.values() {
        let words: Vec<String> =
            options.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let invalid = |word: &str| Error::invalid(format!("invalid tmpfs option {word:?}"));
        let parsed = Options::parse(&words).map_err(|cause| invalid(&cause))?;
        for word in &parsed.data {
            if !TMPFS_OPTIONS.contains(&word.split('=').next().unwrap_or_default()) {
                return Err(invalid(word));
            }
        }
    }
    Ok(())
}

/// Checks that the host has the processors and memory nodes asked for.
///
/// # Errors
/// InvalidParameter, with Docker's texts.
pub fn cpuset(limits: &Resources) -> Result<()> {
    for (asked, file, what, kind) in [
        (&limits.cpuset_cpus, "/sys/devices/system/cpu/online", "CPUs", "cpus"),
        (&limits.cpuset_mems, "/sys/devices/system/node/online", "memory nodes", "mems"),
    ] {
        if asked.is_empty() {
            continue;
        }
        let wanted = ranges(asked)
            .ok_or_else(|| Error::invalid(format!("Invalid value {asked} for cpuset {kind}")))?;
        // A host that does not tell is asked by the start.
        let Ok(online) = std::fs::read_to_string(file) else { continue };
        let Some(has) = ranges(online.trim()) else { continue };
        let is_there = |number: u32| has.iter().any(|(first, last)| (*first..=*last).contains(&number));
        if !wanted.iter().all(|(first, last)| (*first..=*last).all(is_there)) {
            return Err(Error::invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {}",
                online.trim()
            )));
        }
    }
    Ok(())
}

/// `0-3,7`; the kernel has no numbers beyond 8192.
fn ranges(text: &str) -> Option<Vec<(u32, u32)>> {
    text.split(',')
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (first <= last && last < 8192).then_some((first, last))
        })
        .collect()
}

/// The restart policy by itself.
pub fn restart_policy(policy: &RestartPolicy) -> Result<()> {
    let counts = matches!(policy.name.as_str(), "on-failure" | policy::FROM_CHECKPOINT);
    if !counts && !matches!(policy.name.as_str(), "no" | "always" | "unless-stopped") {
        return Err(Error::invalid(format!(
            "invalid restart policy: unknown policy '{}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
            policy.name
        )));
    }
    if policy.maximum_retry_count < 0 {
        return Err(Error::invalid("invalid restart policy: maximum retry count cannot be negative"));
    }
    if policy.maximum_retry_count > 0 && !counts {
        return Err(Error::invalid(
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ));
    }
    Ok(())
}

/// Checks the rest, after defaults are filled in.
///
/// # Errors
/// InvalidParameter.
pub fn host_config(config: &ContainerConfig, host: &HostConfig) -> Result<()> {
    addresses(config, host)?;
    port_bindings(host)?;
    if !host.cgroup.is_empty() {
        return Err(Error::invalid(format!("invalid cgroup mode: {}", host.cgroup)));
    }
    tmpfs(&host.tmpfs)?;
    cpuset(&host.resources)?;
    let policy = &host.restart_policy;
    restart_policy(policy)?;
    if host.auto_remove && policy.name != "no" {
        return Err(Error::invalid("can't set 'AutoRemove' and 'RestartPolicy' at the same time"));
    }
    hibernate::check(&host.checkpoint_policy, host.auto_remove)?;
    schedule::check(&host.checkpoint_policy)?;
    drivers::validate(&host.log_config)?;
    if !matches!(host.isolation.as_str(), "" | "default") {
        return Err(Error::invalid(format!("invalid isolation '{}' on linux", host.isolation)));
    }
    if !host.storage_opt.is_empty() {
        return Err(Error::invalid(
            "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, and not by this version \
             of dewar",
        ));
    }
    if host.resources.cpu_realtime_period != 0 || host.resources.cpu_realtime_runtime != 0 {
        return Err(Error::invalid("Your kernel does not support CPU real-time scheduler"));
    }
    if host.shm_size < 0 {
        return Err(Error::invalid("SHM size can not be less than 0"));
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return Err(Error::invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        )));
    }
    match host.ipc_mode.as_str() {
        "private" | "shareable" | "host" | "none" => {}
        mode if mode.starts_with("container:") => {}
        mode => return Err(Error::invalid(format!("invalid IPC mode: {mode}"))),
    }
    match host.pid_mode.as_str() {
        "" | "host" => {}
        mode if mode.starts_with("container:") => {}
        mode => return Err(Error::invalid(format!("invalid PID mode: {mode}"))),
    }
    if !matches!(host.uts_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    if !matches!(host.cgroupns_mode.as_str(), "private" | "host") {
        return Err(Error::invalid(format!("invalid CgroupNS mode: {}", host.cgroupns_mode)));
    }
    if !matches!(host.userns_mode.as_str(), "" | "host") {
        return Err(Error::invalid(format!("invalid USER mode: {}", host.userns_mode)));
    }
    if host.resources.device_requests.as_ref().is_some_and(|requests| !requests.is_empty()) {
        return Err(Error::invalid("could not select device driver: this version of dewar has none"));
    }
    for key in host.sysctls.keys() {
        let is_ipc = key.starts_with("kernel.msg")
            || key.starts_with("kernel.sem")
            || key.starts_with("kernel.shm")
            || key.starts_with("fs.mqueue.");
        let is_net = key.starts_with("net.");
        if key.contains("..") || key.contains('/') || !(is_ipc || is_net) {
            return Err(Error::invalid(format!("sysctl \"{key}\" is not in a separate kernel namespace")));
        }
        if is_net && host.network_mode == "host" {
            return Err(Error::invalid(format!("sysctl \"{key}\" not allowed in host network namespace")));
        }
        if is_ipc && host.ipc_mode == "host" {
            return Err(Error::invalid(format!("sysctl \"{key}\" not allowed in host ipc namespace")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl Fn(&mut ContainerConfig, &mut HostConfig)) -> String {
        let (mut of, mut host) = (ContainerConfig::default(), HostConfig::default());
        host.network_mode = "none".to_owned();
        change(&mut of, &mut host);
        let checks = || -> Result<()> {
            config(&of)?;
            conflicts(&of, &host)?;
            addresses(&of, &host)?;
            tmpfs(&host.tmpfs)
        };
        checks().err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        assert_eq!(refused(|_, _| {}), "");
        assert!(
            refused(|config, _| config.working_dir = "rel".into()).contains("needs to be an absolute path")
        );
        assert_eq!(refused(|config, _| config.stop_signal = Some("BOGUS".into())), "Invalid signal: BOGUS");
        assert!(refused(|config, _| config.env = vec!["=x".into()]).contains("invalid environment variable"));
        assert!(refused(|config, _| config.hostname = "a".repeat(65)).contains("longer than 64"));
        assert!(refused(|config, _| config.mac_address = Some("x".into())).contains("not a valid mac"));
        assert_eq!(refused(|config, _| config.mac_address = Some("02:42:ac:11:00:0F".into())), "");
        assert!(refused(|_, host| host.dns = vec!["x".into()]).contains("not an ip address"));
        assert_eq!(refused(|_, host| host.extra_hosts = Some(vec!["gw:host-gateway".to_owned()])), "");
        for (entry, part) in [("db", "bad format"), ("db:x", "invalid IP")] {
            let text = refused(|_, host| host.extra_hosts = Some(vec![entry.to_owned()]));
            assert!(text.contains(part), "{text}");
        }
        let tmpfs = |options: &str| refused(|_, host| drop(host.tmpfs.insert("/t".into(), options.into())));
        assert_eq!(tmpfs("size=1m,mode=700,exec,uid=3"), "");
        assert_eq!(tmpfs("bogus=1"), "invalid tmpfs option \"bogus=1\"");
    }

    #[test]
    fn ports_are_numbers_of_a_protocol() {
        for good in ["80", "80/tcp", "53/UDP", "8000-8010/sctp"] {
            port_spec(good).unwrap();
        }
        for bad in ["", "x", "80/x", "80/", "/tcp", "70000", "-1", "90-80", "80:80"] {
            assert!(port_spec(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sets_of_processors_are_ranges() {
        assert_eq!(ranges("0-3,7"), Some(vec![(0, 3), (7, 7)]));
        for bad in ["", "x", "1-", "3-1", "0,,1", "9999999"] {
            assert_eq!(ranges(bad), None, "{bad}");
        }
        let set = |cpus: &str| cpuset(&Resources { cpuset_cpus: cpus.to_owned(), ..Resources::default() });
        assert!(set("").is_ok() && set("0").is_ok());
        assert!(set("8000").unwrap_err().message.starts_with("Requested CPUs are not available"));
    }

    #[test]
    fn modes_and_what_contradicts_them() {
        let conflict = |mode: &str, change: &dyn Fn(&mut ContainerConfig, &mut HostConfig)| {
            refused(|config, host| {
                host.network_mode = mode.to_owned();
                change(config, host);
            })
        };
        assert!(
            conflict("container:a", &|config, _| config.hostname = "x".into()).contains("the network mode")
        );
        assert!(conflict("container:a", &|_, host| host.dns = vec!["1.1.1.1".into()]).contains("dns and"));
        assert!(
            conflict("host", &|_, host| host.links = Some(vec!["x".into()])).contains("undefined behavior")
        );
        let text = conflict("none", &|config, host| {
            host.uts_mode = "host".into();
            config.hostname = "x".into();
        });
        assert_eq!(text, "conflicting options: hostname and the UTS mode");
    }
}
