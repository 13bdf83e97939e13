//! A checkpoint as one stream: a tar that podman and checkpointctl read, too, and its way back into a directory.
//!
//! | in the archive | in the directory | for |
//! |---|---|---|
//! | `dewar.json` | `checkpoint.json` | dewar: comes first, with size and SHA-256 of all that is not said to be derived |
//! | `config.dump`, `spec.dump`, `network.status` | derived from it ([`foreign`]) | the others |
//! | `checkpoint/` | `images/`, `descriptors.json` | all |
//! | `rootfs-diff.tar` | `rootfs.tar` without whiteouts | all |
//! | `deleted.files` | whiteouts of `rootfs.tar`, derived from `dewar.json` | the others |
//! | `devshm-checkpoint.tar` | `shm.tar` | all |
//! | `volumes/`, `stats-dump`, `dump.log` | the same | all |
//! | `dewar/` | everything else | dewar |
//!
//! A checkpoint that is streamed while it is made is laid out otherwise ([`pieces`]).
//!
//! Nothing of an archive is believed: names are looked up in a table made of checked ones, never joined to a path;
//! sizes are held against what was announced and the space there is; digests are compared as the bytes come.
//! The caller has the directory until [`read`] has returned, and removes it if it failed.

pub mod foreign;
pub mod pieces;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::manifest::{MANIFEST, Manifest};
use super::passes;
use super::seal::{self, Known, Sealed};
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{Digest, Hashing};
use crate::daemon::state_dir;
use crate::runtime::criu::predump;
use crate::runtime::layer::Limits;
use crate::runtime::layer::tar::{Entry, Kind, Reader, Writer};

/// The first member of an archive that dewar wrote.
const HEADER: &str = "dewar.json";
/// What an export writes.
pub const VERSION: u32 = 1;
/// Written in pieces while the checkpoint is made; the newest that is read.
const IS_PIECES: u32 = 2;
const ROOTFS: &str = "rootfs.tar";
/// The directory of CRIU's images, as others know it.
const IMAGES: &str = "checkpoint/";
/// A header, or one of the others' documents: the largest known are some hundred KiB.
const MOST_TEXT: u64 = 64 << 20;
/// Files of a checkpoint: processes have five or six each.
pub const MOST_FILES: usize = 1 << 20;
/// Pieces of 16 KiB behind the end: tar pads to 10 KiB.
const MOST_PADDING: usize = 64;
/// What a disk keeps for itself.
pub const RESERVE: u64 = 64 << 20;
/// A layer's words for what is gone, and for a directory that hides what was below.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Documents that are derived, and of no use to dewar.
const DERIVED: [&str; 4] = ["config.dump", "spec.dump", "network.status", "deleted.files"];

/// `dewar.json`: the checkpoint's manifest, and what of its files became another in the archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Header {
    pub version: u32,
    /// Its files are those of the archive, under the names they have in the directory.
    pub manifest: Manifest,
    #[serde(default)]
    pub whiteouts: Whiteouts,
}

/// What the writable layer hides of the layers below; paths without a leading slash, escaped as
/// [`escape`] does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Whiteouts {
    pub deleted: Vec<String>,
    /// Directories of which nothing below is seen.
    pub opaque: Vec<String>,
}

impl Whiteouts {
    fn is_empty(&self) -> bool {
        self.deleted.is_empty() && self.opaque.is_empty()
    }

    /// Takes note of an entry that is a whiteout; whether it was one.
    pub fn take(&mut self, path: &[u8]) -> bool {
        let (parent, name) = split(path);
        if name == OPAQUE {
            self.opaque.push(escape(parent));
        } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
            let full = if parent.is_empty() { gone.to_vec() } else { [parent, b"/", gone].concat() };
            self.deleted.push(escape(&full));
        } else {
            return false;
        }
        true
    }

    /// A layer's archive that says so and has no end: to be put before another.
    fn packed(&self) -> Result<Vec<u8>> {
        let mut packed = Vec::new();
        let mut writer = Writer::new(&mut packed);
        for entry in self.entries() {
            writer
                .append(&entry, &mut io::empty())
                .map_err(|cause| Error::system("pack whiteouts", cause))?;
        }
        Ok(packed)
    }

    /// The entries of a layer that say so.
    pub fn entries(&self) -> Vec<Entry> {
        let below = |parent: &[u8], name: &[u8]| {
            let path = if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() };
            Entry::new(path, Kind::File, 0)
        };
        let opaque = self.opaque.iter().map(|path| below(&unescape(path), OPAQUE));
        let deleted = self.deleted.iter().map(|path| {
            let path = unescape(path);
            let (parent, name) = split(&path);
            below(parent, &[WHITEOUT, name].concat())
        });
        opaque.chain(deleted).collect()
    }
}

/// A path's directory and its last part, without `./` in front and `/` behind.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let mut path = path;
    while let Some(rest) = path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")) {
        path = rest;
    }
    while let Some(rest) = path.strip_suffix(b"/") {
        path = rest;
    }
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// Bytes as text: what is no UTF-8 becomes `\xNN`, as does the backslash.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\x5c"),
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

/// The other way round; anything else after a backslash stays as it is.
pub fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let number = rest[at..].strip_prefix("\\x").and_then(|hex| hex.get(..2));
        match number.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &rest[at + 4..];
            }
            None => {
                bytes.push(b'\\');
                rest = &rest[at + 1..];
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The name in the archive of a file in the directory.
pub fn outer(name: &str) -> String {
    match name {
        "descriptors.json" => "checkpoint/descriptors.json".to_owned(),
        ROOTFS => "rootfs-diff.tar".to_owned(),
        "shm.tar" => "devshm-checkpoint.tar".to_owned(),
        "stats-dump" | "dump.log" => name.to_owned(),
        name if name.starts_with("volumes/") => name.to_owned(),
        name => match name.strip_prefix("images/") {
            Some(image) => format!("checkpoint/{image}"),
            None => format!("dewar/{name}"),
        },
    }
}

/// Whether a name may be a file's in a checkpoint's directory: one part, or one below `images` or `volumes`.
pub fn is_plain(name: &str) -> bool {
    let is_part = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.len() <= 255
            && !part.contains(['/', '\0'])
            && part != MANIFEST
    };
    match name.split_once('/') {
        None => is_part(name),
        Some((directory, file)) => matches!(directory, "images" | "volumes") && is_part(file),
    }
}

/// Whether a name may be a file's in a checkpoint's directory that a move left, too: one of a pass.
fn has_place(name: &str) -> bool {
    let in_pass = name.rsplit_once('/').is_some_and(|(directory, file)| {
        is_plain(file) && (passes::is_directory(directory) || predump::is_directory(directory))
    });
    in_pass || is_plain(name)
}

/// What of a checkpoint is to be written.
pub struct Source {
    header: Header,
    /// The archive of the writable layer, if it is not the directory's own.
    rootfs: Option<File>,
}

impl Source {
    /// Looks through the checkpoint in `dir`; `scratch` is a directory for what cannot be written as it is.
    ///
    /// # Errors
    /// System: it is damaged.
    pub fn open(dir: &Path, mut manifest: Manifest, scratch: &Path) -> Result<Source> {
        if manifest.files.is_empty() {
            // The first version kept no digests.
            manifest.files = seal::seal(dir, Known::new())?;
        }
        let tar = dir.join(ROOTFS);
        let failed = |cause: String| Error::system(format!("read {tar:?}"), cause);
        let open = || seal::open(&tar).map_err(|cause| failed(cause.to_string()));
        let mut whiteouts = Whiteouts::default();
        let mut reader = Reader::new(BufReader::new(open()?), Limits::default());
        while let Some(entry) = reader.next_entry().map_err(|cause| failed(cause.to_string()))? {
            whiteouts.take(&entry.path);
        }
        let mut rootfs = None;
        if !whiteouts.is_empty() {
            let (file, sealed) =
                without_whiteouts(open()?, scratch).map_err(|error| error.during(format!("read {tar:?}")))?;
            manifest.files.insert(ROOTFS.to_owned(), sealed);
            rootfs = Some(file);
        }
        Ok(Source { header: Header { version: VERSION, manifest, whiteouts }, rootfs })
    }

    /// Writes all of it. Blocks as long as `out` does.
    ///
    /// # Errors
    /// Of `out`, and where a file is not what the manifest says: what was written is then useless.
    pub fn write(self, dir: &Path, out: &mut dyn Write) -> io::Result<()> {
        let mut writer = Writer::new(BufWriter::with_capacity(256 << 10, out));
        let manifest = &self.header.manifest;
        let text = serde_json::to_vec(&self.header)?;
        let add = |writer: &mut Writer<_>, name: &str, size: u64, content: &mut dyn Read| {
            let mut entry = Entry::new(name, Kind::File, 0o600);
            entry.size = size;
            writer.append(&entry, content)
        };
        add(&mut writer, HEADER, text.len() as u64, &mut text.as_slice())?;
        for (name, text) in foreign::documents(manifest, &self.header.whiteouts)? {
            add(&mut writer, name, text.len() as u64, &mut text.as_slice())?;
        }
        // checkpointctl looks for the directory itself.
        writer.append(&Entry::new(IMAGES, Kind::Directory, 0o700), &mut io::empty())?;
        let mut files: Vec<(&String, &Sealed)> = manifest.files.iter().collect();
        // What others look at comes before what is large.
        files.sort_by_key(|(name, _)| (name.ends_with(".tar"), !name.starts_with("images/"), *name));
        let mut rootfs = self.rootfs;
        for (name, sealed) in files {
            let file = match (name.as_str(), rootfs.take()) {
                (ROOTFS, Some(file)) => file,
                (_, other) => {
                    rootfs = other;
                    seal::open(&dir.join(name))?
                }
            };
            let mut content = Hashing::new(file);
            add(&mut writer, &outer(name), sealed.bytes, &mut content)?;
            if Some(content.finish().0) != sealed.sha256 {
                let text = format!("file {name} of the checkpoint is not what it was when it was taken");
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        writer.finish().map(drop)
    }
}

/// A layer's archive without its whiteouts, in an unnamed file at its beginning.
fn without_whiteouts(tar: File, scratch: &Path) -> Result<(File, Sealed)> {
    let failed = |cause: io::Error| Error::system(format!("write into {scratch:?}"), cause);
    let file = seal::unnamed(scratch)?;
    let mut reader = Reader::new(BufReader::new(tar), Limits::default());
    let mut writer = Writer::new(Hashing::new(BufWriter::with_capacity(256 << 10, file)));
    loop {
        let entry = reader.next_entry().map_err(|cause| Error::system("read", cause))?;
        let Some(mut entry) = entry else { break };
        if Whiteouts::default().take(&entry.path) {
            continue;
        }
        if entry.sparse.take().is_some() {
            return Err(Error::system("read", "it has sparse files, which checkpoints do not"));
        }
        writer.append(&entry, &mut Content(&mut reader)).map_err(failed)?;
    }
    let (hashing, _) = writer.finish().map_err(failed)?;
    let (buffered, digest, bytes) = hashing.into_inner();
    let mut file = buffered.into_inner().map_err(|cause| failed(cause.into_error()))?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok((file, Sealed::of(bytes, digest)))
}

/// The content of a reader's current entry.
pub struct Content<'a, R>(pub &'a mut Reader<R>);

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into).map_err(|cause| io::Error::new(io::ErrorKind::InvalidData, cause.to_string()))
    }
}

/// Refusal of an archive.
pub fn bad(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the archive is damaged: {reason}"))
}

/// Whether dewar wrote the uncompressed archive that a stream begins with; and the stream, from its beginning.
///
/// # Errors
/// System, when it cannot be read.
pub fn look(mut stream: impl Read) -> Result<(bool, impl Read)> {
    // A tar begins with the name of its first member, and a zero.
    let mut head = Vec::with_capacity(HEADER.len() + 1);
    (&mut stream).take(HEADER.len() as u64 + 1).read_to_end(&mut head).map_err(bad)?;
    let is_own = head.strip_suffix(b"\0").is_some_and(|name| name == HEADER.as_bytes());
    Ok((is_own, io::Cursor::new(head).chain(stream)))
}

/// Reads an archive that dewar wrote, uncompressed, into the empty directory `into`: all files verified and sealed,
/// but without a manifest, which is the caller's to write; its files are those that are there now. `begin` sees the
/// header before anything is on disk, and may refuse.
///
/// # Errors
/// InvalidParameter: the archive is damaged, or is none of dewar's; what `begin` says; System.
pub fn read(stream: impl Read, into: &Path, begin: &mut dyn FnMut(&Header) -> Result<()>) -> Result<Header> {
    // Pieces are entries, too.
    let limits = Limits { entries: u64::MAX, bytes: u64::MAX, name: 4096 };
    let mut reader = Reader::new(stream, limits);
    let next = |reader: &mut Reader<_>| reader.next_entry().map_err(bad);
    let first = next(&mut reader)?.filter(|entry| entry.path == HEADER.as_bytes());
    let Some(first) = first else {
        return Err(Error::invalid("it was not written by dewar, or is no archive of a checkpoint"));
    };
    let mut header: Header = serde_json::from_slice(&text(&mut reader, &first, MOST_TEXT)?)
        .map_err(|cause| bad(format!("{HEADER}: {cause}")))?;
    if header.version > IS_PIECES {
        return Err(Error::conflict(format!(
            "a later dewar wrote it, in version {}; this one knows {IS_PIECES}",
            header.version
        )));
    }
    let is_pieces = header.version == IS_PIECES;
    let mut expected = if is_pieces { BTreeMap::new() } else { expected(&header.manifest)? };
    begin(&header)?;
    check_space(into, header.manifest.bytes())?;
    let parents = expected.values().filter_map(|(name, _)| name.rsplit_once('/').map(|(parent, _)| parent));
    for directory in ["images", "volumes"].into_iter().chain(parents) {
        state_dir::make_dir(&into.join(directory), 0o700)?;
    }
    if is_pieces {
        return pieces::read(&mut reader, into, header);
    }
    let mut known = Known::new();
    while let Some(entry) = next(&mut reader)? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        if name == IMAGES && entry.kind == Kind::Directory {
            continue;
        }
        if DERIVED.contains(&name.as_str()) {
            text(&mut reader, &entry, MOST_TEXT)?;
            continue;
        }
        let Some((inner, sealed)) = expected.remove(&name) else {
            return Err(bad(format!("{name:?} does not belong into it, or comes twice")));
        };
        if entry.kind != Kind::File || entry.sparse.is_some() || entry.size != sealed.bytes {
            return Err(bad(format!("{name:?} is not what {HEADER} says it is")));
        }
        let path = into.join(&inner);
        let before = if inner == ROOTFS { header.whiteouts.packed()? } else { Vec::new() };
        let digest = receive(&mut reader, &path, sealed.bytes, &before)?;
        if Some(&digest) != sealed.sha256.as_ref() {
            return Err(bad(format!("{name:?} has another digest than {HEADER} says")));
        }
        if before.is_empty() {
            known.insert(path, (digest, sealed.bytes));
        }
    }
    read_rest(&mut reader)?;
    if let Some(missing) = expected.keys().next() {
        return Err(bad(format!("{missing:?} is missing")));
    }
    predump::link(into, header.manifest.pre_dumps)?;
    header.manifest.files = seal::seal(into, known)?;
    Ok(header)
}

/// Reads to the end of the stream, which may know only there that it is what it should be.
fn read_rest<R: Read>(reader: &mut Reader<R>) -> Result<()> {
    for _ in 0..MOST_PADDING {
        if !reader.read_trailer().map_err(bad)? {
            return Ok(());
        }
    }
    Err(bad("it goes on behind its end"))
}

/// The files that an archive must bring, by their names there: the directory's name, size and digest.
fn expected(manifest: &Manifest) -> Result<BTreeMap<String, (String, Sealed)>> {
    if manifest.files.len() > MOST_FILES {
        return Err(bad(format!("more than {MOST_FILES} files")));
    }
    let mut expected = BTreeMap::new();
    let mut total: u64 = 0;
    for (name, sealed) in &manifest.files {
        if !has_place(name) || expected.insert(outer(name), (name.clone(), sealed.clone())).is_some() {
            return Err(bad(format!("{name:?} is no name of a file in a checkpoint")));
        }
        total = total.checked_add(sealed.bytes).ok_or_else(|| bad("its sizes are none"))?;
    }
    for needed in [ROOTFS, "images/pstree.img", "images/inventory.img", "mounts.json", "descriptors.json"] {
        if !manifest.files.contains_key(needed) {
            return Err(bad(format!("it has no {needed}")));
        }
    }
    let has_pass = |number| {
        let directory = predump::directory(number) + "/";
        manifest.files.range(directory.clone()..).next().is_some_and(|(name, _)| name.starts_with(&directory))
    };
    if let Some(missing) = (1..=manifest.pre_dumps).find(|number| !has_pass(*number)) {
        return Err(bad(format!("it has no {}", predump::directory(missing))));
    }
    for volume in &manifest.volumes {
        if !volume.file.starts_with("volumes/") || !manifest.files.contains_key(&volume.file) {
            return Err(bad(format!("volume {:?} has no content in it", volume.name)));
        }
    }
    Ok(expected)
}

/// Refuses what there is no room for, before it is written.
fn check_space(dir: &Path, bytes: u64) -> Result<()> {
    let space = rustix::fs::statvfs(dir).map_err(|cause| Error::system(format!("look at {dir:?}"), cause))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if bytes.saturating_add(RESERVE) > free {
        return Err(Error::system("make room", format!("the checkpoint has {bytes} bytes, {free} are free")));
    }
    Ok(())
}

/// A document of at most `most` bytes, in memory.
pub fn text<R: Read>(reader: &mut Reader<R>, entry: &Entry, most: u64) -> Result<Vec<u8>> {
    if entry.kind != Kind::File || entry.sparse.is_some() || entry.size > most {
        return Err(bad(format!("{} is too long", String::from_utf8_lossy(&entry.path))));
    }
    let mut text = Vec::new();
    Content(reader).read_to_end(&mut text).map_err(bad)?;
    Ok(text)
}

/// Writes the current entry into a new file, behind what comes `before`; the entry's digest.
pub fn receive<R: Read>(reader: &mut Reader<R>, path: &Path, bytes: u64, before: &[u8]) -> Result<Digest> {
    let failed = |cause: io::Error| Error::system(format!("write {path:?}"), cause);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    file.write_all(before).map_err(failed)?;
    let mut out = Hashing::new(file);
    let mut buffer = vec![0; 256 << 10];
    let mut got = 0;
    loop {
        let count = reader.read(&mut buffer).map_err(bad)?;
        if count == 0 {
            break;
        }
        out.write_all(&buffer[..count]).map_err(failed)?;
        got += count as u64;
    }
    if got != bytes {
        return Err(bad(format!("{} is cut off", path.display())));
    }
    Ok(out.finish().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whiteouts_are_taken_out_of_a_layer_and_put_into_one() {
        let mut whiteouts = Whiteouts::default();
        for path in [&b"./bin/.wh.vi"[..], b".wh.top", b"./home/.wh..wh..opq", b".wh.a\\b\xff\n"] {
            assert!(whiteouts.take(path), "{}", escape(path));
        }
        for path in [&b"./bin/vi"[..], b"./", b"bin/.w.h", b"./.wh/file"] {
            assert!(!whiteouts.take(path), "{}", escape(path));
        }
        assert_eq!(whiteouts.deleted, ["bin/vi", "top", "a\\x5cb\\xff\n"]);
        assert_eq!(whiteouts.opaque, ["home"]);
        let paths: Vec<Vec<u8>> = whiteouts.entries().into_iter().map(|entry| entry.path).collect();
        assert_eq!(paths, [&b"home/.wh..wh..opq"[..], b"bin/.wh.vi", b".wh.top", b".wh.a\\b\xff\n"]);
        let mut again = Whiteouts::default();
        assert!(paths.iter().all(|path| again.take(path)));
        assert_eq!(again, whiteouts);
    }

    #[test]
    fn any_bytes_are_text_and_back() {
        for bytes in [&b""[..], b"plain", b"\\", b"\\x41", b"\xff\xfe/\x80", "ä\\ö".as_bytes()] {
            assert_eq!(unescape(&escape(bytes)), bytes);
        }
        for text in ["\\", "\\x", "\\xä", "\\xg0", "a\\"] {
            assert_eq!(unescape(text), text.as_bytes(), "what nobody escaped");
        }
    }

    #[test]
    fn names_of_files_are_plain_and_no_two_become_one() {
        let names = [
            "rootfs.tar",
            "shm.tar",
            "tmpfs-1.tar",
            "images/core-1.img",
            "volumes/a.tar",
            "descriptors.json",
            "dump.log",
        ];
        assert!(names.into_iter().all(is_plain));
        for name in [
            "",
            ".",
            "..",
            "/x",
            "x/",
            "a/b",
            "images/../x",
            "images//x",
            "images/a/b",
            "checkpoint.json",
            "a\0b",
        ] {
            assert!(!is_plain(name) && !has_place(name), "{name:?}");
        }
        let of_passes = ["passes/1/rootfs.tar", "passes/12/volumes/a.gone", "memory/1/pages-1.img"];
        assert!(of_passes.into_iter().all(|name| has_place(name) && !is_plain(name)));
        for name in [
            "passes/rootfs.tar",
            "passes/1/../x",
            "passes/1/x/y",
            "memory/1/",
            "memory/0/x",
            "memory/1/parent/x",
        ] {
            assert!(!has_place(name), "{name:?}");
        }
        let outside: std::collections::BTreeSet<String> = names.into_iter().map(outer).collect();
        assert_eq!(outside.len(), names.len());
        assert!(outside.contains("checkpoint/core-1.img") && outside.contains("rootfs-diff.tar"));
    }
}
