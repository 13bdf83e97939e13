//! How the options of the default bridge and of networks are read and made to fit each other.
//!
//! Words are dockerd's where it checks the same; errors say what was expected, whoever calls adds the key.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::options::Checked;
use super::{Config, NetworkDefaults};
use crate::daemon::error::{Error, Result};
use crate::daemon::networks::subnet::Subnet;

/// Smaller than IPv4 allows; a bigger one is the kernel's to refuse.
const SMALLEST_MTU: i64 = 68;

fn address(text: &str) -> std::result::Result<IpAddr, String> {
    text.trim().parse().map_err(|_| format!("{text} is not an ip address"))
}

/// A range of one family; `None` for an empty text.
fn range(text: &str, is_ipv6: bool) -> std::result::Result<Option<Subnet>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let subnet: Subnet = text.parse()?;
    match subnet.is_ipv6() == is_ipv6 {
        true => Ok(Some(subnet)),
        false => Err(format!("expected an IPv{} range", if is_ipv6 { 6 } else { 4 })),
    }
}

/// An address a bridge can have, with its subnet's prefix.
fn interface(text: &str, is_ipv6: bool) -> std::result::Result<Option<Subnet>, String> {
    let Some(subnet) = range(text, is_ipv6)? else { return Ok(None) };
    let address = subnet.address;
    if address == subnet.first() || (!is_ipv6 && address == subnet.last()) {
        return Err(format!("{address} names the network {}, not an interface in it", subnet.network()));
    }
    Ok(Some(subnet))
}

pub fn bip(config: &mut Config, text: &str) -> Checked {
    config.network.bip = interface(text, false)?;
    Ok(())
}

pub fn bip6(config: &mut Config, text: &str) -> Checked {
    config.network.bip6 = interface(text, true)?;
    Ok(())
}

pub fn fixed_cidr(config: &mut Config, text: &str) -> Checked {
    config.network.fixed_cidr = range(text, false)?.map(|range| range.network());
    Ok(())
}

pub fn fixed_cidr_v6(config: &mut Config, text: &str) -> Checked {
    config.network.fixed_cidr_v6 = range(text, true)?.map(|range| range.network());
    Ok(())
}

pub fn bridge(config: &mut Config, text: &str) -> Checked {
    // Source: dev_valid_name() of net/core/dev.c; IFNAMSIZ counts the end.
    let is_bad = |byte: u8| byte == b'/' || byte == b':' || byte.is_ascii_whitespace();
    if text.len() > 15 || text == "." || text == ".." || text.bytes().any(is_bad) {
        return Err("expected an interface's name".to_owned());
    }
    config.network.bridge = text.to_owned();
    Ok(())
}

pub fn gateway(config: &mut Config, text: &str) -> Checked {
    config.network.default_gateway = match text {
        "" => None,
        text => match address(text)? {
            IpAddr::V4(v4) => Some(v4),
            IpAddr::V6(_) => return Err(format!("{text} is not an IPv4 address")),
        },
    };
    Ok(())
}

pub fn gateway_v6(config: &mut Config, text: &str) -> Checked {
    config.network.default_gateway_v6 = match text {
        "" => None,
        text => match address(text)? {
            IpAddr::V6(v6) => Some(v6),
            IpAddr::V4(_) => return Err(format!("{text} is not an IPv6 address")),
        },
    };
    Ok(())
}

pub fn published_ip(config: &mut Config, text: &str) -> Checked {
    config.network.ip = address(text)?;
    Ok(())
}

pub fn mtu(config: &mut Config, bytes: i64) -> Checked {
    config.network.mtu = match bytes {
        // Compat: zero asks dockerd for its default.
        0 => NetworkDefaults::default().mtu,
        SMALLEST_MTU.. => u32::try_from(bytes).map_err(|_| format!("invalid default MTU: {bytes}"))?,
        _ => return Err(format!("invalid default MTU: {bytes}")),
    };
    Ok(())
}

/// Compat: what there was before dockerd 28 had two of them; the list counts where both are given.
pub fn host_gateway(config: &mut Config, text: &str) -> Checked {
    let one = (!text.is_empty()).then(|| text.to_owned());
    host_gateways(config, one.into_iter().collect())
}

pub fn host_gateways(config: &mut Config, list: Vec<String>) -> Checked {
    let addresses = list.iter().map(|text| address(text)).collect::<std::result::Result<Vec<_>, _>>()?;
    for (is_ipv6, name) in [(false, "IPv4"), (true, "IPv6")] {
        if addresses.iter().filter(|address| address.is_ipv6() == is_ipv6).count() > 1 {
            return Err(format!("only one {name} host gateway IP address can be specified"));
        }
    }
    config.network.host_gateway_ips = addresses;
    Ok(())
}

/// `[{"base": "10.0.0.0/8", "size": 24}]`
pub fn address_pools(config: &mut Config, list: &[Value]) -> Checked {
    let mut pools = Vec::new();
    for pool in list {
        let fields = pool.as_object().ok_or("expected a list of objects with base and size")?;
        let (mut base, mut size) = (None, None);
        for (key, value) in fields {
            match key.to_ascii_lowercase().as_str() {
                "base" => {
                    let text = value.as_str().ok_or_else(|| format!("invalid base prefix {value}"))?;
                    let subnet = text.parse::<Subnet>();
                    base = Some(subnet.map_err(|cause| format!("invalid base prefix \"{text}\": {cause}"))?);
                }
                "size" => {
                    let bits = value.as_u64().and_then(|bits| u8::try_from(bits).ok());
                    size =
                        Some(bits.ok_or_else(|| format!("invalid size value: {value} (must be integer)"))?);
                }
                _ => return Err(format!("unexpected key '{key}' in '{pool}'")),
            }
        }
        let (Some(base), Some(size)) = (base, size) else {
            return Err(format!("expected base and size in '{pool}'"));
        };
        if size < base.prefix || size > base.width() {
            return Err(format!("no subnet of {base} has a prefix of {size} bits"));
        }
        pools.push((base.network(), size));
    }
    for (index, (pool, _)) in pools.iter().enumerate() {
        if let Some((other, _)) = pools[..index].iter().find(|(other, _)| other.overlaps(pool)) {
            return Err(format!("{other} and {pool} overlap"));
        }
    }
    config.network.address_pools = pools;
    Ok(())
}

/// `{"bridge": {"com.docker.network.driver.mtu": "1400"}}`
pub fn default_options(config: &mut Config, drivers: &Map<String, Value>) -> Checked {
    let mut all = std::collections::BTreeMap::new();
    for (driver, options) in drivers {
        let options = options.as_object().ok_or_else(|| format!("{driver}: expected an object"))?;
        let read = |(key, value): (&String, &Value)| match value {
            Value::String(text) => Ok((key.clone(), text.clone())),
            _ => Err(format!("{driver}: {key}: expected a string")),
        };
        all.insert(driver.clone(), options.iter().map(read).collect::<std::result::Result<_, String>>()?);
    }
    config.network.default_opts = all;
    Ok(())
}

/// Refuses what cannot be had together, and takes back what follows from something else.
///
/// # Errors
/// InvalidParameter in dockerd's words, which scripts know.
pub fn settle(network: &mut NetworkDefaults) -> Result<()> {
    let refuse = |text: String| Err(Error::invalid(text));
    let both = |name: &str| {
        refuse(format!("You specified -b & --{name}, mutually exclusive options. Please specify only one"))
    };
    if !network.bridge.is_empty() {
        match (network.bip, network.bip6) {
            (Some(_), _) => return both("bip"),
            (_, Some(_)) => return both("bip6"),
            _ => {}
        }
    }
    let without = |table: &str| {
        refuse(format!(
            "You specified --{table}=false with --icc=false. ICC=false uses {table} to function. Please set --icc or \
             --{table} to true"
        ))
    };
    if !network.icc && !network.iptables {
        return without("iptables");
    }
    if !network.icc && network.ipv6 && !network.ip6tables {
        return without("ip6tables");
    }
    let pairs = [
        ("bip", "fixed-cidr", network.bip, network.fixed_cidr.map(|range| (range.first(), range.last()))),
        (
            "bip6",
            "fixed-cidr-v6",
            network.bip6,
            network.fixed_cidr_v6.map(|range| (range.first(), range.last())),
        ),
        ("bip", "default-gateway", network.bip, network.default_gateway.map(|v4| (v4.into(), v4.into()))),
        (
            "bip6",
            "default-gateway-v6",
            network.bip6,
            network.default_gateway_v6.map(|v6| (v6.into(), v6.into())),
        ),
    ];
    for (outer, inner, subnet, ends) in pairs {
        if let (Some(subnet), Some((first, last))) = (subnet, ends)
            && !(subnet.contains(first) && subnet.contains(last))
            // A router may be found by its link-local address.
            && !matches!(first, IpAddr::V6(v6) if v6.is_unicast_link_local())
        {
            return refuse(format!("--{inner} is outside --{outer}'s network {}", subnet.network()));
        }
    }
    // Source: dockerd's verifyDaemonSettings: masquerading is a rule too.
    network.ip_masq &= network.iptables;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::Values;
    use crate::daemon::config::options::by_key;

    fn made(json: &str) -> Result<NetworkDefaults> {
        let file: Map<String, Value> = serde_json::from_str(json).unwrap();
        let values: Values =
            file.into_iter().map(|(key, value)| (by_key(&key).unwrap().key, value)).collect();
        Config::new(values).map(|config| config.network)
    }

    #[test]
    fn every_key_reaches_the_network() {
        let network = made(
            r#"{"bip": "10.9.0.1/16", "bip6": "fd00:9::1/64", "fixed-cidr": "10.9.1.0/24", "fixed-cidr-v6":
                "fd00:9::/80", "default-gateway": "10.9.0.254", "default-gateway-v6": "fe80::9", "ipv6": true,
                "default-address-pools": [{"base": "10.16.0.0/12", "size": 24}, {"Base": "fd00:a::/48", "Size": 64}],
                "default-network-opts": {"bridge": {"a": "b"}}, "host-gateway-ips": ["10.9.0.1", "fd00:9::1"],
                "host-gateway-ip": "1.2.3.4", "icc": false, "ip": "127.0.0.1", "ip-forward": false, "mtu": 1400,
                "ip-masq": false, "allow-direct-routing": true, "userland-proxy": false}"#,
        )
        .unwrap();
        assert_eq!(network.bip.unwrap().to_string(), "10.9.0.1/16");
        assert_eq!(network.bip6.unwrap().to_string(), "fd00:9::1/64");
        assert_eq!(network.fixed_cidr.unwrap().to_string(), "10.9.1.0/24");
        assert_eq!(network.fixed_cidr_v6.unwrap().to_string(), "fd00:9::/80");
        assert_eq!(network.default_gateway.unwrap().to_string(), "10.9.0.254");
        assert_eq!(network.default_gateway_v6.unwrap().to_string(), "fe80::9");
        let pools: Vec<String> =
            network.address_pools.iter().map(|(base, size)| format!("{base} {size}")).collect();
        assert_eq!(pools, ["10.16.0.0/12 24", "fd00:a::/48 64"]);
        assert_eq!(network.default_opts["bridge"]["a"], "b");
        assert_eq!(network.host_gateway_ips.len(), 2);
        assert_eq!(network.ip.to_string(), "127.0.0.1");
        assert!(network.ipv6 && network.allow_direct_routing && network.mtu == 1400);
        assert!(!network.icc && !network.ip_forward && !network.ip_masq && !network.userland_proxy);
        let network = made(r#"{"iptables": false, "host-gateway-ip": "1.2.3.4", "mtu": 0}"#).unwrap();
        assert!(!network.iptables && network.ip6tables && !network.ip_masq && network.mtu == 1500);
        assert_eq!(network.host_gateway_ips.len(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused_with_dockers_words() {
        for (json, part) in [
            (r#"{"bip": "10.0.0.1"}"#, "invalid CIDR address: 10.0.0.1"),
            (r#"{"bip": "10.0.0.0/8"}"#, "names the network 10.0.0.0/8"),
            (r#"{"bip": "10.255.255.255/8"}"#, "names the network"),
            (r#"{"bip": "fd00::1/64"}"#, "expected an IPv4 range"),
            (r#"{"bip6": "10.0.0.1/8"}"#, "expected an IPv6 range"),
            (r#"{"bridge": "a name"}"#, "an interface's name"),
            (r#"{"bridge": "br0", "bip": "10.0.0.1/8"}"#, "You specified -b & --bip, mutually exclusive"),
            (r#"{"bridge": "none", "bip6": "fd00::1/8"}"#, "You specified -b & --bip6, mutually"),
            (r#"{"icc": false, "iptables": false}"#, "You specified --iptables=false with --icc=false."),
            (r#"{"icc": false, "ipv6": true, "ip6tables": false}"#, "ICC=false uses ip6tables"),
            (r#"{"mtu": -1}"#, "invalid default MTU: -1"),
            (r#"{"mtu": 67}"#, "invalid default MTU: 67"),
            (r#"{"ip": "host"}"#, "host is not an ip address"),
            (r#"{"default-gateway": "fd00::1"}"#, "not an IPv4 address"),
            (r#"{"default-gateway-v6": "1.2.3.4"}"#, "not an IPv6 address"),
            (r#"{"host-gateway-ips": ["1.2.3.4", "1.2.3.5"]}"#, "only one IPv4 host gateway IP address"),
            (r#"{"default-address-pools": [{"base": "10.0.0.0", "size": 24}]}"#, "invalid base prefix"),
            (
                r#"{"default-address-pools": [{"base": "10.0.0.0/25", "size": 24}]}"#,
                "no subnet of 10.0.0.0/25",
            ),
            (r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": 33}]}"#, "no subnet of"),
            (r#"{"default-address-pools": [{"base": "10.0.0.0/8"}]}"#, "expected base and size"),
            (
                r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": "x"}]}"#,
                "invalid size value: \"x\"",
            ),
            (r#"{"default-address-pools": [{"bse": "10.0.0.0/8"}]}"#, "unexpected key 'bse'"),
            (
                r#"{"default-address-pools": [{"base": "10.0.0.0/8", "size": 9}, {"base": "10.1.0.0/16", "size": 24}]}"#,
                "overlap",
            ),
            (r#"{"default-network-opts": {"bridge": {"a": 1}}}"#, "bridge: a: expected a string"),
            (r#"{"bip": "10.0.0.1/24", "fixed-cidr": "10.0.1.0/24"}"#, "outside --bip's network 10.0.0.0/24"),
            (r#"{"bip": "10.0.0.1/24", "default-gateway": "10.0.1.1"}"#, "--default-gateway is outside"),
        ] {
            let message = made(json).unwrap_err().message;
            assert!(message.contains(part), "{json}: {message}");
        }
    }

    #[test]
    fn flags_of_several_parts_are_read() {
        let read = |key: &str, given: &[&str]| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            by_key(key).unwrap().read(&given)
        };
        let pools = read("default-address-pools", &["base=10.0.0.0/8,size=24", "base=fd00::/48,size=64"]);
        assert_eq!(
            pools.unwrap().to_string(),
            r#"[{"base":"10.0.0.0/8","size":24},{"base":"fd00::/48","size":64}]"#
        );
        let options = read("default-network-opts", &["bridge=a=1", "bridge=b=c=d", "macvlan=e="]);
        assert_eq!(options.unwrap().to_string(), r#"{"bridge":{"a":"1","b":"c=d"},"macvlan":{"e":""}}"#);
        assert!(read("default-address-pools", &["10.0.0.0/8"]).unwrap_err().message.contains("key=value"));
        assert!(read("default-network-opts", &["bridge=a"]).unwrap_err().message.contains("name=key=value"));
    }
}
