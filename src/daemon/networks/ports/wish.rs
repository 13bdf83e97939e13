//! What containers ask for of the host's ports.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::daemon::error::{Error, Result};
use crate::http::api::container::{HostConfig, PortBinding, Set};

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// As in `80/tcp`.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// IANA's number of it.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    /// By its name, in letters of any size.
    pub fn named(name: &str) -> Option<Protocol> {
        [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|known| known.name().eq_ignore_ascii_case(name))
    }
}

/// A port of a container that is to be reached through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    pub protocol: Protocol,
    /// The container's.
    pub port: u16,
    /// The host's address; `None` is the network's default.
    pub host: Option<IpAddr>,
    /// The host's ports that will do; both 0 for any ephemeral one.
    pub first: u16,
    pub last: u16,
}

pub(super) fn wishes(host: &HostConfig, exposed: &Set) -> Result<Vec<Wish>> {
    let mut wishes = Vec::new();
    for (key, bindings) in &host.port_bindings {
        let (protocol, ports) = port_spec(key)?;
        // Compat: API versions before 1.52 take an empty list for one empty binding.
        let nothing = [PortBinding::default()];
        let bindings = bindings.as_deref().filter(|list| !list.is_empty()).unwrap_or(&nothing);
        for binding in bindings {
            let (first, last) = host_range(&binding.host_port)?;
            // A range onto one as long goes pair by pair, as clients expand it.
            let is_pairwise = last > first && last - first == ports.1 - ports.0;
            let host = match binding.host_ip.as_str() {
                "" => None,
                text => Some(
                    text.trim_matches(['[', ']'])
                        .parse()
                        .map_err(|_| Error::invalid(format!("invalid IP address: {}", binding.host_ip)))?,
                ),
            };
            for port in ports.0..=ports.1 {
                let at = first + if is_pairwise { port - ports.0 } else { 0 };
                let (first, last) = if is_pairwise { (at, at) } else { (first, last) };
                wishes.push(Wish { protocol, port, host, first, last });
            }
        }
    }
    if host.publish_all_ports {
        for key in exposed.keys() {
            let (protocol, ports) = port_spec(key)?;
            for port in ports.0..=ports.1 {
                if !wishes.iter().any(|wish| (wish.protocol, wish.port) == (protocol, port)) {
                    wishes.push(Wish { protocol, port, host: None, first: 0, last: 0 });
                }
            }
        }
    }
    wishes.sort_by_key(|wish| (wish.port, wish.protocol));
    Ok(wishes)
}

/// Wishes that are to get the same host port, whatever their addresses. What must be one certain port comes first,
/// so that no range takes it.
pub(super) fn groups(wishes: &[Wish]) -> Vec<Vec<&Wish>> {
    let mut groups: Vec<Vec<&Wish>> = Vec::new();
    for wish in wishes {
        let key = |wish: &Wish| (wish.protocol, wish.port, wish.first, wish.last);
        let is_certain = wish.first == wish.last && wish.first != 0;
        let same = |other: &Wish| !is_certain && key(wish) == key(other) && wish.host != other.host;
        match groups.iter_mut().find(|group| group.iter().all(|other| same(other))) {
            Some(group) => group.push(wish),
            None => groups.push(vec![wish]),
        }
    }
    groups.sort_by_key(|group| match (group[0].first, group[0].last) {
        (0, _) => 2,
        (first, last) if first < last => 1,
        _ => 0,
    });
    groups
}

/// `80`, `80/tcp`, `8000-8010/udp`.
fn port_spec(text: &str) -> Result<(Protocol, (u16, u16))> {
    let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let invalid = || Error::invalid(format!("invalid port specification: \"{text}\""));
    let protocol = Protocol::named(protocol).ok_or_else(invalid)?;
    match host_range(range) {
        Ok((first, last)) if !range.is_empty() => Ok((protocol, (first, last))),
        _ => Err(invalid()),
    }
}

/// `8080`, `8000-8010`; nothing and `0` are any.
pub(super) fn host_range(text: &str) -> Result<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    // `parse` would take a sign.
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    match (number(first), number(last)) {
        _ if text.is_empty() => Ok((0, 0)),
        (Some(first), Some(last)) if first <= last && (first != 0 || last == 0) => Ok((first, last)),
        _ => Err(Error::invalid(format!("invalid port specification: \"{text}\""))),
    }
}
