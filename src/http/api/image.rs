//! Images: what they say about containers, and the operations on the store.
//!
//! [`ImageConfig`] is shared with the store: an image's config blob carries the same object in the same
//! spelling (OCI image-spec, `config.md`), so what is read from a blob is what `inspect` shows.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize};

use super::container::{Healthcheck, Set};
use super::query::{Pairs, Parameter, Query};
use super::{Endpoint, Filters, Method, Shape};

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The defaults an image gives to its containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    #[serde(skip_serializing_if = "is_default")]
    pub exposed_ports: Set,
    /// `KEY=value`.
    pub env: Vec<String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_default")]
    pub volumes: Set,
    pub working_dir: String,
    #[serde(skip_serializing_if = "is_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    #[serde(skip_serializing_if = "is_default")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Compat: written by builders on Windows, kept for round trips.
    #[serde(skip_serializing_if = "is_default")]
    pub args_escaped: bool,
}

/// One line of `docker images`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageSummary {
    /// How many containers use it, or -1 when not counted.
    pub containers: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// `sha256:` and 64 hex digits.
    pub id: String,
    pub labels: BTreeMap<String, String>,
    /// Empty for an image that was not built here.
    pub parent_id: String,
    pub repo_digests: Vec<String>,
    pub repo_tags: Vec<String>,
    /// Bytes shared with other images, or -1 when not counted.
    pub shared_size: i64,
    /// Bytes, all layers.
    pub size: i64,
}

/// `docker image inspect`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageInspect {
    pub id: String,
    pub repo_tags: Vec<String>,
    pub repo_digests: Vec<String>,
    pub parent: String,
    pub comment: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub created: String,
    pub docker_version: String,
    pub author: String,
    pub config: ShownConfig,
    pub architecture: String,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
    pub os: String,
    #[serde(skip_serializing_if = "is_default")]
    pub os_version: String,
    /// Bytes, all layers.
    pub size: i64,
    pub graph_driver: GraphDriver,
    #[serde(rename = "RootFS")]
    pub root_fs: RootFs,
    pub metadata: ImageMetadata,
}

/// An image's config as `inspect` shows it.
///
/// Compat: until 1.52 these fields are there even when the image says nothing about them, and clients that index
/// them rely on it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct ShownConfig(pub ImageConfig);

impl Serialize for ShownConfig {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut value = serde_json::to_value(&self.0).map_err(serde::ser::Error::custom)?;
        for (name, empty) in [
            ("Cmd", "null"),
            ("Entrypoint", "null"),
            ("Env", "null"),
            ("Labels", "null"),
            ("OnBuild", "null"),
            ("User", ""),
            ("Volumes", "null"),
            ("WorkingDir", ""),
        ] {
            if value[name].is_null() || value[name].as_array().is_some_and(Vec::is_empty) {
                value[name] = if empty == "null" { serde_json::Value::Null } else { empty.into() };
            }
        }
        // Without a length, as serde's own flattened structs: whoever tells structs from maps sees one.
        let mut fields = serializer.serialize_map(None)?;
        for (name, field) in value.as_object().into_iter().flatten() {
            fields.serialize_entry(name, field)?;
        }
        fields.end()
    }
}

/// Where the layers lie.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct GraphDriver {
    pub name: String,
    pub data: BTreeMap<String, String>,
}

/// The digests of the uncompressed layers, lowest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    #[serde(skip_serializing_if = "is_default")]
    pub layers: Vec<String>,
}

/// What the store knows beside the image itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageMetadata {
    /// RFC 3339; the zero time of Docker when never tagged here.
    pub last_tag_time: String,
}

/// One line of `docker history`, newest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHistoryItem {
    /// `<missing>` for all but the newest, as these images exist only as layers.
    pub id: String,
    /// Seconds since 1970.
    pub created: i64,
    pub created_by: String,
    pub tags: Option<Vec<String>>,
    pub size: i64,
    pub comment: String,
}

/// One thing `docker rmi` did: a reference removed, or an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ImageDeleteItem {
    Untagged(String),
    Deleted(String),
}

/// What `docker image prune` did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImagesPruned {
    pub images_deleted: Vec<ImageDeleteItem>,
    /// Bytes.
    pub space_reclaimed: u64,
}

/// One message of a progress stream (pull, push, build, load, import), sent as one line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct JsonMessage {
    /// Text to print as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_detail: Option<ProgressDetail>,
    /// What the status is about: the short digest of a layer, a tag.
    #[serde(skip_serializing_if = "is_default")]
    pub id: String,
    /// Compat: docker-py's build reads this, the CLI and docker-py's load `errorDetail`; both are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_detail: Option<ErrorDetail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aux: Option<serde_json::Value>,
}

impl JsonMessage {
    /// Text to print as it is; brings its own line end.
    pub fn stream(text: impl Into<String>) -> JsonMessage {
        JsonMessage { stream: Some(text.into()), ..JsonMessage::default() }
    }

    /// A status line about nothing in particular.
    pub fn status(text: impl Into<String>) -> JsonMessage {
        JsonMessage { status: Some(text.into()), ..JsonMessage::default() }
    }

    /// A status about `id`, with how far it has come.
    pub fn progress(id: impl Into<String>, status: impl Into<String>, detail: ProgressDetail) -> JsonMessage {
        JsonMessage {
            id: id.into(),
            status: Some(status.into()),
            progress_detail: Some(detail),
            ..JsonMessage::default()
        }
    }

    /// The end of a stream that had begun when its operation failed.
    pub fn failure(message: impl Into<String>) -> JsonMessage {
        let message = message.into();
        JsonMessage {
            error: Some(message.clone()),
            error_detail: Some(ErrorDetail { code: 0, message }),
            ..JsonMessage::default()
        }
    }
}

/// How far an operation has come; all zero is sent as `{}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressDetail {
    #[serde(skip_serializing_if = "is_default")]
    pub current: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub total: i64,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "is_default")]
    pub start: i64,
    #[serde(skip_serializing_if = "is_default")]
    pub hidecounts: bool,
    /// Empty for bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub units: String,
}

/// The error at the end of a progress stream.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    #[serde(skip_serializing_if = "is_default")]
    pub code: i64,
    pub message: String,
}

crate::query! {
    pub struct ListQuery {
        /// Intermediate images too.
        all: bool = "all",
        filters: Filters = "filters",
        /// A name; gone with 1.41, where it is one of the filters.
        filter: String = "filter",
        shared_size: bool = "shared-size",
        digests: bool = "digests",
        /// Of dewar: the artifacts instead of the images.
        artifacts: bool = "artifacts",
    }
}
crate::query! {
    pub struct PlatformQuery {
        platform: String = "platform",
    }
}
crate::query! {
    pub struct TagQuery {
        repo: String = "repo",
        tag: String = "tag",
    }
}
crate::query! {
    pub struct DeleteQuery {
        force: bool = "force",
        /// Keep untagged parents.
        noprune: bool = "noprune",
    }
}
crate::query! {
    pub struct LoadQuery {
        /// Docker's default is true: absent means quiet.
        quiet: Option<bool> = "quiet",
        platform: String = "platform",
    }
}
crate::query! {
    pub struct PruneQuery {
        filters: Filters = "filters",
    }
}

/// `POST /images/create`: a pull (`fromImage`) or an import (`fromSrc`).
#[derive(Clone, Debug, Default)]
pub struct CreateQuery {
    pub from_image: String,
    /// `-` for the body, or a URL.
    pub from_src: String,
    /// The name an imported image gets.
    pub repo: String,
    pub tag: String,
    pub message: String,
    pub platform: String,
    /// Dockerfile instructions applied to an imported image; the parameter repeats.
    pub changes: Vec<String>,
}

impl Query for CreateQuery {
    fn write(&self, pairs: &mut Pairs) {
        for (name, value) in [
            ("fromImage", &self.from_image),
            ("fromSrc", &self.from_src),
            ("repo", &self.repo),
            ("tag", &self.tag),
            ("message", &self.message),
            ("platform", &self.platform),
        ] {
            if let Some(text) = value.to_text() {
                pairs.push((name.to_owned(), text));
            }
        }
        pairs.extend(self.changes.iter().map(|change| ("changes".to_owned(), change.clone())));
    }

    fn read(pairs: &Pairs) -> Result<CreateQuery, String> {
        let mut query = CreateQuery::default();
        for (name, value) in pairs.iter().rev() {
            let value = value.clone();
            match name.as_str() {
                "fromImage" => query.from_image = value,
                "fromSrc" => query.from_src = value,
                "repo" => query.repo = value,
                "tag" => query.tag = value,
                "message" => query.message = value,
                "platform" => query.platform = value,
                _ => {}
            }
        }
        let changes = pairs.iter().filter(|(name, _)| name == "changes");
        query.changes = changes.map(|(_, value)| value.clone()).collect();
        Ok(query)
    }
}

/// `GET /images/get`: which images to save; the parameter `names` repeats.
#[derive(Clone, Debug, Default)]
pub struct SaveQuery {
    pub names: Vec<String>,
    /// `os/architecture[/variant]`, or JSON.
    pub platform: String,
}

impl Query for SaveQuery {
    fn write(&self, pairs: &mut Pairs) {
        pairs.extend(self.names.iter().map(|name| ("names".to_owned(), name.clone())));
        if let Some(text) = self.platform.to_text() {
            pairs.push(("platform".to_owned(), text));
        }
    }

    /// Compat: docker-py joins nothing, old clients join with commas; a comma is in no reference.
    fn read(pairs: &Pairs) -> Result<SaveQuery, String> {
        let names = pairs
            .iter()
            .filter(|(name, _)| name == "names")
            .flat_map(|(_, value)| value.split(','))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        let platform = pairs.iter().find(|(name, _)| name == "platform");
        Ok(SaveQuery { names, platform: platform.map(|(_, value)| value.clone()).unwrap_or_default() })
    }
}

crate::query! {
    pub struct PushQuery {
        tag: String = "tag",
        platform: String = "platform",
    }
}

crate::query! {
    pub struct SearchQuery {
        term: String = "term",
        limit: Option<i64> = "limit",
        filters: Filters = "filters",
    }
}

/// One result of `docker search`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    pub name: String,
    pub description: String,
    pub star_count: i64,
    pub is_official: bool,
    /// Compat: always false, Docker's registry knows no other any more.
    pub is_automated: bool,
}

/// What a registry says of a name, without fetching it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DistributionInspect {
    pub descriptor: DistributionDescriptor,
    pub platforms: Vec<DistributionPlatform>,
}

/// Points to a manifest, in OCI's spelling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DistributionDescriptor {
    pub media_type: String,
    pub digest: String,
    /// Bytes.
    pub size: i64,
}

/// A platform a name has an image for, in OCI's spelling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DistributionPlatform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "is_default")]
    pub os_version: String,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
}

pub static IMAGE_LIST: Endpoint<ListQuery, (), Vec<ImageSummary>> =
    Endpoint::new("ImageList", Method::Get, "/images/json", Shape::Json, 200);
/// Answers a stream of [`JsonMessage`]; the body of an import is the archive.
pub static IMAGE_CREATE: Endpoint<CreateQuery, (), ()> =
    Endpoint::new("ImageCreate", Method::Post, "/images/create", Shape::Stream, 200);
pub static IMAGE_INSPECT: Endpoint<PlatformQuery, (), ImageInspect> =
    Endpoint::new("ImageInspect", Method::Get, "/images/{name...}/json", Shape::Json, 200);
pub static IMAGE_HISTORY: Endpoint<PlatformQuery, (), Vec<ImageHistoryItem>> =
    Endpoint::new("ImageHistory", Method::Get, "/images/{name...}/history", Shape::Json, 200);
pub static IMAGE_TAG: Endpoint<TagQuery, (), ()> =
    Endpoint::new("ImageTag", Method::Post, "/images/{name...}/tag", Shape::Empty, 201);
pub static IMAGE_DELETE: Endpoint<DeleteQuery, (), Vec<ImageDeleteItem>> =
    Endpoint::new("ImageDelete", Method::Delete, "/images/{name...}", Shape::Json, 200).slow();
pub static IMAGE_PRUNE: Endpoint<PruneQuery, (), ImagesPruned> =
    Endpoint::new("ImagePrune", Method::Post, "/images/prune", Shape::Json, 200).slow();
/// The body is the archive; answers a stream of [`JsonMessage`].
/// Answers progress messages.
pub static IMAGE_PUSH: Endpoint<PushQuery, (), ()> =
    Endpoint::new("ImagePush", Method::Post, "/images/{name...}/push", Shape::Stream, 200);
pub static IMAGE_SEARCH: Endpoint<SearchQuery, (), Vec<SearchResult>> =
    Endpoint::new("ImageSearch", Method::Get, "/images/search", Shape::Json, 200).slow();
pub static DISTRIBUTION_INSPECT: Endpoint<(), (), DistributionInspect> =
    Endpoint::new("DistributionInspect", Method::Get, "/distribution/{name...}/json", Shape::Json, 200)
        .slow();
pub static IMAGE_LOAD: Endpoint<LoadQuery, (), ()> =
    Endpoint::new("ImageLoad", Method::Post, "/images/load", Shape::Stream, 200);
/// Answers an archive (`application/x-tar`).
pub static IMAGE_GET: Endpoint<PlatformQuery, (), ()> =
    Endpoint::new("ImageGet", Method::Get, "/images/{name...}/get", Shape::Stream, 200);
/// Answers an archive (`application/x-tar`) of several images.
pub static IMAGE_GET_ALL: Endpoint<SaveQuery, (), ()> =
    Endpoint::new("ImageGetAll", Method::Get, "/images/get", Shape::Stream, 200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_leave_out_what_they_do_not_say() {
        let text = |message| serde_json::to_string(&message).unwrap();
        assert_eq!(text(JsonMessage::stream("Loaded image: a:b\n")), r#"{"stream":"Loaded image: a:b\n"}"#);
        assert_eq!(
            text(JsonMessage::progress("0123", "Extracting", ProgressDetail::default())),
            r#"{"status":"Extracting","progressDetail":{},"id":"0123"}"#
        );
        assert_eq!(text(JsonMessage::failure("no")), r#"{"error":"no","errorDetail":{"message":"no"}}"#);
    }

    #[test]
    fn delete_items_have_one_key_each() {
        let items =
            vec![ImageDeleteItem::Untagged("a:b".into()), ImageDeleteItem::Deleted("sha256:0".into())];
        let text = serde_json::to_string(&items).unwrap();
        assert_eq!(text, r#"[{"Untagged":"a:b"},{"Deleted":"sha256:0"}]"#);
        assert_eq!(serde_json::from_str::<Vec<ImageDeleteItem>>(&text).unwrap(), items);
    }

    #[test]
    fn repeated_parameters_are_collected() {
        let query = CreateQuery {
            from_src: "-".into(),
            changes: vec!["CMD a".into(), "ENV b=c".into()],
            ..CreateQuery::default()
        };
        let mut pairs = Vec::new();
        query.write(&mut pairs);
        assert_eq!(CreateQuery::read(&pairs).unwrap().changes, query.changes);
        let pairs = vec![("names".into(), "a,b".into()), ("names".into(), "c".into())];
        assert_eq!(SaveQuery::read(&pairs).unwrap().names, ["a", "b", "c"]);
    }

    #[test]
    fn inspect_shows_what_the_config_leaves_out() {
        let value = serde_json::to_value(ShownConfig(ImageConfig::default())).unwrap();
        let text = r#"{"Cmd":null,"Entrypoint":null,"Env":null,"Labels":null,"OnBuild":null,"User":"","Volumes":null,"WorkingDir":""}"#;
        assert_eq!(value.to_string(), text);
        let read: ShownConfig = crate::http::api::decode(text.as_bytes()).unwrap();
        assert_eq!(read, ShownConfig::default());
    }

    /// The config object of Debian's image, as skopeo prints it.
    #[test]
    fn a_config_reads_and_writes_in_dockers_spelling() {
        let text = r#"{"ExposedPorts":{"80/tcp":{}},"Env":["PATH=/bin"],"Entrypoint":["/e"],"Cmd":["bash"],"WorkingDir":"/w","Labels":{"a":"b"}}"#;
        let config: ImageConfig = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&config).unwrap(), text);
    }
}
