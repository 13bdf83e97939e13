//! Checkpoints in registries: an image of one layer, which is the archive that `export` writes, and annotations by
//! which others know it.
//!
//! | who | how it is known |
//! |---|---|
//! | podman | `io.podman.annotations.checkpoint.…` |
//! | CRI-O | `io.kubernetes.cri-o.annotations.checkpoint.…` |
//! | checkpointctl and newer tools | `org.criu.checkpoint.…` |
//!
//! dewar writes the first and the last, and knows all three. Nothing is kept on disk on the way, in either direction.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::thread;

use super::archive::Source;
use super::find_digested;
use super::import::{self, Import};
use super::manifest::Manifest as Checkpoint;
use crate::daemon::containers::container::Container;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::{Compression, Hashing};
use crate::daemon::images::config::{
    Config, Descriptor, History, Manifest, OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Platform, RootFs,
};
use crate::daemon::images::{Digest, Download, DownloadStep, Reference};
use crate::daemon::names::CheckpointId;
use crate::daemon::{info, registry};
use crate::http::api::Class;
use crate::http::api::checkpoint::CheckpointImported;
use crate::http::api::image::{JsonMessage, ProgressDetail};
use crate::http::registry::{Registry, RegistryError, Upload};

const PODMAN: &str = "io.podman.annotations.checkpoint.";
const NEUTRAL: &str = "org.criu.checkpoint.";
/// Annotations of a manifest that say that it is a checkpoint's, whoever wrote it.
const NAMES: [&str; 3] = [
    "org.criu.checkpoint.container.name",
    "io.podman.annotations.checkpoint.name",
    "io.kubernetes.cri-o.annotations.checkpoint.name",
];
/// The pipe between who packs and who sends.
const PIPE_BYTES: usize = 64 << 10;
/// How often progress is told, in bytes.
const TELL_BYTES: u64 = 1 << 20;

type Tell<'a> = &'a mut dyn FnMut(JsonMessage);

fn failure(error: RegistryError) -> Error {
    Error { class: Class::System, message: error.to_string() }
}

fn progress(digest: &str, status: &str, current: u64, total: u64) -> JsonMessage {
    let detail = ProgressDetail {
        current: current.cast_signed(),
        total: total.cast_signed(),
        ..ProgressDetail::default()
    };
    JsonMessage::progress(digest, status, detail)
}

/// Reads the name to push a checkpoint under; without a tag it is `latest`.
///
/// # Errors
/// InvalidParameter: it is no name, or a digest, which nobody knows before the push.
pub fn name_to_push(text: &str) -> Result<Reference> {
    let name = Reference::parse(text)?;
    if name.digest().is_some() {
        return Err(Error::invalid("cannot push a digest reference"));
    }
    Ok(name.with_default_tag())
}

/// Sends a container's checkpoint to a registry under `name`, which has a tag. Blocks as long as that takes.
///
/// # Errors
/// NotFound for an unknown checkpoint; System with what the registry says. The name leads to what it did before then.
pub fn push(
    container: &Container,
    (id, custom): (&str, &str),
    (registry, name): (&Registry, &Reference),
    tell: Tell<'_>,
) -> Result<()> {
    let id = CheckpointId::parse(id)?;
    let (dir, mut manifest) = find_digested(container, &id, custom)?;
    if manifest.record.is_none() {
        manifest.record = Some(Box::new(container.record()));
    }
    let annotations = annotations(&manifest);
    let (created, bytes) = (manifest.created.clone(), manifest.bytes());
    let source = Source::open(&dir, manifest, &container.dir)?;
    let place = format!("{}/{}", registry.host(), name.path());
    tell(JsonMessage::status(format!("The push refers to repository [{place}]")));
    let upload = registry.start_upload(name.path()).map_err(failure)?;
    tell(progress(id.as_str(), "Pushing", 0, bytes));
    let sent = send(registry, upload, |out| source.write(&dir, out))?;
    tell(progress(id.as_str(), "Pushed", bytes, bytes));
    let platform = Platform::host();
    let config = Config {
        architecture: platform.architecture,
        variant: platform.variant,
        os: platform.os,
        created: created.clone(),
        rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![sent.diff_id] },
        history: vec![History {
            created,
            created_by: "dewar checkpoint push".to_owned(),
            ..History::default()
        }],
        ..Config::default()
    };
    let written = |cause| Error::system("write manifest", cause);
    let config = serde_json::to_vec(&config).map_err(written)?;
    let config_digest = Digest::of(&config);
    let mut upload = registry.start_upload(name.path()).map_err(failure)?;
    registry.patch(&mut upload, &mut config.as_slice(), Some(config.len() as u64)).map_err(failure)?;
    registry.finish(upload, config_digest.as_str()).map_err(failure)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Descriptor::new(OCI_CONFIG, config_digest, config.len() as u64),
        layers: vec![Descriptor::new(OCI_LAYER_GZIP, sent.digest, sent.bytes)],
        annotations,
    };
    let bytes = serde_json::to_vec(&manifest).map_err(written)?;
    let tag = name.tag().unwrap_or_default();
    let digest = registry.put_manifest(name.path(), tag, OCI_MANIFEST, &bytes).map_err(failure)?;
    tell(JsonMessage::status(format!("{tag}: digest: {digest} size: {}", bytes.len())));
    Ok(())
}

/// A layer that is there.
struct Sent {
    digest: Digest,
    bytes: u64,
    /// Of what was compressed.
    diff_id: Digest,
}

/// Compresses what `write` writes, and sends it, in one pass.
fn send(
    registry: &Registry,
    mut upload: Upload,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send,
) -> Result<Sent> {
    let failed = |cause: io::Error| Error::system("send the archive", cause);
    let (reader, pipe) = io::pipe().map_err(failed)?;
    let (packed, sent, (digest, bytes)) = thread::scope(|scope| {
        let packing = scope.spawn(move || -> io::Result<Digest> {
            let mut pipe = io::BufWriter::with_capacity(PIPE_BYTES, pipe);
            let mut diff_id = None;
            // What every client reads.
            Compression::Gzip.write(&mut pipe, |out| {
                let mut hashing = Hashing::new(out);
                write(&mut hashing)?;
                diff_id = Some(hashing.finish().0);
                Ok(())
            })?;
            pipe.flush()?;
            diff_id.ok_or_else(|| io::Error::other("nothing was written"))
        });
        let mut reader = Hashing::new(reader);
        let sent = registry.patch(&mut upload, &mut reader as &mut (dyn Read + Send), None);
        // Closes the pipe: a thread that is still writing ends.
        let digest = reader.finish();
        (packing.join(), sent, digest)
    });
    // A registry that broke off breaks the pipe, not the other way round.
    sent.map_err(failure)?;
    let packed = packed.unwrap_or_else(|_| Err(io::Error::other("its thread panicked")));
    let diff_id = match packed {
        Ok(diff_id) => diff_id,
        Err(cause) => {
            // It holds half an archive that looks whole.
            registry.cancel_upload(upload);
            return Err(failed(cause));
        }
    };
    registry.finish(upload, digest.as_str()).map_err(failure)?;
    Ok(Sent { digest, bytes, diff_id })
}

/// What others know a checkpoint by.
fn annotations(manifest: &Checkpoint) -> BTreeMap<String, String> {
    let image_id = manifest.image_id.strip_prefix("sha256:").unwrap_or(&manifest.image_id);
    let architecture = Platform::host().architecture;
    let cgroup = format!("v{}", manifest.cgroup_version);
    let (distribution, release) = (info::os_release("ID"), info::os_release("VERSION_ID"));
    let both = [
        ("rawImageName", manifest.image.as_str()),
        ("rootfsImageID", image_id),
        ("rootfsImageName", &manifest.image),
        ("runtime.name", "dewar"),
        ("runtime.version", &manifest.engine),
        ("host.arch", &architecture),
        ("host.kernel", &manifest.kernel),
        ("distribution.name", &distribution),
        ("distribution.version", &release),
    ];
    let criu_number = criu_number(&manifest.criu);
    let podmans = [
        ("name", manifest.container_name.as_str()),
        ("criu.version", &criu_number),
        ("cgroups.version", &cgroup),
    ];
    let neutral = [
        ("engine.name", "dewar"),
        ("engine.version", &manifest.engine),
        ("container.name", &manifest.container_name),
        ("rootfsImageUserRequested", &manifest.image),
        ("rootfsImageSha", &manifest.image_id),
        ("criu.version", &manifest.criu),
        ("cgroup.version", &cgroup),
    ];
    let with = |prefix: &'static str, list: &[(&str, &str)]| -> Vec<(String, String)> {
        let known = list.iter().chain(&both).filter(|(_, value)| !value.is_empty());
        known.map(|(name, value)| (format!("{prefix}{name}"), (*value).to_owned())).collect()
    };
    let mut all: BTreeMap<String, String> = with(PODMAN, &podmans).into_iter().collect();
    all.extend(with(NEUTRAL, &neutral));
    all.insert("org.opencontainers.image.created".to_owned(), manifest.created.clone());
    all
}

/// A version as CRIU's own number, in which podman says it: `4.2.1` is `40201`.
fn criu_number(version: &str) -> String {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let [major, minor, sub] = [(); 3].map(|()| parts.next().unwrap_or(0).min(99));
    if major == 0 { String::new() } else { (major * 10000 + minor * 100 + sub).to_string() }
}

/// Makes a container of a checkpoint that a registry has under `name`. Blocks as long as that takes.
///
/// # Errors
/// NotFound for what the registry does not have; InvalidParameter for what is no checkpoint; as [`import::import`].
pub fn pull(
    engine: &Arc<Engine>,
    name: &Reference,
    client: &registry::Client,
    request: &Import,
    tell: Tell<'_>,
) -> Result<()> {
    let settings = engine.config();
    let mut failure = Error::invalid("no registry to ask");
    let version = name.digest().map_or_else(|| name.tag().unwrap_or_default(), Digest::as_str);
    for registry in registry::registries(&settings, name.domain(), client)? {
        let manifest = match registry.get_manifest(name.path(), version, &[OCI_MANIFEST]) {
            Ok(manifest) => manifest,
            Err(error) => {
                failure = registry::refusal(&error, name);
                continue;
            }
        };
        if name.digest().is_some_and(|digest| Digest::of(&manifest.bytes) != *digest) {
            return Err(Error::system("manifest verification failed for digest", version));
        }
        let manifest = Manifest::parse(&manifest.bytes)?;
        let [layer] = manifest.layers.as_slice() else {
            return Err(no_checkpoint(name));
        };
        if !NAMES.iter().any(|known| manifest.annotations.contains_key(*known)) {
            return Err(no_checkpoint(name));
        }
        tell(JsonMessage::status(format!("{version}: Pulling from {}", name.path())));
        let made = fetch(engine, &registry, name, layer, client, request, tell)?;
        for warning in &made.warnings {
            tell(JsonMessage::status(format!("warning: {}: {warning}", made.name)));
        }
        tell(JsonMessage::status(format!("{} {}", made.name, made.checkpoint)));
        tell(JsonMessage { aux: serde_json::to_value(&made).ok(), ..JsonMessage::default() });
        return Ok(());
    }
    Err(failure)
}

fn no_checkpoint(name: &Reference) -> Error {
    Error::invalid(format!("{} is no checkpoint of a container", name.familiar()))
}

/// Streams the layer into an import.
fn fetch(
    engine: &Arc<Engine>,
    registry: &Registry,
    name: &Reference,
    layer: &Descriptor,
    client: &registry::Client,
    request: &Import,
    tell: Tell<'_>,
) -> Result<CheckpointImported> {
    let mut told = 0;
    let mut step = |step| match step {
        DownloadStep::At(at) if at - told >= TELL_BYTES || at == layer.size => {
            told = at;
            tell(progress(layer.digest.short(), "Downloading", at, layer.size));
        }
        DownloadStep::At(_) => {}
        DownloadStep::RetryIn(seconds) => {
            tell(progress(layer.digest.short(), &format!("Retrying in {seconds} seconds"), 0, 0));
        }
    };
    let blob = (&layer.digest, layer.size);
    let attempts = engine.config().max_download_attempts;
    let mut download = Download::new(registry, name.path(), blob, attempts, &client.cancel, &mut step);
    let mut verified = Verified { inner: Some(Hashing::new(&mut download)), wanted: layer.digest.clone() };
    let made = import::import(engine, &mut verified, request);
    drop(verified);
    match download.take_failure() {
        Some(error) => Err(failure(error)),
        None => made,
    }
}

/// Fails at its end if what came is not what was promised.
struct Verified<R> {
    inner: Option<Hashing<R>>,
    wanted: Digest,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(inner) = &mut self.inner else { return Ok(0) };
        let count = inner.read(into)?;
        if count > 0 || into.is_empty() {
            return Ok(count);
        }
        match self.inner.take().map(Hashing::finish) {
            Some((digest, _)) if digest == self.wanted => Ok(0),
            _ => {
                let text = format!("layer verification failed for digest {}", self.wanted);
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crius_versions_are_numbers_to_podman() {
        assert_eq!(criu_number("4.2.1"), "40201");
        assert_eq!(criu_number("3.17"), "31700");
        assert_eq!(criu_number(""), "");
    }

    #[test]
    fn what_was_not_promised_is_noticed_at_its_end() {
        let read = |wanted: Digest| {
            let mut out = Vec::new();
            Verified { inner: Some(Hashing::new(&b"abc"[..])), wanted }.read_to_end(&mut out).map(|_| out)
        };
        assert_eq!(read(Digest::of(b"abc")).unwrap(), b"abc");
        assert!(read(Digest::of(b"abd")).unwrap_err().to_string().contains("verification failed"));
    }
}
