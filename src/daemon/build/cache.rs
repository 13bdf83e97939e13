//! Directories that stay from one build to the next: `RUN --mount=type=cache`.
//!
//! ```text
//! <root>/<hex of the id>-<n>/about.json    what it is called, when it was used
//!                            data/         what is mounted
//! ```
//!
//! `n` is 0 but for those who do not share: a second user of a private cache gets the next one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::daemon::containers::create::now;
use crate::daemon::dockerfile::mount::Sharing;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Digest;
use crate::daemon::images::until;
use crate::daemon::state_dir::{self, Durability, Found};
use crate::http::api::Filters;
use crate::http::api::usage::CachePruned;
use crate::runtime::layer;

/// How often whoever waits for a cache looks whether the build is called off.
const GLANCE: Duration = Duration::from_millis(200);

/// All cache directories.
#[derive(Debug)]
pub struct Caches {
    root: PathBuf,
    users: Mutex<BTreeMap<String, Users>>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Users {
    count: usize,
    is_locked: bool,
}

/// What is on disk about one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct About {
    id: String,
    /// RFC 3339.
    created: String,
    used: String,
    uses: u64,
}

/// How a new one begins.
#[derive(Debug)]
pub struct Seed {
    pub mode: u32,
    pub owner: (u32, u32),
}

/// A cache in use, until it is dropped.
#[derive(Debug)]
pub struct InUse<'a> {
    caches: &'a Caches,
    name: String,
    pub path: PathBuf,
    /// Nothing was put into it yet.
    pub is_new: bool,
}

impl InUse<'_> {
    /// Makes a new one what it is to begin as; `tree` is copied into it.
    pub fn fill(&self, seed: &Seed, tree: Option<&OwnedFd>) -> Result<()> {
        if let Some(tree) = tree {
            layer::copy(tree.as_fd(), &self.path)?;
        }
        let failed = |cause: std::io::Error| Error::system("make a build cache", cause);
        std::os::unix::fs::chown(&self.path, Some(seed.owner.0), Some(seed.owner.1)).map_err(failed)?;
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(seed.mode)).map_err(failed)
    }
}

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let mut users = self.caches.lock();
        if let Some(entry) = users.get_mut(&self.name) {
            entry.count -= 1;
            entry.is_locked = false;
            if entry.count == 0 {
                users.remove(&self.name);
            }
        }
        drop(users);
        self.caches.freed.notify_all();
    }
}

impl Caches {
    pub fn open(root: PathBuf) -> Result<Caches> {
        Ok(Caches { root, users: Mutex::default(), freed: Condvar::new() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Users>> {
        // Counts are whole between any two of their changes.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cache called `id`. Waits while somebody has it to himself, or has it at all and it is to be had alone;
    /// `check` fails when that is no use any more.
    pub fn take(&self, id: &str, sharing: Sharing, check: &dyn Fn() -> Result<()>) -> Result<InUse<'_>> {
        let digest = Digest::of(id.as_bytes());
        let name = |number: usize| format!("{}-{number}", digest.short());
        let mut users = self.lock();
        let mut number = 0;
        loop {
            let entry = users.get(&name(number));
            let is_free = match (sharing, entry) {
                (_, None) => true,
                (Sharing::Shared, Some(entry)) => !entry.is_locked,
                (Sharing::Locked | Sharing::Private, Some(_)) => false,
            };
            if is_free {
                break;
            }
            if sharing == Sharing::Private {
                number += 1;
                continue;
            }
            check()?;
            users = self.freed.wait_timeout(users, GLANCE).unwrap_or_else(PoisonError::into_inner).0;
        }
        let name = name(number);
        let dir = self.root.join(&name);
        let path = dir.join("data");
        let is_new = !path.exists();
        state_dir::make_dir(&path, 0o755)?;
        let mut about = match state_dir::find::<About>(&dir.join("about.json")) {
            Found::Value(about) => about,
            _ => About { created: now(), ..About::default() },
        };
        (about.id, about.used, about.uses) = (id.to_owned(), now(), about.uses + 1);
        state_dir::save(&dir.join("about.json"), &about, Durability::Renamed)?;
        let entry = users.entry(name.clone()).or_default();
        entry.count += 1;
        entry.is_locked = sharing == Sharing::Locked;
        drop(users);
        Ok(InUse { caches: self, name, path, is_new })
    }

    fn all(&self) -> Vec<(String, About)> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        let mut all: Vec<(String, About)> = entries
            .filter_map(|entry| {
                let about = match state_dir::find::<About>(&entry.path().join("about.json")) {
                    Found::Value(about) => about,
                    // Half made or damaged: it still takes up space, and can be removed.
                    _ => About::default(),
                };
                Some((entry.file_name().to_str()?.to_owned(), about))
            })
            .collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// What `system df` shows of them.
    pub fn usage(&self) -> Vec<serde_json::Value> {
        let in_use: Vec<String> = self.lock().keys().cloned().collect();
        self.all()
            .into_iter()
            .map(|(name, about)| {
                serde_json::json!({
                    "ID": name,
                    "Type": "exec.cachemount",
                    "Description": format!("cache mount {}", about.id),
                    "InUse": in_use.contains(&name),
                    "Shared": false,
                    "Size": size(&self.root.join(&name)),
                    "CreatedAt": about.created,
                    "LastUsedAt": if about.used.is_empty() { None } else { Some(about.used) },
                    "UsageCount": about.uses,
                })
            })
            .collect()
    }

    /// Removes what nobody uses. Filters: `until`, `id`, `type`, `description`; caches are never in use when they are
    /// removed, nor shared, have no parent and no labels.
    pub fn prune(&self, filters: &Filters) -> Result<CachePruned> {
        let known = [
            "until",
            "unused-for",
            "id",
            "type",
            "description",
            "inuse",
            "shared",
            "private",
            "parent",
            "label",
            "label!",
        ];
        if let Some(key) = filters.unknown(&known) {
            return Err(Error::invalid(format!("invalid filter '{key}'")));
        }
        let before = until(filters)?;
        let fits = |key: &str, value: &str| {
            let wanted = filters.get(key);
            wanted.is_empty() || wanted.iter().any(|wanted| value.contains(wanted.as_str()))
        };
        let mut pruned = CachePruned::default();
        for (name, about) in self.all() {
            let used = about.used.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
            let is_asked = before.is_none_or(|before| used < before)
                && fits("id", &name)
                && fits("type", "exec.cachemount")
                && fits("description", &about.id)
                && !filters.boolean("inuse").map_err(Error::invalid)?.unwrap_or(false)
                && !filters.boolean("shared").map_err(Error::invalid)?.unwrap_or(false)
                && filters.get("parent").is_empty()
                && filters.get("label").is_empty();
            // Held, so that nobody takes it up while it goes.
            let users = self.lock();
            if !is_asked || users.contains_key(&name) {
                continue;
            }
            let dir = self.root.join(&name);
            let bytes = size(&dir);
            state_dir::remove_tree(&dir)?;
            pruned.space_reclaimed += bytes;
            pruned.caches_deleted.get_or_insert_default().push(name);
        }
        Ok(pruned)
    }
}

/// Bytes on the disk of a directory and what is in it.
fn size(dir: &Path) -> u64 {
    let (mut bytes, mut pending) = (0, vec![dir.to_owned()]);
    while let Some(dir) = pending.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() {
                pending.push(entry.path());
            } else {
                bytes += meta.blocks() * 512 / meta.nlink().max(1);
            }
        }
    }
    bytes
}
