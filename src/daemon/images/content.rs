//! Blobs and layers on disk: made in `tmp`, renamed into place, swept when nothing leads to them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};

use super::codec::{Digest, Hashing};
use super::config::MAX_JSON_BYTES;
use super::packed::Packed;
use super::{Store, Tables};
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::put_aside;
use crate::runtime::{self, Cause, layer};

/// What is known of an unpacked layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LayerInfo {
    format: u32,
    pub(super) diff_id: Digest,
    /// Bytes of its files.
    pub(super) size: u64,
    /// Bytes of its tar.
    pub(super) tar_size: u64,
    /// How it was packed elsewhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) packed: Vec<Packed>,
}

/// The version of `layer.json` this program writes.
const LAYER_FORMAT: u32 = 1;

impl LayerInfo {
    pub(super) fn new(diff_id: Digest, size: u64, tar_size: u64) -> LayerInfo {
        LayerInfo { format: LAYER_FORMAT, diff_id, size, tar_size, packed: Vec::new() }
    }
}

/// A directory in `tmp` for unfinished work, removed when dropped.
#[derive(Debug)]
pub(super) struct Staging(PathBuf);

impl Staging {
    pub(super) fn create(path: PathBuf) -> Result<Staging> {
        fs::create_dir(&path).map_err(|cause| Error::system(format!("create {}", path.display()), cause))?;
        Ok(Staging(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Empty when all went well; what cannot be removed now is swept on the next start.
        if let Err(cause) = fs::remove_dir_all(&self.0)
            && cause.kind() != io::ErrorKind::NotFound
        {
            log::warn!("remove {}: {cause}", self.0.display());
        }
    }
}

/// Layers kept from being swept while an operation relies on them.
#[derive(Debug)]
pub(super) struct Pins<'a> {
    store: &'a Store,
    digests: Vec<Digest>,
}

impl<'a> Pins<'a> {
    pub(super) fn new(store: &'a Store) -> Pins<'a> {
        Pins { store, digests: Vec::new() }
    }

    pub(super) fn add(&mut self, digest: &Digest) {
        *self.store.lock().pins.entry(digest.clone()).or_default() += 1;
        self.digests.push(digest.clone());
    }

    /// Takes over what another operation's part has pinned.
    pub(super) fn absorb(&mut self, mut other: Pins<'a>) {
        self.digests.append(&mut other.digests);
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        if self.digests.is_empty() {
            return;
        }
        let garbage = {
            let mut tables = self.store.lock();
            for digest in &self.digests {
                if let Some(count) = tables.pins.get_mut(digest) {
                    *count -= 1;
                    if *count == 0 {
                        tables.pins.remove(digest);
                    }
                }
            }
            self.store.collect(&tables)
        };
        // An operation that failed leaves layers that no image came to use.
        drop(garbage);
    }
}

/// The archive's own fault is the caller's to mend (400), all else the system's (500).
pub(super) fn classed(failure: runtime::Error) -> Error {
    match failure.cause {
        Cause::Refused(_) => Error::invalid(failure.to_string()),
        _ => Error::from(failure),
    }
}

/// Failures of reading an archive: damage is the caller's fault.
pub(super) fn read_failure(attempt: impl std::fmt::Display, cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::UnexpectedEof => Error::invalid(format!("{attempt}: the archive is truncated")),
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            Error::invalid(format!("{attempt}: {cause}"))
        }
        _ => Error::system(attempt, cause),
    }
}

impl Store {
    pub(super) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// A small blob, its digest checked.
    pub(super) fn get_blob(&self, digest: &Digest) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let failed = |cause: &dyn std::fmt::Display| Error::system(format!("read blob {digest}"), cause);
        let mut bytes = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(MAX_JSON_BYTES + 1).read_to_end(&mut bytes))
            .map_err(|cause| failed(&cause))?;
        if Digest::of(&bytes) != *digest {
            return Err(failed(&"its content has another digest"));
        }
        Ok(bytes)
    }

    /// Keeps a small blob; it stays once something in `references.json` leads to it.
    pub(super) fn put_blob(&self, bytes: &[u8], pins: &mut Pins<'_>) -> Result<Digest> {
        let digest = Digest::of(bytes);
        pins.add(&digest);
        let path = self.blob_path(&digest);
        if self.get_blob(&digest).is_err() {
            if path.symlink_metadata().is_ok() {
                let kept = put_aside(&path);
                log::warn!("blob {digest} is damaged, and written again{kept}");
            }
            self.write_atomically(&path, bytes)?;
        }
        Ok(digest)
    }

    pub(super) fn write_atomically(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let staging = self.staging()?;
        let temporary = staging.path().join("file");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
        };
        write().map_err(|cause| Error::system(format!("write {}", path.display()), cause))
    }

    /// What is known of a layer that is in the store.
    pub(super) fn layer(&self, diff_id: &Digest) -> Result<LayerInfo> {
        let attempt = || format!("read layer {diff_id}");
        let text = fs::read(self.layer_dir(diff_id).join("layer.json"))
            .map_err(|cause| Error::system(attempt(), cause))?;
        let info: LayerInfo =
            serde_json::from_slice(&text).map_err(|cause| Error::system(attempt(), cause))?;
        match info.format {
            ..=LAYER_FORMAT => Ok(info),
            format => {
                let cause = format!("written in format {format}, this dewar knows {LAYER_FORMAT}");
                Err(Error::system(attempt(), cause))
            }
        }
    }

    /// Whether a layer is here, by its diff id.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.layer(diff_id).is_ok()
    }

    /// Unpacks one uncompressed layer stream in one pass and puts it in its place, unless it is there
    /// already. It is pinned in `pins`, and refused if its digest is not `wanted`.
    pub(super) fn add_layer(
        &self,
        stream: impl Read,
        wanted: Option<&Digest>,
        pins: &mut Pins<'_>,
    ) -> Result<LayerInfo> {
        let staging = self.staging()?;
        let diff = staging.path().join("diff");
        let failed = |attempt: &str, cause: io::Error| Error::system(format!("{attempt} layer"), cause);
        fs::create_dir(&diff).map_err(|cause| failed("create", cause))?;
        let split = File::create(staging.path().join("split.gz")).map_err(|cause| failed("create", cause))?;
        let mut split = GzEncoder::new(io::BufWriter::new(split), Compression::fast());
        let mut stream = Hashing::new(stream);
        // Headers are 512 bytes: decompressed and digested one by one they would cost more than what they describe.
        let buffered = io::BufReader::with_capacity(128 << 10, &mut stream);
        let unpacked = layer::unpack_recording(buffered, &diff, self.limits, &mut split).map_err(classed)?;
        let (diff_id, tar_size) = stream.finish();
        if let Some(wanted) = wanted
            && *wanted != diff_id
        {
            return Err(Error::invalid(format!("layer {wanted}: its content has digest {diff_id}")));
        }
        split
            .finish()
            .and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error))
            .map_err(|cause| failed("record", cause))?;
        let info = LayerInfo::new(diff_id.clone(), unpacked.bytes, tar_size);
        let text = serde_json::to_vec(&info).map_err(|cause| Error::system("describe layer", cause))?;
        fs::write(staging.path().join("layer.json"), text).map_err(|cause| failed("describe", cause))?;
        // One call for the whole layer: a sync per file would cost more than unpacking it.
        let sync = || -> io::Result<()> { Ok(rustix::fs::syncfs(File::open(staging.path())?)?) };
        sync().map_err(|cause| failed("sync", cause))?;
        pins.add(&diff_id);
        let place = self.layer_dir(&diff_id);
        match fs::rename(staging.path(), &place) {
            Ok(()) => {}
            // Another operation was faster with the same layer.
            Err(_) if self.has_layer(&diff_id) => {}
            Err(_) if place.exists() => {
                let kept = put_aside(&place);
                log::warn!("layer {diff_id} is damaged, and unpacked again{kept}");
                fs::rename(staging.path(), &place).map_err(|cause| failed("keep", cause))?;
            }
            Err(cause) => return Err(failed("keep", cause)),
        }
        let directory = File::open(self.root.join("layers")).map_err(|cause| failed("sync", cause))?;
        directory.sync_all().map_err(|cause| failed("sync", cause))?;
        Ok(info)
    }

    /// Writes the layer's tar as it came. Fails, with `out` useless, if it no longer has its digest.
    pub(super) fn write_layer(&self, diff_id: &Digest, out: impl Write) -> Result<u64> {
        let directory = self.layer_dir(diff_id);
        let split = File::open(directory.join("split.gz"))
            .map_err(|cause| Error::system(format!("read layer {diff_id}"), cause))?;
        let mut out = Hashing::new(out);
        let split = GzDecoder::new(io::BufReader::new(split));
        let written = layer::reassemble(split, &directory.join("diff"), &mut out)?;
        let (digest, _) = out.finish();
        if digest != *diff_id {
            return Err(Error::system(
                format!("write layer {diff_id}"),
                format!("its files are not as they were unpacked (digest {digest})"),
            ));
        }
        Ok(written)
    }

    /// Moves everything nothing leads to into `tmp`, quickly; dropping the answer deletes it, slowly.
    pub(super) fn collect(&self, tables: &Tables) -> Option<Staging> {
        let mut used: BTreeSet<&Digest> = tables.pins.keys().collect();
        // Of an image that cannot be read it is not known what it leads to; of a later dewar's table even less.
        let damaged = tables.damaged.used().filter(|_| self.refusal.is_none());
        used.extend(damaged?);
        for (id, known) in &tables.images {
            used.insert(id);
            used.extend(&known.record.manifests);
            used.extend(&known.config.rootfs.diff_ids);
        }
        let staging = match self.staging() {
            Ok(staging) => staging,
            Err(cause) => {
                log::warn!("sweep image store: {cause}");
                return None;
            }
        };
        let of_artifacts = self.blobs_of_artifacts(tables);
        let places = [
            ("layers", "layer", Some(&used)),
            ("blobs/sha256", "blob", Some(&used)),
            (super::artifact::BLOBS, "artifact", of_artifacts.as_ref()),
        ];
        for (directory, kind, used) in places {
            let Some(used) = used else { continue };
            let Ok(entries) = fs::read_dir(self.root.join(directory)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name();
                let digest = name.to_str().and_then(Digest::from_hex);
                // What was put aside has no digest for a name.
                if digest.as_ref().is_none_or(|digest| used.contains(digest)) {
                    continue;
                }
                let target = staging.path().join(format!("{kind}-{}", name.to_string_lossy()));
                if let Err(cause) = fs::rename(entry.path(), target) {
                    log::warn!("sweep {kind} {}: {cause}", name.to_string_lossy());
                }
            }
        }
        Some(staging)
    }

    /// Deletes everything nothing leads to.
    pub(super) fn sweep(&self) -> Result<()> {
        let garbage = self.collect(&self.lock());
        drop(garbage);
        Ok(())
    }
}
