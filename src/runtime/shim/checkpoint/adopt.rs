//! Another engine's dump made one that a thaw understands: its images say which mounts there were, and what takes
//! the place of each here is written into `mounts.json`.
//!
//! | of the other engine | here |
//! |---|---|
//! | external: a bind mount that the container has here, too | [`Kind::Bind`] |
//! | external: a mask on a file, from the host's `/dev/null` or its own | [`Kind::Null`] |
//! | external: a mask on a directory, `/dev/shm` | [`Kind::Tmpfs`] |
//! | external: what that engine had for itself | left out of the images |
//! | a tmpfs, which CRIU would unpack with GNU tar | [`Kind::Tmpfs`]; the caller unpacks the image |
//! | `/dev` | [`Kind::Dev`] |
//! | a cgroup hierarchy, or the tmpfs that holds them | [`Kind::Cgroup`] |
//!
//! crun gives masks on directories one key for all, runc those on files: a key is one mount here.

use std::collections::BTreeSet;
use std::path::Path;

use super::{External, Kind, Mounts, is_within, save, tmpfs_options};
use crate::runtime::cgroup;
use crate::runtime::criu::NETNS_KEY;
use crate::runtime::criu::rewrite::{self, Filesystem, MountEntry};
use crate::runtime::{Cause, Error};

/// What masks a directory: as our own masks are.
const EMPTY: &str = "size=4k,nr_inodes=2,mode=755";

/// What of a container decides what becomes of the mounts it had.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// Where it has bind mounts, volumes among them.
    pub binds: BTreeSet<String>,
    /// Where it had mounts of the other engine's own.
    pub dropped: BTreeSet<String>,
    /// What is hidden from it.
    pub masked: BTreeSet<String>,
    /// The content of `/dev/shm` is here, as `shm.tar`.
    pub has_shm: bool,
    /// It has a network namespace of its own.
    pub has_netns: bool,
}

/// An image of a tmpfs, to be unpacked by the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TmpfsImage {
    /// In the directory of images: a tar, packed by gzip.
    pub image: String,
    /// In the dump's directory: a plain tar.
    pub archive: String,
}

/// Changes the images in `dir/images` and writes `dir/mounts.json`; what is left to unpack.
///
/// # Errors
/// An image is damaged; `Cause::Refused` for a mount that nothing here can take the place of.
pub fn adopt(dir: &Path, around: &Surroundings) -> Result<Vec<TmpfsImage>, Error> {
    let images = dir.join("images");
    let namespaces = rewrite::namespaces(&images)?;
    let mut entries = rewrite::mounts(&images, namespaces)?;
    let mut found = Found::default();
    for entry in &mut entries {
        found.take(entry, around)?;
    }
    rewrite::write_mounts(&images, namespaces, &entries, &found.gone)?;
    if around.has_netns {
        rewrite::write_netns(&images, namespaces, NETNS_KEY)?;
    }
    save(&dir.join("mounts.json"), &Mounts { version: 1, mounts: found.mounts })?;
    Ok(found.tmpfs)
}

#[derive(Debug, Default)]
struct Found {
    mounts: Vec<External>,
    tmpfs: Vec<TmpfsImage>,
    /// By the kernel's id.
    gone: BTreeSet<u32>,
}

impl Found {
    /// Decides what becomes of a mount.
    fn take(&mut self, entry: &mut MountEntry, around: &Surroundings) -> Result<(), Error> {
        let destination = entry.destination.clone();
        if destination == "/" {
            return Ok(());
        }
        let Some(key) = entry.key.clone() else {
            if let Some(kind) = self.own(entry, around) {
                entry.key = Some(destination.clone());
                self.mounts.push(External { destination, kind });
            }
            return Ok(());
        };
        if around.dropped.contains(&destination) {
            self.gone.insert(entry.id);
            return Ok(());
        }
        let bind = around.binds.iter().filter(|bind| is_within(&destination, bind));
        let kind = if let Some(below) = below_cgroup(entry) {
            Kind::Cgroup { below }
        } else if let Some(mount) = bind.max_by_key(|bind| bind.len()) {
            let below = destination[mount.len()..].trim_start_matches('/').to_owned();
            Kind::Bind { mount: mount.clone(), below }
        } else if key == "/dev/null" || is_null(entry) {
            Kind::Null
        } else if destination == "/dev/shm" {
            let archive = around.has_shm.then(|| "shm.tar".to_owned());
            Kind::Tmpfs { options: tmpfs_options(&entry.options), archive }
        } else if around.masked.contains(&destination) {
            Kind::Tmpfs { options: EMPTY.to_owned(), archive: None }
        } else {
            let reason = "it came from the other host, and its configuration does not say what it was";
            return Err(Error {
                op: "take over the mount at".into(),
                object: destination,
                cause: Cause::Refused(reason.into()),
            });
        };
        if self.mounts.iter().all(|known| known.destination != key) {
            self.mounts.push(External { destination: key, kind });
        }
        Ok(())
    }

    /// What takes the place of a mount that CRIU would make, if it is not to.
    fn own(&mut self, entry: &MountEntry, around: &Surroundings) -> Option<Kind> {
        if let Some(below) = below_cgroup(entry) {
            return Some(Kind::Cgroup { below });
        }
        if entry.filesystem != Filesystem::Tmpfs || entry.root != "/" {
            return None;
        }
        let options = tmpfs_options(&entry.options);
        if entry.destination == "/dev" {
            return Some(Kind::Dev { options });
        }
        if around.masked.contains(&entry.destination) {
            return Some(Kind::Tmpfs { options, archive: None });
        }
        let image = format!("tmpfs-dev-{}.tar.gz.img", entry.device);
        let archive = match self.tmpfs.iter().find(|known| known.image == image) {
            Some(known) => known.archive.clone(),
            None => {
                let archive = format!("tmpfs-{}.tar", self.tmpfs.len() + 1);
                self.tmpfs.push(TmpfsImage { image, archive: archive.clone() });
                archive
            }
        };
        Some(Kind::Tmpfs { options, archive: Some(archive) })
    }
}

/// Whether it is the null device, of the host's /dev or of the container's.
fn is_null(entry: &MountEntry) -> bool {
    matches!(entry.filesystem, Filesystem::Devtmpfs | Filesystem::Tmpfs) && entry.root == "/null"
}

/// Where below the cgroup mount it is, if it is one of those.
fn below_cgroup(entry: &MountEntry) -> Option<String> {
    let below = entry.destination.strip_prefix(cgroup::ROOT)?;
    let is_holder = entry.filesystem == Filesystem::Tmpfs && below.is_empty();
    let is_hierarchy = entry.filesystem == Filesystem::Cgroup && (below.is_empty() || below.starts_with('/'));
    (is_holder || is_hierarchy).then(|| below.trim_start_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::super::load;
    use super::*;
    use crate::runtime::criu::images::image;
    use crate::runtime::criu::rpc::Writer;

    /// Type, id, parent, root, destination, key.
    type Mounted = (u64, u64, u64, &'static str, &'static str, Option<&'static str>);

    /// The images of a dump that say which mounts there were.
    fn dump(name: &str, mounts: &[Mounted]) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-adopt-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("images")).unwrap();
        let write = |name: &str, magic: u32, records: &[Writer]| {
            std::fs::write(dir.join("images").join(name), image(magic, records)).unwrap();
        };
        let mut task = Writer::default();
        task.int(1, 1).int(2, 0);
        write("pstree.img", 0x5027_3030, &[task]);
        let mut ids = Writer::default();
        ids.int(6, 10).int(9, 13);
        write("ids-1.img", 0x5443_2030, &[ids]);
        let entry = |&(kind, id, parent, root, destination, key): &Mounted| {
            let mut entry = Writer::default();
            entry.int(1, kind).int(2, id).int(3, id + 40).int(4, parent).text(6, root.as_bytes());
            entry.text(7, destination.as_bytes()).text(9, b"size=64k,mode=755,seclabel");
            if let Some(key) = key {
                entry.text(18, key.as_bytes());
            }
            entry
        };
        write("mountpoints-13.img", 0x5556_3928, &mounts.iter().map(entry).collect::<Vec<_>>());
        dir
    }

    fn around() -> Surroundings {
        Surroundings {
            binds: ["/etc/hosts", "/data"].map(str::to_owned).into(),
            dropped: ["/run/.containerenv"].map(str::to_owned).into(),
            masked: ["/proc/acpi", "/proc/interrupts", "/sys/firmware", "/proc/scsi"]
                .map(str::to_owned)
                .into(),
            has_shm: true,
            has_netns: true,
        }
    }

    #[test]
    fn every_mount_has_something_in_its_place() {
        let dir = dump(
            "all",
            &[
                (17, 1, 0, "/", "/", None),
                (1, 2, 1, "/", "/proc", None),
                (5, 3, 1, "/", "/dev", None),
                (5, 4, 3, "/", "/dev/shm", Some("/dev/shm")),
                (3, 5, 2, "/null", "/proc/keys", Some("/proc/keys")),
                (3, 6, 2, "/null", "/proc/timer_list", Some("/dev/null")),
                (5, 16, 2, "/null", "/proc/interrupts", Some("/proc/interrupts")),
                (5, 7, 2, "/crun/.empty-directory", "/proc/acpi", Some("/run/crun/.empty-directory")),
                (5, 8, 2, "/crun/.empty-directory", "/sys/firmware", Some("/run/crun/.empty-directory")),
                (5, 9, 2, "/", "/proc/scsi", None),
                (5, 10, 1, "/", "/sys/fs/cgroup", None),
                (12, 11, 10, "/x", "/sys/fs/cgroup/pids", Some("/sys/fs/cgroup/pids")),
                (5, 12, 1, "/u/hosts", "/etc/hosts", Some("/etc/hosts")),
                (0, 13, 1, "/v", "/data/sub", Some("/data/sub")),
                (5, 14, 1, "/u/.containerenv", "/run/.containerenv", Some("/run/.containerenv")),
                (5, 15, 1, "/", "/scratch", None),
            ],
        );
        let left = adopt(&dir, &around()).unwrap();
        let image = TmpfsImage { image: "tmpfs-dev-55.tar.gz.img".into(), archive: "tmpfs-1.tar".into() };
        assert_eq!(left, [image]);
        let options = || "size=64k,mode=755".to_owned();
        let tmpfs =
            |archive: Option<&str>| Kind::Tmpfs { options: options(), archive: archive.map(str::to_owned) };
        let bind = |mount: &str, below: &str| Kind::Bind { mount: mount.into(), below: below.into() };
        let expected = [
            ("/dev", Kind::Dev { options: options() }),
            ("/dev/shm", tmpfs(Some("shm.tar"))),
            ("/proc/keys", Kind::Null),
            ("/dev/null", Kind::Null),
            // Of a container that another engine's CRIU made: a directory in its place would not fit.
            ("/proc/interrupts", Kind::Null),
            ("/run/crun/.empty-directory", Kind::Tmpfs { options: EMPTY.into(), archive: None }),
            ("/proc/scsi", tmpfs(None)),
            ("/sys/fs/cgroup", Kind::Cgroup { below: String::new() }),
            ("/sys/fs/cgroup/pids", Kind::Cgroup { below: "pids".into() }),
            ("/etc/hosts", bind("/etc/hosts", "")),
            ("/data/sub", bind("/data", "sub")),
            ("/scratch", tmpfs(Some("tmpfs-1.tar"))),
        ];
        let expected = expected.map(|(key, kind)| External { destination: key.into(), kind });
        let mounts: Mounts = load(&dir.join("mounts.json")).unwrap();
        assert_eq!(mounts.mounts, expected);
        // What was podman's own is gone, and the rest has a key or is CRIU's to make.
        let again = rewrite::mounts(&dir.join("images"), rewrite::namespaces(&dir.join("images")).unwrap());
        let again = again.unwrap();
        assert_eq!(again.len(), 15);
        let without: Vec<&str> = again
            .iter()
            .filter(|entry| entry.key.is_none())
            .map(|entry| entry.destination.as_str())
            .collect();
        assert_eq!(without, ["/", "/proc"]);
        // There was no image of it, as with runc.
        assert!(dir.join("images/netns-10.img").exists());
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_mount_that_nobody_knows_is_named() {
        let dir = dump("unknown", &[(17, 1, 0, "/", "/", None), (0, 2, 1, "/x", "/secret", Some("/secret"))]);
        let error = adopt(&dir, &around()).unwrap_err();
        assert!(
            error.to_string().contains("take over the mount at /secret: it came from the other host"),
            "{error}"
        );
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
