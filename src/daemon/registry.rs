//! Which registries are asked for a name, how, and with whose credentials; and their refusals in the engine's words.
//!
//! | name | asked, in this order |
//! |---|---|
//! | of Docker's registry | the mirrors of the configuration, `registry-1.docker.io` |
//! | of another | that host |
//!
//! A host is insecure (any certificate, http when https is not spoken) when it is in `insecure-registries`, by its
//! name or by a network its address is in, and when its address is loopback.
//!
//! Not here: the protocol (`http::registry`), what comes of a pull (`images::pull`).
//!
//! Source: Docker's registry service (`registry/service_v2.go`, `registry/config.go`).

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;

use super::config::Config;
use super::error::{Error, Result};
use super::images::Reference;
use crate::http::api::image::SearchResult;
use crate::http::api::{Class, Filters};
use crate::http::registry::{
    CERTS_DIRS, Cancel, Credentials, Options, Proxies, Registry, RegistryError, SearchHit, in_network,
    is_loopback,
};

/// Docker's registry, in names.
pub const DOCKER: &str = "docker.io";
/// Where Docker's registry is searched.
const DOCKER_INDEX: &str = "https://index.docker.io/";
/// Instead of the usual directories of certs.d, parted by colons.
const CERTS_VARIABLE: &str = "DEWAR_CERTS_DIR";

/// On whose behalf registries are asked.
#[derive(Clone, Debug, Default)]
pub struct Client {
    pub credentials: Credentials,
    /// `X-Meta-*` headers of the request, passed on.
    pub headers: Vec<(String, String)>,
    pub cancel: Cancel,
}

/// The key of Docker's registry among the credentials of a build.
const DOCKER_KEY: &str = "https://index.docker.io/v1/";

/// Whose name is used at the registry on `host`, of credentials by server. Servers may be written as URLs.
pub fn credentials_for(host: &str, by_server: &BTreeMap<String, Credentials>) -> Credentials {
    let key = if host == DOCKER { DOCKER_KEY } else { host };
    let place = |server: &str| {
        let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default().to_owned()
    };
    let found = by_server.get(key).or_else(|| {
        let mut all = by_server.iter();
        all.find(|(server, _)| place(server) == place(key)).map(|(_, credentials)| credentials)
    });
    found.cloned().unwrap_or_default()
}

/// Whether the registry on `host` (with its port) may be spoken to without proof of who it is.
///
/// Looks up the host's address if a network is configured.
pub fn is_insecure(config: &Config, host: &str) -> bool {
    if host == DOCKER {
        return false;
    }
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.split(':').next().unwrap_or(""),
    };
    let (networks, hosts): (Vec<&String>, Vec<&String>) =
        config.insecure_registries.iter().partition(|entry| entry.contains('/'));
    // Compat: an entry with a port means that port, one without means none.
    if is_loopback(name) || hosts.iter().any(|entry| entry.eq_ignore_ascii_case(host)) {
        return true;
    }
    if networks.is_empty() {
        return false;
    }
    let addresses: Vec<IpAddr> = match name.parse() {
        Ok(address) => vec![address],
        Err(_) => match (name, 0).to_socket_addrs() {
            Ok(addresses) => addresses.map(|address| address.ip()).collect(),
            Err(_) => return false,
        },
    };
    addresses.iter().any(|address| networks.iter().any(|network| in_network(network, *address)))
}

fn options(config: &Config, is_insecure: bool, client: &Client) -> Options {
    let certs_dirs: Vec<PathBuf> = match std::env::var_os(CERTS_VARIABLE).filter(|value| !value.is_empty()) {
        Some(directories) => std::env::split_paths(&directories).collect(),
        None => CERTS_DIRS.iter().map(PathBuf::from).collect(),
    };
    Options {
        is_insecure,
        credentials: client.credentials.clone(),
        certs_dirs,
        proxies: Proxies {
            http: config.http_proxy.clone(),
            https: config.https_proxy.clone(),
            none: config.no_proxy.clone(),
        },
        headers: client.headers.clone(),
        cancel: client.cancel.clone(),
    }
}

/// The registry on `host`, without mirrors: what is pushed and logged in to.
///
/// # Errors
/// Unusable files in certs.d.
pub fn registry(config: &Config, host: &str, client: &Client) -> Result<Registry> {
    let options = options(config, is_insecure(config, host), client);
    Registry::new(host, options).map_err(|cause| Error::system(format!("speak to registry {host}"), cause))
}

/// The registries to ask for what has a name on `host`, in order.
///
/// Mirrors are not shown the user's credentials.
pub fn registries(config: &Config, host: &str, client: &Client) -> Result<Vec<Registry>> {
    let mut found = Vec::new();
    if host == DOCKER {
        for mirror in &config.registry_mirrors {
            let place = mirror.split_once("://").map_or("", |(_, place)| place).trim_end_matches('/');
            let anonymous = Client { credentials: Credentials::default(), ..client.clone() };
            let options = options(config, is_insecure(config, place), &anonymous);
            let registry = Registry::new(mirror, options);
            found.push(registry.map_err(|cause| Error::system(format!("use mirror {mirror}"), cause))?);
        }
    }
    found.push(registry(config, host, client)?);
    Ok(found)
}

/// The index to search on `host`.
pub fn index(config: &Config, host: &str, client: &Client) -> Result<Registry> {
    let place = if host == DOCKER { DOCKER_INDEX } else { host };
    let options = options(config, is_insecure(config, host), client);
    Registry::new(place, options).map_err(|cause| Error::system(format!("search {host}"), cause))
}

/// `docker search`: the index of the host in `term`, or Docker's.
///
/// Results are filtered as Docker does: `is-official`, `is-automated`, `stars` (at least).
pub fn search(
    config: &Config,
    term: &str,
    limit: Option<i64>,
    filters: &Filters,
    client: &Client,
) -> Result<Vec<SearchResult>> {
    let limit = match limit.unwrap_or(0) {
        0 => 25,
        limit @ 1..=100 => limit,
        limit => {
            return Err(Error::invalid(format!("limit {limit} is outside the range of [1, 100]")));
        }
    };
    if term.is_empty() {
        return Err(Error::invalid("search: no term"));
    }
    let wanted = SearchFilters::new(filters)?;
    // A host in front of the term is the index to ask.
    let (host, words) = match term.split_once('/') {
        Some((host, words)) if host.contains(['.', ':']) || host == "localhost" => (host, words),
        _ => (DOCKER, term),
    };
    let host = if host == "index.docker.io" { DOCKER } else { host };
    // Compat: official images have no "library/" in the index.
    let words = if host == DOCKER { words.strip_prefix("library/").unwrap_or(words) } else { words };
    let found = index(config, host, client)?
        .search(words, limit)
        .map_err(|error| Error { class: Class::System, message: error.to_string() })?;
    let results = found.into_iter().filter(|hit| wanted.has(hit)).map(|hit| SearchResult {
        name: hit.name,
        description: hit.description.unwrap_or_default(),
        star_count: hit.star_count,
        is_official: hit.is_official,
        is_automated: hit.is_automated,
    });
    Ok(results.collect())
}

/// What a search is narrowed to.
struct SearchFilters {
    official: Option<bool>,
    automated: Option<bool>,
    stars: i64,
}

impl SearchFilters {
    fn new(filters: &Filters) -> Result<SearchFilters> {
        if let Some(unknown) = filters.unknown(&["is-official", "is-automated", "stars"]) {
            return Err(Error::invalid(format!("invalid filter '{unknown}'")));
        }
        let mut wanted = SearchFilters {
            official: filters.boolean("is-official").map_err(Error::invalid)?,
            automated: filters.boolean("is-automated").map_err(Error::invalid)?,
            stars: 0,
        };
        for value in filters.get("stars") {
            let stars =
                value.parse().map_err(|_| Error::invalid(format!("invalid filter 'stars=[{value}]'")))?;
            wanted.stars = wanted.stars.max(stars);
        }
        Ok(wanted)
    }

    fn has(&self, hit: &SearchHit) -> bool {
        self.official.is_none_or(|wanted| wanted == hit.is_official)
            && self.automated.is_none_or(|wanted| wanted == hit.is_automated)
            && hit.star_count >= self.stars
    }
}

/// A registry's refusal of `reference`, in Docker's words and classes.
pub fn refusal(error: &RegistryError, reference: &Reference) -> Error {
    let name = reference.familiar_name();
    let not_found = |words: String| Error::not_found(format!("{words}: {error}"));
    match (error.code(), error.status()) {
        // Source: translatePullError in moby's daemon/internal/distribution.
        ("DENIED", _) => not_found(format!(
            "pull access denied for {name}, repository does not exist or may require 'docker login'"
        )),
        ("MANIFEST_UNKNOWN", _) => not_found(format!("manifest for {} not found", reference.familiar())),
        ("NAME_UNKNOWN", _) => not_found(format!("repository {name} not found")),
        (_, 404) => Error::not_found(error.to_string()),
        _ => Error { class: Class::System, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_however_the_server_is_written() {
        let named = |username: &str| Credentials { username: username.to_owned(), ..Credentials::default() };
        let known = BTreeMap::from([
            (DOCKER_KEY.to_owned(), named("hub")),
            ("https://reg.example:5000/v2/".to_owned(), named("url")),
            ("other.example".to_owned(), named("host")),
        ]);
        for (host, user) in [
            ("docker.io", "hub"),
            ("reg.example:5000", "url"),
            ("reg.example", ""),
            ("other.example", "host"),
        ] {
            assert_eq!(credentials_for(host, &known).username, user, "{host}");
        }
    }

    #[test]
    fn insecure_are_loopback_and_what_is_configured() {
        let mut config = Config::default();
        for (host, wanted) in [
            ("localhost:5000", true),
            ("127.9.9.9", true),
            ("[::1]:5000", true),
            ("docker.io", false),
            ("10.1.2.3:5000", false),
            ("reg.example:5000", false),
        ] {
            assert_eq!(is_insecure(&config, host), wanted, "{host}");
        }
        config.insecure_registries = vec!["10.0.0.0/8".into(), "Reg.example:5000".into()];
        for (host, wanted) in [
            ("10.1.2.3:5000", true),
            ("11.1.2.3:5000", false),
            ("reg.example:5000", true),
            ("reg.example:5001", false),
        ] {
            assert_eq!(is_insecure(&config, host), wanted, "{host}");
        }
    }

    #[test]
    fn mirrors_come_first_and_only_for_dockers_names() {
        let config = Config { registry_mirrors: vec!["http://127.0.0.1:1/".into()], ..Config::default() };
        let credentials =
            Credentials { username: "me".into(), password: "pw".into(), ..Credentials::default() };
        let client = Client { credentials, ..Client::default() };
        let hosts = |host| -> Vec<String> {
            let found = registries(&config, host, &client);
            // Without a system's list of CAs there is no https.
            found.map(|all| all.iter().map(|one| one.host().to_owned()).collect()).unwrap_or_default()
        };
        let docker = hosts("docker.io");
        assert!(docker.is_empty() || docker == ["127.0.0.1:1", "registry-1.docker.io"], "{docker:?}");
        assert_eq!(hosts("localhost:2"), ["localhost:2"]);
    }
}
