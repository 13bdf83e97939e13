//! `dewar cp`: files between a container and this host, as a tar stream in either direction.
//!
//! ```text
//!   out:  GET archive ──▶ entries, root renamed ──▶ files below the destination (or the tar to stdout)
//!   in:   HEAD archive (what is at the destination?) ──▶ files ──thread──▶ tar ──▶ PUT archive
//! ```
//!
//! Invariant: a container decides what its archive says, so nothing it says is followed out of the
//! destination: no `..`, no absolute path, and no symbolic link below the place the user named.
//!
//! Stays whole: both directions share one idea of what a path in an archive may mean.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Component, Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tar::EntryType;

use crate::cli::command::{Action, Args, Command, Flag, Matches};
use crate::cli::context::Context;
use crate::cli::error::{Error, go_cause};
use crate::cli::progress::Meter;
use crate::cli::terminal::{is_typed, is_watched, output_error};
use crate::http::api::container::{
    ArchiveQuery, CONTAINER_ARCHIVE, CONTAINER_ARCHIVE_INFO, PUT_CONTAINER_ARCHIVE,
};

static ARCHIVE: Flag = Flag::switch("archive", "Keep owners as they are").short('a');
static FOLLOW_LINK: Flag = Flag::switch("follow-link", "Copy what the source's link points to").short('L');
static QUIET: Flag = Flag::switch("quiet", "Do not say what was copied").short('q');

pub static CP: Command = Command {
    names: &["cp", "container cp"],
    summary: "Copy files between a container and this host",
    usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    about: "A '-' stands for a tar archive on stdin or stdout. SRC_PATH/. copies what is in a directory \
            instead of the directory.",
    flags: &[&ARCHIVE, &FOLLOW_LINK, &QUIET],
    args: Args::exactly(2),
    example: "dewar cp web:/etc/hostname .",
    usage_code: 1,
    plan: |matches| {
        let request = request(matches)?;
        Action::call(move |context| {
            let copied = match &request.direction {
                Direction::Out { container, source, destination } => {
                    copy_out(context, &request, container, source, destination)?
                }
                Direction::In { source, container, destination } => {
                    copy_in(context, &request, source, container, destination)?
                }
            };
            if let (Some(copied), false) = (copied, request.quiet) {
                super::super::say(&format!("Successfully copied {copied}"));
            }
            Ok(0)
        })
    },
};

#[derive(Debug, PartialEq)]
enum Direction {
    Out { container: String, source: String, destination: String },
    In { source: String, container: String, destination: String },
}

#[derive(Debug)]
struct Request {
    direction: Direction,
    archive: bool,
    follow_link: bool,
    quiet: bool,
}

fn request(matches: &Matches) -> Result<Request, Error> {
    let (source, destination) = (matches.args[0].clone(), matches.args[1].clone());
    for (text, what) in [(&source, "source"), (&destination, "destination")] {
        if text.is_empty() {
            return Err(Error::Local(format!("{what} can not be empty")));
        }
    }
    let direction = match (place(&source), place(&destination)) {
        (Some(_), Some(_)) => {
            return Err(Error::Local("copying between containers is not supported".to_owned()));
        }
        (None, None) => return Err(Error::Local("must specify at least one container source".to_owned())),
        (Some((container, path)), None) => Direction::Out {
            container: container.to_owned(),
            source: path.to_owned(),
            destination: destination.clone(),
        },
        (None, Some((container, path))) => {
            Direction::In { source, container: container.to_owned(), destination: path.to_owned() }
        }
    };
    Ok(Request {
        direction,
        archive: matches.is(&ARCHIVE),
        follow_link: matches.is(&FOLLOW_LINK),
        // Compat: nobody looks, so nothing is said, unless it is asked for.
        quiet: if matches.given(&QUIET) { matches.is(&QUIET) } else { !is_watched() },
    })
}

/// `CONTAINER:PATH` taken apart; a path with a colon in it is written `./a:b`.
fn place(text: &str) -> Option<(&str, &str)> {
    let (container, path) = text.split_once(':')?;
    let is_path = container.is_empty() || container.starts_with(['.', '/']);
    (!is_path).then_some((container, path))
}

/// What the daemon says about a path in a container.
#[derive(Debug, PartialEq)]
struct Stat {
    is_dir: bool,
    /// Empty unless it is a symbolic link.
    link_target: String,
}

/// `None` when nothing is there.
fn stat(context: &Context, container: &str, path: &str) -> Result<Option<Stat>, Error> {
    let query = ArchiveQuery { path: path.to_owned(), ..ArchiveQuery::default() };
    let head = match context.head(&CONTAINER_ARCHIVE_INFO, &[container], &query) {
        Ok(head) => head,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let text = head.headers.get("x-docker-container-path-stat").unwrap_or_default();
    let stat = read_stat(text).ok_or_else(|| {
        Error::Version(format!("stat {path:?} in the container: the daemon's answer {text:?} makes no sense"))
    })?;
    Ok(Some(stat))
}

fn read_stat(text: &str) -> Option<Stat> {
    let value: serde_json::Value = serde_json::from_slice(&STANDARD.decode(text).ok()?).ok()?;
    // Go's FileMode: the highest bit is a directory's.
    let is_dir = value.get("mode")?.as_u64()? & (1 << 31) != 0;
    let link_target =
        value.get("linkTarget").and_then(|target| target.as_str()).unwrap_or_default().to_owned();
    Some(Stat { is_dir, link_target })
}

/// `/a/.` and `/`: the content is meant, not the directory.
fn means_content(path: &str) -> bool {
    path == "." || path.ends_with("/.") || path.trim_end_matches('/').is_empty()
}

/// The last name of a path, if it has one.
fn base_name(path: &str) -> Option<OsString> {
    Path::new(path).file_name().map(OsString::from)
}

/// What was copied and where to, in words; `None` when the archive went to stdout.
fn copy_out(
    context: &Context,
    request: &Request,
    container: &str,
    source: &str,
    destination: &str,
) -> Result<Option<String>, Error> {
    let mut path = source.to_owned();
    if request.follow_link
        && let Some(Stat { link_target, .. }) = stat(context, container, source)?
        && !link_target.is_empty()
    {
        // A relative target counts from the link's own directory.
        let parent = Path::new(source).parent().unwrap_or(Path::new("/"));
        path = parent.join(link_target).to_string_lossy().into_owned();
    }
    let query = ArchiveQuery { path, ..ArchiveQuery::default() };
    if destination == "-" {
        if is_watched() {
            return Err(Error::Local("refusing to write an archive to a terminal".to_owned()));
        }
        let mut reader = context.stream(&CONTAINER_ARCHIVE, &[container], &query, &())?;
        return io::copy(&mut reader, &mut io::stdout().lock()).map(|_| None).map_err(output_error);
    }
    let content = means_content(source);
    let target = Target::choose(destination, base_name(source).filter(|_| !content))?;
    let reader = context.stream(&CONTAINER_ARCHIVE, &[container], &query, &())?;
    let meter = Meter::start("Copying from container - ", !request.quiet);
    unpack(meter.count(reader), &target, content, request.archive).map_err(|failure| match failure {
        Failure::Refused(words) => Error::Local(words.to_owned()),
        Failure::Io(cause) => Error::local(format!("copy to {destination:?}"), cause),
    })?;
    Ok(Some(format!("{} to {destination}", meter.finish())))
}

/// Where an archive goes: below `base`, its root under the name `root`.
#[derive(Debug, PartialEq)]
struct Target {
    /// A directory that exists and that the user named.
    base: PathBuf,
    /// `None` puts the content into `base` itself.
    root: Option<OsString>,
    /// Whether the root must not be a directory: a file of that name is there, or a slash demands it.
    root_kind: RootKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RootKind {
    Any,
    FileOnly,
    DirectoryOnly,
}

impl Target {
    /// cp's rules: into a directory that is there, else under the name given.
    fn choose(destination: &str, name: Option<OsString>) -> Result<Target, Error> {
        let path = Path::new(destination);
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                return Ok(Target { base: path.to_owned(), root: name, root_kind: RootKind::Any });
            }
            Ok(_) if destination.ends_with('/') => {
                return Err(Error::Local("not a directory".to_owned()));
            }
            Ok(_) | Err(_) => {}
        }
        let root_kind = match (path.symlink_metadata().is_ok(), destination.ends_with('/')) {
            (true, _) => RootKind::FileOnly,
            (false, true) => RootKind::DirectoryOnly,
            (false, false) => RootKind::Any,
        };
        let base = match path.parent() {
            None => Path::new("/"),
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
        };
        if !base.is_dir() {
            let base = absolute(base);
            return Err(Error::Local(format!("invalid output path: directory {base:?} does not exist")));
        }
        let root = path.file_name().map(OsString::from);
        Ok(Target { base: base.to_owned(), root, root_kind })
    }
}

/// Why nothing was unpacked, or not all.
#[derive(Debug)]
enum Failure {
    /// What came and the place named do not fit; docker's words.
    Refused(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Failure {
        Failure::Io(cause)
    }
}

/// Unpacks `reader` at `target`. With `content` the archive's root stands for the target itself.
fn unpack(reader: impl Read, target: &Target, content: bool, keep_owner: bool) -> Result<(), Failure> {
    let mut archive = tar::Archive::new(reader);
    let mut directories: Vec<(PathBuf, u32, u64)> = Vec::new();
    let mut is_empty = true;
    for entry in archive.entries()? {
        let mut entry = entry?;
        is_empty = false;
        let name = entry.path()?.into_owned();
        let inner = inner_path(&name, content)?;
        let is_root = inner.as_os_str().is_empty();
        let kind = entry.header().entry_type();
        if is_root {
            let refusal = match (target.root_kind, kind) {
                (RootKind::FileOnly, EntryType::Directory) => Some("cannot copy directory"),
                (RootKind::DirectoryOnly, kind) if kind != EntryType::Directory => Some("no such directory"),
                _ => None,
            };
            if let Some(refusal) = refusal {
                return Err(Failure::Refused(refusal));
            }
        }
        let relative =
            target.root.as_ref().map_or_else(|| inner.clone(), |root| Path::new(root).join(&inner));
        let relative: PathBuf = relative.components().collect();
        // Set-id bits make sense with the owner only.
        let mode = entry.header().mode()? & if keep_owner { 0o7777 } else { 0o1777 };
        let owner = (entry.header().uid()?, entry.header().gid()?);
        let mtime = entry.header().mtime()?;
        let place = match relative.as_os_str().is_empty() {
            true => target.base.clone(),
            false => settle(&target.base, &relative)?,
        };
        match kind {
            EntryType::Directory => {
                make_directory(&place, place == target.base)?;
                directories.push((place.clone(), mode, mtime));
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                clear(&place)?;
                let mut file = File::create_new(&place)?;
                io::copy(&mut entry, &mut file)?;
                set_owner(&place, keep_owner, owner)?;
                file.set_permissions(fs::Permissions::from_mode(mode))?;
                file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(mtime))?;
            }
            EntryType::Symlink => {
                let link = entry.link_name()?.ok_or_else(|| invalid(&name, "a link without a target"))?;
                clear(&place)?;
                symlink(link, &place)?;
                set_owner(&place, keep_owner, owner)?;
            }
            EntryType::Link => {
                let link = entry.link_name()?.ok_or_else(|| invalid(&name, "a link without a target"))?;
                let inner = inner_path(&link, content)?;
                let root =
                    target.root.as_ref().map_or_else(|| inner.clone(), |root| Path::new(root).join(&inner));
                let source = settle(&target.base, &root)?;
                clear(&place)?;
                fs::hard_link(source, &place)?;
            }
            EntryType::XGlobalHeader => {}
            other => {
                super::super::say(&format!(
                    "dewar: warning: {}: not copied: {other:?} is no file, directory or link",
                    name.display()
                ));
                continue;
            }
        }
        if kind == EntryType::Directory && place != target.base {
            set_owner(&place, keep_owner, owner)?;
        }
    }
    // Last, because a directory may forbid writing, and writing changes its time.
    for (place, mode, mtime) in directories.into_iter().rev().filter(|(place, ..)| *place != target.base) {
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))?;
        File::open(&place)?.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(mtime))?;
    }
    match is_empty {
        true => Err(io::Error::other("the archive is empty").into()),
        false => Ok(()),
    }
}

fn invalid(name: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", name.display()))
}

/// An entry's path below the archive's root; empty for the root itself.
fn inner_path(name: &Path, content: bool) -> io::Result<PathBuf> {
    let mut inner = PathBuf::new();
    let mut to_strip = !content;
    for component in name.components() {
        match component {
            Component::Normal(_) if to_strip => to_strip = false,
            Component::Normal(part) => inner.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(invalid(name, "the archive points out of itself"));
            }
        }
    }
    Ok(inner)
}

/// `base` and `relative` joined, every directory between them made, none of them a symbolic link.
fn settle(base: &Path, relative: &Path) -> io::Result<PathBuf> {
    let mut place = base.to_owned();
    let mut components = relative.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(part) = component else {
            return Err(invalid(relative, "the archive points out of itself"));
        };
        place.push(part);
        if components.peek().is_some() {
            make_directory(&place, false)?;
        }
    }
    Ok(place)
}

/// Makes a directory unless it is there. A link to one will not do, unless the user named it (`named`).
fn make_directory(place: &Path, named: bool) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() || named => Ok(()),
        Ok(_) => Err(invalid(place, "a directory is to be copied over something else")),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => fs::create_dir(place),
        Err(cause) => Err(cause),
    }
}

/// Takes away what is in the way of a file or link; a directory is never in the way by right.
fn clear(place: &Path) -> io::Result<()> {
    match fs::symlink_metadata(place) {
        Ok(metadata) if metadata.is_dir() => Err(invalid(place, "a file is to be copied over a directory")),
        Ok(_) => fs::remove_file(place),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

fn set_owner(place: &Path, keep: bool, (uid, gid): (u64, u64)) -> io::Result<()> {
    if !keep {
        return Ok(());
    }
    let number = |id: u64| u32::try_from(id).map_err(|_| invalid(place, "an owner beyond 32 bits"));
    lchown(place, Some(number(uid)?), Some(number(gid)?))
}

fn copy_in(
    context: &Context,
    request: &Request,
    source: &str,
    container: &str,
    destination: &str,
) -> Result<Option<String>, Error> {
    let put = |path: String, body: Box<dyn Read + Send>| {
        let query = ArchiveQuery { path, no_overwrite_dir_non_dir: true, copy_uid_gid: request.archive };
        let meter = Meter::start("Copying to container - ", !request.quiet);
        context.upload(&PUT_CONTAINER_ARCHIVE, &[container], &query, meter.count(body))?;
        Ok(Some(format!("{} to {container}:{destination}", meter.finish())))
    };
    if source == "-" {
        if is_typed() {
            return Err(Error::Local("refusing to read an archive from a terminal".to_owned()));
        }
        if let Some(found) = target(context, container, destination)?.1
            && !found.is_dir
        {
            return Err(Error::Local(format!(
                "destination \"{container}:{destination}\" must be a directory"
            )));
        }
        return put(destination.to_owned(), Box::new(io::stdin()));
    }
    let failed = |cause: io::Error| Error::local(format!("copy {source:?}"), cause);
    // A trailing slash or dot names what a link points to.
    let follow = request.follow_link || source.ends_with('/') || means_content(source);
    let (call, metadata) = match follow {
        true => ("stat", fs::metadata(source)),
        false => ("lstat", fs::symlink_metadata(source)),
    };
    let is_dir = match metadata {
        Ok(metadata) => metadata.is_dir(),
        Err(cause) if cause.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::Local("not a directory".to_owned()));
        }
        Err(cause) => {
            let path = absolute(Path::new(source));
            return Err(Error::Local(format!("{call} {}: {}", path.display(), go_cause(&cause))));
        }
    };
    if !is_dir && source.ends_with('/') {
        return Err(Error::Local("not a directory".to_owned()));
    }
    let (destination, found) = target(context, container, destination)?;
    let content = means_content(source);
    // `..` and the like have no name of their own; the real directory has.
    let own = || base_name(source).or_else(|| base_name(&fs::canonicalize(source).ok()?.to_string_lossy()));
    let (path, name) = match found {
        Some(Stat { is_dir: true, .. }) if content => (destination, OsString::from(".")),
        Some(Stat { is_dir: true, .. }) => (destination, own().unwrap_or_else(|| OsString::from("."))),
        Some(_) if is_dir => {
            return Err(Error::Local("cannot copy directory".to_owned()));
        }
        None if destination.ends_with('/') && !is_dir => {
            return Err(Error::Local("no such directory".to_owned()));
        }
        Some(_) | None => {
            let path = Path::new(&destination);
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let name = path.file_name().ok_or_else(|| {
                Error::Local(format!("the destination {destination:?} has no name of its own"))
            })?;
            (parent.unwrap_or(Path::new("/")).to_string_lossy().into_owned(), name.to_owned())
        }
    };
    let (reader, writer) = io::pipe().map_err(|cause| Error::local("make a pipe", cause))?;
    let packed = source.to_owned();
    let packer = thread::Builder::new()
        .name("pack".to_owned())
        .spawn(move || pack(writer, Path::new(&packed), &name, is_dir, follow))
        .map_err(|cause| Error::local("start a thread that packs", cause))?;
    let sent = put(path, Box::new(reader));
    match (packer.join(), sent) {
        // A daemon that refuses stops reading; what it says is what went wrong.
        (_, Err(error)) => Err(error),
        (Ok(Err(cause)), Ok(_)) => Err(failed(cause)),
        (Err(_), Ok(_)) => Err(Error::Local(format!("copy {source:?}: the thread that packs failed"))),
        (Ok(Ok(())), Ok(copied)) => Ok(copied),
    }
}

/// Where `destination` leads and what is there, if anything; one link is followed.
fn target(context: &Context, container: &str, destination: &str) -> Result<(String, Option<Stat>), Error> {
    if destination.is_empty() {
        return Err(Error::Local("no such directory".to_owned()));
    }
    let found = stat(context, container, destination)?;
    match &found {
        Some(Stat { link_target, .. }) if !link_target.is_empty() => {
            let parent = Path::new(destination).parent().unwrap_or(Path::new("/"));
            let destination = parent.join(link_target).to_string_lossy().into_owned();
            let found = stat(context, container, &destination)?;
            Ok((destination, found))
        }
        _ => Ok((destination.to_owned(), found)),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Writes `source` as an archive whose root is called `name`.
fn pack(
    out: impl io::Write,
    source: &Path,
    name: &std::ffi::OsStr,
    is_dir: bool,
    follow: bool,
) -> io::Result<()> {
    let mut builder = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, out));
    if is_dir {
        // Links inside are copied as links.
        builder.follow_symlinks(false);
        builder.append_dir_all(name, source)?;
    } else {
        builder.follow_symlinks(follow);
        builder.append_path_with_name(source, name)?;
    }
    let mut out = builder.into_inner()?;
    io::Write::flush(&mut out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::{Parsed, parse};

    fn request_of(line: &str) -> Result<Request, Error> {
        match parse(line.split_whitespace().map(Into::into))? {
            Parsed::Run { matches, .. } => request(&matches),
            other => panic!("{other:?}"),
        }
    }

    /// A directory that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("dewar-cp-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Scratch(path)
        }
        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
        fn text(&self, name: &str) -> String {
            self.path(name).to_str().unwrap().to_owned()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    enum Item<'a> {
        Dir(&'a str),
        File(&'a str, &'a str),
        Symlink(&'a str, &'a str),
        Hard(&'a str, &'a str),
    }

    fn archive(items: &[Item<'_>]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for item in items {
            let mut header = tar::Header::new_gnu();
            let (name, kind, content, link) = match item {
                Item::Dir(name) => (name, EntryType::Directory, "", None),
                Item::File(name, content) => (name, EntryType::Regular, *content, None),
                Item::Symlink(name, link) => (name, EntryType::Symlink, "", Some(link)),
                Item::Hard(name, link) => (name, EntryType::Link, "", Some(link)),
            };
            // Written by hand: the builder refuses the hostile names these tests are about.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if let Some(link) = link {
                header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            }
            header.set_entry_type(kind);
            header.set_mode(if kind == EntryType::Directory { 0o755 } else { 0o4640 });
            header.set_size(content.len() as u64);
            header.set_mtime(1000);
            header.set_uid(0);
            header.set_gid(0);
            header.set_cksum();
            builder.append(&header, content.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn places_are_told_from_paths() {
        assert_eq!(place("web:/etc"), Some(("web", "/etc")));
        for path in ["/a:b", "./a:b", "file", ":x", "-"] {
            assert_eq!(place(path), None, "{path}");
        }
        assert!(matches!(request_of("cp web:/a .").unwrap().direction, Direction::Out { .. }));
        assert!(matches!(request_of("cp -aLq - web:/a").unwrap().direction, Direction::In { .. }));
        assert!(request_of("cp a:/x b:/y").is_err() && request_of("cp x y").is_err());
    }

    #[test]
    fn the_daemons_stat_is_read() {
        // {"name":"etc","size":4096,"mode":2147484141,"mtime":"…","linkTarget":""}
        let text = "eyJuYW1lIjoiZXRjIiwibW9kZSI6MjE0NzQ4NDE0MSwibGlua1RhcmdldCI6IiJ9";
        assert_eq!(read_stat(text), Some(Stat { is_dir: true, link_target: String::new() }));
        assert_eq!(read_stat("!"), None);
    }

    #[test]
    fn a_directory_lands_inside_or_under_a_new_name() {
        let scratch = Scratch::new("dir");
        let tar = archive(&[
            Item::Dir("etc/"),
            Item::File("etc/a", "A"),
            Item::Symlink("etc/l", "a"),
            Item::Hard("etc/h", "etc/a"),
        ]);
        let into = Target::choose(scratch.0.to_str().unwrap(), Some("etc".into())).unwrap();
        unpack(tar.as_slice(), &into, false, false).unwrap();
        assert_eq!(fs::read_to_string(scratch.path("etc/h")).unwrap(), "A");
        assert_eq!(fs::read_link(scratch.path("etc/l")).unwrap(), Path::new("a"));
        let metadata = fs::metadata(scratch.path("etc/a")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o640, "no set-id bits without -a");
        assert_eq!(metadata.modified().unwrap(), SystemTime::UNIX_EPOCH + Duration::from_secs(1000));
        let renamed = Target::choose(&scratch.text("new"), Some("etc".into())).unwrap();
        unpack(tar.as_slice(), &renamed, false, false).unwrap();
        assert!(scratch.path("new/a").exists());
        let dotted = archive(&[Item::Dir("./"), Item::File("./b", "B")]);
        let content = Target::choose(&scratch.text("new"), None).unwrap();
        unpack(dotted.as_slice(), &content, true, false).unwrap();
        assert_eq!(fs::read_to_string(scratch.path("new/b")).unwrap(), "B");
    }

    #[test]
    fn files_replace_files_and_nothing_else() {
        let scratch = Scratch::new("file");
        let tar = archive(&[Item::File("a", "new")]);
        fs::write(scratch.path("x"), "old").unwrap();
        unpack(tar.as_slice(), &Target::choose(&scratch.text("x"), Some("a".into())).unwrap(), false, false)
            .unwrap();
        assert_eq!(fs::read_to_string(scratch.path("x")).unwrap(), "new");
        let directory = archive(&[Item::Dir("d/")]);
        let over = Target::choose(&scratch.text("x"), Some("d".into())).unwrap();
        assert!(unpack(directory.as_slice(), &over, false, false).is_err());
        let slash = Target::choose(&scratch.text("missing/"), Some("a".into())).unwrap();
        assert!(unpack(tar.as_slice(), &slash, false, false).is_err());
        assert!(Target::choose(&scratch.text("no/where"), None).is_err());
        fs::create_dir(scratch.path("a")).unwrap();
        let inside = Target::choose(scratch.0.to_str().unwrap(), Some("a".into())).unwrap();
        assert!(unpack(tar.as_slice(), &inside, false, false).is_err());
    }

    #[test]
    fn an_archive_cannot_write_outside_its_destination() {
        let scratch = Scratch::new("hostile");
        fs::create_dir(scratch.path("in")).unwrap();
        fs::create_dir(scratch.path("out")).unwrap();
        fs::write(scratch.path("out/secret"), "secret").unwrap();
        let out = scratch.text("out");
        let secret = scratch.text("out/secret");
        let hostile = [
            archive(&[Item::File("a/../../out/evil", "x")]),
            archive(&[Item::Dir("a/"), Item::Symlink("a/l", &out), Item::File("a/l/evil", "x")]),
            archive(&[Item::Dir("b/"), Item::Symlink("b/l", "../../out"), Item::Hard("b/h", "b/l/secret")]),
            archive(&[Item::Dir("c/"), Item::Hard("c/h", "../out/secret")]),
        ];
        for tar in &hostile {
            let target = Target::choose(&scratch.text("in"), Some("r".into())).unwrap();
            assert!(unpack(tar.as_slice(), &target, false, false).is_err());
        }
        // A link planted by an earlier copy is replaced, not followed.
        symlink(&secret, scratch.path("in/f")).unwrap();
        let target = Target::choose(&scratch.text("in"), Some("f".into())).unwrap();
        unpack(archive(&[Item::File("f", "mine")]).as_slice(), &target, false, false).unwrap();
        assert_eq!(fs::read_to_string(scratch.path("out/secret")).unwrap(), "secret");
        assert_eq!(fs::read_dir(scratch.path("out")).unwrap().count(), 1);
    }

    #[test]
    fn what_is_packed_unpacks_to_the_same() {
        let scratch = Scratch::new("pack");
        fs::create_dir(scratch.path("src")).unwrap();
        fs::write(scratch.path("src/f"), "hello").unwrap();
        symlink("f", scratch.path("src/l")).unwrap();
        let mut tar = Vec::new();
        pack(&mut tar, &scratch.path("src"), "dst".as_ref(), true, false).unwrap();
        let target = Target::choose(scratch.0.to_str().unwrap(), Some("dst".into())).unwrap();
        unpack(tar.as_slice(), &target, false, false).unwrap();
        assert_eq!(fs::read_to_string(scratch.path("dst/f")).unwrap(), "hello");
        assert_eq!(fs::read_link(scratch.path("dst/l")).unwrap(), Path::new("f"));
        assert!(pack(Vec::new(), &scratch.path("nope"), "x".as_ref(), false, false).is_err());
    }
}
