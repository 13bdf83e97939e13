//! How the values of container flags are written: sizes, durations, ports, devices, limits; mounts
//! have a file of their own.
//!
//! Text in, wire types out; errors say what was expected. Nothing is opened except the files that
//! `--env-file`, `--label-file` and `--security-opt seccomp=` name.

use std::collections::BTreeMap;

use crate::http::api::container::{
    DeviceMapping, PortBinding, RestartPolicy, ThrottleDevice, ULIMITS, Ulimit, WeightDevice,
};

/// Bytes from `512m`, `1.5g`, `64KiB`; units are powers of 1024, a bare number is bytes.
pub fn bytes(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid size: '{text}'");
    let text_lower = text.trim().to_ascii_lowercase();
    let digits = text_lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text_lower.len());
    let (number, unit) = text_lower.split_at(digits);
    let factor: u64 = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.contains('i') => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(invalid()),
    };
    let size = number.parse::<f64>().map_err(|_| invalid())? * factor as f64;
    // Above 2^53 a double skips integers; no machine has that much memory.
    if size.is_finite() && size < 9.0e15 { Ok(size as i64) } else { Err(invalid()) }
}

/// As [`bytes`], and `-1` for unlimited.
pub fn bytes_or_unlimited(text: &str) -> Result<i64, String> {
    if text.trim() == "-1" { Ok(-1) } else { bytes(text) }
}

/// Billionths of a CPU from `1.5`.
pub fn nano_cpus(text: &str) -> Result<i64, String> {
    let cpus: f64 = text.trim().parse().map_err(|_| "expected a number of CPUs such as 1.5".to_owned())?;
    if !(0.0..=1e6).contains(&cpus) {
        return Err("expected a number of CPUs such as 1.5".to_owned());
    }
    Ok((cpus * 1e9).round() as i64)
}

/// Nanoseconds from Go's `1h30m`, `1.5s`, `300ms`.
pub fn duration_ns(text: &str) -> Result<i64, String> {
    let invalid = || format!("invalid duration {text:?}, expected for example 30s, 1m30s or 500ms");
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let factor = match &rest[..letters] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(invalid()),
        };
        rest = &rest[letters..];
        total += number * factor;
    }
    if total < 9e18 { Ok(total as i64) } else { Err(invalid()) }
}

/// `key=value`; a missing `=` gives an empty value.
pub fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.trim().is_empty() {
        return Err("expected key=value".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// One `--env`: a bare name takes the client's value; where there is none it stays bare, which takes the
/// image's away.
pub fn env(text: &str) -> Result<String, String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    match std::env::var(text) {
        Ok(value) if !text.contains('=') => Ok(format!("{text}={value}")),
        _ => Ok(text.to_owned()),
    }
}

/// The lines of an `--env-file` or `--label-file`: comments and empty lines left out.
pub fn lines_of(path: &str) -> Result<Vec<String>, String> {
    let text = std::fs::read_to_string(path).map_err(|cause| cause.to_string())?;
    let lines = text.strip_prefix('\u{feff}').unwrap_or(&text).lines();
    lines
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split('=').next() {
            Some(name) if name.is_empty() || name.contains([' ', '\t']) => {
                Err(format!("line {line:?}: a name holds no space"))
            }
            _ => Ok(line.to_owned()),
        })
        .collect()
}

/// `HOST[:CONTAINER][:rwm]` as `--device` writes it.
pub fn device(text: &str) -> Result<DeviceMapping, String> {
    let is_mode = |word: &str| !word.is_empty() && word.chars().all(|c| "rwm".contains(c));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, inside, mode) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, inside] => (host, inside, "rwm"),
        [host, inside, mode] if is_mode(mode) => (host, inside, mode),
        _ => return Err("expected HOST[:CONTAINER][:rwm]".to_owned()),
    };
    if !host.starts_with('/') || !inside.starts_with('/') {
        return Err(format!("{text:?} is not an absolute path"));
    }
    Ok(DeviceMapping {
        path_on_host: host.to_owned(),
        path_in_container: inside.to_owned(),
        cgroup_permissions: mode.to_owned(),
    })
}

/// `NAME=SOFT[:HARD]`.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let expected = || "expected NAME=SOFT[:HARD]".to_owned();
    let (name, limits) = text.split_once('=').ok_or_else(expected)?;
    if !ULIMITS.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |text: &str| match text {
        "unlimited" => Ok(-1),
        _ => text.parse::<i64>().map_err(|_| expected()),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft)?, number(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err("the soft limit is above the hard limit".to_owned());
    }
    Ok(Ulimit { name: name.to_owned(), hard, soft })
}

/// `no`, `always`, `unless-stopped`, `on-failure[:COUNT]`, `checkpoint[:COUNT]`.
pub fn restart(text: &str) -> Result<RestartPolicy, String> {
    let (name, count) = match text.split_once(':') {
        Some((name, count)) => (name, count.parse().map_err(|_| "maximum retry count must be a number")?),
        None => (text, 0),
    };
    match name {
        "no" | "always" | "unless-stopped" | "on-failure" | "checkpoint" => {
            Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count: count })
        }
        _ => Err("expected no, always, unless-stopped, on-failure[:COUNT] or checkpoint[:COUNT]".to_owned()),
    }
}

/// `/dev/sda:1mb` or `/dev/sda:100`.
pub fn throttle(text: &str) -> Result<ThrottleDevice, String> {
    let (path, rate) = text.rsplit_once(':').ok_or("expected DEVICE:RATE")?;
    if !path.starts_with("/dev/") {
        return Err("expected a device under /dev".to_owned());
    }
    Ok(ThrottleDevice { path: path.to_owned(), rate: bytes(rate)?.unsigned_abs() })
}

/// `/dev/sda:300`: a share of block I/O, 10 to 1000.
pub fn weight(text: &str) -> Result<WeightDevice, String> {
    let bad = || format!("bad format: {text}");
    let (path, weight) = text.rsplit_once(':').ok_or_else(bad)?;
    if !path.starts_with("/dev/") {
        return Err(format!("bad format for device path: {text}"));
    }
    let weight = weight.parse().ok().filter(|weight| *weight == 0 || (10..=1000).contains(weight));
    let weight = weight.ok_or_else(|| format!("invalid weight for device: {text}"))?;
    Ok(WeightDevice { path: path.to_owned(), weight })
}

/// `NAME:ADDRESS` or `NAME=ADDRESS`, as `--add-host` writes it.
pub fn extra_host(text: &str) -> Result<String, String> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = split.filter(|(name, address)| !name.is_empty() && !address.is_empty())
    else {
        return Err(format!("bad format for add-host: {text:?}"));
    };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    if address != "host-gateway" && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address in add-host: {address:?}"));
    }
    Ok(format!("{name}:{address}"))
}

/// One published port: the container's side (`80/tcp`) and where it appears on the host.
pub type Published = (String, PortBinding);

/// `[ADDRESS:][HOST[-HOST]:]CONTAINER[-CONTAINER][/PROTOCOL]`, one entry per container port.
pub fn publish(text: &str) -> Result<Vec<Published>, String> {
    let (ports, protocol) = split_protocol(text)?;
    let (rest, inside) = match ports.rsplit_once(':') {
        Some((rest, inside)) => (Some(rest), inside),
        None => (None, ports),
    };
    let (address, outside) = match rest {
        None => ("", ""),
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, outside)) => (address.trim_start_matches('[').trim_end_matches(']'), outside),
            None => ("", rest),
        },
    };
    if !address.is_empty() && address.parse::<std::net::IpAddr>().is_err() {
        return Err(format!("invalid IP address {address:?}"));
    }
    let (first, last) = range(inside)?;
    let count = last - first;
    let host = if outside.is_empty() { None } else { Some(range(outside)?) };
    if let Some((low, high)) = host
        && high - low != count
        && count != 0
    {
        return Err(format!("the ranges {outside} and {inside} differ in length"));
    }
    Ok((0..=count)
        .map(|step| {
            let host_port = match host {
                None => String::new(),
                // A range for a single port: the daemon picks one.
                Some((low, high)) if count == 0 && high != low => format!("{low}-{high}"),
                Some((low, _)) => (low + step).to_string(),
            };
            let binding = PortBinding { host_ip: address.to_owned(), host_port };
            (format!("{}/{protocol}", first + step), binding)
        })
        .collect())
}

/// `PORT[-PORT][/PROTOCOL]` as `--expose` writes it.
pub fn expose(text: &str) -> Result<Vec<String>, String> {
    let (ports, protocol) = split_protocol(text)?;
    let (first, last) = range(ports)?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn split_protocol(text: &str) -> Result<(&str, &str), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol {
        "tcp" | "udp" | "sctp" => Ok((ports, protocol)),
        _ => Err(format!("invalid protocol {protocol:?}")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let port = |text: &str| text.parse::<u16>().map_err(|_| format!("invalid port {text:?}"));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    if first == 0 || last < first {
        return Err(format!("invalid range of ports {text:?}"));
    }
    Ok((first, last))
}

/// `DESTINATION[:OPTIONS]` as `--tmpfs` writes it.
pub fn tmpfs(text: &str) -> Result<(String, String), String> {
    let (destination, options) = text.split_once(':').unwrap_or((text, ""));
    if !destination.starts_with('/') {
        return Err(format!("mount path {destination:?} must be absolute"));
    }
    Ok((destination.to_owned(), options.to_owned()))
}

/// One `--security-opt`; `seccomp=FILE` becomes the file's JSON, because the daemon may not see the file.
pub fn security_opt(text: &str) -> Result<String, String> {
    // Compat: `key:value` is the old spelling.
    let text = match text.split_once('=') {
        Some(_) => text.to_owned(),
        None => text.replacen(':', "=", 1),
    };
    match text.strip_prefix("seccomp=") {
        None | Some("unconfined" | "builtin") => Ok(text),
        Some(path) => {
            let profile = std::fs::read(path).map_err(|cause| format!("read {path:?}: {cause}"))?;
            let profile: serde_json::Value = serde_json::from_slice(&profile)
                .map_err(|cause| format!("read the seccomp profile {path:?}: {cause}"))?;
            Ok(format!("seccomp={profile}"))
        }
    }
}

/// Pairs collected into a map; the last one given for a key stays.
pub fn map(pairs: Vec<(String, String)>) -> BTreeMap<String, String> {
    pairs.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        let sizes = [
            ("0", 0),
            ("512", 512),
            ("64b", 64),
            ("1k", 1024),
            ("6M", 6 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("1 mb", 1 << 20),
        ];
        for (text, size) in sizes {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for text in ["", "zz", "1x", "-5", "1..2m", "m", "1i", "99999999999999999999g"] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!(bytes_or_unlimited("-1"), Ok(-1));
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration_ns("1m30s"), Ok(90_000_000_000));
        assert_eq!(duration_ns("1.5h"), Ok(5_400_000_000_000));
        assert_eq!(duration_ns("500ms"), Ok(500_000_000));
        for text in ["", "5", "s", "5x", "1m30"] {
            assert!(duration_ns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_are_published_one_by_one() {
        let pairs = |text| -> Vec<(String, String, String)> {
            publish(text).unwrap().into_iter().map(|(port, to)| (port, to.host_ip, to.host_port)).collect()
        };
        let one = |port: &str, ip: &str, host: &str| (port.to_owned(), ip.to_owned(), host.to_owned());
        assert_eq!(pairs("80"), [one("80/tcp", "", "")]);
        assert_eq!(pairs("8080:80"), [one("80/tcp", "", "8080")]);
        assert_eq!(pairs("127.0.0.1:53:53/udp"), [one("53/udp", "127.0.0.1", "53")]);
        assert_eq!(pairs("127.0.0.1::80"), [one("80/tcp", "127.0.0.1", "")]);
        assert_eq!(pairs("[::1]:80:80"), [one("80/tcp", "::1", "80")]);
        assert_eq!(pairs("8000-8001:80-81"), [one("80/tcp", "", "8000"), one("81/tcp", "", "8001")]);
        assert_eq!(pairs("8000-8010:80"), [one("80/tcp", "", "8000-8010")]);
        for text in ["", "x", "80:x", "1-2:3-5", "80/icmp", "0", "9.9.9:80:80", "70000", "5-3"] {
            assert!(publish(text).is_err(), "{text}");
        }
        assert_eq!(expose("80-81/udp").unwrap(), ["80/udp", "81/udp"]);
    }

    #[test]
    fn devices_limits_and_policies_say_what_they_expect() {
        assert_eq!(device("/dev/fuse:rw").unwrap().cgroup_permissions, "rw");
        assert_eq!(device("/dev/a:/dev/b:r").unwrap().path_in_container, "/dev/b");
        assert!(device("fuse").is_err() && device("/dev/a:/dev/b:x").is_err());
        assert_eq!(ulimit("nofile=10:20"), Ok(Ulimit { name: "nofile".into(), hard: 20, soft: 10 }));
        assert_eq!(ulimit("core=-1").unwrap().hard, -1);
        assert!(ulimit("nofile=20:10").is_err() && ulimit("odd=1").is_err() && ulimit("nofile").is_err());
        assert_eq!(restart("checkpoint:2").unwrap().maximum_retry_count, 2);
        assert_eq!(restart("on-failure:3").unwrap().maximum_retry_count, 3);
        assert!(restart("maybe").is_err() && restart("on-failure:x").is_err());
        assert_eq!(extra_host("db:10.0.0.1"), Ok("db:10.0.0.1".into()));
        assert_eq!(extra_host("db=[::1]"), Ok("db:::1".into()));
        assert_eq!(nano_cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(weight("/dev/sda:300").unwrap().weight, 300);
        assert!(weight("/dev/sda:5").is_err() && weight("sda:300").is_err() && weight("/dev/sda").is_err());
        assert!(nano_cpus("-1").is_err() && nano_cpus("nan").is_err());
    }

    #[test]
    fn a_seccomp_file_travels_as_its_content() {
        let path = std::env::temp_dir().join(format!("dewar-seccomp-{}", std::process::id()));
        std::fs::write(&path, "{ \"defaultAction\" : \"SCMP_ACT_ALLOW\" }").unwrap();
        let sent = security_opt(&format!("seccomp={}", path.display()));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sent.unwrap(), r#"seccomp={"defaultAction":"SCMP_ACT_ALLOW"}"#);
        assert_eq!(security_opt("no-new-privileges").unwrap(), "no-new-privileges");
        assert_eq!(security_opt("seccomp:unconfined").unwrap(), "seccomp=unconfined");
        assert!(security_opt("seccomp=/does/not/exist").is_err());
    }
}
