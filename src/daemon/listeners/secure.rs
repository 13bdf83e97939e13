//! TLS of tcp hosts: whether, with which files, and for whom.

use std::path::{Path, PathBuf};

use crate::daemon::config::{Config, Tls};
use crate::daemon::error::{Error, Result};
use crate::http::tls::{Prepared, ServerFiles};

/// Where certificates are looked for first unless the environment says otherwise.
const OWN_DIR: &str = "/etc/dewar";

/// Whether tcp hosts speak TLS.
pub fn is_on(tls: &Tls) -> bool {
    // Compat: with dockerd, too, --tlsverify turns TLS on whatever it says.
    tls.is_on == Some(true) || tls.verifies.is_some()
}

/// Whether clients must show certificates.
pub fn verifies(tls: &Tls) -> bool {
    tls.verifies == Some(true)
}

/// Reads and checks the files; `None` without TLS.
///
/// # Errors
/// InvalidParameter naming the file and the cause.
pub fn certificates(config: &Config) -> Result<Option<Prepared>> {
    if !is_on(&config.tls) {
        return Ok(None);
    }
    let files = files(&config.tls, |name| std::env::var_os(name).map(PathBuf::from));
    files.prepare().map(Some).map_err(|why| Error::invalid(format!("set up TLS: {why}")))
}

/// What is named, and of the rest what is usual: all of it from one directory, that of `DOCKER_CERT_PATH`, else
/// dewar's own if there is a certificate, else the docker client's.
fn files(tls: &Tls, environment: impl Fn(&str) -> Option<PathBuf>) -> ServerFiles {
    let given = |name: &str| environment(name).filter(|path| !path.as_os_str().is_empty());
    let dir = given("DOCKER_CERT_PATH").unwrap_or_else(|| {
        let clients = given("DOCKER_CONFIG").or_else(|| Some(given("HOME")?.join(".docker")));
        match clients {
            Some(dir) if !Path::new(OWN_DIR).join("cert.pem").exists() && dir.join("cert.pem").exists() => {
                dir
            }
            _ => OWN_DIR.into(),
        }
    });
    let file = |named: &Option<PathBuf>, usual: &str| named.clone().unwrap_or_else(|| dir.join(usual));
    ServerFiles {
        cert: file(&tls.cert, "cert.pem"),
        key: file(&tls.key, "key.pem"),
        client_ca: verifies(tls).then(|| file(&tls.ca, "ca.pem")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mentioning_verification_turns_tls_on() {
        let tls = |is_on, verifies| Tls { is_on, verifies, ..Tls::default() };
        for (tls, on, verified) in [
            (tls(None, None), false, false),
            (tls(Some(false), None), false, false),
            (tls(Some(true), None), true, false),
            (tls(None, Some(false)), true, false),
            (tls(Some(false), Some(true)), true, true),
        ] {
            assert_eq!((is_on(&tls), verifies(&tls)), (on, verified), "{tls:?}");
        }
    }

    #[test]
    fn files_that_are_not_named_come_from_one_directory() {
        let named = Tls { verifies: Some(true), cert: Some("/c".into()), ..Tls::default() };
        let environment = |name: &str| (name == "DOCKER_CERT_PATH").then(|| PathBuf::from("/certs"));
        let found = files(&named, environment);
        assert_eq!((found.cert, found.key), ("/c".into(), "/certs/key.pem".into()));
        assert_eq!(found.client_ca, Some("/certs/ca.pem".into()));
        let unverified = Tls { is_on: Some(true), ..Tls::default() };
        assert_eq!(files(&unverified, environment).client_ca, None);
        assert_eq!(files(&unverified, |_| None).cert, Path::new("/etc/dewar/cert.pem"));
    }
}
