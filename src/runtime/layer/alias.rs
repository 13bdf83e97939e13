//! Names a file has in the layers below that changed with it, although the upper directory has only one.
//!
//! ```text
//!  below:  a ─┬─ inode       upper:  a ── copied up, marked with its count of names
//!          b ─┘              the container sees the new content under b too
//! ```
//!
//! overlayfs does so with `index=on`. An image without the index would show the old content under `b`, so a
//! layer made of the upper directory must name it. The layers below are searched only when such a mark is
//! found, which is rare.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::OPAQUE;
use super::diff::{open, stat, xattr};
use super::pack::{join, list};

/// On a file that was copied up and had several names.
pub(super) const NAMES: &str = "trusted.overlay.nlink";

/// A name, and the path it belongs to.
pub(super) type Alias = (Vec<u8>, Vec<u8>);

/// The names in `below` of the files that `upper` has under the paths `marked`, with the path each belongs
/// to. Names the container removed, replaced or copied up are not among them.
pub(super) fn find(
    upper: BorrowedFd<'_>,
    below: BorrowedFd<'_>,
    marked: &[Vec<u8>],
) -> Result<Vec<Alias>, Errno> {
    let mut inodes = HashMap::new();
    for path in marked {
        let (parent, name) = split(path);
        let Some(parent) = open(below, parent)? else { continue };
        match stat(std::os::fd::AsFd::as_fd(&parent), name)? {
            Some(stat) if stat.st_nlink > 1 => drop(inodes.insert((stat.st_dev, stat.st_ino), path)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    let mut pending = if inodes.is_empty() { Vec::new() } else { vec![Vec::new()] };
    while let Some(path) = pending.pop() {
        let Some(directory) = open(below, &path)? else { continue };
        let directory = std::os::fd::AsFd::as_fd(&directory);
        for name in list(directory)? {
            let Some(stat) = stat(directory, &name)? else { continue };
            let child = join(&path, &name);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                pending.push(child);
            } else if let Some(of) = inodes.get(&(stat.st_dev, stat.st_ino))
                && stat.st_nlink > 1
                && shines_through(upper, &child)?
            {
                found.push((child, (*of).clone()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether `upper` neither has `path` nor hides it.
fn shines_through(upper: BorrowedFd<'_>, path: &[u8]) -> Result<bool, Errno> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([path.len()]) {
        let (parent, name) = split(&path[..end]);
        // What is above is a directory, or this would not have come so far.
        let Some(parent) = open(upper, parent)? else { return Ok(true) };
        let parent = std::os::fd::AsFd::as_fd(&parent);
        match stat(parent, name)? {
            None => return Ok(xattr(parent, b".", OPAQUE)?.as_deref() != Some(b"y")),
            Some(stat) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => return Ok(false),
            Some(_) => {}
        }
    }
    Ok(false)
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
