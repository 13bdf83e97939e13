//! `docker import`: a root filesystem's tar becomes an image of one layer, in one pass over the stream.

use std::io::Read;
use std::time::{Duration, Instant};

use super::codec::{Counting, decompress};
use super::config::{Config, History, Platform, RootFs};
use super::content::Pins;
use super::{ImageId, Record, Reference, Store, changes};
use crate::daemon::error::{Error, Result};
use crate::http::api::image::{JsonMessage, ProgressDetail};

/// What is over sooner needs no progress, and can still be refused with a status.
const QUICK: Duration = Duration::from_millis(250);

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
    /// Imports the archive, which may be compressed (gzip, bzip2, xz, zstd). The digest is taken, the archive
    /// decompressed and unpacked while it comes in.
    ///
    /// `on_progress` is told how much has come, for the first time after [`QUICK`].
    pub fn import(
        &self,
        archive: impl Read,
        options: &Import,
        on_progress: &mut dyn FnMut(JsonMessage),
    ) -> Result<ImageId> {
        let mut defaults = Default::default();
        changes::apply_all(&mut defaults, &options.changes)?;
        let platform = options.platform.clone().unwrap_or_else(Platform::host);
        let mut pins = Pins::new(self);
        let begun = Instant::now();
        let archive = Counting::new(archive, |current| {
            if begun.elapsed() >= QUICK {
                let current = i64::try_from(current).unwrap_or(i64::MAX);
                let detail = ProgressDetail { current, ..ProgressDetail::default() };
                on_progress(JsonMessage::progress("", "Importing", detail));
            }
        });
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
