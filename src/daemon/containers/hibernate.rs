//! Hibernation: a stop that freezes a container to disk, and a start that lets it go on from there.
//!
//! ```text
//!  running ── stop (--stop-mode=checkpoint), the daemon's end (or --checkpoint-on-shutdown) ──► exited, hibernated
//!     ▲                                                                                            │ start, the
//!     ├── thawed: the checkpoint is used up on record, then deleted ◄──────────────────────────────┤ daemon's start
//!     └── cannot be thawed: started anew, the reason in log, event and inspect; the checkpoint stays ◄┘
//! ```
//!
//! A checkpoint is thawed once. That a thaw begins is on disk before it does: should the machine go down before its
//! end is known, nobody can tell how far the processes came, and the container begins anew. A daemon that dies in
//! the middle finds the shim, or its last word, or the same boot and neither: then nothing has run.
//!
//! What does not hibernate: `--rm` containers, which would take the checkpoint with them, and anything told to stop by
//! a signal or to restart.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, How, Purpose};
use super::container::{Container, Inner, Record};
use super::create::now;
use super::lifecycle;
use super::state::{Action, State};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::metrics;
use crate::daemon::names::CheckpointId;
use crate::http::api::checkpoint::CheckpointCreate;
use crate::http::api::checkpoint_policy::{CheckpointFailure, CheckpointPolicy};

/// What is done instead of a thaw, in the log's words.
pub const ANEW: &str = "BEGINS ANEW, the checkpoint is kept";

/// Where a container sleeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hibernation {
    /// The checkpoint's name, among the container's own.
    pub checkpoint: String,
    /// The daemon's end made it: the next daemon thaws it, whatever the restart policy says.
    pub by_daemon: bool,
    /// It is to be paused again.
    pub was_paused: bool,
    /// The boot in which its thaw began; empty before.
    pub begun: String,
    /// It runs again: what is left of the checkpoint is to be deleted.
    pub is_used_up: bool,
}

impl Hibernation {
    /// Why it must not be thawed any more.
    fn obstacle(&self, boot_id: &str) -> Option<String> {
        (!self.begun.is_empty() && self.begun != boot_id).then(|| {
            "an earlier thaw was cut off by the machine's end, and how far it came is not known".to_owned()
        })
    }
}

/// Whether the container is frozen, by a stop by hand or by the daemon's end (`by_daemon`).
pub fn is_wanted(record: &Record, by_daemon: bool, is_daemons_way: bool) -> bool {
    let host = &record.host_config;
    matches!(record.state, State::Running | State::Paused)
        && !host.auto_remove
        && match host.checkpoint_policy.stop_mode.as_str() {
            "checkpoint" => true,
            "" => by_daemon && is_daemons_way,
            _ => false,
        }
}

/// Whether it sleeps because the daemon ended: the next one wakes it, whatever its policy is.
pub fn is_by_daemon(record: &Record) -> bool {
    record.hibernation.as_ref().is_some_and(|asleep| asleep.by_daemon && !asleep.is_used_up)
}

/// Checks a policy by itself and beside `--rm`.
///
/// # Errors
/// InvalidParameter.
pub fn check(policy: &CheckpointPolicy, auto_remove: bool) -> Result<()> {
    if !matches!(policy.stop_mode.as_str(), "" | "signal" | "checkpoint") {
        return Err(Error::invalid(format!(
            "invalid stop mode {:?}: use 'signal' or 'checkpoint'",
            policy.stop_mode
        )));
    }
    if auto_remove && policy.stop_mode == "checkpoint" {
        return Err(Error::invalid(
            "can't set 'AutoRemove' and the stop mode 'checkpoint' at the same time: the checkpoint would be removed \
             with the container",
        ));
    }
    Ok(())
}

/// Stops a container by freezing it.
///
/// # Errors
/// NotModified when it does not run; what keeps it from being frozen: it then runs on.
pub fn stop(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let began = Instant::now();
    container.lock().check(Action::Stop)?;
    if let Err(error) = freeze(engine, container, false) {
        // Somebody else may have stopped it meanwhile.
        container.lock().check(Action::Stop)?;
        return Err(Error {
            message: format!(
                "{}: it runs on; stop it by a signal (stop --signal TERM), or for good with update --stop-mode signal",
                error.message
            ),
            ..error
        });
    }
    engine.metrics.done(metrics::Action::Stop, began);
    publish(engine, &container.lock(), "stop", &[]);
    Ok(())
}

/// Freezes a container to disk, for its next start.
///
/// # Errors
/// As [`checkpoint::create`]; it then runs on, or is paused as it was.
pub fn freeze(engine: &Arc<Engine>, container: &Arc<Container>, by_daemon: bool) -> Result<()> {
    let was_paused = container.lock().record.state == State::Paused;
    if was_paused {
        lifecycle::unpause(engine, container)?;
    }
    let request = CheckpointCreate {
        checkpoint_id: name("hibernated", jiff::Timestamp::now()),
        exit: true,
        ..CheckpointCreate::default()
    };
    let purpose = Purpose::Hibernation { by_daemon, was_paused };
    let result = checkpoint::create_for(engine, container, &request, purpose);
    match &result {
        Ok(()) => {
            let inner = container.lock();
            publish(engine, &inner, "hibernate", &[("checkpoint", &request.checkpoint_id)]);
        }
        Err(_) if was_paused => {
            if let Err(error) = lifecycle::pause(engine, container) {
                log::warn!("pause container {:?} again: {error}", container.name());
            }
        }
        Err(_) => {}
    }
    result
}

/// A checkpoint's name that says when it was made, to the millisecond: in the order of time by alphabet.
pub fn name(kind: &str, at: jiff::Timestamp) -> String {
    format!("{kind}-{}", at.strftime("%Y%m%dT%H%M%S%3fZ"))
}

/// Starts a container: goes on from where it was frozen, if it was, or begins anew. The caller holds the action lock.
///
/// # Errors
/// As [`lifecycle::start_locked`]; a thaw that fails is told, and no error.
pub fn wake(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let hibernation = {
        let inner = container.lock();
        inner.check(Action::Start)?;
        inner.record.hibernation.clone().filter(|hibernation| !hibernation.is_used_up)
    };
    let Some(hibernation) = hibernation else {
        return lifecycle::start_locked(engine, container, Action::Start, None);
    };
    match thaw(engine, container, &hibernation) {
        Ok(()) => {
            use_up(container);
            if hibernation.was_paused {
                pause_again(engine, container);
            }
            Ok(())
        }
        Err(error) => {
            tell_failure(engine, container, &hibernation.checkpoint, &error, ANEW);
            lifecycle::start_locked(engine, container, Action::Start, None)
        }
    }
}

fn thaw(engine: &Arc<Engine>, container: &Arc<Container>, hibernation: &Hibernation) -> Result<()> {
    let boot_id = checkpoint::manifest::boot_id();
    if let Some(obstacle) = hibernation.obstacle(&boot_id) {
        return Err(Error::conflict(obstacle));
    }
    {
        let mut inner = container.lock();
        if let Some(hibernation) = &mut inner.record.hibernation {
            hibernation.begun = boot_id;
        }
        container.save(&inner)?;
    }
    let name = &hibernation.checkpoint;
    checkpoint::restore_locked(engine, container, name, "", How::default(), Action::Start)
}

/// Says that and why the container does not go on from a checkpoint, which stays as one that anybody may look at, and
/// what is done instead.
pub fn tell_failure(engine: &Engine, container: &Container, checkpoint: &str, error: &Error, instead: &str) {
    let mut inner = container.lock();
    let name = inner.record.name.clone();
    log::error!("container {name:?} could not be thawed from checkpoint {checkpoint} and {instead}: {error}");
    inner.record.hibernation = None;
    inner.record.thaw_failure = Some(CheckpointFailure { at: now(), error: error.message.clone() });
    publish(engine, &inner, "thaw-failed", &[("checkpoint", checkpoint), ("error", &error.message)]);
    if let Err(error) = container.save(&inner) {
        log::error!("{error}");
    }
}

/// What a start makes of the hibernation on record. `thawed` is the checkpoint it came from, if any.
pub fn started(record: &mut Record, thawed: Option<&str>) {
    if thawed.is_some() {
        record.thaw_failure = None;
    }
    match &mut record.hibernation {
        Some(hibernation) if thawed == Some(hibernation.checkpoint.as_str()) => hibernation.is_used_up = true,
        // It goes on from elsewhere: what it slept in is a checkpoint like any other.
        other => *other = None,
    }
}

/// Deletes the checkpoint that a container has gone on from. The caller holds the action lock, or nobody knows the
/// container yet.
pub fn use_up(container: &Container) {
    let used = container.lock().record.hibernation.clone().filter(|hibernation| hibernation.is_used_up);
    let Some(used) = used else { return };
    if let Err(error) = delete(container, &used.checkpoint) {
        // The next start of the daemon tries again.
        log::warn!("{error}");
        return;
    }
    forget(container);
}

/// Drops what a container sleeps in, because it was killed; false when it does not sleep.
///
/// # Errors
/// System, when the checkpoint cannot be deleted.
pub fn discard(engine: &Engine, container: &Container) -> Result<bool> {
    let _action = container.begin();
    let asleep = {
        let inner = container.lock();
        let is_at_rest = inner.is_at_rest();
        inner.record.hibernation.clone().filter(|hibernation| is_at_rest && !hibernation.is_used_up)
    };
    let Some(asleep) = asleep else { return Ok(false) };
    // Forgotten first: what is half deleted must not be thawed.
    forget(container);
    delete(container, &asleep.checkpoint)?;
    publish(engine, &container.lock(), "kill", &[("checkpoint", &asleep.checkpoint), ("signal", "9")]);
    Ok(true)
}

fn delete(container: &Container, name: &str) -> Result<()> {
    match checkpoint::delete_locked(container, &CheckpointId::parse(name)?, "") {
        Err(error) if error.class == crate::http::api::Class::NotFound => Ok(()),
        other => other,
    }
}

fn forget(container: &Container) {
    let mut inner = container.lock();
    inner.record.hibernation = None;
    if let Err(error) = container.save(&inner) {
        log::warn!("{error}");
    }
}

fn pause_again(engine: &Arc<Engine>, container: &Arc<Container>) {
    if let Err(error) = lifecycle::pause_locked(engine, container) {
        log::error!("pause container {:?} again: {error}", container.name());
    }
}

fn publish(engine: &Engine, inner: &Inner, action: &str, more: &[(&str, &str)]) {
    let mut attributes = inner.record.event_attributes();
    attributes.extend(more.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    engine.events.publish("container", action, &inner.record.id, attributes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::HostConfig;

    fn container(stop_mode: &str, state: State) -> Record {
        let checkpoint_policy =
            CheckpointPolicy { stop_mode: stop_mode.to_owned(), ..CheckpointPolicy::default() };
        let host_config = HostConfig { checkpoint_policy, ..HostConfig::default() };
        Record { host_config, state, ..Record::default() }
    }

    #[test]
    fn who_is_frozen_by_what() {
        let by_hand = |mode| is_wanted(&container(mode, State::Running), false, true);
        assert_eq!([by_hand(""), by_hand("signal"), by_hand("checkpoint")], [false, false, true]);
        let by_daemon = |mode, way| is_wanted(&container(mode, State::Running), true, way);
        assert_eq!([by_daemon("", true), by_daemon("", false)], [true, false]);
        assert_eq!([by_daemon("signal", true), by_daemon("checkpoint", false)], [false, true]);
        assert!(is_wanted(&container("checkpoint", State::Paused), false, false));
        assert!(!is_wanted(&container("checkpoint", State::Restarting), true, true));
        let mut removed = container("", State::Running);
        removed.host_config.auto_remove = true;
        assert!(!is_wanted(&removed, true, true));
    }

    #[test]
    fn modes_are_known_by_name() {
        let policy =
            |mode: &str| CheckpointPolicy { stop_mode: mode.to_owned(), ..CheckpointPolicy::default() };
        assert!(check(&policy("freeze"), false).unwrap_err().message.contains("'checkpoint'"));
        check(&policy("checkpoint"), false).unwrap();
        assert!(check(&policy("checkpoint"), true).unwrap_err().message.contains("AutoRemove"));
        check(&policy("signal"), true).unwrap();
    }

    #[test]
    fn names_sort_by_time() {
        let at = |text: &str| name("hibernated", text.parse().unwrap());
        assert_eq!(at("2026-01-02T03:04:05.006Z"), "hibernated-20260102T030405006Z");
        assert!(at("2026-01-02T03:04:05.006Z") < at("2026-01-02T03:04:05.007Z"));
        CheckpointId::parse(&at("2026-01-02T03:04:05Z")).unwrap();
    }

    #[test]
    fn a_thaw_cut_off_by_a_reboot_is_not_tried_again() {
        let mut asleep = Hibernation::default();
        assert!(asleep.obstacle("boot").is_none());
        asleep.begun = "boot".to_owned();
        assert!(asleep.obstacle("boot").is_none());
        assert!(asleep.obstacle("another").is_some());
    }

    #[test]
    fn a_start_uses_up_what_it_came_from_and_nothing_else() {
        let asleep = || Record {
            hibernation: Some(Hibernation { checkpoint: "one".into(), ..Hibernation::default() }),
            ..Record::default()
        };
        let mut record = asleep();
        started(&mut record, Some("one"));
        assert!(record.hibernation.unwrap().is_used_up);
        for other in [None, Some("two")] {
            let mut record = asleep();
            started(&mut record, other);
            assert!(record.hibernation.is_none());
        }
    }
}
