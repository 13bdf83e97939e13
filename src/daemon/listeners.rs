//! The sockets the API is served on: bound early, so that a second daemon fails at once and clients queue while
//! the first one starts; served last.
//!
//! Whoever can connect is root. A unix socket admits root and its group; TCP needs verified client certificates, or
//! a loopback address and `--insecure-tcp`, whoever bound it.
//!
//! Not here: what a host means (`host`), sockets others have made (`activation`), certificates (`secure`).

pub mod activation;
mod host;
pub mod secure;
mod unix;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::config::Config;
use super::error::{Error, Result};
use crate::http::server::Listener;
use crate::http::tls::Acceptor;
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

/// Checks every host of the configuration without binding it, and the certificates.
///
/// # Errors
/// InvalidParameter for an address that does not parse or is not allowed, and for files that are not as they must be.
pub fn check(config: &Config) -> Result<()> {
    secure::certificates(config)?;
    for address in addresses(config)? {
        if let Address::Tcp(name, port) = &address {
            resolve(config, &address, name, *port)?;
        }
    }
    Ok(())
}

/// Binds every host of the configuration, with what socket activation has passed. `acceptor` is there if the
/// configuration wants TLS.
///
/// # Errors
/// As [`check`]; Conflict when another process listens there; NotFound when nothing was passed; System for the rest.
pub fn bind(config: &Config, mut activated: Activated, acceptor: Option<&Arc<Acceptor>>) -> Result<Bound> {
    let serve = |listener| match acceptor {
        Some(acceptor) => Listener::Tls(listener, Arc::clone(acceptor)),
        None => Listener::Tcp(listener),
    };
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
                bound.listeners.push(serve(listener));
            }
            Address::Activated(which) => {
                for (number, listener) in activated.claim(which).map_err(during)? {
                    let listener = match listener {
                        Listener::Tcp(listener) => {
                            let local = listener.local_addr();
                            let local = local.map_err(|cause| during(Error::system("getsockname", cause)))?;
                            allow(config, &[local]).map_err(|error| during(Error::invalid(error)))?;
                            serve(listener)
                        }
                        other => other,
                    };
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

/// Binds the listener of the metrics, which anybody may read who can connect.
///
/// # Errors
/// Conflict when another process listens there; System for the rest.
pub fn bind_metrics(address: SocketAddr) -> Result<TcpListener> {
    if !address.ip().is_loopback() {
        log::warn!("metrics on {address}: everybody who can reach it may read them");
    }
    bind_tcp(&[address]).map_err(|error| error.during(format!("listen on \"{address}\" for metrics")))
}

/// The configured hosts in order, each once.
fn addresses(config: &Config) -> Result<Vec<Address>> {
    let has_tls = secure::is_on(&config.tls);
    // Compat: dockerd with TLS and without a host is reached by TLS.
    let is_said =
        config.values.get("hosts").is_some_and(|hosts| hosts.as_array().is_some_and(|all| !all.is_empty()));
    let usual = ["tcp://".to_owned()];
    let hosts = if has_tls && !is_said { &usual[..] } else { &config.hosts };
    let mut addresses = Vec::new();
    for host in hosts {
        let host = host.trim();
        let usual = if has_tls { "tcp://" } else { "unix://" };
        let address = Address::parse(if host.is_empty() { usual } else { host }, has_tls)
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
    if secure::verifies(&config.tls) {
        return Ok(());
    }
    if !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(
            "whoever can connect is root: only loopback addresses are served without verified client \
                    certificates (--tlsverify)"
                .to_owned(),
        );
    }
    if !config.insecure_tcp {
        return Err(
            "whoever can connect is root: verify client certificates (--tlsverify), or say --insecure-tcp \
                    if every local user may be"
                .to_owned(),
        );
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
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let values = [("hosts", hosts.clone().into())].into();
        Config { hosts, insecure_tcp, values, ..Config::default() }
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
    fn verified_clients_may_come_from_anywhere() {
        let mut verified = config(&["tcp://0.0.0.0:1", "tcp://"], false);
        verified.tls.verifies = Some(true);
        let resolved = |config: &Config| {
            addresses(config)?.iter().try_for_each(|address| match address {
                Address::Tcp(name, port) => resolve(config, address, name, *port).map(drop),
                _ => Ok(()),
            })
        };
        assert!(resolved(&verified).is_ok());
        verified.tls.verifies = Some(false);
        assert!(resolved(&verified).unwrap_err().message.contains("--tlsverify"));
        // No host is said: with TLS that is tcp.
        verified.values.clear();
        let found = addresses(&verified).unwrap();
        assert_eq!(found, [Address::Tcp("localhost".to_owned(), 2376)]);
    }

    #[test]
    fn nothing_passed_is_said_in_dockers_words() {
        let error = bind(&config(&["fd://"], false), Activated::default(), None).map(drop).unwrap_err();
        assert!(error.message.contains("no sockets found via socket activation"), "{error}");
    }
}
