//! Another engine's dump made one that a thaw understands: its images say which mounts there were, and what takes
//! the place of each here is written into `mounts.json`.
//!
//! | of the other engine | here |
//! |---|---|
//! | external: a bind mount that the container has here, too | [`Kind::Bind`] |
//! | external: a mask on a file, from the host's `/dev/null` | [`Kind::Null`] |
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
        } else if key == "/dev/null" || (entry.filesystem == Filesystem::Devtmpfs && entry.root == "/null") {
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

/// Where below the cgroup mount it is, if it is one of those.
fn below_cgroup(entry: &MountEntry) -> Option<String> {
    let below = entry.destination.strip_prefix(cgroup::ROOT)?;
    let is_holder = entry.filesystem == Filesystem::Tmpfs && below.is_empty();
    let is_hierarchy = entry.filesystem == Filesystem::Cgroup && (below.is_empty() || below.starts_with('/'));
    (is_holder || is_hierarchy).then(|| below.trim_start_matches('/').to_owned())
}
