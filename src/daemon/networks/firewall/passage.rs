//! What containers may reach of each other where they may not speak to each other: the ports that `--link` opens.

use std::net::IpAddr;

use super::{Firewall, ruleset};
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::ports::Protocol;

/// What a container may reach of another in a network whose containers may not speak to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub from: IpAddr,
    /// Of the same family.
    pub to: IpAddr,
    pub protocol: Protocol,
    pub port: u16,
}

impl Firewall {
    /// Lets a container through to others, in place of what it was let through to.
    ///
    /// # Errors
    /// System, with the kernel's reason; then nothing has changed, unless there is nothing it is let through to.
    pub fn link(&self, container: &str, list: Vec<Passage>) -> Result<()> {
        let mut state = self.shared.state();
        let before = state.passages.remove(container).unwrap_or_default();
        if before == list {
            if !list.is_empty() {
                state.passages.insert(container.to_owned(), list);
            }
            return Ok(());
        }
        if !list.is_empty() {
            state.passages.insert(container.to_owned(), list.clone());
        }
        let outcome = self.shared.apply(&mut state, |shared, _, batch| {
            for table in &shared.tables {
                batch.delete_elements(table, "linked", &ruleset::linked(table.family, &before));
                batch.add_elements(table, "linked", &ruleset::linked(table.family, &list));
            }
        });
        if outcome.is_err() && !list.is_empty() {
            state.passages.remove(container);
            if !before.is_empty() {
                state.passages.insert(container.to_owned(), before);
            }
        }
        outcome.map_err(|failed| Error::system(format!("link container {container}"), failed))
    }
}
