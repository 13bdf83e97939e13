//! A container's checkpoint on its way out.

use std::io::{self, Write};
use std::path::PathBuf;

use super::archive::Source;
use super::find;
use crate::daemon::containers::container::Container;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::codec::Compression;
use crate::daemon::names::CheckpointId;

/// A checkpoint that is about to be written.
pub struct Export {
    source: Source,
    dir: PathBuf,
    compression: Compression,
}

/// Finds a container's checkpoint, and looks whether it can be exported. `compression` is `zstd`, `gzip` or `none`;
/// empty is the first.
///
/// # Errors
/// NotFound for an unknown checkpoint, InvalidParameter for an unknown compression, System for a damaged one.
pub fn export(container: &Container, id: &str, custom: &str, compression: &str) -> Result<Export> {
    let id = CheckpointId::parse(id)?;
    let compression = Compression::parse(compression).ok_or_else(|| {
        Error::invalid(format!("compression {compression:?}: there are zstd, gzip and none"))
    })?;
    let (dir, mut manifest) = find(container, &id, custom)?;
    if manifest.record.is_none() {
        // The first version did not say what the container was: it is what it is now.
        manifest.record = Some(Box::new(container.record()));
    }
    let source = Source::open(&dir, manifest, &container.dir).map_err(|error| {
        error.during(format!("Cannot export checkpoint {id} of container {}", container.name()))
    })?;
    Ok(Export { source, dir, compression })
}

impl Export {
    /// Writes the archive. Holds no lock: a checkpoint that is removed meanwhile breaks it.
    pub fn write(self, out: &mut dyn Write) -> io::Result<()> {
        self.compression.write(out, |out| self.source.write(&self.dir, out))
    }
}
