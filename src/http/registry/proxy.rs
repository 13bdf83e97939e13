//! Which proxy leads to a host, as Go decides it: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`.
//!
//! A proxy is `http://[user:password@]host[:port]` and is asked to CONNECT, for both schemes. Loopback is reached
//! without one, whatever the settings say.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The settings, as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    pub http: String,
    pub https: String,
    /// Hosts, domains, addresses and networks reached directly, parted by commas; `*` is all.
    pub none: String,
}

/// A proxy to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl Proxies {
    /// The proxy for `scheme://host:port`, if there is one.
    pub(super) fn to(&self, scheme: &str, host: &str, port: u16) -> Result<Option<Proxy>, String> {
        let setting = if scheme == "https" { &self.https } else { &self.http };
        if setting.is_empty() || is_loopback(host) || self.skips(host, port) {
            return Ok(None);
        }
        Proxy::parse(setting).map(Some)
    }

    fn skips(&self, host: &str, port: u16) -> bool {
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        self.none.split(',').map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
            if entry == "*" {
                return true;
            }
            let (entry, wanted) = match entry.rsplit_once(':') {
                Some((name, digits)) if !name.contains(':') || name.ends_with(']') => {
                    match digits.parse::<u16>() {
                        Ok(digits) => (name.to_owned(), Some(digits)),
                        Err(_) => (entry.clone(), None),
                    }
                }
                _ => (entry, None),
            };
            if entry.is_empty() || wanted.is_some_and(|wanted| wanted != port) {
                return false;
            }
            let entry = entry.trim_matches(['[', ']']);
            if let Some(address) = address {
                return entry.parse() == Ok(address) || in_network(entry, address);
            }
            // "example.com" means the name and what is below; ".example.com" and "*.example.com" only the latter.
            let entry = entry.strip_prefix('*').unwrap_or(entry);
            match entry.strip_prefix('.') {
                Some(_) => host.ends_with(entry),
                None => host == *entry || host.ends_with(&format!(".{entry}")),
            }
        })
    }
}

impl Proxy {
    fn parse(setting: &str) -> Result<Proxy, String> {
        let invalid = |why: &str| {
            // Never the setting itself: it may hold a password.
            format!("use the proxy in the daemon's settings: {why}")
        };
        let (scheme, rest) = setting.split_once("://").unwrap_or(("http", setting));
        if scheme != "http" {
            return Err(invalid(&format!("scheme {scheme:?}: only http is supported")));
        }
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place, 80).ok_or_else(|| invalid("it has no usable host and port"))?;
        let authorization = user.map(|user| format!("Basic {}", STANDARD.encode(percent_decode(user))));
        Ok(Proxy { host, port, authorization })
    }
}

/// Host (without brackets) and port of `host[:port]`.
pub(super) fn split_port(place: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => default,
    };
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

/// Whether a host (without port, brackets or not) is this machine by its name or address alone.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `address` is in `network` (`address/bits`).
pub fn in_network(network: &str, address: IpAddr) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else { return false };
    let mask = |bits: u32, width: u32| if bits == 0 { 0 } else { u128::MAX << (width - bits.min(width)) };
    match (base, address) {
        (IpAddr::V4(base), IpAddr::V4(address)) if bits <= 32 => {
            (u128::from(u32::from(base)) ^ u128::from(u32::from(address))) & mask(bits, 32) == 0
        }
        (IpAddr::V6(base), IpAddr::V6(address)) if bits <= 128 => {
            (u128::from(base) ^ u128::from(address)) & mask(bits, 128) == 0
        }
        _ => false,
    }
}

fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_go_through_the_proxy_unless_excepted() {
        let proxies = Proxies {
            http: "http://plain.example:3128".into(),
            https: "http://me:p%40ss@tls.example".into(),
            none: "direct.example, *.wild.example,.below.example,10.0.0.0/8,[fd00::1],port.example:5000"
                .into(),
        };
        let through = |scheme: &str, host: &str, port| proxies.to(scheme, host, port).unwrap();
        let proxy = through("https", "hub.example", 443).unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("tls.example", 80));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(through("http", "hub.example", 80).unwrap().port, 3128);
        for host in [
            "direct.example",
            "a.direct.example",
            "A.WILD.example",
            "x.below.example",
            "10.1.2.3",
            "fd00::1",
            "[fd00::1]",
            "localhost",
            "127.0.0.9",
            "::1",
        ] {
            assert_eq!(through("https", host, 443), None, "{host}");
        }
        for host in ["notdirect.example", "wild.example", "below.example", "11.0.0.1", "fd00::2"] {
            assert!(through("https", host, 443).is_some(), "{host}");
        }
        assert_eq!(through("https", "port.example", 5000), None);
        assert!(through("https", "port.example", 443).is_some());
        let all = Proxies { none: "*".into(), ..proxies.clone() };
        assert_eq!(all.to("https", "hub.example", 443), Ok(None));
    }

    #[test]
    fn a_proxy_that_cannot_be_used_is_refused_without_its_password() {
        for bad in ["socks5://u:secret@p:1", "http://u:secret@", "http://u:secret@p:99999"] {
            let failure = Proxy::parse(bad).unwrap_err();
            assert!(!failure.contains("secret"), "{failure}");
        }
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address, wanted) in [
            ("127.0.0.0/8", "127.1.2.3", true),
            ("127.0.0.0/8", "128.0.0.1", false),
            ("0.0.0.0/0", "9.9.9.9", true),
            ("::/0", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe80::1", false),
            ("10.0.0.0/33", "10.0.0.1", false),
            ("nonsense", "10.0.0.1", false),
        ] {
            assert_eq!(in_network(network, address.parse().unwrap()), wanted, "{network} {address}");
        }
    }
}
