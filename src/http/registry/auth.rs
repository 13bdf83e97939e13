//! What a registry asks of its clients (`WWW-Authenticate`), and what it is shown: a name and password, or a token.
//!
//! ```text
//! Basic realm="x"                          name and password with every request
//! Bearer realm="URL",service="s"           a token of URL for the scope of the request, kept until it runs out
//!         identity token there             POST URL grant_type=refresh_token
//!         else                             GET URL?service=s&scope=…, with name and password if there are any
//! ```
//!
//! Source: distribution's token specifications (`auth/token`, `auth/oauth`).

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Whom a token server is told it serves.
pub(super) const CLIENT_ID: &str = "docker";
/// Source: the specification's least life of a token.
const LEAST_LIFE: Duration = Duration::from_secs(60);
/// How long before its end a token is not used any more.
const MARGIN: Duration = Duration::from_secs(5);

/// What a user shows a registry. Empty strings are absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    /// Given by an earlier login instead of a password: asks a token server for tokens.
    pub identity_token: String,
    /// A bearer token to send as it is.
    pub registry_token: String,
}

/// Without the secrets.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credentials {
    /// The value of `Authorization` for a name and a password, if there are any.
    pub(super) fn basic(&self) -> Option<String> {
        (!self.username.is_empty() && !self.password.is_empty())
            .then(|| format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password))))
    }
}

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: String, scope: String },
}

impl Challenge {
    /// The first challenge in a header's value that is understood; Bearer is preferred.
    pub(super) fn parse(values: &[String]) -> Option<Challenge> {
        let found: Vec<Challenge> = values.iter().flat_map(|value| challenges(value)).collect();
        let bearer = found.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        bearer.or(found.first()).cloned()
    }
}

fn challenges(value: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut rest = value.trim_start();
    while let Some((scheme, after)) = token(rest) {
        let (parameters, after) = parameters(after);
        rest = after;
        let get = |name: &str| {
            let hit = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            hit.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        match scheme.to_ascii_lowercase().as_str() {
            "basic" => found.push(Challenge::Basic),
            "bearer" => {
                let (realm, service, scope) = (get("realm"), get("service"), get("scope"));
                found.push(Challenge::Bearer { realm, service, scope });
            }
            _ => {}
        }
    }
    found
}

/// A word at the start, and what follows it and white space.
fn token(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text.find([' ', '\t', ',', '=']).unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start_matches([' ', '\t'])))
}

/// `name=value` pairs with commas between, until something else comes.
fn parameters(mut text: &str) -> (Vec<(String, String)>, &str) {
    let mut pairs = Vec::new();
    while let Some((name, after)) = token(text) {
        let Some(after) = after.strip_prefix('=') else { return (pairs, text) };
        let after = after.trim_start_matches([' ', '\t']);
        let mut value = String::new();
        if let Some(quoted) = after.strip_prefix('"') {
            let mut end = quoted.len();
            let mut characters = quoted.char_indices();
            while let Some((at, character)) = characters.next() {
                match character {
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    '\\' => value.extend(characters.next().map(|(_, character)| character)),
                    character => value.push(character),
                }
            }
            text = &quoted[end..];
        } else {
            let end = after.find([' ', '\t', ',']).unwrap_or(after.len());
            value.push_str(&after[..end]);
            text = &after[end..];
        }
        pairs.push((name.to_owned(), value));
    }
    (pairs, "")
}

/// What a token server answers; one of the two is the token.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct TokenAnswer {
    token: String,
    access_token: String,
    /// Seconds.
    expires_in: u64,
    pub(super) refresh_token: String,
}

impl TokenAnswer {
    pub(super) fn token(&self) -> Option<&str> {
        // It goes into a header as it is.
        let token = if self.token.is_empty() { &self.access_token } else { &self.token };
        (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then_some(token.as_str())
    }

    fn life(&self) -> Duration {
        Duration::from_secs(self.expires_in.min(24 * 3600)).max(LEAST_LIFE)
    }
}

/// Tokens by scope, until they run out.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<HashMap<String, (String, Instant)>>);

impl Tokens {
    pub(super) fn get(&self, scope: &str) -> Option<String> {
        let tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, end) = tokens.get(scope)?;
        (Instant::now() + MARGIN < *end).then(|| token.clone())
    }

    pub(super) fn keep(&self, scope: &str, answer: &TokenAnswer) {
        if let Some(token) = answer.token() {
            let end = Instant::now() + answer.life();
            let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.insert(scope.to_owned(), (token.to_owned(), end));
        }
    }

    pub(super) fn forget(&self, scope: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(scope);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(values: &[&str]) -> Option<Challenge> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        Challenge::parse(&values)
    }

    fn bearer(realm: &str, service: &str, scope: &str) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() })
    }

    #[test]
    fn challenges_are_read() {
        assert_eq!(parse(&["Basic realm=\"Registry Realm\""]), Some(Challenge::Basic));
        assert_eq!(
            parse(&["Bearer realm=\"https://a/t\",service=\"r\",scope=\"repository:a/b:pull,push\""]),
            bearer("https://a/t", "r", "repository:a/b:pull,push")
        );
        assert_eq!(parse(&["basic realm=x, bearer realm=y , service = \"a\\\"b\""]), bearer("y", "a\"b", ""));
        assert_eq!(parse(&["Negotiate", "Basic"]), Some(Challenge::Basic));
        assert_eq!(parse(&["Digest realm=\"a, Basic b\", nonce=\"c\""]), None);
        for broken in ["", ",,,", "=", "Bearer realm=\"", "\"", "Bearer =x", "é=\"é"] {
            let _ = parse(&[broken]);
        }
    }

    #[test]
    fn tokens_are_kept_by_scope_until_they_run_out() {
        let tokens = Tokens::default();
        let answer: TokenAnswer = serde_json::from_str(r#"{"access_token":"t","expires_in":1}"#).unwrap();
        tokens.keep("a", &answer);
        assert_eq!(tokens.get("a").as_deref(), Some("t"));
        assert_eq!(tokens.get("b"), None);
        tokens.forget("a");
        assert_eq!(tokens.get("a"), None);
        let bad: TokenAnswer = serde_json::from_str(r#"{"token":"a\r\nb"}"#).unwrap();
        assert_eq!(bad.token(), None);
    }
}
