//! A container's filesystem as a whole: what it changed, and all of it as a tar.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::archive::WhileThere;
use super::container::{Container, Record};
use super::rootfs;
use super::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::metrics;
use crate::http::api::filesystem::FilesystemChange;
use crate::runtime::layer::tar::Writer;
use crate::runtime::layer::{self, Change, Trees};
use crate::runtime::look::View;

/// What the container changed in its image, sorted by path; what dewar itself put there is no change.
pub fn changes(engine: &Engine, container: &Container) -> Result<Vec<FilesystemChange>> {
    let began = Instant::now();
    let record = container.record();
    let below = rootfs::below(engine, container, &record)?;
    let upper = container.layer_dir(record.layer).join("upper");
    let told = layer::changes(&upper, below.as_fd())?.into_iter().map(|(path, change)| FilesystemChange {
        path: String::from_utf8_lossy(&path).into_owned(),
        kind: match change {
            Change::Modified => 0,
            Change::Added => 1,
            Change::Deleted => 2,
        },
    });
    let told = told.collect();
    engine.metrics.done(metrics::Action::Changes, began);
    Ok(told)
}

/// The root filesystem to export, and which layer is on top of it. Fails as long as a client can still be told
/// a status.
pub fn export(engine: &Engine, container: &Container) -> Result<(Arc<View>, u32)> {
    let record = container.record();
    check_whole(&record, "export")?;
    let view = rootfs::bare_view(engine, container)?;
    engine.events.publish("container", "export", &container.id, record.event_attributes());
    Ok((view, record.layer))
}

/// Writes what [`export`] gave as a tar.
pub fn write(view: &View, layer: u32, container: &Container, out: impl Write) -> Result<()> {
    let mut writer = Writer::new(WhileThere { inner: out, container, layer });
    layer::pack_tree(view.bare(), b".", Trees::Bare, &mut writer)?;
    writer
        .finish()
        .map_err(|cause| Error::system(format!("export container {:?}", container.name()), cause))?;
    Ok(())
}

/// Refuses a container whose files are going or half gone.
pub fn check_whole(record: &Record, verb: &str) -> Result<()> {
    match record.state {
        State::Dead => {
            Err(Error::conflict(format!("You cannot {verb} container {} which is Dead", record.id)))
        }
        State::Removing => {
            Err(Error::conflict(format!("You cannot {verb} container {} which is being removed", record.id)))
        }
        _ => Ok(()),
    }
}
