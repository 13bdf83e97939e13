//! IPv6: between containers, outwards, inwards, and off where it was not asked for.

use super::resolver::{A, AAAA, PTR, Way, ask, backwards};
use super::site::{HOST, HOST6, OUTSIDE, OUTSIDE6, Site};
use super::traffic::{Server, answers, answers_tcp, is_cut};
use crate::support::requires::requires;

#[test]
fn both_families_work_alike() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --ipv6 --subnet fd00:5::/64 --subnet 10.70.0.0/24 net");
    site.ok("network create --ipv6 --subnet fd00:6::/64 apart");
    let web = site.run("web", "--network net -p 8080:80 -p 8080:80/udp");
    let peer = site.run("peer", "--network net --ip6 fd00:5::99");
    let stranger = site.run("stranger", "--network apart");
    let _servers = [&web, &peer, &stranger].map(|each| Server::start(&each.inside, &each.name, 80));
    let address = site.address6("web", "net");
    assert!(address.starts_with("fd00:5::"), "{address}");
    assert_eq!(site.address6("peer", "net"), "fd00:5::99");
    answers(&peer.inside, &format!("[{address}]:80"), "web fd00:5::99");
    answers(&web.inside, "[fd00:5::99]:80", &format!("peer {address}"));
    is_cut(&stranger.inside, "[fd00:5::99]:80");
    // Inwards, with the source's own address; outwards with the host's.
    answers(&site.outside, &format!("[{HOST6}]:8080"), &format!("web {OUTSIDE6}"));
    answers(&site.outside, &format!("{HOST}:8080"), &format!("web {OUTSIDE}"));
    let _far = Server::start(&site.outside, "far", 7);
    answers(&peer.inside, &format!("[{OUTSIDE6}]:7"), &format!("far {HOST6}"));
    // The host through its loopback, itself, and the publisher through the host.
    for (from, to) in
        [(&site.host, "[::1]:8080"), (&site.host, "[2001:db8::1]:8080"), (&web.inside, "[2001:db8::1]:8080")]
    {
        let answer = super::traffic::tcp(from, to, std::time::Duration::from_secs(3));
        assert!(answer.as_deref().is_ok_and(|text| text.starts_with("web ")), "{to}: {answer:?}");
    }
    // Who knows the way from outside is not let in.
    site.outside.run("ip", &["route", "add", "fd00:5::/64", "via", HOST6]);
    is_cut(&site.outside, "[fd00:5::99]:80");
    // Names have both, and back.
    assert_eq!(ask(&peer.inside, "web", AAAA, Way::Udp).answers, std::slice::from_ref(&address));
    assert_eq!(ask(&peer.inside, "web", A, Way::Udp).answers, [site.address("web", "net")]);
    assert_eq!(ask(&peer.inside, &backwards(&address), PTR, Way::Udp).answers, ["web.net"]);
    let hosts = site.sh("peer", "cat /etc/hosts");
    assert!(hosts.contains("fd00:5::99\t"), "{hosts}");
    // Where there is no IPv6, there is none.
    site.run("plain", "");
    let text = site.sh("plain", "cat /proc/net/if_inet6");
    assert!(!text.lines().any(|line| line.ends_with(" eth0")), "{text}");
    site.refuses(
        "run --rm --network bridge --ip6 fd00::9 busybox true",
        "user specified IP address is supported on user defined networks only",
    );
}

#[test]
fn a_network_can_be_without_ipv4() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --ipv4=false --ipv6 --subnet fd00:7::/64 six");
    let (a, b) = (site.run("ann", "--network six -p 8080:80"), site.run("bob", "--network six"));
    let _servers = [&a, &b].map(|each| Server::start(&each.inside, &each.name, 80));
    answers(
        &a.inside,
        &format!("[{}]:80", site.address6("bob", "six")),
        &format!("bob {}", site.address6("ann", "six")),
    );
    assert_eq!(site.inspect("ann")["NetworkSettings"]["Networks"]["six"]["IPAddress"], "");
    answers_tcp(&site.outside, &format!("[{HOST6}]:8080"), &format!("ann {OUTSIDE6}"));
    assert_eq!(ask(&a.inside, "bob", A, Way::Udp).answers, Vec::<String>::new());
}

#[test]
fn subnets_nobody_chose_are_found() {
    requires!(root, docker, iproute);
    let site = Site::new();
    site.ok("network create --ipv6 one");
    site.ok("network create --ipv6 two");
    let subnet = |name: &str| {
        let config = site.network(name)["IPAM"]["Config"].clone();
        let list = config.as_array().cloned().unwrap_or_default();
        list.iter()
            .filter_map(|pool| pool["Subnet"].as_str())
            .find(|text| text.contains(':'))
            .map(str::to_owned)
    };
    let (one, two) = (subnet("one"), subnet("two"));
    assert!(one.is_some() && two.is_some() && one != two, "{one:?} {two:?}");
    assert!(one.as_deref().is_some_and(|text| text.starts_with("fd") && text.ends_with("/64")), "{one:?}");
    // The default bridge, if asked.
    let six = Site::with(&["--ipv6", "--fixed-cidr-v6", "fd00:8::/64"]);
    six.run("ann", "");
    assert!(six.address6("ann", "bridge").starts_with("fd00:8::"));
}
