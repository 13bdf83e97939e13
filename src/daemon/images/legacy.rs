//! Archives from before Docker 1.10: a table of names (`repositories`) and layers that name their parents.
//!
//! ```text
//! repositories          {"name": {"tag": "<id of the topmost layer>"}}
//! <id>/VERSION          1.0
//!      json             what the image was with this layer: {"id", "parent", "config", …}
//!      layer.tar
//! ```
//!
//! An id says nothing of the content. The image gets the config that Docker makes of the topmost `json`: its fields
//! without those of the old store, `rootfs` and `history` added, keys in order.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::codec::decompress;
use super::content::Pins;
use super::load::{LoadedImage, Spool};
use super::{Record, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::http::api::image::{JsonMessage, ProgressDetail};

/// overlayfs takes no more, and a circle of parents ends here too.
const MAX_LAYERS: usize = 500;

/// What only the old store could use.
const FORGOTTEN: [&str; 6] = ["id", "parent", "Size", "parent_id", "layer_id", "throwaway"];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    parent: String,
    created: String,
    author: String,
    comment: String,
    container_config: Ran,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Ran {
    cmd: Vec<String>,
}

impl Store {
    /// Loads what `repositories` names.
    pub(super) fn load_legacy(
        &self,
        spool: &Spool,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<Vec<LoadedImage>> {
        let names: BTreeMap<String, BTreeMap<String, String>> =
            crate::http::api::decode(&spool.json("repositories")?)
                .map_err(|cause| Error::invalid(format!("read repositories: {cause}")))?;
        let mut images: BTreeMap<String, Vec<Reference>> = BTreeMap::new();
        for (name, tags) in names {
            for (tag, id) in tags {
                images.entry(id).or_default().push(Reference::parse(&name)?.with_tag(&tag)?);
            }
        }
        let mut loaded = Vec::new();
        for (id, references) in images {
            loaded.push(self.load_legacy_image(spool, &id, references, on_progress)?);
        }
        Ok(loaded)
    }

    fn load_legacy_image(
        &self,
        spool: &Spool,
        topmost: &str,
        references: Vec<Reference>,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<LoadedImage> {
        let mut chain = Vec::new();
        let mut id = topmost.to_owned();
        while !id.is_empty() {
            if id.len() != 64 || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(Error::invalid(format!("layer {id:?} in the archive: its name is no id")));
            }
            if chain.len() == MAX_LAYERS {
                return Err(Error::invalid(format!("image {topmost} has more than {MAX_LAYERS} layers")));
            }
            let text = spool.json(&format!("{id}/json"))?;
            let step: Step = crate::http::api::decode(&text)
                .map_err(|cause| Error::invalid(format!("read \"{id}/json\" of the archive: {cause}")))?;
            let parent = step.parent.clone();
            chain.push((id, step, text));
            id = parent;
        }
        let mut pins = Pins::new(self);
        let (mut diff_ids, mut history) = (Vec::new(), Vec::new());
        for (id, step, _) in chain.iter().rev() {
            let name = format!("{id}/layer.tar");
            let (file, size) = spool.open(&name)?;
            let detail =
                ProgressDetail { current: 0, total: size.cast_signed(), ..ProgressDetail::default() };
            on_progress(JsonMessage::progress(&id[..12], "Loading layer", detail));
            let layer = self
                .add_layer(decompress(file)?, None, &mut pins)
                .map_err(|cause| cause.during(format!("load {name:?}")))?;
            diff_ids.push(Value::from(layer.diff_id.to_string()));
            let mut entry = serde_json::Map::new();
            entry.insert("created".to_owned(), step.created.clone().into());
            for (key, text) in [
                ("author", step.author.clone()),
                ("created_by", step.container_config.cmd.join(" ")),
                ("comment", step.comment.clone()),
            ] {
                if !text.is_empty() {
                    entry.insert(key.to_owned(), text.into());
                }
            }
            history.push(Value::from(entry));
        }
        let (_, _, text) = chain.first().ok_or_else(|| Error::invalid("repositories: a tag of no image"))?;
        let mut config: serde_json::Map<String, Value> = serde_json::from_slice(text)
            .map_err(|cause| Error::invalid(format!("read image config: {cause}")))?;
        config.retain(|key, _| !FORGOTTEN.contains(&key.as_str()));
        config.insert("rootfs".to_owned(), serde_json::json!({"type": "layers", "diff_ids": diff_ids}));
        config.insert("history".to_owned(), history.into());
        let blob = serde_json::to_vec(&config).map_err(|cause| Error::system("write image config", cause))?;
        let image = self.publish(&blob, Record::default(), &references, &mut pins)?;
        Ok(LoadedImage { id: image.id, references })
    }
}
