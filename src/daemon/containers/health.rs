//! Health checks: when each container is probed next, and what the outcomes amount to.
//!
//! ```text
//!  start, thaw, adoption ─► starting ── a probe succeeds ──► healthy ◄─┐
//!                              │                               │      │ one success
//!                              └── `Retries` failures in a row ┴─► unhealthy
//! ```
//!
//! One thread for all containers sleeps until the earliest probe is due; it is started with the first check
//! and parked while there is none. A probe runs on a thread of its own ([`probe`]) and ends with the
//! judgement of its outcome, which sets the time of the next: probes of one container never overlap.
//!
//! Each start, pause and end begins a new round; what belongs to an older one (a time, an outcome) is void.
//! What is known is kept in `health.json`, so that a daemon that finds a container alive goes on from there.
//!
//! Lock order: a container's short lock, then the schedule's.
//!
//! Source: Docker's health monitor.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::container::{Container, Inner};
use super::create::now;
use super::probe;
use super::state::State;
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir::{self, Durability, Found};
use crate::http::api::container::{ContainerConfig, Health, Healthcheck, HealthcheckResult};

/// Source: Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// Outcomes that are remembered.
const LOG_ENTRIES: usize = 5;
/// Shortest duration but zero, which means the default.
const LEAST_NS: i64 = 1_000_000;

/// How a container fares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

impl Status {
    /// The API's word.
    pub fn name(self) -> &'static str {
        match self {
            Status::Starting => "starting",
            Status::Healthy => "healthy",
            Status::Unhealthy => "unhealthy",
        }
    }

    /// What `ps` says in brackets.
    pub fn label(self) -> &'static str {
        match self {
            Status::Starting => "health: starting",
            other => other.name(),
        }
    }
}

/// What is known of a container that has a check.
#[derive(Debug, Default)]
pub struct Monitor {
    pub status: Status,
    failing_streak: i64,
    log: VecDeque<HealthcheckResult>,
    round: u64,
    due: Option<Instant>,
    /// What is on disk is a later dewar's.
    is_unwritten: bool,
}

impl Monitor {
    /// As `inspect` shows it.
    pub fn describe(&self) -> Health {
        Health {
            status: self.status.name().to_owned(),
            failing_streak: self.failing_streak,
            log: self.log.iter().cloned().collect(),
        }
    }

    /// Takes an outcome in; `is_excused` is a failure within the start period.
    fn judge(&mut self, outcome: HealthcheckResult, retries: i64, is_excused: bool) {
        let is_success = outcome.exit_code == 0;
        if self.log.len() == LOG_ENTRIES {
            self.log.pop_front();
        }
        self.log.push_back(outcome);
        if is_success {
            self.failing_streak = 0;
            self.status = Status::Healthy;
        } else if self.status != Status::Starting || !is_excused {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                self.status = Status::Unhealthy;
            }
        }
    }
}

/// A container's check, defaults filled in.
#[derive(Debug, PartialEq, Eq)]
struct Check {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Check {
    /// `None` when there is none, or it is switched off.
    fn of(config: &ContainerConfig) -> Option<Check> {
        let asked = config.healthcheck.as_ref()?;
        let (kind, words) = asked.test.split_first()?;
        let command = match kind.as_str() {
            "CMD" => words.to_vec(),
            "CMD-SHELL" => {
                let mut command = match config.shell.as_deref() {
                    Some(shell) if !shell.is_empty() => shell.to_vec(),
                    _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
                };
                command.extend(words.iter().cloned());
                command
            }
            "NONE" => return None,
            // Compat: an unknown kind is said in the log and otherwise no check, as Docker has it.
            other => {
                log::warn!("unknown health check type {other:?} (expected \"CMD\")");
                return None;
            }
        };
        let or = |nanos: i64, default: Duration| match u64::try_from(nanos) {
            Ok(nanos) if nanos > 0 => Duration::from_nanos(nanos),
            _ => default,
        };
        Some(Check {
            command,
            interval: or(asked.interval, INTERVAL),
            timeout: or(asked.timeout, TIMEOUT),
            start_period: or(asked.start_period, Duration::ZERO),
            start_interval: or(asked.start_interval, START_INTERVAL),
            retries: if asked.retries > 0 { asked.retries } else { RETRIES },
        })
    }

    /// The pause before the next probe of a container that has run for `age`.
    fn pause(&self, status: Status, age: Duration) -> Duration {
        if age < self.start_period && status == Status::Starting {
            self.start_interval
        } else {
            self.interval
        }
    }
}

/// Refuses what Docker refuses at create, in its words.
pub fn validate(asked: Option<&Healthcheck>) -> Result<()> {
    let Some(asked) = asked else { return Ok(()) };
    for (name, nanos) in [
        ("Interval", asked.interval),
        ("Timeout", asked.timeout),
        ("StartPeriod", asked.start_period),
        ("StartInterval", asked.start_interval),
    ] {
        if nanos != 0 && nanos < LEAST_NS {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if asked.retries < 0 {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

/// Fills in what the caller leaves open from what the image says, field by field.
pub fn merge(asked: &mut Option<Healthcheck>, image: Option<&Healthcheck>) {
    let Some(image) = image else { return };
    let Some(asked) = asked else {
        *asked = Some(image.clone());
        return;
    };
    if asked.test.is_empty() {
        asked.test.clone_from(&image.test);
    }
    for (field, given) in [
        (&mut asked.interval, image.interval),
        (&mut asked.timeout, image.timeout),
        (&mut asked.start_period, image.start_period),
        (&mut asked.start_interval, image.start_interval),
        (&mut asked.retries, image.retries),
    ] {
        if *field == 0 {
            *field = given;
        }
    }
}

/// Begins the checks of a container that has just come to life.
pub fn begin(engine: &Arc<Engine>, inner: &mut Inner) {
    if Check::of(&inner.record.config).is_none() {
        inner.health = None;
        return;
    }
    let monitor = inner.health.get_or_insert_default();
    // Compat: the outcomes of earlier lives stay in the log.
    monitor.status = Status::Starting;
    monitor.failing_streak = 0;
    resume(engine, inner);
}

/// `health.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// The life of the container it is about, by its beginning.
    started_at: String,
    status: String,
    failing_streak: i64,
    log: VecDeque<HealthcheckResult>,
}

const FILE: &str = "health.json";

/// Writes down what is known, for the next daemon. Not knowing it costs little: a failure is only told.
fn save(container: &Container, inner: &Inner) {
    let Some(monitor) = inner.health.as_ref().filter(|monitor| !monitor.is_unwritten) else { return };
    let record = Record {
        started_at: inner.record.started_at.clone(),
        status: monitor.status.name().to_owned(),
        failing_streak: monitor.failing_streak,
        log: monitor.log.clone(),
    };
    if let Err(error) = state_dir::save(&container.dir.join(FILE), &record, Durability::Renamed) {
        log::warn!("{error}");
    }
}

/// Reads what an earlier daemon knew.
pub fn restore(container: &Container, inner: &mut Inner) {
    if Check::of(&inner.record.config).is_none() {
        return;
    }
    let known = match state_dir::find::<Record>(&container.dir.join(FILE)) {
        Found::Value(known) => known,
        Found::Later(_) => {
            inner.health = Some(Box::new(Monitor { is_unwritten: true, ..Monitor::default() }));
            return;
        }
        Found::Nothing | Found::Broken => return,
    };
    let is_of_this_life = known.started_at == inner.record.started_at;
    let statuses = [Status::Starting, Status::Healthy, Status::Unhealthy];
    let status = statuses.into_iter().find(|status| is_of_this_life && status.name() == known.status);
    inner.health = Some(Box::new(Monitor {
        status: match inner.record.state.is_alive() {
            true => status.unwrap_or_default(),
            false => Status::Unhealthy,
        },
        failing_streak: if is_of_this_life { known.failing_streak } else { 0 },
        log: known.log.into_iter().take(LOG_ENTRIES).collect(),
        ..Monitor::default()
    }));
}

/// Goes on with the checks of a container that an earlier daemon started.
pub fn go_on(engine: &Arc<Engine>, inner: &mut Inner) {
    match inner.health {
        Some(_) => resume(engine, inner),
        None => begin(engine, inner),
    }
}

/// Sets the time of the next probe; what was under way is void.
pub fn resume(engine: &Arc<Engine>, inner: &mut Inner) {
    suspend(engine, inner);
    let Some(check) = Check::of(&inner.record.config) else { return };
    let age = inner.run_began.map(|began| began.elapsed()).unwrap_or_default();
    let Some(monitor) = &mut inner.health else { return };
    let due = Instant::now() + check.pause(monitor.status, age);
    monitor.due = Some(due);
    let entry = Entry { due, id: inner.record.id.clone(), round: monitor.round };
    engine.health.add(engine, entry);
}

/// No further probe until [`resume`]: the container is paused, or has ended.
pub fn suspend(engine: &Engine, inner: &mut Inner) {
    let Some(monitor) = &mut inner.health else { return };
    if let Some(due) = monitor.due.take() {
        engine.health.remove(&Entry { due, id: inner.record.id.clone(), round: monitor.round });
    }
    monitor.round += 1;
}

/// The container has ended.
pub fn end(engine: &Engine, inner: &mut Inner) {
    suspend(engine, inner);
    if let Some(monitor) = &mut inner.health {
        // Compat: what does not run is not well, says Docker.
        monitor.status = Status::Unhealthy;
    }
}

/// A probe to come.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    due: Instant,
    id: String,
    round: u64,
}

/// The probes to come, of all containers.
#[derive(Debug, Default)]
pub struct Schedule {
    inner: Mutex<Due>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Due {
    entries: BTreeSet<Entry>,
    has_thread: bool,
}

impl Schedule {
    fn lock(&self) -> MutexGuard<'_, Due> {
        // Each change is one insertion or removal: a panic elsewhere leaves the set whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, engine: &Arc<Engine>, entry: Entry) {
        let mut due = self.lock();
        due.entries.insert(entry);
        if !due.has_thread {
            let engine = Arc::clone(engine);
            match crate::daemon::spawn("health", move || run(&engine)) {
                Ok(()) => due.has_thread = true,
                // The next check tries again.
                Err(error) => log::error!("{error}"),
            }
        }
        drop(due);
        self.changed.notify_one();
    }

    fn remove(&self, entry: &Entry) {
        self.lock().entries.remove(entry);
    }

    /// Blocks until a probe is due.
    fn next(&self) -> Entry {
        let mut due = self.lock();
        loop {
            let Some(first) = due.entries.first() else {
                due = self.changed.wait(due).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = first.due.saturating_duration_since(Instant::now());
            if left.is_zero()
                && let Some(entry) = due.entries.pop_first()
            {
                return entry;
            }
            due = self.changed.wait_timeout(due, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread over all checks.
fn run(engine: &Arc<Engine>) {
    loop {
        let Entry { id, round, .. } = engine.health.next();
        if engine.is_stopping.load(Ordering::SeqCst) {
            return;
        }
        let Some(container) = engine.containers.by_id(&id) else { continue };
        let probing = Arc::clone(engine);
        let probed = Arc::clone(&container);
        if let Err(error) = crate::daemon::spawn("probe", move || check(&probing, &probed, round)) {
            log::error!("check the health of container {:?}: {error}", container.name());
            let mut inner = container.lock();
            if inner.health.as_ref().is_some_and(|monitor| monitor.round == round) {
                resume(engine, &mut inner);
            }
        }
    }
}

/// One probe and its judgement.
fn check(engine: &Arc<Engine>, container: &Arc<Container>, round: u64) {
    let (check, age) = {
        let mut inner = container.lock();
        let is_running = inner.record.state == State::Running;
        let age = inner.run_began.map(|began| began.elapsed()).unwrap_or_default();
        let Some(check) = Check::of(&inner.record.config) else { return };
        match &mut inner.health {
            Some(monitor) if monitor.round == round && is_running => monitor.due = None,
            _ => return,
        }
        (check, age)
    };
    let start = now();
    let (exit_code, output) = probe::run(engine, container, check.command, check.timeout)
        .unwrap_or_else(|error| (-1, error.message));
    engine.metrics.probed(exit_code == 0);
    let outcome = HealthcheckResult { start, end: now(), exit_code, output };
    let mut inner = container.lock();
    let Some(monitor) = inner.health.as_mut().filter(|monitor| monitor.round == round) else { return };
    let before = monitor.status;
    monitor.judge(outcome, check.retries, age < check.start_period);
    let after = monitor.status;
    if after != before {
        let action = format!("health_status: {}", after.name());
        let attributes = inner.record.event_attributes();
        engine.events.publish("container", &action, &container.id, attributes);
        container.notify();
    }
    save(container, &inner);
    resume(engine, &mut inner);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(healthcheck: Healthcheck) -> ContainerConfig {
        ContainerConfig { healthcheck: Some(healthcheck), ..ContainerConfig::default() }
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn outcome(exit_code: i32) -> HealthcheckResult {
        HealthcheckResult { exit_code, ..HealthcheckResult::default() }
    }

    #[test]
    fn the_command_is_found_by_its_kind() {
        let check =
            |test: &[&str]| Check::of(&config(Healthcheck { test: words(test), ..Default::default() }));
        assert_eq!(check(&["CMD", "a", "b"]).unwrap().command, ["a", "b"]);
        assert_eq!(check(&["CMD-SHELL", "a b"]).unwrap().command, ["/bin/sh", "-c", "a b"]);
        for none in [&["NONE"] as &[&str], &[], &["WHAT", "a"]] {
            assert_eq!(check(none), None, "{none:?}");
        }
        let mut own = config(Healthcheck { test: words(&["CMD-SHELL", "x"]), ..Default::default() });
        own.shell = Some(words(&["/bin/ash", "-ec"]));
        assert_eq!(Check::of(&own).unwrap().command, ["/bin/ash", "-ec", "x"]);
        assert_eq!(Check::of(&ContainerConfig::default()), None);
    }

    #[test]
    fn defaults_are_dockers_and_the_start_has_its_own_interval() {
        let test = words(&["CMD", "x"]);
        let check = Check::of(&config(Healthcheck { test: test.clone(), ..Default::default() })).unwrap();
        assert_eq!((check.interval, check.timeout, check.retries), (INTERVAL, TIMEOUT, 3));
        assert_eq!(check.pause(Status::Starting, Duration::ZERO), INTERVAL);
        let start_period = 60_000_000_000;
        let check = Check::of(&config(Healthcheck { test, start_period, ..Default::default() })).unwrap();
        let early = Duration::from_secs(59);
        assert_eq!(check.pause(Status::Starting, early), START_INTERVAL);
        assert_eq!(check.pause(Status::Healthy, early), INTERVAL);
        assert_eq!(check.pause(Status::Starting, Duration::from_secs(60)), INTERVAL);
    }

    #[test]
    fn failures_count_in_a_row_and_one_success_heals() {
        let mut monitor = Monitor::default();
        monitor.judge(outcome(1), 2, false);
        assert_eq!((monitor.status, monitor.failing_streak), (Status::Starting, 1));
        monitor.judge(outcome(-1), 2, false);
        assert_eq!((monitor.status, monitor.failing_streak), (Status::Unhealthy, 2));
        monitor.judge(outcome(0), 2, false);
        assert_eq!((monitor.status, monitor.failing_streak), (Status::Healthy, 0));
        monitor.judge(outcome(7), 2, false);
        assert_eq!((monitor.status, monitor.failing_streak), (Status::Healthy, 1));
        for code in 0..9 {
            monitor.judge(outcome(code), 2, false);
        }
        let codes: Vec<i32> = monitor.describe().log.iter().map(|entry| entry.exit_code).collect();
        assert_eq!(codes, [4, 5, 6, 7, 8]);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_before_the_first_success() {
        let mut monitor = Monitor::default();
        monitor.judge(outcome(1), 1, true);
        assert_eq!((monitor.status, monitor.failing_streak), (Status::Starting, 0));
        monitor.judge(outcome(0), 1, true);
        monitor.judge(outcome(1), 1, true);
        assert_eq!((monitor.status, monitor.failing_streak), (Status::Unhealthy, 1));
    }

    #[test]
    fn an_image_fills_in_field_by_field() {
        let image = Healthcheck { test: words(&["CMD", "i"]), interval: 5, retries: 9, ..Default::default() };
        let mut asked = None;
        merge(&mut asked, Some(&image));
        assert_eq!(asked.as_ref(), Some(&image));
        let mut asked = Some(Healthcheck { interval: 7, ..Healthcheck::default() });
        merge(&mut asked, Some(&image));
        assert_eq!(asked, Some(Healthcheck { interval: 7, ..image.clone() }));
        let mut asked = Some(Healthcheck { test: words(&["NONE"]), ..Healthcheck::default() });
        merge(&mut asked, Some(&image));
        assert_eq!(Check::of(&config(asked.unwrap())), None);
    }

    #[test]
    fn values_out_of_range_are_refused_in_dockers_words() {
        let refused = |asked: Healthcheck| validate(Some(&asked)).unwrap_err().message;
        assert_eq!(
            refused(Healthcheck { interval: 999_999, ..Default::default() }),
            "Interval in Healthcheck cannot be less than 1ms"
        );
        assert!(refused(Healthcheck { timeout: -1, ..Default::default() }).starts_with("Timeout"));
        assert!(refused(Healthcheck { start_period: 1, ..Default::default() }).starts_with("StartPeriod"));
        assert!(
            refused(Healthcheck { start_interval: 1, ..Default::default() }).starts_with("StartInterval")
        );
        assert_eq!(
            refused(Healthcheck { retries: -1, ..Default::default() }),
            "Retries in Healthcheck cannot be negative"
        );
        validate(Some(&Healthcheck { interval: LEAST_NS, ..Default::default() })).unwrap();
        validate(None).unwrap();
    }
}
