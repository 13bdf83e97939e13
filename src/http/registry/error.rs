//! Why a registry did not do what it was asked, in Docker's words where people and programs know them.

use std::fmt;

use serde::Deserialize;

/// How much of an answer that is no registry's is shown.
const SHOWN_BYTES: usize = 200;

/// One entry of a registry's `errors`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ApiError {
    /// `MANIFEST_UNKNOWN`, `DENIED` and so on.
    pub code: String,
    pub message: String,
}

impl fmt::Display for ApiError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Source: distribution's errcode: the code in words, then the message.
        let words = self.code.to_ascii_lowercase().replace('_', " ");
        write!(out, "{words}: {}", if self.message.is_empty() { &words } else { &self.message })
    }
}

/// Why a request to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// No connection, or it broke before the answer.
    #[error("{attempt}: {cause}")]
    Unreachable {
        /// `Get "https://host/v2/"`
        attempt: String,
        cause: String,
        /// Another scheme or another time may do better.
        is_tls: bool,
    },
    /// The registry wants a name and a password, and there are none.
    #[error("{attempt}: no basic auth credentials")]
    NoCredentials { attempt: String },
    /// The registry refused.
    #[error("{}", refusal(.attempt, *.status, .errors, .body))]
    Refused { attempt: String, status: u16, errors: Vec<ApiError>, body: String },
    /// The answer is not one a registry gives.
    #[error("{attempt}: {message}")]
    Protocol { attempt: String, message: String },
    /// Files of this host are not usable.
    #[error("{0}")]
    Setup(String),
    /// Whoever asked has gone.
    #[error("context canceled")]
    Cancelled,
}

impl RegistryError {
    /// The first code of a refusal, for example `DENIED`; empty otherwise.
    pub fn code(&self) -> &str {
        match self {
            RegistryError::Refused { errors, .. } => errors.first().map_or("", |error| &error.code),
            _ => "",
        }
    }

    /// The status of a refusal, 0 otherwise.
    pub fn status(&self) -> u16 {
        match self {
            RegistryError::Refused { status, .. } => *status,
            RegistryError::NoCredentials { .. } => 401,
            _ => 0,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_temporary(&self) -> bool {
        match self {
            RegistryError::Unreachable { .. } | RegistryError::Protocol { .. } => true,
            RegistryError::Refused { status, .. } => *status == 429 || *status == 408 || *status >= 500,
            RegistryError::NoCredentials { .. } | RegistryError::Setup(_) | RegistryError::Cancelled => false,
        }
    }

    /// Reads a refusal's body.
    pub(super) fn refused(attempt: String, status: u16, body: &[u8]) -> RegistryError {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<ApiError>,
        }
        // Compat: token servers and proxies answer with one sentence.
        #[derive(Deserialize)]
        struct Details {
            details: Option<String>,
            message: Option<String>,
        }
        let mut errors = serde_json::from_slice::<Errors>(body).map(|body| body.errors).unwrap_or_default();
        if errors.is_empty()
            && let Ok(sentence) = serde_json::from_slice::<Details>(body)
            && let Some(message) = sentence.details.or(sentence.message)
        {
            let code = code_of(status).to_owned();
            errors.push(ApiError { code, message });
        }
        if errors.is_empty() && body.is_empty() {
            // An answer to HEAD has none.
            let code = code_of(status);
            if !code.is_empty() {
                errors.push(ApiError { code: code.to_owned(), message: message_of(code).to_owned() });
            }
        }
        for error in &mut errors {
            error.message = shown(error.message.as_bytes());
            error.code = shown(error.code.as_bytes());
        }
        RegistryError::Refused { attempt, status, errors, body: shown(body) }
    }
}

fn code_of(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        429 => "TOOMANYREQUESTS",
        _ => "",
    }
}

fn message_of(code: &str) -> &'static str {
    match code {
        "UNAUTHORIZED" => "authentication required",
        "DENIED" => "requested access to the resource is denied",
        _ => "too many requests",
    }
}

fn refusal(attempt: &str, status: u16, errors: &[ApiError], body: &str) -> String {
    match errors {
        [] if body.is_empty() || (200..400).contains(&status) => {
            format!("{attempt}: received unexpected HTTP status: {}", status_text(status))
        }
        [] => format!("{attempt}: error parsing HTTP {status} response body: {body:?}"),
        [one] => one.to_string(),
        many => {
            let lines: Vec<String> = many.iter().map(ApiError::to_string).collect();
            format!("errors:\n{}\n", lines.join("\n"))
        }
    }
}

fn status_text(status: u16) -> String {
    let reason = ureq::http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("");
    format!("{status} {reason}").trim_end().to_owned()
}

/// A stranger's words, short and without what a terminal would obey.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let text = text.trim();
    match text.char_indices().nth(SHOWN_BYTES) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(status: u16, body: &str) -> String {
        RegistryError::refused("Get \"https://r/v2/\"".into(), status, body.as_bytes()).to_string()
    }

    #[test]
    fn refusals_are_told_in_dockers_words() {
        let one =
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#;
        assert_eq!(words(404, one), "manifest unknown: manifest unknown");
        let two = r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"UNAUTHORIZED"}]}"#;
        assert_eq!(words(403, two), "errors:\ndenied: no\nunauthorized: unauthorized\n");
        assert_eq!(words(401, ""), "unauthorized: authentication required");
        assert_eq!(words(401, r#"{"details":"incorrect username"}"#), "unauthorized: incorrect username");
        assert_eq!(words(502, ""), "Get \"https://r/v2/\": received unexpected HTTP status: 502 Bad Gateway");
        assert!(words(500, "<html>\x1b[2J").contains("error parsing HTTP 500 response body: \"<html> [2J\""));
        assert!(words(500, &"x".repeat(100_000)).len() < 400);
    }

    #[test]
    fn what_may_be_tried_again_is_told_apart() {
        let refused = |status| RegistryError::refused(String::new(), status, b"");
        for (status, again) in
            [(429, true), (500, true), (503, true), (404, false), (401, false), (403, false)]
        {
            assert_eq!(refused(status).is_temporary(), again, "{status}");
        }
        assert!(!RegistryError::Cancelled.is_temporary());
    }
}
