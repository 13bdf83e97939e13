//! `docker import`: a root filesystem's tar becomes an image of one layer, in one pass over the stream.

use std::io::Read;

use super::codec::decompress;
use super::config::{Config, History, Platform, RootFs};
use super::content::Pins;
use super::{ImageId, Record, Reference, Store, changes};
use crate::daemon::error::{Error, Result};

/// What an imported image is to be called and to say.
#[derive(Clone, Debug, Default)]
pub struct Import {
    pub reference: Option<Reference>,
    /// Dockerfile instructions; see [`changes::apply`].
    pub changes: Vec<String>,
    /// The comment in its history.
    pub message: String,
    /// `None` for the daemon's own.
    pub platform: Option<Platform>,
}

impl Store {
    /// Imports the archive, which may be compressed with gzip or zstd. The digest is taken, the archive
    /// decompressed and unpacked while it comes in.
    pub fn import(&self, archive: impl Read, options: &Import) -> Result<ImageId> {
        let mut defaults = Default::default();
        for line in &options.changes {
            changes::apply(&mut defaults, line)?;
        }
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut pins = Pins::new(self);
        let layer = self.add_layer(decompress(archive)?, None, &mut pins)?;
        let now = jiff::Timestamp::now().to_string();
        let comment =
            if options.message.is_empty() { "Imported from -".to_owned() } else { options.message.clone() };
        let config = Config {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            created: now.clone(),
            comment: comment.clone(),
            config: defaults,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id] },
            history: vec![History { created: now, comment, ..History::default() }],
            ..Config::default()
        };
        let blob = serde_json::to_vec(&config).map_err(|cause| Error::system("write image config", cause))?;
        Ok(self.publish(&blob, Record::default(), options.reference.as_slice(), &mut pins)?.id)
    }
}
