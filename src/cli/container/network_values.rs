//! How `--network` and the flags beside it are written: the networks a container is to be in, and its places there.
//!
//! Source: the docker client, for the two ways to write a network, the checks and the words. It takes all of the long
//! form for lower case; here only the keys are.

use std::collections::BTreeMap;

use crate::http::api::container::{EndpointIpam, EndpointSettings};

use super::mount_values::fields;

/// A network to join.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attachment {
    pub target: String,
    pub aliases: Vec<String>,
    pub links: Vec<String>,
    pub driver_opts: Option<BTreeMap<String, String>>,
    pub ip: String,
    pub ip6: String,
    pub link_local: Vec<String>,
    pub mac: String,
    pub gw_priority: i64,
}

/// `NETWORK`, or `name=NETWORK,alias=…`: what has a letter on either side of a `=` is the long form.
pub fn network(text: &str) -> Result<Attachment, String> {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let is_long = text.as_bytes().windows(3).any(|at| is_word(at[0]) && at[1] == b'=' && is_word(at[2]));
    if !is_long {
        return Ok(Attachment { target: text.to_owned(), ..Attachment::default() });
    }
    let mut attachment = Attachment::default();
    for field in fields(text)? {
        let (key, value) = field.split_once('=').unwrap_or_default();
        let (key, value) = (key.to_ascii_lowercase(), value.trim().to_owned());
        match key.trim() {
            _ if key.is_empty() => return Err(format!("invalid field {field}")),
            "name" => attachment.target = value,
            "alias" => attachment.aliases.push(value),
            "ip" => attachment.ip = value,
            "ip6" => attachment.ip6 = value,
            "link-local-ip" => attachment.link_local.push(value),
            "mac-address" => attachment.mac = value,
            "gw-priority" => {
                attachment.gw_priority = value
                    .parse()
                    .map_err(|cause| format!("invalid gw-priority ({value}): {}", go(&cause)))?;
            }
            "driver-opt" => {
                let (key, value) =
                    driver_opt(&value).ok_or("invalid key value pair format in driver options")?;
                attachment.driver_opts.get_or_insert_default().insert(key, value);
            }
            other => return Err(format!("invalid field key {other}")),
        }
    }
    match attachment.target.is_empty() {
        true => Err("network name/id is not specified".to_owned()),
        false => Ok(attachment),
    }
}

fn go(cause: &std::num::ParseIntError) -> &'static str {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match cause.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// One `key=value` of a driver's options.
pub fn driver_opt(text: &str) -> Option<(String, String)> {
    let (key, value) = text.split_once('=')?;
    let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
    (!key.is_empty()).then_some((key, value))
}

/// `CONTAINER[:ALIAS]`
pub fn link(text: &str) -> Result<String, String> {
    match text.split(':').count() {
        _ if text.is_empty() => Err("empty string specified for links".to_owned()),
        1 | 2 => Ok(text.to_owned()),
        _ => Err(format!("bad format for links: {text}")),
    }
}

/// Whether a network mode is a network of somebody's own.
pub fn is_own(mode: &str) -> bool {
    !matches!(mode, "default" | "bridge" | "host" | "none") && mode.split(':').next() != Some("container")
}

impl Attachment {
    /// Adds what the flags beside `--network` say to what it says itself; said twice is refused.
    pub fn add(&mut self, flags: Attachment) -> Result<(), String> {
        let twice = [
            (!self.aliases.is_empty() && !flags.aliases.is_empty(), "--network-alias and per-network alias"),
            (!self.ip.is_empty() && !flags.ip.is_empty(), "--ip and per-network IPv4 address"),
            (!self.ip6.is_empty() && !flags.ip6.is_empty(), "--ip6 and per-network IPv6 address"),
            (!self.mac.is_empty() && !flags.mac.is_empty(), "--mac-address and per-network MAC address"),
            (
                !self.link_local.is_empty() && !flags.link_local.is_empty(),
                "--link-local-ip and per-network link-local IP addresses",
            ),
        ];
        if let Some((_, both)) = twice.iter().find(|(is_twice, _)| *is_twice) {
            return Err(format!("conflicting options: cannot specify both {both}"));
        }
        self.aliases.extend(flags.aliases);
        self.link_local.extend(flags.link_local);
        for (own, given) in [(&mut self.ip, flags.ip), (&mut self.ip6, flags.ip6), (&mut self.mac, flags.mac)]
        {
            if !given.is_empty() {
                *own = given;
            }
        }
        // To the default bridge a link is the container's, not its place's.
        if is_own(&self.target) {
            self.links.extend(flags.links);
        }
        Ok(())
    }

    /// The place in the network that this asks for.
    pub fn settings(&self) -> Result<EndpointSettings, String> {
        if self.target.trim().is_empty() {
            return Err("no name set for network".to_owned());
        }
        if !self.aliases.is_empty() && !is_own(&self.target) {
            return Err("network-scoped aliases are only supported for user-defined networks".to_owned());
        }
        if !self.mac.is_empty() && !is_mac(&self.mac) {
            return Err(format!("{} is not a valid mac address", self.mac));
        }
        let list = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let ipam = EndpointIpam {
            ipv4_address: self.ip.clone(),
            ipv6_address: self.ip6.clone(),
            link_local_ips: self.link_local.clone(),
        };
        Ok(EndpointSettings {
            ipam_config: (ipam != EndpointIpam::default()).then_some(ipam),
            links: list(&self.links),
            aliases: list(&self.aliases),
            mac_address: self.mac.clone(),
            driver_opts: self.driver_opts.clone(),
            gw_priority: self.gw_priority,
            ..EndpointSettings::default()
        })
    }
}

/// The places in all of them, by network. A single network about which nothing is said has none: the daemon makes it.
pub fn endpoints(attachments: &[Attachment]) -> Result<BTreeMap<String, EndpointSettings>, String> {
    let mut endpoints = BTreeMap::new();
    for one in attachments {
        let settings = one.settings()?;
        if endpoints.contains_key(&one.target) {
            return Err(format!("network {:?} is specified multiple times", one.target));
        }
        endpoints.insert(one.target.clone(), settings);
    }
    let own = attachments.iter().filter(|one| is_own(&one.target)).count();
    if own > 0 && own < attachments.len() {
        let both = "cannot attach both user-defined and non-user-defined network-modes";
        return Err(format!("conflicting options: {both}"));
    }
    Ok(endpoints)
}

/// Source: Go's ParseMAC, which also knows the longer ones.
fn is_mac(text: &str) -> bool {
    let (separator, digits) = match text.find([':', '-', '.']) {
        Some(2) => (&text[2..3], 2),
        Some(4) => (&text[4..5], 4),
        _ => return false,
    };
    if (digits == 4) != (separator == ".") {
        return false;
    }
    let parts: Vec<&str> = text.split(separator).collect();
    let is_part = |part: &&str| part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    parts.iter().all(is_part) && matches!(parts.len() * digits / 2, 6 | 8 | 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_written_in_two_ways() {
        let short = |text: &str| {
            network(text).unwrap() == Attachment { target: text.into(), ..Attachment::default() }
        };
        for text in ["front", "a:b", "name=", "name = a", "container:web", ""] {
            assert!(short(text), "{text:?}");
        }
        let long = network(
            "name=Front,ALIAS=x, alias=y ,ip=10.0.0.5,ip6=fd00::5,mac-address=02:42:ac:11:00:02,link-local-ip=169.254.1.1,\
             \"driver-opt=K=net.ipv4.conf.IFNAME.x=1,b\",gw-priority=-3",
        )
        .unwrap();
        assert_eq!((long.target.as_str(), long.gw_priority), ("Front", -3));
        let settings = serde_json::to_value(long.settings().unwrap()).unwrap();
        let ipam = serde_json::json!({"IPv4Address": "10.0.0.5", "IPv6Address": "fd00::5", "LinkLocalIPs": ["169.254.1.1"]});
        assert_eq!((&settings["IPAMConfig"], &settings["Aliases"]), (&ipam, &serde_json::json!(["x", "y"])));
        assert_eq!(settings["DriverOpts"], serde_json::json!({"k": "net.ipv4.conf.IFNAME.x=1,b"}));
        assert_eq!(network("name=a,name=b").unwrap().target, "b");
        for (text, words) in [
            ("a,alias=x", "invalid field a"),
            ("alias=x", "network name/id is not specified"),
            ("name=a,foo=b", "invalid field key foo"),
            ("name=a,driver-opt=b", "invalid key value pair format in driver options"),
            ("name=a,gw-priority=x", "invalid gw-priority (x): invalid syntax"),
            (
                "name=a,gw-priority=99999999999999999999",
                "invalid gw-priority (99999999999999999999): value out of range",
            ),
        ] {
            assert_eq!(network(text).unwrap_err(), words);
        }
    }

    #[test]
    fn hardware_addresses_are_gos() {
        for good in ["02:42:ac:11:00:02", "02-42-AC-11-00-02", "0242.ac11.0002", "02:42:ac:11:00:02:01:02"] {
            assert!(is_mac(good), "{good}");
        }
        for bad in [
            "",
            "x",
            "02:42:ac:11:00",
            "02:42:ac:11:00:0",
            "02:42-ac:11:00:02",
            "0242:ac11:0002",
            "02.42.ac.11.00.02",
            "é2:42:ac:11:00:02",
        ] {
            assert!(!is_mac(bad), "{bad}");
        }
    }
}
