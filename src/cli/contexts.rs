//! Contexts: named places daemons are found at, in the files the docker client keeps.
//!
//! ```text
//! $DOCKER_CONFIG/contexts/meta/<sha256 of the name>/meta.json     name, description, address
//! $DOCKER_CONFIG/contexts/tls/<the same>/docker/…                  keys: not supported, and said so
//! ```
//!
//! Which one is meant, first to last: `--context`, `--host`, `DEWAR_HOST`, `DOCKER_HOST`, `DOCKER_CONTEXT`,
//! the chosen one (`context use`), the default.

pub mod commands;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::error::{Error, go_cause};

/// The address when nobody names one.
pub const DEFAULT_HOST: &str = "unix:///run/dewar.sock";
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
        if tls_dir(config, name).read_dir().is_ok_and(|mut files| files.next().is_some()) {
            return Err(unresolved(&format!("context {name:?} uses TLS, which this version does not speak")));
        }
        return match meta.endpoints.docker.host {
            host if host.is_empty() => Ok(DEFAULT_HOST.to_owned()),
            host => Ok(host),
        };
    }
    let host = match wish.hosts {
        [] => given("DEWAR_HOST").or_else(|| given("DOCKER_HOST")).unwrap_or_else(|| DEFAULT_HOST.to_owned()),
        [host] => (*host).to_owned(),
        _ => return Err(unresolved("Specify only one -H")),
    };
    if given("DOCKER_TLS_VERIFY").is_some() && !host.starts_with("unix://") {
        return Err(unresolved("DOCKER_TLS_VERIFY asks for TLS, which this version does not speak"));
    }
    Ok(host)
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
        let (wish, config) = (Wish { hosts, context }, Config::default());
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
        let tls = [("DOCKER_HOST", "tcp://127.0.0.1:2376"), ("DOCKER_TLS_VERIFY", "1")];
        assert!(resolved(&[], None, &tls).unwrap_err().contains("TLS"));
    }

    #[test]
    fn directories_are_named_as_docker_names_them() {
        assert_eq!(digest("nope"), "ca3704aa0b06f5954c79ee837faa152d84d6b2d42838f0637a15eda8337dbdce");
    }
}
