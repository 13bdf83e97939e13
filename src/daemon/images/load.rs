//! `docker load`: images from a docker-archive (`manifest.json`) or an OCI layout (`index.json`).
//!
//! The members of such an archive come in any order, the table of contents often last. So the archive is
//! spooled to `tmp` as it comes, blobs digested on the way, and read from there. Where both tables of
//! contents are present, as modern `docker save` writes them, `manifest.json` counts: it names the tags.
//!
//! Members keep their names as keys in a map only; no path on disk is made from them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::Deserialize;

use super::codec::{Counting, Digest, Hashing, decompress};
use super::config::{Config, Index, MAX_JSON_BYTES, Manifest, Platform};
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

impl Store {
    /// Loads every image of the archive, which may be compressed (gzip, bzip2, xz, zstd). Blocks as long as the
    /// archive takes to come.
    ///
    /// Images that were complete before a later one failed stay, as with Docker; of the failed one nothing
    /// does.
    pub fn load(
        &self,
        archive: impl Read,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<Vec<LoadedImage>> {
        let spool = Spool::fill(self.staging()?, archive, self.limits)?;
        let mut loaded = Vec::new();
        if spool.has("manifest.json") {
            let text = spool.json("manifest.json")?;
            let images: Vec<DockerImage> = crate::http::api::decode(&text)
                .map_err(|cause| Error::invalid(format!("read manifest.json: {cause}")))?;
            for image in images {
                loaded.push(self.load_docker(&spool, &image, on_progress)?);
            }
        } else if spool.has("index.json") {
            let index = Index::parse(&spool.json("index.json")?)?;
            for descriptor in &index.manifests {
                let is_attestation = descriptor.annotations.contains_key("vnd.docker.reference.type")
                    || descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
                if is_attestation {
                    continue;
                }
                let name = descriptor
                    .annotations
                    .get("io.containerd.image.name")
                    .or_else(|| descriptor.annotations.get("org.opencontainers.image.ref.name"));
                let mut digest = descriptor.digest.clone();
                let mut is_index = descriptor.is_index();
                let mut depth = 0;
                while is_index {
                    depth += 1;
                    if depth > MAX_INDEX_DEPTH {
                        return Err(Error::invalid(format!("index {}: nested too deep", descriptor.digest)));
                    }
                    let nested = Index::parse(&spool.blob(&digest)?)?;
                    let chosen = nested.choose(&Platform::host())?;
                    digest = chosen.digest.clone();
                    is_index = chosen.is_index();
                }
                // `oci:dir:v1` of other tools leaves a bare tag, which names nothing.
                let name = name.filter(|name| name.contains([':', '/', '@']));
                loaded.push(self.load_oci(&spool, &digest, name.map(String::as_str), on_progress)?);
            }
        } else {
            return Err(Error::invalid("archive is no image: it has neither manifest.json nor index.json"));
        }
        if loaded.is_empty() {
            return Err(Error::invalid("archive has no image in it"));
        }
        for image in &loaded {
            if image.references.is_empty() {
                on_progress(JsonMessage::stream(format!("Loaded image ID: {}\n", image.id)));
            }
            for reference in &image.references {
                on_progress(JsonMessage::stream(format!("Loaded image: {}\n", reference.familiar())));
            }
        }
        Ok(loaded)
    }

    fn load_docker(
        &self,
        spool: &Spool,
        image: &DockerImage,
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
        let mut pins = Pins::new(self);
        self.add_layers(spool, &Config::parse(&blob)?, &image.layers, &mut pins, on_progress)?;
        let image = self.publish(&blob, Record::default(), &references, &mut pins)?;
        Ok(LoadedImage { id: image.id, references })
    }

    fn load_oci(
        &self,
        spool: &Spool,
        digest: &Digest,
        name: Option<&str>,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<LoadedImage> {
        let manifest_blob = spool.blob(digest)?;
        let manifest = Manifest::parse(&manifest_blob)?;
        let blob = spool.blob(&manifest.config.digest)?;
        let references = match name {
            Some(name) => vec![Reference::parse(name)?.with_default_tag()],
            None => Vec::new(),
        };
        let layers: Vec<_> = manifest.layers.iter().map(|layer| blob_name(&layer.digest)).collect();
        let mut pins = Pins::new(self);
        self.add_layers(spool, &Config::parse(&blob)?, &layers, &mut pins, on_progress)?;
        let manifests = vec![self.put_blob(&manifest_blob, &mut pins)?];
        let Image { id, .. } =
            self.publish(&blob, Record { manifests, ..Record::default() }, &references, &mut pins)?;
        Ok(LoadedImage { id, references })
    }

    fn add_layers(
        &self,
        spool: &Spool,
        config: &Config,
        names: &[String],
        pins: &mut Pins<'_>,
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
        for (diff_id, name) in diff_ids.iter().zip(names) {
            pins.add(diff_id);
            if self.has_layer(diff_id) {
                continue;
            }
            let (file, size) = spool.open(name)?;
            let total = size.cast_signed();
            let detail = |current| ProgressDetail { current, total, ..ProgressDetail::default() };
            on_progress(JsonMessage::progress(diff_id.short(), "Loading layer", detail(0)));
            let mut tell = |current| {
                on_progress(JsonMessage::progress(diff_id.short(), "Loading layer", detail(current)));
            };
            let file = Counting::new(file, |current| tell(current.cast_signed().min(total)));
            self.add_layer(decompress(file)?, Some(diff_id), pins)
                .map_err(|cause| cause.during(format!("load {name:?}")))?;
            tell(total);
        }
        Ok(())
    }
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

enum Member {
    File {
        path: PathBuf,
        size: u64,
    },
    /// To another member.
    Link(String),
}

/// The members of an archive, each in a file of its own with a name of ours.
struct Spool {
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

    fn open(&self, name: &str) -> Result<(File, u64)> {
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
    fn json(&self, name: &str) -> Result<Vec<u8>> {
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

    fn blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        self.json(&blob_name(digest))
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
