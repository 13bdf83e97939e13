//! A checkpoint that goes to its client while it is made. Dewar's own: Docker has no such operation.
//!
//! The operation takes its connection over, and speaks the frames of [`migrate`](super::migrate) on it: `d` is a piece of
//! the archive, `m` a [`StreamWord`]. The daemon says `end` behind the last piece; the client, when it has all of it for
//! good, `accepted`: only then does the container end. The daemon's last word is `done` or `failed`, which may come at any
//! time; what was sent before `failed` is no checkpoint, and the container runs on. With `Exit` false nobody waits for
//! `accepted`.

use serde::{Deserialize, Serialize};

use super::{Endpoint, Method, Shape};

/// What to freeze, and how to pack it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointStream {
    /// The name it has when it is imported.
    #[serde(rename = "CheckpointID")]
    pub checkpoint_id: String,
    /// Stop the container once the client has it.
    pub exit: bool,
    /// TCP connections are not saved.
    pub tcp_close: bool,
    /// Leave the content of all volumes out.
    pub no_volumes: bool,
    /// Volumes to be left out, by name or destination.
    pub skip_volumes: Vec<String>,
    /// Look for what stands in the way first, and try nothing if there is something.
    pub pre_check: bool,
    /// `zstd`, `gzip` or `none`; the first if it is not said.
    pub compress: String,
}

/// A message on the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamWord {
    /// Daemon: the archive is whole.
    End {},
    /// Client: it has all of it.
    Accepted {},
    /// Daemon: the container has ended, or runs on as it was asked to.
    Done {},
    /// Daemon: it runs on.
    Failed { message: String },
}

pub static CHECKPOINT_STREAM: Endpoint<(), CheckpointStream, ()> = Endpoint::new(
    "CheckpointStream",
    Method::Post,
    "/containers/{name}/checkpoint-stream",
    Shape::Hijack,
    101,
);
