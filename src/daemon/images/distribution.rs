//! `GET /distribution/{name}/json`: what a registry has under a name, without fetching it.

use super::Reference;
use super::config::{Config, DOCKER_LIST, Index, Manifest, OCI_INDEX};
use super::pull::MANIFEST_TYPES;
use crate::daemon::config::Config as Settings;
use crate::daemon::error::{Error, Result};
use crate::daemon::registry;
use crate::http::api::image::{DistributionDescriptor, DistributionInspect, DistributionPlatform};
use crate::http::registry::{Registry, SMALL_BYTES};

/// Asks the registries of `name` in turn. Blocks as long as they take.
pub fn distribution(
    settings: &Settings,
    name: &str,
    client: &registry::Client,
) -> Result<DistributionInspect> {
    let reference = Reference::parse(name)?.with_default_tag();
    let mut failure = Error::invalid("no registry to ask");
    for registry in registry::registries(settings, reference.domain(), client)? {
        match ask(&registry, &reference) {
            Ok(found) => return Ok(found),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn ask(registry: &Registry, reference: &Reference) -> Result<DistributionInspect> {
    use std::io::Read;
    let refused = |error| registry::refusal(&error, reference);
    let version = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.as_str(),
        (None, tag) => tag.unwrap_or_default(),
    };
    let found = registry.get_manifest(reference.path(), version, MANIFEST_TYPES).map_err(refused)?;
    let platforms = if matches!(found.media_type.as_str(), OCI_INDEX | DOCKER_LIST) {
        let index = Index::parse(&found.bytes)?;
        let platforms = index.manifests.into_iter().filter_map(|manifest| manifest.platform);
        platforms
            .map(|platform| DistributionPlatform {
                architecture: platform.architecture,
                os: platform.os,
                variant: platform.variant,
                ..DistributionPlatform::default()
            })
            .collect()
    } else {
        let manifest = Manifest::parse(&found.bytes)?;
        let blob =
            registry.get_blob(reference.path(), manifest.config.digest.as_str(), 0).map_err(refused)?;
        let mut bytes = Vec::new();
        let read = blob.reader.take(SMALL_BYTES).read_to_end(&mut bytes);
        read.map_err(|cause| Error::system(format!("read image config {}", manifest.config.digest), cause))?;
        let config = Config::parse(&bytes)?;
        vec![DistributionPlatform {
            architecture: config.architecture,
            os: config.os,
            os_version: config.os_version,
            variant: config.variant,
        }]
    };
    let descriptor = DistributionDescriptor {
        media_type: found.media_type,
        digest: found.digest,
        size: found.bytes.len() as i64,
    };
    Ok(DistributionInspect { descriptor, platforms })
}
