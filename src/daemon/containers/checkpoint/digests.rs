//! Digests that are taken after the answer.
//!
//! To read a gigabyte of memory again costs a processor as much as CRIU's writing of it. So a checkpoint has its name
//! before its large files have digests: until then their inodes tell that nobody touched them, in this life of the
//! kernel ([`seal`]). One thread takes the digests, of one checkpoint after the other; it gives way to everything
//! else, rests while anything freezes or thaws, and ends when there is nothing left to do. The daemon's end waits for
//! it; what a killed daemon left is taken up by the next.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::manifest::{MANIFEST, Manifest, boot_id};
use super::seal;
use crate::daemon::containers::container::Container;
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::daemon::spawn;
use crate::daemon::state_dir::{self, Durability};

/// How far the thread gives way.
const NICE: i32 = 19;

/// What is to be digested, and when not.
#[derive(Default)]
pub struct Digests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Arc<Container>, PathBuf)>,
    has_thread: bool,
    /// Freezes and thaws under way.
    held_by: usize,
}

/// Nothing is digested while this is there.
pub struct Held<'a>(&'a Digests);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.lock().held_by -= 1;
        self.0.changed.notify_all();
    }
}

impl Digests {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A queue and two flags are whole between any two of their operations.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the processors and the disk be somebody else's.
    pub fn hold(&self) -> Held<'_> {
        self.lock().held_by += 1;
        Held(self)
    }

    /// Blocks while somebody holds it up.
    fn rest(&self) {
        let state = self.lock();
        drop(
            self.changed.wait_while(state, |state| state.held_by > 0).unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// The next; without one the thread is to end.
    fn next(&self) -> Option<(Arc<Container>, PathBuf)> {
        let mut state = self.lock();
        let next = state.waiting.pop_front();
        if next.is_none() {
            state.has_thread = false;
            self.changed.notify_all();
        }
        next
    }

    /// Blocks until nothing is left to do, or until `deadline`; whether nothing is.
    pub fn wait(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.lock();
        while state.has_thread {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            state = match left {
                Some(Duration::ZERO) => return false,
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
        true
    }
}

/// Has the digests taken that the checkpoint in `dir` lacks. Does not block.
pub fn later(engine: &Arc<Engine>, container: &Arc<Container>, dir: PathBuf) {
    let mut state = engine.digests.lock();
    state.waiting.push_back((Arc::clone(container), dir));
    if state.has_thread {
        return;
    }
    state.has_thread = true;
    drop(state);
    let worker = Arc::clone(engine);
    if let Err(error) = spawn("checkpoint-digest", move || work(&worker)) {
        engine.digests.lock().has_thread = false;
        // Who needs them takes them; the next thread, too.
        log::warn!("{error}");
    }
}

fn work(engine: &Engine) {
    if let Err(cause) = rustix::process::nice(NICE) {
        log::debug!("digests of checkpoints give way to nobody: {cause}");
    }
    while let Some((container, dir)) = engine.digests.next() {
        let began = Instant::now();
        match complete(&container, &dir, &|| engine.digests.rest()) {
            Ok(_) => log::debug!("digests of {dir:?} taken after {} ms", began.elapsed().as_millis()),
            Err(_) if !dir.join(MANIFEST).exists() => log::debug!("{dir:?} went before it had its digests"),
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// Takes the digests that the checkpoint in `dir` lacks, and writes them down; gives what it then says of itself.
/// `rest` is called now and then. Blocks until the container's action is over, if there is anything to write.
///
/// # Errors
/// As [`seal::late`]; the manifest cannot be read or written.
pub fn complete(container: &Container, dir: &Path, rest: &dyn Fn()) -> Result<Manifest> {
    let manifest = Manifest::load(dir)?;
    let taken = seal::late(dir, &manifest, &boot_id(), rest)?;
    if taken.is_empty() {
        return Ok(manifest);
    }
    // Nobody removes it now, and gives its name to another.
    let _action = container.begin();
    let mut manifest = Manifest::load(dir)?;
    for (name, sealed) in taken {
        // Another of that name has other inodes.
        if let Some(file) = manifest.files.get_mut(&name).filter(|file| file.is_same_but_digest(&sealed)) {
            *file = sealed;
        }
    }
    let manifest = manifest.with_its_version();
    // A sync now would have the file system write out all that the checkpoint has, and whoever uses the disk wait for
    // that. What a loss of power takes of this it takes of that, too.
    state_dir::save(&dir.join(MANIFEST), &manifest, Durability::Renamed)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_rest_while_anybody_holds_them() {
        let digests = Arc::new(Digests::default());
        let (first, second) = (digests.hold(), digests.hold());
        let resting = Arc::clone(&digests);
        let thread = std::thread::spawn(move || resting.rest());
        drop(first);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!thread.is_finished());
        drop(second);
        thread.join().unwrap();
    }

    #[test]
    fn the_end_waits_until_its_deadline() {
        let digests = Digests::default();
        assert!(digests.wait(None), "there is nothing to wait for");
        digests.lock().has_thread = true;
        assert!(!digests.wait(Some(Instant::now() + Duration::from_millis(5))));
        assert!(digests.next().is_none());
        assert!(digests.wait(None));
    }
}
