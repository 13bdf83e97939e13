//! The last middleware: at level debug, what is asked, with secrets left out.
//!
//! It stands behind the authorization: what was denied is in the access log, and no word of its body anywhere.

use serde_json::Value;

use super::{Leave, Passing};
use crate::http::api::Failure;

/// Longer bodies are counted only. Source: dockerd's bound.
const MOST: usize = 4096;
/// As much as a handler would read; nothing is refused here that would not be there.
const ANY: usize = usize::MAX;
/// Whatever has one of these in its name is secret.
const SECRETS: [&str; 8] =
    ["password", "passwd", "secret", "token", "signingcakey", "unlockkey", "registryauth", "apikey"];

/// Logs method, path and JSON body of a request, if anybody wants to know.
pub fn enter<S>(_: &S, passing: &mut Passing<'_>) -> Result<Option<Leave>, Failure> {
    if !log::log_enabled!(log::Level::Debug) {
        return Ok(None);
    }
    let (method, path) = (passing.operation.method.name(), passing.operation.path);
    let id = passing.operation.id;
    if !passing.has_json_body {
        log::debug!("{id}: {method} {path}{}", passing.request.params);
        return Ok(None);
    }
    let text = describe(passing.request.raw.json_body(ANY)?);
    log::debug!("{id}: {method} {path}{}: {text}", passing.request.params);
    Ok(None)
}

/// A body as a log may have it.
fn describe(body: &[u8]) -> String {
    if body.len() > MOST {
        return format!("{} bytes", body.len());
    }
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            mask(&mut value);
            value.to_string()
        }
        Err(_) if body.is_empty() => "no body".to_owned(),
        // Not JSON, so nobody can tell the secrets in it.
        Err(_) => format!("{} bytes that are no JSON", body.len()),
    }
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['_', '-'], "");
    SECRETS.iter().any(|secret| name.contains(secret))
}

/// Puts stars in place of secrets, at every depth; of `NAME=value` texts, as variables are, the value.
fn mask(value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (name, value) in map {
                if is_secret(name) && !value.is_null() {
                    *value = Value::from("*****");
                } else {
                    mask(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(mask),
        Value::String(text) => {
            if let Some((name, _)) = text.split_once('=')
                && is_secret(name)
            {
                *text = format!("{name}=*****");
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_left_out_at_every_depth() {
        let body = br#"{"User":"me","Password":"x1","a":[{"JoinToken":{"k":"x2"}}],
            "Env":["DB_PASSWORD=x3","API_KEY=x4","PATH=/bin"],"Labels":{"my-secret":"x5","n":1}}"#;
        let text = describe(body);
        for secret in ["x1", "x2", "x3", "x4", "x5"] {
            assert!(!text.contains(secret), "{text}");
        }
        for shown in ["\"User\":\"me\"", "PATH=/bin", "DB_PASSWORD=*****", "\"n\":1"] {
            assert!(text.contains(shown), "{shown} in {text}");
        }
    }

    #[test]
    fn what_cannot_be_masked_is_not_shown() {
        assert_eq!(describe(b"password=x"), "10 bytes that are no JSON");
        assert_eq!(describe(&[b' '; MOST + 1]), "4097 bytes");
        assert_eq!(describe(b""), "no body");
    }
}
