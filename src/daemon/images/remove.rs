//! `docker rmi` and `docker image prune`: names go first, then the image, then what only it used.
//!
//! ```text
//!  given a name                              given an id
//!    other names left → only untag             several names → conflict, unless forced
//!    last name, in use → conflict, unless      in use → conflict; forced only past stopped containers
//!      forced (then untag, image stays)        else untag all, delete
//!    last name → untag, delete
//! ```

use super::codec::Digest;
use super::{ImageId, Reference, Store, Tables, seconds};
use crate::daemon::error::{Error, Result};
use crate::http::api::Filters;
use crate::http::api::image::{ImageDeleteItem, ImagesPruned};

/// A container that uses an image; the running one if there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its id, 64 hex digits.
    pub container: String,
    pub running: bool,
}

impl Usage {
    fn short(&self) -> &str {
        self.container.get(..12).unwrap_or(&self.container)
    }
}

/// Why an image cannot be deleted.
struct Conflict {
    reason: String,
    /// Not even by force.
    hard: bool,
    /// A container is the reason.
    used: bool,
}

impl Conflict {
    fn error(&self, id: &ImageId) -> Error {
        let force = if self.hard { "cannot be forced" } else { "must be forced" };
        Error::conflict(format!("conflict: unable to delete {} ({force}) - {}", id.short(), self.reason))
    }
}

impl Store {
    /// Removes a name, and the image (or the artifact) with its last one. `in_use` is asked about images that would go; it
    /// must not call back into the store. `noprune` keeps untagged parents.
    ///
    /// Docker's conflicts and texts; what was done comes in the order it was.
    pub fn remove(
        &self,
        name: &str,
        force: bool,
        noprune: bool,
        in_use: &dyn Fn(&ImageId) -> Option<Usage>,
    ) -> Result<Vec<ImageDeleteItem>> {
        let mut items = Vec::new();
        let garbage = {
            let mut tables = self.lock();
            let id = match tables.find(name) {
                Ok(id) => id,
                Err(error) => {
                    let items = tables.damaged.remove(name);
                    let items = if items.is_empty() {
                        self.remove_artifact(&mut tables, name, error)?
                    } else {
                        self.write_references(&tables)?;
                        items
                    };
                    let garbage = self.collect(&tables);
                    drop(tables);
                    drop(garbage);
                    return Ok(items);
                }
            };
            let by_id = is_id_of(&id, name);
            let mut quiet = false;
            let outcome = (|| {
                let names = tables.references_of(&id);
                if by_id {
                    if is_single(&names) {
                        if let Some(conflict) = tables.conflict(&id, force, false, in_use) {
                            return Err(conflict.error(&id));
                        }
                        tables.untag(&names, &mut items);
                    }
                } else {
                    if !force
                        && is_single(&names)
                        && let Some(usage) = in_use(&id)
                    {
                        return Err(Error::conflict(format!(
                            "conflict: unable to remove repository reference {name:?} (must force) - container \
                             {} is using its referenced image {}",
                            usage.short(),
                            id.short()
                        )));
                    }
                    let reference = Reference::parse(name)?.with_default_tag();
                    let removed = match reference.digest() {
                        Some(digest) if !names.contains(&reference) => reference.with_digest(digest.clone()),
                        _ => reference,
                    };
                    tables.untag(std::slice::from_ref(&removed), &mut items);
                    let left = tables.references_of(&id);
                    let is_kin = |other: &&Reference| removed.same_repository(other);
                    // Digests of a repository none of whose tags is left are names nobody chose.
                    if removed.tag().is_some()
                        && !left.iter().filter(is_kin).any(|other| other.tag().is_some())
                    {
                        let digests: Vec<_> = left.iter().filter(is_kin).cloned().collect();
                        tables.untag(&digests, &mut items);
                    }
                    if !tables.references_of(&id).is_empty() {
                        return Ok(());
                    }
                    quiet = true;
                }
                tables.delete(&id, force, quiet, !noprune, in_use, &mut items)
            })();
            // What was untagged before a conflict stays so.
            if !items.is_empty() {
                self.write_references(&tables)?;
            }
            outcome?;
            self.collect(&tables)
        };
        drop(garbage);
        Ok(items)
    }

    /// Deletes images without a name and a container (`dangling=true`, the default), or all without a
    /// container (`dangling=false`). Filters: `dangling`, `until` (RFC 3339 or seconds), `label`, `label!`.
    pub fn prune(
        &self,
        filters: &Filters,
        in_use: &dyn Fn(&ImageId) -> Option<Usage>,
    ) -> Result<ImagesPruned> {
        if let Some(key) = filters.unknown(&["dangling", "until", "label", "label!"]) {
            return Err(Error::invalid(format!("invalid filter '{key}'")));
        }
        let dangling = super::list::boolean(filters, "dangling")?.unwrap_or(true);
        let until = super::list::until(filters)?;
        let mut pruned = ImagesPruned::default();
        let garbage = {
            let mut tables = self.lock();
            let before: u64 = tables.layers_size(self);
            let candidates: Vec<_> = tables.images.keys().cloned().collect();
            for id in candidates {
                let Some(known) = tables.images.get(&id) else { continue };
                let labels = &known.config.config.labels;
                let names = tables.references_of(&id);
                let skip = in_use(&id).is_some()
                    || dangling && !names.is_empty()
                    || until.is_some_and(|until| seconds(&known.config.created) >= until)
                    || !super::prune_labels_match(filters, labels);
                if skip || tables.has_children(&id) {
                    continue;
                }
                tables.untag(&names, &mut pruned.images_deleted);
                // A conflict only means that it stays.
                let _ = tables.delete(&id, false, true, true, in_use, &mut pruned.images_deleted);
            }
            if !pruned.images_deleted.is_empty() {
                self.write_references(&tables)?;
            }
            pruned.space_reclaimed = before.saturating_sub(tables.layers_size(self));
            self.collect(&tables)
        };
        drop(garbage);
        Ok(pruned)
    }
}

impl Tables {
    fn untag(&mut self, names: &[Reference], items: &mut Vec<ImageDeleteItem>) {
        for name in names {
            if self.references.remove(name).is_some() {
                items.push(ImageDeleteItem::Untagged(name.familiar()));
            }
        }
    }

    fn has_children(&self, id: &ImageId) -> bool {
        self.images.values().any(|known| known.record.parent.as_ref() == Some(id))
    }

    fn conflict(
        &self,
        id: &ImageId,
        force: bool,
        names_count: bool,
        in_use: &dyn Fn(&ImageId) -> Option<Usage>,
    ) -> Option<Conflict> {
        if self.has_children(id) {
            let reason = "image has dependent child images".to_owned();
            return Some(Conflict { reason, hard: true, used: false });
        }
        let usage = in_use(id);
        if let Some(usage) = usage.as_ref().filter(|usage| usage.running) {
            let reason = format!("image is being used by running container {}", usage.short());
            return Some(Conflict { reason, hard: true, used: true });
        }
        if force {
            return None;
        }
        if names_count && !self.references_of(id).is_empty() {
            let reason = "image is referenced in multiple repositories".to_owned();
            return Some(Conflict { reason, hard: false, used: false });
        }
        usage.map(|usage| Conflict {
            reason: format!("image is being used by stopped container {}", usage.short()),
            hard: false,
            used: true,
        })
    }

    fn delete(
        &mut self,
        id: &ImageId,
        force: bool,
        quiet: bool,
        prune: bool,
        in_use: &dyn Fn(&ImageId) -> Option<Usage>,
        items: &mut Vec<ImageDeleteItem>,
    ) -> Result<()> {
        if let Some(conflict) = self.conflict(id, force, true, in_use) {
            let is_dangling = self.references_of(id).is_empty();
            if quiet && (!is_dangling || conflict.used) {
                return Ok(());
            }
            return Err(conflict.error(id));
        }
        self.untag(&self.references_of(id), items);
        let Some(known) = self.images.remove(id) else { return Ok(()) };
        items.push(ImageDeleteItem::Deleted(id.to_string()));
        let diff_ids = &known.config.rootfs.diff_ids;
        for (at, chain_id) in chain_ids(diff_ids).into_iter().enumerate().rev() {
            let is_shared = |other: &super::Known| other.config.rootfs.diff_ids.contains(&diff_ids[at]);
            if !self.images.values().any(is_shared) {
                items.push(ImageDeleteItem::Deleted(chain_id.to_string()));
            }
        }
        match known.record.parent {
            Some(parent) if prune && self.images.contains_key(&parent) => {
                // Untagged parents go along; any other is a reason to stop, not to fail.
                if self.references_of(&parent).is_empty() {
                    let _ = self.delete(&parent, false, true, true, in_use, items);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Bytes of all layers' files, each counted once.
    pub(super) fn layers_size(&self, store: &Store) -> u64 {
        let diff_ids: std::collections::BTreeSet<_> =
            self.images.values().flat_map(|known| &known.config.rootfs.diff_ids).collect();
        diff_ids.into_iter().filter_map(|diff_id| store.layer(diff_id).ok()).map(|layer| layer.size).sum()
    }
}

/// Docker's names for layers in place: a layer together with all below it.
fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::new();
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        });
    }
    chain
}

fn is_id_of(id: &ImageId, name: &str) -> bool {
    let bare = name.strip_prefix("sha256:").unwrap_or(name);
    // "sha256:abc" may also be a repository and its tag; what was resolved decides.
    !bare.is_empty() && id.hex().starts_with(bare)
}

/// Whether the names are one tag, with any digests of the same repository.
fn is_single(names: &[Reference]) -> bool {
    let Some(first) = names.first() else { return true };
    names.len() == 1
        || names.iter().filter(|name| name.tag().is_some()).count() <= 1
            && names.iter().all(|name| name.same_repository(first))
}
