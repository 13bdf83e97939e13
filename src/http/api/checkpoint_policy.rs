//! When a container is frozen without being told to, and what came of it. Dewar's own, under names that Docker does not have.

use serde::{Deserialize, Serialize};

/// `HostConfig.CheckpointPolicy`. What is empty or absent is off, or, in an update, stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointPolicy {
    /// `signal`, or `checkpoint`: a stop freezes the container and a start thaws it. Empty follows the daemon.
    pub stop_mode: String,
    /// Nanoseconds between scheduled checkpoints; 0 is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<i64>,
    /// How many scheduled checkpoints are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<i64>,
}

/// `State.Checkpointing`: absent while there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointingState {
    /// The checkpoint that the next start thaws; empty for none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hibernated: String,
    /// Why the container began anew instead of going on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thaw_failure: Option<CheckpointFailure>,
    /// The scheduler's checkpoints, oldest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scheduled: Vec<String>,
    /// Why the last scheduled checkpoint is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule_failure: Option<CheckpointFailure>,
    /// Scheduled checkpoints that failed since the last one that did not.
    #[serde(skip_serializing_if = "is_zero")]
    pub failures: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointFailure {
    /// RFC 3339.
    pub at: String,
    pub error: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
