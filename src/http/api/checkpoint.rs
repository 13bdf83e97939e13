//! Checkpoints: create, list, delete. Docker's three routes.

use serde::{Deserialize, Serialize};

use super::{Endpoint, Method, Shape};

/// What to freeze under which name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointCreate {
    #[serde(rename = "CheckpointID")]
    pub checkpoint_id: String,
    /// A host directory that holds one directory per checkpoint; empty for the container's own.
    pub checkpoint_dir: String,
    /// Stop the container once it is frozen to disk.
    pub exit: bool,
}

/// One line of the list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointSummary {
    pub name: String,
    /// Dewar's own: RFC 3339; empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created: String,
    /// Dewar's own: bytes of all its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

crate::query! {
    /// Where to look for checkpoints.
    pub struct CheckpointQuery {
        /// As [`CheckpointCreate::checkpoint_dir`].
        dir: String = "dir",
    }
}

pub static CHECKPOINT_CREATE: Endpoint<(), CheckpointCreate, ()> =
    Endpoint::new("CheckpointCreate", Method::Post, "/containers/{name}/checkpoints", Shape::Empty, 201)
        .slow();
pub static CHECKPOINT_LIST: Endpoint<CheckpointQuery, (), Vec<CheckpointSummary>> =
    Endpoint::new("CheckpointList", Method::Get, "/containers/{name}/checkpoints", Shape::Json, 200);
pub static CHECKPOINT_DELETE: Endpoint<CheckpointQuery, (), ()> = Endpoint::new(
    "CheckpointDelete",
    Method::Delete,
    "/containers/{name}/checkpoints/{checkpoint}",
    Shape::Empty,
    204,
)
.slow();
