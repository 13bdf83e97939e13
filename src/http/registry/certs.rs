//! certs.d: files that say, for one registry, whom to trust and what to show.
//!
//! `DIR/HOST[:PORT]/` holds `*.crt` (CAs, PEM), and pairs `NAME.cert` and `NAME.key` (a client certificate and its
//! key). Several directories are looked at in order; the first that has the host decides.
//!
//! Source: Docker's "Verify repository client with certificates". Only the first pair by name is shown: rustls asks
//! for one.

use std::path::{Path, PathBuf};

use crate::http::tls::ClientFiles;

/// Where certs.d is looked for: dewar's own, then Docker's.
pub const CERTS_DIRS: &[&str] = &["/etc/dewar/certs.d", "/etc/docker/certs.d"];

/// What the directories say of `host` (with its port, if the name has one).
///
/// # Errors
/// A directory that cannot be read, and half a pair.
pub fn files_for(directories: &[PathBuf], host: &str) -> Result<ClientFiles, String> {
    let mut files = ClientFiles::default();
    // The host is a name that was checked; all the same it must not lead out of the directory.
    if host.is_empty() || host.starts_with('.') || host.contains('/') {
        return Ok(files);
    }
    for directory in directories {
        let directory = directory.join(host);
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(format!("read {}: {cause}", directory.display())),
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let kind = |path: &Path| path.extension().and_then(|text| text.to_str()).unwrap_or("").to_owned();
        for path in &paths {
            match kind(path).as_str() {
                "crt" => files.more_cas.push(path.clone()),
                "cert" => {
                    let key = path.with_extension("key");
                    if !paths.contains(&key) {
                        return Err(missing(&key, "CERT", path));
                    }
                    files.pair.get_or_insert((path.clone(), key));
                }
                "key" if !paths.contains(&path.with_extension("cert")) => {
                    return Err(missing(&path.with_extension("cert"), "KEY", path));
                }
                _ => {}
            }
        }
        return Ok(files);
    }
    Ok(files)
}

/// Docker's words: people search for them.
fn missing(absent: &Path, kind: &str, present: &Path) -> String {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let other = if kind == "CERT" { "key" } else { "client certificate" };
    let label = if kind == "CERT" { "client certificate" } else { "key" };
    format!("missing {other} {} for {label} {}", name(absent), name(present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_directory_is_read_and_half_a_pair_refused() {
        let root = std::env::temp_dir().join(format!("dewar-certs-{}", std::process::id()));
        let host = root.join("b/reg:5000");
        std::fs::create_dir_all(&host).unwrap();
        for name in ["z.crt", "a.crt", "me.cert", "me.key", "README"] {
            std::fs::write(host.join(name), "").unwrap();
        }
        let directories = [root.join("a"), root.join("b")];
        let files = files_for(&directories, "reg:5000").unwrap();
        assert_eq!(files.more_cas, [host.join("a.crt"), host.join("z.crt")]);
        assert_eq!(files.pair, Some((host.join("me.cert"), host.join("me.key"))));
        assert_eq!(files_for(&directories, "other").unwrap(), ClientFiles::default());
        assert_eq!(files_for(&directories, "../b/reg:5000").unwrap(), ClientFiles::default());
        std::fs::remove_file(host.join("me.key")).unwrap();
        let failure = files_for(&directories, "reg:5000").unwrap_err();
        assert_eq!(failure, "missing key me.key for client certificate me.cert");
        std::fs::write(host.join("me.key"), "").unwrap();
        std::fs::remove_file(host.join("me.cert")).unwrap();
        let failure = files_for(&directories, "reg:5000").unwrap_err();
        assert_eq!(failure, "missing client certificate me.cert for key me.key");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
