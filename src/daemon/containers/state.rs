//! A container's states, and which action each of them allows. Pure.
//!
//! ```text
//!             start            pause
//!   created ────────► running ◄──────► paused
//!                      │  ▲    unpause    │
//!                 exit │  │ start         │ exit
//!                      ▼  │               ▼
//!     restarting ◄── exited ◄─────────────┘        remove: any at rest
//!         └───────────────► running (restart policy)   ──► removing ──► gone, or dead
//! ```
//!
//! `Start` and `Unpause` lead to `running`, an exit to `exited` (or `restarting`, which the restart policy
//! decides); the actions that change no state (`Exec`, `Kill`, …) are here for the question "may it?".

use serde::{Deserialize, Serialize};

/// The API's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Created,
    Running,
    Paused,
    Restarting,
    Removing,
    Exited,
    /// Its removal failed half way; only removing it again is left.
    Dead,
}

impl State {
    pub const ALL: [State; 7] = [
        State::Created,
        State::Running,
        State::Paused,
        State::Restarting,
        State::Removing,
        State::Exited,
        State::Dead,
    ];

    /// The state's name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            State::Created => "created",
            State::Running => "running",
            State::Paused => "paused",
            State::Restarting => "restarting",
            State::Removing => "removing",
            State::Exited => "exited",
            State::Dead => "dead",
        }
    }

    /// Whether a process lives.
    pub fn is_alive(self) -> bool {
        matches!(self, State::Running | State::Paused)
    }
}

/// What may be asked of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Start,
    /// Thaw from a checkpoint.
    Restore,
    Stop,
    Kill,
    Pause,
    Unpause,
    Exec,
    Attach,
    Checkpoint,
    Top,
    Remove,
}

impl Action {
    #[cfg(test)]
    pub const ALL: [Action; 11] = [
        Action::Start,
        Action::Restore,
        Action::Stop,
        Action::Kill,
        Action::Pause,
        Action::Unpause,
        Action::Exec,
        Action::Attach,
        Action::Checkpoint,
        Action::Top,
        Action::Remove,
    ];
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nothing to do: clients count it as success.
    AlreadyRunning,
    /// Nothing to do: clients count it as success.
    AlreadyStopped,
    NotRunning,
    IsRunning,
    IsPaused,
    AlreadyPaused,
    NotPaused,
    IsRestarting,
    IsRemoving,
    IsDead,
}

/// The state that `action` leads to, or why it may not be taken.
pub fn next(state: State, action: Action) -> Result<State, Denied> {
    use Action::{Attach, Checkpoint, Exec, Kill, Pause, Remove, Restore, Start, Stop, Top, Unpause};
    use State::{Created, Dead, Exited, Paused, Removing, Restarting, Running};
    match (action, state) {
        (_, Removing) => Err(Denied::IsRemoving),
        (Remove, Created | Exited | Dead) => Ok(Removing),
        (Remove, Restarting) => Err(Denied::IsRestarting),
        (Remove, Running) => Err(Denied::IsRunning),
        (Remove, Paused) => Err(Denied::IsPaused),
        (_, Dead) => Err(Denied::IsDead),

        (Start, Created | Exited) => Ok(Running),
        // A start during the restart policy's pause starts at once.
        (Start, Restarting) => Ok(Running),
        (Start, Running) => Err(Denied::AlreadyRunning),
        (Start, Paused) => Err(Denied::IsPaused),

        (Restore, Created | Exited) => Ok(Running),
        (Restore, Running) => Err(Denied::IsRunning),
        (Restore, Paused) => Err(Denied::IsPaused),
        (Restore, Restarting) => Err(Denied::IsRestarting),

        (Stop, Running | Paused | Restarting) => Ok(Exited),
        (Stop, Created | Exited) => Err(Denied::AlreadyStopped),

        (Kill, Running | Paused | Restarting) => Ok(state),
        (Kill | Top | Exec, Created | Exited) => Err(Denied::NotRunning),

        (Pause, Running) => Ok(Paused),
        (Pause, Paused) => Err(Denied::AlreadyPaused),
        (Pause, Restarting) => Err(Denied::IsRestarting),
        (Pause, Created | Exited) => Err(Denied::NotRunning),

        (Unpause, Paused) => Ok(Running),
        (Unpause, Created | Running | Exited | Restarting) => Err(Denied::NotPaused),

        (Exec, Running) => Ok(Running),
        (Exec, Paused) => Err(Denied::IsPaused),
        (Exec | Top, Restarting) => Err(Denied::IsRestarting),

        // Attaching to what does not run yet is how a client sees the first byte.
        (Attach, Created | Exited | Running) => Ok(state),
        (Attach, Paused) => Err(Denied::IsPaused),
        (Attach, Restarting) => Err(Denied::IsRestarting),

        (Checkpoint, Running) => Ok(Running),
        (Checkpoint, Paused) => Err(Denied::IsPaused),
        (Checkpoint, Restarting) => Err(Denied::IsRestarting),
        (Checkpoint, Created | Exited) => Err(Denied::NotRunning),

        (Top, Running | Paused) => Ok(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_is_the_one_in_the_architecture() {
        let mut table =
            String::from("| action | created | running | paused | restarting | removing | exited | dead |\n");
        table.push_str("|---|---|---|---|---|---|---|---|\n");
        for action in Action::ALL {
            table.push_str(&format!("| {action:?} |"));
            for state in State::ALL {
                match next(state, action) {
                    Ok(next) => table.push_str(&format!(" {} |", next.name())),
                    Err(denied) => table.push_str(&format!(" *{denied:?}* |")),
                }
            }
            table.push('\n');
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/ARCHITECTURE.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(document.contains(&table), "ARCHITECTURE.md must carry this table:\n{table}");
    }

    #[test]
    fn only_the_living_can_be_frozen() {
        for state in State::ALL {
            assert_eq!(next(state, Action::Checkpoint).is_ok(), state == State::Running, "{state:?}");
        }
    }
}
