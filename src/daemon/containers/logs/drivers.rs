//! Log drivers: which there are, what their options mean, and what the shim is told of them.
//!
//! | driver | readable through |
//! |---|---|
//! | `json-file`, `local` | its own file |
//! | `syslog`, `journald` | a file beside it, in `local`'s format, unless `cache-disabled` |
//! | `none` | nothing |
//!
//! Options are checked when a container is created; what only a start can find out (a socket that is not there, a
//! name that does not resolve) is told by it.
//!
//! Stays whole: what a driver's options mean and what the shim is told of them are one table read twice.
//!
//! Source: moby `daemon/logger`: keys, defaults and messages.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use super::tag;
use crate::daemon::containers::container::{Container, Record};
use crate::daemon::error::{Error, Result};
use crate::daemon::pattern::Pattern;
use crate::http::api::container::LogConfig;
use crate::runtime::{LogAddress, LogFile, LogForm, LogFormat, LogRemote, SyslogForm};

/// Where systemd's journal listens.
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where a syslog daemon of this host listens. Source: srslog's list.
const SYSLOG: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];
const SYSLOG_PORT: u16 = 514;
/// Docker's, for messages that wait to be sent.
const BUFFER_BYTES: u64 = 1 << 20;
/// Docker's for the driver `local` and for the file beside a driver that cannot be read.
const LOCAL_FILE_BYTES: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;

/// syslog(3), in the order of their codes; 12 to 15 have no name in Docker.
const FACILITIES: [&str; 12] =
    ["kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"];

const COMMON: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
const FILE: [&str; 3] = ["max-size", "max-file", "compress"];
const SYSLOG_KEYS: [&str; 7] = [
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
];
/// Every driver takes them.
const MODE: [&str; 2] = ["mode", "max-buffer-size"];
const CACHE: [&str; 4] = ["cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"];

/// A driver by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    JsonFile,
    Local,
    None,
    Syslog,
    Journald,
}

const DRIVERS: [(&str, Driver); 5] = [
    ("journald", Driver::Journald),
    ("json-file", Driver::JsonFile),
    ("local", Driver::Local),
    ("none", Driver::None),
    ("syslog", Driver::Syslog),
];

/// The names of the drivers that can work on this host.
pub fn names() -> Vec<String> {
    let works = |driver: Driver| driver != Driver::Journald || Path::new(JOURNAL).exists();
    DRIVERS.iter().filter(|(_, driver)| works(*driver)).map(|(name, _)| (*name).to_owned()).collect()
}

fn driver(name: &str) -> Result<Driver> {
    let found = DRIVERS.iter().find(|(known, _)| *known == name);
    found.map(|(_, driver)| *driver).ok_or_else(|| {
        let known: Vec<&str> = DRIVERS.iter().map(|(name, _)| *name).collect();
        Error::invalid(format!(
            "logger: no log driver named '{name}' is registered: this version has {}",
            known.join(", ")
        ))
    })
}

/// Fills in the daemon's defaults: its driver, and its options where the driver is the same.
pub fn merge(config: &mut LogConfig, defaults: &LogConfig) {
    if config.kind.is_empty() {
        config.kind.clone_from(&defaults.kind);
    }
    let is_same = config.kind == defaults.kind;
    for (key, value) in &defaults.config {
        if is_same || CACHE.contains(&key.as_str()) {
            config.config.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
}

/// Checks a driver and its options.
///
/// # Errors
/// InvalidParameter, in Docker's words where it has some.
pub fn validate(config: &LogConfig) -> Result<()> {
    let (driver, options) = (driver(&config.kind)?, &config.config);
    if driver == Driver::None {
        // Compat: whatever it is told.
        return Ok(());
    }
    mode(options)?;
    if let Some(value) = option(options, "cache-disabled")
        && parse_bool(value).is_err()
    {
        return Err(Error::invalid(format!("invalid value for option cache-disabled: {value}")));
    }
    let known: &[&[&str]] = match driver {
        Driver::JsonFile | Driver::Local => &[&COMMON, &FILE, &MODE, &CACHE],
        Driver::Syslog => &[&COMMON, &SYSLOG_KEYS, &MODE, &CACHE],
        Driver::Journald | Driver::None => &[&COMMON, &MODE, &CACHE],
    };
    if let Some(key) = options.keys().find(|key| !known.iter().any(|keys| keys.contains(&key.as_str()))) {
        return Err(Error::invalid(match driver {
            Driver::Local => format!("unknown log opt '{key}' for log driver local"),
            _ => format!("unknown log opt '{key}' for {} log driver", config.kind),
        }));
    }
    match driver {
        Driver::JsonFile => drop(json_limits(options)?),
        Driver::Local => drop(local_limits(options, "")?),
        Driver::Syslog => {
            facility(options)?;
            syslog_form(options)?;
            Address::parse(options.get("syslog-address").map_or("", String::as_str))?;
        }
        Driver::Journald | Driver::None => {}
    }
    local_limits(options, "cache-")?;
    tag::check(options.get("tag").map_or("", String::as_str))
}

/// Where a container's output can be read back, and in which format; `None` when nowhere.
pub fn place(container: &Container, config: &LogConfig) -> Option<(PathBuf, LogFormat)> {
    let dir = &container.dir;
    match driver(&config.kind).ok()? {
        Driver::JsonFile => Some((dir.join(format!("{}-json.log", container.id)), LogFormat::Json)),
        Driver::Local => Some((dir.join("local-logs/container.log"), LogFormat::Local)),
        Driver::Syslog | Driver::Journald if has_cache(config) => {
            Some((dir.join("container-cached.log"), LogFormat::Local))
        }
        Driver::Syslog | Driver::Journald | Driver::None => None,
    }
}

/// Whether `inspect` tells the place. Compat: Docker's readers may rely on one format only.
pub fn is_told(config: &LogConfig) -> bool {
    config.kind == "json-file"
}

fn has_cache(config: &LogConfig) -> bool {
    option(&config.config, "cache-disabled").is_none_or(|value| parse_bool(value) == Ok(false))
}

/// What the shim is to do with the output of a container that is about to start.
///
/// # Errors
/// InvalidParameter as [`validate`], and for what this host has not got.
pub fn setup(container: &Container, record: &Record) -> Result<(Option<LogFile>, Option<LogRemote>)> {
    let config = &record.host_config.log_config;
    let options = &config.config;
    let failed = |error: Error| error.during("failed to initialize logging driver");
    let remote = remote(container, record).map_err(failed)?;
    let Some((path, format)) = place(container, config) else { return Ok((None, remote)) };
    let limits = match (driver(&config.kind)?, &remote) {
        (Driver::JsonFile, _) => json_limits(options)?,
        (_, None) => local_limits(options, "")?,
        (_, Some(_)) => local_limits(options, "cache-")?,
    };
    if let Some(dir) = path.parent().filter(|dir| *dir != container.dir) {
        crate::daemon::state_dir::make_dir(dir, 0o700)?;
    }
    let mut attrs = attributes(record, &|name| name.to_owned());
    if let Some(tag) = option(options, "tag") {
        attrs.insert("tag".to_owned(), tag::expand(tag, record).map_err(failed)?);
    }
    let (max_size_bytes, max_files, compress) = limits;
    let attrs = attrs.into_iter().collect();
    let file = LogFile { max_size_bytes, max_files, compress, format, attrs, ..LogFile::at(path) };
    Ok((Some(file), remote))
}

fn remote(container: &Container, record: &Record) -> Result<Option<LogRemote>> {
    let config = &record.host_config.log_config;
    let options = &config.config;
    let (address, form) = match driver(&config.kind)? {
        Driver::JsonFile | Driver::Local | Driver::None => return Ok(None),
        Driver::Syslog => {
            let given = options.get("syslog-address").map_or("", String::as_str);
            let address = Address::parse(given)?.resolve()?;
            let tag = tag::expand(option(options, "tag").unwrap_or("{{.ID}}"), record)?;
            let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
            let (facility, form) = (facility(options)?, syslog_form(options)?);
            (address, LogForm::Syslog { facility, form, tag, hostname })
        }
        Driver::Journald => {
            if !Path::new(JOURNAL).exists() {
                return Err(Error::invalid(format!(
                    "journald is not enabled on this host: there is no {JOURNAL}"
                )));
            }
            let tag = tag::expand(option(options, "tag").unwrap_or("{{.ID}}"), record)?;
            let mut fields = attributes(record, &journal_field);
            // Which of an earlier life's messages come before this one's.
            let epoch = crate::daemon::names::new_id()?;
            for (name, value) in [
                ("CONTAINER_ID", container.id.get(..12).unwrap_or(&container.id)),
                ("CONTAINER_ID_FULL", &container.id),
                ("CONTAINER_NAME", &record.name),
                ("CONTAINER_TAG", &tag),
                ("IMAGE_NAME", &record.config.image),
                ("SYSLOG_IDENTIFIER", &tag),
                ("CONTAINER_LOG_EPOCH", &epoch),
            ] {
                fields.insert(name.to_owned(), value.to_owned());
            }
            let fields = fields.into_iter().filter(|(name, _)| !name.is_empty()).collect();
            (LogAddress::UnixDatagram(JOURNAL.into()), LogForm::Journal { fields })
        }
    };
    let (is_blocking, buffer) = mode(options)?;
    let buffer_bytes = usize::try_from(buffer.unwrap_or(BUFFER_BYTES)).unwrap_or(usize::MAX);
    Ok(Some(LogRemote { address, form, is_blocking, buffer_bytes }))
}

/// The labels and variables that the options name, their names changed by `key`.
fn attributes(record: &Record, key: &dyn Fn(&str) -> String) -> BTreeMap<String, String> {
    let options = &record.host_config.log_config.config;
    let wanted = |list: &str, regex: &str| {
        let names: Vec<&str> = option(options, list).into_iter().flat_map(|list| list.split(',')).collect();
        let pattern = option(options, regex).map(Pattern::new);
        move |name: &str| {
            names.iter().any(|wanted| wanted.trim() == name)
                || pattern.as_ref().is_some_and(|pattern| pattern.matches(name))
        }
    };
    let is_wanted = wanted("labels", "labels-regex");
    let labels = record.config.labels.iter().filter(|(name, _)| is_wanted(name));
    let mut found: BTreeMap<String, String> =
        labels.map(|(name, value)| (key(name), value.clone())).collect();
    let is_wanted = wanted("env", "env-regex");
    let variables = record.config.env.iter().filter_map(|variable| variable.split_once('='));
    // A name given twice has its last value.
    let variables = variables.filter(|(name, _)| is_wanted(name));
    found.extend(variables.map(|(name, value)| (key(name), value.to_owned())));
    found
}

/// A name as the journal takes it: capitals, digits and underscores, but none in front.
fn journal_field(name: &str) -> String {
    let letters = name.bytes().map(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte.to_ascii_uppercase()),
        _ => '_',
    });
    letters.skip_while(|letter| *letter == '_').collect()
}

type Options = BTreeMap<String, String>;

/// An option that is given and not empty.
fn option<'a>(options: &'a Options, key: &str) -> Option<&'a str> {
    options.get(key).map(String::as_str).filter(|value| !value.is_empty())
}

/// Whether the container waits for a slow receiver, and how much may wait to be sent.
fn mode(options: &Options) -> Result<(bool, Option<u64>)> {
    let is_blocking = match options.get("mode").map_or("", String::as_str) {
        "" | "blocking" => true,
        "non-blocking" => false,
        other => return Err(Error::invalid(format!("logger: logging mode not supported: {other}"))),
    };
    let Some(text) = options.get("max-buffer-size") else { return Ok((is_blocking, None)) };
    if is_blocking {
        return Err(Error::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ));
    }
    let size = parse_size(text, 1024).ok_or_else(|| {
        Error::invalid(format!("error parsing option max-buffer-size: invalid size: '{text}'"))
    })?;
    Ok((is_blocking, Some(size)))
}

/// Size, number and compression of the files.
type FileLimits = (Option<u64>, u32, bool);

fn json_limits(options: &Options) -> Result<FileLimits> {
    let (size, files, compress) = file_limits(options, "")?;
    let (size, files, compress) = (size.flatten(), files.unwrap_or(1), compress.unwrap_or(false));
    if compress && (files < 2 || size.is_none()) {
        return Err(Error::invalid(
            "compress cannot be true when max-file is less than 2 or max-size is not set",
        ));
    }
    Ok((size, files, compress))
}

fn local_limits(options: &Options, prefix: &str) -> Result<FileLimits> {
    let (size, files, compress) = file_limits(options, prefix)?;
    let (size, files) = (size.unwrap_or(Some(LOCAL_FILE_BYTES)), files.unwrap_or(LOCAL_FILES));
    // Compat: said only when it was asked for.
    if compress == Some(true) && (files < 2 || size.is_none()) {
        return Err(Error::invalid("compression cannot be enabled when max file count is 1"));
    }
    Ok((size, files, compress.unwrap_or(true) && files > 1))
}

/// What the options say; a size of -1 is no limit.
#[allow(clippy::type_complexity, reason = "an option that is not given, and one that says none")]
fn file_limits(options: &Options, prefix: &str) -> Result<(Option<Option<u64>>, Option<u32>, Option<bool>)> {
    let read = |key: &str| options.get(&format!("{prefix}{key}"));
    let size = match read("max-size") {
        None => None,
        Some(text) if text == "-1" => Some(None),
        Some(text) => {
            // Compat: Docker counts these in thousands.
            let size = parse_size(text, 1000).ok_or_else(|| {
                Error::invalid(format!("invalid value for log-opt {prefix}max-size: invalid size: '{text}'"))
            })?;
            if size == 0 {
                return Err(Error::invalid(format!("{prefix}max-size must be a positive number")));
            }
            Some(Some(size))
        }
    };
    let files = match read("max-file") {
        None => None,
        Some(text) => {
            let count: i64 = text
                .parse()
                .map_err(|_| Error::invalid(format!("invalid value for {prefix}max-file: {text:?}")))?;
            let positive = u32::try_from(count).ok().filter(|count| *count >= 1);
            let few = || Error::invalid(format!("{prefix}max-file cannot be less than 1"));
            Some(positive.ok_or_else(few)?)
        }
    };
    let compress = match read("compress") {
        None => None,
        Some(text) => Some(
            parse_bool(text)
                .map_err(|()| Error::invalid(format!("invalid value for {prefix}compress: {text:?}")))?,
        ),
    };
    Ok((size, files, compress))
}

/// As Go reads it.
fn parse_bool(text: &str) -> Result<bool, ()> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(()),
    }
}

/// `10m`, `1.5 GB`; `unit` is 1000 or 1024.
fn parse_size(text: &str, unit: u64) -> Option<u64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic() || letter == ' ');
    let factor = match text[digits.len()..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => unit,
        "m" | "mb" | "mib" => unit.pow(2),
        "g" | "gb" | "gib" => unit.pow(3),
        "t" | "tb" | "tib" => unit.pow(4),
        _ => return None,
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|digit| digit.is_ascii_digit()) || fraction.len() > 9 {
        return None;
    }
    let whole = whole.parse::<u64>().ok()?.checked_mul(factor)?;
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { fraction.parse::<u64>().ok()? };
    let rest = u128::from(fraction) * u128::from(factor) / u128::from(scale);
    whole.checked_add(u64::try_from(rest).ok()?)
}

fn facility(options: &Options) -> Result<u8> {
    let text = option(options, "syslog-facility").unwrap_or("daemon");
    let named = FACILITIES.iter().position(|name| *name == text);
    let local =
        || text.strip_prefix("local")?.parse().ok().filter(|number: &usize| *number < 8).map(|n| n + 16);
    let number = || text.parse::<usize>().ok().filter(|number| *number <= 23);
    let code = named.or_else(local).or_else(number).and_then(|code| u8::try_from(code).ok());
    code.ok_or_else(|| Error::invalid("invalid syslog facility"))
}

fn syslog_form(options: &Options) -> Result<SyslogForm> {
    match options.get("syslog-format").map_or("", String::as_str) {
        "" => Ok(SyslogForm::Unix),
        "rfc3164" => Ok(SyslogForm::Rfc3164),
        "rfc5424" => Ok(SyslogForm::Rfc5424),
        "rfc5424micro" => Ok(SyslogForm::Rfc5424Micro),
        _ => Err(Error::invalid("Invalid syslog format")),
    }
}

/// A syslog server as it is named.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    /// This host's.
    Local,
    Unix(PathBuf),
    UnixDatagram(PathBuf),
    Udp(String),
    Tcp(String),
}

impl Address {
    fn parse(text: &str) -> Result<Address> {
        if text.is_empty() {
            return Ok(Address::Local);
        }
        let form = || Error::invalid(format!("syslog-address should be in form proto://address, got {text}"));
        let (proto, rest) = text.split_once("://").filter(|(_, rest)| !rest.is_empty()).ok_or_else(form)?;
        let path = || Path::new(rest).is_absolute().then(|| PathBuf::from(rest)).ok_or_else(form);
        let server = || {
            let rest = rest.trim_end_matches('/');
            let after_address = rest.rsplit_once(']').map_or(rest, |(_, after)| after);
            let is_bare_v6 = !rest.starts_with('[') && rest.matches(':').count() > 1;
            match after_address.rsplit_once(':') {
                _ if rest.is_empty() || is_bare_v6 => Err(form()),
                None => Ok(format!("{rest}:{SYSLOG_PORT}")),
                Some((host, port)) if port.parse::<u16>().is_ok() => {
                    let is_empty = host.is_empty() && !rest.starts_with('[');
                    Ok(if is_empty { format!("localhost:{port}") } else { rest.to_owned() })
                }
                Some(_) => Err(form()),
            }
        };
        match proto {
            "unix" => Ok(Address::Unix(path()?)),
            "unixgram" => Ok(Address::UnixDatagram(path()?)),
            "udp" => Ok(Address::Udp(server()?)),
            "tcp" => Ok(Address::Tcp(server()?)),
            "tcp+tls" => Err(Error::invalid(format!(
                "syslog-address {text}: this version of dewar does not send logs over TLS"
            ))),
            _ => Err(form()),
        }
    }

    /// Addresses that can be connected to. May ask a name server.
    fn resolve(self) -> Result<LogAddress> {
        let lookup = |server: &str| -> Result<Vec<SocketAddr>> {
            let found = server.to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            let failed = |cause: &dyn std::fmt::Display| Error::invalid(format!("dial {server}: {cause}"));
            match found {
                Ok(found) if found.is_empty() => Err(failed(&"the name has no address")),
                Ok(found) => Ok(found),
                Err(cause) => Err(failed(&cause)),
            }
        };
        Ok(match self {
            Address::Local => LogAddress::Local(SYSLOG.iter().map(PathBuf::from).collect()),
            Address::Unix(path) => LogAddress::Unix(path),
            Address::UnixDatagram(path) => LogAddress::UnixDatagram(path),
            Address::Udp(server) => LogAddress::Udp(lookup(&server)?),
            Address::Tcp(server) => LogAddress::Tcp(lookup(&server)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(kind: &str, options: &[(&str, &str)]) -> LogConfig {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        LogConfig { kind: kind.to_owned(), config: options.collect() }
    }

    fn refused(kind: &str, options: &[(&str, &str)]) -> String {
        validate(&config(kind, options)).err().map(|error| error.message).unwrap_or_default()
    }

    #[test]
    fn options_are_read_or_refused_in_dockers_words() {
        let fine: [(&str, &[(&str, &str)]); 8] = [
            ("json-file", &[("mode", "non-blocking"), ("max-buffer-size", "4m"), ("max-file", "3")]),
            (
                "json-file",
                &[("max-size", "10m"), ("max-file", "3"), ("compress", "true"), ("tag", "{{.Name}}")],
            ),
            ("local", &[("max-size", "1.5kb"), ("labels", "a"), ("compress", "F")]),
            ("none", &[("whatever", "1")]),
            ("syslog", &[("syslog-address", "udp://127.0.0.1"), ("syslog-facility", "local7"), ("env", "A")]),
            (
                "syslog",
                &[("syslog-format", "rfc5424micro"), ("cache-max-size", "1m"), ("cache-disabled", "1")],
            ),
            ("syslog", &[("syslog-address", "unixgram:///run/x"), ("syslog-facility", "23")]),
            ("journald", &[("env-regex", "^A"), ("tag", "x")]),
        ];
        for (kind, options) in fine {
            assert_eq!(refused(kind, options), "", "{kind} {options:?}");
        }
        for (kind, options, text) in [
            ("fluentd", ("a", "b"), "logger: no log driver named 'fluentd' is registered"),
            ("json-file", ("x", "1"), "unknown log opt 'x' for json-file log driver"),
            ("local", ("x", "1"), "unknown log opt 'x' for log driver local"),
            ("syslog", ("max-size", "1"), "unknown log opt 'max-size' for syslog log driver"),
            ("journald", ("syslog-address", "x"), "unknown log opt 'syslog-address' for journald log driver"),
            ("json-file", ("mode", "x"), "logger: logging mode not supported: x"),
            ("json-file", ("max-buffer-size", "4m"), "logger: max-buffer-size option is only supported"),
            ("json-file", ("compress", "true"), "compress cannot be true when max-file is less than 2"),
            ("json-file", ("max-file", "0"), "max-file cannot be less than 1"),
            ("json-file", ("max-size", "x"), "invalid size: 'x'"),
            ("json-file", ("max-size", "0"), "max-size must be a positive number"),
            ("json-file", ("tag", "{{.Nope}}"), "template: log-tag:"),
            ("local", ("compress", "x"), "invalid value for compress"),
            ("syslog", ("syslog-facility", "x"), "invalid syslog facility"),
            ("syslog", ("syslog-format", "x"), "Invalid syslog format"),
            ("syslog", ("syslog-address", "x"), "syslog-address should be in form proto://address, got x"),
            ("syslog", ("syslog-address", "tcp+tls://x"), "does not send logs over TLS"),
            ("syslog", ("cache-disabled", "x"), "invalid value for option cache-disabled: x"),
            ("syslog", ("cache-max-file", "x"), "invalid value for cache-max-file"),
        ] {
            let got = refused(kind, &[options]);
            assert!(got.contains(text), "{kind} {options:?}: {got}");
        }
    }

    #[test]
    fn the_daemons_defaults_are_for_its_driver() {
        let defaults = config("local", &[("max-size", "1m"), ("cache-max-file", "2")]);
        let merged = |mut of: LogConfig| {
            merge(&mut of, &defaults);
            of
        };
        assert_eq!(merged(config("", &[])), defaults);
        assert_eq!(merged(config("local", &[("max-size", "2m")])).config["max-size"], "2m");
        assert_eq!(merged(config("json-file", &[])), config("json-file", &[("cache-max-file", "2")]));
    }

    #[test]
    fn files_have_the_drivers_limits() {
        let none = Options::new();
        assert_eq!(json_limits(&none).unwrap(), (None, 1, false));
        assert_eq!(local_limits(&none, "").unwrap(), (Some(20 << 20), 5, true));
        let given = config("", &[("cache-max-size", "10k"), ("cache-max-file", "1")]).config;
        assert_eq!(local_limits(&given, "cache-").unwrap(), (Some(10_000), 1, false));
        assert_eq!(json_limits(&config("", &[("max-size", "-1")]).config).unwrap(), (None, 1, false));
    }

    #[test]
    fn sizes_have_units() {
        for (text, unit, size) in [
            ("10", 1000, Some(10)),
            ("10m", 1000, Some(10_000_000)),
            ("10m", 1024, Some(10 << 20)),
            ("1.5k", 1000, Some(1500)),
            ("0.5 GiB", 1024, Some(1 << 29)),
            ("", 1000, None),
            ("x", 1000, None),
            ("10q", 1000, None),
            ("-1", 1000, None),
            ("1.x", 1000, None),
            ("99999999999999999999g", 1000, None),
        ] {
            assert_eq!(parse_size(text, unit), size, "{text}");
        }
    }

    #[test]
    fn servers_have_a_port() {
        let parse = |text: &str| Address::parse(text).map_err(|error| error.message);
        assert_eq!(parse("").unwrap(), Address::Local);
        assert_eq!(parse("udp://1.2.3.4").unwrap(), Address::Udp("1.2.3.4:514".into()));
        assert_eq!(parse("tcp://[::1]:99").unwrap(), Address::Tcp("[::1]:99".into()));
        assert_eq!(parse("tcp://[::1]").unwrap(), Address::Tcp("[::1]:514".into()));
        assert_eq!(parse("tcp://:99").unwrap(), Address::Tcp("localhost:99".into()));
        assert_eq!(parse("unix:///dev/log").unwrap(), Address::Unix("/dev/log".into()));
        for bad in ["/dev/log", "unix://dev/log", "udp://", "udp://a:x", "http://a", "udp://::1"] {
            assert!(parse(bad).unwrap_err().contains("proto://address"), "{bad}");
        }
    }

    #[test]
    fn attributes_are_what_the_options_name() {
        let mut record = Record::default();
        record.config.labels = [("b.c", "1 2"), ("other", "x")].map(|(k, v)| (k.into(), v.into())).into();
        record.config.env = vec!["A=x/y".to_owned(), "B=z".to_owned()];
        record.host_config.log_config = config("json-file", &[("labels", "b.c,none"), ("env", "A")]);
        let found = |record: &Record, key: &dyn Fn(&str) -> String| {
            attributes(record, key).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(found(&record, &str::to_owned), "A=x/y b.c=1 2");
        assert_eq!(found(&record, &journal_field), "A=x/y B_C=1 2");
        record.host_config.log_config =
            config("json-file", &[("labels-regex", "^(b|oth)"), ("env-regex", "B")]);
        assert_eq!(found(&record, &str::to_owned), "B=z b.c=1 2 other=x");
        assert_eq!(journal_field("__a-b"), "A_B");
    }
}
