//! Hosts: where the API is served, as text, and what it means.
//!
//! | written | means |
//! |---|---|
//! | `unix://[path]` | a unix socket, `/run/dewar.sock` without a path |
//! | `tcp://[host][:port]`, `host:port`, `:port` | TCP; localhost and 2375 (2376 with TLS) unless said |
//! | `fd://`, `fd://*` | every socket of socket activation |
//! | `fd://N`, `fd://NAME` | the one with this number (the first is 3), those with this name |
//!
//! Not here: what is allowed, and binding (`listeners`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// The port of Docker's API without and with TLS, as IANA lists them.
const PLAIN_PORT: u16 = 2375;
const TLS_PORT: u16 = 2376;
/// Where clients look first.
const DEFAULT_SOCKET: &str = "/run/dewar.sock";
/// Source: unix(7), sun_path is 108 bytes with its terminator.
const MAX_PATH: usize = 107;

/// A host that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Unix(PathBuf),
    /// Host name or address, and port; 0 lets the kernel choose one.
    Tcp(String, u16),
    Activated(Which),
}

/// Which sockets of socket activation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    All,
    Number(i32),
    Name(String),
}

impl Address {
    /// Parses one host; the error is the cause alone.
    pub fn parse(text: &str, has_tls: bool) -> Result<Address, String> {
        // Compat: without a scheme, tcp is meant.
        match text.split_once("://").unwrap_or(("tcp", text)) {
            ("unix", "") => Ok(Address::Unix(DEFAULT_SOCKET.into())),
            ("unix", path) if path.len() > MAX_PATH => Err(format!(
                "the path has {} bytes, the kernel allows {MAX_PATH}: choose a shorter one",
                path.len()
            )),
            ("unix", path) if path.starts_with('/') => Ok(Address::Unix(path.into())),
            ("unix", _) => Err("the path is not absolute".to_owned()),
            ("tcp", rest) => tcp(rest, if has_tls { TLS_PORT } else { PLAIN_PORT }),
            ("fd", "" | "*") => Ok(Address::Activated(Which::All)),
            ("fd", rest) => match rest.parse() {
                Ok(number) if number < 3 => Err("the first descriptor of socket activation is 3".to_owned()),
                Ok(number) => Ok(Address::Activated(Which::Number(number))),
                Err(_) => Ok(Address::Activated(Which::Name(rest.to_owned()))),
            },
            _ => Err("expected unix:///path, tcp://address:port or fd://".to_owned()),
        }
    }

    /// What a TCP host's name stands for, without asking anybody about `localhost`: a minimal host has no resolver.
    pub fn resolve(name: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
        if name == "localhost" {
            return Ok(vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)]);
        }
        let found: Vec<_> = (name, port).to_socket_addrs().map_err(|cause| cause.to_string())?.collect();
        if found.is_empty() { Err("the name has no address".to_owned()) } else { Ok(found) }
    }
}

fn tcp(rest: &str, default_port: u16) -> Result<Address, String> {
    let (name, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => match port.strip_prefix(':') {
            Some(port) => (v6, Some(port)),
            None if port.is_empty() => (v6, None),
            None => return Err("expected a port after the address".to_owned()),
        },
        Some(_) => return Err("invalid IPv6 address".to_owned()),
        None if rest.matches(':').count() > 1 => return Err("an IPv6 address stands in brackets".to_owned()),
        None => rest.split_once(':').map_or((rest, None), |(name, port)| (name, Some(port))),
    };
    if rest.contains('/') {
        return Err("tcp has no path".to_owned());
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte)) {
        return Err("invalid host name".to_owned());
    }
    let port = match port {
        None | Some("") => default_port,
        // u16::from_str would take a sign.
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            text.parse().map_err(|_| "invalid port".to_owned())?
        }
        Some(_) => return Err("invalid port".to_owned()),
    };
    Ok(Address::Tcp(if name.is_empty() { "localhost" } else { name }.to_owned(), port))
}

impl fmt::Display for Address {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(out, "unix://{}", path.display()),
            Address::Tcp(name, port) if name.contains(':') => write!(out, "tcp://[{name}]:{port}"),
            Address::Tcp(name, port) => write!(out, "tcp://{name}:{port}"),
            Address::Activated(Which::All) => write!(out, "fd://"),
            Address::Activated(Which::Number(number)) => write!(out, "fd://{number}"),
            Address::Activated(Which::Name(name)) => write!(out, "fd://{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_as_docker_writes_them() {
        for (text, tls, means) in [
            ("unix://", false, "unix:///run/dewar.sock"),
            ("unix:///a b", false, "unix:///a b"),
            ("tcp://", false, "tcp://localhost:2375"),
            ("tcp://", true, "tcp://localhost:2376"),
            ("tcp://:7777", false, "tcp://localhost:7777"),
            (":6666", false, "tcp://localhost:6666"),
            ("0.0.0.0:0", false, "tcp://0.0.0.0:0"),
            ("tcp://host.example", true, "tcp://host.example:2376"),
            ("tcp://[::1]", false, "tcp://[::1]:2375"),
            ("[::1]:5", false, "tcp://[::1]:5"),
            ("fd://", false, "fd://"),
            ("fd://*", false, "fd://"),
            ("fd://3", false, "fd://3"),
            ("fd://api.socket", false, "fd://api.socket"),
        ] {
            assert_eq!(Address::parse(text, tls).map(|a| a.to_string()).as_deref(), Ok(means), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_says_why() {
        let long = format!("unix:///{}", "a".repeat(107));
        for (text, part) in [
            (long.as_str(), "the path has 108 bytes, the kernel allows 107"),
            ("unix://relative", "not absolute"),
            ("http://x", "expected unix:///path"),
            ("npipe:////./pipe/docker", "expected unix:///path"),
            ("tcp://h:70000", "invalid port"),
            ("tcp://h:+1", "invalid port"),
            ("tcp://h:1/path", "no path"),
            ("tcp://::1", "in brackets"),
            ("tcp://[::1", "in brackets"),
            ("tcp://[x]:1", "invalid IPv6"),
            ("tcp://[::1]x", "expected a port"),
            ("tcp://a b", "invalid host name"),
            ("fd://2", "the first descriptor"),
        ] {
            let error = Address::parse(text, false).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
