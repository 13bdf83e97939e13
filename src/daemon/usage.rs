//! What is on the disk, and giving back what nobody needs: `system df` and the prunes.
//!
//! One prune runs at a time, whatever it prunes: two would count the same space twice.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::containers::inspect::size_rw;
use super::containers::{Container, State, lifecycle, list};
use super::engine::Engine;
use super::error::{Error, Result};
use super::images::{self, ImageId, Usage};
use crate::http::api::container::ListQuery;
use crate::http::api::image::{ImageDeleteItem, ImagesPruned};
use crate::http::api::usage::{CachePruned, ContainersPruned, SystemDataUsage};
use crate::http::api::{Class, Filters};

/// Held by the one prune that runs.
#[derive(Debug, Default)]
pub struct Pruning(AtomicBool);

/// The right to prune; given back when dropped.
#[derive(Debug)]
pub struct Pruner<'a>(&'a Pruning);

impl Pruning {
    /// Conflict while another prune runs.
    pub fn begin(&self) -> Result<Pruner<'_>> {
        match self.0.swap(true, Ordering::SeqCst) {
            false => Ok(Pruner(self)),
            true => Err(Error::conflict("a prune operation is already running")),
        }
    }
}

impl Drop for Pruner<'_> {
    fn drop(&mut self) {
        self.0.0.store(false, Ordering::SeqCst);
    }
}

/// What takes up space, of the kinds named; all when none is.
pub fn data_usage(engine: &Arc<Engine>, kinds: &[String]) -> Result<SystemDataUsage> {
    let known = ["container", "image", "volume", "build-cache"];
    if let Some(unknown) = kinds.iter().find(|kind| !known.contains(&kind.as_str())) {
        return Err(Error::invalid(format!("unknown object type: {unknown}")));
    }
    let is_asked = |kind: &str| kinds.is_empty() || kinds.iter().any(|asked| asked == kind);
    let mut usage = SystemDataUsage::default();
    if is_asked("image") {
        let containers = containers_of_images(engine);
        let count = |id: &ImageId| containers.get(&id.to_string()).copied().unwrap_or(0);
        usage.images = Some(engine.images.list(false, true, &Filters::default(), &count)?);
        usage.layers_size = engine.images.layers_size().cast_signed();
    }
    if is_asked("container") {
        let everything = ListQuery { all: true, size: true, ..ListQuery::default() };
        usage.containers = Some(list::list(engine, &everything)?);
    }
    if is_asked("volume") {
        usage.volumes = Some(engine.volumes.usage());
    }
    if is_asked("build-cache") {
        usage.build_cache = Some(engine.builds.caches.usage());
    }
    Ok(usage)
}

/// How many containers each image has.
pub fn containers_of_images(engine: &Engine) -> BTreeMap<String, i64> {
    let mut used: BTreeMap<String, i64> = BTreeMap::new();
    for container in engine.containers.all() {
        *used.entry(container.record().image_id).or_default() += 1;
    }
    used
}

/// Which container keeps an image, a running one if there is one.
pub fn users_of_images(engine: &Engine) -> impl Fn(&ImageId) -> Option<Usage> + use<> {
    // Looked up before the store is locked: it must not be called back into, nor a container's lock wait.
    let mut users: BTreeMap<String, Usage> = BTreeMap::new();
    for container in engine.containers.all() {
        let record = container.record();
        let running = record.state.is_alive();
        let usage = users
            .entry(record.image_id)
            .or_insert_with(|| Usage { container: container.id.clone(), running: false });
        if running && !usage.running {
            *usage = Usage { container: container.id.clone(), running };
        }
    }
    let held = engine.builds.held();
    move |id| {
        let by_build =
            || held.contains(id).then(|| Usage { container: "of a build".to_owned(), running: true });
        users.get(&id.to_string()).cloned().or_else(by_build)
    }
}

/// Removes the containers that do not run. Filters: `label`, `label!`, `until`.
pub fn prune_containers(engine: &Arc<Engine>, filters: &Filters) -> Result<ContainersPruned> {
    if let Some(key) = filters.unknown(&["label", "label!", "until"]) {
        return Err(Error::invalid(format!("invalid filter '{key}'")));
    }
    let until = images::until(filters)?;
    let _pruner = engine.pruning.begin()?;
    let mut pruned = ContainersPruned::default();
    for container in engine.containers.all() {
        let record = container.record();
        let is_idle = matches!(record.state, State::Created | State::Exited | State::Dead);
        let created = record.created.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second);
        if !is_idle
            || until.is_some_and(|until| created > until)
            || !images::prune_labels_match(filters, &record.config.labels)
        {
            continue;
        }
        let size = size_rw(&container, &record);
        match remove(engine, &container) {
            Ok(true) => {
                pruned.space_reclaimed += u64::try_from(size).unwrap_or(0);
                pruned.containers_deleted.push(record.id);
            }
            Ok(false) => {}
            // The others are still to be had.
            Err(error) => log::warn!("prune container {:?}: {error}", record.name),
        }
    }
    told(engine, "container", pruned.space_reclaimed);
    Ok(pruned)
}

/// Whether it was removed; one that was started or removed meanwhile is passed over.
fn remove(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<bool> {
    match lifecycle::remove(engine, container, false) {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.class, Class::Conflict | Class::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes images nobody uses; see [`images::Store::prune`].
pub fn prune_images(engine: &Engine, filters: &Filters) -> Result<ImagesPruned> {
    let _pruner = engine.pruning.begin()?;
    let before: BTreeMap<String, String> = engine
        .images
        .images()
        .iter()
        .flat_map(|image| {
            let names = engine.images.references_of(&image.id).into_iter().map(|name| name.familiar());
            names.chain([image.id.to_string()]).map(|name| (name, image.id.to_string()))
        })
        .collect();
    let pruned = engine.images.prune(filters, &users_of_images(engine))?;
    for item in &pruned.images_deleted {
        let (action, name) = match item {
            ImageDeleteItem::Untagged(name) => ("untag", name),
            ImageDeleteItem::Deleted(id) => ("delete", id),
        };
        // What else was deleted is a layer.
        if let Some(id) = before.get(name) {
            let attributes = BTreeMap::from([("name".to_owned(), name.clone())]);
            engine.events.publish("image", action, id, attributes);
        }
    }
    told(engine, "image", pruned.space_reclaimed);
    Ok(pruned)
}

/// Removes what builds keep and none uses; see [`Caches::prune`](super::build::Caches::prune).
pub fn prune_build_cache(engine: &Engine, filters: &Filters) -> Result<CachePruned> {
    let _pruner = engine.pruning.begin()?;
    let pruned = engine.builds.caches.prune(filters)?;
    told(engine, "builder", pruned.space_reclaimed);
    Ok(pruned)
}

fn told(engine: &Engine, kind: &str, reclaimed: u64) {
    let attributes = BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
    engine.events.publish(kind, "prune", "", attributes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_prune_runs_at_a_time() {
        let pruning = Pruning::default();
        let first = pruning.begin().unwrap();
        let refused = pruning.begin().unwrap_err();
        assert_eq!(
            (refused.class, refused.message.as_str()),
            (Class::Conflict, "a prune operation is already running")
        );
        drop(first);
        pruning.begin().unwrap();
    }
}
