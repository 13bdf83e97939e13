//! `docker save`: images as one tar that is a docker-archive and an OCI layout at once.
//!
//! ```text
//! blobs/sha256/<hex>   layers (uncompressed, byte for byte as they came), configs, manifests
//! index.json           the OCI table of contents, with artifacts as they came
//! manifest.json        Docker's table of contents, with the tags
//! oci-layout
//! ```
//!
//! Equal images give equal archives: no times, fixed order.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use super::artifact::Artifact;
use super::codec::Digest;
use super::config::{Descriptor, Index, Manifest, OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, Platform};
use super::content::Pins;
use super::{Image, ImageId, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::runtime::layer::tar::{Entry, Kind, Writer};

impl Store {
    /// Checks that every name is there, and an image for `platform`, so that a caller can still answer 404 before the
    /// first byte.
    pub fn check_names(&self, names: &[String], platform: Option<&Platform>) -> Result<()> {
        for name in names {
            let (images, _) = self.selection(std::slice::from_ref(name))?;
            for (image, _) in images.values() {
                platform.map_or(Ok(()), |wanted| image.config.check_platform(name, wanted))?;
            }
        }
        Ok(())
    }

    /// Writes the images and artifacts called `names`. A name that is an id saves the image without tags; a repository
    /// without a tag saves all its tags. Returns which images were saved.
    pub fn save(&self, names: &[String], out: impl Write) -> Result<Vec<ImageId>> {
        self.save_without(names, &BTreeSet::new(), out)
    }

    /// As [`save`](Store::save), but for layers that whoever loads it has.
    pub fn save_without(
        &self,
        names: &[String],
        layers: &BTreeSet<Digest>,
        out: impl Write,
    ) -> Result<Vec<ImageId>> {
        let present = layers;
        let (wanted, artifacts) = self.selection(names)?;
        let mut pins = Pins::new(self);
        let mut writer = Writer::new(out);
        let mut written = BTreeSet::new();
        let (mut index, mut table) = (Vec::new(), Vec::new());
        add(&mut writer, "blobs/", None)?;
        add(&mut writer, "blobs/sha256/", None)?;
        for (image, tags) in wanted.values() {
            pins.add(&image.id);
            let mut layers = Vec::new();
            for diff_id in &image.config.rootfs.diff_ids {
                pins.add(diff_id);
                let size = self.layer(diff_id)?.tar_size;
                layers.push(Descriptor::new(OCI_LAYER, diff_id.clone(), size));
                if written.insert(diff_id.clone()) && !present.contains(diff_id) {
                    self.save_layer(diff_id, size, &mut writer)?;
                }
            }
            let config = self.get_blob(&image.id)?;
            let manifest = Manifest {
                schema_version: 2,
                media_type: OCI_MANIFEST.to_owned(),
                config: Descriptor::new(OCI_CONFIG, image.id.clone(), config.len() as u64),
                layers,
                annotations: BTreeMap::new(),
            };
            let paths: Vec<_> = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
            let manifest = json(&manifest)?;
            let digest = Digest::of(&manifest);
            for (digest, bytes) in [(&image.id, &config), (&digest, &manifest)] {
                if written.insert(digest.clone()) {
                    add(&mut writer, &blob_name(digest), Some(bytes))?;
                }
            }
            let mut descriptor = Descriptor::new(OCI_MANIFEST, digest, manifest.len() as u64);
            descriptor.platform = Some(image.config.platform());
            for tag in tags {
                let mut named = descriptor.clone();
                annotate(&mut named, tag);
                index.push(named);
            }
            if tags.is_empty() {
                index.push(descriptor);
            }
            let familiar: Vec<_> = tags.iter().map(Reference::familiar).collect();
            table.push(serde_json::json!({
                "Config": blob_name(&image.id),
                "RepoTags": if familiar.is_empty() { None } else { Some(familiar) },
                "Layers": paths,
            }));
        }
        for artifact in &artifacts {
            index.push(self.save_artifact(artifact, &mut writer, &mut written, &mut pins)?);
        }
        let index = Index { schema_version: 2, media_type: OCI_INDEX.to_owned(), manifests: index };
        add(&mut writer, "index.json", Some(&json(&index)?))?;
        add(&mut writer, "manifest.json", Some(&json(&table)?))?;
        add(&mut writer, "oci-layout", Some(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
        writer.finish().map_err(|cause| Error::system("write archive", cause))?;
        Ok(wanted.into_keys().collect())
    }

    /// Writes what is not written yet; the entry for the table of contents.
    fn save_artifact<W: Write>(
        &self,
        artifact: &Artifact,
        writer: &mut Writer<W>,
        written: &mut BTreeSet<Digest>,
        pins: &mut Pins<'_>,
    ) -> Result<Descriptor> {
        for blob in artifact.manifest.blobs().chain([&artifact.descriptor]) {
            pins.add(&blob.digest);
            if written.insert(blob.digest.clone()) {
                self.append_piped(&blob.digest, blob.size, writer, |pipe| {
                    self.write_artifact_blob(blob, pipe)
                })?;
            }
        }
        let mut descriptor = artifact.descriptor.clone();
        if let Some(name) = &artifact.reference {
            annotate(&mut descriptor, name);
        }
        Ok(descriptor)
    }

    fn selection(&self, names: &[String]) -> Result<(Selection, Vec<Artifact>)> {
        let mut artifacts: Vec<Artifact> = Vec::new();
        let mut wanted = Selection::new();
        let mut select = |image: Image, tag: Option<Reference>| {
            let (_, tags) = wanted.entry(image.id.clone()).or_insert_with(|| (image, Vec::new()));
            if let Some(tag) = tag
                && !tags.contains(&tag)
            {
                tags.push(tag);
            }
        };
        for name in names {
            let parsed = Reference::parse(name).ok();
            let repository: Vec<_> = match &parsed {
                Some(name) if name.tag().is_none() && name.digest().is_none() => {
                    let tables = self.lock();
                    let is_kin = |other: &&Reference| other.same_repository(name) && other.tag().is_some();
                    tables.references.keys().filter(is_kin).cloned().collect()
                }
                _ => Vec::new(),
            };
            if repository.is_empty() {
                let image = match self.resolve(name) {
                    Ok(image) => image,
                    Err(missing) => {
                        let artifact = self.artifact(name).map_err(|_| missing)?;
                        if !artifacts.contains(&artifact) {
                            artifacts.push(artifact);
                        }
                        continue;
                    }
                };
                let named = self.references_of(&image.id);
                select(image, parsed.filter(|name| name.tag().is_some() && named.contains(name)));
            }
            for tag in repository {
                select(self.resolve(&tag.to_string())?, Some(tag));
            }
        }
        Ok((wanted, artifacts))
    }

    fn save_layer<W: Write>(&self, diff_id: &Digest, size: u64, writer: &mut Writer<W>) -> Result<()> {
        self.append_piped(diff_id, size, writer, |pipe| self.write_layer(diff_id, pipe).map(drop))
    }

    /// The writer of an archive takes content from a reader, the layer gives it to a writer: a thread and a
    /// pipe of the kernel's join them, so no layer is held in memory or written to disk.
    fn append_piped<W: Write>(
        &self,
        digest: &Digest,
        size: u64,
        writer: &mut Writer<W>,
        write: impl FnOnce(&mut dyn Write) -> Result<()> + Send,
    ) -> Result<()> {
        let mut entry = Entry::new(blob_name(digest), Kind::File, 0o644);
        entry.size = size;
        let (mut reader, pipe) = io::pipe().map_err(|cause| Error::system("write archive", cause))?;
        let (content, archive) = std::thread::scope(|scope| {
            let content = scope.spawn(move || {
                let mut pipe = io::BufWriter::with_capacity(64 << 10, pipe);
                write(&mut pipe)?;
                pipe.flush().map_err(|cause| Error::system("write archive", cause))
            });
            let archive = writer.append(&entry, &mut (&mut reader as &mut dyn Read));
            // Closed, so that the thread fails instead of waiting when nobody reads on.
            drop(reader);
            (content.join(), archive)
        });
        let content = content.map_err(|_| Error::system(format!("write {digest}"), "its thread panicked"))?;
        match archive {
            // The layer ended early: its own failure says why.
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => {
                content.and(Err(Error::system("write archive", cause)))
            }
            Err(cause) => Err(Error::system("write archive", cause)),
            Ok(()) => content,
        }
    }
}

/// Images by id, with the names they are saved under.
type Selection = BTreeMap<ImageId, (Image, Vec<Reference>)>;

/// The names of an entry in a table of contents, as Docker and containerd read them.
fn annotate(descriptor: &mut Descriptor, name: &Reference) {
    let annotations = &mut descriptor.annotations;
    annotations.insert("io.containerd.image.name".to_owned(), name.to_string());
    let short = name.tag().unwrap_or_default().to_owned();
    annotations.insert("org.opencontainers.image.ref.name".to_owned(), short);
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| Error::system("write archive", cause))
}

/// A file, or a directory.
fn add<W: Write>(writer: &mut Writer<W>, name: &str, content: Option<&[u8]>) -> Result<()> {
    let (kind, mode) = if content.is_some() { (Kind::File, 0o644) } else { (Kind::Directory, 0o755) };
    let mut entry = Entry::new(name, kind, mode);
    let mut content = content.unwrap_or_default();
    entry.size = content.len() as u64;
    writer.append(&entry, &mut content).map_err(|cause| Error::system("write archive", cause))
}
