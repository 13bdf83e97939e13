//! Sizes and digests of a checkpoint's files: taken when they are written, compared before they are used.
//!
//! When a checkpoint is used, a large file that lies where it was written, in the same life of the kernel, and whose inode
//! says that nobody touched it since, is not read again; every other file is. So the digest of a large file may
//! come later ([`digests`](super::digests)): the inode is enough until then.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST, Manifest};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{Digest, Hashing};
use crate::runtime::criu::predump;

/// Files up to this size are always read: that takes milliseconds.
const SMALL_BYTES: u64 = 4 << 20;
const CHUNK_BYTES: usize = 256 * 1024;
/// What became of a file without a digest.
const UNKNOWN: &str =
    "had no digest yet when the machine went down, so that nobody knows whether all of it was written";

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub bytes: u64,
    /// Of a large file this may come later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// When it was sealed.
    #[serde(default)]
    inode: u64,
    /// Seconds and nanoseconds of its last change of any kind.
    #[serde(default)]
    changed: [i64; 2],
}

impl Sealed {
    /// A file that nobody has sealed yet.
    pub fn of(bytes: u64, sha256: Digest) -> Sealed {
        Sealed { bytes, sha256: Some(sha256), inode: 0, changed: [0, 0] }
    }

    /// A file as it is now.
    fn now(meta: &fs::Metadata, bytes: u64, sha256: Option<Digest>) -> Sealed {
        Sealed { bytes, sha256, inode: meta.ino(), changed: [meta.ctime(), meta.ctime_nsec()] }
    }

    /// Whether this is the file that `other` was said of, and nobody touched it since.
    pub fn is_same_but_digest(&self, other: &Sealed) -> bool {
        (self.bytes, self.inode, self.changed) == (other.bytes, other.inode, other.changed)
    }
}

/// Digest and size of what was digested by whoever wrote it, by path.
pub type Known = BTreeMap<PathBuf, (Digest, u64)>;

/// Digest and size of a file from where it stands. `look` is called between two pieces.
fn digest(file: &mut File, look: &mut dyn FnMut(&File) -> io::Result<()>) -> io::Result<(Digest, u64)> {
    let mut hashing = Hashing::new(io::sink());
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        look(file)?;
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hashing.finish()),
            Ok(count) => hashing.write_all(&buffer[..count])?,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
}

/// A new file in directory `scratch` that has no name and goes when it is closed.
pub fn unnamed(scratch: &Path) -> Result<File> {
    File::options()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlags::TMPFILE.bits() as i32)
        .open(scratch)
        .map_err(|cause| Error::system(format!("write into {scratch:?}"), cause))
}

/// Opens a file of a checkpoint, which is no link and nothing that could keep its reader waiting.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32).open(path)
}

/// Every file below `dir` by its path there. Only files and directories belong into a checkpoint, and the links by which
/// images find the memory that was written before them.
fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    let attempt = |cause: io::Error| Error::system(format!("list {dir:?}"), cause);
    for entry in fs::read_dir(dir).map_err(attempt)? {
        let entry = entry.map_err(attempt)?;
        let name = entry.file_name().into_string().map_err(|name| {
            Error::system(format!("list {dir:?}"), format!("{name:?} does not belong into a checkpoint"))
        })?;
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        match entry.file_type().map_err(attempt)? {
            kind if kind.is_dir() => walk(&entry.path(), &path, found)?,
            kind if kind.is_file() => found.push(path),
            kind if kind.is_symlink() && is_parent(prefix, &entry).map_err(attempt)? => {}
            _ => {
                return Err(Error::system(
                    format!("list {dir:?}"),
                    format!("{path:?} is neither a file nor a directory"),
                ));
            }
        }
    }
    Ok(())
}

fn is_parent(directory: &str, link: &fs::DirEntry) -> io::Result<bool> {
    let target = fs::read_link(link.path())?;
    Ok(link.file_name().to_str().is_some_and(|name| predump::is_parent(directory, name, &target)))
}

/// Makes everything below `dir` readable by its owner only, and gives size and digest of every file.
pub fn seal(dir: &Path, mut known: Known) -> Result<BTreeMap<String, Sealed>> {
    seal_each(dir, |path| seal_one(path, known.remove(path)))
}

/// As [`seal`], but large files get their digests later: [`late`].
pub fn seal_small(dir: &Path) -> Result<BTreeMap<String, Sealed>> {
    seal_each(dir, |path| {
        let meta = fs::symlink_metadata(path)?;
        match meta.len() > SMALL_BYTES {
            true => Ok(Sealed::now(&meta, meta.len(), None)),
            false => seal_one(path, None),
        }
    })
}

fn seal_each(
    dir: &Path,
    mut seal_one: impl FnMut(&Path) -> io::Result<Sealed>,
) -> Result<BTreeMap<String, Sealed>> {
    let mut names = Vec::new();
    walk(dir, "", &mut names)?;
    let mut files = BTreeMap::new();
    for name in names.into_iter().filter(|name| name != MANIFEST) {
        let path = dir.join(&name);
        let attempt = |cause: io::Error| Error::system(format!("seal {path:?}"), cause);
        restrict(path.parent().unwrap_or(dir), 0o700).map_err(attempt)?;
        restrict(&path, 0o600).map_err(attempt)?;
        files.insert(name, seal_one(&path).map_err(attempt)?);
    }
    Ok(files)
}

/// What is said of a file that is written and whose digest is known.
///
/// # Errors
/// System, when it cannot be looked at.
pub fn sealed(path: &Path, sha256: Digest, bytes: u64) -> Result<Sealed> {
    let look = || -> io::Result<fs::Metadata> {
        restrict(path, 0o600)?;
        fs::symlink_metadata(path)
    };
    let meta = look().map_err(|cause| Error::system(format!("seal {path:?}"), cause))?;
    Ok(Sealed::now(&meta, bytes, Some(sha256)))
}

/// The sizes of the files below `dir`, by path there.
pub fn sizes(dir: &Path) -> Result<Vec<(String, u64)>> {
    let mut names = Vec::new();
    walk(dir, "", &mut names)?;
    let sized = names.into_iter().filter_map(|name| {
        let bytes = fs::symlink_metadata(dir.join(&name)).ok()?.len();
        Some((name, bytes))
    });
    Ok(sized.collect())
}

fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    if fs::symlink_metadata(path)?.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn seal_one(path: &Path, known: Option<(Digest, u64)>) -> io::Result<Sealed> {
    let mut file = open(path)?;
    let (sha256, bytes) = match known {
        Some(known) => known,
        None => digest(&mut file, &mut |_| Ok(()))?,
    };
    Ok(Sealed::now(&file.metadata()?, bytes, Some(sha256)))
}

/// The files of the checkpoint in `dir` that have no digest yet, with it. Calls `rest` between two pieces.
///
/// # Errors
/// A file cannot be read, is gone, or has changed since it was sealed, or may have: in another life of the kernel.
pub fn late(
    dir: &Path,
    manifest: &Manifest,
    boot_id: &str,
    rest: &dyn Fn(),
) -> Result<BTreeMap<String, Sealed>> {
    let mut taken = BTreeMap::new();
    for (name, sealed) in manifest.files.iter().filter(|(_, sealed)| sealed.sha256.is_none()) {
        if manifest.boot_id != boot_id {
            return Err(Error::conflict(format!("its file {name} {UNKNOWN}")));
        }
        let path = path_of(dir, name)?;
        let look = |file: &File| -> io::Result<()> {
            rest();
            let meta = file.metadata()?;
            match Sealed::now(&meta, meta.len(), None).is_same_but_digest(sealed) {
                true => Ok(()),
                false => Err(io::Error::other("it is not what it was when it was written")),
            }
        };
        let read = || -> io::Result<Sealed> {
            let mut file = open(&path)?;
            let (sha256, bytes) = digest(&mut file, &mut |file| look(file))?;
            Ok(Sealed { bytes, sha256: Some(sha256), ..sealed.clone() })
        };
        let sealed = read().map_err(|cause| Error::system(format!("digest {path:?}"), cause))?;
        taken.insert(name.clone(), sealed);
    }
    Ok(taken)
}

/// Where a file is, by its name in a manifest, which may be anybody's.
fn path_of(dir: &Path, name: &str) -> Result<PathBuf> {
    let is_below = !name.is_empty()
        && Path::new(name).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    match is_below {
        true => Ok(dir.join(name)),
        false => Err(Error::conflict(format!("its file {name} is not in its directory"))),
    }
}

/// Compares the checkpoint in `dir` with what its manifest says; one of version 1 says nothing. With `is_trusted` a file
/// whose digest was never taken is as it should be, if it has its size.
///
/// # Errors
/// Conflict: a file is missing, has changed, or is one of CRIU's that was not part of it.
pub fn verify(dir: &Path, manifest: &Manifest, boot_id: &str, is_trusted: bool) -> Result<()> {
    if manifest.files.is_empty() {
        return Ok(());
    }
    let is_same_boot = !boot_id.is_empty() && manifest.boot_id == boot_id;
    for (name, sealed) in &manifest.files {
        let altered = |how: &str| Error::conflict(format!("its file {name} {how}"));
        let mut file = match open(&path_of(dir, name)?) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(altered("is missing")),
            Err(cause) => return Err(altered(&format!("cannot be read: {cause}"))),
        };
        let unread = |cause: io::Error| altered(&format!("cannot be read: {cause}"));
        let meta = file.metadata().map_err(unread)?;
        let is_untouched = is_same_boot && Sealed::now(&meta, meta.len(), None).is_same_but_digest(sealed);
        let is_as_it_was = meta.is_file()
            && meta.len() == sealed.bytes
            && match &sealed.sha256 {
                _ if is_untouched && sealed.bytes > SMALL_BYTES => true,
                Some(sha256) => digest(&mut file, &mut |_| Ok(())).map_err(unread)?.0 == *sha256,
                None if is_same_boot => false,
                None if is_trusted => true,
                None => return Err(altered(&format!("{UNKNOWN}; --trust thaws it as it is"))),
            };
        if !is_as_it_was {
            return Err(altered("is not what it was when the checkpoint was taken"));
        }
    }
    let mut present = Vec::new();
    walk(dir, "", &mut present)?;
    let foreign = present.iter().find(|name| is_images(name) && !manifest.files.contains_key(*name));
    match foreign {
        Some(name) => Err(Error::conflict(format!("its file {name} was not part of it when it was taken"))),
        None => Ok(()),
    }
}

/// Whether a file is one that CRIU reads.
fn is_images(name: &str) -> bool {
    name.starts_with("images/") || name.split_once('/').is_some_and(|(first, _)| first == predump::DIRECTORY)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::{Digesting, UnderWay};
    use super::*;
    use crate::daemon::containers::container::Record;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-seal-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("cp.partial/images")).unwrap();
        dir
    }

    fn published(dir: &Path) -> (PathBuf, Manifest) {
        let under_way = UnderWay { dir: dir.to_owned(), name: "cp".into(), ..UnderWay::default() };
        under_way.publish(&Record::default(), Digesting::Now).unwrap();
        let whole = dir.join("cp");
        let manifest = Manifest::load(&whole).unwrap();
        (whole, manifest)
    }

    #[test]
    fn what_was_sealed_is_known_again_and_nothing_else() {
        let dir = scratch("verify");
        fs::write(dir.join("cp.partial/images/core-1.img"), "core").unwrap();
        fs::write(dir.join("cp.partial/rootfs.tar"), "tar").unwrap();
        let (whole, manifest) = published(&dir);
        assert_eq!(manifest.bytes(), 7);
        let refusal = || verify(&whole, &manifest, "a boot", false).unwrap_err().message;
        verify(&whole, &manifest, "a boot", false).unwrap();
        for (path, mode) in [("images", 0o700), ("rootfs.tar", 0o600), ("images/core-1.img", 0o600)] {
            assert_eq!(fs::metadata(whole.join(path)).unwrap().mode() & 0o777, mode, "{path}");
        }
        fs::write(whole.join("images/core-1.img"), "cure").unwrap();
        assert!(refusal().contains("images/core-1.img is not what it was"), "{}", refusal());
        fs::write(whole.join("images/core-1.img"), "core").unwrap();
        verify(&whole, &manifest, "a boot", false).unwrap();
        fs::write(whole.join("images/pages-2.img"), "more").unwrap();
        assert!(refusal().contains("images/pages-2.img was not part of it"), "{}", refusal());
        fs::remove_file(whole.join("images/pages-2.img")).unwrap();
        fs::remove_file(whole.join("rootfs.tar")).unwrap();
        assert!(refusal().contains("rootfs.tar is missing"), "{}", refusal());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn links_to_memory_that_was_written_before_are_none_of_its_files() {
        let dir = scratch("links");
        let partial = dir.join("cp.partial");
        fs::create_dir_all(partial.join("memory/1")).unwrap();
        fs::write(partial.join("memory/1/pages-1.img"), "pages").unwrap();
        predump::link(&partial, 1).unwrap();
        let (whole, manifest) = published(&dir);
        assert_eq!(manifest.files.keys().collect::<Vec<_>>(), ["memory/1/pages-1.img"]);
        verify(&whole, &manifest, "", false).unwrap();
        fs::write(whole.join("memory/1/pages-2.img"), "more").unwrap();
        assert!(verify(&whole, &manifest, "", false).unwrap_err().message.contains("was not part of it"));
        fs::remove_file(whole.join("memory/1/pages-2.img")).unwrap();
        fs::remove_file(whole.join("images/parent")).unwrap();
        std::os::unix::fs::symlink("../../elsewhere", whole.join("images/parent")).unwrap();
        assert!(verify(&whole, &manifest, "", false).unwrap_err().message.contains("neither a file nor"));
        fs::remove_dir_all(&dir).unwrap();
    }

    /// Its manifest may be anybody's.
    #[test]
    fn a_manifest_leads_nowhere_else() {
        let dir = scratch("away");
        fs::write(dir.join("cp.partial/rootfs.tar"), "tar").unwrap();
        let (whole, mut manifest) = published(&dir);
        let sealed = manifest.files["rootfs.tar"].clone();
        for name in ["../cp/rootfs.tar", "/etc/passwd", ""] {
            manifest.files = [(name.to_owned(), sealed.clone())].into();
            assert!(verify(&whole, &manifest, "", false).is_err(), "{name:?}");
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_large_file_is_read_again_unless_its_inode_is_as_it_was() {
        let dir = scratch("large");
        let pages = dir.join("cp.partial/images/pages-1.img");
        fs::write(&pages, vec![7; SMALL_BYTES as usize + 1]).unwrap();
        let (whole, mut manifest) = published(&dir);
        let boot = manifest.boot_id.clone();
        verify(&whole, &manifest, &boot, false).unwrap();
        // A digest that is wrong is only noticed by reading.
        let sealed = manifest.files.get_mut("images/pages-1.img").unwrap();
        sealed.sha256 = Some(Digest::of(b"another"));
        verify(&whole, &manifest, &boot, false).unwrap();
        assert!(verify(&whole, &manifest, "another boot", false).is_err());
        let path = whole.join("images/pages-1.img");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(verify(&whole, &manifest, &boot, false).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    /// As it is published when nobody waits for the digests of large files.
    #[test]
    fn a_large_file_is_known_without_its_digest_until_the_machine_goes_down() {
        let dir = scratch("late");
        let content = vec![7; SMALL_BYTES as usize + 1];
        fs::write(dir.join("cp.partial/images/pages-1.img"), &content).unwrap();
        fs::write(dir.join("cp.partial/images/core-1.img"), "core").unwrap();
        let under_way = UnderWay { dir: dir.clone(), name: "cp".into(), ..UnderWay::default() };
        let told = under_way.publish(&Record::default(), Digesting::Later).unwrap();
        let whole = dir.join("cp");
        let manifest = Manifest::load(&whole).unwrap();
        assert!(!manifest.has_digests() && !told.has_digests());
        let [core, pages] = ["images/core-1.img", "images/pages-1.img"].map(|name| &manifest.files[name]);
        assert_eq!((core.sha256.is_some(), &pages.sha256, pages.bytes), (true, &None, content.len() as u64));
        let (here, pages_path) = (manifest.boot_id.as_str(), whole.join("images/pages-1.img"));
        verify(&whole, &manifest, here, false).unwrap();
        let refusal = verify(&whole, &manifest, "another boot", false).unwrap_err().message;
        assert!(refusal.contains("images/pages-1.img had no digest yet"), "{refusal}");
        verify(&whole, &manifest, "another boot", true).unwrap();
        assert!(late(&whole, &manifest, "another boot", &|| {}).is_err(), "nobody vouches for it");

        let rests = std::cell::Cell::new(0);
        let taken = late(&whole, &manifest, here, &|| rests.set(rests.get() + 1)).unwrap();
        assert_eq!(taken["images/pages-1.img"].sha256, Some(Digest::of(&content)));
        assert!(taken.len() == 1 && rests.get() > 16, "{} rests", rests.get());
        // Touched before its digest was taken: in no boot is it what it was, and there is none to be taken.
        fs::write(&pages_path, vec![8; content.len()]).unwrap();
        for boot in [here, "another boot"] {
            assert!(verify(&whole, &manifest, boot, false).is_err(), "{boot}");
        }
        assert!(verify(&whole, &manifest, here, true).unwrap_err().message.contains("is not what it was"));
        assert!(late(&whole, &manifest, here, &|| {}).unwrap_err().message.contains("is not what it was"));
        fs::write(&pages_path, "short").unwrap();
        assert!(verify(&whole, &manifest, "another boot", true).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_its_writer_has_digested_is_not_read() {
        let dir = scratch("known");
        let partial = dir.join("cp.partial");
        fs::write(partial.join("rootfs.tar"), "tar").unwrap();
        let told = Digest::of(b"told");
        let known = Known::from([(partial.join("rootfs.tar"), (told.clone(), 3))]);
        assert_eq!(seal(&partial, known).unwrap()["rootfs.tar"].sha256, Some(told));
        fs::remove_dir_all(&dir).unwrap();
    }
}
