//! A checkpoint whose memory is kept compressed.
//!
//! ```text
//!  images/pages-1.img   ── pack, before it is sealed ──▶   images/pages-1.img.zst
//!  NAME.open.partial/   links to everything in NAME/, and the pages as CRIU reads them    ◀── unpack, for a thaw
//! ```
//!
//! The other images stay as they are: they are small, and are read to say what is in the checkpoint. It costs no time
//! that the container stands still, and while it is thawed the space of its memory.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::manifest::{MANIFEST, Manifest, PARTIAL};
use super::seal;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{self, Compression};
use crate::daemon::state_dir;

const IMAGES: &str = "images";
const PACKED: &str = ".zst";
/// Of a file that is being written.
const FRESH: &str = ".new";
const BUFFER_BYTES: usize = 1 << 20;

/// The names in `images`, of files that CRIU wrote memory to or of those compressed.
fn pages(dir: &Path, ending: &str) -> io::Result<Vec<String>> {
    let names = fs::read_dir(dir.join(IMAGES))?.map(|entry| Ok(entry?.file_name()));
    let names = names.collect::<io::Result<Vec<_>>>()?.into_iter().filter_map(|name| name.into_string().ok());
    Ok(names.filter(|name| name.starts_with("pages-") && name.ends_with(ending)).collect())
}

/// Compresses the memory in a checkpoint that is being made. What was compressed before is left as it is.
///
/// # Errors
/// System; every file is there in one form or the other.
pub fn pack(dir: &Path) -> Result<()> {
    let attempt = |cause: io::Error| Error::system(format!("compress the memory in {dir:?}"), cause);
    for left in pages(dir, FRESH).map_err(attempt)? {
        fs::remove_file(dir.join(IMAGES).join(left)).map_err(attempt)?;
    }
    for name in pages(dir, ".img").map_err(attempt)? {
        let plain = dir.join(IMAGES).join(&name);
        let fresh = dir.join(IMAGES).join(format!("{name}{PACKED}{FRESH}"));
        let write = || -> io::Result<()> {
            let mut file = File::open(&plain)?;
            let mut out = BufWriter::with_capacity(BUFFER_BYTES, create(&fresh)?);
            Compression::Zstd.write(&mut out, |out| io::copy(&mut file, out).map(drop))?;
            out.flush()?;
            fs::rename(&fresh, dir.join(IMAGES).join(format!("{name}{PACKED}")))?;
            fs::remove_file(&plain)
        };
        write().map_err(|cause| {
            let _ = fs::remove_file(&fresh);
            attempt(cause)
        })?;
    }
    Ok(())
}

/// A checkpoint as CRIU reads it; what was made for that goes when this does.
#[derive(Debug)]
pub struct Unpacked {
    path: PathBuf,
    is_made: bool,
}

impl Unpacked {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        if self.is_made
            && let Err(error) = state_dir::remove_tree(&self.path)
        {
            log::warn!("{error}");
        }
    }
}

/// Gives the checkpoint in `dir` with its memory uncompressed: itself, unless it is compressed. Blocks for as long as
/// that takes; nobody else may unpack or remove it meanwhile.
///
/// # Errors
/// System; nothing is left behind.
pub fn unpack(dir: &Path, manifest: &Manifest) -> Result<Unpacked> {
    if !manifest.options.compress {
        return Ok(Unpacked { path: dir.to_owned(), is_made: false });
    }
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    // Swept like a checkpoint that is half made.
    let path = dir.with_file_name(format!("{name}.open{PARTIAL}"));
    state_dir::remove_tree(&path)?;
    let unpacked = Unpacked { path, is_made: true };
    fill(dir, &name, &unpacked.path)
        .map_err(|cause| Error::system(format!("uncompress the memory in {dir:?}"), cause))?;
    Ok(unpacked)
}

fn fill(dir: &Path, name: &str, path: &Path) -> io::Result<()> {
    let make = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
    make(path)?;
    make(&path.join(IMAGES))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?.file_name();
        if entry != IMAGES && entry != MANIFEST {
            symlink(Path::new("..").join(name).join(&entry), path.join(&entry))?;
        }
    }
    let packed = pages(dir, PACKED)?;
    for entry in fs::read_dir(dir.join(IMAGES))? {
        let entry = entry?.file_name();
        if entry.to_str().is_none_or(|entry| !packed.iter().any(|name| name == entry)) {
            symlink(Path::new("../..").join(name).join(IMAGES).join(&entry), path.join(IMAGES).join(&entry))?;
        }
    }
    for name in packed {
        let file = seal::open(&dir.join(IMAGES).join(&name))?;
        let mut out = create(&path.join(IMAGES).join(name.trim_end_matches(PACKED)))?;
        let stream = codec::decompress(io::BufReader::with_capacity(BUFFER_BYTES, file));
        io::copy(&mut stream.map_err(|error| io::Error::other(error.to_string()))?, &mut out)?;
    }
    Ok(())
}

fn create(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Refuses to let anything run before its memory is there, when that must be uncompressed first.
///
/// # Errors
/// InvalidParameter.
pub fn check_lazy(manifest: &Manifest) -> Result<()> {
    match manifest.options.compress {
        true => {
            Err(Error::invalid("its memory is compressed, and cannot be brought later: leave --lazy out"))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::containers::checkpoint::manifest::Options;

    #[test]
    fn memory_is_as_it_was_and_a_second_try_goes_on() {
        let parent = std::env::temp_dir().join(format!("dewar-pack-{}", std::process::id()));
        let _ = fs::remove_dir_all(&parent);
        let dir = parent.join("cp");
        fs::create_dir_all(dir.join(IMAGES)).unwrap();
        let memory: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 900) as u8).collect();
        for (name, bytes) in [("pages-1.img", &memory[..]), ("pages-12.img", b""), ("core-1.img", b"core")] {
            fs::write(dir.join(IMAGES).join(name), bytes).unwrap();
        }
        fs::write(dir.join("shm.tar"), "archive").unwrap();
        // Cut off half way, once.
        fs::write(dir.join(IMAGES).join("pages-1.img.zst.new"), "half").unwrap();
        pack(&dir).unwrap();
        pack(&dir).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(dir.join(IMAGES)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["core-1.img", "pages-1.img.zst", "pages-12.img.zst"]);
        assert!(fs::metadata(dir.join("images/pages-1.img.zst")).unwrap().len() < 100_000);

        let options = Options { compress: true, ..Options::default() };
        let manifest = Manifest { options, ..Manifest::default() };
        let unpacked = unpack(&dir, &manifest).unwrap();
        let read = |name: &str| fs::read(unpacked.path().join(name)).unwrap();
        assert!(read("images/pages-1.img") == memory && read("images/pages-12.img").is_empty());
        assert_eq!((read("images/core-1.img"), read("shm.tar")), (b"core".to_vec(), b"archive".to_vec()));
        drop(unpacked);
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 1);

        let plain = unpack(&dir, &Manifest::default()).unwrap();
        assert_eq!(plain.path(), dir);
        drop(plain);
        assert!(dir.exists());
        fs::remove_dir_all(&parent).unwrap();
    }
}
