//! Version 2 of the archive: a checkpoint that is written while it is made, when nobody knows yet how long anything is.
//!
//! ```text
//!  dewar.json           as in version 1, but its manifest has no files yet
//!  images/pages-1.img   a piece of that file, under the name it has in the directory
//!  images/core-1.img    a piece of another
//!  images/pages-1.img   the next piece of the first
//!  …
//!  dewar-end.json       size and SHA-256 of all files: nothing of the archive counts without it
//! ```
//!
//! Podman and checkpointctl do not read it; an import and an export make version 1 of it. As there, nothing of an archive
//! is believed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::{
    Content, HEADER, Header, IS_PIECES, MOST_TEXT, Whiteouts, bad, check_space, expected, is_plain,
    read_rest, text,
};
use crate::daemon::containers::checkpoint::manifest::Manifest;
use crate::daemon::containers::checkpoint::seal::{self, Known, Sealed};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Hashing;
use crate::runtime::criu::images;
use crate::runtime::layer::tar::{self, Entry, Kind};

/// The last member.
const END: &str = "dewar-end.json";
/// Each has a digest under way.
const MOST_STREAMED: usize = 1 << 17;
/// So often it is looked whether there is still room.
const PACE_BYTES: u64 = 64 << 20;

/// `dewar-end.json`.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    files: BTreeMap<String, Sealed>,
}

/// Writes one, uncompressed.
pub struct Writer<W: Write> {
    tar: tar::Writer<BufWriter<W>>,
    files: BTreeMap<String, Hashing<io::Sink>>,
}

impl<W: Write> Writer<W> {
    /// Begins with what is known of it; the manifest's files are not.
    pub fn new(out: W, manifest: Manifest) -> io::Result<Writer<W>> {
        let header = Header { version: IS_PIECES, manifest, whiteouts: Whiteouts::default() };
        let text = serde_json::to_vec(&header)?;
        let mut tar = tar::Writer::new(BufWriter::with_capacity(256 << 10, out));
        append(&mut tar, HEADER, &text)?;
        Ok(Writer { tar, files: BTreeMap::new() })
    }

    /// The next piece of a file; one of no bytes makes an empty file.
    ///
    /// # Errors
    /// Of what it is written to; the name is none of a checkpoint's files.
    pub fn piece(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !is_plain(name) {
            let text = format!("{name:?} is no name of a file in a checkpoint");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let is_new = !self.files.contains_key(name);
        let hashing = self.files.entry(name.to_owned()).or_insert_with(|| Hashing::new(io::sink()));
        hashing.write_all(bytes)?;
        if is_new || !bytes.is_empty() {
            append(&mut self.tar, name, bytes)?;
        }
        Ok(())
    }

    /// The rest: with it the archive is whole.
    pub fn finish(mut self) -> io::Result<()> {
        let sealed = |hashing: Hashing<io::Sink>| {
            let (sha256, bytes) = hashing.finish();
            Sealed::of(bytes, sha256)
        };
        let files = self.files.into_iter().map(|(name, hashing)| (name, sealed(hashing))).collect();
        append(&mut self.tar, END, &serde_json::to_vec(&End { files })?)?;
        self.tar.finish().map(drop)
    }
}

fn append<W: Write>(tar: &mut tar::Writer<W>, name: &str, mut bytes: &[u8]) -> io::Result<()> {
    let mut entry = Entry::new(name, Kind::File, 0o600);
    entry.size = bytes.len() as u64;
    tar.append(&entry, &mut bytes)
}

/// Reads what comes after the header into `into`, which has the directories; gives the header with what it could not say
/// yet.
///
/// # Errors
/// As [`super::read`].
pub(super) fn read<R: Read>(reader: &mut tar::Reader<R>, into: &Path, mut header: Header) -> Result<Header> {
    let (files, known) = read_files(reader, into)?;
    header.manifest.files = files;
    expected(&header.manifest)?;
    if !header.manifest.options.tcp_close {
        // Whoever began it could not know.
        let found = images::connections(&into.join("images")).map_or(0, |found| found.len());
        header.manifest.needs.tcp = u32::try_from(found).unwrap_or(u32::MAX);
    }
    header.manifest.files = seal::seal(into, known)?;
    Ok(header)
}

/// The files, and what is known of those on disk.
///
/// # Errors
/// InvalidParameter: the archive is damaged, or has no end; System.
fn read_files<R: Read>(
    reader: &mut tar::Reader<R>,
    into: &Path,
) -> Result<(BTreeMap<String, Sealed>, Known)> {
    let mut digests: BTreeMap<String, Hashing<io::Sink>> = BTreeMap::new();
    // Pieces of one file often follow one another.
    let mut last: Option<(String, File)> = None;
    let mut unlooked = 0;
    let mut buffer = vec![0; 256 << 10];
    let end: End = loop {
        let Some(entry) = reader.next_entry().map_err(bad)? else {
            return Err(bad("it has no end: whatever wrote it was cut off"));
        };
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        if name == END {
            break serde_json::from_slice(&text(reader, &entry, MOST_TEXT)?)
                .map_err(|cause| bad(format!("{END}: {cause}")))?;
        }
        if !is_plain(&name) || entry.kind != Kind::File || entry.sparse.is_some() {
            return Err(bad(format!("{name:?} is no file of a checkpoint")));
        }
        let path = into.join(&name);
        let failed = |cause: io::Error| Error::system(format!("write {path:?}"), cause);
        let mut file = match last.take() {
            Some((open, file)) if open == name => file,
            _ => {
                let mut how = File::options();
                how.append(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits() as i32);
                how.create_new(!digests.contains_key(&name)).open(&path).map_err(failed)?
            }
        };
        let hashing = digests.entry(name.clone()).or_insert_with(|| Hashing::new(io::sink()));
        loop {
            let count = Content(reader).read(&mut buffer).map_err(bad)?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(failed)?;
            hashing.write_all(&buffer[..count]).map_err(failed)?;
            unlooked += count as u64;
        }
        last = Some((name, file));
        if digests.len() > MOST_STREAMED {
            return Err(bad(format!("more than {MOST_STREAMED} files")));
        }
        if unlooked > PACE_BYTES {
            check_space(into, 0)?;
            unlooked = 0;
        }
    };
    if reader.next_entry().map_err(bad)?.is_some() {
        return Err(bad(format!("it goes on behind {END}")));
    }
    read_rest(reader)?;
    if let Some(missing) = end.files.keys().find(|name| !digests.contains_key(*name)) {
        return Err(bad(format!("{missing:?} is missing")));
    }
    let mut known = Known::new();
    for (name, hashing) in digests {
        let (digest, bytes) = hashing.finish();
        match end.files.get(&name) {
            Some(sealed) if sealed.bytes == bytes && sealed.sha256.as_ref() == Some(&digest) => {}
            Some(_) => return Err(bad(format!("{name:?} is not what {END} says it is"))),
            None => return Err(bad(format!("{name:?} does not belong into it"))),
        }
        known.insert(into.join(name), (digest, bytes));
    }
    Ok((end.files, known))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole archive of what a checkpoint has at least.
    fn written() -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer =
            Writer::new(&mut out, Manifest { name: "cp".into(), ..Manifest::default() }).unwrap();
        for name in ["images/pstree.img", "images/inventory.img", "mounts.json", "descriptors.json"] {
            writer.piece(name, name.as_bytes()).unwrap();
        }
        for round in 0..3_u8 {
            writer.piece("images/pages-1.img", &[round; 5000]).unwrap();
            writer.piece("rootfs.tar", &[round; 10]).unwrap();
        }
        writer.piece("shm.tar", b"").unwrap();
        assert!(writer.piece("../escape", b"").is_err());
        writer.finish().unwrap();
        out
    }

    fn read_back(archive: &[u8], name: &str) -> (std::path::PathBuf, Result<Header>) {
        let dir = std::env::temp_dir().join(format!("dewar-pieces-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let header = super::super::read(archive, &dir, &mut |_| Ok(()));
        (dir, header)
    }

    #[test]
    fn pieces_become_files_again() {
        let (dir, header) = read_back(&written(), "whole");
        let header = header.unwrap();
        assert_eq!(header.manifest.files.len(), 7);
        let pages = std::fs::read(dir.join("images/pages-1.img")).unwrap();
        assert_eq!(pages, [[0; 5000], [1; 5000], [2; 5000]].concat());
        assert_eq!(std::fs::read(dir.join("rootfs.tar")).unwrap().len(), 30);
        assert_eq!(header.manifest.files["shm.tar"].bytes, 0);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn one_that_is_cut_off_or_changed_anywhere_is_refused() {
        let whole = written();
        // Blocks at the end only say that there are no more.
        let content = whole.len() - 1024;
        for length in (0..content).step_by(512) {
            let (dir, header) = read_back(&whole[..length], "cut");
            assert!(header.is_err(), "cut off at {length}");
            std::fs::remove_dir_all(&dir).unwrap();
        }
        let mut changed = whole.clone();
        let at = changed.windows(100).position(|window| window == [1; 100]).unwrap();
        changed[at] = 7;
        let (dir, header) = read_back(&changed, "changed");
        assert!(header.unwrap_err().message.contains("is not what dewar-end.json says it is"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
