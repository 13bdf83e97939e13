//! A container's root filesystem from the daemon's side: its layers, and a look inside.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::container::{Container, Record};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::ImageId;
use crate::runtime::{Overlay, look, user};

/// The most of a container's passwd file that is read.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// The layers of `record`, topmost first: its own, the one with the mount points, the image's.
pub fn overlay(engine: &Engine, container: &Container, record: &Record) -> Result<Overlay> {
    let mut lower = vec![engine.state_dir.init_layer()];
    lower.extend(engine.images.layers_of(&image_id(record)?)?);
    let layer = container.layer_dir(record.layer);
    Ok(Overlay {
        lower,
        upper: layer.join("upper"),
        work: layer.join("work"),
        volatile: record.host_config.auto_remove,
    })
}

/// The image's id, as the store knows it.
fn image_id(record: &Record) -> Result<ImageId> {
    ImageId::parse(&record.image_id).ok_or_else(|| {
        Error::system(format!("read the image of container {:?}", record.name), "not a digest")
    })
}

/// Runs `work` on the container's root directory.
///
/// A living container is seen through its first process, volumes and all. The layers of one that does not
/// run are mounted in a mount namespace of a thread of its own, which takes the mount with it when it ends.
/// The caller holds the action lock, so that a start cannot want the layers at the same time.
pub fn with_root<T: Send>(
    engine: &Engine,
    container: &Container,
    work: impl FnOnce(BorrowedFd<'_>) -> Result<T> + Send,
) -> Result<T> {
    let (record, is_alive) = {
        let inner = container.lock();
        (inner.record.clone(), inner.record.state.is_alive())
    };
    if is_alive {
        let root = look::open_root(Path::new(&format!("/proc/{}/root", record.pid)))?;
        return work(root.as_fd());
    }
    let overlay = overlay(engine, container, &record)?;
    let at = engine.state_dir.run_dir(&format!("{}.look", container.id));
    crate::daemon::state_dir::make_dir(&at, 0o700)?;
    let result = look::inside(&overlay, &at, work);
    if let Err(cause) = std::fs::remove_dir(&at) {
        log::warn!("remove {at:?}: {cause}");
    }
    result?
}

/// Whom the container's processes run as, by the passwd and group files below `root`.
///
/// # Errors
/// InvalidParameter when there is no such user in them.
pub fn owner(root: BorrowedFd<'_>, user: &str) -> Result<(u32, u32)> {
    let file = |path: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        // A missing or strange file is an empty one: numbers need none.
        rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT)
            .map(std::fs::File::from)
            .and_then(|file| {
                let mut text = Vec::new();
                file.take(MAX_PASSWD_BYTES).read_to_end(&mut text).map(|_| text).map_err(|_| Errno::IO)
            })
            .unwrap_or_default()
    };
    let identity =
        user::resolve(user, &[], &file("etc/passwd"), &file("etc/group")).map_err(Error::invalid)?;
    Ok((identity.uid, identity.gid))
}
