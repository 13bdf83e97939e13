//! `POST /auth`: whether a registry takes a name and a password.

use super::engine::Engine;
use super::error::{Error, Result};
use super::registry::{self, Client, DOCKER};
use crate::http::api::auth::{AuthConfig, AuthReply};
use crate::http::registry::RegistryError;

/// Asks the registry of `who`. Blocks until that has answered.
///
/// # Errors
/// In Docker's words; 401 when the registry does not take them.
pub fn login(engine: &Engine, who: AuthConfig) -> Result<AuthReply> {
    let host = host_of(&who.server_address).to_owned();
    let client = Client { credentials: who.into(), ..Client::default() };
    let registry = registry::registry(&engine.config(), &host, &client)?;
    match registry.login() {
        Ok(identity_token) => Ok(AuthReply { status: "Login Succeeded".to_owned(), identity_token }),
        Err(error) => Err(refused(&error)),
    }
}

/// The registry that an address means; Docker Hub has one of its own from long ago.
fn host_of(address: &str) -> &str {
    let rest =
        address.strip_prefix("https://").or_else(|| address.strip_prefix("http://")).unwrap_or(address);
    match rest.split('/').next().unwrap_or_default() {
        "" | "index.docker.io" => DOCKER,
        host => host,
    }
}

/// Docker's words: it shows what `/v2/` said of a password, and otherwise what kept it from being asked.
fn refused(error: &RegistryError) -> Error {
    match error {
        RegistryError::Refused { attempt, status: 401, .. } if attempt.ends_with("/v2/\"") => {
            let url = attempt.split('"').nth(1).unwrap_or_default();
            Error::unauthorized(format!("login attempt to {url} failed with status: 401 Unauthorized"))
        }
        _ if error.status() == 401 => Error::unauthorized(error.to_string()),
        _ => Error { class: crate::http::api::Class::System, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_kept() {
        for (address, host) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("", "docker.io"),
            ("docker.io", "docker.io"),
            ("localhost:5000", "localhost:5000"),
            ("http://r.example:1/v2/", "r.example:1"),
        ] {
            assert_eq!(host_of(address), host);
        }
    }

    #[test]
    fn a_refused_password_is_told_as_docker_tells_it() {
        let at = |url: &str| RegistryError::Refused {
            attempt: format!("Get {url:?}"),
            status: 401,
            errors: Vec::new(),
            body: String::new(),
        };
        let error = refused(&at("http://r:1/v2/"));
        assert_eq!(error.message, "login attempt to http://r:1/v2/ failed with status: 401 Unauthorized");
        assert_eq!(error.class, crate::http::api::Class::Unauthorized);
        assert_eq!(refused(&at("https://t/token?service=x")).class, crate::http::api::Class::Unauthorized);
    }
}
