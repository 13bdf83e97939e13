//! Mounting a container's layers as one file system.
//!
//! overlayfs with `index=on,nfs_export=on`: without them CRIU cannot save an inotify watch. Kernels or upper
//! file systems that refuse are asked again without. Layers are handed over one by one where the kernel has
//! `lowerdir+` (Linux 6.5), since one option string holds a page; older kernels get the string, relative to
//! a common directory when it would be too long.
//!
//! Not here: what happens inside the root (`init`), making and removing layers (`layer`).
//!
//! Source: Documentation/filesystems/overlayfs.rst.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::CWD;
use rustix::io::Errno;
#[cfg(test)]
use rustix::mount::UnmountFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags};
use rustix::thread::UnshareFlags;

use super::sys::process;
use super::{Cause, Error, Overlay, look};

/// Room the kernel gives to one string value of fsconfig(2), its NUL included.
const VALUE_BYTES: usize = 256;
/// Room mount(2) gives to all options together: a page, its NUL included.
const OPTIONS_BYTES: usize = 4096;

/// The kernel takes a mount namespace apart some time after its last process has ended, and only then lets go
/// of the layers.
const BUSY_PATIENCE: Duration = Duration::from_secs(1);
const BUSY_REST: Duration = Duration::from_millis(2);

const HANDLES: [&str; 2] = ["index=on", "nfs_export=on"];

/// Mounts `overlay` on the existing directory `at`, in the caller's mount namespace.
///
/// # Errors
/// `EBUSY` when another mount keeps using its upper directory for a second; `ESTALE` when its lower layers are not the ones it
/// was made with; `ENOENT` for a missing directory.
pub fn mount(overlay: &Overlay, at: &Path) -> Result<(), Error> {
    if overlay.volatile {
        // The kernel's mark against mounting a volatile layer again, made for the sake of a crash in between.
        // Such a container does not outlive a crash; it may well be restarted.
        match std::fs::remove_dir_all(overlay.work.join("work/incompat")) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(failed("mount overlay on", at, cause));
            }
            _ => {}
        }
    }
    let started = Instant::now();
    loop {
        match mount_once(overlay, at) {
            Err(cause)
                if cause.raw_os_error() == Some(Errno::BUSY.raw_os_error())
                    && started.elapsed() < BUSY_PATIENCE =>
            {
                std::thread::sleep(BUSY_REST);
            }
            result => return result.map_err(|cause| failed("mount overlay on", at, cause)),
        }
    }
}

fn mount_once(overlay: &Overlay, at: &Path) -> io::Result<()> {
    if let Some(namespace) = &overlay.shared {
        return place(&look::root_of(namespace)?, at);
    }
    let mounted = match assemble(overlay, &HANDLES, Part::Whole) {
        Err(Errno::INVAL | Errno::NOTSUP) => assemble(overlay, &[], Part::Whole),
        other => other,
    };
    match mounted {
        Ok(tree) => place(&tree, at),
        // No `lowerdir+`, no fsopen, or a path longer than fsconfig takes: the old call knows neither limit.
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => mount_by_string(overlay, at, Part::Whole),
        Err(errno) => Err(errno.into()),
    }
}

fn place(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(tree, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// The lower layers of `overlay` alone, read-only, mounted nowhere. Two at least, or the kernel refuses.
///
/// # Errors
/// `EINVAL`, `ENOTSUP` or `ENOSYS` where the kernel has only the old call: see [`mount_lower`].
pub(super) fn lower_tree(overlay: &Overlay) -> Result<OwnedFd, Errno> {
    assemble(overlay, &[], Part::Lower)
}

/// Mounts what [`lower_tree`] gives on the existing directory `at`, in the caller's mount namespace, with the
/// old call.
pub(super) fn mount_lower(overlay: &Overlay, at: &Path) -> io::Result<()> {
    mount_by_string(overlay, at, Part::Lower)
}

/// Unmounts the overlay at `at`; one that is not mounted is fine. Files still open keep working.
///
/// # Errors
/// `EPERM`.
#[cfg(test)]
pub fn unmount(at: &Path) -> Result<(), Error> {
    match rustix::mount::unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("unmount", at, errno.into())),
    }
}

/// What of an overlay is mounted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Whole,
    /// Without the writable directory.
    Lower,
}

fn assemble(overlay: &Overlay, handles: &[&str], part: Part) -> Result<OwnedFd, Errno> {
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, path: &Path| {
        if path.as_os_str().len() >= VALUE_BYTES {
            return Err(Errno::INVAL);
        }
        rustix::mount::fsconfig_set_string(&context, key, path)
    };
    rustix::mount::fsconfig_set_string(&context, "source", "overlay")?;
    for lower in &overlay.lower {
        set("lowerdir+", lower)?;
    }
    if part == Part::Whole {
        set("upperdir", &overlay.upper)?;
        set("workdir", &overlay.work)?;
    }
    for handle in handles {
        let (key, value) = handle.split_once('=').expect("the constants have a value");
        rustix::mount::fsconfig_set_string(&context, key, value)?;
    }
    if overlay.volatile && part == Part::Whole {
        rustix::mount::fsconfig_set_flag(&context, "volatile")?;
    }
    rustix::mount::fsconfig_create(&context)?;
    rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

/// mount(2) with all layers in one string. Runs on a thread with a working directory of its own, so that
/// paths can be relative without moving the process.
fn mount_by_string(overlay: &Overlay, at: &Path, part: Part) -> io::Result<()> {
    let at = std::path::absolute(at)?;
    let common = common_directory(overlay);
    let relative = |path: &Path| path.strip_prefix(&common).unwrap_or(path).to_owned();
    let short = Overlay {
        lower: overlay.lower.iter().map(|path| relative(path)).collect(),
        upper: relative(&overlay.upper),
        work: relative(&overlay.work),
        volatile: overlay.volatile,
        shared: None,
    };
    let attempt = || -> io::Result<()> {
        process::unshare(UnshareFlags::FS)?;
        rustix::process::chdir(&common)?;
        let mount = |handles: &[&str]| -> io::Result<()> {
            let options = options(&short, handles, part)?;
            Ok(rustix::mount::mount("overlay", &at, "overlay", MountFlags::empty(), options.as_c_str())?)
        };
        match mount(if part == Part::Whole { &HANDLES } else { &[] }) {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOTSUP)) => {
                mount(&[])
            }
            other => other,
        }
    };
    thread::scope(|scope| {
        scope.spawn(attempt).join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

fn common_directory(overlay: &Overlay) -> PathBuf {
    let mut common = overlay.upper.parent().unwrap_or(Path::new("/")).to_owned();
    for path in overlay.lower.iter().chain([&overlay.work]) {
        while !path.starts_with(&common) && common.pop() {}
    }
    common
}

fn options(overlay: &Overlay, handles: &[&str], part: Part) -> io::Result<CString> {
    let mut options = b"lowerdir=".to_vec();
    for (index, lower) in overlay.lower.iter().enumerate() {
        if index > 0 {
            options.push(b':');
        }
        escape(lower, b":,\\", &mut options);
    }
    let writable = [(",upperdir=", &overlay.upper), (",workdir=", &overlay.work)];
    for (key, path) in writable.iter().filter(|_| part == Part::Whole) {
        options.extend_from_slice(key.as_bytes());
        escape(path, b",\\", &mut options);
    }
    let volatile = (overlay.volatile && part == Part::Whole).then_some("volatile");
    for option in handles.iter().copied().chain(volatile) {
        options.push(b',');
        options.extend_from_slice(option.as_bytes());
    }
    if options.len() >= OPTIONS_BYTES {
        let message = format!("{} layers need more than a page of mount options", overlay.lower.len());
        return Err(io::Error::other(message));
    }
    Ok(CString::new(options)?)
}

fn escape(path: &Path, special: &[u8], into: &mut Vec<u8>) {
    for &byte in path.as_os_str().as_bytes() {
        if special.contains(&byte) {
            into.push(b'\\');
        }
        into.push(byte);
    }
}

fn failed(op: &str, at: &Path, cause: io::Error) -> Error {
    Error { op: op.to_owned(), object: at.display().to_string(), cause: Cause::Io(cause) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Layers {
        dir: PathBuf,
        overlay: Overlay,
    }

    impl Layers {
        fn new(name: &str, count: usize) -> Layers {
            let dir = std::env::temp_dir().join(format!("dewar-rootfs-{name}-{}", std::process::id()));
            let make = |name: String| {
                let path = dir.join(name);
                fs::create_dir_all(&path).unwrap();
                path
            };
            let lower = (0..count).map(|index| make(format!("layer,{index}:{}", "x".repeat(60)))).collect();
            let (upper, work) = (make("upper".into()), make("work".into()));
            make("merged".into());
            Layers { dir, overlay: Overlay { lower, upper, work, volatile: false, shared: None } }
        }

        fn merged(&self) -> PathBuf {
            self.dir.join("merged")
        }
    }

    impl Drop for Layers {
        fn drop(&mut self) {
            unmount(&self.merged()).unwrap();
            fs::remove_dir_all(&self.dir).unwrap();
        }
    }

    #[test]
    fn the_top_layer_wins_and_writes_go_to_the_upper() {
        let mut layers = Layers::new("top", 2);
        layers.overlay.volatile = true;
        fs::write(layers.overlay.lower[0].join("file"), "top").unwrap();
        fs::write(layers.overlay.lower[1].join("file"), "bottom").unwrap();
        mount(&layers.overlay, &layers.merged()).unwrap();
        assert_eq!(fs::read_to_string(layers.merged().join("file")).unwrap(), "top");
        fs::write(layers.merged().join("new"), "x").unwrap();
        assert!(layers.overlay.upper.join("new").exists());
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let line = mounts.lines().find(|line| line.contains("dewar-rootfs-top")).unwrap();
        assert!(
            line.contains("index=on") && line.contains("nfs_export=on") && line.contains("volatile"),
            "{line}"
        );
        unmount(&layers.merged()).unwrap();
        // The restart of a container that removes itself failed on the kernel's mark.
        mount(&layers.overlay, &layers.merged()).unwrap();
        assert!(layers.merged().join("new").exists());
    }

    #[test]
    fn more_layers_than_fit_a_page_are_mounted() {
        let layers = Layers::new("many", 120);
        fs::write(layers.overlay.lower[119].join("deep"), "x").unwrap();
        assert!(options(&layers.overlay, &[], Part::Whole).is_err());
        mount(&layers.overlay, &layers.merged()).unwrap();
        assert!(layers.merged().join("deep").exists());
    }

    #[test]
    fn the_old_call_mounts_names_with_commas_and_colons() {
        let layers = Layers::new("old", 20);
        fs::write(layers.overlay.lower[19].join("deep"), "x").unwrap();
        mount_by_string(&layers.overlay, &layers.merged(), Part::Whole).unwrap();
        assert!(layers.merged().join("deep").exists());
    }

    #[test]
    fn a_missing_layer_is_an_error() {
        let mut layers = Layers::new("missing", 1);
        layers.overlay.lower.push(layers.dir.join("nope"));
        assert!(mount(&layers.overlay, &layers.merged()).unwrap_err().to_string().contains("o such file"));
    }
}
