//! A container's checkpoint on its way out.

use std::io::{self, Write};
use std::path::PathBuf;

use super::archive::Source;
use super::{find_digested, podman};
use crate::daemon::containers::container::Container;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Compression;
use crate::daemon::names::CheckpointId;

/// A checkpoint that is about to be written.
pub struct Export {
    content: Content,
    compression: Compression,
}

enum Content {
    /// With the checkpoint's directory.
    Own(Box<Source>, PathBuf),
    Podmans(podman::export::Archive),
}

/// Finds a container's checkpoint, and looks whether it can be exported. `compression` is `zstd`, `gzip` or `none`,
/// `format` `dewar` or `podman`; empty is the first. With the second nothing else is read or written meanwhile but what
/// [`podman::export::Archive::open`] makes, which may take as long as packing the container's files.
///
/// # Errors
/// NotFound for an unknown checkpoint, InvalidParameter for an unknown compression or format, Conflict for what podman
/// cannot restore, System for a damaged one.
pub fn export(
    container: &Container,
    id: &str,
    custom: &str,
    (compression, format): (&str, &str),
) -> Result<Export> {
    let id = CheckpointId::parse(id)?;
    let compression = Compression::parse(compression).ok_or_else(|| {
        Error::invalid(format!("compression {compression:?}: there are zstd, gzip and none"))
    })?;
    if !matches!(format, "" | "dewar" | "podman") {
        return Err(Error::invalid(format!("format {format:?}: there are dewar and podman")));
    }
    let (dir, mut manifest) = find_digested(container, &id, custom)?;
    if manifest.record.is_none() {
        // The first version did not say what the container was: it is what it is now.
        manifest.record = Some(Box::new(container.record()));
    }
    let content = match format {
        "podman" => podman::export::Archive::open(&dir, manifest, &container.dir).map(Content::Podmans),
        _ => Source::open(&dir, manifest, &container.dir).map(|source| Content::Own(Box::new(source), dir)),
    };
    let content = content.map_err(|error| {
        error.during(format!("Cannot export checkpoint {id} of container {}", container.name()))
    })?;
    Ok(Export { content, compression })
}

impl Export {
    /// Writes the archive. Holds no lock: a checkpoint that is removed meanwhile breaks it.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        self.compression.write(out, |out| match self.content {
            Content::Own(source, dir) => source.write(&dir, out),
            Content::Podmans(archive) => archive.write(out),
        })
    }
}
