//! Who somebody is at a registry: the body of `POST /auth` and the headers that travel with pulls, pushes and
//! builds.
//!

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use super::{Endpoint, Method, Shape};
use crate::http::registry::Credentials;

/// The header with the credentials for one registry.
pub const AUTH_HEADER: &str = "X-Registry-Auth";
/// The header with the credentials for all registries, of a build, whose images come from anywhere.
pub const CONFIG_HEADER: &str = "X-Registry-Config";

/// Credentials by the server they are for, as the user's settings name it.
pub type AuthConfigs = BTreeMap<String, AuthConfig>;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Credentials for one registry. All empty means nobody in particular.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthConfig {
    #[serde(skip_serializing_if = "is_default")]
    pub username: String,
    #[serde(skip_serializing_if = "is_default")]
    pub password: String,
    /// Compat: `user:password` in base64, as old clients kept it; see [`AuthConfig::settled`].
    #[serde(skip_serializing_if = "is_default")]
    pub auth: String,
    /// As the user wrote it: with or without a scheme.
    #[serde(skip_serializing_if = "is_default", rename = "serveraddress")]
    pub server_address: String,
    /// Exchanged for a bearer token instead of a password.
    #[serde(skip_serializing_if = "is_default", rename = "identitytoken")]
    pub identity_token: String,
    /// Sent to the registry as it is.
    #[serde(skip_serializing_if = "is_default", rename = "registrytoken")]
    pub registry_token: String,
}

impl AuthConfig {
    /// What the value of [`AUTH_HEADER`] says. Compat: what does not read says nothing, as with Docker, whose
    /// clients have sent all kinds of it; the registry then refuses who needs a name.
    pub fn from_header(value: Option<&str>) -> AuthConfig {
        value.and_then(unpack::<AuthConfig>).unwrap_or_default().settled()
    }

    /// The value of [`AUTH_HEADER`].
    pub fn to_header(&self) -> String {
        pack(self)
    }

    /// With `auth` taken apart where name and password are not given.
    pub fn settled(mut self) -> AuthConfig {
        if self.username.is_empty()
            && self.password.is_empty()
            && let Some((username, password)) = split(&self.auth)
        {
            (self.username, self.password) = (username, password);
        }
        self.auth.clear();
        self
    }
}

impl From<AuthConfig> for Credentials {
    fn from(who: AuthConfig) -> Credentials {
        let AuthConfig { username, password, identity_token, registry_token, .. } = who;
        Credentials { username, password, identity_token, registry_token }
    }
}

/// What the value of [`CONFIG_HEADER`] says; nothing where it does not read, as with [`AuthConfig::from_header`].
pub fn configs_from_header(value: Option<&str>) -> AuthConfigs {
    let found = value.and_then(unpack::<AuthConfigs>).unwrap_or_default();
    found.into_iter().map(|(server, who)| (server, who.settled())).collect()
}

/// The value of [`CONFIG_HEADER`].
pub fn configs_to_header(configs: &AuthConfigs) -> String {
    pack(configs)
}

/// Name and password of `user:password` in base64.
pub fn split(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(decode(auth)?).ok()?;
    let (username, password) = text.split_once(':')?;
    // Source: Docker's clients have written a NUL after the password.
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

/// The value of a header whose JSON is packed as base64 with the URL alphabet.
fn pack(value: &impl Serialize) -> String {
    URL_SAFE.encode(serde_json::to_vec(value).expect("texts are JSON"))
}

fn unpack<T: serde::de::DeserializeOwned>(value: &str) -> Option<T> {
    super::decode(&decode(value)?).ok()
}

/// Base64 of either alphabet, padded or not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let config = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    let text = text.trim().replace('+', "-").replace('/', "_");
    GeneralPurpose::new(&alphabet::URL_SAFE, config).decode(text).ok()
}

/// What `POST /auth` says of credentials that are good.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AuthReply {
    /// `Login Succeeded`
    pub status: String,
    /// What the registry gave to be kept in place of the password; empty if nothing.
    pub identity_token: String,
}

/// Checks credentials against their registry.
pub static SYSTEM_AUTH: Endpoint<(), AuthConfig, AuthReply> =
    Endpoint::new("SystemAuth", Method::Post, "/auth", Shape::Json, 200).slow();

/// Secrets stay out of logs and panics.
impl fmt::Debug for AuthConfig {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("AuthConfig")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn someone() -> AuthConfig {
        AuthConfig {
            username: "me".into(),
            password: "sécret>?".into(),
            server_address: "localhost:5000".into(),
            ..AuthConfig::default()
        }
    }

    #[test]
    fn a_header_reads_in_every_alphabet_and_without_padding() {
        let header = someone().to_header();
        assert_eq!(AuthConfig::from_header(Some(&header)), someone());
        for value in [header.trim_end_matches('=').to_owned(), header.replace('-', "+").replace('_', "/")] {
            assert_eq!(AuthConfig::from_header(Some(&value)), someone(), "{value}");
        }
        let json = r#"{"auth":"bWU6c2VjcmV0","email":null,"serveraddress":null}"#;
        let old = AuthConfig::from_header(Some(&URL_SAFE.encode(json)));
        assert_eq!((old.username.as_str(), old.password.as_str(), old.auth.as_str()), ("me", "secret", ""));
    }

    #[test]
    fn a_header_that_does_not_read_is_nobody() {
        for value in [None, Some(""), Some("e30="), Some("e30"), Some("bnVsbA=="), Some("***"), Some("bm8=")]
        {
            assert_eq!(AuthConfig::from_header(value), AuthConfig::default(), "{value:?}");
        }
        assert_eq!(AuthConfig::default().to_header(), "e30=");
    }

    #[test]
    fn many_registries_fit_in_a_header() {
        let configs = AuthConfigs::from([("localhost:5000".to_owned(), someone())]);
        assert_eq!(configs_from_header(Some(&configs_to_header(&configs))), configs);
        // docker-py's.
        let packed = URL_SAFE.encode(r#"{"a.example":{"username":null,"auth":"bWU6c2VjcmV0"}}"#);
        assert_eq!(configs_from_header(Some(&packed))["a.example"].username, "me");
        assert!(configs_from_header(Some("{}")).is_empty() && configs_from_header(None).is_empty());
    }

    #[test]
    fn a_password_may_have_colons_and_is_never_printed() {
        assert_eq!(split("YTpiOmM="), Some(("a".into(), "b:c".into())));
        assert_eq!(split("YQ=="), None);
        let shown = format!("{:?}", someone());
        assert!(shown.contains("me") && !shown.contains("cret"), "{shown}");
    }
}
