//! A container's places over a freeze and a thaw: held still meanwhile, kept with the checkpoint, asked for again.
//!
//! TCP connections go on when the container has its addresses again and nothing reached it in between: what a kernel
//! that does not know the connection would answer ends it. So the host's ends of its interfaces are down from before
//! the freeze until the processes run, or the dump has failed; to peers it is a pause. Where an address is
//! another's by now the container has new ones, and its connections come back closed.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::given;
use crate::daemon::containers::container::Record;
use crate::daemon::engine::Engine;
use crate::daemon::networks::network::{Given, Wanted};
use crate::daemon::networks::ports::{Claim, Wish};
use crate::runtime::netns;

/// Lets sockets be bound to addresses that are not there.
const NONLOCAL_BIND: [&str; 2] = ["net/ipv4/ip_nonlocal_bind", "net/ipv6/ip_nonlocal_bind"];

/// Where a container was when it was frozen; part of the checkpoint's `checkpoint.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Frozen {
    /// By the network's name.
    pub networks: BTreeMap<String, Given>,
    pub ports: Vec<Claim>,
    /// Another container has its places still: they are not asked for.
    #[serde(skip)]
    pub is_anothers: bool,
}

impl Frozen {
    /// Of a container that runs.
    pub fn of(record: &Record) -> Frozen {
        let networks = given(record).map(|(name, given)| (name.clone(), given.clone())).collect();
        Frozen { networks, ports: record.ports.clone(), is_anothers: false }
    }

    /// What to ask of a network for the place to be what it was; nothing for a network it was not in. What the
    /// container asks for by itself comes first.
    pub(super) fn wanted(&self, network: &str, asked: &Wanted) -> Option<Wanted> {
        let was = self
            .networks
            .get(network)
            .filter(|_| !self.is_anothers)
            .filter(|was| was.ipv4.is_some() || was.ipv6.is_some())?;
        let v4 = was.ipv4.and_then(|subnet| match subnet.address {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        });
        let v6 = was.ipv6.and_then(|subnet| match subnet.address {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        Some(Wanted {
            ipv4: asked.ipv4.or(v4),
            ipv6: asked.ipv6.or(v6),
            mac: asked.mac.clone().or_else(|| Some(was.mac.clone()).filter(|mac| !mac.is_empty())),
            link_local: asked.link_local.clone(),
        })
    }

    /// The wishes for ports, with those of the host's that it had where any would do.
    pub(super) fn wishes(&self, wishes: &[Wish]) -> Vec<Wish> {
        let mut left = if self.is_anothers { Vec::new() } else { self.ports.clone() };
        left.sort_unstable();
        let again = |wish: &Wish| {
            let (protocol, port) = (wish.protocol, wish.port);
            let fits = |claim: &Claim| {
                let may = wish.first == 0 || (wish.first..=wish.last).contains(&claim.host_port);
                claim.protocol == protocol && claim.port == port && claim.host_port != 0 && may
            };
            let Some(found) = left.iter().find(|claim| fits(claim)).map(|claim| claim.host_port) else {
                return *wish;
            };
            // Of both families.
            left.retain(|claim| !(fits(claim) && claim.host_port == found));
            Wish { first: found, last: found, ..*wish }
        };
        wishes.iter().map(again).collect()
    }

    /// The addresses that the container does not have any more.
    pub fn lost(&self, record: &Record) -> Vec<IpAddr> {
        let has: Vec<IpAddr> = given(record).flat_map(|(_, given)| addresses(given)).collect();
        let had = self.networks.values().flat_map(addresses);
        had.filter(|address| !has.contains(address)).collect()
    }
}

fn addresses(given: &Given) -> impl Iterator<Item = IpAddr> + use<> {
    [given.ipv4, given.ipv6].into_iter().flatten().map(|subnet| subnet.address)
}

/// Lets nothing reach a living container, nor out of it, until [`super::release`].
pub fn hold(engine: &Engine, record: &Record) {
    let path = engine.state_dir.netns(&record.id);
    for (name, given) in given(record).filter(|(_, given)| !given.interface.is_empty()) {
        if let Err(error) = engine.wiring.hold(&path, given) {
            log::warn!(
                "container {:?}: its connections in network {name} may break by the checkpoint: {error}",
                record.name
            );
        }
    }
}

/// Runs `work` while sockets in the container's namespace can be bound to addresses it has lost: nothing comes to
/// those any more, which their owners notice, and the others go on.
pub fn without<T>(engine: &Engine, record: &Record, lost: &[IpAddr], work: impl FnOnce() -> T) -> T {
    if lost.is_empty() {
        return work();
    }
    let list: Vec<String> = lost.iter().map(IpAddr::to_string).collect();
    // Of a copy nothing else is to be expected.
    let level = if record.is_unborn { log::Level::Info } else { log::Level::Warn };
    log::log!(
        level,
        "container {:?} has other addresses than when it was frozen, without {}: its TCP connections are closed",
        record.name,
        list.join(", ")
    );
    let path = engine.state_dir.netns(&record.id);
    let allow = |value: &str| {
        let set = netns::within(&path, || {
            // A kernel without IPv6 has no such setting.
            NONLOCAL_BIND.into_iter().for_each(|setting| drop(netns::set(setting, value)));
            Ok(())
        });
        if let Err(error) = set {
            log::warn!("container {:?}: {error}", record.name);
        }
    };
    allow("1");
    let done = work();
    allow("0");
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::networks::ports::Protocol;

    #[test]
    fn ports_that_anything_would_do_for_are_asked_for_again() {
        let claim = |port: u16, host: &str, host_port: u16| Claim {
            protocol: Protocol::Tcp,
            port,
            host: host.parse().unwrap(),
            host_port,
        };
        let frozen = Frozen {
            ports: vec![
                claim(80, "0.0.0.0", 32768),
                claim(80, "::", 32768),
                claim(80, "0.0.0.0", 32769),
                claim(443, "0.0.0.0", 8443),
            ],
            ..Frozen::default()
        };
        let wish = |port: u16, first: u16, last: u16| Wish {
            protocol: Protocol::Tcp,
            port,
            host: None,
            first,
            last,
        };
        let wishes =
            [wish(80, 0, 0), wish(443, 8440, 8450), wish(80, 0, 0), wish(80, 0, 0), wish(443, 9000, 9001)];
        let again: Vec<u16> = frozen.wishes(&wishes).iter().map(|wish| wish.first).collect();
        assert_eq!(again, [32768, 8443, 32769, 0, 9000]);
    }

    #[test]
    fn a_place_is_asked_for_as_it_was_unless_the_container_says_otherwise() {
        let given = Given {
            ipv4: Some("10.9.0.2/24".parse().unwrap()),
            mac: "02:42:0a:09:00:02".to_owned(),
            ..Given::default()
        };
        let frozen = Frozen { networks: [("shop".to_owned(), given)].into(), ..Frozen::default() };
        let wanted = frozen.wanted("shop", &Wanted::default()).unwrap();
        assert_eq!(wanted.ipv4, Some([10, 9, 0, 2].into()));
        assert_eq!(wanted.mac.as_deref(), Some("02:42:0a:09:00:02"));
        let asked = Wanted { ipv4: Some([10, 9, 0, 9].into()), ..Wanted::default() };
        assert_eq!(frozen.wanted("shop", &asked).unwrap().ipv4, asked.ipv4);
        assert_eq!(frozen.wanted("other", &asked), None);
    }
}
