//! Who the user is at registries: `auths` of the settings file, or a helper program that keeps the secrets.
//!
//! | setting | what it says |
//! |---|---|
//! | `auths` | by server: `auth` (`user:password` in base64), `identitytoken`; `{}` where a helper has the secret |
//! | `credsStore` | the helper for every server: `docker-credential-NAME` |
//! | `credHelpers` | by server, the helper for that one; an empty name means the file |
//!
//! A helper is called with `get`, `store` or `erase` and talks JSON; a user named `<token>` means that the
//! secret is an identity token. Without any of the three settings the helper that is usual on Linux is taken if
//! it is there. Servers are spelt as docker spells them, so that both clients find each other's.
//!
//! Source: docker's `cli/config` and the protocol of docker-credential-helpers.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::http::api::auth::{self, AuthConfig, AuthConfigs};

use super::config::{Config, Json};
use super::error::{Error, go_cause};
use super::say;

/// The key of Docker Hub.
pub const INDEX_SERVER: &str = "https://index.docker.io/v1/";
/// The user of a helper's answer whose secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// What every helper says of a server it does not know.
const NOT_FOUND: &str = "credentials not found in native keychain";

/// What a helper keeps of one server.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Kept {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

/// The host of a server that may be written as a URL.
pub fn hostname(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or_default()
}

/// The key that the repository `name` (`docker.io/library/a`) goes by.
pub fn key_of(name: &str) -> &str {
    match name.split('/').next().unwrap_or_default() {
        "" | "docker.io" => INDEX_SERVER,
        domain => domain,
    }
}

/// The value of the header for a call about the repository `name`. A helper that fails is told about, and the
/// call goes out for nobody in particular, as with docker.
pub fn header_for(config: &Config, name: &str) -> String {
    let found = get(config, key_of(name)).unwrap_or_else(|error| {
        say(&format!("WARNING: {error}"));
        AuthConfig::default()
    });
    found.to_header()
}

/// The credentials for `server`; all empty if there are none.
pub fn get(config: &Config, server: &str) -> Result<AuthConfig, Error> {
    match helper(config, server) {
        None => Ok(in_file(config, server)),
        Some(helper) => ask(&helper, server),
    }
}

/// The credentials for every server there are any for. For builds, whose images come from anywhere.
pub fn all(config: &Config) -> Result<AuthConfigs, Error> {
    let mut found = AuthConfigs::new();
    match helper(config, "") {
        None => {
            let servers = config.value("auths").and_then(Value::as_object).into_iter().flatten();
            found.extend(servers.map(|(server, entry)| (server.clone(), read(server, entry))));
        }
        Some(helper) => {
            let text = call(&helper, "list", "").map_err(|failure| failure.while_("listing"))?;
            let servers: BTreeMap<String, Value> = serde_json::from_str(&text)
                .map_err(|cause| Error::local("error listing credentials", cause))?;
            for server in servers.into_keys() {
                found.insert(server.clone(), ask(&helper, &server)?);
            }
        }
    }
    let own = config.value("credHelpers").and_then(Value::as_object).into_iter().flatten();
    for (server, _) in own {
        match get(config, server) {
            Ok(credentials) => drop(found.insert(server.clone(), credentials)),
            // One helper that fails must not keep a build from the others' images.
            Err(error) => say(&format!("WARNING: Failed to get credentials for registry: {server}: {error}")),
        }
    }
    Ok(found)
}

/// Keeps credentials under their server's address. True if a password has come to lie unencrypted in the file.
pub fn store(config: &Config, credentials: &AuthConfig) -> Result<bool, Error> {
    let server = credentials.server_address.as_str();
    let helper = helper(config, server);
    let entry = match &helper {
        Some(helper) => {
            let (username, secret) = match credentials.identity_token.as_str() {
                "" => (credentials.username.as_str(), credentials.password.as_str()),
                token => (TOKEN_USER, token),
            };
            let kept = Kept { server_url: server.into(), username: username.into(), secret: secret.into() };
            let text = serde_json::to_string(&kept).expect("texts are JSON");
            call(helper, "store", &text).map_err(|failure| failure.while_("storing"))?;
            // Compat: docker notes that the server is known.
            Json::object()
        }
        // Compat: what is kept already is neither written nor warned of again.
        None if in_file(config, server) == *credentials => return Ok(false),
        None => entry(credentials),
    };
    config.change(|settings| {
        if let Some(place) = servers(settings).at(server) {
            *place = entry;
        }
    })?;
    Ok(helper.is_none() && !credentials.password.is_empty())
}

/// Forgets the credentials for exactly `server`.
pub fn erase(config: &Config, server: &str) -> Result<(), Error> {
    if let Some(helper) = helper(config, server) {
        call(&helper, "erase", server).map_err(|failure| failure.while_("erasing"))?;
    }
    let is_known = config.value("auths").is_some_and(|servers| servers.get(server).is_some());
    if is_known { config.change(|settings| _ = servers(settings).remove(server)) } else { Ok(()) }
}

/// The object `auths`, made if it is none.
fn servers(settings: &mut Json) -> &mut Json {
    let servers = settings.at("auths").expect("settings are an object");
    if !matches!(servers, Json::Object(_)) {
        *servers = Json::object();
    }
    servers
}

/// What the file keeps of credentials.
fn entry(credentials: &AuthConfig) -> Json {
    let mut entry = Vec::new();
    let mut keep = |name: &str, text: String| {
        if !text.is_empty() {
            entry.push((name.to_owned(), Json::Plain(text.into())));
        }
    };
    let AuthConfig { username, password, .. } = credentials;
    if !(username.is_empty() && password.is_empty()) {
        keep("auth", STANDARD.encode(format!("{username}:{password}")));
    }
    keep("identitytoken", credentials.identity_token.clone());
    keep("registrytoken", credentials.registry_token.clone());
    Json::Object(entry)
}

/// What the file says of `server`, or of a URL of it as old clients kept them.
fn in_file(config: &Config, server: &str) -> AuthConfig {
    let Some(Value::Object(servers)) = config.value("auths") else { return AuthConfig::default() };
    let legacy = || servers.iter().find(|(key, _)| hostname(key) == server);
    match servers.get_key_value(server).or_else(legacy) {
        Some((key, entry)) => read(key, entry),
        None => AuthConfig::default(),
    }
}

/// An entry of `auths`; one that does not read is nobody's.
fn read(server: &str, entry: &Value) -> AuthConfig {
    let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (username, password) =
        auth::split(&text("auth")).unwrap_or_else(|| (text("username"), text("password")));
    AuthConfig {
        username,
        password,
        auth: String::new(),
        server_address: server.to_owned(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    }
}

/// The helper for `server`, without its prefix; `None` for the file.
fn helper(config: &Config, server: &str) -> Option<String> {
    let own = config.value("credHelpers").and_then(|helpers| helpers.get(server)).and_then(Value::as_str);
    let chosen = match own.or_else(|| config.text("credsStore")) {
        Some(name) => name.to_owned(),
        None => usual(config)?,
    };
    (!chosen.is_empty()).then_some(chosen)
}

/// The helper that is taken where the settings say nothing of credentials yet.
fn usual(config: &Config) -> Option<String> {
    let says =
        |name: &str| config.value(name).and_then(Value::as_object).is_some_and(|entries| !entries.is_empty());
    if says("auths") || says("credHelpers") {
        return None;
    }
    let name = if in_path("pass") { "pass" } else { "secretservice" };
    in_path(&format!("docker-credential-{name}")).then(|| name.to_owned())
}

fn in_path(program: &str) -> bool {
    let is_program = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    std::env::var_os("PATH")
        .is_some_and(|dirs| std::env::split_paths(&dirs).any(|dir| is_program(&dir.join(program))))
}

fn ask(helper: &str, server: &str) -> Result<AuthConfig, Error> {
    let text = match call(helper, "get", server) {
        Ok(text) => text,
        Err(failure) if failure.said == NOT_FOUND => return Ok(AuthConfig::default()),
        Err(failure) => return Err(failure.while_("getting")),
    };
    let kept: Kept =
        serde_json::from_str(&text).map_err(|cause| Error::local("error getting credentials", cause))?;
    let mut credentials = AuthConfig { server_address: server.to_owned(), ..AuthConfig::default() };
    if kept.username == TOKEN_USER {
        credentials.identity_token = kept.secret;
    } else {
        (credentials.username, credentials.password) = (kept.username, kept.secret);
    }
    Ok(credentials)
}

/// A helper that failed.
struct Failure {
    cause: String,
    /// What it printed.
    said: String,
}

impl Failure {
    /// Compat: docker's words.
    fn while_(self, doing: &str) -> Error {
        Error::Local(format!("error {doing} credentials - err: {}, out: `{}`", self.cause, self.said))
    }
}

/// Runs `docker-credential-HELPER ACTION` with `input`, and gives what it prints. Its stderr is the user's.
fn call(helper: &str, action: &str, input: &str) -> Result<String, Failure> {
    let program = format!("docker-credential-{helper}");
    let failed = |cause: &io::Error| Failure {
        cause: match cause.kind() {
            io::ErrorKind::NotFound => format!("exec: {program:?}: executable file not found in $PATH"),
            _ => format!("exec: {program:?}: {}", go_cause(cause)),
        },
        said: String::new(),
    };
    let mut child = Command::new(&program)
        .arg(action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|cause| failed(&cause))?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read what it is told says by its end what it thinks of it.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(|cause| failed(&cause))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(said);
    }
    let cause = match output.status.code() {
        Some(code) => format!("exit status {code}"),
        None => output.status.to_string(),
    };
    Err(Failure { cause, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_one_spelling() {
        for (server, host) in [
            ("https://localhost:5000/v2/", "localhost:5000"),
            ("http://a.b", "a.b"),
            ("a.b:1", "a.b:1"),
            ("a.b/x", "a.b"),
        ] {
            assert_eq!(hostname(server), host);
        }
        assert_eq!(key_of("docker.io/library/busybox"), INDEX_SERVER);
        assert_eq!(key_of("localhost:5000/a/b"), "localhost:5000");
    }

    #[test]
    fn the_file_is_read_as_docker_writes_it_and_as_it_wrote_it_once() {
        let dir = std::env::temp_dir().join(format!("dewar-credentials-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let text = r#"{"auths": {"a.b:1": {"auth": "bWU6cDp3"}, "https://old.example/v1/": {"auth": "bWU6b2xk"},
            "t": {"identitytoken": "tok"}, "broken": {"auth": "%%"}, "null": null}, "credHelpers": {"a.b:1": ""}}"#;
        std::fs::write(dir.join("config.json"), text).unwrap();
        let config = Config::load(dir.clone());
        let found = get(&config, "a.b:1").unwrap();
        assert_eq!((found.username.as_str(), found.password.as_str()), ("me", "p:w"));
        assert_eq!(found.server_address, "a.b:1");
        assert_eq!(get(&config, "old.example").unwrap().password, "old");
        assert_eq!(get(&config, "t").unwrap().identity_token, "tok");
        assert_eq!(get(&config, "broken").unwrap().username, "");
        assert_eq!(get(&config, "nowhere").unwrap(), AuthConfig::default());

        let mine = AuthConfig {
            username: "u".into(),
            password: "p".into(),
            server_address: "new".into(),
            ..AuthConfig::default()
        };
        assert!(store(&config, &mine).unwrap());
        let config = Config::load(dir.clone());
        assert_eq!(get(&config, "new").unwrap(), mine);
        erase(&config, "new").unwrap();
        erase(&config, "new").unwrap();
        assert_eq!(get(&Config::load(dir.clone()), "new").unwrap(), AuthConfig::default());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
