//! Volumes: storage that outlives the containers it is mounted in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Endpoint, Filters, Method, Shape};

/// `docker volume inspect`, and one line of the list.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Volume {
    /// RFC 3339, whole seconds.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_at: String,
    pub driver: String,
    /// `None` where the request that made it had none.
    pub labels: Option<BTreeMap<String, String>>,
    pub mountpoint: String,
    pub name: String,
    pub options: Option<BTreeMap<String, String>>,
    pub scope: String,
    /// Only in `system df`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_data: Option<UsageData>,
}

/// What a volume costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct UsageData {
    /// Containers that have it, running or not.
    pub ref_count: i64,
    /// Bytes; -1 when it could not be measured.
    pub size: i64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeCreate {
    /// Empty for an anonymous volume.
    pub name: String,
    /// Empty for `local`.
    pub driver: String,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeList {
    pub volumes: Vec<Volume>,
    pub warnings: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumesPruned {
    pub volumes_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

crate::query! {
    pub struct ListQuery {
        filters: Filters = "filters",
    }
}
crate::query! {
    pub struct DeleteQuery {
        /// One that is not there is as good as removed.
        force: bool = "force",
    }
}

pub static VOLUME_LIST: Endpoint<ListQuery, (), VolumeList> =
    Endpoint::new("VolumeList", Method::Get, "/volumes", Shape::Json, 200);
pub static VOLUME_CREATE: Endpoint<(), VolumeCreate, Volume> =
    Endpoint::new("VolumeCreate", Method::Post, "/volumes/create", Shape::Json, 201);
pub static VOLUME_INSPECT: Endpoint<(), (), Volume> =
    Endpoint::new("VolumeInspect", Method::Get, "/volumes/{name}", Shape::Json, 200);
pub static VOLUME_DELETE: Endpoint<DeleteQuery, (), ()> =
    Endpoint::new("VolumeDelete", Method::Delete, "/volumes/{name}", Shape::Empty, 204).slow();
pub static VOLUME_PRUNE: Endpoint<ListQuery, (), VolumesPruned> =
    Endpoint::new("VolumePrune", Method::Post, "/volumes/prune", Shape::Json, 200).slow();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_written_in_dockers_order_with_nulls_for_what_was_not_given() {
        let volume = Volume {
            created_at: "2026-01-02T15:04:05Z".into(),
            driver: "local".into(),
            mountpoint: "/v/_data".into(),
            name: "v".into(),
            scope: "local".into(),
            ..Volume::default()
        };
        assert_eq!(
            serde_json::to_string(&volume).unwrap(),
            r#"{"CreatedAt":"2026-01-02T15:04:05Z","Driver":"local","Labels":null,"Mountpoint":"/v/_data","Name":"v","Options":null,"Scope":"local"}"#
        );
    }
}
