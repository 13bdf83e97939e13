//! The files dewar writes for a container: hostname, hosts, resolv.conf.
//!
//! They are mounted into the container, which may write to them: each start makes them anew, and what changes
//! while it runs is written in place, around what the container has made of them. A copy of what was written
//! last, beside each, tells the two apart.

use std::fs;
use std::io::{self, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::container::Record;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::dns;
use crate::daemon::networks::resolv_conf::{ResolvConf, Server, fallback};
use crate::daemon::state_dir::{Durability, replace};
use crate::http::api::container::ContainerConfig;

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// A hosts file bigger than this, in bytes, is the container's own affair.
const BIG: u64 = 1 << 20;
const FILES: [&str; 3] = ["hostname", "hosts", "resolv.conf"];

/// What hosts files begin with. Source: Docker.
const HOSTS: &str = "127.0.0.1\tlocalhost\n";
const HOSTS_IPV6: &str = "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// What the files say of the container's networks.
#[derive(Debug, Default)]
pub struct Network {
    /// Addresses and their names: those of its links, and its own.
    pub hosts: Vec<(IpAddr, Vec<String>)>,
    /// What `host-gateway` means.
    pub gateways: Vec<IpAddr>,
    /// Names are ours to answer, at 127.0.0.11.
    pub has_server: bool,
}

/// What a container's own addresses are called in its hosts file: the whole name, and its first part.
pub fn own_names(config: &ContainerConfig) -> Vec<String> {
    let mut whole = config.hostname.clone();
    if !config.domainname.is_empty() {
        whole = format!("{whole}.{}", config.domainname);
    }
    let first = whole.split_once('.').map(|(first, _)| first.to_owned());
    std::iter::once(whole).chain(first).filter(|name| !name.is_empty()).collect()
}

/// Whether the container's resolv.conf sets `ndots` where its network does not: names without dots are then not
/// to be asked for elsewhere before the search list was tried.
pub fn has_ndots(record: &Record) -> bool {
    let mut conf = ResolvConf::read(Path::new(RESOLV_CONF));
    let asked = &record.host_config.dns_options;
    if !asked.is_empty() {
        conf.options.clone_from(asked);
    }
    conf.has_option("ndots")
}

/// Writes the three files into the container's directory; each start does it anew.
///
/// # Errors
/// InvalidParameter for a `host-gateway` that means nothing; System.
pub fn write(dir: &Path, record: &Record, network: &Network) -> Result<()> {
    for (file, content) in contents(record, network)? {
        write_anew(&dir.join(file), &content, 0o644)?;
        remember(dir, file, &content)?;
    }
    Ok(())
}

/// Replaces a file unless it is just that already, as after most stops: making files is what takes time here.
fn write_anew(path: &Path, content: &str, mode: u32) -> Result<()> {
    // Made again at the next start: nothing to sync.
    if is(path, content, mode) {
        Ok(())
    } else {
        replace(path, content.as_bytes(), mode, Durability::Renamed)
    }
}

/// Whether there is this file, as we make it. A container may do to the one it sees whatever its root can.
fn is(path: &Path, content: &str, mode: u32) -> bool {
    let Ok(meta) = fs::symlink_metadata(path) else { return false };
    let is_ours = meta.is_file() && (meta.uid(), meta.gid(), meta.nlink()) == (0, 0, 1);
    is_ours
        && meta.mode() & 0o7777 == mode
        && meta.len() == content.len() as u64
        && fs::read(path).is_ok_and(|is| is == content.as_bytes())
}

/// Brings the files of a container that runs up to date: in place, because they are mounted. In hosts, lines come
/// and go around those of the container's own; its resolv.conf is left alone once it has changed that.
///
/// # Errors
/// As [`write`].
pub fn rewrite(dir: &Path, record: &Record, network: &Network) -> Result<()> {
    for (file, wanted) in contents(record, network)? {
        let path = dir.join(file);
        let written = fs::read_to_string(kept(dir, file)).unwrap_or_default();
        let failed = |cause: io::Error| Error::system(format!("bring {path:?} up to date"), cause);
        if fs::metadata(&path).map_err(failed)?.len() > BIG {
            continue;
        }
        let now = fs::read(&path).map_err(failed)?;
        let now = String::from_utf8_lossy(&now);
        let is_untouched = now == written;
        let content = match file {
            "hosts" if !is_untouched => merged(&now, &written, &wanted),
            _ if is_untouched => wanted.clone(),
            _ => continue,
        };
        write_in_place(&path, &content).map_err(failed)?;
        remember(dir, file, &wanted)?;
    }
    Ok(())
}

fn kept(dir: &Path, file: &str) -> PathBuf {
    dir.join(format!("{file}.written"))
}

fn remember(dir: &Path, file: &str, content: &str) -> Result<()> {
    // Nobody changes the container's name while it runs.
    if file == "hostname" {
        return Ok(());
    }
    write_anew(&kept(dir, file), content, 0o600)
}

/// Replaces a file's content so that whoever reads it meanwhile sees no empty one.
fn write_in_place(path: &Path, content: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(content.as_bytes())?;
    file.set_len(content.len() as u64)
}

/// `now` without the lines that were ours and are wanted no longer, and with those that are wanted anew.
fn merged(now: &str, written: &str, wanted: &str) -> String {
    let has = |text: &str, line: &str| text.lines().any(|other| other == line);
    let stays = |line: &&str| !has(written, line) || has(wanted, line);
    let comes = |line: &&str| !has(written, line) && !has(now, line);
    let lines = now.lines().filter(stays).chain(wanted.lines().filter(comes));
    lines.map(|line| format!("{line}\n")).collect()
}

fn contents(record: &Record, network: &Network) -> Result<[(&'static str, String); 3]> {
    let conf = ResolvConf::read(Path::new(RESOLV_CONF));
    let hostname = format!("{}\n", record.config.hostname);
    let contents = [hostname, hosts(record, network)?, resolv_conf(conf, record, network)];
    let mut files = FILES.into_iter();
    Ok(contents.map(|content| (files.next().unwrap_or_default(), content)))
}

fn hosts(record: &Record, network: &Network) -> Result<String> {
    let asked = &record.host_config;
    let sysctl = |name: &str| asked.sysctls.get(&format!("net.ipv6.conf.{name}.disable_ipv6"));
    let is_without_ipv6 =
        ["all", "lo"].iter().any(|name| sysctl(name).is_some_and(|value| value.trim() == "1"));
    let mut text = match asked.network_mode.as_str() {
        "host" => fs::read_to_string("/etc/hosts").unwrap_or_default(),
        _ if is_without_ipv6 => HOSTS.to_owned(),
        _ => format!("{HOSTS}{HOSTS_IPV6}"),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut add = |address: &str, names: &str| text.push_str(&format!("{address}\t{names}\n"));
    for entry in asked.extra_hosts.iter().flatten() {
        let (name, address) = entry
            .split_once(':')
            .ok_or_else(|| Error::invalid(format!("bad format for add-host: {entry:?}")))?;
        match address {
            "host-gateway" if network.gateways.is_empty() => {
                return Err(Error::invalid("unable to derive the IP value for host-gateway"));
            }
            "host-gateway" => network.gateways.iter().for_each(|address| add(&address.to_string(), name)),
            _ => add(address.trim_start_matches('[').trim_end_matches(']'), name),
        }
    }
    for (address, names) in &network.hosts {
        if !(is_without_ipv6 && address.is_ipv6()) {
            add(&address.to_string(), &names.join(" "));
        }
    }
    Ok(text)
}

/// The host's resolv.conf with what the caller asked for in place of each kind of line, made fit for where the
/// container is.
///
/// Source: Docker's rules (its `resolvconf` package).
fn resolv_conf(mut conf: ResolvConf, record: &Record, network: &Network) -> String {
    let asked = &record.host_config;
    let mut overrides = Vec::new();
    if !asked.dns.is_empty() {
        conf.servers = asked.dns.iter().filter_map(|server| server.parse().ok()).collect();
        overrides.push("nameservers");
    }
    if !asked.dns_search.is_empty() {
        // Source: resolv.conf(5); "." alone asks for no search list.
        conf.search = asked.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
        overrides.push("search");
    }
    if !asked.dns_options.is_empty() {
        conf.options.clone_from(&asked.dns_options);
        overrides.push("options");
    }
    let is_ipv6 = network.hosts.iter().any(|(address, _)| address.is_ipv6());
    let mut comments = String::new();
    if network.has_server {
        let is_only_hosts = |server: &Server| {
            let address = server.address;
            asked.dns.is_empty()
                && (address.is_loopback() || !server.interface.is_empty() || address.is_ipv6() && !is_ipv6)
        };
        let is_fallback = conf.servers.is_empty();
        let servers = if is_fallback { fallback(is_ipv6) } else { std::mem::take(&mut conf.servers) };
        let named: Vec<String> = servers
            .iter()
            .map(|server| if is_only_hosts(server) { format!("host({server})") } else { server.to_string() })
            .collect();
        conf.servers = vec![IpAddr::from(dns::ADDRESS).into()];
        conf.options
            .retain(|option| option.strip_prefix("ndots:").is_none_or(|value| value.parse::<u8>().is_ok()));
        let ndots = match (conf.has_option("ndots"), asked.dns_options.is_empty()) {
            (false, _) => "internal",
            (true, true) => "host",
            (true, false) => "override",
        };
        if ndots == "internal" {
            conf.options.push("ndots:0".to_owned());
        }
        comments = format!("\n# Based on host file: '{}' (internal resolver)\n", conf.path.display());
        if is_fallback {
            comments.push_str("# Used default nameservers.\n");
        }
        comments.push_str(&format!(
            "# ExtServers: [{}]\n# Overrides: [{}]\n# Option ndots from: {ndots}\n",
            named.join(" "),
            overrides.join(" ")
        ));
    } else if asked.network_mode != "host" && asked.dns.is_empty() {
        // The host's loopback is not the container's.
        conf.servers.retain(|server| !server.address.is_loopback() && (is_ipv6 || server.address.is_ipv4()));
        if conf.servers.is_empty() {
            conf.servers = fallback(is_ipv6);
        }
    }
    let mut text: String = conf.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    for (keyword, words) in [("search", &conf.search), ("options", &conf.options)] {
        if !words.is_empty() {
            text.push_str(&format!("{keyword} {}\n", words.join(" ")));
        }
    }
    conf.other.iter().for_each(|line| text.push_str(&format!("{line}\n")));
    text + &comments
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn host(text: &str) -> ResolvConf {
        let path = std::env::temp_dir().join(format!("dewar-files-{}-{}", std::process::id(), text.len()));
        fs::write(&path, text).unwrap();
        let conf = ResolvConf::read(&path);
        fs::remove_file(&path).unwrap();
        ResolvConf { path: RESOLV_CONF.into(), ..conf }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn own(text: &str) -> (IpAddr, Vec<String>) {
        (ip(text), vec!["web".to_owned()])
    }

    #[test]
    fn a_file_that_is_as_it_would_be_made_is_left() {
        let path = std::env::temp_dir().join(format!("dewar-files-anew-{}", std::process::id()));
        let inode = || fs::metadata(&path).unwrap().ino();
        write_anew(&path, "a", 0o644).unwrap();
        let first = inode();
        write_anew(&path, "a", 0o644).unwrap();
        assert_eq!(inode(), first);
        // What the root of a container can do to it.
        let spoil: [&dyn Fn(); 4] = [
            &|| fs::write(&path, "b").unwrap(),
            &|| fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap(),
            &|| std::os::unix::fs::chown(&path, Some(1), None).unwrap(),
            &|| fs::write(&path, "longer").unwrap(),
        ];
        for spoil in spoil {
            spoil();
            write_anew(&path, "a", 0o644).unwrap();
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(
                (fs::read(&path).unwrap().as_slice(), meta.mode() & 0o7777, meta.uid()),
                (&b"a"[..], 0o644, 0)
            );
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_hosts_resolver_is_kept_unless_another_is_asked_for() {
        let conf = host("# x\nnameserver 10.0.0.1\nsearch a.example\noptions ndots:2\n");
        let mut record = Record::default();
        let network = Network::default();
        let made = |record: &Record| resolv_conf(conf.clone(), record, &network);
        assert_eq!(made(&record), "nameserver 10.0.0.1\nsearch a.example\noptions ndots:2\n");
        record.host_config.dns = vec!["9.9.9.9".to_owned()];
        record.host_config.dns_search = vec![".".to_owned()];
        assert_eq!(made(&record), "nameserver 9.9.9.9\noptions ndots:2\n");
    }

    #[test]
    fn a_container_is_not_sent_to_its_own_loopback() {
        let conf = host("nameserver 127.0.0.1\nnameserver 10.0.0.1\nnameserver fd00::1\n");
        let mut record = Record::default();
        let four = Network { hosts: vec![own("172.17.0.2")], ..Network::default() };
        let both = Network { hosts: vec![own("172.17.0.2"), own("fd00::2")], ..Network::default() };
        assert_eq!(resolv_conf(conf.clone(), &record, &four), "nameserver 10.0.0.1\n");
        assert_eq!(resolv_conf(conf.clone(), &record, &both), "nameserver 10.0.0.1\nnameserver fd00::1\n");
        let stub = host("nameserver 127.0.0.1\n");
        let wanted = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";
        assert_eq!(resolv_conf(stub.clone(), &record, &four), wanted);
        assert_eq!(resolv_conf(ResolvConf::default(), &record, &four), wanted);
        record.host_config.dns = vec!["127.0.0.1".to_owned()];
        assert_eq!(resolv_conf(conf.clone(), &record, &four), "nameserver 127.0.0.1\n", "as asked");
        record.host_config = Default::default();
        record.host_config.network_mode = "host".to_owned();
        assert_eq!(resolv_conf(stub, &record, &Network::default()), "nameserver 127.0.0.1\n");
    }

    #[test]
    fn networks_with_names_have_our_server() {
        let network = Network { has_server: true, hosts: vec![own("172.18.0.2")], ..Network::default() };
        let mut record = Record::default();
        let conf = host("nameserver 127.0.0.1\nnameserver 10.0.0.1\nsearch a.example\n");
        assert_eq!(
            resolv_conf(conf.clone(), &record, &network),
            "nameserver 127.0.0.11\nsearch a.example\noptions ndots:0\n\n\
             # Based on host file: '/etc/resolv.conf' (internal resolver)\n\
             # ExtServers: [host(127.0.0.1) 10.0.0.1]\n# Overrides: []\n# Option ndots from: internal\n"
        );
        record.host_config.dns = vec!["127.0.0.1".to_owned()];
        record.host_config.dns_options = vec!["ndots:3".to_owned(), "edns0".to_owned()];
        let made = resolv_conf(conf.clone(), &record, &network);
        assert!(
            made.starts_with("nameserver 127.0.0.11\nsearch a.example\noptions ndots:3 edns0\n"),
            "{made}"
        );
        assert!(
            made.ends_with(
                "[127.0.0.1]\n# Overrides: [nameservers options]\n# Option ndots from: override\n"
            )
        );
        assert!(has_ndots(&record));
        record.host_config.dns_options = vec!["ndots:-1".to_owned()];
        let made = resolv_conf(conf, &record, &network);
        assert!(made.contains("options ndots:0\n"), "{made}");
    }

    #[test]
    fn hosts_has_a_line_for_each_address() {
        let mut record = Record::default();
        record.config.hostname = "web".to_owned();
        record.config.domainname = "a.example".to_owned();
        assert_eq!(own_names(&record.config), ["web.a.example", "web"]);
        let names = own_names(&record.config);
        record.host_config.extra_hosts =
            Some(["db:10.0.0.1", "six:[fd00::9]", "gw:host-gateway"].map(str::to_owned).to_vec());
        let mut network = Network {
            hosts: vec![(ip("172.18.0.2"), names.clone()), (ip("fd00::2"), names)],
            gateways: vec![ip("172.17.0.1")],
            has_server: true,
        };
        assert_eq!(
            hosts(&record, &network).unwrap(),
            format!(
                "{HOSTS}{HOSTS_IPV6}10.0.0.1\tdb\nfd00::9\tsix\n172.17.0.1\tgw\n\
                 172.18.0.2\tweb.a.example web\nfd00::2\tweb.a.example web\n"
            )
        );
        record.host_config.sysctls.insert("net.ipv6.conf.all.disable_ipv6".to_owned(), "1".to_owned());
        let without = hosts(&record, &network).unwrap();
        assert!(without.starts_with("127.0.0.1\tlocalhost\n10.0.0.1\tdb\n") && !without.contains("fd00::2"));
        network.gateways.clear();
        assert!(hosts(&record, &network).unwrap_err().message.contains("host-gateway"));
    }

    #[test]
    fn what_runs_keeps_its_files_and_what_it_wrote_into_them() {
        let dir = std::env::temp_dir().join(format!("dewar-files-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut record = Record::default();
        record.config.hostname = "web".to_owned();
        record.host_config.dns = vec!["9.9.9.9".to_owned()];
        let network = |addresses: &[&str]| Network {
            hosts: addresses.iter().map(|text| own(text)).collect(),
            has_server: true,
            ..Network::default()
        };
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
        write(&dir, &record, &network(&["10.1.0.2", "10.2.0.2"])).unwrap();
        let inode = |dir: &Path, file| fs::metadata(dir.join(file)).unwrap().ino();
        let before = FILES.map(|file| inode(&dir, file));
        // Nobody wrote: all is as if written anew.
        rewrite(&dir, &record, &network(&["10.1.0.2"])).unwrap();
        assert_eq!(read("hosts"), format!("{HOSTS}{HOSTS_IPV6}10.1.0.2\tweb\n"), "shorter, without a rest");
        record.host_config.dns = vec!["9.9.9.8".to_owned()];
        rewrite(&dir, &record, &network(&["10.1.0.2", "10.3.0.2"])).unwrap();
        assert!(read("resolv.conf").contains("9.9.9.8"));
        // The container has written.
        fs::write(dir.join("hosts"), format!("# mine\n10.9.9.9 x\n{}", read("hosts").replace("::1", "::2")))
            .unwrap();
        fs::write(dir.join("resolv.conf"), "nameserver 1.1.1.1\n").unwrap();
        for _ in 0..2 {
            rewrite(&dir, &record, &network(&["10.3.0.2", "10.4.0.2"])).unwrap();
            let wanted = format!(
                "# mine\n10.9.9.9 x\n{HOSTS}{}10.3.0.2\tweb\n10.4.0.2\tweb\n",
                HOSTS_IPV6.replace("::1", "::2")
            );
            assert_eq!(read("hosts"), wanted);
            assert_eq!(read("resolv.conf"), "nameserver 1.1.1.1\n");
        }
        assert_eq!(FILES.map(|file| inode(&dir, file)), before, "the mounted files");
        fs::remove_dir_all(&dir).unwrap();
    }
}
