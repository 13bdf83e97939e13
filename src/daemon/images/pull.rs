//! `docker pull`: a manifest, the config and layers it names, and an image out of them.
//!
//! ```text
//!   reference ─▶ registries in turn ─▶ manifest (of an index, the platform's) ─▶ config ─▶ layers ─▶ publish
//!                                                                                  │
//!     network ─▶ sha256 of what comes ─▶ decompress ─▶ unpack, sha256 of the tar ──┘ one pass, several at once
//! ```
//!
//! Everything is checked before the image has a name: the manifest's digest, the config's, each layer's as it came
//! and as it is unpacked, sizes and counts. What is not published is swept.
//!
//! Messages and refusals are Docker's.
//!
//! It stays whole: a pull is one story, and what can be told apart (downloads, transfers) is.

pub mod download;
mod transfer;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::codec::{Digest, Hashing, decompress};
use super::config::{Config, Descriptor, Index, MAX_JSON_BYTES, Manifest, Platform};
use super::config::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use super::content::Pins;
use super::packed::Packed;
use super::{ImageId, Record, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::daemon::registry;
use crate::http::api::image::{JsonMessage, ProgressDetail};
use crate::http::registry::{Cancel, Registry, RegistryError};
use download::{Download, Step};
pub use transfer::Transfers;
use transfer::{Key, News, Transfer};

/// What we can make an image of, in the order we would like it.
pub const MANIFEST_TYPES: &[&str] = &[OCI_MANIFEST, DOCKER_MANIFEST, OCI_INDEX, DOCKER_LIST];
/// Docker's words for the type nobody should use any more.
const SCHEMA1: &str =
    "Docker Image manifest version 2, schema 1 support has been removed. Suggest the author of";
/// More than overlayfs would stack.
const MAX_LAYERS: usize = 500;
/// How often a pull looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(250);
/// How often a layer's progress is told.
const INTERVAL: Duration = Duration::from_millis(100);
/// What is still read to tell damage on the way from damage at the source.
const MAX_DRAIN: u64 = 32 << 20;

/// What to pull, and how.
#[derive(Clone, Debug)]
pub struct Pull {
    /// With a tag or a digest; with neither, all tags.
    pub reference: Reference,
    /// `None` for the daemon's own.
    pub platform: Option<Platform>,
    /// Whom to ask, in order.
    pub registries: Vec<Registry>,
    /// Layers at once, of all pulls.
    pub downloads: usize,
    /// The most attempts in a row at one layer.
    pub attempts: u32,
    pub cancel: Cancel,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Pulled {
    pub id: ImageId,
    pub reference: Reference,
}

type Tell<'a> = &'a mut dyn FnMut(JsonMessage);

impl Store {
    /// Pulls one image, or all tags of a repository. Blocks as long as it takes; the first message comes once there
    /// is a manifest.
    pub fn pull(&self, pull: &Pull, tell: Tell<'_>) -> Result<Vec<Pulled>> {
        let mut failure = Error::invalid("pull: no registry to ask");
        for (number, registry) in pull.registries.iter().enumerate() {
            match self.pull_from(pull, registry, tell) {
                Ok(pulled) => return Ok(pulled),
                Err(error) => {
                    if number + 1 < pull.registries.len() {
                        log::warn!("pull {} from {}: {error}", pull.reference.familiar(), registry.host());
                    }
                    failure = error;
                }
            }
            if pull.cancel.is_cancelled() {
                break;
            }
        }
        Err(failure)
    }

    fn pull_from(&self, pull: &Pull, registry: &Registry, tell: Tell<'_>) -> Result<Vec<Pulled>> {
        let reference = &pull.reference;
        let is_all = reference.tag().is_none() && reference.digest().is_none();
        let references = if is_all {
            let tags = registry.list_tags(reference.path());
            let tags = tags.map_err(|error| registry::refusal(&error, reference))?;
            tags.iter().map(|tag| reference.with_tag(tag)).collect::<Result<Vec<_>>>()?
        } else {
            vec![reference.clone()]
        };
        let mut pulled = Vec::new();
        let mut is_new = false;
        for reference in references {
            let (one, new) = self.pull_one(pull, registry, &reference, tell)?;
            is_new |= new;
            pulled.push(one);
        }
        let status = if is_new { "Downloaded newer image for" } else { "Image is up to date for" };
        tell(JsonMessage::status(format!("Status: {status} {}", reference.familiar())));
        Ok(pulled)
    }

    /// One tag or digest; also whether it brought anything.
    fn pull_one(
        &self,
        pull: &Pull,
        registry: &Registry,
        reference: &Reference,
        tell: Tell<'_>,
    ) -> Result<(Pulled, bool)> {
        let refused = |error: &RegistryError| registry::refusal(error, reference);
        let repository = reference.path();
        // A tag beside a digest is a comment.
        let version = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => return Err(Error::invalid("pull: neither tag nor digest")),
        };
        let mut pins = Pins::new(self);
        let (target, bytes, kind) = self
            .fetch_manifest(registry, repository, version, None, &mut pins)
            .map_err(|e| e.told(&refused))?;
        tell(JsonMessage {
            id: version.to_owned(),
            status: Some(format!("Pulling from {repository}")),
            ..JsonMessage::default()
        });
        let mut manifests = vec![target.clone()];
        let manifest = match kind {
            Kind::Image => bytes,
            Kind::Index => {
                let platform = pull.platform.clone().unwrap_or_else(Platform::host);
                let index = Index::parse(&bytes)?;
                let chosen = index.choose(&platform)?;
                let size = Some(chosen.size);
                let (digest, bytes, kind) = self
                    .fetch_manifest(registry, repository, chosen.digest.as_str(), size, &mut pins)
                    .map_err(|e| e.told(&refused))?;
                if kind != Kind::Image {
                    return Err(Error::invalid(format!("manifest {digest}: an index in an index")));
                }
                manifests.push(digest);
                bytes
            }
        };
        let manifest = Manifest::parse(&manifest)?;
        let config_blob =
            self.fetch_config(registry, repository, &manifest.config).map_err(|e| e.told(&refused))?;
        let config = Config::parse(&config_blob)?;
        if !config.os.is_empty() && config.os != "linux" {
            return Err(Error::invalid(format!(
                "image operating system {:?} cannot be used on this platform",
                config.os
            )));
        }
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() || diff_ids.len() > MAX_LAYERS {
            return Err(Error::invalid(format!(
                "layers from manifest don't match image configuration: {} and {}",
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        let layers: Vec<(&Descriptor, &Digest)> = manifest.layers.iter().zip(diff_ids).collect();
        for diff_id in diff_ids {
            pins.add(diff_id);
        }
        let place = format!("{}/{repository}", reference.domain());
        self.fetch_layers(pull, registry, repository, &place, &layers, tell)?;
        let mut names = vec![reference.with_digest(target.clone())];
        if reference.digest().is_none() {
            names.insert(0, reference.clone());
        }
        let before: Vec<Option<ImageId>> = names.iter().map(|name| self.named(name)).collect();
        let record = Record { manifests, ..Record::default() };
        let image = self.publish(&config_blob, record, &names, &mut pins)?;
        tell(JsonMessage::status(format!("Digest: {target}")));
        let is_new = before.iter().any(|before| before.as_ref() != Some(&image.id));
        let offered = Platform {
            architecture: config.architecture.clone(),
            os: config.os.clone(),
            variant: config.variant.clone(),
        };
        if let Some(wanted) = &pull.platform
            && !wanted.accepts(&offered)
        {
            tell(JsonMessage::status(format!(
                "WARNING: image with reference {} was found but does not match the specified platform: \
                 wanted {wanted}, actual: {offered}",
                reference.familiar()
            )));
        }
        Ok((Pulled { id: image.id, reference: reference.clone() }, is_new))
    }

    fn named(&self, name: &Reference) -> Option<ImageId> {
        self.lock().references.get(name).cloned()
    }

    /// A manifest, from the store if it is there, kept as a blob.
    fn fetch_manifest(
        &self,
        registry: &Registry,
        repository: &str,
        version: &str,
        size: Option<u64>,
        pins: &mut Pins<'_>,
    ) -> Result<(Digest, Vec<u8>, Kind), Failed> {
        // HEAD is cheap: registries count, and limit, the manifests they hand out.
        let known = match Digest::parse(version) {
            Some(digest) => Some((digest, String::new())),
            None => match registry.head_manifest(repository, version, MANIFEST_TYPES) {
                Ok(head) => Digest::parse(&head.digest).map(|digest| (digest, head.media_type)),
                Err(error @ (RegistryError::Cancelled | RegistryError::NoCredentials { .. })) => {
                    return Err(Failed::Registry(error));
                }
                // The answer to GET says why.
                Err(_) => None,
            },
        };
        if let Some((digest, media_type)) = known {
            pins.add(&digest);
            if let Ok(bytes) = self.get_blob(&digest) {
                let kind = kind(&media_type, &bytes)?;
                return Ok((digest, bytes, kind));
            }
        }
        let manifest =
            registry.get_manifest(repository, version, MANIFEST_TYPES).map_err(Failed::Registry)?;
        if size.is_some_and(|size| size != manifest.bytes.len() as u64) {
            let count = manifest.bytes.len();
            return Err(Error::invalid(format!(
                "manifest {version}: it has {count} bytes, its index says {}",
                size.unwrap_or_default()
            ))
            .into());
        }
        let kind = kind(&manifest.media_type, &manifest.bytes)?;
        let digest = self.put_blob(&manifest.bytes, pins)?;
        Ok((digest, manifest.bytes, kind))
    }

    /// An image's config, its size and digest checked.
    fn fetch_config(
        &self,
        registry: &Registry,
        repository: &str,
        descriptor: &Descriptor,
    ) -> Result<Vec<u8>, Failed> {
        let (digest, size) = (&descriptor.digest, descriptor.size);
        if let Ok(bytes) = self.get_blob(digest) {
            return Ok(bytes);
        }
        if size > MAX_JSON_BYTES {
            return Err(Error::invalid(format!("image config {digest} has {size} bytes, too many")).into());
        }
        let blob = registry.get_blob(repository, digest.as_str(), 0).map_err(Failed::Registry)?;
        let mut bytes = Vec::new();
        blob.reader
            .take(size + 1)
            .read_to_end(&mut bytes)
            .map_err(|cause| Error::system(format!("read image config {digest}"), cause))?;
        let actual = Digest::of(&bytes);
        if bytes.len() as u64 != size || actual != *digest {
            // Docker's words.
            return Err(Error::system("image config verification failed for digest", digest).into());
        }
        Ok(bytes)
    }

    /// Brings all layers into the store; each is pinned by the caller.
    fn fetch_layers(
        &self,
        pull: &Pull,
        registry: &Registry,
        repository: &str,
        place: &str,
        layers: &[(&Descriptor, &Digest)],
        tell: Tell<'_>,
    ) -> Result<()> {
        let mut wanted: BTreeMap<Key, &Descriptor> = BTreeMap::new();
        let mut order = Vec::new();
        for (descriptor, diff_id) in layers {
            let id = descriptor.digest.short();
            if self.has_layer(diff_id) {
                tell(status(id, "Already exists"));
                self.remember(diff_id, descriptor, place);
                continue;
            }
            let key = (descriptor.digest.clone(), (*diff_id).clone());
            // An image may have the same layer twice.
            if wanted.insert(key.clone(), descriptor).is_none() {
                tell(status(id, "Pulling fs layer"));
                order.push(key);
            }
        }
        if order.is_empty() {
            return Ok(());
        }
        let (sender, receiver) = channel();
        std::thread::scope(|scope| {
            let job = Job { store: self, pull, registry, repository, place };
            let mut interests = BTreeMap::new();
            for key in &order {
                interests.insert(key.clone(), job.join(scope, key, wanted[key], &sender));
            }
            let mut open = order.len();
            while open > 0 {
                if pull.cancel.is_cancelled() {
                    return Err(Error::system("pull", "context canceled"));
                }
                let (key, news) = match receiver.recv_timeout(SLICE) {
                    Ok(news) => news,
                    Err(RecvTimeoutError::Timeout) => continue,
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Error::system("pull", "the threads at work are gone"));
                    }
                };
                let id = key.0.short();
                match news {
                    News::Progress(message) => tell(message),
                    News::End(Ok(())) => {
                        tell(status(id, "Pull complete"));
                        self.remember(&key.1, wanted[&key], place);
                        open -= 1;
                    }
                    News::End(Err(error)) => {
                        // Somebody else's attempt, with other credentials or given up, is not ours.
                        let was_joined = interests.get(&key).is_some_and(|(_, is_ours)| !is_ours);
                        if !was_joined {
                            return Err(error);
                        }
                        drop(interests.remove(&key));
                        interests.insert(key.clone(), job.join(scope, &key, wanted[&key], &sender));
                    }
                }
            }
            Ok(())
            // The interests end here, and with the last of them a transfer nobody else waits for.
        })
    }

    /// A layer's packed form is a help, no promise.
    fn remember(&self, diff_id: &Digest, descriptor: &Descriptor, place: &str) {
        let packed = Packed {
            digest: descriptor.digest.clone(),
            size: descriptor.size,
            media_type: descriptor.media_type.clone(),
            from: vec![place.to_owned()],
        };
        if let Err(error) = self.remember_packed(diff_id, &packed) {
            log::warn!("remember where layer {} came from: {error}", diff_id.short());
        }
    }
}

/// What all layers of a pull have in common.
#[derive(Clone, Copy)]
struct Job<'a> {
    store: &'a Store,
    pull: &'a Pull,
    registry: &'a Registry,
    repository: &'a str,
    place: &'a str,
}

impl<'a> Job<'a> {
    /// Joins the transfer of a layer, or begins it; also whether it is ours.
    fn join<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        key: &Key,
        descriptor: &'a Descriptor,
        sender: &Sender<(Key, News)>,
    ) -> (transfer::Interest<'a>, bool)
    where
        'a: 'scope,
    {
        let transfers = &self.store.transfers;
        let (interest, new) = transfers.join(key, sender.clone());
        let Some(transfer) = new else { return (interest, false) };
        let key = key.clone();
        let (runner, running) = (key.clone(), std::sync::Arc::clone(&transfer));
        let spawned = std::thread::Builder::new().name("layer".to_owned()).spawn_scoped(scope, move || {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                self.run(&runner, descriptor, &running)
            }));
            let panicked = |_| Err(Error::system("pull a layer", "the thread at work panicked"));
            transfers.end(&runner, &running, result.unwrap_or_else(panicked));
        });
        if let Err(cause) = spawned {
            transfers.end(&key, &transfer, Err(Error::system("start a thread for a layer", cause)));
        }
        (interest, true)
    }

    /// Fetches one layer when its turn comes.
    fn run(self, key: &Key, descriptor: &Descriptor, transfer: &Transfer) -> Result<()> {
        let id = key.0.short();
        let cancel = &transfer.cancel;
        let waiting = || transfer.tell(key, status(id, "Waiting"));
        let slot = self.store.transfers.slot(self.pull.downloads, cancel, waiting);
        let Some(_slot) = slot else { return Err(Error::system("pull", "context canceled")) };
        // Somebody may have loaded or built it meanwhile.
        if self.store.has_layer(&key.1) {
            return Ok(());
        }
        let registry = self.registry.with_cancel(cancel.clone());
        let mut attempt = 1;
        loop {
            match self.fetch(&registry, key, descriptor, transfer) {
                Err(Fetch::Altered) if attempt < self.pull.attempts && !cancel.is_cancelled() => {
                    log::warn!("layer {} of {} came damaged: once more", key.0, self.place);
                    attempt += 1;
                }
                Err(Fetch::Altered) => {
                    return Err(Error {
                        class: crate::http::api::Class::System,
                        message: format!("filesystem layer verification failed for digest {}", key.0),
                    });
                }
                Err(Fetch::Failed(error)) => return Err(error),
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Streams one layer into the store.
    fn fetch(
        self,
        registry: &Registry,
        key: &Key,
        descriptor: &Descriptor,
        transfer: &Transfer,
    ) -> Result<(), Fetch> {
        let (id, total) = (key.0.short(), descriptor.size.cast_signed());
        let progress = |status: &str, current: u64| {
            let detail =
                ProgressDetail { current: current.cast_signed(), total, ..ProgressDetail::default() };
            transfer.tell(key, JsonMessage::progress(id, status, detail));
        };
        let mut last: Option<Instant> = None;
        let mut tell = |step| match step {
            Step::At(at) if at == descriptor.size => {
                progress("Downloading", at);
                transfer.tell(key, status(id, "Verifying Checksum"));
                transfer.tell(key, status(id, "Download complete"));
                progress("Extracting", at);
            }
            Step::At(at) => {
                if last.is_none_or(|last| last.elapsed() >= INTERVAL) {
                    last = Some(Instant::now());
                    progress("Downloading", at);
                }
            }
            Step::RetryIn(seconds) => {
                let s = if seconds == 1 { "" } else { "s" };
                transfer.tell(key, status(id, &format!("Retrying in {seconds} second{s}")));
            }
        };
        let blob = (&key.0, descriptor.size);
        let mut download =
            Download::new(registry, self.repository, blob, self.pull.attempts, &transfer.cancel, &mut tell);
        let mut hashing = Hashing::new(&mut download);
        let mut pins = Pins::new(self.store);
        let unpacked =
            decompress(&mut hashing).and_then(|layer| self.store.add_layer(layer, Some(&key.1), &mut pins));
        // A compressed stream may have something behind its end, which belongs to the digest.
        let rest = match &unpacked {
            Ok(_) => u64::MAX,
            Err(_) => MAX_DRAIN,
        };
        let drained = io::copy(&mut (&mut hashing).take(rest), &mut io::sink());
        let (digest, bytes) = hashing.finish();
        if let Some(failure) = download.take_failure() {
            let class = crate::http::api::Class::System;
            return Err(Fetch::Failed(Error { class, message: failure.to_string() }));
        }
        let is_whole = drained.is_ok() && bytes == descriptor.size;
        match unpacked {
            _ if is_whole && digest != key.0 => Err(Fetch::Altered),
            Ok(_) if is_whole => Ok(()),
            Ok(_) => Err(Fetch::Failed(Error::system(format!("read layer {}", key.0), "it ends early"))),
            Err(error) => Err(Fetch::Failed(error.during(format!("failed to register layer {id}")))),
        }
    }
}

/// Why a layer is not there.
enum Fetch {
    /// What came is not what was asked for.
    Altered,
    Failed(Error),
}

/// A registry's refusal, still to be put in words, or a failure of ours.
enum Failed {
    Registry(RegistryError),
    Other(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        Failed::Other(error)
    }
}

impl Failed {
    fn told(self, refused: &dyn Fn(&RegistryError) -> Error) -> Error {
        match self {
            Failed::Registry(error) => refused(&error),
            Failed::Other(error) => error,
        }
    }
}

/// What a manifest is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Image,
    Index,
}

/// Tells by the type the registry says and the manifest's own words, which must agree.
fn kind(said: &str, bytes: &[u8]) -> Result<Kind> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Head {
        #[serde(default)]
        schema_version: u32,
        #[serde(default)]
        media_type: String,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let schema1 = || Error::not_implemented(format!("{SCHEMA1} the image to upgrade it to the OCI format"));
    if said.contains("docker.distribution.manifest.v1+") {
        return Err(schema1());
    }
    let head: Head = crate::http::api::decode(bytes)
        .map_err(|cause| Error::invalid(format!("read image manifest: {cause}")))?;
    if head.schema_version == 1 {
        return Err(schema1());
    }
    let of_type = |kind: &str| match kind {
        OCI_MANIFEST | DOCKER_MANIFEST => Some(Kind::Image),
        OCI_INDEX | DOCKER_LIST => Some(Kind::Index),
        _ => None,
    };
    if !head.media_type.is_empty() && of_type(&head.media_type).is_none() {
        return Err(Error::invalid(format!("unsupported media type {}", head.media_type)));
    }
    let shape = match (head.manifests.is_some(), head.layers.is_some()) {
        (true, false) => Kind::Index,
        (false, true) => Kind::Image,
        // One that is both means two things to two readers.
        _ => return Err(Error::invalid("unsupported manifest: neither an image's nor an index")),
    };
    for told in [said, &head.media_type] {
        if of_type(told).is_some_and(|told| told != shape) {
            return Err(Error::invalid(format!("manifest says it is {told:?}, and is not")));
        }
    }
    Ok(shape)
}

/// A layer's status without figures, as Docker sends it.
fn status(id: &str, status: &str) -> JsonMessage {
    JsonMessage::progress(id, status, ProgressDetail::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_what_it_says_or_refused() {
        let image = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(kind("", image).unwrap(), Kind::Image);
        assert_eq!(kind(DOCKER_LIST, index).unwrap(), Kind::Index);
        for (said, bytes, wanted) in [
            (OCI_INDEX, &image[..], "and is not"),
            (OCI_MANIFEST, index, "and is not"),
            ("", br#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1 support has been removed"),
            ("application/vnd.docker.distribution.manifest.v1+prettyjws", b"{}", "schema 1"),
            ("", br#"{"schemaVersion":2,"layers":[],"manifests":[]}"#, "neither"),
            ("", br#"{"mediaType":"x/y","layers":[]}"#, "unsupported media type x/y"),
            ("", b"<html>", "read image manifest"),
        ] {
            let failure = kind(said, bytes).unwrap_err().to_string();
            assert!(failure.contains(wanted), "{failure}");
        }
    }
}
