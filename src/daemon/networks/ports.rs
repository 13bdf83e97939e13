//! Host ports: what containers ask for, who has which, and the sockets that hold them.
//!
//! ```text
//! HostConfig ─ wishes ─▶ Wish ─ claim ─▶ Claim (recorded) ─ lead ─▶ Publication (for the firewall)
//!                                 │                          └────▶ relay, where the kernel cannot
//!                                 └─ a bound socket each
//! ```
//!
//! A claimed port is held by a bound socket, so that what else wants it fails at once, on either side. The
//! socket does not listen: packets are led past it by the firewall, and should its rules be gone, clients are
//! refused and not kept waiting. It belongs to the network namespace of the thread that claims.

mod hold;
mod relay;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::network::{Given, Network, option};
use crate::daemon::config::NetworkDefaults;
use crate::daemon::error::{Error, Result};
use crate::http::api::Class;
use crate::http::api::container::{HostConfig, PortBinding, Set};
use hold::{bind, ephemeral_range, reserved_ports};
use relay::Relays;
use wish::groups;
pub use wish::{Protocol, Wish};

/// A port of the host that is a container's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    pub protocol: Protocol,
    /// The container's.
    pub port: u16,
    pub host: IpAddr,
    /// 0 where the network is routed: the container's own address is what is reached.
    pub host_port: u16,
}

/// What the firewall is to do for a claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Publication {
    pub protocol: Protocol,
    /// Unspecified for every address of the host.
    pub host: IpAddr,
    /// 0 opens the container's port and leads nothing to it.
    pub host_port: u16,
    /// Of the same family as `host`.
    pub to: IpAddr,
    pub to_port: u16,
    /// The network's id.
    pub network: String,
}

/// How a network leads one family's packets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It has none of the family.
    Absent,
    /// From the host's addresses.
    Translated,
    /// To the container's own.
    Routed,
}

/// What a network makes of wishes.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// The host's address for wishes that name none; 0.0.0.0 stands for both families.
    pub default: IpAddr,
    pub ipv4: Way,
    pub ipv6: Way,
}

impl Terms {
    pub fn of(network: &Network, defaults: &NetworkDefaults) -> Terms {
        let way = |is_on: bool, mode: &str| match network.options.get(mode).map(String::as_str) {
            _ if !is_on => Way::Absent,
            Some("routed") => Way::Routed,
            _ => Way::Translated,
        };
        let own = network.options.get(option::HOST_BINDING).and_then(|text| text.parse().ok());
        Terms {
            default: own.unwrap_or(defaults.ip),
            ipv4: way(network.ipv4, option::GATEWAY_MODE_IPV4),
            ipv6: way(network.ipv6, option::GATEWAY_MODE_IPV6),
        }
    }

    fn way(&self, address: IpAddr) -> Way {
        if address.is_ipv6() { self.ipv6 } else { self.ipv4 }
    }

    /// The addresses a wish means, each with whether the kernel leads from it to the container's own.
    fn addresses(&self, wish: &Wish) -> Vec<(IpAddr, Way)> {
        let asked = wish.host.unwrap_or(self.default);
        let is_both = wish.host.is_none() && asked.is_unspecified();
        let both = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let list = if is_both { &both[..] } else { &[asked][..] };
        list.iter()
            .filter_map(|address| match (self.way(*address), address.is_ipv6()) {
                // The relay takes IPv6 clients to a container that has IPv4 alone; nobody asked for the reverse
                // unless by an address.
                (Way::Absent, true) if self.ipv4 != Way::Translated => None,
                (Way::Absent, false) if is_both || self.ipv6 != Way::Translated => None,
                (way, _) => Some((*address, way)),
            })
            .collect()
    }
}

/// Which families the firewall has rules for, and whether relays carry what rules do not.
#[derive(Clone, Copy, Debug)]
pub struct Ruled {
    pub ipv4: bool,
    pub ipv6: bool,
    /// `--userland-proxy`
    pub relays: bool,
}

/// Every claimed host port, with the socket that holds it, relays included.
#[derive(Debug, Default)]
pub struct Ports {
    state: Mutex<State>,
    relays: Relays,
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<String, Vec<Held>>,
    taken: BTreeSet<(Protocol, u16, IpAddr)>,
    /// Where the search for an ephemeral port begins.
    next: u16,
}

/// A claim and what holds it.
#[derive(Debug)]
struct Held {
    claim: Claim,
    /// None for routed ones, for SCTP where the host has none, and where somebody was faster.
    socket: Option<Arc<OwnedFd>>,
    /// The relay's token.
    relay: Option<u64>,
}

impl Ports {
    /// What a container's configuration asks for, in the order of its ports.
    ///
    /// # Errors
    /// InvalidParameter for what is no port, no range of them or no address.
    pub fn wishes(host: &HostConfig, exposed: &Set) -> Result<Vec<Wish>> {
        wish::wishes(host, exposed)
    }

    /// Claims a host port for each wish, in each family it is meant in: all of them or none.
    ///
    /// # Errors
    /// System in Docker's words: `failed to bind host port 0.0.0.0:80/tcp: address already in use`,
    /// `Bind for 0.0.0.0:80 failed: port is already allocated` when another container has it,
    /// `all ports are allocated`.
    pub fn claim(&self, container: &str, wishes: &[Wish], terms: &Terms) -> Result<Vec<Claim>> {
        let mut state = self.state();
        let mut made: Vec<Held> = Vec::new();
        let mut outcome = Ok(());
        for group in groups(wishes) {
            let mut addresses = Vec::new();
            for wish in &group {
                for (address, way) in terms.addresses(wish) {
                    match way {
                        Way::Routed => {
                            let claim = claim_of(wish, address, 0);
                            made.push(Held { claim, socket: None, relay: None });
                        }
                        // On a host without IPv6, Docker is silent about the address nobody named.
                        _ => addresses.push((address, wish.host.is_some())),
                    }
                }
            }
            match state.take(group[0], &addresses) {
                Ok(held) => made.extend(held),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        if let Err(error) = outcome {
            state.forget(&made);
            return Err(error);
        }
        made.sort_by_key(|held| (held.claim.port, held.claim.protocol, held.claim.host));
        let claims = made.iter().map(|held| held.claim).collect();
        state.held.entry(container.to_owned()).or_default().extend(made);
        Ok(claims)
    }

    /// Takes again what a living container had before the daemon's end. What somebody else has taken
    /// meanwhile is still led to the container: its text is given, nothing fails.
    pub fn adopt(&self, container: &str, claims: &[Claim]) -> Vec<String> {
        let mut state = self.state();
        let mut problems = Vec::new();
        for claim in claims {
            let mut held = Held { claim: *claim, socket: None, relay: None };
            if claim.host_port != 0 {
                match bind(claim.protocol, claim.host, claim.host_port) {
                    Ok(socket) => held.socket = socket.map(Arc::new),
                    Err(cause) => problems.push(cannot_bind(claim, cause).message),
                }
                state.taken.insert(claim.key());
            }
            state.held.entry(container.to_owned()).or_default().push(held);
        }
        problems
    }

    /// What leads packets of the container's claims to its place in a network: the firewall's part is given, the
    /// relays' done. Again for another place when the network with the way out changes.
    ///
    /// # Errors
    /// System, when a relay cannot listen.
    pub fn lead(
        &self,
        container: &str,
        network: &str,
        given: &Given,
        ruled: Ruled,
    ) -> Result<Vec<Publication>> {
        let mut list = Vec::new();
        let mut state = self.state();
        for held in state.held.get_mut(container).into_iter().flatten() {
            if let Some(token) = held.relay.take() {
                self.relays.remove(token);
            }
            let claim = held.claim;
            let (four, six) = (given.ipv4.map(|it| it.address), given.ipv6.map(|it| it.address));
            let (own, other) = if claim.host.is_ipv6() { (six, four) } else { (four, six) };
            let is_ruled = if claim.host.is_ipv6() { ruled.ipv6 } else { ruled.ipv4 };
            // The kernel leads nothing from ::1 elsewhere.
            let is_out_of_reach = claim.host == IpAddr::V6(Ipv6Addr::LOCALHOST);
            if let Some(to) = own.filter(|_| is_ruled && !is_out_of_reach) {
                list.push(Publication {
                    protocol: claim.protocol,
                    host: claim.host,
                    host_port: claim.host_port,
                    to,
                    to_port: claim.port,
                    network: network.to_owned(),
                });
                if claim.host != IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
                    continue;
                }
            }
            let (Some(to), Some(socket), true) = (own.or(other), &held.socket, ruled.relays) else {
                continue;
            };
            let to = SocketAddr::new(to, claim.port);
            let token = self.relays.add(Arc::clone(socket), claim.protocol, to);
            held.relay =
                token.map_err(|cause| Error::system(format!("relay {}", claim.shown()), words(cause)))?;
        }
        Ok(list)
    }

    /// Gives the container's ports back; its relays end, and what goes through them.
    pub fn release(&self, container: &str) {
        let mut state = self.state();
        let gone = state.held.remove(container).unwrap_or_default();
        for held in &gone {
            if let Some(token) = held.relay {
                self.relays.remove(token);
            }
        }
        state.forget(&gone);
    }

    /// Whether the relays' thread runs, and for how many sockets; waits a moment for its end.
    #[cfg(test)]
    fn relays_left(&self) -> (bool, usize) {
        self.relays.left()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Claims are whole at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Claims as `NetworkSettings.Ports` has them.
pub fn shown(claims: &[Claim]) -> BTreeMap<String, Option<Vec<PortBinding>>> {
    let mut ports: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for claim in claims {
        let host_port = if claim.host_port == 0 { String::new() } else { claim.host_port.to_string() };
        let binding = PortBinding { host_ip: claim.host.to_string(), host_port };
        let key = format!("{}/{}", claim.port, claim.protocol.name());
        ports.entry(key).or_default().get_or_insert_default().push(binding);
    }
    ports
}

impl Claim {
    fn key(&self) -> (Protocol, u16, IpAddr) {
        (self.protocol, self.host_port, self.host)
    }

    /// `0.0.0.0:80/tcp`, `[::]:80/tcp`
    fn shown(&self) -> String {
        format!("{}/{}", SocketAddr::new(self.host, self.host_port), self.protocol.name())
    }
}

fn claim_of(wish: &Wish, host: IpAddr, host_port: u16) -> Claim {
    Claim { protocol: wish.protocol, port: wish.port, host, host_port }
}

impl State {
    /// One port on all of the addresses; those that were not named may be of a family the host lacks.
    fn take(&mut self, wish: &Wish, addresses: &[(IpAddr, bool)]) -> Result<Vec<Held>> {
        if addresses.is_empty() {
            return Ok(Vec::new());
        }
        if wish.first == wish.last && wish.first != 0 {
            return self.take_port(wish, addresses, wish.first);
        }
        let (first, last) = if wish.first == 0 { ephemeral_range() } else { (wish.first, wish.last) };
        let reserved = if wish.first == 0 { reserved_ports() } else { Vec::new() };
        let start = if wish.first == 0 && (first..=last).contains(&self.next) { self.next } else { first };
        for port in (start..=last).chain(first..start) {
            if reserved.iter().any(|(from, to)| (*from..=*to).contains(&port)) {
                continue;
            }
            if self.other(wish.protocol, port, addresses).is_some() {
                continue;
            }
            match self.take_port(wish, addresses, port) {
                Ok(held) => {
                    if wish.first == 0 {
                        self.next = port.checked_add(1).unwrap_or(first);
                    }
                    return Ok(held);
                }
                Err(error) if error.message.ends_with(IN_USE) => {}
                Err(error) => return Err(error),
            }
        }
        Err(failure("all ports are allocated".to_owned()))
    }

    fn take_port(&mut self, wish: &Wish, addresses: &[(IpAddr, bool)], port: u16) -> Result<Vec<Held>> {
        if let Some(other) = self.other(wish.protocol, port, addresses) {
            return Err(failure(format!(
                "Bind for {} failed: port is already allocated",
                SocketAddr::new(other, port)
            )));
        }
        let mut made = Vec::new();
        for (address, is_named) in addresses {
            let claim = claim_of(wish, *address, port);
            match bind(wish.protocol, *address, port) {
                Ok(socket) => made.push(Held { claim, socket: socket.map(Arc::new), relay: None }),
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) if !is_named && address.is_ipv6() => {}
                Err(cause) => return Err(cannot_bind(&claim, cause)),
            }
        }
        self.taken.extend(made.iter().map(|held| held.claim.key()));
        Ok(made)
    }

    /// The first of the addresses whose port another claim has.
    fn other(&self, protocol: Protocol, port: u16, addresses: &[(IpAddr, bool)]) -> Option<IpAddr> {
        let low: IpAddr = Ipv4Addr::UNSPECIFIED.into();
        let high = IpAddr::V6(Ipv6Addr::from(u128::MAX));
        let taken: Vec<IpAddr> =
            self.taken.range((protocol, port, low)..=(protocol, port, high)).map(|(_, _, ip)| *ip).collect();
        addresses.iter().map(|(address, _)| *address).find(|address| {
            taken.iter().any(|one| {
                one.is_ipv6() == address.is_ipv6()
                    && (one == address || one.is_unspecified() || address.is_unspecified())
            })
        })
    }

    fn forget(&mut self, gone: &[Held]) {
        for held in gone {
            self.taken.remove(&held.claim.key());
        }
    }
}

/// How [`words`] says that a port is somebody else's.
const IN_USE: &str = ": address already in use";

fn failure(message: String) -> Error {
    Error { class: Class::System, message }
}

fn cannot_bind(claim: &Claim, cause: Errno) -> Error {
    failure(format!("failed to bind host port {}: {}", claim.shown(), words(cause.into())))
}

/// Compat: Go's words for an error number, which scripts match on.
fn words(error: io::Error) -> String {
    let text = error.to_string();
    let mut text = text.split(" (os error").next().unwrap_or_default().to_owned();
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    text
}

#[cfg(test)]
mod tests;
