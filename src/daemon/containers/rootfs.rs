//! A container's root filesystem from the daemon's side: its layers, and a look inside.

use std::io::Read;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::container::{Container, Record};
use super::mounts;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::images::ImageId;
use crate::runtime::look::{self, Bind, View};
use crate::runtime::{Overlay, user};

/// The most of a container's passwd file that is read.
const MAX_PASSWD_BYTES: u64 = 1 << 20;
/// Between a process's end and the daemon's knowing.
const EXIT_WAIT: Duration = Duration::from_secs(5);
/// How long the root of a frozen container stays mounted: by then the kernel has written by itself what is to be written.
const HOLD: Duration = Duration::from_secs(40);

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
        shared: None,
    })
}

/// The image's id, as the store knows it.
fn image_id(record: &Record) -> Result<ImageId> {
    ImageId::parse(&record.image_id).ok_or_else(|| {
        Error::system(format!("read the image of container {:?}", record.name), "not a digest")
    })
}

/// The container's root filesystem as it is now, volumes and all, for as long as the answer is kept.
///
/// Blocks while another request changes the state, and no longer: what is done with the answer hinders
/// neither stop nor start nor removal.
pub fn view(engine: &Engine, container: &Container) -> Result<Arc<View>> {
    view_with(engine, container, binds)
}

/// [`view`] for those who only want [`View::bare`]: nothing is mounted in it unless the container runs.
pub fn bare_view(engine: &Engine, container: &Container) -> Result<Arc<View>> {
    view_with(engine, container, |_| Vec::new())
}

fn view_with(engine: &Engine, container: &Container, binds: fn(&Record) -> Vec<Bind>) -> Result<Arc<View>> {
    let _action = container.begin();
    let record = container.record();
    let view = if record.state.is_alive() { living_view(container, &record)? } else { None };
    let view = match view {
        Some(view) => view,
        None => {
            let record = container.record();
            let mut overlay = overlay(engine, container, &record)?;
            // One mount of these layers is all the kernel allows: another's look is joined.
            container.release_holds(record.layer);
            let others = container.view_of(record.layer);
            overlay.shared = others.as_ref().map(|view| view.shared());
            let binds = binds(&record);
            // The view keeps what is mounted now; the volumes' own mounts may go when it is made.
            let _used =
                if binds.is_empty() { None } else { Some(mounts::use_volumes(engine, &record, "look")?) };
            with_place(engine, container, |at| Ok(View::of_layers(&overlay, at, &binds)?))?
        }
    };
    let view = Arc::new(view);
    container.remember_view(record.layer, &view);
    Ok(view)
}

/// Through the container's process; `None` when it ended meanwhile.
fn living_view(container: &Container, record: &Record) -> Result<Option<View>> {
    let failure = match View::of_process(record.pid) {
        // The number still means the process it meant: it is given anew only after this one is reaped.
        Ok(view) if container.lock().record.pid == record.pid => return Ok(Some(view)),
        Ok(_) => None,
        Err(failure) => Some(failure),
    };
    // Its exit is on the way; what does not end is a failure of ours.
    if container.wait_until(Some(EXIT_WAIT), |inner| !inner.record.state.is_alive()) {
        return Ok(None);
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None => Err(Error::conflict(format!("container {} is being restarted", record.id))),
    }
}

/// The mounts of the host's that a start would make, volumes among them, outer ones first.
fn binds(record: &Record) -> Vec<Bind> {
    let mut binds: Vec<Bind> = record
        .mounts
        .iter()
        .filter(|point| !point.source.is_empty())
        .map(|point| Bind {
            source: point.source.clone().into(),
            below: point.subpath.clone().into(),
            target: point.destination.clone().into(),
            read_only: !point.rw,
        })
        .collect();
    binds.sort_by_key(|bind| bind.target.components().count());
    binds
}

/// The layers below the container's own, read-only: what its changes are measured against.
pub fn below(engine: &Engine, container: &Container, record: &Record) -> Result<OwnedFd> {
    let overlay = overlay(engine, container, record)?;
    with_place(engine, container, |at| Ok(look::below(&overlay, at)?))
}

/// Keeps the root file system of a life that is over mounted, where nobody sees it.
///
/// Unmounting an overlay makes the kernel write out all of the file system below it. After a checkpoint that is all the
/// memory just saved, and whoever asked for it would wait for the disk.
#[derive(Debug)]
pub struct Hold(Mutex<Option<OwnedFd>>);

impl Hold {
    /// Lets go; blocks for as long as the disk takes.
    pub fn release(&self) {
        let mut root = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: who comes second waits, too.
        drop(root.take());
    }
}

/// Holds the root of a running container until long after its end, unless it is wanted before. It costs a descriptor,
/// and a thread that sleeps. Failing is no matter: then the end only takes longer.
pub fn hold(container: &Container, record: &Record) {
    let root =
        rustix::fs::open(format!("/proc/{}/root", record.pid), OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let is_same = container.lock().record.pid == record.pid;
    let Some(root) = root.ok().filter(|_| is_same) else { return };
    let hold = Arc::new(Hold(Mutex::new(Some(root))));
    container.remember_hold(record.layer, &hold);
    let wait = move || {
        std::thread::sleep(HOLD);
        hold.release();
    };
    // Without a thread to spare it is let go at once.
    let _ = std::thread::Builder::new().name("root-hold".into()).spawn(wait);
}

/// In the name of a directory that is only mounted on to look.
pub const LOOK: &str = ".look-";

/// Gives `work` an empty directory of its own to mount on.
fn with_place<T>(engine: &Engine, container: &Container, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let at = engine.state_dir.run_dir(&format!("{}{LOOK}{number}", container.id));
    crate::daemon::state_dir::make_dir(&at, 0o700)?;
    let result = work(&at);
    if let Err(cause) = std::fs::remove_dir(&at) {
        log::warn!("remove {at:?}: {cause}");
    }
    result
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
