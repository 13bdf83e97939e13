//! Files put into a layer below a place in an image.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::chmod::Chmod;
use super::gather::{Content, Item};
use crate::daemon::build::job::Job;
use crate::daemon::build::root::{self, Place};
use crate::daemon::containers::rootfs;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec;
use crate::runtime::layer::tar::{Entry, Kind, Time, Writer};
use crate::runtime::layer::{self, Limits, Put};

/// A layer being written.
pub struct Graft<'a> {
    /// The image below.
    root: BorrowedFd<'a>,
    writer: Writer<&'a mut dyn Write>,
    /// Directories that are in the layer.
    made: BTreeSet<Vec<u8>>,
    owner: Option<(u32, u32)>,
    mode: Option<Chmod>,
    now: Time,
}

/// Who `--chown` means, by the image's own files. A user alone is its own group.
///
/// # Errors
/// InvalidParameter for names the image does not know.
pub fn owner(root: BorrowedFd<'_>, text: &str) -> Result<(u32, u32)> {
    let (user, group) = text.split_once(':').unwrap_or((text, ""));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let failed = |error: Error| error.during("unable to convert uid/gid chown string to host mapping");
    // Compat: a number is the group's too, whatever the image's files say of it.
    let full = match group {
        "" if is_number(user) => format!("{user}:{user}"),
        "" => user.to_owned(),
        group => format!("{user}:{group}"),
    };
    rootfs::owner(root, &full).map_err(failed)
}

impl<'a> Graft<'a> {
    pub fn new(
        root: BorrowedFd<'a>,
        out: &'a mut dyn Write,
        owner: Option<(u32, u32)>,
        mode: Option<Chmod>,
    ) -> Graft<'a> {
        let now = Time { secs: jiff::Timestamp::now().as_second(), nanos: 0 };
        Graft { root, writer: Writer::new(out), made: BTreeSet::new(), owner, mode, now }
    }

    /// Ends the layer.
    pub fn finish(self) -> Result<()> {
        self.writer.finish().map(drop).map_err(failed)
    }

    /// Puts an item where `place` is; `is_directory` when that is to be a directory whatever the item is.
    pub fn add(&mut self, job: &Job<'_>, item: &Item, place: &Place, is_directory: bool) -> Result<()> {
        let is_directory = is_directory || place.is_directory() || !item.below.is_empty();
        let base = join(&place.path, &item.below);
        let file = || if is_directory { join(&base, &item.name) } else { base.clone() };
        match &item.content {
            Content::Text(text) => {
                let mut entry = Entry::new("", Kind::File, 0o644);
                (entry.size, entry.mtime) = (text.len() as u64, self.now);
                self.put(&file(), entry, false, &mut text.as_bytes())
            }
            Content::Archive(archive) => {
                let dir = job.staging.make("add")?;
                let into = root::open_directory(&dir)?;
                let file =
                    root::reopen(archive).map_err(|cause| Error::system("read the archive to add", cause))?;
                let put = Put { limits: Limits::default(), ..Put::default() };
                layer::put(into.as_fd(), b"", codec::decompress(file)?, put)
                    .map_err(|cause| Error::invalid(cause.to_string()))?;
                let tree = root::open_directory(&dir)?;
                let put = self.tree(tree.as_fd(), &base, &|_| false, true, true);
                // What has been put need not wait on the disk for the build's end.
                crate::daemon::state_dir::remove_tree(&dir)?;
                put
            }
            Content::Tree { inode, excludes, keeps_owner } => {
                let stat = rustix::fs::statat(inode, "", rustix::fs::AtFlags::EMPTY_PATH)
                    .map_err(|errno| failed(errno.into()))?;
                let base = if root::kind(&stat) == FileType::Directory { base.clone() } else { file() };
                self.tree(inode.as_fd(), &base, &|path| excludes.hides(path), *keeps_owner, false)
            }
        }
    }

    /// Makes a directory and those it is in, where they are not there.
    pub fn make_directory(&mut self, path: &[u8]) -> Result<()> {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]).filter(|end| *end > 0) {
            let path = &path[..end];
            if self.made.contains(path) {
                continue;
            }
            let entry = match root::lstat(self.root, path)? {
                Some(stat) if root::kind(&stat) == FileType::Directory => {
                    let inode = root::open_plain(self.root, path).map_err(|errno| failed(errno.into()))?;
                    layer::describe_directory(inode.as_fd(), path).map_err(failed)?
                }
                Some(_) => return Err(Error::invalid(format!("{}: not a directory", shown(path)))),
                None => {
                    let mut entry = Entry::new([path, b"/"].concat(), Kind::Directory, 0o755);
                    (entry.uid, entry.gid) = self.owner.unwrap_or_default();
                    entry.mtime = self.now;
                    entry
                }
            };
            self.writer.append(&entry, &mut io::empty()).map_err(failed)?;
            self.made.insert(path.to_vec());
        }
        Ok(())
    }

    /// A file, or what is in a directory. `is_unpacked` when the directory itself is nobody's.
    fn tree(
        &mut self,
        inode: BorrowedFd<'_>,
        base: &[u8],
        hides: &dyn Fn(&[u8]) -> bool,
        keeps_owner: bool,
        is_unpacked: bool,
    ) -> Result<()> {
        let mut refused = None;
        let walked = layer::walk(inode, &mut |entry, content| {
            let taken = (|| -> Result<bool> {
                if hides(&entry.path) {
                    // What is in it may be wanted all the same.
                    return Ok(entry.kind == Kind::Directory);
                }
                let path = within(base, &entry.path);
                if entry.path == b"./" && (is_unpacked || self.is_directory(&path)?) {
                    // A directory that is copied into stays as it is.
                    return self.make_directory(&path).map(|()| true);
                }
                let mut entry = entry.clone();
                if entry.kind == Kind::HardLink {
                    entry.link = within(base, &entry.link);
                }
                self.put(&path, entry, keeps_owner, content).map(|()| true)
            })();
            taken.map_err(|error| {
                refused = Some(error);
                io::Error::other("refused")
            })
        });
        match (refused, walked) {
            (Some(error), _) => Err(error),
            (None, walked) => Ok(walked?),
        }
    }

    fn is_directory(&self, path: &[u8]) -> Result<bool> {
        let stat = root::lstat(self.root, path)?;
        Ok(self.made.contains(path) || stat.is_some_and(|stat| root::kind(&stat) == FileType::Directory))
    }

    /// Puts one entry at `path`.
    fn put(
        &mut self,
        path: &[u8],
        mut entry: Entry,
        keeps_owner: bool,
        content: &mut dyn Read,
    ) -> Result<()> {
        let at = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = at.map_or((&b""[..], path), |at| (&path[..at], &path[at + 1..]));
        if name.is_empty() && entry.kind != Kind::Directory {
            return Err(Error::invalid("cannot copy to directory: /"));
        }
        // In a layer such a name would delete what is below.
        if name.starts_with(b".wh.") {
            return Err(Error::invalid(format!("{}: a layer cannot hold a file of this name", shown(path))));
        }
        if entry.kind == Kind::Char && entry.device == (0, 0) {
            return Err(Error::invalid(format!("{}: a layer cannot hold device 0:0", shown(path))));
        }
        if let Some(stat) = root::lstat(self.root, path)? {
            match (root::kind(&stat) == FileType::Directory, entry.kind == Kind::Directory) {
                (true, false) => {
                    return Err(Error::invalid(format!("cannot copy to directory: {}", shown(path))));
                }
                (false, true) => {
                    return Err(Error::invalid(format!("cannot copy to non-directory: {}", shown(path))));
                }
                _ => {}
            }
        }
        self.make_directory(parent)?;
        if let Some(owner) = self.owner {
            (entry.uid, entry.gid) = owner;
        } else if !keeps_owner {
            (entry.uid, entry.gid) = (0, 0);
        }
        if let Some(mode) = self.mode.as_ref().filter(|_| entry.kind != Kind::Symlink) {
            entry.mode = mode.apply(entry.mode, entry.kind == Kind::Directory);
        }
        entry.path = path.to_vec();
        if entry.kind == Kind::Directory {
            if path.is_empty() {
                return Ok(());
            }
            entry.path.push(b'/');
            self.made.insert(path.to_vec());
        }
        self.writer.append(&entry, content).map_err(failed)
    }
}

/// The path of a walked entry, `./`, `a/` or `a/b`, below `base`.
fn within(base: &[u8], path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    if path == b"." { base.to_vec() } else { join(base, path) }
}

fn join(base: &[u8], path: &[u8]) -> Vec<u8> {
    match (base.is_empty(), path.is_empty()) {
        (true, _) => path.to_vec(),
        (false, true) => base.to_vec(),
        (false, false) => [base, b"/", path].concat(),
    }
}

fn shown(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}

fn failed(cause: io::Error) -> Error {
    Error::system("write layer", cause)
}
