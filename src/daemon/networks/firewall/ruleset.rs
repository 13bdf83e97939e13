//! The rules as they are written into the kernel: one table per family, the same for both but for a few words.
//!
//! ```text
//! table ip dewar {
//!   map pub_any { inet_proto . inet_service : ipv4_addr . inet_service }               -p 8080:80
//!   map pub_ip { inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service }    -p 127.0.0.1:8080:80
//!   set bridges { ifname }          all of ours
//!   set same { ifname . ifname }    containers of it may speak to each other
//!   set inside { ifname }           internal networks
//!   set masked { ifname }           its containers speak to the world with the host's address
//!   set direct { ifname }           published ports are reached at the containers' own addresses, too
//!   set trusted { ifname . ifname } the same, for packets from a certain interface
//!   set routed { ifname }           and pings
//!   set bare { ifname }             everything is reached at the containers' own addresses
//!   set open { inet_proto . ipv4_addr . inet_service }   the ports that `direct` and `trusted` speak of
//!   set linked { ipv4_addr . ipv4_addr . inet_proto . inet_service }     who may speak to which port of whom by a link
//!   map sources { ifname : ipv4_addr }   and of these, whose the network chose
//!   map own { ifname : verdict }    to the network's chain `own-…`: ip saddr NET masquerade
//!
//!   raw   ip daddr 127.0.0.0/8 iifname @bridges drop
//!   pre   ip daddr 127.0.0.0/8 return ; fib daddr type local jump publish     (IPv6: from fe80::/10 return)
//!   out   fib daddr type local jump publish                                   (IPv6: to ::1 return)
//!   publish   dnat to proto . daddr . dport map @pub_ip ; dnat to proto . dport map @pub_any
//!   post  ip saddr 127.0.0.0/8 oifname @bridges masquerade
//!         oifname != @bridges snat to iifname map @sources
//!         iifname @masked oifname != @bridges masquerade
//!         ct status dnat oifname vmap @own
//!   forw  ct state established,related accept
//!         iifname . oifname @same accept
//!         saddr . daddr . proto . dport @linked accept
//!         iifname @inside drop ; oifname @inside drop
//!         ct status dnat accept
//!         oifname @direct proto . daddr . dport @open accept
//!         iifname . oifname @trusted proto . daddr . dport @open accept
//!         oifname @routed proto icmp accept
//!         oifname @bare accept
//!         oifname @bridges drop
//! }
//! ```
//!
//! `raw` is what keeps a bridge's route_localnet (which leading 127.0.0.1 to a container needs) from opening the
//! host's loopback to containers, and `pre`'s first rule what keeps neighbours from ports published on it.
//! A container that reaches a published port of its own network would be answered by the other directly: the
//! chains of `own` make it speak with the bridge's address. They go by addresses, because with br_netfilter such a
//! packet never enters by an interface. Between networks the source is kept.
//!
//! A change of anything but the sets' elements would be a change of all hosts' rules at the daemon's next start.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::network::{Network, option};
use super::super::ports::Publication;
use super::super::subnet::Subnet;
use super::Passage;
use crate::runtime::nftables::rule::{End, Part};
use crate::runtime::nftables::{Batch, Element, Family, Hook, Key, Leads, Table, Type, Value};

const RAW: Hook = Hook::new("filter", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_RAW);
const PRE: Hook = Hook::new("nat", libc::NF_INET_PRE_ROUTING, libc::NF_IP_PRI_NAT_DST);
const OUT: Hook = Hook::new("nat", libc::NF_INET_LOCAL_OUT, libc::NF_IP_PRI_NAT_DST);
const POST: Hook = Hook::new("nat", libc::NF_INET_POST_ROUTING, libc::NF_IP_PRI_NAT_SRC);
const FORW: Hook = Hook::new("filter", libc::NF_INET_FORWARD, libc::NF_IP_PRI_FILTER);

const LOOPBACK: Subnet = Subnet { address: IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), prefix: 8 };
const LINK_LOCAL: Subnet =
    Subnet { address: IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0)), prefix: 10 };

/// What a network asks of one family's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    pub bridge: String,
    subnets: Vec<Subnet>,
    talks: bool,
    internal: bool,
    masked: bool,
    /// What masked packets get, where the network says which of the host's addresses.
    source: Option<IpAddr>,
    mode: Mode,
    direct: bool,
    trusted: Vec<String>,
}

/// Docker's gateway modes; `isolated` is an internal network whose bridge has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Nat,
    Bare,
    Routed,
}

impl Area {
    /// `None` for a network without the family.
    pub fn of(network: &Network, bridge: &str, family: Family, is_direct: bool) -> Option<Area> {
        let is_six = family == Family::Ip6;
        if !(if is_six { network.ipv6 } else { network.ipv4 }) {
            return None;
        }
        let key = if is_six { option::GATEWAY_MODE_IPV6 } else { option::GATEWAY_MODE_IPV4 };
        let mode = match network.options.get(key).map(String::as_str) {
            Some("nat-unprotected") => Mode::Bare,
            Some("routed") => Mode::Routed,
            _ => Mode::Nat,
        };
        let trusted = network.options.get(option::TRUSTED_INTERFACES).map(String::as_str).unwrap_or_default();
        let masked = network.switch(option::MASQUERADE, true) && mode != Mode::Routed && !network.internal;
        let source = if is_six { option::HOST_IPV6 } else { option::HOST_IPV4 };
        let source = network.options.get(source).and_then(|address| address.parse().ok());
        Some(Area {
            bridge: bridge.to_owned(),
            subnets: network.pools_of(is_six).map(|pool| pool.subnet).collect(),
            talks: network.switch(option::ICC, true),
            internal: network.internal,
            masked,
            source: source.filter(|address: &IpAddr| masked && address.is_ipv6() == is_six),
            mode,
            direct: is_direct || mode == Mode::Routed,
            trusted: trusted.split(':').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// Published ports are reached at the containers' own addresses, by some at least.
    pub fn is_open(&self) -> bool {
        self.direct || !self.trusted.is_empty()
    }

    fn chain(&self) -> String {
        format!("own-{}", self.bridge)
    }

    /// The elements that stand for the network, by set.
    fn elements(&self) -> Vec<(&'static str, Vec<Element>)> {
        let one = || vec![Key::new().interface(&self.bridge).element()];
        let from = |name: &str| Key::new().interface(name).interface(&self.bridge).element();
        let mut sets = vec![("bridges", one())];
        let mut put = |set, is_in: bool| {
            if is_in {
                sets.push((set, one()));
            }
        };
        put("inside", self.internal);
        put("masked", self.masked);
        put("direct", self.direct && !self.internal);
        put("routed", self.mode == Mode::Routed && !self.internal);
        put("bare", self.mode == Mode::Bare && !self.internal);
        if self.talks {
            sets.push(("same", vec![from(&self.bridge)]));
        }
        if !self.trusted.is_empty() && !self.internal {
            sets.push(("trusted", self.trusted.iter().map(|name| from(name)).collect()));
        }
        if let Some(source) = self.source {
            let value = Value::Bytes(Key::new().address(source).bytes());
            sets.push(("sources", vec![Key::new().interface(&self.bridge).leads(value)]));
        }
        let to_own = Key::new().interface(&self.bridge).leads(Value::Jump(self.chain()));
        sets.push(("own", vec![to_own]));
        sets
    }

    /// Adds the network to a table that lacks it.
    pub fn add(&self, batch: &mut Batch, table: &Table) {
        let chain = self.chain();
        batch.add_chain(table, &chain, None);
        for subnet in &self.subnets {
            batch.add_rule(table, &chain, &mut |rule| {
                rule.in_range(table.family, End::Source, subnet.address, subnet.prefix).masquerade();
            });
        }
        for (set, elements) in self.elements() {
            batch.add_elements(table, set, &elements);
        }
    }

    /// Takes the network out of a table that has it.
    pub fn remove(&self, batch: &mut Batch, table: &Table) {
        for (set, elements) in self.elements() {
            batch.delete_elements(table, set, &elements);
        }
        batch.delete_chain(table, &self.chain());
    }
}

/// The elements of a container's published ports in one family, by set: in order, each once.
pub fn published(
    family: Family,
    list: &[Publication],
    is_open: impl Fn(&Publication) -> bool,
) -> [(&'static str, Vec<Element>); 3] {
    let mut sets = [("pub_any", Vec::new()), ("pub_ip", Vec::new()), ("open", Vec::new())];
    for one in list.iter().filter(|one| one.to.is_ipv6() == (family == Family::Ip6)) {
        let protocol = Key::new().protocol(one.protocol.number());
        if one.host_port != 0 {
            let to = Value::Bytes(Key::new().address(one.to).port(one.to_port).bytes());
            match one.host.is_unspecified() {
                true => sets[0].1.push(protocol.clone().port(one.host_port).leads(to)),
                false => sets[1].1.push(protocol.clone().address(one.host).port(one.host_port).leads(to)),
            }
        }
        if is_open(one) {
            sets[2].1.push(protocol.address(one.to).port(one.to_port).element());
        }
    }
    for (_, elements) in &mut sets {
        elements.sort();
        elements.dedup();
    }
    sets
}

/// The elements of passages in one family: in order, each once.
pub fn linked(family: Family, list: &[Passage]) -> Vec<Element> {
    let of_family = list.iter().filter(|one| one.to.is_ipv6() == (family == Family::Ip6));
    let mut elements: Vec<Element> = of_family
        .map(|one| {
            let between = Key::new().address(one.from).address(one.to);
            between.protocol(one.protocol.number()).port(one.port).element()
        })
        .collect();
    elements.sort();
    elements.dedup();
    elements
}

/// Replaces what there is of a table by an empty ruleset.
pub fn install(batch: &mut Batch, table: &Table) {
    let family = table.family;
    batch.delete_table(table);
    batch.add_table(table);
    let address = if family == Family::Ip6 { Type::Ipv6 } else { Type::Ipv4 };
    let to = Leads::To(&[address, Type::Port]);
    batch.add_set(table, "pub_any", &[Type::Protocol, Type::Port], to);
    batch.add_set(table, "pub_ip", &[Type::Protocol, address, Type::Port], to);
    batch.add_set(table, "open", &[Type::Protocol, address, Type::Port], Leads::Nowhere);
    for name in ["bridges", "inside", "masked", "direct", "routed", "bare"] {
        batch.add_set(table, name, &[Type::Interface], Leads::Nowhere);
    }
    for name in ["same", "trusted"] {
        batch.add_set(table, name, &[Type::Interface, Type::Interface], Leads::Nowhere);
    }
    batch.add_set(table, "linked", &[address, address, Type::Protocol, Type::Port], Leads::Nowhere);
    batch.add_set(table, "sources", &[Type::Interface], Leads::To(&[address]));
    batch.add_set(table, "own", &[Type::Interface], Leads::Verdict);
    batch.add_chain(table, "publish", None);
    for (name, hook) in [("raw", RAW), ("pre", PRE), ("out", OUT), ("post", POST), ("forw", FORW)] {
        batch.add_chain(table, name, Some(hook));
    }
    let destination = Part::Address(family, End::Destination);
    let port = Part::Port(End::Destination);
    let both = [Part::InInterface, Part::OutInterface];
    let service = [Part::L4Protocol, destination, port];
    match family {
        Family::Ip => {
            batch.add_rule(table, "raw", &mut |rule| {
                // In this order: every packet comes by here.
                rule.in_range(family, End::Destination, LOOPBACK.address, LOOPBACK.prefix);
                rule.within(&[Part::InInterface], "bridges").drop();
            });
            batch.add_rule(table, "pre", &mut |rule| {
                rule.in_range(family, End::Destination, LOOPBACK.address, LOOPBACK.prefix).leave();
            });
            batch.add_rule(table, "post", &mut |rule| {
                rule.in_range(family, End::Source, LOOPBACK.address, LOOPBACK.prefix);
                rule.within(&[Part::OutInterface], "bridges").masquerade();
            });
        }
        Family::Ip6 => {
            // Nobody routes the answer to such an address.
            batch.add_rule(table, "pre", &mut |rule| {
                rule.in_range(family, End::Source, LINK_LOCAL.address, LINK_LOCAL.prefix).leave();
            });
            // No packet leaves the loopback with this source: the relay has these.
            batch.add_rule(table, "out", &mut |rule| {
                rule.equals(destination, &Ipv6Addr::LOCALHOST.octets()).leave();
            });
        }
    }
    for chain in ["pre", "out"] {
        batch.add_rule(table, chain, &mut |rule| {
            rule.is_to_the_host().jump("publish");
        });
    }
    batch.add_rule(table, "publish", &mut |rule| {
        rule.lead_by(family, &service, "pub_ip");
    });
    batch.add_rule(table, "publish", &mut |rule| {
        rule.lead_by(family, &[Part::L4Protocol, port], "pub_any");
    });
    batch.add_rule(table, "post", &mut |rule| {
        rule.not_within(&[Part::OutInterface], "bridges").source_by(family, Part::InInterface, "sources");
    });
    batch.add_rule(table, "post", &mut |rule| {
        rule.within(&[Part::InInterface], "masked").not_within(&[Part::OutInterface], "bridges").masquerade();
    });
    batch.add_rule(table, "post", &mut |rule| {
        rule.led().decide_by(Part::OutInterface, "own");
    });
    batch.add_rule(table, "forw", &mut |rule| {
        rule.established().accept();
    });
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&both, "same").accept();
    });
    let source = Part::Address(family, End::Source);
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&[source, destination, Part::L4Protocol, port], "linked").accept();
    });
    for end in both {
        batch.add_rule(table, "forw", &mut |rule| {
            rule.within(&[end], "inside").drop();
        });
    }
    batch.add_rule(table, "forw", &mut |rule| {
        rule.led().accept();
    });
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&[Part::OutInterface], "direct").within(&service, "open").accept();
    });
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&both, "trusted").within(&service, "open").accept();
    });
    let icmp = if family == Family::Ip6 { libc::IPPROTO_ICMPV6 } else { libc::IPPROTO_ICMP } as u8;
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&[Part::OutInterface], "routed").equals(Part::L4Protocol, &[icmp]).accept();
    });
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&[Part::OutInterface], "bare").accept();
    });
    batch.add_rule(table, "forw", &mut |rule| {
        rule.within(&[Part::OutInterface], "bridges").drop();
    });
}
