//! Checkpoints: Docker's three routes (create, list, delete), and dewar's own (check, inspect, all, prune).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Endpoint, Filters, Method, Shape};

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
    /// Dewar's own, as what follows: TCP connections are not saved.
    pub tcp_close: bool,
    /// Leave the content of all volumes out.
    pub no_volumes: bool,
    /// Volumes to be left out, by name or destination.
    pub skip_volumes: Vec<String>,
    /// Look for what stands in the way first, and try nothing if there is something.
    pub pre_check: bool,
    /// Keep the memory compressed.
    pub compress: bool,
}

/// Whether a running container can be frozen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointCheck {
    pub container: CheckpointContainer,
    /// Nothing was found that stands in the way.
    pub can_freeze: bool,
    /// How many would be frozen.
    pub processes: u64,
    pub obstacles: Vec<CheckpointObstacle>,
    /// What will not be as before, without being in the way.
    pub notes: Vec<String>,
}

/// Something that stands in the way of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointObstacle {
    /// `descriptor`, `mapping`, `socket`, `mount`, `namespace`, `process`, `container` or `criu`
    pub kind: String,
    /// In the container; `None` where it is not one process's.
    #[serde(rename = "PID")]
    pub pid: Option<i32>,
    /// The process's name.
    pub command: String,
    /// Which descriptor, mapping, mount and so on.
    pub object: String,
    pub reason: String,
    pub remedy: String,
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

/// A line of the list of all containers' checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerCheckpoint {
    /// The container's id.
    pub container: String,
    pub container_name: String,
    pub name: String,
    pub created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// What a prune removed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointsPruned {
    /// `container/checkpoint`
    pub checkpoints_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// The container that an import made; it does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointImported {
    #[serde(rename = "ID")]
    pub id: String,
    /// Without the leading `/`.
    pub name: String,
    pub checkpoint: String,
    pub warnings: Vec<String>,
}

/// All that is known of one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointDetail {
    pub name: String,
    pub container: CheckpointContainer,
    pub image: String,
    #[serde(rename = "ImageID")]
    pub image_id: String,
    pub created: String,
    pub directory: String,
    /// The version of its manifest; of version 1 much is not known.
    pub format: u32,
    pub engine: String,
    pub criu: String,
    pub kernel: String,
    pub architecture: String,
    pub cgroup_version: u32,
    pub leave_running: bool,
    /// How long it took until everything stood still.
    #[serde(rename = "FreezingMicroseconds")]
    pub freezing_us: Option<u64>,
    /// How long it then did.
    #[serde(rename = "FrozenMicroseconds")]
    pub frozen_us: Option<u64>,
    pub log_bytes: Option<u64>,
    pub size: CheckpointSizes,
    pub processes: Vec<CheckpointProcess>,
    /// Open TCP connections.
    pub connections: Vec<CheckpointConnection>,
    pub networks: BTreeMap<String, CheckpointPlace>,
    /// Ports of the host that led to it.
    pub ports: Vec<String>,
    pub volumes: Vec<CheckpointVolume>,
    /// What the container has mounted that is not part of it.
    pub left_out: Vec<CheckpointLeftOut>,
    pub needs: CheckpointNeeds,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointContainer {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
}

/// Bytes, by what they are for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointSizes {
    pub total: u64,
    pub memory: u64,
    /// CRIU's images without the memory.
    pub processes: u64,
    pub root_filesystem: u64,
    pub shared_memory: u64,
    pub tmpfs: u64,
    pub volumes: u64,
    /// Logs and notes.
    pub other: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointProcess {
    /// In the container.
    pub pid: u32,
    #[serde(rename = "PPid")]
    pub ppid: u32,
    pub command: String,
    pub threads: u32,
    /// The effective one; `None` of a process that has ended.
    pub uid: Option<u32>,
    /// It has ended and was not reaped.
    pub is_dead: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointConnection {
    /// Address and port.
    pub local: String,
    pub remote: String,
}

/// Where it was in a network.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointPlace {
    #[serde(rename = "IPAddress")]
    pub ip_address: String,
    #[serde(rename = "GlobalIPv6Address")]
    pub global_ipv6_address: String,
    pub mac_address: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointVolume {
    pub name: String,
    pub destinations: Vec<String>,
    /// Bytes of its archive.
    pub size: u64,
}

/// A mount whose content is not part of the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointLeftOut {
    /// `bind` or `volume`
    #[serde(rename = "Type")]
    pub kind: String,
    /// A path of the host's, or the volume's name.
    pub source: String,
    pub destination: String,
    pub reason: String,
}

/// What a restore cannot do without.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CheckpointNeeds {
    /// Somebody who serves its memory.
    pub lazy: bool,
    /// TCP connections that go on only at the addresses they were at; how many.
    #[serde(rename = "TCPConnections")]
    pub tcp: u32,
    pub volumes: Vec<String>,
    /// This version of CRIU or a newer one; the same goes for the kernel.
    pub criu: String,
    pub kernel: String,
    #[serde(rename = "CPUFeatures")]
    pub cpu_features: Vec<String>,
}

crate::query! {
    /// What to keep of all containers' checkpoints.
    pub struct CheckpointPruneQuery {
        /// So many of each container, the newest; 1 if it is not said.
        keep: Option<i64> = "keep",
        /// `until`
        filters: Filters = "filters",
    }
}

crate::query! {
    /// Where to look for checkpoints.
    pub struct CheckpointQuery {
        /// As [`CheckpointCreate::checkpoint_dir`].
        dir: String = "dir",
    }
}

crate::query! {
    /// How to pack a checkpoint.
    pub struct CheckpointExportQuery {
        /// As [`CheckpointCreate::checkpoint_dir`].
        dir: String = "dir",
        /// `zstd`, `gzip` or `none`; the first if it is not said.
        compress: String = "compress",
        /// `dewar`, or `podman` for what podman restores; the first if it is not said.
        format: String = "format",
    }
}

crate::query! {
    /// What becomes of an archive.
    pub struct CheckpointImportQuery {
        /// The container's name; that which it had if it is not said.
        name: String = "name",
        /// It may ask for what is the host's, and may have more than its configuration gives it.
        trust: bool = "trust",
        /// An image that is not here is pulled.
        pull: bool = "pull",
    }
}

crate::query! {
    /// Where a checkpoint goes.
    pub struct CheckpointPushQuery {
        /// As [`CheckpointCreate::checkpoint_dir`].
        dir: String = "dir",
        /// `registry/repository[:tag]`
        reference: String = "reference",
    }
}

crate::query! {
    /// Where a checkpoint comes from, and what becomes of it.
    pub struct CheckpointPullQuery {
        /// `registry/repository[:tag][@digest]`
        reference: String = "reference",
        /// As [`CheckpointImportQuery::name`].
        name: String = "name",
        trust: bool = "trust",
        pull: bool = "pull",
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
pub static CHECKPOINT_CHECK: Endpoint<(), (), CheckpointCheck> =
    Endpoint::new("CheckpointCheck", Method::Get, "/containers/{name}/checkpoint-check", Shape::Json, 200);
pub static CHECKPOINT_INSPECT: Endpoint<CheckpointQuery, (), CheckpointDetail> = Endpoint::new(
    "CheckpointInspect",
    Method::Get,
    "/containers/{name}/checkpoints/{checkpoint}/json",
    Shape::Json,
    200,
);
pub static CHECKPOINT_LIST_ALL: Endpoint<(), (), Vec<ContainerCheckpoint>> =
    Endpoint::new("CheckpointListAll", Method::Get, "/checkpoints", Shape::Json, 200);
pub static CHECKPOINT_PRUNE: Endpoint<CheckpointPruneQuery, (), CheckpointsPruned> =
    Endpoint::new("CheckpointPrune", Method::Post, "/checkpoints/prune", Shape::Json, 200).slow();
/// Answers an archive (`application/x-tar`, or compressed).
pub static CHECKPOINT_EXPORT: Endpoint<CheckpointExportQuery, (), ()> = Endpoint::new(
    "CheckpointExport",
    Method::Get,
    "/containers/{name}/checkpoints/{checkpoint}/archive",
    Shape::Stream,
    200,
);
/// The body is an archive.
pub static CHECKPOINT_IMPORT: Endpoint<CheckpointImportQuery, (), CheckpointImported> =
    Endpoint::new("CheckpointImport", Method::Post, "/checkpoints/import", Shape::Json, 201).slow();
/// Answers JSON messages, as a push of an image does.
pub static CHECKPOINT_PUSH: Endpoint<CheckpointPushQuery, (), ()> = Endpoint::new(
    "CheckpointPush",
    Method::Post,
    "/containers/{name}/checkpoints/{checkpoint}/push",
    Shape::Stream,
    200,
);
/// Answers JSON messages; the last has a [`CheckpointImported`] as `aux`.
pub static CHECKPOINT_PULL: Endpoint<CheckpointPullQuery, (), ()> =
    Endpoint::new("CheckpointPull", Method::Post, "/checkpoints/pull", Shape::Stream, 200);
