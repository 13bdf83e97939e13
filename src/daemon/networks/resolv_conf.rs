//! The host's resolv.conf: whom it asks, and how.
//!
//! Source: resolv.conf(5); Docker's reading of it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Where systemd-resolved writes the servers that its stub asks.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";
/// systemd-resolved's stub.
const STUB: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53));

/// A file's content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvConf {
    /// Where it was read.
    pub path: PathBuf,
    pub servers: Vec<Server>,
    pub search: Vec<String>,
    pub options: Vec<String>,
    /// Lines with other keywords.
    pub other: Vec<String>,
    /// What stands where an address should.
    pub invalid: Vec<String>,
}

/// A `nameserver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub address: IpAddr,
    /// The interface behind the `%` of a link-local address; empty for none.
    pub interface: String,
}

impl From<IpAddr> for Server {
    fn from(address: IpAddr) -> Server {
        Server { address, interface: String::new() }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = if self.interface.is_empty() { "" } else { "%" };
        write!(f, "{}{percent}{}", self.address, self.interface)
    }
}

impl std::str::FromStr for Server {
    type Err = ();

    fn from_str(text: &str) -> Result<Server, ()> {
        match text.split_once('%') {
            Some((address, interface)) if !interface.is_empty() && !interface.contains('/') => {
                let address: Ipv6Addr = address.parse().map_err(drop)?;
                Ok(Server { address: address.into(), interface: interface.to_owned() })
            }
            _ => text.parse::<IpAddr>().map(Server::from).map_err(drop),
        }
    }
}

impl ResolvConf {
    /// Reads `path`, or what is behind it when it names systemd-resolved's stub alone; a file that is not there
    /// says nothing.
    pub fn read(path: &Path) -> ResolvConf {
        let read = |path: &Path| {
            let text = fs::read(path).unwrap_or_default();
            ResolvConf { path: path.to_owned(), ..ResolvConf::parse(&String::from_utf8_lossy(&text)) }
        };
        let found = read(path);
        let is_stub = matches!(&found.servers[..], [only] if only.address == STUB);
        if is_stub && Path::new(BEHIND_STUB).exists() { read(Path::new(BEHIND_STUB)) } else { found }
    }

    fn parse(text: &str) -> ResolvConf {
        let mut conf = ResolvConf::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let Some(keyword) = words.next().filter(|word| !word.starts_with(['#', ';'])) else { continue };
            let rest: Vec<String> = words.map(str::to_owned).collect();
            match keyword {
                "nameserver" | "domain" | "search" | "options" if rest.is_empty() => {}
                "nameserver" => match rest[0].parse() {
                    Ok(server) => conf.servers.push(server),
                    Err(()) => conf.invalid.push(rest[0].clone()),
                },
                // The last of them counts; `domain` is its old name.
                "domain" | "search" => conf.search = rest,
                "options" => conf.options.extend(rest),
                _ => conf.other.push(line.to_owned()),
            }
        }
        conf
    }

    /// Whether an option of this name is set.
    pub fn has_option(&self, name: &str) -> bool {
        self.options.iter().any(|option| option.split(':').next() == Some(name))
    }
}

/// Whom Docker asks when the host names nobody.
pub fn fallback(is_ipv6: bool) -> Vec<Server> {
    let four = [Ipv4Addr::new(8, 8, 8, 8), Ipv4Addr::new(8, 8, 4, 4)].map(IpAddr::from);
    let six = [0x8888, 0x8844].map(|last| Ipv6Addr::new(0x2001, 0x4860, 0x4860, 0, 0, 0, 0, last).into());
    four.into_iter().chain(six.into_iter().filter(|_| is_ipv6)).map(Server::from).collect()
}

/// A file that is read anew when it has changed.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    /// Of the file read last, and of the one behind it.
    stamps: [Option<(SystemTime, u64)>; 2],
    content: ResolvConf,
}

impl Watched {
    pub fn new(path: PathBuf) -> Watched {
        Watched { path, stamps: [None; 2], content: ResolvConf::default() }
    }

    /// The content as it is now; two stats when nothing has changed.
    pub fn content(&mut self) -> &ResolvConf {
        use std::os::unix::fs::MetadataExt;
        let stamp = |path: &Path| -> io::Result<_> {
            let metadata = fs::metadata(path)?;
            Ok((metadata.modified()?, metadata.ino()))
        };
        let stamps = [stamp(&self.path).ok(), stamp(Path::new(BEHIND_STUB)).ok()];
        if stamps != self.stamps || self.content.path.as_os_str().is_empty() {
            self.content = ResolvConf::read(&self.path);
            self.stamps = stamps;
        }
        &self.content
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_understood() {
        let text = "# x\n; y\nnameserver 10.0.0.1 \nnameserver\nnameserver fe80::1%eth0\nnameserver nobody\n\
                    nameserver 1.2.3.4%eth0\ndomain old.example\nsearch a.example b.example\noptions ndots:2 \
                    edns0\noptions rotate\nsortlist 10.0.0.0\n";
        let conf = ResolvConf::parse(text);
        let servers: Vec<String> = conf.servers.iter().map(Server::to_string).collect();
        assert_eq!(servers, ["10.0.0.1", "fe80::1%eth0"]);
        assert_eq!(conf.invalid, ["nobody", "1.2.3.4%eth0"]);
        assert_eq!(conf.search, ["a.example", "b.example"]);
        assert_eq!(conf.options, ["ndots:2", "edns0", "rotate"]);
        assert_eq!(conf.other, ["sortlist 10.0.0.0"]);
        assert!(conf.has_option("ndots") && conf.has_option("rotate") && !conf.has_option("edns"));
    }

    #[test]
    fn a_changed_file_is_read_anew() {
        let path = std::env::temp_dir().join(format!("dewar-resolv-{}", std::process::id()));
        let mut watched = Watched::new(path.clone());
        assert!(watched.content().servers.is_empty());
        for address in ["10.0.0.1", "10.0.0.2"] {
            // As editors and DHCP clients do.
            fs::write(path.with_extension("new"), format!("nameserver {address}\n")).unwrap();
            fs::rename(path.with_extension("new"), &path).unwrap();
            assert_eq!(watched.content().servers, [Server::from(address.parse::<IpAddr>().unwrap())]);
        }
        fs::remove_file(&path).unwrap();
        assert!(watched.content().servers.is_empty());
    }
}
