//! What every test stands on. A test says what it needs (`requires!`), starts a [`Daemon`] of its own, talks to it
//! with [`Cmd`] or [`http`], and is failed by what it left behind when the daemon is dropped.

pub mod certificates;
pub mod cmd;
pub mod daemon;
pub mod http;
pub mod leftovers;
pub mod namespace;
pub mod plugin;
pub mod prop;
pub mod requires;
pub mod terminal;

pub use cmd::{Cmd, Output, Running};
pub use daemon::Daemon;
pub use namespace::Namespace;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The program under test: `DEWAR_BIN` (what `make test` ships), else cargo's build of it.
pub fn binary() -> PathBuf {
    std::env::var_os("DEWAR_BIN").map_or_else(|| env!("CARGO_BIN_EXE_dewar").into(), PathBuf::from)
}

/// The root of the source tree.
pub fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory of its own for each caller, removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // No name is the beginning of another one's: leftovers are looked for by it.
        let name = format!("dewar-test-{}-{:04}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Not $TMPDIR: a socket's path has 108 bytes.
        let path = Path::new("/tmp").join(name);
        std::fs::create_dir(&path).expect("a fresh directory under /tmp");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Waits until `condition` holds; fails the test after ten seconds, naming `what`.
#[track_caller]
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, condition);
}

/// Waits until `condition` holds; fails the test after `limit`, naming `what`.
#[track_caller]
pub fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The busybox root filesystem as a tar (scripts/rootfs.sh), made once per run.
pub fn busybox_tar() -> &'static Path {
    static TAR: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    TAR.get_or_init(|| {
        // Kept between runs: it only changes with its script or with busybox.
        let tar = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox.tar");
        let newer = |path: &Path| {
            let modified = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified());
            matches!((modified(&tar), modified(path)), (Ok(made), Ok(changed)) if made > changed)
        };
        let script = source().join("scripts/rootfs.sh");
        if !newer(&script) {
            let partial = tar.with_extension(format!("{}", std::process::id()));
            Cmd::new(&script).arg(&partial).ok();
            std::fs::rename(&partial, &tar).expect("renaming within one directory");
        }
        tar
    })
}
