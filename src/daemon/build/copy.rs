//! `COPY`, `ADD` and `WORKDIR`: files become a layer without a container.
//!
//! ```text
//!  sources ─► items ─► digest ─► cache ─► a tar, below the place the target leads to in the image
//!  globs,      each an     │
//!  links in    inode and   └ names, modes, owners, contents; not times
//!  the source  a name
//! ```
//!
//! The tar names every directory on the way with the attributes it has in the image, and nothing in it passes
//! through a link: where the target leads is settled before.

mod chmod;
pub mod gather;
mod graft;

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};

use super::stage::Stage;
use super::{Outcome, root};
use crate::daemon::dockerfile::Copy;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Hashing;
use crate::daemon::images::{Image, Step};
use crate::runtime::layer;
use crate::runtime::layer::tar::{Entry, Kind};

use gather::{Content, Item};
use graft::Graft;

/// Carries out a `COPY` or, as `name` says, an `ADD`.
pub fn run(stage: &mut Stage<'_>, copy: &Copy, name: &str) -> Outcome<()> {
    let failed = |error: Error| error.during(format!("{name} failed"));
    let target = stage.expand(&copy.target)?;
    let items = gather::gather(stage, copy, name, &target).map_err(failed)?;
    let is_directory =
        target.ends_with('/') || target.ends_with("/.") || matches!(target.as_str(), "." | "..");
    if items.len() > 1 && !is_directory {
        return Err(Error::invalid(format!(
            "When using {name} with more than one source file, the destination must be a directory and end with a /"
        ))
        .into());
    }
    let mut flags = String::new();
    let chown = copy.chown.as_ref().map(|word| stage.expand(word)).transpose()?;
    let chmod = copy.chmod.as_ref().map(|word| stage.expand(word)).transpose()?;
    for (flag, value) in [("chown", &chown), ("chmod", &chmod)] {
        if let Some(value) = value {
            flags.push_str(&format!("--{flag}={value} "));
        }
    }
    let digest = digest(&items).map_err(failed)?;
    let created_by = stage.comment(&format!("{name} {flags}{digest} in {target} "));
    let step = stage.step(created_by);
    if stage.find(&step)? {
        return Ok(());
    }
    let below = stage.job.root_of(stage.image.as_ref())?;
    let owner = chown.as_deref().map(|text| graft::owner(below.as_fd(), text)).transpose()?;
    let mode = chmod.as_deref().map(chmod::Chmod::parse).transpose()?;
    let place = root::resolve(below.as_fd(), root::absolute(&stage.config.working_dir, &target).as_bytes())
        .map_err(failed)?;
    let image = stage.job.engine.images.derive_with(&step, |out| {
        let mut graft = Graft::new(below.as_fd(), out, owner, mode);
        for item in &items {
            graft.add(stage.job, item, &place, is_directory)?;
        }
        graft.finish()
    });
    stage.advance(image.map_err(failed)?);
    Ok(())
}

/// The image with the working directory in it, made if the image does not have it.
pub fn make_directory(stage: &Stage<'_>, step: &Step) -> Result<Image> {
    let below = stage.job.root_of(stage.image.as_ref())?;
    let path = &stage.config.working_dir;
    let place = root::resolve(below.as_fd(), path.as_bytes())?;
    let images = &stage.job.engine.images;
    match &place.stat {
        Some(_) if place.is_directory() => images.derive(step),
        Some(_) => Err(Error::invalid(format!("Cannot mkdir: {path} is not a directory"))),
        None => images.derive_with(step, |out| {
            let mut graft = Graft::new(below.as_fd(), out, None, None);
            graft.make_directory(&place.path)?;
            graft.finish()
        }),
    }
}

/// What the history says of the sources: what kind they are, and a digest of all that makes a difference.
fn digest(items: &[Item]) -> Result<String> {
    let mut hashing = Hashing::new(io::sink());
    let mut is_directory = false;
    for item in items {
        // Writing to nothing does not fail.
        let _ = hashing.write_all(&[&item.name, b"\0".as_slice(), &item.below, b"\0"].concat());
        match &item.content {
            Content::Text(text) => {
                hash(&mut hashing, &Entry::new("./", Kind::File, 0o644), &mut text.as_bytes())
            }
            Content::Archive(file) => {
                let mut file =
                    root::reopen(file).map_err(|cause| Error::system("read the archive to add", cause))?;
                io::copy(&mut file, &mut hashing).map(drop)
            }
            Content::Tree { inode, excludes, keeps_owner } => {
                let hides = |path: &[u8]| {
                    is_directory |= path == b"./";
                    excludes.hides(path)
                };
                hash_tree(&mut hashing, inode.as_fd(), *keeps_owner, hides)
            }
        }
        .map_err(|cause| Error::system(format!("read {:?}", String::from_utf8_lossy(&item.name)), cause))?;
    }
    let kind = match items {
        [_] if is_directory => "dir",
        [_] => "file",
        _ => "multi",
    };
    Ok(format!("{kind}:{}", hashing.finish().0.hex()))
}

/// A digest of all that a step can see of a file or a directory.
pub fn tree_digest(inode: BorrowedFd<'_>) -> Result<String> {
    let mut hashing = Hashing::new(io::sink());
    hash_tree(&mut hashing, inode, true, |_| false)
        .map_err(|cause| Error::system("read what is to be mounted", cause))?;
    Ok(hashing.finish().0.hex().to_owned())
}

fn hash_tree(
    hashing: &mut Hashing<io::Sink>,
    inode: BorrowedFd<'_>,
    keeps_owner: bool,
    mut hides: impl FnMut(&[u8]) -> bool,
) -> io::Result<()> {
    let walked = layer::walk(inode, &mut |entry, content| {
        if hides(&entry.path) {
            // What is in it may be wanted all the same.
            return Ok(entry.kind == Kind::Directory);
        }
        let mut entry = entry.clone();
        if !keeps_owner {
            (entry.uid, entry.gid) = (0, 0);
        }
        hash(hashing, &entry, content).map(|()| true)
    });
    walked.map_err(io::Error::other)
}

fn hash(out: &mut Hashing<io::Sink>, entry: &Entry, content: &mut dyn io::Read) -> io::Result<()> {
    let mut head = Vec::new();
    for field in [&entry.path, &entry.link] {
        head.extend_from_slice(&(field.len() as u64).to_le_bytes());
        head.extend_from_slice(field);
    }
    let kind = kind_number(entry.kind);
    for number in [kind, entry.mode, entry.uid, entry.gid, entry.device.0, entry.device.1] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&(entry.xattrs.len() as u64).to_le_bytes());
    for field in entry.xattrs.iter().flat_map(|(name, value)| [name, value]) {
        head.extend_from_slice(&(field.len() as u64).to_le_bytes());
        head.extend_from_slice(field);
    }
    out.write_all(&head)?;
    let copied = match entry.kind {
        Kind::File => io::copy(content, out)?,
        _ => 0,
    };
    // Behind the content, whose end is then told by its length.
    out.write_all(&copied.to_le_bytes())
}

fn kind_number(kind: Kind) -> u32 {
    match kind {
        Kind::File => 0,
        Kind::HardLink => 1,
        Kind::Symlink => 2,
        Kind::Char => 3,
        Kind::Block => 4,
        Kind::Directory => 5,
        Kind::Fifo => 6,
        Kind::Other(flag) => 256 + u32::from(flag),
    }
}
