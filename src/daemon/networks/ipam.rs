//! Which subnet a network gets, and which address a container gets in it.
//!
//! All networks share one space of addresses: what one has given out is given out. A record of that is nowhere but
//! here and in the containers' own records, from which a starting daemon reads it again.
//!
//! Source: Docker's default address manager, for the pools, the order and the words.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::mac;
use super::network::{Driver, Given, Network, Pool, Wanted};
use super::subnet::Subnet;
use crate::daemon::error::{Error, Result};
use crate::daemon::names;

/// Where Docker takes subnets from, and how long their prefix is.
const DEFAULT_POOLS: [(Ipv4Addr, u8, u8); 7] = [
    (Ipv4Addr::new(172, 17, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 18, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 19, 0, 0), 16, 16),
    (Ipv4Addr::new(172, 20, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 24, 0, 0), 14, 16),
    (Ipv4Addr::new(172, 28, 0, 0), 14, 16),
    (Ipv4Addr::new(192, 168, 0, 0), 16, 20),
];

/// The pools subnets of a family come from: the configured ones, else Docker's. `seed` is 64 hex digits that
/// stay the same: this installation's unique local prefix is made of them.
pub fn pools(configured: &[(Subnet, u8)], is_ipv6: bool, seed: &str) -> Vec<(Subnet, u8)> {
    let given = configured.iter().filter(|(base, _)| base.is_ipv6() == is_ipv6);
    let mut pools: Vec<(Subnet, u8)> = given.map(|(base, size)| (base.network(), *size)).collect();
    if pools.is_empty() && is_ipv6 {
        // RFC 4193: fd, forty bits of its own, and subnets of 64.
        let global = u128::from_str_radix(seed.get(..10).unwrap_or_default(), 16).unwrap_or_default();
        let base = Ipv6Addr::from((0xfd << 120) | (global << 80));
        pools.push((Subnet { address: base.into(), prefix: 48 }, 64));
    } else if pools.is_empty() {
        pools.extend(
            DEFAULT_POOLS.map(|(base, prefix, size)| (Subnet { address: base.into(), prefix }, size)),
        );
    }
    pools.sort_by_key(|(base, _)| *base);
    pools
}

/// The first subnet of `pools` that overlaps none of `used`.
///
/// # Errors
/// InvalidParameter, in Docker's words, when there is none.
pub fn free_subnet(pools: &[(Subnet, u8)], used: &[Subnet]) -> Result<Subnet> {
    for (base, size) in pools {
        let mut subnet = Subnet { address: base.first(), prefix: (*size).max(base.prefix).min(base.width()) };
        // Each turn leaves one of the used ranges behind.
        while base.contains(subnet.first()) {
            let Some(taken) = used.iter().find(|taken| taken.overlaps(&subnet)) else { return Ok(subnet) };
            let last = Subnet::number(taken.last()).max(Subnet::number(subnet.last()));
            let Some(next) = last.checked_add(1) else { break };
            let step = 1_u128.checked_shl(u32::from(subnet.width() - subnet.prefix)).unwrap_or(0);
            let Some(next) = next.checked_next_multiple_of(step.max(1)) else { break };
            if next > Subnet::number(base.last()) {
                break;
            }
            subnet.address = Subnet::numbered(base.is_ipv6(), next);
        }
    }
    Err(Error::invalid("all predefined address pools have been fully subnetted"))
}

/// What is given out.
#[derive(Debug, Default)]
pub struct Leases {
    taken: BTreeSet<IpAddr>,
    /// By network, then by container.
    places: BTreeMap<String, BTreeMap<String, Given>>,
}

impl Leases {
    /// Takes what of a network's pools is no container's; gateways that are still to be chosen are chosen.
    ///
    /// # Errors
    /// Forbidden or System, in Docker's words; nothing is taken then.
    pub fn reserve(&mut self, network: &mut Network, needs_gateway: impl Fn(&Pool) -> bool) -> Result<()> {
        let before = self.taken.clone();
        let mut reserve = || -> Result<()> {
            for pool in &mut network.pools {
                let asked = pool.gateway.map_or(String::new(), |gateway| gateway.to_string());
                if pool.gateway.is_some() || needs_gateway(pool) {
                    let taken = self.take(pool, pool.gateway).map_err(|error| {
                        Error::system(format!("failed to allocate gateway ({asked})"), error)
                    })?;
                    pool.gateway = Some(taken.address);
                }
                for (name, address) in &pool.auxiliary {
                    self.take(pool, Some(*address)).map_err(|error| {
                        let attempt = format!("failed to allocate secondary ip address ({name}:{address})");
                        Error::system(attempt, error)
                    })?;
                }
            }
            Ok(())
        };
        let reserved = reserve();
        if reserved.is_err() {
            self.taken = before;
        }
        reserved
    }

    /// As [`reserve`](Leases::reserve), of a network that is there already: what is taken twice is.
    pub fn restore(&mut self, network: &Network) {
        for pool in &network.pools {
            self.taken.extend(pool.gateway);
            self.taken.extend(pool.auxiliary.values());
        }
    }

    /// Gives back all of a network's addresses.
    pub fn forget(&mut self, network: &Network) {
        for given in self.places.remove(&network.id).unwrap_or_default().values() {
            self.free(given);
        }
        for pool in &network.pools {
            for address in pool.gateway.iter().chain(pool.auxiliary.values()) {
                self.taken.remove(address);
            }
        }
    }

    /// A place for a container, without the names of interfaces.
    ///
    /// # Errors
    /// Forbidden, InvalidParameter, or System when no address is left; in Docker's words.
    pub fn allocate(&mut self, network: &Network, container: &str, wanted: &Wanted) -> Result<Given> {
        if network.config_only {
            return Err(Error::forbidden("cannot create endpoint on configuration-only network"));
        }
        if self.places.get(&network.id).is_some_and(|places| places.contains_key(container)) {
            return Err(Error::forbidden(format!(
                "container {container} is already connected to network {}",
                network.name
            )));
        }
        if let Some(other) = wanted.link_local.iter().find(|address| !is_link_local(**address)) {
            return Err(Error::invalid(format!("invalid link local IP address: {other}")));
        }
        let mut given = Given {
            endpoint_id: names::new_id()?,
            link_local: wanted.link_local.clone(),
            ..Given::default()
        };
        if network.driver.has_addresses() {
            if network.ipv4 {
                given.ipv4 = Some(self.address(network, false, wanted.ipv4.map(IpAddr::V4))?);
            }
            if network.ipv6 {
                let address = self.address(network, true, wanted.ipv6.map(IpAddr::V6));
                given.ipv6 = Some(address.inspect_err(|_| self.free(&given))?);
            }
            match mac_for(network.driver, wanted, given.ipv4) {
                Ok(mac) => given.mac = mac,
                Err(error) => {
                    self.free(&given);
                    return Err(error);
                }
            }
            let way_out = |subnet: Option<Subnet>| {
                let mut pools = network.pools.iter().filter(|_| !network.internal);
                pools.find(|pool| subnet.is_some_and(|one| pool.subnet.contains(one.address)))?.way_out()
            };
            given.gateway = match way_out(given.ipv4) {
                Some(IpAddr::V4(address)) => Some(address),
                _ => None,
            };
            given.ipv6_gateway = match way_out(given.ipv6) {
                Some(IpAddr::V6(address)) => Some(address),
                _ => None,
            };
        }
        self.places.entry(network.id.clone()).or_default().insert(container.to_owned(), given.clone());
        Ok(given)
    }

    /// Notes a place that a living container has.
    ///
    /// # Errors
    /// Forbidden when an address of it is somebody else's.
    pub fn adopt(&mut self, network: &str, container: &str, given: &Given) -> Result<()> {
        let addresses: Vec<IpAddr> = addresses(given).collect();
        if let Some(other) = addresses.iter().find(|address| self.taken.contains(address)) {
            return Err(Error::forbidden(format!("Address already in use: {other}")));
        }
        self.taken.extend(addresses);
        self.places.entry(network.to_owned()).or_default().insert(container.to_owned(), given.clone());
        Ok(())
    }

    /// Takes addresses for nobody in particular.
    pub fn keep(&mut self, addresses: &[IpAddr]) {
        self.taken.extend(addresses);
    }

    /// Gives a container's place back; one it has not is fine.
    pub fn release(&mut self, network: &str, container: &str) -> bool {
        let given = self.places.get_mut(network).and_then(|places| places.remove(container));
        given.is_some_and(|given| {
            self.free(&given);
            true
        })
    }

    /// The places of a network, by container.
    pub fn places(&self, network: &str) -> impl Iterator<Item = (&String, &Given)> {
        self.places.get(network).into_iter().flatten()
    }

    fn free(&mut self, given: &Given) {
        for address in addresses(given) {
            self.taken.remove(&address);
        }
    }

    /// An address of the network, the one asked for or the lowest that is free.
    fn address(&mut self, network: &Network, is_ipv6: bool, wanted: Option<IpAddr>) -> Result<Subnet> {
        for pool in network.pools_of(is_ipv6) {
            if wanted.is_some_and(|wanted| !pool.subnet.contains(wanted)) {
                continue;
            }
            match self.take(pool, wanted) {
                Err(_) if wanted.is_none() => {}
                taken => return taken,
            }
        }
        Err(match wanted {
            Some(wanted) => Error::invalid(format!(
                "invalid address {wanted}: It does not belong to any of this network's subnets"
            )),
            None => Error::system(
                format!(
                    "no available IPv{} addresses on this network's address pools",
                    if is_ipv6 { 6 } else { 4 }
                ),
                format!("{} ({})", network.name, network.id),
            ),
        })
    }

    fn take(&mut self, pool: &Pool, wanted: Option<IpAddr>) -> Result<Subnet> {
        let address = match wanted {
            Some(wanted) if !pool.subnet.contains(wanted) => {
                return Err(Error::invalid("requested address is out of range"));
            }
            Some(wanted) if self.taken.contains(&wanted) || is_reserved(&pool.subnet, wanted) => {
                return Err(Error::forbidden("Address already in use"));
            }
            Some(wanted) => wanted,
            None => lowest(pool, &self.taken)
                .ok_or_else(|| Error::system("take an address", "no available addresses on this pool"))?,
        };
        self.taken.insert(address);
        Ok(Subnet { address, prefix: pool.subnet.prefix })
    }
}

fn addresses(given: &Given) -> impl Iterator<Item = IpAddr> {
    given.ipv4.iter().chain(&given.ipv6).map(|subnet| subnet.address).collect::<Vec<_>>().into_iter()
}

/// The lowest address of a pool that nobody has.
fn lowest(pool: &Pool, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let range = pool.range.unwrap_or(pool.subnet);
    let is_ipv6 = range.is_ipv6();
    let (mut next, last) = (Subnet::number(range.first()), Subnet::number(range.last()));
    if is_reserved(&pool.subnet, range.first()) {
        next = next.checked_add(1)?;
    }
    let begin = Subnet::numbered(is_ipv6, next);
    if next > last {
        return None;
    }
    for used in taken.range(begin..=range.last()) {
        if Subnet::number(*used) != next {
            break;
        }
        next = next.checked_add(1)?;
    }
    let found = Subnet::numbered(is_ipv6, next);
    (next <= last && !is_reserved(&pool.subnet, found)).then_some(found)
}

/// The subnet's own address and its broadcast; a link of two has neither (RFC 3021), and IPv6 no broadcast.
fn is_reserved(subnet: &Subnet, address: IpAddr) -> bool {
    let has_ends = subnet.is_ipv6() || subnet.prefix < 31;
    has_ends && (address == subnet.first() || (!subnet.is_ipv6() && address == subnet.last()))
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// The one asked for; else made of the address, as Docker's was; else drawn. An ipvlan has its parent's.
fn mac_for(driver: Driver, wanted: &Wanted, address: Option<Subnet>) -> Result<String> {
    if let Some(mac) = &wanted.mac {
        return Ok(mac.clone());
    }
    Ok(mac::text(match address.map(|subnet| subnet.address) {
        _ if driver == Driver::Ipvlan => return Ok(String::new()),
        Some(IpAddr::V4(address)) => mac::of(address),
        _ => mac::with(names::random::<4>()?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    fn network(pools: &[&str]) -> Network {
        let pool = |text: &&str| {
            let (subnet, range) = text.split_once(' ').unwrap_or((text, ""));
            let range = range.parse().ok();
            Pool {
                subnet: subnet.parse().unwrap(),
                range,
                gateway: None,
                auxiliary: BTreeMap::new(),
                is_chosen: true,
            }
        };
        let pools: Vec<Pool> = pools.iter().map(pool).collect();
        let ipv6 = pools.iter().any(|pool| pool.subnet.is_ipv6());
        Network { id: "n".repeat(64), name: "net".into(), ipv4: true, ipv6, pools, ..Network::default() }
    }

    fn ip(given: &Given) -> String {
        given.ipv4.unwrap().to_string()
    }

    #[test]
    fn subnets_keep_clear_of_what_is_used() {
        let docker = pools(&[], false, "");
        let free = |used: &[&str]| {
            let used: Vec<Subnet> = used.iter().map(|text| subnet(text)).collect();
            free_subnet(&docker, &used).map(|found| found.to_string()).map_err(|error| error.message)
        };
        assert_eq!(free(&[]).unwrap(), "172.17.0.0/16");
        assert_eq!(free(&["172.17.0.0/16", "172.18.3.0/24"]).unwrap(), "172.19.0.0/16");
        assert_eq!(free(&["172.16.0.0/12"]).unwrap(), "192.168.0.0/20");
        assert_eq!(free(&["172.16.0.0/12", "192.168.15.1/32"]).unwrap(), "192.168.16.0/20");
        assert_eq!(free(&["172.17.0.0/16", "172.18.0.0/15", "172.20.0.0/16"]).unwrap(), "172.21.0.0/16");
        let none = free(&["172.0.0.0/8", "192.168.0.0/16"]).unwrap_err();
        assert_eq!(none, "all predefined address pools have been fully subnetted");
        let own = [(subnet("10.10.0.0/16"), 24), (subnet("10.1.0.0/24"), 28)];
        let own = pools(&own, false, "");
        assert_eq!(free_subnet(&own, &[]).unwrap().to_string(), "10.1.0.0/28");
        assert_eq!(free_subnet(&own, &[subnet("10.1.0.0/16")]).unwrap().to_string(), "10.10.0.0/24");
        // At the ends of the space nothing wraps.
        let end = [(subnet("255.255.255.0/24"), 25)];
        assert!(free_subnet(&end, &[subnet("255.255.255.0/24")]).is_err());
        let end = [(subnet("ffff:ffff::/32"), 128)];
        assert!(free_subnet(&end, &[subnet("ffff::/16")]).is_err());
        let local = pools(&[], true, &"12ab".repeat(16));
        assert_eq!(free_subnet(&local, &[]).unwrap().to_string(), "fd12:ab12:ab12::/64");
        let used = [subnet("fd12:ab12:ab12::/64")];
        assert_eq!(free_subnet(&local, &used).unwrap().to_string(), "fd12:ab12:ab12:1::/64");
    }

    #[test]
    fn the_lowest_free_address_is_given() {
        let mut leases = Leases::default();
        let mut net = network(&["10.0.0.0/29"]);
        leases.reserve(&mut net, |_| true).unwrap();
        assert_eq!(net.pools[0].gateway.unwrap().to_string(), "10.0.0.1");
        let mut give = |container: &str| leases.allocate(&net, container, &Wanted::default());
        let first = give("a").unwrap();
        assert_eq!((ip(&first).as_str(), first.mac.as_str()), ("10.0.0.2/29", "02:42:0a:00:00:02"));
        assert_eq!(first.gateway.unwrap().to_string(), "10.0.0.1");
        assert!(give("a").unwrap_err().message.contains("already connected"));
        for container in ["b", "c", "d", "e"] {
            give(container).unwrap();
        }
        let full = give("f").unwrap_err();
        assert!(
            full.message.starts_with("no available IPv4 addresses on this network's address pools: net ("),
            "{full}"
        );
        leases.release(&net.id, "c");
        assert_eq!(ip(&leases.allocate(&net, "f", &Wanted::default()).unwrap()), "10.0.0.4/29");
        leases.forget(&net);
        assert!(leases.taken.is_empty() && leases.places(&net.id).next().is_none());
    }

    #[test]
    fn an_address_that_is_asked_for_is_checked() {
        let mut leases = Leases::default();
        let mut net = network(&["10.0.0.0/24 10.0.0.128/25", "fd00::/64"]);
        leases.reserve(&mut net, |_| true).unwrap();
        assert_eq!(net.pools[0].gateway.unwrap().to_string(), "10.0.0.128");
        let want = |text: &str| Wanted { ipv4: Some(text.parse().unwrap()), ..Wanted::default() };
        assert_eq!(ip(&leases.allocate(&net, "a", &want("10.0.0.5")).unwrap()), "10.0.0.5/24");
        for (text, words) in [
            ("10.0.0.5", "Address already in use"),
            ("10.0.0.128", "Address already in use"),
            ("10.0.0.0", "Address already in use"),
            ("10.0.0.255", "Address already in use"),
            ("10.0.1.5", "invalid address 10.0.1.5: It does not belong to any of this network's subnets"),
        ] {
            assert_eq!(leases.allocate(&net, "b", &want(text)).unwrap_err().message, words, "{text}");
        }
        // The IPv4 address of one that failed for its IPv6 address is free again.
        let mut both = want("10.0.0.6");
        both.ipv6 = Some("fd01::1".parse().unwrap());
        assert!(leases.allocate(&net, "b", &both).is_err());
        both.ipv6 = Some("fd00::9".parse().unwrap());
        let given = leases.allocate(&net, "b", &both).unwrap();
        assert_eq!(
            (ip(&given), given.ipv6.unwrap().to_string()),
            ("10.0.0.6/24".into(), "fd00::9/64".into())
        );
        assert_eq!(given.ipv6_gateway.unwrap().to_string(), "fd00::1");
        let lowest = leases.allocate(&net, "c", &Wanted::default()).unwrap();
        assert_eq!(
            (ip(&lowest), lowest.ipv6.unwrap().to_string()),
            ("10.0.0.129/24".into(), "fd00::3/64".into())
        );
        let strange = Wanted { link_local: vec!["10.0.0.1".parse().unwrap()], ..Wanted::default() };
        let refused = leases.allocate(&net, "d", &strange).unwrap_err();
        assert_eq!(refused.message, "invalid link local IP address: 10.0.0.1");
    }

    #[test]
    fn what_lives_keeps_its_place() {
        let mut leases = Leases::default();
        let net = network(&["10.0.0.0/30"]);
        let given = Given { ipv4: Some(subnet("10.0.0.1/30")), ..Given::default() };
        leases.adopt(&net.id, "a", &given).unwrap();
        assert!(leases.adopt(&net.id, "b", &given).is_err());
        assert_eq!(ip(&leases.allocate(&net, "b", &Wanted::default()).unwrap()), "10.0.0.2/30");
        let shown: Vec<&String> = leases.places(&net.id).map(|(container, _)| container).collect();
        assert_eq!(shown, ["a", "b"]);
    }

    #[test]
    fn small_subnets_have_what_they_have() {
        let all = |text: &str| {
            let (mut leases, net) = (Leases::default(), network(&[text]));
            let mut give = |number: u8| leases.allocate(&net, &number.to_string(), &Wanted::default());
            (0..5).map_while(move |number| give(number).ok()).map(|given| ip(&given)).collect::<Vec<_>>()
        };
        assert_eq!(all("10.0.0.0/31"), ["10.0.0.0/31", "10.0.0.1/31"]);
        assert_eq!(all("10.0.0.7/32"), ["10.0.0.7/32"]);
        assert_eq!(all("255.255.255.252/30"), ["255.255.255.253/30", "255.255.255.254/30"]);
    }

    #[test]
    fn an_internal_network_has_no_way_out() {
        let mut leases = Leases::default();
        let mut net = Network { internal: true, ..network(&["10.0.0.0/24"]) };
        leases.reserve(&mut net, |_| true).unwrap();
        assert_eq!(leases.allocate(&net, "a", &Wanted::default()).unwrap().gateway, None);
        let mut net = network(&["10.0.1.0/24"]);
        net.pools[0].auxiliary.insert("DefaultGatewayIPv4".into(), "10.0.1.9".parse().unwrap());
        leases.reserve(&mut net, |_| true).unwrap();
        let given = leases.allocate(&net, "b", &Wanted::default()).unwrap();
        assert_eq!(
            (ip(&given), given.gateway.unwrap().to_string()),
            ("10.0.1.2/24".into(), "10.0.1.9".into())
        );
        net.config_only = true;
        assert!(leases.allocate(&net, "c", &Wanted::default()).is_err());
    }
}
