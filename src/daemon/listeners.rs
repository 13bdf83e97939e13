//! The sockets the API is served on: bound early, so that a second daemon fails at once and clients queue while
//! the first one starts; served last.
//!
//! Whoever can connect is root. A unix socket admits root and its group; TCP needs verified client certificates, or
//! a loopback address and `--insecure-tcp`, whoever bound it.

pub mod activation;
mod host;
mod unix;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;

use super::config::Config;
use super::error::{Error, Result};
use crate::http::server::Listener;
use activation::Activated;
use host::Address;

/// How many connections wait while the daemon starts or is busy; the kernel's own limit may be lower.
const BACKLOG: i32 = 1024;

/// The bound sockets, and the socket files to remove at the end.
#[derive(Default)]
pub struct Bound {
    pub listeners: Vec<Listener>,
    /// Where they listen, for the log.
    pub places: Vec<String>,
    /// Only those made here: the file of an activated socket belongs to whoever made it.
    files: Vec<PathBuf>,
}

impl Drop for Bound {
    /// A daemon that fails while it starts leaves no socket that nobody answers.
    fn drop(&mut self) {
        self.remove_files();
    }
}

impl Bound {
    /// The socket files.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Removes the socket files; those that are gone already are fine.
    pub fn remove_files(&mut self) {
        for file in self.files.drain(..) {
            if let Err(cause) = std::fs::remove_file(&file)
                && cause.kind() != ErrorKind::NotFound
            {
                log::warn!("remove socket {file:?}: {cause}");
            }
        }
    }
}

/// Checks every host of the configuration without binding it.
///
/// # Errors
/// InvalidParameter for an address that does not parse or is not allowed.
pub fn check(config: &Config) -> Result<()> {
    for address in addresses(config)? {
        if let Address::Tcp(name, port) = &address {
            resolve(config, &address, name, *port)?;
        }
    }
    Ok(())
}

/// Binds every host of the configuration, with what socket activation has passed.
///
/// # Errors
/// As [`check`]; Conflict when another process listens there; NotFound when nothing was passed; System for the rest.
pub fn bind(config: &Config, mut activated: Activated) -> Result<Bound> {
    let mut bound = Bound::default();
    for address in addresses(config)? {
        let during = |error: Error| error.during(format!("listen on \"{address}\""));
        match &address {
            Address::Unix(path) => {
                let listener = unix::bind(path, config.group.as_deref())?;
                bound.files.push(path.clone());
                bound.places.push(address.to_string());
                bound.listeners.push(Listener::Unix(listener));
            }
            Address::Tcp(name, port) => {
                let listener = bind_tcp(&resolve(config, &address, name, *port)?).map_err(during)?;
                // Port 0 has become a real one.
                bound.places.push(
                    listener.local_addr().map_or_else(|_| address.to_string(), |a| format!("tcp://{a}")),
                );
                bound.listeners.push(Listener::Tcp(listener));
            }
            Address::Activated(which) => {
                for (number, listener) in activated.claim(which).map_err(during)? {
                    if let Listener::Tcp(listener) = &listener {
                        let local = listener
                            .local_addr()
                            .map_err(|cause| during(Error::system("getsockname", cause)))?;
                        allow(config, &[local]).map_err(|error| during(Error::invalid(error)))?;
                    }
                    bound.places.push(format!("fd://{number}"));
                    bound.listeners.push(listener);
                }
            }
        }
    }
    activated.close_rest();
    for listener in &bound.listeners {
        rustix::net::listen(listener.as_fd(), BACKLOG).map_err(|errno| Error::system("listen", errno))?;
    }
    Ok(bound)
}

/// The configured hosts in order, each once.
fn addresses(config: &Config) -> Result<Vec<Address>> {
    let mut addresses = Vec::new();
    for host in &config.hosts {
        let host = host.trim();
        let address = Address::parse(if host.is_empty() { "unix://" } else { host }, false)
            .map_err(|why| Error::invalid(format!("listen on {host:?}: {why}")))?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

fn resolve(config: &Config, address: &Address, name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    let invalid = |why: String| Error::invalid(format!("listen on \"{address}\": {why}"));
    let found = Address::resolve(name, port).map_err(invalid)?;
    allow(config, &found).map_err(invalid)?;
    Ok(found)
}

/// Whether TCP may be served there; the error says what would allow it.
fn allow(config: &Config, addresses: &[SocketAddr]) -> Result<(), String> {
    if !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err("only loopback addresses are served without TLS".to_owned());
    }
    if !config.insecure_tcp {
        return Err("whoever can connect is root: say --insecure-tcp if every local user may be".to_owned());
    }
    Ok(())
}

fn bind_tcp(addresses: &[SocketAddr]) -> Result<TcpListener> {
    TcpListener::bind(addresses).map_err(|cause| match cause.kind() {
        ErrorKind::AddrInUse => Error::conflict(cause.to_string()),
        ErrorKind::PermissionDenied | ErrorKind::AddrNotAvailable => Error::invalid(cause.to_string()),
        _ => Error::system("bind", cause),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hosts: &[&str], insecure_tcp: bool) -> Config {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Config { hosts, insecure_tcp, ..Config::default() }
    }

    #[test]
    fn each_host_is_served_once() {
        let config = config(
            &[" unix:///a ", "tcp://", "tcp://localhost:2375", ":2375", "unix:///a", "fd://", "fd://*"],
            true,
        );
        let found: Vec<_> = addresses(&config).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["unix:///a", "tcp://localhost:2375", "fd://"]);
    }

    #[test]
    fn tcp_needs_permission_and_loopback() {
        assert!(check(&config(&["tcp://127.0.0.1:1", "tcp://[::1]:1", "tcp://localhost"], true)).is_ok());
        let text = |hosts, insecure| check(&config(hosts, insecure)).unwrap_err().message;
        assert!(text(&["tcp://127.0.0.1:1"], false).contains("--insecure-tcp"));
        assert!(text(&["tcp://0.0.0.0:1"], true).contains("only loopback"));
        assert!(text(&["tcp://[::]:1"], true).contains("only loopback"));
        assert!(text(&["unix:///a", "bogus://x"], true).starts_with("listen on \"bogus://x\": expected"));
    }

    #[test]
    fn nothing_passed_is_said_in_dockers_words() {
        let error = bind(&config(&["fd://"], false), Activated::default()).map(drop).unwrap_err();
        assert!(error.message.contains("no sockets found via socket activation"), "{error}");
    }
}
