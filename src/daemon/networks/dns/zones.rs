//! Names and addresses of the containers in each network, and who sees them under which.
//!
//! A container sees the names of the networks it is in, each as it is and followed by the network's name, and
//! its own links on top. What it sees first is what it gets: networks are asked in its own order.
//!
//! Source: Docker's behaviour (`ResolveName` of its network library).

use std::collections::HashMap;
use std::net::IpAddr;

/// One container's way to look at names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The networks it is in, the one asked first in front.
    pub networks: Vec<Seen>,
    /// Names that only it uses for others.
    pub links: Vec<Link>,
    pub upstreams: Upstreams,
    /// Somebody set `ndots`: a name without a dot is not to leave the host, the search list comes first.
    pub has_ndots: bool,
    /// It has a way out by IPv6.
    pub has_ipv6: bool,
}

/// A network as a container sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    pub id: String,
    pub name: String,
}

/// `--link` in a network of the user's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The network's id.
    pub network: String,
    pub alias: String,
    /// The other container's id, or one of its names in the network.
    pub target: String,
}

/// Who is asked about names that are no container's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Upstreams {
    /// Those of the host.
    #[default]
    Host,
    /// `--dns`: seen from the container, loopback addresses included.
    Given(Vec<IpAddr>),
    /// Nobody: there is no way out.
    Nobody,
}

/// Which addresses are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
    Both,
}

impl Family {
    fn has(self, address: &IpAddr) -> bool {
        match self {
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
            Family::Both => true,
        }
    }
}

/// The names of all networks, by the network's id.
#[derive(Debug, Default)]
pub struct Zones(HashMap<String, Zone>);

#[derive(Debug, Default)]
struct Zone {
    /// By container.
    members: HashMap<String, Member>,
    /// The containers that have a name, by the name in lower case.
    names: HashMap<String, Vec<String>>,
}

#[derive(Debug)]
struct Member {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Zones {
    /// Gives a container's names in a network their addresses, instead of those it had there.
    pub fn join(&mut self, network: &str, container: &str, names: &[String], addresses: &[IpAddr]) {
        self.leave(network, container);
        let zone = self.0.entry(network.to_owned()).or_default();
        for name in names {
            let holders = zone.names.entry(name.to_lowercase()).or_default();
            if !holders.iter().any(|holder| holder == container) {
                holders.push(container.to_owned());
            }
        }
        let member = Member { names: names.to_vec(), addresses: addresses.to_vec() };
        zone.members.insert(container.to_owned(), member);
    }

    /// Takes a container's names in a network away; it may have none.
    pub fn leave(&mut self, network: &str, container: &str) {
        let Some(zone) = self.0.get_mut(network) else { return };
        let Some(member) = zone.members.remove(container) else { return };
        for name in member.names {
            let name = name.to_lowercase();
            if let Some(holders) = zone.names.get_mut(&name) {
                holders.retain(|holder| holder != container);
                if holders.is_empty() {
                    zone.names.remove(&name);
                }
            }
        }
        if zone.members.is_empty() {
            self.0.remove(network);
        }
    }

    /// The addresses of a name in lower case; `None` when the view has no such name, empty when it has, but
    /// none of this family.
    pub fn resolve(&self, view: &View, name: &str, family: Family) -> Option<Vec<IpAddr>> {
        if let Some(found) = self.find(view, name, None, family) {
            return Some(found);
        }
        // `a.b.c`: `a.b` in network `c`, then `a` in network `b.c`.
        name.rmatch_indices('.')
            .find_map(|(dot, _)| self.find(view, &name[..dot], Some(&name[dot + 1..]), family))
    }

    fn find(&self, view: &View, name: &str, network: Option<&str>, family: Family) -> Option<Vec<IpAddr>> {
        let mut known = None;
        let seen = || {
            view.networks
                .iter()
                .filter(|seen| network.is_none_or(|name| seen.name.eq_ignore_ascii_case(name)))
        };
        let linked = |seen: &Seen| {
            let link = |link: &&Link| link.network == seen.id && link.alias.eq_ignore_ascii_case(name);
            view.links.iter().find(link).map(|link| link.target.to_lowercase())
        };
        for (id, target) in seen()
            .filter_map(|seen| Some((&seen.id, linked(seen)?)))
            .chain(seen().filter(|seen| linked(seen).is_none()).map(|seen| (&seen.id, name.to_owned())))
        {
            let Some(found) = self.0.get(id).and_then(|zone| zone.addresses(&target, family)) else {
                continue;
            };
            if !found.is_empty() {
                return Some(found);
            }
            known = Some(found);
        }
        known
    }

    /// The name behind an address: a container's first, with its network's behind.
    pub fn reverse(&self, view: &View, address: IpAddr) -> Option<String> {
        view.networks.iter().find_map(|seen| {
            let zone = self.0.get(&seen.id)?;
            let member = zone.members.values().find(|member| member.addresses.contains(&address))?;
            Some(format!("{}.{}", member.names.first()?, seen.name))
        })
    }
}

impl Zone {
    /// Of a container by its id, or of all that have the name; `None` for neither.
    fn addresses(&self, target: &str, family: Family) -> Option<Vec<IpAddr>> {
        let of = |container: &str| {
            let addresses = self.members.get(container).map(|member| member.addresses.as_slice());
            addresses.unwrap_or_default().iter().copied().filter(|address| family.has(address))
        };
        if self.members.contains_key(target) {
            return Some(of(target).collect());
        }
        Some(self.names.get(target)?.iter().flat_map(|container| of(container)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn view(networks: &[&str]) -> View {
        let seen = |name: &&str| Seen { id: format!("id-{name}"), name: (*name).to_owned() };
        View { networks: networks.iter().map(seen).collect(), ..View::default() }
    }

    fn zones() -> Zones {
        let mut zones = Zones::default();
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        zones.join(
            "id-front",
            "c1",
            &names(&["Web", "app", "0123456789ab"]),
            &[ip("10.1.0.2"), ip("fd01::2")],
        );
        zones.join("id-front", "c2", &names(&["web2", "app"]), &[ip("10.1.0.3")]);
        zones.join("id-back", "c1", &names(&["Web", "db"]), &[ip("10.2.0.2")]);
        zones.join("id-other", "c3", &names(&["secret"]), &[ip("10.3.0.2")]);
        zones
    }

    #[test]
    fn names_are_seen_in_the_networks_one_is_in() {
        let zones = zones();
        let front = view(&["front"]);
        let resolve = |view: &View, name: &str| zones.resolve(view, name, Family::V4);
        assert_eq!(resolve(&front, "web"), Some(vec![ip("10.1.0.2")]));
        assert_eq!(resolve(&front, "web.front"), Some(vec![ip("10.1.0.2")]));
        assert_eq!(resolve(&front, "app"), Some(vec![ip("10.1.0.2"), ip("10.1.0.3")]));
        assert_eq!(resolve(&front, "0123456789ab"), Some(vec![ip("10.1.0.2")]));
        for unknown in ["db", "web.back", "secret", "secret.other", "", ".", "front", ".front"] {
            assert_eq!(resolve(&front, unknown), None, "{unknown}");
        }
        assert_eq!(
            resolve(&view(&["back", "front"]), "web"),
            Some(vec![ip("10.2.0.2")]),
            "the first network"
        );
        assert_eq!(resolve(&view(&["back", "front"]), "web.front"), Some(vec![ip("10.1.0.2")]));
    }

    #[test]
    fn a_name_without_addresses_of_a_family_is_still_a_name() {
        let zones = zones();
        let both = view(&["back", "front"]);
        assert_eq!(zones.resolve(&both, "web2", Family::V6), Some(Vec::new()));
        assert_eq!(
            zones.resolve(&both, "web", Family::V6),
            Some(vec![ip("fd01::2")]),
            "in the second network"
        );
        assert_eq!(
            zones.resolve(&both, "web.front", Family::Both),
            Some(vec![ip("10.1.0.2"), ip("fd01::2")])
        );
        assert_eq!(zones.resolve(&both, "nobody", Family::V6), None);
    }

    #[test]
    fn links_are_their_owners_alone() {
        let zones = zones();
        let mut linked = view(&["front"]);
        let link = |alias: &str, target: &str| Link {
            network: "id-front".to_owned(),
            alias: alias.to_owned(),
            target: target.to_owned(),
        };
        linked.links =
            vec![link("DB", "c2"), link("other", "WEB"), link("web", "web2"), link("gone", "nobody")];
        let resolve = |name: &str| zones.resolve(&linked, name, Family::V4);
        assert_eq!(resolve("db"), Some(vec![ip("10.1.0.3")]));
        assert_eq!(resolve("db.front"), Some(vec![ip("10.1.0.3")]));
        assert_eq!(resolve("other"), Some(vec![ip("10.1.0.2")]));
        assert_eq!(resolve("web"), Some(vec![ip("10.1.0.3")]), "a link hides a name");
        assert_eq!(resolve("gone"), None);
        assert_eq!(zones.resolve(&view(&["front"]), "db", Family::V4), None);
    }

    #[test]
    fn addresses_have_the_first_name() {
        let zones = zones();
        assert_eq!(zones.reverse(&view(&["back", "front"]), ip("10.1.0.3")).as_deref(), Some("web2.front"));
        assert_eq!(zones.reverse(&view(&["front"]), ip("fd01::2")).as_deref(), Some("Web.front"));
        assert_eq!(zones.reverse(&view(&["front"]), ip("10.2.0.2")), None);
    }

    #[test]
    fn who_leaves_leaves_nothing() {
        let mut zones = zones();
        zones.join("id-front", "c2", &["new".to_owned()], &[ip("10.1.0.9")]);
        let front = view(&["front"]);
        assert_eq!(zones.resolve(&front, "web2", Family::V4), None, "names are replaced");
        assert_eq!(zones.resolve(&front, "new", Family::V4), Some(vec![ip("10.1.0.9")]));
        for (network, container) in [
            ("id-front", "c1"),
            ("id-front", "c2"),
            ("id-back", "c1"),
            ("id-other", "c3"),
            ("id-other", "c3"),
        ] {
            zones.leave(network, container);
        }
        assert!(zones.0.is_empty());
    }
}
