//! The sockets the API is served on: bound early, so that a second daemon fails at once.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::config::Config;
use super::error::{Error, Result};
use crate::http::server::Listener;

/// The bound sockets, and the socket files to remove at the end.
#[derive(Default)]
pub struct Bound {
    pub listeners: Vec<Listener>,
    files: Vec<PathBuf>,
}

impl Drop for Bound {
    /// A daemon that fails while it starts leaves no socket that nobody answers.
    fn drop(&mut self) {
        self.remove_files();
    }
}

impl Bound {
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

/// A host that was understood.
enum Address {
    Unix(PathBuf),
    Tcp(Vec<SocketAddr>),
}

/// Checks every host of the configuration without binding it.
///
/// # Errors
/// InvalidParameter for an address that does not parse or is not allowed.
pub fn check(config: &Config) -> Result<()> {
    config.hosts.iter().try_for_each(|host| parse(config, host).map(drop))
}

/// Binds every host of the configuration.
///
/// # Errors
/// As [`check`]; Conflict when another process listens there; System for the rest.
pub fn bind(config: &Config) -> Result<Bound> {
    let mut bound = Bound::default();
    for host in &config.hosts {
        let listener = match parse(config, host)? {
            Address::Unix(path) => {
                let listener = bind_unix(&path, config.group.as_deref())?;
                bound.files.push(path);
                listener
            }
            Address::Tcp(addresses) => {
                TcpListener::bind(&addresses[..]).map(Listener::Tcp).map_err(|cause| match cause.kind() {
                    ErrorKind::AddrInUse => Error::conflict(format!("listen on {host:?}: {cause}")),
                    _ => Error::system(format!("listen on {host:?}"), cause),
                })?
            }
        };
        bound.listeners.push(listener);
    }
    Ok(bound)
}

fn parse(config: &Config, host: &str) -> Result<Address> {
    let invalid = |why: &str| Error::invalid(format!("listen on {host:?}: {why}"));
    match host.split_once("://") {
        Some(("unix", "")) => Ok(Address::Unix("/run/dewar.sock".into())),
        // Source: unix(7), sun_path is 108 bytes with its terminator.
        Some(("unix", path)) if path.len() > 107 => Err(invalid(&format!(
            "the path has {} bytes, the kernel allows 107: choose a shorter one",
            path.len()
        ))),
        Some(("unix", path)) if path.starts_with('/') => Ok(Address::Unix(path.into())),
        Some(("unix", _)) => Err(invalid("the path is not absolute")),
        Some(("tcp", address)) => {
            let addresses: Vec<SocketAddr> =
                address.to_socket_addrs().map_err(|cause| invalid(&cause.to_string()))?.collect();
            if !addresses.iter().all(|address| address.ip().is_loopback()) {
                return Err(invalid("only loopback addresses are served without TLS"));
            }
            if !config.insecure_tcp {
                return Err(invalid(
                    "whoever can connect is root: say --insecure-tcp if every local user may be",
                ));
            }
            Ok(Address::Tcp(addresses))
        }
        _ => Err(invalid("expected unix:///path or tcp://address:port")),
    }
}

fn bind_unix(path: &Path, group: Option<&str>) -> Result<Listener> {
    let attempt = format!("listen on unix socket {path:?}");
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(Error::conflict(format!("{attempt}: a file that is no socket is in the way")));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(Error::conflict(format!("{attempt}: another process answers there")));
        }
        std::fs::remove_file(path)
            .map_err(|cause| Error::system(format!("{attempt}: remove the stale one"), cause))?;
    }
    if let Some(parent) = path.parent() {
        super::state_dir::make_dir(parent, 0o755)?;
    }
    // Nobody else may connect between bind and chmod: the socket is born 0600.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(|cause| Error::system(&attempt, cause))?;
    let gid = group_id(group)?;
    std::os::unix::fs::chown(path, Some(0), Some(gid)).map_err(|cause| Error::system(&attempt, cause))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
        .map_err(|cause| Error::system(&attempt, cause))?;
    Ok(Listener::Unix(listener))
}

/// The group that may use the socket: a named one must exist, the default one need not.
fn group_id(group: Option<&str>) -> Result<u32> {
    let name = group.unwrap_or("dewar");
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let found = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    match (found, group) {
        (Some(gid), _) => Ok(gid),
        (None, None) => Ok(0),
        (None, Some(name)) => {
            Err(Error::invalid(format!("give the socket to group {name:?}: no such group")))
        }
    }
}
