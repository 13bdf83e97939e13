//! Contexts: named places daemons are found at, in the files the docker client keeps.
//!
//! ```text
//! $DOCKER_CONFIG/contexts/meta/<sha256 of the name>/meta.json     name, description, address
//! $DOCKER_CONFIG/contexts/tls/<the same>/docker/{ca,cert,key}.pem  whom it trusts, what it shows
//! ```
//!
//! Which one is meant, first to last: `--context`, `--host`, `DEWAR_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`,
//! the chosen one (`context use`), the default.

pub mod commands;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::error::{Error, go_cause};
use crate::http::tls::ClientFiles;

/// The address when nobody names one.
pub const DEFAULT_HOST: &str = "unix:///run/dewar.sock";
const DEFAULT_TLS_HOST: &str = "tcp://localhost:2376";
/// Below a context's directory for TLS, and in it.
const ENDPOINT: &str = "docker";
const CA: &str = "ca.pem";
const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";
/// The context that is always there: whatever the environment says.
pub const DEFAULT: &str = "default";

/// `meta.json`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Meta {
    pub name: String,
    pub metadata: Metadata,
    pub endpoints: Endpoints,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Metadata {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Endpoints {
    pub docker: Endpoint,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Endpoint {
    pub host: String,
    #[serde(rename = "SkipTLSVerify")]
    pub skip_tls_verify: bool,
}

/// What the flags and the environment say.
#[derive(Debug, Default)]
pub struct Wish<'a> {
    pub hosts: &'a [&'a str],
    pub context: Option<&'a str>,
    pub tls: bool,
    /// `--tlsverify`, if it was given.
    pub verifies: Option<bool>,
    pub ca: Option<&'a str>,
    pub cert: Option<&'a str>,
    pub key: Option<&'a str>,
}

/// The name of the context that is meant.
pub fn name(
    wish: &Wish<'_>,
    environment: impl Fn(&str) -> Option<String>,
    config: &Config,
) -> Result<String, Error> {
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    match wish.context.filter(|name| !name.is_empty()) {
        Some(_) if !wish.hosts.is_empty() => {
            Err(Error::Refused("conflicting options: cannot specify both --host and --context".to_owned()))
        }
        Some(name) => Ok(name.to_owned()),
        None if !wish.hosts.is_empty() || given("DEWAR_HOST").or_else(|| given("DOCKER_HOST")).is_some() => {
            Ok(DEFAULT.to_owned())
        }
        None => Ok(given("DOCKER_CONTEXT")
            .or_else(|| config.text("currentContext").map(str::to_owned))
            .unwrap_or_else(|| DEFAULT.to_owned())),
    }
}

/// The address of the daemon that is meant, as its user wrote it.
pub fn host(
    name: &str,
    wish: &Wish<'_>,
    environment: impl Fn(&str) -> Option<String>,
    config: &Config,
) -> Result<String, Error> {
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    if name != DEFAULT {
        let meta = find(config, name).map_err(|error| unresolved(&error.to_string()))?;
        return match meta.endpoints.docker.host {
            host if host.is_empty() => Ok(DEFAULT_HOST.to_owned()),
            host => Ok(host),
        };
    }
    let host = match wish.hosts {
        [] => given("DEWAR_HOST").or_else(|| given("DOCKER_HOST")).unwrap_or_else(|| {
            // Compat: who asks for TLS and names no host means this one.
            let has_tls = wants_tls(wish, given).is_some();
            if has_tls { DEFAULT_TLS_HOST } else { DEFAULT_HOST }.to_owned()
        }),
        [host] => (*host).to_owned(),
        _ => return Err(unresolved("Specify only one -H")),
    };
    Ok(host)
}

/// Whether TLS is asked for by flags or environment, and if so, whether the daemon is to be verified.
fn wants_tls(wish: &Wish<'_>, given: impl Fn(&str) -> Option<String>) -> Option<bool> {
    // Compat: --tlsverify turns TLS on whatever it says, as does its variable unless it is empty.
    let verifies = wish.verifies.unwrap_or_else(|| given("DOCKER_TLS_VERIFY").is_some());
    let is_on = verifies || wish.verifies.is_some() || wish.tls || given("DOCKER_TLS").is_some();
    is_on.then_some(verifies)
}

/// The files of TLS with the daemon that is meant; `None` without TLS.
pub fn tls(
    name: &str,
    wish: &Wish<'_>,
    environment: impl Fn(&str) -> Option<String>,
    config: &Config,
) -> Result<Option<ClientFiles>, Error> {
    if name != DEFAULT {
        let trusts_anyone = find(config, name)?.endpoints.docker.skip_tls_verify;
        let dir = tls_dir(config, name).join(ENDPOINT);
        let file = |name: &str| Some(dir.join(name)).filter(|path| path.exists());
        let (ca, pair) = (file(CA), file(CERT).zip(file(KEY)));
        let is_on = trusts_anyone || ca.is_some() || pair.is_some();
        return Ok(is_on.then_some(ClientFiles { ca, more_cas: Vec::new(), pair, trusts_anyone }));
    }
    let given = |name: &str| environment(name).filter(|value| !value.is_empty());
    let Some(verifies) = wants_tls(wish, given) else { return Ok(None) };
    let dir = given("DOCKER_CERT_PATH").map_or_else(|| config.dir_path().to_owned(), PathBuf::from);
    // What was not named counts only where it is there.
    let file = |named: Option<&str>, usual: &str| match named {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(dir.join(usual)).filter(|path| path.exists()),
    };
    let pair = match (file(wish.cert, CERT), file(wish.key, KEY)) {
        (None, None) => None,
        (cert, key) => Some((cert.unwrap_or_else(|| dir.join(CERT)), key.unwrap_or_else(|| dir.join(KEY)))),
    };
    // Compat: docker never falls back to the system's authorities here.
    let ca = wish.ca.map_or_else(|| dir.join(CA), PathBuf::from);
    Ok(Some(ClientFiles { ca: Some(ca), more_cas: Vec::new(), pair, trusts_anyone: !verifies }))
}

/// Compat: docker's words for every way not to know where the daemon is.
pub fn unresolved(cause: &str) -> Error {
    Error::Refused(format!("Failed to initialize: unable to resolve docker endpoint: {cause}"))
}

/// The context called `name`; `default` has no file.
pub fn find(config: &Config, name: &str) -> Result<Meta, Error> {
    let path = meta_path(config, name);
    let bytes = std::fs::read(&path).map_err(|cause| {
        let what =
            if cause.kind() == std::io::ErrorKind::NotFound { "context not found" } else { "load context" };
        Error::Local(format!("context {name:?}: {what}: open {}: {}", path.display(), go_cause(&cause)))
    })?;
    serde_json::from_slice(&bytes)
        .map_err(|cause| Error::Local(format!("context {name:?}: parse {}: {cause}", path.display())))
}

/// Every context that has a file, by name.
pub fn all(config: &Config) -> Vec<Meta> {
    let Ok(dirs) = config.contexts_dir().join("meta").read_dir() else { return Vec::new() };
    let read = |dir: PathBuf| {
        let bytes = std::fs::read(dir.join("meta.json")).ok()?;
        serde_json::from_slice::<Meta>(&bytes).ok()
    };
    let mut all: Vec<Meta> = dirs.flatten().filter_map(|entry| read(entry.path())).collect();
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// The directory a context's name stands for: names may hold anything, directories may not.
fn digest(name: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn meta_path(config: &Config, name: &str) -> PathBuf {
    config.contexts_dir().join("meta").join(digest(name)).join("meta.json")
}

fn tls_dir(config: &Config, name: &str) -> PathBuf {
    config.contexts_dir().join("tls").join(digest(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(hosts: &[&str], context: Option<&str>, variables: &[(&str, &str)]) -> Result<String, String> {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let (wish, config) = (Wish { hosts, context, ..Wish::default() }, Config::default());
        name(&wish, environment, &config)
            .and_then(|name| host(&name, &wish, environment, &config))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_flag_comes_before_the_environment_before_the_default() {
        let both = [("DEWAR_HOST", "unix:///dewar"), ("DOCKER_HOST", "unix:///docker")];
        assert_eq!(resolved(&["unix:///flag"], None, &both).unwrap(), "unix:///flag");
        assert_eq!(resolved(&[], None, &both).unwrap(), "unix:///dewar");
        assert_eq!(resolved(&[], None, &both[1..]).unwrap(), "unix:///docker");
        assert_eq!(resolved(&[], None, &[("DEWAR_HOST", "")]).unwrap(), DEFAULT_HOST);
        assert_eq!(resolved(&[], Some("default"), &both).unwrap(), "unix:///dewar");
        assert!(resolved(&["a", "b"], None, &[]).unwrap_err().contains("Specify only one -H"));
        assert!(resolved(&["a"], Some("b"), &[]).unwrap_err().contains("both --host and --context"));
        assert!(
            resolved(&[], Some("far"), &both)
                .unwrap_err()
                .contains("context \"far\": context not found: open")
        );
        assert!(resolved(&[], None, &[("DOCKER_CONTEXT", "far")]).unwrap_err().contains("\"far\""));
        // DOCKER_HOST decides before DOCKER_CONTEXT does.
        let mixed = [("DOCKER_HOST", "unix:///docker"), ("DOCKER_CONTEXT", "far")];
        assert_eq!(resolved(&[], None, &mixed).unwrap(), "unix:///docker");
        // TLS without a host is docker's well-known one.
        let tls = [("DOCKER_TLS_VERIFY", "1")];
        assert_eq!(resolved(&[], None, &tls).unwrap(), "tcp://localhost:2376");
        assert_eq!(resolved(&["unix:///a"], None, &tls).unwrap(), "unix:///a");
    }

    #[test]
    fn tls_is_what_flags_and_environment_say() {
        let found = |wish: &Wish<'_>, variables: &[(&str, &str)]| {
            let environment = |name: &str| {
                variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            tls(DEFAULT, wish, environment, &Config::default()).unwrap()
        };
        let certs = ("DOCKER_CERT_PATH", "/nowhere");
        assert_eq!(found(&Wish::default(), &[certs, ("DOCKER_TLS_VERIFY", "")]), None);
        let verified = found(&Wish::default(), &[certs, ("DOCKER_TLS_VERIFY", "1")]).unwrap();
        assert_eq!((verified.ca, verified.pair), (Some("/nowhere/ca.pem".into()), None));
        assert!(!verified.trusts_anyone);
        assert!(found(&Wish::default(), &[certs, ("DOCKER_TLS", "1")]).unwrap().trusts_anyone);
        let wish = Wish { verifies: Some(false), cert: Some("/c"), ..Wish::default() };
        let trusting = found(&wish, &[certs, ("DOCKER_TLS_VERIFY", "1")]).unwrap();
        assert!(trusting.trusts_anyone, "the flag comes before the variable");
        assert_eq!(trusting.pair, Some(("/c".into(), "/nowhere/key.pem".into())));
    }

    #[test]
    fn directories_are_named_as_docker_names_them() {
        assert_eq!(digest("nope"), "ca3704aa0b06f5954c79ee837faa152d84d6b2d42838f0637a15eda8337dbdce");
    }
}
