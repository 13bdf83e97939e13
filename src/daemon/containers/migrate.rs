//! Moves of running containers between two daemons: [`send`] is the one side, [`receive`] the other, [`wire`] what they
//! say. The client joins the two, so that whoever may speak to both daemons can move a container, and nobody else: there
//! is nothing to set up between the daemons, and who is admitted is each one's own access control.
//!
//! ```text
//!  sender                                              receiver
//!  runs            image, files, memory? ──▶           coming                      discarded, if it breaks off here
//!  frozen, at its gate      changes, memory ────▶      coming
//!  │                                                   frozen, at its gate: "ready" on disk
//!  │ verdict "moved" on disk  ◀──── ready ───
//!  ▼                          commit ────▶             "committed" on disk, then it runs
//!  ended, removed             ◀──── done ───
//! ```
//!
//! The sender decides: the verdict is a file that is made once, by its daemon or, should that be gone, by the shim
//! that holds the frozen tree. So exactly one side has the container whatever breaks:
//!
//! - before the verdict it stays, and the shim lets it run on at once; what the receiver has is discarded, or, if it
//!   was ready, waits frozen on disk (its processes are gone, the checkpoint is whole) until it is told;
//! - after the verdict it is the receiver's. The sender keeps its checkpoint until the receiver has said that it runs.
//!
//! With `lazy` memory stays in the frozen tree, and is sent as it is asked for when the container runs over there:
//!
//! ```text
//!  frozen, at its gate      all but memory ──▶         frozen, at its gate: "ready" on disk
//!  verdict "moved" on disk  commit ────▶               "committed" on disk, then it runs
//!  │                        ◀──── pages ────
//!  ▼ ended, removed         ◀──── fetched ──           whole
//! ```
//!
//! Until "fetched" the sender's part of it is all there is of that memory. When the line breaks before, or the sender's
//! daemon dies, the shim writes the memory out and ends the tree: the sender then has a whole checkpoint, and sends the
//! rest out of that to the next one who joins the two. When the receiver's daemon dies what runs there waits for the next
//! one. Only if CRIU's page daemon dies or hangs what runs there ends, for its memory can never be whole: its user is told,
//! and may bring the checkpoint back where it came from.
//!
//! Who waits is told by the client that has lost a connection, or by the next one (`dewar migrate --resolve`). If the
//! other host never comes back, each side has the checkpoint, and its user decides: `dewar start --checkpoint` brings
//! the container to life, `dewar rm` discards it.

mod account;
mod growing;
mod logs;
mod memory;
pub mod receive;
pub mod send;
pub mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::container::{Container, Record};
use crate::daemon::engine::Engine;
use crate::daemon::error::{Error, Result};
use crate::daemon::state_dir;
use crate::runtime::shim::checkpoint::has_pages_to_come;
use crate::runtime::shim::gate::{self, MOVED};

/// What checkpoints of moves are called: this, and the beginning of the ticket.
const PREFIX: &str = "migration-";
const SHORT: usize = 12;
/// The verdict's file, in the container's directory.
const VERDICT: &str = "handover";

/// A container on its way to another daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Leaving {
    pub ticket: String,
    /// In its user's words.
    pub host: String,
    pub phase: Phase,
    /// It stays when it has moved, stopped.
    pub is_kept: bool,
    /// Its memory is sent when it runs over there.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_lazy: bool,
}

/// A container on its way from another daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Arriving {
    pub ticket: String,
    /// The other host's name.
    pub from: String,
    pub phase: Phase,
    /// Volumes that were made for it.
    pub volumes: Vec<String>,
    pub keep_volumes: bool,
    pub lazy: bool,
    pub tcp_close: bool,
    pub trust: bool,
}

/// How far it has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Begun,
    /// Receiver: all of it is here, and whose it is is not known.
    Ready,
    /// It is the receiver's.
    Given,
    /// Sender: the receiver has said so.
    Done,
}

/// The checkpoint's name.
fn checkpoint(ticket: &str) -> String {
    format!("{PREFIX}{}", ticket.get(..SHORT).unwrap_or(ticket))
}

fn checkpoint_dir(container: &Container, ticket: &str) -> PathBuf {
    container.dir.join("checkpoints").join(checkpoint(ticket))
}

fn verdict(container: &Container) -> PathBuf {
    container.dir.join(VERDICT)
}

/// Removes what a migration has left in the container's directory.
fn tidy(container: &Container, ticket: &str) {
    let dir = checkpoint_dir(container, ticket);
    let partial = dir.with_file_name(format!("{}{}", checkpoint(ticket), super::checkpoint::PARTIAL));
    for dir in [dir, partial] {
        if let Err(error) = state_dir::remove_tree(&dir) {
            log::warn!("{error}");
        }
    }
    let _ = std::fs::remove_file(verdict(container));
}

/// Refuses to start what may run elsewhere.
///
/// # Errors
/// Conflict, with what can be done.
pub fn check_start(record: &Record) -> Result<()> {
    let name = &record.name;
    if let Some(leaving) = record.leaving.as_ref().filter(|leaving| leaving.phase == Phase::Given) {
        let host = &leaving.host;
        if leaving.is_lazy {
            return Err(Error::conflict(format!(
                "container {name:?} was moved to {host}, which has not said that it has all of its memory: \"dewar migrate \
                 --resolve {name} {host}\" finds out, and sends the rest; if it is lost there, \"dewar start --checkpoint \
                 {} {name}\" brings it back here as it was when it was frozen",
                checkpoint(&leaving.ticket)
            )));
        }
        return Err(Error::conflict(format!(
            "container {name:?} was moved to {host}, which has not said that it runs there: \"dewar migrate --resolve \
             {name} {host}\" finds out; if that host is lost, \"dewar start --checkpoint {} {name}\" brings it back here",
            checkpoint(&leaving.ticket)
        )));
    }
    if let Some(arriving) = &record.arriving {
        let from = &arriving.from;
        return Err(Error::conflict(format!(
            "container {name:?} is arriving from {from}, which has not said whose it is: \"dewar migrate --resolve\" \
             there finds out; if that host is lost, \"dewar start --checkpoint {} {name}\" lets it run here",
            checkpoint(&arriving.ticket)
        )));
    }
    Ok(())
}

/// Brings the record of a container in line with the verdict, for a daemon that finds a migration cut off. The caller
/// saves it.
pub fn settle(container: &Container, record: &mut Record) {
    let Some(leaving) = &mut record.leaving else { return };
    if leaving.phase != Phase::Begun {
        return;
    }
    // Nobody decides any more once this has its answer.
    let is_moved = match gate::claim(&verdict(container), gate::KEPT) {
        Ok(verdict) => verdict == MOVED,
        Err(error) => {
            log::error!("container {:?}: {error}", record.name);
            return;
        }
    };
    if is_moved {
        log::warn!(
            "container {:?} was moved to {}, which has not said that it runs",
            record.name,
            leaving.host
        );
        leaving.phase = Phase::Given;
    } else {
        log::info!("container {:?}: its move to {} was cut off, and is undone", record.name, leaving.host);
        tidy(container, &leaving.ticket);
        record.leaving = None;
    }
}

/// Removes the checkpoints of moves that are over; one that memory is still read from goes later.
pub fn sweep(container: &Arc<Container>, record: &Record) {
    if record.leaving.is_some() || record.arriving.is_some() {
        return;
    }
    if is_read_from(record) {
        sweep_later(Arc::clone(container));
        return;
    }
    let entries = std::fs::read_dir(container.dir.join("checkpoints"));
    for entry in entries.into_iter().flatten().flatten() {
        let is_ours = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .is_some_and(|rest| rest.len() == SHORT && rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if is_ours && let Err(error) = state_dir::remove_tree(&entry.path()) {
            log::warn!("{error}");
        }
    }
    let _ = std::fs::remove_file(verdict(container));
}

/// Whether the container's memory still comes from a checkpoint.
fn is_read_from(record: &Record) -> bool {
    record.state.is_alive() && has_pages_to_come(record.pid)
}

/// Removes the checkpoint of a move when all of the container's memory has been read, or when it has ended.
fn sweep_later(container: Arc<Container>) {
    const PACE: Duration = Duration::from_millis(100);
    let wait = move || {
        while is_read_from(&container.record()) {
            std::thread::sleep(PACE);
        }
        let _action = container.begin();
        sweep(&container, &container.record());
    };
    if let Err(error) = crate::daemon::spawn("migration-memory", wait) {
        // The next daemon removes it.
        log::warn!("{error}");
    }
}

/// Ends what an earlier daemon had only to finish: containers that have left are removed, those that are ours are
/// brought to life.
pub fn finish(engine: &Arc<Engine>, container: &Arc<Container>) {
    let record = container.record();
    if record.leaving.as_ref().is_some_and(|leaving| leaving.phase == Phase::Done) {
        send::remove(engine, container);
    }
    if record.arriving.as_ref().is_some_and(|arriving| arriving.phase == Phase::Given && !arriving.lazy)
        && let Err(error) = receive::complete(engine, container)
    {
        log::error!("{error}");
    }
}

/// Removes the volumes that were made for a container which was not taken over.
pub fn forget_volumes(engine: &Engine, record: &Record) {
    for name in record.arriving.iter().flat_map(|arriving| &arriving.volumes) {
        if let Err(error) = engine.volumes.remove(&engine.events, name, true) {
            log::warn!("{error}");
        }
    }
}
