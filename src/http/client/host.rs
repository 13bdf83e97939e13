//! Hosts, as a client writes them.

use std::fmt;
use std::path::PathBuf;

use super::ssh::Ssh;

/// The port of `tcp://host` without one.
const DEFAULT_PORT: u16 = 2375;
const DEFAULT_TLS_PORT: u16 = 2376;

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Unix(PathBuf),
    /// Host name or address, and port.
    Tcp(String, u16),
    /// The daemon of another machine, as its own client reaches it.
    Ssh(Ssh),
}

impl Host {
    /// Parses `unix:///run/dewar.sock`, `tcp://127.0.0.1:2375` or `ssh://me@far`; the error is for the user.
    pub fn parse(text: &str) -> Result<Host, String> {
        Host::parse_with(text, DEFAULT_PORT)
    }

    /// The same, where tcp is to mean TLS.
    pub fn parse_tls(text: &str) -> Result<Host, String> {
        Host::parse_with(text, DEFAULT_TLS_PORT)
    }

    fn parse_with(text: &str, default_port: u16) -> Result<Host, String> {
        let invalid = |cause: &str| Err(format!("parse host {text:?}: {cause}"));
        // Compat: without a scheme, tcp is meant.
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        match scheme {
            "unix" if rest.starts_with('/') => Ok(Host::Unix(PathBuf::from(rest))),
            "unix" => invalid("the socket's path is not absolute"),
            "tcp" => {
                let rest = rest.strip_suffix('/').unwrap_or(rest);
                // The colons of a bare IPv6 address are not a port's.
                let (name, port) = match rest.rsplit_once(':') {
                    Some((name, port)) if !port.ends_with(']') => match port.parse() {
                        Ok(port) => (name, port),
                        Err(_) => return invalid("invalid port"),
                    },
                    _ => (rest, default_port),
                };
                let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
                let is_plain = |name: &str| {
                    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
                };
                match inner {
                    Some(v6) if v6.parse::<std::net::Ipv6Addr>().is_ok() => {
                        Ok(Host::Tcp(v6.to_owned(), port))
                    }
                    None if is_plain(name) => Ok(Host::Tcp(name.to_owned(), port)),
                    _ => invalid("invalid host name"),
                }
            }
            "ssh" => Ssh::parse(rest).map(Host::Ssh).or_else(invalid),
            _ => Err(format!("invalid bind address format: {text}")),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Unix(path) => write!(out, "unix://{}", path.display()),
            Host::Tcp(name, port) if name.contains(':') => write!(out, "tcp://[{name}]:{port}"),
            Host::Tcp(name, port) => write!(out, "tcp://{name}:{port}"),
            Host::Ssh(ssh) => ssh.fmt(out),
        }
    }
}
