//! Unix sockets: made with the right owner from the start, never taken from a daemon that lives.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir;

/// The group that may use the API unless another is named.
const DEFAULT_GROUP: &str = "dewar";

/// Makes a socket that root and `group` may use; replaces a stale one.
///
/// # Errors
/// Conflict when something is in the way; InvalidParameter for an unknown group; System for the rest.
pub fn bind(path: &Path, group: Option<&str>) -> Result<UnixListener> {
    let attempt = format!("listen on unix socket {path:?}");
    let gid = group_id(group)?;
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        if !meta.file_type().is_socket() {
            return Err(Error::conflict(format!("{attempt}: a file that is no socket is in the way")));
        }
        if let Some(why) = occupant(path) {
            return Err(Error::conflict(format!("{attempt}: {why}")));
        }
        std::fs::remove_file(path)
            .map_err(|cause| Error::system(format!("{attempt}: remove the stale one"), cause))?;
    }
    if let Some(parent) = path.parent() {
        state_dir::make_dir(parent, 0o755)?;
    }
    // Nobody else may connect between bind and chmod: the socket is born 0600.
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = listener.map_err(|cause| match cause.kind() {
        // Another daemon was faster, between our look and now.
        ErrorKind::AddrInUse => Error::conflict(format!("{attempt}: {cause}")),
        _ => Error::system(&attempt, cause),
    })?;
    let opened = std::os::unix::fs::chown(path, Some(0), Some(gid))
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)));
    if let Err(cause) = opened {
        // It is ours: bind made it.
        let _ = std::fs::remove_file(path);
        return Err(Error::system(&attempt, cause));
    }
    Ok(listener)
}

/// Why the socket at `path` may not be replaced. Only a refused connection proves that nobody has it: a daemon that
/// is slow, or whose queue is full, does not answer either. Does not block.
fn occupant(path: &Path) -> Option<String> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let attempt = || {
        let address = SocketAddrUnix::new(path)?;
        let probe = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&probe, &address)
    };
    match attempt() {
        Err(Errno::CONNREFUSED | Errno::NOENT) => None,
        Ok(()) => Some("another process answers there".to_owned()),
        Err(Errno::AGAIN) => Some("another process has it, and more connections than it takes".to_owned()),
        Err(Errno::PROTOTYPE) => Some("another process has it, for datagrams".to_owned()),
        Err(errno) => {
            Some(format!("cannot tell whether another process has it: {}", std::io::Error::from(errno)))
        }
    }
}

/// The group that may use the socket: a named one must exist, the default one need not.
///
/// # Errors
/// InvalidParameter when the named one does not exist.
pub fn group_id(group: Option<&str>) -> Result<u32> {
    let name = group.unwrap_or(DEFAULT_GROUP);
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
        (None, None) => {
            log::debug!("there is no group {DEFAULT_GROUP:?}: root's may use the socket");
            Ok(0)
        }
        (None, Some(name)) => {
            Err(Error::invalid(format!("give the socket to group {name:?}: no such group")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    #[test]
    fn only_a_refused_connection_means_that_nobody_is_there() {
        let dir = std::env::temp_dir().join(format!("dewar-unix-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        assert_eq!(occupant(&path), None);
        let listener = UnixListener::bind(&path).unwrap();
        // A queue of one, and nobody who takes from it.
        rustix::net::listen(&listener, 0).unwrap();
        let waiting = UnixStream::connect(&path).unwrap();
        let why = occupant(&path).unwrap();
        assert!(why.contains("more connections than it takes"), "{why}");
        drop((listener.accept().unwrap(), waiting));
        assert_eq!(occupant(&path).as_deref(), Some("another process answers there"));
        drop(listener);
        assert_eq!(occupant(&path), None);
        let other = dir.join("d");
        let datagrams = UnixDatagram::bind(&other).unwrap();
        assert!(occupant(&other).unwrap().contains("datagrams"));
        drop(datagrams);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn groups_are_names_or_numbers() {
        assert_eq!(group_id(Some("0")).unwrap(), 0);
        assert_eq!(group_id(Some("4242")).unwrap(), 4242);
        assert_eq!(group_id(Some("root")).unwrap(), 0);
        assert!(group_id(None).is_ok());
        assert!(group_id(Some("no-such-group")).unwrap_err().message.contains("no such group"));
    }
}
