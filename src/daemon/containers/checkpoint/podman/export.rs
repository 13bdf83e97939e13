//! A checkpoint as an archive that podman restores: `podman container restore -i`.
//!
//! ```text
//!  config.dump, spec.dump,      the container's record ([`documents`])
//!  network.status
//!  checkpoint/*.img             images/, with other keys and cgroups ([`release`])
//!  checkpoint/tmpfs-dev-*.img   tmpfs-N.tar, and /dev made anew
//!  rootfs-diff.tar,             rootfs.tar ([`changes`])
//!  deleted.files
//!  devshm-checkpoint.tar        shm.tar
//!  volumes/, stats-dump         the same
//! ```
//!
//! It is no archive of dewar's: nothing in it says what it must hold, and an import here takes it as one of podman's.
//! What must be known before the first byte is sent (sizes, and what is refused) is made when it is opened, in files
//! without names.

mod documents;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::daemon::containers::checkpoint::archive::{
    Content as EntryContent, Whiteouts, escape, outer, split, unescape,
};
use crate::daemon::containers::checkpoint::manifest::{self, Manifest};
use crate::daemon::containers::checkpoint::passes;
use crate::daemon::containers::checkpoint::seal::{self, Known, unnamed};
use crate::daemon::containers::spec;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{self, Compression};
use crate::runtime::criu::images;
use crate::runtime::layer::Limits;
use crate::runtime::layer::tar::{Entry, Kind, Reader, Writer};
use crate::runtime::shim::checkpoint::release::{Content, release};

const ROOTFS: &str = "rootfs.tar";
const DIFF: &str = "rootfs-diff.tar";
/// Of memory that is kept compressed.
const PACKED: &str = ".img.zst";

/// A checkpoint that is about to be written.
pub struct Archive(Vec<(String, Part)>);

/// The content of a member.
enum Part {
    Text(Vec<u8>),
    /// Without a name, at its beginning.
    Made(File, u64),
    Stored(PathBuf, u64),
}

impl Archive {
    /// Looks through the checkpoint in `dir`; `scratch` is a directory for what cannot be written as it is. Blocks for as
    /// long as it takes to pack the root file system's changes and every tmpfs, and to read what may have been touched.
    ///
    /// # Errors
    /// Conflict for what no container of podman's can be, and for a damaged checkpoint; System.
    pub fn open(dir: &Path, mut manifest: Manifest, scratch: &Path) -> Result<Archive> {
        passes::check(&manifest)?;
        seal::verify(dir, &manifest, &manifest::boot_id(), false)?;
        if manifest.files.is_empty() {
            manifest.files = seal::seal(dir, Known::new())?;
        }
        let record = manifest.record.as_deref().cloned().unwrap_or_default();
        documents::check(&record, &manifest)?;
        let spec = spec::elsewhere(&record)?;
        let released = release(dir, &spec, &documents::lacks(&record))
            .map_err(|error| Error::conflict(format!("no container of podman's can be that: {error}")))?;
        let tree = images::tree(&dir.join("images"))?;
        let user = tree.first().and_then(|task| task.credentials.first()).cloned().unwrap_or_default();

        let whiteouts = whiteouts(&dir.join(ROOTFS))?;
        let mut parts = vec![
            ("config.dump".to_owned(), Part::Text(documents::config(&manifest, &record))),
            ("spec.dump".to_owned(), Part::Text(documents::spec(&manifest, &record, spec, &user))),
            ("network.status".to_owned(), Part::Text(documents::networks(&manifest))),
        ];
        if !whiteouts.deleted.is_empty() {
            parts.push(("deleted.files".to_owned(), Part::Text(deleted(&whiteouts)?)));
        }
        let mut images: Vec<(String, Part)> = Vec::new();
        for image in released.images {
            images.push((format!("checkpoint/{}", image.name), Part::Text(image.content)));
        }
        for tmpfs in released.tmpfs {
            let packed = match tmpfs.content {
                Content::File(name) => packed(&mut open(&dir.join(name))?, scratch)?,
                Content::Made(tar) => packed(&mut tar.as_slice(), scratch)?,
            };
            images.push((format!("checkpoint/{}", tmpfs.image), packed));
        }
        let mut large = vec![(DIFF.to_owned(), changes(&dir.join(ROOTFS), &whiteouts, scratch)?)];
        for (name, sealed) in &manifest.files {
            let stored = Part::Stored(dir.join(name), sealed.bytes);
            let outer = outer(name);
            if name == ROOTFS
                || outer.starts_with("dewar/")
                || images.iter().any(|(known, _)| *known == outer)
            {
                continue;
            }
            match outer.strip_suffix(PACKED) {
                Some(pages) => images.push((format!("{pages}.img"), unpacked(&dir.join(name), scratch)?)),
                None if outer.starts_with("checkpoint/") => images.push((outer, stored)),
                None => large.push((outer, stored)),
            }
        }
        parts.extend(images);
        parts.extend(large);
        Ok(Archive(parts))
    }

    /// Writes all of it. Blocks as long as `out` does.
    ///
    /// # Errors
    /// Of `out`, and where a file is gone: what was written is then useless.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, out));
        writer.append(&Entry::new("checkpoint/", Kind::Directory, 0o700), &mut io::empty())?;
        for (name, part) in self.0 {
            let mut entry = Entry::new(name, Kind::File, 0o600);
            let mut content: Box<dyn Read> = match part {
                Part::Text(text) => {
                    entry.size = text.len() as u64;
                    Box::new(io::Cursor::new(text))
                }
                Part::Made(file, bytes) => {
                    entry.size = bytes;
                    Box::new(file)
                }
                Part::Stored(path, bytes) => {
                    entry.size = bytes;
                    Box::new(seal::open(&path)?)
                }
            };
            writer.append(&entry, &mut content)?;
        }
        writer.finish().map(drop)
    }
}

fn open(path: &Path) -> Result<File> {
    seal::open(path).map_err(|cause| Error::system(format!("open {path:?}"), cause))
}

/// What `fill` writes, in a file without a name.
fn made(scratch: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<Part> {
    let failed = |cause: io::Error| Error::system(format!("write into {scratch:?}"), cause);
    let mut out = BufWriter::with_capacity(256 << 10, unnamed(scratch)?);
    fill(&mut out).map_err(failed)?;
    let mut file = out.into_inner().map_err(|cause| failed(cause.into_error()))?;
    let bytes = file.stream_position().map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(Part::Made(file, bytes))
}

/// As CRIU has the content of a tmpfs.
fn packed(tar: &mut dyn Read, scratch: &Path) -> Result<Part> {
    made(scratch, |out| Compression::Gzip.write(out, |out| io::copy(tar, out).map(drop)))
}

/// Memory as CRIU reads it.
fn unpacked(pages: &Path, scratch: &Path) -> Result<Part> {
    let mut plain = codec::decompress(BufReader::with_capacity(256 << 10, open(pages)?))?;
    made(scratch, |out| io::copy(&mut plain, out).map(drop))
}

fn reader(tar: &Path) -> Result<Reader<BufReader<File>>> {
    Ok(Reader::new(BufReader::with_capacity(256 << 10, open(tar)?), Limits::default()))
}

/// What a layer's archive hides.
fn whiteouts(tar: &Path) -> Result<Whiteouts> {
    let mut whiteouts = Whiteouts::default();
    let mut reader = reader(tar)?;
    let failed = |cause| Error::system(format!("read {tar:?}"), cause);
    while let Some(entry) = reader.next_entry().map_err(failed)? {
        whiteouts.take(&entry.path);
    }
    Ok(whiteouts)
}

/// `deleted.files`.
fn deleted(whiteouts: &Whiteouts) -> Result<Vec<u8>> {
    let paths = whiteouts.deleted.iter().map(|path| {
        String::from_utf8([b"/", unescape(path).as_slice()].concat()).map_err(|_| {
            Error::conflict(format!("its file {path:?} is deleted and has no name that podman can be told"))
        })
    });
    let paths = paths.collect::<Result<Vec<String>>>()?;
    serde_json::to_vec(&paths).map_err(|cause| Error::system("write deleted.files", cause))
}

/// `rootfs-diff.tar`, which podman unpacks over the image before it deletes what is deleted.
///
/// It would delete what a link leads to, and not the link; so there is a plain file in the place of each. And it puts a
/// directory into the one that is there: where that one is hidden a plain file comes first and takes its place.
fn changes(tar: &Path, whiteouts: &Whiteouts, scratch: &Path) -> Result<Part> {
    let placeholder = |path: &[u8]| Entry::new(path, Kind::File, 0o600);
    let opaque: BTreeSet<&str> = whiteouts.opaque.iter().map(String::as_str).collect();
    let mut reader = reader(tar)?;
    made(scratch, |out| {
        let mut writer = Writer::new(out);
        for path in &whiteouts.deleted {
            writer.append(&placeholder(&unescape(path)), &mut io::empty())?;
        }
        while let Some(entry) = reader.next_entry().map_err(|cause| io::Error::other(cause.to_string()))? {
            if Whiteouts::default().take(&entry.path) {
                continue;
            }
            let (parent, name) = split(&entry.path);
            let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
            if entry.kind == Kind::Directory && !path.is_empty() && opaque.contains(escape(&path).as_str()) {
                writer.append(&placeholder(&path), &mut io::empty())?;
            }
            writer.append(&entry, &mut EntryContent(&mut reader))?;
        }
        writer.finish().map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_is_replaced_before_podman_deletes_it() {
        let dir = std::env::temp_dir().join(format!("dewar-podman-changes-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let mut writer = Writer::new(Vec::new());
        let mut add = |path: &str, kind: Kind, content: &str| {
            let mut entry = Entry::new(path, kind, 0o700);
            entry.size = content.len() as u64;
            writer.append(&entry, &mut content.as_bytes()).unwrap();
        };
        add("./", Kind::Directory, "");
        add("bin/", Kind::Directory, "");
        add("bin/.wh.vi", Kind::File, "");
        add("srv/", Kind::Directory, "");
        add("srv/.wh..wh..opq", Kind::File, "");
        add("srv/new", Kind::File, "content");
        add(".wh.back\\slash", Kind::File, "");
        let tar = dir.join(ROOTFS);
        std::fs::write(&tar, writer.finish().unwrap().0).unwrap();

        let whiteouts = whiteouts(&tar).unwrap();
        assert_eq!(deleted(&whiteouts).unwrap(), br#"["/bin/vi","/back\\slash"]"#);
        let Part::Made(file, bytes) = changes(&tar, &whiteouts, &dir).unwrap() else { panic!("a file") };
        assert_eq!(file.metadata().unwrap().len(), bytes);
        let mut reader = Reader::new(BufReader::new(file), Limits::default());
        let mut found = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            found.push((String::from_utf8(entry.path).unwrap(), entry.kind, entry.size));
        }
        let (file, directory) = (Kind::File, Kind::Directory);
        let expected = [
            ("bin/vi", file, 0),
            ("back\\slash", file, 0),
            ("./", directory, 0),
            ("bin/", directory, 0),
            ("srv", file, 0),
            ("srv/", directory, 0),
            ("srv/new", file, 7),
        ];
        assert_eq!(found, expected.map(|(path, kind, size)| (path.to_owned(), kind, size)));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
