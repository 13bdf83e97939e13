//! `docker load`: images from a docker-archive (`manifest.json`, or `repositories` in old ones) or an OCI layout
//! (`index.json`), and artifacts from the latter.
//!
//! The members of such an archive come in any order, the table of contents often last. So the archive is
//! spooled to `tmp` as it comes, blobs digested on the way, and read from there, several layers at once. Where
//! several tables of contents are present, as modern `docker save` writes them, `manifest.json` counts for images:
//! it names the tags.
//!
//! Members keep their names as keys in a map only; no path on disk is made from them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};

use serde::Deserialize;

use super::artifact::{Artifact, ArtifactManifest};
use super::codec::{Counting, Digest, Hashing, decompress};
use super::config::{Config, Descriptor, Index, MAX_JSON_BYTES, Manifest, Platform};
use super::content::{Pins, Staging, read_failure};
use super::{Image, ImageId, Record, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::http::api::image::{JsonMessage, ProgressDetail};
use crate::runtime::Cause;
use crate::runtime::layer::Limits;
use crate::runtime::layer::tar::{Kind, Reader};

/// An index in an index in an index is no image.
const MAX_INDEX_DEPTH: usize = 4;
/// A link to a link to a link is no layer.
const MAX_LINKS: usize = 8;
/// Layers unpacked at once: as many as a client of Docker downloads.
const MAX_WORKERS: usize = 3;
/// Bytes of a layer between two words about it.
const PROGRESS_BYTES: u64 = 512 << 10;

/// What one image of an archive became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    pub id: ImageId,
    /// The names it got; empty for an image without.
    pub references: Vec<Reference>,
}

/// One entry of `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Vec<String>,
    #[serde(default)]
    layers: Vec<String>,
}

/// What an archive had in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    pub images: Vec<LoadedImage>,
    pub artifacts: Vec<Artifact>,
}

impl Store {
    /// Loads every image and artifact of the archive, which may be compressed (gzip, bzip2, xz, zstd). Of an image for
    /// several platforms the one for `platform` is taken, or for this host; an image for another than the `platform`
    /// asked for is refused. Blocks as long as the archive takes to come.
    ///
    /// Images that were complete before a later one failed stay, as with Docker; of the failed one nothing
    /// does.
    pub fn load(
        &self,
        archive: impl Read,
        platform: Option<&Platform>,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<Loaded> {
        let spool = Spool::fill(self.staging()?, archive, self.limits)?;
        let mut loaded = Loaded::default();
        let has_table = spool.has("manifest.json");
        if has_table {
            let text = spool.json("manifest.json")?;
            let images: Vec<DockerImage> = crate::http::api::decode(&text)
                .map_err(|cause| Error::invalid(format!("read manifest.json: {cause}")))?;
            for image in images {
                loaded.images.push(self.load_docker(&spool, &image, platform, on_progress)?);
            }
        }
        if spool.has("index.json") {
            let index = Index::parse(&spool.json("index.json")?)?;
            for descriptor in &index.manifests {
                self.load_manifest(&spool, descriptor, platform, has_table, &mut loaded, on_progress)?;
            }
        } else if !has_table {
            if !spool.has("repositories") {
                return Err(Error::invalid(
                    "archive is no image: it has neither manifest.json nor index.json nor repositories",
                ));
            }
            loaded.images = self.load_legacy(&spool, on_progress)?;
        }
        if loaded.images.is_empty() && loaded.artifacts.is_empty() {
            return Err(Error::invalid("archive has no image in it"));
        }
        for image in &loaded.images {
            if image.references.is_empty() {
                on_progress(JsonMessage::stream(format!("Loaded image ID: {}\n", image.id)));
            }
            for reference in &image.references {
                on_progress(JsonMessage::stream(format!("Loaded image: {}\n", reference.familiar())));
            }
        }
        for artifact in &loaded.artifacts {
            on_progress(JsonMessage::stream(format!("Loaded artifact: {}\n", artifact.name())));
        }
        Ok(loaded)
    }

    /// One entry of an index. `only_artifacts`: the images are known from another table.
    fn load_manifest(
        &self,
        spool: &Spool,
        descriptor: &Descriptor,
        platform: Option<&Platform>,
        only_artifacts: bool,
        loaded: &mut Loaded,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<()> {
        let is_attestation = descriptor.annotations.contains_key("vnd.docker.reference.type")
            || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
        if is_attestation || only_artifacts && descriptor.is_index() {
            return Ok(());
        }
        let name = descriptor
            .annotations
            .get("io.containerd.image.name")
            .or_else(|| descriptor.annotations.get("org.opencontainers.image.ref.name"));
        // `oci:dir:v1` of other tools leaves a bare tag, which names nothing.
        let name = name.filter(|name| name.contains([':', '/', '@']));
        let name = name.map(|name| Reference::parse(name).map(Reference::with_default_tag)).transpose()?;
        let mut chosen = descriptor.clone();
        let mut depth = 0;
        while chosen.is_index() {
            depth += 1;
            if depth > MAX_INDEX_DEPTH {
                return Err(Error::invalid(format!("index {}: nested too deep", descriptor.digest)));
            }
            let nested = Index::parse(&spool.blob(&chosen)?)?;
            let host = Platform::host();
            chosen = nested.choose(platform.unwrap_or(&host))?.clone();
        }
        let manifest = spool.blob(&chosen)?;
        if let Some(parsed) = ArtifactManifest::parse(&manifest) {
            log::debug!("load artifact {} of type {:?}", chosen.digest, parsed.kind());
            let mut open = |blob: &Descriptor| -> Result<Box<dyn Read>> {
                Ok(Box::new(spool.open(&blob_name(&blob.digest))?.0))
            };
            loaded.artifacts.push(self.put_artifact(name.as_ref(), &chosen, &manifest, &mut open)?);
        } else if !only_artifacts {
            loaded.images.push(self.load_oci(spool, &manifest, name, platform, on_progress)?);
        }
        Ok(())
    }

    fn load_docker(
        &self,
        spool: &Spool,
        image: &DockerImage,
        platform: Option<&Platform>,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<LoadedImage> {
        let blob = spool.json(&image.config)?;
        // `<hex>.json` in old archives, `blobs/sha256/<hex>` in new ones.
        let base = image.config.rsplit('/').next().unwrap_or_default();
        if let Some(named) = Digest::from_hex(base.strip_suffix(".json").unwrap_or(base)) {
            let actual = Digest::of(&blob);
            if named != actual {
                return Err(Error::invalid(format!("config {named}: its content has digest {actual}")));
            }
        }
        let references = image
            .repo_tags
            .iter()
            .map(|tag| Reference::parse(tag).map(Reference::with_default_tag))
            .collect::<Result<Vec<_>>>()?;
        let config = Config::parse(&blob)?;
        if let Some(wanted) = platform {
            config.check_platform(image.repo_tags.first().unwrap_or(&image.config), wanted)?;
        }
        let mut pins = Pins::new(self);
        self.add_layers(spool, &config, &image.layers, &mut pins, on_progress)?;
        self.tell_renamed(&Digest::of(&blob), &references, on_progress);
        let image = self.publish(&blob, Record::default(), &references, &mut pins)?;
        Ok(LoadedImage { id: image.id, references })
    }

    fn load_oci(
        &self,
        spool: &Spool,
        manifest_blob: &[u8],
        name: Option<Reference>,
        platform: Option<&Platform>,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<LoadedImage> {
        let manifest = Manifest::parse(manifest_blob)?;
        let blob = spool.blob(&manifest.config)?;
        let config = Config::parse(&blob)?;
        if let Some(wanted) = platform {
            let shown = name.as_ref().map_or_else(|| Digest::of(&blob).to_string(), Reference::familiar);
            config.check_platform(&shown, wanted)?;
        }
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let name = blob_name(&layer.digest);
            layer.check_size(spool.open(&name)?.1)?;
            layers.push(name);
        }
        let references: Vec<_> = name.into_iter().collect();
        let mut pins = Pins::new(self);
        self.add_layers(spool, &config, &layers, &mut pins, on_progress)?;
        self.tell_renamed(&Digest::of(&blob), &references, on_progress);
        let manifests = vec![self.put_blob(manifest_blob, &mut pins)?];
        let Image { id, .. } =
            self.publish(&blob, Record { manifests, ..Record::default() }, &references, &mut pins)?;
        Ok(LoadedImage { id, references })
    }

    /// Says which images are about to lose their names to another. Docker's words.
    fn tell_renamed(&self, id: &ImageId, references: &[Reference], on_progress: &mut dyn FnMut(JsonMessage)) {
        for reference in references {
            let before = self.lock().references.get(reference).cloned();
            if let Some(before) = before.filter(|before| before != id) {
                on_progress(JsonMessage::stream(format!(
                    "The image {} already exists, renaming the old one with ID {before} to empty string\n",
                    reference.familiar()
                )));
            }
        }
    }

    fn add_layers<'a>(
        &'a self,
        spool: &Spool,
        config: &Config,
        names: &[String],
        pins: &mut Pins<'a>,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<()> {
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != names.len() {
            return Err(Error::invalid(format!(
                "image has {} layers but its config names {}",
                names.len(),
                diff_ids.len()
            )));
        }
        let mut missing = Vec::new();
        for (diff_id, name) in diff_ids.iter().zip(names) {
            pins.add(diff_id);
            if !self.has_layer(diff_id) && !missing.iter().any(|(other, _)| *other == diff_id) {
                missing.push((diff_id, name));
            }
        }
        let workers = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS);
        let workers = workers.min(missing.len());
        let queue = Mutex::new(missing.into_iter());
        // Bounded: who does not read its progress is waited for, not remembered for.
        let (sender, messages) = mpsc::sync_channel(64);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..workers {
                let (queue, tell) = (&queue, sender.clone());
                let work = move || self.add_queued(spool, queue, &tell);
                let thread = std::thread::Builder::new()
                    .name("layers".to_owned())
                    .spawn_scoped(scope, work)
                    .map_err(|cause| Error::system("start a thread", cause))?;
                threads.push(thread);
            }
            drop(sender);
            messages.iter().for_each(&mut *on_progress);
            let mut outcome = Ok(());
            for thread in threads {
                let done = thread.join().map_err(|_| Error::system("load layers", "a thread panicked"))?;
                match done {
                    Ok(added) => pins.absorb(added),
                    Err(error) => outcome = outcome.and(Err(error)),
                }
            }
            outcome
        })
    }

    /// Adds layers until none is left; after one that failed there is none.
    fn add_queued<'a>(
        &'a self,
        spool: &Spool,
        queue: &Mutex<std::vec::IntoIter<(&Digest, &String)>>,
        tell: &mpsc::SyncSender<JsonMessage>,
    ) -> Result<Pins<'a>> {
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let mut pins = Pins::new(self);
        while let Some((diff_id, name)) = next() {
            let added = self.add_spooled(spool, diff_id, name, &mut pins, tell);
            if let Err(error) = added {
                *queue.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new().into_iter();
                return Err(error);
            }
        }
        Ok(pins)
    }

    fn add_spooled(
        &self,
        spool: &Spool,
        diff_id: &Digest,
        name: &str,
        pins: &mut Pins<'_>,
        tell: &mpsc::SyncSender<JsonMessage>,
    ) -> Result<()> {
        let (file, size) = spool.open(name)?;
        let total = size.cast_signed();
        let tell = |current: i64| {
            let detail = ProgressDetail { current, total, ..ProgressDetail::default() };
            // Fails only when nobody listens any more.
            let _ = tell.send(JsonMessage::progress(diff_id.short(), "Loading layer", detail));
        };
        tell(0);
        let mut told = 0;
        let file = Counting::new(file, |current| {
            if current >= told + PROGRESS_BYTES {
                told = current;
                tell(current.cast_signed().min(total));
            }
        });
        self.add_layer(decompress(file)?, Some(diff_id), pins)
            .map_err(|cause| cause.during(format!("load {name:?}")))?;
        tell(total);
        Ok(())
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// A member, by the file it is in.
enum Member {
    File {
        path: PathBuf,
        size: u64,
    },
    /// To another member.
    Link(String),
}

/// The members of an archive, each in a file of its own with a name of ours.
pub(super) struct Spool {
    members: HashMap<String, Member>,
    /// Holds the files.
    _staging: Staging,
}

impl Spool {
    fn fill(staging: Staging, archive: impl Read, limits: Limits) -> Result<Spool> {
        let attempt = "read archive";
        let failed = |cause| match cause {
            Cause::Refused(message) => Error::invalid(format!("{attempt}: {message}")),
            cause => Error::system(attempt, cause),
        };
        let mut reader = Reader::new(decompress(archive)?, limits);
        let mut members = HashMap::new();
        let mut buffer = vec![0; 128 << 10];
        while let Some(entry) = reader.next_entry().map_err(failed)? {
            let name = clean(&String::from_utf8_lossy(&entry.path));
            let link = String::from_utf8_lossy(&entry.link);
            let member = match entry.kind {
                Kind::File => {
                    let path = staging.path().join(members.len().to_string());
                    let write = |cause| Error::system(format!("write {}", path.display()), cause);
                    let mut file = Hashing::new(File::create(&path).map_err(write)?);
                    loop {
                        let count = reader.read(&mut buffer).map_err(failed)?;
                        if count == 0 {
                            break;
                        }
                        file.write_all(&buffer[..count]).map_err(write)?;
                    }
                    let (digest, size) = file.finish();
                    let named = name.strip_prefix("blobs/sha256/").and_then(Digest::from_hex);
                    if let Some(named) = named
                        && named != digest
                    {
                        return Err(Error::invalid(format!("blob {named}: its content has digest {digest}")));
                    }
                    Member::File { path, size }
                }
                Kind::HardLink => Member::Link(clean(&link)),
                // Old archives share a layer between images so: `../<other>/layer.tar`.
                Kind::Symlink => {
                    let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                    Member::Link(clean(&format!("{parent}/{link}")))
                }
                _ => continue,
            };
            members.insert(name, member);
        }
        Ok(Spool { members, _staging: staging })
    }

    fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub(super) fn open(&self, name: &str) -> Result<(File, u64)> {
        let mut key = clean(name);
        for _ in 0..MAX_LINKS {
            match self.members.get(&key) {
                Some(Member::File { path, size }) => {
                    let file = File::open(path)
                        .map_err(|cause| Error::system(format!("read {name:?} of the archive"), cause))?;
                    return Ok((file, *size));
                }
                Some(Member::Link(target)) => key.clone_from(target),
                None => return Err(Error::invalid(format!("archive has no file {name:?}"))),
            }
        }
        Err(Error::invalid(format!("{name:?} in the archive is a link that leads nowhere")))
    }

    /// A member that is small.
    pub(super) fn json(&self, name: &str) -> Result<Vec<u8>> {
        let (file, size) = self.open(name)?;
        if size > MAX_JSON_BYTES {
            return Err(Error::invalid(format!(
                "{name:?} in the archive has {size} bytes, too many for what it is"
            )));
        }
        let mut bytes = Vec::new();
        let attempt = || format!("read {name:?} of the archive");
        file.take(MAX_JSON_BYTES)
            .read_to_end(&mut bytes)
            .map_err(|cause: io::Error| read_failure(attempt(), cause))?;
        Ok(bytes)
    }

    /// A small blob of the size its descriptor says; its digest was compared when it came.
    fn blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let bytes = self.json(&blob_name(&descriptor.digest))?;
        descriptor.check_size(bytes.len() as u64)?;
        Ok(bytes)
    }
}

/// A key for the map: no `.`, no empty parts, `..` taken back as far as it goes.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
