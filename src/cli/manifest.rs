//! `dewar manifest inspect`: what a registry has under a name. The client asks itself, as docker's does: the daemon
//! would fetch the image.
//!
//! Compat: one manifest is printed as it came, indented by tabs; a list by three spaces.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::json;
use serde_json::ser::{PrettyFormatter, Serializer};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::http::registry::{
    CERTS_DIRS, Cancel, Credentials, Manifest, Options, Proxies, Registry, is_loopback,
};

use super::command::{Action, Args, Command, Flag};
use super::config::Json;
use super::context::print;
use super::credentials;
use super::error::Error;
use super::reference::Reference;

static INSECURE: Flag = Flag::switch("insecure", "Take any certificate, and http where there is no https");
static VERBOSE: Flag =
    Flag::switch("verbose", "Show digests and platforms beside, of a list's manifests too").short('v');

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

pub static INSPECT: Command = Command {
    names: &["manifest inspect"],
    summary: "Show an image's manifest, or a list of them",
    usage: "[OPTIONS] MANIFEST",
    about: "The registry is asked, not the daemon; nothing is fetched beside the manifest.",
    flags: &[&INSECURE, &VERBOSE],
    args: Args::exactly(1),
    example: "dewar manifest inspect alpine:3.20",
    usage_code: 1,
    plan: |matches| {
        let reference = Reference::parse(&matches.args[0]).map_err(Error::Local)?.or_latest();
        let (insecure, is_verbose) = (matches.is(&INSECURE), matches.is(&VERBOSE));
        Action::call(move |context| {
            let (domain, repository) = reference.name.split_once('/').unwrap_or_default();
            let known = credentials::get(context.config(), credentials::key_of(&reference.name))?;
            let registry = connect(domain, insecure, known.into())?;
            let found = get(&registry, repository, reference.version())?;
            let text = match (is_list(&found), is_verbose) {
                (true, false) => indented(&read(&found)?, b"   "),
                (false, false) => indented(&read(&found)?, b"\t"),
                (false, true) => indented(&described(&registry, &reference, &found, None)?, b"\t"),
                (true, true) => indented(&each(&registry, &reference, &found)?, b"\t"),
            };
            print(&format!("{text}\n")).map(|()| 0)
        })
    },
};

fn connect(domain: &str, insecure: bool, credentials: Credentials) -> Result<Registry, Error> {
    let host = domain.rsplit_once(':').map_or(domain, |(host, _)| host);
    let environment = |names: [&str; 2]| {
        let found = names.iter().filter_map(|name| std::env::var(name).ok()).find(|value| !value.is_empty());
        found.unwrap_or_default()
    };
    let options = Options {
        // Compat: nobody needs a certificate to speak to oneself.
        is_insecure: insecure || is_loopback(host),
        credentials,
        certs_dirs: CERTS_DIRS.iter().map(PathBuf::from).collect(),
        proxies: Proxies {
            http: environment(["HTTP_PROXY", "http_proxy"]),
            https: environment(["HTTPS_PROXY", "https_proxy"]),
            none: environment(["NO_PROXY", "no_proxy"]),
        },
        headers: Vec::new(),
        cancel: Cancel::default(),
    };
    Registry::new(domain, options).map_err(|error| Error::Local(error.to_string()))
}

fn get(registry: &Registry, repository: &str, version: &str) -> Result<Manifest, Error> {
    let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];
    let found = registry.get_manifest(repository, version, &accepted);
    found.map_err(|error| match error.status() {
        // Compat: docker's words.
        404 => {
            let mark = if version.starts_with("sha256:") { '@' } else { ':' };
            Error::Local(format!("no such manifest: {}/{repository}{mark}{version}", registry.host()))
        }
        _ => Error::Local(error.to_string()),
    })
}

fn is_list(manifest: &Manifest) -> bool {
    matches!(manifest.media_type.as_str(), OCI_INDEX | DOCKER_LIST)
}

fn read(manifest: &Manifest) -> Result<Json, Error> {
    serde_json::from_slice(&manifest.bytes)
        .map_err(|cause| Error::local(format!("read manifest {}", manifest.digest), cause))
}

fn indented(value: &impl Serialize, indent: &[u8]) -> String {
    let mut text = Vec::new();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(indent)))
        .expect("JSON is JSON");
    String::from_utf8_lossy(&text).into_owned()
}

/// What `--verbose` says of one manifest. A list says itself what its manifests are for; else the config does.
fn described(
    registry: &Registry,
    reference: &Reference,
    manifest: &Manifest,
    platform: Option<serde_json::Value>,
) -> Result<Json, Error> {
    let failed = |cause: String| Error::local(format!("read manifest {}", manifest.digest), cause);
    let content: serde_json::Value =
        serde_json::from_slice(&manifest.bytes).map_err(|cause| failed(cause.to_string()))?;
    let platform = match platform {
        Some(platform) => platform,
        None => {
            let config = content["config"]["digest"].as_str().unwrap_or_default();
            let (_, repository) = reference.name.split_once('/').unwrap_or_default();
            let config = config_of(registry, repository, config)?;
            let mut platform = json!({ "architecture": config["architecture"], "os": config["os"] });
            for field in ["os.version", "os.features", "variant"] {
                if !config[field].is_null() {
                    platform[field] = config[field].clone();
                }
            }
            platform
        }
    };
    let mut name = reference.name.clone();
    for (mark, part) in [(":", &reference.tag), ("@", &reference.digest)] {
        if !part.is_empty() {
            name += &format!("{mark}{part}");
        }
    }
    let kind = if manifest.media_type == OCI_MANIFEST { "OCIManifest" } else { "SchemaV2Manifest" };
    let plain =
        |value: serde_json::Value| serde_json::from_value(value).map_err(|cause| failed(cause.to_string()));
    // Compat: in docker's order.
    let descriptor = Json::Object(vec![
        ("mediaType".to_owned(), Json::Plain(manifest.media_type.clone().into())),
        ("digest".to_owned(), Json::Plain(manifest.digest.clone().into())),
        ("size".to_owned(), Json::Plain(manifest.bytes.len().into())),
        ("platform".to_owned(), plain(platform)?),
    ]);
    Ok(Json::Object(vec![
        ("Ref".to_owned(), Json::Plain(name.into())),
        ("Descriptor".to_owned(), descriptor),
        ("Raw".to_owned(), Json::Plain(STANDARD.encode(&manifest.bytes).into())),
        (kind.to_owned(), read(manifest)?),
    ]))
}

/// [`described`] for every manifest of a list.
fn each(registry: &Registry, reference: &Reference, list: &Manifest) -> Result<Json, Error> {
    let content: serde_json::Value = serde_json::from_slice(&list.bytes)
        .map_err(|cause| Error::local(format!("read manifest {}", list.digest), cause))?;
    let (_, repository) = reference.name.split_once('/').unwrap_or_default();
    let mut all = Vec::new();
    for entry in content["manifests"].as_array().into_iter().flatten() {
        let digest = entry["digest"].as_str().unwrap_or_default();
        let manifest = get(registry, repository, digest)?;
        let pinned = Reference { digest: digest.to_owned(), ..reference.clone() };
        let platform = Some(entry["platform"].clone()).filter(|platform| !platform.is_null());
        all.push(described(registry, &pinned, &manifest, platform)?);
    }
    Ok(Json::Array(all))
}

/// The most bytes of a config, as Docker has it.
const CONFIG_BYTES: u64 = 4 << 20;

fn config_of(registry: &Registry, repository: &str, digest: &str) -> Result<serde_json::Value, Error> {
    use std::io::Read as _;
    let failed = |cause: &dyn std::fmt::Display| Error::local(format!("read config {digest}"), cause);
    let blob = registry.get_blob(repository, digest, 0).map_err(|error| Error::Local(error.to_string()))?;
    let mut bytes = Vec::new();
    blob.reader.take(CONFIG_BYTES).read_to_end(&mut bytes).map_err(|cause| failed(&cause))?;
    serde_json::from_slice(&bytes).map_err(|cause| failed(&cause))
}
