//! Flags, file and environment become one configuration.
//!
//! Precedence: flag, file, environment, default. An option given as a flag and in the file is refused, as dockerd
//! does, so that nobody wonders which counts, but for `hosts`: an init script that says `-H` and a file that has
//! `hosts` would keep the daemon from starting, so the flag counts and the start says so.
//!
//! Pure but for reading the file and what single options name.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use super::options::{self, Both, DaemonOption, OPTIONS};
use super::{Config, Values, ignored};
use crate::daemon::error::{Error, Result};

/// Where the file is looked for unless `--config-file` names one.
pub const DEFAULT_FILE: &str = "/etc/dewar/daemon.json";

/// What the command line said.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// Long names of flags with every value given, in order.
    pub flags: Vec<(&'static str, Vec<String>)>,
    /// `--config-file`; a named file must exist, the default one need not.
    pub file: Option<String>,
}

/// A configuration, and what the log should say of it.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    pub notes: Vec<String>,
}

/// Reads the file and merges. `environment` looks variables up.
///
/// # Errors
/// InvalidParameter naming the file, the keys and what is wrong with them, all unknown keys at once.
pub fn load(given: &Given, environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded> {
    let path = Path::new(given.file.as_deref().unwrap_or(DEFAULT_FILE));
    let text = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound && given.file.is_none() => Vec::new(),
        Err(cause) => return Err(during(path)(Error::invalid(cause.to_string()))),
    };
    merge(given, &text, environment).map_err(during(path))
}

fn during(path: &Path) -> impl Fn(Error) -> Error + '_ {
    move |error| match error.message.strip_prefix("flags: ") {
        Some(message) => Error { message: message.to_owned(), ..error },
        None => error.during(format!("unable to configure the daemon with file {}", path.display())),
    }
}

/// Merges flags, the file's content and the environment.
fn merge(given: &Given, file: &[u8], environment: &dyn Fn(&str) -> Option<String>) -> Result<Loaded> {
    let mut notes = Vec::new();
    let in_file = known(flatten(parse(file)?), &mut notes)?;
    let mut values = Values::new();
    let mut conflicts = Vec::new();
    let by_flag: BTreeMap<&str, &Vec<String>> =
        given.flags.iter().map(|(flag, list)| (*flag, list)).collect();
    // Each value is checked alone first, so that the message says where it was given.
    let check = |option: &DaemonOption, value: &Value| option.apply(&mut Config::default(), value);
    for option in OPTIONS {
        let flag = match by_flag.get(option.flag) {
            Some(list) => {
                let value = option.read(list).and_then(|value| check(option, &value).map(|()| value));
                Some(value.map_err(|error| error.during("flags"))?)
            }
            None => None,
        };
        let value = match (flag, in_file.get(option.key)) {
            (Some(flag), Some(file)) => match option.both {
                Both::FlagWins => {
                    notes.push(format!(
                        "{}: --{} {} counts, {} of the configuration file does not",
                        option.key,
                        option.flag,
                        as_go(&flag),
                        as_go(file)
                    ));
                    flag
                }
                Both::Joined => joined(flag, file),
                Both::Refused => {
                    let (flag, file) = (as_go(&flag), as_go(file));
                    conflicts.push(format!("{}: (from flag: {flag}, from file: {file})", option.key));
                    continue;
                }
            },
            (Some(flag), None) => flag,
            (None, Some(file)) => file.clone(),
            (None, None) => match variable(option, environment) {
                Some(text) => text.into(),
                None => continue,
            },
        };
        values.insert(option.key, value);
    }
    if !conflicts.is_empty() {
        return Err(Error::invalid(format!(
            "the following directives are specified both as a flag and in the configuration file: {}",
            conflicts.join(", ")
        )));
    }
    Ok(Loaded { config: Config::new(values)?, notes })
}

/// The entries of both; the file's where a name is in both.
fn joined(mut flag: Value, file: &Value) -> Value {
    if let (Some(into), Some(file)) = (flag.as_object_mut(), file.as_object()) {
        into.extend(file.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    flag
}

fn variable(option: &DaemonOption, environment: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if option.env.is_empty() {
        return None;
    }
    // Source: curl(1) and Go's httpproxy read the lower-case names too.
    environment(option.env)
        .or_else(|| environment(&option.env.to_ascii_lowercase()))
        .filter(|text| !text.is_empty())
}

/// The file's JSON object. An empty file has no keys; a byte order mark and UTF-16 are read as dockerd does.
fn parse(bytes: &[u8]) -> Result<Map<String, Value>> {
    let utf16 = |order: fn([u8; 2]) -> u16| {
        let units = bytes[2..].chunks_exact(2).map(|pair| order([pair[0], pair[1]]));
        char::decode_utf16(units)
            .collect::<std::result::Result<String, _>>()
            .map_err(|cause| cause.to_string())
    };
    let text = match bytes {
        [0xff, 0xfe, ..] => utf16(u16::from_le_bytes),
        [0xfe, 0xff, ..] => utf16(u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).map(str::to_owned).map_err(|cause| cause.to_string()),
    };
    let text = text.map_err(|cause| Error::invalid(format!("not UTF-8: {cause}")))?;
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return Ok(Map::new());
    }
    serde_json::from_str(text).map_err(|cause| Error::invalid(cause.to_string()))
}

/// Keys of objects that are no options themselves become `object.key`.
fn flatten(file: Map<String, Value>) -> Map<String, Value> {
    let mut flat = Map::new();
    for (key, value) in file {
        let is_group =
            OPTIONS.iter().any(|option| option.key.split_once('.').is_some_and(|(group, _)| group == key));
        match value {
            Value::Object(map) if is_group => {
                flat.extend(map.into_iter().map(|(inner, value)| (format!("{key}.{inner}"), value)));
            }
            value => {
                flat.insert(key, value);
            }
        }
    }
    flat
}

/// The options among the keys; says which are ignored, refuses what is unknown, all at once.
fn known(file: Map<String, Value>, notes: &mut Vec<String>) -> Result<Map<String, Value>> {
    let mut options = Map::new();
    let (mut unknown, mut ignored_keys) = (Vec::new(), Vec::new());
    for (key, value) in file {
        if let Some(option) = options::by_key(&key) {
            // Compat: null is as good as absent.
            if !value.is_null() {
                option.apply(&mut Config::default(), &value)?;
                options.insert(key, value);
            }
        } else if let Some(why) = ignored::reason(&key) {
            ignored_keys.push(format!("{key} ({why})"));
        } else if let Some(refusal) = ignored::refusal(&key, &value) {
            if let Some(why) = refusal {
                return Err(Error::invalid(format!(
                    "configure {key}: {value}: {why}, and will not ignore this"
                )));
            }
        } else {
            unknown.push(key);
        }
    }
    if !unknown.is_empty() {
        return Err(Error::invalid(format!(
            "the following directives don't match any configuration option: {}",
            unknown.join(", ")
        )));
    }
    if !ignored_keys.is_empty() {
        notes.push(format!("the configuration file has what is ignored: {}", ignored_keys.join(", ")));
    }
    Ok(options)
}

/// A value as Go's `%v` writes it, which is what scripts know from dockerd's messages.
pub fn as_go(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(as_go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", as_go(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(flags: &[(&'static str, &str)]) -> Given {
        let flags = flags.iter().map(|(flag, value)| (*flag, vec![(*value).to_owned()])).collect();
        Given { flags, file: None }
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_flag_is_before_the_file_the_file_before_the_environment() {
        let environment = |name: &str| (name == "HTTP_PROXY").then(|| "http://env".to_owned());
        let merged = |flags: &[(&'static str, &str)], file: &str| {
            merge(&given(flags), file.as_bytes(), &environment).unwrap().config.http_proxy
        };
        assert_eq!(merged(&[], ""), "http://env");
        assert_eq!(merged(&[], r#"{"proxies":{"http-proxy":"http://file"}}"#), "http://file");
        assert_eq!(merged(&[("http-proxy", "http://flag")], "{}"), "http://flag");
        let lower = |name: &str| (name == "no_proxy").then(|| "localhost".to_owned());
        assert_eq!(merge(&given(&[]), b"", &lower).unwrap().config.no_proxy, "localhost");
    }

    #[test]
    fn both_places_are_refused_but_for_hosts() {
        let error = merge(
            &given(&[("debug", "true"), ("label", "a=1")]),
            br#"{"debug": false, "labels": ["b=1"]}"#,
            &none,
        );
        assert_eq!(
            error.unwrap_err().message,
            "the following directives are specified both as a flag and in the configuration file: \
             debug: (from flag: true, from file: false), labels: (from flag: [a=1], from file: [b=1])"
        );
        let loaded = merge(&given(&[("host", "unix:///a")]), br#"{"hosts": ["unix:///b"]}"#, &none).unwrap();
        assert_eq!(loaded.config.hosts, ["unix:///a"]);
        assert!(
            loaded.notes[0].contains("[unix:///b] of the configuration file does not"),
            "{:?}",
            loaded.notes
        );
    }

    #[test]
    fn runtimes_of_flags_and_file_are_joined() {
        let merged =
            |flags: &[(&'static str, &str)], file: &str| merge(&given(flags), file.as_bytes(), &none);
        let file =
            r#"{"runtimes": {"crun": {"path": "/a/crun"}, "x": {"path": "/x"}}, "default-runtime": "x"}"#;
        let config = merged(&[("add-runtime", "crun=/b/crun")], file).unwrap().config;
        assert_eq!(config.runtimes.len(), 2);
        assert_eq!(config.runtimes["crun"].path.to_str(), Some("/a/crun"));
        assert_eq!(config.default_runtime, "x");
        let error = merged(&[("default-runtime", "y")], "").unwrap_err();
        assert_eq!(error.message, "specified default runtime 'y' does not exist");
    }

    #[test]
    fn every_unknown_key_is_named_at_once() {
        let error =
            merge(&given(&[]), br#"{"debgu":1,"proxies":{"x":1},"containerd":""}"#, &none).unwrap_err();
        assert_eq!(
            error.message,
            "the following directives don't match any configuration option: debgu, proxies.x"
        );
    }

    #[test]
    fn what_dockerd_knows_and_dewar_does_not_is_said() {
        let loaded =
            merge(&given(&[]), br#"{"containerd":"/c","userns-remap":"","exec-opts":["x"]}"#, &none).unwrap();
        assert_eq!(loaded.notes.len(), 1);
        assert!(loaded.notes[0].contains("containerd (") && loaded.notes[0].contains("exec-opts ("));
        assert!(merge(&given(&[]), br#"{"userns-remap":"default"}"#, &none).is_err());
    }

    #[test]
    fn files_of_every_encoding_are_read() {
        let utf16: Vec<u8> =
            [0xff, 0xfe].into_iter().chain(r#"{"debug":true}"#.bytes().flat_map(|byte| [byte, 0])).collect();
        for file in [&b"\xef\xbb\xbf{\"debug\":true}"[..], &utf16] {
            assert!(merge(&given(&[]), file, &none).unwrap().config.debug);
        }
        for file in [&b""[..], b"  \n", b"{}", br#"{"debug":null}"#] {
            assert!(!merge(&given(&[]), file, &none).unwrap().config.debug);
        }
        for file in [&b"{"[..], b"[]", b"\xff", b"{\"debug\":tru}"] {
            merge(&given(&[]), file, &none).unwrap_err();
        }
    }

    #[test]
    fn an_error_names_the_file_unless_the_flag_is_wrong() {
        let file = Given { file: Some("/nowhere/daemon.json".to_owned()), ..Given::default() };
        let message = load(&file, &none).unwrap_err().message;
        assert!(
            message.starts_with("unable to configure the daemon with file /nowhere/daemon.json: No such"),
            "{message}"
        );
        let message = load(&given(&[("log-level", "loud")]), &none).unwrap_err().message;
        assert_eq!(message, "configure log-level: \"loud\": expected error, warn, info, debug or trace");
    }
}
