//! Images made of images: one step of a build, and finding a step that was made before.
//!
//! A step's image knows its parent, and that it was made here by a build: what was loaded, pulled or committed
//! says in its history whatever it likes, and is never taken for a step of ours.

use std::io::{self, BufWriter, Write};

use super::config::{Config, History, Platform, RootFs};
use super::content::{LayerInfo, Pins};
use super::{Image, ImageId, Known, Record, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::http::api::Class;
use crate::http::api::image::ImageConfig;

/// What a step makes of the image before it.
#[derive(Clone, Debug)]
pub struct Step {
    /// `None` for the first on nothing at all.
    pub parent: Option<ImageId>,
    /// What the image of a first step runs on.
    pub platform: Platform,
    pub config: ImageConfig,
    pub author: String,
    /// The instruction, for the history; what the step is found by.
    pub created_by: String,
}

impl Store {
    /// Makes a step's image without a layer.
    pub fn derive(&self, step: &Step) -> Result<Image> {
        let mut pins = Pins::new(self);
        self.put_step(step, None, &mut pins)
    }

    /// Makes a step's image with the layer that `pack` writes as a tar; one without entries adds none.
    ///
    /// `pack` runs on a thread of its own, beside the unpacking. Of a step that fails nothing stays.
    pub fn derive_with(
        &self,
        step: &Step,
        pack: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    ) -> Result<Image> {
        let mut pins = Pins::new(self);
        let layer = self.add_packed(pack, &mut pins)?;
        self.put_step(step, Some(layer), &mut pins)
    }

    /// Packing writes and unpacking reads: a thread and a pipe join them, so that no layer is held in memory
    /// or on disk twice.
    pub(super) fn add_packed(
        &self,
        pack: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
        pins: &mut Pins<'_>,
    ) -> Result<LayerInfo> {
        let (reader, pipe) = io::pipe().map_err(|cause| Error::system("make a pipe", cause))?;
        let (packed, added) = std::thread::scope(|scope| {
            let packer = scope.spawn(move || {
                let mut pipe = BufWriter::with_capacity(64 << 10, pipe);
                pack(&mut pipe)?;
                pipe.flush().map_err(|cause| Error::system("write layer", cause))
            });
            // The reader is dropped by then, so that the thread fails instead of waiting.
            let added = self.add_layer(reader, None, pins);
            (packer.join(), added)
        });
        match (packed.map_err(|_| Error::system("pack layer", "its thread panicked"))?, added) {
            (Ok(()), added) => added,
            // The packer found nobody reading any more; the reader knows why.
            (Err(_), Err(cause)) if cause.class == Class::System => Err(cause),
            // The reader found the stream cut off; the packer knows why.
            (Err(cause), _) => Err(cause),
        }
    }

    fn put_step(&self, step: &Step, layer: Option<LayerInfo>, pins: &mut Pins<'_>) -> Result<Image> {
        let mut config = match &step.parent {
            Some(parent) => {
                let parent = self.get(parent)?;
                pins.add(&parent.id);
                parent.config.rootfs.diff_ids.iter().for_each(|diff_id| pins.add(diff_id));
                (*parent.config).clone()
            }
            None => Config {
                architecture: step.platform.architecture.clone(),
                variant: step.platform.variant.clone(),
                os: step.platform.os.clone(),
                rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
                ..Config::default()
            },
        };
        let now = jiff::Timestamp::now().to_string();
        config.history.push(History {
            created: now.clone(),
            created_by: step.created_by.clone(),
            author: step.author.clone(),
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            config.rootfs.diff_ids.push(layer.diff_id);
        }
        config.created = now;
        config.author.clone_from(&step.author);
        config.comment = String::new();
        config.docker_version = String::new();
        config.config = step.config.clone();
        self.publish_step(&config, step.parent.clone(), pins)
    }

    fn publish_step(&self, config: &Config, parent: Option<ImageId>, pins: &mut Pins<'_>) -> Result<Image> {
        let blob = serde_json::to_vec(config).map_err(|cause| Error::system("write image config", cause))?;
        self.publish(&blob, Record { parent, is_step: true, ..Record::default() }, &[], pins)
    }

    /// The newest image a build made of `parent` by the instruction `created_by`; `None` when there is none,
    /// or what it would be is not what `step` asks for.
    pub fn find_step(&self, step: &Step) -> Option<Image> {
        let tables = self.lock();
        let is_it = |known: &Known| {
            let config = &known.config;
            known.record.is_step
                && known.record.parent == step.parent
                && config.history.last().is_some_and(|last| last.created_by == step.created_by)
                && config.config == step.config
                && (step.parent.is_some() || config.history.len() == 1 && step.platform.accepts(&of(config)))
        };
        let found = tables.images.iter().filter(|(_, known)| is_it(known));
        let newest = found.max_by(|(_, one), (_, other)| one.config.created.cmp(&other.config.created));
        newest.map(|(id, _)| tables.image(id))
    }

    /// A step taken from the history of `source`, an image that somebody names as one to take steps from: it
    /// must have begun as `step.parent` did, and gone on with the same instruction.
    pub fn borrow_step(&self, step: &Step, source: &ImageId) -> Result<Option<Image>> {
        let source = self.get(source)?;
        let from = &source.config;
        let (mut history, mut diff_ids) = (Vec::new(), Vec::new());
        if let Some(parent) = &step.parent {
            let parent = self.get(parent)?;
            history.clone_from(&parent.config.history);
            diff_ids.clone_from(&parent.config.rootfs.diff_ids);
        }
        let next = from.history.get(history.len());
        let is_it = from.history.starts_with(&history)
            && from.rootfs.diff_ids.starts_with(&diff_ids)
            && next.is_some_and(|next| next.created_by == step.created_by)
            && (step.parent.is_some() || step.platform.accepts(&of(from)));
        let Some(next) = next.filter(|_| is_it) else { return Ok(None) };
        if from.history.len() == history.len() + 1 && from.config == step.config {
            return Ok(Some(source));
        }
        let mut pins = Pins::new(self);
        pins.add(&source.id);
        if !next.empty_layer {
            let Some(diff_id) = from.rootfs.diff_ids.get(diff_ids.len()) else { return Ok(None) };
            diff_ids.push(diff_id.clone());
        }
        diff_ids.iter().for_each(|diff_id| pins.add(diff_id));
        let created = next.created.clone();
        history.push(next.clone());
        let config = Config {
            created,
            author: step.author.clone(),
            comment: String::new(),
            docker_version: String::new(),
            config: step.config.clone(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids },
            history,
            ..(**from).clone()
        };
        self.publish_step(&config, step.parent.clone(), &mut pins).map(Some)
    }

    /// Whether `ancestor` is `id` itself or what it was made of.
    pub fn descends(&self, id: &ImageId, ancestor: &ImageId) -> bool {
        let tables = self.lock();
        let mut next = Some(id.clone());
        while let Some(id) = next {
            if id == *ancestor {
                return true;
            }
            next = tables.images.get(&id).and_then(|known| known.record.parent.clone());
        }
        false
    }

    /// Gives the image one more name; a name in use moves.
    pub fn give_name(&self, id: &ImageId, name: &Reference) -> Result<()> {
        let mut tables = self.lock();
        if !tables.images.contains_key(id) {
            return Err(Error::not_found(format!("No such image: {id}")));
        }
        tables.name(name.clone(), id.clone());
        self.write_references(&tables)
    }
}

fn of(config: &Config) -> Platform {
    Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
    }
}
