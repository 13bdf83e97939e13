//! The container store: create, find, list, remove.
//!
//! [`container`] is one container and its locks, [`lifecycle`] what changes its state, [`spec`] the
//! translation into the runtime's words; [`create`] checks a request and [`list`] answers `ps`.
//! The map's lock comes before any container's and is held for look-ups only.

pub mod archive;
pub mod attach;
pub mod backlog;
pub mod checkpoint;
pub mod checks;
pub mod commit;
pub mod container;
pub mod create;
pub mod exec;
pub mod files;
pub mod filesystem;
pub mod health;
pub mod hibernate;
pub mod inspect;
pub mod lifecycle;
pub mod limits;
pub mod list;
pub mod logs;
pub mod migrate;
pub mod mounts;
pub mod network;
pub mod policy;
pub mod probe;
pub mod recover;
pub mod revive;
pub mod rootfs;
pub mod schedule;
pub mod spec;
pub mod state;
pub mod stats;
pub mod top;
pub mod unfinished;
pub mod update;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

pub use container::{Container, Outcome, WaitFor, Waiter};
pub use state::State;

use super::error::{Error, Result};
use super::names;

/// All containers, by id and by name.
#[derive(Debug, Default)]
pub struct Containers {
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Name, without `/`, to id. A name is reserved here before anything is written.
    names: BTreeMap<String, String>,
    /// Exec id to container id.
    execs: BTreeMap<String, String>,
}

impl Containers {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, Index> {
        // Every write is one insertion or removal: a panic elsewhere leaves the maps whole.
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every container, in the order of their ids.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.read().by_id.values().cloned().collect()
    }

    /// The container with this whole id.
    pub fn by_id(&self, id: &str) -> Option<Arc<Container>> {
        self.read().by_id.get(id).cloned()
    }

    /// Docker's order: whole id, name, prefix of one id.
    ///
    /// # Errors
    /// NotFound; InvalidParameter for an ambiguous prefix or nothing at all.
    pub fn get(&self, reference: &str) -> Result<Arc<Container>> {
        let index = self.read();
        let name = reference.strip_prefix('/').unwrap_or(reference);
        if name.is_empty() {
            return Err(Error::invalid("no container name or ID supplied"));
        }
        if let Some(container) =
            index.by_id.get(name).or_else(|| index.names.get(name).and_then(|id| index.by_id.get(id)))
        {
            return Ok(Arc::clone(container));
        }
        let mut matching =
            index.by_id.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name)).map(|(_, c)| c);
        match (matching.next(), matching.next()) {
            (Some(container), None) => Ok(Arc::clone(container)),
            (Some(_), Some(_)) => {
                Err(Error::invalid(format!("multiple IDs found with provided prefix: {name}")))
            }
            (None, _) => Err(Error::not_found(format!("No such container: {reference}"))),
        }
    }

    /// Reserves a name for an id, so that two requests cannot both have it.
    pub fn reserve(&self, name: &str, id: &str) -> Result<()> {
        let mut index = self.write();
        if let Some(owner) = index.names.get(name) {
            return Err(Error::conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or rename) that container to be able to reuse that name."
            )));
        }
        index.names.insert(name.to_owned(), id.to_owned());
        Ok(())
    }

    /// Reserves a generated name.
    pub fn reserve_generated(&self, id: &str) -> Result<String> {
        // Source: Docker tries a few times, then takes the short id.
        for attempt in 0..6 {
            let mut name = names::generate()?;
            if attempt > 0 {
                name.push_str(&attempt.to_string());
            }
            if self.reserve(&name, id).is_ok() {
                return Ok(name);
            }
        }
        let name = id[..12].to_owned();
        self.reserve(&name, id).map(|()| name)
    }

    /// Gives a reserved name back.
    pub fn release(&self, name: &str) {
        self.write().names.remove(name);
    }

    /// Adds a container whose name is reserved.
    pub fn insert(&self, container: Arc<Container>) {
        self.write().by_id.insert(container.id.clone(), container);
    }

    /// Forgets a container, its name and its execs.
    pub fn forget(&self, id: &str) {
        let mut index = self.write();
        index.by_id.remove(id);
        index.names.retain(|_, owner| owner != id);
        index.execs.retain(|_, owner| owner != id);
    }

    /// Remembers which container an exec belongs to.
    pub fn insert_exec(&self, exec_id: &str, container_id: &str) {
        self.write().execs.insert(exec_id.to_owned(), container_id.to_owned());
    }

    /// The container an exec belongs to.
    pub fn of_exec(&self, exec_id: &str) -> Option<Arc<Container>> {
        let index = self.read();
        index.execs.get(exec_id).and_then(|id| index.by_id.get(id)).cloned()
    }

    /// Forgets an exec.
    pub fn forget_exec(&self, exec_id: &str) {
        self.write().execs.remove(exec_id);
    }
}

#[cfg(test)]
mod tests {
    use super::container::Record;
    use super::*;

    fn store(ids: &[(&str, &str)]) -> Containers {
        let store = Containers::default();
        for (id, name) in ids {
            store.reserve(name, id).unwrap();
            let record = Record { id: (*id).to_owned(), name: (*name).to_owned(), ..Record::default() };
            store.insert(Arc::new(Container::new("/nonexistent".into(), record)));
        }
        store
    }

    #[test]
    fn a_name_beats_a_prefix_and_an_ambiguous_prefix_is_refused() {
        let store = store(&[("aa11", "web"), ("aa22", "aa1")]);
        assert_eq!(store.get("aa1").unwrap().id, "aa22");
        assert_eq!(store.get("/web").unwrap().id, "aa11");
        assert_eq!(store.get("aa2").unwrap().id, "aa22");
        assert!(store.get("aa").unwrap_err().message.contains("multiple IDs"));
        assert_eq!(store.get("zz").unwrap_err().message, "No such container: zz");
        assert!(store.get("").is_err());
    }

    #[test]
    fn a_taken_name_names_its_owner() {
        let store = store(&[("aa11", "web")]);
        assert!(store.reserve("web", "bb22").unwrap_err().message.contains("aa11"));
        store.forget("aa11");
        store.reserve("web", "bb22").unwrap();
    }
}
