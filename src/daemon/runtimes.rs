//! Which OCI runtimes there are: our own, and those the configuration registers.
//!
//! Our own is called `dewar`. Docker's names for its stock runtime, which Compose files and clients write down,
//! mean a runtime registered as `runc`, and our own where there is none: whoever asks for the stock runtime gets the
//! one this engine has. Any other name must be registered; whether its program is there is seen when it is called.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::Config;
use super::error::{Error, Result};
use crate::runtime::oci::OciRuntime;

/// Our own.
pub const BUILT_IN: &str = "dewar";
/// Docker's stock runtime, by its short name and by that of containerd's shim for it.
const STOCK: [&str; 2] = ["runc", "io.containerd.runc.v2"];

/// What is registered, by name.
pub type Runtimes = BTreeMap<String, OciRuntime>;

/// Reads `runtimes` of the configuration file, or flags `NAME=PATH`.
///
/// # Errors
/// What is wrong, naming the runtime.
pub fn parse(given: &Map<String, Value>) -> Result<Runtimes, String> {
    given.iter().map(|(name, value)| Ok((name.clone(), one(name, value)?))).collect()
}

fn one(name: &str, value: &Value) -> Result<OciRuntime, String> {
    if name == BUILT_IN {
        return Err(format!("runtime name '{name}' is reserved"));
    }
    if name.is_empty() || name.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
        return Err(format!("{name:?} is no name for a runtime"));
    }
    let empty = Map::new();
    let (path, rest) = match value {
        Value::String(path) => (Some(path.as_str()), &empty),
        Value::Object(entry) => (entry.get("path").and_then(Value::as_str), entry),
        _ => return Err(format!("{name}: expected an object with a path")),
    };
    let mut args = Vec::new();
    for (key, value) in rest {
        let is_empty =
            value.is_null() || value.as_str() == Some("") || value.as_object().is_some_and(Map::is_empty);
        match key.as_str() {
            "path" => {}
            "runtimeArgs" => {
                let words =
                    value.as_array().into_iter().flatten().map(|word| word.as_str().map(str::to_owned));
                args = words
                    .collect::<Option<_>>()
                    .filter(|_| value.is_array() || value.is_null())
                    .ok_or(format!("{name}: runtimeArgs: expected a list of strings"))?;
            }
            "runtimeType" | "options" if is_empty => {}
            "runtimeType" | "options" => {
                return Err(format!(
                    "{name}: {key} is for containerd's shims, which dewar does not have: give a path"
                ));
            }
            _ => return Err(format!("{name}: unknown key {key:?}")),
        }
    }
    let path = path.filter(|path| !path.is_empty()).ok_or(format!("{name}: a path is required"))?;
    // A name is found in PATH; anything else must not depend on where the daemon was started.
    if path.contains('/') && !path.starts_with('/') {
        return Err(format!("{name}: {path:?} is not an absolute path"));
    }
    Ok(OciRuntime { name: name.to_owned(), path: path.into(), args })
}

/// The runtime a container asks for by name; `None` is our own.
///
/// # Errors
/// InvalidParameter in Docker's words for a name that is not registered.
pub fn find(config: &Config, name: &str) -> Result<Option<OciRuntime>> {
    let registered = config.runtimes.get(name);
    match name {
        BUILT_IN => Ok(None),
        _ if registered.is_some() => Ok(registered.cloned()),
        _ if STOCK.contains(&name) => Ok(config.runtimes.get(STOCK[0]).cloned()),
        _ => Err(Error::invalid(format!("unknown or invalid runtime name: {name}"))),
    }
}

/// Checks that the default is there.
///
/// # Errors
/// InvalidParameter in Docker's words.
pub fn check_default(config: &Config) -> Result<()> {
    let name = &config.default_runtime;
    find(config, name)
        .map(drop)
        .map_err(|_| Error::invalid(format!("specified default runtime '{name}' does not exist")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(json: &str) -> Result<Runtimes, String> {
        parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn files_and_flags_register_runtimes() {
        let runtimes = parsed(
            r#"{"crun": "/usr/bin/crun",
                "kata": {"path": "kata-runtime", "runtimeArgs": ["--x", "y"], "runtimeType": ""}}"#,
        )
        .unwrap();
        assert_eq!(runtimes["crun"].path.to_str(), Some("/usr/bin/crun"));
        assert_eq!(runtimes["kata"].args, ["--x", "y"]);
    }

    #[test]
    fn what_cannot_be_a_runtime_is_refused() {
        for (json, why) in [
            (r#"{"dewar": "/usr/bin/runc"}"#, "reserved"),
            (r#"{"": "/usr/bin/runc"}"#, "no name"),
            (r#"{"x": "./runc"}"#, "absolute"),
            (r#"{"x": {}}"#, "path is required"),
            (r#"{"x": 1}"#, "expected an object"),
            (r#"{"x": {"path": "/r", "runtimeArgs": "y"}}"#, "list of strings"),
            (r#"{"x": {"runtimeType": "io.containerd.runsc.v1"}}"#, "containerd"),
            (r#"{"x": {"path": "/r", "pahts": 1}}"#, "unknown key"),
        ] {
            let error = parsed(json).unwrap_err();
            assert!(error.contains(why), "{json}: {error}");
        }
    }

    #[test]
    fn the_stock_names_mean_what_is_there() {
        let mut config = Config::default();
        assert_eq!(find(&config, "runc").unwrap(), None);
        assert_eq!(find(&config, "io.containerd.runc.v2").unwrap(), None);
        assert!(find(&config, "crun").unwrap_err().message.contains("unknown or invalid runtime name: crun"));
        config.runtimes = parsed(r#"{"runc": "runc"}"#).unwrap();
        for name in STOCK {
            assert_eq!(find(&config, name).unwrap().unwrap().name, "runc");
        }
        config.default_runtime = "crun".to_owned();
        assert!(check_default(&config).unwrap_err().message.contains("'crun' does not exist"));
    }
}
