//! The files dewar writes for a container: hostname, hosts, resolv.conf.

use std::net::IpAddr;
use std::path::Path;

use super::container::Record;
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::{Durability, replace};

/// What every container's hosts file begins with. Source: Docker.
const HOSTS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// What the files say of the container's networks.
#[derive(Debug, Default)]
pub struct Network {
    /// Addresses and their names: its own, and those of its links.
    pub hosts: Vec<(IpAddr, Vec<String>)>,
    /// What `host-gateway` means.
    pub gateways: Vec<IpAddr>,
    /// Names are ours to answer, at 127.0.0.11.
    pub has_server: bool,
}

/// Writes the three files into the container's directory; each start does it anew.
pub fn write(dir: &Path, record: &Record, network: &Network) -> Result<()> {
    for (file, content) in contents(record, network)? {
        // Made again at the next start: nothing to sync.
        replace(&dir.join(file), content.as_bytes(), 0o644, Durability::Renamed)?;
    }
    Ok(())
}

/// Writes them for a container that runs, and has them mounted: in place.
pub fn rewrite(dir: &Path, record: &Record, network: &Network) -> Result<()> {
    for (file, content) in contents(record, network)? {
        let path = dir.join(file);
        std::fs::write(&path, content).map_err(|cause| Error::system(format!("write {path:?}"), cause))?;
    }
    Ok(())
}

fn contents(record: &Record, network: &Network) -> Result<[(&'static str, String); 3]> {
    let is_host = record.host_config.network_mode == "host";
    let host_file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut hosts = if is_host { host_file("/etc/hosts") } else { HOSTS.to_owned() };
    for entry in record.host_config.extra_hosts.iter().flatten() {
        let (name, address) = entry
            .split_once(':')
            .ok_or_else(|| Error::invalid(format!("bad format for add-host: {entry:?}")))?;
        if address == "host-gateway" {
            if network.gateways.is_empty() {
                return Err(Error::invalid(format!(
                    "unable to derive the IP value for host-gateway of {name:?}"
                )));
            }
            for address in &network.gateways {
                hosts.push_str(&format!("{address}\t{name}\n"));
            }
        } else {
            hosts.push_str(&format!("{address}\t{name}\n"));
        }
    }
    for (address, names) in &network.hosts {
        hosts.push_str(&format!("{address}\t{}\n", names.join(" ")));
    }
    let mut resolv = resolv_conf(&host_file("/etc/resolv.conf"), record);
    if network.has_server {
        let others = resolv.lines().filter(|line| !line.starts_with("nameserver"));
        resolv = format!("nameserver 127.0.0.11\n{}\n", others.collect::<Vec<_>>().join("\n"));
        if !resolv.contains("ndots:") {
            resolv.push_str("options ndots:0\n");
        }
    }
    let hostname = format!("{}\n", record.config.hostname);
    Ok([("hostname", hostname), ("hosts", hosts), ("resolv.conf", resolv)])
}

/// The host's resolv.conf with what the caller asked for in place of each kind of line.
fn resolv_conf(host: &str, record: &Record) -> String {
    let asked = &record.host_config;
    let mut text = String::new();
    let kept = |keyword: &str, replaced: bool| {
        host.lines()
            .filter(move |line| !replaced && line.split_ascii_whitespace().next() == Some(keyword))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    text.push_str(&kept("nameserver", !asked.dns.is_empty()));
    for server in &asked.dns {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text.push_str(&kept("search", !asked.dns_search.is_empty()));
    // Source: resolv.conf(5); "." alone asks for no search list.
    if !asked.dns_search.is_empty() && asked.dns_search != ["."] {
        text.push_str(&format!("search {}\n", asked.dns_search.join(" ")));
    }
    text.push_str(&kept("options", !asked.dns_options.is_empty()));
    if !asked.dns_options.is_empty() {
        text.push_str(&format!("options {}\n", asked.dns_options.join(" ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_resolver_is_kept_unless_another_is_asked_for() {
        let host = "# x\nnameserver 10.0.0.1\nsearch a.example\noptions ndots:2\n";
        let mut record = Record::default();
        assert_eq!(resolv_conf(host, &record), "nameserver 10.0.0.1\nsearch a.example\noptions ndots:2\n");
        record.host_config.dns = vec!["9.9.9.9".to_owned()];
        record.host_config.dns_search = vec![".".to_owned()];
        assert_eq!(resolv_conf(host, &record), "nameserver 9.9.9.9\noptions ndots:2\n");
    }
}
