//! What a build is made of: where its context is, which Dockerfile it means, what the daemon is told of both.
//!
//! | context | `-f` | what is sent |
//! |---|---|---|
//! | directory | none, or a file in it | the directory, without what `.dockerignore` names |
//! | directory | `-`, or a file outside of it | the same and the Dockerfile under a name of its own |
//! | `-` | none | stdin: an archive as it is, or a Dockerfile as the only file |
//! | `-` | a file in it | stdin, which has to be an archive |
//! | URL | none, or a file in it | nothing: the daemon fetches it |
//!
//! Compat: words of what goes wrong are the docker client's, which says "unable to prepare context" first.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::cli::error::{Error, go_cause};
use crate::http::api::ignore::{self, Patterns};

use super::pack::{self, Contents};

/// The body of the request, and what its query says of it.
pub struct Prepared {
    /// The archive; `None` if the daemon is to fetch it.
    pub body: Option<Box<dyn Read + Send>>,
    /// The Dockerfile's name in the context; empty for the usual one.
    pub dockerfile: String,
    /// The context's address, if the daemon is to fetch it.
    pub remote: String,
}

/// Magic bytes of what an archive may be packed with: gzip, bzip2, xz, zstd.
const MAGICS: &[&[u8]] =
    &[&[0x1f, 0x8b, 0x08], b"BZh", &[0xfd, b'7', b'z', b'X', b'Z', 0], &[0x28, 0xb5, 0x2f, 0xfd]];
/// The head of a tar archive's first entry.
const TAR_HEAD: usize = 512;
/// What docker takes for a Dockerfile where none is named.
const DEFAULT: &str = "Dockerfile";

/// Finds out what is to be sent. Reads stdin and small files; a directory is read while it is sent.
pub fn prepare(context: &str, dockerfile: &str, is_compressed: bool) -> Result<Prepared, Error> {
    let unable = |cause: String| Error::Local(format!("unable to prepare context: {cause}"));
    if context == "-" {
        if dockerfile == "-" {
            return Err(Error::Local(
                "invalid argument: can't use stdin for both build context and dockerfile".to_owned(),
            ));
        }
        return from_stdin(dockerfile, is_compressed).map_err(unable);
    }
    if fs::metadata(context).is_ok() {
        return from_directory(Path::new(context), dockerfile, is_compressed);
    }
    if is_git(context) {
        return Err(unable(format!(
            "{context:?} is a git repository, which is not fetched: clone it and build the directory"
        )));
    }
    if context.starts_with("http://") || context.starts_with("https://") {
        if dockerfile == "-" {
            return Err(unable("the context at a URL has to have the Dockerfile in it".to_owned()));
        }
        return Ok(Prepared { body: None, dockerfile: dockerfile.to_owned(), remote: context.to_owned() });
    }
    Err(unable(format!("path {context:?} not found")))
}

/// Source: the docker client's `urlutil`.
fn is_git(context: &str) -> bool {
    let is_url = context.starts_with("http://") || context.starts_with("https://");
    let path = context.split('#').next().unwrap_or_default();
    (is_url && path.ends_with(".git"))
        || ["git://", "github.com/", "git@"].iter().any(|prefix| context.starts_with(prefix))
}

fn from_stdin(dockerfile: &str, is_compressed: bool) -> Result<Prepared, String> {
    let mut head = Vec::new();
    let failed = |cause: io::Error| format!("failed to peek context header from STDIN: {}", go_cause(&cause));
    io::stdin().take(2 * TAR_HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    if is_archive(&head) {
        let body = io::Cursor::new(head).chain(io::stdin());
        return Ok(Prepared {
            body: Some(Box::new(body)),
            dockerfile: dockerfile.to_owned(),
            remote: String::new(),
        });
    }
    if !dockerfile.is_empty() {
        return Err("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles".to_owned());
    }
    io::stdin().read_to_end(&mut head).map_err(failed)?;
    let contents =
        Contents { dockerfile: Some((DEFAULT.to_owned(), head)), is_compressed, ..Contents::default() };
    let packed = pack::start(contents).map_err(|cause| format!("pack the Dockerfile: {cause}"))?;
    Ok(Prepared { body: Some(Box::new(packed)), dockerfile: DEFAULT.to_owned(), remote: String::new() })
}

/// Whether a stream that begins so is an archive, packed or not.
fn is_archive(head: &[u8]) -> bool {
    if MAGICS.iter().any(|magic| head.starts_with(magic)) {
        return true;
    }
    let Some(block) = head.first_chunk::<TAR_HEAD>() else { return false };
    let header = tar::Header::from_byte_slice(block);
    // The sum is made with blanks in its own place.
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum();
    block.iter().any(|byte| *byte != 0) && header.cksum().is_ok_and(|told| told == sum)
}

fn from_directory(context: &Path, dockerfile: &str, is_compressed: bool) -> Result<Prepared, Error> {
    let unable = |cause: String| Error::Local(format!("unable to prepare context: {cause}"));
    let directory = fs::canonicalize(context).map_err(|cause| {
        unable(format!("unable to evaluate symlinks in context path: {}", go_cause(&cause)))
    })?;
    if !directory.is_dir() {
        return Err(unable(format!("context must be a directory: {}", directory.display())));
    }
    let mut own = None;
    let name = match dockerfile {
        "-" => {
            let mut text = Vec::new();
            io::stdin()
                .read_to_end(&mut text)
                .map_err(|cause| Error::local("read the Dockerfile from standard input", go_cause(&cause)))?;
            own = Some(text);
            "-".to_owned()
        }
        _ => {
            let path = locate(&directory, dockerfile).map_err(unable)?;
            match path.strip_prefix(&directory) {
                Ok(name) => name.to_string_lossy().into_owned(),
                Err(_) => {
                    let text = fs::read(&path).map_err(|cause| {
                        Error::Local(format!(
                            "unable to open Dockerfile: open {dockerfile}: {}",
                            go_cause(&cause)
                        ))
                    })?;
                    own = Some(text);
                    path.to_string_lossy().into_owned()
                }
            }
        }
    };
    let mut excluded = excluded(&directory, &name, own.is_none())?;
    let contents_dockerfile = match own {
        None => {
            keep(&mut excluded, &name);
            None
        }
        Some(text) => Some((random_name()?, text)),
    };
    keep(&mut excluded, ignore::FILE);
    let name = contents_dockerfile.as_ref().map_or(name, |(name, _)| name.clone());
    let contents = Contents {
        directory: Some(directory),
        excluded,
        hides_dockerfile: contents_dockerfile.is_some(),
        dockerfile: contents_dockerfile,
        is_compressed,
    };
    let packed = pack::start(contents).map_err(|cause| Error::local("pack the context", cause))?;
    Ok(Prepared { body: Some(Box::new(packed)), dockerfile: name, remote: String::new() })
}

/// The Dockerfile's real path. A name is relative to where we are, the usual one is in the context.
fn locate(directory: &Path, dockerfile: &str) -> Result<PathBuf, String> {
    let path = match dockerfile {
        "" => {
            let usual = directory.join(DEFAULT);
            let small = directory.join("dockerfile");
            match fs::symlink_metadata(&usual).is_err() && fs::symlink_metadata(&small).is_ok() {
                true => small,
                false => usual,
            }
        }
        named => std::path::absolute(named)
            .map_err(|cause| format!("unable to get absolute path to Dockerfile: {}", go_cause(&cause)))?,
    };
    fs::canonicalize(&path).map_err(|cause| {
        format!(
            "unable to evaluate symlinks in Dockerfile path: lstat {}: {}",
            path.display(),
            go_cause(&cause)
        )
    })
}

/// What is left out: by a file beside the Dockerfile that has its name, or by the context's.
fn excluded(directory: &Path, dockerfile: &str, is_inside: bool) -> Result<Patterns, Error> {
    let own = PathBuf::from(format!("{dockerfile}{}", ignore::FILE));
    let own = if is_inside { directory.join(own) } else { own };
    for path in [own, directory.join(ignore::FILE)] {
        let text = match File::open(&path) {
            Ok(mut file) => {
                let mut text = Vec::new();
                file.read_to_end(&mut text).map(|_| text)
            }
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                continue;
            }
            Err(cause) => Err(cause),
        };
        let text = text.map_err(|cause| Error::open(&path.to_string_lossy(), &cause))?;
        return Patterns::read(&text).map_err(|cause| Error::local("error checking context", cause));
    }
    Ok(Patterns::default())
}

/// The daemon needs it, whatever the patterns say; they tell it to take it away again.
fn keep(excluded: &mut Patterns, name: &str) {
    if excluded.matches(name) {
        // A name of signs may not be a pattern; docker does not send the file either then.
        let _ = excluded.add(&format!("!{name}"));
    }
}

/// A name that is in no context.
fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 10];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|cause| Error::local("get random bytes", cause))?;
    Ok(format!(".dockerfile.{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()))
}
