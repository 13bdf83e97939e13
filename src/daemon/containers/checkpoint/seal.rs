//! Sizes and digests of a checkpoint's files: taken while they are written, compared before they are used.
//!
//! Large files are digested by a thread that follows CRIU and the shim as they append to them, so that little is left
//! to do when the last byte is written. When a checkpoint is used, a large file that lies where it was written,
//! in the same life of the kernel, and whose inode says that nobody touched it since, is not read again; every other
//! file is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST, Manifest};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{Digest, Hashing};
use crate::runtime::criu::predump;

/// Files up to this size are always read: that takes milliseconds.
const SMALL_BYTES: u64 = 16 << 20;
const CHUNK_BYTES: usize = 256 * 1024;
/// How often it is looked for what was appended.
const PACE: Duration = Duration::from_millis(5);

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    pub bytes: u64,
    pub sha256: Digest,
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
        Sealed { bytes, sha256, inode: 0, changed: [0, 0] }
    }
}

/// What a [`Follower`] has digested, by path.
pub type Followed = BTreeMap<PathBuf, Begun>;

/// The digest of a file's beginning, and how long that is.
pub struct Begun {
    hashing: Hashing<io::Sink>,
    bytes: u64,
    /// The digest of all of it, if that is known.
    whole: Option<Digest>,
}

impl Default for Begun {
    fn default() -> Begun {
        Begun { hashing: Hashing::new(io::sink()), bytes: 0, whole: None }
    }
}

impl Begun {
    /// A file that was digested by whoever wrote all of it.
    pub fn whole(digest: Digest, bytes: u64) -> Begun {
        Begun { bytes, whole: Some(digest), ..Begun::default() }
    }
}

/// Digests what is appended to the large files below a directory.
pub struct Follower {
    is_done: Arc<AtomicBool>,
    thread: Option<JoinHandle<Followed>>,
}

impl Follower {
    /// Begins. Without a thread to spare, all is digested at the end.
    pub fn of(dir: PathBuf) -> Follower {
        let is_done = Arc::new(AtomicBool::new(false));
        let done = Arc::clone(&is_done);
        let follow = move || {
            let mut followed = Followed::new();
            let mut files = BTreeMap::new();
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(PACE);
                // What cannot be read now is tried again by whoever seals it.
                let _ = advance(&dir, &mut files, &mut followed);
            }
            followed
        };
        let thread = std::thread::Builder::new().name("checkpoint-digest".into()).spawn(follow);
        Follower { is_done, thread: thread.ok() }
    }

    /// Ends; what was digested so far.
    pub fn finish(mut self) -> Followed {
        self.is_done.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.is_done.store(true, Ordering::Relaxed);
    }
}

/// Only written by appending: pages as CRIU finds them, archives as they are packed.
fn is_appended_to(name: &str) -> bool {
    name.ends_with(".tar") || (name.starts_with("pages-") && name.ends_with(".img"))
}

fn advance(dir: &Path, files: &mut BTreeMap<PathBuf, File>, followed: &mut Followed) -> io::Result<()> {
    for below in ["", "images", "volumes"] {
        let Ok(entries) = fs::read_dir(dir.join(below)) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_name().to_str().is_some_and(is_appended_to) && !files.contains_key(&path) {
                files.insert(path, open(&entry.path())?);
            }
        }
    }
    for (path, file) in files {
        // Small ones are quicker read than followed.
        if file.metadata()?.len() > CHUNK_BYTES as u64 || followed.contains_key(path) {
            digest_rest(file, followed.entry(path.clone()).or_default())?;
        }
    }
    Ok(())
}

/// Reads from where the file stands to its present end.
fn digest_rest(file: &mut File, begun: &mut Begun) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                begun.hashing.write_all(&buffer[..count])?;
                begun.bytes += count as u64;
            }
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
pub fn seal(dir: &Path, mut followed: Followed) -> Result<BTreeMap<String, Sealed>> {
    let mut names = Vec::new();
    walk(dir, "", &mut names)?;
    let mut files = BTreeMap::new();
    for name in names.into_iter().filter(|name| name != MANIFEST) {
        let path = dir.join(&name);
        let attempt = |cause: io::Error| Error::system(format!("seal {path:?}"), cause);
        restrict(path.parent().unwrap_or(dir), 0o700).map_err(attempt)?;
        restrict(&path, 0o600).map_err(attempt)?;
        let begun = followed.remove(&path).unwrap_or_default();
        let sealed = seal_one(&path, begun).map_err(attempt)?;
        files.insert(name, sealed);
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
    Ok(Sealed { bytes, sha256, inode: meta.ino(), changed: [meta.ctime(), meta.ctime_nsec()] })
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

fn seal_one(path: &Path, begun: Begun) -> io::Result<Sealed> {
    let mut file = open(path)?;
    let (sha256, bytes) = digest(&mut file, begun)?;
    let meta = file.metadata()?;
    Ok(Sealed { bytes, sha256, inode: meta.ino(), changed: [meta.ctime(), meta.ctime_nsec()] })
}

/// The digest and size of a whole file that has `begun`.
fn digest(file: &mut File, mut begun: Begun) -> io::Result<(Digest, u64)> {
    if let Some(whole) = begun.whole {
        return Ok((whole, begun.bytes));
    }
    io::Seek::seek(file, io::SeekFrom::Start(begun.bytes))?;
    digest_rest(file, &mut begun)?;
    Ok(begun.hashing.finish())
}

/// Compares the checkpoint in `dir` with what its manifest says; one of version 1 says nothing.
///
/// # Errors
/// Conflict: a file is missing, has changed, or is one of CRIU's that was not part of it.
pub fn verify(dir: &Path, manifest: &Manifest, boot_id: &str) -> Result<()> {
    if manifest.files.is_empty() {
        return Ok(());
    }
    let is_same_boot = !boot_id.is_empty() && manifest.boot_id == boot_id;
    for (name, sealed) in &manifest.files {
        let altered = |how: &str| Error::conflict(format!("its file {name} {how}"));
        if Path::new(name).components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            return Err(altered("is not in its directory"));
        }
        let mut file = match open(&dir.join(name)) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(altered("is missing")),
            Err(cause) => return Err(altered(&format!("cannot be read: {cause}"))),
        };
        let read = |file: &mut File| -> io::Result<bool> {
            let meta = file.metadata()?;
            if !meta.is_file() || meta.len() != sealed.bytes {
                return Ok(false);
            }
            let is_untouched =
                meta.ino() == sealed.inode && [meta.ctime(), meta.ctime_nsec()] == sealed.changed;
            if is_same_boot && is_untouched && sealed.bytes > SMALL_BYTES {
                return Ok(true);
            }
            Ok(digest(file, Begun::default())?.0 == sealed.sha256)
        };
        match read(&mut file) {
            Ok(true) => {}
            Ok(false) => return Err(altered("is not what it was when the checkpoint was taken")),
            Err(cause) => return Err(altered(&format!("cannot be read: {cause}"))),
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
    use super::super::manifest::UnderWay;
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
        under_way.publish(&Record::default(), Followed::new()).unwrap();
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
        let refusal = || verify(&whole, &manifest, "a boot").unwrap_err().message;
        verify(&whole, &manifest, "a boot").unwrap();
        for (path, mode) in [("images", 0o700), ("rootfs.tar", 0o600), ("images/core-1.img", 0o600)] {
            assert_eq!(fs::metadata(whole.join(path)).unwrap().mode() & 0o777, mode, "{path}");
        }
        fs::write(whole.join("images/core-1.img"), "cure").unwrap();
        assert!(refusal().contains("images/core-1.img is not what it was"), "{}", refusal());
        fs::write(whole.join("images/core-1.img"), "core").unwrap();
        verify(&whole, &manifest, "a boot").unwrap();
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
        verify(&whole, &manifest, "").unwrap();
        fs::write(whole.join("memory/1/pages-2.img"), "more").unwrap();
        assert!(verify(&whole, &manifest, "").unwrap_err().message.contains("was not part of it"));
        fs::remove_file(whole.join("memory/1/pages-2.img")).unwrap();
        fs::remove_file(whole.join("images/parent")).unwrap();
        std::os::unix::fs::symlink("../../elsewhere", whole.join("images/parent")).unwrap();
        assert!(verify(&whole, &manifest, "").unwrap_err().message.contains("neither a file nor"));
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
            assert!(verify(&whole, &manifest, "").is_err(), "{name:?}");
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
        verify(&whole, &manifest, &boot).unwrap();
        // A digest that is wrong is only noticed by reading.
        let sealed = manifest.files.get_mut("images/pages-1.img").unwrap();
        sealed.sha256 = Digest::of(b"another");
        verify(&whole, &manifest, &boot).unwrap();
        assert!(verify(&whole, &manifest, "another boot").is_err());
        let path = whole.join("images/pages-1.img");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        assert!(verify(&whole, &manifest, &boot).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_was_followed_has_the_digest_of_the_whole() {
        let dir = scratch("follow");
        let partial = dir.join("cp.partial");
        let follower = Follower::of(partial.clone());
        let mut file = File::create(partial.join("images/pages-1.img")).unwrap();
        let mut content = Vec::new();
        for round in 0..20_u8 {
            let part = vec![round; 100_000];
            file.write_all(&part).unwrap();
            content.extend(part);
            std::thread::sleep(Duration::from_millis(2));
        }
        let followed = follower.finish();
        let files = seal(&partial, followed).unwrap();
        let sealed = &files["images/pages-1.img"];
        assert_eq!((sealed.bytes, &sealed.sha256), (content.len() as u64, &Digest::of(&content)));
        fs::remove_dir_all(&dir).unwrap();
    }
}
