//! What containers, images and volumes take up on the disk, and giving it back: `system df` and the prunes.

use serde::{Deserialize, Serialize};

use super::container::ContainerSummary;
use super::image::{ImageSummary, PruneQuery};
use super::query::{Pairs, Query};
use super::volume::Volume;
use super::{Endpoint, Method, Shape};

/// `docker system df`. What was not asked for is `null`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SystemDataUsage {
    /// Bytes of all layers, each counted once.
    pub layers_size: i64,
    pub images: Option<Vec<ImageSummary>>,
    pub containers: Option<Vec<ContainerSummary>>,
    pub volumes: Option<Vec<Volume>>,
    /// Directories that builds keep.
    pub build_cache: Option<Vec<serde_json::Value>>,
}

/// `GET /system/df`. The parameter `type` repeats; none asks for everything.
#[derive(Clone, Debug, Default)]
pub struct DataUsageQuery {
    /// `container`, `image`, `volume`, `build-cache`.
    pub types: Vec<String>,
}

impl Query for DataUsageQuery {
    fn write(&self, pairs: &mut Pairs) {
        pairs.extend(self.types.iter().map(|kind| ("type".to_owned(), kind.clone())));
    }

    fn read(pairs: &Pairs) -> Result<DataUsageQuery, String> {
        let types = pairs.iter().filter(|(name, _)| name == "type").map(|(_, value)| value.clone());
        Ok(DataUsageQuery { types: types.collect() })
    }
}

/// What `docker container prune` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainersPruned {
    pub containers_deleted: Vec<String>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// What `docker builder prune` did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct CachePruned {
    pub caches_deleted: Option<Vec<String>>,
    /// Bytes.
    pub space_reclaimed: u64,
}

pub static SYSTEM_DATA_USAGE: Endpoint<DataUsageQuery, (), SystemDataUsage> =
    Endpoint::new("SystemDataUsage", Method::Get, "/system/df", Shape::Json, 200).slow();
pub static CONTAINER_PRUNE: Endpoint<PruneQuery, (), ContainersPruned> =
    Endpoint::new("ContainerPrune", Method::Post, "/containers/prune", Shape::Json, 200).slow();
pub static BUILD_PRUNE: Endpoint<PruneQuery, (), CachePruned> =
    Endpoint::new("BuildPrune", Method::Post, "/build/prune", Shape::Json, 200).slow();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_repeat() {
        let query = DataUsageQuery { types: vec!["image".into(), "volume".into()] };
        let mut pairs = Vec::new();
        query.write(&mut pairs);
        assert_eq!(DataUsageQuery::read(&pairs).unwrap().types, query.types);
    }

    #[test]
    fn what_was_not_asked_for_is_null() {
        let text = serde_json::to_string(&SystemDataUsage::default()).unwrap();
        assert_eq!(
            text,
            r#"{"LayersSize":0,"Images":null,"Containers":null,"Volumes":null,"BuildCache":null}"#
        );
    }
}
