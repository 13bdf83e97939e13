//! Which volumes a request means: the filters of the list, and prune.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{LOCAL, Volume, Volumes, lock};
use crate::daemon::error::{Error, Result};
use crate::daemon::events::Bus;
use crate::daemon::pattern::Pattern;
use crate::http::api::Filters;
use crate::http::api::volume::{Volume as Shown, VolumesPruned};

impl Volumes {
    /// The volumes `filters` ask for, by name.
    ///
    /// # Errors
    /// InvalidParameter for filters that are none.
    pub fn list(&self, filters: &Filters) -> Result<Vec<Shown>> {
        known(filters, &["dangling", "driver", "label", "name"])?;
        let is_dangling = flag(filters, "dangling")?;
        let any = |key: &str, test: &dyn Fn(&str) -> bool| {
            let values = filters.get(key);
            values.is_empty() || values.iter().any(|value| test(value))
        };
        let names: Vec<Pattern> = filters.get("name").iter().map(|text| Pattern::new(text)).collect();
        let is_wanted = |volume: &Arc<Volume>| {
            is_dangling.is_none_or(|wanted| lock(&volume.links).containers.is_empty() == wanted)
                && any("driver", &|driver| driver == LOCAL)
                && (names.is_empty() || names.iter().any(|pattern| pattern.matches(&volume.name)))
                && volume.has_labels(filters.get("label"))
        };
        Ok(self.all().iter().filter(|volume| is_wanted(volume)).map(|volume| volume.shown()).collect())
    }

    /// Removes the volumes that no container has: those without a name of their own, and with
    /// `is_everything` or the filter `all` also the others.
    ///
    /// Compat: volumes with driver options are left, as Docker leaves them: what they hold is elsewhere.
    ///
    /// # Errors
    /// InvalidParameter for filters that are none. A volume that cannot be removed is left and logged.
    pub fn prune(&self, events: &Bus, filters: &Filters, is_everything: bool) -> Result<VolumesPruned> {
        known(filters, if is_everything { &["label", "label!"] } else { &["label", "label!", "all"] })?;
        let is_everything = flag(filters, "all")?.unwrap_or(is_everything);
        let mut pruned = VolumesPruned::default();
        for volume in self.all() {
            let is_wanted = (is_everything || volume.is_anonymous())
                && volume.record.options.as_ref().is_none_or(BTreeMap::is_empty)
                && lock(&volume.links).containers.is_empty()
                && volume.has_labels(filters.get("label"))
                && !filters.get("label!").iter().any(|label| volume.has_label(label));
            if !is_wanted {
                continue;
            }
            let size = volume.size();
            match self.remove_volume(events, &volume) {
                Ok(()) => {
                    pruned.space_reclaimed += size.unwrap_or_default();
                    pruned.volumes_deleted.push(volume.name.clone());
                }
                // Taken or removed since we looked.
                Err(error) => log::warn!("prune volumes: {error}"),
            }
        }
        let attributes = BTreeMap::from([("reclaimed".to_owned(), pruned.space_reclaimed.to_string())]);
        events.publish("volume", "prune", "", attributes);
        Ok(pruned)
    }
}

impl Volume {
    /// Whether it has all of `labels`, each `key` or `key=value`.
    fn has_labels(&self, labels: &[String]) -> bool {
        labels.iter().all(|label| self.has_label(label))
    }

    fn has_label(&self, label: &str) -> bool {
        let Some(labels) = &self.record.labels else { return false };
        match label.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|actual| actual == value),
            None => labels.contains_key(label),
        }
    }
}

fn known(filters: &Filters, keys: &[&str]) -> Result<()> {
    match filters.unknown(keys) {
        None => Ok(()),
        Some(unknown) => Err(Error::invalid(format!("invalid filter '{unknown}'"))),
    }
}

/// The value of a filter that is true or false.
fn flag(filters: &Filters, key: &str) -> Result<Option<bool>> {
    match filters.get(key) {
        [] => Ok(None),
        [value] if matches!(value.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE") => Ok(Some(true)),
        [value] if matches!(value.as_str(), "0" | "f" | "F" | "false" | "False" | "FALSE") => Ok(Some(false)),
        values => Err(Error::invalid(format!("invalid filter '{key}=[{}]'", values.join(" ")))),
    }
}
