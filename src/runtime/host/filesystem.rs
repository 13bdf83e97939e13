//! The file system below the data root: whether images and containers can live on it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, XattrFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::thread::UnshareFlags;

use super::kernel::apart;
use super::{Check, Verdict};
use crate::runtime::sys::process::unshare;

/// Less than this is soon full.
const LOW_BYTES: u64 = 1 << 30;

/// A directory for trying, removed when dropped.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only what the probes made is in it, and nothing is mounted here any more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn checks(data_root: &Path) -> Vec<Check> {
    // What is not there yet will be on the file system of what is.
    let place = data_root.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let mut checks = vec![space(data_root, place)];
    let scratch = place.join(format!(".dewar-doctor-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&scratch) {
        checks.push(Check::ok("storage", "data root", format!("{}: {error}", scratch.display())).but(
            Verdict::Missing,
            "nothing can be stored",
            "a data root that can be written to: --data-root",
        ));
        return checks;
    }
    let scratch = Scratch(scratch);
    checks.push(d_type(&scratch.0));
    checks.push(attributes(&scratch.0));
    checks.push(overlay(&scratch.0));
    checks
}

fn space(data_root: &Path, place: &Path) -> Check {
    let check = |found: String| Check::ok("storage", "data root", found);
    match rustix::fs::statvfs(place) {
        Err(errno) => check(format!("{}: {errno}", place.display())).but(
            Verdict::Missing,
            "nothing can be stored",
            "a data root that can be read: --data-root",
        ),
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            let gib = free as f64 / f64::from(1 << 30);
            let found = format!("{}: {gib:.1} GiB and {} files free", data_root.display(), stat.f_favail);
            // Some file systems count no files.
            let is_out_of_files = stat.f_files > 0 && stat.f_favail < 10_000;
            if free < LOW_BYTES || is_out_of_files {
                check(found).but(
                    Verdict::Warning,
                    "images and containers soon find no room",
                    "dewar system prune, or a data root elsewhere: --data-root",
                )
            } else {
                check(found)
            }
        }
    }
}

fn d_type(dir: &Path) -> Check {
    let look = || -> io::Result<bool> {
        fs::write(dir.join("file"), "")?;
        let open =
            rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(&open)? {
            let entry = entry?;
            if entry.file_name().to_bytes() == b"file" {
                return Ok(entry.file_type() != FileType::Unknown);
            }
        }
        Ok(false)
    };
    let check = |found: String| Check::ok("storage", "d_type", found);
    match look() {
        Ok(true) => check("told".into()),
        other => check(other.map_or_else(|error| error.to_string(), |_| "not told".into())).but(
            Verdict::Missing,
            "overlayfs hides nothing that was deleted",
            "a file system that tells it: ext4, xfs with ftype=1, btrfs",
        ),
    }
}

fn attributes(dir: &Path) -> Check {
    let set = |name: &str| rustix::fs::setxattr(dir, name, b"y", XattrFlags::empty());
    let check = |found: String| Check::ok("storage", "extended attributes", found);
    let costs = "layers keep no file capabilities, and overlayfs cannot replace directories";
    match (set("trusted.dewar"), set("user.dewar")) {
        (Ok(()), Ok(())) => check("trusted and user".into()),
        (Ok(()), Err(errno)) => check(format!("trusted; user: {errno}")).but(
            Verdict::Warning,
            "layers lose attributes of users",
            "mount it with user_xattr",
        ),
        (Err(errno), _) => check(format!("trusted: {errno}")).but(
            Verdict::Missing,
            costs,
            "a file system that has them: ext4, xfs, btrfs; a tmpfs of a kernel with CONFIG_TMPFS_XATTR",
        ),
    }
}

/// Mounts an overlay in a mount namespace of its own, hides a file with it, and looks.
fn overlay(dir: &Path) -> Check {
    let attempt = apart(|| {
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(dir.join(name))?;
        }
        fs::write(dir.join("lower/file"), "")?;
        unshare(UnshareFlags::NEWNS)?;
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        let at = |name: &str| dir.join(name).display().to_string();
        let options = format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
        let options = std::ffi::CString::new(options)?;
        let merged = dir.join("merged");
        rustix::mount::mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str())?;
        let result = fs::remove_file(merged.join("file"))
            .and_then(|()| fs::write(merged.join("other"), ""))
            .map(|()| !merged.join("file").exists());
        rustix::mount::unmount(&merged, UnmountFlags::DETACH)?;
        result
    });
    let check = |found: String| Check::ok("storage", "overlay on it", found);
    match attempt {
        Ok(true) => check("works".into()),
        other => {
            check(other.map_or_else(|error| error.to_string(), |_| "a removed file is still there".into()))
                .but(
                    Verdict::Missing,
                    "containers have no root filesystem",
                    "a data root on ext4, xfs or btrfs (not on an overlay, NFS or FAT): --data-root",
                )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trying_leaves_nothing() {
        let dir = std::env::temp_dir().join(format!("dewar-host-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let found = checks(&dir.join("not/there/yet"));
        assert_eq!(found.len(), 4);
        assert!(found.iter().all(|check| check.status != Verdict::Missing), "{found:?}");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains("dewar-doctor"));
        fs::remove_dir(&dir).unwrap();
    }
}
