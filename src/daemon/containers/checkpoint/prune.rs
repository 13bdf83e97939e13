//! All containers' checkpoints: listed, and the old ones removed.

use std::sync::Arc;

use super::{delete, list};
use crate::daemon::containers::container::Container;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images;
use crate::http::api::Filters;
use crate::http::api::checkpoint::{CheckpointSummary, CheckpointsPruned, ContainerCheckpoint};

/// Every checkpoint in its container's own directory, by container, the newest first.
///
/// # Errors
/// System.
pub fn all(engine: &Engine) -> Result<Vec<ContainerCheckpoint>> {
    let mut found = Vec::new();
    for container in engine.containers.all() {
        for summary in newest_first(&container)? {
            found.push(ContainerCheckpoint {
                container: container.id.clone(),
                container_name: container.name(),
                name: summary.name,
                created: summary.created,
                size: summary.size,
            });
        }
    }
    found.sort_by(|a, b| a.container_name.cmp(&b.container_name));
    Ok(found)
}

/// A container's own checkpoints.
///
/// # Errors
/// System.
pub fn newest_first(container: &Container) -> Result<Vec<CheckpointSummary>> {
    let mut found = list(container, "")?;
    found.sort_by_key(|summary| std::cmp::Reverse(created(summary)));
    Ok(found)
}

/// Since 1970, in nanoseconds; what cannot be read is of old.
fn created(summary: &CheckpointSummary) -> i128 {
    summary.created.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_nanosecond)
}

/// Whether the container's next start goes on from it.
fn is_slept_in(container: &Container, name: &str) -> bool {
    let inner = container.lock();
    inner.record.hibernation.as_ref().is_some_and(|asleep| !asleep.is_used_up && asleep.checkpoint == name)
}

/// Removes all but the `keep` newest checkpoints of each container, and never one that it hibernates in; with the filter `until` only those that are older.
///
/// # Errors
/// InvalidParameter for filters that are none. A checkpoint that cannot be removed is left and logged.
pub fn prune(engine: &Arc<Engine>, keep: usize, filters: &Filters) -> Result<CheckpointsPruned> {
    if let Some(unknown) = filters.unknown(&["until"]) {
        return Err(Error::invalid(format!("invalid filter '{unknown}'")));
    }
    let until = images::until(filters)?.map(|secs| i128::from(secs) * 1_000_000_000);
    let mut pruned = CheckpointsPruned::default();
    for container in engine.containers.all() {
        for summary in newest_first(&container)?.into_iter().skip(keep) {
            if until.is_some_and(|until| created(&summary) > until) || is_slept_in(&container, &summary.name)
            {
                continue;
            }
            match delete(&container, &summary.name, "") {
                Ok(()) => {
                    pruned.checkpoints_deleted.push(format!("{}/{}", container.name(), summary.name));
                    pruned.space_reclaimed += summary.size.unwrap_or_default();
                }
                Err(error) => log::warn!("prune checkpoints: {error}"),
            }
        }
    }
    Ok(pruned)
}
