//! What volumes cost: the bytes in them and the containers that have them, for `system df`.

use std::collections::HashSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;

use super::{Volume, Volumes, lock};
use crate::http::api::volume::{UsageData, Volume as Shown};

impl Volumes {
    /// Every volume, by name, with its size in bytes (-1 when it cannot be measured) and the number of
    /// containers that have it. Reads every directory of every volume: it may take long.
    pub fn usage(&self) -> Vec<Shown> {
        let measure = |volume: &Volume| {
            let size = volume.size().ok().and_then(|size| i64::try_from(size).ok()).unwrap_or(-1);
            let ref_count = i64::try_from(lock(&volume.links).containers.len()).unwrap_or(i64::MAX);
            Shown { usage_data: Some(UsageData { ref_count, size }), ..volume.shown() }
        };
        self.all().iter().map(|volume| measure(volume)).collect()
    }
}

impl Volume {
    /// The bytes of the files in it, each counted once however many names it has.
    pub fn size(&self) -> io::Result<u64> {
        Ok(bytes_below(&self.mountpoint())?)
    }
}

/// The bytes of the files below `top`, each counted once however many names it has.
///
/// Names are resolved beneath `top` and never through a link, so that a container that changes the tree
/// meanwhile leads nowhere else; one descriptor at a time, so that depth costs none.
pub fn bytes_below(top: &Path) -> Result<u64, Errno> {
    let top = rustix::fs::open(top, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut seen = HashSet::new();
    let mut bytes = 0;
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        match add(top.as_fd(), &path, &mut pending, &mut seen) {
            Ok(more) => bytes += more,
            // It changed under our eyes.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(bytes)
}

fn add(
    top: BorrowedFd<'_>,
    path: &Path,
    pending: &mut Vec<PathBuf>,
    seen: &mut HashSet<(u64, u64)>,
) -> Result<u64, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let directory: OwnedFd = rustix::fs::openat2(top, path, flags, Mode::empty(), resolve)?;
    let mut buffer = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&directory, &mut buffer);
    let mut bytes = 0;
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            use std::os::unix::ffi::OsStrExt;
            pending.push(path.join(std::ffi::OsStr::from_bytes(name.to_bytes())));
        } else if stat.st_nlink < 2 || seen.insert((stat.st_dev, stat.st_ino)) {
            bytes += u64::try_from(stat.st_size).unwrap_or_default();
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn files_count_once_and_links_lead_nowhere() {
        let dir = std::env::temp_dir().join(format!("dewar-usage-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/b/file"), vec![0; 1000]).unwrap();
        fs::hard_link(dir.join("a/b/file"), dir.join("again")).unwrap();
        fs::write(dir.join("small"), "x").unwrap();
        std::os::unix::fs::symlink("/usr", dir.join("away")).unwrap();
        let link = "/usr".len() as u64;
        assert_eq!(bytes_below(&dir), Ok(1001 + link));
        fs::remove_dir_all(&dir).unwrap();
        assert!(bytes_below(&dir).is_err());
    }
}
