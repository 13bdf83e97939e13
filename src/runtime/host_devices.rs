//! Device nodes of the host that a container is given: all of them when privileged, or those named.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::spec::Device;
use super::{Cause, Error};

/// Directories of /dev that belong to the container's own mounts.
const OWN: [&str; 4] = ["pts", "shm", "mqueue", "fd"];
/// Nodes every container has anyway, or that only make sense on the host.
const SKIPPED: [&str; 2] = ["console", "ptmx"];
/// /dev is a shallow tree; whatever is deeper is not a place for nodes.
const MOST_DEPTH: u32 = 8;

fn failed(op: &str, path: &Path, cause: io::Error) -> Error {
    Error { op: op.to_owned(), object: path.display().to_string(), cause: Cause::Io(cause) }
}

/// Every device node below the host's /dev, at the same paths.
///
/// # Errors
/// When /dev cannot be listed; nodes that vanish meanwhile are left out.
pub fn all() -> Result<Vec<Device>, Error> {
    let mut nodes = Vec::new();
    walk(Path::new("/dev"), "/dev", 0, &mut nodes)
        .map_err(|cause| failed("list devices in", Path::new("/dev"), cause))?;
    nodes.retain(|node| !SKIPPED.iter().any(|name| node.path == format!("/dev/{name}")));
    Ok(nodes)
}

/// The node at `host`, or all below it when it is a directory, to appear at `target` in the container.
/// A symbolic link is followed: it is the caller's own path.
///
/// # Errors
/// `ENOENT` and the like; a file that is no device is refused.
pub fn from_host(host: &Path, target: &str) -> Result<Vec<Device>, Error> {
    let meta = fs::metadata(host).map_err(|cause| failed("read device", host, cause))?;
    if meta.is_dir() {
        let mut nodes = Vec::new();
        walk(host, target, 0, &mut nodes).map_err(|cause| failed("list devices in", host, cause))?;
        return Ok(nodes);
    }
    match node(&meta, target) {
        Some(node) => Ok(vec![node]),
        None => Err(Error {
            op: "read device".to_owned(),
            object: host.display().to_string(),
            cause: Cause::Refused("not a device node".to_owned()),
        }),
    }
}

fn node(meta: &fs::Metadata, target: &str) -> Option<Device> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return None,
    };
    Some(Device {
        path: target.to_owned(),
        kind: kind.to_owned(),
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        file_mode: Some(meta.mode() & 0o7777),
        uid: Some(meta.uid()),
        gid: Some(meta.gid()),
    })
}

fn walk(dir: &Path, target: &str, depth: u32, nodes: &mut Vec<Device>) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        if depth == 0 && OWN.contains(&name.as_str()) {
            continue;
        }
        let target = format!("{target}/{name}");
        // Without following: links in /dev lead to nodes that are listed by themselves.
        let Ok(meta) = fs::symlink_metadata(entry.path()) else { continue };
        if meta.is_dir() {
            if depth < MOST_DEPTH {
                walk(&entry.path(), &target, depth + 1, nodes)?;
            }
        } else if let Some(node) = node(&meta, &target) {
            nodes.push(node);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_device_appears_where_asked_and_a_file_is_refused() {
        let nodes = from_host(Path::new("/dev/null"), "/dev/nothing").unwrap();
        assert_eq!((nodes[0].path.as_str(), nodes[0].major, nodes[0].minor), ("/dev/nothing", 1, 3));
        assert!(from_host(Path::new("/etc/passwd"), "/dev/x").is_err());
        assert!(from_host(Path::new("/dev/does-not-exist"), "/dev/x").is_err());
        assert!(all().unwrap().iter().any(|node| node.path == "/dev/null"));
    }
}
