//! Real packets between network namespaces: a host with bridges, containers, and a neighbour.

mod coexistence;
mod modes;
mod site;

use std::net::IpAddr;

use site::{Node, Site, nft};

use super::{Firewall, Protocol, Publication};
use crate::daemon::config::Config;
use crate::daemon::networks::network::{Network, Pool, option};

fn network(name: &str, subnets: &[&str], options: &[(&str, &str)]) -> Network {
    let pool = |text: &&str| Pool {
        subnet: text.parse().unwrap(),
        range: None,
        gateway: None,
        auxiliary: Default::default(),
        is_chosen: true,
    };
    Network {
        id: format!("{name:0<64}"),
        name: name.to_owned(),
        ipv4: subnets.iter().any(|text| text.contains('.')),
        ipv6: subnets.iter().any(|text| text.contains(':')),
        pools: subnets.iter().map(pool).collect(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        ..Network::default()
    }
}

/// A firewall of a daemon that has started.
fn start(config: &Config) -> Firewall {
    let firewall = Firewall::open(config);
    firewall.synchronize().unwrap();
    firewall
}

fn leads(network: &Network, host: &str, host_port: u16, to: &str) -> [Publication; 2] {
    [Protocol::Tcp, Protocol::Udp].map(|protocol| Publication {
        protocol,
        host: host.parse().unwrap(),
        host_port,
        to: to.parse().unwrap(),
        to_port: 80,
        network: network.id.clone(),
    })
}

/// Both of a node's ways to a port, which must agree: the client's address as the server saw it, or nothing.
fn seen(from: &Node, address: &str, port: u16) -> Option<String> {
    let address: IpAddr = address.parse().unwrap();
    let (tcp, udp) = (from.tcp(address, port), from.udp(address, port));
    assert_eq!(tcp, udp, "TCP and UDP to {address}:{port}");
    tcp
}

const FOUR_AND_SIX: [&[&str]; 2] = [&["172.31.1.0/24", "fd01::/64"], &["172.31.2.0/24", "fd02::/64"]];

/// The seven ways to a published port, and the two that must be closed; with and without br_netfilter looking
/// into bridges.
#[test]
fn published_ports_are_reached_and_nothing_else() {
    for is_bridge_filtered in [true, false] {
        Site::run(is_bridge_filtered, move |site| {
            let firewall = start(&Config::default());
            let one = network("one", FOUR_AND_SIX[0], &[]);
            let two = network("two", FOUR_AND_SIX[1], &[]);
            firewall.add_network(&one, "br1").unwrap();
            firewall.add_network(&two, "br2").unwrap();
            let mut list = Vec::new();
            for (any, to) in [("0.0.0.0", "172.31.1.2"), ("::", "fd01::2")] {
                list.extend(leads(&one, any, 8080, to));
            }
            list.extend(leads(&one, "127.0.0.1", 8081, "172.31.1.2"));
            list.extend(leads(&one, "192.0.2.1", 8082, "172.31.1.2"));
            list.extend(leads(&one, "2001:db8::1", 8082, "fd01::2"));
            firewall.publish("c1", &list).unwrap();
            let [c1, c2, c3] = &site.containers;
            for (host, lan, neighbour, gateways, own, second, third) in [
                (
                    "192.0.2.1",
                    "192.0.2.2",
                    &site.neighbour,
                    ["172.31.1.1", "172.31.2.1"],
                    "172.31.1.2",
                    "172.31.1.3",
                    "172.31.2.2",
                ),
                (
                    "2001:db8::1",
                    "2001:db8::2",
                    &site.neighbour,
                    ["fd01::1", "fd02::1"],
                    "fd01::2",
                    "fd01::3",
                    "fd02::2",
                ),
            ] {
                let some = |text: &str| Some(text.to_owned());
                for port in [8080, 8082] {
                    assert_eq!(seen(neighbour, host, port), some(lan), "from outside");
                    assert_eq!(seen(&site.host, host, port), some(host), "from the host");
                    assert_eq!(seen(c1, host, port), some(gateways[0]), "from itself");
                    assert_eq!(seen(c2, host, port), some(gateways[0]), "from its network");
                    assert_eq!(seen(c3, host, port), some(third), "from another network");
                }
                assert_eq!(seen(&site.host, own, 80), some(gateways[0]), "the host, directly");
                assert_eq!(seen(c2, own, 80), some(second), "its network, directly");
                assert_eq!(seen(c1, lan, 80), some(host), "out");
                assert_eq!(seen(c3, own, 80), None, "another network, directly");
                assert_eq!(seen(neighbour, own, 80), None, "a neighbour who knows the way");
                assert_eq!(seen(neighbour, host, 8083), None, "not published");
            }
            assert_eq!(seen(&site.host, "127.0.0.1", 8080).as_deref(), Some("172.31.1.1"), "loopback");
            assert_eq!(
                seen(&site.host, "127.0.0.1", 8081).as_deref(),
                Some("172.31.1.1"),
                "on loopback only"
            );
            assert_eq!(seen(&site.host, "192.0.2.1", 8081), None);
            assert_eq!(seen(&site.neighbour, "192.0.2.1", 8081), None);
            // Who sends what is for the loopback to the neighbour's card.
            site.neighbour.ip("addr del 127.0.0.1/8 dev lo");
            site.neighbour.ip("route add 127.0.0.0/8 via 192.0.2.1 src 192.0.2.2");
            site.host.write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1");
            assert_eq!(
                seen(&site.neighbour, "127.0.0.1", 8081),
                None,
                "published on loopback is for the host"
            );
            // A container who does has the bridge's route_localnet on its side, and must not reach the host's own.
            site.host.serve("127.0.0.1", 9000);
            assert_eq!(seen(&site.host, "127.0.0.1", 9000).as_deref(), Some("127.0.0.1"));
            c1.ip("addr del 127.0.0.1/8 dev lo");
            c1.ip("route add 127.0.0.0/8 via 172.31.1.1 src 172.31.1.2");
            assert_eq!(seen(c1, "127.0.0.1", 9000), None);
            firewall.unpublish("c1").unwrap();
            assert_eq!(seen(&site.neighbour, "192.0.2.1", 8080), None);
            assert_eq!(seen(&site.neighbour, "2001:db8::1", 8080), None);
            firewall.remove_network(&one.id).unwrap();
            firewall.remove_network(&two.id).unwrap();
            assert_eq!(nft("list ruleset"), "", "nothing is left");
        });
    }
}
