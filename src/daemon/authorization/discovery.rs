//! Where a plugin of a name listens.
//!
//! In order: a socket in the daemon's own run directory or in Docker's, then a description (`.spec`: an address;
//! `.json`: an object with one) in Docker's directories. What is found first counts, as in Docker.
//!
//! Source: Docker's plugin discovery.

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::daemon::error::{Error, Result};
use crate::http::plugin::Address;

/// A description is a line or a small object.
const DESCRIPTION_BYTES: u64 = 64 * 1024;

/// The directories to look in.
pub(super) struct Places {
    sockets: Vec<PathBuf>,
    descriptions: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Description {
    addr: String,
    #[serde(rename = "TLSConfig")]
    tls_config: Option<serde_json::Value>,
}

impl Places {
    pub(super) fn new(exec_root: &Path) -> Places {
        Places {
            sockets: vec![exec_root.join("plugins"), "/run/docker/plugins".into()],
            descriptions: vec![
                exec_root.join("plugins"),
                "/etc/docker/plugins".into(),
                "/usr/lib/docker/plugins".into(),
            ],
        }
    }

    /// # Errors
    /// InvalidParameter when there is no such plugin, or its description is none.
    pub(super) fn find(&self, name: &str) -> Result<Address> {
        // A name becomes part of a path.
        let is_name = !name.is_empty()
            && !name.starts_with('.')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_name {
            return Err(Error::invalid(format!(
                "find authorization plugin {name:?}: not the name of a plugin"
            )));
        }
        let files = |directory: &PathBuf, suffix: &str| {
            let file = format!("{name}.{suffix}");
            [directory.join(&file), directory.join(name).join(&file)]
        };
        let is_socket =
            |path: &PathBuf| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if let Some(path) = self.sockets.iter().flat_map(|directory| files(directory, "sock")).find(is_socket)
        {
            return Ok(Address::Unix(path));
        }
        let candidates = self
            .descriptions
            .iter()
            .flat_map(|directory| ["spec", "json"].map(|suffix| files(directory, suffix)));
        match candidates.flatten().find(|path| path.is_file()) {
            Some(path) => {
                read(&path).map_err(|error| error.during(format!("find authorization plugin {name:?}")))
            }
            None => Err(Error::invalid(format!("plugin {name:?} not found"))),
        }
    }
}

/// The address in a description.
fn read(path: &Path) -> Result<Address> {
    let invalid = |cause: String| Error::invalid(format!("read {path:?}: {cause}"));
    let is_small = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= DESCRIPTION_BYTES);
    if !is_small {
        return Err(invalid(format!("larger than {} KiB", DESCRIPTION_BYTES >> 10)));
    }
    let text = std::fs::read_to_string(path).map_err(|cause| invalid(cause.to_string()))?;
    let address = if path.extension().is_some_and(|suffix| suffix == "json") {
        let description: Description =
            serde_json::from_str(&text).map_err(|cause| invalid(cause.to_string()))?;
        if description.tls_config.is_some() {
            return Err(invalid("plugins are not spoken to over TLS: give it a unix socket".to_owned()));
        }
        description.addr
    } else {
        text.trim().to_owned()
    };
    let address = match address.split_once("://") {
        Some(("http", rest)) => format!("tcp://{}", rest.trim_end_matches('/')),
        Some(("unix" | "tcp", _)) => address,
        Some(("https", _)) => {
            return Err(invalid("plugins are not spoken to over TLS: give it a unix socket".to_owned()));
        }
        _ => return Err(invalid(format!("{address:?} is no address: expected unix://, tcp:// or http://"))),
    };
    Address::parse(&address).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn places(name: &str) -> (Dir, Places) {
        let dir = std::env::temp_dir().join(format!("dewar-discovery-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(dir.join("run")).unwrap();
        std::fs::create_dir_all(dir.join("etc")).unwrap();
        let places = Places { sockets: vec![dir.join("run")], descriptions: vec![dir.join("etc")] };
        (Dir(dir), places)
    }

    #[test]
    fn sockets_come_before_descriptions() {
        let (dir, places) = places("order");
        let (run, etc) = (dir.0.join("run"), dir.0.join("etc"));
        let error = places.find("p").unwrap_err();
        assert_eq!(error.message, "plugin \"p\" not found");
        std::fs::write(etc.join("p.json"), r#"{"Name":"p","Addr":"http://127.0.0.1:9/"}"#).unwrap();
        assert_eq!(places.find("p").unwrap(), Address::Tcp("127.0.0.1".to_owned(), 9));
        std::fs::write(etc.join("p.spec"), "unix:///other.sock\n").unwrap();
        assert_eq!(places.find("p").unwrap(), Address::Unix("/other.sock".into()));
        // A file of the name is no socket.
        std::fs::write(run.join("p.sock"), "").unwrap();
        assert_eq!(places.find("p").unwrap(), Address::Unix("/other.sock".into()));
        std::fs::create_dir(run.join("p")).unwrap();
        let _listener = std::os::unix::net::UnixListener::bind(run.join("p/p.sock")).unwrap();
        assert_eq!(places.find("p").unwrap(), Address::Unix(run.join("p/p.sock")));
    }

    #[test]
    fn names_and_descriptions_that_are_none_are_refused() {
        let (dir, places) = places("bad");
        for name in ["", "..", "../p", "a/b", ".p", "a b", "a\n"] {
            assert!(places.find(name).unwrap_err().message.contains("not the name of a plugin"), "{name:?}");
        }
        for (text, part) in [
            ("", "is no address"),
            ("/run/p.sock", "is no address"),
            ("ftp://x", "is no address"),
            ("https://x", "TLS"),
            ("unix://relative", "not absolute"),
        ] {
            std::fs::write(dir.0.join("etc/p.spec"), text).unwrap();
            let error = places.find("p").unwrap_err();
            assert!(error.message.contains(part) && error.message.contains("p.spec"), "{text}: {error}");
        }
        std::fs::write(dir.0.join("etc/q.json"), r#"{"Addr":"tcp://x:1","TLSConfig":{"CAFile":"x"}}"#)
            .unwrap();
        assert!(places.find("q").unwrap_err().message.contains("TLS"));
    }
}
