//! The builder: a context and a Dockerfile become an image, step by step.
//!
//! ```text
//!  context ─► plan ─► stages, side by side ─► each step: cache ─► found: its image
//!    │          │        wait for one another           │
//!    │          │                                       └─► made: run  a container, then a commit
//!    │          └ which stages the target needs                   copy files become a layer, without one
//!    └ unpacked, in a directory of the build's own                other a new config, no layer
//! ```
//!
//! Every step is an image with the one before as its parent: that is the cache, and what `image prune` removes.
//! A step is found again by its parent, the text it has in the history, and what it makes of the config.
//!
//! What a build needs for itself lies in a directory of its own and goes with it; what a daemon that died left is
//! removed by the next one. A client that leaves ends its build.
//!
//! Not here: what a Dockerfile says (`dockerfile`), the wire (`routes::build`).

mod args;
mod cache;
pub mod cancel;
mod context;
mod copy;
mod fetch;
mod job;
mod mounts;
mod output;
mod plan;
mod root;
mod run;
mod stage;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::containers::lifecycle;
use super::engine::Engine;
use super::error::{Error, Result};
use super::images::config::Platform;
use super::images::{ImageId, Reference};
use super::state_dir::{self, StateDir};
use crate::http::api::container::Resources;
use crate::http::registry::Credentials;
use crate::runtime::mounts as host_mounts;

pub use cache::Caches;
pub use cancel::Cancel;
pub use job::build;

/// Says of a container that it is a step of a build, and of which: a daemon that finds one at its start removes it.
const STEP: &str = "dewar.build.step";

/// What is to be built, and how.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// In the context.
    pub dockerfile: String,
    /// Where the context is fetched from; empty for the request's body.
    pub remote: String,
    pub names: Vec<Reference>,
    /// Nothing is told but the image.
    pub quiet: bool,
    pub no_cache: bool,
    /// Base images are pulled even if they are here.
    pub pull: bool,
    /// Remove the containers of steps that went well.
    pub remove: bool,
    /// And of those that did not.
    pub force_remove: bool,
    pub args: BTreeMap<String, Option<String>>,
    pub labels: BTreeMap<String, String>,
    /// A stage; empty for the last.
    pub target: String,
    pub platform: Option<Platform>,
    /// Images whose steps may be taken.
    pub cache_from: Vec<String>,
    /// Of the containers of steps.
    pub network: String,
    pub extra_hosts: Vec<String>,
    pub resources: Resources,
    /// Bytes; 0 for the default.
    pub shm_size: i64,
    pub secrets: BTreeMap<String, Secret>,
    /// Who the user is at registries, by server.
    pub credentials: BTreeMap<String, Credentials>,
    pub security_opt: Vec<String>,
}

/// What a step may read and nobody else may see.
#[derive(Clone, Default)]
pub struct Secret(pub Vec<u8>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("(secret)")
    }
}

/// Why a build failed.
#[derive(Clone, Debug)]
pub struct Failure {
    pub error: Error,
    /// What a command exited with; 0 when none did.
    pub code: i64,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, code: 0 }
    }
}

/// What a build may end in.
pub type Outcome<T> = std::result::Result<T, Failure>;

/// The builds there are, and what they keep.
#[derive(Debug)]
pub struct Builds {
    root: PathBuf,
    /// For what must not lie on a disk.
    run_root: PathBuf,
    pub caches: Caches,
    next: AtomicU64,
    /// Images that builds rely on, with how many do.
    held: Mutex<BTreeMap<ImageId, usize>>,
}

impl Builds {
    /// Removes what an earlier daemon's builds left in their directories.
    pub fn open(state_dir: &StateDir) -> Result<Builds> {
        let (root, run_root) = (state_dir.data_root.join("build"), state_dir.exec_root.join("build"));
        for dir in [&root.join("tmp"), &run_root] {
            clear(dir)?;
        }
        for (dir, mode) in [(&root, 0o711), (&root.join("tmp"), 0o700), (&root.join("cache"), 0o700)] {
            state_dir::make_dir(dir, mode)?;
        }
        state_dir::make_dir(&run_root, 0o700)?;
        let caches = Caches::open(root.join("cache"))?;
        Ok(Builds { root, run_root, caches, next: AtomicU64::new(0), held: Mutex::default() })
    }

    /// Removes the containers of an earlier daemon's builds: nobody waits for them any more.
    pub fn recover(engine: &Arc<Engine>) {
        for container in engine.containers.all() {
            let record = container.record();
            if record.host_config.annotations.contains_key(STEP) {
                log::info!("container {:?} is removed: its build was cut off", record.name);
                if let Err(error) = lifecycle::remove_with_volumes(engine, &container, true) {
                    log::warn!("{error}");
                }
            }
        }
    }

    /// The images that builds rely on now.
    pub fn held(&self) -> BTreeSet<ImageId> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ImageId, usize>> {
        // A count is whole between any two of its changes.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staging(&self) -> Result<Staging> {
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let staging = Staging {
            dir: self.root.join("tmp").join(&number),
            run_dir: self.run_root.join(&number),
            next: AtomicU64::new(0),
        };
        state_dir::make_dir(&staging.dir, 0o700)?;
        state_dir::make_dir(&staging.run_dir, 0o700)?;
        Ok(staging)
    }
}

/// Images kept from being removed while a build relies on them.
#[derive(Debug)]
struct Held<'a> {
    builds: &'a Builds,
    images: Mutex<Vec<ImageId>>,
}

impl Held<'_> {
    fn add(&self, id: &ImageId) {
        *self.builds.lock().entry(id.clone()).or_default() += 1;
        self.images.lock().unwrap_or_else(PoisonError::into_inner).push(id.clone());
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = self.builds.lock();
        for id in self.images.get_mut().unwrap_or_else(PoisonError::into_inner) {
            if let Some(count) = held.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    held.remove(id);
                }
            }
        }
    }
}

/// A build's own directories, removed when dropped, with what is mounted in them.
#[derive(Debug)]
struct Staging {
    dir: PathBuf,
    /// On a file system that is memory, where the host has it so.
    run_dir: PathBuf,
    next: AtomicU64,
}

impl Staging {
    /// A new empty directory.
    fn make(&self, what: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed)));
        state_dir::make_dir(&path, 0o755)?;
        Ok(path)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        for dir in [&self.dir, &self.run_dir] {
            if let Err(error) = clear(dir) {
                // The next start tries again.
                log::warn!("{error}");
            }
        }
    }
}

/// Unmounts what is mounted below `dir`, and removes it.
fn clear(dir: &Path) -> Result<()> {
    // Our mounts' names have nothing to escape but what the root's path has.
    let real = host_mounts::resolved(dir);
    let mut below: Vec<PathBuf> =
        host_mounts::list()?.into_iter().map(|mount| PathBuf::from(mount.destination)).collect();
    below.retain(|at| at.starts_with(&real));
    for at in below.iter().rev() {
        host_mounts::unmount(at)?;
    }
    state_dir::remove_tree(dir)
}
