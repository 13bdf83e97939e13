//! A volume's content in exchange for another, and back.
//!
//! ```text
//! <name>/_thaw/     filled beside the content
//!        │ thaw.json: for whom, and the new directory's inode
//!        ▼ exchanged with _data in one step
//! <name>/_thaw/     the old content, until it is not needed any more
//! ```
//!
//! Nobody else can begin to use the volume meanwhile. A daemon that dies in between leaves `thaw.json`, and the next
//! one knows from the inodes how far it came ([`Volume::settle`]).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};

use super::{Volume, lock};
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::{self, Durability};

const ASIDE: &str = "_thaw";
const NOTE: &str = "thaw.json";

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    container: String,
    /// The writable layer that belongs to the new content.
    layer: u32,
    inode: u64,
}

/// A volume whose content was exchanged. Dropping it puts the old content back.
#[derive(Debug)]
pub struct Replaced {
    volume: Arc<Volume>,
    is_wanted: bool,
}

impl Replaced {
    /// The new content stays.
    pub fn keep(mut self) {
        self.is_wanted = true;
    }
}

impl Drop for Replaced {
    fn drop(&mut self) {
        self.volume.finish(self.is_wanted);
    }
}

impl Volume {
    /// Puts what `fill` makes in an empty directory in place of the content, for `container` and its writable layer
    /// `layer`. Until the result is dropped nobody else can use the volume.
    ///
    /// # Errors
    /// Conflict when somebody else uses it; what `fill` says. The content is then as it was.
    pub fn replace(
        self: &Arc<Self>,
        container: &str,
        layer: u32,
        fill: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Replaced> {
        {
            let users = lock(&self.users);
            if let Some(user) = users.iter().find(|user| *user != container) {
                return Err(Error::conflict(format!(
                    "volume {} is in use by {}",
                    self.name,
                    user.get(..12).unwrap_or(user)
                )));
            }
            let mut reserved = lock(&self.reserved);
            if reserved.is_some() {
                return Err(Error::conflict(format!("volume {} is being brought back already", self.name)));
            }
            *reserved = Some(container.to_owned());
        }
        let replaced = Replaced { volume: Arc::clone(self), is_wanted: false };
        let aside = self.aside();
        state_dir::remove_tree(&aside)?;
        state_dir::make_dir(&aside, 0o755)?;
        fill(&aside)?;
        let inode = inode(&aside)?;
        let note = Note { container: container.to_owned(), layer, inode };
        state_dir::save(&self.dir.join(NOTE), &note, Durability::Synced)?;
        self.exchange()?;
        Ok(replaced)
    }

    fn aside(&self) -> PathBuf {
        self.dir.join(ASIDE)
    }

    fn exchange(&self) -> Result<()> {
        let (aside, content) = (self.aside(), self.mountpoint());
        rustix::fs::renameat_with(CWD, &aside, CWD, &content, RenameFlags::EXCHANGE).map_err(|errno| {
            Error::system(format!("exchange {aside:?} and {content:?}"), std::io::Error::from(errno))
        })
    }

    /// Ends an exchange that has begun, one way or the other.
    fn finish(&self, is_wanted: bool) {
        let end = || -> Result<()> {
            let note = self.dir.join(NOTE);
            if note.exists() {
                let told: Note = state_dir::load(&note)?;
                let is_exchanged = inode(&self.mountpoint())? == told.inode;
                if is_exchanged && !is_wanted {
                    self.exchange()?;
                }
            }
            // Without the note what lies aside is nobody's, whichever it is.
            fs::remove_file(&note)
                .or_else(|cause| match cause.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(cause),
                })
                .map_err(|cause| Error::system(format!("remove {note:?}"), cause))?;
            state_dir::remove_tree(&self.aside())
        };
        if let Err(error) = end() {
            log::error!("volume {}: {error}", self.name);
        }
        *lock(&self.reserved) = None;
    }

    /// Finishes or undoes what a daemon that died has left of an exchange for `container`, which has the writable
    /// layer `layer` now.
    pub fn settle(&self, container: &str, layer: u32) {
        let note = self.dir.join(NOTE);
        if !note.exists() && !self.aside().exists() {
            return;
        }
        let told = state_dir::load::<Note>(&note).ok();
        if told.as_ref().is_some_and(|told| told.container != container) {
            return;
        }
        let is_wanted = told.is_some_and(|told| told.layer == layer);
        let what = if is_wanted { "finished" } else { "undone" };
        log::info!("volume {}: bringing its content back was cut off, and is {what}", self.name);
        self.finish(is_wanted);
    }
}

fn inode(path: &Path) -> Result<u64> {
    let meta =
        fs::symlink_metadata(path).map_err(|cause| Error::system(format!("look at {path:?}"), cause))?;
    Ok(meta.ino())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::events::Bus;
    use crate::daemon::volumes::Volumes;
    use crate::http::api::volume::VolumeCreate;

    fn volume(name: &str) -> (PathBuf, Arc<Volume>) {
        let dir = std::env::temp_dir().join(format!("dewar-replace-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let volumes = Volumes::open(&dir).unwrap();
        let request = VolumeCreate { name: "data".into(), ..VolumeCreate::default() };
        let volume = volumes.create(&Bus::default(), request).unwrap();
        fs::write(volume.mountpoint().join("file"), "old").unwrap();
        (dir, volume)
    }

    fn fill(path: &Path) -> Result<()> {
        fs::write(path.join("file"), "new").unwrap();
        Ok(())
    }

    fn content(volume: &Volume) -> String {
        fs::read_to_string(volume.mountpoint().join("file")).unwrap()
    }

    #[test]
    fn the_old_content_is_put_back_unless_the_new_is_kept() {
        let (dir, volume) = volume("back");
        let replaced = volume.replace("me", 1, fill).unwrap();
        assert_eq!(content(&volume), "new");
        assert!(volume.mount("another").unwrap_err().message.contains("brought back"));
        volume.mount("me").unwrap();
        drop(replaced);
        assert_eq!(content(&volume), "old");
        volume.replace("me", 1, fill).unwrap().keep();
        assert_eq!(content(&volume), "new");
        assert!(!volume.aside().exists() && !volume.dir.join(NOTE).exists());
        volume.mount("another").unwrap();
        assert!(volume.replace("me", 1, fill).unwrap_err().message.contains("in use by another"));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_filling_that_fails_changes_nothing() {
        let (dir, volume) = volume("fails");
        let refuse = |path: &Path| fill(path).and_then(|()| Err(Error::conflict("no")));
        assert!(volume.replace("me", 1, refuse).is_err());
        assert_eq!(content(&volume), "old");
        assert!(!volume.aside().exists());
        volume.mount("another").unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_dead_daemon_left_is_finished_or_undone() {
        for (layer, expected) in [(1, "new"), (0, "old")] {
            let (dir, volume) = volume(&format!("dead{layer}"));
            // As if it had died: nothing of what dropping does has happened.
            std::mem::forget(volume.replace("me", 1, fill).unwrap());
            volume.settle("another", 7);
            assert_eq!(content(&volume), "new");
            volume.settle("me", layer);
            assert_eq!(content(&volume), expected);
            assert!(!volume.aside().exists());
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}
