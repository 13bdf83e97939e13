//! `docker commit`: the writable layer of a container on top of its image.

use std::fs;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

use super::codec::Digest;
use super::config::{Config, History};
use super::content::Pins;
use super::{Image, ImageId, Record, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::http::api::image::ImageConfig;
use crate::runtime::layer;

/// What the new image says of itself.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The image the container was made of.
    pub parent: ImageId,
    pub config: ImageConfig,
    pub author: String,
    pub comment: String,
    /// The container's command, for the history.
    pub created_by: String,
    pub reference: Option<Reference>,
    /// Made by a build: it may be taken for the same step again.
    pub is_step: bool,
}

impl Store {
    /// Makes an image of `upper`, the writable directory of an overlay that may be in use, on the layers
    /// `below` it. A directory nothing was written to adds no layer. Of a commit that fails nothing stays.
    ///
    /// `check` is asked when all was read whether it was all there.
    pub fn commit(
        &self,
        commit: &Commit,
        upper: &Path,
        below: BorrowedFd<'_>,
        check: &dyn Fn() -> io::Result<()>,
    ) -> Result<Image> {
        let parent = self.get(&commit.parent)?;
        let mut pins = Pins::new(self);
        pins.add(&parent.id);
        for diff_id in &parent.config.rootfs.diff_ids {
            pins.add(diff_id);
        }
        let failed = |cause: io::Error| Error::system(format!("read {}", upper.display()), cause);
        let is_empty = fs::read_dir(upper).map_err(failed)?.next().is_none();
        let mut rootfs = parent.config.rootfs.clone();
        if !is_empty {
            rootfs.diff_ids.push(self.add_upper(upper, below, &mut pins)?);
        }
        check().map_err(|cause| Error::conflict(cause.to_string()))?;
        let now = jiff::Timestamp::now().to_string();
        let mut history = parent.config.history.clone();
        history.push(History {
            created: now.clone(),
            created_by: commit.created_by.clone(),
            author: commit.author.clone(),
            comment: commit.comment.clone(),
            empty_layer: is_empty,
        });
        let config = Config {
            created: now,
            author: commit.author.clone(),
            comment: commit.comment.clone(),
            config: commit.config.clone(),
            rootfs,
            history,
            docker_version: String::new(),
            ..(*parent.config).clone()
        };
        let blob = serde_json::to_vec(&config).map_err(|cause| Error::system("write image config", cause))?;
        let record = Record { parent: Some(parent.id), is_step: commit.is_step, ..Record::default() };
        self.publish(&blob, record, commit.reference.as_slice(), &mut pins)
    }

    fn add_upper(&self, upper: &Path, below: BorrowedFd<'_>, pins: &mut Pins<'_>) -> Result<Digest> {
        let pack = move |out: &mut dyn Write| Ok(layer::pack_live(upper, below, out).map(drop)?);
        Ok(self.add_packed(pack, pins)?.diff_id)
    }
}
