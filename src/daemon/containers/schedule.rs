//! Scheduled checkpoints: `--checkpoint-every` and `--checkpoint-keep`.
//!
//! One thread for all containers sleeps until the earliest checkpoint is due, or something changed; there is none
//! while no container that runs has a schedule. When a checkpoint is due follows from the record alone, so that the
//! next daemon goes on where this one was. A container never pays for a checkpoint that fails: it runs on, and the
//! next attempt comes later, up to an hour.
//!
//! Only what the schedule made, and the record says so, is removed when there are more than are to be kept.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, Purpose};
use super::container::{Container, Record};
use super::create::now;
use super::hibernate;
use super::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::names::CheckpointId;
use crate::http::api::Class;
use crate::http::api::checkpoint::CheckpointCreate;
use crate::http::api::checkpoint_policy::{CheckpointFailure, CheckpointPolicy};

/// How many are kept unless told otherwise.
const KEEP: i64 = 3;
/// The most that may be asked to be kept: what is more is a slip of the hand.
const MOST: i64 = 1000;
/// The shortest interval, in nanoseconds.
const LEAST_NS: i64 = 1_000_000_000;
/// The longest pause after failures, unless the interval itself is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Checkpoints written at once.
const AT_ONCE: usize = 2;

/// What a container's schedule has done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduled {
    /// Its checkpoints, oldest first.
    pub names: Vec<String>,
    /// When the last attempt was over; RFC 3339, empty for never.
    pub last: String,
    /// Failures since the last success.
    pub failures: u32,
    pub failure: Option<CheckpointFailure>,
}

/// Checks what a policy says of the schedule.
///
/// # Errors
/// InvalidParameter.
pub fn check(policy: &CheckpointPolicy) -> Result<()> {
    if policy.every.is_some_and(|every| every != 0 && every < LEAST_NS) {
        return Err(Error::invalid("invalid checkpoint interval: it cannot be less than a second"));
    }
    if policy.keep.is_some_and(|keep| !(1..=MOST).contains(&keep)) {
        return Err(Error::invalid(format!("invalid number of checkpoints to keep: use 1 to {MOST}")));
    }
    Ok(())
}

/// The thread over all schedules.
#[derive(Debug, Default)]
pub struct Schedule {
    inner: Mutex<Clock>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct Clock {
    has_thread: bool,
    /// Counts what may have changed when something is due.
    rings: u64,
    /// Ids of containers whose checkpoint is being written.
    at_work: BTreeSet<String>,
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, Clock> {
        // Each change is one field's: a panic elsewhere leaves it whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a container with a schedule began to run, or that its schedule changed.
    pub fn ring(&self, engine: &Arc<Engine>) {
        let mut clock = self.lock();
        clock.rings += 1;
        if !clock.has_thread {
            let engine = Arc::clone(engine);
            match crate::daemon::spawn("schedule", move || run(&engine)) {
                Ok(()) => clock.has_thread = true,
                // The next one tries again.
                Err(error) => log::error!("schedule checkpoints: {error}"),
            }
        }
        drop(clock);
        self.rung.notify_one();
    }

    /// Waits for a ring after `seen`, at most `limit`.
    fn wait(&self, seen: u64, limit: Option<Duration>) {
        let clock = self.lock();
        let is_quiet = |clock: &mut Clock| clock.rings == seen;
        match limit {
            Some(limit) => drop(self.rung.wait_timeout_while(clock, limit, is_quiet)),
            None => drop(self.rung.wait_while(clock, is_quiet)),
        }
    }
}

/// Whether a record asks for checkpoints.
pub fn has_schedule(record: &Record) -> bool {
    interval(record).is_some()
}

/// Takes up the schedules of an earlier daemon.
pub fn recover(engine: &Arc<Engine>) {
    if engine.containers.all().iter().any(|container| has_schedule(&container.lock().record)) {
        engine.schedule.ring(engine);
    }
}

fn interval(record: &Record) -> Option<Duration> {
    let every = record.host_config.checkpoint_policy.every.unwrap_or(0);
    u64::try_from(every).ok().filter(|every| *every > 0).map(Duration::from_nanos)
}

/// How long from the last attempt, or from the start, to the next one.
fn pause(interval: Duration, failures: u32) -> Duration {
    interval.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE.max(interval))
}

/// How long until a checkpoint of a container is due; `None` while it has no schedule or does not run.
fn left(record: &Record, now: jiff::Timestamp) -> Option<Duration> {
    let interval = interval(record).filter(|_| record.state == State::Running)?;
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let since = time(&record.scheduled.last).max(time(&record.started_at))?;
    // A clock that was set back must not put it off for long.
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    Some(pause(interval, record.scheduled.failures).saturating_sub(age))
}

fn run(engine: &Arc<Engine>) {
    let schedule = &engine.schedule;
    loop {
        let seen = schedule.lock().rings;
        if engine.is_stopping.load(Ordering::SeqCst) {
            return;
        }
        let now = jiff::Timestamp::now();
        let (mut earliest, mut has_any): (Option<Duration>, bool) = (None, false);
        for container in engine.containers.all() {
            let Some(left) = left(&container.lock().record, now) else { continue };
            has_any = true;
            let mut clock = schedule.lock();
            if clock.at_work.contains(&container.id) || left.is_zero() && clock.at_work.len() >= AT_ONCE {
                // Its end, or that of another, rings.
                continue;
            }
            if !left.is_zero() {
                earliest = Some(earliest.map_or(left, |earliest| earliest.min(left)));
                continue;
            }
            clock.at_work.insert(container.id.clone());
            drop(clock);
            begin(engine, &container);
        }
        let mut clock = schedule.lock();
        if !has_any && clock.at_work.is_empty() && clock.rings == seen {
            clock.has_thread = false;
            return;
        }
        drop(clock);
        schedule.wait(seen, earliest);
    }
}

fn begin(engine: &Arc<Engine>, container: &Arc<Container>) {
    let (working, on) = (Arc::clone(engine), Arc::clone(container));
    let work = move || {
        make(&working, &on);
        working.schedule.lock().at_work.remove(&on.id);
        working.schedule.ring(&working);
    };
    if let Err(error) = crate::daemon::spawn("checkpoint", work) {
        failed(engine, container, &error);
        engine.schedule.lock().at_work.remove(&container.id);
    }
}

/// Writes a checkpoint that is due, and removes the oldest.
fn make(engine: &Arc<Engine>, container: &Arc<Container>) {
    let request = CheckpointCreate {
        checkpoint_id: hibernate::name("scheduled", jiff::Timestamp::now()),
        ..CheckpointCreate::default()
    };
    match checkpoint::create_for(engine, container, &request, Purpose::Schedule) {
        Ok(()) => {
            if let Err(error) = remove_oldest(container) {
                log::warn!("remove old checkpoints of container {:?}: {error}", container.name());
            }
        }
        // It ended, or was paused, meanwhile.
        Err(_) if container.lock().record.state != State::Running => {}
        Err(error) => failed(engine, container, &error),
    }
}

/// Notes a checkpoint that the schedule has made.
pub fn note(record: &mut Record, name: &str) {
    let scheduled = &mut record.scheduled;
    scheduled.names.push(name.to_owned());
    scheduled.last = now();
    (scheduled.failures, scheduled.failure) = (0, None);
}

fn failed(engine: &Engine, container: &Container, error: &Error) {
    let mut inner = container.lock();
    let scheduled = &mut inner.record.scheduled;
    scheduled.failures = scheduled.failures.saturating_add(1);
    scheduled.last = now();
    scheduled.failure = Some(CheckpointFailure { at: now(), error: error.message.clone() });
    let next = interval(&inner.record).map(|interval| pause(interval, inner.record.scheduled.failures));
    log::error!(
        "scheduled checkpoint of container {:?}: {error}: it runs on; tried again in {:?}",
        inner.record.name,
        next.unwrap_or_default()
    );
    let mut attributes = inner.record.event_attributes();
    attributes.insert("error".to_owned(), error.message.clone());
    engine.events.publish("container", "checkpoint-failed", &container.id, attributes);
    if let Err(error) = container.save(&inner) {
        log::error!("{error}");
    }
}

/// The names beyond what is to be kept, oldest first.
fn beyond(record: &Record) -> &[String] {
    let keep = record.host_config.checkpoint_policy.keep.unwrap_or(KEEP);
    let names = &record.scheduled.names;
    &names[..names.len().saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX))]
}

fn remove_oldest(container: &Container) -> Result<()> {
    let _action = container.begin();
    // What somebody has removed by hand does not count.
    let dir = container.dir.join("checkpoints");
    container.lock().record.scheduled.names.retain(|name| dir.join(name).exists());
    let doomed = beyond(&container.lock().record).to_vec();
    for name in &doomed {
        match checkpoint::delete_locked(container, &CheckpointId::parse(name)?, "") {
            Err(error) if error.class != Class::NotFound => return Err(error),
            _ => container.lock().record.scheduled.names.retain(|one| one != name),
        }
    }
    let inner = container.lock();
    container.save(&inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::HostConfig;

    const MINUTE: i64 = 60_000_000_000;

    fn container(every: Option<i64>, keep: Option<i64>) -> Record {
        let checkpoint_policy = CheckpointPolicy { every, keep, ..CheckpointPolicy::default() };
        let host_config = HostConfig { checkpoint_policy, ..HostConfig::default() };
        let started_at = "2026-01-01T00:00:00Z".to_owned();
        Record { host_config, state: State::Running, started_at, ..Record::default() }
    }

    fn at(text: &str) -> jiff::Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn due_an_interval_after_the_start_or_the_last_attempt() {
        let mut record = container(Some(10 * MINUTE), None);
        assert_eq!(left(&record, at("2026-01-01T00:04:00Z")), Some(Duration::from_secs(360)));
        assert_eq!(left(&record, at("2026-01-01T00:10:00Z")), Some(Duration::ZERO));
        record.scheduled.last = "2026-01-01T00:10:02Z".to_owned();
        assert_eq!(left(&record, at("2026-01-01T00:11:02Z")), Some(Duration::from_secs(540)));
        // Started again since.
        record.started_at = "2026-01-01T00:11:00Z".to_owned();
        assert_eq!(left(&record, at("2026-01-01T00:11:00Z")), Some(Duration::from_secs(600)));
        // The clock was set back.
        assert_eq!(left(&record, at("2025-01-01T00:00:00Z")), Some(Duration::from_secs(600)));
        record.state = State::Paused;
        assert_eq!(left(&record, at("2026-01-01T00:11:00Z")), None);
        assert_eq!(left(&container(None, None), at("2026-01-01T00:11:00Z")), None);
        assert_eq!(left(&container(Some(0), None), at("2026-01-01T00:11:00Z")), None);
    }

    #[test]
    fn failures_put_the_next_attempt_off() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let pauses: Vec<Duration> = (0..5).map(|failures| pause(minutes(10), failures)).collect();
        assert_eq!(pauses, [minutes(10), minutes(20), minutes(40), minutes(60), minutes(60)]);
        assert_eq!(pause(minutes(120), 9), minutes(120));
        assert_eq!(pause(Duration::from_secs(1), u32::MAX), Duration::from_secs(1024));
    }

    #[test]
    fn the_oldest_beyond_what_is_kept_go() {
        let mut record = container(Some(MINUTE), Some(2));
        record.scheduled.names = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(beyond(&record), ["a"]);
        record.host_config.checkpoint_policy.keep = None;
        assert!(beyond(&record).is_empty());
        note(&mut record, "d");
        assert_eq!(beyond(&record), ["a"]);
    }

    #[test]
    fn slips_of_the_hand_are_refused() {
        let policy = |every, keep| CheckpointPolicy { every, keep, ..CheckpointPolicy::default() };
        for (every, keep) in [(Some(-1), None), (Some(10), None), (None, Some(0)), (None, Some(1001))] {
            assert!(check(&policy(every, keep)).is_err(), "{every:?} {keep:?}");
        }
        check(&policy(Some(0), Some(1))).unwrap();
        check(&policy(Some(LEAST_NS), None)).unwrap();
    }
}
