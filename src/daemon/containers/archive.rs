//! `docker cp`: files in and out of a container whose root directory is open.
//!
//! The root is a descriptor of `/proc/<pid>/root` or of a mounted overlay. Every name is resolved by
//! `openat2` with `RESOLVE_IN_ROOT`, so links lead where they lead for the container's own processes, and a
//! process that swaps them meanwhile cannot lead us out. Nothing is run in the container and no program is
//! started to decompress.
//!
//! The last part of a name is not followed unless a `/` or `/.` comes after it, as in Docker.
//!
//! Not here: which container, and how its root is opened (`daemon::containers`).

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::Container;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec;
use crate::runtime::layer::tar::Writer;
use crate::runtime::layer::{self, Put, Trees};
use crate::runtime::{self, Cause};

/// Links followed in one name, as many as the kernel follows.
const MAX_LINKS: usize = 40;

/// What a name in a container stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathStat {
    pub name: String,
    /// Bytes.
    pub size: i64,
    /// Go's `FileMode`: nine permission bits, and its own bits for the rest.
    pub mode: u32,
    /// RFC 3339 with nanoseconds.
    pub mtime: String,
    /// Where a symbolic link ends, as an absolute path in the container; empty for everything else.
    pub link_target: String,
}

impl PathStat {
    /// The value of the header `X-Docker-Container-Path-Stat`.
    pub fn to_header(&self) -> String {
        STANDARD.encode(serde_json::json!(self).to_string())
    }
}

/// What `path` is. `Could not find the file … in container …` (404) when it is nothing.
pub fn stat(root: BorrowedFd<'_>, path: &str, container: &str) -> Result<PathStat> {
    let inode = open(root, path, container)?;
    let stat =
        rustix::fs::statat(&inode, "", AtFlags::EMPTY_PATH).map_err(|errno| failed("stat", path, errno))?;
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let mtime = jiff::Timestamp::new(stat.st_mtime, i32::try_from(stat.st_mtime_nsec).unwrap_or(0));
    Ok(PathStat {
        name: base_name(path).to_owned(),
        size: stat.st_size,
        mode: go_mode(&stat),
        mtime: mtime.unwrap_or_default().to_string(),
        link_target: if is_link { final_target(root, path) } else { String::new() },
    })
}

/// Writes `path` and what is below it as a tar whose names begin with the last part of `path`; `path/.`
/// gives what is in the directory. The kernel's own file systems are left empty.
///
/// Fails before the first byte when `path` is nothing.
pub fn get(root: BorrowedFd<'_>, path: &str, container: &str, out: impl Write) -> Result<()> {
    let inode = open(root, path, container)?;
    let mut writer = Writer::new(out);
    let name = match base_name(path) {
        "." => "./",
        name => name,
    };
    layer::pack_tree(inode.as_fd(), name.as_bytes(), Trees::Mounted, &mut writer)?;
    writer.finish().map_err(|cause| failed("read", path, cause))?;
    Ok(())
}

/// Refuses (403, Docker's words) a directory that a process in the container could not write to either.
pub fn check_writable(
    root: BorrowedFd<'_>,
    path: &str,
    container: &str,
    readonly_rootfs: bool,
) -> Result<()> {
    let directory = open(root, &format!("{path}/"), container).or_else(|_| open(root, path, container))?;
    let attempt = |errno| failed("look at", path, errno);
    let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_dev).map_err(attempt);
    if device(root)? == device(directory.as_fd())? {
        if readonly_rootfs {
            return Err(Error::forbidden("container rootfs is marked read-only"));
        }
    } else if rustix::fs::fstatvfs(&directory).map_err(attempt)?.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(Error::forbidden("mounted volume is marked read-only"));
    }
    Ok(())
}

/// A stream that fails once the files it is about, layer `layer` of the container, are being deleted.
pub struct WhileThere<'a, T> {
    pub inner: T,
    pub container: &'a Container,
    pub layer: u32,
}

impl<T: Write> Write for WhileThere<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.container.check_there(self.layer)?;
        self.inner.write(bytes)
    }

    /// The end of an archive is flushed: what was missing in it is noticed.
    fn flush(&mut self) -> io::Result<()> {
        self.container.check_there(self.layer)?;
        self.inner.flush()
    }
}

impl<T: Read> Read for WhileThere<'_, T> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        // After the wait: nothing that came while its files went is unpacked.
        self.container.check_there(self.layer).map(|()| count)
    }
}

/// Unpacks an archive (plain or compressed: gzip, bzip2, xz, zstd) into the directory `path`.
///
/// `no_overwrite_dir_non_dir` refuses to replace a directory by something else and the reverse; `owner`
/// gets all files instead of the archive's owners (`copyUIDGID`: the container's user).
pub fn put(
    root: BorrowedFd<'_>,
    path: &str,
    container: &str,
    archive: impl Read,
    no_overwrite_dir_non_dir: bool,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    // The slash makes the last part be followed, and be a directory.
    let directory = format!("{path}/");
    match open(root, &directory, container) {
        Ok(_) => {}
        Err(_) if open(root, path, container).is_ok() => {
            return Err(Error::invalid("extraction point is not a directory"));
        }
        Err(_) => return Err(missing(path, container)),
    }
    let options = Put { no_overwrite_dir_non_dir, owner, ..Put::default() };
    let archive = codec::decompress(archive)?;
    layer::put(root, directory.as_bytes(), archive, options).map_err(classed)?;
    Ok(())
}

fn open(root: BorrowedFd<'_>, path: &str, container: &str) -> Result<OwnedFd> {
    if path.is_empty() {
        return Err(Error::invalid("bad parameter: path: cannot be empty"));
    }
    open_inode(root, path.as_bytes()).map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => missing(path, container),
        Errno::LOOP | Errno::NAMETOOLONG | Errno::INVAL => {
            Error::invalid(format!("find {path:?} in container {container}: {}", io::Error::from(errno)))
        }
        errno => failed("find", path, errno),
    })
}

fn open_inode(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename in the container came between; the next try sees one state or the other.
    for _ in 0..64 {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn missing(path: &str, container: &str) -> Error {
    Error::not_found(format!("Could not find the file {path} in container {container}"))
}

fn failed(attempt: &str, path: &str, cause: impl Into<io::Error>) -> Error {
    Error::system(format!("{attempt} {path:?} in the container"), cause.into())
}

fn classed(failure: runtime::Error) -> Error {
    match &failure.cause {
        Cause::Refused(_) => Error::invalid(failure.to_string()),
        Cause::Io(cause) => match cause.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::ROFS) => Error::forbidden(format!("container rootfs is marked read-only: {failure}")),
            // The names in the archive do not fit what is there.
            Some(Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV) => {
                Error::invalid(failure.to_string())
            }
            _ => failure.into(),
        },
        Cause::Command(_) => failure.into(),
    }
}

/// The last part as Go's `filepath.Base` has it: `/` for the root, `.` for `dir/.`.
fn base_name(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() {
        return "/";
    }
    match trimmed.rsplit('/').next() {
        // Not a name to give to anything.
        Some("..") | None => ".",
        Some(name) => name,
    }
}

/// Follows the links at the end of `path` as the container's processes would, as far as there is anything.
/// For showing only: by the time somebody opens the answer it may lead elsewhere.
fn final_target(root: BorrowedFd<'_>, path: &str) -> String {
    let mut done: Vec<String> = Vec::new();
    let mut pending: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut links = 0;
    while let Some(part) = pending.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            _ => done.push(part),
        }
        let so_far = format!("/{}", done.join("/"));
        let target = open_inode(root, so_far.as_bytes())
            .and_then(|inode| rustix::fs::readlinkat(&inode, "", Vec::new()));
        // No link, or nothing there.
        let Ok(target) = target else { continue };
        links += 1;
        if links > MAX_LINKS {
            break;
        }
        let target = target.to_string_lossy();
        done.pop();
        if target.starts_with('/') {
            done.clear();
        }
        pending.extend(target.split('/').rev().map(str::to_owned));
    }
    format!("/{}", done.join("/"))
}

/// Go's `os.FileMode`, bit 31 downwards: `d a l T L D p S u g c t`.
fn go_mode(stat: &Stat) -> u32 {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 23), (0o2000, 22), (0o1000, 20)]
        .into_iter()
        .filter(|(bit, _)| stat.st_mode & bit != 0)
        .fold(0, |bits, (_, go)| bits | 1 << go);
    kind | special | stat.st_mode & 0o777
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::PathBuf;

    use super::*;
    use crate::http::api::Class;
    use crate::runtime::layer::Limits;
    use crate::runtime::layer::tar::{Entry, Kind, Reader};

    /// A root directory with a secret beside it, gone when the test is.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("dewar-cp-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(path.join("root/dir/sub")).unwrap();
            fs::write(path.join("secret"), "hidden content").unwrap();
            fs::write(path.join("root/dir/file"), "content").unwrap();
            fs::set_permissions(path.join("root/dir"), fs::Permissions::from_mode(0o1755)).unwrap();
            Scratch(path)
        }

        fn root(&self) -> File {
            File::open(self.0.join("root")).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn names(archive: &[u8]) -> Vec<String> {
        let mut reader = Reader::new(archive, Limits::default());
        let mut names = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            names.push(String::from_utf8(entry.path).unwrap());
        }
        names
    }

    fn tar(name: &str, content: &str) -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        let mut entry = Entry::new(name, Kind::File, 0o640);
        entry.size = content.len() as u64;
        (entry.uid, entry.gid) = (11, 12);
        writer.append(&entry, &mut content.as_bytes()).unwrap();
        writer.finish().unwrap().0
    }

    #[test]
    fn a_name_is_described_in_gos_words() {
        let scratch = Scratch::new("stat");
        let (root, base) = (scratch.root(), scratch.0.join("root"));
        symlink("/dir/../one", base.join("dir/link")).unwrap();
        symlink("dir/sub", base.join("one")).unwrap();
        symlink("../../../../../secret", base.join("out")).unwrap();
        let of = |path: &str| stat(root.as_fd(), path, "abc").unwrap();
        let directory = of("/dir");
        assert_eq!((directory.name.as_str(), directory.mode), ("dir", 1 << 31 | 1 << 20 | 0o755));
        assert_eq!(directory.link_target, "");
        let file = of("dir/file");
        assert_eq!((file.name.as_str(), file.size, file.mode), ("file", 7, 0o644));
        let link = of("/dir/link");
        assert_eq!((link.mode & 1 << 27, link.link_target.as_str()), (1 << 27, "/dir/sub"));
        assert_eq!(of("/dir/link/").mode & 1 << 31, 1 << 31);
        assert_eq!(of("/out").link_target, "/secret");
        assert_eq!(
            (of("/").name, of("/dir/.").name, of("/dir/").name),
            ("/".into(), ".".into(), "dir".into())
        );
        for path in ["/nope", "/dir/file/x", "/out/", "/out/."] {
            let failure = stat(root.as_fd(), path, "abc").unwrap_err();
            assert_eq!(failure.class, Class::NotFound);
            assert_eq!(failure.message, format!("Could not find the file {path} in container abc"));
        }
        assert_eq!(stat(root.as_fd(), "", "abc").unwrap_err().class, Class::InvalidParameter);
    }

    #[test]
    fn the_header_is_base64_of_json() {
        let stat = PathStat { name: "a".into(), size: 1, mode: 2, mtime: "t".into(), link_target: "".into() };
        let text = serde_json::to_string(&stat).unwrap();
        assert_eq!(text, r#"{"name":"a","size":1,"mode":2,"mtime":"t","linkTarget":""}"#);
        assert_eq!(
            stat.to_header(),
            "eyJsaW5rVGFyZ2V0IjoiIiwibW9kZSI6MiwibXRpbWUiOiJ0IiwibmFtZSI6ImEiLCJzaXplIjoxfQ=="
        );
    }

    #[test]
    fn what_is_got_is_named_after_what_was_asked_for() {
        let scratch = Scratch::new("get");
        let (root, base) = (scratch.root(), scratch.0.join("root"));
        symlink("/dir", base.join("link")).unwrap();
        symlink(scratch.0.join("secret"), base.join("dir/out")).unwrap();
        let of = |path: &str| {
            let mut out = Vec::new();
            get(root.as_fd(), path, "abc", &mut out).unwrap();
            out
        };
        assert_eq!(names(&of("/dir")), ["dir/", "dir/file", "dir/out", "dir/sub/"]);
        assert_eq!(names(&of("/dir/.")), ["./", "./file", "./out", "./sub/"]);
        assert_eq!(names(&of("/link")), ["link"]);
        assert_eq!(names(&of("/link/")), ["link/", "link/file", "link/out", "link/sub/"]);
        assert_eq!(names(&of("dir/file")), ["file"]);
        assert_eq!(names(&of("/"))[..3], ["/", "/dir/", "/dir/file"]);
        assert!(!of("/").windows(14).any(|window| window == b"hidden content"));
        assert_eq!(get(root.as_fd(), "/nope", "abc", io::sink()).unwrap_err().class, Class::NotFound);
    }

    #[test]
    fn what_is_put_goes_where_the_container_would_put_it() {
        let scratch = Scratch::new("put");
        let (root, base) = (scratch.root(), scratch.0.join("root"));
        symlink("/dir/sub", base.join("link")).unwrap();
        symlink("../../../..", base.join("up")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar("new", "x")).unwrap();
        let gzip = gzip.finish().unwrap();
        put(root.as_fd(), "/link", "abc", gzip.as_slice(), false, None).unwrap();
        let stat = fs::metadata(base.join("dir/sub/new")).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o777), (11, 12, 0o640));
        put(root.as_fd(), "/", "abc", tar("up/../x", "x").as_slice(), false, None).unwrap_err();
        put(root.as_fd(), "/up", "abc", tar("secret", "mine").as_slice(), false, Some((1, 2))).unwrap();
        assert_eq!(fs::metadata(base.join("secret")).unwrap().gid(), 2);
        assert_eq!(fs::read(scratch.0.join("secret")).unwrap(), b"hidden content");

        let refusal = |path: &str, archive: &[u8], strict: bool| {
            let failure = put(root.as_fd(), path, "abc", archive, strict, None).unwrap_err();
            (failure.class, failure.message)
        };
        let file = tar("a", "x");
        assert_eq!(
            refusal("/dir/file", &file, false),
            (Class::InvalidParameter, "extraction point is not a directory".into())
        );
        assert_eq!(
            refusal("/nope", &file, false),
            (Class::NotFound, "Could not find the file /nope in container abc".into())
        );
        assert_eq!(refusal("/", &file[..100], false).0, Class::InvalidParameter);
        let (class, message) = refusal("/", &tar("dir", "x"), true);
        assert_eq!(class, Class::InvalidParameter);
        assert!(message.ends_with("cannot overwrite directory with non-directory"), "{message}");
    }

    /// A process in the container swaps a directory for a link to the host while files are put into it.
    #[test]
    fn a_link_swapped_meanwhile_leads_nowhere_else() {
        let scratch = Scratch::new("race");
        let (root, base) = (scratch.root(), scratch.0.join("root"));
        let outside = scratch.0.join("outside");
        fs::create_dir(&outside).unwrap();
        symlink("../outside", base.join("evil")).unwrap();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    for (from, to) in [("dir", "away"), ("evil", "dir"), ("dir", "evil"), ("away", "dir")] {
                        let _ = fs::rename(base.join(from), base.join(to));
                    }
                }
            });
            let archive = tar("sub/planted", "x");
            for _ in 0..2000 {
                let _ = put(root.as_fd(), "/dir", "abc", archive.as_slice(), false, None);
                let _ = get(root.as_fd(), "/dir", "abc", io::sink());
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
