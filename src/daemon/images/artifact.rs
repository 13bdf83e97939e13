//! Artifacts: manifests that describe no image, with blobs of any type, known by name.
//!
//! ```text
//! artifacts/references.json      name (or digest, for one without) to the manifest's descriptor
//!           blobs/sha256/<hex>   manifests and blobs, byte for byte as they came
//! ```
//!
//! Beside the images and not among them: a dewar that does not know artifacts leaves all of this alone. As with
//! images, blobs are whole before a name leads to them, and what nothing leads to is swept.
//!
//! Blobs may be large: they are streamed to disk and digested on the way, and written out the same way.
//!
//! Source: OCI image-spec `manifest.md`, "Guidelines for Artifact Usage".

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::codec::{Digest, Hashing};
use super::config::{DOCKER_CONFIG, Descriptor, MAX_JSON_BYTES, OCI_CONFIG, OCI_MANIFEST};
use super::content::{Pins, read_failure};
use super::{Reference, Store, Tables};
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::{self, Found};
use crate::http::api::image::{ImageDeleteItem, ImageSummary};

/// Where their blobs are, below the store's root.
pub(super) const BLOBS: &str = "artifacts/blobs/sha256";

/// The version of `artifacts/references.json` this program writes.
const FORMAT: u32 = 1;

/// What the retired manifest type calls its blobs' list, and what it is.
const OLD_MANIFEST: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// A manifest as far as artifacts need it; what else it says stays in its bytes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ArtifactManifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: Option<Descriptor>,
    #[serde(alias = "blobs")]
    layers: Vec<Descriptor>,
    /// What the artifact is about; need not be here.
    pub subject: Option<Descriptor>,
    pub annotations: BTreeMap<String, String>,
}

impl ArtifactManifest {
    /// Reads a manifest if it describes an artifact; `None` when it is for an image's reader to judge.
    pub fn parse(bytes: &[u8]) -> Option<ArtifactManifest> {
        let manifest: ArtifactManifest = crate::http::api::decode(bytes).ok()?;
        let is_manifest = match manifest.media_type.as_str() {
            "" | OCI_MANIFEST => manifest.schema_version == 2 && manifest.config.is_some(),
            other => other == OLD_MANIFEST,
        };
        let config = manifest.config.as_ref().map(|config| config.media_type.as_str());
        let is_image =
            matches!(config, Some(OCI_CONFIG | DOCKER_CONFIG)) && manifest.artifact_type.is_empty();
        (is_manifest && !is_image).then_some(manifest)
    }

    /// What it is: its own word, or its config's type.
    pub fn kind(&self) -> &str {
        match (&self.artifact_type, &self.config) {
            (kind, Some(config)) if kind.is_empty() => &config.media_type,
            (kind, _) => kind,
        }
    }

    /// All its blobs, the config first if there is one.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.config.iter().chain(&self.layers)
    }
}

/// One artifact, as it was when it was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// `None` for one that is known by its digest alone.
    pub reference: Option<Reference>,
    /// Of its manifest, with the annotations of the index it came from.
    pub descriptor: Descriptor,
    pub manifest: ArtifactManifest,
}

impl Artifact {
    /// As people are shown.
    pub fn name(&self) -> String {
        match &self.reference {
            Some(reference) => reference.familiar(),
            None => self.descriptor.digest.to_string(),
        }
    }

    fn summary(&self) -> ImageSummary {
        let created = self.manifest.annotations.get("org.opencontainers.image.created");
        let mut labels = self.manifest.annotations.clone();
        labels.insert("artifactType".to_owned(), self.manifest.kind().to_owned());
        let size: u64 = self.manifest.blobs().map(|blob| blob.size).sum();
        ImageSummary {
            containers: 0,
            created: created.map_or(0, |time| super::seconds(time)),
            id: self.descriptor.digest.to_string(),
            labels,
            parent_id: self.manifest.subject.as_ref().map(|of| of.digest.to_string()).unwrap_or_default(),
            repo_digests: Vec::new(),
            repo_tags: self.reference.iter().map(Reference::familiar).collect(),
            shared_size: -1,
            size: (size + self.descriptor.size).cast_signed(),
        }
    }
}

#[derive(Debug)]
struct Known {
    descriptor: Descriptor,
    manifest: ArtifactManifest,
}

/// The artifacts there are.
#[derive(Debug, Default)]
pub(super) struct Table {
    known: BTreeMap<String, Known>,
    /// Why nothing may be written or swept: the table is a later dewar's.
    refusal: Option<Error>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct ReferencesFile {
    format: u32,
    artifacts: BTreeMap<String, Descriptor>,
}

impl Table {
    fn artifact(&self, key: &str) -> Option<Artifact> {
        let Known { descriptor, manifest } = self.known.get(key)?;
        let reference = Digest::parse(key).is_none().then(|| Reference::parse(key).ok()).flatten();
        Some(Artifact { reference, descriptor: descriptor.clone(), manifest: manifest.clone() })
    }

    /// The key of what is called so: a reference, a digest, or the unique start of one.
    fn find(&self, name: &str) -> Option<String> {
        let reference = Reference::parse(name).map(|name| name.with_default_tag().to_string());
        if let Some(key) = reference.ok().filter(|key| self.known.contains_key(key)) {
            return Some(key);
        }
        let bare = name.strip_prefix("sha256:").unwrap_or(name);
        let fits = |known: &Known| bare.len() >= 12 && known.descriptor.digest.hex().starts_with(bare);
        let mut hits = self.known.iter().filter(|(_, known)| fits(known));
        let (key, known) = hits.next()?;
        hits.all(|(_, other)| other.descriptor.digest == known.descriptor.digest).then(|| key.clone())
    }
}

impl Store {
    /// Keeps an artifact: its manifest's bytes, which `descriptor` describes, and every blob that is not here yet,
    /// read from what `open` gives for it. It replaces what had its name. Without a name it is known by its digest.
    ///
    /// Blocks as long as the blobs take to come. Of an artifact that fails nothing stays.
    ///
    /// # Errors
    /// Refused when the manifest is no artifact's, and when sizes or digests are not as promised.
    pub fn put_artifact(
        &self,
        reference: Option<&Reference>,
        descriptor: &Descriptor,
        manifest: &[u8],
        open: &mut dyn FnMut(&Descriptor) -> Result<Box<dyn Read>>,
    ) -> Result<Artifact> {
        let digest = &descriptor.digest;
        descriptor.check_size(manifest.len() as u64)?;
        let parsed = ArtifactManifest::parse(manifest)
            .ok_or_else(|| Error::invalid(format!("manifest {digest} describes no artifact")))?;
        let mut pins = Pins::new(self);
        for blob in parsed.blobs() {
            self.put_artifact_blob(blob, &mut pins, || open(blob))?;
        }
        self.put_artifact_blob(descriptor, &mut pins, || Ok(Box::new(io::Cursor::new(manifest.to_vec()))))?;
        let reference = reference.map(|reference| reference.clone().with_default_tag());
        let key = reference.as_ref().map_or_else(|| digest.to_string(), Reference::to_string);
        let mut tables = self.lock();
        let known = Known { descriptor: descriptor.clone(), manifest: parsed.clone() };
        let before = tables.artifacts.known.insert(key.clone(), known);
        if let Err(error) = self.write_artifacts(&tables.artifacts) {
            match before {
                Some(before) => drop(tables.artifacts.known.insert(key, before)),
                None => drop(tables.artifacts.known.remove(&key)),
            }
            return Err(error);
        }
        Ok(Artifact { reference, descriptor: descriptor.clone(), manifest: parsed })
    }

    /// The artifact of this name, digest, or unique start of a digest (12 digits at least).
    pub fn artifact(&self, name: &str) -> Result<Artifact> {
        let tables = self.lock();
        let key = tables.artifacts.find(name);
        key.and_then(|key| tables.artifacts.artifact(&key))
            .ok_or_else(|| Error::not_found(format!("No such artifact: {name}")))
    }

    /// Every artifact in the words of a list of images, in the order of their names. Its labels are its annotations,
    /// and `artifactType`.
    pub fn artifacts(&self) -> Vec<ImageSummary> {
        let tables = self.lock();
        let keys = tables.artifacts.known.keys();
        keys.filter_map(|key| tables.artifacts.artifact(key)).map(|artifact| artifact.summary()).collect()
    }

    /// Writes out one of an artifact's blobs, or its manifest. Fails, with `out` useless, if it no longer has its
    /// digest.
    pub fn write_artifact_blob(&self, blob: &Descriptor, out: &mut dyn Write) -> Result<()> {
        let attempt = || format!("read blob {}", blob.digest);
        let file =
            File::open(self.artifact_blob(&blob.digest)).map_err(|cause| Error::system(attempt(), cause))?;
        let mut file = Hashing::new(file.take(blob.size + 1));
        io::copy(&mut file, out).map_err(|cause| Error::system(attempt(), cause))?;
        let (digest, _) = file.finish();
        if digest != blob.digest {
            return Err(Error::system(attempt(), format!("its content has digest {digest}")));
        }
        Ok(())
    }

    fn artifact_blob(&self, digest: &Digest) -> std::path::PathBuf {
        self.root.join(BLOBS).join(digest.hex())
    }

    fn put_artifact_blob(
        &self,
        blob: &Descriptor,
        pins: &mut Pins<'_>,
        open: impl FnOnce() -> Result<Box<dyn Read>>,
    ) -> Result<()> {
        pins.add(&blob.digest);
        let path = self.artifact_blob(&blob.digest);
        if fs::metadata(&path).is_ok_and(|meta| meta.len() == blob.size) {
            return Ok(());
        }
        let staging = self.staging()?;
        let temporary = staging.path().join("blob");
        let failed = |cause: io::Error| Error::system(format!("write blob {}", blob.digest), cause);
        let mut file = Hashing::new(File::create(&temporary).map_err(failed)?);
        // One byte more than promised is enough to know that there is more.
        let mut stream = open()?.take(blob.size.saturating_add(1));
        let mut buffer = vec![0; 128 << 10];
        loop {
            let count = match stream.read(&mut buffer) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(|cause| read_failure(format!("read blob {}", blob.digest), cause))?,
            };
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(failed)?;
        }
        let (digest, size) = file.finish();
        blob.check_size(size)?;
        if digest != blob.digest {
            return Err(Error::invalid(format!("blob {}: its content has digest {digest}", blob.digest)));
        }
        let keep = || -> io::Result<()> {
            File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(self.root.join(BLOBS))?.sync_all()
        };
        keep().map_err(failed)
    }

    /// What the artifacts lead to and unfinished operations rely on; `None` for everything.
    pub(super) fn blobs_of_artifacts<'a>(&self, tables: &'a Tables) -> Option<BTreeSet<&'a Digest>> {
        if tables.artifacts.refusal.is_some() {
            return None;
        }
        let mut used: BTreeSet<&Digest> = tables.pins.keys().collect();
        for known in tables.artifacts.known.values() {
            used.insert(&known.descriptor.digest);
            used.extend(known.manifest.blobs().map(|blob| &blob.digest));
        }
        Some(used)
    }

    /// Forgets the artifact of this name; `missing` when there is none.
    pub(super) fn remove_artifact(
        &self,
        tables: &mut Tables,
        name: &str,
        missing: Error,
    ) -> Result<Vec<ImageDeleteItem>> {
        let Some(key) = tables.artifacts.find(name) else { return Err(missing) };
        let Some(artifact) = tables.artifacts.artifact(&key) else { return Err(missing) };
        let Some(known) = tables.artifacts.known.remove(&key) else { return Err(missing) };
        if let Err(error) = self.write_artifacts(&tables.artifacts) {
            tables.artifacts.known.insert(key, known);
            return Err(error);
        }
        let mut items = vec![ImageDeleteItem::Untagged(artifact.name())];
        let digest = &artifact.descriptor.digest;
        if !tables.artifacts.known.values().any(|other| other.descriptor.digest == *digest) {
            items.push(ImageDeleteItem::Deleted(digest.to_string()));
        }
        Ok(items)
    }

    fn write_artifacts(&self, table: &Table) -> Result<()> {
        if let Some(refusal) = &table.refusal {
            return Err(refusal.clone().during("change the artifacts"));
        }
        let descriptors = table.known.iter().map(|(key, known)| (key.clone(), known.descriptor.clone()));
        let file = ReferencesFile { format: FORMAT, artifacts: descriptors.collect() };
        let text = serde_json::to_vec_pretty(&file)
            .map_err(|cause| Error::system("write artifacts/references.json", cause))?;
        self.write_atomically(&self.root.join("artifacts/references.json"), &text)
    }

    /// The table on disk. One that cannot be read is kept aside, and what is there is known by its digest.
    pub(super) fn read_artifacts(&self) -> Table {
        let mut table = Table::default();
        let descriptors =
            match state_dir::find::<ReferencesFile>(&self.root.join("artifacts/references.json")) {
                Found::Value(file) => file.artifacts,
                Found::Nothing => BTreeMap::new(),
                Found::Later(error) => return Table { refusal: Some(error), ..table },
                Found::Broken => self.find_artifacts(),
            };
        for (key, descriptor) in descriptors {
            match self.artifact_manifest(&descriptor.digest) {
                Some((manifest, _)) => drop(table.known.insert(key, Known { descriptor, manifest })),
                None => {
                    log::error!("artifact {key} is left out: its manifest {} is damaged", descriptor.digest)
                }
            }
        }
        table
    }

    fn find_artifacts(&self) -> BTreeMap<String, Descriptor> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(self.root.join(BLOBS)).into_iter().flatten().flatten() {
            let Some(digest) = entry.file_name().to_str().and_then(Digest::from_hex) else { continue };
            if let Some((_, size)) = self.artifact_manifest(&digest) {
                found.insert(digest.to_string(), Descriptor::new(OCI_MANIFEST, digest, size));
            }
        }
        log::warn!("the table of artifacts is made again: {} without names", found.len());
        found
    }

    /// The manifest and its size, if the blob is one and whole.
    fn artifact_manifest(&self, digest: &Digest) -> Option<(ArtifactManifest, u64)> {
        let mut bytes = Vec::new();
        let file = File::open(self.artifact_blob(digest)).ok()?;
        file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let is_whole = bytes.len() as u64 <= MAX_JSON_BYTES && Digest::of(&bytes) == *digest;
        is_whole.then(|| ArtifactManifest::parse(&bytes)).flatten().map(|parsed| (parsed, bytes.len() as u64))
    }
}
