//! What a store that is opened makes of damage: as little lost as can be, nothing deleted.
//!
//! | damaged | what is done |
//! |---|---|
//! | `references.json` | kept aside; images are found by their blobs, names and parents in the copy before it |
//! | the same, of a later dewar | stays as it is: there are no images, and none can be made |
//! | `layer.json` | made again from the layer's files, if those still have its digest |
//! | a config, a layer's files | their images are left out; what they had stays, until they are loaded again or removed by name |
//!
//! An image that is left out is still in `references.json`, with its names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::codec::Digest;
use super::config::Config;
use super::content::LayerInfo;
use super::{FORMAT, ImageId, Known, Record, Reference, ReferencesFile, Store, Tables};
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::{self, Found};
use crate::http::api::image::ImageDeleteItem;

/// The file before the last change.
const BEFORE: &str = "references.json.before";

/// Images that are left out, and what they are called.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    images: BTreeMap<ImageId, Lost>,
    names: BTreeMap<String, ImageId>,
}

#[derive(Debug)]
struct Lost {
    record: Record,
    /// `None` when its config is what is damaged: any layer may be its own.
    layers: Option<Vec<Digest>>,
}

impl Damaged {
    /// What must not be swept; `None` for everything.
    pub(super) fn used(&self) -> Option<BTreeSet<&Digest>> {
        let mut used = BTreeSet::new();
        for (id, lost) in &self.images {
            used.insert(id);
            used.extend(&lost.record.manifests);
            used.extend(lost.layers.as_ref()?);
        }
        Some(used)
    }

    /// Adds what `references.json` says of them.
    pub(super) fn write(
        &self,
        images: &mut BTreeMap<ImageId, Record>,
        references: &mut BTreeMap<String, ImageId>,
    ) {
        for (id, lost) in &self.images {
            images.entry(id.clone()).or_insert_with(|| lost.record.clone());
        }
        for (name, id) in &self.names {
            references.entry(name.clone()).or_insert_with(|| id.clone());
        }
    }

    /// An image that is whole again: its names, which nobody else has taken.
    pub(super) fn heal(&mut self, id: &ImageId) -> Vec<Reference> {
        if self.images.remove(id).is_none() {
            return Vec::new();
        }
        let (mine, others) = std::mem::take(&mut self.names).into_iter().partition(|(_, of)| of == id);
        self.names = others;
        let mine: BTreeMap<String, ImageId> = mine;
        mine.keys().filter_map(|name| Reference::parse(name).ok()).collect()
    }

    /// Forgets the image of this name or id, for good; nothing when it is not left out.
    pub(super) fn remove(&mut self, name: &str) -> Vec<ImageDeleteItem> {
        let asked =
            Reference::parse(name).map(|name| name.with_default_tag().to_string()).unwrap_or_default();
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        let by_id = self.images.keys().find(|id| bare.len() >= 12 && id.hex().starts_with(bare)).cloned();
        let Some(id) = self.names.get(&asked).cloned().or(by_id) else { return Vec::new() };
        let mut items = Vec::new();
        self.names.retain(|name, of| {
            if *of == id {
                items.push(ImageDeleteItem::Untagged(name.clone()));
            }
            *of != id
        });
        self.images.remove(&id);
        items.push(ImageDeleteItem::Deleted(id.to_string()));
        items
    }
}

impl Store {
    /// Reads the tables; the text is why nothing may be written, if so.
    pub(super) fn read_tables(&self) -> (Tables, Option<Error>) {
        let path = self.root.join("references.json");
        let mut tables = Tables::default();
        let file = match state_dir::find::<ReferencesFile>(&path) {
            Found::Value(file) => file,
            Found::Nothing => ReferencesFile::default(),
            Found::Later(error) => return (tables, Some(error)),
            Found::Broken => self.rebuild(),
        };
        for (id, record) in file.images {
            match self.read_mending(&id, record.clone()) {
                Ok(known) => drop(tables.images.insert(id, known)),
                Err(cause) => {
                    log::error!("image {id} is left out, and what it has is kept: {cause}");
                    let config = self.get_blob(&id).and_then(|blob| Config::parse(&blob)).ok();
                    let layers = config.map(|config| config.rootfs.diff_ids);
                    tables.damaged.images.insert(id, Lost { record, layers });
                }
            }
        }
        for (text, id) in file.references {
            match Reference::parse(&text) {
                Ok(reference) if tables.images.contains_key(&id) => {
                    tables.references.insert(reference, id);
                }
                Ok(_) if tables.damaged.images.contains_key(&id) => {
                    tables.damaged.names.insert(text, id);
                }
                Ok(_) => log::warn!("reference {text:?} is left out: no image {id}"),
                Err(cause) => log::warn!("reference {text:?} is left out: {cause}"),
            }
        }
        (tables, None)
    }

    /// What the store has, without its table: every config whose layers are there.
    fn rebuild(&self) -> ReferencesFile {
        let before = match state_dir::find::<ReferencesFile>(&self.root.join(BEFORE)) {
            Found::Value(file) => file,
            _ => ReferencesFile::default(),
        };
        let mut file = ReferencesFile { format: FORMAT, ..before };
        for entry in fs::read_dir(self.root.join("blobs/sha256")).into_iter().flatten().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
            let is_image = self.get_blob(&id).is_ok_and(|blob| Config::parse(&blob).is_ok());
            if is_image {
                file.images.entry(id).or_default();
            }
        }
        log::warn!(
            "the table of images is made again: {} images, {} names (those of before the last change)",
            file.images.len(),
            file.references.len()
        );
        file
    }

    /// Keeps the table that is about to be replaced. Failing costs the copy only.
    pub(super) fn keep_before(&self) {
        let (path, before) = (self.root.join("references.json"), self.root.join(BEFORE));
        let new = before.with_extension("new");
        let _ = fs::remove_file(&new);
        match fs::hard_link(&path, &new).and_then(|()| fs::rename(&new, &before)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                log::warn!("keep a copy of {}: {cause}", path.display());
            }
            _ => {}
        }
    }

    fn read_mending(&self, id: &ImageId, record: Record) -> Result<Known> {
        if let Ok(known) = self.read_known(id, record.clone()) {
            return Ok(known);
        }
        let config = Config::parse(&self.get_blob(id)?)?;
        for diff_id in config.rootfs.diff_ids.iter().collect::<BTreeSet<_>>() {
            self.mend_layer(diff_id)?;
        }
        self.read_known(id, record)
    }

    /// Makes a layer's record again when it cannot be read.
    fn mend_layer(&self, diff_id: &Digest) -> Result<()> {
        let path = self.layer_dir(diff_id).join("layer.json");
        match state_dir::find::<LayerInfo>(&path) {
            Found::Value(_) => return Ok(()),
            Found::Later(error) => return Err(error),
            Found::Nothing | Found::Broken => {}
        }
        let tar_size = self.write_layer(diff_id, io::sink())?;
        let size = bytes_of_files(&self.layer_dir(diff_id).join("diff"))
            .map_err(|cause| Error::system(format!("read layer {diff_id}"), cause))?;
        let info = LayerInfo::new(diff_id.clone(), size, tar_size);
        let text = serde_json::to_vec(&info).map_err(|cause| Error::system("describe layer", cause))?;
        self.write_atomically(&path, &text)?;
        log::warn!("the record of layer {diff_id} is made again from its files");
        Ok(())
    }
}

/// As the tar counted them: a file with several names once.
fn bytes_of_files(dir: &Path) -> io::Result<u64> {
    let (mut bytes, mut seen, mut dirs) = (0, BTreeSet::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                dirs.push(entry.path());
            } else if meta.is_file() && (meta.nlink() == 1 || seen.insert(meta.ino())) {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes)
}
