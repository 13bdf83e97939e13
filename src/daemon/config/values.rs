//! How the values of the daemon's options are written. Errors say what was expected; whoever calls adds the key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;

use crate::http::api::container::{ULIMITS, Ulimit};

pub fn boolean(text: &str) -> Result<bool, String> {
    // Source: Go's strconv.ParseBool, which reads dockerd's flags.
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

pub fn optional(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub fn absolute(text: &str) -> Result<&str, String> {
    if text.starts_with('/') { Ok(text) } else { Err("not an absolute path".to_owned()) }
}

pub fn absolute_path(text: String) -> Result<PathBuf, String> {
    absolute(&text).map(Into::into)
}

pub fn one_of(text: &str, words: &[&str]) -> Result<String, String> {
    if words.contains(&text) { Ok(text.to_owned()) } else { Err(format!("expected {}", words.join(" or "))) }
}

pub fn at_least(least: i64, number: i64) -> Result<i64, String> {
    if number >= least { Ok(number) } else { Err(format!("expected {least} or more")) }
}

/// Compat: zero asks dockerd for its default.
pub fn positive_or(default: u32, number: i64) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(0) => Ok(default),
        Ok(number) => Ok(number),
        Err(_) => Err("expected a number that is not negative".to_owned()),
    }
}

/// `ADDRESS:PORT`. Without an address it is this machine alone, where dockerd means every network.
pub fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").or_else(|| text.strip_prefix(':'));
    let text = local.map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().map_err(|_| "expected ADDRESS:PORT".to_owned())
}

pub fn level(text: &str) -> Result<String, String> {
    match text.to_ascii_lowercase().as_str() {
        level @ ("error" | "warn" | "info" | "debug" | "trace") => Ok(level.to_owned()),
        // Compat: dockerd's other names.
        "warning" => Ok("warn".to_owned()),
        "fatal" | "panic" => Ok("error".to_owned()),
        _ => Err("expected error, warn, info, debug or trace".to_owned()),
    }
}

/// Neither empty nor with blanks or a path's slashes beyond one of a CIDR.
pub fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace) && text.matches('/').count() <= 1
}

/// Source: dockerd's ValidateMirror: http or https, no path, query, fragment or credentials.
pub fn mirror_url(text: &str) -> Result<String, String> {
    let invalid = |why: &str| format!("invalid mirror: {why}: {text:?}");
    let (scheme, rest) = text.split_once("://").ok_or_else(|| invalid("no scheme specified"))?;
    if !matches!(scheme, "http" | "https") {
        return Err(invalid("unsupported scheme, use http or https"));
    }
    let host = rest.trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '?', '#', '@']) || host.contains(char::is_whitespace) {
        return Err(invalid("path, query, or fragment at end of the URI, or user:pass"));
    }
    Ok(format!("{scheme}://{host}/"))
}

/// `key=value` each, no key with two values.
pub fn check_labels(labels: Vec<String>) -> Result<Vec<String>, String> {
    let mut seen = BTreeMap::new();
    for label in &labels {
        let (key, value) = label
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or(format!("bad attribute format: {label}"))?;
        if let Some(other) = seen.insert(key, value)
            && other != value
        {
            return Err(format!("conflict labels for {key}={value} and {key}={other}"));
        }
    }
    Ok(seen.into_iter().map(|(key, value)| format!("{key}={value}")).collect())
}

/// A path below the root of the hierarchies, without dots.
pub fn cgroup_parent(text: &str) -> Result<String, String> {
    if text.split('/').any(|part| matches!(part, "." | "..")) {
        return Err("a path without . and ..".to_owned());
    }
    if text.ends_with(".slice") {
        return Err("slices are systemd's: expected a path such as /containers".to_owned());
    }
    Ok(text.trim_matches('/').to_owned())
}

/// Bytes from `64m` or `1g`; units are powers of 1024.
pub fn bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let shift = match lower[digits..].trim_end_matches('b') {
        "" => 0,
        "k" | "ki" => 10,
        "m" | "mi" => 20,
        "g" | "gi" => 30,
        _ => return Err(invalid()),
    };
    let number: i64 = lower[..digits].parse().map_err(|_| invalid())?;
    number.checked_mul(1 << shift).filter(|size| *size > 0).ok_or_else(invalid)
}

/// `1024`, `1024:2048` as the flag has it, or the file's object.
pub fn ulimit(name: &str, value: &Value) -> Result<Ulimit, String> {
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        _ => text.parse::<i64>().map_err(|_| format!("{name}: expected SOFT[:HARD]")),
    };
    let (soft, hard) = match value {
        Value::String(text) => {
            let (soft, hard) = text.split_once(':').unwrap_or((text, text));
            (number(soft)?, number(hard)?)
        }
        Value::Object(map) => {
            let field = |key: &str| map.get(key).and_then(Value::as_i64);
            let hard = field("Hard").ok_or(format!("{name}: expected Name, Hard and Soft"))?;
            (field("Soft").unwrap_or(hard), hard)
        }
        _ => return Err(format!("{name}: expected an object with Name, Hard and Soft")),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("{name}: the soft limit is above the hard limit"));
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// The text of the profile a file has; the words for none and the built-in one as they are.
pub fn seccomp_profile(text: &str) -> Result<String, String> {
    match text {
        "" | "builtin" => Ok(String::new()),
        "unconfined" => Ok(text.to_owned()),
        path => {
            let json = std::fs::read_to_string(path).map_err(|cause| format!("read the profile: {cause}"))?;
            crate::runtime::seccomp::from_docker_profile(&json, &[])
                .map_err(|cause| format!("decoding seccomp profile failed: {cause}"))?;
            Ok(json)
        }
    }
}
