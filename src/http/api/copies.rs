//! New containers out of a checkpoint or of a running container. Dewar's own: Docker has no such operations.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::container::PortBinding;
use super::{Endpoint, Method, Shape};

/// What the copies are to be. What is not said is as it is with the original.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CopyRequest {
    /// Empty for generated names; of several copies the names are this one and `-1`, `-2` and so on.
    pub name: String,
    /// 0 is 1.
    pub count: u32,
    /// Restore only: a host directory that holds one directory per checkpoint; empty for the container's own.
    pub checkpoint_dir: String,
    /// Addresses in the first network; of one copy only.
    #[serde(rename = "IPv4Address")]
    pub ipv4_address: String,
    #[serde(rename = "IPv6Address")]
    pub ipv6_address: String,
    pub mac_address: String,
    /// `None`: what the original publishes, as far as the host's ports are free.
    pub port_bindings: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
    /// The one network to be in; empty for those of the original.
    pub network: String,
    /// Destination in the container to a volume's name or a path of the host's.
    pub volumes: BTreeMap<String, String>,
    /// Volumes that are not named above, and whose content is in the checkpoint, are the copy's own, with that content.
    pub copy_volumes: bool,
    /// TCP connections come back closed. They do in any case where the address is another.
    pub tcp_close: bool,
    /// Run before the memory is there.
    pub lazy: bool,
    /// Restore only: processes may have more than the original's configuration gives them.
    pub trust: bool,
    pub auto_remove: bool,
    /// Beside the original's.
    pub labels: BTreeMap<String, String>,
}

/// A container that was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Copied {
    pub id: String,
    /// Without the leading `/`.
    pub name: String,
    pub warnings: Vec<String>,
}

/// The answer: all of them run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Copies {
    pub containers: Vec<Copied>,
    /// Clone: how long the original stood still.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped_milliseconds: Option<u64>,
}

pub static CONTAINER_CLONE: Endpoint<(), CopyRequest, Copies> =
    Endpoint::new("ContainerClone", Method::Post, "/containers/{name}/clone", Shape::Json, 201).slow();
pub static CHECKPOINT_RESTORE: Endpoint<(), CopyRequest, Copies> = Endpoint::new(
    "CheckpointRestore",
    Method::Post,
    "/containers/{name}/checkpoints/{checkpoint}/restore",
    Shape::Json,
    201,
)
.slow();
