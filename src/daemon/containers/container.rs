//! One container: what is on disk about it, and what lives only as long as the daemon.
//!
//! Locks, in the order they are taken: `action` (one state-changing request at a time; held across the
//! kernel's work), then `inner` (short, never across a system call that can block). Readers take `inner`
//! only. An exit takes `inner` alone and so never waits for a request.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

use serde::{Deserialize, Serialize};

use super::exec::ExecState;
use super::hibernate::Hibernation;
use super::mounts::Mount;
use super::network::Places;
use super::policy::Backoff;
use super::revive::Revival;
use super::rootfs::Hold;
use super::schedule::Scheduled;
use super::state::{self, Action, Denied, State};
use super::{checkpoint, health, migrate};
use crate::daemon::bell::Bell;
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::ports::Claim;
use crate::daemon::state_dir::{self, Durability};
use crate::http::api::checkpoint_policy::CheckpointFailure;
use crate::http::api::container::{ContainerConfig, HostConfig};
use crate::runtime::look::View;
use crate::runtime::{Attachment, Sandbox};

/// `container.json`: everything that outlives the daemon.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Record {
    /// 64 hex digits.
    pub id: String,
    /// Without the leading `/`.
    pub name: String,
    /// UTC, RFC 3339 with nanoseconds.
    pub created: String,
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// The first word of the command, and the others.
    pub path: String,
    pub args: Vec<String>,
    /// Merged with the image's.
    pub config: ContainerConfig,
    /// As given, defaults filled in.
    pub host_config: HostConfig,
    pub mounts: Vec<Mount>,
    #[serde(default)]
    pub networks: Places,
    /// The host's ports that lead into it, while it runs.
    #[serde(default)]
    pub ports: Vec<Claim>,
    pub state: State,
    /// The container's process as the host sees it; 0 when there is none.
    pub pid: i32,
    pub exit_code: i32,
    /// Why the last start failed.
    pub error: String,
    pub oom_killed: bool,
    /// RFC 3339; empty for never.
    pub started_at: String,
    pub finished_at: String,
    pub restart_count: i64,
    /// Stopped or killed by a request: `unless-stopped` leaves it alone.
    pub manually_stopped: bool,
    /// Being removed with its anonymous volumes: said before it begins, for the daemon that finishes it.
    #[serde(default)]
    pub is_removed_with_volumes: bool,
    /// Paused by a commit, which lets it go on; so does the daemon that finds it so.
    #[serde(default)]
    pub is_held: bool,
    /// Its limits are being changed: the kernel may have the old ones or the new.
    #[serde(default)]
    pub is_updating: bool,
    /// A copy that has not come to life yet: should the daemon die before it does, the next one removes it.
    #[serde(default)]
    pub is_unborn: bool,
    /// The dump under way, for the daemon that finds it so.
    #[serde(default)]
    pub dump: Option<checkpoint::UnderWay>,
    /// The checkpoint it sleeps in, for the next start.
    #[serde(default)]
    pub hibernation: Option<Hibernation>,
    /// Why it began anew instead of going on.
    #[serde(default)]
    pub thaw_failure: Option<CheckpointFailure>,
    #[serde(default)]
    pub scheduled: Scheduled,
    #[serde(default)]
    pub revival: Revival,
    /// Its last life was ended by the daemon's own end: that is no crash.
    #[serde(default)]
    pub is_ended_by_daemon: bool,
    /// On its way to another daemon, or given to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving: Option<migrate::Leaving>,
    /// On its way from another daemon: not ours to run until that has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arriving: Option<migrate::Arriving>,
    /// The ticket of the move that has not brought all of its memory: the sender keeps that until it is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<String>,
    /// Which `rw-<n>` directory holds the writable layer: a restore brings its own.
    pub layer: u32,
}

/// A container in the daemon's memory.
#[derive(Debug)]
pub struct Container {
    pub id: String,
    /// `containers/<id>` under the data root.
    pub dir: PathBuf,
    /// Held by the one request that is changing the state.
    pub action: Mutex<()>,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Who looks into its files, by the layer looked at: a start must mount them as they do.
    views: Mutex<Vec<(u32, Weak<View>)>>,
    /// What keeps the roots of lives that are over mounted, by layer.
    holds: Mutex<Vec<(u32, Weak<Hold>)>>,
    /// Its files are being deleted: whoever copies to or from them is to end.
    is_gone: AtomicBool,
    /// Rung by [`Container::notify`], for those that wait for more than the container.
    bells: Mutex<Vec<Weak<Bell>>>,
}

/// What [`Container::lock`] guards.
#[derive(Debug, Default)]
pub struct Inner {
    pub record: Record,
    /// The living form, while there is one.
    pub sandbox: Option<Arc<Sandbox>>,
    /// Its life is over, and what it had on the kernel is being removed.
    pub is_releasing: bool,
    /// Why nobody can speak to its shim, which lives.
    pub out_of_reach: Option<String>,
    /// Between the request to start and its outcome: an exit waits until it is known.
    pub is_starting: bool,
    /// A restart by request is under way: the exit in its middle does not remove a `--rm` container.
    pub is_kept: bool,
    /// Attached before there was a process.
    pub pending: Vec<Attachment>,
    pub execs: BTreeMap<String, ExecState>,
    /// Of a container that has a check, once it has been started.
    pub health: Option<Box<health::Monitor>>,
    waiters: Vec<(WaitFor, Weak<Waiter>)>,
    /// When the current run began, for the restart policy's back-off.
    pub run_began: Option<std::time::Instant>,
    /// Counts the lives that this daemon began or found.
    pub run: u64,
    /// The restart policy's current pause.
    pub backoff: Backoff,
}

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    NextExit,
    Removed,
}

/// What a waiter is told.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub exit_code: i32,
    pub error: Option<String>,
}

/// Somebody who waits for an outcome; dropping it ends the wait.
#[derive(Debug)]
pub struct Waiter {
    outcome: OnceLock<Outcome>,
    /// Rings when there is an outcome.
    pub bell: Bell,
}

impl Waiter {
    /// The outcome, once there is one.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }
}

impl Container {
    pub fn new(dir: PathBuf, record: Record) -> Container {
        Container {
            id: record.id.clone(),
            dir,
            action: Mutex::new(()),
            inner: Mutex::new(Inner { record, ..Inner::default() }),
            changed: Condvar::new(),
            views: Mutex::default(),
            holds: Mutex::default(),
            is_gone: AtomicBool::new(false),
            bells: Mutex::default(),
        }
    }

    /// A look at `layer` that somebody still has; the caller holds the action lock.
    pub fn view_of(&self, layer: u32) -> Option<Arc<View>> {
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.iter().filter(|(of, _)| *of == layer).find_map(|(_, view)| view.upgrade())
    }

    /// Remembers a look as long as somebody has it.
    pub fn remember_view(&self, layer: u32, view: &Arc<View>) {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|(_, view)| view.strong_count() > 0);
        views.push((layer, Arc::downgrade(view)));
    }

    /// Remembers what keeps the root of `layer` mounted after its end.
    pub fn remember_hold(&self, layer: u32, hold: &Arc<Hold>) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|(_, hold)| hold.strong_count() > 0);
        holds.push((layer, Arc::downgrade(hold)));
    }

    /// Lets go of the root of `layer`, which somebody is about to mount again. Blocks for as long as the disk takes.
    pub fn release_holds(&self, layer: u32) {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let ours = holds.into_iter().filter(|(of, _)| *of == layer);
        ours.filter_map(|(_, hold)| hold.upgrade()).for_each(|hold| hold.release());
    }

    /// Ends the copying to and from its files.
    pub fn mark_gone(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }

    /// Fails once the files of `layer` are being deleted: the container is removed, or was restored from a
    /// checkpoint, which brings its own.
    pub fn check_there(&self, layer: u32) -> std::io::Result<()> {
        if self.is_gone.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("the container was removed meanwhile"));
        }
        if self.lock().record.layer != layer {
            return Err(std::io::Error::other("the container was restored from a checkpoint meanwhile"));
        }
        Ok(())
    }

    /// The container's state, for a moment.
    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        // A handler that panicked while holding it changed fields one by one, each valid by itself.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`lock`](Container::lock), if nobody has it now.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Some(inner),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Takes the right to change the state; blocks while another request has it.
    pub fn begin(&self) -> MutexGuard<'_, ()> {
        self.action.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the state changed to whoever waits for it.
    pub fn notify(&self) {
        self.changed.notify_all();
        self.lock_bells().iter().filter_map(Weak::upgrade).for_each(|bell| bell.ring());
    }

    fn lock_bells(&self) -> MutexGuard<'_, Vec<Weak<Bell>>> {
        // A list is whole between any two of its operations.
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A bell that rings whenever the state changes.
    ///
    /// # Errors
    /// System, when there are no descriptors left.
    pub fn watch(&self) -> Result<Arc<Bell>> {
        let bell = Arc::new(Bell::new()?);
        let mut bells = self.lock_bells();
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(&bell));
        Ok(bell)
    }

    /// Waits until `done` holds, at most `timeout`; returns whether it does.
    pub fn wait_until(&self, timeout: Option<std::time::Duration>, done: impl Fn(&Inner) -> bool) -> bool {
        let inner = self.lock();
        match timeout {
            None => {
                let _inner = self
                    .changed
                    .wait_while(inner, |inner| !done(inner))
                    .unwrap_or_else(PoisonError::into_inner);
                true
            }
            Some(timeout) => {
                let (_inner, outcome) = self
                    .changed
                    .wait_timeout_while(inner, timeout, |inner| !done(inner))
                    .unwrap_or_else(PoisonError::into_inner);
                !outcome.timed_out()
            }
        }
    }

    /// A copy of what is on disk about it.
    pub fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// How it fares; `None` without a check.
    pub fn health(&self) -> Option<health::Status> {
        self.lock().health.as_ref().map(|monitor| monitor.status)
    }

    /// The name in messages: the container's own, never the id alone.
    pub fn name(&self) -> String {
        self.lock().record.name.clone()
    }

    /// The writable layer's directory.
    pub fn layer_dir(&self, layer: u32) -> PathBuf {
        self.dir.join(format!("rw-{layer}"))
    }

    /// Where the shim records the exit.
    pub fn exit_path(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    /// Writes the record; the caller holds the lock, so that the last change is the last written.
    pub fn save(&self, inner: &Inner) -> Result<()> {
        state_dir::save(&self.dir.join("container.json"), &inner.record, inner.record.durability())
    }
}

impl Record {
    /// `--rm` containers do not outlive their run: nothing about them needs to survive a power cut.
    pub fn durability(&self) -> Durability {
        if self.host_config.auto_remove { Durability::Renamed } else { Durability::Synced }
    }

    /// The attributes of every event about it.
    pub fn event_attributes(&self) -> BTreeMap<String, String> {
        let mut attributes = self.config.labels.clone();
        attributes.insert("image".to_owned(), self.config.image.clone());
        attributes.insert("name".to_owned(), self.name.clone());
        attributes
    }
}

impl Inner {
    /// Whether `action` may be taken now; the refusal carries Docker's class and text.
    pub fn check(&self, action: Action) -> Result<State> {
        state::next(self.record.state, action).map_err(|denied| self.refusal(action, denied))
    }

    /// The living form.
    ///
    /// # Errors
    /// Conflict: there is none, or none that can be spoken to.
    pub fn living(&self) -> Result<Arc<Sandbox>> {
        let id = &self.record.id;
        match (&self.sandbox, &self.out_of_reach) {
            (Some(sandbox), _) => Ok(Arc::clone(sandbox)),
            (None, Some(reason)) => Err(Error::conflict(format!("container {id} is out of reach: {reason}"))),
            (None, None) => Err(Error::conflict(format!("container {id} is not running"))),
        }
    }

    fn refusal(&self, action: Action, denied: Denied) -> Error {
        let (id, name) = (&self.record.id, &self.record.name);
        // Compat: Docker's texts; scripts and SDK tests look for parts of them.
        let reason = match (action, denied) {
            (_, Denied::AlreadyRunning) => {
                return Error::not_modified(format!("container {name:?} is already running"));
            }
            (_, Denied::AlreadyStopped) => {
                return Error::not_modified(format!("container {name:?} is not running"));
            }
            (Action::Start | Action::Restore, Denied::IsPaused) => {
                "cannot start a paused container, try unpause instead".to_owned()
            }
            (Action::Start | Action::Restore, Denied::IsRemoving) => {
                "container is marked for removal and cannot be started".to_owned()
            }
            (Action::Restore, Denied::IsRunning) => {
                format!("cannot restore container {name:?}: it is running: stop it first")
            }
            (Action::Remove, Denied::IsRunning) => format!(
                "cannot remove container \"/{name}\": container is running: stop the container before removing or force remove"
            ),
            (Action::Remove, Denied::IsPaused) => {
                format!("cannot remove container \"/{name}\": container is paused and must be unpaused first")
            }
            (Action::Remove, Denied::IsRestarting) => format!(
                "cannot remove container \"/{name}\": container is restarting: stop the container before removing or force remove"
            ),
            (Action::Remove, Denied::IsRemoving) => {
                format!("removal of container {name} is already in progress")
            }
            (Action::Kill, Denied::NotRunning) => {
                format!("cannot kill container: {name}: container {id} is not running")
            }
            (Action::Exec, Denied::IsPaused) => {
                format!("container {name} is paused, unpause the container before exec")
            }
            (Action::Attach, Denied::IsPaused) => {
                format!("container {name} is paused, unpause the container before attach")
            }
            (Action::Checkpoint, Denied::IsPaused) => {
                format!("cannot checkpoint container {name}: it is paused: unpause it first")
            }
            (Action::Checkpoint, Denied::NotRunning) => {
                format!("cannot checkpoint container {name}: container {id} is not running")
            }
            (_, Denied::NotRunning) => format!("container {id} is not running"),
            (_, Denied::IsRunning) => format!("container {id} is running"),
            (_, Denied::IsPaused) => format!("container {id} is paused"),
            (_, Denied::AlreadyPaused) => format!("container {name} is already paused"),
            (_, Denied::NotPaused) => format!("container {name} is not paused"),
            (_, Denied::IsRestarting) => {
                format!("container {id} is restarting, wait until the container is running")
            }
            (_, Denied::IsRemoving) => format!("container {id} is marked for removal"),
            (_, Denied::IsDead) => format!("container {id} is dead: remove it"),
        };
        Error::conflict(reason)
    }

    /// Whether `wait` for "not running" has nothing to wait for. The restart policy's pause is not the end.
    pub fn is_at_rest(&self) -> bool {
        !self.record.state.is_alive() && self.record.state != State::Restarting && !self.is_starting
    }

    /// Registers a waiter. Those that were dropped are forgotten here, so that there are never more of them
    /// than there were waiters at once.
    ///
    /// # Errors
    /// System, when there are no descriptors left.
    pub fn wait_for(&mut self, what: WaitFor) -> Result<Arc<Waiter>> {
        let waiter = Arc::new(Waiter { outcome: OnceLock::new(), bell: Bell::new()? });
        self.waiters.retain(|(_, waiter)| waiter.strong_count() > 0);
        self.waiters.push((what, Arc::downgrade(&waiter)));
        Ok(waiter)
    }

    /// Tells the waiters of an exit.
    pub fn release_exit(&mut self, outcome: &Outcome) {
        self.release(outcome, |what| what == WaitFor::NextExit);
    }

    /// Tells everyone: the container is gone, or could not be removed.
    pub fn release_all(&mut self, outcome: &Outcome) {
        self.release(outcome, |_| true);
    }

    fn release(&mut self, outcome: &Outcome, which: impl Fn(WaitFor) -> bool) {
        self.waiters.retain(|(what, waiter)| {
            if !which(*what) {
                return true;
            }
            // A waiter that has gone away needs no answer.
            if let Some(waiter) = waiter.upgrade() {
                let _ = waiter.outcome.set(outcome.clone());
                waiter.bell.ring();
            }
            false
        });
    }
}

/// A connected pair: one end for the client's pump, the other for the shim.
pub fn stream_pair() -> Result<(std::os::unix::net::UnixStream, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()
        .map_err(|cause| Error::system("create a socket pair for an attached client", cause))?;
    Ok((ours, theirs.into()))
}
