//! `--restart=checkpoint`: after a crash a container comes back from its last good checkpoint.
//!
//! ```text
//!  crash ─► newest checkpoint that is not given up ──cannot be thawed──► the next older ─► … ─► begins anew
//!              │ thawed
//!              ▼
//!           runs; crashes again within seconds, three times in a row ─► that checkpoint is given up
//! ```
//!
//! The pauses between restarts, their count and what calls them off are the policy's as for all others. What is given
//! up stays so until somebody starts the container by hand.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::checkpoint::{self, How, prune};
use super::container::{Container, Record};
use super::create::now;
use super::state::Action;
use super::{hibernate, lifecycle, policy};
use crate::daemon::engine::Engine;
use crate::daemon::error::Result;
use crate::http::api::checkpoint_policy::CheckpointFailure;

/// Crashes in a row, each soon after its thaw, that a checkpoint is allowed.
const CRASHES: u32 = 3;

/// What is remembered of a container that comes back from checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Revival {
    /// The checkpoint the current life came from; empty if it began anew.
    pub from: String,
    /// Crashes soon after a thaw of that, in a row.
    pub crashes: u32,
    /// Checkpoints that are not tried any more.
    pub given_up: Vec<String>,
}

impl Revival {
    /// A life that came from a checkpoint began.
    pub fn begun(&mut self, from: Option<&str>) {
        let from = from.unwrap_or_default();
        if self.from != from {
            (self.from, self.crashes) = (from.to_owned(), 0);
        }
    }

    /// That life has crashed; gives the checkpoint that is given up for it.
    fn crashed(&mut self, run_time: Duration) -> Option<String> {
        if self.from.is_empty() {
            return None;
        }
        self.crashes = if run_time >= policy::FORGET { 0 } else { self.crashes + 1 };
        if self.crashes < CRASHES {
            return None;
        }
        self.crashes = 0;
        self.given_up.push(self.from.clone());
        Some(self.from.clone())
    }
}

/// Whether the policy brings a container back from its checkpoints.
pub fn is_wanted(record: &Record) -> bool {
    record.host_config.restart_policy.name == policy::FROM_CHECKPOINT
}

/// Takes in that a life of `run_time` has crashed.
pub fn crashed(container: &Container, run_time: Duration) {
    let mut inner = container.lock();
    if !is_wanted(&inner.record) {
        return;
    }
    if let Some(given_up) = inner.record.revival.crashed(run_time) {
        let name = &inner.record.name;
        log::error!(
            "container {name:?} has crashed {CRASHES} times right after thaws of {given_up}: it is given up"
        );
    }
    if let Err(error) = container.save(&inner) {
        log::error!("{error}");
    }
}

/// Starts a container that has ended: from a checkpoint if that is its policy and there is a good one. The caller holds
/// the action lock.
///
/// # Errors
/// As [`lifecycle::start_locked`]; thaws that fail are told, and no error.
pub fn start(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<()> {
    let (record, is_asleep) = {
        let inner = container.lock();
        inner.check(Action::Start)?;
        (inner.record.clone(), inner.record.hibernation.is_some())
    };
    if !is_wanted(&record) || is_asleep || record.is_ended_by_daemon {
        return hibernate::wake(engine, container);
    }
    let names = match prune::newest_first(container) {
        Ok(found) => found.into_iter().map(|summary| summary.name).collect(),
        Err(error) => {
            log::error!("{error}");
            Vec::new()
        }
    };
    let good = good(&names, &record.revival.given_up);
    for (index, name) in good.iter().enumerate() {
        match checkpoint::restore_locked(engine, container, name, "", How::default(), Action::Start) {
            Ok(()) => {
                log::info!("container {:?} has crashed and goes on from checkpoint {name}", record.name);
                return Ok(());
            }
            Err(error) => {
                container.lock().record.revival.given_up.push((*name).clone());
                let instead =
                    if index + 1 < good.len() { "goes on from an older one" } else { hibernate::ANEW };
                hibernate::tell_failure(engine, container, name, &error, instead);
            }
        }
    }
    if good.is_empty() {
        let why = if names.is_empty() { "there is none" } else { "those there are were given up" };
        log::error!(
            "container {:?} has crashed and BEGINS ANEW: no checkpoint to go on from: {why}",
            record.name
        );
        let error = format!("no checkpoint to go on from: {why}");
        container.lock().record.thaw_failure = Some(CheckpointFailure { at: now(), error });
    }
    lifecycle::start_locked(engine, container, Action::Start, None)
}

/// The checkpoints that may be tried, in the order of `names`.
fn good<'name>(names: &'name [String], given_up: &[String]) -> Vec<&'name String> {
    names.iter().filter(|name| !given_up.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(1);

    #[test]
    fn three_crashes_in_a_row_give_a_checkpoint_up() {
        let mut revival = Revival::default();
        revival.begun(Some("a"));
        assert_eq!([revival.crashed(SHORT), revival.crashed(SHORT)], [None, None]);
        revival.begun(Some("a"));
        assert_eq!(revival.crashed(SHORT), Some("a".to_owned()));
        // The next one has its own three.
        revival.begun(Some("b"));
        assert_eq!(revival.crashed(SHORT), None);
        // A long life wipes the slate clean.
        assert_eq!(revival.crashed(policy::FORGET), None);
        assert_eq!([revival.crashed(SHORT), revival.crashed(SHORT)], [None, None]);
        assert_eq!(revival.given_up, ["a"]);
    }

    #[test]
    fn what_began_anew_gives_nothing_up() {
        let mut revival = Revival::default();
        revival.begun(None);
        for _ in 0..9 {
            assert_eq!(revival.crashed(SHORT), None);
        }
    }

    #[test]
    fn the_newest_that_is_not_given_up_comes_first() {
        let names = ["new", "bad", "old"].map(str::to_owned);
        assert_eq!(good(&names, &["bad".to_owned()]), ["new", "old"]);
        assert!(good(&names, &names).is_empty());
    }
}
