//! Restart policies: whether an ended container comes back, after which pause, and the loop that waits it out.
//!
//! ```text
//!   exit ─► wanted? ──no──► exited
//!             │ yes: restarting, counted
//!             ▼
//!          pause (100 ms, doubling to a minute; forgotten after a run of 10 s) ─► start ─► running
//!             │ stopped, killed, removed or started by a request: called off
//! ```
//!
//! Source: Docker's restart manager. A stop or kill by hand holds until the next start; `always` comes back
//! with the daemon all the same, `unless-stopped` does not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::container::{Container, Outcome, Record};
use super::state::State;
use super::{hibernate, revive};
use crate::daemon::engine::Engine;

/// The policy that is dewar's own: back from the last checkpoint after a crash.
pub const FROM_CHECKPOINT: &str = "checkpoint";

const FIRST_MS: u64 = 100;
const MOST_MS: u64 = 60_000;
/// A run as long as this wipes the slate clean.
pub const FORGET: Duration = Duration::from_secs(10);

/// The pause before the next restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    last_ms: u64,
}

impl Backoff {
    /// The pause after a run of `run_time`.
    pub fn next(&mut self, run_time: Duration) -> Duration {
        let doubled = self.last_ms.saturating_mul(2).min(MOST_MS);
        self.last_ms = if run_time >= FORGET || doubled == 0 { FIRST_MS } else { doubled };
        Duration::from_millis(self.last_ms)
    }
}

/// Whether the policy wants a container back that has just ended.
pub fn wants_restart(record: &Record) -> bool {
    let policy = &record.host_config.restart_policy;
    let most = policy.maximum_retry_count;
    !record.manually_stopped
        && match policy.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" | FROM_CHECKPOINT => {
                (record.exit_code != 0 || policy.name == FROM_CHECKPOINT && record.oom_killed)
                    && (most == 0 || record.restart_count < most)
            }
            _ => false,
        }
}

/// Whether a starting daemon brings it up: only what has run before.
pub fn wants_start_with_daemon(record: &Record) -> bool {
    let is_always = record.host_config.restart_policy.name == "always";
    let is_asleep = hibernate::is_by_daemon(record);
    !record.started_at.is_empty() && (is_asleep || is_always || wants_restart(record))
}

/// Waits out the pause and starts again, until it runs or somebody changes the state. `run` is the life
/// that ended; its thread must not restart a later one.
pub fn restart(engine: &Arc<Engine>, container: &Arc<Container>, run: u64, run_time: Duration) {
    let mut run_time = run_time;
    revive::crashed(container, run_time);
    loop {
        let pause = container.lock().backoff.next(run_time);
        let is_called_off = container
            .wait_until(Some(pause), |inner| inner.record.state != State::Restarting || inner.run != run);
        if is_called_off || engine.is_stopping.load(Ordering::SeqCst) {
            return;
        }
        let action = container.begin();
        let is_due = {
            let inner = container.lock();
            inner.record.state == State::Restarting && inner.run == run
        };
        if !is_due {
            return;
        }
        let result = revive::start(engine, container);
        drop(action);
        let Err(error) = result else { return };
        log::warn!("restart container {:?}: {error}", container.name());
        let mut inner = container.lock();
        if inner.record.state != State::Restarting {
            return;
        }
        if !wants_restart(&inner.record) {
            inner.record.state = State::Exited;
            if let Err(error) = container.save(&inner) {
                log::error!("record the end of container {:?}: {error}", inner.record.name);
            }
            let outcome = Outcome { exit_code: inner.record.exit_code, error: None };
            inner.release_exit(&outcome);
            drop(inner);
            container.notify();
            return;
        }
        inner.record.restart_count += 1;
        run_time = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::api::container::{HostConfig, RestartPolicy};

    fn ended(policy: &str, most: i64, exit_code: i32) -> Record {
        let restart_policy = RestartPolicy { name: policy.to_owned(), maximum_retry_count: most };
        let host_config = HostConfig { restart_policy, ..HostConfig::default() };
        Record { host_config, exit_code, started_at: "then".to_owned(), ..Record::default() }
    }

    #[test]
    fn the_pause_doubles_to_a_minute_and_is_forgotten_after_a_long_run() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..12).map(|_| backoff.next(Duration::from_secs(1)).as_millis()).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000];
        assert_eq!(pauses, expected);
        assert_eq!(backoff.next(FORGET).as_millis(), 100);
        assert_eq!(backoff.next(Duration::ZERO).as_millis(), 200);
    }

    #[test]
    fn each_policy_has_its_own_mind() {
        for (policy, most, code, count, wanted) in [
            ("no", 0, 1, 0, false),
            ("", 0, 1, 0, false),
            ("always", 0, 0, 9, true),
            ("unless-stopped", 0, 0, 9, true),
            ("on-failure", 0, 0, 0, false),
            ("on-failure", 0, 1, 99, true),
            ("on-failure", 2, 1, 1, true),
            ("on-failure", 2, 1, 2, false),
            ("checkpoint", 0, 0, 0, false),
            ("checkpoint", 0, 139, 99, true),
            ("checkpoint", 2, 1, 2, false),
        ] {
            let record = Record { restart_count: count, ..ended(policy, most, code) };
            assert_eq!(wants_restart(&record), wanted, "{policy}:{most} {code} {count}");
            assert!(!wants_restart(&Record { manually_stopped: true, ..record }), "{policy}");
        }
    }

    #[test]
    fn always_comes_back_with_the_daemon_though_it_was_stopped() {
        let stopped = |policy| Record { manually_stopped: true, ..ended(policy, 0, 1) };
        assert!(wants_start_with_daemon(&stopped("always")));
        assert!(!wants_start_with_daemon(&stopped("unless-stopped")));
        assert!(!wants_start_with_daemon(&stopped("on-failure")));
        let never_ran = Record { started_at: String::new(), ..ended("always", 0, 0) };
        assert!(!wants_start_with_daemon(&never_ran));
    }
}
