//! The JSON an image is made of: its config, manifests and indexes, as OCI and Docker write them.
//!
//! Everything read here came from outside: sizes are limited, media types are checked, digests are compared
//! by whoever reads the bytes.
//!
//! Source: OCI image-spec `config.md`, `manifest.md`, `image-index.md`; Docker image manifest v2 schema 2.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::codec::Digest;
use crate::daemon::error::{Error, Result};
use crate::http::api::image::ImageConfig;

/// No manifest or config in use comes near; a registry's own limit is 4 MiB.
pub const MAX_JSON_BYTES: u64 = 4 << 20;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An image's config blob. Its digest is the image's id.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub architecture: String,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "is_default")]
    pub os_version: String,
    /// RFC 3339.
    #[serde(skip_serializing_if = "is_default")]
    pub created: String,
    #[serde(skip_serializing_if = "is_default")]
    pub author: String,
    #[serde(skip_serializing_if = "is_default")]
    pub comment: String,
    #[serde(skip_serializing_if = "is_default")]
    pub docker_version: String,
    pub config: ImageConfig,
    pub rootfs: RootFs,
    #[serde(skip_serializing_if = "is_default")]
    pub history: Vec<History>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RootFs {
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed layers, lowest first.
    pub diff_ids: Vec<Digest>,
}

/// One step of an image's making, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "is_default")]
    pub created: String,
    #[serde(skip_serializing_if = "is_default")]
    pub created_by: String,
    #[serde(skip_serializing_if = "is_default")]
    pub author: String,
    #[serde(skip_serializing_if = "is_default")]
    pub comment: String,
    #[serde(skip_serializing_if = "is_default")]
    pub empty_layer: bool,
}

impl Config {
    /// Reads a config blob; `null` means absent, as Docker writes it.
    pub fn parse(bytes: &[u8]) -> Result<Config> {
        let config: Config = crate::http::api::decode(bytes)
            .map_err(|cause| Error::invalid(format!("read image config: {cause}")))?;
        if config.rootfs.kind != "layers" {
            return Err(Error::invalid(format!(
                "read image config: rootfs is of type {:?} instead of \"layers\"",
                config.rootfs.kind
            )));
        }
        Ok(config)
    }

    /// What it runs on.
    pub fn platform(&self) -> Platform {
        let (architecture, os) = (self.architecture.clone(), self.os.clone());
        Platform { architecture, os, variant: self.variant.clone() }
    }

    /// Sees that the image, called `name` in messages, is made for `wanted`.
    pub fn check_platform(&self, name: &str, wanted: &Platform) -> Result<()> {
        let offered = self.platform();
        if wanted.accepts(&offered) {
            return Ok(());
        }
        Err(Error::not_found(format!(
            "image with reference {name} was found but its platform ({offered}) does not match the specified \
             platform ({wanted})"
        )))
    }
}

/// Points to a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    #[serde(default, skip_serializing_if = "is_default")]
    pub media_type: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Of what it points to, if that is an artifact.
    #[serde(default, skip_serializing_if = "is_default")]
    pub artifact_type: String,
}

impl Descriptor {
    /// A descriptor of `size` bytes with this digest.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
            artifact_type: String::new(),
        }
    }

    /// Sees that `size` bytes are what it promises.
    pub fn check_size(&self, size: u64) -> Result<()> {
        if size == self.size {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "blob {}: it has {size} bytes where {} are promised",
            self.digest, self.size
        )))
    }

    /// Whether it points to a list of manifests.
    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
    }
}

/// What an image runs on, in Go's words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(skip_serializing_if = "is_default")]
    pub variant: String,
}

impl Platform {
    /// The platform this daemon runs on.
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "x86" => ("386", ""),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Platform { architecture: architecture.into(), os: "linux".into(), variant: variant.into() }
    }

    /// Reads `os/architecture[/variant]`.
    pub fn parse(text: &str) -> Result<Platform> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Platform { architecture, os, variant: variant.unwrap_or_default() })
            }
            _ => Err(Error::invalid(format!("platform {text:?} is not os/architecture[/variant]"))),
        }
    }

    /// The parameter of a request: `os/architecture[/variant]`, or JSON as clients of 1.48 and later send it; empty
    /// for none.
    pub fn from_query(text: &str) -> Result<Option<Platform>> {
        match text {
            "" => Ok(None),
            json if json.starts_with('{') => crate::http::api::decode(json.as_bytes())
                .map(Some)
                .map_err(|cause| Error::invalid(format!("platform {json:?}: {cause}"))),
            text => Platform::parse(text).map(Some),
        }
    }

    /// Whether what is made for `offered` runs where `self` is wanted; a variant not named fits any, and of arm's an
    /// earlier one runs on a later.
    pub fn accepts(&self, offered: &Platform) -> bool {
        let is_earlier = self.architecture == "arm" && offered.variant < self.variant;
        self.os == offered.os
            && self.architecture == offered.architecture
            && (self.variant.is_empty()
                || offered.variant.is_empty()
                || self.variant == offered.variant
                || is_earlier)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(out, "/{}", self.variant) }
    }
}

/// An image's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads a manifest and sees that it describes an image we can unpack.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let invalid = |cause: String| Error::invalid(format!("read image manifest: {cause}"));
        let manifest: Manifest =
            crate::http::api::decode(bytes).map_err(|cause| invalid(cause.to_string()))?;
        if manifest.schema_version != 2 {
            return Err(invalid(format!("schema version {} is not supported", manifest.schema_version)));
        }
        if !matches!(manifest.media_type.as_str(), "" | OCI_MANIFEST | DOCKER_MANIFEST) {
            return Err(invalid(format!("{:?} is no image manifest", manifest.media_type)));
        }
        if !matches!(manifest.config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
            return Err(invalid(format!("{:?} is no image config", manifest.config.media_type)));
        }
        for layer in &manifest.layers {
            let kind = layer.media_type.as_str();
            if kind.contains("foreign") || kind.contains("nondistributable") {
                return Err(invalid(format!("foreign layer {} is not supported", layer.digest)));
            }
            if !kind.contains(".tar") {
                return Err(invalid(format!("layer {} has unknown type {kind:?}", layer.digest)));
            }
        }
        Ok(manifest)
    }
}

/// A list of manifests, for several platforms or several images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub media_type: String,
    pub manifests: Vec<Descriptor>,
}

impl Index {
    /// Reads an index or a manifest list.
    pub fn parse(bytes: &[u8]) -> Result<Index> {
        let invalid = |cause: String| Error::invalid(format!("read image index: {cause}"));
        let index: Index = crate::http::api::decode(bytes).map_err(|cause| invalid(cause.to_string()))?;
        if index.schema_version != 2 {
            return Err(invalid(format!("schema version {} is not supported", index.schema_version)));
        }
        Ok(index)
    }

    /// The manifest for `platform`. One that names no platform fits if nothing better does.
    pub fn choose(&self, platform: &Platform) -> Result<&Descriptor> {
        let fits = |wanted: fn(&Platform, &Platform) -> bool| {
            self.manifests
                .iter()
                .find(|one| one.platform.as_ref().is_some_and(|offered| wanted(platform, offered)))
        };
        fits(|wanted, offered| wanted == offered)
            .or_else(|| fits(Platform::accepts))
            .or_else(|| self.manifests.iter().find(|one| one.platform.is_none()))
            .ok_or_else(|| {
                Error::not_found(format!("no matching manifest for {platform} in the manifest list entries"))
            })
    }
}
