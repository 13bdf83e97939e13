//! The local driver's options: what they may be, and the mount they ask for.
//!
//! Source: Docker's local driver (`type`, `device`, `o`, `size`), mount(8).

use std::collections::BTreeMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use crate::daemon::error::{Error, Result};
use crate::runtime::mounts;

type Options = BTreeMap<String, String>;

/// Checks the options a volume is made with. Docker's texts.
pub fn check(options: Option<&Options>) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    for (name, value) in options {
        match name.as_str() {
            "type" | "device" | "o" => {}
            "size" => return Err(no_quota(value)),
            _ => return Err(Error::invalid(format!("invalid option: {name:?}"))),
        }
    }
    for (given, needed) in [("type", "device"), ("device", "type"), ("o", "device"), ("o", "type")] {
        if options.contains_key(given) && !options.contains_key(needed) {
            return Err(Error::invalid(format!("missing required option: {needed:?}")));
        }
    }
    Ok(())
}

/// A size that is not kept to would be a lie: it is refused.
fn no_quota(value: &str) -> Error {
    if value.is_empty() || !value.starts_with(|digit: char| digit.is_ascii_digit()) {
        return Error::invalid(format!("invalid size: '{value}'"));
    }
    Error::invalid("quota size requested but no quota support")
}

/// Mounts what the options name on `at`, unless an earlier daemon has.
pub fn mount(options: Option<&Options>, at: &Path) -> Result<()> {
    let Some(options) = options else { return Ok(()) };
    let option = |name: &str| options.get(name).map(String::as_str).unwrap_or_default();
    if mounts::list()?.iter().any(|mount| Path::new(&mount.destination) == at) {
        return Ok(());
    }
    let kind = option("type");
    let mut words: Vec<String> =
        option("o").split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    if matches!(kind, "nfs" | "nfs4" | "cifs") {
        resolve_address(&mut words)?;
    }
    let device = option("device");
    mounts::mount(kind, device, at, &words).map_err(|error| {
        Error::invalid(format!(
            "failed to mount local volume: mount {device}:{}: {}",
            at.display(),
            error.cause
        ))
    })
}

/// The kernel takes numbers only: mount.nfs(8) and mount.cifs(8) look the name in `addr=` up.
fn resolve_address(words: &mut [String]) -> Result<()> {
    for word in words {
        let Some(name) = word.strip_prefix("addr=").map(str::to_owned) else { continue };
        if name.parse::<IpAddr>().is_ok() {
            continue;
        }
        let found = (name.as_str(), 0).to_socket_addrs().map(|mut found| found.next());
        match found {
            Ok(Some(address)) => *word = format!("addr={}", address.ip()),
            Ok(None) => return Err(Error::invalid(format!("look up {name:?}: it has no address"))),
            Err(cause) => return Err(Error::invalid(format!("look up {name:?}: {cause}"))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked_in_dockers_words() {
        let refuse = |options: &[(&str, &str)]| {
            let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            check(Some(&options.collect())).map_err(|error| error.message)
        };
        assert_eq!(refuse(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]), Ok(()));
        assert_eq!(refuse(&[("odd", "1")]), Err("invalid option: \"odd\"".into()));
        assert_eq!(refuse(&[("type", "tmpfs")]), Err("missing required option: \"device\"".into()));
        assert_eq!(refuse(&[("device", "/a")]), Err("missing required option: \"type\"".into()));
        assert_eq!(refuse(&[("o", "ro")]), Err("missing required option: \"device\"".into()));
        assert_eq!(refuse(&[("size", "1g")]), Err("quota size requested but no quota support".into()));
        assert_eq!(refuse(&[("size", "big")]), Err("invalid size: 'big'".into()));
        assert!(check(None).is_ok());
    }

    #[test]
    fn addresses_become_numbers() {
        let mut words = ["addr=127.0.0.1".to_owned(), "ro".to_owned()];
        resolve_address(&mut words).unwrap();
        assert_eq!(words, ["addr=127.0.0.1", "ro"]);
        let mut words = ["addr=localhost".to_owned()];
        resolve_address(&mut words).unwrap();
        assert!(words[0]["addr=".len()..].parse::<IpAddr>().unwrap().is_loopback());
    }
}
