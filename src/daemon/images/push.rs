//! `docker push`: layers, config and manifest of an image to a registry, the manifest last.
//!
//! ```text
//!  each layer, several at once          ask for a packed form that is remembered        Layer already exists
//!                                        └ mount it from another repository there        Mounted from …
//!                                           └ rebuild the tar, gzip, send, in one pass   Pushed
//!  config                               unless it is there
//!  manifest                             the one the image came with, if every layer is there in its very form,
//!                                       so that it keeps its digest; else a new one
//! ```
//!
//! Nothing is held in memory or written to disk on the way: the layer is put together by one thread and sent by
//! another, a pipe between them. A layer of the store has one compressed form for ever, so that an image pushed to
//! two registries has one digest in both.
//!
//! The file stays whole: its steps share what is known of a layer, and each is short.
//!
//! Not here: the wire and who may (`http::registry`), which registries (`daemon::registry`).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::codec::{Digest, Hashing};
use super::config::{
    DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, Descriptor, Manifest, OCI_CONFIG, OCI_LAYER_GZIP,
    OCI_MANIFEST, Platform,
};
use super::content::Pins;
use super::packed::Packed;
use super::{Image, ImageId, Record, Reference, Store};
use crate::daemon::error::{Error, Result};
use crate::http::api::Class;
use crate::http::api::image::{JsonMessage, ProgressDetail};
use crate::http::registry::{Mount, Registry, RegistryError, Upload};

/// So many packed forms of a layer are asked for, and so many mounts, before it is sent.
const MAX_ASKED: usize = 4;
/// Source: Docker's `maxUploadAttempts`, and its delays: five seconds more each time.
const MAX_ATTEMPTS: u32 = 5;
const DELAY_SECONDS: u32 = 5;
/// The pipe's reader is asked for pieces of this size by the client.
const PIPE_BUFFER: usize = 64 << 10;
/// Source: Docker tells of so many bytes at least.
const TELL_BYTES: i64 = 512 << 10;

/// Where to push, and how.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    pub registry: &'a Registry,
    /// What to push: one tag, or every tag of the repository if it has none.
    pub name: &'a Reference,
    /// An image for something else is refused.
    pub platform: Option<&'a Platform>,
    /// So many layers at once, at least one.
    pub uploads: usize,
}

impl Destination<'_> {
    /// The repository, as [`Packed::from`] has it.
    fn place(&self) -> String {
        format!("{}/{}", self.name.domain(), self.name.path())
    }
}

/// Why a layer did not get there.
enum Failure {
    Registry(RegistryError),
    Ours(Error),
}

impl From<RegistryError> for Failure {
    fn from(error: RegistryError) -> Failure {
        Failure::Registry(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Ours(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure {
            Failure::Ours(error) => error,
            // Compat: clients look for these words alone.
            Failure::Registry(RegistryError::NoCredentials { .. }) => {
                Error::unauthorized("no basic auth credentials")
            }
            Failure::Registry(error) => match error.status() {
                401 => Error::unauthorized(error.to_string()),
                403 => Error::forbidden(error.to_string()),
                404 => Error::not_found(error.to_string()),
                _ => Error { class: Class::System, message: error.to_string() },
            },
        }
    }
}

/// One layer to push.
struct Job<'a> {
    diff_id: &'a Digest,
    /// Bytes of its tar.
    tar_size: u64,
    /// Packed forms that would do, the best first.
    forms: Vec<Packed>,
}

/// A manifest the image came with.
struct Original {
    bytes: Vec<u8>,
    manifest: Manifest,
}

type Tell<'a> = &'a (dyn Fn(JsonMessage) + Sync);

impl Store {
    /// Pushes what `to` names; `on_pushed` is told each tag when it is there. Blocks as long as it takes.
    ///
    /// # Errors
    /// In Docker's words: no such tag here, or what the registry says. Tags before the one that failed are there.
    pub fn push(
        &self,
        to: Destination<'_>,
        tell: &mut dyn FnMut(JsonMessage),
        on_pushed: &mut dyn FnMut(&Reference),
    ) -> Result<()> {
        tell(JsonMessage::status(format!("The push refers to repository [{}]", to.place())));
        for (tag, id) in self.tags_to_push(to.name)? {
            let image = self.get(&id)?;
            if let Some(wanted) = to.platform {
                check_platform(wanted, &tag, &image)?;
            }
            self.push_image(to, &tag, &image, tell)?;
            on_pushed(&tag);
        }
        Ok(())
    }

    fn tags_to_push(&self, name: &Reference) -> Result<Vec<(Reference, ImageId)>> {
        let tables = self.lock();
        let kin: Vec<_> = tables.references.iter().filter(|(known, _)| known.same_repository(name)).collect();
        let familiar = name.familiar_name();
        if kin.is_empty() {
            let message = format!("An image does not exist locally with the tag: {familiar}");
            return Err(Error::not_found(message));
        }
        let is_wanted = |known: &Reference| match name.tag() {
            Some(_) => known == name,
            None => known.tag().is_some(),
        };
        let tags: Vec<_> = kin
            .into_iter()
            .filter(|(known, _)| is_wanted(known))
            .map(|(known, id)| (known.clone(), id.clone()))
            .collect();
        match (tags.is_empty(), name.tag()) {
            (false, _) => Ok(tags),
            (true, Some(_)) => Err(Error::not_found(format!("tag does not exist: {}", name.familiar()))),
            (true, None) => Err(Error::not_found(format!("no tags to push for {familiar}"))),
        }
    }

    fn push_image(
        &self,
        to: Destination<'_>,
        tag: &Reference,
        image: &Image,
        tell: &mut dyn FnMut(JsonMessage),
    ) -> Result<()> {
        let mut pins = Pins::new(self);
        pins.add(&image.id);
        let diff_ids = &image.config.rootfs.diff_ids;
        diff_ids.iter().for_each(|diff_id| pins.add(diff_id));
        let original = self.original(image);
        let mut jobs = Vec::new();
        let mut seen = BTreeSet::new();
        // Compat: the topmost first.
        for (at, diff_id) in diff_ids.iter().enumerate().rev() {
            if !seen.insert(diff_id) {
                continue;
            }
            let info = self.layer(diff_id)?;
            let best = original.as_ref().map(|original| &original.manifest.layers[at].digest);
            // The newest first: it is the likeliest to be there still.
            let mut forms: Vec<_> = info.packed.into_iter().rev().collect();
            forms.retain(|form| is_gzip(form) || best == Some(&form.digest));
            forms.sort_by_key(|form| best != Some(&form.digest));
            jobs.push(Job { diff_id, tar_size: info.tar_size, forms });
        }
        let there = self.push_layers(to, &jobs, tell)?;
        let layers: Vec<&Packed> = diff_ids.iter().filter_map(|diff_id| there.get(diff_id)).collect();
        let config = self.get_blob(&image.id)?;
        push_small(to, &image.id, &config)?;
        let kept = original.filter(|original| {
            let wanted = original.manifest.layers.iter().map(|layer| &layer.digest);
            wanted.eq(layers.iter().map(|packed| &packed.digest))
        });
        let (media_type, bytes) = match kept {
            Some(Original { bytes, manifest }) => {
                let kind = if manifest.media_type.is_empty() { OCI_MANIFEST } else { &manifest.media_type };
                (kind.to_owned(), bytes)
            }
            None => new_manifest(&image.id, config.len() as u64, &layers)?,
        };
        let version = tag.tag().unwrap_or_default();
        to.registry.put_manifest(to.name.path(), version, &media_type, &bytes).map_err(Failure::from)?;
        let digest = self.put_blob(&bytes, &mut pins)?;
        let record = Record { manifests: vec![digest.clone()], ..Record::default() };
        self.publish(&config, record, &[tag.with_digest(digest.clone())], &mut pins)?;
        tell(JsonMessage::status(format!("{version}: digest: {digest} size: {}", bytes.len())));
        let aux = serde_json::json!({ "Tag": version, "Digest": digest, "Size": bytes.len() });
        tell(JsonMessage {
            aux: Some(aux),
            progress_detail: Some(ProgressDetail::default()),
            ..JsonMessage::default()
        });
        Ok(())
    }

    /// The newest manifest of the image whose layers are all known in the form it names.
    fn original(&self, image: &Image) -> Option<Original> {
        let manifests = {
            let tables = self.lock();
            tables.images.get(&image.id).map(|known| known.record.manifests.clone())?
        };
        manifests.iter().rev().find_map(|digest| {
            let bytes = self.get_blob(digest).ok()?;
            let manifest = Manifest::parse(&bytes).ok()?;
            let diff_ids = &image.config.rootfs.diff_ids;
            let is_known = |(layer, diff_id): (&Descriptor, &Digest)| {
                self.layer(diff_id)
                    .is_ok_and(|info| info.packed.iter().any(|form| form.digest == layer.digest))
            };
            let fits = manifest.config.digest == image.id
                && manifest.layers.len() == diff_ids.len()
                && manifest.layers.iter().zip(diff_ids).all(is_known);
            fits.then_some(Original { bytes, manifest })
        })
    }

    /// Brings every layer there; the answer is in which form each of them is.
    fn push_layers(
        &self,
        to: Destination<'_>,
        jobs: &[Job<'_>],
        tell: &mut dyn FnMut(JsonMessage),
    ) -> Result<BTreeMap<Digest, Packed>> {
        let threads = to.uploads.clamp(1, jobs.len().max(1));
        for job in jobs {
            tell(progress(job.diff_id, "Preparing"));
        }
        // What is wrong with all of them is told once, and at once.
        to.registry.ping().map_err(Failure::from)?;
        for job in jobs.iter().skip(threads) {
            tell(progress(job.diff_id, "Waiting"));
        }
        let queue = Mutex::new(jobs.iter().collect::<VecDeque<_>>());
        let results = Mutex::new(Vec::new());
        let has_failed = AtomicBool::new(false);
        let (sender, messages) = channel();
        let work = |sender: Sender<JsonMessage>| {
            // Nobody hears of progress only when nobody waits for the end either.
            let tell = |message: JsonMessage| drop(sender.send(message));
            while !has_failed.load(Ordering::Relaxed) {
                let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some(job) = next else { break };
                let result = self.push_layer(to, job, &has_failed, &tell);
                has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push(result.map(|packed| (job.diff_id.clone(), packed)));
            }
        };
        thread::scope(|scope| {
            let started: Vec<_> = (0..threads)
                .map(|_| {
                    let (sender, work) = (sender.clone(), &work);
                    let thread = thread::Builder::new().name("push".to_owned());
                    thread.spawn_scoped(scope, move || work(sender))
                })
                .collect();
            drop(sender);
            messages.iter().for_each(&mut *tell);
            // Those that did start do all of it.
            match started.iter().any(std::result::Result::is_ok) {
                true => Ok(()),
                false => Err(Error::system("start a thread to push", "the system has none to give")),
            }
        })?;
        results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
    }

    /// One layer, tried again while that may help and no other has failed.
    fn push_layer(
        &self,
        to: Destination<'_>,
        job: &Job<'_>,
        has_failed: &AtomicBool,
        tell: Tell<'_>,
    ) -> Result<Packed> {
        let mut attempts = 1;
        loop {
            match self.try_layer(to, job, tell) {
                Err(Failure::Registry(error))
                    if error.is_temporary()
                        && attempts < MAX_ATTEMPTS
                        && !has_failed.load(Ordering::Relaxed) =>
                {
                    log::warn!("push layer {}: {error}", job.diff_id);
                    for left in (1..=attempts * DELAY_SECONDS).rev() {
                        let plural = if left == 1 { "" } else { "s" };
                        tell(progress(job.diff_id, format!("Retrying in {left} second{plural}")));
                        thread::sleep(Duration::from_secs(1));
                    }
                    attempts += 1;
                }
                Err(failure) => return Err(failure.into()),
                Ok(packed) => {
                    // What is not remembered is found out again.
                    if let Err(error) = self.remember_packed(job.diff_id, &packed) {
                        log::warn!("push layer {}: {error}", job.diff_id);
                    }
                    return Ok(packed);
                }
            }
        }
    }

    fn try_layer(&self, to: Destination<'_>, job: &Job<'_>, tell: Tell<'_>) -> Result<Packed, Failure> {
        let place = to.place();
        let found = |form: &Packed| Packed { from: vec![place.clone()], ..form.clone() };
        for form in job.forms.iter().take(MAX_ASKED) {
            match to.registry.head_blob(to.name.path(), form.digest.as_str()) {
                Ok(Some(_)) => {
                    tell(progress(job.diff_id, "Layer already exists"));
                    return Ok(found(form));
                }
                // Compat: whoever may not look may still be let in.
                Ok(None) | Err(RegistryError::Refused { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let mut upload = None;
        let domain = format!("{}/", to.name.domain());
        let domain = domain.as_str();
        let places = job.forms.iter().flat_map(|form| {
            let here = form.from.iter().filter_map(move |place| place.strip_prefix(domain));
            here.map(move |repository| (form, repository))
        });
        for (form, from) in places.filter(|(_, from)| *from != to.name.path()).take(MAX_ASKED) {
            let before = match to.registry.mount(to.name.path(), form.digest.as_str(), from) {
                Ok(Mount::Mounted) => {
                    if let Some(upload) = upload {
                        to.registry.cancel_upload(upload);
                    }
                    tell(progress(job.diff_id, format!("Mounted from {from}")));
                    return Ok(found(form));
                }
                Ok(Mount::Upload(begun)) => upload.replace(begun),
                // Compat: what cannot be mounted is sent.
                Err(RegistryError::Refused { .. }) => None,
                Err(error) => return Err(error.into()),
            };
            if let Some(before) = before {
                to.registry.cancel_upload(before);
            }
        }
        let upload = match upload {
            Some(upload) => upload,
            None => to.registry.start_upload(to.name.path())?,
        };
        let (digest, size) = self.upload_layer(to.registry, upload, job, tell)?;
        tell(progress(job.diff_id, "Pushed"));
        Ok(Packed { digest, size, media_type: OCI_LAYER_GZIP.to_owned(), from: vec![place] })
    }

    /// Compresses and sends a layer in one pass; digest and size of what was sent.
    fn upload_layer(
        &self,
        registry: &Registry,
        mut upload: Upload,
        job: &Job<'_>,
        tell: Tell<'_>,
    ) -> Result<(Digest, u64), Failure> {
        let failed = |cause: io::Error| Error::system(format!("push layer {}", job.diff_id), cause);
        let (reader, pipe) = io::pipe().map_err(failed)?;
        let total = job.tar_size.cast_signed();
        let (packed, sent, digest) = thread::scope(|scope| {
            let packing = scope.spawn(move || -> Result<()> {
                let pipe = io::BufWriter::with_capacity(PIPE_BUFFER, pipe);
                let encoder = GzEncoder::new(pipe, Compression::default());
                let say = |current| {
                    let detail = ProgressDetail { current, total, ..ProgressDetail::default() };
                    tell(JsonMessage::progress(job.diff_id.short(), "Pushing", detail));
                };
                let mut counted = Telling { inner: encoder, bytes: 0, told: 0, total, tell: say };
                self.write_layer(job.diff_id, &mut counted)?;
                counted.inner.finish().and_then(|mut pipe| pipe.flush()).map_err(failed)
            });
            let mut reader = Hashing::new(reader);
            let sent = registry.patch(&mut upload, &mut reader as &mut (dyn Read + Send), None);
            // Closes the pipe: a thread that is still writing ends.
            let digest = reader.finish();
            (packing.join(), sent, digest)
        });
        // A registry that broke off breaks the pipe, not the other way round.
        sent?;
        let packed = packed.unwrap_or_else(|_| {
            Err(Error::system(format!("push layer {}", job.diff_id), "its thread panicked"))
        });
        if let Err(error) = packed {
            // It holds half a layer that looks whole.
            registry.cancel_upload(upload);
            return Err(error.into());
        }
        let (digest, size) = digest;
        registry.finish(upload, digest.as_str())?;
        Ok((digest, size))
    }
}

/// Passes bytes on and tells how many have passed, now and then and at the end.
struct Telling<W, F> {
    inner: W,
    bytes: i64,
    told: i64,
    total: i64,
    tell: F,
}

impl<W: Write, F: FnMut(i64)> Write for Telling<W, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.bytes += count as i64;
        if self.bytes - self.told >= TELL_BYTES || self.bytes == self.total {
            self.told = self.bytes;
            (self.tell)(self.bytes);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The one form that every client reads, and the only one that Docker's manifests have.
fn is_gzip(packed: &Packed) -> bool {
    packed.media_type.ends_with("gzip")
}

fn progress(diff_id: &Digest, status: impl Into<String>) -> JsonMessage {
    JsonMessage::progress(diff_id.short(), status, ProgressDetail::default())
}

fn check_platform(wanted: &Platform, tag: &Reference, image: &Image) -> Result<()> {
    let config = &image.config;
    let offered = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
    };
    if wanted.accepts(&offered) {
        return Ok(());
    }
    // Compat: Docker's words.
    Err(Error::not_found(format!(
        "image with reference {} was found but does not provide the specified platform ({wanted})",
        tag.familiar()
    )))
}

/// A blob that is in memory, unless it is there.
fn push_small(to: Destination<'_>, digest: &Digest, bytes: &[u8]) -> Result<(), Failure> {
    match to.registry.head_blob(to.name.path(), digest.as_str()) {
        Ok(Some(_)) => return Ok(()),
        Ok(None) | Err(RegistryError::Refused { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let mut upload = to.registry.start_upload(to.name.path())?;
    let mut content = bytes;
    to.registry.patch(&mut upload, &mut content, Some(bytes.len() as u64))?;
    Ok(to.registry.finish(upload, digest.as_str())?)
}

/// Type and bytes of a manifest for layers in these forms: Docker's own, unless a form is foreign to it.
fn new_manifest(id: &ImageId, config_size: u64, layers: &[&Packed]) -> Result<(String, Vec<u8>)> {
    let is_docker = layers.iter().all(|layer| is_gzip(layer));
    let (media_type, config) =
        if is_docker { (DOCKER_MANIFEST, DOCKER_CONFIG) } else { (OCI_MANIFEST, OCI_CONFIG) };
    let layer = |packed: &&Packed| {
        let kind = match is_gzip(packed) {
            true if is_docker => DOCKER_LAYER_GZIP,
            true => OCI_LAYER_GZIP,
            false => packed.media_type.as_str(),
        };
        Descriptor::new(kind, packed.digest.clone(), packed.size)
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type.to_owned(),
        config: Descriptor::new(config, id.clone(), config_size),
        layers: layers.iter().map(layer).collect(),
        annotations: BTreeMap::new(),
    };
    let bytes = serde_json::to_vec(&manifest).map_err(|cause| Error::system("write manifest", cause))?;
    Ok((media_type.to_owned(), bytes))
}
