//! Networks that are not as most are.

use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType};

use super::site::Site;
use super::{Config, FOUR_AND_SIX, leads, network, option, seen, start};
use crate::daemon::networks::firewall::needs_isolation;
use crate::daemon::networks::ports;
use crate::runtime::netlink::{Protocol, Socket, link};

/// The addresses of the first container, of the neighbour and of the host, by family.
const BOTH: [[&str; 4]; 2] = [
    ["172.31.1.2", "172.31.1.3", "192.0.2.2", "192.0.2.1"],
    ["fd01::2", "fd01::3", "2001:db8::2", "2001:db8::1"],
];

#[test]
fn an_internal_network_leads_nowhere() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let mut one = network("one", FOUR_AND_SIX[0], &[]);
        one.internal = true;
        let two = network("two", FOUR_AND_SIX[1], &[]);
        firewall.add_network(&one, "br1").unwrap();
        firewall.add_network(&two, "br2").unwrap();
        let list = [leads(&two, "0.0.0.0", 8080, "172.31.2.2"), leads(&two, "::", 8080, "fd02::2")].concat();
        firewall.publish("c3", &list).unwrap();
        let [c1, c2, c3] = &site.containers;
        for [own, second, lan, host] in BOTH {
            assert_eq!(seen(c2, own, 80).as_deref(), Some(second), "each other");
            assert_eq!(seen(c1, lan, 80), None, "out");
            assert_eq!(seen(&site.neighbour, own, 80), None, "in");
            assert_eq!(seen(c3, own, 80), None, "from another network");
            assert_eq!(seen(c1, host, 8080), None, "through a published port");
            assert_eq!(seen(&site.neighbour, host, 8080).as_deref(), Some(lan));
        }
    });
}

#[test]
fn ports_are_isolated_where_rules_do_not_see_bridges() {
    let quiet = network("one", FOUR_AND_SIX[0], &[(option::ICC, "false")]);
    let chatty = network("one", FOUR_AND_SIX[0], &[]);
    for is_bridge_filtered in [true, false] {
        let (quiet, chatty) = (quiet.clone(), chatty.clone());
        Site::run(is_bridge_filtered, move |site| {
            assert!(!needs_isolation(&chatty));
            assert_eq!(needs_isolation(&quiet), !is_bridge_filtered);
            let firewall = start(&Config::default());
            firewall.add_network(&quiet, "br1").unwrap();
            let list =
                [leads(&quiet, "0.0.0.0", 8080, "172.31.1.2"), leads(&quiet, "::", 8080, "fd01::2")].concat();
            firewall.publish("c1", &list).unwrap();
            if needs_isolation(&quiet) {
                let mut socket = Socket::open(Protocol::Route).unwrap();
                for name in ["vebr12", "vebr13"] {
                    let mut port = link::change(link::Which::Name(name), None);
                    link::hairpin(&mut port, true);
                    socket.run(&[port]).unwrap();
                }
            }
            let [c1, c2, _] = &site.containers;
            for [own, _, lan, host] in BOTH {
                assert_eq!(seen(c2, own, 80), None);
                assert!(seen(c2, host, 8080).is_some(), "published");
                assert!(seen(c1, host, 8080).is_some(), "its own");
                assert_eq!(seen(c1, lan, 80).as_deref(), Some(host), "out");
            }
        });
    }
}

#[test]
fn a_routed_network_is_reached_at_its_own_addresses() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let modes = [(option::GATEWAY_MODE_IPV4, "routed"), (option::GATEWAY_MODE_IPV6, "routed")];
        let one = network("one", FOUR_AND_SIX[0], &modes);
        firewall.add_network(&one, "br1").unwrap();
        let list = [leads(&one, "0.0.0.0", 0, "172.31.1.2"), leads(&one, "::", 0, "fd01::2")].concat();
        firewall.publish("c1", &list).unwrap();
        site.containers[0].serve("172.31.1.2", 81);
        site.containers[0].serve("fd01::2", 81);
        for [own, second, lan, host] in BOTH {
            assert_eq!(seen(&site.neighbour, own, 80).as_deref(), Some(lan), "published");
            assert_eq!(seen(&site.neighbour, own, 81), None, "not published");
            assert_eq!(seen(&site.neighbour, second, 80), None, "nothing published");
            assert_eq!(seen(&site.neighbour, host, 80), None, "not the host's");
            assert_eq!(seen(&site.containers[0], lan, 80).as_deref(), Some(own), "out, with its own address");
            site.neighbour.ping(own);
        }
        firewall.unpublish("c1").unwrap();
        assert_eq!(seen(&site.neighbour, "172.31.1.2", 80), None);
    });
}

#[test]
fn an_unprotected_network_is_reached_directly_too() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let modes =
            [(option::GATEWAY_MODE_IPV4, "nat-unprotected"), (option::GATEWAY_MODE_IPV6, "nat-unprotected")];
        let one = network("one", FOUR_AND_SIX[0], &modes);
        firewall.add_network(&one, "br1").unwrap();
        for [own, _, lan, host] in BOTH {
            assert_eq!(seen(&site.neighbour, own, 80).as_deref(), Some(lan), "not published");
            assert_eq!(seen(&site.containers[0], lan, 80).as_deref(), Some(host), "out");
        }
    });
}

#[test]
fn direct_routing_is_for_published_ports_and_whom_it_is_allowed() {
    Site::run(true, |site| {
        let mut config = Config::default();
        config.network.allow_direct_routing = true;
        let check = |config: &Config, options: &[(&str, &str)], is_allowed: bool| {
            let firewall = start(config);
            let one = network("one", FOUR_AND_SIX[0], options);
            firewall.add_network(&one, "br1").unwrap();
            let list =
                [leads(&one, "0.0.0.0", 8080, "172.31.1.2"), leads(&one, "::", 8080, "fd01::2")].concat();
            firewall.publish("c1", &list).unwrap();
            for [own, second, lan, host] in BOTH {
                let wanted = is_allowed.then_some(lan);
                assert_eq!(seen(&site.neighbour, own, 80).as_deref(), wanted, "{options:?}");
                assert_eq!(seen(&site.neighbour, second, 80), None, "not published");
                assert_eq!(seen(&site.neighbour, host, 8080).as_deref(), Some(lan));
            }
            firewall.uninstall();
        };
        check(&config, &[], true);
        check(&Config::default(), &[(option::TRUSTED_INTERFACES, "eth7:eth0")], true);
        check(&Config::default(), &[(option::TRUSTED_INTERFACES, "eth7")], false);
    });
}

#[test]
fn without_masquerade_containers_keep_their_addresses() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let one = network("one", FOUR_AND_SIX[0], &[(option::MASQUERADE, "false")]);
        firewall.add_network(&one, "br1").unwrap();
        for [own, _, lan, _] in BOTH {
            assert_eq!(seen(&site.containers[0], lan, 80).as_deref(), Some(own));
        }
        // The network is made anew with what is asked now.
        firewall.add_network(&network("one", FOUR_AND_SIX[0], &[]), "br1").unwrap();
        for [_, _, lan, host] in BOTH {
            assert_eq!(seen(&site.containers[0], lan, 80).as_deref(), Some(host));
        }
    });
}

#[test]
fn a_network_speaks_to_the_world_with_the_address_it_was_given() {
    Site::run(true, |site| {
        site.host.ip("addr add 192.0.2.9/24 dev eth0");
        // Deprecated, so that the kernel would not choose it by itself.
        site.host.ip("addr add 2001:db8::9/64 dev eth0 nodad preferred_lft 0");
        let firewall = start(&Config::default());
        let chosen = [(option::HOST_IPV4, "192.0.2.9"), (option::HOST_IPV6, "2001:db8::9")];
        firewall.add_network(&network("one", FOUR_AND_SIX[0], &chosen), "br1").unwrap();
        firewall.add_network(&network("two", FOUR_AND_SIX[1], &[]), "br2").unwrap();
        let [c1, _, c3] = &site.containers;
        for ([_, _, lan, host], address) in BOTH.into_iter().zip(["192.0.2.9", "2001:db8::9"]) {
            assert_eq!(seen(c1, lan, 80).as_deref(), Some(address));
            assert_eq!(seen(c3, lan, 80).as_deref(), Some(host), "another network");
        }
        // The network is made anew without.
        firewall.add_network(&network("one", FOUR_AND_SIX[0], &[]), "br1").unwrap();
        for [_, _, lan, host] in BOTH {
            assert_eq!(seen(c1, lan, 80).as_deref(), Some(host));
        }
    });
}

/// A client that goes on sending is led where the port leads now: not to the host, where nothing was, nor to a
/// container that is gone.
#[test]
fn datagrams_of_a_patient_client_follow_the_port() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let one = network("one", FOUR_AND_SIX[0], &[]);
        firewall.add_network(&one, "br1").unwrap();
        for (any, host, first, second) in [
            ("0.0.0.0", "192.0.2.1:8080", "172.31.1.2", "172.31.1.3"),
            ("::", "[2001:db8::1]:8080", "fd01::2", "fd01::3"),
        ] {
            let client = site.neighbour.run(move || {
                let socket = UdpSocket::bind((any, 0)).unwrap();
                socket.connect(host).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
                socket
            });
            // A refusal of before is taken with the first.
            let answers =
                || (0..2).any(|_| client.send(b"?").and_then(|_| client.recv(&mut [0; 64])).is_ok());
            let eventually = |is_answered: bool| {
                (0..20).any(|_| {
                    thread::sleep(Duration::from_millis(50));
                    answers() == is_answered
                })
            };
            // Bound, as a held port is, so that the flow is known and nobody refuses.
            let held = site.host.run(move || UdpSocket::bind((any, 8080)).unwrap());
            assert!(!answers());
            firewall.publish("c1", &leads(&one, any, 8080, first)).unwrap();
            assert!(eventually(true), "{host}: published");
            firewall.unpublish("c1").unwrap();
            assert!(eventually(false), "{host}: not published");
            firewall.publish("c2", &leads(&one, any, 8080, second)).unwrap();
            assert!(eventually(true), "{host}: another");
            drop(held);
            firewall.unpublish("c2").unwrap();
        }
    });
}

/// The first packet of an SCTP association, by hand: not every kernel has its sockets, and leading needs none.
fn init(from: u16, to: u16) -> Vec<u8> {
    let mut packet = [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0; 8]].concat();
    // Chunk INIT of 20 bytes: tag, window, streams out and in, first number.
    packet.extend([1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    // CRC-32C
    let sum = packet.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0x82f6_3b78 } else { 0 })
    });
    packet[8..12].copy_from_slice(&(!sum).to_le_bytes());
    packet
}

#[test]
fn sctp_is_led_like_the_others() {
    Site::run(true, |site| {
        let firewall = start(&Config::default());
        let one = network("one", FOUR_AND_SIX[0], &[]);
        firewall.add_network(&one, "br1").unwrap();
        let mut list = leads(&one, "0.0.0.0", 8080, "172.31.1.2").to_vec();
        list.truncate(1);
        list[0].protocol = ports::Protocol::Sctp;
        let raw = || {
            let number = Some(rustix::net::ipproto::SCTP);
            let socket = rustix::net::socket(AddressFamily::INET, SocketType::RAW, number).unwrap();
            set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_millis(500))).unwrap();
            socket
        };
        let [c1, ..] = &site.containers;
        let (sender, receiver) = (site.neighbour.run(raw), c1.run(raw));
        let hears = |port: u16| {
            let to: SocketAddr = "192.0.2.1:0".parse().unwrap();
            rustix::net::sendto(&sender, &init(port, 8080), SendFlags::empty(), &to).unwrap();
            let mut buffer = [0; 128];
            rustix::net::recv(&receiver, &mut buffer[..], RecvFlags::empty()).map(|_| buffer)
        };
        assert!(hears(5000).is_err());
        firewall.publish("c1", &list).unwrap();
        // Another association than the one that was led nowhere.
        let buffer = hears(5001).unwrap();
        assert_eq!(buffer[12..16], [192, 0, 2, 2], "from the neighbour");
        assert_eq!(buffer[20..24], [5001_u16.to_be_bytes(), 80_u16.to_be_bytes()].concat(), "to port 80");
    });
}
