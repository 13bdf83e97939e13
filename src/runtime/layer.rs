//! Layers: tar streams in, directories in overlayfs form out, and back.
//!
//! ```text
//!            unpack                                      pack
//!  OCI layer ───────▶ diff/ (whiteouts as 0:0 devices,  ──────▶ OCI layer
//!  (tar)              opaque as trusted.overlay.opaque)         (tar)
//!               │                        ▲
//!               └─ record: every byte that is no file's content
//!                        └──▶ reassemble: the same tar again, byte for byte
//! ```
//!
//! `unpack_plain`/`pack_plain` do the same for directories without whiteouts (`/dev/shm`). [`put`] unpacks
//! into a directory a container may be writing to at the same time, and [`pack_tree`] packs one; [`walk`] shows
//! a tree entry by entry. [`changes`]
//! tells what a writable layer changed, [`Pass`] saves a tree that changes meanwhile.
//!
//! An archive is hostile until proven otherwise: names are resolved by `openat2` beneath the directory
//! unpacked into, never through a symbolic link; sizes, counts and names have [`Limits`].
//!
//! Not here: images, digests, compression (`daemon::images`).
//!
//! Sources: OCI image-spec `layer.md`; kernel `Documentation/filesystems/overlayfs.rst`; openat2(2).

mod alias;
mod copy;
mod diff;
mod pack;
mod passes;
mod split;
pub mod tar;
mod unpack;

use std::io;

use super::{Cause, Error};

pub use copy::copy;
pub use diff::{Change, changes};
pub use pack::{Trees, describe_directory, pack, pack_live, pack_plain, pack_tree, walk};
pub use passes::{Pass, Seen, is_tracked, remove_gone};
pub use split::reassemble;
pub use unpack::{Put, put, unpack, unpack_plain, unpack_recording};

/// Marks a directory that hides what the layers below have under its name.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Attributes with this prefix instruct overlayfs; they are never taken from nor given to an archive.
const OVERLAY_XATTRS: &[u8] = b"trusted.overlay.";
/// Prefix of a whiteout's name in a layer.
const WHITEOUT: &[u8] = b".wh.";
/// Stands in a layer for [`OPAQUE`] on the directory it is in.
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// How much an archive may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries in all.
    pub entries: u64,
    /// Bytes of the archive and of the files in it, holes of sparse files included.
    pub bytes: u64,
    /// Bytes of one name.
    pub name: usize,
}

impl Default for Limits {
    /// Ten times the largest images in common use; a bomb of zeros reaches them within minutes, not days.
    fn default() -> Limits {
        Limits { entries: 4_000_000, bytes: 256 << 30, name: 4096 }
    }
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Bytes of the files' contents.
    pub bytes: u64,
    pub entries: u64,
}

/// A refusal of the archive, as opposed to a failure of the system.
fn refused(message: impl Into<String>) -> Cause {
    Cause::Refused(message.into())
}

/// A failed read of an archive: damage is the archive's fault, everything else the system's.
fn read_failure(cause: io::Error) -> Cause {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => refused("the archive is truncated"),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => refused(cause.to_string()),
        _ => Cause::Io(cause),
    }
}

/// The name of a file that need not be UTF-8, for messages.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn error(op: &str, object: impl Into<String>, cause: impl Into<Cause>) -> Error {
    Error { op: op.to_owned(), object: object.into(), cause: cause.into() }
}

impl From<rustix::io::Errno> for Cause {
    fn from(errno: rustix::io::Errno) -> Cause {
        Cause::Io(errno.into())
    }
}

#[cfg(test)]
mod tests;
