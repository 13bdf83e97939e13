//! The daemon's directories and how state is written to them.
//!
//! ```text
//! data-root (/var/lib/dewar)              exec-root (/run/dewar)
//!   lock         flock: one daemon          containers/<id>/   the shim's socket, mount point
//!   format       "1"                        netns/<id>         a named network namespace
//!   containers/<id>/                        criu/              CRIU's feature cache
//!     container.json   config and state
//!     exit.json        written by the shim  execs/<id>.json    an exec of a living container
//!     health.json      outcomes of checks
//!     pending.json     volumes to be made (only while it is created)
//!     places.json      addresses and ports of a start, until the record has them
//!     <id>-json.log    written by the shim
//!     hostname hosts resolv.conf
//!     rw-<n>/{upper,work}
//!     checkpoints/<name>/
//!   networks.json  Docker's own networks
//!   networks/<id>.json  one somebody made
//!   images/      the image store
//!   volumes/     the volume store
//!   init/        the layer under every container's own
//! ```
//!
//! A file that cannot be understood costs what it is about and nothing else. Where the daemon needs one in its
//! place it is renamed to `<name>.broken`; where it does not, and where a later dewar wrote it, it stays.
//!
//! Every state file carries a format version and is replaced whole: written beside its name, synced when
//! it must survive a power cut, renamed. A reader sees the old or the new, never half.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Serialize, de::DeserializeOwned};

use super::error::{Error, Result};

/// The layout's version; raised when an older daemon could not read what a newer wrote.
pub const FORMAT: u32 = 1;

/// The two roots, locked.
#[derive(Debug)]
pub struct StateDir {
    pub data_root: PathBuf,
    pub exec_root: PathBuf,
    /// Held for its flock: released by the kernel however the daemon ends.
    _lock: File,
}

/// How long a lock may be held by what a killed daemon was just starting: a child has its parent's descriptors until it
/// executes its program.
const HANDED_ON: Duration = Duration::from_secs(1);

/// Takes the lock; false if somebody has it, and still has it after [`HANDED_ON`].
fn take(lock: &File) -> rustix::io::Result<bool> {
    let deadline = Instant::now() + HANDED_ON;
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5))
            }
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(cause) => return Err(cause),
        }
    }
}

impl StateDir {
    /// Creates what is missing and takes the lock; refuses a root that another daemon holds.
    pub fn open(data_root: &Path, exec_root: &Path) -> Result<StateDir> {
        for root in [data_root, exec_root] {
            if !root.is_absolute() {
                return Err(Error::invalid(format!(
                    "use {root:?} as a root directory: not an absolute path"
                )));
            }
            make_dir(root, 0o711)?;
        }
        let lock = File::options()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(data_root.join("lock"))
            .map_err(|cause| Error::system(format!("open {:?}", data_root.join("lock")), cause))?;
        if !take(&lock).map_err(|cause| Error::system(format!("lock {:?}", data_root.join("lock")), cause))? {
            return Err(Error::conflict(format!(
                "use data root {data_root:?}: another dewar daemon is running on it"
            )));
        }
        let state_dir =
            StateDir { data_root: data_root.to_owned(), exec_root: exec_root.to_owned(), _lock: lock };
        state_dir.check_format()?;
        for (dir, mode) in [
            (state_dir.data_root.join("containers"), 0o711),
            (state_dir.data_root.join("tmp"), 0o700),
            (state_dir.exec_root.join("containers"), 0o711),
            (state_dir.exec_root.join("netns"), 0o711),
            (state_dir.exec_root.join("execs"), 0o700),
            (state_dir.exec_root.join("criu"), 0o700),
        ] {
            make_dir(&dir, mode)?;
        }
        state_dir.make_init_layer()?;
        Ok(state_dir)
    }

    fn check_format(&self) -> Result<()> {
        let path = self.data_root.join("format");
        let write = || replace(&path, format!("{FORMAT}\n").as_bytes(), 0o644, Durability::Synced);
        let text = match fs::read(&path) {
            Err(cause) if cause.kind() == ErrorKind::NotFound => return write(),
            text => text.map_err(|cause| cause.to_string()),
        };
        let number = text.and_then(|text| {
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            text.parse::<u32>().map_err(|_| format!("{text:?} is not a format"))
        });
        match number {
            Ok(format) if format <= FORMAT => Ok(()),
            Ok(format) => Err(Error::system(
                format!("use data root {:?}", self.data_root),
                format!("written in format {format}, this dewar knows {FORMAT}"),
            )),
            // Each file says its own: this one only keeps an older dewar off a later one's.
            Err(cause) => {
                let kept = put_aside(&path);
                log::error!("read {path:?}: {cause}{kept}");
                write()
            }
        }
    }

    /// `containers/<id>` under the data root.
    pub fn container(&self, id: &str) -> PathBuf {
        self.data_root.join("containers").join(id)
    }

    /// `containers/<id>` under the exec root.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.exec_root.join("containers").join(id)
    }

    /// What is known of an exec.
    pub fn exec(&self, id: &str) -> PathBuf {
        self.exec_root.join("execs").join(format!("{id}.json"))
    }

    /// Where network namespaces have their names.
    pub fn netns_dir(&self) -> PathBuf {
        self.exec_root.join("netns")
    }

    /// The container's network namespace.
    pub fn netns(&self, id: &str) -> PathBuf {
        self.netns_dir().join(id)
    }

    /// The layer between the image's and the container's own.
    pub fn init_layer(&self) -> PathBuf {
        self.data_root.join("init")
    }

    /// One layer shared by all containers holds the mount points every container needs and the marker
    /// `/.dockerenv`, so that starting one writes nothing into its own layer.
    fn make_init_layer(&self) -> Result<()> {
        let root = self.init_layer();
        for (dir, mode) in [
            ("", 0o755),
            ("dev", 0o755),
            ("dev/pts", 0o755),
            ("dev/shm", 0o755),
            ("etc", 0o755),
            ("proc", 0o555),
            ("sys", 0o555),
        ] {
            make_dir(&root.join(dir), mode)?;
        }
        for file in ["dev/console", "etc/hostname", "etc/hosts", "etc/resolv.conf", ".dockerenv"] {
            let path = root.join(file);
            File::options()
                .create(true)
                .append(true)
                .mode(0o644)
                .open(&path)
                .map_err(|cause| Error::system(format!("create {path:?}"), cause))?;
        }
        match std::os::unix::fs::symlink("/proc/mounts", root.join("etc/mtab")) {
            Ok(()) => Ok(()),
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Ok(()),
            Err(cause) => Err(Error::system(format!("create {:?}", root.join("etc/mtab")), cause)),
        }
    }
}

/// Whether a write must survive a power cut, or only the daemon's death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    Synced,
    /// For what a restart throws away anyway (`--rm` containers).
    Renamed,
}

/// Creates a directory and its parents; an existing one is fine. The umask does not apply.
pub fn make_dir(path: &Path, mode: u32) -> Result<()> {
    let attempt = |cause: std::io::Error| Error::system(format!("create directory {path:?}"), cause);
    if path.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(attempt)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(attempt)
}

/// Replaces a file whole.
pub fn replace(path: &Path, content: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let attempt = |cause: std::io::Error| Error::system(format!("write {path:?}"), cause);
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let write = || -> std::io::Result<()> {
        let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        if durability == Durability::Synced {
            file.sync_data()?;
        }
        fs::rename(&new, path)?;
        if durability == Durability::Synced
            && let Some(parent) = path.parent()
        {
            File::open(parent)?.sync_data()?;
        }
        Ok(())
    };
    write().map_err(|cause| {
        // A full disk must not leave the half-written copy behind; its own failure adds nothing.
        let _ = fs::remove_file(&new);
        attempt(cause)
    })
}

/// Writes `value`, a struct or a map, as JSON with the format version in front.
pub fn save<T: Serialize>(path: &Path, value: &T, durability: Durability) -> Result<()> {
    let attempt = |cause: &dyn std::fmt::Display| Error::system(format!("encode {path:?}"), cause);
    let fields = serde_json::to_vec(value).map_err(|cause| attempt(&cause))?;
    let Some(rest) = fields.strip_prefix(b"{") else { return Err(attempt(&"not an object")) };
    let separator = if rest == b"}" { "" } else { "," };
    let mut text = format!("{{\"format\":{FORMAT}{separator}").into_bytes();
    text.extend_from_slice(rest);
    replace(path, &text, 0o600, durability)
}

/// Why a state file cannot be used.
enum Trouble {
    Missing(Error),
    Later(Error),
    Broken(Error),
}

/// Reads what [`save`] wrote; a newer format is refused.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T> {
    load_as(path).map_err(|trouble| match trouble {
        Trouble::Missing(error) | Trouble::Later(error) | Trouble::Broken(error) => error,
    })
}

fn load_as<T: DeserializeOwned>(path: &Path) -> Result<T, Trouble> {
    let broken =
        |cause: &dyn std::fmt::Display| Trouble::Broken(Error::system(format!("read {path:?}"), cause));
    let text = match fs::read(path) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            return Err(Trouble::Missing(Error::system(format!("read {path:?}"), cause)));
        }
        text => text.map_err(|cause| broken(&cause))?,
    };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|cause| broken(&cause))?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(format) if format <= u64::from(FORMAT) => {}
        Some(format) => {
            return Err(Trouble::Later(Error::system(
                format!("read {path:?}"),
                format!("written in format {format}, this dewar knows {FORMAT}"),
            )));
        }
        None => return Err(broken(&"it does not say its format")),
    }
    crate::http::api::decode_value(value).map_err(|cause| broken(&cause))
}

/// What a state file has to say.
#[derive(Debug)]
pub enum Found<T> {
    Value(T),
    Nothing,
    /// A later dewar's: it is to stay as it is. The text is the refusal.
    Later(Error),
    /// It made no sense and is put aside, with a line in the log.
    Broken,
}

/// Reads a file that is made anew when it cannot be read.
pub fn find<T: DeserializeOwned>(path: &Path) -> Found<T> {
    match load_as(path) {
        Ok(value) => Found::Value(value),
        Err(Trouble::Missing(_)) => Found::Nothing,
        Err(Trouble::Later(error)) => {
            log::error!("{error}");
            Found::Later(error)
        }
        Err(Trouble::Broken(error)) => {
            let kept = put_aside(path);
            log::error!("{error}{kept}");
            Found::Broken
        }
    }
}

/// Renames a file that cannot be understood, so that another may take its place; gives the words that tell
/// it, to be added to the cause.
pub fn put_aside(path: &Path) -> String {
    let kept = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(if number == 1 { ".broken".to_owned() } else { format!(".broken.{number}") });
        PathBuf::from(name)
    };
    let free = (1..=100).map(kept).find(|kept| kept.symlink_metadata().is_err());
    let Some(kept) = free else { return format!("; and {path:?} cannot be kept aside: there are too many") };
    match fs::rename(path, &kept) {
        Ok(()) => format!("; it is kept as {kept:?}"),
        Err(cause) => format!("; and it cannot be renamed to {kept:?}: {cause}"),
    }
}

/// Removes a directory tree; one that is not there is fine.
pub fn remove_tree(path: &Path) -> Result<()> {
    const ATTEMPTS: u32 = 40;
    let mut attempts = 0;
    loop {
        attempts += 1;
        match fs::remove_dir_all(path) {
            Ok(()) => return Ok(()),
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
            // The CRIU of a shim that was killed writes on for a moment.
            Err(cause) if cause.kind() == ErrorKind::DirectoryNotEmpty && attempts < ATTEMPTS => {
                std::thread::sleep(std::time::Duration::from_millis(25));
            }
            Err(cause) => return Err(Error::system(format!("remove {path:?}"), cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("dewar-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn a_second_daemon_on_the_same_root_is_refused() {
        let dir = scratch("lock");
        let first = StateDir::open(&dir.join("data"), &dir.join("run")).unwrap();
        let second = StateDir::open(&dir.join("data"), &dir.join("run2")).unwrap_err();
        assert!(second.message.contains("another dewar daemon"), "{second}");
        drop(first);
        StateDir::open(&dir.join("data"), &dir.join("run")).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    /// A daemon that was killed while it started a process left its lock to it, and the next one refused to start.
    #[test]
    fn a_lock_that_was_handed_on_is_waited_for() {
        let dir = scratch("handed-on");
        let first = StateDir::open(&dir.join("data"), &dir.join("run")).unwrap();
        let child = first._lock.try_clone().unwrap();
        drop(first);
        let executes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(child);
        });
        StateDir::open(&dir.join("data"), &dir.join("run")).unwrap();
        executes.join().unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_newer_format_is_refused() {
        let dir = scratch("format");
        drop(StateDir::open(&dir.join("data"), &dir.join("run")).unwrap());
        fs::write(dir.join("data/format"), "2\n").unwrap();
        assert!(StateDir::open(&dir.join("data"), &dir.join("run")).is_err());
        let file = dir.join("x.json");
        fs::write(&file, r#"{"format":2,"a":1}"#).unwrap();
        assert!(load::<std::collections::BTreeMap<String, u32>>(&file).is_err());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn state_round_trips_with_its_version() {
        let dir = scratch("round");
        let value = std::collections::BTreeMap::from([("a".to_owned(), 1u32)]);
        save(&dir.join("x"), &value, Durability::Synced).unwrap();
        assert_eq!(fs::read_to_string(dir.join("x")).unwrap(), r#"{"format":1,"a":1}"#);
        let read = load::<std::collections::BTreeMap<String, u32>>(&dir.join("x")).unwrap();
        assert_eq!(read["a"], 1);
        assert!(!dir.join("x.new").exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
