//! The image store: what `docker images` shows, and the layers containers stand on.
//!
//! ```text
//! <root>/references.json                 which images there are and what they are called; the truth
//!        references.json.before          the same, one change ago
//!        blobs/sha256/<hex>              configs and manifests, named by their digest
//!        layers/<hex>/layer.json         one unpacked layer, named by the digest of its tar (diff id)
//!                     diff/              its files, a lower directory for overlayfs
//!                     split.gz           what of the tar is no file's content
//!        artifacts/                      what is stored by name but is no image: see `artifact`
//!        tmp/                            unfinished work; swept when the store is opened
//! ```
//!
//! Order makes every crash harmless: content is made in `tmp`, synced, renamed into place, and only then
//! named in `references.json`. What nothing there leads to is garbage and swept on opening. Reference counts
//! are never stored; who uses a layer is computed from the images there are.
//!
//! One lock guards the tables. It is held for reading, renaming and writing `references.json`, never while
//! anything is unpacked, digested or deleted. Layers an operation relies on are pinned meanwhile.
//!
//! Not here: the registries' protocol (`http::registry`), what a builder does; tar and overlayfs (`runtime::layer`).

pub mod artifact;
pub mod changes;
pub mod codec;
mod commit;
pub mod config;
mod content;
mod derive;
mod distribution;
mod import;
mod legacy;
mod list;
mod load;
mod packed;
mod pull;
pub mod push;
mod recover;
pub mod reference;
mod remove;
mod save;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::daemon::error::{Error, Result};
use crate::http::api::image::{
    GraphDriver, ImageConfig, ImageHistoryItem, ImageInspect, ImageMetadata, RootFs, ShownConfig,
};
use crate::runtime::layer::Limits;

pub use codec::Digest;
pub use commit::Commit;
pub use derive::Step;
pub use distribution::distribution;
pub use import::Import;
pub use list::{prune_labels_match, until};
pub use pull::download::{Download, Step as DownloadStep};
pub use pull::{Pull, Pulled};
pub use reference::Reference;
pub use remove::Usage;

use config::{Config, Platform};
use content::{Pins, Staging};

/// The digest of an image's config.
pub type ImageId = Digest;

/// One image, as it was when it was asked for.
#[derive(Clone, Debug)]
pub struct Image {
    pub id: ImageId,
    /// The whole config blob; `config.config` is what containers inherit.
    pub config: Arc<Config>,
    /// The image it was built on, if that was here.
    pub parent: Option<ImageId>,
    /// Bytes of all layers' files.
    pub size: u64,
}

impl Image {
    /// What containers inherit.
    pub fn defaults(&self) -> &ImageConfig {
        &self.config.config
    }
}

/// What `references.json` says of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<ImageId>,
    /// Manifests that led to it, kept as blobs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    manifests: Vec<Digest>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "String::is_empty")]
    tagged_at: String,
    /// Made here by a build, which may take it for the same step again.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_step: bool,
}

/// The version of `references.json` this program writes.
const FORMAT: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ReferencesFile {
    format: u32,
    images: BTreeMap<ImageId, Record>,
    /// Normalised reference to image.
    references: BTreeMap<String, ImageId>,
}

#[derive(Debug)]
struct Known {
    record: Record,
    config: Arc<Config>,
    size: u64,
}

#[derive(Debug, Default)]
struct Tables {
    images: BTreeMap<ImageId, Known>,
    references: BTreeMap<Reference, ImageId>,
    /// What is left out until it is mended.
    damaged: recover::Damaged,
    /// By name, or by digest where there is none.
    artifacts: artifact::Table,
    /// Layers and blobs that unfinished operations rely on, with how many do.
    pins: HashMap<Digest, usize>,
}

/// All images of this daemon. Methods take `&self` and may be called from any thread.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    limits: Limits,
    tables: Mutex<Tables>,
    /// Why nothing may be written: the table is a later dewar's.
    refusal: Option<Error>,
    next_staging: AtomicU64,
    transfers: pull::Transfers,
}

impl Store {
    /// Opens the store in `root`, which is made if it is not there, and repairs what a crash left.
    ///
    /// What is damaged is left out with a line in the log, or mended: see [`recover`].
    pub fn open(root: &Path) -> Result<Store> {
        Store::open_with(root, Limits::default())
    }

    /// [`Store::open`] with other limits for what archives may hold.
    pub fn open_with(root: &Path, limits: Limits) -> Result<Store> {
        let failed = |cause: &dyn std::fmt::Display| {
            Error::system(format!("open image store {}", root.display()), cause)
        };
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(|cause| failed(&cause))?;
        }
        let places = ["blobs/sha256", "layers", artifact::BLOBS].map(|place| root.join(place));
        for directory in places.iter().chain([&tmp]) {
            fs::create_dir_all(directory).map_err(|cause| failed(&cause))?;
        }
        let path = root.join("references.json");
        let mut store = Store {
            root: root.to_path_buf(),
            limits,
            tables: Mutex::default(),
            refusal: None,
            next_staging: AtomicU64::new(0),
            transfers: pull::Transfers::default(),
        };
        let (tables, refusal) = store.read_tables();
        *store.lock() = tables;
        let artifacts = store.read_artifacts();
        store.lock().artifacts = artifacts;
        store.refusal = refusal;
        if !path.exists() {
            // Made again, or the first: the next start has one to read.
            store.write_references(&store.lock())?;
        }
        store.sweep()?;
        Ok(store)
    }

    /// The image called `name`: a reference, an id, or the unique start of an id.
    ///
    /// `No such image: x` (404) when there is none, 400 when several ids start so.
    pub fn resolve(&self, name: &str) -> Result<Image> {
        let tables = self.lock();
        let id = tables.find(name)?;
        Ok(tables.image(&id))
    }

    /// The image with this id.
    pub fn get(&self, id: &ImageId) -> Result<Image> {
        let tables = self.lock();
        if !tables.images.contains_key(id) {
            return Err(Error::not_found(format!("No such image: {id}")));
        }
        Ok(tables.image(id))
    }

    /// Every image, in the order of their ids.
    pub fn images(&self) -> Vec<Image> {
        let tables = self.lock();
        tables.images.keys().map(|id| tables.image(id)).collect()
    }

    /// What the image is called, in order.
    pub fn references_of(&self, id: &ImageId) -> Vec<Reference> {
        self.lock().references_of(id)
    }

    /// The lower directories of a container of this image, topmost first; never empty.
    ///
    /// They stay as long as the image does: whoever mounts them keeps it from being removed.
    pub fn layers_of(&self, id: &ImageId) -> Result<Vec<PathBuf>> {
        let image = self.get(id)?;
        let mut seen = BTreeSet::new();
        let mut layers = Vec::new();
        for diff_id in image.config.rootfs.diff_ids.iter().rev() {
            // overlayfs refuses a directory given twice; below itself a layer shows nothing new.
            if seen.insert(diff_id) {
                layers.push(self.layer_dir(diff_id).join("diff"));
            }
        }
        if layers.is_empty() {
            let empty = self.root.join("empty");
            fs::create_dir_all(&empty)
                .map_err(|cause| Error::system(format!("create {}", empty.display()), cause))?;
            layers.push(empty);
        }
        Ok(layers)
    }

    /// Sees that the image called `name` is made for `platform`, if one is asked for.
    pub fn check_platform(&self, name: &str, platform: Option<&Platform>) -> Result<()> {
        let image = self.resolve(name)?;
        platform.map_or(Ok(()), |wanted| image.config.check_platform(name, wanted))
    }

    /// Gives the image called `name` the further name `repo:tag`; a name in use moves.
    pub fn tag(&self, name: &str, repo: &str, tag: &str) -> Result<Reference> {
        let mut reference = Reference::parse(repo)?;
        if reference.digest().is_some() {
            return Err(Error::invalid("refusing to create a tag with a digest reference"));
        }
        if !tag.is_empty() {
            reference = reference.with_tag(tag)?;
        }
        let reference = reference.with_default_tag();
        let mut tables = self.lock();
        let id = tables.find(name)?;
        tables.name(reference.clone(), id);
        self.write_references(&tables)?;
        Ok(reference)
    }

    /// `docker image inspect`.
    pub fn inspect(&self, name: &str) -> Result<ImageInspect> {
        let image = self.resolve(name)?;
        let tagged_at = {
            let tables = self.lock();
            tables.images.get(&image.id).map(|known| known.record.tagged_at.clone()).unwrap_or_default()
        };
        let (tags, digests): (Vec<_>, Vec<_>) =
            self.references_of(&image.id).into_iter().partition(|reference| reference.tag().is_some());
        let familiar = |list: Vec<Reference>| list.iter().map(Reference::familiar).collect();
        let config = &image.config;
        let layers = self.layers_of(&image.id)?;
        let mut data = BTreeMap::new();
        if let Some((upper, lower)) = layers.split_first() {
            data.insert("UpperDir".to_owned(), upper.display().to_string());
            if !lower.is_empty() {
                let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
                data.insert("LowerDir".to_owned(), lower.join(":"));
            }
        }
        Ok(ImageInspect {
            id: image.id.to_string(),
            repo_tags: familiar(tags),
            repo_digests: familiar(digests),
            parent: image.parent.as_ref().map(Digest::to_string).unwrap_or_default(),
            comment: config.comment.clone(),
            created: config.created.clone(),
            docker_version: config.docker_version.clone(),
            author: config.author.clone(),
            config: ShownConfig(config.config.clone()),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os: config.os.clone(),
            os_version: config.os_version.clone(),
            size: image.size.cast_signed(),
            graph_driver: GraphDriver { name: "overlay2".to_owned(), data },
            root_fs: RootFs {
                kind: "layers".to_owned(),
                layers: config.rootfs.diff_ids.iter().map(Digest::to_string).collect(),
            },
            metadata: ImageMetadata {
                last_tag_time: if tagged_at.is_empty() { "0001-01-01T00:00:00Z".into() } else { tagged_at },
            },
        })
    }

    /// `docker history`, newest first.
    pub fn history(&self, name: &str) -> Result<Vec<ImageHistoryItem>> {
        let image = self.resolve(name)?;
        let mut layers = image.config.rootfs.diff_ids.iter();
        let mut items = Vec::new();
        for step in &image.config.history {
            let size = if step.empty_layer {
                0
            } else {
                let diff_id = layers
                    .next()
                    .ok_or_else(|| Error::system("read image history", "more steps than layers"))?;
                self.layer(diff_id)?.size
            };
            items.push(ImageHistoryItem {
                id: "<missing>".to_owned(),
                created: seconds(&step.created),
                created_by: step.created_by.clone(),
                tags: None,
                size: size.cast_signed(),
                comment: step.comment.clone(),
            });
        }
        items.reverse();
        // The steps an image took are known as far down as its parents are here.
        let mut id = Some(image.id);
        for item in &mut items {
            let Some(known) = id.take() else { break };
            let is_tag = |name: &Reference| name.tag().is_some().then(|| name.familiar());
            let tags: Vec<_> = self.references_of(&known).iter().filter_map(is_tag).collect();
            item.tags = (!tags.is_empty()).then_some(tags);
            item.id = known.to_string();
            id = self.get(&known).ok().and_then(|image| image.parent);
        }
        Ok(items)
    }

    /// Makes an image of `config` on layers that are all in the store, with the names given.
    ///
    /// For whoever made the layers: load, import, commit, pull, build. They must be pinned until now.
    fn publish(
        &self,
        config_blob: &[u8],
        record: Record,
        names: &[Reference],
        pins: &mut Pins<'_>,
    ) -> Result<Image> {
        let id = self.put_blob(config_blob, pins)?;
        let known = self.read_known(&id, record)?;
        let mut tables = self.lock();
        for name in tables.damaged.heal(&id) {
            tables.references.entry(name).or_insert_with(|| id.clone());
        }
        match tables.images.get_mut(&id) {
            Some(present) => {
                for manifest in known.record.manifests {
                    if !present.record.manifests.contains(&manifest) {
                        present.record.manifests.push(manifest);
                    }
                }
            }
            None => drop(tables.images.insert(id.clone(), known)),
        }
        for name in names {
            tables.name(name.clone(), id.clone());
        }
        self.write_references(&tables)?;
        Ok(tables.image(&id))
    }

    fn read_known(&self, id: &ImageId, record: Record) -> Result<Known> {
        let blob = self.get_blob(id)?;
        let config = Arc::new(Config::parse(&blob)?);
        let mut size = 0;
        for diff_id in config.rootfs.diff_ids.iter().collect::<BTreeSet<_>>() {
            size += self.layer(diff_id)?.size;
        }
        Ok(Known { record, config, size })
    }

    /// Writes the tables; whoever holds the lock calls it after each change.
    fn write_references(&self, tables: &Tables) -> Result<()> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone().during("change the images"));
        }
        let mut images = tables.images.iter().map(|(id, known)| (id.clone(), known.record.clone())).collect();
        let mut references =
            tables.references.iter().map(|(name, id)| (name.to_string(), id.clone())).collect();
        tables.damaged.write(&mut images, &mut references);
        let file = ReferencesFile { format: FORMAT, images, references };
        self.keep_before();
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|cause| Error::system("write references.json", cause))?;
        self.write_atomically(&self.root.join("references.json"), &text)
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        // A panic while the lock was held cannot have left a table half changed that disk does not correct.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staging(&self) -> Result<Staging> {
        let number = self.next_staging.fetch_add(1, Ordering::Relaxed);
        Staging::create(self.root.join("tmp").join(number.to_string()))
    }
}

impl Tables {
    fn find(&self, name: &str) -> Result<ImageId> {
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        let missing = |shown: &str| Error::not_found(format!("No such image: {shown}"));
        if let Some(id) = Digest::from_hex(bare) {
            return if self.images.contains_key(&id) { Ok(id) } else { Err(missing(name)) };
        }
        let parsed = Reference::parse(name).map(Reference::with_default_tag);
        if let Ok(reference) = &parsed {
            if let Some(id) = self.references.get(reference) {
                return Ok(id.clone());
            }
            // A tag beside a digest is a comment: the digest decides.
            if let Some(digest) = reference.digest()
                && let Some(id) = self.references.get(&reference.with_digest(digest.clone()))
            {
                return Ok(id.clone());
            }
        }
        if !bare.is_empty() && bare.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let mut hits = self.images.keys().filter(|id| id.hex().starts_with(bare));
            if let Some(id) = hits.next() {
                if hits.next().is_some() {
                    return Err(Error::invalid(format!("multiple IDs found with provided prefix: {name}")));
                }
                return Ok(id.clone());
            }
        }
        Err(missing(&parsed?.familiar()))
    }

    /// The image with an id that is known to be in the table.
    fn image(&self, id: &ImageId) -> Image {
        let known = &self.images[id];
        Image {
            id: id.clone(),
            config: known.config.clone(),
            parent: known.record.parent.clone().filter(|parent| self.images.contains_key(parent)),
            size: known.size,
        }
    }

    fn references_of(&self, id: &ImageId) -> Vec<Reference> {
        self.references.iter().filter(|(_, target)| *target == id).map(|(name, _)| name.clone()).collect()
    }

    fn name(&mut self, reference: Reference, id: ImageId) {
        if let Some(known) = self.images.get_mut(&id) {
            known.record.tagged_at = jiff::Timestamp::now().to_string();
        }
        self.references.insert(reference, id);
    }
}

/// Seconds since 1970 of an RFC 3339 time, 0 if it is none.
fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_second)
}

#[cfg(test)]
mod tests;
