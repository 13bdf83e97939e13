//! `/dev` for a thaw: what it held is not saved, but made anew.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use rustix::fs::FileType;

use super::{failed, is_bind};
use crate::runtime::layer::tar::{Entry, Kind, Writer};
use crate::runtime::layer::{self, Limits};
use crate::runtime::spec::Spec;
use crate::runtime::{Error, devices};

/// What init makes there, and what is mounted on below it, as a tar.
pub fn archive(spec: &Spec) -> Result<Vec<u8>, Error> {
    let mut writer = Writer::new(Vec::new());
    let mut add = |entry: &Entry| writer.append(entry, &mut io::empty());
    let mut all = || entries(spec).iter().try_for_each(&mut add);
    all().map_err(|error| failed("pack", "/dev", error))?;
    Ok(writer.finish().map_err(|error| failed("pack", "/dev", error))?.0)
}

/// Fills a fresh one.
pub fn fill(stage: &Path, spec: &Spec) -> Result<(), Error> {
    layer::unpack_plain(archive(spec)?.as_slice(), stage, Limits::default()).map(drop)
}

fn entries(spec: &Spec) -> Vec<Entry> {
    let inside = |path: &str| path.strip_prefix("/dev/").map(str::to_owned);
    let mut found = Vec::new();
    for device in devices::nodes(&spec.linux.devices) {
        let (Some(path), Some(kind)) = (inside(&device.path), devices::file_type(&device)) else { continue };
        let kind = match kind {
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            _ => Kind::Char,
        };
        let mut entry = Entry::new(path, kind, devices::mode(&device));
        entry.device = (device.major, device.minor);
        (entry.uid, entry.gid) = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
        found.push(entry);
    }
    for (link, target) in devices::LINKS {
        if let Some(path) = inside(link)
            && (*link != "/dev/core" || Path::new(target).exists())
        {
            let mut entry = Entry::new(path, Kind::Symlink, 0o777);
            entry.link = target.as_bytes().to_vec();
            found.push(entry);
        }
    }
    for mount in &spec.mounts {
        let Some(path) = inside(&mount.destination) else { continue };
        let is_file = is_bind(mount) && !Path::new(&mount.source).is_dir();
        let (kind, mode) = if is_file { (Kind::File, 0o644) } else { (Kind::Directory, 0o755) };
        found.push(Entry::new(path, kind, mode));
    }
    if spec.process.terminal {
        found.push(Entry::new("console", Kind::File, 0o600));
    }
    with_parents(found)
}

/// Each path once, after the directories it is in.
fn with_parents(entries: Vec<Entry>) -> Vec<Entry> {
    let mut known = BTreeSet::new();
    let mut all = Vec::new();
    for entry in entries {
        for at in entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
            if known.insert(entry.path[..at].to_vec()) {
                all.push(Entry::new(&entry.path[..at], Kind::Directory, 0o755));
            }
        }
        if known.insert(entry.path.clone()) {
            all.push(entry);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::spec::{Device, Mount};

    #[test]
    fn it_holds_nodes_links_and_mount_points_each_once() {
        let mount = |destination: &str| Mount {
            destination: destination.into(),
            kind: "tmpfs".into(),
            ..Mount::default()
        };
        let mut spec = Spec {
            mounts: ["/dev", "/dev/pts", "/dev/shm", "/dev/net/x", "/data"].map(mount).into(),
            ..Spec::default()
        };
        let device = Device {
            path: "/dev/net/tun".into(),
            kind: "c".into(),
            major: 10,
            minor: 200,
            file_mode: Some(0o600),
            gid: Some(5),
            ..Device::default()
        };
        spec.linux.devices = vec![device];
        spec.process.terminal = true;
        let entries = entries(&spec);
        let at = |path: &str| {
            let found: Vec<usize> =
                (0..entries.len()).filter(|at| entries[*at].path == path.as_bytes()).collect();
            assert_eq!(found.len(), 1, "{path}");
            found[0]
        };
        let tun = &entries[at("net/tun")];
        assert_eq!((tun.device, tun.mode, tun.uid, tun.gid), ((10, 200), 0o600, 0, 5));
        assert!(at("net") < at("net/tun") && at("net") < at("net/x"));
        assert_eq!(entries[at("ptmx")].link, b"pts/ptmx");
        assert_eq!(entries[at("console")].kind, Kind::File);
        assert_eq!(entries[at("null")].device, (1, 3));
        assert!(
            entries[at("shm")].kind == Kind::Directory && entries.iter().all(|entry| entry.path != b"data")
        );
    }
}
