//! The docker client's settings, `~/.docker/config.json`, as far as they mean something here.
//!
//! | key | what it does |
//! |---|---|
//! | `currentContext` | the context used when none is named |
//! | `detachKeys` | the keys that detach, where `--detach-keys` is not given |
//! | `psFormat`, `imagesFormat`, `statsFormat`, … | `--format` of that command, where it is not given |
//! | `HttpHeaders` | sent with every request |
//! | `proxies` | proxy variables for new containers |
//!
//! | `auths`, `credsStore`, `credHelpers` | who the user is at registries: see `credentials.rs` |
//!
//! Other keys are left as they are, and in their order, also when the file is written. A file that does not read
//! is told about and taken as empty, as docker does; it is not written then, where docker would lose what it says.

mod ordered;

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use serde_json::{Map, Value};

pub use ordered::Json;

use super::error::{Error, go_cause};

/// The settings and where they are kept.
#[derive(Clone, Debug, Default)]
pub struct Config {
    dir: PathBuf,
    fields: Map<String, Value>,
}

/// `proxies` keys and the variables they become, each also in small letters.
const PROXIES: &[(&str, &str)] = &[
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

impl Config {
    /// Reads the settings below `dir`; what is wrong with them goes to stderr.
    pub fn load(dir: PathBuf) -> Config {
        let path = dir.join("config.json");
        let warn = |cause: &str| {
            super::say(&format!("WARNING: Error loading config file: {}: {cause}", path.display()));
        };
        let fields = match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(Value::Object(fields)) => fields,
                Ok(_) => {
                    warn("it is not an object");
                    Map::new()
                }
                Err(cause) => {
                    warn(&cause.to_string());
                    Map::new()
                }
            },
            Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Map::new()
            }
            Err(cause) => {
                warn(&go_cause(&cause));
                Map::new()
            }
        };
        Config { dir, fields }
    }

    /// The directory of `--config`, `DOCKER_CONFIG`, or the one in the home directory.
    pub fn dir(flag: Option<&str>, environment: impl Fn(&str) -> Option<String>) -> PathBuf {
        let named = flag.map(str::to_owned).or_else(|| environment("DOCKER_CONFIG"));
        match named.filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => Path::new(&environment("HOME").unwrap_or_else(|| "/".to_owned())).join(".docker"),
        }
    }

    /// Where the settings are kept, and certificates unless another place is named.
    pub fn dir_path(&self) -> &Path {
        &self.dir
    }

    /// Where contexts are kept.
    pub fn contexts_dir(&self) -> PathBuf {
        self.dir.join("contexts")
    }

    /// A setting that is a text and not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// The headers to send. One that could not stand in a request is left out.
    pub fn headers(&self) -> Vec<(String, String)> {
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let Some(Value::Object(headers)) = self.fields.get("HttpHeaders") else { return Vec::new() };
        headers
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .filter(|(name, value)| is_name(name) && !value.chars().any(char::is_control))
            .collect()
    }

    /// Proxy variables for a container on the daemon at `host`, as `NAME=value`.
    pub fn proxies(&self, host: &str) -> Vec<String> {
        let Some(Value::Object(proxies)) = self.fields.get("proxies") else { return Vec::new() };
        let chosen = proxies.get(host).or_else(|| proxies.get("default"));
        let mut variables = Vec::new();
        for (key, name) in PROXIES {
            let value = chosen.and_then(|chosen| chosen.get(key)).and_then(Value::as_str).unwrap_or_default();
            if !value.is_empty() {
                variables.push(format!("{name}={value}"));
                variables.push(format!("{}={value}", name.to_ascii_lowercase()));
            }
        }
        variables
    }

    /// A setting of whatever kind.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)
    }

    /// The file itself.
    pub fn path(&self) -> PathBuf {
        self.dir.join("config.json")
    }

    /// Makes `name` the context used from now on; `default` is written as none.
    pub fn set_context(&self, name: &str) -> Result<(), Error> {
        self.change(|settings| match name {
            "default" => drop(settings.remove("currentContext")),
            name => {
                if let Some(context) = settings.at("currentContext") {
                    *context = Json::Plain(name.into());
                }
            }
        })
    }

    /// Changes the file as it is by now, which may not be as it was read; `self` stays as it is.
    ///
    /// Whoever reads meanwhile sees the old file or the new one. A new file is the user's alone, an existing one
    /// keeps its mode and owner; where the file is a link, what it leads to is written.
    pub fn change(&self, edit: impl FnOnce(&mut Json)) -> Result<(), Error> {
        let path = self.path();
        let failed = |cause: String| Error::local(format!("write {}", path.display()), cause);
        let mut settings = match fs::read(&path) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(settings @ Json::Object(_)) => settings,
                Ok(_) => return Err(failed("it is not an object".to_owned())),
                Err(cause) => return Err(failed(format!("it does not read: {cause}"))),
            },
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Json::object(),
            Err(cause) => return Err(failed(go_cause(&cause))),
        };
        edit(&mut settings);
        let mut text = Vec::new();
        // Compat: docker indents with tabs.
        settings
            .serialize(&mut Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t")))
            .expect("JSON is JSON");
        let mut dirs = fs::DirBuilder::new();
        dirs.recursive(true).mode(0o700).create(&self.dir).map_err(|cause| failed(go_cause(&cause)))?;
        write_private(&path, &text).map_err(|cause| failed(go_cause(&cause)))
    }
}

/// Replaces `path`, or what it leads to, by a file that only its owner reads, unless it was readable before.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link to what is not there yet is followed as well.
    let path = match fs::read_link(path) {
        Ok(target) => path.parent().unwrap_or(Path::new("/")).join(target),
        Err(_) => path.to_owned(),
    };
    let partial = partial(&path);
    let write = || {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
        if let Ok(before) = fs::metadata(&path) {
            file.set_permissions(Permissions::from_mode(before.mode() & 0o777))?;
            // Of somebody else's file who may write it says nothing; it then becomes ours, as with docker.
            let _ = std::os::unix::fs::fchown(&file, Some(before.uid()), Some(before.gid()));
        }
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, &path)
    };
    write().inspect_err(|_| {
        // The reason is known; a leftover that will not go adds nothing.
        let _ = fs::remove_file(&partial);
    })
}

fn partial(path: &Path) -> PathBuf {
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    PathBuf::from(partial)
}

/// Writes beside `path`, then renames: whoever reads meanwhile sees the old file or the new one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = partial(path);
    fs::write(&partial, bytes).and_then(|()| fs::rename(&partial, path)).inspect_err(|_| {
        // The reason is known; a leftover that will not go adds nothing.
        let _ = fs::remove_file(&partial);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> Config {
        let Ok(Value::Object(fields)) = serde_json::from_str(json) else { panic!("{json}") };
        Config { dir: PathBuf::new(), fields }
    }

    #[test]
    fn settings_are_read_and_the_unusable_left_out() {
        let config = config(
            r#"{"psFormat": "{{.ID}}", "detachKeys": "", "HttpHeaders": {"X-A": "b", "bad name": "x", "Y": "a\nb"},
                "proxies": {"default": {"httpProxy": "http://p:1"}, "unix:///x": {"noProxy": "a,b"}}}"#,
        );
        assert_eq!(config.text("psFormat"), Some("{{.ID}}"));
        assert_eq!(config.text("detachKeys"), None);
        assert_eq!(config.headers(), [("X-A".to_owned(), "b".to_owned())]);
        assert_eq!(config.proxies("tcp://y"), ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"]);
        assert_eq!(config.proxies("unix:///x"), ["NO_PROXY=a,b", "no_proxy=a,b"]);
    }

    #[test]
    fn the_directory_is_the_flags_before_the_environments_before_home() {
        let environment = |name: &str| Some(format!("/{name}"));
        assert_eq!(Config::dir(Some("/flag"), environment), Path::new("/flag"));
        assert_eq!(Config::dir(None, environment), Path::new("/DOCKER_CONFIG"));
        let home = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        assert_eq!(Config::dir(None, home), Path::new("/home/me/.docker"));
    }

    #[test]
    fn a_context_is_chosen_without_touching_other_settings() {
        let dir = std::env::temp_dir().join(format!("dewar-config-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("config.json"), r#"{"auths":{"x":{}}}"#).unwrap();
        Config::load(dir.clone()).set_context("far").unwrap();
        let again = Config::load(dir.clone());
        assert_eq!(again.text("currentContext"), Some("far"));
        assert!(again.fields.contains_key("auths"));
        again.set_context("default").unwrap();
        assert_eq!(Config::load(dir.clone()).text("currentContext"), None);
        std::fs::write(dir.join("config.json"), "{").unwrap();
        let broken = Config::load(dir.clone());
        assert!(broken.fields.is_empty());
        assert!(broken.set_context("far").unwrap_err().to_string().contains("does not read"));
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn writing_keeps_order_mode_and_links() {
        let dir = std::env::temp_dir().join(format!("dewar-config-write-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        let config = Config::load(dir.join("new"));
        config.set_context("far").unwrap();
        assert_eq!(fs::read_to_string(config.path()).unwrap(), "{\n\t\"currentContext\": \"far\"\n}");
        assert_eq!((mode(&config.path()), mode(&dir.join("new"))), (0o600, 0o700));

        let real = dir.join("real.json");
        fs::write(&real, "{\"z\": 1, \"auths\": {\"x\": {}}, \"a\": [\"b\"]}").unwrap();
        fs::set_permissions(&real, Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real.json", dir.join("config.json")).unwrap();
        Config::load(dir.clone()).set_context("far").unwrap();
        let text = "{\n\t\"z\": 1,\n\t\"auths\": {\n\t\t\"x\": {}\n\t},\n\t\"a\": [\n\t\t\"b\"\n\t],\n\
                    \t\"currentContext\": \"far\"\n}";
        assert_eq!(fs::read_to_string(&real).unwrap(), text);
        assert_eq!(mode(&real), 0o640);
        assert!(fs::symlink_metadata(dir.join("config.json")).unwrap().is_symlink());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
        fs::remove_dir_all(&dir).unwrap();
    }
}
