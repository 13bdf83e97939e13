//! The files a build may take from: a tar that comes with the request or from a URL, or a Dockerfile alone.

use std::io::{self, Cursor, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use super::{Cancel, Options, Staging, fetch, root};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec;
use crate::http::api::ignore::{self, Patterns};
use crate::runtime::Cause;
use crate::runtime::layer::{self, Limits, Put, tar};

/// What a Dockerfile may weigh, in bytes.
const MAX_DOCKERFILE: u64 = 16 << 20;
const DEFAULT_NAME: &str = "Dockerfile";

/// A context, unpacked.
#[derive(Debug)]
pub struct Context {
    pub root: OwnedFd,
    /// The same as a path, for mounts.
    pub path: PathBuf,
    pub dockerfile: Vec<u8>,
}

impl Context {
    /// Takes the context in, from the body or from where `options` say.
    ///
    /// # Errors
    /// InvalidParameter when it is no archive, would lead out of its directory, or has no Dockerfile.
    pub fn receive(
        engine: &Engine,
        options: &Options,
        body: impl Read,
        staging: &Staging,
        cancel: &Cancel,
    ) -> Result<Context> {
        let path = staging.make("context")?;
        let root = root::open_directory(&path)?;
        let name = if options.dockerfile.is_empty() { DEFAULT_NAME } else { &options.dockerfile };
        let dockerfile = match options.remote.as_str() {
            "" => unpack(body, root.as_fd())?,
            url => unpack(fetch::context(engine, url, cancel)?, root.as_fd())?,
        };
        let dockerfile = match dockerfile {
            Some(text) => text,
            None => read_dockerfile(&root, name)?,
        };
        if dockerfile.is_empty() {
            return Err(Error::invalid(format!("the Dockerfile ({name}) cannot be empty")));
        }
        hide_ignored(&root, name)?;
        Ok(Context { root, path, dockerfile })
    }
}

/// Takes away what `.dockerignore` leaves out of these two: clients send them all the same, to be read here.
fn hide_ignored(root: &OwnedFd, dockerfile: &str) -> Result<()> {
    let failed = |cause: &dyn std::fmt::Display| Error::system(format!("read {}", ignore::FILE), cause);
    let inode = match root::open(root.as_fd(), ignore::FILE.as_bytes()) {
        Ok(inode) => inode,
        Err(_) => return Ok(()),
    };
    let mut text = Vec::new();
    root::reopen(&inode)
        .and_then(|file| file.take(MAX_DOCKERFILE).read_to_end(&mut text))
        .map_err(|cause| failed(&cause))?;
    let patterns = Patterns::read(&text)
        .map_err(|cause| Error::invalid(format!("error checking context: {}: {cause}", ignore::FILE)))?;
    for name in [dockerfile, ignore::FILE] {
        let place = root::resolve(root.as_fd(), name.as_bytes())?;
        let path = String::from_utf8_lossy(&place.path);
        if patterns.matches(&path) {
            root::remove_file(root.as_fd(), &place.path);
        }
    }
    Ok(())
}

/// Unpacks a tar, or gives back what is a Dockerfile alone.
fn unpack(body: impl Read, into: std::os::fd::BorrowedFd<'_>) -> Result<Option<Vec<u8>>> {
    let mut stream = codec::decompress(body)?;
    let mut head = Vec::new();
    (&mut stream).take(512).read_to_end(&mut head).map_err(read_failure)?;
    // Of an entry that only describes the next there is not enough to read more.
    let is_tar = match tar::Reader::new(Cursor::new(&head), Limits::default()).next_entry() {
        Err(Cause::Refused(cause)) => head.len() == 512 && cause.contains("truncated"),
        _ => true,
    };
    // Source: Docker takes a text for a Dockerfile; no byte of one is NUL.
    if !is_tar && !head.contains(&0) {
        (&mut stream).take(MAX_DOCKERFILE).read_to_end(&mut head).map_err(read_failure)?;
        return Ok(Some(head));
    }
    let put = Put { limits: Limits::default(), ..Put::default() };
    let mut whole = Padded { inner: Cursor::new(head).chain(stream), bytes: 0, end: None };
    layer::put(into, b"", &mut whole, put).map_err(|failure| match failure.cause {
        Cause::Refused(_) => Error::invalid(failure.to_string()).during("read the build context"),
        _ => Error::from(failure).during("read the build context"),
    })?;
    // To its end, so that the connection is free for the answer.
    io::copy(&mut whole, &mut io::sink()).map_err(read_failure)?;
    Ok(None)
}

/// A tar made whole to its last block.
///
/// Compat: the docker client does not end an archive it put a Dockerfile into: its last file is not padded.
struct Padded<R> {
    inner: R,
    bytes: u64,
    /// Once it has ended, how much of the padding is left.
    end: Option<usize>,
}

impl<R: Read> Read for Padded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = match self.end {
            Some(left) => left,
            None => {
                let count = self.inner.read(into)?;
                self.bytes += count as u64;
                if count > 0 || into.is_empty() {
                    return Ok(count);
                }
                (self.bytes.wrapping_neg() % 512) as usize
            }
        };
        let count = left.min(into.len());
        into[..count].fill(0);
        self.end = Some(left - count);
        Ok(count)
    }
}

fn read_failure(cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::invalid(format!("read the build context: {cause}"))
        }
        _ => Error::system("read the build context", cause),
    }
}

fn read_dockerfile(root: &OwnedFd, name: &str) -> Result<Vec<u8>> {
    let open = |name: &str| {
        let inode = root::open(root.as_fd(), name.as_bytes()).ok()?;
        let stat = rustix::fs::statat(&inode, "", rustix::fs::AtFlags::EMPTY_PATH).ok()?;
        (root::kind(&stat) == rustix::fs::FileType::RegularFile).then_some(inode)
    };
    let lower = name.to_lowercase();
    let inode = open(name).or_else(|| if name == DEFAULT_NAME { open(&lower) } else { None });
    // Compat: Docker's words, which scripts look for.
    let inode = inode.ok_or_else(|| Error::invalid(format!("Cannot locate specified Dockerfile: {name}")))?;
    let failed = |cause| Error::system(format!("read the Dockerfile {name}"), cause);
    let mut text = Vec::new();
    root::reopen(&inode).map_err(failed)?.take(MAX_DOCKERFILE).read_to_end(&mut text).map_err(failed)?;
    Ok(text)
}
