//! A directory as the tar stream of a build's context, made while it is sent.
//!
//! A thread walks the directory in the order of names and writes into a pipe; no file is made. A failure of the
//! walk is a failure of whoever reads, so that the daemon never takes half a context for a whole one.
//!
//! Compat: what is in the archive is what the docker client puts there: the owner is 0:0, times are whole seconds,
//! links stay links, names of one inode become hard links, sockets are left out.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, PipeReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::SystemTime;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{EntryType, Header};

use crate::http::api::ignore::{self, Matched, Patterns};

/// The one attribute that travels: what a program may do.
const CAPABILITY: &str = "security.capability";

/// What goes into the stream.
#[derive(Debug, Default)]
pub struct Contents {
    /// Nothing of a directory is sent where there is none.
    pub directory: Option<PathBuf>,
    /// What of it is left out.
    pub excluded: Patterns,
    /// A Dockerfile that is not in it: the name it gets, and its text.
    pub dockerfile: Option<(String, Vec<u8>)>,
    /// Whether `.dockerignore` names the Dockerfile and itself, so that the daemon takes both away again.
    pub hides_dockerfile: bool,
    pub is_compressed: bool,
}

/// The stream. Reading it to its end tells whether everything was packed.
#[derive(Debug)]
pub struct Packed {
    pipe: PipeReader,
    packer: Option<JoinHandle<io::Result<()>>>,
}

/// Starts packing.
pub fn start(contents: Contents) -> io::Result<Packed> {
    let (pipe, writer) = io::pipe()?;
    let packer =
        thread::Builder::new().name("pack".to_owned()).spawn(move || match contents.is_compressed {
            false => write(&contents, writer).map(drop),
            true => {
                let packed = write(&contents, GzEncoder::new(writer, Compression::default()))?;
                packed.finish().map(drop)
            }
        })?;
    Ok(Packed { pipe, packer: Some(packer) })
}

impl Read for Packed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.pipe.read(into)?;
        if count == 0
            && !into.is_empty()
            && let Some(packer) = self.packer.take()
        {
            packer.join().unwrap_or_else(|_| Err(io::Error::other("the thread that packs failed")))?;
        }
        Ok(count)
    }
}

fn write<W: Write>(contents: &Contents, out: W) -> io::Result<W> {
    let mut packer = Packer {
        contents,
        archive: tar::Builder::new(io::BufWriter::with_capacity(64 << 10, out)),
        linked: HashMap::new(),
        has_ignore_file: false,
    };
    if let Some(directory) = &contents.directory {
        packer.directory(directory, Path::new(""), &Matched::default())?;
    }
    if let Some((name, text)) = &contents.dockerfile {
        packer.own_file(name, text, if contents.hides_dockerfile { 0o600 } else { 0o644 })?;
        if contents.hides_dockerfile && !packer.has_ignore_file {
            packer.own_file(ignore::FILE, ignore_text(ignore::FILE.as_bytes(), name).as_slice(), 0o600)?;
        }
    }
    let out = packer.archive.into_inner()?;
    out.into_inner().map_err(io::IntoInnerError::into_error)
}

/// A `.dockerignore` with one name more.
fn ignore_text(text: &[u8], name: &str) -> Vec<u8> {
    [text, b"\n", name.as_bytes(), b"\n"].concat()
}

struct Packer<'a, W: Write> {
    contents: &'a Contents,
    archive: tar::Builder<W>,
    /// Where inodes with several names went first.
    linked: HashMap<(u64, u64), PathBuf>,
    has_ignore_file: bool,
}

impl<W: Write> Packer<'_, W> {
    /// Packs what is in `directory`, which is called `name`.
    fn directory(&mut self, directory: &Path, name: &Path, above: &Matched) -> io::Result<()> {
        let failed = |path: &Path, cause| named("read", path, &cause);
        let mut names = Vec::new();
        for entry in fs::read_dir(directory).map_err(|cause| failed(directory, cause))? {
            names.push(entry.map_err(|cause| failed(directory, cause))?.file_name());
        }
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for entry in names {
            let (path, name) = (directory.join(&entry), name.join(&entry));
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                // It went away after its directory was read.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => continue,
                Err(cause) => return Err(failed(&path, cause)),
            };
            let text = name.to_string_lossy();
            let (is_out, matched) = self.contents.excluded.matches_below(&text, above);
            if !is_out {
                self.entry(&path, &name, &metadata)?;
            }
            if metadata.is_dir() && (!is_out || self.contents.excluded.has_exception_below(&text)) {
                self.directory(&path, &name, &matched)?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, metadata: &Metadata) -> io::Result<()> {
        let failed = |cause: io::Error| named("pack", path, &cause);
        let kind = metadata.file_type();
        let mut header = header(metadata.mode() & 0o7777, metadata.mtime());
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            // Compat: Go's names of directories end with a slash.
            let mut name = name.as_os_str().to_owned();
            name.push("/");
            return self.archive.append_data(&mut header, name, io::empty()).map_err(failed);
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path).map_err(failed)?;
            if header.set_link_name_literal(target.as_os_str().as_bytes()).is_ok() {
                return self.archive.append_data(&mut header, name, io::empty()).map_err(failed);
            }
            return self.archive.append_link(&mut header, name, target).map_err(failed);
        }
        if kind.is_socket() {
            return Ok(());
        }
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.linked.get(&inode) {
                header.set_entry_type(EntryType::Link);
                return self.archive.append_link(&mut header, name, first).map_err(failed);
            }
            self.linked.insert(inode, name.to_owned());
        }
        if kind.is_fifo() {
            header.set_entry_type(EntryType::Fifo);
            return self.archive.append_data(&mut header, name, io::empty()).map_err(failed);
        }
        if kind.is_block_device() || kind.is_char_device() {
            let (block, character) = (EntryType::Block, EntryType::Char);
            header.set_entry_type(if kind.is_block_device() { block } else { character });
            let device = metadata.rdev();
            header.set_device_major(rustix::fs::major(device))?;
            header.set_device_minor(rustix::fs::minor(device))?;
            return self.archive.append_data(&mut header, name, io::empty()).map_err(failed);
        }
        let file = File::open(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::PermissionDenied => {
                io::Error::other(format!("no permission to read from '{}'", path.display()))
            }
            _ => failed(cause),
        })?;
        if self.contents.hides_dockerfile
            && name == Path::new(ignore::FILE)
            && let Some((dockerfile, _)) = &self.contents.dockerfile
        {
            let mut text = Vec::new();
            let mut file = file;
            file.read_to_end(&mut text).map_err(failed)?;
            let text = ignore_text(&text, dockerfile);
            self.has_ignore_file = true;
            header.set_size(text.len() as u64);
            return self.archive.append_data(&mut header, name, text.as_slice()).map_err(failed);
        }
        let mut capability = [0; 64];
        if let Ok(count) = rustix::fs::fgetxattr(&file, CAPABILITY, &mut capability) {
            let record = (format!("SCHILY.xattr.{CAPABILITY}"), &capability[..count]);
            self.archive.append_pax_extensions([(record.0.as_str(), record.1)]).map_err(failed)?;
        }
        header.set_size(metadata.len());
        let whole = Whole { file, left: metadata.len() };
        self.archive.append_data(&mut header, name, whole).map_err(failed)
    }

    /// A file that is on no disk.
    fn own_file(&mut self, name: &str, text: &[u8], mode: u32) -> io::Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let mut header = header(mode, i64::try_from(now).unwrap_or(i64::MAX));
        header.set_size(text.len() as u64);
        self.archive.append_data(&mut header, name, text)
    }
}

fn named(attempt: &str, path: &Path, cause: &io::Error) -> io::Error {
    io::Error::new(cause.kind(), format!("{attempt} {}: {cause}", path.display()))
}

/// A file's header: everything is root's.
fn header(mode: u32, seconds: i64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    // Before 1970 there is no number for it.
    header.set_mtime(u64::try_from(seconds).unwrap_or(0));
    header
}

/// As many bytes as were promised: a file that grows is cut, one that shrinks is an error.
struct Whole {
    file: File,
    left: u64,
}

impl Read for Whole {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(into.len());
        let count = self.file.read(&mut into[..room])?;
        if count == 0 && room > 0 {
            return Err(io::Error::other("the file became shorter while it was read"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
