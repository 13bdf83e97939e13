//! A writable layer out of what podman says was changed.
//!
//! podman packs what was added, and names what was deleted; of directories on the way there it says nothing, because
//! it unpacks over the image. A layer of overlayfs has such directories itself, and what it says of them is what
//! processes see: they are taken from the image.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::daemon::containers::checkpoint::archive::{Content, Whiteouts, bad, escape, split};
use crate::daemon::error::{Error, Result};
use crate::runtime::layer::tar::{Entry, Kind, Reader, Writer};
use crate::runtime::layer::{self, Limits};

/// What became of a root file system.
pub struct Changes<'a> {
    /// podman's archive of what was added; there is none if nothing was.
    pub diff: Option<&'a Path>,
    /// Relative to the root.
    pub deleted: &'a [String],
    /// Permission bits of the root directory.
    pub root_mode: u32,
    /// Where something is to be mounted, and whether that is a file.
    pub mount_points: &'a [(String, bool)],
}

/// Reads `deleted.files`, a list of absolute paths.
///
/// # Errors
/// InvalidParameter: it is none, or a path in it leads out of the root.
pub fn deleted(text: Option<&[u8]>) -> Result<Vec<String>> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let paths: Option<Vec<String>> =
        serde_json::from_slice(text).map_err(|cause| bad(format!("deleted.files: {cause}")))?;
    paths.into_iter().flatten().map(|path| Ok(escape(&plain(path.as_bytes())?))).collect()
}

/// A path below the root, without slashes around it. Empty for the root itself.
fn plain(path: &[u8]) -> Result<Vec<u8>> {
    let (parent, name) = split(path);
    let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
    let is_fine = |part: &[u8]| !matches!(part, b"" | b"." | b"..") && !part.starts_with(b".wh.");
    if !matches!(path.as_slice(), b"" | b".") && !path.split(|byte| *byte == b'/').all(is_fine) {
        return Err(bad(format!("{:?} is no path in a root file system", escape(&path))));
    }
    Ok(if path == b"." { Vec::new() } else { path })
}

/// The image's layers, topmost first.
struct Lower(Vec<OwnedFd>);

/// What an image has at a path.
enum Found {
    Directory(OwnedFd),
    Other,
    Nothing,
}

impl Lower {
    fn open(layers: &[PathBuf]) -> Result<Lower> {
        let open = |layer: &PathBuf| {
            rustix::fs::open(layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| Error::system(format!("open {layer:?}"), errno))
        };
        layers.iter().map(open).collect::<Result<_>>().map(Lower)
    }

    fn find(&self, path: &[u8]) -> Found {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        for layer in &self.0 {
            let inode = match rustix::fs::openat2(layer, path, flags, Mode::empty(), beneath) {
                Err(Errno::NOENT) => continue,
                Ok(inode) => inode,
                // A link or a whiteout on the way.
                Err(_) => return Found::Other,
            };
            let Ok(stat) = rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH) else { return Found::Other };
            return match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => Found::Directory(inode),
                // A whiteout.
                FileType::CharacterDevice if stat.st_rdev == 0 => Found::Nothing,
                _ => Found::Other,
            };
        }
        Found::Nothing
    }
}

struct Layer<W: Write> {
    writer: Writer<W>,
    lower: Lower,
    /// Directories and files that it has.
    known: BTreeSet<Vec<u8>>,
}

impl<W: Write> Layer<W> {
    fn append(&mut self, entry: &Entry, content: &mut dyn io::Read) -> Result<()> {
        self.writer.append(entry, content).map_err(|cause| Error::system("write rootfs.tar", cause))
    }

    /// Appends the directories that a path is in, as the image has them.
    fn append_parents(&mut self, path: &[u8]) -> Result<()> {
        for at in path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at) {
            let parent = &path[..at];
            if !self.known.insert(parent.to_vec()) {
                continue;
            }
            if let Found::Directory(inode) = self.lower.find(parent) {
                let entry = layer::describe_directory(inode.as_fd(), parent);
                let entry = entry.map_err(|cause| Error::system("read the image's directories", cause))?;
                self.append(&entry, &mut io::empty())?;
            }
        }
        Ok(())
    }
}

/// Writes the layer as a tar, `rootfs.tar` of a checkpoint, over an image's `layers`, topmost first.
///
/// # Errors
/// InvalidParameter: podman's archive is damaged, or leads out of the root; System.
pub fn write(layers: &[PathBuf], changes: &Changes<'_>, out: &Path) -> Result<()> {
    let failed = |cause: io::Error| Error::system(format!("write {out:?}"), cause);
    let file = File::options().write(true).create_new(true).mode(0o600).open(out).map_err(failed)?;
    let file = BufWriter::with_capacity(256 << 10, file);
    let mut layer = Layer { writer: Writer::new(file), lower: Lower::open(layers)?, known: BTreeSet::new() };
    layer.append(&Entry::new("./", Kind::Directory, changes.root_mode), &mut io::empty())?;
    for path in changes.deleted.iter().filter(|path| !path.is_empty()) {
        layer.append_parents(path.as_bytes())?;
        let whiteouts = Whiteouts { deleted: vec![path.clone()], ..Whiteouts::default() };
        for entry in whiteouts.entries() {
            layer.append(&entry, &mut io::empty())?;
        }
    }
    if let Some(diff) = changes.diff {
        copy(diff, changes.deleted, &mut layer)?;
    }
    for (destination, is_file) in changes.mount_points {
        let path = plain(destination.as_bytes())?;
        if layer.known.contains(&path) || !matches!(layer.lower.find(&path), Found::Nothing) {
            continue;
        }
        layer.append_parents(&path)?;
        let kind = if *is_file { Kind::File } else { Kind::Directory };
        layer.append(&Entry::new(path.clone(), kind, 0o755), &mut io::empty())?;
        layer.known.insert(path);
    }
    let (mut file, _) = layer.writer.finish().map_err(failed)?;
    file.flush().map_err(failed)
}

/// Copies podman's archive, and puts before an entry the directories it is in. podman deletes what is in `deleted` after it
/// has unpacked it; and of a directory that takes the place of a file nothing that the image had there is left.
fn copy<W: Write>(diff: &Path, deleted: &[String], layer: &mut Layer<W>) -> Result<()> {
    let deleted: BTreeSet<&str> = deleted.iter().map(String::as_str).collect();
    let mut files: BTreeSet<Vec<u8>> = BTreeSet::new();
    let file = File::open(diff).map_err(|cause| Error::system(format!("open {diff:?}"), cause))?;
    let mut reader = Reader::new(BufReader::new(file), Limits::default());
    while let Some(entry) = reader.next_entry().map_err(bad)? {
        let path = plain(&entry.path)?;
        if path.is_empty() || deleted.contains(escape(&path).as_str()) {
            continue;
        }
        if entry.sparse.is_some() {
            return Err(bad(format!("{:?} in its root file system is sparse", escape(&path))));
        }
        layer.append_parents(&path)?;
        layer.append(&entry, &mut Content(&mut reader))?;
        if entry.kind != Kind::Directory {
            files.insert(path.clone());
        } else if files.remove(&path) {
            let whiteouts = Whiteouts { opaque: vec![escape(&path)], ..Whiteouts::default() };
            for entry in whiteouts.entries() {
                layer.append(&entry, &mut io::empty())?;
            }
        }
        layer.known.insert(path);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-podman-rootfs-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn pack(path: &Path, entries: &[(&str, Kind, u32)]) {
        let mut writer = Writer::new(File::create(path).unwrap());
        for (path, kind, mode) in entries {
            writer.append(&Entry::new(*path, *kind, *mode), &mut io::empty()).unwrap();
        }
        writer.finish().unwrap();
    }

    fn listed(path: &Path) -> Vec<(String, u32)> {
        let mut reader = Reader::new(File::open(path).unwrap(), Limits::default());
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push((String::from_utf8(entry.path).unwrap(), entry.mode));
        }
        found
    }

    #[test]
    fn directories_on_the_way_are_the_images() {
        let dir = scratch("parents");
        let (top, bottom) = (dir.join("top"), dir.join("bottom"));
        for (path, mode) in [(&top, 0o755), (&bottom.join("srv/in"), 0o700), (&bottom.join("srv"), 0o1777)] {
            fs::create_dir_all(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        std::os::unix::fs::symlink("/", top.join("link")).unwrap();
        let diff = dir.join("diff.tar");
        pack(
            &diff,
            &[
                ("srv/old", Kind::File, 0o600),
                ("srv/in/new", Kind::File, 0o600),
                ("hidden", Kind::File, 0o600),
                ("hidden/", Kind::Directory, 0o700),
                ("fresh/", Kind::Directory, 0o711),
                ("fresh/file", Kind::File, 0o644),
                ("link/etc/file", Kind::File, 0o644),
            ],
        );
        let out = dir.join("rootfs.tar");
        let changes = Changes {
            diff: Some(&diff),
            deleted: &deleted(Some(br#"["/srv/old","/top"]"#)).unwrap(),
            root_mode: 0o555,
            mount_points: &[("/data".into(), false), ("/srv/in".into(), false), ("/etc/file".into(), true)],
        };
        write(&[top, bottom], &changes, &out).unwrap();
        let expected = [
            ("./", 0o555),
            ("srv/", 0o1777),
            ("srv/.wh.old", 0),
            (".wh.top", 0),
            ("srv/in/", 0o700),
            ("srv/in/new", 0o600),
            ("hidden", 0o600),
            ("hidden/", 0o700),
            ("hidden/.wh..wh..opq", 0),
            ("fresh/", 0o711),
            ("fresh/file", 0o644),
            ("link/etc/file", 0o644),
            ("data", 0o755),
            ("etc/file", 0o755),
        ];
        assert_eq!(listed(&out), expected.map(|(path, mode)| (path.to_owned(), mode)));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn paths_that_lead_out_of_it_are_refused() {
        let dir = scratch("hostile");
        for path in ["../x", "a/../../x", "a/./b", "a/.wh.b", ".wh..wh..opq", "a//b"] {
            let text = serde_json::to_vec(&[format!("/{path}")]).unwrap();
            assert!(deleted(Some(&text)).is_err(), "{path}");
            let diff = dir.join("diff.tar");
            pack(&diff, &[(path, Kind::File, 0o644)]);
            let changes = Changes { diff: Some(&diff), deleted: &[], root_mode: 0o755, mount_points: &[] };
            let out = dir.join("rootfs.tar");
            assert!(write(std::slice::from_ref(&dir), &changes, &out).is_err(), "{path}");
            let _ = fs::remove_file(&out);
        }
        assert_eq!(deleted(Some(b"null")).unwrap(), Vec::<String>::new());
        assert!(deleted(Some(b"7")).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }
}
